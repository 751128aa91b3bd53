"""What dies while a model is loaded, or between its load and the next request: nothing stays half loaded, and the next request works."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from tests.models import ask, deploy_models, model, put_models, said
from tests.penstock_process import Penstock
from tests.waiting import until


@pytest.fixture
def penstock(tmp_path: Path) -> Iterator[Penstock]:
    server = Penstock(tmp_path / "home")
    try:
        yield server.start()
    finally:
        server.close()


def answers(penstock: Penstock, name: str) -> bool:
    try:
        return ask(penstock, name) == name.encode()
    except ClientError:
        return False


def put(penstock: Penstock, *names: str, wait_ms: int = 0) -> None:
    put_models(penstock, {n: model([{"send": n}], start={"wait_ms": wait_ms}) for n in names})


def test_the_only_container_dies_at_a_load(penstock: Penstock) -> None:
    put(penstock, "a", "b")
    deploy_models(penstock, script={"die": {"after_loads": 2}})
    assert ask(penstock, "a") == b"a"
    with pytest.raises(ClientError) as caught:
        ask(penstock, "b")
    assert caught.value.response["Error"]["Code"] == "ModelError"
    assert caught.value.response["OriginalStatusCode"] == 0
    until(lambda: answers(penstock, "b"), deadline_s=20, what="its successor loads the model")


def test_another_container_takes_the_load_over(penstock: Penstock) -> None:
    put(penstock, "a", wait_ms=1500)
    deploy_models(penstock, count=2)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(ask, penstock, "a") for _ in range(4)]
        (fetched,) = until(
            lambda: list(penstock.paths.replicas.glob("*/models/*/model")), what="one of them has the artifact"
        )
        victim = fetched.parents[2].name
        (server,) = [s for s in penstock.servers() if victim in s.environ()["PENSTOCK_MODEL_DIR"]]
        server.kill()
        assert [one.result() for one in waiting] == [b"a"] * 4


def test_control_is_killed_between_load_and_request(penstock: Penstock) -> None:
    put(penstock, "a")
    deploy_models(penstock)
    assert ask(penstock, "a") == b"a"
    penstock.kill()
    until(lambda: not penstock.family(), deadline_s=15, what="all is gone")
    penstock.start()
    until(lambda: answers(penstock, "a"), deadline_s=20, what="the model is loaded anew")


def test_the_container_dies_after_the_load(penstock: Penstock) -> None:
    put(penstock, "a")
    deploy_models(penstock)
    assert ask(penstock, "a") == b"a"
    (old,) = penstock.servers()
    old.kill()
    until(lambda: answers(penstock, "a"), deadline_s=20, what="its successor has the model")


def test_the_client_leaves_and_the_load_goes_on(penstock: Penstock) -> None:
    put(penstock, "a", wait_ms=1000)
    deploy_models(penstock)
    impatient = penstock.client("sagemaker-runtime", read_timeout=0.3)
    with pytest.raises(ReadTimeoutError):
        impatient.invoke_endpoint(EndpointName="mm", TargetModel="a.tar.gz", Body=b"")
    assert ask(penstock, "a") == b"a"
    assert len(said(penstock, "loaded")) == 1


def test_the_endpoint_goes_while_a_model_is_loaded(penstock: Penstock) -> None:
    put(penstock, "a", wait_ms=5000)
    deploy_models(penstock)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, penstock, "a")
        until(lambda: list(penstock.paths.replicas.glob("*/models/*/model")), what="the load has begun")
        penstock.client().delete_endpoint(EndpointName="mm")
        with pytest.raises(ClientError):
            waiting.result()
    until(lambda: not list(penstock.paths.replicas.iterdir()), deadline_s=15, what="nothing is left")
