"""S3 over HTTP: addressing, the way from a request to its operation, and the sending of objects.

Owns the list of operations that are served. It must never touch a file itself: the store does, in threads.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.control import actions, models
from penstock.control.neighbours.s3 import buckets, errors, multipart, objects
from penstock.control.neighbours.s3.body import DiskThreads, Secrets, Stream, check_whole
from penstock.control.neighbours.s3.exchange import Exchange, S3Operation, refuse_unserved
from penstock.control.neighbours.s3.objects import Source
from penstock.control.neighbours.s3.store import Bucket, ObjectStore
from penstock.control.neighbours.s3.uploads import Uploads
from penstock.control.service import BODY_BYTES, Allow, Caller, allow_all, caller_of, head_of, to_starlette
from penstock.errors import AccessDenied, AwsError
from penstock.wire import restxml
from penstock.wire.messages import WireRequest, WireResponse
from penstock.wire.refusals import denied
from penstock.wire.shapes import OperationModel, ServiceModel

log = logging.getLogger(__name__)
_PIECE = 256 * 1024
_HOST = re.compile(
    r"(?P<bucket>[a-z0-9][a-z0-9.-]+)\.s3"
    r"(?:\.localhost|(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?)(?::\d+)?"
)
OPERATIONS: dict[str, S3Operation] = {
    "CreateBucket": buckets.create_bucket,
    "HeadBucket": buckets.head_bucket,
    "ListBuckets": buckets.list_buckets,
    "DeleteBucket": buckets.delete_bucket,
    "GetBucketLocation": buckets.get_bucket_location,
    "ListObjects": buckets.list_objects,
    "ListObjectsV2": buckets.list_objects_v2,
    "PutObject": objects.put_object,
    "GetObject": objects.get_object,
    "HeadObject": objects.head_object,
    "DeleteObject": objects.delete_object,
    "DeleteObjects": objects.delete_objects,
    "CopyObject": objects.copy_object,
    "CreateMultipartUpload": multipart.create_multipart_upload,
    "UploadPart": multipart.upload_part,
    "UploadPartCopy": multipart.upload_part_copy,
    "CompleteMultipartUpload": multipart.complete_multipart_upload,
    "AbortMultipartUpload": multipart.abort_multipart_upload,
    "ListParts": multipart.list_parts,
    "ListMultipartUploads": multipart.list_multipart_uploads,
}
_STREAMED = frozenset({"PutObject", "UploadPart"})


class S3Service:
    """S3 over one store. `secrets` gives an access key's secret, for bodies whose chunks are signed.

    `idle_s` is how long a client may send nothing in the middle of a body.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        secrets: Secrets = lambda access_key: None,
        object_bytes: int = 5 * 1024**3,
        body_bytes: int = BODY_BYTES,
        idle_s: float = 60.0,
        allow: Allow = allow_all,
    ) -> None:
        self.store = store
        self.uploads = Uploads(store)
        self._secrets = secrets
        self._object_bytes = object_bytes
        self._body_bytes = body_bytes
        self._idle_s = idle_s
        self._allow = allow

    @functools.cached_property
    def model(self) -> ServiceModel:
        """Loaded on first use: an idle server holds no model."""
        return models.load("s3", frozenset(OPERATIONS))

    @functools.cached_property
    def disk(self) -> DiskThreads:
        return DiskThreads()

    async def handle(self, request: Request) -> Response:
        """Answers one request; every failure is S3's `<Error>`."""
        caller, head = caller_of(request), addressed(head_of(request))
        body = Stream(request.stream(), awaited=head.headers.get("expect", "").lower() == "100-continue")
        try:
            operation, labels = restxml.identify(self.model, head)
            return await self._serve(body, caller, head, operation, labels)
        except AwsError as error:
            failure = error
        except ClientDisconnect:
            return Response(status_code=400)
        except OSError as error:
            log.exception("s3: request %s failed", caller.request_id)
            failure = errors.from_os_error(error)
        except Exception:
            log.exception("s3: request %s failed", caller.request_id)
            failure = errors.from_os_error(OSError())
        bare = head.method == "HEAD"
        answer = to_starlette(restxml.render_error(failure, caller.request_id, resource=head.path, bare=bare))
        try:
            if not await body.drain():
                answer.headers["connection"] = "close"
        except ClientDisconnect:
            pass
        return answer

    async def _serve(
        self, body: Stream, caller: Caller, head: WireRequest, operation: OperationModel, labels: Mapping[str, str]
    ) -> Response:
        if operation.name not in _STREAMED:
            head = replace(head, body=await self._read_whole(body, head.headers))
        params = restxml.parse(operation, labels, head)
        refuse_unserved(params)
        self._authorize(caller, operation.name, params)
        await self._check_owner(caller, operation, params)
        exchange = Exchange(
            caller=caller,
            params=params,
            head=head,
            body=body,
            store=self.store,
            uploads=self.uploads,
            disk=self.disk,
            secrets=self._secrets,
            object_bytes=self._object_bytes,
            idle_s=self._idle_s,
        )
        output = await OPERATIONS[operation.name](exchange)
        return _answer(restxml.render(operation, output, caller.request_id), output, self.disk)

    def _authorize(self, caller: Caller, operation: str, params: Mapping[str, Any]) -> None:
        try:
            self._allow(caller, actions.asked("s3", operation, params, caller.region, caller.account))
        except AccessDenied as error:
            raise denied("s3", error.message) from None

    async def _read_whole(self, body: Stream, headers: Mapping[str, str]) -> bytes:
        whole = bytearray()
        while (piece := await body.next(self._idle_s)) is not None:
            whole += piece
            if len(whole) > self._body_bytes:
                raise errors.entity_too_large(len(whole), self._body_bytes)
        check_whole(bytes(whole), headers)
        return bytes(whole)

    async def _check_owner(self, caller: Caller, operation: OperationModel, params: Mapping[str, Any]) -> None:
        """A bucket is its account's alone, and the one that the request expects (`x-amz-expected-bucket-owner`)."""
        if "Bucket" not in params or operation.name == "CreateBucket":
            return
        bucket: Bucket = await self.disk(self.store.bucket, params["Bucket"])
        if bucket.account != caller.account or params.get("ExpectedBucketOwner") not in (None, bucket.account):
            raise errors.access_denied()


