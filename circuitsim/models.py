"""`.model` cards -> parameters of the laws: diodes, and the nonlinear resistors tanh, sinh and pwl."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import At, NetlistError
from circuitsim.law_kernels import (
    BV,
    GMIN,
    HALF_M,
    HI,
    IS,
    ISR,
    LEAST_SQUARE,
    LO,
    N_PARAMS,
    NBV_VT,
    NR_VT,
    NVT,
    PER_IKF,
    PER_VJ,
    RS,
    SCALE,
    V0,
    G,
    Law,
)
from circuitsim.netlist import ModelCard, Options
from circuitsim.netlist.expressions import Value
from circuitsim.netlist.model import ABSOLUTE_ZERO
from circuitsim.netlist.tokens import comma_hint

Floats = NDArray[np.float64]

BOLTZMANN = 1.38064852e-23  # J/K, as in ngspice-39
CHARGE = 1.6021766208e-19  # C

_SHOCKLEY = {
    "is": 1e-14, "n": 1.0, "rs": 0.0, "bv": np.inf, "ibv": 1e-3, "eg": 1.11, "xti": 3.0, "ikf": 0.0, "isr": 0.0,
    "trs1": 0.0, "trs2": 0.0, "tcv": 0.0, "tbv1": 0.0, "tbv2": 0.0,
}  # fmt: skip
_SIGNED = frozenset({"tnom", "xti", "trs1", "trs2", "tcv", "tbv1", "tbv2"})
_RECOMBINATION = {"nr": 1.0, "vj": 1.0, "m": 0.5}  # what counts beside ISR only
_PWL = {"ron": 1.0, "roff": np.inf, "vfwd": 0.0, "vrev": np.inf}
_NAMED = {
    "tanh": (Law.TANH, {"imax": 1e-3, "v0": 0.5, "g": 0.0}),
    "sinh": (Law.SINH, {"i0": 1e-6, "v0": 0.2, "g": 0.0}),
}
_MOST_GRADING, _MOST_POTENTIAL = 0.9, 2.0  # of M, and of VJ(T) (V), as in ngspice
_MOST_RATIO = 1e300  # of IBV to an IS that is next to nothing
MOST = 1e50  # A, S: beyond it, currents could overflow
_ZERO = 1e-12  # of the currents around it: rounding in a table's current at 0 V
_INFINITE = frozenset({"bv", "ikf", "roff", "ron", "rrev", "vfwd", "vrev"})  # parameters of D that may be
_NO_DC_EFFECT = frozenset(
    "cjo cj0 cj cjp cjsw php mjsw tt fc fcs kf af ttt1 ttt2 cta ctc cta1 tpb tvj tphp level "
    "fv_max bv_max fv id_max te_max pd_max rth0 cth0 vpk mfg type iave".split()
)
_CHANGES_DC = frozenset(
    "ikr ikp jsw ns jtun jtunsw ntun xtitun keg rsw tlev tlevc tm1 tm2 area pj l w "
    "epsilon revepsilon ilimit revilimit temp dtemp".split()
)
_ALWAYS_CHANGES = frozenset("area pj l w ilimit revilimit temp dtemp".split())  # at 0 too; the others are off there
_OF_ELEMENTS = frozenset({"area", "temp", "dtemp"})
_OF_OTHERS = {  # what counts only beside another of them that is not 0
    "ns": ("jsw",), "rsw": ("jsw",), "ntun": ("jtun", "jtunsw"), "xtitun": ("jtun", "jtunsw"),
    "keg": ("jtun", "jtunsw"), "tm1": ("isr",), "tm2": ("isr",),
}  # fmt: skip


def _changes_dc(key: str, given: Mapping[str, float]) -> bool:
    """Whether a parameter that is not supported changes the operating point."""
    if key not in _CHANGES_DC:
        return False
    if key in _OF_OTHERS:
        return any(given.get(other, 0.0) != 0.0 for other in _OF_OTHERS[key])
    return given[key] != 0.0 or key in _ALWAYS_CHANGES


def diode_kind(model: ModelCard, at: At) -> tuple[str, dict[str, float], list[str]]:
    """Read a D model: ('shockley' | 'pwl', its parameters with defaults, remarks).

    A model is piecewise linear when it names RON, ROFF, VFWD, VREV or RREV; it is the perfect diode when RON = 0, or
    with the word `ideal`, or when N = 0. Raises NetlistError for parameters that such a diode cannot have.
    """
    given, remarks = model.params, list[str]()
    _check_diode(model, given, at, remarks)
    if "ideal" in model.flags or any(key in given for key in ("ron", "roff", "vfwd", "vrev", "rrev")):
        return "pwl", _piecewise_linear(model, given, at, remarks), remarks
    if given.get("n") == 0:
        return "pwl", _PWL | {"ron": 0.0, "rrev": 0.0}, remarks
    return "shockley", _shockley(model, given, at, remarks), remarks


def _check_diode(model: ModelCard, given: Mapping[str, float], at: At, remarks: list[str]) -> None:
    """Refuse impossible and unsupported parameters; remark on unknown ones."""
    for key in given:
        if _changes_dc(key, given):
            cure = "write it on the diode" if key in _OF_ELEMENTS else "leave it out if the diode can do without"
            raise NetlistError(
                f"model {model.name}: parameter {key.upper()} changes DC and is not supported; {cure}", at
            )
        if key in _RECOMBINATION and not given.get("isr"):
            continue
        if key not in {**_SHOCKLEY, **_RECOMBINATION, **_PWL} and key not in ("rrev", "nbv", "tnom"):
            if key not in _NO_DC_EFFECT and key not in _CHANGES_DC:
                remarks.append(f"model {model.name}: unknown parameter {key.upper()} is ignored")
            continue
        value = given[key]
        if np.isnan(value) or (value < 0 and key not in _SIGNED):
            raise NetlistError(
                f"model {model.name}: {key.upper()} = {value:g} must not be negative; make it 0 or positive", at
            )
        if np.isinf(value) and key not in _INFINITE:
            raise NetlistError(f"model {model.name}: {key.upper()} = {value:g}; make it finite", at)
        if key == "tnom" and value <= ABSOLUTE_ZERO:
            raise NetlistError(
                f"model {model.name}: TNOM = {value:g} C must be above absolute zero, {ABSOLUTE_ZERO} C; it is in "
                "degree Celsius",
                at,
            )


def _piecewise_linear(model: ModelCard, given: Mapping[str, float], at: At, remarks: list[str]) -> dict[str, float]:
    p = _PWL | {key: given[key] for key in _PWL if key in given}
    if "ideal" in model.flags:
        p["ron"] = 0.0
    p["rrev"] = given.get("rrev", p["ron"])
    if ignored := [key.upper() for key in ("is", "n", "rs", "bv", "ikf", "isr") if key in given]:
        remarks.append(
            f"model {model.name}: {', '.join(ignored)} of a Shockley diode have no effect beside RON, ROFF, VFWD, "
            "VREV or RREV: the diode is piecewise linear"
        )
    if p["roff"] == 0 or max(p["ron"], p["rrev"]) > p["roff"]:
        raise NetlistError(f"model {model.name}: RON and RREV must not exceed ROFF, and ROFF not be 0; raise ROFF", at)
    return p


def _shockley(model: ModelCard, given: Mapping[str, float], at: At, remarks: list[str]) -> dict[str, float]:
    p = _SHOCKLEY | {key: given[key] for key in _SHOCKLEY if key in given}
    p["nbv"] = given.get("nbv", p["n"])
    if np.isinf(p["ikf"]):
        p["ikf"] = 0.0
    if p["isr"] > 0:
        p |= {key: given.get(key, value) for key, value in _RECOMBINATION.items()}
        if "nr" not in given:
            remarks.append(f"model {model.name}: ISR without NR: NR = 1, as in ngspice (PSpice takes 2)")
        for key in ("is", "nr", "vj"):
            if p[key] == 0:
                raise NetlistError(f"model {model.name}: {key.upper()} = 0 beside ISR; make it positive", at)
    if p["tbv1"] or p["tbv2"]:
        remarks.append(f"model {model.name}: TBV1 and TBV2 move BV as in PSpice (ngspice ignores them)")
    if "tnom" in given:
        p["tnom"] = given["tnom"]
    return p


def thermal_voltage(temp: Floats) -> Floats:
    """kT/q in volts, at these temperatures in degree Celsius."""
    return np.asarray(BOLTZMANN * (temp - ABSOLUTE_ZERO) / CHARGE)


def shockley_params(
    p: Mapping[str, Value], area: Floats, m: Floats, temp: Floats, options: Options, label: str, at: At
) -> Floats:
    """The (n, N_PARAMS) law rows of diodes of one Shockley model, or of models of which each diode has its own.

    `p`: its parameters, or arrays of n of them, all of which are 0, or infinite, or none (in a column).
    `area` and `m` scale IS, ISR, IKF and 1/RS, `m` alone scales IBV (as in ngspice-39); `temp` is in degree Celsius.
    IS(T) = IS exp((T/Tnom - 1) EG/(N Vt) + XTI/N ln(T/Tnom)), and ISR alike with NR. With dT = T - Tnom,
    RS(T) = RS (1 + TRS1 dT + TRS2 dT^2) and BV(T) = BV (1 + TBV1 dT + TBV2 dT^2) - TCV dT, adjusted so that the
    exponential passes through IBV at -BV, but for terms of the order of IS (SPICE 3, `diotemp.c`). Raises NetlistError,
    beginning with `label`, where RS or BV is negative, or the current of ISR not monotone.
    """
    kelvin = temp - ABSOLUTE_ZERO
    vt = thermal_voltage(temp)
    tnom = p.get("tnom", options.tnom)
    ratio = kelvin / (tnom - ABSOLUTE_ZERO)

    def at_temperature(amperes: Value, n: Value) -> Floats:
        exponent = (ratio - 1.0) * p["eg"] / (n * vt) + p["xti"] / n * np.log(ratio)
        with np.errstate(over="ignore"):  # far from Tnom, with a tiny N
            return np.minimum(amperes * area * m * np.exp(exponent), MOST)

    saturation = at_temperature(p["is"], p["n"])
    nbv_vt = p["nbv"] * vt
    warmer = temp - tnom
    rs = p["rs"] * (1.0 + warmer * (p["trs1"] + warmer * p["trs2"]))
    bv = np.full(temp.shape, np.inf)
    if np.all(np.isfinite(p["bv"])):
        bv = p["bv"] - warmer * linear_breakdown(p, warmer)
    for name, value, unit in (("RS", rs, "ohm"), ("BV", bv, "V")):
        if (value < 0).any():
            k = int(np.argmin(value))
            raise NetlistError(
                f"{label}: {name} is {value[k]:.3g} {unit} at {temp[k]:g} C; correct its temperature coefficients", at
            )
    rows = np.zeros((area.size, N_PARAMS))
    rows[:, IS] = saturation
    rows[:, NVT] = p["n"] * vt
    rows[:, RS] = rs / (area * m)
    rows[:, BV] = _adjusted_breakdown(bv, p["ibv"] * m, saturation, vt, nbv_vt)
    rows[:, NBV_VT] = nbv_vt
    rows[:, GMIN] = options.gmin
    if np.any(p["ikf"] > 0):
        rows[:, PER_IKF] = 1.0 / (p["ikf"] * area * m)
    if np.any(p["isr"] > 0):
        half_m = 0.5 * np.minimum(p["m"], _MOST_GRADING)
        vj = np.minimum(_junction_potential(p["vj"], temp, tnom), _MOST_POTENTIAL)
        rows[:, ISR], rows[:, NR_VT], rows[:, HALF_M] = at_temperature(p["isr"], p["nr"]), p["nr"] * vt, half_m
        # Its factor falls by M / (2 sqrt(0.005) VJ) a volt at most, its exponential rises by 1 / (NR Vt) at least; what
        # is left to fall the current of IS may outweigh, at 0 V and, with N <= NR, all the more above.
        with np.errstate(divide="ignore"):
            left = half_m / (np.sqrt(LEAST_SQUARE) * vj) - 1.0 / rows[:, NR_VT]
        outweighed = (p["n"] <= p["nr"]) & (
            rows[:, ISR] * (1.0 + LEAST_SQUARE) ** half_m * left <= saturation / rows[:, NVT]
        )
        if (falls := (vj <= 0) | ((left > 0) & ~outweighed)).any():
            k = int(np.argmax(falls))
            raise NetlistError(
                f"{label}: at {temp[k]:g} C, where VJ is {vj[k]:.3g} V, the current of ISR is not monotone "
                "around VJ, nor its sum with that of IS; make VJ larger, or M or NR smaller, or leave ISR out",
                at,
            )
        rows[:, PER_VJ] = 1.0 / vj
    return rows


def _junction_potential(vj: Value, temp: Floats, tnom: Value) -> Floats:
    """VJ(T) = T/Tnom VJ + Eg(T) - T/Tnom Eg(Tnom) - 3 Vt ln(T/Tnom), V, with silicon's band gap Eg (SPICE 3)."""
    kelvin, nominal = temp - ABSOLUTE_ZERO, tnom - ABSOLUTE_ZERO
    ratio = kelvin / nominal
    now, then = (1.16 - 7.02e-4 * t**2 / (t + 1108.0) for t in (kelvin, nominal))
    return np.asarray(ratio * (vj - then) + now - 3.0 * thermal_voltage(temp) * np.log(ratio))


