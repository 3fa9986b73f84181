"""Whether a nudged problem is convex: a negative nudge takes conductance away from the outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

from circuitsim import Problem
from circuitsim.backends.arrange import conductance_matrix
from training.amplifiers import Energy
from training.gradient import Outputs
from training.learner import LearningError

Floats = NDArray[np.float64]

_DENSE = 6000  # unknowns up to which positive definiteness is decided by a dense factorisation
_FEW = 400  # unknowns up to which a dense matrix takes less time than a sparse one


def check_nudge(problem: Problem, outputs: Outputs, beta: float) -> None:
    """LearningError unless a negative nudge leaves every output some conductance: otherwise its step is undefined."""
    if beta >= 0:
        return
    units, nodes = (
        np.concatenate(ends) for ends in ((outputs.units, outputs.reference_units), (outputs.nodes, outputs.references))
    )
    units, nodes = units[units >= 0], nodes[units >= 0]
    left = (problem.values.diag + beta * outputs.ends(problem.n_free))[units]
    if (left <= 0).any():
        k = int(np.argmin(left))
        raise not_convex(problem.circuit.nodes[int(nodes[k])], float(problem.values.diag[units[k]]), beta)


def check_convex(
    problem: Problem, outputs: Outputs, beta: float, energy: Energy | None = None, doubts: bool = True
) -> None:
    """E + beta C, beta < 0, is convex when the conductance matrix less |beta| at the outputs is positive definite.

    (This is sufficient: nonlinear branches and ideal diodes only add to it.) LearningError when it is not; but without
    `doubts` not where diodes alone hold a part of the circuit, so that it may still be convex. Controlled sources
    need their energy.
    """
    if beta >= 0:
        return
    if energy is None:
        check_nudge(problem, outputs, beta)
    conductances = conductance_matrix(problem, _FEW)
    nudges = outputs.nudge_matrix(problem.n_free)

    def is_convex(nudge: float) -> bool:
        matrix = conductances + nudge * nudges
        return positive_definite(matrix if energy is None else energy.matrix(matrix))

    if is_convex(beta):
        return
    if is_convex(0.0):
        raise not_convex("", np.nan, beta)
    if doubts:
        raise LearningError(
            f"a nudge of {beta:g} S may leave no convex problem: diodes alone hold a part of the circuit; choose "
            "variant positive, or algorithm implicit"
        )


def not_convex(node: str, conductance: float, beta: float) -> LearningError:
    """The error for a nudged problem that is not convex; `node` is the output to name, or ''."""
    where = f": output {node} has a conductance of {conductance:.3g} S in all" if node else ""
    return LearningError(
        f"the problem nudged by {beta:g} S is not convex{where}; choose a smaller nudge, variant positive, or "
        "algorithm implicit"
    )


def positive_definite(matrix: sparse.sparray | Floats) -> bool:
    """Whether a symmetric matrix is positive definite, by its Cholesky factors; large sparse ones by LDL' factors."""
    if isinstance(matrix, np.ndarray) or matrix.shape[0] <= _DENSE:
        try:
            np.linalg.cholesky(matrix if isinstance(matrix, np.ndarray) else matrix.toarray())
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
