"""Destroys, pauses and resumes."""


def _instance(world, enclave):
    ec2 = world.cloud.client("ec2")
    surroundings = world.plane.task_environment
    made = ec2.run_instances(ImageId="ami-0123456789abcdef0", MinCount=1, MaxCount=1, TagSpecifications=[{
        "ResourceType": "instance",
        "Tags": [{"Key": "EnclaveId", "Value": enclave}, {"Key": "ManagedBy", "Value": "terraform"},
                 {"Key": "Project", "Value": surroundings["PROJECT_NAME"]},
                 {"Key": "Environment", "Value": surroundings["ENVIRONMENT"]}]}])
    return made["Instances"][0]["InstanceId"]


def _move_on(world, enclave, *statuses):
    """Runs the monitor as its schedule does, until the enclave is there."""
    import time
    for _ in range(300):
        world.monitor()
        item = world.item(enclave)
        if item["status"] in statuses:
            return item
        time.sleep(0.2)
    raise AssertionError(f"{enclave}: {world.item(enclave)}")


def test_a_deployed_enclave_is_destroyed(world):
    enclave = world.new()
    world.deploy(enclave)
    item = world.destroy(enclave)
    assert item["status"] == "DESTROYED", item
    assert "outputs" not in item and "attestation" not in item
    assert world.path(enclave)[-3:] == ["PENDING_DESTROY", "DESTROYING", "DESTROYED"]


def test_a_failed_enclave_is_destroyed(world):
    enclave = world.new()
    assert world.deploy(enclave, cpuCount=99)["status"] == "FAILED"
    # A request that would not be accepted any more is no obstacle.
    assert world.destroy(enclave)["status"] == "DESTROYED"


def test_a_destroy_that_fails_can_be_asked_for_again(world):
    enclave = world.new(task={"deploy": "done", "destroy": "failing"})
    world.deploy(enclave)
    item = world.destroy(enclave)
    assert item["status"] == "FAILED" and item["error_type"] == "TerraformFailed"
    world.play(enclave, task="done")
    assert world.destroy(enclave)["status"] == "DESTROYED"


def test_a_destroy_whose_task_is_lost_fails_with_the_reason(hurried_world):
    world = hurried_world
    enclave = world.new(task={"deploy": "done", "destroy": "silent"})
    world.deploy(enclave)
    item = world.destroy(enclave)
    assert item["status"] == "FAILED" and item["error_type"] == "RunnerLost"
    assert "again" in item["error_message"]


def test_a_destroyed_enclave_deploys_again(world):
    enclave = world.new()
    world.deploy(enclave)
    world.destroy(enclave)
    item = world.deploy(enclave)
    assert item["status"] == "DEPLOYED", item.get("error_message")


def test_a_pause_stops_the_instance_and_a_resume_attests_again(world):
    enclave = world.new()
    first = world.deploy(enclave)
    instance = _instance(world, enclave)
    world.write(enclave, "PAUSING")
    _move_on(world, enclave, "PAUSED")
    states = world.cloud.client("ec2").describe_instances(InstanceIds=[instance])
    assert states["Reservations"][0]["Instances"][0]["State"]["Name"] == "stopped"
    world.write(enclave, "RESUMING")
    item = _move_on(world, enclave, "DEPLOYED")
    assert item["attestation"]["reason"] == "resume" and item["attestation"]["state"] == "passed"
    assert item["attestation"]["nonce"] != first["attestation"]["nonce"]
    assert world.path(enclave)[-4:] == ["PAUSING", "PAUSED", "RESUMING", "DEPLOYED"]


def test_a_resumed_enclave_of_another_image_fails(world):
    enclave = world.new()
    world.deploy(enclave)
    _instance(world, enclave)
    world.write(enclave, "PAUSING")
    _move_on(world, enclave, "PAUSED")
    world.play(enclave, agent="other image")
    world.write(enclave, "RESUMING")
    item = _move_on(world, enclave, "FAILED")
    assert item["error_type"] == "AttestationRefused"


def test_a_resumed_enclave_that_stays_silent_fails(hurried_world):
    world = hurried_world
    enclave = world.new()
    world.deploy(enclave)
    _instance(world, enclave)
    world.write(enclave, "PAUSING")
    _move_on(world, enclave, "PAUSED")
    world.play(enclave, agent="silent")
    world.write(enclave, "RESUMING")
    assert _move_on(world, enclave, "FAILED")["error_type"] == "AttestationTimedOut"


def test_a_paused_enclave_is_destroyed(world):
    enclave = world.new()
    world.deploy(enclave)
    _instance(world, enclave)
    world.write(enclave, "PAUSING")
    _move_on(world, enclave, "PAUSED")
    assert world.destroy(enclave)["status"] == "DESTROYED"
