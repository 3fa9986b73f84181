"""A solved circuit as a graph: nodes coloured by voltage, elements by current, with arrows, sources and diodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.layout import layout
from circuitsim.plot import style
from circuitsim.plot.elements import Elements, elements_of, name_of
from circuitsim.shapes import Shapes, controls

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from circuitsim.solution import Solution

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_NODES, MOST_ELEMENTS = 3_000, 6_000  # drawn one by one
_MOST_NAMES, _MOST_VALUES = 60, 30  # nodes whose names, and whose voltages, are written beside them
_MOST_LABELS = 40  # elements that are named
_MOST_ARROWS = 400  # those of the largest currents
_STUB = 0.95  # length of an element to ground
_BEND = 0.22  # between elements that join the same nodes
_SIZE = 0.115  # half of a diode or source, radius of a node
_ROOMY = 1.8  # times the median distance of nodes to their nearest: where this is 1 or more, symbols have room
_NEAR = 200  # points of earlier elements to ground that a later one keeps away from
_POINTS = 15  # of a bent line
_SHARES = np.linspace(0.08, 0.92, 12)[:, None]  # points of a line that labels keep away from
_DIRECTIONS = np.deg2rad(np.arange(0, 360, 22.5) - 90.0)  # of stubs: downwards first


def draw(solution: Solution, row: int, title: str, shapes: Shapes) -> Figure:
    """The picture of a circuit of some thousand elements at most (MOST_NODES, MOST_ELEMENTS)."""
    circuit = solution.circuit
    at = _spaced(layout(circuit, shapes))
    elements = elements_of(solution, row, crossbars=True)
    lines = _lines(at, elements)
    v = solution.voltages(rows=slice(row, row + 1))[0]
    points = np.concatenate([at[1:], *(lines if lines else [at[:1]])])
    low, high = points.min(axis=0) - 0.5, points.max(axis=0) + 0.5
    width, height = high - low
    crowd = float(np.clip(np.sqrt(len(elements) / (1.6 * len(at))), 1.0, 1.4))
    inches = float(np.clip(15.0 / max(width, 1.4 * height), 0.02, 1.15 * crowd))
    figure = style.new_figure(max(width * inches + 2.6, 6.0), max(height * inches + 1.6, 3.6), title)
    axes = figure.add_subplot()
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    style.no_axes(axes)
    scale = float(np.clip(1.2 * inches, 0.5, 1.0))  # of line widths
    _draw_controls(axes, solution, at)
    _draw_lines(figure, axes, elements, lines, scale)
    _draw_nodes(figure, axes, solution, at, v, inches)
    shown = _draw_symbols(axes, elements, lines)
    if len(at) <= _MOST_NAMES:
        _write_names(axes, solution, at, v, elements, lines, inches)
    _legend(axes, shown, solution)
    return figure


def _spaced(at: Floats) -> Floats:
    """Positions, larger where nodes are crowded: symbols and elements to ground keep their size."""
    from scipy.spatial import cKDTree

    if len(at) < 3:
        return at
    nearest = cKDTree(at[1:]).query(at[1:], 2)[0][:, 1]
    return at / float(np.clip(_ROOMY * np.median(nearest), 0.3, 1.0))


# -- geometry ----------------------------------------------------------------------------------------------------------


def _lines(at: Floats, elements: Elements) -> list[Floats]:
    """A polyline for each element, from its first node to its second: straight, bent beside others, stubs to ground."""
    a, b = elements.a, elements.b
    low, high = np.minimum(a, b), np.maximum(a, b)
    grounded = low == 0
    pair = low * len(at) + high
    _, which, count = np.unique(pair, return_inverse=True, return_counts=True)
    nth = np.zeros(a.size, np.int64)
    order = np.argsort(which, kind="stable")
    starts = np.cumsum(count) - count
    nth[order] = np.arange(a.size) - np.repeat(starts, count)
    angles = _stub_angles(at, a, b)
    lines = []
    for k in range(a.size):
        if grounded[k]:
            node = int(high[k])
            angle = angles[k]
            end = at[node] + _STUB * np.array([np.cos(angle), np.sin(angle)])
            line = np.stack([at[node], end])
            lines.append(line if a[k] else line[::-1])
            continue
        start, stop = at[low[k]], at[high[k]]
        side = (nth[k] - (count[which[k]] - 1) / 2) * 2 * min(_BEND, 2.5 / count[which[k]])
        if a[k] == b[k]:
            turn = np.linspace(0, 2 * np.pi, _POINTS)
            line = start + 0.25 * np.stack([np.sin(turn), 1 - np.cos(turn)], axis=1)
        elif side:
            t = np.linspace(0, 1, _POINTS)[:, None]
            along = stop - start
            length = np.hypot(*along)
            across = np.array([-along[1], along[0]]) / max(length, 1e-9)
            line = start + t * along + 4 * t * (1 - t) * across * side * min(length, 1.5)
        else:
            line = np.stack([start, stop])
        lines.append(line if a[k] <= b[k] else line[::-1])
    return lines


def _stub_angles(at: Floats, a: Ints, b: Ints) -> Floats:
    """The direction of each element to ground: away from what its node is joined to, and from what else is near.

    NaN for all other elements.
    """
    from scipy.spatial import cKDTree

    angles = np.full(a.size, np.nan)
    used: dict[int, list[float]] = {}
    inner = np.flatnonzero((a > 0) & (b > 0) & (a != b))
    for start, stop in ((a[inner], b[inner]), (b[inner], a[inner])):
        way = at[stop] - at[start]
        for node, angle in zip(start.tolist(), np.arctan2(way[:, 1], way[:, 0]).tolist(), strict=True):
            used.setdefault(node, []).append(angle)
    shares = np.linspace(0.2, 0.8, 4)[:, None, None]
    points = (at[a[inner]] + shares * (at[b[inner]] - at[a[inner]])).reshape(-1, 2)
    obstacles = cKDTree(np.concatenate([at[1:], points])) if len(at) > 1 else None
    rays = np.stack([np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)], axis=1)
    reach = _STUB * np.array([0.5, 0.8, 1.1])[:, None, None] * rays
    stubs: list[Floats] = []
    for k in np.flatnonzero(((a == 0) | (b == 0)) & (a != b)).tolist():
        node = int(max(a[k], b[k]))
        taken = used.setdefault(node, [])
        room = np.full(_DIRECTIONS.size, np.pi)
        for angle in taken:
            room = np.minimum(room, np.abs(np.angle(np.exp(1j * (_DIRECTIONS - angle)))))
        spots = at[node] + reach
        free = obstacles.query(spots)[0].min(axis=0) if obstacles is not None else np.ones(_DIRECTIONS.size)
        if stubs:
            apart = spots[:, :, None] - np.array(stubs[-_NEAR:])
            free = np.minimum(free, np.sqrt((apart**2).sum(axis=3).min(axis=(0, 2))))
        score = np.minimum(room, np.deg2rad(68)) + 0.1 * (1 - np.sin(_DIRECTIONS)) + 2 * np.minimum(free, 0.4)
        angles[k] = _DIRECTIONS[np.argmax(score)]
        taken.append(float(angles[k]))
        stubs += [at[node] + _STUB * share * rays[np.argmax(score)] for share in (0.5, 1.1)]
    return angles


def _along(line: Floats, share: float) -> tuple[Floats, Floats]:
    """The point at a share of a polyline's length, and the direction there."""
    steps = np.diff(line, axis=0)
    lengths = np.hypot(*steps.T)
    ends = np.cumsum(lengths)
    k = int(np.searchsorted(ends, share * ends[-1]).clip(max=len(steps) - 1))
    back = (ends[k] - share * ends[-1]) / max(lengths[k], 1e-12)
    return line[k + 1] - back * steps[k], steps[k] / max(lengths[k], 1e-12)


