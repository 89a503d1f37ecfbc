"""Challenges of live enclaves, over HTTP and TLS."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import os
import pickle
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Optional
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from nitro_attestation import AsyncClient, Attestation, Client, FetchError, Policy, Rejected, Verifier
from security_module import SecurityModule

MODULE = SecurityModule()
POLICY = Policy(pcrs={0: MODULE.pcr}, nonce="required")


class Enclave(ThreadingHTTPServer):
    """A service that answers challenges."""

    daemon_threads = True
    public_key: Optional[bytes] = None
    #: Instead of a document.
    answer: Optional[bytes] = None
    #: An answer waits for it.
    gate = threading.Event()

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Service)
        self.nonces: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def handle_error(self, *_: Any) -> None:
        """Clients give up here on purpose."""

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.server_port}/attestation"


class Service(BaseHTTPRequestHandler):
    server: Enclave

    def do_GET(self) -> None:
        (nonce,) = parse_qs(urlsplit(self.path).query)["nonce"]
        self.server.nonces.append(nonce)
        self.server.gate.wait(20)
        document = MODULE.document(bytes.fromhex(nonce), self.server.public_key)
        body = self.server.answer
        if body is None:
            body = json.dumps({"document": base64.b64encode(document).decode()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def enclave() -> Iterator[Enclave]:
    with Enclave() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()


def client(**options: Any) -> Client:
    return Client(Verifier(MODULE.root_pem), **options)


def test_client_challenges_with_a_new_nonce_each_time(enclave: Enclave) -> None:
    by = client()
    found = [by.fetch(enclave.url(), POLICY) for _ in range(2)]
    for attestation, nonce in zip(found, enclave.nonces):
        assert type(attestation) is Attestation
        assert attestation.nonce is not None and attestation.nonce.hex() == nonce
        assert len(attestation.nonce) == 32
    assert found[0].nonce != found[1].nonce
    # The document is there to be archived.
    Verifier(MODULE.root_pem).audit(found[0].document, Policy(pcrs={0: MODULE.pcr}), at="document")


def test_client_raises_what_was_refused_and_what_was_not_received(enclave: Enclave) -> None:
    with pytest.raises(Rejected) as caught:
        client().fetch(enclave.url(), Policy(pcrs={0: bytes([8]) * 48}))
    assert caught.value.rule == "policy.pcr.0" and caught.value.document
    enclave.answer = MODULE.document(bytes(32))
    with pytest.raises(Rejected, match="policy.nonce"):
        client().fetch(enclave.url(), POLICY)
    enclave.answer = b"<html>"
    with pytest.raises(FetchError, match="answered no document") as error:
        client().fetch(enclave.url(), POLICY)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(FetchError, match="cannot be reached"):
            client().fetch(f"http://127.0.0.1:{nobody.getsockname()[1]}/", POLICY)
    with pytest.raises(FetchError):
        client().fetch("unix:/nonexistent", POLICY)


def test_client_refuses_arguments_that_no_challenge_can_have(enclave: Enclave) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client(timeout=timedelta(0)),
        lambda: client(ca=b"no PEM"),
        lambda: client(bind_tls="no server"),
        lambda: client(ca=MODULE.root_pem, bind_tls=True),
        lambda: client().fetch("ftp://127.0.0.1/", POLICY),
        lambda: client().fetch(enclave.url() + "?nonce=00", POLICY),
        # The nonce is the client's, and there is no TLS key in HTTP.
        lambda: client().fetch(enclave.url(), Policy(allow_any_image=True, nonce=b"fixed")),
        lambda: client(bind_tls=True).fetch(enclave.url(), POLICY),
    ]
    for call in calls:
        with pytest.raises(ValueError):
            call()
    assert enclave.nonces == []


def tls(enclave: Enclave, folder: Path) -> bytes:
    """Serves TLS under a certificate of its own making, which it returns."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "enclave")]), datetime.now(timezone.utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    encoding, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, encoding, plain)
    (folder / "tls.pem").write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    enclave.socket = context.wrap_socket(enclave.socket, server_side=True)
    enclave.public_key = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def test_client_binds_the_key_of_the_tls_server(enclave: Enclave, tmp_path: Path) -> None:
    pem = tls(enclave, tmp_path)
    url = enclave.url("https")
    with pytest.raises(FetchError, match="TLS"):
        client().fetch(url, POLICY)
    client(ca=pem).fetch(url, POLICY)
    found = client(bind_tls=True).fetch(url, POLICY)
    assert found.public_key == enclave.public_key
    # Whoever relays the document of another enclave does not hold its key.
    enclave.public_key = b"another"
    with pytest.raises(Rejected, match="policy.public-key"):
        client(bind_tls=True).fetch(url, POLICY)


def test_client_times_out_and_lets_other_threads_run(enclave: Enclave) -> None:
    enclave.gate.clear()
    counted, stop = [0], threading.Event()

    def count() -> None:
        while not stop.wait(0.01):
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    with pytest.raises(FetchError, match="gave no whole answer within 0.5 s"):
        client(timeout=timedelta(seconds=0.5)).fetch(enclave.url(), POLICY)
    stop.set()
    thread.join()
    assert counted[0] > 5


def test_client_is_interrupted_by_a_signal(enclave: Enclave) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: Any) -> None:
        raise Interrupted

    enclave.gate.clear()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        start = time.monotonic()
        with pytest.raises(Interrupted):
            client(timeout=timedelta(seconds=15)).fetch(enclave.url(), POLICY)
        assert time.monotonic() - start < 10
    finally:
        signal.signal(signal.SIGALRM, before)


def test_async_client_challenges_many_at_once(enclave: Enclave) -> None:
    by = AsyncClient(Verifier(MODULE.root_pem))

    async def many() -> list[Attestation]:
        enclave.gate.clear()
        fetches = [asyncio.ensure_future(by.fetch(enclave.url(), POLICY)) for _ in range(8)]
        # All of them have asked before the first is answered, and the loop goes on.
        while len(enclave.nonces) < len(fetches):
            await asyncio.sleep(0.01)
        enclave.gate.set()
        return await asyncio.gather(*fetches)

    found = asyncio.run(asyncio.wait_for(many(), 15))
    assert len({attestation.nonce for attestation in found}) == 8


def test_async_client_challenges_in_a_forked_process_too(enclave: Enclave) -> None:
    by = AsyncClient(Verifier(MODULE.root_pem))
    asyncio.run(by.fetch(enclave.url(), POLICY))
    child = os.fork()
    if child == 0:
        # A child that waits for ever is killed, and one that fails has another code.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(15)
        try:
            asyncio.run(by.fetch(enclave.url(), POLICY))
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(set(enclave.nonces)) == 2


def test_async_client_raises_and_ends_a_challenge_that_is_cancelled(enclave: Enclave) -> None:
    by = AsyncClient(Verifier(MODULE.root_pem), timeout=timedelta(seconds=15))

    async def refused() -> None:
        await by.fetch(enclave.url(), Policy(pcrs={0: bytes([8]) * 48}))

    with pytest.raises(Rejected, match="policy.pcr.0"):
        asyncio.run(refused())
    with pytest.raises(ValueError):
        asyncio.run(by.fetch("ftp://127.0.0.1/", POLICY))

    enclave.gate.clear()
    start = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(by.fetch(enclave.url(), POLICY), 0.2))
    # Nothing waits for the client's own timeout, not even the end of its threads.
    by._threads.shutdown()
    assert time.monotonic() - start < 10
