"""`penstock torture` on the example programs: the naive ones break where each must, the one on `penstock.client` nowhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import Penstock, cli

pytestmark = pytest.mark.timeout(300)

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "torture"
SEED = "20261123"


def torture(penstock: Penstock, program: str, *options: str, timeout: str = "30") -> tuple[int, dict[str, Any]]:
    """The exit code and the document."""
    command = [*options, "--json", "--seed", SEED, "--timeout", timeout, "--", sys.executable, str(EXAMPLES / program)]
    done = penstock.cli("torture", *command, check=False, timeout_s=280)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    return {row["mode"]: row["outcome"] for row in document["rows"]}


def endpoints(penstock: Penstock) -> set[str]:
    return {found["EndpointName"] for found in penstock.client("sagemaker").list_endpoints()["Endpoints"]}


def only(*modes: str) -> list[str]:
    return [word for mode in modes for word in ("--only", mode)]


def test_penstock_client_survives_all(penstock: Penstock, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    code, document = torture(penstock, "penstock_client.py", "--shape", "tgi", "--report", str(report))
    told = [row for row in document["rows"] if row["outcome"] != "survived"]
    assert told == []
    assert code == 0
    assert len(document["rows"]) > 25
    whole = {row["mode"] for row in document["rows"] if row["detail"] == "all of the content"}
    assert {"as-is", "utf8", "one-byte", "random", "crlf", "comments", "no-final-newline", "jitter", "pause"} < whole
    assert not {"ModelStreamError", "reset", "end", "bad-crc", "truncated-frame", "stall"} & whole
    assert all(row["mode"] in report.read_text() for row in document["rows"])
    assert "penstock-torture" not in endpoints(penstock), "the endpoint is removed"


@pytest.mark.parametrize("shape", ["lmi", "openai"])
def test_penstock_client_survives_the_other_shapes(penstock: Penstock, shape: str) -> None:
    code, document = torture(
        penstock, "penstock_client.py", "--shape", shape, *only("utf8", "random", "no-final-newline", "end")
    )
    assert (code, set(outcomes(document).values())) == (0, {"survived"})


def test_the_line_iterator_waits_for_ever_for_a_line_end(penstock: Penstock) -> None:
    code, document = torture(
        penstock, "line_iterator.py", *only("one-byte", "no-final-newline", "truncated-frame"), timeout="8"
    )
    assert document["shape"] == "lmi", "told by trying"
    assert outcomes(document) == {"one-byte": "survived", "no-final-newline": "hung", "truncated-frame": "hung"}
    assert code == 1


def test_a_part_is_not_always_text(penstock: Penstock) -> None:
    _, document = torture(
        penstock, "part_is_text.py", "--shape", "tgi", *only("coalesce", "utf8", "one-byte", "no-final-newline", "end")
    )
    assert outcomes(document) == {
        "coalesce": "survived",
        "utf8": "crashed",
        "one-byte": "crashed",
        "no-final-newline": "lost content",
        "end": "lost content",
    }
    assert "UnicodeDecodeError" in next(row["detail"] for row in document["rows"] if row["mode"] == "utf8")


def test_a_part_is_not_always_one_json_text(penstock: Penstock) -> None:
    _, document = torture(penstock, "part_is_json.py", "--shape", "lmi", *only("utf8", "coalesce", "sse", "json"))
    assert outcomes(document) == {
        "coalesce": "lost content",
        "json": "crashed",
        "sse": "lost content",
        "utf8": "survived",  # LMI's JSON is ASCII
    }


def test_the_same_seed_cuts_at_the_same_places(penstock: Penstock) -> None:
    seen = [
        torture(penstock, "part_is_text.py", "--shape", "tgi", "--only", "random")[1]["rows"][0]["detail"] for _ in "12"
    ]
    assert seen[0] == seen[1]
    assert "UnicodeDecodeError" in seen[0]


def test_an_endpoint_that_exists_keeps_its_content_and_its_plan(penstock: Penstock, echo: str, tmp_path: Path) -> None:
    penstock.cli("fault", echo, "--slice", "5")
    program = tmp_path / "reads.py"
    program.write_text(
        "import boto3, os, sys\n"
        "r = boto3.client('sagemaker-runtime').invoke_endpoint_with_response_stream(\n"
        "    EndpointName=sys.argv[1], Body='größer')\n"
        "print([p['PayloadPart']['Bytes'] for p in r['Body']] if sys.argv[2] == 'parts' else\n"
        "    b''.join(p['PayloadPart']['Bytes'] for p in r['Body']).decode())\n"
    )
    for argument, outcome in (("text", "survived"), ("parts", "lost content")):
        done = penstock.cli(
            "torture", "--endpoint", echo, "--only", "one-byte", "--json", "--",
            sys.executable, str(program), "{endpoint}", argument, check=False,
        )  # fmt: skip
        assert outcomes(json.loads(done.stdout)) == {"one-byte": outcome}, done.stderr
    assert json.loads(penstock.cli("fault", echo, "--json").stdout)["Plan"] == {"slicing": {"mode": "bytes", "size": 5}}
    penstock.cli("fault", echo, "--clear")


def test_without_a_server_one_is_started_and_gone_afterwards(tmp_path: Path) -> None:
    done = cli(
        "torture", "--shape", "lmi", "--only", "as-is", "--", sys.executable, str(EXAMPLES / "penstock_client.py"),
        home=tmp_path / "home", environment={"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert "1 survived, 0 lost content, 0 hung, 0 crashed" in done.stdout
    assert "as-is" in done.stdout
    assert list(tmp_path.iterdir()) == [], "no home is left, neither the usual one nor a temporary"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "nonsense", "--", "true"], "no such mode: nonsense; there are: as-is, "),
        (["--modes", "nonsense", "--", "true"], "no such group: nonsense; there are: slicing, "),
        (["--shape", "nonsense", "--", "true"], "--shape is one of lmi, tgi, openai, not nonsense"),
        (["--", "no-such-program-here"], "no-such-program-here: command not found"),
        (["--", "true"], "no shape of stream makes the program print the known text"),
        (["--shape", "lmi", "--", "false"], "the program fails on an undisturbed stream: exit code 1, nothing"),
        (["--shape", "lmi", "--", "true"], "the program prints nothing on an undisturbed stream"),
        (["--shape", "lmi", "--", "date", "+%N"], "the program prints something else each time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_can_not_be_judged_is_one_plain_line(penstock: Penstock, arguments: list[str], said: str) -> None:
    done = penstock.cli("torture", *arguments, check=False)
    assert done.returncode in (1, 127)
    assert done.stdout == ""
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"penstock: {said}")
    assert "penstock-torture" not in endpoints(penstock)


def test_two_at_once_do_not_get_in_each_others_way(penstock: Penstock) -> None:
    penstock.cli("deploy", "scripted", "--name", "penstock-torture")
    try:
        done = penstock.cli("torture", "--", "true", check=False)
        assert done.returncode == 1
        assert (
            done.stderr.strip().splitlines()[-1].startswith("penstock: penstock-torture exists: another torture runs")
        )
        assert "penstock-torture" in endpoints(penstock), "it is not ours to remove"
    finally:
        penstock.cli("rm", "penstock-torture")
