"""Multi-model endpoints from end to end: real boto3, two gateway workers, real containers, models from our own S3."""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from penstock.modelcalls import PATH, model_name
from tests.models import BUCKET, PREFIX, ask, deploy_models, model, put_models, said
from tests.penstock_process import ACCESS_KEY, SECRET_KEY, Penstock
from tests.replicas import archive
from tests.waiting import until


def hashed(name: str) -> str:
    return model_name(f"{name}.tar.gz")


@pytest.fixture(scope="module")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    environ = {"PENSTOCK_WORKERS": "2", "PENSTOCK_INVOCATION_TIMEOUT_S": "6"}
    server = Penstock(tmp_path_factory.mktemp("multi-model") / "home", environ)
    try:
        yield server.start()
    finally:
        server.close()


def refused(penstock: Penstock, model: str | None, **more: Any) -> tuple[str, int, dict[str, Any]]:
    """Type, status and body of the error that the call must give."""
    with pytest.raises(ClientError) as caught:
        ask(penstock, model, **more)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], dict(response)


def ports(penstock: Penstock) -> list[int]:
    """Where the scripted servers listen."""
    return [int(server.environ()["SAGEMAKER_BIND_TO_PORT"]) for server in penstock.servers()]


def test_each_model_answers_for_itself(penstock: Penstock) -> None:
    put_models(penstock, {n: model([{"send": f"{n} says "}, {"echo": "body"}]) for n in ("ann", "bob", "dir/cid")})
    deploy_models(penstock, "each")
    for name in ("ann", "bob", "dir/cid", "ann", "/bob"):
        assert ask(penstock, name, name="each") == f"{name.strip('/')} says hello".encode()
    assert len(said(penstock, "loaded", "each")) == 4, "each once: /bob has a name of its own"
    assert not said(penstock, "unloaded", "each")
    found = penstock.client().describe_model(ModelName="each")["PrimaryContainer"]
    assert (found["Mode"], found["ModelDataUrl"]) == ("MultiModel", f"s3://{BUCKET}/{PREFIX}/")


def test_the_container_hears_which_model_was_meant(penstock: Penstock) -> None:
    put_models(penstock, {"headers": model([{"echo": "headers"}])})
    deploy_models(penstock, "heard")
    seen = json.loads(ask(penstock, "headers", name="heard", ContentType="text/csv", CustomAttributes="a=b"))
    assert seen["x-amzn-sagemaker-target-model"] == "headers.tar.gz"
    assert (seen["content-type"], seen["x-amzn-sagemaker-custom-attributes"]) == ("text/csv", "a=b")


def test_the_longest_unused_model_makes_room(tmp_path: Path) -> None:
    penstock = Penstock(tmp_path / "home")  # with one worker: others tell of their requests a moment later
    try:
        fill(penstock.start())
    finally:
        penstock.close()


def fill(penstock: Penstock) -> None:
    put_models(penstock, {n: model([{"send": n}]) for n in ("l1", "l2", "l3")})
    deploy_models(penstock, "full", script={"models": {"capacity": 2}})
    for name in ("l1", "l2", "l1", "l3"):
        assert ask(penstock, name, name="full") == name.encode()
    until(lambda: said(penstock, "unloaded", "full"), what="a model was unloaded")
    assert said(penstock, "unloaded", "full") == [hashed("l2")]
    assert ask(penstock, "l1", name="full") == b"l1"
    assert ask(penstock, "l2", name="full") == b"l2", "loaded again"
    loaded = said(penstock, "loaded", "full")
    assert [loaded.count(hashed(n)) for n in ("l1", "l2", "l3")] == [1, 2, 1]
    kept = {path.name for path in penstock.paths.replicas.glob("*/models/*")}
    assert hashed("l3") not in kept, "the artifact goes with the model"


def test_a_model_stays_with_the_replica_that_has_it(penstock: Penstock) -> None:
    names = [f"s{n}" for n in range(8)]
    put_models(penstock, {n: model([{"echo": "headers"}]) for n in names})
    deploy_models(penstock, "two", count=2)
    hosts: dict[str, set[str]] = {
        n: {json.loads(ask(penstock, n, name="two"))["host"] for _ in range(6)} for n in names
    }
    assert all(len(found) == 1 for found in hosts.values()), hosts
    assert len(set.union(*hosts.values())) == 2, "both replicas are used"
    assert sorted(said(penstock, "loaded", "two")) == sorted(map(hashed, names)), "each model is loaded once"


