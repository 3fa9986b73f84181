"""Numba kernels of a sweep: one pass over a range of units, flat arrays only. Twin: reference.py."""

from __future__ import annotations

import math

import numpy as np

from circuitsim.compiled import jit
from circuitsim.law_kernels import STEPS, branch

EPS = float(np.finfo(np.float64).eps)
_FEW = 50  # array elements up to which sweeps are left to Python (compiled.jit): there are many of them


@jit()
def unit_kcl(x, diag, current, zeros, signs, laws, params, first, last):
    """diag x - current + junction currents out of the unit, and its slope; entries first:last are its junctions."""
    h = diag * x - current
    slope = diag
    for k in range(first, last):
        i, g = branch(laws[k], params[k], signs[k] * (x - zeros[k]))
        h += signs[k] * i
        slope += g
    return h, slope


@jit()
def unit_root(x, diag, current, zeros, signs, laws, params, first, last):
    """The root of unit_kcl near x: Newton, kept in a bracket, bisecting after a step that gained too little.

    It ends where only rounding is left: there Newton gains nothing, and bisecting would take 50 steps. Newton may land
    on an end of the bracket, which is the root of a unit whose branches carry nothing: the bracket is a bit wider.
    """
    low = math.inf
    high = -math.inf
    if diag > 0.0:
        low = high = current / diag
    for k in range(first, last):
        low = min(low, zeros[k])
        high = max(high, zeros[k])
    if diag == 0.0:
        reach = 0.1
        while reach < 1e12:
            below, _ = unit_kcl(low, diag, current, zeros, signs, laws, params, first, last)
            above, _ = unit_kcl(high, diag, current, zeros, signs, laws, params, first, last)
            if below <= 0.0 <= above:
                break
            low -= reach
            high += reach
            reach *= 2.0
    x = min(max(x, low), high)
    h, slope = unit_kcl(x, diag, current, zeros, signs, laws, params, first, last)
    best, best_h = x, abs(h)
    wider = 4.0 * EPS * max(abs(low), abs(high))
    low -= wider
    high += wider
    before = math.inf  # the last step, if it was one of Newton
    for _ in range(STEPS):
        if abs(h) <= EPS * (abs(current) + slope * abs(x)):
            break
        if h > 0.0:
            high = x
        else:
            low = x
        step = h / slope if slope > 0.0 else math.inf
        new = x - step
        if low < new < high and abs(step) <= 0.5 * before:
            before = abs(step)
        else:
            new, before = 0.5 * (low + high), math.inf
        if new == x or new == low or new == high:
            break
        x = new
        h, slope = unit_kcl(x, diag, current, zeros, signs, laws, params, first, last)
        if abs(h) < best_h:
            best, best_h = x, abs(h)
    return best


@jit(small=_FEW)
def relax_plain(x, current, start, stop, diag, lo, hi):
    """`relax` for units that have neither sparse couplings nor junctions, and diag > 0: a loop without branches."""
    moved = 0
    for b in range(x.shape[0]):
        d = b if lo.shape[0] > 1 else 0
        for u in range(start, stop):
            new = min(max(current[b, u] / diag[u], lo[d, u]), hi[d, u])
            moved |= new != x[b, u]
            x[b, u] = new
    return moved != 0


@jit(small=_FEW)
def relax(
    x, current, start, stop, indptr, indices, data, diag, lo, hi,
    j_ptr, j_other, j_sign, j_index, j_law, j_params, offset, zeros,
):  # fmt: skip
    """Exact steps of units start:stop in every row; True if any unit moved.

    x, current (rows, n): `current` holds injections and dense couplings; the sparse ones are added here. lo, hi and
    offset are (rows or 1, ...). Unit u has junction entries j_ptr[u]:j_ptr[u+1]: the other end's unit (-1: known), +1
    at the anode, the junction's number, law and parameters. `zeros` is scratch, one slot an entry.
    """
    moved = False
    rows = x.shape[0]
    for b in range(rows):
        bb = b if lo.shape[0] > 1 else 0
        ob = b if offset.shape[0] > 1 else 0
        for u in range(start, stop):
            total = current[b, u]
            for k in range(indptr[u], indptr[u + 1]):
                total += data[k] * x[b, indices[k]]
            old = x[b, u]
            if j_ptr[u + 1] > j_ptr[u]:
                for k in range(j_ptr[u], j_ptr[u + 1]):
                    other = np.float64(x[b, j_other[k]]) if j_other[k] >= 0 else 0.0
                    zeros[k] = other - j_sign[k] * offset[ob, j_index[k]]
                target = unit_root(
                    np.float64(old), np.float64(diag[u]), np.float64(total),
                    zeros, j_sign, j_law, j_params, j_ptr[u], j_ptr[u + 1],
                )  # fmt: skip
            elif diag[u] > 0.0:
                target = total / diag[u]
            elif total > 0.0:
                target = math.inf
            elif total < 0.0:
                target = -math.inf
            else:
                target = old
            new = min(max(target, lo[bb, u]), hi[bb, u])
            x[b, u] = new
            if x[b, u] != old:
                moved = True
    return moved
