"""The known text, in every spelling: our own readers find all of it, and miss the half that a cut leaves out."""

from __future__ import annotations

import json

import pytest

from penstock.client import StreamError, iter_tokens
from penstock.servers.scripted.script import Send, chunk_of, parse_script
from penstock.torture.content import SHAPES, TEXT, Form, Shape, content, forms

SPELLINGS: list[tuple[Shape, Form]] = [(shape, form) for shape in SHAPES for form in ("usual", *forms(shape))]


@pytest.mark.parametrize(("shape", "form"), SPELLINGS)
def test_a_reader_finds_the_text_in_every_spelling(shape: Shape, form: Form) -> None:
    assert "".join(token.text for token in iter_tokens(content(shape, form).chunks)) == TEXT


@pytest.mark.parametrize(("shape", "form"), SPELLINGS)
def test_the_middle_is_inside_a_token(shape: Shape, form: Form) -> None:
    known = content(shape, form)
    half = b"".join(known.chunks)[: known.middle]
    with pytest.raises(StreamError) as caught:
        list(iter_tokens([half]))
    assert TEXT.startswith(caught.value.text)
    assert len(TEXT) / 4 < len(caught.value.text) < len(TEXT)


@pytest.mark.parametrize(("shape", "form"), SPELLINGS)
def test_the_script_sends_each_token_as_one_chunk(shape: Shape, form: Form) -> None:
    known = content(shape, form)
    _, *sends = parse_script(known.script).steps
    assert tuple(chunk_of(step) for step in sends if isinstance(step, Send)) == known.chunks


def test_each_form_is_another_spelling() -> None:
    for shape in SHAPES:
        spelled = {b"".join(content(shape, form).chunks) for form in ("usual", *forms(shape))}
        assert len(spelled) == 1 + len(forms(shape))
    assert not b"".join(content("lmi", "no-final-newline").chunks).endswith(b"\n")
    assert b"\n" not in b"".join(content("tgi", "crlf").chunks).replace(b"\r\n", b"")


def test_the_text_has_what_breaks_readers() -> None:
    assert any(len(c.encode()) == length for length in (2, 3, 4) for c in TEXT)
    assert {'"', "\\", "\n", "{", "}"} < set(TEXT)
    assert "\ndata:" in TEXT
    assert TEXT.strip() == TEXT, "a program may strip what it prints"
    assert json.loads(content("lmi").chunks[0])["outputs"] == ["A"]