def _placed(shape: Floats, spot: Floats, direction: Floats, size: float) -> Floats:
    """A shape drawn along x, turned into a direction at a spot."""
    turn = np.array([[direction[0], direction[1]], [-direction[1], direction[0]]])
    return spot + size * (shape @ turn)


# -- artists -----------------------------------------------------------------------------------------------------------

_ARROW = np.array([[0.6, 0.0], [-0.5, 0.42], [-0.5, -0.42]])
_TRIANGLE = np.array([[1.0, 0.0], [-0.8, 1.0], [-0.8, -1.0]])
_BAR = np.array([[1.0, -1.0], [1.0, 1.0]])


def _room(line: Floats) -> float:
    """The size of a symbol on a line: less on short ones."""
    return _SIZE * min(1.0, float(np.hypot(*np.diff(line, axis=0).T).sum()) / 0.7)


def _draw_lines(figure: Figure, axes: Axes, elements: Elements, lines: list[Floats], scale: float) -> None:
    """Elements by current: width, colour, and arrows for the largest."""
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.colors import Normalize

    size = np.abs(elements.current)
    most = style.largest(size)
    share = np.sqrt(np.nan_to_num(size) / most) if most else np.zeros(size.size)
    drawn = LineCollection(lines, cmap=style.strengths(), norm=Normalize(0, most or 1.0), zorder=1, gid="elements")
    drawn.set_array(size)
    drawn.set_linewidth((scale * (0.8 + 3.2 * share)).tolist())
    drawn.set_capstyle("round")
    axes.add_collection(drawn, autolim=False)
    if not most:
        drawn.set_array(None)
        drawn.set_color(style.GREY)
        return
    style.colour_bar(figure, drawn, axes, "current", "A", fraction=0.03, pad=0.01, aspect=28)
    order = np.argsort(-np.nan_to_num(size), kind="stable")[:_MOST_ARROWS]
    heads, colours = [], []
    for k in order[np.nan_to_num(size)[order] > 1e-9 * most].tolist():
        line = lines[k]
        symbol = elements.kind[k] not in "RL"
        spot, direction = _along(line, (0.8 if elements.current[k] > 0 else 0.2) if symbol else 0.5)
        heads.append(
            _placed(_ARROW, spot, direction * np.sign(elements.current[k]), (0.55 + 0.65 * share[k]) * _room(line))
        )
        colours.append(drawn.to_rgba(size[k]))
    axes.add_collection(
        PolyCollection(heads, facecolors=colours, edgecolors="none", zorder=3, gid="arrows"),
        autolim=False,
    )


