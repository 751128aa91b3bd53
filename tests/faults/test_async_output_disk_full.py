"""The output of an asynchronous request does not fit on the buckets' disk: the failure says so, and nothing of the output is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from penstock.control.asynchronous.calls import Call, Failed
from penstock.control.asynchronous.jobs import Job, Jobs
from penstock.control.neighbours.s3.store import ObjectStore
from penstock.errors import AwsError
from penstock.routes import Replica
from tests.small_disk import small_disk

MIB = 1024 * 1024


class Container(BaseHTTPRequestHandler):
    """Answers with as many bytes as the body says."""

    def do_POST(self) -> None:
        size = int(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", str(size))
        self.end_headers()
        with suppress(ConnectionError):  # it is told that its answer is of no use
            self.wfile.write(b"x" * size)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def replica() -> Iterator[Replica]:
    server = HTTPServer(("127.0.0.1", 0), Container)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield Replica("r", 1, "127.0.0.1", server.server_port)
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    """On a file system of sixteen megabytes."""
    with small_disk(tmp_path / "disk", "16m") as place:
        made = ObjectStore(place / "buckets")
        made.prepare()
        made.create_bucket("results", account="1", region="us-east-1")
        yield made


def test_the_failure_says_what_did_not_fit(tmp_path: Path, store: ObjectStore, replica: Replica) -> None:
    jobs = Jobs(tmp_path / "async")
    jobs.prepare()

    def call(size: int) -> Call:
        job = Job(
            id=str(size),
            inference_id="i",
            account="1",
            region="us-east-1",
            endpoint="ep",
            received=0,
            expires=1,
            timeout_s=60,
            concurrency=1,
            output=f"s3://results/{size}.out",
            failure="s3://results/bad.out",
        )
        jobs.add(job, b"%d" % size)
        return Call(job, jobs, store, replica, "primary")

    large = call(20 * MIB)
    with pytest.raises(
        Failed, match=r"^Failed to upload the output to s3://results/20971520.out: .*No space left"
    ) as failed:
        large.run()
    with pytest.raises(AwsError):
        store.read("results", "20971520.out")
    large.fail(str(failed.value))
    with store.read("results", "bad.out") as record:
        assert record.metadata.size == len(str(failed.value))
    call(10 * MIB).run()
    with store.read("results", "10485760.out") as record:
        assert record.metadata.size == 10 * MIB
