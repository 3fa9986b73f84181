"""Newton's steps for many rows at once: the GPU's kernels and the Python around them, on stand-ins for a GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from devices import CompiledDevice, NumpyDevice
from helpers import assert_laws
from test_backends import DECKS, LAWS, batched, padded, shockley
from test_gpu import WITH_BOUNDS

import circuitsim as cs
from circuitsim import choosing
from circuitsim.backends import cuda, gpu_newton
from circuitsim.backends.device import Device
from circuitsim.backends.gpu import GpuBackend
from circuitsim.backends.gpu_newton import GpuNewton
from circuitsim.gallery import Recipe, random_circuit
from circuitsim.law_kernels import Law
from circuitsim.laws import branch_current
from circuitsim.methods import limiting, newton, tiles
from circuitsim.methods.mna import make_network
from circuitsim.residual import Check
from circuitsim.stack import Stacks, stacked, units_in_copies, unstacked

NEWTON = cs.Settings(method="newton")


def ladder(cells: int) -> str:
    """Resistors in a row, from each joint a diode and a resistor to ground."""
    deck = ["ladder of diodes", "V1 p0 0 1"]
    for k in range(cells):
        deck += [f"R{k} p{k} p{k + 1} 1k", f"D{k} p{k + 1} 0 real", f"Rg{k} p{k + 1} 0 10k"]
    return "\n".join([*deck, ".model real D(is=1e-14 rs=1)"])


MESH = """diodes in parallel and between nodes that move, a floating source, a current source
V1 a 0 2
I1 0 d 1m
R1 a b 1k
D1 b c one
D2 b c two
D3 c d one
R2 c 0 2k
R3 d 0 5k
R4 b d 10k
V2 d e 0.3
R5 e 0 3k
D4 e b two
D5 a d lines
.model one D(is=1e-14 n=1.2 bv=5)
.model two D(is=1e-9 rs=5)
.model lines D(ron=10 roff=1e7 vfwd=0.6)
"""
CIRCUITS = {"ladder": ladder(12), "mesh": MESH, "every law": WITH_BOUNDS["every law"]}


def steps_on(device: Device, problem: cs.Problem) -> tuple[GpuNewton, np.ndarray]:
    """Ready for steps from the knees of the junctions, which are returned too."""
    there = GpuBackend(device).row_steps(problem)
    assert there is not None
    network, drive = make_network(problem), problem.drive(slice(0, problem.batch))
    offset = np.broadcast_to(drive.junction_offset, (problem.batch, network.law.size))
    w = limiting.first_voltages(network, offset, False)
    there.start(drive, w)
    return there, w


# -- kernels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("deck", CIRCUITS.values(), ids=CIRCUITS.keys())
def test_a_step_solves_the_network_of_the_tangents(device: Device, deck: str, batch: int) -> None:
    """By dense matrices, built from the network of newton."""
    problem = batched(deck, batch)
    there, w = steps_on(device, problem)
    network, drive = make_network(problem), problem.drive(slice(0, batch))
    eye = np.eye(problem.n_free)
    incidence = np.stack([network.across(unit) for unit in eye], axis=1)
    i, g = branch_current(network.law, network.params, w)
    matrix = network.flow(eye).T + np.einsum("rm,mi,mj->rij", g, incidence, incidence)
    wanted = network.sides(drive) - (i + g * (drive.junction_offset - w)) @ incidence
    x = np.linalg.solve(matrix, np.broadcast_to(wanted, (batch, problem.n_free))[:, :, None])[:, :, 0]
    there.step(1.0)
    got = device.to_host(there.x).T
    np.testing.assert_allclose(got, x, rtol=0, atol=1e-11 * np.abs(x).max())
    v = got @ incidence.T + drive.junction_offset
    line = i + g * (v - w)
    limited = limiting.limited(network.law, network.params, w, i, v, line)
    np.testing.assert_allclose(device.to_host(there.w).T, limited, rtol=1e-11, atol=1e-12)
    for mine, theirs in zip(
        (there.current, there.slope), branch_current(network.law, network.params, limited), strict=True
    ):
        np.testing.assert_allclose(device.to_host(mine).T, theirs, rtol=1e-8, atol=1e-20)


@pytest.mark.parametrize("deck", CIRCUITS.values(), ids=CIRCUITS.keys())
def test_kernels_do_what_their_twins_do(compiled: CompiledDevice, deck: str) -> None:
    problem = batched(deck, 4)
    (one, _), (twin, _) = steps_on(compiled, problem), steps_on(NumpyDevice(), problem)
    for _ in range(4):
        for name in ("w", "current", "slope"):  # each step from the same tangents
            getattr(one, name)[:] = getattr(twin, name)
        assert one.step(1e-4) == twin.step(1e-4)
        for name in ("value", "pivot", "x", "w", "current", "slope", "amps"):
            mine, theirs = getattr(one, name), getattr(twin, name)
            scale = np.abs(theirs).max() if name in ("x", "amps") else 0.0
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12 * scale + 1e-25)
        one.x[:] = twin.x  # violations are differences of currents: they show each rounding of the voltages
        for mine, theirs in zip(one._kcl(), twin._kcl(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-12 * np.abs(theirs).max())


EDGES = [  # breakdown that begins at -3 N Vt, adjusted to less than that or below 0 V; an IS that is none
    padded(Law.SHOCKLEY, shockley(*p, isr=isr))
    for *p, isr in ((1e-12, 1.0, 0.0, 0.05, 0.0), (1e-14, 2.0, 20.0, -0.1, 0.0), (0.0, 1.0, 0.0, np.inf, 1e-9))
]


@pytest.mark.parametrize(("kind", "p"), [*LAWS, *EDGES])
def test_limiting_is_that_of_the_cpu(compiled: CompiledDevice, kind: Law, p: list[float]) -> None:
    """Wherever the leg was and goes, and whatever current its old tangent has there.

    Slopes are powers of two: their products are exact, so that the currents on the old tangents are the same.
    """
    rng = np.random.default_rng(7)
    count = 400
    was, v, amps = (rng.normal(size=count) * 10.0 ** rng.uniform(*span, count) for span in ((-2, 1), (-2, 2), (-16, 2)))
    params, law = np.array([p]), np.array([int(kind)])
    slope = 2.0 ** rng.integers(-40, 7, count)
    current = amps - slope * (v - was)
    zero, none = np.zeros(1, np.int64), np.full(1, -1)
    for device in (compiled, NumpyDevice()):
        state = [np.array(a[None]) for a in (was, current, slope)]
        out = [np.empty((1, count)) for _ in range(2)]
        device.launch(
            "tangents",
            count,
            count,
            1,
            v[None].copy(),
            zero,
            none,
            law,
            params[None],
            1,
            zero[:, None] * 0.0,
            1,
            *state,
            *out,
        )
        if device is compiled:
            mine = [*state, *out]
    *same, miss = zip(mine, [*state, *out], strict=True)
    for got, wanted in same:
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-300)
    got, wanted = miss  # a difference of what the leg carries (`out[0]`) and what its tangent says
    assert (np.abs(got - wanted) <= 1e-9 * wanted + 8 * np.finfo(float).eps * out[0]).all()


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-3, 1.0])
@pytest.mark.parametrize("deck", CIRCUITS.values(), ids=CIRCUITS.keys())
def test_bounds_are_above_the_certificate(device: Device, deck: str, noise: float) -> None:
    problem = batched(deck, 4)
    x = cs.solve(problem, cs.Settings(method="newton", tol=1e-13)).x
    x = x + noise * np.random.default_rng(3).normal(size=x.shape)
    there, _ = steps_on(device, problem)
    there.x[:] = device.xp.asarray(x.T)
    rho, most, upper = (device.to_host(a).T for a in there._kcl())
    exact = Check(problem, problem.drive(slice(0, 4)), x, exact=True)
    assert (most >= np.abs(exact.rho)).all() and (upper >= exact.upper * (1 - 1e-12)).all()
    if noise >= 1e-3:
        np.testing.assert_allclose(rho, exact.rho, rtol=1e-6, atol=1e-9 * np.abs(exact.rho).max())
    if deck == CIRCUITS["ladder"]:  # the others have offsets, and laws that are flat: bounds there may be far away
        assert (upper <= 3 * exact.upper + 1e-9).all()  # at its first joint two resistors end at known potentials
    elif noise == 0.0:
        assert (upper <= 1e-9).all()


@pytest.mark.parametrize("seed", range(12))
def test_bounds_hold_what_branches_say(device: Device, seed: int) -> None:
    rng = np.random.default_rng(seed)
    recipe = Recipe(nodes=9, shockley=3, pwl=2, ideal=0)
    problem = cs.compile_problem(cs.parse(random_circuit(rng, recipe)))
    assert not gpu_newton.refusal(problem)
    there, _ = steps_on(device, problem)
    for noise in (1e-9, 1e-3, 1.0):
        x = rng.normal(0.0, noise, (1, problem.n_free)) + rng.normal()
        there.x[:] = device.xp.asarray(x.T)
        rho, most, upper = (device.to_host(a).T for a in there._kcl())
        exact = Check(problem, problem.drive(slice(0, 1)), x, exact=True)
        assert (most >= np.abs(exact.rho)).all() and (upper >= exact.upper * (1 - 1e-12)).all()
        np.testing.assert_allclose(rho, exact.rho, rtol=1e-6, atol=1e-9 * np.abs(exact.rho).max())


# -- solving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("deck", CIRCUITS.values(), ids=CIRCUITS.keys())
def test_solutions_are_those_of_the_cpu(device: Device, deck: str, batch: int) -> None:
    problem = batched(deck, batch)
    here = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    there = cs.solve(problem, cs.Settings(method="newton", tol=1e-13, backend="cpu"))
    assert (here.backend, here.method, here.why) == ("gpu", "newton", "asked for")
    np.testing.assert_allclose(here.x, there.x, rtol=0, atol=1e-12 * np.abs(there.x).max())
    assert_laws(here, 1e-9)
    exact = Check(problem, problem.drive(slice(0, batch)), here.x, exact=True).certificate()
    assert exact.kcl_relative <= here.residuals.kcl_relative <= 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_laws_of_nature_hold_on_random_circuits(device: Device, seed: int) -> None:
    recipe = Recipe(nodes=8, shockley=4, pwl=3, ideal=0)
    problem = batched(random_circuit(np.random.default_rng(seed), recipe), 3)
    solution = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    assert_laws(solution, 1e-8)
    assert solution.backend == ("cpu" if gpu_newton.refusal(problem) else "gpu")


def test_a_start_is_gone_on_from(device: Device) -> None:
    problem = batched(CIRCUITS["ladder"], 3)
    cold = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    warm = cs.solve(problem, NEWTON, backend=GpuBackend(device), start=cold.x)
    assert warm.steps == tiles._EXTRA_STEPS + 1 < cold.steps
    np.testing.assert_allclose(warm.x, cold.x, rtol=0, atol=1e-12 * np.abs(cold.x).max())


def test_rows_that_do_not_arrive_go_to_the_cpu(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, each from the row before it; the others stay as they are; the solution says how many."""
    problem = batched(CIRCUITS["mesh"], 5)
    whole = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    found = GpuNewton.found
    asked: list[int] = []

    def some(self: GpuNewton, tolerance: float, moves: float) -> tuple[np.ndarray, np.ndarray, cs.Residuals]:
        x, arrived, residuals = found(self, tolerance, moves)
        x[[1, 4]], arrived[[1, 4]] = np.nan, False
        return x, arrived, residuals

    solve = newton._Row.solve
    monkeypatch.setattr(newton._Row, "solve", lambda row, *a: asked.append(row.drive.rows.start) or solve(row, *a))
    monkeypatch.setattr(GpuNewton, "found", some)
    part = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    assert asked == [1, 4]
    assert part.why == "asked for; 2 of 5 rows did not converge on the gpu and were solved on the cpu"
    assert (part.backend, part.solved) == ("gpu", True)
    np.testing.assert_array_equal(part.x[[0, 2, 3]], whole.x[[0, 2, 3]])
    np.testing.assert_allclose(part.x, whole.x, rtol=0, atol=1e-8 * np.abs(whole.x).max())
    assert_laws(part, 1e-8)
    starts: list[np.ndarray] = []
    monkeypatch.setattr(newton._Row, "solve", lambda row, x, warm: starts.append(x.copy()) or solve(row, x, warm))
    cs.solve(problem, NEWTON, backend=GpuBackend(device), start=whole.x)
    np.testing.assert_array_equal(starts, whole.x[[1, 4]])  # their own, not what the device left


