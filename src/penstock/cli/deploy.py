"""`penstock deploy`: from a model to an endpoint InService, through the SageMaker API as any client would."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli import endpoints
from penstock.cli.app import Home, Json, app, err, fail, print_json
from penstock.cli.endpoints import Deployment
from penstock.cli.fault import call
from penstock.cli.logs import last_lines
from penstock.cli.progress import step
from penstock.cli.server import Server, aws_errors, running
from penstock.tape import TapeError, load, scrub, write
from penstock.tape import replay as plays

deploy = typer.Typer(help="Deploy a model and wait until it is InService.", no_args_is_help=True)
app.add_typer(deploy, name="deploy")

Name = Annotated[
    str | None, typer.Option(help="The endpoint's name.", show_default="made from the server and the time")
]
Env = Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE for the container; repeatable.")]
Count = Annotated[int, typer.Option("--count", help="InitialInstanceCount: how many replicas.", min=1)]
STREAMING = {"OPTION_ROLLING_BATCH": "auto", "OPTION_OUTPUT_FORMATTER": "jsonlines"}
"""What makes LMI 0.23 stream; by itself it answers whole."""
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return when the endpoint is Creating.")]


@deploy.command()
def tgi(
    model: Annotated[
        str, typer.Option(help="A directory, an s3:// prefix, a hub id or an alias.")
    ] = "penstock/falcon-demo",
    version: Annotated[str, typer.Option(help="The TGI version to be.")] = "1.0.3",
    name: Name = None,
    env: Env = None,
    count: Count = 1,
    no_wait: NoWait = False,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Serve a model with the TGI contract (HF_MODEL_ID and its kin as --env)."""
    environment = {"HF_MODEL_ID": local_model(model), **pairs(env)}
    _deploy(
        home,
        Deployment(name or _name("tgi"), f"penstock/tgi:{version}", environment, instance_count=count),
        no_wait,
        as_json,
    )


