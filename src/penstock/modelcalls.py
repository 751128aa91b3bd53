"""What a gateway asks control about the models of multi-model variants, and what it is answered.

Owns the shape of both and their bytes, and the names that containers know models by. It must never hold behaviour: control loads, the
gateway sends requests. The call is `POST` to `PATH` on `Paths.control_socket` with `routes.HEADER_INTERNAL`, which no client can send.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import msgspec

from penstock.routes import ModelUse

PATH = "/_penstock/models"


@dataclass(frozen=True, slots=True)
class ModelWanted:
    """`target_model` is to be had on a replica of a variant, loaded. Times out when the load does, minutes later.

    `only`: on this replica, whatever others have it. `tried`: not on these. `doubted`: this one's container answered 404 though we were
    told that it had the model. `used`: what this worker has not told yet.
    """

    account: str
    region: str
    endpoint: str
    variant: str
    target_model: str
    only: str = ""
    tried: tuple[str, ...] = ()
    doubted: str = ""
    used: tuple[ModelUse, ...] = ()


Outcome = Literal["loaded", "there", "refused", "dependency", "container", "unreachable", "late"]


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What became of it.

    `loaded`: replica `replica` of `epoch` has the model, where not `cached` until told that this use has ended; `waited` for its load.
    `there`: the one that was doubted does have it, its 404 was its own. `refused`: the artifact, as `text` says. `dependency`: storage of
    ours failed, as `text` says. `container`: the container answered the load with `status` and `text`. `unreachable`: no replica to be
    had. `late`: it took too long.
    """

    outcome: Outcome
    replica: str = ""
    epoch: int = 0
    cached: bool = True
    waited: bool = False
    status: int = 0
    text: str = ""


_encode = msgspec.json.Encoder().encode
_wanted = msgspec.json.Decoder(ModelWanted)
_answer = msgspec.json.Decoder(ModelAnswer)


def encode(message: ModelWanted | ModelAnswer) -> bytes:
    return _encode(message)


def decode_wanted(body: bytes) -> ModelWanted:
    """Raises msgspec.MsgspecError."""
    return _wanted.decode(body)


def decode_answer(body: bytes) -> ModelAnswer:
    """Raises msgspec.MsgspecError."""
    return _answer.decode(body)


def model_name(target_model: str) -> str:
    """What a container knows the model as: opaque, as AWS's contract has it, and fit for a path."""
    return sha256(target_model.encode()).hexdigest()[:32]
