"""Equilibrium propagation on any circuit: pure functions over a Problem.

Nudging is a change to the circuit: E + beta C has a conductance beta (S) from every output node to a source of its
target's voltage. With v1 and v2 the equilibria at the nudges beta1 and beta2,

    dC/dtheta = (dE/dtheta(v1) - dE/dtheta(v2)) / (beta1 - beta2),        beta1, beta2 -> 0

(B. Scellier and Y. Bengio 2017; beta1 = -beta2, centred: A. Laborieux et al. 2021): in terms of gradient.py

    delta = (v1 - v2) / (beta1 - beta2),        total = v1 + v2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim import Problem
from circuitsim.drive import Drive
from training.amplifiers import Energy
from training.gradient import Fields, Outputs, secants
from training.phases import Phases

Floats = NDArray[np.float64]

VARIANTS = {"centred": (1.0, -1.0), "positive": (1.0, 0.0), "negative": (0.0, -1.0)}  # nudges in units of beta


def nudges(variant: str, beta: float) -> tuple[float, float]:
    """beta1 and beta2 of a variant, S."""
    first, second = VARIANTS[variant]
    return first * beta, second * beta


def ep_fields(
    problem: Problem,
    drive: Drive,
    x: Floats,
    outputs: Outputs,
    targets: Floats,
    betas: tuple[float, float],
    phases: Phases,
    energy: Energy | None = None,
) -> tuple[Fields, Floats]:
    """Fields of equilibrium propagation from the free state x; also the state at the first nudge.

    energy: that of a circuit with controlled sources.

    With a nudge of 0, as many further sweeps are taken as for the other nudge, so that both states relax equally long.
    """
    first, second = phases.nudged(problem, drive, x, outputs, targets, betas)
    gap = betas[0] - betas[1]
    t = problem.topology
    nodes = np.arange(t.index_of_node.size)
    no_offset = np.zeros((1, drive.fixed.shape[1]))
    delta = problem.node_voltages((first - second) / gap, no_offset, nodes)
    free = problem.node_voltages(x, drive.fixed, nodes)
    total = 2 * free + problem.node_voltages(first + second, no_offset, nodes)
    y1, y2 = (outputs.voltages(problem, drive, x + c) for c in (first, second))
    pull = (betas[0] * (y1 - targets) - betas[1] * (y2 - targets)) / gap
    if energy is not None:
        delta = delta * energy.weights
    v1, v2 = (
        free + problem.node_voltages(first, no_offset, nodes),
        free + problem.node_voltages(second, no_offset, nodes),
    )
    return Fields(delta, total, secants(problem, v1, v2), pull, x.shape[0]), x + first
