"""Gradients of a cost at the equilibrium of any circuit: pure functions over a Problem.

The cost of one row of the batch is C = 1/2 sum_k (y_k - target_k)^2 over the output nodes, V^2; that of a batch is the
mean. Nudging is a change of the circuit: E + beta C has a conductance beta (S) from every output node to a source of
its target's voltage. With v1 and v2 the equilibria at the nudges beta1 and beta2,

    dC/dtheta = (dE/dtheta(v1) - dE/dtheta(v2)) / (beta1 - beta2),        beta1, beta2 -> 0

(B. Scellier and Y. Bengio 2017; beta1 = -beta2, centred: A. Laborieux et al. 2021). E is quadratic in the voltages, so
that all that is needed of the two states are two fields on the nodes:

    delta = (v1 - v2) / (beta1 - beta2),  dimension 1/S,      total = v1 + v2,  V;
    conductance from a to b:      dE/dg = 1/2 (va - vb)^2     dC/dg = 1/2 (delta_a - delta_b) (total_a - total_b)
    current source from a to b:   dE/di = va - vb             dC/di = delta_a - delta_b
    voltage source, va - vb = e:  dE/de = current out of the nodes that move with a

Two other methods give fields of the same kind. The implicit gradient solves J delta = -dC/dv, with J the conductances
of the circuit linearised at its equilibrium (units that an ideal diode holds left out), total = 2 v: the limit of
nudging. Back-propagation through the last T sweeps gives a pair for each step of each colour block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

from circuitsim import Problem, Settings, SettingsError
from circuitsim.backends.base import Backend, Engine
from circuitsim.circuit import KINDS
from circuitsim.laws import branch_current
from circuitsim.methods.bcd import solve_tile
from circuitsim.problem import Drive
from circuitsim.residual import outflow, shift, violation
from training.learner import LearningError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

VARIANTS = {"centred": (1.0, -1.0), "positive": (1.0, 0.0), "negative": (0.0, -1.0)}  # nudges in units of beta
_DENSE = 6000  # unknowns up to which positive definiteness is decided by a dense factorisation
_MOST_SWEEPS = 100_000
_STEPS_BETWEEN_CHECKS = 32


@dataclass(frozen=True)
class Phase:
    """How a phase is relaxed: a number of sweeps, or until the residual is below a tolerance."""

    sweeps: int
    tol: float | None = None
    dtype: str = "float64"


@dataclass(frozen=True)
class Outputs:
    """The nodes that are read and nudged."""

    nodes: Ints  # (k,)
    units: Ints  # (k,) free unit of each

    def voltages(self, problem: Problem, drive: Drive, x: Floats) -> Floats:
        """(rows, k) V."""
        return problem.node_voltages(x, drive.fixed, self.nodes)

    def onto_units(self, values: Floats, n_free: int) -> Floats:
        """Sums of values (rows, k) at the free units, (rows, n_free)."""
        out = np.zeros((values.shape[0], n_free))
        np.add.at(out.T, self.units, values.T)
        return out


@dataclass(frozen=True)
class Fields:
    """What a gradient needs of the states; (rows, ...), `samples` of them on average: back-propagation has many rows
    a sample."""

    delta: Floats  # (rows, n_nodes) 1/S, 0 at known nodes
    total: Floats  # (rows, n_nodes) V
    secants: Floats  # (rows, n_junctions) S: current difference over voltage difference of each nonlinear branch
    pull: Floats  # (rows, k) V: the direct derivative of C by the output nodes' voltages
    samples: int


def find_outputs(problem: Problem) -> Outputs:
    """The `.output` nodes. SettingsError when there are none, or when a source holds one of them."""
    netlist = problem.circuit.netlist
    nodes = np.array(netlist.outputs, np.int64)
    if not nodes.size:
        raise SettingsError(f"{netlist.path} has no outputs; add `.output` with the nodes that are read")
    units = problem.topology.index_of_node[nodes]
    if (units < 0).any():
        name = netlist.nodes[int(nodes[units < 0][0])]
        raise SettingsError(f"output node {name} is held by a voltage source: nothing can teach it; read another node")
    return Outputs(nodes, units)


def nudges(variant: str, beta: float) -> tuple[float, float]:
    """beta1 and beta2 of a variant, S."""
    first, second = VARIANTS[variant]
    return first * beta, second * beta


# -- phases ------------------------------------------------------------------------------------------------------------


def free_phase(problem: Problem, drive: Drive, x: Floats, phase: Phase, backend: Backend) -> Floats:
    """The state that a free phase reaches from x, (rows, n_free) V."""
    engine = backend.engine(problem, phase.dtype)
    if phase.tol is not None:
        outcome = solve_tile(problem, drive, engine, Settings(dtype=phase.dtype, tol=phase.tol), x)
        return outcome.x if outcome.low is None else outcome.x + outcome.low
    engine.start(drive, x)
    engine.sweep(phase.sweeps)
    return engine.voltages()


def nudged(
    problem: Problem, drive: Drive, outputs: Outputs, targets: Floats, beta: float, y: Floats
) -> tuple[Problem, Drive]:
    """The circuit of E + beta C, for unknowns that are corrections to a state in which the outputs are at y."""
    v = problem.values
    count = np.bincount(outputs.units, minlength=problem.n_free)
    values = replace(v, diag=v.diag + beta * count, to_fixed=v.to_fixed + beta * count)
    pull = outputs.onto_units(beta * (targets - y), problem.n_free)
    return replace(problem, values=values), replace(drive, injection=drive.injection + pull)


def nudged_correction(
    problem: Problem,
    base: Drive,
    outputs: Outputs,
    targets: Floats,
    beta: float,
    y: Floats,
    phase: Phase,
    backend: Backend,
) -> Floats:
    """What a phase nudged by beta adds to the free state that `base` is shifted to, (rows, n_free) V.

    Relaxed as a correction, so that it keeps its own digits, however small it is beside the free state.
    """
    check_nudge(problem, outputs, beta)
    nudged_problem, drive = nudged(problem, base, outputs, targets, beta, y)
    engine = backend.engine(nudged_problem, phase.dtype)
    zero = np.zeros((y.shape[0], problem.n_free))
    engine.start(drive, zero)
    if phase.tol is None:
        engine.sweep(phase.sweeps)
        return engine.voltages()
    scale = max(abs(beta), np.finfo(float).tiny) * np.abs(targets - y).sum(axis=1)
    return _relax(nudged_problem, drive, engine, phase.tol, scale)


def _relax(problem: Problem, drive: Drive, engine: Engine, tol: float, scale: Floats) -> Floats:
    """Sweep until no KCL violation is above tol x scale (rows,) A, or rounding lets nothing move."""
    sweeps, count = 0, 2
    while sweeps < _MOST_SWEEPS:
        moved = engine.sweep(count)
        sweeps += count
        count = max(2, sweeps // 8)
        x = engine.voltages()
        flow, slope = outflow(problem, drive, x)
        rho = violation(flow, slope, x, drive.lo, drive.hi)
        if not moved or (np.abs(rho).max(axis=1, initial=0.0) <= tol * scale).all():
            return x
    raise LearningError(f"a nudged phase does not come to rest in {_MOST_SWEEPS} sweeps; loosen tol, or fix the sweeps")


def ep_fields(
    problem: Problem,
    drive: Drive,
    x: Floats,
    outputs: Outputs,
    targets: Floats,
    betas: tuple[float, float],
    phase: Phase,
    backend: Backend,
) -> tuple[Fields, Floats]:
    """Fields of equilibrium propagation from the free state x; also the state at the first nudge.

    With a nudge of 0 the free phase goes on for as many sweeps, so that both states have relaxed equally long.
    """
    y = outputs.voltages(problem, drive, x)
    base = shift(problem, drive, x)
    first, second = (nudged_correction(problem, base, outputs, targets, beta, y, phase, backend) for beta in betas)
    gap = betas[0] - betas[1]
    t = problem.topology
    nodes = np.arange(t.index_of_node.size)
    no_offset = np.zeros((1, drive.fixed.shape[1]))
    delta = problem.node_voltages((first - second) / gap, no_offset, nodes)
    free = problem.node_voltages(x, drive.fixed, nodes)
    total = 2 * free + problem.node_voltages(first + second, no_offset, nodes)
    y1, y2 = (outputs.voltages(problem, drive, x + c) for c in (first, second))
    pull = (betas[0] * (y1 - targets) - betas[1] * (y2 - targets)) / gap
    v1, v2 = (
        free + problem.node_voltages(first, no_offset, nodes),
        free + problem.node_voltages(second, no_offset, nodes),
    )
    return Fields(delta, total, _secants(problem, v1, v2), pull, x.shape[0]), x + first


def _secants(problem: Problem, v1: Floats, v2: Floats) -> Floats:
    """Current difference over voltage difference of the nonlinear branches between two states."""
    j = problem.circuit.junctions
    if not len(j):
        return np.zeros((v1.shape[0], 0))
    u1, u2 = v1[:, j.a] - v1[:, j.b], v2[:, j.a] - v2[:, j.b]
    i1, slope = branch_current(j.law, j.params, u1)
    i2, _ = branch_current(j.law, j.params, u2)
    gap = u1 - u2
    near = np.abs(gap) <= 1e-9 * np.maximum(np.abs(u1), np.abs(u2))
    return np.where(near, slope, (i1 - i2) / np.where(near, 1.0, gap))


# -- linearised circuits -----------------------------------------------------------------------------------------------


def couplings(problem: Problem) -> sparse.csr_array:
    """W of all linear branches between free units, dense blocks included, (n_free, n_free)."""
    t, v = problem.topology, problem.values
    rows, cols, data = [], [], []
    unit = np.arange(problem.n_free)
    for spec, g in zip(t.dense, v.dense, strict=True):
        if spec.row.units is not None and spec.col.units is not None:
            i, j = np.nonzero(g)
            a, b = unit[spec.row.units][i], unit[spec.col.units][j]
            rows += [a, b]
            cols += [b, a]
            data += [g[i, j], g[i, j]]
    w = v.couplings
    if not rows:
        return w
    entries = (np.concatenate(data), (np.concatenate(rows), np.concatenate(cols)))
    return w + sparse.csr_array(entries, shape=w.shape)


def _junction_slopes(problem: Problem, drive: Drive, x: Floats) -> Floats:
    """di/dv of the nonlinear branches with a free end, (rows, n)."""
    t, j = problem.topology, problem.circuit.junctions
    if not t.junctions.size:
        return np.zeros((x.shape[0], 0))
    padded = np.concatenate([x, np.zeros((x.shape[0], 1))], axis=1)
    v = padded[:, t.junction_a] - padded[:, t.junction_k] + drive.junction_offset
    return branch_current(j.law[t.junctions], j.params[t.junctions], v)[1]


def _linearised(problem: Problem, w: sparse.csr_array, slopes: Floats) -> tuple[Floats, sparse.csr_array]:
    """Diagonal and couplings of one row's circuit with its nonlinear branches (slopes, S) put in as conductances."""
    t = problem.topology
    n = problem.n_free
    diag = problem.values.diag.copy()
    for units in (t.junction_a, t.junction_k):
        has = units >= 0
        diag += np.bincount(units[has], slopes[has], n)
    both = (t.junction_a >= 0) & (t.junction_k >= 0)
    if both.any():
        a, k = t.junction_a[both], t.junction_k[both]
        entries = (np.tile(slopes[both], 2), (np.concatenate([a, k]), np.concatenate([k, a])))
        w = w + sparse.csr_array(entries, shape=(n, n))
    return diag, w


