"""Models that bring code of their own, in the transformers engine: run only when trusted, and only as far as they can be."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from penstock.engines import apart
from penstock.engines.base import Sampling
from penstock.engines.client import EngineProcess, LoadFailed
from penstock.engines.options import EngineOptions
from tests.engines.asking import ask
from tests.engines.conftest import interpreter

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]
VOCABULARY = 32
CODE = '''
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutput


class CountingConfig(PretrainedConfig):
    model_type = "counting"


class CountingModel(PreTrainedModel, GenerationMixin):
    """After n comes n + 1; a little of all tokens before is mixed in. Knows no cache."""

    config_class = CountingConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = torch.nn.Embedding(config.vocab_size, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, attention_mask=None, use_cache=None, return_dict=None):
        here = self.embedding(input_ids)
        mean = here.cumsum(1) / torch.arange(1, input_ids.shape[1] + 1, device=here.device)[None, :, None]
        return CausalLMOutput(logits=here.roll(1, -1) * 9 + mean)
'''


@pytest.fixture
def counting(tmp_path: Path) -> Path:
    """A directory with the model above; its embedding is the unit matrix."""
    config = {
        "model_type": "counting",
        "architectures": ["CountingModel"],
        "auto_map": {
            "AutoConfig": "counting.CountingConfig",
            "AutoModelForCausalLM": "counting.CountingModel",
        },
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "eos_token_id": 0,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "counting.py").write_text(CODE)
    unit = b"".join(struct.pack("<f", row == column) for row in range(VOCABULARY) for column in range(VOCABULARY))
    tensor = {"dtype": "F32", "shape": [VOCABULARY, VOCABULARY], "data_offsets": [0, len(unit)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "embedding.weight": tensor}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + unit)
    return tmp_path


def options(model: Path, *, trusted: bool) -> EngineOptions:
    return EngineOptions(engine="transformers", model=model, dtype="float32", trust_remote_code=trusted)


async def test_it_runs_when_trusted_and_counts(counting: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = apart.command(interpreter("transformers"))
    engine = await EngineProcess.start(options(counting, trusted=True), command=command)
    try:
        answer = await ask(engine, (3, 4, 5), Sampling(max_new_tokens=9))
        assert answer.tokens == tuple(range(6, 15))
        answer = await ask(engine, (29,), Sampling(max_new_tokens=9))
        assert answer.tokens == (30, 31, 0)
        assert answer.finish.reason == "eos_token"
    finally:
        await engine.close()
    assert "whole text for each token" in capfd.readouterr().err


async def test_it_is_refused_when_not_trusted(counting: Path) -> None:
    command = apart.command(interpreter("transformers"))
    with pytest.raises(LoadFailed, match="only with trust_remote_code"):
        await EngineProcess.start(options(counting, trusted=False), command=command)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"quantize": "awq"}, "does not quantize"), ({"tensor_parallel": 2}, "runs on one device")],
)
async def test_options_that_it_can_not_follow_are_refused(
    counting: Path, changes: dict[str, object], reason: str
) -> None:
    given = {"engine": "transformers", "model": counting, **changes}
    with pytest.raises(LoadFailed, match=reason):
        await EngineProcess.start(
            EngineOptions(**given),  # type: ignore[arg-type]
            command=apart.command(interpreter("transformers")),
        )
