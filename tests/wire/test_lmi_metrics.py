"""A handler's own metrics: lines of its output that reach `/metrics`, and the log as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lmi_server import Server, running
from tests.waiting import until
from tests.wire.test_lmi_handlers import write_handler

HANDLER = """
import os, sys, subprocess
from djl_python import Input, Output

def handle(inputs: Input):
    if inputs.is_empty():
        print("[METRICS]Loads.Count:1|#Model:blog")
        return None
    body = inputs.get_as_json()
    print("before", body["n"], flush=True)
    print(f"[METRICS]Inference.Milliseconds:{body['n']}|#Model:blog|#hostname:here,1650953744320")
    print("[METRICS]Requests.Count:1|#Model:blog|1650953744320|c")
    sys.stdout.write("x" * body.get("long", 0) + chr(10))
    if body.get("die"):
        subprocess.Popen(["sleep", "600"])
        print("[METRICS]Deaths.Count:1|#Model:blog", flush=True)
        os._exit(1)
    return Output().add("done")
"""


def serving(tmp_path: Path, version: str, prometheus: str) -> dict[str, str]:
    write_handler(tmp_path / "model", handler=HANDLER)
    return {"PENSTOCK_SERVER_VERSION": version, "SERVING_PROMETHEUS": prometheus}


def metric(server: Server, line: str) -> bool:
    return line in server.get("/metrics").body.decode()


def test_they_are_on_the_page_and_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path, tmp_path / "model", **serving(tmp_path, "0.27.0", "true")) as server:
        for number in (5, 7):
            assert server.ask({"n": number, "long": 200_000}).body == b"done"
        until(lambda: metric(server, 'Requests_total{Model="blog"} 2.0'))
        until(lambda: metric(server, 'Inference{Model="blog"} 7.0'))
        assert metric(server, 'Loads_total{Model="blog"} 1.0')
        assert metric(server, 'Response_2XX_total{Host="')
        assert "Requests" not in server.get("/metrics?name[]=Inference").body.decode()
        assert server.log.count("before 5\n") == 1
        assert server.log.count("[METRICS]Requests.Count:1|#Model:blog|1650953744320|c\n") == 2
        assert server.log.count("x" * 200_000) == 2, "nothing of what it says is lost"


def test_the_last_words_of_one_that_dies_count(tmp_path: Path) -> None:
    with running(tmp_path, tmp_path / "model", **serving(tmp_path, "0.36.0", "true")) as server:
        assert server.ask({"n": 1, "die": True}).status == 503
        until(lambda: metric(server, 'Deaths_total{Model="blog"} 1.0'))
        until(lambda: metric(server, 'Loads_total{Model="blog"} 2.0'), what="another one is there")
        assert server.ask({"n": 2}).body == b"done"
        until(lambda: metric(server, 'Requests_total{Model="blog"} 2.0'))


@pytest.mark.parametrize(("version", "prometheus"), [("0.26.0", "true"), ("0.27.0", "false")])
def test_else_they_are_lines_of_the_log(version: str, prometheus: str, tmp_path: Path) -> None:
    with running(tmp_path, tmp_path / "model", **serving(tmp_path, version, prometheus)) as server:
        assert server.ask({"n": 5}).body == b"done"
        until(lambda: "[METRICS]Requests.Count:1|#Model:blog" in server.log)
        assert server.get("/metrics").status in (400, 404)
