"""The result of a sweep or a Monte Carlo analysis: its points, each with its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import Circuit
from circuitsim.errors import At, SettingsError, whole
from circuitsim.netlist.model import Swept
from circuitsim.netlist.saves import Save, bare, find_call, find_save, labels_of, quantities_of
from circuitsim.notebook import sweep_frame, sweep_html
from circuitsim.saved import UNITS
from circuitsim.solution import Status

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Note = tuple[At | None, str]

FAULT = "FAULT"  # the status of a point whose circuit has no solution, or no meaning; the others are those of Status
NOTHING = "nothing to solve"  # `why` of points none of which came to be solved
MOST_SAVED = 100_000_000  # values
_STATUS = f"<U{max(len(s.name) for s in Status)}"


@dataclass(frozen=True, eq=False)
class Points:
    """Results at all points of a sweep, or those of a chunk. A failed point has what was reached, or NaN."""

    voltages: Floats  # (points, nodes) V, in the order of circuit.nodes
    currents: Floats  # (points, sources) A, in the order of circuit.sources
    determined: Bools  # (nodes,) whether the voltage is unique at every point
    left_out: Bools  # (nodes,) whether the node is left out at some point (Settings.lenient)
    ambiguous: Bools  # (sources,) whether the current is not unique at some point
    ambiguous_others: tuple[str, ...]  # other elements whose currents are not unique at some point
    saved: Floats  # (points, columns of saves): what else was kept
    saved_ambiguous: Bools  # (columns,) whether the value is not unique at some point
    saved_left_out: Bools  # (columns,) whether it is left out at some point
    islands: tuple[tuple[str, ...], ...]  # the nodes of each island that is left out at some point
    notes: tuple[Note, ...]  # one on each island; with no nodes: on the accuracy of voltages
    statuses: NDArray[np.str_]  # (points,) names of Status, or FAULT
    kcl_relative: Floats  # (points,) the largest relative KCL error; NaN without voltages
    messages: Mapping[int, str]  # for the points that failed
    method: str  # for the last point, and `why`
    why: str
    backend: str
    steps: int  # the most for any point (Solution.steps)


@dataclass(frozen=True, eq=False)
class SweepResult(Points):
    """All points of a sweep, or all runs of a Monte Carlo analysis, in order.

    >>> from circuitsim import parse, sweep
    >>> circuit = parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k\\n.dc V1 0 2 1")
    >>> result = sweep(circuit, circuit.netlist.analyses[0])
    >>> result.names, result.values[:, 0], result.voltage("out")
    (('V1',), array([0., 1., 2.]), array([0. , 0.5, 1. ]))
    """

    circuit: Circuit  # as read; for its names
    swept: tuple[Swept, ...]  # the first varies fastest; none: Monte Carlo
    values: Floats  # (points, n) V, A, ohm, degree Celsius or the parameter's unit; Monte Carlo: (runs, 1) seeds
    saves: tuple[Save, ...]  # the columns of `saved`
    dtype: str
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: how many points, and how many of them failed."""
        return f"<SweepResult of {self.circuit!r}: {self.statuses.size} points, {self.failed.size} failed>"

    @property
    def names(self) -> tuple[str, ...]:
        """What each column of `values` holds: the names of what is swept, or `seed`."""
        return tuple(s.name for s in self.swept) or ("seed",)

    @property
    def saved_labels(self) -> list[str]:
        """A name for each column of `saved`."""
        return labels_of(self.saves)

    @property
    def saved_quantities(self) -> list[str]:
        """The quantity in each column of `saved`, a key of saved.UNITS."""
        return quantities_of(self.saves)

    @property
    def saved_units(self) -> list[str]:
        """The unit of each column of `saved`."""
        return [UNITS[quantity] for quantity in self.saved_quantities]

    @property
    def failed(self) -> Ints:
        """The numbers of the points without a certified answer."""
        return np.flatnonzero(self.statuses != Status.SOLVED.name)

    def voltage(self, name: str) -> Floats:
        """The voltage of a node at all points, (points,), or of a range of nodes, (points, nodes), V.

        A voltage between nodes, `v(a,b)`, must have been saved, as those that `.output` reads are. NetlistError for an
        unknown node, SettingsError for a voltage that was not saved.
        """
        if (save := find_call(self.circuit.netlist, name)) is not None:
            name = "".join(name.split())
            if save.minus is not None:
                return self._kept(name, name)
            name = name[2:-1]
        nodes, several = self.circuit.netlist.nodes_of(name)
        found = self.voltages[:, nodes]
        return found if several else found[:, 0]

    def current(self, name: str) -> Floats:
        """The current through an element at all points, A, from its first node to its second.

        Shape (points,); for an array, or a range of its members, (points, members). Available for voltage sources (V,
        E, H), shorts and inductors, and for what `saves`, or a .save card, requested as i(NAME) or @NAME[i].
        SettingsError for others, NetlistError for an unknown element.
        """
        name = bare(name)
        return self._kept(name, f"i({name})", f"@{name}[i]")

    def power(self, name: str) -> Floats:
        """The power that an element absorbs at all points, W, if requested as @NAME[p]; shapes as for `current`."""
        return self._kept(name, f"@{name}[p]")

    def _kept(self, name: str, *forms: str) -> Floats:
        """The columns of the first of these expressions, of an element or an array, that was kept."""
        sources = self.currents.shape[1]
        places = {f"i({name})".lower(): k for k, name in enumerate(self.circuit.source_names)}
        places |= {label.lower(): sources + k for k, label in enumerate(self.saved_labels)}
        columns = [
            [places.get(label.lower(), -1) for label in labels_of(find_save(self.circuit.netlist, form))]
            for form in forms
        ]
        found = next((places_of for places_of in columns if min(places_of) >= 0), None)
        if found is None:
            raise SettingsError(f"{forms[0]} was not kept; ask for it: saves=['{forms[0]}']")
        taken = [self.currents[:, k] if k < sources else self.saved[:, k - sources] for k in found]
        several = ":" in name or name.lower() in self.circuit.netlist.arrays  # one member is an array too
        return np.stack(taken, axis=1) if several else taken[0].copy()

    def to_dataframe(self) -> pd.DataFrame:
        """A pandas data frame with a line for each point: swept values (or the seed), results, status.

        Columns: `names`, v(NODE), i(SOURCE), `saved_labels`, status, kcl_relative. Its `attrs` hold the units and the
        columns that are `not_unique`. BackendUnavailable without pandas.
        """
        return sweep_frame(self)

    def _repr_html_(self) -> str:
        return sweep_html(self)

    def plot(self) -> Figure:
        """Curves over what is swept, or histograms of a Monte Carlo analysis: a matplotlib figure.

        It shows the `.output` nodes and what is saved, or, without these, all nodes. BackendUnavailable without
        matplotlib.
        """
        from circuitsim.plot import sweep_figure

        return sweep_figure(self)

    def point(self, index: int) -> str:
        """A point in words: `V1 = 0.5, temp = 27`. Points count from 0; SettingsError if there is no such point."""
        if not 0 <= whole("point", index) < len(self.values):
            raise SettingsError(f"no point {index}: there are {len(self.values)}, counted from 0")
        numbers = self.values[index].tolist()
        return ", ".join(f"{name} = {number:.10g}" for name, number in zip(self.names, numbers, strict=True))


def unknown_points(circuit: Circuit, saves: tuple[Save, ...], count: int) -> dict[str, NDArray[Any]]:
    """The arrays of Points, for `count` points about which nothing is known yet."""
    nodes, sources, columns = len(circuit.nodes), len(circuit.sources), sum(map(len, saves))
    if count * columns > MOST_SAVED:
        raise SettingsError(f"{columns:,} values to save at {count:,} points are more than {MOST_SAVED:,}; save less")
    return {
        "voltages": np.full((count, nodes), np.nan),
        "currents": np.full((count, sources), np.nan),
        "saved": np.full((count, columns), np.nan),
        "statuses": np.full(count, FAULT, _STATUS),
        "kcl_relative": np.full(count, np.nan),
        "determined": np.ones(nodes, bool),
        "left_out": np.zeros(nodes, bool),
        "ambiguous": np.zeros(sources, bool),
        "saved_ambiguous": np.zeros(columns, bool),
        "saved_left_out": np.zeros(columns, bool),
    }
