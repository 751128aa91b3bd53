"""A model's settings: `serving.properties`, then the environment, then the image's defaults.

Owns the keys, their precedence and their checks: in a file `option.*` wins over `OPTION_*`, and `SERVING_*` is only the server's
default for a key that the file lacks. It must never load anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from penstock.engines import choice
from penstock.engines.choice import Asked
from penstock.servers.chat import thinking
from penstock.servers.chat.calls import PARSERS
from penstock.servers.lmi import entrypoints, properties, words
from penstock.servers.lmi.words import SettingsError

ADAPTERS = (0, 27)
"""The version from which on there are LoRA adapters."""

_FROM_TGI = {
    "HF_MODEL_QUANTIZE": "quantize",
    "HF_MODEL_TRUST_REMOTE_CODE": "trust_remote_code",
    "HF_TRUST_REMOTE_CODE": "trust_remote_code",
    "SM_NUM_GPUS": "tensor_parallel_degree",
    "TENSOR_PARALLEL_DEGREE": "tensor_parallel_degree",
    "MAX_BATCH_PREFILL_TOKENS": "max_rolling_batch_prefill_tokens",
    "MAX_BATCH_SIZE": "max_rolling_batch_size",
    "HF_MODEL_ID": "model_id",
    "HF_MODEL_REVISION": "revision",
    "HF_REVISION": "revision",
    "HF_TASK": "task",
    "DJL_ENTRY_POINT": "entryPoint",
    "MODEL_LOADING_TIMEOUT": "model_loading_timeout",
    "PREDICT_TIMEOUT": "predict_timeout",
}
"""Variables that stand for an option, after `OPTION_*`."""


_FROM_SAGEMAKER = {
    "SAGEMAKER_NUM_MODEL_WORKERS": ("minWorkers", "maxWorkers"),
    "SAGEMAKER_STARTUP_TIMEOUT": ("option.model_loading_timeout",),
    "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": ("option.predict_timeout",),
    "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": ("option.default_accept",),
}
"""Variables of SageMaker's other containers, from 0.36 on: the only ones that win over the file."""

