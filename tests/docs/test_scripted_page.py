"""Every example of docs/scripted.md does what the page says, and every word of the language is on the page."""

from __future__ import annotations

import json
import re

import msgspec
import pytest

from penstock.servers.scripted import script as language
from tests.replicas import ROOT
from tests.unit.servers.scripted.test_server import parse, raw, request, serving

PAGE = (ROOT / "docs" / "scripted.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json\n(.*?)```\n```text\n(.*?)```\n", PAGE, re.DOTALL)
BODY = b'{"prompt":"hello"}'


def test_the_page_has_examples() -> None:
    assert len(EXAMPLES) == PAGE.count("```json") >= 8


@pytest.mark.parametrize(("script", "expected"), EXAMPLES)
async def test_an_example_does_what_it_says(script: str, expected: str) -> None:
    lines = expected.splitlines()
    broken = lines[-1] == "broken"
    chunks = [json.loads(line).encode("latin-1") for line in (lines[:-1] if broken else lines)]
    async with serving(json.loads(script)) as (port, _):
        if broken:
            with pytest.raises(ConnectionResetError):
                await raw(port, request(BODY))
            whole = script.replace("reset", "close")
        else:
            assert parse(await raw(port, request(BODY)))[2] == chunks
            return
    async with serving(json.loads(whole)) as (port, _):
        answer = await raw(port, request(BODY))
    assert answer.partition(b"\r\n\r\n")[2] == b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks)


def words() -> list[str]:
    kinds = [v for v in vars(language).values() if isinstance(v, type) and issubclass(v, msgspec.Struct)]
    return sorted({f.encode_name for kind in kinds for f in msgspec.structs.fields(kind)})


@pytest.mark.parametrize("word", words())
def test_every_word_is_on_the_page(word: str) -> None:
    assert re.search(rf"[`.]{word}\b", PAGE)
