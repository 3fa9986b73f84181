"""What the page requests, as JSON objects: the circuit, its answer for changed values, what belongs to a part of it.

One circuit is prepared; every question includes its changes, so only the last solutions are remembered between
questions. One question is solved at a time, and one sweep beside it. Volts, amperes, siemens, ohms, watts, seconds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import Circuit
from circuitsim.errors import At, SettingsError
from circuitsim.heat import UNITS, block_of, crossbar_map
from circuitsim.io.output import number, numbers, warning_texts
from circuitsim.netlist.model import CROSSBAR
from circuitsim.residual import FIGURES
from circuitsim.solution import Settings, Solution
from circuitsim.sweeping import sweep
from circuitsim.view.layers import MOST_UNITS, contributions, frames, given_inputs
from circuitsim.view.scene import Drawing, Scene
from circuitsim.view.solver import Edits, Solver
from circuitsim.view.values import CELLS, OVERFLOWS, scene_values, short, strip

Floats = NDArray[np.float64]

_MOST_CURVE = 5_000_000  # voltages of a sweep that is drawn
_MOST_GROUPS = 500  # of its points, one solved after the other: those of sources alone are one group
_MOST_FOUND = 20  # names that a search gives
_MOST_TEXTS = 20  # warnings
_KEPT = 3  # scenes
_UNITS = {"V": "V", "I": "A", "R": "Ω", "E": "V/V", "F": "A/A", "G": "S", "H": "Ω", "temp": "°C", "param": ""}


class Session:
    """Answers the questions of a circuit's page.

    >>> from circuitsim.build import parse
    >>> session = Session(parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k"))
    >>> session.answer(Edits((("R2", "3k"),)))["values"]["vertices"]
    [0.0, 10.0, 7.5]
    """

    def __init__(self, circuit: Circuit, settings: Settings | None = None, inputs: Sequence[str] = ()) -> None:
        self.solver = Solver(circuit, settings, inputs)
        self.circuit, self.layers = self.solver.circuit, self.solver.layers
        self.scenes: OrderedDict[int | None, Scene] = OrderedDict()
        self.curves: dict[int, Floats] = {}  # voltages of the sweeps that were run, (points, nodes)
        self.curves_lock = threading.Lock()  # a long sweep keeps no answer waiting

    @property
    def title(self) -> str:
        """The netlist's first line."""
        return self.circuit.netlist.title.strip()

    def solution(self, changes: Edits) -> Solution:
        """The certified equilibrium with these changes (Solver.solution)."""
        return self.solver.solution(changes)

    # -- what the circuit is -------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """The circuit: title, counts, sweeps, crossbars, layers, warnings."""
        c, netlist = self.circuit, self.circuit.netlist
        counts = {kind: len(table) for kind, table in netlist.tables.items() if len(table)}
        return {
            "title": self.title,
            "file": Path(netlist.path).name,
            "nodes": len(c.nodes) - 1,
            "elements": counts,
            "crossbars": [
                {"name": x.name, "rows": x.rows.size, "cols": x.cols.size, "conductances": int(np.count_nonzero(x.g))}
                for x in c.crossbars
            ],
            "whole": self.drawing.whole,
            "outputs": [c.nodes[k] for k in netlist.read_nodes[:_MOST_TEXTS]],
            "sweeps": self._sweeps(),
            "layers": self._layers_about(),
            "warnings": [short(text) for text in self._remarks()[:_MOST_TEXTS]],
        }

    def _remarks(self) -> list[str]:
        shunts = (
            ["the resistors of .options rshunt are not drawn"]
            if np.isfinite(self.circuit.netlist.options.rshunt)
            else []
        )
        return shunts + warning_texts(self.circuit.notes)

    @cached_property
    def drawing(self) -> Drawing:
        """What scenes are made of."""
        return Drawing(self.circuit)

    def _sweeps(self) -> list[dict[str, Any]]:
        found = []
        for k, card in enumerate(self.solver.cards):
            try:
                axes = self.solver.axes(k)
            except SettingsError:
                continue
            given = [
                {
                    "name": s.name,
                    "unit": _UNITS[s.kind],
                    "points": numbers(x),
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
            "given": numbers(x[:half]),
            "labels": layers.labels(self.circuit),
            "sizes": [nodes.size for nodes in layers.nodes],
            "shown": [nodes.size for nodes in layers.shown],
            "crossbars": [self.circuit.crossbars[k].name for k in layers.crossbars],
        }

    def scene(self, centre: str | None) -> dict[str, Any]:
        """What to draw: vertices with their places, edges with their netlist lines, wires of crossbars."""
        c, scene = self.circuit, self._scene(centre)
        return {
            "whole": scene.whole,
            "all_nodes": scene.all_nodes,
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
        with self.solver.lock:
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
        return int(netlist.crossbars[start].rows[0] if kind == CROSSBAR else netlist.tables[kind].a[start])

    def _line(self, seq: int) -> dict[str, str]:
        at = self.circuit.netlist.at(seq)
        return {"text": short(at.text), "at": str(At(Path(at.path).name, at.line))}

    def find(self, text: str) -> list[dict[str, str]]:
        """Nodes and elements whose names hold a text, in any case: equal ones first, then those that begin with it."""
        key, netlist = text.strip().lower(), self.circuit.netlist
        if not key:
            return []
        exact = [("node", netlist.nodes[netlist.node(key)])] if netlist.has_node(key) else []
        if key in netlist.element_rows:
            kind, row = netlist.element_rows[key]
            exact.append((kind, netlist.tables[kind].names[row]))
        sources = [("node", netlist.nodes), *((kind, t.names) for kind, t in netlist.tables.items())]
        sources.append(("crossbar", [x.name for x in netlist.crossbars]))
        found = [(0, name, what) for what, name in exact]
        for what, names in sources:
            hits = ((name, name.lower()) for name in names)
            good = ((1 if low.startswith(key) else 2, name) for name, low in hits if key in low)
            found += [(rank, name, what) for rank, name in islice(good, 20 * _MOST_FOUND)]
        found.sort(key=lambda hit: (hit[0], len(hit[1]), hit[1]))
        once = islice(dict.fromkeys((name, what) for _, name, what in found), _MOST_FOUND)
        return [{"name": name, "what": what, "at": self._place(name, what)} for name, what in once]

    def _place(self, name: str, what: str) -> str:
        """The label of the vertex, or the name of the edge or crossbar, that shows a node or element."""
        if what != "node":
            return name
        vertex = self.drawing.vertex(self.circuit.netlist.node(name))
        return self.drawing.label(vertex)

    # -- answers -------------------------------------------------------------------------------------------------------

    def answer(self, changes: Edits, centre: str | None = None, trace: bool = False) -> dict[str, Any]:
        """The equilibrium with these changes, at what is drawn, with its certificate; `trace`: the first sweeps too."""
        with self.solver.lock:
            solution = self.solution(changes)
            found: dict[str, Any] = {
                "certificate": self._certificate(solution),
                "values": scene_values(solution, self._scene(centre)),
                "layers": None,
                "frames": [],
            }
            if self.layers is not None:
                v = solution.voltages()[0]
                found["layers"] = [numbers(v[nodes]) for nodes in self.layers.shown]
                if trace:
                    shown = frames(solution.problem, self.solver.settings, self.layers.shown[1:])
                    found["frames"] = [numbers(frame, 5) for frame in shown]
            return found

    def _certificate(self, solution: Solution) -> dict[str, Any]:
        residuals = {name: number(getattr(solution.residuals, name)) for name in FIGURES}
        return {
            "status": solution.status.name, "message": solution.message, "method": solution.method,
            "why": solution.why, "backend": solution.backend, "steps": solution.steps,
            "tolerance": self.solver.settings.tolerance, "seconds": solution.seconds["solve"],
            "residuals": residuals, "remarks": [short(text) for text in solution.remarks[:_MOST_TEXTS]],
            "undetermined": int(np.count_nonzero(~solution.determined)),
        }  # fmt: skip

    def touched(self, card: int, names: Sequence[str]) -> list[str]:
        """Which of these changed elements a point of a `.dc` card changes too (Solver.touched)."""
        return self.solver.touched(card, names)

    # -- parts ---------------------------------------------------------------------------------------------------------

    @OVERFLOWS
    def group(self, changes: Edits, number: int) -> dict[str, Any]:
        """The voltages of a group's nodes, binned where they are many."""
        groups = self.drawing.groups
        if not 0 <= number < len(groups):
            raise SettingsError(f"no group {number} of nodes")
        v = self.solution(changes).voltages(groups[number])[0]
        names = [self.circuit.nodes[k] for k in groups[number].tolist()]
        side = max(1, int(np.ceil(v.size**0.5))) if v.size > 64 else v.size
        return {"unit": "V", "names": names if v.size <= CELLS * CELLS else None, **strip(v, side)}

    @OVERFLOWS
    def nodes(self, changes: Edits) -> dict[str, Any]:
        """The voltages of all nodes but ground as an image, in the order of the netlist, binned where they are many."""
        v = self.solution(changes).voltages()[0][1:]
        side = max(1, int(np.ceil(v.size**0.5)))
        names = self.circuit.nodes[1:] if v.size <= CELLS * CELLS else None
        return {"unit": "V", "names": names, **strip(v, side)}

    def node_at(self, number: int) -> dict[str, str]:
        """The name of a node by its number in the image of all nodes."""
        names = self.circuit.nodes[1:]
        if not 0 <= number < len(names):
            raise SettingsError(f"no node {number}")
        return {"name": names[number]}

    @OVERFLOWS
    def crossbar(self, changes: Edits, number: int, quantity: str) -> dict[str, Any]:
        """A crossbar as an image of conductances, currents or powers: means of blocks where it is larger than that."""
        if not 0 <= number < len(self.circuit.crossbars):
            raise SettingsError(f"no crossbar {number}")
        solution = self.solution(changes)
        x, card = solution.circuit.crossbars[number], self.circuit.netlist.crossbars[number]
        blocks = block_of(x.g.shape, CELLS)
        image = crossbar_map(x, solution.voltages()[0], quantity, blocks)
        return {
            "name": x.name, "unit": UNITS[quantity], "rows": image.shape[0], "cols": image.shape[1], "blocks": blocks,
            "values": numbers(image.ravel(), 5), "first": [r[0] for r in card.ranges],
            "step": [r.step for r in card.ranges],
        }  # fmt: skip

    @OVERFLOWS
    def unit(self, changes: Edits, layer: int, unit: int) -> dict[str, Any]:
        """What comes into a unit of a layer: conductances, and the current that each brings."""
        layers = self.layers
        if layers is None or not 1 <= layer < len(layers.nodes) or not 0 <= unit < layers.nodes[layer].size:
            raise SettingsError(f"no unit {unit} in layer {layer}")
        solution = self.solution(changes)
        v = solution.voltages()[0]
        g, i = contributions(solution.circuit, layers, v, layer, unit)
        node = int(layers.nodes[layer][unit])
        return {
            "name": self.circuit.nodes[node], "voltage": number(v[node]), "g": numbers(g[:MOST_UNITS], 5),
            "i": numbers(i[:MOST_UNITS], 5),
            "sum": number(i.sum()),
        }  # fmt: skip

    def curve(self, card: int, node: str) -> dict[str, Any]:
        """The voltage of a node along the first axis of a `.dc` card: a line for each value of the others, 50 at most.

        Of the circuit as it was when the page was opened, without its changes. SettingsError where that is too much
        work, or --input gave values beside a sweep of anything but voltage sources; CircuitError where a point has no
        solution.
        """
        axes = self.solver.axes(card)
        count = prod(axis.size for axis in axes)
        if count * len(self.circuit.nodes) > _MOST_CURVE:
            raise SettingsError(f"{count:,} points of {len(self.circuit.nodes):,} nodes: too many to draw")
        swept = self.solver.cards[card].sweeps
        groups = prod(axis.size for axis, s in zip(axes, swept, strict=True) if s.kind not in ("V", "I"))
        if groups > _MOST_GROUPS:
            raise SettingsError(
                f"{groups:,} values of quantities other than sources, more than {_MOST_GROUPS}: too many to draw; "
                "circuitsim sweep solves them"
            )
        if self.solver.assignments and any(s.kind != "V" for s in swept):
            raise SettingsError(
                "curves of anything but voltage sources are those of the netlist as it stands: leave --input out, or "
                "write its values into the netlist"
            )
        with self.curves_lock:
            if card not in self.curves:
                self.curves[card] = sweep(self.circuit, self.solver.cards[card], self.solver.settings).voltages
            voltages = self.curves[card]
        lines = voltages[:, self.circuit.netlist.node(node)].reshape(-1, axes[0].size)
        return {"x": numbers(axes[0]), "lines": [numbers(line) for line in lines[:50]]}
