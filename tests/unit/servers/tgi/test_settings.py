from __future__ import annotations

import pytest

from penstock.engines.choice import Asked
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.settings import SettingsError, read

MODEL = {"HF_MODEL_ID": "tiiuae/falcon-7b-instruct"}


def test_the_defaults_of_both_levels() -> None:
    first = read(MODEL, "")
    assert first.level == Level((1, 0, 3))
    assert (first.max_input_length, first.max_total_tokens, first.waiting_served_ratio) == (1024, 2048, 1.2)
    assert (first.max_best_of, first.max_stop_sequences, first.max_concurrent_requests) == (2, 4, 128)
    assert first.prefill_logprobs
    last = read(MODEL, "3.3.7").within(4096)
    assert (last.max_input_length, last.max_total_tokens, last.waiting_served_ratio) == (4095, 4096, 0.3)
    assert last.payload_limit == 2_000_000
    assert not last.prefill_logprobs


def test_from_20_on_a_step_takes_the_longest_prompt() -> None:
    given = {**MODEL, "MAX_INPUT_LENGTH": "6000", "MAX_TOTAL_TOKENS": "8192"}
    assert read(given, "2.3.1").max_batch_prefill_tokens == 6050
    assert read({**given, "MAX_BATCH_SIZE": "2"}, "2.3.1").max_batch_prefill_tokens == 12000
    with pytest.raises(SettingsError, match="must be >= `max_input_length`"):
        read(given, "1.4.5")
    with pytest.raises(SettingsError, match="must be >= `max_input_tokens`"):
        read({**given, "MAX_BATCH_PREFILL_TOKENS": "1"}, "2.3.1")


def test_in_2x_what_is_not_given_fits_what_is() -> None:
    short = read({**MODEL, "MAX_TOTAL_TOKENS": "512"}, "2.0.2")
    assert (short.max_input_length, short.max_total_tokens, short.max_batch_prefill_tokens) == (511, 512, 561)
    long = read({**MODEL, "MAX_INPUT_LENGTH": "3000"}, "2.0.2")
    assert (long.max_input_length, long.max_total_tokens, long.asked.max_length) == (3000, 4096, 4096)


def test_limits_never_exceed_the_model() -> None:
    settings = read({**MODEL, "MAX_TOTAL_TOKENS": "4096", "MAX_INPUT_LENGTH": "4000"}, "1.0.3").within(2048)
    assert (settings.max_input_length, settings.max_total_tokens) == (2047, 2048)


def test_the_blogs_environment() -> None:
    settings = read(
        {"HF_MODEL_ID": "tiiuae/falcon-7b-instruct", "SM_NUM_GPUS": "4", "HF_MODEL_QUANTIZE": "bitsandbytes"}, "0.8.2"
    )
    assert settings.pipeline_tag == "text-generation"
    assert (settings.asked.quantize, settings.asked.tensor_parallel) == ("bitsandbytes", 4)
    assert read({**MODEL, "SPECULATE": "2"}, "3.3.6").speculate == 2
    assert read({"HF_MODEL_ID": "/opt/ml/model"}, "").pipeline_tag is None


