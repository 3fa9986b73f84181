"""Current laws of the nonlinear two-terminal elements, vectorised.

A law is a row of `Law` parameters; `branch_current` gives i(v) and di/dv, `exponential_voltage` v(i). All laws are
monotone, di/dv >= 0, and i(0) = 0.
Shockley, at junction voltage w (ngspice manual, diode model; the law of SPICE 3):

    w >= -3 N Vt:       j = IS (exp(w / (N Vt)) - 1)
    -BV < w < -3 N Vt:  j = -IS (1 + (3 N Vt / (w e))^3)
    w < -3 N Vt, -BV:   j = -IS exp(-(w + BV) / (NBV Vt))

    recombination:      j + ISR (exp(w / (NR Vt)) - 1) ((1 - w / VJ)^2 + 0.005)^(M/2)
    high injection:     i = j / (1 + sqrt(j / IKF)) for j > 0, else i = j

plus GMIN w where the deck sets gmin. ngspice drops the recombination current below -3 N Vt, so that its law jumps
there; here, as in PSpice, it continues. A series resistance RS is solved exactly: v = w + RS i(w).
Beyond MAX_EXPONENT exponentials and their slopes keep the value they have there; a sinh continues as a straight line
beyond STRAIGHT.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from circuitsim.compiled import SMALL
from circuitsim.law_kernels import (
    BEYOND,
    BV,
    FAR,
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
    RECOMBINING,
    RS,
    SCALE,
    STEPS,
    STRAIGHT,
    V0,
    V_FORWARD,
    V_REVERSE,
    G,
    Law,
    branches,
)

Floats = NDArray[np.float64]

_NEARLY = 1.0 - 1e-8  # of imax: what tanh reaches at a voltage that is not far away


def most_current(law: NDArray[np.int8], params: Floats) -> tuple[Floats, Floats]:
    """The most that branches can carry from a to b, and from b to a, at any voltage, (m,) each, A; inf: no limit."""
    forward, reverse = np.full(law.size, np.inf), np.full(law.size, np.inf)
    p = params.T
    shockley, pwl, tanh, segment = (law == kind for kind in (Law.SHOCKLEY, Law.PWL, Law.TANH, Law.SEGMENT))
    grows = (p[ISR] > 0) & (p[HALF_M] > 0)  # ISR's, with the width of the depleted region
    limited = shockley & ~np.isfinite(p[BV]) & (p[GMIN] == 0) & ~grows  # neither breakdown nor gmin
    reverse[limited] = p[IS, limited] + p[ISR, limited]
    forward[pwl & (p[G_FORWARD] == 0)] = 0.0
    reverse[pwl & (p[G_REVERSE] == 0)] = 0.0
    forward[tanh] = reverse[tanh] = p[SCALE, tanh] * _NEARLY
    at_zero = np.clip(0.0, p[LO, segment], p[HI, segment])
    forward[segment] = p[G, segment] * (p[HI, segment] - at_zero)
    reverse[segment] = p[G, segment] * (at_zero - p[LO, segment])
    return forward, reverse


def flat_room(law: NDArray[np.int8], params: Floats, v: Floats) -> tuple[Floats, Floats]:
    """How far the voltages v (..., m) may fall, and rise, without a change of current, V; 0 where the law is strict."""
    pwl, segment = law == Law.PWL, law == Law.SEGMENT
    flat = (pwl | segment) & (branch_current(law, params, v)[1] == 0)
    p = params.T
    fall = np.where(
        segment, np.where(v > p[LO], v - p[HI], np.inf), np.where(p[G_REVERSE] > 0, v + p[V_REVERSE], np.inf)
    )
    rise = np.where(
        segment, np.where(v < p[HI], p[LO] - v, np.inf), np.where(p[G_FORWARD] > 0, p[V_FORWARD] - v, np.inf)
    )
    return np.where(flat, np.maximum(fall, 0.0), 0.0), np.where(flat, np.maximum(rise, 0.0), 0.0)


def branch_current(law: NDArray[np.int8], params: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Currents (A) and slopes (S) of m branches at voltages v; shapes: law (m,), params (m, N_PARAMS), v (..., m).

    Compiled (law_kernels.py) for more than SMALL voltages: with RS each has an iteration of its own.
    """
    if v.size <= SMALL:
        return plain_current(law, params, v)
    flat = np.ascontiguousarray(v, np.float64).reshape(-1, law.size)
    current, slope = np.empty(flat.shape), np.empty(flat.shape)
    branches(np.ascontiguousarray(law, np.int8), np.ascontiguousarray(params), flat, current, slope)
    return current.reshape(v.shape), slope.reshape(v.shape)


