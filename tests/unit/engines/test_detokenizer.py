"""Incremental decoding against decoding the whole, for any ids and any text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from penstock.engines.detokenizer import LONGEST_UNFINISHED, LONGEST_WINDOW, UNFINISHED, Detokenizer
from penstock.engines.modelconfig import ModelConfig
from penstock.engines.tokenizer import TextTokenizer
from tests.tiny_models import EMOJI, END, END_ID, build_tokenizer

CORPUS = ["The quick brown fox, das schnelle Füchslein, 素早い茶色の狐 🦊🙂👩‍👩‍👧 jumps over naïve cafés — twice!"] * 3


def wrap(tokenizer: Tokenizer) -> TextTokenizer:
    return TextTokenizer(tokenizer, ModelConfig("", 100, (0,), 0), {})


@cache
def byte_level() -> TextTokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(END, special=True)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrap(tokenizer)


@cache
def sentencepiece_like() -> TextTokenizer:
    """As Llama 2's: words begin with a sign for the space, which is stripped at the start, and unknown characters fall to bytes."""
    letters = {chr(c): n + 300 for n, c in enumerate(range(ord("a"), ord("z") + 1))}
    vocabulary = {"<unk>": 0, "</s>": 1, "▁": 2, **{f"<0x{b:02X}>": 3 + b for b in range(256)}, **letters}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return wrap(tokenizer)


def pieces(tokenizer: TextTokenizer, ids: Sequence[int], prompt: Sequence[int] = ()) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt)
    return [detokenizer.push(number) for number in ids]


@given(
    st.one_of(
        st.lists(st.integers(0, 419), max_size=60),
        st.lists(st.integers(0, 419).map(lambda n: n % 3 + 190), max_size=900),
    )
)
def test_any_ids_of_a_byte_level_bpe(ids: list[int]) -> None:
    """Also such as no text has: bytes in any order, and long runs of a few of them."""
    got, whole = "".join(pieces(byte_level(), ids)), byte_level().decode(ids)
    assert whole.startswith(got)
    rest = whole[len(got) :]
    assert rest == UNFINISHED * len(rest)
    assert len(rest) <= LONGEST_UNFINISHED


@given(st.text(max_size=60))
def test_any_text_comes_back_whole_and_never_in_half_characters(text: str) -> None:
    got = pieces(byte_level(), byte_level().encode(text))
    assert "".join(got) == text.rstrip(UNFINISHED) or UNFINISHED in text
    if UNFINISHED not in text:
        assert all(UNFINISHED not in piece for piece in got)


@given(st.text(max_size=40), st.text(max_size=40))
def test_after_a_prompt_only_the_new_text_comes(prompt: str, text: str) -> None:
    tokenizer = byte_level()
    got = pieces(tokenizer, tokenizer.encode(text), tokenizer.encode(prompt))
    if UNFINISHED not in prompt + text:
        assert "".join(got) == text


@given(st.text(alphabet="abcdef é🙂狐", min_size=1, max_size=30))
def test_sentencepiece_spaces_and_bytes(text: str) -> None:
    tokenizer = sentencepiece_like()
    ids = tokenizer.encode(text)
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids) == text
    # Each word of a continued text keeps its space, which decoding it alone would lose.
    assert "".join(pieces(tokenizer, tokenizer.encode("b c")[1:], tokenizer.encode("a"))) == "b c"


def test_half_a_character_waits_for_the_other() -> None:
    tokenizer = wrap(build_tokenizer())
    ids = tokenizer.encode(" four" + EMOJI)
    assert pieces(tokenizer, ids) == [" four", "", EMOJI]


@pytest.mark.parametrize("count", [1, 8, 9, 20])
def test_garbage_is_shown_when_it_can_not_become_a_character_any_more(count: int) -> None:
    tokenizer = wrap(build_tokenizer())
    garbage = tokenizer.encode("\xff")[-1]  # a byte of UTF-8 that begins nothing
    got = pieces(tokenizer, [garbage] * count)
    assert "".join(got) == UNFINISHED * max(0, count - LONGEST_UNFINISHED)
    assert "".join(pieces(tokenizer, [*[garbage] * count, *tokenizer.encode("a")])) == UNFINISHED * count + "a"


@pytest.mark.parametrize("what", ["garbage", "nothing"])
def test_a_run_that_becomes_no_text_costs_no_more_and_more(what: str) -> None:
    """As random weights give: bytes that begin no character, or ids that the tokenizer has no text for."""
    tokenizer = wrap(build_tokenizer())
    longest = 0

    class Watched:
        def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
            nonlocal longest
            longest = max(longest, len(ids))
            return tokenizer.decode(ids, skip_special=skip_special)

    detokenizer = Detokenizer(Watched(), tokenizer.encode(" one two"))
    number = tokenizer.encode("\xff")[-1] if what == "garbage" else 1_000_000
    after = [*tokenizer.encode(" four"), *tokenizer.encode(EMOJI)]
    got = "".join(detokenizer.push(each) for each in [*[number] * 3000, *after])
    assert got == (UNFINISHED * 3000 if what == "garbage" else "") + " four" + EMOJI
    assert longest <= LONGEST_WINDOW + 1


def test_special_tokens_are_visible() -> None:
    tokenizer = wrap(build_tokenizer())
    assert pieces(tokenizer, [*tokenizer.encode(" one"), END_ID]) == [" one", END]
