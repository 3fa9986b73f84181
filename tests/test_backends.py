"""Fast kernels against their slow twins, and the laws of nonlinear branches against values derived by hand."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STRAIGHT
from helpers import law as plain_law
from scipy.optimize import brentq

import circuitsim as cs
from circuitsim import gallery, law_kernels, laws, residual
from circuitsim.backends import kernels
from circuitsim.backends.base import find_backend
from circuitsim.choosing import choose_backend, choose_method
from circuitsim.gallery import Recipe, drn, random_circuit
from circuitsim.law_kernels import N_PARAMS, Law
from circuitsim.laws import branch_current, plain_current
from circuitsim.methods import bcd
from circuitsim.models import BOLTZMANN, CHARGE

pytestmark = pytest.mark.usefixtures("kernel_form")

VT = BOLTZMANN * 300.15 / CHARGE  # thermal voltage at 27 C


def random_deck(seed: int, **recipe: int) -> str:
    return random_circuit(np.random.default_rng(seed), Recipe(**recipe))


DECKS = {
    "divider": gallery.divider().text,
    "ladder": gallery.ladder(9).text,
    "grid": gallery.grid(3, 4).text,
    "crossbar": gallery.crossbar(3, 4).text,
    "diode_or": gallery.diode_or().text,
    "drn": gallery.drn([4, 6, 5, 3], gain=40.0),
    "random": random_deck(1),
    "random nonlinear": random_deck(2, nodes=7, shockley=4, pwl=4, crossbars=2),
    "random linear": random_deck(3, nodes=14, shockley=0, pwl=0, ideal=4, crossbars=4),
    "dense flat block": "\n".join(
        ["dense", *(f"Rp{i} p{i} 0 1k" for i in range(64)), *(f"Rq{i} q{i} 0 2k" for i in range(64)), "I1 0 p3 1m"]
        + [f"R{i}_{j} p{i} q{j} {1000 + 7 * i + j}" for i in range(64) for j in range(64) if (3 * i + 5 * j) % 8 < 5]
    ),
}


def batched(text: str, batch: int) -> cs.Problem:
    circuit = cs.parse(text)
    if batch > 1:
        rng = np.random.default_rng(5)
        tables = circuit.netlist.tables
        grounded = [n for n, a, b in zip(tables["V"].names, tables["V"].a, tables["V"].b, strict=True) if 0 in (a, b)]
        single = [n for n in grounded if "[" not in n]
        new = {name: rng.uniform(-5, 5, batch) for name in single}
        new |= {name: rng.uniform(-1e-3, 1e-3, batch) for name in tables["I"].names if "[" not in name}
        new |= {"Vx": rng.uniform(-40, 40, (batch, 4))} if "Vx[0]" in grounded else {}
        circuit = circuit.with_values(new)
        assert cs.compile_problem(circuit).batch == batch
    return cs.compile_problem(circuit)


@pytest.mark.parametrize(("dtype", "tol"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("deck", DECKS.values(), ids=DECKS.keys())
def test_cpu_takes_the_steps_of_the_reference(deck: str, batch: int, dtype: str, tol: float) -> None:
    problem = batched(deck, batch)
    drive = problem.drive(slice(0, problem.batch))
    x = np.random.default_rng(0).normal(0, 2, (problem.batch, problem.n_free))
    kept = x.copy()
    fast, slow = (find_backend(name).engine(problem, dtype) for name in ("cpu", "reference"))
    fast.start(drive, x)
    slow.start(drive, x)
    sweeps = 4 if problem.n_free < 100 else 2
    for _ in range(sweeps):
        assert fast.sweep(1) == slow.sweep(1)
        scale = np.abs(slow.voltages()).max(initial=0.0)
        np.testing.assert_allclose(fast.voltages(), slow.voltages(), rtol=0, atol=tol * scale)
    assert np.array_equal(x, kept)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_sweeps_in_one_go_are_single_sweeps(name: str) -> None:
    problem = batched(DECKS["random nonlinear"], 3)
    drive = problem.drive(slice(0, 3))
    engines = [find_backend(name).engine(problem, "float64") for _ in range(2)]
    for engine in engines:
        engine.start(drive, np.ones((3, problem.n_free)))
    engines[0].sweep(3)
    for _ in range(3):
        engines[1].sweep(1)
    np.testing.assert_array_equal(engines[0].voltages(), engines[1].voltages())


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_sweep_says_when_nothing_moves(name: str) -> None:
    problem = batched(DECKS["diode_or"], 1)
    engine = find_backend(name).engine(problem, "float64")
    engine.start(problem.drive(slice(0, 1)), np.zeros((1, problem.n_free)))
    assert engine.sweep(1)
    assert not engine.sweep(1)


@pytest.mark.parametrize("name", ["random linear", "diode_or", "drn"])
def test_solving_with_the_reference_backend_gives_the_same_answer(name: str) -> None:
    problem = batched(DECKS[name], 1)
    settings = cs.Settings(tol=1e-10, backend="reference")
    slow, fast = cs.solve(problem, settings), cs.solve(problem, cs.Settings(tol=1e-10, backend="cpu"))
    assert (slow.backend, fast.backend) == ("reference", "cpu")
    np.testing.assert_allclose(slow.voltages(), fast.voltages(), rtol=0, atol=1e-8 * np.abs(fast.voltages()).max())


def test_backends_by_name() -> None:
    assert find_backend("auto").name == "cpu"
    with pytest.raises(cs.SettingsError, match="unknown backend 'tpu'"):
        find_backend("tpu")


# -- branch laws -------------------------------------------------------------------------------------------------------


def shockley(
    saturation: float = 1e-14, n: float = 1.0, rs: float = 0.0, bv: float = np.inf, gmin: float = 0.0,
    ikf: float = np.inf, isr: float = 0.0, nr: float = 2.0, vj: float = 1.0, m: float = 0.5,
) -> list[float]:  # fmt: skip
    return [saturation, n * VT, rs, bv, n * VT, gmin, 1 / ikf, isr, nr * VT, 1 / vj, m / 2]


def padded(law: Law, p: list[float]) -> tuple[Law, list[float]]:
    return law, p + [0.0] * (N_PARAMS - len(p))


LAWS = [padded(*law) for law in [
    (Law.SHOCKLEY, shockley()),
    (Law.SHOCKLEY, shockley(1e-9, 2.0, gmin=1e-9)),
    (Law.SHOCKLEY, shockley(rs=10.0)),
    (Law.SHOCKLEY, shockley(1e-12, 1.5, 0.1, 5.0, 1e-12)),
    (Law.SHOCKLEY, shockley(1e-14, bv=4.3)),
    (Law.SHOCKLEY, shockley(1e-14, rs=1e-3, bv=40.0)),
    (Law.SHOCKLEY, shockley(1e-300)),
    (Law.SHOCKLEY, shockley(1e-14, ikf=1e-3)),
    (Law.SHOCKLEY, shockley(1e-14, isr=1e-9)),
    (Law.SHOCKLEY, shockley(2.7e-9, 1.84, 0.57, 100.0, 0.0, 0.044, 1.6e-9, 2.0, 0.5, 0.333)),
    (Law.SHOCKLEY, shockley(1e-12, 1.0, 1e-3, 5.0, 1e-12, 1e-2, 1e-8, 1.5, 0.7, 0.0)),
    (Law.SHOCKLEY, shockley(1e-250, 1.0, 2.0, isr=1e-12, nr=1.2)),
    (Law.PWL, [0.1, 0.7, 0.0, 0.0, 0.0, 0.0]),
    (Law.PWL, [0.1, 0.0, 0.05, 3.0, 0.0, 0.0]),
    (Law.PWL, [0.0, 0.0, 2.0, 0.0, 0.0, 0.0]),
    (Law.TANH, [1e-3, 0.5, 0.0, 0.0, 0.0, 0.0]),
    (Law.TANH, [2.0, 1e-3, 0.0, 0.0, 0.0, 0.0]),
    (Law.SINH, [1e-6, 0.2, 0.0, 0.0, 0.0, 0.0]),
    (Law.SINH, [1e-3, 5.0, 0.0, 0.0, 0.0, 0.0]),
    (Law.SINH, [1.0, 1e-4, 0.0, 0.0, 0.0, 0.0]),
    (Law.SEGMENT, [0.1, -1.0, 2.5, 0.0, 0.0, 0.0]),
    (Law.SEGMENT, [0.1, 0.75, np.inf, 0.0, 0.0, 0.0]),
    (Law.SEGMENT, [3.0, -np.inf, -2.0, 0.0, 0.0, 0.0]),
]]  # fmt: skip


def span(kind: Law, p: list[float]) -> float:
    """A factor for voltages that brings tanh and sinh of a small v0 into view."""
    return min(10.0 * p[1], 1.0) if kind in (Law.TANH, Law.SINH) else 1.0


WIDE = np.unique(np.concatenate([np.linspace(-60, 60, 241), s := np.logspace(-12, 6, 91), -s, np.linspace(-1, 1, 401)]))


@pytest.mark.parametrize(("kind", "p"), LAWS)
def test_kernel_branch_is_the_vectorised_law(kind: Law, p: list[float]) -> None:
    """From -1 MV to 1 MV, without overflow (warnings are errors)."""
    params = np.array(p)
    current, slope = plain_current(np.full(WIDE.size, kind, np.int8), np.tile(params, (WIDE.size, 1)), WIDE)
    fast = np.array([law_kernels.branch(int(kind), params, v) for v in WIDE])
    assert np.isfinite(fast).all() and np.isfinite(current).all() and np.isfinite(slope).all()
    # Where RS and the junction share the voltage, it is the resistor's part, v - w, that is known to eps v.
    fuzz = 4e-16 * np.abs(WIDE) * slope
    np.testing.assert_array_less(np.abs(fast[:, 0] - current), 1e-12 * np.abs(current) + fuzz + 1e-320)
    np.testing.assert_allclose(fast[:, 1], slope, rtol=1e-9, atol=1e-320)


def test_compiled_laws_of_many_branches_are_numpy_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """All laws at once, rows of a batch, where nothing is a number and where voltages have no end."""
    law, params = np.array([kind for kind, _ in LAWS], np.int8), np.array([p for _, p in LAWS])
    v = np.concatenate([WIDE, [np.nan, np.inf, -np.inf, 1e200, -1e200]])[:, None].repeat(law.size, axis=1)
    compiled = branch_current(law, params, v.reshape(2, -1, law.size))
    monkeypatch.setattr(laws, "SMALL", v.size)
    with np.errstate(all="ignore"):
        plain = branch_current(law, params, v)
    for found, wanted in zip(compiled, plain, strict=True):
        assert found.shape == (2, len(v) // 2, law.size)
        found = found.reshape(wanted.shape)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
        np.testing.assert_allclose(found[-4:], wanted[-4:], rtol=1e-9)
    current, slope = (x.reshape(v.shape)[:-5] for x in compiled)
    fuzz = 4e-16 * np.abs(v[:-5]) * plain[1][:-5]
    assert (np.abs(current - plain[0][:-5]) <= 1e-12 * np.abs(plain[0][:-5]) + fuzz + 1e-320).all()
    np.testing.assert_allclose(slope, plain[1][:-5], rtol=1e-9, atol=1e-320)


@pytest.mark.parametrize(("kind", "p"), LAWS)
def test_laws_rise_and_slopes_are_their_derivatives(kind: Law, p: list[float]) -> None:
    v = np.linspace(-8, 1.2, 4001) * span(kind, p)
    current, slope = branch_current(np.full(v.size, kind, np.int8), np.tile(np.array(p), (v.size, 1)), v)
    assert (np.diff(current) >= 0).all() and (slope >= 0).all()
    step = np.diff(current) / np.diff(v)
    # A mean slope lies between the slopes seen around it: knees and the exponential's growth within one step.
    around = np.stack([slope[:-1], slope[1:]])
    rounding = 4e-16 * np.abs(current[1:]) / np.diff(v) + 1e-30
    between = (step >= 0.9 * around.min(axis=0) - 1e-9 * slope.max()) & (step <= 1.1 * around.max(axis=0) + rounding)
    breaks = np.isclose(v[:-1], -3 * p[1], atol=0.01) | (v[:-1] < -p[3] + 0.01) if kind is Law.SHOCKLEY else False
    assert (between | breaks).all()


@pytest.mark.parametrize("p", [p for kind, p in LAWS if kind is Law.SHOCKLEY and p[2] > 0])
def test_series_resistance_shares_the_voltage(p: list[float]) -> None:
    """v = w + RS i(w), with i(w) from the law without RS; forward, reverse and far beyond breakdown."""
    params = np.tile(np.array(p), (WIDE.size, 1))
    kinds = np.full(WIDE.size, Law.SHOCKLEY, np.int8)
    i, slope = branch_current(kinds, params, WIDE)
    params[:, 2] = 0.0
    w = WIDE - p[2] * i
    alone, bare_slope = branch_current(kinds, params, w)
    # RS i is known to |w| / (N Vt) ulps (those of the exponent), and w = v - RS i with it; in amperes:
    rounding = 4e-16 * np.abs(WIDE) * (1 + np.abs(w) / p[1]) * bare_slope
    assert (np.abs(alone - i) <= 1e-12 * np.abs(i) + rounding).all()
    np.testing.assert_allclose(slope, bare_slope / (1 + p[2] * bare_slope), rtol=1e-5)


def test_zener_with_series_resistance_far_beyond_breakdown() -> None:
    """15 V over a 5 V zener with RS = 30 ohm: nearly 10 V / 30 ohm, whatever the steps to get there."""
    circuit = cs.parse("zener\n.model z D(is=1e-12 bv=5 ibv=1m rs=30)\nV1 a 0 15\nD1 0 a z")
    current = -cs.solve(circuit).current("D1")[0]
    assert 0.31 < current < 1 / 3
    bv, vt = circuit.junctions.params[0, 3:5]
    assert bv + vt * np.log(current / 1e-12) + 30 * current == pytest.approx(15.0, rel=1e-12)


def test_plain_formulas_of_the_helpers_agree() -> None:
    for kind, p in LAWS:
        if kind is not Law.SHOCKLEY or p[2] == 0:
            v = np.linspace(-4.9, 0.7, 57) * span(kind, p)
            i, g = branch_current(np.full(v.size, kind, np.int8), np.tile(np.array(p), (v.size, 1)), v)
            seen = np.abs(i) <= STRAIGHT
            plain = [plain_law(kind, np.array(p), x) for x in v[seen]]
            np.testing.assert_allclose(plain, np.stack([i, g], 1)[seen], rtol=1e-12)


def test_shockley_by_hand() -> None:
    """IS = 1e-14, Vt = 1.38064852e-23 x 300.15 / 1.6021766208e-19 = 25.8649 mV."""
    assert abs(VT - 0.0258649) < 1e-7
    params = np.array([shockley()])
    for v, wanted in (
        (0.0, 0.0),
        (0.6, 1.1872e-4),  # 0.6/Vt = 23.1974, e^23.1974 = 1.1872e10
        (-0.05, -8.5530e-15),  # e^-1.93312 = 0.144696
        (-1.0, -0.9999767e-14),  # (3 Vt / e)^3 = 0.0285455^3 = 2.326e-5
    ):
        i, _ = branch_current(np.zeros(1, np.int8), params, np.array([v]))
        assert abs(i[0] - wanted) <= (1e-7 if v == -1 else 1e-4) * abs(wanted)


def test_reverse_laws_meet_at_three_thermal_voltages_and_at_breakdown() -> None:
    """At -3 N Vt: e^-3 - 1 = -0.950213, and 1 + (3/(-3 e))^3 = 0.950213. At -BV the exponential starts at -IS."""
    params = np.array([shockley(bv=5.0)] * 2)
    for edge, allowed in ((-3 * VT, 1e-9), (-5.0, 1e-4)):
        i, _ = branch_current(np.zeros(2, np.int8), params, np.array([edge - 1e-12, edge + 1e-12]))
        assert abs(i[0] - i[1]) <= allowed * 1e-14
    i, _ = branch_current(np.zeros(1, np.int8), params[:1], np.array([-3 * VT]))
    assert abs(i[0] + 0.950212931632136e-14) < 1e-26


def junction_params(text: str) -> np.ndarray:
    return cs.parse(f"law\nV1 a 0 1\nD1 a 0 m\n{text}").junctions.params[0]


def test_temperature_law_by_hand() -> None:
    """At 127 C: ratio = 400.15/300.15 = 1.333167; Vt = 34.4822 mV;

    IS(T)/IS = exp(0.333167 x 1.11/0.0344822 + 3 ln 1.333167) = exp(10.72482 + 0.86268) = 107700 (EG 1.11, XTI 3, N 1).
    """
    p = junction_params(".model m D(is=1e-14)\n.temp 127")
    assert p[1] == pytest.approx(0.0344822, rel=1e-5)
    assert p[0] == pytest.approx(1.0772e-9, rel=1e-3)
    same = junction_params(".model m D(is=1e-14)")
    assert same[0] == 1e-14 and same[1] == pytest.approx(VT, rel=1e-15)
    # With N = 2, EG = 0.7, XTI = 2: exp(0.333167 x 0.7/0.0689644 + ln 1.333167) = exp(3.38170 + 0.28756) = 39.22.
    other = junction_params(".model m D(is=1e-14 n=2 eg=0.7 xti=2)\n.temp 127")
    assert other[0] == pytest.approx(39.22e-14, rel=1e-3)
    nominal = junction_params(".model m D(is=1e-14 tnom=127)\n.temp 127")
    assert nominal[0] == pytest.approx(1e-14, rel=1e-14)


@pytest.mark.parametrize(("area", "m"), [(1.0, 1.0), (3.0, 1.0), (1.0, 3.0)])
@pytest.mark.parametrize(
    ("bv", "ibv", "rest"), [(5.0, 1e-3, ""), (50.0, 1e-6, ""), (5.0, 1e-3, "n=1.7"), (3.3, 5e-3, "is=1e-9")]
)
def test_breakdown_passes_through_ibv(bv: float, ibv: float, rest: str, area: float, m: float) -> None:
    """BV moves to x so that IS (exp((BV - x)/(N Vt)) - 1 + x/Vt) = IBV: I(-BV) = -IBV but for IS (x/Vt - 1)."""
    circuit = cs.parse(f"zener\nV1 a 0 1\nD1 0 a m area={area} m={m}\n.model m D(bv={bv} ibv={ibv} {rest})")
    i, _ = branch_current(circuit.junctions.law, circuit.junctions.params, np.array([-bv]))
    saturation, _, _, x, nvt, *_ = circuit.junctions.params[0]
    vt = nvt / (1.7 if "n=1.7" in rest else 1.0)
    assert -i[0] == pytest.approx(ibv * m - saturation * (x / vt - 1), rel=1e-9)
    assert -i[0] == pytest.approx(ibv * m, rel=1e-4)


def test_breakdown_below_what_saturation_gives_is_left_alone() -> None:
    """IBV < IS BV / Vt cannot be met by moving BV (diotemp.c): BV stays."""
    assert junction_params(".model m D(is=1e-6 bv=5 ibv=1u)")[3] == 5.0


# -- roots -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_unit_root_is_the_root(seed: int) -> None:
    """Against Brent's method on the vectorised laws; a quarter of the cases have no linear branch at the unit."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 5))
    chosen = [LAWS[k] for k in rng.integers(0, len(LAWS), m)]
    kinds = np.array([kind for kind, _ in chosen], np.int8)
    params = np.array([p for _, p in chosen])
    signs = rng.choice([-1.0, 1.0], m)
    zeros = rng.uniform(-3, 3, m)
    diag = 0.0 if seed % 4 == 0 else 10 ** rng.uniform(-6, -1)
    current = diag * rng.uniform(-10, 10)
    if diag == 0.0:  # two bare diodes, back to back: a root without a linear branch
        kinds, params, m = np.zeros(2, np.int8), np.array([shockley(1e-12), shockley(1e-10, 2.0)]), 2
        signs, zeros = np.array([1.0, 1.0]), rng.uniform(-0.5, 0.5, 2)
        current = rng.choice([0.0, 1e-3, 1e-9, -5e-11])

    def kcl(x: float) -> float:
        i, _ = branch_current(kinds, params, signs * (x - zeros))
        return float(diag * x - current + (signs * i).sum())

    wanted = brentq(kcl, -30, 30, xtol=1e-15, rtol=1e-15, maxiter=1000)
    for start in (0.0, -20.0, 7.0):
        found = kernels.unit_root(start, diag, current, zeros, signs, kinds, params, 0, m)
        assert abs(found - wanted) <= 1e-11 * max(abs(wanted), 1.0)
        assert kcl(np.nextafter(found, -np.inf) - 1e-13) <= 0 <= kcl(np.nextafter(found, np.inf) + 1e-13)


