"""The documents that AWS signed, and what is known of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nitro_attestation import Policy

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
    registers: dict[int, Any] = {int(index): value for index, value in facts["pcrs"].items()}
    if facts["debug"]:
        registers[0] = bytes(48)
    debug = {"allow_any_image": facts["debug"], "allow_debug": facts["debug"]}
    demands: dict[str, Any] = {"pcrs": registers, **debug, **more}
    return Policy(**demands)
