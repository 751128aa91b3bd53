"""Which engine, on which terms, and what is said: a table over model, machine and settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from penstock.engines.choice import Asked, Choice, ChoiceError, MachineFacts, ModelFacts, choose, terms

DIRECTORY, HOME = Path("/m"), Path("/home/p/.penstock")
LLAMA = ModelFacts(
    DIRECTORY, model_type="llama", architectures=("LlamaForCausalLM",), weights=True, tokenizer=True, max_positions=4096
)
FALCON = replace(LLAMA, model_type="falcon", architectures=("FalconForCausalLM",), own_code=True, max_positions=2048)
OLD_FALCON = replace(FALCON, model_type="RefinedWebModel", architectures=("RWForCausalLM",))
IR = ModelFacts(DIRECTORY, model_type="falcon", openvino=True, tokenizer=True, max_positions=2048)
BOTH = replace(LLAMA, openvino=True)
T5 = ModelFacts(DIRECTORY, model_type="t5", encoder_decoder=True, weights=True, tokenizer=True, max_positions=512)
MAMBA = replace(LLAMA, model_type="mamba", architectures=("MambaForCausalLM",))
WHISPER = replace(LLAMA, model_type="clip", architectures=("CLIPModel",))
GPTQ = replace(LLAMA, quantized="gptq")

BARE = MachineFacts(home=HOME)
LAPTOP = MachineFacts(home=HOME, converter=True)
TORCH = replace(BARE, installed=frozenset({"openvino", "transformers"}))
ALL = replace(LAPTOP, installed=frozenset({"openvino", "transformers", "vllm"}))
GPU = replace(ALL, gpus=1)
FOUR = replace(ALL, gpus=4)
GPU_BARE = replace(LAPTOP, gpus=4)

VLLM_HERE = "`python3 -m venv /home/p/.penstock/engines/vllm && /home/p/.penstock/engines/vllm/bin/pip install vllm"
TRANSFORMERS_HERE = "/home/p/.penstock/engines/transformers/bin/pip install torch transformers msgspec`"
CONVERTER_HERE = "/home/p/.penstock/converter/bin/pip install optimum-intel torch`"


def forced(engine: str) -> Asked:
    return Asked(engine=engine, engine_given=f"PENSTOCK_ENGINE={engine}")


CHOICES: list[tuple[ModelFacts, MachineFacts, Asked, str, str]] = [
    # On a processor: what the converter takes, and IRs.
    (LLAMA, LAPTOP, Asked(), "openvino", "a model of type llama on a machine without a GPU"),
    (FALCON, LAPTOP, Asked(), "openvino", "a model of type falcon on a machine without a GPU"),
    (LLAMA, ALL, Asked(), "openvino", "a model of type llama on a machine without a GPU"),
    (IR, BARE, Asked(), "openvino", "it is an OpenVINO model"),
    (IR, FOUR, Asked(), "openvino", "it is an OpenVINO model"),
    (BOTH, BARE, Asked(), "openvino", "a model of type llama on a machine without a GPU"),
    # Without a converter another engine does, and the reason says what is missed.
    (LLAMA, TORCH, Asked(), "transformers", f"there is no converter. Make one with `python3 -m venv {HOME}/converter && "),
    # What only transformers runs.
    (T5, ALL, Asked(), "transformers", "a model of type t5 is an encoder and a decoder"),
    (T5, FOUR, Asked(), "transformers", "a model of type t5 is an encoder and a decoder"),
    (MAMBA, ALL, Asked(), "transformers", "a model of type mamba is none that the converter takes"),
    (OLD_FALCON, ALL, Asked(trust_remote_code=True), "transformers", "a model of type RefinedWebModel has code of its own"),
    (WHISPER, GPU, Asked(), "transformers", "a model of type clip is none that the converter takes"),
    # With a GPU.
    (LLAMA, GPU, Asked(), "vllm", "a model of type llama on a machine with a GPU"),
    (MAMBA, GPU, Asked(), "vllm", "a model of type mamba on a machine with a GPU"),
    (LLAMA, GPU_BARE, Asked(), "openvino", "vLLM is not installed: make an environment for it with " + VLLM_HERE + "`"),
    (GPTQ, GPU, Asked(), "vllm", "on a machine with a GPU"),
    (LLAMA, FOUR, Asked(tensor_parallel=4), "vllm", "tensor parallel degree 4"),
    (LLAMA, FOUR, Asked(tensor_parallel=0), "vllm", "tensor parallel degree 4"),
    (IR, FOUR, Asked(tensor_parallel=4), "openvino", "it is an OpenVINO model"),
    # Without one, a degree of AWS's machine keeps nobody from serving.
    (LLAMA, ALL, Asked(tensor_parallel=4), "openvino", "a model of type llama on a machine without a GPU"),
    # Weights that are quantised already.
    (GPTQ, ALL, Asked(), "vllm", "quantised already (gptq)"),
    (GPTQ, TORCH, Asked(), "transformers", "quantised already (gptq)"),
    # Named by a setting.
    (LLAMA, ALL, forced("transformers"), "transformers", "PENSTOCK_ENGINE=transformers"),
    (LLAMA, ALL, forced("vllm"), "vllm", "PENSTOCK_ENGINE=vllm"),
    (LLAMA, GPU, forced("openvino"), "openvino", "PENSTOCK_ENGINE=openvino"),
    (LLAMA, LAPTOP, Asked(engine="vllm", engine_given="option.rolling_batch=vllm", if_installed=True), "openvino",
     "a model of type llama on a machine without a GPU; option.rolling_batch=vllm can't be had: vLLM is not installed"),
    (LLAMA, ALL, Asked(engine="vllm", engine_given="option.rolling_batch=vllm", if_installed=True), "vllm", "option.rolling_batch=vllm"),
    # Adapters are vllm's alone.
    (LLAMA, ALL, Asked(adapters=("sql",)), "vllm", "LoRA adapters (sql), which only vllm has"),
    (LLAMA, ALL, Asked(lora=True), "vllm", "LoRA adapters may come, which only vllm takes"),
    (LLAMA, LAPTOP, Asked(lora=True), "openvino", "a model of type llama on a machine without a GPU"),
    (LLAMA, ALL, replace(forced("openvino"), lora=True), "openvino", "PENSTOCK_ENGINE=openvino"),
    (BOTH, GPU, Asked(adapters=("a", "b", "c", "d", "e")), "vllm", "LoRA adapters (a, b, c and 2 more), which only vllm has"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "machine", "asked", "engine", "why"), CHOICES)
def test_which_engine(model: ModelFacts, machine: MachineFacts, asked: Asked, engine: str, why: str) -> None:
    found = choose(asked, model, machine)
    assert found.engine == engine
    assert why in found.why
    assert "\n" not in found.why


REFUSALS: list[tuple[ModelFacts, MachineFacts, Asked, str]] = [
    (LLAMA, BARE, Asked(), CONVERTER_HERE),
    (LLAMA, BARE, Asked(), TRANSFORMERS_HERE),
    (LLAMA, BARE, Asked(), "`python3 scripts/vllm_environment.py /home/p/.penstock/engines/vllm`"),
    (T5, LAPTOP, Asked(), TRANSFORMERS_HERE),
    (GPTQ, LAPTOP, Asked(), "quantised already (gptq)): vLLM is not installed"),
    (OLD_FALCON, ALL, Asked(), "needs the code in its directory, which runs only with HF_MODEL_TRUST_REMOTE_CODE=true"),
    (replace(LLAMA, tokenizer=False), ALL, Asked(), "/m lacks tokenizer.json: save the model's tokenizer as a fast one"),
    (ModelFacts(DIRECTORY), ALL, Asked(), "/m holds no model: neither openvino_model.xml nor PyTorch weights"),
    (LLAMA, ALL, forced("steam"), "PENSTOCK_ENGINE=steam: there is no engine named steam; there are openvino, transformers, vllm"),
    (LLAMA, LAPTOP, forced("vllm"), "PENSTOCK_ENGINE=vllm can't serve /m: vLLM is not installed: make an environment"),
    (T5, ALL, forced("vllm"), "PENSTOCK_ENGINE=vllm can't serve /m: vLLM runs no encoder-decoder models"),
    (T5, ALL, forced("openvino"), "the openvino engine runs no encoder-decoder models"),
    (MAMBA, ALL, forced("openvino"), "the converter for the openvino engine takes no models of type mamba"),
    (GPTQ, ALL, forced("openvino"), "takes no weights that are quantised already (gptq)"),
    (IR, ALL, forced("transformers"), "needs the model's PyTorch weights, and only an OpenVINO model is there"),
    (LLAMA, GPU, Asked(tensor_parallel=4), "tensor parallel degree 4 needs 4 GPUs, and this machine has 1"),
    (LLAMA, GPU_BARE, Asked(tensor_parallel=2), "tensor parallel degree 2 needs vLLM: vLLM is not installed"),
    (T5, FOUR, Asked(tensor_parallel=2), "tensor parallel degree 2 needs vLLM: vLLM runs no encoder-decoder"),
    (LLAMA, FOUR, replace(forced("transformers"), tensor_parallel=2), "needs vLLM, and PENSTOCK_ENGINE=transformers asks for another"),
    (LLAMA, LAPTOP, Asked(adapters=("sql",)), "/m (LoRA adapters (sql), which only vllm has): vLLM is not installed: make an environment"),
    (IR, ALL, Asked(adapters=("sql",)), "the vllm engine needs the model's PyTorch weights, and only an OpenVINO model is there"),
    (T5, ALL, Asked(adapters=("sql",)), "vLLM runs no encoder-decoder models"),
    (LLAMA, ALL, replace(forced("openvino"), adapters=("sql",)),
     "PENSTOCK_ENGINE=openvino can't serve /m: the openvino engine has no LoRA adapters (sql), and vllm has: leave the choice to Penstock"),
    (LLAMA, LAPTOP, replace(forced("openvino"), adapters=("sql",)), "and vllm has: make an environment for it with `python3 scripts/"),
    (LLAMA, ALL, replace(forced("transformers"), adapters=("sql",)), "the transformers engine has no LoRA adapters (sql)"),
    (LLAMA, LAPTOP, Asked(engine="vllm", engine_given="option.rolling_batch=vllm", if_installed=True, adapters=("sql",)),
     "no engine here can serve /m (LoRA adapters (sql), which only vllm has): vLLM is not installed"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "machine", "asked", "line"), REFUSALS)
def test_what_no_engine_can_serve_is_told_in_one_line(
    model: ModelFacts, machine: MachineFacts, asked: Asked, line: str
) -> None:
    with pytest.raises(ChoiceError) as caught:
        choose(asked, model, machine)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "engine", "machine", "dtype", "said"),
    [
        ("auto", "openvino", LAPTOP, "auto", False),
        ("float32", "openvino", LAPTOP, "float32", False),
        ("float32", "vllm", GPU, "float32", False),
        ("bfloat16", "openvino", LAPTOP, "auto", False),
        ("bfloat16", "vllm", GPU, "bfloat16", False),
        ("float16", "openvino", GPU, "auto", True),
        ("float16", "transformers", GPU, "auto", True),
        ("float16", "vllm", ALL, "auto", True),
        ("float16", "vllm", GPU, "float16", False),
    ],
)
def test_dtype(asked: str, engine: str, machine: MachineFacts, dtype: str, said: bool) -> None:
    found = terms(Choice(engine, ""), Asked(dtype=asked), LLAMA, machine)
    assert found.dtype == dtype
    assert bool(found.lines) is said


@pytest.mark.parametrize(
    ("asked", "engine", "model", "quantize", "line"),
    [
        ("", "vllm", LLAMA, "", ""),
        ("fp8", "vllm", LLAMA, "fp8", ""),
        ("bitsandbytes-nf4", "vllm", LLAMA, "bitsandbytes", "vLLM keeps the weights in bitsandbytes"),
        ("int8", "transformers", LLAMA, "", "the transformers engine keeps the weights as they are"),
        ("gptq", "vllm", GPTQ, "", ""),
        ("awq", "vllm", GPTQ, "", "the weights are quantised already (gptq)"),
        ("gptq", "openvino", LLAMA, "", "are not quantised so in the model's directory"),
        ("gptq", "transformers", LLAMA, "", "are not quantised so in the model's directory"),
        ("dynamic_int8", "openvino", LLAMA, "", "are not quantised so in the model's directory"),
        ("smoothquant", "vllm", LLAMA, "", "are not quantised so in the model's directory"),
        ("fp8", "openvino", LLAMA, "", "quantize=fp8 is for GPUs"),
        ("fp8", "openvino", IR, "", "the model is converted already"),
        ("int8", "openvino", LLAMA, "int8_sym", "the weights are kept in int8_sym"),
        ("bitsandbytes-nf4", "openvino", IR, "int4_asym", "the weights are kept in int4_asym"),
    ],
)
def test_quantize(asked: str, engine: str, model: ModelFacts, quantize: str, line: str) -> None:
    found = terms(Choice(engine, ""), Asked(quantize=asked), model, GPU)
    assert found.quantize == quantize
    assert line in " ".join(found.lines)
    assert bool(found.lines) is bool(line)


@pytest.mark.parametrize(
    ("shards", "engine", "model", "machine", "told", "line"),
    [
        (1, "openvino", LLAMA, LAPTOP, 1, ""),
        (0, "openvino", LLAMA, LAPTOP, 1, ""),
        (4, "openvino", LLAMA, LAPTOP, 1, "tensor parallel degree 4: there are no GPUs to shard over"),
        (4, "openvino", IR, FOUR, 1, "an OpenVINO model runs on the processor"),
        (4, "vllm", LLAMA, FOUR, 4, ""),
        (0, "vllm", LLAMA, FOUR, 4, ""),
        (2, "vllm", LLAMA, ALL, 2, ""),
    ],
)
def test_tensor_parallel(
    shards: int, engine: str, model: ModelFacts, machine: MachineFacts, told: int, line: str
) -> None:
    found = terms(Choice(engine, ""), Asked(tensor_parallel=shards), model, machine)
    assert found.tensor_parallel == told
    assert line in " ".join(found.lines)
    assert bool(found.lines) is bool(line)


def test_the_longest_sequence_is_never_more_than_a_decoder_has_positions_for() -> None:
    choice = Choice("vllm", "")
    assert terms(choice, Asked(), LLAMA, GPU).max_length == 0
    assert terms(choice, Asked(max_length=100), LLAMA, GPU).max_length == 100
    assert terms(choice, Asked(max_length=9999), LLAMA, GPU).max_length == 4096
    assert terms(choice, Asked(max_length=9999), replace(LLAMA, max_positions=0), GPU).max_length == 9999
    assert terms(choice, Asked(max_length=2048), T5, GPU).max_length == 2048, "its positions are relative"


def test_code_of_the_repository_runs_only_where_it_is_trusted_and_there_is_some() -> None:
    asked = Asked(trust_remote_code=True)
    assert terms(Choice("transformers", ""), asked, OLD_FALCON, ALL).trust_remote_code
    assert not terms(Choice("transformers", ""), Asked(), OLD_FALCON, ALL).trust_remote_code
    found = terms(Choice("openvino", ""), asked, FALCON, LAPTOP)
    assert not found.trust_remote_code
    assert found.lines == ("trust_remote_code: a converted model runs none of its repository's code",)
