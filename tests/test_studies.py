"""Sweeps by many workers, and kept in a folder: the same bits as one process, whatever is killed or damaged."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import psutil
import pyarrow
import pytest
from click.testing import CliRunner
from distributed import LocalCluster
from distributed.scheduler import KilledWorker
from helpers import wait_for
from pyarrow.parquet import read_table
from threadpoolctl import threadpool_limits

import circuitsim as cs
from circuitsim import workers
from circuitsim.backends.base import find_backend
from circuitsim.cli import main
from circuitsim.errors import At
from circuitsim.io import study
from circuitsim.io.parquet import write_columns, write_sweep_parquet
from circuitsim.io.sealed import save_sealed
from circuitsim.io.study import Study
from circuitsim.linear.elimination import Elimination
from circuitsim.saved import wanted_saves
from circuitsim.sweeping import Points, SweepResult, analyses_to_run
from circuitsim.sweeping import plan as sweeping_plan
from circuitsim.sweeping.dc import SweepPlan
from circuitsim.sweeping.draws import MonteCarloPlan
from circuitsim.sweeping.plan import CHUNK_CIRCUITS, CHUNK_POINTS, Plan

ROOT = Path(__file__).parent.parent
MONTE_CARLO = ROOT / "netlists" / "monte_carlo.cir"

MIXED = """mixed
.param k=1
V1 in 0 1
R1 in out {1k*k} tc1=2m
R2 out 0 1k m=2
R3 out 0 {2k + 10*temper}
I1 0 out 1m m=3
D1 out 0 dm
.model dm D(is=1e-12 n=1.5 rs=2)
"""
FALLING = "one run in six has a negative resistance\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {aunif(1k, 1.5k)}\nD1 b 0 dm\n"
FALLING += ".model dm D(is=1n)\n"
BLOCKED = """an island without a solution while k is not 1
.param k=1
V1 a 0 1
R1 a b 1k
R2 b 0 1k
I1 0 c {(k - 1)*1m}
D1 d c ideal
R3 c e 1k
D2 0 d ideal
.model ideal D(ron=0)
"""


@pytest.fixture(autouse=True)
def chunks_of_few_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that few runs, or points, make many chunks."""
    for module in ("dc", "draws"):
        monkeypatch.setattr(f"circuitsim.sweeping.{module}.CHUNK_CIRCUITS", 16)


DC = {
    "a batch": (MIXED, "V1 0 2 0.001", {}),
    "nested": (MIXED, "V1 0 2 0.5 TEMP -40 100 4", {}),
    "nested, the other way round": (MIXED, "TEMP -40 100 4 V1 0 2 0.5", {}),
    "resistances": (MIXED, "R2 1k 4k 50 I1 0 1m 1m", {}),
    "a parameter": (MIXED, "k 1 3 0.05 R2 1k 2k 1k", {}),
    "not solved": (MIXED + "R4 out z 1k\nR5 z 0 1k\n", "V1 0 2 0.05 TEMP 0 40 2", {"method": "bcd", "max_sweeps": 5}),
    "left out": (BLOCKED, "k 0.5 2.5 0.05", {"lenient": True}),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as found:
        yield found


def same(one: Points, other: Points) -> None:
    """All of two results but times and circuit."""
    for name in (f.name for f in fields(Points)):
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=name)  # NaN is NaN
        else:
            assert a == b, name
    if isinstance(one, SweepResult) and isinstance(other, SweepResult):
        np.testing.assert_array_equal(one.values, other.values)


def sweep_of(case: str, **how: object) -> SweepResult:
    text, dc, settings = DC[case]
    circuit = cs.parse(text)
    return cs.sweep(circuit, dc, cs.Settings(**settings), saves=wanted_saves(circuit, ["all"]), **how)


def monte_carlo(**how: object) -> SweepResult:
    return cs.monte_carlo(cs.parse(FALLING), 100, seed=3, **how)


@cache
def alone(case: str) -> SweepResult:
    """By one process."""
    return monte_carlo() if case == "draws" else sweep_of(case)


def test_chunks_do_not_depend_on_how_many_points_there_are_in_all() -> None:
    few = cs.monte_carlo(cs.parse(FALLING), 40, seed=3)
    np.testing.assert_array_equal(few.voltages, alone("draws").voltages[:40])


def test_runs_of_later_chunks_are_those_of_their_seeds() -> None:
    deck = "t\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {agauss(1k, 100, 1)}\n"
    result = cs.monte_carlo(cs.parse(deck), 50, seed=3)
    fresh = [cs.solve(cs.parse(deck, seed=3 + k)).voltage("b")[0] for k in range(50)]
    np.testing.assert_allclose(result.voltage("b"), fresh, rtol=1e-8)


@pytest.mark.parametrize("dc", ["R2 1k 4k 50 k 1 3 1", "k 1 3 1 R2 1k 4k 50"])
def test_a_chunk_may_begin_between_the_resistances_of_one_parameter(dc: str) -> None:
    """Of 61 for each, in chunks of 16: a divider at each point."""
    result = cs.sweep(cs.parse("t\n.param k=1\nV1 a 0 1\nR1 a b {k*1k}\nR2 b 0 1k\n"), dc)
    at = dict(zip(result.names, result.values.T, strict=True))
    np.testing.assert_allclose(result.voltage("b"), at["R2"] / (at["R2"] + at["k"] * 1e3), rtol=1e-8)


