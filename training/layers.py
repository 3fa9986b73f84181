"""The layered view of a netlist, when it has one: a chain of crossbars from the inputs to the outputs.

Layer 0 .. L - 1 are the free nodes; crossbar k leads into layer k (from the inputs when k = 0). With a_k the sum of the
conductances at each unit of layer k, S_k = b_k + v_{k-1} g_k + v_{k+1} g_{k+1}^T the currents into it, and its bounds,

    v_k = clip(S_k / a_k, lo_k, hi_k);   a sweep takes layers 0, 2, 4 ... at once, then 1, 3, 5 ...

This file is the plain NumPy form: evaluation of many samples, and the slow twin of the steps in kernels.py and
steps.cu. Arrays may also be CuPy's: NumPy's functions pass them on to CuPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitsim import Problem
from circuitsim.netlist.model import CROSSBAR
from training.gradient import crossbar_gradient
from training.learner import Samples

Ints = NDArray[np.int64]
Array = NDArray  # of the learner's dtype, in NumPy or CuPy


@dataclass(frozen=True)
class Layers:
    """The structure: nothing here changes by learning."""

    sizes: tuple[int, ...]  # inputs, layer 0, ..., layer L - 1
    nodes: tuple[Ints, ...]  # of each layer
    crossbars: tuple[str, ...]  # name of crossbar k
    biases: tuple[str | None, ...]  # name of the array of current sources that learn in layer k
    fixed: tuple[NDArray[np.float64], ...]  # (n_k,) A: other current sources
    lo: tuple[NDArray[np.float64], ...]  # (n_k,) V
    hi: tuple[NDArray[np.float64], ...]

    @property
    def depth(self) -> int:
        """L, the number of free layers."""
        return len(self.nodes)

    def check_inputs(self, samples: Samples) -> None:
        """SettingsError when the data does not fit the inputs or the outputs."""
        samples.inputs(slice(0, 1), self.sizes[0])
        samples.check_outputs(self.sizes[-1])


def find_layers(problem: Problem) -> Layers | None:
    """The layers of a netlist, or None when it is not a plain chain of crossbars.

    Required: `.input` sources from ground that drive the rows of the first crossbar in order; crossbars whose rows are
    the columns of the one before; outputs that are the last columns, in order, read against ground; on the layers
    nothing else except current sources from ground and ideal diodes to potentials that no input moves; each `.train`
    array of sources a layer.
    """
    c, t = problem.circuit, problem.topology
    inputs = _input_nodes(problem)
    if inputs is None or len(c.conductors) or len(c.junctions) or t.links.size or t.expanded.size:
        return None
    chain, at = [], inputs
    left = list(range(len(c.crossbars)))
    while following := [k for k in left if np.array_equal(c.crossbars[k].rows, at)]:
        left.remove(following[0])
        chain.append(following[0])
        at = c.crossbars[following[0]].cols
    nodes = [c.crossbars[k].cols for k in chain]
    if left or not chain or not np.array_equal(at, np.array(c.netlist.outputs)) or c.netlist.differential:
        return None
    free = t.index_of_node[np.concatenate(nodes)]
    if not np.array_equal(np.sort(free), np.arange(problem.n_free)):  # each once, and none that is known
        return None
    names = _trained_arrays(problem, nodes)
    if names is None:
        return None
    bounds = _bounds(problem)
    if bounds is None:
        return None
    lo, hi = bounds
    fixed = _fixed_currents(problem, names)
    split = [t.index_of_node[n] for n in nodes]
    return Layers(
        sizes=(inputs.size, *(n.size for n in nodes)),
        nodes=tuple(nodes),
        crossbars=tuple(c.crossbars[k].name for k in chain),
        biases=names,
        fixed=tuple(fixed[units] for units in split),
        lo=tuple(lo[units] for units in split),
        hi=tuple(hi[units] for units in split),
    )


def _input_nodes(problem: Problem) -> Ints | None:
    """The nodes that the `.input` sources hold against ground, in order."""
    c = problem.circuit
    found = []
    for name in c.netlist.inputs:
        kind, start, stop = c.rows_of(name)
        if kind != "V":
            return None
        rows = c.ties.of(kind, start, stop)
        if c.ties.b[rows].any():
            return None
        found.append(c.ties.a[rows])
    return np.concatenate(found) if found else None


def _trained_arrays(problem: Problem, nodes: Sequence[Ints]) -> tuple[str | None, ...] | None:
    """For each layer the name of the sources that learn there; None when something else learns."""
    c = problem.circuit
    names: list[str | None] = [None] * len(nodes)
    for name in c.netlist.trained:
        kind, start, stop = c.rows_of(name)
        if kind == CROSSBAR:
            continue
        if kind != "I":
            return None
        i = c.current_sources
        own = i.of(kind, start, stop)
        matching = [k for k, n in enumerate(nodes) if np.array_equal(i.b[own], n)]
        if i.a[own].any() or not matching or names[matching[0]] is not None:
            return None
        names[matching[0]] = name
    return tuple(names)


def _bounds(problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Bounds of the units by ideal diodes, when no input moves them and no node of a layer has an offset."""
    t, c = problem.topology, problem.circuit
    if (t.index_of_node[t.fixed_nodes] >= 0).any():
        return None
    moved = {int(node) for node in _input_nodes(problem)}  # type: ignore[union-attr]
    if moved & {*c.ideal_diodes.a.tolist(), *c.ideal_diodes.b.tolist()}:
        return None
    drive = problem.drive(slice(0, 1))
    return drive.lo[0], drive.hi[0]


