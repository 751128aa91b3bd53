"""What changed between TGI's versions, as one value.

Owns every difference that a client can see. `PENSTOCK_SERVER_VERSION`, which the image's tag sets, picks the level; the rest of
the server asks this value and never compares versions itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT = "1.0.3"


class Since:
    """Of a level: whether it is this version or a later one."""

    def __init__(self, *version: int) -> None:
        self._version = version

    def __get__(self, level: Level, owner: type[Level]) -> bool:
        return level.version >= self._version


@dataclass(frozen=True, slots=True)
class Level:
    """A TGI version, as a tuple: (1, 0, 3)."""

    version: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Level:
        """Raises ValueError on what is no version. Empty is 1.0.3."""
        text = text or DEFAULT
        if not re.fullmatch(r"\d+(\.\d+){0,3}", text):
            raise ValueError(f"PENSTOCK_SERVER_VERSION must be a version such as {DEFAULT}, not {text!r}")
        return cls(tuple(int(part) for part in text.split(".")))

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def default_max_new_tokens(self) -> int | None:
        """None is as many as MAX_TOTAL_TOKENS leaves room for."""
        if self.version < (1, 1, 1):
            return 20
        if (1, 3, 4) <= self.version < (3,):
            return 100
        return None

    full_text_without_tag = Since(1, 4, 2)
    """Whether `/` repeats the prompt when the model's pipeline tag is not known, as with a directory."""
    samples_without_parameters = Since(1, 4)
    event_index = Since(1, 4)
    event_input_length = Since(2, 3)
    space_after_colon = Since(2, 2)
    """`data: {…}` and the keep-alive comment `: `, since axum 0.7."""
    frequency_penalty = Since(1, 4, 1)
    top_tokens = Since(1, 0, 3)
    """`top_n_tokens`."""
    prefill_needs_setting = Since(3)
    """Whether the prompt's log-probabilities come only with ENABLE_PREFILL_LOGPROBS."""
    derives_limits = Since(3)
    """Whether unset limits follow the model instead of being 1024 and 2048."""

    @property
    def caps_limits(self) -> bool:
        """Whether unset limits follow the model up to 4096 tokens, and prompts of any allowed length fit into one step."""
        return (2,) <= self.version < (3,)

    takes_long_answers = Since(3)
    """Whether more new tokens than fit are cut to what fits, from `INSTALMENT` on, as answers are made in such pieces."""
    info_without_types = Since(2, 3)
    """Whether `/info` leaves out what the engine is and how it makes batches."""
    info_max_batch_size = Since(1, 4, 1)
    info_max_client_batch_size = Since(2, 0, 1)
    info_router = Since(2, 0, 3)
    says_input_tokens = Since(2, 1)
    """Whether `/info` says `max_input_tokens`; before, it is `max_input_length`."""
    counts_in_headers = Since(1, 4)
    """`x-prompt-tokens` and `x-generated-tokens`."""
    compute_time_in_seconds = Since(1, 4, 3)
    """`x-compute-time`; before, it is milliseconds."""
    compute_type = Since(1, 4, 1)
    """COMPUTE_TYPE."""
    api_key = Since(2, 3)
    """API_KEY."""
    payload_limit = Since(2, 4, 1)
    """PAYLOAD_LIMIT."""
    batches_join = Since(3)
    """Whether requests may join running ones at any step (`tgi_batch_concat{reason="chunking"}`); the reasons before were waits."""
    tells_skipped_tokens = Since(1, 3)
    """`tgi_request_skipped_tokens`."""
    tells_parts_of_steps = Since(1, 3, 3)
    """`tgi_batch_forward_duration`, `tgi_batch_decode_duration` and `tgi_batch_filter_duration`."""
    words_incomplete_streams = Since(2, 3)
    """Whether a stream that ends without an end has an error of its own."""
    chat = Since(1, 4)
    """`/v1/chat/completions` and `/tokenize`."""
    grammars = Since(1, 4, 1)
    completions = Since(1, 4, 4)
    adapters = Since(2, 1)
    """LORA_ADAPTERS."""
    model_names_adapter = Since(2, 2)
    """Whether `model` in OpenAI's requests may name an adapter."""
    chat_tokenize = Since(2, 3)
    """`/chat_tokenize` and `/v1/models`."""
    vertex = Since(3)
    """`/vertex`. Before, only images made for that cloud had it."""
    invocations_take_any = Since(2, 4)
    """Whether `/invocations` tells native, chat and completion bodies apart by their fields."""

    @property
    def messages_api_setting(self) -> bool:
        """Whether MESSAGES_API_ENABLED makes `/invocations` a chat route."""
        return (1, 4) <= self.version < (2, 4)
