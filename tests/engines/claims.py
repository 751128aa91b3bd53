"""Which engine claims which families and which features. There is no test in this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.engines.base import Feature
from tests.engines.families import DECODERS, NAMES

Model = Literal["source", "converted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the suite holds an engine to."""

    engine: str
    environment: str
    """Where it lives below `.venv/engines`; empty is this interpreter."""
    model: Model
    """Whether it loads the Hugging Face directory or our conversion of it."""
    families: tuple[str, ...]
    features: frozenset[Feature]
    """Exactly these: an engine that can do more, or less, must say so here."""
    penalised_logprobs: bool
    """Whether a token's log-probability is that after the penalties, or the model's own."""


CLAIMS = (
    Claim(
        engine="openvino",
        environment="",
        model="converted",
        families=DECODERS,
        features=frozenset({"grammar", "prompt_logprobs"}),
        penalised_logprobs=False,
    ),
    Claim(
        engine="transformers",
        environment="transformers",
        model="source",
        families=NAMES,
        features=frozenset({"prompt_logprobs", "typical_p", "watermark", "top_n_tokens"}),
        penalised_logprobs=True,
    ),
    Claim(
        engine="vllm",
        environment="vllm",
        model="source",
        families=("llama",),  # test_vllm.py has the others, with fewer starts
        features=frozenset({"grammar", "prompt_logprobs", "top_n_tokens"}),
        penalised_logprobs=True,
    ),
)
CASES = tuple((claim, family) for claim in CLAIMS for family in claim.families)
"""Every engine with every family that it claims."""
FEW = tuple((claim, family) for claim, family in CASES if family in ("llama", "falcon-7b", "t5"))
"""For what does not depend on the architecture."""


def name_of(case: tuple[Claim, str]) -> str:
    claim, family = case
    return f"{claim.engine}-{family}"
