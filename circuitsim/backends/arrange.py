"""How engines arrange a problem before they sweep: dense couplings by colour, nonlinear branches by unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.problem import Problem

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pull:
    """current[target] += (matrix or its transpose) x[source], with target and source of different colours.

    `which` is a dense block of the problem (rows, columns); `transposed` where the target is its columns.
    """

    target: slice | Ints
    source: slice | Ints
    which: int
    transposed: bool


@dataclass(frozen=True)
class Junctions:
    """Ends of nonlinear branches at free units; unit u has the entries ptr[u]:ptr[u + 1]."""

    ptr: Ints  # (n_free + 1,)
    other: Ints  # (entries,) unit at the other end, -1: known
    sign: Floats  # (entries,) +1: the unit is the anode
    number: Ints  # (entries,) of the branch, a column of Drive.junction_offset
    law: NDArray[np.int8]  # (entries,)
    params: Floats  # (entries, N_PARAMS)


def pulls_by_color(problem: Problem) -> list[list[Pull]]:
    """The products that add the currents through dense blocks to each colour, (n_colors,) lists."""
    t = problem.topology
    unit = np.arange(problem.n_free)
    pulls: list[list[Pull]] = [[] for _ in range(t.n_colors)]
    for which, spec in enumerate(t.dense):
        row, col = spec.row.units, spec.col.units
        if row is None or col is None:
            continue
        for target, source, transposed in ((col, row, True), (row, col, False)):
            color = int(np.searchsorted(t.color_ptr, unit[target][0], side="right")) - 1
            pulls[color].append(Pull(target, source, which, transposed))
    return pulls


def dense_among_sparse(problem: Problem) -> sparse.csr_array:
    """All couplings between free units, (n_free, n_free), S: the sparse ones, and the dense ones entry by entry."""
    unit, found = np.arange(problem.n_free), problem.values.couplings
    for spec, g in problem.inner_blocks:
        row, col = unit[spec.row.units], unit[spec.col.units]
        at = np.repeat(row, col.size), np.tile(col, row.size)
        block = sparse.coo_array((g.ravel(), at), shape=found.shape)
        found = found + block.tocsr() + block.T.tocsr()
    return sparse.csr_array(found)


def conductance_matrix(problem: Problem, few: int) -> Floats | sparse.csr_array:
    """KCL of the linear branches at the free units, (n_free, n_free) S; an array for so few unknowns, else sparse.

    Sums of conductances on the diagonal, beside it the negative couplings.
    """
    if problem.n_free > few:
        return sparse.csr_array(sparse.diags_array(problem.values.diag) - dense_among_sparse(problem))
    matrix = np.diag(problem.values.diag) - problem.values.couplings.toarray()
    unit = np.arange(problem.n_free)
    for spec, g in problem.inner_blocks:
        at = np.ix_(unit[spec.row.units], unit[spec.col.units])
        matrix[at] -= g
        matrix.T[at] -= g
    return matrix


def junctions_by_unit(problem: Problem) -> Junctions:
    """The ends of nonlinear branches, sorted by the unit that they are at."""
    t = problem.topology
    units = np.concatenate([t.junction_a, t.junction_k])
    others = np.concatenate([t.junction_k, t.junction_a])
    number = np.tile(np.arange(t.junctions.size), 2)
    sign = np.repeat([1.0, -1.0], t.junctions.size)
    order = np.argsort(units, kind="stable")
    order = order[units[order] >= 0]
    ptr = np.searchsorted(units[order], np.arange(problem.n_free + 1))
    j = problem.circuit.junctions
    rows = t.junctions[number[order]]
    return Junctions(ptr, others[order], sign[order], number[order], j.law[rows], np.ascontiguousarray(j.params[rows]))
