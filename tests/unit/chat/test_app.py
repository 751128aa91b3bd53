"""The page, run by Streamlit's own test driver: everything that needs no browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import penstock.chat
from penstock.chat.app import SUGGESTIONS, figures, markdown
from penstock.chat.generation import Answer
from penstock.errors import AccessDenied, AwsError
from tests.unit.chat.conftest import Start
from tests.unit.chat.fake_sagemaker import LMI_IMAGE, FakeEndpoint
from tests.unit.chat.test_generation import says
from tests.unit.client import formats

APP = Path(penstock.chat.__file__).with_name("app.py")


def opened() -> Any:
    page = AppTest.from_file(str(APP), default_timeout=20).run()
    assert not page.exception
    return page


def shown(page: Any) -> str:
    return "\n".join(
        str(element.value) for kind in (page.markdown, page.error, page.info, page.caption) for element in kind
    )


def button(page: Any, label: str) -> Any:
    return next(found for found in page.button if found.label == label)


def test_ask_answer_and_clear(sagemaker: Start) -> None:
    fake = sagemaker(falcon=FakeEndpoint(says("Life", " is", " $5", " and", " `$6`.")))
    page = opened()
    assert page.title[0].value == "Penstock chat"
    page.chat_input[0].set_value("what is life?").run()
    assert not page.exception
    assert [message.name for message in page.chat_message] == ["user", "assistant"]
    assert r"Life is \$5 and `$6`." in shown(page)
    assert "tokens/s" in page.caption[-1].value
    assert "5 tokens" in page.caption[-1].value
    parameters = {"max_new_tokens": 400, "temperature": 0.1, "do_sample": True, "return_full_text": False}
    assert fake.endpoints["falcon"].bodies == [{"inputs": "what is life?", "parameters": parameters, "stream": True}]
    page.run()
    assert r"Life is \$5 and `$6`." in shown(page)  # it is kept
    button(page, "Clear conversation").click().run()
    assert len(page.chat_message) == 0


def test_the_sliders_and_the_formats(sagemaker: Start) -> None:
    def lines(body: dict[str, Any]) -> list[bytes | AwsError]:
        return [line + b"\n" for line in formats.lmi_jsonlines(["a", "b"]).splitlines()]

    fake = sagemaker(lmi=FakeEndpoint(lines, image=LMI_IMAGE))
    page = opened()
    tokens, temperature = page.slider
    assert (tokens.min, tokens.max, tokens.value) == (10, 1024, 400)
    assert (temperature.min, temperature.max, temperature.value) == (0.1, 2.5, 0.1)
    tokens.set_value(77)
    temperature.set_value(1.5)
    page.chat_input[0].set_value("hello").run()
    assert shown(page).count("ab") == 1
    page.selectbox[1].set_value("OpenAI")
    page.chat_input[0].set_value("again").run()
    first, second = fake.endpoints["lmi"].bodies
    assert first == {
        "inputs": "hello",
        "parameters": {"max_new_tokens": 77, "temperature": 1.5, "do_sample": True},
        "stream": True,
    }
    assert [(turn["role"], turn["content"]) for turn in second["messages"]] == [
        ("user", "hello"),
        ("assistant", "ab"),
        ("user", "again"),
    ]
    assert second["max_tokens"] == 77


@pytest.mark.parametrize("suggestion", SUGGESTIONS)
def test_a_suggested_prompt_is_asked(sagemaker: Start, suggestion: str) -> None:
    fake = sagemaker(falcon=FakeEndpoint(says("So.")))
    page = opened()
    button(page, suggestion).click().run()
    assert [body["inputs"] for body in fake.endpoints["falcon"].bodies] == [suggestion]
    assert "So." in shown(page)


def test_the_endpoint_that_the_environment_names_comes_first(sagemaker: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = sagemaker(other=FakeEndpoint(says("no")), mine=FakeEndpoint(says("yes")))
    monkeypatch.setenv("endpoint_name", "mine")
    page = opened()
    assert (page.selectbox[0].value, page.selectbox[0].options) == ("mine", ["other", "mine"])
    fake.control_error = AccessDenied("not authorized to perform: sagemaker:ListEndpoints")
    page = opened()
    assert page.selectbox[0].options == ["mine"]
    page.chat_input[0].set_value("hello").run()
    assert "yes" in shown(page)


def test_no_endpoint_at_all_and_then_one(sagemaker: Start) -> None:
    fake = sagemaker()
    page = opened()
    assert "No endpoint is in service" in page.info[0].value
    assert page.chat_input[0].disabled
    fake.endpoints["new"] = FakeEndpoint(says("Hello"), environment={"HF_MODEL_ID": "penstock/falcon"})
    button(page, "").click().run()
    assert page.selectbox[0].value == "new"
    assert "toy model" in shown(page)


def test_who_may_not_list_is_told_so(sagemaker: Start) -> None:
    fake = sagemaker()
    fake.control_error = AccessDenied("not authorized to perform: sagemaker:ListEndpoints")
    page = opened()
    assert "may not do that" in page.error[0].value
    assert "sagemaker:ListEndpoints" in page.error[0].value


def test_no_credentials(sagemaker: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    sagemaker()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "No AWS credentials" in opened().error[0].value


def test_a_dead_endpoint_is_an_error_on_the_page(sagemaker: Start) -> None:
    fake = sagemaker(falcon=FakeEndpoint(says("Hello")))
    page = opened()
    del fake.endpoints["falcon"]
    page.chat_input[0].set_value("hello").run()
    assert "That endpoint is not there" in page.error[0].value


def test_a_broken_answer_keeps_its_text(sagemaker: Start) -> None:
    late = AwsError("ModelStreamError", "Your model primary did not complete in time.")
    sagemaker(falcon=FakeEndpoint(says("Half", " an", " answer", then=late)))
    page = opened()
    page.chat_input[0].set_value("hello").run()
    assert "Half an answer" in shown(page)
    assert "did not complete in time" in page.error[0].value


def test_markdown_keeps_lines_and_money_and_leaves_code_alone() -> None:
    assert markdown("a $1\nb `$2`\n```\n$3\n") == "a \\$1  \nb `$2`  \n```\n$3\n"


def test_figures() -> None:
    assert figures(Answer("a", 1, 0.5, 0.5, done=True)) == "all at once after 0.50 s"
    assert (
        figures(Answer("a", 11, 0.5, 1.5, stopped=True)) == "stopped · first token 0.50 s · 10.0 tokens/s · 11 tokens"
    )
    assert figures(Answer()) == ""
