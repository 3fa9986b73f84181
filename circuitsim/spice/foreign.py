"""The certificate of another simulator's answer, for the circuit as circuitsim reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from circuitsim.graphs import components
from circuitsim.kcl import exact_sums
from circuitsim.netlist.model import KINDS
from circuitsim.problem import Problem
from circuitsim.residual import EPS, NOTHING, OWN_DIGITS, Check
from circuitsim.spice.flatten import MIN_RON, Written
from circuitsim.spice.ngspice import RELTOL

Floats = NDArray[np.float64]


def kcl_of(problem: Problem, written: Written, values: Mapping[str, float]) -> tuple[float, str]:
    """The largest relative KCL violation (Residuals.kcl_relative) of another simulator's answer, and at which node.

    values   by the names of `written`; nodes that are missing are taken to be at 0 V

    What voltages do not determine follows as in our own certificate: sources and perfect diodes carry what KCL
    requires. Violations within the last digits of the voltages do not count: unlike in a Solution, there are no
    further ones.
    """
    t, c = problem.topology, problem.circuit
    v = voltages_of(written, values)
    v -= _pin_potentials(problem, v)
    drive = problem.drive(slice(0, 1))
    x = v[None, t.root_of_unit]
    carried = np.zeros((1, t.carrier_a.size))
    carried[0, t.links.size :] = _active_currents(problem, written, values, v)
    drive = replace(drive, carried=carried)
    if t.links.size:
        carried[0, : t.links.size] = _link_currents(problem, x, *exact_sums(problem, drive, x, np.array([0])))
    with np.errstate(all="ignore"):
        check = Check(problem, drive, x, exact=True)
        scale = np.maximum(np.abs(x[0]), np.abs(drive.fixed).max(initial=0.0))
        by_rounding = check.by_rounding(EPS)[0]
        for unit in (t.legs.link_a, t.legs.link_k):
            beyond = np.broadcast_to(check.link_volts, (1, t.links.size))[0] > OWN_DIGITS * EPS * scale[unit]
            by_rounding[unit[beyond]] = False
        violations = np.where(by_rounding, 0.0, check.upper[0])
    law = float(check.active_error.max())
    if not violations.size or not violations.max() > law:  # a controlled source is worse, or nothing is wrong
        return law, ""
    worst = int(violations.argmax())
    return float(violations[worst]), c.nodes[t.root_of_unit[worst]]


def voltages_of(written: Written, values: Mapping[str, float]) -> Floats:
    """Their node voltages, (nodes,) V; 0 for ground and for nodes that are missing."""
    v = np.array([values.get(f"v({name})", 0.0) for name in written.nodes])
    v[0] = 0.0
    return v


def _pin_potentials(problem: Problem, v: Floats) -> Floats:
    """For each node the potential of the pin of its group of islands, which ngspice leaves where it likes."""
    islands = problem.topology.islands
    one, other = (
        np.concatenate(pair) for pair in zip((islands.arcs.a, islands.arcs.b), islands.joined_by_current, strict=True)
    )
    group = components(islands.n_parts, one, other)
    potential = np.zeros(islands.n_parts)
    potential[group[islands.part[islands.pins]]] = v[islands.pins]
    shifts: Floats = np.where(islands.pinned, potential[group[islands.part]], 0.0)
    return shifts


def _active_currents(problem: Problem, written: Written, values: Mapping[str, float], v: Floats) -> Floats:
    """Currents of Circuit.active: as given, those of F and G by their laws."""
    s = problem.circuit.active

    def given(kind: int, row: int) -> float:
        name = written.branches.get((KINDS[kind], row))
        return 0.0 if name is None else values.get(f"i({name})", 0.0)

    current = np.array([given(int(kind), int(row)) for kind, row in zip(s.kind, s.row, strict=True)])
    control = np.append(current, 0.0)[problem.circuit.active_control]
    by_law = s.gain * np.where(s.control >= 0, control, v[s.ca] - v[s.cb])
    return np.where(s.gives_current, by_law, current)


def _link_currents(problem: Problem, x: Floats, flow: Floats, total: Floats) -> Floats:
    """Currents of the perfect diodes between free units that fit KCL best, relative to the currents at each unit.

    Only those that conduct carry any: no further below their forward voltage than ngspice's tolerance.
    """
    t, c = problem.topology, problem.circuit
    drive = problem.drive(slice(0, 1))
    a, k = t.legs.link_a, t.legs.link_k
    across = (x[:, a] - x[:, k] + drive.link_offset)[0]
    size = np.abs(x).max(initial=0.0) + np.abs(drive.fixed).max(initial=0.0)
    conducting = np.flatnonzero(across >= -RELTOL * size)
    near = RELTOL * size + MIN_RON * total[0]
    held = (x[0] <= drive.lo[0] + near) | (x[0] >= drive.hi[0] - near)  # a diode to a known potential takes the rest
    label = components(problem.n_free, a[conducting], k[conducting])
    largest = total[0].max(initial=0.0)
    weight = np.divide(largest, total[0], out=np.zeros(problem.n_free), where=(total[0] > NOTHING * largest) & ~held)
    currents = np.zeros(len(c.ideal_diodes))[: t.links.size]
    for group in np.unique(label[a[conducting]]).tolist():
        links, units = conducting[label[a[conducting]] == group], np.flatnonzero(label == group)
        matrix = np.zeros((units.size, links.size))
        column = np.arange(links.size)
        np.add.at(matrix, (np.searchsorted(units, a[links]), column), 1.0)
        np.add.at(matrix, (np.searchsorted(units, k[links]), column), -1.0)
        matrix *= weight[units, None]
        unit = np.abs(flow[0, units]).max(initial=0.0) or 1.0
        currents[links] = unit * nnls(matrix, -flow[0, units] / unit * weight[units])[0]
    return currents
