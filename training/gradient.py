"""The outputs, the trained elements, and the gradient of a cost with respect to them, from two fields on the nodes.

The cost of one row of the batch is C = 1/2 sum_k (y_k - target_k)^2 over the output nodes, V^2; that of a batch is the
mean. Three methods find its gradient, for any circuit: equilibrium propagation (eqprop.py), the adjoint at the
equilibrium and back-propagation through sweeps (adjoint.py). As currents are linear in the trained values, all three
reduce to two fields:

    delta, V/S: how the nodes move for a pull along -dC/dv, and     total, V: the sum of two states;
    conductance from a to b:      dE/dg = 1/2 (va - vb)^2     dC/dg = 1/2 (delta_a - delta_b) (total_a - total_b)
    current source from a to b:   dE/di = va - vb             dC/di = delta_a - delta_b
    voltage source, va - vb = e:  dE/de = current out of the nodes that move with a
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim import Circuit, Problem, SettingsError
from circuitsim.branches import VALUE_OF
from circuitsim.drive import Drive
from circuitsim.laws import branch_current
from circuitsim.netlist.model import CROSSBAR, Netlist

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_AT_ONCE = 1 << 20  # numbers of a temporary array


@dataclass(frozen=True)
class Outputs:
    """The voltages that are read and nudged: of nodes, against ground or another node."""

    nodes: Ints  # (k,)
    references: Ints  # (k,) nodes; 0: ground
    units: Ints  # (k,) free unit of each node; negative: its potential is known
    reference_units: Ints  # (k,) the same of the references

    def voltages(self, problem: Problem, drive: Drive, x: Floats) -> Floats:
        """(rows, k) V."""
        y = problem.node_voltages(x, drive.fixed, self.nodes)
        return y - problem.node_voltages(x, drive.fixed, self.references) if self.references.any() else y

    def onto_units(self, values: Floats, n_free: int) -> Floats:
        """Currents of values (rows, k) from the references into the nodes, in all at each free unit, (rows, n_free)."""
        return _into_ends(values, self.units, self.reference_units, n_free)

    def onto_nodes(self, values: Floats, n_nodes: int) -> Floats:
        """The same at each node, (rows, n_nodes), ground too."""
        return _into_ends(values, self.nodes, self.references, n_nodes)

    def ends(self, n_free: int) -> Ints:
        """How many outputs, and references, each free unit is, (n_free,)."""
        units = np.concatenate([self.units, self.reference_units])
        return np.bincount(units[units >= 0], minlength=n_free)

    def nudge_matrix(self, n_free: int) -> sparse.coo_array:
        """The second derivatives of the cost by the units, (n_free, n_free): the conductances of a nudge of 1 S."""
        a, b = self.units, self.reference_units
        i, j = np.concatenate([a, b, a, b]), np.concatenate([a, b, b, a])
        free = (i >= 0) & (j >= 0)
        sign = np.repeat([1.0, -1.0], 2 * a.size)[free]
        return sparse.coo_array((sign, (i[free], j[free])), shape=(n_free, n_free))


@dataclass(frozen=True)
class Fields:
    """What a gradient needs to know of the states, (rows, ...); the mean is over `samples`: back-propagation has many
    rows for each sample."""

    delta: Floats  # (rows, n_nodes) V/S, 0 at known nodes
    total: Floats  # (rows, n_nodes) V
    secants: Floats  # (rows, n_junctions) S: current difference over voltage difference of each nonlinear branch
    pull: Floats  # (rows, k) V: the direct derivative of C with respect to the outputs
    samples: int


def check_outputs(netlist: Netlist) -> None:
    """SettingsError when the netlist has no `.output` nodes."""
    if not netlist.outputs:
        raise SettingsError(f"{netlist.path} has no outputs; add `.output` with the nodes that are read")


def _into_ends(values: Floats, nodes: Ints, references: Ints, n: int) -> Floats:
    """Sums of values (rows, k) at the nodes, less those at the references, (rows, n); negative ones count nowhere."""
    out = np.zeros((values.shape[0], n))
    for ends, add in ((nodes, np.add), (references, np.subtract)):
        add.at(out.T, ends[ends >= 0], values.T[ends >= 0])
    return out


def find_outputs(problem: Problem) -> Outputs:
    """What `.output` reads. SettingsError when that is nothing, or when a voltage that is read cannot change."""
    netlist, t = problem.circuit.netlist, problem.topology
    check_outputs(netlist)
    nodes, references = np.array(netlist.outputs, np.int64), np.array(netlist.references, np.int64)
    units, others = t.index_of_node[nodes], t.index_of_node[references]
    apart = t.islands.group[nodes] != t.islands.group[references]
    still = ((units < 0) & (others < 0)) | (units == others)
    if (apart | still).any():
        k = int((apart | still).argmax())
        node, reference = int(nodes[k]), int(references[k])
        if apart[k]:
            why = f"nothing joins it to {'the other' if reference else 'ground'}"
        elif reference:
            why = "sources hold both, or join them"
        else:
            why = "it is held by a voltage source" if node else "it is ground"
        what = "output" if reference else "output node"
        raise SettingsError(f"{what} {netlist.output_names[k]}: {why}: nothing can teach it; read another node")
    return Outputs(nodes, references, units, others)


def secants(problem: Problem, v1: Floats, v2: Floats) -> Floats:
    """(Current difference) / (voltage difference) of the nonlinear branches between two states, S."""
    j = problem.circuit.junctions
    if not len(j):
        return np.zeros((v1.shape[0], 0))
    u1, u2 = v1[:, j.a] - v1[:, j.b], v2[:, j.a] - v2[:, j.b]
    i1, slope = branch_current(j.law, j.params, u1)
    i2, _ = branch_current(j.law, j.params, u2)
    gap = u1 - u2
    near = np.abs(gap) <= 1e-9 * np.maximum(np.abs(u1), np.abs(u2))
    return np.where(near, slope, (i1 - i2) / np.where(near, 1.0, gap))


class Trained(NamedTuple):
    """A trained element and where its values are: `where` are rows of the conductors, ties or current sources."""

    name: str
    kind: str  # crossbar, R, V, I
    where: Ints  # (n,); for a crossbar: its number
    shape: tuple[int, ...]  # of its values: (n,), or (rows, columns) of crossbars and of arrays with two ranges

    @property
    def is_conductance(self) -> bool:
        return self.kind in (CROSSBAR, "R")


@dataclass(frozen=True)
class Group:
    """Trained elements whose values are computed together, in a row: all of one kind, or a crossbar by itself."""

    elements: list[Trained]
    at: list[int]  # the place of each among all that are trained

    @property
    def kind(self) -> str:
        return self.elements[0].kind

    @property
    def is_conductance(self) -> bool:
        return self.elements[0].is_conductance

    @cached_property
    def where(self) -> Ints:
        """(n,), as in Trained."""
        return np.concatenate([x.where for x in self.elements])

    @cached_property
    def stops(self) -> Ints:
        """(elements,): where the values of each end in the row of all."""
        return np.cumsum([x.where.size for x in self.elements])

    def values(self, circuit: Circuit) -> Floats:
        """A copy of their values, (n,), of a crossbar's (nr, nc), S, V or A; with a batch those of its first row."""
        if self.kind == CROSSBAR:
            return circuit.crossbars[int(self.where[0])].g.copy()
        return circuit.conductors.g[self.where] if self.kind == "R" else self.batch(circuit)[0]

    def batch(self, circuit: Circuit) -> Floats:
        """All values of sources, (rows, n), V or A."""
        return (circuit.ties.e if self.kind == "V" else circuit.current_sources.i)[:, self.where]

    def spread(self, by_name: Mapping[str, float]) -> Floats:
        """One number for each element, by its name in lower case, for all its values: broadcasts to `values`."""
        numbers = np.array([by_name[x.name.lower()] for x in self.elements])
        return np.repeat(numbers, np.diff(self.stops, prepend=0))

    def name_of(self, k: int) -> str:
        """The element that has the k-th value."""
        return self.elements[0 if self.kind == CROSSBAR else int(np.searchsorted(self.stops, k, "right"))].name


