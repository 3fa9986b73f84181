"""Dense reference solutions of small circuits, from the parts of a random deck; no code of circuitsim is used.

`Dense` holds the branches of a circuit as arrays and incidence matrices over all nodes but ground. A series resistance
RS is a resistor to an inner node. Signs: a branch current flows from a to b through the branch, w = va - vb.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse
from scipy.sparse import csgraph

from validation.random_decks import Deck, Model, Part

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

VT = 1.38064852e-23 * 300.15 / 1.6021766208e-19  # V at 27 C
_EPS = float(np.finfo(np.float64).eps)
STRAIGHT = 1e8  # A: beyond, exponentials go on as straight lines
_TRUSTED = 1e-10  # of the stiffest direction: softer ones are not trusted to double precision
_NOTHING = 1e-13  # the same: softer ones are none


class NoReference(Exception):
    """The reference solver does not vouch for an answer."""


# -- laws --------------------------------------------------------------------------------------------------------------


def breakdown(p: dict[str, float]) -> float:
    """The voltage, V, from which the reverse exponential runs so that it passes through IBV at -BV; inf: none."""
    if "bv" not in p:
        return np.inf
    vt, ratio = p["n"] * VT, p["ibv"] / p["is"]
    x = p["bv"]
    for _ in range(60):
        x = p["bv"] - vt * np.log(ratio + 1.0 - x / VT)  # without N, as ngspice has it
    return float(x)


def shockley(p: Floats, w: Floats) -> tuple[Floats, Floats]:
    """ngspice's diode without RS; p (m, 3): IS, N Vt, adjusted BV."""
    saturation, vt, bv = p.T
    most = np.log(STRAIGHT / saturation)

    def straight(z: Floats) -> tuple[Floats, Floats]:
        e = np.exp(np.minimum(z, most))
        return e * (1.0 + np.maximum(z - most, 0.0)), e

    forward, slope = straight(w / vt)
    i, g = (
        saturation * np.where(w / vt < 1.0, np.expm1(np.minimum(w / vt, 1.0)), forward - 1.0),
        saturation / vt * slope,
    )
    off = w < -3.0 * vt
    cube = (3.0 * vt / (np.where(off, w, -3.0 * vt) * np.e)) ** 3
    i, g = (
        np.where(off, -saturation * (1.0 + cube), i),
        np.where(off, 3.0 * saturation * cube / np.where(off, w, -1.0), g),
    )
    broken = off & (w < -bv)
    reverse, slope = straight(np.where(broken, -(w + np.where(broken, bv, 0.0)) / vt, 0.0))
    return np.where(broken, -saturation * reverse, i), np.where(broken, saturation / vt * slope, g)


def hyperbolic(p: Floats, w: Floats) -> tuple[Floats, Floats]:
    """p (m, 3): 1 for sinh and 0 for tanh, scale (A), V0."""
    is_sinh, scale, v0 = p.T
    most = np.where(is_sinh > 0, np.arcsinh(STRAIGHT / scale), 300.0)
    z = np.clip(w / v0, -most, most)
    cosh = np.cosh(z)
    slope = scale / v0 * np.where(is_sinh > 0, cosh, 1.0 / cosh**2)
    i = scale * np.where(is_sinh > 0, np.sinh(z), np.tanh(z)) + np.where(is_sinh > 0, slope * (w - z * v0), 0.0)
    return i, slope


def segment(p: Floats, w: Floats) -> tuple[Floats, Floats]:
    """A slope between two voltages; p (m, 3): g, lo, hi."""
    g, lo, hi = p.T
    return g * (np.clip(w, lo, hi) - np.clip(0.0, lo, hi)), g * ((w > lo) & (w < hi))


LAWS = (shockley, hyperbolic, segment)


def table_segments(points: tuple[float, ...]) -> list[tuple[float, float, float]]:
    """A table as (slope, lo, hi) of each of its lines, the outer ones without end."""
    v, i = np.array(points[::2]), np.array(points[1::2])
    ends = [-np.inf, *v[1:-1].tolist(), np.inf]
    return list(zip((np.diff(i) / np.diff(v)).tolist(), ends[:-1], ends[1:], strict=True))


# -- a circuit ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Branch:
    """One physical branch of a part."""

    part: str
    a: str
    b: str
    value: float  # S, A, V


