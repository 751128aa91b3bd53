"""One asynchronous request to a replica, blocking: the input from S3 or disk, the answer to S3.

Owns that passage, in pieces whatever the size. It must never queue or retry. Call it in a thread; `abort` ends it from another one.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import BinaryIO

from penstock.control.asynchronous.jobs import Job, Jobs
from penstock.control.neighbours.s3.store import ObjectStore
from penstock.errors import AwsError
from penstock.routes import Replica

PIECE = 256 * 1024
MAX_ORIGINAL = 64 * 1024


class Failed(Exception):
    """The request came to nothing; the text goes into its failure object."""


class Unreached(Exception):
    """The replica took no connection: another may be asked."""


class Call:
    """A job on its way to one replica. `run` raises Failed, Unreached."""

    def __init__(self, job: Job, jobs: Jobs, objects: ObjectStore, replica: Replica, container: str) -> None:
        self._job, self._jobs, self._objects, self._container = job, jobs, objects, container
        self._aborted = False
        self._connection = http.client.HTTPConnection(replica.host, replica.port, timeout=job.timeout_s)

    def abort(self) -> None:
        """Closes the connection under `run`: that is how a container is told to stop."""
        self._aborted = True
        if (sock := self._connection.sock) is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        source, size = self._input()
        with source, closing(self._connection):
            try:
                self._connection.connect()
            except OSError as error:
                raise Unreached(str(error)) from None
            try:
                headers = {**self._job.headers, "Content-Length": str(size)}
                self._connection.request("POST", "/invocations", source, headers)
                # The response holds the socket on its own, where the container ends the connection with it.
                with self._connection.getresponse() as response:
                    if not 200 <= response.status < 300:
                        raise self._refused(response)
                    self._keep(response)
            except (OSError, http.client.HTTPException) as error:
                raise self._unanswered(error) from None

    def _unanswered(self, error: Exception) -> Failed:
        return Failed(
            f"Amazon SageMaker could not get a response from the {self._job.endpoint} endpoint: "
            f"{error or type(error).__name__}."
        )

    def _input(self) -> tuple[BinaryIO, int]:
        job = self._job
        try:
            if not job.input:
                path = self._jobs.body(job)
                return path.open("rb"), path.stat().st_size
            bucket, key = split(job.input)
            if self._objects.bucket(bucket).account != job.account:
                raise Failed(f"Access to {job.input} is denied.")
            with closing(self._objects.read(bucket, key)) as record:
                size = record.metadata.size
            return self._objects.open(bucket, key), size
        except (AwsError, OSError) as error:
            raise Failed(f"Failed to download the input from {job.input}: {error}") from None

    def _keep(self, response: http.client.HTTPResponse) -> None:
        bucket, key = split(self._job.output)
        type_ = response.headers.get("content-type", "application/octet-stream")
        try:
            self._own(bucket)
            self._objects.put(bucket, key, self._pieces(response), content_type=type_)
        except (AwsError, OSError) as error:  # OSError: our disk's, not the container's connection's
            raise Failed(f"Failed to upload the output to {self._job.output}: {error}") from None

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            try:
                piece = response.read(PIECE)
                if not piece and (response.length or self._aborted):
                    # the library says nothing when a body of known length ends early
                    raise http.client.IncompleteRead(b"", response.length)
            except (OSError, http.client.HTTPException) as error:
                raise self._unanswered(error) from None
            if not piece:
                return
            yield piece

    def _refused(self, response: http.client.HTTPResponse) -> Failed:
        kind = "client" if response.status < 500 else "server"
        said = response.read(MAX_ORIGINAL).decode("utf-8", "replace")
        return Failed(f'Received {kind} error ({response.status}) from {self._container} with message "{said}".')

    def _own(self, bucket: str) -> None:
        if self._objects.bucket(bucket).account != self._job.account:
            raise AwsError("AccessDenied", "Access Denied", status=403)

    def fail(self, text: str) -> None:
        """Writes the failure object, where one was asked for. Raises AwsError, OSError."""
        if self._job.failure:
            bucket, key = split(self._job.failure)
            self._own(bucket)
            self._objects.put(bucket, key, [text.encode()], content_type="text/plain")


def split(url: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URL."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key
