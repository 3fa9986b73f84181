"""Errors to plant in circuitsim: it solves another circuit than it was given, and certifies that.

As a plugin of pytest (`-p planted`, with this folder on PYTHONPATH) it plants the one that PLANTED names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim import solving

Change = Callable[[cs.Circuit], cs.Circuit]


def conductance_off(circuit: cs.Circuit) -> cs.Circuit:
    """The first conductance is 1e-3 too large: of a crossbar, or else of a resistor."""
    if circuit.crossbars:
        first, *others = circuit.crossbars
        g = first.g.copy()
        g.flat[int((g > 0).argmax())] *= 1.001
        return replace(circuit, crossbars=(replace(first, g=g), *others))
    g = circuit.conductors.g.copy()
    g[:1] *= 1.001
    return replace(circuit, conductors=replace(circuit.conductors, g=g))


def diode_reversed(circuit: cs.Circuit) -> cs.Circuit:
    """The first diode stands the other way round."""
    name = "junctions" if len(circuit.junctions) else "ideal_diodes"
    diodes = getattr(circuit, name)
    a, b = diodes.a.copy(), diodes.b.copy()
    a[:1], b[:1] = diodes.b[:1], diodes.a[:1]
    return replace(circuit, **{name: replace(diodes, a=a, b=b)})


def voltage_negated(circuit: cs.Circuit) -> cs.Circuit:
    """The first voltage source that is not 0 has the wrong sign."""
    e = circuit.ties.e.copy()
    e[:, _first(e[0] != 0)] *= -1
    return replace(circuit, ties=replace(circuit.ties, e=e))


def current_negated(circuit: cs.Circuit) -> cs.Circuit:
    """The first current source that is not 0 has the wrong sign."""
    i = circuit.current_sources.i.copy()
    i[:, _first(i[0] != 0)] *= -1
    return replace(circuit, current_sources=replace(circuit.current_sources, i=i))


def _first(mask: NDArray[np.bool_]) -> slice:
    """The first place where a mask is true, as a slice; empty where it is nowhere."""
    first = int(mask.argmax()) if mask.any() else mask.size
    return slice(first, first + 1)


ERRORS: dict[str, Change] = {
    "conductance": conductance_off,
    "diode": diode_reversed,
    "voltage": voltage_negated,
    "current": current_negated,
}


def plant(patch: pytest.MonkeyPatch, change: Change) -> None:
    """From now on, `solve` takes each circuit for what `change` makes of it."""
    compile_problem = solving.compile_problem
    patch.setattr(solving, "compile_problem", lambda circuit, lenient=False: compile_problem(change(circuit), lenient))


def pytest_configure(config: pytest.Config) -> None:
    if "PLANTED" in os.environ:
        plant(pytest.MonkeyPatch(), ERRORS[os.environ["PLANTED"]])
