"""A circuit that can be changed: prepared once, solved again for other values, points of a sweep, pictures."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.build import build_circuit
from circuitsim.circuit import Circuit, check_structure
from circuitsim.errors import CircuitError, SettingsError
from circuitsim.io.inputs import apply_inputs, read_value
from circuitsim.netlist.analyses import points
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.model import CROSSBAR
from circuitsim.netlist.numbers import looks_like_mega
from circuitsim.netlist.revalue import Revaluer
from circuitsim.problem import Problem, compile_problem
from circuitsim.solution import Settings, Solution
from circuitsim.solving import solve
from circuitsim.view.layers import find_layers
from circuitsim.view.values import element_values

Floats = NDArray[np.float64]

MOST_CHANGES = 1000  # values changed at once
MOST_POINTS = 5001  # of one axis of a sweep
_KEPT = 3  # solutions
_LOOKED_AT = 5  # points of an axis


@dataclass(frozen=True)
class Edits:
    """What the page has changed: nothing of it touches the netlist's file. The last change wins.

    Values come on top of the point of a sweep. A point that is chosen later drops those that it touches (`touched`).
    """

    values: tuple[tuple[str, str], ...] = ()  # element, number as SPICE writes it
    sweep: tuple[int, tuple[int, ...]] | None = None  # number of the .dc card, and of the point on each of its axes
    inputs: tuple[float, ...] | None = None  # V, of all `.input` sources in order


class Solver:
    """Solves a circuit with changes, one question at a time, and keeps the last answers.

    >>> from circuitsim.build import parse
    >>> solver = Solver(parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k"))
    >>> solver.solution(Edits((("R2", "3k"),))).voltage("out")
    array([7.5])
    """

    def __init__(self, circuit: Circuit, settings: Settings | None = None, inputs: Sequence[str] = ()) -> None:
        self.settings, self.assignments = settings or Settings(), tuple(inputs)
        self.circuit = apply_inputs(circuit, inputs)
        if self.circuit.batch > 1:
            raise SettingsError("--input gives a batch of rows; view shows one: give one value for each source")
        self.base = compile_problem(self.circuit, self.settings.lenient)
        self.layers = find_layers(self.circuit)
        self.cards = circuit.netlist.sweeps
        self.lock = threading.RLock()
        self.moved: dict[int, dict[str, NDArray[np.bool_]]] = {}  # of the cards that were asked for
        self.kept: OrderedDict[Edits, Solution] = OrderedDict()

    def solution(self, changes: Edits) -> Solution:
        """The certified equilibrium with these changes. Raises what `solve` raises, and SettingsError."""
        with self.lock:
            if changes not in self.kept:
                problem = self._problem(changes)
                last = next(reversed(self.kept.values()), None)
                self.kept[changes] = solve(problem, self.settings, start=last.start_for(problem) if last else None)
                while len(self.kept) > _KEPT:
                    self.kept.popitem(last=False)
            self.kept.move_to_end(changes)
            return self.kept[changes]

    def _problem(self, changes: Edits) -> Problem:
        problem = self.base
        if changes.sweep is not None:
            problem = self._at_point(problem, *changes.sweep)
        if changes.inputs is not None:
            problem = problem.with_values(self._input_values(changes.inputs))
        for name, text in changes.values:
            try:
                value = read_value(text.strip())
            except SettingsError as error:
                raise SettingsError(f"{name}: {error}") from None
            problem = problem.with_values(self._new_value(problem.circuit, name, value, text.strip()))
        return problem

    def _new_value(self, circuit: Circuit, name: str, value: float, text: str) -> dict[str, Any]:
        """What `with_values` takes for one element, array or conductance of a crossbar."""
        if cell := circuit.netlist.cell(name):
            x = circuit.crossbars[cell[0]]
            g = x.g.copy()
            g[cell[1:]] = value
            return {x.name: g}
        kind, _, _ = circuit.rows_of(name)
        if kind != "R":
            return {name: value}
        if "M" in text and looks_like_mega(text):
            raise SettingsError(f"resistor {name}: {text} is {value:g} ohm, as M is milli in SPICE; write MEG, or m")
        if value <= 0:
            what = "negative resistance" if value < 0 else "a resistance of 0 is a short, another circuit"
            raise SettingsError(f"resistor {name}: {what}: found {value:g} ohm; a new resistance must be positive")
        with np.errstate(over="ignore"):
            return {name: 1.0 / value}

    def _input_values(self, inputs: Sequence[float]) -> dict[str, Floats]:
        layers = self.layers
        if layers is None:
            raise SettingsError("this circuit takes no picture: it has no .input sources of as many pixels")
        count = sum(n for _, n in layers.sources)
        if len(inputs) != count:
            raise SettingsError(f"the picture has {len(inputs)} values, the .input sources are {count}")
        start, found = 0, {}
        for name, n in layers.sources:
            found[name] = np.array(inputs[start : start + n])
            start += n
        return found

    def touched(self, card: int, names: Sequence[str]) -> list[str]:
        """Those of these elements, arrays and conductances whose values the points of a `.dc` card change.

        What was changed before a point is chosen gives way to it there: the last change wins. Looked at are a few
        points of each axis.
        """
        with self.lock:
            if card not in self.moved:
                self.moved[card] = self._moved(card)
            return [name for name in names if any(self.moved[card][of][rows].any() for of, rows in self._at(name))]

    def _moved(self, card: int) -> dict[str, NDArray[np.bool_]]:
        """Of each kind of element, and each crossbar by its name, which values a card's points change."""
        axes, now = self.axes(card), _values(self.circuit)
        moved = {of: np.zeros(x.shape, bool) for of, x in now.items()}
        for swept in self.cards[card].sweeps:
            for of, rows in self._at(swept.name) if swept.kind not in ("temp", "param") else []:
                moved[of][rows] = True  # also where its points are the value that it has
        for k, axis in enumerate(axes):
            for at in np.unique(np.linspace(0, axis.size - 1, _LOOKED_AT).astype(int)).tolist():
                with suppress(CircuitError):  # a point that is none: it says so when it is chosen
                    there = _values(self._circuit_at(card, [at if n == k else 0 for n in range(len(axes))]))
                    for of, x in there.items():
                        moved[of] |= (x != now[of]) & ~(np.isnan(x) & np.isnan(now[of]))
        return moved

    def _at(self, name: str) -> list[tuple[str, Any]]:
        """Where the values of an element, array or conductance are: kind, or name of the crossbar, and which of them.

        Nowhere, where there is none: the answer says so.
        """
        netlist = self.circuit.netlist
        with suppress(SettingsError):  # a conductance that there is not
            if cell := netlist.cell(name):
                return [(netlist.crossbars[cell[0]].name, cell[1:])]
        kind, start, stop = netlist.find(name) or ("", 0, 0)
        if kind == CROSSBAR:
            return [(netlist.crossbars[start].name, ...)]
        return [(kind, slice(start, stop))] if kind else []

    def _at_point(self, problem: Problem, card: int, point: Sequence[int]) -> Problem:
        """The problem at a point of a `.dc` card."""
        circuit = self._circuit_at(card, point)
        if not self.settings.lenient:
            return problem.with_circuit(circuit)
        check_structure(self.circuit, circuit)
        return compile_problem(circuit, lenient=True)  # what is left out may differ from point to point

    def _circuit_at(self, card: int, point: Sequence[int]) -> Circuit:
        axes = self.axes(card)
        if len(point) != len(axes) or any(not 0 <= k < axis.size for k, axis in zip(point, axes, strict=True)):
            raise SettingsError(f"no such point of sweep {card + 1}: {', '.join(map(str, point))}")
        values = [(s, float(axis[k])) for s, k, axis in zip(self.cards[card].sweeps, point, axes, strict=True)]
        at = build_circuit(self._revaluer.netlist(Changes.at_point(values)))
        own = {s.name: _value(at, s.name) for s, _ in values if s.kind in ("V", "I")}  # a point goes before --input
        return apply_inputs(at, self.assignments).with_values(own)

    @cached_property
    def _revaluer(self) -> Revaluer:
        return Revaluer(self.circuit.netlist)

    def axes(self, card: int) -> list[Floats]:
        """The values of each axis of a `.dc` card. SettingsError when there is none, or it is too long."""
        if not 0 <= card < len(self.cards):
            raise SettingsError(f"no sweep {card + 1}; the netlist has {len(self.cards)} .dc cards")
        axes = [points(swept) for swept in self.cards[card].sweeps]
        if max(axis.size for axis in axes) > MOST_POINTS:
            raise SettingsError(f"a sweep of more than {MOST_POINTS:,} points is for circuitsim sweep")
        return axes


def _value(circuit: Circuit, name: str) -> Floats:
    """The value of an element, or the values of an array."""
    kind, start, stop = circuit.rows_of(name)
    return circuit.element_values(kind)[start:stop]


def _values(circuit: Circuit) -> dict[str, Floats]:
    """The values of all elements by their kind, and of crossbars by their names."""
    kinds = {kind: element_values(circuit, kind) for kind in circuit.netlist.tables}
    return kinds | {x.name: x.g for x in circuit.crossbars}
