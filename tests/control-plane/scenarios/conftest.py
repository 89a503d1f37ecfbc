"""One emulator for all scenarios, with the control plane on it twice: as it is, and
with short timeouts for those scenarios in which something never happens."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

from iam.recorded import refused  # noqa: E402
from local_cloud.cloud import Cloud, ControlPlane  # noqa: E402
from local_cloud.stream import Changes  # noqa: E402

from local_cloud.played import Documents, World  # noqa: E402

PROGRAMS = Path(os.environ["CONTROL_PLANE_PROGRAMS"])
FUNCTIONS = Path(os.environ["CONTROL_PLANE_FUNCTIONS"])


def impatient(definition):
    """A workflow whose timeouts are a few seconds."""
    definition = json.loads(json.dumps(definition))
    for state in definition["States"].values():
        if "waitForTaskToken" in state.get("Resource", ""):
            state["TimeoutSeconds"] = 10
            if "HeartbeatSeconds" in state:
                state["HeartbeatSeconds"] = 4
        payload = state.get("Arguments", {}).get("Payload")
        if isinstance(payload, dict) and "lifetime_seconds" in payload:
            payload["lifetime_seconds"] = 2
    return definition


@pytest.fixture(scope="session")
def documents(tmp_path_factory):
    documents = Documents(PROGRAMS / "enclave-documents", tmp_path_factory.mktemp("nsm"))
    yield documents
    documents.close()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory, documents):
    cloud = Cloud(tmp_path_factory.mktemp("cloud"), root_pem=documents.root_pem)
    yield cloud
    cloud.close()


@pytest.fixture(scope="session")
def worlds(cloud, documents):
    with ThreadPoolExecutor() as pool:
        usual = pool.submit(ControlPlane, cloud, FUNCTIONS)
        hurried = pool.submit(ControlPlane, cloud, FUNCTIONS, project="impatient", adapt=impatient)
        worlds = [World(plane.result(), documents) for plane in (usual, hurried)]
    yield worlds
    for world in worlds:
        world.close()


@pytest.fixture
def world(worlds, request):
    """The control plane; all changes of the test's enclaves are checked after it."""
    yield from _checked(worlds[0], request)


@pytest.fixture
def hurried_world(worlds, request):
    """The control plane with short timeouts."""
    yield from _checked(worlds[1], request)


def _checked(world, request):
    world.begin(request.node.name)
    yield world
    world.cloud.throttle({})
    changes = Changes(world.plane)
    for enclave in world.enclaves:
        assert not changes.illegal(enclave), f"{enclave}: {changes.path(enclave)}"
    assert not world.tasks.errors, world.tasks.errors
    evaluate(world.plane, world.cloud.calls())


# What all scenarios have called.
RECORDED = []


def evaluate(plane, calls):
    """Fails if the policies that Terraform renders refuse a call, and keeps the calls."""
    own = {role["name"] for role in plane.rendering.all("aws_iam_role")}
    calls = [call for call in calls if call["principal"] in own and call not in RECORDED]
    # One scenario fails for a call, not all that follow.
    RECORDED.extend(calls)
    problems = list(refused(plane.policies(), calls))
    assert not problems, "\n".join(problems)


def pytest_collection_modifyitems(items):
    """What looks at the calls of all scenarios comes last."""
    items.sort(key=lambda item: item.path.name == "test_iam.py")
