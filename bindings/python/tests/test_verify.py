"""The documents that AWS signed, through Python."""

from __future__ import annotations

import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from nitro_attestation import Attestation, Policy, PolicyError, Rejected, Verifier

ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "attestation/corpus"


def describe(path: Path) -> dict[str, Any]:
    """What the corpus says of a document that AWS signed."""
    case = json.loads(path.read_text())
    claims: dict[str, Any] = case["claims"]
    lengths = {
        f"{field}_len": None if claims[field] is None else len(claims[field]) // 2
        for field in ("nonce", "user_data", "public_key")
    }
    return {
        "file": case["document"],
        "module_id": claims["module_id"],
        "timestamp": claims["timestamp_ms"],
        "pcrs": {index: value for index, value in claims["pcrs"].items() if int(value, 16)},
        "pcr_count": len(claims["pcrs"]),
        "debug": not int(claims["pcrs"]["0"], 16),
        **lengths,
    }


FACTS = [describe(path) for path in sorted(CORPUS.glob("aws/*-at-its-own-time.json"))]
each_document = pytest.mark.parametrize("facts", FACTS, ids=lambda facts: facts["file"])


def document(facts: dict[str, Any]) -> bytes:
    path: Path = CORPUS / facts["file"]
    return path.read_bytes()


def policy(facts: dict[str, Any], **more: Any) -> Policy:
    """Demands every register that is not zero."""
    registers = dict(facts["pcrs"])
    if facts["debug"]:
        registers["0"] = "00" * 48
    debug = {"allow_any_image": facts["debug"], "allow_debug": facts["debug"]}
    demands = {"pcrs": registers, **debug, **more}
    return Policy.from_json(json.dumps(demands))


def rule(verifier: Verifier, *arguments: Any, **options: Any) -> str:
    with pytest.raises(Rejected) as caught:
        verifier.verify(*arguments, **options)
    assert caught.value.report["rejection"]["rule"] == caught.value.rule
    assert not caught.value.report["accepted"]
    return caught.value.rule


def test_there_are_twelve_documents() -> None:
    assert len(FACTS) == 12


@each_document
def test_accepted_at_its_own_time(facts: dict[str, Any]) -> None:
    verifier = Verifier()
    for time in ("document", facts["timestamp"]):
        found = verifier.verify(document(facts), policy(facts), time=time)
        assert found.module_id == facts["module_id"]
        assert found.timestamp_ms == facts["timestamp"]
        assert found.profile == "enclave"
        assert len(found.pcrs) == facts["pcr_count"]
        assert all(isinstance(value, bytes) for value in found.pcrs.values())
        for index, value in facts["pcrs"].items():
            assert found.pcrs[int(index)].hex() == value
        for field in ("nonce", "user_data", "public_key"):
            value = getattr(found, field)
            assert facts[f"{field}_len"] == (None if value is None else len(value))
            assert value is None or isinstance(value, bytes)
        assert found.report["accepted"]


@each_document
def test_refused_otherwise(facts: dict[str, Any]) -> None:
    verifier, bytes_ = Verifier(), document(facts)
    own = {"time": "document"}
    assert rule(verifier, bytes_, policy(facts)) == "certificate.validity"
    assert rule(verifier, bytes_, policy(facts), nonce=b"another", **own) == "policy.nonce"
    wrong = policy(facts, pcrs={"0": "07" * 48})
    assert rule(verifier, bytes_, wrong, **own) == "policy.pcr.0"
    late = facts["timestamp"] + 300_001
    assert rule(verifier, bytes_, policy(facts), time=late) == "freshness.age"
    flipped = bytes_[:-1] + bytes([bytes_[-1] ^ 1])
    assert rule(verifier, flipped, policy(facts), **own) == "document.signature"
    assert rule(verifier, bytes_[:-1], policy(facts), **own) == "cbor.encoding"
    if facts["debug"]:
        forbidden = policy(facts, allow_debug=False)
        assert rule(verifier, bytes_, forbidden, **own) == "policy.debug"


def test_a_rejection_reads_well_and_survives_pickling() -> None:
    with pytest.raises(Rejected) as caught:
        Verifier().verify(b"\x84", Policy.from_toml("allow_any_image = true"))
    error = caught.value
    assert str(error).startswith("cbor.encoding: ")
    again = pickle.loads(pickle.dumps(error))
    assert (again.rule, again.reason, again.report) == (error.rule, error.reason, error.report)


def test_a_good_nonce_is_accepted_and_a_required_one_must_be_given() -> None:
    facts = next(facts for facts in FACTS if facts["nonce_len"] == 32)
    verifier, required = Verifier(), policy(facts, nonce="required")
    found = verifier.verify(document(facts), policy(facts), time="document")
    assert found.nonce is not None
    verifier.verify(document(facts), required, nonce=found.nonce, time="document")
    assert rule(verifier, document(facts), required, time="document") == "policy.nonce"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no measurement"),
        ("x = 1", "line 1: unknown field `x`"),
        ("[pcrs]\n32 = '" + "00" * 48 + "'", "PCR32 does not exist"),
        ("[", "line 1"),
    ],
)
def test_a_policy_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match="(?s).*") as caught:
        Policy.from_toml(text)
    assert message in str(caught.value)


def test_what_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    for make in (
        lambda: Policy.from_json("{"),
        lambda: Policy.read(tmp_path / "nothing.toml"),
        lambda: Verifier(b"no PEM"),
        lambda: Verifier().verify(b"", any_image(), nonce=b""),
        lambda: Verifier().verify(b"", any_image(), nonce=bytes(513)),
        lambda: Verifier().verify(b"", any_image(), time="then"),  # type: ignore[arg-type]
        lambda: Verifier().verify(b"", any_image(), time=-1),
    ):
        with pytest.raises(PolicyError):
            make()
    with pytest.raises(TypeError):
        Verifier().verify("text", any_image())  # type: ignore[arg-type]


def any_image() -> Policy:
    return Policy.from_toml("allow_any_image = true")


def test_a_policy_is_read_from_a_file(tmp_path: Path) -> None:
    for name, text in [("a.toml", "allow_any_image = true"), ("a.json", '{"allow_any_image": true}')]:
        (tmp_path / name).write_text(text)
        found = Verifier().verify(
            document(FACTS[0]), Policy.read(tmp_path / name), time="document"
        )
        assert isinstance(found, Attestation)


def test_another_root_trusts_other_documents() -> None:
    root = (ROOT / "fuzz/test-root.pem").read_bytes()
    verifier = Verifier(root)
    assert rule(verifier, document(FACTS[0]), any_image(), time="document") == "chain.root"
    aws = Verifier((ROOT / "attestation/src/aws-nitro-root.pem").read_bytes())
    aws.verify(document(FACTS[0]), any_image(), time="document")


def test_threads_share_a_verifier_and_the_interpreter_goes_on() -> None:
    verifier = Verifier()
    start = threading.Barrier(8)

    def many(number: int) -> int:
        facts = FACTS[number % len(FACTS)]
        bytes_, demands = document(facts), policy(facts)
        start.wait()
        for _ in range(25):
            verifier.verify(bytes_, demands, time="document")
        return number

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(many, range(8))) == list(range(8))
