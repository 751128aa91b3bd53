"""Sticky sessions: which replica holds a session's state.

Owns the sessions of one Penstock home, in memory and in a file that all workers append to, so that a session opened through one worker
is found by the others and by their successors after a restart. It must never choose a replica or speak to one.
AWS's page: "Stateful sessions with Amazon SageMaker models".
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

NEW = "NEW_SESSION"
"""What a client sends as its session's id to open one."""
LONGEST_S = 24 * 3600.0
"""How long a session is remembered whose container names no end."""
COMPACT_BYTES = 1024 * 1024
"""Size at which the file is rewritten without what has ended, if that helps."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session and the replica that holds it. `expires` is seconds since the epoch; one in the past closes it."""

    id: str
    endpoint: str
    replica: str
    epoch: int
    expires: float


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Session)


class Sessions:
    """The sessions in the file at `path`, as far as this process has read it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[str, str], Session] = {}
        self._file = -1
        self._read_to = 0
        self._compact_at = COMPACT_BYTES

    def find(self, endpoint: str, session_id: str, now: float) -> Session | None:
        """The session of that endpoint (its ARN), None where there is none or its time is over. Raises OSError."""
        self._catch_up()
        session = self._known.get((endpoint, session_id))
        return session if session is not None and session.expires > now else None

    def remember(self, session: Session) -> None:
        """Keeps a session where every worker finds it. Raises OSError."""
        self._append(session)

    def forget(self, endpoint: str, session_id: str) -> None:
        """Ends a session. Raises OSError."""
        self._append(Session(session_id, endpoint, "", 0, 0.0))

    def _append(self, session: Session) -> None:
        with self._locked():
            self._catch_up()
            # A piece of a line, by a writer that died or found the disk full: it ends here.
            torn = os.fstat(self._file).st_size > self._read_to
            line = b"\n" * torn + _encoder.encode(session) + b"\n"
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            self._catch_up()
            if self._read_to > self._compact_at:
                self._compact()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody rewrites the file between our look at it and our line."""
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _catch_up(self) -> None:
        """Reads what others have written since; the whole file where it has been rewritten."""
        if self._file < 0 or (state := os.fstat(self._file)).st_nlink == 0:
            self._reopen()
        elif state.st_size == self._read_to:
            return
        while data := os.pread(self._file, 1 << 20, self._read_to):
            whole = data.rfind(b"\n") + 1
            if not whole:
                return  # a line that is being written
            self._read_to += whole
            for line in data[:whole].splitlines():
                self._take(line)

    def _reopen(self) -> None:
        self.close()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._read_to = 0
        self._known.clear()

    def _take(self, line: bytes) -> None:
        try:
            session = _decoder.decode(line)
        except msgspec.MsgspecError:
            return  # a line that a dying worker left half written
        if session.expires:
            self._known[session.endpoint, session.id] = session
        else:
            self._known.pop((session.endpoint, session.id), None)

    def _compact(self) -> None:
        now = datetime.now(UTC).timestamp()
        lines = [_encoder.encode(one) + b"\n" for one in self._known.values() if one.expires > now]
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(lines)
        fresh.replace(self._path)
        self._compact_at = max(COMPACT_BYTES, 2 * sum(map(len, lines)))
        self._catch_up()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read_new_session(header: str, now: float) -> tuple[str, float]:
    """Id and end (seconds since the epoch) of `<id>; Expires=2026-11-23T08:00:00Z`, the form in which containers announce a session."""
    session_id, _, rest = header.partition(";")
    name, _, text = rest.strip().partition("=")
    expires = now + LONGEST_S
    if name.strip().lower() == "expires":
        with suppress(ValueError):
            expires = datetime.strptime(text.strip(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    return session_id.strip(), min(expires, now + LONGEST_S)
