"""The input of a solve (Settings) and its result (Solution): voltages and currents by name, with their certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from circuitsim import currents, uniqueness
from circuitsim.backends.base import BACKENDS, DTYPES, unknown_backend
from circuitsim.circuit import Circuit
from circuitsim.errors import SettingsError, listed
from circuitsim.netlist.arrays import SPAN
from circuitsim.netlist.saves import NODES, Save, bare, find_call, find_save
from circuitsim.netlist.tokens import shown
from circuitsim.notebook import solution_frame, solution_html
from circuitsim.overflow import noun_and_cure
from circuitsim.problem import Problem, check_flag, refuse_loose
from circuitsim.residual import Residuals
from circuitsim.saved import Saved, as_saves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

_MOST_IN_HTML = 1000  # saved values that are worked out to show the first of them
METHODS = ("auto", "bcd", "newton")
DEFAULT_TOL = dict(zip(DTYPES, (1e-9, 1e-5), strict=True))


class Status(Enum):
    """How a solve ended; the value describes it in words."""

    SOLVED = "the certificate is met"
    MAX_SWEEPS = "stopped before the certificate was met; raise max_sweeps, loosen tol, or use another method"
    STALLED = "further steps get no closer to the certificate; loosen tol"
    REFUSED = "the method cannot guarantee the answer for this circuit"
    NONFINITE = "the voltages overflowed; check the element values"
    INFEASIBLE = "no solution: no state of the diodes satisfies all equations, as far as float64 can tell"


@dataclass(frozen=True)
class Settings:
    """How to solve. SettingsError for invalid values.

    method      auto, bcd (block coordinate descent) or newton; Solution.method and Solution.why tell auto's choice
    backend     auto, cpu, gpu (CuPy), or reference (plain Python, slow)
    dtype       float64, or float32 for bcd; the certificate is always computed in float64
    tol         the largest relative KCL violation allowed; None: 1e-9 in float64, 1e-5 in float32
    max_sweeps  most sweeps of bcd, or steps of newton; a safeguard, not how a solve is meant to end
    lenient     leave out islands without a solution, and solve the rest (problem.compile_problem)
    strict      a voltage or a current that is not unique is an error
    """

    method: str = "auto"
    backend: str = "auto"
    dtype: str = "float64"
    tol: float | None = None
    max_sweeps: int = 100_000
    lenient: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"unknown method '{self.method}': choose {' or '.join(METHODS)}")
        if self.backend not in ("auto", *BACKENDS):
            raise unknown_backend(self.backend)
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise SettingsError(f"unknown dtype {self.dtype!r}: choose {' or '.join(DTYPES)}")
        if self.tol is not None and not (isinstance(self.tol, Real) and 0 < self.tol < 1):
            raise SettingsError(f"tol must lie between 0 and 1, found {shown(str(self.tol))}")
        most = self.max_sweeps
        if isinstance(most, bool) or not (isinstance(most, Integral) and most >= 1):
            raise SettingsError(f"max_sweeps must be at least 1, and a whole number, found {shown(str(most))}")
        check_flag("lenient", self.lenient)
        check_flag("strict", self.strict)

    @property
    def tolerance(self) -> float:
        """The relative KCL violation to reach."""
        return DEFAULT_TOL[self.dtype] if self.tol is None else float(self.tol)


WEAKLY_HELD = "some voltages are held only by tiny conductances and may be less accurate than the relative KCL says"


@dataclass(frozen=True, eq=False)
class Solution:
    """The equilibrium, or what was reached of it. The first axis of arrays is the batch, even for a batch of one.

    Arrays that are computed once and kept, such as `determined`, are read-only.

    Use `voltage`, `voltages` and `current`; `x`, `low`, `carried` and `loose` are what they are computed from.

    >>> from circuitsim import parse, solve
    >>> solution = solve(parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k"))
    >>> solution.voltage("out"), solution.current("V1")
    (array([5.]), array([-0.005]))
    """

    problem: Problem
    x: Floats  # (batch, n_free) V: the unknowns
    low: Floats | None  # (parts, batch, n_free) V: corrections to x, its further digits, where they matter (kcl.shift)
    unsolved: Mapping[int, Status]  # rows without a certified answer, in order, and how they ended
    message: str
    residuals: Residuals
    method: str
    backend: str
    dtype: str
    tolerance: float  # the relative KCL violation that was to be met
    steps: int  # sweeps of bcd, or steps of newton
    carried: Floats  # (batch, n_carriers) A: currents of ideal diodes between free units, then of Circuit.active
    loose: NDArray[np.bool_]  # for x, then currents of Circuit.active_voltages: left open by controlled sources
    why: str  # why this method was used
    seconds: Mapping[str, float] = field(default_factory=dict)
    weakly_held: bool = False  # some voltages, which the certificate does not bound, may still be off

    def __repr__(self) -> str:
        """One line: outcome, size and message."""
        rows = f", {self.batch} rows" if self.batch > 1 else ""
        return f"<Solution {self.status.name}: {len(self.circuit.nodes) - 1} nodes{rows}; {self.message}>"

    @property
    def status(self) -> Status:
        """How the solve ended: SOLVED if the certificate is met in every row, else the first other row's status."""
        return next(iter(self.unsolved.values()), Status.SOLVED)

    @property
    def solved(self) -> bool:
        """True when the certificate is met in every row."""
        return not self.unsolved

    @property
    def circuit(self) -> Circuit:
        """The circuit that was solved, with its values."""
        return self.problem.circuit

    @property
    def batch(self) -> int:
        """Number of rows: the batch size of the sources."""
        return self.x.shape[0]

    @cached_property
    def kcl_relative(self) -> Floats:
        """The largest relative KCL violation of each row, (batch,); a figure below the tolerance may be a bound.

        NaN where no voltages were reached.
        """
        return _kept(currents.row_violations(self).max(axis=1, initial=0.0))

    @property
    def failed(self) -> NDArray[np.int64]:
        """The rows without a certified answer: KCL is not met, or some voltages are held so weakly as to be doubtful.

        >>> from circuitsim import Settings, parse, solve
        >>> circuit = parse("ladder\\nV1 a 0 1\\nR1 a b 1\\nR2 b 0 1\\nR3 b c 1\\nR4 c 0 1").with_values({"V1": [0, 1]})
        >>> solve(circuit, Settings(method="bcd", max_sweeps=2), raise_on_failure=False).failed
        array([1])
        """
        return np.array([*self.unsolved], np.int64)

    def voltage(self, name: str) -> Floats:
        """Node voltages, V: `"out"` gives (batch,), `"y[0:9]"` and `"X[0:9].m"`, nodes in ten instances, (batch, 10).

        Of two ranges, (batch, all members), the last range fastest. `"v(a,b)"` and `"v(p[0:9],n[0:9])"` are voltages
        between nodes. NetlistError for an unknown node.
        """
        if (save := find_call(self.circuit.netlist, name)) is not None:
            found = Saved(self, [save]).values()
            return found if SPAN.search(name) else found[:, 0]
        nodes, several = self.circuit.netlist.nodes_of(name)
        v = self.voltages(nodes)
        return v if several else v[:, 0]

    @property
    def outputs(self) -> Floats:
        """What `.output` reads, in its order: voltages of nodes, and differences of two, (batch, k), V.

        Their names are `circuit.netlist.output_names`.

        >>> from circuitsim import parse, solve
        >>> solve(parse("bridge\\nV1 a 0 3\\nR1 a b 1k\\nR2 b 0 2k\\nR3 a c 2k\\nR4 c 0 1k\\n.output v(b,c) a")).outputs
        array([[1., 3.]])
        """
        n = self.circuit.netlist
        nodes, references = np.array(n.outputs, np.int64), np.array(n.references, np.int64)
        minus = references if n.differential else None
        return Saved(self, [Save(n.output_names, "v", NODES, nodes, minus)]).values()

    def voltages(self, nodes: NDArray[np.int64] | None = None, rows: slice | None = None) -> Floats:
        """Voltages of these node indices (default: all, in the order of `circuit.nodes`), (batch or rows, n), V.

        NaN at nodes that are left out (Circuit.dropped). SettingsError unless these are indices, and rows a slice.
        """
        count, rows = len(self.circuit.nodes), self._rows(rows)
        nodes = np.arange(count) if nodes is None else np.asarray(nodes)
        if nodes.shape == (0,) or (nodes.dtype == bool and nodes.shape == (count,)):
            nodes = np.flatnonzero(nodes)  # an empty list, or a mask
        known = nodes.ndim == 1 and nodes.dtype.kind in "iu"
        if not known or (nodes.size and not -1 < nodes.min() <= nodes.max() < count):
            raise SettingsError(
                f"voltages takes an array of numbers of nodes, from 0 to {count - 1}, found {shown(repr(nodes))}; "
                "voltage takes a name"
            )
        x = self.x[rows] if self.low is None else self.x[rows] + self.low[:, rows].sum(axis=0)
        v = self.problem.node_voltages(x, self.problem.fixed_potentials(rows), nodes)
        v[:, self.circuit.left_out[nodes]] = np.nan
        return v

    def drops(self, a: NDArray[np.int64], b: NDArray[np.int64], rows: slice | None = None) -> Floats:
        """Voltages from nodes `a` to nodes `b`, (rows, n), V, to the full precision of the solution."""
        rows = self._rows(rows)
        parts = [self.x[rows], *(() if self.low is None else self.low[:, rows])]
        return self.problem.drops(parts, self.problem.fixed_potentials(rows), a, b)

    def _rows(self, rows: slice | None) -> slice:
        if rows is not None and not isinstance(rows, slice):
            raise SettingsError(f"rows are a slice of the batch, such as slice(0, 1), found {shown(repr(rows))}")
        return slice(0, self.batch) if rows is None else rows

    def start_for(self, problem: Problem) -> Floats | None:
        """The unknowns, as a start for another problem of this topology; None where they do not fit it."""
        same = problem.topology.index_of_node is self.problem.topology.index_of_node
        fits = same and self.x.shape == (problem.batch, problem.n_free) and np.isfinite(self.x).all()
        return self.x if fits else None

    def current(self, name: str) -> Floats:
        """Current through an element, `"R1"` or `"i(R1)"`, from its first node to its second, A, (batch,).

        For an array (batch, members), or with two ranges (batch, rows, columns); for some of its members, such as
        `"RW[3][0:9]"`, and for the elements of several instances, `"R.X[0:9][0:9].Rm"`, (batch, members), the last
        range fastest. SettingsError or NetlistError if there is no such element.
        """
        return self._through(bare(name), "i")

    def power(self, name: str) -> Floats:
        """Power that an element absorbs, W (negative: it delivers); shapes as for `current`."""
        return self._through(name, "p")

    def _through(self, name: str, quantity: str) -> Floats:
        netlist = self.circuit.netlist
        if not isinstance(name, str):
            raise SettingsError(f"currents and powers need the name of an element, or of an array; found {name!r}")
        if netlist.find(name) is not None or not (name.endswith("]") or SPAN.search(name)):
            return currents.of_element(self, name, power=quantity == "p")
        saves = find_save(netlist, f"@{name}[{quantity}]")  # members of an array, elements of several instances
        found = Saved(self, saves).values()
        return found if ":" in name[name.index("[") :] else found[:, 0]

    def plot(self, kind: str = "auto", row: int = 0) -> Figure:
        """A picture of one row of the batch, a matplotlib figure: `solution.plot().savefig("out.png")`.

        kind: `graph` (nodes by voltage, elements by current; aggregated when large), `crossbar` (maps of conductance,
        current, power, voltages), `layers` (of a layered network), or `auto`, whichever suits. SettingsError when the
        circuit is not of that kind, BackendUnavailable without matplotlib.
        """
        from circuitsim.plot import solution_figure

        return solution_figure(self, kind, row)

    @cached_property
    def tie_currents(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Currents of voltage sources and shorts, (batch, n_ties), and which of them are unique."""
        current, unique = currents.tie_currents(self)
        return _kept(current), _kept(unique & ~self.ambiguous[0])

    @cached_property
    def source_currents(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Currents of Circuit.sources, (batch, n), A, and which of them are unique."""
        others, all_rows = self.circuit.fixing_voltage, slice(0, self.batch)
        (of_ties, unique), of_others = self.tie_currents, currents.active_currents(self, all_rows)[:, others]
        both = np.concatenate([of_ties, of_others], axis=1), np.append(unique, ~self.ambiguous[2][others])
        return _kept(both[0]), _kept(both[1])

    @cached_property
    def ambiguous(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Which ties, ideal diodes and controlled sources have currents that are not unique.

        Conducting ideal diodes close loops, and the equations of controlled sources may leave currents open. For loops
        of ties alone see `tie_currents`.
        """
        c = self.circuit
        ties, diodes = np.zeros(len(c.ties), bool), np.zeros(len(c.ideal_diodes), bool)
        controlled = np.zeros(len(c.controlled), bool)
        if diodes.size:
            ties, diodes, controlled = uniqueness.ambiguous(self)
        if self.loose.any():
            open_ties, open_controlled = uniqueness.open_currents(self)
            ties, controlled = ties | open_ties, controlled | open_controlled
        return _kept(ties), _kept(diodes), _kept(controlled)

    @property
    def ambiguous_others(self) -> list[str]:
        """Names of the ideal diodes, F and G (all not among `Circuit.sources`) whose currents are not unique."""
        c, (_, diodes, controlled) = self.circuit, self.ambiguous
        pairs = (c.ideal_diodes, diodes), (c.controlled, controlled & c.controlled.gives_current)
        return list(dict.fromkeys(c.element(x, k) for x, mark in pairs for k in np.flatnonzero(mark).tolist()))

    @cached_property
    def _room(self) -> tuple[Floats, Floats]:
        return uniqueness.part_room(self)

    @cached_property
    def determined(self) -> NDArray[np.bool_]:
        """For each node: whether its voltage is unique in every row; False on an island that can shift.

        True for nodes that are left out and have no voltage (Circuit.left_out).
        """
        islands = self.problem.topology.islands
        if islands.n_parts == 1:
            return _kept(~self.left_open)
        fall, rise = self._room
        still = ((fall == 0) & (rise == 0)).all(axis=0)[islands.part]
        return _kept(self.circuit.left_out | ~self.left_open & still)

    @property
    def left_open(self) -> NDArray[np.bool_]:
        """For each node: whether controlled sources leave its voltage open."""
        of_unit = np.append(self.loose[: self.problem.n_free], False)
        return of_unit[self.problem.topology.index_of_node]  # -1: known

    def open_between(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For each pair of nodes: whether controlled sources leave the voltage between them open (True if in doubt)."""
        unit = self.problem.topology.index_of_node
        return (self.left_open[a] | self.left_open[b]) & (unit[a] != unit[b])

    @property
    def intervals(self) -> tuple[Floats, Floats] | None:
        """Lowest and highest possible voltage of each node, its whole part moving along, (batch, n_nodes) each, V.

        None when all voltages are unique; -inf and inf where nothing bounds an island, or where controlled sources
        leave a voltage open. Except in that last case, no current changes within the interval.
        """
        if self.determined.all():
            return None
        part, v = self.problem.topology.islands.part, self.voltages()
        fall, rise = (np.where(self.left_open, np.inf, room[:, part]) for room in self._room)
        return v - fall, v + rise

    @property
    def remarks(self) -> list[str]:
        """What is unusual about this solution, in words: intervals, and currents that are not unique or enormous.

        And voltages that the certificate does not bound.
        """
        c, j = self.circuit, self.circuit.junctions
        found = [WEAKLY_HELD] if self.weakly_held else []
        for k, v, amperes in currents.enormous_currents(self):
            noun, cure = noun_and_cure(int(j.law[k]))
            found.append(
                f"{noun} {c.element(j, k)}: the sources force {v:g} V across it, and it carries {amperes:.3g} A; put a "
                f"resistor in series{cure}"
            )
        if self.batch == 1 and (bounds := self.intervals) is not None:
            lo, hi = (bound[0] for bound in bounds)
            for k in np.flatnonzero(~self.determined & (np.isfinite(lo) | np.isfinite(hi))).tolist():
                low, high = (f"{x:.6g} V" if np.isfinite(x) else "" for x in (lo[k], hi[k]))
                span = f"from {low[:-2]} to {high}" if low and high else f"from {low} up" if low else f"up to {high}"
                found.append(f"node {c.nodes[k]}: any voltage {span}")
        loose = list(dict.fromkeys(c.element(c.ideal_diodes, k) for k in np.flatnonzero(self.ambiguous[1]).tolist()))
        if loose:
            found.append(
                f"ideal diodes {listed(loose)}: a current can circulate through them; their currents are not unique"
            )
        if self.ambiguous[2].any():
            names = [c.element(c.controlled, k) for k in np.flatnonzero(self.ambiguous[2]).tolist()]
            found.append(f"controlled sources {listed(names)}: their equations leave their currents open")
        return found

    def to_dataframe(self, saves: Sequence[Save | str] | None = None) -> pd.DataFrame:
        """A pandas data frame with a line for each value: row (of the batch), quantity, name, value, unit, unique.

        Values are voltages of nodes, currents of sources, and `saves` (saved.wanted_saves; default: those of the
        netlist's own cards). Names are v(NODE), i(SOURCE), @R1[p]; quantities voltage, current, power, resistance.
        `unique` is False where a value is not unique or missing (NaN). BackendUnavailable without pandas.
        """
        return solution_frame(self, self._saved(saves))

    def _repr_html_(self) -> str:
        saved = self._saved(None)
        return solution_html(self, saved if saved.count <= _MOST_IN_HTML else self._saved(()))

    def _saved(self, saves: Sequence[Save | str] | None) -> Saved:
        return Saved(self, as_saves(self.circuit, saves))

    def check_unique(self) -> None:
        """Raise TopologyError naming what is not unique: nodes, or else sources, shorts and ideal diodes."""
        c = self.circuit
        nodes = [c.nodes[k] for k in np.flatnonzero(~self.determined).tolist()]
        sources = [c.source_names[k] for k in np.flatnonzero(~self.source_currents[1]).tolist()]
        refuse_loose(nodes, sources + self.ambiguous_others)


def _kept(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """The array, made read-only: every caller gets the same one."""
    array.setflags(write=False)
    return array
