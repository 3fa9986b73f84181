"""Controlled sources: the decks that ship with them against answers in closed form, and flat decks against ngspice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from helpers import flat, needs_ngspice
from scipy.optimize import brentq

import circuitsim as cs
from circuitsim.circuit import Circuit
from circuitsim.spice.ngspice import operating_point, tight_options

NETLISTS = Path(__file__).parent.parent / "netlists"
RON = 1e-7  # relative: a perfect diode has 1 uohm in ngspice
FLOOR = 1e-7  # V: the same, for nodes that are at 0 V


Solver = Callable[[Circuit], Mapping[str, float]]


def by_ngspice(circuit: Circuit) -> Mapping[str, float]:
    return operating_point(flat(circuit), options=tight_options())


def by_circuitsim(circuit: Circuit) -> Mapping[str, float]:
    solution = cs.solve(circuit, cs.Settings(tol=1e-12))
    return dict(zip(circuit.nodes, solution.voltages()[0].tolist(), strict=True))


SOLVERS = [by_circuitsim, pytest.param(by_ngspice, marks=needs_ngspice)]


# -- the answers -------------------------------------------------------------------------------------------------------


def opamp(vin: float = 0.5, gain: float = 1e6) -> dict[str, float]:
    """Inverting amplifier -R2/R1 = -10 whose loop gain is gain / 11; the buffer halves vin, with loop gain `gain`."""
    return {"out": -10 * vin / (1 + 11 / gain), "follow": vin / 2 / (1 + 1 / gain)}


def bidirectional_amplifier(x1: float = 2.0, x2: float = 1.0, a: float = 4.0) -> dict[str, float]:
    """KCL in mS and V at h1, h2 and y, in the one state of the two diodes that satisfies them.

    At h: sum of g (x - h) - (1/a) w (a h - y) = 0, unless the diode holds it at 0 V. At y: sum of w (a h - y) = y.
    """
    g, w, x = np.array([[1.0, 0.5], [0.5, 1.0]]), np.array([0.5, 1.0]), np.array([x1, x2])
    sign = np.array([1.0, -1.0])  # h1 >= 0 >= h2
    kcl = np.array([[g[:, 0].sum() + w[0], 0, -w[0] / a], [0, g[:, 1].sum() + w[1], -w[1] / a], [*-a * w, w.sum() + 1]])
    for clamped in product([False, True], repeat=2):
        free = [*(k for k in (0, 1) if not clamped[k]), 2]
        v = np.zeros(3)
        v[free] = np.linalg.solve(kcl[np.ix_(free, free)], np.append(x @ g, 0.0)[free])
        supplied = sign * (kcl @ v - np.append(x @ g, 0.0))[:2]  # what the diodes bring in
        if (sign * v[:2] >= 0).all() and (supplied[list(clamped)] >= 0).all():
            return {"h1": v[0], "h2": v[1], "a1": a * v[0], "a2": a * v[1], "y": v[2]}
    raise AssertionError("no state of the diodes satisfies KCL")


def relu_network(a: float = 1.5, b: float = 2.5) -> dict[str, float]:
    m = max(a - b, 0.0) + max(b, 0.0) - max(-b, 0.0)
    assert m == max(a, b)
    return {"p1": max(a - b, 0.0), "p3": -max(-b, 0.0), "n4": max(m - 1, 0.0) / 4, "y": max(a, b, 1.0)}


LEVELS = (-2.0, -0.5, 0.75, 3.0)
CASES: list[tuple[str, dict[str, float], dict[str, float]]] = [
    ("opamp", {}, opamp()),
    ("opamp", {"Vin": -0.2}, opamp(-0.2)),
    ("opamp", {"E.X1.Eout": 100.0, "E.X2.Eout": 100.0}, opamp(gain=100.0)),
    ("bidirectional_amplifier", {}, bidirectional_amplifier()),
    ("relu_network", {}, relu_network()),
    *(("bidirectional_amplifier", {"Vx1": x1, "Vx2": x2}, bidirectional_amplifier(x1, x2))
      for x1, x2 in product(LEVELS, repeat=2)),
    ("bidirectional_amplifier", {"E.X1.E1": 2.0, "E.X2.E1": 2.0, "F.X1.F1": 0.5, "F.X2.F1": 0.5, "Vx2": -3.0},
     bidirectional_amplifier(x2=-3.0, a=2.0)),
    *(("relu_network", {"Va": a, "Vb": b}, relu_network(a, b)) for a, b in product(LEVELS, repeat=2)),
]  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("deck", "new", "wanted"), CASES)
def test_deck_gives_the_answer_in_closed_form(
    deck: str, new: dict[str, float], wanted: dict[str, float], solver: Solver
) -> None:
    found = solver(cs.load(NETLISTS / f"{deck}.cir").with_values(new))
    for node, volts in wanted.items():
        near = {"rel": RON, "abs": FLOOR} if solver is by_ngspice else {"rel": 1e-9, "abs": 1e-12}
        assert found[node] == pytest.approx(volts, **near), node


def test_answers_that_the_decks_say_of_themselves() -> None:
    assert opamp()["out"] == pytest.approx(-4.999945, rel=1e-7)
    answer = bidirectional_amplifier()
    assert answer == pytest.approx({"h1": 25 / 19, "h2": 0, "a1": 100 / 19, "a2": 0, "y": 20 / 19})
    states = {tuple(np.sign([case["h1"], case["h2"]])) for deck, _, case in CASES if deck == "bidirectional_amplifier"}
    assert len(states) == 4  # each diode conducts in some of the cases, and blocks in others


# -- ngspice on flat decks ---------------------------------------------------------------------------------------------

BY_NGSPICE_TOO = ["controlled_e", "controlled_g", "controlled_fh", "controlled_subckt", "hard_E_self_gain2",
                  "hard_G_neg", "hard_opamp_ideal"]  # fmt: skip


@needs_ngspice
@pytest.mark.parametrize("path", [NETLISTS / "opamp.cir", *(NETLISTS / "valid" / f"{d}.cir" for d in BY_NGSPICE_TOO)])
def test_ngspice_reads_the_flat_deck_as_the_original(path: Path) -> None:
    """Every voltage and current, under the same name."""
    original = operating_point(path, options=tight_options())
    found = operating_point(flat(cs.load(path)), options=tight_options())
    assert found == pytest.approx(original, rel=1e-9, abs=1e-12)


@needs_ngspice
@pytest.mark.parametrize("name", ["controlled_arrays", "controlled_feedback", "controlled_multiplier"])
def test_ngspice_gives_the_independent_answer_for_what_it_cannot_read_itself(name: str) -> None:
    path = NETLISTS / "valid" / f"{name}.cir"
    answer = json.loads(path.with_suffix(".json").read_text())
    found = by_ngspice(cs.load(path))
    for node, volts in answer["voltages"].items():
        assert found[node.lower()] == pytest.approx(volts, rel=RON, abs=FLOOR), node
    for source, amperes in answer["currents"].items():
        if source[0] in "VEH":
            assert found[f"i({source.lower()})"] == pytest.approx(amperes, rel=RON, abs=1e-12), source


# -- the circuit -------------------------------------------------------------------------------------------------------


def test_circuit_of_every_kind() -> None:
    circuit = cs.parse("""t
