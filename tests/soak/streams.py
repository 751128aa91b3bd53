"""Streams whose content proves itself, and the clients that read them: well, slowly, half, or not at all.

Owns the container's script, the ways of clients, and the tally of what went wrong. It must never start a gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from penstock.config import Limits
from penstock.wire.eventstream import Decoder, FrameError
from tests.wire.gateway_fixture import House, Seen, Wire
from tests.wire.raw import signed

PATH = "/endpoints/ep/invocations-response-stream"
ANSWER_S = 90.0
"""Longest that one stream may take before it counts as hung."""


def parts(seed: int, count: int, largest: int) -> Iterator[bytes]:
    """A stream's parts: of random bytes and lengths, the last one the SHA-256 of all before it."""
    rng, digest = Random(seed), hashlib.sha256()
    for _ in range(count):
        part = rng.randbytes(rng.randint(1, largest))
        digest.update(part)
        yield part
    yield digest.hexdigest().encode()


async def container(request: Seen, wire: Wire) -> None:
    """Streams what the body asks for; with `dies_after` it breaks off there, in the middle of a chunk or between two."""
    asked = json.loads(request.body)
    await wire.begin_chunks()
    for number, part in enumerate(parts(asked["seed"], asked["count"], asked["largest"])):
        if number == asked.get("dies_after"):
            if asked["seed"] % 2:
                await wire.send(b"400\r\nhalf a chunk")
            wire.writer.close()
            return
        await wire.chunk(part)
        await asyncio.sleep(asked["pace_s"])
    await wire.end_chunks()


@dataclass
class Tally:
    """What has happened. `wrong` holds a line for each stream that was not what it must be."""

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    bytes: int = 0


class _Answer:
    """One response, read chunk by chunk; `messages` checks both checksums of each frame."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._decoder = Decoder()
        self.status = 0
        self.clean = False
        """Whether the HTTP body has ended as HTTP wants it."""

    async def head(self) -> None:
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.status = int(head[9:12])

    async def messages(self) -> list[tuple[str, bytes]]:
        """The next chunk's messages, (kind, payload); none at the end of the body."""
        size = int(await self._reader.readline(), 16)
        data = (await self._reader.readexactly(size + 2))[:-2]
        if size == 0:
            self._decoder.finish()
            self.clean = True
            return []
        found = []
        for message in self._decoder.feed(data):
            kind = message.headers.get(":exception-type") or message.headers[":event-type"]
            found.append((str(kind), message.payload))
        return found


class Abuse:
    """Clients of one gateway until a moment comes. Each `client` runs streams of random kinds, one after another."""

    def __init__(self, house: House, rng: Random, until: float, pace_s: float) -> None:
        self.tally = Tally()
        self._house = house
        self._rng = rng
        self._until = until
        self._pace_s = pace_s
        self._kinds: dict[str, Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = {
            "reads": self._reads,
            "stalls": self._reads,
            "trickles": self._reads,
            "meets death": self._reads,
            "leaves": self._reads,
            "sends garbage": self._garbage,
        }

    async def client(self, begin_s: float) -> None:
        """Streams one after another, the first after `begin_s`."""
        await asyncio.sleep(begin_s)
        while time.monotonic() < self._until:
            kind = self._rng.choices([*self._kinds], weights=(8, 2, 2, 2, 3, 2))[0]
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._one(kind)
                self.tally.done[kind] += 1
            except TimeoutError:
                self.tally.wrong.append(f"{kind}: nothing more came for {ANSWER_S:g} s")
            except (OSError, asyncio.IncompleteReadError, FrameError, ValueError) as error:
                self.tally.wrong.append(f"{kind}: {type(error).__name__} {error}")

    async def _one(self, kind: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._house.ports["http"])
        try:
            await self._kinds[kind](kind, reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _reads(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rng = self._rng
        stalls, seed = kind == "stalls", rng.getrandbits(32)
        count, largest = (rng.randint(40, 80), 20_000) if stalls else (rng.randint(3, 40), 1500)
        asked = {
            "seed": seed,
            "count": count,
            "largest": largest,
            "pace_s": 0 if stalls else self._pace_s,
        }
        dies_after = rng.randrange(1, count) if kind == "meets death" else None
        if dies_after is not None:
            asked["dies_after"] = dies_after
        request = signed(self._house, PATH, json.dumps(asked).encode())
        begun = time.monotonic()
        try:
            await self._send(writer, request, slowly=kind == "trickles")
        except ConnectionError:
            # On a machine with other work even this process is late, and who takes longer than the gateway waits is cut off.
            if time.monotonic() - begun < Limits().header_timeout_s:
                raise
            self.tally.refused[f"cut off {kind}"] += 1
            return
        answer = _Answer(reader)
        await answer.head()
        if answer.status != 200:
            self.tally.refused[f"{answer.status} {kind}"] += 1
            return
        expected = list(parts(seed, count, largest))
        leaves_after = rng.randrange(count) if kind == "leaves" else None
        await self._compare(kind, answer, expected, stalls=stalls, dies_after=dies_after, leaves_after=leaves_after)

    async def _compare(
        self,
        kind: str,
        answer: _Answer,
        expected: list[bytes],
        *,
        stalls: bool,
        dies_after: int | None,
        leaves_after: int | None,
    ) -> None:
        got = 0
        ended_by = ""
        while not answer.clean:
            for name, payload in await answer.messages():
                if name != "PayloadPart":
                    ended_by = name
                elif ended_by or got >= len(expected) or payload != expected[got]:
                    self.tally.wrong.append(f"{kind}: part {got} is not what was sent")
                    return
                else:
                    got += 1
                    self.tally.bytes += len(payload)
            if leaves_after is not None and got > leaves_after:
                return
            if stalls and got == len(expected) // 2:
                await asyncio.sleep(self._rng.uniform(1, 4))
        if dies_after is None and (ended_by or got != len(expected)):
            self.tally.wrong.append(f"{kind}: {got} of {len(expected)} parts, then {ended_by or 'a clean end'}")
        if dies_after is not None and (ended_by != "ModelStreamError" or got != dies_after):
            self.tally.wrong.append(
                f"{kind}: died after {dies_after}, {got} parts, then {ended_by or 'a false clean end'}"
            )

    async def _send(self, writer: asyncio.StreamWriter, request: bytes, *, slowly: bool) -> None:
        step = max(1, len(request) // 12) if slowly else len(request)
        for at in range(0, len(request), step):
            writer.write(request[at : at + step])
            await writer.drain()
            if slowly:
                await asyncio.sleep(self._rng.uniform(0.01, 0.3))

    async def _garbage(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Noise, or a request with noise in it: whatever the answer, it is no stream, and the connection ends."""
        rng = self._rng
        request = bytearray(signed(self._house, PATH, b'{"seed": 1, "count": 1, "largest": 1, "pace_s": 0}'))
        if rng.random() < 0.5:
            request = bytearray(rng.randbytes(rng.randint(1, 3000)))
        else:
            at = request.index(b"X-Amz-Date: ") + 12  # under the signature: no change there can be let in
            request[at : at + 8] = rng.randbytes(8)
        try:
            writer.write(bytes(request))
            writer.write_eof()
            heard = await reader.read()
        except ConnectionError:
            return  # refused so early that its answer was lost
        if heard.startswith(b"HTTP/1.1 2") or b" 500 " in heard[:20]:
            self.tally.wrong.append(f"{kind}: {bytes(request[:80])!r} was answered {heard[:80]!r}")
