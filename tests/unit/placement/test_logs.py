from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from penstock.placement import logs, logsink
from penstock.placement.logs import (
    LogEvent,
    Mark,
    delete_group,
    delete_stream,
    filter_events,
    follow,
    group_directory,
    list_groups,
    list_streams,
    read_backward,
    read_forward,
    segments,
    stream_directory,
)
from penstock.placement.logsink import LINE_BYTES, LogPump, LogSink
from tests.waiting import until

WHO = ("123456789012", "us-east-1", "falcon")
STREAM = "AllTraffic/i-0a"


def directory(root: Path, stream: str = STREAM) -> Path:
    return stream_directory(root, *WHO, stream)


def sink(root: Path, stream: str = STREAM, *, start: int = 1000, segment_bytes: int = 1 << 20) -> LogSink:
    clock = count(start)
    return LogSink(directory(root, stream), clock=lambda: next(clock), segment_bytes=segment_bytes)


def texts(events: tuple[LogEvent, ...]) -> list[str]:
    return [e.message for e in events]


def test_lines_become_events(tmp_path: Path) -> None:
    s = sink(tmp_path)
    s.feed("stdout", b"one\r\ntw")
    s.feed("stderr", b"err\n")
    s.feed("stdout", "o \N{SNOWMAN}\n\nlast".encode())
    s.end("stdout")
    s.close()
    page = read_forward(directory(tmp_path))
    assert [(e.timestamp_ms, e.output, e.message) for e in page.events] == [
        (1000, "stdout", "one"),
        (1001, "stderr", "err"),
        (1002, "stdout", "two \N{SNOWMAN}"),
        (1002, "stdout", ""),
        (1003, "stdout", "last"),
    ]
    assert {e.stream for e in page.events} == {STREAM}
    assert len({e.id for e in page.events}) == 5
    assert s.last_words == "err"


def test_any_cutting_gives_the_same_lines(tmp_path: Path, rng: random.Random) -> None:
    data = b"".join(bytes(rng.choices(b"ab\r \xc3\xa9", k=rng.randrange(40))) + b"\n" for _ in range(200))
    s = sink(tmp_path)
    at = 0
    while at < len(data):
        step = rng.randrange(1, 60)
        s.feed("stdout", data[at : at + step])
        at += step
    s.close()
    expected = [line.removesuffix(b"\r").decode(errors="replace") for line in data.split(b"\n")[:-1]]
    assert texts(read_forward(directory(tmp_path)).events) == expected


def test_a_line_without_an_end_is_bounded(tmp_path: Path) -> None:
    s = sink(tmp_path)
    for _ in range(10):
        s.feed("stdout", b"x" * LINE_BYTES)
    s.feed("stdout", b"y" * (LINE_BYTES * 2 + 5) + b"\n")
    s.close()
    got = texts(read_forward(directory(tmp_path)).events)
    assert max(map(len, got)) == LINE_BYTES
    assert "".join(got) == "x" * LINE_BYTES * 10 + "y" * (LINE_BYTES * 2 + 5)


def test_pages_forward_and_backward_meet(tmp_path: Path) -> None:
    s = sink(tmp_path, segment_bytes=200)
    for i in range(80):
        s.feed("stdout", b"line %d\n" % i)
    s.close()
    where = directory(tmp_path)
    kept = texts(read_forward(where).events)
    assert len(segments(where)) == logsink.SEGMENTS_KEPT
    assert kept == [f"line {i}" for i in range(80 - len(kept), 80)]
    position, forward = 0, []
    while (page := read_forward(where, position=position, limit=7)).events:
        forward += texts(page.events)
        position = page.next
    assert forward == kept
    before: int | None = None
    backward: list[str] = []
    while (page := read_backward(where, position=before, limit=7)).events:
        backward[:0] = texts(page.events)
        before = page.start
    assert backward == kept
    assert read_forward(where, position=position).next == position


def test_times_bound_a_page(tmp_path: Path) -> None:
    s = sink(tmp_path, segment_bytes=100)
    for i in range(10):
        s.feed("stdout", b"%d\n" % i)
    s.close()
    assert texts(read_forward(directory(tmp_path), start_ms=1003, end_ms=1006).events) == ["3", "4", "5"]
    assert texts(read_backward(directory(tmp_path), start_ms=1003, end_ms=1006, limit=2).events) == ["4", "5"]