def plain_current(law: NDArray[np.int8], params: Floats, v: Floats) -> tuple[Floats, Floats]:
    """`branch_current` by NumPy alone, the twin of law_kernels.py."""
    current, slope = np.zeros(v.shape), np.zeros(v.shape)
    for kind, chosen in _groups(law):
        current[..., chosen], slope[..., chosen] = _CURRENT[kind](params[chosen], v[..., chosen])
    return current, slope


def exponential_voltage(law: NDArray[np.int8], params: Floats, current: Floats) -> Floats:
    """Voltages (V) at which the exponentials of SHOCKLEY and SINH branches carry `current` (A), (..., m).

    If nothing else flows through the branch, this is the inverse of `branch_current`; with gmin or ISR the branch
    carries more. Where the law jumps, it is the voltage nearest 0 of those that fit best; inf or -inf for a current
    that no voltage gives.
    """
    v = np.zeros(current.shape)
    for kind, chosen in _groups(law):
        inverse = _sinh_voltage if kind == Law.SINH else _shockley_voltage
        v[..., chosen] = inverse(params[chosen], current[..., chosen])
    return v


def generation(law: NDArray[np.int8], params: Floats, v: Floats) -> Floats:
    """The current (A) of ISR in reverse at voltages v, (..., m), where ngspice drops it: below -3 N Vt."""
    dropped = (law == Law.SHOCKLEY) & (v < -2.99 * params[:, NVT])  # a little above: its answer may be off by that
    return np.where(dropped, _recombination(params, v)[0], 0.0)


def beyond_law(law: NDArray[np.int8], params: Floats, v: Floats) -> NDArray[np.bool_]:
    """Which of m branches at voltages v, (..., m), are where their exponentials overflow: no law is followed there."""
    p, shockley = params.T, law == Law.SHOCKLEY
    with np.errstate(over="ignore", invalid="ignore"):
        recombining = (p[ISR] > 0) & (RECOMBINING * p[NR_VT] < MAX_EXPONENT * p[NVT])
        highest = np.where(recombining, RECOMBINING * p[NR_VT], MAX_EXPONENT * p[NVT])
        far = ((v > highest) | (-v - p[BV] > MAX_EXPONENT * p[NBV_VT])) & shockley
        far |= (np.abs(v) > STRAIGHT * p[V0]) & (law == Law.SINH)
        if (far & shockley & (p[RS] > 0)).any():  # most of the voltage may be across RS
            of_isr = p[ISR] * LEAST_SQUARE ** p[HALF_M] * np.exp(RECOMBINING)
            most = np.where(recombining, of_isr, p[IS] * np.exp(MAX_EXPONENT))
            current = branch_current(law, params, v)[0]
            far &= ~shockley | (np.abs(current) * _before_knee(params, current) >= _NEARLY * most)
    return far


def _groups(law: NDArray[np.int8]) -> Iterator[tuple[int, NDArray[np.bool_] | slice]]:
    """Each law in use, and the branches that follow it."""
    kinds = np.flatnonzero(np.bincount(law)).tolist()
    for kind in kinds:
        yield kind, law == kind if len(kinds) > 1 else slice(None)


