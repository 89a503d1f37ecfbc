"""`cargo xtask cloud`: the control plane on this machine.

Exit codes: 0 everything was shown, 1 something failed, 2 wrong arguments, 130
interrupted.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from .local import Local
from .screen import Screen
from . import story

# Images name the KMS with its port.
KMS_PORT = 8443


def main():
    parser = argparse.ArgumentParser(prog="cargo xtask cloud", description="The control plane on this machine.")
    parser.add_argument("command", nargs="?", choices=["story", "up"], default="story",
                        help="tell the story and end (story), or stay until Ctrl-C (up)")
    parser.add_argument("--scale", type=int, metavar="N", help="deploy and destroy N enclaves at once instead")
    parser.add_argument("--port", type=int, default=None, help="the emulator's port (up: 4566, else any)")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and states")
    for name in ("programs", "functions", "kernel"):
        parser.add_argument(f"--{name}", type=Path, required=name != "kernel", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    # So that what was started ends however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    screen = Screen()
    folder = Path(tempfile.mkdtemp(prefix="enclave-cloud-"))
    keep = arguments.keep
    try:
        if arguments.scale is not None:
            scaled(arguments, folder, screen)
        elif arguments.command == "up":
            up(arguments, folder, screen)
        else:
            told(arguments, folder, screen)
        return 0
    except KeyboardInterrupt:
        screen.note("interrupted; everything that was started has been stopped")
        return 130
    except Exception as error:
        screen.failure(error)
        keep = True
        return 1
    finally:
        if keep:
            screen.note(f"logs and states are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def told(arguments, folder, screen):
    started = []

    def start():
        started.append(Local(folder / "cloud", arguments.programs, arguments.functions, port=arguments.port))
        return started[0]

    try:
        story.tell(start, folder, arguments.programs, arguments.kernel, screen)
    finally:
        for local in started:
            local.close()


def up(arguments, folder, screen):
    from . import images

    image, measurements = images.build(folder / "image", arguments.programs, arguments.kernel)
    local = Local(folder / "cloud", arguments.programs, arguments.functions, port=arguments.port or 4566, kms_port=KMS_PORT)
    try:
        images.publish(local.plane, story.REFERENCE, image, measurements)
        screen.title("The control plane is up", "Ctrl-C ends it, and everything that it started")
        screen.fact("image", f"{story.REFERENCE}, published")
        screen.fact("in another shell", "export " + " ".join(
            f"{name}={value}" for name, value in local.cloud.environment().items()))
        screen.fact("then", "enclavectl --project enclaves --environment dev list")
        screen.fact("folder", folder)
        screen.fact("enclaves' root", folder / "cloud" / "nsm" / "root.pem")
        screen.fact("KMS for enclaves", local.kms.endpoint)
        screen.fact("its files", local.kms.folder)
        screen.fact("agents", folder / "cloud" / "instances")
        shown = 0
        while local.cloud.is_running():
            time.sleep(0.5)
            problems = local.tasks.errors + local.instances.errors
            for problem in problems[shown:]:
                screen.note(f"{type(problem).__name__}: {problem}")
            shown = len(problems)
        raise RuntimeError("the emulator has ended")
    finally:
        local.close()


def scaled(arguments, folder, screen):
    from . import scale
    from .played import Documents, World
    from .cloud import Cloud, ControlPlane

    documents = Documents(arguments.programs / "enclave-documents", folder)
    cloud = Cloud(folder / "cloud", root_pem=documents.root_pem, port=arguments.port, workers=256)
    world = None
    try:
        world = World(ControlPlane(cloud, arguments.functions), documents)
        scale.run(world, arguments.scale, screen)
    finally:
        if world:
            world.close()
        cloud.close()
        documents.close()


if __name__ == "__main__":
    sys.exit(main())
