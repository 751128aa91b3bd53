"""From a server's settings to what is started for a model, with real directories and the real engine."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from penstock.engines import apart
from penstock.engines.choice import Asked
from penstock.engines.tokenizer import TokenizerError
from penstock.servers import models, textmodel
from penstock.servers.adapters import listed
from penstock.servers.models import ModelUnavailable
from penstock.servers.textmodel import Wanted

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 512}


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A home where transformers and vLLM have interpreters of their own."""
    monkeypatch.setattr(apart, "MODULES", {"vllm": "nobody_has_this", "transformers": "nobody_has_this_either"})
    for name in ("vllm", "transformers"):
        python = tmp_path / "engines" / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
    return {"PENSTOCK_MODELS": str(tmp_path / "models"), "PATH": "", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    directory = tmp_path / "llama"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(LLAMA))
    for name in ("model.safetensors", "tokenizer.json"):
        (directory / name).write_text("{}")
    return directory


def forced(engine: str, **more: int | str | bool) -> Asked:
    return Asked(engine=engine, engine_given=f"PENSTOCK_ENGINE={engine}", **more)  # type: ignore[arg-type]


def test_weights_go_to_their_engine_as_they_are_with_every_setting(
    tmp_path: Path, llama: Path, environ: dict[str, str]
) -> None:
    asked = forced("vllm", dtype="bfloat16", quantize="fp8", tensor_parallel=2, max_length=9999, trust_remote_code=True)
    wanted = Wanted(model_id=str(llama), asked=asked, max_batch_size=3, max_queue=5, prefix_cache=False)
    found = textmodel.plan(wanted, environ)
    options = found.options
    assert (options.model, options.engine, options.dtype, options.quantize) == (llama, "vllm", "bfloat16", "fp8")
    assert (options.tensor_parallel, options.max_length, options.trust_remote_code) == (2, 512, True)
    assert (options.max_batch_size, options.max_queue, options.prefix_cache) == (3, 5, False)
    assert found.command == (str(tmp_path / "engines/vllm/bin/python"), "-P", apart.__file__)
    assert found.lines == ()
    assert found.choice.why == "PENSTOCK_ENGINE=vllm"


