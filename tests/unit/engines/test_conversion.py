"""The cache of conversions, with a converter that does what the test says; and the real one, where `PENSTOCK_CONVERTER` names it."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from penstock.engines import conversion
from penstock.engines.__main__ import load
from penstock.engines.base import Sampling, Submit, Token
from penstock.engines.conversion import ConversionError, ConversionStopped, content_key, converted, interpreter
from penstock.engines.options import EngineOptions
from penstock.engines.weights import bits_of
from penstock.servers.models import ModelUnavailable, resolve
from tests.lmi_server import free_port
from tests.replicas import alive
from tests.small_disk import small_disk
from tests.tiny_models import build
from tests.waiting import until

COPIES = """
import pathlib, shutil, sys, time
source, target, reason, parent, *weights = sys.argv[1:]
with open(source + "/../runs", "a") as runs:
    runs.write("x")
for name in ("openvino_model.xml", "openvino_model.bin", "tokenizer.json"):
    pathlib.Path(target, name).write_text(" ".join([name, *weights]))
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


def test_a_full_disk_is_the_reason(tmp_path: Path, source: Path) -> None:
    """The converter can't even say it: there is no room for its reason."""
    writes = """
import pathlib, sys
_, source, target, reason, parent = sys.argv
try:
    pathlib.Path(target, "openvino_model.bin").write_bytes(bytes(3 << 20))
except OSError as error:
    open(reason, "w").write(str(error))
    sys.exit(1)
"""
    with small_disk(tmp_path / "small", "2m") as models:
        with pytest.raises(ConversionError, match=r"hf can't be converted: the disk with .*/small/openvino is full$"):
            converted(source, models, command(tmp_path, writes))
        assert left(models) == []


def test_a_place_that_can_hold_no_conversions_is_said(tmp_path: Path, source: Path) -> None:
    (tmp_path / "models").write_text("a file where a directory should be")
    with pytest.raises(ConversionError, match=r"hf can't be converted: .*Not a directory"):
        converted(source, tmp_path / "models", command(tmp_path))


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


def test_a_torchvision_that_does_not_fit_says_how_it_is_cured(tmp_path: Path, source: Path) -> None:
    file = tmp_path / "converter.py"
    said = "Could not import module 'PreTrainedModel'."
    file.write_text(f"import pathlib, sys\npathlib.Path(sys.argv[3]).write_text({said!r})\nsys.exit(1)\n")
    with pytest.raises(ConversionError, match=r"PreTrainedModel'\. \(.*pip uninstall torchvision\)$"):
        converted(source, tmp_path / "models", (sys.executable, file))


SLEEPS = """
import ctypes, os, pathlib, signal, sys, time
ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
pathlib.Path(sys.argv[1], "../begun").write_text(str(os.getpid()))
time.sleep(60)
"""
SERVES = """
import sys, pathlib
from penstock.engines.conversion import converted
source, models, *command = sys.argv[1:]
print(converted(pathlib.Path(source), pathlib.Path(models), command, quantize="int4"))
"""


def left(models: Path) -> list[str]:
    return sorted(file.name for file in (models / "openvino").iterdir() if file.suffix != ".lock")


def test_each_format_has_its_own_result(tmp_path: Path, source: Path) -> None:
    models = tmp_path / "models"
    plain = converted(source, models, command(tmp_path))
    small = {word: converted(source, models, command(tmp_path), quantize=word) for word in ("int8", "bitsandbytes")}
    assert small["int8"] == small["bitsandbytes"], "two words for the same thing"
    other = converted(source, models, command(tmp_path), quantize="bitsandbytes-nf4")
    assert len({plain, small["int8"], other}) == 3
    assert (other / "openvino_model.xml").read_text() == "openvino_model.xml int4_asym"
    assert runs(source) == 3


def test_what_is_no_format_here_is_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ConversionError, match="quantize=awq is not for the OpenVINO engine: use int8 or int4"):
        converted(source, tmp_path / "models", command(tmp_path), quantize="awq")


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_weights_that_are_quantised_already_are_refused(tmp_path: Path, source: Path, method: str) -> None:
    (source / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    with pytest.raises(ConversionError, match=f"its weights are stored as {method}, which the OpenVINO engine"):
        converted(source, tmp_path / "models", command(tmp_path))


def test_one_that_goes_on_says_so(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conversion, "PROGRESS_S", 0.01)
    stop = threading.Event()
    with caplog.at_level(logging.INFO), concurrent.futures.ThreadPoolExecutor() as pool:
        work = pool.submit(converted, source, tmp_path / "models", command(tmp_path, SLEEPS), stop=stop)
        try:
            until(lambda: f"still converting {source}, for " in caplog.text, what="it says that it goes on")
        finally:
            stop.set()
        with pytest.raises(ConversionStopped):
            work.result(5)
    assert f"converting {source} for OpenVINO; this is done once" in caplog.text


def test_a_stopped_conversion_leaves_nothing(tmp_path: Path, source: Path) -> None:
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        work = [
            pool.submit(converted, source, tmp_path / "models", command(tmp_path, SLEEPS), stop=stop) for _ in range(2)
        ]
        pid = int(until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text()))
        stop.set()
        for future in work:  # one converts, the other waits for it
            with pytest.raises(ConversionStopped):
                future.result(5)
    assert not alive(pid)
    assert left(tmp_path / "models") == []


