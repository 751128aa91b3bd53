"""The page behind a proxy such as SageMaker Studio's, some of which cut the base path off, and some of which do not.

Owns the putting back of the base path. `streamlit run` finds `app` here and serves it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import streamlit
from starlette.middleware import Middleware
from streamlit import config

_App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


class BasePath:
    """ASGI middleware: a path that does not start with the base path gets it."""

    def __init__(self, app: _App, base: str) -> None:
        self._app = app
        self._base = "/" + base.strip("/")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] in ("http", "websocket") and path != self._base and not path.startswith(self._base + "/"):
            scope = {**scope, "path": self._base + path, "raw_path": (self._base + path).encode()}
        await self._app(scope, receive, send)


app = streamlit.App(
    Path(__file__).with_name("app.py"),
    middleware=[Middleware(BasePath, base=config.get_option("server.baseUrlPath"))],
)
