"""What clients and users can see by name is in the docs: headers, error codes, environment variables, slicing modes and faults.

Names are gathered from the source itself, so that a new one fails here until a page tells of it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.faultplan import ENDING, MODES, REFUSING, SLOWING

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "penstock"
PAGES = "\n".join(page.read_text() for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])


def gathered(pattern: str, *rooms: str) -> list[str]:
    """Everything that matches in the rooms' source files."""
    files = [file for room in rooms for file in (SOURCE / room).rglob("*.py")]
    found = {match for file in files for match in re.findall(pattern, file.read_text())}
    assert found, pattern
    return sorted(found)


HEADERS = gathered(r'"(x-amzn?-sagemaker-[a-z-]+[a-z]|x-penstock-(?:seed|faults))"', "gateway")
CODES = gathered(r'AwsError\(\s*"([A-Z][A-Za-z]+)"', "gateway", "control")
VARIABLES = sorted(
    {name for file in SOURCE.rglob("*.py") for name in re.findall(r'"(PENSTOCK_[A-Z_]+[A-Z])"', file.read_text())}
)


@pytest.mark.parametrize("header", HEADERS)
def test_headers(header: str) -> None:
    assert header in PAGES.lower()


@pytest.mark.parametrize("code", CODES)
def test_error_codes(code: str) -> None:
    assert code in PAGES


@pytest.mark.parametrize("variable", VARIABLES)
def test_environment_variables(variable: str) -> None:
    assert variable in PAGES


@pytest.mark.parametrize("name", [*MODES, *REFUSING, *ENDING, *SLOWING])
def test_slicing_modes_and_faults(name: str) -> None:
    assert f"`{name}`" in PAGES
