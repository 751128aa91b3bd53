"""The benchmark of the readers compares like with like: both sides of each ratio read the same."""

from __future__ import annotations

import json

from penstock.bench import readers
from penstock.bench.readers import BlogLineIterator
from penstock.client import iter_json, iter_lines, iter_sse, iter_tokens


def test_both_sides_read_the_same() -> None:
    lmi, tgi = readers._content(readers._lmi_line), readers._content(readers._tgi_event)
    assert 1_000_000 <= sum(map(len, lmi)) < 1_001_000
    lines = readers._events(lmi)
    for most in (64, 1400):
        sliced = readers._events(readers._sliced(lmi, most))
        assert list(iter_lines(sliced)) == list(BlogLineIterator(sliced)) == [line[:-1] for line in lmi]
    assert list(iter_json(lines)) == [json.loads(line) for line in BlogLineIterator(lines)]
    assert sum(1 for _ in iter_tokens(lines)) == readers._blog_tokens(lines) == len(lmi)
    events = readers._events(tgi)
    assert sum(1 for _ in iter_tokens(events)) == readers._blog_tgi_tokens(events) == len(tgi)
    assert [event.data for event in iter_sse(tgi)] == [event.data for event in readers._httpx_sse(tgi)]


def test_the_long_stream_is_the_short_one_over_and_over() -> None:
    parts = readers._events(readers._content(readers._lmi_line)[:10])
    assert list(readers._repeated(parts, 3)) == parts * 3
