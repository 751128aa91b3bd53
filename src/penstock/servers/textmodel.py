"""From settings to a text model that answers: directory, engine, tokenizer.

Owns the order (fetch, look, choose, convert, start, read the tokenizer) for every server that generates text, and the lines in the log that
say which engine serves a model, and which settings it does not follow. It must never know a server's own settings or formats.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from penstock.engines import apart, choice, facts
from penstock.engines.choice import Asked, Choice, ChoiceError, Terms
from penstock.engines.client import EngineProcess
from penstock.engines.options import EngineOptions
from penstock.engines.tokenizer import TextTokenizer
from penstock.servers import adapters, models
from penstock.servers.adapters import Adapter
from penstock.servers.unavailable import ModelUnavailable

log = logging.getLogger(__name__)
BATCHED_TOKENS = 512
"""Tokens in one step where nobody says a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a server asks for. Tokens and requests; `asked` is what bears on the choice of an engine."""

    model_id: str
    revision: str = ""
    asked: Asked = field(default_factory=Asked)
    max_batch_size: int = 64
    max_batched_tokens: int = 0
    """0 where nobody said a number: vLLM's own on a GPU, else BATCHED_TOKENS."""
    most_batched_tokens_on_cpu: int = 0
    """A bound of the former without a GPU, where a long step holds up the streams that run. 0 is none."""
    max_queue: int = 1024
    prefix_cache: bool = True
    gpu_memory: float = 0.0
    """The share of each GPU's memory; of vLLM on a GPU only. 0 is its own."""
    speculate: int = 0
    draft_model: str = ""
    """Whatever names a model; of the openvino engine only."""
    adapters: tuple[Adapter, ...] = ()
    """LoRA adapters. An engine without them does not serve the model."""
    lora: bool = False
    """Whether adapters may come later; an engine that takes none still serves the model."""
    max_loras: int = 0
    max_lora_rank: int = 0
    """As in EngineOptions."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be started for a model. `source` is its own directory, whatever the engine loads in place of it."""

    source: Path
    choice: Choice
    options: EngineOptions
    command: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is served. `plan` says why by this engine."""

    plan: Plan
    tokenizer: TextTokenizer
    engine: EngineProcess

    @property
    def served(self) -> str:
        """How it is served, as the end of a sentence: engine, arithmetic, device, and why this engine."""
        info = self.engine.info
        return f"served by the {info.name} engine in {info.dtype} on {info.device}: {self.plan.choice.why}"


async def load(wanted: Wanted, environ: Mapping[str, str], *, timeout_s: float = 1200.0) -> Loaded:
    """Load a model. Raises ModelUnavailable, EngineError or TokenizerError, with nothing left running."""
    ready = await asyncio.to_thread(plan, wanted, environ)
    for line in ready.lines:
        log.warning("%s", line)
    engine = await EngineProcess.start(ready.options, timeout_s=timeout_s, command=ready.command)
    try:
        tokenizer = await asyncio.to_thread(TextTokenizer.load, ready.options.model)
    except BaseException:
        await engine.close()
        raise
    return Loaded(ready, tokenizer, engine)


def plan(wanted: Wanted, environ: Mapping[str, str]) -> Plan:
    """Find the model, choose its engine, and convert it if that one needs it. Blocking, perhaps for long. Raises ModelUnavailable."""
    home = models.models_directory(environ).parent
    source = models.fetch(wanted.model_id, wanted.revision, environ)
    asked = replace(wanted.asked, adapters=tuple(adapter.name for adapter in wanted.adapters), lora=wanted.lora)
    try:
        model, machine = facts.model_facts(source), facts.machine_facts(home, environ)
        chosen = choice.choose(asked, model, machine)
        terms = choice.terms(chosen, asked, model, machine)
    except (ChoiceError, ValueError) as error:
        raise ModelUnavailable(str(error)) from error
    directory = models.prepare(source, chosen.engine, environ, terms.quantize)
    options = _options(wanted, chosen, terms, directory, on_cpu=not machine.gpus)
    lora = wanted.lora and chosen.engine == "vllm"
    if wanted.adapters or lora:
        options = replace(options, lora=lora, max_loras=wanted.max_loras, max_lora_rank=wanted.max_lora_rank)
    if wanted.adapters:
        options = replace(options, adapters=json.dumps(adapters.locate(wanted.adapters, environ)))
    lines = terms.lines
    if wanted.gpu_memory and chosen.engine == "vllm" and machine.gpus:
        options = replace(options, gpu_memory=wanted.gpu_memory)
    elif wanted.gpu_memory:
        lines = (
            *lines,
            f"gpu_memory_utilization {wanted.gpu_memory:g}: it is for vLLM on GPUs, and changes nothing here",
        )
    if chosen.engine == "openvino":
        draft = wanted.draft_model and str(models.resolve(wanted.draft_model, "", environ, terms.quantize))
        options = replace(options, speculate=wanted.speculate, draft_model=draft)
    elif wanted.speculate:
        lines = (
            *lines,
            f"guessing {wanted.speculate} tokens ahead: the {chosen.engine} engine does not, and answers the same",
        )
    return Plan(source, chosen, options, _command(chosen, home, environ), lines)


def _options(wanted: Wanted, chosen: Choice, terms: Terms, directory: Path, *, on_cpu: bool) -> EngineOptions:
    batched = wanted.max_batched_tokens
    if batched == 0 and (on_cpu or chosen.engine != "vllm"):
        batched = BATCHED_TOKENS
    if wanted.most_batched_tokens_on_cpu and (on_cpu or chosen.engine == "openvino"):
        batched = min(batched, wanted.most_batched_tokens_on_cpu)
    return EngineOptions(
        model=directory,
        engine=chosen.engine,
        dtype=terms.dtype,
        max_batch_size=wanted.max_batch_size,
        max_batched_tokens=batched,
        max_queue=wanted.max_queue,
        prefix_cache=wanted.prefix_cache,
        quantize=terms.quantize,
        tensor_parallel=terms.tensor_parallel,
        max_length=terms.max_length,
        trust_remote_code=terms.trust_remote_code,
    )


def _command(chosen: Choice, home: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    python = apart.interpreter(chosen.engine, home, environ)
    if python is None:
        raise ModelUnavailable(f"the {chosen.engine} engine has no Python any more")
    return apart.command(python)
