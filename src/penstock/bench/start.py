"""Starting: how long until `penstock up` serves, what it weighs idle, how long until the bundled model is InService.

Each run has a home of its own, so that nothing is warm but the disk cache. Times are wall seconds; memory is PSS, which counts a
page shared by two processes once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from penstock.bench.report import Figure, Result
from penstock.cli import endpoints
from penstock.cli.endpoints import Deployment
from penstock.cli.server import Server, running

RUNS = 5
IDLE_S = 3.0
MODEL = "penstock/falcon-demo"


def run() -> Result:
    """Five fresh homes, one after another."""
    ready: list[float] = []
    memory: list[float] = []
    lmi: list[float] = []
    tgi: list[float] = []
    for number in range(RUNS):
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
            child, seconds = start(Path(directory) / "home")
            try:
                server = running(Path(directory) / "home")
                time.sleep(IDLE_S)
                ready.append(seconds)
                memory.append(sum(pss_mb(pid) for pid in tree(child.pid)))
                lmi.append(in_service(server, "lmi", "penstock/lmi:0.23.0", {"OPTION_OUTPUT_FORMATTER": "jsonlines"}))
                tgi.append(in_service(server, "tgi", "penstock/tgi:1.0.3", {}))
            finally:
                child.terminate()
                child.wait(timeout=90)
        print(
            f"run {number + 1}: ready {ready[-1]:.2f} s, idle {memory[-1]:.0f} MB, LMI {lmi[-1]:.2f} s, TGI {tgi[-1]:.2f} s"
        )
    return Result(
        "start",
        "Starting",
        (
            Figure("ready_s", "s", tuple(ready), "≤ 2 s"),
            Figure("idle_mb", "MB", tuple(memory), "≤ 150 MB, both processes"),
            Figure("lmi_in_service_s", "s", tuple(lmi), "≤ 5 s after CreateEndpoint"),
            Figure("tgi_in_service_s", "s", tuple(tgi), "≤ 5 s after CreateEndpoint"),
        ),
        (
            f"`ready_s` includes making the CA and the certificates; idle memory is PSS {IDLE_S:g} s after ready, no endpoint.",
        ),
    )


def start(home: Path) -> tuple[subprocess.Popen[bytes], float]:
    """`penstock up` on free ports, and the seconds until `run/server.json` is there."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "penstock.cli.main", "up", "--home", str(home), "--port", "0", "--proxy-port", "0"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while time.monotonic() < begin + 30:
        if child.poll() is not None:
            raise RuntimeError(f"penstock up ended with {child.returncode}")
        try:
            json.loads((home / "run" / "server.json").read_text())
        except (FileNotFoundError, ValueError):
            time.sleep(0.005)
        else:
            return child, time.monotonic() - begin
    child.kill()
    raise TimeoutError("penstock up was not ready within 30 s")


def in_service(server: Server, name: str, image: str, environment: dict[str, str]) -> float:
    """Seconds from CreateEndpoint to InService of the bundled model."""
    begin = time.monotonic()
    endpoints.create(server, Deployment(name, image, {"HF_MODEL_ID": MODEL, **environment}))
    seen = endpoints.wait(server, name, lambda _: None)
    if seen["EndpointStatus"] != "InService":
        raise RuntimeError(f"{name}: {seen.get('FailureReason')}")
    return time.monotonic() - begin


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
            found += tree(int(child))
    return found


def pss_mb(pid: int) -> float:
    """Proportional resident memory in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
