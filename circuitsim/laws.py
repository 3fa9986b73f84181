"""Current laws of the nonlinear two-terminal elements, vectorised: the Shockley diode and the piecewise-linear diode.

A law is a row of `Law` parameters; `branch_current` gives i(v) and di/dv. All laws are monotone: di/dv >= 0.
Shockley, at junction voltage w (ngspice manual, diode model; the law of SPICE 3):

    w >= -3 N Vt:       i = IS (exp(w / (N Vt)) - 1)
    -BV < w < -3 N Vt:  i = -IS (1 + (3 N Vt / (w e))^3)
    w <= -BV:           i = -IS exp(-(w + BV) / (NBV Vt))

plus GMIN w where the deck asks for gmin. A series resistance RS is solved exactly: v = w + RS i(w).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import At, NetlistError
from circuitsim.netlist import ModelCard, Options

Floats = NDArray[np.float64]

BOLTZMANN = 1.38064852e-23  # J/K, as in ngspice-39
CHARGE = 1.6021766208e-19  # C
KELVIN = 273.15
MAX_EXPONENT = 700.0  # exp stays finite in float64


class Law(IntEnum):
    """Which law a nonlinear branch follows; the parameters that go with it, in column order."""

    SHOCKLEY = 0  # is (A), nvt (V), rs (ohm), bv (V, adjusted), nbv_vt (V), gmin (S)
    PWL = 1  # g_forward (S), v_forward (V), g_reverse (S), v_reverse (V): slopes added beyond the two knees


N_PARAMS = 6

_SHOCKLEY = {"is": 1e-14, "n": 1.0, "rs": 0.0, "bv": np.inf, "ibv": 1e-3, "eg": 1.11, "xti": 3.0}
_SYNONYMS = {"js": "is", "vb": "bv", "vrb": "bv", "var": "bv", "ib": "ibv", "tref": "tnom"}
_PWL = {"ron": 1.0, "roff": np.inf, "vfwd": 0.0, "vrev": np.inf}
_NO_DC_EFFECT = frozenset(
    "cjo cj0 cj cjp cjsw vj pb m mj php mjsw tt fc fcs kf af ttt1 ttt2 tm1 tm2 cta ctc cta1 tpb tvj tphp level "
    "fv_max bv_max fv id_max te_max pd_max rth0 cth0 vpk mfg type iave".split()
)
_CHANGES_DC = frozenset(
    "ikf ik ikr ikp isr nr jsw ns jtun jtunsw ntun xtitun keg rsw trs trs1 trs2 tbv1 tbv2 tcv tlev tlevc area pj l w "
    "epsilon revepsilon ilimit revilimit".split()
)


def diode_kind(model: ModelCard, at: At) -> tuple[str, dict[str, float], list[str]]:
    """Read a D model: ('shockley' | 'pwl' | 'ideal', its parameters with defaults, remarks).

    A model is piecewise linear when it names RON, ROFF, VFWD, VREV or RREV; it is the perfect diode when RON = 0 or the
    word `ideal` stands in it, or when N = 0. Raises NetlistError for parameters that no such diode can have.
    """
    given = {_SYNONYMS.get(key, key): value for key, value in model.params.items()}
    remarks = []
    for key in given:
        if key in _CHANGES_DC:
            raise NetlistError(f"model {model.name}: parameter {key.upper()} changes DC and is not supported", at)
        if key not in _SHOCKLEY and key not in _PWL and key not in ("rrev", "nbv", "tnom"):
            if key not in _NO_DC_EFFECT:
                remarks.append(f"model {model.name}: unknown parameter {key.upper()} is ignored")
            continue
        if np.isnan(given[key]) or (given[key] < 0 and key not in ("tnom", "xti")):
            raise NetlistError(f"model {model.name}: {key.upper()} = {given[key]:g} must not be negative", at)
    if "ideal" in model.flags or any(key in given for key in ("ron", "roff", "vfwd", "vrev", "rrev")):
        p = _PWL | {key: given[key] for key in _PWL if key in given}
        if "ideal" in model.flags:
            p["ron"] = 0.0
        p["rrev"] = given.get("rrev", p["ron"])
        if p["roff"] == 0 or max(p["ron"], p["rrev"]) > p["roff"]:
            raise NetlistError(f"model {model.name}: RON and RREV must not exceed ROFF, and ROFF not be 0", at)
        return "pwl", p, remarks
    p = _SHOCKLEY | {key: given[key] for key in _SHOCKLEY if key in given}
    if p["n"] == 0:
        return "pwl", _PWL | {"ron": 0.0, "rrev": 0.0}, remarks
    p["nbv"] = given.get("nbv", p["n"])
    if "tnom" in given:
        p["tnom"] = given["tnom"]
    return "shockley", p, remarks


def shockley_params(p: Mapping[str, float], area: Floats, m: Floats, temp: Floats, options: Options) -> Floats:
    """The (n, N_PARAMS) law rows of diodes of one Shockley model.

    `area` and `m` scale IS and 1/RS, `m` alone scales IBV (as in ngspice-39); `temp` is in degree Celsius.
    IS(T) = IS exp((T/Tnom - 1) EG/(N Vt) + XTI/N ln(T/Tnom)); the breakdown voltage is adjusted so that the
    exponential passes through IBV at -BV, but for terms of the order of IS (SPICE 3, `diotemp.c`).
    """
    kelvin = temp + KELVIN
    vt = BOLTZMANN * kelvin / CHARGE
    ratio = kelvin / (p.get("tnom", options.tnom) + KELVIN)
    log_is = (ratio - 1.0) * p["eg"] / (p["n"] * vt) + p["xti"] / p["n"] * np.log(ratio)
    saturation = p["is"] * area * m * np.exp(log_is)
    nbv_vt = p["nbv"] * vt
    rows = np.zeros((area.size, N_PARAMS))
    rows[:, 0] = saturation
    rows[:, 1] = p["n"] * vt
    rows[:, 2] = p["rs"] / (area * m)
    rows[:, 3] = _adjusted_breakdown(p["bv"], p["ibv"] * m, saturation, nbv_vt)
    rows[:, 4] = nbv_vt
    rows[:, 5] = options.gmin
    return rows


def _adjusted_breakdown(bv: float, ibv: Floats, saturation: Floats, vt: Floats) -> Floats:
    if not np.isfinite(bv):
        return np.full(ibv.shape, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(saturation > 0, ibv / saturation, 0.0)
    x = bv - vt * np.log1p(ratio)
    for _ in range(25):
        x = bv - vt * np.log(np.maximum(ratio + 1.0 - x / vt, 1.0))
    return np.where(ratio < bv / vt, bv, x)


def most_current(law: NDArray[np.int8], params: Floats) -> tuple[Floats, Floats]:
    """The most that branches can carry forward, and in reverse, at any voltage, (m,) each, A; inf without a limit."""
    pwl = law == Law.PWL
    unlimited = np.isfinite(params[:, 3]) | (params[:, 5] > 0)  # of a Shockley diode in reverse: breakdown, gmin
    forward = np.where(~pwl | (params[:, 0] > 0), np.inf, 0.0)
    reverse = np.where(pwl, np.where(params[:, 2] > 0, np.inf, 0.0), np.where(unlimited, np.inf, params[:, 0]))
    return forward, reverse


def flat_room(law: NDArray[np.int8], params: Floats, v: Floats) -> tuple[Floats, Floats]:
    """How far the voltages v (..., m) may fall, and rise, without a change of current, V; 0 where the law is strict."""
    pwl = law == Law.PWL
    flat = pwl & (branch_current(law, params, v)[1] == 0)
    fall = np.where(params[:, 2] > 0, v + params[:, 3], np.inf)
    rise = np.where(params[:, 0] > 0, params[:, 1] - v, np.inf)
    return np.where(flat, np.maximum(fall, 0.0), 0.0), np.where(flat, np.maximum(rise, 0.0), 0.0)


def branch_current(law: NDArray[np.int8], params: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Currents (A) and slopes (S) of m branches at voltages v; shapes: law (m,), params (m, N_PARAMS), v (..., m)."""
    current, slope = np.zeros(v.shape), np.zeros(v.shape)
    pwl = law == Law.PWL
    if pwl.any():
        g_f, v_f, g_r, v_r = (params[pwl, k] for k in range(4))
        above, below = v[..., pwl] - v_f, -v[..., pwl] - v_r
        current[..., pwl] = g_f * np.maximum(above, 0.0) - g_r * np.maximum(below, 0.0)
        slope[..., pwl] = g_f * (above > 0) + g_r * (below > 0)
    rest = ~pwl
    if rest.any():
        p = params[rest]
        w = _junction_voltage(p, v[..., rest])
        i, g = _junction_current(p, w)
        current[..., rest] = i
        slope[..., rest] = g / (1.0 + p[:, 2] * g)
    return current, slope


