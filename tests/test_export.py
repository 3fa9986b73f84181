"""Circuits written back as netlists: the text, and that it reads back to the same circuit, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from growth import LIMIT, exponent
from helpers import PRECISE
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

import circuitsim as cs
from circuitsim import gallery
from circuitsim.branches import Branches
from circuitsim.circuit import Circuit
from circuitsim.gallery import Recipe, random_circuit
from circuitsim.netlist import Netlist
from circuitsim.netlist.model import KINDS, Swept
from circuitsim.saved import Saved, wanted_saves
from circuitsim.spice.export import export

NETLISTS = Path(__file__).parent.parent / "netlists"
TOO_BIG = {"drn_2h", "drn_3h", "drn_xl"}
DECKS = [p for p in sorted([*NETLISTS.glob("*.cir"), *(NETLISTS / "valid").glob("*.cir")]) if p.stem not in TOO_BIG]
VALUES = {
    "conductors": "g", "ties": "e", "current_sources": "i", "junctions": "params", "ideal_diodes": "vf",
    "controlled": "gain",
}  # fmt: skip


def again(circuit: Circuit, folder: Path, *remarks: str) -> Circuit:
    """The circuit after a round trip through files."""
    export(circuit, folder / "again.cir", remarks)
    return cs.load(folder / "again.cir")


def text_of(circuit: Circuit, folder: Path, *remarks: str) -> str:
    export(circuit, folder / "again.cir", remarks)
    return (folder / "again.cir").read_text()


def cards_of(circuit: Circuit, folder: Path) -> list[str]:
    """The lines between the title and `.op`, without comments and blank lines."""
    lines = text_of(circuit, folder).splitlines()[1:-2]
    return [line for line in lines if line and line[0] != "*"]


def bits(values: NDArray) -> NDArray[np.int64]:
    return np.ascontiguousarray(values, np.float64).view(np.int64)


def assert_same_bits(found: NDArray, wanted: NDArray, what: str = "") -> None:
    np.testing.assert_array_equal(bits(found), bits(wanted), err_msg=what, strict=True)


def in_order(branches: Branches) -> NDArray[np.int64]:
    """Branches by element: diodes of models that an export has merged stand in another order."""
    return np.lexsort((branches.a, branches.row, branches.kind))


def models_of_elements(netlist: Netlist) -> list[tuple[str, dict[str, float], frozenset[str], tuple[float, ...]]]:
    rows = [row for kind in "DN" for row in netlist.tables[kind].values["model"].astype(int).tolist()]
    models = [netlist.models[k] for k in rows]
    return [(m.type, dict(m.params), m.flags, m.points) for m in models]


def sweeps(netlist: Netlist) -> list[tuple[Swept, ...]]:
    """Those of .dc cards, but of parameters."""
    return [a.sweeps for a in netlist.analyses if a.kind == "dc" and not any(s.kind == "param" for s in a.sweeps)]


def assert_same(found: Circuit, wanted: Circuit, values_changed: bool = False) -> None:
    """The same nodes, elements, arrays, roles and options, and the same values to the last bit."""
    one, other = found.netlist, wanted.netlist
    assert one.nodes == other.nodes
    assert one.title == other.title
    for kind in KINDS:
        table, model = one.tables[kind], other.tables[kind]
        assert table.names == model.names
        np.testing.assert_array_equal(table.a, model.a)
        np.testing.assert_array_equal(table.b, model.b)
        assert table.links.keys() == model.links.keys()
        for column, nodes_or_sources in table.links.items():
            np.testing.assert_array_equal(nodes_or_sources, model.links[column])
        for column in table.values.keys() - {"model"}:
            if not values_changed or kind in "DN":
                assert_same_bits(table.values[column], model.values[column], f"{kind} {column}")
    assert models_of_elements(one) == models_of_elements(other)
    assert one.arrays == other.arrays
    assert [x.ranges for x in one.crossbars] == [x.ranges for x in other.crossbars]
    assert (one.inputs, one.outputs, one.references, one.trained, one.saves) == (
        other.inputs, other.outputs, other.references, other.trained, other.saves
    )  # fmt: skip
    assert one.options == replace(other.options, scale=1.0)
    assert sweeps(one) == sweeps(other)
    for group, column in VALUES.items():
        mine, its = getattr(found, group), getattr(wanted, group)
        a, b = in_order(mine), in_order(its)
        for field in ("a", "b", "kind", "row"):
            np.testing.assert_array_equal(getattr(mine, field)[a], getattr(its, field)[b], group)
        by_branch = (..., a) if group in ("ties", "current_sources") else a
        by_its = (..., b) if group in ("ties", "current_sources") else b
        assert_same_bits(getattr(mine, column)[by_branch], getattr(its, column)[by_its], group)
    np.testing.assert_array_equal(
        found.junctions.law[in_order(found.junctions)], wanted.junctions.law[in_order(wanted.junctions)]
    )
    assert [x.name for x in found.crossbars] == [x.name for x in wanted.crossbars]
    for x, y in zip(found.crossbars, wanted.crossbars, strict=True):
        np.testing.assert_array_equal(x.rows, y.rows)
        np.testing.assert_array_equal(x.cols, y.cols)
        assert_same_bits(x.g, y.g, x.name)


def assert_same_solution(found: Circuit, wanted: Circuit) -> None:
    v = cs.solve(wanted, PRECISE).voltages()
    np.testing.assert_allclose(cs.solve(found, PRECISE).voltages(), v, rtol=1e-9, atol=1e-12 * np.abs(v).max())


@pytest.mark.parametrize("path", DECKS, ids=lambda p: p.stem)
def test_a_deck_reads_back_to_the_same_circuit(path: Path, tmp_path: Path) -> None:
    circuit = cs.load(path)
    back = again(circuit, tmp_path)
    assert_same(back, circuit)
    assert_same_solution(back, circuit)


# -- the text ----------------------------------------------------------------------------------------------------------


def test_text_of_a_deep_resistive_network(tmp_path: Path) -> None:
    export(cs.load(NETLISTS / "drn_xs.cir"), tmp_path / "trained.cir", ["drn_xs, epoch 3", "seed 1\nerror 4 %"])
    assert (
        (tmp_path / "trained.cir").read_text()
        == """Deep resistive network 1568-100-10: an MNIST classifier made of resistors, diodes and sources
