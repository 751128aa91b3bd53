"""What is seen of models' directories and of machines, with real files for both."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from penstock.engines import apart
from penstock.engines.facts import count_gpus, machine_facts, model_facts, visible_devices


def model(directory: Path, config: Any, *names: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name in names:
        (directory / name).write_text("")
    return directory


def test_a_hugging_face_directory(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "auto_map": {"AutoConfig": "own.Config"},
        "quantization_config": {"quant_method": "awq"},
    }
    found = model_facts(model(tmp_path / "m", config, "model-00001-of-00002.safetensors", "tokenizer.json"))
    assert (found.model_type, found.architectures, found.max_positions) == ("llama", ("LlamaForCausalLM",), 4096)
    assert (found.own_code, found.quantized, found.weights, found.tokenizer) == (True, "awq", True, True)
    assert (found.openvino, found.encoder_decoder) == (False, False)


def test_an_encoder_decoder_without_a_fast_tokenizer(tmp_path: Path) -> None:
    found = model_facts(model(tmp_path, {"model_type": "t5", "is_encoder_decoder": True}, "pytorch_model.bin"))
    assert (found.encoder_decoder, found.weights, found.tokenizer) == (True, True, False)


def test_a_converted_directory_has_no_weights_for_pytorch(tmp_path: Path) -> None:
    found = model_facts(model(tmp_path, None, "openvino_model.xml", "openvino_model.bin", "tokenizer.json"))
    assert (found.openvino, found.weights, found.model_type) == (True, False, "")


def test_what_autogptq_wrote_is_quantised(tmp_path: Path) -> None:
    assert model_facts(model(tmp_path, {}, "gptq_model-4bit.safetensors", "quantize_config.json")).quantized == "gptq"


def test_the_type_of_a_model_that_wraps_a_text_model(tmp_path: Path) -> None:
    assert model_facts(model(tmp_path, {"text_config": {"model_type": "llama"}}, "x.safetensors")).model_type == "llama"


@pytest.mark.parametrize("config", ["{", "[]", "7"])
def test_a_config_that_is_none_is_told_in_one_line(tmp_path: Path, config: str) -> None:
    with pytest.raises(ValueError, match=r"the configuration of .* can't be read: [^\n]*\Z"):
        model_facts(model(tmp_path, config, "x.safetensors"))


def test_a_config_that_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(model(tmp_path, None, "openvino_model.xml") / "config.json")
    assert model_facts(tmp_path).openvino


@pytest.mark.parametrize(
    ("text", "count"), [("0", 1), ("0,1,2", 3), (" 0, 1 ", 2), ("", 0), ("-1", 0), ("0,-1,1", 1), ("GPU-aa,MIG-bb", 2)]
)
def test_visible_devices(text: str, count: int) -> None:
    assert visible_devices(text) == count


def devices(directory: Path, *names: str) -> Path:
    directory.mkdir()
    for name in names:
        (directory / name).write_text("")
    return directory


def test_gpus_are_device_files_that_may_be_used(tmp_path: Path) -> None:
    four = devices(tmp_path / "dev", "nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm", "null")
    assert count_gpus({"PATH": ""}, four) == 4
    assert count_gpus({"PATH": "", "CUDA_VISIBLE_DEVICES": "0,1"}, four) == 2
    assert count_gpus({"PATH": "", "CUDA_VISIBLE_DEVICES": ""}, four) == 0
    assert count_gpus({"PATH": "", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5"}, four) == 4
    assert count_gpus({"PATH": "", "CUDA_VISIBLE_DEVICES": "0"}, devices(tmp_path / "none", "null")) == 0


def test_nvidia_smi_is_asked_where_there_are_no_device_files(tmp_path: Path) -> None:
    program = devices(tmp_path / "bin", "nvidia-smi") / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho 'GPU 1: A (UUID: GPU-2)'\n")
    program.chmod(0o755)
    none = devices(tmp_path / "dev", "null")
    assert count_gpus({"PATH": str(program.parent)}, none) == 2
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert count_gpus({"PATH": str(program.parent)}, none) == 0


def test_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "MODULES", {"vllm": "nobody_has_this", "transformers": "nobody_has_this_either"})
    none = devices(tmp_path / "dev", "null")
    found = machine_facts(tmp_path, {"PATH": ""}, none)
    assert (found.gpus, found.installed, found.converter, found.home) == (0, frozenset({"openvino"}), False, tmp_path)
    for place in ("engines/vllm", "converter"):
        python = tmp_path / place / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to("/bin/sh")
    gone = {"PATH": "", "PENSTOCK_TRANSFORMERS_PYTHON": "/no/such/python"}
    found = machine_facts(tmp_path, gone, none)
    assert (found.installed, found.converter) == (frozenset({"openvino", "vllm"}), True)