class Dense:
    """See the module; n nodes without ground, `names` are theirs, inner nodes end in #."""

    def __init__(self, deck: Deck) -> None:
        self.deck = deck
        self.resistors: list[Branch] = []
        self.sources: list[Branch] = []
        self.ties: list[Branch] = []
        self.ideals: list[Branch] = []  # value: forward voltage; a is the anode
        self.controlled: list[Part] = []
        self.legs: list[tuple[Branch, int, tuple[float, float, float]]] = []  # value of the branch: unused
        for part in deck.parts:
            self._add(part)
        ends = [n for group in (self.resistors, self.legs_of()) for x in group for n in (x.a, x.b)]
        self.names = [n for n in dict.fromkeys([*deck.nodes, *ends]) if n != "0"]
        self.index = {name: k for k, name in enumerate(self.names)}
        self.law = np.array([kind for _, kind, _ in self.legs], int)
        self.p = np.array([p for *_, p in self.legs], float).reshape(-1, 3)
        self.R, self.I, self.V, self.D, self.N = (
            self.incidence(group) for group in (self.resistors, self.sources, self.ties, self.ideals, self.legs_of())
        )
        self.g, self.i, self.e, self.vf = (
            np.array([x.value for x in group], float)
            for group in (self.resistors, self.sources, self.ties, self.ideals)
        )
        self.laplacian = self.R.T @ (self.g[:, None] * self.R)
        self.injected = -self.I.T @ self.i

    def legs_of(self) -> list[Branch]:
        return [branch for branch, *_ in self.legs]

    def incidence(self, group: list[Branch] | list[Part]) -> Floats:
        """(branches, n): 1 at a, -1 at b."""
        return self.rows([(x.a, x.b) for x in group])

    def rows(self, ends: list[tuple[str, str]]) -> Floats:
        out = np.zeros((len(ends), len(self.names)))
        for row, (a, b) in zip(out, ends, strict=True):
            for node, sign in ((a, 1.0), (b, -1.0)):
                if node != "0":
                    row[self.index[node]] += sign
        return out

    def _add(self, part: Part) -> None:
        one = Branch(part.name, part.a, part.b, part.value)
        if part.kind == "R" and part.value > 0:
            self.resistors.append(Branch(part.name, part.a, part.b, 1.0 / part.value))
        elif part.kind in "RLV":
            self.ties.append(Branch(part.name, part.a, part.b, 0.0 if part.kind == "L" else part.value))
        elif part.kind == "I":
            self.sources.append(one)
        elif part.kind in "EFGH":
            self.controlled.append(part)
        elif part.model:
            self._nonlinear(one, part.model)

    def _nonlinear(self, x: Branch, model: Model) -> None:
        p = model.p

        def conductor(g: float) -> None:
            self.resistors.append(Branch(x.part, x.a, x.b, g))

        def leg(law: int, *parameters: float, a: str = x.a) -> None:
            self.legs.append((Branch(x.part, a, x.b, 0.0), law, parameters))  # type: ignore[arg-type]

        if model.type == "ideal":
            self.ideals.append(Branch(x.part, x.a, x.b, p.get("vfwd", 0.0)))
            if "vrev" in p:
                self.ideals.append(Branch(x.part, x.b, x.a, p["vrev"]))
        elif model.type == "pwl":
            off = 1.0 / p["roff"] if "roff" in p else 0.0
            leg(2, 1.0 / p["ron"] - off, p["vfwd"], np.inf)
            if "vrev" in p:
                leg(2, 1.0 / p["rrev"] - off, -np.inf, -p["vrev"])
            if off:
                conductor(off)
        elif model.type == "table":
            for g, lo, hi in table_segments(model.points):
                if g > 0:
                    leg(2, g, lo, hi)
        elif model.type in ("tanh", "sinh"):
            leg(1, float(model.type == "sinh"), p["i0" if model.type == "sinh" else "imax"], p["v0"])
            if p["g"]:
                conductor(p["g"])
        else:
            anode = x.a
            if p.get("rs"):
                anode = f"{x.part}#"
                self.resistors.append(Branch(x.part, x.a, anode, 1.0 / p["rs"]))
            leg(0, p["is"], p["n"] * VT, breakdown(p), a=anode)

    def legs_current(self, w: Floats) -> tuple[Floats, Floats]:
        """Currents and slopes of the legs at voltages w."""
        i, g = np.zeros(w.size), np.zeros(w.size)
        for kind, law in enumerate(LAWS):
            mine = self.law == kind
            if mine.any():
                i[mine], g[mine] = law(self.p[mine], w[mine])
        return i, g

    def out(self, v: Floats) -> tuple[Floats, Floats]:
        """Currents out of the nodes through resistors, current sources and legs, and their Jacobian."""
        i, g = self.legs_current(self.N @ v)
        return self.laplacian @ v - self.injected + self.N.T @ i, self.laplacian + self.N.T @ (g[:, None] * self.N)

    def limits(self) -> tuple[Floats, Floats]:
        """Least and largest current of each leg, A; leakage counts as none."""
        lo, hi = np.full(self.law.size, -np.inf), np.full(self.law.size, np.inf)
        lo[(self.law == 0) & np.isinf(self.p[:, 2])] = 0.0
        tanh = (self.law == 1) & (self.p[:, 0] == 0)
        hi[tanh], lo[tanh] = self.p[tanh, 1], -self.p[tanh, 1]
        flat = self.law == 2
        g, low, high = self.p[flat].T
        middle = np.clip(0.0, low, high)
        lo[flat], hi[flat] = g * (low - middle), g * (high - middle)
        return lo, hi

    # -- is there a solution? ------------------------------------------------------------------------------------------

    @cached_property
    def voltage_misfit(self) -> float:
        """The least V by which ties and ideal diodes must be violated."""
        n = len(self.names)
        above = np.block([[self.D, -np.ones((len(self.ideals), 1))]])
        m = np.ones((len(self.ties), 1))
        both = np.block([[self.V, -m], [-self.V, -m]])
        return _least(
            np.append(np.zeros(n), 1.0), np.vstack([above, both]), np.concatenate([self.vf, self.e, -self.e]), n
        )

    @cached_property
    def current_misfit(self) -> float:
        """The least uA by which Kirchhoff's current law must be violated at some node."""
        lo, hi = self.limits()
        through = np.vstack([self.R, self.V, self.D, self.N]).T
        bounds = [(None, None)] * (len(self.g) + len(self.e)) + [(0, None)] * len(self.vf)
        bounds += list(zip(*(np.where(np.isfinite(x), 1e6 * x, np.nan) for x in (lo, hi)), strict=True))
        bounds = [tuple(None if x is None or np.isnan(x) else x for x in pair) for pair in bounds]
        m = np.ones((len(self.names), 1))
        rows = np.block([[through, -m], [-through, -m]])
        sides = 1e6 * np.concatenate([self.injected, -self.injected])
        cost = np.append(np.zeros(through.shape[1]), 1.0)
        found = optimize.linprog(cost, A_ub=rows, b_ub=sides, bounds=[*bounds, (0, None)], method="highs")
        return float(found.fun) if found.status == 0 else np.nan

    def solvable(self) -> bool | None:
        """Whether a circuit without controlled sources has a solution; None: too close to say."""
        volts, micro = self.voltage_misfit, self.current_misfit
        if np.isnan(volts) or np.isnan(micro):
            return None
        if volts <= 1e-6 and micro <= 0.02:
            return True
        return False if volts > 1e-5 or micro > 0.5 else None


