"""The pytest plugin as its users have it: a project of its own, pytest in a process of its own, warnings as errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from penstock.faultplan import Plan
from penstock.pytest_plugin.endpoints import plan_of, script_text
from tests.running import clean_environment
from tests.waiting import until

pytestmark = pytest.mark.timeout(200)

HEAD = """
import json, os, subprocess, sys
import pytest
from penstock.client import StreamError, iter_lines, iter_tokens

WORDS = ["grö", "ßer", " als", " 日本", " 🙂"]
STEPS = [{"jsonline": {"outputs": [word]}} for word in WORDS]

def stream(runtime, endpoint):
    return runtime.invoke_endpoint_with_response_stream(EndpointName=endpoint, Body=b"{}")["Body"]

def parts(runtime, endpoint):
    return [part["PayloadPart"]["Bytes"] for part in stream(runtime, endpoint)]
"""


def project(directory: Path, tests: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on these tests."""
    (directory / "test_user.py").write_text(HEAD + tests, encoding="utf-8")
    environment = clean_environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", PYTEST_ADDOPTS="")
    command = [sys.executable, "-W", "error", "-m", "pytest", "-W", "error", "-p", "penstock.pytest_plugin"]
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", "--basetemp", str(directory / "tmp"), "-rA", *arguments, "."],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_fixtures(tmp_path: Path) -> None:
    done = project(
        tmp_path,
        """
def test_server(penstock):
    assert penstock.url.startswith("https://127.0.0.1:")
    variables = penstock.environment()
    assert variables["AWS_ENDPOINT_URL"] == penstock.url
    ask = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    said = subprocess.run([sys.executable, "-c", ask], env={**os.environ, **variables}, capture_output=True, text=True)
    assert said.stdout.strip() == "123456789012", said.stderr
    assert penstock.client("sagemaker").list_endpoints()["Endpoints"] == []
    assert penstock.client("sagemaker") is penstock.client("sagemaker")
    assert penstock.ready_s > 0

def test_script(endpoint, boto_runtime):
    name = endpoint(script=STEPS)
    assert "".join(t.text for t in iter_tokens(stream(boto_runtime, name))) == "".join(WORDS)
    assert [json.loads(part) for part in parts(boto_runtime, name)] == [{"outputs": [word]} for word in WORDS]

def test_echo(endpoint, boto_runtime):
    assert boto_runtime.invoke_endpoint(EndpointName=endpoint(), Body=b"hello")["Body"].read() == b"hello"

def test_faults(endpoint, boto_runtime):
    name = endpoint(script=STEPS, faults=[{"kind": "ModelStreamError", "after_parts": 2}])
    with pytest.raises(StreamError, match="ModelStreamError") as caught:
        list(iter_tokens(stream(boto_runtime, name)))
    assert caught.value.text == "größer"

def test_the_next_test_gets_the_same_replica_without_the_faults(endpoint, boto_runtime):
    name = endpoint(script=STEPS)
    assert name == "scripted-1"
    assert len(parts(boto_runtime, name)) == len(WORDS)

def test_two_at_once_are_two(endpoint, boto_runtime):
    first, second = endpoint(script=STEPS), endpoint(script=STEPS, faults="mode=one-byte")
    assert first != second
    assert len(parts(boto_runtime, first)) < len(parts(boto_runtime, second))

def test_a_plan_of_its_own_later(endpoint, boto_runtime):
    from penstock.faultplan import parse
    name = endpoint(script=STEPS, faults="mode=one-byte")
    name.plan(parse("mode=as-is"))
    assert len(parts(boto_runtime, name)) == len(WORDS)

def test_a_long_script(endpoint, boto_runtime, tmp_path):
    (tmp_path / "long.json").write_text(json.dumps({"steps": [{"send": "x" * 5000}]}))
    assert len(b"".join(parts(boto_runtime, endpoint(script=tmp_path / "long.json")))) == 5000

def test_a_name_is_gone_after_the_test(endpoint, penstock):
    assert endpoint(script=STEPS, name="mine") == "mine"
    assert "mine" in {e["EndpointName"] for e in penstock.client("sagemaker").list_endpoints()["Endpoints"]}

def test_it_is_gone(penstock):
    assert "mine" not in {e["EndpointName"] for e in penstock.client("sagemaker").list_endpoints()["Endpoints"]}

def test_a_script_that_remembers_is_not_used_again(endpoint, penstock):
    name = endpoint(script={"die": {"after_requests": 1}, "steps": [{"send": "bye"}]})
    assert name not in sum(penstock.idle.values(), [])

def test_wrong_ones_say_so(endpoint):
    with pytest.raises(RuntimeError, match="The scripted server has no usable script"):
        endpoint(script=[{"nonsense": 1}])
    with pytest.raises(ValueError, match="nonsense"):
        endpoint(faults={"nonsense": 1})
""",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 passed" in done.stdout


MODES = ["as-is", "coalesce", "bytes", "json", "sse", "utf8", "one-byte", "empty", "random"]


def test_every_slicing_runs_a_test_once_a_mode_and_says_how_to_have_a_failure_again(tmp_path: Path) -> None:
    tests = """
@pytest.mark.every_slicing
def test_ours(endpoint, boto_runtime):
    lines = iter_lines(stream(boto_runtime, endpoint(script=STEPS)))
    assert [json.loads(line)["outputs"][0] for line in lines] == WORDS

@pytest.mark.every_slicing("utf8", "random")
def test_naive(endpoint, boto_runtime, penstock_slicing):
    cut = parts(boto_runtime, endpoint(script=[{"send": "日本🙂" * 100}]))
    print(penstock_slicing, [len(part) for part in cut])
    for part in cut:
        part.decode()

def test_not_marked(penstock_slicing):
    assert penstock_slicing == ""
"""
    done = project(tmp_path, tests)
    assert done.returncode == 1, done.stdout + done.stderr
    passed = set(re.findall(r"^PASSED test_user.py::test_ours\[(.+)\]", done.stdout, re.MULTILINE))
    assert passed == set(MODES)
    failed = re.findall(r"^FAILED test_user.py::test_naive\[([a-z0-9-]+)\]", done.stdout, re.MULTILINE)
    assert failed == ["utf8", "random"]
    found = re.search(r"slicing mode random, seed (\d+); the same again: pytest '(.+)' --penstock-seed \1", done.stdout)
    assert found, done.stdout
    again = project(tmp_path, tests, "--penstock-seed", found[1], "-k", "test_naive and random")
    assert lengths(again.stdout) == lengths(done.stdout)
    other = project(tmp_path, tests, "--penstock-seed", str(int(found[1]) + 1), "-k", "test_naive and random")
    assert lengths(other.stdout) != lengths(done.stdout)


def lengths(output: str) -> str:
    found = re.search(r"^random (\[.+\])$", output, re.MULTILINE)
    assert found, output
    return found[1]


def test_a_mode_that_there_is_not_is_refused(tmp_path: Path) -> None:
    done = project(tmp_path, "@pytest.mark.every_slicing('nonsense')\ndef test_it(endpoint): pass\n")
    assert done.returncode != 0
    assert "every_slicing knows no mode 'nonsense'; there are: as-is, " in done.stdout + done.stderr


def test_workers_of_xdist_have_one_seed(tmp_path: Path) -> None:
    tests = """
@pytest.mark.every_slicing("random", "utf8")
def test_naive(endpoint, boto_runtime):
    assert not parts(boto_runtime, endpoint(script=STEPS))
"""
    done = project(tmp_path, tests, "-p", "xdist", "-n", "2")
    seeds = re.findall(r"slicing mode \S+, seed (\d+);", done.stdout)
    assert len(seeds) == 2, done.stdout + done.stderr
    assert len(set(seeds)) == 1


def test_a_project_without_it_pays_nothing(tmp_path: Path) -> None:
    tests = "def test_it():\n    assert not [m for m in sys.modules if m in ('boto3', 'typer', 'penstock.torture')]\n"
    done = project(tmp_path, tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_that_can_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import penstock.pytest_plugin.serve as serve, pathlib, os\n"
        "from penstock.pytest_plugin import server\n"
        "server.sys.executable = '/bin/false'\n"
    )
    done = project(tmp_path, "def test_it(penstock): pass\n")
    assert done.returncode == 1
    assert "RuntimeError: penstock did not start" in done.stdout


def test_tests_that_are_killed_leave_no_server(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(
        "import os, signal\n"
        "def test_it(penstock):\n"
        "    open('pid', 'w').write(str(penstock.running.pid))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "penstock.pytest_plugin", "-p", "no:cacheprovider", "test_user.py"],
        cwd=tmp_path,
        env=clean_environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", TMPDIR=str(tmp_path)),
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == -9
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not os.path.exists(f"/proc/{pid}"), deadline_s=30, what="the server's end")


def test_the_entry_point_is_the_plugin() -> None:
    document = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())
    names = document["project"]["entry-points"]["pytest11"]
    assert hasattr(import_module(names["penstock"]), "pytest_generate_tests")
    assert any(need.startswith("pytest>=") for need in document["project"]["optional-dependencies"]["pytest"])


def test_scripts_and_plans_may_be_written_in_many_ways(tmp_path: Path) -> None:
    steps = [{"send": "ü"}]
    (tmp_path / "s.json").write_text('{"steps": [{"send": "ü"}]}', encoding="utf-8")
    assert script_text(steps) == script_text({"steps": steps}) == script_text(tmp_path / "s.json")
    assert script_text(None) == ""
    fault = {"kind": "end", "after_parts": 1}
    plans = [
        plan_of([fault]),
        plan_of({"faults": [fault]}),
        plan_of("kind=end after_parts=1"),
        plan_of(plan_of([fault])),
    ]
    assert all(plan == plans[0] != Plan() for plan in plans)
    assert plan_of(None) == Plan()


def test_the_pages_example(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "pytest.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.+?)```", page, re.DOTALL)
    assert example
    (tmp_path / "my_app.py").write_text(
        "from penstock.client import iter_tokens\n"
        "def answer_of(body):\n    return ''.join(token.text for token in iter_tokens(body))\n"
    )
    done = project(tmp_path, example[1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(MODES) + 1} passed" in done.stdout
