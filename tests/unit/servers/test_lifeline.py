from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from tests.replicas import PYTHONPATH, alive
from tests.waiting import until

PARENT = textwrap.dedent(
    """
    import os, subprocess, sys
    child = (
        "import sys, time; from penstock.servers.lifeline import die_with_parent;"
        "die_with_parent(int(sys.argv[1])); print('up', flush=True); time.sleep(60)"
    )
    p = subprocess.Popen([sys.executable, "-c", child, str(os.getpid())], stdout=subprocess.PIPE)
    print(p.stdout.readline().decode().strip(), p.pid, flush=True)
    p.wait()
    """
)


def test_a_child_dies_with_its_parent() -> None:
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        said, number = parent.stdout.readline().split()
        child = int(number)
        assert said == b"up"
        assert alive(child)
        parent.kill()
    until(lambda: not alive(child))


def test_a_child_whose_parent_is_already_gone_ends() -> None:
    code = "from penstock.servers.lifeline import die_with_parent; die_with_parent(1); print('still here')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=20, env={**os.environ, "PYTHONPATH": PYTHONPATH}
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
