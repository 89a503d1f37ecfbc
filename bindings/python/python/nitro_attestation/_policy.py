"""What a verifier demands of an enclave."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Callable, Literal, Optional, Union

from . import _native

#: A register's value: 48 bytes, or 96 hexadecimal digits.
Register = Union[bytes, str]


class PolicyError(ValueError):
    """A policy that cannot be used, and why."""


def hexadecimal(value: Union[bytes, str], what: str) -> str:
    """The hexadecimal digits of bytes, or as they are given."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{what} is {type(value).__name__} and not bytes or hexadecimal digits")


@dataclass(frozen=True)
class Measurements:
    """What is measured of an image: ``image-builder`` and ``nitro-cli`` write it to a file."""

    #: The registers by their numbers: 0, 1 and 2, and 8 if the image is signed.
    pcrs: Mapping[int, Register]
    #: What reports call the image.
    name: Optional[str] = None

    @classmethod
    def read(cls, path: Union[str, os.PathLike[str]]) -> Measurements:
        """The measurements in a file, which becomes their name. Raises
        :class:`PolicyError` if it holds none."""
        try:
            return cls(_native.read_measurements(path), os.fspath(path))
        except ValueError as error:
            raise PolicyError(str(error)) from None

    def entry(self) -> dict[str, Any]:
        """As a policy writes an image."""
        registers = {f"PCR{index}": value for index, value in self.pcrs.items()}
        entry: dict[str, Any] = {
            "Measurements": {
                register: hexadecimal(value, register) for register, value in registers.items()
            }
        }
        if self.name is not None:
            entry["name"] = self.name
        return entry


def images_of(
    measurements: Union[Measurements, Iterable[Measurements]],
) -> tuple[Measurements, ...]:
    """One image, or several."""
    images = (measurements,) if isinstance(measurements, Measurements) else tuple(measurements)
    for image in images:
        if not isinstance(image, Measurements):
            kind = type(image).__name__
            raise TypeError(f"measurements hold {kind}: read the file with Measurements.read")
    return images


@dataclass(frozen=True)
class Binding:
    """What ``user_data`` or ``public_key`` has to be, where it is not given as it is."""

    _form: Literal["equal", "sha256_of", "sha384_of", "prefix"]
    _value: bytes

    @classmethod
    def sha256_of(cls, value: bytes) -> Binding:
        """The SHA-256 digest of these bytes."""
        return cls("sha256_of", value)

    @classmethod
    def sha384_of(cls, value: bytes) -> Binding:
        """The SHA-384 digest of these bytes."""
        return cls("sha384_of", value)

    @classmethod
    def prefix(cls, value: bytes) -> Binding:
        """These bytes, and perhaps more behind them."""
        return cls("prefix", value)


def _binding(value: Union[bytes, Binding], what: str) -> dict[str, str]:
    binding = value if isinstance(value, Binding) else Binding("equal", value)
    if not isinstance(binding._value, bytes):
        raise TypeError(f"{what} is {type(binding._value).__name__} and not bytes")
    return {binding._form: binding._value.hex()}


def _words(values: Union[str, Iterable[str]], what: str) -> Union[str, list[str]]:
    """One text, or several."""
    if isinstance(values, str):
        return values
    words = list(values)
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"{what} holds {type(word).__name__} and not str")
    return words


def _pem(values: Union[bytes, str, Iterable[Union[bytes, str]]]) -> Union[str, list[str]]:
    """One certificate, or several. What is no PEM is refused by who reads it."""
    if isinstance(values, bytes):
        return values.decode(errors="replace")
    if isinstance(values, str):
        return values
    words = (value.decode(errors="replace") if isinstance(value, bytes) else value for value in values)
    return _words(words, "signer")


def duration(value: timedelta, what: str) -> str:
    """A duration as policies write it."""
    if not isinstance(value, timedelta):
        raise TypeError(f"{what} is {type(value).__name__} and not a timedelta")
    return f"{value // timedelta(milliseconds=1)}ms"


