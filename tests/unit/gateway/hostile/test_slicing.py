"""Whatever the mode, the bytes are the content; and each mode cuts where it says."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.faultplan import MODES, Mode, Slicing
from penstock.gateway.hostile.slicing import slicer

CHUNKS = st.lists(st.one_of(st.binary(max_size=200), st.text(max_size=50).map(str.encode)), max_size=12)


def cut(slicing: Slicing, chunks: list[bytes], seed: int = 0) -> list[bytes]:
    one = slicer(slicing, seed)
    return [part for chunk in chunks for part in one.feed(chunk)] + one.flush()


@given(mode=st.sampled_from(MODES), size=st.integers(1, 40), seed=st.integers(0, 2**32), chunks=CHUNKS)
def test_no_mode_changes_drops_or_reorders_a_byte(mode: Mode, size: int, seed: int, chunks: list[bytes]) -> None:
    assert b"".join(cut(Slicing(mode, size), chunks, seed)) == b"".join(chunks)


@given(chunks=CHUNKS)
def test_as_is_is_one_part_a_chunk(chunks: list[bytes]) -> None:
    assert cut(Slicing(), chunks) == chunks


@given(count=st.integers(1, 5), chunks=CHUNKS)
def test_coalesce_joins_so_many_chunks(count: int, chunks: list[bytes]) -> None:
    expected = [b"".join(chunks[i : i + count]) for i in range(0, len(chunks), count)]
    assert cut(Slicing("coalesce", count), chunks) == expected


@given(size=st.integers(1, 9), chunks=CHUNKS)
def test_bytes_puts_a_border_at_every_multiple(size: int, chunks: list[bytes]) -> None:
    parts = cut(Slicing("bytes", size), chunks)
    borders, at = set(), 0
    for part in parts:
        at += len(part)
        borders.add(at)
    assert set(range(size, at + 1, size)) <= borders
    assert all(1 <= len(part) <= size for part in parts)


def test_one_byte() -> None:
    assert cut(Slicing("one-byte"), [b"ab", b"", b"c"]) == [b"a", b"b", b"c"]


def test_empty_parts_stand_between() -> None:
    assert cut(Slicing("empty"), [b"ab", b"c"]) == [b"", b"ab", b"", b"", b"c", b""]


@given(text=st.text(min_size=1, max_size=60))
def test_utf8_leaves_no_long_character_whole(text: str) -> None:
    parts = cut(Slicing("utf8"), [text.encode()])
    for part in parts:
        continuation = [byte for byte in part if byte & 0xC0 == 0x80]
        assert not continuation or len(part) == 1 or part[0] & 0xC0 == 0x80
    assert all(character.encode() not in parts for character in text if len(character.encode()) > 1)


def test_json_leaves_no_text_whole() -> None:
    line = b'{"outputs": ["token 12"]}\n'
    parts = cut(Slicing("json"), [line])
    assert parts[0] == b"{"
    assert len(parts) > 4
    assert line not in parts


def test_sse_cuts_inside_the_field_name_and_between_the_newlines() -> None:
    assert cut(Slicing("sse"), [b"data: x\r\n\r\n"])[:3] == [b"da", b"ta:", b" x\r"]
    assert cut(Slicing("sse"), [b"data:y\n\n"]) == [b"da", b"ta:", b"y\n", b"\n"]


@given(seed=st.integers(0, 2**32), content=st.binary(max_size=400), borders=st.lists(st.integers(0, 400), max_size=6))
def test_random_depends_on_seed_and_content_alone(seed: int, content: bytes, borders: list[int]) -> None:
    edges = sorted({0, len(content), *(b for b in borders if b < len(content))})
    chunks = [content[a:b] for a, b in pairwise(edges)]
    assert cut(Slicing("random", 32), chunks, seed) == cut(Slicing("random", 32), [content], seed)


@pytest.mark.parametrize(("mode", "size"), [("coalesce", 0), ("bytes", 0), ("bytes", -1), ("random", 1 << 30)])
def test_sizes_that_a_mode_cannot_have(mode: Mode, size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        Slicing(mode, size)
