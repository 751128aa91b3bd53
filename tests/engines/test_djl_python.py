"""Those unit tests of `djl_python` that need torch, in the environment that has it: no other target runs them.

pytest is lent to that environment: what ours has comes last on its path, so that torch, transformers and all that they need are its own.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.engines.conftest import interpreter

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
FILES = ("test_huggingface.py", "test_streaming_utils.py", "test_text_embedding.py")
PROGRAM = """
import sys
sys.path.append(sys.argv.pop(1))
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("file", FILES)
def test_its_tests_pass_with_torch(file: str) -> None:
    """With the project's own settings: warnings are errors. A skip would mean that torch was not found."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [interpreter("transformers"), "-c", PROGRAM, sysconfig.get_path("purelib"), "-p", "no:cacheprovider", "-q",
         ROOT / "tests" / "unit" / "servers" / "lmi" / file],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        check=False,
        capture_output=True,
        text=True,
        timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout, done.stdout[-2000:]
