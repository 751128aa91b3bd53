from __future__ import annotations

import gzip
import os
import random
import tarfile
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.placement.artifacts import ArtifactError, Bounds, Cancelled, remove, stage
from penstock.placement.base import ModelData
from tests.replicas import Objects, archive

URL = "s3://models/falcon/model.tar.gz"


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def unpack(tmp_path: Path, data: bytes, **options: object) -> dict[str, bytes]:
    destination = tmp_path / "model"
    destination.mkdir()
    stage(ModelData(URL, "tar.gz"), destination, Objects({"models/falcon/model.tar.gz": data}), **options)  # type: ignore[arg-type]
    return tree(destination)


def tree(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_an_archive_is_unpacked_and_read_only(tmp_path: Path) -> None:
    script = tarfile.TarInfo("run.sh")
    script.mode = 0o755
    data = archive(
        special("./", tarfile.DIRTYPE),
        ("./falcon/serving.properties", b"engine = Python\n"),
        special("falcon/empty", tarfile.DIRTYPE),
        ("falcon/" + "long/" * 30 + "größe.bin", bytes(3_000_000)),
        script,
    )
    files = unpack(tmp_path, data)
    assert files["falcon/serving.properties"] == b"engine = Python\n"
    assert len(files["falcon/" + "long/" * 30 + "größe.bin"]) == 3_000_000
    model = tmp_path / "model"
    assert (model / "falcon" / "empty").is_dir()
    assert (model / "run.sh").stat().st_mode & 0o777 == 0o555
    assert (model / "falcon" / "serving.properties").stat().st_mode & 0o777 == 0o444
    assert all(p.stat().st_mode & 0o222 == 0 for p in (model, *model.rglob("*")))
    remove(model)
    assert not model.exists()


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (("../evil", b"x"), "leads upwards"),
        (("a/../../evil", b"x"), "leads upwards"),
        (("a/..", b"x"), "leads upwards"),
        (("/etc/evil", b"x"), "absolute"),
        (("a" * 300, b"x"), "not a file's name"),
        (special("link", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (special("link", tarfile.SYMTYPE, "good"), "a link"),
        (special("link", tarfile.LNKTYPE, "good"), "a link"),
        (special("dev", tarfile.CHRTYPE), "a device"),
        (special("dev", tarfile.BLKTYPE), "a device"),
        (special("pipe", tarfile.FIFOTYPE), "a device or a pipe"),
        (("good", b"again"), "taken before"),
        (("good/below", b"x"), "taken before"),
        (special("good", tarfile.DIRTYPE), "a file before"),
    ],
)
def test_a_member_that_is_refused_is_named(
    tmp_path: Path, member: tuple[str, bytes] | tarfile.TarInfo, why: str
) -> None:
    name = member.name if isinstance(member, tarfile.TarInfo) else member[0]
    with pytest.raises(ArtifactError) as error:
        unpack(tmp_path, archive(("good", b"x"), member))
    text = str(error.value)
    assert text.startswith(f'Failed to extract model data archive for container "container_1" from URL "{URL}".')
    assert why in text
    assert f'"{name[:200]}"' in text
    assert {p.name for p in tmp_path.iterdir()} == {"model"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.one_of(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
            st.lists(st.sampled_from(["..", ".", "a", "b", "", "c\\d", "~", "-"]), min_size=1, max_size=6).map(
                "/".join
            ),
        ),
        max_size=6,
    )
)
def test_no_name_ever_leaves_the_destination(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    root = tmp_path_factory.mktemp("tar")
    try:
        files = unpack(root, archive(*((name, name.encode()) for name in names if name)))
    except ArtifactError:
        pass
    else:
        assert sorted(files.values()) == sorted(name.encode() for name in names if name)
    assert {p.name for p in root.iterdir()} == {"model"}
    remove(root)


GOOD = archive(("a", os.urandom(50_000)), ("b", b"x" * 10))


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", GOOD[:20], GOOD[: len(GOOD) // 2], GOOD[:-9], GOOD[:-1], archive(("a", b"x"), mode="w"), gzip.compress(b"hello" * 999)],
    ids=["empty", "text", "head", "half", "no-checksum", "last-byte", "not-gzip", "no-tar"],
)  # fmt: skip
def test_bytes_that_are_no_archive_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"is a valid tar\.gz archive: \S"):
        unpack(tmp_path, data)


