"""The server is killed while objects are written: each is afterwards the old one or a new one, whole, and nothing is left over."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.control.neighbours.s3.store import ObjectStore
from tests.waiting import until

BODY = 3 * 1024 * 1024


@contextmanager
def running(root: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "tests.faults.s3_server", str(root)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([p for p in sys.path if p])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def body(version: int) -> bytes:
    """Bytes that tell their version anywhere."""
    return hashlib.sha256(bytes([version])).digest() * (BODY // 32)


def put(port: int, version: int, *, cut: int | None = None) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("PUT", "/bucket/key")
    connection.putheader("content-length", str(BODY))
    connection.endheaders(body(version)[:cut])
    return connection


def test_half_an_object_leaves_the_old_one(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    store.prepare()
    store.create_bucket("bucket", account="123456789012", region="us-east-1")
    store.put("bucket", "key", [b"old"])
    with running(tmp_path) as (process, port):
        connection = put(port, 1, cut=BODY - 1)
        until(lambda: any(path.stat().st_size > 0 for path in store.spare.iterdir()), what="bytes on the disk")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        connection.close()
    assert len(list(store.spare.iterdir())) == 1
    again = ObjectStore(tmp_path)
    again.prepare()
    with again.open("bucket", "key") as file:
        assert file.read() == b"old"
    assert list(again.spare.iterdir()) == []
    assert list(again.keys("bucket", "")) == ["key"]


def test_a_kill_at_any_moment_leaves_one_version_whole(tmp_path: Path, rng: random.Random) -> None:
    first = ObjectStore(tmp_path)
    first.prepare()
    first.create_bucket("bucket", account="123456789012", region="us-east-1")
    first.put("bucket", "key", [body(0)])
    confirmed = 0
    for _ in range(4):
        last = [confirmed]

        def write(port: int, last: list[int]) -> None:
            """PUT version upon version until the server is gone; remembers the last that was confirmed."""
            version = last[0]
            while True:
                version = version % 250 + 1
                connection = put_or_none(port, version)
                if connection is None:
                    return
                last[0] = version

        with running(tmp_path) as (process, port):
            writer = threading.Thread(target=write, args=(port, last))
            writer.start()
            before = last[0]
            until(lambda last=last, before=before: last[0] != before, what="a confirmed PUT")  # type: ignore[misc]
            pause = threading.Event()
            pause.wait(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            writer.join(30)
            assert not writer.is_alive()
        again = ObjectStore(tmp_path)
        again.prepare()
        with again.open("bucket", "key") as file:
            data = file.read()
        # What was confirmed is there, unless the next had already taken its place.
        found = next(version for version in range(251) if data[:32] == body(version)[:32])
        assert data == body(found)
        assert found in (last[0], last[0] % 250 + 1)
        confirmed = found


def put_or_none(port: int, version: int) -> int | None:
    """The status of a whole PUT, None when the server is gone."""
    try:
        connection = put(port, version)
        try:
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return None
    assert status == 200
    return status
