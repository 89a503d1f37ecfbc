"""A security module in Python, after AWS's description of documents: it signs live ones
under a root of its own, independently of what is tested."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey


def cbor(value: object) -> bytes:
    """The shortest encoding of a value (RFC 8949)."""
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return _head(0, value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(map(cbor, value))
    assert isinstance(value, dict)
    return _head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for information, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | information]) + argument.to_bytes(size, "big")
    raise OverflowError(argument)


def certificate(name: str, key: Key, issuer: str, issuer_key: Key, authority: bool) -> x509.Certificate:
    now = datetime.now(timezone.utc)
    named = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer)]
    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    usage["key_cert_sign" if authority else "digital_signature"] = True
    return (
        x509.CertificateBuilder()
        .subject_name(named[0])
        .issuer_name(named[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=3))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .sign(issuer_key, hashes.SHA384())
    )


class SecurityModule:
    """Signs documents of one enclave, whose registers 0, 1 and 2 are 48 bytes of 7."""

    module_id = "i-00000000000000000-enc0000000000000000"
    pcr = bytes([7]) * 48

    def __init__(self) -> None:
        root_key, self._key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
        root = certificate("root.test", root_key, "root.test", root_key, True)
        leaf = certificate("leaf.test", self._key, "root.test", root_key, False)
        der = serialization.Encoding.DER
        self._certificate, self._root = leaf.public_bytes(der), root.public_bytes(der)
        #: What a verifier pins, PEM.
        self.root_pem = root.public_bytes(serialization.Encoding.PEM)

    def document(
        self,
        nonce: Optional[bytes] = None,
        public_key: Optional[bytes] = None,
        age: timedelta = timedelta(0),
    ) -> bytes:
        pcrs = {index: self.pcr if index < 3 else bytes(48) for index in range(16)}
        payload = {
            "module_id": self.module_id,
            "digest": "SHA384",
            "timestamp": time.time_ns() // 1_000_000 - age // timedelta(milliseconds=1),
            "pcrs": pcrs,
            "certificate": self._certificate,
            "cabundle": [self._root],
            "public_key": public_key,
            "user_data": None,
            "nonce": nonce,
        }
        # {1: -35}: the algorithm is ES384.
        protected, body = b"\xa1\x01\x38\x22", cbor(payload)
        signed = cbor(["Signature1", protected, b"", body])
        r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
        return cbor([protected, {}, body, signature])
