"""The list of cases leaves nothing out."""

from __future__ import annotations

import pytest

from penstock import faultplan
from penstock.torture.cases import GROUPS, cases, chosen
from penstock.torture.content import SHAPES, Shape, content, forms

SEED = 7


def test_every_mode_and_every_fault_is_a_case() -> None:
    known = cases(content("tgi"), SEED)
    assert {case.plan.slicing.mode for case in known} == set(faultplan.MODES)
    kinds = {fault.kind for case in known for fault in case.plan.faults}
    assert kinds == {*faultplan.REFUSING, *faultplan.ENDING, *faultplan.SLOWING}
    assert len({case.name for case in known}) == len(known)
    assert {case.group for case in known} == set(GROUPS)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_form_of_a_shape_is_a_case(shape: Shape) -> None:
    assert {case.form for case in cases(content(shape), SEED)} == {"usual", *forms(shape)}


def test_an_endpoint_with_content_of_its_own_has_no_forms() -> None:
    assert {case.form for case in cases(None, SEED)} == {"usual"}
    assert not any(case.group == "form" for case in cases(None, SEED))


def test_each_plan_bears_the_seed_and_can_be_told() -> None:
    for case in cases(content("lmi"), SEED):
        assert case.plan.seed == SEED
        assert faultplan.parse(faultplan.render(case.plan)) == case.plan


def test_cases_are_chosen_by_group_and_by_name() -> None:
    known = cases(content("lmi"), SEED)
    assert chosen(known, [], []) == known
    assert {case.group for case in chosen(known, ["slicing", "form"], [])} == {"slicing", "form"}
    assert [case.name for case in chosen(known, [], ["random", "utf8"])] == ["utf8", "random"]
    with pytest.raises(ValueError, match="no such mode: nonsense; there are: as-is, "):
        chosen(known, [], ["nonsense"])
    with pytest.raises(ValueError, match="no such group: nonsense; there are: slicing, "):
        chosen(known, ["nonsense"], [])