@deploy.command()
def lmi(
    model: Annotated[str | None, typer.Option(help="A directory, an s3:// prefix, a hub id or an alias.")] = None,
    model_data: Annotated[
        str | None,
        typer.Option(help="A directory or tar.gz with serving.properties or model.py, or an s3:// URL of one."),
    ] = None,
    version: Annotated[str, typer.Option(help="The LMI (DJL Serving) version to be.")] = "0.23.0",
    name: Name = None,
    env: Env = None,
    count: Count = 1,
    no_wait: NoWait = False,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Serve a model with the LMI contract (OPTION_* as --env, or an artifact with serving.properties)."""
    environment = pairs(env)
    if model is not None:
        environment = {"HF_MODEL_ID": local_model(model), **STREAMING, **environment}
    elif model_data is None:
        fail("deploy lmi needs --model or --model-data")
    deployment = Deployment(name or _name("lmi"), f"penstock/lmi:{version}", environment, instance_count=count)
    _deploy(home, deployment, no_wait, as_json, model_data)


@deploy.command()
def scripted(
    script: Annotated[
        Path | None, typer.Option(help="The JSON script to stream; without one the body is echoed.")
    ] = None,
    name: Name = None,
    env: Env = None,
    count: Count = 1,
    no_wait: NoWait = False,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Serve what a small script says: no model, for tests."""
    environment = pairs(env)
    if script is not None:
        try:
            environment["PENSTOCK_SCRIPT"] = script.read_text()
        except OSError as error:
            fail(f"{script}: {error.strerror}")
    _deploy(
        home,
        Deployment(name or _name("scripted"), "penstock/scripted", environment, instance_count=count),
        no_wait,
        as_json,
    )


@deploy.command()
def replay(
    tape: Annotated[Path, typer.Option(help="The recorded stream (penstock record).")],
    speed: Annotated[str, typer.Option(help="original, none, or how many times as fast.")] = "original",
    name: Name = None,
    count: Count = 1,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Serve a recorded stream: its parts, its times and its end, for every request."""
    try:
        factor = plays.read_speed(speed)
        with tape.open("rb") as file:
            recorded = load(file)
    except OSError as error:
        fail(f"{tape}: {error.strerror}")
    except ValueError as error:
        fail(f"{tape}: {error}" if isinstance(error, TapeError) else str(error))
    name = name or _name("replay")
    server = running(home)
    with aws_errors():
        text = b"".join(write(line) for line in scrub(recorded).lines()).decode()
        data = endpoints.upload_artifact(server, name, {"tape.jsonl": text})
        environment = {"PENSTOCK_TAPE_SPEED": speed}
        deployment = Deployment(name, "penstock/replay", environment, model_data=data, instance_count=count)
        endpoints.create(server, deployment)
        seen = bring_up(server, name)
        if plan := plays.plan(recorded, factor):
            call(server, "PUT", name, json.dumps(plan))
    if as_json:
        print_json(seen)
    else:
        err.print(f"try it: penstock record {name} x", highlight=False)


@deploy.command()
def image(
    image: Annotated[str, typer.Option(help="The container image, as the SDK's image_uris give it.")],
    model_data: Annotated[str | None, typer.Option(help="A directory, tar.gz or s3:// URL for /opt/ml/model.")] = None,
    name: Name = None,
    env: Env = None,
    count: Count = 1,
    no_wait: NoWait = False,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Serve an image by its URI; AWS's LMI and TGI images are served by the built-in servers."""
    _deploy(
        home, Deployment(name or _name("image"), image, pairs(env), instance_count=count), no_wait, as_json, model_data
    )


def pairs(items: list[str] | None) -> dict[str, str]:
    """`["A=1"]` as `{"A": "1"}`; an item without `=` ends the verb."""
    result = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals or not key:
            fail(f"--env takes NAME=VALUE, not {item!r}")
        result[key] = value
    return result


def local_model(model: str) -> str:
    """An existing directory as an absolute path, so that it means the same to the server; anything else as it is."""
    return str(Path(model).resolve()) if not model.startswith("s3://") and os.path.isdir(model) else model


def _name(kind: str) -> str:
    return f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def _deploy(home: Path | None, deployment: Deployment, no_wait: bool, as_json: bool, data: str | None = None) -> None:
    server = running(home)
    with aws_errors():
        if data is not None:
            deployment = replace(deployment, model_data=artifact(server, deployment.name, data))
        endpoints.create(server, deployment)
        seen = endpoints.describe(server, deployment.name) if no_wait else bring_up(server, deployment.name)
    if as_json:
        print_json(seen)
    elif seen["EndpointStatus"] == "InService":
        err.print(f"try it: penstock invoke {deployment.name} 'what is life?'", highlight=False)


def artifact(server: Server, name: str, data: str) -> str:
    """The S3 URL of a model artifact, uploaded if it is local."""
    if data.startswith("s3://"):
        return data
    source = Path(data)
    if not source.exists():
        fail(f"{data}: no such file or directory")
    if source.is_file() and not data.endswith((".tar.gz", ".tgz")):
        fail(f"{data}: a model artifact is a directory or a .tar.gz")
    with step(f"uploading {source.name}") as tell:
        url = endpoints.upload_artifact(server, name, source)
        tell(url)
    return url


def bring_up(server: Server, name: str) -> dict[str, object]:
    """Wait for InService with progress; a Failed endpoint ends the verb with its reason and its last log lines."""
    with step(f"deploying {name}") as tell:
        seen = endpoints.wait(server, name, tell)
    if seen["EndpointStatus"] != "InService":
        for line in last_lines(server, name, 5):
            err.print(f"  [dim]{name}[/dim] {line}", highlight=False, markup=True)
        fail(f"{name} is {seen['EndpointStatus']}: {seen.get('FailureReason', 'no reason given')}")
    return seen
