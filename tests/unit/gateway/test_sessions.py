"""The sessions' file: shared by processes, rewritten when it has grown, and proof against a line cut short."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from penstock.gateway import sessions
from penstock.gateway.sessions import LONGEST_S, Session, Sessions, read_new_session


def session(number: int, expires: float = 100.0) -> Session:
    return Session(f"s{number}", "arn", "replica", 1, expires)


def test_what_one_remembers_the_other_finds(tmp_path: Path) -> None:
    one, other = (Sessions(tmp_path / "s.jsonl") for _ in range(2))
    assert other.find("arn", "s1", 0.0) is None
    one.remember(session(1))
    assert other.find("arn", "s1", 0.0) == session(1)
    assert other.find("another arn", "s1", 0.0) is None
    assert other.find("arn", "s1", 100.0) is None
    other.forget("arn", "s1")
    one.remember(session(2))
    assert one.find("arn", "s1", 0.0) is None
    assert stat.S_IMODE((tmp_path / "s.jsonl").stat().st_mode) == 0o600
    one.close()
    other.close()


def test_a_closed_session_is_closed_for_every_worker(tmp_path: Path) -> None:
    one, other = (Sessions(tmp_path / "s.jsonl") for _ in range(2))
    one.remember(session(1))
    assert other.find("arn", "s1", 0.0)
    one.forget("arn", "s1")
    assert other.find("arn", "s1", 0.0) is None
    one.close()
    other.close()


def test_the_file_is_rewritten_without_the_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "COMPACT_BYTES", 2000)
    path = tmp_path / "s.jsonl"
    one, other = (Sessions(path) for _ in range(2))
    later = 4_000_000_000.0
    one.remember(session(0, later))
    assert other.find("arn", "s0", 0.0)
    for number in range(1, 500):
        one.remember(session(number))
    assert path.stat().st_size < 5000
    assert other.find("arn", "s0", 0.0) == session(0, later)
    other.remember(session(500, later))
    assert one.find("arn", "s500", 0.0) == session(500, later)
    one.close()
    other.close()


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"id": "half", "endp\n')
    one = Sessions(path)
    one.remember(session(1))
    assert one.find("arn", "s1", 0.0)
    one.close()


def test_a_line_that_a_dying_worker_left_unended_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    one, other = (Sessions(path) for _ in range(2))
    one.remember(session(1))
    with path.open("ab") as file:
        file.write(b'{"id": "half", "endp')
    one.remember(session(2))
    other.forget("arn", "s1")
    for reader in (one, other, fresh := Sessions(path)):
        assert reader.find("arn", "s1", 0.0) is None
        assert reader.find("arn", "s2", 0.0) == session(2)
    for sessions_of in (one, other, fresh):
        sessions_of.close()


def test_a_line_that_does_not_fit_on_the_disk_is_an_error_and_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Sessions(tmp_path / "s.jsonl")
    one.remember(session(1))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
        with pytest.raises(OSError, match="No space left"):
            one.remember(session(2))
    assert one.find("arn", "s2", 0.0) is None
    one.remember(session(3))
    assert one.find("arn", "s1", 0.0) == session(1)
    assert one.find("arn", "s3", 0.0) == session(3)
    one.close()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("abc; Expires=1970-01-01T00:01:40Z", ("abc", 100.0)),
        ("abc;expires=1970-01-01T00:01:40Z", ("abc", 100.0)),
        ("abc", ("abc", LONGEST_S)),
        ("abc; Expires=whenever", ("abc", LONGEST_S)),
        ("abc; Expires=2970-01-01T00:00:00Z", ("abc", LONGEST_S)),
    ],
)
def test_how_containers_announce_a_session(header: str, expected: tuple[str, float]) -> None:
    assert read_new_session(header, 0.0) == expected
