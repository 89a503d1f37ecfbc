"""A Docker daemon of our own, with no network and no place in the system."""

import contextlib
import fcntl
import os
import subprocess
import time
from pathlib import Path

from programs import Failed, command

# Debian's packages, which are unpacked and not installed: their daemon would be the system's.
PACKAGES = ("docker.io", "containerd", "runc")
LIMIT = 60


@contextlib.contextmanager
def daemon(folder, base, name):
    """Runs the daemon, which has the base as this image; gives a function that runs its client.
    One daemon at a time has the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _started(folder, base, name) as client:
            yield client


@contextlib.contextmanager
def _started(folder, base, name):
    programs = folder / "root"
    if not programs.exists():
        _unpack(folder, programs)
    path = f"{programs}/usr/sbin:{programs}/usr/bin:{os.environ['PATH']}"
    socket = folder / "socket"
    environment = {**os.environ, "PATH": path, "DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "1"}

    def client(*arguments):
        return command([programs / "usr/bin/docker", *arguments], env=environment)

    with open(folder / "log", "w") as log:
        run = subprocess.Popen(
            [programs / "usr/sbin/dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec",
             "--pidfile", folder / "pid", "--host", f"unix://{socket}", "--storage-driver", "vfs",
             "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(client, run, folder / "log")
        if not client("images", "--quiet", f"{name}-{base.stem}"):
            client("import", base, f"{name}-{base.stem}")
        client("tag", f"{name}-{base.stem}", name)
        yield client
    finally:
        run.terminate()
        try:
            run.wait(LIMIT)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()


def _unpack(folder, programs):
    unfinished = folder / "root.unfinished"
    unfinished.mkdir(parents=True, exist_ok=True)
    command(["apt-get", "download", *PACKAGES], cwd=folder)
    for package in folder.glob("*.deb"):
        command(["dpkg", "--extract", package, unfinished])
        package.unlink()
    unfinished.rename(programs)


def _wait(client, run, log):
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            return client("version")
        except Failed as error:
            if run.poll() is not None or time.monotonic() > deadline:
                last = Path(log).read_text().splitlines()[-1:]
                raise Failed(f"dockerd does not answer: {' '.join(last) or error}") from None
        time.sleep(0.2)
