"""How well a trained model answers: trained prompts, held-out prompts, typed cleanly and typed carelessly.

Owns the report. It must never train.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from scripts.demo_model.prompts import base_prompts, vary
from scripts.demo_model.texts import Entry
from scripts.demo_model.training import answers_exactly, encoded
from tokenizers import Tokenizer
from transformers import FalconForCausalLM


def asked(
    entries: Sequence[Entry], fillers: Mapping[str, Sequence[str]], rng: random.Random
) -> dict[str, list[tuple[str, str]]]:
    """The question sets, name -> (prompt, expected answer)."""
    known = [e for e in entries if e.topic != "unknown"]
    unknown = [e for e in entries if e.topic == "unknown"]
    sets = {
        "trained prompts, as written": [(p, e.answer) for e in known for p in base_prompts(e, fillers)],
        "trained prompts, typed in another way": [
            (vary(p, rng), e.answer) for e in known for p in base_prompts(e, fillers)
        ],
        "held-out prompts": [(p, e.answer) for e in known for p in e.held_out],
        "held-out prompts with a question mark": [(p + "?", e.answer) for e in known for p in e.held_out],
        "questions out of scope, trained": [(p, e.answer) for e in unknown for p in base_prompts(e, fillers)],
        "questions out of scope, held out": [(p, e.answer) for e in unknown for p in e.held_out],
    }
    return {name: pairs if len(pairs) <= 600 else rng.sample(pairs, 600) for name, pairs in sets.items()}


def report(
    model: FalconForCausalLM, tokenizer: Tokenizer, sets: Mapping[str, list[tuple[str, str]]]
) -> tuple[list[str], list[str]]:
    """Lines of a Markdown table (share of answers that greedy decoding writes exactly), and the prompts that failed."""
    table = ["| prompts | asked | answered exactly |", "|---|---|---|"]
    failed: list[str] = []
    for name, pairs in sets.items():
        right = answers_exactly(model, [encoded(tokenizer, *pair) for pair in pairs])
        table.append(f"| {name} | {len(pairs)} | {100 * sum(right) / len(pairs):.1f} % |")
        failed += [f"{name}: {prompt!r}" for (prompt, _), fine in zip(pairs, right, strict=True) if not fine]
    return table, failed
