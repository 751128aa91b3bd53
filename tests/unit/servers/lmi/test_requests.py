"""HTTP requests as a handler sees them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.servers.lmi.errors import BadRequest
from penstock.servers.lmi.requests import document_apart, invocation


def test_query_headers_and_custom_attributes() -> None:
    request = invocation(
        [("X-Amzn-SageMaker-Custom-Attributes", "a=1; b = x=y;broken"), ("Accept", "text/csv")], "q=1&q=2&e=", b"body"
    )
    assert request.properties == (("a", "1"), ("b", "x=y"), ("Accept", "text/csv"))
    assert request.content == (("q", b"1"), ("q", b"2"), ("e", b""), ("data", b"body"))
    assert request.attribute("ACCEPT") == "text/csv"
    assert request.data == b"body"


def test_a_form() -> None:
    request = invocation([("content-type", "application/x-www-form-urlencoded")], "", b"a=1&b=%C3%A9")
    assert request.content == (("a", b"1"), ("b", "é".encode()))


@settings(deadline=None)  # the clock of a busy machine says nothing of the code
@given(st.binary())
def test_a_multipart_body_keeps_its_bytes(payload: bytes) -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
        + payload
        + b'\r\n--B\r\nContent-Disposition: form-data; name="data"\r\n\r\n{}\r\n--B--\r\n'
    )
    if b"--B" in payload:
        return
    request = invocation([("Content-Type", "multipart/form-data; boundary=B")], "", body)
    assert request.content == (("file", payload), ("data", b"{}"))


@pytest.mark.parametrize("body", [b"", b"--B\r\n\r\nx", b"--B\r\n\r\nno name\r\n--B--\r\n"])
def test_a_broken_multipart_body(body: bytes) -> None:
    with pytest.raises(BadRequest, match="multipart"):
        invocation([("Content-Type", "multipart/form-data; boundary=B")], "", body)


@pytest.mark.parametrize("body", [b"--B\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--B", b"--C\r\n--C--"])
def test_a_multipart_body_without_its_end(body: bytes) -> None:
    with pytest.raises(BadRequest, match="multipart"):
        invocation([("Content-Type", "multipart/form-data; boundary=B")], "", body)


def test_a_multipart_body_may_have_words_around_it() -> None:
    body = b"for old readers\r\n--B \r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n\r\n2\r\n--B--\r\nthe end"
    request = invocation([("Content-Type", 'multipart/form-data; boundary="B"')], "", body)
    assert request.content == (("a", b"1\r\n\r\n2"),)


def test_a_form_has_its_bounds() -> None:
    form = [("content-type", "application/x-www-form-urlencoded")]
    assert len(invocation(form, "", b"a&" * 1023 + b"a").content) == 1024
    with pytest.raises(BadRequest, match="1024"):
        invocation(form, "", b"a&" * 1024 + b"a")
    part = b"--B\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n"
    multipart = [("Content-Type", "multipart/form-data; boundary=B")]
    assert len(invocation(multipart, "", part * 1024 + b"--B--").content) == 1024
    with pytest.raises(BadRequest, match="parts"):
        invocation(multipart, "", part * 1025 + b"--B--")


def test_a_body_is_read_once() -> None:
    request = invocation([], "", b'{"a": [1]}')
    assert request.document() == {"a": [1]}
    assert request.document() is request.document()
    assert replace(request, content=(("data", b"[2]"),)).document() == [2]
    for body, kind in ((b"{", ValueError), (b"\xff", ValueError), (b"[" * 100_000, RecursionError)):
        request = invocation([], "", body)
        for _ in range(2):
            with pytest.raises(kind) as here:
                request.document()
        apart = pickle.loads(pickle.dumps(document_apart(body)))
        assert (type(apart.error), str(apart.error)) == (kind, str(here.value))
