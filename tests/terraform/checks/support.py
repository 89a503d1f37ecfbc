"""Terraform as the checks call it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TERRAFORM = HERE.parent / "terraform"
ENVIRONMENTS = ["dev", "staging", "production"]
FUNCTIONS = ["trigger", "validation", "attestation-gate", "error-handler", "status-monitor"]

# The longest names that the control plane lets through to an enclave's stack.
_PROJECT, _ENVIRONMENT, _ID = "p" * 18, "e" * 12, "i" * 128
_BUCKET = f"{_PROJECT}-{_ENVIRONMENT}-artifacts-123456789012"
LONGEST = {
    "enclave_id": _ID,
    "wallet_address": "0x" + "a" * 40,
    "environment": _ENVIRONMENT,
    "project_name": _PROJECT,
    "aws_region": "ap-southeast-2",
    "vpc_id": "vpc-0123456789abcdef0",
    "subnet_id": "subnet-0123456789abcdef0",
    "security_group_id": "sg-0123456789abcdef0",
    "instance_profile_name": f"{_PROJECT}-{_ENVIRONMENT}-instance",
    "instance_type": "m6i.xlarge",
    "cpu_count": "2",
    "memory_mib": "1024",
    "expose_ports": "[8080]",
    "image": json.dumps(
        {
            "reference": "payments:v1",
            "bucket": _BUCKET,
            "key": f"images/{'b' * 64}.eif",
            "sha256": "b" * 64,
            "size": 1,
        }
    ),
    "agent": json.dumps({"bucket": _BUCKET, "key": f"agents/{'c' * 64}", "sha256": "c" * 64}),
    "gate_function_name": f"{_PROJECT}-{_ENVIRONMENT}-attestation-gate",
    "runtime_configuration": json.dumps({"enclave_id": _ID}),
    "log_retention_days": "30",
}


def terraform(folder, *arguments, check=True, **variables):
    """Runs Terraform in a folder, with these variables of the environment added."""
    run = subprocess.run(
        [str(TERRAFORM), f"-chdir={folder}", *map(str, arguments)],
        env={**os.environ, "TF_IN_AUTOMATION": "1", **variables},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if check and run.returncode != 0:
        raise AssertionError(f"terraform {' '.join(map(str, arguments))}:\n{run.stdout}{run.stderr}")
    return run


def copy(name, folder):
    """Copies a configuration, with the modules beside it, to be used with a local state."""
    copied = Path(folder) / "terraform"
    shutil.copytree(ROOT / "terraform", copied, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    work = copied / name
    (work / "override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    terraform(work, "init", "-input=false")
    return work


class Applied:
    """A configuration that was planned and then applied."""

    def __init__(self, configuration, folder, variables, name):
        self.name = name
        self.variables = variables
        self.work = copy(configuration, folder)
        terraform(self.work, "plan", "-input=false", "-out=plan", *variables)
        self.plan = json.loads(terraform(self.work, "show", "-json", "plan").stdout)
        self.applied = terraform(self.work, "apply", "-input=false", "plan")
        self.state = json.loads(terraform(self.work, "show", "-json").stdout)

    def resources(self, *types):
        """(address, values) of what was created, of all types or of these."""
        found = []
        modules = [self.state["values"]["root_module"]]
        while modules:
            module = modules.pop()
            modules.extend(module.get("child_modules", []))
            for resource in module.get("resources", []):
                if resource["mode"] == "managed" and (not types or resource["type"] in types):
                    found.append((resource["address"], resource["values"]))
        return found
