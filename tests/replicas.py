"""Replicas for tests: an object store in memory, archives, specs, placements of real processes, and what is left of them."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from penstock.images import resolve
from penstock.placement.base import ModelData, Placement, ReplicaSpec, ReplicaState, ReplicaStatus
from penstock.placement.health import Probing

ROOT = Path(__file__).parents[1]
PYTHONPATH = f"{ROOT / 'src'}:{ROOT}"
"""What a program that tests start needs in order to import the package and the tests."""

QUICK = Probing(first_s=0.01, longest_s=0.05, period_s=0.05)
WHO = ("123456789012", "us-east-1", "falcon")

_numbers = itertools.count(1)


class Objects:
    """An object store in memory."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self._objects = dict(objects)

    def open(self, bucket: str, key: str) -> BinaryIO:
        try:
            return io.BytesIO(self._objects[f"{bucket}/{key}"])
        except KeyError:
            raise FileNotFoundError(key) from None

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        whole = f"{bucket}/{prefix}"
        return iter(sorted(name.removeprefix(f"{bucket}/") for name in self._objects if name.startswith(whole)))


def archive(*members: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def spec(script: Mapping[str, Any] | None = None, **given: Any) -> ReplicaSpec:
    """A replica of the scripted server, or of what `given` says."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "id": f"r{number}",
        "epoch": number,
        "account": WHO[0],
        "region": WHO[1],
        "endpoint": WHO[2],
        "variant": "AllTraffic",
        "instance_id": f"i-{number:017x}",
        "image": resolve("penstock/scripted"),
        "environment": {} if script is None else {"PENSTOCK_SCRIPT": json.dumps(script)},
        "startup_timeout_s": 30.0,
    }
    return ReplicaSpec(**(values | given))


def model_data(url: str = "s3://b/model.tar.gz") -> ModelData:
    return ModelData(url, "tar.gz")


async def until_state(
    placement: Placement, replica_id: str, *states: ReplicaState, deadline_s: float = 30.0
) -> ReplicaStatus:
    """The replica's status once it is in one of `states`, told by `changed` and nothing else."""
    async with asyncio.timeout(deadline_s):
        while True:
            for status in placement.observe():
                if status.id == replica_id and status.state in states:
                    return status
            await placement.changed()


async def post(status: ReplicaStatus, body: bytes, *, headers: str = "") -> bytes:
    """The whole answer, head and chunks as they are, of an invocation on a connection of its own."""
    reader, writer = await asyncio.open_connection(status.host, status.port)
    try:
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        writer.write(head.encode() + body)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


def alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
