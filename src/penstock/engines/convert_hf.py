"""The converter's program: a Hugging Face directory in, an OpenVINO one out; or an OpenVINO one in, and its weights made smaller.

Run as a file by an interpreter of its own, which has optimum-intel, torch and transformers but not this package; so it imports nothing of
ours. An OpenVINO directory needs only `openvino` and `nncf`. Owns two things besides the export: weights in 8 or 4 bits, and that small
constants stay in single precision where the rest is halved. The exporter would halve the rotary embedding's frequencies too, and that
changes answers, the more the longer the text.

    python convert_hf.py SOURCE TARGET REASON PARENT_PID [int8_asym|int8_sym|int4_asym|int4_sym]

A failure writes one line to the file REASON.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import re
import shutil
import signal
import sys
from pathlib import Path

SMALL = 2048
"""Elements. A constant with fewer is no weight matrix."""
TASK = "text-generation-with-past"
GROUP = 128
"""Weights that share a scale in 4 bits."""
BESIDE = ("*.json", "*.jinja", "*.model", "*.txt", "openvino_tokenizer.*", "openvino_detokenizer.*")
"""What belongs to an OpenVINO directory besides the model."""


def convert(source: Path, target: Path, weights: str) -> None:
    import openvino

    if (source / "openvino_model.xml").is_file():
        model = openvino.Core().read_model(source / "openvino_model.xml")
        if already(model, weights):
            say(f"the weights are kept in {weights[:4]} already")
        else:
            say(f"compressing the weights to {weights}")
            compressed(model, weights)
        say("writing the model")
        openvino.save_model(model, target / "openvino_model.xml", compress_to_fp16=False)
        for pattern in BESIDE:
            for file in source.glob(pattern):
                shutil.copyfile(file, target / file.name)
        return
    single = target / "single"
    export(source, single)
    model = openvino.Core().read_model(single / "openvino_model.xml")
    if weights:
        say(f"compressing the weights to {weights}")
        compressed(model, weights)
    say("writing the model")
    halve(openvino, model, single, target)
    del model
    for name in ("config.json", "generation_config.json"):
        if (single / name).is_file():
            (single / name).rename(target / name)
    shutil.rmtree(single)
    tokenizer(source, target)


def export(source: Path, target: Path) -> None:
    """Write `source` as an IR in single precision, with its configuration."""
    say("reading the exporter's libraries")
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig

    refuse_incomplete_weights()
    say("exporting")
    main_export(
        model_name_or_path=str(source),
        output=target,
        task=TASK,
        ov_config=OVConfig(dtype="fp32"),
        convert_tokenizer=False,
        local_files_only=True,
    )


def refuse_incomplete_weights() -> None:
    """Have every loading raise ValueError where the files lack a tensor: the library makes it up, at random, and only warns."""
    from transformers import PreTrainedModel

    load = PreTrainedModel.from_pretrained.__func__

    def complete(cls, /, *arguments, output_loading_info=False, **named):  # type: ignore[no-untyped-def]
        model, report = load(cls, *arguments, output_loading_info=True, **named)
        needed = {name for name, _ in model.named_parameters()}
        if missing := sorted(needed & set(report.get("missing_keys", ()))):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(f"its weights are not complete: {missing[0]}{more} is not there")
        return (model, report) if output_loading_info else model

    PreTrainedModel.from_pretrained = classmethod(complete)


def tokenizer(source: Path, target: Path) -> None:
    from transformers import AutoTokenizer

    say("saving the tokenizer")
    AutoTokenizer.from_pretrained(source, use_fast=True, local_files_only=True).save_pretrained(target)
    if not (target / "tokenizer.json").is_file():
        raise ValueError("the model has no fast tokenizer (tokenizer.json)")


def already(model, weights: str) -> bool:  # type: ignore[no-untyped-def]
    """Whether the weights are kept in so few bits. Raises ValueError when they are in other ones: nothing can bring them back."""
    kinds = {
        node.get_element_type().get_type_name()
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and math.prod(node.get_output_shape(0)) >= SMALL
    }
    bits = min((int(kind[1:]) for kind in kinds if re.fullmatch("[ui][48]", kind)), default=0)
    if bits not in (0, int(weights[3])):
        raise ValueError(f"its weights are kept in int{bits} already, and can't become {weights}")
    return bits != 0


def compressed(model, weights: str) -> None:  # type: ignore[no-untyped-def]
    """Keep the matrices of `model` in `weights`. Embeddings and the head keep 8 bits where the rest has 4."""
    import nncf  # type: ignore[import-not-found]

    nncf.set_log_level(logging.ERROR)
    mode = nncf.CompressWeightsMode[weights.upper()]
    options = {}
    if weights.startswith("int4"):
        advanced = nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
        )  # rows that no whole number of groups makes up get smaller ones
        options = {"group_size": GROUP, "ratio": 1.0, "advanced_parameters": advanced}
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # a bar that only a terminal can draw
        nncf.compress_weights(model, mode=mode, **options)


def halve(openvino, model, work: Path, target: Path) -> None:  # type: ignore[no-untyped-def]
    """Write `model` to `target` with its large constants in half precision."""
    small = {
        node.get_friendly_name(): node.get_data().copy()
        for node in model.get_ops()
        if node.get_type_name() == "Constant"
        and node.get_element_type() == openvino.Type.f32
        and node.get_data().size < SMALL
    }
    halved = work / "halved.xml"
    openvino.save_model(model, halved, compress_to_fp16=True)
    model = openvino.Core().read_model(halved)
    for node in model.get_ops():
        # What was halved is now a Convert, under the constant's name, of a constant in half precision.
        if node.get_type_name() == "Convert" and node.get_friendly_name() in small:
            constant = openvino.opset13.constant(small[node.get_friendly_name()])
            node.output(0).replace(constant.output(0))
    openvino.save_model(model, target / "openvino_model.xml", compress_to_fp16=False)


def say(what: str) -> None:
    print(f"conversion: {what}", flush=True)


def die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def main(source: str, target: str, reason: str, parent: str, weights: str = "") -> int:
    die_with_parent(int(parent))
    here = str(Path(__file__).parent)  # holds an `openvino.py` that is not the library
    sys.path[:] = [entry for entry in sys.path if entry != here]
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        convert(Path(source), Path(target), weights)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        Path(reason).write_text(lines[0] if lines else repr(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
