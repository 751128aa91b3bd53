"""Text to token ids and back, with the model's own `tokenizer.json`.

Owns reading the tokenizer's files, special tokens and the chat template. It must never know a model server's formats, and needs
neither torch nor transformers.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

# Its thread pool would fight with the engine for the cores, and it warns when the process forks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer

from penstock.engines.chattemplate import ChatTemplate
from penstock.engines.modelconfig import ModelConfig, read_model_config

SHORT_TEXT = 4096
"""Characters. Up to here encoding takes less than about a millisecond and stays on the event loop; longer texts go to a thread."""
MOST_AT_ONCE = 256
"""Long texts that are encoded at once. They share the cores, and none waits for another's end; the loop's own threads are a handful."""
_THREADS = ThreadPoolExecutor(MOST_AT_ONCE, "tokenizer")

MOST_REMEMBERED = 32_768
"""Tokens whose text alone is kept: some 4 MB."""


class TokenizerError(Exception):
    """The tokenizer can't be loaded, or can't encode a text. The message is one line."""


class TextTokenizer:
    """One model's tokenizer. All methods may be called from any thread."""

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig, settings: Mapping[str, Any]) -> None:
        """`settings` is the content of `tokenizer_config.json`."""
        self.config = config
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        added: Mapping[int, Any] = tokenizer.get_added_tokens_decoder()
        self._special = frozenset(number for number, token in added.items() if token.special)
        self._settings = settings
        self._alone: dict[int, str] = {}
        self.chat_template: ChatTemplate | None = None
        if source := _default_template(settings.get("chat_template")):
            self.chat_template = ChatTemplate(source, self.special_tokens)

    @classmethod
    def load(cls, model: Path) -> TextTokenizer:
        """From a directory with `tokenizer.json`, `config.json` and, if there, `tokenizer_config.json`. Raises TokenizerError."""
        file = model / "tokenizer.json"
        if not file.is_file():
            raise TokenizerError(
                f"{model} holds no tokenizer.json (a slow tokenizer must be saved as a fast one first)"
            )
        settings: Any = {}
        try:
            tokenizer = Tokenizer.from_file(str(file))
            config = read_model_config(model)
            if (model / "tokenizer_config.json").is_file():
                settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
            if (model / "chat_template.jinja").is_file():
                settings["chat_template"] = (model / "chat_template.jinja").read_text(encoding="utf-8")
            return cls(tokenizer, config, settings)
        except Exception as error:  # the library raises bare Exceptions
            raise TokenizerError(f"the tokenizer in {model} can't be read: {error}") from error

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids after which the engine stops by itself."""
        return self.config.eos_token_ids

    @property
    def special_tokens(self) -> dict[str, str]:
        """`bos_token` and its like, as the chat template sees them."""
        tokens: dict[str, str] = {}
        for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token"):
            value = self._settings.get(name)
            if isinstance(value, dict):
                value = value.get("content")
            if isinstance(value, str):
                tokens[name] = value
        return tokens

    def encode(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """Token ids; `special` adds the sequence's own tokens, as the model was trained. Raises TokenizerError."""
        try:
            # The batch call lets go of the interpreter's lock; the single one does not.
            return tuple(self._tokenizer.encode_batch_fast([text], add_special_tokens=special)[0].ids)
        except Exception as error:
            raise TokenizerError(str(error)) from error

    async def encode_async(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """Like `encode`, without holding up the event loop over a long text."""
        if len(text) <= SHORT_TEXT:
            return self.encode(text, special=special)
        return await asyncio.get_running_loop().run_in_executor(_THREADS, partial(self.encode, text, special=special))

    def offsets(self, text: str, *, special: bool = True) -> list[tuple[int, int, int]]:
        """`(id, start, end)` of each token, in characters of `text`; `special` as in `encode`. Raises TokenizerError."""
        try:
            encoding = self._tokenizer.encode_batch([text], add_special_tokens=special)[0]
        except Exception as error:
            raise TokenizerError(str(error)) from error
        return [(number, start, end) for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)]

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        if len(ids) != 1 or skip_special:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special))
        # A stream asks for its last token alone each time, and answers use few of a vocabulary's words.
        if (text := self._alone.get(ids[0])) is None:
            text = str(self._tokenizer.decode(list(ids), skip_special_tokens=False))
            if len(self._alone) < MOST_REMEMBERED:
                self._alone[ids[0]] = text
        return text

    def is_special(self, token: int) -> bool:
        return token in self._special


def _default_template(value: Any) -> str:
    """`chat_template` is a string, or a list of named ones."""
    if isinstance(value, list):
        named = {str(entry.get("name")): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else ""
