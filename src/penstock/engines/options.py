"""What an engine process is told when it starts.

Owns the options' names, defaults and their form on a command line. It must never import an engine.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
DTYPES: tuple[str, ...] = get_args(Dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How to run a model. Tokens and GB where not said otherwise."""

    model: Path
    """Directory with the model's weights and `config.json`."""
    engine: str = "openvino"
    dtype: Dtype = "auto"
    """Arithmetic. `auto` is bfloat16 where the processor has it."""
    max_batch_size: int = 64
    """Sequences in one step."""
    max_batched_tokens: int = 512
    """Tokens in one step: bounds how long a long prompt holds up the streams that are running. 0 is vLLM's own number."""
    max_queue: int = 1024
    """Requests in the engine, running and waiting. One more is refused."""
    kv_cache_gb: int = 0
    """Memory for the key-value cache. 0 lets it grow with need."""
    gpu_memory: float = 0.0
    """The share of each GPU's memory, weights and cache together. Of the vllm engine only; 0 is its own (nine tenths)."""
    prefix_cache: bool = True
    """Keep the cache of finished prompts, for prompts that begin alike."""
    threads: int = 0
    """0 lets the engine choose."""
    quantize: str = ""
    """How weights are kept, in the words of TGI and LMI (int8, int4, awq, gptq, fp8 …). Empty is as they are."""
    speculate: int = 0
    """Tokens guessed ahead in each step, which the model then confirms or not; an answer stays what it is. 0 is off."""
    draft_model: str = ""
    """Directory of a small model that guesses. Empty with `speculate`: what followed the same words in the text so far."""
    tensor_parallel: int = 1
    """Processes or devices that share one model."""
    max_length: int = 0
    """Longest sequence, prompt and answer together. 0 is the model's own."""
    trust_remote_code: bool = False
    """Whether code that lies in the model's directory may run."""
    adapters: str = ""
    """LoRA adapters: a JSON object of names and the directories in which they lie. Of the vllm engine only, as the next three."""
    lora: bool = False
    """Whether adapters may come while it runs, so that there is room for them though there are none yet."""
    max_loras: int = 0
    """Adapters in one step, on an accelerator. 0 is the engine's own."""
    max_lora_rank: int = 0
    """The highest rank that an adapter may have. 0 follows the adapters; with `lora` it is at least 16."""

    def arguments(self) -> list[str]:
        """The command-line form that `parse` reads."""
        return [f"--{f.name.replace('_', '-')}={getattr(self, f.name)}" for f in fields(self)]

    @classmethod
    def parse(cls, arguments: list[str]) -> EngineOptions:
        """Raises ValueError, in one line, on an unknown option or a value of the wrong form."""
        kinds = {f.name: str(f.type) for f in fields(cls)}
        values: dict[str, object] = {}
        for argument in arguments:
            name, _, text = argument.removeprefix("--").partition("=")
            name = name.replace("-", "_")
            if name not in kinds:
                raise ValueError(f"unknown option {argument}")
            values[name] = _value(name, kinds[name], text)
        if "model" not in values:
            raise ValueError("--model is missing")
        return cls(**values)  # type: ignore[arg-type]


def _value(name: str, kind: str, text: str) -> object:
    match kind:
        case "int":
            if not text.isdecimal():
                raise ValueError(f"--{name} must be a number, not {text!r}")
            return int(text)
        case "float":
            try:
                return float(text)
            except ValueError:
                raise ValueError(f"--{name} must be a number, not {text!r}") from None
        case "bool":
            return text.lower() in {"1", "true"}
        case "Path":
            return Path(text)
        case "Dtype" if text not in DTYPES:
            raise ValueError(f"--{name} must be one of {', '.join(DTYPES)}, not {text!r}")
    return text
