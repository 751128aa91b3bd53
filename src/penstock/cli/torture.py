"""`penstock torture`: run a client program against every way in which a stream may come, and tell what it makes of each."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli import endpoints
from penstock.cli.app import Home, Json, app, err, fail, out, print_json
from penstock.cli.demo import serving
from penstock.cli.endpoints import Deployment
from penstock.cli.fault import call
from penstock.cli.progress import step
from penstock.cli.server import UNSET, Server, aws_errors, client, find, run_environment, settings
from penstock.torture import bench
from penstock.torture.bench import Program, Unusable
from penstock.torture.cases import Case, cases, chosen
from penstock.torture.content import SHAPES, TEXT, Content, Shape, content
from penstock.torture.report import Report, document, html
from penstock.torture.verdict import Reference, Row

ENDPOINT = "penstock-torture"
_COLOURS = {"survived": "green", "lost content": "red", "hung": "yellow", "crashed": "red"}


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def torture(
    command: Annotated[list[str], typer.Argument(help="The program; `{endpoint}` becomes the endpoint's name.")],
    endpoint: Annotated[
        str, typer.Option(help="The endpoint that the program calls. One that exists is used with its own content.")
    ] = ENDPOINT,
    shape: Annotated[
        str | None, typer.Option(help=f"What the program reads: {', '.join(SHAPES)}.", show_default="tried out")
    ] = None,
    modes: Annotated[
        str | None, typer.Option(help="Groups, comma between: slicing, form, break, time, refusal.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="A mode by its name; repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="Repeats a run.", show_default="random", min=0)] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each run; after that it hangs.", min=0.1)] = 30.0,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")] = None,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Run a client program against every slicing mode and fault: survived, lost content, hung or crashed."""
    program = shutil.which(command[0])
    if program is None:
        fail(f"{command[0]}: command not found", code=127)
    if shape is not None and shape not in SHAPES:
        fail(f"--shape is one of {', '.join(SHAPES)}, not {shape}")
    wanted = [group for group in (modes or "").split(",") if group]
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    try:
        chosen([*cases(content("tgi"), seed), *cases(content("lmi"), seed)], wanted, only or [])
    except ValueError as error:
        fail(str(error))
    with server_of(home) as server, aws_errors(), stand(server, endpoint) as place:
        arguments = [program, *(word.replace("{endpoint}", endpoint) for word in command[1:])]
        victim = Program(arguments, environment(server, endpoint), timeout)
        try:
            shape_found, reference = _undisturbed(place, victim, shape)
            todo = chosen(cases(content(shape_found) if shape_found else None, seed), wanted, only or [])
            rows = _rows(place, victim, todo, shape_found, reference)
        except (Unusable, ValueError) as problem:
            fail(str(problem))
        except OSError as problem:
            fail(f"{program}: {problem.strerror}")
    found = Report(
        shlex.join(command), endpoint, shape_found or "its own content", seed, timeout, rows,
        _again(command, endpoint, shape_found, timeout, home),
    )  # fmt: skip
    if report is not None:
        _write(report, found)
    if as_json:
        print_json(document(found))
    else:
        _print(found)
    if any(row.outcome != "survived" for row in rows):
        raise typer.Exit(1)


@contextmanager
def server_of(home: Path | None) -> Iterator[Server]:
    """The server that runs on this home, or one of its own on a home that is removed afterwards."""
    if (server := find(home)) is not None:
        yield server
        return
    with tempfile.TemporaryDirectory(prefix="penstock-torture-") as directory:
        known = replace(
            settings(home), home=Path(directory) / "home", port=0, proxy_port=0, http_port=None, database_url=""
        )
        with serving(known) as server:
            yield server


