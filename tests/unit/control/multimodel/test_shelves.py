"""Which replica a model goes to, and which model makes room."""

from __future__ import annotations

import random

from penstock.control.multimodel.artifact import model_data, not_there
from penstock.control.multimodel.shelves import Model, Shelves
from penstock.routes import Replica

REPLICAS = [Replica(name, 1, "127.0.0.1", 1) for name in ("r1", "r2", "r3")]


def loaded(used: float = 0.0, users: int = 0) -> Model:
    return Model("loaded", used=used, users=users)


def test_the_one_that_has_it_then_the_one_that_loads_it_then_the_emptiest() -> None:
    shelves = Shelves()
    shelves.put("r1", "other", loaded())
    shelves.put("r2", "m", Model("loading"))
    assert shelves.choose(REPLICAS, "m") == REPLICAS[1]
    shelves.put("r3", "m", loaded())
    assert shelves.choose(REPLICAS, "m") == REPLICAS[2]
    assert shelves.choose(REPLICAS[:1], "m") == REPLICAS[0]
    shelves.put("r3", "m", Model("unloading"))
    assert shelves.choose(REPLICAS, "m") == REPLICAS[1]
    assert shelves.choose([], "m") is None


def test_models_are_spread_whatever_their_names(rng: random.Random) -> None:
    shelves = Shelves()
    for _ in range(30):
        name = f"{rng.getrandbits(128):032x}"
        replica = shelves.choose(REPLICAS, name)
        assert replica is not None
        shelves.put(replica.id, name, loaded())
    assert shelves.loaded() == {"r1": 10, "r2": 10, "r3": 10}


def test_the_longest_unused_goes_and_one_in_use_last() -> None:
    shelves = Shelves()
    assert shelves.victim("r1") is None
    for name, model in {"new": loaded(9), "old": loaded(1, users=1), "mid": loaded(5)}.items():
        shelves.put("r1", name, model)
    shelves.put("r1", "coming", Model("loading"))
    shelves.put("r1", "going", Model("unloading"))
    gone = []
    while (victim := shelves.victim("r1")) is not None:
        gone.append(victim[0])
        shelves.drop("r1", *victim)
    assert gone == ["mid", "new", "old"]


def test_only_the_same_model_is_dropped_and_gone_replicas_are_forgotten() -> None:
    shelves = Shelves()
    first, second = loaded(), loaded()
    shelves.put("r1", "m", first)
    shelves.put("r1", "m", second)
    shelves.drop("r1", "m", first)
    assert shelves.get("r1", "m") is second
    shelves.put("r2", "m", loaded())
    shelves.keep({"r2", "r9"})
    assert shelves.get("r1", "m") is None
    assert shelves.get("r2", "m")


def test_where_an_artifact_lies() -> None:
    for prefix in ("s3://b/p/", "s3://b/p"):
        for target in ("x/m.tar.gz", "/x/m.tar.gz"):
            found = model_data(prefix, target)
            assert (found.url, found.kind) == ("s3://b/p/x/m.tar.gz", "tar.gz")
    assert (model_data("s3://b", "m/").url, model_data("s3://b", "m/").kind) == ("s3://b/m/", "prefix")
    assert "(bucket: b, key: p/m.tar.gz)" in not_there("s3://b/p/m.tar.gz")