@pytest.mark.parametrize(("dc", "factored"), [("V1 0 4 0.1", 2), ("I1 0 1m 0.03m", 2), ("V1 0 4 0.1 R0 1k 2k 500", 6)])
def test_chunks_keep_factors_and_give_the_same_bits_without(
    dc: str, factored: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mesh, factored for each resistance and each number of points in a chunk."""
    mesh = [
        f"Ra{i}_{j} n{i}_{j} n{i + 1}_{j} 1k\nRb{i}_{j} n{i}_{j} n{i}_{j + 1} 2k" for i in range(8) for j in range(8)
    ]
    deck = "mesh\nV1 n0_0 0 1\nI1 0 n3_3 1m\nR0 n8_7 0 1k\n" + "\n".join(mesh) + "\n"
    monkeypatch.setattr(sweeping_plan, "CHUNK_VOLTAGES", 3 * 83)
    circuit, calls, factor = cs.parse(deck), list[int](), Elimination.factor
    monkeypatch.setattr(Elimination, "factor", lambda *given: calls.append(1) or factor(*given))
    plans = [SweepPlan(circuit, cs.Settings(), None, (), analyses_to_run(circuit, dc)[0].sweeps) for _ in range(2)]
    many = [plans[0].solve(k) for k in range(plans[0].chunks)]
    assert len(many) >= 10 and len(calls) == factored
    calls.clear()
    for k in reversed(range(plans[1].chunks)):
        plans[1]._kept.network = None
        found = plans[1].solve(k)
        for name in ("voltages", "currents", "kcl_relative", "steps"):
            np.testing.assert_array_equal(getattr(found, name), getattr(many[k], name), err_msg=name)
    assert len(calls) >= plans[1].chunks


def test_how_points_were_solved_is_told_although_the_last_ones_have_no_solution() -> None:
    deck = "t\n.param k=1\nV1 a 0 1\nR1 a b 1k\nD1 b 0 dm\nI2 0 c {max(k - 1, 0)*1m}\nD2 0 c lin\n"
    deck += ".model dm D(is=1e-12)\n.model lin D(ron=10)\n"  # by which c may float: points are solved one by one
    result = cs.sweep(cs.parse(deck), "k 0 3 0.1")
    assert result.statuses[:10].tolist() == ["SOLVED"] * 10 and result.statuses[16:].tolist() == ["FAULT"] * 15
    alone = cs.sweep(cs.parse(deck), "k 0 0.9 0.1")
    assert (result.method, result.why, result.steps) == (alone.method, alone.why, alone.steps)
    assert result.steps > 0


@pytest.mark.parametrize("case", DC)
def test_every_point_is_in_one_chunk(case: str) -> None:
    text, dc, settings = DC[case]
    circuit = cs.parse(text)
    [analysis] = analyses_to_run(circuit, dc)
    plan = SweepPlan(circuit, cs.Settings(**settings), None, (), analysis.sweeps)
    assert plan.chunks > 1
    rows = np.concatenate([plan.chunk(k)[1].ravel() for k in range(plan.chunks)])
    assert sorted(rows.tolist()) == list(range(len(plan.values)))
    for k in range(plan.chunks):
        groups, chosen = plan.chunk(k)
        assert len(groups) == len(chosen) <= plan.most_groups
        assert chosen.size <= CHUNK_POINTS
        others = [j for j in range(len(analysis.sweeps)) if j not in plan.sources]
        for group in plan.values[chosen]:
            assert (group[:, others] == group[:1, others]).all()  # but for sources


def test_chunks_use_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one tile learns the next one uses: with threads, which one is next would depend on the cores."""
    text, _, _ = DC["not solved"]
    circuit = cs.parse(text)
    backend = find_backend("cpu")
    monkeypatch.setattr(backend, "workers", 2)
    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor", None)
    settings = cs.Settings(method="bcd")
    assert not cs.sweep(circuit, "V1 0 2 0.002", settings, backend=backend).failed.size
    batch = circuit.with_values({"V1": np.linspace(0, 2, 1001)[:, None]})
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        cs.solve(batch, settings, backend=backend)


def test_there_are_failed_points_among_these() -> None:
    assert 5 < alone("draws").failed.size < 40
    assert alone("not solved").failed.size > 0
    assert alone("left out").notes


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if k > 2 else []) for k, case in enumerate(DC)]
)
def test_a_cluster_gives_the_numbers_of_one_process(cluster: LocalCluster, case: str) -> None:
    same(sweep_of(case, scheduler=cluster.scheduler_address), alone(case))


def test_a_cluster_draws_what_one_process_draws(cluster: LocalCluster) -> None:
    same(monte_carlo(scheduler=cluster.scheduler_address), alone("draws"))


@cache
def crossbar() -> cs.Circuit:
    """Large enough for BLAS to share a product among threads."""
    text = "crossbar\nVx[0:299] x[0:299] 0 1\nRw[0:299][0:299] x[0:299] y[0:299] 1k\nRy[0:299] y[0:299] 0 1k\n"
    return cs.parse(text).with_values({"Rw": np.random.default_rng(1).uniform(1e-4, 1e-3, (300, 300))})


