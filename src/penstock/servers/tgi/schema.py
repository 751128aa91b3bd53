"""The bodies of requests, checked as the original's deserialiser checks them.

Owns the types of all fields and the plain texts for bodies that don't fit. It must never judge a value: that is `validation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from penstock.servers.tgi.level import Level
from penstock.servers.tgi.serde import Mismatch, describe, f32, integer, load, shape_error

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """`parameters` as given; None is "not given" everywhere."""

    best_of: int | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: int | None = None
    return_full_text: bool | None = None
    stop: tuple[str, ...] = ()
    truncate: int | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: int | None = None
    top_n_tokens: int | None = None
    grammar: Any = None
    adapter_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    inputs: str
    parameters: Parameters
    stream: bool = False


def read_request(body: bytes, level: Level, *, with_stream: bool) -> Request:
    """A native body. `with_stream` is for `/` and `/invocations`; the others ignore the field. Raises BadBody."""
    document = load(body)
    try:
        return _request(document, level, with_stream)
    except Mismatch as mismatch:
        raise shape_error(body, mismatch) from None


def _request(document: Any, level: Level, with_stream: bool) -> Request:
    name = "CompatGenerateRequest" if with_stream else "GenerateRequest"
    fields = _Fields(document, (), f"struct {name}")
    inputs = fields.required("inputs", _string)
    if "parameters" in fields.values:
        parameters = _parameters(fields.values["parameters"], level)
    else:
        parameters = Parameters(do_sample=level.samples_without_parameters, max_new_tokens=level.default_max_new_tokens)
    stream = fields.plain("stream", _boolean, False) if with_stream else False
    return Request(inputs=inputs, parameters=parameters, stream=stream)


def _parameters(value: Any, level: Level) -> Parameters:
    fields = _Fields(value, ("parameters",), "struct GenerateParameters")
    if level.default_max_new_tokens is not None and level.version < (1, 1, 1):
        new_tokens: int | None = fields.plain("max_new_tokens", _u32, level.default_max_new_tokens)
    elif "max_new_tokens" in fields.values:
        new_tokens = fields.optional("max_new_tokens", _u32)
    else:
        new_tokens = level.default_max_new_tokens
    return Parameters(
        best_of=fields.optional("best_of", _usize),
        temperature=fields.optional("temperature", f32),
        repetition_penalty=fields.optional("repetition_penalty", f32),
        frequency_penalty=fields.optional("frequency_penalty", f32) if level.frequency_penalty else None,
        top_k=fields.optional("top_k", _i32),
        top_p=fields.optional("top_p", f32),
        typical_p=fields.optional("typical_p", f32),
        do_sample=fields.plain("do_sample", _boolean, False),
        max_new_tokens=new_tokens,
        return_full_text=fields.optional("return_full_text", _boolean),
        stop=fields.plain("stop", _strings, ()),
        truncate=fields.optional("truncate", _usize),
        watermark=fields.plain("watermark", _boolean, False),
        details=fields.plain("details", _boolean, False),
        decoder_input_details=fields.plain("decoder_input_details", _boolean, False),
        seed=fields.optional("seed", _u64),
        top_n_tokens=fields.optional("top_n_tokens", _u32),
        grammar=fields.values.get("grammar") if level.chat else None,
        adapter_id=fields.optional("adapter_id", _string) if level.chat else None,
    )


class _Fields:
    """The fields of one JSON object."""

    def __init__(self, value: Any, path: tuple[str, ...], expected: str) -> None:
        if not isinstance(value, dict):
            raise Mismatch(path, f"invalid type: {describe(value)}, expected {expected}")
        self.values: Mapping[str, Any] = value
        self._path = path

    def required(self, name: str, read: Callable[[Any], T]) -> T:
        if name not in self.values:
            raise Mismatch(self._path, f"missing field `{name}`")
        return self._read(name, read)

    def plain(self, name: str, read: Callable[[Any], T], default: T) -> T:
        """A field that may be left out, but not be null."""
        return self._read(name, read) if name in self.values else default

    def optional(self, name: str, read: Callable[[Any], T]) -> T | None:
        return None if self.values.get(name) is None else self._read(name, read)

    def _read(self, name: str, read: Callable[[Any], T]) -> T:
        try:
            return read(self.values[name])
        except Mismatch as mismatch:
            raise Mismatch((*self._path, name, *mismatch.path), mismatch.text) from None


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch((), f"invalid type: {describe(value)}, expected a string")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Mismatch((), f"invalid type: {describe(value)}, expected a boolean")
    return value


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise Mismatch((), f"invalid type: {describe(value)}, expected a sequence")
    texts = []
    for at, item in enumerate(value):
        if not isinstance(item, str):
            raise Mismatch((at,), f"invalid type: {describe(item)}, expected a string")
        texts.append(item)
    return tuple(texts)


_u32 = integer("u32", 0, 2**32 - 1)
_i32 = integer("i32", -(2**31), 2**31 - 1)
_u64 = integer("u64", 0, 2**64 - 1)
_usize = integer("usize", 0, 2**64 - 1)
