"""The questions and answers that the bundled model learns: reads text/*.txt and says what is wrong with it.

Owns the format of those files. It must never know about tokens, tensors or training.

An entry is a block that ends with a line `%%`:

    * 2                  weight, optional: how often the entry is shown, compared with 1
    @ a thing            a term; `prompts.py` makes "what is a thing", "explain a thing" and so on from it
    ? how does it work   a prompt; {filler} is replaced by each word of text/fillers.txt of that name
    ! and how is it done a prompt that is held out: never trained on, only asked at the end
    =
    the answer, any number of lines
    %%
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TEXT_DIR = Path(__file__).parent / "text"
FILLERS = "fillers.txt"


class TextError(ValueError):
    """A text file breaks the format; the message names the file and the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One answer and the prompts that lead to it. `topic` is the file's stem; `line` is where the entry begins, from 1."""

    topic: str
    line: int
    weight: float
    terms: tuple[str, ...]
    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: str


def parse(text: str, topic: str) -> list[Entry]:
    """The entries of one file, in order. Raises TextError."""
    entries: list[Entry] = []
    lines = text.splitlines()
    start = 0
    for number, line in enumerate(lines):
        if line == "%%":
            entries.append(_entry(lines[start:number], topic, start + 1))
            start = number + 1
    if any(line.strip() for line in lines[start:]):
        raise TextError(f"{topic}.txt:{start + 1}: the last entry does not end with %%")
    return entries


def _entry(block: list[str], topic: str, line: int) -> Entry:
    where = f"{topic}.txt:{line}"
    try:
        split = block.index("=")
    except ValueError:
        raise TextError(f"{where}: no line '=' before the answer") from None
    found: dict[str, list[str]] = {"*": [], "@": [], "?": [], "!": []}
    for head in block[:split]:
        mark, _, rest = head.partition(" ")
        if mark not in found or not rest or rest != rest.strip():
            raise TextError(f"{where}: can't read {head!r}")
        found[mark].append(rest)
    answer = "\n".join(block[split + 1 :])
    if not answer or answer != answer.strip():
        raise TextError(f"{where}: the answer is empty, or begins or ends with blanks")
    if not found["?"] and not found["@"]:
        raise TextError(f"{where}: no prompt")
    return Entry(
        topic=topic,
        line=line,
        weight=float(found["*"][0]) if found["*"] else 1.0,
        terms=tuple(found["@"]),
        prompts=tuple(found["?"]),
        held_out=tuple(found["!"]),
        answer=answer,
    )


def read_entries(directory: Path = TEXT_DIR) -> list[Entry]:
    """Every entry of every file, in the files' alphabetical order. Raises TextError."""
    entries: list[Entry] = []
    for path in sorted(directory.glob("*.txt")):
        if path.name != FILLERS:
            entries += parse(path.read_text(encoding="utf-8"), path.stem)
    return entries


def read_fillers(directory: Path = TEXT_DIR) -> dict[str, tuple[str, ...]]:
    """`name: word, word, …`, a line each (a name may have several lines), as name -> words."""
    fillers: dict[str, tuple[str, ...]] = {}
    for line in (directory / FILLERS).read_text(encoding="utf-8").splitlines():
        name, _, words = line.partition(":")
        fillers[name] = fillers.get(name, ()) + tuple(word.strip() for word in words.split(",") if word.strip())
    return fillers
