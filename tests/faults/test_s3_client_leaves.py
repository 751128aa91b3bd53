"""A client leaves in the middle: of a PUT, which must leave nothing behind, and of a GET, whose file must be closed."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.control.neighbours.s3.service import S3Service
from penstock.control.neighbours.s3.store import ObjectStore
from tests.waiting import until
from tests.wire.serving import ACCOUNT, application, serve


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    made = ObjectStore(tmp_path)
    made.prepare()
    made.create_bucket("bucket", account=ACCOUNT, region="us-east-1")
    return made


@pytest.fixture
def port(store: ObjectStore) -> Iterator[int]:
    with serve(application({"s3": S3Service(store).handle})) as port:
        yield port


def open_files(store: ObjectStore) -> list[str]:
    """The store's files that this process holds open."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            continue
        if target.startswith(str(store.root)):
            found.append(target)
    return found


@pytest.mark.parametrize("framing", ["length", "aws-chunked"])
def test_in_a_put(store: ObjectStore, port: int, framing: str) -> None:
    store.put("bucket", "key", [b"old"])
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest("PUT", "/bucket/key")
        if framing == "length":
            connection.putheader("content-length", str(4 * 1024 * 1024))
            connection.endheaders(b"n" * 2 * 1024 * 1024)
        else:
            connection.putheader("content-length", str(4 * 1024 * 1024))
            connection.putheader("content-encoding", "aws-chunked")
            connection.putheader("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            connection.endheaders(b"300000\r\n" + b"n" * 2 * 1024 * 1024)
        until(lambda: list(store.spare.iterdir()), what="a file being written")
        connection.close()
        until(lambda: not list(store.spare.iterdir()), what="the file to go")
    until(lambda: not open_files(store), what="no file held open")
    with store.open("bucket", "key") as file:
        assert file.read() == b"old"


def test_in_a_get(store: ObjectStore, port: int) -> None:
    store.put("bucket", "key", [b"x" * 1024 * 1024] * 64)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"GET /bucket/key HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            until(lambda: open_files(store), what="the object to be open")
    until(lambda: not open_files(store), what="no file held open")


def test_a_client_that_falls_silent_is_told(store: ObjectStore) -> None:
    with serve(application({"s3": S3Service(store, idle_s=0.2).handle})) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.putrequest("PUT", "/bucket/key")
            connection.putheader("content-length", "100")
            connection.endheaders(b"ten bytes.")
            with connection.getresponse() as answer:
                assert (answer.status, answer.getheader("connection")) == (400, "close")
                assert b"<Code>RequestTimeout</Code>" in answer.read()
        finally:
            connection.close()
    assert list(store.spare.iterdir()) == []
