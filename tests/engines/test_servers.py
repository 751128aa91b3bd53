"""The three engines behind real servers and a real endpoint: the right one is chosen, says so, and streams what transformers would.

Models are the suite's tiny ones with no end token, so that an answer is as long as it was asked to be. A start of vLLM with two ranks takes
half a minute, so servers are shared.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from penstock.engines import conversion
from tests import lmi_server, tgi_server
from tests.engines import texts
from tests.engines.conftest import ENVIRONMENTS, interpreter
from tests.engines.families import NEW_TOKENS
from tests.running import Penstock
from tests.waiting import until

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600), pytest.mark.xdist_group("servers")]

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen."
REQUEST = {"inputs": TEXT, "stream": True, "parameters": {"max_new_tokens": NEW_TOKENS, "do_sample": False}}
LMI, TGI = {"PENSTOCK_SERVER_VERSION": "0.36.0"}, {"PENSTOCK_SERVER_VERSION": "2.4.0", "DTYPE": "float32"}
ECR = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
TGI_IMAGE = f"{ECR}/huggingface-pytorch-tgi-inference:2.4.0-tgi2.4.0-gpu-py311-cu124-ubuntu22.04"
LMI_IMAGE = f"{ECR}/djl-inference:0.36.0-lmi27.0.0-cu129"
STARTS_S = 240.0
"""Of a server with vLLM on two busy cores."""


@pytest.fixture(scope="module")
def vllm() -> str:
    found = Path(os.environ.get("PENSTOCK_VLLM_PYTHON", ENVIRONMENTS / "vllm" / "bin" / "python"))
    if not found.exists():
        pytest.skip(f"{found} is not there: `scripts/vllm_environment.py .venv/engines/vllm` makes it (3.3 GB)")
    return str(found)


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
    command = [interpreter("transformers"), Path(texts.__file__), TEXT, *endless.values()]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    by_directory = json.loads(done.stdout.splitlines()[-1])
    return {family: by_directory[str(directory)] for family, directory in endless.items()}


@pytest.fixture(scope="module")
def converted(endless: dict[str, Path], pythons: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama in OpenVINO's form."""
    command = (pythons["PENSTOCK_CONVERTER"], "-I", conversion.PROGRAM)
    return conversion.converted(endless["llama"], tmp_path_factory.mktemp("converted"), command)


@pytest.fixture(scope="module")
def t5(
    endless: dict[str, Path], pythons: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tgi_server.Server]:
    home = tmp_path_factory.mktemp("t5")
    with tgi_server.running(
        home, home, deadline_s=STARTS_S, HF_MODEL_ID=str(endless["t5"]), **TGI, **pythons
    ) as server:
        yield server


@pytest.fixture(scope="module")
def sharded(
    endless: dict[str, Path], pythons: dict[str, str], vllm: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tgi_server.Server]:
    """TGI's server over vLLM with two ranks."""
    home = tmp_path_factory.mktemp("sharded")
    given = {"HF_MODEL_ID": str(endless["llama"]), "SM_NUM_GPUS": "2", "PENSTOCK_ENGINE": "vllm"}
    environment = TGI | pythons | given | {"PENSTOCK_VLLM_PYTHON": vllm}
    with tgi_server.running(home, home, deadline_s=STARTS_S, **environment) as server:
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
    import psutil

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
    with lmi_server.running(tmp_path, directory, deadline_s=STARTS_S, **LMI, **pythons) as server:
        assert "rolling_batch=auto, dtype=fp32 is served by the transformers engine" in choice_of(server.log)
        assert ids_in(server.ask(REQUEST).body) == answers["t5"]


def test_a_llama_is_converted_once(
    endless: dict[str, Path], pythons: dict[str, str], answers: dict[str, list[int]], tmp_path: Path
) -> None:
    for start in ("first", "second"):
        home = tmp_path / start
        home.mkdir()
        given = TGI | pythons | {"HF_MODEL_ID": str(endless["llama"]), "PENSTOCK_MODELS": str(tmp_path / "models")}
        with tgi_server.running(home, home, deadline_s=STARTS_S, **given) as server:
            assert "served by the openvino engine in f32 on CPU" in choice_of(server.log)
            assert ("this is done once" in server.log) == (start == "first")
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
    converted: Path, pythons: dict[str, str], answers: dict[str, list[int]], tmp_path: Path, lines: Any, said: str
) -> None:
    directory = lmi_server.write_properties(tmp_path / "m", f"option.model_id={converted}", "option.dtype=fp32", *lines)
    with lmi_server.running(tmp_path, directory, **LMI, **pythons) as server:
        line = choice_of(server.log)
        assert f"model m: {said}, dtype=fp32 is served by the openvino engine" in line
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
