"""Where Newton's tangents are taken: SPICE's limiting, so that exponentials cost no more steps than logarithms would.

A leg whose voltage rose further beyond the knee of its exponential takes its next tangent at the current that its old
tangent gave, if that is less (L. W. Nagel, SPICE2, 1975). So does one whose old tangent gave hardly any current:
nothing drives a current into it, and by voltages it would descend the exponential by only a factor of e per step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.law_kernels import BV, IS, ISR, NR_VT, NVT, Law
from circuitsim.laws import exponential_voltage
from circuitsim.methods.network import Network

Floats = NDArray[np.float64]

NO_DROP = 64 * float(np.finfo(np.float64).eps)  # times the largest voltage: smaller differences are rounding
_FAINT = 1e-12  # times the largest current of a row: smaller ones count as 0 (gpu_newton.py has it, too)
SPENT = 1e-2  # times the current that a leg had: less is hardly any (kernels.cu has it and the next, too)
MOST_SPENT = 1e12  # A: beyond, such a rest is rounding
NEAR = 1e-4  # relative error of the tangents' currents: once all are below, the certificate is worth computing


def first_voltages(network: Network, v: Floats, warm: bool) -> Floats:
    """Voltages of the junctions' first tangents, (rows, legs), V: v, but for Shockley diodes the forward knee, or with
    `warm` v clipped to both knees.

    From voltages far beyond a knee, which are no solution, limiting would come back only step by step.
    """
    law, params = network.law, network.params
    knee = _knee(law, params)
    return np.where(law == Law.SHOCKLEY, np.clip(v, _broken(law, params), knee) if warm else knee, v)


def near(i: Floats, line: Floats, rounding: Floats) -> NDArray[np.bool_]:
    """In which rows the tangents' currents `line` nearly equal the laws' currents i, (rows, legs), A; (rows,).

    `rounding` (rows, legs): what the rounding of the voltages may change in the currents, A.
    """
    largest = np.abs(i).max(axis=-1, initial=0.0, keepdims=True)
    return np.asarray((np.abs(i - line) <= NEAR * np.abs(i) + np.maximum(_FAINT * largest, rounding)).all(axis=-1))


def largest_voltages(x: Floats, fixed: Floats) -> Floats:
    """The largest absolute voltage of each row, of unknowns and of fixed parts, (rows or 1, n) each; (rows, 1), V."""
    return np.maximum(*(np.abs(v).max(axis=1, initial=0.0, keepdims=True) for v in (x, fixed)))


def _knee(law: NDArray[np.int8], params: Floats) -> Floats:
    """SPICE's critical voltages (V): where IS, or ISR, carries N Vt / (sqrt(2) x 1 ohm); 0 for other laws."""
    volts = _critical(params[:, IS], params[:, NVT])
    volts = np.where(params[:, ISR] > 0, np.minimum(volts, _critical(params[:, ISR], params[:, NR_VT])), volts)
    return np.where((law == Law.SHOCKLEY) & np.isfinite(volts), np.maximum(volts, 0.0), 0.0)


def _critical(saturation: Floats, nvt: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        volts: Floats = nvt * np.log(nvt / (np.sqrt(2.0) * saturation))
    return volts


def _broken(law: NDArray[np.int8], params: Floats) -> Floats:
    """The voltage (V) of the knee of the reverse breakdown, the mirrored forward knee beyond -BV; 0 for other laws."""
    far = np.maximum(params[:, BV], 3.0 * params[:, NVT]) + _knee(law, params)
    return np.where(law == Law.SHOCKLEY, -far, 0.0)


def limited(law: NDArray[np.int8], params: Floats, old: Floats, current: Floats, v: Floats, line: Floats) -> Floats:
    """Voltages for the next tangents, (..., legs), V, where those at `old`, with `current` (A), gave v and `line` (A).

    Normally v; beyond the knee of an exponential, and where hardly any current is left, the voltage at which the leg
    carries `line`, if that is nearer to 0.
    """
    w = v.copy()
    chosen = (law == Law.SHOCKLEY) | (law == Law.SINH)
    p, kinds = params[chosen], law[chosen]
    i, inner, was, had = line[..., chosen], v[..., chosen], old[..., chosen], current[..., chosen]
    highest, lowest = np.maximum(was, _knee(kinds, p)), np.minimum(was, _broken(kinds, p))
    forward, reverse = (exponential_voltage(kinds, p, x) for x in (np.maximum(i, 0.0), np.minimum(i, 0.0)))
    inner = np.where(inner > highest, np.minimum(inner, np.maximum(forward, highest)), inner)
    inner = np.where(inner < lowest, np.maximum(inner, np.minimum(reverse, lowest)), inner)
    spent = (np.abs(i) <= SPENT * np.abs(had)) & (np.abs(had) <= MOST_SPENT)
    inner = np.where(spent & (had > 0) & (inner < was), np.minimum(inner, forward), inner)
    w[..., chosen] = np.where(spent & (had < 0) & (inner > was), np.maximum(inner, reverse), inner)
    return w
