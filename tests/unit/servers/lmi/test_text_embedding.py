"""Texts as vectors, by a tiny BERT, where torch is there (`make engines` runs it)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from penstock.servers.lmi.djl_python import Input
from penstock.servers.lmi.djl_python.text_embedding import TextEmbeddingService, pooling_of
from tests.tiny_models import END, build_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch", reason="torch is an extra")
    library = pytest.importorskip("transformers", reason="transformers is an extra")
    directory = tmp_path_factory.mktemp("bert")
    torch.manual_seed(20231101)
    config = library.BertConfig(
        vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    library.BertModel(config).save_pretrained(directory)
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(), eos_token=END, pad_token=END)
    tokenizer.save_pretrained(directory)
    return directory


def started(model: Path, **options: str) -> TextEmbeddingService:
    service = TextEmbeddingService()
    service.initialize({"model_id": str(model), **options})
    return service


def answer(service: TextEmbeddingService, body: Any) -> Any:
    inputs = Input()
    inputs.content.add("data", bytearray(json.dumps(body).encode()))
    return json.loads(bytes(service.inference(inputs).content.value_at(0)))


def test_one_text_is_one_vector_and_several_are_a_list(model: Path) -> None:
    service = started(model)
    one = answer(service, {"inputs": " one two"})
    assert len(one) == 16
    assert math.isclose(sum(value * value for value in one), 1.0, rel_tol=1e-5)
    both = answer(service, {"inputs": [" one two", " one two three four five"]})
    assert len(both) == 2
    assert all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(both[0], one, strict=True)), "padding changes nothing"
    assert answer(started(model, entryPoint="djl_python.lmi_vllm.vllm_async_service"), {"inputs": " one"}) != one
    (nested,) = answer(started(model, entryPoint="djl_python.lmi_vllm.vllm_async_service"), {"inputs": " one two"})
    assert nested == one


def test_poolings_differ_and_an_unknown_one_is_refused(model: Path) -> None:
    found = [
        answer(started(model, pooling=name, normalize="false"), {"inputs": " one two"})
        for name in ("mean", "cls", "max")
    ]
    assert found[0] != found[1] != found[2] != found[0]
    with pytest.raises(ValueError, match="pooling=last is not supported: use one of mean, cls, max"):
        started(model, pooling="last")


def test_a_batch_has_an_answer_for_each(model: Path) -> None:
    inputs = Input()
    inputs.properties = {"batch_size": "2"}
    for index, text in enumerate((" one", [" one", " two"])):
        inputs.content.add(f"batch_{index}.data", bytearray(json.dumps({"inputs": text}).encode()))
    output = started(model).inference(inputs)
    first, second = (json.loads(bytes(value)) for value in output.content.get_values())
    assert (len(first), len(second)) == (16, 2)


@pytest.mark.parametrize("body", [{"text": "a"}, {"inputs": []}, {"inputs": [1]}, {"inputs": {"a": 1}}])
def test_what_is_no_text_is_refused(body: Any, model: Path) -> None:
    with pytest.raises(ValueError, match='Missing "inputs" in json'):
        answer(started(model), body)


def test_a_long_text_is_cut(model: Path) -> None:
    assert len(answer(started(model), {"inputs": " one" * 5000})) == 16


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        (None, "mean"),
    ],
)
def test_the_models_own_pooling(said: dict[str, bool] | None, pooling: str, tmp_path: Path) -> None:
    if said is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling/config.json").write_text(json.dumps(said))
    assert pooling_of(tmp_path) == pooling
