"""The relay: what a part, a request, a first byte and an idle stream cost, side by side with nginx, haproxy, Starlette and LiteLLM.

The load and the scripted server run in this process on one core, the system under test on another; systems take turns, round by round,
and only their CPU time counts. `PENSTOCK_BENCH_QUICK=1` runs two short rounds without LiteLLM; `PENSTOCK_BENCH_LITELLM=0` leaves
LiteLLM out, a path names the virtual environment it is, or will be, in.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from penstock.bench import relay_peers as peers
from penstock.bench.relay_load import ENDLESS, OPENAI, SHORT, STREAM, Load, Sample, Script, Server
from penstock.bench.relay_peers import Absent, System
from penstock.bench.report import Figure, Result
from penstock.config import Paths
from penstock.gateway.tls import ensure_certificates

STREAMED = "invocations-response-stream"
STREAMS = 100
CONNECTIONS = 32
CHAT_STREAMS = 32
MANY_ENDPOINTS = 1000
TRIES = 5
"""How often a window is measured again in which not even one part came for each stream: LiteLLM pauses for as long, now and then."""
LITELLM = Path("build") / "bench-litellm"


@dataclass
class Bench:
    """One run's settings, and what it has measured so far, by name."""

    server: Server
    directory: Path
    rounds: int
    seconds: float
    warm_s: float
    many: int
    """Streams at once in the figures about many and idle ones."""
    load_core: int
    other_core: int
    tls: ssl.SSLContext | None = None
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def upstream(self) -> int:
        return self.server.port

    def load(self, system: System, requests: list[bytes], script: Script, *, tls: bool = False) -> Load:
        port = system.ports["https" if tls else "http"]
        return Load(self.server, port, requests, script, self.tls if tls else None)

    def measure(self, system: System, requests: list[bytes], script: Script, *, tls: bool = False) -> Sample:
        with self.load(system, requests, script, tls=tls) as load:
            for _ in range(TRIES):
                sample = load.measure(system.pids, self.seconds, self.warm_s)
                if sample.parts + sample.requests >= len(requests):
                    return sample
        raise RuntimeError(f"{system.name} has done next to nothing for {TRIES} times {self.seconds:g} s")

    def keep(self, name: str, value: float) -> None:
        self.values[name].append(value)

    def placed(self, system: System) -> System:
        for pid in system.pids:
            peers.pin(pid, {self.other_core})
        return system


def run() -> Result:
    """All systems, round by round. Needs two cores."""
    quick = bool(os.environ.get("PENSTOCK_BENCH_QUICK"))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("the relay's benchmark needs two cores: one for the load, one for the system under test")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name, _listener() as listener:
        bench = Bench(
            Server(listener),
            Path(name),
            rounds=2 if quick else 9,
            seconds=0.4 if quick else 0.6,
            warm_s=0.2 if quick else 0.4,
            many=200 if quick else 2000,
            load_core=cores[0],
            other_core=cores[1],
        )
        os.sched_setaffinity(0, {bench.load_core})
        try:
            load_before = os.getloadavg()[0]
            _all(bench, quick)
        finally:
            os.sched_setaffinity(0, set(cores))
    return _result(bench, load_before)


@contextlib.contextmanager
def _listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        listener.setblocking(False)
        yield listener


def _all(bench: Bench, quick: bool) -> None:
    paths = Paths(bench.directory / "peers")
    paths.run.mkdir(parents=True)
    ensure_certificates(paths)
    bench.tls = ssl.create_default_context()
    bench.tls.check_hostname = False
    bench.tls.verify_mode = ssl.CERT_NONE  # the gateway's own CA is made anew for each start
    with contextlib.ExitStack() as stack:
        systems: dict[str, System] = {}
        _start(bench, stack, systems, "penstock", lambda: peers.gateway(bench.upstream, bench.directory))
        _start(bench, stack, systems, "nginx", lambda: peers.nginx(bench.upstream, bench.directory, paths))
        _start(bench, stack, systems, "haproxy", lambda: peers.haproxy(bench.upstream, bench.directory))
        _start(bench, stack, systems, "starlette", lambda: peers.starlette(bench.upstream, bench.directory))
        thousand = lambda: peers.gateway(bench.upstream, bench.directory, endpoints=MANY_ENDPOINTS)  # noqa: E731
        _start(bench, stack, systems, "thousand", thousand)
        for number in range(bench.rounds):
            _parts(bench, systems)
            _growth(bench, systems)
            _requests(bench, systems)
            _first_bytes(bench, systems)
            _told(bench, f"round {number + 1}")
    _idle(bench, paths)
    _workers(bench)
    if not quick:
        _litellm(bench)


