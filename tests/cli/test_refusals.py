"""What the command line refuses: one plain line, exit code 1, nothing half done."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Penstock, cli
from tests.small_disk import small_disk


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert done.returncode == 1, done
    assert done.stderr.startswith("penstock: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("penstock: ").strip()


def test_a_second_up_on_the_same_home(penstock: Penstock) -> None:
    before = penstock.state
    line = refused(penstock.cli("up", "--port", "0", "--proxy-port", "0", check=False))
    assert f"another penstock (pid {penstock.pid}) runs on {penstock.home}" in line
    assert penstock.state == before
    assert penstock.cli("ls").returncode == 0, "the first one serves on"


@pytest.mark.parametrize("option", ["--port", "--proxy-port"])
def test_a_port_already_taken(option: str, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        options = {"--port": "0", "--proxy-port": "0", option: port}
        arguments = [text for pair in options.items() for text in pair]
        line = refused(cli("up", *arguments, home=tmp_path / "home", check=False))
    assert line == f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another with {option}"


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    line = refused(cli("up", home=tmp_path / "home", check=False))
    assert line.startswith(f"cannot use {tmp_path / 'home'} as home: ")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, so that a full disk is real."""
    with small_disk(tmp_path / "disk", "64k", lazily=True) as place:
        yield place


def test_a_full_disk(tiny_disk: Path) -> None:
    (tiny_disk / "filler").write_bytes(b"x" * 60_000)
    line = refused(cli("up", "--port", "0", "--proxy-port", "0", home=tiny_disk / "home", check=False))
    assert "No space left on device" in line
    (tiny_disk / "filler").unlink()
    written = {path.name for path in tiny_disk.rglob("*") if path.is_file() and path.stat().st_size == 0}
    assert "credentials" not in written, "whole or not at all"
    assert "ca.pem" not in written


def test_a_setting_of_the_wrong_form(tmp_path: Path) -> None:
    done = cli("up", home=tmp_path, check=False, environment={"PENSTOCK_PORT": "https"})
    assert done.returncode != 0
    assert "PENSTOCK_PORT must be a number, not 'https'" in done.stderr or "https" in done.stderr


@pytest.mark.parametrize("verb", ["show", "rm"])
def test_an_endpoint_that_is_not_there(verb: str, penstock: Penstock) -> None:
    line = refused(penstock.cli(verb, "nobody", check=False))
    assert line == 'Could not find endpoint "arn:aws:sagemaker:us-east-1:123456789012:endpoint/nobody".'


def test_an_invocation_of_an_endpoint_that_is_not_there(penstock: Penstock, tmp_path: Path) -> None:
    (tmp_path / "body").write_text("{}")
    for how in ((), ("--raw",)):
        line = refused(penstock.cli("invoke", "nobody", "--body", str(tmp_path / "body"), *how, check=False))
        assert line == "Endpoint nobody of account 123456789012 not found."


def test_an_artifact_that_leads_out_of_its_directory(penstock: Penstock, tmp_path: Path) -> None:
    artifact = tmp_path / "evil.tar.gz"
    with tarfile.open(artifact, "w:gz") as tar:
        for name in ("serving.properties", "../../evil"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    done = penstock.cli("deploy", "lmi", "--model-data", str(artifact), "--name", "evil", check=False)
    assert done.returncode == 1
    assert '"../../evil" is refused: its path leads upwards' in done.stderr
    assert not list(penstock.home.rglob("evil*")) or all("buckets" in str(p) for p in penstock.home.rglob("evil*"))
    penstock.cli("rm", "evil")


def test_logs_of_an_endpoint_that_is_not_there(penstock: Penstock) -> None:
    assert "log group does not exist" in refused(penstock.cli("logs", "nobody", check=False))


def test_a_verb_without_a_server(tmp_path: Path) -> None:
    line = refused(cli("ls", home=tmp_path, check=False))
    assert line == f"nothing runs on {tmp_path}; start it with: penstock up"


def test_a_program_that_is_not_there(penstock: Penstock) -> None:
    done = penstock.cli("run", "--", "no-such-program-here", check=False)
    assert (done.returncode, done.stderr) == (127, "penstock: no-such-program-here: command not found\n")


def test_a_hub_id_that_cannot_be_had(penstock: Penstock) -> None:
    done = penstock.cli("deploy", "tgi", "--model", "acme/never-heard-of", "--name", "unknown-model", check=False)
    assert done.returncode == 1
    assert "penstock models alias acme/never-heard-of" in done.stderr, "the reason says what to do"
    shown = json.loads(penstock.cli("show", "unknown-model", "--json").stdout)
    assert shown["EndpointStatus"] == "Failed"
    assert "acme/never-heard-of" in shown["FailureReason"]
    penstock.cli("rm", "unknown-model")


def test_an_artifact_without_a_model_id(penstock: Penstock, tmp_path: Path) -> None:
    folder = tmp_path / "mymodel"
    folder.mkdir()
    (folder / "serving.properties").write_text("engine = MPI\noption.rolling_batch = auto\n")
    done = penstock.cli("deploy", "lmi", "--model-data", str(folder), "--name", "no-model-id", check=False)
    assert done.returncode == 1
    assert "model_id" in done.stderr
    penstock.cli("rm", "no-model-id")


def test_an_image_that_only_a_container_engine_runs(penstock: Penstock) -> None:
    done = penstock.cli("deploy", "image", "--image", "acme/server:1", "--name", "container", check=False)
    assert done.returncode == 1
    assert "acme/server:1" in done.stderr
    penstock.cli("rm", "container")


def test_an_endpoint_name_that_exists(penstock: Penstock, echo: str) -> None:
    line = refused(penstock.cli("deploy", "scripted", "--name", echo, check=False))
    assert line.startswith("Cannot create already existing ")
    assert os.linesep not in line