* drn_xs, epoch 3
* seed 1
* error 4 %
* trained.npz holds values of arrays: sources in V and A, g= in S, other resistors in ohm
.options seed=1
.model ideal D(ron=0)

Vx[0:1567] x[0:1567] 0 @trained.npz:Vx
RW1[0:1567][0:99] x[0:1567] h[0:99] g=@trained.npz:RW1
RW2[0:99][0:9] h[0:99] y[0:9] g=@trained.npz:RW2
Ib1[0:99] 0 h[0:99] 0
Ib2[0:9] 0 y[0:9] 0
Dexc[0:49] 0 h[0:49] ideal
Dinh[0:49] h[50:99] 0 ideal

.input Vx
.output y[0:9]
.train RW1 Ib1 RW2 Ib2
.op
.end
"""
    )
    with np.load(tmp_path / "trained.npz", allow_pickle=False) as arrays:
        assert {key: (a.dtype.str, a.shape) for key, a in arrays.items()} == {
            "Vx": ("<f8", (1568,)), "RW1": ("<f8", (1568, 100)), "RW2": ("<f8", (100, 10))
        }  # fmt: skip


def test_text_of_one_of_everything(tmp_path: Path) -> None:
    (tmp_path / "g.npy").write_bytes(b"")
    np.save(tmp_path / "g.npy", np.array([1e-3, 0.0]))
    deck = tmp_path / "small.cir"
    deck.write_text("""Small
.options temp=50 gmin=1e-14 rshunt=1G scale=1m seed=7 tnom=25
.param g=2m
.model Ideal D(ideal)
.model sheet R(rsh=50 r=7)
.model dd D(is=1e-12 n=1.5)
.subckt pair a b
.model dd D(is=1e-13 bv=5 ibv=2m tnom=30)
R1 a m sheet l=25m w=1m
D1 m b dd m=2
.ends
Vx[0:1] x[0:1] 0 {1+2}
RW[0:1][0:1] x[0:1] h[3:2] g={g}
RF[0:1] x[0:1] h[3] g=@g.npy
RO h[3] 0 0
RI h[2] 0 inf
L1 h[2] out 1u
K1 L1 L1 0.5
C1 out 0 1u
I1 0 out 0.1m
X1 out 0 pair
X2 out 0 pair
D2 out 0 dd temp=60 area=3
Dc[0:2] 0 h[2:4] ideal m=1.5
.input Vx
.output out h[2:3] h[4] h[4] x[1] x[0]
.train RF I1 RW
.save v(out) i(Vx[0])
.print op v(x[0])
.op
""")
    circuit = cs.load(deck)
    assert (
        text_of(circuit, tmp_path)
        == """Small
* model dd_2 stands for one of the models dd
* again.npz holds values of arrays: sources in V and A, g= in S, other resistors in ohm
* L and C are shorts and opens at DC: their values do not matter, and are 0 here
.options temp=50 tnom=25 gmin=1e-14 rshunt=1000000000 seed=7
.model dd D(is=1e-13 bv=5 ibv=0.002 tnom=30)
.model dd_2 D(is=1e-12 n=1.5)
.model Ideal D(ideal)

Vx[0:1] x[0:1] 0 3
RW[0:1][0:1] x[0:1] h[3:2] g=0.002
RF[0:1] x[0:1] h[3] g=@again.npz:RF
RO h[3] 0 0
RI h[2] 0 inf
L1 h[2] out 0
C1 out 0 0
I1 0 out 0.0001
R.X1.R1 out X1.m 1250
D.X1.D1 X1.m 0 dd m=2
R.X2.R1 out X2.m 1250
D.X2.D1 X2.m 0 dd m=2
D2 out 0 dd_2 area=3 temp=60
Dc[0:2] 0 h[2:4] Ideal m=1.5

.input Vx
.output out h[2:4] h[4] x[1:0]
.train RF I1 RW
.save v(out) i(Vx[0]) v(x[0])
.op
.end
"""
    )
    assert_same(cs.load(tmp_path / "again.cir"), circuit)


@pytest.mark.parametrize("title", ["", "R9 a title", "+ plus", "* star", ".end", "ends in \\\\", "é, 100 %"])
def test_the_title_stays_whatever_it_says(title: str, tmp_path: Path) -> None:
    circuit = cs.parse(f"{title}\nV1 a 0 1\nR1 a 0 1k")
    back = again(circuit, tmp_path, "a remark", "")
    assert_same(back, circuit)
    assert (tmp_path / "again.cir").read_text().splitlines()[:3] == [title, "* a remark", "* "]


def test_long_lists_are_wrapped(tmp_path: Path) -> None:
    lines = [f"R{k} a node_{k} 1k\nRg{k} node_{k} 0 2k" for k in range(60)]
    names = [f"node_{k}" for k in range(60)]
    roles = [f".output {' '.join(names)}", ".train " + " ".join(f"R{k} Rg{k}" for k in range(60))]
    circuit = cs.parse("\n".join(["t", "V1 a 0 1", *lines, *roles]))
    text = text_of(circuit, tmp_path)
    assert max(map(len, text.splitlines())) <= 130
    assert_same(cs.load(tmp_path / "again.cir"), circuit)


def test_a_deck_with_subcircuits_keeps_the_numbers_of_its_nodes(tmp_path: Path) -> None:
    circuit = cs.parse("""t
