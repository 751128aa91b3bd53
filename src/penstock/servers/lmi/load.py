"""From settings to a handler that answers.

Owns which handler a model gets, and the line that says so. It must never decide what a key's value means: `settings.py` has.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from pathlib import Path

from penstock.engines.base import EngineError
from penstock.engines.chattemplate import ChatTemplate, TemplateError
from penstock.engines.tokenizer import TextTokenizer, TokenizerError
from penstock.servers import adapters, models, textmodel
from penstock.servers.adapters import Adapter
from penstock.servers.generation import Generation
from penstock.servers.lmi import requirements
from penstock.servers.lmi.djl_python.session_manager import SessionManager
from penstock.servers.lmi.formatterhost import FormatterHost
from penstock.servers.lmi.handleradapters import HandlerAdapters
from penstock.servers.lmi.loras import Adapters
from penstock.servers.lmi.output import Lines
from penstock.servers.lmi.plain import Stepped, WholeAnswer
from penstock.servers.lmi.process import Command, HandlerFailed, Worker
from penstock.servers.lmi.registry import Handler, LoadError
from penstock.servers.lmi.requirements import RequirementsError
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.lmi.text import RollingBatch
from penstock.servers.lmi.unheeded import unheeded
from penstock.servers.lmi.workers import HandlerPool
from penstock.servers.textmodel import Wanted

log = logging.getLogger(__name__)

ADAPTER_API = (0, 28)
"""Adapters may be managed from this version on."""


async def load(settings: ModelSettings, environ: Mapping[str, str], lines: Lines | None = None) -> Handler:
    """Load one model. `lines` is shown what its own code says. Raises LoadError."""
    if settings.strange_keys:
        log.warning("model %s: %s", settings.name, strange(settings.strange_keys))
    try:
        if settings.entry_point:
            return await _load_handler(settings, environ, lines)
        return await _load_text(settings, environ, lines)
    except (models.ModelUnavailable, EngineError, TokenizerError, RequirementsError, HandlerFailed) as error:
        raise LoadError(str(error)) from error


async def _load_handler(settings: ModelSettings, environ: Mapping[str, str], lines: Lines | None) -> Handler:
    command = await _command(settings, environ, lines)
    properties = await asyncio.to_thread(handler_properties, settings, environ)
    log.info("model %s: engine=%s is served by the handler %s", settings.name, settings.engine, settings.entry_point)
    if not settings.enable_lora or settings.version < ADAPTER_API:
        return await HandlerPool.start(settings, lambda: Worker.start(settings, command, properties))
    known = await asyncio.to_thread(HandlerAdapters, settings)
    spawn = known.spawning(lambda: Worker.start(settings, command, properties))
    pool = await HandlerPool.start(settings, spawn)
    return await known.kept_by(pool)


async def _command(settings: ModelSettings, environ: Mapping[str, str], lines: Lines | None) -> Command:
    python = await requirements.interpreter(settings, environ)
    # What a script for several processes asks of its environment; here it is one.
    ranks = {} if settings.engine == "Python" else {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}
    libraries = await asyncio.to_thread(requirements.libraries, settings, environ)
    given = {**ranks, **environ, "PYTHONUNBUFFERED": "1", **_given_environ(settings)}
    return Command(python, given, lines, libraries)


def handler_properties(settings: ModelSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """What a handler's first call is given: the options, and where the model lies. Raises ModelUnavailable.

    `model_id` becomes a directory of this machine where it is one, an alias or an `s3://` prefix; a hub id is left to the handler.
    """
    properties = {key: value for key, value in settings.options.items() if key != "env"}
    if settings.model_id and (found := models.local(settings.model_id, environ)):
        properties["model_id"] = str(found)
        properties.pop("s3url", None)
    properties |= {"model_dir": str(settings.directory), "device_id": "-1", "engine": settings.engine}
    properties.setdefault("tensor_parallel_degree", str(settings.tensor_parallel_degree))
    return properties


def _given_environ(settings: ModelSettings) -> dict[str, str]:
    """`option.env`: `NAME=value` pairs with commas between."""
    pairs = (item.partition("=") for item in settings.options.get("env", "").split(","))
    return {name.strip(): value.strip() for name, separator, value in pairs if separator}


async def _load_text(settings: ModelSettings, environ: Mapping[str, str], lines: Lines | None) -> Handler:
    startup = await asyncio.to_thread(_adapters, settings, environ)
    wanted = Wanted(
        model_id=settings.model_id or str(settings.directory),
        revision=settings.revision,
        asked=settings.asked,
        speculate=settings.speculate,
        draft_model=settings.draft_model,
        max_batch_size=settings.max_rolling_batch_size,
        max_batched_tokens=settings.max_rolling_batch_prefill_tokens,
        max_queue=settings.max_rolling_batch_size + settings.job_queue_size,
        adapters=startup,
        lora=settings.enable_lora and settings.version >= ADAPTER_API,
        gpu_memory=settings.gpu_memory,
        max_loras=settings.max_loras,
        max_lora_rank=settings.max_lora_rank,
    )
    sessions = _sessions(settings)
    loaded = await textmodel.load(wanted, environ, timeout_s=settings.model_loading_timeout_s)
    try:
        template = _template(settings, loaded.tokenizer)
        host = await _formatters(settings, loaded.plan.source, environ, lines)
    except BaseException:
        await loaded.engine.close()
        raise
    log.info("%s is %s", asked_for(settings), loaded.served)
    if ignored := unheeded(settings.options, with_script=bool(settings.formatters)):
        names = ", ".join(f"option.{name}" for name in ignored)
        log.warning("model %s: %s: the server's own text generation has no use for that", settings.name, names)
    generation, rng = Generation(loaded.tokenizer, loaded.engine), random.SystemRandom()
    if settings.rolling_batch:
        return RollingBatch(
            settings, generation, rng, sessions, template, host, Adapters(loaded.engine, startup, environ)
        )
    kind = Stepped if settings.enable_streaming else WholeAnswer
    return kind(settings, generation, rng)


def _adapters(settings: ModelSettings, environ: Mapping[str, str]) -> tuple[Adapter, ...]:
    """Those that lie beside `serving.properties`, or in the model's own directory. Blocking. Raises ModelUnavailable."""
    if not settings.enable_lora:
        if (settings.directory / settings.adapters).is_dir():
            log.warning("the folder %s is not read: option.enable_lora is not true", settings.adapters)
        return ()
    model = models.fetch(settings.model_id or str(settings.directory), settings.revision, environ)
    found = adapters.beside((settings.directory.absolute(), model), settings.adapters)
    if not found:
        later = ", but for those that come later" if settings.version >= ADAPTER_API else ""
        log.warning(
            "option.enable_lora: the folder %s holds no adapters, so there are none%s", settings.adapters, later
        )
    return found