def _start(
    bench: Bench,
    stack: contextlib.ExitStack,
    systems: dict[str, System],
    name: str,
    make: Callable[[], contextlib.AbstractContextManager[System]],
) -> None:
    try:
        systems[name] = bench.placed(stack.enter_context(make()))
    except Absent as reason:
        print(f"{name} is left out: {reason}", flush=True)


def _parts(bench: Bench, systems: dict[str, System]) -> None:
    """µs of CPU a part, each 64 parts with a request of their own, plain and over TLS."""
    for name in ("nginx", "penstock", "haproxy", "starlette"):
        if name in systems:
            sample = bench.measure(systems[name], peers.signed_requests(STREAMED, STREAMS), STREAM)
            bench.keep(f"part/{name}", sample.us_a_part)
    for name in ("nginx", "penstock"):
        if name in systems:
            sample = bench.measure(systems[name], peers.signed_requests(STREAMED, STREAMS), STREAM, tls=True)
            bench.keep(f"tls/{name}", sample.us_a_part)


def _growth(bench: Bench, systems: dict[str, System]) -> None:
    """µs a part of streams that never end, few and many; and with one endpoint in the table or a thousand."""
    endless = STREAM.of(ENDLESS)
    for name in ("penstock", "nginx"):
        for count in (10, bench.many):
            if name in systems:
                sample = bench.measure(systems[name], peers.signed_requests(STREAMED, count), endless)
                bench.keep(f"streams/{name}/{count}", sample.us_a_part)
    for name, endpoints in (("penstock", 1), ("thousand", MANY_ENDPOINTS)):
        sample = bench.measure(systems[name], peers.signed_requests(STREAMED, STREAMS, endpoints), STREAM)
        bench.keep(f"endpoints/{endpoints}", sample.us_a_part)


def _requests(bench: Bench, systems: dict[str, System]) -> None:
    """µs a plain request and its answer of 200 bytes, on kept-alive connections."""
    for name in ("nginx", "penstock", "haproxy"):
        if name in systems:
            sample = bench.measure(systems[name], peers.signed_requests("invocations", CONNECTIONS), SHORT)
            bench.keep(f"request/{name}", sample.us_a_request)


def _first_bytes(bench: Bench, systems: dict[str, System]) -> None:
    """Milliseconds from a request to its first part, one stream at a time."""
    for name in ("nginx", "penstock"):
        if name in systems:
            with bench.load(systems[name], peers.signed_requests(STREAMED, 1), STREAM.of(2)) as load:
                load.run(bench.warm_s)
                load.first_parts.clear()
                load.run(bench.seconds)
                bench.keep(f"first/{name}", statistics.median(load.first_parts) * 1000)


