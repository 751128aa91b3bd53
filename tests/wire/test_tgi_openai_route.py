"""A TGI endpoint with the bundled model behind the gateway's OpenAI route: the bodies and headers of the stock client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.penstock_process import ACCESS_KEY, ROLE, SECRET_KEY, Penstock
from tests.wire.test_gateway_openai import token

QUESTION = [{"role": "user", "content": "What is life?"}]


@pytest.fixture(scope="module")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    penstock = Penstock(tmp_path_factory.mktemp("openai") / "home").start()
    try:
        client = penstock.client()
        container = {"Image": "penstock/tgi:3.3.7", "Environment": {"HF_MODEL_ID": "penstock/falcon-demo"}}
        client.create_model(ModelName="falcon", ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {"VariantName": "v", "ModelName": "falcon", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        client.create_endpoint_config(EndpointConfigName="falcon", ProductionVariants=[variant])
        client.create_endpoint(EndpointName="falcon", EndpointConfigName="falcon")
        penstock.until_status("InService", "falcon")
        yield penstock
    finally:
        penstock.close()


def post(penstock: Penstock, **body: Any) -> requests.Response:
    """As `OpenAI(base_url=…/endpoints/falcon/openai/v1, api_key=token)` sends it."""
    return requests.post(
        f"https://127.0.0.1:{penstock.state['ports']['https']}/endpoints/falcon/openai/v1/chat/completions",
        json={"model": "", "messages": QUESTION, "temperature": 0, "max_tokens": 12, **body},
        headers={
            "Authorization": f"Bearer {token(key=ACCESS_KEY, secret=SECRET_KEY)}",
            "Accept": "application/json",
            "User-Agent": "OpenAI/Python 2.0.0",
            "X-Stainless-Lang": "python",
            "X-Stainless-Retry-Count": "0",
        },
        verify=str(penstock.paths.ca_certificate),
        timeout=60,
    )


def test_whole_and_streamed_say_the_same(penstock: Penstock) -> None:
    whole = post(penstock)
    assert whole.status_code == 200, whole.text
    assert whole.headers["content-type"] == "application/json"
    body = whole.json()
    text = body["choices"][0]["message"]["content"]
    assert (body["object"], body["usage"]["completion_tokens"]) == ("chat.completion", 12)
    streamed = post(penstock, stream=True, stream_options={"include_usage": True})
    assert streamed.headers["content-type"] == "text/event-stream"
    *events, done, nothing = streamed.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    *chunks, usage = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == text != ""
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert usage["usage"] == body["usage"]


def test_a_tool_call(penstock: Penstock) -> None:
    parameters = {"type": "object", "properties": {"town": {"enum": ["Bonn", "Ulm"]}}, "required": ["town"]}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = post(penstock, tools=[tool], tool_choice=choice, max_tokens=100)
    [call] = answer.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])["town"] in {"Bonn", "Ulm"}


def test_an_error_has_the_container_s_own_shape(penstock: Penstock) -> None:
    answer = post(penstock, top_p=1.0)
    assert answer.status_code == 422
    assert answer.json() == {
        "error": "Input validation error: `top_p` must be > 0.0 and < 1.0",
        "error_type": "validation",
    }
