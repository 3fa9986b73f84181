"""The branches of a circuit: one table of arrays for each physical kind, and crossbars, which stay dense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from circuitsim.netlist.model import KINDS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

GROUPS = {  # of branches in a Circuit: name, and what one of them is called
    "conductors": "a conductance", "ties": "a source or a short", "current_sources": "a current source",
    "junctions": "a diode with a smooth or piecewise-linear law", "ideal_diodes": "a perfect diode",
    "controlled": "a controlled source",
}  # fmt: skip
BATCHED = ("e", "i")  # columns of branches that have a batch axis
VALUE_OF = {  # kinds whose elements have one value each: group of branches, column there, column of the netlist's table
    "R": ("conductors", "g", "g"), "V": ("ties", "e", "v"), "I": ("current_sources", "i", "i"),
    **dict.fromkeys("EFGH", ("controlled", "gain", "gain")),
}  # fmt: skip
_NONE = np.zeros(0, np.int64)
VALUES = (*BATCHED, "g", "gain", "vf", "params")  # columns that may change; the others are the structure


@dataclass(frozen=True, eq=False)
class Branches:
    """Two-terminal elements of one physical kind; current flows from `a` to `b` through the element.

    `kind` and `row` say which netlist element each is: row `row` of the table KINDS[kind]; kind -1: `.options rshunt`.
    """

    a: Ints  # (n,) node
    b: Ints  # (n,) node
    kind: NDArray[np.int8]  # (n,)
    row: Ints  # (n,)

    def __len__(self) -> int:
        return self.a.size

    def of(self, kind: str, start: int = 0, stop: int | None = None) -> Ints:
        """The branches that rows start:stop of the netlist table of this kind have here, (n,), in deck order."""
        wanted = (self.kind == KINDS.index(kind)) & (self.row >= start)
        return np.flatnonzero(wanted if stop is None else wanted & (self.row < stop))

    def of_each(self, kind: str, spans: Sequence[tuple[int, int]]) -> list[Ints]:
        """`of` for each of these ranges of rows, start:stop, which are found all at once."""
        own = self.of(kind)
        ends = np.searchsorted(self.row[own], np.array(spans, np.int64).reshape(-1, 2))
        return [own[first:last] for first, last in ends.tolist()]

    def of_rows(self, kind: str, rows: Ints) -> tuple[Ints, Ints]:
        """The branches of these rows of the netlist table of a kind, row by row, and where in `rows` each is."""
        own, ptr = self._by_row.get(KINDS.index(kind), (_NONE, np.zeros(1, np.int64)))
        first, last = (ptr[np.minimum(x, ptr.size - 1)] for x in (rows, rows + 1))  # none in rows after the last
        place = np.repeat(np.arange(rows.size), last - first)
        before = np.cumsum(last - first) - (last - first)
        return own[(first - before)[place] + np.arange(place.size)], place

    @cached_property
    def _by_row(self) -> dict[int, tuple[Ints, Ints]]:
        """The branches of each kind, by its number, by row: those of row k are at ptr[k]:ptr[k+1]."""
        order = np.argsort(self.row, kind="stable")
        each = {kind: order[self.kind[order] == kind] for kind in np.unique(self.kind).tolist()}
        return {
            kind: (own, np.searchsorted(self.row[own], np.arange(self.row[own[-1]] + 2))) for kind, own in each.items()
        }

    @property
    def structure(self) -> list[NDArray[np.int64 | np.int8]]:
        """The columns that define the structure, (n,) each: which nodes each branch joins, and by which law."""
        return [getattr(self, f.name) for f in fields(self) if f.name not in VALUES]

    def take(self, chosen: Ints) -> Self:
        """Some of the branches, in this order; in values with a batch axis, branches are along the second axis."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: x[:, chosen] if name in BATCHED else x[chosen] for name, x in columns.items()})

    def without(self, gone: NDArray[np.bool_]) -> Self:
        """The branches without an end at nodes that are `gone`, (nodes,)."""
        return self.take(np.flatnonzero(~(gone[self.a] | gone[self.b])))


@dataclass(frozen=True, eq=False)
class Conductors(Branches):
    """Linear branches: i = g (va - vb)."""

    g: Floats  # (n,) S, >= 0; 0 in new values, and for trained resistors that are open


@dataclass(frozen=True, eq=False)
class Ties(Branches):
    """Branches that fix a voltage: va - vb = e. Voltage sources first, then shorts (R = 0, L)."""

    e: Floats  # (batch or 1, n) V


@dataclass(frozen=True, eq=False)
class CurrentSources(Branches):
    """Branches that fix a current: i from a to b through the source."""

    i: Floats  # (batch or 1, n) A


@dataclass(frozen=True, eq=False)
class Junctions(Branches):
    """Nonlinear monotone branches: i = law(va - vb); a is the anode."""

    law: NDArray[np.int8]  # (n,)
    params: Floats  # (n, N_PARAMS)


@dataclass(frozen=True, eq=False)
class IdealDiodes(Branches):
    """Perfect diodes, anode a, cathode b: va - vb <= vf, i >= 0, i (vf - va + vb) = 0."""

    vf: Floats  # (n,) V


@dataclass(frozen=True, eq=False)
class Controlled(Branches):
    """Linear controlled sources, in the order of the kinds E, F, G, H. With i the current from a to b, in each source:

    E: va - vb = gain (vca - vcb); F: i = gain i(control); G: i = gain (vca - vcb); H: va - vb = gain i(control)
    """

    ca: Ints  # (n,) node (E, G; 0 otherwise)
    cb: Ints  # (n,) node (E, G; 0 otherwise)
    control: Ints  # (n,) the branch in Circuit.ties, a voltage source, that carries i(control) (F, H; -1 otherwise)
    gain: Floats  # (n,) of G in S, of H in ohm; any sign

    @property
    def gives_current(self) -> NDArray[np.bool_]:
        """Those that fix a current, F and G; the others fix a voltage."""
        return np.isin(self.kind, [KINDS.index(kind) for kind in "FG"])


@dataclass(frozen=True, eq=False)
class Crossbar:
    """A conductance from every row node to every column node; 0 means no resistor."""

    name: str
    rows: Ints  # (nr,) node
    cols: Ints  # (nc,) node
    g: Floats  # (nr, nc) S


def take_rows(values: Floats, rows: slice | Ints) -> Floats:
    """Some rows of an array that may have one row for all."""
    return values[rows] if values.shape[0] > 1 else values