def _idle(bench: Bench, paths: Paths) -> None:
    """KiB a stream that has had one part and waits; each time in a process that has served a few before."""
    makers: dict[str, Callable[[], contextlib.AbstractContextManager[System]]] = {
        "nginx": lambda: peers.nginx(bench.upstream, bench.directory, paths),
        "penstock": lambda: peers.gateway(bench.upstream, Path(tempfile.mkdtemp(dir=bench.directory))),
    }
    requests = peers.signed_requests(STREAMED, bench.many)
    for _ in range(max(1, bench.rounds // 2)):
        for name, make in makers.items():
            with contextlib.ExitStack() as stack:
                systems: dict[str, System] = {}
                _start(bench, stack, systems, name, make)
                if name not in systems:
                    continue
                system = systems[name]
                bench.measure(system, requests[:50], STREAM)
                before = system.memory_kib
                with bench.load(system, requests, STREAM.of(0)) as load:
                    load.until_all_answered()
                    load.run(0.5)
                    bench.keep(f"idle/{name}", (system.memory_kib - before) / bench.many)
    _told(bench, "idle")


def _workers(bench: Bench) -> None:
    """What two workers can carry over what one can, if the load took nothing from either."""
    requests = peers.signed_requests(STREAMED, STREAMS)
    with (
        peers.gateway(bench.upstream, Path(tempfile.mkdtemp(dir=bench.directory))) as one,
        peers.gateway(bench.upstream, Path(tempfile.mkdtemp(dir=bench.directory)), workers=2) as two,
    ):
        bench.placed(one)
        for pid, core in zip(two.pids, (bench.other_core, bench.load_core), strict=True):
            peers.pin(pid, {core})
        for _ in range(bench.rounds):
            single = bench.measure(one, requests, STREAM).parts_a_busy_second
            bench.keep("workers", bench.measure(two, requests, STREAM).parts_a_busy_second / single)
    _told(bench, "workers")


def _litellm(bench: Bench) -> None:
    """µs a part of the LiteLLM proxy, and of the gateway in the same minutes."""
    wanted = os.environ.get("PENSTOCK_BENCH_LITELLM", "")
    if wanted == "0":
        print("litellm is left out: PENSTOCK_BENCH_LITELLM=0", flush=True)
        return
    environment = Path(wanted or LITELLM).absolute()
    with contextlib.ExitStack() as stack:
        systems: dict[str, System] = {}
        _start(bench, stack, systems, "litellm", lambda: peers.litellm(bench.upstream, bench.directory, environment))
        home = Path(tempfile.mkdtemp(dir=bench.directory))
        _start(bench, stack, systems, "penstock", lambda: peers.gateway(bench.upstream, home))
        if "litellm" in systems:
            for _ in range(bench.rounds):
                sample = bench.measure(systems["litellm"], peers.chat_requests(CHAT_STREAMS), OPENAI)
                bench.keep("chat/litellm", sample.us_a_part)
                sample = bench.measure(systems["penstock"], peers.signed_requests(STREAMED, CHAT_STREAMS), OPENAI)
                bench.keep("chat/penstock", sample.us_a_part)
    _told(bench, "litellm")


def _told(bench: Bench, what: str) -> None:
    print(f"{what}: " + ", ".join(f"{name} {values[-1]:.3g}" for name, values in bench.values.items()), flush=True)


def _result(bench: Bench, load_before: float) -> Result:
    figures: list[Figure] = []

    def ratio(name: str, over: str, under: str, target: str) -> None:
        if bench.values.get(over) and bench.values.get(under):
            pairs = zip(bench.values[over], bench.values[under], strict=True)
            figures.append(Figure(name, "times", tuple(one / other for one, other in pairs), target))

    def plain(name: str, unit: str, measured: str, target: str = "") -> None:
        if bench.values.get(measured):
            figures.append(Figure(name, unit, tuple(bench.values[measured]), target))

    ratio("relay_vs_nginx", "part/penstock", "part/nginx", "≤ 1.25")
    ratio("relay_vs_starlette", "part/penstock", "part/starlette", "≤ 0.10")
    ratio("relay_vs_litellm", "chat/penstock", "chat/litellm", "≤ 0.05")
    if bench.values.get("first/nginx"):
        pairs = zip(bench.values["first/penstock"], bench.values["first/nginx"], strict=True)
        figures.append(Figure("ttfb_over_nginx_ms_p50", "ms", tuple(one - other for one, other in pairs), "≤ 0.4"))
    ratio("request_vs_nginx", "request/penstock", "request/nginx", "≤ 3.5")
    plain("idle_stream_kib", "KiB", "idle/penstock", "≤ 8")
    ratio("tls_relay_vs_nginx_tls", "tls/penstock", "tls/nginx", "≤ 1.5")
    plain("workers_scaling", "times", "workers")
    ratio("relay_growth_streams", f"streams/penstock/{bench.many}", "streams/penstock/10", "< 1.10 from 10 to 2,000")
    ratio("relay_growth_endpoints", f"endpoints/{MANY_ENDPOINTS}", "endpoints/1", "< 1.10 from 1 to 1,000")
    ratio("nginx_growth_streams", f"streams/nginx/{bench.many}", "streams/nginx/10", "")
    for system in ("penstock", "nginx", "haproxy", "starlette"):
        plain(f"{system}_us_a_part", "µs", f"part/{system}")
    for system in ("penstock", "nginx"):
        plain(f"{system}_tls_us_a_part", "µs", f"tls/{system}")
    for system in ("penstock", "nginx", "haproxy"):
        plain(f"{system}_us_a_request", "µs", f"request/{system}")
    plain("nginx_idle_stream_kib", "KiB", "idle/nginx")
    return Result("relay", "The relay", figures, _notes(bench, load_before))


def _notes(bench: Bench, load_before: float) -> tuple[str, ...]:
    return (
        f"CPU time of the system under test alone, on a core of its own; load and scripted server on another; {bench.rounds} rounds, "
        f"systems in turn, ratios within a round; the machine's load before the run was {load_before:.1f}. "
        f"{STREAMS} streams of 64 parts of 63 bytes, part k+1 sent when part k has arrived, so that nothing is joined; a part's cost "
        "has a 64th of a request's in it, signature included. Penstock verifies SigV4 and frames; all others pass bytes.",
        "",
        f"`relay_vs_litellm`: {CHAT_STREAMS} streams of OpenAI events. `request_vs_nginx`: {CONNECTIONS} connections, answers of 200 "
        f"bytes. `idle_stream_kib`: growth of PSS with {bench.many} streams that have had one part. `relay_growth_streams`: streams "
        "that never end. `workers_scaling`: parts a second of the busier worker's CPU time, two workers over one.",
    )
