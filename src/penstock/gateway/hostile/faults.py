"""What one stream does under a plan: chunks in, actions out.

Owns the decisions and nothing else: no clock, no socket. Time comes in as milliseconds since the request, randomness as a seed, and the
actions go out for the relay to carry out one after another. The same plan, seed and bytes give the same actions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from penstock.errors import AwsError
from penstock.gateway.hostile.plan import ENDING, REFUSING, Fault, Plan
from penstock.gateway.hostile.slicing import Slicer, slicer
from penstock.wire.eventstream import exception_frame, part_frame

Ending = Literal["clean", "reset"]


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes: whole frames, or what a fault made of one."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so long; `ms` None is until the client or a time-out ends it."""

    ms: int | None


@dataclass(frozen=True, slots=True)
class End:
    """The stream is over: "clean" ends the chunked body, "reset" breaks the connection (TCP RST). Nothing follows."""

    how: Ending


Action = Send | Wait | End


@dataclass(slots=True)
class HostileStream:
    """One stream under a plan. `number` is the request's, counted since the plan was set; `seed` is told in `X-Penstock-Seed`."""

    plan: Plan
    seed: int
    number: int = 0
    parts: int = 0
    sent: int = 0
    ended: bool = False
    _faults: list[Fault] = field(init=False)
    _slicer: Slicer = field(init=False)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - reproducible on purpose
        # One draw a rule, struck or not, so that a rule's fate does not hang on its neighbours' schedules.
        fates = [self._random.random() < fault.probability for fault in self.plan.faults]
        self._faults = [f for f, fate in zip(self.plan.faults, fates, strict=True) if fate and f.strikes(self.number)]
        self._slicer = slicer(self.plan.slicing, self.seed)

    def refusal(self) -> AwsError | None:
        """The error to answer with in place of a stream, if a rule says so. The container is not asked."""
        for fault in self._faults:
            if fault.kind in REFUSING:
                return _refusal(fault)
        return None

    def first_byte_delay_ms(self) -> int:
        """How long to hold back the head of the answer."""
        return sum(fault.ms for fault in self._faults if fault.kind == "slow-first-byte")

    def next_due_ms(self) -> int | None:
        """The next moment, in ms since the request, at which `tick` has something to say; None is never."""
        due = [f.after_ms for f in self._faults if f.after_ms is not None and f.kind in (*ENDING, "stall")]
        return min(due, default=None)

    def tick(self, elapsed_ms: float) -> list[Action]:
        """What happens because of the time alone."""
        return self._strike(elapsed_ms)

    def feed(self, chunk: bytes, elapsed_ms: float) -> list[Action]:
        """What becomes of a chunk of the container's."""
        return self._deliver(self._slicer.feed(chunk), elapsed_ms)

    def finish(self, elapsed_ms: float) -> list[Action]:
        """What happens when the container has ended its answer."""
        actions = self._deliver(self._slicer.flush(), elapsed_ms)
        if not self.ended:
            self.ended = True
            actions.append(End("clean"))
        return actions

    def _deliver(self, parts: Sequence[bytes], elapsed_ms: float) -> list[Action]:
        actions: list[Action] = []
        for part in parts:
            actions += self._strike(elapsed_ms)
            if self.ended:
                break
            if delay := self._delay():
                actions.append(Wait(delay))
            cut = self._cut(part)
            actions += [Send(part_frame(piece)) for piece in cut]
            self.sent += sum(map(len, cut))
            self.parts += 1
            if len(cut[0]) < len(part):
                actions += self._strike(elapsed_ms)
                break
        else:
            actions += self._strike(elapsed_ms)
        return actions

    def _cut(self, part: bytes) -> list[bytes]:
        """The part, shortened where a rule ends the stream inside it: `after_bytes` is exact."""
        limits = [f.after_bytes - self.sent for f in self._faults if f.kind in ENDING and f.after_bytes is not None]
        room = min((limit for limit in limits if limit >= 0), default=len(part))
        return [part[:room]] if room < len(part) else [part]

    def _delay(self) -> int:
        total = 0
        for fault in self._faults:
            if fault.kind == "trickle" and self._reached(fault, 0):
                total += fault.ms
            elif fault.kind == "jitter" and self._reached(fault, 0):
                total += self._random.randint(0, fault.ms)
        return total

    def _reached(self, fault: Fault, elapsed_ms: float) -> bool:
        return (
            (fault.after_parts is None or self.parts >= fault.after_parts)
            and (fault.after_bytes is None or self.sent >= fault.after_bytes)
            and (fault.after_ms is None or elapsed_ms >= fault.after_ms)
        )

    def _strike(self, elapsed_ms: float) -> list[Action]:
        """The faults that are due now, in the plan's order, up to one that ends the stream."""
        actions: list[Action] = []
        for fault in list(self._faults):
            if self.ended or not self._reached(fault, elapsed_ms):
                continue
            if fault.kind == "stall":
                self._faults.remove(fault)
                actions.append(Wait(fault.ms or None))
            elif fault.kind in ENDING:
                self._faults.remove(fault)
                self.ended = True
                actions += _ending(fault)
        return actions


