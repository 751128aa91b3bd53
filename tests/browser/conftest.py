"""Headless Chromium and the chat page as its users start it. Where there is no Chromium the tests are skipped, and say so."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from penstock.chat.launch import base_path
from tests.waiting import until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NOBODYS_AWS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}

Serve = Callable[..., str]
expect.set_options(timeout=30_000)  # ms; two cores shared by the browser, the page, Penstock and its replicas


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser" in str(item.path):
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None:
                reason = "no Chromium: apt-get install --no-install-recommends chromium fonts-dejavu-core"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a module's tests; Playwright keeps an event loop in this thread, which no async test may meet."""
    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page; a script error in it fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve({"AWS_ENDPOINT_URL": …}, studio=…)` starts the chat page and gives its address, base path included.

    With a `home`, it is `penstock chat` that starts it, for the server that runs on that home.
    """
    running: list[tuple[subprocess.Popen[bytes], IO[Any]]] = []

    def start(environment: Mapping[str, str], *, studio: bool = False, home: Path | None = None) -> str:
        port = free_port()
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("AWS_") and name != "endpoint_name"
        }
        log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with its process
        command = ["-c", f"from penstock.chat.launch import main; raise SystemExit(main(port={port}, studio={studio}))"]
        if home is not None:
            command = ["-m", "penstock.cli.main", "chat", "--home", str(home), "--port", str(port)]
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**clean, **NOBODYS_AWS, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        running.append((process, log))
        root = f"http://127.0.0.1:{port}/" + (f"{base_path(port)}/" if studio else "")

        def answers() -> bool:
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"the chat page ended: {log.read().decode()}")
            try:
                with urllib.request.urlopen(f"{root}_stcore/health", timeout=2) as response:
                    return bool(response.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        until(answers, deadline_s=60, every_s=0.1, what="the chat page answers")
        return root

    yield start
    for process, log in running:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
