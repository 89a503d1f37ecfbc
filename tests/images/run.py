"""Container images as they are, as enclaves: built, compared with what umoci and Docker unpack,
started, used, and stopped in the middle of an answer, under `sim` and in QEMU.

usage: run.py [--hypervisor sim|qemu] [--jobs N] [--json FILE] [NAME…]

Without names, all images. N of them are tried at a time, 2 if it is not said. The environment
names what is tested (ENCLAVE_TEST_PROGRAMS, ENCLAVE_TEST_KERNEL, ENCLAVE_TEST_QEMU,
ENCLAVE_TEST_VSOCK_DEVICE) and the cache's folder (ENCLAVE_TOOLKIT_CACHE). It needs root,
debootstrap, buildah, umoci, skopeo, and the packages of Debian 12, which apt's sources have to
name.

Exit codes: 0 all images work, 1 one does not, 2 wrong arguments, or not root: none was tried.
"""

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import enclave
import flattened
from catalogue import IMAGES
from checks import Server
from makers import Workshop
from programs import FAILURES

DEFAULT_MEMORY = 1024
MIB = 1 << 20
HYPERVISORS = ("sim", "qemu")
ROW = "{name:<19} {maker:<24} {size:>5} {eif:>5} {memory:>6}  {needs:<24} {files:<6} {sim:<8} {qemu:<8}"


def main():
    names = [image.name for image in IMAGES]
    parser = argparse.ArgumentParser(usage="run.py [--hypervisor sim|qemu] [--jobs N] [--json FILE] [NAME…]")
    parser.add_argument("--hypervisor", choices=HYPERVISORS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in names]
    if unknown:
        parser.error(f"there is no image `{unknown[0]}`: {', '.join(names)}")

    if arguments.jobs < 1:
        parser.error("--jobs: at least one image is tried at a time")

    if os.geteuid() != 0:
        print("run.py: assembling images needs root", file=sys.stderr)
        return 2

    hypervisors = [arguments.hypervisor] if arguments.hypervisor else HYPERVISORS
    machine = enclave.Machine(*(
        Path(os.environ[f"ENCLAVE_TEST_{name}"]) for name in ("PROGRAMS", "KERNEL", "QEMU", "VSOCK_DEVICE")))
    workshop = Workshop(Path(os.environ["ENCLAVE_TOOLKIT_CACHE"]), machine.programs)
    certificate, key = workshop.certificate()
    server = Server(certificate, key)
    print(ROW.format(name="image", maker="made by, read as", size="MiB", eif="EIF", memory="memory",
                     needs="needs", files="files", sim="sim", qemu="qemu"))
    wanted = [image for image in IMAGES if not arguments.names or image.name in arguments.names]
    text, rows = certificate.read_text(), []
    try:
        with ThreadPoolExecutor(arguments.jobs) as jobs:
            for row in jobs.map(lambda image: tried(image, workshop, machine, hypervisors, server, text), wanted):
                rows.append(row)
                print(ROW.format(**shown(row)), flush=True)
                for failure in row["failures"]:
                    print(f"    {failure}", flush=True)
    finally:
        workshop.close()
        server.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    failed = [row["name"] for row in rows if row["failures"]]
    print(f"{len(rows) - len(failed)} of {len(rows)} images work" + (f"; not: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def tried(image, workshop, machine, hypervisors, server, certificate):
    """What became of an image: sizes in bytes, seconds to the first answer, failures."""
    row = {"name": image.name, "maker": image.recipe.maker, "form": image.form, "size": None, "eif": None,
           "memory_mib": DEFAULT_MEMORY, "needs": [line for _, line in image.needs],
           "files_are_the_same": None, "seconds": {}, "failures": []}
    for table, line in image.needs:
        if table == "enclave" and line.startswith("memory_mib = "):
            row["memory_mib"] = int(line.removeprefix("memory_mib = "))
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        step = "assembled"
        try:
            reference, path = workshop.image(image.name, image.recipe, image.form)
            row["size"] = size(path)
            step = "built"
            eif = machine.build(image, reference, Path(folder))
            row["eif"] = eif.stat().st_size
        except FAILURES as error:
            row["failures"].append(f"not {step}: {error}")
            return row
        try:
            different = flattened.compared(eif, image.name, reference, Path(folder), workshop.docker())
            row["files_are_the_same"] = not different
            row["failures"] += different
        except FAILURES as error:
            row["failures"].append(f"not compared: {error}")
        for hypervisor in hypervisors:
            try:
                row["seconds"][hypervisor] = enclave.show(machine, image, eif, hypervisor, server, certificate)
            except FAILURES as error:
                row["seconds"][hypervisor] = None
                row["failures"].append(f"{hypervisor}: {error}")
    return row


def size(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def shown(row):
    """The row as the table has it."""

    def mib(number):
        return "-" if number is None else f"{number / MIB:.0f}"

    def outcome(hypervisor):
        if hypervisor not in row["seconds"]:
            return "-"
        seconds = row["seconds"][hypervisor]
        return "failed" if seconds is None else f"{seconds:.1f} s"

    files = {None: "-", True: "same", False: "differ"}[row["files_are_the_same"]]
    return {"name": row["name"], "files": files, "maker": f"{row['maker']}, {row['form']}", "size": mib(row["size"]),
            "eif": mib(row["eif"]), "memory": row["memory_mib"], "needs": ", ".join(row["needs"]) or "-",
            "sim": outcome("sim"), "qemu": outcome("qemu")}


if __name__ == "__main__":
    sys.exit(main())
