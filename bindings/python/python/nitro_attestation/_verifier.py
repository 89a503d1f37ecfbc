"""Verifications of live documents, and audits of archived ones."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Literal, Optional, Union

from . import _native
from ._argument import must_be
from ._evidence import Attestation, Audited, evidence
from ._policy import Policy

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Verifier:
    """Verifies documents, and remembers the certificates that it has checked.

    Threads share it: they do not wait for each other, nor for the interpreter.
    """

    __slots__ = ("_rust",)
    _rust: _native.Verifier

    def __init__(
        self,
        roots: Optional[bytes] = None,
        *,
        partitions: Optional[Iterable[Literal["aws", "aws-us-gov"]]] = None,
    ) -> None:
        """Trusts AWS's root for the commercial regions unless told otherwise: the roots of
        ``partitions``, the certificates in PEM that the bytes ``roots`` are, or both, and
        no others. Raises :class:`ValueError` if they cannot be used."""
        if isinstance(partitions, str):
            raise TypeError("partitions are a list of names, such as ['aws-us-gov']")
        if roots is None and partitions is None:
            partitions = ("aws",)
        self._rust = _native.Verifier(roots, list(partitions or ()))

    def verify(self, document: bytes, policy: Policy, nonce: bytes) -> Attestation:
        """Verifies a live document, which must carry the nonce of this challenge:
        ``secrets.token_bytes(32)``, drawn for it alone.

        Raises :class:`Rejected` if the document breaks a rule, and :class:`ValueError` if
        the nonce is empty or has more bytes than a document can carry.
        """
        demanded = must_be(Policy, policy, "policy")._rust
        return evidence(Attestation, self._rust.verify(document, demanded, nonce))

    def verify_unchallenged(self, document: bytes, policy: Policy) -> Attestation:
        """Verifies a live document that answers no challenge: it may be a copy, as old as
        the policy's ``max_age`` allows. A policy that demands a nonce refuses it.

        Raises :class:`Rejected` if the document breaks a rule.
        """
        demanded = must_be(Policy, policy, "policy")._rust
        return evidence(Attestation, self._rust.verify_unchallenged(document, demanded))

    def audit(
        self,
        document: bytes,
        policy: Policy,
        *,
        at: Union[datetime, int, Literal["document"]],
    ) -> Audited:
        """Checks an archived document as of another time: a ``datetime`` with a time zone,
        or milliseconds since 1970. ``"document"`` is the document's own time: whether it
        was good when it was made, whenever that was.

        There is no challenge: a nonce that the document must carry is one that the policy
        states. Raises :class:`Rejected` if the document breaks a rule.
        """
        native, demanded = self._rust, must_be(Policy, policy, "policy")._rust
        if isinstance(at, str):
            if at != "document":
                raise ValueError(f"{at!r} is no time: give a datetime, an int or 'document'")
            return evidence(Audited, native.audit_of_document(document, demanded))
        if isinstance(at, datetime):
            if at.utcoffset() is None:
                raise ValueError("the time has no time zone: give one, as in datetime.now(timezone.utc)")
            at = (at - _EPOCH) // timedelta(milliseconds=1)
        if isinstance(at, bool) or not isinstance(at, int):
            raise TypeError(f"{type(at).__name__} is no time: give a datetime, an int or 'document'")
        if not 0 <= at < 1 << 63:
            raise ValueError(f"{at} ms is no time since 1970")
        return evidence(Audited, native.audit_at(document, demanded, at))
