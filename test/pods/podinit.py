"""Becomes the first process of a pod: its own mounts, a read-only root file system, an ordinary user without any
privilege; then the image's entry point. Runs inside new namespaces; argument: a JSON file."""

import ctypes
import json
import os
import socket
import subprocess
import sys

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38


def mount(*args):
    subprocess.run(["mount", *args], check=True)


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        spec = json.load(f)
    libc = ctypes.CDLL(None, use_errno=True)
    root = spec["root"]  # an empty directory of this pod's
    mount("--make-rprivate", "/")
    mount("--bind", spec["image"], root)
    mount("-o", "remount,bind,ro,nosuid,nodev", root)
    mount("-t", "proc", "proc", f"{root}/proc")
    mount("-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", f"{root}/dev")
    for device in ("null", "zero", "full", "random", "urandom"):
        open(f"{root}/dev/{device}", "w", encoding="ascii").close()
        mount("--bind", f"/dev/{device}", f"{root}/dev/{device}")
    os.mkdir(f"{root}/dev/shm")
    mount("-t", "tmpfs", "-o", "size=64m,mode=1777,nosuid,nodev", "tmpfs", f"{root}/dev/shm")
    mount("-t", "tmpfs", "-o", "size=16m,mode=1777,nosuid,nodev", "tmpfs", f"{root}/tmp")
    mount("-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", f"{root}/etc/holdfast")
    if spec["account"]:
        account = f"{root}/run/secrets/kubernetes.io/serviceaccount"
        mount("-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", f"{root}/run")
        os.makedirs(account)
        mount("--bind", spec["account"], account)
    for name, source in spec["directories"].items():  # below /etc/holdfast, as volumes of Secrets and ConfigMaps
        os.mkdir(f"{root}/etc/holdfast/{name}")
        mount("--bind", source, f"{root}/etc/holdfast/{name}")
        mount("-o", "remount,bind,ro", f"{root}/etc/holdfast/{name}")
    for name in ("hosts", "resolv.conf", "hostname"):
        mount("--bind", f"{spec['files']}/{name}", f"{root}/etc/{name}")
    mount("--bind", spec["volume"], f"{root}/var/lib/holdfast")
    socket.sethostname(spec["name"])
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "mnt"], check=True)
    os.chroot(".")
    os.chdir("/")
    libc.umount2(b"/mnt", 2)  # MNT_DETACH
    out = os.open("/dev/null", os.O_RDONLY)
    os.dup2(out, 0)
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setgroups([spec["fs_group"]])
    os.setgid(spec["gid"])
    os.setuid(spec["uid"])
    os.execve(spec["argv"][0], spec["argv"], spec["env"])


main()
