"""A tape in memory, and what can be done to it: compare, trim, scrub.

Owns these operations. It must never touch a file; the sum of a tape's parts is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import BinaryIO
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from penstock.tape.form import Edge, Failure, Head, Line, Part, TapeError, read

LARGEST = 256 * 1024 * 1024
"""Bytes of content that a tape may have here."""
SCRUBBED = "scrubbed"
SECRET_HEADERS = frozenset(
    ("authorization", "cookie", "proxy-authorization", "set-cookie", "x-amz-security-token", "x-api-key")
)
SECRET_QUERY = frozenset(("x-amz-credential", "x-amz-security-token", "x-amz-signature", "signature", "token"))


@dataclass(frozen=True, slots=True)
class Tape:
    """A whole stream. `parts` may be empty; `last` is how it ended."""

    head: Head
    parts: tuple[Part, ...]
    last: Failure | Edge

    @property
    def content(self) -> bytes:
        return b"".join(part.content for part in self.parts)

    def lines(self) -> Iterator[Line]:
        """What `write` takes, in order."""
        yield self.head
        yield from self.parts
        yield self.last


def load(file: BinaryIO) -> Tape:
    """The tape in `file`. Raises TapeError."""
    head: Head | None = None
    parts: list[Part] = []
    last: Failure | Edge | None = None
    size = 0
    for line in read(file):
        match line:
            case Head():
                head = line
            case Part():
                parts.append(line)
                size += len(line.content)
                if size > LARGEST:
                    raise TapeError(len(parts) + 1, f"a tape holds at most {LARGEST} bytes of content")
            case _:
                last = line
    assert head is not None, "`read` sees to it"
    assert last is not None, "`read` sees to it"
    return Tape(head, tuple(parts), last)


def diff(a: Tape, b: Tape, *, within_ms: float | None = None, content_only: bool = False) -> Iterator[str]:
    """What differs, one line a difference: status, type, each part, the end. Times count only with `within_ms`.

    `content_only` leaves out how the content is cut into parts.
    """
    for name, x, y in (
        ("status", str(a.head.status), str(b.head.status)),
        ("content type", _type(a.head), _type(b.head)),
        ("end", _ending(a.last), _ending(b.last)),
    ):
        if x != y:
            yield f"{name}: {x} | {y}"
    if content_only:
        x_all, y_all = a.content, b.content
        if x_all != y_all:
            at = next(
                (i for i, (x, y) in enumerate(zip(x_all, y_all, strict=False)) if x != y), min(len(x_all), len(y_all))
            )
            yield f"content, byte {at}: {x_all[at : at + 40]!r} | {y_all[at : at + 40]!r}"
        return
    if len(a.parts) != len(b.parts):
        yield f"parts: {len(a.parts)} | {len(b.parts)}"
    for number, (p, q) in enumerate(zip_longest(a.parts, b.parts), 1):
        if p is None or q is None or p.content != q.content:
            yield f"part {number}: {_shown(p)} | {_shown(q)}"
        elif within_ms is not None and abs(p.t - q.t) > within_ms:
            yield f"part {number}: at {p.t:g} ms | at {q.t:g} ms"


def _type(head: Head) -> str:
    return head.headers.get("x-amzn-sagemaker-content-type", "none")


def _ending(last: Failure | Edge) -> str:
    if isinstance(last, Edge):
        return last.how
    code = last.members.get("ErrorCode")
    return f"{last.code}{f' ({code})' if code else ''}: {last.message}"


def _shown(part: Part | None) -> str:
    return "none" if part is None else repr(part.content if len(part.content) <= 60 else part.content[:57] + b"...")


def trim(tape: Tape, *, parts: int | None = None, ms: float | None = None) -> Tape:
    """The beginning of a tape: its first `parts` parts, and those up to `ms`. What was cut off, the end too, gives way to a clean end."""
    kept = tape.parts if parts is None else tape.parts[:parts]
    kept = tuple(part for part in kept if ms is None or part.t <= ms)
    late = ms is not None and tape.last.t > ms
    if len(kept) == len(tape.parts) and not late:
        return tape
    return Tape(tape.head, kept, Edge(kept[-1].t if kept else 0.0, "clean", "trimmed"))


def scrub(tape: Tape, *, content: bool = False) -> Tape:
    """The tape without secrets in headers and URLs. With `content` also without what was said: every length and border stays.

    Letters, digits and long characters give way to others of the same length. The words of JSON answers that readers look for stay
    (`token`, `text` …), as do punctuation, escapes and SSE's field names, so that JSON is JSON afterwards too.
    """
    request = tape.head.request
    body = request.body
    if content and body is not None:
        body = mask(body)
    request = replace(request, url=_without_secrets(request.url), headers=_headers(request.headers), body=body)
    head = replace(tape.head, headers=_headers(tape.head.headers), request=request)
    parts, last = tape.parts, tape.last
    if content:
        masked, at = mask(tape.content), 0
        said: list[Part] = []
        for part in parts:
            said.append(replace(part, content=masked[at : at + len(part.content)]))
            at += len(part.content)
        parts = tuple(said)
        if isinstance(last, Failure) and "OriginalMessage" in last.members:
            text = mask(str(last.members["OriginalMessage"]).encode()).decode()
            last = replace(last, message=SCRUBBED, members=last.members | {"OriginalMessage": text})
    return Tape(head, parts, last)


def _headers(headers: dict[str, str]) -> dict[str, str]:
    return {name: SCRUBBED if name.lower() in SECRET_HEADERS else value for name, value in headers.items()}


def _without_secrets(url: str) -> str:
    split = urlsplit(url)
    pairs = [
        (k, SCRUBBED if k.lower() in SECRET_QUERY else v) for k, v in parse_qsl(split.query, keep_blank_values=True)
    ]
    place = split.netloc.rpartition("@")[2]
    return urlunsplit((split.scheme, place, split.path, urlencode(pairs), split.fragment))


_STRUCTURE = frozenset(
    b"data event id retry token text logprob logprobs special generated_text generated_texts details outputs inputs choices delta content "
    b"finish_reason role index object created model usage prompt_tokens completion_tokens total_tokens best_of_sequences tokens "
    b"prefill seed error error_type message parameters stream true false null DONE stop length eos_token stop_sequence assistant".split()
)
_WORDS = re.compile(
    rb"\\(?:u[0-9a-fA-F]{4}|[\"\\/bfnrt])|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_])|[A-Za-z0-9_]+|[\x80-\xff]+",
)
_MASK = bytes(
    ord("1") if chr(b).isdigit() and b < 128 else ord("x") if chr(b).isalpha() and b < 128 else b for b in range(256)
)
_NUMBER = bytes(ord("1") if chr(b).isdigit() and b < 128 else b for b in range(256))
# Bytes of long characters: each lead byte becomes that of one fixed character as long, "ß", "☃", "😀".
_LONG = {2: "ß".encode(), 3: "☃".encode(), 4: "😀".encode()}


def mask(content: bytes) -> bytes:
    """Other letters and digits at the same places; UTF-8 stays UTF-8, what is not UTF-8 becomes question marks."""
    return _WORDS.sub(_masked, content)


def _masked(match: re.Match[bytes]) -> bytes:
    word = match[0]
    if word[0] >= 0x80:
        text = word.decode("utf-8", "surrogateescape")
        return b"".join(b"?" if "\udc80" <= c <= "\udcff" else _LONG[len(c.encode())] for c in text)
    if word[:1] == b"\\" or word in _STRUCTURE:
        return word
    return word.translate(_NUMBER if word[:1].isdigit() and not re.search(rb"[a-df-zA-DF-Z_]", word) else _MASK)
