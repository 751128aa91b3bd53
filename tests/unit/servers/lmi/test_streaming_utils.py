"""StreamingUtils against the library's own `generate`, where torch is installed."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.servers.lmi.djl_python.streaming_utils import StreamingUtils
from tests.tiny_models import END, build_tokenizer

PROMPTS = ["one two three", "ten"]


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="magic engine is not supported for streaming"):
        StreamingUtils.get_stream_generator("magic")


def test_inputs_must_be_a_list() -> None:
    wrong: list[Any] = ["text", []]
    for inputs in wrong:
        with pytest.raises(ValueError, match="must be a list of strings"):
            next(StreamingUtils.get_stream_generator("Accelerate")(None, None, inputs, None))
    with pytest.raises(NotImplementedError, match="beam search"):
        next(StreamingUtils.get_stream_generator("DeepSpeed")(None, None, ["a"], None, beam_size=2))


@pytest.mark.parametrize("family", ["Llama", "GPT2", "T5"])
def test_greedy_steps_are_what_generate_gives(family: str) -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("transformers")
    torch.manual_seed(0)
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(), eos_token=END)
    common: dict[str, Any] = {"vocab_size": len(tokenizer), "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
    shapes: dict[str, dict[str, Any]] = {
        "Llama": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
        "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
        "T5": {"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 4, "d_kv": 8, "decoder_start_token_id": 5},
    }
    config = getattr(library, f"{family}Config")(**shapes[family], **common)
    kind = {"Llama": "LlamaForCausalLM", "GPT2": "GPT2LMHeadModel", "T5": "T5ForConditionalGeneration"}[family]
    model = getattr(library, kind)(config).eval()
    steps = list(StreamingUtils.get_stream_generator("Accelerate")(model, tokenizer, PROMPTS, None, max_new_tokens=8))
    encoded = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    encoded.pop("token_type_ids", None)
    whole = model.generate(**encoded, max_new_tokens=8, do_sample=False)
    start = 1 if config.is_encoder_decoder else encoded["input_ids"].shape[1]
    expected = ["".join(tokenizer.batch_decode(row[start:, None])) for row in whole]
    assert ["".join(step[row] for step in steps) for row in range(2)] == expected
