"""The workload: each SDK decrypts the ciphertext, and its answer's digest is printed, or
what it said instead. The key's ARN is in the file beside it."""

import base64
import hashlib
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
# Most characters of what an SDK says.
LONGEST = 8000
CIPHERTEXT = os.path.join(HERE, "ciphertext")
with open(os.path.join(HERE, "key")) as file:
    KEY = file.read()
CLIENTS = {
    "boto3": [sys.executable, os.path.join(HERE, "decrypt.py"), CIPHERTEXT, KEY],
    "aws": [sys.executable, "-m", "awscli", "kms", "decrypt", "--ciphertext-blob", f"fileb://{CIPHERTEXT}",
            "--key-id", KEY, "--query", "Plaintext", "--output", "text"],
    "javascript": ["/usr/bin/node", os.path.join(HERE, "decrypt.mjs"), CIPHERTEXT, KEY],
}

for name, command in CLIENTS.items():
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        plaintext = base64.b64decode(done.stdout, validate=False)
        print("decrypted", name, hashlib.sha256(plaintext).hexdigest(), flush=True)
    else:
        print("failed", name, " ".join(done.stderr.split())[-LONGEST:], flush=True)
