"""One row by newton: within its steps, its bounds and its numbers, whatever the ways that it tries do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from helpers import PRECISE

import circuitsim as cs
from circuitsim.methods import newton
from circuitsim.methods.continuation import _solution
from circuitsim.methods.interior import follow_inside
from circuitsim.methods.mna import make_network
from circuitsim.methods.network import Tangents
from circuitsim.methods.outcome import Outcome

CARDS = ["test", ".model i D(ron=0)", ".model s D(is=1e-14)", ".model p D(ron=1 vfwd=1)"]


def row(*cards: str, settings: cs.Settings = PRECISE) -> newton._Row:
    problem = cs.compile_problem(cs.parse("\n".join([*CARDS, *cards])))
    return newton._Row(make_network(problem), problem.drive(slice(0, 1)), settings)


def at(found: newton._Row, volts: float) -> Outcome:
    """The outcome with all units at one voltage, perfect diodes open."""
    net = found.network
    return found._outcome(np.full(net.size, volts), newton._tangents(net, np.zeros(net.ideal.size)))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_answer_is_beyond_a_bound(sign: float) -> None:
    """A diode about to conduct at the 0.5 V that a divider has there: not even by rounding is a voltage beyond."""
    diode = "D1 b h i" if sign > 0 else "D1 h b i"
    found = row(f"V0 h 0 {0.5 * sign}", diode, f"V1 in 0 {sign}", "R1 in b 1k", "R2 b 0 1k")
    outcome = at(found, sign * (0.5 + 1e-13))
    assert outcome.status is cs.Status.SOLVED
    assert outcome.x[0, 0] == 0.5 * sign


def test_a_way_has_the_steps_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1000 steps 40 were taken: 960 are left, or 60 where there is a solution that is not sure."""
    given: list[int] = []

    def way(*arguments: object) -> Iterator[tuple[int, Outcome | None]]:
        given.append(int(str(arguments[-1])))
        yield 5, None

    monkeypatch.setattr(newton, "minimise", way)
    found = row("V1 in 0 1", "R1 in a 1k", "D1 a 0 s", settings=cs.Settings(max_sweeps=1000))
    found.steps, start = 40, np.zeros(found.network.size)
    tangents = newton._tangents(found.network, np.zeros(1))
    assert found._sure_ways(start, tangents, False) is None
    found.unsure = at(found, 0.0)
    assert found._sure_ways(start, tangents, False) is None
    assert given == [960, 60]
    assert found.steps == 50


def test_a_solution_that_is_not_sure_is_better_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = row("V1 in 0 1", "R1 in a 1k", "R2 a 0 1k")
    solved = at(found, 0.5)
    unsure, stalled = replace(solved, sure=False), solved.ended(cs.Status.STALLED, 3)
    monkeypatch.setattr(found, "_search", lambda *_: stalled)
    assert found.solve(np.zeros(1), None) is stalled
    found.unsure = unsure
    assert found.solve(np.zeros(1), None) is unsure
    monkeypatch.setattr(found, "_search", lambda *_: solved)
    assert found.solve(np.zeros(1), None) is solved


def test_steps_that_overflow_are_told_from_those_that_lead_nowhere() -> None:
    found = row("V1 in 0 1", "R1 in a 1k", "R2 a 0 1k", settings=cs.Settings(max_sweeps=10))
    outcome = at(found, 0.5)
    assert found._given_up(outcome).status is cs.Status.STALLED
    assert found._given_up(replace(outcome, x=np.array([[np.inf]]))).status is cs.Status.NONFINITE
    found.steps = 10
    assert found._given_up(outcome).status is cs.Status.MAX_SWEEPS


def test_damped_steps_leave_no_damping_behind() -> None:
    """Nor a trace of it in the answer: 1 V over 1 kohm and a diode, by its law."""
    found = row("V1 in 0 1", "R1 in a 1k", "D1 a 0 s")
    outcome = found._damped_steps(np.zeros(1), newton._tangents(found.network, np.zeros(1)))
    assert outcome.status is cs.Status.SOLVED
    assert found.network.damping == 0.0
    volts = float(outcome.x[0, 0])
    assert 1e-14 * np.expm1(volts / 0.025864918) == pytest.approx((1.0 - volts) / 1e3, rel=1e-4)


@pytest.mark.parametrize(("diode", "most"), [("p", 80), ("i", 40)])
def test_interior_points_end_where_nothing_more_comes_to_light(diode: str, most: int) -> None:
    """Whatever is asked fails: each guess is asked a few times, and with perfect diodes the steps end early."""
    found, asked = row("V1 in 0 3", "R1 in a 1k", f"D1 a b {diode}", "R2 b 0 1k", f"D2 0 a {diode}"), []

    def never(_: object, tangents: Tangents) -> None:
        asked.append(tangents)

    taken = list(follow_inside(found.network, found.drive, found.offset, never, 10**6))
    assert [step for step, _ in taken] == list(range(1, len(taken) + 1))
    assert len(taken) <= most
    assert 1 <= len(asked) <= 12


def test_a_step_on_a_curve_is_the_shortest_where_currents_are_open_and_none_where_it_overflows() -> None:
    """x + y = 2, twice: (1, 1) is the shortest; with q = 0 across."""
    jacobian, across = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]), np.array([0.0, 0.0, 1.0])
    assert _solution(jacobian, across, np.array([2.0, 2.0, 0.0])) == pytest.approx([1.0, 1.0, 0.0])
    assert np.isnan(_solution(np.full((2, 3), np.inf), across, np.array([2.0, 2.0, 0.0]))).all()
    assert np.isnan(_solution(jacobian, across, np.array([np.inf, 2.0, 0.0]))).all()
