"""The disk of the buckets is full: a clear error, nothing left over, the old object untouched, and all well when there is room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from penstock.control.neighbours.s3.service import S3Service
from penstock.control.neighbours.s3.store import ObjectStore
from tests.small_disk import small_disk
from tests.wire.serving import SECRET, application, serve

MIB = 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    """On a file system of sixteen megabytes."""
    with small_disk(tmp_path / "disk", "16m") as place:
        made = ObjectStore(place / "buckets")
        made.prepare()
        yield made


@pytest.fixture
def s3(store: ObjectStore) -> Iterator[Any]:
    with serve(application({"s3": S3Service(store).handle})) as port:
        yield boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="AKIATEST",
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}),
        )


def refused(call: Any, **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_an_object_that_does_not_fit(store: ObjectStore, s3: Any) -> None:
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=b"old")
    for _ in range(3):
        assert refused(s3.put_object, Bucket="bucket", Key="k", Body=b"x" * 20 * MIB) == ("InsufficientStorage", 507)
        assert list(store.spare.iterdir()) == []
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"old"
    s3.put_object(Bucket="bucket", Key="k", Body=b"y" * 10 * MIB)
    assert refused(s3.copy_object, Bucket="bucket", Key="copy", CopySource="bucket/k") == ("InsufficientStorage", 507)
    assert list(store.spare.iterdir()) == []
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]] == ["k"]
    s3.delete_object(Bucket="bucket", Key="k")
    s3.put_object(Bucket="bucket", Key="k", Body=b"z" * 14 * MIB)


def test_parts_that_do_not_fit_together(store: ObjectStore, s3: Any) -> None:
    s3.create_bucket(Bucket="bucket")
    ids = {"Bucket": "bucket", "Key": "k", "UploadId": s3.create_multipart_upload(Bucket="bucket", Key="k")["UploadId"]}
    etags = [s3.upload_part(PartNumber=n, Body=b"p" * 5 * MIB, **ids)["ETag"] for n in (1, 2)]
    wanted = {"Parts": [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, start=1)]}
    assert refused(s3.complete_multipart_upload, MultipartUpload=wanted, **ids) == ("InsufficientStorage", 507)
    assert list(store.spare.iterdir()) == []
    assert refused(s3.upload_part, PartNumber=3, Body=b"p" * 8 * MIB, **ids) == ("InsufficientStorage", 507)
    assert len(s3.list_parts(**ids)["Parts"]) == 2
    s3.abort_multipart_upload(**ids)
    assert list(store.spare.iterdir()) == []