def _ratio(a: Floats, b: Floats) -> Floats:
    """a / b; 0 / b = 0, and a / 0 = +-inf."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.where(a == 0, 0.0, a / b)


# -- piecewise linear --------------------------------------------------------------------------------------------------


def _pwl_current(p: Floats, v: Floats) -> tuple[Floats, Floats]:
    g_f, v_f, g_r, v_r, *_ = p.T
    above, below = v - v_f, -v - v_r
    return g_f * np.maximum(above, 0.0) - g_r * np.maximum(below, 0.0), g_f * (above > 0) + g_r * (below > 0)


def _segment_current(p: Floats, v: Floats) -> tuple[Floats, Floats]:
    g, lo, hi, *_ = p.T
    return g * (np.clip(v, lo, hi) - np.clip(0.0, lo, hi)), g * ((v >= lo) & (v < hi))


# -- tanh and sinh -----------------------------------------------------------------------------------------------------


def _scaled(p: Floats, v: Floats) -> Floats:
    """v / v0, limited to +-STRAIGHT."""
    with np.errstate(over="ignore"):
        return np.clip(v / p[:, V0], -STRAIGHT, STRAIGHT)


def _tanh_current(p: Floats, v: Floats) -> tuple[Floats, Floats]:
    z = _scaled(p, v)
    e = np.exp(-2.0 * np.abs(z))
    return p[:, SCALE] * np.tanh(z), p[:, SCALE] / p[:, V0] * (4.0 * e / (1.0 + e) ** 2)


def _sinh_current(p: Floats, v: Floats) -> tuple[Floats, Floats]:
    z = _scaled(p, v)
    slope = p[:, SCALE] / p[:, V0] * np.cosh(z)
    return p[:, SCALE] * np.sinh(z) + slope * (v - z * p[:, V0]), slope


def _sinh_voltage(p: Floats, i: Floats) -> Floats:
    z = np.clip(np.arcsinh(_ratio(i, p[:, SCALE])), -STRAIGHT, STRAIGHT)
    return p[:, V0] * z + _ratio(i - p[:, SCALE] * np.sinh(z), p[:, SCALE] / p[:, V0] * np.cosh(z))


# -- Shockley ----------------------------------------------------------------------------------------------------------


def _shockley_current(p: Floats, v: Floats) -> tuple[Floats, Floats]:
    _, i, g = _junction(p, v)
    return i, g / (1.0 + p[:, RS] * g)


def _shockley_voltage(p: Floats, i: Floats) -> Floats:
    """RS i + w, with w the junction voltage at which the exponential of IS alone, or that of ISR, carries i."""
    with np.errstate(over="ignore"):
        before = i * _before_knee(p, i)
    return _least(p, before, _bare_voltage(p, before)) + p[:, RS] * i


def _bare_voltage(p: Floats, i: Floats) -> Floats:
    """The junction voltage w at which IS and breakdown alone carry i, or at which the law jumps over i."""
    saturation, nvt, bv, nbv_vt = p[:, IS], p[:, NVT], p[:, BV], p[:, NBV_VT]
    ratio = _ratio(i, saturation)
    with np.errstate(divide="ignore"):
        forward = nvt * np.log1p(np.maximum(ratio, np.expm1(-3.0)))
        cubic = -3.0 * nvt / (np.e * np.cbrt(np.maximum(1.0 + ratio, 0.0)))
    edge = -np.maximum(bv, 3.0 * nvt)
    w = np.maximum(np.where(ratio < np.expm1(-3.0), cubic, forward), edge)
    exponent = np.log(np.maximum(-ratio, 1.0))
    w = np.where(ratio <= -1.0, np.minimum(-(bv + nbv_vt * exponent), edge), w)
    w = np.where(exponent > MAX_EXPONENT, -np.inf, w)
    return np.where(ratio > np.expm1(MAX_EXPONENT), np.inf, w)


def _junction_current(p: Floats, w: Floats) -> tuple[Floats, Floats]:
    saturation, nvt, _, bv, nbv_vt, gmin, knee, recombining, *_ = p.T
    # Less than the exponential, by 1, which keeps its digits above -3 N Vt.
    less = np.expm1(np.minimum(w / nvt, MAX_EXPONENT))
    i = saturation * less
    g = saturation * (less + 1.0) / nvt
    if (off := w < -3.0 * nvt).any():
        arg = 3.0 * nvt / (np.where(off, w, -3.0 * nvt) * np.e)
        cube = arg * arg * arg  # a power takes longer than all the rest
        i = np.where(off, -saturation * (1.0 + cube), i)
        g = np.where(off, saturation * 3.0 * cube / np.where(off, w, -1.0), g)
    if (broken := off & (w < -bv)).any():
        reverse = np.exp(np.minimum(np.where(broken, -(w + bv) / nbv_vt, 0.0), MAX_EXPONENT))
        i = np.where(broken, -saturation * reverse, i)
        g = np.where(broken, saturation * reverse / nbv_vt, g)
    if recombining.any():
        more, slope = _recombination(p, w)
        i, g = i + more, g + slope
    if knee.any():
        root = np.sqrt(np.maximum(i, 0.0)) * np.sqrt(knee)
        i, g = i / (1.0 + root), g / (1.0 + root) * ((1.0 + 0.5 * root) / (1.0 + root))
    return i + gmin * w, g + gmin


def _recombination(p: Floats, w: Floats) -> tuple[Floats, Floats]:
    """The current of ISR at junction voltage w, and its slope."""
    isr, nr_vt, per_vj, half_m = p[:, ISR : HALF_M + 1].T
    nr_vt = np.where(isr > 0, nr_vt, 1.0)
    w = np.minimum(w, RECOMBINING * nr_vt)
    z, depleted = w / nr_vt, np.minimum(1.0 - w * per_vj, FAR)
    square = depleted * depleted + LEAST_SQUARE
    factor, current = square**half_m, isr * np.expm1(z)
    return current * factor, factor * (isr * np.exp(z) / nr_vt - current * (2.0 * half_m * per_vj * depleted / square))


def _before_knee(p: Floats, i: Floats) -> Floats:
    """How many times larger currents i > 0 were without IKF: i = j / (1 + sqrt(j / IKF)) turned around is j / i."""
    ratio = np.maximum(i, 0.0) * p[:, PER_IKF]
    return 1.0 + 0.5 * (ratio + np.sqrt(ratio) * np.sqrt(ratio + 4.0))


def _least(p: Floats, i: Floats, w: Floats) -> Floats:
    """The least of junction voltages w and those at which the current of ISR alone is i > 0 or more."""
    isr, nr_vt, half_m = p[:, [ISR, NR_VT, HALF_M]].T
    if not isr.any():
        return w
    with np.errstate(divide="ignore", invalid="ignore"):
        alone = nr_vt * np.log1p(_ratio(np.maximum(i, 0.0), isr * LEAST_SQUARE**half_m))
    return np.where((isr > 0) & (i > 0), np.minimum(w, alone), w)


def _junction(p: Floats, v: Floats) -> tuple[Floats, Floats, Floats]:
    """The junction voltage w that solves w + RS i(w) = v, and there i and its slope.

    Safeguarded Newton on the bracket between 0 and v.
    """
    if not p[:, RS].any():
        return v, *_junction_current(p, v)
    p = np.asfortranarray(p)  # each column is read in every step
    rs = p[:, RS]
    low, high = np.minimum(v, 0.0), np.maximum(v, 0.0)
    # Where an exponential alone would carry all of v / RS: beyond the root, so that Newton comes back to it.
    with np.errstate(divide="ignore", over="ignore"):
        limit = v / np.where(rs > 0, rs, np.inf)
        before = _before_knee(p, limit) if p[:, PER_IKF].any() else 1.0
        decades = np.log1p(np.where(rs > 0, np.abs(v) / np.where(rs > 0, rs * p[:, IS], 1.0), np.inf) * before)
    reverse = np.minimum(-(p[:, BV] + p[:, NBV_VT] * decades), -3.0 * p[:, NVT] * BEYOND)
    forward = _least(p, limit * before, p[:, NVT] * decades)
    w = np.where(rs > 0, np.where(v > 0, np.minimum(v, forward), np.maximum(v, reverse)), v)
    for _ in range(STEPS):
        i, g = _junction_current(p, w)
        error = w + rs * i - v
        low, high = np.where(error < 0, w, low), np.where(error > 0, w, high)
        step = w - error / (1.0 + rs * g)
        inside = (step > low) & (step < high)
        new = np.where((error == 0) | (step == w), w, np.where(inside, step, 0.5 * (low + high)))
        if np.array_equal(new, w):
            return w, i, g
        w = new
    return w, *_junction_current(p, w)


_CURRENT = (_shockley_current, _pwl_current, _tanh_current, _sinh_current, _segment_current)
