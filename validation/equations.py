"""The equations of a circuit, put to the test with the voltages and currents of a solution; for any deck.

Branch by branch, summed by nodes: nothing of the arrangement (units, islands, couplings) that a solver uses enters
here. Currents of sources, shorts, perfect diodes and controlled sources are those that the solution gives.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim.currents import active_currents, ideal_currents
from circuitsim.laws import branch_current

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_ROUNDING = 8 * _EPS  # of a voltage or a current
_NO_CURRENT = 1e-60  # A: of a node, and of each controlled source
_NOTHING = 2.0**-100  # of the largest current, or voltage: none
_SAME = 1e-9  # of a source's voltage


def broken_equation(solution: cs.Solution, kcl: float) -> str:
    """The first equation that the first row of a solution breaks; '' when all hold.

    `kcl`: of the absolute currents at a node. Ground, and nodes without a unique voltage, take up the errors of all
    others.
    """
    with np.errstate(all="ignore"):
        return _not_a_number(solution) or _missed_source(solution) or _missed_kcl(solution, kcl)


def _not_a_number(solution: cs.Solution) -> str:
    bad = np.flatnonzero(~np.isfinite(solution.voltages()[0]) & ~solution.circuit.left_out)
    return f"the voltage of {solution.circuit.nodes[bad[0]]} is not a number" if bad.size else ""


def _ends(solution: cs.Solution, a: Ints, b: Ints) -> tuple[Floats, Floats]:
    """Voltages from nodes a to nodes b, (n,), and how far rounding may move them."""
    v = np.abs(np.nan_to_num(solution.voltages()[0]))
    return solution.drops(a, b)[0], _ROUNDING * np.maximum(v[a], v[b]) + _NOTHING * v.max()


def _missed_source(solution: cs.Solution) -> str:
    """The first voltage source, short, perfect or controlled one whose law does not hold."""
    c = solution.circuit
    row = slice(0, 1)
    volts = float(np.abs(np.nan_to_num(solution.voltages()[0])).max(initial=0.0))
    across, _ = _ends(solution, c.ties.a, c.ties.b)
    ties = solution.tie_currents[0][0]
    for k in np.flatnonzero(~(np.abs(across - c.ties.e[0]) <= _SAME * np.maximum(volts, np.abs(c.ties.e[0])))):
        return f"source or short {c.element(c.ties, k)} has {across[k]!r} V"
    d, i = c.ideal_diodes, ideal_currents(solution, row)[0]
    room = d.vf - _ends(solution, d.a, d.b)[0]
    small = max(_SAME, float(np.finfo(solution.dtype).eps)) * np.maximum(volts, d.vf)  # a bound in float32 is rounded
    most = float(np.abs(np.concatenate([i, ties, active_currents(solution, row)[0]])).max(initial=0.0))
    for k in np.flatnonzero(~((room >= -small) & (i >= 0) & ((i <= _SAME * most) | (room <= 1e3 * small)))):
        return f"perfect diode {c.element(d, k)} carries {i[k]!r} A, {room[k]!r} V short of its forward voltage"
    s = c.controlled
    own, control = _ends(solution, s.a, s.b)[0], _ends(solution, s.ca, s.cb)[0]
    i = active_currents(solution, row)[0][: len(s)]
    by_current = s.control >= 0
    have = np.where(s.gives_current, i, own)
    cause = np.where(by_current, ties[s.control] if len(ties) else 0.0, control)
    wanted = s.gain * cause
    unit, reach = np.where(s.gives_current, most, volts), np.abs(s.gain) * np.where(by_current, most, volts)
    allowed = _SAME * np.maximum(np.abs(have), np.abs(wanted)) + 64 * _EPS * (unit + reach)
    for k in np.flatnonzero(~(np.abs(have - wanted) <= allowed)):
        return f"{c.element(s, k)} gives {have[k]!r} where its control asks {wanted[k]!r}"
    return ""


def _branches(solution: cs.Solution) -> Iterator[tuple[Ints, Ints, Floats, Floats]]:
    """Ends, currents from a to b (A) and their rounding (A) of all branches, kind by kind."""
    c, row = solution.circuit, slice(0, 1)
    lines = [(c.conductors.a, c.conductors.b, c.conductors.g)]
    lines += [(np.repeat(x.rows, x.cols.size), np.tile(x.cols, x.rows.size), x.g.ravel()) for x in c.crossbars]
    for a, b, g in lines:
        across, rounding = _ends(solution, a, b)
        yield a, b, np.where(g > 0, g * across, 0.0), g * rounding
    j = c.junctions
    across, rounding = _ends(solution, j.a, j.b)
    rounding = rounding + _ROUNDING * np.abs(across)
    i, above, below = (branch_current(j.law, j.params, across + d)[0] for d in (0.0, rounding, -rounding))
    yield j.a, j.b, i, above - below
    given = (
        (c.ties, solution.tie_currents[0]),
        (c.current_sources, c.current_sources.i),
        (c.ideal_diodes, ideal_currents(solution, row)),
        (c.controlled, active_currents(solution, row)[:, : len(c.controlled)]),
    )
    for branches, amps in given:
        yield branches.a, branches.b, amps[0], _ROUNDING * np.abs(amps[0])


def _least_conductance(c: cs.Circuit) -> Floats:
    """The smallest conductance of a resistor at each node, 0 without any, (n_nodes,) S."""
    least = np.full(len(c.nodes), np.inf)
    held = c.conductors.g > 0
    for ends in (c.conductors.a, c.conductors.b):
        np.minimum.at(least, ends[held], c.conductors.g[held])
    return np.where(np.isfinite(least), least, 0.0)


def _missed_kcl(solution: cs.Solution, kcl: float) -> str:
    c = solution.circuit
    n = len(c.nodes)
    net, size, noise = (np.zeros(n) for _ in range(3))
    for a, b, amps, rounding in _branches(solution):
        apart = a != b
        for ends, sign in ((a[apart], 1.0), (b[apart], -1.0)):
            np.add.at(net, ends, sign * amps[apart])
            np.add.at(size, ends, np.abs(amps[apart]))
            np.add.at(noise, ends, rounding[apart])
    # Currents of ties are what KCL asks at their ends, but at one node of each tied group, and in loops.
    shared = kcl * size.sum() + noise.sum()
    exact = np.ones(n, bool)
    exact[[0, *c.ties.a, *c.ties.b]] = False
    exact &= solution.determined & ~c.left_out
    allowed = np.where(exact, kcl * size + noise, shared) + _NOTHING * size.max(initial=0.0)
    # Where nothing drives a circuit its voltages are what rounds; and nodes of controlled sources alone have nothing to
    # compare with.
    allowed += (1 + len(c.active)) * _NO_CURRENT
    if len(c.active):  # one elimination finds all voltages, to the last digit of the largest
        allowed += _EPS * np.abs(solution.voltages()[0, solution.determined]).max() * _least_conductance(c)
    for k in np.flatnonzero(~(np.abs(net) <= allowed)):
        return f"KCL at {c.nodes[k]}: {net[k]:.3g} A are left of {size[k]:.3g} A"
    return ""
