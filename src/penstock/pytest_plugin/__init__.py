"""The pytest plugin: a Penstock for the session, endpoints that stream what a test says, every slicing mode by a marker.

Owns the fixtures, the marker and the seed. It is imported by every pytest run of an environment that has Penstock, so it imports nothing
of Penstock until a test asks for something.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from penstock.pytest_plugin.endpoints import Factory
    from penstock.pytest_plugin.server import Penstock

MARKER = "every_slicing"
SLICING = "penstock_slicing"
_seed = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("penstock", "streams that misbehave on purpose")
    group.addoption(
        "--penstock-seed", type=int, default=None, metavar="SEED", help="seed of slicing and faults; a failure shows it"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARKER}(*modes): run the test under every slicing mode, or those named, of the endpoints it makes"
    )
    given = config.getoption("--penstock-seed", None)
    # Workers of pytest-xdist have the seed of the process that started them.
    inherited = getattr(config, "workerinput", {}).get("penstock_seed")
    drawn = random.SystemRandom().randrange(2**32)
    config.stash[_seed] = next(seed for seed in (given, inherited, drawn) if seed is not None)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist is about to start a worker."""
    node.workerinput["penstock_seed"] = node.config.stash[_seed]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is None:
        return
    from penstock.torture.cases import SLICINGS

    if unknown := [mode for mode in marker.args if mode not in SLICINGS]:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: {MARKER} knows no mode {unknown[0]!r}; there are: {', '.join(SLICINGS)}"
        )
    if SLICING not in metafunc.fixturenames:
        metafunc.fixturenames.append(SLICING)
    metafunc.parametrize(SLICING, marker.args or tuple(SLICINGS), indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failure under a slicing mode says how to have it again."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    callspec = getattr(item, "callspec", None)
    if report.failed and callspec is not None and (mode := callspec.params.get(SLICING)):
        seed = item.config.stash[_seed]
        line = f"slicing mode {mode}, seed {seed}; the same again: pytest {item.nodeid!r} --penstock-seed {seed}"
        report.sections.append(("penstock", line))
    return report  # type: ignore[return-value]


@pytest.fixture
def penstock_slicing(request: pytest.FixtureRequest) -> str:
    """The slicing mode that the marker `every_slicing` has this run under; "" without it."""
    return str(getattr(request, "param", ""))


@pytest.fixture(scope="session")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    """A Penstock on a home of its own and free ports, for the whole session."""
    from penstock.pytest_plugin.server import Penstock

    server = Penstock(tmp_path_factory.mktemp("penstock") / "home")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def boto_runtime(penstock: Penstock) -> Iterator[Any]:
    """A boto3 client `sagemaker-runtime` of the session's Penstock. Streams that the test leaves open are closed after it."""
    yield penstock.client("sagemaker-runtime")
    penstock.close_streams()


@pytest.fixture
def endpoint(penstock: Penstock, penstock_slicing: str, pytestconfig: pytest.Config) -> Iterator[Factory]:
    """`endpoint(script=…, faults=…)` makes an endpoint InService and returns its name; it is gone, or clean, after the test."""
    from penstock.pytest_plugin.endpoints import Factory

    factory = Factory(penstock, penstock_slicing, pytestconfig.stash[_seed])
    try:
        yield factory
    finally:
        factory.close()
