"""The engine: tokens a second through an endpoint, beside the engine alone, transformers, vLLM and llama.cpp.

Models of about 100 million random weights, 128 tokens in, 64 out, greedy, at 1, 4, 16 and 32 requests at once. Everything runs on the
same two cores, the clients too; systems take turns within a round, and those that wait are stopped. Ratios are of one round's pairs.

The peers' environments are made once, below `build/bench-engine`, which takes some twenty minutes; a peer that can't be made or started is
named with its reason, and its figures are left out. `PENSTOCK_BENCH_QUICK=1` runs one round of 1 and 4 requests;
`PENSTOCK_BENCH_TRANSFORMERS`, `PENSTOCK_BENCH_VLLM`, `PENSTOCK_BENCH_CONVERTER` (environments) and `PENSTOCK_BENCH_LLAMACPP` (the
program) name ones that exist; `0` leaves a peer out.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from penstock.bench import engine_models as models
from penstock.bench import engine_peers as peers
from penstock.bench.engine_endpoint import LMI, TGI, Penstock, penstock
from penstock.bench.engine_figures import Values, figures, notes
from penstock.bench.engine_load import Broken, Sample
from penstock.bench.engine_models import FALCON, LLAMA, Shape
from penstock.bench.engine_peers import BUILD, System
from penstock.bench.relay_peers import Absent
from penstock.bench.report import Result
from penstock.engines.tokenizer import TextTokenizer

CORES = 2
PROMPT, ANSWER = 128, 64
ROUNDS = {1: 4, 4: 4, 16: 2, 32: 2}
"""Requests at once, and how many rounds of them: one request ends soon, and swings most."""
PAIRS = 2
"""After these, rounds of the endpoint and the engine alone: their ratio lies nearest to what it is to reach."""
BUDGET_S = {"llama": 640.0, "falcon": 1000.0}
"""Since the run began. After that there are no further rounds: on a busy machine figures rest on fewer."""
CONTEXTS = (128, 512, 1024, 2048, 4096)
IMAGES = {"llama": LMI, "falcon": TGI}


@dataclass
class Bench:
    """One run's settings, and what it has measured so far."""

    directory: Path
    rounds: dict[int, int]
    pairs: int
    dtype: str
    values: Values = field(default_factory=Values)
    absent: list[str] = field(default_factory=list)
    asked: int = 0
    begun: float = field(default_factory=time.monotonic)

    def prompts(self, count: int, tokens: int = PROMPT) -> list[str]:
        """Never the same twice: no prefix cache helps anybody."""
        self.asked += 1
        return models.prompts(count, tokens, models.SEED + self.asked)

    def measure(self, shape: Shape, system: System, count: int, tokens: int = PROMPT) -> Sample | None:
        prompts = self.prompts(count, tokens)
        ours, theirs = time.process_time(), system.busy_s()
        try:
            with system.awake():
                sample = system.ask(prompts, ANSWER)
        except Broken as error:
            self.leave_out(f"{system.name} ({shape.name}, {count} at once)", str(error))
            return None
        if system.name == "endpoint" and tokens == PROMPT:
            for name, seconds in (("client", time.process_time() - ours), ("serving", system.busy_s() - theirs)):
                self.values.keep(f"busy/{shape.name}/{name}/{count}", seconds * 1e6 / sample.tokens)
        first = statistics.median(sample.first)
        print(
            f"{shape.name}, {count} at once: {system.name} {sample.rate:.1f} tokens/s, first after {first * 1000:.0f} ms",
            flush=True,
        )
        return sample

    def leave_out(self, what: str, why: object) -> None:
        print(f"{what} is left out: {why}", flush=True)
        self.absent.append(f"{what}: {why}")


def run() -> Result:
    """All systems, round by round. Needs two cores, about 14 GB of memory and some twenty minutes."""
    quick = bool(os.environ.get("PENSTOCK_BENCH_QUICK"))
    all_cores = os.sched_getaffinity(0)
    if len(all_cores) < CORES:
        raise SystemExit(f"the engine's benchmark needs {CORES} cores")
    load_before = os.getloadavg()[0]
    os.sched_setaffinity(0, set(sorted(all_cores)[:CORES]))
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
            bench = Bench(Path(name), {1: 1, 4: 1} if quick else ROUNDS, 0 if quick else PAIRS, native_dtype())
            _all(bench)
            seconds = time.monotonic() - bench.begun
    finally:
        os.sched_setaffinity(0, all_cores)
    text = notes(bench.dtype, bench.rounds, bench.pairs, bench.absent, load_before, seconds)
    return Result("engine", "The engine", figures(bench.values), text)


def native_dtype() -> str:
    """What everybody computes in: bfloat16 where the processor has instructions for it, else float32."""
    import openvino

    return "bfloat16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"


def _all(bench: Bench) -> None:
    try:
        converter = peers.converter()
    except Absent as error:
        raise SystemExit(f"the engine's benchmark can't convert its models: {error}") from None
    for install in (peers.install_transformers, peers.install_vllm, peers.build_llama_cpp):
        with contextlib.suppress(Absent):  # said where it is missing
            install()
    bench.begun = time.monotonic()  # what is made once is not the run's
    sources = {shape.name: models.write(shape, (BUILD / "models" / shape.name).absolute()) for shape in (LLAMA, FALCON)}
    with penstock(bench.directory / "home", converter) as server:
        for shape in (LLAMA, FALCON):
            bench.values.keep("bandwidth", bandwidth_gb_s())
            _one_model(bench, server, shape, sources[shape.name])
    bench.values.keep("bandwidth", bandwidth_gb_s())


