"""The benchmark command and its pieces, at tiny sizes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import needs_ngspice

import circuitsim as cs
from circuitsim.residual import Check
from validation import benchmarks, newton, points, qp, suite
from validation.measure import BenchmarkError, Options, Row, Target, best_of, run_process
from validation.qp import PeerRun, QuadraticProgram, measure_peer, quadratic_program, relative_kcl

# Two layers: a crossbar from sources to clamped units, a crossbar and a flat resistor on to free ones.
NETWORK = """small network
.options seed=3
.model ideal D(ron=0)
Vx[0:3] x[0:3] 0 {aunif(0, 2)}
RW1[0:3][0:5] x[0:3] h[0:5] g={aunif(1, 0.5)}
RW2[0:5][0:1] h[0:5] y[0:1] g={aunif(1, 0.5)}
Rf y[0] y[1] 2
Ib[0:5] 0 h[0:5] {aunif(0, 1)}
Dexc[0:2] 0 h[0:2] ideal
Dinh[0:2] h[3:5] 0 ideal
.end
"""


def test_ratio_and_target_look_the_way_the_row_says() -> None:
    faster = Row("b", "w", 2.0, target=Target(10.0, at_most=False, of_ratio=True), peer="p", peer_measured=20.0)
    assert (faster.ratio, faster.met) == (10.0, True)
    slower = Row("b", "w", 8.0, target=Target(3.0, of_ratio=True), peer="p", peer_measured=2.0, speedup=False)
    assert (slower.ratio, slower.met) == (4.0, False)
    plain = Row("b", "w", 2.0, target=Target(2.0))
    assert (plain.ratio, plain.met) == (None, True)
    assert Row("b", "w", 2.0, target=Target(3.0, of_ratio=True)).met is None
    assert Row("b", "w", 2.0).met is None


def test_peak_memory_is_the_child_s_own() -> None:
    ballast = np.ones(50_000_000)  # 400 MB here: a child started directly would inherit this peak
    small = run_process([sys.executable, "-S", "-c", "pass"])
    big = run_process([sys.executable, "-S", "-c", "b'x' * 200_000_000"])
    assert ballast[-1] == 1.0
    assert small.peak_bytes < 60e6
    assert 200e6 < big.peak_bytes < 260e6


def test_process_time_and_output_are_the_last_run_s(tmp_path: Path) -> None:
    count = tmp_path / "count"
    slow_first = (
        "import sys, time, pathlib; p = pathlib.Path(sys.argv[1]); n = len(p.read_text()) if p.exists() else 0; "
        "p.write_text('x' * (n + 1)); time.sleep(1.0 if n == 0 else 0.2); print(n)"
    )
    run = run_process([sys.executable, "-S", "-c", slow_first, str(count)], runs=2)
    assert run.stdout == "1\n"
    assert 0.2 <= run.seconds < 1.0


def test_process_that_fails_is_named_with_its_last_words() -> None:
    with pytest.raises(BenchmarkError, match="ended with 3: second"):
        run_process([sys.executable, "-c", "import sys; print('first\\nsecond', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(BenchmarkError, match="no_such_program_here cannot be started"):
        run_process(["no_such_program_here"])


@pytest.mark.slow
def test_start_up_is_measured_by_clock_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "_STARTS", 1)
    rows = suite.startup(Options())
    assert [row.what for row in rows] == [
        f"circuitsim {what}, whole process" for what in ("--help", "solve, ten nodes", "sweep, a diode bridge")
    ]
    for row in rows:
        processor = float(row.note.removesuffix(" s of the processor"))
        assert row.measured is not None and row.peer_measured is not None
        assert 0 < processor < 100 and row.measured > 0 and row.ratio == row.measured / row.peer_measured
    assert [row.target for row in rows] == [Target(0.3), Target(1.0), None]


def test_quadratic_program_has_the_network_s_gradient() -> None:
    problem = cs.compile_problem(cs.parse(NETWORK))
    program = quadratic_program(problem)
    drive = problem.drive(slice(0, 1))
    x = np.random.default_rng(1).uniform(-2, 2, (1, problem.n_free))
    flow = Check(problem, drive, x).flow
    np.testing.assert_allclose((program.A @ x[0] - program.b)[None, :], flow, rtol=1e-12, atol=1e-12)
    assert abs(program.A - program.A.T).max() == 0.0
    assert (np.isfinite(program.lo).sum(), np.isfinite(program.hi).sum()) == (3, 3)


def test_quadratic_program_refuses_other_nonlinear_elements() -> None:
    problem = cs.compile_problem(cs.parse("t\nV1 a 0 1\nR1 a b 1\nD1 b 0 d\n.model d D"))
    with pytest.raises(ValueError, match="ideal diodes to known potentials"):
        quadratic_program(problem)


@pytest.mark.parametrize("name", list(qp.PEERS))
def test_peer_finds_the_equilibrium(name: str) -> None:
    pytest.importorskip(name, reason="pip install 'circuitsim[bench]'")
    problem = cs.compile_problem(cs.parse(NETWORK))
    exact = cs.solve(problem, cs.Settings(tol=1e-13)).x[0]
    program = quadratic_program(problem)
    result = measure_peer(qp.PEERS[name], program, lambda x: relative_kcl(problem, x), 1e-8)
    assert result.kcl_relative <= 1e-8
    np.testing.assert_allclose(result.run.x, exact, rtol=0, atol=1e-7)
    assert result.run.seconds > 0


def test_relative_kcl_clips_and_rejects_what_is_no_number() -> None:
    problem = cs.compile_problem(cs.parse(NETWORK))
    exact = cs.solve(problem, cs.Settings(tol=1e-13)).x[0]
    at_lower = np.flatnonzero(exact == quadratic_program(problem).lo)
    assert at_lower.size
    outside = exact.copy()
    outside[at_lower] -= 1.0
    assert relative_kcl(problem, outside) <= 1e-13
    outside[at_lower] = np.nan
    assert relative_kcl(problem, outside) == np.inf


def test_peer_is_tightened_until_it_is_good_enough_or_gives_up() -> None:
    program = QuadraticProgram(A=None, b=np.zeros(1), lo=np.zeros(1), hi=np.ones(1))  # type: ignore[arg-type]
    asked: list[float] = []

    def peer(_: QuadraticProgram, tolerance: float) -> PeerRun:
        asked.append(tolerance)
        return PeerRun(np.array([100 * tolerance]), 0.5, 1.0 / len(asked), gave_up=tolerance < 1e-14)

    result = measure_peer(peer, program, lambda x: float(x[0]), wanted=1e-8)
    assert asked == [1e-9, 1e-12, 1e-12]
    assert (result.tolerance, result.kcl_relative, result.run.solve_seconds) == (1e-12, 100 * 1e-12, 1.0 / 3.0)
    asked.clear()
    result = measure_peer(peer, program, lambda x: 1.0 if x[0] < 1e-12 else float(x[0]), wanted=1e-20)
    assert asked == [1e-9, 1e-12, 1e-15, 1e-12]  # gave up at 1e-15; 1e-12 had come nearest
    assert result.tolerance == 1e-12


def test_missing_and_slow_peers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def peer(program: QuadraticProgram, tolerance: float) -> PeerRun:
        return PeerRun(np.linalg.solve(program.A.toarray(), program.b), 1.0, 2.0, gave_up=False)

    monkeypatch.setattr(suite, "PEERS", {"numpy": peer, "no-such-package": peer, "scipy": peer})
    monkeypatch.setattr(suite, "SLOW_PEERS", ("scipy",))
    linear = cs.compile_problem(cs.parse("t\nV1 a 0 1\nR1 a b 1\nR2 b c 2\nR3 c 0 3\nR4 b 0 4"))
    rows = suite.qp_rows(linear, Options(quick=True))
    assert [(row.peer, row.peer_measured) for row in rows] == [
        ("best: numpy", 3.0),
        ("numpy", 3.0),
        ("no-such-package", None),
        ("scipy", None),
    ]
    assert [row.note for row in rows[2:]] == ["not installed", "left out by --quick"]
    assert rows[0].met is True
    assert "setup 1.00 s + solve 2.00 s" in rows[1].note


def test_batch_rows_compare_with_one_product(tmp_path: Path) -> None:
    deck = tmp_path / "net.cir"
    deck.write_text(NETWORK)
    rows = suite.batch_rows(deck, np.random.default_rng(0).uniform(size=(5, 2)), repeats=1)
    assert [row.what for row in rows] == [
        "5 images in one batch, float32, relative KCL 1e-05",
        "without certificate",
    ]
    for row in rows:
        assert row.peer == "product 5 x 4 x 6, float32"
        assert row.measured is not None and row.peer_measured is not None
        assert row.ratio == row.measured / row.peer_measured
    assert rows[0].target is not None and rows[1].target is None


def test_cells_are_read_from_cards_and_as_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    read, load = [], cs.load
    monkeypatch.setattr(cs, "load", lambda deck: read.append(load(deck)))
    row = suite.cell_row(6, runs=1, columns=3)
    array, flat, cards = (circuit.netlist for circuit in read)
    assert [netlist.tables["R"].names[4] for netlist in (array, flat, cards)] == ["R.X[1][1].R1", "R4", "R.X4.R1"]
    for other in (flat, cards):
        assert len(other.nodes) == len(array.nodes)
        for kind, key in (("R", "r"), ("D", "model")):
            np.testing.assert_array_equal(array.tables[kind].values[key], other.tables[kind].values[key])
    assert row.unit == "cards/s" and row.measured is not None and row.measured > 0


def test_parser_rows_count_lines(tmp_path: Path) -> None:
    suite.write_resistors(tmp_path / "deck.cir", 50, columns=8)
    circuit = cs.load(tmp_path / "deck.cir")
    assert len(circuit.conductors) == 50
    assert len(circuit.nodes) == 1 + 7 + 8
    texts = [line.split()[3] for line in (tmp_path / "deck.cir").read_text().splitlines()[1:-1]]
    assert max(len(text.replace(".", "")) for text in texts) == 17
    (row,) = suite.parser_rows(200, runs=1)
    assert row.measured is not None and row.measured > 0
    assert row.unit == "lines/s" and row.met is not None


def test_stages_come_from_the_command(tmp_path: Path) -> None:
    deck = tmp_path / "net.cir"
    deck.write_text(NETWORK)
    seconds = suite.stages(deck)
    assert {"parse", "compile", "solve", "total"} <= set(seconds)
    assert 0 < seconds["solve"] < seconds["total"]


@pytest.mark.slow
@needs_ngspice
def test_flat_rows_beside_ngspice(tmp_path: Path) -> None:
    flat = tmp_path / "flat.cir"
    flat.write_text("t\nV1 In 0 10\nR1 In h[0] 1k\nR2 h[0] 0 3k\nR3 h[0] k 1k\nD1 k 0 d\n.model d D\n.op\n.end\n")
    rows = suite.flat_rows(flat, Options(ngspice=True))
    by_name = {row.what: row for row in rows}
    assert by_name["whole process"].ratio is not None and by_name["peak memory"].ratio is not None
    note = by_name["whole process"].note
    assert note.startswith("largest difference of 3 node voltages: ")
    assert float(note.split()[-2]) < 1e-4
    assert by_name["file size"].measured == flat.stat().st_size / 1e6
    left_out = suite.flat_rows(flat, Options())
    assert [row.note for row in left_out if row.what == "whole process"] == ["not measured in this run"]


TINY = newton.Sizes(linear=6, large=7, diode=4, ideal=5, grid=8, grid_sources=10, batch=5, batch_rows=3, runs=1)


def figure(note: str, before: str) -> float:
    """The number in a note that stands after some words."""
    return float(note.split(before)[1].split()[0].rstrip(",;"))


@pytest.mark.slow
def test_every_row_of_newton_at_tiny_sizes() -> None:
    rows = newton.newton(Options(quick=True), TINY)
    assert len(rows) == 10
    assert all(row.benchmark == "newton" and row.measured is not None and row.measured > 0 for row in rows)
    limits = [(row.target.limit, row.target.of_ratio) if row.target else None for row in rows]
    assert limits == [
        (1.2, True), (4.0, False), (0.5, False), (15.0, True), (20.0, False), (6000.0, False),
        (1.0, True), (1.0, True), (5.0, True), None,
    ]  # fmt: skip
    assert all(figure(row.note, "KCL ") <= 1e-9 for row in rows if "memory" not in row.what and row.peer != "ngspice")
    linear, large, diode, ideal, *_, many, prepared = rows
    assert figure(linear.note, "largest difference of voltages ") < 1e-12
    assert linear.ratio is not None and linear.ratio == linear.measured / linear.peer_measured  # type: ignore[operator]
    assert (large.peer_measured, "left out by --quick" in large.note) == (None, True)
    assert (diode.peer_measured, "not measured in this run" in diode.note) == (None, True)
    assert "75 unknowns" in ideal.what and ideal.peer == "linear crossbar 5 x 5, 50 unknowns"
    assert many.peer_measured is not None and prepared.peer == "one vector prepared"


def test_slow_peer_of_newton_is_measured_when_wanted() -> None:
    row = newton.large_row(5, Options())
    assert row.peer_measured is not None
    assert figure(row.note, "largest difference of voltages ") < 1e-12


@needs_ngspice
@pytest.mark.slow
def test_rows_of_newton_beside_ngspice() -> None:
    row = newton.diode_row(3, 1, Options(ngspice=True))
    assert row.ratio is not None
    assert figure(row.note, "largest difference of 30 node voltages: ") < 1e-4
    whole, inside = newton.sweep_rows(1)
    assert whole.ratio is not None and inside.peer_measured is not None
    assert figure(whole.note, "largest difference of v(plus): ") < 1e-4


@pytest.mark.slow
@needs_ngspice
def test_every_row_of_points_at_tiny_sizes() -> None:
    mesh, ladder, values, inputs = points.points(Options(), points.Sizes(4, 40, 60, 30, 5, 1))
    assert (mesh.what, ladder.what) == (
        "Monte Carlo, 40 draws of a 16-node diode mesh", "Monte Carlo, 60 draws of netlists/monte_carlo.cir",
    )  # fmt: skip
    for row, draws in ((mesh, 40), (ladder, 60)):
        assert row.ratio is not None and row.note.endswith(f"standard errors apart, {draws} draws there")
        assert figure(row.note, "means ") < 5.0
    assert values.what.startswith("30 values") and figure(values.note, "largest difference ") < 1e-5
    assert inputs.peer_measured is not None and figure(inputs.note, "KCL ") <= 1e-9


def test_nodal_system_refuses_what_it_does_not_know() -> None:
    for card in ("D1 a 0 d\n.model d D", "V2 a b 1\nR2 b 0 1", "E1 b 0 a 0 2\nR2 b 0 1"):
        with pytest.raises(BenchmarkError, match="resistors and sources"):
            newton.nodal_system(cs.parse(f"t\nV1 in 0 1\nR1 in a 1\n{card}"))


def test_nodal_system_of_a_divider_with_a_current_source() -> None:
    circuit = cs.parse("t\nV1 in 0 10\nR1 in a 2\nR2 a 0 4\nI1 0 a 3")
    matrix, sides, free = newton.nodal_system(circuit)
    assert [circuit.nodes[k] for k in free] == ["a"]
    assert (matrix.toarray().tolist(), sides.tolist()) == ([[0.75]], [8.0])


def test_actions_take_turns_and_the_fastest_run_counts() -> None:
    calls: list[str] = []
    waits = iter([0.0, 0.1, 0.1, 0.0])

    def action(name: str) -> int:
        calls.append(name)
        time.sleep(next(waits))
        return len(calls)

    best = best_of(2, {"a": lambda: action("a"), "b": lambda: action("b")})
    assert calls == ["a", "b", "a", "b"]
    assert (best["a"][1], best["b"][1]) == (3, 4)
    assert best["a"][0] < 0.1 and best["b"][0] < 0.1


@pytest.fixture
def fake_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(options: Options) -> list[Row]:
        return [Row("quick", "speed", 2.0, target=Target(1.0), note=f"{options.quick} {options.ngspice}")]

    def broken(options: Options) -> list[Row]:
        raise BenchmarkError("the images are not there")

    fakes = {"quick": quick, "broken": broken}
    monkeypatch.setattr(benchmarks, "BENCHMARKS", fakes)
    only = next(option for option in benchmarks.main.params if option.name == "names")
    monkeypatch.setattr(only, "type", benchmarks.click.Choice(list(fakes)))


@pytest.mark.usefixtures("fake_suite")
def test_command_prints_and_saves_what_it_measured(tmp_path: Path) -> None:
    saved = tmp_path / "out.json"
    result = CliRunner().invoke(benchmarks.main, ["--json", str(saved), "--quick"])
    assert result.exit_code == 0  # a missed target and a benchmark that cannot run are no failure of the command
    assert "speed" in result.stdout and "no" in result.stdout and "the images are not there" in result.stdout
    data = json.loads(saved.read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert [row["benchmark"] for row in data["rows"]] == ["quick", "broken"]
    assert data["rows"][0]["met"] is False and data["rows"][0]["note"] == "True False"
    assert data["rows"][1]["measured"] is None
    assert data["machine"]["cores"] >= 1 and data["machine"]["memory_bytes"] > 0
    assert data["versions"]["circuitsim"] == cs.__version__
    assert data["date"].endswith("+00:00")


@pytest.mark.usefixtures("fake_suite")
def test_command_runs_only_what_is_chosen(tmp_path: Path) -> None:
    saved = tmp_path / "out.json"
    result = CliRunner().invoke(benchmarks.main, ["--only", "quick", "--json", str(saved)])
    assert result.exit_code == 0
    assert [row["benchmark"] for row in json.loads(saved.read_text())["rows"]] == ["quick"]


@pytest.mark.usefixtures("fake_suite")
def test_command_refuses_a_file_that_it_could_not_write(tmp_path: Path) -> None:
    result = CliRunner().invoke(benchmarks.main, ["--json", str(tmp_path / "none" / "out.json")])
    assert result.exit_code == 2
    assert "there is no folder" in result.output
    assert "quick ..." not in result.output
    result = CliRunner().invoke(benchmarks.main, ["--json", str(benchmarks.RESULTS)])
    assert result.exit_code == 2
    assert "is the file for the points of the ladders" in result.output and "quick ..." not in result.output


@pytest.mark.usefixtures("fake_suite")
def test_command_that_is_interrupted_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: Options) -> list[Row]:
        raise KeyboardInterrupt

    monkeypatch.setitem(benchmarks.BENCHMARKS, "broken", interrupted)
    saved = tmp_path / "out.json"
    result = CliRunner().invoke(benchmarks.main, ["--json", str(saved)])
    assert result.exit_code == 130
    assert "speed" in result.stdout
    assert [row["benchmark"] for row in json.loads(saved.read_text())["rows"]] == ["quick"]
