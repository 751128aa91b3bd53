"""Plans as JSON: what is written is read back, and what is wrong is named."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.faultplan import ENDING, SLOWING, Fault, Plan, Slicing, parse, render

FAULTS = st.builds(
    Fault,
    kind=st.sampled_from(ENDING + SLOWING),
    after_parts=st.none() | st.integers(0, 99),
    after_ms=st.none() | st.integers(0, 99),
    ms=st.integers(0, 1000),
    probability=st.floats(0, 1),
    message=st.text(max_size=20),
    every=st.integers(1, 9),
)
PLANS = st.builds(
    Plan,
    slicing=st.sampled_from([Slicing(), Slicing("bytes", 7), Slicing("utf8")]),
    faults=st.lists(FAULTS, max_size=4).map(tuple),
    seed=st.none() | st.integers(0, 2**62),
    allow_header=st.booleans(),
)


@given(plan=PLANS)
def test_written_and_read_back(plan: Plan) -> None:
    assert parse(render(plan)) == plan


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "truncated"),
        ("[]", "array"),
        ('{"slicing": {"mode": "upside-down"}}', "upside-down"),
        ('{"slicing": {"mode": "bytes"}}', "size"),
        ('{"faults": [{"kind": "reset", "after_part": 5}]}', "after_part"),
        ('{"faults": [{"after_parts": 5}]}', "kind"),
        ('{"faults": [{"kind": "explode"}]}', "explode"),
        ('{"faults": [{"kind": "end", "probability": 2}]}', "probability"),
        ('{"faults": [{"kind": "end", "every": 0}]}', "every"),
        ('{"faults": [{"kind": "Throttling", "after_parts": 3}]}', "before the first byte"),
        ('{"slice": 7}', "slice"),
        ('{"seed": -1}', "seed"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, names: str) -> None:
    with pytest.raises(ValueError, match=names) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_off_is_off() -> None:
    assert parse("{}").off
    assert not parse('{"slicing": {"mode": "utf8"}}').off


def test_in_words_it_is_the_same_plan() -> None:
    words = "mode=bytes size=7 seed=5 kind=ModelStreamError after_parts=5 probability=0.5 kind=jitter ms=3 allow_header=true"
    document = {
        "slicing": {"mode": "bytes", "size": 7},
        "faults": [{"kind": "ModelStreamError", "after_parts": 5, "probability": 0.5}, {"kind": "jitter", "ms": 3}],
        "seed": 5,
        "allow_header": True,
    }
    assert parse(words) == parse(json.dumps(document))


@pytest.mark.parametrize(
    ("words", "names"),
    [("mode=bytes 7", "'7'"), ("after_parts=3", "before any"), ("kind=end after=3", "after"), ("mode=x", "mode")],
)
def test_what_is_wrong_in_words_is_named(words: str, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        parse(words)
