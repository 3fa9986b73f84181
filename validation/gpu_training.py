"""`python -m validation.gpu_training`: training on the GPU, a step at a time, or whole runs: the paper's Table 1.

Steps are timed by CUDA events around the call that takes many of them; beside each its floor, from figures of the same
run: the barriers of a step times what one costs, and the bytes that pass through the GPU's memory at the speed of a
copy. With --table1 every network is trained by `python -m training.mnist --backend gpu` with its recipe, one seed after
the other; a table that was interrupted goes on. It needs what training needs, so that it runs from the source tree.
"""

from __future__ import annotations

import csv
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

import circuitsim as cs
from circuitsim.backends.cuda import CudaDevice
from circuitsim.backends.device import Device
from circuitsim.io.commands import HELP_NAMES, Command
from circuitsim.io.files import check_target
from training.checkpoint import NEWEST
from training.datasets import MNIST, load_idx_dataset
from training.gpu_steps import GpuSteps, barriers, program
from training.layered import LayeredLearner
from training.layers import find_layers
from training.metrics import COLUMNS
from training.recipe import Recipe, find_recipe, override
from training.record import METRICS, TRAINED
from validation.gpu import COPIED, Timer, device_timer, memory_speed, text
from validation.measure import ROOT, BenchmarkError, Row, Target, save_json

_NAME = "gpu training"
PAPER_SECONDS = {"drn-xs": 1800, "drn-1h": 9360, "drn-2h": 16140, "drn-3h": 25020, "drn-xl": 37620}  # one A100, EP
TARGETS = {"drn-xs": 5.0, "drn-1h": 30.0, "drn-2h": 80.0, "drn-3h": 110.0, "drn-xl": 240.0}  # s for a run, EP
SAMPLES = 60_000  # of an epoch
_STEPS = 10_000  # that are timed at once


def learner_of(circuit: cs.Circuit, recipe: Recipe, device: Device) -> LayeredLearner:
    """The layered learner on a device."""
    problem = cs.compile_problem(circuit)
    structure = find_layers(problem)
    assert structure is not None
    return LayeredLearner(problem, structure, recipe, kernel=True, threads=1, device=device)


def step_row(
    name: str, recipe: Recipe, circuit: cs.Circuit, device: Device, timer: Timer, steps: int, copied: int
) -> Row:
    """A step of a network, beside its floor and the time that its target leaves."""
    learner = learner_of(circuit, recipe, device)
    train, _ = load_idx_dataset(MNIST)
    order = np.random.default_rng(0).permutation(len(train))[: steps * recipe.batch_size]
    rates = dict.fromkeys(learner.values(), 1e-6)
    learner.prepare(train)
    on_gpu = learner.gpu_steps
    if on_gpu is None:
        return Row(_NAME, f"{name}, a step of {recipe.algorithm}", note=learner.path)
    learner.train(train, order[: recipe.batch_size], rates)  # compiled, and the samples sent
    seconds = min(timer(lambda: learner.train(train, order, rates)) for _ in range(3)) / steps
    floor, note = floor_of(on_gpu, device, timer, copied)
    target = Target(TARGETS[name] / (recipe.epochs * SAMPLES / recipe.batch_size)) if recipe.algorithm == "ep" else None
    return Row(_NAME, f"{name}, a step of {recipe.algorithm}", seconds, "s", target, "floor", floor, False, note)


def floor_of(steps: GpuSteps, device: Device, timer: Timer, copied: int) -> tuple[float, str]:
    """Seconds that a step needs for its barriers and for the memory; in words."""
    task, plan = steps.task, steps.plan
    count = barriers(task)
    barrier = barrier_seconds(steps, device, timer)
    moved = 0 if plan.resident else 2 * task.sizes[0] * task.sizes[1] * np.dtype(task.dtype).itemsize
    speed = memory_speed(device, timer, copied)
    note = (
        f"{count} barriers of {plan.blocks} blocks at {barrier * 1e6:.3g} us, {moved / 1e6:.4g} MB through memory at "
        f"{speed / 1e12:.3g} TB/s"
    )
    return count * barrier + moved / speed, note


def barrier_seconds(steps: GpuSteps, device: Device, timer: Timer, count: int = 1000) -> float:
    """Of one meeting of the blocks of these steps."""
    code = program(steps.task, steps.plan, "uint8", "meetings")

    def meet() -> None:
        device.launch_together(
            code, steps.plan.blocks, steps.threads, steps.plan.shared_bytes, count, device.xp.zeros(1, np.uint32)
        )

    meet()
    return min(timer(meet) for _ in range(3)) / count


# -- whole runs --------------------------------------------------------------------------------------------------------


