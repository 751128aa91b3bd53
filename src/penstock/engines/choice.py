"""Which engine serves a model, and on which terms: rules over what was asked, what the model is and what the machine has.

Owns the rules, their reasons in words, and what becomes of settings that the chosen engine can't follow. Pure: `facts.py` looks at files
and devices. It must never know where a setting came from but by the words that the caller gives for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.engines.options import Dtype
from penstock.engines.weights import WORDS

ENGINES = ("openvino", "transformers", "vllm")

FAMILIES = frozenset({
    "arcee", "biogpt", "bloom", "cohere", "falcon", "glm4", "gpt2", "gpt_bigcode", "gpt_neo",
    "gpt_neox", "gptj", "granite", "llama", "mistral", "mixtral", "mpt", "olmo", "olmo2", "opt", "persimmon", "phi", "phi3", "qwen2",
    "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2", "xglm",
})  # fmt: skip
"""`model_type` of the decoders that the converter takes and OpenVINO GenAI's continuous batching runs."""

FORMATS = frozenset({
    "awq", "gptq", "marlin", "awq_marlin", "gptq_marlin", "exl2", "compressed-tensors", "squeezellm", "deepspeedfp", "dynamic_int8",
    "static_int8", "smoothquant",
})  # fmt: skip
"""Ways to quantise that a model's files must have been made in: no engine does them while it loads."""

_VLLM_WEIGHTS = {
    "bitsandbytes4": "bitsandbytes", "bitsandbytes8": "bitsandbytes", "bitsandbytes-nf4": "bitsandbytes",
    "bitsandbytes-fp4": "bitsandbytes",
}  # fmt: skip
"""What vLLM has under another name, or nearly: its bitsandbytes has 4 bits."""

OPENVINO_WEIGHTS: Mapping[str, str] = WORDS
"""What a conversion for OpenVINO can make of weights: what is asked for, and the conversion's own word for it."""


