"""A circuit: its nodes, and one array table for each physical kind of branches (branches.py). build.py makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.branches import (
    GROUPS,
    Branches,
    Conductors,
    Controlled,
    Crossbar,
    CurrentSources,
    IdealDiodes,
    Junctions,
    Ties,
    take_rows,
)
from circuitsim.errors import At, SettingsError, TopologyError
from circuitsim.laws import Law
from circuitsim.netlist import Netlist
from circuitsim.netlist.model import KINDS, similar
from circuitsim.netlist.tokens import shown
from circuitsim.notebook import circuit_html

if TYPE_CHECKING:
    import networkx as nx

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_EDGES = {  # of the graph of a circuit, by group: what they are called, and the column of their value
    "conductors": ("conductor", "g"), "ties": ("tie", "e"), "current_sources": ("current source", "i"),
    "junctions": ("junction", "law"), "ideal_diodes": ("ideal diode", "vf"),
    "controlled": ("controlled source", "gain"),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Circuit:
    """The nodes and the physical branches of a netlist.

    Open elements are left out: C, and R of infinite resistance unless `.train` names it. A trained one stays as a
    conductor of 0 S, so that it can take a conductance later. `without` leaves out those at some nodes. `copies` are so
    many circuits of one structure side by side (stack.py); of all others there is one.
    """

    netlist: Netlist
    conductors: Conductors
    ties: Ties
    current_sources: CurrentSources
    junctions: Junctions
    ideal_diodes: IdealDiodes
    controlled: Controlled
    crossbars: tuple[Crossbar, ...]
    notes: tuple[tuple[At | None, str], ...]
    dropped: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # nodes whose elements are left out
    copies: int = 1

    @cached_property
    def active(self) -> Controlled:
        """Branches whose currents a method has to find: the controlled sources, then the sources that control F and H.

        The latter are written as H of gain 0 beside their own voltage (`ties.e`).
        """
        s, t, probes = self.controlled, self.ties, self.probes
        none = np.zeros(probes.size, np.int64)
        return Controlled(
            a=np.concatenate([s.a, t.a[probes]]),
            b=np.concatenate([s.b, t.b[probes]]),
            kind=np.concatenate([s.kind, t.kind[probes]]),
            row=np.concatenate([s.row, t.row[probes]]),
            ca=np.concatenate([s.ca, none]),
            cb=np.concatenate([s.cb, none]),
            control=np.concatenate([s.control, none - 1]),
            gain=np.concatenate([s.gain, np.zeros(probes.size)]),
        )

    @cached_property
    def probes(self) -> Ints:
        """The voltage sources, branches of `ties`, whose currents control an F or H."""
        control = self.controlled.control
        return np.unique(control[control >= 0])

    @cached_property
    def active_control(self) -> Ints:
        """For each branch of `active` the one of them whose current controls it, or -1."""
        control = self.active.control
        at = np.searchsorted(self.probes, control.clip(min=0)) + len(self.controlled)
        return np.where(control >= 0, at, -1)

    @cached_property
    def active_voltages(self) -> Ints:
        """The branches of `active` that fix a voltage, all but F and G: their currents are unknowns of newton."""
        return np.flatnonzero(~self.active.gives_current)

    def at_rows(self, rows: slice | Ints) -> Circuit:
        """The circuit with the sources of some rows of its batch."""
        ties, sources = self.ties, self.current_sources
        e, i = take_rows(ties.e, rows), take_rows(sources.i, rows)
        return replace(self, ties=replace(ties, e=e), current_sources=replace(sources, i=i))

    @property
    def batch(self) -> int:
        """Rows of input: the batch size of the sources."""
        return max(self.ties.e.shape[0], self.current_sources.i.shape[0])

    @property
    def resistor_siemens(self) -> Floats:
        """The conductance that each R has now, (n_R,), S: infinite for shorts, 0 for opens."""
        g = self.netlist.tables["R"].values["g"].copy()
        own = self.conductors.kind == KINDS.index("R")
        g[self.conductors.row[own]] = self.conductors.g[own]
        return g

    @property
    def resistor_ohms(self) -> Floats:
        """The same in ohm, (n_R,), as in the netlist where the circuit still has that value: 1/(1/r) may differ.

        Infinite where next to no conductance is left.
        """
        r, g = self.netlist.tables["R"].values["r"], self.resistor_siemens
        with np.errstate(divide="ignore", over="ignore"):
            return np.where(g == 1.0 / r, r, 1.0 / g)

    @cached_property
    def left_out(self) -> NDArray[np.bool_]:
        """For each node: whether it is among those `dropped`."""
        return np.isin(np.arange(len(self.nodes)), self.dropped)

    def __repr__(self) -> str:
        """One line: title and size."""
        rows = f", {self.batch} rows" if self.batch > 1 else ""
        return f"<Circuit {self.netlist.title!r}: {len(self.nodes) - 1} nodes{rows}>"

    @property
    def nodes(self) -> list[str]:
        """Node names; index 0 is ground."""
        return self.netlist.nodes

    @property
    def groups(self) -> dict[str, Branches]:
        """All branches but crossbars, by the names in GROUPS."""
        return {group: getattr(self, group) for group in GROUPS}

    @cached_property
    def driven(self) -> Ints:
        """The branches of `controlled` that fix a voltage: E and H."""
        return np.flatnonzero(~self.controlled.gives_current)

    @cached_property
    def sources(self) -> Branches:
        """All that fix a voltage, so that only KCL gives their currents: `ties` (V, shorts, L), then E and H."""
        parts = self.ties, self.controlled.take(self.driven)
        a, b, kind, row = (np.concatenate([getattr(x, name) for x in parts]) for name in ("a", "b", "kind", "row"))
        return Branches(a=a, b=b, kind=kind, row=row)

    @cached_property
    def source_names(self) -> list[str]:
        """The element of each branch of `sources`."""
        return [self.element(self.sources, k) for k in range(len(self.sources))]

    @property
    def reciprocal(self) -> bool:
        """Whether there are no controlled sources: then the equilibrium minimises an energy, the co-content."""
        return not len(self.controlled)

    def element(self, branches: Branches, i: int) -> str:
        """The name of the netlist element behind a branch."""
        kind = int(branches.kind[i])
        return "rshunt" if kind < 0 else self.netlist.tables[KINDS[kind]].names[int(branches.row[i])]

    def at(self, branches: Branches, i: int) -> At | None:
        """The place of the netlist element behind a branch."""
        kind = int(branches.kind[i])
        return None if kind < 0 else self.netlist.at(int(self.netlist.tables[KINDS[kind]].seq[int(branches.row[i])]))

    def with_values(self, values: Mapping[str, ArrayLike]) -> Circuit:
        """The same circuit with new element values: volts for V, amperes for I, siemens for R and crossbars, gains of
        controlled sources.

        Keys are element or array names; an array with two ranges takes (rows, columns). Sources may have a leading
        batch axis. Topology cannot change: conductances
        are finite and >= 0, and shorts, and opens that are not trained, stay what they are. Raises SettingsError
        naming the element. The values are copied.
        """
        if not isinstance(values, Mapping):
            raise SettingsError(
                f"new values are a mapping of names to numbers, such as {{'V1': 2.0}}, found {values!r}"
            )
        circuit, given = self, set[str]()
        for name, value in values.items():
            if not isinstance(name, str):
                raise SettingsError(f"new values go by the names of elements, found {name!r}")
            if name.lower() in given:
                raise SettingsError(f"{name}: two new values, one under the name in another case; give one")
            given.add(name.lower())
            circuit = circuit._with_value(name, _numbers(name, value))
        return circuit

    def _with_value(self, name: str, value: Floats) -> Circuit:
        if not np.isfinite(value).all():
            raise SettingsError(f"{name}: new values must be finite numbers")
        for k, crossbar in enumerate(self.crossbars):
            if crossbar.name.lower() == name.lower():
                g = _fit(name, value, crossbar.g.shape)
                _check_conductance(name, g)
                changed = replace(crossbar, g=g)
                return replace(self, crossbars=(*self.crossbars[:k], changed, *self.crossbars[k + 1 :]))
            if crossbar.name.lower() == name.partition("[")[0].lower():
                raise SettingsError(f"{name}: a crossbar takes all its values at once, {crossbar.g.shape}")
        kind, start, stop = self.rows_of(name)
        value = self._in_a_row(name, kind, value)
        if kind == "R":
            where = _branch_of_rows(self.conductors, kind, start, stop)
            if where is None:
                raise SettingsError(
                    f"{name}: a short cannot take a new conductance, nor can an open resistor that .train does not name"
                )
            _check_conductance(name, value)
            if value.ndim > 1:
                raise SettingsError(
                    f"{name}: new values have shape {value.shape}, needs ({stop - start},); resistances have no batch: "
                    "solve one set of values after another"
                )
            g = self.conductors.g.copy()
            g[where] = _fit(name, value, (stop - start,))
            return replace(self, conductors=replace(self.conductors, g=g))
        if kind == "V":
            where = _branch_of_rows(self.ties, kind, start, stop)
            e = _batched(name, self.ties.e, where, value, self.current_sources.i.shape[0])
            return replace(self, ties=replace(self.ties, e=e))
        if kind == "I":
            where = _branch_of_rows(self.current_sources, kind, start, stop)
            i = _batched(name, self.current_sources.i, where, value, self.ties.e.shape[0])
            return replace(self, current_sources=replace(self.current_sources, i=i))
        if kind in "EFGH":
            where = _branch_of_rows(self.controlled, kind, start, stop)
            gain = self.controlled.gain.copy()
            gain[where] = _fit(name, value, (stop - start,))
            return replace(self, controlled=replace(self.controlled, gain=gain))
        raise SettingsError(f"{name}: only resistors, crossbars and sources can take new values")

    def _in_a_row(self, name: str, kind: str, value: Floats) -> Floats:
        """Values of an array with two ranges, (rows, columns) behind a batch axis if there is one, member by member."""
        ref = self.netlist.arrays.get(name.lower())
        if ref is None or len(ref.indices) < 2 or value.ndim < 2:
            return value
        shape = tuple(map(len, ref.indices))
        if value.shape[-2:] == shape and value.ndim <= 3:
            return value.reshape(*value.shape[:-2], -1)
        if kind == "R":  # which have no batch
            raise SettingsError(f"{name}: new values have shape {value.shape}, needs {shape}")
        return value

    def rows_of(self, name: str) -> tuple[str, int, int]:
        """Kind and table rows of an element or element array. SettingsError when there is none."""
        found = self.netlist.find(name)
        if found is not None:
            return found
        tables = sorted(self.netlist.tables.items(), key=lambda item: item[0] != name[:1].upper())  # of its kind first
        names = [*self.netlist.arrays, *chain.from_iterable(table.names for _, table in tables)]
        raise SettingsError(f"no element '{name}' in {self.netlist.path}{similar(name.lower(), names, 'elements')}")

    def controlled_across(self, nodes: Ints) -> list[str]:
        """The controlled sources of which some ends, or ends of what controls them, are at these nodes, and some not.

        >>> from circuitsim.build import parse
        >>> circuit = parse("t\\nV1 a 0 1\\nE1 b 0 a 0 2\\nG1 c d b 0 1m\\nR1 c d 1k\\nR2 b 0 1k")
        >>> circuit.controlled_across(np.array([circuit.netlist.node(name) for name in "cd"]))
        ['G1']
        """
        s, ties, inside = self.controlled, self.ties, np.isin(np.arange(len(self.nodes)), nodes)
        by_current = s.control >= 0
        ca, cb = s.ca.copy(), s.cb.copy()
        ca[by_current], cb[by_current] = ties.a[s.control[by_current]], ties.b[s.control[by_current]]
        count = sum(inside[ends].astype(int) for ends in (s.a, s.b, ca, cb))
        return [self.element(s, k) for k in np.flatnonzero((count > 0) & (count < 4)).tolist()]

    def without(self, nodes: Ints, note: tuple[At | None, str]) -> Circuit:
        """The circuit without the elements that end at these nodes; the nodes stay, joined to nothing.

        No controlled source may join them to others (`controlled_across`).
        """
        gone = np.zeros(len(self.nodes), bool)
        gone[nodes] = True
        crossbars = tuple(
            replace(x, g=np.where(gone[x.rows][:, None] | gone[x.cols], 0.0, x.g)) for x in self.crossbars
        )
        ties, controlled = self.ties, self.controlled.without(gone)
        place = np.cumsum(~(gone[ties.a] | gone[ties.b])) - 1  # of the ties that are left
        by_current = controlled.control >= 0
        control = np.where(by_current, place[controlled.control], -1) if by_current.any() else controlled.control
        return replace(
            self,
            conductors=self.conductors.without(gone),
            ties=ties.without(gone),
            controlled=replace(controlled, control=control),
            current_sources=self.current_sources.without(gone),
            junctions=self.junctions.without(gone),
            ideal_diodes=self.ideal_diodes.without(gone),
            crossbars=crossbars,
            notes=(*self.notes, note),
            dropped=np.union1d(self.dropped, nodes),
        )

    def _repr_html_(self) -> str:
        return circuit_html(self)

    def to_networkx(self) -> nx.MultiGraph:
        """The circuit as a multigraph: an edge for each branch but those of 0 S, with `name`, `kind` and its value.

        `a` and `b` are its first and its second node: an edge has no direction, and positive currents flow from a to b
        through the element (of diodes a is the anode). Values: `g` (S), `e` (V), `i` (A), both of the first row of a
        batch, `vf` (V), `law` (a name of laws.Law), `gain`. A diode that follows several laws is several edges.

        >>> from circuitsim.build import parse
        >>> graph = parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k").to_networkx()
        >>> sorted((d["name"], d["a"], d["b"], d.get("g", d.get("e"))) for _, _, d in graph.edges(data=True))
        [('R1', 'in', 'out', 0.001), ('R2', 'out', '0', 0.001), ('V1', 'in', '0', 10.0)]
        """
        import networkx as nx

        graph = nx.MultiGraph()
        graph.add_nodes_from(self.nodes)
        for group, branches in self.groups.items():
            kind, column = _EDGES[group]
            values = getattr(branches, column)
            if column == "law":
                values = np.array([Law(value).name for value in values.tolist()])
            for i in range(len(branches)):
                value = values[0, i] if values.ndim == 2 else values[i]
                if column == "g" and value == 0:
                    continue
                a, b = self.nodes[branches.a[i]], self.nodes[branches.b[i]]
                graph.add_edge(a, b, name=self.element(branches, i), kind=kind, a=a, b=b, **{column: value.item()})
        for c in self.crossbars:
            at_row, at_col = self.netlist.arrays[c.name.lower()].indices
            for i, j in np.argwhere(c.g > 0):
                name, a, b = f"{c.name}[{at_row[i]}][{at_col[j]}]", self.nodes[c.rows[i]], self.nodes[c.cols[j]]
                graph.add_edge(a, b, name=name, kind="conductor", a=a, b=b, g=float(c.g[i, j]))
        return graph


def check_structure(old: Circuit, new: Circuit) -> None:
    """Raise TopologyError, naming the element, when the branches of two circuits differ, values aside."""
    if difference := structural_difference(old, new):
        raise TopologyError(f"{difference}; values may change here, the structure may not")


def structural_difference(old: Circuit, new: Circuit) -> str:
    """What distinguishes the branches of two circuits, values aside, in words; '' when nothing does.

    >>> from circuitsim.build import parse
    >>> deck = "divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 {}"
    >>> structural_difference(parse(deck.format("1k")), parse(deck.format("0")))
    'R2 was a conductance and is now a source or a short'
    """
    if old.nodes is not new.nodes and old.nodes != new.nodes:
        return "the nodes are not the same"
    for group, a in old.groups.items():
        b = new.groups[group]
        columns = ("kind", "row", "a", "b", "law") if group == "junctions" else ("kind", "row", "a", "b")
        if all(np.array_equal(getattr(a, column), getattr(b, column)) for column in columns):
            continue
        keys = [set(zip(x.kind.tolist(), x.row.tolist(), strict=True)) for x in (a, b)]
        changed = sorted(keys[0] ^ keys[1])
        if not changed:
            return f"the elements that are {GROUPS[group]} are not the same"
        kind, row = changed[0]
        name = "option rshunt" if kind < 0 else old.netlist.tables[KINDS[kind]].names[row]
        return f"{name} was {_roles(old, kind, row)} and is now {_roles(new, kind, row)}"
    for x, y in zip(old.crossbars, new.crossbars, strict=False):
        if not (np.array_equal(x.rows, y.rows) and np.array_equal(x.cols, y.cols)):
            return f"the nodes of crossbar {x.name} are not the same"
    return "" if len(old.crossbars) == len(new.crossbars) else "the crossbars are not the same"


def _roles(circuit: Circuit, kind: int, row: int) -> str:
    """Which branches an element is made of."""
    found = [GROUPS[group] for group, x in circuit.groups.items() if ((x.kind == kind) & (x.row == row)).any()]
    return " and ".join(found) or "open"


def _branch_of_rows(branches: Branches, kind: str, start: int, stop: int) -> slice | None:
    """Rows start:stop of a netlist table as a slice of branches (both in deck order), None when some are missing."""
    of_kind = np.flatnonzero(branches.kind == KINDS.index(kind))
    rows = branches.row[of_kind]
    low, high = np.searchsorted(rows, [start, stop])
    if high - low != stop - start:
        return None
    return slice(int(of_kind[low]), int(of_kind[low]) + stop - start) if stop > start else slice(0, 0)


def _numbers(name: str, value: ArrayLike) -> Floats:
    """An array of its own of real numbers."""
    if np.ma.is_masked(value):
        raise SettingsError(f"{name}: some of the new values are masked; fill them")
    try:
        array = np.asarray(value)
        if array.dtype.kind in "fiubO":  # O: fractions, say
            with np.errstate(over="ignore"):
                return np.array(array, np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    raise SettingsError(f"{name}: new values must be numbers, found {shown(repr(value))}")


def _batched(name: str, old: Floats, where: slice | None, value: Floats, others: int) -> Floats:
    """Put source values of shape (), (n,), (batch,) for n = 1, or (batch, n) in place; broadcasts the batch axis.

    others: the rows that sources of the other kind have.
    """
    if where is None:
        raise SettingsError(f"{name}: it is left out, and cannot take a value, or not all of its members can")
    count = where.stop - where.start
    if value.ndim == 1 and count == 1:
        value = value[:, None]
    rows = _fit(name, value, (count,)) if value.ndim < 2 else value
    rows = np.atleast_2d(rows)
    if rows.ndim != 2 or rows.shape[1] != count or rows.shape[0] == 0:
        raise SettingsError(f"{name}: new values have shape {value.shape}; needs ({count},) or (batch, {count})")
    before = max(old.shape[0], others)
    if 1 not in (before, rows.shape[0]) and before != rows.shape[0]:
        raise SettingsError(f"{name}: batch of {rows.shape[0]} does not fit the batch of {before} set before")
    batch = max(old.shape[0], rows.shape[0])
    if where == slice(0, old.shape[1]):
        return rows if rows.shape[0] == batch else np.repeat(rows, batch, axis=0)
    new = np.repeat(old, batch, axis=0) if old.shape[0] != batch else old.copy()
    new[:, where] = rows
    return new


def _fit(name: str, value: Floats, shape: tuple[int, ...]) -> Floats:
    if value.shape not in (shape, ()):
        raise SettingsError(f"{name}: new values have shape {value.shape}, needs {shape}")
    return np.broadcast_to(value, shape)


def _check_conductance(name: str, g: Floats) -> None:
    if (g < 0).any():
        raise SettingsError(f"{name}: negative conductance {g.min():g} S is not monotone")
