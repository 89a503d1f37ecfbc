#!/usr/bin/env python3
"""Runs the verifiers of the package registries over the corpus, and prints the tables of
the manual's page about them.

    peers.py --folder FOLDER [--verifier NAME=COMMAND]… [NAME…]

Each is installed, at the version that stands here, into a folder of its own below FOLDER;
cargo, npm and Python are needed, and libfaketime for those that take no time. What was
installed before is used again.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys

CORPUS = pathlib.Path(__file__).resolve().parent
ADAPTERS = CORPUS / "adapters"
PCRS = " ".join(f"[--pcr {index}={{pcr{index}}}]" for index in (0, 1, 2))
CATEGORIES = ["must", "should", "policy"]
BROKEN = {"error", "crash", "timeout"}

# Name, registry, version, adapter, the words behind the adapter's name, whether its clock
# is the system's, and for crates what else the adapter needs and the features.
PEERS = [
    (
        "attestation-doc-validation", "crates.io", "0.10.1", "attestation_doc_validation.rs",
        f"{{document}} [--nonce {{nonce}}] {PCRS} [--pcr 8={{pcr8}}]", True,
        {"base64": "0.22", "hex": "0.4"}, [],
    ),
    (
        "nitro_attest", "crates.io", "0.2.0", "nitro_attest.rs",
        "{document} {time_ms}", False, {"time": "0.3"}, [],
    ),
    (
        "nsm-nitro-enclave-utils", "crates.io", "0.1.3", "nsm_nitro_enclave_utils.rs",
        "{document} {root} {time_ms}", False, {"base64": "0.22"}, ["verify"],
    ),
    (
        "aws-nitro-enclaves-attestation", "crates.io", "0.1.0",
        "aws_nitro_enclaves_attestation.rs", "{document} {root} {time_s}", False,
        # Later releases of serde refuse the code of the crate's own dependency.
        {"base64": "0.22", "serde": "=1.0.152"}, [],
    ),
    (
        "remote-attestation-verifier", "crates.io", "0.1.2", "remote_attestation_verifier.rs",
        f"{{document}} {{root}} {{time_s}} {PCRS}", False, {"base64": "0.22", "hex": "0.4"}, [],
    ),
    (
        "tee-attestation-verifier", "crates.io", "0.1.4", "tee_attestation_verifier.rs",
        "{document} {root} {time_s}", False, {"base64": "0.22"}, [],
    ),
    (
        "epsilon-attestation-verifier", "PyPI", "1.1.0", "epsilon.py",
        "{document} {root} [--pcr0 {pcr0}] [--pcr1 {pcr1}] [--pcr2 {pcr2}]", True, {}, [],
    ),
    (
        "@0xsequence/tee-verifier", "npm", "0.1.2", "tee_verifier.mjs",
        "{document} {root} {time_ms} [0={pcr0}] [1={pcr1}] [2={pcr2}]", False, {}, [],
    ),
]


def run(*command, **options):
    subprocess.run([str(word) for word in command], check=True, **options)


def install(peer, folder):
    """Installs the peer, and returns the command of its adapter."""
    name, registry, version, adapter, _, _, needs, features = peer
    folder.mkdir(parents=True, exist_ok=True)
    if registry == "crates.io":
        (folder / "src").mkdir(exist_ok=True)
        shutil.copy(ADAPTERS / adapter, folder / "src/main.rs")
        program = pathlib.Path(adapter).stem
        # The programs run once for each case: compiling takes longer than they do.
        lines = [
            "[workspace]", "[profile.release]", "opt-level = 0", "[package]",
            f'name = "adapter_{program}"', 'version = "0.0.0"', 'edition = "2024"',
            "[dependencies]",
            f'{name} = {{ version = "={version}", features = {json.dumps(features)} }}',
            *(f'{crate} = "{wanted}"' for crate, wanted in needs.items()),
        ]
        (folder / "Cargo.toml").write_text("\n".join(lines) + "\n")
        target = folder.parent / "target"
        run("cargo", "build", "--quiet", "--release", "--target-dir", target, cwd=folder)
        return str(target / "release" / f"adapter_{program}")
    if registry == "PyPI":
        if not (folder / "bin").exists():
            run(sys.executable, "-m", "venv", folder)
        run(folder / "bin/pip", "install", "--quiet", f"{name}=={version}")
        return f"{folder / 'bin/python'} {ADAPTERS / adapter}"
    # A module is looked for beside the file that imports it.
    shutil.copy(ADAPTERS / adapter, folder)
    run("npm", "install", "--silent", "--no-save", "--prefix", folder, f"{name}@{version}")
    return f"node {folder / adapter}"


def faketime():
    found = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        sys.exit("there is no /usr/lib/*/faketime/libfaketime.so.1: install libfaketime")
    return str(found[0])


def judge(name, verifier, folder, needs_clock):
    """Runs a verifier over the corpus, and returns the results."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "results.json"
    clock = ["--clock", faketime()] if needs_clock else []
    command = [
        sys.executable, CORPUS / "run.py", "--verifier", verifier, "--json", report,
        "--names", "100000", *clock,
    ]
    with open(folder / "results.txt", "w", encoding="utf-8") as text:
        code = subprocess.run([str(word) for word in command], stdout=text, check=False).returncode
    if code not in (0, 1):
        sys.exit(f"{name}: run.py ended with code {code}")
    return json.loads(report.read_text())["results"]


