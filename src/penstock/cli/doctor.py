"""`penstock doctor`: what works on this machine, what is missing, and the command that cures it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import typer
from rich.table import Table

from penstock._speed import COMPILED, WHY_NOT, asked_for
from penstock.cli.app import Home, Json, app, out, print_json
from penstock.cli.server import find, settings
from penstock.config import Settings

Verdict = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. "missing" is optional and absent; "broken" keeps Penstock from working."""

    what: str
    verdict: Verdict
    detail: str
    cure: str = ""


@app.command()
def doctor(as_json: Json = False, home: Home = None) -> None:
    """Check this machine; exit 1 if something that Penstock needs is broken."""
    known = settings(home)
    findings = [finding for check in CHECKS for finding in check(known)]
    if as_json:
        print_json([{"what": f.what, "verdict": f.verdict, "detail": f.detail, "cure": f.cure} for f in findings])
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        marks = {"ok": "[green]ok[/]", "missing": "[yellow]missing[/]", "broken": "[red]broken[/]"}
        for f in findings:
            table.add_row(marks[f.verdict], f.what, f.detail + (f"\n[dim]cure:[/] {f.cure}" if f.cure else ""))
        out.print(table)
    if any(f.verdict == "broken" for f in findings):
        raise typer.Exit(1)


def python(_: Settings) -> Iterator[Finding]:
    yield Finding("Python", "ok", platform.python_version())


def compiled(_: Settings) -> Iterator[Finding]:
    """The gateway's compiled twin, which is optional: without it Python does the same work at a higher price."""
    if COMPILED:
        yield Finding("gateway in C", "ok", "in use")
    else:
        cure = "install gcc and Python's headers (python3-dev), then: pip install --force-reinstall --no-deps penstock"
        yield Finding(
            "gateway in C", "missing", f"not in use: {WHY_NOT}", "unset PENSTOCK_PURE" if asked_for() else cure
        )


def engine(_: Settings) -> Iterator[Finding]:
    """OpenVINO, without importing it: that costs a second."""
    if importlib.util.find_spec("openvino_genai") is None:
        yield Finding("OpenVINO GenAI", "broken", "not installed", "pip install openvino-genai")
    else:
        yield Finding("OpenVINO GenAI", "ok", importlib.metadata.version("openvino-genai"))
    flags = _cpu_flags()
    fast = [flag for flag in ("avx512_bf16", "amx_bf16", "avx512f", "avx2") if flag in flags]
    yield Finding("CPU", "ok", f"{os.cpu_count()} cores, {', '.join(fast) or 'no vector extensions known'}")


def _cpu_flags() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo") as info:
            return frozenset(next((line for line in info if line.startswith("flags")), "").split())
    except OSError:
        return frozenset()


def disk(known: Settings) -> Iterator[Finding]:
    place = known.home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{known.home}, {free / 1e9:.1f} GB free"
    if not os.access(place, os.W_OK):
        yield Finding("home", "broken", f"{known.home} can't be written", "use --home DIR or PENSTOCK_HOME")
    elif free < 500e6:
        yield Finding("home", "broken", text, "free some disk, or use --home DIR")
    else:
        yield Finding("home", "ok", text)


def server(known: Settings) -> Iterator[Finding]:
    running = find(known.home)
    if running is not None:
        yield Finding("server", "ok", f"runs on {running.url} (pid {running.pid})")
        return
    yield Finding("server", "missing", "does not run", "penstock up")
    for port, option in ((known.port, "--port"), (known.proxy_port, "--proxy-port")):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((known.host, port))
            except OSError as error:
                yield Finding("port", "broken", f"{known.host}:{port}: {error.strerror}", f"penstock up {option} N")
            else:
                yield Finding("port", "ok", f"{known.host}:{port} is free")


def bundled(_: Settings) -> Iterator[Finding]:
    from penstock.aliases import BUILT_IN

    for hub_id, directory in BUILT_IN.items():
        if (directory / "openvino_model.xml").exists():
            yield Finding("bundled model", "ok", hub_id)
        else:
            yield Finding(
                "bundled model", "broken", f"{hub_id} is incomplete", "pip install --force-reinstall penstock"
            )


def extras(_: Settings) -> Iterator[Finding]:
    for extra, module, what in (("chat", "streamlit", "chat page"), ("bidi", "h2", "bidirectional streams")):
        if importlib.util.find_spec(module) is None:
            yield Finding(what, "missing", f"{module} is not installed", f"pip install 'penstock[{extra}]'")
        else:
            yield Finding(what, "ok", f"{module} {importlib.metadata.version(module)}")


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (python, compiled, engine, disk, server, bundled, extras)
