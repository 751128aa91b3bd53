"""Which of the two ways a stream of HTTP/2 is answered.

Owns that choice and the answers to what is no request. It must never relay a byte.
"""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import unquote

from penstock.errors import AwsError
from penstock.gateway import failures
from penstock.gateway.answers import http_date
from penstock.gateway.authenticate import admit
from penstock.gateway.bidi.bridge import Bridge
from penstock.gateway.bidi.client import StreamClient
from penstock.gateway.bidi.http2 import Serve
from penstock.gateway.bidi.invocation import OPERATION, BidirectionalInvocation
from penstock.gateway.bidi.request import Field, read_request
from penstock.gateway.bidi.stream import Http2Stream
from penstock.gateway.connection import Opener
from penstock.gateway.door import Door
from penstock.gateway.head import BadRequest, Head
from penstock.gateway.trace import Trace, instant

_BIDIRECTIONAL = re.compile(r"/endpoints/([^/]*)/invocations-bidirectional-stream\Z")


def serving(door: Door, opener: Opener) -> Serve:
    """What answers streams of one worker; `opener` is what answers requests of HTTP/1.1."""

    def serve(transport: asyncio.Transport, stream: Http2Stream, fields: list[Field], ended: bool) -> None:
        stream.remote_ended = ended
        try:
            head = read_request(fields)
        except BadRequest as error:
            _refuse(stream, error, door.request_id())
            return
        if match := _BIDIRECTIONAL.match(head.path):
            _converse(door, transport, stream, head, unquote(match[1]))
        else:
            Bridge(door, opener, transport, stream, head).begin(head, ended=ended)

    return serve


def _converse(door: Door, transport: asyncio.Transport, stream: Http2Stream, head: Head, name: str) -> None:
    request_id = door.request_id()
    client = StreamClient(door, transport, stream, Trace(request_id, OPERATION, instant()))
    try:
        client.exchange = _open(client, head, request_id, name)
        client.exchange.start()
    except AwsError as error:
        client.refuse(head, error, request_id)


def _open(client: StreamClient, head: Head, request_id: str, name: str) -> BidirectionalInvocation:
    """Raises AwsError where the head alone is reason to refuse."""
    door = client.door
    if door.stopping:
        raise failures.unavailable("The server is shutting down. Send the request again.")
    if head.method != "POST":
        raise AwsError("UnknownOperationException", f"This path has no operation {head.method}.", status=405)
    admission = admit(head, door.routes.secret, door.clock(), door.limits.clock_skew_s)
    client.trace.key, client.trace.region = admission.claim.access_key, admission.claim.region
    if admission.claim.service != "sagemaker":
        raise AwsError("UnknownOperationException", "This path has no operation.", status=404)
    return BidirectionalInvocation(client, head, request_id, admission, name)


def _refuse(stream: Http2Stream, error: BadRequest, request_id: str) -> None:
    """In plain text, like an answer to what is not HTTP/1.1."""
    body = f"{error}\n".encode()
    headers = [
        (":status", str(error.status)),
        ("x-amzn-requestid", request_id),
        ("date", http_date(int(time.time()))),
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
    ]
    stream.headers(headers)
    stream.write(body)
    stream.finish()
