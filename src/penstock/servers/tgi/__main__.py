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
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from penstock.engines import conversion
from penstock.engines.base import EngineError
from penstock.engines.tokenizer import TokenizerError
from penstock.servers import textmodel
from penstock.servers.contract import Contract, fail, log_to_stdout, read_contract, serve
from penstock.servers.generation import Generation
from penstock.servers.textmodel import Wanted
from penstock.servers.tgi import settings as launcher
from penstock.servers.tgi.app import App, StartFailed
from penstock.servers.tgi.errors import TgiError
from penstock.servers.tgi.flags import unheeded
from penstock.servers.tgi.service import Service
from penstock.servers.tgi.settings import Settings, SettingsError
from penstock.servers.unavailable import ModelUnavailable

log = logging.getLogger(__name__)
MOST_BATCHED_TOKENS = 512
"""However many MAX_BATCH_PREFILL_TOKENS allows, on a processor: a longer step would hold up the streams that are running."""


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
    if ignored := [*unheeded(os.environ), *launcher.too_new(os.environ, settings.level)]:
        log.warning("%s: set, and it changes nothing here at level %s", ", ".join(ignored), settings.level)
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
        conversion.stop_all()
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
        loaded = await textmodel.load(_wanted(settings), environ)
    except (ModelUnavailable, EngineError, TokenizerError) as error:
        raise StartFailed(str(error)) from error
    engine, tokenizer = loaded.engine, loaded.tokenizer
    try:
        log.info("model %s is %s", settings.model_id, loaded.served)
        within = settings.within(engine.info.max_positions, encoder_decoder=tokenizer.config.encoder_decoder)
        service = Service(Generation(tokenizer, engine), within, random.SystemRandom())
        await service.warm_up()
    except TgiError as error:
        await engine.close()
        raise StartFailed(str(error)) from error
    except BaseException:
        await engine.close()
        raise
    return service


def _wanted(settings: Settings) -> Wanted:
    return Wanted(
        model_id=settings.model_id,
        revision=settings.revision,
        asked=settings.asked,
        speculate=settings.speculate,
        max_batch_size=settings.max_batch_size or max(settings.max_concurrent_requests, 1),  # one warms up
        max_batched_tokens=settings.max_batch_prefill_tokens,
        most_batched_tokens_on_cpu=MOST_BATCHED_TOKENS,
        max_queue=settings.max_concurrent_requests + 1,
        prefix_cache=not settings.exact_prefill,
        adapters=settings.adapters,
    )


if __name__ == "__main__":
    main()
