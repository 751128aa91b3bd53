"""Our rules of sampling beside those of the transformers library, over random logits. Run by `test_sampling.py` in that environment.

There is no test in this file: it fails with an AssertionError.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
import transformers as hf
from torch import Tensor

from penstock.engines.base import Sampling
from penstock.engines.torch_sampling import Chooser, Watermark, likeliest

VOCABULARY = 300


def probabilities(sampling: Sampling, context: Sequence[int], logits: Tensor) -> Tensor:
    """What the chooser draws from, as it says itself."""
    everything = Sampling(
        max_new_tokens=1, do_sample=sampling.do_sample, temperature=sampling.temperature, top_k=sampling.top_k,
        top_p=sampling.top_p, typical_p=sampling.typical_p, repetition_penalty=sampling.repetition_penalty,
        watermark=sampling.watermark, seed=sampling.seed, top_n_tokens=VOCABULARY,
    )  # fmt: skip
    token, logprob, top = Chooser(everything, context, Watermark(0.5, 2.0)).choose(logits)
    found = torch.full_like(logits, -float("inf"))
    for number, value in top:
        found[number] = value
    assert found[token] == logprob > -float("inf")
    if not sampling.do_sample:
        assert token == int(found.argmax())
    return found


def check(seed: int) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(VOCABULARY) * 3
    context = torch.randint(VOCABULARY, (20,)).tolist()
    ids = torch.tensor([context])
    lists = hf.LogitsProcessorList
    rules = {
        Sampling(max_new_tokens=1, do_sample=True, temperature=0.7): lists([hf.TemperatureLogitsWarper(0.7)]),
        Sampling(max_new_tokens=1, do_sample=True, top_k=7): lists([hf.TopKLogitsWarper(7)]),
        Sampling(max_new_tokens=1, do_sample=True, top_p=0.6): lists([hf.TopPLogitsWarper(0.6)]),
        Sampling(max_new_tokens=1, do_sample=True, typical_p=0.4): lists([hf.TypicalLogitsWarper(0.4)]),
        Sampling(max_new_tokens=1, repetition_penalty=1.3): lists([hf.RepetitionPenaltyLogitsProcessor(1.3)]),
        Sampling(max_new_tokens=1, watermark=True): lists(
            [hf.WatermarkLogitsProcessor(VOCABULARY, "cpu", greenlist_ratio=0.5, bias=2.0)]
        ),
        Sampling(
            max_new_tokens=1, do_sample=True, watermark=True, repetition_penalty=1.2, temperature=1.4,
            top_k=40, top_p=0.9, typical_p=0.8,
        ): lists(
            [
                hf.WatermarkLogitsProcessor(VOCABULARY, "cpu", greenlist_ratio=0.5, bias=2.0),
                hf.RepetitionPenaltyLogitsProcessor(1.2),
                hf.TemperatureLogitsWarper(1.4),
                hf.TopKLogitsWarper(40),
                hf.TopPLogitsWarper(0.9),
                hf.TypicalLogitsWarper(0.8),
            ]
        ),
    }  # fmt: skip
    for sampling, theirs in rules.items():
        expected = theirs(ids, logits[None].clone())[0].log_softmax(-1)
        found = probabilities(sampling, context, logits)
        torch.testing.assert_close(found, expected, msg=lambda text, s=sampling: f"seed {seed}, {s}: {text}")
    assert likeliest(logits, 0) == ()


def check_penalties() -> None:
    """Frequency and presence count the answer's own tokens; repetition counts the prompt's too."""
    logits = torch.zeros(4)
    logits[2] = 1.0
    chooser = Chooser(
        Sampling(max_new_tokens=9, frequency_penalty=0.5, presence_penalty=0.25), [2, 2], Watermark(0.5, 2)
    )
    # 2 loses 0.75 with its first use, and 0.5 with the second.
    assert [chooser.choose(logits)[0] for _ in range(3)] == [2, 2, 0]


def check_draws() -> None:
    """A seed's draws follow the probabilities, and repeat."""
    logits = torch.tensor([0.0, 1.0, 2.0])
    draws = []
    for _ in range(2):
        chooser = Chooser(Sampling(max_new_tokens=1, do_sample=True, seed=3), [0], Watermark(0.5, 2))
        draws.append([chooser.choose(logits)[0] for _ in range(3000)])
    assert draws[0] == draws[1]
    shares = torch.bincount(torch.tensor(draws[0])) / 3000
    torch.testing.assert_close(shares, logits.softmax(-1), atol=0.03, rtol=0)


if __name__ == "__main__":
    for number in range(int(sys.argv[1]), int(sys.argv[1]) + 50):
        check(number)
    check_penalties()
    check_draws()
