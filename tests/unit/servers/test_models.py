"""What HF_MODEL_ID and option.model_id may be, and what each wrong one is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import aliases
from penstock.servers import models
from penstock.servers.models import ModelUnavailable
from tests.unit.servers.s3stub import S3Stub, serving

USABLE = ("openvino_model.xml", "openvino_model.bin", "tokenizer.json")


def usable(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in USABLE:
        (directory / name).write_text(name)
    return directory


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PENSTOCK_MODELS": str(tmp_path / "models"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def s3() -> Iterator[S3Stub]:
    with serving() as stub:
        yield stub


def test_a_directory(tmp_path: Path, environ: dict[str, str]) -> None:
    assert models.resolve(str(usable(tmp_path / "m")), "", environ) == tmp_path / "m"


def test_opt_ml_model_is_the_replicas_own_directory(tmp_path: Path, environ: dict[str, str]) -> None:
    environ["PENSTOCK_MODEL_DIR"] = str(tmp_path / "replica")
    usable(tmp_path / "replica")
    usable(tmp_path / "replica/inner")
    assert models.resolve("/opt/ml/model", "", environ) == tmp_path / "replica"
    assert models.resolve("/opt/ml/model/inner", "", environ) == tmp_path / "replica/inner"


def test_an_alias_comes_before_the_hub(tmp_path: Path, environ: dict[str, str]) -> None:
    usable(tmp_path / "mine")
    aliases.write(tmp_path / "models", "tiiuae/falcon-7b-instruct", tmp_path / "mine")
    assert models.resolve("tiiuae/falcon-7b-instruct", "eb410fb6", environ) == tmp_path / "mine"


def test_an_alias_whose_directory_has_gone_is_named(tmp_path: Path, environ: dict[str, str]) -> None:
    usable(tmp_path / "mine")
    aliases.write(tmp_path / "models", "a/b", tmp_path / "mine")
    (tmp_path / "mine").rename(tmp_path / "moved")
    with pytest.raises(ModelUnavailable, match=r"the alias of a/b names .*mine, which is not a directory"):
        models.resolve("a/b", "", environ)


@pytest.mark.parametrize(("revision", "expected"), [("", "c1"), ("main", "c1"), ("c2", "c2"), ("v2", "c2")])
def test_a_snapshot_in_the_hubs_cache(revision: str, expected: str, tmp_path: Path, environ: dict[str, str]) -> None:
    folder = tmp_path / "hf/hub/models--org--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("c1")
    (folder / "refs/v2").write_text("c2\n")
    for commit in ("c1", "c2"):
        (usable(folder / "snapshots" / commit) / "config.json").write_text("{}")
    assert models.resolve("org/name", revision, environ).name == expected


def test_a_hub_id_that_cannot_be_had_says_what_to_do(environ: dict[str, str]) -> None:
    with pytest.raises(
        ModelUnavailable,
        match=r"run `penstock models alias tiiuae/falcon-7b DIR`, or name a directory or an s3:// prefix",
    ):
        models.resolve("tiiuae/falcon-7b", "", environ)


def test_a_hub_that_cannot_be_reached_says_so(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    del environ["HF_HUB_OFFLINE"]
    environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    with pytest.raises(ModelUnavailable, match=r"tiiuae/falcon-7b .*hub can't be reached: run `penstock models alias"):
        models.resolve("tiiuae/falcon-7b", "", environ)


@pytest.mark.parametrize(
    ("model_id", "reason"),
    [
        ("", "no model is named: set HF_MODEL_ID"),
        ("  ", "no model is named"),
        ("/no/such/directory", "/no/such/directory is not a directory"),
        ("./nothing", "is not a directory"),
        ("a/b/c/d", "neither a directory, an s3:// prefix nor a hub id"),
        ("s3://", "names no bucket"),
    ],
)
def test_what_cannot_be_a_model(model_id: str, reason: str, environ: dict[str, str]) -> None:
    with pytest.raises(ModelUnavailable, match=reason):
        models.resolve(model_id, "", environ)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "is empty"),
        (("readme.md",), "holds no model"),
        (("model.safetensors", "tokenizer.json"), "Make one with `python3 -m venv"),
        (("pytorch_model.bin", "config.json"), "must be converted first"),
        (("openvino_model.xml", "openvino_model.bin"), r"lacks tokenizer\.json"),
        (("openvino_model.xml", "tokenizer.json"), r"lacks openvino_model\.bin"),
    ],
)
def test_a_directory_without_a_usable_model_says_what_is_missing(
    names: tuple[str, ...], reason: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "m").mkdir()
    for name in names:
        (tmp_path / "m" / name).write_text("x")
    with pytest.raises(ModelUnavailable, match=reason):
        models.resolve(str(tmp_path / "m"), "", environ)


def fill(s3: S3Stub) -> None:
    s3.objects.update({f"llm/falcon/{name}": name.encode() * 1000 for name in USABLE})
    s3.objects["llm/falcon/sub dir/ünï.txt"] = b"deep"
    s3.objects["llm/falcon/"] = b""
    s3.objects["llm/falcon-other/tokenizer.json"] = b"not this one"


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_s3_prefix_is_downloaded_once(slash: str, s3: S3Stub, tmp_path: Path) -> None:
    fill(s3)
    environ = s3.environ(str(tmp_path))
    path = models.resolve(f"s3://bucket/llm/falcon{slash}", "", environ)
    assert path.parent == tmp_path / "downloads"
    assert {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} == {*USABLE, "sub dir/ünï.txt"}
    assert (path / "tokenizer.json").read_bytes() == b"tokenizer.json" * 1000
    gets = len(s3.gets)
    assert models.resolve(f"s3://bucket/llm/falcon{slash}", "", environ) == path
    assert len(s3.gets) == gets


def test_lmis_download_directory(s3: S3Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(s3)
    monkeypatch.chdir(tmp_path)
    environ = {**s3.environ(str(tmp_path / "models")), "SERVING_DOWNLOAD_DIR": "there/yet"}
    path = models.resolve("s3://bucket/llm/falcon", "", environ)
    assert path.parent == tmp_path / "there" / "yet"
    assert models.resolve("s3://bucket/llm/falcon", "", environ) == path
    assert not (tmp_path / "models" / "downloads").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ModelUnavailable, match=rf"can't be written below {tmp_path}/file: "):
        models.resolve("s3://bucket/llm/falcon", "", environ | {"SERVING_DOWNLOAD_DIR": str(tmp_path / "file")})


def test_a_changed_object_is_another_download(s3: S3Stub, tmp_path: Path) -> None:
    fill(s3)
    environ = s3.environ(str(tmp_path))
    first = models.resolve("s3://bucket/llm/falcon", "", environ)
    s3.objects["llm/falcon/tokenizer.json"] = b"new"
    second = models.resolve("s3://bucket/llm/falcon", "", environ)
    assert first != second
    assert (second / "tokenizer.json").read_bytes() == b"new"
    assert (first / "tokenizer.json").read_bytes() != b"new"


def test_two_at_once_download_once(s3: S3Stub, tmp_path: Path) -> None:
    fill(s3)
    environ = s3.environ(str(tmp_path))
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(models.resolve("s3://bucket/llm/falcon", "", environ)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert len(set(found)) == 1
    assert sorted(s3.gets) == sorted(set(s3.gets))


def leftovers(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "downloads").glob("*") if not path.name.endswith(".lock")]


def test_a_body_that_breaks_off_leaves_nothing(s3: S3Stub, tmp_path: Path) -> None:
    fill(s3)
    s3.truncate = "llm/falcon/openvino_model.bin"
    with pytest.raises(ModelUnavailable, match="can't be downloaded"):
        models.resolve("s3://bucket/llm/falcon", "", s3.environ(str(tmp_path)))
    assert leftovers(tmp_path) == []
    s3.truncate = ""
    models.resolve("s3://bucket/llm/falcon", "", s3.environ(str(tmp_path)))


def test_an_object_that_changes_after_the_listing_is_not_cached(s3: S3Stub, tmp_path: Path) -> None:
    fill(s3)
    s3.change_after_listing = "llm/falcon/tokenizer.json"
    with pytest.raises(ModelUnavailable, match="PreconditionFailed"):
        models.resolve("s3://bucket/llm/falcon", "", s3.environ(str(tmp_path)))
    assert leftovers(tmp_path) == []


def test_what_a_killed_process_left_is_replaced(s3: S3Stub, tmp_path: Path) -> None:
    fill(s3)
    environ = s3.environ(str(tmp_path))
    path = models.resolve("s3://bucket/llm/falcon", "", environ)
    partial = path.rename(path.with_name(f".{path.name}.partial"))
    (partial / "tokenizer.json").write_text("half")
    assert models.resolve("s3://bucket/llm/falcon", "", environ) == path
    assert (path / "tokenizer.json").read_bytes() == b"tokenizer.json" * 1000
    assert not partial.exists()


@pytest.mark.parametrize("key", ["llm/evil/../../x", "llm/evil//x", "llm/evil/./x"])
def test_a_key_that_would_leave_the_directory_is_refused(key: str, s3: S3Stub, tmp_path: Path) -> None:
    s3.objects[key] = b"x"
    with pytest.raises(ModelUnavailable, match="which can't be a file's name"):
        models.resolve("s3://bucket/llm/evil", "", s3.environ(str(tmp_path)))
    assert not (tmp_path / "downloads").exists()


def test_an_empty_prefix_and_a_missing_bucket(s3: S3Stub, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="there is nothing below s3://bucket/none"):
        models.resolve("s3://bucket/none", "", s3.environ(str(tmp_path)))
    with pytest.raises(ModelUnavailable, match=r"s3://other/x can't be listed: .*NoSuchBucket"):
        models.resolve("s3://other/x", "", s3.environ(str(tmp_path)))


def test_no_room_is_told_before_anything_is_written(
    s3: S3Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(s3)
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr("penstock.servers.s3prefix.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ModelUnavailable, match=r"needs \d+ bytes below .*, where 10 are free"):
        models.resolve("s3://bucket/llm/falcon", "", s3.environ(str(tmp_path)))
    assert leftovers(tmp_path) == []
    assert s3.gets == []


def test_what_needs_no_hub(tmp_path: Path, environ: dict[str, str]) -> None:
    assert models.local("org/name", environ) is None
    aliases.write(tmp_path / "models", "org/name", tmp_path)
    assert models.local("org/name", environ) == tmp_path
    assert models.local(str(tmp_path), environ) == tmp_path
    with pytest.raises(ModelUnavailable, match="is not a directory"):
        models.local("/no/such/directory", environ)
