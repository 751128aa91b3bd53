"""The launcher's flags, each of them an environment variable too.

Owns the list, and what the server calls each. It must never judge a value beyond its form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "number", "real", "switch", "bool"]


@dataclass(frozen=True, slots=True)
class Flag:
    """`--max-best-of` is MAX_BEST_OF. `becomes` is the name by which the server knows it; empty where it changes nothing here."""

    name: str
    kind: Kind = "text"
    becomes: str = ""
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        return self.name.upper().replace("-", "_")


def _same(name: str, kind: Kind = "number", choices: tuple[str, ...] = ()) -> Flag:
    return Flag(name, kind, name.upper().replace("-", "_"), choices)


QUANTIZATIONS = (
    "awq", "bitsandbytes", "bitsandbytes-fp4", "bitsandbytes-nf4", "compressed-tensors", "eetq", "exl2", "fp8", "gptq", "marlin",
)  # fmt: skip
FLAGS = (
    Flag("model-id", becomes="HF_MODEL_ID"),
    Flag("revision", becomes="HF_MODEL_REVISION"),
    Flag("num-shard", "number", "SM_NUM_GPUS"),
    Flag("quantize", becomes="HF_MODEL_QUANTIZE", choices=QUANTIZATIONS),
    Flag("trust-remote-code", "switch", "HF_MODEL_TRUST_REMOTE_CODE"),
    _same("dtype", "text", ("float16", "bfloat16", "float32")),
    _same("validation-workers"),
    _same("max-concurrent-requests"),
    _same("max-best-of"),
    _same("max-stop-sequences"),
    _same("max-top-n-tokens"),
    _same("max-input-tokens"),
    _same("max-input-length"),
    _same("max-total-tokens"),
    _same("waiting-served-ratio", "real"),
    _same("max-batch-prefill-tokens"),
    _same("max-batch-total-tokens"),
    _same("max-waiting-tokens"),
    _same("max-batch-size"),
    _same("max-client-batch-size"),
    _same("payload-limit"),
    _same("api-key", "text"),
    _same("cors-allow-origin", "text"),
    _same("disable-grammar-support", "switch"),
    _same("enable-prefill-logprobs", "switch"),
    Flag("port", "number", "SAGEMAKER_BIND_TO_PORT"),
    Flag("hostname", becomes="PENSTOCK_BIND_HOST"),
    _same("sharded", "bool"),
    _same("speculate"),
    Flag("kv-cache-dtype", choices=("fp8_e4m3fn", "fp8_e5m2")),
    Flag("cuda-graphs"),
    Flag("prometheus-port", "number"),
    Flag("shard-uds-path"),
    Flag("master-addr"),
    Flag("master-port", "number"),
    Flag("huggingface-hub-cache", becomes="HUGGINGFACE_HUB_CACHE"),
    Flag("weights-cache-override"),
    Flag("disable-custom-kernels", "switch"),
    Flag("cuda-memory-fraction", "real"),
    Flag("rope-scaling", choices=("linear", "dynamic")),
    Flag("rope-factor", "real"),
    Flag("json-output", "switch"),
    Flag("otlp-endpoint"),
    Flag("otlp-service-name"),
    _same("watermark-gamma", "real"),
    _same("watermark-delta", "real"),
    Flag("ngrok", "switch"),
    Flag("ngrok-authtoken"),
    Flag("ngrok-edge"),
    Flag("tokenizer-config-path"),
    _same("lora-adapters", "text"),
    Flag("usage-stats", choices=("on", "off", "no-stack")),
    Flag("graceful-termination-timeout", "number"),
)


def unheeded(environ: Mapping[str, str]) -> list[str]:
    """The launcher's variables that are set and have no meaning here."""
    return [flag.variable for flag in FLAGS if not flag.becomes and environ.get(flag.variable)]
