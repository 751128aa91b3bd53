"""Every flip between versions, at its very border."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.servers.tgi import shapes
from penstock.servers.tgi.app import get_paths, post_paths
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.schema import read_request
from penstock.servers.tgi.settings import read
from tests.unit.servers.tgi.test_shapes import LAST, TOKEN

MODEL = {"HF_MODEL_ID": "a/b"}


def waiting_served_ratio(version: str) -> float:
    return read(MODEL, version).waiting_served_ratio


def prompt_logprobs(version: str) -> bool:
    return read(MODEL, version).prefill_logprobs


def limits(version: str) -> tuple[int, int]:
    found = read(MODEL, version).within(4096)
    return found.max_input_length, found.max_total_tokens


def limits_of_a_long_model(version: str) -> tuple[int, int]:
    settings = read({"HF_MODEL_ID": "a/b"}, version).within(32768)
    return settings.max_input_length, settings.max_total_tokens


def api_key(version: str) -> str:
    return read({**MODEL, "API_KEY": "k"}, version).api_key


def payload_limit(version: str) -> int:
    return read({**MODEL, "PAYLOAD_LIMIT": "9"}, version).payload_limit


def compute_type(version: str) -> str:
    return read({**MODEL, "COMPUTE_TYPE": "cpu"}, version).compute_type


def messages_api(version: str) -> bool:
    return read({**MODEL, "MESSAGES_API_ENABLED": "true"}, version).messages_api


def event(version: str) -> bytes:
    return shapes.stream_event(TOKEN, 1, prompt="", details=True, level=Level.parse(version))[:12]


def comment(version: str) -> bytes:
    return shapes.keep_alive(Level.parse(version))


def last_details(version: str) -> bool:
    return b'"input_length":7' in shapes.stream_event(LAST, 2, prompt="", details=True, level=Level.parse(version))


def samples_without_parameters(version: str) -> bool:
    return read_request(b'{"inputs":"a"}', Level.parse(version), with_stream=False).parameters.do_sample


def takes(name: str, value: str) -> Any:
    def taken(version: str) -> bool:
        body = f'{{"inputs":"a","parameters":{{"{name}":{value}}}}}'.encode()
        parameters = read_request(body, Level.parse(version), with_stream=False).parameters
        return getattr(parameters, name) is not None

    return taken


def has(path: str) -> Any:
    def there(version: str) -> bool:
        level = Level.parse(version)
        return path in get_paths(level) | post_paths(level)

    return there


def of(name: str) -> Any:
    return lambda version: getattr(Level.parse(version), name)


@pytest.mark.parametrize(
    ("what", "before", "old", "since", "new"),
    [
        (of("default_max_new_tokens"), "1.1.0", 20, "1.1.1", None),
        (of("default_max_new_tokens"), "1.3.3", None, "1.3.4", 100),
        (of("default_max_new_tokens"), "2.4.1", 100, "3.0.0", None),
        (of("full_text_without_tag"), "1.4.1", False, "1.4.2", True),
        (event, "1.3.4", b'data:{"token', "1.4.0", b'data:{"index'),
        (event, "2.1.1", b'data:{"index', "2.2.0", b'data: {"inde'),
        (comment, "2.1.1", b":\n\n", "2.2.0", b": \n\n"),
        (last_details, "2.2.0", False, "2.3.0", True),
        (waiting_served_ratio, "2.0.1", 1.2, "2.0.2", 0.3),
        (prompt_logprobs, "2.4.1", True, "3.0.0", False),
        (samples_without_parameters, "1.3.4", False, "1.4.0", True),
        (takes("frequency_penalty", "0.5"), "1.4.0", False, "1.4.1", True),
        (takes("top_n_tokens", "1"), "1.0.2", False, "1.0.3", True),
        (takes("adapter_id", '"a"'), "2.0.4", False, "2.1.0", True),
        (takes("grammar", '{"type":"regex","value":"a"}'), "1.4.0", False, "1.4.1", True),
        (limits, "1.4.5", (1024, 2048), "2.0.0", (4095, 4096)),
        (limits_of_a_long_model, "2.4.1", (4095, 4096), "3.0.0", (32767, 32768)),
        (api_key, "2.2.0", "", "2.3.0", "k"),
        (payload_limit, "2.4.0", 2 * 1024 * 1024, "2.4.1", 9),
        (compute_type, "1.4.0", "gpu+optimized", "1.4.1", "cpu"),
        (messages_api, "1.3.4", False, "1.4.0", True),
        (messages_api, "2.3.1", True, "2.4.0", False),
        (of("invocations_take_any"), "2.3.1", False, "2.4.0", True),
        (of("info_without_types"), "2.2.0", False, "2.3.0", True),
        (of("info_max_batch_size"), "1.4.0", False, "1.4.1", True),
        (of("info_max_client_batch_size"), "2.0.0", False, "2.0.1", True),
        (of("info_router"), "2.0.2", False, "2.0.3", True),
        (of("says_input_tokens"), "2.0.4", False, "2.1.0", True),
        (of("counts_in_headers"), "1.3.4", False, "1.4.0", True),
        (of("compute_time_in_seconds"), "1.4.2", False, "1.4.3", True),
        (of("takes_long_answers"), "2.4.1", False, "3.0.0", True),
        (of("tells_skipped_tokens"), "1.2.0", False, "1.3.0", True),
        (of("tells_parts_of_steps"), "1.3.2", False, "1.3.3", True),
        (of("words_incomplete_streams"), "2.2.0", False, "2.3.0", True),
        (has("/v1/chat/completions"), "1.3.4", False, "1.4.0", True),
        (has("/tokenize"), "1.3.4", False, "1.4.0", True),
        (has("/v1/completions"), "1.4.3", False, "1.4.4", True),
        (has("/chat_tokenize"), "2.2.0", False, "2.3.0", True),
        (has("/v1/models"), "2.2.0", False, "2.3.0", True),
        (has("/vertex"), "2.4.1", False, "3.0.0", True),
    ],
)  # fmt: skip
def test_what_flips(what: Any, before: str, old: object, since: str, new: object) -> None:
    assert (what(before), what(since)) == (old, new)
    assert (what("1.0.3") == what("3.3.7")) == (what in BACK or before in ALWAYS), "the two levels that most deploy"


BACK = (messages_api,)
"""What has flipped twice."""
ALWAYS = ("1.0.2",)
"""What was there before both."""
