"""Request bodies: which keys are read, their defaults, and what wrong values are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.servers.lmi import parameters
from penstock.servers.lmi.parameters import BadInput, TextParameters
from penstock.servers.lmi.requests import invocation


def parse(body: bytes, content_type: str = "application/json") -> parameters.TextRequest:
    return parameters.parse(invocation([("Content-Type", content_type)] if content_type else [], "", body))


def test_rolling_defaults_of_023() -> None:
    assert parameters.rolling({}, (0, 23)) == TextParameters(max_new_tokens=30, truncate=1000)


@pytest.mark.parametrize(
    "values", [{"temperature": 0.1}, {"top_k": 5}, {"top_p": 0.5}, {"typical_p": 0.5}, {"do_sample": True}]
)
def test_in_023_any_sampling_parameter_samples(values: dict[str, Any]) -> None:
    assert parameters.rolling(values, (0, 23)).do_sample


def test_from_028_only_do_sample_samples() -> None:
    found = parameters.rolling({"temperature": 0.1, "details": True, "return_full_text": True}, (0, 28))
    assert (found.do_sample, found.temperature, found.details, found.return_full_text) == (False, 1.0, True, True)
    assert parameters.rolling({"temperature": 0.1, "do_sample": True}, (0, 28)).temperature == 0.1


def test_from_033_it_samples_unless_told_not_to() -> None:
    assert parameters.rolling({"temperature": 0.1}, (0, 33)).do_sample
    assert parameters.rolling({"temperature": 0.1}, (0, 33)).temperature == 0.1
    assert not parameters.rolling({"do_sample": False}, (0, 33)).do_sample


def test_in_032_a_temperature_alone_samples() -> None:
    found = parameters.rolling({"temperature": 0.1}, (0, 32))
    assert (found.do_sample, found.temperature) == (True, 0.1)
    assert not parameters.rolling({"top_p": 0.5}, (0, 32)).do_sample
    assert not parameters.rolling({"temperature": 0.1, "do_sample": False}, (0, 32)).do_sample


@pytest.mark.parametrize("version", [(0, 23), (0, 27), (0, 29), (0, 32), (0, 36)])
@pytest.mark.parametrize("more", [{}, {"do_sample": True}, {"do_sample": False}, {"top_p": 0.5, "top_k": -1}])
def test_a_temperature_of_0_takes_the_likeliest_token(version: tuple[int, int], more: dict[str, Any]) -> None:
    found = parameters.rolling({"temperature": 0, **more}, version)
    assert (found.do_sample, found.temperature) == (False, 1.0)


def test_true_and_false_may_be_words() -> None:
    assert parameters.rolling({"do_sample": "true"}, (0, 29)).do_sample
    assert not parameters.rolling({"do_sample": "False"}, (0, 36)).do_sample


def test_what_generate_knows_may_be_given_where_it_changes_nothing() -> None:
    neutral = {"num_beams": 1, "num_return_sequences": 1, "min_length": 0, "early_stopping": True, "use_cache": False}
    assert parameters.generate({**neutral, "temperature": 0}) == parameters.generate({})
    with pytest.raises(BadInput, match="num_beams is not supported by the server's own text generation: leave it out"):
        parameters.generate({**neutral, "num_beams": 4})


def test_from_033_the_engines_own_name_for_max_new_tokens_wins() -> None:
    values = {"max_new_tokens": 3, "max_tokens": 4}
    assert parameters.rolling(values, (0, 32)).max_new_tokens == 3
    assert parameters.rolling(values, (0, 33)).max_new_tokens == 4
    assert parameters.rolling({}, (0, 33)).max_new_tokens == 30


def test_tgis_stop_is_read_from_028() -> None:
    assert parameters.rolling({"stop": ["x"], "stop_sequences": ["y"]}, (0, 28)).stop_sequences == ("y", "x")
    assert parameters.rolling({"stop": ["x"]}, (0, 27)).stop_sequences == ()


def test_a_body_too_deep_to_read_is_unreadable() -> None:
    with pytest.raises(parameters.Unreadable):
        parse(b"[" * 100_000)


def test_unknown_keys_are_ignored_by_rolling_batch_and_refused_by_generate() -> None:
    assert parameters.rolling({"return_full_text": False, "stop": ["x"]}, (0, 23)) == parameters.rolling({}, (0, 23))
    with pytest.raises(BadInput, match="not a parameter of generate without rolling_batch: return_full_text"):
        parameters.generate({"return_full_text": False})


def test_generate_is_bounded_by_length_as_its_library_is() -> None:
    assert (parameters.generate({}).max_new_tokens, parameters.generate({}).max_length) == (0, 20)


def test_stepped_defaults() -> None:
    assert parameters.stepped({}) == TextParameters(max_new_tokens=50)
    assert parameters.stepped({"temperature": 1.0}).do_sample


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"max_new_tokens": "many"}, 'max_new_tokens must be a whole number of at least 1, not "many"'),
        ({"max_new_tokens": 0}, "max_new_tokens must be"),
        ({"max_new_tokens": True}, "max_new_tokens must be"),
        ({"max_new_tokens": 1.5}, "max_new_tokens must be"),
        ({"max_new_tokens": 10**12}, "max_new_tokens must be"),
        ({"temperature": -1}, "temperature is out of range: -1"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": float("nan")}, "temperature must be a number"),
        ({"top_p": 1.5}, "top_p is out of range"),
        ({"do_sample": "yes"}, "do_sample must be true or false"),
        ({"seed": -1}, "seed must be"),
        ({"stop_sequences": [1]}, "stop_sequences must be"),
        ({"stop_sequences": [""]}, "stop_sequences must be"),
        ({"truncate": 0}, "truncate must be"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        parameters.rolling(values, (0, 23))


def test_null_is_the_default() -> None:
    nulls = dict.fromkeys(["max_new_tokens", "temperature", "do_sample", "seed", "stop_sequences", "top_k"])
    assert parameters.rolling(nulls, (0, 23)) == parameters.rolling({}, (0, 23))


@pytest.mark.parametrize(
    ("body", "content_type", "inputs"),
    [
        (b'{"inputs": "a"}', "application/json", ("a",)),
        (b'{"inputs": "a"}', "", ("a",)),
        (b'{"inputs": ["a", "b"]}', "application/json; charset=utf-8", ("a", "b")),
        (b'["a"]', "application/json", ("a",)),
        ("hé".encode(), "text/plain", ("hé",)),
        (b"inputs,x\nq1,1\nq2,2\n", "text/csv", ("q1", "q2")),
    ],
)
def test_inputs_by_content_type(body: bytes, content_type: str, inputs: tuple[str, ...]) -> None:
    assert parse(body, content_type).inputs == inputs


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"{", "application/json", "Expecting property name"),
        (b"", "application/json", "Expecting value"),
        (b"7", "application/json", "must be a JSON object"),
        (b"{}", "application/json", "inputs must be a string"),
        (b'{"inputs": []}', "application/json", "inputs must be a string"),
        (b'{"inputs": "a", "parameters": []}', "application/json", "parameters must be a JSON object"),
        (b"\xff", "application/json", "can't decode"),
        (b"a,b\n1,2\n", "text/csv", "column inputs"),
        (b"x", "image/png", "content type image/png can't be taken"),
    ],
)
def test_what_cannot_be_parsed(body: bytes, content_type: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        parse(body, content_type)


@pytest.mark.parametrize(("value", "streams"), [(True, True), ("true", True), ("no", False), (1, False), (None, False)])
def test_the_streams_flag_must_be_true(value: Any, streams: bool) -> None:
    assert parse(json.dumps({"inputs": "a", "stream": value}).encode()).stream is streams
