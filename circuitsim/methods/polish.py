"""The last digits of a solution that newton has found, or has nearly found.

A correction d to the voltages x is kept separately (kcl.shift), and d itself is corrected from the remaining KCL
violations: every branch voltage then has all its digits, however close in potential its ends are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.branch_sums import ufunc_at
from circuitsim.drive import Drive
from circuitsim.kcl import shift
from circuitsim.methods.drift import drifted, may_drift
from circuitsim.methods.held import hardly_moves
from circuitsim.methods.limiting import NO_DROP, largest_voltages
from circuitsim.methods.network import Network
from circuitsim.methods.outcome import Outcome
from circuitsim.residual import NOTHING, Check
from circuitsim.solution import Settings, Status

Floats = NDArray[np.float64]

_CLOSED = 1e-12  # times the largest voltage: a conducting diode with a smaller gap is closed
MOVES = 1e-9  # times the largest voltage: a solution that a correction moves by more is corrected (of sweeps: held.py)
_MOST_PARTS = 3  # of the voltages, each the rounding of the one before
_MOST_REFINED = 16  # corrections of a correction
_MOST_DRIFTING, _DRIFTS = 200, 0.9  # with islands the same, while each leaves less than this share of the violation
_FAR = 1e3  # times the largest voltage: larger corrections are useless
_NEXT_PART = 4  # corrections after which the voltages get another part
_GROSS = 1e-9  # relative to the largest current (or voltage, of a gap): a larger violation is not rounding
_HOPELESS, _NO_LESS = 4, 0.5  # successive corrections that leave such a violation above this share of the least so far
_SLOW = 0.1  # share of the gaps of conducting diodes: if a correction leaves more, they are made stiffer
_STIFFER, _STIFFEST = 1e3, 1e12  # by this factor, while below this stiffness, in units of the largest conductance
_HOLD_AFTER = 2  # corrections after which conducting diodes hold their units as known potentials would


def polished(
    network: Network, drive: Drive, settings: Settings, u: Floats, links: Floats, slope: Floats, steps: int
) -> Outcome:
    """The outcome at u (rows, size), refined while its certificate is not met and refining helps.

    `links` (rows, n_links), the currents of links, and `slope` are those of the tangents at u: slopes (legs,) for all
    rows, or, in networks without perfect diodes, for each row, (rows, legs).
    """
    state = _Refined(network, drive, u, links, slope)
    found, stuck, still, sure = state.check(), 0, False, False
    islands, drifts = bool(network.problem.topology.islands.arcs), may_drift(network.problem) and u.shape[0] == 1
    drifting = 1.0  # the relative violation before the last correction
    least = np.full(2, np.inf)  # least so far of the largest violation, and of the largest error in a link's law
    only_voltages = not network.legs.n_links and network.problem.circuit.reciprocal
    for refined in range(_MOST_DRIFTING + 1):
        if not found.finite():
            unsolved = dict.fromkeys(found.failing(settings.tolerance), Status.NONFINITE)
            return Outcome(state.parts[0], steps, found.certificate(), unsolved)
        met = found.meets(settings.tolerance) and found.certificate().kcl_relative <= settings.tolerance
        closed = state.closed(found)
        arrived = met and closed
        sure = arrived and not _adrift(network, found) and (still or hardly_corrected(network, found, state.slope))
        falls, drifting = islands and found.worst < _DRIFTS * drifting, found.worst
        if sure or (refined >= _MOST_REFINED and not falls) or refined == _MOST_DRIFTING:
            break
        if not found.drive.base:
            found = state.check(np.zeros_like(state.parts[0]))
        quiet = refined >= _NEXT_PART
        injected = -network.violation(found, quiet)
        if quiet and only_voltages and not injected.any():  # nothing is left but what may be rounding
            quiet, injected = False, -network.violation(found)
        worst = np.abs(injected[:, : network.problem.n_free]).max(axis=1, initial=0.0)
        missed = _missed(network, found, state.stiff)
        gross = missed > _GROSS or bool((worst > _GROSS * found.largest).any())
        now = np.array([worst.max(), missed])
        stuck = stuck + 1 if gross and (now >= _NO_LESS * least).all() else 0
        if not met and stuck >= _HOPELESS:
            break  # tangents of wrong states: there is nothing to refine
        least = np.minimum(now, least)
        if not closed:
            state.stiffen(found)
        step = state.correction(found, injected, first=not refined, hold=refined >= _HOLD_AFTER, drifts=drifts)
        if not (met or step.any()):
            break  # a correction of 0: the next would be the same
        volts = step[:, : network.problem.n_free]
        if _far(volts, state.parts[0], drive.fixed, float(found.largest.max()) / network.largest):
            break
        tells = not quiet or not (only_voltages or network.legs.n_junctions)  # that the next step is smaller still
        still = hardly_moves(volts, _allowed(network, found)) and (still or tells)
        found = state.corrected(found, step, next_part=refined == _NEXT_PART)
    return state.outcome(found, [] if met else found.failing(settings.tolerance), steps, sure)


class _Refined:
    """A solution while it is refined. Its voltages are sum(parts): first x, then each the rounding of those before.

    `extra` (rows, size - n_free): the further unknowns; `links` (rows, n_links): the currents of links, A; `slope`
    of the tangents, (legs,) or (rows, legs).
    """

    def __init__(self, network: Network, drive: Drive, u: Floats, links: Floats, slope: Floats) -> None:
        n, legs = network.problem.n_free, network.legs
        self.network, self.drive, self.links, self.slope = network, drive, links, slope
        self.parts, self.extra = [u[:, :n].copy()], u[:, n:].copy()
        self.lower, self.upper = network.units_at_bounds(slope)
        self.parts[0][:, self.lower] = drive.lo[:, self.lower]
        self.parts[0][:, self.upper] = drive.hi[:, self.upper]
        of_links = slice(legs.n_junctions, legs.n_junctions + legs.n_links)
        self.stiff = np.where(slope[..., of_links] > 0, network.rho[of_links], 0.0)  # S, of the links that conduct
        self.gap = np.inf  # V, the largest of these links
        self.held = np.concatenate([legs.lower, legs.upper])  # the unit that each diode at a bound may hold there
        conduct = slope[..., of_links.stop :] > 0
        self.holding = np.where(conduct, network.rho[of_links.stop :], 0.0)  # S, of these diodes

    def check(self, low: Floats | None = None) -> Check:
        """The check at sum(parts), or with `low` (rows, n_free) at sum(parts) + low: `low` are then its unknowns."""
        problem = self.network.problem
        at, x = (self.drive, self.parts[0]) if low is None else (shift(problem, self.drive, *self.parts), low)
        at = self.network.with_carried(at, np.maximum(self.links, 0.0), self.extra, x)
        return Check(problem, at, x, exact=True)

    def correction(self, found: Check, injected: Floats, *, first: bool, hold: bool, drifts: bool) -> Floats:
        """The correction of all unknowns, (rows, size), for `injected`, the violations of a check, negated.

        `first`: voltages may be off by rounding, on the wrong side of a knee; `hold`: conducting diodes hold their
        units as known potentials would; `drifts`: islands may drift as a whole.
        """
        legs, injected = self.network.legs, injected.copy()
        gap = _gaps(self.network, found)
        for unit, sign in ((legs.link_a, -1.0), (legs.link_k, 1.0)):
            ufunc_at(np.add, injected.T, unit, sign * (self.stiff * gap).T)
        ufunc_at(np.add, injected.T, self.held, (self.holding * self.off_bounds(found)).T)
        rounding = NO_DROP * largest_voltages(self.parts[0], self.drive.fixed) * first
        self.slope = self.network.relinearised(self.slope, found, rounding)
        network = self.network.factor(self.network.immovable(self.slope) if hold else self.slope)
        step = network.solve(injected)
        n = self.network.problem.n_free
        if drifts and np.isfinite(step).all():
            step[:, :n] = drifted(found, step[:, :n])
        return step

    def off_bounds(self, found: Check) -> Floats:
        """How far from their bounds units are that conducting diodes hold there, (rows, len(held)), V.

        Without controlled sources they are moved there (`corrected`).
        """
        lower, upper = self.network.legs.lower, self.network.legs.upper
        bounds = np.concatenate([found.drive.lo[:, lower], found.drive.hi[:, upper]], axis=1)
        return np.where(self.holding > 0, bounds - found.x[:, self.held], 0.0)

    def closed(self, found: Check) -> bool:
        """Whether the voltages across conducting diodes are negligible beside the largest voltage.

        The certificate does not show this where only small conductances depend on them.
        """
        network, nothing = self.network, _nothing(found)
        gap, largest = _gaps(network, found), _largest_at_links(network, found)
        links = (np.abs(gap) <= np.maximum(_CLOSED * largest, nothing)) | (self.stiff == 0)
        around = np.broadcast_to(_around(network, found), found.x.shape)[:, self.held]
        bounds = np.abs(self.off_bounds(found)) <= np.maximum(_CLOSED * around, nothing)
        return bool(links.all() and bounds.all())

    def corrected(self, found: Check, step: Floats, next_part: bool) -> Check:
        """Apply a correction to what was checked, and check again; `next_part`: from now on with one part more."""
        n, legs, bounds = self.network.problem.n_free, self.network.legs, found.drive
        low = np.clip(found.x + step[:, :n], bounds.lo, bounds.hi)
        lower, upper = self.lower, self.upper  # these units stay at their bounds while the diodes there carry currents
        low[:, lower] = np.where(found.flow[:, lower] > 0, bounds.lo[:, lower], low[:, lower])
        low[:, upper] = np.where(found.flow[:, upper] < 0, bounds.hi[:, upper], low[:, upper])
        self.extra = self.extra + step[:, n:]
        if legs.n_links:
            carried = np.maximum(self.links, 0.0)  # as in the check
            closing = _gaps(self.network, found) + step[:, legs.link_a] - step[:, legs.link_k]
            self.links = carried + self.stiff * closing
        self.parts, low = _spread(self.parts, low)
        if next_part and len(self.parts) < _MOST_PARTS:
            self.parts, low = [*self.parts, low], np.zeros_like(low)
        return self.check(low)

    def stiffen(self, found: Check) -> None:
        """Make conducting links stiffer when their largest gap hardly shrinks: many in series give way together.

        Not with controlled sources: LU would lose the digits of what is not stiff.
        """
        legs, eliminated = self.network.legs, self.network.problem.circuit.reciprocal
        gap = float(np.abs(_gaps(self.network, found)[:, self.stiff > 0]).max(initial=0.0))
        if eliminated and gap > _SLOW * self.gap and self.stiff.max(initial=0.0) < _STIFFEST * self.network.largest:
            self.stiff, self.slope = _STIFFER * self.stiff, self.slope.copy()
            of_links = self.slope[legs.n_junctions : legs.n_junctions + legs.n_links]
            of_links[self.stiff > 0] = self.stiff[self.stiff > 0]
        self.gap = gap

    def outcome(self, found: Check, failing: list[int], steps: int, sure: bool) -> Outcome:
        """The outcome of a check, with its certificate, which the rows `failing` do not meet."""
        carried = np.broadcast_to(found.drive.carried, (found.x.shape[0], found.drive.carried.shape[1])).copy()
        carried[failing, : self.network.legs.n_links] = self.links[failing]  # their signs say what is wrong
        first, *rest = (*self.parts, found.x) if found.drive.base else self.parts
        loose = self.network.factor(self.slope).loose
        low = np.stack(rest) if rest else None
        unsolved = dict.fromkeys(failing, Status.STALLED)
        slope = self.slope if self.slope.ndim == 1 else None
        return Outcome(first, steps, found.certificate(), unsolved, low, carried, loose, sure, slope)


def _gaps(network: Network, found: Check) -> Floats:
    """Voltages across the links, (rows, n_links), V: 0 where they conduct."""
    legs = network.legs
    return found.x[:, legs.link_a] - found.x[:, legs.link_k] + found.drive.link_offset


def _missed(network: Network, found: Check, stiff: Floats) -> float:
    """Largest error in a link's law (stiff > 0: it conducts, at no voltage), as a share of the largest voltage."""
    gap, largest = _gaps(network, found), _largest_at_links(network, found)
    missed = np.where(stiff > 0, np.abs(gap), gap)
    return float(np.max(missed / np.where(largest > 0, largest, np.inf), initial=0.0))


