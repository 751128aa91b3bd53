"""IAM policies: may a caller do this to that?

Owns the reading of policy documents and the decision. Pure: it must never do I/O, read a clock or know a protocol; what a request is about
comes in as a `Question`. `conditions.py` has the operators, `text.py` wildcards and variables.
AWS: "Policy evaluation logic", "IAM JSON policy elements reference".
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from penstock.errors import AccessDenied
from penstock.policies.conditions import Condition, MalformedPolicy, read_conditions
from penstock.policies.text import Text, Values, as_list

Decision = Literal["allowed", "implicitDeny", "explicitDeny"]

_ELEMENTS = frozenset({"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"})
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")


@dataclass(frozen=True, slots=True)
class Question:
    """An action (`sagemaker:InvokeEndpoint`) on a resource (an ARN, `*` where the action has none), and the request's context keys.

    `context` is by key (`aws:SourceIp`, `aws:CurrentTime`, `aws:PrincipalArn` …), in any letter case.
    """

    action: str
    resource: str
    context: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    def values(self) -> Values:
        """The context with keys in lower case, each with all its values."""
        return {k.lower(): (v,) if isinstance(v, str) else tuple(v) for k, v in self.context.items()}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, taken apart. `negated_…`: of a NotAction, a NotResource."""

    effect: Literal["Allow", "Deny"]
    actions: tuple[re.Pattern[str], ...]
    negated_actions: bool
    resources: tuple[tuple[Text, ...], ...]
    """Each an ARN's six parts, or one part that is `*`."""
    negated_resources: bool
    conditions: tuple[Condition, ...]

    def covers(self, question: Question, values: Values) -> bool:
        """Whether the statement speaks of the question."""
        if any(pattern.fullmatch(question.action) for pattern in self.actions) is self.negated_actions:
            return False
        if any(_matches(parts, question.resource, values) for parts in self.resources) is self.negated_resources:
            return False
        return all(condition.holds(values) for condition in self.conditions)


def decide(policies: Iterable[str], question: Question) -> Decision:
    """What these policy documents (JSON) say together: one Deny outweighs every Allow, and nothing is allowed by default.

    Raises MalformedPolicy.
    """
    values = question.values()
    decision: Decision = "implicitDeny"
    for text in policies:
        for statement in read_policy(text):
            if statement.covers(question, values):
                if statement.effect == "Deny":
                    return "explicitDeny"
                decision = "allowed"
    return decision


def authorize(policies: Sequence[str], question: Question, caller_arn: str) -> None:
    """Raises AccessDenied in AWS's words where `policies` do not allow it. A caller without any policy may do everything.

    A document that cannot be read allows nothing: `read_policy` tells its author why, before it is kept.
    """
    if not policies:
        return
    try:
        decision = decide(policies, question)
    except MalformedPolicy:
        decision = "implicitDeny"
    if decision != "allowed":
        why = (
            "with an explicit deny in an identity-based policy"
            if decision == "explicitDeny"
            else f"because no identity-based policy allows the {question.action} action"
        )
        raise AccessDenied(
            f"User: {caller_arn} is not authorized to perform: {question.action} on resource: {question.resource} {why}"
        )


@functools.lru_cache(maxsize=256)
def read_policy(text: str) -> tuple[Statement, ...]:
    """The statements of a policy document. Raises MalformedPolicy with one line that says what is wrong."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedPolicy("the policy is not valid JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("Statement"), dict | list):
        raise MalformedPolicy("the policy needs a Statement")
    version = document.get("Version", "2008-10-17")
    if version not in ("2012-10-17", "2008-10-17"):
        raise MalformedPolicy(f"the Version must be 2012-10-17 or 2008-10-17, not {version!r}")
    statements = document["Statement"]
    listed = statements if isinstance(statements, list) else [statements]
    return tuple(_statement(statement, variables=version == "2012-10-17") for statement in listed)


def _statement(statement: Any, *, variables: bool) -> Statement:
    if not isinstance(statement, dict):
        raise MalformedPolicy("a statement must be a JSON object")
    if unknown := statement.keys() - _ELEMENTS:
        raise MalformedPolicy(f"a statement of an access key's policy has no element {', '.join(sorted(unknown))}")
    effect = statement.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise MalformedPolicy("the Effect of a statement must be Allow or Deny")
    actions, negated_actions = _either(statement, "Action")
    resources, negated_resources = _either(statement, "Resource")
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise MalformedPolicy(f"not an action: {action!r}")
    return Statement(
        effect=effect,
        actions=tuple(Text(action, variables=False).pattern({}, re.IGNORECASE) for action in actions),
        negated_actions=negated_actions,
        resources=tuple(_resource(resource, variables) for resource in resources),
        negated_resources=negated_resources,
        conditions=read_conditions(statement.get("Condition", {}), variables=variables),
    )


def _either(statement: Mapping[str, Any], name: str) -> tuple[list[str], bool]:
    """The strings of `name` or of `Not…`, one of which there must be, and whether it is the latter."""
    found = [n for n in (name, f"Not{name}") if n in statement]
    if len(found) != 1:
        raise MalformedPolicy(f"a statement needs either {name} or Not{name}")
    texts = as_list(statement[found[0]])
    if not texts or not all(isinstance(text, str) for text in texts):
        raise MalformedPolicy(f"{found[0]} must be a string, or a list of strings")
    return texts, found[0] != name


def _resource(resource: str, variables: bool) -> tuple[Text, ...]:
    if resource == "*":
        return (Text("*", variables=False),)
    parts = resource.split(":", 5)
    if parts[0] != "arn":
        raise MalformedPolicy(f"not a resource's ARN: {resource!r}")
    # What an ARN leaves out at its end may be anything (AWS: "IAM JSON policy elements: Resource").
    return tuple(Text(part, variables=variables) for part in [*parts, *["*"] * (6 - len(parts))])


def _matches(parts: tuple[Text, ...], resource: str, values: Values) -> bool:
    """Part by part, so that a `*` never reaches over a colon of the ARN's own."""
    if len(parts) == 1:
        return True
    there = resource.split(":", 5)
    return len(there) == 6 and all(part.matches(text, values) for part, text in zip(parts, there, strict=True))
