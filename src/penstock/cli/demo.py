"""`penstock demo`: the whole flow in one command. Starts a server, deploys the bundled Falcon behind LMI and behind TGI, streams an
answer from each, opens the chat page. Everything goes through the same verbs and the same API that a user has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated

import typer
from rich.rule import Rule

from penstock.cli import endpoints, invoke
from penstock.cli.app import Home, app, err, out
from penstock.cli.chat import point_at
from penstock.cli.deploy import bring_up
from penstock.cli.endpoints import Deployment
from penstock.cli.progress import step
from penstock.cli.server import Server, aws_errors, client, find, running, settings
from penstock.cli.up import stop, up_command, wait_ready
from penstock.config import Settings

MODEL = "penstock/falcon-demo"
LMI, TGI = "demo-falcon-lmi", "demo-falcon-tgi"
SERVING_PROPERTIES = f"""\
engine = MPI
option.model_id = {MODEL}
option.rolling_batch = auto
option.max_rolling_batch_size = 32
option.output_formatter = jsonlines
option.enable_streaming = true
"""
PROMPTS = {LMI: "what is SageMaker inference?", TGI: "what is life?"}


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the two answers; no chat page.")] = False,
    home: Home = None,
) -> None:
    """Deploy the bundled Falcon twice (LMI and TGI), stream an answer from each, open the chat page."""
    with serving(settings(home)) as server, aws_errors():
        deploy_both(server)
        for name, prompt in PROMPTS.items():
            out.print(Rule(f"{name}: {prompt}", align="left", style="dim"))
            payload = invoke.request(endpoints.dialect(endpoints.describe(server, name)), prompt, 200, None)
            invoke.stream(server, name, payload, "application/json", show=True)
        if once:
            return
        from penstock.chat.launch import PORT, command

        point_at(server.settings.home)
        os.environ["endpoint_name"] = LMI  # noqa: SIM112 - the name that AWS's sample uses
        err.print(f"the chat page: http://127.0.0.1:{PORT} (Ctrl-C ends the demo)", highlight=False)
        with contextlib.suppress(KeyboardInterrupt):
            subprocess.run(command(), check=False)


@contextmanager
def serving(known: Settings) -> Iterator[Server]:
    """The server that runs on this home, or one started for as long as the demo lasts."""
    if (server := find(known.home)) is not None:
        yield server
        return
    known = replace(known, port=_free(known.host, known.port), proxy_port=_free(known.host, known.proxy_port))
    known.paths.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = known.paths.logs / "penstock.log"
    with step("starting penstock") as tell, log.open("ab") as output:
        # A session of its own: Ctrl-C in the terminal is the demo's to handle, and it stops the server in order.
        child = subprocess.Popen(
            up_command(known), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        wait_ready(known, child, log)
        server = running(known.home)
        tell(f"ready on {server.url}")
    previous = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        yield server
    finally:
        signal.signal(signal.SIGTERM, previous)
        stop(child.pid, child)


def _free(host: str, port: int) -> int:
    """`port` if it can be bound now, else 0: a demo must not fail because something else uses 8443."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return 0
    return port


def deploy_both(server: Server) -> None:
    """Bring the two demo endpoints InService, side by side; those of an earlier demo are used again."""
    there = {e["EndpointName"]: e["EndpointStatus"] for e in client(server, "sagemaker").list_endpoints()["Endpoints"]}
    for name, status in there.items():
        if name in PROMPTS and status == "Failed":
            endpoints.remove(server, name)
            there = {**there, name: "gone"}
    if there.get(LMI) in (None, "gone"):
        artifact = endpoints.upload_artifact(server, LMI, {"serving.properties": SERVING_PROPERTIES})
        endpoints.create(server, Deployment(LMI, "penstock/lmi:0.23.0", model_data=artifact))
    if there.get(TGI) in (None, "gone"):
        endpoints.create(server, Deployment(TGI, "penstock/tgi:1.0.3", {"HF_MODEL_ID": MODEL}))
    for name in PROMPTS:
        bring_up(server, name)
