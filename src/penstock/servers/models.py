"""From what a user calls a model to a directory that holds it.

Owns the meaning of `HF_MODEL_ID` and `option.model_id`: a directory, an `s3://` prefix, a hub id, or a hub id with an alias; and
what a directory must hold before an engine can load it: for openvino an IR, for the others PyTorch weights. It must never load a model.
Blocking: it runs before a port is bound.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from penstock import aliases, config
from penstock.engines import conversion, facts, weights
from penstock.servers import hub, s3prefix
from penstock.servers.unavailable import ModelUnavailable

__all__ = [
    "ModelUnavailable",
    "check_usable",
    "check_weights",
    "fetch",
    "local",
    "models_directory",
    "needs_conversion",
    "prepare",
    "resolve",
]


def resolve(model_id: str, revision: str = "", environ: Mapping[str, str] | None = None, quantize: str = "") -> Path:
    """The local directory of a model that the OpenVINO engine can load. Raises ModelUnavailable, whose text says what to do.

    `quantize` is TGI's or LMI's word for smaller weights.
    """
    environ = os.environ if environ is None else environ
    return prepare(fetch(model_id, revision, environ), "openvino", environ, quantize)


def prepare(directory: Path, engine: str, environ: Mapping[str, str], quantize: str = "") -> Path:
    """What `engine` loads in place of `directory`: for openvino a conversion, where it needs one. Raises ModelUnavailable."""
    if engine == "openvino":
        if needs_conversion(directory) or (quantize and not _weights_are(directory, quantize)):
            directory = _converted(directory, environ, quantize)
        check_usable(directory)
    else:
        check_weights(directory)
    return directory


def fetch(
    model_id: str, revision: str = "", environ: Mapping[str, str] | None = None, *, proof: str = "config.json"
) -> Path:
    """The local directory of `model_id`, whatever it holds. Raises ModelUnavailable.

    Paths below `/opt/ml/model` mean `$PENSTOCK_MODEL_DIR`; aliases lie in `$PENSTOCK_MODELS`, and so do downloads from S3, unless LMI's
    `$SERVING_DOWNLOAD_DIR` says another place; S3's endpoint, region and credentials come from the `AWS_*` variables. `proof` is the
    file by which the hub's cache is known to hold it.
    """
    environ = os.environ if environ is None else environ
    model_id = model_id.strip()
    if not model_id:
        raise ModelUnavailable("no model is named: set HF_MODEL_ID (or option.model_id in serving.properties)")
    if model_id.startswith("s3://"):
        return s3prefix.download(model_id, _downloads(environ), environ)
    if model_id.startswith(("/", "./", "../", "~")) or model_id in (".", ".."):
        return _directory(model_id, environ)
    if not aliases.is_hub_id(model_id):
        raise ModelUnavailable(f"{model_id!r} is neither a directory, an s3:// prefix nor a hub id")
    if (target := _aliases(environ).get(model_id)) is not None:
        if not target.is_dir():
            raise ModelUnavailable(
                f"the alias of {model_id} names {target}, which is not a directory: {_advice(model_id)}"
            )
        return target
    return hub.find(model_id, revision, environ, advice=_advice(model_id), proof=proof)


def local(model_id: str, environ: Mapping[str, str]) -> Path | None:
    """The directory of a model id that needs no hub: a path, an `s3://` prefix, an alias. None for another id. Raises ModelUnavailable."""
    if aliases.is_hub_id(model_id) and model_id not in _aliases(environ):
        return None
    return fetch(model_id, "", environ)


def models_directory(environ: Mapping[str, str]) -> Path:
    """Where aliases and downloads lie: `$PENSTOCK_MODELS`, which placements set; else below the Penstock home."""
    if given := environ.get("PENSTOCK_MODELS"):
        return Path(given)
    return config.load(environ).paths.models


def _downloads(environ: Mapping[str, str]) -> Path:
    """Absolute, since a handler that is told of it runs in a directory of its own."""
    if given := environ.get("SERVING_DOWNLOAD_DIR"):
        return Path(given).expanduser().absolute()
    return models_directory(environ) / "downloads"


def check_usable(directory: Path) -> None:
    """Raises ModelUnavailable, naming what is missing, when an OpenVINO engine could not load `directory`."""
    if not directory.is_dir():
        raise ModelUnavailable(f"{directory} is not a directory")
    names = {entry.name for entry in directory.iterdir()}
    if "openvino_model.xml" not in names:
        what = "is empty" if not names else "holds no model: neither openvino_model.xml nor *.safetensors is there"
        raise ModelUnavailable(f"{directory} {what}")
    missing = [name for name in ("openvino_model.bin", "tokenizer.json") if name not in names]
    if missing:
        raise ModelUnavailable(f"{directory} lacks {' and '.join(missing)}")


def check_weights(directory: Path) -> None:
    """Raises ModelUnavailable, naming what is missing, when an engine that loads PyTorch weights could not load `directory`."""
    names = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()
    if not facts.holds_weights(names):
        raise ModelUnavailable(f"{directory} holds no PyTorch weights (*.safetensors or *.bin)")
    missing = [name for name in ("config.json", "tokenizer.json") if name not in names]
    if missing:
        raise ModelUnavailable(f"{directory} lacks {' and '.join(missing)}")


def needs_conversion(directory: Path) -> bool:
    """Whether `directory` holds weights for PyTorch and no OpenVINO model."""
    if not directory.is_dir() or (directory / "openvino_model.xml").exists():
        return False
    return any(file.suffix in {".safetensors", ".bin"} for file in directory.iterdir())


def _weights_are(directory: Path, quantize: str) -> bool:
    """Whether an OpenVINO directory keeps its weights so already. Raises ModelUnavailable on a word that means nothing here."""
    try:
        asked = weights.weight_format(quantize)
        return asked is None or weights.bits_of(directory) == int(asked[3])
    except weights.UnknownFormat as error:
        raise ModelUnavailable(str(error)) from error
    except OSError:
        return True  # there is no model in it, as `check_usable` says better


def _converted(directory: Path, environ: Mapping[str, str], quantize: str) -> Path:
    models = models_directory(environ)
    python = conversion.interpreter(models, environ)
    if python is None:
        place = models.parent / "converter"
        what = (
            f"{directory} holds weights for PyTorch that must be converted first"
            if needs_conversion(directory)
            else f"quantize={quantize} makes {directory}'s weights smaller, which is a conversion"
        )
        otherwise = "" if quantize else ", or give a directory with openvino_model.xml"
        raise ModelUnavailable(
            f"{what}, and there is no converter. Make one with "
            f"`python3 -m venv {place} && {place}/bin/pip install optimum-intel torch`{otherwise}"
        )
    try:
        return conversion.converted(directory, models, (python, "-I", conversion.PROGRAM), quantize=quantize)
    except conversion.ConversionError as error:
        raise ModelUnavailable(str(error)) from error


def _aliases(environ: Mapping[str, str]) -> dict[str, Path]:
    try:
        return aliases.read(models_directory(environ))
    except aliases.AliasError as error:
        raise ModelUnavailable(str(error)) from error


def _directory(text: str, environ: Mapping[str, str]) -> Path:
    path = Path(text).expanduser()
    inside = environ.get("PENSTOCK_MODEL_DIR")
    if inside and (path == _MODEL or _MODEL in path.parents):
        path = Path(inside) / path.relative_to(_MODEL)
    if not path.is_dir():
        raise ModelUnavailable(f"{text} is not a directory")
    return path.absolute()


_MODEL = Path("/opt/ml/model")


def _advice(model_id: str) -> str:
    return f"run `penstock models alias {model_id} DIR`, or name a directory or an s3:// prefix instead"