def implicit_fields(problem: Problem, drive: Drive, x: Floats, outputs: Outputs, targets: Floats) -> Fields:
    """Fields of the implicit gradient at the equilibrium x; exact when x is."""
    pull = outputs.voltages(problem, drive, x) - targets
    wanted = outputs.onto_units(pull, problem.n_free)
    slopes = _junction_slopes(problem, drive, x)
    w = couplings(problem)
    free = np.broadcast_to((x > drive.lo) & (x < drive.hi), x.shape)
    delta = np.zeros_like(x)
    for row in range(x.shape[0]):
        diag, near = _linearised(problem, w, slopes[row])
        units = np.flatnonzero(free[row] & (diag > 0))
        j = (sparse.diags_array(diag) - near).tocsc()[units][:, units]
        delta[row, units] = linalg.splu(j).solve(-wanted[row, units]) if units.size else 0.0
    return _fields(problem, drive, x, delta, pull, x.shape[0])


def _fields(problem: Problem, drive: Drive, x: Floats, delta: Floats, pull: Floats, samples: int) -> Fields:
    """Fields of a linearisation at x."""
    nodes = np.arange(problem.topology.index_of_node.size)
    v = problem.node_voltages(x, drive.fixed, nodes)
    none = np.zeros((1, drive.fixed.shape[1]))
    return Fields(problem.node_voltages(delta, none, nodes), 2 * v, _secants(problem, v, v), pull, samples)


