"""What a replay is made of: a script for the container and a plan for the end."""

from __future__ import annotations

import json

import pytest

from penstock import faultplan
from penstock.servers.scripted.script import parse_script
from penstock.tape import Edge, Failure, Head, Part, Tape, replay

HEAD = Head(endpoint="e", status=200, headers={"x-amzn-sagemaker-content-type": "text/x"})
PARTS = (Part(10, b"a"), Part(15, b""), Part(20, b"\xff"))


def scripted(tape: Tape, speed: float | None = 1.0) -> list[dict[str, object]]:
    script = replay.script(tape, speed)
    parse_script(json.dumps(script))
    steps: list[dict[str, object]] = script["steps"]
    return steps


def test_a_clean_stream_is_a_script_alone() -> None:
    tape = Tape(HEAD, PARTS, Edge(40, "clean"))
    status = {"status": 200, "headers": {"content-type": "text/x"}}
    assert scripted(tape, 2.0) == [
        status,
        {"at_ms": 5},
        {"base64": "YQ=="},
        {"at_ms": 10},
        {"base64": "/w=="},
        {"at_ms": 20},
    ]
    assert scripted(tape, None) == [status, {"base64": "YQ=="}, {"base64": "/w=="}]
    assert replay.plan(tape) is None


@pytest.mark.parametrize(
    ("last", "fault"),
    [
        (Failure(20, "ModelStreamError", "m", {"ErrorCode": "StreamBroken"}),
         {"kind": "ModelStreamError", "message": "m", "error_code": "StreamBroken"}),
        (Failure(20, "InternalStreamFailure", "m"), {"kind": "InternalStreamFailure", "message": "m"}),
        (Failure(20, "SomethingNew", "m"), {"kind": "InternalStreamFailure", "message": "m"}),
        (Edge(20, "reset"), {"kind": "reset"}),
        (Edge(20, "timeout"), {"kind": "stall"}),
        (Edge(20, "damaged"), {"kind": "bad-crc"}),
    ],
)  # fmt: skip
def test_the_end_is_a_plan_after_the_parts_that_are_sent(last: Failure | Edge, fault: dict[str, object]) -> None:
    plan = replay.plan(Tape(HEAD, PARTS, last))
    assert plan == {"faults": [{**fault, "after_parts": 2}]}
    faultplan.parse(json.dumps(plan))


def test_an_end_that_came_late_comes_late_again() -> None:
    plan = replay.plan(Tape(HEAD, PARTS, Edge(220, "reset")), 2.0)
    assert plan == {"faults": [{"kind": "stall", "after_parts": 2, "ms": 100}, {"kind": "reset", "after_parts": 2}]}


def test_a_containers_error_is_the_containers_again() -> None:
    members: dict[str, str | int] = {"OriginalStatusCode": 507, "OriginalMessage": "full"}
    tape = Tape(HEAD, (), Failure(5, "ModelError", "…", members))
    assert scripted(tape, None) == [{"status": 507, "headers": {"content-type": "text/plain"}}, {"send": "full"}]
    assert replay.plan(tape) is None


@pytest.mark.parametrize(("code", "kind"), [("ThrottlingException", "Throttling"), ("ModelError", "dead-instance")])
def test_a_refusal_is_a_plan(code: str, kind: str) -> None:
    tape = Tape(Head(endpoint="e", status=400), (), Failure(5, code, "text"))
    assert replay.plan(tape) == {"faults": [{"kind": kind, "message": "text"}]}


@pytest.mark.parametrize(("text", "speed"), [("original", 1.0), ("none", None), ("2.5", 2.5)])
def test_speeds(text: str, speed: float | None) -> None:
    assert replay.read_speed(text) == speed


@pytest.mark.parametrize("text", ["", "fast", "0", "-1", "nan", "inf"])
def test_speeds_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="speed"):
        replay.read_speed(text)
