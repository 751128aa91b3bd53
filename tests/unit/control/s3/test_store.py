"""The store as placements and the server's own rooms use it, and its files after accidents."""

from __future__ import annotations

import os
import random
import tarfile
import threading
from pathlib import Path

import pytest

from penstock.control.neighbours.s3.checksums import Digests
from penstock.control.neighbours.s3.conditions import check_write
from penstock.control.neighbours.s3.keys import key_path
from penstock.control.neighbours.s3.records import Metadata, open_record
from penstock.control.neighbours.s3.store import ObjectStore
from penstock.errors import AwsError
from penstock.placement.base import ObjectReader

ACCOUNT = "123456789012"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    made = ObjectStore(tmp_path / "buckets", clock=lambda: 1_700_000_000.0)
    made.prepare()
    made.create_bucket("models", account=ACCOUNT, region="us-east-1")
    return made


def test_it_is_an_object_reader(store: ObjectStore, tmp_path: Path) -> None:
    reader: ObjectReader = store
    (tmp_path / "weights").write_bytes(b"w" * 300_000)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "weights", "weights")
    store.put("models", "m/model.tar.gz", [(tmp_path / "model.tar.gz").read_bytes()])
    store.put("models", "m/a", [b"1"])
    store.put("models", "n", [b"2"])
    assert list(reader.keys("models", "m/")) == ["m/a", "m/model.tar.gz"]
    assert list(reader.keys("no-such", "")) == []
    with reader.open("models", "m/model.tar.gz") as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
        member = tar.extractfile("weights")
        assert member is not None
        assert member.read() == b"w" * 300_000
    with pytest.raises(FileNotFoundError, match="s3://models/none"):
        reader.open("models", "none")
    with pytest.raises(FileNotFoundError):
        reader.open("No_Bucket", "k")


def test_a_stream_ends_where_the_data_end(store: ObjectStore, rng: random.Random) -> None:
    data = rng.randbytes(1_000_003)
    store.put("models", "k", [data[:10], data[10:]])
    with store.open("models", "k") as file:
        assert file.read() == data
        assert file.seek(-5, os.SEEK_END) == len(data) - 5
        assert file.read(100) == data[-5:]
        assert file.seek(17) == 17
        assert file.read(3) == data[17:20]


def test_a_reader_keeps_the_object_that_it_opened(store: ObjectStore) -> None:
    store.put("models", "k", [b"old"])
    with store.open("models", "k") as file:
        store.put("models", "k", [b"newer"])
        store.delete("models", "k")
        assert file.read() == b"old"


def test_many_pages_of_keys(store: ObjectStore) -> None:
    keys = [f"{i:05d}" for i in range(2500)]
    names = store.root / "models" / "objects"
    store.put("models", keys[0], [b""])
    for key in keys[1:]:
        os.link(names / key_path(keys[0]), names / key_path(key))
    assert list(store.keys("models", "")) == keys


def test_the_listing_follows_every_change(store: ObjectStore, rng: random.Random) -> None:
    there: set[str] = set()
    for _ in range(200):
        key = rng.choice("abcdefgh") * rng.choice([1, 150, 300])
        if rng.random() < 0.6:
            store.put("models", key, [b"x"])
            there.add(key)
        else:
            store.delete("models", key)
            there.discard(key)
        assert list(store.keys("models", "")) == sorted(there)
    assert list(ObjectStore(store.root).keys("models", "")) == sorted(there)


@pytest.fixture
def broken(store: ObjectStore) -> Path:
    store.put("models", "k", [b"data"])
    return store.root / "models" / "objects" / key_path("k")


@pytest.mark.parametrize("damage", ["empty", "short", "length", "text", "mark"])
def test_a_damaged_file_is_an_error_not_an_object(broken: Path, damage: str) -> None:
    whole = broken.read_bytes()
    broken.write_bytes(
        {
            "empty": b"",
            "short": whole[1:],
            "length": whole[:-16] + b"\xff" * 8 + whole[-8:],
            "text": whole.replace(b'"size"', b'"sizes'),
            "mark": whole[:-1],
        }[damage]
    )
    with pytest.raises(OSError, match="damaged record"):
        open_record(broken)


def test_starting_clears_what_was_half_written(store: ObjectStore) -> None:

    writer = store.writer(Digests())
    writer.write(b"half")
    assert len(os.listdir(store.spare)) == 1
    ObjectStore(store.root).prepare()
    assert os.listdir(store.spare) == []
    writer.discard()


def test_writers_of_one_key_leave_one_of_them_whole(store: ObjectStore) -> None:
    bodies = [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=store.put, args=("models", "k", [body])) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.open("models", "k") as file:
        assert file.read() in bodies
    assert list(store.keys("models", "")) == ["k"]
    assert os.listdir(store.spare) == []


def test_one_of_many_conditional_writers_wins(store: ObjectStore) -> None:

    outcomes: list[str] = []

    def write(i: int) -> None:
        writer = store.writer(Digests())
        writer.write(b"x")
        metadata = Metadata(key="k", size=1, etag=str(i), modified=0.0)
        try:
            store.commit("models", writer, metadata, lambda etag: check_write({"IfNoneMatch": "*"}, "k", etag))
            outcomes.append("won")
        except AwsError as error:
            outcomes.append(error.code)
        finally:
            writer.discard()

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["PreconditionFailed"] * 7 + ["won"]
