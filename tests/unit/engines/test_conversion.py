"""The cache of conversions, with a converter that does what the test says. The real one needs torch and an environment of its own."""

from __future__ import annotations

import concurrent.futures
import os
import sys
from pathlib import Path

import pytest

from penstock.engines.conversion import ConversionError, content_key, converted, interpreter
from penstock.servers.models import ModelUnavailable, resolve

COPIES = """
import pathlib, shutil, sys, time
source, target, reason, parent = sys.argv[1:]
with open(source + "/../runs", "a") as runs:
    runs.write("x")
for name in ("openvino_model.xml", "openvino_model.bin", "tokenizer.json"):
    pathlib.Path(target, name).write_text(name)
    time.sleep(0.05)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "hf"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def command(tmp_path: Path, program: str = COPIES) -> tuple[str, str]:
    file = tmp_path / "converter.py"
    file.write_text(program)
    return sys.executable, str(file)


def runs(source: Path) -> int:
    return len((source.parent / "runs").read_text())


def test_it_is_done_once_a_content(tmp_path: Path, source: Path) -> None:
    first = converted(source, tmp_path / "models", command(tmp_path))
    assert (first / "openvino_model.xml").read_text() == "openvino_model.xml"
    moved = source.rename(tmp_path / "elsewhere")
    assert converted(moved, tmp_path / "models", command(tmp_path)) == first
    (moved / "model.safetensors").write_bytes(b"weighty")
    assert converted(moved, tmp_path / "models", command(tmp_path)) != first
    assert runs(moved) == 2


def test_two_at_once_convert_once(tmp_path: Path, source: Path) -> None:
    converter = command(tmp_path)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        work = [pool.submit(converted, source, tmp_path / "models", converter) for _ in range(4)]
        assert len({future.result() for future in work}) == 1
    assert runs(source) == 1


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("import sys; open(sys.argv[3], 'w').write('unknown architecture'); sys.exit(1)", "unknown architecture"),
        ("import sys; open(sys.argv[2] + '/openvino_model.xml', 'w'); sys.exit(7)", "ended with status 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with status -9"),
        ("import time; time.sleep(60)", "not converted within 1 s"),
        ("", "wrote no openvino_model.xml"),
    ],
)
def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, source: Path, program: str, text: str) -> None:
    with pytest.raises(ConversionError, match=text):
        converted(source, tmp_path / "models", command(tmp_path, program), timeout_s=1)
    assert [file.suffix for file in (tmp_path / "models" / "openvino").iterdir()] == [".lock"]
    assert converted(source, tmp_path / "models", command(tmp_path)).is_dir(), "the next try begins afresh"


def test_what_a_killed_conversion_left_is_swept(tmp_path: Path, source: Path) -> None:
    cache = tmp_path / "models" / "openvino"
    stale = cache / f".{content_key(source)}.dead" / "model"
    stale.mkdir(parents=True)
    converted(source, tmp_path / "models", command(tmp_path))
    assert not stale.parent.exists()


def test_a_converter_that_is_not_there(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ConversionError, match="No such file"):
        converted(source, tmp_path / "models", ("/no/such/python",))


def test_where_the_converter_is(tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert interpreter(models, {}) is None
    python = tmp_path / "converter" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert interpreter(models, {}) == python
    assert interpreter(models, {"PENSTOCK_CONVERTER": "/x/python"}) == Path("/x/python")


def test_a_model_that_needs_it_says_how_to_get_a_converter(tmp_path: Path, source: Path) -> None:
    environ = {"PENSTOCK_MODELS": str(tmp_path / "models"), "PATH": os.environ["PATH"]}
    with pytest.raises(
        ModelUnavailable, match=r"must be converted first, and there is no converter\. Make one with `python3"
    ):
        resolve(str(source), "", environ)


def test_the_real_program_says_what_its_environment_lacks(tmp_path: Path, source: Path) -> None:
    """This interpreter has no torch."""
    environ = {"PENSTOCK_MODELS": str(tmp_path / "models"), "PENSTOCK_CONVERTER": sys.executable}
    with pytest.raises(ModelUnavailable, match=r"can't be converted: No module named 'optimum'"):
        resolve(str(source), "", environ)
