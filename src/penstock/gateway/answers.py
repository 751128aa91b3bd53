"""Answers that the gateway itself gives: status lines, and an AwsError in each protocol's shape.

Owns which protocol's renderer a request gets, and the runtime's own. It must never decide what went wrong.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus

from penstock.errors import AwsError
from penstock.gateway.head import Head
from penstock.wire import awsjson, awsquery, restjson, restxml, rpcv2cbor
from penstock.wire.messages import WireResponse
from penstock.wire.refusals import Dialect

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

CLOSE = "connection: close\r\n"

_REASONS = {status.value: status.phrase for status in HTTPStatus} | {424: "Failed Dependency", 530: "Site Frozen"}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=128)
def status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n".encode()


@lru_cache(maxsize=4)
def http_date(second: int) -> str:
    """`Mon, 23 Nov 2026 07:45:00 GMT`, whatever the locale."""
    t = time.gmtime(second)
    day, month = _DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1]
    return f"{day}, {t.tm_mday:02d} {month} {t.tm_year} {t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"


def head_bytes(status: int, headers: Iterable[tuple[str, str]], *, keep_alive: bool) -> bytes:
    """A response's head. Values are trusted to hold no line break: they are ours, or came out of a parser that refuses them."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    end = "\r\n" if keep_alive else f"{CLOSE}\r\n"
    return b"".join((status_line(status), lines.encode("latin-1", "replace"), end.encode()))


def dialect_of(head: Head) -> Dialect:
    """In which protocol a client expects an error, told from the head alone."""
    if head.path.startswith("/endpoints/"):
        return "rest-json"
    if "x-amz-target" in head.headers or "smithy-protocol" in head.headers:
        return "json"
    form = head.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    if (form and head.path == "/") or "Action=" in head.query:
        return "query"
    return "s3"


def error_answer(
    head: Head, error: AwsError, request_id: str, marks: Iterable[tuple[str, str]] = (), *, keep_alive: bool
) -> bytes:
    """The whole response that tells `error` in the spelling of the protocol that `head` speaks; `marks` are further headers."""
    response = _render(head, error, request_id)
    headers = [*response.headers.items(), *marks, ("date", http_date(int(time.time())))]
    headers.append(("content-length", str(len(response.body))))
    answer = head_bytes(response.status, headers, keep_alive=keep_alive)
    return answer if head.method == "HEAD" else answer + response.body


def _render(head: Head, error: AwsError, request_id: str) -> WireResponse:
    if "smithy-protocol" in head.headers:
        return rpcv2cbor.render_error(error, request_id)
    dialect = dialect_of(head)
    if dialect == "rest-json":
        return restjson.render_error(error, request_id)
    if dialect == "json":
        return awsjson.render_error(error, request_id)
    if dialect == "query":
        return awsquery.render_error(error, request_id)
    return restxml.render_error(error, request_id, resource=head.path)


def plain_answer(status: int, text: str, request_id: str) -> bytes:
    """An answer to what was not HTTP enough to know its protocol; the connection closes after it."""
    body = text.encode() + b"\n"
    headers = [
        ("x-amzn-requestid", request_id),
        ("date", http_date(int(time.time()))),
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
    ]
    return head_bytes(status, headers, keep_alive=False) + body
