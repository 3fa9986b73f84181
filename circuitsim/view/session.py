"""What the page asks for, as JSON objects: the circuit, its answer for changed values, what belongs to a part of it.

One circuit is prepared; every question brings the changes that it is about, so nothing is remembered between questions
but the last solutions. Solving is done by one question at a time. Volts, amperes, siemens, ohms, watts, seconds.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import KINDS, Branches, Circuit, Crossbar, build_circuit
from circuitsim.currents import table_currents
from circuitsim.errors import At, SettingsError
from circuitsim.io.inputs import apply_inputs
from circuitsim.io.output import warning_texts
from circuitsim.netlist.analyses import points
from circuitsim.netlist.expand import Changes as NetlistChanges
from circuitsim.netlist.numbers import parse_number
from circuitsim.netlist.revalue import Revaluer
from circuitsim.problem import Problem, compile_problem
from circuitsim.residual import FIGURES
from circuitsim.solution import Settings, Solution
from circuitsim.solving import solve
from circuitsim.sweeping import sweep
from circuitsim.view.heat import CELLS, binned, crossbar_image
from circuitsim.view.layers import contributions, find_layers, frames, given_inputs
from circuitsim.view.scene import Drawing, Scene

Floats = NDArray[np.float64]

MOST_CHANGES = 1000  # values changed at once
MOST_POINTS = 5001  # of one axis of a sweep
_MOST_CURVE = 5_000_000  # voltages of a sweep that is drawn
_MOST_FOUND = 20  # names that a search gives
_MOST_WORK = 20_000_000  # conductances of a crossbar up to which it is summed for each answer
_MOST_TEXTS = 20  # warnings
_KEPT = 3  # solutions
_CELL = re.compile(r"(.+)\[(\d+)\]\[(\d+)\]")
_UNITS = {"V": "V", "I": "A", "R": "Ω", "E": "V/V", "F": "A/A", "G": "S", "H": "Ω", "temp": "°C", "param": ""}


@dataclass(frozen=True)
class Changes:
    """What the page has changed: nothing of it touches the netlist's file."""

    values: tuple[tuple[str, str], ...] = ()  # element, number as SPICE writes it
    sweep: tuple[int, tuple[int, ...]] | None = None  # number of the .dc card, and of the point on each of its axes
    inputs: tuple[float, ...] | None = None  # V, of all `.input` sources in order