@pytest.mark.parametrize(
    ("environment", "version", "text"),
    [
        ({}, "", "HF_MODEL_ID must be set"),
        (MODEL, "latest", "PENSTOCK_SERVER_VERSION must be a version"),
        ({**MODEL, "MAX_INPUT_LENGTH": "2048"}, "1.0.3", "`max_input_length` must be < `max_total_tokens`"),
        (
            {**MODEL, "MAX_INPUT_LENGTH": "1000", "MAX_BATCH_PREFILL_TOKENS": "999"},
            "1.0.3",
            "`max_batch_prefill_tokens` must be >= `max_input_length`. Given: 999 and 1000",
        ),
        (
            {**MODEL, "MAX_BATCH_TOTAL_TOKENS": "4000"},
            "1.0.3",
            "`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: 4096 and 4000",
        ),
        (
            {**MODEL, "MAX_BATCH_TOTAL_TOKENS": "5000", "MAX_TOTAL_TOKENS": "6000"},
            "1.0.3",
            "`max_total_tokens` must be <= `max_batch_total_tokens`. Given: 6000 and 5000",
        ),
        ({**MODEL, "VALIDATION_WORKERS": "0"}, "1.0.3", "`validation_workers` must be > 0"),
        ({**MODEL, "MAX_INPUT_LENGTH": "1", "MAX_INPUT_TOKENS": "1"}, "3.3.7", "Please define only one of them"),
        ({**MODEL, "MAX_BEST_OF": "two"}, "1.0.3", "invalid value 'two' for MAX_BEST_OF"),
        ({**MODEL, "WAITING_SERVED_RATIO": "x"}, "1.0.3", "invalid value 'x' for WAITING_SERVED_RATIO"),
        ({**MODEL, "LORA_ADAPTERS": "a,b=c=d"}, "3.3.7", "Invalid LoRA adapter format: b=c=d"),
        (
            {**MODEL, "LORA_ADAPTERS": "a"},
            "2.0.4",
            "LORA_ADAPTERS needs level 2.1.0 or later, and this server speaks 2.0.4",
        ),
        ({**MODEL, "DTYPE": "int3"}, "1.0.3", "invalid value 'int3' for DTYPE"),
    ],
)
def test_what_ends_the_launcher(environment: dict[str, str], version: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(environment, version)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("version", "new_tokens"),
    [("0.8.2", 20), ("1.1.0", 20), ("1.1.1", None), ("1.3.3", None), ("1.3.4", 100), ("2.4.0", 100), ("3.0.0", None)],
)
def test_the_default_of_max_new_tokens_by_version(version: str, new_tokens: int | None) -> None:
    assert Level.parse(version).default_max_new_tokens == new_tokens


@pytest.mark.parametrize(("version", "full"), [("1.4.0", False), ("1.4.1", False), ("1.4.2", True)])
def test_full_text_without_a_tag_by_version(version: str, full: bool) -> None:
    assert Level.parse(version).full_text_without_tag is full


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Asked(max_length=2048)),
        ({"PENSTOCK_ENGINE": "vLLM"}, Asked(engine="vllm", engine_given="PENSTOCK_ENGINE=vLLM", max_length=2048)),
        ({"DTYPE": "float16", "MAX_TOTAL_TOKENS": "3000"}, Asked(dtype="float16", max_length=3000)),
        ({"QUANTIZE": "awq"}, Asked(quantize="awq", max_length=2048)),
        ({"HF_MODEL_QUANTIZE": "gptq", "QUANTIZE": "awq"}, Asked(quantize="gptq", max_length=2048)),
        ({"HF_MODEL_TRUST_REMOTE_CODE": "true"}, Asked(trust_remote_code=True, max_length=2048)),
        ({"TRUST_REMOTE_CODE": "true"}, Asked(trust_remote_code=True, max_length=2048)),
        ({"SM_NUM_GPUS": "4", "NUM_SHARD": "2"}, Asked(tensor_parallel=4, max_length=2048)),
        ({"NUM_SHARD": "2"}, Asked(tensor_parallel=2, max_length=2048)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2"}, Asked(tensor_parallel=3, max_length=2048)),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, Asked(tensor_parallel=0, max_length=2048)),
        ({"NVIDIA_VISIBLE_DEVICES": "0,1", "SHARDED": "false"}, Asked(tensor_parallel=1, max_length=2048)),
        ({"SHARDED": "true"}, Asked(tensor_parallel=0, max_length=2048)),
    ],
)
def test_what_bears_on_the_choice_of_an_engine(environment: dict[str, str], expected: Asked) -> None:
    assert read({**MODEL, **environment}, "1.0.3").asked == expected


def test_from_3_0_the_longest_sequence_follows_the_model_unless_it_is_given() -> None:
    assert read(MODEL, "3.3.7").asked.max_length == 0
    assert read({**MODEL, "MAX_TOTAL_TOKENS": "100"}, "3.3.7").asked.max_length == 100


def test_an_encoder_decoder_has_another_tag() -> None:
    settings = read(MODEL, "").within(512, encoder_decoder=True)
    assert settings.pipeline_tag == "text2text-generation"


def test_adapters() -> None:
    assert read(MODEL, "3.3.7").adapters == ()
    found = read({**MODEL, "LORA_ADAPTERS": "org/sql@v2,chat=/opt/ml/model/chat"}, "2.1.0").adapters
    assert [(each.name, each.source, each.revision) for each in found] == [
        ("org/sql", "org/sql", "v2"),
        ("chat", "/opt/ml/model/chat", ""),
    ]