.subckt late a b
R1 c b 1
D1 a c dm
V1[0:1] d[0:1] c 1
RX[0:1][0:1] d[0:1] e[0:1] 1
R2 f b 1
.ends
.model dm D(is=1e-9)
I1 0 p 1
D1 q 0 dm
X1 p r late
R1 s q 1
X2 s t late
R2 t 0 1
C1 u t 1
.subckt early a
C1 a b 1
R1 b c 1
.ends
X3 q early
R3 0 r 1
""")
    assert_same(again(circuit, tmp_path), circuit)


# -- numbers -----------------------------------------------------------------------------------------------------------

HARD = [5e-324, 1e-310, 2.2250738585072014e-308, 1e-300, 0.1, 1 / 3, 49.0, 1e300, 1.7e308]


@pytest.mark.parametrize("seed", range(4))
def test_every_conductance_reads_back_to_the_last_bit(seed: int, tmp_path: Path) -> None:
    """About one double in seven is the reciprocal of none: those can only be written as g=."""
    rng = np.random.default_rng(seed)
    given = np.concatenate([10 ** rng.uniform(-12, 12, 300), rng.uniform(0.25, 1.0, 300), HARD])
    n = given.size
    lines = ["t", "V1 in 0 1", *(f"R{k} in n[{k}] 1" for k in range(n)), f"RA[1:{n}] in m[1:{n}] 3"]
    circuit = cs.parse("\n".join([*lines, f"RX[0:0][1:{n}] q[0:0] m[1:{n}] 1", "Rq in q[0] 1"]))
    changed = circuit.with_values({f"R{k}": g for k, g in enumerate(given.tolist())})
    changed = changed.with_values({"RA": given, "RX": given[None, :]})
    back = again(changed, tmp_path)
    assert_same(back, changed, values_changed=True)
    assert_same_bits(back.conductors.g[:n], given)
    assert_same_bits(back.crossbars[0].g[0], given)
    with np.errstate(over="ignore"):
        assert (given != 1.0 / (1.0 / given)).sum() > 20
    assert_same(again(back, tmp_path), back)


def test_g_is_the_conductance_that_the_deck_says() -> None:
    g = np.random.default_rng(0).uniform(0.25, 1.0, 200).tolist()
    circuit = cs.parse("\n".join(["t", *(f"R{k} a{k} 0 g={x!r}" for k, x in enumerate(g))]))
    assert_same_bits(circuit.conductors.g, np.array(g))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.lists(st.floats(0, 1e300, exclude_min=True, allow_subnormal=False).filter(lambda r: r > 1e-300), min_size=1),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
)
def test_every_resistance_and_source_reads_back(
    tmp_path_factory: pytest.TempPathFactory, ohms: list[float], values: list[float]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    lines = [f"R{k} a{k} 0 {r!r}" for k, r in enumerate(ohms)]
    lines += [f"V{k} v{k} 0 {x!r}\nI{k} 0 v{k} {x!r}" for k, x in enumerate(values)]
    np.save(folder / "values.npy", np.array([values, values]).ravel())
    np.save(folder / "ohms.npy", np.array(ohms))
    count = 2 * len(values)
    lines += [f"VA[1:{count}] va[1:{count}] 0 @values.npy", f"RA[1:{len(ohms)}] a0 0 @ohms.npy"]
    (folder / "deck.cir").write_text("\n".join(["t", *lines]))
    circuit = cs.load(folder / "deck.cir")
    assert_same(again(circuit, folder), circuit)


def test_arrays_are_constants_only_when_every_bit_agrees(tmp_path: Path) -> None:
    circuit = cs.parse("t\nI1[0:1] 0 a[0:1] 1\nI2[0:1] 0 a[0:1] 1\nR1[0:1] a[0:1] 0 1k")
    changed = circuit.with_values({"I1": [0.0, -0.0], "I2": -0.0})
    assert cards_of(changed, tmp_path)[:2] == ["I1[0:1] 0 a[0:1] @again.npz:I1", "I2[0:1] 0 a[0:1] -0"]
    assert_same(again(changed, tmp_path), changed, values_changed=True)


def test_new_values_are_written(tmp_path: Path) -> None:
    circuit = cs.parse("""t
V1 a 0 1
Vx[0:1] x[0:1] 0 1
I1 0 b 1m
R1 a b 49
R2[0:1] b 0 0.3
R3[0:1] a b 8
RX[0:1][0:1] x[0:1] b[0:1] 7
RY[0:1][0:1] x[0:1] b[0:1] 7
R4 b[0] b 1
R5 b b[1] g=0
.train R2 R3 R5
""")
    new: dict[str, ArrayLike] = {"V1": 2.5, "Vx": [[1.0, 3.0]], "I1": -1.0, "R2": [0.0, 0.25], "R3": 0.0, "R5": 0.7}
    changed = circuit.with_values(new | {"RX": [[0.5, 0.0], [0.0, 0.125]], "RY": 0.0})
    assert cards_of(changed, tmp_path)[:-1] == [
        "V1 a 0 2.5",
        "Vx[0:1] x[0:1] 0 @again.npz:Vx",
        "I1 0 b -1",
        "R1 a b 49",
        "R2[0:1] b 0 g=@again.npz:R2",
        "R3[0:1] a b g=0",
        "RX[0:1][0:1] x[0:1] b[0:1] g=@again.npz:RX",
        "RY[0:1][0:1] x[0:1] b[0:1] g=0",
        "R4 b[0] b 1",
        "R5 b b[1] g=0.7",
    ]
    back = again(changed, tmp_path)
    assert_same(back, changed, values_changed=True)
    assert_same_solution(back, changed)
    assert_same_bits(back.crossbars[0].g, np.array([[0.5, 0.0], [0.0, 0.125]]))
    grown = back.with_values({"R2": [1e-3, 2e-3], "R3": 1e-3})
    assert_same(again(grown, tmp_path), grown, values_changed=True)


def test_what_is_left_out_keeps_its_own_value(tmp_path: Path) -> None:
    deck = "t\nV1 a 0 1\nR1 a 0 1k\nI0 0 f 1m\nV2 f g 2\nR2 f g 1k\nV3 b 0 3\nR3 b 0 1k"
    circuit = cs.compile_problem(cs.parse(deck), lenient=True).circuit
    assert circuit.left_out.sum() == 2 and len(circuit.ties) == 2 and len(circuit.current_sources) == 0
    found = again(circuit.with_values({"V3": 4.0}), tmp_path)
    assert found.element_values("V").tolist() == [1, 2, 4] and found.element_values("I").tolist() == [1e-3]


def test_a_resistor_at_zero_that_is_not_trained_is_open_when_read_back(tmp_path: Path) -> None:
    circuit = cs.parse("t\nV1 a 0 1\nR1 a b 1\nR2 b 0 1\nR3 a b 2").with_values({"R1": 0.0})
    back = again(circuit, tmp_path)
    assert [back.element(back.conductors, k) for k in range(len(back.conductors))] == ["R2", "R3"]
    assert_same_solution(back, circuit)


def test_random_draws_are_fixed(tmp_path: Path) -> None:
    circuit = cs.parse("t\n.param r={aunif(2k, 1k)}\nV1 a 0 {gauss(1, 0.1, 3)}\nR1 a 0 {r}\nR2[0:3] a 0 {unif(1, 0.5)}")
    back = again(circuit, tmp_path)
    assert_same(back, circuit)
    assert_same(cs.load(tmp_path / "again.cir", seed=99), cs.parse((tmp_path / "again.cir").read_text().replace(
        "@again.npz", f"@{tmp_path}/again.npz"), seed=99))  # fmt: skip
    assert_same_bits(cs.load(tmp_path / "again.cir", seed=99).conductors.g, circuit.conductors.g)


# -- names and ranges --------------------------------------------------------------------------------------------------


def test_arrays_in_subcircuits_stay_arrays(tmp_path: Path) -> None:
    circuit = cs.parse("""t
