"""What changed between TGI's versions, as one value.

Owns every difference that a client can see. `PENSTOCK_SERVER_VERSION`, which the image's tag sets, picks the level; the rest of
the server asks this value and never compares versions itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT = "1.0.3"


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

    @property
    def full_text_without_tag(self) -> bool:
        """Whether `/` repeats the prompt when the model's pipeline tag is not known, as with a directory."""
        return self.version >= (1, 4, 2)

    @property
    def samples_without_parameters(self) -> bool:
        return self.version >= (1, 4)

    @property
    def event_index(self) -> bool:
        return self.version >= (1, 4)

    @property
    def event_input_length(self) -> bool:
        return self.version >= (2, 3)

    @property
    def space_after_colon(self) -> bool:
        """`data: {…}` and the keep-alive comment `: `, since axum 0.7."""
        return self.version >= (2, 2)

    @property
    def frequency_penalty(self) -> bool:
        return self.version >= (1, 4, 1)

    @property
    def top_tokens(self) -> bool:
        """`top_n_tokens`."""
        return self.version >= (1, 0, 3)

    @property
    def prefill_needs_setting(self) -> bool:
        """Whether the prompt's log-probabilities come only with ENABLE_PREFILL_LOGPROBS."""
        return self.version >= (3,)

    @property
    def derives_limits(self) -> bool:
        """Whether unset limits follow the model instead of being 1024 and 2048."""
        return self.version >= (3,)

    @property
    def caps_limits(self) -> bool:
        """Whether unset limits follow the model up to 4096 tokens, and prompts of any allowed length fit into one step."""
        return (2,) <= self.version < (3,)

    @property
    def takes_long_answers(self) -> bool:
        """Whether more new tokens than fit are cut to what fits, from `INSTALMENT` on, as answers are made in such pieces."""
        return self.version >= (3,)

    @property
    def info_without_types(self) -> bool:
        """Whether `/info` leaves out what the engine is and how it makes batches."""
        return self.version >= (2, 3)

    @property
    def info_max_batch_size(self) -> bool:
        return self.version >= (1, 4, 1)

    @property
    def info_max_client_batch_size(self) -> bool:
        return self.version >= (2, 0, 1)

    @property
    def info_router(self) -> bool:
        return self.version >= (2, 0, 3)

    @property
    def says_input_tokens(self) -> bool:
        """Whether `/info` says `max_input_tokens`; before, it is `max_input_length`."""
        return self.version >= (2, 1)

    @property
    def counts_in_headers(self) -> bool:
        """`x-prompt-tokens` and `x-generated-tokens`."""
        return self.version >= (1, 4)

    @property
    def compute_time_in_seconds(self) -> bool:
        """`x-compute-time`; before, it is milliseconds."""
        return self.version >= (1, 4, 3)

    @property
    def compute_type(self) -> bool:
        """COMPUTE_TYPE."""
        return self.version >= (1, 4, 1)

    @property
    def api_key(self) -> bool:
        """API_KEY."""
        return self.version >= (2, 3)

    @property
    def payload_limit(self) -> bool:
        """PAYLOAD_LIMIT."""
        return self.version >= (2, 4, 1)

    @property
    def batches_join(self) -> bool:
        """Whether requests may join running ones at any step (`tgi_batch_concat{reason="chunking"}`); the reasons before were waits."""
        return self.version >= (3,)

    @property
    def tells_skipped_tokens(self) -> bool:
        """`tgi_request_skipped_tokens`."""
        return self.version >= (1, 3)

    @property
    def tells_parts_of_steps(self) -> bool:
        """`tgi_batch_forward_duration`, `tgi_batch_decode_duration` and `tgi_batch_filter_duration`."""
        return self.version >= (1, 3, 3)

    @property
    def words_incomplete_streams(self) -> bool:
        """Whether a stream that ends without an end has an error of its own."""
        return self.version >= (2, 3)

    @property
    def chat(self) -> bool:
        """`/v1/chat/completions` and `/tokenize`."""
        return self.version >= (1, 4)

    @property
    def grammars(self) -> bool:
        return self.version >= (1, 4, 1)

    @property
    def completions(self) -> bool:
        return self.version >= (1, 4, 4)

    @property
    def adapters(self) -> bool:
        """LORA_ADAPTERS."""
        return self.version >= (2, 1)

    @property
    def model_names_adapter(self) -> bool:
        """Whether `model` in OpenAI's requests may name an adapter."""
        return self.version >= (2, 2)

    @property
    def chat_tokenize(self) -> bool:
        """`/chat_tokenize` and `/v1/models`."""
        return self.version >= (2, 3)

    @property
    def vertex(self) -> bool:
        """`/vertex`. Before, only images made for that cloud had it."""
        return self.version >= (3,)

    @property
    def invocations_take_any(self) -> bool:
        """Whether `/invocations` tells native, chat and completion bodies apart by their fields."""
        return self.version >= (2, 4)

    @property
    def messages_api_setting(self) -> bool:
        """Whether MESSAGES_API_ENABLED makes `/invocations` a chat route."""
        return (1, 4) <= self.version < (2, 4)
