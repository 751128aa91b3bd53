"""InvokeEndpointWithBidirectionalStream, spoken by a client of HTTP/2 to a container of WebSocket."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.routes import Variant
from penstock.wire.eventstream import Message
from tests.waiting import until
from tests.wire.gateway_fixture import House, Scripted
from tests.wire.http2 import Http2, Stream, frame, payload_part
from tests.wire.test_access_log import line_of
from tests.wire.websockets import BytesMessage, CloseConnection, Socket, TextMessage, echo, speaking


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("bidi") / "home", {"PENSTOCK_BIDIRECTIONAL_PING_S": "0.2"})
    try:
        yield house.start()
    finally:
        house.close()


@pytest.fixture
def client(house: House) -> Iterator[Http2]:
    with Http2(house) as connection:
        yield connection


def serve(house: House, handle: object = echo, name: str = "ep") -> Scripted:
    replica = house.replica(speaking(handle))  # type: ignore[arg-type]
    house.endpoint(name, Variant("AllTraffic", 1.0, (replica.replica,)))
    return replica


def said(message: Message) -> tuple[bytes, object, object]:
    assert message.headers[":message-type"] == "event", message
    assert message.headers[":event-type"] == "PayloadPart"
    return message.payload, message.headers["DataType"], message.headers["CompletionState"]


def ends_cleanly(stream: Stream) -> None:
    stream.connection.run(lambda: stream.over)
    assert (stream.ended, stream.messages) == (True, type(stream.messages)())


def test_text_and_bytes_there_and_back(house: House, client: Http2) -> None:
    serve(house)
    stream = client.converse()
    assert stream.head() == 200
    assert stream.headers["x-amzn-invoked-production-variant"] == "AllTraffic"
    assert stream.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert stream.headers["x-amzn-requestid"]
    stream.part("grüß dich ☃")
    assert said(stream.message()) == ("grüß dich ☃".encode(), "UTF8", "COMPLETE")
    stream.part(b"\x00\xff" * 10)
    assert said(stream.message()) == (b"\x00\xff" * 10, "BINARY", "COMPLETE")
    stream.send(payload_part(b"of no type", P="padding"))
    assert said(stream.message()) == (b"of no type", "BINARY", "COMPLETE")
    stream.part("")
    assert said(stream.message()) == (b"", "UTF8", "COMPLETE")
    stream.finish()
    ends_cleanly(stream)


def test_parts_stay_fragments_in_both_directions(house: House, client: Http2) -> None:
    frames: list[tuple[bytes, bool]] = []

    async def watch(socket: Socket) -> None:
        while not isinstance(event := await socket.event(), CloseConnection):
            assert isinstance(event, TextMessage | BytesMessage)
            data = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
            frames.append((data, event.message_finished))
            if event.message_finished:
                await socket.text("one ", last=False)
                await socket.text("two ", last=False)
                await socket.text("three")
        await socket.send(event.response())

    serve(house, watch)
    stream = client.converse()
    stream.part(b"a", "PARTIAL")
    stream.send(payload_part(b"b", None, "PARTIAL"))
    stream.part(b"c", "COMPLETE")
    assert [said(stream.message()) for _ in range(3)] == [
        (b"one ", "UTF8", "PARTIAL"),
        (b"two ", "UTF8", "PARTIAL"),
        (b"three", "UTF8", "COMPLETE"),
    ]
    assert frames == [(b"a", False), (b"b", False), (b"c", True)]
    snowman = "☃".encode()
    stream.send(payload_part(snowman[:2], "UTF8", "PARTIAL"))
    stream.send(payload_part(snowman[2:], "UTF8"))
    said(stream.message())
    assert b"".join(data for data, _ in frames[3:]) == snowman, "a character cut in two arrives whole"
    stream.finish()


def test_what_the_client_sends_before_the_container_answers_is_kept(house: House, client: Http2) -> None:
    serve(house)
    stream = client.converse()
    for number in range(50):
        stream.part(f"early {number}")
    assert [said(stream.message())[0] for _ in range(50)] == [f"early {number}".encode() for number in range(50)]
    stream.finish()
    ends_cleanly(stream)


def test_the_client_s_end_is_the_container_s_close_and_what_it_says_until_then_arrives(
    house: House, client: Http2
) -> None:
    closed: list[int] = []

    async def answer_late(socket: Socket) -> None:
        assert isinstance(await socket.event(), TextMessage)
        await socket.text("in between")
        event = await socket.event()
        assert isinstance(event, CloseConnection)
        closed.append(int(event.code))
        await socket.send(event.response())

    serve(house, answer_late)
    stream = client.converse()
    stream.part("only")
    stream.finish()
    assert said(stream.message())[0] == b"in between"
    ends_cleanly(stream)
    assert closed == [1000]


def test_path_query_and_headers_reach_the_container(house: House, client: Http2) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    async def look(socket: Socket) -> None:
        asked.append((socket.target, socket.headers))
        await socket.close()

    serve(house, look)
    client.converse().head()
    named = {
        "model-invocation-path": "v1/listen",
        "model-query-string": "model=a&b=%20c",
        "target-variant": "AllTraffic",
    }
    stream = client.converse(headers=named)
    assert stream.head() == 200
    ends_cleanly(stream)
    assert asked[0][0] == "/invocations-bidirectional-stream"
    assert asked[1][0] == "/v1/listen?model=a&b=%20c"
    assert asked[1][1]["x-amzn-sagemaker-target-variant"] == "AllTraffic"
    assert not {name for name in asked[1][1] if name.startswith(("authorization", "x-amz-"))}


@pytest.mark.parametrize(
    "headers",
    [
        {"model-invocation-path": "/absolute"},
        {"model-invocation-path": "a/../b"},
        {"model-invocation-path": "x" * 101},
        {"model-invocation-path": "a b"},
        {"model-query-string": "novalue"},
        {"model-query-string": "a=b&c=" + "x" * 2048},
    ],
    ids=lambda headers: "=".join(*headers.items())[:40],
)
def test_headers_that_break_the_rules_are_input_validation_errors(
    house: House, client: Http2, headers: dict[str, str]
) -> None:
    replica = serve(house)
    stream = client.converse(headers=headers)
    assert stream.head() == 400
    assert json.loads(stream.whole())["ErrorCode"] == "VALIDATION_ERROR"
    assert stream.headers["x-amzn-errortype"] == "InputValidationError"
    assert replica.accepted == 0


def test_two_conversations_on_one_connection_do_not_mix(house: House, client: Http2, rng: random.Random) -> None:
    serve(house)
    streams = [client.converse() for _ in range(5)]
    sent: dict[int, list[bytes]] = {stream.number: [] for stream in streams}
    for _ in range(200):
        stream = rng.choice(streams)
        data = rng.randbytes(rng.choice((1, 100, 3000)))
        sent[stream.number].append(data)
        stream.part(data)
    for stream in streams:
        assert [said(stream.message())[0] for _ in sent[stream.number]] == sent[stream.number]
        stream.finish()
        ends_cleanly(stream)


def test_large_parts_arrive_whole(house: House, client: Http2, rng: random.Random) -> None:
    large = rng.randbytes(3_000_000)
    back: list[bytes] = []

    async def swap(socket: Socket) -> None:
        while True:
            event = await socket.event()
            assert isinstance(event, BytesMessage)
            back.append(bytes(event.data))
            if event.message_finished:
                break
        await socket.bytes(large[::-1])
        await socket.close()

    serve(house, swap)
    stream = client.converse()
    stream.part(large)
    assert said(stream.message()) == (large[::-1], "BINARY", "COMPLETE")
    ends_cleanly(stream)
    assert b"".join(back) == large


def test_a_part_over_the_limit_ends_the_conversation(house: House, client: Http2) -> None:
    replica = serve(house)
    stream = client.converse()
    assert stream.head() == 200
    stream.part(b"x" * (4 * 1024 * 1024 + 1))
    assert_error(stream, "InputValidationError")
    until(lambda: replica.open == 0)


def test_a_container_closes_with_success_or_with_a_reason(house: House, client: Http2) -> None:
    async def close(socket: Socket) -> None:
        event = await socket.event()
        assert isinstance(event, TextMessage)
        await socket.text("last words")
        await socket.close(int(event.data), "out of memory" if event.data != "1000" else "")

    serve(house, close)
    stream = client.converse()
    stream.part("1000")
    assert said(stream.message())[0] == b"last words"
    ends_cleanly(stream)
    stream = client.converse()
    stream.part("1011")
    assert said(stream.message())[0] == b"last words"
    message = stream.message()
    assert message.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(message.payload) == {
        "Message": "Your model primary closed the connection with code 1011: out of memory",
        "ErrorCode": "StreamBroken",
    }
    ends_cleanly(stream)


def test_a_container_may_name_its_error(house: House, client: Http2) -> None:
    async def fail(socket: Socket) -> None:
        await socket.text('{"ModelStreamError": {"ErrorCode": "TooLoud", "Message": "Speak lower."}}')
        await socket.event()

    serve(house, fail)
    message = client.converse().message()
    assert message.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(message.payload) == {"Message": "Speak lower.", "ErrorCode": "TooLoud"}


def test_containers_are_pinged_and_may_ping(house: House, client: Http2) -> None:
    async def count(socket: Socket) -> None:
        from wsproto.events import Ping

        await socket.send(Ping(b"are you there"))
        while socket.pings < 3:
            await socket.text(str(socket.pings))
            await socket.event()
        await socket.text("three pings")
        await socket.close()

    serve(house, count)
    stream = client.converse()
    while (data := said(stream.message())[0]) != b"three pings":
        assert data.isdigit()
        stream.part("again")
    ends_cleanly(stream)


def test_a_container_that_answers_no_ping_is_given_up(house: House, client: Http2) -> None:
    async def deaf(socket: Socket) -> None:
        socket.answers_pings = False
        await socket.event()

    replica = serve(house, deaf)
    stream = client.converse()
    message = stream.message()
    assert message.headers[":exception-type"] == "ModelStreamError"
    assert b"did not answer the WebSocket's pings" in message.payload
    until(lambda: replica.open == 0)


def test_the_log_and_the_metrics_have_it(house: House, client: Http2) -> None:
    serve(house)
    stream = client.converse()
    stream.part("hello")
    stream.message()
    stream.finish()
    ends_cleanly(stream)

    noted = line_of(house, stream.headers["x-amzn-requestid"])
    assert (noted["operation"], noted["status"], noted["error"]) == ("InvokeEndpointWithBidirectionalStream", 200, "")
    assert (noted["parts"], noted["bytes_out"], noted["endpoint"]) == (1, 5, "ep")
    assert any(event.measured and event.measured.counts.get("Invocations") for event in house.events)


def test_unsigned_events_where_the_request_says_so(house: House, client: Http2) -> None:
    serve(house)
    stream = client.converse(content="UNSIGNED-PAYLOAD")
    stream.part("free")
    assert said(stream.message())[0] == b"free"
    stream.send(frame({}, b""))
    ends_cleanly(stream)


def test_a_client_that_offers_no_protocol_may_assume_http2(house: House) -> None:
    serve(house)
    with Http2(house, alpn=()) as client:
        assert client.spoken is None
        stream = client.converse()
        stream.part("assumed")
        assert said(stream.message())[0] == b"assumed"


def test_through_the_proxy_under_awss_own_name(house: House) -> None:
    serve(house)
    for port in (443, 8443):
        with Http2(house, through=f"runtime.sagemaker.us-east-1.amazonaws.com:{port}") as client:
            stream = client.converse()
            stream.part("proxied")
            assert said(stream.message())[0] == b"proxied"


def assert_error(stream: Stream, code: str) -> None:
    """The stream's last message is an error of that kind, and the stream has ended."""
    message = stream.message()
    assert message.headers[":message-type"] == "error", message
    assert message.headers[":error-code"] == code
    assert message.headers[":error-message"]
    ends_cleanly(stream)


def test_without_http2_the_call_says_what_it_needs(house: House, tmp_path: Path) -> None:
    from tests.wire.raw import connect, read_answer, signed

    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/ep/invocations-bidirectional-stream"))
        answer = read_answer(sock)
    assert answer.status == 404
    assert b"HTTP/2" in answer.body
