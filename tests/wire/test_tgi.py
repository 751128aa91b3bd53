"""The TGI server over real sockets, with its real engine process: routes, bodies, events chunk by chunk, at the blog's level."""

from __future__ import annotations

import json
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock import aliases
from tests.tgi_server import Answer, Server, running
from tests.tiny_models import END, RECITAL

REST = RECITAL.removeprefix(" one")
KEY = {"Authorization": "Bearer secret"}
WORDS = [" two", " three", " four", "", "🙂", " five", " six", " seven", " eight", " nine", " ten", END]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("tgi")
    with running(home, home, HF_MODEL_ID=str(tiny_model), DTYPE="float32", ROPE_SCALING="dynamic") as server:
        yield server


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    """The last level, and the model where a container finds its artifact."""
    home = tmp_path_factory.mktemp("tgi3")
    environ = {"HF_MODEL_ID": "/opt/ml/model", "PENSTOCK_SERVER_VERSION": "3.3.7", "API_KEY": "secret"}
    with running(home, tiny_model, **environ) as server:
        yield server


def events(answer: Answer) -> list[dict[str, Any]]:
    """Each chunk is one event."""
    assert answer.complete
    assert all(chunk.startswith(b"data:") and chunk.endswith(b"\n\n") for chunk in answer.chunks), answer.chunks
    return [json.loads(chunk.removeprefix(b"data:")) for chunk in answer.chunks]