def _least(cost: Floats, rows: Floats, sides: Floats, n: int) -> float:
    found = optimize.linprog(cost, A_ub=rows, b_ub=sides, bounds=[(None, None)] * n + [(0, None)], method="highs")
    return float(found.fun) if found.status == 0 else np.nan


# -- convex circuits ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """Voltages of Dense.names, and which of them the reference vouches for."""

    v: Floats
    trusted: Bools


def convex_answer(dense: Dense) -> Answer:
    """The equilibrium without controlled sources, its conditions checked. Raises NoReference.

    Where all laws are piecewise linear: an interior-point method (Clarabel), then Newton with its active ideal diodes.
    Otherwise, or where that fails: Newton on the augmented Lagrangian.
    """
    methods = [interior_point, augmented] if not (dense.law != 2).any() else [augmented]
    for method in methods:
        try:
            v, on = method(dense)
            if not np.isfinite(v).all():
                raise NoReference("the reference overflowed")
            return finished(dense, v, on)
        except (NoReference, RuntimeError, np.linalg.LinAlgError) as error:
            why = str(error)
    raise NoReference(why)


def interior_point(dense: Dense) -> tuple[Floats, Bools]:
    """Voltages and conducting ideal diodes by a QP.

    A segment is a resistor in series with current limits: w - clip(0, lo, hi) = z + p - q costs g z^2 / 2 + imax p -
    imin q with p, q >= 0; and z >= 0 where imin = 0, z <= 0 where imax = 0.
    """
    import clarabel

    n, m = len(dense.names), dense.law.size
    g, lo, hi = dense.p.T
    middle = np.clip(0.0, lo, hi)
    least, most = g * (lo - middle), g * (hi - middle)
    P = sparse.block_diag([dense.laplacian, sparse.diags(g), sparse.csc_matrix((2 * m, 2 * m))], format="csc")
    cost = np.concatenate(
        [-dense.injected, np.zeros(m), np.where(np.isfinite(most), most, 0), np.where(np.isfinite(least), -least, 0)]
    )
    eye, none = np.eye(m), np.zeros((m, m))
    equal = [np.hstack([dense.V, np.zeros((len(dense.e), 3 * m))]), np.hstack([dense.N, -eye, -eye, eye])]
    below = [
        np.hstack([dense.D, np.zeros((len(dense.vf), 3 * m))]),
        np.hstack([np.zeros((m, n)), none, -eye, none]),
        np.hstack([np.zeros((m, n)), none, none, -eye]),
        np.hstack([np.zeros((m, n)), -eye, none, none])[least == 0],
        np.hstack([np.zeros((m, n)), eye, none, none])[most == 0],
        np.hstack([np.zeros((m, n)), none, eye, none])[np.isinf(most)],
        np.hstack([np.zeros((m, n)), none, none, eye])[np.isinf(least)],
    ]
    rows = np.vstack([*equal, *below])
    n_equal = len(dense.e) + m
    sides = np.concatenate([dense.e, middle, dense.vf, np.zeros(rows.shape[0] - n_equal - len(dense.vf))])
    cones = [clarabel.ZeroConeT(n_equal), clarabel.NonnegativeConeT(rows.shape[0] - n_equal)]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    P = sparse.triu(P, format="csc")
    found = clarabel.DefaultSolver(P, cost, sparse.csc_matrix(rows), sides, cones, settings).solve()
    v, dual, slack = np.array(found.x)[:n], np.array(found.z), np.array(found.s)
    ideal = slice(n_equal, n_equal + len(dense.vf))
    largest = max(np.abs(dual).max(initial=0.0), 1e-300), max(np.abs(v).max(initial=0.0), 1e-300)
    return v, dual[ideal] / largest[0] > slack[ideal] / largest[1]


