"""The transport and the signer of AWS's own clients: awscrt, which `aws_sdk_sagemaker_runtime_http2` is made of.

That SDK needs Python 3.12, and these tests run on 3.11 too. What is driven here is the HTTP/2 client and the request signer that it uses,
with the offer that it makes in the handshake (`h2`, then `http/1.1`). Only the wrapping of events is our own code (`http2.Signer`).
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from awscrt import auth, http
from awscrt.io import ClientBootstrap, ClientTlsContext, SocketOptions, TlsContextOptions

from penstock.wire.eventstream import Decoder, Message
from tests.waiting import until
from tests.wire.gateway_fixture import KEY, REGION, House
from tests.wire.http2 import EVENTS, PATH, Signer, payload_part
from tests.wire.test_bidi import said, serve


@pytest.fixture
def connection(house: House) -> Iterator[Any]:
    trust = TlsContextOptions()
    trust.override_default_trust_store_from_path(None, str(house.paths.ca_certificate))
    offer = ClientTlsContext(trust).new_connection_options()
    offer.set_server_name("localhost")
    offer.set_alpn_list(["h2", "http/1.1"])
    made = http.HttpClientConnection.new(
        "127.0.0.1", house.ports["https"], ClientBootstrap.get_or_create_static_default(), SocketOptions(), offer
    ).result(10)
    yield made
    made.close().result(10)


class Conversation:
    """One stream of awscrt's: its callbacks come on a thread of their own."""

    def __init__(self, house: House, connection: Any, content: str = EVENTS) -> None:
        headers = http.HttpHeaders(
            [
                ("host", f"localhost:{house.ports['https']}"),
                ("content-type", "application/vnd.amazon.eventstream"),
                ("accept", "*/*"),
            ]
        )
        request = http.HttpRequest("POST", PATH, headers)
        config = auth.AwsSigningConfig(
            algorithm=auth.AwsSigningAlgorithm.V4,
            signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
            credentials_provider=auth.AwsCredentialsProvider.new_static(KEY.id, KEY.secret),
            region=REGION,
            service="sagemaker",
            signed_body_value=content,
            signed_body_header_type=auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        )
        signed = auth.aws_sign_request(request, config).result(10)
        self.signer = Signer(KEY, signed.headers.get("authorization").rpartition("Signature=")[2])
        self.status = 0
        self.headers: dict[str, str] = {}
        self.messages: list[Message] = []
        self._decoder, self._lock = Decoder(), threading.Lock()
        self.stream = connection.request(signed, self._on_head, self._on_body, manual_write=True)
        self.stream.activate()

    def _on_head(self, http_stream: Any, status_code: int, headers: list[tuple[str, str]], **_: Any) -> None:
        self.headers, self.status = dict(headers), status_code

    def _on_body(self, http_stream: Any, chunk: bytes, **_: Any) -> None:
        with self._lock:
            if self.status == 200:
                self.messages += self._decoder.feed(chunk)

    def send(self, event: bytes, *, end: bool = False) -> None:
        self.stream.write_data(io.BytesIO(self.signer.wrap(event)), end_stream=end).result(10)


def test_awss_transport_and_signer(house: House, connection: Any) -> None:
    serve(house)
    assert connection.version is http.HttpVersion.Http2, (
        "the offer of both versions leads to the one that this call needs"
    )
    talk = Conversation(house, connection)
    for number in range(100):
        talk.send(payload_part(f"event {number}".encode(), "UTF8"))
    until(lambda: len(talk.messages) == 100)
    assert [said(message)[0] for message in talk.messages] == [f"event {number}".encode() for number in range(100)]
    assert talk.status == 200
    assert talk.headers["x-amzn-invoked-production-variant"] == "AllTraffic"
    talk.send(b"", end=True)
    assert talk.stream.completion_future.result(10) == 200


def test_the_stream_completes_when_the_container_ends_it(house: House, connection: Any) -> None:
    """Our end comes while the client's side is still open: its transport must take that for success."""
    from tests.wire.websockets import Socket

    async def brief(socket: Socket) -> None:
        await socket.event()
        await socket.text("x" * 500_000)
        await socket.close()

    serve(house, brief)
    talk = Conversation(house, connection)
    talk.send(payload_part(b"go"))
    assert talk.stream.completion_future.result(10) == 200
    assert said(talk.messages[0])[0] == b"x" * 500_000


def test_a_refusal_arrives_whole(house: House, connection: Any) -> None:
    talk = Conversation(house, connection)
    assert talk.stream.completion_future.result(10) == 400
    assert talk.headers["x-amzn-errortype"] == "InputValidationError"
