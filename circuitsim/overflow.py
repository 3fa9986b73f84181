"""Sources that overflow float64: too large themselves, or forcing a current that float64 cannot hold.

This is known from the sources alone. If currents of the answer overflow, its certificate shows that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from circuitsim.branches import take_rows
from circuitsim.circuit import Circuit
from circuitsim.errors import TopologyError, of_row
from circuitsim.law_kernels import BV, ISR, MAX_EXPONENT, NBV_VT, NR_VT, NVT, RECOMBINING, RS, STRAIGHT, V0, Law
from circuitsim.topology import Topology

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_LARGEST = 1e150  # V, A, of a source: with more, powers overflow


def check_sources(circuit: Circuit, rows: slice) -> None:
    """Raise TopologyError for sources so large that sums overflow."""
    c = circuit
    for branches, values, unit in ((c.ties, c.ties.e, "V"), (c.current_sources, c.current_sources.i, "A")):
        values = take_rows(values, rows)
        if max(values.max(initial=0.0), -values.min(initial=0.0)) > _LARGEST:
            row, k = divmod(int(np.abs(values).argmax()), values.shape[1])
            raise TopologyError(
                f"{c.element(branches, k)}: {abs(values[row, k]):g} {unit}{_of_row(values, row, rows.start)} is so "
                f"large that powers overflow; make it less than {_LARGEST:g}",
                c.at(branches, k),
                nodes=[c.nodes[branches.a[k]], c.nodes[branches.b[k]]],
                elements=[c.element(branches, k)],
            )


def _of_row(values: Floats, row: int, start: int) -> str:
    return of_row(start + row if len(values) > 1 else None)


def largest_conductance(circuit: Circuit) -> float:
    """The largest conductance, of a crossbar times its longer side: its currents times volts are not more, S."""
    crossbars = (x.g.max(initial=0.0) * max(x.g.shape) for x in circuit.crossbars)
    return float(max(circuit.conductors.g.max(initial=0.0), *crossbars, 0.0))


def check_forced_currents(
    circuit: Circuit,
    topology: Topology,
    fixed: Floats,
    start: int,
    largest: float,
    closed_drops: Callable[[Floats], tuple[Ints, Floats]],
) -> None:
    """Raise TopologyError where sources fix a branch voltage at which the branch current overflows.

    `fixed` (rows, n_fixed) are their potentials, V, sums of sources that check_sources has passed, in rows from `start`
    on; `largest` is largest_conductance, and `closed_drops` is Problem's.
    """
    with np.errstate(over="ignore"):
        if not np.isfinite(4.0 * _LARGEST * topology.forest.depth * largest):
            _check_crossbars(circuit, topology, fixed)
            _check_conductors(circuit, fixed, start, closed_drops)
    _check_junctions(circuit, topology, fixed, start)


def _check_crossbars(c: Circuit, t: Topology, fixed: Floats) -> None:
    """Those between known nodes."""
    known, most = t.index_of_node < 0, _most_volts(fixed)
    for n, x in enumerate(c.crossbars):
        with np.errstate(over="ignore"):
            fits = np.isfinite(2.0 * most * x.g.max(initial=0.0) * max(x.g.shape))
        if not fits and known[x.rows].all() and known[x.cols].all():
            raise TopologyError(
                f"crossbar {x.name}: the sources force up to {most:g} V across its resistors: their currents "
                "overflow; make the resistances larger",
                c.netlist.at(c.netlist.crossbars[n].seq),
                nodes=[c.nodes[x.rows[0]], c.nodes[x.cols[0]]],
                elements=[x.name],
            )


def _check_conductors(
    c: Circuit, fixed: Floats, start: int, closed_drops: Callable[[Floats], tuple[Ints, Floats]]
) -> None:
    g = c.conductors
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(2.0 * _most_volts(fixed) * g.g.max(initial=0.0)):
            return
        closed, volts = closed_drops(fixed)
        over = np.argwhere(~np.isfinite(g.g[closed] * volts))
    if over.size:
        row, n = over[0]
        k = int(closed[n])
        raise TopologyError(
            f"{c.element(g, k)}: the sources force {volts[row, n]:g} V across {1.0 / g.g[k]:g} ohm"
            f"{_of_row(volts, row, start)}: its current overflows; make the resistance larger",
            c.at(g, k),
            nodes=[c.nodes[g.a[k]], c.nodes[g.b[k]]],
            elements=[c.element(g, k)],
        )


def _check_junctions(c: Circuit, t: Topology, fixed: Floats, start: int) -> None:
    j = c.junctions
    if not t.closed_junctions.size:
        return
    v = fixed @ t.closed_fixed.T
    p = j.params[t.closed_junctions]
    law = j.law[t.closed_junctions]
    bare = (law == Law.SHOCKLEY) & (p[:, RS] == 0) | (law == Law.SINH)
    with np.errstate(over="ignore"):  # of laws that have no exponent
        nvt = np.where(p[:, ISR] > 0, np.minimum(p[:, NVT], p[:, NR_VT] * (RECOMBINING / MAX_EXPONENT)), p[:, NVT])
        forward = v.max(axis=0) / np.maximum(nvt, 1e-300)
        reverse = (-v.min(axis=0) - p[:, BV]) / np.maximum(np.where(law == Law.SINH, p[:, V0], p[:, NBV_VT]), 1e-300)
    exponent = np.maximum(forward, reverse)
    rows = np.where(forward >= reverse, v.argmax(axis=0), v.argmin(axis=0))
    over = np.flatnonzero(bare & (exponent > np.where(law == Law.SINH, STRAIGHT, MAX_EXPONENT)))
    if over.size:
        n, k = int(over[0]), int(t.closed_junctions[over[0]])
        name = c.element(j, k)
        noun, cure = noun_and_cure(int(j.law[k]))
        raise TopologyError(
            f"{noun} {name}: the sources force {v[rows[n], n]:g} V across it{_of_row(v, rows[n], start)}, "
            f"exp({exponent[n]:.0f}): its current overflows; put a resistor in series{cure}",
            c.at(j, k),
            nodes=[c.nodes[j.a[k]], c.nodes[j.b[k]]],
            elements=[name],
        )


def noun_and_cure(law: int) -> tuple[str, str]:
    """What an element with a branch of a law is called, and what limits its current besides a resistor in series."""
    noun = "diode" if law in (Law.SHOCKLEY, Law.PWL) else "nonlinear resistor"
    cures = {Law.SHOCKLEY: ", or give its model an RS", Law.PWL: ", or make RON (RREV in reverse) of its model larger"}
    return noun, cures.get(Law(law), "")


def _most_volts(fixed: Floats) -> float:
    """Between two fixed potentials there is no more, V."""
    return 2.0 * float(np.abs(fixed).max(initial=0.0))
