"""Verify attestation documents of AWS Nitro Enclaves.

Challenge a live enclave, with a new nonce each time::

    from nitro_attestation import Client, FetchError, Measurements, Policy, Rejected, Verifier

    client = Client(Verifier())                  # trusts AWS's root; keep it
    policy = Policy(measurements=Measurements.read("payments.json"))
    try:
        attestation = client.fetch("https://enclave.example/attestation", policy)
    except Rejected as rejected:
        print(rejected.rule)                     # such as "policy.image"
    except FetchError as error:
        print(error)                             # nothing was received
    else:
        print(attestation.module_id)

``AsyncClient`` does the same in asyncio. Where documents come another way::

    nonce = secrets.token_bytes(32)              # new for each challenge
    attestation = verifier.verify(ask_the_enclave(nonce), policy, nonce)

A document that was refused is an exception and never a value. So no ``if`` that was
forgotten, or that tests the wrong thing, makes it an accepted one: whoever holds an
:class:`Attestation` holds what was verified.
"""

from ._client import AsyncClient, Client
from ._evidence import (
    Attestation,
    Audited,
    Evidence,
    Malformed,
    Rejected,
    UnverifiedClaims,
    inspect,
)
from ._native import FetchError
from ._policy import Binding, Measurements, Policy, PolicyError
from ._result import (
    Expectations,
    KeySet,
    ResultRejected,
    VerifiedResult,
    verify_result,
    verify_result_unchallenged,
)
from ._verifier import Verifier

__all__ = [
    "AsyncClient",
    "Attestation",
    "Audited",
    "Binding",
    "Client",
    "Evidence",
    "Expectations",
    "FetchError",
    "KeySet",
    "Malformed",
    "Measurements",
    "Policy",
    "PolicyError",
    "Rejected",
    "ResultRejected",
    "UnverifiedClaims",
    "VerifiedResult",
    "Verifier",
    "inspect",
    "verify_result",
    "verify_result_unchallenged",
]
