"""The disk fills while a model is unpacked: the replica fails with that reason, and what was written is gone."""

from __future__ import annotations

import asyncio
import errno
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from penstock.config import Paths
from penstock.placement import artifacts
from penstock.placement.further import FurtherModels
from penstock.placement.process import ProcessPlacement
from tests.replicas import QUICK, Objects, archive, model_data, spec, until_state


class _Full(io.RawIOBase):
    """A file on a disk with room for one write."""

    def __init__(self) -> None:
        self._room = 1

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= 1
        return 1024 * 1024


async def test_a_full_disk_is_the_reason_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects({"b/model.tar.gz": archive(("small", b"x"), ("big", bytes(5 << 20)))})
    placement = ProcessPlacement(Paths(tmp_path), objects, probing=QUICK)
    real = open

    def opened(file: int, mode: str) -> BinaryIO | _Full:
        target = real(file, mode)
        assert mode == "wb"
        if "big" in str(list((tmp_path / "replicas").glob("*/model/*"))):
            target.close()
            return _Full()
        return target  # type: ignore[return-value]

    monkeypatch.setattr(artifacts, "open", opened, raising=False)
    s = spec(model_data=model_data())
    await placement.start(s)
    status = await until_state(placement, s.id, "failed")
    assert status.reason == (
        'Failed to download model data for container "container_1" from URL: "s3://b/model.tar.gz". No space left on device.'
    )
    assert not list((tmp_path / "replicas").iterdir())
    await placement.close()


async def test_of_a_further_model_nothing_is_left_and_the_next_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects({"b/model.tar.gz": archive(("small", b"x"), ("big", bytes(5 << 20)))})
    real, full = open, [True]

    def opened(file: int, mode: str) -> BinaryIO | _Full:
        target = real(file, mode)
        if full[0] and list(tmp_path.glob("*/model.part/big")):
            target.close()
            return _Full()
        return target  # type: ignore[return-value]

    monkeypatch.setattr(artifacts, "open", opened, raising=False)
    with ThreadPoolExecutor(2) as threads:
        further = FurtherModels(tmp_path, objects, threads, threads)
        with pytest.raises(artifacts.NotStored, match="No space left on device"):
            await further.add("n", model_data())
        assert not await asyncio.to_thread(os.listdir, tmp_path)
        full[0] = False
        place = await further.add("n", model_data())
        assert sorted(await asyncio.to_thread(os.listdir, place)) == ["big", "small"]
        await further.close()
