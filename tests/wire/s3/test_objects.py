"""S3 as boto3 sees it, over http and https, path style and virtual host."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.handlers import validate_bucket_name

from tests.penstock_process import ACCESS_KEY
from tests.wire.s3.conftest import MIB, Server, code, leftovers
from tests.wire.serving import ACCOUNT

# Buckets.


def test_buckets_come_and_go(s3: Any, server: Server) -> None:
    name = "bucket.of-dots"
    assert s3.create_bucket(Bucket=name)["Location"] == f"/{name}"
    s3.create_bucket(Bucket=name)  # us-east-1 lets its owner
    head = s3.head_bucket(Bucket=name, ExpectedBucketOwner=ACCOUNT)
    assert head["BucketRegion"] == "us-east-1"
    listed = s3.list_buckets()
    assert name in [b["Name"] for b in listed["Buckets"]]
    assert all(b["CreationDate"] for b in listed["Buckets"])
    assert [b["Name"] for b in s3.list_buckets(Prefix="bucket.")["Buckets"]] == [name]
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] is None
    s3.delete_bucket(Bucket=name)
    with pytest.raises(ClientError) as caught:
        s3.head_bucket(Bucket=name)
    assert code(caught) == ("404", 404)


def test_a_bucket_elsewhere(server: Server) -> None:
    s3 = server.client(region="eu-west-1")
    where = {"LocationConstraint": "eu-west-1"}
    s3.create_bucket(Bucket="in-ireland", CreateBucketConfiguration=where)
    assert s3.get_bucket_location(Bucket="in-ireland")["LocationConstraint"] == "eu-west-1"
    with pytest.raises(ClientError) as caught:
        s3.create_bucket(Bucket="in-ireland", CreateBucketConfiguration=where)
    assert code(caught) == ("BucketAlreadyOwnedByYou", 409)


def test_another_account_sees_nothing(s3: Any, server: Server, bucket: str) -> None:
    if server.access_key == ACCESS_KEY:
        pytest.skip("all keys of a Penstock are of one account")
    other = server.client(key="AKIAOTHER")
    assert bucket not in [b["Name"] for b in other.list_buckets()["Buckets"]]
    for call in (other.list_objects_v2, other.delete_bucket, other.get_bucket_location):
        with pytest.raises(ClientError) as caught:
            call(Bucket=bucket)
        assert code(caught) == ("AccessDenied", 403)
    with pytest.raises(ClientError) as caught:
        other.create_bucket(Bucket=bucket)
    assert code(caught) == ("BucketAlreadyExists", 409)
    with pytest.raises(ClientError) as caught:
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="210987654321")
    assert code(caught) == ("403", 403)


def test_buckets_are_paged(server: Server) -> None:
    s3 = server.client()
    names = [f"paged-{i}" for i in range(5)]
    for name in names:
        s3.create_bucket(Bucket=name)
    pages = s3.get_paginator("list_buckets").paginate(Prefix="paged-", PaginationConfig={"PageSize": 2})
    assert [[b["Name"] for b in p.get("Buckets", [])] for p in pages] == [names[:2], names[2:4], names[4:]]


@pytest.mark.parametrize("name", ["UPPER", "a_b", "192.168.0.1", "a..b", "-ab"])
def test_a_bad_bucket_name_is_refused(server: Server, name: str) -> None:
    s3 = server.client()
    s3.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    with pytest.raises(ClientError) as caught:
        s3.create_bucket(Bucket=name)
    assert code(caught) == ("InvalidBucketName", 400)


def test_a_bucket_with_objects_stays(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with pytest.raises(ClientError) as caught:
        s3.delete_bucket(Bucket=bucket)
    assert code(caught) == ("BucketNotEmpty", 409)


# Objects.


def test_an_object_goes_in_and_out(s3: Any, bucket: str, rng: random.Random, server: Server) -> None:
    data = rng.randbytes(3 * MIB + 17)
    put = s3.put_object(
        Bucket=bucket, Key="dir/model.tar.gz", Body=data, ContentType="application/x-tar", Metadata={"Who": "me"}
    )
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert put["ChecksumCRC32"]
    got = s3.get_object(Bucket=bucket, Key="dir/model.tar.gz")
    assert got["Body"].read() == data
    assert (got["ContentType"], got["Metadata"], got["ContentLength"]) == (
        "application/x-tar",
        {"who": "me"},
        len(data),
    )
    assert got["ChecksumCRC32"] == put["ChecksumCRC32"]
    assert "ContentEncoding" not in got
    head = s3.head_object(Bucket=bucket, Key="dir/model.tar.gz")
    assert (head["ContentLength"], head["ETag"], head["AcceptRanges"]) == (len(data), put["ETag"], "bytes")
    s3.delete_object(Bucket=bucket, Key="dir/model.tar.gz")
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="dir/model.tar.gz")
    assert code(caught) == ("NoSuchKey", 404)
    s3.delete_object(Bucket=bucket, Key="dir/model.tar.gz")
    assert not leftovers(server)


def test_an_empty_object(s3: Any, bucket: str) -> None:
    assert s3.put_object(Bucket=bucket, Key="empty")["ETag"] == '"d41d8cd98f00b204e9800998ecf8427e"'
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="empty", Range="bytes=0-")
    assert code(caught) == ("InvalidRange", 416)


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums_are_verified_and_echoed(s3: Any, bucket: str, algorithm: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"123456789", ChecksumAlgorithm=algorithm)
    name = f"Checksum{algorithm}"
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"123456789"
    assert got[name] == put[name]
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")[name] == put[name]
    assert name not in s3.head_object(Bucket=bucket, Key="k")
    if algorithm in ("CRC32", "CRC32C"):
        known = {"CRC32": 0xCBF43926, "CRC32C": 0xE3069283}[algorithm]
        assert put[name] == base64.b64encode(known.to_bytes(4, "big")).decode()
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"other", **{name: put[name]})
    assert code(caught) == ("BadDigest", 400)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"123456789"


def test_content_md5(s3: Any, bucket: str) -> None:
    right = base64.b64encode(hashlib.md5(b"data").digest()).decode()
    s3.put_object(Bucket=bucket, Key="k", Body=b"data", ContentMD5=right)
    for wrong, expected in ((base64.b64encode(b"0" * 16).decode(), "BadDigest"), ("short", "InvalidDigest")):
        with pytest.raises(ClientError) as caught:
            s3.put_object(Bucket=bucket, Key="k", Body=b"data", ContentMD5=wrong)
        assert code(caught) == (expected, 400)


def test_a_body_without_checksums(server: Server, bucket: str) -> None:
    s3 = server.client(request_checksum_calculation="when_required")
    s3.put_object(Bucket=bucket, Key="k", Body=b"plain")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"plain"
    assert "ChecksumCRC32" not in got


def test_an_unseekable_body(server: Server, bucket: str) -> None:
    if server.scheme == "http":
        pytest.skip("botocore must read the body twice to sign it over http")

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.rest = b"unseekable" * 100_000

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            size = len(self.rest) if size < 0 else size
            piece, self.rest = self.rest[:size], self.rest[size:]
            return piece

    s3 = server.client()
    s3.put_object(Bucket=bucket, Key="k", Body=Pipe())
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"unseekable" * 100_000


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=2-4", 2, 5),
        ("bytes=5-", 5, 10),
        ("bytes=-3", 7, 10),
        ("bytes=-99", 0, 10),
        ("bytes=8-99", 8, 10),
    ],
)
def test_ranges(s3: Any, bucket: str, asked: str, start: int, end: int) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="k", Range=asked)
    assert got["Body"].read() == b"0123456789"[start:end]
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert got["ContentRange"] == f"bytes {start}-{end - 1}/10"
    assert s3.head_object(Bucket=bucket, Key="k", Range=asked)["ContentLength"] == end - start


@pytest.mark.parametrize("asked", ["bytes=a-b", "bytes=-", "lines=1-2", "bytes=4-2", "bytes=0-1,3-4"])
def test_a_range_that_says_nothing_gives_all(s3: Any, bucket: str, asked: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="k", Range=asked)
    assert (got["Body"].read(), got["ResponseMetadata"]["HTTPStatusCode"]) == (b"0123456789", 200)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_range_beyond_the_end(s3: Any, bucket: str, asked: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", Range=asked)
    assert code(caught) == ("InvalidRange", 416)
    assert caught.value.response["Error"]["ActualObjectSize"] == "10"


def test_conditions(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"v1")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)["Body"].read() == b"v1"
    for condition, expected in (
        ({"IfNoneMatch": etag}, ("304", 304)),
        ({"IfModifiedSince": modified}, ("304", 304)),
        ({"IfMatch": '"other"'}, ("PreconditionFailed", 412)),
        ({"IfUnmodifiedSince": modified.replace(year=2000)}, ("PreconditionFailed", 412)),
    ):
        with pytest.raises(ClientError) as caught:
            s3.get_object(Bucket=bucket, Key="k", **condition)
        assert code(caught) == expected
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"v2", IfNoneMatch="*")
    assert code(caught) == ("PreconditionFailed", 412)
    s3.put_object(Bucket=bucket, Key="k", Body=b"v2", IfMatch=etag)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"v3", IfMatch=etag)
    assert code(caught) == ("PreconditionFailed", 412)
    s3.put_object(Bucket=bucket, Key="new", Body=b"v1", IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"v2"


def test_what_is_kept_with_an_object_and_what_overrides_it(s3: Any, bucket: str) -> None:
    kept = {
        "CacheControl": "max-age=3",
        "ContentDisposition": "inline",
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "StorageClass": "STANDARD_IA",
    }
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **kept)
    head = s3.head_object(Bucket=bucket, Key="k")
    assert {name: head[name] for name in kept} == kept
    assert head["ContentType"] == "binary/octet-stream"
    got = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="text/css", ResponseCacheControl="no-store")
    assert (got["ContentType"], got["CacheControl"], got["ContentLanguage"]) == ("text/css", "no-store", "de")


ODD_KEYS = [
    "..",
    "../../etc/passwd",
    ".",
    "a//b",
    "/leading",
    "trailing/",
    "a",
    "a/b",
    "a/b/c",
    "%2e%2e",
    "a+b c&d=e?f#g",
    "größe/量/\N{ROCKET}",
    "x" * 1024,
    "é" * 512,
    "tab\tand\nline",
    "con:*|<>\"'\\",
]


def test_any_key_stays_itself(s3: Any, bucket: str, server: Server) -> None:
    for key in ODD_KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in ODD_KEYS:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    listed = [
        entry["Key"]
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        for entry in page["Contents"]
    ]
    assert listed == sorted(ODD_KEYS, key=lambda k: k.encode())
    assert sorted(os.listdir(server.root / bucket)) == ["bucket.json", "objects", "uploads"]
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in ODD_KEYS if "\t" not in key]})
    s3.delete_object(Bucket=bucket, Key="tab\tand\nline")
    assert os.listdir(server.root / bucket / "objects") == []
    s3.delete_bucket(Bucket=bucket)


def test_a_key_that_is_too_long(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="x" * 1025, Body=b"")
    assert code(caught) == ("KeyTooLongError", 400)


def test_several_are_deleted_at_once(s3: Any, bucket: str) -> None:
    for key in "abc":
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    answer = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "missing"}, {"Key": "b", "VersionId": "v"}]}
    )
    assert [d["Key"] for d in answer["Deleted"]] == ["a", "missing"]
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("b", "NoSuchVersion")]
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "b"}], "Quiet": True})
    assert "Deleted" not in quiet
    assert [e["Key"] for e in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["c"]


def test_copies(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="from/ä+b", Body=b"data", Metadata={"a": "1"}, ContentType="text/plain")
    source = {"Bucket": bucket, "Key": "from/ä+b"}
    result = s3.copy_object(Bucket=bucket, Key="to", CopySource=source)["CopyObjectResult"]
    assert result["ETag"] == f'"{hashlib.md5(b"data").hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="to")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"data", {"a": "1"}, "text/plain")
    s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/to", MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="to")["Metadata"] == {"b": "2"}
    for arguments, expected in (
        ({"CopySource": f"{bucket}/to"}, ("InvalidRequest", 400)),
        ({"CopySource": f"{bucket}/none"}, ("NoSuchKey", 404)),
        ({"CopySource": "no-such-bucket/k"}, ("NoSuchBucket", 404)),
        ({"CopySource": source, "CopySourceIfMatch": '"x"'}, ("PreconditionFailed", 412)),
    ):
        with pytest.raises(ClientError) as caught:
            s3.copy_object(Bucket=bucket, Key="to", **arguments)
        assert code(caught) == expected


# Listings.


def test_listings_page_through_both_versions(s3: Any, bucket: str) -> None:
    keys = sorted(["a/1", "a/2", "b/1", "b/2", "c", "d e", "é/1", "z"], key=str.encode)
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    for operation in ("list_objects", "list_objects_v2"):
        for size in (1, 2, 3, 100):
            pages = list(s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": size}))
            assert [e["Key"] for p in pages for e in p.get("Contents", [])] == keys
            pages = list(
                s3.get_paginator(operation).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": size})
            )
            assert [e["Key"] for p in pages for e in p.get("Contents", [])] == ["c", "d e", "z"]
            assert [e["Prefix"] for p in pages for e in p.get("CommonPrefixes", [])] == ["a/", "b/", "é/"]
    assert [e["Key"] for e in s3.list_objects_v2(Bucket=bucket, StartAfter="c")["Contents"]] == ["d e", "z", "é/1"]
    assert s3.list_objects_v2(Bucket=bucket, Prefix="b/")["KeyCount"] == 2
    none = s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    assert (none["KeyCount"], none["IsTruncated"]) == (0, False)
    with pytest.raises(ClientError) as caught:
        s3.list_objects_v2(Bucket=bucket, ContinuationToken="!")
    assert code(caught) == ("InvalidArgument", 400)