class Session:
    """A circuit and its answers.

    >>> from circuitsim import parse
    >>> session = Session(parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k"))
    >>> session.solution(Changes((("R2", "3k"),))).voltage("out")
    array([7.5])
    """

    def __init__(self, circuit: Circuit, settings: Settings | None = None, inputs: Sequence[str] = ()) -> None:
        self.settings, self.assignments = settings or Settings(), tuple(inputs)
        self.circuit = apply_inputs(circuit, inputs)
        if max(self.circuit.ties.e.shape[0], self.circuit.current_sources.i.shape[0]) > 1:
            raise SettingsError("--input gives a batch of rows; view shows one: give one value for each source")
        self.base = compile_problem(self.circuit, self.settings.lenient)
        self.lock = threading.RLock()
        self.kept: OrderedDict[Changes, Solution] = OrderedDict()
        self.scenes: OrderedDict[int | None, Scene] = OrderedDict()
        self.curves: dict[int, tuple[Floats, Floats]] = {}
        self.layers = find_layers(self.circuit)
        self.cards = [analysis for analysis in circuit.netlist.analyses if analysis.kind == "dc"]

    # -- solving -------------------------------------------------------------------------------------------------------

    def solution(self, changes: Changes) -> Solution:
        """The certified equilibrium with these changes. Raises what `solve` raises, and SettingsError."""
        with self.lock:
            if changes not in self.kept:
                problem = self._problem(changes)
                self.kept[changes] = solve(problem, self.settings, start=self._start(problem))
                while len(self.kept) > _KEPT:
                    self.kept.popitem(last=False)
            self.kept.move_to_end(changes)
            return self.kept[changes]

    def _start(self, problem: Problem) -> Floats | None:
        """The last solution, where its unknowns are those of this problem."""
        last = next(reversed(self.kept.values()), None)
        if last is None or last.problem.topology.index_of_node is not problem.topology.index_of_node:
            return None
        return last.x if np.isfinite(last.x).all() else None

    def _problem(self, changes: Changes) -> Problem:
        problem = self.base
        if changes.sweep is not None:
            problem = self._at_point(problem, *changes.sweep)
        if changes.inputs is not None:
            problem = problem.with_values(self._input_values(changes.inputs))
        for name, text in changes.values:
            try:
                value = parse_number(text.strip())
            except ValueError as error:
                raise SettingsError(f"{name}: {error}") from None
            problem = problem.with_values(self._new_value(problem.circuit, name, value))
        return problem

    def _new_value(self, circuit: Circuit, name: str, value: float) -> dict[str, Any]:
        """What `with_values` takes for one element, array or conductance of a crossbar."""
        cell = _CELL.fullmatch(name)
        for card, x in zip(circuit.netlist.crossbars, circuit.crossbars, strict=True):
            if x.name.lower() == name.lower():
                return {name: value}
            if cell and x.name.lower() == cell[1].lower():
                i, j = int(cell[2]), int(cell[3])
                if i not in card.ranges[0] or j not in card.ranges[1]:
                    raise SettingsError(f"no conductance '{name}'; crossbar {x.name} has {_ranges(card.ranges)}")
                g = x.g.copy()
                g[card.ranges[0].index(i), card.ranges[1].index(j)] = value
                return {x.name: g}
        kind, _, _ = circuit.rows_of(name)
        if kind != "R":
            return {name: value}
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

    def _at_point(self, problem: Problem, card: int, point: Sequence[int]) -> Problem:
        """The problem at a point of a `.dc` card."""
        axes = self._axes(card)
        if len(point) != len(axes) or any(not 0 <= k < axis.size for k, axis in zip(point, axes, strict=True)):
            raise SettingsError(f"no such point of sweep {card + 1}: {', '.join(map(str, point))}")
        temp, params, elements = None, {}, {}
        for swept, k, axis in zip(self.cards[card].sweeps, point, axes, strict=True):
            value = float(axis[k])
            if swept.kind == "temp":
                temp = value
            elif swept.kind == "param":
                params[swept.name.lower()] = value
            else:
                elements[swept.name.lower()] = value
        netlist = self._revaluer.netlist(NetlistChanges(temp=temp, params=params, elements=elements))
        return problem.with_circuit(apply_inputs(build_circuit(netlist), self.assignments))

    @cached_property
    def _revaluer(self) -> Revaluer:
        return Revaluer(self.circuit.netlist)

    def _axes(self, card: int) -> list[Floats]:
        if not 0 <= card < len(self.cards):
            raise SettingsError(f"no sweep {card + 1}; the netlist has {len(self.cards)} .dc cards")
        axes = [points(swept) for swept in self.cards[card].sweeps]
        if max(axis.size for axis in axes) > MOST_POINTS:
            raise SettingsError(f"a sweep of more than {MOST_POINTS:,} points is for circuitsim sweep")
        return axes

    # -- what the circuit is -------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """The circuit: title, counts, sweeps, crossbars, layers, warnings."""
        c, netlist = self.circuit, self.circuit.netlist
        counts = {kind: len(table) for kind, table in netlist.tables.items() if len(table)}
        return {
            "title": netlist.title.strip(),
            "file": Path(netlist.path).name,
            "nodes": len(c.nodes) - 1,
            "elements": counts,
            "crossbars": [
                {"name": x.name, "rows": x.rows.size, "cols": x.cols.size, "conductances": int(np.count_nonzero(x.g))}
                for x in c.crossbars
            ],
            "whole": self.drawing.whole,
            "outputs": [c.nodes[k] for k in netlist.outputs[:_MOST_TEXTS]],
            "sweeps": self._sweeps(),
            "layers": self._layers_about(),
            "warnings": [_short(text) for text in warning_texts(c.notes)[:_MOST_TEXTS]],
        }

    @cached_property
    def drawing(self) -> Drawing:
        """What scenes are made of."""
        return Drawing(self.circuit)

    def _sweeps(self) -> list[dict[str, Any]]:
        found = []
        for k, card in enumerate(self.cards):
            try:
                axes = self._axes(k)
            except SettingsError:
                continue
            given = [
                {
                    "name": s.name,
                    "unit": _UNITS[s.kind],
                    "points": _list(x),
                }
                for s, x in zip(card.sweeps, axes, strict=True)
            ]
            found.append({"card": k, "line": self._line(card.seq)["text"], "axes": given})
        return found

    def _layers_about(self) -> dict[str, Any] | None:
        layers = self.layers
        if layers is None:
            return None
        x = given_inputs(self.circuit, layers)
        half = x.size // 2 if layers.pair else x.size
        return {
            "side": layers.side,
            "pair": layers.pair,
            "gain": float(np.abs(x[:half]).max()) or 1.0,
            "given": _list(x[:half]),
            "labels": layers.labels(self.circuit),
            "sizes": [nodes.size for nodes in layers.nodes],
            "crossbars": [self.circuit.crossbars[k].name for k in layers.crossbars],
        }

    def scene(self, centre: str | None) -> dict[str, Any]:
        """What to draw: vertices with their places, edges with their netlist lines, wires of crossbars."""
        c, scene = self.circuit, self._scene(centre)
        return {
            "whole": scene.whole,
            "centre": centre,
            "vertices": [
                {
                    "kind": v.kind, "label": v.label, "key": v.key, "count": v.nodes.size, "hidden": v.hidden,
                    "x": round(float(x), 1), "y": round(float(y), 1),
                }
                for v, (x, y) in zip(scene.vertices, scene.positions, strict=True)
            ],
            "edges": [
                {
                    "kind": e.kind, "name": e.name, "a": e.a, "b": e.b, "count": e.rows.size,
                    "unit": _UNITS.get(e.kind, ""), **self._line(int(c.netlist.tables[e.kind].seq[e.rows[0]])),
                }
                for e in scene.edges
            ],
            "wires": [list(pair) for pair in scene.wires],
        }  # fmt: skip

    def _scene(self, centre: str | None) -> Scene:
        node = None if centre is None or self.drawing.whole else self._node_of(centre)
        with self.lock:
            if node not in self.scenes:
                self.scenes[node] = self.drawing.scene(node)
                while len(self.scenes) > _KEPT:
                    self.scenes.popitem(last=False)
            self.scenes.move_to_end(node)
            return self.scenes[node]

    def _node_of(self, name: str) -> int:
        """The node of this name, or the first node of the element or crossbar of this name."""
        netlist = self.circuit.netlist
        found = None if netlist.has_node(name) else netlist.find(name)
        if found is None:
            return netlist.node(name)
        kind, start, _ = found
        if kind in netlist.tables:
            return int(netlist.tables[kind].a[start])
        return int(next(x.rows[0] for x in netlist.crossbars if x.name.lower() == name.lower()))

    def _line(self, seq: int) -> dict[str, str]:
        at = self.circuit.netlist.at(seq)
        return {"text": _short(at.text), "at": str(At(Path(at.path).name, at.line))}

    def find(self, text: str) -> list[dict[str, str]]:
        """Nodes and elements whose names hold a text, in any case: equal ones first, then those that begin with it."""
        key, netlist = text.strip().lower(), self.circuit.netlist
        if not key:
            return []
        sources = [("node", netlist.nodes), *((kind, t.names) for kind, t in netlist.tables.items())]
        sources.append(("crossbar", [x.name for x in netlist.crossbars]))
        found: list[tuple[int, str, str]] = []
        for what, names in sources:
            hits = ((name, name.lower()) for name in names)
            good = ((0 if low == key else 1 if low.startswith(key) else 2, name) for name, low in hits if key in low)
            found += [(rank, name, what) for rank, name in islice(good, 20 * _MOST_FOUND)]
        found.sort(key=lambda hit: (hit[0], len(hit[1]), hit[1]))
        return [{"name": name, "what": what, "at": self._place(name, what)} for _, name, what in found[:_MOST_FOUND]]

    def _place(self, name: str, what: str) -> str:
        """The label of the vertex, or the name of the edge or crossbar, that shows a node or element."""
        if what != "node":
            return name
        vertex = self.drawing.vertex(self.circuit.netlist.node(name))
        return self.drawing.label(vertex)

    # -- answers -------------------------------------------------------------------------------------------------------

    def answer(self, changes: Changes, centre: str | None = None, trace: bool = False) -> dict[str, Any]:
        """The equilibrium with these changes, at what is drawn, with its certificate; `trace`: the first sweeps too."""
        with self.lock:
            solution = self.solution(changes)
            found: dict[str, Any] = {
                "certificate": self._certificate(solution),
                "values": self._values(solution, self._scene(centre)),
                "layers": None,
                "frames": [],
            }
            if self.layers is not None:
                v = solution.voltages()[0]
                found["layers"] = [_list(v[nodes]) for nodes in self.layers.nodes]
                if trace:
                    shown = frames(solution.problem, self.settings, self.layers.nodes[1:])
                    found["frames"] = [_list(frame, 5) for frame in shown]
            return found

    def _certificate(self, solution: Solution) -> dict[str, Any]:
        residuals = {name: _number(getattr(solution.residuals, name)) for name in FIGURES}
        return {
            "status": solution.status.name, "message": solution.message, "method": solution.method,
            "why": solution.why, "backend": solution.backend, "steps": solution.steps,
            "tolerance": self.settings.tolerance, "seconds": solution.seconds["solve"],
            "residuals": residuals, "remarks": [_short(text) for text in solution.remarks[:_MOST_TEXTS]],
            "undetermined": int(np.count_nonzero(~solution.determined)),
        }  # fmt: skip

    def _values(self, solution: Solution, scene: Scene) -> dict[str, Any]:
        """Of each vertex its voltage, of a group the lowest, mean and highest, of a crossbar the power that it absorbs;

        of each edge voltage, current, power and value; of each wire the current into the crossbar, A.
        """
        v = solution.voltages()[0]
        into = {
            vertex.key: _into_crossbar(solution.circuit.crossbars[vertex.key], v)
            for vertex in scene.vertices
            if vertex.kind == "crossbar"
        }
        vertices: list[Any] = []
        for vertex in scene.vertices:
            if vertex.kind == "crossbar":
                vertices.append(_number(float(into[vertex.key] @ np.where(np.isfinite(v), v, 0.0))))
            elif vertex.kind == "group":
                own = v[vertex.nodes]
                vertices.append([_number(own.min()), _number(own.mean()), _number(own.max())])
            else:
                vertices.append(_number(v[vertex.nodes[0]]))
        wires = [_number(into[scene.vertices[k].key][scene.vertices[end].nodes].sum()) for k, end in scene.wires]
        return {"vertices": vertices, "edges": self._edge_values(solution, scene), "wires": wires}

    def _edge_values(self, solution: Solution, scene: Scene) -> list[list[float | None]]:
        """[volts, amperes, watts, value]; of several members the mean of volts and values, the sum of the others."""
        c = solution.circuit
        found = np.full((len(scene.edges), 4), np.nan)
        for kind in {edge.kind for edge in scene.edges}:
            own = [k for k, edge in enumerate(scene.edges) if edge.kind == kind]
            sizes = np.array([scene.edges[k].rows.size for k in own])
            rows = np.concatenate([scene.edges[k].rows for k in own])
            table = c.netlist.tables[kind]
            volts = solution.drops(table.a[rows], table.b[rows])[0]
            amperes = table_currents(solution, kind, rows)[0]
            value = _element_values(c, kind)[rows]
            starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            for column, x in enumerate((volts, amperes, volts * amperes, value)):
                found[own, column] = np.add.reduceat(x, starts)
            found[np.ix_(own, [0, 3])] /= sizes[:, None]
        return [[_number(x) for x in row] for row in found.tolist()]

    # -- parts ---------------------------------------------------------------------------------------------------------

    def group(self, changes: Changes, number: int) -> dict[str, Any]:
        """The voltages of a group's nodes, binned where they are many."""
        groups = self.drawing.groups
        if not 0 <= number < len(groups):
            raise SettingsError(f"no group {number} of nodes")
        v = self.solution(changes).voltages(groups[number])[0]
        names = [self.circuit.nodes[k] for k in groups[number].tolist()]
        side = max(1, int(np.ceil(v.size**0.5))) if v.size > 64 else v.size
        return {"unit": "V", "names": names if v.size <= CELLS * CELLS else None, **_strip(v, side)}

    def nodes(self, changes: Changes) -> dict[str, Any]:
        """The voltages of all nodes but ground as an image, in the order of the netlist, binned where they are many."""
        v = self.solution(changes).voltages()[0][1:]
        side = max(1, int(np.ceil(v.size**0.5)))
        names = self.circuit.nodes[1:] if v.size <= CELLS * CELLS else None
        return {"unit": "V", "names": names, **_strip(v, side)}

    def node_at(self, number: int) -> dict[str, str]:
        """The name of a node by its number in the image of all nodes."""
        names = self.circuit.nodes[1:]
        if not 0 <= number < len(names):
            raise SettingsError(f"no node {number}")
        return {"name": names[number]}

    def crossbar(self, changes: Changes, number: int, quantity: str) -> dict[str, Any]:
        """A crossbar as an image of conductances, currents or powers: means of blocks where it is larger than that."""
        if not 0 <= number < len(self.circuit.crossbars):
            raise SettingsError(f"no crossbar {number}")
        solution = self.solution(changes)
        x, card = solution.circuit.crossbars[number], self.circuit.netlist.crossbars[number]
        image, unit, blocks = crossbar_image(x, solution.voltages()[0], quantity)
        return {
            "name": x.name, "unit": unit, "rows": image.shape[0], "cols": image.shape[1], "blocks": blocks,
            "values": _list(image.ravel(), 5), "first": [r[0] for r in card.ranges],
            "step": [r.step for r in card.ranges],
        }  # fmt: skip

    def unit(self, changes: Changes, layer: int, unit: int) -> dict[str, Any]:
        """What comes into a unit of a layer: conductances, and the current that each brings."""
        layers = self.layers
        if layers is None or not 1 <= layer < len(layers.nodes) or not 0 <= unit < layers.nodes[layer].size:
            raise SettingsError(f"no unit {unit} in layer {layer}")
        solution = self.solution(changes)
        v = solution.voltages()[0]
        g, i = contributions(solution.circuit, layers, v, layer, unit)
        node = int(layers.nodes[layer][unit])
        return {
            "name": self.circuit.nodes[node], "voltage": _number(v[node]), "g": _list(g, 5), "i": _list(i, 5),
            "sum": _number(i.sum()),
        }  # fmt: skip

    def curve(self, card: int, node: str) -> dict[str, Any]:
        """The voltage of a node along the first axis of a `.dc` card: a line for each value of the others, 50 at most.

        Of the circuit as the netlist has it, without changes.
        """
        axes = self._axes(card)
        count = int(np.prod([axis.size for axis in axes]))
        if count * len(self.circuit.nodes) > _MOST_CURVE:
            raise SettingsError(f"{count:,} points of {len(self.circuit.nodes):,} nodes: too many to draw")
        with self.lock:
            if card not in self.curves:
                found = sweep(self.circuit, self.cards[card], self.settings)
                self.curves[card] = found.voltages, found.kcl_relative
            voltages, _ = self.curves[card]
        lines = voltages[:, self.circuit.netlist.node(node)].reshape(-1, axes[0].size)
        return {"x": _list(axes[0]), "lines": [_list(line) for line in lines[:50]]}


