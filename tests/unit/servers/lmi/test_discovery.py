"""From a model directory to models and their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.servers.lmi.discovery import Found, NothingToServe, discover


def put(root: Path, *files: str) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


def test_files_make_the_directory_the_model(tmp_path: Path) -> None:
    put(tmp_path, "serving.properties", "code/model.py")
    assert discover(tmp_path, {"HF_MODEL_ID": "a/b"}) == (Found("model", tmp_path),)


def test_one_top_folder_is_descended_into(tmp_path: Path) -> None:
    put(tmp_path, "mymodel-7B/serving.properties", ".DS_Store")
    assert discover(tmp_path, {}) == (Found("mymodel_7B", tmp_path / "mymodel-7B"),)
    put(tmp_path, "mymodel-7B/other/x")
    assert discover(tmp_path, {}) == (Found("mymodel_7B", tmp_path / "mymodel-7B"),)


def test_folders_in_folders(tmp_path: Path) -> None:
    put(tmp_path, "a/b/c/model.py")
    assert discover(tmp_path, {}) == (Found("a", tmp_path / "a/b/c"),)


def test_several_folders_are_a_model_each(tmp_path: Path) -> None:
    put(tmp_path, "two/model.py", "one/model.py")
    (tmp_path / "empty").mkdir()
    assert discover(tmp_path, {}) == (Found("one", tmp_path / "one"), Found("two", tmp_path / "two"))


@pytest.mark.parametrize("variable", ["HF_MODEL_ID", "OPTION_MODEL_ID"])
def test_an_empty_directory_and_a_name_in_the_environment(variable: str, tmp_path: Path) -> None:
    assert discover(tmp_path / "missing", {variable: "a/b"}) == (Found("model", tmp_path / "missing"),)


def test_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingToServe, match=r"/opt/ml/model is empty and HF_MODEL_ID is not set"):
        discover(tmp_path, {})


def test_load_models_overrides(tmp_path: Path) -> None:
    put(tmp_path, "a/model.py", "b/model.py", "x.txt")
    load = {"SERVING_LOAD_MODELS": f"first::Python=/opt/ml/model/a, file://{tmp_path}/b"}
    assert discover(tmp_path, load) == (Found("first", tmp_path / "a"), Found("b", tmp_path / "b"))
    versions = {"SERVING_LOAD_MODELS": "m:1.0=/opt/ml/model/a [m:2.0:Python:*]=/opt/ml/model/b"}
    assert discover(tmp_path, versions) == (Found("m", tmp_path / "a", "1.0"), Found("m", tmp_path / "b", "2.0"))
    with pytest.raises(NothingToServe, match="names /nowhere"):
        discover(tmp_path, {"SERVING_LOAD_MODELS": "m=/nowhere"})
