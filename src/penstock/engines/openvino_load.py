"""From a directory to a pipeline of OpenVINO GenAI: what is checked before, and which of its properties are set.

Owns the choices that are made once, when an engine starts: arithmetic, scheduling, guessing ahead. It runs only in an engine process.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openvino
import openvino_genai as genai

from penstock.engines.modelconfig import ModelConfig, read_model_config
from penstock.engines.openvino_grammar import Grammars, save_no_tokenizer
from penstock.engines.options import EngineOptions
from penstock.engines.process import LoadError, last_line
from penstock.engines.vocabulary import VocabularyError, read_vocabulary
from penstock.engines.weights import UnknownFormat, bits_of, weight_format

NGRAM = 3
"""Without a draft model: as many of the last tokens are looked for in the text so far, and fewer where there are none."""


def read_config(model: Path) -> ModelConfig:
    """The model's configuration. Raises LoadError."""
    if not (model / "openvino_model.xml").is_file():
        raise LoadError(f"{model} holds no openvino_model.xml")
    try:
        return read_model_config(model)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise LoadError(f"the configuration of {model} can't be read: {error}") from error


def precision(options: EngineOptions) -> str:
    """`bf16` or `f32`: arithmetic, and the key-value cache. Raises LoadError."""
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if options.dtype == "bfloat16" and "BF16" not in capabilities:
        raise LoadError("dtype bfloat16 is asked for, and this processor does not have it; use float32 or auto")
    return "bf16" if options.dtype != "float32" and "BF16" in capabilities else "f32"


def grammars_of(model: Path, config: ModelConfig) -> tuple[Grammars | None, str]:
    """What makes answers keep to a grammar, or why this model can't."""
    if not config.eos_token_ids:
        return None, "the model has no end token, so no text of it is ever complete"
    if not config.vocab_size:
        return None, "the model's config.json does not say its vocab_size"
    try:
        return Grammars(model, config.vocab_size, config.eos_token_ids[0]), ""
    except VocabularyError as error:
        return None, str(error)


def pipeline(options: EngineOptions, config: ModelConfig, arithmetic: str, grammars: Grammars | None) -> Any:
    """The pipeline that serves `options.model`. Raises LoadError."""
    check_weights(options)
    if options.speculate >= config.max_positions:
        raise LoadError(
            f"guessing {options.speculate} tokens ahead leaves no room for an answer: the model has {config.max_positions} positions"
        )
    scheduler = genai.SchedulerConfig()
    scheduler.dynamic_split_fuse = not options.draft_model
    scheduler.max_num_batched_tokens = options.max_batched_tokens
    if options.draft_model:
        # A prompt that is read in pieces makes the library's two models lose each other, and the answer is wrong: each is read whole.
        scheduler.max_num_batched_tokens = max(options.max_batched_tokens, config.max_positions)
    scheduler.max_num_seqs = options.max_batch_size
    scheduler.enable_prefix_caching = options.prefix_cache
    scheduler.cache_size = options.kv_cache_gb
    properties: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": arithmetic,
        "KV_CACHE_PRECISION": arithmetic,
        # Bound threads can't leave a core that the gateway or another replica uses for a moment, and two replicas bind to the same ones.
        "ENABLE_CPU_PINNING": False,
    }
    if options.threads:
        properties["INFERENCE_NUM_THREADS"] = options.threads
    tokenizer = grammars.tokenizer if grammars is not None else None
    try:
        if options.draft_model:
            draft = Path(options.draft_model)
            check_draft(options, config, draft)
            tokenizer = tokenizer or _no_tokenizer()
            properties["draft_model"] = _draft(draft, grammars, properties)
        elif options.speculate:
            properties["prompt_lookup"] = True
        if tokenizer is not None:
            return genai.ContinuousBatchingPipeline(str(options.model), tokenizer, scheduler, "CPU", **properties)
        return genai.ContinuousBatchingPipeline(str(options.model), scheduler, "CPU", properties)
    except RuntimeError as error:
        raise LoadError(f"OpenVINO can't load {options.model}: {last_line(error)}") from error


def check_weights(options: EngineOptions) -> None:
    """Raises LoadError when the weights are not kept as `quantize` says: they should have been converted before."""
    try:
        asked = weight_format(options.quantize)
        if asked is not None and (found := bits_of(options.model)) != int(asked[3]):
            raise LoadError(
                f"quantize={options.quantize} is asked for, and {options.model} keeps its weights in {found} bits"
            )
    except (UnknownFormat, OSError) as error:
        raise LoadError(str(error)) from error


def check_draft(options: EngineOptions, config: ModelConfig, draft: Path) -> None:
    """Raises LoadError when the draft model can't guess for this one."""
    if not options.speculate:
        raise LoadError("a draft model is named, and how many tokens it shall guess (speculate) is 0")
    size = read_config(draft).vocab_size
    if size != config.vocab_size:
        raise LoadError(
            f"the draft model {draft} has a vocabulary of {size} tokens, and the model one of {config.vocab_size}: "
            "they must have the same tokenizer"
        )
    try:
        if read_vocabulary(draft) != read_vocabulary(options.model):
            raise LoadError(f"the draft model {draft} has another tokenizer than the model")
    except VocabularyError:
        return  # bytes that can't be told can't be compared; the size is the same


def _no_tokenizer() -> Any:
    """The tokenizer of a model whose vocabulary nobody can tell."""
    with TemporaryDirectory(prefix="penstock-tokenizer-") as name:
        save_no_tokenizer(Path(name), 0)
        return genai.Tokenizer(name)


def _draft(draft: Path, grammars: Grammars | None, properties: dict[str, Any]) -> Any:
    """The library loads a draft model with a tokenizer of its own, and compares that to the model's: it gets the same one."""
    with TemporaryDirectory(prefix="penstock-draft-") as name:
        directory = Path(name)
        for file in ("openvino_model.xml", "openvino_model.bin"):
            (directory / file).symlink_to((draft / file).resolve())
        if grammars is None:
            save_no_tokenizer(directory, 0)
        else:
            grammars.save_tokenizer(directory)
        return genai.draft_model(name, "CPU", **properties)