def augmented(dense: Dense) -> tuple[Floats, Bools]:
    """Voltages and conducting ideal diodes by Newton with exact line searches on the augmented Lagrangian."""
    basis, v = _plane(dense.V, dense.e)
    lam = np.zeros(dense.vf.size)
    rho = 10.0

    def out(v: Floats) -> tuple[Floats, Floats]:
        f, slope = dense.out(v)
        line = lam + rho * (dense.D @ v - dense.vf)
        return f + dense.D.T @ np.maximum(line, 0.0), slope + dense.D.T @ ((rho * (line > 0))[:, None] * dense.D)

    for _ in range(25):
        v = _newton(out, basis, v)
        new = np.maximum(lam + rho * (dense.D @ v - dense.vf), 0.0)
        still = np.abs(new - lam).max(initial=0.0) <= 1e-10 * np.abs(new).max(initial=0.0)
        lam = new
        if still:
            break
    return v, lam > 1e-9 * np.abs(lam).max(initial=0.0)


def finished(dense: Dense, v: Floats, on: Bools) -> Answer:
    """The equilibrium with these ideal diodes conducting, from voltages near it; NoReference unless they fit."""
    rows = np.vstack([dense.V, dense.D[on]])
    levels = np.concatenate([dense.e, dense.vf[on]])
    basis, start = _plane(rows, levels)
    v = _newton(dense.out, basis, start + basis @ (basis.T @ (v - start)))
    if not np.isfinite(v).all():
        raise NoReference("the reference overflowed")
    out, slope = dense.out(v)
    d, stiffness, modes = _modes(basis, slope)
    soft = stiffness <= _TRUSTED * max(stiffness.max(initial=0.0), 1e-300)
    moved = np.abs(basis @ (d[:, None] * modes[:, soft]))
    trusted = (moved <= 1e-7 * np.maximum(moved.max(axis=0, initial=0.0), 1e-300)).all(axis=1)
    scale = max(np.abs(v[trusted]).max(initial=0.0), 1e-9)  # what nothing holds may be anywhere
    if (np.abs(rows @ v - levels) > 1e-9 * max(np.abs(levels).max(initial=0.0), 1e-9)).any():
        raise NoReference("the reference lost the digits of its sources")
    if (dense.D @ v - dense.vf > 1e-8 * scale).any():
        raise NoReference("an ideal diode that is off is beyond its forward voltage")
    within = np.vstack([dense.V, -dense.V, dense.D[on]]).T
    size = _sizes(dense, v)
    weight = 1.0 / np.maximum(size, 1e-7 * max(size.max(initial=0.0), 1e-9))
    if within.shape[1]:
        _, misfit = optimize.nnls(weight[:, None] * within, -weight * out, maxiter=1000 + 30 * within.shape[1])
    else:
        misfit = float(np.linalg.norm(weight * out))
    if misfit > 1e-6:
        raise NoReference(f"the reference's own KCL fails by {misfit:.2g}")
    if (fails := out_of_groups(dense, v, rows).max(initial=0.0)) > 1e-6:
        raise NoReference(f"the reference's own KCL fails by {fails:.2g}")
    return Answer(v, trusted)