def test_damage_never_passes(tmp_path_factory: pytest.TempPathFactory, rng: random.Random) -> None:
    for _ in range(60):
        damaged = bytearray(GOOD)
        damaged[rng.randrange(20, len(GOOD) - 8)] ^= 1 << rng.randrange(8)
        with pytest.raises(ArtifactError):
            unpack(tmp_path_factory.mktemp("damaged"), bytes(damaged))


def test_a_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    header = special("pax", tarfile.XHDTYPE)
    header.size = 8 << 30
    bomb = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(32 << 20))
    with pytest.raises(ArtifactError, match="too large"):
        unpack(tmp_path, bomb)


def test_too_many_files_or_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = archive(*((f"f{i}", b"x" * 100) for i in range(20)))
    with pytest.raises(ArtifactError, match="more than 19 files"):
        unpack(tmp_path_factory.mktemp("a"), data, bounds=Bounds(files=19))
    with pytest.raises(ArtifactError, match="larger than 1999 bytes"):
        unpack(tmp_path_factory.mktemp("b"), data, bounds=Bounds(bytes=1999))
    assert len(unpack(tmp_path_factory.mktemp("c"), data, bounds=Bounds(files=20, bytes=2000))) == 20


def test_staging_can_be_cancelled(tmp_path: Path) -> None:
    asked = iter([False] * 5 + [True] * 99)
    with pytest.raises(Cancelled):
        unpack(tmp_path, archive(("a", bytes(50 << 20))), cancelled=lambda: next(asked))
    assert (tmp_path / "model" / "a").stat().st_size < 10 << 20


def test_a_missing_archive_has_awss_text(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as error:
        stage(ModelData("s3://models/none.tar.gz", "tar.gz"), tmp_path, Objects({}))
    assert str(error.value) == (
        'Failed to download model data for container "container_1" from URL: "s3://models/none.tar.gz". Please ensure that there is an '
        "object located at the URL and that the role passed to CreateModel has permissions to download the object."
    )


OBJECTS = Objects({"b/m/config.json": b"{}", "b/m/sub/w.bin": b"w", "b/m/empty/": b"", "b/m2/other": b"x"})


@pytest.mark.parametrize("url", ["s3://b/m/", "s3://b/m"])
def test_a_prefix_is_copied(tmp_path: Path, url: str) -> None:
    stage(ModelData(url, "prefix"), tmp_path, OBJECTS)
    assert tree(tmp_path) == {"config.json": b"{}", "sub/w.bin": b"w"}
    assert (tmp_path / "empty").is_dir()


@pytest.mark.parametrize("url", ["s3://b/nothing/", "s3://nobucket/m/"])
def test_an_empty_prefix_is_an_empty_directory(tmp_path: Path, url: str) -> None:
    stage(ModelData(url, "prefix"), tmp_path, OBJECTS)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("key", ["m/../../evil", "m//etc/evil", "m/a/../../../evil"])
def test_a_key_that_leads_out_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ArtifactError, match="refused"):
        stage(ModelData("s3://b/m/", "prefix"), tmp_path, Objects({f"b/{key}": b"x"}))
    assert tree(tmp_path) == {}


def test_a_key_that_is_also_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="taken before"):
        stage(ModelData("s3://b/m/", "prefix"), tmp_path, Objects({"b/m/a": b"x", "b/m/a/b": b"y"}))


def test_one_object_is_copied(tmp_path: Path) -> None:
    stage(ModelData("s3://b/m/sub/w.bin", "object"), tmp_path, OBJECTS)
    assert tree(tmp_path) == {"w.bin": b"w"}


def test_an_unreadable_store_is_a_reason(tmp_path: Path) -> None:
    class Broken(Objects):
        def open(self, bucket: str, key: str) -> BinaryIO:
            raise PermissionError(13, "Permission denied")

    with pytest.raises(ArtifactError, match=r'from URL: "s3://b/x"\. Permission denied\.'):
        stage(ModelData("s3://b/x", "object"), tmp_path, Broken({}))
