"""Who is calling: a head's signature in two steps, before and after the body.

Owns the passage from a request's head to a verified identity. It must never read a body itself or know what is being asked for.
"""

from __future__ import annotations

import base64
from hashlib import sha256

import msgspec

from penstock._speed import COMPILED
from penstock.errors import AwsError
from penstock.gateway.answers import dialect_of
from penstock.gateway.head import Head
from penstock.gateway.routing import Routes
from penstock.routes import AccessKey
from penstock.wire import refusals, sigv4
from penstock.wire.refusals import Dialect

BEARER = "sagemaker-api-key-"
"""How the tokens of the OpenAI route begin."""
MAX_BEARER_S = 12 * 3600
"""Longest life of such a token."""

_NOTHING = sha256().hexdigest()


class Admission(msgspec.Struct):
    """A request that may send its body: its key exists and its date is right. The signature itself is still to be checked."""

    request: sigv4.Request
    claim: sigv4.Claim
    key: sigv4.Key
    dialect: Dialect
    bearer: bool = False
    """Whether a token stands for the signature: it names a caller, and covers nothing of the request."""

    @property
    def needs_body(self) -> bool:
        """Whether the signature can be checked only with the body's hash."""
        return not self.bearer and sigv4.needs_body(self.claim)

    @property
    def body_hash(self) -> str | None:
        """The hash that the request says its body has, None where it says none."""
        return self.claim.content if sigv4.is_hash(self.claim.content) else None

    def check(self, body_sha256: str = "") -> None:
        """Compares, now that what stands for the body is known. Raises AwsError on a signature that does not hold."""
        payload = self.claim.content or (_NOTHING if self.bearer else body_sha256)
        if not (COMPILED and sigv4.holds_as_usual(self.request, self.claim, self.key, payload)):
            sigv4.check_signature(self.request, self.claim, self.key, payload, self.dialect)

    def wrong_body(self) -> AwsError:
        return refusals.wrong_body(self.dialect)


def admit(head: Head, keys: sigv4.KeyLookup, now: float, skew: float) -> Admission:
    """Checks all that a head tells. Raises AwsError as the service that the head speaks to would answer."""
    dialect = dialect_of(head)
    request = sigv4.Request(head.method, head.path, head.query, head.headers)
    claim = sigv4.read_claim(request, dialect)
    key = sigv4.admit(request, claim, keys=keys, now=now, skew=skew, dialect=dialect)
    return Admission(request, claim, key, dialect)


def admit_bearer(head: Head, keys: sigv4.KeyLookup, now: float, skew: float) -> Admission:
    """The same for `Authorization: Bearer sagemaker-api-key-…`: the token is a presigned request for CallWithBearerToken, in base64.

    AWS's page: "OpenAI-compatible endpoints" of SageMaker's real-time inference.
    """
    dialect: Dialect = "rest-json"
    request = _read_bearer(head.headers["authorization"].partition(" ")[2].strip())
    if request is None:
        raise refusals.unknown_key(dialect, "")
    claim = sigv4.read_claim(request, dialect)
    if claim.expires is None or claim.expires > MAX_BEARER_S or claim.service != "sagemaker":
        raise refusals.malformed_query(dialect, f"A bearer token lives at most {MAX_BEARER_S} seconds.")
    key = sigv4.admit(request, claim, keys=keys, now=now, skew=skew, dialect=dialect)
    return Admission(request, claim, key, dialect, bearer=True)


def _read_bearer(token: str) -> sigv4.Request | None:
    """The presigned request in a token, None where it is none. Its `Version=1` is put behind the signature, not under it."""
    try:
        url = base64.b64decode(token.removeprefix(BEARER), validate=True).decode("ascii")
    except ValueError:
        return None
    host, _, query = url.partition("/?")
    query = query.removesuffix("&Version=1")
    if not token.startswith(BEARER) or "Action=CallWithBearerToken" not in query.split("&"):
        return None
    return sigv4.Request("POST", "/", query, {"host": host})


class Caller(msgspec.Struct, frozen=True):
    """A verified caller: its key, and the region and service that its signature is for."""

    key: AccessKey
    region: str
    service: str


def caller(admission: Admission, routes: Routes) -> Caller:
    """The key and scope of a request whose signature holds. Raises AwsError when the key has been taken away meanwhile."""
    claim = admission.claim
    key = routes.key(claim.access_key)
    if key is None:
        raise refusals.unknown_key(admission.dialect, claim.access_key)
    return Caller(key, claim.region, claim.service)