def _fixed_currents(problem: Problem, trained: Sequence[str | None]) -> NDArray[np.float64]:
    """Injections of the sources that do not learn, (n_free,) A."""
    circuit = problem.circuit
    i = circuit.current_sources.i[0].copy()
    for name in trained:
        if name is not None:
            i[circuit.current_sources.of(*circuit.rows_of(name))] = 0.0
    injected: NDArray[np.float64] = problem.topology.source_incidence @ i
    return injected


# -- relaxation --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """Conductances, currents into the layers, and bounds, all of one dtype."""

    g: list[Array]  # crossbar k: (n_{k-1}, n_k) S
    b: list[Array]  # (n_k,) A into layer k, fixed sources included
    lo: list[Array]  # (n_k,) V
    hi: list[Array]

    @property
    def a(self) -> list[Array]:
        """Sums of conductances at each unit, (n_k,) S; in float64: a long sum in float32 loses digits."""
        inner = [g.sum(axis=1, dtype=np.float64) for g in self.g[1:]]
        sums = [g.sum(axis=0, dtype=np.float64) + (inner[k] if k < len(inner) else 0) for k, g in enumerate(self.g)]
        return [a.astype(g.dtype) for a, g in zip(sums, self.g, strict=True)]


def currents(w: Weights, v: Sequence[Array], base: Sequence[Array], k: int) -> Array:
    """S_k, (rows, n_k) A; `base` holds what does not change while the layers relax."""
    s = base[k]
    if k > 0:
        s = s + v[k - 1] @ w.g[k]
    if k + 1 < len(v):
        s = s + v[k + 1] @ w.g[k + 1].T
    return s


def order(depth: int) -> list[int]:
    """The layers in the order of a sweep."""
    return [*range(0, depth, 2), *range(1, depth, 2)]


def drive(w: Weights, x: Array) -> list[Array]:
    """The currents from the inputs x (rows, n_inputs) and the biases, (rows or 1, n_k) A."""
    return [x @ w.g[0] + w.b[0], *(b[None, :] for b in w.b[1:])]


def free_sweep(w: Weights, a: Sequence[Array], base: Sequence[Array], v: list[Array]) -> None:
    """One sweep, in place."""
    for k in order(len(v)):
        v[k] = clip(currents(w, v, base, k) / a[k], w.lo[k], w.hi[k])


def clip(v: Array, lo: Array, hi: Array) -> Array:
    """v within its bounds."""
    return np.minimum(np.maximum(v, lo), hi)


def relax_free(w: Weights, base: Sequence[Array], v: list[Array], sweeps: int) -> None:
    """The free phase, in place."""
    a = w.a
    for _ in range(sweeps):
        free_sweep(w, a, base, v)


@dataclass(frozen=True)
class Pair:
    """The two nudged states of each layer, (rows, n_k): v1, V, and delta = (v1 - v2) / (beta1 - beta2), V/S."""

    v1: list[Array]
    delta: list[Array]


def relax_pair(
    w: Weights,
    base: Sequence[Array],
    free: Sequence[Array],
    targets: Array,
    betas: tuple[float, float],
    sweeps: int,
    form: str,
) -> Pair:
    """Both nudged phases, from the free state.

    Form `difference` relaxes v1 and delta, which keeps all digits of delta: where neither state is at a bound,
    delta = dS / a, at the outputs delta = dS / (a + beta2) + (a target - S1) / ((a + beta1) (a + beta2)), with dS the
    currents of the field delta. With both nudges 0 it is the adjoint, the limit beta -> 0. Form `plain` relaxes v1 and
    v2 and subtracts.
    """
    a = w.a
    v1 = [v.copy() for v in free]
    other = [np.zeros_like(v) for v in free] if form == "difference" else [v.copy() for v in free]
    zero = [np.zeros_like(v[:1]) for v in free]
    gap = betas[0] - betas[1]

    def sweep() -> None:
        for k in order(len(v1)):
            b1, b2 = betas if k == len(v1) - 1 else (0.0, 0.0)
            s1 = currents(w, v1, base, k)
            t = targets if k == len(v1) - 1 else 0.0
            p1 = (s1 + b1 * t) / (a[k] + b1)
            new = clip(p1, w.lo[k], w.hi[k])
            if form == "plain":
                s2 = currents(w, other, base, k)
                new_other = clip((s2 + b2 * t) / (a[k] + b2), w.lo[k], w.hi[k])
            else:
                dp = currents(w, other, zero, k) / (a[k] + b2)
                if k == len(v1) - 1:
                    dp = dp + (a[k] * t - s1) / ((a[k] + b1) * (a[k] + b2))
                p2 = p1 - gap * dp
                v2 = clip(p2, w.lo[k], w.hi[k])
                clipped = (new - v2) / gap if gap else np.zeros_like(dp)
                new_other = np.where((new == p1) & (v2 == p2), dp, clipped).astype(dp.dtype)
            v1[k], other[k] = new.astype(s1.dtype), new_other.astype(s1.dtype)

    for _ in range(sweeps):
        sweep()
    if form == "plain":
        return Pair(v1, [(x - y) / gap for x, y in zip(v1, other, strict=True)])
    return Pair(v1, other)


