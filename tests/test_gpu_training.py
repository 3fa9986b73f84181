"""The benchmark of training on a GPU: its figures, by stand-ins for a GPU and for its clock."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from together import ForeignDevice, TogetherDevice

from circuitsim import parse
from circuitsim.gallery import drn
from training import gpu_steps
from training.recipe import find_recipe
from validation import gpu_training
from validation.gpu_training import PAPER_SECONDS, TARGETS, main, step_row, table, trained


def timer(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


@pytest.mark.parametrize("algorithm", ["ep", pytest.param("bp", marks=pytest.mark.slow)])
def test_a_step_and_its_floor(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_steps, "_THREADS", 64)
    device = TogetherDevice(tmp_path, 3, 400_000)
    recipe = replace(find_recipe("drn-xs"), algorithm=algorithm, nudge=0.01)
    row = step_row("drn-xs", recipe, parse(drn((1568, 12, 10))), device, timer, 2, 1000)
    assert row.measured is not None and row.peer_measured is not None
    barriers = 1 + 4 * (2 if algorithm == "ep" else 3)
    assert row.note.startswith(f"{barriers} barriers of 3 blocks at ") and " 0 MB through memory at " in row.note
    assert 0 < row.peer_measured < row.measured
    assert (row.target is None) == (algorithm == "bp")
    assert row.target is None or row.target.limit == pytest.approx(5.0 / 150_000)


def test_what_passes_through_memory_is_in_the_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_steps, "_THREADS", 64)
    device = TogetherDevice(tmp_path, 3, 40_000)
    recipe = replace(find_recipe("drn-xs"), nudge=0.01)
    row = step_row("drn-xs", recipe, parse(drn((1568, 12, 10))), device, timer, 1, 1000)
    assert f" {2 * 1568 * 12 * 4 / 1e6:.4g} MB through memory at " in row.note


def test_a_network_that_does_not_fit_has_no_figure() -> None:
    row = step_row("drn-xs", find_recipe("drn-xs"), parse(drn((1568, 12, 10))), ForeignDevice(), timer, 1, 1000)
    assert row.measured is None and "do not fit the shared memory" in row.note


@pytest.mark.slow
def test_a_run_that_is_there_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--backend", "cpu", "--limit", "40", "--test-limit", "10", "--epochs", "2", "--threads", "1"]
    first = trained("drn-xs", "ep", 1, tmp_path, options)
    assert (first["epoch"], first["examples"]) == (2, 80) and 0 <= first["test_error"] <= 100
    assert first["command"].startswith(
        "python -m training.mnist --netlist drn-xs --algorithm ep --seed 1 --backend cpu"
    )
    monkeypatch.setattr(gpu_training.subprocess, "run", lambda *_, **__: pytest.fail("run again"))
    assert trained("drn-xs", "ep", 1, tmp_path, options) == first


def test_the_table_has_the_means_of_the_seeds() -> None:
    runs = [
        {"netlist": "drn-xs", "algorithm": how, "epoch": 10.0, "test_error": error, "train_error": 3.0, "seconds": s}
        for how, error, s in (("ep", 3.4, 4.0), ("ep", 3.2, 5.0), ("bp", 3.1, 6.0))
    ]
    ep, bp = table(runs).splitlines()[2:]
    assert ep == "| drn-xs | EP, 10 | 2 | 3.30 | 3.00 | 4.5 | 3.46 / 2.94, 1,800 |"
    assert bp == "| drn-xs | BP, 10 | 1 | 3.10 | 3.00 | 6.0 | 3.30 / 2.62 |"


def test_targets_are_of_the_recipes_that_ship() -> None:
    assert TARGETS.keys() == PAPER_SECONDS.keys()
    assert [find_recipe(name).epochs for name in TARGETS] == [10, 50, 50, 50, 100]


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    result = CliRunner().invoke(main, ["--table1"])
    assert result.exit_code == 2 and "backend gpu: CuPy" in result.output
