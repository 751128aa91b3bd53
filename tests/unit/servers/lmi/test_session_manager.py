"""The sessions of `djl_python`: what a handler puts into one, its end, and ids that are none."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from penstock.servers.lmi.djl_python import SessionManager
from tests.waiting import until


def manager(path: Path, **options: str) -> SessionManager:
    return SessionManager({"sessions_path": str(path / "sessions"), **options})


def test_what_is_put_is_there_for_every_process(tmp_path: Path) -> None:
    session = manager(tmp_path).create_session()
    session.put("a/b", {"x": [1]})
    session.put("a/b", {"x": [2]})
    found = manager(tmp_path).get_session(session.session_id)
    assert found is not None
    assert found.get("a/b") == {"x": [2]}
    assert found.get("other", 5) == 5
    assert found.expiration_ts == session.expiration_ts
    assert 1190 < session.expiration_ts - time.time() <= 1200


def test_an_array_lives_in_its_file(tmp_path: Path) -> None:
    session = manager(tmp_path).create_session()
    session.get_as_numpy("state", (2, 3), create=True).fill(7)
    again = session.get_as_numpy("state", (2, 3))
    assert np.array_equal(again, np.full((2, 3), 7, dtype=np.float32))


def test_a_closed_session_is_gone_with_all_it_held(tmp_path: Path) -> None:
    sessions = manager(tmp_path)
    session = sessions.create_session()
    session.put("x", 1)
    sessions.close_session(session.session_id)
    assert list((tmp_path / "sessions").iterdir()) == []
    for call in (sessions.get_session, sessions.close_session):
        with pytest.raises(ValueError, match=f"session not found: {session.session_id}"):
            call(session.session_id)


def test_a_session_whose_time_is_over_is_none_and_then_cleared_away(tmp_path: Path) -> None:
    sessions = manager(tmp_path, sessions_expiration="1")
    old = sessions.create_session()
    until(lambda: sessions.get_session(old.session_id) is None, deadline_s=10, what="the session ends")
    new = sessions.create_session()
    assert [entry.name for entry in (tmp_path / "sessions").iterdir()] == [new.session_id]


@pytest.mark.parametrize("session_id", ["..", "../other", "", "x", ".beginning-x", "0" * 36])
def test_an_id_is_never_a_path(session_id: str, tmp_path: Path) -> None:
    sessions = manager(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/.expiration_ts").write_text("9e9")
    with pytest.raises(ValueError, match="session"):
        sessions.close_session(session_id)
    assert (tmp_path / "other").is_dir()


def test_no_id_is_no_session(tmp_path: Path) -> None:
    assert manager(tmp_path).get_session(None) is None
    assert manager(tmp_path).get_session("NEW_SESSION") is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"sessions_expiration": "0"}, "above 0"), ({"sessions_s3url": "s3://b/p"}, "sessions_s3url is not supported")],
)
def test_options_that_cannot_be_kept(options: dict[str, str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        manager(tmp_path, **options)