def _draw_controls(axes: Axes, solution: Solution, at: Floats) -> None:
    """A dotted line from what controls a source to the source."""
    from matplotlib.collections import LineCollection

    control, source = controls(solution.circuit)
    seen = (control > 0) & (source > 0) & (control != source)
    if seen.any():
        lines = np.stack([at[control[seen]], at[source[seen]]], axis=1)
        dotted = LineCollection(list(lines), colors=style.GREY, linewidths=0.9, linestyles=":", zorder=0.5)
        axes.add_collection(dotted, autolim=False)


def _draw_nodes(figure: Figure, axes: Axes, solution: Solution, at: Floats, v: Floats, inches: float) -> None:
    """Nodes by voltage; what is left out, or not unique, with a mark."""
    cmap, norm = style.value_colours(v[1:])
    share = 2 * _SIZE + float(np.clip(0.7 * (0.6 - inches), 0.0, 0.35))  # of the distance: more when that is small
    points = float(np.clip(72 * inches * share, 2.2, 20.0))
    nodes = axes.scatter(
        at[1:, 0], at[1:, 1], s=points**2, c=v[1:], cmap=cmap, norm=norm, edgecolors="black",
        linewidths=1.0 if points > 8 else 0.0, plotnonfinite=True, zorder=4, gid="nodes",
    )  # fmt: skip
    style.colour_bar(figure, nodes, axes, "node voltage", "V", fraction=0.03, pad=0.01, aspect=28)
    loose = np.flatnonzero(~solution.determined[1:]) + 1 if np.isfinite(solution.x).all() else np.zeros(0, int)
    if loose.size:
        axes.scatter(
            at[loose, 0], at[loose, 1], s=(1.7 * points) ** 2, facecolors="none", edgecolors=style.VERMILION,
            linestyles=":", linewidths=1.4, zorder=4, gid="not unique",
        )  # fmt: skip


