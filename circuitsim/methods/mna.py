"""Newton's linear networks for circuits with controlled sources, and the choice between these and the others.

Modified nodal analysis (C.-W. Ho, A. E. Ruehli, P. A. Brennan 1975): the currents of E, H and of the sources that
control F and H are additional unknowns, the laws of these branches additional equations. Solved by sparse LU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.branch_sums import ufunc_at
from circuitsim.drive import Drive
from circuitsim.errors import TopologyError, listed
from circuitsim.kcl import active_laws
from circuitsim.linear import LinearSolver, Solved
from circuitsim.linear.elimination import Factors
from circuitsim.linear.lu import MOST_SINGULAR, Lu
from circuitsim.methods.network import Network
from circuitsim.problem import Problem
from circuitsim.residual import ROUNDING, Check

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CONTRADICTS = 1e-9  # relative to the terms in a sum of equations: how far rounding may leave it from 0
_DENSE = 100  # unknowns up to which LAPACK is faster than SuperLU
_MOST_EXACT = 100  # unknowns, and legs, of networks whose equations are compared in rational arithmetic


def make_network(problem: Problem, solver: LinearSolver | None = None) -> Network:
    """The network of a problem; without controlled sources, `solver` replaces the topology's solver."""
    return Network(problem, solver) if problem.circuit.reciprocal else MnaNetwork(problem)


class KeptNetwork:
    """The network of the last linear problem that was solved, with its factors, for those that differ in sources only.

    Only direct factors are kept: they are the same bits as new ones, whatever was solved before. Iterations are not.
    """

    def __init__(self) -> None:
        self.network: Network | None = None

    def of(self, problem: Problem, solver: LinearSolver | None) -> Network:
        """The network of a problem, with the kept factors where they are its own."""
        network, kept = make_network(problem, solver), self.network
        if not problem.circuit.reciprocal or network.legs.a.size:
            return network
        if (
            kept is not None
            and isinstance(kept.factored, Factors)
            and kept.solver is network.solver
            and kept.problem.batch == problem.batch  # by which a solver may choose how to solve
            and np.array_equal(kept.edge_g, network.edge_g)
            and np.array_equal(kept.to_fixed, network.to_fixed)
        ):
            network = kept.of(problem)
        self.network = network
        return network


