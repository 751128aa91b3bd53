"""Record, replay, record again: the same parts and the same end, through the verbs and over real sockets."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.cli import endpoints
from penstock.cli.deploy import replay
from penstock.cli.fault import call
from penstock.cli.record import play
from penstock.cli.server import Server, client, find
from penstock.tape import Edge, Failure, Line, Part, Tape, diff, load, write
from tests.running import Penstock, cli

SCRIPT = {
    "choose": "do",
    "steps": [
        {"status": 200, "headers": {"content-type": "text/event-stream"}},
        {"send": "data: größer\n\n"},
        {"base64": "4pg="},
        {"wait_ms": 60},
        {"base64": "gw=="},
        {"send": "data: [DONE]\n\n"},
    ],
    "scripts": {"full": [{"status": 507}, {"send": "CUDA out of memory"}], "breaks": [{"send": "a"}, {"end": "close"}]},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    """A server of this module's own, with the endpoint `source`."""
    home = tmp_path_factory.mktemp("tapes") / "home"
    script = home.parent / "script.json"
    script.write_text(json.dumps(SCRIPT))
    made = Penstock(home).start()
    try:
        made.cli("deploy", "scripted", "--script", str(script), "--name", "source")
        yield made
    finally:
        made.stop()


def found(server: Penstock) -> Server:
    seen = find(server.home)
    assert seen is not None
    return seen


def taped(server: Penstock, name: str, path: Path, *, do: str = "", timeout_s: float = 30) -> Tape:
    """Records into `path`, by what the verb calls."""
    runtime = client(found(server), "sagemaker-runtime", read_timeout_s=timeout_s)
    lines: list[Line] = []
    play(runtime, name, json.dumps({"do": do} if do else {}).encode(), "application/json", lines.append)
    runtime.close()
    path.write_bytes(b"".join(map(write, lines)))
    with path.open("rb") as file:
        return load(file)


def recorded(server: Penstock, *options: str, check: bool = True) -> bytes:
    """What the verb itself prints."""
    return server.cli("record", "source", *options, check=check).stdout.encode()


@contextmanager
def replaying(server: Penstock, path: Path, speed: str = "original") -> Iterator[str]:
    """An endpoint that plays the tape, deployed by what the verb calls."""
    replay(path, speed, name="again", home=server.home)
    try:
        yield "again"
    finally:
        endpoints.remove(found(server), "again")


def replayed(server: Penstock, tmp_path: Path, speed: str = "original", *, timeout_s: float = 30) -> Tape:
    with replaying(server, tmp_path / "first.jsonl", speed) as name:
        return taped(server, name, tmp_path / "second.jsonl", timeout_s=timeout_s)


@contextmanager
def faulty(server: Penstock, **plan: object) -> Iterator[None]:
    call(found(server), "PUT", "source", json.dumps(plan))
    try:
        yield
    finally:
        call(found(server), "DELETE", "source")


def test_a_tape_has_all_that_was_seen(server: Penstock, tmp_path: Path) -> None:
    tape = taped(server, "source", tmp_path / "first.jsonl")
    assert [part.content for part in tape.parts] == [
        "data: größer\n\n".encode(),
        b"\xe2\x98",
        b"\x83",
        b"data: [DONE]\n\n",
    ]
    assert tape.parts[2].t - tape.parts[1].t >= 55
    assert (tape.last.t >= tape.parts[-1].t, isinstance(tape.last, Edge) and tape.last.how) == (True, "clean")
    assert tape.head.headers["x-amzn-sagemaker-content-type"] == "text/event-stream"
    assert tape.head.request.body == b"{}"
    assert tape.head.request.headers["authorization"] == "scrubbed"
    text = (tmp_path / "first.jsonl").read_text()
    assert "Signature" not in text
    assert server.cli("tape", "validate", str(tmp_path / "first.jsonl")).stdout.endswith(": good\n")


def test_the_verbs_keep_parts_times_and_end(server: Penstock, tmp_path: Path) -> None:
    (tmp_path / "body").write_text("{}")
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_bytes(recorded(server, "--body", str(tmp_path / "body")))
    server.cli("deploy", "replay", "--tape", str(one), "--name", "verb")
    two.write_text(server.cli("record", "verb", "anything").stdout)
    first, second = load(io.BytesIO(one.read_bytes())), load(io.BytesIO(two.read_bytes()))
    assert list(diff(first, second)) == []
    assert second.parts[2].t - second.parts[1].t >= 50
    assert server.cli("tape", "diff", str(one), str(two)).stdout == ""
    server.cli("rm", "verb")


def test_a_replay_without_times(server: Penstock, tmp_path: Path) -> None:
    path = tmp_path / "first.jsonl"
    first = taped(server, "source", path)
    slow = path.read_text().splitlines()
    events = [json.loads(line) for line in slow[1:]]
    path.write_text("\n".join([slow[0], *(json.dumps(event | {"t": event["t"] * 1000}) for event in events)]) + "\n")
    second = replayed(server, tmp_path, "none")
    assert list(diff(first, second)) == []
    assert second.last.t < 5_000


