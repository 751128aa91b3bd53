"""The three engines behind real servers and a real endpoint: the right one is chosen, says so, and streams what transformers would.

Models are the suite's tiny ones with no end token, so that an answer is as long as it was asked to be. A start of vLLM with two ranks takes
half a minute, so servers are shared.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import lmi_server, tgi_server
from tests.engines import texts
from tests.engines.conftest import interpreter, vllm_python
from tests.engines.families import NEW_TOKENS
from tests.running import Penstock
from tests.waiting import until

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen."
REQUEST = {"inputs": TEXT, "stream": True, "parameters": {"max_new_tokens": NEW_TOKENS, "do_sample": False}}
LMI, TGI = {"PENSTOCK_SERVER_VERSION": "0.36.0"}, {"PENSTOCK_SERVER_VERSION": "2.4.0", "DTYPE": "float32"}
ECR = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
TGI_IMAGE = f"{ECR}/huggingface-pytorch-tgi-inference:2.4.0-tgi2.4.0-gpu-py311-cu124-ubuntu22.04"
LMI_IMAGE = f"{ECR}/djl-inference:0.36.0-lmi27.0.0-cu129"
STARTS_S = 400.0
"""Of a server with vLLM on two busy cores."""


@pytest.fixture(scope="module")
def vllm() -> str:
    return str(vllm_python())


@pytest.fixture(scope="module")
def pythons() -> dict[str, str]:
    """Where the environments are, but vLLM's: for servers that are to choose among the other engines."""
    return {
        "PENSTOCK_TRANSFORMERS_PYTHON": str(interpreter("transformers")),
        "PENSTOCK_CONVERTER": str(interpreter("converter")),
        "PENSTOCK_VLLM_PYTHON": "/nowhere/bin/python",
    }


