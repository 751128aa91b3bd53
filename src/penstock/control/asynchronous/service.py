"""InvokeEndpointAsync's request: read, checked, kept, answered with 202.

Owns the operation's headers and their limits. It must never wait for an inference.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpointAsync.html
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penstock.control.asynchronous.jobs import Job, Jobs
from penstock.control.asynchronous.locations import object_url
from penstock.control.asynchronous.runner import MAX_QUEUED, Runner
from penstock.control.sagemaker.names import ENDPOINT
from penstock.control.service import Allow, Caller, allow_all, caller_of, internal_failure, read_request, to_starlette
from penstock.control.store import Store
from penstock.errors import AwsError
from penstock.wire import restjson
from penstock.wire.messages import WireRequest, WireResponse

log = logging.getLogger(__name__)
INLINE_BYTES = 128_000
DEFAULT_CONCURRENCY = 4
"""Requests in flight per instance where the config names no number: AWS "chooses an optimal value"."""
LONGEST_LOCATION = 1024
_PATH = re.compile(r"/endpoints/([^/]+)/async-invocations\Z")
_OURS = "x-amzn-sagemaker-"
_HEADERS = {
    "content-type": ("Content-Type", 1024),
    "accept": ("Accept", 1024),
    "custom-attributes": ("X-Amzn-SageMaker-Custom-Attributes", 1024),
    "inference-id": ("X-Amzn-SageMaker-Inference-Id", 64),
}
_EXTENSION = re.compile(r"(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]{1,512}")
_FILENAME = re.compile(r"(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9-_.]{0,31}")


class AsyncInference:
    """`clock` is epoch seconds; the jobs are prepared."""

    def __init__(
        self, store: Store, jobs: Jobs, runner: Runner, clock: Callable[[], float], allow: Allow = allow_all
    ) -> None:
        self._store, self._jobs, self._runner, self._clock, self._allow = store, jobs, runner, clock, allow

    async def handle(self, request: Request) -> Response:
        """Answers one request; every failure is an answer in the runtime's shape."""
        caller = caller_of(request)
        try:
            answer = await self._accept(caller, await read_request(request, 2 * INLINE_BYTES, "rest-json"))
        except AwsError as error:
            answer = restjson.render_error(error, caller.request_id)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("asynchronous request %s failed", caller.request_id)
            answer = restjson.render_error(internal_failure(), caller.request_id)
        return to_starlette(answer)

    async def _accept(self, caller: Caller, request: WireRequest) -> WireResponse:
        match = _PATH.match(request.path)
        if match is None or request.method != "POST":
            raise AwsError("UnknownOperationException", "This path has no operation.", status=404)
        name = unquote(match[1])
        arn = ENDPOINT.arn(caller, name)
        self._allow(caller, [("sagemaker:InvokeEndpointAsync", arn)])
        found = await self._store.run(lambda t: t.endpoint(arn))
        if found is None or found.name != name:  # the case of a name is kept, and must be matched
            raise _invalid(f"Endpoint {name} of account {caller.account} not found.", "NO_SUCH_ENDPOINT")
        config = found.fleet.asynchronous
        if not config:
            raise _invalid(f"Endpoint {name} does not support this inference type.", "VALIDATION_ERROR")
        if len(self._runner) >= MAX_QUEUED:
            text = "Too many asynchronous requests are waiting. Send the request again later."
            raise AwsError("ServiceUnavailable", text, status=503, members={"ErrorCode": "QUEUE_FULL"})
        job = self._job(caller, found.name, request, config)
        await asyncio.to_thread(self._jobs.add, job, request.body)
        self._runner.enqueue(job)
        headers = {
            "content-type": "application/json",
            "x-amzn-requestid": caller.request_id,
            "x-amzn-sagemaker-outputlocation": job.output,
        }
        if job.failure:
            headers["x-amzn-sagemaker-failurelocation"] = job.failure
        return WireResponse(202, headers, json.dumps({"InferenceId": job.inference_id}).encode())

    def _job(self, caller: Caller, endpoint: str, request: WireRequest, config: Mapping[str, object]) -> Job:
        given = {k.removeprefix(_OURS): v for k, v in request.headers.items() if k.startswith(_OURS)}
        location = given.get("inputlocation", "")
        if bool(location) == bool(request.body):
            raise _refused("inputLocation", "Member must be given, or else a body, and not both")
        if len(request.body) > INLINE_BYTES:
            raise _refused("body", f"Member must have length less than or equal to {INLINE_BYTES}")
        if len(location) > LONGEST_LOCATION:
            raise _refused("inputLocation", f"Member must have length less than or equal to {LONGEST_LOCATION}")
        source = object_url(location)
        if location and not source:
            raise _refused("inputLocation", "Member must be the s3:// URI or the https:// URL of an object in S3")
        for name, (_, limit) in _HEADERS.items():
            if len(given.get(name, "")) > limit:
                raise _refused(name, f"Member must have length less than or equal to {limit}")
        job_id, now = str(uuid.uuid4()), self._clock()
        output, failure = _locations(given, config, job_id)
        client = config.get("ClientConfig")
        most = client.get("MaxConcurrentInvocationsPerInstance") if isinstance(client, dict) else None
        return Job(
            id=job_id,
            inference_id=given.get("inference-id") or str(uuid.uuid4()),
            account=caller.account,
            region=caller.region,
            endpoint=endpoint,
            received=now,
            expires=now + _number(given, "requestttlseconds", 60, 21_600, 21_600),
            timeout_s=_number(given, "invocationtimeoutseconds", 1, 3_600, 900),
            concurrency=most or DEFAULT_CONCURRENCY,
            output=output,
            failure=failure,
            input=source,
            headers={wire: given[name] for name, (wire, _) in _HEADERS.items() if name in given},
        )


def _locations(given: Mapping[str, str], config: Mapping[str, object], job_id: str) -> tuple[str, str]:
    """Where output and failure go: AWS's `ID.out` and `ID-error.out`, or the names asked for."""
    wanted = config["OutputConfig"]
    assert isinstance(wanted, dict)
    extension, filename = given.get("s3outputpathextension", ""), given.get("filename", "")
    if extension and not _EXTENSION.fullmatch(extension):
        raise _refused("s3OutputPathExtension", f"Member must satisfy regular expression pattern: {_EXTENSION.pattern}")
    if filename and not _FILENAME.fullmatch(filename):
        raise _refused("filename", f"Member must satisfy regular expression pattern: {_FILENAME.pattern}")
    folder = f"/{extension.strip('/')}" if extension.strip("/") else ""
    output = f"{wanted['S3OutputPath'].rstrip('/')}{folder}/{filename or f'{job_id}.out'}"
    failures = wanted.get("S3FailurePath", "")
    return output, f"{failures.rstrip('/')}{folder}/{job_id}-error.out" if failures else ""


def _number(given: Mapping[str, str], name: str, least: int, most: int, default: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise _refused(name, f"Member must be between {least} and {most}")
    return int(text)


def _refused(member: str, rule: str) -> AwsError:
    text = f"1 validation error detected: Value at '{member}' failed to satisfy constraint: {rule}"
    return _invalid(text, "VALIDATION_ERROR")


def _invalid(text: str, code: str) -> AwsError:
    return AwsError("ValidationError", text, members={"ErrorCode": code})
