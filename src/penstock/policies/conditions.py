"""The condition operators of IAM policies.

Owns what each compares and how several values count. Pure: time and address of a request are context keys like all others.
AWS: "IAM JSON policy elements: Condition operators", "Multivalued context keys".
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from penstock.policies.text import Text, Values, as_list

Compare = Callable[[str, Text, Values], bool]
"""Whether a value of the request fits one of the policy."""


class MalformedPolicy(ValueError):
    """A policy document that cannot be read; the text is one line."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key. `negated`: it holds where no value of the policy fits. `quantifier`: of a key with several values."""

    key: str
    wanted: tuple[Text, ...]
    compare: Compare
    negated: bool
    if_exists: bool
    quantifier: Literal["", "ForAllValues", "ForAnyValue"]

    def holds(self, values: Values) -> bool:
        there = values.get(self.key, ())
        if not there:
            # A key that is missing fits nothing, so that a negated operator holds; ForAllValues holds of no values at all.
            return self.if_exists or self.quantifier == "ForAllValues" or (self.negated and not self.quantifier)
        fits = (
            any(self.compare(value, wanted, values) for wanted in self.wanted) is not self.negated for value in there
        )
        every = self.quantifier == "ForAllValues" or (self.negated and not self.quantifier)
        return all(fits) if every else any(fits)


@dataclass(frozen=True, slots=True)
class _Null(Condition):
    """`Null`: whether the key is missing."""

    def holds(self, values: Values) -> bool:
        missing = not values.get(self.key, ())
        return any(wanted.text.lower() == ("true" if missing else "false") for wanted in self.wanted)


def read_conditions(block: Any, *, variables: bool) -> tuple[Condition, ...]:
    """The conditions of a statement. Raises MalformedPolicy."""
    if not isinstance(block, dict):
        raise MalformedPolicy("a Condition must be a JSON object")
    found: list[Condition] = []
    for name, keys in block.items():
        if not isinstance(keys, dict):
            raise MalformedPolicy(f"the condition {name} must be a JSON object of keys")
        for key, wanted in keys.items():
            found.append(_condition(name, key, as_list(wanted), variables))
    return tuple(found)


def _condition(name: str, key: str, wanted: list[Any], variables: bool) -> Condition:
    quantifier, _, rest = name.rpartition(":")
    if quantifier not in ("", "ForAllValues", "ForAnyValue"):
        raise MalformedPolicy(f"unknown condition operator {name}")
    operator = rest.removesuffix("IfExists")
    texts = [
        str(w).lower() if isinstance(w, bool) else str(w) for w in wanted if isinstance(w, str | bool | int | float)
    ]
    if len(texts) != len(wanted) or not texts:
        raise MalformedPolicy(f"the values of {name} {key} must be strings")
    if operator == "Null" and not quantifier and rest == operator:
        made = tuple(Text(text, variables=False, wild=False) for text in texts)
        return _Null(key.lower(), made, lambda *_: False, False, False, "")
    if operator not in _OPERATORS:
        raise MalformedPolicy(f"unknown condition operator {name}")
    compare, negated, wild, check = _OPERATORS[operator]
    if check is not None:
        for text in texts:
            try:
                check(text)
            except ValueError:
                raise MalformedPolicy(f"{name} {key} cannot be compared with {text!r}") from None
    made = tuple(Text(text, variables=variables, wild=wild) for text in texts)
    kind: Literal["", "ForAllValues", "ForAnyValue"] = quantifier  # type: ignore[assignment]
    return Condition(key.lower(), made, compare, negated, rest != operator, kind)


def _string_equals(value: str, wanted: Text, values: Values) -> bool:
    return value == wanted.plain(values)


def _string_equals_ignore_case(value: str, wanted: Text, values: Values) -> bool:
    plain = wanted.plain(values)
    return plain is not None and value.casefold() == plain.casefold()


def _string_like(value: str, wanted: Text, values: Values) -> bool:
    return wanted.matches(value, values)


def _arn_like(value: str, wanted: Text, values: Values) -> bool:
    """Part by part, in both of ArnEquals and ArnLike."""
    ours, theirs = wanted.text.split(":", 5), value.split(":", 5)
    if len(ours) != 6 or len(theirs) != 6:
        return False
    return all(Text(o, variables=True).matches(t, values) for o, t in zip(ours, theirs, strict=True))


def _bool(value: str, wanted: Text, values: Values) -> bool:
    return value.lower() == (wanted.plain(values) or "").lower()


def _ordered(read: Callable[[str], Any], holds: Callable[[Any, Any], bool]) -> Compare:
    def compare(value: str, wanted: Text, values: Values) -> bool:
        try:
            return holds(read(value), read(wanted.plain(values) or ""))
        except (ValueError, TypeError):
            return False

    return compare


def _moment(text: str) -> dt.datetime:
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return dt.datetime.fromtimestamp(float(text), dt.UTC)
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _address_in(value: str, wanted: Text, values: Values) -> bool:
    try:
        return ipaddress.ip_address(value) in _network(wanted.plain(values) or "")
    except (ValueError, TypeError):
        return False


_ORDERS: dict[str, tuple[Callable[[Any, Any], bool], bool]] = {
    "Equals": (lambda a, b: bool(a == b), False),
    "NotEquals": (lambda a, b: bool(a == b), True),
    "LessThan": (lambda a, b: bool(a < b), False),
    "LessThanEquals": (lambda a, b: bool(a <= b), False),
    "GreaterThan": (lambda a, b: bool(a > b), False),
    "GreaterThanEquals": (lambda a, b: bool(a >= b), False),
}
_OPERATORS: dict[str, tuple[Compare, bool, bool, Callable[[str], object] | None]] = {
    "StringEquals": (_string_equals, False, False, None),
    "StringNotEquals": (_string_equals, True, False, None),
    "StringEqualsIgnoreCase": (_string_equals_ignore_case, False, False, None),
    "StringNotEqualsIgnoreCase": (_string_equals_ignore_case, True, False, None),
    "StringLike": (_string_like, False, True, None),
    "StringNotLike": (_string_like, True, True, None),
    "ArnEquals": (_arn_like, False, True, None),
    "ArnLike": (_arn_like, False, True, None),
    "ArnNotEquals": (_arn_like, True, True, None),
    "ArnNotLike": (_arn_like, True, True, None),
    "BinaryEquals": (_string_equals, False, False, None),
    "Bool": (_bool, False, False, None),
    "IpAddress": (_address_in, False, False, _network),
    "NotIpAddress": (_address_in, True, False, _network),
    **{f"Numeric{n}": (_ordered(float, holds), negated, False, float) for n, (holds, negated) in _ORDERS.items()},
    **{f"Date{n}": (_ordered(_moment, holds), negated, False, _moment) for n, (holds, negated) in _ORDERS.items()},
}
"""By operator: comparison, whether it is negated, whether wildcards count, and a check of the policy's own values."""