def ask(inputs: str = "count: one", **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": parameters}


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_the_compatible_routes_answer_a_list(server: Server, path: str) -> None:
    answer = server.ask(ask(), path=path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == f'[{{"generated_text":"{REST}"}}]'.encode()


def test_generate_answers_an_object_and_ignores_stream(server: Server) -> None:
    answer = server.ask({**ask(max_new_tokens=2), "stream": True}, path="/generate")
    assert answer.body == b'{"generated_text":" two three"}'


@pytest.mark.parametrize("path", ["/", "/invocations", "/generate_stream"])
def test_a_stream_is_one_chunk_a_token(server: Server, path: str) -> None:
    answer = server.ask({**ask(details=True), "stream": True}, path=path)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-compute-characters"] == "10"
    got = events(answer)
    assert [event["token"]["text"] for event in got] == WORDS
    assert [event["token"]["special"] for event in got] == [False] * 11 + [True]
    assert all(list(event) == ["token", "generated_text", "details"] for event in got)
    assert all(event["generated_text"] is event["details"] is None for event in got[:-1])
    assert got[-1]["generated_text"] == REST
    assert got[-1]["details"] == {"finish_reason": "eos_token", "generated_tokens": 12, "seed": None}


def test_the_prompt_comes_back_when_asked_for(server: Server) -> None:
    assert server.ask(ask(return_full_text=True)).json() == [{"generated_text": "count: one" + REST}]
    got = events(server.ask({**ask(return_full_text=True, max_new_tokens=1), "stream": True}))
    assert got[-1]["generated_text"] == "count: one two"


def test_details_and_the_prompt_token_by_token(server: Server) -> None:
    answer = server.ask(ask(" nine", details=True, decoder_input_details=True, max_new_tokens=1), path="/generate")
    details = answer.json()["details"]
    assert list(details) == ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
    assert [(item["text"], item["logprob"]) for item in details["prefill"]] == [(" nine", None)]
    assert list(details["tokens"][0]) == ["id", "text", "logprob", "special"]
    assert -0.2 < details["tokens"][0]["logprob"] < 0


def test_best_of_puts_the_likelier_one_first(server: Server) -> None:
    parameters: dict[str, Any] = {
        "best_of": 2,
        "do_sample": True,
        "temperature": 3.0,
        "details": True,
        "max_new_tokens": 8,
    }
    details = server.ask(ask(**parameters), path="/generate").json()["details"]
    (other,) = details["best_of_sequences"]

    def mean(sequence: dict[str, Any]) -> float:
        return float(sum(token["logprob"] for token in sequence["tokens"]) / len(sequence["tokens"]))

    assert mean(details) >= mean(other)
    assert details["seed"] != other["seed"]


def test_a_reported_seed_repeats_the_answer(server: Server) -> None:
    parameters: dict[str, Any] = {"do_sample": True, "temperature": 4.0, "details": True, "max_new_tokens": 12}
    first = server.ask(ask(**parameters), path="/generate").json()
    again = server.ask(ask(**parameters, seed=first["details"]["seed"]), path="/generate").json()
    assert again["generated_text"] == first["generated_text"]


def test_stop_sequences_stay_in_the_text(server: Server) -> None:
    got = events(server.ask(ask(stop=["ur🙂"], details=True), path="/generate_stream"))
    assert got[-1]["generated_text"] == " two three four🙂"
    assert got[-1]["details"]["finish_reason"] == "stop_sequence"


def test_the_headers_of_a_whole_answer(server: Server) -> None:
    headers = server.ask(ask()).headers
    assert headers["x-compute-type"] == "gpu+optimized"
    for name in (
        "x-compute-time",
        "x-total-time",
        "x-validation-time",
        "x-queue-time",
        "x-inference-time",
        "x-time-per-token",
    ):
        assert headers[name].isdecimal(), name
    assert "x-prompt-tokens" not in headers


def test_validation_is_422_with_the_texts_of_the_original(server: Server) -> None:
    answer = server.ask(ask(temperature=0), path="/generate")
    text = b'{"error":"Input validation error: `temperature` must be strictly positive","error_type":"validation"}'
    assert (answer.status, answer.body) == (422, text)
    too_long = server.ask(ask(" one" * 1025), path="/generate").json()
    assert too_long["error"] == "Input validation error: `inputs` must have less than 1024 tokens. Given: 1025"


def test_in_a_stream_validation_is_one_event_of_a_200(server: Server) -> None:
    answer = server.ask(ask(top_p=1.0), path="/generate_stream")
    assert answer.status == 200
    text = b'{"error":"Input validation error: `top_p` must be > 0.0 and < 1.0","error_type":"validation"}'
    assert answer.chunks == [b"data:" + text + b"\n\n"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "text"),
    [
        (b"{", {"Content-Type": "application/json"}, 400, "Failed to parse the request body as JSON: "),
        (b"{}", {"Content-Type": "application/json"}, 422, "Failed to deserialize the JSON body into the target type: "),
        (b"{}", {"Content-Type": "text/plain"}, 415, "Expected request with `Content-Type: application/json`"),
        (b"{}", {}, 415, "Expected request with `Content-Type: application/json`"),
        (b" " * 2_097_153, {"Content-Type": "application/json"}, 413, "Failed to buffer the request body: length limit exceeded"),
    ],
)  # fmt: skip
def test_malformed_bodies_get_plain_text(
    server: Server, body: bytes, headers: dict[str, str], status: int, text: str
) -> None:
    answer = server.ask(body, path="/generate", headers=headers)
    assert answer.status == status
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.body.decode().startswith(text)


@pytest.mark.parametrize("path", ["/", "/health", "/ping"])
def test_health_is_an_empty_200(server: Server, path: str) -> None:
    answer = server.get(path)
    assert (answer.status, answer.body) == (200, b"")


def test_unknown_paths_and_methods_are_empty(server: Server) -> None:
    assert (server.get("/nothing").status, server.get("/nothing").body) == (404, b"")
    answer = server.get("/generate")
    assert (answer.status, answer.body, answer.headers["allow"]) == (405, b"", "POST")


def test_info(server: Server, tiny_model: Path) -> None:
    info = server.get("/info").json()
    assert list(info) == [
        "model_id", "model_sha", "model_dtype", "model_device_type", "model_pipeline_tag", "max_concurrent_requests",
        "max_best_of", "max_stop_sequences", "max_input_length", "max_total_tokens", "waiting_served_ratio",
        "max_batch_total_tokens", "max_waiting_tokens", "validation_workers", "version", "sha", "docker_label",
    ]  # fmt: skip
    assert (info["model_id"], info["model_dtype"], info["version"]) == (str(tiny_model), "torch.float32", "1.0.3")


def test_metrics(server: Server) -> None:
    before = server.metrics()
    server.ask(ask(max_new_tokens=5))
    after = server.metrics()
    counted = {name: after[name] - before.get(name, 0.0) for name in after if name.startswith("tgi_batch_")}
    for method, steps in (("prefill", 1), ("decode", 4)):
        for kind in ("count", "success", "duration_count"):
            assert counted[f'tgi_batch_inference_{kind}{{method="{method}"}}'] == steps
        assert 0 < counted[f'tgi_batch_inference_duration_sum{{method="{method}"}}'] < 60
    assert (counted["tgi_batch_next_size_sum"], counted["tgi_batch_next_size_count"]) == (1, 1)
    assert server.ask(ask(temperature=0)).status == 422
    values = server.metrics()
    assert values["tgi_request_success"] >= 1
    assert values['tgi_request_failure{err="validation"}'] >= 1
    assert values["tgi_request_count"] == sum(
        value for name, value in values.items() if name.startswith(("tgi_request_success", "tgi_request_failure"))
    )
    assert values["tgi_request_generated_tokens_count"] >= 1
    assert (values["tgi_queue_size"], values["tgi_batch_current_size"]) == (0, 0)


def test_metrics_of_the_parts_of_steps(server: Server, last: Server) -> None:
    def page(it: Server) -> dict[tuple[str, str], float]:
        families = text_string_to_metric_families(it.get("/metrics").body.decode())
        return {
            (sample.name, sample.labels.get("method", "")): sample.value
            for family in families
            for sample in family.samples
        }

    before = page(last)
    assert last.ask(ask(max_new_tokens=5), headers=KEY).status == 200
    after = page(last)
    for method, steps in (("prefill", 1), ("decode", 4)):
        grown = {name: value - before.get((name, of), 0.0) for (name, of), value in after.items() if of == method}
        for part in ("forward", "decode", "filter"):
            assert grown[f"tgi_batch_{part}_duration_count"] == steps
            assert 0 < grown[f"tgi_batch_{part}_duration_sum"] < 60
    assert after["tgi_request_skipped_tokens_count", ""] - before.get(("tgi_request_skipped_tokens_count", ""), 0) == 5
    assert after["tgi_request_skipped_tokens_sum", ""] == 0
    assert not any("_concat_duration" in name for name, _ in after)
    assert not any(name.startswith("tgi_batch_forward") for name, _ in page(server)), "1.0.3 had none"


def test_what_can_be_asked_is_described(server: Server, last: Server) -> None:
    first, later = server.get("/api-doc/openapi.json").json(), last.get("/api-doc/openapi.json").json()
    assert (first["info"]["version"], later["info"]["version"]) == ("1.0.3", "3.3.7")
    assert set(later["paths"]) - set(first["paths"]) == {
        "/v1/chat/completions", "/v1/completions", "/tokenize", "/chat_tokenize", "/v1/models", "/vertex",
    }  # fmt: skip
    for described, it, key in ((first, server, {}), (later, last, KEY)):
        for path, methods in described["paths"].items():
            for method in methods:
                found = it.get(path) if method == "get" else it.ask({}, path=path, headers=key)
                assert found.status == (200 if method == "get" else 422), (method, path)
    known = later["components"]["schemas"]["GenerateParameters"]["properties"]
    assert known["max_new_tokens"]["default"] is None
    assert set(known) - set(first["components"]["schemas"]["GenerateParameters"]["properties"]) == {
        "frequency_penalty", "grammar", "adapter_id",
    }  # fmt: skip
    for path in ("/docs", "/docs/"):
        page = server.get(path)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert b"/generate_stream" in page.body
        assert b"http" not in page.body, "it loads nothing"


def test_vertex(server: Server, last: Server) -> None:
    assert server.ask({"instances": []}, path="/vertex").status == 404
    instances = [
        {"inputs": "count: one", "parameters": {"max_new_tokens": 2, "seed": 1, "temperature": -1}},
        {"messages": [{"role": "user", "content": "count:"}], "max_tokens": 1, "temperature": 0},
    ]
    answer = last.ask({"instances": instances}, path="/vertex", headers=KEY)
    assert answer.status == 200
    texts = answer.json()["predictions"]
    assert (list(answer.json()), len(texts)) == (["predictions"], 2)
    assert all(isinstance(text, str) for text in texts)
    assert last.ask({"instances": instances[:1]}, path="/vertex", headers=KEY).json()["predictions"] == texts[:1]
    empty = last.ask({"instances": []}, path="/vertex", headers=KEY)
    text = b'{"error":"Input validation error","error_type":"Input validation error"}'
    assert (empty.status, empty.body) == (422, text)
    failed = last.ask({"instances": [{"inputs": ""}, *instances]}, path="/vertex", headers=KEY)
    text = b'{"error":"Incomplete generation","error_type":"Incomplete generation"}'
    assert (failed.status, failed.body) == (500, text)
    wrong = last.ask({"instances": [{"input": "a"}]}, path="/vertex", headers=KEY)
    assert wrong.status == 422
    assert b"instances[0]: data did not match any variant of untagged enum VertexInstance" in wrong.body


def test_a_long_body_of_the_wrong_shape_holds_nobody_up(server: Server) -> None:
    """To tell where it goes wrong, every one of its keys is looked at: a stream goes on meanwhile."""
    body = b"{" + b'"a":1,' * 300_000 + b'"inputs":5}'
    json_type = {"Content-Type": "application/json"}
    wrong = server.begin(body, path="/generate", headers=json_type)
    # Asked after it on connections of their own, all are answered before it.
    healthy = [server.get("/health").status for _ in range(5)]
    assert healthy == [200] * 5
    ready, _, _ = select.select([wrong.socket], [], [], 0)
    assert not ready, "the refusal came before the server could answer five health checks"
    assert wrong.answer().status == 422


def test_the_log_says_what_changes_nothing(server: Server) -> None:
    assert "ROPE_SCALING: set, and it changes nothing here at level 1.0.3" in server.log


def test_a_hub_id_repeats_the_prompt_on_the_compatible_routes(tmp_path: Path, tiny_model: Path) -> None:
    """Its pipeline tag is known, even at the blog's level; a directory's is not."""
    aliases.write(tmp_path / "models", "tiiuae/falcon-7b-instruct", tiny_model)
    with running(tmp_path, tmp_path, HF_MODEL_ID="tiiuae/falcon-7b-instruct") as server:
        for path in ("/", "/invocations"):
            assert server.ask(ask(), path=path).json() == [{"generated_text": "count: one" + REST}]
        assert server.ask(ask(), path="/generate").json() == {"generated_text": REST}
        assert server.get("/info").json()["model_pipeline_tag"] == "text-generation"


def test_any_origin_may_ask(server: Server) -> None:
    assert server.ask(ask(), headers={"Origin": "https://example.org"}).headers["access-control-allow-origin"] == "*"


def test_the_last_level(last: Server) -> None:
    key = KEY
    assert last.ask(ask(), path="/generate").status == 401
    assert last.get("/health").status == 200
    answer = last.ask({**ask(details=True), "stream": True}, headers=key)
    assert all(chunk.startswith(b'data: {"index":') for chunk in answer.chunks)
    final = json.loads(answer.chunks[-1].removeprefix(b"data: "))
    assert final["index"] == 12
    assert final["generated_text"] == "count: one" + REST, "a directory has no tag, and repeats the prompt since 1.4.2"
    assert final["details"] == {"finish_reason": "eos_token", "generated_tokens": 12, "seed": None, "input_length": 7}
    whole = last.ask(ask(decoder_input_details=True), path="/generate", headers=key)
    assert whole.json()["details"]["prefill"] == [], "ENABLE_PREFILL_LOGPROBS is not set"
    assert 0 < float(whole.headers["x-compute-time"]) < 60
    assert whole.headers["x-prompt-tokens"] == "7"
    assert whole.headers["x-generated-tokens"] == "12"
    assert list(last.get("/info").json()) == [
        "model_id", "model_sha", "model_pipeline_tag", "max_concurrent_requests", "max_best_of", "max_stop_sequences",
        "max_input_tokens", "max_total_tokens", "validation_workers", "max_client_batch_size", "router", "version",
        "sha", "docker_label",
    ]  # fmt: skip