def _largest_at_links(network: Network, found: Check) -> Floats:
    """The largest voltage of the copy that each link is in, (rows, n_links), V."""
    x, copies = found.drive.base[0] if found.drive.base else found.x, network.problem.copies
    return copies.at_branches(copies.largest(x), network.legs.n_links)


def _far(step: Floats, x: Floats, fixed: Floats, volts: float) -> bool:
    """Whether a correction is useless: it leads far beyond all existing voltages, V.

    `volts`: what the largest current causes in the largest conductance, as all voltages may be 0.
    """
    largest = max(np.abs(x).max(initial=0.0), np.abs(fixed).max(initial=0.0), volts)
    return bool(np.abs(step).max(initial=0.0) > _FAR * largest > 0.0)


def hardly_corrected(network: Network, found: Check, slope: Floats) -> bool:
    """Whether a further correction would be far below the largest voltage of its row; not tested where that is costly.

    A violation may be small beside the currents at its node, but large beside those that hold the node's voltage.
    """
    if not network.cheap:
        return True
    x = found.drive.base[0] if found.drive.base else found.x
    slope = network.slopes(slope, found, NO_DROP * largest_voltages(x, found.drive.fixed))
    solve, violation, allowed = network.factor(slope).solve, network.violation(found), _allowed(network, found)
    if len(allowed) > 1 and network.problem.circuit.reciprocal:
        # The inverse of a conductance matrix has no negative entry: the worst of all rows bounds every correction.
        worst = (np.abs(violation) / allowed).max(axis=0, keepdims=True)
        if (solve(worst) <= 1.0).all():
            return True
    return hardly_moves(solve(-violation)[:, : network.problem.n_free], allowed)