.subckt layer in[0] in[1] out
RW[0:1][5:3] in[0:1] h[0:2] g={aunif(2, 1)}
Dh[0:2] h[0:2] 0 di area={aunif(2, 1)}
Ro[0:2] h[0:2] out 2
.ends
.model di D(is=1e-9)
Vx[0:1] x[7:6] 0 1
X1 x[7] x[6] y layer
X2 x[6] x[7] y layer
.input Vx
.train R.X1.RW R.x2.rw R.X1.Ro
""")
    back = again(circuit, tmp_path)
    assert cards_of(circuit, tmp_path)[2:5] == [
        "R.X1.RW[0:1][5:3] x[7:6] X1.h[0:2] g=@again.npz:R.X1.RW",
        "D.X1.Dh[0:2] X1.h[0:2] 0 di area=@again.npz:D.X1.Dh.area",
        "R.X1.Ro[0:2] X1.h[0:2] y 2",
    ]
    assert_same(back, circuit)
    assert_same_solution(back, circuit)


def test_arrays_whose_nodes_are_no_ranges_are_written_member_by_member(tmp_path: Path) -> None:
    circuit = cs.parse(
        """t
.subckt cell p[0] p[1] q
R1[1:0] p[0:1] 0 2k
RX[0:1][0:1] p[0:1] h[0:1] g=@g.npy
I1[0:1] p[0:1] q 1m
R2[0:1] h[0:1] q 1k
.ends
V1 a 0 1
X1 a b bus[3:0] cell
R9 bus[3:0] 0 1k
.input i.x1.I1
.train R.X1.R1 r.x1.RX V1
.output b X1.h[0:1] bus[3:0]
""".replace("@g.npy", "{1m}")
    )
    back = again(circuit.with_values({"R.X1.RX": [[1e-3, 0.0], [0.0, 3e-3]]}), tmp_path)
    text = (tmp_path / "again.cir").read_text()
    assert "* array R.X1.R1[1:0], member by member" in text
    assert "* crossbar R.X1.RX[0:1][0:1], member by member" in text
    assert [line for line in text.splitlines() if line.startswith("R.X1.R")] == [
        "R.X1.R1[1] a 0 2000",
        "R.X1.R1[0] b 0 2000",
        "R.X1.RX[0][0] a X1.h[0] g=0.001",
        "R.X1.RX[0][1] a X1.h[1] g=0",
        "R.X1.RX[1][0] b X1.h[0] g=0",
        "R.X1.RX[1][1] b X1.h[1] g=0.003",
        "R.X1.R2[0] X1.h[0] bus[3:0] 1000",
        "R.X1.R2[1] X1.h[1] bus[3:0] 1000",
    ]
    assert back.netlist.nodes == circuit.netlist.nodes
    assert back.netlist.inputs == ("I.X1.I1[0]", "I.X1.I1[1]")
    assert back.netlist.trained == (
        "R.X1.R1[1]", "R.X1.R1[0]", "R.X1.RX[0][0]", "R.X1.RX[0][1]", "R.X1.RX[1][0]", "R.X1.RX[1][1]", "V1"
    )  # fmt: skip
    assert back.netlist.outputs == circuit.netlist.outputs
    assert_same_solution(back, circuit.with_values({"R.X1.RX": [[1e-3, 0.0], [0.0, 3e-3]]}))
    assert_same_solution(back.with_values({"R.X1.RX[0][1]": 2e-3}), circuit.with_values(
        {"R.X1.RX": [[1e-3, 2e-3], [0.0, 3e-3]]}))  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "word"),
    [
        ("a b", None), ("h[1] h[3]", None), ("h[1] h[1]", "h[1]"), ("h[01] h[02]", None), ("h[2] h[1]", "h[2:1]"),
        ("b[3:0][0] b[3:0][1]", None), ("H[4] h[5]", "h[4:5]"), ("h[4] H[5]", "H[4:5]"), ("h[1] g[2]", None),
        ("gnd 0", "0"), ("[0] [1]", "[0:1]"), ("a[123456789012345:9] a[123456789012346:9]", None),
    ],
)  # fmt: skip
def test_ranges_of_nodes(nodes: str, word: str | None, tmp_path: Path) -> None:
    """A subcircuit's pins can join any nodes to an array."""
    lines = [".subckt c p[0] p[1]", "R[0:1] p[0:1] k 1k", "Rk k 0 1", ".ends", f"I1 {nodes.split()[0]} 0 1"]
    circuit = cs.parse("\n".join(["t", *lines, f"X1 {nodes} c"]))
    back = again(circuit, tmp_path)
    cards = [line for line in cards_of(circuit, tmp_path) if line.startswith("R.X1.R[")]
    assert len(cards) == (2 if word is None else 1)
    if word is not None:
        assert cards == [f"R.X1.R[0:1] {word} X1.k 1000"]
        assert_same(back, circuit)
    assert sorted(back.netlist.nodes) == sorted(circuit.netlist.nodes)
    solution = cs.solve(circuit)
    for node in circuit.nodes:
        np.testing.assert_allclose(cs.solve(back).voltage(node), solution.voltage(node), rtol=1e-9)


