"""Models that are fetched for a replica while it runs: whole, or not there at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from penstock.placement.artifacts import ArtifactError, NotThere
from penstock.placement.base import ModelData
from penstock.placement.further import FurtherModels
from tests.replicas import Objects, archive
from tests.waiting import until_async

OBJECTS = {
    "b/m.tar.gz": archive(("config.json", b"{}"), ("weights/w", b"w" * 100)),
    "b/torn.tar.gz": archive(("config.json", b"{}"))[:-20],
    "b/up.tar.gz": archive(("fine", b"x"), ("../../up", b"x")),
    "b/dir/one": b"1",
}


class Held(Objects):
    """Reads wait until they may go on."""

    def __init__(self) -> None:
        super().__init__(OBJECTS)
        self.reading, self.go_on = threading.Event(), threading.Event()

    def open(self, bucket: str, key: str) -> BinaryIO:
        self.reading.set()
        assert self.go_on.wait(10)
        return super().open(bucket, key)

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        return super().keys(bucket, prefix)


@asynccontextmanager
async def further(directory: Path, objects: Objects) -> AsyncIterator[FurtherModels]:
    with ThreadPoolExecutor(4) as threads:
        models = FurtherModels(directory, objects, threads, threads)
        yield models
        await models.close()


def packed(url: str) -> ModelData:
    return ModelData(url, "tar.gz")


async def test_a_model_is_unpacked_and_read_only(tmp_path: Path) -> None:
    async with further(tmp_path / "models", Objects(OBJECTS)) as models:
        place = Path(await models.add("n", packed("s3://b/m.tar.gz")))
        assert place == tmp_path / "models" / "n" / "model"
        assert (place / "weights" / "w").read_bytes() == b"w" * 100
        assert not (await asyncio.to_thread(place.stat)).st_mode & 0o222
        await models.remove("n")
        assert list((tmp_path / "models").iterdir()) == []


async def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    objects = Objects(OBJECTS)
    async with further(tmp_path / "models", objects) as models:
        place = await models.add("n", packed("s3://b/m.tar.gz"))
        assert await models.add("n", packed("s3://b/none.tar.gz")) == place


async def test_objects_below_a_prefix(tmp_path: Path) -> None:
    async with further(tmp_path / "models", Objects(OBJECTS)) as models:
        place = Path(await models.add("n", ModelData("s3://b/dir/", "prefix")))
        assert (place / "one").read_bytes() == b"1"
        with pytest.raises(NotThere):
            await models.add("o", ModelData("s3://b/none/", "prefix"))


@pytest.mark.parametrize("name", ["none", "torn", "up"])
async def test_nothing_is_left_of_what_failed(tmp_path: Path, name: str) -> None:
    async with further(tmp_path / "models", Objects(OBJECTS)) as models:
        with pytest.raises(ArtifactError):
            await models.add("n", packed(f"s3://b/{name}.tar.gz"))
        assert list((tmp_path / "models").iterdir()) == []
        assert not (tmp_path / "up").exists()


async def test_cancelled_it_returns_when_nothing_is_left(tmp_path: Path) -> None:
    objects = Held()
    async with further(tmp_path / "models", objects) as models:
        adding = asyncio.create_task(models.add("n", packed("s3://b/m.tar.gz")))
        await until_async(objects.reading.is_set)
        adding.cancel()
        await asyncio.sleep(0)
        assert not adding.done()
        objects.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert list((tmp_path / "models").iterdir()) == []


async def test_close_ends_what_goes_on(tmp_path: Path) -> None:
    objects = Held()
    async with further(tmp_path / "models", objects) as models:
        adding = asyncio.create_task(models.add("n", packed("s3://b/m.tar.gz")))
        await until_async(objects.reading.is_set)
        closing = asyncio.create_task(models.close())
        await asyncio.sleep(0)
        objects.go_on.set()
        await closing
        with pytest.raises(KeyError):
            await adding
        with pytest.raises(KeyError):
            await models.add("o", packed("s3://b/m.tar.gz"))
        assert list((tmp_path / "models").iterdir()) == []