def bp_fields(
    problem: Problem,
    drive: Drive,
    x: Floats,
    outputs: Outputs,
    targets: Floats,
    sweeps: int,
    dtype: str,
    backend: Backend,
) -> tuple[list[Fields], Floats]:
    """Fields of back-propagation through `sweeps` sweeps that start from x, a pair for each block step; the end state.

    The block step x_u = clip((sum g x_w + i) / a_u) has dx_u = (sum g dx_w + sum (x_w - x_u) dg) / a_u, and 0 at a
    bound. With lambda_u = dC/dx_u the steps, taken backwards, give mu_u = lambda_u / a_u, lambda_w += g mu_u.
    """
    t = problem.topology
    states = list(_trajectory(problem, drive, x, sweeps, dtype, backend))
    pull = outputs.voltages(problem, drive, states[-1]) - targets
    lam = outputs.onto_units(pull, problem.n_free)
    w = couplings(problem)
    found = []
    for k in range(sweeps, 0, -1):
        for c in range(t.n_colors - 1, -1, -1):
            block = slice(int(t.color_ptr[c]), int(t.color_ptr[c + 1]))
            at = np.concatenate([states[k][:, : block.stop], states[k - 1][:, block.stop :]], axis=1)
            mu = np.zeros_like(lam)
            inside = np.broadcast_to((at > drive.lo) & (at < drive.hi), at.shape)[:, block]
            slopes = _junction_slopes(problem, drive, at)
            diag = np.empty_like(at)
            for row in range(at.shape[0]):
                diag[row], near = _linearised(problem, w, slopes[row])
                a = diag[row, block]
                mu[row, block] = np.where(inside[row] & (a > 0), lam[row, block], 0.0) / np.where(a > 0, a, 1.0)
                lam[row, block] = 0.0
                lam[row] += near @ mu[row]
            direct = pull if (k, c) == (sweeps, t.n_colors - 1) else np.zeros_like(pull)
            found.append(_fields(problem, drive, at, -mu, direct, x.shape[0]))
    return found, states[-1]


