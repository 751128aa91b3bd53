"""The bodies of requests, checked as the original's deserialiser checks them.

Owns the types of all fields and the plain texts for bodies that don't fit. It must never judge a value: that is `validation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.servers.tgi.fields import Fields, boolean, i32, string, strings, u32, u64, usize
from penstock.servers.tgi.grammar import GrammarType, read_grammar
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.serde import f32, read_as


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
    grammar: GrammarType | None = None
    adapter_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    inputs: str
    parameters: Parameters
    stream: bool = False
    special: bool = True
    """Whether the sequence's own tokens are added; a chat template has written them already."""


def read_request(body: bytes, level: Level, *, with_stream: bool) -> Request:
    """A native body. `with_stream` is for `/` and `/invocations`; the others ignore the field. Raises BadBody."""
    return read_as(body, lambda document: native(document, level, with_stream=with_stream))


def native(document: Any, level: Level, *, with_stream: bool) -> Request:
    """A native request. Raises Mismatch."""
    name = "CompatGenerateRequest" if with_stream else "GenerateRequest"
    fields = Fields(document, (), f"struct {name}")
    inputs = fields.required("inputs", string)
    if "parameters" in fields.values:
        parameters = _parameters(fields.values["parameters"], level)
    else:
        parameters = Parameters(do_sample=level.samples_without_parameters, max_new_tokens=level.default_max_new_tokens)
    stream = fields.plain("stream", boolean, False) if with_stream else False
    return Request(inputs=inputs, parameters=parameters, stream=stream)


def _parameters(value: Any, level: Level) -> Parameters:
    fields = Fields(value, ("parameters",), "struct GenerateParameters")
    if level.default_max_new_tokens is not None and level.version < (1, 1, 1):
        new_tokens: int | None = fields.plain("max_new_tokens", u32, level.default_max_new_tokens)
    elif "max_new_tokens" in fields.values:
        new_tokens = fields.optional("max_new_tokens", u32)
    else:
        new_tokens = level.default_max_new_tokens
    return Parameters(
        best_of=fields.optional("best_of", usize),
        temperature=fields.optional("temperature", f32),
        repetition_penalty=fields.optional("repetition_penalty", f32),
        frequency_penalty=fields.optional("frequency_penalty", f32) if level.frequency_penalty else None,
        top_k=fields.optional("top_k", i32),
        top_p=fields.optional("top_p", f32),
        typical_p=fields.optional("typical_p", f32),
        do_sample=fields.plain("do_sample", boolean, False),
        max_new_tokens=new_tokens,
        return_full_text=fields.optional("return_full_text", boolean),
        stop=fields.plain("stop", strings, ()),
        truncate=fields.optional("truncate", usize),
        watermark=fields.plain("watermark", boolean, False),
        details=fields.plain("details", boolean, False),
        decoder_input_details=fields.plain("decoder_input_details", boolean, False),
        seed=fields.optional("seed", u64),
        top_n_tokens=fields.optional("top_n_tokens", u32) if level.top_tokens else None,
        grammar=fields.optional("grammar", read_grammar) if level.grammars else None,
        adapter_id=fields.optional("adapter_id", string) if level.adapters else None,
    )