def linear_breakdown(p: Mapping[str, Value], warmer: Floats) -> Floats:
    """By how much BV falls for each degree of `warmer`, V/K: TCV - BV (TBV1 + TBV2 dT)."""
    return np.asarray(p["tcv"] - p["bv"] * (p["tbv1"] + warmer * p["tbv2"]))


def _adjusted_breakdown(bv: Floats, ibv: Floats, saturation: Floats, vt: Floats, nbv_vt: Floats) -> Floats:
    """x = BV - NBV Vt ln(IBV/IS + 1 - x/Vt): the last term has no NBV in ngspice-39."""
    if not np.isfinite(bv).all():
        return bv
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(saturation > 0, np.minimum(ibv / saturation, _MOST_RATIO), 0.0)
    with np.errstate(over="ignore"):
        x = bv - nbv_vt * np.log1p(ratio)
        for _ in range(25):
            x = bv - nbv_vt * np.log(np.maximum(ratio + 1.0 - x / vt, 1.0))
        return np.where(ratio < bv / vt, bv, x)


def resistor_branches(model: ModelCard, at: At) -> tuple[float, Law, Floats]:
    """Read a tanh, sinh or pwl model: its conductance (S) and the nonlinear branches in parallel with that.

    The branches are rows of one law, (k, N_PARAMS), whose column 0 multiplies the current. Raises NetlistError for
    parameters that the type does not have, for values that make it non-monotone, and for tables not through (0, 0).
    """
    if model.type == "pwl":
        g, rows = _segments(model, at)
        return g, Law.SEGMENT, rows
    law, p = _NAMED[model.type]
    label = f"model {model.name}"
    for key in [*model.flags, *model.params]:
        if key not in p or key in model.flags:
            known = ", ".join(p).upper()
            raise NetlistError(f"{label}: {model.type} has no parameter {key.upper()}; its parameters are {known}", at)
    p = {**p, **model.params}
    for key, value in p.items():
        if key == "v0" and not 0 < value < np.inf:
            raise NetlistError(f"{label}: V0 = {value:g} V; make it positive and finite", at)
        if value < 0:
            raise NetlistError(f"{label}: {key.upper()} = {value:g} is not monotone; make it 0 or positive", at)
        if not np.isfinite(value):
            raise NetlistError(f"{label}: {key.upper()} = {value:g}; make it finite", at)
    scale, v0, g = resistor_values(model)
    if max(scale, g) > MOST or scale > MOST * v0:
        raise NetlistError(
            f"{label}: {next(iter(p)).upper()} = {scale:g} A with V0 = {v0:g} V and G = {g:g} S makes its current "
            "overflow; use realistic values",
            at,
        )
    rows = np.zeros((int(scale > 0), N_PARAMS))
    rows[:, [SCALE, V0]] = scale, v0
    return g, law, rows


