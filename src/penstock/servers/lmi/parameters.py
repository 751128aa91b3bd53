"""The body of a text request: inputs and generation parameters, with LMI's names and defaults.

Owns which keys are read at which version, and what their values may be. It must never tokenise.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from penstock.engines.base import Grammar
from penstock.servers.lmi.requests import Invocation


class BadInput(Exception):
    """A request that can't be generated from; the message goes to the client."""


class NoInputs(BadInput):
    """A body that asks for nothing."""


class Stated(BadInput):
    """One that the original words as a whole, from 0.33 on too: nothing comes before its message."""


class Unreadable(BadInput):
    """A body that is not what its content type says."""


@dataclass(frozen=True, slots=True)
class TextRequest:
    """`inputs` as a list, with the parameters as they came."""

    inputs: tuple[str, ...]
    parameters: Mapping[str, Any]
    stream: bool = False
    """What the body's `stream` says; only 0.28 and later look at it."""
    accept: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextParameters:
    """Checked parameters of one generation. `seed` None leaves the choice to the server; `truncate` 0 is no limit."""

    max_new_tokens: int = 30
    max_length: int = 0
    """Prompt and answer together, where `max_new_tokens` is not given; 0 is off."""
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()
    truncate: int = 0
    ignore_eos: bool = False
    return_full_text: bool = False
    details: bool = False
    decoder_input_details: bool = False
    grammar: Grammar | None = None
    """What the answer's text must keep to."""
    logprobs: bool = True
    """Whether the answer tells how likely its tokens were."""
    adapter: str = ""
    """The LoRA adapter that answers; empty is the model itself."""
    top_n_tokens: int = 0
    """The likeliest tokens of each step to tell of in `details`."""
    top_logprobs: int = 0
    """The same for a chat, whose answer has but the chosen token where the engine does not tell others."""


MOST_ROWS = 10_000
"""Of a CSV body: more inputs than the engine's queue takes."""
MOST_TOP_TOKENS = 20
"""As the original's engine has it."""


def parse(request: Invocation) -> TextRequest:
    """Inputs by content type: JSON (also where none is given), plain text, CSV with a header `inputs`. Raises BadInput."""
    media = (request.attribute("content-type") or "").partition(";")[0].strip().lower()
    accept = request.attribute("accept") or ""
    if media == "text/plain":
        return TextRequest((_utf8(request.data),), {}, accept=accept)
    if media == "text/csv":
        return TextRequest(_csv(_utf8(request.data)), {}, accept=accept)
    if media and "json" not in media and media not in ("application/octet-stream", "application/x-www-form-urlencoded"):
        raise BadInput(f"content type {media} can't be taken by a text model: send application/json")
    return _json(request, accept)


def _json(request: Invocation, accept: str) -> TextRequest:
    try:
        value = request.document()
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    if isinstance(value, list):
        value = {"inputs": value}
    if not isinstance(value, dict):
        raise BadInput("the body must be a JSON object with the key inputs")
    if "messages" in value and "inputs" not in value:
        raise BadInput("messages are taken with rolling batch, from version 0.28 on: send inputs")
    inputs = value.get("inputs")
    if inputs is None:
        raise NoInputs("inputs must be a string, or a list of strings")
    if isinstance(inputs, str):
        inputs = [inputs]
    if not isinstance(inputs, list) or not inputs or not all(isinstance(item, str) for item in inputs):
        raise BadInput("inputs must be a string, or a list of strings")
    parameters = value.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise BadInput("parameters must be a JSON object")
    return TextRequest(
        tuple(inputs), parameters, stream=value.get("stream") is True or value.get("stream") == "true", accept=accept
    )


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(str(error)) from error


