"""Other programs, and what they say when they fail."""

import subprocess
from pathlib import Path

LIMIT = 1800


class Failed(Exception):
    """What has failed, in the words of the program that says so."""


def command(arguments, limit=LIMIT, **options):
    """Runs a program, and gives what it prints."""
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=limit, **options)
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise Failed(f"{Path(str(arguments[0])).name}: {' / '.join(lines[-5:])}")
    return done.stdout