def out_of_groups(dense: Dense, v: Floats, rows: Floats) -> Floats:
    """Net current out of each node's group, tied by these rows, relative to the absolute ones, (n,); 0: known.

    Where these are small, relative to a million times what the rounding of the voltages makes of them.
    """
    basis, _ = _plane(rows, rows @ v)
    member = (basis != 0).astype(float)
    net = np.abs(member.T @ dense.out(v)[0])
    size = sum(np.abs(A @ member).T @ np.abs(i) for A, i in _currents(dense, v))
    slopes = (dense.R, dense.g), (dense.N, dense.legs_current(dense.N @ v)[1])
    noise = sum(np.abs(A @ member).T @ (g * (np.abs(A) @ np.abs(v))) for A, g in slopes)
    return np.asarray(member @ (net / np.maximum(size, 64e6 * _EPS * noise + 1e-30)))


def _sizes(dense: Dense, v: Floats) -> Floats:
    """Sums of absolute currents at the nodes, ties and ideal diodes left out."""
    return np.asarray(sum(np.abs(A).T @ np.abs(i) for A, i in _currents(dense, v)))


def _currents(dense: Dense, v: Floats) -> list[tuple[Floats, Floats]]:
    """Incidences and currents of resistors, current sources and legs."""
    i, _ = dense.legs_current(dense.N @ v)
    return [(dense.R, dense.g * (dense.R @ v)), (dense.I, dense.i), (dense.N, i)]


def _plane(rows: Floats, levels: Floats) -> tuple[Floats, Floats]:
    """The solutions of rows v = levels, rows an incidence matrix: a basis of their differences, and one of them.

    The basis moves the nodes of each tied group together; those tied to ground do not move.
    """
    n = rows.shape[1]
    ends = np.hstack([rows, -rows.sum(axis=1, keepdims=True)])
    _, group = csgraph.connected_components(sparse.csr_array(abs(ends).T @ abs(ends)), directed=False)
    basis = (group[:n, None] == np.setdiff1d(group[:n], group[n])).astype(float)
    if not rows.shape[0]:
        return basis, np.zeros(n)
    v = np.linalg.lstsq(rows, levels, rcond=1e-10)[0]
    if np.abs(rows @ v - levels).max() > 1e-8 * max(np.abs(levels).max(), 1e-9):
        raise NoReference("the sources contradict each other")
    return basis / np.sqrt(basis.sum(axis=0)), v


def _modes(basis: Floats, slope: Floats) -> tuple[Floats, Floats, Floats]:
    """The Hessian on the basis with a diagonal of about 1: the scale d, its eigenvalues and eigenvectors."""
    d = 1.0 / np.sqrt(np.maximum((basis**2).T @ np.diag(slope), 1e-300))
    stiffness, modes = np.linalg.eigh(d[:, None] * (basis.T @ slope @ basis) * d)
    return d, stiffness, modes


