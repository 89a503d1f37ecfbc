"""Policies from values, texts and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from nitro_attestation import Binding, Measurements, Policy, PolicyError
from security_module import certificate

PCR = bytes([7]) * 48
IMAGE = Measurements({0: PCR, 1: PCR, 2: PCR.hex()}, "hello")


def test_policy_of_values_is_that_of_a_text() -> None:
    values = Policy(
        measurements=[IMAGE, Measurements({0: PCR, 1: PCR, 2: PCR, 8: PCR})],
        pcrs={3: PCR, 16: [PCR.hex(), bytes([8]) * 48]},
        nonce="required",
        purpose="workload",
        user_data=Binding.sha256_of(b"\x00\xff"),
        public_key=b"a key",
        module_id="i-0*",
        max_age=timedelta(seconds=90),
        clock_skew=timedelta(milliseconds=1500),
        strict_keys=True,
    )
    hexadecimal = PCR.hex()
    registers = {"PCR0": hexadecimal, "PCR1": hexadecimal, "PCR2": hexadecimal}
    text = {
        "images": [
            {"name": "hello", "Measurements": registers},
            {"Measurements": {**registers, "PCR8": hexadecimal}},
        ],
        "pcrs": {"3": hexadecimal, "16": [hexadecimal, "08" * 48]},
        "nonce": "required",
        "purpose": "workload",
        "user_data": {"sha256_of": "00ff"},
        "public_key": {"equal": b"a key".hex()},
        "module_id": "i-0*",
        "max_age": "90s",
        "clock_skew": "1500ms",
        "strict_keys": True,
    }
    assert values == Policy.from_json(json.dumps(text))
    assert hash(values) == hash(Policy.from_json(values.to_json()))
    assert values != Policy(measurements=IMAGE)
    assert eval(repr(values)) == values


def test_defaults_are_those_of_a_text() -> None:
    text = f'pcrs = {{ 0 = "{PCR.hex()}" }}'
    assert Policy(pcrs={0: PCR}) == Policy.from_toml(text)
    assert Policy(allow_any_image=True, allow_debug=True) == Policy.from_toml(
        "allow_any_image = true\nallow_debug = true"
    )
    for form in (Binding.sha256_of, Binding.sha384_of, Binding.prefix):
        key = "{" + f"{form.__name__} = '00ff'" + "}"
        expected = Policy.from_toml(f"{text}\nuser_data = {key}".replace("\nuser", "\n\nuser"))
        assert Policy(pcrs={0: PCR}, user_data=form(b"\x00\xff")) == expected


ROLE = "arn:aws:iam::123456789012:role/Webserver"
INSTANCES = ["i-1234567890abcdef0", "i-0123456789abcdef0"]


def extended(value: bytes) -> bytes:
    """A register into which this was measured."""
    return hashlib.sha384(bytes(48) + value).digest()


def test_role_arn_and_instance_id_are_pcr3_and_pcr4() -> None:
    role, first, second = (extended(text.encode()) for text in (ROLE, *INSTANCES))
    one = Policy(allow_any_image=True, role_arn=ROLE, instance_id=INSTANCES[0])
    assert one == Policy(allow_any_image=True, pcrs={3: role, 4: first})
    several = Policy(allow_any_image=True, role_arn=[ROLE], instance_id=iter(INSTANCES))
    assert several == Policy(allow_any_image=True, pcrs={3: role, 4: [first, second]})


def test_signer_is_the_pcr8_of_its_certificate() -> None:
    keys = [ec.generate_private_key(ec.SECP384R1()) for _ in range(2)]
    signers = [certificate("signer.test", key, "signer.test", key, False) for key in keys]
    registers = [
        extended(hashlib.sha384(signer.public_bytes(Encoding.DER)).digest()) for signer in signers
    ]
    first, second = (signer.public_bytes(Encoding.PEM) for signer in signers)
    for signer in (first, first.decode(), [first]):
        assert Policy(signer=signer) == Policy(pcrs={8: registers[0]})
    assert Policy(signer=[first, second.decode()]) == Policy(pcrs={8: registers})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Policy(), "names no "),
        (lambda: Policy(pcrs={32: PCR}, allow_any_image=True), "PCR32 does not exist"),
        (lambda: Policy(pcrs={0: PCR[:-1]}), "96 hexadecimal digits"),
        (lambda: Policy(pcrs={0: "no digits"}), ""),
        (lambda: Policy(pcrs={0: []}), "PCR0"),
        (lambda: Policy(pcrs={0: bytes(48)}), ""),
        (lambda: Policy(measurements=Measurements({})), ""),
        (lambda: Policy(measurements=IMAGE, max_age=timedelta(seconds=-1)), "duration"),
        (lambda: Policy(measurements=IMAGE, max_age=timedelta(days=400)), "duration"),
        (lambda: Policy(measurements=IMAGE, nonce=b""), "nonce"),
        (lambda: Policy(measurements=IMAGE, purpose="another"), "purpose"),  # type: ignore[arg-type]
        (lambda: Policy(role_arn=ROLE), "names no code"),
        (lambda: Policy(allow_any_image=True, role_arn=[]), "no value for PCR3"),
        (lambda: Policy(allow_any_image=True, role_arn="Webserver"), "not a role's ARN"),
        (lambda: Policy(allow_any_image=True, instance_id=["i-1"]), "not an instance's id"),
        (
            lambda: Policy(allow_any_image=True, instance_id=INSTANCES, pcrs={4: PCR}),
            "instance_id and pcrs both give values of PCR4",
        ),
        (lambda: Policy(signer="signer.pem"), "write its content"),
        (lambda: Policy(signer=b"\xff"), "write its content"),
        (lambda: Policy(signer=b"-----BEGIN CERTIFICATE-----"), "the signer's certificate"),
        (lambda: Policy.from_json("{"), "EOF"),
        (lambda: Policy.from_toml(""), "names no "),
        (lambda: Policy.from_toml("x = 1"), "line 1: unknown field `x`"),
        (lambda: Policy.from_toml("["), "line 1"),
    ],
)
def test_policy_that_is_none_is_refused(make: Callable[[], Policy], message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        make()
    assert message in str(caught.value)


def test_values_of_another_type_are_refused() -> None:
    some: Any = "text"
    some_bytes: Any = [b"text"]
    some_list: Any = [3]
    with pytest.raises(TypeError, match="public_key is str and not bytes"):
        Policy(pcrs={0: PCR}, public_key=some)
    with pytest.raises(TypeError, match="user_data is str and not bytes"):
        Policy(pcrs={0: PCR}, user_data=Binding.prefix(some))
    with pytest.raises(TypeError, match="max_age is str and not a timedelta"):
        Policy(pcrs={0: PCR}, max_age=some)
    with pytest.raises(TypeError, match="measurements hold str: read the file"):
        Policy(measurements=some)
    with pytest.raises(TypeError, match="role_arn holds bytes and not str"):
        Policy(pcrs={0: PCR}, role_arn=some_bytes)
    with pytest.raises(TypeError, match="signer holds int and not str"):
        Policy(pcrs={0: PCR}, signer=some_list)
    with pytest.raises(TypeError, match="positional"):
        Policy(some)  # type: ignore[call-arg]


def write_measurements(path: Path) -> None:
    registers = {"HashAlgorithm": "Sha384 { ... }", **{f"PCR{index}": PCR.hex() for index in range(3)}}
    path.write_text(json.dumps({"Measurements": registers}))


def test_policy_file_is_read_and_names_files_beside_it(tmp_path: Path) -> None:
    write_measurements(tmp_path / "hello.json")
    text = '[[images]]\nname = "hello"\nfile = "hello.json"'
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "b.json").write_text('{"images": [{"name": "hello", "file": "hello.json"}]}')
    assert Policy.read(tmp_path / "a.toml") == Policy(measurements=IMAGE)
    assert Policy.read(str(tmp_path / "b.json")) == Policy(measurements=IMAGE)
    with pytest.raises(PolicyError, match="cannot name one"):
        Policy.from_toml(text)
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.read(tmp_path / "nothing.toml")


def test_measurements_file_is_read_as_measurements(tmp_path: Path) -> None:
    path = tmp_path / "hello.json"
    write_measurements(path)
    measurements = Measurements.read(path)
    assert measurements == Measurements({0: PCR, 1: PCR, 2: PCR}, str(path))
    Policy(measurements=measurements)
    path.write_text("{}")
    with pytest.raises(PolicyError, match="image-builder, nitro-cli"):
        Measurements.read(path)


def test_measurements_file_that_is_read_as_a_policy_is_named_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "hello.json"
    write_measurements(path)
    with pytest.raises(PolicyError, match="measurements of an image, not a policy"):
        Policy.read(path)
    with pytest.raises(PolicyError, match="measurements of an image, not a policy"):
        Policy.from_json(path.read_text())
