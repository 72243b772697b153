/* JDBC, see README.md. */
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class Client {
    static Connection connect() throws SQLException {
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/"
            + System.getenv("PGDATABASE") + "?connectTimeout=10&sslmode=require";
        return DriverManager.getConnection(url, System.getenv("PGUSER"), System.getenv("PGPASSWORD"));
    }

    static void ok(String step) {
        System.out.println("ok " + step);
    }

    static void check(boolean good, String what) {
        if (!good)
            throw new IllegalStateException(what);
    }

    static int number(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            r.next();
            return r.getInt(1);
        }
    }

    static void run(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.execute(sql);
        }
    }

    static void basics(Connection c) throws Exception {
        try (PreparedStatement p = c.prepareStatement("SELECT ?::int + 1, ?::text")) {
            p.setInt(1, 41);
            p.setString(2, "text");
            try (ResultSet r = p.executeQuery()) {
                check(r.next() && r.getInt(1) == 42 && r.getString(2).equals("text"), "params");
            }
        }
        ok("params");
        try (PreparedStatement p = c.prepareStatement("SELECT ?::int * 2")) {
            for (int i = 0; i < 20; i++) { /* the driver names it after five */
                p.setInt(1, i);
                try (ResultSet r = p.executeQuery()) {
                    check(r.next() && r.getInt(1) == 2 * i, "prepared");
                }
            }
        }
        ok("prepared");
        run(c, "DROP TABLE IF EXISTS c_jdbc");
        run(c, "CREATE TABLE c_jdbc (i int, s text)");
        c.setAutoCommit(false);
        run(c, "INSERT INTO c_jdbc VALUES (1, 'a')");
        c.rollback();
        check(number(c, "SELECT count(*) FROM c_jdbc") == 0, "rolled back");
        run(c, "INSERT INTO c_jdbc VALUES (1, 'a')");
        c.commit();
        c.setAutoCommit(true);
        ok("transaction");
        StringBuilder lines = new StringBuilder();
        for (int i = 2; i <= 20000; i++)
            lines.append(i).append("\tyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n");
        CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
        check(copy.copyIn("COPY c_jdbc FROM STDIN", new StringReader(lines.toString())) == 19999, "copy in");
        StringWriter out = new StringWriter();
        check(copy.copyOut("COPY (SELECT i FROM c_jdbc ORDER BY i) TO STDOUT", out) == 20000, "copy out");
        ok("copy");
    }

    static void more(Connection c) throws Exception {
        c.setAutoCommit(false); /* so that the driver fetches by a cursor */
        try (Statement s = c.createStatement()) {
            s.setFetchSize(500);
            int n = 0;
            try (ResultSet r = s.executeQuery("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")) {
                while (r.next())
                    check(r.getInt(1) == ++n && r.getString(2).length() == 1000, "large");
            }
            check(n == 20000, "large");
        }
        c.commit();
        c.setAutoCommit(true);
        ok("large");
        long begun = System.nanoTime();
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1); /* the driver sends a cancel */
            s.execute("SELECT pg_sleep(30)");
            check(false, "not cancelled");
        } catch (SQLException e) {
            check("57014".equals(e.getSQLState()), e.toString());
        }
        check(System.nanoTime() - begun < 15_000_000_000L && number(c, "SELECT 1") == 1, "cancel");
        ok("cancel");
        run(c, "LISTEN c_jdbc");
        try (Connection other = connect()) {
            run(other, "NOTIFY c_jdbc, 'hello'");
        }
        var notes = c.unwrap(PGConnection.class).getNotifications(10000);
        check(notes != null && notes.length == 1 && notes[0].getParameter().equals("hello"), "notify");
        ok("notify");
    }

    public static void main(String[] args) throws Exception {
        Connection c = connect();
        basics(c);
        more(c);
        System.out.println("ready");
        new BufferedReader(new InputStreamReader(System.in)).readLine();
        try {
            number(c, "SELECT 1");
            check(false, "the session is still there");
        } catch (SQLException e) {
            System.out.println("lost " + e.getSQLState());
        }
        long until = System.nanoTime() + 15_000_000_000L;
        for (c = null; c == null;) {
            try {
                c = connect();
            } catch (SQLException e) {
                check(System.nanoTime() < until, e.toString());
            }
        }
        run(c, "INSERT INTO c_jdbc VALUES (0, 'again')");
        System.out.println("again");
    }
}
