"""Readers: bytes/s of `penstock.client`, side by side with what programs use in its place, on the same parts in one run.

Both sides of a ratio run one after the other, several times, in CPU time, so that a busy machine slows both. The peers: the line
iterator that AWS's streaming examples spread (`BlogLineIterator`, the same steps in our words), alone and with `json.loads` behind it,
and httpx-sse, which needs the extra `dev`.
"""

from __future__ import annotations

import io
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

from penstock.bench.report import Figure, Result
from penstock.client import iter_json, iter_lines, iter_sse, iter_tokens

PAIRS = 9
SEED = 20261123
MEGABYTE = 1_000_000
WORDS = ("stream", " of", " tokens", ",", " größer", " als", "日本語", " 🙂", " the", " and", " river", ".")

Part = dict[str, dict[str, bytes]]
Job = Callable[[], object]


class BlogLineIterator:
    """The steps of the announcement's sample: a buffer that keeps all, and a seek and a readline for each look at it."""

    def __init__(self, stream: Iterable[Part]) -> None:
        self._events = iter(stream)
        self._buffer = io.BytesIO()
        self._position = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while True:
            self._buffer.seek(self._position)
            line = self._buffer.readline()
            if line and line[-1] == ord("\n"):
                self._position += len(line)
                return line[:-1]
            event = next(self._events)
            if "PayloadPart" not in event:
                continue
            self._buffer.seek(0, io.SEEK_END)
            self._buffer.write(event["PayloadPart"]["Bytes"])


def run() -> Result:
    """All pairs, one after another."""
    lmi, tgi = _content(_lmi_line), _content(_tgi_event)
    lines, events = _events(lmi), _events(tgi)
    packets, sliced, pieces = _events(_sliced(lmi, 1400)), _events(_sliced(lmi, 64)), list(tgi)
    figures = [
        *_pair("lines", "blog", _all(iter_lines, packets), _all(BlogLineIterator, packets), lmi, "≥ 3"),
        *_pair("lines_64", "blog", _all(iter_lines, sliced), _all(BlogLineIterator, sliced), lmi),
        *_pair("lines_token", "blog", _all(iter_lines, lines), _all(BlogLineIterator, lines), lmi),
        *_pair("json", "blog", _all(iter_json, lines), lambda: _count(map(json.loads, BlogLineIterator(lines))), lmi),
        *_pair("tokens", "blog", _all(iter_tokens, lines), lambda: _blog_tokens(lines), lmi),
        *_pair("tokens_tgi", "blog", _all(iter_tokens, events), lambda: _blog_tgi_tokens(events), tgi),
        *_pair("sse", "httpx_sse", _all(iter_sse, pieces), lambda: _count(_httpx_sse(pieces)), tgi),
        _growth(sliced),
    ]
    return Result(
        "readers",
        "Readers",
        figures,
        (
            f"CPU time, {PAIRS} pairs, 1 MB each. `lines` comes in parts of up to 1,400 bytes that end anywhere, as a network "
            "cuts a stream; `lines_64` in parts of up to 64 bytes; all others, `lines_token` among them, one token a part, where "
            f"the cost of a part and not of a line decides (seed {SEED}). Content: LMI's JSON lines; TGI's events for `tokens_tgi` "
            "and `sse`. `blog` is the line iterator of AWS's streaming examples in our words; for `json` and `tokens` with "
            "`json.loads` behind it, which checks nothing and keeps no text for an error. `lines_growth` is the time a byte at "
            "100 MB over that at 1 MB, on `lines_64`.",
        ),
    )


def _pair(
    name: str, peer: str, ours: Job, theirs: Job, content: Sequence[bytes], target: str = ""
) -> tuple[Figure, Figure]:
    """Our MB/s, and how many times the peer's speed that is."""
    size = sum(map(len, content)) / MEGABYTE
    speeds, ratios = [], []
    ours(), theirs()
    for _ in range(PAIRS):
        mine, other = _seconds(ours), _seconds(theirs)
        speeds.append(size / mine)
        ratios.append(other / mine)
    print(f"{name}: {statistics.median(speeds):.0f} MB/s, {statistics.median(ratios):.2f} times {peer}", flush=True)
    return (
        Figure(f"{name}_mb_s", "MB/s", tuple(speeds)),
        Figure(f"{name}_vs_{peer}", "times", tuple(ratios), target),
    )


def _growth(parts: list[Part]) -> Figure:
    """Time a byte of a long stream over that of short ones, as many bytes of each."""
    ratios = []
    short, long = _all(iter_lines, parts), _all(iter_lines, _repeated(parts, 100))
    for _ in range(PAIRS // 2):
        before = sum(_seconds(short) for _ in range(50))
        whole = _seconds(long)
        ratios.append(whole / (before + sum(_seconds(short) for _ in range(50))))
    print(f"lines_growth: {statistics.median(ratios):.3f}", flush=True)
    return Figure("lines_growth", "times", tuple(ratios), "≤ 1.1 from 1 MB to 100 MB")


class _repeated(Iterable[Part]):
    """The same parts so many times over, without holding them so many times."""

    def __init__(self, parts: list[Part], times: int) -> None:
        self._parts, self._times = parts, times

    def __iter__(self) -> Iterator[Part]:
        return chain.from_iterable(repeat(self._parts, self._times))


def _seconds(job: Job) -> float:
    begin = time.process_time()
    job()
    return time.process_time() - begin


def _all(reader: Callable[[Any], Iterable[object]], parts: Iterable[object]) -> Job:
    return lambda: _count(reader(parts))


def _count(items: Iterable[object]) -> int:
    count = 0
    for _ in items:
        count += 1
    return count


def _blog_tokens(parts: list[Part]) -> int:
    return _count(json.loads(line)["outputs"][0] for line in BlogLineIterator(parts))


def _blog_tgi_tokens(parts: list[Part]) -> int:
    return _count(json.loads(line[5:])["token"]["text"] for line in BlogLineIterator(parts) if line)


def _httpx_sse(pieces: list[bytes]) -> Iterator[Any]:
    import httpx
    from httpx_sse import EventSource

    return EventSource(
        httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(pieces))
    ).iter_sse()


def _content(write: Callable[[int, str], bytes]) -> list[bytes]:
    """1 MB, one token an item."""
    words = random.Random(SEED)  # noqa: S311 - the same content in every run
    content: list[bytes] = []
    size = 0
    while size < MEGABYTE:
        content.append(write(len(content), words.choice(WORDS)))
        size += len(content[-1])
    return content


def _lmi_line(_: int, word: str) -> bytes:
    return json.dumps({"outputs": [word]}).encode() + b"\n"


def _tgi_event(number: int, word: str) -> bytes:
    """Each is an answer's last, so that the stream may end anywhere."""
    token = {"id": number, "text": word, "logprob": -0.5, "special": False}
    event = {"token": token, "generated_text": "", "details": None}
    return b"data:" + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _sliced(content: Sequence[bytes], most: int) -> Iterator[bytes]:
    """Parts of 1 to `most` bytes that end anywhere."""
    whole, at, lengths = b"".join(content), 0, random.Random(SEED)  # noqa: S311 - the same borders in every run
    while at < len(whole):
        length = lengths.randint(1, most)
        yield whole[at : at + length]
        at += length


def _events(pieces: Iterable[bytes]) -> list[Part]:
    return [{"PayloadPart": {"Bytes": piece}} for piece in pieces]
