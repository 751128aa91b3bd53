"""The condition keys that every request has.

Owns their names and values. It must never read a clock or a socket: what they say is handed in.
AWS: "AWS global condition context keys".
"""

from __future__ import annotations

from datetime import UTC, datetime


def of_request(
    caller_arn: str, account: str, region: str, *, now: float, source_ip: str, secure: bool
) -> dict[str, str]:
    """By AWS's names. `now` is epoch seconds; `source_ip` may be empty where it is not known, and then there is no such key."""
    context = {
        "aws:PrincipalArn": _principal(caller_arn),
        "aws:PrincipalAccount": account,
        "aws:PrincipalType": "AssumedRole" if ":assumed-role/" in caller_arn else "User",
        "aws:RequestedRegion": region,
        "aws:CurrentTime": datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "aws:EpochTime": str(int(now)),
        "aws:SecureTransport": "true" if secure else "false",
    }
    if source_ip:
        context["aws:SourceIp"] = source_ip
    return context


def _principal(arn: str) -> str:
    """Of an assumed role's session AWS names the role."""
    head, found, rest = arn.partition(":assumed-role/")
    if not found:
        return arn
    return f"{head.replace(':sts:', ':iam:')}:role/{rest.partition('/')[0]}"
