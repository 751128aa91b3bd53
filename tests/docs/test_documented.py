"""Every verb, option and setting is in the docs, and the docs name none that is gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from penstock.cli.app import app
from penstock.cli.main import VERBS, gather
from penstock.config import Limits, Settings

DOCS = Path(__file__).parent.parent.parent / "docs"
CLI = (DOCS / "cli.md").read_text()


def commands(group: TyperGroup, prefix: str = "") -> Iterator[tuple[str, TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{prefix}{name} ")
        elif isinstance(command, TyperCommand):
            yield f"{prefix}{name}", command


def verbs() -> list[tuple[str, TyperCommand]]:
    gather()
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    found = list(commands(group))
    assert len(found) > 15
    return found


@pytest.mark.parametrize(("verb", "command"), verbs(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_verb_and_option_is_documented(verb: str, command: TyperCommand) -> None:
    first, _, second = verb.partition(" ")
    assert f"penstock {first}" in CLI
    assert second in CLI
    for parameter in command.params:
        long = [name for name in parameter.opts if name.startswith("--")]
        for name in long:
            assert f"`{name}" in CLI, f"penstock {verb} {name}"


def test_the_command_knows_which_module_a_verb_is_in() -> None:
    gather()
    registered = {
        (one.callback.__module__, one.name or one.callback.__name__) for one in app.registered_commands if one.callback
    }
    for group in app.registered_groups:
        assert group.typer_instance is not None
        callback = group.typer_instance.registered_commands[0].callback
        assert callback is not None
        registered.add((callback.__module__, str(group.name)))
    assert registered == {(f"penstock.cli.{module}", verb) for module, verbs in VERBS.items() for verb in verbs}


def test_the_docs_name_no_verb_that_is_gone() -> None:
    known = {verb.split()[0] for verb, _ in verbs()}
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for verb in re.findall(r"`penstock ([a-z]+)", page.read_text()):
            assert verb in known, f"{page.name}: penstock {verb}"


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(PENSTOCK_[A-Z_]+)` \| ([^|]+) \|", CLI, re.MULTILINE))
    defaults = {f.name: getattr(Settings(), f.name) for f in fields(Settings) if f.name != "limits"}
    defaults |= {f.name: getattr(Limits(), f.name) for f in fields(Limits)}
    assert set(rows) == {f"PENSTOCK_{name.upper()}" for name in defaults}
    for name, default in defaults.items():
        if isinstance(default, (int, float)):
            assert float(rows[f"PENSTOCK_{name.upper()}"]) == default, name


@pytest.mark.parametrize(
    "page", [DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *DOCS.glob("*.md")], ids=lambda p: p.name
)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} -> {target}"