class MnaNetwork(Network):
    """Unknowns u are (x, j): j are the currents of the E, the H, and the sources that control an F or H."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        c = problem.circuit
        s = c.active
        self.fixed_voltage = c.active_voltages
        self.fixed_current = np.flatnonzero(s.gives_current)
        self.size = problem.n_free + self.fixed_voltage.size
        column = np.full(len(s), -1, np.int64)
        column[self.fixed_voltage] = problem.n_free + np.arange(self.fixed_voltage.size)
        self.control = np.append(column, -1)[c.active_control]  # column of the current that controls each, or -1
        self.stamps = self._stamps(column)
        value, *at = self.stamps
        self.matrix = sparse.csr_array((value, tuple(at)), shape=(self.size, self.size))

    def units_at_bounds(self, slope: Floats) -> tuple[Ints, Ints]:
        """None: controlled sources would not follow a unit that is moved to its bound outside the linear solution."""
        none = np.zeros(0, np.int64)
        return none, none

    def immovable(self, slope: Floats) -> Floats:
        """The slopes themselves, for the same reason."""
        return slope

    def _stamps(self, column: Ints) -> tuple[Floats, Ints, Ints]:
        """Entries of the matrix without legs, as values, rows, columns: linear branches, and laws of active ones."""
        c, t = self.problem.circuit, self.problem.topology
        s, n = c.active, self.problem.n_free
        a, b, ca, cb = (t.index_of_node[nodes] for nodes in (s.a, s.b, s.ca, s.cb))
        rows, cols, data = [], [], []

        def put(row: Ints, col: Ints, value: Floats) -> None:
            has = (row >= 0) & (col >= 0)
            rows.append(row[has])
            cols.append(col[has])
            data.append(np.broadcast_to(value, row.shape)[has])

        i, j = t.edges
        for own, other in ((i, j), (j, i)):
            put(own, own, self.edge_g)
            put(own, other, -self.edge_g)
        put(np.arange(n), np.arange(n), self.to_fixed)
        one = np.ones(len(s))
        by_voltage, by_current = s.control < 0, s.control >= 0
        for end, sign in ((a, 1.0), (b, -1.0)):
            put(end, column, sign * one)  # E, H and controls: their own current leaves at a
            put(column, end, sign * one)
        gives = column < 0
        for end, sign in ((a, 1.0), (b, -1.0)):
            for control, side in ((ca, 1.0), (cb, -1.0)):
                g = gives & by_voltage
                put(end[g], control[g], sign * side * s.gain[g])
            f = gives & by_current
            put(end[f], self.control[f], sign * s.gain[f])
        e = ~gives & by_voltage
        put(column[e], ca[e], -s.gain[e])
        put(column[e], cb[e], s.gain[e])
        h = ~gives & by_current
        put(column[h], self.control[h], -s.gain[h])
        return np.concatenate(data), np.concatenate(rows), np.concatenate(cols)

    def _factor(self, slope: Floats) -> Solved:
        most_singular = MOST_SINGULAR if self.problem.circuit.copies == 1 else 0  # singular copies are solved alone
        try:
            return Lu(self._array(slope) if self.size <= _DENSE else self._sparse_array(slope), most_singular)
        except np.linalg.LinAlgError:
            c = self.problem.circuit
            names = [c.element(c.controlled, k) for k in range(len(c.controlled))]
            raise TopologyError(
                f"the equations of the controlled sources {listed(names)} are singular: no solution, or more than one; "
                "check their gains and loops",
                c.at(c.controlled, 0),
                elements=names,
            ) from None

    def _array(self, slope: Floats) -> Floats:
        """The matrix, (size, size), with legs of these slopes and the damping. Known ends, -1, add to a further row and
        column, which are cut off."""
        whole = np.zeros((self.size + 1, self.size + 1))
        whole[:-1, :-1] = self.matrix.toarray()
        a, k = self.legs.a, self.legs.k
        for row, col, value in ((a, a, slope), (k, k, slope), (a, k, -slope), (k, a, -slope)):
            np.add.at(whole, (row, col), value)
        unit = np.arange(self.problem.n_free)
        whole[unit, unit] += self.damping
        return whole[:-1, :-1]

    def _sparse_array(self, slope: Floats) -> sparse.csc_array:
        """The same as a sparse matrix."""
        a, k = self.legs.a, self.legs.k
        rows, cols, data = [], [], []
        for row, col, sign in ((a, a, 1.0), (k, k, 1.0), (a, k, -1.0), (k, a, -1.0)):
            has = (row >= 0) & (col >= 0)
            rows.append(row[has])
            cols.append(col[has])
            data.append(sign * slope[has])
        on_top = sparse.csr_array(
            (np.concatenate(data), (np.concatenate(rows), np.concatenate(cols))), shape=self.matrix.shape
        )
        held = np.where(np.arange(self.size) < self.problem.n_free, self.damping, 0.0)
        return sparse.csc_array(self.matrix + on_top + sparse.diags_array(held))

    def check_consistent(self, drive: Drive) -> None:
        """Raise TopologyError when some of the linear equations add up to a contradiction, 0 = something else.

        w' M = 0 and w' b != 0 mean that M u = b has no solution; w' is also 0 across every leg, so that their currents
        do not matter. w comes from rational arithmetic: float64 would call a stiff network a singular one. What b
        misses for rounding counts as 0; networks with many unknowns are let pass.
        """
        if max(self.size, self.legs.a.size) > _MOST_EXACT:
            return
        sides, sizes = self.sides(drive), self._sizes(drive)
        for weight in self._dependent():
            wrong = np.flatnonzero(np.abs(sides @ weight) > _CONTRADICTS * (sizes @ np.abs(weight)))
            for row in wrong[:1].tolist():
                self._refuse(weight, drive.rows.start + row if self.problem.batch > 1 else None)

    def _dependent(self) -> Iterator[Floats]:
        """A basis of all weights w (size,) with w' M = 0, scaled to at most 1, by Gaussian elimination in fractions."""
        rows: list[dict[int, Fraction]] = [{} for _ in range(self.size)]
        leg = self.size + np.arange(self.legs.a.size)
        ends = [(sign * np.ones(leg.size), unit, leg) for unit, sign in ((self.legs.a, 1.0), (self.legs.k, -1.0))]
        for value, row, col in (self.stamps, *ends):
            for x, i, j in zip(value.tolist(), row.tolist(), col.tolist(), strict=True):
                if i >= 0:
                    rows[i][j] = rows[i].get(j, Fraction(0)) + Fraction(x)
        pivots: dict[int, tuple[dict[int, Fraction], dict[int, Fraction]]] = {}
        for i, entries in enumerate(rows):
            left, weight = {j: x for j, x in entries.items() if x}, {i: Fraction(1)}
            while (j := min(left, default=-1)) >= 0:
                if j not in pivots:
                    pivots[j] = left, weight
                    break
                above, of_above = pivots[j]
                factor = left[j] / above[j]
                left, weight = _minus(left, factor, above), _minus(weight, factor, of_above)
            else:
                out = np.zeros(self.size)
                largest = max(map(abs, weight.values()))  # unscaled, a fraction may be too large for a float
                out[list(weight)] = [float(x / largest) for x in weight.values()]
                yield out

    def _refuse(self, weight: Floats, row: int | None) -> None:
        """Raise TopologyError naming the active branches in a sum of equations with these weights (size,)."""
        c, n = self.problem.circuit, self.problem.n_free
        s, t = c.active, self.problem.topology
        at_unit = np.append(weight[:n], 0.0)
        first = t.links.size
        of_branch = at_unit[t.carrier_a[first:]] - at_unit[t.carrier_k[first:]]  # F and G: by the KCL at their ends
        of_branch[self.fixed_voltage] = weight[n:]
        largest = np.abs(of_branch).max(initial=0.0)
        named = np.flatnonzero(np.abs(of_branch) > 1e-9 * largest).tolist()
        if named:
            names = [c.element(s, k) for k in named]
            of_row = "" if row is None else f" in batch row {row}"
            fault = f"the equations of {listed(names)} contradict each other, with what other sources fix"
            if len(names) == 1:
                fault = f"the equation of {names[0]} contradicts what other sources fix"
            raise TopologyError(
                f"{fault}{of_row}: no voltages and currents satisfy all of them; make them agree, or put a resistor "
                "between them",
                c.at(s, max(named, key=lambda k: at.line if (at := c.at(s, k)) else -1)),
                elements=names,
            )

    def flow(self, u: Floats) -> Floats:
        out: Floats = (self.matrix @ u.T).T
        return out

    def sides(self, drive: Drive) -> Floats:
        """Injections, those of F and G from fixed potentials among them; and the fixed parts of the voltage laws."""
        return self._gathered(drive.injection, -self._laws_at_zero(drive)[0], -1.0)

    def _sizes(self, drive: Drive) -> Floats:
        """The sums of the absolute terms in `sides`, (rows, size)."""
        fixed = drive.fixed_abs
        if not fixed.size:
            fixed = (abs(self.problem.values.known_couplings) @ np.abs(drive.fixed).T).T
        return self._gathered(np.abs(drive.injection) + fixed + drive.source_abs, self._laws_at_zero(drive)[1], 1.0)

    def _laws_at_zero(self, drive: Drive) -> tuple[Floats, Floats]:
        """With all unknowns 0, the error in each active branch's law, (rows, n_active), A or V, and its terms' size."""
        rows = max(drive.injection.shape[0], drive.fixed.shape[0])
        still = replace(drive, carried=np.zeros((1, self.problem.topology.carrier_a.size)), base=())
        miss, size, _ = active_laws(self.problem, still, np.zeros((rows, self.problem.n_free)))
        return miss, size

    def _gathered(self, injected: Floats, of_law: Floats, sign_at_a: float) -> Floats:
        """One number for each equation, (rows, size): `injected` (rows, n_free), to which the currents of F and G in
        `of_law` (rows, n_active) are added at their ends, with `sign_at_a` at a; then the voltage laws in `of_law`.
        """
        current = np.zeros_like(of_law)
        current[:, self.fixed_current] = of_law[:, self.fixed_current]
        t = self.problem.topology
        padded = np.zeros((of_law.shape[0], self.problem.n_free + 1))
        padded[:, :-1] = injected
        for unit, sign in ((t.carrier_a, sign_at_a), (t.carrier_k, 1.0)):
            ufunc_at(np.add, padded.T, unit[t.links.size :], sign * current.T)
        return np.concatenate([padded[:, :-1], of_law[:, self.fixed_voltage]], axis=1)

    def with_carried(self, drive: Drive, links: Floats, extra: Floats, x: Floats) -> Drive:
        """Currents of F and G follow from their laws, with all digits."""
        carried = np.zeros((x.shape[0], self.problem.topology.carrier_a.size))
        carried[:, : links.shape[1]] = links
        active = carried[:, links.shape[1] :]
        active[:, self.fixed_voltage] = extra
        miss, *_ = active_laws(self.problem, replace(drive, carried=carried), x)
        active[:, self.fixed_current] = -miss[:, self.fixed_current]
        return replace(drive, carried=carried)

    def violation(self, check: Check, quiet: bool = False) -> Floats:
        miss, _, size = active_laws(self.problem, check.drive, check.x)
        flow = check.exact_violation()
        if quiet:
            miss = np.where(np.abs(miss) > ROUNDING * size, miss, 0.0)
            flow = np.where(check.upper > ROUNDING, flow, 0.0)
        return np.concatenate([flow, miss[:, self.fixed_voltage]], axis=1)


def _minus(x: dict[int, Fraction], factor: Fraction, y: dict[int, Fraction]) -> dict[int, Fraction]:
    """x - factor y of sparse vectors."""
    out = dict(x)
    for j, value in y.items():
        out[j] = out.get(j, Fraction(0)) - factor * value
    return {j: value for j, value in out.items() if value}