def _one_model(bench: Bench, server: Penstock, shape: Shape, source: Path) -> None:
    before, idle = server.converted(), server.memory_mb
    image = IMAGES[shape.name]
    bench.values.keep(f"load_cold/{shape.name}", server.deploy(shape.name, image, source))
    (converted,) = server.converted() - before
    server.remove(shape.name)
    bench.values.keep(f"load_cached/{shape.name}", server.deploy(shape.name, image, source))
    tokenizer = TextTokenizer.load(source)
    with contextlib.ExitStack() as stack:
        systems = [server.system("endpoint", shape.name, image)]
        told = image == TGI  # whose tokens have log-probabilities; LMI's lines of 0.23 have none
        engine = peers.direct(f"engine-{shape.name}", converted, tokenizer, bench.directory, logprobs=told)
        systems.append(stack.enter_context(engine))
        systems += _peers(bench, stack, shape, source)
        if shape is LLAMA:
            server.deploy("int8", LMI, source, quantize="int8")
            systems.append(server.system("int8", "int8", LMI))
        _rounds(bench, shape, systems)
        _pairs(bench, shape, systems[:2])
        if shape is LLAMA:
            server.remove("int8")
            _contexts(bench, shape, systems[0])
        for system in systems[1:]:
            bench.values.keep(f"memory/{shape.name}/{system.name.partition('-')[0]}", system.memory_mb)
    bench.values.keep(f"memory/{shape.name}/endpoint", server.memory_mb - idle)
    server.remove(shape.name)


def _peers(bench: Bench, stack: contextlib.ExitStack, shape: Shape, source: Path) -> Iterator[System]:
    makers: dict[str, Callable[[], contextlib.AbstractContextManager[System]]] = {
        "transformers": lambda: peers.transformers(shape, source, bench.dtype, bench.directory),
        "vllm": lambda: peers.vllm(shape, source, bench.dtype, bench.directory),
        "llamacpp": lambda: peers.llama_cpp(shape, bench.directory),
    }
    for name, make in makers.items():
        try:
            yield stack.enter_context(make())
        except Absent as error:
            bench.leave_out(f"{name} ({shape.name})", error)


def _rounds(bench: Bench, shape: Shape, systems: list[System]) -> None:
    """Round by round, size by size, all systems in turn; without those that broke at a size before."""
    broken: set[tuple[str, int]] = set()
    for number in range(max(bench.rounds.values())):
        if number and time.monotonic() > bench.begun + BUDGET_S[shape.name]:
            print(f"{shape.name}: no time for round {number + 1}", flush=True)
            return
        for count in [count for count, rounds in bench.rounds.items() if number < rounds]:
            for system in systems:
                if (system.name, count) not in broken and (system.name != "int8" or count == 1):
                    if sample := bench.measure(shape, system, count):
                        _keep(bench, shape, system, count, sample)
                    else:
                        broken.add((system.name, count))


def _pairs(bench: Bench, shape: Shape, systems: list[System]) -> None:
    """The values of these come after all rounds', so that those still stand beside the same round's of other systems."""
    for number in range(bench.pairs):
        if time.monotonic() > bench.begun + BUDGET_S[shape.name]:
            print(f"{shape.name}: no time for pair {number + 1}", flush=True)
            return
        for count in bench.rounds:
            order = systems if number % 2 else systems[::-1]
            samples = {system: bench.measure(shape, system, count) for system in order}
            for system, sample in samples.items():
                if sample is not None and None not in samples.values():
                    _keep(bench, shape, system, count, sample)


def _keep(bench: Bench, shape: Shape, system: System, count: int, sample: Sample) -> None:
    name = system.name.partition("-")[0]
    bench.values.keep(f"rate/{shape.name}/{name}/{count}", sample.rate)
    bench.values.keep(f"first/{shape.name}/{name}/{count}", statistics.median(sample.first))
    if count == 1:
        bench.values.keep(f"decode/{shape.name}/{name}", decode_rate(sample))


def _contexts(bench: Bench, shape: Shape, endpoint: System) -> None:
    for context in CONTEXTS:
        if sample := bench.measure(shape, endpoint, 1, context):
            bench.values.keep(f"context/{context}", decode_rate(sample))


def decode_rate(sample: Sample) -> float:
    """Tokens a second after the first one, of one request."""
    return (sample.tokens - 1) / (sample.seconds - sample.first[0])


def bandwidth_gb_s(mb: int = 256, times: int = 5) -> float:
    """What all cores together read from memory, at best."""
    cores = peers.cores()
    arrays = [np.ones(mb * 250_000, np.float32) for _ in range(cores)]
    best = 0.0
    for _ in range(times):
        threads = [threading.Thread(target=np.dot, args=(array, array)) for array in arrays]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, mb * cores / 1000 / (time.perf_counter() - begin))
    return best
