"""The status table, and the docs drawn from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.control import lifecycle
from penstock.control.lifecycle import IllegalTransition, Status, Trigger, after, asked
from penstock.errors import ValidationException

PAGE = Path(__file__).parents[3] / "docs" / "control-plane.md"
ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e"


def test_every_status_can_be_reached_and_left() -> None:
    reached, frontier = set[lifecycle.Place](), {lifecycle.after(None, Trigger.CREATE)}
    while frontier:
        reached |= frontier
        frontier = {to for (place, _), to in lifecycle.TRANSITIONS.items() if place in reached} - reached
    assert reached == {*Status, None}
    for status in Status:
        assert any(place is status for place, _ in lifecycle.TRANSITIONS)


def test_delete_is_legal_in_every_status_and_leads_to_deleting() -> None:
    for status in Status:
        assert asked(status, Trigger.DELETE, ARN) is Status.DELETING


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.IN_SERVICE}))
@pytest.mark.parametrize("trigger", [Trigger.UPDATE, Trigger.SCALE])
def test_an_update_is_for_endpoints_in_service(status: Status, trigger: Trigger) -> None:
    with pytest.raises(ValidationException) as caught:
        asked(status, trigger, ARN)
    assert ARN in caught.value.message


def test_what_the_table_lacks_is_refused() -> None:
    with pytest.raises(IllegalTransition, match="HEALTHY is not legal in Failed"):
        after(Status.FAILED, Trigger.HEALTHY)


def test_the_docs_show_this_table() -> None:
    page = PAGE.read_text()
    assert lifecycle.markdown() in page
    assert lifecycle.mermaid() in page
