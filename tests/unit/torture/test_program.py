"""A run of the user's program: real processes, ended whatever they do."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from penstock.torture import program
from penstock.torture.program import Run, run
from tests.replicas import alive
from tests.waiting import until


def python(code: str, timeout_s: float = 20.0) -> Run:
    return run([sys.executable, "-c", code], os.environ, timeout_s)


def test_output_and_exit_code_are_kept() -> None:
    done = python("import sys; print('größer'); print('oh', file=sys.stderr); sys.exit(3)")
    assert (done.stdout, done.stderr, done.code, done.endless) == ("größer\n", "oh\n", 3, False)


def test_a_signal_is_a_negative_exit_code() -> None:
    assert python("import os; os.kill(os.getpid(), 11)").code == -11


def test_bytes_that_are_no_text_do_not_hurt() -> None:
    assert python(r"import sys; sys.stdout.buffer.write(b'\xff\r\n')").stdout == "\ufffd\n"


def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "print('half', flush=True)\n"
        "time.sleep(600)\n"
    )
    done = python(code, timeout_s=2.0)
    assert (done.code, done.stdout, done.endless) == (None, "half\n", False)
    assert done.seconds < 20
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not alive(pid), what="the grandchild's end")


def test_a_program_that_ends_while_a_child_holds_its_output_does_not_hold_us_up() -> None:
    begin = time.monotonic()
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('done')"
    )
    done = python(code, timeout_s=50.0)
    assert (done.code, done.stdout) == (0, "done\n")
    assert time.monotonic() - begin < 40


def test_output_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "MOST_OUTPUT", 100_000)
    done = python("while True: print('again and again')")
    assert (done.code, done.endless) == (None, True)
    assert 100_000 < len(done.stdout) < 300_000


def test_a_program_that_closes_its_output_and_works_on_is_waited_for() -> None:
    done = python("import os, time; os.close(1); os.close(2); time.sleep(0.3); os._exit(5)")
    assert done.code == 5


def test_what_is_no_program_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        run([str(tmp_path / "nothing")], os.environ, 5)
