"""The disk of the database is full: a clear error, nothing half-written, what runs goes on, and all is well when there is room again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from penstock.placement.null import NullPlacement
from tests.control_plane import ROLE, ControlPlane, control_plane
from tests.small_disk import small_disk
from tests.waiting import until_async


@pytest.fixture(name="small_disk")
def _small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of one megabyte."""
    with small_disk(tmp_path / "disk", "1m") as place:
        yield place


def fill(place: Path) -> Path:
    """Take the last byte."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def served(plane: ControlPlane) -> list[str]:
    return [r.id for e in plane.table.table.endpoints for v in e.variants for r in v.replicas]


async def until_full(plane: ControlPlane) -> int:
    """Create models until one is refused; its number. What the write-ahead log had room for already still goes."""
    for i in range(200):
        try:
            await plane.call("create_model", ModelName=f"m{i}", PrimaryContainer={"Image": "x" * 200})
        except ClientError as error:
            answer = error.response
            break
    else:
        raise AssertionError("the disk was never full")
    assert answer["Error"]["Code"] == "ServiceUnavailable"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert "Free some space" in answer["Error"]["Message"]
    return i


async def test_a_full_disk_is_said_and_survived(small_disk: Path) -> None:
    placement = NullPlacement()
    async with control_plane(small_disk, placement) as plane:
        await plane.deploy()
        await plane.until("e", "InService")
        (old,) = served(plane)
        filler = fill(small_disk)
        refused = await until_full(plane)
        assert "Could not find" in await plane.refused("describe_model", ModelName=f"m{refused}")
        placement.exit(old)
        await until_async(lambda: served(plane) == [], what="a dead replica leaves the table, written or not")
        assert (await plane.call("describe_endpoint", EndpointName="e"))["EndpointStatus"] == "InService"
        filler.unlink()
        await until_async(lambda: served(plane) not in ([], [old]), what="replaced once there is room")
        await plane.call(
            "create_model", ModelName=f"m{refused}", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "x"}
        )
    async with control_plane(small_disk, NullPlacement()) as plane:
        assert (await plane.call("describe_model", ModelName=f"m{refused}"))["ModelName"] == f"m{refused}"
        await plane.until("e", "InService")
