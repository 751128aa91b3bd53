"""Values for tests of the control plane."""

from __future__ import annotations

import itertools

from penstock.control.fleet import Endpoint, Fleet, ProductionVariant
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
