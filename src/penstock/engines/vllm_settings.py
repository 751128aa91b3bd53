"""What vLLM is told when it starts, and what its complaints mean.

Owns the translation from our options to vLLM's arguments and environment, and what is refused before vLLM is asked. It must never import
vLLM: what it must know of the machine is handed in.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import traceback
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.engines.options import EngineOptions
from penstock.engines.process import LoadError

GIB = 1 << 30
MOST_CPU_CACHE = 4 * GIB
"""The key-value cache on a processor where its size is not given. Memory that no token reaches is never touched."""
MOST_ADAPTERS_AT_ONCE = 8
"""Adapters whose weights lie ready for one step. Requests for others wait."""
FEWEST_OWN_BATCHED_TOKENS = 2048
"""vLLM's own number of tokens in one step is at least this."""
LATER_RANK = 16
"""The rank that adapters which come later may have at least, where nobody said one: vLLM's own."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_OTHER_ENGINE = "use the transformers engine (PENSTOCK_ENGINE=transformers)"
_SOCKET_PATH = 107
"""Bytes of a Unix socket's path, at most."""
_SOCKET_NAME = 37
"""What vLLM puts behind a directory for one: a slash and a UUID."""
_HEADS = ("num_attention_heads", "n_head", "num_heads")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the model will run on."""

    device: str
    """ "cpu", or what vLLM calls the accelerator ("cuda")."""
    count: int
    """Cores or accelerators that may be used."""
    bfloat16: bool
    memory: int
    """Bytes that are free now."""


@dataclass(frozen=True, slots=True)
class Adapter:
    name: str
    path: str
    rank: int


def prepare(environ: MutableMapping[str, str], options: EngineOptions) -> None:
    """Set what vLLM and torch read from the environment when they are imported."""
    environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",  # we are the engine's process
        VLLM_NO_USAGE_STATS="1",
        DO_NOT_TRACK="1",
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        VLLM_HOST_IP="127.0.0.1",
        VLLM_LOGGING_STREAM="ext://sys.stderr",
        VLLM_LOGGING_COLOR="0",
        TOKENIZERS_PARALLELISM="false",
    )
    # Ranks talk to each other on this machine alone.
    environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    # A forked worker would hold our files, the front's socket among them.
    environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    # Several replicas share a processor: pinned threads of two would sit on the same core.
    environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    if short := _short_way(tempfile.gettempdir()):
        environ.setdefault("VLLM_RPC_BASE_PATH", short)
    cores = len(os.sched_getaffinity(0))
    environ.setdefault("OMP_NUM_THREADS", str(options.threads or max(1, cores // options.tensor_parallel)))


def _short_way(directory: str) -> str:
    """Another name of `directory` where its own leaves no room for a socket's, as a replica's in a deep home does; else nothing.

    It is a descriptor that this process holds, so that the sockets still lie, and are swept, where they should be.
    """
    if len(os.fsencode(directory)) + _SOCKET_NAME <= _SOCKET_PATH:
        return ""
    return f"/proc/{os.getpid()}/fd/{os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}"


def check_model(model: Path) -> None:
    """Refuse at once what vLLM takes long to refuse. Raises LoadError."""
    config = _config(model)
    if config.get("is_encoder_decoder"):
        raise LoadError(f"vLLM has no encoder-decoders such as {config.get('model_type')}; {_OTHER_ENGINE}")


def arguments(options: EngineOptions, machine: Machine) -> dict[str, Any]:
    """vLLM's engine arguments. Raises LoadError."""
    _check_ranks(options, _config(options.model), machine)
    adapters = read_adapters(options.adapters)
    given: dict[str, Any] = {
        "model": str(options.model),
        # vLLM's own idea of defaults and end tokens would hide what the request says.
        "generation_config": "vllm",
        "skip_tokenizer_init": not (options.model / "tokenizer.json").is_file(),
        "dtype": _dtype(options, machine),
        "max_num_seqs": options.max_batch_size,
        "max_num_batched_tokens": _batched_tokens(options),
        "enable_prefix_caching": options.prefix_cache,
        "tensor_parallel_size": options.tensor_parallel,
        "distributed_executor_backend": "mp" if options.tensor_parallel > 1 else "uni",
        "trust_remote_code": options.trust_remote_code,
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "quantization": options.quantize or None,
        "max_model_len": options.max_length or None,
        "gpu_memory_utilization": options.gpu_memory or None,
    }
    if machine.device == "cpu":
        # Compiling takes minutes, and what it gains is little on a processor.
        given["enforce_eager"] = True
    if options.kv_cache_gb or machine.device == "cpu":
        whole = options.kv_cache_gb * GIB or min(MOST_CPU_CACHE, machine.memory // 4)
        given["kv_cache_memory_bytes"] = whole // options.tensor_parallel
    if adapters or options.lora:
        given |= _lora(options, adapters, on_cpu=machine.device == "cpu")
    return {name: value for name, value in given.items() if value is not None}


def _lora(options: EngineOptions, adapters: tuple[Adapter, ...], *, on_cpu: bool) -> dict[str, Any]:
    """Room for the adapters of the start, and with `lora` for others. Raises LoadError."""
    at_once = options.max_loras or MOST_ADAPTERS_AT_ONCE
    at_once = at_once if options.lora else min(len(adapters), at_once)
    # On a processor vLLM takes the last place for requests without an adapter (they have index -1), so it must stay empty.
    places = max(len(adapters), at_once if options.lora else 0) + 1 if on_cpu else at_once
    return {
        "enable_lora": True,
        "max_loras": places,
        "max_cpu_loras": max(places, len(adapters)),
        "max_lora_rank": _lora_rank(adapters, options.max_lora_rank, later=options.lora),
    }


def _batched_tokens(options: EngineOptions) -> int | None:
    """Never fewer than sequences, which vLLM does not take. None leaves it to vLLM."""
    if options.max_batched_tokens == 0 and options.max_batch_size <= FEWEST_OWN_BATCHED_TOKENS:
        return None
    return max(options.max_batched_tokens, options.max_batch_size)


def _config(model: Path) -> dict[str, Any]:
    """`config.json`, with its text model's part on top. Raises LoadError."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        return {**config, **(config.get("text_config") or {})}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LoadError(f"the configuration of {model} can't be read: {error}") from error


def _check_ranks(options: EngineOptions, config: dict[str, Any], machine: Machine) -> None:
    degree = options.tensor_parallel
    if degree > machine.count:
        what = "processor cores" if machine.device == "cpu" else "accelerators"
        raise LoadError(
            f"tensor_parallel is {degree}, and this machine has {machine.count} {what}: use at most {machine.count}"
        )
    heads = next((config[name] for name in _HEADS if isinstance(config.get(name), int)), degree)
    if heads % degree:
        fitting = ", ".join(str(n) for n in range(1, machine.count + 1) if heads % n == 0)
        raise LoadError(
            f"tensor_parallel is {degree}, which does not divide the model's {heads} attention heads: use one of {fitting}"
        )


def _dtype(options: EngineOptions, machine: Machine) -> str:
    if options.dtype == "bfloat16" and not machine.bfloat16:
        raise LoadError("dtype bfloat16 is asked for, and this machine does not have it; use auto or float32")
    if options.dtype == "auto" and machine.device == "cpu":
        return "bfloat16" if machine.bfloat16 else "float32"
    return options.dtype


def read_adapters(text: str) -> tuple[Adapter, ...]:
    """The adapters of a JSON object of names and directories. Raises LoadError."""
    if not text:
        return ()
    try:
        named = json.loads(text)
        if not isinstance(named, dict) or not all(isinstance(path, str) for path in named.values()):
            raise ValueError("it is not an object of names and directories")
    except ValueError as error:
        raise LoadError(f"the adapters must be a JSON object of names and directories: {error}") from error
    return tuple(Adapter(name, path, rank_of(name, Path(path))) for name, path in named.items())


def rank_of(name: str, path: Path) -> int:
    """An adapter's rank, from its own configuration. Raises LoadError."""
    try:
        rank = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadError(f"adapter {name}: {path / 'adapter_config.json'} does not tell its rank: {error!r}") from error
    if not isinstance(rank, int) or not 0 < rank <= LORA_RANKS[-1]:
        raise LoadError(f"adapter {name} has rank {rank}; vLLM takes 1 to {LORA_RANKS[-1]}")
    return rank


def _lora_rank(adapters: tuple[Adapter, ...], bound: int, *, later: bool) -> int:
    """One of vLLM's ranks that holds every adapter, within `bound` where it is not 0. Raises LoadError.

    Where others may come `later` it holds all that `bound` allows.
    """
    needed = 0
    for adapter in adapters:
        if bound and adapter.rank > bound:
            raise LoadError(f"adapter {adapter.name} has rank {adapter.rank}, and max_lora_rank is {bound}: raise it")
        needed = max(needed, adapter.rank)
    if later:
        needed = bound or max(needed, LATER_RANK)
    if needed > LORA_RANKS[-1]:
        raise LoadError(f"max_lora_rank is {bound}; vLLM takes 1 to {LORA_RANKS[-1]}")
    return next(rank for rank in LORA_RANKS if rank >= needed)


_PYDANTIC = re.compile(r"(?:Value|Assertion) error, (.*?)(?: \[type=|\Z)", re.DOTALL)
_PARAMETER = re.compile(r" \(parameter=.*\)\Z", re.DOTALL)
_UNSUPPORTED = re.compile(r"Model architectures \[(.*?)\] .*not supported")


def explain(error: BaseException) -> str:
    """What vLLM means, in one line."""
    # A KeyError says nothing without its name.
    text = repr(error) if isinstance(error, LookupError) else str(error)
    if found := _PYDANTIC.search(text):
        text = found[1]
    if found := _UNSUPPORTED.search(text):
        return (
            f"vLLM has no {found[1].replace(chr(39), '')}; use the transformers engine (PENSTOCK_ENGINE=transformers)"
        )
    line = " ".join(_PARAMETER.sub("", text).split())
    return line or _checked(error) or repr(error)


def _checked(error: BaseException) -> str:
    """What an assertion without words asserts, which is all that can be said."""
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, AssertionError) or not frames or not frames[-1].line:
        return ""
    said = " ".join(frames[-1].line.split())
    return f"the model's weights or configuration do not fit: `{said}` in {Path(frames[-1].filename).name}"
