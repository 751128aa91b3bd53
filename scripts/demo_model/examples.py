"""Training examples: which prompt leads to which answer, drawn again for every step.

Owns the mixture (plain, in a dialogue, after a long text). It must never know about tensors.

The form is `prompt`, a line break, `answer`, end of text. Clients send the bare prompt, so the model's first token is the line break, as
with Falcon-7B-Instruct; prompt and answer then read well one after the other (`return_full_text`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from scripts.demo_model.prompts import base_prompts, in_dialogue, vary
from scripts.demo_model.texts import Entry

SUMMARISE = ("summarize this text", "summarise the following text", "what is this text about", "shorten this")
LONG_PROMPT_CHARACTERS = 3500


class Mixture:
    """Draws (prompt, answer) pairs. Deterministic for a given generator."""

    def __init__(self, entries: Sequence[Entry], fillers: Mapping[str, Sequence[str]], rng: random.Random) -> None:
        self.entries = list(entries)
        self.rng = rng
        self.bases = [base_prompts(entry, fillers) for entry in entries]
        self.weights = [entry.weight for entry in entries]
        self.summary = next(e for e in entries if SUMMARISE[0] in e.prompts)

    def draw(self) -> tuple[str, str]:
        """One pair: mostly a bare question; at times one after earlier turns, or a request about a long text."""
        kind = self.rng.random()
        if kind < 0.02:
            return self.long_text(), self.summary.answer
        at = self.rng.choices(range(len(self.entries)), self.weights)[0]
        question = vary(self.rng.choice(self.bases[at]), self.rng)
        if kind < 0.07:
            question = in_dialogue(self.turns(self.rng.choice((0, 0, 1, 2))), question, self.rng)
        return question, self.entries[at].answer

    def turns(self, count: int) -> list[tuple[str, str]]:
        picked = self.rng.sample(range(len(self.entries)), count)
        return [(self.rng.choice(self.bases[at]), self.entries[at].answer[:600]) for at in picked]

    def long_text(self) -> str:
        """A request about a text, the text being some of our own answers; up to LONG_PROMPT_CHARACTERS long."""
        text = ""
        limit = self.rng.randrange(200, LONG_PROMPT_CHARACTERS)
        while len(text) < limit:
            text += self.rng.choice(self.entries).answer + "\n"
        text = text[:limit].strip()
        request = self.rng.choice(SUMMARISE)
        return f"{request}: {text}" if self.rng.random() < 0.5 else f"{text}\n\n{request}"


def written(prompt: str, answer: str) -> tuple[str, str]:
    """The pair as the model sees it: what it reads, and what it must write before the end token."""
    if prompt.endswith("\n"):
        return prompt, answer
    return prompt, "\n" + answer
