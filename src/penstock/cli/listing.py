"""`penstock ls`, `show` and `rm`: what endpoints there are, what one is, and its end."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from penstock.cli import endpoints
from penstock.cli.app import Home, Json, app, err, out, print_json
from penstock.cli.progress import step
from penstock.cli.server import aws_errors, client, running

STYLES = {"InService": "green", "Failed": "red", "Creating": "yellow", "Updating": "yellow", "Deleting": "dim"}
Name = Annotated[str, typer.Argument(help="The endpoint.")]


@app.command("ls")
def list_endpoints(as_json: Json = False, home: Home = None) -> None:
    """List the endpoints."""
    server = running(home)
    with aws_errors():
        pages = client(server, "sagemaker").get_paginator("list_endpoints").paginate()
        found: list[dict[str, Any]] = [endpoint for page in pages for endpoint in page["Endpoints"]]
    if as_json:
        print_json(found)
        return
    if not found:
        err.print("no endpoints; make one with: penstock deploy tgi", highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("NAME", "STATUS", "CREATED"):
        table.add_column(column, no_wrap=True)
    for endpoint in found:
        status = endpoint["EndpointStatus"]
        created = endpoint["CreationTime"].astimezone().strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(
            endpoint["EndpointName"], f"[{STYLES.get(status, '')}]{status}[/]" if status in STYLES else status, created
        )
    out.print(table)


@app.command()
def show(name: Name, as_json: Json = False, home: Home = None) -> None:
    """Show one endpoint: its state, its variants, its models, its inference components."""
    server = running(home)
    with aws_errors():
        seen = endpoints.describe(server, name)
    if as_json:
        print_json(seen)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    status = seen["EndpointStatus"]
    table.add_row("endpoint", seen["EndpointName"])
    table.add_row("status", f"[{STYLES[status]}]{status}[/]" if status in STYLES else status)
    if reason := seen.get("FailureReason"):
        table.add_row("reason", reason)
    table.add_row("arn", seen["EndpointArn"])
    table.add_row("config", seen["EndpointConfigName"])
    for variant in seen.get("ProductionVariants", []):
        what = "replicas" if "DeployedImages" in variant else "instances"
        count = f"{variant.get('CurrentInstanceCount', 0)} of {variant.get('DesiredInstanceCount', 0)} {what}"
        table.add_row("variant", f"{variant['VariantName']}, weight {variant.get('CurrentWeight', 0):g}, {count}")
    for component in seen["InferenceComponents"]:
        table.add_row("component", _component(seen, component))
        if reason := component.get("FailureReason"):
            table.add_row("", reason)
    for model in seen["Models"]:
        container = model.get("PrimaryContainer", {})
        table.add_row("model", f"{model['ModelName']} ({container.get('Image', '')})")
        for key, value in container.get("Environment", {}).items():
            table.add_row("", f"{key}={value}")
    out.print(table)


def _component(endpoint: dict[str, Any], seen: dict[str, Any]) -> str:
    """One line: its name, its status, its copies, what it runs."""
    status, copies = seen["InferenceComponentStatus"], seen["RuntimeConfig"]
    styled = f"[{STYLES[status]}]{status}[/]" if status in STYLES else status
    count = f"{copies['CurrentCopyCount']} of {copies['DesiredCopyCount']} copies"
    image = endpoints.image_of(endpoint, seen["Specification"])
    return f"{seen['InferenceComponentName']}, {styled}, {count}" + (f" ({image})" if image else "")


@app.command()
def rm(names: Annotated[list[str], typer.Argument(help="Endpoints.")], home: Home = None) -> None:
    """Delete endpoints with their inference components, configs and models."""
    server = running(home)
    with aws_errors():
        for name in names:
            with step(f"deleting {name}") as tell:
                endpoints.remove(server, name)
                tell("gone")
