"""docs/containers.md names every variable that a replica gets, and whether the user can change it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.placement import environment
from tests.replicas import ROOT, spec

PAGE = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")
ROWS: dict[str, str] = dict(re.findall(r"^\| (`[A-Z_`, …]+) \|.*\| ([a-z ]+) \|$", PAGE, re.MULTILINE))
PARENT = {"PATH": "/bin", "PYTHONPATH": "/p", **dict.fromkeys(environment.PASSED, "given"), "OTHER": "x"}


def made(**given: str) -> dict[str, str]:
    return environment.replica_environment(
        spec(environment=given),
        directory=Path("/r/1"),
        port=9000,
        models=Path("/m"),
        aws={"AWS_ENDPOINT_URL": "https://localhost"},
        parent=PARENT,
    )


def row(name: str) -> str:
    for names, changeable in ROWS.items():
        if f"`{name}`" in names:
            return changeable
    assert name.startswith("AWS_"), f"{name} is not on the page"
    return ROWS["`AWS_…`"]


@pytest.mark.parametrize("name", sorted(made()))
def test_the_page_says_truly_whether_a_variable_can_be_changed(name: str) -> None:
    value = made(**{name: "mine"})[name]
    assert value == {"no": made()[name], "yes": "mine", "adds to it": "/p:mine"}[row(name)]


def test_nothing_else_is_given() -> None:
    assert "OTHER" not in made()
    assert made(MINE="1")["MINE"] == "1"


def test_the_packages_own_place_goes_first_where_it_is_needed() -> None:
    value = environment.replica_environment(
        spec(), directory=Path("/r"), port=1, models=Path("/m"), aws={}, parent=PARENT, package_root=Path("/src")
    )
    assert value["PYTHONPATH"] == "/src:/p"
    assert "PYTHONPATH" not in environment.replica_environment(
        spec(), directory=Path("/r"), port=1, models=Path("/m"), aws={}, parent={}
    )
