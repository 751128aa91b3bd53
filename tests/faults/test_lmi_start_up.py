"""An LMI server that can't start: the reason is in the termination log, the exit status is not 0, and no port was ever open."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lmi_server import environ, failing, free_port, running, write_properties
from tests.replicas import alive
from tests.waiting import until


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["engine=MPI"], "no model is named: set option.model_id in serving.properties (or HF_MODEL_ID)"),
        (["option.model_id=tiiuae/falcon-7b"], "run `penstock models alias tiiuae/falcon-7b DIR`"),
        (["option.model_id=/no/such/dir"], "/no/such/dir is not a directory"),
        (["option.model_id=x/y", "option.output_formatter=xml"], "option.output_formatter=xml is not supported"),
        (["option.model_id=x/y", "option.quantize=magic"], "option.quantize=magic is not supported"),
        (["option.model_id=x/y", f"option.max_model_len={'9' * 5000}"], "999… is too large"),
        (["option.model_id=x/y", f"job_queue_size={'9' * 5000}"], "job_queue_size=999"),
        (["option.model_id=\\u00"], "serving.properties can't be read"),
        (["option.model_id=s3://bucket/prefix"], "s3://bucket/prefix can't be listed"),
    ],
)
def test_bad_properties(lines: list[str], reason: str, tmp_path: Path) -> None:
    directory = write_properties(tmp_path / "model", *lines)
    status, message, log = failing(
        tmp_path,
        directory,
        AWS_ENDPOINT_URL="http://127.0.0.1:9",
        AWS_ACCESS_KEY_ID="A",
        AWS_SECRET_ACCESS_KEY="S",
        AWS_MAX_ATTEMPTS="1",
    )
    assert status != 0
    assert reason in message
    assert message in log
    assert "Traceback" not in log


def test_nothing_to_serve(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    status, message, _ = failing(tmp_path, tmp_path / "model")
    assert status != 0
    assert "/opt/ml/model is empty and HF_MODEL_ID is not set" in message


def test_a_model_that_the_engine_cannot_load(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (broken / name).write_text("this is no model")
    (broken / "config.json").write_text("{}")
    (broken / "tokenizer.json").write_text("{}")
    status, message, _ = failing(tmp_path, tmp_path / "none", HF_MODEL_ID=str(broken))
    assert status != 0
    assert "broken" in message


@pytest.mark.parametrize("strange", ["socket", "fifo", "dangling", "folder"])
def test_strange_files_in_the_model_directory(strange: str, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    sock = socket.socket(socket.AF_UNIX)
    match strange:
        case "socket":
            sock.bind(os.path.relpath(directory / "serving.properties"))
        case "fifo":
            os.mkfifo(directory / "serving.properties")
        case "dangling":
            (directory / "serving.properties").symlink_to("/no/such/file")
        case "folder":
            (directory / "serving.properties").mkdir()
            (directory / "x").write_text("")
    try:
        status, message, log = failing(tmp_path, directory)
    finally:
        sock.close()
    assert status != 0
    assert "no model is named" in message
    assert "Traceback" not in log


def test_a_port_that_is_taken(tmp_path: Path, tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, message, _ = failing(
            tmp_path, tmp_path / "none", HF_MODEL_ID=str(tiny_model), SAGEMAKER_BIND_TO_PORT=str(port)
        )
    assert status != 0
    assert f"Cannot listen on 127.0.0.1:{port}" in message


def test_sigterm_while_it_loads_ends_it_and_its_engine(tmp_path: Path, tiny_model: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock.servers.lmi"],
        env=environ(tmp_path, tmp_path / "none", port, {"HF_MODEL_ID": str(tiny_model)}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        until(lambda: children.read_text().split(), deadline_s=30, every_s=0.001, what="the engine process is there")
        engine = int(children.read_text().split()[0])
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) != 0, "nothing listens before the model is ready"
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        until(lambda: not alive(engine), deadline_s=10, what="the engine is gone")
    finally:
        process.kill()
        process.wait(10)


def test_sigterm_during_a_download_ends_it_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        given = {"HF_MODEL_ID": "s3://bucket/llm", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        given |= {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "S"}
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.servers.lmi"],
            env=environ(tmp_path, tmp_path / "none", free_port(), given),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            silent.settimeout(30)
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                assert process.wait(5) == 143
        finally:
            process.kill()
            process.wait(10)


def test_a_stream_ends_in_full_after_sigterm(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, tmp_path / "none", HF_MODEL_ID=str(tiny_model), OPTION_ROLLING_BATCH="auto") as server:
        with server.open({"inputs": "!", "parameters": {"max_new_tokens": 200}}) as stream:
            chunks = iter(stream)
            next(chunks)
            server.process.send_signal(signal.SIGTERM)
            rest = list(chunks)
            assert stream.complete
            assert rest[-1].endswith(b'"}')
        assert server.process.wait(30) == 0
