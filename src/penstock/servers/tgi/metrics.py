"""TGI's metrics, in Prometheus' text form and under the original's names.

Owns names, buckets and counting; those of single batches are `batches.py`'s. It must never know a request's content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

from penstock.servers.tgi.batches import Batches
from penstock.servers.tgi.settings import Settings

CONTENT_TYPE = "text/plain; version=0.0.4"
_DURATIONS = tuple(0.00015 * 1.5**power for power in range(35))


class Metrics:
    """One server's counts. `load` gives the engine's requests running and waiting, `text_s` the seconds spent on making text so far."""

    def __init__(
        self, settings: Settings, load: Callable[[], tuple[int, int]], text_s: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._registry = CollectorRegistry()
        self._counts: Counter[tuple[str, str]] = Counter()
        total, longest = settings.max_total_tokens, settings.max_input_length
        self.duration = self._histogram("duration", _DURATIONS)
        self.validation_duration = self._histogram("validation_duration", _DURATIONS)
        self.queue_duration = self._histogram("queue_duration", _DURATIONS)
        self.inference_duration = self._histogram("inference_duration", _DURATIONS)
        self.mean_time_per_token_duration = self._histogram("mean_time_per_token_duration", _DURATIONS)
        self.generated_tokens = self._histogram("generated_tokens", _hundredths(total))
        self.input_length = self._histogram("input_length", _hundredths(longest))
        self.max_new_tokens = self._histogram("max_new_tokens", _hundredths(total))
        self._gauge("tgi_queue_size", "Requests that wait", lambda: load()[1])
        self._gauge("tgi_batch_current_size", "Requests that run", lambda: load()[0])
        self.batches = Batches(settings, self._registry, self._add, _DURATIONS, text_s)
        self._reserved = 0
        self._gauge(
            "tgi_batch_current_max_tokens", "Tokens that requests have and may still get", lambda: self._reserved
        )

    def count(self, name: str, label: str = "") -> None:
        """Add one to a counter: `request_count`, `request_success`, or `request_failure` with its `err`."""
        self._add(name, f'err="{label}"' if label else "")

    def _add(self, name: str, labels: str) -> None:
        self._counts[name, labels] += 1

    @contextmanager
    def reserved(self, tokens: int) -> Iterator[None]:
        """While a request with so many tokens, prompt and answer together, is the engine's."""
        self._reserved += tokens
        try:
            yield
        finally:
            self._reserved -= tokens

    def render(self) -> bytes:
        """The page that Prometheus scrapes."""
        lines = []
        for name in sorted({name for name, _ in self._counts}):
            lines.append(f"# TYPE tgi_{name} counter")
            for (counted, labels), value in sorted(self._counts.items()):
                if counted == name:
                    lines.append(f"tgi_{name}{{{labels}}} {value}" if labels else f"tgi_{name} {value}")
        counters = "".join(line + "\n" for line in lines).encode()
        self.batches.settle()
        # The client library would add "_total" to a counter's name, which the original does not have.
        return counters + generate_latest(self._registry)

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"tgi_request_{name}", f"Request {name}", registry=self._registry, buckets=buckets)

    def _gauge(self, name: str, text: str, value: Callable[[], int]) -> None:
        Gauge(name, text, registry=self._registry).set_function(value)


def _hundredths(most: int) -> tuple[float, ...]:
    return tuple(most / 100 * part for part in range(1, 101))
