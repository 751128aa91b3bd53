"""The log store: what replicas wrote to stdout and stderr, as CloudWatch-like groups, streams and events.

Owns the files below `Paths.logs` and their reading: plain functions over files, blocking (call them in a thread from an event loop), safe
while another process writes. It must never know a wire protocol, nor who reads; writing is `logsink.py`'s.

A group is an endpoint (`/aws/sagemaker/Endpoints/NAME`) or an inference component (`/aws/sagemaker/InferenceComponents/NAME`), a stream is
a replica (`VARIANT/INSTANCE-ID`, and `/CONTAINER` where there are several), as SageMaker names them (AWS: "Log groups and streams that
Amazon SageMaker AI logs"). Here a group is called by its endpoint's name, or `component.NAME`: names have no dots. On disk a stream is the
directory `logs/ACCOUNT/REGION/GROUP/VARIANT/INSTANCE-ID` (`…+CONTAINER`) of segments, each named by the position at which it begins; an
event is a line of JSON in one. A position counts the bytes ever written to the stream: it stays true when old segments are dropped.
"""

from __future__ import annotations

import re
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Literal

import msgspec

Output = Literal["stdout", "stderr"]

ENDPOINTS = "/aws/sagemaker/Endpoints/"
COMPONENTS = "/aws/sagemaker/InferenceComponents/"
FOREVER_MS = 1 << 62
_TAIL_BYTES = 256 * 1024

_COMPONENT = "component."
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SEGMENT = "{:020d}.jsonl"


class Line(msgspec.Struct, frozen=True):
    """An event as it lies in a segment: milliseconds since 1970, the output it came from, its text without the line's end."""

    t: int
    o: Output
    m: str


@dataclass(frozen=True, slots=True)
class LogGroup:
    """An endpoint's or a component's logs. They outlive it; one of the same name continues them."""

    account: str
    region: str
    endpoint: str
    created_ms: int

    @property
    def name(self) -> str:
        return group_name(self.endpoint)


@dataclass(frozen=True, slots=True)
class LogStream:
    """A replica's log. `name` is `VARIANT/INSTANCE-ID[/CONTAINER]`; times are its first and last kept event's, milliseconds, 0 if none."""

    name: str
    first_ms: int
    last_ms: int
    stored_bytes: int
    end: int
    """The position after its last event: read from here for what comes next."""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One line of a replica. Times never run backwards within a stream."""

    timestamp_ms: int
    stream: str
    position: int
    message: str
    output: Output

    @property
    def id(self) -> str:
        """Unique within the group, and rising within a stream."""
        return f"{self.timestamp_ms:013d}-{self.stream}-{self.position}"

    @property
    def mark(self) -> Mark:
        return Mark(self.timestamp_ms, self.stream, self.position)


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in the order of a group's events: by time, then stream, then position. A paging token is one of these."""

    timestamp_ms: int
    stream: str
    position: int


@dataclass(frozen=True, slots=True)
class Page:
    """Events of one stream in order. `start` is the position before the first, `next` the one after the last that was looked at."""

    events: tuple[LogEvent, ...]
    start: int
    next: int


@dataclass(frozen=True, slots=True)
class FilteredPage:
    """Events of a group in order. `after` resumes behind them; None when there were no more."""

    events: tuple[LogEvent, ...]
    after: Mark | None


def group_of_component(name: str) -> str:
    """What an inference component's group is called here."""
    return _COMPONENT + name


def group_name(group: str) -> str:
    """CloudWatch's name of a group."""
    name = group.removeprefix(_COMPONENT)
    return ENDPOINTS + group if name == group else COMPONENTS + name


def group_named(name: str) -> str:
    """The group that CloudWatch calls so. Raises ValueError where it can be none of ours."""
    for prefix, mark in ((ENDPOINTS, ""), (COMPONENTS, _COMPONENT)):
        if name.startswith(prefix) and "." not in name:
            return mark + name.removeprefix(prefix)
    raise ValueError(f"not the name of a log group: {name!r}")


def group_directory(root: Path, account: str, region: str, endpoint: str) -> Path:
    """Where a group lies. Raises ValueError on a name that is no single, plain path part."""
    for part in (account, region, endpoint):
        if not _PART.fullmatch(part):
            raise ValueError(f"not a name that can be part of a log's path: {part!r}")
    return root / account / region / endpoint


def stream_directory(root: Path, account: str, region: str, endpoint: str, stream: str) -> Path:
    """Where the stream `VARIANT/INSTANCE-ID[/CONTAINER]` lies. Raises ValueError as `group_directory` does."""
    parts = stream.split("/")
    if not 2 <= len(parts) <= 3 or not all(map(_PART.fullmatch, parts)):
        raise ValueError(f"not the name of a log stream: {stream!r}")
    return _stream_path(group_directory(root, account, region, endpoint), stream)


