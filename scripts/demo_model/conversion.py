"""Torch model to OpenVINO IR, as `openvino_genai.ContinuousBatchingPipeline` wants it: stateful, weights in half precision.

Owns the export and the rounding. It must never train.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from optimum.exporters.openvino import main_export
from optimum.intel import OVConfig

COMPRESS_FROM = 4096
"""Constants of fewer elements stay in single precision: norms, and above all RoPE's inverse frequencies, whose rounding changes tokens."""


def round_to_half(model: object) -> None:
    """Round the torch weights to half precision in place, so that both formats hold the very same numbers."""
    for parameter in model.parameters():  # type: ignore[attr-defined]
        if parameter.numel() >= COMPRESS_FROM:
            parameter.data = parameter.data.half().float()


def halved(model: ov.Model) -> ov.Model:
    """Store every large single-precision constant in half precision, followed by a conversion back."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != ov.Type.f32:
            continue
        if np.prod(node.get_output_shape(0)) < COMPRESS_FROM:
            continue
        users = list(node.output(0).get_target_inputs())
        small = ops.constant(node.data.astype(np.float16), name=f"{node.get_friendly_name()}/half")
        wide = ops.convert(small, "f32")
        wide.get_rt_info()["decompression_0"] = ""
        for user in users:
            user.replace_source_output(wide.output(0))
    return model


def export(torch_directory: Path, target: Path) -> None:
    """Write the IR and its configuration files from a saved torch model with its tokenizer."""
    scratch = torch_directory / "ir"
    shutil.rmtree(scratch, ignore_errors=True)
    main_export(
        str(torch_directory),
        scratch,
        task="text-generation-with-past",
        ov_config=OVConfig(dtype="fp32"),
        convert_tokenizer=False,
        stateful=True,
        library_name="transformers",
    )
    target.mkdir(parents=True, exist_ok=True)
    model = halved(ov.Core().read_model(scratch / "openvino_model.xml"))
    ov.save_model(model, target / "openvino_model.xml", compress_to_fp16=False)
    shutil.copy(scratch / "config.json", target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(torch_directory / name, target)
    plain = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "do_sample": False}
    (target / "generation_config.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
