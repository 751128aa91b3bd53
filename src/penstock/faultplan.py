"""The rules of a misbehaving stream, as people write them.

Owns the value, its two spellings and their errors. It must never act: `gateway/hostile` turns a plan and a seed into what one stream
does, and control keeps plans as text. In JSON, and in words for tags, whose values AWS allows neither braces nor quotes:

    {"slicing": {"mode": "bytes", "size": 7}, "faults": [{"kind": "ModelStreamError", "after_parts": 5, "probability": 0.5}]}
    mode=bytes size=7 kind=ModelStreamError after_parts=5 probability=0.5
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

import msgspec

TAG = "penstock:faults"
"""The endpoint tag whose value is a plan."""

Mode = Literal["as-is", "coalesce", "bytes", "json", "sse", "utf8", "one-byte", "empty", "random"]
MODES: tuple[Mode, ...] = get_args(Mode)
LARGEST_SIZE = 1 << 20
MAX_TEXT = 16 * 1024
"""Characters of a plan's text."""

Refusing = Literal[
    "ModelError",
    "InternalFailure",
    "ServiceUnavailable",
    "ModelNotReady",
    "Throttling",
    "expired-session",
    "dead-instance",
]
"""Before the first byte: an error answer in place of the stream."""
Ending = Literal["ModelStreamError", "InternalStreamFailure", "reset", "end", "bad-crc", "truncated-frame"]
"""In the middle: how the stream ends."""
Slowing = Literal["slow-first-byte", "stall", "trickle", "jitter"]
"""Time: the stream goes on, or would."""
Kind = Literal[Refusing, Ending, Slowing]

REFUSING: tuple[str, ...] = get_args(Refusing)
ENDING: tuple[str, ...] = get_args(Ending)
SLOWING: tuple[str, ...] = get_args(Slowing)
ERROR_CODES = ("ModelInvocationTimeExceeded", "StreamBroken")
"""`ModelStreamError`'s ErrorCodes (API reference, `ModelStreamError`)."""


