"""Sessions of a model that remembers: a directory each, with what a handler puts into it.

Several processes of a handler may share the sessions: a session appears and disappears whole.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from typing import Any

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EXPIRES = ".expiration_ts"


class Session:
    """One session, for as long as its directory is there."""

    def __init__(self, session_id: str, session_root: str, expiration_ts: float) -> None:
        self.session_id = session_id
        self.files_path = os.path.join(session_root, session_id)
        self.expiration_ts = expiration_ts

    def put(self, key: str, value: Any) -> None:
        """Keep a value; one of the same key is replaced whole, whoever reads it meanwhile."""
        data = pickle.dumps(value)
        with tempfile.NamedTemporaryFile(dir=self.files_path, prefix=".put-", delete=False) as file:
            file.write(data)
        os.replace(file.name, self._path(key))

    def get(self, key: str, d: Any = None) -> Any:
        """The value of a key, or `d`."""
        try:
            with open(self._path(key), "rb") as file:
                return pickle.load(file)  # noqa: S301  what the handler itself has put there
        except FileNotFoundError:
            return d

    def get_as_numpy(self, key: str, shape: tuple[int, ...], dtype: Any = None, create: bool = False) -> Any:
        """An array (float32 unless told otherwise) that lives in the session's file; `create` makes it anew, all zeros."""
        import numpy

        if create:
            open(self._path(key), "wb").close()
        return numpy.memmap(self._path(key), dtype=dtype or numpy.float32, mode="r+", shape=shape)

    def remove(self) -> bool:
        """Take it away with all it holds. Raises ValueError when it is gone already."""
        closing = os.path.join(os.path.dirname(self.files_path), f".closing-{uuid.uuid4()}")
        try:
            os.rename(self.files_path, closing)
        except FileNotFoundError:
            raise ValueError(f"session not found: {self.session_id}") from None
        shutil.rmtree(closing, ignore_errors=True)
        return True

    def _path(self, key: str) -> str:
        return os.path.join(self.files_path, key.replace("/", "-"))


class SessionManager:
    """All sessions below one directory. `properties` are a model's options.

    `sessions_expiration` (seconds, 1200) and `sessions_path` are read; `sessions_s3url` is refused. Without a path the sessions lie in
    the temporary directory, which a replica has for itself and which goes with it.
    """

    def __init__(self, properties: Mapping[str, str]) -> None:
        self.expiration = int(properties.get("sessions_expiration", "1200"))
        if self.expiration < 1:
            raise ValueError("sessions_expiration must be a whole number above 0")
        if properties.get("sessions_s3url"):
            raise ValueError("sessions_s3url is not supported: sessions live as long as their replica")
        default = os.path.join(tempfile.gettempdir(), "djl_sessions")
        self.sessions_path = properties.get("sessions_path") or default
        os.makedirs(self.sessions_path, mode=0o700, exist_ok=True)

    def create_session(self) -> Session:
        """A new session; those whose time is over are cleared away first."""
        self._clear()
        session = Session(str(uuid.uuid4()), self.sessions_path, time.time() + self.expiration)
        beginning = os.path.join(self.sessions_path, f".beginning-{session.session_id}")
        os.mkdir(beginning, mode=0o700)
        with open(os.path.join(beginning, _EXPIRES), "w", encoding="ascii") as file:
            file.write(repr(session.expiration_ts))
        os.rename(beginning, session.files_path)
        return session

    def get_session(self, session_id: str | None) -> Session | None:
        """The session of an id; None without an id, and when its time is over. Raises ValueError on an id that is none."""
        if not session_id or session_id == "NEW_SESSION":
            return None
        session = self._find(session_id)
        return session if time.time() <= session.expiration_ts else None

    def close_session(self, session_id: str | None) -> None:
        """Raises ValueError on an id that is none."""
        if not session_id:
            raise ValueError(f"invalid session_id: {session_id}")
        self._find(session_id).remove()

    def _find(self, session_id: str) -> Session:
        try:
            if not _ID.fullmatch(session_id):  # it becomes a path
                raise ValueError
            with open(os.path.join(self.sessions_path, session_id, _EXPIRES), encoding="ascii") as file:
                return Session(session_id, self.sessions_path, float(file.read()))
        except (OSError, ValueError):
            raise ValueError(f"session not found: {session_id}") from None

    def _clear(self) -> None:
        for name in os.listdir(self.sessions_path):
            try:
                session = self._find(name)
                if time.time() > session.expiration_ts:
                    session.remove()
            except ValueError:
                continue  # no session, or another process was faster