def test_time_never_runs_backwards(tmp_path: Path) -> None:
    clock = iter([5, 3, 9])
    s = LogSink(directory(tmp_path), clock=lambda: next(clock))
    for _ in range(3):
        s.feed("stdout", b"x\n")
    s.close()
    assert [e.timestamp_ms for e in read_forward(directory(tmp_path)).events] == [5, 5, 9]


def test_a_group_is_filtered_in_order_page_by_page(tmp_path: Path, rng: random.Random) -> None:
    sinks = [sink(tmp_path, f"AllTraffic/i-{i}", segment_bytes=300) for i in range(3)]
    for i in range(60):
        rng.choice(sinks).feed("stdout", b"%s %d\n" % (rng.choice([b"keep", b"drop"]), i))
    for s in sinks:
        s.close()
    everything = filter_events(tmp_path, *WHO).events
    assert len(everything) == 60
    assert list(everything) == sorted(everything, key=lambda e: e.mark)
    paged: list[LogEvent] = []
    after: Mark | None = None
    while True:
        page = filter_events(tmp_path, *WHO, after=after, limit=7, matches=lambda m: m.startswith("keep"))
        paged += page.events
        if (after := page.after) is None:
            break
    assert paged == [e for e in everything if e.message.startswith("keep")]
    one = filter_events(tmp_path, *WHO, streams=("AllTraffic/i-1",)).events
    assert one == tuple(e for e in everything if e.stream == "AllTraffic/i-1")
    assert filter_events(tmp_path, *WHO, prefix="Other/").events == ()
    late = filter_events(tmp_path, *WHO, start_ms=1010, end_ms=1012).events
    assert set(late) == {e for e in everything if 1010 <= e.timestamp_ms < 1012}


def test_groups_and_streams_are_listed(tmp_path: Path) -> None:
    s = sink(tmp_path)
    s.feed("stdout", b"a\nb\n")
    s.feed("stdout", b"c\n")
    assert [g.name for g in list_groups(tmp_path, *WHO[:2])] == ["/aws/sagemaker/Endpoints/falcon"]
    assert list_groups(tmp_path, *WHO[:2], prefix="/aws/lambda") == ()
    assert list_groups(tmp_path, "210987654321", "us-east-1") == ()
    (stream,) = list_streams(tmp_path, *WHO)
    assert (stream.name, stream.first_ms, stream.last_ms) == (STREAM, 1000, 1001)
    assert stream.stored_bytes == stream.end == read_forward(directory(tmp_path)).next
    assert list_streams(tmp_path, *WHO, prefix="AllTraffic/i-1") == ()
    delete_stream(tmp_path, *WHO, STREAM)
    assert list_streams(tmp_path, *WHO) == ()
    s.feed("stdout", b"still here\n")
    assert texts(filter_events(tmp_path, *WHO).events) == ["still here"]
    s.close()
    delete_group(tmp_path, *WHO)
    for missing in (
        lambda: list_streams(tmp_path, *WHO),
        lambda: filter_events(tmp_path, *WHO),
        lambda: read_forward(directory(tmp_path)),
        lambda: read_backward(directory(tmp_path)),
        lambda: delete_group(tmp_path, *WHO),
    ):
        with pytest.raises(FileNotFoundError):
            missing()


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "../x", "a\x00b", ".hidden", "a" * 129, "ä"])
def test_names_that_are_no_path_parts_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="path"):
        group_directory(tmp_path, *WHO[:2], name)
    with pytest.raises(ValueError, match="log"):
        stream_directory(tmp_path, *WHO, f"AllTraffic/i-1/{name}")
    with pytest.raises(ValueError, match="log"):
        stream_directory(tmp_path, *WHO, f"{name}/i-1/c")


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("falcon", "/aws/sagemaker/Endpoints/falcon"),
        (logs.group_of_component("falcon"), "/aws/sagemaker/InferenceComponents/falcon"),
    ],
)
def test_an_endpoint_and_a_component_of_one_name_have_groups_of_their_own(group: str, name: str) -> None:
    assert logs.group_name(group) == name
    assert logs.group_named(name) == group