class Policy:
    """What a verifier demands of an enclave. It has to name software, by measurements or
    registers, or to say that it accepts any.

    The arguments have the names and the meaning of the keys of a policy file.
    """

    __slots__ = ("_rust",)
    _rust: _native.Policy

    def __init__(
        self,
        *,
        measurements: Union[Measurements, Iterable[Measurements]] = (),
        pcrs: Optional[Mapping[int, Union[Register, Iterable[Register]]]] = None,
        role_arn: Union[str, Iterable[str], None] = None,
        instance_id: Union[str, Iterable[str], None] = None,
        signer: Union[bytes, str, Iterable[Union[bytes, str]], None] = None,
        allow_any_image: bool = False,
        allow_debug: bool = False,
        nonce: Union[bytes, Literal["required"], None] = None,
        purpose: Optional[
            Literal[
                "relayed-challenge",
                "self-check",
                "clock",
                "key-release",
                "sealing",
                "key-request",
                "key-gift",
                "workload",
            ]
        ] = None,
        user_data: Union[bytes, Binding, None] = None,
        public_key: Union[bytes, Binding, None] = None,
        module_id: Optional[str] = None,
        max_age: timedelta = timedelta(minutes=5),
        clock_skew: timedelta = timedelta(minutes=1),
        strict_keys: bool = False,
        profile: Literal["enclave", "nitro-tpm"] = "enclave",
    ) -> None:
        """The policy that these values make; raises :class:`PolicyError` if it would
        accept anything without saying so, and if nothing could satisfy it.

        ``measurements`` are allowed images, of which one has to match. ``pcrs`` are
        registers by their numbers, each with a value or several allowed ones. ``role_arn``,
        ``instance_id`` and ``signer`` are words for PCR3, PCR4 and PCR8, each with one value
        or several allowed ones: the parent's IAM role and id, and the certificate, in PEM,
        that the image is signed with.
        """
        keys: dict[str, Any] = {
            "profile": profile,
            "images": [image.entry() for image in images_of(measurements)],
            "pcrs": {
                str(index): (
                    hexadecimal(values, f"PCR{index}")
                    if isinstance(values, (bytes, str))
                    else [hexadecimal(value, f"PCR{index}") for value in values]
                )
                for index, values in (pcrs or {}).items()
            },
            "allow_any_image": allow_any_image,
            "allow_debug": allow_debug,
            "max_age": duration(max_age, "max_age"),
            "clock_skew": duration(clock_skew, "clock_skew"),
            "strict_keys": strict_keys,
        }
        if role_arn is not None:
            keys["role_arn"] = _words(role_arn, "role_arn")
        if instance_id is not None:
            keys["instance_id"] = _words(instance_id, "instance_id")
        if signer is not None:
            keys["signer"] = _pem(signer)
        if nonce is not None:
            keys["nonce"] = nonce if nonce == "required" else hexadecimal(nonce, "nonce")
        if user_data is not None:
            keys["user_data"] = _binding(user_data, "user_data")
        if public_key is not None:
            keys["public_key"] = _binding(public_key, "public_key")
        if purpose is not None:
            keys["purpose"] = purpose
        if module_id is not None:
            keys["module_id"] = module_id
        self._rust = _parsed(_native.Policy.from_json, json.dumps(keys))

    @classmethod
    def from_toml(cls, text: str) -> Policy:
        """The policy in a TOML text, which can name no files."""
        return cls._of(_parsed(_native.Policy.from_toml, text))

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """The policy in a JSON text, which can name no files."""
        return cls._of(_parsed(_native.Policy.from_json, text))

    @classmethod
    def read(cls, path: Union[str, os.PathLike[str]]) -> Policy:
        """The policy in a file: JSON if its name ends in ``.json``, else TOML. Files that
        it names are looked for beside it."""
        return cls._of(_parsed(_native.Policy.read, path))

    def to_json(self) -> str:
        """The policy as a JSON text, with every default written out."""
        return self._rust.to_json()

    @classmethod
    def _of(cls, native: _native.Policy) -> Policy:
        policy = cls.__new__(cls)
        policy._rust = native
        return policy

    def __repr__(self) -> str:
        return f"Policy.from_json({self.to_json()!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())


def _parsed(parse: Callable[[Any], _native.Policy], argument: object) -> _native.Policy:
    try:
        return parse(argument)
    except ValueError as error:
        raise PolicyError(str(error)) from None
