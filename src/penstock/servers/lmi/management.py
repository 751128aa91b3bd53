"""`/models`: list, describe, register, scale and unregister, as DJL Serving and SageMaker's multi-model contract have it.

Owns those bodies and texts. It must never load a model itself: `registry.py` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.servers.lmi import settings as model_settings
from penstock.servers.lmi.discovery import model_name, nested
from penstock.servers.lmi.errors import BadRequest, LmiError, MethodNotAllowed, ModelNotFound, TooLarge, Unavailable
from penstock.servers.lmi.registry import Entry, LoadError, Models
from penstock.servers.lmi.replies import Reply, json_reply
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.lmi.words import SettingsError

MOST_ARGUMENTS = 1024 * 1024
"""Bytes of what registers a model."""
_KEYS = {"batch_size": "batch_size", "max_batch_delay": "max_batch_delay", "job_queue_size": "job_queue_size"}
_KEYS |= {"min_worker": "minWorkers", "max_worker": "maxWorkers", "engine": "engine"}


class LoadFailed(LmiError):
    """A model given to POST /models can't be loaded."""

    status = 400
    type = "ModelException"


class Management:
    """The management API over a server's models."""

    def __init__(self, models: Models, environ: Mapping[str, str], version: tuple[int, int]) -> None:
        self._models = models
        self._environ = environ
        self._version = version

    async def handle(
        self, method: str, segments: list[str], query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Reply:
        """Answer one request; `segments` follow `/models/`. Raises LmiError."""
        name, version = (*segments, "", "")[:2]
        match method, bool(name):
            case "GET", False:
                return self._list(query)
            case "POST", False:
                return await self._register(_arguments(query, headers, body))
            case "GET", True:
                return self._describe(name, version)
            case "PUT", True:
                return await self._scale(name, version, query)
            case "DELETE", True:
                await self._models.unregister(name, version)
                return json_reply({"status": f'Model or workflow "{name}" unregistered'})
            case _:
                raise MethodNotAllowed

    async def handle_workflow(
        self, method: str, segments: list[str], query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Reply:
        """The same of `/workflows/`: every model is a workflow of one, and there are no others. Raises LmiError."""
        if segments and segments[0]:
            return await self.handle(method, segments, query, headers, body)
        if method == "POST":
            raise BadRequest("Workflows can't be registered: register each model by POST /models.")
        if method != "GET":
            raise MethodNotAllowed
        page, entries = self._page(query)
        workflows = [{"workflowName": entry.settings.name, **_version(entry)} for entry in entries]
        return json_reply({**page, "workflows": workflows})

    def _describe(self, name: str, version: str) -> Reply:
        """Every version, or the one that is named."""
        if found := self._models.versions(name, version):
            return json_reply([describe(entry) for entry in found])
        if self._models.versions(name):  # twice, as the original says it
            raise ModelNotFound(f"Workflow not found: Workflow not found: {name}/{version}")
        raise ModelNotFound(f"Workflow not found: {name}")

    def _list(self, query: Mapping[str, str]) -> Reply:
        page, entries = self._page(query)
        models = [
            {"modelName": entry.settings.name, **_version(entry), "modelUrl": entry.url, "status": entry.status}
            for entry in entries
        ]
        return json_reply({**page, "models": models})

    def _page(self, query: Mapping[str, str]) -> tuple[dict[str, Any], list[Entry]]:
        """What leads to the next page, and this one's entries: pages count names, and each has all its versions."""
        page, names = paginated(self._models.names(), query)
        return page, [entry for name in names for entry in self._models.versions(name)]

    async def _register(self, arguments: Mapping[str, str]) -> Reply:
        url = arguments.get("url")
        if not url:
            raise BadRequest("Parameter url is required.")
        directory = nested(Path(url.removeprefix("file://")))
        if not directory.is_dir():
            raise BadRequest(f"{url} is not a directory of this server.")
        name = arguments.get("model_name") or model_name(directory)
        for given in ("model_name", name), ("model_version", arguments.get("model_version", "")):
            if not given[1].isprintable() or len(given[1]) > 256:
                raise BadRequest(f"{given[0]} must be at most 256 printable characters.")
        try:
            settings = self._settings(name, directory, arguments)
            settings = replace(settings, model_version=arguments.get("model_version", ""))
            if arguments.get("synchronous", "true").lower() == "false":
                self._models.schedule(settings, url)
                return json_reply({"status": f'Model "{name}" registration scheduled.'}, 202)
            await self._models.register(settings, url)
        except (SettingsError, LoadError) as error:
            raise LoadFailed(str(error)) from error
        return json_reply({"status": f'Model "{name}" registered.'})

    def _settings(self, name: str, directory: Path, arguments: Mapping[str, str]) -> ModelSettings:
        pairs = model_settings.read_pairs(directory) | {
            key: arguments[argument] for argument, key in _KEYS.items() if argument in arguments
        }
        return model_settings.build(name, directory, pairs, self._environ, self._version)

    async def _scale(self, name: str, version: str, query: Mapping[str, str]) -> Reply:
        """Every version, or the one that is named."""
        least, most = _whole(query, "min_worker", -1), _whole(query, "max_worker", -1)
        if not (found := self._models.versions(name, version)):
            raise ModelNotFound(f"Model or workflow not found: {name}")
        for entry in found:
            if entry.status != "READY" or entry.handler is None:
                raise Unavailable(f"Model or workflow is not ready: {name}")
            await entry.handler.scale(least, most)
        said = f'Workflow "{name}" worker scaled. New Worker configuration min workers:{least} max workers:{most}'
        return json_reply({"status": "\n".join([said] * len(found))})


def describe(entry: Entry) -> dict[str, Any]:
    """One model of `GET /models/{name}`."""
    settings = entry.settings
    workers = [{"id": 1, "startTime": entry.since.isoformat() if entry.since else None, "status": entry.status}]
    group = {"minWorkers": settings.min_workers, "maxWorkers": settings.max_workers, "workers": workers}
    parallel = entry.handler.parallel if entry.handler else 0
    return {
        "workflowName": settings.name,
        **_version(entry),
        "models": [
            {
                "modelName": settings.name,
                "modelUrl": entry.url,
                "batchSize": settings.batch_size,
                "maxBatchDelayMillis": settings.max_batch_delay_ms,
                "queueSize": settings.job_queue_size,
                "requestInQueue": max(0, entry.inside - parallel),
                "status": entry.ping if entry.status == "READY" else entry.status,
                "loadedAtStartup": entry.at_startup,
                "workerGroups": [group],
            }
        ],
    }


def _version(entry: Entry) -> dict[str, str]:
    version = entry.settings.model_version
    return {"version": version} if version else {}


def paginated(names: list[str], query: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What leads to the next page, and this one's names. Raises BadRequest."""
    limit, start = _whole(query, "limit", 100), max(0, _whole(query, "next_page_token", 0))
    end = min(start + (limit if 0 <= limit <= 100 else 100), len(names))
    return {"nextPageToken": str(end)} if end < len(names) else {}, names[start:end]


def _arguments(query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return dict(query)
    if len(body) > MOST_ARGUMENTS:
        raise TooLarge(f"The body has more than {MOST_ARGUMENTS} bytes.")
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    return {str(key): item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f"parameter is invalid number.For input string: {json.dumps(text)}") from None
