"""The command line that starts the page."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from penstock.chat import launch


def options(command: list[str]) -> dict[str, str]:
    return dict(zip(command[5::2], command[6::2], strict=True))


def test_by_itself_it_is_served_at_the_root_on_loopback() -> None:
    command = launch.command()
    assert command[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert Path(command[4]).name == "app.py"
    told = options(command)
    assert (told["--server.port"], told["--server.address"], told["--server.headless"]) == ("6006", "127.0.0.1", "true")
    assert told["--browser.gatherUsageStats"] == "false"
    assert "--server.baseUrlPath" not in told
    assert "--server.enableCORS" not in told


def test_in_studio_it_has_the_proxys_path() -> None:
    command = launch.command(port=7001, studio=True)
    told = options(command)
    assert Path(command[4]).name == "studio.py"
    assert told["--server.baseUrlPath"] == "jupyter/default/proxy/7001"
    assert (told["--server.enableCORS"], told["--server.enableXsrfProtection"]) == ("false", "false")
    assert all(Path(launch.command(studio=studio)[4]).is_file() for studio in (True, False))


def test_without_streamlit_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert launch.main() == 1
    assert "pip install 'penstock[chat]'" in capsys.readouterr().err


def test_the_process_becomes_streamlit(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: became.append(arguments))
    launch.main(port=7002)
    assert became == [launch.command(port=7002)]
