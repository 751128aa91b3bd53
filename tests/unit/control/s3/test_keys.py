"""Keys as paths: reversible, apart from each other, never outside."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.control.neighbours.s3.keys import KEY_BYTES, check_bucket, key_path, path_key
from penstock.errors import AwsError

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300).filter(
    lambda k: len(k.encode()) <= KEY_BYTES
)


@given(KEYS)
@example("..")
@example("../../x")
@example("/")
@example("\0")
@example("a" * 1024)
@example("\N{ROCKET}" * 256)
def test_a_path_gives_its_key_back(key: str) -> None:
    path = key_path(key)
    assert path_key(str(path)) == key
    assert not path.is_absolute()
    assert all(
        0 < len(part.encode()) <= 255 and part not in (".", "..") and not part.startswith(".") for part in path.parts
    )


@given(st.lists(KEYS, min_size=2, max_size=30, unique=True))
@example(["a" * 200, "a" * 201, "a" * 400])
def test_no_key_is_another_or_its_directory(keys: list[str]) -> None:
    paths = {key_path(key) for key in keys}
    assert len(paths) == len(keys)
    directories = {parent for path in paths for parent in path.parents}
    assert not paths & directories


@given(st.text("ab%+./2EFf", max_size=20))
def test_a_file_of_another_name_is_no_key(name: str) -> None:
    key = path_key(name)
    assert key is None or key_path(key) == PurePosixPath(name)


@pytest.mark.parametrize("key", ["", "x" * 1025, "é" * 513])
def test_keys_have_a_length(key: str) -> None:
    with pytest.raises(AwsError) as caught:
        key_path(key)
    assert caught.value.code == "KeyTooLongError"


@pytest.mark.parametrize(
    "name", ["ab", "a" * 64, ".", "..", ".spare", "a..b", "A-b", "a/b", "1.2.3.4", "xn--a", "a-", "a-s3alias", ""]
)
def test_names_that_are_no_bucket(name: str) -> None:
    with pytest.raises(AwsError, match="not valid"):
        check_bucket(name)


@pytest.mark.parametrize("name", ["abc", "a" * 63, "sagemaker-us-east-1-123456789012", "my.bucket.name"])
def test_names_of_buckets(name: str) -> None:
    check_bucket(name)
