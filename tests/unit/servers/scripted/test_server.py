"""The scripted server over real sockets, in this process; what needs a process of its own is in test_main.py."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock.servers.scripted.http import BODY_BYTES, Request, serve_connection
from penstock.servers.scripted.player import Refused, SessionStore
from penstock.servers.scripted.script import Sessions, parse_script
from penstock.servers.scripted.server import Server
from tests.waiting import until_async


@asynccontextmanager
async def serving(
    script: dict[str, Any] | list[Any], *, multi_model: bool = False
) -> AsyncIterator[tuple[int, list[int]]]:
    """The port of a server of `script` (a list is its steps), and the statuses with which it would have exited."""
    exits: list[int] = []
    text = json.dumps({"steps": script} if isinstance(script, list) else script)
    server = Server(parse_script(text), multi_model=multi_model, leave=exits.append)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await serve_connection(reader, writer, server.handle, server.left, server.converse)
        tasks.discard(task)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], exits
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def raw(port: int, data: bytes) -> bytes:
    """All that comes back for `data`, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def request(
    body: bytes = b"", *, path: str = "/invocations", method: str = "POST", headers: str = "", close: bool = True
) -> bytes:
    end = "Connection: close\r\n" if close else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{end}{headers}\r\n".encode() + body


async def invoke(port: int, body: bytes = b"", *, headers: str = "") -> tuple[int, dict[str, str], list[bytes]]:
    """Status, headers in lower case, and the chunks one by one. Raises ValueError on an answer that is cut short."""
    return parse(await raw(port, request(body, headers=headers)))


def parse(answer: bytes) -> tuple[int, dict[str, str], list[bytes]]:
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if "content-length" in headers:
        return int(first.split(" ")[1]), headers, [rest]
    chunks: list[bytes] = []
    while True:
        size, found, rest = rest.partition(b"\r\n")
        if not found:
            raise ValueError("cut short")
        if size == b"0":
            return int(first.split(" ")[1]), headers, chunks
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]


async def test_the_openai_route_gets_the_same_answer() -> None:
    async with serving({"steps": [{"sse": {"a": 1}}]}) as (port, _):
        answers = [await raw(port, request(path=path)) for path in ("/invocations", "/v1/chat/completions")]
        assert parse(answers[0])[2] == parse(answers[1])[2] == [b'data: {"a":1}\n\n']


async def test_one_send_is_one_chunk() -> None:
    steps = [
        {"status": 201, "headers": {"Content-Type": "text/event-stream", "X-Mine": "1"}},
        {"send": "a", "times": 3, "every_ms": 1},
        {"send": ""},
        {"base64": "AAH/"},
        {"sse": {"token": 1}},
        {"jsonline": ["x"]},
        {"wait_ms": 1},
        {"repeat": 2, "steps": [{"send": "\N{SNOWMAN}"}]},
    ]
    async with serving(steps) as (port, _):
        status, headers, chunks = await invoke(port)
    assert status == 201
    assert headers == {"content-type": "text/event-stream", "x-mine": "1", "transfer-encoding": "chunked"}
    assert chunks == [
        b"a",
        b"a",
        b"a",
        b"\0\1\xff",
        b'data: {"token":1}\n\n',
        b'["x"]\n',
        *["\N{SNOWMAN}".encode()] * 2,
    ]


async def test_moments_do_not_add_up_as_waits_do() -> None:
    steps = [{"wait_ms": 30}, {"at_ms": 60}, {"send": "a"}, {"at_ms": 60}, {"send": "b"}, {"at_ms": 90}]
    async with serving(steps) as (port, _):
        began = time.monotonic()
        assert (await invoke(port))[2] == [b"a", b"b"]
    assert time.monotonic() - began >= 0.09
    assert time.monotonic() - began < 5


async def test_without_a_script_the_body_comes_back_in_pieces() -> None:
    async with serving({}) as (port, _):
        status, headers, chunks = await invoke(port, b"0123456789", headers="Content-Type: text/x\r\n")
        assert (status, headers["content-type"], chunks) == (200, "text/x", [b"01", b"234", b"56", b"789"])
        assert (await invoke(port, b""))[2] == []
        assert (await invoke(port, b"ab"))[2] == [b"a", b"b"]


