"""Laws of nature for every solution, an independent solver to compare with, ways to rewrite a deck, processes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import lstsq, null_space

import circuitsim as cs
from circuitsim.currents import ideal_currents
from circuitsim.law_kernels import Law
from circuitsim.methods import aside, regions, tiles
from circuitsim.netlist import Netlist
from circuitsim.spice.flatten import flatten
from circuitsim.spice.ngspice import MISSING, ngspice_available

Floats = NDArray[np.float64]

PRECISE = cs.Settings(tol=1e-12)
STRAIGHT = 100.0  # A: beyond, the reference solver's exponentials go on as straight lines
ROUNDING = 1e-12  # of the largest term in a sum that should be 0

needs_ngspice = pytest.mark.skipif(not ngspice_available(), reason=MISSING)


def some_slow(values: Iterable[Any], fast: int) -> list[Any]:
    """Parameters of a test, tuples where there are several, of which all but the first are slow tests."""
    listed = list(values)
    each = (value if isinstance(value, tuple) else (value,) for value in listed[fast:])
    return [*listed[:fast], *(pytest.param(*value, marks=pytest.mark.slow) for value in each)]


# -- laws of nature ----------------------------------------------------------------------------------------------------


def assert_laws(solution: cs.Solution, tol: float = 1e-11) -> None:
    """KCL, energy, diodes, sources and certificate; `tol` is relative to the absolute values of what is summed."""
    assert solution.status is cs.Status.SOLVED, solution.message
    assert solution.residuals.kcl_relative <= tol
    assert_kcl(solution, tol)
    assert_power_balance(solution, tol)
    assert_ideal_diodes(solution)
    assert_sources_hold(solution)


def element_currents(solution: cs.Solution) -> list[tuple[str, NDArray[np.int64], NDArray[np.int64], Floats, Floats]]:
    """(name, first nodes, second nodes, currents, powers) of every element and array, (batch, members)."""
    netlist = solution.circuit.netlist
    found = []
    covered: dict[str, set[int]] = {kind: set() for kind in netlist.tables}
    for name, ref in netlist.arrays.items():
        if ref.kind != "crossbar":
            table = netlist.tables[ref.kind]
            covered[ref.kind] |= set(range(ref.start, ref.stop))
            ends = table.a[ref.start : ref.stop], table.b[ref.start : ref.stop]
            found.append((name, *ends, solution.current(name), solution.power(name)))
    for x in netlist.crossbars:
        a, b = np.repeat(x.rows, x.cols.size), np.tile(x.cols, x.rows.size)
        current, power = (f(x.name).reshape(solution.batch, -1) for f in (solution.current, solution.power))
        found.append((x.name, a, b, current, power))
    for kind, table in netlist.tables.items():
        for i, name in enumerate(table.names):
            if i not in covered[kind] and kind != "C":
                ends = table.a[i : i + 1], table.b[i : i + 1]
                found.append((name, *ends, solution.current(name)[:, None], solution.power(name)[:, None]))
    v = solution.voltages()
    nodes = np.arange(v.shape[1])
    g = 1 / netlist.options.rshunt
    found.append(("rshunt", nodes, np.zeros_like(nodes), g * v, g * v * v))
    return found


def assert_kcl(solution: cs.Solution, tol: float) -> None:
    """At every node, ground too, what elements carry in and out cancels."""
    net = np.zeros((solution.batch, len(solution.circuit.nodes)))
    total = np.zeros_like(net)
    for _, a, b, current, _ in element_currents(solution):
        np.add.at(net.T, a, current.T)
        np.subtract.at(net.T, b, current.T)
        np.add.at(total.T, a, np.abs(current.T))
        np.add.at(total.T, b, np.abs(current.T))
    allowed = tol * total
    allowed[:, solution.circuit.ties.a] += tol * total.max()  # ties carry on what their neighbours leave
    allowed[:, solution.circuit.ties.b] += tol * total.max()
    allowed[:, 0] += tol * total.max()
    worst = int((np.abs(net) - allowed).max(axis=0).argmax())
    assert (np.abs(net) <= allowed).all(), f"KCL at {solution.circuit.nodes[worst]}: {net[:, worst]} A"


def assert_power_balance(solution: cs.Solution, tol: float) -> None:
    """What sources deliver is what the others absorb."""
    powers = np.concatenate([power for *_, power in element_currents(solution)], axis=1)
    scale = np.abs(powers).sum(axis=1)
    assert (np.abs(powers.sum(axis=1)) <= tol * scale).all(), (powers.sum(axis=1), scale)
    passive = [p for n, *_, p in element_currents(solution) if n[0].lower() in "rdn"]
    for power in passive:
        assert (power >= -ROUNDING * scale[:, None]).all()


def assert_ideal_diodes(solution: cs.Solution) -> None:
    """No perfect diode carries current backwards, exceeds its forward voltage, or does both a current and a gap."""
    d = solution.circuit.ideal_diodes
    if not len(d):
        return
    current = ideal_currents(solution, slice(0, solution.batch))
    gap = d.vf - solution.drops(d.a, d.b)
    scale = max(np.abs(solution.voltages()).max(), np.abs(d.vf).max())
    assert (current >= 0).all()
    assert (gap >= -ROUNDING * scale).all()
    assert (current * np.abs(gap) <= ROUNDING * scale * np.abs(current).max()).all()


def assert_sources_hold(solution: cs.Solution) -> None:
    """Voltage sources and shorts hold their voltage."""
    ties = solution.circuit.ties
    if len(ties):
        scale = np.abs(solution.voltages()).max()
        assert np.abs(solution.drops(ties.a, ties.b) - ties.e).max() <= ROUNDING * scale


# -- an independent solver ---------------------------------------------------------------------------------------------


@dataclass
class Dense:
    """Resistors, sources and nonlinear branches as dense matrices; node 0 is ground, inner nodes of RS come last."""

    laplacian: Floats  # (n, n) S
    injected: Floats  # (n,) A
    ties: Floats  # (m, n) incidence
    e: Floats  # (m,) V
    junctions: list[tuple[int, int, int, Floats]]  # anode, cathode, law, parameters (without RS)


def _dense(circuit: cs.Circuit) -> Dense:
    j = circuit.junctions
    series = [k for k in range(len(j)) if j.law[k] == Law.SHOCKLEY and j.params[k, 2] > 0]
    n = len(circuit.nodes) + len(series)
    laplacian, injected = np.zeros((n, n)), np.zeros(n)

    def conductance(a: int, b: int, g: float) -> None:
        for row, sign in ((a, 1.0), (b, -1.0)):
            laplacian[row, a] += sign * g
            laplacian[row, b] -= sign * g

    c = circuit.conductors
    for a, b, g in zip(c.a, c.b, c.g, strict=True):
        conductance(a, b, g)
    for x in circuit.crossbars:
        for i, k in product(range(x.rows.size), range(x.cols.size)):
            conductance(x.rows[i], x.cols[k], x.g[i, k])
    s = circuit.current_sources
    for a, b, i in zip(s.a, s.b, s.i[0], strict=True):
        injected[a] -= i
        injected[b] += i
    junctions = []
    for k in range(len(j)):
        anode = int(j.a[k])
        if k in series:
            anode = len(circuit.nodes) + series.index(k)
            conductance(int(j.a[k]), anode, 1.0 / j.params[k, 2])
        junctions.append((anode, int(j.b[k]), int(j.law[k]), j.params[k]))
    ties = np.zeros((len(circuit.ties), n))
    for k, (a, b) in enumerate(zip(circuit.ties.a, circuit.ties.b, strict=True)):
        ties[k, a] += 1.0
        ties[k, b] -= 1.0
    return Dense(laplacian, injected, ties, circuit.ties.e[0].copy(), junctions)


def law(kind: int, p: Floats, v: float) -> tuple[float, float]:
    """Current and slope of a branch without RS, as the table of laws.py says, up to currents of 100 A."""
    if kind == Law.PWL:
        forward, backward = max(v - p[1], 0.0), max(-v - p[3], 0.0)
        return p[0] * forward - p[2] * backward, p[0] * (forward > 0) + p[2] * (backward > 0)
    if kind == Law.TANH:
        return p[0] * np.tanh(v / p[1]), p[0] / p[1] / np.cosh(min(abs(v / p[1]), 300.0)) ** 2
    if kind == Law.SINH:
        z, most = abs(v / p[1]), float(np.arcsinh(STRAIGHT / p[0]))
        slope = p[0] / p[1] * np.cosh(min(z, most))
        return np.sign(v) * (p[0] * np.sinh(min(z, most)) + slope * p[1] * max(z - most, 0.0)), slope
    if kind == Law.SEGMENT:  # the overlap of [0, v] or [v, 0] with [lo, hi]
        overlap = max(min(max(v, 0.0), p[2]) - max(min(v, 0.0), p[1]), 0.0)
        return p[0] * np.copysign(overlap, v), p[0] * (p[1] <= v < p[2])
    saturation, nvt, _, bv, nbv_vt, gmin, per_ikf, isr, nr_vt, per_vj, half_m = p
    most = STRAIGHT * (1 + STRAIGHT * per_ikf)  # more than what IKF makes STRAIGHT of
    if v >= -3 * nvt:
        z = min(v / nvt, np.log(most / saturation))
        i, g = saturation * (np.expm1(z) + np.exp(z) * (v / nvt - z)), saturation * np.exp(z) / nvt
    elif v > -bv:
        cube = (3 * nvt / (v * np.e)) ** 3
        i, g = -saturation * (1 + cube), 3 * saturation * cube / v
    else:
        z = min(-(v + bv) / nbv_vt, np.log(most / saturation))
        i, g = -saturation * np.exp(z) * (1 - (v + bv) / nbv_vt - z), saturation * np.exp(z) / nbv_vt
    if isr > 0:
        z = min(v / nr_vt, np.log(most / isr))
        grown, steeper = np.expm1(z) + np.exp(z) * (v / nr_vt - z), np.exp(z) / nr_vt
        width = (1 - v * per_vj) ** 2 + 0.005
        i += isr * grown * width**half_m
        g += isr * (steeper - grown * 2 * half_m * per_vj * (1 - v * per_vj) / width) * width**half_m
    if i > 0:
        s = np.sqrt(i * per_ikf)
        i, g = i / (1 + s), g * (1 / (1 + s) - s / 2 / (1 + s) ** 2)
    return i + gmin * v, g + gmin


def reference_voltages(circuit: cs.Circuit) -> Floats:
    """Node voltages by brute force: every state of the perfect diodes, each a smooth convex problem in dense algebra.

    A state says which perfect diodes conduct: those are ties, the others are open. The answer is the state whose
    currents and gaps have the right signs.
    """
    dense, d = _dense(circuit), circuit.ideal_diodes
    n = dense.injected.size
    diodes = np.zeros((len(d), n))
    for k, (a, b) in enumerate(zip(d.a, d.b, strict=True)):
        diodes[k, a] += 1.0
        diodes[k, b] -= 1.0
    for state in product([False, True], repeat=len(d)):
        on = np.array(state, bool)
        constraints = np.concatenate([np.eye(1, n), dense.ties, diodes[on]])
        levels = np.concatenate([[0.0], dense.e, d.vf[on]])
        v = _smooth(dense, constraints, levels)
        if v is None:
            continue
        scale = max(np.abs(v).max(), 1e-9)
        pull = _residual(dense, v)[0]  # what ties and diodes must carry away
        currents = lstsq(constraints.T, -pull)[0][1 + len(dense.e) :]
        gaps_fine = (diodes @ v <= d.vf + 1e-9 * scale).all()
        if gaps_fine and (currents >= -1e-9 * np.abs(dense.laplacian).max() * scale).all():
            return v[: len(circuit.nodes)]
    raise AssertionError("no state of the perfect diodes fits")


def _residual(dense: Dense, v: Floats) -> tuple[Floats, Floats]:
    """Current out of every node and its Jacobian, ties and perfect diodes left out."""
    out, slope = dense.laplacian @ v - dense.injected, dense.laplacian.copy()
    for a, k, kind, p in dense.junctions:
        i, g = law(kind, p, float(v[a] - v[k]))
        out[a] += i
        out[k] -= i
        slope[a, a] += g
        slope[k, k] += g
        slope[a, k] -= g
        slope[k, a] -= g
    return out, slope


def _smooth(dense: Dense, constraints: Floats, levels: Floats) -> Floats | None:
    """Minimise the co-content on the plane constraints v = levels: Newton with an exact line search; None: no plane."""
    v = lstsq(constraints, levels)[0]
    if np.abs(constraints @ v - levels).max() > 1e-9 * max(np.abs(levels).max(), 1e-9):
        return None
    basis = null_space(constraints)
    if not basis.size:
        return v
    for _ in range(500):
        out, slope = _residual(dense, v)
        gradient = basis.T @ out
        step = -basis @ np.linalg.solve(basis.T @ slope @ basis, gradient)
        low, high = 0.0, 1.0

        def along(t: float, v: Floats = v, step: Floats = step) -> float:
            return float(_residual(dense, v + t * step)[0] @ step)

        if along(1.0) > 0:
            for _ in range(30):
                middle = 0.5 * (low + high)
                low, high = (low, middle) if along(middle) > 0 else (middle, high)
        v = v + high * step
        if np.abs(step).max() <= 1e-11 * np.abs(v).max():
            return v
    raise AssertionError("the reference solver has not converged")


# -- rewriting decks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """One element of a flat deck; `{a}` and `{b}` are its nodes."""

    name: str
    a: str
    b: str
    value: str

    def text(self) -> str:
        return f"{self.name} {self.a} {self.b} {self.value}"


def flat_cards(circuit: cs.Circuit, conductance: float = 1.0, current: float = 1.0, voltage: float = 1.0) -> list[Card]:
    """Every element as a plain card; conductances (with diode areas), currents and source voltages times a factor."""
    netlist, nodes = circuit.netlist, circuit.netlist.nodes
    cards: list[Card] = []

    def add(kind: str, row: int, value: str) -> None:
        table = netlist.tables[kind]
        cards.append(Card(f"{kind}{len(cards)}", nodes[table.a[row]], nodes[table.b[row]], value))

    conductors, ties, sources = circuit.conductors, circuit.ties, circuit.current_sources
    live = {int(row): k for k, row in enumerate(conductors.row) if conductors.kind[k] == 0}
    for row, r in enumerate(netlist.tables["R"].values["r"]):
        if np.isfinite(r):
            add("R", row, f"g={float(conductors.g[live[row]]) * conductance!r}" if r > 0 else "0")
    for row in range(len(netlist.tables["L"])):
        add("L", row, "1")
    for k in np.flatnonzero(ties.kind == 1):
        add("V", int(ties.row[k]), repr(float(ties.e[0, k]) * voltage))
    for row in range(len(sources)):
        add("I", row, repr(float(sources.i[0, row]) * current))
    table = netlist.tables["D"]
    for row in range(len(table)):
        model, area, m = (float(table.values[column][row]) for column in ("model", "area", "m"))
        name = netlist.models[int(model)].name
        add("D", row, f"{name}_{int(model)} area={area!r} m={m * conductance!r}")
    table = netlist.tables["N"]
    for row, (number, m) in enumerate(zip(table.values["model"], table.values["m"], strict=True)):
        add("N", row, f"{netlist.models[int(number)].name}_{int(number)} m={float(m) * conductance!r}")
    for x in circuit.crossbars:
        for i, j in np.argwhere(x.g > 0):
            g = float(x.g[i, j]) * conductance
            cards.append(Card(f"R{len(cards)}", nodes[x.rows[i]], nodes[x.cols[j]], f"g={g!r}"))
    return cards


def model_cards(circuit: cs.Circuit) -> list[str]:
    """The .model cards that flat_cards refer to."""
    lines = []
    for k, model in enumerate(circuit.netlist.models):
        values = " ".join([*(f"{key}={value!r}" for key, value in model.params.items()), *map(repr, model.points)])
        lines.append(f".model {model.name}_{k} {model.type}({' '.join(sorted(model.flags))} {values})")
    return lines


def flat_text(circuit: cs.Circuit, **factors: float) -> str:
    """A plain deck without arrays or subcircuits."""
    return "\n".join(["flat", *model_cards(circuit), *(card.text() for card in flat_cards(circuit, **factors))])


def renumbered(circuit: cs.Circuit, rng: np.random.Generator) -> tuple[str, Mapping[str, str]]:
    """The flat deck with its cards shuffled and its nodes renamed; and the new name of each node."""
    names = [f"m{k}" for k in rng.permutation(len(circuit.nodes))]
    new = {"0": "0"} | dict(zip(circuit.nodes[1:], names[1:], strict=True))
    cards = [Card(c.name, new[c.a], new[c.b], c.value).text() for c in flat_cards(circuit)]
    lines = [*model_cards(circuit), *cards]
    return "\n".join(["shuffled", *(lines[k] for k in rng.permutation(len(lines)))]), new


def voltages(solution: cs.Solution, nodes: list[str]) -> Floats:
    """(batch, len(nodes)) by name."""
    return np.stack([solution.voltage(node) for node in nodes], axis=1)


def assert_close(found: Floats, wanted: Floats, relative: float) -> None:
    """Equal within `relative` of the largest wanted value."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=relative * np.abs(wanted).max(initial=0.0))


