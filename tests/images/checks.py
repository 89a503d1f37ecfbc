"""What clients of the images ask, and what has to be answered."""

import http.client
import socket
import ssl
import struct
import threading
import time

from programs import Failed

# Longer than anything takes, under emulation on a busy machine.
LIMIT = 60
PARTS = b"".join(b"part %d\n" % number for number in range(4))
FILE = b"x" * 300_000
GREETING = b"Good morning\n"


class Http:
    """`GET` of a path: the status, and the whole body if it is known."""

    def __init__(self, path="/", body=b"hello\n", status=200):
        self._path, self._body, self._status = path, body, status

    def __call__(self, address):
        connection = http.client.HTTPConnection(*address, timeout=LIMIT)
        try:
            connection.request("GET", self._path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != self._status:
            raise Failed(f"GET {self._path}: status {answer.status}, not {self._status}: {body[:200]!r}")
        if self._body is not None and body != self._body:
            raise Failed(f"GET {self._path}: {len(body)} bytes, not the {len(self._body)} expected: {body[-60:]!r}")


class Exchange:
    """Bytes that are sent, and those that the answer begins with."""

    def __init__(self, sent, wanted):
        self._sent, self._wanted = sent, wanted

    def __call__(self, address):
        with socket.create_connection(address, timeout=LIMIT) as connection:
            connection.sendall(self._sent)
            answer = b""
            while len(answer) < len(self._wanted):
                received = connection.recv(4096)
                if not received:
                    raise ConnectionError(f"closed after {answer!r}")
                answer += received
        if not answer.startswith(self._wanted):
            raise Failed(f"{self._sent!r} was answered with {answer[:60]!r}")


def postgres(address):
    """A query in the simple protocol, with no password."""

    def message(kind, body):
        return kind + struct.pack("!I", len(body) + 4) + body

    startup = message(b"", struct.pack("!I", 3 << 16) + b"user\0postgres\0database\0postgres\0\0")
    with socket.create_connection(address, timeout=LIMIT) as connection:
        stream = connection.makefile("rwb")
        stream.write(startup + message(b"Q", b"SELECT 6 * 7\0"))
        stream.flush()
        # Ready for a query twice: after the start, and after the query's answer.
        rows, ready = [], 0
        while ready < 2:
            head = stream.read(5)
            if len(head) < 5:
                raise ConnectionError("closed before the answer")
            kind, body = head[:1], stream.read(struct.unpack("!I", head[1:])[0] - 4)
            ready += kind == b"Z"
            if kind == b"D":
                rows.append(body)
            if kind == b"E":
                raise ConnectionError(body.replace(b"\0", b" ").decode(errors="replace"))
        # One row of one column, which has two bytes.
        if rows != [b"\0\x01\0\0\0\x0242"]:
            raise Failed(f"SELECT 6 * 7 was answered with {rows!r}")


REDIS = Exchange(b"PING\r\n", b"+PONG\r\n")
MEMCACHED = Exchange(b"version\r\n", b"VERSION ")
# CONNECT of MQTT 3.1.1 with a clean session and the client's name, and the CONNACK.
MOSQUITTO = Exchange(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test", b"\x20\x02\x00\x00")


def first_answer(ask, address, limit, alive):
    """Asks until there is an answer: servers listen some time after they were started."""
    deadline = time.monotonic() + limit
    while True:
        try:
            return ask(address)
        except (OSError, http.client.HTTPException) as error:
            alive()
            if time.monotonic() > deadline:
                raise Failed(f"no answer within {limit} s: {error or type(error).__name__}") from None
        time.sleep(0.1)


class Beside:
    """What is done while other things happen, and when it ended."""

    def __init__(self, what, do, *arguments):
        self._what, self._error, self.ended = what, None, None
        self._thread = threading.Thread(target=self._run, args=(do, *arguments), daemon=True)
        self._thread.start()

    def _run(self, do, *arguments):
        try:
            do(*arguments)
        except Exception as error:
            self._error = error
        self.ended = time.monotonic()

    def is_open(self):
        return self._thread.is_alive()

    def finished(self, limit=LIMIT):
        """Waits for the end, which has to be a success."""
        self._thread.join(limit)
        if self._thread.is_alive():
            raise Failed(f"{self._what} never ended")
        if self._error is not None:
            raise Failed(f"{self._what}: {self._error or type(self._error).__name__}")


class Server:
    """A server outside of the enclave: HTTPS with a certificate, one greeting for everybody."""

    def __init__(self, certificate, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context = context
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self):
        return "127.0.0.1:{}".format(self._listener.getsockname()[1])

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        try:
            connection.settimeout(LIMIT)
            with self._context.wrap_socket(connection, server_side=True) as stream:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += stream.recv(4096) or b"\r\n\r\n"
                # Price-oracle's requests are in flight as long as this takes.
                time.sleep(0 if b"GET /greeting" in received else 4)
                stream.sendall(head % len(GREETING) + GREETING)
        except OSError:
            connection.close()

    def close(self):
        self._listener.close()
