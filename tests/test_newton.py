"""Parts of newton that whole circuits do not single out."""

from __future__ import annotations

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.gallery import wired_crossbar
from circuitsim.methods.networks import make_network
from circuitsim.methods.newton import _settled
from circuitsim.residual import Check
from validation.random_decks import random_deck

NONE = np.zeros(0)


def test_a_batch_is_settled_when_each_of_its_rows_is() -> None:
    """Rows at and around the solution, and what would move them: of one unit, or of all in both directions."""
    rng = np.random.default_rng(3)
    volts = rng.uniform(-1.0, 1.0, (3, 8)) * np.array([[1.0], [1e-6], [1e3]])
    problem = cs.compile_problem(cs.parse(wired_crossbar(8))).with_values({"Vx": volts})
    network = make_network(problem)
    x = cs.solve(problem).x
    size = np.abs(x).max(axis=1, keepdims=True)
    answers = set()
    for off in (0.0, 1e-12, 1e-10, 9e-10, 1.1e-9, 1e-6):
        for which in range(4):
            moved = size * off * rng.choice([-1.0, 1.0], x.shape)
            if which < 3:  # one row
                moved[np.arange(3) != which] = 0.0
            drive, at = problem.drive(slice(0, 3)), x + moved
            together = _settled(network, Check(problem, drive, at, exact=True), NONE)
            alone = [
                _settled(network, Check(problem, drive.part(slice(k, k + 1)), at[k : k + 1], exact=True), NONE)
                for k in range(3)
            ]
            assert together == all(alone) == (off < 1e-9)
            answers.add(together)
    assert answers == {True, False}
    zero = cs.compile_problem(cs.parse(wired_crossbar(8, volts=0.0))).with_values({"Vx": np.zeros((2, 8))})
    check = Check(zero, zero.drive(slice(0, 2)), np.zeros((2, zero.n_free)), exact=True)
    with np.errstate(invalid="ignore"):
        assert _settled(make_network(zero), check, NONE)


@pytest.mark.slow
def test_line_searches_that_lead_nowhere_end() -> None:
    """6e38 A through diodes that a source forces: nothing but multipliers moves, which took 100,000 steps."""
    solution = cs.solve(cs.parse(random_deck(3, 100716).text), raise_on_failure=False)
    assert solution.status is cs.Status.STALLED
    assert solution.steps < 1000


def test_matrices_without_a_structural_inverse_are_left_to_no_sparse_factorisation(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """SuperLU does not always notice: it wrote where it must not, and BLAS complained."""
    solution = cs.solve(cs.parse(random_deck(4, 20501).text), cs.Settings(max_sweeps=200), raise_on_failure=False)
    assert not solution.solved  # it has none
    assert capfd.readouterr() == ("", "")
