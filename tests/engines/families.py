"""Tiny random models of every family that the engines are held to, and what transformers answers with them.

Run as a file by an interpreter that has torch and transformers but nothing of ours:

    python families.py DIRECTORY [NAME ...]

It makes `DIRECTORY/NAME` for each family (weights, configuration, tokenizer) with `oracle.json` in it: prompts, and what
`transformers.generate` in single precision makes of them. Imported, it tells the families' names and reads the oracle, and imports nothing
heavy. There is no test in this file, so that every engine's suite may use it.

Weights are random, but such that half precision holds them exactly: an engine that keeps them so must give the same answers. Heads are 32
wide, the narrowest that vLLM takes.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VOCABULARY = 384
POSITIONS = 2048
PAD, END = 0, 1
NEW_TOKENS = 16
TOP = 5
SEED = 20230911

DECODERS = ("falcon-7b", "falcon-40b", "llama", "bloom", "gpt-neox", "gpt-bigcode", "mistral", "qwen2", "qwen3")
"""Decoders, which every engine takes."""
ENCODER_DECODERS = ("t5",)
NAMES = (*DECODERS, *ENCODER_DECODERS)
_SEEDS = {"falcon-7b": 0, "falcon-40b": 10, "llama": 2, "bloom": 9, "gpt-neox": 7,
          "gpt-bigcode": 5, "mistral": 6, "qwen2": 4, "qwen3": 8, "t5": 3}  # fmt: skip
"""Chosen so that answers say several different tokens, and no choice is closer than 0.002."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One greedy answer, end tokens ignored."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural, of each token."""
    top: tuple[tuple[tuple[int, float], ...], ...]
    """The TOP likeliest tokens of each step with their log-probabilities, likeliest first."""
    prompt_logprobs: tuple[float, ...] = ()
    """NaN first. Empty for an encoder-decoder, whose prompt has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """What transformers says in single precision."""

    plain: tuple[Answer, ...]
    """Three prompts of 40 tokens."""
    long: Answer
    """A prompt of 1,500 tokens: shows rounded constants of rotary embeddings."""
    repetition: Answer
    """The first prompt with a repetition penalty of 1.5, with log-probabilities after the penalty."""
    end: int
    """A token that `generation_config.json` names as an end besides the usual one: the first prompt's answer has it."""


def read_oracle(directory: Path) -> Oracle:
    """The oracle that lies beside the weights in `directory`."""
    raw = json.loads((directory / "oracle.json").read_text())

    def answer(value: dict[str, Any]) -> Answer:
        return Answer(
            prompt=tuple(value["prompt"]),
            tokens=tuple(value["tokens"]),
            logprobs=tuple(value["logprobs"]),
            top=tuple(tuple((int(token), float(logprob)) for token, logprob in step) for step in value["top"]),
            prompt_logprobs=tuple(value["prompt_logprobs"]),
        )

    return Oracle(
        plain=tuple(answer(value) for value in raw["plain"]),
        long=answer(raw["long"]),
        repetition=answer(raw["repetition"]),
        end=raw["end"],
    )


def model_of(name: str) -> Any:
    """The family's model with the library's own initial weights."""
    import transformers as hf

    common = {"vocab_size": VOCABULARY, "bos_token_id": END, "eos_token_id": END, "pad_token_id": PAD}
    small = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    rotary = {"num_key_value_heads": 2, "intermediate_size": 256, "max_position_embeddings": POSITIONS}
    falcon = {"parallel_attn": True, "bias": False, "alibi": False, "max_position_embeddings": POSITIONS}
    untied = {"tie_word_embeddings": False}
    match name:
        case "falcon-7b":
            config = hf.FalconConfig(**common, **small, **falcon, multi_query=True, new_decoder_architecture=False)
            return hf.FalconForCausalLM(config)
        case "falcon-40b":
            config = hf.FalconConfig(**common, **small, **falcon, new_decoder_architecture=True, num_kv_heads=2)
            return hf.FalconForCausalLM(config)
        case "llama":
            return hf.LlamaForCausalLM(hf.LlamaConfig(**common, **small, **rotary, **untied))
        case "bloom":
            # BLOOM has no longest position; the other files say 2048 by themselves.
            return hf.BloomForCausalLM(hf.BloomConfig(**common, hidden_size=128, n_layer=2, n_head=4))
        case "gpt-neox":
            sizes = {"intermediate_size": 256, "max_position_embeddings": POSITIONS, "rotary_pct": 0.25}
            return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**common, **small, **sizes, **untied))
        case "gpt-bigcode":
            sizes = {"n_positions": POSITIONS, "n_embd": 128, "n_layer": 2, "n_head": 4}
            return hf.GPTBigCodeForCausalLM(hf.GPTBigCodeConfig(**common, **sizes, multi_query=True))
        case "mistral":
            config = hf.MistralConfig(**common, **small, **rotary, **untied, head_dim=32, sliding_window=None)
            return hf.MistralForCausalLM(config)
        case "qwen2":
            return hf.Qwen2ForCausalLM(hf.Qwen2Config(**common, **small, **rotary, tie_word_embeddings=True))
        case "qwen3":
            return hf.Qwen3ForCausalLM(hf.Qwen3Config(**common, **small, **rotary, **untied, head_dim=32))
        case "t5":
            config = hf.T5Config(
                vocab_size=VOCABULARY, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4,
                feed_forward_proj="gated-gelu", tie_word_embeddings=False,
                pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD,
            )  # fmt: skip
            return hf.T5ForConditionalGeneration(config)
    raise ValueError(f"there is no family {name}; there are: {', '.join(NAMES)}")


