"""What pip builds the package with: maturin, without the flags of the workspace, whose
programs are linked statically. An extension module is linked dynamically."""

import os

os.environ["RUSTFLAGS"] = ""

from maturin import *  # noqa: E402, F403
