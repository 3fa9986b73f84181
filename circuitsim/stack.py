"""Circuits of one structure side by side, as one circuit: its copies share nothing but ground.

Draws of a Monte Carlo analysis and points of a sweep are small circuits that differ in their values. Next to each other
they are one circuit whose solution is that of each of them, and NumPy and the solvers work on all of them at once. What
is judged by the largest voltage or current of a circuit - when to stop, what is rounding - is judged in each copy by
its own (Problem.largest).

Nodes, branches and table rows of a copy come after those of the copies before it, in their own order; node 0 of all is
ground.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import KINDS, Branches, Circuit
from circuitsim.errors import TopologyError
from circuitsim.netlist.model import Table
from circuitsim.netlist.saves import NODES, Save
from circuitsim.problem import Drive, Problem, compile_problem

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

B = TypeVar("B", bound=Branches)

T = TypeVar("T")

_FEW = 4  # circuits are not worth a stack
_PATIENCE = 64  # circuits more in stacks that were not solved than in others: then the rest go one by one
_MOST_COPIES = 256
UNKNOWNS = 30_000  # of a stack: its arrays stay in the caches


class Stacks:
    """For up to `count` circuits of the branches of `base`: how many to solve at once (`size`), and their problem.

    A problem is compiled once for each number of circuits. Circuits that cannot be stacked, or would have more unknowns
    than `unknowns`, have the size 1.
    """

    def __init__(self, base: Problem, count: int, unknowns: int = UNKNOWNS) -> None:
        self.base, self.problems = base, dict[int, Problem]()
        c, t = base.circuit, base.topology
        plain = not c.crossbars and t.islands.n_parts == 1 and not any(spec.inner for spec in t.dense)
        most = min(_MOST_COPIES, unknowns // max(base.n_free, 1)) if plain else 1
        shares = -(-count // max(most, 1))
        self.size = max(1, -(-count // max(shares, 1)))  # nearly the same for each

    def problem(self, circuits: Sequence[Circuit]) -> Problem:
        """These circuits, which have the branches of the base, as one. TopologyError for loops without a solution."""
        stack, count = stacked(circuits), len(circuits)
        known = self.problems.get(count)
        problem = known.with_circuit(stack) if known else compile_problem(stack)
        self.problems[count] = replace(problem, single=self.base)
        return self.problems[count]


def side_by_side(points: Iterable[T], size: int, many: Callable[[list[T]], bool], one: Callable[[T], None]) -> None:
    """Solve the first point alone, as `one`, then shares of `size` as `many`, which says whether they are solved.

    Those that are not, or have no solution (TopologyError), are found by halving, and solved as `one`. When too many
    were in vain, all that are left are.
    """
    points = iter(points)
    for point in islice(points, 1):
        one(point)
    in_vain = 0
    while part := list(islice(points, size)):
        parts = [part]
        while parts:
            part = parts.pop(0)
            if len(part) < _FEW or in_vain > _PATIENCE:
                for point in part:
                    one(point)
                continue
            try:
                solved = many(part)
                in_vain += -len(part) if solved else len(part)
            except TopologyError:
                solved = False
            if not solved:
                parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]


def stacked(circuits: Sequence[Circuit]) -> Circuit:
    """One circuit of these, which have the same branches (circuit.check_structure), one input each, and no crossbars.

    >>> from circuitsim.circuit import parse
    >>> deck = "divider\\nV1 in 0 {}\\nR1 in out 1k\\nR2 out 0 1k"
    >>> two = stacked([parse(deck.format(10)), parse(deck.format(2))])
    >>> two.copies, two.nodes, two.conductors.a, two.ties.e
    (2, ['0', 'in', 'out', 'in', 'out'], array([1, 2, 3, 4]), array([[10.,  2.]]))
    """
    first = circuits[0]
    netlists = [circuit.netlist for circuit in circuits]
    names = [first.nodes[0], *first.nodes[1:] * len(circuits)]
    tables = {kind: _tables([netlist.tables[kind] for netlist in netlists], first) for kind in first.netlist.tables}
    groups: dict[str, Any] = {
        group: _branches([getattr(circuit, group) for circuit in circuits], first)
        for group in ("conductors", "ties", "current_sources", "junctions", "ideal_diodes", "controlled")
    }
    netlist = replace(first.netlist, nodes=names, tables=tables)
    return replace(first, netlist=netlist, copies=len(circuits), **groups)


def stacked_saves(saves: Sequence[Save], circuit: Circuit, copies: int) -> list[Save]:
    """What to save of each copy of a circuit; the columns of each of these are those of one copy after another."""
    found = []
    for save in saves:
        if save.kind == NODES:
            rows = _nodes(save.rows, copies, circuit)
        else:
            rows = _rows(save.rows, copies, len(circuit.netlist.tables[save.kind]))
        minus = None if save.minus is None else _nodes(save.minus, copies, circuit)
        found.append(replace(save, labels=save.labels * copies, rows=rows, minus=minus))
    return found


def _nodes(nodes: Ints, copies: int, circuit: Circuit) -> Ints:
    """These nodes in each copy of a circuit; ground stays node 0."""
    return np.where(np.tile(nodes, copies) > 0, _rows(nodes, copies, len(circuit.nodes) - 1), 0)


def _rows(rows: Ints, copies: int, size: Ints | int) -> Ints:
    """These rows of a table in each copy; in each, the table has `size` rows (or that of each row has)."""
    return np.tile(rows, copies) + (np.arange(copies)[:, None] * (size + np.zeros_like(rows))).ravel()


def _tables(tables: Sequence[Table], circuit: Circuit) -> Table:
    """The elements of all copies; their places in the source are those of one."""
    first, copies, linked = tables[0], len(tables), tables[0].links.items()
    return replace(
        first,
        names=first.names * copies,
        a=_nodes(first.a, copies, circuit),
        b=_nodes(first.b, copies, circuit),
        seq=np.tile(first.seq, copies),
        order=np.tile(first.order, copies),
        values={name: np.concatenate([table.values[name] for table in tables]) for name in first.values},
        links={name: _link(name, link, copies, circuit, len(circuit.netlist.tables["V"])) for name, link in linked},
    )


def _link(name: str, link: Ints, copies: int, circuit: Circuit, sources: int) -> Ints:
    """What controls sources: `ca` and `cb`, nodes; `control`, one of so many `sources`, or -1."""
    if name != "control":
        return _nodes(link, copies, circuit)
    return np.where(np.tile(link, copies) >= 0, _rows(link, copies, sources), -1)


def _branches(branches: Sequence[B], circuit: Circuit) -> B:
    """The branches of one kind of all copies."""
    first, copies = branches[0], len(branches)
    # Of kind -1, rshunt, the row is a node.
    size = np.array([*(len(circuit.netlist.tables[kind]) for kind in KINDS), len(circuit.nodes) - 1])
    columns: dict[str, Any] = {
        "a": _nodes(first.a, copies, circuit),
        "b": _nodes(first.b, copies, circuit),
        "kind": np.tile(first.kind, copies),
        "row": _rows(first.row, copies, size[first.kind]),
    }
    for name in (f.name for f in fields(first) if f.name not in columns):
        if name in ("ca", "cb", "control"):
            columns[name] = _link(name, getattr(first, name), copies, circuit, len(circuit.ties))
        else:
            columns[name] = np.concatenate([getattr(x, name) for x in branches], axis=1 if name in ("e", "i") else 0)
    return replace(first, **columns)


def units_in_copies(stack: Problem) -> Ints:
    """The unit of a stack that each unit of one of its circuits is in each copy, (copies, n_free of one)."""
    nodes = np.arange(stack.circuit.copies)[:, None] * (len(stack.one.circuit.nodes) - 1)
    return stack.topology.index_of_node[stack.one.topology.root_of_unit + nodes]


def carried_in_copies(stack: Problem, carried: Floats) -> Floats:
    """What is carried in a stack, (1, carriers), in each copy, (copies, carriers of one)."""
    copies, c = stack.circuit.copies, stack.circuit
    ends = np.cumsum([stack.topology.links.size, len(c.controlled)])
    return np.concatenate([part.reshape(copies, -1) for part in np.split(carried[0], ends)], axis=1)


def copies_as_rows(stack: Problem, drive: Drive) -> Drive:
    """A drive of a stack, of one row, as that of one of its circuits with a row for each; of others as it is.

    Its potentials stay together, nothing is carried, and nothing bounds a unit: there are no ideal diodes.
    """
    copies = stack.circuit.copies
    if copies == 1:
        return drive
    units = units_in_copies(stack)
    of_units = {
        name: x[0][units] if (x := getattr(drive, name)).shape[1] else x
        for name in ("injection", "source_flow", "source_abs", "fixed_abs")
    }
    lo, hi = (bound[:, units[0]] for bound in (drive.lo, drive.hi))
    offset = unstacked(drive.junction_offset, copies)
    return replace(drive, rows=slice(0, copies), lo=lo, hi=hi, junction_offset=offset, **of_units)


def unstacked(values: NDArray[Any], copies: int, nodes: bool = False) -> NDArray[Any]:
    """Values (rows, n) that copies side by side have, as those of each copy, (rows x copies, n / copies).

    nodes: they are of nodes, of which ground is in every copy.
    """
    if copies == 1:
        return values
    if not nodes:
        return values.reshape(len(values) * copies, -1)
    others = values[:, 1:].reshape(len(values) * copies, -1)
    return np.concatenate([np.repeat(values[:, :1], copies, axis=0), others], axis=1)
