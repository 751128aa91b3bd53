"""The chat page, as Streamlit runs it: from top to bottom at every click.

Owns the layout and the conversation. It must never know how an answer is fetched: `Generation` does that, in a thread of its
own. Any click interrupts the script: a new run begins at once, in another thread, and settles the generation that it finds.
A closed tab raises in the run that is waiting, which then settles it itself. Either way the connection closes at once.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from penstock.chat.endpoints import Listing, Target, list_endpoints, target_of
from penstock.chat.formats import FORMATS, Format, Turn, request_body
from penstock.chat.generation import Answer, Generation

AVATARS = {"user": ":material/person:", "assistant": ":material/water_drop:"}
SUGGESTIONS = ("what is SageMaker inference?", "provide the steps to make a pizza", "what is life?")
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]*`)", re.DOTALL)
_TICK_S = 0.1  # how often the page looks up while nothing comes; a Stop is seen at the next look


@dataclass(frozen=True, slots=True)
class Settings:
    """What the left pane says."""

    endpoint: str | None
    target: Target
    format: Format
    tokens: int
    temperature: float


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation; answers keep their figures and their problem."""

    role: Literal["user", "assistant"]
    text: str
    answer: Answer | None = None


def markdown(text: str) -> str:
    """Model text as Markdown: line breaks stay, dollar signs are no formulas, code is left alone."""
    parts = _CODE.split(text)
    return "".join(part if n % 2 else part.replace("$", r"\$").replace("\n", "  \n") for n, part in enumerate(parts))


def figures(answer: Answer) -> str:
    """The line under an answer."""
    told = []
    if answer.stopped:
        told.append("stopped")
    if answer.tokens > 1:
        told.append(f"first token {answer.first_s:.2f} s")
        if answer.tokens_per_s is not None:
            told.append(f"{answer.tokens_per_s:.1f} tokens/s")
        told.append(f"{answer.tokens} tokens")
    elif answer.first_s is not None:  # not streamed, or one token long
        told.append(f"all at once after {answer.first_s:.2f} s")
    return " · ".join(told)


def show_answer(answer: Answer) -> None:
    """An answer that is complete, as far as it got."""
    if answer.text:
        st.markdown(markdown(answer.text))
    elif answer.problem is None and not answer.stopped:
        st.markdown("*The endpoint answered with no text.*")
    if answer.problem is not None:
        detail = f"\n\n{markdown(answer.problem.detail)}" if answer.problem.detail else ""
        st.error(f"**{markdown(answer.problem.title)}**{detail}", icon=":material/error:")
    if line := figures(answer):
        st.caption(line)


def left_pane() -> Settings:
    """The sidebar, and what it is set to."""
    with st.sidebar:
        endpoint = endpoint_picker()
        target = target_behind(endpoint) if endpoint else Target("TGI")
        st.markdown("**Suggested prompts**")
        for suggestion in SUGGESTIONS:
            if st.button(suggestion, width="stretch", disabled=endpoint is None):
                st.session_state.prompt = suggestion
        tokens = st.slider("Number of tokens to generate", 10, 1024, 400, 1)
        temperature = st.slider("Temperature", 0.1, 2.5, 0.1, 0.1)
        picked: Format | None = st.selectbox(
            "Request format",
            [None, *FORMATS],
            format_func=lambda name: name or f"Detect ({target.format})",
            help="Told from the endpoint's container image. Choose one where the image is your own.",
        )
        if st.button("Clear conversation", icon=":material/delete:", width="stretch"):
            st.session_state.messages = []
    return Settings(endpoint, target, picked or target.format, tokens, temperature)