def _trajectory(
    problem: Problem, drive: Drive, x: Floats, sweeps: int, dtype: str, backend: Backend
) -> Iterator[Floats]:
    """x, and the state after each sweep."""
    engine = backend.engine(problem, dtype)
    engine.start(drive, x)
    yield engine.voltages()
    for _ in range(sweeps):
        engine.sweep(1)
        yield engine.voltages()


# -- gradients ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A trained element: where its values are. `where` are rows of the conductors, the ties or the current sources."""

    name: str
    kind: str  # crossbar, R, V, I
    where: Ints  # a crossbar: its number

    @property
    def is_conductance(self) -> bool:
        return self.kind in ("crossbar", "R")


def trained_elements(problem: Problem) -> list[Trained]:
    """The elements of `.train`, in its order. SettingsError for those that no gradient reaches."""
    c = problem.circuit
    names = c.netlist.trained
    if not names:
        raise SettingsError(f"{c.netlist.path} has nothing to train; add `.train` with the elements that learn")
    found = []
    for name in names:
        crossbars = [k for k, x in enumerate(c.crossbars) if x.name.lower() == name.lower()]
        if crossbars:
            found.append(Trained(name, "crossbar", np.array(crossbars)))
            continue
        kind, start, stop = c.rows_of(name)
        branches = {"R": c.conductors, "V": c.ties, "I": c.current_sources}[kind]
        rows = np.flatnonzero((branches.kind == KINDS.index(kind)) & (branches.row >= start) & (branches.row < stop))
        if rows.size != stop - start:
            raise SettingsError(
                f"{name}: a resistor of 0 ohm cannot learn; give it a resistance, or leave it out of .train"
            )
        found.append(Trained(name, kind, rows))
        if kind == "V":
            _check_no_diode_hangs(problem, name, _moved_by(problem, rows))
    return found


