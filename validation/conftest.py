"""Options and fixtures of `pytest validation/`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuitsim.spice.compare import Comparison
from circuitsim.spice.ngspice import MISSING, ngspice_available
from validation.digits import train_quickly
from validation.real_decks import CORPUS, corpus
from validation.results import PROPERTY, Gatherer, plain, row_of

RESULTS = Path(__file__).parent.parent / "build" / "validation"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("circuitsim")
    decks = f"a folder of decks; stored values DECK.op.tsv[.gz] beside them are used [{CORPUS}]"
    group.addoption("--corpus", type=Path, default=corpus(), metavar="DIR", help=decks)
    group.addoption("--count", type=int, default=200, help="number of random circuits [%(default)s]")
    group.addoption("--seed", type=int, default=0, help="seed of the first random circuit of each family [%(default)s]")
    results = "where results.json and decks that show a fault are written [%(default)s]"
    group.addoption("--results", type=Path, default=RESULTS, metavar="DIR", help=results)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # not one of pytest-xdist's workers
        config.pluginmanager.register(Gatherer(config.getoption("results")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests only when -m asks for them."""
    if config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session")
def ngspice() -> None:
    """For tests that cannot do without it."""
    if not ngspice_available():
        pytest.skip(MISSING)


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Path:
    """The folder of --results."""
    return request.config.getoption("results")


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], None]:
    """Adds a row to the results."""

    def add(row: dict[str, Any]) -> None:
        request.node.user_properties.append((PROPERTY, plain(row)))

    return add


@pytest.fixture
def record_comparison(record: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """The same of a comparison: `record_comparison(suite, name, comparison, key=value)`."""

    def add(suite: str, name: str, found: Comparison, **more: Any) -> None:
        record(row_of(suite, name, found, **more))

    return add


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A drn-xs that has learnt a little: its netlist, and the volts of a white pixel."""
    path = tmp_path_factory.mktemp("trained") / "trained.cir"
    return path, train_quickly(path)
