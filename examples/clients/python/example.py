"""What a workload asks of its enclave. The manifest has an open register, a peer `sibling`,
a secret `token` with `api = true`, and `health = { notify = true }`.

usage: example.py [REGISTER]
"""

import hashlib
import sys

from enclave_api import EnclaveApi, EnclaveApiError

register = int(sys.argv[1]) if len(sys.argv) > 1 else 17
api = EnclaveApi()

own = api.read_measurements()
print(f"measurements: {own.name}, self-check {own.self_check}")
print(f"runtime configuration: {len(api.read_runtime_configuration())} bytes")

# A document for whoever has sent a nonce. Here the enclave is its own peer.
nonce = api.random(32)
document = api.attest(nonce=nonce, public_key=b"a key of the workload's")
verdict = api.verify(document, "sibling", nonce)
if verdict.accepted:
    key = (verdict.public_key or b"").decode()
    print(f'document: accepted, with the key b"{key}"')
else:
    print(f"document: refused: {verdict.rule}: {verdict.reason}")

# A key that never leaves the init, and its signature.
identity = api.make_identity()
signature = api.sign(b"answer: 42")
print(f"signature: {signature.algorithm}, by a key of {len(identity.public_key)} bytes")

try:
    print(f"secret: {len(api.read_secret('token', wait=5))} bytes")
except EnclaveApiError as error:
    print(f"secret: {error.code}")

# What is loaded at run time, measured.
measured = api.extend_register(register, hashlib.sha384(b"model").digest())
print(f"register: {measured.value}")
api.lock_register(register)
try:
    api.extend_register(register, b"more")
except EnclaveApiError as error:
    print(f"extended again: status {error.status}, {error.code}")

api.notify(state="ready", status="serving")
print(f"restarts: {api.read_readiness().restarts}")