def test_spelling_of_nodes_survives_subcircuits(tmp_path: Path) -> None:
    """Cards of one instance may change places: then no range may spell a node that it is now the first to name."""
    lines = [".subckt c", "Xn H[0] leaf", "R[0:1] h[0:1] k 1k", "Rk k 0 1", ".ends", ".subckt leaf p", "D1 p 0 dm"]
    circuit = cs.parse("\n".join(["t", *lines, ".ends", "X1 c", ".model dm D(is=1u)", "V1 X1.H[1] 0 1"]))
    assert "X1.H[0]" in circuit.nodes and "X1.h[1]" in circuit.nodes
    back = again(circuit, tmp_path)
    assert sorted(back.nodes) == sorted(circuit.nodes)
    assert cs.solve(back).voltage("X1.k") == pytest.approx(cs.solve(circuit).voltage("X1.k"))


def test_differences_that_are_outputs(tmp_path: Path) -> None:
    deck = "t\nV1 y[0] y[1] 1\nR[1:2] y[0:1] 0 1\nR3 y[0] a\\\\ 1\nR4 a\\\\ 0 1\n.save v(y[0:1],a\\\\)\n"
    circuit = cs.parse(deck + ".output v(y[0],a\\\\) y[0:1] v(y[0:1],y[1:0])")
    back = again(circuit, tmp_path)
    text = (tmp_path / "again.cir").read_text()
    assert ".output v(y[0],a) y[0:1] v(y[0],y[1]) v(y[1],y[0])\n" in text
    assert (back.netlist.outputs, back.netlist.references) == (circuit.netlist.outputs, circuit.netlist.references)
    one, other = (Saved(cs.solve(x), wanted_saves(x, ())).values() for x in (circuit, back))
    assert one.shape == (1, 4) and (one == other).all()


def test_a_range_of_outputs_is_no_node_of_that_name(tmp_path: Path) -> None:
    circuit = cs.parse("t\nV1 y[0] y[1] 1\nR1 y[0:1] 0 1\nR2 y[1] 0 1\n.output y[0] y[1] y[0:1] y[5:5]\nR3 y[5] y[1] 1")
    back = again(circuit, tmp_path)
    assert ".output y[0] y[1] y[0:1] y[5]\n" in (tmp_path / "again.cir").read_text()
    assert_same(back, circuit)


def test_odd_names_read_back(tmp_path: Path) -> None:
    names = "in+ node-1.a net[3] n_1/x 2n a#b bus[3:0] <x> c%d null x/y v i é m g r=x".replace(" r=x", "").split()
    lines = ["Vé 1st 0 7", "ı1 0 1st 1m", "R[0:1]x[0:2] é[0:2] 0 1k", "r$a<b> 1st 0 1k", "R: 1st 0 1k", "R 1st 0 2k"]
    lines += [f"R{k} 1st {name} 1k\nr[{k}]q {name} 0 {k + 2}k\nD{k}~ 0 {name} area" for k, name in enumerate(names)]
    lines += ["X$1/[0] 1st cell", ".subckt cell p", "R1 p m 1k", "R[2:3] m 0 1k", ".ends", ".model area D(is=1e-13)"]
    circuit = cs.parse("\n".join(["names", *lines, ".train r$A<b> R.X$1/[0].r"]))
    assert_same(again(circuit, tmp_path), circuit)


def test_nodes_that_not_every_card_can_name_get_others(tmp_path: Path) -> None:
    circuit = cs.parse("t\nV1 ($a)(0) 1\nR1 ($a)(b\\\\) 1k\nR2 b\\\\ 0 1k\nR3 a 0 1\n.output b\\\\ a")
    back = again(circuit, tmp_path)
    assert back.nodes == ["0", "a_2", "b", "a"]
    assert "* node a_2 stands for $a, which not every card can name\n" in (tmp_path / "again.cir").read_text()
    np.testing.assert_array_equal(cs.solve(back).voltages(), cs.solve(circuit).voltages())
    assert back.netlist.outputs == circuit.netlist.outputs


def test_models_that_read_as_values_or_words_get_other_names(tmp_path: Path) -> None:
    names = ["1000", "inf", "1n4148", "d<1>", "{x}", "a\\\\", "1e3", "_x", "d.1"]
    cards = [f".model {name} D(is={k + 1}p)" for k, name in enumerate(names)]
    cards += [f"D{k} a 0 {name} area=2" for k, name in enumerate(names)]
    circuit = cs.parse("\n".join(["t", *cards, "V1 a 0 0.1", "R1 a 0 r=1k", "R2 a 0 r=inf", "R3 a 0 g=0.7"]))
    back = again(circuit, tmp_path)
    assert_same(back, circuit)
    assert [m.name for m in back.netlist.models] == [
        "1000_2", "inf_2", "1n4148", "d<1>", "x", "a", "1e3_2", "_x", "d.1"
    ]  # fmt: skip


def test_keys_of_the_numpy_file_are_simple(tmp_path: Path) -> None:
    circuit = cs.parse("t\nV<$é>[0:1] a[0:1] 0 {aunif(1, 1)}\nV_[0:1] b[0:1] 0 {aunif(1, 1)}\nV:[0:1] c[0:1] 0 "
                       "{aunif(1, 1)}\nR1[0:1] a[0:1] b[0:1] 1\nR2[0:1] b[0:1] c[0:1] 1")  # fmt: skip
    assert_same(again(circuit, tmp_path), circuit)
    with np.load(tmp_path / "again.npz") as arrays:
        assert arrays.files == ["V", "V_2", "V_3"]


def test_shorts_and_opens_in_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", r=[0.0, 1.0, 2.0], g=[0.0, 1.0, 2.0], m=[np.inf, 1.0, 0.5])
    (tmp_path / "deck.cir").write_text("""t
V1 a 0 1
Rshort[0:2] a b[0:2] @r.npz:r
Ropen[0:2] a b[0:2] g=@r.npz:g
Rinf[0:2] b[0:2] 0 inf
Rzero[0:2] b[0:2] c[0:2] 0
Rboth[0:1] b[1:2] 0 1k
.train Ropen
""")
    circuit = cs.load(tmp_path / "deck.cir")
    assert cards_of(circuit, tmp_path)[1:5] == [
        "Rshort[0:2] a b[0:2] @again.npz:Rshort",
        "Ropen[0:2] a b[0:2] g=@again.npz:Ropen",
        "Rinf[0:2] b[0:2] 0 g=0",
        "Rzero[0:2] b[0:2] c[0:2] 0",
    ]
    assert_same(again(circuit, tmp_path), circuit)
    changed = circuit.with_values({"Rshort[1]": 0.7})  # no longer ohms in a file, and a short is no conductance
    assert [card for card in cards_of(changed, tmp_path) if card.startswith("Rshort")] == [
        "Rshort[0] a b[0] 0",
        "Rshort[1] a b[1] g=0.7",
        "Rshort[2] a b[2] 2",
    ]
    assert_same_solution(again(changed, tmp_path), changed)


