"""Models whose files are broken: every engine says so in one line, and none makes up what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.engines import apart, conversion
from penstock.engines.client import EngineProcess, LoadFailed
from penstock.engines.options import EngineOptions
from tests.engines.conftest import interpreter

pytestmark = [pytest.mark.engines, pytest.mark.timeout(400)]


def without_a_tensor(model: Path) -> None:
    """Under another name it is not there."""
    file = model / "model.safetensors"
    data = file.read_bytes()
    assert b'"model.norm.weight"' in data
    file.write_bytes(data.replace(b'"model.norm.weight"', b'"model.gone.weight"'))


def with_more_layers(model: Path) -> None:
    change(model, num_hidden_layers=3)


def with_another_vocabulary(model: Path) -> None:
    change(model, vocab_size=500)


def cut_short(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def change(model: Path, **members: object) -> None:
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | members))


BROKEN = [
    (without_a_tensor, "are not complete: model.norm.weight is not there"),
    (with_more_layers, "are not complete: model.layers.2.input_layernorm.weight and 8 more is not there"),
    (with_another_vocabulary, "its weights have other shapes than its config.json says"),
    (cut_short, "incomplete metadata"),
]


@pytest.fixture
def model(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "llama", tmp_path / "llama"))


@pytest.mark.parametrize(("broken", "reason"), BROKEN)
async def test_transformers_refuses(model: Path, broken: Callable[[Path], None], reason: str) -> None:
    broken(model)
    options = EngineOptions(model=model, engine="transformers", dtype="float32")
    with pytest.raises(LoadFailed) as failed:
        await EngineProcess.start(options, command=apart.command(interpreter("transformers")))
    assert reason in str(failed.value)
    assert "\n" not in str(failed.value)


def test_the_converter_refuses_incomplete_weights_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    without_a_tensor(model)
    command = (interpreter("converter"), "-I", conversion.PROGRAM)
    with pytest.raises(conversion.ConversionError, match=r"are not complete: model\.norm\.weight is not there$"):
        conversion.converted(model, tmp_path / "models", command)
    assert [file.suffix for file in (tmp_path / "models" / "openvino").iterdir()] == [".lock"]
