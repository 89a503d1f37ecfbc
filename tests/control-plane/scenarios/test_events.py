"""Events as streams deliver them: twice, out of order, poisoned; and clients that ask
for what may not be."""

import copy
import json
import threading
import time


def _deliver(world, *records):
    return world.plane.invoke("trigger", {"Records": list(records)})


def _request(world, enclave):
    """The record of an enclave's last request."""
    return [r for r in world.records(enclave) if r["dynamodb"]["NewImage"]["status"]["S"].startswith("PENDING")][-1]


def _refused(world, enclave, status, back_to):
    """Writes what may not be, and waits until it is put back."""
    world.write(enclave, status)
    return world.wait(enclave, back_to, holds=lambda item: item.get("error_type") == "Refused")


def test_a_record_delivered_again_starts_nothing(world):
    enclave = world.new()
    world.deploy(enclave)
    record = _request(world, enclave)
    for _ in range(3):
        assert _deliver(world, record)["batchItemFailures"] == []
    assert len(world.settled(enclave)) == 1
    assert world.item(enclave)["status"] == "DEPLOYED"


def test_an_old_record_that_comes_late_changes_nothing(world):
    enclave = world.new()
    world.deploy(enclave)
    deploy = _request(world, enclave)
    world.destroy(enclave)
    _deliver(world, deploy)
    time.sleep(1)
    assert world.item(enclave)["status"] == "DESTROYED"
    assert len(world.settled(enclave)) == 1


def test_records_in_the_wrong_order_end_as_the_last_of_them_asks(world):
    enclave = world.new()
    world.deploy(enclave)
    deploy = _request(world, enclave)
    world.write(enclave, "PENDING_DESTROY")
    destroy = None
    while destroy is None or destroy["dynamodb"]["NewImage"]["status"]["S"] != "PENDING_DESTROY":
        destroy = _request(world, enclave)
    _deliver(world, destroy, deploy)
    _deliver(world, deploy)
    world.wait(enclave, "DESTROYED")
    world.settled(enclave)