H1 h 0 Vb 5
F1 f 0 Vb -4
R0 a b 0
Va a 0 1
Vb b c 0
G1 g 0 a c 3
E1 e h b a 2
E2[0:1] x[0:1] 0 a 0 6
R1 c 0 1
""")
    c, nodes = circuit.controlled, circuit.nodes
    assert [circuit.element(c, k) for k in range(6)] == ["E1", "E2[0]", "E2[1]", "F1", "G1", "H1"]
    assert [nodes[k] for k in c.a] == ["e", "x[0]", "x[1]", "f", "g", "h"]
    assert [nodes[k] for k in c.b] == ["h", "0", "0", "0", "0", "0"]
    assert [(nodes[a], nodes[b]) for a, b in zip(c.ca[[0, 2, 4]], c.cb[[0, 2, 4]], strict=True)] == [
        ("b", "a"), ("a", "0"), ("a", "c")
    ]  # fmt: skip
    assert c.control.tolist() == [-1, -1, -1, 1, -1, 1]
    assert circuit.element(circuit.ties, 1) == "Vb"
    assert c.gain.tolist() == [2, 6, 6, -4, 3, 5]
    assert not circuit.reciprocal
    assert cs.parse("t\nV1 a 0 1\nR1 a 0 1").reciprocal
    new = circuit.with_values({"e2": [7.0, -8.0], "E2[1]": 9.0, "H1": 0.0})
    assert new.controlled.gain.tolist() == [2, 7, 9, -4, 3, 0]
    assert c.gain.tolist() == [2, 6, 6, -4, 3, 5]
    assert circuit.rows_of("F1") == ("F", 0, 1)
    edges = [(u, w, d["gain"]) for u, w, d in circuit.to_networkx().edges(data=True) if d["name"] == "E1"]
    assert len(edges) == 1 and {*edges[0]} == {"e", "h", 2.0}


@pytest.mark.parametrize(("value", "message"), [(np.inf, "must be finite"), ([1.0, 2.0], r"have shape \(2,\)")])
def test_new_gains_are_checked(value: object, message: str) -> None:
    circuit = cs.parse("t\nV1 a 0 1\nE1 b 0 a 0 2\nR1 b 0 1")
    with pytest.raises(cs.SettingsError, match=f"E1: new values {message}"):
        circuit.with_values({"E1": value})  # type: ignore[dict-item]


def test_flat_text_of_every_kind() -> None:
    circuit = cs.parse("""t
