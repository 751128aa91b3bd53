"""A gateway worker that has never heard of fault plans, for comparison: `python -m penstock.bench.hostile_absent`.

Owns the one difference: requests are dispatched without a look at plans. It must never be used but by the benchmark.
"""

from __future__ import annotations

import sys
from urllib.parse import unquote

from penstock.gateway import dispatch
from penstock.gateway.__main__ import main
from penstock.gateway.authenticate import Admission
from penstock.gateway.exchange import Client, Exchange
from penstock.gateway.head import Head


def invocation(client: Client, head: Head, request_id: str, admission: Admission) -> Exchange:
    match = dispatch._INVOKE.match(head.path)
    assert match is not None, "the benchmark's requests are right"
    return dispatch._OPERATIONS[match[2]](client, head, request_id, admission, unquote(match[1]))


if __name__ == "__main__":
    dispatch._invocation = invocation
    sys.exit(main())