@pytest.fixture(scope="module")
def endless(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Llama and T5 without end tokens."""
    root, made = tmp_path_factory.mktemp("endless"), {}
    for family in ("llama", "t5"):
        made[family] = Path(
            shutil.copytree(models / family, root / family, ignore=shutil.ignore_patterns("oracle.json"))
        )
        for name in ("config.json", "generation_config.json"):
            file = made[family] / name
            file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": None}))
    return made


@pytest.fixture(scope="module")
def answers(endless: dict[str, Path]) -> dict[str, list[int]]:
    """What transformers says to TEXT, by family."""
    command: list[str | Path] = [interpreter("transformers"), Path(texts.__file__), TEXT, *endless.values()]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    by_directory = json.loads(done.stdout.splitlines()[-1])
    return {family: by_directory[str(directory)] for family, directory in endless.items()}


@dataclass(frozen=True, slots=True)
class FirstStart:
    """What came of two servers for Llama that were started at once, and of which one had to convert it."""

    models: Path
    logs: list[str]
    ids: list[list[int]]

    @property
    def converted(self) -> Path:
        """Llama in OpenVINO's form."""
        (model,) = (self.models / "openvino").glob("*/openvino_model.xml")
        return model.parent


@pytest.fixture(scope="module")
def first_start(
    endless: dict[str, Path], pythons: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> FirstStart:
    root = tmp_path_factory.mktemp("first")
    given = TGI | pythons | {"HF_MODEL_ID": str(endless["llama"]), "PENSTOCK_MODELS": str(root / "models")}

    def served(name: str) -> tuple[str, list[int]]:
        home = root / name
        home.mkdir()
        with tgi_server.running(home, home, STARTS_S, **given) as server:
            return server.log, ids_in(server.ask(REQUEST).body)

    with ThreadPoolExecutor() as pool:
        both = list(pool.map(served, ("one", "other")))
    return FirstStart(root / "models", [log for log, _ in both], [ids for _, ids in both])


@pytest.fixture(scope="module")
def t5(
    endless: dict[str, Path], pythons: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tgi_server.Server]:
    """TGI's server, with an environment for its engine that can be taken away: it is a link."""
    home = tmp_path_factory.mktemp("t5")
    (home / "environment").symlink_to(interpreter("transformers").parents[1])
    linked = pythons | {"PENSTOCK_TRANSFORMERS_PYTHON": str(home / "environment" / "bin" / "python")}
    with tgi_server.running(home, home, STARTS_S, HF_MODEL_ID=str(endless["t5"]), **TGI, **linked) as server:
        yield server


@pytest.fixture(scope="module")
def sharded(
    endless: dict[str, Path], pythons: dict[str, str], vllm: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tgi_server.Server]:
    """TGI's server over vLLM with two ranks."""
    home = tmp_path_factory.mktemp("sharded")
    given = {"HF_MODEL_ID": str(endless["llama"]), "SM_NUM_GPUS": "2", "PENSTOCK_ENGINE": "vllm"}
    environment = TGI | pythons | given | {"PENSTOCK_VLLM_PYTHON": vllm}
    with tgi_server.running(home, home, STARTS_S, **environment) as server:
        yield server


@pytest.fixture(scope="module")
def endpoints(
    endless: dict[str, Path], pythons: dict[str, str], vllm: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Penstock]:
    """`penstock up` on a home of its own, which knows where the engines are."""
    penstock = Penstock(tmp_path_factory.mktemp("penstock") / "home")
    with ExitStack() as stack:
        penstock.start(**pythons | {"PENSTOCK_VLLM_PYTHON": vllm})
        stack.callback(penstock.stop)
        yield penstock


def create(penstock: Penstock, name: str, image: str, **environment: str) -> None:
    client = penstock.client("sagemaker")
    role = "arn:aws:iam::123456789012:role/r"
    container = {"Image": image, "Environment": environment}
    client.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)


def ids_in(body: bytes) -> list[int]:
    """The tokens of a stream, be it of TGI's events or of LMI's lines."""
    lines = [line.removeprefix("data:") for line in body.decode().splitlines() if line]
    return [json.loads(line)["token"]["id"] for line in lines]


def streamed(penstock: Penstock, name: str) -> list[int]:
    runtime = penstock.client("sagemaker-runtime", read_timeout=120)
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName=name, Body=json.dumps(REQUEST), ContentType="application/json"
    )
    return ids_in(b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"]))


def choice_of(log: str) -> str:
    """The one line that says which engine serves."""
    (line,) = [line for line in log.splitlines() if " engine in " in line]
    return line


def ranks_of(pid: int) -> int:
    """How many of vLLM's workers run below a process."""
    return sum("VLLM::Worker" in " ".join(child.cmdline()) for child in psutil.Process(pid).children(recursive=True))


def test_tgi_serves_an_encoder_decoder_by_transformers(t5: tgi_server.Server, answers: dict[str, list[int]]) -> None:
    assert "served by the transformers engine in torch.float32 on cpu: a model of type t5" in choice_of(t5.log)
    assert "transformers" in t5.get("/info").json()["sha"]
    assert ids_in(t5.ask(REQUEST).body) == answers["t5"]


def test_lmi_serves_an_encoder_decoder_by_transformers(
    endless: dict[str, Path], pythons: dict[str, str], answers: dict[str, list[int]], tmp_path: Path
) -> None:
    directory = lmi_server.write_properties(
        tmp_path / "m", f"option.model_id={endless['t5']}", "option.rolling_batch=auto", "option.dtype=fp32"
    )
    with lmi_server.running(tmp_path, directory, STARTS_S, **LMI, **pythons) as server:
        assert "rolling_batch=auto, dtype=fp32 is served by the transformers engine" in choice_of(server.log)
        assert ids_in(server.ask(REQUEST).body) == answers["t5"]


def test_a_llama_is_converted_once(
    first_start: FirstStart,
    endless: dict[str, Path],
    pythons: dict[str, str],
    answers: dict[str, list[int]],
    tmp_path: Path,
) -> None:
    assert sorted("this is done once" in log for log in first_start.logs) == [False, True]
    assert sorted("another process is converting" in log for log in first_start.logs) == [False, True]
    for log, ids in zip(first_start.logs, first_start.ids, strict=True):
        assert "served by the openvino engine in torch.float32 on cpu: a model of type llama" in choice_of(log)
        assert ids == answers["llama"]
    given = TGI | pythons | {"HF_MODEL_ID": str(endless["llama"]), "PENSTOCK_MODELS": str(first_start.models)}
    with tgi_server.running(tmp_path, tmp_path, STARTS_S, **given) as server:
        assert "converting" not in server.log
        assert ids_in(server.ask(REQUEST).body) == answers["llama"]
        leaves_in_the_middle(server)


def leaves_in_the_middle(server: tgi_server.Server) -> None:
    """A client goes: what it asked for is over in the engine long before it would be by itself."""
    stream, chunks = server.stream({"inputs": TEXT, "stream": True, "parameters": {"max_new_tokens": 1900}})
    assert next(chunks).startswith(b"data:")
    assert server.metric("tgi_batch_current_size") == 1
    stream.close()
    until(lambda: server.metric("tgi_batch_current_size") == 0, deadline_s=1, what="the generation has ended")
    assert server.metric('tgi_request_failure{err="dropped"}') == 1
    # And the engine goes on with the next one.
    assert server.ask({"inputs": TEXT, "parameters": {"max_new_tokens": 1}}).status == 200


def test_a_client_leaves_the_transformers_engine(t5: tgi_server.Server) -> None:
    leaves_in_the_middle(t5)


def test_two_ranks_answer_like_one(sharded: tgi_server.Server, answers: dict[str, list[int]]) -> None:
    assert choice_of(sharded.log).endswith("served by the vllm engine in torch.float32 on cpu: PENSTOCK_ENGINE=vllm")
    assert ranks_of(sharded.process.pid) == 2
    assert ids_in(sharded.ask(REQUEST).body) == answers["llama"]


def test_a_client_leaves_two_ranks(sharded: tgi_server.Server) -> None:
    leaves_in_the_middle(sharded)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("option.rolling_batch=vllm",), "engine=Python, rolling_batch=vllm"),
        (("option.rolling_batch=lmi-dist", "engine=MPI"), "engine=MPI, rolling_batch=lmi-dist"),
        (("option.rolling_batch=deepspeed", "engine=DeepSpeed"), "engine=DeepSpeed, rolling_batch=deepspeed"),
        (("option.rolling_batch=auto", "engine=FasterTransformer"), "engine=FasterTransformer, rolling_batch=auto"),
    ],
)
def test_what_names_another_engine_is_mapped_and_told_in_one_line(
    first_start: FirstStart,
    pythons: dict[str, str],
    answers: dict[str, list[int]],
    tmp_path: Path,
    lines: Any,
    said: str,
) -> None:
    directory = lmi_server.write_properties(
        tmp_path / "m", f"option.model_id={first_start.converted}", "option.dtype=fp32", *lines
    )
    with lmi_server.running(tmp_path, directory, STARTS_S, **LMI, **pythons) as server:
        line = choice_of(server.log)
        assert f"model model: {said}, dtype=fp32 is served by the openvino engine" in line
        assert ("option.rolling_batch=vllm can't be had" in line) == ("vllm" in said)
        assert ids_in(server.ask(REQUEST).body) == answers["llama"]


