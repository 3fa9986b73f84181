"""`python -m validation.gpu [--json FILE]`: the table of the GPU, beside the CPU of the same machine in the same run.

Seconds "by device events" are those between two CUDA events around `bcd.solve_tile`: from the drive on the host to
certified voltages on the host, transfers, sweeps and every look at the certificate included; what prepares them
(arranging, conductances to the device, the drive) is in the whole solves only, which are wall-clock time. It needs
NumPy, SciPy, Numba, NetworkX, threadpoolctl and CuPy, and pyamg for the grid, so that it runs from the source tree. A
row is printed, and saved, as soon as it is measured. The exit code is 0 when it ran, 2 when there is no GPU.
"""

from __future__ import annotations

import argparse
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim.backends.base import Backend
from circuitsim.backends.cpu import CpuBackend
from circuitsim.backends.cuda import CudaDevice
from circuitsim.backends.device import Device
from circuitsim.backends.gpu import GpuBackend
from circuitsim.gallery import current_grid, diode_mesh
from circuitsim.io.files import check_target
from circuitsim.methods import bcd
from circuitsim.methods.held import Held
from circuitsim.methods.mna import make_network
from circuitsim.methods.outcome import Outcome
from circuitsim.solving import steps_text
from training.datasets import MNIST, load_idx_dataset
from training.recipe import find_recipe
from validation.measure import NETLISTS, Row, Target, best_of, fastest, save_json

Floats = NDArray[np.float64]
Timer = Callable[[Callable[[], Any]], float]  # seconds of a call

_NAME = "gpu"
COPIED = 2**28  # float64 numbers, for the speed of the device's memory
_WIRES = "wires are eliminated, on the cpu"


def gpu(
    device: Device, timer: Timer, images: int, few: int, side: int, draws: int, copied: int = COPIED
) -> Iterator[Row]:
    """All rows, one by one: so many images through drn_1h, and through drn_3h; a grid of this side; draws of a mesh.

    A row that cannot be measured says why: the others are.
    """
    _, test = load_idx_dataset(MNIST)
    pixels = test.scale * test.features
    pixels = np.concatenate([pixels, -pixels], axis=1)
    single = cs.Settings(method="bcd", dtype="float32", tol=1e-5)
    double = cs.Settings(method="bcd")
    many = _problem("drn_1h", find_recipe("drn-1h").gain * pixels[:images])
    deep = _problem("drn_3h", find_recipe("drn-3h").gain * pixels[:few])
    newton, faster = cs.Settings(method="newton"), Target(1.0, False, of_ratio=True)
    drawn = f"Monte Carlo, {draws:,} draws of a 484-node diode mesh, whole analysis"
    meshes = f"484-node diode mesh, {few} rows, newton"
    grid = f"grid {side} x {side}, {20 * side} current sources, newton, whole solve"
    images_through = f"{images} images through drn_1h, float32"
    rows: dict[str, Callable[[str], Row]] = {
        images_through: lambda what: batch_row(device, timer, many, single, what, Target(0.020)),
        "the same, whole solve": lambda what: whole_row(device, many, single, what, None),
        "drn_xl, one image, float64": lambda what: passes_row(
            device, timer, _problem("drn_xl", None), double, copied, what
        ),
        f"drn_3h, {few} images, whole solve": lambda what: whole_row(
            device, deep, double, what, Target(20.0, False, of_ratio=True)
        ),
        meshes: lambda what: whole_row(device, _mesh(22, few), newton, what, None),
        grid: lambda what: whole_row(
            device, cs.compile_problem(cs.parse(current_grid(side, 20 * side))), newton, what, faster
        ),
        "512 x 512 crossbar with wires": lambda what: Row(_NAME, what, note=_WIRES),
        drawn: lambda what: draws_row(device, 22, draws, what),
    }
    for what, measure in rows.items():
        try:
            yield measure(what)
        except (cs.CircuitError, ImportError) as error:
            yield Row(_NAME, what, note=str(error))


def _problem(name: str, volts: Floats | None) -> cs.Problem:
    problem = cs.compile_problem(cs.load(NETLISTS / f"{name}.cir"))
    return problem if volts is None else problem.with_values({"Vx": volts})


def _mesh(n: int, rows: int) -> cs.Problem:
    """A mesh of diodes, n x n nodes, with rows of sources."""
    rng = np.random.default_rng(1)
    volts = {"V1": rng.uniform(1, 5, (rows, 1)), "V2": rng.uniform(-5, 5, (rows, 1))}
    return cs.compile_problem(cs.parse(diode_mesh(n))).with_values(volts)


def draws_row(device: Device, n: int, draws: int, what: str) -> Row:
    """Wall-clock time of a Monte Carlo analysis of a mesh of diodes, on the GPU and on one core."""
    circuit = cs.parse(diode_mesh(n, "{agauss(1k, 50, 1)}"))
    backends: dict[str, Backend] = {"gpu": GpuBackend(device), "cpu": CpuBackend()}
    for backend in backends.values():
        cs.monte_carlo(circuit, 64, 1, backend=backend)  # what it compiles: circuits side by side take more than two
    best = best_of(1, {name: lambda b=b: cs.monte_carlo(circuit, draws, 1, backend=b) for name, b in backends.items()})
    (seconds, here), (peer, there) = best["gpu"], best["cpu"]
    difference = np.abs(here.voltages - there.voltages).max()
    note = f"{here.failed.size} failed, {here.why}; largest difference {difference:.1e} V"
    return Row(_NAME, what, seconds, "s", Target(10.0, False, of_ratio=True), "cpu, one core", peer, note=note)


