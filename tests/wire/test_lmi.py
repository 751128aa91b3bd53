"""The LMI server over real sockets: every default handler's bytes, chunk by chunk, and every route."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import aliases
from tests.lmi_server import Answer, Server, running, write_properties
from tests.tiny_models import END
from tests.unit.servers.s3stub import serving

PROMPT = " one"
WORDS = [" two", " three", " four", "", "🙂", " five", " six", " seven", " eight", " nine", " ten", ""]
TEXT = " two three four🙂 five six seven eight nine ten"
ALL = {"max_new_tokens": 30}


def serve(tmp: pytest.TempPathFactory, model: Path, *lines: str, **environ: str) -> Iterator[Server]:
    home = tmp.mktemp("lmi")
    directory = write_properties(home / "model" / "my-model", "engine = MPI", f"option.model_id : {model}", *lines)
    with running(home, directory.parent, **environ) as server:
        yield server


@pytest.fixture(scope="module")
def blog(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    yield from serve(
        tmp_path_factory,
        tiny_model,
        "option.rolling_batch=lmi-dist",
        "option.output_formatter=jsonlines",
        "option.dtype = fp16",
        "option.enable_streaming=true",
        "option.paged_attention=false",
        "job_queue_size=50",
    )


@pytest.fixture(scope="module")
def fragments(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    yield from serve(tmp_path_factory, tiny_model, "option.rolling_batch=auto")


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    yield from serve(tmp_path_factory, tiny_model, "option.enable_streaming=true")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    yield from serve(tmp_path_factory, tiny_model)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    yield from serve(tmp_path_factory, tiny_model, PENSTOCK_SERVER_VERSION="0.29.0")


def test_jsonlines_is_one_chunk_a_token(blog: Server) -> None:
    answer = blog.ask({"inputs": PROMPT, "parameters": ALL})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/jsonlines"
    assert answer.chunks == [json.dumps({"outputs": [word]}).encode() + b"\n" for word in WORDS]
    assert answer.complete


def test_the_headers(blog: Server) -> None:
    answer = blog.ask({"inputs": PROMPT})
    assert answer.headers["pragma"] == "no-cache"
    assert answer.headers["cache-control"] == "no-cache; no-store, must-revalidate, private"
    assert answer.headers["expires"] == "Thu, 01 Jan 1970 00:00:00 UTC"
    assert answer.headers["connection"] == "keep-alive"
    assert len(answer.headers["x-request-id"]) == 36
    assert answer.headers["x-request-id"] != blog.ask({"inputs": PROMPT}).headers["x-request-id"]


def test_json_is_fragments_of_one_object(fragments: Server) -> None:
    answer = fragments.ask({"inputs": PROMPT, "parameters": ALL})
    assert answer.headers["content-type"] == "application/json"
    assert answer.chunks[0] == b'{"generated_text": " two'
    assert rb"\ud83d\ude42" in answer.chunks
    assert answer.chunks[-1] == b'"}'
    assert answer.json() == {"generated_text": TEXT}


def test_the_defaults_and_the_length(fragments: Server) -> None:
    assert (
        fragments.ask({"inputs": PROMPT, "parameters": {"max_new_tokens": 2}}).body
        == b'{"generated_text": " two three"}'
    )
    assert fragments.ask({"inputs": PROMPT, "stream": True}).json() == {"generated_text": TEXT}


def test_a_stop_sequence_ends_it_and_stays(fragments: Server) -> None:
    answer = fragments.ask({"inputs": PROMPT, "parameters": {"stop_sequences": ["six"], "stop": ["three"]}})
    assert answer.json() == {"generated_text": " two three four🙂 five six"}


def test_truncate_keeps_the_end_of_the_prompt(fragments: Server) -> None:
    answer = fragments.ask({"inputs": " nine nine nine one", "parameters": {"truncate": 1, "max_new_tokens": 1}})
    assert answer.json() == {"generated_text": " two"}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"inputs": ', "Expecting value"),
        (b"\xff", "can't decode byte"),
        (b'{"inputs": ["a", "b"]}', "inputs must be one string when rolling_batch is on"),
        (b'{"inputs": ""}', "inputs is empty"),
        (b'{"inputs": "a", "parameters": {"max_new_tokens": "x"}}', "max_new_tokens must be a whole number"),
        (b'{"inputs": "a", "parameters": {"typical_p": 0.5}}', "typical_p is not supported"),
    ],
)
def test_bad_input_with_rolling_batch_is_424(body: bytes, error: str, blog: Server) -> None:
    answer = blog.ask(body, Content_Type="application/json")
    assert answer.status == 424
    assert answer.json()["code"] == 424
    assert error in answer.json()["error"]


def test_a_prompt_longer_than_the_model_is_told(blog: Server) -> None:
    answer = blog.ask({"inputs": PROMPT * 3000, "parameters": {"truncate": 5000}})
    assert answer.status == 424
    assert "inputs has 3000 tokens, and the model takes fewer than 2048" in answer.json()["error"]


def test_lines_of_a_text_for_each_prompt_without_rolling_batch(stepped: Server) -> None:
    answer = stepped.ask({"inputs": [" seven", " nine"], "parameters": {"max_new_tokens": 4}})
    assert answer.headers["content-type"] == "application/jsonlines"
    assert [json.loads(chunk)["outputs"] for chunk in answer.chunks] == [
        [" eight", " ten"],
        [" nine", END],
        [" ten", END],
        [END, END],
    ]
    assert stepped.ask({"inputs": " nine"}).chunks == [
        b'{"outputs": [" ten"]}\n',
        f'{{"outputs": ["{END}"]}}\n'.encode(),
    ]


def test_a_whole_answer_is_pretty_and_has_its_prompt(whole: Server) -> None:
    answer = whole.ask({"inputs": PROMPT, "parameters": ALL})
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == f'[\n  {{\n    "generated_text":"{PROMPT}{TEXT}"\n  }}\n]'.encode()
    both = whole.ask({"inputs": [" one", " nine"], "parameters": {"max_length": 3}})
    assert both.json() == [{"generated_text": " one two three"}, {"generated_text": " nine ten"}]


def test_bad_input_without_rolling_batch(whole: Server, stepped: Server) -> None:
    for server in (whole, stepped):
        broken = server.ask(b"{", Content_Type="application/json")
        assert (broken.status, broken.json()["code"]) == (200, 424)
    answer = whole.ask({"inputs": PROMPT, "parameters": {"return_full_text": False}})
    assert answer.status == 424
    assert answer.json() == {
        "code": 424,
        "message": "prediction failure",
        "error": "not a parameter of generate without rolling_batch: return_full_text",
    }
    assert stepped.ask({"inputs": PROMPT, "parameters": {"beam_size": 4}}).status == 424


def test_028_streams_when_the_request_asks(later: Server) -> None:
    plain = later.ask({"inputs": PROMPT, "parameters": ALL})
    assert plain.json() == {"generated_text": TEXT}
    assert plain.body == json.dumps({"generated_text": TEXT}, ensure_ascii=False).encode()
    assert "transfer-encoding" not in plain.headers
    asked = {"inputs": PROMPT, "stream": True, "parameters": {**ALL, "details": True, "decoder_input_details": True}}
    lines = [json.loads(chunk) for chunk in later.ask(asked).chunks]
    assert [line["token"]["text"] for line in lines[:3]] == WORDS[:3]
    assert lines[-1]["token"]["special_token"] is True
    assert lines[-1]["generated_text"] == TEXT
    assert lines[-1]["details"]["finish_reason"] == "eos_token"
    assert lines[-1]["details"]["generated_tokens"] == len(WORDS)
    assert [token["text"] for token in lines[-1]["details"]["prefill"]] == [PROMPT]
    assert b"NaN" not in later.ask(asked).body


def test_028_greedy_unless_do_sample(later: Server) -> None:
    assert later.ask({"inputs": PROMPT, "parameters": {**ALL, "temperature": 100.0}}).json() == {"generated_text": TEXT}


def test_ping_is_pretty_and_takes_any_method(blog: Server) -> None:
    for method in ("GET", "POST", "PUT"):
        answer = blog.ask(path="/ping", method=method)
        assert answer.status == 200
        assert answer.body == b'{\n  "my_model": {\n    "status": "Healthy"\n  }\n}\n'


@pytest.mark.parametrize(
    "path",
    [
        "/predictions/my_model",
        "/predictions/my_model/default",
        "/models/my_model/invoke",
        "/invocations?model_name=my_model",
    ],
)
def test_the_routes_to_a_model(path: str, blog: Server) -> None:
    assert blog.ask({"inputs": PROMPT}, path=path).chunks[0] == b'{"outputs": [" two"]}\n'


def test_a_model_can_be_named_in_a_header(blog: Server) -> None:
    assert blog.ask({"inputs": PROMPT}, X_Amzn_SageMaker_Target_Model="my_model").status == 200
    answer = blog.ask({"inputs": PROMPT}, X_Amzn_SageMaker_Target_Model="other")
    assert answer.status == 404


def error_of(answer: Answer) -> tuple[int, str, str]:
    found = answer.json()
    assert list(found) == ["code", "type", "message"]
    assert answer.body == json.dumps(found, indent=2).encode() + b"\n"
    assert answer.headers["connection"] == "close"
    assert answer.status == found["code"]
    return found["code"], found["type"], found["message"]


def test_error_bodies(blog: Server) -> None:
    assert error_of(blog.ask({}, path="/predictions/nope")) == (
        404,
        "ModelNotFoundException",
        "Model or workflow not found: nope",
    )
    assert error_of(blog.ask({}, path="/predictions/my_model/1"))[2] == "Model or workflow not found: my_model"
    assert error_of(blog.get("/nowhere"))[:2] == (404, "ResourceNotFoundException")
    assert error_of(blog.get("/predictions"))[:2] == (404, "ResourceNotFoundException")
    assert error_of(blog.ask(path="/models/x", method="PATCH"))[:2] == (405, "MethodNotAllowedException")
    assert error_of(blog.ask({}, path="/models"))[1:] == ("BadRequestException", "Parameter url is required.")
    assert blog.ask(path="/", method="OPTIONS").body == b"{}\n"


def test_over_64_mib_is_413_before_it_is_sent(blog: Server) -> None:
    with socket.create_connection(("127.0.0.1", blog.port), timeout=20) as sock:
        sock.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 67108865\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")


def test_managing_models(blog: Server, tiny_model: Path, tmp_path: Path) -> None:
    second = write_properties(tmp_path / "second", f"option.model_id={tiny_model}")
    answer = blog.ask({"url": f"file://{second}", "model_name": "other"}, path="/models")
    assert answer.json() == {"status": 'Model "other" registered.'}
    assert error_of(blog.ask({"url": str(second), "model_name": "other"}, path="/models"))[0] == 409
    listed = blog.get("/models?limit=1").json()
    assert [model["modelName"] for model in listed["models"]] == ["my_model"]
    assert blog.get(f"/models?next_page_token={listed['nextPageToken']}").json()["models"][0]["modelName"] == "other"
    assert blog.ask({"inputs": " nine"}, path="/predictions/other").json() == [{"generated_text": " nine ten"}]
    assert blog.ask({"inputs": PROMPT}).status == 200, "the start-up model is still the default"
    assert blog.get("/models/other").json()[0]["models"][0]["loadedAtStartup"] is False
    scaled = blog.ask(path="/models/other?min_worker=1&max_worker=2", method="PUT").json()["status"]
    assert scaled == 'Workflow "other" worker scaled. New Worker configuration min workers:1 max workers:2'
    removed = blog.ask(path="/models/other", method="DELETE").json()
    assert removed == {"status": 'Model or workflow "other" unregistered'}
    assert blog.get("/models/other").status == 404


def test_a_model_that_cannot_be_registered_leaves_no_trace(blog: Server, tmp_path: Path) -> None:
    bad = write_properties(tmp_path / "bad", "option.model_id=no/such-model")
    code, kind, message = error_of(blog.ask({"url": str(bad), "model_name": "bad"}, path="/models"))
    assert (code, kind) == (400, "ModelException")
    assert "penstock models alias no/such-model DIR" in message
    assert blog.get("/models/bad").status == 404
    assert blog.get("/ping").status == 200
    assert error_of(blog.ask({"url": str(tmp_path / "nowhere")}, path="/models"))[0] == 400


def test_curl_without_a_content_type(fragments: Server) -> None:
    answer = fragments.ask(b' {"inputs": " nine"}', Content_Type="application/x-www-form-urlencoded")
    assert answer.json() == {"generated_text": " ten"}


def test_the_log_says_what_became_of_the_engine(blog: Server) -> None:
    assert "engine=MPI, rolling_batch=lmi-dist, dtype=fp16 is served by the openvino engine" in blog.log
    assert "option.paged_attention: the server's own text generation has no use for that" in blog.log


def test_a_model_below_an_s3_prefix(tiny_model: Path, tmp_path: Path) -> None:
    with serving() as s3:
        s3.objects = {f"llm/counting/{file.name}": file.read_bytes() for file in tiny_model.iterdir()}
        settings = {**s3.environ(str(tmp_path / "models")), "HF_MODEL_ID": "s3://bucket/llm/counting"}
        with running(tmp_path, tmp_path / "none", **settings) as server:
            assert server.ask({"inputs": " nine"}).json() == [{"generated_text": " nine ten"}]


def test_an_alias_for_a_hub_id(tiny_model: Path, tmp_path: Path) -> None:
    aliases.write(tmp_path / "models", "tiiuae/falcon-7b-instruct", tiny_model)
    with running(tmp_path, tmp_path / "none", HF_MODEL_ID="tiiuae/falcon-7b-instruct") as server:
        assert server.get("/ping").json() == {"model": {"status": "Healthy"}}
        assert server.ask({"inputs": " nine"}).status == 200
