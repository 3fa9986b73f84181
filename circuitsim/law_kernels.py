"""The laws of the nonlinear two-terminal elements, their parameters, and the evaluation of one branch in Numba.

Its twin in NumPy, laws.py, has the equations.
"""

from __future__ import annotations

import math
from enum import IntEnum

from circuitsim.compiled import jit

MAX_EXPONENT = 700.0  # exp stays finite in float64
RECOMBINING = 600.0  # the largest exponent of ISR, whose current stays what it is there
STRAIGHT = 500.0  # v / v0 of sinh
LEAST_SQUARE = 0.005  # what ISR's factor keeps of itself at w = VJ
BEYOND = 1.0 + 1e-15  # of -3 N Vt: where a breakdown that begins there has begun
FAR = 1e150  # its square is finite
STEPS = 200  # of a safeguarded Newton iteration; bisection alone needs about 60 for ten digits


class Law(IntEnum):
    """Which law a nonlinear branch follows; the parameters that go with it, in column order."""

    SHOCKLEY = 0  # is (A), nvt (V), rs (ohm), bv (V, adjusted), nbv_vt (V), gmin (S); of IKF and ISR:
    #               1/ikf (1/A), isr (A), nr_vt (V), 1/vj (1/V), M/2
    PWL = 1  # g_forward (S), v_forward (V), g_reverse (S), v_reverse (V): slopes added beyond the two knees
    TANH = 2  # scale (A), v0 (V): i = scale tanh(v / v0)
    SINH = 3  # scale (A), v0 (V): i = scale sinh(v / v0)
    SEGMENT = 4  # g (S), lo (V), hi (V), -inf and inf allowed: i = g (clip(v, lo, hi) - clip(0, lo, hi))


# The columns of parameters, by law.
IS, NVT, RS, BV, NBV_VT, GMIN, PER_IKF, ISR, NR_VT, PER_VJ, HALF_M = range(11)
G_FORWARD, V_FORWARD, G_REVERSE, V_REVERSE = range(4)
SCALE, V0 = range(2)
G, LO, HI = range(3)
N_PARAMS = HALF_M + 1

_PWL, _TANH, _SINH, _SEGMENT = int(Law.PWL), int(Law.TANH), int(Law.SINH), int(Law.SEGMENT)


@jit()
def shockley(p, w):
    """Current and slope of the bare junction at voltage w; p as in Law."""
    if w < -3.0 * p[NVT] and w < -p[BV]:
        i = -p[IS] * math.exp(min(-(w + p[BV]) / p[NBV_VT], MAX_EXPONENT))
        g = -i / p[NBV_VT]
    elif w < -3.0 * p[NVT]:
        arg = 3.0 * p[NVT] / (w * math.e)
        cube = arg * arg * arg
        i = -p[IS] * (1.0 + cube)
        g = p[IS] * 3.0 * cube / w
    else:
        less = math.expm1(min(w / p[NVT], MAX_EXPONENT))  # than the exponential, by 1, which here keeps its digits
        i = p[IS] * less
        g = p[IS] * (less + 1.0) / p[NVT]
    if p[ISR] > 0.0:
        at = min(w, RECOMBINING * p[NR_VT])
        z = at / p[NR_VT]
        depleted = min(1.0 - at * p[PER_VJ], FAR)
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
    for _ in range(STEPS):
        i, g = shockley(p, w)
        error = w + rs * i - v
        if error < 0.0:
            low = w
        elif error > 0.0:
            high = w
        else:
            break
        new = w - error / (1.0 + rs * g)
        if new != w and not (low < new < high):
            new = 0.5 * (low + high)
        if new == w:  # also where low and high are neighbours: halfway is one of them
            break
        w = new
    else:
        i, g = shockley(p, w)
    return i, g / (1.0 + rs * g)


@jit(small=0)
def branches(law, params, v, current, slope):
    """`branch` of all m of them at voltages v, into current and slope, (rows, m) each."""
    for b in range(v.shape[0]):
        for k in range(v.shape[1]):
            if math.isnan(v[b, k]):
                current[b, k] = math.nan
                slope[b, k] = 0.0 if law[k] == _PWL or law[k] == _SEGMENT else math.nan
            else:
                current[b, k], slope[b, k] = branch(law[k], params[k], v[b, k])
