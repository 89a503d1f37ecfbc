"""Calls a KMS with botocore, and prints what came of it as JSON.

usage: call.py ENDPOINT KEY AGREEMENT_KEY DOCUMENT

AGREEMENT_KEY is a key on P-256. The document is base64. Credentials and region are in the environment.
"""

import base64
import json
import os
import sys

from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import get_session

endpoint, key, agreement_key, document = sys.argv[1:]
document = base64.b64decode(document)
config = Config(retries={"total_max_attempts": 1})


def client(**credentials):
    return get_session().create_client(
        "kms", endpoint_url=endpoint, config=config, **credentials
    )


def recipient(document):
    return {
        "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "AttestationDocument": document,
    }


def refusal(call, **parameters):
    try:
        call(**parameters)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        # What the service's model knows has a class of its own.
        if not isinstance(error, getattr(kms.exceptions, code, ClientError)):
            raise
        return code
    return None


def encoded(value):
    return base64.b64encode(value).decode()


kms = client()
context = {"purpose": "test"}
ciphertext = kms.encrypt(KeyId=key, Plaintext=b"a secret", EncryptionContext=context)
request = {
    "CiphertextBlob": ciphertext["CiphertextBlob"],
    "EncryptionContext": context,
    "Recipient": recipient(document),
}
answer = kms.decrypt(**request)
without_recipient = {name: request[name] for name in request if name != "Recipient"}
pair = kms.generate_data_key_pair(
    KeyId=key, KeyPairSpec="ECC_NIST_P256", Recipient=recipient(document)
)
secret = kms.derive_shared_secret(
    KeyId=agreement_key,
    KeyAgreementAlgorithm="ECDH",
    PublicKey=pair["PublicKey"],
    Recipient=recipient(document),
)
changed = document[:-1] + bytes([document[-1] ^ 1])
impostor = client(
    aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
    aws_secret_access_key="another",
    aws_session_token=os.environ["AWS_SESSION_TOKEN"],
)
print(
    json.dumps(
        {
            "for_recipient": encoded(answer["CiphertextForRecipient"]),
            "private_key": encoded(pair["CiphertextForRecipient"]),
            "shared_secret": encoded(secret["CiphertextForRecipient"]),
            "public_key": encoded(
                kms.get_public_key(KeyId=agreement_key)["PublicKey"]
            ),
            "in_plaintext": [
                name
                for answer, name in ((pair, "PrivateKeyPlaintext"), (secret, "SharedSecret"))
                if answer.get(name)
            ],
            "plaintext": answer["Plaintext"].decode(),
            "described": kms.describe_key(KeyId=key)["KeyMetadata"]["Arn"],
            "refusals": {
                "without a recipient": refusal(kms.decrypt, **without_recipient),
                "another context": refusal(
                    kms.decrypt, **{**request, "EncryptionContext": {}}
                ),
                "a changed document": refusal(
                    kms.decrypt, **{**request, "Recipient": recipient(changed)}
                ),
                "a key of another usage": refusal(
                    kms.encrypt, KeyId=agreement_key, Plaintext=b"a"
                ),
                "another key": refusal(kms.describe_key, KeyId=key + "0"),
                "a wrong secret": refusal(impostor.describe_key, KeyId=key),
            },
        }
    )
)
