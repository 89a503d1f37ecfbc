"""Signed results, which PyJWT signs here and the library verifies."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from nitro_attestation import (
    Expectations,
    KeySet,
    Measurements,
    ResultRejected,
    verify_result,
    verify_result_unchallenged,
)

NONCE = bytes(range(32))
PCR = bytes([7]) * 48
DIGEST = "sha256:" + "27f8" * 16
KEY = ec.generate_private_key(ec.SECP384R1())
NOW = int(time.time())


def base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


NUMBERS = KEY.public_key().public_numbers()
JWKS = json.dumps(
    {
        "keys": [
            {
                "kty": "EC",
                "crv": "P-384",
                "alg": "ES384",
                "use": "sig",
                "kid": "one",
                "x": base64url(NUMBERS.x.to_bytes(48, "big")),
                "y": base64url(NUMBERS.y.to_bytes(48, "big")),
            }
        ]
    }
)
KEYS = KeySet(JWKS)
#: As `attest serve` issues it.
CLAIMS: dict[str, Any] = {
    "eat_profile": "tag:ietf.org,2026:rats/ear#04",
    "iss": "https://verifier.example",
    "iat": NOW,
    "exp": NOW + 300,
    "ear_verifier_id": {"developer": "tests", "build": "tests 1"},
    "ear_status": "affirming",
    "eat_nonce": base64url(NONCE),
    "submods": {
        "nitro-enclave": {
            "ear_status": "affirming",
            "ear_trustworthiness_vector": {"instance-identity": 2, "executables": 3, "hardware": 2},
            "ear_appraisal_policy_ids": ["payments", DIGEST],
            "ear_attester_claims": {
                "purpose": "workload",
                "module_id": "i-1-enc1",
                "timestamp_ms": NOW * 1000,
                "pcrs": {"0": PCR.hex(), "1": PCR.hex(), "2": PCR.hex()},
                "nonce": NONCE.hex(),
            },
            "ear_verifier_claims": {
                "accepted": True,
                "checked_at_ms": NOW * 1000,
                "freshness": "caller",
                "image": "payments 1.4",
            },
        }
    },
}
EXPECTED = Expectations(issuer="https://verifier.example", policies=[DIGEST])


def token(change: Callable[[dict[str, Any]], object] = lambda _: None, key: Any = KEY) -> str:
    claims = copy.deepcopy(CLAIMS)
    change(claims)
    return jwt.encode(claims, key, algorithm="ES384", headers={"kid": "one", "typ": "eat+jwt"})


def rule(call: Callable[[], object]) -> str:
    with pytest.raises(ResultRejected) as caught:
        call()
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) == f"{again.rule}: {again.reason}"
    return caught.value.rule


def test_result_is_accepted_for_its_nonce() -> None:
    found = verify_result(token(), KEYS, EXPECTED, NONCE)
    assert (found.status, found.freshness, found.profile) == ("affirming", "caller", "enclave")
    assert (found.issuer, found.developer) == ("https://verifier.example", "tests")
    assert (found.issued_at, found.expires_at) == (NOW, NOW + 300)
    assert (found.policy_ids, found.image) == (["payments", DIGEST], "payments 1.4")
    assert found.document["module_id"] == "i-1-enc1"
    assert found.document["pcrs"]["0"] == PCR.hex()
    every = Expectations(
        policies=["payments"],
        images=["payments 1.4", "payments 1.5"],
        measurements=Measurements({0: PCR, 1: PCR, 2: PCR}),
        pcrs={0: [PCR, bytes(48)], 1: PCR.hex()},
        module_id="i-1-enc1",
        freshness="caller",
        max_age=timedelta(minutes=1),
    )
    verify_result(token(), KeySet(JWKS.encode()), every, NONCE)
    assert verify_result_unchallenged(token(), KEYS, EXPECTED) == found


def test_result_is_refused_otherwise() -> None:
    def verify(text: str, expected: Expectations = EXPECTED, nonce: bytes = NONCE) -> str:
        return rule(lambda: verify_result(text, KEYS, expected, nonce))

    submod = "nitro-enclave"
    assert verify(token(), nonce=NONCE[:-1]) == "nonce"
    assert verify(token(key=ec.generate_private_key(ec.SECP384R1()))) == "signature"
    assert verify(token()[:-4] + "AAAA") == "signature"
    assert verify("no token") == "token.form"
    assert verify(token(lambda claims: claims.update(exp=NOW - 200, iat=NOW - 300))) == "time.expires"
    assert verify(token(lambda claims: claims.update(iat=NOW + 200, exp=NOW + 300))) == "time.issued"
    assert verify(token(lambda claims: claims["submods"][submod].update(ear_status="warning"))) == "status"
    other = Expectations(issuer="https://other.example", policies=[DIGEST])
    assert verify(token(), other) == "issuer"
    assert verify(token(), Expectations(policies=["other"])) == "policy"
    image = Expectations(policies=["payments"], images=["payments 1.5"])
    assert verify(token(), image) == "image"
    assert verify(token(), Expectations(pcrs={0: bytes([8]) * 48})) == "pcr"
    challenge = Expectations(policies=[DIGEST], freshness="challenge")
    assert verify(token(), challenge) == "freshness"


def test_expectations_and_nonces_that_accept_too_much_are_an_error() -> None:
    calls: list[Callable[[], object]] = [
        lambda: Expectations(),
        lambda: Expectations(issuer="https://verifier.example"),
        lambda: Expectations(images=["payments 1.4"]),
        lambda: Expectations(pcrs={0: bytes(48)}),
        lambda: Expectations(policies=["payments"], pcrs={1: []}),
        lambda: Expectations(policies=["payments"], clock_skew=timedelta(hours=2)),
        lambda: verify_result(token(), KEYS, EXPECTED, b""),
        lambda: verify_result(token(), KEYS, EXPECTED, bytes(65)),
        lambda: KeySet("{}"),
        lambda: KeySet('{"keys": []}'),
    ]
    for call in calls:
        with pytest.raises(ValueError):
            call()
    some: Any = "payments"
    with pytest.raises(TypeError, match="lists of names"):
        Expectations(policies=some)
    both: Any = {0: PCR, "0": bytes([8]) * 48}
    with pytest.raises(TypeError):
        Expectations(pcrs=both)
    Expectations(allow_any_policy=True)