def grouped(trained: Sequence[Trained]) -> list[Group]:
    """The elements in groups."""
    at: dict[tuple[str, int], list[int]] = {}
    for k, (_, kind, where, _) in enumerate(trained):
        at.setdefault((kind, int(where[0]) if kind == CROSSBAR else 0), []).append(k)
    return [Group([trained[k] for k in places], places) for places in at.values()]


def by_element(groups: Sequence[Group], values: Sequence[Floats]) -> dict[str, Floats]:
    """Values of each group, (..., n) or those of a crossbar, by element, (..., *shape), in the order of `.train`."""
    count = sum(len(group.at) for group in groups)
    names, found = [""] * count, [np.empty(0)] * count
    for group, value in zip(groups, values, strict=True):
        stop = 0
        for k, (name, kind, where, shape) in zip(group.at, group.elements, strict=True):
            start, stop = stop, stop + where.size
            names[k], found[k] = name, value if kind == CROSSBAR else value[..., start:stop]
            if len(shape) > 1 and kind != CROSSBAR:
                found[k] = found[k].reshape(*value.shape[:-1], *shape)
    return dict(zip(names, found, strict=True))


def with_group_values(circuit: Circuit, groups: Sequence[Group], values: Sequence[Floats]) -> Circuit:
    """The circuit with these values of the groups, finite and without negative conductances."""
    crossbars, changed = list(circuit.crossbars), dict[str, Any]()
    for group, value in zip(groups, values, strict=True):
        if group.kind == CROSSBAR:
            k = int(group.where[0])
            crossbars[k] = replace(crossbars[k], g=np.ascontiguousarray(value))
            continue
        name, column, _ = VALUE_OF[group.kind]
        new = getattr(circuit, name)
        now = getattr(new, column).copy()
        now[..., group.where] = value
        changed[name] = replace(new, **{column: now})
    return replace(circuit, crossbars=tuple(crossbars), **changed)