def _draw_symbols(axes: Axes, elements: Elements, lines: list[Floats]) -> set[str]:
    """Diodes filled when they conduct, sources as circles, ground as three strokes; returns which symbols there are."""
    from matplotlib.collections import LineCollection, PolyCollection

    shapes: dict[str, list[Floats]] = {"conducting": [], "blocking": [], "source": [], "other": []}
    strokes: list[Floats] = []
    turn = np.linspace(0, 2 * np.pi, 25)
    circle = 1.15 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    for k, line in enumerate(lines):
        kind, size = str(elements.kind[k]), _room(line)
        middle, direction = _along(line, 0.5)
        if kind == "D":
            state = "conducting" if elements.conducts[k] else "blocking"
            shapes[state].append(_placed(_TRIANGLE, middle, direction, size))
            strokes.append(_placed(_BAR, middle, direction, size))
        elif kind in "VIEFGH":
            shapes["source"].append(_placed(circle, middle, direction, size))
            if kind in "VEH":  # plus at the first node
                plus = middle - 0.5 * size * direction
                strokes += [plus + 0.3 * size * np.array(arm) for arm in ([[-1, 0], [1, 0]], [[0, -1], [0, 1]])]
            else:  # the arrow of the source's own direction
                strokes.append(_placed(np.array([[-0.7, 0.0], [0.7, 0.0]]), middle, direction, size))
                strokes.append(_placed(np.array([[0.2, 0.4], [0.7, 0.0], [0.2, -0.4]]), middle, direction, size))
        elif kind == "N":
            box = np.array([[-1.2, -0.55], [1.2, -0.55], [1.2, 0.55], [-1.2, 0.55]])
            shapes["other"].append(_placed(box, middle, direction, size))
        if 0 in (elements.a[k], elements.b[k]) and elements.a[k] != elements.b[k]:
            inner, outer = (line[0], line[-1]) if elements.b[k] == 0 else (line[-1], line[0])
            away = (outer - inner) / max(np.hypot(*(outer - inner)), 1e-12)
            for n, half in enumerate((1.0, 0.62, 0.25)):
                bar = np.array([[0.45 * n, -half], [0.45 * n, half]])
                strokes.append(_placed(bar, outer, away, _SIZE))
    faces = {"conducting": "black", "blocking": "white", "source": "white", "other": "white"}
    for name, found in shapes.items():
        if found:
            polygons = PolyCollection(
                found, facecolors=faces[name], edgecolors="black", linewidths=0.9, zorder=2.5, gid=name
            )
            axes.add_collection(polygons, autolim=False)
    if strokes:
        axes.add_collection(LineCollection(strokes, colors="black", linewidths=0.9, zorder=2.6), autolim=False)
    return {name for name, found in shapes.items() if found}


def _write_names(
    axes: Axes, solution: Solution, at: Floats, v: Floats, elements: Elements, lines: list[Floats], inches: float
) -> None:
    """Names of nodes, with their voltages, and of elements, with their currents, where they cover the least."""
    circuit, values = solution.circuit, len(at) <= _MOST_VALUES
    most_volts, most_amperes = style.largest(v), style.largest(elements.current)
    ring = 1.2 * _SIZE * np.stack([np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)], axis=1)
    points = [at[1:]] * 4 + [line[0] + _SHARES * (line[-1] - line[0]) for line in lines]
    points += [_along(lines[k], 0.5)[0] + ring for k in np.flatnonzero(~np.isin(elements.kind, ["R", "L"])).tolist()]
    labels = _Labels(axes, inches, np.concatenate(points))
    turn = np.deg2rad(90.0 - np.arange(0, 360, 30))
    around = 1.3 * _SIZE * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    for node in range(1, len(at)):
        name = style.shortened(circuit.nodes[node], 14)
        text = f"{name}\n{style.quantity(v[node], 'V', most_volts)}" if values and np.isfinite(v[node]) else name
        labels.write(text, [(at[node] + out, out) for out in around], 8, fontweight="bold", zorder=6)
    for k in range(len(lines)) if len(lines) <= _MOST_LABELS else ():
        name = style.shortened(name_of(solution, elements, k), 14)
        if not name:
            continue
        amperes = abs(elements.current[k])
        text = f"{name}\n{style.quantity(amperes, 'A', most_amperes)}" if values and np.isfinite(amperes) else name
        spots = []
        for share in (0.5, 0.4, 0.6, 0.3, 0.7):
            spot, way = _along(lines[k], share)
            across = 1.35 * _SIZE * np.array([-way[1], way[0]])
            spots += [(spot + side, side) for side in (across, -across)]
        labels.write(text, spots, 7, color="0.3", zorder=5)


