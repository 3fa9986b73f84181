"""The linear network of newton: what a problem becomes when every leg is replaced by its tangent.

It consists of conductances and currents, and is solved by elimination or conjugate gradients. With controlled sources
`MnaNetwork` (mna.py) takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circuitsim.branch_sums import ufunc_at
from circuitsim.drive import Drive
from circuitsim.law_kernels import G_FORWARD, G_REVERSE, Law
from circuitsim.laws import branch_current
from circuitsim.linear import LinearSolver, Solved
from circuitsim.linear.elimination import Factors
from circuitsim.linear.multigrid import Multigrid
from circuitsim.linear.wires import Wired, Wires
from circuitsim.problem import Problem
from circuitsim.residual import ROUNDING, Check

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_IMMOVABLE = 1e200  # S, of a diode at a bound: its unit does not move
_SOFTLY = 1e-12  # times the largest conductance: holds a unit of each floating part
_SAME_SLOPE = 0.1  # relative changes of slopes up to this are ignored in corrections, which still shrink fast
_CURVED = 8.0  # factor between two slopes of a curved law beyond which a correction keeps the old one
_STIFFNESS = 1e4  # rho of a conducting ideal diode, in units of the largest conductance
_LOCAL_STIFFNESS = 1e8  # the same, of the conductances at a unit where no other leg ends
_GENTLE_STIFFNESS = 1e2  # the same, of the smaller conductance at either end


@dataclass(frozen=True)
class Tangents:
    """Where each leg is replaced by its tangent: i = current + slope (v - voltage)."""

    voltage: Floats  # (legs,) V
    current: Floats  # (legs,) A
    slope: Floats  # (legs,) S


class Network:
    """The legs of a problem and the linear branches around them. Unknowns u are the voltages x of the free units."""

    def __init__(
        self, problem: Problem, solver: LinearSolver | None = None, stiffness: Callable[[Network], Floats] | None = None
    ) -> None:
        self.problem = problem
        t, v = problem.topology, problem.values
        self.solver = solver or t.solver
        self.size = problem.n_free
        self.legs = legs = t.legs
        self.edge_g, self.to_fixed = problem.edge_conductances(), v.to_fixed
        self.first_leg_edge = self.edge_g.size - t.leg_edges.size
        j = problem.circuit.junctions
        self.law, self.params = j.law[t.junctions], j.params[t.junctions]
        self.ideal = np.arange(legs.a.size) >= legs.n_junctions
        lines = self.params[self.law == Law.PWL]  # an exponential's slope has no limit
        steepest = lines[:, [G_FORWARD, G_REVERSE]].max(initial=0.0)
        self.largest = max(float(v.diag.max(initial=0.0)), float(steepest)) or 1.0
        self.ends = [(has := np.flatnonzero(unit >= 0), unit[has]) for unit in (legs.a, legs.k)]
        self.rho = np.where(self.ideal, (stiffness or _local_stiffness)(self), 0.0)
        self.damping: float | Floats = 0.0
        self.factored: Solved | None = None
        self.last: Solved | None = None  # the last factored network without floating parts
        self.by_forest = False  # whether any was solved by the forest of wires
        self.factored_slope = np.full(legs.a.size, np.nan)

    def otherwise(self) -> Iterator[Network]:
        """Networks for further attempts when full steps failed: without a forest, diodes all equally or gently stiff.

        Where states depend on rounding, one may lead to a solution and another not. Only new ones are given.
        """
        if not self.problem.circuit.reciprocal:
            return
        solver = self.solver.without_forest if self.by_forest and isinstance(self.solver, Wires) else self.solver
        stiff = {self.rho.tobytes()} if solver is self.solver else set()
        for stiffness in (_uniform_stiffness, _gentle_stiffness):
            network = Network(self.problem, solver, stiffness)
            if network.rho.tobytes() not in stiff:
                stiff.add(network.rho.tobytes())
                yield network

    def of(self, problem: Problem) -> Network:
        """The same network, with its factors, for a problem that differs in its sources only."""
        other = copy(self)
        other.problem = problem
        return other

    @property
    def cheap(self) -> bool:
        """Whether one more solution is cheap enough to find how far a correction would go (not with multigrid)."""
        return not isinstance(self.problem.topology.solver, Multigrid)

    def factor(self, slope: Floats) -> Solved:
        """The network with these conductances of the legs, (legs,), S; kept while they stay the same.

        With several rows, (rows, legs), each has its own network, solved by dense matrices: for small networks.
        """
        if slope.ndim > 1:
            softly = np.where(np.arange(self.size) < self.problem.n_free, _SOFTLY * self.largest, 0.0)
            return _Dense(self.matrices(slope), softly)
        if self.factored is None or not np.array_equal(slope, self.factored_slope):
            self.factored, self.factored_slope = self._factor(slope), slope.copy()
        return self.factored

    def matrices(self, slope: Floats) -> Floats:
        """The equations with conductances of the legs (rows, legs), (rows, size, size)."""
        linear, of_legs = self._dense
        return linear + (slope @ of_legs).reshape(len(slope), *linear.shape)

    @cached_property
    def _dense(self) -> tuple[Floats, Floats]:
        """The equations without legs, (size, size), and what 1 S of each leg adds to them, (legs, size^2)."""
        of_legs = np.einsum("mi,mj->mij", self.incidence, self.incidence)
        return self.flow(np.eye(self.size)).T, of_legs.reshape(len(of_legs), self.size**2)

    @cached_property
    def incidence(self) -> Floats:
        """The coefficient of each unknown in the voltage of each leg, (legs, size)."""
        return self.across(np.eye(self.size)).T

    def damp(self, conductance: float | Floats) -> None:
        """Hold every free unit where it is with this conductance, S: steps get shorter, their limit stays the same."""
        self.damping, self.factored = conductance, None

    def _factor(self, slope: Floats) -> Solved:
        t, legs = self.problem.topology, self.legs
        g = self.edge_g.copy()
        g[self.first_leg_edge :] = slope[t.leg_edges]
        to_ground = self.to_fixed + self.damping
        for own, other in ((legs.a, legs.k), (legs.k, legs.a)):
            single = (own >= 0) & (other < 0)
            np.add.at(to_ground, own[single], slope[single])
        rows = 1 if legs.a.size else self.problem.batch
        solved = self.solver.factor(g, to_ground, self.last, rows)
        self.by_forest |= isinstance(solved, Wired)
        if not solved.floating.size:
            self.last = solved
            return solved
        # Floating units are held where they are by a tiny conductance, which carries nothing once they do not move.
        softly = _SOFTLY * self.largest
        if isinstance(solved, Factors):
            return _Floating(solved.grounded(softly), solved.floating)
        to_ground[solved.floating] += softly
        return _Floating(self.solver.factor(g, to_ground, solved, rows), solved.floating)

    def across(self, u: Floats) -> Floats:
        """Voltages of the legs without their offsets, (..., legs), V, at u (..., size)."""
        return _at(u, self.legs.a) - _at(u, self.legs.k)

    def into(self, current: Floats) -> Floats:
        """Currents of the legs, a to k, as injections into the unknowns, (size,); for several rows, (rows, size)."""
        (a, at_a), (k, at_k) = self.ends
        if current.ndim > 1:
            out = np.zeros((self.size, len(current)))
            ufunc_at(np.add, out, at_k, current.T[k])
            ufunc_at(np.subtract, out, at_a, current.T[a])
            return out.T
        into = np.bincount(at_k, current[k], self.size) - np.bincount(at_a, current[a], self.size)
        return into.astype(np.float64, copy=False)

    def units_at_bounds(self, slope: Floats) -> tuple[Ints, Ints]:
        """The units that conducting diodes hold at their lower, and at their upper bounds (none in several rows)."""
        conducting = (np.atleast_2d(slope)[:, self.legs.n_junctions + self.legs.n_links :] > 0).any(axis=0)
        lower, upper = np.split(conducting, [self.legs.lower.size])
        return self.legs.lower[lower], self.legs.upper[upper]

    def immovable(self, slope: Floats) -> Floats:
        """Slopes with which conducting diodes at bounds let no unit move, so that rounding elsewhere stays there."""
        bounds = np.arange(slope.shape[-1]) >= self.legs.n_junctions + self.legs.n_links
        return np.where(bounds & (slope > 0), _IMMOVABLE, slope)

    def slopes(self, old: Floats, check: Check, rounding: Floats) -> Floats:
        """The slopes of the nonlinear branches at the voltages of a check, S; those of the others as they were.

        Within the rounding, (rows, 1) V, of a knee between straight pieces, the old slope if it is that of either side.
        """
        n = self.legs.n_junctions
        v = self.across(check.x)[:, :n] + check.drive.junction_offset if n else np.zeros((1, 0))
        v, rounding = (v, rounding) if old.ndim > 1 else (v[0], rounding[0])
        _, now = branch_current(self.law, self.params, v)
        straight = self._straight
        law, params, at = self.law[straight], self.params[straight], v[..., straight]
        before = old[..., :n][..., straight]
        sides = [branch_current(law, params, at + volts)[1] == before for volts in (-rounding, rounding)]
        now[..., straight] = np.where(np.logical_or(*sides), before, now[..., straight])
        return np.concatenate([now, old[..., n:]], axis=-1)

    def relinearised(self, old: Floats, check: Check, rounding: Floats) -> Floats:
        """These slopes, or the old ones if hardly any has changed.

        For curved laws only slopes of similar size: tangents that are much flatter lead far away.
        """
        now, n = self.slopes(old, check, rounding), self.legs.n_junctions
        before, at = old[..., :n], now[..., :n]
        at[:] = np.where(self._straight | ((at > before / _CURVED) & (at < before * _CURVED)), at, before)
        return old if (np.abs(at - before) <= _SAME_SLOPE * at).all() else now

    @cached_property
    def _straight(self) -> NDArray[np.bool_]:
        """Which nonlinear branches have piecewise-linear laws."""
        return np.isin(self.law, (Law.PWL, Law.SEGMENT))

    def conductance_around(self) -> Floats:
        """The smaller of the conductances at either end of each leg, (legs,), S; inf where there is none."""
        g, diag = np.full(self.legs.a.size, np.inf), self.problem.values.diag
        for has, unit in self.ends:
            g[has] = np.minimum(g[has], np.where(diag[unit] > 0, diag[unit], np.inf))
        return g

    def offset(self, drive: Drive) -> Floats:
        """The fixed part of each leg's voltage in the first row, (legs,), V."""
        return self.offsets(drive, 1)[0]

    def offsets(self, drive: Drive, rows: int) -> Floats:
        """The same in the first rows, (rows, legs); -inf for an absent bound. Ideal legs conduct at 0 V."""
        lo, hi = drive.lo[:, self.legs.lower], drive.hi[:, self.legs.upper]
        parts = (drive.junction_offset, drive.link_offset, lo, -hi)
        return np.concatenate([np.broadcast_to(x[:rows], (rows, x.shape[1])) for x in parts], axis=1)

    def flow(self, u: Floats) -> Floats:
        """Left-hand sides of the linear equations at u (rows, size): currents out of the units."""
        i, j = self.problem.topology.edges
        current = self.edge_g * (u[:, i] - u[:, j])
        leaving, coming = np.zeros((2, self.problem.n_free, len(u)))
        ufunc_at(np.add, leaving, i, current.T)
        ufunc_at(np.add, coming, j, current.T)
        return self.to_fixed * u[:, : self.problem.n_free] + (leaving - coming).T

    def sides(self, drive: Drive) -> Floats:
        """Right-hand sides, (rows or 1, size): injections."""
        return drive.injection

    def violations(self, drive: Drive, u: Floats) -> Floats:
        """Right-hand sides minus left-hand sides at u, (rows, size), legs left out."""
        return self.sides(drive) - self.flow(u)

    def linear_step(self, drive: Drive, u: Floats, offset: Floats, tangents: Tangents) -> Floats:
        """The solution of the linear network of the tangents, as a correction to u: nothing large cancels near it."""
        live = tangents.slope > 0
        past = np.where(live, self.across(u) + np.where(live, offset, 0.0) - tangents.voltage, 0.0)
        current = tangents.current + tangents.slope * past
        wanted = self.violations(drive, u[None])[0] + self.into(current)
        correction: Floats = self.factor(tangents.slope).solve(wanted[None])[0]
        return u + correction

    def check_consistent(self, drive: Drive) -> None:
        """Raise TopologyError when the linear equations alone are contradictory: never without controlled sources.

        Islands and loops of sources and of ideal diodes are checked earlier.
        """

    # -- for the certificate ---------------------------------------------------------------------------------------

    def with_carried(self, drive: Drive, links: Floats, extra: Floats, x: Floats) -> Drive:
        """The drive with the currents of its carriers at x.

        `links` (rows, n_links) are the currents of links; `extra` (rows, size - n_free) the further unknowns.
        """
        return replace(drive, carried=links)

    def violation(self, check: Check, quiet: bool = False) -> Floats:
        """Left-hand sides minus right-hand sides where the check was made, with all digits, (rows, size).

        `quiet`: without what no correction can make smaller: carried currents, and the voltages that nonlinear
        branches see, are one float64 each.
        """
        flow = check.exact_violation()
        return np.where(check.upper > ROUNDING, flow, 0.0) if quiet and self.legs.a.size else flow