def test_one_batch_delivered_by_many_at_once_starts_one_execution(world):
    enclave = world.new(agent="silent")
    world.put(enclave, "PENDING_DEPLOY")
    world.wait_for_challenge(enclave)
    record = _request(world, enclave)
    threads = [threading.Thread(target=_deliver, args=(world, record)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(world.executions(enclave)) == 1
    world.play(enclave, agent="honest")
    world.wait(enclave, "DEPLOYED")


def test_a_poisoned_record_blocks_no_other(world):
    enclave = world.new()
    world.deploy(enclave)
    good = _request(world, enclave)
    poisoned = []
    for damage in (
        lambda record: record["dynamodb"].pop("SequenceNumber"),
        lambda record: record["dynamodb"]["NewImage"].pop("status"),
        lambda record: record["dynamodb"].update(NewImage="nonsense"),
        lambda record: record["dynamodb"]["NewImage"].update(id={"S": "other"}, providerConfig={"S": "x"}),
    ):
        record = copy.deepcopy(good)
        record["eventID"] = f"poison-{len(poisoned)}"
        record["dynamodb"]["Keys"]["id"]["S"] = f"{enclave}-poisoned"
        damage(record)
        poisoned.append(record)
    other = world.new("-other")
    world.put(other, "PENDING_DEPLOY")
    answer = _deliver(world, *poisoned, good)
    assert answer["batchItemFailures"] == [], answer
    assert world.wait(other, "DEPLOYED", "FAILED")["status"] == "DEPLOYED"


def test_an_item_that_is_no_request_at_all_fails_and_blocks_no_other(world):
    enclave, other = world.new("-broken"), world.new("-fine")
    world.cloud.client("dynamodb").put_item(TableName=world.plane.enclaves, Item={
        "id": {"S": enclave}, "status": {"S": "PENDING_DEPLOY"}, "providerConfig": {"S": "not a map"}})
    world.put(other, "PENDING_DEPLOY")
    assert world.wait(enclave, "FAILED")["error_message"]
    world.wait(other, "DEPLOYED")


def test_a_destroy_of_an_enclave_that_is_being_deployed_is_refused(world):
    enclave = world.new(agent="silent")
    world.put(enclave, "PENDING_DEPLOY")
    world.wait_for_challenge(enclave)
    item = _refused(world, enclave, "PENDING_DESTROY", "DEPLOYING")
    assert item["error_message"]
    world.play(enclave, agent="honest")
    item = world.wait(enclave, "DEPLOYED")
    assert "error_message" not in item


def test_a_deploy_of_an_enclave_that_is_being_deployed_is_refused(world):
    enclave = world.new(agent="silent")
    world.put(enclave, "PENDING_DEPLOY")
    world.wait_for_challenge(enclave)
    _refused(world, enclave, "PENDING_DEPLOY", "DEPLOYING")
    world.play(enclave, agent="honest")
    world.wait(enclave, "DEPLOYED")
    assert len(world.settled(enclave)) == 1


def test_a_deploy_of_a_deployed_enclave_is_refused(world):
    enclave = world.new()
    world.deploy(enclave)
    _refused(world, enclave, "PENDING_DEPLOY", "DEPLOYED")
    assert len(world.settled(enclave)) == 1


def test_a_destroy_of_an_enclave_that_is_being_destroyed_is_refused(world):
    gate = threading.Event()
    enclave = world.new(task={"deploy": "done", "destroy": lambda world, task: gate.wait() and world.succeed(task)})
    world.deploy(enclave)
    world.write(enclave, "PENDING_DESTROY")
    world.wait(enclave, "DESTROYING")
    _refused(world, enclave, "PENDING_DESTROY", "DESTROYING")
    _refused(world, enclave, "PENDING_DEPLOY", "DESTROYING")
    gate.set()
    world.wait(enclave, "DESTROYED")
    assert len(world.settled(enclave, "cleanup")) == 1


def test_a_destroy_of_a_destroyed_enclave_is_refused(world):
    enclave = world.new()
    world.deploy(enclave)
    world.destroy(enclave)
    _refused(world, enclave, "PENDING_DESTROY", "DESTROYED")


def test_a_whole_item_written_over_a_deployed_one_is_put_back_with_what_it_had(world):
    enclave = world.new()
    before = world.deploy(enclave)
    world.put(enclave, "PENDING_DEPLOY")
    item = world.wait(enclave, "DEPLOYED", holds=lambda item: item.get("error_type") == "Refused")
    for name in ("execution_arn", "attestation", "image", "outputs"):
        assert item[name] == before[name], name


def test_a_deploy_and_a_destroy_of_one_enclave_at_once_leave_it_at_rest(world):
    enclaves = [world.new(f"-{number}") for number in range(6)]
    for enclave in enclaves:
        world.put(enclave, "PENDING_DEPLOY")

    def client(enclave):
        for status in ("PENDING_DESTROY", "PENDING_DEPLOY", "PENDING_DESTROY"):
            time.sleep(0.15)
            world.write(enclave, status)

    threads = [threading.Thread(target=client, args=(enclave,)) for enclave in enclaves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for enclave in enclaves:
        world.wait(enclave, "DEPLOYED", "DESTROYED", "FAILED", holds=lambda item: all(
            execution["status"] != "RUNNING" for machine in ("deployment", "cleanup")
            for execution in world.executions(item["id"], machine)))


def test_a_deleted_item_ends_its_execution_without_a_trace(world):
    gate = threading.Event()
    enclave = world.new(task={"deploy": lambda world, task: gate.wait() and world.succeed(task), "destroy": "done"})
    world.put(enclave, "PENDING_DEPLOY")
    world.wait(enclave, "DEPLOYING")
    world.cloud.client("dynamodb").delete_item(TableName=world.plane.enclaves, Key={"id": {"S": enclave}})
    gate.set()
    world.settled(enclave)
    assert (enclave, "destroy") in world.played, "what it made must not stay"
    assert world.item(enclave) == {}


def test_other_providers_items_are_left_alone(world):
    enclave = world.new()
    world.put(enclave, "PENDING_DEPLOY")
    world.wait(enclave, "DEPLOYED")
    foreign = world.new("-foreign")
    world.cloud.client("dynamodb").put_item(TableName=world.plane.enclaves, Item={
        "id": {"S": foreign}, "status": {"S": "PENDING_DEPLOY"}, "providerId": {"S": "other-cloud"}})
    time.sleep(2)
    assert world.item(foreign)["status"] == "PENDING_DEPLOY"
    assert world.executions(foreign) == []


def test_throttled_services_delay_and_lose_nothing(world):
    world.cloud.throttle({"dynamodb": 0.25, "states": 0.25, "ecs": 0.25, "lambda": 0.1})
    enclaves = [world.new(f"-{number}") for number in range(8)]
    for enclave in enclaves:
        world.put(enclave, "PENDING_DEPLOY")
    items = [world.wait(enclave, "DEPLOYED", "FAILED") for enclave in enclaves]
    world.cloud.throttle({})
    # A workflow gives up after its retries; what it gave up says so.
    for item in items:
        assert item["status"] == "DEPLOYED" or "hrottl" in json.dumps(item) or "Rate" in item["error_message"], item
    for enclave in enclaves:
        assert world.destroy(enclave)["status"] == "DESTROYED"


def test_a_stream_that_fails_for_a_while_delivers_later(world):
    world.cloud.throttle({"states": 1.0})
    enclave = world.new()
    world.put(enclave, "PENDING_DEPLOY")
    time.sleep(1)
    world.cloud.throttle({})
    world.wait(enclave, "DEPLOYED")


def test_an_execution_that_somebody_aborts_is_found_by_the_monitor(world):
    enclave = world.new(agent="silent")
    world.put(enclave, "PENDING_DEPLOY")
    world.wait_for_challenge(enclave)
    execution = world.executions(enclave)[0]["executionArn"]
    world.cloud.client("stepfunctions").stop_execution(executionArn=execution)
    world.age(enclave, minutes=10)
    world.monitor()
    item = world.item(enclave)
    assert item["status"] == "FAILED" and item["error_message"], item
    assert world.destroy(enclave)["status"] == "DESTROYED"
