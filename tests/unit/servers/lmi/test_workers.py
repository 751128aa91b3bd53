"""Frames between server and handler process, and how batches are made and undone."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.servers.lmi.errors import LmiError, OutOfMemory, Untranslatable
from penstock.servers.lmi.replies import Reply
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.lmi.worker import frames
from penstock.servers.lmi.worker.frames import BrokenFrame, Frame
from penstock.servers.lmi.workers import replies, request_frame

SETTINGS = ModelSettings(name="m", directory=Path("/m"))


@given(st.dictionaries(st.sampled_from(["kind", "a"]), st.text()), st.lists(st.binary(), max_size=4))
def test_frames_come_back(header: dict[str, str], blobs: list[bytes]) -> None:
    stream = io.BytesIO(frames.encode(header, blobs) * 2)
    for _ in range(2):
        frame = frames.read(stream.read)
        assert frame is not None
        assert frame.blobs == tuple(blobs)
        assert {key: frame.header[key] for key in header} == header
    assert frames.read(stream.read) is None


@pytest.mark.parametrize(
    "data", [b"\x00", b"\x00\x00\x00\x02{}", b"\xff\xff\xff\xff", frames.encode({}, [b"abc"])[:-1]]
)
def test_broken_frames(data: bytes) -> None:
    with pytest.raises(BrokenFrame):
        frames.read(io.BytesIO(data).read)


def request(number: int) -> Invocation:
    return Invocation((("Accept", f"a{number}"),), (("data", b"%d" % number),))


def test_one_request_is_as_it_is() -> None:
    header, blobs = request_frame([request(1)], SETTINGS)
    assert header == {
        "properties": {"model_dir": "/m", "device_id": "-1", "tensor_parallel_degree": "1", "Accept": "a1"},
        "keys": ["data"],
    }
    assert blobs == [b"1"]


def test_several_have_a_prefix() -> None:
    header, blobs = request_frame([request(0), request(1)], SETTINGS)
    properties = header["properties"]
    assert isinstance(properties, dict)
    assert (properties["batch_size"], properties["batch_0.Accept"], properties["batch_1.Accept"]) == ("2", "a0", "a1")
    assert header["keys"] == ["batch_0.data", "batch_1.data"]
    assert blobs == [b"0", b"1"]


def reply(keys: list[str | None], *blobs: bytes, code: int = 200) -> Frame:
    return Frame({"kind": "reply", "code": code, "message": "because", "properties": {"a": "b"}, "keys": keys}, blobs)


def bodies(found: list[Reply | LmiError]) -> list[object]:
    return [item.body if isinstance(item, Reply) else type(item) for item in found]


def test_which_content_is_the_body() -> None:
    assert bodies(replies(reply(["x", "data"], b"1", b"2"), 1)) == [b"2"]
    assert bodies(replies(reply([None, "x"], b"1", b"2"), 1)) == [b"1"]
    assert bodies(replies(reply([]), 1)) == [b""]


def test_a_batch_is_taken_apart() -> None:
    assert bodies(replies(reply(["batch_1.", "batch_0.data"], b"one", b"zero"), 2)) == [b"zero", b"one"]
    assert bodies(replies(reply([None], b"wrong", code=424), 2)) == [b"wrong", b"wrong"]
    assert bodies(replies(reply(["batch_0."], b"x"), 2)) == [Untranslatable] * 2
    assert bodies(replies(reply(["batch_0.", "batch_7."], b"x", b"y"), 2)) == [Untranslatable] * 2
    assert bodies(replies(reply([], code=507), 2)) == [OutOfMemory] * 2
