"""Instances of one subcircuit, in an array or of X cards in a row, read at once and one by one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import parts

from circuitsim import Circuit, parse
from circuitsim.errors import NetlistError
from circuitsim.netlist import Netlist, read_netlist
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.revalue import Revaluer
from circuitsim.netlist.template import PATH

expand = import_module("circuitsim.netlist.expand")  # the package has a function of this name

TOP = "t\nV1 a 0 1\nR0 a b 1k\nR9 b 0 1k\n.model top D(is={aunif(2p, 1p)})\n"
FOUR = "X[0:3] a b cell r=@four.npy\n.subckt cell p q r=1\n"
AT_ONCE = {
    "values": "X[0:4] a w[0:4] cell r={1k + 1}\n.subckt cell p q r=1 g=2m\n.param u={r * 2}\nR1 p m {u}\n"
    "R2 m q g={g} tc1=1m temp=40\nI1 m 0 {r * 1u}\n.ends\n",
    "files": "X[0:3] a w[0:3] cell r=@four.npy\nXg[0:1][0:2] a g[0:1][0:2] cell r=@grid.npy\n"
    ".subckt cell p q r=1\nR1 p q {r * 1k}\nR2[0:1] p n[0:1] @two.npy\nR3[0:1] n[0:1] q {r > 2 ? 1k : 1k / r}\n.ends\n",
    "draws": "X[0:4] a b cell r={agauss(1k, 9, 1)}\nR3 a b {aunif(1k, 9)}\n.subckt cell p q r=1\n"
    ".param u={aunif(1, 0.5)} v={gauss(1, 0.1, 1)}\nR1 p q {r * u}\nR2[0:2] p q {v * aunif(1k, 9) + agauss(9, 1, 1)}\n"
    "R3 p q {u * 1k}\nD1 p q top area={aunif(1, 0.1)} m={limit(2, 1)}\n.ends\n",
    "nodes": ".global vdd\nX[0:3] w[0:3] w[0] 0 cell\nXd[3:0] vdd GND W[2] cell\nR3 vdd a 1k\nR4[0:3] w[0:3] 0 1k\n"
    ".subckt cell p q s\nR1 s vdd 1k\nR2 P m 1k\nR3 m Q 1k\nR4 p 0 1k\nG1 m gnd p s 1m\nE1 e 0 m q 2\n"
    "R5 e m 1k\n.ends\n",
    "controlled sources": FOUR + "R1 p m 1k\nR2 m n {r}\nR3 n q 1k\nG1 p m m n 1m\nG2 q n n p {r * 1m}\nE1 s p m q 2\n"
    "R4 s q 1k\nE2 u 0 n m {r}\nR5 u p 1k\n.ends\n",
    "nested": "X[0:2] a b outer s={aunif(3, 1)}\nXone a b outer\n.subckt outer p q s=2\n.param z={aunif(1, 0.5)}\n"
    "X1 p m cell r={s}\nX2[0:2] m q cell r={z * agauss(3, 1, 1)}\nX3 p q cell\n"
    ".subckt cell p q r=1\nR1 p x {r * 1k}\nR2[0:1] x q {z * 1k}\nC1 x 0 1n\n.ends\n.ends\n",
    "models": FOUR + ".model d D(is=1n n=1.5)\n.model s D(is={r * 1n})\n"
    ".model t tanh(imax={aunif(1m, 0.1m)} v0=0.5)\n.model l pwl(-1 {-r} 0 0 1 1)\nD1 p m d\nD2 p m s\nD3 p m top\n"
    "N1 m q t\nN2 m q l m=3\nD4 p m s\n.ends\n",
    "clipped draws": FOUR + ".param u={aunif(1, 0.5)}\nR1 p q {u > 0 ? r * u : 1}\n.ends\n",
    "arrays in a row": "X[0:2] a b cell r=1\nXd[0:2] a c cell r=2\nXg[0:2] b c cell r=3\n.subckt cell p q r=1\n"
    "R1 p m {r}\nR2 m q {aunif(1k, 9)}\n.ends\n",
    "buses": "X[0:3] w[0:3][0:1] b cell\nXs[0:3] w[0][0:1] s[0:3] cell\nR3[0:3] w[0:3][0] a 1k\n.subckt cell p[1:0] q\n"
    "R1 p[0] m 1k\nR2[0:1] p[0:1] q {aunif(1k, 9)}\nX1 p[1:0] m in\n.subckt in P[0:1] q\nR1[0:1] p[1:0] q 1k\n.ends\n"
    ".ends\n",
    "multipliers": "X[0:3] a b cell m=2\nX1 a b cell\n.subckt cell p q\nR1 p q {1k * m}\nI1 p q 1m\n"
    "X2[0:2] p q in m=3\n.subckt in p q\nR1 p q 1k m=2\nD1 p q top\n.ends\n.ends\n",
}
IN_A_ROW = {  # X1, X2, ... are read at once
    "values": "X1 a b cell r=1k\nX2 a c cell R=2.5\nX3 c 0 cell r = 3\nXlast a c CELL r=1e3\n.subckt cell p q r=1\n"
    ".param u={r * 2}\nR1 p m {u}\nR2 m q g=1m tc1=1m temp=40\nI1 m 0 {r * 1u}\n.ends\n",
    "parameters": ".param lo=1k hi={lo * 9} z={aunif(1, 0.5)}\nX1 a c cell r={lo} s=lo\nX2 b c cell r=hi s=1k\n"
    "X3 c d cell r='hi' s=3k\nX4 c d cell r=2 s=hi\nX5 c d cell r=lo s=2\n"
    ".subckt cell p q r=1 s=2\nR1 p q {r * z}\nR2 p q {s}\nR3[0:1] p q {r + aunif(1, 0.5)}\n.ends\n",
    "cards between": "X1 n1 c cell\nR5 n3 n4 1k\nX2 n4 n3 cell\n* none\nV5 n6 n2 2\nX3 n2 d cell\n.param x=1\n"
    "X4 n7 n6 cell\n"
    "R6 n8 0 1k\nC1 n9 0 1n\nX6 n5 a cell\n.subckt cell p q\nR1 p m {aunif(1k, 9)}\nR2 m q 1k\n.ends\n",
    "rows of rows": "X1 a b row\nX2 b c row\nX3 c 0 row\n.subckt row p q\n.param lo=2\nXa p x cell r=lo\n"
    "Xb x y cell r=3\nXc y q cell r=7\nR9 p q 1k\nX9[0:2] p q cell r=1\n.ends\n.subckt cell p q r=1\n"
    "R1 p m {r * aunif(1k, 9)}\nR2 m q {r}\n.ends\n",
    "inside one": "X1 a b outer\nR7 x b r=3\nR8 y a r=3\n.subckt outer p q\nXa p x cell r=1\nXb x y cell r=2\n"
    "Xc y q cell r=3\nR1 x q r=1\n.ends\n.subckt cell p q r=1\nR1 p m {r}\nR2 m q r=1\n.ends\n",
    "unknown arguments": "X1 a b cell r=1 zz=1\nX2 a c cell r=2 zz=2\nX3 b c cell r=3 zz=3\n.subckt cell p q r=1\n"
    "R1 p q {r}\nR2[0:1] p q {r}\nR3[0:2] p q {r}\n.ends\n",
    "signs of zero": "X1 a b cell r=0\nX2 a c cell r=0\nX3 b c cell r=-0\nX4 b c cell r=0\n.subckt cell p q r=1\n"
    "I1 p q {r}\nR1 p q 1k\n.ends\n",
    "models": "X1 a b cell r=1\nX2 a b cell r=2\nX3 b a cell r=1\nX4 b 0 cell r=2\n.subckt cell p q r=1\n"
    ".model s D(is={r * 1n})\n.model t tanh(imax={aunif(1m, 0.1m)} v0=0.5)\nD1 p m s\nD2 p m top\nN1 m q t\n.ends\n",
    "buses": "X1 w[0:1] b cell\nX2 w[2:1] b cell\nX3 w[3:4] c cell\nR3[0:4] w[0:4] a 1k\n.subckt cell p[1:0] q\n"
    "R1 p[0] m 1k\nR2[0:1] p[0:1] q {aunif(1k, 9)}\nR4 m q 1k\n.ends\n",
    "one multiplier": "X1 a b cell m=2 r=3\nX2 a c cell m=2.0 r=4\nX3 c b cell m=2 r=3\n.subckt cell p q r=1\n"
    "R1 p q {r * m}\nD1 p q top\n.ends\n",
}
DIFFERENT = {  # X1, X2, ... are read one by one
    "arguments that draw": "X1 a b cell r={aunif(1k, 9)}\nX2 a b cell r={aunif(1k, 9)}\nX3 a b cell r={aunif(1k, 9)}\n"
    ".subckt cell p q r=1\nR1 p q {r + aunif(1, 0.1)}\n.ends\n",
    "parameters that draw": ".param z={aunif(1k, 9)}\nX1 a b cell r=z\nX2 a b cell r=z\nX3 a b cell r={z}\n"
    ".subckt cell p q r=1\nR1 p q {r + aunif(1, 0.1)}\n.ends\n",
    "parameters without a value yet": "X1 a b row\n.subckt row p q\n.param z={2 * aunif(1k, 9)}\nX1 p q cell r=1\n"
    "X2 p q cell r=z\nX3 p q cell r=z\n.ends\n.subckt cell p q r=1\nR1 p q {r + aunif(1, 0.1)}\n.ends\n",
    "formulas": "X1 a b cell r={2*3}\nX2 a b cell r={2*4}\nX3 a b cell r=2*5\n.subckt cell p q r=1\nR1 p q {r}\n"
    ".ends\n",
    "multipliers": "X1 a b cell m=1\nX2 a b cell m=2\nX3 a b cell m=3\n.subckt cell p q\nR1 p q {m}\n.ends\n",
    "other subcircuits": "X1 a b one\nX2 a b two\nX3 a b one\nX4 a b two\n.subckt one p q\nR1 p q 1k\n.ends\n"
    ".subckt two p q\nR1 p q 2k\n.ends\n",
    "other arguments": "X1 a b cell r=1\nX2 a b cell s=2\nX3 a b cell r=1\nX4 a b cell\n.subckt cell p q r=1 s=2\n"
    "R1 p q {r * s}\n.ends\n",
    "elements between": "X1 a b cell\nC1 a b 1\nX2 a b cell\nR7 a b r=1\nX3 a b cell\nD1 a b top\nX4 a b cell\n"
    ".subckt cell p q\nR1 p q {aunif(1k, 9)}\n.ends\n",
    "currents of sources": "X1 a b cell\nX2 a b cell\nX3 a b cell\n.subckt cell p q\nV1 p m 0\nR1 m q 1k\n"
    "F1 p q V1 2\n.ends\n",
    "numbers of draws": "X1 a b cell r=1\nX2 a b cell r=0\nX3 a b cell r=0\n.subckt cell p q r=1\n"
    "R1 p q {r > 0.5 ? aunif(1k, 9) : 1k}\n.ends\nR7 a b {aunif(1k, 9)}\n",
    "uses of what draws": ".param z={aunif(1k, 9)}\nX1 a b cell r=0\nX2 a b cell r=1\nX3 a b cell r=1\n"
    ".subckt cell p q r=1\nR1 p q {r > 0.5 ? z : 1k}\n.ends\n",
    "more inside": "X1 a b row\nX2 b c row\nX3 c 0 row\n.subckt row p q\nX1 p x cell\nX2 x y cell\nX3 y q cell\n"
    "X4 p q cell\n.ends\n.subckt cell p q\nR1 p q {aunif(1k, 9)}\n.ends\n",
    "more inside an array": "X1 a b row\nX2 b c row\nX3 c 0 row\n.subckt row p q\nX1 p q mid\n.ends\n"
    ".subckt mid p q\nX[0:3] p q cell\n.ends\n.subckt cell p q\nR1 p q {aunif(1k, 9)}\n.ends\n",
    "two": "X1 a b cell\nX2 a b cell\n.subckt cell p q\nR1 p q 1k\n.ends\n",
}
ONE_BY_ONE = {
    "crossbars of each": "X[0:3] a b cell r=@four.npy\nX2[0:4] b 0 cell r={aunif(1, 0.1)}\n.subckt cell p q r=1\n"
    "R1[0:1][0:2] x[0:1] y[0:2] {r * 1k}\nR2[0:1] x[0:1] p 1k\nR3[0:2] y[0:2] q 1k\nR4[0:1][0:2] x[0:1] y[0:2] "
    "{aunif(1k, 9)}\n.ends\n",
    "functions that draw outside": "X1 a b outer\n.func f() {g()}\n.func g() {aunif(1k, 9)}\n.subckt outer p q\n"
    ".param z={f()}\nX[0:3] p q cell r=@four.npy\n.subckt cell p q r=1\nR1 p q {r > 2 ? z : 1k}\n"
    "R2 p q {aunif(1k, 9)}\n.ends\n.ends\n",
    "draws outside that no instance takes": "X1 a b outer\n.subckt outer p q\n.param z={aunif(1k, 9)}\n"
    "X[0:3] p q cell r=@four.npy\nR2 p q {z}\n.subckt cell p q r=1\nR1 p q {r > 9 ? z : 1k}\n.ends\n.ends\n",
    "uses in two": ".param z={aunif(1k, 9)}\n" + FOUR + "R1 p q {r > 2 ? z : 1k}\n.ends\n",
    "uses in one": ".param z={aunif(1k, 9)}\n" + FOUR + "R1 p q {r < 2 ? z : 1k}\n.ends\n",
    "uses inside": FOUR + ".param u={aunif(1k, 9)} w={u}\nR1 p q {w + (r > 9 ? u : 1k)}\n.ends\n",
    "global nodes that are pins": ".global w[2]\nR7 w[2] 0 1\nX1 a b 0 a outer\n.subckt outer w[0] w[1] w[2] w[3]\n"
    "X[0:3] w[0:3] 0 cell\n.subckt cell p q\nR1 p q 1k\n.ends\n.ends\n",
    "remarks about models": FOUR + ".model d D(is={r * 1n} vb=5 foo)\nD1 p q d\n"
    "V1 p z 0\nR1 z q 1k\nF1 p q V1 2\n.ends\n",
    "currents of sources": "X[0:2] a b cell\n.subckt cell p q\nV1 p m 0\nR1 m q 1k\nF1 p q V1 2\n.ends\n",
    "crossbars": "X[0:2] a b cell\n.subckt cell p q\nR1[0:1][0:2] x[0:1] y[0:2] 1k\nR2[0:1] x[0:1] p 1k\n"
    "R3[0:2] y[0:2] q 1k\n.ends\n",
    "numbers of draws": FOUR + "R1 p q {r > 2 ? aunif(1k, 9) : 1k}\n"
    "R2 p q {agauss(1k, 9, 1)}\n.ends\nR3 a b {aunif(1k, 9)}\n",
    "draws outside": "X1 a b outer\n.subckt outer p q\n.param z={aunif(1k, 9)}\nX[0:3] p q cell r=@four.npy\n"
    ".subckt cell p q r=1\nR1 p q {r > 2 ? z : 1k}\nR2 p q {aunif(1k, 9)}\n.ends\n.ends\n",
    "multipliers of each": "X[0:3] a b cell m=@four.npy\n.subckt cell p q\nR1 p q {1k * m}\n.ends\n",
    "models before": "X[0:3] a b cell r=@four.npy\nD0 a b top\n.subckt cell p q r=1\n.model d D(is={r * 1n})\n"
    "D1 p q d\nV1 p m 0\nR1 m q 1k\nF1 p q V1 2\n.ends\n",
    "models before draws": FOUR + ".model d D(is={r * 1n})\nD1 p q d\nR1 p q {r > 2 ? aunif(1k, 9) : 1k}\n.ends\n",
    "two": "X[0:1] a b cell\n.subckt cell p q\nR1 p q 1k\n.ends\n",
}


@pytest.fixture(autouse=True)
def _few_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "_SEVERAL", 3)


def read(text: str, folder: Path) -> Netlist:
    np.save(folder / "four.npy", [1.0, 2.0, 3.0, 2.5])
    np.save(folder / "grid.npy", np.arange(1.0, 7.0).reshape(2, 3))
    np.save(folder / "two.npy", [7.0, 8.0])
    (folder / "deck.cir").write_text(TOP + text)
    return read_netlist(folder / "deck.cir", seed=3)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the instances whose cards are read, as they come."""
    seen: list[str] = []
    whole: Callable[..., None] = expand.read_card

    def read_card(reader: object, notes: object, card: object, scope: Any, order: int) -> None:
        seen.append(scope.path)
        whole(reader, notes, card, scope, order)

    monkeypatch.setattr(expand, "read_card", read_card)
    return seen


