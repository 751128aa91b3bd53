"""A gateway worker that has never heard of fault plans, for comparison: `python -m penstock.bench.hostile_absent`.

Owns the one difference: requests are dispatched without a look at plans. It must never be used but by the benchmark.
"""

from __future__ import annotations

import sys

from penstock.gateway import dispatch
from penstock.gateway.__main__ import main
from penstock.gateway.authenticate import Admission
from penstock.gateway.exchange import Client, Exchange
from penstock.gateway.head import Head


def invocation(client: Client, head: Head, request_id: str, admission: Admission, name: str, step: str) -> Exchange:
    client.trace.operation = dispatch._NAMES[step]
    return dispatch._OPERATIONS[step](client, head, request_id, admission, name)


if __name__ == "__main__":
    dispatch._invocation = invocation
    sys.exit(main())
