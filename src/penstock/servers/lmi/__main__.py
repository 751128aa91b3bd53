"""`python -m penstock.servers.lmi`: a replica that speaks DJL Serving's contract.

Owns the order of start-up: settings, models, then the port; whatever fails before is the endpoint's FailureReason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from penstock.servers.contract import Contract, fail, log_to_stdout, read_contract, serve
from penstock.servers.lmi import memory, serverconfig
from penstock.servers.lmi import settings as model_settings
from penstock.servers.lmi.app import App
from penstock.servers.lmi.discovery import NothingToServe, discover
from penstock.servers.lmi.load import load
from penstock.servers.lmi.management import Management
from penstock.servers.lmi.metrics import Metrics
from penstock.servers.lmi.registry import Handler, Models
from penstock.servers.lmi.reported import Reported
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.lmi.words import SettingsError


def main() -> None:
    """Serve until SIGTERM. A failure is in the termination log, and the exit status is not 0."""
    log_to_stdout()
    try:
        contract = read_contract()
    except ValueError as error:
        fail(str(error), contract=Contract())
    environ = dict(os.environ)
    version = model_settings.server_version(contract.version)
    app = build(contract, environ, _read_all(contract, environ, version), version)
    try:
        serve(app, contract)
    except SystemExit:
        if app.failure:
            fail(app.failure, contract=contract)
        raise


def build(
    contract: Contract, environ: Mapping[str, str], startup: list[ModelSettings], version: tuple[int, int]
) -> App:
    """The application, which loads `startup` when it starts."""

    try:
        config = serverconfig.read(environ, version)
    except SettingsError as error:
        fail(str(error), contract=contract)
    reported = Reported()
    lines = reported.line if config.prometheus and version >= (0, 27) else None

    async def load_if_there_is_room(settings: ModelSettings) -> Handler:
        memory.admit(settings)
        return await load(settings, environ, lines)

    models = Models(load_if_there_is_room)

    async def start() -> None:
        for settings in startup:
            if config.wait_model_loading:
                await models.register(settings, settings.directory.as_uri(), at_startup=True)
            else:
                models.schedule(settings, settings.directory.as_uri(), at_startup=True)

    return App(models, Management(models, environ, version), start, config, Metrics(reported))


def _read_all(contract: Contract, environ: Mapping[str, str], version: tuple[int, int]) -> list[ModelSettings]:
    if contract.multi_model:  # they come one by one, through /models
        return []
    try:
        found = discover(contract.model_dir.absolute(), environ)
        return [
            replace(model_settings.read(item.name, item.directory, environ, version), model_version=item.version)
            for item in found
        ]
    except (NothingToServe, SettingsError) as error:
        fail(str(error), contract=contract)


if __name__ == "__main__":
    main()
