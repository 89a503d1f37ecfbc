"""Enclaves that the control plane deploys get the secrets that their images declare."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from conftest import FUNCTIONS, PROGRAMS, evaluate
from local_cloud import images, story
from local_cloud.cloud import REPOSITORY
from local_cloud.local import Local
from local_cloud.stream import plain

KERNEL = Path(os.environ["CONTROL_PLANE_KERNEL"])
ENCLAVE = "arn:aws:iam::000000000000:role/Enclave"
OPERATOR = "arn:aws:iam::000000000000:user/operator"
SECRET = "the secret of this test"
KEYS = REPOSITORY / "crates" / "sealed-secret" / "tests" / "vectors"
LIMIT = 120


def test_secrets_that_an_image_declares_are_there_when_it_is_deployed():
    # A path of a socket has 107 bytes, and pytest's own folders have long names.
    with tempfile.TemporaryDirectory(prefix="cloud-") as folder:
        folder = Path(folder)
        local = Local(folder / "cloud", PROGRAMS, FUNCTIONS)
        try:
            operator = local.kms.client("operator")
            key, image, measurements = sealed(local, operator, folder / "image")
            images.publish(local.plane, "secret:1", image, measurements)

            # Until the key's policy names the image, KMS refuses, and the enclave ends.
            story.put(local.plane, "secret-1", "secret:1")
            wait(lambda: "boot.secrets" in log(local, "secret-1"), "no enclave was refused the secret")
            assert "AccessDeniedException" in log(local, "secret-1")

            operator.put_key_policy(KeyId=key, Policy=policy(folder / "image" / "measurements.json"))
            story.put(local.plane, "secret-2", "secret:1")
            wait(lambda: status(local, "secret-2") in ("DEPLOYED", "FAILED"), "it was never deployed")
            assert status(local, "secret-2") == "DEPLOYED", log(local, "secret-2")
            assert SECRET not in log(local, "secret-2")
            assert not local.tasks.errors + local.instances.errors
            evaluate(local.plane, local.calls())
        finally:
            local.close()


def test_secrets_that_an_operator_seals_reach_the_enclave_through_the_gate():
    with tempfile.TemporaryDirectory(prefix="cloud-") as folder:
        folder = Path(folder)
        local = Local(folder / "cloud", PROGRAMS, FUNCTIONS)
        try:
            image = folder / "image"
            image.mkdir()
            shutil.copy(KEYS / "sender.pem", image / "operator.pem")
            published = images.build(image, PROGRAMS, KERNEL, images.with_sealed_secret("file-secret", "operator.pem"))
            images.publish(local.plane, "sealed:1", *published)
            other = json.loads((image / "measurements.json").read_text())
            other["Measurements"]["PCR0"] = "00" * 47 + "01"
            (folder / "other.json").write_text(json.dumps(other))

            story.put(local.plane, "sealed-1", "sealed:1")
            wait(lambda: "`file-secret`" in item(local, "sealed-1").get("waiting", ""), "it never waited for the secret")
            assert "waits for the sealed secret `file-secret`" in enclavectl(local, "status", "sealed-1").stdout

            # To another image nothing is sealed, whatever the control plane says of it.
            refused = put(local, folder, measurements=folder / "other.json")
            assert refused.returncode == 3 and "nothing was sealed" in refused.stderr, refused
            assert "policy.image" in refused.stderr
            # What another sender has sealed is carried, and the enclave does not open it.
            refused = put(local, folder, sender=KEYS / "other.key")
            assert refused.returncode == 3 and "does not open here" in refused.stderr, refused
            assert item(local, "sealed-1")["status"] == "DEPLOYING"

            done = put(local, folder)
            assert done.returncode == 0, done
            wait(lambda: status(local, "sealed-1") in ("DEPLOYED", "FAILED"), "it was never deployed")
            deployed = item(local, "sealed-1")
            assert deployed["status"] == "DEPLOYED", log(local, "sealed-1")
            assert deployed["sealing"]["state"] == "opened" and "sealed" not in deployed["sealing"]
            wait(lambda: "waiting" not in item(local, "sealed-1"), "it still waits")
            group = deployed["outputs"]["log_group_name"]
            wait(lambda: f"file {SECRET}" in logged(local, group), "the workload does not have it")
            assert SECRET not in str(deployed)
            assert not local.tasks.errors + local.instances.errors
            evaluate(local.plane, local.calls())
        finally:
            local.close()


def put(local, folder, sender=KEYS / "sender.key", measurements=None):
    """`enclavectl secret put`."""
    (folder / "secret").write_text(SECRET)
    return enclavectl(
        local, "secret", "put", "sealed-1", "file-secret", folder / "secret", "--sender", sender,
        "--measurements", measurements or folder / "image" / "measurements.json",
        "--root", folder / "cloud" / "nsm" / "root.pem", "--timeout", str(LIMIT))


def enclavectl(local, *arguments):
    return subprocess.run(
        [PROGRAMS / "enclavectl", *arguments], env={**os.environ, **local.cloud.environment()},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def logged(local, group):
    """What the workload has printed, as CloudWatch has it."""
    answer = local.cloud.client("logs").filter_log_events(logGroupName=group, logStreamNamePrefix="application")
    return "".join(event["message"] for event in answer["events"])


def sealed(local, operator, folder):
    """A key, and an image with a ciphertext under it."""
    first = {"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": {"AWS": OPERATOR}, "Resource": "*",
        "Action": ["kms:Encrypt", "kms:PutKeyPolicy"]}}
    key = operator.create_key(Policy=json.dumps(first))["KeyMetadata"]["Arn"]
    ciphertext = operator.encrypt(KeyId=key, Plaintext=SECRET)["CiphertextBlob"]
    folder.mkdir()
    (folder / "password.kms").write_bytes(base64.b64encode(ciphertext))
    shutil.copy(local.kms.authority, folder / "authority.pem")
    return key, *images.build(folder, PROGRAMS, KERNEL, images.with_secret(local.kms, key, "password"))


def policy(measurements):
    done = subprocess.run(
        [PROGRAMS / "image-builder", "kms-policy", "--measurements", measurements, "--caller", ENCLAVE,
         "--administrator", OPERATOR, "--encrypter", OPERATOR],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def status(local, enclave_id):
    return item(local, enclave_id).get("status")


def item(local, enclave_id):
    answer = local.cloud.client("dynamodb").get_item(
        TableName=local.plane.enclaves, Key={"id": {"S": enclave_id}}, ConsistentRead=True)
    return plain(answer["Item"])


def log(local, enclave_id):
    """What the enclave's agent has said so far."""
    agent = local.instances.agents.get(enclave_id)
    return "".join(agent.lines) + (agent.folder / "agent.log").read_text() if agent else ""


def wait(until, complaint):
    deadline = time.monotonic() + LIMIT
    while not until():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.1)
