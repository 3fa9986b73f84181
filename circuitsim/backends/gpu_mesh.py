"""Large meshes on the device: conjugate gradients, preconditioned by the diagonal, in float64.

Multigrid takes a dozen steps, this takes a few times the width of the mesh; but each step is short, and there is
nothing to set up. Sums are taken in a fixed order, so that the same call gives the same bits.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.device import Device
from circuitsim.linear.forest import strong_forest
from circuitsim.linear.gradients import REDUCTION
from circuitsim.linear.multigrid import Hierarchy, Multigrid
from circuitsim.problem import Problem

Floats = NDArray[np.float64]
Array = Any

SUMS, AT_ONCE = 256, 8  # partial sums of a dot product, which every thread then adds up; see kernels.cu
_THREADS = 256 * SUMS  # threads that share the unknowns
_TOGETHER = 20  # steps that are launched in one go
_LOOKS = 5  # such launches between two checks of the residual
_MOST_STEPS = 20_000


def refusal(problem: Problem) -> str:
    """Why the linear networks of a problem are not solved like this; empty where they are."""
    t = problem.topology
    if not problem.circuit.reciprocal:
        return "the circuit has controlled sources"
    if not isinstance(t.solver, Multigrid):
        return "it is not a large mesh"
    edges, g = t.edges, problem.edge_conductances()
    live = g > 0
    forest = strong_forest(edges[0][live], edges[1][live], g[live], problem.values.to_fixed)
    return "its wires are best eliminated" if forest else ""


class GpuMesh(Multigrid):
    """See linear.LinearSolver; the pattern of a problem that is not refused."""

    def __init__(self, pattern: Multigrid, device: Device) -> None:
        super().__init__(pattern.n, pattern.i, pattern.j)
        self.device = device

    def hierarchy(self, g: Floats, to_ground: Floats) -> Hierarchy:
        return _OnDevice(self, g, to_ground, self.device)


class _OnDevice(Hierarchy):
    """A network solved on the device; where conjugate gradients do not converge there, by multigrid on the host."""

    def __init__(self, pattern: Multigrid, g: Floats, to_ground: Floats, device: Device) -> None:
        super().__init__(pattern, g, to_ground)
        self.device = device

    def iterated(self, current: Floats) -> tuple[Floats, bool]:
        if self.given_up or self.forest is None:
            with self.device.guard():
                found = self._steps(current)
            if found is not None:
                return found, True
        return super().iterated(current)

    @cached_property
    def on_device(self) -> tuple[Array, Array, Array, Array]:
        """The matrix, rows ptr[u]:ptr[u + 1] of indices and data, and its diagonal."""
        put, matrix = self.device.to_device, self.matrix
        ptr, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
        return put(ptr), put(indices), put(matrix.data), put(matrix.diagonal())

    def _steps(self, current: Floats) -> Floats | None:
        """Voltages for one row of currents, (n,), by conjugate gradients; None if they do not converge."""
        device, xp, n = self.device, self.device.xp, current.size
        ptr, indices, data, diag = self.on_device
        threads = min(_THREADS, -(-n // (AT_ONCE * SUMS)) * AT_ONCE * SUMS)
        r = xp.array(current)
        p = r / diag
        x, q = xp.zeros(n), xp.empty(n)
        parts, energy, before, after = xp.zeros(threads), xp.zeros(SUMS), xp.zeros(SUMS), xp.zeros(SUMS)
        after[0] = (r * p).sum()
        start = float(device.to_host(after[:1])[0])

        def steps() -> None:
            for _ in range(_TOGETHER):
                device.launch(
                    "cg_multiply", threads, n, threads, ptr, indices, data, p, q, parts, after, before,
                )  # fmt: skip
                device.launch("cg_sum", SUMS, threads, parts, energy)
                device.launch("cg_advance", threads, n, threads, diag, p, q, before, energy, x, r, parts)
                device.launch("cg_sum", SUMS, threads, parts, after)
                device.launch("cg_turn", threads, n, threads, diag, r, after, before, p)

        again = steps
        for taken in range(0, _MOST_STEPS, _TOGETHER * _LOOKS):
            for _ in range(_LOOKS):
                again()
            if taken == 0:
                again = device.recorded(steps)
            left = float(device.to_host(after).sum())
            if not np.isfinite(left):
                return None
            if left <= REDUCTION**2 * start:
                found: Floats = device.to_host(x)
                return found
        return None