V[2:3] h[2:3] 0 1
R1 h[3] 0 1k
F1[0:1] a[0:1] 0 V[3:2] {aunif(2, 0)}
X1 h[2] a[0] cell m=2
.subckt cell p q
E1 q 0 VCVS (p 0) gain=3
G1 q gnd p 0 1m m=3
H1 s 0 V1 1k
V1 s p 0
.ends
""")
    assert flat(circuit.with_values({"E.X1.E1": -4.0, "F1": [5.0, 0.0]})).splitlines()[-9:-1] == [
        "V.X1.V1 X1.s h[2] 0.0",
        "R1 h[3] 0 1000.0",
        "E.X1.E1 a[0] 0 h[2] 0 -4.0",
        "F1[0] a[0] 0 V[3] 5.0",
        "F1[1] a[1] 0 V[2] 0.0",
        "G.X1.G1 a[0] 0 h[2] 0 0.006",
        "H.X1.H1 X1.s 0 V.X1.V1 500.0",
        ".op",
    ]


# -- equations that contradict each other ------------------------------------------------------------------------------

TWO = ("V1 b 0 1", "E1 a 0 b 0 2", "E2 a 0 b 0 3")
TAIL = ("R1 a c 1", "D1 c 0 di", "R2 c 0 1", ".model di D(is=1e-12)")


def parse(*cards: str) -> Circuit:
    return cs.parse("\n".join(["t", *cards]))


@pytest.mark.parametrize(
    ("cards", "names", "words"),
    [
        (
            (*TWO, "R1 a 0 1"),
            ("E1", "E2"),
            "the equations of E1, E2 contradict each other, with what other sources fix: ",
        ),
        ((*TWO, *TAIL), ("E1", "E2"), "the equations of E1, E2 contradict"),
        (("V1 b 0 1", "V2 a 0 1", "E1 a 0 b 0 2"), ("E1",), "the equation of E1 contradicts what other sources fix: "),
        (("I1 0 b 1", "R1 b 0 1", *TWO[1:], "R2 a 0 1"), ("E1", "E2"), "contradict"),
        (("V1 b 0 1", "R1 b 0 1", "F1 0 x V1 2"), ("F1", "V1"), "contradict"),
        (("I1 0 b 1m", "R1 b 0 1k", "G1 0 b b 0 1m"), ("G1",), "contradict"),
        (("V1 a 0 1", "R1 a 0 1k", "H1 b 0 V1 1k", "V2 b 0 1"), ("H1", "V1"), "contradict"),
    ],
)
def test_controlled_sources_that_contradict_are_named(
    cards: tuple[str, ...], names: tuple[str, ...], words: str
) -> None:
    with pytest.raises(cs.TopologyError) as caught:
        cs.solve(parse(*cards), raise_on_failure=False)
    assert words in str(caught.value)
    assert set(caught.value.elements) == set(names)
    assert caught.value.at is not None and caught.value.at.text.split()[0] in names


def test_contradictions_name_their_batch_row() -> None:
    circuit = parse(*TWO, *TAIL).with_values({"V1": np.array([0.0, 0.0, 1.0])})
    with pytest.raises(
        cs.TopologyError, match="E1, E2 contradict each other, with what other sources fix in batch row 2"
    ):
        cs.solve(circuit)
    result = cs.sweep(parse(*TWO, *TAIL), "V1 0 1 0.5")
    assert result.statuses.tolist() == ["SOLVED", "FAULT", "FAULT"]


@pytest.mark.parametrize(
    ("cards", "solved"),
    [
        ((*TWO[:2], "E2 a 0 b 0 2", "R1 a 0 1"), True),
        (("V1 b 0 0", *TWO[1:], "R1 a 0 1"), True),  # a = 0 satisfies both
        (
            ("V1 b 0 1", "E1 a 0 b 0 0.3", "E3 c 0 b 0 0.1", "E2 a d c 0 1", "E4 d 0 c 0 2", "R1 a 0 1"),
            True,  # 3 x 0.1 = 0.3
        ),
        (("I1 0 b 1m", "R1 b 0 1k", "G1 0 b b 0 1m", "D1 b 0 di", ".model di D(is=1e-12)"), True),  # D1 takes it
        (("V1 a 0 1", "R1 a 0 1k", "G1 x a f a 1m", "R2 f g 1k"), True),  # f is at 0 V by choice; 1 V fits
        # D1 would have to carry 1 mA backwards: no solution, but not for the linear equations' sake.
        (("I1 0 b -1m", "R1 b 0 1k", "G1 0 b b 0 1m", "D1 b 0 dp", ".model dp D(ron=1 vfwd=0.5)"), False),
    ],
)
def test_what_rounding_or_a_nonlinear_element_decides_is_no_contradiction(cards: tuple[str, ...], solved: bool) -> None:
    solution = cs.solve(parse(*cards), raise_on_failure=False)
    assert solution.solved == solved
    assert "contradict" not in solution.message


def test_a_current_of_0_that_is_amplified_is_no_contradiction() -> None:
    """i(V3) = 0, and so what F6 brings to n4, beside terms of some volts elsewhere."""
    circuit = parse(
        "R1 n6 n7 4130.606553382905", "R2 n7 n6 199333.41015671383", "V3 n3 n5 -0.934088081097924",
        "V4 n6 n1 8.689151657180826", "R5 0 n3 190.8635822874376", "F6 n6 n4 V3 -2.7369556969047952",
        "V7 n2 n1 -3.5360658069014406",
    )  # fmt: skip
    assert cs.solve(circuit).solved


def schmitt(volts: float, series: float, gain: float) -> tuple[Circuit, Callable[[float], float]]:
    """A Schmitt trigger with a clamped output, and the current into its output node at v(o), whose roots are the
    solutions.
    """
    cards = f"""Schmitt trigger