def list_groups(root: Path, account: str, region: str, *, prefix: str = "") -> tuple[LogGroup, ...]:
    """The groups whose full name begins with `prefix`, by name."""
    directory = group_directory(root, account, region, "any").parent
    found = [
        LogGroup(account, region, path.name, int(path.stat().st_ctime * 1000))
        for path in _directories(directory)
        if group_name(path.name).startswith(prefix)
    ]
    return tuple(sorted(found, key=attrgetter("name")))


def list_streams(root: Path, account: str, region: str, endpoint: str, *, prefix: str = "") -> tuple[LogStream, ...]:
    """The group's streams whose name begins with `prefix`, by name. Raises FileNotFoundError where there is no such group."""
    group = group_directory(root, account, region, endpoint)
    if not group.is_dir():
        raise FileNotFoundError(group)
    return tuple(_describe(group, name) for name in _stream_names(group, prefix))


def read_forward(
    directory: Path, *, position: int = 0, limit: int = 10_000, start_ms: int = 0, end_ms: int = FOREVER_MS
) -> Page:
    """Up to `limit` events of a stream (`stream_directory`) from `position` on, `start_ms` <= time < `end_ms`.

    A position whose segment is gone, or beyond the end (the group was deleted), means the oldest event that is left. An event is seen
    only once its line is whole. Raises FileNotFoundError where there is no such stream.
    """
    if not directory.is_dir():
        raise FileNotFoundError(directory)
    events: list[LogEvent] = []
    oldest, end = _bounds(directory)
    begin = at = position if oldest <= position <= end else oldest
    for event, after in _scan(directory, at, start_ms):
        if event.timestamp_ms >= end_ms or len(events) >= limit:
            break
        at = after
        if event.timestamp_ms >= start_ms:
            events.append(event)
    return Page(tuple(events), events[0].position if events else begin, at)


def read_backward(
    directory: Path, *, position: int | None = None, limit: int = 10_000, start_ms: int = 0, end_ms: int = FOREVER_MS
) -> Page:
    """The last `limit` events of a stream that lie before `position` (None: the end), oldest first. Otherwise as `read_forward`."""
    if not directory.is_dir():
        raise FileNotFoundError(directory)
    oldest, end = _bounds(directory)
    stop = end if position is None else max(min(position, end), oldest)
    events: list[LogEvent] = []
    for base, path in reversed(_segments(directory)):
        if base >= stop:
            continue
        found = [
            e for e, _ in _segment_events(path, base, base) if e.position < stop and start_ms <= e.timestamp_ms < end_ms
        ]
        events[:0] = found[max(0, len(found) - (limit - len(events))) :]
        if len(events) >= limit:
            break
    return Page(tuple(events), events[0].position if events else stop, stop)


def filter_events(
    root: Path,
    account: str,
    region: str,
    endpoint: str,
    *,
    prefix: str = "",
    streams: tuple[str, ...] = (),
    start_ms: int = 0,
    end_ms: int = FOREVER_MS,
    after: Mark | None = None,
    limit: int = 10_000,
    matches: Callable[[str], bool] = lambda message: True,
) -> FilteredPage:
    """Up to `limit` events of a group's streams in order of time, `start_ms` <= time < `end_ms`, whose message `matches`.

    `streams` takes just those, `prefix` those whose name begins so; `after` is the last page's. Raises FileNotFoundError where there is
    no such group.
    """
    group = group_directory(root, account, region, endpoint)
    if not group.is_dir():
        raise FileNotFoundError(group)
    since = max(start_ms, after.timestamp_ms) if after else start_ms

    def wanted(name: str) -> Iterator[LogEvent]:
        for event, _ in _scan(_stream_path(group, name), 0, since):
            if event.timestamp_ms >= end_ms:
                return
            if event.timestamp_ms >= since and (after is None or event.mark > after) and matches(event.message):
                yield event

    ordered = merge(
        *(wanted(n) for n in _stream_names(group, prefix) if not streams or n in streams), key=attrgetter("mark")
    )
    found = tuple(islice(ordered, limit + 1))
    return FilteredPage(found[:limit], found[limit - 1].mark if len(found) > limit else None)


def _pause() -> bool:
    time.sleep(0.2)
    return True