def _adrift(network: Network, found: Check) -> bool:
    """Whether the voltage of a unit has gone so far that no current depends on it, and KCL is still violated there."""
    return not network.legs.n_links and bool(((found.slope == 0) & (found.upper > 0)).any())


def _nothing(found: Check) -> Floats:
    """Voltages that are negligible beside what the largest current causes in the largest conductance, (rows, 1), V."""
    steepest = found.slope.max(axis=1, initial=0.0)
    return np.asarray(NOTHING * found.largest / np.where(steepest > 0, steepest, np.inf))[:, None]


def _allowed(network: Network, found: Check) -> Floats:
    """How far a correction may move voltages that count as settled, (rows, n_free or 1), V: MOVES times the largest.

    With nonlinear branches, at least the last digits of the largest potential, where their voltages may end.
    """
    copies = network.problem.copies
    allowed = np.maximum(MOVES * _around(network, found), _nothing(found))
    if not network.legs.n_junctions:
        return allowed
    return np.maximum(allowed, NO_DROP * found.largest_volts[:, copies.of_unit])


def _around(network: Network, found: Check) -> Floats:
    """The largest voltage of the copy that each unit is in, (rows, n_free or 1), V."""
    return network.problem.copies.largest_around(found.drive.base[0] if found.drive.base else found.x)


def _spread(parts: list[Floats], low: Floats) -> tuple[list[Floats], Floats]:
    """The same sum, with those digits of `low` that reach into the part before it moved there."""
    total = parts[-1] + low
    return [*parts[:-1], total], low - (total - parts[-1])
