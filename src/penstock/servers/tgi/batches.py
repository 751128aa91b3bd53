"""TGI's metrics of single batches: here a batch is one step of the engine.

Owns their names, labels and buckets, and what a step counts for. It must never know a request. A step costs a handful of additions,
however many tokens it gave; only where tokens are guessed ahead is the request of each one looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.engines.base import Token
from penstock.engines.messages import Message
from penstock.engines.steps import Step
from penstock.servers.tgi.settings import Settings

_SIZES = tuple(float(size) for size in range(1, 1025))


class Batches:
    """One server's counts. `count` adds one to a counter: its name without `tgi_`, and its labels as they are written."""

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry,
        count: Callable[[str, str], None],
        durations: tuple[float, ...],
        text_s: Callable[[], float],
    ) -> None:
        """`text_s`: seconds spent so far on making text of tokens."""
        self._count = count
        duration = Histogram(
            "tgi_batch_inference_duration", "Seconds of a step", ["method"], registry=registry, buckets=durations
        )
        self._prefill, self._decode = duration.labels("prefill"), duration.labels("decode")
        self._parts = _Parts(registry, durations, text_s) if settings.level.tells_parts_of_steps else None
        self._next_size = Histogram(
            "tgi_batch_next_size", "Requests that a step began", registry=registry, buckets=_SIZES
        )
        self._joins = settings.level.batches_join
        self._skipped: _Skipped | None = None
        if settings.level.tells_skipped_tokens:
            self._skipped = _Skipped(settings.speculate)
            registry.register(self._skipped)

    def done(self, step: Step) -> None:
        """As in TGI 3, a step that began a request is a prefill, whatever else went on in it."""
        method = 'method="prefill"' if step.began else 'method="decode"'
        self._count("batch_inference_count", method)
        self._count("batch_inference_success", method)
        if step.began:
            self._prefill.observe(step.seconds)
            self._next_size.observe(step.began)
            if step.joined and self._joins:
                self._count("batch_concat", 'reason="chunking"')
        else:
            self._decode.observe(step.seconds)
        if self._parts:
            self._parts.add(step)
        if self._skipped:
            self._skipped.add(step.messages)

    def settle(self) -> None:
        """Before the numbers are read."""
        if self._parts:
            self._parts.settle()

    def failed(self, *, prefill: bool) -> None:
        """A step under which the engine died."""
        method = 'method="prefill"' if prefill else 'method="decode"'
        self._count("batch_inference_count", method)
        self._count("batch_inference_failure", method)


class _Parts:
    """What went where of a step's time. A step's text is made after it, mostly before the next one, whose coming ends its account."""

    def __init__(self, registry: CollectorRegistry, durations: tuple[float, ...], text_s: Callable[[], float]) -> None:
        def histogram(name: str, about: str) -> dict[str, Histogram]:
            made = Histogram(f"tgi_batch_{name}_duration", about, ["method"], registry=registry, buckets=durations)
            return {method: made.labels(method) for method in ("prefill", "decode")}

        self._forward = histogram("forward", "Seconds of a step in the model")
        self._decode = histogram("decode", "Seconds of a step from the model's numbers to text")
        self._filter = histogram("filter", "Seconds of a step to hand its tokens out")
        self._text_s = text_s
        self._text_before: float | None = None
        self._open: tuple[str, float] | None = None

    def add(self, step: Step) -> None:
        self.settle()
        if self._text_before is None:
            self._text_before = self._text_s()
        method = "prefill" if step.began else "decode"
        self._forward[method].observe(step.forward)
        self._filter[method].observe(step.handing_out)
        self._open = method, step.decode

    def settle(self) -> None:
        """What text was made by now is the last step's."""
        if self._open and self._text_before is not None:
            (method, decode), text = self._open, self._text_s()
            self._decode[method].observe(decode + text - self._text_before)
            self._open, self._text_before = None, text


class _Skipped(Collector):
    """How many tokens more than one each request got in a step: those guessed right."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: Counter[int] = Counter()

    def add(self, messages: Sequence[Message]) -> None:
        if not self._most:  # each request gets one token in a step
            self._times[1] += sum(isinstance(message, Token) for message in messages)
            return
        per_request = Counter(message.id for message in messages if isinstance(message, Token))
        self._times.update(per_request.values())

    def collect(self) -> Iterator[Metric]:
        """Cumulative buckets 0 … SPECULATE, and all."""
        tokens = sorted(self._times.items())
        buckets = [
            (f"{bound:.1f}", sum(times for given, times in tokens if given - 1 <= bound))
            for bound in range(self._most + 1)
        ]
        every = sum(times for _, times in tokens)
        yield HistogramMetricFamily(
            "tgi_request_skipped_tokens",
            "Tokens more than one that a request got in a step",
            buckets=[*buckets, ("+Inf", every)],
            sum_value=sum((given - 1) * times for given, times in tokens),
        )
