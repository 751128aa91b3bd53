"""The converter's program: a Hugging Face directory in, an OpenVINO one out.

Run as a file by an interpreter of its own, which has optimum-intel, torch and transformers but not this package; so it imports nothing of
ours. Owns one thing besides the export: weights are kept in half precision, and small constants in single. The exporter would halve the
rotary embedding's frequencies too, and that changes answers, the more the longer the text.

    python convert_hf.py SOURCE TARGET REASON PARENT_PID

A failure writes one line to the file REASON.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

SMALL = 2048
"""Elements. A constant with fewer is no weight matrix."""
TASK = "text-generation-with-past"


def convert(source: Path, target: Path) -> None:
    import openvino
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig
    from transformers import AutoTokenizer

    single = target / "single"
    say("exporting")
    main_export(
        model_name_or_path=str(source),
        output=single,
        task=TASK,
        ov_config=OVConfig(dtype="fp32"),
        convert_tokenizer=False,
        local_files_only=True,
    )
    say("compressing")
    compress(openvino, single / "openvino_model.xml", target)
    for name in ("config.json", "generation_config.json"):
        if (single / name).is_file():
            (single / name).rename(target / name)
    for file in single.iterdir():
        file.unlink()
    single.rmdir()
    say("saving the tokenizer")
    AutoTokenizer.from_pretrained(source, use_fast=True, local_files_only=True).save_pretrained(target)
    if not (target / "tokenizer.json").is_file():
        raise ValueError("the model has no fast tokenizer (tokenizer.json)")


def compress(openvino, exported: Path, target: Path) -> None:  # type: ignore[no-untyped-def]
    """Write `exported` to `target` with its large constants in half precision."""
    core = openvino.Core()
    model = core.read_model(exported)
    small = {
        node.get_friendly_name(): node.get_data().copy()
        for node in model.get_ops()
        if node.get_type_name() == "Constant"
        and node.get_element_type() == openvino.Type.f32
        and node.get_data().size < SMALL
    }
    halved = exported.with_name("halved.xml")
    openvino.save_model(model, halved, compress_to_fp16=True)
    del model
    model = core.read_model(halved)
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


def main(source: str, target: str, reason: str, parent: str) -> int:
    die_with_parent(int(parent))
    here = str(Path(__file__).parent)  # holds an `openvino.py` that is not the library
    sys.path[:] = [entry for entry in sys.path if entry != here]
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        convert(Path(source), Path(target))
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        Path(reason).write_text(lines[0] if lines else repr(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
