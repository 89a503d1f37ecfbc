"""The control plane as Terraform renders it: the root configuration, applied by real
Terraform with the mock of the AWS provider."""

import json
import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
TERRAFORM = REPOSITORY / "tests" / "terraform" / "terraform"

_LOCAL_BACKEND = 'terraform {\n  backend "local" {}\n}\n'


class Resource:
    """A resource of Terraform's state."""

    def __init__(self, raw):
        self.type = raw["type"]
        self.name = raw["name"]
        self.index = raw.get("index")
        self.values = raw["values"]

    def __getitem__(self, attribute):
        return self.values[attribute]


class Rendering:
    """The resources that a configuration makes."""

    def __init__(self, resources, state):
        self._resources = resources
        # As Terraform has written it.
        self.state = state

    def all(self, kind):
        return [resource for resource in self._resources if resource.type == kind]

    def one(self, kind, name=None):
        found = [resource for resource in self.all(kind) if name is None or resource.name == name]
        assert len(found) == 1, f"{kind} {name}: {len(found)}"
        return found[0]

    @staticmethod
    def of_state(state):
        """From a state file, as backends keep it."""
        resources = []
        for group in state.get("resources", []):
            if group["mode"] != "managed":
                continue
            for instance in group["instances"]:
                resources.append(Resource({
                    "type": group["type"],
                    "name": group["name"],
                    "index": instance.get("index_key"),
                    "values": instance["attributes"],
                }))
        return Rendering(resources, state)


def render(folder, variables, environment="dev"):
    """Applies the root configuration in a new folder, and gives its resources."""
    root = Path(folder) / "terraform"
    shutil.copytree(REPOSITORY / "terraform", root, ignore=shutil.ignore_patterns(".terraform", "*.tfstate*"))
    (root / "backend_override.tf").write_text(_LOCAL_BACKEND)
    (root / "local.auto.tfvars.json").write_text(json.dumps(variables))
    _terraform(root, "init", "-input=false", "-no-color")
    _terraform(root, "apply", "-auto-approve", "-input=false", "-no-color",
               f"-var-file=environments/{environment}/terraform.tfvars")
    return Rendering.of_state(json.loads((root / "terraform.tfstate").read_text()))


def _terraform(root, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run([TERRAFORM, *arguments], cwd=root, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"terraform {arguments[0]} failed:\n{done.stdout}")
