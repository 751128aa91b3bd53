"""`python -m penstock.engines --fd=N --parent=PID --model=DIR …`: an engine process, started by `engines/client.py` and nobody else."""

from __future__ import annotations

import signal
import sys
from collections import deque

from penstock.engines.base import Sampling, Submit
from penstock.engines.options import EngineOptions
from penstock.engines.process import LoadError, Stepper, inherited_socket, last_line, run


def load(options: EngineOptions) -> Stepper:
    """The engine that the options name. Imported here, so that a front never pays for it."""
    match options.engine:
        case "openvino":
            # The package would import its converter and that one's telemetry: half of its import time.
            sys.modules["openvino.tools"] = None  # type: ignore[assignment]
            from penstock.engines.openvino import OpenVino

            return warmed(OpenVino(options))
        case "transformers":
            try:
                from penstock.engines.transformers_engine import Transformers
            except ImportError as error:
                raise LoadError(f"the transformers engine needs torch and transformers: {error}") from error
            return warmed(Transformers(options))
        case "vllm":
            from penstock.engines.vllm_engine import Vllm

            return warmed(Vllm(options))
    raise LoadError(f"there is no engine named {options.engine}; there are: openvino, transformers, vllm")


def warmed(stepper: Stepper) -> Stepper:
    """Take the first steps now: kernels are chosen and compiled in them, which a user's first token should not wait for."""
    stepper.submit(Submit(0, (0, 0, 0, 0), Sampling(max_new_tokens=2, ignore_eos=True)))
    try:
        while stepper.busy:
            deque(stepper.step(), maxlen=0)
    except Exception as error:
        raise LoadError(f"the engine can't take a first step: {last_line(error)}") from error
    return stepper


def main(arguments: list[str]) -> int:
    descriptor, parent = (int(argument.partition("=")[2]) for argument in arguments[:2])
    # Ctrl-C reaches the whole group; the front decides when its engine ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = inherited_socket(descriptor, parent)
    if sock is None:
        return 0
    options = EngineOptions.parse(arguments[2:])
    with sock:
        return run(sock, lambda: load(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
