"""What can be seen of a model and of a machine without loading the one or asking the other's drivers.

Owns the looking: names of files, a few members of `config.json`, device files, which Pythons have which engine. It must never import an
engine library, nor judge what it sees: that is `choice.py`.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock.engines import apart, conversion
from penstock.engines.choice import ENGINES, MachineFacts, ModelFacts
from penstock.engines.modelconfig import read_model_config

_DEVICES = Path("/dev")
_NVIDIA_SMI_TIMEOUT_S = 10.0


def holds_weights(names: Iterable[str]) -> bool:
    """Whether PyTorch weights are among the files of a model's directory."""
    return any(name.endswith((".safetensors", ".bin")) and name != "openvino_model.bin" for name in names)


def model_facts(directory: Path) -> ModelFacts:
    """What lies in `directory`. Raises ValueError, in one line, when its `config.json` is none."""
    names = {entry.name for entry in directory.iterdir()}
    weights = holds_weights(names)
    ir, tokenizer = "openvino_model.xml" in names, "tokenizer.json" in names
    if not (directory / "config.json").is_file():
        return ModelFacts(directory, openvino=ir, weights=weights, tokenizer=tokenizer)
    try:
        config = _object(directory / "config.json")
        positions = read_model_config(directory).max_positions
    except (OSError, ValueError) as error:
        raise ValueError(f"the configuration of {directory} can't be read: {error}") from error
    inner = config.get("text_config")
    architectures = config.get("architectures")
    return ModelFacts(
        directory,
        model_type=str(config.get("model_type") or (inner if isinstance(inner, dict) else {}).get("model_type") or ""),
        architectures=tuple(map(str, architectures)) if isinstance(architectures, list) else (),
        encoder_decoder=config.get("is_encoder_decoder") is True,
        own_code=bool(config.get("auto_map")),
        openvino=ir,
        weights=weights,
        tokenizer=tokenizer,
        quantized=_quantized(directory, config),
        max_positions=positions,
    )


def machine_facts(home: Path, environ: Mapping[str, str], devices: Path = _DEVICES) -> MachineFacts:
    """What this machine has. `home` is the Penstock home, where engines and the converter may have environments. Blocking."""
    return MachineFacts(
        home=home,
        gpus=count_gpus(environ, devices),
        installed=frozenset(engine for engine in ENGINES if _installed(engine, home, environ)),
        converter=conversion.interpreter(home / "models", environ) is not None,
    )


def count_gpus(environ: Mapping[str, str], devices: Path = _DEVICES) -> int:
    """NVIDIA devices that a program started with `environ` may use: `CUDA_VISIBLE_DEVICES` of those that are there."""
    present = sum(1 for entry in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", entry.name))
    if not present and (
        program := shutil.which("nvidia-smi", path=environ.get("PATH"))
    ):  # where devices have other names
        present = _listed(program)
    if (visible := environ.get("CUDA_VISIBLE_DEVICES")) is not None and present:
        present = min(present, visible_devices(visible))
    return present


def visible_devices(text: str) -> int:
    """How many devices `CUDA_VISIBLE_DEVICES` names; the first one that can't be ends the list, as in CUDA."""
    count = 0
    for name in (part.strip() for part in text.split(",")):
        if not name or name.startswith("-"):
            break
        count += 1
    return count


def _listed(program: str) -> int:
    try:
        done = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if done.returncode == 0 else 0


def _installed(engine: str, home: Path, environ: Mapping[str, str]) -> bool:
    if engine == "openvino":
        return importlib.util.find_spec("openvino_genai") is not None
    python = apart.interpreter(engine, home, environ)
    return python is not None and shutil.which(python) is not None


def _quantized(directory: Path, config: Mapping[str, Any]) -> str:
    """How the weights in the files are quantised already; `quantize_config.json` is what AutoGPTQ wrote before transformers knew it."""
    given = config.get("quantization_config")
    if isinstance(given, dict):
        return str(given.get("quant_method") or "in its own way")
    return "gptq" if (directory / "quantize_config.json").is_file() else ""


def _object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value
