"""Deep resistive networks against ngspice: drn_xs as it is initialised and trained, with perfect and Shockley diodes.

Perfect diodes are XSPICE's `sidiode` there. A digit that is read with the trained network must be the same in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.spice.compare import Verdict, compare
from training.recipe import find_recipe
from validation.digits import digit_inputs, readings
from validation.nonideal import PERFECT, SHOCKLEY, Diode, Row, study, with_diode
from validation.results import row_of, said

NETLIST = Path(__file__).parent.parent / "netlists" / "drn_xs.cir"
DIGITS = 10
DIODES = {"perfect": PERFECT, "Shockley": Diode(SHOCKLEY, {"is": 1e-14, "n": 1.0})}
SUITE = "drn_xs"


def plain_nodes(circuit: cs.Circuit) -> cs.Circuit:
    """`h[3]` becomes `h_3`: XSPICE cannot read brackets, and 100 more nodes in their place cost ngspice seconds."""
    nodes = [name.replace("[", "_").replace("]", "") for name in circuit.nodes]
    return replace(circuit, netlist=replace(circuit.netlist, nodes=nodes))


@pytest.mark.usefixtures("ngspice")
@pytest.mark.parametrize("digit", range(DIGITS))
@pytest.mark.parametrize("diode", DIODES)
@pytest.mark.parametrize("weights", ["initial", "trained"])
def test_digit(
    weights: str, diode: str, digit: int, trained: tuple[Path, float], record_comparison: Callable[..., None]
) -> None:
    """All node voltages and source currents; and the class, the output with the highest voltage."""
    netlist, gain = (NETLIST, find_recipe("drn-xs").gain) if weights == "initial" else trained
    circuit = plain_nodes(with_diode(netlist, DIODES[diode]))
    inputs, labels = digit_inputs(circuit, gain, digit + 1)
    found = compare(circuit.with_values({name: volts[digit:] for name, volts in inputs.items()}))
    name, read = f"{weights}, {diode} diodes, digit {digit}", {"label": labels[digit]}
    if found.quantities:
        of_name = {q.name: q for q in found.quantities}
        outputs = [of_name[f"v({circuit.nodes[node].lower()})"] for node in circuit.netlist.outputs]
        for side in ("ours", "theirs"):
            read[f"class_{side}"] = int(np.argmax([getattr(q, side) for q in outputs]))
    record_comparison(SUITE, name, found, **read)
    assert found.verdict is Verdict.AGREE, said(row_of(SUITE, name, found))
    assert read["class_ours"] == read["class_theirs"], read


@pytest.mark.usefixtures("ngspice")
def test_readings_of_the_flattened_netlist(trained: tuple[Path, float]) -> None:
    """`python -m validation.digits`: the deck that `flatten` writes, brackets and all, in a plain run of ngspice."""
    found = list(readings(*trained, DIGITS))
    assert len(found) == DIGITS
    assert all(reading.agrees for reading in found)
    assert sum(int(reading.ours.argmax()) == reading.label for reading in found) >= 8  # it has learnt something
    assert max(float(np.abs(reading.ours - reading.theirs).max()) for reading in found) < 1e-3


def test_diodes_that_are_not_perfect(trained: tuple[Path, float], record: Callable[[dict], None]) -> None:
    """The study of nonideal.py on 100 digits. Near-perfect diodes change little, real ones more, never the order of
    those that differ in one parameter only; and every answer has its certificate."""
    netlist, gain = trained
    names = {
        "near": Diode("piecewise linear", {"ron": 1e-9, "vfwd": 0.0}),
        "small RON": Diode("piecewise linear", {"ron": 1e-3, "vfwd": 0.0}),
        "large RON": Diode("piecewise linear", {"ron": 1.0, "vfwd": 0.0}),
        "germanium": Diode(SHOCKLEY, {"is": 1e-6, "n": 1.0}),
        "silicon": Diode(SHOCKLEY, {"is": 1e-14, "n": 1.0}),
    }
    rows: dict[str, Row] = dict(zip(names, study(netlist, gain, 100, names.values()), strict=True))
    for name, row in rows.items():
        changes = {"hidden_change": row.hidden_change, "output_change": row.output_change}
        errors = {"reread_percent": row.reread_percent, "error_percent": row.error_percent}
        record({"suite": "diodes", "name": f"{name} {row.diode}", "verdict": "solved", **changes, **errors})
    assert all(row.kcl_relative <= 1e-9 for row in rows.values())
    assert rows["near"].hidden_change < 1e-6 and rows["near"].reread_percent == 0
    assert 0 < rows["near"].hidden_change < rows["small RON"].hidden_change < rows["large RON"].hidden_change
    assert 0 < rows["germanium"].hidden_change < rows["silicon"].hidden_change
    assert rows["near"].error_percent <= 30  # it has learnt something
