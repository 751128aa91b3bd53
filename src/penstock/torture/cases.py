"""The cases: each slicing mode, form and fault once.

Owns the list, in the order of the report. It must never know a program or its output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from penstock.faultplan import Fault, Plan, Slicing
from penstock.torture.content import Content, Form, forms

Group = Literal["slicing", "form", "break", "time", "refusal"]
GROUPS: tuple[Group, ...] = get_args(Group)

SLICINGS: dict[str, Slicing] = {
    "as-is": Slicing("as-is"),
    "coalesce": Slicing("coalesce", 3),
    "bytes": Slicing("bytes", 7),
    "json": Slicing("json"),
    "sse": Slicing("sse"),
    "utf8": Slicing("utf8"),
    "one-byte": Slicing("one-byte"),
    "empty": Slicing("empty"),
    "random": Slicing("random", 64),
}
"""Every mode, with the numbers that are used where nobody gives any."""

_UNKNOWN_MIDDLE = 100
"""Bytes into the stream of an endpoint whose content we do not know."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run of the program. With `whole` the content must arrive; otherwise an error that the program tells will do."""

    name: str
    group: Group
    plan: Plan
    whole: bool
    about: str
    form: Form = "usual"


def cases(known: Content | None, seed: int) -> list[Case]:
    """All cases for an endpoint that streams `known`; None for one whose content is its model's."""
    middle = known.middle if known else _UNKNOWN_MIDDLE
    return [
        *(Case(name, "slicing", Plan(slicing=s, seed=seed), True, _SLICED[name]) for name, s in SLICINGS.items()),
        *(_form(form, seed) for form in (forms(known.shape) if known else ())),
        *_breaks(middle, seed),
        *_times(middle, seed),
        *_refusals(seed),
    ]


_SLICED = {
    "as-is": "one token a part",
    "coalesce": "three tokens a part",
    "bytes": "a border every 7 bytes",
    "json": "borders inside the JSON",
    "sse": "borders inside `data:` and between the line ends",
    "utf8": "borders inside the characters",
    "one-byte": "one byte a part",
    "empty": "empty parts before and behind each part",
    "random": "parts of 1 to 64 bytes that end anywhere, by the seed",
}
_FORMS: dict[Form, str] = {
    "no-final-newline": "nothing ends the last line",
    "crlf": "lines end with CR LF",
    "comments": "a comment before each event, as keep-alives are",
}


def _form(form: Form, seed: int) -> Case:
    return Case(form, "form", Plan(seed=seed), True, _FORMS[form], form)


def _breaks(middle: int, seed: int) -> list[Case]:
    def broken(name: str, about: str, fault: Fault) -> Case:
        return Case(name, "break", Plan(faults=(fault,), seed=seed), False, about)

    return [
        broken(
            "ModelStreamError",
            "an exception frame half way: the model took too long",
            Fault(kind="ModelStreamError", after_bytes=middle, error_code="ModelInvocationTimeExceeded"),
        ),
        broken(
            "InternalStreamFailure",
            "an exception frame half way: the service failed",
            Fault(kind="InternalStreamFailure", after_bytes=middle),
        ),
        broken("reset", "the connection is reset half way", Fault(kind="reset", after_bytes=middle)),
        broken(
            "end",
            "the stream ends half way, inside a token, as if that were all",
            Fault(kind="end", after_bytes=middle),
        ),
        broken("bad-crc", "a frame whose checksum is wrong", Fault(kind="bad-crc", after_bytes=middle)),
        broken("truncated-frame", "half a frame, then a clean end", Fault(kind="truncated-frame", after_bytes=middle)),
    ]


def _times(middle: int, seed: int) -> list[Case]:
    def late(name: str, about: str, fault: Fault, *, whole: bool = True) -> Case:
        return Case(name, "time", Plan(faults=(fault,), seed=seed), whole, about)

    return [
        late("slow-first-byte", "nothing for 2 s, then all", Fault(kind="slow-first-byte", ms=2000)),
        late("pause", "2 s of silence half way", Fault(kind="stall", after_bytes=middle, ms=2000)),
        late("trickle", "15 ms before each part", Fault(kind="trickle", ms=15)),
        late("jitter", "0 to 30 ms before each part", Fault(kind="jitter", ms=30)),
        late("stall", "silence half way, and no end", Fault(kind="stall", after_bytes=middle), whole=False),
    ]


def _refusals(seed: int) -> list[Case]:
    refusals = (
        ("ModelError", "424: the container answered 500", Fault(kind="ModelError", status=500)),
        ("dead-instance", "424: no container answers", Fault(kind="dead-instance")),
        ("ModelNotReady", "429: the model is not ready", Fault(kind="ModelNotReady")),
        ("Throttling", "ThrottlingException", Fault(kind="Throttling")),
        ("InternalFailure", "500", Fault(kind="InternalFailure")),
        ("ServiceUnavailable", "503", Fault(kind="ServiceUnavailable")),
        ("unavailable-once", "503 to the first request, then all is well", Fault(kind="ServiceUnavailable", times=1)),
        ("expired-session", "the session is not open any more", Fault(kind="expired-session")),
    )
    return [Case(name, "refusal", Plan(faults=(f,), seed=seed), False, about) for name, about, f in refusals]


def chosen(known: list[Case], groups: list[str], names: list[str]) -> list[Case]:
    """The cases of these groups and names; all without any. Raises ValueError on a group or name that there is none of."""
    if unknown := set(groups) - set(GROUPS):
        raise ValueError(f"no such group: {', '.join(sorted(unknown))}; there are: {', '.join(GROUPS)}")
    if unknown := set(names) - {case.name for case in known}:
        raise ValueError(f"no such mode: {', '.join(sorted(unknown))}; there are: {', '.join(c.name for c in known)}")
    return [c for c in known if (not groups or c.group in groups) and (not names or c.name in names)]
