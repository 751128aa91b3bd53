"""A model of the transformers library, read a few tokens at a time.

Owns loading, key-value caches, padding, and what this model can do. Architectures differ, and so does code that comes with a model, so
nothing is believed: when a model is loaded, a short text is read at once, token by token, in pieces, and padded beside another one; what
gives other logits is not done with this model. It must never choose a token.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from penstock.engines.options import EngineOptions
from penstock.engines.process import LoadError, last_line

_TOLERANCE = {torch.float32: 1e-3}
"""How far logits may be from those of the text read at once, as a part of their spread."""
_COARSE = 0.05


@dataclass(slots=True, eq=False)
class Row:
    """One request's text, as the model reads it."""

    prompt: tuple[int, ...]
    ids: list[int]
    """What the decoder reads: the prompt and the answer, or, where an encoder reads the prompt, a start token and the answer."""
    read: int = 0
    """How many of `ids` the model has read."""
    cache: Any = field(default=None, repr=False)
    encoded: Any = field(default=None, repr=False)


class TorchModel:
    """Reads rows. What `caches`, `pieces` and `batches` say was tried."""

    def __init__(self, options: EngineOptions) -> None:
        """Load `options.model`. Raises LoadError."""
        os.environ["HF_HUB_OFFLINE"] = "1"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = _dtype(options, self.device)
        torch.set_grad_enabled(False)  # for this process, which never trains
        if options.threads:
            torch.set_num_threads(options.threads)
        self._model, self._config = _load(options, self.dtype, self.device)
        self.encoder = bool(getattr(self._config, "is_encoder_decoder", False))
        taken = inspect.signature(self._model.forward).parameters
        self._takes = frozenset(taken)
        self._cache_name = "cache" if "cache" in taken else "past_key_values"
        self._start = _start_token(self._model) if self.encoder else 0
        self.vocabulary = _vocabulary(self._model, self._config)
        self._together: list[Row] = []
        self._joint: Any = None
        self.caches = self.pieces = self.batches = False
        self.bytes_per_token = 0
        """What the cache takes for one token of a decoder's text."""
        self._try_out()

    @property
    def forced_first(self) -> int | None:
        """The token that every answer begins with, where the model says so (as mBART's target language)."""
        forced: int | None = getattr(self._model.generation_config, "forced_bos_token_id", None)
        return forced if self.encoder else None

    def row(self, prompt: tuple[int, ...]) -> Row:
        return Row(prompt, [self._start] if self.encoder else list(prompt))

    def read(self, row: Row, limit: int, *, every: bool = False) -> Tensor:
        """Read up to `limit` of the row's next tokens; all of them where the model can't read in pieces.

        Returns logits in single precision, after each of these tokens if `every`, else after the last one: [tokens, vocabulary].
        """
        if row in self._together:
            self._part()
        if not self.caches:
            logits = self._forward(row, row.ids, None, every=every)[row.read if every else -1 :]
            row.read = len(row.ids)
            return logits
        if row.cache is None:
            row.cache = self._new_cache()
        # A model that can't be trusted with pieces reads its prompt whole, and then token by token.
        end = min(row.read + limit, len(row.ids)) if self.pieces else len(row.ids)
        logits = self._forward(row, row.ids[row.read : end], row.cache, every=every)
        row.read = end
        return logits

    def read_together(self, rows: Sequence[Row]) -> Tensor:
        """Read the one next token of each row. Returns logits in single precision: [rows, vocabulary]."""
        if not self.batches:
            return torch.cat([self.read(row, 1) for row in rows])
        if list(rows) != self._together:
            self._part()
            self._join(rows)
        lengths = torch.tensor([row.read for row in rows], device=self.device)
        longest = int(lengths.max())
        places = torch.arange(longest + 1, device=self.device)
        inputs = {
            "input_ids": torch.tensor([[row.ids[row.read]] for row in rows], device=self.device),
            "attention_mask": (places >= (longest - lengths)[:, None]).long(),
            "position_ids": lengths[:, None],
        }
        logits = self._call(inputs, self._joint)[:, -1].float()
        for row in rows:
            row.read += 1
        return logits

    def forget(self) -> None:
        """Let go of what rows that are read together share: there are none any more."""
        self._together, self._joint = [], None

    def _join(self, rows: Sequence[Row]) -> None:
        """One cache of all rows' caches, the shorter ones padded on the left."""
        longest = max(row.read for row in rows)
        self._joint = self._new_cache()
        for number in range(len(rows[0].cache.layers)):
            layers = [(row.cache.layers[number], longest - row.read) for row in rows]
            keys = torch.cat([torch.nn.functional.pad(layer.keys, (0, 0, pad, 0)) for layer, pad in layers])
            values = torch.cat([torch.nn.functional.pad(layer.values, (0, 0, pad, 0)) for layer, pad in layers])
            self._joint.update(keys, values, number)
        for row in rows:
            row.cache = None
        self._together = list(rows)

    def _part(self) -> None:
        """Give each row its own cache back."""
        longest = max((row.read for row in self._together), default=0)
        for place, row in enumerate(self._together):
            row.cache = self._new_cache()
            for number, layer in enumerate(self._joint.layers):
                own = (slice(place, place + 1), slice(None), slice(longest - row.read, None))
                row.cache.update(layer.keys[own], layer.values[own], number)
        self.forget()

    def _new_cache(self) -> Any:
        from transformers import DynamicCache, EncoderDecoderCache

        if self.encoder:
            return EncoderDecoderCache(DynamicCache(), DynamicCache())
        cache = DynamicCache(config=self._config)
        # A layer that keeps only its window is as right as one that keeps all, but can't be padded.
        plain = {type(layer).__name__ for layer in cache.layers} <= {"DynamicLayer", "DynamicSlidingWindowLayer"}
        return DynamicCache() if plain else cache

    def _forward(self, row: Row, ids: Sequence[int], cache: Any, *, every: bool) -> Tensor:
        start = row.read if cache is not None else 0
        tokens = torch.tensor([ids], device=self.device)
        if self.encoder:
            inputs = self._encoded(row) | {"decoder_input_ids": tokens}
        else:
            inputs = {
                "input_ids": tokens,
                "attention_mask": torch.ones(1, start + len(ids), dtype=torch.long, device=self.device),
                "position_ids": torch.arange(start, start + len(ids), device=self.device)[None],
            }
        if not every:
            inputs["logits_to_keep"] = 1
        logits = self._call(inputs, cache)[0]
        return (logits if every else logits[-1:]).float()

    def _call(self, inputs: dict[str, Any], cache: Any) -> Tensor:
        """Logits, [rows, tokens, vocabulary]. What the model does not take is left out."""
        given = {name: value for name, value in inputs.items() if name in self._takes}
        if cache is not None:
            given[self._cache_name] = cache
        logits: Tensor = self._model(**given, use_cache=cache is not None, return_dict=True).logits
        return logits

    def _encoded(self, row: Row) -> dict[str, Any]:
        """What the decoder is told of the prompt, which the encoder reads once."""
        mask = torch.ones(1, len(row.prompt), dtype=torch.long, device=self.device)
        if row.encoded is None:
            tokens = torch.tensor([row.prompt], device=self.device)
            row.encoded = self._model.get_encoder()(input_ids=tokens, attention_mask=mask, return_dict=True)
        return {"encoder_outputs": row.encoded, "attention_mask": mask}

    def _try_out(self) -> None:
        """Find out what the model can do. Raises LoadError when it can't even read a text at once."""
        text = tuple((7 * n + 3) % self.vocabulary for n in range(24))
        try:
            right = self._forward(Row(text, list(text)), text, None, every=True)
        except Exception as error:
            raise LoadError(f"the model can't read a text: {last_line(error)}") from error
        most = _TOLERANCE.get(self.dtype, _COARSE) * float(right.std())

        def same(logits: Tensor, expected: Tensor) -> bool:
            return float((logits - expected).square().mean().sqrt()) < most

        def one_by_one() -> bool:
            row = Row(text, list(text[:20]))
            self.pieces = False
            got = [self.read(row, 99)]
            for token in text[20:]:
                row.ids.append(token)
                got.append(self.read(row, 1))
            self.bytes_per_token = _size(row.cache) // row.read
            return same(torch.cat(got), right[19:])

        def piecewise() -> bool:
            row = Row(text, list(text))
            self.pieces = True
            return same(torch.cat([self.read(row, 9, every=True) for _ in range(3)]), right)

        def padded() -> bool:
            rows = [Row(text, list(text[:20])), Row(text, list(text[:7]))]
            for row in rows:
                self.read(row, 99)
            got = []
            for step in range(3):
                for row, start in zip(rows, (20, 7), strict=True):
                    row.ids.append(text[start + step])
                got.append(self.read_together(rows))
            self._part()  # and alone again
            rows[1].ids.append(text[10])
            got.append(self.read(rows[1], 1).expand(2, -1))
            return all(
                same(logits[1], right[7 + step]) and (step == 3 or same(logits[0], right[20 + step]))
                for step, logits in enumerate(got)
            )

        self.caches = True
        self.caches = _holds(one_by_one)
        if (
            self.caches and not self.encoder
        ):  # an encoder's decoders begin with one token, and each has another encoded text
            self.pieces = _holds(piecewise)
            self.batches = True
            self.batches = _holds(padded)
        self.forget()
        if not self.caches:
            print("the transformers engine reads this model's whole text for each token: slow", file=sys.stderr)
        elif not self.encoder and not (self.pieces and self.batches):
            print(
                "the transformers engine reads this model's requests one by one, or their prompts whole",
                file=sys.stderr,
            )