ALL = {
    **AT_ONCE,
    **ONE_BY_ONE,
    **{f"row of {name}": text for name, text in IN_A_ROW.items()},
    **{f"different {name}": text for name, text in DIFFERENT.items()},
}


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_instances_read_at_once_are_those_one_by_one(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parts(read(text, tmp_path))
    monkeypatch.setattr(expand, "_SEVERAL", 100)
    assert found == parts(read(text, tmp_path))


FAULTS = {
    "value": FOUR + "R1 p q {1 / (r - 3)}\n.ends\n",
    "member": FOUR + "R1[0:1] p q g={abs(r - 2.5) - 0.1}\n.ends\n",
    "parameter outside": "X1 a b outer\n.subckt outer p q\n.param z={1/0}\nX[0:3] p q cell r=@four.npy\nR5 p q {z}\n"
    ".subckt cell p q r=1\nR1 p q {r > 9 ? z : 1k}\n.ends\n.ends\n",
    "names": "R.X[3].R1 a b {1}\nR.X[2].R2 a b {1}\nX[0:3] a b cell\n.subckt cell p q\nR1 p q 1k\nR2 p q 1k\n.ends\n",
    "name of an instance": "X[2] a b cell\nX[0:3] a b cell\n.subckt cell p q\nR1 p q 1k\n.ends\n",
    "name of a plain card": "R.X[2].R1 a b 1k\nX[0:3] a b cell\n.subckt cell p q\nR1 p q 1k\n.ends\n",
    "name of a card in a row": "X1 a b cell\nX2 a b cell\nX1 a b cell\nX3 a b cell\n.subckt cell p q\nR1 p q 1k\n"
    ".ends\n",
    "name of an element in a row": "R.X3.R1 a b 1k\nX1 a b cell\nX2 a b cell\nX3 a b cell\n.subckt cell p q\n"
    "R1 p q 1k\n"
    ".ends\n",
    "value in a row": "X1 a b cell r=2\nX2 a b cell r=1\nX3 a b cell r=3\nX4 a b cell r=3\n.subckt cell p q r=1\n"
    "R1 p q {1 / (r - 3)}\n.ends\n",
    "argument in a row": "X1 a b cell r=2\nX2 a b cell r=1e999\nX3 a b cell r=oh\nX4 a b cell r=3\n"
    ".subckt cell p q r=1\n"
    "R1 p q {r}\n.ends\n",
    "multiplier": "X[0:3] a b cell m={-1}\n.subckt cell p q\nR1 p q 1k\n.ends\n",
}


@pytest.mark.parametrize("text", FAULTS.values(), ids=FAULTS)
def test_faults_are_those_of_instances_read_one_by_one(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NetlistError) as found:
        read(text, tmp_path)
    monkeypatch.setattr(expand, "_SEVERAL", 100)
    with pytest.raises(NetlistError) as alone:
        read(text, tmp_path)
    assert str(found.value) == str(alone.value)


@pytest.mark.parametrize("name", [*AT_ONCE, *ONE_BY_ONE])
def test_which_instances_are_read_at_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = counted(monkeypatch)
    read({**AT_ONCE, **ONE_BY_ONE}[name], tmp_path)
    by_themselves = defaultdict(set)
    for array, member in re.findall(r"^((?:X1\.)?X[dg]?)(\[[0-9\]\[]+\])", "\n".join(seen), re.MULTILINE):
        by_themselves[array].add(member)
    assert by_themselves and all(len(members) == 1 for members in by_themselves.values()) == (name in AT_ONCE)


@pytest.mark.parametrize("name", [*IN_A_ROW, *DIFFERENT])
def test_which_cards_in_a_row_are_read_at_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = counted(monkeypatch)
    read({**DIFFERENT, **IN_A_ROW}[name], tmp_path)
    found = {path.removeprefix("X1.").partition(".")[0] for path in seen}
    assert "X1" in found and (PATH in found or name in DIFFERENT)
    assert ("X2" in found) == (name in DIFFERENT) and (name in DIFFERENT or found.isdisjoint({"X3", "X4"}))


@pytest.mark.parametrize("model", ["D(is=1n mfg=Philips type=silicon bv=inf)", "pwl(-1 -1 0 0 1 2)", "tanh(v0=1)"])
def test_words_and_infinite_numbers_are_no_parameters(model: str, tmp_path: Path) -> None:
    text = f"X[0:3] a b cell\n.subckt cell p q\n.model d {model}\n{'D' if model[0] == 'D' else 'N'}1 p q d\n.ends\n"
    assert [model.name for model in read(text, tmp_path).models] == ["d"]


def test_a_model_without_parameters_is_one_for_all_instances(tmp_path: Path) -> None:
    names = [model.name for model in read(AT_ONCE["models"], tmp_path).models]
    assert {name: names.count(name) for name in names} == {"d": 1, "s": 4, "top": 1, "t": 4, "l": 4}


def test_elements_of_instances_take_new_values(tmp_path: Path) -> None:
    netlist = read(AT_ONCE["values"], tmp_path)
    changed = Revaluer(netlist).netlist(Changes(elements={"r.x[2].r1": 5.0})).tables["R"]
    row = changed.names.index("R.X[2].R1")
    assert changed.values["r"][row] == 5.0
    np.testing.assert_array_equal(np.flatnonzero(changed.values["r"] != netlist.tables["R"].values["r"]), row)


MODELS = {  # a model, and the numbers of its instances
    "shockley": (
        "D1 p q d",
        "D(is={is} rs={rs} ikf={ikf} isr={isr} m=0.4 bv=7)",
        {
            "is": [1e-9, 2e-9, 0.0, 1e-9, 1e-12, 0.0, 3e-9, 1e-12],
            "rs": [0.0, 1.0, 2.0, 3.0, 0.5, 0.0, 1.5, 0.0],
            "ikf": [0.0, 1e-3, 0.0, 2e-3, 1e-3, 0.0, 0.0, 1e-3],
            "isr": [0.0, 0.0, 0.0, 0.0, 1e-9, 0.0, 0.0, 2e-9],
        },
    ),
    "piecewise linear": (
        "D1 p q d m=2",
        "D(ron={ron} roff={roff} vfwd={vfwd} vrev=3 rrev={rrev})",
        {
            "ron": [1.0, 0.0, 2.0, 0.0, 1.0, 1e3],
            "roff": [1e3, 2e3, 1e3, 3e3, 1e3, 1e3],
            "vfwd": [0.5, 0.3, 0.0, 0.7, 0.7, 0.7],
            "rrev": [0.0, 0.0, 5.0, 1.0, 1e3, 1e3],
        },
    ),
    "tanh": (
        "N1 p q d m=3",
        "tanh(imax={i} v0={v} g={g})",
        {"i": [1.0, 0.0, 2.0, 0.0], "v": [1.0] * 4, "g": [0.0, 1.0, 2.0, 0.0]},
    ),
    "table": ("N1 p q d", "pwl(-1 {a} 0 0 1 {b} 2 4)", {"a": [-1.0, -2.0, 0.0, -3.0], "b": [1.0, 2.0, 2.0, 0.5]}),
}


def branches(circuit: Circuit) -> dict[str, list[list[float]]]:
    """What each element is made of."""
    found: dict[str, list[list[float]]] = {}
    for rows, values in (
        (circuit.conductors, circuit.conductors.g),
        (circuit.ideal_diodes, circuit.ideal_diodes.vf),
        (circuit.junctions, np.column_stack([circuit.junctions.law, circuit.junctions.params])),
    ):
        for k in range(len(rows)):
            value = np.ravel(values[k]).tolist()
            found.setdefault(circuit.element(rows, k), []).append([int(rows.a[k]), int(rows.b[k]), *value])
    return found


@pytest.mark.parametrize(("element", "model", "numbers"), MODELS.values(), ids=MODELS)
def test_instances_of_a_model_are_models_of_their_own(
    element: str, model: str, numbers: dict[str, list[float]]
) -> None:
    head = "t\nV1 a 0 1\nR0 a b 1k\nR9 b 0 1k\n"
    count = len(next(iter(numbers.values())))
    given = [{name: repr(values[k]) for name, values in numbers.items()} for k in range(count)]
    calls = "".join(f"X{k} a b cell {' '.join(f'{n}={v}' for n, v in one.items())}\n" for k, one in enumerate(given))
    defaults = " ".join(f"{name}=1" for name in numbers)
    together = parse(f"{head}{calls}.subckt cell p q {defaults}\n{element}\n.model d {model}\n.ends\n")
    flat = ""
    for k, one in enumerate(given):
        own = model
        for name, value in one.items():
            own = own.replace(f"{{{name}}}", value)
        flat += f"{element[0]}.X{k}.{element.replace(' p q d', f' a b d{k}')}\n.model d{k} {own}\n"
    alone = parse(head + flat)
    assert branches(together) == branches(alone)
    assert len(together.notes) <= 2 and {note.partition(":")[2] for _, note in together.notes} == {
        note.partition(":")[2] for _, note in alone.notes
    }


def test_the_instance_whose_series_resistance_overflows_is_named() -> None:
    def text(rs: float, area: float) -> str:
        calls = f"X1 a 0 c rs=1 area=1\nX2 a 0 c rs={rs!r} area={area!r}\nX3 a 0 c rs=2 area=1e-3\n"
        return f"t\nV1 a 0 1\n{calls}.subckt c p q rs=1 area=1\nD1 p q d area={{area}}\n.model d D(rs={{rs}})\n.ends\n"

    assert parse(text(5.0, 1e-2)).junctions.law.size == 3
    with pytest.raises(NetlistError, match=r"diode D\.X2\.D1: area 1e-290 .* the RS of its model, 1e\+30 ohm, overfl"):
        parse(text(1e30, 1e-290))
