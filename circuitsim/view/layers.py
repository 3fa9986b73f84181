"""The layered view of a circuit that reads pictures: sources of pixels, then crossbar after crossbar.

`training.layers` requires more of a circuit, because it learns; here a chain of crossbars is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import Circuit
from circuitsim.methods import bcd
from circuitsim.problem import Problem
from circuitsim.shapes import span
from circuitsim.solution import Settings
from circuitsim.solving import solve

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_UNITS = 4096  # of a layer that are shown
MOST_FRAMES = 16  # sweeps that are shown one by one
_SIDES = range(4, 65)  # pixels of a picture's side
_SETTLED = 2e-3  # of the largest voltage of a layer: a sweep that moves nothing there by more has come to rest


@dataclass(frozen=True)
class Layers:
    """What is seen: `nodes[0]` are the inputs, crossbar k joins nodes[k] (rows) to nodes[k + 1] (columns)."""

    sources: tuple[tuple[str, int], ...]  # of `.input`, each with the number of its members
    side: int  # pixels of a side of the picture
    pair: bool  # whether the second half of the inputs takes the negated picture
    nodes: tuple[Ints, ...]
    crossbars: tuple[int, ...]

    @property
    def shown(self) -> tuple[Ints, ...]:
        """The nodes of each layer that are shown: all inputs, the first MOST_UNITS of the others."""
        return (self.nodes[0], *(nodes[:MOST_UNITS] for nodes in self.nodes[1:]))

    def labels(self, circuit: Circuit) -> list[str]:
        """A name for each layer."""
        return [span(circuit.nodes, nodes) for nodes in self.nodes]


def find_layers(circuit: Circuit) -> Layers | None:
    """The layers, or None: no `.input` of as many voltage sources from ground as a picture, or two, has pixels."""
    sources, nodes = [], []
    for name in circuit.netlist.inputs:
        kind, start, stop = circuit.rows_of(name)
        if kind != "V" or circuit.netlist.tables["V"].b[start:stop].any():
            return None
        sources.append((name, stop - start))
        nodes.append(circuit.netlist.tables["V"].a[start:stop])
    at = np.concatenate(nodes) if nodes else np.zeros(0, np.int64)
    shapes = [(side, pair) for side in _SIDES for pair in (True, False) if side * side * (1 + pair) == at.size]
    if not shapes:
        return None
    layers, chain = [at], []
    while following := [k for k, x in enumerate(circuit.crossbars) if k not in chain and np.array_equal(x.rows, at)]:
        chain.append(following[0])
        at = circuit.crossbars[following[0]].cols
        layers.append(at)
    return Layers(tuple(sources), *shapes[0], tuple(layers), tuple(chain)) if chain else None


def given_inputs(circuit: Circuit, layers: Layers) -> Floats:
    """The voltages of the input sources as the circuit has them, (n,), V."""
    ties = circuit.ties
    found = []
    for name, _ in layers.sources:
        found.append(ties.e[0, ties.of(*circuit.rows_of(name))])
    return np.concatenate(found)


def frames(problem: Problem, settings: Settings, layers: Sequence[Ints]) -> list[Floats]:
    """Voltages of layers, one after the other, after each of the first sweeps of bcd from 0 V, (nodes,) each.

    [] where bcd cannot promise the answer. The last frame is the first one in which no layer differs much from the
    frame before, or the sixteenth sweep.
    """
    if bcd.refusal(problem):
        return []
    one = replace(settings, method="bcd", backend="cpu", max_sweeps=1, strict=False)
    nodes, starts = np.concatenate(layers), np.cumsum([0, *(layer.size for layer in layers[:-1])])
    x, shown = np.zeros((1, problem.n_free)), [np.zeros(nodes.size)]
    for _ in range(MOST_FRAMES):
        solution = solve(problem, one, start=x, raise_on_failure=False)
        x = solution.x
        if not np.isfinite(x).all():
            break
        shown.append(solution.voltages(nodes)[0])
        moved, size = (np.maximum.reduceat(np.abs(v), starts) for v in (shown[-1] - shown[-2], shown[-1]))
        if (moved <= _SETTLED * size).all() and size[-1] > 0:
            break
    return shown


def contributions(circuit: Circuit, layers: Layers, voltages: Floats, k: int, unit: int) -> tuple[Floats, Floats]:
    """Conductances (S) into a unit of layer k, from layer k - 1, and the currents (A) that they bring it.

    `voltages`: of all nodes, V.
    """
    x = circuit.crossbars[layers.crossbars[k - 1]]
    g = x.g[:, unit]
    return g, g * (voltages[x.rows] - voltages[x.cols[unit]])
