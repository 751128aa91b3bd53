"""What people may type for a prompt: templates, fillers, casing, punctuation, politeness, slips of the finger.

Owns the variations, all drawn from the generator that is passed in. It must never know about tokens or training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from scripts.demo_model.texts import Entry

DEFINING = (
    "what is {}",
    "what's {}",
    "tell me about {}",
    "explain {}",
    "describe {}",
    "define {}",
    "what does {} mean",
    "what do you know about {}",
    "can you explain {}",
    "{}",
)
QUESTION = re.compile(
    r"(what|who|whom|whose|when|where|why|which|how|is|are|am|was|do|does|did|can|could|should|would|will|may)\b", re.I
)
BEFORE_QUESTION = (
    "please tell me, ",
    "can you tell me ",
    "tell me, ",
    "I want to know, ",
    "hey, ",
    "hello, ",
    "so, ",
    "please, ",
)
BEFORE_REQUEST = (
    "please ",
    "can you ",
    "could you ",
    "hey, ",
    "hello, ",
    "could you please ",
    "I want you to ",
    "now ",
)
AFTER = (" please", ", please", " for me", " thanks", " in a few words", " now")
DIALOGUE = (
    ("User: ", "\nAssistant:"),
    ("User: ", "\nFalcon:"),
    ("Question: ", "\nAnswer:"),
    ("Q: ", "\nA:"),
    ("Human: ", "\nAI:"),
)


def without_article(term: str) -> str:
    """The term without its article, as people type it into a box."""
    return re.sub(r"^(a|an|the) ", "", term)


def base_prompts(entry: Entry, fillers: Mapping[str, Sequence[str]]) -> list[str]:
    """Every prompt of the entry, templates and fillers spelled out, in a fixed order."""
    found = list(entry.prompts)
    for term in entry.terms:
        found += [form.format(without_article(term) if form == "{}" else term) for form in DEFINING]
    return [filled for prompt in found for filled in fill(prompt, fillers)]


def fill(prompt: str, fillers: Mapping[str, Sequence[str]]) -> list[str]:
    """The prompt with its {name} replaced by each word of that name; itself where it has none."""
    slot = re.search(r"\{(\w+)\}", prompt)
    if not slot:
        return [prompt]
    return [prompt.replace(slot.group(0), word) for word in fillers[slot.group(1)]]


def vary(prompt: str, rng: random.Random) -> str:
    """One way to type the prompt: as it is about a third of the time, otherwise changed a little or a lot."""
    text = prompt
    asks = bool(QUESTION.match(text))
    if rng.random() < 0.2 and "\n" not in text:
        text = rng.choice(BEFORE_QUESTION if asks else BEFORE_REQUEST) + text
    if rng.random() < 0.07:
        text += rng.choice(AFTER)
    text = punctuated(text, asks, rng)
    draw = rng.random()
    if draw < 0.25:
        text = text.lower()
    elif draw < 0.5:
        text = text[0].upper() + text[1:]
    elif draw < 0.54:
        text = text.upper()
    elif draw < 0.58:
        text = text.title()
    if rng.random() < 0.05:
        text = slip(text, rng)
    return text


def punctuated(text: str, asks: bool, rng: random.Random) -> str:
    """The text with the sign that people put at its end, or none."""
    draw = rng.random()
    if asks:
        return text + (
            "?" if draw < 0.55 else "??" if draw < 0.57 else " ?" if draw < 0.6 else "." if draw < 0.62 else ""
        )
    return text + ("." if draw < 0.25 else "!" if draw < 0.3 else "?" if draw < 0.4 else "")


def slip(text: str, rng: random.Random) -> str:
    """The text with two letters swapped, or one left out or doubled."""
    if len(text) < 8:
        return text
    at = rng.randrange(1, len(text) - 2)
    way = rng.randrange(3)
    if way == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + text[at + 1 :] if way == 1 else text[:at] + text[at] + text[at:]


def in_dialogue(turns: Sequence[tuple[str, str]], question: str, rng: random.Random) -> str:
    """The question after earlier turns of (question, answer), as chat programs write them into one prompt."""
    before, after = rng.choice(DIALOGUE)
    past = "".join(f"{before}{asked}{after} {answered}\n" for asked, answered in turns)
    return f"{past}{before}{question}{after}"
