"""A header list of HTTP/2 as a head, and as a head of HTTP/1.1 that means the same."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.bidi.request import Field, as_http1, read_request
from penstock.gateway.head import BadRequest

BASE: list[Field] = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"h:1"), (b":path", b"/p?q=1")]


def test_pseudo_headers_become_the_request_line_and_the_host() -> None:
    head = read_request([*BASE, (b"x", b"1"), (b"x", b"2"), (b"host", b"h:1"), (b"te", b"trailers")])
    assert (head.method, head.path, head.query) == ("POST", "/p", "q=1")
    assert head.headers == {"host": "h:1", "x": "1,2", "te": "trailers"}
    assert as_http1(head, body=True) == (
        b"POST /p?q=1 HTTP/1.1\r\nhost: h:1\r\nx: 1\r\nx: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        True,
    )
    assert as_http1(head, body=False)[1] is False
    sized = read_request([*BASE, (b"content-length", b"3")])
    assert as_http1(sized, body=True)[0].endswith(b"content-length: 3\r\n\r\n")


@pytest.mark.parametrize(
    "fields",
    [
        [(b":method", b"A B"), *BASE[1:]],
        [*BASE[:3], (b":path", b"/a b")],
        [*BASE[:3], (b":path", b"/\r\nx: y")],
        [*BASE[:3], (b":path", b"a")],
        [*BASE[:3], (b":path", b"/\xff")],
        BASE[:3],
        [*BASE, (b"a b", b"c")],
        [*BASE, (b"a", b"b\x01")],
        [*BASE, (b"a:b", b"c")],
        [(b":method", b"CONNECT"), *BASE[1:]],
        [*BASE, (b"content-length", b"+1")],
        [*BASE[:2], BASE[3]],
    ],
    ids=str,
)
def test_what_could_be_read_otherwise_is_refused(fields: list[Field]) -> None:
    with pytest.raises(BadRequest) as caught:
        read_request(fields)
    assert caught.value.status in (400, 405)


class _Seen:
    def __init__(self) -> None:
        self.url, self.headers, self.whole = b"", list[Field](), 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        self.whole += 1


names = st.binary(min_size=1, max_size=6) | st.sampled_from([b"x", b"content-length", b"expect", b"te", b"cookie"])
values = st.binary(max_size=12).map(lambda value: value.strip(b" \t"))


@given(
    st.lists(st.tuples(names, values), max_size=5), st.binary(max_size=8), st.sampled_from([b"GET", b"POST", b"PUT"])
)
def test_a_parser_of_http1_reads_what_was_sent_and_nothing_more(
    more: list[Field], target: bytes, method: bytes
) -> None:
    fields: list[Field] = [(b":method", method), *BASE[1:3], (b":path", b"/" + target)]
    fields += [field for field in more if not field[0].startswith(b":")]
    try:
        head = read_request(fields)
    except BadRequest:
        return
    raw, _ = as_http1(head, body=False)
    seen = _Seen()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserError:
        return  # refused a second time is refused
    assert (parser.get_method(), seen.url) == (method, head.target.encode())
    assert [name for name, _ in seen.headers] == [name for name, _ in head.raw if name != b"te"]
    assert seen.whole <= 1