def batch_row(
    device: Device, timer: Timer, problem: cs.Problem, settings: cs.Settings, what: str, target: Target
) -> Row:
    """A batch by device events against its target."""
    seconds, _, note = on_device(device, timer, problem, settings)
    return Row(_NAME, what, seconds, target=target, note=note)


def whole_row(device: Device, problem: cs.Problem, settings: cs.Settings, what: str, target: Target | None) -> Row:
    """Wall-clock time of `solve` on both."""
    cpu, gpu = CpuBackend(), GpuBackend(device)
    seconds, here = fastest(2, lambda: cs.solve(problem, settings, backend=gpu))
    try:
        peer, there = fastest(2, lambda: cs.solve(problem, settings, backend=cpu))
    except ImportError as error:  # of multigrid
        return Row(_NAME, what, seconds, "s", note=f"no CPU beside it: {error}")
    difference = np.abs(here.voltages() - there.voltages()).max()
    reached = f"KCL {here.residuals.kcl_relative:.1e}, {steps_text(here.method, here.steps)} ({here.why})"
    note = f"{reached}; largest difference {difference:.1e} V"
    tiles = -(-problem.batch // cpu.tile(problem, settings.dtype)) if there.method == "bcd" else 1
    return Row(_NAME, what, seconds, "s", target, f"cpu, tiles at once: {min(cpu.workers, tiles)}", peer, note=note)


def passes_row(device: Device, timer: Timer, problem: cs.Problem, settings: cs.Settings, copied: int, what: str) -> Row:
    """One image against what reading its couplings as often as the sweeps do takes at the speed of a copy."""
    seconds, outcome, note = on_device(device, timer, problem, settings)
    a_sweep = 2 * sum(g.nbytes for _, g in problem.inner_blocks)  # each block once for each of its sides
    speed = memory_speed(device, timer, copied)
    peer = f"{outcome.steps} sweeps of {a_sweep / 1e6:.3g} MB at {speed / 1e12:.3g} TB/s"
    floor = outcome.steps * a_sweep / speed
    target = Target(3.0, of_ratio=True)
    return Row(_NAME, what, seconds, "s", target, peer, floor, False, note)


def memory_speed(device: Device, timer: Timer, count: int) -> float:
    """Bytes a second that a copy reads and writes."""
    a = device.xp.zeros(count)
    b = device.xp.empty_like(a)

    def copy() -> None:
        b[:] = a

    return 2 * a.nbytes / min(timer(copy) for _ in range(5))


def on_device(device: Device, timer: Timer, problem: cs.Problem, settings: cs.Settings) -> tuple[float, Outcome, str]:
    """The fastest of three runs of bcd on all rows at once, all else prepared; its outcome; a note.

    As in solving.py it is asked in float64 whether voltages are held.
    """
    backend = GpuBackend(device)
    engine, drive = backend.engine(problem, settings.dtype), backend.drive(problem, slice(0, problem.batch))
    held = None
    if settings.dtype == "float64":
        held = Held(problem, lambda: make_network(problem), threading.Lock())
    outcomes: list[Outcome] = []
    seconds = min(
        timer(lambda: outcomes.append(bcd.solve_tile(problem, drive, engine, settings, None, held=held)))
        for _ in range(3)
    )
    transfers = min(timer(lambda: (engine.start(drive, None), engine.voltages())) for _ in range(3))
    return seconds, outcomes[-1], f"by device events; {_reached(outcomes[-1])}; {transfers * 1e3:.3g} ms are transfers"


def device_timer(device: Device) -> Timer:
    """Seconds between two events of the device's stream around a call."""
    event = device.xp.cuda.Event

    def seconds(action: Callable[[], Any]) -> float:
        start, end = event(), event()
        start.record()
        action()
        end.record()
        end.synchronize()
        return float(device.xp.cuda.get_elapsed_time(start, end)) / 1e3

    return seconds


def _reached(outcome: Outcome) -> str:
    return f"{outcome.status.name}, KCL {outcome.residuals.kcl_relative:.1e}, {outcome.steps} sweeps"


def report(rows: list[Row], device: Device) -> dict[str, Any]:
    """Everything that the JSON file holds."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device.name,
        "cpu_cores": CpuBackend().workers,
        "system": platform.platform(),
        "rows": [row.as_json() for row in rows],
    }


def text(row: Row) -> str:
    """A row on one line."""
    if row.measured is None:
        return f"{row.what}: not measured; {row.note}"
    parts = [f"{row.what}: {row.measured * 1e3:.4g} ms"]
    if row.peer_measured is not None:
        ratio = row.ratio or float("nan")
        parts.append(f"{row.peer}: {row.peer_measured * 1e3:.4g} ms, ratio {ratio:.3g}")
    if row.target is not None:
        limit = f"{row.target.limit:g}" if row.target.of_ratio else f"{row.target.limit * 1e3:g} ms"
        sign = "<=" if row.target.at_most else ">="
        parts.append(f"target {sign} {limit}: {'met' if row.met else 'missed'}")
    return "; ".join([*parts, row.note])


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(prog="python -m validation.gpu", description="Measure the GPU backend.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also save the rows here")
    options = parser.parse_args(arguments)
    try:
        if options.json is not None:
            check_target(options.json)
        device = CudaDevice()
    except cs.CircuitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{device.name}; {CpuBackend().workers} CPU cores")
    rows: list[Row] = []
    for row in gpu(device, device_timer(device), 10_000, 1000, 1000, 2_000):
        rows.append(row)
        print(text(row), flush=True)
        if options.json is not None:  # whatever comes after it
            save_json(report(rows, device), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
