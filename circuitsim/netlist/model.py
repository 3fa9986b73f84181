"""The contents of a netlist as arrays: one table per kind of element. No physics."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from math import prod

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import At, NetlistError, SettingsError
from circuitsim.netlist.arrays import NUMBER, SPAN, bounds_of, instance_paths, lengths, member_names, split_ranges
from circuitsim.netlist.source import Text
from circuitsim.netlist.tokens import shown

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ABSOLUTE_ZERO = -273.15  # degree Celsius
KIND_NAMES = {  # of the kinds of element, keys of Netlist.tables
    "R": "resistors",
    "V": "voltage sources",
    "I": "current sources",
    "D": "diodes",
    "L": "inductors (shorts at DC)",
    "C": "capacitors (open at DC)",
    "E": "voltage-controlled voltage sources",
    "F": "current-controlled current sources",
    "G": "voltage-controlled current sources",
    "H": "current-controlled voltage sources",
    "N": "nonlinear resistors",
}
KINDS = "".join(KIND_NAMES)
CROSSBAR = "crossbar"  # the kind of what is in no table, but among Netlist.crossbars
_CELL = re.compile(rf"(.+)\[({NUMBER})\]\[({NUMBER})\]")
_SHORT = 40  # characters of a name that is worth proposing


@dataclass(frozen=True, eq=False)
class Table:
    """All elements of one kind, a row each, in deck order. `values` columns by kind:

    R: `r` ohm (0: a short, inf: open) and `g` siemens; the deck gave one of them, exactly, the other is its reciprocal
    V: `v` volt, node a minus node b
    I: `i` ampere, from a to b through the source
    D: `model` row of Netlist.models, `area` and `m` factors, `temp` degree Celsius; a is the anode
    E, G: `gain` (of G in siemens), and links `ca` and `cb`, the nodes whose difference controls
    F, H: `gain` (of H in ohm), and link `control`, the row of V whose current controls
    L, C: none
    N: `model` row of Netlist.models, `m` factor
    """

    kind: str
    names: list[str]
    a: Ints  # (n,) node index
    b: Ints  # (n,)
    seq: Ints  # (n,) place in the source
    order: Ints  # (n,) place of the top-level card: the element's own, or the X card that it comes from
    values: Mapping[str, Floats]  # each (n,)
    links: Mapping[str, Ints] = field(default_factory=dict)  # each (n,)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class CrossbarCard:
    """`RW[0:n][0:m] x[0:n] h[0:m] g=...`: every row node to every column node; g = 0 means no resistor there."""

    name: str
    rows: Ints  # (nr,) node index
    cols: Ints  # (nc,)
    g: Floats  # (nr, nc) S
    ranges: tuple[range, range]
    seq: int  # place in the source
    order: int  # place of the top-level card


@dataclass(frozen=True)
class ArrayRef:
    """A named element array: rows `start:stop` of the table of its kind, or of Netlist.crossbars."""

    kind: str
    start: int
    stop: int
    indices: tuple[range, ...]


@dataclass(frozen=True)
class ModelCard:
    """A `.model` card with its parameters evaluated (names lower case, without synonyms)."""

    name: str
    type: str  # lower case: d, r, tanh, sinh, pwl
    params: Mapping[str, float]
    flags: frozenset[str]  # words without a value, such as `ideal`
    seq: int
    points: tuple[float, ...] = ()  # of a pwl model: V, A, V, A ...

    @property
    def varied(self) -> bool:
        """Whether it was evaluated for many at once (chance.py), and not all have the same numbers."""
        return any(isinstance(value, np.ndarray) for value in (*self.params.values(), *self.points))

    def of(self, k: int) -> ModelCard:
        """The model of the k-th of them."""

        def own(value: float) -> float:
            return float(value[k]) if isinstance(value, np.ndarray) else value

        params = {name: own(value) for name, value in self.params.items()}
        return replace(self, params=params, points=tuple(map(own, self.points)))


@dataclass(frozen=True)
class Options:
    """`.options` and `.temp`: temperatures in degree Celsius; gmin in S and rshunt in ohm only when the deck asks."""

    temp: float = 27.0
    tnom: float = 27.0
    gmin: float = 0.0
    rshunt: float = np.inf
    scale: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Swept:
    """One quantity that a `.dc` card sweeps from `start` to `stop` by `step`; its values: analyses.points.

    `kind`: V (volt), I (ampere), R (ohm): an element or an array; `temp` (degree Celsius); `param`.
    """

    kind: str
    name: str  # as the netlist spells it; `temp`
    start: float
    stop: float
    step: float


@dataclass(frozen=True)
class Analysis:
    """A card `.op` or `.dc`; what it sweeps, the first varying fastest."""

    kind: str  # op, dc
    seq: int  # place in the source; -1: none
    sweeps: tuple[Swept, ...] = ()


@dataclass(frozen=True, eq=False)
class Netlist:
    """An expanded netlist: subcircuits, parameters and arrays resolved. Node 0 is ground, named `0`."""

    path: str
    title: str
    nodes: list[str]
    tables: Mapping[str, Table]  # keys R V I D L C E F G H N
    crossbars: tuple[CrossbarCard, ...]
    models: tuple[ModelCard, ...]
    arrays: Mapping[str, ArrayRef]  # lower-case array or crossbar name -> rows
    inputs: tuple[str, ...]  # element names of .input
    outputs: tuple[int, ...]  # node indices of .output
    references: tuple[int, ...]  # the nodes against which they are read: b of v(a,b), else ground
    trained: tuple[str, ...]  # element names of .train
    saves: tuple[str, ...]  # .save, .print and the differences of .output, as written
    analyses: tuple[Analysis, ...]  # .op and .dc, in deck order
    options: Options
    notes: tuple[tuple[At, str], ...]
    text: Text  # the cards that it was made of, but the plain ones, which always mean the same

    def at(self, seq: int) -> At:
        """File, line and text of a place."""
        return self.text.source.at(int(seq))

    @property
    def sweeps(self) -> list[Analysis]:
        """The `.dc` cards."""
        return [analysis for analysis in self.analyses if analysis.kind == "dc"]

    @property
    def differential(self) -> bool:
        """Whether an output is read against another node than ground."""
        return any(self.references)

    @property
    def read_nodes(self) -> tuple[int, ...]:
        """The nodes of `.output`; of a difference v(a,b) both, if it is not ground, and each once."""
        if not self.differential:
            return self.outputs
        ends = chain.from_iterable(zip(self.outputs, self.references, strict=True))
        return tuple(dict.fromkeys(node for node in ends if node))

    @property
    def output_names(self) -> list[str]:
        """What each output is called: `y`, or `v(a,b)` of a difference."""
        pairs = zip(self.outputs, self.references, strict=True)
        return [f"v({self.nodes[a]},{self.nodes[b]})" if b else self.nodes[a] for a, b in pairs]

    @cached_property
    def node_index(self) -> dict[str, int]:
        """Lower-case node name -> index."""
        return {name.lower(): i for i, name in enumerate(self.nodes)} | {"gnd": 0}

    @cached_property
    def element_rows(self) -> dict[str, tuple[str, int]]:
        """Lower-case name of each element, array members too, crossbar members not -> kind and row of its table."""
        return {name.lower(): (kind, k) for kind, t in self.tables.items() for k, name in enumerate(t.names)}

    def element_names(self, kind: str = "") -> Iterator[str]:
        """The names of arrays and crossbars, and then of elements, those of this kind first, as the netlist spells
        them."""
        for key, ref in self.arrays.items():
            crossbar = ref.kind == CROSSBAR
            name = self.crossbars[ref.start].name if crossbar else self.tables[ref.kind].names[ref.start]
            yield name[: len(key)]
        for _, table in sorted(self.tables.items(), key=lambda item: item[0] != kind):
            yield from table.names

    def has_node(self, name: str) -> bool:
        """Whether a node of this name exists, in any case."""
        return name.lower() in self.node_index

    def node(self, name: str) -> int:
        """The index of a node by name, in any case; NetlistError when there is none."""
        index = self.node_index.get(name.lower())
        if index is None:
            raise NetlistError(
                f"no node '{shown(name)}' in {self.path}{similar(name.lower(), self.node_index, 'nodes')}"
            )
        return index

    def nodes_of(self, name: str) -> tuple[Ints, bool]:
        """The indices of a node, or of the nodes of ranges, `y[0:9]` or `X[0:3].m`, and whether there is a range.

        Raises NetlistError for an unknown node, SettingsError for anything but a name.
        """
        if not isinstance(name, str):
            raise SettingsError(f"voltage takes the name of one node, or of an array: y[0:9]; found {name!r}")
        if self.has_node(name):
            return np.array([self.node(name)]), False
        base, indices = split_ranges(name)
        count, bases = instance_paths(base)
        if prod(lengths(indices)) * count > len(self.nodes):
            self.node(SPAN.sub(r"[\1]", name))  # the first, if there is none of this name
            raise NetlistError(f"'{shown(name)}' names more nodes than {self.path} has; shorten the range")
        found = [self.node(member) for path in bases for member in member_names(path, indices)]
        return np.array(found), bool(indices or SPAN.search(base))

    def find(self, name: str) -> tuple[str, int, int] | None:
        """Kind and rows (start, stop), of its table or of `crossbars`, of an element or array in any case, or None."""
        ref = self.arrays.get(name.lower())
        if ref is not None:
            return ref.kind, ref.start, ref.stop
        single = self.element_rows.get(name.lower())
        return None if single is None else (single[0], single[1], single[1] + 1)

    def shape_of(self, name: str, count: int) -> tuple[int, ...]:
        """The lengths of an array's ranges, or (count,) for the element, or the elements, of another name."""
        ref = self.arrays.get(name.lower())
        return (count,) if ref is None else tuple(map(len, ref.indices))

    def cell(self, name: str) -> tuple[int, int, int] | None:
        """Which crossbar a conductance such as `RW[3][4]` is of, its row and its column there; None for other names.

        Raises SettingsError where the crossbar has no such conductance.
        """
        match = _CELL.fullmatch(name)
        kind, k, _ = (match and self.find(match[1])) or ("", 0, 0)
        if match is None or kind != CROSSBAR:
            return None
        ranges, i, j = self.crossbars[k].ranges, int(match[2]), int(match[3])
        if i not in ranges[0] or j not in ranges[1]:
            raise SettingsError(f"no conductance '{name}'; crossbar {self.crossbars[k].name} has {bounds_of(ranges)}")
        return k, ranges[0].index(i), ranges[1].index(j)


def similar(key: str, known: Iterable[str], what: str) -> str:
    """The end of an error message about an unknown name, in lower case: some names that exist.

    >>> similar("rlod", ["RLoad", "V1", "Rl2"], "elements")
    '; elements are RLoad ...'
    """
    names = {name.lower(): name for name in islice(known, 5000) if len(name) <= _SHORT}
    close = difflib.get_close_matches(key[:_SHORT], names, 3) or list(names)[:5]
    return f"; {what} are {', '.join(names[name] for name in close)} ..." if close else ""