def test_concurrent_first_requests_load_once(penstock: Penstock) -> None:
    put_models(penstock, {"slowish": model([{"send": "here"}], start={"wait_ms": 700})})
    deploy_models(penstock, "once", count=2)
    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(lambda _: ask(penstock, "slowish", name="once"), range(24)))
    assert answers == [b"here"] * 24
    assert said(penstock, "loaded", "once") == [hashed("slowish")]


@pytest.fixture(scope="module")
def one(penstock: Penstock) -> str:
    """An endpoint for requests that come to nothing."""
    put_models(
        penstock,
        {
            "good": model([{"send": "good"}]),
            "corrupt": model()[:-40],
            "escape": archive(("../../escaped", b"x")),
            "absolute": archive(("/tmp/escaped", b"x")),
            "refusing": model(start={"fail": "not enough weights"}),
            "unscripted": archive(("script.json", b"{")),
            "own404": model([{"status": 404, "headers": {"content-type": "text/plain"}}, {"send": "no such row"}]),
            "own500": model([{"status": 500}, {"send": "oops"}]),
        },
    )
    deploy_models(penstock, "one")
    assert ask(penstock, "good", name="one") == b"good"
    return "one"


def left_over(penstock: Penstock, name: str) -> list[Path]:
    return list(penstock.paths.replicas.glob(f"*/models/{hashed(name)}/*"))


def test_no_such_model(penstock: Penstock, one: str) -> None:
    code, status, body = refused(penstock, "none", name=one)
    assert (code, status) == ("ValidationError", 400)
    assert body["Error"]["Message"].startswith(
        f"Failed to download model data(bucket: {BUCKET}, key: {PREFIX}/none.tar.gz)."
    )


@pytest.mark.parametrize(
    ("name", "words"), [("corrupt", "valid tar.gz"), ("escape", "leads upwards"), ("absolute", "absolute")]
)
def test_an_archive_that_is_none(penstock: Penstock, one: str, name: str, words: str) -> None:
    for _ in range(2):
        code, status, body = refused(penstock, name, name=one)
        assert (code, status) == ("ValidationError", 400)
        assert words in body["Error"]["Message"]
        assert left_over(penstock, name) == []
    assert not list(penstock.paths.home.rglob("escaped"))
    assert ask(penstock, "good", name=one) == b"good"


@pytest.mark.parametrize(
    ("name", "status", "words"), [("refusing", 500, "not enough weights"), ("unscripted", 400, "script")]
)
def test_a_model_that_its_container_does_not_load(
    penstock: Penstock, one: str, name: str, status: int, words: str
) -> None:
    code, http_status, body = refused(penstock, name, name=one)
    assert (code, http_status) == ("ModelError", 424)
    assert body["OriginalStatusCode"] == status
    assert words in body["OriginalMessage"]
    kind = "server" if status == 500 else "client"
    assert body["Error"]["Message"].startswith(f"Received {kind} error ({status}) from primary with message ")
    assert left_over(penstock, name) == []


@pytest.mark.parametrize(("name", "status", "text"), [("own404", 404, "no such row"), ("own500", 500, "oops")])
def test_a_models_own_error_is_passed_on(penstock: Penstock, one: str, name: str, status: int, text: str) -> None:
    code, http_status, body = refused(penstock, name, name=one)
    assert (code, http_status) == ("ModelError", 424)
    assert (body["OriginalStatusCode"], body["OriginalMessage"]) == (status, text)
    assert said(penstock, "loaded", one).count(hashed(name)) == 1


def test_a_request_names_its_model(penstock: Penstock, one: str) -> None:
    code, status, body = refused(penstock, None, name=one)
    assert (code, status) == ("ValidationError", 400)
    assert body["Error"]["Message"].endswith("is missing a target model header.")
    assert refused(penstock, "../m/good", name=one)[0] == "ValidationError"
    runtime = penstock.client("sagemaker-runtime")
    with pytest.raises(ClientError, match="is missing a target model header"):
        runtime.invoke_endpoint_with_response_stream(EndpointName=one, Body=b"x")  # it has no TargetModel


def test_an_endpoint_of_one_model_takes_no_target_model(penstock: Penstock) -> None:
    penstock.deploy("plain")
    penstock.until_status("InService", "plain")
    code, _, body = refused(penstock, "good", name="plain")
    assert code == "ValidationError"
    assert (
        body["Error"]["Message"]
        == "Endpoint plain is not a multi-model endpoint and does not support target model header."
    )


