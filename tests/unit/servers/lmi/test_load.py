"""Where a model's adapters are looked for."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.servers.lmi import load
from penstock.servers.lmi.settings import ModelSettings, build


@pytest.fixture
def settings(tmp_path: Path) -> ModelSettings:
    """A model in one directory and its `serving.properties` in another, with adapters in both."""
    for folder in ("served/adapters/sql", "weights/adapters/chat", "weights/mine/other"):
        (tmp_path / folder).mkdir(parents=True)
    return ModelSettings(
        name="m", directory=tmp_path / "served", model_id=str(tmp_path / "weights"), version=(0, 36), enable_lora=True
    )


def test_adapters_lie_beside_the_settings_or_the_model(settings: ModelSettings, tmp_path: Path) -> None:
    found = load._adapters(settings, {})
    assert [(each.name, each.source) for each in found] == [
        ("sql", str(tmp_path / "served/adapters/sql")),
        ("chat", str(tmp_path / "weights/adapters/chat")),
    ]
    assert [each.name for each in load._adapters(replace(settings, adapters="mine"), {})] == ["other"]
    alone = replace(settings, model_id="")
    assert [each.name for each in load._adapters(alone, {})] == ["sql"], "one directory is read once"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"enable_lora": False}, "the folder adapters is not read: option.enable_lora is not true"),
        (
            {"adapters": "none"},
            "option.enable_lora: the folder none holds no adapters, so there are none, but for those that come later",
        ),
    ],
)
def test_the_log_says_why_there_are_none(
    settings: ModelSettings, changes: dict[str, bool | str], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert load._adapters(replace(settings, **changes), {}) == ()  # type: ignore[arg-type]
    assert caplog.messages == [line]


@pytest.mark.parametrize("engine", ["Python", "MPI", "DeepSpeed", "FasterTransformer"])
@pytest.mark.parametrize(
    "rolling", ["lmi-dist", "scheduler", "neuron", "transformers-neuronx", "tnx", "trtllm", "deepspeed", "vllm"]
)
def test_the_line_names_whatever_engine_was_asked_for(engine: str, rolling: str, tmp_path: Path) -> None:
    pairs = {
        "engine": engine.lower(),
        "option.rolling_batch": rolling,
        "option.model_id": "a/b",
        "option.quantize": "smoothquant",
    }
    line = load.asked_for(build("m", tmp_path, {**pairs, "option.tensor_parallel_degree": "max"}, {}))
    assert (
        line == f"model m: engine={engine}, rolling_batch={rolling}, quantize=smoothquant, tensor_parallel_degree=max"
    )


def test_the_line_on_keys_that_mean_nothing_says_what_may_be_meant() -> None:
    assert load.strange(("fail_fast", "trust_remote_code")) == (
        "fail_fast, trust_remote_code: serving.properties has no such keys, and they change nothing; "
        "perhaps option.fail_fast is meant"
    )
