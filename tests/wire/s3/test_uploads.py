"""S3 uploads in parts, refusals, virtual hosts, presigned URLs and signed chunks, as boto3 and a hand-made request see them."""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import random
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import urllib3
from boto3.s3.transfer import TransferConfig
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from penstock.wire.sigv4 import derive_key
from tests.wire.s3.conftest import MIB, Server, code, leftovers

# Multipart uploads.


def test_boto_uploads_in_parts(s3: Any, bucket: str, rng: random.Random, server: Server) -> None:
    data = rng.randbytes(21 * MIB)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_fileobj(io.BytesIO(data), bucket, "big", ExtraArgs={"Metadata": {"k": "v"}}, Config=config)
    parts = [data[i : i + 5 * MIB] for i in range(0, len(data), 5 * MIB)]
    etag = hashlib.md5(b"".join(hashlib.md5(p).digest() for p in parts)).hexdigest()
    head = s3.head_object(Bucket=bucket, Key="big")
    assert (head["ETag"], head["ContentLength"], head["Metadata"]) == (f'"{etag}-5"', len(data), {"k": "v"})
    sink = io.BytesIO()
    s3.download_fileobj(bucket, "big", sink, Config=config)
    assert sink.getvalue() == data
    second = s3.get_object(Bucket=bucket, Key="big", PartNumber=2)
    assert (second["Body"].read(), second["PartsCount"]) == (parts[1], 5)
    assert os.listdir(server.root / bucket / "uploads") == []
    assert not leftovers(server)


def test_parts_in_any_order_replaced_and_listed(s3: Any, bucket: str, rng: random.Random) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ContentType="text/plain")["UploadId"]
    ids = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    first, last = rng.randbytes(5 * MIB), b"the end"
    etags = {}
    for number, body in ((9, last), (1, b"to be replaced"), (1, first)):
        etags[number] = s3.upload_part(PartNumber=number, Body=body, **ids)["ETag"]
    listed = s3.list_parts(MaxParts=1, **ids)
    assert ([p["PartNumber"] for p in listed["Parts"]], listed["IsTruncated"]) == ([1], True)
    rest = s3.list_parts(PartNumberMarker=listed["NextPartNumberMarker"], **ids)
    assert [(p["PartNumber"], p["Size"]) for p in rest["Parts"]] == [(9, len(last))]
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    wanted = {"Parts": [{"PartNumber": n, "ETag": etags[n]} for n in (1, 9)]}
    s3.complete_multipart_upload(MultipartUpload=wanted, **ids)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["Body"].read(), got["ContentType"]) == (first + last, "text/plain")
    with pytest.raises(ClientError) as caught:
        s3.complete_multipart_upload(MultipartUpload=wanted, **ids)
    assert code(caught) == ("NoSuchUpload", 404)


def test_what_an_upload_refuses(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    ids = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    one, two = (s3.upload_part(PartNumber=n, Body=b"small", **ids)["ETag"] for n in (1, 2))
    for parts, expected in (
        ([{"PartNumber": 1, "ETag": one}, {"PartNumber": 2, "ETag": two}], "EntityTooSmall"),
        ([{"PartNumber": 2, "ETag": two}, {"PartNumber": 1, "ETag": one}], "InvalidPartOrder"),
        ([{"PartNumber": 3, "ETag": one}], "InvalidPart"),
        ([{"PartNumber": 1, "ETag": '"00"'}], "InvalidPart"),
        ([], "MalformedXML"),
    ):
        with pytest.raises(ClientError) as caught:
            s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **ids)
        assert code(caught) == (expected, 400)
    with pytest.raises(ClientError) as caught:
        s3.upload_part(PartNumber=10_001, Body=b"x", **ids)
    assert code(caught) == ("InvalidArgument", 400)
    s3.abort_multipart_upload(**ids)
    for call in (s3.abort_multipart_upload, s3.list_parts):
        with pytest.raises(ClientError) as caught:
            call(**ids)
        assert code(caught) == ("NoSuchUpload", 404)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("CRC32", "COMPOSITE"), ("CRC32", "FULL_OBJECT"), ("CRC64NVME", "FULL_OBJECT"), ("SHA256", "COMPOSITE")],
)
def test_checksums_of_parts_and_of_the_whole(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    created = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind)
    assert (created["ChecksumAlgorithm"], created["ChecksumType"]) == (algorithm, kind)
    ids = {"Bucket": bucket, "Key": "k", "UploadId": created["UploadId"]}
    name, parts, bodies = f"Checksum{algorithm}", [], [b"a" * 5 * MIB, b"bc"]
    for number, body in enumerate(bodies, start=1):
        part = s3.upload_part(PartNumber=number, Body=body, ChecksumAlgorithm=algorithm, **ids)
        parts.append({"PartNumber": number, "ETag": part["ETag"], name: part[name]})
    done = s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, ChecksumType=kind, **ids)
    whole = s3.put_object(Bucket=bucket, Key="whole", Body=b"".join(bodies), ChecksumAlgorithm=algorithm)[name]
    if kind == "FULL_OBJECT":
        assert done[name] == whole
    else:
        assert done[name].endswith("-2")
    assert s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["Body"].read() == b"".join(bodies)


