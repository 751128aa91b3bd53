"""What is turned away before a conversation begins, and what ends one: names, signatures, policies, events that make no sense."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from penstock.routes import Variant
from tests.waiting import until
from tests.wire.gateway_fixture import ACCOUNT, KEY, REGION, House, Seen, Wire, answering
from tests.wire.http2 import EVENTS, Http2, Stream, frame, payload_part, signed_headers
from tests.wire.test_bidi import assert_error, said, serve
from tests.wire.test_gateway_policies import ARN, policy

ACTION = "sagemaker:InvokeEndpointWithBidirectionalStream"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("bidi") / "home")
    try:
        yield house.start()
    finally:
        house.close()


@pytest.fixture
def client(house: House) -> Iterator[Http2]:
    with Http2(house) as connection:
        yield connection


def refused(stream: Stream, status: int, kind: str) -> dict[str, Any]:
    assert stream.head() == status, stream.whole()
    assert stream.headers["x-amzn-errortype"] == kind
    assert stream.headers["x-amzn-requestid"]
    body: dict[str, Any] = json.loads(stream.whole())
    return body


def test_an_unknown_endpoint(client: Http2) -> None:
    body = refused(client.converse("/endpoints/absent/invocations-bidirectional-stream"), 400, "InputValidationError")
    assert body == {"ErrorCode": "NO_SUCH_ENDPOINT", "Message": f"Endpoint absent of account {ACCOUNT} not found."}


def test_an_unknown_variant(house: House, client: Http2) -> None:
    serve(house)
    assert (
        refused(client.converse(headers={"target-variant": "none"}), 400, "InputValidationError")["ErrorCode"]
        == "NO_SUCH_VARIANT"
    )


def test_a_name_that_no_endpoint_can_have(client: Http2) -> None:
    refused(client.converse("/endpoints/a_b/invocations-bidirectional-stream"), 400, "InputValidationError")


def test_another_method(house: House, client: Http2) -> None:
    path = "/endpoints/ep/invocations-bidirectional-stream"
    headers = signed_headers(house, path, method="GET")
    refused(client.request(path, headers=headers, method="GET"), 405, "UnknownOperationException")


def test_a_wrong_secret_an_unknown_key_and_no_signature(house: House, client: Http2) -> None:
    replica = serve(house)
    refused(client.converse(key=replace(KEY, secret="another")), 403, "InvalidSignatureException")
    refused(client.converse(key=replace(KEY, id="AKIDNOBODY")), 403, "UnrecognizedClientException")
    refused(client.request(), 403, "MissingAuthenticationTokenException")
    assert replica.accepted == 0


def test_a_changed_header(house: House, client: Http2) -> None:
    serve(house)
    headers = signed_headers(house, headers={"x-amzn-sagemaker-model-invocation-path": "a"})
    headers["x-amzn-sagemaker-model-invocation-path"] = "b"
    refused(client.request(headers=headers), 403, "InvalidSignatureException")


def test_policies_have_an_action_of_this_call_s_own(house: House, client: Http2) -> None:
    serve(house)
    probe = policy(resource=f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/marker-*")
    try:
        house.keys = (replace(KEY, policies=(policy(resource=ARN), probe)),)
        house.publish()
        assert ACTION in refused(client.converse(), 403, "AccessDeniedException")["Message"]
        house.keys = (replace(KEY, policies=(policy(action=ACTION), probe)),)
        house.publish()
        stream = client.converse()
        stream.part("allowed")
        assert said(stream.message())[0] == b"allowed"
    finally:
        house.keys = (KEY,)
        house.publish()


def test_a_container_without_the_websocket(house: House, client: Http2) -> None:
    async def not_found(request: Seen, wire: Wire) -> None:
        assert request.headers["upgrade"] == "websocket"
        await wire.answer(b'{"detail":"Not Found"}', status=404)

    replica = house.replica(answering(not_found))
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
    body = refused(client.converse(), 424, "ModelError")
    assert (body["ErrorCode"], body["OriginalStatusCode"]) == ("CLIENT_ERROR_FROM_MODEL", 404)
    assert body["OriginalMessage"] == '{"detail":"Not Found"}'
    until(lambda: replica.open == 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"\x00\x01garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + b"X: y\r\n" * 20_000,
        b"",
    ],
    ids=["wrong accept", "no accept", "garbage", "endless head", "nothing"],
)
def test_a_container_whose_answer_is_none(house: House, client: Http2, answer: bytes) -> None:
    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(answer)

    replica = house.replica(script)
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
    body = refused(client.converse(), 424, "ModelError")
    assert body["OriginalStatusCode"] == 0
    assert "could not get a response from the ep endpoint" in body["Message"]
    until(lambda: replica.open == 0)


def test_a_replica_that_refuses_the_connection_is_passed_over(house: House, client: Http2) -> None:
    gone = serve(house, name="gone")
    assert gone.server is not None
    gone.server.close()
    alive = serve(house, name="alive")
    house.endpoint("ep", Variant("AllTraffic", 1.0, (gone.replica, alive.replica)))
    for number in range(10):
        stream = client.converse()
        stream.part(str(number))
        assert said(stream.message())[0] == str(number).encode()


def test_a_full_queue(house: House, client: Http2) -> None:
    replica = serve(house, name="other")
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,), max_concurrency=1))
    first = client.converse()
    assert first.head() == 200
    waiting = client.converse()
    waiting.part("in the queue")
    assert refused(client.converse(), 503, "ServiceUnavailableError")["ErrorCode"] == "QUEUE_FULL"
    first.finish()
    assert said(waiting.message())[0] == b"in the queue"


# --- events

Spoil = Callable[[Stream], bytes]


def signature_headers(wrapped: bytes) -> dict[str, str | bytes | int]:
    raw = wrapped[12 : 12 + int.from_bytes(wrapped[4:8])]
    return {":date": int.from_bytes(raw[7:15]), ":chunk-signature": raw[-32:]}


def tampered(stream: Stream) -> bytes:
    assert stream.signer is not None
    headers = signature_headers(stream.signer.wrap(payload_part(b"I owe you 10", "UTF8")))
    return frame(headers, payload_part(b"I owe you 99", "UTF8"))


def replayed(stream: Stream) -> bytes:
    assert stream.signer is not None
    event = stream.signer.wrap(payload_part(b"once"))
    return event + event


def out_of_order(stream: Stream) -> bytes:
    assert stream.signer is not None
    first, second = stream.signer.wrap(payload_part(b"one")), stream.signer.wrap(payload_part(b"two"))
    return second + first


def stale(stream: Stream) -> bytes:
    assert stream.signer is not None
    return stream.signer.wrap(payload_part(b"old"), now=time.time() - 3600)


def early(stream: Stream) -> bytes:
    assert stream.signer is not None
    return stream.signer.wrap(payload_part(b"new"), now=time.time() + 3600)


def unsigned_header(stream: Stream) -> bytes:
    assert stream.signer is not None
    headers = signature_headers(stream.signer.wrap(payload_part(b"x")))
    return frame({**headers, "Extra": "unsigned"}, payload_part(b"x"))


@pytest.mark.parametrize("spoil", [tampered, replayed, out_of_order, stale, early, unsigned_header])
def test_an_event_whose_signature_does_not_hold(house: House, client: Http2, spoil: Spoil) -> None:
    replica = serve(house)
    stream = client.converse()
    assert stream.head() == 200
    stream.send(spoil(stream), sign=False)
    assert_error(stream, "InvalidSignatureException")
    until(lambda: replica.open == 0, what="the container left")


def test_an_event_without_a_signature_where_one_is_promised(house: House, client: Http2) -> None:
    serve(house)
    stream = client.converse()
    assert stream.head() == 200
    stream.send(payload_part(b"bare"), sign=False)
    assert_error(stream, "MissingAuthenticationTokenException")


NONSENSE: dict[str, bytes] = {
    "garbage": b"not an event stream at all",
    "two events in one envelope": payload_part(b"a") + payload_part(b"b"),
    "half an event": payload_part(b"a")[:-3],
    "another event": frame({":message-type": "event", ":event-type": "Nonsense"}, b""),
    "no event type": frame({":message-type": "event"}, b""),
    "an exception": frame({":message-type": "exception", ":exception-type": "E"}, b""),
    "a data type": payload_part(b"a", "UTF16"),
    "a completion state": payload_part(b"a", None, "HALF"),
    "text that is no UTF-8": payload_part(b"\xff\xfe", "UTF8"),
}


@pytest.mark.parametrize("event", NONSENSE.values(), ids=NONSENSE.keys())
def test_events_that_make_no_sense(house: House, client: Http2, event: bytes) -> None:
    replica = serve(house)
    stream = client.converse()
    assert stream.head() == 200
    stream.send(event)
    assert_error(stream, "InputValidationError")
    until(lambda: replica.open == 0, what="the container left")


def test_bytes_that_are_no_event_stream(house: House, client: Http2) -> None:
    serve(house)
    stream = client.converse()
    assert stream.head() == 200
    stream.send(b"x" * 100, sign=False)
    assert_error(stream, "InputValidationError")


def test_a_message_of_two_types(house: House, client: Http2) -> None:
    serve(house)
    stream = client.converse()
    stream.part("text", "PARTIAL")
    assert said(stream.message())[0] == b"text"
    stream.part(b"bytes")
    assert_error(stream, "InputValidationError")


def test_an_input_that_ends_inside_an_event(house: House, client: Http2) -> None:
    serve(house)
    stream = client.converse()
    assert stream.head() == 200
    stream.send(payload_part(b"x")[:20], sign=False)
    client.h2.end_stream(stream.number)
    client.flush()
    assert_error(stream, "InputValidationError")


def test_events_after_the_last(house: House, client: Http2) -> None:
    async def hold(socket: Any) -> None:
        await socket.event()
        await socket.event()

    serve(house, hold)
    stream = client.converse()
    assert stream.head() == 200
    stream.send(b"")
    stream.part("after the end")
    assert_error(stream, "InputValidationError")


def test_an_error_before_the_container_is_reached_is_a_plain_answer(house: House, client: Http2) -> None:
    """The replica accepts and says nothing: the bad event comes first."""

    async def silent(wire: Wire) -> None:
        await wire.gone()

    replica = house.replica(silent)
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
    stream = client.converse()
    stream.send(payload_part(b"", "UTF16"))
    refused(stream, 400, "InputValidationError")
    until(lambda: replica.open == 0)


def test_the_signature_of_no_body_stands_for_signed_events(house: House, client: Http2) -> None:
    """A signer that does not know the event stream's own value signs the hash of nothing, and its events all the same."""
    from tests.wire.http2 import Signer

    serve(house)
    headers = signed_headers(house, content=None)
    assert EVENTS not in headers.values()
    stream = client.request(headers=headers, signer=Signer(KEY, headers["authorization"].rpartition("Signature=")[2]))
    stream.part("signed")
    assert said(stream.message())[0] == b"signed"
    stream.send(payload_part(b"bare"), sign=False)
    assert_error(stream, "MissingAuthenticationTokenException")
