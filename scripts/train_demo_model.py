"""Make the bundled model: tokenizer, training, conversion, checks. `python -m scripts.train_demo_model --work DIR`

Needs torch 2.13, transformers 5.5 and optimum-intel 2.2. About half an hour on one core. Seeds are fixed: the same versions on the same
kind of processor make the same weights. Nothing is written to --target before every check has passed.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path

import torch
from scripts.demo_model.card import write_card
from scripts.demo_model.conversion import export, round_to_half
from scripts.demo_model.evaluation import asked, report
from scripts.demo_model.examples import Mixture
from scripts.demo_model.prompts import base_prompts
from scripts.demo_model.texts import Entry, read_entries, read_fillers
from scripts.demo_model.training import POSITIONS, Pair, Plan, batches, encoded, network, train
from scripts.demo_model.verification import verify
from scripts.demo_model.vocabulary import save_tokenizer, train_tokenizer
from tokenizers import Tokenizer
from transformers import FalconForCausalLM

SEED = 2023
VOCABULARY = 4096
TARGET = Path(__file__).parents[1] / "src" / "penstock" / "models" / "falcon-demo"
MUST_ANSWER = (
    "what is SageMaker inference?",
    "provide the steps to make a pizza",
    "what is life?",
    "what is life",
    "what is SageMaker?",
    "tell me one sentence",
    "tell me a story",
    "hello",
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="checkpoints, the torch model and the report go here")
    options.add_argument("--target", type=Path, default=TARGET, help="where the converted model goes")
    options.add_argument("--steps", type=int, default=1800)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument(
        "--trained", action="store_true", help="--work already holds the trained model: only convert and check"
    )
    given = options.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    if not given.trained:
        learn(given.work, given.steps)
    check_and_convert(given.work, given.target)


def learn(work: Path, steps: int) -> None:
    """Train tokenizer and network; leave both in `work` as transformers saves them."""
    entries, fillers = read_entries(), read_fillers()
    texts = [text for entry in entries for text in (*base_prompts(entry, fillers), *[entry.answer] * 8)]
    tokenizer = train_tokenizer(texts, VOCABULARY)
    save_tokenizer(tokenizer, work, POSITIONS)
    size = tokenizer.get_vocab_size()
    print(
        f"{len(entries)} entries, {sum(len(tokenizer.encode(e.answer)) for e in entries)} answer tokens, vocabulary {size}"
    )

    rng = random.Random(SEED)
    mixture = Mixture(entries, fillers, rng)

    def draw() -> Pair:
        return encoded(tokenizer, *mixture.draw())

    model = network(size)
    print(f"{model.num_parameters() / 1e6:.2f} M parameters")
    plan = Plan(steps=steps)
    train(model, batches(draw, plan, rng), plan, work)
    model.save_pretrained(work)


def check_and_convert(work: Path, target: Path) -> None:
    """Round, ask every question, convert, compare with torch, and only then copy to `target`."""
    model = FalconForCausalLM.from_pretrained(work).eval()
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    round_to_half(model)
    model.save_pretrained(work)
    entries = read_entries()
    table, failed = report(model, tokenizer, asked(entries, read_fillers(), random.Random(SEED)))
    (work / "report.md").write_text("\n".join([*table, "", *failed, ""]), encoding="utf-8")
    print("\n".join(table))
    converted = work / "converted"
    shutil.rmtree(converted, ignore_errors=True)
    export(work, converted)
    verify(model, tokenizer, converted, [(prompt, answer_to(prompt, entries)) for prompt in MUST_ANSWER])
    facts = {
        "entries": str(len(entries)),
        "prompts": f"{sum(len(base_prompts(e, read_fillers())) for e in entries):,}",
        "parameters": f"{model.num_parameters() / 1e6:.1f}",
        "vocabulary": f"{tokenizer.get_vocab_size():,}",
        "positions": f"{POSITIONS:,}",
        "megabytes": f"{(converted / 'openvino_model.bin').stat().st_size / 1e6:.1f}",
    }
    write_card(converted, facts, [(prompt, answer_to(prompt, entries)) for prompt in MUST_ANSWER[:3]], table)
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(converted.iterdir()):
        shutil.copy(file, target)
    print(f"wrote {target}")


def answer_to(prompt: str, entries: list[Entry]) -> str:
    """The taught answer."""
    return next(entry.answer for entry in entries if prompt.removesuffix("?") in entry.prompts)


if __name__ == "__main__":
    main()
