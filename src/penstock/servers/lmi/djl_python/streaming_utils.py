"""Streams of tokens from a model of the transformers library, for handlers that load one themselves.

Owns the loop of 0.23's StreamingUtils: one list of texts a step, one text a prompt. torch and transformers are the handler's own.
"""

from __future__ import annotations

import inspect
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

ENGINES = ("DeepSpeed", "Accelerate", "transformers-neuronx")
_SAMPLING = ("temperature", "top_p", "top_k", "typical_p")


class StreamingUtils:
    """The names that handlers call."""

    DEFAULT_MAX_NEW_TOKENS = 50
    BUILTIN_ENGINES = frozenset(ENGINES)

    @staticmethod
    def get_stream_generator(execution_engine: str) -> Callable[..., Iterator[list[str]]]:
        """A function of (model, tokenizer, inputs, device, **parameters). Raises ValueError for an engine that is none of `ENGINES`."""
        if execution_engine not in ENGINES:
            raise ValueError(f"{execution_engine} engine is not supported for streaming")
        return stream

    @staticmethod
    def use_hf_default_streamer(model: Any, tokenizer: Any, inputs: Any, device: Any, **kwargs: Any) -> Iterator[Any]:
        """The library's own streamer, in a thread: the prompt's text comes first, an error comes as text."""
        return _Streamer(model, tokenizer, inputs, device, kwargs)


def stream(model: Any, tokenizer: Any, inputs: list[str], device: Any, **kwargs: Any) -> Iterator[list[str]]:
    """New texts step by step; a prompt that has ended gives its padding's text. Raises ValueError on inputs that are no list of texts."""
    if not isinstance(inputs, list) or not inputs:
        raise ValueError("inputs to stream generator must be a list of strings, and not empty")
    if kwargs.get("beam_size", 1) > 1:
        raise NotImplementedError("beam search is not supported when streaming")
    import torch

    if not tokenizer.pad_token:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    encoded = tokenizer(inputs, return_tensors="pt", padding=True)
    encoded = encoded if device is None else encoded.to(device)
    choose = _Choice(encoded["input_ids"], kwargs)
    running = torch.ones(len(inputs), dtype=torch.bool, device=encoded["input_ids"].device)
    forward = _seq2seq(model, encoded) if model.config.is_encoder_decoder else _causal(model, encoded)
    logits = next(forward)
    for _ in range(kwargs.get("max_new_tokens", StreamingUtils.DEFAULT_MAX_NEW_TOKENS)):
        with torch.inference_mode():
            token = choose(logits)
            running = running & (token != tokenizer.eos_token_id)
            token = torch.where(running, token, torch.full_like(token, tokenizer.pad_token_id))
        yield tokenizer.batch_decode(token[:, None])
        if not running.any():
            return
        logits = forward.send(token)


class _Choice:
    """The next token of each row, by the request's parameters."""

    def __init__(self, prompts: Any, kwargs: Any) -> None:
        import torch
        import transformers as library

        self._ids = prompts
        self._sample = bool(kwargs.get("do_sample")) or any(name in kwargs for name in _SAMPLING)
        self._generator = torch.Generator(prompts.device)
        if "manual_seed" in kwargs:
            self._generator.manual_seed(int(kwargs["manual_seed"]))
        else:
            self._generator.seed()
        self._rules = library.LogitsProcessorList()
        if (penalty := kwargs.get("repetition_penalty", 1.0)) != 1.0:
            self._rules.append(library.RepetitionPenaltyLogitsProcessor(penalty=float(penalty)))
        if self._sample:
            self._warp(library, kwargs)

    def _warp(self, library: Any, kwargs: Any) -> None:
        if (temperature := kwargs.get("temperature", 1.0)) != 1.0:
            self._rules.append(library.TemperatureLogitsWarper(float(temperature)))
        if (top_p := kwargs.get("top_p", 1.0)) < 1.0:
            self._rules.append(library.TopPLogitsWarper(top_p))
        if (top_k := kwargs.get("top_k", 0)) != 0:
            self._rules.append(library.TopKLogitsWarper(top_k))
        if (typical_p := kwargs.get("typical_p", 1.0)) < 1.0:
            self._rules.append(library.TypicalLogitsWarper(mass=typical_p))

    def __call__(self, logits: Any) -> Any:
        import torch

        scores = self._rules(self._ids, logits.float())
        token = scores.argmax(-1)
        if self._sample:
            token = torch.multinomial(scores.softmax(-1), num_samples=1, generator=self._generator)[:, 0]
        self._ids = torch.cat([self._ids, token[:, None]], dim=1)
        return token


def _causal(model: Any, encoded: Any) -> Any:
    """A generator of logits that is sent each step's tokens."""
    import torch

    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    positions = "position_ids" in inspect.signature(model.forward).parameters
    name, cache = _cache_name(model), None
    while True:
        inputs = {"input_ids": ids, "attention_mask": mask, name: cache, "use_cache": True}
        if positions:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with torch.inference_mode():
            outputs = model(**inputs)
        cache = getattr(outputs, name)
        ids = (yield outputs.logits[:, -1, :])[:, None]
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)


def _seq2seq(model: Any, encoded: Any) -> Any:
    """The same for an encoder and a decoder."""
    import torch

    with torch.inference_mode():
        encoder = model.get_encoder()(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
    ids = torch.full_like(encoded["input_ids"][:, :1], model.config.decoder_start_token_id)
    name, cache = _cache_name(model), None
    while True:
        with torch.inference_mode():
            outputs = model(
                encoder_outputs=encoder,
                attention_mask=encoded["attention_mask"],
                decoder_input_ids=ids,
                use_cache=True,
                **{name: cache},
            )
        cache = getattr(outputs, name)
        ids = (yield outputs.logits[:, -1, :])[:, None]


def _cache_name(model: Any) -> str:
    """What this model calls its cache: the library had one name until its 5th version, and another since."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


class _Streamer:
    """What transformers' `generate` calls as its streamer, and an iterator for the other side."""

    def __init__(self, model: Any, tokenizer: Any, inputs: Any, device: Any, kwargs: Any) -> None:
        if not tokenizer.pad_token:
            tokenizer.pad_token = tokenizer.eos_token
        encoded = tokenizer(inputs, padding=True, return_tensors="pt")
        self._tokenizer = tokenizer
        self._items: queue.Queue[Any] = queue.Queue()
        self._left = False
        arguments = {**(encoded if device is None else encoded.to(device)), **kwargs, "streamer": self}
        threading.Thread(target=self._run, args=(model, arguments), daemon=True).start()

    def __iter__(self) -> _Streamer:
        return self

    def __next__(self) -> Any:
        item = self._items.get()
        if item is None:
            raise StopIteration
        return item

    def put(self, value: Any) -> None:
        """Called by `generate` with each step's ids."""
        if self._left:
            raise RuntimeError("the client has left")
        rows = value if value.dim() > 1 else value[:, None]
        self._items.put(self._tokenizer.batch_decode(rows, skip_special_tokens=True))

    def end(self) -> None:
        """Called by `generate` when it is done; the thread's end tells the iterator."""

    def close(self) -> None:
        """The client has left: the generation ends at its next step."""
        self._left = True

    def _run(self, model: Any, arguments: Any) -> None:
        try:
            model.generate(**arguments)
        except Exception as error:
            if not self._left:
                logging.exception("The generation failed")
                self._items.put(str(error))
        finally:
            self._items.put(None)