def _holds(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except Exception as error:
        print(f"the transformers engine tried in vain: {last_line(error)}", file=sys.stderr)
        return False


def _size(cache: Any) -> int:
    """Bytes of a decoder's own cache."""
    layers = getattr(cache, "self_attention_cache", cache).layers
    tensors = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def _dtype(options: EngineOptions, device: torch.device) -> torch.dtype:
    if options.dtype != "auto":
        return torch.float32 if options.dtype == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        flags = []
    return torch.bfloat16 if {"avx512_bf16", "amx_bf16", "bf16"} & set(flags) else torch.float32


def _load(options: EngineOptions, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """The model and its (text) configuration. Nothing is fetched. Raises LoadError."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    common = {"local_files_only": True, "trust_remote_code": options.trust_remote_code}
    try:
        config = transformers.AutoConfig.from_pretrained(options.model, **common)
        kind = transformers.AutoModelForCausalLM
        if getattr(config, "is_encoder_decoder", False):
            kind = transformers.AutoModelForSeq2SeqLM
        loaded = kind.from_pretrained(options.model, dtype=dtype, output_loading_info=True, **common)
        model, report = loaded if isinstance(loaded, tuple) else (loaded, {})
        model = model.to(device).eval()
    except Exception as error:  # code that comes with a model may raise anything
        raise LoadError(f"transformers can't load {options.model}: {_reason(error)}") from error
    _check_complete(options, model, report)
    return model, config.get_text_config(decoder=True)


def _check_complete(options: EngineOptions, model: Any, report: Mapping[str, Any]) -> None:
    """The library makes up what the files lack, at random, and only warns. Raises LoadError.

    Tied tensors have one name here, and what a model computes by itself none.
    """
    needed = {name for name, _ in model.named_parameters()}
    if missing := sorted(needed & set(report.get("missing_keys", ()))):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise LoadError(f"the weights in {options.model} are not complete: {missing[0]}{more} is not there")


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "the model brings code of its own, which runs only with trust_remote_code"
    if "ignore_mismatched_sizes" in str(error):
        return "its weights have other shapes than its config.json says"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _vocabulary(model: Any, config: Any) -> int:
    for value in (getattr(model.get_input_embeddings(), "num_embeddings", None), getattr(config, "vocab_size", None)):
        if isinstance(value, int):
            return value
    raise LoadError("the model does not say how large its vocabulary is (vocab_size)")


def _start_token(model: Any) -> int:
    for config in (model.generation_config, model.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if isinstance(value := getattr(config, name, None), int):
                return value
    raise LoadError("the model does not say which token its decoder starts with (decoder_start_token_id)")
