"""The vectors of src: python3 derive.py, with pyca/cryptography."""

from hashlib import sha384

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SEED = bytes([7] * 32)


def counted(text: bytes) -> bytes:
    return len(text).to_bytes(8, "big") + text


def derive(info: bytes, length: int) -> str:
    return HKDF(SHA256(), length, None, info).derive(SEED).hex()


FAMILY = counted(b"payments")
PURPOSE = counted(b"session-tokens")
LENGTH = (32).to_bytes(2, "big")
print(derive(b"enclave family key, version 1\0" + FAMILY + PURPOSE + LENGTH, 32))
print(derive(b"enclave family fingerprint, version 1\0" + FAMILY, 16))

MEASURED = b"enclave key family and generation, version 1\0" + FAMILY + (3).to_bytes(4, "big")
print(sha384(bytes(48) + sha384(MEASURED).digest()).hexdigest())
