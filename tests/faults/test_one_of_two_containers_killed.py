"""One of an instance's containers is killed: it is replaced alone, and the other goes on."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.penstock_process import Penstock
from tests.waiting import until
from tests.wire.test_multi_container import ask, container, deploy


def by_script(penstock: Penstock) -> dict[str, psutil.Process]:
    """The servers, by what their script sends."""
    found = {}
    for server in penstock.servers():
        script = server.environ()["PENSTOCK_SCRIPT"]
        found["one" if '"one"' in script else "two"] = server
    return found


def test_the_other_goes_on(tmp_path: Path) -> None:
    penstock = Penstock(tmp_path / "home")
    try:
        penstock.start()
        containers = [container([{"send": name}], name) for name in ("one", "two")]
        deploy(penstock, "e", containers, "Direct")
        penstock.until_status("InService")
        before = by_script(penstock)
        before["two"].kill()

        def back() -> bool:
            assert ask(penstock, "e", TargetContainerHostname="one") == b"one", "at no time is it gone"
            try:
                answer = ask(penstock, "e", TargetContainerHostname="two")
            except penstock.client("sagemaker-runtime").exceptions.ModelError:
                return False
            return answer == b"two" and by_script(penstock)["two"] != before["two"]

        until(back, deadline_s=20, what="the killed one is replaced")
        assert by_script(penstock)["one"] == before["one"], "the other is not touched"
        assert penstock.client().describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"
        streams = penstock.client("logs").describe_log_streams(logGroupName="/aws/sagemaker/Endpoints/e")["logStreams"]
        assert sorted(name["logStreamName"].split("/")[2] for name in streams) == ["one", "two"], "its log goes on"
    finally:
        penstock.close()
