"""Circuits of one structure side by side, as one circuit: its copies share nothing but ground.

The draws of a Monte Carlo analysis and the points of a sweep are often small circuits that differ in their values only.
Side by side they form one circuit, whose solution contains that of each, and NumPy and the solvers work on all of them
at once. What is judged by the largest voltage or current of a circuit - when to stop, what counts as rounding - is
judged in each copy by that copy's own (copies.py).

The branches of a copy follow those of the copies before it, in their own order, as do nodes and rows of tables
(netlist/copies.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from circuitsim.branches import BATCHED, GROUPS, Branches
from circuitsim.build import build_circuit
from circuitsim.circuit import Circuit
from circuitsim.drive import Drive
from circuitsim.errors import NetlistError, TopologyError
from circuitsim.netlist import Netlist
from circuitsim.netlist.copies import links_in_copies, nodes_in_copies, rows_in_copies, side_by_side
from circuitsim.netlist.model import KINDS
from circuitsim.netlist.saves import NODES, Save
from circuitsim.problem import Problem, arranged

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

B = TypeVar("B", bound=Branches)
T = TypeVar("T")

FEW_STEPS = 20  # of newton for a stack; from the solution of another of its circuits it takes some 3
_FEW = 4  # circuits are not worth a stack
_MOST_COPIES = 256
UNKNOWNS = 30_000  # of a stack: its arrays stay in the caches
_BRANCHES = 10  # that count as an unknown


def most_copies(problem: Problem, unknowns: int = UNKNOWNS) -> int:
    """How many circuits like that of a problem to solve at once, within so many unknowns in all; 1: one by one.

    Dense layers, which would become sparse in a stack, are solved one by one, as are circuits with islands that may
    float (Islands.held_by_curves).
    """
    t = problem.topology
    plain = not problem.circuit.crossbars and t.islands.held_by_curves(problem.circuit) and not t.dense
    size = max(problem.n_free, len(problem.circuit.conductors) // _BRANCHES, 1)
    most = min(_MOST_COPIES, unknowns // size) if plain else 1
    return most if most >= _FEW else 1


class Stacks:
    """For up to `count` circuits of the branches of `base`: how many to solve at once (`size`), and their problem.

    What depends on the structure is made once for each number of circuits, from the base: the same in every process.
    """

    def __init__(self, base: Problem, count: int, unknowns: int = UNKNOWNS) -> None:
        self.base, self.problems = base, dict[int, Problem]()
        most = most_copies(base, unknowns)
        equal = -(-count // max(-(-count // most), 1))  # nearly the same for each
        self.size = equal if equal >= _FEW else most

    def problem(self, stack: Circuit) -> Problem:
        """The problem of some of these circuits as one. TopologyError for loops without a solution, and where branches
        or islands of some are not those of the base.
        """
        count = stack.copies
        if count not in self.problems:
            whole = arranged(stacked([self.base.circuit.at_rows(slice(0, 1))] * count))
            self.problems[count] = replace(whole, single=self.base)
        known = self.problems[count]
        problem = known.with_circuit(stack)
        if problem.topology is not known.topology:
            raise TopologyError("islands of some of these circuits are not those of the others")
        return problem


def solve_in_shares(points: Iterable[T], size: int, many: Callable[[list[T]], bool], one: Callable[[T], None]) -> None:
    """Solve the first point alone, as `one`, then shares of `size` as `many`, which says whether they are solved.

    Those that are not solved, or are faulty (NetlistError), are found by halving, and solved as `one`. So are all the
    rest, once attempts in vain exceed those solved in shares by more than finding one in a share takes.
    """
    points = iter(points)
    for point in islice(points, 1):
        one(point)
    in_vain = 0  # points in shares that were not solved, less those in others
    while share := list(islice(points, size)):
        parts = [share]
        while parts:
            part = parts.pop(0)
            if len(part) < _FEW or in_vain > 2 * len(share):
                for point in part:
                    one(point)
                continue
            try:
                solved = many(part)
                in_vain += -len(part) if solved else len(part)
            except NetlistError:
                solved = False
            if not solved:
                parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]


def stacked(circuits: Sequence[Circuit]) -> Circuit:
    """One circuit of these, which have the same branches (circuit.check_structure), one input each, and no crossbars.

    >>> from circuitsim.build import parse
    >>> deck = "divider\\nV1 in 0 {}\\nR1 in out 1k\\nR2 out 0 1k"
    >>> two = stacked([parse(deck.format(10)), parse(deck.format(2))])
    >>> two.copies, two.nodes, two.conductors.a, two.ties.e
    (2, ['0', 'in', 'out', 'in', 'out'], array([1, 2, 3, 4]), array([[10.,  2.]]))
    """
    first, copies = circuits[0], len(circuits)
    tables = [circuit.netlist.tables for circuit in circuits]
    values = {
        (kind, name): np.stack([table[kind].values[name] for table in tables])
        for kind, of_first in first.netlist.tables.items()
        for name in of_first.values
    }
    groups = {group: _branches([getattr(circuit, group) for circuit in circuits], first) for group in GROUPS}
    return replace(first, netlist=side_by_side(first.netlist, copies, values), copies=copies, **groups)


def built(netlist: Netlist, copies: int) -> Circuit:
    """The circuit of a netlist that consists of so many copies side by side, as `stacked` makes it from their circuits.

    Raises NetlistError as build_circuit does.
    """
    whole = build_circuit(netlist)
    size = _sizes(netlist) // copies
    groups: dict[str, Any] = {}
    for group in GROUPS:
        branches: Branches = getattr(whole, group)
        row = branches.row - (branches.kind < 0)  # nodes begin with ground
        order = np.argsort(row // np.maximum(size[branches.kind], 1), kind="stable")
        groups[group] = branches.take(order)
    control, sources, ties = groups["controlled"].control, size[KINDS.index("V")], len(whole.ties) // copies
    if (control >= 0).any():  # a source comes first among the ties of its copy
        control = np.where(control >= 0, control // sources * ties + control % sources, -1)
        groups["controlled"] = replace(groups["controlled"], control=control)
    return replace(whole, copies=copies, **groups)


def stacked_saves(saves: Sequence[Save], circuit: Circuit, copies: int) -> list[Save]:
    """What to save of each copy of a circuit; the columns of each of these are those of one copy after another."""
    if copies == 1:
        return list(saves)
    found, netlist = [], circuit.netlist
    for save in saves:
        if save.kind == NODES:
            rows = nodes_in_copies(save.rows, copies, netlist)
        else:
            rows = rows_in_copies(save.rows, copies, len(netlist.tables[save.kind]))
        minus = None if save.minus is None else nodes_in_copies(save.minus, copies, netlist)
        found.append(replace(save, labels=save.labels * copies, rows=rows, minus=minus))
    return found


def _branches(branches: Sequence[B], circuit: Circuit) -> B:
    """The branches of one kind of all copies."""
    first, copies, netlist = branches[0], len(branches), circuit.netlist
    columns: dict[str, Any] = {
        "a": nodes_in_copies(first.a, copies, netlist),
        "b": nodes_in_copies(first.b, copies, netlist),
        "kind": np.tile(first.kind, copies),
        "row": rows_in_copies(first.row, copies, _sizes(netlist)[first.kind]),
    }
    for name in (f.name for f in fields(first) if f.name not in columns):
        if name in ("ca", "cb", "control"):
            columns[name] = links_in_copies(name, getattr(first, name), copies, netlist, len(circuit.ties))
        else:
            columns[name] = np.concatenate([getattr(x, name) for x in branches], axis=int(name in BATCHED))
    return replace(first, **columns)


def _sizes(netlist: Netlist) -> Ints:
    """Rows of the tables of each kind of branches, and of kind -1, rshunt, whose row is a node: nodes but ground."""
    return np.array([*(len(netlist.tables[kind]) for kind in KINDS), len(netlist.nodes) - 1])


def units_in_copies(stack: Problem) -> Ints:
    """The unit of a stack that each unit of one of its circuits is in each copy, (copies, n_free of one)."""
    one, copies = stack.one, stack.circuit.copies
    nodes = nodes_in_copies(one.topology.root_of_unit, copies, one.circuit.netlist)
    return stack.topology.index_of_node[nodes].reshape(copies, -1)


def carried_in_copies(stack: Problem, carried: Floats) -> Floats:
    """What is carried in a stack, (1, carriers), in each copy, (copies, carriers of one)."""
    sizes = stack.topology.links.size, len(stack.circuit.controlled)
    return unstacked_groups(carried, stack.circuit.copies, sizes)


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


def unstacked_groups(values: NDArray[Any], copies: int, sizes: Sequence[int]) -> NDArray[Any]:
    """The same of groups of columns next to each other; `sizes` of all but the last, in the stack."""
    parts = np.split(values, np.cumsum(sizes), axis=1)
    return np.concatenate([unstacked(part, copies) for part in parts], axis=1)
