"""A circuit: its nodes, and one table of arrays for each physical kind of branch (branches.py). Made by build.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim import new_values
from circuitsim.branches import (
    BATCHED,
    GROUPS,
    VALUE_OF,
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
from circuitsim.law_kernels import Law
from circuitsim.netlist import Netlist
from circuitsim.netlist.model import KINDS, similar
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

    Open elements are left out: C, and R of infinite resistance unless `.train` names it; a trained one stays as a
    conductor of 0 S, so that it can be given a conductance later. `without` also leaves out the elements at some nodes.
    `copies` is the number of circuits of one structure that this one holds side by side (stack.py), normally 1.
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

        The latter are represented as H of gain 0, in addition to their own voltage (`ties.e`).
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
        """For each branch of `active`, the index in `active` of the branch whose current controls it, or -1."""
        control = self.active.control
        at = np.searchsorted(self.probes, control.clip(min=0)) + len(self.controlled)
        return np.where(control >= 0, at, -1)

    @cached_property
    def control_ends(self) -> tuple[Ints, Ints]:
        """The two nodes of what controls each branch of `controlled`; for F and H, those of the voltage source."""
        s, by_current = self.controlled, np.flatnonzero(self.controlled.control >= 0)
        ca, cb = s.ca.copy(), s.cb.copy()
        ca[by_current], cb[by_current] = (end[s.control[by_current]] for end in (self.ties.a, self.ties.b))
        return ca, cb

    @cached_property
    def active_voltages(self) -> Ints:
        """The branches of `active` that fix a voltage, all but F and G: their currents are unknowns of newton."""
        return np.flatnonzero(~self.active.gives_current)

    def at_rows(self, rows: slice | Ints) -> Circuit:
        """The circuit with the sources of some rows of its batch. SettingsError unless `rows` are row numbers."""
        try:
            known = np.arange(self.batch)[rows].ndim == 1
        except (IndexError, TypeError, ValueError):
            known = False
        if not known:
            raise SettingsError(f"at_rows takes a slice, or an array of numbers of rows, found {rows!r}")
        ties, sources = self.ties, self.current_sources
        e, i = take_rows(ties.e, rows), take_rows(sources.i, rows)
        return replace(self, ties=replace(ties, e=e), current_sources=replace(sources, i=i))

    @property
    def batch(self) -> int:
        """Number of input rows: the batch size of the sources."""
        return max(self.ties.e.shape[0], self.current_sources.i.shape[0])

    def element_values(self, kind: str) -> Floats:
        """The present value of each element of a kind, (n,): R in S, V in V, I in A, the gain of controlled sources.

        Elements that are left out keep their value in the netlist; a conductance is infinite for shorts, 0 for opens.
        In a batch, values are those of the first row. SettingsError for other kinds.

        >>> from circuitsim.build import parse
        >>> parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 2k").with_values({"R2": 0.25}).element_values("R")
        array([0.001, 0.25 ])
        """
        if kind not in VALUE_OF:
            raise SettingsError(f"element_values takes one of the kinds {', '.join(VALUE_OF)}; found {kind!r}")
        group, column, in_netlist = VALUE_OF[kind]
        values = self.netlist.tables[kind].values[in_netlist].copy()
        branches: Branches = getattr(self, group)
        own, now = branches.of(kind), getattr(branches, column)
        values[branches.row[own]] = (now[0] if column in BATCHED else now)[own]
        return values

    @property
    def resistor_ohms(self) -> Floats:
        """The present resistance of each R, ohm, (n_R,): exactly the netlist's if unchanged, as 1/(1/r) may differ.

        Infinite where the conductance g is 0, or so small that 1/g overflows.
        """
        r, g = self.netlist.tables["R"].values["r"], self.element_values("R")
        with np.errstate(divide="ignore", over="ignore"):
            return np.where(g == 1.0 / r, r, 1.0 / g)

    @cached_property
    def left_out(self) -> NDArray[np.bool_]:
        """For each node: whether it is in `dropped`."""
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
        """All branches except crossbars, by the names in GROUPS."""
        return {group: getattr(self, group) for group in GROUPS}

    @cached_property
    def fixing_voltage(self) -> Ints:
        """The branches of `controlled` that fix a voltage: E and H."""
        return np.flatnonzero(~self.controlled.gives_current)

    @cached_property
    def sources(self) -> Branches:
        """Branches that fix a voltage, so that only KCL gives their currents: `ties` (V, shorts, L), then E and H."""
        parts = self.ties, self.controlled.take(self.fixing_voltage)
        a, b, kind, row = (np.concatenate([getattr(x, name) for x in parts]) for name in ("a", "b", "kind", "row"))
        return Branches(a=a, b=b, kind=kind, row=row)

    @cached_property
    def source_names(self) -> list[str]:
        """The name of the element behind each branch of `sources`."""
        return [self.element(self.sources, k) for k in range(len(self.sources))]

    @property
    def reciprocal(self) -> bool:
        """Whether there are no controlled sources, so that the equilibrium minimises an energy, the co-content."""
        return not len(self.controlled)

    def element(self, branches: Branches, i: int) -> str:
        """The name of the netlist element behind a branch."""
        kind = int(branches.kind[i])
        return "rshunt" if kind < 0 else self.netlist.tables[KINDS[kind]].names[int(branches.row[i])]

    def at(self, branches: Branches, i: int) -> At | None:
        """The place in the netlist of the element behind a branch; None for rshunt."""
        kind = int(branches.kind[i])
        return None if kind < 0 else self.netlist.at(int(self.netlist.tables[KINDS[kind]].seq[int(branches.row[i])]))

    def with_values(self, values: Mapping[str, ArrayLike]) -> Circuit:
        """The same circuit with new element values: volts for V, amperes for I, siemens for R and crossbars, gains for
        controlled sources.

        Keys are names of elements or arrays, or have ranges, `Vx[0:3]` or `R.X[0:9][0:9].Rm`; what has two ranges takes
        (rows, columns), arrays in instances have their members last. Of keys that overlap the last one counts. Sources
        may have a leading batch axis. The values are not multiplied by m=. The topology cannot change: conductances
        must be finite and >= 0, and shorts, and opens that are not trained, stay what they are. Raises SettingsError
        naming the element. The values are copied.
        """
        return new_values.with_values(self, values)

    def rows_of(self, name: str) -> tuple[str, int, int]:
        """Kind and table rows, first and one past the last, of an element or array. SettingsError if there is none."""
        found = self.netlist.find(name)
        if found is not None:
            return found
        known = self.netlist.element_names(name[:1].upper())
        raise SettingsError(f"no element '{name}' in {self.netlist.path}{similar(name.lower(), known, 'elements')}")

    def controlled_across(self, nodes: Ints) -> list[str]:
        """The controlled sources with some ends at these nodes and others not; ends of what controls them count too.

        >>> from circuitsim.build import parse
        >>> circuit = parse("t\\nV1 a 0 1\\nE1 b 0 a 0 2\\nG1 c d b 0 1m\\nR1 c d 1k\\nR2 b 0 1k")
        >>> circuit.controlled_across(np.array([circuit.netlist.node(name) for name in "cd"]))
        ['G1']
        """
        s, inside = self.controlled, np.isin(np.arange(len(self.nodes)), nodes)
        count = sum(inside[ends].astype(int) for ends in (s.a, s.b, *self.control_ends))
        return [self.element(s, k) for k in np.flatnonzero((count > 0) & (count < 4)).tolist()]

    def without(self, nodes: Ints, note: tuple[At | None, str]) -> Circuit:
        """The circuit without the elements that end at these nodes; the nodes stay, joined to nothing.

        No controlled source may join them to other nodes (`controlled_across`).
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
        """The circuit as a multigraph: an edge with `name`, `kind` and value for each branch, except those of 0 S.

        As edges have no direction, `a` and `b` name the first and second node: positive currents flow from a to b
        through the element (a is the anode of a diode). Values: `g` (S); `e` (V) and `i` (A), of the first row of a
        batch; `vf` (V); `law` (a name of law_kernels.Law); `gain`. A diode that follows several laws has several edges.

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
    """Raise TopologyError, naming the element, if the branches of two circuits differ other than in their values."""
    if difference := structural_difference(old, new):
        raise TopologyError(f"{difference}; values may change here, the structure may not")


def structural_difference(old: Circuit, new: Circuit) -> str:
    """How the branches of two circuits differ, other than in their values, in words; '' if they do not.

    >>> from circuitsim.build import parse
    >>> deck = "divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 {}"
    >>> structural_difference(parse(deck.format("1k")), parse(deck.format("0")))
    'R2 was a conductance and is now a source or a short'
    """
    if old.nodes is not new.nodes and old.nodes != new.nodes:
        return "the nodes are not the same"
    for group, a in old.groups.items():
        b = new.groups[group]
        columns = list(zip(a.structure, b.structure, strict=True))
        if all(np.array_equal(x, y) for x, y in columns):
            continue
        keys = [set(zip(x.kind.tolist(), x.row.tolist(), strict=True)) for x in (a, b)]
        if changed := sorted(keys[0] ^ keys[1]):
            kind, row = changed[0]
            tables = (old if changed[0] in keys[0] else new).netlist.tables
            name = "option rshunt" if kind < 0 else tables[KINDS[kind]].names[row]
            return f"{name} was {_roles(old, kind, row)} and is now {_roles(new, kind, row)}"
        if len(a) != len(b):
            return f"the elements that are {GROUPS[group]} are not the same"
        first = np.flatnonzero(np.any([x != y for x, y in columns], axis=0))[0]
        return f"the nodes, the law or the control of {old.element(a, int(first))} are not the same"
    for x, y in zip(old.crossbars, new.crossbars, strict=False):
        if not (np.array_equal(x.rows, y.rows) and np.array_equal(x.cols, y.cols)):
            return f"the nodes of crossbar {x.name} are not the same"
    return "" if len(old.crossbars) == len(new.crossbars) else "the crossbars are not the same"


def _roles(circuit: Circuit, kind: int, row: int) -> str:
    """Which branches an element is made of."""
    found = [GROUPS[group] for group, x in circuit.groups.items() if ((x.kind == kind) & (x.row == row)).any()]
    return " and ".join(found) or "open"