REASONING = (0, 33)
MOST_DIGITS = 18
"""Of a number; more do not fit into 64 bits, as the engines count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One model. Seconds and milliseconds as the names say; `options` are all `option.*` values, for a handler's init call."""

    name: str
    directory: Path
    model_version: str = ""
    """Which of several models of this name; empty where nobody said one."""
    version: tuple[int, int] = (0, 23)
    """The server's."""
    engine: str = "Python"
    options: Mapping[str, str] = field(default_factory=dict)
    job_queue_size: int = 1000
    batch_size: int = 1
    max_batch_delay_ms: int = 100
    min_workers: int = 1
    max_workers: int = 1
    max_idle_s: int = 60
    """How long a process above `min_workers` may have nothing to do."""
    required_memory_mb: int = 0
    """What must be free for the model to be loaded, beside `reserved_memory_mb`; 0 asks nothing."""
    reserved_memory_mb: int = 500
    retry_threshold: int = 10
    model_loading_timeout_s: int = 1200
    predict_timeout_s: int = 240
    chunk_timeout_s: int = 120
    model_id: str = ""
    revision: str = ""
    entry_point: str = ""
    """Empty for the server's own text generation."""
    handler: str = "handle"
    formatters: str = ""
    """The script that reads requests, or writes answers, round the server's own text generation."""
    rolling_batch: str = ""
    """Empty where rolling batch is off."""
    max_rolling_batch_size: int = 32
    max_rolling_batch_prefill_tokens: int = 0
    """0 where it is not given. AWS's default is 1088; less holds running streams up less while a long prompt is read."""
    output_formatter: str = ""
    enable_streaming: bool = False
    tgi_compat: bool = False
    bedrock_compat: bool = False
    tool_call_parser: str = ""
    """What finds calls in a chat's answer; empty unless `enable_auto_tool_choice` is on."""
    reasoning_parser: str = ""
    """What tells a chat's thoughts from its answer."""
    chat_template: str = ""
    """A file of the model, or the template itself, in place of the tokenizer's."""
    stateful_sessions: bool = False
    """Whether the server's own text generation has sessions; a handler makes its own."""
    dtype: str = "auto"
    quantize: str = ""
    speculate: int = 0
    draft_model: str = ""
    tensor_parallel_degree: int = 1
    """0 is as many as there are devices."""
    max_model_len: int = 0
    """Tokens of prompt and answer together. 0 follows the model."""
    trust_remote_code: bool = False
    gpu_memory: float = 0.0
    """The share of each GPU's memory for vLLM; 0 is its own."""
    enable_lora: bool = False
    adapters: str = "adapters"
    """The folder of the model's directory that holds LoRA adapters."""
    max_loras: int = 4
    max_lora_rank: int = 0
    """0 follows the adapters."""
    engine_forced: str = ""
    """What PENSTOCK_ENGINE says: it comes before `engine` and `rolling_batch`."""
    requirements_warn_only: bool = False
    strange_keys: tuple[str, ...] = ()
    """Those of the file that are neither options nor a model's keys."""

    @property
    def asked(self) -> Asked:
        """What bears on the choice of a text model's engine."""
        engine, given = self._engine_asked()
        return Asked(
            engine=engine,
            engine_given=given,
            # AWS's images always have vLLM. Its name in a file for them must not keep the model from another machine.
            if_installed=given == "option.rolling_batch=vllm",
            dtype={"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}.get(self.dtype, "auto"),
            quantize=self.quantize or ("int8" if self.dtype == "int8" else ""),
            tensor_parallel=self.tensor_parallel_degree,
            max_length=self.max_model_len,
            trust_remote_code=self.trust_remote_code,
        )

    def _engine_asked(self) -> tuple[str, str]:
        """The engine that a setting names, the strongest first, and that setting; both empty where none does."""
        if self.engine_forced:
            return self.engine_forced.lower(), f"PENSTOCK_ENGINE={self.engine_forced}"
        if self.engine.lower() in choice.ENGINES:
            return self.engine.lower(), f"engine={self.engine}"
        if self.rolling_batch in choice.ENGINES:
            return self.rolling_batch, f"option.rolling_batch={self.rolling_batch}"
        return "", ""


def server_version(text: str) -> tuple[int, int]:
    """(0, 23) from an image's "0.23.0"; 0.23 is also what no version means."""
    parts = text.split(".")
    if len(parts) >= 2 and parts[0].isdecimal() and parts[1].isdecimal():
        return int(parts[0]), int(parts[1])
    return 0, 23


def max_request_size(environ: Mapping[str, str], version: tuple[int, int], default: int) -> int:
    """The most bytes of a request's body, for the whole server. Raises SettingsError."""
    if version >= (0, 36):
        if text := environ.get("SAGEMAKER_MAX_REQUEST_SIZE"):
            return _number("SAGEMAKER_MAX_REQUEST_SIZE", text)
        if text := environ.get("SAGEMAKER_MAX_PAYLOAD_IN_MB"):
            return _number("SAGEMAKER_MAX_PAYLOAD_IN_MB", text) * 1024 * 1024
    text = environ.get("SERVING_MAX_REQUEST_SIZE", "")
    return _number("SERVING_MAX_REQUEST_SIZE", text) if text else default


def read(name: str, directory: Path, environ: Mapping[str, str], version: tuple[int, int] = (0, 23)) -> ModelSettings:
    """The settings of the model in `directory`. Raises SettingsError."""
    return build(name, directory, read_pairs(directory), environ, version)


def read_pairs(directory: Path) -> dict[str, str]:
    """What `serving.properties` says, blanks round keys and values taken off; nothing without one. Raises SettingsError."""
    file = directory / "serving.properties"
    try:
        pairs = properties.parse(properties.decode(file.read_bytes())) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"serving.properties can't be read: {error}") from error
    return {key.strip(): value.strip() for key, value in pairs.items()}