def environment(server: Server, endpoint: str) -> dict[str, str]:
    """What `penstock run` sets, and the endpoint's name."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    return kept | run_environment(server) | {"PENSTOCK_ENDPOINT": endpoint, "endpoint_name": endpoint}


@dataclass(slots=True)
class Place:
    """The endpoint under torture (`bench.Stand`). `own` is one of somebody else's, whose content stays."""

    server: Server
    name: str
    own: bool
    made: bool = False

    def stream(self, known: Content) -> None:
        if self.made:
            endpoints.remove(self.server, self.name)
        data = endpoints.upload_artifact(self.server, self.name, {"script.json": known.script})
        self.made = True
        endpoints.create(self.server, Deployment(self.name, "penstock/scripted", model_data=data))
        seen = endpoints.wait(self.server, self.name, lambda _: None, deadline_s=60)
        if seen["EndpointStatus"] != "InService":
            raise Unusable(f"{self.name} is {seen['EndpointStatus']}: {seen.get('FailureReason', 'no reason given')}")

    def plan(self, text: str) -> None:
        call(self.server, "PUT", self.name, text)


@contextmanager
def stand(server: Server, name: str) -> Iterator[Place]:
    """The endpoint, put back as it was: removed if it was not there, else without the last plan."""
    place = Place(server, name, own=_exists(server, name))
    if place.own and name == ENDPOINT:
        fail(
            f"{name} exists: another torture runs, or was killed and left it (penstock rm {name}); or name one with --endpoint"
        )
    if place.own:
        before = call(server, "GET", name)
        try:
            call(server, "PUT", name, "{}")
            yield place
        finally:
            if before["Source"] == "api":
                call(server, "PUT", name, json.dumps(before["Plan"]))
            else:
                call(server, "DELETE", name)
        return
    try:
        yield place
    finally:
        if place.made:
            endpoints.remove(server, name)


def _exists(server: Server, name: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        client(server, "sagemaker").describe_endpoint(EndpointName=name)
    except ClientError:
        return False
    return True


def _undisturbed(place: Place, program: Program, shape: str | None) -> tuple[Shape | None, Reference]:
    with step("an undisturbed run") as tell:
        if place.own:
            return None, bench.undisturbed(program, "")
        if shape is None:
            return bench.detect(place, program, tell)
        known = next(s for s in SHAPES if s == shape)
        place.stream(content(known))
        return known, bench.undisturbed(program, TEXT)


def _rows(place: Place, program: Program, todo: list[Case], shape: Shape | None, reference: Reference) -> list[Row]:
    rows: list[Row] = []
    with step("torture") as tell:
        for case, row in bench.torture(place, program, todo, shape, reference):
            if row is None:
                tell(f"{case.name} ({len(rows) + 1} of {len(todo)})")
            else:
                rows.append(row)
    return rows


def _again(command: list[str], endpoint: str, shape: Shape | None, timeout: float, home: Path | None) -> str:
    options = []
    if endpoint != ENDPOINT:
        options += ["--endpoint", endpoint]
    if shape is not None:
        options += ["--shape", shape]
    if timeout != 30.0:
        options += ["--timeout", f"{timeout:g}"]
    if home is not None:
        options += ["--home", str(home)]
    return shlex.join(["penstock", "torture", *options, "--", *command])


def _write(path: Path, found: Report) -> None:
    try:
        path.write_text(html(found), encoding="utf-8")
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    err.print(f"the report: {path}", highlight=False)


def _print(found: Report) -> None:
    table = Table(title=found.command, title_justify="left", box=None, pad_edge=False)
    roomy = out.width >= 130
    for heading in ("mode", "outcome", "what happens", "how") if roomy else ("mode", "outcome", "how"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("mode", "outcome"))
    for row in found.rows:
        colour = _COLOURS[row.outcome]
        about = (row.case.about,) if roomy else ()
        table.add_row(row.case.name, f"[{colour}]{row.outcome}[/{colour}]", *about, _plain(row.detail))
    out.print(table, highlight=False)
    out.print(", ".join(f"{count} {outcome}" for outcome, count in found.counts.items()), highlight=False)
    if any(row.outcome != "survived" for row in found.rows):
        again = found.again.replace(" -- ", f" --only MODE --seed {found.seed} -- ", 1)
        out.print(f"repeat a row: {_plain(again)}", highlight=False, soft_wrap=True)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
