"""A StatefulSet without Kubernetes: pods with stable names, a volume each, and a new IP address at each start."""

import gzip
import hashlib
import http.client
import io
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
import threading
import time

import psycopg2

import dns
from suite import LIVE, PATIENCE

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.realpath(os.path.join(HERE, "..", ".."))
BUILD = os.environ.get("HOLDFAST_BUILD", os.path.join(ROOT, "build"))
DOMAIN, NAMESPACE, GATEWAY = "cluster.local", "prod", "10.77.0.1"
SERVICE_LAG_S = 2.0  # how late Services learn that a pod is being ended: the API, then kube-proxy on each machine
APP = {"app_role": "app", "app_password": "secret", "app_database": "app"}


def sh(*argv):
    subprocess.run(argv, check=True, capture_output=True, text=True)


def wait_for(what, fn, seconds=60):
    """Until fn() gives something true, which is returned."""
    end = time.monotonic() + seconds * PATIENCE
    while True:
        got = fn()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


# -- the image ------------------------------------------------------------------------------------------------------


class Image:
    """The tar, read as a container engine reads it, and its file system."""

    def __init__(self, path, where):
        self.path = path
        with tarfile.open(path) as tar:
            self.files = {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}
        index = json.loads(self.files["index.json"])
        self.manifest = json.loads(self.blob(index["manifests"][0]["digest"]))
        self.config = json.loads(self.blob(self.manifest["config"]["digest"]))
        self.rootfs = os.path.join(where, "rootfs")
        for layer, diff_id in zip(self.manifest["layers"], self.config["rootfs"]["diff_ids"]):
            plain = gzip.decompress(self.blob(layer["digest"]))
            assert "sha256:" + hashlib.sha256(plain).hexdigest() == diff_id
            with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
                tar.extractall(self.rootfs, numeric_owner=True)
        # Mount points that the engine makes.
        for directory in ("mnt", "proc", "dev", "tmp"):
            os.makedirs(os.path.join(self.rootfs, directory), exist_ok=True)
        for file in ("hosts", "resolv.conf", "hostname"):
            open(os.path.join(self.rootfs, "etc", file), "a", encoding="ascii").close()

    def blob(self, digest):
        data = self.files["blobs/" + digest.replace(":", "/")]
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
        return data

    @property
    def env(self):
        return dict(v.split("=", 1) for v in self.config["config"]["Env"])


# -- network --------------------------------------------------------------------------------------------------------