class ChoiceError(Exception):
    """No engine can serve the model as it is asked for. The message is one line, and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What settings say. `engine_given` is the setting that names the engine, as it was given ("PENSTOCK_ENGINE=vllm")."""

    engine: str = ""
    """Empty leaves the choice to the rules."""
    engine_given: str = ""
    if_installed: bool = False
    """Whether `engine` is only meant where it can serve the model: a value of AWS's that must not fail on another machine."""
    dtype: str = "auto"
    """auto, float32, float16 or bfloat16."""
    quantize: str = ""
    tensor_parallel: int = 1
    """0 is as many devices as there are."""
    max_length: int = 0
    """Tokens of prompt and answer together. 0 follows the model."""
    trust_remote_code: bool = False
    adapters: tuple[str, ...] = ()
    """Names of the LoRA adapters that are to be loaded."""
    lora: bool = False
    """Whether adapters may come while the engine runs. One that takes none still serves the model."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model's directory shows without loading anything."""

    directory: Path
    model_type: str = ""
    architectures: tuple[str, ...] = ()
    encoder_decoder: bool = False
    own_code: bool = False
    """Whether `config.json` has an `auto_map`: the repository brings code of its own, which the model may need or not."""
    openvino: bool = False
    weights: bool = False
    """PyTorch weights."""
    tokenizer: bool = False
    """Whether `tokenizer.json` is there."""
    quantized: str = ""
    """How the weights are quantised already ("gptq"); empty when they are not."""
    max_positions: int = 0
    """0 where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What a machine has. `home` is the Penstock home, for the commands that a message advises."""

    home: Path
    gpus: int = 0
    installed: frozenset[str] = frozenset({"openvino"})
    converter: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine's name, and why it was chosen, in words that end a sentence."""

    engine: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the chosen engine is told, and `lines` on settings that it does not follow as they were given."""

    dtype: Dtype = "auto"
    quantize: str = ""
    tensor_parallel: int = 1
    max_length: int = 0
    trust_remote_code: bool = False
    lines: tuple[str, ...] = ()


def choose(asked: Asked, model: ModelFacts, machine: MachineFacts) -> Choice:
    """The engine for `model`. Raises ChoiceError."""
    if asked.engine and asked.engine not in ENGINES:
        raise ChoiceError(
            f"{asked.engine_given or asked.engine}: there is no engine named {asked.engine}; there are {', '.join(ENGINES)}"
        )
    if not model.openvino and not model.weights:
        raise ChoiceError(
            f"{model.directory} holds no model: neither openvino_model.xml nor PyTorch weights (*.safetensors, *.bin) are there"
        )
    if not model.tokenizer:
        raise ChoiceError(
            f"{model.directory} lacks tokenizer.json: save the model's tokenizer as a fast one "
            "(transformers: AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR))"
        )
    if machine.gpus and model.weights and _shards(asked, machine) > 1:
        return _sharded(asked, model, machine)
    passed = ""
    if asked.engine:
        problem = obstacle(asked.engine, asked, model, machine)
        if not problem:
            return Choice(asked.engine, asked.engine_given or "it was asked for")
        if not asked.if_installed:
            raise ChoiceError(f"{asked.engine_given or asked.engine} can't serve {model.directory}: {problem}")
        passed = f"{asked.engine_given} can't be had: {problem}"
    return _first(asked, model, machine, passed)


def terms(choice: Choice, asked: Asked, model: ModelFacts, machine: MachineFacts) -> Terms:
    """What to tell the chosen engine. Raises ChoiceError."""
    dtype, dtype_line = _dtype(choice.engine, asked.dtype, machine)
    quantize, quantize_line = _weights(choice.engine, asked.quantize, model, machine)
    shards, shards_line = _shards(asked, machine), ""
    if shards > 1 and choice.engine != "vllm":
        why = "there are no GPUs to shard over; one engine uses all cores"
        if machine.gpus:
            why = "an OpenVINO model runs on the processor, in one engine"
        shards, shards_line = 1, f"tensor parallel degree {shards}: {why}"
    code_line = ""
    if asked.trust_remote_code and choice.engine == "openvino":
        code_line = "trust_remote_code: a converted model runs none of its repository's code"
    longest = model.max_positions if model.max_positions and not model.encoder_decoder else asked.max_length
    lines = (dtype_line, quantize_line, shards_line, code_line)
    return Terms(
        dtype=dtype,
        quantize=quantize,
        tensor_parallel=shards,
        max_length=min(asked.max_length, longest),
        trust_remote_code=asked.trust_remote_code and choice.engine != "openvino",
        lines=tuple(line for line in lines if line),
    )


def obstacle(engine: str, asked: Asked, model: ModelFacts, machine: MachineFacts) -> str:
    """Why `engine` can't serve `model` on `machine`, and what to do about it; empty when it can."""
    if asked.adapters and engine != "vllm":
        return f"the {engine} engine has no LoRA adapters ({_some(asked.adapters)}), and vllm has: {_vllm(machine)}"
    if engine == "openvino":
        return _openvino_obstacle(model, machine)
    if not model.weights:
        return f"the {engine} engine needs the model's PyTorch weights, and only an OpenVINO model is there"
    if engine == "vllm" and model.encoder_decoder:
        return "vLLM runs no encoder-decoder models"
    if engine not in machine.installed:
        return f"{_LIBRARIES[engine]} is not installed: make an environment for it with {install(engine, machine)}"
    if _needs_code(model) and not asked.trust_remote_code:
        return (
            f"a model of type {model.model_type or 'unknown'} needs the code in its directory, which runs only with "
            "HF_MODEL_TRUST_REMOTE_CODE=true (or option.trust_remote_code=true)"
        )
    return ""


def install(what: str, machine: MachineFacts) -> str:
    """The command that makes an engine's environment, or the converter's."""
    place = machine.home / ("converter" if what == "converter" else f"engines/{what}")
    if what == "vllm" and not machine.gpus:  # a build for processors, which no single package name gives
        return f"`python3 scripts/vllm_environment.py {place}` in a checkout of Penstock"
    packages = {"converter": "optimum-intel torch", "transformers": "torch transformers msgspec", "vllm": "vllm"}
    return f"`python3 -m venv {place} && {place}/bin/pip install {packages[what]}`"


