"""Engines that live apart, tiny models for them, and running engines. `make engines` makes the environments.

Models and conversions are kept below `.venv/engines/cache`, under names that follow from what they are made of.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from penstock.engines import apart, conversion
from penstock.engines.client import EngineProcess
from penstock.engines.options import EngineOptions
from tests.engines import families
from tests.engines.claims import Claim

ENVIRONMENTS = Path(__file__).parents[2] / ".venv" / "engines"


def interpreter(environment: str) -> Path:
    """The Python of one of the environments."""
    python = ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: `make engines` makes it")
    return python


def vllm_python() -> Path:
    """The Python of vLLM's environment, which another than ours may be named for."""
    found = Path(os.environ.get("PENSTOCK_VLLM_PYTHON", ENVIRONMENTS / "vllm" / "bin" / "python"))
    if not found.exists():
        pytest.skip(f"{found} is not there: `scripts/vllm_environment.py .venv/engines/vllm` makes it (3.3 GB)")
    return found


@pytest.fixture(scope="session")
def models() -> Path:
    """A directory with every family's model."""
    python = interpreter("transformers")
    program = Path(families.__file__)
    lock = (Path(__file__).parent / "locks" / "transformers.txt").read_bytes()
    key = hashlib.blake2b(program.read_bytes() + lock, digest_size=8).hexdigest()
    root = ENVIRONMENTS / "cache" / key
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)  # another worker of pytest may be making them
        missing = [name for name in families.NAMES if not (root / name).is_dir()]
        if missing:
            subprocess.run([python, program, root, *missing], check=True, timeout=600, capture_output=True)
    return root


def directory_of(claim: Claim, family: str, models: Path) -> Path:
    """The model of `family` in the form that the engine loads."""
    source = models / family
    if claim.model == "source":
        return source
    command = [interpreter("converter"), conversion.PROGRAM]
    return conversion.converted(source, ENVIRONMENTS / "cache", command, timeout_s=600)


def options_of(claim: Claim, model: Path) -> EngineOptions:
    """Single precision, so that answers can be compared. No prefix cache: it keeps log-probabilities of prompts to itself."""
    return EngineOptions(engine=claim.engine, model=model, dtype="float32", max_queue=32, prefix_cache=False)


async def started(claim: Claim, family: str, models: Path) -> EngineProcess:
    options = options_of(claim, directory_of(claim, family, models))
    if not claim.environment:
        return await EngineProcess.start(options)
    return await EngineProcess.start(options, command=apart.command(interpreter(claim.environment)))


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> tuple[Claim, str]:
    """What the test is parametrized with."""
    claim, family = request.param
    return claim, family


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(case: tuple[Claim, str], models: Path) -> AsyncIterator[EngineProcess]:
    """The running engine of the case."""
    engine = await started(*case, models)
    yield engine
    await engine.close()


@pytest.fixture
def oracle(case: tuple[Claim, str], models: Path) -> families.Oracle:
    return families.read_oracle(models / case[1])
