"""What a stream does under a plan, action by action, with botocore's decoder as the judge of the frames."""

from __future__ import annotations

import json

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from penstock.faultplan import ENDING, MODES, REFUSING, Fault, Kind, Mode, Plan, Slicing
from penstock.gateway.hostile.faults import Action, End, HostileStream, Send, Wait
from penstock.gateway.hostile.refusals import refusal
from penstock.routes import Endpoint

TEN = [b"%d;" % i for i in range(10)]


def play(plan: Plan, chunks: list[bytes], seed: int = 1, number: int = 0) -> list[Action]:
    stream = HostileStream(plan, seed, number)
    actions: list[Action] = []
    parts = [part for chunk in chunks for part in stream.slicer.feed(chunk)] + stream.slicer.flush()
    for part in parts:
        actions += stream.deliver(part, 0.0)
        if stream.ended:
            return actions
    return actions + stream.finish(0.0)


def payloads(actions: list[Action]) -> tuple[bytes, list[dict[str, str]]]:
    """The content of the PayloadParts, and the exceptions' payloads with their type."""
    buffer = EventStreamBuffer()
    for action in actions:
        if isinstance(action, Send):
            buffer.add_data(action.frame)
    content, exceptions = b"", []
    for event in buffer:
        if event.headers[":message-type"] == "event":
            content += event.payload
        else:
            exceptions.append({"type": event.headers[":exception-type"], **json.loads(event.payload)})
    return content, exceptions


def test_after_parts() -> None:
    plan = Plan(faults=(Fault(kind="ModelStreamError", after_parts=5, error_code="ModelInvocationTimeExceeded"),))
    actions = play(plan, TEN)
    content, exceptions = payloads(actions)
    assert content == b"0;1;2;3;4;"
    assert exceptions[0]["type"] == "ModelStreamError"
    assert exceptions[0]["ErrorCode"] == "ModelInvocationTimeExceeded"
    assert actions[-1] == End("clean")


@given(limit=st.integers(0, 25), mode=st.sampled_from(MODES))
def test_after_bytes_is_exact_under_any_slicing(limit: int, mode: Mode) -> None:
    slicing = Slicing(mode, 3 if mode in ("bytes", "coalesce") else 0)
    plan = Plan(slicing=slicing, faults=(Fault(kind="InternalStreamFailure", after_bytes=limit),))
    content, exceptions = payloads(play(plan, TEN))
    whole = b"".join(TEN)
    assert content == whole[:limit]
    assert [e["type"] for e in exceptions] == (["InternalStreamFailure"] if limit <= len(whole) else [])


def test_after_ms_strikes_between_chunks() -> None:
    stream = HostileStream(Plan(faults=(Fault(kind="reset", after_ms=200),)), 1)
    assert stream.next_due_ms(0.0) == 200
    assert [type(a) for a in stream.deliver(b"x", 10.0)] == [Send]
    assert stream.tick(199.0) == []
    assert stream.tick(200.0) == [End("reset")]
    assert stream.ended


def test_bad_crc_is_caught_by_botocore() -> None:
    with pytest.raises(ChecksumMismatch):
        payloads(play(Plan(faults=(Fault(kind="bad-crc", after_parts=1),)), TEN))


def test_truncated_frame_looks_like_the_end_to_botocore() -> None:
    content, exceptions = payloads(play(Plan(faults=(Fault(kind="truncated-frame", after_parts=3),)), TEN))
    assert (content, exceptions) == (b"0;1;2;", [])


def test_waits() -> None:
    plan = Plan(faults=(Fault(kind="trickle", ms=7), Fault(kind="stall", after_parts=2, ms=90)))
    actions = play(plan, TEN[:3])
    assert [a.ms for a in actions if isinstance(a, Wait)] == [7, 7, 90, 7]
    assert Wait(None) in play(Plan(faults=(Fault(kind="stall", after_parts=1),)), TEN)


@given(seed=st.integers(0, 2**40))
def test_jitter_and_probability_follow_the_seed(seed: int) -> None:
    plan = Plan(
        slicing=Slicing("random", 5),
        faults=(Fault(kind="jitter", ms=50), Fault(kind="end", after_parts=2, probability=0.5)),
    )
    assert play(plan, TEN, seed) == play(plan, TEN, seed)


def test_probability_is_a_share() -> None:
    plan = Plan(faults=(Fault(kind="end", after_parts=0, probability=0.25),))
    struck = sum(len(play(plan, TEN, seed)) == 1 for seed in range(2000))
    assert 400 < struck < 600


@given(request=st.integers(0, 50), skip=st.integers(0, 10), every=st.integers(1, 5), times=st.integers(0, 4))
def test_schedule_against_a_naive_count(request: int, skip: int, every: int, times: int) -> None:
    fault = Fault(kind="end", skip=skip, every=every, times=times)
    chosen = [n for n in range(51) if n >= skip and (n - skip) % every == 0]
    assert fault.strikes(request) == (request in (chosen[:times] if times else chosen))


@pytest.mark.parametrize("kind", REFUSING)
def test_refusals_come_before_the_first_byte(kind: Kind) -> None:
    fault = HostileStream(Plan(faults=(Fault(kind=kind),)), 1).refusal()
    assert fault is not None
    error = refusal(fault, Endpoint("e", "arn:aws:sagemaker:r:a:endpoint/e", "r", "a", ()), "primary")
    assert 400 <= error.status <= 503
    assert error.message


@given(kind=st.sampled_from(ENDING), parts=st.integers(0, 12))
def test_every_stream_ends_exactly_once(kind: Kind, parts: int) -> None:
    actions = play(Plan(faults=(Fault(kind=kind, after_parts=parts),) * 2), TEN)
    assert sum(isinstance(action, End) for action in actions) == 1
    assert isinstance(actions[-1], End)


def test_a_byte_limit_waits_for_the_part_limit_beside_it() -> None:
    plan = Plan(faults=(Fault(kind="end", after_bytes=3, after_parts=4),))
    assert payloads(play(plan, TEN))[0] == b"0;1;2;3;"


def test_a_plain_body_is_cut_where_the_rule_says_and_knows_no_frames() -> None:
    def body(*faults: Fault) -> list[Action]:
        return HostileStream(Plan(faults=faults), 1, plain=True).body(b"0123456789", 5.0)[1:]

    assert body(Fault(kind="bad-crc"), Fault(kind="trickle", ms=9)) == [Send(b"0123456789"), End("clean")]
    assert body(Fault(kind="end", after_bytes=4)) == [Send(b"0123"), End("clean")]
    assert body(Fault(kind="reset", after_bytes=10)) == [Send(b"0123456789"), End("reset")]
    assert body(Fault(kind="reset", after_bytes=2), Fault(kind="stall", after_bytes=1, ms=7)) == [
        Send(b"0"),
        Wait(7),
        Send(b"1"),
        End("reset"),
    ]
    assert body(Fault(kind="end", after_parts=1), Fault(kind="end", after_ms=6)) == [Send(b"0123456789"), End("clean")]
