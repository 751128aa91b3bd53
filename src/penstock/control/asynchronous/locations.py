"""Where an object is, in either of the forms that `InputLocation` may have.

Owns that one translation. It must never look whether the object is there.
AWS's page: "Methods for accessing an Amazon S3 general purpose bucket", virtual-hosted-style and path-style URLs.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_HOST = r"s3(?:[.-](?:dualstack\.)?[a-z]{2}(?:-[a-z]+)+-\d)?\.amazonaws\.com(?:\.cn)?"
_S3 = re.compile(r"s3://[^/]+/.+", re.DOTALL)
_IN_PATH = re.compile(rf"https://{_HOST}/(?P<bucket>[^/?#]+)/(?P<key>[^?#]+)", re.IGNORECASE)
_IN_HOST = re.compile(rf"https://(?P<bucket>[a-z0-9][a-z0-9.-]*)\.{_HOST}/(?P<key>[^?#]+)", re.IGNORECASE)


def object_url(location: str) -> str:
    """The object's `s3://` URL; empty where `location` names none, or says more than where (a presigned URL's query)."""
    if _S3.fullmatch(location):
        return location
    match = _IN_PATH.fullmatch(location) or _IN_HOST.fullmatch(location)
    return f"s3://{unquote(match['bucket']).lower()}/{unquote(match['key'])}" if match else ""