def gradient(problem: Problem, trained: Sequence[Trained], outputs: Outputs, fields: Fields) -> list[Floats]:
    """dC/dtheta of each trained element, shaped as its values; mean over the batch. (V^2/S, V^2/A, V)"""
    c = problem.circuit
    d, s = fields.delta, fields.total
    found = []
    for element in trained:
        if element.kind == "crossbar":
            x = c.crossbars[int(element.where[0])]
            value = crossbar_gradient(d[:, x.rows], d[:, x.cols], s[:, x.rows], s[:, x.cols])
        elif element.kind == "R":
            a, b = c.conductors.a[element.where], c.conductors.b[element.where]
            value = 0.5 * ((d[:, a] - d[:, b]) * (s[:, a] - s[:, b])).sum(axis=0)
        elif element.kind == "I":
            a, b = c.current_sources.a[element.where], c.current_sources.b[element.where]
            value = (d[:, a] - d[:, b]).sum(axis=0)
        else:
            nodes, moves = _moved_by(problem, element.where)
            value = moves @ _out_of_nodes(problem, outputs, fields).sum(axis=0)[nodes]
        found.append(value / fields.samples)
    return found


def crossbar_gradient(delta_row: Floats, delta_col: Floats, total_row: Floats, total_col: Floats) -> Floats:
    """Sum over the rows of the batch of 1/2 (delta_a - delta_b) (total_a - total_b), (nr, nc)."""
    if not delta_row.any():  # known rows: a product of matrices
        return -_known_rows(delta_col, total_row, total_col)
    out = np.zeros((delta_row.shape[1], delta_col.shape[1]), delta_col.dtype)
    for da, db, sa, sb in zip(delta_row, delta_col, total_row, total_col, strict=True):
        out += (da[:, None] - db) * (sa[:, None] - sb)
    return 0.5 * out


def _known_rows(delta_col: Floats, total_row: Floats, total_col: Floats) -> Floats:
    """Sum over the batch of 1/2 delta_b (total_a - total_b), (nr, nc)."""
    return 0.5 * (total_row.T @ delta_col - (delta_col * total_col).sum(axis=0))


def _moved_by(problem: Problem, ties: Ints) -> tuple[Ints, Floats]:
    """The tied nodes, and by how much each moves for 1 V more of each of these sources, (sources, nodes)."""
    forest = problem.topology.forest
    e = np.zeros((ties.size, len(problem.circuit.ties)))
    e[np.arange(ties.size), ties] = 1.0
    return forest.nodes, forest.offsets(e)


