"""Monte Carlo analyses: a netlist solved many times, each time with new random draws."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.base import Backend
from circuitsim.build import build_circuit
from circuitsim.circuit import Circuit
from circuitsim.errors import NetlistError, SettingsError, whole
from circuitsim.netlist.analyses import MAX_POINTS
from circuitsim.netlist.chance import MOST_SEED
from circuitsim.netlist.expand import Changes, cure_of_draws
from circuitsim.netlist.revalue import Variant
from circuitsim.netlist.saves import Save
from circuitsim.problem import Problem, arranged
from circuitsim.saved import as_saves
from circuitsim.solution import Settings
from circuitsim.sweeping.gather import Progress, Store, solve_plan
from circuitsim.sweeping.plan import CHUNK_CIRCUITS, Plan, check_circuit, revaluer_of
from circuitsim.sweeping.results import SweepResult
from circuitsim.sweeping.runner import Runner

Ints = NDArray[np.int64]


def monte_carlo(
    circuit: Circuit,
    runs: int,
    seed: int | None = None,
    settings: Settings | None = None,
    *,
    backend: Backend | None = None,
    progress: Progress | None = None,
    saves: Sequence[Save | str] | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    study: Store | None = None,
) -> SweepResult:
    """Solve a circuit `runs` times with fresh random draws: run k is the netlist as read with seed `seed + k`.

    seed: by default that of `.options seed=`, or 0. Analyses with nearby seeds share draws: those with seed 1 and seed
    2 share all but one run. A run whose draws give no valid circuit (a negative resistance) counts as failed. The other
    parameters are those of `sweep`. Raises SettingsError, BackendUnavailable.
    """
    check_circuit(circuit, settings)
    clock = time.perf_counter()
    seed = whole("seed", circuit.netlist.options.seed if seed is None else seed)
    runs = whole("runs", runs)
    if runs < 1:
        raise SettingsError(f"runs must be at least 1, found {runs}")
    if runs > MAX_POINTS:
        raise SettingsError(f"{runs:,} runs, more than {MAX_POINTS:,}; draw fewer")
    if not 0 <= seed <= MOST_SEED - runs:
        raise SettingsError(f"seeds {seed} ... {seed + runs - 1} must lie between 0 and 2^53; choose another")
    plan = MonteCarloPlan(circuit, settings or Settings(), backend, as_saves(circuit, saves), runs, seed)
    return solve_plan(plan, clock, progress, workers, scheduler, study)


class MonteCarloPlan(Plan):
    """The runs of an analysis, each with its own random draws."""

    def __init__(
        self,
        circuit: Circuit,
        settings: Settings,
        backend: Backend | None,
        saves: tuple[Save, ...],
        runs: int,
        seed: int,
    ) -> None:
        values = np.arange(seed, seed + runs, dtype=np.float64)[:, None]
        super().__init__(circuit, settings, backend, saves, values, np.arange(runs)[:, None], CHUNK_CIRCUITS)
        self.seed = seed
        self.revaluer = revaluer_of(circuit)

    @cached_property
    def base(self) -> Problem:
        return arranged(self.circuit)  # its sources are no run

    def solve_groups(self, groups: range, rows: Ints, runner: Runner) -> None:
        seeds = self.seed + rows[:, 0]
        variants = self.revaluer.variants([Changes(seed=seed) for seed in seeds.tolist()])

        def circuit_of(row: int, variant: Variant) -> Circuit | None:
            try:
                return build_circuit(variant.netlist())
            except NetlistError as error:
                error.message += cure_of_draws(error.message, int(seeds[row]))
                runner.fault(row, error)
                return None

        runner.solve_apart(enumerate(variants), circuit_of, self.stack, self.stacks)

    def facts(self) -> dict[str, Any]:
        return {"analysis": "Monte Carlo", "seed": self.seed, "runs": len(self.values), **super().facts()}
