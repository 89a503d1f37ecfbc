"""How requests of the client are sent: HTTP/1.1 over TCP or a Unix socket."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
from typing import Any, Dict, Mapping, Optional, Union
from urllib.parse import quote, urlencode, urlsplit

#: Where the API is without a network.
SOCKET = "/run/enclave/api.sock"
#: The largest answer that is read, in bytes.
_MAX_ANSWER = 1024 * 1024


class EnclaveApiError(Exception):
    """The API has refused a request."""

    def __init__(self, status: int, code: str, reason: str, advice: str) -> None:
        super().__init__(f"{reason} ({code})" if code else reason)
        #: The HTTP status.
        self.status = status
        #: What was wrong, for programs: an :data:`enclave_api.ErrorCode`; empty if whoever
        #: answered was not the API.
        self.code = code
        #: What was wrong, for people.
        self.reason = reason
        #: What to do about it, for people.
        self.advice = advice


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Transport:
    """Sends each request over a connection of its own, as the API wants it."""

    def __init__(self, address: Optional[str], timeout: float) -> None:
        if address is None:
            address = os.environ.get("ENCLAVE_API") or f"unix:{SOCKET}"
        self._timeout = timeout
        self._unix = address[len("unix:") :] if address.startswith("unix:") else None
        parts = urlsplit(address)
        if self._unix is None and (parts.scheme != "http" or not parts.hostname):
            raise ValueError(f"{address!r} is neither http://HOST:PORT nor unix:PATH")
        self._host = parts.hostname or ""
        self._port = parts.port if self._unix is None else None

    def _connection(self) -> http.client.HTTPConnection:
        # Neither proxies nor redirects: the API is in the same machine.
        if self._unix is not None:
            return _UnixConnection(self._unix, self._timeout)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def send(
        self,
        method: str,
        path: str,
        query: Optional[Mapping[str, Any]] = None,
        body: Optional[Mapping[str, Any]] = None,
    ) -> bytes:
        """The body of the answer."""
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        if asked:
            path = f"{path}?{urlencode(asked)}"
        headers = {"Enclave-Api": "1"}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(_encoded(body)).encode()
        connection = self._connection()
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            received = answer.read(_MAX_ANSWER + 1)
        except http.client.HTTPException as error:
            raise ConnectionError(f"the local API's answer is not HTTP: {error!r}") from error
        finally:
            connection.close()
        if len(received) > _MAX_ANSWER:
            raise ConnectionError(f"the answer has more than {_MAX_ANSWER} bytes")
        if not 200 <= answer.status < 300:
            raise _refusal(answer.status, received)
        return received

    def json(
        self,
        method: str,
        path: str,
        query: Optional[Mapping[str, Any]] = None,
        body: Optional[Mapping[str, Any]] = None,
    ) -> Dict[str, Any]:
        """The answer as JSON."""
        try:
            received = json.loads(self.send(method, path, query, body))
        except ValueError as error:
            raise ConnectionError("the local API's answer is no JSON") from error
        if not isinstance(received, dict):
            raise ConnectionError("the local API's answer is no JSON object")
        return received


def quoted(parameter: Union[str, int]) -> str:
    """A parameter as one part of a path."""
    return quote(str(parameter), safe="")


def bytes_or_none(text: Optional[str]) -> Optional[bytes]:
    """Bytes that may be missing."""
    return None if text is None else base64.b64decode(text)


def _encoded(body: Mapping[str, Any]) -> Dict[str, Any]:
    encoded = {}
    for name, value in body.items():
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = base64.b64encode(value).decode()
        if value is not None:
            encoded[name] = value
    return encoded


def _refusal(status: int, received: bytes) -> EnclaveApiError:
    try:
        said = json.loads(received)
        return EnclaveApiError(status, said["code"], said["error"], said["advice"])
    except (ValueError, KeyError, TypeError):
        return EnclaveApiError(status, "", f"the answer has status {status} and no reason", "")