@dataclass(frozen=True, slots=True)
class Slicing:
    """A mode with its numbers. `size` is chunks for "coalesce", bytes for "bytes", the largest part for "random" (0: 64)."""

    mode: Mode = "as-is"
    size: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError on an unknown mode or a size that the mode can't have."""
        if self.mode not in MODES:
            raise ValueError(f"slicing mode must be one of {', '.join(MODES)}, not {self.mode!r}")
        if self.mode in ("coalesce", "bytes") and not 1 <= self.size <= LARGEST_SIZE:
            raise ValueError(f"slicing {self.mode!r} needs a size from 1 to {LARGEST_SIZE}, not {self.size}")
        if not 0 <= self.size <= LARGEST_SIZE:
            raise ValueError(f"slicing size must be from 0 to {LARGEST_SIZE}, not {self.size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One rule. It happens once what is `after_…` has been sent or has passed, to the requests that the last four fields choose."""

    kind: Kind
    after_parts: int | None = None
    after_bytes: int | None = None
    after_ms: int | None = None
    error_code: Literal["ModelInvocationTimeExceeded", "StreamBroken"] = "StreamBroken"
    """Of ModelStreamError."""
    message: str = ""
    """Empty takes AWS's wording."""
    status: int = 500
    """Of ModelError: what the container is said to have answered (OriginalStatusCode)."""
    ms: int = 0
    """How long: "slow-first-byte" and "stall" wait so long (a stall of 0 is for ever), "trickle" before each part, "jitter" at most."""
    probability: float = 1.0
    skip: int = 0
    """The first so many requests are left alone."""
    every: int = 1
    """Of the others, each so-manieth is struck, the first of them first."""
    times: int = 0
    """At most so many requests are struck; 0 is no bound."""

    def __post_init__(self) -> None:
        """Raises ValueError, naming the field, on a value out of range."""
        for name in ("after_parts", "after_bytes", "after_ms", "ms", "skip", "times"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 2**31:
                raise ValueError(f"`{name}` must be from 0 to {2**31}, not {value}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"`probability` must be from 0 to 1, not {self.probability}")
        if self.every < 1:
            raise ValueError(f"`every` must be at least 1, not {self.every}")
        if not 400 <= self.status <= 599:
            raise ValueError(f"`status` must be from 400 to 599, not {self.status}")
        if self.kind in REFUSING and (self.after_parts or self.after_bytes or self.after_ms):
            raise ValueError(f"{self.kind!r} happens before the first byte: it takes no `after_…`")

    def strikes(self, request: int) -> bool:
        """Whether the schedule chooses the request of this number, counted from 0 since the plan was set."""
        turn, past = divmod(request - self.skip, self.every)
        return request >= self.skip and past == 0 and (self.times == 0 or turn < self.times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an endpoint's streams do. `allow_header`: a request may bring a plan of its own in `X-Penstock-Faults`."""

    slicing: Slicing = field(default_factory=Slicing)
    faults: tuple[Fault, ...] = ()
    seed: int | None = None
    """Fixes the seed of the first request; each further request's is one more. None draws one for each."""
    allow_header: bool = False

    def __post_init__(self) -> None:
        if len(self.faults) > 32:
            raise ValueError(f"a plan holds at most 32 faults, not {len(self.faults)}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError("`seed` must be from 0 to 2**63 - 1")

    @property
    def off(self) -> bool:
        """Whether streams pass untouched: nothing of this package then stands in their path."""
        return self.slicing.mode == "as-is" and not self.faults


_decoder = msgspec.json.Decoder(Plan)


def parse(text: str) -> Plan:
    """A plan from JSON or from words. Raises ValueError, in one line that says where, on anything else."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"a plan has at most {MAX_TEXT} characters, not {len(text)}")
    if "=" in text and not text.lstrip().startswith(("{", "[", '"')):
        text = msgspec.json.encode(_from_words(text.split())).decode()
    try:
        _reject_unknown(msgspec.json.decode(text))
        return _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise ValueError(str(error)) from None


def _from_words(words: list[str]) -> dict[str, object]:
    """`mode=` and `size=` are the slicing's, each `kind=` begins a fault, and what follows it is that fault's."""
    plan: dict[str, object] = {}
    faults: list[dict[str, object]] = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"a plan in words is made of name=value, and {word!r} is none")
        value = _value(text)
        if name in ("mode", "size"):
            slicing = plan.setdefault("slicing", {})
            assert isinstance(slicing, dict), "made here"
            slicing[name] = value
        elif name in ("seed", "allow_header"):
            plan[name] = value
        elif name == "kind":
            faults.append({"kind": value})
        elif faults:
            faults[-1][name] = value
        else:
            raise ValueError(f"`{name}` stands before any `kind=`, which begins a fault")
    return plan | ({"faults": faults} if faults else {})


def _value(text: str) -> object:
    try:
        return msgspec.json.decode(text, type=int | float | bool)
    except msgspec.MsgspecError:
        return text


def render(plan: Plan) -> str:
    """A plan as JSON that `parse` takes, defaults left out."""
    document = msgspec.to_builtins(plan)
    kept = {k: v for k, v in document.items() if v != _PLAN_DEFAULTS[k] or (k == "seed" and v is not None)}
    if kept.get("slicing", {}).get("size") == 0:
        del kept["slicing"]["size"]
    if "faults" in kept:
        kept["faults"] = [_written(fault) for fault in document["faults"]]
    return msgspec.json.encode(kept).decode()


_PLAN_DEFAULTS = msgspec.to_builtins(Plan())
_DEFAULTS = msgspec.to_builtins(Fault(kind="end"))


def _written(fault: dict[str, object]) -> dict[str, object]:
    return {k: v for k, v in fault.items() if k == "kind" or v != _DEFAULTS[k]}


def _reject_unknown(document: object) -> None:
    """A misspelt field must not be a rule that does nothing."""
    if not isinstance(document, dict):
        return
    _known(document, Plan, "$")
    if isinstance(slicing := document.get("slicing"), dict):
        _known(slicing, Slicing, "$.slicing")
    faults = document.get("faults")
    for i, fault in enumerate(faults if isinstance(faults, list) else []):
        if isinstance(fault, dict):
            _known(fault, Fault, f"$.faults[{i}]")


def _known(document: dict[str, object], kind: type[Plan | Slicing | Fault], where: str) -> None:
    known = [f.name for f in fields(kind)]
    for name in document:
        if name not in known:
            raise ValueError(f"unknown field `{name}` - at `{where}`; known are: {', '.join(known)}")