def _check_no_diode_hangs(problem: Problem, name: str, moved: tuple[Ints, Floats]) -> None:
    """An ideal diode carries a current that no field here knows."""
    nodes, moves = moved
    c = problem.circuit
    hangs = np.isin(c.ideal_diodes.a, nodes[moves.any(axis=0)]) | np.isin(c.ideal_diodes.b, nodes[moves.any(axis=0)])
    if hangs.any():
        diode = c.element(c.ideal_diodes, int(np.flatnonzero(hangs)[0]))
        raise SettingsError(
            f"{name}: ideal diode {diode} hangs on this voltage source, which therefore cannot learn; give the diode's "
            "model a RON, or leave the source out of .train"
        )


def _out_of_nodes(problem: Problem, outputs: Outputs, fields: Fields) -> Floats:
    """What the field delta drives out of each node through all branches but ties, (rows, n_nodes); with dC/dv."""
    c, d = problem.circuit, fields.delta
    out = np.zeros((d.shape[1], d.shape[0]))
    for branches, g in ((c.conductors, c.conductors.g), (c.junctions, fields.secants)):
        if len(branches):
            current = (g * (d[:, branches.a] - d[:, branches.b])).T
            np.add.at(out, branches.a, current)
            np.subtract.at(out, branches.b, current)
    for x in c.crossbars:
        row, col = d[:, x.rows], d[:, x.cols]
        np.add.at(out, x.rows, (row * x.g.sum(axis=1) - col @ x.g.T).T)
        np.add.at(out, x.cols, (col * x.g.sum(axis=0) - row @ x.g).T)
    np.add.at(out, outputs.nodes, fields.pull.T)
    return out.T


# -- is the nudged problem convex? -------------------------------------------------------------------------------------


def check_nudge(problem: Problem, outputs: Outputs, beta: float) -> None:
    """A negative nudge must leave every output some conductance, or no step of it is defined. LearningError."""
    if beta >= 0:
        return
    count = np.bincount(outputs.units, minlength=problem.n_free)[outputs.units]
    left = problem.values.diag[outputs.units] + beta * count
    if (left <= 0).any():
        k = int(np.argmin(left))
        raise not_convex(
            problem.circuit.nodes[int(outputs.nodes[k])], float(problem.values.diag[outputs.units[k]]), beta
        )


def check_convex(problem: Problem, outputs: Outputs, beta: float) -> None:
    """E + beta C, beta < 0, is convex when the conductance matrix less |beta| at the outputs is positive definite.

    (Sufficient: nonlinear branches and ideal diodes only add to it.) LearningError when it is not.
    """
    if beta >= 0:
        return
    check_nudge(problem, outputs, beta)
    count = np.bincount(outputs.units, minlength=problem.n_free)
    matrix = sparse.diags_array(problem.values.diag + beta * count) - couplings(problem)
    if not positive_definite(matrix):
        raise not_convex("", np.nan, beta)


def not_convex(node: str, conductance: float, beta: float) -> LearningError:
    """The error that says so."""
    where = f": output {node} has a conductance of {conductance:.3g} S in all" if node else ""
    return LearningError(
        f"the problem nudged by {beta:g} S is not convex{where}; choose a smaller nudge, variant positive, or "
        "algorithm implicit or bp"
    )


def positive_definite(matrix: sparse.sparray) -> bool:
    """Whether a symmetric sparse matrix is positive definite, by its Cholesky or LDL' factors."""
    n = matrix.shape[0]
    if n <= _DENSE:
        try:
            np.linalg.cholesky(matrix.toarray())
        except np.linalg.LinAlgError:
            return False
        return True
    try:
        lu = linalg.splu(
            matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError:  # exactly singular
        return False
    return bool((lu.perm_r == lu.perm_c).all() and (lu.U.diagonal() > 0).all())
