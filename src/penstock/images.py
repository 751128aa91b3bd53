"""Image URI -> what to run.

Owns the rule by which a container image's name picks a built-in model server and its version. It must never start one.
URIs that the SDKs make: `763104351884.dkr.ecr.us-west-2.amazonaws.com/djl-inference:0.23.0-deepspeed0.9.5-cu118`,
`…/huggingface-pytorch-tgi-inference:2.0.1-tgi1.0.3-gpu-py39-cu118-ubuntu20.04`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Server = Literal["lmi", "tgi", "scripted", "replay", "container"]


@dataclass(frozen=True, slots=True)
class Image:
    """What an image URI stands for. `server` "container" means that only a container engine can run it; `version` is then empty."""

    uri: str
    server: Server
    version: str = ""


_TGI = re.compile(r"(?:^|-)tgi(\d+(?:\.\d+)*)")
_LMI = re.compile(r"^(\d+(?:\.\d+)*)")
_BUILT_IN: dict[str, tuple[Server, str]] = {
    "penstock/lmi": ("lmi", "0.23.0"),
    "penstock/tgi": ("tgi", "1.0.3"),
    "penstock/scripted": ("scripted", ""),
    "penstock/replay": ("replay", ""),
}


def resolve(uri: str) -> Image:
    """The built-in server that an image URI names, else `container`. Pure; never fails."""
    path, tag = split(uri)
    repository = path.rsplit("/", 1)[-1]
    if repository == "djl-inference" and (match := _LMI.match(tag)):
        return Image(uri, "lmi", match[1])
    if repository == "huggingface-pytorch-tgi-inference" and (match := _TGI.search(tag)):
        return Image(uri, "tgi", match[1])
    for name, (server, version) in _BUILT_IN.items():
        if path == name or path.endswith("/" + name):
            return Image(uri, server, version if tag in ("", "latest") else tag)
    return Image(uri, "container")


def split(uri: str) -> tuple[str, str]:
    """Registry and repository, and the tag, "" where there is none; a digest is left out."""
    name = uri.partition("@")[0]
    path, colon, tag = name.rpartition(":")
    # The last colon is a port's where a slash follows it.
    return (path, tag) if colon and "/" not in tag else (name, "")
