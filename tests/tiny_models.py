"""A tiny model whose answers are known in advance, made in a second from OpenVINO's own operations.

The model counts: after the token with id `n` comes `n + 1`, and after the last one comes 0, the end of the sequence. Its last tokens
spell RECITAL, so a prompt that ends with " one" is answered with " two three four🙂 five six seven eight nine ten", and the end. The
emoji is two tokens, each half a character. A real attention layer adds a little noise that depends on the whole history, so that a wrong
key-value cache shows in the log-probabilities.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

WORDS = (" one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten")
EMOJI = "🙂"
RECITAL = "".join(WORDS[:4]) + EMOJI + "".join(WORDS[4:])
END = "<|endoftext|>"
END_ID = 0
POSITIONS = 2048
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the counting model, its tokenizer and their configuration."""
    return build(tmp_path_factory.mktemp("models") / "counting")


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without an end token: it counts round and round for as many tokens as are asked for."""
    return build(tmp_path_factory.mktemp("models") / "endless", positions=1_000_000, ends=False)


@pytest.fixture(scope="session")
def careless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but every third number is forgotten: a draft model that is often right."""
    return build(tmp_path_factory.mktemp("models") / "careless", forgets=3)


def build(directory: Path, *, positions: int = POSITIONS, ends: bool = True, forgets: int = 0, width: int = 8) -> Path:
    """Write the counting model to `directory`. With `forgets`, after each token whose id it divides comes the next but one.

    `width` is that of each of its two heads.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "model_type": "counting",
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": positions,
        "eos_token_id": END_ID if ends else None,
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [END_ID] if ends else None}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": END, "chat_template": CHAT_TEMPLATE}))
    save_ir(directory / "openvino_model.xml", tokenizer.get_vocab_size(), forgets, width)
    return directory


def build_tokenizer() -> Tokenizer:
    """Byte-level BPE over all bytes and the recital's words, whose ids are the last ones and in order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spell = dict(zip(_printable_bytes(), _byte_characters(), strict=True))
    merges: list[tuple[str, str]] = []
    pieces: list[str] = []
    finals: list[str] = []
    halves = [EMOJI.encode()[:2], EMOJI.encode()[2:]]
    for word in [*(w.encode() for w in WORDS[:4]), *halves, *(w.encode() for w in WORDS[4:])]:
        letters = [spell[byte] for byte in word]
        for end in range(1, len(letters)):
            pair = ("".join(letters[:end]), letters[end])
            if pair not in merges:
                merges.append(pair)
                pieces.append("".join(pair))
        finals.append("".join(letters))
    between = [piece for piece in dict.fromkeys(pieces) if piece not in finals]
    vocabulary = {token: number for number, token in enumerate([END, *alphabet, *between, *finals])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


def _printable_bytes() -> list[int]:
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*printable, *(b for b in range(256) if b not in printable)]


def _byte_characters() -> list[str]:
    printable = [chr(b) for b in _printable_bytes()[:188]]
    return [*printable, *(chr(256 + n) for n in range(256 - 188))]


def save_ir(path: Path, vocabulary: int, forgets: int = 0, width: int = 8) -> None:
    """The counting model as a stateful IR of the shape that transformers' decoders are exported to."""
    import numpy as np
    import openvino as ov
    from openvino import opset13 as op

    heads = 2
    random = np.random.default_rng(20230911)

    def noise(rows: int, columns: int) -> Any:
        return op.constant((random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32))

    inputs = {
        name: op.parameter(shape, kind, name=name)
        for name, shape, kind in (
            ("input_ids", [-1, -1], np.int64),
            ("attention_mask", [-1, -1], np.int64),
            ("position_ids", [-1, -1], np.int64),
            ("beam_idx", [-1], np.int32),
        )
    }
    for name, node in inputs.items():
        node.output(0).set_names({name})
    ids = inputs["input_ids"]
    batch = op.gather(op.shape_of(ids), op.constant(np.array([0])), op.constant(0))
    x = op.add(
        op.gather(noise(vocabulary, heads * width), ids, op.constant(0)),
        op.gather(noise(64, heads * width), op.mod(inputs["position_ids"], np.int64(64)), op.constant(0)),
    )

    def projected() -> Any:
        y = op.reshape(op.matmul(x, noise(heads * width, heads * width), False, False), [0, 0, heads, width], True)
        return op.transpose(y, [0, 2, 1, 3])

    sinks, cached = [], []
    query = projected()
    for part in ("key", "value"):
        name = f"past_key_values.0.{part}present.0.{part}"
        empty = op.broadcast(op.constant(np.float32(0)), op.concat([batch, np.array([heads, 0, width])], 0))
        past = op.read_value(empty, name, ov.Type.f32, ov.PartialShape([-1, heads, -1, width]))
        whole = op.concat([op.gather(past, inputs["beam_idx"], op.constant(0)), projected()], -2)
        sinks.append(op.assign(whole, name))
        cached.append(whole)
    seen = op.unsqueeze(op.convert(inputs["attention_mask"], "boolean"), np.array([1, 2]))
    mask = op.select(seen, np.float32(0), np.float32(-65504))
    attended = op.scaled_dot_product_attention(query, *cached, mask, np.float32(width**-0.5), causal=False)
    history = op.reshape(op.transpose(attended, [0, 2, 1, 3]), [0, 0, heads * width], True)
    follows = np.roll(np.eye(vocabulary), 1, axis=1)
    if forgets:
        follows[::forgets] = np.roll(follows[::forgets], 1, axis=1)
    successor = op.constant((follows * 9).astype(np.float32))
    logits = op.add(
        op.gather(successor, ids, op.constant(0)), op.matmul(history, noise(heads * width, vocabulary), False, False)
    )
    logits.output(0).set_names({"logits"})
    model = ov.Model([op.result(logits)], sinks, list(inputs.values()), "counting")
    ov.save_model(model, path, compress_to_fp16=False)
