"""PySpice: the shared library beside the program, circuits from its objects and back."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.errors import BackendUnavailable
from circuitsim.spice import pyspice
from circuitsim.spice.compare import Verdict, compare
from circuitsim.spice.ngspice import NgspiceError, ngspice_available, run_ngspice, tight_options

NETLISTS = Path(__file__).parent.parent / "netlists"
DECK = "rectifier\nV1 in 0 5\nR1 in h[2] 1k\nD1 h[2] 0 dd\n.model dd D(is=1e-14)\n.dc V1 0 4 2\n.op\n.end\n"

has_pyspice = importlib.util.find_spec("PySpice") is not None
needs_pyspice = pytest.mark.skipif(not has_pyspice, reason="PySpice is not installed: pip install 'circuitsim[spice]'")
needs_engines = pytest.mark.skipif(
    not (has_pyspice and pyspice.library() and ngspice_available()),
    reason="needs pip install 'circuitsim[spice]' and, on Debian, apt-get install ngspice libngspice0",
)


@needs_engines
def test_the_library_gives_what_the_program_gives() -> None:
    one, other = (run(DECK, options=tight_options()) for run in (pyspice.run_pyspice, run_ngspice))
    assert [plot.name for plot in one.plots] == ["DC transfer characteristic", "Operating Point"]
    for mine, its in zip(one.plots, other.plots, strict=True):
        for name, _ in its.variables:
            np.testing.assert_allclose(mine.column(name), its.column(name), rtol=1e-12, atol=1e-25)


@needs_engines
@pytest.mark.parametrize("name", ["bridge_rectifier", "clipper", "opamp", "relu_network", "valid/tanh"])
def test_both_engines_give_a_circuit_the_same_verdict_and_values(name: str) -> None:
    circuit = cs.load(NETLISTS / f"{name}.cir")
    one, other = compare(circuit, "pyspice"), compare(circuit, "ngspice")
    assert one.engine.startswith("PySpice 1.")
    assert (one.verdict, other.verdict) == (Verdict.AGREE, Verdict.AGREE)
    for mine, its in zip(one.quantities, other.quantities, strict=True):
        assert mine.name == its.name
        assert abs(mine.theirs - its.theirs) <= its.allowed


@needs_engines
def test_a_note_about_stepping_is_no_error() -> None:
    deck = "stepped\nI1 0 a 1m\nD1 a b dd\nD2 b 0 dd\n.model dd D(is=1e-30 n=0.2)\n.op\n"
    one, other = (run(deck, options=tight_options()).plots[0] for run in (pyspice.run_pyspice, run_ngspice))
    assert one.column("v(a)") == pytest.approx(other.column("v(a)"), rel=1e-9)


@needs_engines
@pytest.mark.parametrize(
    ("deck", "message"),
    [
        ("t\nV1 a 0 1\nV2 a 0 2\nR1 a 0 1\n.op\n", r"(?s)ngspice aborted; it said:.*singular|timestep"),
        ("t\nV1 a 0 1\nQ1 a 0 nope\n.op\n", "(?s)no results .*it said:.*nope"),
        ("t\nV1 a 0 1\nR1 a 0 1\n", "(?s)no results .*it said:.*No job"),
    ],
)
def test_a_run_without_results_is_an_error(deck: str, message: str) -> None:
    with pytest.raises(NgspiceError, match=message) as caught:
        pyspice.run_pyspice(deck)
    assert "Traceback" not in str(caught.value)


@needs_engines
def test_a_run_that_takes_too_long_is_ended() -> None:
    with pytest.raises(NgspiceError, match=r"PySpice took more than 0\.1 s"):
        pyspice.run_pyspice(DECK, timeout=0.1)


@needs_pyspice
def test_a_circuit_of_pyspice_is_solved() -> None:
    from PySpice.Spice.Netlist import Circuit
    from PySpice.Unit import u_kOhm, u_V

    theirs = Circuit("Voltage Divider")
    theirs.V("input", "in", theirs.gnd, 10 @ u_V)
    theirs.R(1, "in", "out", 9 @ u_kOhm)
    theirs.R(2, "out", theirs.gnd, 1 @ u_kOhm)
    circuit = pyspice.from_pyspice(theirs)
    assert circuit.netlist.title == "Voltage Divider"
    assert cs.solve(circuit).voltage("out") == pytest.approx([1.0])
    simulator = theirs.simulator(temperature=50, nominal_temperature=25)
    assert (options := pyspice.from_pyspice(simulator).netlist.options).temp == 50 and options.tnom == 25


@needs_pyspice
@pytest.mark.parametrize(
    "name", ["ladder", "opamp", "zener", "crossbar_4x4", "valid/controlled_fh", "valid/diode_temperature", "valid/gmin"]
)
def test_there_and_back_the_solution_is_the_same(name: str) -> None:
    circuit = cs.load(NETLISTS / f"{name}.cir")
    back = pyspice.from_pyspice(pyspice.to_pyspice(circuit))
    ours, again = cs.solve(circuit), cs.solve(back)
    assert sorted(back.nodes) == sorted(circuit.nodes)
    for node in circuit.nodes:
        assert again.voltage(node) == pytest.approx(ours.voltage(node), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("other", [None, 3, "title\n" + 999 * "R1 a 0 1\n", cs.parse("t\nV1 a 0 1\nR1 a 0 1\n")])
def test_what_is_no_circuit_of_pyspice_is_refused(other: object) -> None:
    with pytest.raises(cs.SettingsError, match="takes a circuit or simulator of PySpice, found ") as caught:
        pyspice.from_pyspice(other)
    assert len(str(caught.value)) < 120


@needs_pyspice
def test_what_pyspice_cannot_read_is_refused() -> None:
    with pytest.raises(cs.SettingsError, match="PySpice's parser reads neither perfect"):
        pyspice.to_pyspice(cs.load(NETLISTS / "clipper.cir"))


def test_without_pyspice_or_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'circuitsim\[spice\]'"):
        compare(cs.parse(DECK), "pyspice")
    with pytest.raises(BackendUnavailable, match=r"pip install 'circuitsim\[spice\]'"):
        pyspice.to_pyspice(cs.parse(DECK))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(pyspice, "library", lambda: None)
    with pytest.raises(BackendUnavailable, match="apt-get install libngspice0"):
        pyspice.run_pyspice(DECK)


@needs_engines
def test_a_library_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / "libngspice.so"
    library.write_text("nothing")
    monkeypatch.setenv("NGSPICE_LIBRARY_PATH", str(library))
    pyspice.version.cache_clear()
    with pytest.raises(BackendUnavailable, match=rf"PySpice cannot use the shared library {library} \(NGSPICE_LIB"):
        compare(cs.parse(DECK), "pyspice")
    monkeypatch.setattr("circuitsim.spice.ngspice.VERSION_SECONDS", 0.01)
    with pytest.raises(NgspiceError, match=r"PySpice took more than 0\.01 s"):
        pyspice.version()
