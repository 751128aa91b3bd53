"""The status table: every status an endpoint can have, and every legal way from one to the next.

An inference component goes the same ways; who asks about it is shown `Updating` for `RollingBack`, which AWS's components do not have.

Owns the rules alone. It must never act, ask the clock or read a store. The table and the picture in docs/control-plane.md are
drawn from `TRANSITIONS`; a test compares them.

AWS also knows `OutOfService`, `SystemUpdating` and `UpdateRollbackFailed`; nothing here leads to them: an old fleet is stopped only
after the new one serves, so that going back never needs to start anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from penstock.errors import ValidationException


class Status(StrEnum):
    """EndpointStatus of DescribeEndpoint."""

    CREATING = "Creating"
    IN_SERVICE = "InService"
    UPDATING = "Updating"
    ROLLING_BACK = "RollingBack"
    FAILED = "Failed"
    DELETING = "Deleting"


class Trigger(StrEnum):
    """What moves an endpoint: a call of the API, or something the reconciler saw."""

    CREATE = "CreateEndpoint"
    UPDATE = "UpdateEndpoint"
    SCALE = "UpdateEndpointWeightsAndCapacities"
    DELETE = "DeleteEndpoint"
    HEALTHY = "every wanted replica answers /ping"
    FAILED = "a replica can't start"
    WITHDRAWN = "the new replicas are gone"
    GONE = "no replica is left"


Place = Status | None
"""A status, or None: the endpoint does not exist."""

TRANSITIONS: Mapping[tuple[Place, Trigger], Place] = {
    (None, Trigger.CREATE): Status.CREATING,
    (Status.CREATING, Trigger.HEALTHY): Status.IN_SERVICE,
    (Status.CREATING, Trigger.FAILED): Status.FAILED,
    (Status.CREATING, Trigger.DELETE): Status.DELETING,
    (Status.IN_SERVICE, Trigger.UPDATE): Status.UPDATING,
    (Status.IN_SERVICE, Trigger.SCALE): Status.UPDATING,
    (Status.IN_SERVICE, Trigger.DELETE): Status.DELETING,
    (Status.UPDATING, Trigger.HEALTHY): Status.IN_SERVICE,
    (Status.UPDATING, Trigger.FAILED): Status.ROLLING_BACK,
    (Status.UPDATING, Trigger.DELETE): Status.DELETING,
    (Status.ROLLING_BACK, Trigger.WITHDRAWN): Status.IN_SERVICE,
    (Status.ROLLING_BACK, Trigger.DELETE): Status.DELETING,
    (Status.FAILED, Trigger.DELETE): Status.DELETING,
    # Asked twice (a client that lost the first answer): the same answer twice.
    (Status.DELETING, Trigger.DELETE): Status.DELETING,
    (Status.DELETING, Trigger.GONE): None,
}

SERVING = frozenset({Status.IN_SERVICE, Status.UPDATING, Status.ROLLING_BACK})
"""Statuses in which an endpoint can be invoked."""


class IllegalTransition(Exception):
    """A trigger that the table does not know in that status: a fault of ours where no caller asked for it."""


def after(place: Place, trigger: Trigger) -> Place:
    """The status that `trigger` leads to. Raises IllegalTransition."""
    try:
        return TRANSITIONS[place, trigger]
    except KeyError:
        raise IllegalTransition(f"{trigger.name} is not legal in {place or 'no status'}") from None


def asked(status: Status, trigger: Trigger, arn: str, noun: str = "endpoint") -> Status:
    """Like `after`, for a caller's request. Raises ValidationException, worded for the caller; `noun` is what AWS calls the resource."""
    try:
        place = after(status, trigger)
    except IllegalTransition:
        if status is Status.FAILED:
            text = f'Cannot update {noun} "{arn}" in status Failed. Delete it and create it again.'
        elif status is Status.DELETING:
            text = f'Could not find {noun} "{arn}".'
        else:
            text = f'Cannot update in-progress {noun} "{arn}".'
        raise ValidationException(text) from None
    assert place is not None, "no request of a caller ends an endpoint at once"
    return place


def markdown() -> str:
    """The table as Markdown, for the docs."""
    lines = ["| from | when | to |", "|---|---|---|"]
    for (place, trigger), target in TRANSITIONS.items():
        lines.append(f"| {_name(place)} | {trigger.value} | {_name(target)} |")
    return "\n".join(lines)


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2"]
    for (place, trigger), target in TRANSITIONS.items():
        lines.append(f"    {place or '[*]'} --> {target or '[*]'}: {trigger.value}")
    return "\n".join(lines)


def _name(place: Place) -> str:
    return f"`{place.value}`" if place else "(none)"