# -- convexity ---------------------------------------------------------------------------------------------------------


def reduced_conductances(w: Weights, nudge: float) -> Array | None:
    """A matrix that is positive definite when that of all conductances is, with `nudge` (S) added at the outputs.

    The layers of one parity have no conductance between each other: they are eliminated, all at once, which leaves the
    Schur complement of the others, (n, n) S in float64. None when the sum of conductances of one that is eliminated is
    not positive: then neither is the matrix.
    """
    a = [x.astype(np.float64) for x in w.a]
    a[-1] = a[-1] + nudge
    sizes = [x.size for x in a]
    kept = min((0, 1), key=lambda parity: sum(sizes[parity::2])) if len(a) > 1 else 0
    starts = np.cumsum([0, *sizes[kept::2]]).tolist()
    block = {k: slice(starts[i], starts[i + 1]) for i, k in enumerate(range(kept, len(a), 2))}
    matrix = np.zeros_like(a[0], shape=(starts[-1], starts[-1]))
    for k, part in block.items():
        matrix[part, part] += np.diag(a[k])
    for k in range(1 - kept, len(a), 2):
        if not bool((a[k] > 0).all()):
            return None
        near = {k - 1: w.g[k]} if k else {}
        near |= {k + 1: w.g[k + 1].T} if k + 1 < len(a) else {}
        scaled = {j: g.astype(np.float64) / np.sqrt(a[k]) for j, g in near.items()}
        for i, one in scaled.items():
            for j, other in scaled.items():
                matrix[block[i], block[j]] -= one @ other.T
    return matrix


# -- gradients ---------------------------------------------------------------------------------------------------------


def pair_gradients(x: Array, pair: Pair, gap: float) -> tuple[list[Array], list[Array]]:
    """dC/dg of each crossbar and dC/db of each layer, mean over the batch (see eqprop.py)."""
    totals = [2 * v - gap * d for v, d in zip(pair.v1, pair.delta, strict=True)]
    return gradients(x, pair.delta, totals, x.shape[0])


def gradients(
    x: Array, delta: Sequence[Array], total: Sequence[Array], samples: int
) -> tuple[list[Array], list[Array]]:
    """From fields delta and total = v1 + v2 on the layers; x are the inputs."""
    deltas, totals = [np.zeros_like(x), *delta], [2 * x, *total]
    g = [crossbar_gradient(deltas[k], deltas[k + 1], totals[k], totals[k + 1]) / samples for k in range(len(delta))]
    return g, [-d.sum(axis=0) / samples for d in delta]


def backpropagate(
    w: Weights, base: Sequence[Array], x: Array, v: list[Array], targets: Array, sweeps: int
) -> tuple[list[Array], list[Array]]:
    """Gradients through `sweeps` more sweeps from v, which changes; see adjoint.bp_fields."""
    a = w.a
    tape = []
    for _ in range(sweeps):
        for k in order(len(v)):
            new = clip(currents(w, v, base, k) / a[k], w.lo[k], w.hi[k])
            v[k] = new
            tape.append((k, list(v)))
    lam = [np.zeros_like(state) for state in v]
    lam[-1] = v[-1] - targets
    total_g = [np.zeros_like(g) for g in w.g]
    total_b = [np.zeros_like(b) for b in w.b]
    first_mu = np.zeros_like(v[0])  # the input crossbar: x is the same in every step
    first_both = np.zeros_like(v[0])
    for k, at in reversed(tape):
        mu = np.where((at[k] > w.lo[k]) & (at[k] < w.hi[k]), lam[k] / a[k], 0)
        lam[k] = np.zeros_like(lam[k])
        if k == 0:
            first_mu += mu
            first_both += mu * at[0]
        else:
            lam[k - 1] = lam[k - 1] + mu @ w.g[k].T
            total_g[k] += at[k - 1].T @ mu - (mu * at[k]).sum(axis=0)
        if k + 1 < len(v):
            lam[k + 1] = lam[k + 1] + mu @ w.g[k + 1]
            total_g[k + 1] += mu.T @ at[k + 1] - (mu * at[k]).sum(axis=0)[:, None]
        total_b[k] += mu.sum(axis=0)
    total_g[0] = x.T @ first_mu - first_both.sum(axis=0)
    samples = x.shape[0]
    return [g / samples for g in total_g], [b / samples for b in total_b]
