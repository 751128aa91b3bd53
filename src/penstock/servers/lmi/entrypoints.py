"""Whose code answers a model's requests: the user's script, a handler of ours in a process of its own, or the server itself.

Owns the rule from options and files to one of them. It must never run a script.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.servers.lmi import scripts, words
from penstock.servers.lmi.words import SettingsError

_OWN_ENTRY_POINTS = (
    "djl_python.huggingface",
    "djl_python.deepspeed",
    "djl_python.fastertransformer",
    "djl_python.transformers-neuronx",
    "djl_python.transformers_neuronx",
    "djl_python.tensorrt_llm",
)


def entry_point(options: Mapping[str, str], directory: Path, version: tuple[int, int], engine: str) -> str:
    """The user's handler: `option.entryPoint`, else `model.py`; empty for the handlers that the server has itself."""
    entry = options.get("entryPoint", options.get("entrypoint", ""))
    script = "model.py" if (directory / "model.py").is_file() and not formatters(options, directory) else ""
    if entry.startswith("djl_python.lmi_"):  # From 0.33 on these look for a handler in the model first.
        embeds = options.get("task", "").lower() == "text-embedding"
        return (script if version >= (0, 33) else "") or (_own_handler(options, "") if embeds else "")
    if entry in _OWN_ENTRY_POINTS:
        return _own_handler(options, engine)
    if entry.startswith("djl_python."):
        raise SettingsError(
            f"option.entryPoint={entry} is not supported: write a model.py, or use djl_python.huggingface"
        )
    if entry.startswith(("http://", "https://")):
        raise SettingsError(
            "option.entryPoint must be a file of the model or a module, not a URL: put the file into the model's archive"
        )
    if not entry and (directory / "MAR-INF").is_dir():
        raise SettingsError("a TorchServe archive (MAR-INF) is not supported: write a model.py with a handle function")
    return entry or script or _own_handler(options, engine)


def _own_handler(options: Mapping[str, str], engine: str) -> str:
    """Ours for what is no generation of text: vectors, or the library's pipelines; empty where the server answers, or nothing can."""
    task = options.get("task", "").lower()
    if task == "text-embedding" or (not task and engine in words.EMBEDDING_ENGINES):
        return "djl_python.text_embedding"
    return "" if task in (*words.TASKS, *words.NO_PIPELINES) else "djl_python.huggingface"


def formatters(options: Mapping[str, str], directory: Path) -> str:
    """The script that reads requests, or writes answers, round the server's own generation; empty without one."""
    entry = options.get("entryPoint", options.get("entrypoint", ""))
    if entry and entry not in _OWN_ENTRY_POINTS and not entry.startswith("djl_python.lmi_"):
        return ""
    return "model.py" if scripts.only_formats(directory / "model.py", options.get("handler", "handle")) else ""
