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
SLICES = 5
"""Short measurements of each system in a round. The least of them counts: what else runs on a machine only ever adds."""
SYSTEMS = ("absent", "off", "beside", "on")


def run() -> Result:
    """Needs two cores. `PENSTOCK_BENCH_QUICK=1` runs two short rounds."""
    quick = bool(os.environ.get("PENSTOCK_BENCH_QUICK"))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this benchmark needs two cores: one for the load, one for the gateway")
    rounds, seconds, warm_s = (2, 0.25, 0.1) if quick else (7, 0.3, 0.1)
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
    streams, requests = peers.signed_requests(STREAMED, STREAMS), peers.signed_requests("invocations", CONNECTIONS)
    for number in range(bench.rounds):
        with contextlib.ExitStack() as stack:
            systems = {
                name: bench.placed(stack.enter_context(_system(bench, name, bench.directory / f"{name}-{number}")))
                for name in SYSTEMS
            }
            parts: dict[str, list[float]] = {name: [] for name in SYSTEMS}
            answers: dict[str, list[float]] = {name: [] for name in SYSTEMS}
            for turn in range(SLICES):
                # Each turn begins with another one, so that none always follows the same neighbour.
                for name in SYSTEMS[turn % len(SYSTEMS) :] + SYSTEMS[: turn % len(SYSTEMS)]:
                    parts[name].append(bench.measure(systems[name], streams, STREAM).us_a_part)
                    answers[name].append(bench.measure(systems[name], requests, SHORT).us_a_request)
        for name in SYSTEMS:
            bench.keep(f"part/{name}", min(parts[name]))
            bench.keep(f"request/{name}", min(answers[name]))
        told = ", ".join(f"{name} {values[-1]:.3g}" for name, values in sorted(bench.values.items()))
        print(f"round {number + 1}: {told}", flush=True)


def _system(bench: Bench, name: str, home: Path) -> contextlib.AbstractContextManager[peers.System]:
    """Of new processes each round: where a process happens to lie in memory is worth several percent."""
    match name:
        case "absent":
            return peers.gateway(bench.upstream, home, module="penstock.bench.hostile_absent")
        case "beside":
            return peers.gateway(bench.upstream, home, endpoints=2, faults={1: PLAN})
        case _:
            return peers.gateway(bench.upstream, home, faults={0: PLAN} if name == "on" else {})


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
        f"The gateway's CPU time over that of one whose dispatch never looks at fault plans. {bench.rounds} rounds of new processes; in "
        f"each, systems in turn, the least of {SLICES} short measurements, and ratios of these. The machine's load before the run was "
        f"{load_before:.1f}: with other work beside it single ratios swing by tenths. `off`: no endpoint has a plan. `beside`: another "
        "endpoint has one. `on`: a plan that never strikes, so that each part goes through the executor and arrives as it is.",
    )
    return Result("hostile", "Hostile streams, off and on", figures, notes)