async def test_headers_come_back() -> None:
    async with serving([{"echo": "headers"}]) as (port, _):
        _, _, chunks = await invoke(port, b"x", headers="X-Amzn-SageMaker-Custom-Attributes: trace=1\r\n")
    assert json.loads(chunks[0])["x-amzn-sagemaker-custom-attributes"] == "trace=1"


async def test_a_length_given_by_the_script_is_kept() -> None:
    async with serving([{"status": 200, "headers": {"content-length": "5"}}, {"send": "he"}, {"send": "llo"}]) as (
        port,
        _,
    ):
        answer = await raw(port, request())
    assert answer.endswith(b"\r\n\r\nhello")
    assert b"chunked" not in answer


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_none(status: int) -> None:
    async with serving([{"status": status}]) as (port, _):
        answer = await raw(port, request())
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.endswith(b"\r\n\r\n")
    assert b"chunked" not in answer


async def test_a_connection_serves_many_requests() -> None:
    async with serving([{"echo": "body"}]) as (port, _):
        answer = await raw(port, request(b"one", close=False) + request(b"two", close=False) + request(b"three"))
    assert re.findall(rb"\r\n(one|two|three)\r\n0\r\n\r\n", answer) == [b"one", b"two", b"three"]


async def test_a_close_in_the_middle_delivers_what_was_sent() -> None:
    async with serving([{"send": "x" * 300_000}, {"end": "close"}]) as (port, _):
        answer = await raw(port, request())
    assert answer.endswith(b"x" * 300_000 + b"\r\n")
    with pytest.raises(ValueError, match="cut short"):
        parse(answer)


async def test_a_reset_is_a_reset() -> None:
    async with serving([{"send": "x"}, {"end": "reset"}]) as (port, _):
        with pytest.raises(ConnectionResetError):
            await raw(port, request())


async def test_a_stall_lasts_until_the_client_leaves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "scripted")
    async with serving([{"send": "x", "times": 2}, {"end": "stall"}]) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request())
        await reader.readuntil(b"1\r\nx\r\n1\r\nx\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        writer.close()
        await until_async(lambda: "client left after 2 chunks" in caplog.text)


async def test_a_client_that_leaves_ends_the_steps(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "scripted")
    async with serving([{"send": "x", "times": 10_000_000, "every_ms": 1}]) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request())
        await reader.readuntil(b"1\r\nx\r\n")
        writer.transport.abort()
        await until_async(lambda: "client left after" in caplog.text, deadline_s=2)


async def test_a_client_that_does_not_read_holds_the_steps_up() -> None:
    async with serving([{"send": "x" * 65536, "times": 1000}, {"end": "exit"}]) as (port, exits):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(request())
            await asyncio.sleep(0.3)
            assert exits == []
            client.setblocking(False)

            async def read() -> int:
                got = 0
                while not exits:
                    got += len(await asyncio.get_running_loop().sock_recv(client, 1 << 20))
                return got

            assert await asyncio.wait_for(read(), 20) > 10 << 20


async def test_an_exit_in_the_middle() -> None:
    async with serving([{"send": "x"}, {"end": "exit", "code": 7}]) as (port, exits):
        await raw(port, request())
        assert exits == [7]


CHOOSING = {
    "choose": "script",
    "scripts": {"bad": [{"status": 503}, {"send": "later"}]},
    "steps": [{"send": "default"}],
}


