"""Every slicing mode on the wire, with boto3 as the judge: the content is whole, and the borders lie where the mode puts them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from penstock.faultplan import MODES
from tests.wire.hostile import Bench, bench, listen

CHUNKS = ['data:{"token":{"text":"größer"}}\n\n', 'data:{"token":{"text":"☃ 1234"}}\n\n', "data:[DONE]\n\n"]
SCRIPT = {"steps": [{"send": chunk} for chunk in CHUNKS]}
CONTENT = "".join(CHUNKS).encode()


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("slicing") / "home", SCRIPT) as made:
        yield made


def sliced(mode: str, size: int = 0, **more: Any) -> dict[str, Any]:
    return {"slicing": {"mode": mode, "size": size}, **more}


def borders(parts: list[bytes]) -> set[int]:
    return set(accumulate(map(len, parts)))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "as-is"])
def test_the_content_is_whole_under_every_mode(wire: Bench, mode: str, scheme: str) -> None:
    wire.plan(sliced(mode, 2 if mode in ("bytes", "coalesce") else 0))
    heard = listen(wire.client(scheme))
    assert (heard.error, heard.content) == ("", CONTENT)
    assert int(heard.seed) >= 0
    assert borders(heard.parts) != borders([chunk.encode() for chunk in CHUNKS]) or mode == "empty"


def test_as_is_is_no_plan_and_says_no_seed(wire: Bench) -> None:
    wire.plan(sliced("as-is"))
    heard = listen(wire.client())
    assert heard.parts == [chunk.encode() for chunk in CHUNKS]
    assert "x-penstock-seed" not in heard.headers


def test_coalesce_joins_chunks(wire: Bench) -> None:
    wire.plan(sliced("coalesce", 2))
    assert listen(wire.client()).parts == ["".join(CHUNKS[:2]).encode(), CHUNKS[2].encode()]


def test_bytes_cuts_at_every_multiple(wire: Bench) -> None:
    wire.plan(sliced("bytes", 7))
    parts = listen(wire.client()).parts
    assert set(range(7, len(CONTENT), 7)) <= borders(parts)


def test_one_byte_at_a_time(wire: Bench) -> None:
    wire.plan(sliced("one-byte"))
    assert listen(wire.client()).parts == [bytes([byte]) for byte in CONTENT]


def test_empty_parts(wire: Bench) -> None:
    wire.plan(sliced("empty"))
    parts = listen(wire.client()).parts
    assert parts.count(b"") == 2 * len(CHUNKS)


def test_utf8_cuts_every_long_character(wire: Bench) -> None:
    wire.plan(sliced("utf8"))
    parts = listen(wire.client()).parts
    assert not any(character.encode() in part for part in parts for character in "öß☃")


def test_json_and_sse_leave_no_event_whole(wire: Bench) -> None:
    for mode in ("json", "sse"):
        wire.plan(sliced(mode))
        parts = listen(wire.client()).parts
        assert not any(b'data:{"token"' in part for part in parts), mode


def test_the_same_seed_gives_the_same_parts(wire: Bench) -> None:
    wire.plan(sliced("random", 9))
    first = listen(wire.client())
    again = listen(wire.client())
    assert first.seed != again.seed
    wire.plan(sliced("random", 9, seed=int(first.seed)))
    repeated, next_one = listen(wire.client()), listen(wire.client())
    assert (repeated.seed, repeated.parts) == (first.seed, first.parts)
    assert int(next_one.seed) == int(first.seed) + 1
    assert next_one.content == CONTENT


def test_the_same_seed_gives_the_same_bytes_in_another_server(wire: Bench, tmp_path: Path) -> None:
    plan = sliced(
        "random", 5, seed=20261123, faults=[{"kind": "jitter", "ms": 2}, {"kind": "bad-crc", "after_parts": 9}]
    )
    wire.plan(plan)
    with bench(tmp_path / "home", SCRIPT) as other:
        other.plan(plan)
        for _ in range(3):
            here, there = listen(wire.client()), listen(other.client())
            assert (here.parts, here.error, here.seed) == (there.parts, there.error, there.seed)
            assert here.error == "ChecksumMismatch"


def test_a_request_may_bring_a_plan_where_the_endpoint_allows_it(wire: Bench) -> None:
    wire.plan({"allow_header": True})
    runtime = wire.client()
    assert listen(runtime).parts == [chunk.encode() for chunk in CHUNKS]

    def add(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["X-Penstock-Faults"] = json.dumps(sliced("one-byte", seed=4))

    runtime.meta.events.register("before-call.sagemaker-runtime", add)
    heard = listen(runtime)
    assert (len(heard.parts), heard.seed) == (len(CONTENT), "4")


@pytest.mark.parametrize("plan", [None, sliced("bytes", 3)])
def test_a_plan_from_a_request_is_refused_where_it_is_not_allowed(wire: Bench, plan: dict[str, Any] | None) -> None:
    wire.plan(plan)
    runtime = wire.client()
    runtime.meta.events.register(
        "before-call.sagemaker-runtime", lambda params, **_: params["headers"].update({"X-Penstock-Faults": "{}"})
    )
    heard = listen(runtime)
    assert heard.error == "ValidationError"
    assert "--allow-header" in heard.message


def test_a_wrong_plan_from_a_request_is_named(wire: Bench) -> None:
    wire.plan({"allow_header": True})
    runtime = wire.client()
    runtime.meta.events.register(
        "before-call.sagemaker-runtime",
        lambda params, **_: params["headers"].update({"X-Penstock-Faults": '{"slice": 7}'}),
    )
    heard = listen(runtime)
    assert (heard.error, heard.status) == ("ValidationError", 400)
    assert "slice" in heard.message


def test_a_plan_that_cannot_be_read_is_left_out(wire: Bench) -> None:
    wire.plan({"rules": "of another version"})
    assert listen(wire.client()).parts == [chunk.encode() for chunk in CHUNKS]
    assert "is left out" in wire.house.log()


def test_off_is_out_of_the_path(tmp_path: Path) -> None:
    """Whatever other endpoints do: without a plan of its own a request is answered by the usual invocation, and none of this runs."""
    from penstock.gateway import dispatch, hostile_invocations
    from penstock.gateway.routing import Routes
    from penstock.gateway.streamed import StreamedInvocation
    from penstock.routes import Endpoint, RoutingTable

    routes = Routes()
    plans = {
        "calm": "",
        "header": '{"allow_header": true}',
        "as-is": '{"slicing": {"mode": "as-is"}}',
        "hostile": "mode=utf8",
    }
    endpoints = (Endpoint(name, f"arn:{name}", "r", "a", (), faults=text) for name, text in plans.items())
    routes.apply(RoutingTable(1, tuple(endpoints)))
    assert routes.planned == {"hostile"}
    assert issubclass(hostile_invocations.HostileStreamed, StreamedInvocation)
    assert dispatch._OPERATIONS["invocations-response-stream"] is StreamedInvocation
