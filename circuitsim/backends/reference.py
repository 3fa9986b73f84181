"""The slow twin: block coordinate descent in plain loops, one unit and one branch at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.drive import Drive
from circuitsim.laws import branch_current
from circuitsim.problem import Problem
from circuitsim.residual import Check

Floats = NDArray[np.float64]

_BISECTIONS = 2200  # halves any float64 bracket until its ends are neighbours


class ReferenceBackend:
    """Plain Python loops; for tests and for reading."""

    name = "reference"
    workers = 1

    def engine(self, problem: Problem, dtype: str) -> ReferenceEngine:
        return ReferenceEngine(problem, dtype)

    def tile(self, problem: Problem, dtype: str) -> int:
        return 256

    def row_steps(self, problem: Problem) -> None:
        return None

    def solver(self, problem: Problem) -> None:
        return None

    def drive(self, problem: Problem, rows: slice) -> Drive:
        return problem.drive(rows)


class ReferenceEngine:
    """See base.Engine. Every unit keeps the list of its neighbours (unit, conductance) and of its junctions."""

    def __init__(self, problem: Problem, dtype: str) -> None:
        t, v = problem.topology, problem.values
        self.dtype = np.dtype(dtype)
        self.problem = problem
        self.neighbours: list[list[tuple[int, float]]] = [[] for _ in range(problem.n_free)]
        coo = v.couplings.tocoo()
        for u, w, g in zip(coo.row.tolist(), coo.col.tolist(), coo.data.tolist(), strict=True):
            self.neighbours[u].append((w, g))
        unit = np.arange(problem.n_free)
        for spec, matrix in problem.inner_blocks:
            for i, u in enumerate(unit[spec.row.units].tolist()):
                for j, w in enumerate(unit[spec.col.units].tolist()):
                    self.neighbours[u].append((w, float(matrix[i, j])))
                    self.neighbours[w].append((u, float(matrix[i, j])))
        self.junctions: list[list[int]] = [[] for _ in range(problem.n_free)]
        for k, ends in enumerate(zip(t.junction_a.tolist(), t.junction_k.tolist(), strict=True)):
            for u in ends:
                if u >= 0:
                    self.junctions[u].append(k)

    def start(self, drive: Drive, x: Floats | None) -> None:
        rows = drive.rows.stop - drive.rows.start
        x = np.zeros((rows, self.problem.n_free)) if x is None else x
        self.drive = drive
        self.x = x.astype(self.dtype)
        self.injection = np.broadcast_to(drive.injection, x.shape)
        self.lo, self.hi = np.broadcast_to(drive.lo, x.shape), np.broadcast_to(drive.hi, x.shape)
        self.offset = np.broadcast_to(drive.junction_offset, (rows, drive.junction_offset.shape[1]))

    def sweep(self, count: int) -> bool:
        changed = False
        for _ in range(count):
            changed = False
            for b in range(self.x.shape[0]):
                for u in range(self.problem.n_free):
                    new = self.dtype.type(self.exact_step(b, u))
                    changed = changed or new != self.x[b, u]
                    self.x[b, u] = new
        return changed

    def voltages(self) -> Floats:
        return self.x.astype(np.float64)

    def check(self) -> Check:
        return Check(self.problem, self.drive, self.voltages())

    def exact_step(self, b: int, u: int) -> float:
        """The unit's voltage that satisfies its own KCL and bounds, all else fixed."""
        diag = float(self.problem.values.diag[u])
        current = float(self.injection[b, u]) + sum(g * float(self.x[b, w]) for w, g in self.neighbours[u])
        if self.junctions[u]:
            target = self._root(b, u, diag, current)
        elif diag > 0:
            target = current / diag
        else:  # nothing but ideal diodes: a current drives it to a bound, none leaves it where it is
            target = np.inf if current > 0 else -np.inf if current < 0 else float(self.x[b, u])
        return min(max(target, float(self.lo[b, u])), float(self.hi[b, u]))

    def _root(self, b: int, u: int, diag: float, current: float) -> float:
        """Bisection on the monotone KCL of the unit: diag x - current + junction currents = 0."""

        def kcl(x: float) -> float:
            return diag * x - current + sum(self._junction(b, u, k, x) for k in self.junctions[u])

        marks = [self._zero(b, u, k) for k in self.junctions[u]] + ([current / diag] if diag > 0 else [])
        low, high = min(marks), max(marks)
        reach = 0.1
        while (kcl(low) > 0 or kcl(high) < 0) and reach < 1e12:  # only without a linear branch
            low, high, reach = low - reach, high + reach, 2 * reach
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break
            if kcl(middle) > 0:
                high = middle
            else:
                low = middle
        return low if abs(kcl(low)) <= abs(kcl(high)) else high

    def _zero(self, b: int, u: int, k: int) -> float:
        """The voltage of u at which junction k has no voltage across it."""
        a, c = int(self.problem.topology.junction_a[k]), int(self.problem.topology.junction_k[k])
        offset = float(self.offset[b, k])
        if a == u:
            return (float(self.x[b, c]) if c >= 0 else 0.0) - offset
        return (float(self.x[b, a]) if a >= 0 else 0.0) + offset

    def _junction(self, b: int, u: int, k: int, x: float) -> float:
        """The current of junction k out of u when u is at x."""
        circuit_row = self.problem.topology.junctions[k]
        j = self.problem.circuit.junctions
        anode = int(self.problem.topology.junction_a[k]) == u
        voltage = x - self._zero(b, u, k) if anode else self._zero(b, u, k) - x
        current, _ = branch_current(
            j.law[circuit_row : circuit_row + 1], j.params[circuit_row : circuit_row + 1], np.array([voltage])
        )
        return float(current[0]) if anode else -float(current[0])
