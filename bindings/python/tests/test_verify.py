"""Verifications of live documents, and audits of those that AWS signed."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from nitro_attestation import (
    AsyncClient,
    Attestation,
    Audited,
    Client,
    Expectations,
    Malformed,
    Policy,
    Rejected,
    UnverifiedClaims,
    Verifier,
    inspect,
    verify_result,
)
from security_module import SecurityModule
from vectors import FACTS, ROOT, document, each_document, policy

ANY_IMAGE = Policy(allow_any_image=True)
NONCE = bytes(range(32))


@pytest.fixture(scope="module")
def module() -> SecurityModule:
    return SecurityModule()


def rule(call: Callable[[], object]) -> str:
    with pytest.raises(Rejected) as caught:
        call()
    assert caught.value.report["rejection"]["rule"] == caught.value.rule
    assert not caught.value.report["accepted"]
    return caught.value.rule


def test_live_document_is_accepted_with_its_nonce_alone(module: SecurityModule) -> None:
    verifier, live = Verifier(module.root_pem), module.document(NONCE, b"a key")
    demands = Policy(pcrs={0: module.pcr, 1: module.pcr.hex(), 2: [bytes([8]) * 48, module.pcr]})
    found = verifier.verify(live, demands, NONCE)
    assert type(found) is Attestation
    assert (found.module_id, found.nonce, found.public_key) == (module.module_id, NONCE, b"a key")
    assert (found.profile, found.purpose, found.user_data) == ("enclave", "workload", None)
    assert found.pcrs[2] == module.pcr and found.document == live
    assert found.partition is None
    assert found.report["mode"] == "live"
    assert verifier.verify_unchallenged(live, demands).nonce == NONCE
    assert rule(lambda: verifier.verify(live, demands, NONCE[:-1])) == "policy.nonce"
    assert rule(lambda: Verifier().verify(live, demands, NONCE)) == "chain.root"
    wrong = Policy(pcrs={0: bytes([8]) * 48})
    assert rule(lambda: verifier.verify(live, wrong, NONCE)) == "policy.pcr.0"
    old = module.document(NONCE, age=timedelta(minutes=6))
    assert rule(lambda: verifier.verify(old, demands, NONCE)) == "freshness.age"


def test_nonce_that_the_policy_requires_has_to_be_given(module: SecurityModule) -> None:
    verifier, live = Verifier(module.root_pem), module.document(NONCE)
    required = Policy(allow_any_image=True, nonce="required")
    verifier.verify(live, required, NONCE)
    assert rule(lambda: verifier.verify_unchallenged(live, required)) == "policy.nonce"
    assert rule(lambda: verifier.audit(live, required, at="document")) == "policy.nonce"
    stated = Policy(allow_any_image=True, nonce=NONCE)
    assert verifier.audit(live, stated, at="document").nonce == NONCE


@pytest.mark.parametrize("nonce", [b"", bytes(8192)], ids=len)
def test_nonce_that_no_document_can_carry_is_an_error(nonce: bytes) -> None:
    with pytest.raises(ValueError, match="nonce"):
        Verifier().verify(b"", ANY_IMAGE, nonce)


def test_nonce_is_no_argument_that_can_be_forgotten() -> None:
    verifier: Any = Verifier()
    for arguments in (
        (b"", ANY_IMAGE),
        (b"", ANY_IMAGE, None),
        ("text", ANY_IMAGE, NONCE),
        (bytearray(1), ANY_IMAGE, NONCE),
    ):
        with pytest.raises(TypeError):
            verifier.verify(*arguments)


def test_there_are_documents() -> None:
    assert len(FACTS) == 12


@each_document
def test_audit_accepts_a_document_of_aws_at_its_own_time(facts: dict[str, Any]) -> None:
    verifier, made = Verifier(), facts["timestamp"]
    instant = datetime.fromtimestamp(0, timezone.utc) + timedelta(milliseconds=made)
    for at in ("document", made, instant):
        found = verifier.audit(document(facts), policy(facts), at=at)
        assert type(found) is Audited
        assert found.module_id == facts["module_id"]
        assert found.timestamp_ms == made
        assert (found.profile, found.partition) == ("enclave", "aws")
        assert len(found.pcrs) == facts["pcr_count"]
        assert all(isinstance(value, bytes) for value in found.pcrs.values())
        for index, value in facts["pcrs"].items():
            assert found.pcrs[int(index)].hex() == value
        for field in ("nonce", "user_data", "public_key"):
            value = getattr(found, field)
            assert facts[f"{field}_len"] == (None if value is None else len(value))
            assert value is None or isinstance(value, bytes)
        assert found.report["accepted"] and found.report["mode"] == "audit"


@each_document
def test_audit_refuses_it_otherwise(facts: dict[str, Any]) -> None:
    verifier, bytes_, demands = Verifier(), document(facts), policy(facts)

    def audit(bytes_: bytes, demands: Policy, at: Any = "document") -> str:
        return rule(lambda: verifier.audit(bytes_, demands, at=at))

    assert rule(lambda: verifier.verify_unchallenged(bytes_, demands)) == "certificate.validity"
    assert audit(bytes_, policy(facts, nonce=b"another")) == "policy.nonce"
    assert audit(bytes_, policy(facts, pcrs={0: bytes([7]) * 48})) == "policy.pcr.0"
    assert audit(bytes_, demands, facts["timestamp"] + 300_001) == "freshness.age"
    assert audit(bytes_, demands, 0) == "certificate.validity"
    assert audit(bytes_[:-1] + bytes([bytes_[-1] ^ 1]), demands) == "document.signature"
    assert audit(bytes_[:-1], demands) == "cbor.encoding"
    if facts["debug"]:
        assert audit(bytes_, policy(facts, pcrs={}, allow_debug=False)) == "policy.debug"


@each_document
def test_clock_skew_of_a_minute_refuses_no_good_document(facts: dict[str, Any]) -> None:
    verifier, made = Verifier(), facts["timestamp"]
    verifier.audit(document(facts), policy(facts), at=made - 59_000)
    with pytest.raises(Rejected, match="the clock is .* behind"):
        verifier.audit(document(facts), policy(facts), at=made - 61_000)


@pytest.mark.parametrize(
    ("at", "error"),
    [
        ("now", ValueError),
        (-1, ValueError),
        (2**64 - 1, ValueError),
        (datetime(2024, 1, 1), ValueError),
        (1.5, TypeError),
        (True, TypeError),
        (None, TypeError),
    ],
)
def test_audit_needs_a_time(at: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="time"):
        Verifier().audit(document(FACTS[0]), ANY_IMAGE, at=at)


def test_audited_is_no_attestation() -> None:
    audited = Verifier().audit(document(FACTS[0]), policy(FACTS[0]), at="document")
    assert not isinstance(audited, Attestation)
    assert not issubclass(Attestation, Audited)


@each_document
def test_inspect_says_what_is_not_verified(facts: dict[str, Any]) -> None:
    claims = inspect(document(facts))
    assert claims.unverified_module_id == facts["module_id"]
    assert claims.unverified_timestamp_ms == facts["timestamp"]
    assert claims.unverified_profile == "enclave"
    assert len(claims.unverified_pcrs) == facts["pcr_count"]
    for name in vars(claims):
        assert name.startswith("unverified_")
        assert not hasattr(claims, name.removeprefix("unverified_"))


def test_inspect_gives_what_nobody_takes_for_verified(module: SecurityModule) -> None:
    claims = inspect(module.document(NONCE, b"a key"))
    assert isinstance(claims, UnverifiedClaims)
    assert (claims.unverified_nonce, claims.unverified_public_key) == (NONCE, b"a key")
    with pytest.raises(TypeError, match="neither true nor false"):
        bool(claims)
    with pytest.raises(Malformed) as caught:
        inspect(b"no document")
    assert caught.value.rule == "cbor.encoding"


def test_rejection_reads_well_and_survives_pickling() -> None:
    with pytest.raises(Rejected) as caught:
        Verifier().verify_unchallenged(b"\x84", ANY_IMAGE)
    error = caught.value
    assert str(error).startswith("cbor.encoding: ")
    again = pickle.loads(pickle.dumps(error))
    assert (again.rule, again.reason, again.report) == (error.rule, error.reason, error.report)
    assert again.document == b"\x84"


def test_roots_are_those_that_are_given() -> None:
    root = (ROOT / "fuzz/test-root.pem").read_bytes()

    def audit(verifier: Verifier) -> Audited:
        return verifier.audit(document(FACTS[0]), policy(FACTS[0]), at="document")

    assert rule(lambda: audit(Verifier(root))) == "chain.root"
    audit(Verifier((ROOT / "attestation/src/aws-nitro-root.pem").read_bytes()))
    with pytest.raises(ValueError, match="root certificate"):
        Verifier(b"no PEM")
    assert rule(lambda: audit(Verifier(partitions=["aws-us-gov"]))) == "chain.root"
    audit(Verifier(partitions=["aws-us-gov", "aws"]))
    audit(Verifier(root, partitions=["aws"]))
    unknown: Any = ["aws-cn"]
    with pytest.raises(ValueError, match="no partition whose root AWS publishes"):
        Verifier(partitions=unknown)
    with pytest.raises(ValueError, match="no root is trusted"):
        Verifier(partitions=[])


def test_arguments_of_another_type_are_named() -> None:
    verifier, some = Verifier(), document(FACTS[0])
    name: Any = "policy.toml"
    nothing: Any = None
    calls: list[tuple[str, Callable[[], object]]] = [
        ("policy is str and not Policy", lambda: verifier.verify(some, name, NONCE)),
        ("policy is NoneType", lambda: verifier.verify_unchallenged(some, nothing)),
        ("policy is str", lambda: verifier.audit(some, name, at="document")),
        ("policy is str", lambda: Client(verifier).fetch("unix:/nowhere", name)),
        ("policy is str", lambda: asyncio.run(AsyncClient(verifier).fetch("unix:/nowhere", name))),
        ("verifier is NoneType and not Verifier", lambda: Client(nothing)),
        ("timeout is NoneType and not timedelta", lambda: Client(verifier, timeout=nothing)),
        ("keys is str", lambda: verify_result("", name, Expectations(policies=["a"]), NONCE)),
    ]
    for message, call in calls:
        with pytest.raises(TypeError, match=message):
            call()


def test_threads_share_a_verifier_and_the_interpreter_goes_on() -> None:
    verifier = Verifier()
    start = threading.Barrier(8)

    def many(number: int) -> int:
        facts = FACTS[number % len(FACTS)]
        bytes_, demands = document(facts), policy(facts)
        start.wait()
        for _ in range(25):
            verifier.audit(bytes_, demands, at="document")
        return number

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(many, range(8))) == list(range(8))
