"""Signed results of a verification service, such as ``attest serve`` (EAR)."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Literal, Optional, Union

from . import _native
from ._argument import must_be
from ._policy import Measurements, Register, duration, hexadecimal, images_of


class ResultRejected(Exception):
    """A signed result that was refused."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, reason)
        #: The identifier of the first rule that was broken. It is stable.
        self.rule = rule
        #: How it was broken, in a line for people.
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


class KeySet:
    """The keys of those whose results are believed: a JWK set, as ``attest serve`` publishes
    it. Obtain it over a connection that you trust."""

    __slots__ = ("_rust",)
    _rust: _native.KeySet

    def __init__(self, json: Union[bytes, str]) -> None:
        """Raises :class:`ValueError` if the text is no key set."""
        self._rust = _native.KeySet(json.encode() if isinstance(json, str) else json)


class Expectations:
    """What a relying party expects of a result. It has to say what may run in the enclave,
    or that any policy of the issuer is good."""

    __slots__ = ("_rust",)
    _rust: _native.Expectations

    def __init__(
        self,
        *,
        issuer: Optional[str] = None,
        policies: Iterable[str] = (),
        allow_any_policy: bool = False,
        images: Iterable[str] = (),
        measurements: Union[Measurements, Iterable[Measurements]] = (),
        pcrs: Optional[Mapping[int, Union[Register, Iterable[Register]]]] = None,
        module_id: Optional[str] = None,
        profile: Literal["enclave", "nitro-tpm"] = "enclave",
        freshness: Optional[Literal["none", "caller", "challenge"]] = None,
        max_age: Optional[timedelta] = None,
        clock_skew: timedelta = timedelta(minutes=1),
        allow_warning: bool = False,
        allow_other_roots: bool = False,
    ) -> None:
        """``policies`` are names or digests (``sha256:…``) of the issuer's policies, and
        ``images`` names of images there; one of each has to match. An image's name says
        nothing of what runs unless its policy is expected too. ``measurements`` and
        ``pcrs`` are compared with what the result says of the document.

        ``freshness`` is the least that has to show that the document is new. Unless told
        otherwise, the result must be affirming, and the hardware AWS's. Raises
        :class:`ValueError` for what no result could meet.
        """
        for names in (policies, images):
            if isinstance(names, str):
                raise TypeError("policies and images are lists of names")
        keys: dict[str, Any] = {
            "policies": list(policies),
            "allow_any_policy": allow_any_policy,
            "images": list(images),
            "measurements": [image.entry() for image in images_of(measurements)],
            "pcrs": {
                # By their numbers alone: `0` and `"0"` would be one register, and one demand.
                str(int(operator.index(index))): [
                    hexadecimal(value, f"PCR{index}")
                    for value in ([values] if isinstance(values, (bytes, str)) else values)
                ]
                for index, values in (pcrs or {}).items()
            },
            "profile": profile,
            "clock_skew": duration(clock_skew, "clock_skew"),
            "allow_warning": allow_warning,
            "allow_other_roots": allow_other_roots,
        }
        if max_age is not None:
            keys["max_age"] = duration(max_age, "max_age")
        for key, value in (("issuer", issuer), ("module_id", module_id), ("freshness", freshness)):
            if value is not None:
                keys[key] = value
        self._rust = _native.Expectations(json.dumps(keys))


@dataclass(frozen=True)
class VerifiedResult:
    """What an accepted result says."""

    #: ``"affirming"``, or ``"warning"`` where that was allowed.
    status: str
    #: The claim ``iss``.
    issuer: Optional[str]
    #: Who answers for the verifier, and its program and version.
    developer: str
    build: str
    #: In seconds since 1970.
    issued_at: int
    expires_at: int
    #: ``"enclave"``, or ``"nitro-tpm"``.
    profile: str
    #: What shows that the document is new: ``"challenge"``, ``"caller"`` or ``"none"``.
    freshness: str
    #: The policy's name, if it has one, and its digest.
    policy_ids: list[str]
    #: The image of the policy that the document is of, by its name there.
    image: Optional[str]
    #: AR4SI's claims and their values.
    trust_vector: dict[str, int]
    #: When the document was verified, in milliseconds since 1970.
    checked_at_ms: Optional[int]
    #: What the document holds, as the result has it: bytes in hexadecimal.
    document: dict[str, Any]


def _result(outcome: tuple[Optional[str], Optional[tuple[str, str]]]) -> VerifiedResult:
    claims, rejection = outcome
    if claims is None:
        raise ResultRejected(*(rejection or ("", "")))
    said: dict[str, Any] = json.loads(claims)
    return VerifiedResult(**{field.name: said[field.name] for field in fields(VerifiedResult)})


def verify_result(
    token: str, keys: KeySet, expectations: Expectations, nonce: bytes
) -> VerifiedResult:
    """Verifies a signed result now. It must be for this nonce, of 8 to 64 bytes, which was
    drawn for it alone.

    Raises :class:`ResultRejected` if no key of the set has signed it or it is not what is
    expected, and :class:`ValueError` if the nonce cannot be used.
    """
    expected = must_be(Expectations, expectations, "expectations")._rust
    return _result(expected.verify(token, must_be(KeySet, keys, "keys")._rust, nonce))


def verify_result_unchallenged(
    token: str, keys: KeySet, expectations: Expectations
) -> VerifiedResult:
    """As :func:`verify_result`, for any nonce or none: whoever has the result can show it
    again until it expires."""
    expected = must_be(Expectations, expectations, "expectations")._rust
    return _result(expected.verify_unchallenged(token, must_be(KeySet, keys, "keys")._rust))
