"""S3's names for an object: its URI, and its URLs by host and by path; nothing else is one."""

from __future__ import annotations

import pytest

from penstock.control.asynchronous.locations import object_url


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("s3://bucket/key", "s3://bucket/key"),
        ("s3://bucket/a/b%20c?d#e", "s3://bucket/a/b%20c?d#e"),
        ("https://bucket.s3.amazonaws.com/key", "s3://bucket/key"),
        ("https://bucket.s3.eu-west-3.amazonaws.com/a/b%20c", "s3://bucket/a/b c"),
        ("https://bucket.s3-us-gov-west-1.amazonaws.com/key", "s3://bucket/key"),
        ("https://my.bucket.s3.dualstack.us-east-1.amazonaws.com/k", "s3://my.bucket/k"),
        ("https://bucket.s3.cn-north-1.amazonaws.com.cn/k", "s3://bucket/k"),
        ("https://s3.us-east-1.amazonaws.com/bucket/a/b", "s3://bucket/a/b"),
        ("https://s3.amazonaws.com/bucket/k", "s3://bucket/k"),
    ],
)
def test_what_names_an_object(location: str, url: str) -> None:
    assert object_url(location) == url


@pytest.mark.parametrize(
    "location",
    [
        *("", "s3://", "s3://bucket", "s3://bucket/", "s3:///key", "bucket/key", "file:///etc/passwd"),
        *("http://bucket.s3.amazonaws.com/key", "https://example.com/key", "https://bucket.s3.amazonaws.com/"),
        *("https://s3.amazonaws.com/bucket", "https://s3.amazonaws.com/bucket/", "https://u@s3.amazonaws.com/b/k"),
        *("https://bucket.s3.amazonaws.com.evil.example/k", "https://evil.example/.s3.amazonaws.com/k"),
        "https://bucket.s3.amazonaws.com/key?X-Amz-Signature=0",
    ],
)
def test_what_names_none(location: str) -> None:
    assert object_url(location) == ""
