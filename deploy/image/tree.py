"""The image's file system, in memory: path -> File. Everything belongs to root unless said otherwise, has the same
time, and lies where a merged /usr puts it."""

import fnmatch
import io
import os
import posixpath
import stat
import struct
import tarfile

# What a server in a container has no use for. Copyright notices stay.
UNWANTED = (
    "usr/share/man/*", "usr/share/locale/*", "usr/share/lintian/*", "usr/share/info/*", "usr/share/bug/*",
    "usr/share/menu/*", "usr/share/postgresql-common/*", "usr/share/zoneinfo/right/*",
    "usr/share/doc-base/*", "usr/share/pixmaps/*", "usr/share/common-licenses/GFDL*",
    "usr/lib/postgresql/*/lib/bitcode/*", "usr/lib/postgresql/*/lib/llvmjit*", # settings.c: jit = off
    "usr/lib/postgresql/*/lib/pgxs/*", "usr/share/postgresql/*/man/*", "usr/include/*",
    "usr/lib/*-linux-gnu/gconv/*", "usr/lib/*-linux-gnu/audit/*", "usr/lib/*-linux-gnu/perl*",
    "usr/lib/postgresql/*/lib/*.a", "usr/lib/*-linux-gnu/*.a",
    "etc/init.d/*", "etc/cron*", "etc/logcheck/*", "etc/update-motd.d/*", "etc/default/*", "lib/systemd/*",
    "usr/lib/systemd/*", "usr/lib/tmpfiles.d/*", "usr/sbin/*", "sbin/*",
)
# Of packages that hold more than is wanted: these files only.
ONLY = {
    "dash": ("bin/dash", "bin/sh"), # PostgreSQL's initdb and pg_rewind start programs by popen(3)
    "libc-bin": ("usr/lib/locale/C.utf8/*", "etc/nsswitch.conf", "usr/share/libc-bin/nsswitch.conf"),
}
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class File:
    def __init__(self, kind, mode=0o644, data=b"", target="", uid=0, gid=0):
        self.kind, self.mode, self.data, self.target, self.uid, self.gid = kind, mode, data, target, uid, gid
        self.needed = None  # shared libraries, once looked at


def merged(path):
    path = posixpath.normpath(path.lstrip("./") or ".")
    first, _, rest = path.partition("/")
    if first in MERGED and rest:
        return f"usr/{first}/{rest}"
    return "" if path == "." else path


class Tree:
    def __init__(self):
        self.files = {}

    def add(self, path, file):
        parent = posixpath.dirname(path)
        if parent and parent not in self.files:
            self.add(parent, File("dir", 0o755))
        have = self.files.get(path)
        if not (file.kind == "dir" and have is not None and have.kind == "dir"):
            self.files[path] = file

    def directory(self, path, mode=0o755, uid=0, gid=0):
        self.files.pop(path, None)
        self.add(path, File("dir", mode, uid=uid, gid=gid))

    def text(self, path, text, mode=0o644):
        self.add(path, File("file", mode, text.encode()))

    def link(self, path, target):
        self.add(path, File("link", 0o777, target=target))

    def package(self, package):
        only = ONLY.get(package.name)
        for entry, data in package.members():
            name = entry.name.lstrip("./")
            notice = fnmatch.fnmatch(name, "usr/share/doc/*/copyright")
            if only is not None and not notice and not any(fnmatch.fnmatch(name, p) for p in only):
                continue
            # A package may share another's directory, and with it the notice.
            notice = notice or entry.issym() and fnmatch.fnmatch(name, "usr/share/doc/*") and name.count("/") == 3
            if name.startswith("usr/share/doc/") and not notice or any(fnmatch.fnmatch(name, p) for p in UNWANTED):
                continue
            path = merged(entry.name)
            if path and path not in MERGED:
                self.entry(path, entry, data)
        self.text(f"var/lib/dpkg/status.d/{package.name}", package.control) # where scanners of images look

    def entry(self, path, entry, data):
        if entry.isdir():
            if path.startswith(("tmp", "var/tmp")):
                self.add(path, File("dir", 0o1777))
        elif entry.issym():
            self.link(path, entry.linkname)
        elif entry.islnk():
            origin = self.files.get(merged(entry.linkname))
            if origin is not None: # a second name of a file that is wanted: a copy is simplest
                self.add(path, File("file", origin.mode, origin.data))
        elif entry.isreg():
            self.add(path, File("file", entry.mode & 0o755 | 0o444, data))

    def disk(self, root):
        """What `meson install --destdir` has put there."""
        for where, dirs, names in os.walk(root):
            dirs.sort()
            for name in sorted(names):
                full = os.path.join(where, name)
                path = merged(os.path.relpath(full, root))
                if os.path.islink(full):
                    self.link(path, os.readlink(full))
                    continue
                with open(full, "rb") as f:
                    executable = os.stat(full).st_mode & stat.S_IXUSR
                    self.add(path, File("file", 0o755 if executable else 0o644, f.read()))

    def notices_elsewhere(self):
        """Packages that are not in the image, but whose copyright notice another one refers to."""
        links = [f.target for p, f in self.files.items() if f.kind == "link" and fnmatch.fnmatch(p, "usr/share/doc/*")]
        return {t for t in links if f"usr/share/doc/{t}/copyright" not in self.files}

    # -- shared libraries -------------------------------------------------------------------------------------

    def lost_libraries(self):
        """Sonames that some file needs and nothing in the image has, each with one of the files."""
        have = {posixpath.basename(p) for p in self.files if ".so" in p}
        lost = {}
        for path, file in self.files.items():
            if file.needed is None:
                file.needed = needed(file.data)
            for soname in file.needed:
                if soname not in have:
                    lost.setdefault(soname, path)
        return lost

    def write(self, tar, base=None, mtime=0):
        """What is not in `base` already, in the order of names."""
        for path in sorted(self.files):
            file = self.files[path]
            if base is not None and base.files.get(path) is file:
                continue
            info = tarfile.TarInfo(path)
            info.mtime, info.mode, info.uid, info.gid = mtime, file.mode, file.uid, file.gid
            if file.kind == "dir":
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif file.kind == "link":
                info.type, info.linkname = tarfile.SYMTYPE, file.target
                tar.addfile(info)
            else:
                info.size = len(file.data)
                tar.addfile(info, io.BytesIO(file.data))


def needed(data):
    """DT_NEEDED of a 64-bit little-endian ELF file."""
    if data[:6] != b"\x7fELF\x02\x01":
        return []
    phoff, = struct.unpack_from("<Q", data, 32)
    phentsize, phnum = struct.unpack_from("<HH", data, 54)
    loads, dynamic = [], None
    for i in range(phnum):
        kind, _flags, offset, vaddr, _paddr, filesz = struct.unpack_from("<IIQQQQ", data, phoff + i * phentsize)
        if kind == 1:
            loads.append((vaddr, offset, filesz))
        elif kind == 2:
            dynamic = (offset, filesz)
    if dynamic is None:
        return []
    names, strtab = [], 0
    for at in range(dynamic[0], dynamic[0] + dynamic[1], 16):
        tag, value = struct.unpack_from("<QQ", data, at)
        if tag == 1:
            names.append(value)
        elif tag == 5:
            strtab = next(o + value - v for v, o, size in loads if v <= value < v + size)
    return [data[strtab + n:data.index(b"\0", strtab + n)].decode() for n in names]