def follow(
    root: Path,
    account: str,
    region: str,
    endpoint: str,
    *,
    prefix: str = "",
    last: int | None = None,
    wait: Callable[[], bool] = _pause,
) -> Iterator[LogEvent]:
    """The group's events, then those that come, of streams that appear later as well. Ends when `wait` returns False.

    `last` begins with so many of the newest events (None: all). A group that does not exist yet is waited for.
    """
    group = group_directory(root, account, region, endpoint)
    positions: dict[str, int] = {}
    if last is not None and group.is_dir():
        recent: list[LogEvent] = []
        for name in _stream_names(group, prefix):
            page = read_backward(_stream_path(group, name), limit=last)
            positions[name] = page.next
            recent += page.events
        yield from sorted(recent, key=attrgetter("mark"))[max(0, len(recent) - last) :]
    while True:
        fresh: list[LogEvent] = []
        for name in _stream_names(group, prefix):
            try:
                page = read_forward(_stream_path(group, name), position=positions.get(name, 0), limit=1000)
            except FileNotFoundError:
                continue
            positions[name] = page.next
            fresh += page.events
        yield from sorted(fresh, key=attrgetter("mark"))
        if not fresh and not wait():
            return


def delete_group(root: Path, account: str, region: str, endpoint: str) -> None:
    """Remove an endpoint's logs. Raises FileNotFoundError where there are none. A replica that still runs begins them anew."""
    shutil.rmtree(group_directory(root, account, region, endpoint))


def delete_stream(root: Path, account: str, region: str, endpoint: str, stream: str) -> None:
    """Remove one stream. Raises FileNotFoundError where there is none."""
    shutil.rmtree(stream_directory(root, account, region, endpoint, stream))


def segment_path(directory: Path, base: int) -> Path:
    """The segment of a stream's directory that begins at position `base`."""
    return directory / _SEGMENT.format(base)


def segments(directory: Path) -> list[tuple[int, Path]]:
    """A stream's segments, oldest first, each with the position at which it begins."""
    return _segments(directory)


_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


def encode(line: Line) -> bytes:
    return _encode(line) + b"\n"


def _directories(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []


def _stream_path(group: Path, name: str) -> Path:
    variant, _, rest = name.partition("/")
    return group / variant / rest.replace("/", "+")


def _stream_name(directory: Path) -> str:
    return f"{directory.parent.name}/{directory.name.replace('+', '/')}"


def _stream_names(group: Path, prefix: str) -> list[str]:
    names = [_stream_name(path) for variant in _directories(group) for path in _directories(variant)]
    return sorted(name for name in names if name.startswith(prefix))


def _segments(directory: Path) -> list[tuple[int, Path]]:
    found = [(int(p.stem), p) for p in directory.glob("*.jsonl") if p.stem.isdecimal()]
    return sorted(found)


def _bounds(directory: Path) -> tuple[int, int]:
    """The positions of the oldest byte that is left, and after the last."""
    found = _segments(directory)
    if not found:
        return 0, 0
    base, last = found[-1]
    return found[0][0], base + _size(last)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _segment_events(path: Path, base: int, position: int) -> Iterator[tuple[LogEvent, int]]:
    """The events of a segment from `position` on, each with the position after it. Damaged lines are passed over."""
    stream = _stream_name(path.parent)
    try:
        file = path.open("rb")
    except FileNotFoundError:  # dropped, or its group deleted, since it was listed
        return
    with file:
        file.seek(max(0, position - base))
        at = max(position, base)
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            begin, at = at, at + len(raw)
            try:
                line = _decode(raw)
            except msgspec.MsgspecError:
                continue
            yield LogEvent(line.t, stream, begin, line.m, line.o), at


def _scan(directory: Path, position: int, start_ms: int) -> Iterator[tuple[LogEvent, int]]:
    """A stream's events from `position` on; segments that end before `start_ms` are not read."""
    found = _segments(directory)
    if start_ms:
        firsts = [
            next((e.timestamp_ms for e, _ in _segment_events(path, base, base)), FOREVER_MS) for base, path in found
        ]
        # Equal times may straddle two segments, so begin one before the first that begins at or after start_ms.
        found = found[max(0, bisect_right(firsts, start_ms - 1) - 1) :]
    for index, (base, path) in enumerate(found):
        if index + 1 < len(found) and found[index + 1][0] <= position:
            continue
        yield from _segment_events(path, base, position)


def _describe(group: Path, name: str) -> LogStream:
    directory = _stream_path(group, name)
    found = _segments(directory)
    oldest, end = _bounds(directory)
    first = next((e.timestamp_ms for base, path in found for e, _ in _segment_events(path, base, base)), 0)
    last = next((t for _, path in reversed(found) if (t := _last_time(path))), 0)
    return LogStream(name, first, last, end - oldest, end)


def _last_time(path: Path) -> int:
    """The time of a segment's last whole line, 0 where there is none; only its tail is read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, _size(path) - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    for raw in reversed(lines):
        with suppress(msgspec.MsgspecError):
            return _decode(raw).t
    return 0
