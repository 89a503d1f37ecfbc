"""Deployments: how they succeed, and every point at which they fail."""

import re


def test_a_request_becomes_deployed_with_a_verified_document(world):
    enclave = world.new()
    item = world.deploy(enclave)
    assert item["status"] == "DEPLOYED", item.get("error_message")
    assert item["providerConfig"]["instanceId"] == "i-0123456789abcdef0"
    assert item["outputs"]["log_group_name"] == "/aws/ec2/enclave/x"
    assert item["attestation"]["state"] == "passed" and item["attestation"]["reason"] == "deploy"
    assert item["attestation"]["verified_at"]
    assert item["generation"] == 1
    assert "attestation_token" not in item and "error_message" not in item
    assert world.path(enclave) == ["PENDING_DEPLOY", "DEPLOYING", "DEPLOYED"]


def test_a_request_in_snake_case_with_numbers_as_strings_is_taken(world):
    enclave = world.new()
    item = world.deploy(enclave, instanceType=None, instance_type="m6i.2xlarge", cpuCount=None, cpu_count="4",
                        memoryMiB=None, memory_mib="2048")
    assert item["status"] == "DEPLOYED", item.get("error_message")


def test_a_request_that_breaks_rules_fails_with_all_of_them(world):
    enclave = world.new()
    item = world.deploy(enclave, cpuCount=99, memoryMiB=64, instanceType="t3.nano")
    assert item["status"] == "FAILED" and item["error_type"] == "ValidationFailed"
    for field in ("cpuCount", "memoryMiB", "instanceType"):
        assert re.search(field, item["error_message"]), item["error_message"]
    assert world.path(enclave) == ["PENDING_DEPLOY", "FAILED"]
    assert (enclave, "deploy") not in world.played


def test_an_image_that_was_never_published_is_refused(world):
    enclave = world.new()
    item = world.deploy(enclave, dockerImage="nobody/knows:latest")
    assert item["status"] == "FAILED" and item["error_type"] == "ValidationFailed"
    assert "enclavectl publish" in item["error_message"]


def test_a_terraform_that_fails_is_rolled_back_and_explained(world):
    enclave = world.new(task={"deploy": "failing", "destroy": "done"})
    item = world.deploy(enclave)
    assert item["status"] == "FAILED" and item["error_type"] == "TerraformFailed"
    assert "no capacity" in item["error_message"]
    assert [action for name, action in world.played if name == enclave] == ["deploy", "destroy"]
    assert world.path(enclave) == ["PENDING_DEPLOY", "DEPLOYING", "FAILED"]


def test_a_roll_back_that_fails_too_is_said(world):
    enclave = world.new(task="failing")
    item = world.deploy(enclave)
    assert item["status"] == "FAILED"
    assert "PENDING_DESTROY" in item["error_message"], item["error_message"]


def test_what_a_failed_roll_back_left_can_be_destroyed(world):
    enclave = world.new(task="failing")
    world.deploy(enclave)
    world.play(enclave, task="done")
    assert world.destroy(enclave)["status"] == "DESTROYED"


def test_a_runner_that_cannot_read_its_input_is_not_rolled_back(world):
    enclave = world.new(task=lambda world, task: world.fail(
        task, "InvalidConfiguration", "the task's environment cannot be used: VPC_ID is not set"))
    item = world.deploy(enclave)
    assert item["error_type"] == "InvalidConfiguration" and "VPC_ID" in item["error_message"]
    assert [action for name, action in world.played if name == enclave] == ["deploy"]


def test_a_runner_whose_answer_lacks_the_instance_is_rolled_back(world):
    def answer(world, task):
        world.cloud.client("stepfunctions").send_task_success(taskToken=task.token, output='{"action":"deploy"}')

    enclave = world.new(task={"deploy": answer, "destroy": "done"})
    item = world.deploy(enclave)
    assert item["status"] == "FAILED" and item["error_message"]
    assert (enclave, "destroy") in world.played


def test_a_task_that_never_starts_fails_with_the_reason(hurried_world):
    world = hurried_world
    enclave = world.new(task="silent")
    item = world.deploy(enclave)
    assert item["status"] == "FAILED" and item["error_type"] == "RunnerLost"
    assert "never started" in item["error_message"]
    assert world.path(enclave) == ["PENDING_DEPLOY", "DEPLOYING", "FAILED"]


def test_a_task_that_dies_after_some_heartbeats_fails_and_is_rolled_back(hurried_world):
    world = hurried_world
    enclave = world.new(task={"deploy": lambda world, task: world.heartbeat(task), "destroy": "done"})
    item = world.deploy(enclave)
    assert item["status"] == "FAILED" and item["error_type"] == "RunnerLost"
    assert (enclave, "destroy") in world.played


def test_a_terraform_that_never_ends_runs_into_the_deployments_timeout(hurried_world):
    def forever(world, task):
        import time
        for _ in range(200):
            try:
                world.heartbeat(task)
            except Exception:
                # What the real runner hears too: nobody waits any more.
                return
            time.sleep(0.5)

    world = hurried_world
    enclave = world.new(task={"deploy": forever, "destroy": "done"})
    item = world.deploy(enclave)
    assert item["status"] == "FAILED" and item["error_type"] == "DeploymentTimedOut"


def test_an_answer_that_comes_too_late_changes_nothing(hurried_world):
    world = hurried_world
    tokens = []
    enclave = world.new(task={"deploy": lambda world, task: tokens.append(task), "destroy": "done"})
    item = world.deploy(enclave)
    assert item["status"] == "FAILED"
    states = world.cloud.client("stepfunctions")
    try:
        world.succeed(tokens[0])
        raise AssertionError("a late answer was taken")
    except (states.exceptions.TaskTimedOut, states.exceptions.TaskDoesNotExist):
        pass
    world.settled(enclave)
    assert world.item(enclave)["status"] == "FAILED"


def test_an_enclave_deploys_again_after_a_failure(world):
    enclave = world.new(task={"deploy": "failing", "destroy": "done"})
    assert world.deploy(enclave)["status"] == "FAILED"
    world.play(enclave, task="done")
    world.write(enclave, "PENDING_DEPLOY")
    item = world.wait(enclave, "DEPLOYED")
    assert item["generation"] == 2
    assert "error_message" not in item


def test_an_error_handler_that_is_down_does_not_leave_the_item_in_motion(world):
    """The workflow itself marks the item then."""
    functions = world.cloud.client("lambda")
    name = world.plane.functions["error-handler"]
    variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    broken = {key: value for key, value in variables.items() if key != "DYNAMODB_TABLE_NAME"}
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": broken})
    try:
        enclave = world.new(task={"deploy": "failing", "destroy": "done"})
        item = world.deploy(enclave)
    finally:
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
    assert item["status"] == "FAILED" and item["error_type"] == "TerraformFailed"
    assert "explains failures" in item["error_message"] and "no capacity" in item["error_message"]
