"""The bundled model as it is shipped: complete, small, and answering the chat's suggested prompts with the very texts it was taught."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
import pytest
from scripts.demo_model.texts import read_entries
from tokenizers import Tokenizer

from penstock.engines.chattemplate import TemplateError
from penstock.engines.tokenizer import TextTokenizer

MODEL = Path(str(files("penstock"))) / "models" / "falcon-demo"
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "openvino_model.bin",
    "openvino_model.xml",
    "tokenizer.json",
    "tokenizer_config.json",
}
ANSWERS = {prompt: entry.answer for entry in read_entries() for prompt in entry.prompts}
SUGGESTED = ("what is SageMaker inference?", "provide the steps to make a pizza", "what is life?")
NOTEBOOKS = ("what is SageMaker?", "what is life", "tell me one sentence")
LONGEST = 600


def settings(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MODEL / name).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


@pytest.fixture(scope="module", params=["f32", "bf16"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    """The engine's own pipeline, in single precision and in the precision that a processor may choose for speed."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 1
    hints = {"INFERENCE_PRECISION_HINT": request.param, "INFERENCE_NUM_THREADS": 1}
    return openvino_genai.ContinuousBatchingPipeline(str(MODEL), scheduler, "CPU", hints)


def written(pipeline: Any, tokenizer: Tokenizer, prompt: str, **sampling: Any) -> str:
    """What the model writes after the prompt; the end token left out."""
    config = openvino_genai.GenerationConfig(max_new_tokens=LONGEST, eos_token_id=0, **sampling)
    ids = openvino.Tensor(np.array([tokenizer.encode(prompt).ids], dtype=np.int64))
    handle = pipeline.add_request(0, ids, config)
    tokens: list[int] = []
    while pipeline.has_non_finished_requests():
        pipeline.step()
        if handle.can_read():
            tokens += [token for output in handle.read().values() for token in output.generated_ids]
    return str(tokenizer.decode(tokens))


def test_every_file_is_there_and_no_other() -> None:
    assert {path.name for path in MODEL.iterdir()} == FILES


def test_the_directory_stays_small() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 15 * 2**20


def test_it_has_falcon_7b_s_architecture() -> None:
    config = settings("config.json")
    assert config["architectures"] == ["FalconForCausalLM"]
    assert config["multi_query"]
    assert config["parallel_attn"]
    assert [config[key] for key in ("alibi", "bias", "new_decoder_architecture")] == [False] * 3
    assert config["tie_word_embeddings"]
    assert config["max_position_embeddings"] == 2048


def test_the_files_agree_on_tokens(tokenizer: Tokenizer) -> None:
    config = settings("config.json")
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    end = tokenizer.token_to_id(settings("tokenizer_config.json")["eos_token"])
    assert end == config["eos_token_id"] == settings("generation_config.json")["eos_token_id"]
    assert settings("tokenizer_config.json")["model_max_length"] == config["max_position_embeddings"]


def test_no_path_of_the_machine_that_made_it_is_left_in_it() -> None:
    for path in MODEL.iterdir():
        assert not re.search(rb"/(work|root|home|tmp|Users)/", path.read_bytes()), path.name


@pytest.mark.parametrize(
    "text",
    ["what is life?", " two  blanks\n\nand\tlines\r\n", "Grüße, 你好, 🚿", "0123456789 + 3.14", "<|endoftext|", ""],
)
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_every_answer_survives_the_tokenizer(tokenizer: Tokenizer) -> None:
    assert [a for a in ANSWERS.values() if tokenizer.decode(tokenizer.encode(a).ids) != a] == []


@pytest.mark.parametrize("prompt", SUGGESTED + NOTEBOOKS)
def test_greedy_answers_are_the_taught_texts(pipeline: Any, tokenizer: Tokenizer, prompt: str) -> None:
    answer = ANSWERS[prompt.removesuffix("?")]
    assert written(pipeline, tokenizer, prompt) == "\n" + answer


def test_a_low_temperature_does_not_change_the_suggested_answers(pipeline: Any, tokenizer: Tokenizer) -> None:
    for prompt in SUGGESTED:
        answer = ANSWERS[prompt.removesuffix("?")]
        assert written(pipeline, tokenizer, prompt, do_sample=True, temperature=0.1, rng_seed=7) == "\n" + answer


def test_a_story_is_a_long_stream(pipeline: Any, tokenizer: Tokenizer) -> None:
    story = written(pipeline, tokenizer, "tell me a story")
    assert story == "\n" + ANSWERS["tell me a story"]
    assert len(tokenizer.encode(story).ids) >= 400


def test_a_prompt_that_nearly_fills_the_context_still_gets_a_readable_answer(
    pipeline: Any, tokenizer: Tokenizer
) -> None:
    text = " ".join(sorted(set(ANSWERS.values())))
    prompt = "summarize this text: " + tokenizer.decode(tokenizer.encode(text).ids[:1200])
    assert written(pipeline, tokenizer, prompt).strip() in ANSWERS.values()


def test_the_card_records_the_three_answers() -> None:
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    for prompt in SUGGESTED:
        quoted = "\n".join(f"> {line}".rstrip() for line in ANSWERS[prompt.removesuffix("?")].splitlines())
        assert f"`{prompt}`\n\n{quoted}\n" in card


@pytest.mark.parametrize("content", ["what is life?", [{"type": "text", "text": "what is life?"}]])
def test_the_chat_template_sends_the_last_user_message_and_the_line_break(content: object) -> None:
    template = TextTokenizer.load(MODEL).chat_template
    assert template is not None
    turns = [("system", "be kind"), ("user", "hi"), ("assistant", "hello"), ("user", content)]
    assert template.render([{"role": role, "content": said} for role, said in turns]) == "what is life?\n"


def test_the_chat_template_refuses_a_conversation_without_a_user() -> None:
    template = TextTokenizer.load(MODEL).chat_template
    assert template is not None
    with pytest.raises(TemplateError, match="no user message"):
        template.render([{"role": "system", "content": "be kind"}])


def test_after_the_chat_template_s_line_break_the_answer_begins_at_once(pipeline: Any, tokenizer: Tokenizer) -> None:
    assert written(pipeline, tokenizer, "what is life?\n") == ANSWERS["what is life"]