def trained(name: str, algorithm: str, seed: int, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """A run of the recipe, or what an earlier call has left of it; its last row, and its command."""
    out = folder / f"{name}-{algorithm}-seed{seed}{''.join(options)}"
    backend = [] if "--backend" in options else ["--backend", "gpu"]
    arguments = ["--netlist", name, "--algorithm", algorithm, "--seed", str(seed), *backend, *options]
    command = ["python", "-m", "training.mnist", *arguments]
    if not (out / TRAINED).exists():
        resume = ["--resume"] if (out / NEWEST).exists() else []
        done = subprocess.run([sys.executable, *command[1:], "--out", str(out), *resume], cwd=ROOT)
        if done.returncode:
            raise BenchmarkError(f"{' '.join(command)} ended with {done.returncode}")
    *_, last = csv.DictReader((out / METRICS).read_text().splitlines())
    return {
        "netlist": name, "algorithm": algorithm, "seed": seed, "command": " ".join(command),
        **{key: float(last[key]) for key in COLUMNS},
    }  # fmt: skip


def table(runs: Sequence[dict[str, Any]]) -> str:
    """The runs as README.md shows those of the CPU: a row for each network and algorithm, the means of its seeds."""
    lines = [
        "| netlist | algorithm, epochs | seeds | test error, % | train error, % | seconds | paper: errors, seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, algorithm in dict.fromkeys((run["netlist"], run["algorithm"]) for run in runs):
        own = [run for run in runs if (run["netlist"], run["algorithm"]) == (name, algorithm)]
        mean = {key: sum(run[key] for run in own) / len(own) for key in ("test_error", "train_error", "seconds")}
        expected = find_recipe(name).expected.get(algorithm, {})
        paper = " / ".join(f"{expected[key]:.2f}" for key in ("test", "train") if key in expected)
        lines.append(
            f"| {name} | {algorithm.upper()}, {own[0]['epoch']:.0f} | {len(own)} | {mean['test_error']:.2f} | "
            f"{mean['train_error']:.2f} | {mean['seconds']:.1f} | {paper}"
            + (f", {PAPER_SECONDS[name]:,} |" if algorithm == "ep" else " |")
        )
    return "\n".join(lines)


class _Command(Command):
    memory_advice = "use another GPU"


@click.command(cls=_Command, context_settings=HELP_NAMES)
@click.option("--table1", is_flag=True, help="Train every network, instead of timing steps.")
@click.option(
    "--netlist", "networks", multiple=True, type=click.Choice(list(TARGETS)), help="Only this network. Repeatable."
)
@click.option("--algorithm", "algorithms", multiple=True, type=click.Choice(["ep", "bp"]), default=("ep", "bp"))
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs with seeds 1 to N.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs, fewer than the recipe's, for a trial.")
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "runs" / "table1", show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Also save the figures here.")
def main(
    table1: bool, networks: tuple[str, ...], algorithms: tuple[str, ...], seeds: int, epochs: int | None, folder: Path,
    target: Path | None,
) -> None:  # fmt: skip
    """Measure training on the GPU: steps, or with --table1 the paper's whole runs."""
    if target is not None:
        check_target(target)
    device = CudaDevice()
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "device": device.name, "versions": versions(device.xp),
    }  # fmt: skip
    jobs = [(name, algorithm) for name in networks or TARGETS for algorithm in algorithms]
    if table1:
        options = ["--epochs", str(epochs)] if epochs else []
        with TemporaryDirectory() as scratch:  # CuPy's own kernels are compiled, and kept, before anything is timed
            for algorithm in algorithms:
                short = ["--limit", "40", "--test-limit", "250", "--epochs", "1"]
                try:
                    trained("drn-xs", algorithm, 1, Path(scratch), short)
                except BenchmarkError as error:
                    raise click.ClickException(str(error)) from None
        found["runs"] = []
        failed = []
        for name, algorithm in jobs:
            for seed in range(1, seeds + 1):
                try:
                    found["runs"].append(trained(name, algorithm, seed, folder, options))
                except BenchmarkError as error:  # the others go on
                    failed.append(str(error))
                if target is not None:  # whatever comes after it
                    save_json(found, target)
        click.echo(table(found["runs"]))
        if failed:
            raise click.ClickException("; ".join(failed))
        return
    found["rows"] = []
    for name, algorithm in jobs:
        recipe = override(find_recipe(name), algorithm=algorithm)
        row = step_row(name, recipe, cs.load(recipe.netlist), device, device_timer(device), _STEPS, COPIED)
        click.echo(text(row))
        found["rows"].append(row.as_json())
        if target is not None:  # whatever comes after it
            save_json(found, target)


def versions(cupy: Any) -> dict[str, str]:
    """Of what computes."""
    runtime = cupy.cuda.runtime
    return {
        "circuitsim": cs.__version__, "python": platform.python_version(), "numpy": np.__version__,
        "cupy": cupy.__version__, "cuda": str(runtime.runtimeGetVersion()), "driver": str(runtime.driverGetVersion()),
    }  # fmt: skip


if __name__ == "__main__":
    main(prog_name="python -m validation.gpu_training")