async def _formatters(
    settings: ModelSettings, model: Path, environ: Mapping[str, str], lines: Lines | None
) -> FormatterHost | None:
    """The process of a model.py that formats, if there is one. Raises HandlerFailed, RequirementsError."""
    if not settings.formatters:
        return None
    command = await _command(settings, environ, lines)
    properties = {**await asyncio.to_thread(handler_properties, settings, environ), "model_id": str(model)}
    log.info("model %s: its requests and answers go through %s", settings.name, settings.formatters)
    return await FormatterHost.start(
        lambda: Worker.start(settings, command, properties), float(settings.predict_timeout_s)
    )


def _sessions(settings: ModelSettings) -> SessionManager | None:
    """Where a text model keeps its sessions, if it is to have some. Raises LoadError."""
    if not settings.stateful_sessions:
        return None
    try:
        return SessionManager(settings.options)
    except (OSError, ValueError) as error:
        raise LoadError(f"stateful sessions can't be kept: {error}") from error


def _template(settings: ModelSettings, tokenizer: TextTokenizer) -> ChatTemplate | None:
    """`option.chat_template`: a file of the model's directory, or the template itself. Raises LoadError."""
    if not (given := settings.chat_template):
        return None
    try:
        source = given if "{" in given else (settings.directory / given).read_text(encoding="utf-8")
        return ChatTemplate(source, tokenizer.special_tokens)
    except (OSError, ValueError, TemplateError) as error:
        raise LoadError(f"option.chat_template can't be read: {error}") from error


def strange(keys: tuple[str, ...]) -> str:
    """What becomes of a file's keys that mean nothing, as on AWS: most have lost their `option.`."""
    return f"{', '.join(keys)}: serving.properties has no such keys, and they change nothing; perhaps option.{keys[0]} is meant"


def asked_for(settings: ModelSettings) -> str:
    """The settings which name an engine or a machine, whatever becomes of them: the beginning of the one line that says it."""
    asked = [f"engine={settings.engine}"]
    if settings.rolling_batch:
        asked.append(f"rolling_batch={settings.rolling_batch}")
    if settings.dtype != "auto":
        asked.append(f"dtype={settings.dtype}")
    if settings.quantize:
        asked.append(f"quantize={settings.quantize}")
    if settings.tensor_parallel_degree != 1:
        asked.append(f"tensor_parallel_degree={settings.tensor_parallel_degree or 'max'}")
    return f"model {settings.name}: {', '.join(asked)}"
