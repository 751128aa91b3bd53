"""Every fault on the wire, with boto3 as the judge."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from penstock.wire.eventstream import Decoder
from tests.waiting import until
from tests.wire.hostile import Bench, bench, listen
from tests.wire.raw import connect, read_all, signed

TEN = [f"{i};" for i in range(10)]
ENDLESS = [{"repeat": 100_000, "steps": [{"send": "tick;"}, {"wait_ms": 10}]}]
SCRIPT = {
    "choose": "do",
    "steps": [{"send": text} for text in TEN],
    "scripts": {
        "endless": ENDLESS,
        "breaks": [{"send": "a"}, {"send": "b"}, {"end": "reset"}],
        "big": [{"send": "x" * 65536, "times": 200}],
    },
}


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("faults") / "home", SCRIPT) as made:
        yield made


def fault(kind: str, **more: Any) -> dict[str, Any]:
    return {"faults": [{"kind": kind, **more}]}


def first(count: int) -> bytes:
    return "".join(TEN[:count]).encode()


REFUSALS = [
    ("ModelError", {"status": 503}, 424, "ModelError"),
    ("InternalFailure", {}, 500, "InternalFailure"),
    ("ServiceUnavailable", {}, 503, "ServiceUnavailable"),
    ("ModelNotReady", {}, 429, "ModelNotReadyException"),
    ("Throttling", {}, 400, "ThrottlingException"),
    ("expired-session", {}, 400, "ValidationError"),
    ("dead-instance", {}, 424, "ModelError"),
]


@pytest.mark.parametrize(("kind", "more", "status", "code"), REFUSALS)
def test_refusals_before_the_first_byte(wire: Bench, kind: str, more: dict[str, Any], status: int, code: str) -> None:
    wire.plan(fault(kind, **more))
    before = wire.house.log()
    runtime = wire.client()
    heard = listen(runtime)
    assert (heard.status, heard.error) == (status, code)
    assert heard.seed
    with pytest.raises(ClientError) as plain:
        runtime.invoke_endpoint(EndpointName="ep", Body=b"")
    assert plain.value.response["Error"]["Code"] == code
    assert wire.house.log() == before


def test_a_refusal_has_the_members_of_awss_error(wire: Bench) -> None:
    wire.plan(fault("ModelError", status=507, message="CUDA out of memory"))
    with pytest.raises(ClientError) as refused:
        wire.client().invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"")
    answer = refused.value.response
    assert (answer["OriginalStatusCode"], answer["OriginalMessage"]) == (507, "CUDA out of memory")
    assert "LogStreamArn" in answer


def test_the_container_is_not_asked_where_a_rule_refuses(wire: Bench) -> None:
    wire.plan(fault("Throttling"))
    count = wire.log.read_text().count("client left")
    listen(wire.client(), body=b'{"do": "endless"}')
    assert wire.log.read_text().count("client left") == count


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("code", ["ModelInvocationTimeExceeded", "StreamBroken"])
def test_model_stream_error_after_parts(wire: Bench, code: str, scheme: str) -> None:
    wire.plan(fault("ModelStreamError", after_parts=5, error_code=code, message="on purpose"))
    heard = listen(wire.client(scheme))
    assert (heard.content, heard.error) == (first(5), "ModelStreamError")
    assert "on purpose" in heard.message


def test_model_stream_error_carries_its_error_code(wire: Bench) -> None:
    wire.plan(fault("ModelStreamError", error_code="ModelInvocationTimeExceeded"))
    answer = wire.client().invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"")
    raw = b"".join(answer["Body"]._raw_stream.stream())
    answer["Body"].close()
    assert b'"ErrorCode": "ModelInvocationTimeExceeded"' in raw
    assert b"did not complete sending" in raw


def test_internal_stream_failure_after_bytes_is_exact(wire: Bench) -> None:
    wire.plan({"slicing": {"mode": "coalesce", "size": 4}, **fault("InternalStreamFailure", after_bytes=11)})
    heard = listen(wire.client())
    assert (heard.content, heard.error) == ("".join(TEN).encode()[:11], "InternalStreamFailure")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_reset_after_parts_is_a_tcp_reset_and_loses_nothing_before_it(wire: Bench, scheme: str) -> None:
    wire.plan(fault("reset", after_parts=4))
    for _ in range(10):
        heard = listen(wire.client(scheme))
        assert heard.content == first(4)
        assert heard.error in ("ResponseStreamingError", "ProtocolError", "ConnectionClosedError", "ReadTimeoutError")
        # OpenSSL calls a reset an end that nobody announced; `test_reset.py` asks the kernel.
        assert "reset" in heard.message.lower() or scheme == "https", heard.message


def test_reset_in_the_middle_of_a_flood(wire: Bench) -> None:
    wire.plan(fault("reset", after_bytes=1_000_000))
    heard = listen(wire.client(), body=b'{"do": "big"}')
    assert len(heard.content) == 1_000_000
    assert "reset" in heard.message.lower()


def test_end_is_clean_and_early_and_the_container_is_left(wire: Bench) -> None:
    wire.plan(fault("end", after_parts=3))
    left = wire.log.read_text().count("client left")
    runtime = wire.client()
    for _ in range(2):  # the client's connection goes on
        heard = listen(runtime, body=b'{"do": "endless"}')
        assert (heard.content, heard.error) == (b"tick;" * 3, "")
    until(lambda: wire.log.read_text().count("client left") == left + 2, what="the container to be left")


def test_bad_crc_is_what_botocores_decoder_says(wire: Bench) -> None:
    wire.plan(fault("bad-crc", after_parts=2))
    heard = listen(wire.client())
    assert (heard.content, heard.error) == (first(2), "ChecksumMismatch")


def test_a_truncated_frame_looks_like_the_end_to_boto3(wire: Bench) -> None:
    wire.plan(fault("truncated-frame", after_parts=3))
    heard = listen(wire.client())
    assert (heard.content, heard.error) == (first(3), "")


def test_a_stall_goes_on(wire: Bench) -> None:
    wire.plan(fault("stall", after_parts=3, ms=300))
    heard = listen(wire.client())
    assert (heard.content, heard.error) == (first(10), "")
    assert heard.seconds >= 0.3


def test_a_stall_for_ever_meets_the_clients_time_out_and_gives_the_container_back(wire: Bench) -> None:
    wire.plan(fault("stall", after_parts=3))
    left = wire.log.read_text().count("client left")
    heard = listen(wire.client(read_timeout=0.5), body=b'{"do": "endless"}')
    assert heard.content == b"tick;" * 3
    assert heard.error in ("ReadTimeoutError", "ResponseStreamingError")
    until(lambda: wire.log.read_text().count("client left") == left + 1, what="the container to be left")


def test_time_ends_what_stalls(wire: Bench) -> None:
    plan = {"faults": [{"kind": "stall", "after_parts": 2}, {"kind": "ModelStreamError", "after_ms": 400}]}
    wire.plan(plan)
    heard = listen(wire.client())
    assert (heard.content, heard.error) == (first(2), "ModelStreamError")
    assert heard.seconds >= 0.4


@pytest.mark.parametrize(("kind", "error"), [("reset", ""), ("ModelStreamError", "ModelStreamError"), ("end", "")])
def test_after_ms_strikes_between_chunks(wire: Bench, kind: str, error: str) -> None:
    wire.plan(fault(kind, after_ms=250))
    heard = listen(wire.client(), body=b'{"do": "endless"}')
    assert heard.seconds >= 0.25
    assert heard.content.startswith(b"tick;tick;")
    assert heard.error == error or (kind == "reset" and "reset" in heard.message.lower())


def test_trickle_and_jitter_take_time_and_lose_nothing(wire: Bench) -> None:
    wire.plan({"faults": [{"kind": "trickle", "ms": 20}, {"kind": "jitter", "ms": 10}], "seed": 1})
    heard = listen(wire.client())
    assert heard.content == first(10)
    assert heard.seconds >= 0.2


def test_slow_first_byte_holds_back_the_head(wire: Bench) -> None:
    wire.plan(fault("slow-first-byte", ms=300))
    began = time.monotonic()
    answer = wire.client().invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"")
    assert time.monotonic() - began >= 0.3
    assert b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"]) == first(10)


def test_a_time_limit_passes_before_the_slow_first_byte(wire: Bench) -> None:
    wire.plan(
        {"faults": [{"kind": "slow-first-byte", "ms": 30_000}, {"kind": "InternalStreamFailure", "after_ms": 100}]}
    )
    heard = listen(wire.client())
    assert (heard.content, heard.error, heard.status) == (b"", "InternalStreamFailure", 200)


def test_a_container_that_breaks_off_under_a_plan(wire: Bench) -> None:
    wire.plan({"slicing": {"mode": "coalesce", "size": 9}, "faults": [{"kind": "trickle", "ms": 5}]})
    heard = listen(wire.client(), body=b'{"do": "breaks"}')
    assert (heard.content, heard.error) == (b"ab", "ModelStreamError")


def test_the_schedule_chooses_requests(wire: Bench) -> None:
    wire.plan(fault("Throttling", skip=2, every=3, times=2))
    runtime = wire.client()
    errors = [listen(runtime).error for _ in range(10)]
    assert [i for i, error in enumerate(errors) if error] == [2, 5]


def test_the_count_begins_anew_when_the_plan_is_set_again(wire: Bench) -> None:
    once = fault("Throttling", times=1)
    runtime = wire.client()
    for at in (1.0, 2.0):
        wire.plan(once, set_at=at)
        assert [listen(runtime).error for _ in range(2)] == ["ThrottlingException", ""]
        wire.house.publish()  # another table with the same plan
        assert listen(runtime).error == ""


def test_probability_strikes_a_share(wire: Bench) -> None:
    wire.plan({**fault("Throttling", probability=0.5), "seed": 7})
    runtime = wire.client()
    struck = [bool(listen(runtime).error) for _ in range(30)]
    assert 5 < sum(struck) < 25
    wire.plan({**fault("Throttling", probability=0.5), "seed": 7})
    assert [bool(listen(runtime).error) for _ in range(30)] == struck


def test_a_client_that_reads_slowly_pauses_the_container(wire: Bench) -> None:
    wire.plan({"slicing": {"mode": "bytes", "size": 1000}})
    answer = wire.client().invoke_endpoint_with_response_stream(EndpointName="ep", Body=b'{"do": "big"}')
    stream = iter(answer["Body"])
    assert next(stream)["PayloadPart"]["Bytes"] == b"x" * 1000
    size = pss(wire.house.pid)
    assert sum(len(event["PayloadPart"]["Bytes"]) for event in stream) == 200 * 65536 - 1000
    assert pss(wire.house.pid) < size + 8_000_000


def pss(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


# --- InvokeEndpoint: one body


def invoke(runtime: Any) -> tuple[bytes, str]:
    """The body, or what was raised."""
    try:
        answer = runtime.invoke_endpoint(EndpointName="ep", Body=b"{}")
        return answer["Body"].read(), ""
    except (BotoCoreError, OSError, Exception) as error:
        return b"", f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_plain_body_that_ends_too_early_is_told(wire: Bench, scheme: str) -> None:
    wire.plan(fault("end", after_bytes=7))
    assert invoke(wire.client(scheme))[1]


@pytest.mark.parametrize("after", [0, 7])
def test_a_plain_body_that_is_reset(wire: Bench, after: int) -> None:
    wire.plan(fault("reset", after_bytes=after))
    assert "reset" in invoke(wire.client())[1].lower() or "closed" in invoke(wire.client())[1].lower()


def test_a_plain_body_that_stalls_and_comes_late(wire: Bench) -> None:
    plan = {"faults": [{"kind": "slow-first-byte", "ms": 150}, {"kind": "stall", "after_bytes": 4, "ms": 150}]}
    wire.plan(plan)
    runtime, began = wire.client(), time.monotonic()
    assert invoke(runtime) == (first(10), "")
    assert time.monotonic() - began >= 0.3
    assert invoke(runtime) == (first(10), "")


def test_a_plain_answer_knows_nothing_of_frames(wire: Bench) -> None:
    wire.plan({"slicing": {"mode": "one-byte"}, **fault("bad-crc")})
    answer = wire.client().invoke_endpoint(EndpointName="ep", Body=b"{}")
    assert answer["Body"].read() == first(10)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-penstock-seed"]


def test_a_plain_stall_for_ever_ends_with_the_client(wire: Bench) -> None:
    wire.plan(fault("stall", after_bytes=3))
    assert "timeout" in invoke(wire.client(read_timeout=0.3))[1].lower()


def until_it_ends(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def test_the_reset_is_one(wire: Bench) -> None:
    """Asked of the kernel itself: after the bytes before it, `recv` fails with ECONNRESET."""
    wire.plan(fault("reset", after_parts=2))
    with connect(wire.house) as sock:
        sock.sendall(signed(wire.house, "/endpoints/ep/invocations-response-stream", b"{}"))
        with pytest.raises(ConnectionResetError):
            until_it_ends(sock)


def test_an_http_1_0_client_gets_the_same_plan(wire: Bench) -> None:
    wire.plan(fault("end", after_parts=2))
    with connect(wire.house) as sock:
        request = signed(wire.house, "/endpoints/ep/invocations-response-stream", b"{}")
        sock.sendall(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert b"x-penstock-seed: " in head
    decoder = Decoder()
    assert [message.payload for message in decoder.feed(body)] == [b"0;", b"1;"]
    decoder.finish()
