"""A server that runs for the whole session, and client programs in virtual environments of their own.

The environments are made by `make test` (scripts/client_environments.py) in `.venv/clients`, or named by PENSTOCK_CLIENT_ENVIRONMENTS.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.running import PENSTOCK, Penstock, clean_environment

PROGRAMS = Path(__file__).parent / "programs"
ENVIRONMENTS = Path(
    os.environ.get("PENSTOCK_CLIENT_ENVIRONMENTS", Path(__file__).parent.parent.parent / ".venv" / "clients")
)
Url = Literal["https", "http", "aws"]
"""How a program's URLs look: ours over TLS, ours in plain text, or AWS's own host names, which the proxy answers."""
RunProgram = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    """`penstock up` with the blog's hub id mapped to the bundled model."""
    server = Penstock(tmp_path_factory.mktemp("clients") / "home")
    server.start()
    server.cli("models", "alias", "tiiuae/falcon-7b-instruct", "penstock/falcon-demo")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def endpoints(penstock: Penstock) -> dict[str, str]:
    """The bundled Falcon behind both contracts: dialect to endpoint name."""
    model = "penstock/falcon-demo"
    penstock.cli("deploy", "lmi", "--model", model, "--name", "lmi")
    penstock.cli("deploy", "tgi", "--model", model, "--name", "tgi")
    return {"lmi": "lmi", "tgi": "tgi"}


@pytest.fixture
def run_program(penstock: Penstock, tmp_path: Path) -> RunProgram:
    """Run a program of `programs/` under `penstock run` and return the JSON document that it prints after RESULT."""

    def run(
        environment: str,
        program: str,
        *arguments: str,
        before: Sequence[str] = (),
        timeout_s: float = 300,
        **variables: str,
    ) -> dict[str, Any]:
        python = ENVIRONMENTS / environment / "bin" / "python"
        if not python.exists():
            pytest.fail(
                f"{python} is missing: run the tests with `make test`, or make it with scripts/client_environments.py"
            )
        command = [
            *PENSTOCK,
            "run",
            "--home",
            str(penstock.home),
            "--",
            *before,
            str(python),
            str(PROGRAMS / program),
            *arguments,
        ]
        outside = clean_environment(HOME=str(tmp_path / "home"), **variables)
        done = subprocess.run(
            command, cwd=tmp_path, env=outside, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{program} in {environment}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        # The SDKs draw panels on standard output too, some without a final newline.
        document: dict[str, Any] = json.loads(done.stdout.rpartition("RESULT ")[2].splitlines()[0])
        return document

    return run
