"""Plans as the gateway uses them: read once a table, counted once a request.

Owns the reading of an endpoint's plan, the count of its requests and the seed of each. It must never touch a stream.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from random import Random

from penstock import faultplan
from penstock.faultplan import Plan
from penstock.gateway import failures
from penstock.gateway.hostile.faults import HostileStream
from penstock.routes import Endpoint

log = logging.getLogger("penstock.gateway")

HEADER = "x-penstock-faults"
"""A request's own plan."""
SEED_HEADER = "x-penstock-seed"
"""On every answer that a plan had a hand in."""
_SEEDS = 2**53
"""Seeds that we draw are exact in every JSON reader; a plan may name a larger one."""


@dataclass(slots=True)
class InForce:
    """An endpoint's plan and how many requests have met it in this worker since it was set."""

    plan: Plan
    requests: int = 0

    def stream(self, rng: Random, container: str, *, plain: bool) -> HostileStream:
        """The next request's stream."""
        number, self.requests = self.requests, self.requests + 1
        base = self.plan.seed
        seed = rng.randrange(_SEEDS) if base is None else (base + number) % 2**63
        return HostileStream(self.plan, seed, number, container, plain)


def read(endpoint: Endpoint, before: Endpoint | None = None, kept: InForce | None = None) -> InForce | None:
    """What is in force for `endpoint`. The count goes on where the plan is the one of `before`; a plan that can't be read is none."""
    if not endpoint.faults:
        return None
    if before is not None and (before.faults, before.faults_set) == (endpoint.faults, endpoint.faults_set):
        return kept
    try:
        return InForce(faultplan.parse(endpoint.faults))
    except ValueError as error:  # control checks plans; an older or newer one may know other rules
        log.error("the fault plan of %s is left out: %s", endpoint.arn, error)
        return None


def of_request(text: str, in_force: InForce | None) -> InForce:
    """The plan that a request brings. Raises AwsError (ValidationError) where it may not, or the plan is wrong."""
    if in_force is None or not in_force.plan.allow_header:
        text = "This endpoint takes no fault plan from X-Penstock-Faults. Allow it with: penstock fault NAME --allow-header"
        raise failures.invalid(text)
    try:
        return InForce(faultplan.parse(text))
    except ValueError as error:
        raise failures.invalid(f"X-Penstock-Faults: {error}") from None
