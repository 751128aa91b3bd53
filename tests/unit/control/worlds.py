"""Values for tests of the control plane."""

from __future__ import annotations

import itertools
from dataclasses import replace

from penstock.control.fleet import Endpoint, Fleet, Host, ProductionVariant
from penstock.control.lifecycle import Status

ACCOUNT, REGION = "123456789012", "us-east-1"
_ids = itertools.count(1)


def fleet(generation: int = 1, **counts: int) -> Fleet:
    """A fleet with these variants; one of one replica where none is named."""
    variants = (ProductionVariant(name, "penstock/scripted", count) for name, count in (counts or {"main": 1}).items())
    return Fleet(generation, f"config-{generation}", tuple(variants))


def endpoint(name: str = "e", status: Status = Status.CREATING, /, **counts: int) -> Endpoint:
    return Endpoint(
        arn=f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{name.lower()}",
        id=f"{next(_ids):032x}",
        account=ACCOUNT,
        region=REGION,
        name=name,
        status=status,
        fleet=fleet(1, **counts),
        created_at=100.0,
        modified_at=100.0,
    )


def hosting(name: str = "e") -> Endpoint:
    """An endpoint in service whose variant `main` takes inference components."""
    made = endpoint(name, Status.IN_SERVICE)
    return replace(made, fleet=replace(made.fleet, variants=(ProductionVariant("main", "", 3),)))


def component(of: Endpoint, name: str = "ic", status: Status = Status.CREATING, copies: int = 1) -> Endpoint:
    made = endpoint(name, status, main=copies)
    arn = made.arn.replace(":endpoint/", ":inference-component/")
    fleet = replace(made.fleet, config="", specification={"ModelName": "m"})
    return replace(made, arn=arn, fleet=fleet, host=Host(of.id, of.name, "main"))