def _csv(text: str) -> tuple[str, ...]:
    rows = list(islice(csv.DictReader(io.StringIO(text, newline="")), MOST_ROWS + 1))
    if len(rows) > MOST_ROWS:
        raise BadInput(f"a CSV body may have {MOST_ROWS} lines at most")
    inputs = [row.get("inputs") for row in rows]
    if not rows or not all(isinstance(item, str) for item in inputs):
        raise BadInput("a CSV body needs a header line with the column inputs")
    return tuple(str(item) for item in inputs)


def rolling(values: Mapping[str, Any], version: tuple[int, int]) -> TextParameters:
    """What rolling batch reads; every other key is ignored, as the original does. Raises BadInput."""
    given = Given(values)
    old = version < (0, 28)
    sample, temperature = _chance(given, version)
    most = given.whole("max_new_tokens", 30, least=1)
    if version >= (0, 33):  # where the parameters are the engine's own, under its own names
        most = given.whole("max_tokens", most, least=1)
    common = TextParameters(
        max_new_tokens=most,
        do_sample=sample,
        temperature=temperature,
        top_k=max(0, given.whole("top_k", 0, least=-1)),
        top_p=given.real("top_p", 1.0, above=0.0, most=1.0),
        typical_p=given.real("typical_p", 1.0, above=0.0, most=1.0),
        repetition_penalty=given.real("repetition_penalty", 1.0, above=0.0),
        seed=given.seed("seed"),
        stop_sequences=given.strings("stop_sequences") + (() if old else given.strings("stop")),
        truncate=given.whole("truncate", 1000 if old else 0, least=1 if "truncate" in values else 0),
    )
    if old:
        return common if values.get("temperature") == 0 else _warped(common)
    return TextParameters(
        **{name: getattr(common, name) for name in common.__slots__}
        | {
            "frequency_penalty": given.real("frequency_penalty", 0.0, least=-2.0, most=2.0),
            "presence_penalty": given.real("presence_penalty", 0.0, least=-2.0, most=2.0),
            "ignore_eos": given.flag("ignore_eos_token", False) or given.flag("ignore_eos", False),
            "return_full_text": given.flag("return_full_text", False),
            "details": given.flag("details", False),
            "decoder_input_details": given.flag("decoder_input_details", False),
            "top_n_tokens": _top_n_tokens(given) if (0, 29) <= version < (0, 33) else 0,
        }
    )


def _chance(given: Given, version: tuple[int, int]) -> tuple[bool, float]:
    """Whether to sample, and at which temperature; at 0 the likeliest token is taken, whatever else is said."""
    # From 0.28 on only do_sample samples, in 0.32 a temperature too, and from 0.33 on everything that is not told not to.
    alone = version >= (0, 33) or (version >= (0, 32) and given.has("temperature"))
    sample = given.flag("do_sample", alone)
    temperature = given.real("temperature", 1.0, least=0.0) if version < (0, 28) or sample else 1.0
    return (sample, temperature) if temperature else (False, 1.0)


def _top_n_tokens(given: Given) -> int:
    count = given.whole("top_n_tokens", 0, least=0)
    if count > MOST_TOP_TOKENS:
        raise BadInput(f"top_n_tokens must be at most {MOST_TOP_TOKENS}, not {count}")
    return count


_STEPPED_SAMPLE = ("temperature", "top_p", "top_k", "typical_p")


def stepped(values: Mapping[str, Any]) -> TextParameters:
    """What streaming without rolling batch reads: any sampling parameter samples; 50 new tokens. Raises BadInput."""
    given = Given(values)
    if given.whole("beam_size", 1, least=1) > 1:
        raise BadInput("beam search is not supported when streaming")
    return TextParameters(
        max_new_tokens=given.whole("max_new_tokens", 50, least=1),
        do_sample=given.flag("do_sample", False) or any(name in values for name in _STEPPED_SAMPLE),
        temperature=given.real("temperature", 1.0, above=0.0),
        top_k=given.whole("top_k", 0, least=0),
        top_p=given.real("top_p", 1.0, above=0.0, most=1.0),
        typical_p=given.real("typical_p", 1.0, above=0.0, most=1.0),
        repetition_penalty=given.real("repetition_penalty", 1.0, above=0.0),
        seed=given.seed("manual_seed"),
    )


