"""boto3, as an application uses it: `decrypt.py FILE KEY`."""

import base64
import sys

import boto3

file, key = sys.argv[1:]
with open(file, "rb") as ciphertext:
    answer = boto3.client("kms").decrypt(CiphertextBlob=ciphertext.read(), KeyId=key)
sys.stdout.write(base64.b64encode(answer["Plaintext"]).decode())
