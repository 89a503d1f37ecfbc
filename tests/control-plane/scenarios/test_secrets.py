"""Enclaves that the control plane deploys get the secrets that their images declare."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from conftest import FUNCTIONS, PROGRAMS
from local_cloud import images, story
from local_cloud.local import Local
from local_cloud.stream import plain

KERNEL = Path(os.environ["CONTROL_PLANE_KERNEL"])
ENCLAVE = "arn:aws:iam::000000000000:role/Enclave"
OPERATOR = "arn:aws:iam::000000000000:user/operator"
SECRET = "the secret of this test"
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
        finally:
            local.close()


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
    answer = local.cloud.client("dynamodb").get_item(
        TableName=local.plane.enclaves, Key={"id": {"S": enclave_id}}, ConsistentRead=True)
    return plain(answer["Item"]).get("status")


def log(local, enclave_id):
    """What the enclave's agent has said so far."""
    agent = local.instances.agents.get(enclave_id)
    return "".join(agent.lines) + (agent.folder / "agent.log").read_text() if agent else ""


def wait(until, complaint):
    deadline = time.monotonic() + LIMIT
    while not until():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.1)