def trained_elements(problem: Problem) -> list[Trained]:
    """The elements of `.train`, in its order. SettingsError for those that cannot have a gradient."""
    c = problem.circuit
    if not c.netlist.trained:
        raise SettingsError(f"{c.netlist.path} has nothing to train; add `.train` with the elements that learn")
    return find_elements(problem, c.netlist.trained, ".train")


def find_elements(problem: Problem, names: Sequence[str], command: str) -> list[Trained]:
    """The elements of these names, given by a card of the netlist. SettingsError for those without a gradient."""
    c = problem.circuit
    named = [(name, *c.rows_of(name)) for name in names]
    places = {}
    for kind, branches in (("R", c.conductors), ("V", c.ties), ("I", c.current_sources)):
        places[kind] = iter(branches.of_each(kind, [(start, stop) for _, k, start, stop in named if k == kind]))
    found = []
    for name, kind, start, stop in named:
        if kind == CROSSBAR:
            found.append(Trained(name, kind, np.arange(start, stop), c.crossbars[start].g.shape))
            continue
        where = next(places[kind])
        if where.size != stop - start:
            raise SettingsError(
                f"{name}: a resistor of 0 ohm cannot learn; give it a resistance, or leave it out of {command}"
            )
        found.append(Trained(name, kind, where, c.netlist.shape_of(name, where.size)))
        if kind == "V":
            if not c.reciprocal:
                raise SettingsError(
                    f"{name}: no gradient reaches a voltage source beside controlled sources; leave it out of {command}"
                )
            _check_no_diode_hangs(problem, name, where, command)
    return found


def gradient(problem: Problem, trained: Sequence[Trained], outputs: Outputs, fields: Fields) -> list[Floats]:
    """dC/dtheta of each trained element, shaped as its values; mean over the batch. (V^2/S, V^2/A, V)"""
    groups = grouped(trained)
    return list(by_element(groups, gradients(problem, groups, outputs, fields)).values())


def gradients(problem: Problem, groups: Sequence[Group], outputs: Outputs, fields: Fields) -> list[Floats]:
    """`gradient` of each group.

    It is 0 for an open conductance to a part that nothing else joins to ground: whatever its value, nothing flows.
    """
    c = problem.circuit
    d, s, loose = fields.delta, fields.total, problem.topology.islands.pinned
    found = []
    by_source = iter(source_gradients(problem, [x for x in groups if not x.is_conductance], outputs, fields))
    for group in groups:
        if group.kind == CROSSBAR:
            x = c.crossbars[int(group.where[0])]
            value = crossbar_gradient(d[:, x.rows], d[:, x.cols], s[:, x.rows], s[:, x.cols])
            if loose.any():
                value[loose[x.rows][:, None] != loose[x.cols]] = 0.0
        elif group.kind == "R":
            a, b = c.conductors.a[group.where], c.conductors.b[group.where]
            value = _conductor_gradient(d, s, a, b)
            value[loose[a] != loose[b]] = 0.0
        else:
            value = next(by_source).sum(axis=0)
        value /= fields.samples
        found.append(value)
    return found