def test_a_part_may_be_a_copy(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=b"0123456789")
    ids = {"Bucket": bucket, "Key": "k", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]}
    part = s3.upload_part_copy(PartNumber=1, CopySource=f"{bucket}/source", CopySourceRange="bytes=2-5", **ids)
    wanted = {"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]}
    s3.complete_multipart_upload(MultipartUpload=wanted, **ids)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2345"
    with pytest.raises(ClientError) as caught:
        s3.upload_part_copy(PartNumber=1, CopySource=f"{bucket}/source", CopySourceRange="bytes=2-99", **ids)
    assert code(caught) == ("NoSuchUpload", 404)


# The edges.


def test_unserved_operations_and_headers_say_so(s3: Any, bucket: str) -> None:
    for call in (s3.get_bucket_policy, s3.get_bucket_encryption):
        with pytest.raises(ClientError) as caught:
            call(Bucket=bucket)
        assert code(caught) == ("NotImplemented", 501)
    for arguments, expected in (
        ({"Tagging": "a=b"}, ("NotImplemented", 501)),
        ({"ACL": "public-read"}, ("AccessControlListNotSupported", 400)),
        ({"Metadata": {"big": "x" * 2100}}, ("MetadataTooLarge", 400)),
    ):
        with pytest.raises(ClientError) as caught:
            s3.put_object(Bucket=bucket, Key="k", Body=b"", **arguments)
        assert code(caught) == expected
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_an_object_over_the_limit(s3: Any, bucket: str, server: Server) -> None:
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"\0" * (64 * MIB + 1))
    assert code(caught) == ("EntityTooLarge", 400)
    assert not leftovers(server)


def test_a_missing_bucket(s3: Any) -> None:
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket="no-such-bucket", Key="k", Body=b"x")
    assert code(caught) == ("NoSuchBucket", 404)
    assert caught.value.response["Error"]["BucketName"] == "no-such-bucket"
    assert caught.value.response["ResponseMetadata"]["HostId"]


def test_virtual_hosts(server: Server, bucket: str) -> None:
    """The Host header of a client for which `BUCKET.s3.REGION.amazonaws.com` leads to us: it is under the signature."""
    server.client().put_object(Bucket=bucket, Key="a/b", Body=b"data")
    names = [f"s3.localhost:{server.port}", "s3.us-east-1.amazonaws.com", "s3.amazonaws.com"]
    for name in names:
        virtual = boto3.client(
            "s3",
            endpoint_url=f"https://{name}",
            region_name="us-east-1",
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret,
            config=Config(s3={"addressing_style": "virtual"}, signature_version="s3v4"),
        )
        url = urlsplit(virtual.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a/b"}))
        assert url.netloc == f"{bucket}.{name}"
        pool: Any = urllib3.PoolManager(ca_certs=server.ca)
        ours = f"{server.scheme}://127.0.0.1:{server.port}{url.path}?{url.query}"
        with pool.request("GET", ours, headers={"Host": url.netloc}, preload_content=False) as answer:
            assert answer.read() == b"data"
        pool.clear()


def test_presigned_urls(server: Server, bucket: str) -> None:
    s3 = server.client(signature_version="s3v4")
    pool: Any = urllib3.PoolManager(ca_certs=server.ca)
    put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"})
    with pool.request("PUT", put, body=b"presigned", preload_content=False) as answer:
        assert answer.status == 200, answer.read()
        answer.read()
    get = s3.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": "k", "ResponseContentType": "text/x"}
    )
    with pool.request("GET", get, preload_content=False) as answer:
        assert (answer.read(), answer.headers["content-type"]) == (b"presigned", "text/x")
    pool.clear()


class _ChunkSigned(S3SigV4Auth):  # type: ignore[misc]
    """botocore's signature over a body whose chunks carry their own."""

    def payload(self, request: Any) -> str:
        return "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


@pytest.mark.parametrize("damage", ["", "data", "signature"])
def test_signed_chunks(server: Server, bucket: str, damage: str) -> None:
    """As the SDKs for Java and Go upload over plain http."""
    data = [b"a" * 70_000, b"b" * 10]
    url = f"{server.scheme}://127.0.0.1:{server.port}/{bucket}/signed"
    headers = {"x-amz-decoded-content-length": str(sum(map(len, data))), "content-encoding": "aws-chunked"}
    asked = AWSRequest("PUT", url, headers=headers)
    _ChunkSigned(Credentials(server.access_key, server.secret), "s3", "us-east-1").add_auth(asked)
    time, seed = asked.headers["X-Amz-Date"], asked.headers["Authorization"].rpartition("Signature=")[2]
    scope = f"{time[:8]}/us-east-1/s3/aws4_request"
    key, previous, body = derive_key(server.secret, time[:8], "us-east-1", "s3"), seed, b""
    for chunk in [*data, b""]:
        digests = f"{hashlib.sha256().hexdigest()}\n{hashlib.sha256(chunk).hexdigest()}"
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{time}\n{scope}\n{previous}\n{digests}"
        previous = hmac.digest(key, text.encode(), "sha256").hex()
        body += b"%x;chunk-signature=%b\r\n%b\r\n" % (len(chunk), previous.encode(), chunk)
    if damage == "data":
        body = body.replace(b"bbb", b"bab")
    elif damage == "signature":
        body = body.replace(previous.encode(), b"0" * 64)
    pool: Any = urllib3.PoolManager(ca_certs=server.ca)
    with pool.request("PUT", url, headers=dict(asked.headers), body=body, preload_content=False) as answer:
        told = answer.read()
        assert (answer.status, b"SignatureDoesNotMatch" in told) == ((403, True) if damage else (200, False)), told
    pool.clear()
    s3 = server.client()
    if damage:
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    else:
        got = s3.get_object(Bucket=bucket, Key="signed")
        assert got["Body"].read() == b"".join(data)
        assert "ContentEncoding" not in got