# -- circuits of the gallery -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_random_circuits_read_back(seed: int, tmp_path: Path) -> None:
    circuit = cs.parse(random_circuit(np.random.default_rng(seed), Recipe(laws=3 * (seed % 2))))
    back = again(circuit, tmp_path)
    assert_same(back, circuit)
    assert_same_solution(back, circuit)
    rng = np.random.default_rng(seed)
    c = circuit.conductors
    rows = np.flatnonzero(c.kind == 0)
    new: dict[str, ArrayLike] = {circuit.element(c, int(k)): c.g[k] * rng.uniform(0.5, 2.0) for k in rows}
    new |= {name: float(rng.normal()) for kind in "VI" for name in circuit.netlist.tables[kind].names}
    new |= {x.name: x.g * rng.uniform(0, 2, x.g.shape) for x in circuit.crossbars}
    changed = circuit.with_values(new)
    assert_same(again(changed, tmp_path), changed, values_changed=True)


@pytest.mark.parametrize("known", [gallery.ladder(9), gallery.grid(3, 5), gallery.crossbar(4, 6), gallery.diode_or()])
def test_known_circuits_read_back(known: gallery.Known, tmp_path: Path) -> None:
    circuit = cs.parse(known.text)
    assert_same(again(circuit, tmp_path), circuit)


def test_a_deep_network_reads_back_after_training(tmp_path: Path) -> None:
    circuit = cs.parse(gallery.drn([6, 9, 8, 3], seed=2, gain=5.0))
    rng = np.random.default_rng(1)
    step = {x.name: np.maximum(x.g + rng.normal(0, 0.1, x.g.shape), 0.0) for x in circuit.crossbars}
    step |= {f"Ib{k}": rng.normal(0, 0.01, n) for k, n in ((1, 9), (2, 8), (3, 3))}
    trained = circuit.with_values(step)
    back = again(trained, tmp_path)
    assert_same(back, trained, values_changed=True)
    assert (back.crossbars[0].g == 0).any()
    assert_same_solution(back, trained)


# -- random decks ------------------------------------------------------------------------------------------------------

NODE = st.sampled_from(["0", "gnd", "a", "B", "b", "n[1]", "N[2]", "n[3]", "X1.u", "00", "bus[3:0]", "m[0]", "M[1]"])
RANGE = st.sampled_from(["m[0:1]", "n[1:2]", "N[2:1]", "n[2:3]", "h[4:3]", "M[0:1]", "bus[1:2]"])
END = st.one_of(RANGE, st.sampled_from(["a", "0", "b"]))
OHM = st.sampled_from(["3", "{aunif(2, 1)}", "g={aunif(2, 1)}", "g=0", "inf", "0", "g=0.7 m=3", "3 tc1=1m", "1 m=3"])
DRAWN = st.sampled_from(["1", "{aunif(2, 1)}", "{max(0, aunif(0, 1))}"])
SOURCE = st.sampled_from(["Vs[0]", "vs[2]"])
SOURCES = st.one_of(SOURCE, st.sampled_from(["Vs[0:1]", "vs[2:1]"]))
FACTOR = st.sampled_from(["", "area=2", "m={aunif(2, 1)}", "temp={aunif(2, 1)} m=3"])
CARD = st.one_of(
    st.builds("R@ {} {} {}".format, NODE, NODE, OHM),
    st.builds("V@ {} {} {}".format, NODE, NODE, DRAWN),
    st.builds("{}@ {} {} 1".format, st.sampled_from("LCI"), NODE, NODE),
    st.builds("D@ {} {} dm {}".format, NODE, NODE, FACTOR),
    st.builds("X@ {} {} {} cell".format, NODE, NODE, NODE),
    st.builds("X@ {} {} {} cell m=3".format, NODE, NODE, NODE),
    st.builds("R@[0:1] {} {} {}".format, END, END, OHM),
    st.builds("R@[3:2] {} {} {}".format, END, END, OHM),
    st.builds("R@[0:1][1:2] {} {} g={}".format, RANGE, RANGE, DRAWN),
    st.builds("{}@[0:1] {} {} {}".format, st.sampled_from("VI"), END, END, DRAWN),
    st.builds("D@[0:1] {} {} dm {}".format, END, END, FACTOR),
    st.builds("{}@ {} {} {} {} {}".format, st.sampled_from("EG"), NODE, NODE, NODE, NODE, DRAWN),
    st.builds("{}@ {} {} {} {}".format, st.sampled_from("FH"), NODE, NODE, SOURCE, DRAWN),
    st.builds("{}@[0:1] {} {} {} {} {}".format, st.sampled_from("EG"), END, END, END, END, DRAWN),
    st.builds("{}@[3:2] {} {} {} {}".format, st.sampled_from("FH"), END, END, SOURCES, DRAWN),
)
CELLS = """.model dm D(is=1e-12)
Vs[0:2] a n[1:3] 1
.subckt cell a[0] a[1] q
E1[0:1] k[0:1] w a[1:0] q {unif(2, 0.5)}
F1[0:1] a[0:1] q V1 {unif(2, 0.5)}
V1 q w 1
H1 z 0 V1 2
R1[0:1] a[0:1] q 2
RX[0:1][0:2] a[0:1] k[2:0] g={max(0, aunif(0, 1))}
X1 a[0] k[1] inner
D1[0:1] k[0:1] q dm m={unif(2, 0.5)}
.subckt inner s t
C1 s u 1
D1 u t dm
R1 u s {aunif(3, 1)}
.model dm D(ron=0 vfwd={aunif(3, 1)})
.ends
.ends""".splitlines()