class Network:
    """A bridge with DNS; every pod gets an address that no pod had before."""

    def __init__(self):
        # With an address of its own: else it takes another whenever a port comes or goes.
        sh("ip", "link", "add", "pods", "address", "02:00:0a:4d:00:01", "type", "bridge")
        sh("ip", "addr", "add", f"{GATEWAY}/16", "dev", "pods")
        sh("ip", "link", "set", "pods", "up")
        self.dns = dns.Server(GATEWAY)
        self.next = 10

    def attach(self, name):
        """A network namespace and the pod's address in it."""
        self.next += 1
        ns, ip = f"{name}-{self.next}", f"10.77.{self.next // 250}.{self.next % 250 + 2}"
        veth, peer = f"v{self.next}", f"p{self.next}"
        sh("ip", "netns", "add", ns)
        sh("ip", "link", "add", veth, "type", "veth", "peer", "name", peer)
        sh("ip", "link", "set", peer, "netns", ns)
        sh("ip", "link", "set", veth, "master", "pods", "up")
        for args in (["link", "set", "lo", "up"], ["link", "set", peer, "name", "eth0"],
                     ["addr", "add", f"{ip}/16", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            sh("ip", "-n", ns, *args)
        return ns, ip

    @staticmethod
    def detach(ns):
        sh("ip", "netns", "del", ns)

    def close(self):
        self.dns.close()
        sh("ip", "link", "del", "pods")


# -- pods -----------------------------------------------------------------------------------------------------------


class Pod:
    """One life of a pod: a network, processes. Its volume belongs to the StatefulSet."""

    def __init__(self, set_, ordinal):
        self.set, self.ordinal, self.name = set_, ordinal, f"{set_.name}-{ordinal}"
        self.ns, self.ip = set_.network.attach(self.name)
        self.files = os.path.join(set_.dir, "pods", self.ns)
        os.makedirs(os.path.join(self.files, "root"))
        full = f"{self.name}.{set_.service}.{NAMESPACE}.svc.{DOMAIN}"
        for name, text in (
                ("hosts", f"127.0.0.1\tlocalhost\n{self.ip}\t{full}\t{self.name}\n"), ("hostname", self.name + "\n"),
                ("resolv.conf", f"nameserver {GATEWAY}\nsearch {NAMESPACE}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\n"
                                "options ndots:5\n")):
            with open(os.path.join(self.files, name), "w", encoding="ascii") as f:
                f.write(text)
        set_.mount_volume(ordinal)
        config = set_.image.config["config"]
        spec = {"name": self.name, "root": os.path.join(self.files, "root"), "image": set_.image.rootfs,
                "files": self.files, "volume": set_.volume(ordinal), "directories": set_.directories, "account": set_.account,
                "uid": set_.uid, "gid": set_.uid, "fs_group": set_.fs_group,
                "argv": config["Entrypoint"] + config["Cmd"],
                "env": {**set_.image.env, "KUBERNETES_SERVICE_HOST": "10.96.0.1", **set_.env}}
        with open(os.path.join(self.files, "spec.json"), "w", encoding="utf-8") as f:
            json.dump(spec, f)
        self.log = open(os.path.join(set_.dir, f"{self.name}.log"), "ab")
        self.process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.ns}", "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork",
             "--kill-child", "/usr/bin/python3", "-B", os.path.join(HERE, "podinit.py"),
             os.path.join(self.files, "spec.json")],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
        set_.network.dns.names[full] = [self.ip]
        set_.pods[ordinal] = self  # the service has it as soon as its name is there
        set_.publish()

    @property
    def running(self):
        return self.process.poll() is None

    @property
    def init(self):
        """The pod's first process, as this side sees it."""
        try:
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as f:
                return int(f.read().split()[0])
        except (OSError, IndexError):
            return None

    def signal(self, number):
        pid = self.init
        if pid is not None and self.running:
            os.kill(pid, number)

    def http(self, path, timeout=2.0):
        """(status, text); (0, why) if nobody answers."""
        try:
            c = http.client.HTTPConnection(self.ip, 8080, timeout=timeout)
            c.request("GET", path)
            answer = c.getresponse()
            return answer.status, answer.read().decode()
        except OSError as e:
            return 0, str(e)

    def status(self):
        code, text = self.http("/status")
        return json.loads(text) if code == 200 else {}

    @property
    def ready(self):
        return self.running and self.http("/readyz")[0] == 200

    def connect(self, port=5432, **options):
        return psycopg2.connect(host=self.ip, port=port, user="app", password="secret", dbname="app",
                                connect_timeout=15, sslmode="disable", **options)

    def exec(self, *argv, timeout=120):
        """As `kubectl exec`: in the pod's namespaces, as its user."""
        return subprocess.run(
            ["nsenter", "-t", str(self.init), "-m", "-n", "-p", "-u", "-i", "-r", "-w", "-S", str(self.set.uid),
             "-G", str(self.set.uid), *argv],
            env={**self.set.image.env, "KUBERNETES_SERVICE_HOST": "10.96.0.1", **self.set.env}, capture_output=True,
            text=True, timeout=timeout, check=False)

    def kill(self):
        """SIGKILL to the first process: the kernel ends all the others before its end is reported."""
        while self.running and (pid := self.init) is None:
            time.sleep(0.01)
        if self.running:
            os.kill(pid, signal.SIGKILL)

    def delete(self, grace=30.0):
        """As `kubectl delete pod`: SIGTERM, the grace period, SIGKILL. Returns the exit status; grace 0: SIGKILL."""
        if grace > 0:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(grace * PATIENCE)
            except subprocess.TimeoutExpired:
                pass
        self.kill()
        status = self.process.wait()
        self.set.network.dns.names.pop(f"{self.name}.{self.set.service}.{NAMESPACE}.svc.{DOMAIN}", None)
        self.set.publish()
        self.set.network.detach(self.ns)
        self.log.close()
        return status