def resistor_values(model: ModelCard) -> tuple[float, float, float]:
    """The parameters of a tanh or sinh model, defaults among them: imax or i0 (A), v0 (V), g (S)."""
    defaults = _NAMED[model.type][1]
    scale, v0, g = (model.params.get(key, value) for key, value in defaults.items())
    return scale, v0, g


def _segments(model: ModelCard, at: At) -> tuple[float, Floats]:
    """A table as its least slope (S) and, for each steeper segment, a row of SEGMENT with the rest of its slope."""
    label = f"model {model.name}"
    points, count = np.array(model.points), len(model.points)
    if count % 2 or count < 4:
        raise NetlistError(
            f"{label}: a table needs two or more pairs of volts and amperes, found {count} numbers; write "
            f"pwl(v1 i1 v2 i2 ...){comma_hint(at.text)}",
            at,
        )
    if not np.isfinite(points).all():
        raise NetlistError(f"{label}: {points[~np.isfinite(points)][0]:g} in its table; make it finite", at)
    v, i = points[::2], points[1::2]
    dv, di = np.diff(v), np.diff(i)
    if not (dv > 0).all():
        k = int(np.argmin(dv > 0))
        raise NetlistError(
            f"{label}: voltages of a table must rise, but {v[k + 1]:g} V follows {v[k]:g} V; sort it", at
        )
    if not (di >= 0).all():
        k = int(np.argmin(di >= 0))
        raise NetlistError(
            f"{label}: not monotone, its current falls from {i[k]:g} A at {v[k]:g} V to {i[k + 1]:g} A at "
            f"{v[k + 1]:g} V; make currents of a table rise or stay",
            at,
        )
    with np.errstate(over="ignore"):
        slope = di / dv
    if slope.max() > MOST:
        raise NetlistError(f"{label}: a slope of its table overflows; put its points further apart", at)
    k = int(np.clip(np.searchsorted(v, 0.0) - 1, 0, slope.size - 1))  # the segment of 0 V
    with np.errstate(over="ignore"):
        offset = i[k] - slope[k] * v[k]
    if abs(offset) > _ZERO * np.abs(i[k : k + 2]).max():
        raise NetlistError(
            f"{label}: its table has {offset:g} A at 0 V instead of 0; subtract this from its currents, and put a "
            f"current source of {offset:g} A in parallel, from the element's first node to its second",
            at,
        )
    g = float(slope.min())
    rows = np.zeros((slope.size, N_PARAMS))
    rows[:, G] = slope - g
    rows[:, LO], rows[:, HI] = [-np.inf, *v[1:-1]], [*v[1:-1], np.inf]
    return g, rows[rows[:, G] > 0]
