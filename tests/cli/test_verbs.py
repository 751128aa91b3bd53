"""The verbs, each in a process of its own, against a real server."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

from penstock._speed import COMPILED
from tests.running import PENSTOCK, Penstock, clean_environment
from tests.waiting import until


def test_ls_shows_what_is_deployed(penstock: Penstock, echo: str) -> None:
    listed = json.loads(penstock.cli("ls", "--json").stdout)
    assert {"EndpointName": echo, "EndpointStatus": "InService"}.items() <= listed[0].items()
    assert echo in penstock.cli("ls").stdout


def test_show_tells_variant_and_model(penstock: Penstock, echo: str) -> None:
    shown = json.loads(penstock.cli("show", echo, "--json").stdout)
    assert shown["EndpointStatus"] == "InService"
    assert shown["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert shown["Models"][0]["PrimaryContainer"]["Image"] == "penstock/scripted"
    assert "AllTraffic" in penstock.cli("show", echo).stdout


def test_invoke_streams_bytes_as_they_are(penstock: Penstock, echo: str, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes("größer als ein Teil".encode() * 10)
    done = penstock.cli(
        "invoke", echo, "--body", str(tmp_path / "body"), "--content-type", "application/octet-stream", "--raw"
    )
    assert done.stdout.encode() == (tmp_path / "body").read_bytes()


def test_invoke_streams_tokens_with_their_times(penstock: Penstock) -> None:
    penstock.cli("deploy", "tgi", "--name", "falcon")
    done = penstock.cli("invoke", "falcon", "what is life?")
    assert len(done.stdout.split()) > 5
    assert "first token after" in done.stderr
    document = json.loads(penstock.cli("invoke", "falcon", "what is life?", "--json").stdout)
    assert document["text"].strip() == done.stdout.strip()
    assert document["tokens"] > 5
    assert 0 < document["time_to_first_token_s"] < 60
    penstock.cli("rm", "falcon")
    assert "falcon" not in {e["EndpointName"] for e in json.loads(penstock.cli("ls", "--json").stdout)}


def test_logs_follow_a_replica(penstock: Penstock, echo: str) -> None:
    first = penstock.cli("logs", echo).stdout.splitlines()
    assert first
    assert json.loads(penstock.cli("logs", echo, "--json", "--tail", "1").stdout)[0]["message"] in first[-1]
    follower = subprocess.Popen(
        [*PENSTOCK, "logs", echo, "-f", "--home", str(penstock.home)],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline().strip() == first[0]
    finally:
        follower.terminate()
        follower.communicate(timeout=10)


def test_env_is_for_a_shell(penstock: Penstock) -> None:
    lines = penstock.cli("env").stdout
    done = subprocess.run(
        ["sh", "-c", f"{lines}\nprintf '%s %s' $AWS_ENDPOINT_URL ${{AWS_SESSION_TOKEN-unset}}"],
        capture_output=True,
        text=True,
        check=True,
        env={"AWS_SESSION_TOKEN": "stale"},
    )
    assert done.stdout == f"https://127.0.0.1:{penstock.port('https')} unset"


def test_run_becomes_the_program(penstock: Penstock) -> None:
    ask = "import boto3; print(boto3.client('sts').get_caller_identity()['Account']); raise SystemExit(7)"
    done = penstock.cli("run", "--", sys.executable, "-c", ask, check=False)
    assert (done.stdout.strip(), done.returncode) == ("123456789012", 7)


def test_run_answers_hard_coded_hosts_through_the_proxy(penstock: Penstock) -> None:
    ask = (
        "import boto3; sts = boto3.client('sts', region_name='eu-west-3', endpoint_url='https://sts.eu-west-3.amazonaws.com');"
        "print(sts.get_caller_identity()['Arn'])"
    )
    done = penstock.cli("run", "--", sys.executable, "-c", ask)
    assert done.stdout.strip() == "arn:aws:sts::123456789012:assumed-role/PenstockExecutionRole/penstock"


def test_run_writes_nothing_outside_the_home(penstock: Penstock, tmp_path: Path) -> None:
    ask = "import boto3; boto3.client('sts').get_caller_identity()"
    penstock.cli("run", "--", sys.executable, "-c", ask, environment={"HOME": str(tmp_path), "TMPDIR": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_models_alias_and_unalias(penstock: Penstock, tmp_path: Path) -> None:
    penstock.cli("models", "alias", "acme/model", str(tmp_path))
    assert json.loads(penstock.cli("models", "ls", "--json").stdout)["acme/model"] == str(tmp_path)
    penstock.cli("models", "unalias", "acme/model")
    done = penstock.cli("models", "unalias", "acme/model", check=False)
    assert (done.returncode, done.stderr) == (1, "penstock: acme/model is not an alias; see: penstock models ls\n")


def test_doctor_finds_this_machine_well(penstock: Penstock) -> None:
    findings = json.loads(penstock.cli("doctor", "--json").stdout)
    verdicts = {f["what"]: f["verdict"] for f in findings}
    assert verdicts["gateway in C"] == ("ok" if COMPILED else "missing")
    assert verdicts["OpenVINO GenAI"] == verdicts["home"] == verdicts["server"] == verdicts["bundled model"] == "ok"


def test_secrets_are_for_the_owner_alone(penstock: Penstock) -> None:
    home = penstock.home
    for path in (home / "credentials", home / "tls" / "server.key", *home.glob("tls/ca*.key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    secret = penstock.environment()["AWS_SECRET_ACCESS_KEY"]
    for log in [penstock.output, *home.glob("logs/**/*")]:
        assert log.is_dir() or secret not in log.read_text(errors="replace"), log


def test_up_detached_and_down(tmp_path: Path) -> None:
    server = Penstock(tmp_path / "home")
    free = ("--port", "0", "--proxy-port", "0")
    assert "penstock runs on https://127.0.0.1:" in server.cli("up", "--detach", *free).stderr
    assert json.loads(server.cli("ls", "--json").stdout) == []
    pid = server.state["pid"]
    server.cli("down")
    until(lambda: not Path(f"/proc/{pid}").exists(), what="the server's end")
    assert server.cli("ls", check=False).stderr.startswith("penstock: nothing runs on ")


def test_down_does_not_wait_for_a_parent_that_never_asks_for_the_ended_server(tmp_path: Path) -> None:
    server = Penstock(tmp_path / "home")
    command = [*PENSTOCK, "up", "--home", str(server.home), "--port", "0", "--proxy-port", "0"]
    child = subprocess.Popen(command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: (server.home / "run" / "server.json").exists(), what="the server's start")
        assert server.cli("down", timeout_s=60).stderr == f"stopped (pid {child.pid})\n"
        assert Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    finally:
        child.kill()
        child.wait()


def test_the_demo_again_waits_for_containers_that_come_back(tmp_path: Path) -> None:
    server = Penstock(tmp_path / "home")
    for _ in range(2):
        said = server.cli("demo", "--once").stderr
        assert said.count("first token after") == 2, said
