"""The image itself: what is in it, and that a container engine can read it."""

import json
import os
import shutil
import stat
import subprocess
import tarfile

import pytest

import pods


@pytest.mark.quick
def test_what_is_in_it(image):
    config = image.config["config"]
    assert config["User"] == "26:26" and config["Entrypoint"] == ["/usr/local/bin/holdfast"]
    assert os.path.getsize(image.path) < 150 * 1024 * 1024
    bad, shells = [], []
    for base, _dirs, files in os.walk(image.rootfs):
        for file in files:
            path = os.path.join(base, file)
            if os.path.islink(path):
                continue
            mode = os.stat(path).st_mode
            if mode & (stat.S_ISUID | stat.S_ISGID) or mode & stat.S_IWOTH:
                bad.append(path)
            if mode & stat.S_IXUSR and file in ("sh", "dash", "bash", "perl", "python3", "apt", "dpkg", "busybox"):
                shells.append(file)
    assert not bad
    assert shells == ["dash"]  # popen(3) of PostgreSQL's own tools
    with open(os.path.join(image.rootfs, "usr/share/sbom/holdfast.spdx.json"), encoding="utf-8") as f:
        listing = json.load(f)
    names = {p["name"]: p for p in listing["packages"]}
    status = os.listdir(os.path.join(image.rootfs, "var/lib/dpkg/status.d"))
    assert set(names) == {"holdfast", *status}
    for package in status:
        assert os.path.exists(os.path.join(image.rootfs, "usr/share/doc", package, "copyright")), package
        assert names[package]["checksums"][0]["checksumValue"]
    # initdb must not try huge pages: a pod whose machine has some, and that may have none, is given them, and a SIGBUS.
    sample = subprocess.run(["find", image.rootfs, "-name", "postgresql.conf.sample"], check=True, capture_output=True, text=True).stdout.split()
    with open(sample[0], encoding="utf-8") as f:
        assert len(sample) == 1 and f.read().rstrip().endswith("\nhuge_pages = off")
    # Everything that can be started finds its libraries.
    for program in ("/usr/local/bin/holdfast", *(f"/usr/local/bin/{p}" for p in (
            "psql", "pg_dump", "pg_isready", "pg_controldata"))):
        subprocess.run(["chroot", image.rootfs, program, "--version"], check=True, capture_output=True)


@pytest.mark.quick
def test_both_formats(image):
    """`docker load` reads manifest.json, containerd index.json: both lead to the same layers."""
    with tarfile.open(image.path) as tar:
        docker, = json.load(tar.extractfile("manifest.json"))
        assert json.load(tar.extractfile("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        assert docker["RepoTags"][0].startswith("holdfast:")
        assert ["sha256:" + os.path.basename(layer) for layer in docker["Layers"]] == [
            layer["digest"] for layer in image.manifest["layers"]]
        assert docker["Config"].endswith(image.manifest["config"]["digest"].split(":")[1])
    if shutil.which("skopeo"):  # other people's readers, where they are
        for source in (f"oci-archive:{image.path}", f"docker-archive:{image.path}"):
            done = subprocess.run(["skopeo", "inspect", "--config", source], check=True, capture_output=True, text=True)
            assert json.loads(done.stdout)["config"]["User"] == "26:26"


def test_the_same_again(image, tmp_path):
    """The same commit and packages give the same bytes."""
    subprocess.run([os.path.join(pods.ROOT, "deploy", "image", "build"), pods.BUILD, str(tmp_path)], check=True,
                   capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1"})
    with open(image.path, "rb") as a, open(tmp_path / "holdfast-image.tar", "rb") as b:
        assert a.read() == b.read()