FAULTS: list[dict[str, object]] = [
    {"kind": "ModelStreamError", "error_code": "ModelInvocationTimeExceeded", "after_parts": 2},
    {"kind": "ModelStreamError", "message": "on purpose", "after_parts": 1},
    {"kind": "InternalStreamFailure", "after_parts": 3},
    {"kind": "reset", "after_parts": 2},
    {"kind": "bad-crc", "after_parts": 2},
    {"kind": "Throttling"},
    {"kind": "ModelNotReady"},
    {"kind": "dead-instance"},
    {"kind": "ModelError", "status": 503, "message": "busy"},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(map(str, fault.values())))
def test_every_end_comes_again(server: Penstock, tmp_path: Path, fault: dict[str, object]) -> None:
    with faulty(server, faults=[fault]):
        first = taped(server, "source", tmp_path / "first.jsonl")
    assert isinstance(first.last, Failure) or first.last.how != "clean"
    second = replayed(server, tmp_path)
    # A container's error names its endpoint, which is another one.
    differences = [line.replace("/again", "/source").replace(" again ", " source ") for line in diff(first, second)]
    assert [line for line in differences if len(set(line.partition(": ")[2].split(" | "))) > 1] == []


def test_many_small_parts_come_again(server: Penstock, tmp_path: Path) -> None:
    with faulty(server, slicing={"mode": "one-byte"}):
        first = taped(server, "source", tmp_path / "first.jsonl")
    assert len(first.parts) > 30
    assert list(diff(first, replayed(server, tmp_path))) == []


@pytest.mark.parametrize(("do", "code"), [("full", "ModelError"), ("breaks", "ModelStreamError")])
def test_errors_of_the_container_come_again(server: Penstock, tmp_path: Path, do: str, code: str) -> None:
    first = taped(server, "source", tmp_path / "first.jsonl", do=do)
    assert isinstance(first.last, Failure)
    assert first.last.code == code
    second = replayed(server, tmp_path)
    assert isinstance(second.last, Failure)
    assert second.last.members.get("OriginalStatusCode") == first.last.members.get("OriginalStatusCode")
    assert [part.content for part in second.parts] == [part.content for part in first.parts]
    assert second.last.code == code


def test_a_stall_is_recorded_as_a_timeout_and_stalls_again(server: Penstock, tmp_path: Path) -> None:
    with faulty(server, faults=[{"kind": "stall", "after_parts": 2}]):
        first = taped(server, "source", tmp_path / "first.jsonl", timeout_s=0.5)
    assert isinstance(first.last, Edge)
    assert (first.last.how, len(first.parts)) == ("timeout", 2)
    assert list(diff(first, replayed(server, tmp_path, timeout_s=0.5))) == []


def test_it_records_what_the_environment_calls_aws(server: Penstock, tmp_path: Path) -> None:
    (tmp_path / "body").write_text("{}")
    done = cli(
        "record",
        "source",
        "--aws",
        "--body",
        str(tmp_path / "body"),
        home=tmp_path / "none",
        environment=server.environment(),
    )
    tape = load(io.BytesIO(done.stdout.encode()))
    assert isinstance(tape.last, Edge)
    assert len(tape.parts) == 4
    assert "AKIA" not in done.stdout


def test_content_can_be_masked_on_the_way(server: Penstock) -> None:
    tape = load(io.BytesIO(recorded(server, "x", "--scrub-content")))
    assert tape.content.decode() == "data: xxßßxx\n\n☃data: [DONE]\n\n"


def test_an_endpoint_that_is_not_there(server: Penstock) -> None:
    done = server.cli("record", "nobody", "x", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Could not find endpoint" in done.stderr


def test_the_verbs_on_tapes(server: Penstock, tmp_path: Path) -> None:
    path = tmp_path / "first.jsonl"
    taped(server, "source", path)
    trimmed = load(io.BytesIO(server.cli("tape", "trim", str(path), "--parts", "1").stdout.encode()))
    assert isinstance(trimmed.parts[0], Part)
    assert len(trimmed.parts) == 1
    scrubbed = server.cli("tape", "scrub", str(path), "--content").stdout
    assert "größer" not in scrubbed
    (tmp_path / "other.jsonl").write_text(scrubbed)
    done = server.cli("tape", "diff", str(path), str(tmp_path / "other.jsonl"), check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("part 1: ")


def test_a_tape_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"tape": 1, "endpoint": "e", "status": 200}\n{"t": 1, "txt": "a"}\n')
    for verb in (["tape", "trim", str(path), "--parts", "1"], ["deploy", "replay", "--tape", str(path)]):
        done = cli(*verb, home=tmp_path / "home", check=False)
        assert done.returncode == 1
        assert "line 2: " in done.stderr
        assert done.stderr.count("\n") == 1
    done = cli("tape", "validate", str(path), "--json", home=tmp_path / "home", check=False)
    assert done.returncode == 1
    assert "line 2: " in json.loads(done.stdout)[0]["problems"][0]


def test_a_replica_without_a_tape_says_so(server: Penstock) -> None:
    done = server.cli("deploy", "image", "--image", "penstock/replay", "--name", "empty", check=False)
    assert "no tape.jsonl" in done.stderr
    server.cli("rm", "empty")
