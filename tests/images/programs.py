"""Other programs, and what they say when they fail."""

import http.client
import os
import signal
import subprocess
from pathlib import Path

LIMIT = 1800


class Failed(Exception):
    """What has failed, in the words of the program that says so."""


# What goes wrong with one image; the others are tested all the same.
FAILURES = (Failed, OSError, http.client.HTTPException, subprocess.TimeoutExpired)
# What runs and mounts below this ends with it.
CONTAINED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def command(arguments, limit=LIMIT, **options):
    """Runs a program, and gives what it prints. What it started ends with it."""
    run = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, errors="replace", start_new_session=True, **options)
    try:
        printed, _ = run.communicate(timeout=limit)
    except BaseException:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        raise
    if run.returncode != 0:
        lines = [line for line in printed.splitlines() if line.strip()] or [f"exit code {run.returncode}"]
        raise Failed(f"{Path(str(arguments[0])).name}: {' / '.join(lines[-5:])}")
    return printed
