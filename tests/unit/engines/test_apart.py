"""Which Python runs an engine, and that our process runs in one that has nothing of ours."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import venv
from pathlib import Path

import msgspec
import pytest

from penstock.engines import apart
from penstock.engines.messages import Failed, Frames


def test_an_engine_of_ours_runs_in_our_interpreter(tmp_path: Path) -> None:
    assert apart.interpreter("openvino", tmp_path, {}) == Path(sys.executable)
    assert apart.command(Path(sys.executable)) == (sys.executable, "-P", "-m", "penstock.engines")


def test_the_environment_variable_names_the_interpreter(tmp_path: Path) -> None:
    assert apart.interpreter("vllm", tmp_path, {"PENSTOCK_VLLM_PYTHON": "/opt/python"}) == Path("/opt/python")


def test_an_environment_in_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "MODULES", {"vllm": "a_module_that_nobody_has"})
    assert apart.interpreter("vllm", tmp_path, {}) is None
    python = tmp_path / "engines" / "vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert apart.interpreter("vllm", tmp_path, {}) == python


def test_the_process_runs_in_an_environment_without_penstock(tmp_path: Path) -> None:
    venv.create(tmp_path / "apart", symlinks=True)
    python = tmp_path / "apart" / "bin" / "python"
    packages = next((tmp_path / "apart").glob("lib/*/site-packages"))
    (packages / "msgspec").symlink_to(Path(msgspec.__file__).parent)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [*apart.command(python), f"--fd={theirs.fileno()}", "--parent=0", "--model=/nowhere", "--engine=none"]
        # Its parent is not process 0: it believes that its front has died, and ends before it loads anything.
        assert subprocess.run(command, pass_fds=[theirs.fileno()], timeout=60, check=False).returncode == 0
        process = subprocess.Popen(
            [
                *apart.command(python),
                f"--fd={theirs.fileno()}",
                f"--parent={os.getpid()}",
                "--model=/x",
                "--engine=none",
            ],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        messages = Frames().feed(ours.recv(1 << 16))
        assert process.wait(60) == 1
    assert isinstance(messages[0], Failed)
    assert "no engine named none" in messages[0].reason
