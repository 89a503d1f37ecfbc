"""With the real runner, and Terraform's core: only the provider is a mock."""

import contextlib
import os
import signal
import time

import pytest
from local_cloud.rendering import Rendering
from local_cloud.tasks import Runner

from conftest import PROGRAMS


@pytest.fixture
def runner(world):
    runner = Runner(world.plane, PROGRAMS / "terraform-runner")
    yield runner
    runner.close()


def _descendants(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [deeper for child in children for deeper in _descendants(child)]


def _started(runner, enclave, action="deploy"):
    """The runner's process, once Terraform runs under it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        process = runner.processes.get((enclave, action))
        if process and _descendants(process.pid):
            return process
        time.sleep(0.02)
    raise AssertionError("Terraform never started")


def test_terraform_deploys_and_destroys_with_its_state_in_the_bucket(world, runner):
    enclave = world.new(task=lambda world, task: runner(task))
    item = world.deploy(enclave)
    assert item["status"] == "DEPLOYED", item.get("error_message")
    state = Rendering.of_state(world.plane.state(enclave))
    instance = state.one("aws_instance")
    assert item["providerConfig"]["instanceId"] == item["outputs"]["instance_id"] == instance["id"]
    assert item["outputs"]["private_ip"] == instance["private_ip"]
    assert item["outputs"]["log_group_name"] == f"/aws/ec2/enclave/{enclave}"
    assert enclave in state.one("aws_ssm_parameter")["value"]
    assert world.destroy(enclave)["status"] == "DESTROYED"
    assert world.plane.state(enclave)["resources"] == []
    assert _locks(world, enclave) == []
    log = runner.log()
    assert "TASK_TOKEN" not in log and "AWS_SECRET_ACCESS_KEY" not in log


def test_a_wrong_document_has_terraform_remove_what_it_made(world, runner):
    enclave = world.new(agent="other image", task=lambda world, task: runner(task))
    item = world.deploy(enclave)
    assert item["status"] == "FAILED" and item["error_type"] == "AttestationRefused"
    assert world.plane.state(enclave)["resources"] == []


def test_a_task_that_ecs_stops_ends_in_order_and_is_rolled_back(world, runner):
    enclave = world.new(task=lambda world, task: runner(task))
    world.put(enclave, "PENDING_DEPLOY")
    _started(runner, enclave).send_signal(signal.SIGTERM)
    item = world.wait(enclave, "FAILED")
    assert item["error_type"] == "RunnerStopped", item
    assert world.plane.state(enclave).get("resources", []) == []
    assert _locks(world, enclave) == []


def test_a_runner_killed_with_its_terraform_is_noticed(hurried_world):
    world = hurried_world
    runner = Runner(world.plane, PROGRAMS / "terraform-runner")
    try:
        enclave = world.new(task={"deploy": lambda world, task: runner(task), "destroy": "done"})
        world.put(enclave, "PENDING_DEPLOY")
        process = _started(runner, enclave)
        # As the kernel ends a container: all of it, at once.
        descendants = _descendants(process.pid)
        process.kill()
        for pid in descendants:
            # Terraform starts programs that last for moments.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        item = world.wait(enclave, "FAILED")
    finally:
        runner.close()
    assert item["error_type"] == "RunnerLost" and "killed" in item["error_message"]
    assert (enclave, "destroy") in world.played


def _locks(world, enclave):
    answer = world.cloud.client("s3").list_objects_v2(
        Bucket=world.plane.task_environment["TF_STATE_BUCKET"], Prefix=f"enclaves/{enclave}/")
    return [entry["Key"] for entry in answer.get("Contents", []) if entry["Key"].endswith(".tflock")]