class StatefulSet:
    """Its pods stop at once unless `stop_delay_ms` says otherwise (None: as by default)."""

    def __init__(self, network, image_, directory, name="demo", replicas=3, env=None, uid=None, fs_group=26,
                 certificates=True, stop_delay_ms=0):
        self.network, self.image, self.dir, self.name = network, image_, directory, name
        self.service = name + "-nodes"
        self.uid = int(image_.config["config"]["User"].split(":")[0]) if uid is None else uid
        self.fs_group = fs_group
        self.pods, self.replicas = {}, replicas
        os.makedirs(directory)
        self.env = {"HOLDFAST_REPLICAS": str(replicas), "HOLDFAST_CREDENTIALS": "/etc/holdfast/credentials/accounts.json",
                    **(env or {})}
        if stop_delay_ms is not None:
            self.env["HOLDFAST_STOP_DELAY_MS"] = str(stop_delay_ms)
        self.ending = []  # (pod, until when Services still send to it)
        if _ephemeral(directory):
            self.env["HOLDFAST_ALLOW_EPHEMERAL"] = "1"
        self.directories, self.account = {}, None
        self.config_volume("credentials", {"accounts.json": json.dumps({"accounts": APP}).encode()})
        if certificates:
            self.holdfast("certs", "make", "--dir", self.pki, "--name", name, "--service", self.service,
                          "--namespace", NAMESPACE)
            self.mount_certificates()
        LIVE.append(self)

    # -- what Kubernetes gives to pods ------------------------------------------------------------------------

    @property
    def pki(self):
        return os.path.join(self.dir, "pki")

    def holdfast(self, *argv):
        done = subprocess.run([os.path.join(BUILD, "holdfast"), *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def config_volume(self, name, files):
        """A Secret's or ConfigMap's volume: files are links through ..data, which is swapped in one step."""
        where = os.path.join(self.dir, "volumes", name)
        os.makedirs(where, exist_ok=True)
        self.directories[name] = where
        version = f"..v{time.monotonic_ns()}"
        os.mkdir(os.path.join(where, version))
        for file, data in files.items():
            path = os.path.join(where, version, file)
            with open(path, "wb") as f:
                f.write(data)
            os.chmod(path, 0o440)  # defaultMode with an fsGroup
            os.chown(path, 0, self.fs_group)
        old = os.path.realpath(os.path.join(where, "..data"))
        os.symlink(version, os.path.join(where, "..data_tmp"))
        os.rename(os.path.join(where, "..data_tmp"), os.path.join(where, "..data"))
        for file in files:
            if not os.path.islink(os.path.join(where, file)):
                os.symlink(f"..data/{file}", os.path.join(where, file))
        if os.path.basename(old).startswith("..v"):
            shutil.rmtree(old)

    def mount_certificates(self):
        files = {}
        for key, file in (("ca.crt", "ca.crt"), ("tls.crt", "node.crt"), ("tls.key", "node.key")):
            with open(os.path.join(self.pki, file), "rb") as f:
                files[key] = f.read()
        self.config_volume("tls", files)

    def volume(self, ordinal):
        return os.path.join(self.dir, "claims", f"data-{self.name}-{ordinal}")

    def mount_volume(self, ordinal):
        """A file system's root: it has lost+found, root owns it, and fsGroup makes all of it the group's."""
        where = self.volume(ordinal)
        os.makedirs(os.path.join(where, "lost+found"), 0o700, exist_ok=True)
        for base, dirs, files in os.walk(where):
            for entry in [*dirs, *files]:
                path = os.path.join(base, entry)
                if not os.path.islink(path) and entry != "lost+found":
                    os.chown(path, -1, self.fs_group)
                    mode = os.stat(path).st_mode & 0o7777
                    os.chmod(path, mode | (0o2070 if os.path.isdir(path) else 0o060))
        os.chown(where, 0, self.fs_group)
        os.chmod(where, 0o2770)

    def publish(self):
        """The headless service: all pods, ready or not (publishNotReadyAddresses)."""
        self.network.dns.names[f"{self.service}.{NAMESPACE}.svc.{DOMAIN}"] = [
            p.ip for p in self.pods.values() if p.running]

    # -- as the controller does ------------------------------------------------------------------------------

    def start(self, *ordinals):
        for i in ordinals or range(self.replicas):
            Pod(self, i)

    def found(self):
        """The first start: until every pod streams, and the application's role is there."""
        def answers():
            try:
                with self.pods[0].connect():
                    return True
            except psycopg2.Error:
                return False
        self.start()
        self.wait_streaming()
        wait_for("the role app", answers)

    def endpoints(self):
        """Where Services send new clients: what is ready, and what was when its end began a moment ago."""
        now = time.monotonic()
        return [p for p in list(self.pods.values()) if p.ready] + [p for p, until in list(self.ending) if now < until]

    def delete(self, ordinal, grace=30.0, volume=False):
        pod = self.pods.pop(ordinal)
        if grace > 0 and pod.ready:
            self.ending.append((pod, time.monotonic() + SERVICE_LAG_S))
        status = pod.delete(grace)
        if volume:
            shutil.rmtree(self.volume(ordinal))
        return status

    def replace(self, ordinal, grace=30.0, volume=False):
        """`kubectl delete pod`, and what the controller does then."""
        self.delete(ordinal, grace, volume)
        self.start(ordinal)

    def restart_dead(self):
        """The kubelet's part: containers that have ended start again."""
        for i in list(self.pods):
            if not self.pods[i].running:
                self.replace(i, 0)

    def kill_all(self):
        for p in self.pods.values():
            p.kill()
        for i in list(self.pods):
            self.delete(i, 0)

    # -- looking ---------------------------------------------------------------------------------------------

    def leader(self):
        """The pod whose gate is open; None."""
        open_ = [p for p in self.pods.values() if p.running and p.http("/leader")[0] == 200]
        assert len(open_) < 2, "two gates are open"
        return open_[0] if open_ else None

    def wait_leader(self, seconds=60, other_than=None, after_epoch=0):
        return wait_for("a leader", lambda: (p := self.leader()) and p.name != other_than and
                        p.status()["epoch"] > after_epoch and p, seconds)

    def wait_ready(self, seconds=60):
        wait_for("every pod ready", lambda: all(p.ready for p in self.pods.values()), seconds)

    def voters(self):
        leader = self.leader()
        return sorted(m["name"] for m in (leader.status() if leader else {}).get("members", []) if m["voter"])

    def wait_streaming(self, n=None, seconds=90):
        """`n` voters, the leader and followers that stream."""
        n = n or len(self.pods)

        def look():
            leader = self.leader()
            status = leader.status() if leader else {}
            members = status.get("members", [])
            # Settled: until Raft's own configuration has followed, a voter does not count in elections.
            return status.get("settled") and len(members) == n and all(m["voter"] for m in members) and \
                sum(m["streaming"] for m in members) == n - 1
        wait_for(f"{n} voters, all streaming", look, seconds)

    def log_text(self, ordinal):
        with open(os.path.join(self.dir, f"{self.name}-{ordinal}.log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def dump(self):
        text = []
        for i in range(16):
            if os.path.exists(os.path.join(self.dir, f"{self.name}-{i}.log")):
                pg = os.path.join(self.volume(i), "node", "log", "postgresql.log")
                text.append(f"==== {self.name}-{i}\n" + "\n".join(self.log_text(i).splitlines()[-60:]))
                if os.path.exists(pg):
                    with open(pg, encoding="utf-8", errors="replace") as f:
                        text.append("---- postgresql.log\n" + "\n".join(f.read().splitlines()[-15:]))
        return "\n".join(text)

    def destroy(self):
        for i in list(self.pods):
            self.delete(i, 0)
        LIVE.remove(self)
        shutil.rmtree(self.dir, ignore_errors=True)


def _ephemeral(directory):
    kind = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True).stdout
    return any(word in kind for word in ("tmpfs", "overlay"))


# -- clients --------------------------------------------------------------------------------------------------------


class Clients(threading.Thread):
    """One session after another through a Service (a random one of its pods for each new connection), inserting numbers and
    trying again on any error. Afterwards every acknowledged number must be there."""

    def __init__(self, set_, table):
        super().__init__(daemon=True)
        self.set, self.table = set_, table
        self.halt, self.acknowledged, self.broken, self.refused, self.gap = threading.Event(), [], [], [], 0.0
        with set_.wait_leader().connect() as c, c.cursor() as cursor:
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} (n bigint PRIMARY KEY)")

    def run(self):
        connection, n, last = None, 0, time.monotonic()
        while not self.halt.is_set():
            try:
                if connection is None:
                    to = self.set.endpoints()
                    if not to:
                        time.sleep(0.02)
                        continue
                    connection = random.choice(to).connect()
                    connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(f"INSERT INTO {self.table} VALUES (%s) ON CONFLICT DO NOTHING", (n,))
                self.acknowledged.append(n)
                self.gap = max(self.gap, time.monotonic() - last)
                last, n = time.monotonic(), n + 1
                time.sleep(0.005)
            except psycopg2.Error as e:
                (self.broken if connection is not None else self.refused).append(str(e).strip())
                if connection is not None:
                    connection.close()
                connection = None

    def finish(self):
        self.halt.set()
        self.join(60)
        with self.set.wait_leader().connect() as c, c.cursor() as cursor:
            cursor.execute(f"SELECT n FROM {self.table}")
            there = {n for n, in cursor.fetchall()}
        lost = [n for n in self.acknowledged if n not in there]
        assert not lost, f"acknowledged and lost: {lost[:10]}"
        assert self.acknowledged, "nothing was written"
        print(f"{len(self.acknowledged)} acknowledged, {len(self.broken)} sessions ended, "
              f"{len(self.refused)} connections failed, longest gap {self.gap * 1000:.0f} ms")
