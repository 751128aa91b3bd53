"""What vLLM is told, and what is refused before it is asked."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.engines.options import EngineOptions
from penstock.engines.process import LoadError
from penstock.engines.vllm_settings import GIB, Machine, arguments, check_model, explain, prepare

CPU = Machine(device="cpu", count=8, bfloat16=True, memory=64 * GIB)
GPU = Machine(device="cuda", count=4, bfloat16=True, memory=64 * GIB)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_attention_heads": 12}))
    return tmp_path


def adapter(directory: Path, rank: object) -> str:
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return str(directory)


def test_options_reach_vllm(model: Path) -> None:
    options = EngineOptions(
        model=model,
        max_batch_size=600,
        tensor_parallel=2,
        kv_cache_gb=6,
        quantize="awq",
        max_length=100,
        gpu_memory=0.35,
        prefix_cache=False,
    )
    given = arguments(options, GPU)
    assert given["max_num_seqs"] == 600
    assert given["max_num_batched_tokens"] == 600, "vLLM takes no fewer tokens than sequences"
    assert given["tensor_parallel_size"] == 2
    assert given["distributed_executor_backend"] == "mp"
    assert given["kv_cache_memory_bytes"] == 3 * GIB, "each rank has its share"
    assert given["quantization"] == "awq"
    assert given["max_model_len"] == 100
    assert given["gpu_memory_utilization"] == 0.35
    assert given["enable_prefix_caching"] is False
    assert given["trust_remote_code"] is False
    assert given["dtype"] == "auto"
    assert "enforce_eager" not in given


def test_what_is_not_said_is_left_to_vllm_on_an_accelerator(model: Path) -> None:
    given = arguments(EngineOptions(model=model), GPU)
    assert not {"kv_cache_memory_bytes", "quantization", "max_model_len", "enable_lora"} & given.keys()
    assert given["skip_tokenizer_init"] is True, "there is no tokenizer.json"


def test_tokens_in_a_step_may_be_left_to_vllm(model: Path) -> None:
    assert "max_num_batched_tokens" not in arguments(EngineOptions(model=model, max_batched_tokens=0), GPU)
    many = EngineOptions(model=model, max_batched_tokens=0, max_batch_size=5000)
    assert arguments(many, GPU)["max_num_batched_tokens"] == 5000, "its own number may be too small"


def test_a_processor_starts_without_compiling_and_with_a_bounded_cache(model: Path) -> None:
    given = arguments(EngineOptions(model=model), CPU)
    assert given["enforce_eager"] is True
    assert given["kv_cache_memory_bytes"] == 4 * GIB
    assert given["dtype"] == "bfloat16"
    small = Machine(device="cpu", count=1, bfloat16=False, memory=2 * GIB)
    given = arguments(EngineOptions(model=model), small)
    assert given["kv_cache_memory_bytes"] == GIB // 2
    assert given["dtype"] == "float32"


@pytest.mark.parametrize(
    ("degree", "machine", "message"),
    [
        (64, CPU, "tensor_parallel is 64, and this machine has 8 processor cores: use at most 8"),
        (5, GPU, "this machine has 4 accelerators"),
        (5, CPU, "does not divide the model's 12 attention heads: use one of 1, 2, 3, 4, 6"),
    ],
)
def test_ranks_that_can_not_be_are_refused(model: Path, degree: int, machine: Machine, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        arguments(EngineOptions(model=model, tensor_parallel=degree), machine)


def test_an_encoder_decoder_is_refused(model: Path) -> None:
    check_model(model)
    (model / "config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True}))
    with pytest.raises(LoadError, match="no encoder-decoders such as t5; use the transformers engine"):
        check_model(model)


def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"^the configuration of .* can't be read: .*$"):
        check_model(tmp_path)


def test_bfloat16_that_is_not_there_is_refused(model: Path) -> None:
    old = Machine(device="cuda", count=1, bfloat16=False, memory=GIB)
    with pytest.raises(LoadError, match="use auto or float32"):
        arguments(EngineOptions(model=model, dtype="bfloat16"), old)


def test_adapters_bound_their_rank_and_number(model: Path, tmp_path: Path) -> None:
    named = {f"a{n}": adapter(tmp_path / f"a{n}", rank) for n, rank in enumerate([4, 9] * 5)}
    given = arguments(EngineOptions(model=model, adapters=json.dumps(named)), GPU)
    assert given["enable_lora"] is True
    assert given["max_lora_rank"] == 16
    assert given["max_loras"] == 8
    assert given["max_cpu_loras"] == 10
    given = arguments(EngineOptions(model=model, adapters=json.dumps(named)), CPU)
    assert given["max_loras"] == given["max_cpu_loras"] == 11, "the last place belongs to requests without an adapter"


@pytest.mark.parametrize("text", ["[", "[]", '{"a": 1}', '{"a": "/nowhere"}'])
def test_adapters_that_are_none_are_refused(model: Path, text: str) -> None:
    with pytest.raises(LoadError, match="adapter"):
        arguments(EngineOptions(model=model, adapters=text), GPU)


@pytest.mark.parametrize("rank", [0, 513, "8", None])
def test_a_rank_that_vllm_has_not_is_refused(model: Path, tmp_path: Path, rank: object) -> None:
    text = json.dumps({"a": adapter(tmp_path / "a", rank)})
    with pytest.raises(LoadError, match="has rank"):
        arguments(EngineOptions(model=model, adapters=text), GPU)


def test_nothing_phones_home_and_ranks_share_the_cores() -> None:
    environ: dict[str, str] = {"OMP_NUM_THREADS": "7", "VLLM_NO_USAGE_STATS": "0"}
    prepare(environ, EngineOptions(model=Path("/m")))
    assert environ["VLLM_NO_USAGE_STATS"] == environ["DO_NOT_TRACK"] == environ["HF_HUB_OFFLINE"] == "1"
    assert environ["OMP_NUM_THREADS"] == "7", "the user's own"
    del environ["OMP_NUM_THREADS"]
    prepare(environ, EngineOptions(model=Path("/m"), tensor_parallel=1000))
    assert environ["OMP_NUM_THREADS"] == "1"
    del environ["OMP_NUM_THREADS"]
    prepare(environ, EngineOptions(model=Path("/m"), threads=3))
    assert environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            "1 validation error for ModelConfig\n  Value error, Unknown quantization\n method: x. [type=value_error, "
            "input_value=ArgsKwargs(), input_type=ArgsKwargs]\n    For further information visit https://x",
            "Unknown quantization method: x.",
        ),
        (
            "1 validation error for ModelConfig\n  Value error, Model architectures ['T5Model', 'B'] are not supported for now. "
            "Supported architectures: dict_keys(['A']) [type=value_error]",
            "vLLM has no T5Model, B; use the transformers engine (PENSTOCK_ENGINE=transformers)",
        ),
        ("two\n lines", "two lines"),
        ("must be in [0, 2], got 3.0. (parameter=temperature, value=3.0)", "must be in [0, 2], got 3.0."),
        ("", "RuntimeError('')"),
    ],
)
def test_its_complaints_become_one_line(said: str, meant: str) -> None:
    assert explain(RuntimeError(said)) == meant
    assert explain(KeyError("weight")) == "KeyError('weight')"


def test_adapters_in_one_step_and_their_rank_are_bounded_by_the_user(model: Path, tmp_path: Path) -> None:
    named = json.dumps({f"a{n}": adapter(tmp_path / f"a{n}", 9 + n) for n in range(5)})
    given = arguments(EngineOptions(model=model, adapters=named, max_loras=2, max_lora_rank=64), GPU)
    assert (given["max_loras"], given["max_cpu_loras"], given["max_lora_rank"]) == (2, 5, 16)
    assert arguments(EngineOptions(model=model, adapters=named, max_loras=2), CPU)["max_loras"] == 6
    with pytest.raises(LoadError, match="adapter a4 has rank 13, and max_lora_rank is 12: raise it"):
        arguments(EngineOptions(model=model, adapters=named, max_lora_rank=12), GPU)


def test_an_assertion_without_words_says_what_it_asserts() -> None:
    with pytest.raises(AssertionError) as caught:
        fits(100, 384)
    assert explain(caught.value) == (
        "the model's weights or configuration do not fit: `raise AssertionError` in test_vllm_settings.py"
    )
    assert explain(AssertionError("dtype")) == "dtype"


def fits(given: int, wanted: int) -> None:
    """A library's bare assertion; one of pytest's own would have words."""
    if given != wanted:
        raise AssertionError


def test_sockets_of_ranks_find_room_in_a_deep_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    environ: dict[str, str] = {}
    prepare(environ, EngineOptions(model=tmp_path))
    base = environ["VLLM_RPC_BASE_PATH"]
    try:
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as other:
            listening.bind(f"{base}/{uuid.uuid4()}")
            listening.listen()
            other.connect(listening.getsockname())
        assert len(list(deep.iterdir())) == 1, "it lies where it should"
    finally:
        os.close(int(base.rpartition("/")[2]))
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    environ.clear()
    prepare(environ, EngineOptions(model=tmp_path))
    assert "VLLM_RPC_BASE_PATH" not in environ


def test_there_is_room_for_adapters_that_come_later(model: Path, tmp_path: Path) -> None:
    later = EngineOptions(model=model, lora=True)
    given = arguments(later, GPU)
    assert (given["enable_lora"], given["max_loras"], given["max_cpu_loras"], given["max_lora_rank"]) == (
        True,
        8,
        8,
        16,
    )
    assert arguments(replace(later, max_loras=2), CPU)["max_loras"] == 3
    named = json.dumps({f"a{n}": adapter(tmp_path / f"a{n}", 9 + 10 * n) for n in range(3)})
    given = arguments(replace(later, max_loras=2, adapters=named), GPU)
    assert (given["max_loras"], given["max_cpu_loras"], given["max_lora_rank"]) == (2, 3, 32)
    assert arguments(replace(later, max_loras=2, adapters=named), CPU)["max_loras"] == 4
    assert arguments(replace(later, max_lora_rank=60), GPU)["max_lora_rank"] == 64
    with pytest.raises(LoadError, match="max_lora_rank is 600; vLLM takes 1 to 512"):
        arguments(replace(later, max_lora_rank=600), GPU)
