"""Two thousand streams for ten minutes among clients that stall, leave, trickle and send garbage.

`PENSTOCK_SOAK_STREAMS` (2000), `PENSTOCK_SOAK_MINUTES` (10) and `PENSTOCK_SOAK_PACE_S` (1.0, between two parts) set the scale.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import time
from random import Random

import psutil
import pytest

from penstock.routes import Variant
from tests.soak.streams import Abuse, container
from tests.waiting import until
from tests.wire.gateway_fixture import House, answering

STREAMS = int(os.environ.get("PENSTOCK_SOAK_STREAMS", "2000"))
SECONDS = float(os.environ.get("PENSTOCK_SOAK_MINUTES", "10")) * 60
PACE_S = float(os.environ.get("PENSTOCK_SOAK_PACE_S", "1.0"))
SAMPLE_S = 1.0
MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def _descriptors() -> None:
    """Each stream is two sockets in the gateway and two here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4 * STREAMS + 500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * STREAMS + 500), hard))


async def _abuse(house: House, rng: Random) -> tuple[Abuse, list[int]]:
    """Runs all clients; the gateway's resident bytes, sample by sample."""
    process = psutil.Process(house.pid)
    abuse = Abuse(house, rng, time.monotonic() + SECONDS, PACE_S)
    memory: list[int] = []

    async def watch() -> None:
        while True:
            memory.append(process.memory_info().rss)
            await asyncio.sleep(SAMPLE_S)

    watching = asyncio.create_task(watch())
    ramp_s = min(SECONDS / 10, STREAMS / 200)
    async with asyncio.TaskGroup() as group:
        for number in range(STREAMS):
            group.create_task(abuse.client(ramp_s * number / STREAMS))
    watching.cancel()
    return abuse, memory


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_streams_under_abuse(house: House, rng: Random, capsys: pytest.CaptureFixture[str]) -> None:
    replica = house.replica(answering(container))
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
    process = psutil.Process(house.pid)
    descriptors = process.num_fds()
    abuse, memory = asyncio.run(_abuse(house, rng))
    tally = abuse.tally
    quarter = len(memory) // 4
    warm, late = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter - 5 : -5])
    with capsys.disabled():
        print(
            f"\n{STREAMS} streams at once, {SECONDS:g} s: {sum(tally.done.values())} done {dict(tally.done)}, "
            f"{tally.bytes / 1e6:.1f} MB checked, refused {dict(tally.refused)}, wrong {len(tally.wrong)}; "
            f"gateway {warm / MEBIBYTE:.1f} MiB warm, {late / MEBIBYTE:.1f} MiB late"
        )
    assert not tally.wrong, tally.wrong[:20]
    assert sum(tally.refused.values()) <= sum(tally.done.values()) / 100
    assert late <= warm * 1.05 + 4 * MEBIBYTE
    until(lambda: process.num_fds() <= descriptors + 2, deadline_s=30, what="descriptors back")
    until(lambda: replica.open == 0, deadline_s=30, what="connections to the container closed")
    assert "Traceback" not in house.log()
