from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.engines.modelconfig import ModelConfig, read_model_config


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({"model_type": "falcon", "vocab_size": 65024, "eos_token_id": 11}, None, ("falcon", 2048, (11,), 65024)),
        ({"max_position_embeddings": 4096, "eos_token_id": 2}, {"eos_token_id": [2, 32000]}, ("", 4096, (2, 32000), 0)),
        ({"n_positions": 1024, "eos_token_id": None}, {}, ("", 1024, (), 0)),
        ({"seq_length": 512, "eos_token_id": -1}, {"eos_token_id": None}, ("", 512, (), 0)),
        ({"n_positions": -1, "n_ctx": 99, "vocab_size": -3}, None, ("", 99, (), 0)),
        ({"n_positions": True, "max_seq_len": 0}, None, ("", 2048, (), 0)),
        ({"text_config": {"max_position_embeddings": 77}, "eos_token_id": 1}, None, ("", 77, (1,), 0)),
    ],
)
def test_spellings(
    tmp_path: Path,
    config: dict[str, Any],
    generation: dict[str, Any] | None,
    expected: tuple[str, int, tuple[int, ...], int],
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert read_model_config(tmp_path) == ModelConfig(*expected)


@pytest.mark.parametrize("text", ["[]", "{", "null"])
def test_a_broken_config_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError):
        read_model_config(tmp_path)
