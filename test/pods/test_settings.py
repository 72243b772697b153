"""PostgreSQL's settings from a ConfigMap's volume that changes under running pods."""

import pytest

import pods

FILE = {"HOLDFAST_SETTINGS_FILE": "/etc/holdfast/settings/postgresql.conf"}


def configure(s, text):
    s.config_volume("settings", {"postgresql.conf": text.encode()})


def show(pod, name):
    """By the read-only port a follower answers, perhaps another: each is asked through its own socket."""
    done = pod.exec("/usr/local/bin/psql", "-XAtq", "-h", "/var/lib/holdfast/node/sock", "-U", "holdfast", "-d",
                    "postgres", "-c", f"SHOW {name}")
    return done.stdout.strip()


def everywhere(s, name, value, seconds=60):
    pods.wait_for(f"{name} = {value} everywhere", lambda: [show(p, name) for p in s.pods.values()] == [value] * len(
        s.pods), seconds)


def starts(s):
    """How often each pod's server has started."""
    counts = []
    for i in s.pods:
        with open(f"{s.volume(i)}/node/log/postgresql.log", encoding="utf-8", errors="replace") as f:
            counts.append(f.read().count("starting PostgreSQL"))
    return counts


@pytest.fixture
def configured(stateful):
    def make(text):
        s = stateful(env=FILE)
        configure(s, text)
        s.found()
        return s
    return make


def test_reload_and_refusal(configured):
    s = configured("work_mem = 5MB\n")
    everywhere(s, "work_mem", "5MB")
    assert not any("refused" in s.log_text(i) for i in s.pods), "a new pod refuses settings, for it has no data yet"
    before = starts(s)
    configure(s, "# more\nwork_mem = '6MB' # for sorting\nlog_min_duration_statement = 250ms\n")
    everywhere(s, "work_mem", "6MB")
    everywhere(s, "log_min_duration_statement", "250ms")
    # Refused, with the reason, and what was in force stays.
    for text, why in (("work_mem = 7MB\nfsync = off\n", "line 2: fsync is set by Holdfast: without it an acknowledged"),
                      ("work_mem = banana\n", "PostgreSQL refuses them"),
                      ("no_such_setting = 1\n", "unrecognized configuration parameter"),
                      ("include = '/etc/passwd'\n", "include is set by Holdfast")):
        configure(s, text)
        pods.wait_for(why, lambda: all(why in s.log_text(i) for i in s.pods), 30)  # pylint: disable=W0640
        assert why in s.leader().status()["settings_problem"]
        assert [show(p, "work_mem") for p in s.pods.values()] == ["6MB"] * 3
    # A pod that restarts with a bad file goes on with what was good.
    s.replace(2)
    s.wait_streaming()
    assert show(s.pods[2], "work_mem") == "6MB"
    configure(s, "work_mem = 8MB\n")
    everywhere(s, "work_mem", "8MB")
    assert starts(s)[:2] == before[:2], "a server was restarted for what needs none"


def test_one_at_a_time(configured):
    s = configured("max_connections = 110\n")
    everywhere(s, "max_connections", "110")
    client = pods.Clients(s, "c")
    client.start()
    before, old = starts(s), s.leader().name
    configure(s, "max_connections = 150\n")
    down = []

    def watch():
        down.append(sum(not p.status().get("members") and p.status().get("state") not in ("streaming", "open", "shut")
                        for p in s.pods.values()))
        return [show(p, "max_connections") for p in s.pods.values()] == ["150"] * 3
    pods.wait_for("max_connections = 150 everywhere", watch, 120)
    s.wait_streaming()
    client.finish()
    assert not client.refused, client.refused[:3]
    assert max(down) <= 1, f"{max(down)} at once"
    assert s.leader().name != old
    assert all(after - b in (1, 2) for after, b in zip(starts(s), before)), (before, starts(s))
    assert not s.leader().status()["settings_pending_restart"]
    # Libraries of theirs come beside Holdfast's own.
    configure(s, "max_connections = 150\nshared_preload_libraries = 'auto_explain'\n")
    pods.wait_for("auto_explain", lambda: all(show(p, "shared_preload_libraries").startswith("auto_explain, ")
                                              for p in s.pods.values()), 120)
    # In the order followers, leader: each was told by the leader of the time.
    told = [line for i in s.pods for line in s.log_text(i).splitlines() if "settings: restarting PostgreSQL" in line
            or "handing over to restart" in line]
    told = sorted(told)[:3]
    assert "handing over" in told[-1], told


def test_a_bad_first_file_is_told(stateful):
    s = stateful(replicas=1, env=FILE)
    configure(s, "port = 5433\n")
    s.start()
    pods.wait_for("the reason", lambda: "port is set by Holdfast" in s.log_text(0), 30)
    pods.wait_for("its end", lambda: not s.pods[0].running, 30)
    configure(s, "work_mem = 9MB\n")
    s.restart_dead()
    s.wait_streaming()
    everywhere(s, "work_mem", "9MB")
