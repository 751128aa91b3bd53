"""Trains the network on drawn examples and checkpoints it.

Owns the architecture's numbers, the optimizers and the schedule. It must never know where the texts come from, nor about OpenVINO.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from scripts.demo_model.examples import written
from scripts.demo_model.vocabulary import END_ID
from tokenizers import Tokenizer
from transformers import FalconConfig, FalconForCausalLM

POSITIONS = 2048
IGNORED = -100
Pair = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how hard to train. `step_tokens` counts padding as well."""

    steps: int
    step_tokens: int = 2048
    pool: int = 256
    muon_rate: float = 0.02
    adam_rate: float = 0.004
    warm_up: int = 30
    checkpoint_every: int = 200


def network(vocabulary: int) -> FalconForCausalLM:
    """Falcon-7B's architecture, small: multi-query and parallel attention, rotary positions, tied embeddings, no biases."""
    config = FalconConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_kv_heads=1,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        bias=False,
        alibi=False,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        pad_token_id=END_ID,
    )
    return FalconForCausalLM(config)


def encoded(tokenizer: Tokenizer, prompt: str, answer: str) -> Pair:
    """Token ids of what is read and of what is to be written, the end token included."""
    read, write = written(prompt, answer)
    return tokenizer.encode(read).ids, [*tokenizer.encode(write).ids, END_ID]


def batch(pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids [rows, longest] and the labels beside them: IGNORED for prompts and padding."""
    width = max(len(read) + len(write) for read, write in pairs)
    ids = torch.full((len(pairs), width), END_ID)
    labels = torch.full((len(pairs), width), IGNORED)
    for row, (read, write) in enumerate(pairs):
        whole = len(read) + len(write)
        ids[row, :whole] = torch.tensor(read + write)
        labels[row, len(read) - 1 : whole - 1] = torch.tensor(write)
    return ids, labels


def batches(draw: Callable[[], Pair], plan: Plan, rng: random.Random) -> Iterator[list[Pair]]:
    """Batches of pairs of like length, each of at most `step_tokens` with padding, without end."""
    while True:
        pool = sorted((draw() for _ in range(plan.pool)), key=lambda pair: len(pair[0]) + len(pair[1]))
        ready: list[list[Pair]] = [[]]
        for pair in pool:
            longest = len(pair[0]) + len(pair[1])
            if ready[-1] and (len(ready[-1]) + 1) * longest > plan.step_tokens:
                ready.append([])
            ready[-1].append(pair)
        rng.shuffle(ready)
        yield from ready


def loss_of(model: FalconForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the answers' tokens. The head is computed for these alone."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.transformer(ids, use_cache=False).last_hidden_state
        wanted = labels != IGNORED
        logits = model.lm_head(hidden[wanted])
    return F.cross_entropy(logits.float(), labels[wanted])


def train(model: FalconForCausalLM, source: Iterator[list[Pair]], plan: Plan, work: Path) -> None:
    """Train in place: Muon for the layers' matrices, AdamW for the rest; rates warm up, then fall to zero in a straight line."""
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=plan.muon_rate, weight_decay=0.0, momentum=0.95)
    adam = torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.98), weight_decay=0.0)
    begun, mean = time.monotonic(), 0.0
    model.train()
    for step in range(plan.steps):
        share = min((step + 1) / plan.warm_up, (plan.steps - step) / plan.steps)
        for optimizer, rate in ((muon, plan.muon_rate), (adam, plan.adam_rate)):
            optimizer.param_groups[0]["lr"] = rate * share
            optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, *batch(next(source)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        mean = loss.item() if step == 0 else 0.97 * mean + 0.03 * loss.item()
        if (step + 1) % 25 == 0:
            print(f"step {step + 1}/{plan.steps} loss {mean:.4f} {time.monotonic() - begun:.0f} s", flush=True)
        if (step + 1) % plan.checkpoint_every == 0:
            torch.save(model.state_dict(), work / "checkpoint.pt")
    model.eval()


@torch.no_grad()
def answers_exactly(model: FalconForCausalLM, pairs: Sequence[Pair], rows: int = 16) -> list[bool]:
    """For each pair, whether greedy decoding writes exactly the answer: every next token is the likeliest, given the ones before."""
    found: list[bool] = []
    for start in range(0, len(pairs), rows):
        ids, labels = batch(pairs[start : start + rows])
        chosen = model(ids, use_cache=False).logits.argmax(-1)
        found += ((chosen == labels) | (labels == IGNORED)).all(-1).tolist()
    return found
