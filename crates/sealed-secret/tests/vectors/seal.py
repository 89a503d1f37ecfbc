"""Seals a secret without this crate: pyca/cryptography has HPKE of its own.

Writes the vectors beside it; they are committed, because each run makes others.
"""

import hashlib
import struct
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

FOLDER = Path(__file__).parent
VERSION = b"enclave sealed secret, version 1\0"
SECRET, NAME, MODULE_ID = b"of another implementation", "db-password", "i-1-enc1"
REGISTERS = {0: b"\x01" * 48, 1: b"\x02" * 48, 31: b"\x03" * 48}


def head(major: int, count: int) -> bytes:
    if count < 24:
        return bytes([major << 5 | count])
    if count < 256:
        return bytes([major << 5 | 24, count])
    if count < 65536:
        return bytes([major << 5 | 25]) + struct.pack(">H", count)
    return bytes([major << 5 | 26]) + struct.pack(">I", count)


def byte_string(data: bytes) -> bytes:
    return head(2, len(data)) + data


sender = serialization.load_pem_private_key((FOLDER / "sender.key").read_bytes(), None)
key = X25519PrivateKey.generate()
digest = hashlib.sha384(struct.pack(">Q", len(MODULE_ID)) + MODULE_ID.encode())
for index, value in REGISTERS.items():
    digest.update(bytes([index]) + value)
suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
info = VERSION + digest.digest() + NAME.encode()
message = suite.encrypt(SECRET, key.public_key(), info)
content = b"".join([
    head(4, 6),
    head(0, 1),
    head(4, 3) + head(0, 0x20) + head(0, 1) + head(0, 2),
    head(3, len(NAME)) + NAME.encode(),
    head(0, sum(1 << index for index in REGISTERS)),
    byte_string(message[:32]),
    byte_string(message[32:]),
])
signature = sender.sign(VERSION + content)
sealed = head(4, 2) + byte_string(content) + byte_string(signature)
(FOLDER / "sealed.cbor").write_bytes(sealed)
(FOLDER / "recipient.raw").write_bytes(key.private_bytes_raw())
