"""Models of the Hugging Face hub: the local cache first, then the hub itself.

Owns the cache's layout (`models--org--name/{refs,snapshots}`) and what is worth downloading. The download itself is
`huggingface_hub`'s, which writes atomically and locks. It must never be asked for an id that an alias maps.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from penstock.servers.unavailable import ModelUnavailable

log = logging.getLogger(__name__)

_WANTED = ["*.json", "*.xml", "*.bin", "*.safetensors", "*.txt", "*.model", "*.py", "*.jinja"]
_WEIGHTS_OF_OTHERS = ["*.pt", "*.msgpack", "*.h5", "*.onnx", "original/*", "coreml/*"]


def find(model_id: str, revision: str, environ: Mapping[str, str], *, advice: str, proof: str = "config.json") -> Path:
    """A snapshot of `model_id`. Raises ModelUnavailable; `advice` says what the user may do instead.

    `proof` is the file by which a snapshot in the cache is known to hold what is looked for.
    """
    cache = cache_directory(environ)
    if (snapshot := _cached(cache, model_id, revision, proof)) is not None:
        return snapshot
    if environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ModelUnavailable(f"{model_id} is not on this machine and HF_HUB_OFFLINE is set: {advice}")
    return _download(cache, model_id, revision, environ, advice)


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Where the hub's own libraries keep models, by their environment variables."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := environ.get(name):
            return Path(value).expanduser()
    if value := environ.get("HF_HOME"):
        return Path(value).expanduser() / "hub"
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def _cached(cache: Path, model_id: str, revision: str, proof: str) -> Path | None:
    """The snapshot of a branch, tag or commit; without a revision `main`, or the only snapshot that there is."""
    folder = cache / f"models--{model_id.replace('/', '--')}"
    snapshots = folder / "snapshots"
    if ".." in Path(revision).parts or revision.startswith("/"):
        raise ModelUnavailable(f"{revision!r} is not a revision")
    try:
        commit = (folder / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        commit = revision
    everything = list(snapshots.iterdir()) if snapshots.is_dir() else []
    candidates = [snapshots / commit] if commit else everything
    complete = [path for path in candidates if (path / proof).exists()]
    return complete[0] if len(complete) == 1 else None


def _token(environ: Mapping[str, str]) -> str:
    """Under its name of today, or one of those that earlier images read."""
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN")
    return next((environ[name] for name in names if environ.get(name)), "")


def _download(cache: Path, model_id: str, revision: str, environ: Mapping[str, str], advice: str) -> Path:
    # Imported here: it takes a third of a second, and most models are found without it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    log.info("downloading %s from the Hugging Face hub", model_id)
    try:
        path = snapshot_download(
            model_id,
            revision=revision or None,
            cache_dir=cache,
            token=_token(environ) or False,
            endpoint=environ.get("HF_ENDPOINT"),
            allow_patterns=_WANTED,
            ignore_patterns=_WEIGHTS_OF_OTHERS,
        )
    except LocalEntryNotFoundError as error:
        raise ModelUnavailable(f"{model_id} is not on this machine and the hub can't be reached: {advice}") from error
    except Exception as error:  # Its HTTP client's errors too, which are of another library from version to version.
        line = str(error).strip().partition("\n")[0]
        raise ModelUnavailable(f"{model_id} can't be downloaded from the hub ({line}): {advice}") from error
    return Path(path)
