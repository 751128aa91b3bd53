"""The credentials file."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.control.keys import BadCredentials, read_keys

GOOD = "[default]\naws_access_key_id = AKIA1\naws_secret_access_key = s%cr=t/+\n"


def test_every_profile_is_a_key(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text(GOOD + "[other]\naws_access_key_id=AKIA2\naws_secret_access_key=x\naws_session_token=t\n")
    first, second = read_keys(path, "123456789012", "arn:x")
    assert (first.id, first.secret, first.account, first.arn) == ("AKIA1", "s%cr=t/+", "123456789012", "arn:x")
    assert (second.id, second.session_token) == ("AKIA2", "t")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no profile"),
        ("[default]\naws_access_key_id = AKIA1\n", r"\[default\] lacks"),
        ("AKIA1:hunter2\n", "not a credentials file"),
        ("[a]\nx\n", "not a credentials file"),
    ],
)
def test_a_file_that_can_not_be_used_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "credentials"
    path.write_text(text)
    with pytest.raises(BadCredentials, match=words) as caught:
        read_keys(path, "1", "arn")
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadCredentials, match="credentials: No such file"):
        read_keys(tmp_path / "credentials", "1", "arn")
