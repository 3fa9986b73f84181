"""Every netlist of netlists/, its operating point and its sweeps, against ngspice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import circuitsim as cs
from circuitsim.spice.compare import Verdict, compare, compare_sweep
from validation.results import row_of, said, worst_of

pytestmark = pytest.mark.usefixtures("ngspice")

NETLISTS = Path(__file__).parent.parent / "netlists"
SUITE = "netlists"
SLOW = {"drn_1h"}  # 160 s in ngspice
TOO_LARGE = {"drn_2h", "drn_3h", "drn_xl"}  # 1.3 to 26 million resistors: hours in ngspice
FILES = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in sorted(NETLISTS.glob("*.cir"))
    if path.stem not in TOO_LARGE
]


@pytest.mark.parametrize("path", FILES)
def test_operating_point(path: Path, record_comparison: Callable[..., None]) -> None:
    found = compare(cs.load(path))
    record_comparison(SUITE, path.stem, found)
    assert found.verdict is Verdict.AGREE, said(row_of(SUITE, path.stem, found))


SWEEPS = [  # .dc cards of the netlists themselves, and those that their comments propose
    ("diode_bridge_sweep", ""),
    ("diode_bridge_sweep", "V1 -12 12 0.5 TEMP -40 120 40"),
    ("bridge_rectifier", "Vac -12 12 1"),
    ("clipper", "Vin -5 5 0.25"),
    ("zener", "Vin 8 15 0.5"),
    ("wheatstone", "Rx 340 360 1"),
    ("opamp", "Vin -1 1 0.25"),
    ("relu_network", "Va -2 4 0.5 Vb -2 4 1"),  # many points stand on kinks
    ("xor", "Va -5 5 1 Vb -5 5 2"),
]


@pytest.mark.parametrize(("name", "dc"), SWEEPS)
def test_sweep(name: str, dc: str, record_comparison: Callable[..., None]) -> None:
    circuit = cs.load(NETLISTS / f"{name}.cir")
    analysis = dc or circuit.netlist.sweeps[0]
    points = compare_sweep(circuit, analysis)
    assert points
    worst = worst_of(points)
    row = row_of(SUITE, f"{name} .dc {dc}, {len(points)} points", worst, at=worst.point)
    record_comparison(SUITE, row["name"], worst, at=worst.point)
    assert all(point.verdict is Verdict.AGREE for point in points), f"{said(row)} at {worst.point}"


def test_every_sweep_of_the_netlists_is_among_them() -> None:
    own = {path.stem for path in NETLISTS.glob("*.cir") if "\n.dc " in path.read_text()}
    assert own == {name for name, dc in SWEEPS if not dc}
