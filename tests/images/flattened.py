"""The files of an enclave image, compared with those that other programs make of the same
container image: `umoci unpack`, and `docker export`."""

import hashlib
import os
import shutil
import stat
import struct
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from programs import Failed, command

# Offsets and sizes of up to 32 sections, in the header of an EIF.
HEADER = struct.Struct(">4sHHQQHH32Q32Q")
SECTION = struct.Struct(">HHQ")
RAMDISK = 3
# The folder of the image's files in the last ramdisk.
ROOT = "rootfs"
BLOCK = 1 << 20
# What `docker create` adds if the image does not have it.
OF_DOCKER = {".dockerenv", "dev", "dev/console", "dev/pts", "dev/shm", "etc", "etc/mtab", "proc", "sys"}
# What it replaces.
REPLACED = {"etc/hostname", "etc/hosts", "etc/resolv.conf"}
SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """A file, and all its names if it has several."""

    kind: str
    mode: int
    owner: tuple
    # The target of a link, or the digest of a file's contents.
    contents: str = ""
    names: tuple = ()

    def __str__(self):
        names = f" with the names {', '.join(self.names)}" if self.names else ""
        return f"{self.kind} {self.mode:o} {self.owner[0]}:{self.owner[1]} {self.contents[:60]}".rstrip() + names


def compared(eif, name, reference, folder, client):
    """The differences between an enclave image and others' files of the container image that
    it was built from. `client` runs Docker's."""
    layout = f"{folder}/layout:image"
    command(["skopeo", "copy", "--quiet", reference, f"oci:{layout}"])
    built = of_eif(eif)
    different = []
    bundle = folder / "bundle"
    command(["umoci", "unpack", "--image", layout, bundle])
    different += differences(built, of_folder(bundle / "rootfs"), "umoci")
    shutil.rmtree(bundle)
    archive, exported, tag = folder / "archive.tar", folder / "exported.tar", f"localhost/compared-{name}:1"
    command(["skopeo", "copy", "--quiet", f"oci:{layout}", f"docker-archive:{archive}:{tag}"])
    client("load", "--quiet", "--input", archive)
    archive.unlink()
    try:
        container = client("create", tag, "none").split()[-1]
        client("export", "--output", exported, container)
        client("rm", container)
    finally:
        client("rmi", "--force", tag)
    different += differences(built, of_tar(exported), "docker", OF_DOCKER, REPLACED)
    exported.unlink()
    return different


def differences(built, theirs, maker, added=frozenset(), replaced=frozenset()):
    """A line for each of the first differences, and how many more there are. What the maker
    adds and replaces by itself is none."""
    lines = []
    for path in sorted((built.keys() | theirs.keys()) - replaced):
        own, other = built.get(path), theirs.get(path)
        if own != other and not (own is None and path in added):
            lines.append(f"/{path}: {own or 'nothing'}; by {maker}: {other or 'nothing'}")
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"and {len(lines) - SHOWN} more that are different by {maker}"]
    return lines


class _Files:
    """Entries as they are found, and which of them are one file."""

    def __init__(self):
        self._entries, self._names = {}, {}

    def add(self, path, entry, inode=None):
        self._entries[path] = entry
        if inode is not None:
            self._names.setdefault(inode, []).append(path)

    def all(self):
        for names in self._names.values():
            # The contents are those of whichever name has them.
            contents = next((self._entries[name].contents for name in names if self._entries[name].contents), EMPTY)
            for name in names:
                found = self._entries[name]
                together = tuple(sorted(names)) if len(names) > 1 else ()
                self._entries[name] = Entry(found.kind, found.mode, found.owner, contents, together)
        return self._entries


EMPTY = hashlib.sha256().hexdigest()


def of_folder(root):
    """The files below a folder, without its own entry."""
    files = _Files()
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = os.path.join(folder, name)
            found = os.lstat(path)
            place, owner = os.path.relpath(path, root), (found.st_uid, found.st_gid)
            mode = stat.S_IMODE(found.st_mode)
            if stat.S_ISREG(found.st_mode):
                with open(path, "rb") as file:
                    files.add(place, Entry("file", mode, owner, digest(file)), found.st_ino)
            else:
                target = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""
                _add(files, place, found.st_mode, owner, target)
    return files.all()


