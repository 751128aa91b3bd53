"""Keys, precedence and checks of a model's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.engines.choice import Asked
from penstock.servers.lmi import settings
from penstock.servers.lmi.settings import ModelSettings, max_request_size
from penstock.servers.lmi.unheeded import unheeded
from penstock.servers.lmi.words import SettingsError

BLOG = """
engine=MPI
option.model_id=tiiuae/falcon-7b-instruct
option.revision=eb410fb6ffa9028e97adb801f0d6ec46d02f8b07
option.trust_remote_code=true
option.tensor_parallel_degree=1
option.max_rolling_batch_size=32
option.rolling_batch=lmi-dist
option.output_formatter=jsonlines
option.dtype = fp16
option.paged_attention=false
option.enable_streaming=true
"""


def read(
    directory: Path, text: str = "", environ: dict[str, str] | None = None, version: str = "0.23.0"
) -> ModelSettings:
    if text:
        (directory / "serving.properties").write_text(text)
    return settings.read("model", directory, environ or {}, settings.server_version(version))


def test_the_blogs_file(tmp_path: Path) -> None:
    found = read(tmp_path, BLOG)
    assert found.engine == "MPI"
    assert found.model_id == "tiiuae/falcon-7b-instruct"
    assert found.revision == "eb410fb6ffa9028e97adb801f0d6ec46d02f8b07"
    assert found.rolling_batch == "lmi-dist"
    assert found.output_formatter == "jsonlines"
    assert found.dtype == "fp16"
    assert found.enable_streaming
    assert found.max_rolling_batch_size == 32
    assert found.entry_point == ""
    assert found.options["paged_attention"] == "false"


def test_the_defaults(tmp_path: Path) -> None:
    found = read(tmp_path, "option.model_id=x/y")
    assert (found.job_queue_size, found.batch_size, found.max_batch_delay_ms) == (1000, 1, 100)
    assert (found.max_rolling_batch_size, found.max_rolling_batch_prefill_tokens) == (32, 0)
    assert [read(tmp_path, version=each).max_rolling_batch_size for each in ("0.32.0", "0.33.0")] == [32, 256]
    assert (found.rolling_batch, found.output_formatter, found.enable_streaming) == ("", "", False)
    assert (found.predict_timeout_s, found.model_loading_timeout_s, found.chunk_timeout_s) == (240, 1200, 120)
    assert (found.retry_threshold, found.handler, found.engine) == (10, "handle", "Python")


def test_the_file_wins_over_option_variables_and_those_over_tgis(tmp_path: Path) -> None:
    environ = {
        "OPTION_MODEL_ID": "from/option",
        "HF_MODEL_ID": "from/tgi",
        "OPTION_ROLLING_BATCH": "auto",
        "SM_NUM_GPUS": "4",
        "OPTION_TENSOR_PARALLEL_DEGREE": "2",
        "HF_MODEL_REVISION": "abc",
    }
    found = read(tmp_path, "option.rolling_batch=vllm", environ)
    assert (found.rolling_batch, found.model_id, found.tensor_parallel_degree, found.revision) == (
        "vllm",
        "from/option",
        2,
        "abc",
    )
    assert read(tmp_path, "option.model_id=in/file", environ).model_id == "in/file"


def test_serving_variables_are_only_defaults(tmp_path: Path) -> None:
    environ = {"SERVING_JOB_QUEUE_SIZE": "7", "SERVING_BATCH_SIZE": "3", "HF_MODEL_ID": "a/b"}
    assert read(tmp_path, "", environ).job_queue_size == 7
    found = read(tmp_path, "job_queue_size=9", environ)
    assert (found.job_queue_size, found.batch_size) == (9, 3)
    assert read(tmp_path, "engine=Python", {"MAX_CONCURRENT_REQUESTS": "5", "HF_MODEL_ID": "a/b"}).job_queue_size == 5


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("", (0, "")),
        ("option.speculative_length=3", (3, "")),
        ("option.num_speculative_tokens=2", (2, "")),
        ("option.speculative_draft_model=/draft", (4, "/draft")),
        ("option.speculative_draft_model=/draft\noption.speculative_length=5", (5, "/draft")),
    ],
)
def test_guessing_ahead(tmp_path: Path, lines: str, found: tuple[int, str]) -> None:
    settings = read(tmp_path, f"option.model_id=a/b\n{lines}")
    assert (settings.speculate, settings.draft_model) == found


def test_s3url_is_an_old_name_of_model_id(tmp_path: Path) -> None:
    assert read(tmp_path, "option.s3url=s3://b/p", {"HF_MODEL_ID": "a/b"}).model_id == "s3://b/p"


def test_a_model_py_is_the_entry_point(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("")
    assert read(tmp_path).entry_point == "model.py"
    assert read(tmp_path, "option.entryPoint=djl_python.huggingface\noption.model_id=a/b").entry_point == ""
    assert read(tmp_path, "option.entryPoint=other.py").entry_point == "other.py"


@pytest.mark.parametrize(
    ("version", "rolling", "timeout"), [("0.23.0", "", 120), ("0.27.0", "", 60), ("0.28.0", "auto", 60)]
)
def test_what_the_version_changes(version: str, rolling: str, timeout: int, tmp_path: Path) -> None:
    found = read(tmp_path, "option.model_id=a/b", version=version)
    assert (found.rolling_batch, found.chunk_timeout_s) == (rolling, timeout)


@pytest.mark.parametrize(
    ("version", "lines", "rolling"),
    [
        ("0.29.0", "option.rolling_batch=disable", ""),
        ("0.36.0", "option.rolling_batch=disable", ""),
        ("0.36.0", "option.rolling_batch=disable\noption.async_mode=true", "auto"),
        ("0.36.0", "option.rolling_batch=disable\noption.entryPoint=djl_python.lmi_vllm.vllm_async_service", "auto"),
    ],
)
def test_engines_that_batch_by_themselves_disable_rolling_batch(
    version: str, lines: str, rolling: str, tmp_path: Path
) -> None:
    assert read(tmp_path, f"option.model_id=a/b\n{lines}", version=version).rolling_batch == rolling


def test_sagemakers_own_variables_win_from_036(tmp_path: Path) -> None:
    environ = {
        "SAGEMAKER_NUM_MODEL_WORKERS": "3",
        "SAGEMAKER_STARTUP_TIMEOUT": "50",
        "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "60",
    }
    text = "option.model_id=a/b\nminWorkers=1\noption.predict_timeout=9"
    new, old = read(tmp_path, text, environ, "0.36.0"), read(tmp_path, text, environ, "0.35.0")
    assert (new.min_workers, new.max_workers) == (3, 3)
    assert (new.model_loading_timeout_s, new.predict_timeout_s) == (50, 60)
    assert (old.min_workers, old.predict_timeout_s) == (1, 9)


def test_the_most_bytes_of_a_request() -> None:
    environ = {"SERVING_MAX_REQUEST_SIZE": "10", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2"}
    assert max_request_size({}, (0, 36), 5) == 5
    assert max_request_size(environ, (0, 35), 5) == 10
    assert max_request_size(environ, (0, 36), 5) == 2 * 1024 * 1024
    assert max_request_size({**environ, "SAGEMAKER_MAX_REQUEST_SIZE": "7"}, (0, 36), 5) == 7
    with pytest.raises(SettingsError, match="SERVING_MAX_REQUEST_SIZE must be a whole number above 0, not 'much'"):
        max_request_size({"SERVING_MAX_REQUEST_SIZE": "much"}, (0, 23), 5)


def test_what_later_versions_understand(tmp_path: Path) -> None:
    text = "option.model_id=a/b\noption.tgi_compat=true"
    found = [read(tmp_path, text, version=version) for version in ("0.27.0", "0.28.0", "0.34.0")]
    assert [item.tgi_compat for item in found] == [False, True, True]
    assert [item.stateful_sessions for item in found] == [False, False, True]
    off = read(tmp_path, text + "\noption.enable_stateful_sessions=false", version="0.34.0")
    assert not off.stateful_sessions


def test_the_chunk_timeout_is_minutes_before_025(tmp_path: Path) -> None:
    environ = {"SERVING_CHUNKED_READ_TIMEOUT": "3", "HF_MODEL_ID": "a/b"}
    assert read(tmp_path, "", environ, "0.23.0").chunk_timeout_s == 180
    assert read(tmp_path, "", environ, "0.25.0").chunk_timeout_s == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("engine=MPI", "no model is named: set option.model_id"),
        (
            "engine=XGBoost\noption.model_id=a/b",
            "engine=XGBoost is not supported: use one of Python, MPI.*need a model.py",
        ),
        ("engine=Rust\noption.model_id=a/b\nreranking=true", "reranking is not supported: write a model.py"),
        (
            "option.model_id=a/b\noption.output_formatter=xml",
            "output_formatter=xml is not supported: use one of json, jsonlines, none",
        ),
        ("option.model_id=a/b\noption.output_formatter=sse", "output_formatter=sse is not supported"),
        ("option.model_id=a/b\noption.rolling_batch=magic", "rolling_batch=magic is not supported"),
        ("option.model_id=a/b\noption.quantize=magic", "quantize=magic is not supported: use one of bitsandbytes"),
        (
            "option.model_id=a/b\noption.speculative_length=0",
            "option.speculative_length must be a whole number above 0",
        ),
        ("option.model_id=a/b\noption.dtype=fp8", "dtype=fp8 is not supported"),
        ("option.model_id=a/b\noption.s3url=s3://x/y", "the same thing"),
        ("option.model_id=a/b\njob_queue_size=many", "job_queue_size must be a whole number above 0, not 'many'"),
        (
            "option.model_id=a/b\noption.max_rolling_batch_size=0",
            "max_rolling_batch_size must be a whole number above 0",
        ),
        ("option.model_id=a/b\noption.rolling_batch=auto\nbatch_size=4", "exclude each other"),
        ("option.entryPoint=https://example.com/model.py", "must be a file of the model"),
        ("option.entryPoint=djl_python.stable-diffusion", "is not supported: write a model.py"),
        ("option.model_id=a/b\noption.task=custom", "option.task=custom is not supported"),
        ("option.model_id=\\u12", "serving.properties can't be read"),
    ],
)
def test_what_cannot_be_served_is_named(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=reason):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("retry_threshold", "retry_threshold"),
        ("max_batch_delay", "max_batch_delay_ms"),
        ("reserved_memory_mb", "reserved_memory_mb"),
        ("required_memory_mb", "required_memory_mb"),
    ],
)
def test_some_numbers_may_be_none_at_all(key: str, field: str, tmp_path: Path) -> None:
    assert getattr(read(tmp_path, f"option.model_id=a/b\n{key}=0"), field) == 0
    with pytest.raises(SettingsError, match=f"{key} must be a whole number above -1, not '-1'"):
        read(tmp_path, f"option.model_id=a/b\n{key}=-1")


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0.0), ("option.gpu_memory_utilization=0.35", 0.35), ("option.gpu_memory_utilization=1", 1.0)],
)
def test_the_share_of_a_gpus_memory(text: str, share: float, tmp_path: Path) -> None:
    assert read(tmp_path, f"option.model_id=a/b\n{text}").gpu_memory == share


@pytest.mark.parametrize("value", ["0", "1.1", "-0.5", "most", "nan"])
def test_no_share_of_a_gpus_memory(value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="gpu_memory_utilization must be a number above 0 and at most 1"):
        read(tmp_path, f"option.model_id=a/b\noption.gpu_memory_utilization={value}")


@pytest.mark.parametrize("task", ["image-text-to-text", "Image-Text-to-Text", "generate", "auto"])
def test_vllms_tasks_are_text_generation(task: str, tmp_path: Path) -> None:
    assert not read(tmp_path, "option.model_id=a/b", {"HF_TASK": task}, "0.36.0").entry_point


@pytest.mark.parametrize("entry", ["", "option.entryPoint=djl_python.huggingface"])
def test_what_is_no_text_generation_is_a_pipeline_of_the_library(entry: str, tmp_path: Path) -> None:
    lines = f"option.model_id=a/b\noption.task=question-answering\n{entry}"
    assert read(tmp_path, lines).entry_point == "djl_python.huggingface"
    (tmp_path / "model.py").write_text("def handle(inputs): ...")
    assert read(tmp_path, "option.task=question-answering").entry_point == "model.py"


@pytest.mark.parametrize(
    ("lines", "environ", "version"),
    [
        ("engine=Rust", {}, "0.30.0"),
        ("engine=OnnxRuntime\ntranslatorFactory=x.TextEmbeddingTranslatorFactory\npooling=cls", {}, "0.32.0"),
        ("option.task=text-embedding", {}, "0.28.0"),
        ("", {"OPTION_ENGINE": "Rust", "SERVING_BATCH_SIZE": "32"}, "0.28.0"),
        ("", {"HF_TASK": "text-embedding"}, "0.31.0"),
        (
            "option.task=text-embedding\noption.entryPoint=djl_python.lmi_vllm.vllm_async_service\noption.rolling_batch=disable",
            {},
            "0.36.0",
        ),
    ],
)
def test_vectors_are_our_own_handlers(lines: str, environ: dict[str, str], version: str, tmp_path: Path) -> None:
    found = read(tmp_path, f"option.model_id=a/b\n{lines}", environ, version)
    assert (found.entry_point, found.strange_keys) == ("djl_python.text_embedding", ())
    assert ("pooling" in found.options) is ("pooling" in lines)


def test_an_option_may_name_the_engine_but_need_not(tmp_path: Path) -> None:
    assert read(tmp_path, "option.model_id=a/b", {"OPTION_ENGINE": "mpi"}).engine == "MPI"
    assert read(tmp_path, "option.model_id=a/b\noption.engine=huggingface").engine == "Python"
    assert read(tmp_path, "option.model_id=a/b\nengine=Python\noption.engine=MPI").engine == "Python"


def test_workers_by_variables(tmp_path: Path) -> None:
    environ = {"SERVING_MIN_WORKERS": "2", "SERVING_MAX_WORKERS": "3"}
    found = read(tmp_path, "option.model_id=a/b", environ)
    assert (found.min_workers, found.max_workers) == (2, 3)
    found = read(tmp_path, "option.model_id=a/b\nminWorkers=1", environ)
    assert (found.min_workers, found.max_workers) == (1, 3)


def test_keys_that_mean_nothing_are_told(tmp_path: Path) -> None:
    lines = (
        "option.model_id=a/b\ngpu.maxWorkers=1\nload_on_devices=0\nengine=MPI\ntrust_remote_code=true\nfail_fast=true"
    )
    assert read(tmp_path, lines).strange_keys == ("fail_fast", "trust_remote_code")


def forced(engine: str, given: str, *, if_installed: bool = False) -> Asked:
    return Asked(engine=engine, engine_given=given, if_installed=if_installed)


@pytest.mark.parametrize(
    ("lines", "environ", "expected"),
    [
        ("", {}, Asked()),
        *((f"engine={name}", {}, Asked()) for name in ("Python", "MPI", "DeepSpeed", "FasterTransformer", "PyTorch")),
        *(
            (f"option.rolling_batch={name}", {}, Asked())
            for name in (
                "auto",
                "scheduler",
                "lmi-dist",
                "trtllm",
                "neuron",
                "transformers-neuronx",
                "deepspeed",
                "disable",
            )
        ),
        ("engine=OpenVINO", {}, forced("openvino", "engine=OpenVINO")),
        ("engine=vllm", {}, forced("vllm", "engine=vLLM")),
        ("option.rolling_batch=transformers", {}, forced("transformers", "option.rolling_batch=transformers")),
        ("option.rolling_batch=openvino", {}, forced("openvino", "option.rolling_batch=openvino")),
        ("option.rolling_batch=vllm", {}, forced("vllm", "option.rolling_batch=vllm", if_installed=True)),
        ("engine=OpenVINO\noption.rolling_batch=vllm", {}, forced("openvino", "engine=OpenVINO")),
        ("engine=OpenVINO", {"PENSTOCK_ENGINE": "vllm"}, forced("vllm", "PENSTOCK_ENGINE=vllm")),
        ("option.rolling_batch=vllm", {"PENSTOCK_ENGINE": "Steam"}, forced("steam", "PENSTOCK_ENGINE=Steam")),
        ("option.tensor_parallel_degree=4", {}, Asked(tensor_parallel=4)),
        ("option.tensor_parallel_degree=max", {}, Asked(tensor_parallel=0)),
        ("", {"SM_NUM_GPUS": "2"}, Asked(tensor_parallel=2)),
        ("option.max_model_len=512", {}, Asked(max_length=512)),
        ("option.trust_remote_code=true", {}, Asked(trust_remote_code=True)),
        ("", {"HF_MODEL_TRUST_REMOTE_CODE": "true"}, Asked(trust_remote_code=True)),
        ("option.quantize=awq", {}, Asked(quantize="awq")),
        ("", {"HF_MODEL_QUANTIZE": "bitsandbytes-nf4"}, Asked(quantize="bitsandbytes-nf4")),
        ("option.load_in_8bit=true", {}, Asked(quantize="bitsandbytes8")),
        ("option.load_in_4bit=TRUE", {}, Asked(quantize="bitsandbytes4")),
        ("option.load_in_8bit=false", {}, Asked()),
        ("option.dtype=int8", {}, Asked(quantize="int8")),
        ("option.dtype=fp32", {}, Asked(dtype="float32")),
        ("option.dtype=fp16", {}, Asked(dtype="float16")),
        ("option.data_type=bf16", {}, Asked(dtype="bfloat16")),
        ("option.dtype=float16", {}, Asked(dtype="float16")),
        ("option.dtype=bfloat16", {}, Asked(dtype="bfloat16")),
        ("option.dtype=f32", {}, Asked(dtype="float32")),
        ("option.quantize=gptq\noption.dtype=fp16", {}, Asked(quantize="gptq", dtype="float16")),
        ("option.quantize=awq_marlin", {}, Asked(quantize="awq_marlin")),
        ("", {"OPTION_QUANTIZE": "fp8", "OPTION_DTYPE": "bf16"}, Asked(quantize="fp8", dtype="bfloat16")),
    ],
)
def test_what_bears_on_the_choice_of_an_engine(
    lines: str, environ: dict[str, str], expected: Asked, tmp_path: Path
) -> None:
    assert read(tmp_path, f"option.model_id=a/b\n{lines}", environ).asked == expected


def test_adapters(tmp_path: Path) -> None:
    found = read(tmp_path, "option.model_id=a/b", version="0.36.0")
    assert (found.enable_lora, found.adapters, found.max_loras, found.max_lora_rank) == (False, "adapters", 4, 0)
    lines = "option.enable_lora=True\noption.adapters=mine\noption.max_loras=2\noption.max_lora_rank=64"
    found = read(tmp_path, f"option.model_id=a/b\n{lines}", version="0.28.0")
    assert (found.enable_lora, found.adapters, found.max_loras, found.max_lora_rank) == (True, "mine", 2, 64)
    found = read(tmp_path, "option.model_id=a/b", {"OPTION_ENABLE_LORA": "true"}, "0.36.0")
    assert found.enable_lora


@pytest.mark.parametrize(
    ("more", "version", "reason"),
    [
        ("", "0.26.0", "option.enable_lora needs LMI 0.27 or later"),
        ("", "0.27.0", "option.enable_lora needs option.rolling_batch: set it to auto"),
        ("option.rolling_batch=disable", "0.29.0", "option.enable_lora needs option.rolling_batch"),
        ("option.max_loras=0", "0.36.0", "option.max_loras must be a whole number above 0"),
        ("option.max_lora_rank=big", "0.36.0", "option.max_lora_rank must be a whole number above 0"),
    ],
)
def test_adapters_that_no_request_could_name_are_refused(more: str, version: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=reason):
        read(tmp_path, f"option.model_id=a/b\noption.enable_lora=true\n{more}", version=version)


@pytest.mark.parametrize(
    "entry",
    ["huggingface", "deepspeed", "fastertransformer", "transformers-neuronx", "transformers_neuronx", "tensorrt_llm"],
)
def test_the_originals_handlers_mean_the_servers_own(entry: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"option.entryPoint=djl_python.{entry}\noption.model_id=a/b").entry_point == ""


def test_a_handler_may_do_any_task(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def handle(inputs): ...")
    assert read(tmp_path, "option.task=text-classification").options["task"] == "text-classification"
    (tmp_path / "model.py").unlink()
    assert read(tmp_path, "option.model_id=a/b", {"HF_TASK": "text-generation"}).options["task"] == "text-generation"


def test_options_that_nothing_reads_are_known(tmp_path: Path) -> None:
    assert unheeded(read(tmp_path, BLOG).options, with_script=False) == ["paged_attention"]
    options = {"device_map": "auto", "enforce_eager": "true", "entryPoint": "y", "triangular_masking": "true"}
    assert unheeded(options, with_script=False) == ["device_map", "enforce_eager", "triangular_masking"]
    assert unheeded(options, with_script=True) == []


def test_a_handler_does_with_adapters_what_it_likes(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def handle(inputs): ...")
    assert read(tmp_path, "option.enable_lora=true", version="0.23.0").options["enable_lora"] == "true"


REASONS = "option.model_id=a/b\noption.reasoning_parser=qwen3\n"


@pytest.mark.parametrize(
    ("text", "version", "parser"),
    [
        (REASONS, "0.36.0", "qwen3"),
        (REASONS + "option.enable_reasoning=true", "0.33.0", "qwen3"),
        (REASONS + "option.enable_reasoning=false", "0.36.0", ""),
        (REASONS, "0.32.0", ""),
        ("option.model_id=a/b", "0.36.0", ""),
    ],
)
def test_what_tells_thoughts_from_answers(tmp_path: Path, text: str, version: str, parser: str) -> None:
    assert read(tmp_path, text, version=version).reasoning_parser == parser


def test_a_reasoning_parser_must_be_there_and_known(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"option\.enable_reasoning needs option\.reasoning_parser"):
        read(tmp_path, "option.model_id=a/b\noption.enable_reasoning=true", version="0.36.0")
    with pytest.raises(SettingsError, match=r"reasoning_parser=magic is not supported: use one of deepseek_r1, qwen3"):
        read(tmp_path, "option.model_id=a/b\noption.reasoning_parser=magic", version="0.36.0")