def build(
    name: str, directory: Path, pairs: Mapping[str, str], environ: Mapping[str, str], version: tuple[int, int] = (0, 23)
) -> ModelSettings:
    """Settings from a file's pairs and the environment. Pure but for looking which files lie in `directory`. Raises SettingsError."""
    pairs = {**pairs, **_from_sagemaker(environ, version)}
    options = merge_options(pairs, environ)
    engine = _engine(pairs["engine"]) if "engine" in pairs else _engine_of_option(options.get("engine", ""))
    if "true" in (pairs.get("reranking", "").lower(), environ.get("ARGS_RERANKING", "").lower()):
        raise SettingsError("reranking is not supported: write a model.py with a handle function")
    number = _Numbers(pairs, options, environ)
    settings = ModelSettings(
        name=name,
        directory=directory,
        version=version,
        engine=engine,
        options=options,
        job_queue_size=number.server("job_queue_size", 1000),
        batch_size=number.server("batch_size", 1),
        max_batch_delay_ms=number.server("max_batch_delay", 100, least=0),
        min_workers=number.server("minWorkers", 1, also="cpu.minWorkers"),
        max_workers=number.server("maxWorkers", 0, also="cpu.maxWorkers"),
        max_idle_s=number.server("max_idle_time", 60),
        required_memory_mb=number.server("required_memory_mb", 0, least=0),
        reserved_memory_mb=number.server("reserved_memory_mb", 500, least=0),
        retry_threshold=number.server("retry_threshold", 10, least=0),
        model_loading_timeout_s=number.option("model_loading_timeout", 1200),
        predict_timeout_s=number.option("predict_timeout", 240),
        chunk_timeout_s=_chunk_timeout(environ, version),
        model_id=_model_id(options),
        revision=options.get("revision", ""),
        entry_point=entrypoints.entry_point(options, directory, version, engine),
        handler=options.get("handler", "handle"),
        formatters=entrypoints.formatters(options, directory),
        rolling_batch=_rolling_batch(options),
        max_rolling_batch_size=number.option("max_rolling_batch_size", 32 if version < (0, 33) else 256),
        max_rolling_batch_prefill_tokens=number.option("max_rolling_batch_prefill_tokens", 0),
        output_formatter=_formatter(options, version),
        enable_streaming=options.get("enable_streaming", "false").lower() not in ("", "false"),
        tgi_compat=version >= (0, 28) and _is_true(options, "tgi_compat"),
        bedrock_compat=version >= (0, 28) and _is_true(options, "bedrock_compat"),
        tool_call_parser=_tool_call_parser(options),
        reasoning_parser=_reasoning_parser(options, version),
        chat_template=options.get("chat_template", ""),
        stateful_sessions=version >= (0, 34) and _is_true(options, "enable_stateful_sessions", unset="true"),
        dtype=_dtype(options),
        quantize=_quantize(options),
        speculate=_speculate(options),
        draft_model=options.get("speculative_draft_model", ""),
        tensor_parallel_degree=_tensor_parallel_degree(options, number),
        max_model_len=number.option("max_model_len", 0),
        trust_remote_code=_is_true(options, "trust_remote_code"),
        gpu_memory=_share("gpu_memory_utilization", options),
        enable_lora=_is_true(options, "enable_lora"),
        adapters=options.get("adapters") or "adapters",
        max_loras=number.option("max_loras", 4),
        max_lora_rank=number.option("max_lora_rank", 0),
        engine_forced=environ.get("PENSTOCK_ENGINE", "").strip(),
        requirements_warn_only=_is_true(options, "requirements_warn_only"),
        strange_keys=tuple(sorted(key for key in pairs if not key.startswith("option.") and key not in words.KEYS)),
    )
    return _complete(settings)


def _from_sagemaker(environ: Mapping[str, str], version: tuple[int, int]) -> dict[str, str]:
    """What SageMaker's own variables say, from 0.36 on, under the file's keys."""
    if version < (0, 36):
        return {}
    return {key: environ[name] for name, keys in _FROM_SAGEMAKER.items() if environ.get(name) for key in keys}


def _tensor_parallel_degree(options: Mapping[str, str], number: _Numbers) -> int:
    """0 for `max`."""
    is_max = options.get("tensor_parallel_degree", "").lower() == "max"
    return 0 if is_max else number.option("tensor_parallel_degree", 1)


def _is_true(options: Mapping[str, str], name: str, unset: str = "") -> bool:
    return options.get(name, unset).lower() == "true"