def test_a_model_that_takes_too_long_comes_later(penstock: Penstock) -> None:
    put_models(penstock, {"slow": model([{"send": "at last"}], start={"wait_ms": 8000})})
    deploy_models(penstock, "late")
    code, status, body = refused(penstock, "slow", name="late")
    assert (code, status) == ("ModelNotReadyException", 429)
    assert "multi-model endpoint is still downloading or loading the target model" in body["Error"]["Message"]
    assert ask(penstock, "slow", name="late") == b"at last"
    assert said(penstock, "loaded", "late") == [hashed("slow")], "the first request's load went on"


def test_a_model_that_its_container_has_lost_is_loaded_again(penstock: Penstock) -> None:
    put_models(penstock, {"lost": model([{"send": "found"}])})
    before = set(ports(penstock))
    deploy_models(penstock, "losing")
    (port,) = set(ports(penstock)) - before
    assert ask(penstock, "lost", name="losing") == b"found"
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("DELETE", f"/models/{hashed('lost')}")
        assert connection.getresponse().status == 200
        connection.close()
        assert ask(penstock, "lost", name="losing") == b"found"
    assert said(penstock, "loaded", "losing") == [hashed("lost")] * 4


def test_without_a_cache_a_model_goes_after_its_request(penstock: Penstock) -> None:
    put_models(penstock, {"brief": model([{"wait_ms": 300}, {"send": "brief"}])})
    deploy_models(penstock, "uncached", MultiModelConfig={"ModelCacheSetting": "Disabled"})
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: ask(penstock, "brief", name="uncached"), range(8))) == [b"brief"] * 8
    until(lambda: said(penstock, "unloaded", "uncached"), what="it is unloaded")
    assert said(penstock, "loaded", "uncached") == [hashed("brief")]
    assert ask(penstock, "brief", name="uncached") == b"brief"
    until(lambda: len(said(penstock, "unloaded", "uncached")) == 2, what="it is unloaded again")
    until(lambda: left_over(penstock, "brief") == [], what="its artifact is gone")


def test_a_directory_below_the_prefix_is_a_model_too(penstock: Penstock, one: str) -> None:
    script = json.dumps({"steps": [{"send": "unpacked"}]}).encode()
    penstock.client("s3").put_object(Bucket=BUCKET, Key=f"{PREFIX}/loose/script.json", Body=script)
    runtime = penstock.client("sagemaker-runtime")
    assert runtime.invoke_endpoint(EndpointName=one, TargetModel="loose/", Body=b"")["Body"].read() == b"unpacked"
    with pytest.raises(ClientError, match="Failed to download model data"):
        runtime.invoke_endpoint(EndpointName=one, TargetModel="nothing/", Body=b"")


def test_a_killed_gateway_worker_is_told_again(penstock: Penstock, one: str) -> None:
    assert ask(penstock, "good", name=one) == b"good"
    loads = said(penstock, "loaded", one).count(hashed("good"))
    old = {process.pid for process in penstock.gateways()}
    for process in penstock.gateways():
        process.kill()
    until(lambda: len({p.pid for p in penstock.gateways()} - old) == 2, what="new workers")

    def answers() -> bool:
        try:
            return ask(penstock, "good", name=one) == b"good"
        except Exception:
            return False

    until(answers, what="they know the endpoint")
    assert said(penstock, "loaded", one).count(hashed("good")) == loads


def test_clients_can_not_make_the_gateways_own_call(penstock: Penstock, one: str) -> None:
    body = json.dumps({"account": "1", "region": "r", "endpoint": one, "variant": "v", "target_model": "m"})
    for service in ("sagemaker", "models", "s3"):
        url = f"http://localhost:{penstock.state['ports']['http']}{PATH}"
        request = AWSRequest("POST", url, data=body, headers={"x-penstock-internal": "1"})
        SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), service, "us-east-1").add_auth(request)
        answer = requests.post(url, data=body, headers=dict(request.headers), timeout=10)
        assert answer.status_code >= 400, service
        assert b"outcome" not in answer.content


def test_the_metrics(penstock: Penstock, one: str) -> None:
    ask(penstock, "good", name=one)

    def page() -> str:
        url = f"http://127.0.0.1:{penstock.state['ports']['http']}/metrics"
        with urllib.request.urlopen(url) as answer:
            return str(answer.read().decode())

    labels = (
        f'AccountId="123456789012",EndpointName="{one}",InferenceComponentName="",Region="us-east-1",VariantName="v"'
    )
    names = [f"{name}_count" for name in ("ModelLoadingWaitTime", "ModelDownloadingTime", "ModelLoadingTime")]
    for name in [*names, "ModelCacheHit_total", "LoadedModelCount"]:
        until(lambda name=name: f"{name}{{{labels}}}" in page(), what=name)  # type: ignore[misc]