def _some(names: tuple[str, ...]) -> str:
    """A few of them, for a line that people read."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _vllm(machine: MachineFacts) -> str:
    return (
        "leave the choice to Penstock"
        if "vllm" in machine.installed
        else f"make an environment for it with {install('vllm', machine)}"
    )


_LIBRARIES = {"vllm": "vLLM", "transformers": "transformers"}


def _openvino_obstacle(model: ModelFacts, machine: MachineFacts) -> str:
    if model.openvino:
        return ""
    if model.encoder_decoder:
        return "the openvino engine runs no encoder-decoder models"
    if model.quantized:
        return f"the converter for the openvino engine takes no weights that are quantised already ({model.quantized})"
    if model.model_type not in FAMILIES:
        return f"the converter for the openvino engine takes no models of type {model.model_type or 'unknown'}"
    if not machine.converter:
        return (
            "its PyTorch weights must be converted first for the openvino engine, and there is no converter. "
            f"Make one with {install('converter', machine)}"
        )
    return ""


def _first(asked: Asked, model: ModelFacts, machine: MachineFacts, passed: str) -> Choice:
    """The best engine that nothing keeps from serving the model."""
    order, why = _preference(model, machine)
    if asked.adapters:
        order, why = ("vllm",), f"LoRA adapters ({_some(asked.adapters)}), which only vllm has"
    elif asked.lora and not obstacle("vllm", asked, model, machine):
        order, why = ("vllm",), "LoRA adapters may come, which only vllm takes"
    problems: list[str] = []
    for engine in order:
        problem = obstacle(engine, asked, model, machine)
        if not problem:
            return Choice(engine, "; ".join([why, *([passed] if passed else problems)]))
        problems.append(problem)
    raise ChoiceError(f"no engine here can serve {model.directory} ({why}): {', or '.join(dict.fromkeys(problems))}")


def _preference(model: ModelFacts, machine: MachineFacts) -> tuple[tuple[str, ...], str]:
    """Engines in order, best first, and what decides it."""
    if not model.weights:
        return ("openvino",), "it is an OpenVINO model"
    kind = f"a model of type {model.model_type or 'unknown'}"
    if model.encoder_decoder:
        return ("transformers",), f"{kind} is an encoder and a decoder"
    if _needs_code(model):
        return ("transformers", "vllm"), f"{kind} has code of its own"
    if model.model_type not in FAMILIES and not (machine.gpus and _is_decoder(model)):
        return ("transformers", "vllm"), f"{kind} is none that the converter takes"
    if machine.gpus:
        return ("vllm", "transformers", "openvino"), f"{kind} on a machine with a GPU"
    if model.quantized:
        return ("vllm", "transformers"), f"{kind} with weights that are quantised already ({model.quantized})"
    return ("openvino", "transformers", "vllm"), f"{kind} on a machine without a GPU"


def _sharded(asked: Asked, model: ModelFacts, machine: MachineFacts) -> Choice:
    """vLLM alone shares a model among devices."""
    shards = _shards(asked, machine)
    why = f"tensor parallel degree {shards}"
    if asked.engine not in ("", "vllm") and not asked.if_installed:
        raise ChoiceError(f"{why} needs vLLM, and {asked.engine_given or asked.engine} asks for another engine")
    if shards > machine.gpus:
        raise ChoiceError(f"{why} needs {shards} GPUs, and this machine has {machine.gpus}")
    if problem := obstacle("vllm", asked, model, machine):
        raise ChoiceError(f"{why} needs vLLM: {problem}")
    return Choice("vllm", why)


def _shards(asked: Asked, machine: MachineFacts) -> int:
    """How many devices are to share the model."""
    return asked.tensor_parallel or max(machine.gpus, 1)


def _needs_code(model: ModelFacts) -> bool:
    """Whether the libraries do not know the model themselves. Many repositories keep the code that these took over long ago."""
    return model.own_code and model.model_type not in FAMILIES


def _is_decoder(model: ModelFacts) -> bool:
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in model.architectures)


def _dtype(engine: str, asked: str, machine: MachineFacts) -> tuple[Dtype, str]:
    """The engine's dtype, and a line where it is not the one that was asked for."""
    if asked == "float16":
        if machine.gpus and engine == "vllm":
            return "float16", ""
        return "auto", "dtype float16 is for vLLM on GPUs: bfloat16 is used where the processor has it, else float32"
    if asked == "bfloat16":
        return ("auto" if engine == "openvino" else "bfloat16"), ""
    return ("float32" if asked == "float32" else "auto"), ""


def _weights(engine: str, asked: str, model: ModelFacts, machine: MachineFacts) -> tuple[str, str]:
    """How the engine is to keep weights, and a line where that is not what was asked for."""
    if not asked:
        return "", ""
    if model.quantized:
        used = f"the weights are quantised already ({model.quantized}), and used as they are"
        return "", "" if asked == model.quantized else f"quantize={asked}: {used}"
    if asked in FORMATS:
        return (
            "",
            f"quantize={asked}: the weights are not quantised so in the model's directory, and are used as they are",
        )
    if engine == "vllm" and asked in _VLLM_WEIGHTS:
        return _VLLM_WEIGHTS[asked], f"quantize={asked}: vLLM keeps the weights in {_VLLM_WEIGHTS[asked]}"
    if engine == "vllm":
        return asked, ""
    if engine == "transformers":
        return "", f"quantize={asked}: the transformers engine keeps the weights as they are"
    if model.openvino and not (machine.converter and asked in OPENVINO_WEIGHTS):
        missing = ": there is no converter" if asked in OPENVINO_WEIGHTS else ""
        return "", f"quantize={asked}: the model is converted already, and its weights are used as they are{missing}"
    if asked in OPENVINO_WEIGHTS:
        word = OPENVINO_WEIGHTS[asked]
        return word, "" if word == asked else f"quantize={asked}: the weights are kept in {word}"
    return "", f"quantize={asked} is for GPUs: the weights are used as they are in the model's directory"
