"""AWS IAM, as much of it as SageMaker programs call: roles, and whether a principal may do something.

Owns these operations' rules and words. A role here is a name that programs pass around: replicas run as the user who runs Penstock, so
no role forbids anything, and SimulatePrincipalPolicy says so. What an access key may do is `policies.py`'s, and the gateway asks it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from msgspec.structs import replace

from penstock.control.neighbours.roles import Role, RoleStore
from penstock.control.neighbours.sts import unique_id
from penstock.control.service import Caller, Operation
from penstock.errors import AwsError

Params = dict[str, Any]
Output = dict[str, Any]


class Iam:
    """The operations over a store of roles. `clock` gives seconds since 1970."""

    def __init__(self, roles: RoleStore, clock: Callable[[], float]) -> None:
        self._roles = roles
        self._clock = clock

    def operations(self) -> Mapping[str, Operation]:
        return {
            "CreateRole": self._create_role,
            "GetRole": self._get_role,
            "ListRoles": self._list_roles,
            "DeleteRole": self._delete_role,
            "AttachRolePolicy": self._attach_role_policy,
            "DetachRolePolicy": self._detach_role_policy,
            "ListAttachedRolePolicies": self._list_attached_role_policies,
            "SimulatePrincipalPolicy": self._simulate_principal_policy,
        }

    async def _create_role(self, caller: Caller, params: Params) -> Output:
        name, trust = params["RoleName"], params["AssumeRolePolicyDocument"]
        _check_document(trust)
        role = Role(
            account=caller.account,
            name=name,
            created=self._clock(),
            trust=trust,
            path=params.get("Path", "/"),
            description=params.get("Description", ""),
            session_s=params.get("MaxSessionDuration", 3600),
            boundary=params.get("PermissionsBoundary", ""),
            tags={tag["Key"]: tag["Value"] for tag in params.get("Tags", [])},
        )
        if not await asyncio.to_thread(self._roles.add, role):
            raise AwsError("EntityAlreadyExists", f"Role with name {name} already exists.", status=409)
        return {"Role": _shown(role)}

    async def _get_role(self, caller: Caller, params: Params) -> Output:
        return {"Role": _shown(await self._role(caller, params))}

    async def _list_roles(self, caller: Caller, params: Params) -> Output:
        roles = await asyncio.to_thread(self._roles.all, caller.account)
        found = [_shown(role) for role in roles if role.path.startswith(params.get("PathPrefix", "/"))]
        for role in found:
            # A listing leaves these out (AWS: ListRoles).
            role["Tags"] = role["PermissionsBoundary"] = None
        return _page("Roles", found, params)

    async def _delete_role(self, caller: Caller, params: Params) -> Output:
        role = await self._role(caller, params)
        if role.attached:
            raise AwsError("DeleteConflict", "Cannot delete entity, must detach all policies first.", status=409)
        await asyncio.to_thread(self._roles.remove, role)
        return {}

    async def _attach_role_policy(self, caller: Caller, params: Params) -> Output:
        role, policy = await self._role(caller, params), params["PolicyArn"]
        await asyncio.to_thread(self._roles.replace, replace(role, attached=tuple(sorted({*role.attached, policy}))))
        return {}

    async def _detach_role_policy(self, caller: Caller, params: Params) -> Output:
        role, policy = await self._role(caller, params), params["PolicyArn"]
        if policy not in role.attached:
            raise AwsError("NoSuchEntity", f"Policy {policy} was not found.", status=404)
        rest = tuple(arn for arn in role.attached if arn != policy)
        await asyncio.to_thread(self._roles.replace, replace(role, attached=rest))
        return {}

    async def _list_attached_role_policies(self, caller: Caller, params: Params) -> Output:
        role = await self._role(caller, params)
        found = [{"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn} for arn in role.attached]
        return _page("AttachedPolicies", found, params)

    async def _simulate_principal_policy(self, caller: Caller, params: Params) -> Output:
        results = [
            {
                "EvalActionName": action,
                "EvalResourceName": resource,
                "EvalDecision": "allowed",
                "MatchedStatements": [],
                "MissingContextValues": [],
            }
            for action in params["ActionNames"]
            for resource in params.get("ResourceArns") or ["*"]
        ]
        return _page("EvaluationResults", results, params)

    async def _role(self, caller: Caller, params: Params) -> Role:
        name = params["RoleName"]
        role = await asyncio.to_thread(self._roles.get, caller.account, name)
        if role is None:
            raise AwsError("NoSuchEntity", f"The role with name {name} cannot be found.", status=404)
        return role


def _shown(role: Role) -> Output:
    return {
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": unique_id("AROA", role.account, role.name),
        "Arn": role.arn,
        "CreateDate": dt.datetime.fromtimestamp(int(role.created), dt.UTC),
        "AssumeRolePolicyDocument": quote(role.trust, safe=""),
        "Description": role.description or None,
        "MaxSessionDuration": role.session_s,
        "PermissionsBoundary": {
            "PermissionsBoundaryType": "PermissionsBoundaryPolicy",
            "PermissionsBoundaryArn": role.boundary,
        }
        if role.boundary
        else None,
        "Tags": [{"Key": key, "Value": value} for key, value in role.tags.items()] or None,
    }


def _check_document(text: str) -> None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise AwsError("MalformedPolicyDocument", "This policy contains invalid Json")
    if not document.get("Statement"):
        raise AwsError("MalformedPolicyDocument", "Syntax errors in policy.")


def _page(name: str, found: list[Output], params: Params) -> Output:
    marker, most = params.get("Marker", "0"), params.get("MaxItems", 100)
    if not (marker.isascii() and marker.isdigit() and len(marker) < 10):
        raise AwsError("ValidationError", f"Invalid Marker: {marker}")
    end = int(marker) + most
    more = end < len(found)
    return {name: found[int(marker) : end], "IsTruncated": more, "Marker": str(end) if more else None}