def _newton(out, basis: Floats, v: Floats) -> Floats:  # type: ignore[no-untyped-def]
    """Minimise the potential with gradient `out` on the plane v + span(basis)."""
    if not basis.shape[1]:
        return v
    small = 0
    for _ in range(100):
        f, slope = out(v)
        d, stiffness, modes = _modes(basis, slope)
        floor = _NOTHING * max(stiffness.max(initial=0.0), 1e-300)
        inverse = np.where(stiffness > floor, 1.0 / np.maximum(stiffness, floor), 0.0)
        step = -basis @ (d * (modes @ (inverse * (modes.T @ (d * (basis.T @ f))))))
        low, high = 0.0, 1.0
        if out(v + step)[0] @ step > 0:
            for _ in range(40):
                middle = 0.5 * (low + high)
                low, high = (low, middle) if out(v + middle * step)[0] @ step > 0 else (middle, high)
        v = v + high * step
        small = small + 1 if np.abs(high * step).max() <= 1e-12 * max(np.abs(v).max(), 1e-9) else 0
        if small >= 2:
            break
    return v


# -- circuits with controlled sources ----------------------------------------------------------------------------------


def piecewise_solvable(dense: Dense, volts: float = 1e4, amperes: float = 10.0, seconds: float = 20.0) -> bool | None:
    """Whether a circuit of piecewise-linear parts has a solution within +-volts and +-amperes; None: not known.

    A mixed-integer feasibility problem: which segment each law is on, and whether each ideal diode conducts. Unknowns
    are v, the currents (mA) of ties, controlled sources and ideal diodes, and y = clip(w, lo, hi) of each segment.
    """
    if (dense.law != 2).any():
        return None
    n, m, most = len(dense.names), dense.law.size, 2.0 * volts
    groups = {"v": n, "tie": len(dense.ties), "ctl": len(dense.controlled), "ideal": len(dense.ideals)}
    groups |= {"on": groups["ideal"], "y": m, "low": m, "high": m}
    at = dict(zip(groups, np.cumsum([0, *groups.values()]), strict=False))
    size = sum(groups.values())
    rows: list[Floats] = []
    limits: list[tuple[float, float]] = []

    def require(least: float, greatest: float, *terms: tuple[str, int | slice, float | Floats]) -> None:
        row = np.zeros(size)
        for name, which, factor in terms:
            columns = slice(at[name], at[name] + groups[name]) if isinstance(which, slice) else at[name] + which
            row[columns] += factor
        rows.append(row)
        limits.append((least, greatest))

    every, g, lo, hi = slice(None), *(dense.p.T if m else np.zeros((3, 0)))
    middle, ends = np.clip(0.0, lo, hi), dense.incidence(dense.controlled)
    for k in range(n):
        into = 1e3 * (dense.injected[k] + float(g * middle @ dense.N[:, k]))
        sums = [("tie", every, dense.V[:, k]), ("ctl", every, ends[:, k]), ("ideal", every, dense.D[:, k])]
        require(into, into, ("v", every, 1e3 * dense.laplacian[k]), ("y", every, 1e3 * g * dense.N[:, k]), *sums)
    for k in range(groups["tie"]):
        require(dense.e[k], dense.e[k], ("v", every, dense.V[k]))
    names = [tie.part for tie in dense.ties]
    for k, part in enumerate(dense.controlled):
        own: tuple[str, int | slice, float | Floats] = ("v", every, ends[k]) if part.kind in "EH" else ("ctl", k, 1.0)
        by = "v" if part.kind in "EG" else "tie"
        of = every if by == "v" else names.index(part.control[0])
        weight = dense.rows([(part.control[0], part.control[1])])[0] if by == "v" else 1.0
        unit = {"E": 1.0, "F": 1.0, "G": 1e3, "H": 1e-3}[part.kind]
        require(0.0, 0.0, own, (by, of, -part.value * unit * weight))
    for k, vf in enumerate(dense.vf.tolist()):
        require(-np.inf, vf, ("v", every, dense.D[k]))
        require(-np.inf, 0.0, ("ideal", k, 1.0), ("on", k, -1e3 * amperes))
        require(vf - most, np.inf, ("v", every, dense.D[k]), ("on", k, -most))
    for k in range(m):
        for side, limit, sign in (("low", lo[k], 1.0), ("high", hi[k], -1.0)):
            if not np.isfinite(limit):  # then y does not leave w on this side
                require(-np.inf, 0.0, ("y", k, sign), ("v", every, -sign * dense.N[k]))
                continue
            require(sign * limit, np.inf, ("y", k, sign))
            require(-np.inf, sign * limit + most, ("y", k, sign), (side, k, most))
            require(-np.inf, 0.0, ("y", k, sign), ("v", every, -sign * dense.N[k]), (side, k, -most))
    bound = np.full(size, np.inf)
    whole = np.zeros(size)
    for name, limit in (("v", volts), ("tie", 1e3 * amperes), ("ctl", 1e3 * amperes)):
        bound[at[name] : at[name] + groups[name]] = limit
    least = -bound
    for name in ("ideal", "on", "low", "high"):
        chosen = slice(at[name], at[name] + groups[name])
        least[chosen] = 0.0
        if name != "ideal":
            bound[chosen] = whole[chosen] = 1.0
    below, above = np.array(limits).T
    found = optimize.milp(
        np.zeros(size), constraints=optimize.LinearConstraint(np.array(rows), below, above),
        bounds=optimize.Bounds(least, bound), integrality=whole, options={"time_limit": seconds},
    )  # fmt: skip
    return {0: True, 2: False}.get(found.status)


