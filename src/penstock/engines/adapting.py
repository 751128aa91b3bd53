"""Adapters that come and go while an engine runs, seen from the front.

Owns what was changed since the engine's start, so that a restarted engine is told again, and who waits for which answer. Pure but for
futures; it must never know the socket.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from penstock.engines.base import AdapterChanged, AddAdapter, EngineError, EngineGone, EngineInfo, RemoveAdapter

Change = AddAdapter | RemoveAdapter


class Adapting:
    """Of one engine."""

    def __init__(self) -> None:
        self._asked: dict[int, tuple[Change, asyncio.Future[None]]] = {}
        self._done: dict[str, Change] = {}
        """The last change of each name."""
        self._applied: tuple[EngineInfo, EngineInfo] | None = None

    def ask(self, change: Change) -> asyncio.Future[None]:
        """Done when the engine has done it. Raises EngineError with the engine's reason, EngineGone."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[change.id] = (change, answer)
        return answer

    def forget(self, change: Change) -> None:
        """Nobody waits for it any more."""
        self._asked.pop(change.id, None)

    def answered(self, message: AdapterChanged) -> None:
        """The engine's answer. One that a restarted engine can't take again is gone, and the log says so."""
        if (asked := self._asked.pop(message.id, None)) is None:
            self._lost(message)
            return
        change, answer = asked
        if not message.error:
            self._done[change.name] = change
            self._applied = None
        if answer.done():
            return
        if message.error:
            answer.set_exception(EngineError(message.error))
        else:
            answer.set_result(None)

    def again(self) -> list[Change]:
        """What an engine must be told that has just started."""
        self._applied = None
        # Removals first: they make room.
        return sorted(self._done.values(), key=lambda change: isinstance(change, AddAdapter))

    def applied(self, info: EngineInfo) -> EngineInfo:
        """What the engine says of itself, with the adapters that it has now."""
        if not self._done:
            return info
        if self._applied is None or self._applied[0] is not info:
            kept = [name for name in info.adapters if not isinstance(self._done.get(name), RemoveAdapter)]
            added = [each.name for each in self._done.values() if isinstance(each, AddAdapter)]
            self._applied = (info, replace(info, adapters=tuple(dict.fromkeys([*kept, *added]))))
        return self._applied[1]

    def fail(self, gone: EngineGone) -> None:
        """The engine is gone, and with it whatever it was asked."""
        for _, answer in self._asked.values():
            if not answer.done():
                answer.set_exception(gone)
        self._asked.clear()

    def _lost(self, message: AdapterChanged) -> None:
        for name, change in list(self._done.items()):
            if change.id == message.id and isinstance(change, AddAdapter) and message.error:
                # It stays away, also where one of the start had its name.
                self._done[name] = RemoveAdapter(change.id, name)
                self._applied = None
                print(f"the adapter {name} is gone: {message.error}", file=sys.stderr, flush=True)
