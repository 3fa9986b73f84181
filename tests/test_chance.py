"""Values drawn for many seeds at once are, to the last bit, those of each seed alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.errors import NetlistError
from circuitsim.netlist import Netlist, parse_netlist, revalue
from circuitsim.netlist.chance import NotTogether, Recorder, Together, seed_by_seed, single
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.revalue import Revaluer

ROUNDED = "sin cos tan atan arctan sinh cosh tanh asinh exp ln log log10".split()
EXACT = "sqr sqrt abs sgn int nint floor ceil".split()
ALWAYS = "V1 a 0 1\nR1 a b 1k\nR2 b 0 {agauss(1k, 30, 3)}\n"

TOGETHER = {
    "every random function": "R3 b 0 {aunif(1k, 9)}\nR4 b 0 {unif(1k, 0.1)}\nR5 b 0 {gauss(1k, 0.1, 3)}\n"
    "R6 b 0 {limit(1k, 9)}\nR7 b 0 {agauss(1k, 9, 1) + aunif(0, 9) * agauss(1, 0.1, 2)}\n",
    "every function": "".join(f"I{k} b 0 {{{name}(aunif(1, 0.5))}}\n" for k, name in enumerate([*ROUNDED, *EXACT]))
    + "I90 b 0 {asin(aunif(0, 1)) + acos(aunif(0, 1)) + atanh(aunif(0, 0.9)) + acosh(aunif(3, 1))}\n"
    "I91 b 0 {max(aunif(0, 1), 0.1, aunif(0, 1)) - min(2, agauss(0, 1, 1))}\nI92 b 0 {pow(aunif(2, 1), aunif(2, 1))}\n"
    "I93 b 0 {pwr(aunif(2, 1), 2) + aunif(1, 1)^2 + 1.1^aunif(3, 2)}\n"
    "I94 b 0 {aunif(9, 3) % 2 + (aunif(9, 3) \\ 2) - -aunif(1, 1) / 3}\n",
    "conditions": ".param r={aunif(0, 1)}\nI1 b 0 {r > 0 ? r : 0}\nI2 b 0 {r < 0.5 && r > -0.5}\n"
    "I3 b 0 {r > 0 || !r}\nI4 b 0 {(r == r) + (r != 0) + (r <= 0) + (r >= 0)}\nI5 b 0 {r > 0 ? 1/r : -1/r}\n"
    "I6 b 0 {ternary_fcn(r > 0, 1, 2)}\nI7 b 0 {1 ? agauss(1, 1, 1) : aunif(1, 1)}\n",
    "parameters": ".param p={aunif(1, 0.1)} q={p * gauss(1, 0.1, 3)} s=3\n.func f(x) {x * agauss(s, 1, 1)}\n"
    "R3 b 0 {1k * q}\nR4 b 0 {f(1k) + f(p)}\nR5 b 0 p\nG1 b 0 a 0 {1m * q}\nE1 c 0 a 0 q\nR6 c 0 1k\n",
    "arrays": ".param p={aunif(1, 0.1)}\nR3[0:3] b 0 {gauss(9k, 0.1, 1)}\nR4[0:2] b 0 {1k * p}\n"
    "I1[0:2] b 0 {exp(aunif(p, 1))}\n"
    "R5[0:3] b 0 @w.npy m={agauss(1, 0.1, 1)}\nR6[0:3] b 0 g=@w.npy\nD1[0:3] b 0 d area={aunif(1, 0.1)}\n"
    "I2[0:3] b 0 {aunif(0, 1) > 0 ? 1 : 2}\n.model d D(is=1e-14)\n",
    "subcircuits": "X1 a b cell w={aunif(1, 0.1)}\nX2 b 0 cell w=2\nX3 b 0 cell\n"
    ".subckt cell p q w=1 z={agauss(2, 0.1, 1)}\nR1 p r {w * 1k * u}\nR2 r q {unif(7k, 0.2) * z}\nD1 p q dm {u}\n"
    ".param u={aunif(3, 1)}\n.model dm D(is={agauss(1p, 0.1p, 1)} n={u / 3 + 1})\n.ends\n",
    "two ranges": "R3[0:1][0:2] c[0:1][0:2] b {unif(1k, 0.1)}\nR4[0:1][0:2] c[0:1][0:2] 0 @grid.npy\n"
    "D1[0:1][0:2] c[0:1][0] e[0:2] d area={aunif(2, 1)} m=@grid.npy\nR5[0:2] e[0:2] 0 1k\n"
    "N1[0:1][0:2] c[0:1][2] e[0:2] sat m={aunif(1, 0.1)}\n.model d D(is=1e-14)\n.model sat tanh\n",
    "subcircuits in arrays": ".param p={aunif(1, 0.1)}\nX1[0:1][0:2] b c[0:1][0:2] cell w={aunif(1, 0.1)} z=@grid.npy\n"
    "X2[0:3] a c[0][0] cell w={p} z=@w.npy\nX3[0:1] b 0 cell w={agauss(p, 0.1, 1) * p} z={p} m=2\n"
    "X4[0:3] b 0 junction z=@w.npy\n.subckt junction p q z=1\nD1 p q dm\nN1 p q nm\nR1 p q rm l=1u w=1u\n"
    ".model dm D(is={z * 1e-14})\n.model nm tanh(imax={z * 1m} v0=0.5)\n.model rm R(rsh={z * 1k})\n.ends\n"
    ".subckt cell q r w=1 z=1\nR1[0:1] q r {w * gauss(1k, 0.1, 3)}\nR2 q r {z * 1k}\nR3 r 0 {aunif(1k, z)}\n.ends\n",
    "models": ".param t={aunif(1m, 1u)}\nR3 b 0 rm 1k\nR4 b 0 1k tc1={t} dtemp={aunif(10, 5)}\n"
    "R5 b 0 1k tce={t} dtemp=7\n"
    "R6[0:1] b 0 1k tce={aunif(1, 0.1)} dtemp=3\nR7 b 0 rs l={aunif(10u, 1u)} w=1u\nR8 b 0 g={1m * aunif(1, 0.1)}\n"
    "N1 b 0 sat m={aunif(1, 0.1)}\nN2 b 0 tab\nD1 b 0 real temp={aunif(27, 9)}\n"
    ".model rm R(tc1={aunif(1m, 0.1m)} tnom={aunif(20, 1)})\n.model rs R(rsh={aunif(100, 1)})\n"
    ".model sat tanh(imax={aunif(1m, 0.1m)} v0=0.5)\n.model tab pwl(-1 -1m 0 0 1 {aunif(2m, 1u)})\n"
    ".model real D(is={agauss(1p, 0.1p, 1)} rs=1)\n",
    "options": ".options seed=5 temp={aunif(30, 1)}\n.param x={aunif(1, 0.1)}\n.options gmin={1e-12 * x}\n"
    "R3 b 0 {1k * x}\n",
    "cards that are alike": "".join(f"R{k} b 0 {{aunif(1k, 9)}}\n" for k in range(3, 8)),
    "nothing drawn": "R3 b 0 {2 * 1k}\n",
}
ALONE = {  # how much is drawn depends on draws; a number of copies does; a waveform; a crossbar
    "branches": "R3 b 0 {aunif(0, 1) > 0 ? aunif(1k, 1) : 2k}\nR4 b 0 {aunif(1k, 1)}\n",
    "branches the other way": "R3 b 0 {aunif(0, 1) > 0 ? 2k : aunif(1k, 1)}\nR4 b 0 {aunif(1k, 1)}\n",
    "branches of another kind": "R3 b 0 {aunif(0, 1) > 0 ? agauss(1k, 1, 1) : aunif(1k, 1)}\n",
    "branches with parameters": "X1 b 0 c\n.subckt c p q\n.param a={aunif(1k, 1)} b={agauss(1k, 1, 1)}\n"
    "R1 p q {aunif(0, 1) > 0 ? a : b}\nR2 p q {a}\nR3 p q {b}\n.ends\n",
    "copies": "X1 b 0 c m={aunif(3, 1)}\n.subckt c p q\nR1 p q 1k\n.ends\n",
    "copies in an array": "X1[0:1] b 0 c m={aunif(3, 1)}\n.subckt c p q\nR1 p q 1k\n.ends\n",
    "waveform": "I1 0 b sin({aunif(1, 0.1)} 1)\n",
    "crossbar": "RW[0:1][0:2] x[0:1] y[0:2] {aunif(1k, 9)}\nR3[0:1] x[0:1] a 1k\nR4[0:2] y[0:2] 0 1k\n",
}


def deck(text: str, folder: Path, seed: int | None = None) -> Netlist:
    np.save(folder / "w.npy", np.arange(1.0, 5.0))
    np.save(folder / "grid.npy", np.arange(1.0, 7.0).reshape(2, 3))
    (folder / "deck.cir").write_text("t\n" + ALWAYS + text)
    return cs.load(folder / "deck.cir", seed).netlist


def same(one: Netlist, other: Netlist) -> bool:
    """In every bit of every value."""
    columns = ((t, name) for t in one.tables for name in one.tables[t].values)
    return (
        all(one.tables[t].values[name].tobytes() == other.tables[t].values[name].tobytes() for t, name in columns)
        and all(a.g.tobytes() == b.g.tobytes() for a, b in zip(one.crossbars, other.crossbars, strict=True))
        and one.models == other.models
        and one.options == other.options
    )


def evaluated(revaluer: Revaluer, seeds: range) -> list[Netlist | NetlistError]:
    """The netlist for each seed, or why there is none."""
    found: list[Netlist | NetlistError] = []
    for draw in revaluer.variants([Changes(seed=seed) for seed in seeds]):
        try:
            found.append(draw.netlist())
        except NetlistError as error:
            found.append(error)
    return found


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Changes]:
    """Evaluations for one seed alone, as they come."""
    seen: list[Changes] = []
    alone = Revaluer.netlist
    monkeypatch.setattr(Revaluer, "netlist", lambda self, changes: seen.append(changes) or alone(self, changes))
    return seen


@pytest.mark.parametrize("text", TOGETHER.values(), ids=TOGETHER.keys())
def test_draws_for_many_seeds_are_those_of_each(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netlist, seeds = deck(text, tmp_path), range(3, 24)
    monkeypatch.setattr(revalue, "_TOGETHER", 8)  # three parts, the last of five
    with monkeypatch.context() as patch:
        alone = counted(patch)
        found = evaluated(Revaluer(netlist), seeds)
        assert not alone
    revaluer = Revaluer(netlist)
    for seed, drawn in zip(seeds, found, strict=True):
        assert isinstance(drawn, Netlist) and same(drawn, revaluer.netlist(Changes(seed=seed)))
    assert not same(found[0], found[1]) and not same(found[0], netlist)


def varied(text: str) -> str:
    """The same with a parameter `vary` where it draws."""
    text = re.sub(r"\ba?gauss\(", "three(", re.sub(r"\ba?unif\(", "two(", text))
    return f".param vary=0.25\n.func two(x, y) {{x + y * vary}}\n.func three(x, y, z) {{x + y * vary / z}}\n{text}"


VARIED = {name: varied(text) for name, text in TOGETHER.items() if name != "options"}
VARIED["a definition in an instance"] = (
    "X1 b 0 c w={vary}\n.param vary=1\n.subckt c p q w=1\nR1 p q {w * 1k + temper + 2k}\n.ends\n"
)
CHANGES = {
    "parameter": [Changes(params={"vary": u}) for u in (0.25, -0.5, 0.75)],
    "temperature": [Changes(temp=temp, params={"vary": 0.5}) for temp in (-40.0, 0.0, 27.0, 125.0)],
    "all": [Changes(seed=k % 3, temp=20.0 * k, params={"vary": (k + 1) / 7}) for k in range(7)],
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("text", VARIED.values(), ids=VARIED.keys())
def test_netlists_of_many_changes_are_those_of_each(text: str, changes: list[Changes], tmp_path: Path) -> None:
    revaluer = Revaluer(deck(text, tmp_path, 4))
    alone = [revaluer.netlist(one) for one in changes]
    variants = list(Revaluer(revaluer.base).variants(changes))
    assert all(variant.many is variants[0].many is not None for variant in variants)
    for variant, netlist in zip(variants, alone, strict=True):
        assert same(variant.netlist(), netlist)
    whole = revaluer.together(variants[1:])
    assert whole is not None
    for kind, table in whole.tables.items():
        for name, column in table.values.items():
            each = [netlist.tables[kind].values[name] for netlist in alone[1:]]
            if name != "model":
                np.testing.assert_array_equal(column, np.concatenate(each))


@pytest.mark.parametrize(
    "text",
    [
        ".options gmin={1e-12 * u}\n.param u=1\nR3 b 0 1k\n",
        ".options temp={30 * u}\n.param u=1\nR3 b 0 1k\n",
        ".param u=1\nX1 b 0 c m={u}\n.subckt c p q\nR1 p q 1k\n.ends\n",
        ".param u=1\nR3 b 0 {u > 1 ? aunif(1k, 9) : 2k}\nR4 b 0 {aunif(1k, 9)}\n",
        ".param u=1 a={u > 2 ? aunif(1, 0.5) : 1} b={aunif(1k, 100)}\n.func second(x, y) {y}\n"
        ".options tnom={second(a, b) * 0.01}\nR3 b 0 1k tc1=1m\n",
    ],
    ids=["option", "temperature", "copies", "draws", "draws of an option"],
)
def test_changes_that_cannot_be_read_together_are_read_alone(text: str, tmp_path: Path) -> None:
    revaluer = Revaluer(deck(text, tmp_path))
    changes = [Changes(params={"u": float(u)}) for u in (1, 2, 3, 2)]
    variants = list(revaluer.variants(changes))
    assert all(variant.many is None for variant in variants)
    assert all(same(v.netlist(), revaluer.netlist(one)) for v, one in zip(variants, changes, strict=True))
    others = list(revaluer.variants([replace(changes[1], seed=seed) for seed in (1, 2)]))
    assert (others[0].many is None) == ("R4 b 0 {aunif" in text)  # u is the same
    assert all(same(v.netlist(), revaluer.netlist(v.changes)) for v in others)


@pytest.mark.parametrize("text", ALONE.values(), ids=ALONE.keys())
def test_what_cannot_be_drawn_together_is_drawn_alone(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netlist, seeds = deck(text, tmp_path), range(20)
    alone = counted(monkeypatch)
    found = evaluated(Revaluer(netlist), seeds)
    assert [changes.seed for changes in alone] == [*seeds]
    for seed, drawn in zip(seeds, found, strict=True):
        assert isinstance(drawn, Netlist) and same(drawn, cs.load(tmp_path / "deck.cir", seed).netlist)


@pytest.mark.parametrize(
    ("text", "fault", "seed"),  # the seed has none
    [
        ("R3 b 0 {aunif(1k, 1.5k)}\n", "resistor R3: negative resistance", 0),
        ("R3[0:2] b 0 g={aunif(1m, 1.3m)}\n", r"resistor R3\[[012]\]: negative conductance", 3),
        ("R3 b 0 {ln(aunif(1, 1.3)) + 9}\n", "logarithm of zero or of a negative number", 0),
        (".param x={aunif(0, 1)}\nR3 b 0 {sqrt(x) + 1}\n", "square root of a negative number", 0),
        ("R3 b 0 1k tc1={limit(1m, 1m)} tc=2m\n", "TC1 and TC are two names of one parameter", 1),
    ],
)
def test_a_seed_with_a_fault_says_so_and_the_others_are_drawn(text: str, fault: str, seed: int, tmp_path: Path) -> None:
    netlist = deck(text, tmp_path, seed)
    revaluer, faults = Revaluer(netlist), 0
    for seed, drawn in enumerate(evaluated(Revaluer(netlist), range(40))):
        if isinstance(drawn, Netlist):
            assert same(drawn, revaluer.netlist(Changes(seed=seed)))
            continue
        faults += 1
        with pytest.raises(NetlistError, match=fault) as alone:
            revaluer.netlist(Changes(seed=seed))
        assert str(alone.value) == str(drawn)
    assert 1 < faults < 39


def test_only_the_neighbours_of_a_fault_are_drawn_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netlist, seeds = deck("R3 b 0 g={agauss(1m, 1.2m, 3)}\n", tmp_path), range(200)  # R2 draws first
    faults = [k for k in seeds if np.random.default_rng(k).standard_normal(2)[1] < -2.5]
    alone = counted(monkeypatch)
    found = evaluated(Revaluer(netlist), seeds)
    assert [k for k, drawn in enumerate(found) if isinstance(drawn, NetlistError)] == faults
    drawn_alone = {changes.seed for changes in alone}
    assert drawn_alone >= set(faults) and len(alone) <= revalue._FEW * len(faults) < len(seeds) / 2


def test_large_netlists_are_drawn_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netlist, draws = deck("R3[0:9] b 0 {aunif(1k, 9)}\n", tmp_path), [Changes(seed=k) for k in range(10)]
    parts: list[list[Changes]] = []
    many = Revaluer._many
    monkeypatch.setattr(Revaluer, "_many", lambda self, part: parts.append(part) or many(self, part))
    monkeypatch.setattr(revalue, "_MOST_NUMBERS", 60)  # V1, R1, R2, ten more, and one
    assert len(list(Revaluer(netlist).variants(draws))) == 10
    assert parts == [draws[:4], draws[4:8], draws[8:]]
    monkeypatch.setattr(revalue, "_MOST_NUMBERS", 10)
    assert len(list(Revaluer(netlist).variants(draws))) == 10 and len(parts) == 3


def test_generators_give_the_same_numbers_in_one_go() -> None:
    """Each seed's, whatever was recorded with which seed; nothing but what was recorded may be asked for."""
    recorder = Recorder(np.random.default_rng(1))
    shapes = [("random", ()), ("random", (3,)), ("standard_normal", ()), ("standard_normal", (2, 2)), ("random", (1,))]
    for kind, shape in shapes:
        getattr(recorder, kind)(shape)
    together = Together([np.random.default_rng(seed) for seed in range(5, 9)], recorder.drawn)
    alone = [np.random.default_rng(seed) for seed in range(5, 9)]
    for kind, shape in shapes:
        found = getattr(together, kind)(shape)
        np.testing.assert_array_equal(found, np.stack([getattr(rng, kind)(shape) for rng in alone], axis=-1))
    with pytest.raises(NotTogether):
        together.random(())
    with pytest.raises(NotTogether):
        Together([np.random.default_rng(0)] * 2, recorder.drawn).standard_normal(())
    with pytest.raises(NotTogether):
        Together([np.random.default_rng(0)] * 2, recorder.drawn).random((2,))
    with pytest.raises(NotTogether):
        single(np.zeros(2))
    assert single(np.float64(3.0)) == 3.0


