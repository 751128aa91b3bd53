"""`penstock fault`: make an endpoint's streams misbehave on purpose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import quote

import typer

from penstock import faultplan
from penstock.cli.app import Home, Json, app, err, fail, print_json
from penstock.cli.server import Server, aws_errors, running
from penstock.faultplan import Fault, Kind, Mode, Plan, Slicing


@app.command()
def fault(
    name: Annotated[str, typer.Argument(help="The endpoint.")],
    slice_: Annotated[
        int | None, typer.Option("--slice", min=1, help="Cut every N bytes: --mode bytes --size N.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help=f"How parts are cut: {', '.join(faultplan.MODES)}.")] = None,
    size: Annotated[int, typer.Option(help="Of mode: chunks to join, bytes of a part, the largest random part.")] = 0,
    error: Annotated[
        str | None, typer.Option(help="What happens: a kind of fault, as docs/hostile.md lists them.")
    ] = None,
    after_parts: Annotated[int | None, typer.Option(help="After so many parts.")] = None,
    after_bytes: Annotated[int | None, typer.Option(help="After so many bytes.")] = None,
    after_ms: Annotated[int | None, typer.Option(help="After so many milliseconds.")] = None,
    error_code: Annotated[str | None, typer.Option(help="ErrorCode of ModelStreamError.")] = None,
    message: Annotated[str | None, typer.Option(help="The error's text, in place of AWS's.")] = None,
    status: Annotated[
        int | None, typer.Option(help="Of ModelError: what the container is said to have answered.")
    ] = None,
    ms: Annotated[int | None, typer.Option(help="How long: of slow-first-byte, stall, trickle, jitter.")] = None,
    probability: Annotated[float | None, typer.Option(help="The share of requests that it strikes, 0 to 1.")] = None,
    skip: Annotated[int | None, typer.Option(help="Leave the first so many requests alone.")] = None,
    every: Annotated[int | None, typer.Option(help="Strike every so-manieth of the others.")] = None,
    times: Annotated[int | None, typer.Option(help="Strike at most so many requests.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first request's seed; each further one has one more.")] = None,
    allow_header: Annotated[
        bool, typer.Option("--allow-header", help="Let requests bring plans of their own.")
    ] = False,
    file: Annotated[Path | None, typer.Option(help="A whole plan in JSON, in place of the options above.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take the plan away.")] = False,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Slice an endpoint's streams and break them; without options, show the plan in force."""
    rule = {
        "after_parts": after_parts, "after_bytes": after_bytes, "after_ms": after_ms, "error_code": error_code,
        "message": message, "status": status, "ms": ms, "probability": probability, "skip": skip, "every": every,
        "times": times,
    }  # fmt: skip
    given = {field: value for field, value in rule.items() if value is not None}
    by_options = bool(given or slice_ or mode or size or error or seed is not None or allow_header)
    if by_options + (file is not None) + clear > 1:
        fail("fault takes a plan from its options, from --file, or --clear: one of the three")
    plan: str | None = None
    try:
        if file is not None:
            plan = faultplan.render(faultplan.parse(file.read_text()))
        elif by_options:
            plan = faultplan.render(Plan(slicing=_slicing(slice_, mode, size), faults=_faults(error, given),
                                         seed=seed, allow_header=allow_header))  # fmt: skip
    except OSError as problem:
        fail(f"{file}: {problem.strerror}")
    except ValueError as problem:
        fail(str(problem))
    with aws_errors():
        method: Method = "DELETE" if clear else "PUT" if plan is not None else "GET"
        answer = call(running(home), method, name, plan)
    if as_json:
        print_json(answer)
        return
    whence = {"api": "", "tag": f", from its tag {faultplan.TAG}", "none": ": nothing stands in the way"}
    err.print(f"{answer['EndpointName']}{whence[answer['Source']]}", highlight=False)
    if answer["Source"] != "none":
        print_json(answer["Plan"])


def _slicing(every: int | None, mode: str | None, size: int) -> Slicing:
    if every is not None:
        if mode or size:
            raise ValueError("--slice N is --mode bytes --size N: give one of the two")
        return Slicing("bytes", every)
    if size and not mode:
        raise ValueError("--size needs --mode")
    return Slicing(cast(Mode, mode or "as-is"), size)


def _faults(kind: str | None, given: Mapping[str, Any]) -> tuple[Fault, ...]:
    if kind is None:
        if given:
            raise ValueError(f"--{next(iter(given)).replace('_', '-')} needs --error, the kind of fault")
        return ()
    # By way of the text, whose reader names every wrong value.
    return faultplan.parse(json.dumps({"faults": [{"kind": cast(Kind, kind), **given}]})).faults


Method = Literal["GET", "PUT", "DELETE"]


def call(server: Server, method: Method, name: str, plan: str | None = None) -> dict[str, Any]:
    """A call of `/_penstock/faults/NAME`: which plan is in force. Raises botocore's errors."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from botocore.exceptions import ClientError
    from botocore.httpsession import URLLib3Session

    request = AWSRequest(method, f"{server.url}/_penstock/faults/{quote(name, safe='')}", data=plan or "")
    credentials = Credentials(server.access_key, server.secret_key)
    SigV4Auth(credentials, "sagemaker", server.settings.region).add_auth(request)
    session = URLLib3Session(verify=str(server.settings.paths.ca_certificate), timeout=30)
    try:
        answer = session.send(request.prepare())
        document: dict[str, Any] = json.loads(answer.content)
    finally:
        session.close()
    if answer.status_code != 200:
        raise ClientError(
            {"Error": {"Code": document.get("__type", ""), "Message": document.get("message", "")}}, method
        )
    return document