def build(name: str, directory: Path) -> None:
    """Make the model, its tokenizer and its oracle in `directory`."""
    import torch

    torch.manual_seed(SEED + _SEEDS[name])
    model = model_of(name).eval()
    randomise(model)
    model.generation_config.update(do_sample=False)
    model.save_pretrained(directory)
    save_tokenizer(directory, encoder=name in ENCODER_DECODERS)
    (directory / "oracle.json").write_text(json.dumps(asdict(ask(directory, encoder=name in ENCODER_DECODERS))))


def randomise(model: Any) -> None:
    """Lively weights: matrices such that each layer has its say, biases and norms unlike their neutral values.

    Where the embeddings are also the head, small ones keep the last token from being the likeliest next one.
    """
    import torch

    outer, inner = (1.0, 4.0) if model.config.tie_word_embeddings else (3.0, 2.0)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            if parameter.dim() >= 2:
                gain = outer if any(part in name for part in ("head", "embed", "wte", "shared")) else inner
                noise *= gain / math.sqrt(parameter.shape[-1])
            elif "norm" in name.lower() or "ln_" in name:
                noise = noise * 0.1 + (0 if name.endswith("bias") else 1)
            else:
                noise *= 0.1
            parameter.copy_(noise.half().float())


def ask(directory: Path, *, encoder: bool) -> Oracle:
    """Ask transformers, with the weights as they lie in `directory`, and name an end token there."""
    import torch
    import transformers as hf

    kind = hf.AutoModelForSeq2SeqLM if encoder else hf.AutoModelForCausalLM
    model = kind.from_pretrained(directory, dtype=torch.float32).eval()
    chance = random.Random(SEED)
    prompts = [tuple(chance.randrange(2, VOCABULARY) for _ in range(length)) for length in (40, 40, 40, 1500)]
    plain = tuple(greedy(model, prompt, encoder=encoder) for prompt in prompts[:3])
    answer = plain[0].tokens
    # As late as it may be, and not seen before, so that the answer ends there and nowhere else.
    end = max((token for token in answer if token not in (PAD, END)), key=answer.index)
    path = directory / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [END, end]}))
    return Oracle(
        plain=plain,
        long=greedy(model, prompts[3], encoder=encoder),
        repetition=greedy(model, prompts[0], encoder=encoder, repetition_penalty=1.5),
        end=end,
    )


def greedy(model: Any, prompt: tuple[int, ...], *, encoder: bool, **settings: Any) -> Answer:
    import torch

    ids = torch.tensor([prompt])
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS,
            return_dict_in_generate=True, output_scores=True, **settings,
        )  # fmt: skip
        steps = torch.stack(out.scores)[:, 0].log_softmax(-1)
        known: tuple[float, ...] = ()
        if not encoder:
            rows = model(ids).logits[0, :-1].log_softmax(-1)
            known = (math.nan, *rows.gather(1, ids[0, 1:, None])[:, 0].tolist())
    tokens = tuple(out.sequences[0, -NEW_TOKENS:].tolist())
    best = steps.topk(TOP)
    return Answer(
        prompt=prompt,
        tokens=tokens,
        logprobs=tuple(steps[range(NEW_TOKENS), list(tokens)].tolist()),
        top=tuple(
            tuple(zip(ids, values, strict=True))
            for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ),
        prompt_logprobs=known,
    )


def save_tokenizer(directory: Path, *, encoder: bool) -> None:
    """Byte-level BPE: two special tokens, the bytes, and pairs of letters up to the size of the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    common = "etaoinshrdlu"
    pairs = [(a, b) for a in common for b in common][: VOCABULARY - 2 - len(letters)]
    pieces = ["<pad>", "</s>", *letters, *("".join(pair) for pair in pairs)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: n for n, piece in enumerate(pieces)}, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<pad>", special=True), AddedToken("</s>", special=True)])
    if encoder:  # as T5's: every input ends with the end token
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def main(root: Path, names: Iterable[str]) -> None:
    for name in names:
        half_made = root / f".{name}"
        shutil.rmtree(half_made, ignore_errors=True)
        half_made.mkdir(parents=True)
        build(name, half_made)
        half_made.rename(root / name)
        print(f"made {name}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or NAMES)
