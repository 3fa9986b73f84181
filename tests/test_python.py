"""circuitsim as a Python program meets it: values that are given, results that are taken, names and types."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from growth import LIMIT, exponent
from threadpoolctl import threadpool_info, threadpool_limits

import circuitsim as cs
from circuitsim.io.raw import read_raw

DIVIDER = "divider\nV1 in 0 10\nR1 in out 1k\nR2 out 0 1k\nI1 0 out 0\n"
CROSSBAR = "crossbar\nVx[0:1] x[0:1] 0 1\nRW[0:1][0:1] x[0:1] h[0:1] g=1m\nRl[0:1] h[0:1] k[0:1] 1k\n"
WEAK = "weak\nV1 s 0 1\nI1 a b 1\nR1 a b 0.7\nRw1 a s 1e13\nRw2 b 0 3e13\nRd s d 1k\n.model di D(ron=0)\nD1 d 0 di\n"
REFUSED = "refused by bcd\nI1 0 a 1m\nR1 a 0 1k\nR2 b 0 1k\n.model di D(ron=0)\nD1 a b di\n"
FAR = "far\nI1 0 a 1\nR1 a 0 1e200\nV1 s 0 3\nR2 s b 1k\nR3 b c 1k\nR4 c 0 1k"  # b and c take bcd some sweeps
LADDER = "ladder\nV1 a 0 1\nR1 a b 1\nR2 b 0 1\nR3 b c 1\nR4 c 0 1\n"


# -- values that are given ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["V1", "I1", "R1"])
def test_new_values_are_copied(name: str) -> None:
    given = np.array([2.0])
    problem = cs.compile_problem(cs.parse(DIVIDER)).with_values({name: given})
    before = cs.solve(problem).voltage("out")
    given[:] = 100.0
    assert np.array_equal(cs.solve(problem).voltage("out"), before)


def test_a_crossbar_that_changes_behind_our_back_makes_no_wrong_island() -> None:
    """Updated == fresh, with one array that the caller writes into again and again."""
    g = np.full((2, 2), 1e-3)
    problem = cs.compile_problem(cs.parse(CROSSBAR)).with_values({"RW": g})
    g[:, 0] = 0.0
    updated, fresh = cs.solve(problem.with_values({"RW": g})), cs.solve(cs.parse(CROSSBAR).with_values({"RW": g}))
    assert updated.determined.tolist() == fresh.determined.tolist()
    assert not fresh.determined.all()
    assert cs.solve(problem).determined.all()


def test_many_new_values_are_put_in_place_together() -> None:
    """Some of every kind, given one by one in any order, are those that are given as one array."""
    deck = "t\n{0}[0:2] s[0:2] 0 0\nI{1}[0:2] 0 y[0:2] 0\nR{1}[0:2] s[0:2] y[0:2] 1k\nRo[0:2] y[0:2] 0 1k"
    deck += "\nE{1}[0:2] e[0:2] 0 y[0:2] 0 1\nRe[0:2] e[0:2] 0 1k"
    circuit = cs.parse(deck.format("Va", "a"))
    volts, amps, siemens, gains = np.random.default_rng(0).uniform(1, 2, (4, 5, 3))
    whole = {"Va": volts, "Ia": amps, "Ra": siemens[0], "Ea": gains[0]}
    single = {f"Va[{k}]": volts[:, k] for k in (2, 0, 1)} | {f"ia[{k}]": amps[:, k] for k in (1, 2, 0)}
    single |= {f"Ra[{k}]": siemens[0, k] for k in range(3)} | {f"EA[{k}]": gains[0, k] for k in range(3)}
    one, other = circuit.with_values(whole), circuit.with_values(single)
    for a, b in zip(one.groups.values(), other.groups.values(), strict=True):
        for name, column in vars(a).items():
            np.testing.assert_array_equal(column, getattr(b, name))
    changed = one.with_values({"Va[1]": 7.0}).ties.e
    np.testing.assert_array_equal(changed, np.insert(volts[:, ::2], 1, 7.0, axis=1))
    np.testing.assert_array_equal(circuit.with_values({"Va": volts, "Va[1]": 7.0}).ties.e, changed)
    np.testing.assert_array_equal(circuit.with_values({"Va[1]": [7.0, 8.0], "Va": 2.0}).ties.e, np.full((2, 3), 2.0))
    assert circuit.batch == 1 and not circuit.ties.e.any()
    assert circuit.with_values({}) is circuit


@pytest.mark.parametrize("value", [0.002, np.full((2, 2), 0.002), np.asfortranarray([[1.0, 2.0], [3.0, 4.0]])])
def test_new_values_are_arrays_of_one_type(value: Any) -> None:
    """Contiguous and writable, whatever is given: compiled code is compiled once."""
    circuit = cs.parse(CROSSBAR).with_values({"RW": value, "Vx": 0.0})
    for array in (circuit.crossbars[0].g, circuit.ties.e):
        assert array.flags.c_contiguous and array.flags.writeable
    np.testing.assert_array_equal(circuit.crossbars[0].g, np.broadcast_to(value, (2, 2)))


def test_the_cost_of_new_values_grows_with_their_number() -> None:
    def prepare(n: int) -> Callable[[], object]:
        circuit = cs.parse("t\n" + "\n".join(f"R{k} a{k} a{k + 1} 1k\nV{k} b{k} 0 1" for k in range(n)))
        circuit.with_values({"R0": 1.0})
        values = {f"{kind}{k}": float(k + 1) for k in range(n) for kind in "RV"}

        def work() -> None:
            changed = circuit.with_values(values)
            assert changed.conductors.g[-1] == changed.ties.e[0, -1] == n

        return work

    assert exponent(prepare, 5_000, repeats=2) < LIMIT


@pytest.mark.parametrize("order", [("V1", "I1"), ("I1", "V1")])
def test_batches_of_voltages_and_currents_must_fit(order: tuple[str, str]) -> None:
    circuit, (first, second) = cs.parse(f"{DIVIDER}V2 b 0 1\nR3 b out 1k\n"), order
    for between in ({}, {"V2": 1.0}):
        with pytest.raises(cs.SettingsError, match=f"{second}: batch of 2 does not fit the batch of 3 set before"):
            circuit.with_values({first: [1.0, 2.0, 3.0], **between, second: [1.0, 2.0]})
    both = circuit.with_values({first: [1.0, 2.0, 3.0], second: [1.0, 2.0, 3.0]})
    assert cs.solve(both).batch == both.batch == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "new values are a mapping of names to numbers, such as {'V1': 2.0}, found None"),
        ([("V1", 2)], "new values are a mapping"),
        ({"V1": "3"}, "V1: new values must be numbers, found '3'"),
        ({"V1": 1 + 2j}, "V1: new values must be numbers"),
        ({"V1": np.array(["2024-01-01"], "datetime64[D]")}, "V1: new values must be numbers"),
        ({"V1": [[1.0, 2.0], [3.0]]}, "V1: new values must be numbers"),
        ({"V1": np.ma.masked_array([1.0], [True])}, "V1: some of the new values are masked; fill them"),
        ({"V1": [1.0, np.inf]}, "V1: new values must be finite numbers, found inf"),
        ({"V1": []}, r"V1: new values have shape \(0, 1\): a batch of no rows; give one at least"),
        ({"Vx": np.ones((1, 2, 2))}, r"Vx: new values have shape \(1, 2, 2\); needs \(2,\) or \(batch, 2\)"),
        ({"RW": [[1.0, -2.0], [3.0, -1.0]]}, "RW: negative conductance -2 S is not monotone"),
        ({"Rl": [1.0, -3.0]}, "Rl: negative conductance -3 S is not monotone"),
        ({"Rl": [[1.0, 2.0]]}, r"Rl: new values have shape \(1, 2\), needs \(2,\); resistances have no batch"),
        ({"V1": 1.0, "v1": 1.0}, "v1: two new values, under names that differ only in case"),
        ({"Rl": 1.0, "Rv": -2.0, "V1": 1.0}, "^Rv: negative conductance -2 S is not monotone"),
        ({"V1": 1.0, "Vx": [1.0, np.nan], "Rl": 1.0}, "^Vx: new values must be finite numbers, found nan"),
        ({"Rl": 1.0, "Rs": 2.0, "Rv": 3.0}, "^Rs: a short cannot take a new conductance"),
        ({"RW[0][0]": 1.0}, r"RW\[0\]\[0\]: a crossbar takes all its values at once, \(2, 2\)"),
    ],
)
def test_values_that_are_none(values: Any, message: str) -> None:
    circuit = cs.parse(CROSSBAR + "V1 v 0 1\nRv v 0 1\nRs v s 0\n")
    with pytest.raises(cs.SettingsError, match=message):
        circuit.with_values(values)


def test_an_analysis_takes_no_batch() -> None:
    circuit = cs.parse(DIVIDER + "Vb b 0 1\nRb b out 1k\n").with_values({"Vb": [1.0, 2.0, 3.0]})
    for run in (lambda: cs.sweep(circuit, "V1 0 2 1"), lambda: cs.monte_carlo(circuit, 3)):
        with pytest.raises(cs.SettingsError, match="the sources have a batch of 3 rows, and an analysis"):
            run()


def swept(**given: Any) -> cs.SweepResult:
    return cs.sweep(cs.parse(DIVIDER), "V1 0 2 1", **given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cs.Settings(lenient="no"), "lenient must be True or False, found 'no'"),  # type: ignore[arg-type]
        (lambda: cs.Settings(strict=1), "strict must be True or False, found 1"),  # type: ignore[arg-type]
        (lambda: cs.Settings(max_sweeps=0), "max_sweeps must be at least 1, and a whole number, found 0"),
        (lambda: cs.Settings(max_sweeps=True), "max_sweeps must be at least 1, and a whole number, found True"),
        (lambda: cs.solve(cs.parse(DIVIDER), start="a"), r"start must be \(1, 1\) finite numbers"),
        (lambda: cs.solve(cs.parse(DIVIDER), start=[[10**400]]), r"start must be \(1, 1\) finite numbers"),
        (lambda: cs.solve(cs.parse(DIVIDER), start=[[1j]]), r"start must be \(1, 1\) finite numbers"),
        (lambda: cs.solve(cs.parse(DIVIDER), start=[1.0]), r"\(batch, unknowns\), found shape \(1,\)"),
        (lambda: cs.solve(cs.parse(DIVIDER), start=[[np.nan]]), r"\(batch, unknowns\), found nan"),
        (lambda: cs.parse(DIVIDER).element_values("D"), "one of the kinds R, V, I, E, F, G, H; found 'D'"),
        (lambda: cs.solve(cs.parse(DIVIDER), backend=3), "backend takes a Backend object, found 3"),  # type: ignore
        (lambda: cs.compile_problem(cs.parse(DIVIDER), lenient="x"), "lenient must be True or False, found 'x'"),  # type: ignore
        *(
            (
                lambda rows=rows: cs.parse(DIVIDER).with_values({"V1": [1, 2, 3]}).at_rows(rows),
                f"at_rows takes a slice, or an array of numbers of rows, found {re.escape(repr(rows))}",
            )
            for rows in ("x", 1, None, np.array([3]), [[0], [1, 2]], slice("a", None))
        ),
        *(
            (lambda workers=workers: swept(workers=workers), f"workers must be a whole number, found {workers!r}")
            for workers in ("2", None, 2.5, True)
        ),
        *(
            (lambda saves=saves: swept(saves=saves), f"saves takes a list of texts, .* found {saves!r}")
            for saves in (3, True, "all")
        ),
        (lambda: cs.monte_carlo(cs.parse(DIVIDER), np.array([2, 3])), "runs must be a whole number, found array"),  # type: ignore
        (lambda: cs.monte_carlo(cs.parse(DIVIDER), 2, seed=True), "seed must be a whole number, found True"),
        (lambda: swept(progress="x"), "progress takes a function of the numbers done .* found 'x'"),
        (lambda: cs.solve(cs.parse(DIVIDER), progress=3), "progress takes a function of the numbers done .* found 3"),  # type: ignore
        (lambda: cs.solve(cs.parse(DIVIDER)).plot(row="x"), "row must be a whole number, found 'x'"),  # type: ignore
        (lambda: swept().point(3), "no point 3: there are 3, counted from 0"),
        (lambda: swept().point(-1), "no point -1"),
        (lambda: swept().point(None), "point must be a whole number, found None"),  # type: ignore
        (lambda: cs.Settings(dtype=np.dtype("float64")), r"unknown dtype dtype\('float64'\): choose float64"),  # type: ignore
        (lambda: cs.monte_carlo(cs.parse(DIVIDER), 10**9), "1,000,000,000 runs, more than 10,000,000; draw fewer"),
        (lambda: cs.parse(DIVIDER, 5), "name is a text that messages begin with, found int"),  # type: ignore
        *(
            (
                lambda nodes=nodes: cs.solve(cs.parse(DIVIDER)).voltages(nodes),
                "voltages takes an array of numbers of nodes",
            )
            for nodes in ("out", 0, [0.0], [-1], [3], [True, False])
        ),
        *(
            (lambda rows=rows: cs.solve(cs.parse(DIVIDER)).voltages(None, rows), f"rows are a slice .* found {rows}")
            for rows in (0, 1)
        ),
        (lambda: cs.solve(cs.parse(DIVIDER)).drops(np.array([0]), np.array([1]), 0), "rows are a slice .* found 0"),  # type: ignore
        (lambda: read_raw("out.raw"), "read_raw takes the bytes of a file, .* found 'out.raw'"),  # type: ignore
    ],
)
def test_wrong_settings(call: Any, message: str) -> None:
    with pytest.raises(cs.SettingsError, match=message):
        call()


def test_nodes_may_be_a_mask_or_none_at_all() -> None:
    solution = cs.solve(cs.parse(DIVIDER))
    np.testing.assert_array_equal(solution.voltages(np.array([True, False, True])), solution.voltages()[:, [0, 2]])
    assert solution.voltages([]).shape == (1, 0)  # type: ignore[arg-type]
    assert solution.voltages(np.array([2], np.uint8)).tolist() == [[5.0]]


def test_a_tolerance_may_be_any_real_number() -> None:
    assert cs.solve(cs.parse(DIVIDER), cs.Settings(tol=Fraction(1, 10**6))).message.startswith("relative KCL")


@pytest.mark.parametrize("some", [{"i(R1)"}, np.array(["i(R1)"]), iter(["i(R1)"])], ids=["set", "array", "iterator"])
def test_saves_may_be_any_texts(some: Iterable[str]) -> None:
    assert cs.sweep(cs.parse(DIVIDER), "V1 1 2 1", saves=some).saved_labels == ["i(R1)"]  # type: ignore[arg-type]


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    assert swept(workers=np.int64(1)).point(np.int8(2)) == "V1 = 2"  # type: ignore[arg-type]
    assert cs.monte_carlo(cs.parse(DIVIDER), np.int32(2), np.uint8(3)).values[:, 0].tolist() == [3, 4]  # type: ignore


# -- results that are taken --------------------------------------------------------------------------------------------


def test_a_batch_says_which_rows_failed() -> None:
    circuit = cs.parse(LADDER).with_values({"V1": [0.0, 1.0, 0.0, 2.0]})
    solution = cs.solve(circuit, cs.Settings(method="bcd", max_sweeps=2), raise_on_failure=False)
    assert not solution.solved
    assert solution.failed.tolist() == [1, 3]
    assert solution.unsolved == {1: cs.Status.MAX_SWEEPS, 3: cs.Status.MAX_SWEEPS}
    assert solution.message.startswith("batch rows 1, 3: stopped before the certificate was met")
    assert solution.kcl_relative[[0, 2]].tolist() == [0.0, 0.0]
    assert solution.kcl_relative.max() == solution.residuals.kcl_relative
    solved = cs.solve(circuit)
    assert solved.failed.size == 0
    assert solved.kcl_relative.shape == (4,)
    assert (solved.kcl_relative <= solved.tolerance).all()


@pytest.mark.parametrize("method", ["bcd", "newton"])
def test_rows_that_overflow_leave_the_others_solved(method: str) -> None:
    circuit = cs.parse(FAR).with_values({"I1": [1.0, 1e140, 2.0]})
    solution = cs.solve(circuit, cs.Settings(method), raise_on_failure=False)
    assert solution.unsolved == {1: cs.Status.NONFINITE}
    assert solution.message.startswith("batch row 1: the voltages overflowed")
    assert solution.voltage("a")[[0, 2]].tolist() == [1e200, 2e200]
    np.testing.assert_allclose(solution.voltage("b")[[0, 2]], 2.0, rtol=1e-8)


def test_the_status_is_that_of_the_first_row_that_failed() -> None:
    circuit = cs.parse(FAR).with_values({"I1": [1.0, 1e140]})
    solution = cs.solve(circuit, cs.Settings("bcd", max_sweeps=1), raise_on_failure=False)
    assert solution.unsolved == {0: cs.Status.MAX_SWEEPS, 1: cs.Status.NONFINITE}
    assert solution.status is cs.Status.MAX_SWEEPS


def test_rows_without_voltages_have_failed() -> None:
    solution = cs.solve(cs.parse(REFUSED), cs.Settings(method="bcd"), raise_on_failure=False)
    assert solution.failed.tolist() == [0]
    assert np.isnan(solution.kcl_relative).all()


def test_a_solution_is_a_start_for_the_same_unknowns_only() -> None:
    problem = cs.compile_problem(cs.parse(DIVIDER))
    solution = cs.solve(problem)
    assert solution.start_for(problem.with_values({"V1": 3.0})) is solution.x
    assert solution.start_for(problem.with_values({"V1": [1.0, 2.0]})) is None
    assert solution.start_for(cs.compile_problem(cs.parse(DIVIDER.replace("R2 out 0", "R2 0 out")))) is None
    nowhere = cs.solve(cs.parse(REFUSED), cs.Settings(method="bcd"), raise_on_failure=False)
    assert np.isnan(nowhere.x).all() and nowhere.start_for(nowhere.problem) is None


def test_results_of_a_sweep_by_name() -> None:
    result = cs.sweep(cs.parse(DIVIDER), "V1 0 2 1", saves=["i(R1)", "@R2[p]"])
    assert np.allclose(result.current("v1"), [0.0, -0.5e-3, -1e-3])
    assert np.allclose(result.current("R1"), [0.0, 0.5e-3, 1e-3])
    assert np.allclose(result.power("r2"), [0.0, 0.25e-3, 1e-3])
    with pytest.raises(cs.NetlistError, match="no element 'R9'"):
        result.current("R9")
    for call, wanted in ((lambda: result.current("R2"), r"i\(R2\)"), (lambda: result.power("R1"), r"@R1\[p\]")):
        with pytest.raises(cs.SettingsError, match=rf"{wanted} was not kept; ask for it: saves=\['{wanted}'\]"):
            call()


def test_arrays_of_a_sweep() -> None:
    deck = "arrays\nVa a 0 1\nVb[0:1] b[0:1] 0 1\nRb[0:1] b[0:1] a 1k\n"
    result = cs.sweep(cs.parse(deck), "Va 0 2 1", saves=["i(Rb[0:1])", "@Rb[1][p]"])
    assert np.allclose(result.current("Vb[0:1]"), [[-1e-3] * 2, [0.0] * 2, [1e-3] * 2])
    assert np.allclose(result.current("Rb"), [[1e-3] * 2, [0.0] * 2, [-1e-3] * 2])
    assert np.allclose(result.power("Rb[1]"), [1e-3, 0.0, 1e-3])


def test_an_array_of_one_member_has_an_axis_of_members_in_a_sweep_too() -> None:
    circuit = cs.parse("one\nVa[0:0] a 0 1\nRb[4:4] a 0 1k\n")
    result = cs.sweep(circuit, "Va 1 2 1", saves=["i(Rb)", "@Rb[p]"])
    assert np.allclose(result.current("Va"), [[-1e-3], [-2e-3]])
    assert np.allclose(result.current("rb"), [[1e-3], [2e-3]])
    assert np.allclose(result.power("Rb"), [[1e-3], [4e-3]])
    assert np.allclose(result.power("Rb[4:4]"), [[1e-3], [4e-3]])
    assert np.allclose(result.current("Rb[4]"), [1e-3, 2e-3])
    assert cs.solve(circuit).current("Va").shape == (1, 1)


def test_rows_that_meet_kcl_with_voltages_in_doubt_have_failed() -> None:
    """Which of them is in doubt is not kept: all are."""
    solution = cs.solve(cs.parse(WEAK), cs.Settings("bcd"), raise_on_failure=False)
    assert not solution.solved
    assert solution.kcl_relative.max() <= solution.tolerance
    assert solution.failed.tolist() == [0]


def test_what_a_sweep_gives_is_the_callers() -> None:
    result = cs.sweep(cs.parse(DIVIDER), "V1 0 2 1", saves=["i(R1)"])
    for taken in (lambda: result.voltage("out"), lambda: result.current("V1"), lambda: result.current("R1")):
        before = taken()
        taken()[:] = 7.0
        assert np.array_equal(taken(), before)


@pytest.mark.parametrize(
    "deck", [DIVIDER, CROSSBAR, DIVIDER + "D1 out 0 di\n.model di D(ron=0)\nE1 e 0 out 0 2\nRe e 0 1\n"]
)
def test_what_a_solution_keeps_cannot_be_changed(deck: str) -> None:
    solution = cs.solve(cs.parse(deck))
    kept = [solution.kcl_relative, solution.determined]
    kept += [*solution.tie_currents, *solution.source_currents, *solution.ambiguous]
    for array in kept:
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    for taken in (solution.voltages, lambda: solution.current("Vx" if deck == CROSSBAR else "V1")):
        before = taken()
        taken()[:] = 7.0
        assert np.array_equal(taken(), before)


def test_circuits_and_results_are_compared_by_identity() -> None:
    circuit = cs.parse(DIVIDER)
    problem, result = cs.compile_problem(circuit), cs.sweep(circuit, "V1 0 1 1")
    for thing in (circuit, problem, cs.solve(problem), result, circuit.netlist, circuit.ties):
        again = copy.deepcopy(thing)
        assert thing == thing
        assert thing != again
        assert len({thing, again}) == 2
    assert cs.solve(copy.deepcopy(problem)).voltage("out").tolist() == [5.0]


def test_the_graph_keeps_directions_and_laws() -> None:
    deck = (
        "all\nV1 0 a 5\nR1 a b 1k\nI1 b 0 1m\n.model d D(is=1e-14)\nD1 b 0 d\n.model p D(ron=0)\nD2 c 0 p\n"
        "E1 c 0 a b 2\nRW[0:1][0:1] x[0:1] y[0:1] g=1m\nRy[0:1] y[0:1] 0 1k\nRx[0:1] x[0:1] 0 1k\n"
    )
    edges = {d["name"]: d for *_, d in cs.parse(deck).to_networkx().edges(data=True)}
    assert {name: (d["a"], d["b"]) for name, d in edges.items() if name in ("V1", "I1", "D1", "D2", "E1")} == {
        "V1": ("0", "a"), "I1": ("b", "0"), "D1": ("b", "0"), "D2": ("c", "0"), "E1": ("c", "0"),
    }  # fmt: skip
    assert edges["D1"]["law"] == "SHOCKLEY"
    assert (edges["V1"]["e"], edges["I1"]["i"], edges["D2"]["vf"], edges["E1"]["gain"]) == (5.0, 1e-3, 0.0, 2.0)
    assert edges["RW[1][0]"] == {"name": "RW[1][0]", "kind": "conductor", "a": "x[1]", "b": "y[0]", "g": 1e-3}


def test_the_graph_names_members_as_the_netlist_does() -> None:
    circuit = cs.parse("t\nVx[1:2] x[1:2] 0 1\nRW[1:2][5:6] x[1:2] y[5:6] g=1m\nRy[5:6] y[5:6] 0 1k")
    solution = cs.solve(circuit)
    for *_, edge in circuit.to_networkx().edges(data=True):
        assert np.isfinite(solution.current(edge["name"])).all()


@pytest.mark.parametrize("value", [np.ones((2, 2)), np.ones((1, 4))])
def test_values_of_another_shape_are_refused(value: np.ndarray) -> None:
    circuit = cs.parse("t\nV1 a 0 1\nRl[0:3] a b[0:3] 1k\nRm[0:3] b[0:3] 0 1k")
    with pytest.raises(cs.SettingsError, match=r"Rl: new values have shape .*; resistances have no batch"):
        circuit.with_values({"Rl": value})


def test_errors_come_back_from_other_processes() -> None:
    with pytest.raises(cs.NotSolved) as unsolved:
        cs.solve(cs.parse(LADDER), cs.Settings(method="bcd", max_sweeps=1))
    with pytest.raises(cs.TopologyError) as contradiction:
        cs.solve(cs.parse("t\nV1 a 0 1\nV2 a 0 2\nR1 a 0 1"))
    with pytest.raises(cs.NetlistError) as wrong:
        cs.parse("t\nR1 a 0")
    for error in (unsolved.value, contradiction.value, wrong.value, cs.SettingsError("a"), cs.BackendUnavailable("b")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  of its own making
        assert (type(again), str(again)) == (type(error), str(error))
        if isinstance(error, cs.NotSolved):
            assert np.array_equal(again.solution.voltages(), error.solution.voltages())


def test_threads_leave_blas_as_it_was() -> None:
    problem = cs.compile_problem(cs.load(Path(__file__).parent.parent / "netlists" / "drn_xs.cir"))
    problem = problem.with_values({"Vx": np.random.default_rng(0).random((8, 1568))})
    cs.solve(problem)

    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    with threadpool_limits(2, "blas"):
        before = threads()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: cs.solve(problem), range(9)))
        assert threads() == before


def test_figures_of_an_unsolved_batch_are_those_of_its_rows() -> None:
    problem = cs.compile_problem(cs.load(Path(__file__).parent.parent / "netlists" / "drn_xs.cir"))
    rows = np.random.default_rng(0).normal(size=(40, 1568))
    solution = cs.solve(problem.with_values({"Vx": rows}), cs.Settings("bcd", max_sweeps=3), raise_on_failure=False)
    assert not solution.solved
    assert solution.residuals.kcl_relative == solution.kcl_relative.max()
    assert solution.residuals.worst_row == solution.kcl_relative.argmax()


# -- names of what is read ---------------------------------------------------------------------------------------------

BRIDGE = """bridge
V1 a 0 3
Rt[0:1] a c[0:1] 2k
Rb[0:1] c[0:1] 0 1k
.output v(c[0:1],a) C[0]
.save @Rt[1][p]
"""


def test_outputs_are_what_the_card_reads() -> None:
    solution = cs.solve(cs.compile_problem(cs.parse(BRIDGE)).with_values({"V1": [[3.0], [6.0]]}))
    np.testing.assert_allclose(solution.outputs, [[-2, -2, 1], [-4, -4, 2]], rtol=1e-12)
    assert solution.circuit.netlist.output_names == ["v(c[0],a)", "v(c[1],a)", "c[0]"]
    assert cs.solve(cs.parse(DIVIDER)).outputs.shape == (1, 0)


def test_outputs_that_are_left_out_are_nan() -> None:
    deck = "t\nV1 a 0 1\nR1 a 0 1\nI1 0 x 1\nR2 x y 1\n.output a y v(a,y)"
    found = cs.solve(cs.parse(deck), cs.Settings(lenient=True)).outputs
    np.testing.assert_array_equal(found, [[1.0, np.nan, np.nan]])


@pytest.mark.parametrize("swept", [False, True])
def test_names_as_tables_have_them_are_names_too(swept: bool) -> None:
    circuit = cs.parse(BRIDGE)
    found = cs.sweep(circuit, "V1 3 6 3", saves=["i(Rt)"]) if swept else cs.solve(circuit)
    volts = [3.0, 6.0] if swept else [3.0]
    np.testing.assert_allclose(found.voltage("v(c[0:1],a)"), [[-2 / 3 * v] * 2 for v in volts], rtol=1e-12)
    np.testing.assert_allclose(found.voltage("V( c[1] , a )"), [-2 / 3 * v for v in volts], rtol=1e-12)
    for name in ("v(c[1])", "V( c[1] )", "v(c[0:1])"):
        np.testing.assert_array_equal(found.voltage(name), found.voltage(name[2:-1].strip()))
    for name in ("Rt", "Rt[0]"):
        np.testing.assert_array_equal(found.current(f"i({name})"), found.current(name))
    with pytest.raises(cs.NetlistError, match="no node 'q'"):
        found.voltage("v(q,a)")


def test_sweeps_keep_what_the_cards_name() -> None:
    """The differences of .output too; other texts come on top, an empty list keeps nothing."""
    circuit = cs.parse(BRIDGE)
    labels = [cs.sweep(circuit, "V1 3 6 3", saves=saves).saved_labels for saves in (None, ["i(Rb[0])"], [])]
    assert labels[0] == ["@Rt[1][p]", "v(c[0],a)", "v(c[1],a)"]
    assert sorted(labels[1]) == sorted(["i(Rb[0])", *labels[0]]) and labels[2] == []
    runs = cs.monte_carlo(cs.parse(BRIDGE.replace("2k", "{gauss(2k,.1,3)}")), runs=2)
    assert runs.saved_labels == labels[0] and runs.voltage("v(c[0],a)").shape == (2,)
    with pytest.raises(cs.SettingsError, match=r"v\(c\[0\],0\) was not kept; ask for it: saves=\['v\(c\[0\],0\)'\]"):
        runs.voltage("v(c[0],0)")


def test_unknown_elements_are_named_as_the_netlist_spells_them() -> None:
    circuit = cs.parse(CROSSBAR + "Rload k[0] 0 1\n")
    with pytest.raises(cs.SettingsError, match=r"no element 'RX' in netlist; elements are Vx, RW, Rl, .* \.\.\.$"):
        circuit.with_values({"RX": 1.0})
    with pytest.raises(cs.SettingsError, match=r"elements are Rload"):
        cs.solve(circuit).current("rlod")


# -- arrays in memory --------------------------------------------------------------------------------------------------

FILES = "t\nVx[0:1] x[0:1] 0 1\nRW[0:1][0:2] x[0:1] h[0:2] g=@w\nR[0:2] h[0:2] 0 @r.npz:a\n"


def test_arrays_stand_for_files(tmp_path: Path) -> None:
    """They are copied, and belong to the circuit in analyses, other processes and files."""
    w, r = np.array([[1e-3, 2e-3, 4e-3], [3e-3, 2e-3, 0]]), [1e3, 500, 250]
    circuit = cs.parse(FILES, arrays={"w": w, "r.npz:a": r})
    wanted = cs.solve(circuit).voltage("h[0:2]")
    np.testing.assert_allclose(wanted, [[0.8, 2 / 3, 0.5]], rtol=1e-12)
    w[:] = 7
    for one in (circuit, pickle.loads(pickle.dumps(circuit))):  # noqa: S301
        np.testing.assert_array_equal(cs.solve(one).voltage("h[0:2]"), wanted)
        np.testing.assert_array_equal(cs.sweep(one, "TEMP 27 77 50").voltage("h[0:2]"), [*wanted] * 2)
    cs.export(circuit, tmp_path / "one.cir")
    np.testing.assert_array_equal(cs.solve(cs.load(tmp_path / "one.cir")).voltage("h[0:2]"), wanted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"w": np.ones((2, 2))}, "'@w' has shape (2, 2), but the element needs (2, 3)"),
        ({"w": [[1, 2, 3], [1, np.inf, 3]]}, "'@w' has inf at [1,1]; every value must be finite"),
        ({"w": "abc"}, "'@w' holds <U3, not real numbers"),
        ({"w": [[1, 2], [3]]}, "the array for '@w' must hold real numbers: "),
        ({"w": np.ma.masked_equal(np.ones((2, 3)), 1)}, "the array for '@w' must hold real numbers: some are masked"),
        ({"v": 1.0}, "no element of netlist takes values from '@v', for which there is an array"),
        ({"w": np.ones((2, 3)), "r.npz": 1.0, "r.npz:a": 1.0}, "no element of netlist takes values from '@r.npz', "),
        ({"w": np.ones((2, 3)), "": 1.0, "r.npz:a": 1.0}, "no element of netlist takes values from '@', "),
        ({5: 1.0}, "no element of netlist takes values from '@5'"),
        ([1.0], "arrays are a mapping of names to numbers, such as {'w': w}, found [1.0]"),
    ],
)
def test_wrong_arrays(given: Any, message: str) -> None:
    with pytest.raises(cs.CircuitError) as caught:
        cs.parse(FILES, arrays=given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cs.load(DIVIDER),
            "load takes the path of a netlist, found a text of several lines; parse reads",
        ),
        (lambda: cs.parse("divider.cir"), "parse takes the text of a netlist, found 'divider.cir'; load reads a file"),
        (lambda: cs.parse("divider"), "no elements: line 1 is always the title"),
        (lambda: cs.parse(DIVIDER).with_values({"R1": None}), "R1: new values must be numbers, found None"),
        (lambda: cs.parse(DIVIDER).with_values({"R1": [None]}), "R1: new values must be numbers, found [None]"),
    ],
)
def test_what_is_mixed_up(call: Any, message: str) -> None:
    with pytest.raises(cs.CircuitError) as caught:
        call()
    assert message in str(caught.value)


# -- names and types ---------------------------------------------------------------------------------------------------


def test_a_type_checker_knows_the_public_names(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"# {script}: text of its own, or mypy remembers the path of another run\n"
        "# mypy: disallow-untyped-calls, warn-return-any\nimport circuitsim as cs\n"
        "solution = cs.solve(cs.load('a.cir'), start=[[1.0]])\nprint(solution.failed)\ncs.slove(1)\n"
    )
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(script)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert found.stdout.splitlines() == [
        f'{script}:6: error: Module has no attribute "slove"; maybe "solve"?  [attr-defined]'
    ]


def test_what_is_not_solved_says_where_it_ran() -> None:
    deck = "ladder\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1\n" for k in range(300)) + "Re n300 0 1\n"
    settings = cs.Settings(method="bcd", max_sweeps=50)
    assert cs.solve(cs.parse(deck), settings, raise_on_failure=False).backend == "cpu"


# ---- ranges of instances ---------------------------------------------------------------------------------------------

CELLS = """cells of a crossbar, a resistor and a diode in each
.subckt cell a b
Rm a m 1k
D1 m b dd
.ends
.model dd D(ron=0)
Vw[0:3] w[0:3] 0 1
Iw[0:3] 0 w[0:3] 1m m=2
X[0:3][0:2] w[0:3] b[0:2] cell
Rb[0:2] b[0:2] 0 100
"""


def test_ranges_name_elements_and_nodes_of_several_instances() -> None:
    """Column by column: v(b) (1/100 + sum g) = sum g v(w), as all diodes conduct."""
    g, w = np.linspace(1e-4, 1e-3, 12).reshape(4, 3), np.array([[1.0, 2.0, 3.0, 1.0], [1.0, 4.0, 5.0, 1.0]])
    circuit = cs.parse(CELLS).with_values({"R.X[0:3][0:2].Rm": g, "vw[2:1]": w[:, [2, 1]]})
    assert circuit.element_values("R")[:12].tolist() == g.ravel().tolist()
    solution = cs.solve(circuit)
    b = w @ g / (0.01 + g.sum(axis=0))
    assert solution.voltage("b[0:2]") == pytest.approx(b, rel=1e-9)
    drops = w[:, :, None] - b[:, None]
    assert solution.voltage("x[0:3][0:2].m") == pytest.approx(np.repeat(b[:, None], 4, axis=1).reshape(2, 12), rel=1e-9)
    assert solution.current("R.X[0:3][0:2].Rm") == pytest.approx((g * drops).reshape(2, 12), rel=1e-8)
    assert solution.power("R.X[0:3][1].Rm") == pytest.approx((g * drops**2)[:, :, 1], rel=1e-8)
    assert solution.voltage("X[0][2:1].m") == pytest.approx(b[:, [2, 1]], rel=1e-9)
    assert solution.current("R.X[0:0][1].Rm").shape == solution.voltage("b[1:1]").shape == (2, 1)


def test_a_cell_of_a_crossbar_has_no_axis_of_members_and_a_range_has() -> None:
    solution = cs.solve(cs.parse(CROSSBAR.replace("RW", "R:W") + "Rk[0:1] k[0:1] 0 1k\n"))
    whole = solution.current("R:W")
    for name, wanted in (
        ("R:W[0][1]", whole[:, 0, 1]),
        ("R:W[0:0][1]", whole[:, :1, 1]),
        ("R:W[1][1:0]", whole[:, 1, ::-1]),
    ):
        np.testing.assert_array_equal(solution.current(name), wanted)


def test_ranges_take_one_value_or_as_many_as_they_have_members() -> None:
    circuit = cs.parse(CELLS)
    assert (
        circuit.with_values({"R.X[0:3][1:1].Rm": 2.0}).element_values("R").tolist()
        == [1e-3, 2.0, 1e-3] * 4 + [0.01] * 3
    )
    assert circuit.with_values({"Rb[1:2]": [3.0, 4.0]}).element_values("R")[12:].tolist() == [0.01, 3.0, 4.0]
    assert circuit.with_values({"Iw[1:2]": 1.0}).current_sources.i.tolist() == [[2e-3, 1.0, 1.0, 2e-3]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"R.X[0:3][0:2].Rm": np.ones((3, 4))},
            r"R.X\[0:3\]\[0:2\].Rm: new values have shape \(3, 4\), needs \(4, 3\)",
        ),
        ({"R.X[0:9][0:2].Rm": 1.0}, r"R.X\[0:9\]\[0:2\].Rm: no element 'R.X\[4\]\[0\].Rm' in netlist"),
        ({"D.X[0:3][0].D1": 1.0}, "only resistors, crossbars and sources"),
        ({"Vw[0:5]": 1.0}, r"the array's indices run from 0 to 3"),
        ({"Vw[0:1]": np.ones(3)}, r"new values have shape \(3,\), needs \(2,\)"),
        ({"Vw[0:1]": np.ones((2, 3))}, r"new values have shape \(2, 3\); needs \(2,\) or \(batch, 2\)"),
        ({"Vw[0:99999999][0:99999999]": 1.0}, "the array has 1"),
        ({"R.X[0:99999999999].Rm": 1.0}, r"^'R.X\[0:99999999999\].Rm': instances are more than"),
    ],
)
def test_wrong_ranges_of_new_values_are_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(cs.SettingsError, match=message):
        cs.parse(CELLS).with_values(values)


ARRAYS = """arrays in instances
.subckt cell w
Ra[0:1] w m[0:1] 1k
Va[0:1] q[0:1] 0 1
Rq[0:1] q[0:1] m[0:1] 1k
.ends
V1 w 0 1
X[{}] w cell
"""


def test_arrays_of_several_instances_take_values_for_all_their_members() -> None:
    circuit = cs.parse(ARRAYS.format("0:1"))
    g = [[1.0, 2.0], [3.0, 4.0]]
    for value in (g, np.ravel(g)):
        found = circuit.with_values({"R.X[0:1].Ra": value, "V.X[1:0].Va": value})
        rows = [found.netlist.find(f"R.X[{k}].Ra[{m}]")[1] for k in (0, 1) for m in (0, 1)]
        assert found.element_values("R")[rows].tolist() == [1.0, 2.0, 3.0, 4.0]
        names = [f"V.X[{k}].Va[{m}]" for k in (1, 0) for m in (0, 1)]
        assert [found.element_values("V")[found.netlist.find(name)[1]] for name in names] == [1.0, 2.0, 3.0, 4.0]
    assert circuit.with_values({"R.X[0:1].Ra": 1.0}).element_values("R").tolist().count(1.0) == 4
    with pytest.raises(cs.SettingsError, match=r"R.X\[0:1\].Ra: new values have shape \(2,\), needs \(4,\)"):
        circuit.with_values({"R.X[0:1].Ra": [1.0, 2.0]})
    one = cs.parse(ARRAYS.format("0:0")).with_values({"V.X[0:0].Va": [7.0, 8.0]})
    assert (one.batch, one.element_values("V")[1:].tolist()) == (1, [7.0, 8.0])


def test_new_values_of_several_crossbars_are_given_one_by_one() -> None:
    text = "t\n.subckt s a\nRc[0:1][0:1] x[0:1] y[0:1] 1\nRa x[0:1] a 1\nRb y[0:1] 0 1\n.ends\nV1 a 0 1\nX[0:1] a s\n"
    text = text.replace("Ra x[0:1] a 1\nRb y[0:1] 0 1", "Ra[0:1] x[0:1] a 1\nRb[0:1] y[0:1] 0 1")
    circuit = cs.parse(text)
    assert [x.name for x in circuit.crossbars] == ["R.X[0].Rc", "R.X[1].Rc"]
    with pytest.raises(cs.SettingsError, match=r"R.X\[0:1\].Rc: elements of several kinds, or crossbars"):
        circuit.with_values({"R.X[0:1].Rc": np.ones((2, 2, 2))})
    assert cs.solve(circuit).current("R.X[0:1].Rc").shape == (1, 8)


def test_ranges_of_elements_that_are_left_out_take_no_values() -> None:
    circuit = cs.parse("t\n.subckt s a\nR1 a b 1\nRs a a2 0\n.ends\nV1 a 0 1\nX[0:2] a s\n")
    with pytest.raises(cs.SettingsError, match="a short cannot take a new conductance"):
        circuit.with_values({"R.X[0:2].Rs": 1.0})
    island = cs.compile_problem(cs.parse("t\nV1 a 0 1\nR1 a 0 1\nI[0:1] 0 b[0:1] 1\nR2 b[1] 0 1\n"), lenient=True)
    for name in ("I[0]", "I", "I[0:1]"):
        with pytest.raises(cs.SettingsError, match=f"{re.escape(name)}: it, or one of its members, is left out"):
            island.with_values({name: 2.0})
    assert island.with_values({"I[1:1]": 2.0}).circuit.current_sources.i.tolist() == [[2.0]]


def test_export_is_a_public_name(tmp_path: Path) -> None:
    cs.export(cs.parse(DIVIDER).with_values({"V1": 3.0}), str(tmp_path / "a.cir"))
    assert cs.load(tmp_path / "a.cir").element_values("V").tolist() == [3.0]
    with pytest.raises(cs.SettingsError, match=r"takes a Circuit and the path .* found str and Circuit"):
        cs.export("a.cir", cs.parse(DIVIDER))  # type: ignore[arg-type]


def test_branches_of_rows_are_those_of_the_table() -> None:
    """In tables whose rows have none, one, or several branches of a group."""
    deck = (
        "t\nV1 a 0 5\nR1 a b 1k\nN1 b c nw\nN2 b 0 nw\nL1 c d\nD1 d e dp\nR2 e 0 0\nR3 d f 1k\nD2 f 0 dp\nD3 c f ds\n"
    )
    deck += "I1 0 b 1m\nC1 b 0 1u\nN3 f 0 nt\n.model nw pwl(-1 -1m 0 0 1 2m 2 2m)\n.model nt tanh(imax=1m v0=0.4)\n"
    deck += ".model dp D(ron=1 vfwd=0.6 vrev=2)\n.model ds D(is=1e-12)\n.options rshunt=1meg\n"
    circuit = cs.parse(deck)
    several = 0
    for branches in circuit.groups.values():
        for kind, table in circuit.netlist.tables.items():
            own = branches.of(kind)
            for rows in (np.arange(len(table)), np.arange(len(table))[::-2], np.arange(0)):
                chosen, place = branches.of_rows(kind, rows)
                wanted = [own[branches.row[own] == row] for row in rows.tolist()]
                np.testing.assert_array_equal(chosen, np.concatenate([np.arange(0), *wanted]))
                np.testing.assert_array_equal(place, np.repeat(np.arange(rows.size), [x.size for x in wanted]))
                several += max((x.size for x in wanted), default=0) > 1
    assert several


def test_the_current_of_one_element_takes_as_long_in_a_large_circuit() -> None:
    def prepare(n: int) -> Callable[[], object]:
        chain = "".join(f"R{k} n{k} n{k + 1} 1k\n" for k in range(n))
        solution = cs.solve(cs.parse(f"chain\nV1 n0 0 1\n{chain}RE n{n} 0 1k\n"))
        solution.current("R1")  # what is found once
        return lambda: [solution.current(f"R{k}") for k in range(200)]

    assert exponent(prepare, 5_000, factor=16, repeats=5) < 0.25  # not twice as long where there are 16 times as many
