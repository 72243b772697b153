"""Debian packages as they come from the machine's own apt sources: fetched (apt checks their signatures), looked
into, never installed. No maintainer script runs, so nothing here needs root."""

import glob
import hashlib
import io
import os
import re
import subprocess
import tarfile


class Package:
    def __init__(self, path):
        self.path = path
        self.control = subprocess.run(["dpkg-deb", "-f", path], check=True, capture_output=True,
                                      text=True).stdout
        self.field = {k: v.strip() for k, v in re.findall(r"^([A-Za-z-]+): (.*)$", self.control, re.M)}
        self.name, self.version = self.field["Package"], self.field["Version"]
        with open(path, "rb") as f:
            self.sha256 = hashlib.sha256(f.read()).hexdigest()

    def members(self):
        """(tar entry, bytes or None) of every file, as the package has them."""
        data = subprocess.run(["dpkg-deb", "--fsys-tarfile", self.path], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for entry in tar:
                yield entry, tar.extractfile(entry).read() if entry.isreg() else None


def refresh():
    """apt's index, once and only if something was not found: it may be missing, or older than the packages."""
    if os.geteuid() != 0 or refresh.done:
        return False
    refresh.done = True
    return subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False).returncode == 0


refresh.done = False


def fetch(names, cache):
    """The newest versions apt would install, as Package objects; kept in `cache` from run to run."""
    os.makedirs(cache, exist_ok=True)
    if not names:
        return []
    answer = subprocess.run(["apt-cache", "show", "--no-all-versions", *sorted(names)], capture_output=True,
                            text=True, check=False)
    found = {}
    for record in answer.stdout.split("\n\n"):
        field = dict(re.findall(r"^(Package|Version|Architecture|SHA256): (.*)$", record, re.M))
        if "SHA256" in field:
            file = "{Package}_{0}_{Architecture}.deb".format(field["Version"].replace(":", "%3a"), **field)
            found[field["Package"]] = os.path.join(cache, file), field["SHA256"]
    unknown = set(names) - set(found)
    if unknown and refresh():
        return fetch(names, cache)
    if unknown:
        raise SystemExit(f"image: apt does not know {', '.join(sorted(unknown))} (hint: apt-get update)")
    missing = [n for n in sorted(names) if not os.path.exists(found[n][0])]
    if missing:
        done = subprocess.run(["apt-get", "download", "-q", *missing], capture_output=True, text=True, cwd=cache,
                              check=False)
        if done.returncode != 0 and refresh():
            return fetch(names, cache)
        if done.returncode != 0:
            raise SystemExit(f"image: apt-get download: {done.stderr.strip()} (hint: apt-get update)")
    packages = [Package(found[n][0]) for n in sorted(names)]
    for package in packages:
        if package.sha256 != found[package.name][1]:
            raise SystemExit(f"image: {package.path} is not what apt's index says (hint: remove it)")
    return packages


def owner_of(path):
    """The installed package that a file of this machine belongs to."""
    for candidate in (path, os.path.realpath(path), re.sub("^/usr", "", os.path.realpath(path))):
        answer = subprocess.run(["dpkg-query", "-S", candidate], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return answer.stdout.split(":")[0].strip()
    raise SystemExit(f"image: {path} belongs to no package")


def library(soname):
    """Where this machine has a shared library; None: nowhere."""
    found = [p for d in ("/usr/lib/*-linux-gnu", "/lib/*-linux-gnu", "/usr/lib") for p in
             glob.glob(f"{d}/{soname}")]
    return found[0] if found else None


def newest_postgresql():
    majors = [int(p.split("/")[4]) for p in glob.glob("/usr/lib/postgresql/*/bin/postgres")]
    if not majors:
        raise SystemExit("image: PostgreSQL is not installed here (hint: make deps)")
    return max(m for m in majors if m <= 17)
