"""Container images, assembled by the tools that people assemble them with.

The base is a minimal Debian, made once from the package sources that this machine uses.
What is assembled stays in the cache, by the contents of what it is made from.
"""

import contextlib
import fcntl
import hashlib
import inspect
import os
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import docker
from programs import CONTAINED, Failed, command

RECIPES = Path(__file__).resolve().parent / "recipes"
# Files that several of them copy.
SHARED = RECIPES / "shared"
RELEASE = "bookworm"
BASE = f"localhost/debian:{RELEASE}"
# Whom the certificate of the test's server is for.
SERVER = "greetings.example"
TAG = "image"
# Installs packages into a root file system, with apt's folders of the cache. Of /dev, which
# the base leaves empty, apt's own user needs /dev/null.
INSTALL = """
root=$1
mount --bind /dev "$root/dev"
mount --bind "$2" "$root/var/lib/apt/lists"
mount --bind "$3" "$root/var/cache/apt"
shift 3
chroot "$root" apt-get update
chroot "$root" apt-get install -y --no-install-recommends "$@"
"""


@dataclass(frozen=True)
class Containerfile:
    """`buildah build`, with the folder of the image's name in `recipes`."""

    maker, native = "buildah", "oci"

    def key(self, workshop, name):
        parts = [workshop.base_key.encode()]
        for path in sources(name):
            parts += [str(path.relative_to(RECIPES)).encode(), path.read_bytes()]
        if b"--from=test" in (RECIPES / name / "Containerfile").read_bytes():
            parts.append(workshop.certificate()[0].read_bytes())
        return parts

    def make(self, workshop, name, layout):
        workshop.build(name)
        workshop.buildah("push", "--quiet", f"localhost/{name}", f"oci:{layout}:{TAG}")
        workshop.buildah("rmi", "--force", f"localhost/{name}")


@dataclass(frozen=True)
class Umoci:
    """`umoci`: a root file system becomes a layer, and `umoci config` says what is run."""

    config: tuple
    # The packages that are installed into the base. Without any there is no base.
    packages: tuple = ()
    # Files, each after its place in the image.
    files: tuple = ()

    maker, native = "umoci", "oci"

    def key(self, workshop, _name):
        contents = [workshop.file(source).read_bytes() for _, source in self.files]
        return [workshop.base_key.encode(), repr(self).encode(), *contents]

    def make(self, workshop, _name, layout):
        image, bundle = f"{layout}:{TAG}", workshop.folder / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        command(["umoci", "init", "--layout", layout])
        command(["umoci", "new", "--image", image])
        command(["umoci", "unpack", "--image", image, bundle])
        root = bundle / "rootfs"
        if self.packages:
            command(["tar", "-C", root, "-xf", workshop.base()])
            workshop.install(root, self.packages)
        for place, source in self.files:
            target = root / place.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(workshop.file(source), target)
        command(["umoci", "repack", "--image", image, bundle])
        command(["umoci", "config", "--image", image, *self.config])
        command(["umoci", "gc", "--layout", layout])
        shutil.rmtree(bundle)


@dataclass(frozen=True)
class Docker(Containerfile):
    """`docker build`, with BuildKit, and `docker save`."""

    maker, native = "docker", "docker-archive"

    def make(self, workshop, name, archive):
        context, tag, client = workshop.recipe(name), f"localhost/{name}", workshop.docker()
        client("build", "--quiet", "--network", "host", "--file", context / "Containerfile", "--tag", tag, context)
        client("save", "--output", archive, tag)
        client("rmi", "--force", tag)
        client("builder", "prune", "--all", "--force")