def test_what_bounds_do_not_settle_goes_to_the_cpu(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without any current, in all rows, where rounding decides which of them arrive; steps that lead nowhere."""
    dead_end = ladder(3).replace("Rg2 p3 0 10k", "Re p3 end 7k")
    problem = batched(dead_end, 4)
    found, solve = GpuNewton.found, newton._Row.solve
    lost: list[int] = []
    asked: list[int] = []

    def noted(self: GpuNewton, tolerance: float, moves: float) -> tuple[np.ndarray, np.ndarray, cs.Residuals]:
        x, arrived, residuals = found(self, tolerance, moves)
        lost.extend(np.flatnonzero(~arrived))
        return x, arrived, residuals

    with monkeypatch.context() as patch:
        patch.setattr(GpuNewton, "found", noted)
        patch.setattr(newton._Row, "solve", lambda row, *a: asked.append(row.drive.rows.start) or solve(row, *a))
        solution = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    assert lost and asked == lost
    assert solution.solved and f"{len(lost)} of 4 rows did not converge" in solution.why
    wanted = cs.solve(problem, NEWTON).x
    np.testing.assert_allclose(solution.x, wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())
    assert_laws(solution, 1e-8)
    there, _ = steps_on(device, problem)
    there.slope[:] = np.nan
    there.step(1e-4)
    assert not there.found(1e-9, 1e-9)[1].any()
    there.x[:] = 1.0
    there.pivot[:] = 0.0  # as conductances without limit leave it: no correction follows from it
    assert not there.found(np.inf, 1e-9)[1].any()


def test_voltages_that_little_holds_go_to_the_cpu(device: Device) -> None:
    """1 A between two nodes on 10 Tohm: KCL is met to 1e-9 wherever they are together."""
    weak = MESH + "I9 p q 1\nR9 p q 1\nRp p 0 1e13\nRq q 0 1e13\n"
    problem = batched(weak, 1)
    there, _ = steps_on(device, problem)
    for _ in range(30):
        there.step(1e-4)
    *_, upper = there._kcl()
    assert (device.to_host(upper) <= 1e-9).all()
    assert not there.found(1e-9, 1e-9)[1].any() and there.found(1e-9, np.inf)[1].all()
    solution = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    assert "1 of 1 rows did not converge" in solution.why
    np.testing.assert_allclose([solution.voltage("p"), solution.voltage("q")], [[-0.5], [0.5]], rtol=1e-9)


def test_failures_are_failures(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that does not arrive on the CPU either is one of the solution."""
    problem = batched(CIRCUITS["ladder"], 3)
    solve = newton._Row.solve
    monkeypatch.setattr(newton._Row, "solve", lambda *a: solve(*a).ended(cs.Status.STALLED, 0))
    monkeypatch.setattr(newton, "FULL_STEPS", 2)  # too few to arrive
    solution = cs.solve(problem, NEWTON, backend=GpuBackend(device), raise_on_failure=False)
    assert solution.status is cs.Status.STALLED and "3 of 3 rows did not converge on the gpu" in solution.why


# -- copies side by side: a row for each, with conductances and laws of its own ----------------------------------------


def side_by_side(deck: str, copies: int) -> tuple[list[cs.Circuit], cs.Problem]:
    """Circuits of one deck, with other resistances, sources and diodes."""
    base = cs.compile_problem(cs.parse(deck))
    rng, circuits = np.random.default_rng(5), []
    for _ in range(copies):
        c = base.circuit
        g = c.conductors.g * rng.uniform(0.5, 2.0, c.conductors.g.size)
        params = c.junctions.params.copy()
        params[:, 0] *= rng.uniform(0.5, 2.0, len(params))
        e, i = (x * rng.uniform(0.5, 1.5, x.shape) for x in (c.ties.e, c.current_sources.i))
        circuits.append(replace(
            c, conductors=replace(c.conductors, g=g), junctions=replace(c.junctions, params=params),
            ties=replace(c.ties, e=e), current_sources=replace(c.current_sources, i=i),
        ))  # fmt: skip
    return circuits, Stacks(base, copies).problem(stacked(circuits))


@pytest.mark.parametrize("deck", CIRCUITS.values(), ids=CIRCUITS.keys())
def test_a_pattern_has_the_conductances_of_each_copy(deck: str) -> None:
    circuits, problem = side_by_side(deck, 4)
    pattern = gpu_newton.pattern_of(problem)
    for k, circuit in enumerate(circuits):
        one = gpu_newton.pattern_of(problem.one.with_circuit(circuit))
        for name in ("linear", "g", "to_fixed"):
            np.testing.assert_allclose(getattr(pattern, name)[:, [k]], getattr(one, name), rtol=1e-14)
        np.testing.assert_array_equal(pattern.params[k], one.params[0])
        for name in ("unit", "ptr", "end", "target", "leg_ptr", "legs", "near", "law"):
            np.testing.assert_array_equal(getattr(pattern, name), getattr(one, name))


@pytest.mark.parametrize("deck", CIRCUITS.values(), ids=CIRCUITS.keys())
def test_copies_are_rows_with_values_of_their_own(device: Device, deck: str) -> None:
    """Each step, and each bound, is that of the circuit alone."""
    circuits, problem = side_by_side(deck, 5)
    there, _ = steps_on(device, problem)
    alone = [steps_on(device, problem.one.with_circuit(circuit))[0] for circuit in circuits]
    for _ in range(3):
        there.step(1e-4)
        for k, one in enumerate(alone):
            one.step(1e-4)
            for name in ("x", "w", "current", "slope"):
                mine, theirs = (device.to_host(getattr(steps, name)) for steps in (there, one))
                np.testing.assert_allclose(mine[:, [k]], theirs, rtol=1e-7, atol=1e-9 * np.abs(theirs).max())
                setattr(one, name, device.xp.ascontiguousarray(getattr(there, name)[:, k : k + 1]))
    for k, one in enumerate(alone):
        for mine, theirs in zip(there._kcl(), one._kcl(), strict=True):
            wanted = device.to_host(theirs)
            np.testing.assert_allclose(
                device.to_host(mine)[:, [k]], wanted, rtol=1e-6, atol=1e-9 * np.abs(wanted).max()
            )


@pytest.mark.parametrize("deck", CIRCUITS.values(), ids=CIRCUITS.keys())
def test_a_stack_is_solved_there(device: Device, deck: str) -> None:
    circuits, problem = side_by_side(deck, 5)
    here = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    assert (here.backend, here.why, here.x.shape) == ("gpu", "asked for", (1, problem.n_free))
    exact = Check(problem, problem.drive(slice(0, 1)), here.x, exact=True).certificate()
    assert exact.kcl_relative <= here.residuals.kcl_relative <= 1e-9
    v = unstacked(here.voltages(), 5, nodes=True)
    for k, circuit in enumerate(circuits):
        wanted = cs.solve(circuit, cs.Settings(method="newton", tol=1e-13, backend="cpu")).voltages()[0]
        np.testing.assert_allclose(v[k], wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())


def test_a_conductance_that_is_0_in_one_copy_counts_in_the_others(device: Device) -> None:
    circuits, base = side_by_side(CIRCUITS["mesh"], 3)[0], cs.compile_problem(cs.parse(CIRCUITS["mesh"]))
    conductors, names = base.circuit.conductors, base.circuit.netlist.tables["R"].names
    g = circuits[1].conductors.g.copy()
    g[[names[row] == "R4" for row in conductors.row.tolist()]] = 0.0
    circuits[1] = replace(circuits[1], conductors=replace(circuits[1].conductors, g=g))
    problem = Stacks(base, 3).problem(stacked(circuits))
    found = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    assert (found.backend, found.why) == ("gpu", "asked for")
    there, _ = steps_on(device, problem)
    rng = np.random.default_rng(3)
    x = found.x + 1e-3 * rng.normal(size=found.x.shape)
    there.x[:] = device.xp.asarray(x[0, units_in_copies(problem)].T)
    rho = device.to_host(there._kcl()[0]).T
    exact = Check(problem, problem.drive(slice(0, 1)), x, exact=True).rho[0, units_in_copies(problem)]
    np.testing.assert_allclose(rho, exact, rtol=1e-6, atol=1e-9 * np.abs(exact).max())


def test_the_worst_unit_is_that_of_the_stack() -> None:
    _, problem = side_by_side(CIRCUITS["ladder"], 4)
    solution = cs.solve(problem, NEWTON, backend=GpuBackend(NumpyDevice()))
    upper = Check(problem, problem.drive(slice(0, 1)), solution.x, exact=True).upper[0]
    assert solution.residuals.worst_row == 0
    there, _ = steps_on(NumpyDevice(), problem)
    there.x[:] = solution.x[0, units_in_copies(problem)].T
    bounds = there._kcl()[2]
    assert upper.size == problem.n_free and solution.residuals.kcl_relative == bounds.max()
    unit, copy = divmod(int(bounds.argmax()), 4)
    assert solution.residuals.worst_unit == units_in_copies(problem)[copy, unit]


def test_copies_need_memory_for_values_of_their_own() -> None:
    circuits, problem = side_by_side(CIRCUITS["ladder"], 4)
    one = problem.one.with_circuit(circuits[0])
    (fixed, row), (of_stack, stack) = gpu_newton.memory(one), gpu_newton.memory(problem)
    assert fixed == of_stack
    pattern = gpu_newton.pattern_of(problem)
    assert stack - 4 * row >= 8 * (pattern.linear.size + pattern.g.size / 2 + pattern.params.size)


def test_a_copy_that_does_not_arrive_takes_the_others_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    _, problem = side_by_side(CIRCUITS["mesh"], 3)
    kcl = GpuNewton._kcl

    def one_fails(self: GpuNewton) -> tuple[np.ndarray, ...]:
        rho, most, upper = kcl(self)
        upper[2, 1] = 1.0
        return rho, most, upper

    monkeypatch.setattr(GpuNewton, "_kcl", one_fails)
    solution = cs.solve(problem, NEWTON, backend=GpuBackend(NumpyDevice()))
    assert solution.solved
    assert solution.why == "asked for; 1 of 1 rows did not converge on the gpu and were solved on the cpu"


DRAWN = MESH.replace("R2 c 0 2k", "R2 c 0 {agauss(2k, 200, 1)}").replace(
    "D2 b c two", "D2 b c two area={aunif(1, 0.5)}"
)


@pytest.mark.parametrize("deck", [DRAWN, DRAWN + "D9 c 0 perfect\n.model perfect D(ideal)\n"], ids=["there", "refused"])
def test_draws_are_solved_there(deck: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CudaDevice", NumpyDevice)
    problem, stacks = Stacks.problem, []

    def counted(self: Stacks, stack: cs.Circuit) -> cs.Problem:
        stacks.append(stack.copies)
        return problem(self, stack)

    monkeypatch.setattr(Stacks, "problem", counted)
    there = cs.monte_carlo(cs.parse(deck), 12, 1, cs.Settings(backend="gpu"))
    assert (there.backend, stacks) == ("gpu", [11] if deck == DRAWN else [])
    here = cs.monte_carlo(cs.parse(deck), 12, 1)
    np.testing.assert_allclose(there.voltages, here.voltages, atol=1e-8)
    np.testing.assert_allclose(there.currents, here.currents, rtol=1e-6, atol=1e-12)
    assert not there.failed.size and (there.kcl_relative <= 1e-9).all()


# -- which circuits, and where -----------------------------------------------------------------------------------------

REFUSED = {
    "controlled sources": (MESH + "G1 b 0 c 0 1m\n", "the circuit has controlled sources"),
    "ideal diodes": (MESH + "D9 c 0 perfect\n.model perfect D(ideal)\n", "the circuit has ideal diodes"),
    "linear": (DECKS["ladder"], "nothing in the circuit is nonlinear"),
    "islands": (MESH + "D9 c h one\nD10 h 0 one\n", "only nonlinear elements join some of its parts"),
}


@pytest.mark.parametrize(("deck", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_circuits_that_newton_does_not_solve_there(deck: str, why: str) -> None:
    problem = cs.compile_problem(cs.parse(deck))
    assert gpu_newton.refusal(problem) == why
    assert GpuBackend(NumpyDevice()).row_steps(problem) is None
    with pytest.raises(
        cs.SettingsError, match=f"^method newton cannot run on the gpu here: {why}; leave --backend out$"
    ):
        choosing.choose_method(problem, cs.Settings(method="newton", backend="gpu"))
    assert cs.solve(problem, NEWTON, backend=GpuBackend(NumpyDevice())).backend == "cpu"
    if problem.circuit.reciprocal:
        method, reason = choosing.choose_method(problem, cs.Settings(backend="gpu"))
        assert (method, reason) == ("bcd", f"not newton on the gpu: {why}")
    else:
        with pytest.raises(cs.SettingsError, match=f"this circuit needs method newton, which cannot run .*: {why};"):
            choosing.choose_method(problem, cs.Settings(backend="gpu"))


def test_large_circuits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = cs.compile_problem(cs.parse(ladder(12)))
    monkeypatch.setattr(gpu_newton, "_MOST_UPDATES", 10)
    assert gpu_newton.refusal(problem) == "its elimination has more than 10 updates"
    monkeypatch.setattr(gpu_newton, "_MOST_UNITS", 11)
    assert gpu_newton.refusal(problem) == "it has 12 unknowns, more than 11"


def test_newton_there_is_in_float64() -> None:
    problem = cs.compile_problem(cs.parse(MESH))
    with pytest.raises(cs.SettingsError, match="method newton computes in float64; leave --dtype out"):
        choosing.choose_method(problem, cs.Settings(method="newton", backend="gpu", dtype="float32"))
    assert choosing.choose_method(problem, cs.Settings(backend="gpu", dtype="float32"))[0] == "bcd"


def test_the_gpu_solves_sparse_nonlinear_circuits_by_newton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CudaDevice", NumpyDevice)
    problem = batched(CIRCUITS["ladder"], 3)
    solution = cs.solve(problem, cs.Settings(backend="gpu"))
    assert (solution.backend, solution.method, solution.why) == ("gpu", "newton", "a sparse network")
    swept = cs.sweep(cs.parse(ladder(3)), "V1 0 5 0.5", cs.Settings(backend="gpu"))
    assert (swept.backend, swept.method) == ("gpu", "newton")
    np.testing.assert_allclose(swept.voltages, cs.sweep(cs.parse(ladder(3)), "V1 0 5 0.5").voltages, atol=1e-8)


def test_auto_takes_the_gpu_where_it_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = batched(CIRCUITS["ladder"], 3)
    monkeypatch.setattr(cuda, "CudaDevice", NumpyDevice)
    monkeypatch.setattr(choosing, "GPU_WINS_NEWTON", 3 * 12 + 1)
    assert cs.solve(problem).backend == "cpu"
    monkeypatch.setattr(choosing, "GPU_WINS_NEWTON", 3 * 12)
    solution = cs.solve(problem)
    assert (solution.backend, solution.method) == ("gpu", "newton")
    assert cs.solve(problem, cs.Settings(backend="cpu")).backend == "cpu"
    assert cs.solve(batched(DECKS["ladder"], 3)).backend == "cpu"  # linear
    monkeypatch.setattr(cuda, "CudaDevice", lambda: NumpyDevice(free=5_000))  # too little
    assert cs.solve(problem).backend == "cpu"
    with pytest.raises(cs.BackendUnavailable, match=r"a stand-in has 4 kB free, this circuit needs .* for one row"):
        cs.solve(problem, cs.Settings(backend="gpu"))


def test_a_batch_too_large_for_the_device_is_split() -> None:
    problem = batched(CIRCUITS["ladder"], 11)
    small, seen = GpuBackend(NumpyDevice(free=60_000)), []
    steps = small.row_steps(problem)
    assert steps is not None and 1 < steps.tile < 11
    many = cs.solve(problem, NEWTON, backend=small, progress=lambda done, _: seen.append(done))
    assert seen == [*range(steps.tile, 11, steps.tile), 11]
    one = cs.solve(problem, NEWTON, backend=GpuBackend(NumpyDevice()))
    np.testing.assert_allclose(many.x, one.x, rtol=0, atol=1e-12 * np.abs(one.x).max())
