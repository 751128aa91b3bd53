"""Where the server finds its script."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.servers.scripted.find import find_script
from penstock.servers.scripted.script import DEFAULT, Send
from tests.replicas import PYTHONPATH


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"steps": [{"send": text}]}))


def test_the_environment_goes_before_the_model(tmp_path: Path) -> None:
    write(tmp_path / "script.json", "model")
    assert find_script({"PENSTOCK_SCRIPT": '{"steps":[]}'}, tmp_path).steps == ()
    assert find_script({}, tmp_path).steps == (Send(send="model"),)


def test_one_directory_may_lie_around_it(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "script.json", "nested")
    assert find_script({}, tmp_path).steps == (Send(send="nested"),)
    (tmp_path / "other").mkdir()
    assert find_script({}, tmp_path) == DEFAULT


def test_no_model_is_no_script(tmp_path: Path) -> None:
    assert find_script({}, tmp_path / "none") == find_script({}, tmp_path) == DEFAULT


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ('{"steps":[{}]}', 1, "The scripted server has no usable script: steps[0] must be"),
        ('{"start":{"fail":"no such model","code":9}}', 9, "no such model"),
    ],
)
def test_what_it_gives_up_for_is_its_last_word(tmp_path: Path, script: str, status: int, reason: str) -> None:
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-m", "penstock.servers.scripted"],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "PENSTOCK_SCRIPT": script, "PENSTOCK_TERMINATION_LOG": str(log)},
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == status
    assert log.read_text().startswith(reason)


def test_an_idle_connection_does_not_disturb_a_stop() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-m", "penstock.servers.scripted"],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "SAGEMAKER_BIND_TO_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    while "listens" not in process.stdout.readline():
        assert process.poll() is None
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        process.terminate()
        rest, _ = process.communicate(timeout=10)
    assert (process.returncode, rest) == (0, "INFO  scripted stopped\n")
