"""What a model's own files say of it: `config.json` and `generation_config.json`, as transformers writes them.

Owns the many spellings of the same fact. It must never load weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

DEFAULT_POSITIONS = 2048
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "n_ctx")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    model_type: str
    max_positions: int
    """Longest sequence in tokens. 2048 where the model does not say, as with old Falcon and BLOOM files."""
    eos_token_ids: tuple[int, ...]
    vocab_size: int
    """0 where the model does not say."""
    encoder_decoder: bool = False
    decoder_start: int = 0
    """The token that an encoder-decoder's answer goes on from."""


def read_model_config(model: Path) -> ModelConfig:
    """Read `model`'s files. Raises OSError or ValueError when `config.json` is missing or not JSON of the right form."""
    config = _object(model / "config.json")
    generation = _object(model / "generation_config.json") if (model / "generation_config.json").is_file() else {}
    inner = config.get("text_config")
    if isinstance(inner, dict):
        config = {**config, **inner}
    positions = next((config[name] for name in _POSITIONS if _is_count(config.get(name))), DEFAULT_POSITIONS)
    vocabulary = config.get("vocab_size")
    starts = [
        token
        for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id")
        for source in (generation, config)
        for token in _token_ids(source.get(name))
    ]
    return ModelConfig(
        model_type=str(config.get("model_type", "")),
        max_positions=positions,
        eos_token_ids=_token_ids(generation.get("eos_token_id")) or _token_ids(config.get("eos_token_id")),
        vocab_size=vocabulary if _is_count(vocabulary) else 0,
        encoder_decoder=config.get("is_encoder_decoder") is True,
        decoder_start=next(iter(starts), 0),
    )


def _object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object")
    return value


def _is_count(value: Any) -> TypeGuard[int]:
    """Some files say -1, or nothing, where there is no bound."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _token_ids(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(v for v in values if isinstance(v, int) and v >= 0)
