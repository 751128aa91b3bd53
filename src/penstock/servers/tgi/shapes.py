"""TGI's JSON, byte for byte: key order, no spaces, non-ASCII as it is, single-precision numbers at their shortest.

Owns how values are written. It must never decide what to say.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring

from penstock.servers.generation import PromptToken, TextFinish, TextToken, TopToken
from penstock.servers.tgi.errors import TgiError
from penstock.servers.tgi.level import Level

_SINGLE = struct.Struct("f")


@dataclass(frozen=True, slots=True)
class GeneratedSequence:
    """One finished generation."""

    prefill: tuple[PromptToken, ...]
    tokens: tuple[TextToken, ...]
    finish: TextFinish

    @property
    def mean_logprob(self) -> float:
        return sum(token.logprob for token in self.tokens) / len(self.tokens)


def error_json(error: TgiError) -> str:
    return f'{{"error":{text(error.text)},"error_type":{text(error.kind)}}}'


def event(payload: str, level: Level) -> bytes:
    """One server-sent event."""
    return f"data:{' ' if level.space_after_colon else ''}{payload}\n\n".encode()


def keep_alive(level: Level) -> bytes:
    """A comment that clients ignore."""
    return b": \n\n" if level.space_after_colon else b":\n\n"


def stream_event(token: TextToken, index: int, *, prompt: str, details: bool, level: Level) -> bytes:
    """The event of one token. `index` counts from 1; `prompt` goes before the last event's `generated_text`."""
    generated, detail = "null", "null"
    if token.finish is not None:
        generated = text(prompt + token.finish.generated_text)
        if details:
            length = f',"input_length":{token.finish.prompt_tokens}' if level.event_input_length else ""
            detail = f"{{{_end(token.finish)}{length}}}"
    lead = f'"index":{index},' if level.event_index else ""
    top = f'"top_tokens":{_top(token)},' if token.top else ""
    return event(f'{{{lead}"token":{_token(token)},{top}"generated_text":{generated},"details":{detail}}}', level)


def generation_json(best: GeneratedSequence, others: Sequence[GeneratedSequence], *, prompt: str, details: bool) -> str:
    """The body of an answer that is not streamed."""
    body = f'{{"generated_text":{text(prompt + best.finish.generated_text)}'
    if details:
        rest = ""
        if others:
            rest = f',"best_of_sequences":[{",".join(_other(sequence, prompt) for sequence in others)}]'
        body += f',"details":{{{_end(best.finish)},{_lists(best)}{rest}{_top_tokens(best)}}}'
    return body + "}"


def _other(sequence: GeneratedSequence, prompt: str) -> str:
    return (
        f'{{"generated_text":{text(prompt + sequence.finish.generated_text)},'
        f"{_end(sequence.finish)},{_lists(sequence)}{_top_tokens(sequence)}}}"
    )


def _end(finish: TextFinish) -> str:
    seed = "null" if finish.seed is None else finish.seed
    return f'"finish_reason":"{finish.reason}","generated_tokens":{finish.generated_tokens},"seed":{seed}'


def _lists(sequence: GeneratedSequence) -> str:
    prefill = ",".join(
        f'{{"id":{token.id},"text":{text(token.text)},"logprob":{number(token.logprob)}}}' for token in sequence.prefill
    )
    return f'"prefill":[{prefill}],"tokens":[{",".join(map(_token, sequence.tokens))}]'


def _top_tokens(sequence: GeneratedSequence) -> str:
    """The member of `details`, where any token has some; a list for each token."""
    if not any(token.top for token in sequence.tokens):
        return ""
    return f',"top_tokens":[{",".join(map(_top, sequence.tokens))}]'


def _top(token: TextToken) -> str:
    return f"[{','.join(map(_token, token.top))}]"


def _token(token: TextToken | TopToken) -> str:
    special = "true" if token.special else "false"
    return f'{{"id":{token.id},"text":{text(token.text)},"logprob":{number(token.logprob)},"special":{special}}}'


def text(value: str) -> str:
    """A JSON string."""
    return encode_basestring(value)


def members(pairs: Iterable[tuple[str, object]]) -> str:
    """A JSON object with its members in the given order."""
    return json.dumps(dict(pairs), ensure_ascii=False, separators=(",", ":"))


def number(value: float) -> str:
    """A single-precision number as the original writes it: the fewest digits that give it back; NaN and infinities are null."""
    if not math.isfinite(value):
        return "null"
    packed = _SINGLE.pack(value)
    if 1e-4 <= abs(value) < 1e5 and _SINGLE.unpack(packed)[0] == value:
        written = _shortest_plain(value, packed)
        return written if "." in written else written + ".0"
    for digits in range(5 if abs(value) > 1.2e-38 else 0, 9):
        written = f"{value:.{digits}e}"
        if _SINGLE.pack(float(written)) == packed:
            break
    mantissa, _, exponent_text = written.partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    figures = mantissa.lstrip("-").replace(".", "").rstrip("0") or "0"
    point = int(exponent_text) + 1  # where the decimal point stands in `figures`
    if figures == "0":
        return f"{sign}0.0"
    if len(figures) <= point <= 13:
        return f"{sign}{figures.ljust(point, '0')}.0"
    if 0 < point <= 13:
        return f"{sign}{figures[:point]}.{figures[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{figures}"
    fraction = f".{figures[1:]}" if len(figures) > 1 else ""
    return f"{sign}{figures[0]}{fraction}e{point - 1}"


def _shortest_plain(value: float, packed: bytes) -> str:
    """The same search from its other end, for a single-precision number that is written without an exponent. Digits from six on."""
    written = f"{value:.8g}"
    if _SINGLE.pack(float(written)) != packed:
        return f"{value:.9g}"  # half of all numbers; of these, eight digits are never further off than seven
    for fewer in (f"{value:.7g}", f"{value:.6g}"):
        if _SINGLE.pack(float(fewer)) != packed:
            break
        written = fewer
    return written