def sweep_of_crossbar(threads: int, **how: object) -> SweepResult:
    with threadpool_limits(threads, "blas"):
        return cs.sweep(crossbar(), "Vx[3] 0 2 0.05", **how)


def test_threads_of_blas_do_not_change_the_numbers() -> None:
    one = sweep_of_crossbar(1)
    for threads in (2, 3):
        same(sweep_of_crossbar(threads), one)


def test_a_cluster_gives_the_numbers_of_a_large_crossbar(cluster: LocalCluster) -> None:
    same(sweep_of_crossbar(2, scheduler=cluster.scheduler_address), sweep_of_crossbar(2))


def test_a_few_points_are_swept_without_what_takes_long_to_load() -> None:
    code = (
        "import sys, circuitsim as cs\n"
        "result = cs.sweep(cs.parse('t\\nV1 a 0 1\\nR1 a b 1k\\nR2 b 0 1k'), 'R1 1k 5k 1k')\n"
        "assert not result.failed.size\n"
        "found = {'numba', 'threadpoolctl', 'scipy.linalg', 'joblib', 'distributed'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_processes_give_the_numbers_of_one() -> None:
    same(sweep_of("left out", workers=2), alone("left out"))


def test_progress_counts_points_in_any_order() -> None:
    seen: list[tuple[int, int]] = []
    same(monte_carlo(workers=2, progress=lambda *counts: seen.append(counts)), alone("draws"))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) == 7
    assert seen[-1] == (100, 100)


def test_data_files_are_read_before_work_is_sent(cluster: LocalCluster, tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.arange(1.0, 5.0))
    (tmp_path / "deck.cir").write_text(MIXED + "Rw[0:3] out 0 @w.npy m={agauss(1, 0.1, 1)}\n")
    plan = MonteCarloPlan(cs.load(tmp_path / "deck.cir"), cs.Settings(), None, (), 20, 0)
    (tmp_path / "w.npy").unlink()
    [(_, found)] = workers.run(Plan.solve, plan, {1: 1}, scheduler=cluster.scheduler_address)
    assert isinstance(found, Points)
    np.testing.assert_array_equal(found.voltages, plan.solve(1).voltages)


@pytest.mark.parametrize("way", ["workers", "scheduler"])
def test_an_error_is_the_one_that_one_process_meets(cluster: LocalCluster, way: str) -> None:
    circuit = cs.parse(MIXED.replace("{1k*k}", "{1k*(2 - k)}"))
    how = {"workers": 2} if way == "workers" else {"scheduler": cluster.scheduler_address}
    messages = []
    for chosen in ({}, how):
        with pytest.raises(cs.TopologyError) as caught:
            cs.sweep(circuit, "k 0 2 0.0625", **chosen)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "at k = 2: " in messages[0]


# -- workers that are killed -------------------------------------------------------------------------------------------


def children(pid: int | None = None) -> set[int]:
    """Workers that a process, this one, has begun itself."""
    found = psutil.Process(pid).children()
    return {p.pid for p in found if "popen_loky" in " ".join(p.cmdline())}


def killing(kill: Callable[[], int]) -> tuple[Callable[[int, int], None], list[int]]:
    """A report of progress that kills a worker once, while chunks are left; the killed ones."""
    killed: list[int] = []

    def report(done: int, total: int) -> None:
        if not killed and done < total:
            killed.append(kill())

    return report, killed


@pytest.mark.slow
def test_a_killed_process_loses_nothing() -> None:
    def kill() -> int:
        victim = min(children())
        os.kill(victim, signal.SIGKILL)
        return victim

    report, killed = killing(kill)
    same(monte_carlo(workers=2, progress=report), alone("draws"))
    assert len(killed) == 1
    assert not children()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_killed_workers_of_a_cluster_lose_nothing(cluster: LocalCluster, count: int) -> None:
    """One of two; both, with all that they were given: their nannies begin others."""

    def kill() -> int:
        victims = sorted(nanny.pid for nanny in cluster.workers.values())[:count]
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        return victims[-1]

    report, killed = killing(kill)
    same(monte_carlo(scheduler=cluster.scheduler_address, progress=report), alone("draws"))
    assert len(killed) == 1
    assert not psutil.pid_exists(killed[0])


def killed_everywhere(shared: None, item: int) -> int:
    """What Dask raises when one task has killed worker after worker."""
    raise KilledWorker(f"task {item}", SimpleNamespace(address="tcp://there:1"), 3)


def test_a_task_that_kills_workers_of_a_cluster_is_given_up(cluster: LocalCluster) -> None:
    with pytest.raises(cs.BackendUnavailable, match="died repeatedly on the same task"):
        list(workers.run(killed_everywhere, None, {0: 0}, scheduler=cluster.scheduler_address))


def suicide(shared: None, item: int) -> int:
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_given_up() -> None:
    with pytest.raises(cs.BackendUnavailable, match="workers were killed 3 times, one after another"):
        list(workers.run(suicide, None, {k: k for k in range(4)}, workers=2))
    assert not children()


