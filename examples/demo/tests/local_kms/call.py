"""Makes a key in a local KMS, encrypts, and decrypts with documents; prints what came of it.

usage: call.py ENDPOINT FOLDER < REQUEST

REQUEST is JSON with `policy`, `secret` and `documents`, in base64, by name. FOLDER is that
of the KMS.
"""

import base64
import json
import sys
from pathlib import Path

from botocore.exceptions import ClientError, SSLError
from botocore.session import get_session

endpoint, folder = sys.argv[1:]
folder = Path(folder)
request = json.load(sys.stdin)


def client(name, verify=str(folder / "authority.pem")):
    lines = (folder / f"{name}.env").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines)
    return get_session().create_client(
        "kms",
        endpoint_url=endpoint,
        verify=verify,
        region_name=values["AWS_REGION"],
        aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
    )


def decrypted(document):
    recipient = {
        "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "AttestationDocument": base64.b64decode(document),
    }
    try:
        answer = enclave.decrypt(CiphertextBlob=sealed, KeyId=key, Recipient=recipient)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return base64.b64encode(answer["CiphertextForRecipient"]).decode()


operator, enclave = client("operator"), client("enclave")
key = operator.create_key(Policy=json.dumps(request["policy"]))["KeyMetadata"]["Arn"]
sealed = operator.encrypt(KeyId=key, Plaintext=request["secret"])["CiphertextBlob"]
answers = {name: decrypted(document) for name, document in request["documents"].items()}
try:
    client("operator", verify=True).describe_key(KeyId=key)
except SSLError:
    answers["another root"] = "SSLError"
json.dump(answers, sys.stdout)