@pytest.mark.parametrize(
    ("body", "status", "sent"),
    [
        (b"", 200, b"default"),
        (b"{}", 200, b"default"),
        (b'["script"]', 200, b"default"),
        (b'{"script":"bad"}', 503, b"later"),
        (b'{"script":[{"send":"mine"}]}', 200, b"mine"),
        (b'{"script":"none"}', 400, b'{"message": "no script is named \'none\'"}'),
        (b'{"script":[{"x":1}]}', 400, None),
        (b'{"script":5}', 400, b'{"message": "script must be a list of steps"}'),
    ],
)
async def test_a_request_can_choose_its_script(body: bytes, status: int, sent: bytes | None) -> None:
    async with serving(CHOOSING) as (port, _):
        got, _, chunks = await invoke(port, body)
    assert got == status
    if sent is not None:
        assert b"".join(chunks) == sent


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(path="/other"), 404),
        (request(path="/invocations", method="GET"), 404),
        (request(path="/ping?x=1", method="GET"), 200),
        (b"nonsense\r\n\r\n", 400),
        (b"POST /invocations HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 400),
    ],
)
async def test_other_requests(data: bytes, status: int) -> None:
    async with serving({}) as (port, _):
        assert (await raw(port, data)).startswith(b"HTTP/1.1 %d " % status)


async def test_a_body_over_the_bound_is_refused() -> None:
    async with serving({}) as (port, _):
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        for _ in range(BODY_BYTES // (1 << 20) + 1):
            writer.write(piece)
            await asyncio.sleep(0)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.transport.abort()


async def test_expect_is_answered() -> None:
    async with serving([{"echo": "body"}]) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert parse(await reader.read())[2] == [b"ok"]
        writer.close()


async def pings(port: int, count: int) -> list[int]:
    return [parse(await raw(port, request(path="/ping", method="GET")))[0] for _ in range(count)]


async def test_pings_fail_and_recover() -> None:
    async with serving({"ping": {"fail_after": 2, "recover_after": 4}}) as (port, _):
        assert await pings(port, 6) == [200, 200, 503, 503, 200, 200]
    async with serving({"ping": {"status": 500}}) as (port, _):
        assert await pings(port, 1) == [500]
    async with serving({"ping": {"ready_after_ms": 100_000}}) as (port, _):
        assert await pings(port, 1) == [503]


async def test_it_dies_when_it_should() -> None:
    async with serving({"die": {"after_pings": 2, "code": 4}}) as (port, exits):
        await pings(port, 1)
        assert exits == []
        await pings(port, 1)
        assert exits == [4]
    async with serving({"die": {"after_requests": 2}}) as (port, exits):
        await invoke(port)
        assert exits == []
        await invoke(port)
        assert exits == [1]


@pytest.mark.parametrize(
    ("dialect", "header"),
    [("documentation", "x-amzn-sagemaker-session-id"), ("library", "x-amzn-sagemaker-new-session-id")],
)
async def test_a_session_from_beginning_to_end(dialect: str, header: str) -> None:
    async with serving({"sessions": {"dialect": dialect}, "steps": [{"send": "hi"}]}) as (port, _):
        _, headers, chunks = await invoke(port, b'{"requestType":"NEW_SESSION"}')
        name, _, expires = headers[header].partition("; Expires=")
        assert chunks == [b"hi"]
        assert datetime.strptime(expires, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) > datetime.now(UTC)
        given = f"X-Amzn-SageMaker-Session-Id: {name}\r\n"
        assert (await invoke(port, b"{}", headers=given))[0] == 200
        _, headers, _ = await invoke(port, b'{"requestType":"CLOSE"}', headers=given)
        assert headers["x-amzn-sagemaker-closed-session-id"] == name
        status, _, chunks = await invoke(port, b"{}", headers=given)
        assert (status, json.loads(chunks[0])) == (400, {"message": f"Bad request: session not found: {name}"})


def test_a_session_expires() -> None:
    now = [0.0]
    store = SessionStore(Sessions(ttl_s=10), clock=lambda: now[0], wall=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    (value,) = store.headers(Request("POST", "/invocations", {}, b'{"requestType":"NEW_SESSION"}')).values()
    name, _, expires = value.partition("; Expires=")
    assert expires == "2026-01-01T00:00:10Z"
    use = Request("POST", "/invocations", {"x-amzn-sagemaker-session-id": name}, b"")
    now[0] = 9.9
    assert store.headers(use) == {}
    now[0] = 10.0
    with pytest.raises(Refused, match="session not found"):
        store.headers(use)
    with pytest.raises(Refused, match="no session to close"):
        store.headers(Request("POST", "/invocations", {}, b'{"requestType":"CLOSE"}'))
