# Perl's DBI with DBD::Pg, see README.md.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:pg_types :async);

$| = 1;

sub ok { print "ok $_[0]\n" }

sub connect_now {
    return DBI->connect("dbi:Pg:", $ENV{PGUSER}, $ENV{PGPASSWORD},
        {RaiseError => 1, PrintError => 0, AutoCommit => 1});
}

my $db = connect_now();
my @row = $db->selectrow_array("SELECT ?::int + 1, ?::text", undef, 41, "plain");
die "params" unless $row[0] == 42 && $row[1] eq "plain";
ok("params");
my $p = $db->prepare("SELECT ?::int * 2", {pg_prepare_now => 1});
for my $i (0 .. 19) {
    $p->execute($i);
    die "prepared" unless $p->fetchrow_array == 2 * $i;
}
ok("prepared");
$db->do("SET client_min_messages = warning");
$db->do("DROP TABLE IF EXISTS c_dbi");
$db->do("CREATE TABLE c_dbi (i int, s text)");
$db->begin_work;
$db->do("INSERT INTO c_dbi VALUES (?, ?)", undef, 1, "a");
$db->rollback;
die "rolled back" unless $db->selectrow_array("SELECT count(*) FROM c_dbi") == 0;
$db->begin_work;
$db->do("INSERT INTO c_dbi VALUES (?, ?)", undef, 1, "a");
$db->commit;
ok("transaction");
$db->do("COPY c_dbi FROM STDIN");
$db->pg_putcopydata("$_\t" . ("y" x 100) . "\n") for 2 .. 20000;
$db->pg_putcopyend;
$db->do("COPY (SELECT i FROM c_dbi ORDER BY i) TO STDOUT");
my ($n, $line) = (0);
while ($db->pg_getcopydata($line) >= 0) {
    die "copy: $line" unless $line == ++$n;
}
die "copy: $n" unless $n == 20000;
ok("copy");
my $all = $db->selectall_arrayref("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i");
die "large" unless @$all == 20000 && $all->[19999][0] == 20000 && length($all->[7][1]) == 1000;
ok("large");
my $begun = time;
my $sleep = $db->prepare("SELECT pg_sleep(30)", {pg_async => PG_ASYNC});
$sleep->execute;
select(undef, undef, undef, 0.3);
$sleep->pg_cancel;
die "cancel" unless time - $begun < 15 && $db->selectrow_array("SELECT 1") == 1;
ok("cancel");
$db->do("LISTEN c_dbi");
my $other = connect_now();
$other->do("NOTIFY c_dbi, 'hello'");
$other->disconnect;
my ($note, $until) = (undef, time + 10);
while (!($note = $db->pg_notifies) && time < $until) { select(undef, undef, undef, 0.01) }
die "notify" unless $note && $note->[2] eq "hello";
ok("notify");
print "ready\n";
<STDIN>;
eval { $db->selectrow_array("SELECT 1"); 1 } and die "the session is still there";
print "lost ", ($db->state || "-"), "\n";
$until = time + 15;
undef $db;
until ($db) {
    $db = eval { connect_now() };
    die "not again: $@" if !$db && time > $until;
}
$db->do("INSERT INTO c_dbi VALUES (0, 'again')");
print "again\n";
