"""What transformers answers to a text, for tests that speak to a server: those send text, and the families' oracles are of token ids.

Run as a file by an interpreter that has torch and transformers but nothing of ours:

    python texts.py TEXT DIRECTORY [DIRECTORY ...]

It prints a JSON object: each directory's greedy answer in single precision, as token ids. There is no test in this file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(text: str, directories: list[Path]) -> None:
    import families  # type: ignore[import-not-found] # beside this file, which is run as a program
    import torch
    import transformers as hf
    from tokenizers import Tokenizer

    answers = {}
    for directory in directories:
        encoder = json.loads((directory / "config.json").read_text()).get("is_encoder_decoder") is True
        kind = hf.AutoModelForSeq2SeqLM if encoder else hf.AutoModelForCausalLM
        model = kind.from_pretrained(directory, dtype=torch.float32).eval()
        prompt = tuple(Tokenizer.from_file(str(directory / "tokenizer.json")).encode(text).ids)
        answers[str(directory)] = families.greedy(model, prompt, encoder=encoder).tokens
    print(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1], [Path(name) for name in sys.argv[2:]])
