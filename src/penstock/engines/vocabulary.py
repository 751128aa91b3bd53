"""The bytes behind each token id, from a model's `tokenizer.json`.

Owns the ways in which tokenizers spell bytes: byte-level alphabets, SentencePiece's mark for a space, `<0x0A>`. A grammar needs them,
to know which tokens can come next. It must never encode or decode a text: that is `tokenizer.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_SPACE = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>\Z")


class VocabularyError(Exception):
    """The tokens' bytes can't be told; the message is one line."""


def read_vocabulary(model: Path, size: int = 0) -> tuple[bytes, ...]:
    """What each id adds to the text: nothing for special tokens and unused ids. At least `size` entries. Raises VocabularyError."""
    try:
        document = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
        spelled = _spelling(document.get("decoder"))
        pieces = dict(_pieces(document["model"]["vocab"]))
        found = {number: spelled(piece) for number, piece in pieces.items()}
        for token in document.get("added_tokens") or ():
            found[token["id"]] = b"" if token["special"] else str(token["content"]).encode()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VocabularyError(f"the vocabulary of {model} can't be read: {error!r}") from error
    return tuple(found.get(number, b"") for number in range(max(size, max(found, default=-1) + 1)))


def _pieces(vocabulary: Any) -> Iterator[tuple[int, str]]:
    """Ids and spellings: BPE maps one to the other, Unigram lists `[spelling, score]`."""
    if isinstance(vocabulary, Mapping):
        yield from ((number, piece) for piece, number in vocabulary.items())
    else:
        yield from ((number, entry[0]) for number, entry in enumerate(vocabulary))


def _spelling(decoder: Any) -> Callable[[str], bytes]:
    """How a vocabulary with this decoder spells bytes. Raises VocabularyError."""
    kinds = {part["type"] for part in _parts(decoder)}
    if "ByteLevel" in kinds:
        alphabet = _byte_alphabet()
        return lambda piece: bytes(alphabet[letter] for letter in piece)
    if kinds & {"Metaspace", "Replace", "ByteFallback"}:
        return _sentence_piece
    raise VocabularyError(
        f"a tokenizer that decodes by {', '.join(sorted(kinds)) or 'nothing'} does not tell its bytes"
    )


def _parts(decoder: Any) -> list[Mapping[str, Any]]:
    if not decoder:
        return []
    return list(decoder["decoders"]) if decoder["type"] == "Sequence" else [decoder]


def _sentence_piece(piece: str) -> bytes:
    if byte := _BYTE.match(piece):
        return bytes([int(byte[1], 16)])
    return piece.replace(_SPACE, " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's: a byte that prints is its own letter, the others follow from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}
