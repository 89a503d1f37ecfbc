"""What documents say: accepted, audited, and not verified at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn, Optional, TypeVar

from . import _native


@dataclass(frozen=True)
class Evidence:
    """What a document says that keeps every rule: an :class:`Attestation`, or what was
    :class:`Audited`."""

    #: ``"enclave"``, or ``"nitro-tpm"``.
    profile: str
    #: The enclave's identity.
    module_id: str
    #: When the document was made, in milliseconds since 1970.
    timestamp_ms: int
    #: The registers by their numbers, each of 48 bytes.
    pcrs: dict[int, bytes]
    #: The nonce that the document carries.
    nonce: Optional[bytes]
    #: What the document was made for, such as ``"workload"``; ``None`` for a NitroTPM's.
    #: It holds as far as the enclave's image is one with ``enclave-init``.
    purpose: Optional[str]
    #: What the enclave's software put into the document.
    user_data: Optional[bytes]
    #: The key that the enclave's software bound to the document. Most applications put a
    #: ``SubjectPublicKeyInfo`` in DER there; ``None`` if the document holds none.
    public_key: Optional[bytes]
    #: The partition of AWS whose root its certificates lead to; ``None`` if the root is not
    #: AWS's, as in tests.
    partition: Optional[str]
    #: Every check, as ``attest verify --json`` prints it.
    report: dict[str, Any]
    #: The document itself.
    document: bytes


@dataclass(frozen=True)
class Attestation(Evidence):
    """What an accepted document says: it was good when it was verified."""


@dataclass(frozen=True)
class Audited(Evidence):
    """What an archived document says that was good at another time. It says nothing about
    now, and is no :class:`Attestation`."""


class Rejected(Exception):
    """A document that broke a rule."""

    def __init__(self, rule: str, reason: str, report: dict[str, Any], document: bytes) -> None:
        super().__init__(rule, reason, report, document)
        #: The identifier of the first rule that was broken. It is stable.
        self.rule = rule
        #: How it was broken, in a line for people.
        self.reason = reason
        #: Every check, as ``attest verify --json`` prints it.
        self.report = report
        #: The document itself.
        self.document = document

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


E = TypeVar("E", bound=Evidence)


def evidence(kind: type[E], verification: _native.Verification) -> E:
    """What was accepted, or raises :class:`Rejected`."""
    report: dict[str, Any] = json.loads(verification.report)
    claims = verification.claims
    if claims is None:
        rule, reason = verification.rejection or ("", "")
        raise Rejected(rule, reason, report, verification.document)
    return kind(
        profile=claims.profile,
        module_id=claims.module_id,
        timestamp_ms=claims.timestamp_ms,
        pcrs=claims.pcrs,
        nonce=claims.nonce,
        purpose=claims.purpose,
        user_data=claims.user_data,
        public_key=claims.public_key,
        partition=claims.partition,
        report=report,
        document=verification.document,
    )


class Malformed(ValueError):
    """Bytes that are no document."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, reason)
        #: The identifier of the rule that they break. It is stable.
        self.rule = rule
        #: How, in a line for people.
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


@dataclass(frozen=True)
class UnverifiedClaims:
    """What a document claims. Anybody can write one: nothing in it is to be believed.

    It shares no attribute with :class:`Evidence`, and is neither true nor false, so what
    takes the one does not take the other.
    """

    unverified_profile: str
    unverified_module_id: str
    #: In milliseconds since 1970.
    unverified_timestamp_ms: int
    unverified_pcrs: dict[int, bytes]
    unverified_nonce: Optional[bytes]
    unverified_purpose: Optional[str]
    unverified_user_data: Optional[bytes]
    unverified_public_key: Optional[bytes]

    def __bool__(self) -> NoReturn:
        raise TypeError("unverified claims are neither true nor false: verify the document")


def inspect(document: bytes) -> UnverifiedClaims:
    """What a document claims, without any verification: to look at it, or to find out whose
    policy to verify it under. Raises :class:`Malformed` if it is none."""
    claims, rejection = _native.inspect(document)
    if claims is None:
        raise Malformed(*(rejection or ("", "")))
    return UnverifiedClaims(
        unverified_profile=claims.profile,
        unverified_module_id=claims.module_id,
        unverified_timestamp_ms=claims.timestamp_ms,
        unverified_pcrs=claims.pcrs,
        unverified_nonce=claims.nonce,
        unverified_purpose=claims.purpose,
        unverified_user_data=claims.user_data,
        unverified_public_key=claims.public_key,
    )