def _into_crossbar(x: Crossbar, v: Floats) -> Floats:
    """Current of each node into a crossbar, A; NaN where that is too much work."""
    into = np.zeros(v.size)
    if x.g.size > _MOST_WORK:
        return np.full(v.size, np.nan)
    np.add.at(into, x.rows, v[x.rows] * x.g.sum(axis=1) - x.g @ v[x.cols])
    np.add.at(into, x.cols, v[x.cols] * x.g.sum(axis=0) - v[x.rows] @ x.g)
    return into


def _strip(v: Floats, side: int) -> dict[str, Any]:
    """Values in rows of `side`, with empty cells at the end, binned to at most CELLS x CELLS."""
    rows = -(-v.size // max(side, 1)) if v.size else 0
    padded = np.full(rows * side, np.nan)
    padded[: v.size] = v
    image, blocks = binned(padded.reshape(rows, side))
    return {
        "rows": image.shape[0],
        "cols": image.shape[1],
        "blocks": blocks,
        "width": side,
        "values": _list(image.ravel(), 6),
    }


def _element_values(circuit: Circuit, kind: str) -> Floats:
    """What an element of a kind has as its value now: V, A, ohm, gain; NaN where it has none."""
    table = circuit.netlist.tables[kind]
    if kind == "R":
        with np.errstate(divide="ignore"):
            r, g = table.values["r"], circuit.resistor_siemens
            return np.where(g == 1.0 / r, r, 1.0 / g)
    found = np.full(len(table), np.nan)
    sources: dict[str, tuple[Branches, Floats]] = {
        "V": (circuit.ties, circuit.ties.e[0]),
        "I": (circuit.current_sources, circuit.current_sources.i[0]),
    }
    branches, values = sources.get(kind, (circuit.controlled, circuit.controlled.gain))
    own = np.flatnonzero(branches.kind == KINDS.index(kind))
    found[branches.row[own]] = values[own]
    return found


def _ranges(ranges: tuple[range, ...]) -> str:
    return "".join(f"[{r[0]}:{r[-1]}]" for r in ranges)


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + " ..."


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def _list(x: Floats, digits: int = 0) -> list[float | None]:
    """Numbers, or None for NaN and inf; with so many significant digits, or all."""
    numbers = x.tolist()
    if digits:
        numbers = [float(f"{n:.{digits}g}") for n in numbers]
    return numbers if np.isfinite(x).all() else [n if np.isfinite(n) else None for n in numbers]
