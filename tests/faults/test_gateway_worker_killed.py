"""A gateway worker is killed: another takes its place, with the same table, on the same port."""

from __future__ import annotations

from pathlib import Path

from tests.penstock_process import Penstock
from tests.waiting import until


def test_a_killed_worker_is_replaced_and_endpoints_answer_again(tmp_path: Path) -> None:
    penstock = Penstock(tmp_path / "home")
    try:
        penstock.start().deploy()
        penstock.until_status("InService")
        ports = penstock.state["ports"]
        (old,) = penstock.gateways()
        server = penstock.servers()
        old.kill()
        until(lambda: [p.pid for p in penstock.gateways()] not in ([], [old.pid]), deadline_s=15)
        assert penstock.until_answers() == b"hello"
        assert penstock.state["ports"] == ports
        assert penstock.servers() == server, "replicas don't notice"
    finally:
        penstock.close()