# -- kept in a folder --------------------------------------------------------------------------------------------------


def study_of(folder: Path, **how: object) -> tuple[SweepResult, Study]:
    study = Study(folder)
    return monte_carlo(study=study, **how), study


def test_a_study_goes_on_from_what_is_kept(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 48:
            raise KeyboardInterrupt

    folder = tmp_path / "some" / "study"
    with pytest.raises(KeyboardInterrupt):
        study_of(folder, progress=stop)
    kept = sorted(path.name for path in folder.glob("chunk-*"))
    assert kept == [f"chunk-{k:06}.npz" for k in range(2)]  # the third was not kept yet
    (folder / f".chunk-000005.npz.{ended()}.tmp").write_bytes(b"a kill came in between")
    seen: list[int] = []
    result, study = study_of(folder, workers=2, progress=lambda done, total: seen.append(done))
    same(result, alone("draws"))
    assert (study.kept, study.remarks) == (2, [])
    assert seen[:2] == [16, 32]
    assert sorted(path.name for path in folder.iterdir()) == [f"chunk-{k:06}.npz" for k in range(7)] + ["study.json"]
    result, study = study_of(folder)
    same(result, alone("draws"))
    assert study.kept == 7


def ended() -> int:
    """The number of a process that there is no more."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_what_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    """The same command twice at once: the second takes nothing from the first."""
    study_of(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom circuitsim.io.files import replacing\n"
        "with replacing(Path(sys.argv[1]), 'wb') as out:\n"
        "    out.write(b'first')\n    print('begun', flush=True)\n    sys.stdin.read()\n"
    )
    path = tmp_path / "chunk-000007.npz"
    command = [sys.executable, "-c", code, str(path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert first.stdout and first.stdout.readline() == "begun\n"
        torn = [tmp_path / f".chunk-000008.npz.{pid}.tmp" for pid in (ended(), os.getpid(), 10**30)]
        other = tmp_path / ".mine.tmp"
        for file in (*torn, other):
            file.write_bytes(b"")
        study_of(tmp_path)
        assert not any(file.exists() for file in torn)
        assert other.exists()
        _, told = first.communicate("", timeout=60)
    finally:
        first.kill()
    assert (first.returncode, told) == (0, "")
    assert path.read_bytes() == b"first"


def test_notes_and_saved_values_are_kept(tmp_path: Path) -> None:
    for kept in (0, 3):
        study = Study(tmp_path)
        same(sweep_of("left out", study=study), alone("left out"))
        assert study.kept == kept


def test_a_chunk_comes_back_as_it_was(tmp_path: Path) -> None:
    result, study = alone("not solved"), Study(tmp_path)
    found = replace(
        Points(**{f.name: getattr(result, f.name) for f in fields(Points)}),
        ambiguous_others=("D1", "D2"),
        islands=(("a", "b"), ("c",)),
        notes=((At("deck.cir", 3, "I1 0 a 1m"), "left out"), (None, "left out as well")),
    )
    assert found.messages
    points = found.statuses.size
    study.save(1, found)
    again = [study.load(1, count) for count in (points - 1, points, points + 1)]
    assert again[0] is again[2] is study.load(0, points) is None
    assert again[1]
    same(again[1], found)
    assert (study.load(1, points) is not None, study.kept, study.remarks) == (True, 2, [])
    (tmp_path / "chunk-000002.npz").mkdir()
    with pytest.raises(cs.SettingsError, match=r"cannot read .*chunk-000002\.npz: Is a directory"):
        study.load(2, points)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"chunk": 0, "notes": 5, "messages": {}, "ambiguous_others": [], "islands": []},
        {"chunk": 0, "notes": [], "messages": {"first": ""}, "ambiguous_others": [], "islands": []},
    ],
)
def test_archives_of_another_content_are_damaged(tmp_path: Path, header: dict[str, Any]) -> None:
    study = Study(tmp_path)
    save_sealed(tmp_path / "chunk-000000.npz", header, {})
    assert study.load(0, 1) is None
    assert [remark.startswith(f"{tmp_path / 'chunk-000000.npz'} is damaged (") for remark in study.remarks] == [True]


@pytest.mark.parametrize(
    "damage",
    [
        "cut short",
        "another chunk",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("a byte", "empty", "another archive")),
    ],
)
def test_a_damaged_chunk_is_solved_again(tmp_path: Path, damage: str) -> None:
    study_of(tmp_path)
    path = tmp_path / "chunk-000002.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    archive = tmp_path / "archive.npz"
    np.savez(archive, header=np.array("{}"))
    damaged = {
        "cut short": whole[:-100],
        "a byte": bytes(flipped),
        "empty": b"",
        "another chunk": (tmp_path / "chunk-000003.npz").read_bytes(),
        "another archive": archive.read_bytes(),
    }
    path.write_bytes(damaged[damage])
    result, study = study_of(tmp_path)
    same(result, alone("draws"))
    assert study.kept == 6
    why = "it is another chunk" if damage == "another chunk" else "its SHA-256 is wrong"
    assert study.remarks == [f"{path} is damaged ({why}): its points were solved again"]
    assert path.read_bytes() == whole


def test_more_runs_for_a_study(tmp_path: Path) -> None:
    """40 runs, then 100: of the three chunks there the last has to have 16 runs, too. Fewer are another study."""
    circuit = cs.parse(FALLING)
    cs.monte_carlo(circuit, 40, 3, study=Study(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("chunk-00000[01].npz")}
    assert len(before) == 2
    result, study = study_of(tmp_path)
    same(result, alone("draws"))
    assert (study.kept, study.remarks) == (2, [])
    again, study = study_of(tmp_path)
    same(again, alone("draws"))
    assert (study.kept, study.remarks) == (7, [])
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    with pytest.raises(cs.SettingsError, match=r"holds another study: runs 100 \(now 40\), chunks in all 7 \(now 3\)"):
        cs.monte_carlo(circuit, 40, 3, study=Study(tmp_path))


def test_a_study_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    study_of(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    circuit = cs.parse(FALLING)
    others: dict[str, Callable[[], object]] = {
        "seed 3 (now 4)": lambda: cs.monte_carlo(circuit, 100, 4, study=Study(tmp_path)),
        "runs 100 (now 50)": lambda: cs.monte_carlo(circuit, 50, 3, study=Study(tmp_path)),
        "analysis Monte Carlo (now ['.dc V1": lambda: cs.sweep(circuit, "V1 0 1 1", study=Study(tmp_path)),
        "netlist ": lambda: cs.monte_carlo(cs.parse(FALLING + "* \n"), 100, 3, study=Study(tmp_path)),
        "values ": lambda: cs.monte_carlo(cs.parse(FALLING, seed=1), 100, 3, study=Study(tmp_path)),
        "'tol': 1e-07": lambda: cs.monte_carlo(circuit, 100, 3, cs.Settings(tol=1e-7), study=Study(tmp_path)),
        "saved [] (now": lambda: cs.monte_carlo(
            circuit, 100, 3, saves=wanted_saves(circuit, ["i(R1)"]), study=Study(tmp_path)
        ),
    }
    for text, call in others.items():
        with pytest.raises(cs.SettingsError, match="holds another study: ") as caught:
            call()
        assert text in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("there", "wanted", "why"),
    [
        ({"format": 2}, {}, f"format 2 (now {study._FORMAT})"),
        ({"version": "0.0"}, {}, f"version 0.0 (now {cs.__version__})"),
        ({}, {"runs": 4}, "runs 5 (now 4)"),
        ({}, {"runs": 6, "chunks in all": 1}, "runs 5 (now 6), chunks in all 2 (now 1)"),
        ({"runs": "many"}, {}, "runs many (now 5)"),
        ({}, {"runs": "many"}, "runs 5 (now many)"),
        ({}, {"runs": 6, "chunks in all": 3}, ""),
        ({}, {"runs": 6}, ""),
        ({}, {}, ""),
    ],
)
def test_only_more_runs_are_the_same_study(
    there: dict[str, Any], wanted: dict[str, Any], why: str, tmp_path: Path
) -> None:
    facts, path = {"runs": 5, "chunks in all": 2}, tmp_path / "study.json"
    study.take_up(tmp_path, facts, "--study")
    path.write_text(json.dumps(json.loads(path.read_text()) | there))
    if why:
        with pytest.raises(cs.SettingsError, match=re.escape(f"holds another study: {why}")):
            study.take_up(tmp_path, facts | wanted, "--study")
    else:
        study.take_up(tmp_path, facts | wanted, "--study")
        found = json.loads(path.read_text())
        assert {name: found[name] for name in facts} == facts | wanted


def test_conductances_of_crossbars_count() -> None:
    circuits = [cs.parse(f"t\nV1 x[0] 0 1\nRW[0:0][0:1] x[0:0] h[0:1] g={g}\n") for g in ("1m", "1m", "2m")]
    one, same_again, other = map(study.branches_digest, circuits)
    assert one == same_again != other


def test_included_files_and_data_count(tmp_path: Path) -> None:
    (tmp_path / "r.inc").write_text("R1 a b {aunif(1k, 100)}\n")
    np.save(tmp_path / "w.npy", np.ones(2))
    deck = tmp_path / "deck.cir"
    deck.write_text("t\nV1 a 0 1\n.include r.inc\nRw[0:1] b 0 @w.npy\n")
    folder = tmp_path / "study"
    cs.monte_carlo(cs.load(deck), 2, study=Study(folder))
    np.save(tmp_path / "w.npy", np.array([1.0, 2.0]))
    with pytest.raises(cs.SettingsError, match="holds another study: values "):
        cs.monte_carlo(cs.load(deck), 2, study=Study(folder))
    np.save(tmp_path / "w.npy", np.ones(2))
    (tmp_path / "r.inc").write_text("R1 a b {aunif(1k, 200)}\n")
    with pytest.raises(cs.SettingsError, match="holds another study: netlist "):
        cs.monte_carlo(cs.load(deck), 2, study=Study(folder))


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(cs.SettingsError, match="it exists and holds no study; choose another name"):
        study_of(tmp_path)
    with pytest.raises(cs.SettingsError, match="it exists and holds no study"):
        study_of(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "study").mkdir()
    study_of(tmp_path / "study")
    for damaged in ('{"version": ', "5", "null", "[{}]", '["format"]', "[" * 100_000):
        (tmp_path / "study" / "study.json").write_text(damaged)
        with pytest.raises(cs.SettingsError, match=r"study\.json is damaged .*choose another --study"):
            study_of(tmp_path / "study")


# -- what cannot be ----------------------------------------------------------------------------------------------------


def test_wrong_workers() -> None:
    for count in (0, -1, 1025):
        with pytest.raises(cs.SettingsError, match=f"workers must be from 1 to 1024, found {count}"):
            monte_carlo(workers=count)
    with pytest.raises(cs.SettingsError, match="--workers and --scheduler exclude each other"):
        monte_carlo(workers=2, scheduler="tcp://127.0.0.1:8786")
    with pytest.raises(cs.SettingsError, match="a backend object cannot be sent to workers"):
        monte_carlo(workers=2, backend=find_backend("cpu"))


@pytest.mark.parametrize("address", ["garbage", "udp://127.0.0.1:8786", ""])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(cs.BackendUnavailable, match="no Dask scheduler answers at "):
        monte_carlo(scheduler=address)


def test_a_scheduler_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        for address in (f"tcp://127.0.0.1:{port}", "tcp://127.0.0.1:9"):  # nobody who answers; nobody
            with pytest.raises(cs.BackendUnavailable, match=f"no Dask scheduler answers at {address} .*dask scheduler"):
                monte_carlo(scheduler=address, study=Study(tmp_path / "study"))


def test_a_scheduler_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.5)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0", protocol="tcp") as empty,
        pytest.raises(cs.BackendUnavailable, match="has no workers; start some: dask worker tcp://"),
    ):
        monte_carlo(scheduler=empty.scheduler_address)


@pytest.mark.parametrize(
    ("package", "options", "message"),
    [
        ("joblib", ["--workers", "2"], "--workers needs joblib, joblib is missing: pip install 'circuitsim[parallel]'"),
        ("distributed", ["--scheduler", "tcp://x:1"], "--scheduler needs Dask (distributed), distributed is missing"),
        ("pyarrow.parquet", ["--parquet", "x.parquet"], "--parquet needs pyarrow: pip install 'circuitsim[parquet]'"),
    ],
)
def test_packages_that_are_missing(
    monkeypatch: pytest.MonkeyPatch, package: str, options: list[str], message: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = CliRunner().invoke(main, ["sweep", str(MONTE_CARLO), "--runs", "3", *options])
    assert result.exit_code == 2
    assert message in result.stderr


# -- the command -------------------------------------------------------------------------------------------------------

TWO = "two\n.param k=1\nV1 in 0 10\nR1 in out 1k\nR2 out 0 {k*3k}\n.dc V1 0 2 1 R1 1k 3k 2k\n.dc k 1 3 1\n.save i(R1)\n"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["sweep", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stderr


def test_each_card_has_its_folder(tmp_path: Path) -> None:
    deck, folder = tmp_path / "two.cir", tmp_path / "study"
    deck.write_text(TWO)
    assert run(deck, "--study", folder, "--npz", tmp_path / "one.npz") == ""
    assert sorted(path.name for path in folder.iterdir()) == ["dc1", "dc2"]
    (folder / "dc2" / "chunk-000000.npz").write_bytes(b"")
    told = run(deck, "--study", folder, "--npz", tmp_path / "two.npz")
    assert "note: 1 chunks were taken from" in told
    assert "chunk-000000.npz is damaged (its SHA-256 is wrong): its points were solved again" in told
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    result = CliRunner().invoke(main, ["sweep", str(deck), "--dc", "V1 0 1 1", "--study", str(folder)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {folder / 'dc1'} holds another study: ")


def test_a_folder_has_studies_of_one_netlist_and_nothing_else(tmp_path: Path) -> None:
    deck, other, folder = tmp_path / "two.cir", tmp_path / "other.cir", tmp_path / "study"
    deck.write_text(TWO)
    other.write_text("other\nV1 a 0 1\nR1 a 0 1k\n")
    run(deck, "--study", folder)
    run(deck, "--runs", 2, "--study", folder)  # of the same
    before = sorted(folder.rglob("*"))
    result = CliRunner().invoke(main, ["sweep", str(other), "--runs", "2", "--study", str(folder)])
    assert result.exit_code == 2 and f"error: {folder / 'dc1'} holds another study: netlist " in result.stderr
    (folder / "thesis.tex").write_text("mine")
    result = CliRunner().invoke(main, ["sweep", str(deck), "--study", str(folder)])
    assert result.exit_code == 2 and "thesis.tex in it is not a study; choose another name" in result.stderr
    assert sorted(folder.rglob("*")) == sorted([*before, folder / "thesis.tex"])


def test_the_same_study_may_be_begun_twice_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deck, folder, replacing = tmp_path / "two.cir", tmp_path / "study", study.replacing
    deck.write_text(TWO)
    again = [
        sys.executable,
        "-m",
        "circuitsim",
        "sweep",
        str(deck),
        "--runs",
        "2",
        "-q",
        "--csv",
        "--study",
        str(folder),
    ]
    told = []

    @contextmanager
    def meanwhile(path: Path, mode: str) -> Iterator[IO]:
        with replacing(path, mode) as out:
            told.append(subprocess.run(again, capture_output=True, text=True, check=False, cwd=ROOT))
            yield out

    monkeypatch.setattr(study, "replacing", meanwhile)
    assert run(deck, "--runs", 2, "--study", folder) == f"note: 1 chunks were taken from {folder / 'runs'}\n"
    assert (told[0].returncode, told[0].stderr, len(told)) == (0, "", 1)
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["chunk-000000.npz", "study.json"]
    (folder / "dc1").mkdir()
    (folder / "dc1" / f".study.json.0a.{ended()}.tmp").write_bytes(b"a kill came in between")
    run(deck, "--study", folder)
    assert sorted(path.name for path in (folder / "dc1").iterdir()) == ["chunk-000000.npz", "study.json"]


@pytest.mark.parametrize("option", ["--npz", "--raw", "--parquet"])
@pytest.mark.parametrize("name", ["study/runs/study.json", "study/out", "study", "other/../study/out"])
def test_results_are_not_written_into_a_study(option: str, name: str, tmp_path: Path) -> None:
    deck, folder = tmp_path / "two.cir", tmp_path / "study"
    deck.write_text(TWO)
    (tmp_path / "other").mkdir()
    run(deck, "--runs", 2, "--study", folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told = CliRunner().invoke(
        main, ["sweep", str(deck), "--runs", "2", "--study", str(folder), option, str(tmp_path / name)]
    )
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr.startswith(f"error: cannot write {tmp_path / name}: ")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_parquet_holds_every_point(tmp_path: Path) -> None:
    deck, path = tmp_path / "two.cir", tmp_path / "out.parquet"
    deck.write_text(TWO)
    run(deck, "--parquet", path)
    table = read_table(path)
    circuit = cs.load(deck)
    one, two = (cs.sweep(circuit, dc, saves=wanted_saves(circuit, ())) for dc in circuit.netlist.analyses)
    columns = ["sweep", "V1", "R1", "v(in)", "v(out)", "i(V1)", "i(R1)", "status", "kcl_relative", "message", "k"]
    assert table.column_names == columns
    found = table.to_pydict()
    assert found["sweep"] == [1] * 6 + [2] * 3
    assert found["V1"] == [0, 1, 2, 0, 1, 2, None, None, None]
    assert found["k"] == [None] * 6 + [1, 2, 3]
    assert found["v(out)"] == [*one.voltage("out"), *two.voltage("out")]
    assert found["i(R1)"] == [*one.saved[:, 0], *two.saved[:, 0]]
    assert set(found["status"]) == {"SOLVED"}
    assert found["kcl_relative"] == [*one.kcl_relative, *two.kcl_relative]
    assert found["message"] == [None] * 9 and table.schema.field("message").type == pyarrow.string()
    facts = json.loads(table.schema.metadata[b"circuitsim"])
    assert [fact["method"] for fact in facts] == [one.method, two.method]
    assert [[(of["kind"], of["name"], of["stop"]) for of in fact["swept"]] for fact in facts] == [
        [("V", "V1", 2), ("R", "R1", 3e3)], [("param", "k", 3)],
    ]  # fmt: skip


@pytest.mark.parametrize("write", [write_sweep_parquet, write_columns])
def test_parquet_is_written_whole_or_not_at_all(
    write: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(table: Any, out: Any) -> None:
        (out.write if hasattr(out, "write") else Path(out).write_bytes)(b"begun")
        raise OSError(28, "No space left on device")

    result = {"a": [1]} if write is write_columns else [cs.sweep(cs.parse(TWO), "V1 0 2 1")]
    (tmp_path / "out").write_bytes(b"before")
    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.write_table", full)
        with pytest.raises(cs.SettingsError, match="No space left"):
            write(result, tmp_path / "out")
        patch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(cs.BackendUnavailable, match="needs pyarrow"):
            write(result, tmp_path / "out")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_parquet_has_each_name_once_in_any_case(tmp_path: Path) -> None:
    deck, path = tmp_path / "deck.cir", tmp_path / "out.parquet"
    deck.write_text("divider\nV1 in 0 1\nR1 in Out 1k\nR2 Out 0 1k\n.save V(OUT) I(v1) @R1[p]\n.dc V1 0 2 1\n")
    run(deck, "--parquet", path)
    table = read_table(path)
    columns = ["sweep", "V1", "v(in)", "v(Out)", "i(V1)", "@R1[p]", "status", "kcl_relative", "message"]
    assert table.column_names == columns
    assert table["v(Out)"].to_pylist() == [0, 0.5, 1]


def test_what_is_swept_may_have_the_name_of_another_column(tmp_path: Path) -> None:
    deck, path = tmp_path / "deck.cir", tmp_path / "out.parquet"
    deck.write_text("t\n.param Status=1 a=2\nV1 a 0 {Status}\nR1 a 0 {a}\n.dc Status 1 2 1 a 3 3 1\n")
    run(deck, "--parquet", path)
    assert read_table(path).column_names[:4] == ["sweep", "param(Status)", "a", "v(a)"]
    frame = cs.sweep(cs.load(deck)).to_dataframe()
    assert list(frame) == ["param(Status)", "a", "v(a)", "i(V1)", "status", "kcl_relative"]
    assert frame["param(Status)"].tolist() == [1, 2] and set(frame["status"]) == {"SOLVED"}
    csv = CliRunner().invoke(main, ["sweep", str(deck), "--csv"]).stdout
    assert csv.splitlines()[0] == "param(Status),param(a),a,status"
    for name in ("sweep", "KCL_relative", "message"):
        deck.write_text(f"t\n.param {name}=1\nV1 a 0 {{{name}}}\nR1 a 0 1\n.dc {name} 1 2 1\n")
        run(deck, "--parquet", path)
        assert read_table(path)[f"param({name})"].to_pylist() == [1, 2]


def test_parquet_of_runs_that_fail(tmp_path: Path) -> None:
    (tmp_path / "deck.cir").write_text(FALLING)
    path = tmp_path / "out.parquet"
    result = CliRunner().invoke(
        main, ["sweep", str(tmp_path / "deck.cir"), "--runs", "100", "--seed", "3", "--parquet", str(path)]
    )
    assert result.exit_code == 3
    assert read_table(path).schema.field("seed").type == pyarrow.int64()
    table = read_table(path).to_pydict()
    assert table["seed"] == list(range(3, 103))
    np.testing.assert_array_equal(table["v(b)"], alone("draws").voltage("b"))
    assert [k for k, text in enumerate(table["message"]) if text] == alone("draws").failed.tolist()
    assert "negative resistance" in table["message"][int(alone("draws").failed[0])]


def test_workers_never_see_an_interrupt() -> None:
    """In a new process: there the first worker is the first process that multiprocessing starts."""
    code = """import signal
from circuitsim import workers
ask = signal.pthread_sigmask
print([signal.SIGINT in held for _, held in workers.run(ask, signal.SIG_BLOCK, {0: (), 1: ()}, workers=2)])
print(ask(signal.SIG_BLOCK, ()))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[True, True]\nset()\n", "")


def test_an_interrupt_while_workers_start_ends_them_in_silence() -> None:
    """All processes get it when they are there, but not yet watched over; another thread hears of it first."""
    code = """import os, signal, threading, time
from joblib.externals.loky import ProcessPoolExecutor
from circuitsim import workers

def interrupted(executor):
    time.sleep(0.3)
    os.killpg(0, signal.SIGINT)
    time.sleep(0.5)
    watch_over(executor)

watch_over = ProcessPoolExecutor._start_executor_manager_thread
ProcessPoolExecutor._start_executor_manager_thread = interrupted
threading.Thread(target=time.sleep, args=(60.0,), daemon=True).start()
try:
    list(workers.run(max, 0, {0: 1, 1: 2}, workers=2))
except KeyboardInterrupt:
    print("interrupted")"""
    begun = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert begun.communicate(timeout=60) == ("interrupted\n", "")
    finally:
        if begun.poll() is None:
            os.killpg(begun.pid, signal.SIGKILL)


@pytest.mark.parametrize("way", ["interrupt", "kill"])
@pytest.mark.slow
def test_what_ends_the_command_ends_its_workers_and_keeps_what_is_done(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuitsim.sweeping.draws.CHUNK_CIRCUITS", CHUNK_CIRCUITS)  # as the command has it
    folder, runs = tmp_path / "study", 20_000
    command = [sys.executable, "-m", "circuitsim", "sweep", str(MONTE_CARLO), "--runs", str(runs), "--seed", "1"]
    command += ["--workers", "2", "--study", str(folder), "--npz", str(tmp_path / "out.npz")]
    begun = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for(lambda: len(list(folder.glob("runs/chunk-*"))) > 2)
        team, everybody = children(begun.pid), psutil.Process(begun.pid).children(recursive=True)
        assert len(team) == 2
        if way == "interrupt":
            os.killpg(begun.pid, signal.SIGINT)  # as a terminal does: to all of them
        else:
            begun.kill()
        out, told = begun.communicate(timeout=60)
    finally:
        if begun.poll() is None:
            os.killpg(begun.pid, signal.SIGKILL)
    assert out == ""
    if way == "interrupt":
        assert begun.returncode == 130
        kept = f"finished points are kept in {folder / 'runs'}; run the same command again to resume\ninterrupted\n"
        assert told == kept
        assert not any(map(psutil.pid_exists, team))
    wait_for(lambda: not any(p.is_running() for p in everybody))
    assert not (tmp_path / "out.npz").exists()
    chunks = list(folder.glob("runs/chunk-*"))
    circuit, study = cs.load(MONTE_CARLO), Study(folder / "runs")
    plan = MonteCarloPlan(circuit, cs.Settings(), None, (), runs, 1)
    assert 2 < len(chunks) < plan.chunks
    study.begin(circuit, plan.facts(), plan.chunks)
    for path in chunks[:3]:
        k = int(path.stem.removeprefix("chunk-"))
        found = study.load(k, plan.chunk(k)[1].size)
        assert found is not None
        np.testing.assert_array_equal(found.voltages, plan.solve(k).voltages)
