"""Endpoints for tests: a scripted model server each, used again where that can't be seen.

Owns which endpoint a test gets and what becomes of it afterwards. Slicing and faults are plans on the endpoint, so that one replica serves
any number of tests with the same script.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock import faultplan
from penstock.cli import endpoints
from penstock.cli.endpoints import Deployment
from penstock.cli.fault import call
from penstock.faultplan import Plan
from penstock.torture.cases import SLICINGS

if TYPE_CHECKING:
    from penstock.pytest_plugin.server import Penstock

Script: TypeAlias = "Mapping[str, Any] | Sequence[Mapping[str, Any]] | Path | str | None"
Faults: TypeAlias = "Mapping[str, Any] | Sequence[Mapping[str, Any]] | Plan | str | None"

_ENVIRONMENT_BYTES = 1024  # SageMaker's bound on a variable of the container's
_REMEMBERS = ("die", "ping", "start", "sessions", "ignore_sigterm")
"""Members of a script that make a replica differ from a fresh one."""


class Endpoint(str):
    """An endpoint's name, as the SDK's `EndpointName` takes it."""

    __slots__ = ("_penstock",)
    _penstock: Penstock

    @classmethod
    def of(cls, name: str, penstock: Penstock) -> Endpoint:
        """The endpoint of this name."""
        made = cls(name)
        made._penstock = penstock
        return made

    def plan(self, plan: Plan) -> None:
        """Let its streams go by this plan from the next request on."""
        call(self._penstock.running, "PUT", self, faultplan.render(plan))


class Factory:
    """What the fixture `endpoint` gives a test."""

    def __init__(self, penstock: Penstock, slicing: str, seed: int) -> None:
        self._penstock, self._slicing, self._seed = penstock, slicing, seed
        self._used: list[tuple[Endpoint, str | None]] = []

    def __call__(self, *, script: Script = None, faults: Faults = None, name: str = "") -> Endpoint:
        """An endpoint InService that streams `script` (docs/scripted.md; its steps will do; without one it echoes) under `faults`.

        `faults` is a plan of docs/hostile.md: a mapping, its faults alone, JSON or words. Raises ValueError on a plan that is none,
        RuntimeError where the endpoint Failed, with the reason.
        """
        text, plan = script_text(script), plan_of(faults)
        if self._slicing:
            plan = replace(plan, slicing=SLICINGS[self._slicing])
        if plan.seed is None:
            plan = replace(plan, seed=self._seed)
        idle = self._penstock.idle.get(text, []) if not name else []
        made = Endpoint.of(idle.pop() if idle else self._deploy(name, text), self._penstock)
        self._used.append((made, None if name or not _reusable(text) else text))
        if not plan.off or plan.allow_header:
            made.plan(plan)
        return made

    def _deploy(self, name: str, text: str) -> str:
        server = self._penstock.running
        if not name:
            self._penstock.made += 1
            name = f"scripted-{self._penstock.made}"
        deployment = Deployment(name, "penstock/scripted", {"PENSTOCK_SCRIPT": text} if text else {})
        if len(text.encode()) > _ENVIRONMENT_BYTES:
            data = endpoints.upload_artifact(server, name, {"script.json": text})
            deployment = Deployment(name, "penstock/scripted", model_data=data)
        endpoints.create(server, deployment)
        seen = endpoints.wait(server, name, lambda _: None, deadline_s=60)
        if seen["EndpointStatus"] != "InService":
            endpoints.remove(server, name)
            raise RuntimeError(f"{name} is {seen['EndpointStatus']}: {seen.get('FailureReason', 'no reason given')}")
        return name

    def close(self) -> None:
        """Put back what the next test may use, without its plan; remove the others."""
        from botocore.exceptions import ClientError

        while self._used:
            made, text = self._used.pop()
            try:
                if text is not None:
                    call(self._penstock.running, "DELETE", made)
                    self._penstock.idle.setdefault(text, []).append(str(made))
                else:
                    endpoints.remove(self._penstock.running, made)
            except ClientError:  # the test has removed it
                continue


def script_text(script: Script) -> str:
    """A script as JSON; "" for none, which echoes."""
    if script is None:
        return ""
    if isinstance(script, Path):
        return script.read_text(encoding="utf-8")
    if isinstance(script, str):
        return script
    document = script if isinstance(script, Mapping) else {"steps": list(script)}
    return json.dumps(document, ensure_ascii=False)


def plan_of(faults: Faults) -> Plan:
    """A plan, from any of the ways to write one. Raises ValueError."""
    if faults is None:
        return Plan()
    if isinstance(faults, Plan):
        return faults
    if isinstance(faults, str):
        return faultplan.parse(faults)
    document = faults if isinstance(faults, Mapping) else {"faults": list(faults)}
    return faultplan.parse(json.dumps(document))


def _reusable(text: str) -> bool:
    """Whether a replica with this script is the same after a test as before."""
    try:
        document = json.loads(text or "{}")
    except ValueError:
        return False
    remembers = isinstance(document, dict) and any(member in document for member in _REMEMBERS)
    return not remembers and '"exit"' not in text
