"""Applies the control plane, `bootstrap` and one enclave with Terraform's core and the mock
of the AWS provider, and gives the states."""

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TERRAFORM = ROOT / "tests" / "terraform" / "terraform"
FUNCTIONS = ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"]
LOCKS = "enclaves-dev-state-locks"
ENCLAVE = "payments-1"
PCR0 = "a" * 96
PCR8 = "b" * 96
IMAGE = "c" * 64
AGENT = "a" * 64


def render(folder, region="us-west-2"):
    """The states of the three configurations, in this region."""
    folder = Path(folder)
    functions = folder / "functions"
    functions.mkdir()
    for name in FUNCTIONS:
        with zipfile.ZipFile(functions / f"{name}.zip", "w") as archive:
            archive.writestr("bootstrap", "")
    bootstrap = _apply(folder / "bootstrap", "bootstrap", {
        "aws_region": region, "environment": "dev", "create_lock_table": True})
    (state_key,) = [instance["attributes"]["arn"] for group in bootstrap["resources"] if group["type"] == "aws_kms_key"
                    for instance in group["instances"]]
    control_plane = _apply(folder / "control-plane", ".", {
        "aws_region": region,
        "environment": "dev",
        "availability_zones": [f"{region}a", f"{region}b"],
        "functions_directory": str(functions),
        "terraform_runner_image_version": "v1.2.3",
        "agent_sha256": AGENT,
        # The optional parts, too: what is not made is not evaluated.
        "state_lock_table_name": LOCKS,
        "workload_keys": {"payments": {"pcr0": [PCR0], "pcr8": [PCR8]}},
    }, {"aws_kms_alias": {"target_key_arn": state_key}})
    return [control_plane, bootstrap]


def _apply(folder, name, variables, data=None):
    shutil.copytree(ROOT / "terraform", folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    work = folder / name
    (work / "override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    (work / "local.auto.tfvars.json").write_text(json.dumps(variables))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    environment["MOCK_AWS_DATA"] = json.dumps(data or {})
    for arguments in (["init", "-input=false"], ["apply", "-auto-approve", "-input=false"]):
        done = subprocess.run([str(TERRAFORM), f"-chdir={work}", *arguments, "-no-color"], env=environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise RuntimeError(f"terraform {arguments[0]} of {name} failed:\n{done.stdout}")
    return json.loads((work / "terraform.tfstate").read_text())
