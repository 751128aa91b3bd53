"""Why a replica failed, in words.

Owns the texts that become FailureReason: AWS's sentence first, then what is known here. Pure.
"""

from __future__ import annotations

import signal

from penstock.placement.base import ReplicaSpec

REASON_CHARACTERS = 1024
"""AWS's bound for FailureReason."""


def not_healthy(spec: ReplicaSpec, detail: str = "") -> str:
    """It never answered /ping with 200."""
    return bounded(
        f"The {spec.container} container for production variant {spec.variant} did not pass the ping health check. "
        f"Please check CloudWatch logs for this endpoint. {detail}"
    )


def timed_out(spec: ReplicaSpec) -> str:
    return not_healthy(spec, f"It did not answer /ping with 200 within {spec.startup_timeout_s:g} s.")


def exited(status: int, said: str) -> str:
    """How a process ended, and its last words."""
    if status < 0:
        try:
            how = f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            how = f"was killed by signal {-status}"
    else:
        how = f"exited with status {status}"
    return f"The container {how}." + (f" It said: {said}" if said else "")


def no_engine(spec: ReplicaSpec) -> str:
    """The image needs a container engine, and there is none."""
    return bounded(
        f"The {spec.container} container for production variant {spec.variant} could not be started: the image {spec.image.uri} needs a "
        "container engine, and none is configured. Images that run without one: djl-inference, huggingface-pytorch-tgi-inference, "
        "penstock/lmi, penstock/tgi, penstock/scripted, penstock/replay."
    )


def download_timed_out(spec: ReplicaSpec, url: str) -> str:
    return bounded(
        f'Failed to download model data for container "container_1" from URL: "{url}". It took longer than '
        f"ModelDataDownloadTimeoutInSeconds allows ({spec.download_timeout_s:g} s)."
    )


def bounded(text: str) -> str:
    """At most `REASON_CHARACTERS`, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= REASON_CHARACTERS else text[: REASON_CHARACTERS - 1] + "…"
