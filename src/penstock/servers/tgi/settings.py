"""The launcher's settings, from the environment that the SageMaker entry point passes on.

Owns names, defaults and the checks that end the original before it starts. It must never load anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penstock.engines.choice import Asked
from penstock.engines.facts import visible_devices
from penstock.servers import adapters
from penstock.servers.adapters import Adapter
from penstock.servers.tgi.level import Level

MOST_DIGITS = 18
"""Of a number; more do not fit into 64 bits, as the engines count."""


class SettingsError(Exception):
    """A setting that the launcher refuses; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the launcher was told. Tokens, requests and bytes. 0 for a limit means: follow the model."""

    level: Level
    model_id: str
    revision: str = ""
    asked: Asked = field(default_factory=Asked)
    """What bears on the choice of an engine."""
    speculate: int = 0
    adapters: tuple[Adapter, ...] = ()
    max_concurrent_requests: int = 128
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_input_length: int = 1024
    max_total_tokens: int = 2048
    max_batch_prefill_tokens: int = 4096
    max_batch_total_tokens: int = 0
    max_batch_size: int = 0
    max_client_batch_size: int = 4
    waiting_served_ratio: float = 1.2
    max_waiting_tokens: int = 20
    validation_workers: int = 2
    payload_limit: int = 2 * 1024 * 1024
    prefill_logprobs: bool = True
    exact_prefill: bool = False
    """Whether ENABLE_PREFILL_LOGPROBS is set: the prefix cache is then off, so that every prompt token has its value."""
    disable_grammar_support: bool = False
    messages_api: bool = False
    """Whether `/invocations` is the chat route, as MESSAGES_API_ENABLED makes it from 1.4.0 to 2.3."""
    stop_rule_original: bool = False
    api_key: str = ""
    compute_type: str = "gpu+optimized"
    cors_allow_origin: tuple[str, ...] = ("*",)
    docker_label: str = ""
    encoder_decoder: bool = False
    """Known once the model is loaded."""

    @property
    def pipeline_tag(self) -> str | None:
        """The hub's tag of the model. A directory has none."""
        if self.model_id.startswith(("/", ".", "~", "s3://")):
            return None
        return "text2text-generation" if self.encoder_decoder else "text-generation"

    def within(self, max_positions: int, *, encoder_decoder: bool = False) -> Settings:
        """The same for a model that takes sequences of `max_positions`."""
        total = min(self.max_total_tokens or max_positions, max_positions)
        return replace(
            self,
            max_total_tokens=total,
            max_input_length=min(self.max_input_length or total - 1, total - 1),
            encoder_decoder=encoder_decoder,
        )


def read(environ: Mapping[str, str], version: str, image_uri: str = "") -> Settings:
    """Raises SettingsError (its text is the original's where it has one)."""
    try:
        level = Level.parse(version)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    model_id = environ.get("HF_MODEL_ID", "").strip()
    if not model_id:
        raise SettingsError("HF_MODEL_ID must be set")
    reader = _Reader(environ)
    if environ.get("MAX_INPUT_LENGTH") and environ.get("MAX_INPUT_TOKENS"):
        raise SettingsError("Both `max_input_tokens` and `max_input_length` are set. Please define only one of them.")
    longest, total, prefill = _limits(reader, level)
    exact = reader.flag("ENABLE_PREFILL_LOGPROBS")
    settings = Settings(
        level=level,
        model_id=model_id,
        revision=environ.get("HF_MODEL_REVISION", ""),
        asked=_asked(environ, reader, total),
        speculate=reader.number("SPECULATE", 0),
        adapters=_adapters(environ, level),
        max_concurrent_requests=reader.number("MAX_CONCURRENT_REQUESTS", 128),
        max_best_of=reader.number("MAX_BEST_OF", 2),
        max_stop_sequences=reader.number("MAX_STOP_SEQUENCES", 4),
        max_top_n_tokens=reader.number("MAX_TOP_N_TOKENS", 5),
        max_input_length=longest,
        max_total_tokens=total,
        max_batch_prefill_tokens=prefill,
        max_batch_total_tokens=reader.number("MAX_BATCH_TOTAL_TOKENS", 0),
        max_batch_size=reader.number("MAX_BATCH_SIZE", 0),
        max_client_batch_size=reader.number("MAX_CLIENT_BATCH_SIZE", 4),
        waiting_served_ratio=reader.real("WAITING_SERVED_RATIO", 1.2 if level.version < (2, 0, 2) else 0.3),
        max_waiting_tokens=reader.number("MAX_WAITING_TOKENS", 20),
        validation_workers=reader.number("VALIDATION_WORKERS", 2),
        payload_limit=reader.number("PAYLOAD_LIMIT", 2_000_000) if level.payload_limit else 2 * 1024 * 1024,
        prefill_logprobs=exact or not level.prefill_needs_setting,
        exact_prefill=exact,
        disable_grammar_support=reader.flag("DISABLE_GRAMMAR_SUPPORT"),
        messages_api=level.messages_api_setting and reader.flag("MESSAGES_API_ENABLED"),
        stop_rule_original=reader.flag("PENSTOCK_TGI_ORIGINAL_STOP"),
        api_key=environ.get("API_KEY", "") if level.api_key else "",
        compute_type=(environ.get("COMPUTE_TYPE") if level.compute_type else "") or "gpu+optimized",
        cors_allow_origin=tuple(o for o in environ.get("CORS_ALLOW_ORIGIN", "*").split(",") if o),
        docker_label=image_uri,
    )
    _check(settings)
    return settings


