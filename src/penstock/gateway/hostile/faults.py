"""What one stream does under a plan: chunks in, actions out.

Owns the decisions and nothing else: no clock, no socket. Time comes in as milliseconds since the request, randomness as a seed, and the
actions go out for the relay to carry out one after another. The same plan, seed and bytes give the same actions.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

from penstock.errors import AwsError
from penstock.faultplan import ENDING, REFUSING, Fault, Plan
from penstock.gateway import failures
from penstock.gateway.hostile.slicing import Slicer, slicer
from penstock.wire.eventstream import exception_frame, part_frame

Ending = Literal["clean", "reset"]


@dataclass(frozen=True, slots=True)
class Begin:
    """Send the answer's head."""


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
    """The answer is over and nothing follows: "clean" ends the body, "reset" breaks the connection (TCP RST)."""

    how: Ending


Action = Begin | Send | Wait | End


@dataclass(slots=True)
class HostileStream:
    """One stream under a plan. `number` is the request's, counted since the plan was set; `seed` is told in `X-Penstock-Seed`.

    Chunks are cut by `slicer`; each part that comes of it goes through `deliver` when its turn has come.
    """

    plan: Plan
    seed: int
    number: int = 0
    container: str = "primary"
    plain: bool = False
    """InvokeEndpoint's answer: one body and no frames, so that only some rules make sense."""
    parts: int = 0
    sent: int = 0
    ended: bool = False
    slicer: Slicer = field(init=False)
    _faults: list[Fault] = field(init=False)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - reproducible on purpose
        # One draw a rule, struck or not, so that a rule's fate does not hang on its neighbours' schedules.
        fates = [self._random.random() < fault.probability for fault in self.plan.faults]
        chosen = [f for f, fate in zip(self.plan.faults, fates, strict=True) if fate and f.strikes(self.number)]
        self._faults = [f for f in chosen if not self.plain or f.kind in _OF_PLAIN_ANSWERS]
        self.slicer = slicer(self.plan.slicing, self.seed)

    def refusal(self) -> Fault | None:
        """The rule, if there is one, that answers with an error in place of a stream. The container is not asked."""
        return next((fault for fault in self._faults if fault.kind in REFUSING), None)

    def begin(self) -> list[Action]:
        """What happens when the container has begun its answer."""
        delay = sum(fault.ms for fault in self._faults if fault.kind == "slow-first-byte")
        return [Wait(delay), Begin()] if delay else [Begin()]

    def next_due_ms(self, elapsed_ms: float) -> int | None:
        """The next moment, in ms since the request, at which `tick` may have something to say; None is never."""
        due = [f.after_ms for f in self._faults if f.after_ms is not None and f.kind in (*ENDING, "stall")]
        return min((ms for ms in due if ms > elapsed_ms), default=None)

    def tick(self, elapsed_ms: float) -> list[Action]:
        """What happens because of the time alone."""
        return self._strike(elapsed_ms)

    def deliver(self, part: bytes, elapsed_ms: float) -> list[Action]:
        """What becomes of a part."""
        actions = self._strike(elapsed_ms)
        if self.ended:
            return actions
        if delay := self._delay(elapsed_ms):
            actions.append(Wait(delay))
        cut = self._cut(part, elapsed_ms)
        actions.append(Send(part_frame(cut)))
        self.sent += len(cut)
        self.parts += 1
        return actions + self._strike(elapsed_ms)

    def finish(self, elapsed_ms: float) -> list[Action]:
        """What happens when all that the container sent is delivered."""
        actions = self._strike(elapsed_ms)
        if not self.ended:
            self.ended = True
            actions.append(End("clean"))
        return actions

    def body(self, content: bytes, elapsed_ms: float) -> list[Action]:
        """What becomes of a plain answer's body. An end before its last byte leaves it too short."""
        actions = self.begin()
        at = 0
        for fault in sorted((f for f in self._faults if f.kind in _OF_BODIES), key=_where):
            if (place := _where(fault)) > len(content) or (fault.after_ms or 0) > elapsed_ms:
                continue
            self._faults.remove(fault)
            if place > at:
                actions.append(Send(content[at:place]))
                at = place
            if fault.kind != "stall":
                self.ended = True
                return [*actions, End("reset" if fault.kind == "reset" else "clean")]
            actions.append(Wait(fault.ms or None))
        self.ended = True
        return [*actions, Send(content[at:]), End("clean")]

    def _cut(self, part: bytes, elapsed_ms: float) -> bytes:
        """The part, shortened where a rule ends the stream inside it: `after_bytes` is exact."""
        room = len(part)
        for fault in self._faults:
            if fault.kind in ENDING and fault.after_bytes is not None and fault.after_bytes >= self.sent:
                in_parts = fault.after_parts is None or self.parts + 1 >= fault.after_parts
                if in_parts and (fault.after_ms is None or elapsed_ms >= fault.after_ms):
                    room = min(room, fault.after_bytes - self.sent)
        return part[:room]

    def _delay(self, elapsed_ms: float) -> int:
        total = 0
        for fault in self._faults:
            if fault.kind == "trickle" and self._reached(fault, elapsed_ms):
                total += fault.ms
            elif fault.kind == "jitter" and self._reached(fault, elapsed_ms):
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
                actions += _ending(fault, self.container)
        return actions


_OF_BODIES = ("stall", "reset", "end")
_OF_PLAIN_ANSWERS = (*REFUSING, *_OF_BODIES, "slow-first-byte")


def _where(fault: Fault) -> int:
    """Before which byte of a plain body a rule strikes; beyond every body where it waits for a second part."""
    if fault.after_parts:
        return 1 << 62
    return fault.after_bytes or 0


def _ending(fault: Fault, container: str) -> list[Action]:
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
    return [Send(exception_frame(_exception(fault, container))), End("clean")]


def _exception(fault: Fault, container: str) -> AwsError:
    if fault.kind == "InternalStreamFailure":
        message = "The stream processing failed because of an unknown error, exception or failure."
        return AwsError("InternalStreamFailure", fault.message or message, status=500)
    late = fault.error_code == "ModelInvocationTimeExceeded"
    error = failures.stream_timed_out(container) if late else failures.stream_broken(container)
    return AwsError(error.code, fault.message or error.message, members=error.members)
