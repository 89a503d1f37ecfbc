"""The tutorials of the manual, as a reader runs them: `cargo xtask test tutorials`, which
sets in the environment what their programs are."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from local_cloud.local import Local  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(os.environ["CONTROL_PLANE_PROGRAMS"])
FUNCTIONS = Path(os.environ["CONTROL_PLANE_FUNCTIONS"])
# The others go on where it ends.
FIRST = "docs/tutorial-image.md"


def follow(*pages, **environment):
    subprocess.run([ROOT / ".ci/tutorial", "--built", "--offline", *(ROOT / page for page in pages)],
                   env={**os.environ, **environment}, check=True)


def test_tutorials_of_an_image_and_of_python():
    follow(FIRST, "docs/tutorial-python.md")


def test_tutorial_of_the_control_plane():
    # A path of a socket has 107 bytes, and pytest's own folders have long names.
    with tempfile.TemporaryDirectory(prefix="cloud-") as folder:
        local = Local(Path(folder) / "cloud", PROGRAMS, FUNCTIONS)
        try:
            follow(FIRST, "docs/tutorial-control-plane.md", CLOUD=folder, **local.cloud.environment())
            assert not local.tasks.errors + local.instances.errors
        finally:
            local.close()
