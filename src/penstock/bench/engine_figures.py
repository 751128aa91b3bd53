"""From what the engine's benchmark measured to its figures and the sentences beside them.

Owns the ratios, their names and what each is to reach. Pure; it must never measure.

A measurement's name is `kind/model/system/requests at once`, with as many values as there were rounds; value n of two systems is of the
same round. A ratio whose other side is missing is left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from penstock.bench import engine_models as models
from penstock.bench.report import Figure

SHAPES = ("llama", "falcon")
SIZES = (1, 4, 16, 32)
WEIGHT_BYTES = 2
"""In memory: the library keeps matrices in 16 bits, also where it multiplies in float32."""


class Values:
    """What was measured, by name."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def keep(self, name: str, value: float) -> None:
        self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> tuple[float, ...]:
        return tuple(self._values.get(name, ()))


def figures(values: Values) -> list[Figure]:
    """All that can be said."""
    found: list[Figure] = []
    for shape in SHAPES:
        found += _ratios(values, shape)
    for shape in SHAPES:
        found += _gains(values, shape)
    found += _plain(values)
    return found


def _ratios(values: Values, shape: str) -> list[Figure]:
    """The endpoint over each other system, for each number of requests."""
    found: list[Figure] = []
    for name, system, target, sizes in (
        ("endpoint_vs_engine", "engine", "≥ 0.95", SIZES),
        ("vs_transformers_cb", "transformers", "≥ 2.0", SIZES),
        ("vs_vllm_cpu", "vllm", "≥ 1.5", SIZES),
        ("vs_llamacpp", "llamacpp", "≥ 2.0", SIZES),
    ):
        for size in sizes:
            goal = "" if name == "vs_llamacpp" and size < 4 else target
            ratios = ratio(values[f"rate/{shape}/endpoint/{size}"], values[f"rate/{shape}/{system}/{size}"])
            found += _figure(f"{name}_{shape}_{size}", "times", ratios, goal)
    ratios = ratio(values[f"first/{shape}/endpoint/1"], values[f"first/{shape}/vllm/1"])
    return found + _figure(f"ttft_vs_vllm_cpu_{shape}_1", "times", ratios, "≤ 1.0")


def _gains(values: Values, shape: str) -> list[Figure]:
    """More requests over one, int8 over the weights as they are, and how near one request comes to what the memory gives."""
    many, one = values[f"rate/{shape}/endpoint/16"], values[f"rate/{shape}/endpoint/1"]
    found = []
    if many and one:
        # The rounds of one request and of sixteen are not the same: each of sixteen over the median of one.
        found += _figure(f"batching_gain_{shape}", "times", [rate / statistics.median(one) for rate in many], "≥ 4.5")
    int8 = ratio(values[f"rate/{shape}/int8/1"], one)
    found += _figure(f"int8_gain_{shape}", "times", int8, "≥ 1.3")
    weights = {"llama": models.LLAMA, "falcon": models.FALCON}[shape].read
    if bandwidth := values["bandwidth"]:
        limit = max(bandwidth) * 1e9 / (weights * WEIGHT_BYTES)
        shares = [rate / limit for rate in values[f"decode/{shape}/endpoint"]]
        found += _figure(f"bandwidth_share_{shape}", "times", shares, "")
    return found


def _plain(values: Values) -> list[Figure]:
    found = _figure("bandwidth_gb_s", "GB/s", values["bandwidth"], "")
    systems = ("endpoint", "engine", "int8", "transformers", "vllm", "llamacpp")
    for shape in SHAPES:
        for system in systems:
            for size in SIZES:
                found += _figure(f"{system}_{shape}_{size}", "tokens/s", values[f"rate/{shape}/{system}/{size}"], "")
            found += _figure(
                f"{system}_{shape}_ttft_ms", "ms", [1000 * s for s in values[f"first/{shape}/{system}/1"]], ""
            )
        for system in systems:
            found += _figure(f"{system}_{shape}_mb", "MB", values[f"memory/{shape}/{system}"], "")
        for who in ("serving", "client"):
            for size in SIZES:
                found += _figure(f"{who}_{shape}_{size}_us_a_token", "µs", values[f"busy/{shape}/{who}/{size}"], "")
        for how in ("cold", "cached"):
            found += _figure(f"load_{how}_{shape}_s", "s", values[f"load_{how}/{shape}"], "")
    for context in (128, 512, 1024, 2048, 4096):
        found += _figure(f"context_{context}", "tokens/s", values[f"context/{context}"], "")
    return found


def ratio(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round, as far as both have gone."""
    return [one / other for one, other in zip(over, under, strict=False)]


def _figure(name: str, unit: str, values: Iterable[float], target: str) -> list[Figure]:
    known = tuple(values)
    return [Figure(name, unit, known, target)] if known else []


def notes(
    dtype: str, rounds: Mapping[int, int], pairs: int, absent: Sequence[str], load_before: float, seconds: float
) -> tuple[str, ...]:
    """What a reader needs to know beside the table."""
    shown = ", ".join(f"{count} of {size}" for size, count in rounds.items())
    text = [
        "Llama: 768 wide, 12 layers, 12 heads over 4, 2,048 in the middle, 32,000 tokens, untied (125 M weights, of which "
        "100 M are read for a token). Falcon: as 7B's, one key-value head, attention beside the feed-forward, tied (97 M). "
        "Random bfloat16 weights, no end token. 128 tokens in, 64 out, greedy. "
        f"Rounds, at most: {shown} at once, and {pairs} more of the endpoint and the engine alone. "
        f"The machine's load before the run was {load_before:.1f}; the run took {seconds / 60:.0f} minutes.",
        "",
        "Same cores: every system has the same two cores, clients included, and one thread a core; nobody is pinned to one of "
        "them. Who is not being measured is stopped. "
        f"Everybody computes in {dtype}, what this processor has instructions for, from the same 16-bit weights; the library and "
        "llama.cpp keep them in 16 bits in memory too. The endpoint is asked over TLS with signed requests and read as an event stream, "
        "the others over plain HTTP as server-sent events; Llama is behind LMI (`jsonlines`), Falcon behind TGI. `engine` is the "
        "library in a process of its own, given token ids, with the pipeline's settings as the product has them.",
        "",
        "`vs_…`, `endpoint_vs_engine`: output tokens a second. `ttft`: median over the requests. `batching_gain`: 16 requests "
        "over 1. `int8_gain`: `HF_MODEL_QUANTIZE=int8` over the weights as they are. "
        "`bandwidth_share`: decoding one request over what the memory's read bandwidth allows, if each weight were read "
        "once, in the two bytes that it has in memory. `context_…`: decoding one request after so many tokens of prompt. `load_cold` has "
        "the conversion in it. `serving_…`: CPU time a token of all of Penstock's processes but the engine's, `client_…`: of the "
        "benchmark's clients, both taken from the engine's two cores. Memory is PSS after the rounds, key-value cache included; the "
        "endpoint's is what the deployment added.",
    ]
    if absent:
        text += ["", "Left out: " + "; ".join(absent) + "."]
    return tuple(text)
