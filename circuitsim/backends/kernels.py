"""Numba kernels: one pass over a range of units, flat arrays only. Twins: reference.py (steps), laws.py (currents)."""

from __future__ import annotations

import math

import numpy as np

from circuitsim.compiled import jit
from circuitsim.laws import (
    BEYOND,
    BV,
    G_FORWARD,
    G_REVERSE,
    GMIN,
    HALF_M,
    HI,
    IS,
    ISR,
    LEAST_SQUARE,
    LO,
    MAX_EXPONENT,
    NBV_VT,
    NR_VT,
    NVT,
    PER_IKF,
    PER_VJ,
    RECOMBINING,
    RS,
    SCALE,
    STRAIGHT,
    V0,
    V_FORWARD,
    V_REVERSE,
    G,
    Law,
)

_PWL, _TANH, _SINH, _SEGMENT = int(Law.PWL), int(Law.TANH), int(Law.SINH), int(Law.SEGMENT)
_FEW = 50  # array elements that Python takes: it comes back to them in every sweep
_STEPS = 200  # of a safeguarded Newton iteration; bisection alone needs about 60 for ten digits


@jit()
def shockley(p, w):
    """Current and slope of the bare junction at voltage w; p as in laws.Law."""
    if w < -3.0 * p[NVT] and w < -p[BV]:
        i = -p[IS] * math.exp(min(-(w + p[BV]) / p[NBV_VT], MAX_EXPONENT))
        g = -i / p[NBV_VT]
    elif w < -3.0 * p[NVT]:
        arg = 3.0 * p[NVT] / (w * math.e)
        cube = arg * arg * arg
        i = -p[IS] * (1.0 + cube)
        g = p[IS] * 3.0 * cube / w
    else:
        z = min(w / p[NVT], MAX_EXPONENT)
        i = p[IS] * math.expm1(z)
        g = p[IS] * math.exp(z) / p[NVT]
    if p[ISR] > 0.0:
        at = min(w, RECOMBINING * p[NR_VT])
        z = at / p[NR_VT]
        depleted = 1.0 - at * p[PER_VJ]
        square = depleted * depleted + LEAST_SQUARE
        factor = square ** p[HALF_M]
        current = p[ISR] * math.expm1(z)
        i += current * factor
        g += factor * (p[ISR] * math.exp(z) / p[NR_VT] - current * (2.0 * p[HALF_M] * p[PER_VJ] * depleted / square))
    if p[PER_IKF] > 0.0 and i > 0.0:
        root = math.sqrt(i) * math.sqrt(p[PER_IKF])
        i /= 1.0 + root
        g = g / (1.0 + root) * ((1.0 + 0.5 * root) / (1.0 + root))
    return i + p[GMIN] * w, g + p[GMIN]


@jit()
def before_knee(p, i):
    """How many times larger a current i of the junction were without IKF (laws.py)."""
    if p[PER_IKF] == 0.0 or i <= 0.0:
        return 1.0
    ratio = i * p[PER_IKF]
    return 1.0 + 0.5 * (ratio + math.sqrt(ratio) * math.sqrt(ratio + 4.0))


@jit()
def branch(law, p, v):
    """Current and slope of a nonlinear branch at voltage v (laws.branch_current)."""
    if law == _PWL:
        i = 0.0
        g = 0.0
        if v > p[V_FORWARD]:
            i += p[G_FORWARD] * (v - p[V_FORWARD])
            g += p[G_FORWARD]
        if -v > p[V_REVERSE]:
            i -= p[G_REVERSE] * (-v - p[V_REVERSE])
            g += p[G_REVERSE]
        return i, g
    if law == _SEGMENT:
        at_zero = min(max(0.0, p[LO]), p[HI])
        return p[G] * (min(max(v, p[LO]), p[HI]) - at_zero), p[G] if p[LO] <= v < p[HI] else 0.0
    if law == _TANH or law == _SINH:
        z = min(max(v / p[V0], -STRAIGHT), STRAIGHT)
        if law == _SINH:
            g = p[SCALE] / p[V0] * math.cosh(z)
            return p[SCALE] * math.sinh(z) + g * (v - z * p[V0]), g
        e = math.exp(-2.0 * abs(z))
        return p[SCALE] * math.tanh(z), p[SCALE] / p[V0] * (4.0 * e / (1.0 + e) ** 2)
    rs = p[RS]
    if rs == 0.0:
        return shockley(p, v)
    low = min(v, 0.0)
    high = max(v, 0.0)
    w = v
    if rs * p[IS] > 0.0:  # where an exponential alone would carry all of v / RS: beyond the root
        before = before_knee(p, v / rs)
        decades = math.log1p(abs(v) / (rs * p[IS]) * before)
        w = min(v, p[NVT] * decades) if v > 0.0 else max(v, min(-(p[BV] + p[NBV_VT] * decades), -3.0 * p[NVT] * BEYOND))
        if v > 0.0 and p[ISR] > 0.0:
            w = min(w, p[NR_VT] * math.log1p(v / rs * before / (p[ISR] * LEAST_SQUARE ** p[HALF_M])))
    for _ in range(_STEPS):
        i, g = shockley(p, w)
        error = w + rs * i - v
        if error < 0.0:
            low = w
        elif error > 0.0:
            high = w
        else:
            break
        new = w - error / (1.0 + rs * g)
        if new == w:
            break
        if not (low < new < high):
            new = 0.5 * (low + high)
        w = new
    i, g = shockley(p, w)
    return i, g / (1.0 + rs * g)


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
    """The root of unit_kcl near x: Newton, kept in a bracket, bisecting where Newton gains too little."""
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
    before = high - low
    for _ in range(_STEPS):
        if h == 0.0:
            break
        if h > 0.0:
            high = x
        else:
            low = x
        step = h / slope if slope > 0.0 else math.inf
        new = x - step
        if not (low < new < high) or abs(step) > 0.5 * before:
            new = 0.5 * (low + high)
        before = abs(new - x)
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