V1 in 0 {volts}
R1 in p 10k
R2 p o 20k
E1 x 0 p 0 {gain}
Rx x o {series}
D1 o h dd
D2 l o dd
Vh h 0 5
Vl l 0 -5
.model dd d(is=1e-14)
"""
    vt = 1.38064852e-23 * 300.15 / 1.6021766208e-19

    def into(o: float) -> float:
        p = (2 * volts + o) / 3
        diodes = 1e-14 * (np.expm1(min((-5 - o) / vt, 700.0)) - np.expm1(min((o - 5) / vt, 700.0)))
        return (gain * p - o) / series + (p - o) / 20e3 + diodes

    return cs.parse(cards), into


@pytest.mark.parametrize("gain", [300, pytest.param(1e4, marks=pytest.mark.slow), 1e5])
@pytest.mark.parametrize("series", [pytest.param(100, marks=pytest.mark.slow), 1e4])
@pytest.mark.parametrize("volts", [-5, 3, 5])
def test_a_schmitt_trigger_with_a_clamped_output(volts: float, series: float, gain: float) -> None:
    """Positive feedback and exponentials: curves from anywhere may lead away, that of rising gains does not."""
    circuit, into = schmitt(volts, series, gain)
    ends = np.linspace(-6.5, 6.5, 20_001)
    signs = np.sign([into(o) for o in ends.tolist()])
    roots = [brentq(into, *ends[k : k + 2], xtol=1e-13) for k in np.flatnonzero(signs[:-1] != signs[1:]).tolist()]
    solution = cs.solve(circuit)
    assert solution.solved
    assert np.abs(np.array(roots) - solution.voltage("o")[0]).min() < 1e-8


@pytest.mark.parametrize(("card", "remark"), [("gain=2 m=3", True), ("gain=2", False), ("2 m=3", False)])
def test_m_beside_gain_is_remarked_on(card: str, remark: bool) -> None:
    circuit = cs.parse(f"t\nV1 a 0 1\nG1 0 g a 0 {card}\nR1 g 0 1")
    assert cs.solve(circuit).voltage("g") == pytest.approx(6 if "m" in card else 2)
    assert [text for _, text in circuit.notes] == remark * [
        "voltage-controlled current source G1: m multiplies its gain here; ngspice drops it beside gain="
    ]
