from __future__ import annotations

from pathlib import Path

import pytest

from penstock.engines.options import EngineOptions


def test_the_command_line_says_the_same_again() -> None:
    options = EngineOptions(
        model=Path("/a b/c=d"),
        dtype="float32",
        max_batch_size=3,
        prefix_cache=False,
        kv_cache_gb=2,
        threads=1,
        gpu_memory=0.5,
    )
    assert EngineOptions.parse(options.arguments()) == options


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--model is missing"),
        (["--model=/m", "--speed=11"], "unknown option --speed=11"),
        (["--model=/m", "--threads=many"], "must be a number"),
        (["--model=/m", "--gpu-memory=most"], "must be a number"),
        (["--model=/m", "--dtype=float64"], "one of auto, bfloat16, float16, float32"),
    ],
)
def test_what_it_does_not_understand_it_says_in_one_line(arguments: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        EngineOptions.parse(arguments)