def addressed(head: WireRequest) -> WireRequest:
    """The request in path style: the bucket of a virtual host goes in front of the path."""
    match = _HOST.fullmatch(head.headers.get("host", "").lower())
    if match is None:
        return head
    return WireRequest(head.method, f"/{match['bucket']}{head.path}", head.query, head.headers, head.body)


def _answer(answer: WireResponse, output: Mapping[str, Any], disk: DiskThreads) -> Response:
    source = output.get("Body")
    status = 206 if "Content-Range" in answer.headers else answer.status
    if isinstance(source, Source):
        return ObjectResponse(source, status, answer.headers, disk)
    return to_starlette(WireResponse(status, answer.headers, answer.body))


class ObjectResponse(Response):
    """Sends an object in pieces as fast as the client takes them, and closes it however that ends."""

    def __init__(self, source: Source, status: int, headers: Mapping[str, str], disk: DiskThreads) -> None:
        super().__init__(None, status_code=status, headers=dict(headers))
        self._source, self._disk = source, disk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, receive, tasks.cancel_scope)
                await self._send(send)
                tasks.cancel_scope.cancel()
        finally:
            self._source.record.close()

    async def _watch(self, receive: Receive, scope: anyio.CancelScope) -> None:
        """Ends the sending when the client leaves: the server would go on reading the file for nobody."""
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _send(self, send: Send) -> None:
        source = self._source
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        at, end = source.offset, source.offset + source.length
        while at < end:
            piece: bytes = await self._disk(source.record.read, at, min(_PIECE, end - at))
            if not piece:
                raise OSError("a record is shorter than its metadata say")
            at += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