def linear_answer(dense: Dense) -> Answer | None:
    """Modified nodal analysis of a circuit without diodes, exactly; None: it has no solution. Raises NoReference."""
    n, t, s = len(dense.names), len(dense.ties), len(dense.controlled)
    A, sides = np.zeros((n + t + s, n + t + s)), np.zeros(n + t + s)
    A[:n, :n], sides[:n] = dense.laplacian, dense.injected
    A[:n, n : n + t], A[n : n + t, :n], sides[n : n + t] = dense.V.T, dense.V, dense.e
    A[:n, n + t :] = dense.incidence(dense.controlled).T
    names = [tie.part for tie in dense.ties]
    for k, part in enumerate(dense.controlled):
        row = n + t + k
        if part.kind in "EH":
            A[row, :n] += dense.rows([(part.a, part.b)])[0]
        else:
            A[row, row] = 1.0
        if part.kind in "EG":
            A[row, :n] -= part.value * dense.rows([(part.control[0], part.control[1])])[0]
        else:
            A[row, n + names.index(part.control[0])] -= part.value
    exact = _exactly(A, sides)
    live = np.abs(A).max(axis=1) > 0
    row = 1.0 / np.maximum(np.abs(A).max(axis=1), 1e-300)
    col = 1.0 / np.maximum(np.abs(row[:, None] * A).max(axis=0), 1e-300)
    scaled = row[:, None] * A * col
    u, size, vt = np.linalg.svd(scaled)
    kept = size > 1e-11 * size.max()
    if ((size > _NOTHING * size.max()) & ~kept).any() or (exact is not None and exact[1].sum() > kept.sum()):
        raise NoReference("nearly singular")
    if exact is not None:
        return Answer(exact[0][:n], exact[2][:n])
    if (sides[~live] != 0).any():
        return None
    y = vt[kept].T @ ((u[:, kept].T @ (row * sides)) / size[kept])
    miss = scaled @ y - row * sides
    if np.abs(miss).max() > 1e-9 * max(np.abs(row * sides).max(), 1e-300):
        return None  # else contradictions are no more than rounding in the deck
    x = col * y
    return Answer(x[:n], (np.abs(vt[~kept][:, :n]) <= 1e-9).all(axis=0))


def _exactly(A: Floats, sides: Floats) -> tuple[Floats, Bools, Bools] | None:
    """A solution of A x = sides in rational arithmetic, which unknowns are pivots, and which are unique; None: none."""
    rows = [[Fraction(x) for x in (*line, side)] for line, side in zip(A.tolist(), sides.tolist(), strict=True)]
    n = A.shape[1]
    pivots: list[int] = []
    for k in range(n):
        at = len(pivots)
        found = next((r for r in range(at, len(rows)) if rows[r][k]), None)
        if found is None:
            continue
        rows[at], rows[found] = rows[found], rows[at]
        lead = rows[at][k]
        rows[at] = [x / lead for x in rows[at]]
        for r, line in enumerate(rows):
            if r != at and line[k]:
                rows[r] = [x - line[k] * y for x, y in zip(line, rows[at], strict=True)]
        pivots.append(k)
    if any(line[n] for line in rows[len(pivots) :]):
        return None
    x, is_pivot, unique = np.zeros(n), np.zeros(n, bool), np.zeros(n, bool)
    for k, line in zip(pivots, rows, strict=False):
        x[k], is_pivot[k] = float(line[n]), True
        unique[k] = sum(1 for y in line[:n] if y) == 1
    return x, is_pivot, unique
