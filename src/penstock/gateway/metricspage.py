"""`GET /metrics` without a signature: Prometheus does not sign.

Owns who may ask that way: programs on this machine. It must never know a metric; the control process has them.
"""

from __future__ import annotations

from hashlib import sha256

from penstock.gateway.authenticate import Admission, Caller
from penstock.gateway.exchange import Client
from penstock.gateway.head import Head
from penstock.gateway.peers import is_local
from penstock.gateway.relay import Relay
from penstock.routes import AccessKey
from penstock.wire import sigv4

SERVICE = "metrics"
_CLAIM = sigv4.Claim("", "", "", SERVICE, (), "", "", content=sha256().hexdigest())
_NOBODY = Caller(AccessKey("", "", "", ""), "", SERVICE)


def is_asked(client: Client, head: Head) -> bool:
    """Whether this is such a request. A signed one is S3's: a bucket may be named `metrics`."""
    unsigned = "authorization" not in head.headers and "X-Amz-" not in head.query
    return head.path == "/metrics" and head.method in ("GET", "HEAD") and unsigned and is_local(client.transport)


class MetricsPage(Relay):
    __slots__ = ()

    def __init__(self, client: Client, head: Head, request_id: str) -> None:
        request = sigv4.Request(head.method, head.path, "", {})
        super().__init__(client, head, request_id, Admission(request, _CLAIM, sigv4.Key(""), "s3"))

    def _identify(self, body_sha256: str) -> Caller:
        return _NOBODY