def _uniform_stiffness(network: Network) -> Floats:
    """rho of each leg, (legs,), S: far above all conductances."""
    return np.full(network.legs.a.size, _STIFFNESS * network.largest)


def _local_stiffness(network: Network) -> Floats:
    """rho of each leg, (legs,), S: far above only the conductances on which its voltage depends when it conducts.

    If no other leg, and no controlled source, ends at one of its units, these are that unit's conductances, not the
    largest of all, whose rounding would swamp the currents of a small conductance.
    """
    rho, diag = _uniform_stiffness(network), network.problem.values.diag
    if not network.problem.circuit.reciprocal:
        return rho
    count = np.bincount(np.concatenate([unit for _, unit in network.ends]), minlength=diag.size)
    for has, unit in network.ends:
        alone = (count[unit] == 1) & (diag[unit] > 0)
        rho[has[alone]] = np.minimum(rho[has[alone]], _LOCAL_STIFFNESS * diag[unit[alone]])
    return rho


def _gentle_stiffness(network: Network) -> Floats:
    """rho of each leg, (legs,), S: a little above the smaller conductance at its ends.

    Closing then takes more solutions with one factorisation. But currents of conducting diodes cannot be distinguished
    from the rounding of voltages times rho, so this resolves smaller ones.
    """
    around = network.conductance_around()
    return np.where(np.isfinite(around), _GENTLE_STIFFNESS * around, _STIFFNESS * network.largest)


