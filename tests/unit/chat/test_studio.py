"""The base path is put back where a proxy has cut it off, and only there."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from penstock.chat.studio import BasePath


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("/", "/jupyter/default/proxy/6006/"),
        ("/_stcore/stream", "/jupyter/default/proxy/6006/_stcore/stream"),
        ("/jupyter/default/proxy/6006", "/jupyter/default/proxy/6006"),
        ("/jupyter/default/proxy/6006/_stcore/health", "/jupyter/default/proxy/6006/_stcore/health"),
        ("/jupyter/default/proxy/60061", "/jupyter/default/proxy/6006/jupyter/default/proxy/60061"),
    ],
)
async def test_paths(kind: str, asked: str, served: str) -> None:
    seen: list[str] = []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        assert scope.get("raw_path", served.encode()) == served.encode()

    await BasePath(app, "jupyter/default/proxy/6006")({"type": kind, "path": asked}, None, None)
    assert seen == [served]