def _ending(fault: Fault) -> list[Action]:
    if fault.kind == "reset":
        return [End("reset")]
    if fault.kind == "end":
        return [End("clean")]
    if fault.kind == "bad-crc":
        frame = part_frame(b"these bytes never reach a careful reader")
        return [Send(frame[:-1] + bytes([frame[-1] ^ 0xFF])), End("clean")]
    if fault.kind == "truncated-frame":
        # Half a frame and a clean end: boto3 takes it for the end of the answer, which is the trap to test.
        frame = part_frame(b"these bytes never reach anybody")
        return [Send(frame[: len(frame) // 2]), End("clean")]
    if fault.kind == "InternalStreamFailure":
        message = fault.message or "The stream processing failed because of an unknown error, exception or failure."
        return [Send(exception_frame(AwsError("InternalStreamFailure", message, status=500))), End("clean")]
    message = fault.message or _STREAM_TEXTS[fault.error_code]
    error = AwsError("ModelStreamError", message, members={"ErrorCode": fault.error_code})
    return [Send(exception_frame(error)), End("clean")]


_STREAM_TEXTS = {
    "ModelInvocationTimeExceeded": (
        "Your model primary did not complete sending the inference response in the allotted time."
    ),
    "StreamBroken": "The TCP connection between the client and the model was broken.",
}


def _refusal(fault: Fault) -> AwsError:
    text = fault.message
    if fault.kind == "ModelError":
        side = "client" if fault.status < 500 else "server"
        text = text or f'Received {side} error ({fault.status}) from primary with message "injected by a fault plan".'
        members: dict[str, str | int] = {
            "ErrorCode": f"{side.upper()}_ERROR_FROM_MODEL",
            "OriginalStatusCode": fault.status,
            "OriginalMessage": "injected by a fault plan",
        }
        return AwsError("ModelError", text, status=424, members=members)
    if fault.kind == "dead-instance":
        text = text or (
            'Received server error (0) from primary with message "Amazon SageMaker could not get a response from the endpoint. '
            'This can occur when CPU or memory utilization is high.".'
        )
        return AwsError("ModelError", text, status=424, members={"OriginalStatusCode": 0, "OriginalMessage": ""})
    code, status, default = _REFUSALS[fault.kind]
    return AwsError(code, text or default, status=status)


_REFUSALS = {
    "InternalFailure": ("InternalFailure", 500, "An internal failure occurred. Try your request again."),
    "ServiceUnavailable": ("ServiceUnavailable", 503, "The service is currently unavailable."),
    "ModelNotReady": ("ModelNotReadyException", 429, "The model is not ready yet. Try your request again."),
    "Throttling": ("ThrottlingException", 400, "Rate exceeded"),
    "expired-session": ("ValidationError", 400, "The session has expired or does not exist."),
}