def endpoint_picker() -> str | None:
    """The endpoint to talk to: the one that `endpoint_name` names, until another is picked."""
    wanted = os.environ.get("endpoint_name", "").strip()  # noqa: SIM112  # the name that AWS's example uses
    left, right = st.columns([5, 1], vertical_alignment="bottom")
    if (
        right.button("", icon=":material/refresh:", help="Look for endpoints again")
        or "listing" not in st.session_state
    ):
        st.session_state.listing = list_endpoints()
        st.session_state.targets = {}
    listing: Listing = st.session_state.listing
    names = [*([wanted] if wanted and wanted not in listing.names else []), *listing.names]
    index = names.index(wanted) if wanted else 0
    name: str | None = left.selectbox(
        "Endpoint", names, index=index if names else None, placeholder="none in service", disabled=not names
    )
    return name


def target_behind(endpoint: str) -> Target:
    """What the endpoint runs; asked once, until the list is refreshed."""
    targets: dict[str, Target] = st.session_state.targets
    if endpoint not in targets:
        targets[endpoint] = target_of(endpoint)
    return targets[endpoint]


def no_endpoint(listing: Listing) -> None:
    """What to do where there is nobody to talk to."""
    if listing.problem is not None:
        st.error(f"**{listing.problem.title}**\n\n{listing.problem.detail}", icon=":material/error:")
        return
    st.info(
        "**No endpoint is in service.**\n\nDeploy one, with `penstock deploy tgi --model DIR` or the SageMaker SDK, and press "
        "the refresh button. Or name one in the variable `endpoint_name` before starting the chat.",
        icon=":material/info:",
    )


def settle(generation: Generation, messages: list[Message]) -> Answer | None:
    """Ends the generation, if it runs, and keeps what came of it. None where another run of the script has done so."""
    return generation.settle(lambda answer: messages.append(Message("assistant", answer.text, answer)))


def answer_last(settings: Settings) -> None:
    """Streams the answer to the last message. However this ends, the generation ends with it and the text is kept."""
    messages: list[Message] = st.session_state.messages
    turns: list[Turn] = [(message.role, message.text) for message in messages if message.text]
    body = request_body(settings.format, turns, tokens=settings.tokens, temperature=settings.temperature)
    assert settings.endpoint is not None
    with st.chat_message("assistant", avatar=AVATARS["assistant"]):
        place, button = st.empty(), st.empty()
        button.button("Stop", icon=":material/stop_circle:", key=f"stop-{len(messages)}")
        generation = Generation(settings.endpoint, body, component=settings.target.component)
        st.session_state.generation = generation
        try:
            so_far = generation.wait(None, 0)
            while not so_far.done:
                # A write at every look, new text or none: it is where an interrupted run notices.
                place.markdown(markdown(so_far.text) + " ▍" if so_far.text else ":gray[▍]")
                so_far = generation.wait(so_far, _TICK_S)
        finally:
            answer = settle(generation, messages)
        place.empty()
        button.empty()
        if answer is not None:
            show_answer(answer)


def page() -> None:
    """The whole page, once."""
    st.set_page_config(page_title="Penstock chat", page_icon=":material/water_drop:", layout="centered")
    st.session_state.setdefault("messages", [])
    if (interrupted := st.session_state.pop("generation", None)) is not None:
        settle(interrupted, st.session_state.messages)
    settings = left_pane()
    st.title("Penstock chat")
    if settings.endpoint is None:
        no_endpoint(st.session_state.listing)
    elif settings.target.toy:
        st.caption("A toy model that comes with Penstock answers here. It proves the pipes; it knows little else.")
    else:
        st.caption(f"Each token is shown as `{settings.endpoint}` sends it.")
    typed = st.chat_input("Ask something", disabled=settings.endpoint is None)
    prompt = typed or st.session_state.pop("prompt", None)
    for message in st.session_state.messages:
        with st.chat_message(message.role, avatar=AVATARS[message.role]):
            if message.answer is None:
                st.markdown(markdown(message.text))
            else:
                show_answer(message.answer)
    if prompt and settings.endpoint is not None:
        st.session_state.messages.append(Message("user", prompt))
        with st.chat_message("user", avatar=AVATARS["user"]):
            st.markdown(markdown(prompt))
        answer_last(settings)


if __name__ == "__main__":  # as Streamlit runs it
    page()
