"""The script's language: JSON in, checked values out.

Owns the schema that docs/scripted.md describes and every complaint about a script. Pure; it must never know how a step is carried out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

NESTING = 8
"""How deep `repeat` may lie in `repeat`."""


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a script; a member that it does not know is an error."""


class Status(_Strict, frozen=True, kw_only=True):
    """Begin the answer. Without it, it begins with 200 and the request's content type."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    headers: dict[str, str] = {}


class Send(_Strict, frozen=True, kw_only=True):
    """Text, `times` over, each one HTTP chunk, `every_ms` apart."""

    send: str
    times: Count = 1
    every_ms: Milliseconds = 0


class Base64(_Strict, frozen=True, kw_only=True):
    """Bytes, as `send` sends text."""

    base64: bytes
    times: Count = 1
    every_ms: Milliseconds = 0


class Sse(_Strict, frozen=True, kw_only=True):
    """A server-sent event, as one chunk: `data` is a string as it is, or any other JSON value in compact form."""

    sse: Any
    event: str = ""
    times: Count = 1
    every_ms: Milliseconds = 0


class JsonLine(_Strict, frozen=True, kw_only=True):
    """A JSON value in compact form and a line feed, as one chunk."""

    jsonline: Any
    times: Count = 1
    every_ms: Milliseconds = 0


class Wait(_Strict, frozen=True, kw_only=True):
    wait_ms: Milliseconds


class At(_Strict, frozen=True, kw_only=True):
    """Wait until so long after the request came; times of such steps do not add up to more than they say."""

    at_ms: Milliseconds


class Echo(_Strict, frozen=True, kw_only=True):
    """The request's body in `pieces` chunks of nearly the same length, or its headers as one chunk of JSON."""

    echo: Literal["body", "headers"]
    pieces: Count = 1


class End(_Strict, frozen=True, kw_only=True):
    """End otherwise than well: `close` the connection, `reset` it, `stall` until the client leaves, or `exit` the whole process."""

    end: Literal["close", "reset", "stall", "exit"]
    code: int = 1


class Repeat(_Strict, frozen=True, kw_only=True):
    """Steps, `repeat` times over."""

    repeat: Count
    steps: tuple[Any, ...]


Step: TypeAlias = Status | Send | Base64 | Sse | JsonLine | Wait | At | Echo | End | Repeat

_STEPS: dict[str, type[Step]] = {
    "status": Status,
    "send": Send,
    "base64": Base64,
    "sse": Sse,
    "jsonline": JsonLine,
    "wait_ms": Wait,
    "at_ms": At,
    "echo": Echo,
    "end": End,
    "repeat": Repeat,
}


class Ping(_Strict, frozen=True, kw_only=True):
    """How `/ping` behaves. Times count from the moment it listens, numbers from the first ping."""

    status: int = 200
    ready_after_ms: Milliseconds = 0
    """Until then it answers 503."""
    fail_after: Count | None = None
    """After so many pings it answers 503."""
    recover_after: Count | None = None
    """After so many pings it answers `status` again."""
    wait_ms: Milliseconds = 0
    """How long each answer takes."""


class Start(_Strict, frozen=True, kw_only=True):
    """What happens before it listens: a wait, then, with `fail`, its end with that reason."""

    wait_ms: Milliseconds = 0
    fail: str = ""
    code: int = 1


class Die(_Strict, frozen=True, kw_only=True):
    """When the process ends by itself, with exit status `code`; never while all are null."""

    after_pings: Count | None = None
    after_requests: Count | None = None
    after_ms: Milliseconds | None = None
    after_loads: Count | None = None
    """Instead of answering that load of a model."""
    code: int = 1


class Sessions(_Strict, frozen=True, kw_only=True):
    """Stateful sessions. `dialect` chooses the header that names a new session: AWS's documentation's or AWS's library's."""

    ttl_s: Annotated[float, msgspec.Meta(ge=0)] = 1200
    dialect: Literal["documentation", "library"] = "documentation"


class Models(_Strict, frozen=True, kw_only=True):
    """Of a multi-model server: how many models may be loaded at a time; a further load is answered with 507."""

    capacity: Count | None = None


class _Frame(_Strict, frozen=True, kw_only=True):
    choose: str = ""
    """The member of a JSON request body that names one of `scripts`, or holds steps itself. Empty: nothing is chosen."""
    ping: Ping = Ping()
    start: Start = Start()
    die: Die = Die()
    sessions: Sessions | None = None
    models: Models = Models()
    ignore_sigterm: bool = False


class Script(_Frame, frozen=True, kw_only=True):
    """A whole script."""

    steps: tuple[Step, ...]
    scripts: dict[str, tuple[Step, ...]] = {}


DEFAULT = Script(steps=(Echo(echo="body", pieces=4),))
"""What is played without any script: the request's body comes back in four chunks."""


def parse_script(text: str | bytes) -> Script:
    """A script from JSON. Raises ValueError, one line that names the place."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the script is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("the script must be a JSON object")
    try:
        frame = msgspec.convert({k: v for k, v in value.items() if k not in ("steps", "scripts")}, _Frame)
    except msgspec.ValidationError as error:
        raise ValueError(f"the script: {error}") from None
    scripts = value.get("scripts", {})
    if not isinstance(scripts, dict):
        raise ValueError("scripts must be an object whose members are lists of steps")
    return Script(
        steps=parse_steps(value["steps"]) if "steps" in value else DEFAULT.steps,
        scripts={name: parse_steps(steps, f"scripts.{name}") for name, steps in scripts.items()},
        **msgspec.structs.asdict(frame),
    )


def parse_steps(value: Any, where: str = "steps", depth: int = 0) -> tuple[Step, ...]:
    """Steps from a JSON value. Raises ValueError as `parse_script` does."""
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list of steps")
    if depth > NESTING:
        raise ValueError(f"{where}: repeat lies too deep, {NESTING} levels are the most")
    return tuple(_parse_step(item, f"{where}[{i}]", depth) for i, item in enumerate(value))


def _parse_step(value: Any, where: str, depth: int) -> Step:
    verbs = [k for k in value if k in _STEPS] if isinstance(value, Mapping) else []
    if len(verbs) != 1:
        raise ValueError(f"{where} must be an object with exactly one of {', '.join(_STEPS)}")
    try:
        step = msgspec.convert(value, _STEPS[verbs[0]])
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from None
    match step:
        case Repeat():
            return Repeat(repeat=step.repeat, steps=parse_steps(list(step.steps), f"{where}.steps", depth + 1))
        case Status() if any(c in name + text for name, text in step.headers.items() for c in "\r\n\0"):
            raise ValueError(f"{where}: a header must not hold line ends")
    return step


def flat(steps: tuple[Step, ...]) -> Iterator[Status | Send | Base64 | Sse | JsonLine | Wait | At | Echo | End]:
    """The steps in the order in which they are carried out, `repeat` unrolled."""
    for step in steps:
        if isinstance(step, Repeat):
            for _ in range(step.repeat):
                yield from flat(step.steps)
        else:
            yield step


def chunk_of(step: Send | Base64 | Sse | JsonLine) -> bytes:
    """The bytes that a sending step sends each time."""
    match step:
        case Send():
            return step.send.encode()
        case Base64():
            return step.base64
        case JsonLine():
            return _compact(step.jsonline) + b"\n"
        case Sse():
            data = step.sse.encode() if isinstance(step.sse, str) else _compact(step.sse)
            lines = b"".join(b"data: %s\n" % line for line in data.split(b"\n"))
            return (b"event: %s\n" % step.event.encode() if step.event else b"") + lines + b"\n"


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