def test_params_table_is_as_wide_as_the_laws_say() -> None:
    assert len(shockley()) == N_PARAMS


def test_looks_that_take_long_come_when_they_may_find_the_tolerance_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer of them, as many sweeps but for one or two, and the same answer."""
    problem = cs.compile_problem(cs.parse(drn([6, 40, 30, 30, 3], gain=1000.0)))
    settings, looks = cs.Settings(method="bcd", backend="cpu", tol=1e-12), list[int]()
    certificate = residual.Check.meets

    def counted(check: residual.Check, tolerance: float) -> bool:
        looks[-1] += 1
        return certificate(check, tolerance)

    monkeypatch.setattr(residual.Check, "meets", counted)
    solutions = []
    for work in (10**9, 0):
        monkeypatch.setattr(bcd, "FULL_WORK", work)
        looks.append(0)
        solutions.append(cs.solve(problem, settings))
    before, after = solutions
    assert looks[1] < 0.75 * looks[0] and before.steps > 12
    assert before.steps <= after.steps + 1 and after.steps <= before.steps + 2
    np.testing.assert_allclose(after.x, before.x, rtol=0, atol=1e-9 * np.abs(before.x).max())


def test_sweeps_still_to_come_at_the_rate_between_two_looks() -> None:
    assert bcd._still_ahead(None, (2, 1e-2), 1e-9) == 0
    assert bcd._still_ahead((10, 1e-2), (12, 1e-4), 1e-9) == 4  # a tenth a sweep: five more, of which four are sure
    assert bcd._still_ahead((2, 1e-2), (3, 9e-3), 1e-9) == 1  # no more than half of those that were
    assert bcd._still_ahead((2, 1e-2), (3, 2e-2), 1e-9) == 0  # it rises
    assert bcd._still_ahead((2, 1e-2), (3, 0.0), 1e-9) == bcd._still_ahead((2, 0.0), (3, 1e-2), 1e-9) == 0  # not known


def test_no_order_of_elimination_is_sought_for_bcd() -> None:
    """It takes longer than solving layers; nor for many rows of perfect diodes."""
    rng = np.random.default_rng(0)
    cards = [f"R{k} {rng.integers(100)} {rng.integers(100)} 1k" for k in range(400)]
    graph = "\n".join(["graph", "V1 1 0 1", *cards, "D1 2 0 di", ".model di d(ron=0)"])
    many = cs.compile_problem(cs.parse(graph)).with_values({"V1": np.linspace(0.0, 1.0, 65)})
    for problem in (cs.compile_problem(cs.parse(drn((6, 40, 30, 4)))), many):
        assert choose_method(problem, cs.Settings())[0] == "bcd"
        choose_backend(problem, cs.Settings())
        assert "solver" not in vars(problem.topology)


SHOCKLEY = "is=1e-14"


def wired(ohms: float = 1.0, model: str = SHOCKLEY, hidden: tuple[int, ...] = (8,)) -> cs.Problem:
    """Dense layers of about 1 mS: 6 inputs, hidden nodes with diodes, each by a wire to the next layer, 3 outputs."""
    cards = ["layers", ".options seed=1", f".model d D({model})", "Vx[0:5] a0[0:5] 0 {aunif(0, 2)}"]
    sizes = [6, *hidden, 3]
    for k in range(1, len(sizes)):
        before, nodes = f"[0:{sizes[k - 1] - 1}]", f"[0:{sizes[k] - 1}]"
        cards.append(f"RW{k}{before}{nodes} a{k - 1}{before} h{k}{nodes} g={{aunif(1m, 0.9m)}}")
        if k <= len(hidden):
            cards += [f"Rz{k}{nodes} h{k}{nodes} a{k}{nodes} {ohms}", f"D{k}{nodes} 0 h{k}{nodes} d"]
    return cs.compile_problem(cs.parse("\n".join(cards)))


BY_NEWTON = "newton", "dense layers joined by large conductances"
BY_BCD = "bcd", "dense layers"


@pytest.mark.parametrize(
    ("problem", "settings", "expected"),
    [
        (wired(), cs.Settings(), BY_NEWTON),
        (wired(model="ron=10 vfwd=0.5"), cs.Settings(), BY_NEWTON),
        (wired(model="ron=1"), cs.Settings(), BY_NEWTON),  # open at 0 V
        (wired(), cs.Settings(method="bcd"), ("bcd", "asked for")),
        (wired(), cs.Settings(backend="gpu"), BY_BCD),
        (wired(), cs.Settings(dtype="float32"), ("bcd", "newton has no float32")),
        (wired(ohms=30.0), cs.Settings(), BY_NEWTON),
        (wired(ohms=100.0), cs.Settings(), BY_BCD),
        (wired(ohms=100.0), cs.Settings(tol=1e-15), BY_NEWTON),  # which takes more sweeps
        (wired(model="ron=0"), cs.Settings(), BY_BCD),  # sweeps take little time
        (wired(model="ron=0.01 roff=0.01"), cs.Settings(), BY_BCD),  # 100 S in parallel hold the nodes
        (wired(hidden=(300, 300)), cs.Settings(), BY_BCD),  # elimination takes long
        (wired(hidden=(60, 60)), cs.Settings(), BY_NEWTON),
    ],
)
def test_layers_that_wires_make_slow_go_to_newton(
    problem: cs.Problem, settings: cs.Settings, expected: tuple[str, str]
) -> None:
    assert choose_method(problem, settings) == expected


@pytest.mark.parametrize(
    ("rows", "width", "settings", "expected"),
    [
        (4, 8, cs.Settings(), ("newton", "rows of a small circuit, solved at once")),
        (3, 8, cs.Settings(), BY_BCD),
        (4, 8, cs.Settings(backend="gpu"), BY_BCD),
        (4, 39, cs.Settings(), BY_BCD),  # 41 unknowns: row by row
        (4, 8, cs.Settings(dtype="float32"), ("bcd", "newton has no float32")),
    ],
)
def test_rows_of_small_dense_layers_go_to_newton(
    rows: int, width: int, settings: cs.Settings, expected: tuple[str, str]
) -> None:
    h = f"h[0:{width - 1}]"
    text = (
        f"t\nVx[0:3] x[0:3] 0 0\nRA[0:3][0:{width - 1}] x[0:3] {h} g=1m\nN[0:{width - 1}] {h} 0 m\n"
        f"RB[0:{width - 1}][0:1] {h} y[0:1] g=1m\nRy[0:1] y[0:1] 0 1k\n.model m TANH(imax=1m)"
    )
    volts = np.linspace(-1, 1, 4 * rows).reshape(rows, 4)
    problem = cs.compile_problem(cs.parse(text)).with_values({"Vx": volts})
    assert choose_method(problem, settings) == expected
    if expected[0] == "newton":
        by_bcd = cs.solve(problem, cs.Settings(method="bcd", tol=1e-12))
        assert cs.solve(problem).x == pytest.approx(by_bcd.x, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("ohms", [1.0, 30.0, 100.0, 300.0])
@pytest.mark.parametrize("model", [SHOCKLEY, "ron=10 vfwd=0.5"])
def test_where_sweeps_are_in_vain_many_are_needed(model: str, ohms: float) -> None:
    problem = wired(ohms, model)
    assert bcd.is_in_vain(problem, 1e-9) == (ohms < 60.0)
    if ohms < 60.0:
        found = cs.solve(problem, cs.Settings(method="bcd"))
        assert found.steps > bcd._PATIENCE_CURVED
        assert cs.solve(problem).x == pytest.approx(found.x, rel=1e-5, abs=1e-9)


def test_open_wires_join_nothing() -> None:
    text = "t\nV1 in 0 1\nR1 in a 1k\nR2 a b 1k\nD1 a b d\nD2 b 0 d\n.model d D(ron=1)"
    problem = cs.compile_problem(cs.parse(text)).with_values({"R2": 0.0})
    assert problem.topology.upper.size and not problem.values.diag.all()
    assert not bcd.is_in_vain(problem, 1e-9)
