"""Requests that wait for their inference, on disk.

Owns the directory `Paths.asynchronous`: a job is there from before its 202 until its result is in S3, through restarts. It must never run
one. All of it blocks: call it in a thread.
"""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Times are epoch seconds; locations are `s3://` URLs; `failure` may be empty. Headers go to the container."""

    id: str
    inference_id: str
    account: str
    region: str
    endpoint: str
    received: float
    expires: float
    timeout_s: float
    concurrency: int
    """Requests in flight per replica."""
    output: str
    failure: str = ""
    input: str = ""
    """Empty where the body came with the request: then it lies beside the job."""
    headers: dict[str, str] = {}


_decode = msgspec.json.Decoder(Job).decode


class Jobs:
    """The directory of jobs; `prepare` it before all else."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> list[Job]:
        """Makes the directory, clears away what a killed server left half-written, and returns the jobs that wait, oldest first."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = []
        known = {path.stem for path in self.root.glob("*.json")}
        for path in self.root.iterdir():
            if path.suffix == ".json":
                try:
                    found.append(_decode(path.read_bytes()))
                except msgspec.MsgspecError as error:
                    log.error("an asynchronous request that can't be read is left out: %s: %s", path, error)
            elif path.stem not in known:
                path.unlink(missing_ok=True)
        return sorted(found, key=lambda job: (job.received, job.id))

    def add(self, job: Job, body: bytes) -> None:
        """Keeps a job for good: body first, so that a job that is there is whole. Raises OSError, and then nothing is there."""
        try:
            if not job.input:
                self._write(self.body(job), body)
            self._write(self.root / f"{job.id}.json", msgspec.json.encode(job))
        except OSError:
            self.remove(job)
            raise

    def body(self, job: Job) -> Path:
        return self.root / f"{job.id}.body"

    def remove(self, job: Job) -> None:
        (self.root / f"{job.id}.json").unlink(missing_ok=True)
        self.body(job).unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes) -> None:
        fresh = path.with_suffix(f".{secrets.token_hex(4)}")
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