_GENERATE = (
    "max_new_tokens", "max_length", "do_sample", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "seed",
)  # fmt: skip
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,), "num_beam_groups": (1,), "num_return_sequences": (1,), "no_repeat_ngram_size": (0,), "min_length": (0,),
    "min_new_tokens": (0,), "diversity_penalty": (0,), "length_penalty": (), "early_stopping": (), "use_cache": (),
}  # fmt: skip
"""Others that `generate` knows, with the values that change nothing; without any, none does, since there are no beams here."""


def generate(values: Mapping[str, Any]) -> TextParameters:
    """What a plain call takes: keyword arguments of `generate`, an unknown one is an error. Raises BadInput."""
    given = Given(values)
    if unknown := sorted(set(values) - set(_GENERATE) - set(_NEUTRAL)):
        raise BadInput(f"not a parameter of generate without rolling_batch: {', '.join(unknown)}")
    for name, neutral in _NEUTRAL.items():
        if neutral and values.get(name) not in (None, *neutral):
            raise BadInput(
                f"{name} is not supported by the server's own text generation: leave it out, or use it in a model.py"
            )
    sample = given.flag("do_sample", False)
    return TextParameters(
        max_new_tokens=given.whole("max_new_tokens", 0, least=1 if "max_new_tokens" in values else 0),
        max_length=given.whole("max_length", 20, least=1),
        do_sample=sample,
        temperature=given.real("temperature", 1.0, above=0.0) if sample else 1.0,
        top_k=given.whole("top_k", 50, least=0),
        top_p=given.real("top_p", 1.0, above=0.0, most=1.0),
        typical_p=given.real("typical_p", 1.0, above=0.0, most=1.0),
        repetition_penalty=given.real("repetition_penalty", 1.0, above=0.0),
        seed=given.seed("seed"),
    )


def _warped(parameters: TextParameters) -> TextParameters:
    """In 0.23 any sampling parameter that is not neutral samples, whatever do_sample says."""
    neutral = (
        parameters.temperature == 1.0
        and parameters.top_k == 0
        and parameters.top_p == 1.0
        and parameters.typical_p == 1.0
    )
    if parameters.do_sample or neutral:
        return parameters
    return TextParameters(**{name: getattr(parameters, name) for name in parameters.__slots__} | {"do_sample": True})


class Given:
    """Typed reads of what a client sent, null being as good as nothing; a wrong type or range is a BadInput that names the key."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def whole(self, name: str, default: int, *, least: int) -> int:
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
            raise BadInput(f"{name} must be a whole number of at least {least}, not {json.dumps(value)}")
        return value

    def real(
        self, name: str, default: float, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf
    ) -> float:
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise BadInput(f"{name} must be a number, not {json.dumps(value)}")
        if not -sys.float_info.max <= value <= sys.float_info.max:  # a JSON number may have any size
            raise BadInput(f"{name} is out of range")
        if not (above < value and least <= value <= most):
            raise BadInput(f"{name} is out of range: {json.dumps(value)}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, str):  # as forms and shells have it
            value = {"true": True, "false": False}.get(value.lower(), value)
        if not isinstance(value, bool):
            raise BadInput(f"{name} must be true or false, not {json.dumps(value)}")
        return value

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def text(self, name: str, default: str) -> str:
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise BadInput(f"{name} must be a string, not {json.dumps(value)}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"{name} holds half a character: {error}") from error
        return value

    def seed(self, name: str) -> int | None:
        """A seed; 0 is none, as the original takes it."""
        value = self._values.get(name)
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if value is None or value == 0:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
            raise BadInput(f"{name} must be a whole number of at least 0, not {json.dumps(value)}")
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        value = self._values.get(name)
        if value is None:
            return ()
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise BadInput(f"{name} must be a list of strings that are not empty")
        return tuple(value)