def test_the_next_engine_serves_where_there_is_no_converter(
    llama: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(quantize="bitsandbytes", tensor_parallel=4, dtype="float16")
    found = textmodel.plan(Wanted(model_id=str(llama), asked=asked), environ)
    assert (found.options.engine, found.options.quantize, found.options.tensor_parallel) == ("transformers", "", 1)
    assert [line.split(":")[0] for line in found.lines] == [
        "dtype float16 is for vLLM on GPUs",
        "quantize=bitsandbytes",
        "tensor parallel degree 4",
    ]


@pytest.mark.parametrize(("on_cpu", "batched"), [(0, 4096), (512, 512), (9999, 4096)])
def test_steps_are_short_on_a_processor(on_cpu: int, batched: int, llama: Path, environ: dict[str, str]) -> None:
    wanted = Wanted(model_id=str(llama), max_batched_tokens=4096, most_batched_tokens_on_cpu=on_cpu)
    assert textmodel.plan(wanted, environ).options.max_batched_tokens == batched


def see_a_gpu(directory: Path, environ: dict[str, str]) -> None:
    environ["PATH"], environ["CUDA_VISIBLE_DEVICES"] = str(directory), "0"
    (directory / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: H100'\n")
    (directory / "nvidia-smi").chmod(0o755)


@pytest.mark.parametrize(
    ("engine", "gpus", "given", "batched"),
    [
        ("vllm", 1, 0, 0),
        ("vllm", 1, 4096, 4096),
        ("vllm", 0, 0, 512),
        ("vllm", 0, 4096, 512),
        ("transformers", 1, 0, 512),
        ("transformers", 0, 0, 512),
    ],
)
def test_tokens_in_a_step_where_nobody_says_a_number(
    engine: str, gpus: int, given: int, batched: int, llama: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    if gpus:
        see_a_gpu(tmp_path, environ)
    wanted = Wanted(model_id=str(llama), asked=forced(engine), max_batched_tokens=given, most_batched_tokens_on_cpu=512)
    assert textmodel.plan(wanted, environ).options.max_batched_tokens == batched


@pytest.mark.parametrize(("engine", "gpus", "share"), [("vllm", 1, 0.5), ("vllm", 0, 0.0), ("transformers", 1, 0.0)])
def test_a_share_of_a_gpus_memory_is_vllms(
    engine: str, gpus: int, share: float, llama: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    if gpus:
        see_a_gpu(tmp_path, environ)
    found = textmodel.plan(Wanted(model_id=str(llama), asked=forced(engine), gpu_memory=0.5), environ)
    assert found.options.gpu_memory == share
    told = "gpu_memory_utilization 0.5: it is for vLLM on GPUs, and changes nothing here"
    assert (told in found.lines) is (share == 0)


def adapter(directory: Path) -> Path:
    directory.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (directory / name).write_text("{}")
    return directory


def test_adapters_choose_the_engine_and_reach_it(llama: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    sql, chat = adapter(tmp_path / "sql"), adapter(tmp_path / "chat")
    wanted = Wanted(model_id=str(llama), adapters=listed(f"sql={sql},chat={chat}"), max_loras=3, max_lora_rank=32)
    found = textmodel.plan(wanted, environ)
    assert found.choice.engine == "vllm"
    assert json.loads(found.options.adapters) == {"sql": str(sql), "chat": str(chat)}
    assert (found.options.max_loras, found.options.max_lora_rank) == (3, 32)
    assert found.options.lora is False
    later = textmodel.plan(Wanted(model_id=str(llama), lora=True, max_loras=3), environ)
    assert (later.choice.engine, later.options.lora, later.options.max_loras) == ("vllm", True, 3)
    plain = textmodel.plan(Wanted(model_id=str(llama)), environ)
    assert (plain.choice.engine, plain.options.adapters) == ("transformers", "")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (Asked(), "LoRA adapters (sql), which only vllm has): vLLM is not installed: make an environment"),
        (forced("transformers"), "the transformers engine has no LoRA adapters (sql), and vllm has"),
    ],
)
def test_adapters_are_never_left_out(
    asked: Asked, reason: str, llama: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "engines/vllm/bin/python").unlink()
    wanted = Wanted(model_id=str(llama), asked=asked, adapters=listed(f"sql={adapter(tmp_path / 'sql')}"))
    with pytest.raises(ModelUnavailable) as caught:
        textmodel.plan(wanted, environ)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (forced("steam"), "there is no engine named steam"),
        (
            forced("openvino"),
            "must be converted first for the openvino engine, and there is no converter. Make one with `",
        ),
    ],
)
def test_what_cannot_be_chosen_is_unavailable(asked: Asked, reason: str, llama: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        textmodel.plan(Wanted(model_id=str(llama), asked=asked), environ)
    assert reason in str(caught.value)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "tokenizer.json"])
def test_an_engine_that_loads_weights_needs_more_than_those(missing: str, llama: Path) -> None:
    models.check_weights(llama)
    (llama / missing).unlink()
    with pytest.raises(
        ModelUnavailable, match="holds no PyTorch weights" if "model." in missing else f"lacks {missing}"
    ):
        models.check_weights(llama)


async def test_a_model_is_loaded_and_says_why_by_this_engine(tiny_model: Path, environ: dict[str, str]) -> None:
    wanted = Wanted(model_id=str(tiny_model), asked=Asked(max_length=100))
    loaded = await textmodel.load(wanted, {**environ, "CUDA_VISIBLE_DEVICES": ""})
    try:
        assert loaded.engine.info.max_positions == 100
        assert loaded.served.startswith("served by the openvino engine in torch.")
        assert loaded.served.endswith(" on cpu: it is an OpenVINO model")
        assert loaded.tokenizer.encode(" one")
    finally:
        await loaded.engine.close()


async def test_a_tokenizer_that_cannot_be_read_leaves_no_engine(
    tiny_model: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"the tokenizer in .*broken can't be read"):
        await textmodel.load(Wanted(model_id=str(broken)), environ)
    assert not [child for child in _children() if "penstock.engines" in child]


def _children() -> list[str]:
    children = Path("/proc/self/task").glob("*/children")
    pids = [pid for file in children for pid in file.read_text().split()]
    return [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in pids]
