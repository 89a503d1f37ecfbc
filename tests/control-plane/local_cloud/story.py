"""The control plane's story, step by step: from an item in the table to an attested
enclave, and back to nothing."""

import copy
import json
import time
import urllib.request

from . import images
from .screen import seconds
from .stream import Changes, plain

LIMIT = 300
REFERENCE = "hello:1.0"
WRONG_REFERENCE = "hello:0.9"


def tell(start, folder, programs, kernel, screen):
    """Tells it. `start` brings the control plane up, once there is an image."""
    screen.title(
        "An enclave, from an item in a table to a verified document",
        "on this machine: real functions, workflows and Terraform; AWS is emulated, the instance simulated")

    screen.phase("build", "Build an enclave image")
    image, measurements = images.build(folder / "image", programs, kernel)
    registers = measurements["Measurements"]
    screen.fact("enclave image", f"{image.stat().st_size / 2**20:.1f} MiB")
    screen.fact("PCR0 whole image", short(registers["PCR0"]))

    screen.phase("start", "Start the control plane")
    local = start()
    plane = local.plane
    managed = len(plane.rendering._resources)
    screen.fact("Terraform", f"{managed} resources rendered by its core, with the AWS provider's schema")
    screen.fact("on the emulator", "2 tables, the stream's filter, 5 functions, 3 state machines, buckets, parameters")

    screen.phase("publish", "Publish the image")
    digest = images.publish(plane, REFERENCE, image, measurements)
    screen.fact(REFERENCE, f"stands for SHA-256 {short(digest)} from now on")
    other = copy.deepcopy(measurements)
    other["Measurements"]["PCR2"] = "ff" * 48
    images.publish(plane, WRONG_REFERENCE, image, other)
    screen.fact(WRONG_REFERENCE, "the same file, published with other measurements")

    screen.phase("deploy", "Ask for an enclave")
    begin = time.monotonic()
    put(plane, "hello-1", REFERENCE)
    item = follow(local, "hello-1", screen, "DEPLOYED", "FAILED")
    took = time.monotonic() - begin
    if item["status"] != "DEPLOYED":
        raise RuntimeError(f"{item.get('error_type')}: {item.get('error_message')}")
    screen.fact("item to DEPLOYED", seconds(took))
    screen.fact("instance", item["providerConfig"]["instanceId"])
    screen.proven(f"an item became DEPLOYED in {seconds(took)}, through stream, functions, Terraform and agent")

    screen.phase("attest", "Look at the proof")
    attestation = item["attestation"]
    screen.fact("verified at", attestation["verified_at"])
    screen.fact("nonce", short(attestation["nonce"]))
    if ear := attestation.get("ear"):
        screen.fact("attestation result", f"EAR, {len(ear)} characters, signed by KMS")
    screen.proven("its document was verified before: the published measurements, its own id in PCR16, a fresh nonce")

    screen.phase("use", "Use it")
    agent = local.instances.agents["hello-1"]
    with urllib.request.urlopen(f"http://{agent.address}/", timeout=30) as answer:
        body = answer.read().decode()
    screen.fact(f"GET http://{agent.address}", body)
    if json.loads(body)["enclave_id"] != "hello-1":
        raise RuntimeError(f"the enclave does not know its id: {body}")
    line = logged(local, item["outputs"]["log_group_name"])
    screen.fact("CloudWatch Logs", f"{item['outputs']['log_group_name']}: {line}")
    screen.proven("it answers with the id that it was told at its start, and its logs are in CloudWatch")

    screen.phase("refuse", "Ask for an image that is not what was published")
    put(plane, "hello-2", WRONG_REFERENCE)
    item = follow(local, "hello-2", screen, "DEPLOYED", "FAILED")
    if (item["status"], item.get("error_type")) != ("FAILED", "AttestationRefused"):
        raise RuntimeError(f"it was not refused: {item}")
    screen.fact(item["error_type"], item["error_message"][:160])
    if plane.state("hello-2").get("resources"):
        raise RuntimeError("what was made for it was not removed")
    screen.proven("an enclave with other measurements never became DEPLOYED, and what was made for it is gone")

    screen.phase("destroy", "Destroy it")
    write(plane, "hello-1", "PENDING_DESTROY")
    item = follow(local, "hello-1", screen, "DESTROYED", "FAILED")
    if item["status"] != "DESTROYED":
        raise RuntimeError(f"{item.get('error_type')}: {item.get('error_message')}")
    deadline = time.monotonic() + LIMIT
    while local.instances.agents and time.monotonic() < deadline:
        time.sleep(0.1)
    if local.instances.agents or plane.state("hello-1").get("resources"):
        raise RuntimeError("something of it is left")
    screen.fact("left behind", "an item that says DESTROYED, an empty Terraform state, its lock released")
    changes = Changes(plane)
    for enclave in ("hello-1", "hello-2"):
        if changes.illegal(enclave):
            raise RuntimeError(f"illegal changes of {enclave}: {changes.path(enclave)}")
    screen.proven("no instance, no parameter, no resource is left; every change of a status was legal")
    screen.summary([
        "AWS itself: IAM lets everything through, Fargate, VPC endpoints and quotas do not exist here",
        "the AWS provider: Terraform's core is real, its provider a mock with the provider's schema",
        "AWS's signature: `sim` signs documents with a software NSM, whose root this gate was told to trust",
    ])