def too_new(environ: Mapping[str, str], level: Level) -> list[str]:
    """The variables that are set and that only another level reads."""
    read_here = {
        "API_KEY": level.api_key,
        "PAYLOAD_LIMIT": level.payload_limit,
        "COMPUTE_TYPE": level.compute_type,
        "MESSAGES_API_ENABLED": level.messages_api_setting,
    }
    return [name for name, is_read in read_here.items() if not is_read and environ.get(name)]


def _limits(reader: _Reader, level: Level) -> tuple[int, int, int]:
    """MAX_INPUT_LENGTH, MAX_TOTAL_TOKENS and MAX_BATCH_PREFILL_TOKENS as they are given, else the level's; 0 follows the model."""
    total = reader.number("MAX_TOTAL_TOKENS", 0 if level.derives_limits else 4096 if level.caps_limits else 2048)
    unset = 0 if level.derives_limits else max(min(total, 4096) - 1, 0) if level.caps_limits else 1024
    longest = reader.number("MAX_INPUT_LENGTH", reader.number("MAX_INPUT_TOKENS", unset))
    if level.caps_limits:
        batch = reader.number("MAX_BATCH_SIZE", 0)
        return longest, total, reader.number("MAX_BATCH_PREFILL_TOKENS", batch * longest if batch else longest + 50)
    return longest, total, reader.number("MAX_BATCH_PREFILL_TOKENS", 0 if level.derives_limits else 4096)


def _check(settings: Settings) -> None:
    """The checks with which the original's launcher and router end."""
    total, given = settings.max_total_tokens, settings.max_input_length
    name = "max_input_length" if settings.level.version < (2,) else "max_input_tokens"
    if total and given and given >= total:
        raise SettingsError(f"`{name}` must be < `max_total_tokens`")
    prefill = settings.max_batch_prefill_tokens
    if prefill and given > prefill:
        raise SettingsError(f"`max_batch_prefill_tokens` must be >= `{name}`. Given: {prefill} and {given}")
    if settings.validation_workers == 0:
        raise SettingsError("`validation_workers` must be > 0")
    if batch := settings.max_batch_total_tokens:
        if prefill > batch:
            raise SettingsError(
                f"`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: {prefill} and {batch}"
            )
        if total > batch:
            raise SettingsError(f"`max_total_tokens` must be <= `max_batch_total_tokens`. Given: {total} and {batch}")


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def number(self, name: str, default: int) -> int:
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        if not text.isdecimal():
            raise SettingsError(f"invalid value '{text}' for {name}: it must be a whole number")
        if len(text) > MOST_DIGITS:
            raise SettingsError(f"invalid value '{text[:MOST_DIGITS]}…' for {name}: it is too large")
        return int(text)

    def real(self, name: str, default: float) -> float:
        text = self._environ.get(name, "").strip()
        try:
            return float(text) if text else default
        except ValueError:
            raise SettingsError(f"invalid value '{text}' for {name}: it must be a number") from None

    def flag(self, name: str, default: bool = False) -> bool:
        text = self._environ.get(name, "").strip().lower()
        return text in {"1", "true", "yes", "on"} if text else default


def _asked(environ: Mapping[str, str], reader: _Reader, max_total_tokens: int) -> Asked:
    dtype = environ.get("DTYPE", "")
    if dtype not in {"", "float16", "bfloat16", "float32"}:
        raise SettingsError(f"invalid value '{dtype}' for DTYPE: it must be float16, bfloat16 or float32")
    engine = environ.get("PENSTOCK_ENGINE", "").strip()
    return Asked(
        engine=engine.lower(),
        engine_given=f"PENSTOCK_ENGINE={engine}" if engine else "",
        dtype=dtype or "auto",
        quantize=(environ.get("HF_MODEL_QUANTIZE") or environ.get("QUANTIZE") or "").strip(),
        tensor_parallel=_shards(environ, reader),
        max_length=max_total_tokens,
        trust_remote_code=reader.flag("HF_MODEL_TRUST_REMOTE_CODE") or reader.flag("TRUST_REMOTE_CODE"),
    )


def _adapters(environ: Mapping[str, str], level: Level) -> tuple[Adapter, ...]:
    given = environ.get("LORA_ADAPTERS", "")
    if given.strip() and not level.adapters:
        raise SettingsError(f"LORA_ADAPTERS needs level 2.1.0 or later, and this server speaks {level}")
    try:
        return adapters.listed(given)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _shards(environ: Mapping[str, str], reader: _Reader) -> int:
    """As many as are asked for; else the devices that the environment names, 0 being all of them; else 1."""
    for name in ("SM_NUM_GPUS", "NUM_SHARD"):
        if environ.get(name, "").strip():
            return max(reader.number(name, 1), 1)
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        if (text := environ.get(name, "").strip()) and reader.flag("SHARDED", True):
            return 0 if text in ("all", "void") else max(visible_devices(text), 1)
    return 0 if reader.flag("SHARDED") else 1
