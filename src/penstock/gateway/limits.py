"""The queue before a variant whose replicas are all busy.

Owns who waits and in which order; it is bounded, so that more load than can ever be served is told at once. It must never choose a replica.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from penstock.errors import AwsError
from penstock.gateway.upstream import Target


class Waiter(Protocol):
    """A request that waits for a replica. `go_on` is called when one that it accepts has room, and when the table has changed."""

    def accepts(self, target: Target) -> bool:
        """Whether that replica would do: a session has but one, and nobody goes twice to one that refused."""
        ...

    def go_on(self, freed: Target | None) -> None:
        """`freed` has room; whoever cannot use it after all gives it back to the queue. None: look anew."""


class Queue:
    """One variant's waiting requests, oldest first."""

    __slots__ = ("_waiting", "bound")

    def __init__(self) -> None:
        self._waiting: deque[Waiter] = deque()
        self.bound = 0
        """As many may wait as can be in flight: one more round of work."""

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, waiter: Waiter, *, first: bool = False) -> None:
        """Waits for a turn; `first` for one whose turn had come. Raises AwsError (ServiceUnavailable, 503) when the queue is full."""
        if first:
            self._waiting.appendleft(waiter)
        elif len(self._waiting) < self.bound:
            self._waiting.append(waiter)
        else:
            raise AwsError(
                "ServiceUnavailable",
                "All replicas are busy and the queue before them is full. Send the request again later.",
                status=503,
                members={"ErrorCode": "QUEUE_FULL"},
            )

    def leave(self, waiter: Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def wants(self, target: Target) -> bool:
        """Whether somebody waits for that replica's room: nobody overtakes those."""
        return any(waiter.accepts(target) for waiter in self._waiting)

    def freed(self, target: Target) -> None:
        """A replica has room again: the oldest of those that it would do for goes on."""
        for waiter in self._waiting:
            if waiter.accepts(target):
                self._waiting.remove(waiter)
                waiter.go_on(target)
                return

    def changed(self) -> None:
        """The variant's replicas are others now: everybody looks anew, in order."""
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            waiter.go_on(None)


def full_at(max_concurrency: int, workers: int) -> int:
    """A worker's share of a replica's limit, at least one; 0 stands for no limit."""
    return -(-max_concurrency // max(workers, 1)) if max_concurrency > 0 else 0
