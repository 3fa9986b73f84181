"""Results as named columns: v(NODE), i(SOURCE), then what is saved, such as @R1[p].

Each name occurs once, in any case: if V(Out) is saved, that is the existing column v(out).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from circuitsim.circuit import Circuit
    from circuitsim.saved import Saved
    from circuitsim.solution import Solution
    from circuitsim.sweeping import SweepResult

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Columns:
    """Values by name, the rows those of a batch, or the points of a sweep."""

    names: list[str]
    units: list[str]  # V, A, W or ohm
    unique: Bools  # (n,) False also where there is no value
    values: Floats  # (rows, n) in these units; NaN: no value

    def take(self, kept: list[int]) -> Columns:
        """Some of the columns, in their order."""
        if len(kept) == len(self.names):
            return self
        names, units = ([texts[k] for k in kept] for texts in (self.names, self.units))
        return Columns(names, units, self.unique[kept], self.values[:, kept])

    def once(self) -> Columns:
        """Each name once, also where `.output` has a node twice."""
        return self.take(fresh(self.names))


def fresh(names: Sequence[str], given: Iterable[str] = ()) -> list[int]:
    """Which names are neither given nor there before, in any case.

    >>> fresh(["i(R1)", "V(Out)", "I(r1)"], given=["v(out)"])
    [0]
    """
    taken = {name.lower() for name in given}
    first = {name.lower(): k for k, name in reversed(list(enumerate(names)))}
    return sorted(k for name, k in first.items() if name not in taken)


def apart(form: str, names: Iterable[str], own: Iterable[str]) -> list[str]:
    """Names for columns: form(NAME) where the table already uses the name, in any case, for another column.

    >>> apart("param", ["V1", "Status"], own=["STATUS"])
    ['V1', 'param(Status)']
    """
    taken = {name.lower() for name in own}
    return [f"{form}({name})" if name.lower() in taken else name for name in names]


def of_solution(solution: Solution, saved: Saved, nodes: Ints | None = None, rows: slice | None = None) -> Columns:
    """Voltages of nodes (default: all except ground), currents of sources, saved values; in some rows of the batch."""
    c, rows = solution.circuit, rows or slice(0, solution.batch)
    nodes = all_nodes(c) if nodes is None else nodes
    finite = bool(np.isfinite(solution.x).all())
    nothing = np.full((solution.batch, len(c.sources)), np.nan), np.zeros(len(c.sources), bool)
    currents, sure = solution.source_currents if finite else nothing
    known = solution.determined[nodes] & ~c.left_out[nodes] if finite else np.zeros(nodes.size, bool)
    more = Columns(saved.labels, saved.units, finite & ~saved.ambiguous & ~saved.left_out, saved.values(rows))
    values = solution.voltages(nodes, rows), currents[rows]
    return _joined(c, nodes, np.arange(len(c.sources)), [known, sure], values, more)


def of_sweep(
    result: SweepResult, nodes: Ints | None = None, sources: Ints | None = None, points: Ints | slice = slice(None)
) -> Columns:
    """Voltages of nodes (default: all except ground), currents of all sources, saved values; at some points."""
    c = result.circuit
    nodes = all_nodes(c) if nodes is None else nodes
    sources = np.arange(len(c.sources)) if sources is None else sources
    known, sure = result.determined & ~result.left_out, ~result.saved_ambiguous & ~result.saved_left_out
    more = Columns(result.saved_labels, result.saved_units, sure, result.saved[points])
    values = result.voltages[points][:, nodes], result.currents[points][:, sources]
    return _joined(c, nodes, sources, [known[nodes], ~result.ambiguous[sources]], values, more)


def _joined(
    circuit: Circuit, nodes: Ints, sources: Ints, unique: Iterable[Bools], values: Iterable[Floats], saved: Columns
) -> Columns:
    """Voltages and currents, `unique` and `values` of both, and what of the saved columns is not among them."""
    names = [f"v({circuit.nodes[k]})" for k in nodes.tolist()]
    names += [f"i({circuit.source_names[k]})" for k in sources.tolist()]
    units = ["V"] * nodes.size + ["A"] * sources.size
    more = saved.take(fresh(saved.names, given=names))
    both = np.concatenate([*unique, more.unique]), np.concatenate([*values, more.values], axis=1)
    return Columns(names + more.names, units + more.units, *both)


def all_nodes(circuit: Circuit) -> Ints:
    """All nodes but ground."""
    return np.arange(1, len(circuit.nodes))


def shown_nodes(circuit: Circuit) -> Ints:
    """The nodes of `.output`, or without one all except ground."""
    return np.array(circuit.netlist.read_nodes, np.int64) if circuit.netlist.outputs else all_nodes(circuit)
