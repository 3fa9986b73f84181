"""Pictures: what is in them, not how it looks; the command `circuitsim plot`."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import some_slow
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim import cli, gallery, heat
from circuitsim.io.commands import DEFECT
from circuitsim.layout import layout

pytest.importorskip("matplotlib", reason="pip install 'circuitsim[plot]'")
from matplotlib.axes import Axes
from matplotlib.collections import Collection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from circuitsim.plot import crossbars, curves, field, graph, layers, style
from circuitsim.plot.elements import conducting, elements_of
from circuitsim.shapes import Shapes
from training.metrics import COLUMNS, Row, write_metrics

NETLISTS = Path(__file__).parent.parent / "netlists"
BRIDGE = "bridge\nV1 p n {}\nD1 p plus di\nD2 n plus di\nD3 0 p di\nD4 0 n di\nR1 plus 0 1k\n.model di D({})"
SWEPT = "divider\nV1 in 0 10\nR1 in out 1k\nR2 out 0 1k\n.dc V1 0 2 0.5\n.output out"


def solved(text: str) -> cs.Solution:
    return cs.solve(cs.parse(text))


def found(figure: Figure, gid: str) -> list:
    """The artists with this name, without axes' own."""
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def one(figure: Figure, gid: str) -> Collection:
    [artist] = found(figure, gid)
    return artist


def values(artist: Collection | AxesImage) -> NDArray[np.float64]:
    """What its colours mean; NaN where there is nothing."""
    return np.ma.filled(artist.get_array(), np.nan)


def image(figure: Figure, gid: str) -> NDArray[np.float64]:
    [artist] = found(figure, gid)
    assert isinstance(artist, AxesImage)
    return values(artist)


def texts(figure: Figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]


def saved(figure: Figure, kind: str = "png") -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=50)
    return out.getvalue()


# -- the graph ---------------------------------------------------------------------------------------------------------


def test_nodes_have_their_places_and_voltages() -> None:
    solution = solved(gallery.diode_or().text)
    nodes = one(solution.plot("graph"), "nodes")
    assert np.array_equal(nodes.get_offsets(), graph._spaced(layout(solution.circuit))[1:])
    assert values(nodes) == pytest.approx(solution.voltages()[0, 1:])


@pytest.mark.parametrize("name", ["bridge_rectifier", "xor", "series_parallel", "relu_network"])
def test_arrows_point_where_the_currents_flow(name: str) -> None:
    solution = cs.solve(cs.load(NETLISTS / f"{name}.cir"))
    figure = solution.plot("graph")
    elements = elements_of(solution, 0, crossbars=True)
    lines = [np.asarray(line) for line in one(figure, "elements").get_segments()]  # type: ignore[attr-defined]
    assert values(one(figure, "elements")) == pytest.approx(np.abs(elements.current))
    heads = [path.vertices[:3] for path in one(figure, "arrows").get_paths()]
    order = np.argsort(-np.abs(elements.current), kind="stable")  # the largest first
    order = order[np.abs(elements.current[order]) > 1e-9 * np.abs(elements.current).max()]
    at = graph._spaced(layout(solution.circuit))
    for head, k in zip(heads, order.tolist(), strict=True):
        first, last = (lines[k][end] for end in (0, -1))
        assert np.array_equal(first, at[elements.a[k]]) or elements.a[k] == 0
        assert np.array_equal(last, at[elements.b[k]]) or elements.b[k] == 0
        assert distance(head.mean(axis=0), lines[k]) < 0.02
        assert np.sign((head[0] - head[1:].mean(axis=0)) @ (last - first)) == np.sign(elements.current[k])


