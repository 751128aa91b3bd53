"""Requests byte by byte: signed like boto3's, sent over a bare socket."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.wire.gateway_fixture import KEY, REGION, House


def signed(
    house: House, path: str, body: bytes = b"", *, method: str = "POST", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole request to the runtime over plain HTTP."""
    head = signed_head(house, path, body, method=method, headers=headers)
    return head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def signed_head(
    house: House, path: str, body: bytes = b"", *, method: str = "POST", headers: Mapping[str, str] | None = None
) -> bytes:
    """The head's lines up to where the framing headers come."""
    request = AWSRequest(method, house.url() + path, dict(headers or {}), body)
    SigV4Auth(Credentials(KEY.id, KEY.secret), "sagemaker", REGION).add_auth(request)
    lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: localhost:{house.ports['http']}\r\n{lines}".encode()


def connect(house: House, timeout: float = 10) -> socket.socket:
    return socket.create_connection(("127.0.0.1", house.ports["http"]), timeout=timeout)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response read off a bare socket."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def read_answer(sock: socket.socket) -> Answer:
    """One response with a Content-Length. Raises EOFError when the connection ends first."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        body += _more(sock)
    return Answer(int(first.split(" ")[1]), headers, body)


def _more(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise EOFError
    return data


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the connection, however it ends."""
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data
