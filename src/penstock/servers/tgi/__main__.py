"""`python -m penstock.servers.tgi`: a replica that speaks text-generation-inference's contract.

Owns the order of start-up: settings, model, engine, one warm-up token, then the port. Whatever fails before is the endpoint's
FailureReason; while it loads, connections are refused, as with the original.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from penstock.engines.base import EngineError
from penstock.engines.client import EngineProcess
from penstock.engines.options import EngineOptions
from penstock.engines.tokenizer import TextTokenizer, TokenizerError
from penstock.servers import models
from penstock.servers.contract import Contract, fail, log_to_stdout, read_contract, serve
from penstock.servers.generation import Generation
from penstock.servers.tgi import settings as launcher
from penstock.servers.tgi.app import App, StartFailed
from penstock.servers.tgi.errors import TgiError
from penstock.servers.tgi.service import Service
from penstock.servers.tgi.settings import Settings, SettingsError

log = logging.getLogger(__name__)
MOST_BATCHED_TOKENS = 512
"""However many MAX_BATCH_PREFILL_TOKENS allows: a longer step would hold up the streams that are running."""


def main() -> None:
    """Serve until SIGTERM. A failure is in the termination log, and the exit status is not 0."""
    log_to_stdout()
    try:
        contract = read_contract()
    except ValueError as error:
        fail(str(error), contract=Contract())
    try:
        settings = launcher.read(os.environ, contract.version, contract.image_uri)
    except SettingsError as error:
        fail(str(error), contract=contract)
    for note in settings.notes:
        log.warning("%s", note)
    app = App(lambda: unless_stopped(start(settings, os.environ)))
    origins = list(settings.cors_allow_origin)
    try:
        serve(
            CORSMiddleware(app, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["content-type"]),
            contract,
        )
    except SystemExit:
        if app.failure:
            fail(app.failure, contract=contract)
        raise


async def unless_stopped(starting: Coroutine[Any, Any, Service]) -> Service:
    """Let SIGTERM end a start-up, which may take minutes: the server itself heeds it only once it serves. Raises StartFailed."""
    loop, task = asyncio.get_running_loop(), asyncio.create_task(starting)

    def stop(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        await asyncio.wait({task})
    finally:
        signal.signal(signal.SIGTERM, before)
        task.cancel()
    if task.cancelled():
        raise StartFailed("the server was stopped while it was loading the model")
    return task.result()


async def start(settings: Settings, environ: Mapping[str, str]) -> Service:
    """Load the model and try it. Raises StartFailed."""
    try:
        directory = await asyncio.to_thread(models.resolve, settings.model_id, settings.revision, environ)
        engine = await EngineProcess.start(_options(settings, directory))
    except (models.ModelUnavailable, EngineError) as error:
        raise StartFailed(str(error)) from error
    try:
        tokenizer = await asyncio.to_thread(TextTokenizer.load, directory)
        info = engine.info
        log.info(
            "model %s is served by the %s engine in %s on %s", settings.model_id, info.name, info.dtype, info.device
        )
        service = Service(Generation(tokenizer, engine), settings.within(info.max_positions), random.SystemRandom())
        await service.warm_up()
    except (TokenizerError, TgiError) as error:
        await engine.close()
        raise StartFailed(str(error)) from error
    except BaseException:
        await engine.close()
        raise
    return service


def _options(settings: Settings, directory: Path) -> EngineOptions:
    return EngineOptions(
        model=directory,
        engine=settings.engine,
        dtype=settings.dtype,
        max_batch_size=settings.max_batch_size or settings.max_concurrent_requests,
        max_batched_tokens=min(settings.max_batch_prefill_tokens or MOST_BATCHED_TOKENS, MOST_BATCHED_TOKENS),
        max_queue=settings.max_concurrent_requests + 1,
        prefix_cache=not settings.exact_prefill,
    )


if __name__ == "__main__":
    main()
