"""Challenges of live enclaves."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Optional, Union

from . import _native
from ._argument import must_be
from ._evidence import Attestation, evidence
from ._policy import Policy
from ._verifier import Verifier

_TIMEOUT = timedelta(seconds=20)


def _client(
    verifier: Verifier, timeout: timedelta, ca: Optional[bytes], bind_tls: Union[bool, str]
) -> _native.Client:
    if must_be(timedelta, timeout, "timeout") <= timedelta(0):
        raise ValueError("the timeout is not positive")
    milliseconds = -(-timeout // timedelta(milliseconds=1))
    return _native.Client(
        must_be(Verifier, verifier, "verifier")._rust, milliseconds, ca, bind_tls
    )


class Client:
    """Challenges enclaves with new nonces and verifies their documents. Threads share it."""

    __slots__ = ("_rust",)
    _rust: _native.Client

    def __init__(
        self,
        verifier: Verifier,
        *,
        timeout: timedelta = _TIMEOUT,
        ca: Optional[bytes] = None,
        bind_tls: Union[bool, str] = False,
    ) -> None:
        """``timeout`` is how long a document may take, from the look-up of a name to the
        last byte. ``ca`` are the certificate authorities, PEM, that vouch for TLS servers
        instead of the system's.

        With ``bind_tls``, the document vouches for the server, whatever its certificate:
        ``public_key`` must be the key of the https endpoint, or with ``"HOST:PORT"`` of
        the enclave's TLS server there. Raises :class:`ValueError` if the arguments cannot
        be used.
        """
        self._rust = _client(verifier, timeout, ca, bind_tls)

    def fetch(self, endpoint: str, policy: Policy) -> Attestation:
        """Asks ``endpoint`` for a document with a new nonce and verifies it now.

        ``https://HOST[:PORT]/PATH`` (or ``http``) is a service, ``unix:PATH`` a
        ``parent-agent`` on its control socket, ``nsm:PATH`` a software NSM on its own.

        Raises :class:`Rejected` if the document breaks a rule, :class:`FetchError` if none
        was received, and :class:`ValueError` for an endpoint or a policy that cannot be
        used for a challenge.
        """
        fetch = self._rust.fetch(endpoint, must_be(Policy, policy, "policy")._rust)
        return evidence(Attestation, fetch.run())


class AsyncClient:
    """:class:`Client` for asyncio. It keeps one thread for each challenge that is under way,
    at most ``AsyncClient.THREADS``; others wait for them. It can be used after a fork."""

    THREADS = 64

    __slots__ = ("_pid", "_rust", "_threads")
    _pid: int
    _rust: _native.Client
    _threads: ThreadPoolExecutor

    def __init__(
        self,
        verifier: Verifier,
        *,
        timeout: timedelta = _TIMEOUT,
        ca: Optional[bytes] = None,
        bind_tls: Union[bool, str] = False,
    ) -> None:
        """As for :class:`Client`."""
        self._rust = _client(verifier, timeout, ca, bind_tls)
        self._start_threads()

    def _start_threads(self) -> None:
        self._threads = ThreadPoolExecutor(self.THREADS, "nitro-attestation")
        self._pid = os.getpid()

    async def fetch(self, endpoint: str, policy: Policy) -> Attestation:
        """As :meth:`Client.fetch`. Cancelled, it ends the challenge."""
        fetch = self._rust.fetch(endpoint, must_be(Policy, policy, "policy")._rust)
        if self._pid != os.getpid():
            # The threads stayed in the parent, and the executor would wait for them.
            self._start_threads()
        loop = asyncio.get_running_loop()
        try:
            verification = await loop.run_in_executor(self._threads, fetch.run)
        finally:
            fetch.cancel()
        return evidence(Attestation, verification)
