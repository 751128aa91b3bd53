"""`djl_python.huggingface` and its kin with real models of the library, where torch is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.servers.lmi.djl_python import Input, Output
from penstock.servers.lmi.djl_python.deepspeed import DeepSpeedService
from penstock.servers.lmi.djl_python.fastertransformer import FasterTransformerService
from penstock.servers.lmi.djl_python.huggingface import HuggingFaceService, get_torch_dtype_from_str
from penstock.servers.lmi.djl_python.transformers_neuronx import TransformersNeuronXService
from tests.tiny_models import END, build_tokenizer

SERVICES = [HuggingFaceService, DeepSpeedService, FasterTransformerService, TransformersNeuronXService]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights, and of three layers' worth of nothing."""
    torch = pytest.importorskip("torch", reason="torch is an extra")
    library = pytest.importorskip("transformers", reason="transformers is an extra")
    directory = tmp_path_factory.mktemp("hf") / "llama"
    torch.manual_seed(7)
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(), eos_token=END)
    config = library.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    llama = library.LlamaForCausalLM(config)
    # For requests that name no number: the library warns where it must guess one.
    llama.generation_config.max_new_tokens = 5
    llama.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def given(body: Any, content_type: str = "application/json", **properties: str) -> Input:
    inputs = Input()
    inputs.properties = {"Content-Type": content_type, **properties}
    inputs.content.add("data", bytearray(body.encode() if isinstance(body, str) else json.dumps(body).encode()))
    return inputs


def started(kind: type[HuggingFaceService], model: Path, **options: str) -> HuggingFaceService:
    service = kind()
    service.initialize({"model_id": str(model), "device_id": "-1", **options})
    assert service.initialized
    return service


def body(output: Output) -> Any:
    return json.loads(bytes(output.content.value_at(0)))


@pytest.mark.parametrize("kind", SERVICES)
def test_text_is_generated_after_its_prompt(kind: type[HuggingFaceService], model: Path) -> None:
    service = started(kind, model, tensor_parallel_degree="1", dtype="fp32")
    output = service.inference(given({"inputs": [" one", " two three"], "parameters": {"max_new_tokens": 3}}))
    first, second = body(output)
    assert first["generated_text"].startswith(" one")
    assert second["generated_text"].startswith(" two three")
    assert body(service.inference(given(" one", "text/plain")))[0]["generated_text"].startswith(" one")
    assert len(body(service.inference(given([" one", " two"])))) == 2


def test_a_stream_is_a_line_a_step(model: Path) -> None:
    for streaming in ("true", "huggingface"):
        service = started(HuggingFaceService, model, enable_streaming=streaming)
        output = service.inference(given({"inputs": " one", "parameters": {"max_new_tokens": 3, "min_new_tokens": 3}
                                          if streaming == "huggingface" else {"max_new_tokens": 3}}))  # fmt: skip
        assert output.stream_content is not None
        assert output.properties["content-type"] == "application/jsonlines"
        lines = [json.loads(output.stream_piece(item)) for item in output.stream_content]
        assert lines
        assert all(len(line["outputs"]) == 1 for line in lines)


def test_rolling_batch_is_fragments_of_one_object(model: Path) -> None:
    service = started(HuggingFaceService, model, rolling_batch="auto")
    output = service.inference(given({"inputs": " one", "parameters": {"max_new_tokens": 3}}))
    assert output.stream_content is not None
    text = b"".join(output.stream_piece(item) for item in output.stream_content)
    assert isinstance(json.loads(text)["generated_text"], str)
    assert service.inference(given({"inputs": ["a", "b"]})).code == 424


def test_a_batch_must_agree_on_its_parameters(model: Path) -> None:
    service = started(HuggingFaceService, model)
    inputs = Input()
    inputs.properties = {"batch_size": "2"}
    for index, length in enumerate((2, 3)):
        asked = {"inputs": " one", "parameters": {"max_new_tokens": length}}
        inputs.content.add(f"batch_{index}.data", bytearray(json.dumps(asked).encode()))
    output = service.inference(inputs)
    assert output.content.get_keys() == ["batch_0.data", "batch_1.data"]
    assert "all input batches must have the same parameters" in output.content.value_at(1).decode()


def test_a_broken_body_is_told(model: Path) -> None:
    service = started(HuggingFaceService, model)
    assert body(service.inference(given("{")))["code"] == 424


def test_options_that_cannot_be(model: Path) -> None:
    with pytest.raises(ValueError, match="device_map should set when load_in_8bit is set"):
        started(HuggingFaceService, model, load_in_8bit="true")
    with pytest.raises(ValueError, match="Invalid data type: fp12"):
        started(HuggingFaceService, model, dtype="fp12")
    assert get_torch_dtype_from_str("auto") == "auto"


def test_another_task_is_the_librarys_pipeline(model: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("transformers", reason="transformers is an extra")
    config = library.BertConfig(
        vocab_size=400, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    library.BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(), eos_token=END, pad_token=END)
    tokenizer.save_pretrained(tmp_path)
    service = started(HuggingFaceService, tmp_path)
    (found,) = body(service.inference(given({"inputs": " one two"})))
    assert found["label"].startswith("LABEL_")
    service = started(HuggingFaceService, tmp_path, task="text-classification", rolling_batch="auto")
    assert len(body(service.inference(given({"inputs": [" one", " two"]})))) == 2