class Workshop:
    """The cache's folder, and what images are made of there."""

    def __init__(self, cache, programs):
        self.folder = cache / "images"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.programs = programs
        how = f"{RELEASE}\n{inspect.getsource(Workshop.base)}"
        self.base_key = hashlib.sha256(how.encode()).hexdigest()[:16]
        storage = self.folder / "storage.conf"
        storage.write_text('[storage]\ndriver = "vfs"\n'
                           f'runroot = "{self.folder}/run"\ngraphroot = "{self.folder}/storage"\n')
        self._environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot"}
        self._daemon, self._client, self._starting = contextlib.ExitStack(), None, threading.Lock()

    def docker(self):
        """What runs the client of Docker's daemon, which runs from now on until `close`."""
        with self._starting:
            if self._client is None:
                daemon = docker.daemon(self.folder / "docker", self.base(), BASE)
                self._client = self._daemon.enter_context(daemon)
            return self._client

    def close(self):
        self._daemon.close()

    @contextlib.contextmanager
    def alone(self):
        """Nobody else makes images meanwhile."""
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def image(self, name, recipe, form):
        """The container image as `image` of the manifest names it, and its file or folder."""
        key = hashlib.sha256()
        for part in [inspect.getsource(type(recipe).make).encode(), *recipe.key(self, name)]:
            key.update(hashlib.sha256(part).digest())
        folder = self.folder / "made" / name / key.hexdigest()[:16]
        path = folder / form
        if not path.exists():
            with self.alone():
                if not folder.exists():
                    self._make(name, recipe, folder)
                if not path.exists():
                    tag = f"localhost/{name}:{TAG}" if form == "docker-archive" else TAG
                    unfinished = path.with_name(f"{form}.unfinished")
                    unfinished.unlink(missing_ok=True)
                    command(["skopeo", "copy", "--quiet", f"oci:{folder}/oci:{TAG}", f"{form}:{unfinished}:{tag}"])
                    unfinished.rename(path)
        return f"{form}:{path}", path

    def _make(self, name, recipe, folder):
        shutil.rmtree(folder.parent, ignore_errors=True)
        unfinished = folder.with_suffix(".unfinished")
        unfinished.mkdir(parents=True)
        print(f"{name}: {recipe.maker} assembles the image", file=sys.stderr, flush=True)
        recipe.make(self, name, unfinished / recipe.native)
        unfinished.rename(folder)

    def file(self, name):
        """A file that goes into images: one of the workspace's programs, of this machine's
        or of the recipes'."""
        if name.startswith("program:"):
            return self.programs / name.removeprefix("program:")
        return Path(name) if name.startswith("/") else RECIPES / name

    def certificate(self):
        """The certificate of the test's server, and its key."""
        certificate, key = self.folder / "server.pem", self.folder / "server.key"
        if not certificate.exists():
            # OpenSSL's own configuration would make it an authority's, which servers may not have.
            settings = self.folder / "server.cnf"
            settings.write_text("[req]\ndistinguished_name = name\n[name]\n")
            command(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-days", "3650", "-config", settings, "-subj", f"/CN={SERVER}",
                     "-addext", f"subjectAltName=DNS:{SERVER}", "-addext", "basicConstraints=critical,CA:FALSE",
                     "-keyout", key, "-out", certificate])
        return certificate, key

    def base(self):
        """A minimal Debian, as a tar."""
        tar = self.folder / f"debian-{self.base_key}.tar"
        if not tar.exists():
            print(f"debootstrap makes the base, {RELEASE} (a minute, once)", file=sys.stderr, flush=True)
            for old in self.folder.glob("debian-*"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            root, sources = self.folder / "debian-root", apt_sources()
            command([*CONTAINED, "debootstrap", "--variant=minbase", RELEASE, root, sources[0].split()[1]])
            (root / "etc/apt/sources.list").write_text("\n".join(sources) + "\n")
            # As in Debian's own container images: packages start no services.
            policy = root / "usr/sbin/policy-rc.d"
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
            for left in (root / "var/lib/apt/lists", root / "var/cache/apt"):
                shutil.rmtree(left)
                left.mkdir()
            unfinished = tar.with_suffix(".unfinished")
            command(["tar", "-C", root, "--one-file-system", "--exclude=./dev/*", "-cf", unfinished, "."])
            shutil.rmtree(root)
            unfinished.rename(tar)
        return tar

    def buildah(self, *arguments):
        return command(["buildah", *arguments], env=self._environment)

    def build(self, name):
        """Has buildah build a Containerfile on the base."""
        tag = f"{BASE}-{self.base_key}"
        try:
            self.buildah("inspect", "--type", "image", tag)
        except Failed:
            self.buildah("rmi", "--all", "--force")
            base = self.folder / "base-context"
            shutil.rmtree(base, ignore_errors=True)
            base.mkdir()
            os.link(self.base(), base / "debian.tar")
            (base / "Containerfile").write_text("FROM scratch\nADD debian.tar /\nCMD [\"bash\"]\n")
            self.buildah("build", "--quiet", "--tag", tag, base)
            shutil.rmtree(base)
        self.buildah("tag", tag, BASE)
        # What apt fetches is kept outside of the image, and fetched once.
        volumes = []
        for place in ("/var/lib/apt/lists", "/var/cache/apt"):
            volumes += ["--volume", f"{self._apt(place)}:{place}"]
        self.buildah("build", "--layers=false", *volumes, "--build-context", f"test={self._context()}",
                     "--tag", f"localhost/{name}", self.recipe(name))

    def recipe(self, name):
        """A folder with what the Containerfile copies."""
        folder = self.folder / "recipe"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in sources(name):
            target = folder / path.relative_to(RECIPES / name if path.is_relative_to(RECIPES / name) else SHARED)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        return folder

    def _context(self):
        """A folder with what the test gives to images."""
        folder = self.folder / "context"
        folder.mkdir(exist_ok=True)
        shutil.copy(self.certificate()[0], folder)
        return folder

    def _apt(self, place):
        folder = self.folder / "apt" / place.strip("/").replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def install(self, root, packages):
        """Installs packages into a root file system."""
        resolver = root / "etc/resolv.conf"
        shutil.copy("/etc/resolv.conf", resolver)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
        folders = [self._apt(place) for place in ("/var/lib/apt/lists", "/var/cache/apt")]
        command([*CONTAINED, "sh", "-euc", INSTALL, "sh", root, *folders, *packages], env=environment)
        resolver.unlink()


def sources(name):
    """The files of a recipe, and the shared ones that its Containerfile copies."""
    folder = RECIPES / name
    copied = (folder / "Containerfile").read_text().split()
    own = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.name for path in own}
    return sorted([*own, *(path for path in SHARED.iterdir() if path.name in copied and path.name not in names)])


def apt_sources():
    """The lines of sources.list by which this machine gets Debian's release."""
    listed = command(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)|$(CODENAME)",
                      "Created-By: Packages", "Component: main"])
    found = {}
    for line in listed.splitlines():
        origin, address, suite = line.split("|")
        if origin == "Debian" and suite.startswith(RELEASE):
            found[suite] = f"deb {address} {suite} main"
    if RELEASE not in found:
        raise Failed(f"apt: this machine has no sources for Debian {RELEASE}")
    return [found[suite] for suite in sorted(found)]