def test_endpoints_stream_what_the_models_say(
    endpoints: Penstock, endless: dict[str, Path], answers: dict[str, list[int]]
) -> None:
    create(endpoints, "t5", TGI_IMAGE, HF_MODEL_ID=str(endless["t5"]), DTYPE="float32")
    endpoints.in_service("t5", deadline_s=STARTS_S)
    assert streamed(endpoints, "t5") == answers["t5"]
    create(
        endpoints, "llama", LMI_IMAGE, OPTION_MODEL_ID=str(endless["llama"]), OPTION_ROLLING_BATCH="vllm",
        OPTION_DTYPE="fp32", OPTION_TENSOR_PARALLEL_DEGREE="2",
    )  # fmt: skip
    endpoints.in_service("llama", deadline_s=STARTS_S)
    assert ranks_of(endpoints.pid) == 2
    assert streamed(endpoints, "llama") == answers["llama"]


@pytest.mark.parametrize("image", [TGI_IMAGE, LMI_IMAGE])
def test_more_ranks_than_there_are_cores_fail_the_endpoint(
    endpoints: Penstock, endless: dict[str, Path], image: str
) -> None:
    name = "many-tgi" if image == TGI_IMAGE else "many-lmi"
    create(
        endpoints, name, image, HF_MODEL_ID=str(endless["llama"]), OPTION_ROLLING_BATCH="auto", SM_NUM_GPUS="64",
        PENSTOCK_ENGINE="vllm",
    )  # fmt: skip
    client = endpoints.client("sagemaker")

    def failed() -> str:
        seen = client.describe_endpoint(EndpointName=name)
        assert seen["EndpointStatus"] != "InService"
        return str(seen.get("FailureReason", "")) if seen["EndpointStatus"] == "Failed" else ""

    reason = until(failed, deadline_s=STARTS_S, every_s=0.2, what=f"{name} has failed")
    assert "tensor_parallel is 64, and this machine has" in reason
    assert "\n" not in reason