def test_crowded_nodes_are_drawn_farther_apart() -> None:
    corners = np.array([[0.0, -1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert np.array_equal(graph._spaced(corners), corners)
    assert graph._spaced(corners / 4) == pytest.approx(corners / (1.8 / 1))
    assert np.array_equal(graph._spaced(corners[:2]), corners[:2])


def distance(point: NDArray[np.float64], line: NDArray[np.float64]) -> float:
    t = np.linspace(0, 1, 50)[:, None]
    pieces = [a + t * (b - a) for a, b in zip(line, line[1:], strict=False)]
    return float(np.hypot(*(np.concatenate(pieces) - point).T).min())


@pytest.mark.parametrize("model", ["ron=0", "ron=1 roff=1g", "is=1e-12"])
@pytest.mark.parametrize("volts", [12, -12])
def test_diodes_are_filled_when_they_conduct(model: str, volts: int) -> None:
    solution = solved(BRIDGE.format(volts, model))
    state = dict(zip(solution.circuit.netlist.tables["D"].names, conducting(solution, 0).tolist(), strict=True))
    forward = volts > 0
    assert state == {"D1": forward, "D2": not forward, "D3": not forward, "D4": forward}
    figure = solution.plot("graph")
    filled, hollow = one(figure, "conducting"), one(figure, "blocking")
    assert (len(filled.get_paths()), len(hollow.get_paths())) == (2, 2)
    assert filled.get_facecolor()[0] == pytest.approx([0, 0, 0, 1])
    assert hollow.get_facecolor()[0] == pytest.approx([1, 1, 1, 1])
    at = graph._spaced(layout(solution.circuit))
    [p, plus] = (at[solution.circuit.netlist.node(name)] for name in ("p", "plus"))
    tips = {tuple(np.round(path.vertices[0] - path.vertices[1:3].mean(axis=0), 6)) for path in filled.get_paths()}
    if forward:  # the triangle of D1 points from p to plus
        along = (plus - p) / np.hypot(*(plus - p))
        assert any(np.dot(tip, along) / np.hypot(*tip) > 0.999 for tip in tips)


def test_a_zener_diode_conducts_in_breakdown() -> None:
    solution = cs.solve(cs.load(NETLISTS / "zener.cir"))
    assert conducting(solution, 0).tolist() == [True]
    ideal = solved("t\nI1 0 a 1m\nD1 0 a z\nRx a 0 1meg\n.model z D(ron=0 vrev=5 rrev=0)")
    assert conducting(ideal, 0).tolist() == [True]
    assert ideal.voltage("a") == pytest.approx(5)


@pytest.mark.parametrize("card", ["R1 0 0 1", "V1 0 0 0", "I1 0 0 1"])
def test_of_ground_alone_there_is_nothing_to_draw(card: str) -> None:
    circuit = cs.parse(f"t\n{card}")
    for result in (cs.solve(circuit), cs.sweep(circuit, "temp 0 20 10")):
        with pytest.raises(cs.SettingsError, match="no node but ground: there is nothing to draw"):
            result.plot()


def test_no_current_no_arrows() -> None:
    figure = solved("none\nV1 a 0 0\nR1 a b 1k\nD1 b 0 d\n.model d D(ron=0)").plot()
    assert found(figure, "arrows") == []
    assert len(one(figure, "blocking").get_paths()) == 1
    saved(figure)


def test_names_and_values_are_written_as_they_are() -> None:
    text = "a $b^2$ title\nV1 n$1$ 0 5\nR1 n$1$ _b_x 1k\nR2 _b_x 0 1k"
    shown = [text.replace("\\$", "$") for text in texts(solved(text).plot("graph"))]
    assert "n$1$\n5 V" in shown and "_b_x\n2.5 V" in shown and "R1\n2.5 mA" in shown and "a $b^2$ title" in shown


def test_control_characters_do_not_spoil_a_picture() -> None:
    text = "a \x02[31mred\x07\x0b title\ufffe\nV1 n\x01a 0 5\nR1 n\x01a 0 1k\n.dc V1 0 1 0.5"
    solution = solved(text)
    sweep = cs.sweep(solution.circuit, "V1 0 1 0.5")
    for figure in (solution.plot("graph"), sweep.plot()):
        assert "a [31mred title" in texts(figure)
        assert ElementTree.fromstring(saved(figure, "svg")).tag.endswith("svg")


def test_elements_between_the_same_nodes_do_not_cover_each_other() -> None:
    figure = solved("parallel\nV1 a 0 1\nR1 a b 1\nR2 b a 2\nR3 a b 3\nRg b 0 1").plot("graph")
    middles = [line.mean(axis=0) for line in one(figure, "elements").get_segments()[:3]]  # type: ignore[attr-defined]
    assert len({tuple(np.round(m, 3)) for m in middles}) == 3


def test_what_is_left_out_or_not_unique_is_marked() -> None:
    text = "island\nV1 a 0 1\nR1 a 0 1\nI1 0 b 1\nR2 c d 1\nR3 d c 1"
    figure = cs.solve(cs.parse(text), cs.Settings(lenient=True)).plot("graph")
    v = values(one(figure, "nodes"))
    assert np.isnan(v).tolist() == [False, True, False, False]  # a, b, c, d
    assert len(one(figure, "not unique").get_offsets()) == 2
    assert {"left out", "voltage not unique"} <= set(texts(figure))
    saved(figure)


def test_a_row_of_a_batch() -> None:
    circuit = cs.parse(gallery.divider().text).with_values({"V1": np.array([1.0, 4.0])})
    solution = cs.solve(circuit)
    assert values(one(solution.plot(row=1), "nodes")) == pytest.approx([4, 2])
    with pytest.raises(cs.SettingsError, match="no row 2: the batch has 2"):
        solution.plot(row=2)


def test_a_picture_of_what_is_not_solved_says_so() -> None:
    circuit = cs.parse(gallery.ladder(50).text)
    solution = cs.solve(circuit, cs.Settings(method="bcd", max_sweeps=1), raise_on_failure=False)
    assert not solution.solved
    assert any("not solved" in text for text in texts(solution.plot("graph")))


def test_voltages_that_are_not_known_are_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = cs.parse("t\nV1 a 0 1\nR1 a b 1\nR2 c 0 1\nD1 b c di\n.model di D(ron=0)")
    refused = cs.solve(circuit, cs.Settings(method="bcd"), raise_on_failure=False)
    figure = refused.plot()
    assert np.isnan(values(one(figure, "nodes"))).tolist() == [False, True, True]
    assert not any("nan" in text.split() for text in texts(figure))
    monkeypatch.setattr(graph, "MOST_NODES", 1)
    assert np.isfinite(image(refused.plot(), "voltage map")).sum() == 1


# -- large circuits ----------------------------------------------------------------------------------------------------


def test_a_large_circuit_is_aggregated() -> None:
    n = 60
    solution = solved(gallery.current_grid(n, 50))
    figure = solution.plot()
    v = solution.voltages()[0, 1:]
    shown = image(figure, "voltage map")
    assert max(shown.shape) <= 180 and np.isfinite(shown).sum() <= n * n
    assert np.nanmin(shown) >= v.min() and np.nanmax(shown) <= v.max()
    assert sum(bar.get_height() for bar in found(figure, "voltages")) == v.size
    assert "mean voltage: 3,600 nodes in" in " ".join(texts(figure))
    assert np.isfinite(image(figure, "current map")).any()


def test_the_mean_of_a_cell_is_that_of_its_nodes() -> None:
    at = np.array([[0.1, 0.1], [0.2, 0.3], [0.9, 0.9], [0.6, 0.1]])
    low, high, shape = np.zeros(2), np.ones(2), np.array([2, 2])
    mean = field._means(at, np.array([1.0, 3.0, 5.0, np.nan]), low, high, shape)
    assert np.array_equal(mean, [[2.0, np.nan], [np.nan, 5.0]], equal_nan=True)


def test_the_flow_of_a_sheet_goes_from_one_edge_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MOST_NODES", 10)
    n = 30
    lines = [f"Rh{i}[1:{n - 1}] n{i}[0:{n - 2}] n{i}[1:{n - 1}] 1k" for i in range(n)]
    lines += [f"Rv{i}[0:{n - 1}] n{i - 1}[0:{n - 1}] n{i}[0:{n - 1}] 1k" for i in range(1, n)]
    lines += [f"Va{i} n{i}[0] 0 1\nVb{i} n{i}[{n - 1}] 0 0" for i in range(n)]
    [quiver] = found(solved("\n".join(["sheet", *lines])).plot(), "flow")
    assert (quiver.U > 0).all()  # the left edge is at the higher voltage
    assert np.abs(quiver.V).max() < 1e-6 * quiver.U.max()


def test_the_same_solution_gives_the_same_picture(tmp_path: Path) -> None:
    from circuitsim.io.pictures import write_picture

    for kind in ("png", "svg", "pdf"):
        written = []
        for k in range(2):
            path = tmp_path / f"{k}.{kind}"
            write_picture(cs.solve(cs.load(NETLISTS / "bridge_rectifier.cir")).plot("graph"), path, dpi=50)
            written.append(path.read_bytes())
        assert written[0] == written[1]


# -- crossbars ---------------------------------------------------------------------------------------------------------


def test_maps_of_a_crossbar_are_its_values() -> None:
    solution = cs.solve(cs.load(NETLISTS / "crossbar_4x4.cir"))
    figure = solution.plot()
    g = solution.circuit.crossbars[0].g
    there = np.where(g > 0, 1.0, np.nan)
    assert image(figure, "Rmem: conductance") == pytest.approx(g * there, nan_ok=True)
    assert image(figure, "Rmem: current, row to column") == pytest.approx(
        solution.current("Rmem")[0] * there, nan_ok=True
    )
    assert image(figure, "Rmem: power") == pytest.approx(solution.power("Rmem")[0] * there, nan_ok=True)
    rows = np.broadcast_to(solution.voltage("row[0:3]").T, (4, 4))
    assert image(figure, "Rmem: voltage of the row wires") == pytest.approx(rows)
    assert {"conductance (µS)", "current (µA)", "power (µW)"} <= set(texts(figure))


def conductances(circuit: cs.Circuit, n: int) -> NDArray[np.float64]:
    """Those of the cells of gallery.wired_crossbar."""
    g = circuit.element_values("R")
    return np.array([[g[circuit.netlist.find(f"Rcell{i}[{j}]")[1]] for j in range(n)] for i in range(n)])


def test_wires_of_a_crossbar_are_named_without_the_brackets_of_their_nodes() -> None:
    deck = "t\nV1 in 0 1\n" + "".join(f"Rin{k} in w[{k}][0] 1\nRout{k} b[4][{k}] 0 1\n" for k in range(5))
    for i in range(5):
        deck += "".join(f"Rc{i}_{j} w[{i}][{j}] b[{i}][{j}] 1k\n" for j in range(5))
        deck += "".join(f"Rw{i}_{j} w[{i}][{j}] w[{i}][{j + 1}] 1\n" for j in range(4))
        deck += "".join(f"Rb{i}_{j} b[{j}][{i}] b[{j + 1}][{i}] 1\n" for j in range(4))
    solution = solved(deck)
    [found] = crossbars.find_maps(solution, 0, Shapes(solution.circuit))
    assert (found.name, found.shape) == ("w x b", (5, 5))


@pytest.mark.parametrize("cell", ["resistor", "diode", "ideal"])
def test_maps_of_a_crossbar_with_wires(cell: str) -> None:
    n = 5
    solution = solved(gallery.wired_crossbar(n, cell, wire=100.0))
    figure = solution.plot()
    [map_] = crossbars.find_maps(solution, 0, Shapes(solution.circuit))
    assert (map_.name, map_.shape) == ("a x b", (n, n))
    assert map_.g == pytest.approx(conductances(solution.circuit, n))
    current = np.array([solution.current(f"Rcell{i}")[0] for i in range(n)])
    assert map_.current == pytest.approx(current, abs=1e-18)
    power = np.array([solution.power(f"Rcell{i}")[0] for i in range(n)])
    if cell != "resistor":
        power = power + np.array([solution.power(f"D{i}")[0] for i in range(n)])
    assert map_.power == pytest.approx(power, abs=1e-18)
    a = np.array([solution.voltage(f"a{i}[0:{n - 1}]")[0] for i in range(n)])
    b = np.array([solution.voltage(f"b{i}[0:{n - 1}]")[0] for i in range(n)])
    assert image(figure, "a x b: lost in the wires") == pytest.approx(a[:, :1] - a + b - b[-1:], abs=1e-15)


def test_cells_of_two_resistors_in_series_have_the_conductance_of_both() -> None:
    text = gallery.wired_crossbar(5, "diode", wire=100.0)
    series = re.sub(r"(?m)^D(\S+ \S+ \S+) \S+$", r"Rs\1 3k", text)
    assert series.count("3k") == 5
    solution = solved(series)
    [map_] = crossbars.find_maps(solution, 0, Shapes(solution.circuit))
    ohms = np.array([[1.0 / x for x in row] for row in conductances(solution.circuit, 5)]) + 3e3
    assert map_.g == pytest.approx(1.0 / ohms)


def test_blocks_of_a_large_crossbar_are_means(monkeypatch: pytest.MonkeyPatch) -> None:
    solution = solved(gallery.drn([7, 9]))
    whole = crossbars.find_maps(solution, 0, Shapes(solution.circuit))[0]
    monkeypatch.setattr(crossbars, "MOST_LINES", 3)
    monkeypatch.setattr(heat, "_AT_ONCE", 20)
    part = crossbars.find_maps(solution, 0, Shapes(solution.circuit))[0]
    assert (part.block, part.g.shape) == ((3, 3), (3, 3))
    for name in ("g", "current", "power"):
        fine, coarse = getattr(whole, name), getattr(part, name)
        for i in range(3):
            for j in range(3):
                assert coarse[i, j] == pytest.approx(fine[3 * i : 3 * i + 3, 3 * j : 3 * j + 3].mean())
    assert part.row_volts[2, 0] == pytest.approx(whole.row_volts[6, 0])
    assert "means of 3 x 3" in " ".join(texts(solution.plot("crossbar")))


def test_a_small_crossbar_within_something_else_does_not_decide() -> None:
    text = gallery.ladder(12).text + "\nRX[0:1][0:1] n[1:2] n[8:9] 1k"
    assert found(solved(text).plot(), "nodes") and not solved(text).plot().findobj(AxesImage)
    assert image(solved(text).plot("crossbar"), "RX: conductance") == pytest.approx(np.full((2, 2), 1e-3))


def test_several_crossbars_are_lines_of_maps() -> None:
    figure = solved(gallery.drn([4, 3, 3, 3, 3, 2])).plot("crossbar")
    assert len(figure.findobj(AxesImage)) == 12
    assert "1 more crossbars are not shown" in " ".join(texts(figure))


# -- layers ------------------------------------------------------------------------------------------------------------


def test_a_layered_network_shows_its_digit_its_layers_and_its_outputs() -> None:
    solution = cs.solve(cs.load(NETLISTS / "drn_xs.cir"))
    figure = solution.plot()
    digit, hidden = (values(a) for a in found(figure, "voltages") if isinstance(a, AxesImage))
    assert np.array_equal(digit, solution.voltage("x[0:783]")[0].reshape(28, 28))
    assert np.array_equal(hidden, solution.voltage("h[0:99]")[0].reshape(10, 10))
    bars = [a for a in found(figure, "voltages") if isinstance(a, Rectangle)]
    y = solution.voltage("y[0:9]")[0]
    assert [bar.get_width() for bar in bars] == pytest.approx(y.tolist())
    marked = [k for k, bar in enumerate(bars) if bar.get_facecolor() != bars[int(y.argmin())].get_facecolor()]
    assert marked == [int(y.argmax())]
    conduct = int(conducting(solution, 0).sum())
    assert f"{conduct} of 100 diodes conduct" in " ".join(texts(figure))


def test_wide_layers_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_MOST_SIDE", 6)
    v = np.random.default_rng(0).normal(size=(11, 11))
    figure = style.new_figure(4, 4)
    layers._show(figure, figure.add_subplot(), v)
    shown = image(figure, "voltages")
    assert shown.shape == (6, 6)
    assert shown[2, 3] == pytest.approx(v[4:6, 6:8].mean())
    assert shown[5, 5] == pytest.approx(v[10, 10])


# -- sweeps ------------------------------------------------------------------------------------------------------------


def curves_of(axes: Axes) -> dict[str, NDArray[np.float64]]:
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.get_lines() if len(line.get_xydata())}


def test_a_sweep_is_a_curve_for_each_output() -> None:
    circuit = cs.parse(SWEPT)
    figure = cs.sweep(circuit, circuit.netlist.analyses[0]).plot()
    [axes] = figure.axes
    [(name, points)] = curves_of(axes).items()
    assert name == "v(out)"
    assert points == pytest.approx(np.array([[0, 0], [0.5, 0.25], [1, 0.5], [1.5, 0.75], [2, 1]]))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("V1 (V)", "voltage (V)")


def test_what_is_saved_has_axes_of_its_own_unit() -> None:
    circuit = cs.parse(SWEPT.replace(".output out", ".save i(R1) @R2[p]"))
    figure = cs.sweep(circuit, "V1 0 2 1", saves=wanted(circuit)).plot()
    labels = {axes.get_ylabel(): curves_of(axes) for axes in figure.axes}
    assert labels["current (mA)"]["i(R1)"][:, 1] == pytest.approx([0, 5e-4, 1e-3])
    assert labels["power (mW)"]["@R2[p]"][:, 1] == pytest.approx([0, 2.5e-4, 1e-3])


def wanted(circuit: cs.Circuit) -> list:
    from circuitsim.saved import wanted_saves

    return wanted_saves(circuit, ())


def test_of_many_curves_those_that_vary_most() -> None:
    circuit = cs.parse(gallery.ladder(20).text)
    figure = cs.sweep(circuit, "V1 0 1 0.5").plot()
    shown = curves_of(figure.axes[0])
    assert list(shown) == [f"v(n[{k}])" for k in range(8)]
    assert figure.axes[0].get_title() == "the 8 of 21 that vary most"
    assert any(label.get_label() == "range of all 21" for label in figure.axes[0].collections)


def test_a_second_swept_quantity_is_a_family() -> None:
    circuit = cs.parse(SWEPT)
    result = cs.sweep(circuit, "V1 0 2 1 R2 1k 3k 2k")
    figure = result.plot()
    lines = figure.axes[0].collections[0].get_segments()  # type: ignore[attr-defined]
    assert lines[1] == pytest.approx(np.array([[0, 0], [1, 0.75], [2, 1.5]]))
    assert {"R2 = 1000 Ω", "R2 = 3000 Ω"} <= set(texts(figure))
    many = cs.sweep(circuit, "V1 0 2 1 R2 1k 10k 1k").plot()
    assert len(many.axes[0].collections[0].get_segments()) == 10  # type: ignore[attr-defined]
    assert many.findobj(QuadMesh)  # a colour bar


def test_failed_points_are_left_out_and_counted() -> None:
    circuit = cs.parse("blocked\nI1 0 a 1m\nD1 a 0 dm\n.model dm D(is=1e-12)\n.dc I1 -1m 1m 1m")
    figure = cs.sweep(circuit, circuit.netlist.analyses[0]).plot()
    assert "1 of 3 points failed" in " ".join(texts(figure))
    assert np.isnan(curves_of(figure.axes[0])["v(a)"][0, 1])


def test_histograms_hold_every_run_their_mean_and_spread() -> None:
    result = cs.monte_carlo(cs.load(NETLISTS / "monte_carlo.cir"), 50, seed=1)
    figure = result.plot()
    axes = {a.get_xlabel(): a for a in figure.axes}
    own = axes["v(j1) (V)"]
    v = result.voltage("j1")
    bars = [p for p in own.patches if p.get_gid() == "runs"]
    assert sum(bar.get_height() for bar in bars) == 50
    [mean] = [line for line in own.get_lines() if line.get_gid() == "mean"]
    assert mean.get_xdata()[0] == pytest.approx(v.mean())
    [spread] = [p for p in own.patches if p.get_gid() == "spread"]
    assert (spread.get_x(), spread.get_width()) == pytest.approx((v.mean() - v.std(ddof=1), 2 * v.std(ddof=1)))
    assert "v(in) (V)" not in axes and "1 that no draw changes" in " ".join(texts(figure))


def test_many_histograms_are_summed_up() -> None:
    text = "random\nV1 a 0 1\nR[0:19] a b[0:19] {agauss(1k, 100, 1)}\nRg[0:19] b[0:19] 0 1k"
    result = cs.monte_carlo(cs.parse(text), 20, seed=1)
    figure = result.plot()
    last = figure.axes[-1]
    [mean] = last.get_lines()
    assert mean.get_ydata() == pytest.approx(result.voltages[:, 2:].mean(axis=0))
    assert len(figure.axes) == 7


def test_what_is_saved_is_drawn_before_what_varies_more(tmp_path: Path) -> None:
    deck = tmp_path / "random.cir"
    text = "random\nV1 a 0 1\nR[0:19] a b[0:19] {agauss(1k, 100, 1)}\nRg[0:19] b[0:19] 0 1k\n.output b[0:19]\n"
    deck.write_text(text)
    circuit = cs.load(deck)

    def drawn(*saves: str) -> list[str]:
        figure = cs.monte_carlo(circuit, 20, seed=1, saves=saves).plot()
        assert len(figure.axes) == 7  # the last has the mean of all of the most frequent unit, or the first such
        assert ("current" in figure.axes[-1].get_ylabel()) == ("i(R)" in saves)
        return [axes.get_xlabel().split()[0] for axes in figure.axes[:-1]]

    widest = drawn()
    assert all(name.startswith("v(b[") for name in widest)
    few = drawn("i(R[3])", "v(a,b[0])")
    assert few[:2] == ["i(R[3])", "v(a,b[0])"] and set(few[2:]) < set(widest)
    assert all(name.startswith("i(R[") for name in drawn("i(R)"))
    units = [name[0] for name in drawn("i(R)", "@R[p]")]
    assert units.count("i") == units.count("@") == 3
    figure = cs.sweep(circuit, "V1 0 1 0.5", saves=["v(b[7])"]).plot()
    assert "v(b[7])" in curves_of(figure.axes[0])
    assert figure.axes[0].get_title() == "the 8 of 20 saved, or that vary most"
    family = cs.sweep(circuit, "V1 0 1 0.5 Rg[3] 1k 2k 1k", saves=["i(Rg[3])"]).plot()
    assert [axes.get_ylabel().split()[0] for axes in family.axes] == ["v(b[3])", "i(Rg[3])"]


def test_no_draws_nothing_to_see() -> None:
    figure = cs.monte_carlo(cs.parse(gallery.divider().text), 3).plot()
    assert "no draw changes anything" in " ".join(texts(figure))


# -- training ----------------------------------------------------------------------------------------------------------

ROWS = [Row(1, 100, 0.5, 12.5, 13.25, 0.6, 1.0), Row(2, 200, 0.25, 6.0, 7.5, 0.4, 2.0)]


def test_metrics_have_the_columns_that_are_drawn() -> None:
    assert set(curves.COLUMNS) <= set(COLUMNS)


def test_training_curves_are_the_metrics(tmp_path: Path) -> None:
    write_metrics(ROWS, tmp_path / "metrics.csv")
    runs = {"one": curves.read_curves(tmp_path), "two": curves.read_curves(tmp_path / "metrics.csv")}
    figure = curves.draw(runs, "t", {"test": 3.46})
    errors, cost = figure.axes
    assert curves_of(errors)["one: test, last 7.50 %"].tolist() == [[1, 13.25], [2, 7.5]]
    assert curves_of(errors)["two: train, last 6.00 %"].tolist() == [[1, 12.5], [2, 6.0]]
    assert curves_of(errors)["expected test error"][0, 1] == 3.46
    assert curves_of(cost)["one: train, last 0.25 V²"].tolist() == [[1, 0.5], [2, 0.25]]
    assert curves_of(cost)["two: test, last 0.4 V²"].tolist() == [[1, 0.6], [2, 0.4]]


def test_training_curves_without_classes_are_costs_alone() -> None:
    """One output: its errors are no numbers. The file of an earlier version has no test cost."""
    nothing = [np.nan, np.nan]
    one = {"epoch": [1.0, 2.0], "train_cost": [0.5, 0.25], "train_error": nothing, "test_error": nothing}
    (cost,) = curves.draw({"one": {**one, "test_cost": [0.6, 0.4]}}, "t").axes
    assert set(curves_of(cost)) == {"test, last 0.4 V²", "train, last 0.25 V²"}
    (cost,) = curves.draw({"one": one}, "t").axes
    assert set(curves_of(cost)) == {"train, last 0.25 V²"}


# -- colours and units -------------------------------------------------------------------------------------------------


def test_colours_of_one_sign_and_of_both() -> None:
    cmap, norm = style.value_colours([0.0, 5.0, np.nan])
    assert (cmap.name, norm.vmin, norm.vmax) == ("cividis", 0.0, 5.0)
    cmap, norm = style.value_colours([-2.0, 5.0])
    assert (cmap.name, norm.vmin, norm.vmax) == ("PuOr", -5.0, 5.0)
    for values in ([], [0.0], [3.0, 3.0], [-3.0], [np.nan], [1e308, 1e300]):
        _, norm = style.value_colours(values)
        assert norm.vmin < norm.vmax


def test_lightness_of_the_colours_is_monotone() -> None:
    """What is larger is never told by its hue alone."""
    cmap, _ = style.value_colours([0.0, 1.0])
    for colours in (cmap(np.linspace(0, 1, 50)), style.strengths()(np.linspace(0, 1, 50))):
        steps = np.diff(colours[:, :3] @ [0.2126, 0.7152, 0.0722])
        assert (steps > 0).all() or (steps < 0).all()


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 V"), (1e-3, "1 mV"), (999.6, "1e+03 V"), (-2.5e4, "-25 kV"), (1e-40, "1e-40 V")]
)
def test_quantities(value: float, text: str) -> None:
    assert style.quantity(value, "V") == text


@pytest.mark.parametrize(
    "volts", ["1e-9", *(pytest.param(volts, marks=pytest.mark.slow) for volts in ("1e9", "1e-300")), "-1e149"]
)
def test_axes_bear_any_magnitude(volts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    solution = solved(f"t\nV1 a 0 {volts}\nR1 a b 1k\nR2 b 0 1k")
    for most in (graph.MOST_NODES, 1):
        monkeypatch.setattr(graph, "MOST_NODES", most)
        figure = solution.plot()
        assert len(saved(figure)) > 1000
        for axes in figure.axes:
            assert np.isfinite([*axes.get_xlim(), *axes.get_ylim()]).all()
        shown = " ".join(text.get_text() for text in figure.findobj(Text))
        assert most == 1 or style.quantity(float(volts), "V") in shown


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with decks and a training run, to work in."""
    monkeypatch.chdir(tmp_path)
    decks = {
        "plain": SWEPT.replace(".dc", "*"),
        "swept": SWEPT,
        "two": SWEPT + "\n.dc V1 0 1 1",
        "wrong": "t\nQ1 a b c",
    }
    decks["random"] = "random\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {agauss(1k, 100, 1)}"
    decks["blocked"] = "blocked\nI1 0 a 1m\nD1 a 0 dm\n.model dm D(is=1e-12)\n.dc I1 -1m 1m 1m"
    for name, text in decks.items():
        Path(f"{name}.cir").write_text(text)
    for name in ("run1", "run2"):
        Path(name).mkdir()
        write_metrics(ROWS, Path(name, "metrics.csv"))
    return tmp_path


def run(arguments: str) -> Result:
    result = CliRunner().invoke(cli.main, ["plot", *arguments.split()])
    assert result.exit_code != DEFECT, result.stderr
    return result


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", some_slow(["o.png", "o.svg", "o.PDF"], 1))
@pytest.mark.parametrize(
    "arguments",
    [
        "plain.cir", "plain.cir --input V1=3", "swept.cir", "swept.cir --kind graph", "plain.cir --dc V1@0@1@0.5",
        "random.cir --runs 5 --seed 3", "run1", "run1/metrics.csv run2 --kind training",
    ],
)  # fmt: skip
def test_the_command_draws_what_suits(arguments: str, name: str) -> None:
    words = [word.replace("@", " ") for word in arguments.split()]
    result = CliRunner().invoke(cli.main, ["plot", *words, "-o", name])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    begin = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[name[2:].lower()]
    assert Path(name).read_bytes().startswith(begin)


@pytest.mark.usefixtures("folder")
def test_points_that_fail_are_told_beside_the_picture() -> None:
    result = run("blocked.cir -o o.png")
    assert (result.exit_code, "1 of 3 points failed; the first, I1 = -0.001" in result.stderr) == (3, True)
    assert Path("o.png").exists()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("plain.cir -o o.gif", "--output o.gif: the name must end in .png, .pdf or .svg"),
        ("plain.cir -o missing/o.png", "cannot write missing/o.png: there is no folder missing"),
        ("plain.cir -o run1.png/o.png", "cannot write"),
        ("plain.cir -o folder.png", "cannot write folder.png: it exists and is not a regular file"),
        ("plain.cir", "Missing option '--output'"),
        ("plain.cir -o o.png --kind crossbar", "no crossbar in this circuit"),
        ("plain.cir -o o.png --kind layers", "this circuit has no layers"),
        ("plain.cir -o o.png --kind sweep", "plain.cir has no .dc card"),
        ("plain.cir -o o.png --kind histogram", "add --runs"),
        ("plain.cir -o o.png --kind training", "plain.cir: no column 'epoch'"),
        ("run1 -o o.png --kind graph", "run1 is a training run, not a netlist"),
        ("run1 -o o.png --runs 3", "--runs is for netlists"),
        ("plain.cir swept.cir -o o.png", "several FILEs are for training runs"),
        ("two.cir -o o.png", "two.cir has 2 .dc cards; choose one"),
        ("plain.cir -o o.png --row 1", "no row 1: the batch has 1"),
        ("plain.cir -o o.png --input V2=1", "no element 'V2'"),
        ("plain.cir -o o.png --seed 1", "--seed is for --runs"),
        ("random.cir -o o.png --runs 3 --dc V1", "exclude each other"),
        ("random.cir -o o.png --runs 3 --input V1=3", "--input is for the operating point"),
        ("wrong.cir -o o.png", "transistors (Q) are not supported"),
        ("none.cir -o o.png", "none.cir"),
    ],
)
def test_bad_input_is_told_and_leaves_nothing(arguments: str, text: str) -> None:
    Path("folder.png").mkdir()
    before = sorted(Path().iterdir())
    result = run(arguments)
    assert (result.exit_code, text in result.stderr) == (2, True), result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(Path().iterdir()) == before


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "no column 'epoch'|no epoch"),
        (",".join(COLUMNS), "no epoch in it yet"),
        (",".join(COLUMNS) + "\n1,2,x,4,5,6", "not the metrics of a training run"),
        (",".join(COLUMNS) + "\n1,2", "not the metrics of a training run"),
        ("\0", "metrics.csv"),
    ],
)
def test_metrics_that_are_none_are_refused(content: str, text: str) -> None:
    Path("run1/metrics.csv").write_text(content)
    result = run("run1 -o o.png")
    assert result.exit_code == 2 and any(part in result.stderr for part in text.split("|")), result.stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("deep", ["", "recipe/"])
def test_the_folder_of_a_study_is_told_from_that_of_a_run(deep: str) -> None:
    Path(f"study/{deep}seed1").mkdir(parents=True)
    assert "name their folders" not in run("study -o o.png").stderr
    write_metrics(ROWS, Path(f"study/{deep}seed1/metrics.csv"))
    result = run("study -o o.png")
    assert result.exit_code == 2
    assert f"there are runs in it: name their folders, study/{deep}seed1 ..." in result.stderr


@pytest.mark.usefixtures("folder")
def test_without_matplotlib_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("plain.cir -o o.png")
    assert (result.exit_code, "pip install 'circuitsim[plot]'" in result.stderr) == (2, True)
    with pytest.raises(cs.BackendUnavailable, match="pip install"):
        solved(SWEPT).plot()
    assert not Path("o.png").exists()


@pytest.mark.usefixtures("folder")
def test_a_picture_is_written_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("o.png").write_bytes(b"before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    result = run("plain.cir -o o.png")
    assert (result.exit_code, "No space left" in result.stderr) == (2, True)
    assert Path("o.png").read_bytes() == b"before"