def linear_branches(circuit: Circuit) -> list[tuple[str, str, float]]:
    """Every conductance that is not 0, wherever it is kept, with the nodes at its ends."""
    c, nodes = circuit.conductors, [node.lower() for node in circuit.nodes]
    found = [(nodes[a], nodes[b], g) for a, b, g in zip(c.a.tolist(), c.b.tolist(), c.g.tolist(), strict=True)]
    for x in circuit.crossbars:
        found += [(nodes[x.rows[i]], nodes[x.cols[j]], float(x.g[i, j])) for i, j in np.ndindex(x.g.shape)]
    return sorted(branch for branch in found if branch[2])


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(CARD, max_size=12), st.integers(0, 3))
def test_random_decks_read_back(tmp_path_factory: pytest.TempPathFactory, cards: list[str], seed: int) -> None:
    cards = [card.replace("@", str(k)) for k, card in enumerate(cards)]
    trained = [card.split()[0].split("[")[0] for card in cards if card[0] == "R"]
    circuit = cs.parse("\n".join(["t", *CELLS, *cards, "R_ a 0 1", f".train R_ {' '.join(trained)}", ".output a"]))
    rng = np.random.default_rng(seed)
    new: dict[str, ArrayLike] = {x.name: x.g * rng.uniform(0, 2, x.g.shape) for x in circuit.crossbars if seed}
    changed = circuit.with_values(new | {"R_": rng.uniform(0, 1)})
    folder = tmp_path_factory.getbasetemp()
    back = again(changed, folder)
    assert linear_branches(back) == linear_branches(changed)
    if "member by member" in (folder / "again.cir").read_text():
        assert sorted(back.nodes) == sorted(circuit.nodes)
        assert_same_bits(back.ties.e, changed.ties.e)
    else:
        assert_same(back, changed, values_changed=True)


# -- files -------------------------------------------------------------------------------------------------------------


def test_two_exports_are_the_same_bytes(tmp_path: Path) -> None:
    circuit = cs.parse(gallery.drn([3, 4, 2]))
    pairs = []
    for _ in range(2):
        export(circuit, tmp_path / "a.cir")
        pairs.append([(tmp_path / name).read_bytes() for name in ("a.cir", "a.npz")])
    assert pairs[0] == pairs[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.cir", "a.npz"]


def test_without_arrays_there_is_no_numpy_file(tmp_path: Path) -> None:
    export(cs.parse("t\nV1 a 0 1\nR1 a 0 1"), tmp_path / "a b.cir")
    assert [p.name for p in tmp_path.iterdir()] == ["a b.cir"]


def test_any_suffix_but_npz(tmp_path: Path) -> None:
    circuit = cs.parse(gallery.drn([3, 4, 2]))
    for name in ("net", "net.v2.sp", ".hidden"):
        export(circuit, tmp_path / name)
        assert_same(cs.load(tmp_path / name), circuit)
    with pytest.raises(cs.SettingsError, match=r"net\.npz: \.npz is for the arrays of a netlist; give it the suffix"):
        export(circuit, tmp_path / "net.npz")


@pytest.mark.parametrize("name", ["my net.cir", "a:b.cir", "a;b.cir", "a=b.cir", "it's.cir", "{a}.cir", "a\x01b.cir"])
def test_a_name_that_a_netlist_cannot_refer_to_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(cs.SettingsError, match=r"its netlist cannot name the file .*; choose a name without blanks"):
        export(cs.parse(gallery.drn([3, 4, 2])), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a$b.cir", "é.cir", "a+b@c.cir", "a#%b.cir", "-.cir", "a\\b.cir"])
def test_odd_names_of_files_work(name: str, tmp_path: Path) -> None:
    circuit = cs.parse(gallery.drn([3, 4, 2]))
    export(circuit, tmp_path / name)
    assert_same(cs.load(tmp_path / name), circuit)


def test_a_batch_of_values_is_refused(tmp_path: Path) -> None:
    circuit = cs.parse("t\nV1 a 0 1\nI1 a 0 1\nR1 a 0 1")
    for name in ("V1", "I1"):
        with pytest.raises(cs.SettingsError, match="export: the sources have a batch of 3 values, a netlist holds one"):
            export(circuit.with_values({name: [1.0, 2.0, 3.0]}), tmp_path / "a.cir")
    assert list(tmp_path.iterdir()) == []
    export(circuit.with_values({"V1": [[2.0]]}), tmp_path / "a.cir")
    assert cs.load(tmp_path / "a.cir").ties.e.tolist() == [[2.0]]


def test_what_cannot_be_written_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    circuit = cs.parse(gallery.drn([3, 4, 2]))
    with pytest.raises(cs.SettingsError, match=r"there is no folder .*none; make it first"):
        export(circuit, tmp_path / "none" / "a.cir")
    (tmp_path / "dir.cir").mkdir()
    with pytest.raises(cs.SettingsError, match=r"dir\.cir: it exists and is not a regular file"):
        export(circuit, tmp_path / "dir.cir")
    (tmp_path / "b.npz").mkdir()
    with pytest.raises(cs.SettingsError, match=r"b\.npz: it exists and is not a regular file"):
        export(circuit, tmp_path / "b.cir")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.npz", "dir.cir"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(cs.SettingsError, match=r"cannot write .*a\.npz: Permission denied"):
        export(cs.parse(gallery.drn([3, 4, 2])), tmp_path / "a.cir")


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ("R1 a 0 1k tc1=1m", True),
        ("R1 a 0 mr 1k\n.model mr R(TC2=1u)", True),
        ("R1 a 0 {1k + temper}", True),
        ("R1 a 0 1k\nD1 a 0 d temp=27\n.model d D", True),  # which follows that of the circuit when read again
        ("R1 a 0 1k\nD1 a 0 d\n.model d D\n.options temp=50", False),
        ("R1 a 0 1k temp=50\nD1 a 0 d temp=50\n.model d D", False),
    ],
)
def test_values_that_followed_the_temperature_are_said_to_be_fixed(cards: str, said: bool, tmp_path: Path) -> None:
    circuit = cs.parse(f"t\nV1 a 0 1\n{cards}\n")
    comment = "* values are those at 27 C: some followed the temperature, none does here\n"
    assert (comment in text_of(circuit, tmp_path)) == said
    now, then = (cs.sweep(one, "TEMP 27 77 50").current("V1") for one in (circuit, cs.load(tmp_path / "again.cir")))
    assert np.array_equal(now, then) != said