def test_functions_that_round_by_count_are_given_values_of_one_seed_at_a_time() -> None:
    """As they would be for that seed alone: numbers, or members one behind the other."""
    together = Together([np.random.default_rng(seed) for seed in range(3)], [])
    seen: list[tuple[Any, Any]] = []

    def compute(x: Any, y: Any) -> Any:
        seen.append((x, y))
        return np.subtract(x, y)

    each, members = np.array([5.0, 6.0, 7.0]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    np.testing.assert_array_equal(seed_by_seed(together, compute, 9.0, each), [4.0, 3.0, 2.0])
    assert seen == [(9.0, 5.0), (9.0, 6.0), (9.0, 7.0)] and not any(isinstance(y, np.ndarray) for _, y in seen)
    seen.clear()
    np.testing.assert_array_equal(seed_by_seed(together, compute, members, each), members - each)
    assert [x.tolist() for x, _ in seen] == [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
    assert all(x.flags.c_contiguous for x, _ in seen)
    seen.clear()
    assert seed_by_seed(together, compute, 9.0, 5.0) == 4.0
    assert seed_by_seed(np.random.default_rng(0), compute, members, 1.0).shape == members.shape
    assert len(seen) == 2


def test_runs_drawn_together_are_solved_as_before(tmp_path: Path) -> None:
    deck(TOGETHER["arrays"], tmp_path)
    result = cs.monte_carlo(cs.load(tmp_path / "deck.cir"), 6, seed=2)
    for k in range(6):
        alone = cs.solve(cs.load(tmp_path / "deck.cir", 2 + k))
        np.testing.assert_allclose(result.voltages[k], alone.voltages()[0], rtol=1e-8)
    assert result.statuses.tolist() == ["SOLVED"] * 6


# -- side by side ------------------------------------------------------------------------------------------------------

SERIES = "t\n.param r=1k\nV1 a 0 1\nR1 a b {r}\nR2 b 0 1k"


def together(text: str, ohms: Iterable[float], which: slice = slice(None)) -> Netlist | None:
    """Those of the netlists for so many ohms, side by side."""
    changes = [Changes(params={"r": float(value)}) for value in ohms]
    variants = list(Revaluer(parse_netlist(text)).variants(changes))[which]
    return variants[0].revaluer.together(variants)


def test_what_is_put_side_by_side() -> None:
    assert together(SERIES, (1, 2)) is not None
    pieces = together(SERIES + "\nN1 b 0 n\n.model n pwl(0 0 1 {r})", (1, 2))
    assert pieces is not None
    assert [model.points[-1] for model in pieces.models] == [1.0, 2.0]
    cards = "N1 b 0 n\nN2 b 0 m\nD1 b 0 d\n.model n pwl(0 0 1 {r})\n.model m pwl(0 0 1 5)\n.model d D(is={r})"
    several = together(f"{SERIES}\n{cards}", (1, 2))
    assert several is not None
    assert [several.tables[kind].values["model"].tolist() for kind in "ND"] == [[0, 1, 3, 4], [2, 5]]
    assert [model.points[-1:] for model in several.models] == [(1.0,), (5.0,), (), (2.0,), (5.0,), ()]
    assert [model.params.get("is") for model in several.models] == [None, None, 1.0, None, None, 2.0]
    with pytest.raises(NetlistError, match="R1: negative resistance -3 ohm"):
        together(SERIES, (1, 2, -3))


def test_what_is_not_put_side_by_side() -> None:
    """Trained resistors that are open; variants that were not read at once."""
    assert together(SERIES.replace("R2 b 0 1k", "R2 b 0 g=0\n.train R2"), (1, 2)) is None
    assert together(SERIES, range(1, 400), slice(1, 400, 299)) is None


def test_changes_of_elements_are_those_of_each() -> None:
    revaluer = Revaluer(parse_netlist(SERIES.replace("{r}", "1k")))
    variants = revaluer.variants([Changes(elements={"r1": 1.0}), Changes(elements={"r1": 2.0})])
    assert [variant.netlist().tables["R"].values["r"][0] for variant in variants] == [1.0, 2.0]
    there_and_back = list(Revaluer(parse_netlist(SERIES)).variants([Changes(params={"r": r}) for r in (2.0, 3.0, 2.0)]))
    assert all(variant.many is not None for variant in there_and_back)
    assert [variant.netlist().tables["R"].values["r"][0] for variant in there_and_back] == [2.0, 3.0, 2.0]
    same = [Changes(params={"r": ohm}, elements={"v1": 5.0, "r2": 7.0}) for ohm in (2.0, 3.0)]
    netlists = [variant.netlist() for variant in Revaluer(parse_netlist(SERIES)).variants(same)]
    assert [netlist.tables["R"].values["r"].tolist() for netlist in netlists] == [[2.0, 7.0], [3.0, 7.0]]
    assert [netlist.tables["R"].values["g"].tolist() for netlist in netlists] == [[1 / 2, 1 / 7], [1 / 3, 1 / 7]]
    assert [netlist.tables["V"].values["v"].tolist() for netlist in netlists] == [[5.0], [5.0]]
    grid = Revaluer(parse_netlist("t\nR1[0:1][3:2] w[0:1][0:1] w[0:1][1:2] 1k\nV1 w[0][0] w[1][2] 1\n"))
    assert grid.netlist(Changes(elements={"r1[1][3]": 7.0})).tables["R"].values["r"].tolist() == [1e3, 1e3, 7.0, 1e3]
    siemens = Revaluer(parse_netlist(SERIES.replace("{r}", "g=2m") + "\nR3[0:1] b 0 g=1m"))
    found = siemens.netlist(Changes(elements={"r1": 3.0, "r3[1]": 7.0})).tables["R"].values
    assert found["r"].tolist() == [3.0, 1e3, 1e3, 7.0] and found["g"].tolist() == [1 / 3, 1e-3, 1e-3, 1 / 7]
    with pytest.raises(NetlistError, match="no element 'r9'"):
        revaluer.netlist(Changes(elements={"r9": 1.0}))


def test_a_netlist_has_the_temperature_of_its_change() -> None:
    revaluer = Revaluer(parse_netlist(SERIES))
    assert [revaluer.netlist(Changes(temp=temp)).options.temp for temp in (None, 0.0, 50.0)] == [27.0, 0.0, 50.0]


def test_elements_at_one_are_found_in_any_case() -> None:
    assert Revaluer(parse_netlist(SERIES)).at_one(["R1"]).tables["R"].values["r"][0] == 1.0
