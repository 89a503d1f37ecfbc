"""Plans and applications that several checks look at: each is made once."""

import zipfile
from pathlib import Path

import pytest

import support


@pytest.fixture(scope="session")
def functions(tmp_path_factory):
    """A folder with an archive for each function; Terraform takes their digests only."""
    folder = tmp_path_factory.mktemp("functions")
    for name in support.FUNCTIONS:
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            archive.writestr("bootstrap", "")
    return folder


@pytest.fixture(scope="session", params=support.ENVIRONMENTS)
def control_plane(request, functions, tmp_path_factory):
    """The control plane of an environment, applied: its configuration, plan and state."""
    folder = tmp_path_factory.mktemp(request.param)
    variables = [
        f"-var-file=environments/{request.param}/terraform.tfvars",
        f"-var=functions_directory={functions}",
        "-var=terraform_runner_image_version=v1.2.3",
        f"-var=agent_sha256={'a' * 64}",
        # So that the example of a workload's key is looked at too.
        '-var=workload_keys={payments={pcr0=["%s"]}}' % ("a" * 96),
    ]
    return support.Applied("", folder, variables, name=request.param)


@pytest.fixture(scope="session")
def enclave(tmp_path_factory):
    """One enclave's stack, applied, with names as long as they may be."""
    return support.Applied(
        "stacks/enclave",
        tmp_path_factory.mktemp("enclave"),
        [f"-var={name}={value}" for name, value in support.LONGEST.items()],
        name="enclave",
    )


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory):
    """The bucket of the state, applied."""
    return support.Applied(
        "bootstrap",
        tmp_path_factory.mktemp("bootstrap"),
        ["-var=aws_region=us-west-2", "-var=environment=dev", "-var=create_lock_table=true"],
        name="bootstrap",
    )


@pytest.fixture
def scratch(tmp_path) -> Path:
    """A folder for a configuration of a check's own."""
    return tmp_path