def _junction_current(p: Floats, w: Floats) -> tuple[Floats, Floats]:
    saturation, nvt, bv, nbv_vt, gmin = p[:, 0], p[:, 1], p[:, 3], p[:, 4], p[:, 5]
    forward = np.exp(np.minimum(w / nvt, MAX_EXPONENT))
    i = saturation * np.expm1(np.minimum(w / nvt, MAX_EXPONENT))
    g = saturation * forward / nvt
    off = w < -3.0 * nvt
    arg = 3.0 * nvt / (np.where(off, w, -3.0 * nvt) * np.e)
    i = np.where(off, -saturation * (1.0 + arg**3), i)
    g = np.where(off, saturation * 3.0 * arg**3 / np.where(off, w, -1.0), g)
    broken = w < -bv
    reverse = np.exp(np.minimum(np.where(broken, -(w + bv) / nbv_vt, 0.0), MAX_EXPONENT))
    i = np.where(broken, -saturation * reverse, i)
    g = np.where(broken, saturation * reverse / nbv_vt, g)
    return i + gmin * w, g + gmin


def _junction_voltage(p: Floats, v: Floats) -> Floats:
    """Solve w + RS i(w) = v for the junction voltage w; safeguarded Newton on the bracket between 0 and v."""
    rs = p[:, 2]
    if not rs.any():
        return v
    low, high = np.minimum(v, 0.0), np.maximum(v, 0.0)
    # Where the exponential alone would carry all of v / RS: beyond the root, so that Newton comes back to it.
    with np.errstate(divide="ignore"):
        decades = np.log1p(np.where(rs > 0, np.abs(v) / np.where(rs > 0, rs * p[:, 0], 1.0), np.inf))
    w = np.where(v > 0, np.minimum(v, p[:, 1] * decades), np.maximum(v, -(p[:, 3] + p[:, 4] * decades)))
    for _ in range(200):
        i, g = _junction_current(p, w)
        error = w + rs * i - v
        low, high = np.where(error < 0, w, low), np.where(error > 0, w, high)
        step = w - error / (1.0 + rs * g)
        inside = (step > low) & (step < high)
        new = np.where(error == 0, w, np.where(inside, step, 0.5 * (low + high)))
        if np.array_equal(new, w):
            break
        w = new
    return np.where(rs > 0, w, v)
