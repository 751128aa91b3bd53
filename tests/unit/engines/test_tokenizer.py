from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from penstock.engines.chattemplate import ChatTemplate, MissingTemplateVariable, TemplateError
from penstock.engines.tokenizer import TextTokenizer, TokenizerError
from tests.tiny_models import END, END_ID, RECITAL


def test_text_and_back(tiny_model: Path) -> None:
    tokenizer = TextTokenizer.load(tiny_model)
    ids = tokenizer.encode(RECITAL + END)
    assert tokenizer.decode(ids) == RECITAL + END
    assert tokenizer.decode(ids, skip_special=True) == RECITAL
    assert [tokenizer.is_special(number) for number in ids[-2:]] == [False, True]
    assert tokenizer.eos_token_ids == (END_ID,)
    assert tokenizer.special_tokens == {"eos_token": END}


def test_offsets_are_in_characters(tiny_model: Path) -> None:
    tokenizer = TextTokenizer.load(tiny_model)
    assert [(start, end) for _, start, end in tokenizer.offsets(" one two")] == [(0, 4), (4, 8)]


async def test_a_long_text_does_not_hold_up_the_event_loop(tiny_model: Path) -> None:
    tokenizer = TextTokenizer.load(tiny_model)
    text = "many words, " * 100_000
    started = time.monotonic()
    encoding = asyncio.create_task(tokenizer.encode_async(text))
    ticks = 0
    while not encoding.done():
        await asyncio.sleep(0)
        ticks += 1
    assert len(encoding.result()) > 100_000
    assert ticks > 10, f"the loop turned {ticks} times in {time.monotonic() - started:.1f} s"


async def test_a_long_text_waits_for_no_other_long_text(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, encode, go_on = TextTokenizer.load(tiny_model), TextTokenizer.encode, threading.Event()

    def held_up(self: TextTokenizer, text: str, *, special: bool = True) -> tuple[int, ...]:
        if text.startswith("slow"):
            assert go_on.wait(60)
        return encode(self, text, special=special)

    monkeypatch.setattr(TextTokenizer, "encode", held_up)
    slow = [asyncio.create_task(tokenizer.encode_async("slow" + " one" * 2000)) for _ in range(100)]
    await asyncio.sleep(0)  # all of them have begun
    try:
        async with asyncio.timeout(30):
            assert len(await tokenizer.encode_async(" two" * 2000)) == 2000
        assert not any(task.done() for task in slow)
    finally:
        go_on.set()
        await asyncio.gather(*slow)


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_damaged_file_is_said_in_one_line(tiny_model: Path, tmp_path: Path, file: str) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / file).write_text("{")
    with pytest.raises(TokenizerError, match="can't be read"):
        TextTokenizer.load(model)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        TextTokenizer.load(tmp_path)


def test_the_chat_template_of_the_model(tiny_model: Path, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    template = TextTokenizer.load(tiny_model).chat_template
    assert template is not None
    assert template.render(messages) == "<user>Hi\n<assistant>Hello\n<assistant>"
    assert template.render(messages, add_generation_prompt=False) == "<user>Hi\n<assistant>Hello\n"
    model = shutil.copytree(tiny_model, tmp_path / "model")
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "{{ eos_token }}"}]
    settings = {"chat_template": named, "eos_token": {"content": "</s>"}}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    template = TextTokenizer.load(model).chat_template
    assert template is not None
    assert template.render([]) == "</s>"
    (model / "tokenizer_config.json").write_text("{}")
    assert TextTokenizer.load(model).chat_template is None


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content.upper }", "unexpected"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "loader"),
    ],
)
def test_a_template_that_misbehaves_is_an_error(source: str, error: str) -> None:
    with pytest.raises(TemplateError, match=error):
        ChatTemplate(source, {}).render([{"role": "user", "content": "x"}])


def test_a_missing_variable_is_told_apart() -> None:
    with pytest.raises(MissingTemplateVariable, match="undefined"):
        ChatTemplate("{{ nothing.here }}", {}).render([])


def test_json_in_templates_is_not_escaped_for_html() -> None:
    assert ChatTemplate("{{ tools | tojson }}", {}).render([], tools=[{"a": "<é>"}]) == '[{"a": "<é>"}]'