def of_tar(path):
    """The entries of a tar, without that of the root."""
    files = _Files()
    with tarfile.open(path) as archive:
        first = {}
        for member in archive:
            place, owner = member.name.strip("/").removeprefix("./"), (member.uid, member.gid)
            if place in ("", "."):
                continue
            if member.islnk():
                target = member.linkname.strip("/").removeprefix("./")
                files.add(place, Entry("file", member.mode & 0o7777, owner), first[target])
                first[place] = first[target]
            elif member.isreg():
                first[place] = place
                with archive.extractfile(member) as file:
                    files.add(place, Entry("file", member.mode & 0o7777, owner, digest(file)), place)
            else:
                kind = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO,
                        tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}[member.type]
                _add(files, place, kind | member.mode & 0o7777, owner, member.linkname)
    return files.all()


def of_eif(path):
    """The image's files in an enclave image."""
    files = _Files()
    with open(path, "rb") as image:
        fields = HEADER.unpack(image.read(HEADER.size))
        magic, count, offsets = fields[0], fields[6], fields[7:39]
        if magic != b".eif":
            raise Failed(f"{path} is not an enclave image")
        ramdisks = []
        for offset in offsets[:count]:
            image.seek(offset)
            kind, _, size = SECTION.unpack(image.read(SECTION.size))
            if kind == RAMDISK:
                ramdisks.append((offset + SECTION.size, size))
        offset, size = ramdisks[-1]
        image.seek(offset)
        for place, mode, owner, inode, contents in cpio(Inflated(image, size)):
            if not place.startswith(f"{ROOT}/"):
                continue
            place = place.removeprefix(f"{ROOT}/")
            if stat.S_ISREG(mode):
                hashed, length = hashlib.sha256(), 0
                for block in contents:
                    hashed.update(block)
                    length += len(block)
                # Later names of a file have no contents of their own.
                value = hashed.hexdigest() if length else ""
                files.add(place, Entry("file", stat.S_IMODE(mode), owner, value), inode)
            else:
                target = b"".join(contents).decode(errors="surrogateescape")
                _add(files, place, mode, owner, target)
    return files.all()


def _add(files, place, mode, owner, target):
    kinds = {stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFCHR: "device",
             stat.S_IFBLK: "device", stat.S_IFSOCK: "socket"}
    kind = kinds[stat.S_IFMT(mode)]
    # The permissions of a link mean nothing.
    files.add(place, Entry(kind, 0 if kind == "link" else stat.S_IMODE(mode), owner, target))


def digest(file):
    return hashlib.file_digest(file, "sha256").hexdigest()


class Inflated:
    """What a gzip member of this length decompresses to."""

    def __init__(self, file, left):
        self._file, self._left, self._ready = file, left, b""
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def read(self, count):
        while len(self._ready) < count and not self._zlib.eof:
            block = self._zlib.unconsumed_tail or self._file.read(min(BLOCK, self._left))
            if not self._zlib.unconsumed_tail:
                self._left -= len(block)
            if not block:
                break
            self._ready += self._zlib.decompress(block, BLOCK)
        if len(self._ready) < count:
            raise Failed("the ramdisk ends too early")
        read, self._ready = self._ready[:count], self._ready[count:]
        return read


def cpio(stream):
    """Name, mode, owner, inode and contents of each entry (`newc`); the contents have to be
    used up before the next."""
    while True:
        head = stream.read(110)
        if head[:6] not in (b"070701", b"070702"):
            raise Failed("the ramdisk has no entry where one begins")
        numbers = [int(head[at:at + 8], 16) for at in range(6, 110, 8)]
        inode, mode, uid, gid, _, _, size, _, _, _, _, name_size, _ = numbers
        name = stream.read(name_size + -(110 + name_size) % 4)[:name_size - 1].decode(errors="surrogateescape")
        if name == "TRAILER!!!":
            return
        contents = _blocks(stream, size)
        yield name, mode, (uid, gid), inode, contents
        for _ in contents:
            pass
        stream.read(-size % 4)


def _blocks(stream, left):
    while left:
        block = stream.read(min(left, BLOCK))
        left -= len(block)
        yield block
