"""The chat page in front of a real Penstock: `penstock up`, endpoints made with boto3, `penstock chat`, a browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from playwright.sync_api import Page, expect

from penstock.chat.app import SUGGESTIONS
from penstock.cli.server import environment, find
from tests.browser.conftest import Serve
from tests.browser.test_page import answer, ask, lengths
from tests.waiting import until

SLOW = {
    "steps": [
        {"status": 200, "headers": {"content-type": "text/event-stream"}},
        {
            "sse": {"token": {"id": 7, "text": " again", "special": False}, "generated_text": None},
            "times": 1200,
            "every_ms": 50,
        },
    ]
}


@dataclass(frozen=True)
class Running:
    """A Penstock that runs on `home`, as boto3 sees it."""

    home: Path
    sagemaker: Any

    def deploy(self, name: str, image: str, variables: dict[str, str]) -> None:
        role = "arn:aws:iam::123456789012:role/chat"
        self.sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": image, "Environment": variables}
        )
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.large",
        }
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

        def in_service() -> bool:
            found = self.sagemaker.describe_endpoint(EndpointName=name)
            assert found["EndpointStatus"] != "Failed", found["FailureReason"]
            return bool(found["EndpointStatus"] == "InService")

        until(in_service, deadline_s=60, every_s=0.2, what=f"{name} InService")

    def logged(self) -> str:
        """Everything that any replica has written."""
        return "".join(file.read_text(errors="replace") for file in (self.home / "logs").rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    output = home / "up.log"
    with output.open("wb") as log:
        command = [
            sys.executable,
            "-m",
            "penstock.cli.main",
            "up",
            "--home",
            str(home),
            "--port",
            "0",
            "--proxy-port",
            "0",
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        server = until(lambda: find(home) or process.poll(), deadline_s=30, what="penstock up")
        assert server is not None
        assert not isinstance(server, int), output.read_text()
        variables = environment(server)
        session = boto3.Session(
            variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"], region_name=variables["AWS_REGION"]
        )
        sagemaker = session.client("sagemaker", endpoint_url=server.url, verify=variables["AWS_CA_BUNDLE"])
        yield Running(home, sagemaker)
        sagemaker.close()
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_the_text_grows_and_a_stop_ends_the_generation(page: Page, serve: Serve, penstock: Running) -> None:
    penstock.deploy("slow", "penstock/scripted", {"PENSTOCK_SCRIPT": json.dumps(SLOW)})
    page.goto(serve({"endpoint_name": "slow"}, home=penstock.home))
    ask(page, "say it again")
    expect(page.get_by_text("again again")).to_be_visible()
    grown = lengths(page, 5)
    assert grown == sorted(set(grown))
    page.get_by_role("button", name="Stop").click()
    expect(
        page.get_by_text(re.compile(r"stopped · first token [\d.]+ s · [\d.]+ tokens/s · \d+ tokens"))
    ).to_be_visible()
    left = until(lambda: re.search(r"client left after (\d+) chunks", penstock.logged()), what="the replica sees it")
    assert left is not None
    assert int(left[1]) < 1200
    assert "again again" in answer(page)


def test_a_dead_endpoint_is_shown_as_an_error(page: Page, serve: Serve, penstock: Running) -> None:
    penstock.deploy("dying", "penstock/scripted", {"PENSTOCK_SCRIPT": json.dumps(SLOW)})
    page.goto(serve({"endpoint_name": "dying"}, home=penstock.home))
    expect(page.get_by_test_id("stChatInputTextArea")).to_be_enabled()
    penstock.sagemaker.delete_endpoint(EndpointName="dying")
    ask(page, "are you there?")
    alert = page.get_by_test_id("stAlert")
    expect(alert).to_contain_text("That endpoint is not there.")
    expect(alert).to_contain_text("Endpoint dying of account 123456789012 not found.")


@pytest.mark.parametrize(
    ("name", "image", "variables"),
    [
        ("falcon-tgi", "penstock/tgi:1.0.3", {"HF_MODEL_ID": "penstock/falcon-demo"}),
        (
            "falcon-lmi",
            "penstock/lmi:0.23.0",
            {
                "HF_MODEL_ID": "penstock/falcon-demo",
                "OPTION_ROLLING_BATCH": "auto",
                "OPTION_OUTPUT_FORMATTER": "jsonlines",
            },
        ),
    ],
    ids=["tgi", "lmi"],
)
def test_the_bundled_model_answers_the_suggested_prompts(
    page: Page, serve: Serve, penstock: Running, name: str, image: str, variables: dict[str, str]
) -> None:
    penstock.deploy(name, image, variables)
    page.goto(serve({"endpoint_name": name}, home=penstock.home))
    expect(page.get_by_text("toy model")).to_be_visible()
    for number, suggestion in enumerate(SUGGESTIONS, start=1):
        page.get_by_role("button", name=suggestion).click()
        expect(page.get_by_test_id("stChatMessage")).to_have_count(2 * number)
        expect(page.get_by_test_id("stChatMessage").last).to_contain_text(
            re.compile(r"first token [\d.]+ s"), timeout=30_000
        )
        assert len(answer(page).split()) >= 10
        assert page.get_by_test_id("stAlert").count() == 0
