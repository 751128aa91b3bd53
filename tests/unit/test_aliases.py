"""Aliases survive a second writer, a damaged file and a ring."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from penstock import aliases


def test_a_directory_is_kept_absolute_and_replaces_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path)
    aliases.write(tmp_path / "models", "tiiuae/falcon-7b-instruct", "one")
    aliases.write(tmp_path / "models", "tiiuae/falcon-7b-instruct", Path("two"))
    assert aliases.read(tmp_path / "models")["tiiuae/falcon-7b-instruct"] == tmp_path / "two"
    assert json.loads((tmp_path / "models/aliases.json").read_text()) == {
        "tiiuae/falcon-7b-instruct": str(tmp_path / "two")
    }
    assert [entry.name for entry in (tmp_path / "models").iterdir() if entry.name.startswith(".aliases-")] == []


def test_an_alias_of_the_bundled_model_follows_it(tmp_path: Path) -> None:
    aliases.write(tmp_path, "tiiuae/falcon-7b-instruct", "penstock/falcon-demo")
    known = aliases.read(tmp_path)
    assert known["tiiuae/falcon-7b-instruct"] == known["penstock/falcon-demo"]
    assert known["penstock/falcon-demo"].parts[-3:] == ("penstock", "models", "falcon-demo")


def test_without_a_file_only_the_built_in_alias_is_known(tmp_path: Path) -> None:
    assert set(aliases.read(tmp_path / "nowhere")) == {"penstock/falcon-demo"}


def test_remove_tells_whether_it_was_there(tmp_path: Path) -> None:
    aliases.write(tmp_path, "a/b", tmp_path)
    assert aliases.remove(tmp_path, "a/b") is True
    assert aliases.remove(tmp_path, "a/b") is False
    assert "a/b" not in aliases.read(tmp_path)


@pytest.mark.parametrize("hub_id", ["", "/etc", "../x", "a/../b", "a/b/c", "a b", "s3://x/y", "a/..", "-x"])
def test_what_is_no_hub_id_is_refused(hub_id: str, tmp_path: Path) -> None:
    with pytest.raises(aliases.AliasError, match="is not a hub id"):
        aliases.write(tmp_path, hub_id, tmp_path)
    assert not (tmp_path / "aliases.json").exists()


def test_a_target_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(aliases.AliasError, match="neither a directory nor an alias"):
        aliases.write(tmp_path, "a/b", tmp_path / "missing")


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', "\xff"])
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "aliases.json").write_text(content, encoding="latin-1")
    with pytest.raises(aliases.AliasError, match=r"aliases\.json"):
        aliases.read(tmp_path)


def test_a_ring_ends(tmp_path: Path) -> None:
    (tmp_path / "aliases.json").write_text('{"a/a": "b/b", "b/b": "a/a"}')
    assert set(aliases.read(tmp_path)) == {"penstock/falcon-demo", "a/a", "b/b"}


def _write_many(models: str, who: int) -> None:
    for number in range(20):
        aliases.write(Path(models), f"writer/{who}-{number}", models)


def test_writers_in_several_processes_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(str(tmp_path), who)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(aliases.read(tmp_path)) == 1 + 3 * 20
