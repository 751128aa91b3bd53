"""The heads that a pipeline's containers get."""

from __future__ import annotations

from penstock.gateway.headers import UNARY, to_container
from penstock.gateway.pipeline import of_type, without_accept

HEADERS = {
    "content-type": "a/b",
    "accept": "c/d",
    "x-amzn-sagemaker-custom-attributes": "accept: yes, content-type: no",
}


def test_only_the_last_hears_what_the_client_accepts() -> None:
    head = to_container(HEADERS, UNARY, 5)
    assert b"Accept: c/d" in head
    without = without_accept(head)
    assert without == head.replace(b"Accept: c/d\r\n", b"")
    assert without.endswith(b"\r\n\r\n")


def test_another_body_has_another_length_and_type() -> None:
    head = of_type(to_container(HEADERS, UNARY, 5), "e/f", 7)
    lines = head.split(b"\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert [line for line in lines if line.lower().startswith(b"content-")] == [
        b"Content-Length: 7",
        b"Content-Type: e/f",
    ]
    assert b"Accept: c/d" in lines
    assert b"X-Amzn-SageMaker-Custom-Attributes: accept: yes, content-type: no" in lines
