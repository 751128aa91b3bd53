"""Which requests may be generated: the original's checks in the original's order, with its texts.

Owns the way from a request's parameters to an engine's sampling. It must never generate.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from penstock.engines.base import Feature, Grammar, Sampling
from penstock.engines.tokenizer import TokenizerError
from penstock.servers.generation import Generation
from penstock.servers.tgi.errors import ValidationError
from penstock.servers.tgi.grammar import checked
from penstock.servers.tgi.schema import Parameters, Request
from penstock.servers.tgi.settings import Settings

INSTALMENT = 1024
"""Tokens. The original makes longer answers in pieces of so many, from 3.0.0 on, and looks at each piece alone."""


@dataclass(frozen=True, slots=True)
class Valid:
    """A request that can be submitted."""

    prompt: tuple[int, ...]
    sampling: Sampling
    stop: tuple[str, ...]
    best_of: int


def check_before_permit(request: Request, settings: Settings, *, stream: bool) -> int:
    """The checks that come before a permit is taken (row 0). Returns how many permits are needed. Raises ValidationError."""
    parameters = request.parameters
    best_of = parameters.best_of if parameters.best_of is not None else 1
    if stream:
        if best_of != 1:
            raise ValidationError("`best_of` != 1 is not supported when streaming tokens")
        if parameters.decoder_input_details:
            raise ValidationError("`decoder_input_details` == true is not supported when streaming tokens")
        return 1
    if best_of > 1 and settings.max_best_of == 1:
        raise ValidationError("`best_of` != 1 is not allowed for this endpoint")
    if best_of > settings.max_best_of:
        raise ValidationError(f"`best_of` must be > 0 and <= {settings.max_best_of}. Given: {best_of}")
    return max(best_of, 1)


async def validate(request: Request, settings: Settings, generation: Generation, rng: random.Random) -> Valid:
    """Rows 1 to 15, then what this engine can't do. Raises ValidationError."""
    given = request.parameters
    _check_values(given, settings)
    if not request.inputs:
        raise ValidationError("`inputs` cannot be empty")
    most = settings.max_input_length
    if given.truncate is not None and not 0 < given.truncate <= most:
        raise ValidationError(f"`truncate` must be strictly positive and less than {most}. Given: {given.truncate}")
    try:
        prompt = await generation.encode(request.inputs, truncate=given.truncate, special=request.special)
    except TokenizerError as error:
        raise ValidationError(f"tokenizer error {error}") from error
    new_tokens = given.max_new_tokens
    if new_tokens is None:
        new_tokens = max(settings.max_total_tokens - len(prompt), 1)
    at_once = min(new_tokens, INSTALMENT) if settings.level.takes_long_answers else new_tokens
    if len(prompt) + at_once > settings.max_total_tokens:
        raise ValidationError(
            f"`inputs` tokens + `max_new_tokens` must be <= {settings.max_total_tokens}. "
            f"Given: {len(prompt)} `inputs` tokens and {at_once} `max_new_tokens`"
        )
    new_tokens = min(new_tokens, settings.max_total_tokens - len(prompt))
    if len(prompt) > most:
        raise ValidationError(f"`inputs` must have less than {most} tokens. Given: {len(prompt)}")
    grammar = checked(given.grammar, disabled=settings.disable_grammar_support) if given.grammar else None
    _check_engine(given, settings, generation)
    return Valid(prompt, sampling(given, settings, new_tokens, rng, grammar), given.stop, max(given.best_of or 1, 1))


def sampling(
    given: Parameters, settings: Settings, new_tokens: int, rng: random.Random, grammar: Grammar | None = None
) -> Sampling:
    """The engine's form of valid parameters. Sampling is on when any of its parameters says something."""
    temperature, top_k, top_p = given.temperature or 1.0, given.top_k or 0, given.top_p or 1.0
    typical_p = given.typical_p or 1.0
    return Sampling(
        max_new_tokens=new_tokens,
        do_sample=given.do_sample or temperature != 1.0 or top_k > 0 or top_p < 1.0 or typical_p < 1.0,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=given.repetition_penalty or 1.0,
        frequency_penalty=given.frequency_penalty or 0.0,
        seed=given.seed if given.seed is not None else rng.getrandbits(64),
        prompt_logprobs=given.decoder_input_details and settings.prefill_logprobs,
        grammar=grammar,
        typical_p=typical_p,
        watermark=given.watermark,
        top_n_tokens=given.top_n_tokens or 0,
        adapter=given.adapter_id or "",
    )


def _check_values(given: Parameters, settings: Settings) -> None:
    best_of = given.best_of or 1
    asks_to_sample = given.do_sample or any(
        value is not None for value in (given.temperature, given.top_k, given.top_p, given.typical_p)
    )
    if best_of > 1 and not asks_to_sample:
        raise ValidationError("you must use sampling when `best_of` is > 1")
    if given.temperature is not None and not given.temperature > 0:
        raise ValidationError("`temperature` must be strictly positive")
    if given.repetition_penalty is not None and not given.repetition_penalty > 0:
        raise ValidationError("`repetition_penalty` must be strictly positive")
    if given.frequency_penalty is not None and not -2 <= given.frequency_penalty <= 2:
        raise ValidationError("`frequency_penalty` must be >= -2.0 and <= 2.0")
    if given.top_p is not None and not 0 < given.top_p < 1:
        raise ValidationError("`top_p` must be > 0.0 and < 1.0")
    if given.typical_p is not None and not 0 < given.typical_p < 1:
        raise ValidationError("`typical_p` must be > 0.0 and < 1.0")
    if given.top_k is not None and given.top_k <= 0:
        raise ValidationError("`top_k` must be strictly positive")
    if given.max_new_tokens == 0:
        raise ValidationError("`max_new_tokens` must be strictly positive")
    if len(given.stop) > settings.max_stop_sequences:
        most = settings.max_stop_sequences
        raise ValidationError(f"`stop` supports up to {most} stop sequences. Given: {len(given.stop)}")
    if given.seed is not None and best_of > 1:
        raise ValidationError("`seed` must not be set when `best_of` > 1")
    if (given.top_n_tokens or 0) > settings.max_top_n_tokens:
        most = settings.max_top_n_tokens
        raise ValidationError(f"`top_n_tokens` must be >= 0 and <= {most}. Given: {given.top_n_tokens}")


def _check_engine(given: Parameters, settings: Settings, generation: Generation) -> None:
    """Last, what the contract has and the engine lacks (docs/tgi.md)."""
    info = generation.engine.info
    # An encoder-decoder's prefill is one token, which needs no engine.
    prefill = given.decoder_input_details and settings.prefill_logprobs and not settings.encoder_decoder
    asked: dict[str, tuple[bool, Feature]] = {
        "decoder_input_details": (prefill, "prompt_logprobs"),
        "typical_p": (given.typical_p is not None, "typical_p"),
        "watermark": (given.watermark, "watermark"),
        "top_n_tokens": (bool(given.top_n_tokens), "top_n_tokens"),
    }
    for name, (is_asked, feature) in asked.items():
        if is_asked and feature not in info.features:
            raise ValidationError(f"`{name}` is not supported by the {info.name} engine")
    if given.adapter_id and given.adapter_id not in info.adapters:
        known = ", ".join(info.adapters) or "none"
        raise ValidationError(
            f"`adapter_id` must be one of LORA_ADAPTERS, which names {known}. Given: {given.adapter_id}"
        )
