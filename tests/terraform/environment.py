"""What the checks of Terraform run with: packages and the provider's schema, kept
in the cache of the project's other tools, by the contents of what they are made from.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def terraform():
    """The folder of what runs Terraform: an interpreter, and `schema.db`."""
    made_from = ("requirements.txt", "schema.txt", "schema.py", "protocol.py")
    return _folder("terraform", made_from, _make_terraform)


def linters():
    """The folder of the checkers: their programs in `bin`, and `node_modules`."""
    made_from = ("linters.txt", "package.json", "package-lock.json")
    return _folder("terraform-linters", made_from, _make_linters)


def _cache():
    if folder := os.environ.get("ENCLAVE_TOOLKIT_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "enclave-toolkit"
    return Path.home() / ".cache" / "enclave-toolkit"


def _folder(name, made_from, make):
    key = hashlib.sha256(sys.version.encode())
    for file in made_from:
        key.update((HERE / file).read_bytes())
    folder = _cache() / f"{name}-{key.hexdigest()[:16]}"
    whole = folder / "whole"
    if whole.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            print(f"setting up {name} (about 1 minute, once per machine)", file=sys.stderr)
            if folder.exists():
                shutil.rmtree(folder)
            make(folder)
            whole.touch()
    return folder


def _run(*command, cwd=None, env=None):
    # What it prints is for people: it must not be taken for Terraform's output.
    subprocess.run([str(word) for word in command], cwd=cwd, env=env, check=True, stdout=sys.stderr)


def _install(folder, requirements):
    _run(sys.executable, "-m", "venv", folder)
    pip = (folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet")
    _run(*pip, "install", "--requirement", HERE / requirements)
    return pip


def _make_terraform(folder):
    pip = _install(folder, "requirements.txt")
    downloads = folder / "downloads"
    _run(*pip, "download", "--no-deps", "--dest", downloads, "--requirement", HERE / "schema.txt")
    (wheel,) = downloads.iterdir()
    build = "import schema, protocol, sys; schema.build(sys.argv[1], sys.argv[2], protocol.schema_response)"
    _run(folder / "bin" / "python", "-B", "-c", build, wheel, folder / "schema.db", cwd=HERE)
    shutil.rmtree(downloads)


def _make_linters(folder):
    _install(folder, "linters.txt")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    programs = folder / "bin"
    path = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    npm = (programs / "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    _run(*npm, cwd=folder, env=path)
