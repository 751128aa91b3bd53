"""The picker's list and what is found out about an endpoint, over the fake's socket."""

from __future__ import annotations

import pytest

from penstock.chat.endpoints import Listing, Target, list_endpoints, session, target_of
from penstock.errors import AccessDenied
from tests.unit.chat.conftest import Start
from tests.unit.chat.fake_sagemaker import LMI_IMAGE, TGI_IMAGE, FakeEndpoint


def test_the_list_and_the_targets(sagemaker: Start) -> None:
    mine = FakeEndpoint(lambda body: [], image="registry.example/mine:1")
    toy = FakeEndpoint(lambda body: [], environment={"HF_MODEL_ID": "penstock/falcon-toy"})
    sagemaker(lmi=FakeEndpoint(lambda body: [], image=LMI_IMAGE), toy=toy, mine=mine)
    assert list_endpoints() == Listing(("lmi", "toy", "mine"))
    assert target_of("lmi") == Target("LMI", LMI_IMAGE)
    assert target_of("toy") == Target("TGI", TGI_IMAGE, toy=True)
    assert target_of("mine") == Target("TGI", "registry.example/mine:1")
    assert target_of("gone") == Target("TGI")


def test_an_endpoint_of_inference_components(sagemaker: Start) -> None:
    sagemaker(parts=FakeEndpoint(lambda body: [], image=LMI_IMAGE, component="parts"))
    assert target_of("parts") == Target("LMI", LMI_IMAGE, component="parts")


def test_who_may_not_list_may_still_talk(sagemaker: Start) -> None:
    fake = sagemaker(lmi=FakeEndpoint(lambda body: [], image=LMI_IMAGE))
    fake.control_error = AccessDenied("User is not authorized to perform: sagemaker:ListEndpoints")
    listing = list_endpoints()
    assert listing.names == ()
    assert listing.problem is not None
    assert listing.problem.title == "These AWS credentials may not do that."
    assert target_of("lmi") == Target("TGI")


def test_nothing_listens(aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    listing = list_endpoints()
    assert listing.problem is not None
    assert listing.problem.title == "Nothing answers there."
    assert "penstock up" in listing.problem.detail


@pytest.mark.parametrize(
    ("missing", "title"),
    [
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "No AWS credentials."),
        (("AWS_SECRET_ACCESS_KEY",), "No AWS credentials."),
        (("AWS_DEFAULT_REGION",), "No AWS region."),
    ],
)
def test_an_environment_without(
    sagemaker: Start, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], title: str
) -> None:
    sagemaker()
    for name in missing:
        monkeypatch.delenv(name)
    problem = list_endpoints().problem
    assert problem is not None
    assert problem.title == title


def test_the_region_may_be_in_aws_region(aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert session().region_name == "eu-west-3"
