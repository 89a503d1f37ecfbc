"""Verify attestation documents of AWS Nitro Enclaves.

    import secrets
    from nitro_attestation import Policy, Rejected, Verifier

    verifier = Verifier()                        # trusts AWS's root; keep it
    policy = Policy.from_toml('pcrs = { 0 = "…" }')

    nonce = secrets.token_bytes(32)              # new for each challenge
    document = ask_the_enclave(nonce)
    try:
        attestation = verifier.verify(document, policy, nonce=nonce)
    except Rejected as rejected:
        print(rejected.rule)                     # such as "policy.nonce"
    else:
        print(attestation.module_id)

Policies are those of the command ``attest``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Literal, Optional, Union

from . import _native

__all__ = ["Attestation", "Policy", "PolicyError", "Rejected", "Verifier"]

#: ``"now"``; ``"document"``, the document's own time, for audits that ask only
#: whether it was valid when it was made; or milliseconds since 1970.
Time = Union[int, Literal["now", "document"]]


class PolicyError(ValueError):
    """A policy, a nonce or a root that cannot be used."""


class Rejected(Exception):
    """A document that broke a rule."""

    def __init__(self, rule: str, reason: str, report: dict[str, Any]) -> None:
        super().__init__(rule, reason, report)
        #: The identifier of the first rule that was broken. It is stable.
        self.rule = rule
        #: How it was broken, in a line for people.
        self.reason = reason
        #: Every check, as ``attest verify --json`` prints it.
        self.report = report

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


class Policy:
    """What a verifier demands of an enclave."""

    __slots__ = ("_native",)

    def __init__(self, native: _native.Policy) -> None:
        self._native = native

    @staticmethod
    def from_toml(text: str) -> Policy:
        """The policy in a TOML text, which can name no files."""
        try:
            return Policy(_native.Policy.from_toml(text))
        except ValueError as error:
            raise PolicyError(str(error)) from None

    @staticmethod
    def from_json(text: str) -> Policy:
        """The policy in a JSON text, which can name no files."""
        try:
            return Policy(_native.Policy.from_json(text))
        except ValueError as error:
            raise PolicyError(str(error)) from None

    @staticmethod
    def read(path: Union[str, os.PathLike[str]]) -> Policy:
        """The policy in a file: JSON if its name ends in ``.json``, else TOML."""
        try:
            return Policy(_native.Policy.read(path))
        except ValueError as error:
            raise PolicyError(str(error)) from None


@dataclass(frozen=True)
class Attestation:
    """What an accepted document says."""

    #: ``"enclave"``, or ``"nitro-tpm"``.
    profile: str
    #: The enclave's identity.
    module_id: str
    #: When the document was made, in milliseconds since 1970.
    timestamp_ms: int
    #: The registers by their numbers, each of 48 bytes.
    pcrs: dict[int, bytes]
    nonce: Optional[bytes]
    user_data: Optional[bytes]
    public_key: Optional[bytes]
    #: Every check, as ``attest verify --json`` prints it.
    report: dict[str, Any]


class Verifier:
    """Verifies documents, and remembers the certificates that it has checked.

    Threads share it: they do not wait for each other, nor for the interpreter.
    """

    __slots__ = ("_native",)

    def __init__(self, roots: Optional[bytes] = None) -> None:
        """Trusts the certificates in ``roots``, PEM, instead of AWS's root."""
        try:
            self._native = _native.Verifier(roots)
        except ValueError as error:
            raise PolicyError(str(error)) from None

    def verify(
        self,
        document: bytes,
        policy: Policy,
        *,
        nonce: Optional[bytes] = None,
        time: Time = "now",
    ) -> Attestation:
        """What the document says; raises :class:`Rejected` if it breaks a rule.

        With ``nonce``, the one of this challenge, the document must carry it;
        without, the policy decides.
        """
        try:
            verification = self._native.verify(document, policy._native, nonce, time)
        except ValueError as error:
            raise PolicyError(str(error)) from None
        report: dict[str, Any] = json.loads(verification.report)
        claims = verification.claims
        if claims is None:
            rule, reason = verification.rejection or ("", "")
            raise Rejected(rule, reason, report)
        return Attestation(
            profile=claims.profile,
            module_id=claims.module_id,
            timestamp_ms=claims.timestamp_ms,
            pcrs=claims.pcrs,
            nonce=claims.nonce,
            user_data=claims.user_data,
            public_key=claims.public_key,
            report=report,
        )
