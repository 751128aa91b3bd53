"""The keys of `/info` at each of its forms, in their order."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from penstock.engines.tokenizer import TextTokenizer
from penstock.servers.generation import Generation
from penstock.servers.tgi.info import info_json
from penstock.servers.tgi.service import Service
from penstock.servers.tgi.settings import read
from tests.unit.servers.test_generation import Scripted

FIRST = (
    "model_id model_sha model_dtype model_device_type model_pipeline_tag max_concurrent_requests max_best_of max_stop_sequences "
    "max_input_length max_total_tokens waiting_served_ratio max_batch_total_tokens max_waiting_tokens validation_workers "
    "version sha docker_label"
)
BATCH = FIRST.replace("max_waiting_tokens", "max_waiting_tokens max_batch_size")
CLIENT = BATCH.replace("validation_workers", "validation_workers max_client_batch_size")
ROUTER = CLIENT.replace(" version", " router version")
TOKENS = ROUTER.replace("max_input_length", "max_input_tokens")
LAST = (
    "model_id model_sha model_pipeline_tag max_concurrent_requests max_best_of max_stop_sequences max_input_tokens "
    "max_total_tokens validation_workers max_client_batch_size router version sha docker_label"
)


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("0.8.0", FIRST), ("1.4.0", FIRST), ("1.4.1", BATCH), ("2.0.0", BATCH), ("2.0.1", CLIENT), ("2.0.2", CLIENT),
        ("2.0.3", ROUTER), ("2.0.4", ROUTER), ("2.1.0", TOKENS), ("2.2.0", TOKENS), ("2.3.0", LAST), ("3.3.7", LAST),
    ],
)  # fmt: skip
def test_keys(tiny_model: Path, version: str, keys: str) -> None:
    settings = read({"HF_MODEL_ID": "org/model", "MAX_BATCH_PREFILL_TOKENS": "20000"}, version).within(100)
    service = Service(Generation(TextTokenizer.load(tiny_model), Scripted([])), settings, random.Random(1))
    said = json.loads(info_json(service))
    assert " ".join(said) == keys
    assert said.get("max_batch_total_tokens", 20000) == 20000
