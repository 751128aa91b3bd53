"""Tapes: a recorded stream as lines of JSON.

Owns the form, what can be done to a tape, and what a replay of it needs. Pure: bytes in, values out. It must never know a gateway or
make a request: `penstock record` does that, and a replay is served by `servers/replay`.
"""

from penstock.tape.form import Edge, Failure, Head, Line, Part, Request, TapeError, problems, read, write
from penstock.tape.whole import Tape, diff, load, scrub, trim

__all__ = [
    "Edge",
    "Failure",
    "Head",
    "Line",
    "Part",
    "Request",
    "Tape",
    "TapeError",
    "diff",
    "load",
    "problems",
    "read",
    "scrub",
    "trim",
    "write",
]
