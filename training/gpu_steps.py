"""The steps of a layered netlist on a GPU, by equilibrium propagation or back-propagation: how they are distributed
over it, and the launches of steps.cu.

Each multiprocessor keeps the conductances at some units of every hidden layer in its shared memory, for thousands of
steps; see steps.cu. A netlist that does not fit is refused, and takes the plain path (layers.py) with its arrays on the
device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.device import Device, Program
from training.kernels import BACK, PLAIN, mode_of
from training.learner import Samples
from training.recipe import Recipe

Array = Any  # of the device's array module

SOURCE = Path(__file__).with_name("steps.cu")
FEATURES = {"uint8": "unsigned char", "float32": "float", "float64": "double"}  # others become float64
REALS = {"float32": "float", "float64": "double"}

_THREADS = 512  # of a block: one block a multiprocessor, 128 registers a thread
_MOST_SAMPLES = 8  # of a step: a thread keeps sums of so many in its registers
_MOST_OUTPUTS = 256  # which every block works out for itself
_WRONG_PLAN = 4
_MOST_ENTRIES = 2**31  # of the input crossbar, where it passes through
_MOST_WAITS = 500_000  # the barriers themselves: about a second, after which Ctrl-C is heard
_MOST_ARRIVALS = 2**31  # at the barriers of one launch, which are counted in 32 bits


class Refused(Exception):
    """The steps cannot be taken this way; the message says why."""


@dataclass(frozen=True)
class Plan:
    """How the units are spread over the blocks of a launch."""

    blocks: int
    widths: tuple[int, ...]  # units of each hidden layer that a block owns at the most, a multiple of 4
    resident: bool  # whether the input crossbar stays in shared memory
    numbers: int  # of shared memory that a block takes
    shared_bytes: int


@dataclass(frozen=True)
class Task:
    """What the steps are."""

    sizes: tuple[int, ...]  # of the layers: inputs, hidden ones, outputs
    features: int
    batch: int
    sweeps: int
    mode: int  # kernels.DIFFERENCE, PLAIN or BACK
    dtype: str


def task_of(sizes: tuple[int, ...], features: int, recipe: Recipe) -> Task:
    """The steps of a recipe, on layers of these sizes."""
    mode = mode_of(recipe.algorithm, recipe.form)
    return Task(sizes, features, recipe.batch_size, recipe.sweeps, mode, recipe.dtype)


def plan_of(task: Task, device: Device) -> Plan:
    """Spread the layers over a device. Raises Refused."""
    sizes, batch = task.sizes, task.batch
    hidden, outputs = sizes[1:-1], sizes[-1]
    if not hidden:
        raise Refused("there is no hidden layer")
    if batch > _MOST_SAMPLES:
        raise Refused(f"a step takes {batch} samples; at most {_MOST_SAMPLES} are supported")
    if outputs > _MOST_OUTPUTS:
        raise Refused(f"there are {outputs} outputs; at most {_MOST_OUTPUTS} are supported")
    size = np.dtype(task.dtype).itemsize
    for resident in (True, False):
        whole = [4 if resident or k else 32 for k in range(len(hidden))]  # what passes through in whole cache lines
        widths = tuple(w * -(-n // (w * device.multiprocessors)) for n, w in zip(hidden, whole, strict=True))
        blocks = max(-(-n // width) for n, width in zip(hidden, widths, strict=True))
        if barriers(task) * blocks >= _MOST_ARRIVALS:
            raise Refused(f"a step takes {task.sweeps:,} sweeps")
        numbers = _numbers(task, widths, resident)
        shared = numbers * size
        fits = resident or (hidden[0] % 4 == 0 and sizes[0] * hidden[0] < _MOST_ENTRIES)
        if shared <= device.shared_bytes and fits:
            return Plan(blocks, widths, resident, numbers, shared)
    raise Refused(
        f"its conductances do not fit the shared memory: {shared:,} bytes for a multiprocessor, which has "
        f"{device.shared_bytes:,}"
        if shared > device.shared_bytes
        else f"the first hidden layer has {hidden[0]:,} units: not a multiple of 4, or too many conductances to count"
    )


def _numbers(task: Task, widths: Sequence[int], resident: bool) -> int:
    """What Net of steps/net.cuh takes; the kernel compares."""
    sizes, features, batch = task.sizes, task.features, task.batch
    hidden, outputs = sizes[1:-1], sizes[-1]
    wanted: list[int] = []
    for k, width in enumerate(widths):
        near = (hidden[k - 1] if k else 0) + (hidden[k + 1] if k + 1 < len(hidden) else 0)
        wanted += [near * width, width, width, width, width]
    first, last, widest = widths[0], widths[-1], max(widths)
    across = max(_across(width) for width in widths)
    sums = _power_of_two(4 * max(2 * batch, batch + 1))  # of a thread
    wanted += [
        sizes[0] * first if resident else 0, outputs * last, 2 * features * batch, batch * first, first,
        (batch + 1) * first, 2 * batch * widest, 2 * batch * last, batch * widest, batch * widest, 2 * batch * outputs,
        _wide(batch) * outputs, batch * outputs, outputs, outputs, outputs, outputs, widest,
        max(_THREADS // 32 * across * (sums + 1), 4 * _THREADS),
    ]  # fmt: skip
    if task.mode == BACK:
        wanted += [count * batch * n for n in (widest, outputs) for count in (task.sweeps + 1, task.sweeps)]
    return sum(_whole_quads(count) for count in wanted)


def _whole_quads(count: int) -> int:
    return -(-count // 4) * 4


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _wide(batch: int) -> int:
    """What a block shares for an output in a nudged phase, at the most."""
    return _power_of_two(2 * batch)


def _across(width: int) -> int:
    """Lanes side by side in a row of a slab: the largest power of two with a quad of columns each, 32 at the most."""
    return min(32, 1 << ((width // 4).bit_length() - 1))


def barriers(task: Task) -> int:
    """How often all blocks wait for each other in a step."""
    hidden = len(task.sizes) - 2
    phases, begun = (3, 0) if task.mode == BACK else (2, int(hidden > 1))
    return 1 + begun + phases * task.sweeps * (2 if hidden > 1 else 1)


def program(task: Task, plan: Plan, features: str, kernel: str = "steps") -> Program:
    """steps.cu for this task, spread in this way, and features of this dtype."""
    defined = {
        "REAL": REALS[task.dtype], "FEATURE": FEATURES[features], "FEATURES": task.features, "BATCH": task.batch,
        "SIZES": _numbers_text(task.sizes), "HIDDEN": len(task.sizes) - 2, "WIDTHS": _numbers_text(plan.widths),
        "RESIDENT": int(plan.resident), "SWEEPS": task.sweeps, "THREADS": _THREADS, "PLAIN": int(task.mode == PLAIN),
        "BACK": int(task.mode == BACK),
    }  # fmt: skip
    return Program(SOURCE, tuple(f"-D{name}={value}" for name, value in defined.items()), kernel)


def features_on(xp: Any, samples: Samples) -> Array:
    """The features on a device, in a type that the kernels read."""
    known = str(samples.features.dtype) in FEATURES
    return xp.asarray(np.ascontiguousarray(samples.features, None if known else np.float64))


def _numbers_text(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


class GpuSteps:
    """Takes steps on a learner's arrays, which lie on the device as kernels.py describes them."""

    def __init__(self, task: Task, device: Device) -> None:
        """Raises Refused."""
        self.task, self.device, self.plan = task, device, plan_of(task, device)
        self.threads = _THREADS
        zeros, dtype, batch = device.xp.zeros, task.dtype, task.batch
        units, back = sum(task.sizes[1:]), task.mode == BACK
        self.volts = zeros(units * _whole_quads(2 * batch), dtype)
        shared = _whole_quads(_wide(batch) * task.sizes[-1]) + _whole_quads(task.sizes[-1])
        self.partials = zeros(2 * shared * self.plan.blocks, dtype)
        self.tapes = [
            zeros(times * units * _whole_quads(batch) if back else 0, dtype) for times in (task.sweeps + 1, task.sweeps)
        ]
        self._samples: tuple[Samples, Array, Array] | None = None

    def prepare(self, samples: Samples) -> None:
        """Compile the kernel for such samples, and send them."""
        self.device.make_ready(program(self.task, self.plan, str(self._on_device(samples)[0].dtype)))

    def run(
        self, samples: Samples, order: NDArray[np.int64], numbers: NDArray[Any], arrays: Sequence[Array]
    ) -> tuple[int, int, float, int]:
        """A step for every `batch` entries of `order`.

        `numbers`: volts of a feature of 1, beta1, beta2; rates, bias rates, g_min and g_max of the layers; `arrays`: g,
        bias, lo, hi, v, free, delta, total. Gives the status and the unit concerned, see kernels.py, the sum of costs
        and the number of wrong answers.
        """
        device, xp = self.device, self.device.xp
        data, targets = self._on_device(samples)
        p, task = self.plan, self.task
        plan = xp.asarray(np.array([p.numbers, p.blocks], np.int64))
        numbers, rows = xp.asarray(numbers.astype(task.dtype)), xp.asarray(order.astype(np.int64))
        tally, status = xp.zeros(2), xp.zeros(2, np.int64)
        code = program(task, p, str(data.dtype))
        waits = barriers(task)
        most = min(_MOST_ARRIVALS // (waits * p.blocks), max(1, _MOST_WAITS // waits))
        count = order.size // task.batch
        for first in range(0, count, most):
            arrived, cut_off = xp.zeros(1, np.uint32), xp.full(1, -1, np.int32)
            device.launch_together(
                code, p.blocks, self.threads, p.shared_bytes,
                plan, numbers, data, targets, rows[first * task.batch :], min(most, count - first), *arrays,
                self.volts, self.partials, *self.tapes, arrived, cut_off, tally, status,
            )  # fmt: skip
            if device.to_host(status)[0]:
                break
        found, (cost, wrong) = device.to_host(status), device.to_host(tally)
        if found[0] == _WRONG_PLAN:
            raise RuntimeError("steps.cu lays out its shared memory, or the launch its blocks, in another way")
        return int(found[0]), int(found[1]), float(cost), int(wrong)

    def _on_device(self, samples: Samples) -> tuple[Array, Array]:
        """Features and targets there; they stay until others come."""
        if self._samples is None or self._samples[0] is not samples:
            xp = self.device.xp
            targets = xp.asarray(np.ascontiguousarray(samples.targets, np.float32))
            self._samples = samples, features_on(xp, samples), targets
        return self._samples[1:]
