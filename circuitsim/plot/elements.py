"""The elements of a solved circuit as pictures need them: ends, currents, and whether diodes conduct."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.currents import ideal_currents, table_currents
from circuitsim.law_kernels import G_FORWARD, G_REVERSE, IS, V_FORWARD, V_REVERSE, Law
from circuitsim.laws import branch_current
from circuitsim.netlist.model import KINDS

if TYPE_CHECKING:
    from circuitsim.solution import Solution

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_SHOWN = "RVIDLEFGHN"  # capacitors carry nothing
_NOTHING = 1e-12  # times the largest current: an ideal diode that carries more conducts


@dataclass(frozen=True)
class Elements:
    """Two-terminal elements in one row of a batch; crossbars are apart, or one element for each conductance."""

    kind: NDArray[np.str_]  # (n,) letter
    number: Ints  # (n,) row of its netlist table; of a conductance of a crossbar: -1
    a: Ints  # (n,) node
    b: Ints  # (n,) node
    current: Floats  # (n,) A, from a to b
    conducts: Bools  # (n,) of diodes: a perfect one carries current, others are beyond their knee, or above IS

    def __len__(self) -> int:
        return self.a.size


def count_elements(solution: Solution) -> int:
    """How many elements there are, conductances of crossbars too."""
    tables = solution.circuit.netlist.tables
    return sum(len(tables[kind]) for kind in _SHOWN) + sum(
        int(np.count_nonzero(x.g)) for x in solution.circuit.crossbars
    )


def elements_of(solution: Solution, row: int, crossbars: bool) -> Elements:
    """All elements but open resistors; with `crossbars` their conductances too, those that are not 0."""
    c, rows = solution.circuit, slice(row, row + 1)
    pieces: list[tuple[str, Ints, Ints, Ints, Floats]] = []
    for kind in _SHOWN:
        table = c.netlist.tables[kind]
        members = np.arange(len(table))
        if kind == "R":
            members = np.flatnonzero(table.values["g"] > 0)
        if members.size:
            current = table_currents(solution, kind, members, rows)[0]
            pieces.append((kind, members, table.a[members], table.b[members], current))
    if crossbars and c.crossbars:
        v = solution.voltages(rows=rows)[0]
        for x in c.crossbars:
            i, j = np.nonzero(x.g)
            a, b = x.rows[i], x.cols[j]
            pieces.append(("R", np.full(a.size, -1), a, b, x.g[i, j] * (v[a] - v[b])))
    none = np.zeros(0, np.int64)
    number, a, b = (np.concatenate([none, *(piece[k] for piece in pieces)]) for k in (1, 2, 3))
    letters = np.concatenate([np.zeros(0, "U1"), *(np.full(piece[1].size, piece[0]) for piece in pieces)])
    conducts = np.zeros(letters.size, np.bool_)
    conducts[letters == "D"] = conducting(solution, row)
    current = np.concatenate([np.zeros(0), *(piece[4] for piece in pieces)])
    return Elements(letters, number, a, b, current, conducts)


def conducting(solution: Solution, row: int) -> Bools:
    """For each diode of the netlist: whether it conducts, forward or beyond its breakdown.

    A perfect one does where it carries current, a piecewise-linear one beyond a knee, a Shockley diode above IS.
    """
    c, rows = solution.circuit, slice(row, row + 1)
    found = np.zeros(len(c.netlist.tables["D"]), bool)
    j, ideal = c.junctions, c.ideal_diodes
    own = np.flatnonzero(j.kind == KINDS.index("D"))
    if own.size:
        law, p = j.law[own], j.params[own].T
        v = solution.drops(j.a[own], j.b[own], rows)[0]
        current = branch_current(law, j.params[own], v)[0]
        beyond = ((p[G_FORWARD] > 0) & (v > p[V_FORWARD])) | ((p[G_REVERSE] > 0) & (v < -p[V_REVERSE]))
        found[j.row[own[np.where(law == Law.PWL, beyond, np.abs(current) > p[IS])]]] = True
    if len(ideal):
        current = ideal_currents(solution, rows)[0]
        found[ideal.row[current > _NOTHING * max(float(np.abs(current).max()), 1e-300)]] = True
    return found


def name_of(solution: Solution, elements: Elements, k: int) -> str:
    """The name of an element; '' for a conductance of a crossbar."""
    number = int(elements.number[k])
    return "" if number < 0 else solution.circuit.netlist.tables[str(elements.kind[k])].names[number]
