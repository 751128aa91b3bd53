"""Frames against botocore's own reader, and our reader against every slicing and every damage."""

from __future__ import annotations

import json
import random
import uuid
from datetime import UTC, datetime
from struct import pack
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import AwsError
from penstock.wire.eventstream import (
    Decoder,
    FrameError,
    Message,
    encode_message,
    exception_frame,
    part_frame,
    part_head,
)


def read_with_botocore(data: bytes) -> list[tuple[dict[str, object], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(event.headers, event.payload) for event in buffer]


@pytest.mark.parametrize("payload", [b"", b"x", b"data:{}\n\n", bytes(range(256)) * 400])
def test_a_payload_part_is_what_botocore_reads(payload: bytes) -> None:
    expected = {
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    assert read_with_botocore(part_frame(payload)) == [(expected, payload)]


def test_the_cached_head_is_shared_and_not_corrupted_by_use() -> None:
    first, second = part_frame(b"aaa"), part_frame(b"bbb")
    assert part_head(3) is part_head(3)
    assert [payload for _, payload in read_with_botocore(first + second)] == [b"aaa", b"bbb"]


def test_model_stream_error_carries_message_and_error_code() -> None:
    error = AwsError("ModelStreamError", "it broke", members={"ErrorCode": "ModelInvocationTimeExceeded"})
    [(headers, payload)] = read_with_botocore(exception_frame(error))
    assert headers == {
        ":exception-type": "ModelStreamError",
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    assert json.loads(payload) == {"Message": "it broke", "ErrorCode": "ModelInvocationTimeExceeded"}


def test_internal_stream_failure_has_no_error_code() -> None:
    [(headers, payload)] = read_with_botocore(exception_frame(AwsError("InternalStreamFailure", "ours", status=500)))
    assert headers[":exception-type"] == "InternalStreamFailure"
    assert json.loads(payload) == {"Message": "ours"}


def test_what_no_reader_would_take_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        encode_message({}, bytes(16 * 1024 * 1024 + 1))
    with pytest.raises(ValueError, match="headers"):
        encode_message({f"h{n}": "v" * 60_000 for n in range(3)}, b"")


@given(payloads=st.lists(st.binary(max_size=300), max_size=6), seed=st.integers())
def test_any_slicing_gives_the_same_messages(payloads: list[bytes], seed: int) -> None:
    data = b"".join(map(part_frame, payloads))
    rng, decoder, messages, at = random.Random(seed), Decoder(), list[Message](), 0
    while at < len(data):
        step = rng.randint(1, 40)
        messages += decoder.feed(data[at : at + step])
        at += step
    decoder.finish()
    assert [message.payload for message in messages] == payloads


def read_whole(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(data)
    decoder.finish()


@given(payload=st.binary(max_size=60), at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_flipped_bit_never_passes(payload: bytes, at: int, bit: int) -> None:
    frame = bytearray(part_frame(payload))
    frame[at % len(frame)] ^= 1 << bit
    with pytest.raises(FrameError):
        read_whole(bytes(frame))


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_awaited_but_never_crashes(data: bytes) -> None:
    decoder = Decoder()
    try:
        assert decoder.feed(data) == []
    except FrameError:
        with pytest.raises(FrameError):
            decoder.feed(b"")


def framed(headers: bytes, payload: bytes = b"") -> bytes:
    prelude = pack("!II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + pack("!I", crc32(prelude)) + headers + payload
    return body + pack("!I", crc32(body))


def header(name: bytes, kind: int, value: bytes) -> bytes:
    return bytes([len(name)]) + name + bytes([kind]) + value


def test_every_header_type_is_read() -> None:
    ident = uuid.UUID("12345678-1234-5678-1234-567812345678")
    raw = (
        header(b"t", 0, b"")
        + header(b"f", 1, b"")
        + header(b"byte", 2, b"\xff")
        + header(b"short", 3, b"\xff\xfe")
        + header(b"int", 4, pack("!i", -3))
        + header(b"long", 5, pack("!q", 1 << 40))
        + header(b"raw", 6, b"\x00\x02\x00\x01")
        + header(b"text", 7, b"\x00\x02\xc3\xa9")
        + header(b"when", 8, pack("!q", 1_000))
        + header(b"id", 9, ident.bytes)
    )
    [message] = Decoder().feed(framed(raw))
    assert message.headers == {
        "t": True,
        "f": False,
        "byte": -1,
        "short": -2,
        "int": -3,
        "long": 1 << 40,
        "raw": b"\x00\x01",
        "text": "é",
        "when": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        "id": ident,
    }


@pytest.mark.parametrize(
    "raw",
    [
        header(b"x", 10, b""),
        header(b"x", 7, b"\x00\x09short"),
        header(b"x", 5, b"\x00"),
        header(b"x", 9, b"\x00" * 15),
        header(b"x", 7, b"\x00\x01\xff"),
        header(b"x", 8, b"\x7f" * 8),
        b"\x05ab",
    ],
)
def test_headers_that_lie_are_refused(raw: bytes) -> None:
    with pytest.raises(FrameError):
        Decoder().feed(framed(raw))


def test_messages_before_the_damage_are_delivered_and_the_damage_is_told_next() -> None:
    damaged = bytearray(part_frame(b"two"))
    damaged[-1] ^= 1
    decoder = Decoder()
    assert [m.payload for m in decoder.feed(part_frame(b"one") + bytes(damaged))] == [b"one"]
    with pytest.raises(FrameError, match="checksum"):
        decoder.feed(b"")


def test_an_end_inside_a_frame_is_no_clean_end() -> None:
    decoder = Decoder()
    decoder.feed(part_frame(b"whole")[:-1])
    with pytest.raises(FrameError, match="ended inside"):
        decoder.finish()


def test_an_absurd_length_is_refused_before_it_is_awaited() -> None:
    prelude = pack("!II", 1 << 30, 0)
    with pytest.raises(FrameError, match="impossible"):
        Decoder().feed(prelude + pack("!I", crc32(prelude)))
