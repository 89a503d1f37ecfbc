"""The workload: each client decrypts the ciphertext, and its answer's digest is printed, or
what it said instead. The key's ARN is in the file beside it."""

import base64
import hashlib
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
# Most characters of what a client says.
LONGEST = 8000
CIPHERTEXT = os.path.join(HERE, "ciphertext")
with open(os.path.join(HERE, "key")) as file:
    KEY = file.read()
with open(CIPHERTEXT, "rb") as file:
    ENCODED = base64.b64encode(file.read()).decode()
CLIENTS = {
    "boto3": [sys.executable, os.path.join(HERE, "decrypt.py"), CIPHERTEXT, KEY],
    "aws": [sys.executable, "-m", "awscli", "kms", "decrypt", "--ciphertext-blob", f"fileb://{CIPHERTEXT}",
            "--key-id", KEY, "--query", "Plaintext", "--output", "text"],
    "javascript": ["/usr/bin/node", os.path.join(HERE, "decrypt.mjs"), CIPHERTEXT, KEY],
    "rust": [os.path.join(HERE, "decrypt"), CIPHERTEXT, KEY],
    "enclave-kms": ["/usr/bin/enclave-kms", "decrypt", "--ciphertext", ENCODED, "--key-id", KEY],
}

for name, command in CLIENTS.items():
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        # What enclave-kms prints has a name before it.
        plaintext = base64.b64decode(done.stdout.removeprefix("PLAINTEXT: "))
        print("decrypted", name, hashlib.sha256(plaintext).hexdigest(), flush=True)
    else:
        print("failed", name, " ".join(done.stderr.split())[-LONGEST:], flush=True)
