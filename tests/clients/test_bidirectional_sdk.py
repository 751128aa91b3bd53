"""AWS's own SDK for bidirectional streams. It trusts the system's CAs alone, so it runs where ours is one of them: in a mount namespace."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import ENVIRONMENTS, RunProgram
from tests.running import Penstock

TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")
_PYTHON = ENVIRONMENTS / "bidirectional" / "bin" / "python"


def _can_mount() -> bool:
    try:
        return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(
    not _PYTHON.exists(), reason="AWS's SDK for bidirectional streams needs Python 3.12, and there is none here"
)
@pytest.mark.skipif(not TRUSTED.exists(), reason=f"{TRUSTED} is not where this system keeps its CAs")
@pytest.mark.skipif(not _can_mount(), reason="a mount namespace needs root")
def test_a_conversation(penstock: Penstock, run_program: RunProgram) -> None:
    penstock.cli("deploy", "scripted", "--name", "echo")
    bundle = penstock.home / "tls" / "bundle.pem"
    trusting = ["unshare", "--mount", "sh", "-c", f'mount --bind "{bundle}" {TRUSTED} && exec "$@"', "sh"]
    seen = run_program("bidirectional", "bidirectional_sdk.py", "echo", before=trusting, timeout_s=120)
    assert seen == {"heard": "onetwo", "types": ["UTF8"], "refused": "NO_SUCH_ENDPOINT"}
