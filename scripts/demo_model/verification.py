"""Holds the converted model to the torch model: the same greedy tokens, and the answers that were taught.

Owns the greedy loop over the IR, on OpenVINO's runtime alone. It must never change a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from scripts.demo_model.vocabulary import END_ID
from tokenizers import Tokenizer
from transformers import FalconForCausalLM

LONGEST = 600


class Mismatch(AssertionError):
    """The converted model does not write what it should; the message shows both texts."""


def greedy_openvino(model: Path, prompts: Sequence[list[int]]) -> list[list[int]]:
    """The likeliest tokens after each prompt, in single precision, the end token left out."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "INFERENCE_NUM_THREADS": 1}
    request = ov.Core().compile_model(model / "openvino_model.xml", "CPU", settings).create_infer_request()
    answers: list[list[int]] = []
    for prompt in prompts:
        request.reset_state()
        fresh, seen, answer = prompt, 0, []
        while len(answer) < LONGEST:
            seen += len(fresh)
            logits = request.infer(
                {
                    "input_ids": np.array([fresh], dtype=np.int64),
                    "attention_mask": np.ones((1, seen), dtype=np.int64),
                    "position_ids": np.arange(seen - len(fresh), seen, dtype=np.int64)[None],
                    "beam_idx": np.zeros(1, dtype=np.int32),
                }
            )["logits"]
            token = int(logits[0, -1].argmax())
            if token == END_ID:
                break
            answer.append(token)
            fresh = [token]
        answers.append(answer)
    return answers


def greedy_torch(model: FalconForCausalLM, prompt: list[int]) -> list[int]:
    """The same by transformers."""
    ids = torch.tensor([prompt])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=LONGEST, do_sample=False)
    tokens: list[int] = written[0, len(prompt) :].tolist()
    return tokens[: tokens.index(END_ID)] if END_ID in tokens else tokens


def verify(model: FalconForCausalLM, tokenizer: Tokenizer, directory: Path, wanted: Sequence[tuple[str, str]]) -> None:
    """Ask each prompt of both models. `wanted` are (prompt, answer) pairs. Raises Mismatch."""
    prompts = [tokenizer.encode(prompt).ids for prompt, _ in wanted]
    for (prompt, answer), ids, converted in zip(wanted, prompts, greedy_openvino(directory, prompts), strict=True):
        original = greedy_torch(model, ids)
        if converted != original:
            raise Mismatch(
                f"{prompt!r}: torch {tokenizer.decode(original)!r}, OpenVINO {tokenizer.decode(converted)!r}"
            )
        if tokenizer.decode(converted) != "\n" + answer:
            raise Mismatch(f"{prompt!r}: wrote {tokenizer.decode(converted)!r} instead of {answer!r}")
