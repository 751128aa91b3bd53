"""What an engine's steps count for on the page of metrics."""

from __future__ import annotations

import pytest

from penstock.engines.base import Finish, Token
from penstock.engines.messages import Message
from penstock.engines.steps import Step
from penstock.servers.tgi.metrics import Metrics
from penstock.servers.tgi.settings import read

PARTS = ("tgi_batch_forward", "tgi_batch_decode", "tgi_batch_filter", "tgi_batch_concat")


def metrics(version: str, **environ: str) -> Metrics:
    return Metrics(read({"HF_MODEL_ID": "org/model", **environ}, version).within(100), lambda: (0, 0))


def values(it: Metrics) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in it.render().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def step(seconds: float, began: int = 0, *, joined: bool = False, messages: tuple[Message, ...] = ()) -> Step:
    return Step(seconds, began, joined, messages, seconds / 2, seconds / 4, seconds / 8)


@pytest.mark.parametrize(("version", "joins"), [("1.0.3", None), ("2.4.0", None), ("3.3.7", 1)])
def test_steps_are_batches(version: str, joins: float | None) -> None:
    it = metrics(version)
    for each in (step(0.5, 2), step(0.25), step(0.25), step(1.0, 1, joined=True)):
        it.batches.done(each)
    it.batches.failed(prefill=False)
    found = values(it)
    assert found['tgi_batch_inference_count{method="prefill"}'] == 2
    assert found['tgi_batch_inference_success{method="prefill"}'] == 2
    assert found['tgi_batch_inference_count{method="decode"}'] == 3
    assert found['tgi_batch_inference_success{method="decode"}'] == 2
    assert found['tgi_batch_inference_failure{method="decode"}'] == 1
    assert 'tgi_batch_inference_failure{method="prefill"}' not in found
    assert found['tgi_batch_inference_duration_sum{method="prefill"}'] == 1.5
    assert found['tgi_batch_inference_duration_count{method="decode"}'] == 2
    assert found['tgi_batch_next_size_bucket{le="1.0"}'] == 1
    assert found['tgi_batch_next_size_bucket{le="2.0"}'] == 2
    assert found["tgi_batch_next_size_sum"] == 3
    assert found.get('tgi_batch_concat{reason="chunking"}') == joins


def test_parts_of_steps() -> None:
    text = 10.0  # so much the warm-up had
    settings = read({"HF_MODEL_ID": "org/model"}, "1.3.3").within(100)
    it = Metrics(settings, lambda: (0, 0), lambda: text)
    it.batches.done(step(0.5, 2))
    text += 1.0
    it.batches.done(step(0.25))
    text += 2.0
    found = values(it)
    for method, took, own in (("prefill", 0.5, 1.0), ("decode", 0.25, 2.0)):
        assert found[f'tgi_batch_forward_duration_sum{{method="{method}"}}'] == took / 2
        assert found[f'tgi_batch_decode_duration_sum{{method="{method}"}}'] == took / 4 + own
        assert found[f'tgi_batch_filter_duration_sum{{method="{method}"}}'] == took / 8
        for part in ("forward", "decode", "filter"):
            assert found[f'tgi_batch_{part}_duration_count{{method="{method}"}}'] == 1
    assert values(it) == found, "to look changes nothing"
    text += 4.0  # of the last step's, after somebody had looked: the next one's account has it
    it.batches.done(step(0.25))
    assert values(it)['tgi_batch_decode_duration_sum{method="decode"}'] == 2.0 + 4.0 + 0.125


def test_parts_of_steps_are_later_than_the_first_level() -> None:
    for version, there in (("1.0.3", False), ("1.3.2", False), ("1.3.3", True), ("3.3.7", True)):
        it = metrics(version)
        it.batches.done(step(0.5, 1))
        names = [name for name in values(it) if name.split("_duration")[0] in PARTS]
        assert bool(names) is there, version


def test_tokens_that_were_guessed_right() -> None:
    it = metrics("3.3.7", SPECULATE="2")
    a, b = Token(1, 5, -0.5), Token(2, 5, -0.5)
    it.batches.done(step(0.5, 2, messages=(a, b)))
    it.batches.done(step(0.5, messages=(a, a, a, b, Finish(2, "length"))))
    found = values(it)
    buckets = [found[f'tgi_request_skipped_tokens_bucket{{le="{bound}"}}'] for bound in ("0.0", "1.0", "2.0", "+Inf")]
    assert buckets == [3, 3, 4, 4]
    assert (found["tgi_request_skipped_tokens_sum"], found["tgi_request_skipped_tokens_count"]) == (2, 4)
    earlier = metrics("1.2.0", SPECULATE="2")
    earlier.batches.done(step(0.5, messages=(a,)))
    assert not any("skipped" in name for name in values(earlier))


def test_without_guesses_no_token_is_skipped() -> None:
    it = metrics("1.3.0")
    a, b = Token(1, 5, -0.5), Token(2, 5, -0.5)
    it.batches.done(step(0.5, 2, messages=(a, b)))
    it.batches.done(step(0.5, messages=(a, b, Finish(2, "length"))))
    found = values(it)
    assert [found[f'tgi_request_skipped_tokens_bucket{{le="{bound}"}}'] for bound in ("0.0", "+Inf")] == [4, 4]
    assert (found["tgi_request_skipped_tokens_sum"], found["tgi_request_skipped_tokens_count"]) == (0, 4)
