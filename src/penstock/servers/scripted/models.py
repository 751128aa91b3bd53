"""The models of a multi-model server: each is a script of its own, loaded and unloaded by name.

Owns `/models` as SageMaker's contract has it, and what is loaded. It must never fetch anything: a model is a directory that lies there.
AWS's page: "Custom Containers Contract for Multi-Model Endpoints".
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.servers.scripted.find import in_directory
from penstock.servers.scripted.http import Answer, Request
from penstock.servers.scripted.player import JSON, Player
from penstock.servers.scripted.script import DEFAULT, Script

_log = logging.getLogger("scripted")


class Refusal(Exception):
    """What is answered instead; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LoadedModels:
    """Those of one server, whose own script says how many there may be. `die` ends the process."""

    def __init__(self, script: Script, die: Callable[[str, int], None]) -> None:
        self._script, self._die = script, die
        self._loaded: dict[str, tuple[str, Player]] = {}
        self._loading: set[str] = set()
        self._loads = 0

    def player(self, request: Request) -> Player | None:
        """Who answers a request for a model; None where it is none, or the model is not loaded."""
        parts = request.path.split("/")
        if request.method != "POST" or len(parts) != 4 or parts[1::2] != ["models", "invoke"]:
            return None
        return self._loaded[parts[2]][1] if parts[2] in self._loaded else None

    async def manage(self, request: Request, answer: Answer) -> None:
        """Everything else below `/models`."""
        try:
            document = await self._managed(request)
        except Refusal as refusal:
            text = json.dumps({"message": str(refusal)}).encode()
            await answer.whole(refusal.status, JSON, text)
        else:
            await answer.whole(200, JSON, json.dumps(document).encode())

    async def _managed(self, request: Request) -> Any:
        name = request.path.removeprefix("/models").removeprefix("/")
        match request.method, bool(name):
            case "GET", False:
                return {"models": [self._described(one) for one in self._loaded]}
            case "POST", False:
                return await self._load(request.body)
            case "GET" | "DELETE", True if name in self._loaded:
                if request.method == "GET":
                    return self._described(name)
                del self._loaded[name]
                _log.info("unloaded %s", name)
                return {"status": f"{name} unloaded"}
        raise Refusal(404, f"Model not found: {name.removesuffix('/invoke')}" if name else "Not Found")

    def _described(self, name: str) -> dict[str, str]:
        return {"modelName": name, "modelUrl": self._loaded[name][0]}

    async def _load(self, body: bytes) -> Any:
        try:
            value = json.loads(body)
            name, url = str(value["model_name"]), str(value["url"])
        except (ValueError, LookupError, TypeError):
            raise Refusal(400, "model_name and url are needed") from None
        self._loads += 1
        if self._loads == self._script.die.after_loads:
            self._die(f"at load {self._loads}", self._script.die.code)
        if name in self._loaded or name in self._loading:
            raise Refusal(409, f"Model already loaded: {name}")
        capacity = self._script.models.capacity
        if capacity is not None and len(self._loaded) + len(self._loading) >= capacity:
            raise Refusal(507, f"There is room for {capacity} models.")
        self._loading.add(name)
        try:
            script = await asyncio.to_thread(_read, Path(url))
            await asyncio.sleep(script.start.wait_ms / 1000)
        finally:
            self._loading.discard(name)
        if script.start.fail:
            raise Refusal(500, script.start.fail)
        self._loaded[name] = (url, Player(script, self._die))
        _log.info("loaded %s", name)
        return {"status": f"{name} loaded"}


def _read(directory: Path) -> Script:
    if not directory.is_dir():
        raise Refusal(400, f"{directory} is no directory")
    try:
        return in_directory(directory) or DEFAULT
    except (ValueError, OSError) as error:
        raise Refusal(400, f"The model has no usable script: {error}") from None
