"""The model's card, README.md beside the weights: card.md filled with the numbers and answers of this training.

Owns the filling in. It must never measure anything itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

TEMPLATE = Path(__file__).with_name("card.md")


def quoted(prompt: str, answer: str) -> str:
    """Prompt and answer as Markdown."""
    lines = "\n".join(f"> {line}".rstrip() for line in answer.splitlines())
    return f"`{prompt}`\n\n{lines}\n"


def write_card(
    directory: Path, facts: Mapping[str, str], answers: Sequence[tuple[str, str]], table: Sequence[str]
) -> None:
    """Write README.md; `facts` are the placeholders of card.md by name."""
    text = TEMPLATE.read_text(encoding="utf-8")
    filled = dict(facts, answers="\n".join(quoted(*pair) for pair in answers).rstrip(), table="\n".join(table))
    for name, value in filled.items():
        text = text.replace(f"{{{name}}}", value)
    (directory / "README.md").write_text(text, encoding="utf-8")
