"""Answers of a rolling batch whose engine stops talking in the middle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.servers.generation import Prefill, TextToken
from penstock.servers.lmi.errors import StreamBroken, Untranslatable
from penstock.servers.lmi.formatters import Asked, Json28, JsonLines28, Make
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.lmi.text import Pieces, RollingBatch


class Silent:
    """One token, and then nothing more; `closed` once the generation has been ended."""

    def __init__(self) -> None:
        self.closed = False

    async def steps(self) -> AsyncGenerator[Prefill | TextToken, None]:
        try:
            yield TextToken(1, "a", -0.5, False)
            await asyncio.Event().wait()
        finally:
            self.closed = True


async def answer(make: Make, engine: Silent) -> Any:
    settings = ModelSettings(name="m", directory=Path(), version=(0, 28), chunk_timeout_s=1)
    model = RollingBatch(settings, cast(Any, None), random.Random(1))
    return await model._answer(make, Asked(), engine.steps())


async def test_a_whole_answer_that_stops_is_an_error_and_not_half_an_answer() -> None:
    engine = Silent()
    with pytest.raises(Untranslatable, match="no token for 1 s"):
        await answer(Json28, engine)
    assert engine.closed


async def test_a_stream_that_stops_is_cut() -> None:
    engine = Silent()
    pieces: Pieces = (await answer(JsonLines28, engine)).body
    assert await anext(pieces) == b'{"token": {"id": 1, "text": "a", "log_prob": -0.5}}\n'
    with pytest.raises(StreamBroken, match="no token for 1 s"):
        await anext(pieces)
    await pieces.aclose()
    assert engine.closed
