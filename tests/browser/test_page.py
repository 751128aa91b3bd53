"""The chat page in a real browser, in front of a fake SageMaker whose every pause the test decides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from penstock.errors import AwsError
from tests.browser.conftest import Serve
from tests.browser.stripping_proxy import stripping_proxy
from tests.unit.chat.fake_sagemaker import FakeEndpoint, FakeSageMaker
from tests.unit.chat.test_generation import says
from tests.waiting import until

WORDS = [f" word{n}" for n in range(200)]


@pytest.fixture
def fake() -> Iterator[FakeSageMaker]:
    late = AwsError("ModelStreamError", "Your model primary did not complete in time.")
    running = FakeSageMaker(
        falcon=FakeEndpoint(says(*WORDS), pause_s=0.05),
        breaks=FakeEndpoint(says("Half", " an", " answer", then=late)),
    )
    yield running
    running.close()


def ask(page: Page, prompt: str) -> None:
    box = page.get_by_test_id("stChatInputTextArea")
    box.fill(prompt)
    box.press("Enter")


def answer(page: Page) -> str:
    """The text of the last answer."""
    return page.get_by_test_id("stChatMessage").last.inner_text()


def lengths(page: Page, count: int) -> list[int]:
    """How long the answer is, each time it has grown, `count` times."""
    seen = [len(answer(page))]
    while len(seen) < count:
        before = seen[-1]
        until(lambda before=before: len(answer(page)) > before, deadline_s=20, what=f"more than {before} characters")  # type: ignore[misc]
        seen.append(len(answer(page)))
    return seen


def test_type_and_watch_the_answer_grow_then_stop_it(page: Page, serve: Serve, fake: FakeSageMaker) -> None:
    endpoint = fake.endpoints["falcon"]
    page.goto(serve({"AWS_ENDPOINT_URL": fake.url}))
    expect(page).to_have_title("Penstock chat")
    ask(page, "what is life?")
    expect(page.get_by_text("word1 ")).to_be_visible()
    grown = lengths(page, 5)
    assert grown == sorted(set(grown))
    assert endpoint.sent < len(WORDS)
    page.get_by_role("button", name="Stop").click()
    assert endpoint.client_left.wait(5)
    sent = endpoint.sent
    expect(
        page.get_by_text(re.compile(r"stopped · first token [\d.]+ s · [\d.]+ tokens/s · \d+ tokens"))
    ).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    assert "word1 " in answer(page)  # what had come is kept
    assert endpoint.sent == sent < len(WORDS)


def test_a_suggested_prompt_its_figures_and_a_clear_page(page: Page, serve: Serve, fake: FakeSageMaker) -> None:
    fake.endpoints["falcon"].pause_s = 0.001
    page.goto(serve({"AWS_ENDPOINT_URL": fake.url}))
    page.get_by_role("button", name="provide the steps to make a pizza").click()
    expect(page.get_by_text(re.compile(r"first token [\d.]+ s · [\d.]+ tokens/s · 200 tokens"))).to_be_visible(
        timeout=30_000
    )
    assert fake.endpoints["falcon"].bodies[0]["inputs"] == "provide the steps to make a pizza"
    assert "word199" in answer(page)
    page.get_by_role("button", name="Clear conversation").click()
    expect(page.get_by_test_id("stChatMessage")).to_have_count(0)


def test_errors_are_shown_as_errors(page: Page, serve: Serve, fake: FakeSageMaker) -> None:
    page.goto(serve({"AWS_ENDPOINT_URL": fake.url, "endpoint_name": "breaks"}))
    ask(page, "hello")
    alert = page.get_by_test_id("stAlert")
    expect(alert).to_contain_text("Your model primary did not complete in time.")
    assert "Half an answer" in answer(page)
    del fake.endpoints["breaks"]
    ask(page, "are you there?")
    expect(alert.last).to_contain_text("That endpoint is not there.")


def test_a_new_question_stops_the_old_answer(page: Page, serve: Serve, fake: FakeSageMaker) -> None:
    endpoint = fake.endpoints["falcon"]
    page.goto(serve({"AWS_ENDPOINT_URL": fake.url}))
    ask(page, "one")
    expect(page.get_by_text("word1 ")).to_be_visible()
    ask(page, "two")
    assert endpoint.client_left.wait(5)
    until(lambda: len(endpoint.bodies) == 2, what="the second question")
    expect(page.get_by_test_id("stChatMessage")).to_have_count(4)
    assert "stopped" in page.get_by_test_id("stChatMessage").nth(1).inner_text()


def test_closing_the_tab_stops_the_answer(page: Page, serve: Serve, fake: FakeSageMaker) -> None:
    endpoint = fake.endpoints["falcon"]
    page.goto(serve({"AWS_ENDPOINT_URL": fake.url}))
    ask(page, "one")
    expect(page.get_by_text("word1 ")).to_be_visible()
    page.close()
    assert endpoint.client_left.wait(10)
    assert endpoint.sent < len(WORDS)


@pytest.mark.parametrize("cut_off", [False, True], ids=["path-kept", "path-cut-off"])
def test_under_studios_path(page: Page, serve: Serve, fake: FakeSageMaker, cut_off: bool) -> None:
    fake.endpoints["falcon"].pause_s = 0.001
    url = serve({"AWS_ENDPOINT_URL": fake.url}, studio=True)
    path = urlsplit(url).path
    assert re.fullmatch(r"/jupyter/default/proxy/\d+/", path)
    port = urlsplit(url).port
    assert port is not None
    if not cut_off:
        chat(page, url)
        return
    with stripping_proxy(port, path.removesuffix("/")) as front:
        chat(page, f"http://127.0.0.1:{front}{path}")
        page.close()


def chat(page: Page, url: str) -> None:
    page.goto(url)
    ask(page, "what is life?")
    expect(page.get_by_text(re.compile("200 tokens"))).to_be_visible()
    assert "word199" in answer(page)