@pytest.mark.parametrize(
    "name", ["", "falcon", "/aws/lambda/falcon", f"/aws/sagemaker/Endpoints/{logs.group_of_component('falcon')}"]
)
def test_what_is_no_group_of_ours_is_told_apart(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a log group"):
        logs.group_named(name)


def test_a_torn_line_of_a_killed_writer_is_passed_over(tmp_path: Path) -> None:
    s = sink(tmp_path)
    s.feed("stdout", b"whole\n")
    s.close()
    ((_, path),) = segments(directory(tmp_path))
    with path.open("ab") as file:
        file.write(b'{"t":1001,"o":"std')
    assert read_forward(directory(tmp_path)).next == path.stat().st_size - 18
    again = sink(tmp_path, start=2000)
    again.feed("stdout", b"after\n")
    again.close()
    assert texts(read_forward(directory(tmp_path)).events) == ["whole", "after"]
    assert list_streams(tmp_path, *WHO)[0].last_ms == 2000


def test_following_sees_what_comes(tmp_path: Path) -> None:
    s, other = sink(tmp_path), sink(tmp_path, "AllTraffic/i-0b", start=3000)
    steps: Iterator[int] = count()

    def wait() -> bool:
        match next(steps):
            case 0:
                s.feed("stdout", b"old\nolder\nnew\n")
            case 1:
                s.feed("stdout", b"next\n")
                other.feed("stderr", b"other\n")
            case _:
                return False
        return True

    assert [e.message for e in follow(tmp_path, *WHO, wait=wait)] == ["old", "older", "new", "next", "other"]
    assert [e.message for e in follow(tmp_path, *WHO, last=2, wait=lambda: False)] == ["next", "other"]
    s.close()
    other.close()


def test_old_streams_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logsink, "STREAMS_KEPT", 3)
    for i in range(5):
        s = sink(tmp_path, f"AllTraffic/i-{i}")
        s.feed("stdout", b"x\n")
        s.close()
        os.utime(directory(tmp_path, f"AllTraffic/i-{i}"), (1000 + i, 1000 + i))
    assert [s.name for s in list_streams(tmp_path, *WHO)] == [f"AllTraffic/i-{i}" for i in (2, 3, 4)]


def test_the_pump_reads_both_outputs_to_their_ends(tmp_path: Path) -> None:
    pump, ended = LogPump(), threading.Event()
    (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe()
    pump.attach(sink(tmp_path), out_r, err_r, ended.set)
    os.write(out_w, b"first\n")
    until(lambda: directory(tmp_path).is_dir() and texts(read_forward(directory(tmp_path)).events) == ["first"])
    os.write(err_w, b"oops")
    os.close(out_w)
    assert not ended.is_set()
    os.close(err_w)
    assert ended.wait(5)
    assert texts(read_forward(directory(tmp_path)).events) == ["first", "oops"]
    pump.close()
    pump.close()


def test_a_closed_pump_leaves_nothing_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    pump, ended = LogPump(), threading.Event()
    (out_r, out_w), (err_r, err_w) = os.pipe(), os.pipe()
    pump.attach(sink(tmp_path), out_r, err_r, ended.set)
    os.write(out_w, b"x\n")
    pump.close()
    assert ended.is_set()
    for fd in (out_w, err_w):
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before


def test_containers_of_one_instance_have_streams_of_their_own(tmp_path: Path) -> None:
    names = ["AllTraffic/i-1", "AllTraffic/i-1/blue", "AllTraffic/i-1/red"]
    for name in names:
        sink(tmp_path, name).feed("stdout", f"I am {name}\n".encode())
    assert [one.name for one in list_streams(tmp_path, *WHO)] == names
    assert {e.stream: e.message for e in filter_events(tmp_path, *WHO).events} == {n: f"I am {n}" for n in names}
    assert [e.message for e in read_forward(directory(tmp_path, names[1])).events] == [f"I am {names[1]}"]
    delete_stream(tmp_path, *WHO, names[2])
    assert [one.name for one in list_streams(tmp_path, *WHO)] == names[:2]
    for name in ("AllTraffic/i-1/a/b", "AllTraffic/i-1/", "AllTraffic/i-1/.."):
        with pytest.raises(ValueError, match="log stream"):
            stream_directory(tmp_path, *WHO, name)