def test_an_environment_that_is_taken_away_is_told_and_may_come_back(
    t5: tgi_server.Server, answers: dict[str, list[int]]
) -> None:
    link = t5.log_file.parent / "environment"
    kept = link.rename(link.with_name("elsewhere"))
    os.kill(t5.engine(), signal.SIGKILL)
    said = f"the engine can't be restarted: the engine's process can't be started: {link}/bin/python: No such file"
    until(lambda: said in t5.log, what="the log says why there is no engine")
    assert t5.get("/ping").status == 503
    assert b"can't be restarted" in t5.ask(REQUEST).body, "a stream has begun with 200, and tells of it in an event"
    kept.rename(link)
    until(lambda: t5.get("/ping").status == 200, deadline_s=STARTS_S, what="the engine is back")
    assert ids_in(t5.ask(REQUEST).body) == answers["t5"]


@pytest.mark.parametrize("server", ["tgi", "lmi"])
@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_sigterm_while_an_engine_loads_leaves_nothing(
    endless: dict[str, Path], pythons: dict[str, str], vllm: str, tmp_path: Path, engine: str, server: str
) -> None:
    """In the middle: when it has imported much, and vLLM when it has begun a rank."""
    given = pythons | {
        "PENSTOCK_VLLM_PYTHON": vllm, "PENSTOCK_ENGINE": engine, "HF_MODEL_ID": str(endless["llama"]),
        "SM_NUM_GPUS": "2" if engine == "vllm" else "1", "A_TEST": str(tmp_path),
    }  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"penstock.servers.{server}"],
            env=tgi_server.environment(tmp_path, tmp_path, tgi_server.free_port(), given),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        many = 4 if engine == "vllm" else 2
        until(lambda: in_the_middle(tmp_path, process.pid, many), deadline_s=STARTS_S, what="the engine is loading")
        assert " engine in " not in (tmp_path / "log").read_text()
        begun = time.monotonic()
        process.terminate()
        assert process.wait(10) != 0
        until(lambda: not marked(tmp_path), deadline_s=5, what="all processes are gone")
        print(f"{server} with {engine}: gone in {time.monotonic() - begun:.2f} s")
    finally:
        process.kill()
        process.wait(10)


def in_the_middle(mark: Path, server: int, many: int) -> bool:
    there = marked(mark)
    with suppress(psutil.NoSuchProcess):
        return len(there) >= many and any(each.pid != server and each.memory_info().rss > 150 << 20 for each in there)
    return False


def marked(mark: Path) -> list[psutil.Process]:
    """Running processes whose environment has the test's mark."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("A_TEST") == str(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