class _Labels:
    """Texts that are put where they cover the fewest points and overlap each other least."""

    def __init__(self, axes: Axes, inches: float, points: Floats) -> None:
        self.axes, self.inches, self.points = axes, inches, points
        self.boxes = np.zeros((0, 4))  # left, bottom, right, top

    def write(self, text: str, spots: list[tuple[Floats, Floats]], size: float, **look: Any) -> None:
        """A text at the best of these places, each a point and the direction from there in which it extends."""
        from matplotlib.patheffects import withStroke

        rows = text.split("\n")
        width = max(map(len, rows)) * 0.62 * size / 72 / self.inches
        height = len(rows) * 1.25 * size / 72 / self.inches
        best, best_cost = 0, np.inf
        boxes = []
        for n, (spot, out) in enumerate(spots):
            x, y = (float(np.sign(np.where(np.abs(o) > 0.35 * np.hypot(*out), o, 0.0))) for o in out)
            left, bottom = spot[0] + (x - 1) / 2 * width, spot[1] + (y - 1) / 2 * height
            box = np.array([left, bottom, left + width, bottom + height])
            boxes.append((box, x, y))
            inside = ((self.points >= box[:2]) & (self.points <= box[2:])).all(axis=1)
            shared = np.minimum(self.boxes[:, 2:], box[2:]) - np.maximum(self.boxes[:, :2], box[:2])
            cost = inside.sum() + 30 * np.maximum(shared, 0).prod(axis=1).sum() / (width * height) + 0.01 * n
            if cost < best_cost:
                best, best_cost = n, cost
        box, x, y = boxes[best]
        self.boxes = np.vstack([self.boxes, box])
        self.axes.text(
            spots[best][0][0], spots[best][0][1], style.plain(text), fontsize=size,
            ha=("right", "center", "left")[int(x) + 1], va=("top", "center", "bottom")[int(y) + 1],
            path_effects=[withStroke(linewidth=2.0, foreground="white")], **look,
        )  # fmt: skip


def _legend(axes: Axes, shown: set[str], solution: Solution) -> None:
    """What the symbols in this picture mean."""
    from matplotlib.lines import Line2D

    def mark(marker: str, face: str, edge: str = "black") -> Line2D:
        return Line2D([], [], marker=marker, color="none", markerfacecolor=face, markeredgecolor=edge, markersize=8)

    entries = {
        "conducting": (mark(">", "black"), "diode that conducts"),
        "blocking": (mark(">", "white"), "diode that blocks"),
        "source": (mark("o", "white"), "source"),
        "other": (mark("s", "white"), "nonlinear resistor"),
    }
    found = [entry for name, entry in entries.items() if name in shown]
    if solution.circuit.left_out.any():
        found.append((mark("o", style.NOTHING), "left out"))
    if np.isfinite(solution.x).all() and not solution.determined.all():
        found.append((mark("o", "none", style.VERMILION), "voltage not unique"))
    if found:
        axes.legend(
            *zip(*found, strict=True), loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(found), fontsize=8,
            frameon=False, handletextpad=0.2,
        )  # fmt: skip