def test_a_killed_process_takes_its_converter_along_and_the_next_one_sweeps(tmp_path: Path, source: Path) -> None:
    models = tmp_path / "models"
    arguments = [sys.executable, "-c", SERVES, str(source), str(models)]
    dies = subprocess.Popen([*arguments, *command(tmp_path, SLEEPS)])
    pid = int(until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text()))
    dies.kill()
    dies.wait(10)
    until(lambda: not alive(pid), what="the converter dies with the process that started it")
    assert len(left(models)) == 1, "half a result, under no name that anybody looks for"
    found = subprocess.run(
        [*arguments, *command(tmp_path)], stdout=subprocess.PIPE, text=True, timeout=30, check=True
    ).stdout.strip()
    assert left(models) == [Path(found).name]


@pytest.mark.parametrize("server", ["tgi", "lmi"])
def test_a_server_that_is_stopped_while_it_converts_leaves_nothing(tmp_path: Path, source: Path, server: str) -> None:
    (source / "config.json").write_text('{"model_type": "llama"}')
    (source / "tokenizer.json").write_text("{}")
    models = tmp_path / "models"
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport sys\ndel sys.argv[1:3]\n{SLEEPS}")
    python.chmod(0o755)
    environ = {
        **os.environ,
        "HF_MODEL_ID": str(source),
        "HF_MODEL_QUANTIZE": "bitsandbytes",
        "PENSTOCK_CONVERTER": str(python),
        "PENSTOCK_MODELS": str(models),
        "PENSTOCK_MODEL_DIR": str(tmp_path / "empty"),
        "PENSTOCK_TERMINATION_LOG": str(tmp_path / "termination"),
        "SAGEMAKER_BIND_TO_PORT": str(free_port()),
    }
    (tmp_path / "empty").mkdir()
    process = subprocess.Popen([sys.executable, "-m", f"penstock.servers.{server}"], env=environ)
    try:
        pid = int(until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text(), deadline_s=30))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) != 0
    finally:
        process.kill()
        process.wait()
    assert not alive(pid)
    assert left(models) == []


needs_converter = pytest.mark.skipif(
    "PENSTOCK_CONVERTER" not in os.environ, reason="PENSTOCK_CONVERTER names no Python with openvino and nncf"
)


def generated(model: Path, **options: Any) -> list[int]:
    engine = load(EngineOptions(model=model, dtype="float32", **options))
    assert engine.submit(Submit(1, (5, 6, 7), Sampling(max_new_tokens=20, ignore_eos=True))) is None
    found: list[int] = []
    while engine.busy:
        found += [event.token for event in engine.step() if isinstance(event, Token)]
    return found


@needs_converter
@pytest.mark.parametrize(("word", "bits"), [("bitsandbytes", 8), ("int4", 4)])
def test_the_real_converter_makes_weights_of_an_openvino_directory_smaller(
    tmp_path: Path, word: str, bits: int
) -> None:
    model = build(tmp_path / "counting", width=32)  # nothing narrower than 32 rows goes into 4 bits
    environ = {"PENSTOCK_MODELS": str(tmp_path / "models"), "PENSTOCK_CONVERTER": os.environ["PENSTOCK_CONVERTER"]}
    found = resolve(str(model), "", environ, quantize=word)
    assert bits_of(found) == bits
    assert resolve(str(found), "", environ, quantize=word) == found, "they are so already"
    assert generated(found, quantize=word) == generated(model), "the counting model counts in few bits too"


def test_smaller_weights_need_a_converter(tmp_path: Path, tiny_model: Path) -> None:
    environ = {"PENSTOCK_MODELS": str(tmp_path / "models")}
    with pytest.raises(
        ModelUnavailable, match=r"quantize=int8 makes .* smaller, which is a conversion, and there is no"
    ):
        resolve(str(tiny_model), "", environ, quantize="int8")
    with pytest.raises(ModelUnavailable, match="quantize=gptq is not for the OpenVINO engine"):
        resolve(str(tiny_model), "", environ, quantize="gptq")
    assert resolve(str(tiny_model), "", environ, quantize="none") == tiny_model