def short(text):
    return f"{text[:16]}…"


def put(plane, enclave_id, reference):
    plane.cloud.client("dynamodb").put_item(TableName=plane.enclaves, Item={
        "id": {"S": enclave_id},
        "status": {"S": "PENDING_DEPLOY"},
        "walletAddress": {"S": "0x51"},
        "providerId": {"S": "aws-nitro"},
        "providerConfig": {"M": {
            "dockerImage": {"S": reference},
            "instanceType": {"S": "m6i.xlarge"},
            "cpuCount": {"N": "2"},
            "memoryMiB": {"N": "1024"},
            "workloadType": {"S": "service"},
            "exposePorts": {"L": [{"N": "8080"}]},
        }},
    })


def write(plane, enclave_id, status):
    plane.cloud.client("dynamodb").update_item(
        TableName=plane.enclaves, Key={"id": {"S": enclave_id}},
        UpdateExpression="SET #status = :status", ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":status": {"S": status}})


def follow(local, enclave_id, screen, *ends):
    """Shows statuses and progress until one of the ends."""
    plane, begin, shown = local.plane, time.monotonic(), None
    while time.monotonic() - begin < LIMIT:
        answer = plane.cloud.client("dynamodb").get_item(
            TableName=plane.enclaves, Key={"id": {"S": enclave_id}}, ConsistentRead=True)
        item = plain(answer.get("Item"))
        text = item.get("status", "")
        waiting = item.get("attestation", {}).get("state") == "waiting" and text in ("DEPLOYING", "RESUMING")
        if waiting:
            text += ": waiting for the enclave's document"
        elif "progress" in item:
            text += f": {item['progress']}"
        if text != shown:
            screen.fact(f"after {seconds(time.monotonic() - begin)}", text)
            shown = text
        if item.get("status") in ends:
            return item
        for part in (local.tasks, local.instances):
            if part.errors:
                raise part.errors[0]
        if not local.cloud.is_running():
            raise RuntimeError("the emulator has ended")
        time.sleep(0.1)
    raise RuntimeError(f"{enclave_id} is still {item.get('status')} after {LIMIT} s")


def logged(local, group):
    """The last line that an enclave's application wrote, as CloudWatch has it."""
    logs = local.cloud.client("logs")
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        answer = logs.filter_log_events(logGroupName=group, logStreamNamePrefix="application")
        if answer["events"]:
            return answer["events"][-1]["message"][:100]
        time.sleep(0.2)
    raise RuntimeError(f"no line came to {group}")
