"""PostgreSQL's own suites of tests: fetching and building them, and one run of each against a server. A run gives
{test: all that it said}, and which of them did not say what PostgreSQL's source expects."""

import glob
import os
import re
import shutil
import signal
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT_S = 3600  # for what hangs
VERDICT = re.compile(r"^(?:test)?\s+(\S+)\s+\.\.\. (ok|FAILED|failed \(ignored\))(?: (\(.*\)))?", re.M)
# Specifications that PostgreSQL's makefile names beside its schedule, since they need max_prepared_transactions.
MORE_ISOLATION = ("prepared-transactions", "prepared-transactions-cic")


def finish(command, env, stdin=None):
    """Runs to the end; what hangs is ended with all that it has started."""
    with subprocess.Popen(command, env={**os.environ, **env}, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="surrogateescape", umask=0,
                          start_new_session=True) as process:
        try:
            said, _ = process.communicate(timeout=LIMIT_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, said


def read(path):
    with open(path, encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


class Suites:
    """The suites of the PostgreSQL that is installed, in a directory of their own below the build directory."""

    def __init__(self, build, only=None):
        self.only = only  # the names of tests, in their order, if not all are to run
        self.major = max(int(path.split("/")[-3]) for path in glob.glob("/usr/lib/postgresql/*/bin/pg_ctl"))
        self.library = f"/usr/lib/postgresql/{self.major}/lib"
        self.place = os.path.join(build, "regress", str(self.major))
        os.makedirs(os.path.join(self.place, "lib"), exist_ok=True)
        for directory in (build, os.path.dirname(self.place), self.place):
            os.chmod(directory, 0o755)
        subprocess.run([os.path.join(HERE, "sources"), str(self.major), self.place], check=True)
        self._build()

    def version(self):
        return read(os.path.join(self.place, "version")).strip()

    def _build(self):
        """What the server loads, and the programs that no package has. A file of the sources wants a header that
        PostgreSQL's own build makes; what it says is given here by options, and never used."""
        include = f"-I/usr/include/postgresql/{self.major}/server"
        self._compile("lib/regress.so", ["-shared", "-fPIC", include], ["regress/regress.c"], [])
        for name in ("autoinc", "refint"):
            shutil.copy(os.path.join(self.library, name + ".so"), os.path.join(self.place, "lib"))
        with open(os.path.join(self.place, "lib", "pg_config_paths.h"), "w", encoding="ascii"):
            pass
        options = [include, "-DFRONTEND", '-DPGBINDIR=""', '-DPKGLIBDIR=""', '-DDLSUFFIX=".so"',
                   '-DSHELLPROG="/bin/sh"', '-DHOST_TUPLE="linux-gnu"', "-I/usr/include/postgresql",
                   "-I/usr/include/postgresql/internal", "-Ilib", "-Iregress", "-Iisolation"]
        libraries = ["-L" + self.library, "-lpgcommon", "-lpgport", "-lpq", "-lm"]
        for program, files in (
                ("isolationtester", ["isolation/isolationtester.c", "isolation/specparse.c"]),
                ("pg_isolation_regress", ["isolation/isolation_main.c", "regress/pg_regress.c"]),
                ("libpq_pipeline", ["libpq_pipeline/libpq_pipeline.c"])):
            self._compile("lib/" + program, options, files, libraries)

    def _compile(self, result, options, files, libraries):
        subprocess.run(["cc", "-O1", "-w", *options, *files, "-o", result, *libraries], check=True, cwd=self.place)

    # ---- the suites: each takes libpq's environment and a directory for its results ------------------------------

    def regress(self, server, out):
        """SQL scripts by psql, up to twenty at a time."""
        return self._schedule(os.path.join(self.library, "pgxs/src/test/regress/pg_regress"), "regress",
                              "parallel_schedule", [f"--dlpath={self.place}/lib", "--max-connections=20"], server, out)

    def isolation(self, server, out):
        """Several sessions of one program in prescribed orders, with locks, waits, notices and cancels."""
        return self._schedule(os.path.join(self.place, "lib", "pg_isolation_regress"), "isolation",
                              "isolation_schedule", [], server, out, MORE_ISOLATION)

    def _schedule(self, program, folder, schedule, options, server, out, more=()):
        inputs = os.path.join(self.place, folder)
        tests = self._scheduled(os.path.join(inputs, schedule), more)
        if self.only is None:
            chosen = [f"--schedule={inputs}/{schedule}", *more]
        else:
            chosen = tests = [test for test in self.only if test in tests]
        code, said = finish(
            [program, f"--bindir={self.place}/psql", f"--inputdir={inputs}", f"--outputdir={out}",
             f"--host={server['PGHOST']}", f"--port={server['PGPORT']}", f"--user={server['PGUSER']}",
             *options, *chosen], server)
        results, unexpected = {}, set()
        for test, verdict, how in VERDICT.findall(said):
            results[test] = read(os.path.join(out, "results", test + ".out")) + how
            if verdict != "ok":
                unexpected.add(test)
        assert code in (0, 1) and set(results) == set(tests), said
        return results, unexpected

    @staticmethod
    def _scheduled(schedule, more):
        lines = re.findall(r"^test:(.*)", read(schedule), re.M)
        return [test for line in lines for test in line.split()] + list(more)

    def pipeline(self, server, out):
        """libpq's pipelines: what the program says, and each message of the protocol as libpq has seen it. In the tests that
        PostgreSQL has no trace of, what is sent before something is read depends on how much sockets take: there the
        program's own verdict has to do."""
        program = os.path.join(self.place, "lib", "libpq_pipeline")
        _, names = finish([program, "tests"], {})
        results, unexpected = {}, set()
        for test in names.split():
            if self.only is not None and test not in self.only:
                continue
            expected = os.path.join(self.place, "libpq_pipeline", "traces", test + ".trace")
            trace = os.path.join(out, test + ".trace")
            traced = os.path.exists(expected)
            code, said = finish([program, "-r", "700", *(["-t", trace] if traced else []), test, "dbname=postgres"], server)
            results[test] = f"exit code {code}\n" + (said + read(trace) if traced else said if code != 0 else "")
            if code != 0 or traced and read(trace) != read(expected):
                unexpected.add(test)
        return results, unexpected
