"""Hostile streams: what they cost where they are off, against a gateway that has never heard of them.

The form is the relay's: load and container on one core, the gateway on another, systems in turn, only the gateway's CPU time counts.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from penstock.bench import relay_peers as peers
from penstock.bench.relay import CONNECTIONS, STREAMED, STREAMS, Bench, _listener
from penstock.bench.relay_load import SHORT, STREAM, Server
from penstock.bench.report import Figure, Result

PLAN = '{"faults": [{"kind": "end", "after_parts": 1000000}]}'
"""Never strikes, but has every part go through the executor."""
SYSTEMS = ("absent", "off", "beside", "on")


def run() -> Result:
    """Needs two cores. `PENSTOCK_BENCH_QUICK=1` runs two short rounds."""
    quick = bool(os.environ.get("PENSTOCK_BENCH_QUICK"))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this benchmark needs two cores: one for the load, one for the gateway")
    rounds, seconds, warm_s = (2, 0.4, 0.2) if quick else (9, 1.0, 0.3)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name, _listener() as listener:
        bench = Bench(Server(listener), Path(name), rounds, seconds, warm_s, 0, cores[0], cores[1])
        os.sched_setaffinity(0, {bench.load_core})
        try:
            load_before = os.getloadavg()[0]
            _rounds(bench)
        finally:
            os.sched_setaffinity(0, set(cores))
    return _result(bench, load_before)


def _rounds(bench: Bench) -> None:
    absent = "penstock.bench.hostile_absent"
    home = {name: bench.directory / name for name in SYSTEMS}
    with contextlib.ExitStack() as stack:
        systems = {
            "absent": peers.gateway(bench.upstream, home["absent"], module=absent),
            "off": peers.gateway(bench.upstream, home["off"]),
            "beside": peers.gateway(bench.upstream, home["beside"], endpoints=2, faults={1: PLAN}),
            "on": peers.gateway(bench.upstream, home["on"], faults={0: PLAN}),
        }
        started = {name: bench.placed(stack.enter_context(system)) for name, system in systems.items()}
        streams, requests = peers.signed_requests(STREAMED, STREAMS), peers.signed_requests("invocations", CONNECTIONS)
        for number in range(bench.rounds):
            # Each round begins with another one, so that none always follows the same neighbour.
            for name in SYSTEMS[number % len(SYSTEMS) :] + SYSTEMS[: number % len(SYSTEMS)]:
                bench.keep(f"part/{name}", bench.measure(started[name], streams, STREAM).us_a_part)
                bench.keep(f"request/{name}", bench.measure(started[name], requests, SHORT).us_a_request)
            told = ", ".join(f"{name} {values[-1]:.3g}" for name, values in sorted(bench.values.items()))
            print(f"round {number + 1}: {told}", flush=True)


def _result(bench: Bench, load_before: float) -> Result:
    def ratio(name: str, what: str, over: str, target: str = "") -> Figure:
        pairs = zip(bench.values[f"{what}/{over}"], bench.values[f"{what}/absent"], strict=True)
        return Figure(name, "times", tuple(one / other for one, other in pairs), target)

    figures = [
        ratio("hostile_off_part", "part", "off", "1: no measurable cost"),
        ratio("hostile_off_request", "request", "off", "1: no measurable cost"),
        ratio("hostile_beside_part", "part", "beside", "1: no measurable cost"),
        ratio("hostile_beside_request", "request", "beside", "1: no measurable cost"),
        ratio("hostile_on_part", "part", "on"),
        *(Figure(f"{name}_us_a_part", "µs", tuple(bench.values[f"part/{name}"])) for name in SYSTEMS),
    ]
    notes = (
        f"The gateway's CPU time over that of one whose dispatch never looks at fault plans; {bench.rounds} rounds, systems in turn, "
        f"ratios within a round; the machine's load before the run was {load_before:.1f}. `off`: no endpoint has a plan. `beside`: "
        "another endpoint has one. `on`: a plan that never strikes, so that each part goes through the executor and arrives as it is.",
    )
    return Result("hostile", "Hostile streams, off and on", figures, notes)