def test_a_file_of_other_arrays_is_not_replaced(tmp_path: Path) -> None:
    """Unless it is that of a netlist which is replaced too, or has the same arrays: what a killed export has left."""
    deck, file = tmp_path / "a.cir", tmp_path / "a.npz"
    np.savez(file, X=np.ones(3), RW1=np.zeros(1))
    with pytest.raises(cs.SettingsError, match=r"its arrays would replace .*a\.npz, which holds X; choose another"):
        export(cs.parse(gallery.drn([3, 4, 2])), deck)
    with np.load(file) as arrays:
        assert arrays["X"].sum() == 3 and not deck.exists()
    file.write_text("text")
    with pytest.raises(cs.SettingsError, match="which holds no arrays that can be read"):
        export(cs.parse(gallery.drn([3, 4, 2])), deck)
    file.unlink()
    export(cs.parse(gallery.drn([3, 4, 2])), deck)
    export(cs.parse(gallery.drn([2, 2])), deck)  # other arrays
    deck.unlink()
    export(cs.parse(gallery.drn([3, 2])), deck)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a.cir").write_text("old")
    (tmp_path / "a.npz").write_text("old")
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(cs.SettingsError, match=r"cannot write .*a\.npz: No space left on device"):
        export(cs.parse(gallery.drn([3, 4, 2])), tmp_path / "a.cir")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.cir": "old", "a.npz": "old"}


def test_writing_a_large_netlist_takes_time_in_proportion(tmp_path: Path) -> None:
    circuits = {}

    def prepare(n: int) -> Callable[[], None]:
        lines = ["big", "V1 n0 0 1", *(f"R{k} n{k // 3} n{k // 2 + 1} {k + 1}" for k in range(n))]
        circuits[n] = cs.parse("\n".join(lines))
        return lambda: export(circuits[n], tmp_path / f"{n}.cir")

    assert exponent(prepare, 20_000, repeats=2) < LIMIT
    for n, circuit in circuits.items():
        assert_same(cs.load(tmp_path / f"{n}.cir"), circuit)


def test_sweeps_of_the_netlist_written_give_the_same_points(tmp_path: Path) -> None:
    deck = """sweeps
V[1:2] in[1:2] 0 1
R1[0:1] in[1:2] out 1k tc1=2m m=2
R2 out 0 1k m=2 scale=3
I1 0 out 1m m=3
.param k=1
.options temp=50
.dc V 0 1 0.3 R2 1k 3k 700
.dc R1 1k 2k 500
.dc I1 0 1m 0.3m
.dc k 1 2 1
.dc temp 0 50 50
"""
    circuit = cs.parse(deck)
    back = again(circuit, tmp_path)
    text = (tmp_path / "again.cir").read_text()
    assert "* left out: .dc k 1.0 2.0 1.0: k is a parameter" in text
    assert "* left out: .dc temp 0.0 50.0 50.0: values here do not follow the temperature as in the original" in text
    pairs = zip([a for a in circuit.netlist.analyses if a.kind == "dc"][:3], back.netlist.analyses[:3], strict=True)
    for mine, its in pairs:
        wanted, found = cs.sweep(circuit, mine), cs.sweep(back, its)
        np.testing.assert_allclose(found.voltages, wanted.voltages, rtol=1e-12, atol=1e-15)


def test_a_sweep_of_members_with_factors_of_their_own_has_no_card(tmp_path: Path) -> None:
    """A member alone has one: the value of RL[1] is half of what is swept."""
    np.save(tmp_path / "m.npy", np.array([1.0, 2.0]))
    (tmp_path / "deck.cir").write_text(
        "t\nV1 a 0 1\nR1 a b 1k\nRL[0:1] b 0 1k m=@m.npy\n.dc RL 1k 2k 500\n.dc RL[1] 1k 2k 500\n"
    )
    circuit = cs.load(tmp_path / "deck.cir")
    back = again(circuit, tmp_path)
    wanted = "* left out: .dc RL 1000.0 2000.0 500.0: the members of RL have values of their own\n"
    assert wanted in (tmp_path / "again.cir").read_text()
    [analysis] = back.netlist.sweeps
    found = cs.sweep(back, analysis)
    np.testing.assert_allclose(found.values[:, 0], [500, 750, 1000])
    np.testing.assert_allclose(found.voltages, cs.sweep(circuit, "RL[1] 1k 2k 500").voltages, rtol=1e-12)


@pytest.mark.parametrize(
    "cards",
    [
        "X1 w[0:1][2] b cc\nR1 b 0 1\nR2 w[0][2] 0 1\n.subckt cc p q\nR[0:1] p q 1\n.ends",  # a pin that is a name
        "R[0:0][0:2] w[7:7][0:2][4] 0 {aunif(1k, 1)}\nR2 w[7][1][4] w[0:1][2] 1k",
        "R[0:1][0:2] a[0:1] c[0:1][0:2] {aunif(1k, 1)}\nD[0:1][0:2] c[0:1][1] e[2:0] dm area={aunif(2, 1)}\n"
        "R3[0:2] e[0:2] 0 1k\nR4[0:1] a[0:1] w[0:1][2] 1k\nI[0:1][0:2] 0 c[0:1][0:2] @i.npy\n.model dm D\n.train R",
    ],
)
def test_two_ranges_read_back(cards: str, tmp_path: Path) -> None:
    np.save(tmp_path / "i.npy", np.arange(6.0).reshape(2, 3) * 1e-3)
    (tmp_path / "deck.cir").write_text(f"t\nV1 w[0:1][2] 0 1\n{cards}\n")
    circuit = cs.load(tmp_path / "deck.cir")
    back = again(circuit, tmp_path)
    assert back.netlist.nodes == circuit.netlist.nodes
    assert back.netlist.arrays == circuit.netlist.arrays or "X1" in cards  # one that no card can say is split
    np.testing.assert_array_equal(cs.solve(back).voltages(), cs.solve(circuit).voltages())