# -- processes ---------------------------------------------------------------------------------------------------------


@contextmanager
def process(
    command: Sequence[str], stdout: int | IO[str] = subprocess.PIPE, seconds: float = 120, **options: object
) -> Iterator[subprocess.Popen[str]]:
    """A program with its stderr as a pipe, killed after so many seconds and at the end: a test that fails ends too.

    Ctrl-C reaches it also where this process ignores it: in what a shell starts in the background (`make test &`)
    SIGINT is ignored, and a child would inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        running = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    finally:
        signal.signal(signal.SIGINT, before)
    late = threading.Timer(seconds, running.kill)
    late.start()
    with running:
        try:
            yield running
        finally:
            late.cancel()
            running.kill()  # nothing, once it has ended


def end_while_ngspice_runs(command: Sequence[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Send SIGTERM to a program once it runs ngspice, which only sleeps here; its exit code and what it said on stderr.

    Neither ngspice nor its temporary folder may be left. `folder` is for ngspice and temporary folders.
    """
    program, pid, temporary = folder / "ngspice", folder / "pid", folder / "temporary"
    say = f"echo $$ > {pid}.new; mv {pid}.new {pid}"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\n{say}\nexec sleep 90\n')
    program.chmod(0o755)
    temporary.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(temporary))
    with process(command) as running:
        while not pid.exists():
            assert running.poll() is None
            time.sleep(0.05)
        assert list(temporary.glob("circuitsim-*"))
        running.send_signal(signal.SIGTERM)
        said = running.communicate(timeout=30)[1]
    assert not list(temporary.glob("circuitsim-*"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    return running.returncode, said


def flat(circuit: cs.Circuit) -> str:
    """The circuit as plain SPICE."""
    out = io.StringIO()
    flatten(circuit, out)
    return out.getvalue()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it is true, for a minute at most."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it took more than a minute")


def row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on many rows are solved one by one, also where they can be solved together."""
    monkeypatch.setattr(tiles, "together", lambda problem: False)
    monkeypatch.setattr(aside, "worth_it", lambda problem: False)
    monkeypatch.setattr(regions, "straight", lambda network: False)


def parts(netlist: Netlist) -> dict[str, Any]:
    """All that was read, to the last bit, and in the same order."""
    found: dict[str, Any] = {name: getattr(netlist, name) for name in ("nodes", "models", "notes")}
    found["arrays"] = list(netlist.arrays.items())
    for kind, table in netlist.tables.items():
        found[kind] = table.names
        columns = {"a": table.a, "b": table.b, "seq": table.seq, "order": table.order, **table.values, **table.links}
        found |= {f"{kind} {key}": column.tobytes() for key, column in columns.items()}
    return found | {crossbar.name: crossbar.g.tobytes() for crossbar in netlist.crossbars}
