"""Gradients: equilibrium propagation, implicit differentiation, back-propagation and finite differences agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from circuitsim import Problem, Settings, SettingsError, compile_problem, load, parse, solve
from circuitsim.backends.arrange import conductance_matrix
from circuitsim.backends.base import find_backend
from circuitsim.drive import Drive
from circuitsim.gallery import Recipe, drn, random_circuit
from training import adjoint, convex, eqprop
from training.adjoint import bp_fields, implicit_fields, inside
from training.gradient import Fields, Outputs, Trained, find_outputs, secants, trained_elements
from training.gradient import gradient as gradient_of
from training.learner import LearningError
from training.phases import Newton, Phases, State, Sweeps

Floats = NDArray[np.float64]

CPU = find_backend("cpu")
EXACT = Sweeps(CPU, sweeps=0, tol=1e-13)
SWEEPS = 150  # of back-propagation: enough to forget where it began

LEARNER = """a circuit in which everything learns
V1 in 0 2
V2 lift mid 0.5
R1 in mid 1k
R2 mid out 2k
R3 lift out 3k
R4 out 0 4k
R5 mid 0 1k
R6 in low 5k
R7 low out 2k
I1 0 out 0.2m
I2 mid low 0.1m
.model d D(is=1e-9 n=1.5)
.model p D(ron=300 vfwd=0.2)
.model perfect D(ron=0 vfwd=0.1)
D1 out low d
D2 mid 0 p
D3 low 0 perfect
RX[0:1][0:1] n[0:1] m[0:1] g={unif(1m, 0.5)}
Ra n[0] in 1k
Rb n[1] out 1k
Rc m[0] mid 2k
Rd m[1] 0 2k
.output out m[0]
.train R1 R2 R3 R4 R5 R6 R7 I1 I2 V1 V2 RX Ra Rd
"""


def equilibrium(problem: Problem) -> Floats:
    solution = solve(problem, Settings(tol=1e-13))
    return solution.x if solution.low is None else solution.x + solution.low.sum(axis=0)


def cost_of(problem: Problem, outputs: Outputs, targets: Floats) -> float:
    y = outputs.voltages(problem, problem.drive(slice(0, problem.batch)), equilibrium(problem))
    return float(0.5 * ((y - targets) ** 2).sum(axis=1).mean())


def present(problem: Problem, trained: list[Trained]) -> dict[str, Floats]:
    c = problem.circuit
    tables = {"R": c.conductors.g, "V": c.ties.e[0], "I": c.current_sources.i[0]}
    return {
        e.name: c.crossbars[int(e.where[0])].g if e.kind == "crossbar" else tables[e.kind][e.where] for e in trained
    }


def differences(problem: Problem, outputs: Outputs, targets: Floats, values: Mapping[str, Floats]) -> list[Floats]:
    """dC/dtheta by differences of exact solutions: central ones, and of second order to one side at g = 0."""
    found = []
    for name, value in values.items():
        slope = np.zeros(value.shape)
        for where in np.ndindex(value.shape):
            step = 1e-4 * max(abs(float(value[where])), 1e-2 * float(np.abs(value).max()) or 1e-4)
            total = 0.0
            at_zero = value[where] == 0 and not name.startswith(("I", "V"))
            for k, weight in ((0, -1.5), (1, 2.0), (2, -0.5)) if at_zero else ((1, 0.5), (-1, -0.5)):
                moved = value.copy()
                moved[where] += k * step
                total += weight * cost_of(problem.with_values({name: moved}), outputs, targets)
            slope[where] = total / step
        found.append(slope)
    return found


def by_adjoint(
    problem: Problem, drive: Drive, state: State, outputs: Outputs, targets: Floats, dtype: str = "float64"
) -> Fields:
    """Fields of the implicit gradient of the cost C = 1/2 |y - targets|^2."""
    return implicit_fields(problem, drive, state, outputs, outputs.voltages(problem, drive, state.x) - targets, dtype)


def all_gradients(problem: Problem, targets: Floats, beta: float) -> dict[str, list[Floats]]:
    outputs, trained = find_outputs(problem), trained_elements(problem)
    drive = problem.drive(slice(0, problem.batch))
    x = equilibrium(problem)

    def gradient(fields: list[Fields]) -> list[Floats]:
        parts = [gradient_of(problem, trained, outputs, f) for f in fields]
        return [np.sum(slopes, axis=0) for slopes in zip(*parts, strict=True)]

    found = {"implicit": gradient([by_adjoint(problem, drive, State(x), outputs, targets)])}
    phases = Sweeps(CPU, sweeps=0, tol=1e-13)
    for variant in eqprop.VARIANTS:
        fields, _ = eqprop.ep_fields(problem, drive, x, outputs, targets, eqprop.nudges(variant, beta), phases)
        found[variant] = gradient([fields])
    fields_of_steps, _ = bp_fields(problem, drive, x, outputs, targets, SWEEPS, "float64", CPU)
    found["bp"] = gradient(fields_of_steps)
    found["finite"] = differences(problem, outputs, targets, present(problem, trained))
    return found


def relative(found: list[Floats], wanted: list[Floats]) -> float:
    """The largest error, each element's over its largest slope and the largest of all (weighed by nothing)."""
    return max(
        float(np.abs(f - w).max() / max(np.abs(w).max(), 1e-6 * max(np.abs(v).max() for v in wanted)))
        for f, w in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("outputs", ["out m[0]", "v(out,m[0]) v(mid,low)"])
def test_all_routes_agree_where_everything_learns(outputs: str) -> None:
    problem = compile_problem(parse(LEARNER.replace("out m[0]", outputs)))
    found = all_gradients(problem, np.array([[0.3, -0.1]]), beta=1e-7)
    assert relative(found["implicit"], found["finite"]) < 1e-6
    assert relative(found["centred"], found["implicit"]) < 1e-6
    assert relative(found["bp"], found["implicit"]) < 1e-6
    for variant in ("positive", "negative"):  # of first order in beta only
        assert relative(found[variant], found["implicit"]) < 1e-3
    silent = [e.name for e, s in zip(trained_elements(problem), found["implicit"], strict=True) if not s.any()]
    assert silent == ["R6"]  # from a source to a node that a perfect diode holds


@pytest.mark.parametrize(
    "sizes", [(6, 4), (6, 8, 3), (5, 8, 6, 2), pytest.param((4, 6, 6, 6, 2), marks=pytest.mark.slow)]
)
def test_all_routes_agree_on_layered_networks(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(sizes))
    problem = compile_problem(parse(drn(sizes, seed=3, gain=30.0)))
    problem = problem.with_values({"Vx": 30 * rng.normal(size=(3, sizes[0]))})
    found = all_gradients(problem, rng.normal(size=(3, sizes[-1])), beta=1e-5)
    assert relative(found["implicit"], found["finite"]) < 1e-6
    assert relative(found["centred"], found["implicit"]) < 1e-6
    assert relative(found["bp"], found["implicit"]) < 1e-6


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_all_routes_agree_on_random_circuits(seed: int) -> None:
    """Ties, shorts, diodes of all kinds, current sources, a crossbar with holes; not layered, not bipartite."""
    rng = np.random.default_rng(seed)
    text = random_circuit(rng, Recipe(decades=1.0, subcircuits=0))
    circuit = parse(text)
    problem = compile_problem(circuit)
    x, drive, unit = equilibrium(problem), problem.drive(slice(0, 1)), problem.topology.index_of_node
    moves = (x > drive.lo + 1e-6) & (x < drive.hi - 1e-6)  # an output that a perfect diode holds teaches nothing
    free = [k for k in range(1, len(circuit.nodes)) if unit[k] >= 0 and moves[0, unit[k]]]
    roles = ".output " + " ".join(circuit.nodes[k] for k in free[:2])
    names = [n for kind in "RI" for n in circuit.netlist.tables[kind].names]
    shorts = set(np.array(circuit.netlist.tables["R"].names)[circuit.netlist.tables["R"].values["r"] == 0].tolist())
    names = [n for n in names if n not in shorts] + [c.name for c in circuit.crossbars]
    problem = compile_problem(parse(f"{text}\n{roles}\n.train {' '.join(names)}"))
    targets = rng.normal(size=(1, 2))
    found = all_gradients(problem, targets, beta=1e-8)
    assert relative(found["implicit"], found["finite"]) < 1e-4
    assert relative(found["centred"], found["implicit"]) < 1e-4
    assert relative(found["bp"], found["implicit"]) < 1e-4


def test_states_of_float32_know_their_bounds() -> None:
    """float32(0.7) lies below 0.7: a node that a perfect diode holds there is not free for that."""
    text = (
        "t\nV1 a 0 10\nR1 a h 1k\nR2 h y 1k\nR3 y 0 1k\n.model d D(ron=0 vfwd=0.7)\nD1 h 0 d\n.output y\n.train R1 R2"
    )
    problem = compile_problem(parse(text))
    outputs, trained, drive = find_outputs(problem), trained_elements(problem), problem.drive(slice(0, 1))
    targets, zero = np.array([[0.1]]), np.zeros((1, problem.n_free))
    x = Sweeps(CPU, 60, None, "float32").free(problem, drive, zero).x
    exact = by_adjoint(problem, drive, State(equilibrium(problem)), outputs, targets)
    wanted = gradient_of(problem, trained, outputs, exact)
    assert wanted[0] == 0
    implicit = by_adjoint(problem, drive, State(x), outputs, targets, "float32")
    steps, _ = bp_fields(problem, drive, x, outputs, targets, 60, "float32", CPU)
    for found in (
        gradient_of(problem, trained, outputs, implicit),
        [
            np.sum(slopes, axis=0)
            for slopes in zip(*(gradient_of(problem, trained, outputs, f) for f in steps), strict=True)
        ],
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_stands_clear_of_its_bounds() -> None:
    """a >= 0 V, b <= 1 V: by more than the rounding of a row's largest voltage, and of its dtype."""
    deck = "t\nI1 0 a 1\nRa a 0 1\nRb b a 1\nV1 c 0 1\n.model p D(ron=0)\nD1 0 a p\nD2 b c p"
    problem = compile_problem(parse(deck))
    drive, unit = problem.drive(slice(0, 1)), problem.topology.index_of_node
    columns = [unit[problem.circuit.nodes.index(name)] for name in "ab"]
    x = np.zeros((4, 2))
    x[:, columns] = [[0.0, 0.0], [1e-9, 1 - 1e-9], [1e-9, -1e7], [1e-6, 1.0]]
    clear = [[False, True], [True, True], [False, True], [True, False]]
    assert inside(drive, x, "float64")[:, columns].tolist() == clear
    clear[1] = [False, False]
    assert inside(drive, x, "float32")[:, columns].tolist() == clear


@pytest.mark.parametrize("cell", ["R2 m 0 3k", "N1 m 0 act", "D1 m 0 dd"])
def test_a_sample_of_zeros_after_another_one_comes_to_rest(cell: str) -> None:
    """Where nothing flows every current left over is all that flows there: sweeps alone make it ever smaller."""
    models = ".model act sinh(i0=1u v0=0.1)\n.model dd D(is=1e-9)"
    problem = compile_problem(parse(f"rest\nVa a 0 1\nR1 a m 1.97k\n{cell}\nR3 m y 1.9k\nR4 y 0 2.03k\n{models}"))
    problem = problem.with_values({"Va": np.array([[1.0], [0.0]])})
    wanted = equilibrium(problem)
    for start in np.random.default_rng(4).uniform(-0.5, 0.5, (12, 2, 2)):
        found = Sweeps(CPU, sweeps=0, tol=1e-9).free(problem, problem.drive(slice(0, 2)), start)
        np.testing.assert_allclose(found.x, wanted, rtol=1e-8, atol=1e-30)


def test_a_number_of_sweeps_nudges_a_difference() -> None:
    """Three colours instead of two, also where the nudge is none; a few sweeps stop short of what many reach."""
    problem = compile_problem(parse(drn((6, 8, 4), seed=3, gain=30.0).replace(".output y", ".output v(y[3],y[0]) y")))
    assert (problem.topology.n_colors, problem.circuit.netlist.differential) == (2, True)
    rng = np.random.default_rng(5)
    problem = problem.with_values({"Vx": 30 * rng.normal(size=(3, 6))})
    drive, outputs, targets = problem.drive(slice(0, 3)), find_outputs(problem), rng.normal(size=(3, 5))
    x = equilibrium(problem)
    wanted = Newton(CPU, 1e-13).nudged(problem, drive, x, outputs, targets, (0.1, -0.01, 0.0))
    for sweeps, most in ((200, 1e-12), (3, 0.05)):
        found = Sweeps(CPU, sweeps).nudged(problem, drive, x, outputs, targets, (0.1, -0.01, 0.0))
        pairs = zip(found, wanted[:2], strict=False)
        errors = [np.abs(one - other).max() / np.abs(other).max() for one, other in pairs]
        assert max(errors) < most and (sweeps == 200 or min(errors) > 1e-6)
        assert np.abs(found[2]).max() < 1e-12


@pytest.mark.parametrize("text", [LEARNER, drn((6, 8, 4), seed=3)])
def test_the_matrix_of_conductances_is_the_same_as_an_array_and_sparse(text: str) -> None:
    problem = compile_problem(parse(text))
    few, many = conductance_matrix(problem, problem.n_free), conductance_matrix(problem, problem.n_free - 1)
    np.testing.assert_allclose(few, many.toarray(), rtol=1e-15)
    assert (few == few.T).all() and few.any(axis=1).all()


def test_a_nudge_of_1_s_has_the_conductances_of_resistors() -> None:
    """Two resistors of 1 ohm from a to b, one from b to ground."""
    text = "t\nV1 in 0 1\nR1 in a 1k\nR2 in b 1k\n.output v(a,b) b v(b,a)\n.train R1"
    problem = compile_problem(parse(text))
    nudge = find_outputs(problem).nudge_matrix(2).toarray()
    a, b = (problem.topology.index_of_node[problem.circuit.nodes.index(name)] for name in "ab")
    assert (nudge[a, a], nudge[b, b], nudge[a, b], nudge[b, a]) == (2, 3, -2, -2)


def test_trained_sources_hold_offsets_and_outputs() -> None:
    """A voltage source between free nodes, its far node an output: C depends on its voltage directly too."""
    text = "t\nV1 in 0 3\nR1 in a 1k\nR2 a 0 1k\nV2 b a 0.7\nR3 b 0 2k\n.output b\n.train V1 V2 R2"
    problem = compile_problem(parse(text))
    found = all_gradients(problem, np.array([[0.4]]), beta=1e-6)
    for route in ("implicit", "centred", "bp"):
        assert relative(found[route], found["finite"]) < 1e-6


def test_back_propagation_through_nonlinear_resistors() -> None:
    text = (
        "t\nV1 in 0 2\nR1 in a 1k\nR2 a b 2k\nR3 b 0 1k\nN1 a b th\nN2 b 0 th\nR4 a 0 3k\nR5 b c 1k\nR6 c a 1k\n"
        ".model th sinh(i0=50u v0=0.2)\n.output b\n.train R1 R2 R3 R4"
    )
    found = all_gradients(compile_problem(parse(text)), np.array([[0.3]]), beta=1e-6)
    assert relative(found["bp"], found["finite"]) < 1e-5


def test_back_propagation_through_a_few_sweeps_knows_where_they_began() -> None:
    """Against differences of what so many sweeps from there reach; h stays at its bound."""
    text = (
        "t\nV1 in 0 2\nR1 in a 1k\nR2 a b 2k\nR3 b 0 1k\nR4 b c 1k\nR5 c a 3k\nR6 c 0 1k\nR7 c h 1k\nR8 h in 2k\n"
        "D1 h 0 p\n.model p D(ron=0)\nVo o b 0.2\nR9 o 0 2k\n.output o c\n.train R1 R2 R3 R4 R5 R6 R7 R8 R9 Vo"
    )
    problem = compile_problem(parse(text))
    outputs, trained, drive = find_outputs(problem), trained_elements(problem), problem.drive(slice(0, 1))
    x, targets = np.random.default_rng(2).uniform(-2, 0, (1, problem.n_free)), np.array([[0.3, -0.1]])
    steps, end = bp_fields(problem, drive, x, outputs, targets, 2, "float64", CPU)
    found = [sum(s) for s in zip(*(gradient_of(problem, trained, outputs, f) for f in steps), strict=True)]

    def cost(problem: Problem) -> float:
        drive = problem.drive(slice(0, 1))
        reached = Sweeps(CPU, 2).free(problem, drive, x).x
        return 0.5 * float(((outputs.voltages(problem, drive, reached) - targets) ** 2).sum())

    np.testing.assert_array_equal(end, Sweeps(CPU, 2).free(problem, drive, x).x)
    for slope, (name, value) in zip(found, present(problem, trained).items(), strict=True):
        ends = [cost(problem.with_values({name: value * (1 + sign * 1e-4)})) for sign in (1, -1)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2e-4 * value), rtol=1e-6, atol=1e-6)


def test_secants_of_states_that_are_near_or_the_same() -> None:
    """Where rounding would be all of a difference the slope takes its place."""
    problem = compile_problem(parse("t\nI1 0 a 1m\nR1 a 0 1k\nN1 a 0 th\n.model th sinh(i0=50u v0=0.2)"))
    v1, v2 = np.array([[0.0], [0.7], [0.7]]), np.array([[0.0], [0.7 * (1 + 1e-12)], [0.65]])
    found = secants(problem, np.pad(v1, ((0, 0), (1, 0))), np.pad(v2, ((0, 0), (1, 0))))
    steep = 50e-6 * (np.sinh(0.7 / 0.2) - np.sinh(0.65 / 0.2)) / 0.05
    np.testing.assert_allclose(found[:, 0], [50e-6 / 0.2, 50e-6 / 0.2 * np.cosh(0.7 / 0.2), steep], rtol=1e-9)


@pytest.mark.parametrize(
    ("deck", "message"),
    [
        ("R1 a 0 1\nI1 0 a 1\n.output a", "netlist has nothing to train; add `.train` with the elements"),
        ("R1 a 0 1\nI1 0 a 1\n.train R1", "netlist has no outputs; add `.output` with the nodes"),
        ("V1 a 0 1\nR1 a b 1\nR2 b 0 1\n.output a\n.train R1", "output node a: it is held by a voltage source"),
        ("V1 a 0 1\nR1 a b 1\nR2 b 0 0\nR3 a c 1\nR4 c 0 1\n.output c\n.train R2", "R2: a resistor of 0 ohm"),
        (
            "V1 a 0 1\nR1 a b 1\nR2 b 0 1\n.model i D(ron=0)\nD1 b a i\n.output b\n.train V1",
            "V1: ideal diode D1 hangs on this voltage source",
        ),
        (
            "V1 a 0 1\nR1 a b 1\nR2 b 0 1\n.model i D(ron=0)\nD1 a b i\n.output b\n.train V1",
            "V1: ideal diode D1 hangs on this voltage source, .* or leave the source out of .train$",
        ),
        (
            "V1 a 0 1\nR1 a b 1\nR2 b 0 1\n.model i D(ron=0)\nD1 b 0 i\nD2 a b i\nD3 b a i\n.output b\n.train V1",
            "V1: ideal diode D2 hangs on this voltage source",
        ),
    ],
)
def test_roles_that_cannot_learn(deck: str, message: str) -> None:
    problem = compile_problem(parse("t\n" + deck))
    with pytest.raises(SettingsError, match=message):
        find_outputs(problem)
        trained_elements(problem)


def test_an_array_with_a_resistor_of_0_ohm_cannot_learn(tmp_path: Path) -> None:
    np.save(tmp_path / "ohms.npy", np.array([1e3, 0.0]))
    (tmp_path / "t.cir").write_text("t\nI1 0 a[0] 1m\nR1[0:1] a[0:1] 0 @ohms.npy\nR2 a[0] a[1] 1\n.train R1\n")
    with pytest.raises(SettingsError, match=r"^R1: a resistor of 0 ohm cannot learn; .* leave it out of \.train$"):
        trained_elements(compile_problem(load(tmp_path / "t.cir")))


def test_a_nudge_that_leaves_the_problem_not_convex_is_refused() -> None:
    """Two outputs of 1.2 S each, joined by 1 S: each alone bears -1 S, both together do not."""
    text = "t\nI1 0 a 1\nR1 a 0 5\nR2 b 0 5\nR3 a b 1\n.output a b\n.train R1"
    problem = compile_problem(parse(text))
    outputs = find_outputs(problem)
    convex.check_convex(problem, outputs, -0.19)
    convex.check_nudge(problem, outputs, -1.0)
    with pytest.raises(LearningError, match=r"nudged by -0\.21 S is not convex; choose a smaller nudge"):
        convex.check_convex(problem, outputs, -0.21)
    with pytest.raises(LearningError, match=r"not convex: output [ab] has a conductance of 1.2 S in all"):
        convex.check_nudge(problem, outputs, -1.3)
    for order in ("a b", "b a"):  # a has 1.5 S
        problem = compile_problem(parse(text.replace("a 0 5", "a 0 2").replace("output a b", f"output {order}")))
        for check in (convex.check_nudge, convex.check_convex):
            with pytest.raises(LearningError, match=r"not convex: output b has a conductance of 1.2 S in all"):
                check(problem, find_outputs(problem), -1.6)


def test_a_nudge_counts_once_for_each_output_of_a_unit() -> None:
    """a sees 1.5 mS, and 0.5 mS through c: two outputs there bear -1 mS each."""
    text = "t\nV1 in 0 3\nR1 in a 1k\nR2 a c 1k\nR4 c 0 1k\nV2 b a 0.7\nR3 b 0 2k\n.output a b\n.train R1"
    problem = compile_problem(parse(text))
    convex.check_convex(problem, find_outputs(problem), -0.99e-3)
    with pytest.raises(LearningError, match="not convex"):
        convex.check_convex(problem, find_outputs(problem), -1.01e-3)


@pytest.mark.parametrize("n", [5, 40])
def test_positive_definite(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy import sparse

    rng = np.random.default_rng(n)
    a = rng.normal(size=(n, n))
    a = a @ a.T + np.eye(n)
    smallest = float(np.linalg.eigvalsh(a)[0])
    for limit in (10_000, 1):  # the dense and the sparse way
        monkeypatch.setattr(convex, "_DENSE", limit)
        for shift, wanted in ((0.999 * smallest, True), (1.001 * smallest, False), (1e9, False)):
            assert convex.positive_definite(sparse.csr_array(a - shift * np.eye(n))) is wanted
        for wrong in ([[1.0, -1.0], [-1.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]):  # singular; indefinite
            assert not convex.positive_definite(sparse.csr_array(wrong))


@pytest.mark.parametrize(
    ("variant", "betas"), [("centred", (0.2, -0.2)), ("positive", (0.2, 0.0)), ("negative", (0.0, -0.2))]
)
def test_variants_and_the_state_at_the_first_nudge(variant: str, betas: tuple[float, float]) -> None:
    """1 S hold an output at 1 V, nudged to 3 V: by 2 beta / (1 + beta). The next step begins at the first nudge."""
    problem = compile_problem(parse("t\nI1 0 y 1\nR1 y 0 1\n.output y\n.train R1"))
    x, targets = np.ones((1, 1)), np.array([[3.0]])
    found = eqprop.nudges(variant, 0.2)
    assert found == betas
    fields, state = eqprop.ep_fields(
        problem, problem.drive(slice(0, 1)), x, find_outputs(problem), targets, found, EXACT
    )
    v1, v2 = (1 + 2 * beta / (1 + beta) for beta in betas)
    assert state.item() == pytest.approx(v1)
    assert (fields.delta[0, 1], fields.total[0, 1]) == pytest.approx(((v1 - v2) / (betas[0] - betas[1]), v1 + v2))
    assert fields.pull.item() == pytest.approx((betas[0] * (v1 - 3) - betas[1] * (v2 - 3)) / (betas[0] - betas[1]))


@pytest.mark.parametrize("beta", [2e-3, 2e-5])
def test_a_nudge_has_the_difference_of_the_currents_it_makes(beta: float) -> None:
    """Through a nonlinear branch: its secant between the two states, not its slope at the free one."""
    text = "t\nV1 a 0 1\nN1 a y th\nR1 y 0 1k\n.model th sinh(i0=50u v0=0.2)\n.output y\n.train V1"
    problem = compile_problem(parse(text))
    outputs, drive, target = find_outputs(problem), problem.drive(slice(0, 1)), 0.1
    fields, _ = eqprop.ep_fields(
        problem, drive, equilibrium(problem), outputs, np.array([[target]]), (beta, 0.0), EXACT
    )
    y = outputs.nodes[0]
    v1, v2 = (0.5 * (fields.total[0, y] + sign * beta * fields.delta[0, y]) for sign in (1, -1))
    i1, i2 = (50e-6 * np.sinh((1 - v) / 0.2) for v in (v1, v2))
    assert i2 == pytest.approx(1e-3 * v2)
    assert i1 == pytest.approx(1e-3 * v1 + beta * (v1 - target))
    (found,) = gradient_of(problem, trained_elements(problem), outputs, fields)
    assert found.item() == pytest.approx((i1 - i2) / beta, rel=1e-8)


# -- circuits that newton solves ---------------------------------------------------------------------------------------

TIED = """perfect diodes between nodes that move, in series with all else
V1 in 0 2
V2 sink 0 -1
R1 in a 1k
R2 a 0 3k
R3 b sink 2k
R4 b c 1k
R5 c 0 2k
R6 c d 4k
R7 d in 1k
R8 b out 1k
R9 out 0 1k
I1 0 c 0.1m
.model perfect D(ron=0 vfwd=0.1)
.model soft D(is=1e-9 n=1.5)
D1 a b perfect
D2 a c perfect
D3 out d perfect
D4 in c soft
.output out c
.train R1 R2 R3 R4 R5 R6 R7 R8 R9 I1
"""

DRIVEN = """amplifiers of every kind, forwards and back, between resistors and diodes
V1 in 0 2
R1 in a 1k
R2 a 0 2k
E1 b 0 a 0 4
R3 b c 1k
R4 c 0 1k
F1 a 0 Vs 0.25
Vs c s 0
R5 s d 2k
R6 d 0 1k
G1 0 out d a 0.5m
R7 out 0 1k
R8 out d 3k
H1 e 0 Vs 500
R9 e out 2k
I1 0 d 0.1m
.model perfect D(ron=0)
.model soft D(is=1e-9 n=1.5)
D1 c 0 soft
D2 d low perfect
R10 low 0 5k
D3 0 low perfect
.output out d
.train R1 R2 R3 R4 R5 R6 R7 R8 R9 R10 I1
"""


def newton_gradients(problem: Problem, targets: Floats, beta: float, tol: float = 1e-13) -> dict[str, list[Floats]]:
    """By phases that newton solves; and finite differences of exact solutions."""
    outputs, trained = find_outputs(problem), trained_elements(problem)
    drive, newton = problem.drive(slice(0, problem.batch)), Newton(CPU, tol)
    state = newton.free(problem, drive, np.zeros((problem.batch, problem.n_free)))
    found = {
        "implicit": gradient_of(problem, trained, outputs, by_adjoint(problem, drive, state, outputs, targets)),
        "finite": differences(problem, outputs, targets, present(problem, trained)),
    }
    for variant in eqprop.VARIANTS if problem.circuit.reciprocal else ():
        betas = eqprop.nudges(variant, beta)
        fields, _ = eqprop.ep_fields(problem, drive, state.x, outputs, targets, betas, newton)
        found[variant] = gradient_of(problem, trained, outputs, fields)
    return found


def test_newton_and_sweeps_give_the_same_gradient() -> None:
    problem, targets = compile_problem(parse(LEARNER)), np.array([[0.3, -0.1]])
    by_sweeps, by_newton = (routes(problem, targets, beta=1e-6) for routes in (all_gradients, newton_gradients))
    for route in ("implicit", *eqprop.VARIANTS):
        assert relative(by_newton[route], by_sweeps[route]) < 1e-7


def test_all_routes_agree_where_perfect_diodes_tie_nodes() -> None:
    """Two of three conduct; a batch of two rows in which other ones do."""
    problem = compile_problem(parse(TIED)).with_values({"V1": [2.0, -2.0]})
    drive, zero = problem.drive(slice(0, 2)), np.zeros((2, problem.n_free))
    carried = Newton(CPU, 1e-12).free(problem, drive, zero).carried
    assert carried is not None
    states = carried > 0
    assert states.any(axis=1).all()
    assert not np.array_equal(*states)
    found = newton_gradients(problem, np.array([[0.3, -0.1], [0.2, 0.1]]), beta=1e-7)
    assert relative(found["implicit"], found["finite"]) < 1e-6
    assert relative(found["centred"], found["implicit"]) < 1e-6
    for variant in ("positive", "negative"):
        assert relative(found[variant], found["implicit"]) < 1e-3


def test_the_adjoint_knows_controlled_sources() -> None:
    problem = compile_problem(parse(DRIVEN))
    found = newton_gradients(problem, np.array([[0.3, -0.1]]), beta=1e-7)
    assert relative(found["implicit"], found["finite"]) < 1e-6
    silent = [e.name for e, s in zip(trained_elements(problem), found["implicit"], strict=True) if not s.any()]
    assert silent == []


def test_a_node_next_to_its_bound_is_held_beside_controlled_sources() -> None:
    """As newton leaves it there: the current that pushes it on tells, also one that a perfect diode brings (to h)."""
    text = (
        "t\nV1 in 0 1\nV2 neg 0 -1\nE1 e 0 in 0 1\nR1 e y 1k\nR2 y 0 1k\n.model p D(ron=0)\nR3 in a 1k\nD1 a 0 p\n"
        "R4 a y 1k\nR5 neg b 1k\nD2 0 b p\nR6 b y 1k\nR7 in c 1k\nD3 c h p\nD4 h 0 p\nR8 h 0 1k\nR9 c y 1k\n"
        ".output y\n.train R1"
    )
    problem = compile_problem(parse(text))
    drive = problem.drive(slice(0, 1))
    state = Newton(CPU, 1e-12).free(problem, drive, np.zeros((1, problem.n_free)))
    nodes = [problem.circuit.nodes.index(name) for name in "abchy"]
    held = problem.topology.index_of_node[nodes[:4]]
    np.testing.assert_allclose(state.x[0, held], 0.0, atol=1e-9)
    x = state.x.copy()
    x[0, held] = -1e-8, 1e-8, -1e-8, -1e-8
    fields = implicit_fields(problem, drive, State(x, state.carried), find_outputs(problem), np.ones((1, 1)))
    assert fields.delta[0, nodes] == pytest.approx([0.0, 0.0, 0.0, 0.0, -200.0])  # y sees five times 1 mS


CUT_OFF = (
    "t\nVx a 0 1\nR1 a u 1k\nR2 u 0 1k\n.model p D(ron=0)\nD1 b u p\nD2 c u p\nR3 b c 1k\nR4 u y 1k\nR5 y 0 1k\n"
    ".output y\n.train R1 R2 R3 R4 R5"
)


@pytest.mark.parametrize("text", [LEARNER, TIED, DRIVEN, CUT_OFF])
def test_the_adjoint_of_many_unknowns_is_that_of_few(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = compile_problem(parse(text))
    drive, outputs = problem.drive(slice(0, 1)), find_outputs(problem)
    state = Newton(CPU, 1e-12).free(problem, drive, np.zeros((1, problem.n_free)))
    pull = np.linspace(1.0, 2.0, outputs.nodes.size)[None]
    few = implicit_fields(problem, drive, state, outputs, pull).delta
    monkeypatch.setattr(adjoint, "_DENSE", 0)
    many = implicit_fields(problem, drive, state, outputs, pull).delta
    np.testing.assert_allclose(few, many, rtol=1e-11, atol=1e-11 * np.abs(many).max())
    assert many.any()


@pytest.mark.slow
def test_the_adjoint_knows_which_diodes_hold_a_node_beside_controlled_sources() -> None:
    """Newton leaves n0 next to its bound there, by more than float64 rounds."""
    text = (
        "t\nV1 in 0 2\nV2 sink 0 -1.5\nR0 n0 n3 2512\nR1 n1 n2 4472.23\nR2 n2 n3 1043.2\nR3 n3 in 1468.51\n"
        "R4 n4 sink 2981.78\nR5 n5 0 2559.75\nR6 n6 sink 4744.99\nR7 n1 n0 4628.21\nR8 n2 0 2027.48\n"
        "R10 in n1 3987.45\nR11 n5 in 4576.73\nR12 n3 in 2845.04\nR13 n1 n6 4979.95\nVo n5 n2 -0.00524\n"
        ".model p D(ron=0 vfwd=0.1)\n.model soft D(is=1e-9 n=1.5)\nD0 n0 sink p\nD1 n0 sink p\nD9 n3 sink soft\n"
        "E0 x0 n1 n3 n5 -0.574\nRE0 x0 n3 1k\n.output n1 n6\n"
        ".train R0 R1 R2 R3 R4 R5 R6 R7 R8 R10 R11 R12 R13 RE0"
    )
    for tol in (1e-9, 1e-13):
        found = newton_gradients(compile_problem(parse(text)), np.array([[0.3, -0.1]]), 1e-7, tol)
        assert relative(found["implicit"], found["finite"]) < 1e-4


def test_diodes_both_ways_tie_two_nodes_when_nothing_flows_too() -> None:
    text = (
        "t\nVx a 0 0\nR1 a u 1k\nR2 u 0 1k\nR3 v a 1k\nR4 v 0 1k\nIb 0 u 0\n.model p D(ron=0)\nD1 u v p\nD2 v u p\n"
        ".output v\n.train Ib"
    )
    found = newton_gradients(compile_problem(parse(text)), np.array([[0.3]]), 1e-6)
    assert found["finite"][0] == pytest.approx(-75)
    assert relative(found["implicit"], found["finite"]) < 1e-6


def test_diodes_both_ways_with_forward_drops_leave_a_gap() -> None:
    text = (
        "t\nVx a 0 0\nR1 a u 1k\nR2 u 0 1k\nR3 v a 1k\nR4 v 0 1k\nIb 0 u 0\n.model p D(ron=0 vfwd=0.1)\nD1 u v p\n"
        "D2 v u p\n.output v\n.train Ib"
    )
    assert newton_gradients(compile_problem(parse(text)), np.array([[0.3]]), 1e-6)["implicit"][0] == 0


@pytest.mark.parametrize(("volts", "tied"), [([0.0, -1.0], [1, 0]), ([-1.0, 0.0], [0, 1]), ([-1.0], [0])])
def test_diodes_both_ways_tie_two_nodes_in_the_rows_without_a_gap(volts: list[float], tied: list[int]) -> None:
    """v - 1 V <= u <= v where the source between w and v is at -1 V, and u = v where it is at 0 V."""
    text = (
        "t\nVx w v 0\nVa a 0 0\nR1 a u 1k\nR2 u 0 1k\nR3 v 0 1k\nR4 v a 1k\n.model p D(ron=0)\nD1 u v p\nD2 w u p\n"
        "Ib 0 u -0.2m\n.output v\n.train Ib"
    )
    problem = compile_problem(parse(text)).with_values({"Vx": volts})
    found = newton_gradients(problem, np.array([[0.3]]), 1e-6)["implicit"][0]
    slopes = 250.0 * (np.array(tied) * -0.05 - 0.3)  # dv/di = 250 ohm, to -0.05 V
    assert found == pytest.approx((np.array(tied) * slopes).mean())


def test_a_node_that_conducting_diodes_alone_hold_moves_with_what_they_join() -> None:
    """m, the first of u, m and v, has no conductance of its own; 0.5 mS from 1 V against 1.5 mS give 0.25 V."""
    text = (
        "t\nD2 m v p\nD1 u m p\nV1 in 0 1\nR1 in x 1k\nR4 x u 1k\nR2 u 0 1k\nR3 v w 1k\nR5 w 0 1k\n.model p D(ron=0)\n"
        ".output v\n.train R1"
    )
    problem = compile_problem(parse(text))
    assert problem.topology.index_of_node[problem.circuit.nodes.index("m")] == 0
    found = newton_gradients(problem, np.array([[0.3]]), 1e-6)["implicit"][0]
    assert found == pytest.approx((0.25 - 0.3) * (1 - 0.25) / 2e-3 * 0.25)  # a quarter: R4 in series with R1


def test_a_part_that_open_diodes_cut_off_has_no_part_in_the_gradient() -> None:
    found = newton_gradients(compile_problem(parse(CUT_OFF)), np.array([[0.3]]), 1e-6)
    assert found["implicit"][2] == 0
    assert relative(found["implicit"], found["finite"]) < 1e-6


ONE_UNIT = "t\nV1 in 0 3\nR1 in a 1k\nR2 a 0 1k\nV2 b a 0.7\nR3 b 0 2k\n.output a b\n.train R1 R2"


def test_outputs_of_one_unit_add_up() -> None:
    problem = compile_problem(parse(ONE_UNIT))
    found = newton_gradients(problem, np.array([[0.4, 0.2]]), 1e-6)
    assert relative(found["implicit"], found["finite"]) < 1e-5


@pytest.mark.parametrize("phases", [EXACT, Newton(CPU, 1e-13)], ids=["sweeps", "newton"])
@pytest.mark.parametrize("beta", [1e-3, -0.5e-3])
def test_a_unit_is_nudged_once_for_each_of_its_outputs(beta: float, phases: Phases) -> None:
    """From 1.06 V on a, by (0.4 + 0.2 - 0.7 - 2 x 1.06) V beta / (2.5 mS + 2 beta); which is as much for b."""
    problem = compile_problem(parse(ONE_UNIT))
    drive = problem.drive(slice(0, 1))
    x = phases.free(problem, drive, np.zeros((1, 1))).x
    assert x.item() == pytest.approx(1.06)
    (moved,) = phases.nudged(problem, drive, x, find_outputs(problem), np.array([[0.4, 0.2]]), (beta,))
    assert moved.item() == pytest.approx(-2.22 * beta / (2.5e-3 + 2 * beta), rel=1e-9)


@pytest.mark.parametrize("phases", [EXACT, Newton(CPU, 1e-13)], ids=["sweeps", "newton"])
@pytest.mark.parametrize("beta", [-1.25e-3, -2e-3])
def test_a_nudge_that_takes_all_conductance_of_a_unit_has_no_phase(beta: float, phases: Phases) -> None:
    """At -2 mS the equations have a solution, which is a maximum; at -1.25 mS, half of 2.5 mS, none."""
    problem = compile_problem(parse(ONE_UNIT))
    targets = np.array([[0.4, 0.2]])
    with pytest.raises(LearningError, match=r"not convex: output a has a conductance of 0\.0025 S in all"):
        phases.nudged(problem, problem.drive(slice(0, 1)), np.array([[1.06]]), find_outputs(problem), targets, (beta,))


@pytest.mark.parametrize("phases", [EXACT, Newton(CPU, 1e-13)], ids=["sweeps", "newton"])
def test_a_nudged_phase_ends_when_all_its_rows_are_at_rest(phases: Phases) -> None:
    """In one row a diode holds the output, also when nudged; in the other 1 mS pulls where 1.5 mS hold."""
    text = "t\nV1 in 0 3\nR1 in a 1k\nR2 a y 1k\nR3 y 0 1k\n.model p D(ron=0 vfwd=1.5)\nD1 y 0 p\n.output y\n.train R1"
    problem = compile_problem(parse(text)).with_values({"V1": [6.0, 3.0]})
    drive, outputs = problem.drive(slice(0, 2)), find_outputs(problem)
    x = phases.free(problem, drive, np.zeros((2, 2))).x
    np.testing.assert_allclose(outputs.voltages(problem, drive, x), [[1.5], [1.0]], rtol=1e-9)
    (moved,) = phases.nudged(problem, drive, x, outputs, np.array([[2.0], [0.5]]), (1e-3,))
    np.testing.assert_allclose(moved[:, outputs.units], [[0.0], [-0.5 / 2.5]], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moved.sum(axis=1), [0.0, -1.5 * 0.5 / 2.5], rtol=1e-9, atol=1e-9)  # a: half of it


def test_open_conductances_to_an_island_have_no_gradient() -> None:
    """No voltage of the island is better than another."""
    text = "t\nV1 in 0 3\nR1 in y 1k\nR2 y 0 1k\nR3 y x g=0\nR4 x z 1k\nI1 x z 1m\n.output y\n.train R1 R3"
    found = newton_gradients(compile_problem(parse(text)), np.array([[0.4]]), 1e-6)
    assert found["implicit"][1] == 0
    assert relative(found["implicit"], found["finite"]) < 1e-5


def test_an_open_crossbar_to_an_island_has_no_gradient() -> None:
    text = "t\nV1 in 0 3\nR1 in y 1k\nR2 y 0 1k\nRX[0:1][0:1] q[0:1] z[0:1] g=1m\nR5 y q[0] 1k\n.output y\n.train R1 RX"
    problem = compile_problem(parse(text)).with_values({"RX": [[1e-3, 0], [0, 1e-3]]})
    assert not newton_gradients(problem, np.array([[0.4]]), 1e-6)["implicit"][1].any()


@pytest.mark.parametrize("crossbar", ["RX[0:0][0:1] in[0:0] h[0:1]", "RX[0:1][0:0] h[0:1] in[0:0]"])
def test_a_trained_source_beside_a_crossbar(crossbar: str) -> None:
    """It drives a row, or a column."""
    text = f"t\nV1 in[0] 0 3\n{crossbar} g=1m\nR2 h[0] y 1k\nR3 h[1] y 2k\nR4 y 0 1k\n.output y\n.train V1 RX"
    found = newton_gradients(compile_problem(parse(text)), np.array([[0.4]]), 1e-6)
    assert found["implicit"][0] != 0
    assert relative(found["implicit"], found["finite"]) < 1e-5


def test_a_nudge_where_diodes_alone_hold_a_part() -> None:
    text = (
        "t\nVx a 0 1\nR1 a u 1k\n.model p D(ron=0)\nD1 u p p\nD2 0 p p\nD3 n u p\nD4 n 0 p\nRl p n 1k\n.output p\n"
        ".train R1"
    )
    problem = compile_problem(parse(text))
    with pytest.raises(LearningError, match="diodes alone hold a part of the circuit; choose variant positive"):
        convex.check_convex(problem, find_outputs(problem), -1e-12)
    convex.check_convex(problem, find_outputs(problem), -1e-12, doubts=False)


def test_a_linearised_circuit_without_a_solution_has_no_gradient() -> None:
    """A source of 0.5 S feeds the node that controls it: two resistors of 1 ohm carry what it gives, at any voltage."""
    text = "t\nV1 in 0 1\nR1 in a 1k\nR2 a 0 1k\nR3 b c 1\nR4 c 0 1\nG1 0 b b 0 0.5\n.output b\n.train R1"
    problem = compile_problem(parse(text))
    state = State(np.zeros((1, problem.n_free)))
    with pytest.raises(LearningError, match="determines no voltages at this state"):
        implicit_fields(problem, problem.drive(slice(0, 1)), state, find_outputs(problem), np.ones((1, 1)))


def test_voltage_sources_beside_controlled_ones_cannot_learn() -> None:
    text = "t\nV1 in 0 1\nR1 in a 1k\nR2 a 0 1k\nE1 b 0 in 0 2\nR3 b a 1k\n.output a\n.train V1"
    with pytest.raises(SettingsError, match="V1: no gradient reaches a voltage source beside controlled sources"):
        trained_elements(compile_problem(parse(text)))