def cell(results, outcomes):
    """How many of the cases ended so, or a dash if there are none."""
    if not results:
        return "–"
    return f"{sum(result['outcome'] in outcomes for result in results)} / {len(results)}"


def print_summary(columns):
    print("| verifier | accepts `must` | accepts `should` | accepts `policy` | refuses usual | refuses unusual | no answer |")
    print("|---|---|---|---|---|---|---|")
    for name, results in columns.items():
        bad = [result for result in results if result["expected"] == "refused"]
        good = [result for result in results if result["expected"] == "accepted"]
        of = lambda results, category: [r for r in results if r["category"] == category]
        usual = of(good, "must")
        cells = [cell(of(bad, category), {"missed"}) for category in ("must", "should", "policy")]
        cells.append(cell(usual, {"good refused", *BROKEN}))
        cells.append(cell([r for r in good if r not in usual], {"good refused", *BROKEN}))
        cells.append(cell(results, BROKEN))
        print(f"| {name} | {' | '.join(cells)} |")


def print_rules(columns):
    """Rule by rule: accepted and to be refused, or refused and good, of all cases."""
    rows = {}
    for name, results in columns.items():
        for result in results:
            rule = re.sub(r"\.\d+$", "", result["rule"] or "accepted")
            row = rows.setdefault((CATEGORIES.index(result["category"]), rule), {})
            row.setdefault(name, []).append(result)
    # Versions and registries stand in the summary.
    names = [title.split(" ", 1)[0] for title in columns]
    print(f"\n| rule | category | {' | '.join(names)} |")
    print(f"|---|---|{'---|' * len(columns)}")
    for (category, rule), row in sorted(rows.items()):
        cells = [cell(row.get(name, []), {"missed", "good refused", *BROKEN}) for name in columns]
        print(f"| `{rule}` | {CATEGORIES[category]} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument(
        "--verifier", action="append", default=[], metavar="NAME=COMMAND",
        help="another one, with a command as run.py takes it",
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    columns = {}
    for text in options.verifier:
        name, command = text.split("=", 1)
        columns[f"`{name}`"] = judge(name, command, options.folder.resolve() / name, False)
    for peer in PEERS:
        name, registry, version, _, words, needs_clock, _, _ = peer
        if not options.names or name in options.names:
            folder = options.folder.resolve() / re.sub(r"\W", "-", name)
            command = f"{install(peer, folder)} {words}"
            title = f"`{name}` {version}, {registry}"
            columns[title] = judge(name, command, folder, needs_clock)
    print_summary(columns)
    print_rules(columns)


if __name__ == "__main__":
    main()
