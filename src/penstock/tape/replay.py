"""What a replay of a tape needs: a script for the container, and a fault plan for the end that a container can't bring about.

Owns the translation. Pure; it must never serve or deploy anything.
"""

from __future__ import annotations

import base64
from typing import Any

from penstock.tape.form import Edge, Failure
from penstock.tape.whole import Tape

_PASSED_ON = ("x-amzn-sagemaker-custom-attributes",)
_REFUSALS = {
    "InternalFailure": "InternalFailure",
    "InternalServerException": "InternalFailure",
    "ServiceUnavailable": "ServiceUnavailable",
    "ModelNotReadyException": "ModelNotReady",
    "ThrottlingException": "Throttling",
    "ModelError": "dead-instance",
}
_EDGES = {"reset": "reset", "broken": "reset", "damaged": "bad-crc", "timeout": "stall"}


def read_speed(text: str) -> float | None:
    """How fast: `original` is 1, `none` is None, without any waiting, else a number. Raises ValueError."""
    if text in ("original", "none"):
        return 1.0 if text == "original" else None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.001 <= speed <= 1e6:
        raise ValueError(f"a tape's speed is original, none, or a number from 0.001 to 1000000, not {text!r}")
    return speed


def script(tape: Tape, speed: float | None = 1.0) -> dict[str, Any]:
    """A script of the scripted server. `speed` 2 is twice as fast, None without any waiting.

    An HTTP chunk can't be empty, so that parts without content are left out.
    """
    if _of_container(tape.last):
        assert isinstance(tape.last, Failure), "just asked"
        members = tape.last.members
        status = {"status": int(members["OriginalStatusCode"]), "headers": {"content-type": "text/plain"}}
        return {"steps": [*_at(tape.last.t, speed), status, {"send": str(members.get("OriginalMessage", ""))}]}
    headers = {name: tape.head.headers[name] for name in _PASSED_ON if name in tape.head.headers}
    kind = tape.head.headers.get("x-amzn-sagemaker-content-type", "application/octet-stream")
    steps: list[dict[str, Any]] = [{"status": 200, "headers": {"content-type": kind, **headers}}]
    for part in tape.parts:
        if part.content:
            steps += [*_at(part.t, speed), {"base64": base64.b64encode(part.content).decode()}]
    return {"steps": [*steps, *_at(tape.last.t, speed)]}


def _at(t: float, speed: float | None) -> list[dict[str, Any]]:
    return [] if speed is None else [{"at_ms": t / speed}]


def _of_container(last: Failure | Edge) -> bool:
    """Whether the container's own error was the answer: it can give that again."""
    return (
        isinstance(last, Failure)
        and last.code == "ModelError"
        and int(last.members.get("OriginalStatusCode", 0)) >= 400
    )


def plan(tape: Tape, speed: float | None = 1.0) -> dict[str, Any] | None:
    """The fault plan that ends the replay as the tape ends; None where the container can do so by itself."""
    last = tape.last
    if _of_container(last) or (isinstance(last, Edge) and last.how == "clean"):
        return None
    if isinstance(last, Failure) and tape.head.status >= 400:
        return {"faults": [{"kind": _REFUSALS.get(last.code, "InternalFailure"), "message": last.message}]}
    after = sum(1 for part in tape.parts if part.content)
    faults: list[dict[str, Any]] = []
    pause = (last.t - (tape.parts[-1].t if tape.parts else 0.0)) / speed if speed else 0
    if pause >= 1 and not (isinstance(last, Edge) and last.how == "timeout"):
        faults.append({"kind": "stall", "after_parts": after, "ms": round(pause)})
    fault: dict[str, Any] = {"kind": _EDGES.get(last.how, "reset")} if isinstance(last, Edge) else {"kind": last.code}
    if isinstance(last, Failure):
        fault["message"] = last.message
        if fault["kind"] == "ModelStreamError" and "ErrorCode" in last.members:
            fault["error_code"] = last.members["ErrorCode"]
        elif fault["kind"] not in ("ModelStreamError", "InternalStreamFailure"):
            fault["kind"] = "InternalStreamFailure"
    return {"faults": [*faults, {**fault, "after_parts": after}]}
