"""`/models/{model}/adapters`: list, register, describe, update and unregister LoRA adapters, as DJL Serving has it from 0.28 on.

Owns those routes and bodies. It must never know what may be registered: `loras.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.servers.lmi.errors import BadRequest, MethodNotAllowed, Unavailable
from penstock.servers.lmi.loras import Changeable, IllegalArgument, Registered, refused, registered
from penstock.servers.lmi.management import paginated
from penstock.servers.lmi.registry import Models
from penstock.servers.lmi.replies import Reply, json_reply

ALIAS = "X-Amzn-SageMaker-Adapter-Alias"
"""Names an adapter in messages, where its own name is none for people."""


class AdapterApi:
    """The adapters' management API over a server's models."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def handle(
        self, method: str, model: str, segments: list[str], query: Mapping[str, str], headers: Mapping[str, str]
    ) -> Reply:
        """Answer one request; `segments` follow `/adapters/`, and an empty `model` means the only one of start-up. Raises LmiError."""
        model = model or self._models.only_one()
        if not model:
            raise BadRequest(
                "The adapter must be prefixed with a model unless there is only a single startup model used."
            )
        found = self._adapters(model)
        alias = headers.get(ALIAS, "")
        match method, segments:
            case "GET", [] | [""]:
                page, names = paginated(found.names(), query)
                return json_reply({**page, "adapters": [described(found.find(name)) for name in names]})
            case "POST", [] | [""]:
                return json_reply({"status": await found.register(registered(query, alias))})
            case "GET", [name, *_]:
                return json_reply(described(found.find(name, alias)))
            case "POST", [name, update] if update.lower() == "update":
                return json_reply({"status": await found.update(name, alias, query)})
            case "DELETE", [name, *_] if name:
                return json_reply({"status": await found.unregister(name, alias)})
        raise MethodNotAllowed

    def _adapters(self, model: str) -> Changeable:
        """Those of a model, of its first version where it has several. Raises LmiError."""
        if not (versions := self._models.versions(model)):
            raise refused(404, f"The model {model} was not found")
        entry = versions[0]
        if not entry.settings.enable_lora:
            raise BadRequest("LoRA is not enabled.")
        if entry.handler is None:
            raise Unavailable(f"Model is not ready: {entry}")
        if (found := entry.handler.adapters) is None:
            raise IllegalArgument(
                "Adapters can't be managed for a model whose own code answers and has no function register_adapter: "
                "it has to load them itself"
            )
        return found


def described(adapter: Registered) -> dict[str, Any]:
    """One adapter, as it is listed and described."""
    return {"name": adapter.name, "src": adapter.src, "preload": adapter.preload, "pin": adapter.pin}
