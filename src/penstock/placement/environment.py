"""What a replica without a container is told, by its environment.

Owns the variables of docs/containers.md. Pure; it must never read the environment of this process by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.placement.base import ReplicaSpec

PASSED = (
    "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "PENSTOCK_ENGINE", "PENSTOCK_CONVERTER", "PENSTOCK_TRANSFORMERS_PYTHON",
    "PENSTOCK_VLLM_PYTHON",
)  # fmt: skip
"""What the machine's owner has set for all programs, and a replica needs to find its libraries, its devices and its engine."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def model_directory(directory: Path) -> Path:
    """`/opt/ml/model` of the replica whose private directory this is."""
    return directory / "model"


def models_directory(directory: Path) -> Path:
    """`/opt/ml/models` of a multi-model replica: a directory for each model that was fetched while it runs."""
    return directory / "models"


def termination_log(directory: Path) -> Path:
    return directory / "termination-log"


def home_directory(directory: Path) -> Path:
    return directory / "home"


def temporary_directory(directory: Path) -> Path:
    return directory / "tmp"


def replica_environment(
    spec: ReplicaSpec,
    *,
    directory: Path,
    port: int,
    models: Path,
    aws: Mapping[str, str],
    parent: Mapping[str, str],
    package_root: Path | None = None,
) -> dict[str, str]:
    """The whole environment of a replica: the platform's, over it the container's own, over that what it must not change.

    `aws` is how to reach our own S3 (AWS_ENDPOINT_URL, AWS_CA_BUNDLE, keys, region); `parent` is this process's environment, of which only
    `PASSED`, PATH and PYTHONPATH are taken; `package_root` is where the interpreter would not find this package by itself.
    """
    python_path = [str(package_root)] if package_root else []
    python_path += [path for path in (parent.get("PYTHONPATH"), spec.environment.get("PYTHONPATH")) if path]
    platform = {
        "PATH": parent.get("PATH", _PATH),
        "HOME": str(home_directory(directory)),
        "TMPDIR": str(temporary_directory(directory)),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **{name: parent[name] for name in PASSED if name in parent},
        **aws,
        "AWS_REGION": spec.region,
        "AWS_DEFAULT_REGION": spec.region,
    }
    fixed = {
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "PENSTOCK_BIND_HOST": "127.0.0.1",
        "PENSTOCK_MODEL_DIR": str(model_directory(directory)),
        "PENSTOCK_TERMINATION_LOG": str(termination_log(directory)),
        "PENSTOCK_MODELS": str(models),
        "PENSTOCK_SERVER_VERSION": spec.image.version,
        "PENSTOCK_IMAGE_URI": spec.image.uri,
    }
    paths = {"PYTHONPATH": ":".join(python_path)} if python_path else {}
    return {**platform, **spec.environment, **fixed, **paths}
