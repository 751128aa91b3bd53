"""A replica is killed while its endpoint serves: another takes its place, and the endpoint stays InService."""

from __future__ import annotations

from pathlib import Path

from tests.penstock_process import Penstock
from tests.waiting import until


def test_a_killed_replica_is_replaced(tmp_path: Path) -> None:
    penstock = Penstock(tmp_path / "home")
    try:
        penstock.start().deploy()
        penstock.until_status("InService")
        (old,) = penstock.servers()
        old.kill()
        until(lambda: [p.pid for p in penstock.servers()] not in ([], [old.pid]), deadline_s=15)
        assert penstock.client().describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"
        assert penstock.until_answers() == b"hello"
    finally:
        penstock.close()