def source_gradients(problem: Problem, groups: Sequence[Group], outputs: Outputs, fields: Fields) -> list[Floats]:
    """dC/dtheta of each group of sources in each row, (rows, n), with C as `fields` has it for that row."""
    c, d, forest = problem.circuit, fields.delta, problem.topology.forest
    by_tie = np.zeros((d.shape[0], 0))
    if any(group.kind == "V" for group in groups):
        by_tie = forest.pulls(_out_of_nodes(problem, outputs, fields)[:, forest.nodes], len(c.ties))
    a, b = c.current_sources.a, c.current_sources.b
    return [by_tie[:, x.where] if x.kind == "V" else d[:, a[x.where]] - d[:, b[x.where]] for x in groups]


def _conductor_gradient(d: Floats, s: Floats, a: Ints, b: Ints) -> Floats:
    """Sum over the rows of the batch of 1/2 (delta_a - delta_b) (total_a - total_b), (n,), some branches at a time."""
    out = np.empty(a.size)
    step = max(_AT_ONCE // d.shape[0], 1)
    for first in range(0, a.size, step):
        i, j = a[first : first + step], b[first : first + step]
        out[first : first + step] = 0.5 * ((d[:, i] - d[:, j]) * (s[:, i] - s[:, j])).sum(axis=0)
    return out


def crossbar_gradient(delta_row: Floats, delta_col: Floats, total_row: Floats, total_col: Floats) -> Floats:
    """Sum over the rows of the batch of 1/2 (delta_a - delta_b) (total_a - total_b), (nr, nc)."""
    if not delta_row.any():  # known rows: a product of matrices
        found = total_row.T @ delta_col  # and on in its place: new memory of this size takes longer than the sums
        np.subtract((delta_col * total_col).sum(axis=0), found, out=found)
        found *= 0.5
        return found
    out = np.zeros_like(delta_col, order="C", shape=(delta_row.shape[1], delta_col.shape[1]))
    for da, db, sa, sb in zip(delta_row, delta_col, total_row, total_col, strict=True):
        out += (da[:, None] - db) * (sa[:, None] - sb)
    return 0.5 * out


def _check_no_diode_hangs(problem: Problem, name: str, ties: Ints, command: str) -> None:
    """SettingsError if an ideal diode hangs on the source: no field here includes that diode's current."""
    c, forest = problem.circuit, problem.topology.forest
    if not len(c.ideal_diodes):
        return
    moved = forest.nodes[forest.moved_by(ties)]
    hangs = np.isin(c.ideal_diodes.a, moved) | np.isin(c.ideal_diodes.b, moved)
    if hangs.any():
        diode = c.element(c.ideal_diodes, int(np.flatnonzero(hangs)[0]))
        raise SettingsError(
            f"{name}: ideal diode {diode} hangs on this voltage source, and no gradient reaches that; give "
            f"the diode's model a RON, or leave the source out of {command}"
        )


def _out_of_nodes(problem: Problem, outputs: Outputs, fields: Fields) -> Floats:
    """What the field delta drives out of each node through all branches except ties, (rows, n_nodes), plus dC/dv."""
    c, d = problem.circuit, fields.delta
    out = np.zeros((d.shape[1], d.shape[0]))
    for branches, g in ((c.conductors, c.conductors.g), (c.junctions, fields.secants)):
        if len(branches):
            current = (g * (d[:, branches.a] - d[:, branches.b])).T
            np.add.at(out, branches.a, current)
            np.subtract.at(out, branches.b, current)
    for x in c.crossbars:
        row, col = d[:, x.rows], d[:, x.cols]
        np.add.at(out, x.rows, (row * x.g.sum(axis=1) - col @ x.g.T).T)
        np.add.at(out, x.cols, (col * x.g.sum(axis=0) - row @ x.g).T)
    return out.T + outputs.onto_nodes(fields.pull, out.shape[0])