def merge_options(pairs: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """`option.*` by name without the prefix: the file, then `OPTION_*` (lower case), then the variables of TGI and SageMaker.

    Those of vectors may stand without the prefix.
    """
    options = {key.removeprefix("option."): value for key, value in pairs.items() if key.startswith("option.")}
    lowered = {key.lower() for key in options}
    for key in sorted(environ):
        option = key.removeprefix("OPTION_").lower()
        if key.startswith("OPTION_") and option not in lowered:
            options["entryPoint" if option == "entrypoint" else option] = environ[key]
            lowered.add(option)
    for key, option in _FROM_TGI.items():
        if (
            (value := environ.get(key))
            and option.lower() not in lowered
            and not (option == "model_id" and "s3url" in lowered)
        ):
            options[option] = value
            lowered.add(option.lower())
    if (graphs := environ.get("ENABLE_CUDA_GRAPHS")) and "enforce_eager" not in lowered:
        options["enforce_eager"] = "false" if graphs.lower() == "true" else "true"
    return options | {key: pairs[key] for key in words.EMBEDDING_KEYS if key in pairs and key not in options}


class _Numbers:
    """Whole numbers, each of which has its own places to be given in."""

    def __init__(self, pairs: Mapping[str, str], options: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._pairs, self._options, self._environ = pairs, options, environ

    def server(self, key: str, default: int, *, also: str = "", least: int = 1) -> int:
        variable = f"SERVING_{key.replace('Workers', '_workers').upper()}"
        tgi = "MAX_CONCURRENT_REQUESTS" if key == "job_queue_size" else ""
        for name, places in ((key, self._pairs), (also, self._pairs), (variable, self._environ), (tgi, self._environ)):
            if name and name in places:
                return _number(name, places[name], least)
        return default

    def option(self, key: str, default: int) -> int:
        return _number(f"option.{key}", self._options[key]) if key in self._options else default


def _number(name: str, text: str, least: int = 1) -> int:
    if len(text) > MOST_DIGITS and text.isdecimal():
        raise SettingsError(f"{name}={text[:MOST_DIGITS]}… is too large")
    if not text.isdecimal() or int(text) < least:
        raise SettingsError(f"{name} must be a whole number above {least - 1}, not {text!r}")
    return int(text)


def _share(name: str, options: Mapping[str, str]) -> float:
    """A number above 0 and at most 1; 0 where it is not given."""
    text = options.get(name, "")
    try:
        share = float(text or "0")
    except ValueError:
        share = -1.0
    if text and not 0.0 < share <= 1.0:
        raise SettingsError(f"option.{name} must be a number above 0 and at most 1, not {text!r}")
    return share


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise SettingsError(f"{name}={value} is not supported: use one of {', '.join(allowed)}")
    return value


def _engine(text: str) -> str:
    by_name = {engine.lower(): engine for engine in words.ENGINES}
    if text and text.lower() not in by_name:
        raise SettingsError(
            f"engine={text} is not supported: use one of {', '.join(words.ENGINES)}; rankings and classes need a model.py"
        )
    return by_name.get(text.lower(), "Python")


def _engine_of_option(text: str) -> str:
    """OPTION_ENGINE: an engine where it names one. Other words there are the handlers' own."""
    return _engine(text if text.lower() in {engine.lower() for engine in words.ENGINES} else "")


def _rolling_batch(options: Mapping[str, str]) -> str:
    value = options.get("rolling_batch", "").lower()
    return "" if value in ("", "disable") else _one_of("option.rolling_batch", value, words.ROLLING_BATCHES)


def _formatter(options: Mapping[str, str], version: tuple[int, int]) -> str:
    allowed = words.FORMATTERS if version < (0, 28) else words.LATER_FORMATTERS
    value = options.get("output_formatter", "")
    return _one_of("option.output_formatter", value, allowed) if value else ""


def _tool_call_parser(options: Mapping[str, str]) -> str:
    if options.get("enable_auto_tool_choice", "false").lower() != "true":
        return ""
    if not (name := options.get("tool_call_parser", "")):
        raise SettingsError("option.enable_auto_tool_choice needs option.tool_call_parser: give the model's")
    return _one_of("option.tool_call_parser", name, PARSERS)


def _reasoning_parser(options: Mapping[str, str], version: tuple[int, int]) -> str:
    """It is enough by itself; `enable_reasoning` needs it, or switches it off."""
    if version < REASONING or not _is_true(options, "enable_reasoning", unset="true"):
        return ""
    name = options.get("reasoning_parser", "")
    if "enable_reasoning" in options and not name:
        raise SettingsError("option.enable_reasoning needs option.reasoning_parser: give the model's")
    return name and _one_of("option.reasoning_parser", name, thinking.PARSERS)


def _dtype(options: Mapping[str, str]) -> str:
    given = options.get("dtype", options.get("data_type", "auto")).lower()
    return _one_of("option.dtype", words.DTYPE_NAMES.get(given, given), words.DTYPES)


def _quantize(options: Mapping[str, str]) -> str:
    value = options.get("quantize", "")
    if not value:
        loads = (("load_in_4bit", "bitsandbytes4"), ("load_in_8bit", "bitsandbytes8"))
        return next((name for key, name in loads if _is_true(options, key)), "")
    return _one_of("option.quantize", value, words.QUANTIZERS)


def _speculate(options: Mapping[str, str]) -> int:
    """Tokens to guess ahead: `speculative_length`, and as AWS does 4 where only a draft model is named."""
    for key in ("speculative_length", "num_speculative_tokens"):
        if key in options:
            return _number(f"option.{key}", options[key])
    return 4 if options.get("speculative_draft_model") else 0


def _model_id(options: Mapping[str, str]) -> str:
    if "s3url" in options and "model_id" in options:
        raise SettingsError("option.model_id and option.s3url are the same thing: give one of them")
    return options.get("model_id") or options.get("s3url", "")


def _chunk_timeout(environ: Mapping[str, str], version: tuple[int, int]) -> int:
    """Minutes in 0.23 and 0.24, seconds since."""
    if text := environ.get("SERVING_CHUNKED_READ_TIMEOUT"):
        return _number("SERVING_CHUNKED_READ_TIMEOUT", text) * (60 if version < (0, 25) else 1)
    return 120 if version < (0, 25) else 60


def _complete(settings: ModelSettings) -> ModelSettings:
    """The rules that span keys."""
    if not settings.entry_point and not settings.model_id and not _holds_model(settings.directory):
        raise SettingsError(
            "no model is named: set option.model_id in serving.properties (or HF_MODEL_ID), or put a model.py into the model's archive"
        )
    if not settings.entry_point and (task := settings.options.get("task", "")).lower() not in words.TASKS:
        raise SettingsError(
            f"option.task={task} is not supported by the server's own generation and pipelines: write a model.py with a handle function"
        )
    changes: dict[str, int | str] = {}
    if settings.max_workers < settings.min_workers:
        changes["max_workers"] = settings.min_workers
    if settings.batch_size > 1 and settings.rolling_batch:
        raise SettingsError("batch_size and option.rolling_batch exclude each other: leave batch_size at 1")
    if settings.version >= (0, 28) and not settings.rolling_batch and not _batches_by_hand(settings):
        changes["rolling_batch"] = "auto"
    elif settings.formatters and not settings.rolling_batch:
        raise SettingsError("the formatters of model.py need option.rolling_batch: set it to auto")
    _check_lora(settings, rolling_batch=bool(settings.rolling_batch or "rolling_batch" in changes))
    return replace(settings, **changes)  # type: ignore[arg-type]


def _check_lora(settings: ModelSettings, *, rolling_batch: bool) -> None:
    if not settings.enable_lora or settings.entry_point:  # a handler does with it what it likes
        return
    if settings.version < ADAPTERS:
        raise SettingsError("option.enable_lora needs LMI 0.27 or later: deploy it with the image of such a version")
    if not rolling_batch:
        raise SettingsError("option.enable_lora needs option.rolling_batch: set it to auto")


def _batches_by_hand(settings: ModelSettings) -> bool:
    """Whether `rolling_batch=disable` is meant: from 0.33 it also goes with the engines that batch by themselves."""
    options = settings.options
    entry = options.get("entryPoint", options.get("entrypoint", ""))
    asynchronous = _is_true(options, "async_mode") or entry.startswith("djl_python.lmi_")
    return options.get("rolling_batch", "").lower() == "disable" and not (settings.version >= (0, 33) and asynchronous)


def _holds_model(directory: Path) -> bool:
    return directory.is_dir() and any(
        entry.name in ("openvino_model.xml", "config.json") or entry.suffix in (".safetensors", ".bin")
        for entry in directory.iterdir()
    )
