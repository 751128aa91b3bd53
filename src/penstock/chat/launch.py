"""Starting the chat page.

Owns the command line of `streamlit run`: port, address, base path. It must never import Streamlit, which is an extra.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

PORT = 6006
"""The port that SageMaker Studio's users know from AWS's streaming example."""

_HERE = Path(__file__).parent


def base_path(port: int) -> str:
    """Where SageMaker Studio shows what listens on `port` of its own machine."""
    return f"jupyter/default/proxy/{port}"


def command(*, port: int = PORT, studio: bool = False, address: str = "127.0.0.1") -> list[str]:
    """The command that serves the page; it runs until it is told to stop, and needs the AWS environment.

    With `studio` the page is served under Studio's base path, whether or not the proxy in front cuts that off, and takes
    WebSockets from other origins: Studio's proxy has a host name of its own, and does the authentication.
    """
    options = {
        "server.port": port,
        "server.address": address,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "theme.primaryColor": "#0f766e",
        "theme.baseRadius": "medium",
    }
    if studio:
        options |= {
            "server.baseUrlPath": base_path(port),
            "server.enableCORS": "false",
            "server.enableXsrfProtection": "false",
        }
    else:
        options |= {"browser.serverAddress": address}
    script = _HERE / ("studio.py" if studio else "app.py")
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "streamlit", "run", str(script), *arguments]


def main(port: int = PORT, studio: bool = False, address: str = "127.0.0.1") -> int:
    """Serves the chat page in the place of this process, until a signal. Returns 1 where Streamlit is not installed."""
    if importlib.util.find_spec("streamlit") is None:
        print("The chat page needs Streamlit: pip install 'penstock[chat]'", file=sys.stderr)
        return 1
    line = command(port=port, studio=studio, address=address)
    sys.stdout.flush()
    sys.stderr.flush()
    return os.execv(line[0], line)  # one process, so that signals reach Streamlit itself
