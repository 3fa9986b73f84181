"""Learning on a layered netlist: by the fast path (kernels.py; gpu_steps.py on a GPU), or by the plain path (layers.py)
for what the fast one does not cover."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from circuitsim import Circuit, Problem, SettingsError
from circuitsim.backends.device import Device
from training import convex, eqprop, kernels, layers
from training.gpu_steps import GpuSteps, Refused, features_on, task_of
from training.gradient import find_outputs
from training.layers import Layers, Weights
from training.learner import (
    AT_ONCE,
    Learner,
    LearningError,
    Samples,
    Tally,
    check_arrays,
    check_batches,
    rates_of,
    tally_of,
)
from training.recipe import Recipe

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CHECK_EVERY = 10_000  # steps between two tests of convexity
_MOST_VOLTAGES = 2**25  # of samples whose outputs are computed together on a device, which holds some such arrays
_KEPT = ("g", "bias", "v", "free", "delta", "total")


class LayeredLearner(Learner):
    """See learner.Learner.

    Conductances, biases and state are flat arrays of one dtype, as the kernels want them, with views layer by layer.
    The last of several crossbars is held transposed. With a device they lie there.
    """

    def __init__(
        self,
        problem: Problem,
        structure: Layers,
        recipe: Recipe,
        *,
        kernel: bool,
        threads: int,
        device: Device | None = None,
    ) -> None:
        self.problem, self.structure, self.recipe = problem, structure, recipe
        self.batch_size, self.dtype = recipe.batch_size, recipe.dtype
        self.fast = kernel
        self.threads, self.device = threads, device
        self.guard = device.guard if device else nullcontext
        self.xp = device.xp if device else np
        self.at_once = max(1, _MOST_VOLTAGES // sum(structure.sizes)) if device else AT_ONCE
        self.blas = ThreadpoolController()  # here once: looking for the libraries takes a millisecond or more
        self.betas = eqprop.nudges(recipe.variant, recipe.nudge) if recipe.algorithm == "ep" else (0.0, 0.0)
        self.form = "difference" if recipe.algorithm == "implicit" else recipe.form
        self.g_min, self.g_max = self._windows()
        self.outputs_at = find_outputs(problem)
        self.path = "fast path for layers" if self.fast else "plain path for layers"
        self.gpu_steps: GpuSteps | None = None
        self.steps = 0
        self._prepared: Samples | None = None
        self._sent: tuple[Samples, Samples] | None = None
        self.n = np.array(structure.sizes, np.int64)
        self.unit = np.concatenate([[0], np.cumsum(self.n[1:])])[:-1]
        self.where = np.concatenate([[0], np.cumsum(self.n[:-1] * self.n[1:])])
        with self.guard():
            self._make_arrays(problem.circuit)

    def _make_arrays(self, c: Circuit) -> None:
        """Allocate the arrays that steps change, on the device if there is one, with the values of the circuit."""
        structure, dtype, units, zeros = self.structure, self.recipe.dtype, int(self.n[1:].sum()), self.xp.zeros
        self.g, self.bias = zeros(int(self.where[-1]), dtype), zeros(units, dtype)
        self.lo, self.hi = (self._put(np.concatenate(bounds)) for bounds in (structure.lo, structure.hi))
        self.v = zeros(2 * self.batch_size * units, dtype)
        self.free, self.delta, self.total = (zeros(self.batch_size * units, dtype) for _ in range(3))
        g = {x.name: x.g for x in c.crossbars}
        for k, (name, bias) in enumerate(zip(structure.crossbars, structure.biases, strict=True)):
            self._crossbar(k)[:] = self._put(g[name])
            self._bias(k)[:] = self._put(structure.fixed[k])
            if bias is not None:
                sources = c.current_sources
                self._bias(k)[:] += self._put(sources.i[0, sources.of(*c.rows_of(bias))])

    def _windows(self) -> tuple[NDArray, NDArray]:
        """Bounds of the conductances of each crossbar, (L,) S: the recipe's; 0 and inf for one that does not learn."""
        trained = {name.lower() for name in self.problem.circuit.netlist.trained}
        none = (0.0, np.inf)
        windows = [self.recipe.window if x.lower() in trained else none for x in self.structure.crossbars]
        g_min, g_max = np.array(windows, self.recipe.dtype).T
        return g_min.copy(), g_max.copy()

    def prepare(self, samples: Samples) -> None:
        self.structure.check_inputs(samples)
        dtype = self.g.dtype
        with np.errstate(over="ignore"):
            if not np.isfinite(dtype.type(self.recipe.gain * samples.scale)):
                raise SettingsError(f"gain {self.recipe.gain:g} is too large for {dtype}; choose a smaller one")
        if self.device:
            with self.guard():
                self._make_gpu_steps(self.device, samples)
        elif self.fast:
            if self.recipe.algorithm == "ep":
                self._check_convex(min(self.betas))  # before the kernels are compiled, which takes long
            kernels.make_ready(str(dtype), str(samples.features.dtype))
        self._prepared = samples

    def _make_gpu_steps(self, device: Device, samples: Samples) -> None:
        """Choose the fast path on a device, or the plain path there if the fast one refuses."""
        if not self.fast:
            return
        task = task_of(self.structure.sizes, samples.features.shape[1], self.recipe)
        try:
            if self.gpu_steps is None or self.gpu_steps.task != task:
                self.gpu_steps = GpuSteps(task, device)
        except Refused as reason:
            self.fast, self.path = False, f"plain path for layers on {device.name} ({reason})"
            return
        self.gpu_steps.prepare(samples)
        self.path = f"fast path for layers on {device.name}"

    # -- steps -----------------------------------------------------------------------------------------------------

    def train(self, samples: Samples, order: Ints, rates: Mapping[str, float]) -> Tally:
        if samples is not self._prepared:
            self.prepare(samples)
        check_batches(order, self.batch_size)
        by_name = rates_of(self.problem.circuit.netlist.trained, rates)
        dtype = self.g.dtype
        with np.errstate(over="ignore"):
            if not np.isfinite(np.array([*by_name.values()], dtype)).all():
                raise SettingsError(f"learning rate {max(by_name.values()):g} is too large for {dtype}")
        g_rates = np.array([by_name.get(name.lower(), 0.0) for name in self.structure.crossbars], dtype)
        b_rates = np.array([by_name.get((name or "").lower(), 0.0) for name in self.structure.biases], dtype)
        run = self._kernel_steps if self.fast else self._plain_steps
        tally, first = Tally(), 0
        with self._limits(), self.guard():
            while first < order.size:  # up to the next test of convexity, wherever the steps were interrupted
                if self.steps % _CHECK_EVERY == 0 and self.recipe.algorithm == "ep":
                    self._check_convex(min(self.betas))
                count = min(_CHECK_EVERY - self.steps % _CHECK_EVERY, (order.size - first) // self.batch_size)
                stop = first + count * self.batch_size
                tally += run(samples, order[first:stop], g_rates, b_rates)
                self.steps, first = self.steps + count, stop
        return tally

    def _check_convex(self, beta: float) -> None:
        """LearningError when E + beta C is not convex; see convex.check_convex, which takes any circuit."""
        if beta >= 0:
            return
        w = self._weights()
        sums = self._host(w.a[-1])
        if (sums + beta <= 0).any():
            raise self._not_convex(int(sums.argmin()), float(sums.min()), beta)
        matrix = layers.reduced_conductances(w, beta)
        if matrix is None or not convex.positive_definite(self._host(matrix)):
            raise convex.not_convex("", np.nan, beta)

    def _not_convex(self, output: int, conductance: float, beta: float) -> LearningError:
        node = self.problem.circuit.nodes[int(self.outputs_at.nodes[output])]
        return convex.not_convex(node, conductance, beta)

    def _kernel_steps(self, samples: Samples, order: Ints, g_rates: NDArray, b_rates: NDArray) -> Tally:
        scalar = self.g.dtype.type
        volts, betas = scalar(self.recipe.gain * samples.scale), [scalar(beta) for beta in self.betas]
        arrays = [self.g, self.bias, self.lo, self.hi]
        states = [self.v, self.free, self.delta, self.total]
        if self.gpu_steps:
            numbers = np.array([volts, *betas, *g_rates, *b_rates, *self.g_min, *self.g_max])
            status, unit, cost, wrong = self.gpu_steps.run(samples, order, numbers, [*arrays, *states])
        else:
            sums = np.zeros(2)
            mode = kernels.mode_of(self.recipe.algorithm, self.recipe.form)
            status, unit = kernels.steps(
                samples.features, volts, _single(samples.targets), order, self.recipe.sweeps, mode, self.n, self.unit,
                self.where, *arrays, g_rates, b_rates, self.g_min, self.g_max, *betas, *states, self.threads, sums,
            )  # fmt: skip
            cost, wrong = float(sums[0]), int(sums[1])
        if status == kernels.NOT_CONVEX:
            raise self._not_convex(unit, float(self._weights().a[-1][unit]), min(self.betas))
        if status == kernels.CUT_OFF:
            raise self._cut_off(unit)
        if status == kernels.NOT_FINITE:
            raise _not_finite()
        return Tally(order.size, cost, wrong)

    def _plain_steps(self, samples: Samples, order: Ints, g_rates: NDArray, b_rates: NDArray) -> Tally:
        tally = Tally()
        for first in range(0, order.size, self.batch_size):
            tally += self._plain_step(samples, order[first : first + self.batch_size], g_rates, b_rates)
        return tally

    def _plain_step(self, samples: Samples, rows: Ints, g_rates: NDArray, b_rates: NDArray) -> Tally:
        r, depth, size = self.recipe, self.structure.depth, self.batch_size
        w, x, targets = self._weights(), self._inputs(samples, rows), self._put(_single(samples.targets[rows]))
        self._check_connected(w)
        base = layers.drive(w, x)
        v = [self.layer(self.v, k)[:size].copy() for k in range(depth)]
        layers.relax_free(w, base, v, r.sweeps)
        tally = tally_of(v[-1].astype(np.float64), targets.astype(np.float64))
        if not np.isfinite(tally.cost):
            raise _not_finite()
        for k in range(depth):
            self.layer(self.free, k)[:] = v[k]
        if r.algorithm == "bp":
            slopes = layers.backpropagate(w, base, x, v, targets, r.sweeps)
        else:
            pair = layers.relax_pair(w, base, v, targets, self.betas, r.sweeps, self.form)
            slopes = layers.pair_gradients(x, pair, self.betas[0] - self.betas[1])
            v = pair.v1
            for k in range(depth):
                self.layer(self.delta, k)[:] = pair.delta[k]
                self.layer(self.total, k)[:] = 2 * v[k] - (self.betas[0] - self.betas[1]) * pair.delta[k]
        for k in range(depth):
            self.layer(self.v, k)[:size] = v[k]
            g, bias = self._crossbar(k), self._bias(k)
            g[:] = layers.clip(g - g_rates[k] * slopes[0][k], self.g_min[k], self.g_max[k])
            bias -= b_rates[k] * slopes[1][k]
        return tally

    def _check_connected(self, w: Weights) -> None:
        """LearningError for a unit without conductances."""
        cut_off = np.flatnonzero(np.concatenate([self._host(a) for a in w.a]) <= 0)
        if cut_off.size:
            raise self._cut_off(int(cut_off[-1]))

    def _cut_off(self, unit: int) -> LearningError:
        """The error for a unit whose conductances have all fallen to 0."""
        node = self.problem.circuit.nodes[int(np.concatenate(self.structure.nodes)[unit])]
        return LearningError(
            f"node {node} has no conductance left: nothing holds its voltage; choose smaller learning rates, or other "
            "initial values"
        )

    def _inputs(self, samples: Samples, rows: Ints | slice) -> NDArray:
        return self._put(self.recipe.gain * samples.inputs(rows, int(self.n[0])))

    def _put(self, array: NDArray) -> NDArray:
        """The array in the learner's dtype, on the device if there is one."""
        return self.xp.asarray(array.astype(self.recipe.dtype))

    def _host(self, array: NDArray) -> NDArray:
        """A copy for NumPy."""
        return self.device.to_host(array) if self.device else array.copy()

    def outputs(self, samples: Samples, rows: slice) -> Floats:
        w, found = self._weights(), []
        with self._limits(), self.guard():
            self._check_connected(w)
            there = self._on_device(samples) if self.device else samples
            for first in range(rows.start, rows.stop, self.at_once):
                base = layers.drive(w, self._inputs(there, slice(first, min(first + self.at_once, rows.stop))))
                v = [self.xp.zeros((base[0].shape[0], int(n)), self.g.dtype) for n in self.n[1:]]
                layers.relax_free(w, base, v, self.recipe.sweeps)
                found.append(self._host(v[-1]).astype(np.float64))
        return np.concatenate(found)

    def _on_device(self, samples: Samples) -> Samples:
        """The samples with their features on the device, in their own dtype; kept there until there are others."""
        if self._sent is None or self._sent[0] is not samples:
            self._sent = samples, replace(samples, features=features_on(self.xp, samples))
        return self._sent[1]

    def _limits(self) -> AbstractContextManager[object]:
        """A context in which NumPy's BLAS uses only the threads of this learner."""
        return self.blas.limit(limits=self.threads, user_api="blas")

    # -- values ----------------------------------------------------------------------------------------------------

    def _transposed(self, k: int) -> bool:
        return 0 < k == self.structure.depth - 1

    def _crossbar(self, k: int) -> NDArray:
        """Crossbar k, (n_{k-1}, n_k), a view."""
        rows, cols = int(self.n[k]), int(self.n[k + 1])
        flat = self.g[self.where[k] : self.where[k + 1]]
        return flat.reshape(cols, rows).T if self._transposed(k) else flat.reshape(rows, cols)

    def _bias(self, k: int) -> NDArray:
        """The currents into layer k, (n_k,), a view."""
        return self.bias[self.unit[k] : self.unit[k] + self.n[k + 1]]

    def layer(self, flat: NDArray, k: int) -> NDArray:
        """Layer k of a flat array that has some rows for each unit, (rows, n_k), a view."""
        rows = flat.size // self.bias.size
        first = rows * int(self.unit[k])
        return flat[first : first + rows * int(self.n[k + 1])].reshape(rows, -1)

    def _weights(self) -> Weights:
        depth = range(self.structure.depth)
        ends = [slice(int(u), int(u + n)) for u, n in zip(self.unit, self.n[1:], strict=True)]
        return Weights(
            [self._crossbar(k) for k in depth],
            [self._bias(k) for k in depth],
            [self.lo[end] for end in ends],
            [self.hi[end] for end in ends],
        )

    def values(self) -> dict[str, Floats]:
        s, found = self.structure, {}
        crossbars = {name.lower(): k for k, name in enumerate(s.crossbars)}
        biases = {name.lower(): k for k, name in enumerate(s.biases) if name is not None}
        for name in self.problem.circuit.netlist.trained:
            k = crossbars.get(name.lower())
            if k is not None:
                found[name] = self._host(self._crossbar(k)).astype(np.float64)
            else:
                k = biases[name.lower()]
                found[name] = self._host(self._bias(k)).astype(np.float64) - s.fixed[k]
        return found

    def arrays(self) -> dict[str, NDArray]:
        return {"steps": np.array(self.steps), **{name: self._host(getattr(self, name)) for name in _KEPT}}

    def restore(self, arrays: Mapping[str, NDArray]) -> None:
        check_arrays(arrays, self.arrays())
        self.steps = int(arrays["steps"])
        for name in _KEPT:
            getattr(self, name)[:] = self._put(arrays[name])

    def free_state(self) -> list[Floats]:
        return [self._host(self.layer(self.free, k)).astype(np.float64) for k in range(self.structure.depth)]


def _single(targets: NDArray) -> NDArray[np.float32]:
    """Targets in the dtype for which the kernels are compiled."""
    return targets.astype(np.float32, copy=False)


def _not_finite() -> LearningError:
    return LearningError("the voltages are no longer finite numbers; choose smaller learning rates, or a smaller gain")
