"""The README's program runs as it is printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.running import Penstock

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_five_lines_of_boto3(penstock: Penstock) -> None:
    program = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]
    penstock.cli("deploy", "tgi", "--name", "falcon")
    done = penstock.cli("run", "--", sys.executable, "-c", program)
    events = [line for line in done.stdout.splitlines() if line]
    assert events
    assert all(line.startswith("data:") for line in events)
    penstock.cli("rm", "falcon")
