"""What LORA_ADAPTERS and a folder of adapters mean, and what each wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock import aliases
from penstock.servers import adapters
from penstock.servers.adapters import Adapter, beside, listed, locate
from penstock.servers.unavailable import ModelUnavailable


def saved(directory: Path, *, weights: str = "adapter_model.safetensors") -> Path:
    directory.mkdir(parents=True)
    for name in (adapters.CONFIG, weights):
        (directory / name).write_text("{}")
    return directory


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PENSTOCK_MODELS": str(tmp_path / "models"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("  ", ()),
        ("org/sql", (Adapter("org/sql", "org/sql"),)),
        ("org/sql@rev2", (Adapter("org/sql", "org/sql", "rev2"),)),
        ("sql=/a/b", (Adapter("sql", "/a/b"),)),
        ("sql=org/sql@v1, org/chat", (Adapter("sql", "org/sql", "v1"), Adapter("org/chat", "org/chat"))),
    ],
)
def test_a_list(text: str, expected: tuple[Adapter, ...]) -> None:
    assert listed(text) == expected


@pytest.mark.parametrize("item", ["a=b=c", "a@b@c", "=/a", "sql=", "org/sql@", "", "@v1", "a@b=c"])
def test_what_is_no_adapter_is_named(item: str) -> None:
    with pytest.raises(ValueError, match="Invalid LoRA adapter format: ") as caught:
        listed(f"org/chat,{item}")
    assert str(caught.value).endswith(f": {item}")


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="LORA_ADAPTERS names sql twice"):
        listed("sql=/a,sql=/b")


def test_every_folder_is_an_adapter_of_its_name(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    paths = [saved(one / "adapters/b"), saved(one / "adapters/a"), saved(two / "adapters/c")]
    (one / "adapters/README.md").write_text("no adapter")
    (one / "adapters/.cache").mkdir()
    found = beside((one, two, one), "adapters")
    assert found == tuple(Adapter(path.name, str(path)) for path in (paths[1], paths[0], paths[2]))
    assert beside((one,), "others") == ()


def test_two_folders_of_one_name_and_code_of_an_adapter_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "one/adapters/a")
    twin = saved(tmp_path / "two/adapters/a")
    with pytest.raises(ModelUnavailable, match="there are two adapters named a: "):
        beside((tmp_path / "one", tmp_path / "two"), "adapters")
    (twin / "model.py").write_text("")
    with pytest.raises(
        ModelUnavailable, match=r"adapter a has a model\.py, and an adapter's own code is not supported"
    ):
        beside((tmp_path / "two",), "adapters")


def test_adapters_are_found_like_models(tmp_path: Path, environ: dict[str, str]) -> None:
    here = saved(tmp_path / "replica/adapters/here")
    named = saved(tmp_path / "named", weights="adapter_model.bin")
    cached = tmp_path / "hf/hub/models--org--cached"
    snapshot = saved(cached / "snapshots/c2")
    (cached / "refs").mkdir()
    (cached / "refs/v2").write_text("c2")
    aliases.write(tmp_path / "models", "org/alias", named)
    asked = listed("here=/opt/ml/model/adapters/here,org/alias,org/cached@v2,again=org/cached@c2")
    found = locate(asked, {**environ, "PENSTOCK_MODEL_DIR": str(tmp_path / "replica")})
    assert found == {
        "here": str(here),
        "org/alias": str(named),
        "org/cached": str(snapshot),
        "again": str(snapshot),
    }


@pytest.mark.parametrize(
    ("removed", "lacks"),
    [
        ("adapter_config.json", "lacks adapter_config.json: "),
        ("adapter_model.safetensors", "lacks adapter_model.safetensors: save it with PEFT's"),
    ],
)
def test_a_directory_must_hold_what_peft_writes(
    removed: str, lacks: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    (saved(tmp_path / "sql") / removed).unlink()
    with pytest.raises(ModelUnavailable, match=f"adapter sql: .*/sql {lacks}"):
        locate(listed(f"sql={tmp_path}/sql"), environ)


def test_one_that_cannot_be_had_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(ModelUnavailable, match="adapter sql: org/sql is not on this machine and HF_HUB_OFFLINE is set"):
        locate(listed("sql=org/sql"), environ)
