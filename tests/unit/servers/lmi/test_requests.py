"""HTTP requests as a handler sees them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.servers.lmi.errors import BadRequest
from penstock.servers.lmi.requests import invocation


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
