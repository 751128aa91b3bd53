from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest

from penstock.servers.contract import Contract, fail, read_contract
from tests.replicas import PYTHONPATH
from tests.waiting import until


def test_an_empty_environment_is_a_container() -> None:
    assert read_contract({}) == Contract(host="127.0.0.1", port=8080, model_dir=Path("/opt/ml/model"))


def test_the_placements_environment_is_read() -> None:
    contract = read_contract(
        {
            "SAGEMAKER_BIND_TO_PORT": "9000",
            "PENSTOCK_BIND_HOST": "127.0.0.2",
            "PENSTOCK_MODEL_DIR": "/r/1/model",
            "PENSTOCK_MODELS": "/home/models",
            "PENSTOCK_SERVER_VERSION": "0.23.0",
            "PENSTOCK_IMAGE_URI": "x/djl-inference:0.23.0-a",
            "PENSTOCK_TERMINATION_LOG": "/r/1/termination-log",
        }
    )
    assert (contract.host, contract.port, contract.version) == ("127.0.0.2", 9000, "0.23.0")
    assert contract.path("/opt/ml/model") == Path("/r/1/model")
    assert contract.path("/opt/ml/model/a/b") == Path("/r/1/model/a/b")
    assert contract.path("/opt/ml/models/a") == Path("/opt/ml/models/a")
    assert contract.path("relative/a") == Path("relative/a")


@pytest.mark.parametrize("text", ["abc", "0", "65536", "-1", "80 "])
def test_a_port_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="SAGEMAKER_BIND_TO_PORT"):
        read_contract({"SAGEMAKER_BIND_TO_PORT": text})


def test_fail_leaves_its_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "termination-log"
    with pytest.raises(SystemExit) as exit_:
        fail("Set HF_MODEL_ID.", contract=Contract(termination_log=log))
    assert exit_.value.code == 1
    assert log.read_text() == "Set HF_MODEL_ID."
    assert capfd.readouterr().err == "Set HF_MODEL_ID.\n"


def test_a_reason_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "termination-log"
    with pytest.raises(SystemExit):
        fail("/no\r\nsuch  is\n\n no directory\n", contract=Contract(termination_log=log))
    assert log.read_text() == "/no such  is no directory"
    assert capfd.readouterr().err == "/no such  is no directory\n"


def test_fail_survives_a_log_that_cannot_be_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail("why", contract=Contract(termination_log=tmp_path / "none" / "log"))
    assert capfd.readouterr().err.endswith("why\n")


SERVER = textwrap.dedent(
    """
    import asyncio
    from penstock.servers.contract import log_to_stdout, read_contract, serve

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        await asyncio.sleep(0.3)
        await send({"type": "http.response.body", "body": b"last"})

    log_to_stdout()
    serve(app, read_contract())
    """
)


def start(program: str, tmp_path: Path, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": PYTHONPATH,
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "PENSTOCK_TERMINATION_LOG": str(tmp_path / "log"),
        },
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_sigterm_lets_a_request_in_flight_end(tmp_path: Path) -> None:
    port = free_port()
    with start(SERVER, tmp_path, port) as server:
        until(lambda: answers(port))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
            assert response.read(6) == b"first "
            server.send_signal(signal.SIGTERM)
            assert response.read() == b"last"
        assert server.wait(10) == 0


def test_a_taken_port_is_the_reason(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with start(SERVER, tmp_path, port) as server:
            assert server.wait(10) == 1
        assert (tmp_path / "log").read_text() == f"Cannot listen on 127.0.0.1:{port}: Address already in use."