@dataclass(frozen=True)
class _Floating:
    """A network whose floating parts are held by tiny conductances, each at the node in `floating`."""

    solved: Solved
    floating: Ints

    @property
    def loose(self) -> NDArray[np.bool_]:
        return self.solved.loose

    def solve(self, injected: Floats) -> Floats:
        return self.solved.solve(injected)


@dataclass(frozen=True)
class _Dense:
    """Small networks, one for each row, by dense matrices. Those still singular with `softly` have NaN as solutions."""

    matrices: Floats  # (rows, size, size)
    softly: Floats  # (size,) S, added to the diagonal of singular ones
    floating = np.zeros(0, np.int64)

    @property
    def loose(self) -> NDArray[np.bool_]:
        return np.zeros(self.softly.size, bool)

    def solve(self, injected: Floats) -> Floats:
        """The unknowns for right-hand sides of each row, (rows, size), or (1, size) for all networks."""
        sides = injected[:, :, None]
        try:
            out = np.linalg.solve(self.matrices, sides)
        except np.linalg.LinAlgError:
            singular = np.linalg.slogdet(self.matrices).sign == 0
            matrices = self.matrices + np.where(singular[:, None], self.softly, 0.0)[:, :, None] * np.eye(
                self.softly.size
            )
            still = np.linalg.slogdet(matrices).sign == 0
            matrices[still] = np.eye(self.softly.size)
            out = np.linalg.solve(matrices, sides)
            out[still] = np.nan
        return out[:, :, 0].astype(np.float64, copy=False)


def _at(values: Floats, unit: Ints) -> Floats:
    """Of values (..., size) those at these units; 0 for known ends, -1."""
    return np.where(unit >= 0, values[..., unit] if values.size else 0.0, 0.0)
