"""Element cards that differ in names and nodes alone: read by copying, and each by itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import parts

from circuitsim import load
from circuitsim.errors import NetlistError
from circuitsim.netlist import Netlist, read_netlist
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.revalue import Revaluer

alike = import_module("circuitsim.netlist.alike")

TOP = "t\nV1 a 0 1\nR0 a b 1k\nR9 b 0 1k\n.model top D(is=2p)\n.param rw=2\n"
ROW = "R1 a c {tail}\nR2 c d {tail}\nr3 d E {tail}\nR4 e GND {tail}\nR5 D b {tail}\n"
COPIED = {  # the third and later cards of a tail
    "diodes": "D1 a c top\nD2 c d top\nR5 a d {3*rw}\nD3 d E top\nd4 e GND top\nD5[1] D b top\n",
    "wires": ROW.format(tail="{rw}"),
    "names of parameters": ROW.format(tail="rw"),
    "coefficients": ROW.format(tail="1k tc1=1m temp=50"),
    "conductances": ROW.format(tail="g = {rw * 1m}"),
    "models": ROW.format(tail="res L=3u") + ".model res R(rsh=3)\n",
    "sources": "V2 c 0 DC 2\nV3 d 0 DC 2\nV4 e 0 DC 2\nI1 c d DC 1m m=2\nI2 d e DC 1m m=2\nI3 e c DC 1m m=2\n",
    "areas": "D1 a c top 2 off\nD2 c d top 2 off\nD3 d e top 2 off\nD4 d e top 3 off\n",
    "own laws": "N1 a c t m=2\nN2 c d t m=2\nN3 d e t m=2\nR1 e 0 1\n.model t tanh(imax={aunif(1m, 0.1m)} v0=0.5)\n",
    "without values": "L1 a c 1u\nL2 c d 1u\nL3 d e 1u\nC1 c 0 {aunif(1, 1)}\n"
    "C2 c 0 {aunif(1, 1)}\nC3 c 0 {aunif(1, 1)}\n",
    "shared draws": ".param z={aunif(3, 1)}\n" + ROW.format(tail="{z}"),
    "draws between": "".join(
        f"D{k} a n{k} top\nR2{k} n{k} 0 {{aunif(1k, 9)}}\nRw{k} n{k} b {{rw}}\n" for k in range(9)
    ),
    "one instance": "X1 a b cell m=3\n.global vdd\n.subckt cell p q r=3\n.param u={2*r}\nR1 p c {u}\nR2 c d {u}\n"
    "R3 D vdd {u}\nR4 vdd q {u}\nr5 q 0 {u}\nD1 c P top m=2\nD2 d p top m=2\nD3 vdd p top m=2\n.ends\n",
    "instances": "X[0:3] a b cell r=@four.npy\n.subckt cell p q r=3\nR1 p c {r}\nR2 c d {r}\nR3 d q {r}\nR4 p q {r}\n"
    "R5 p q {r * aunif(1, 0.5)}\nR6 p q {r * aunif(1, 0.5)}\nR7 p q {r * aunif(1, 0.5)}\n.ends\n",
    "pins that are global": "X1 a b cell\n.global q\n.subckt cell p q\nR1 p c {rw}\nR2 c p {rw}\nR3 c q {rw}\n"
    "R4 c q {rw}\n.ends\n",
}
READ = {
    "files": ROW.format(tail="@one.npy"),
    "draws": ROW.format(tail="{aunif(1k, 9)}"),
    "draws for some": ".param z={aunif(1, 1)}\n" + ROW.format(tail="{z > 0 ? aunif(1k, 9) : 2}"),
    "remarks": ROW.format(tail="1M"),
    "remarks on expressions": ROW.format(tail="{2 * -rw * -1}"),
    "controlled": "G1 a c a b 1m\nG2 c d a b 1m\nG3 d e a b 1m\nG4 e 0 a b 1m\n",
    "arrays": "R1[0:2] a c {rw}\nR2[0:2] a c {rw}\nR3[0:2] a c {rw}\nR4[0:2] a d[0:2] {rw}\nR5[0:1] e 0 {rw}\n",
    "brackets": "R1 (a,c) {rw}\nR2 (c,d) {rw}\nR3 (d,e) {rw}\nR4 (e,0) {rw}\n",
    "brackets and blanks": "R1 (a c) {rw}\nR2 (c d) {rw}\nR3 (d e) {rw}\nR4 (e 0) {rw}\n",
    "commas": "R1 a, c {rw}\nR2 c, d {rw}\nR3 d ,e {rw}\nR4 e ,0 {rw}\nR5 a,, b, {rw}\n",
    "few": "R1 a c {rw}\nR2 a c {rw}\nR3 a c rw\nR4 a c rw\nr5 a c 2k m=1\n",
}
ALL = {**COPIED, **READ}


@pytest.fixture
def each(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """After its call every card is read by itself."""
    return lambda: monkeypatch.setattr(alike, "_CARD", re.compile("(?!)"))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The cards that are read by themselves, as they come: path of the instance, text behind the nodes."""
    seen: list[tuple[str, str]] = []
    whole: Callable[..., None] = alike.read_element

    def read_element(reader: object, card: Any, scope: Any, order: int) -> None:
        seen.append((scope.path, card.text.split(None, 3)[-1]))
        whole(reader, card, scope, order)

    monkeypatch.setattr(alike, "read_element", read_element)
    return seen


def write(text: str, folder: Path) -> Path:
    np.save(folder / "one.npy", 7.0)
    np.save(folder / "four.npy", [1.0, 2.0, 3.0, 2.5])
    (folder / "deck.cir").write_text(TOP + text)
    return folder / "deck.cir"


def read(text: str, folder: Path) -> Netlist:
    return read_netlist(write(text, folder), seed=3)


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_copied_cards_are_those_read_by_themselves(text: str, tmp_path: Path, each: Callable[[], None]) -> None:
    found = parts(read(text, tmp_path))
    each()
    assert found == parts(read(text, tmp_path))


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_so_are_new_values_and_variants(text: str, tmp_path: Path, each: Callable[[], None]) -> None:
    changes = [
        *(Changes(params={"rw": rw}, seed=seed) for rw, seed in ((3.0, 1), (3.0, 2), (4.0, 3))),
        *(Changes(temp=temp) for temp in (27.0, 50.0)),
    ]

    def found() -> list[dict[str, Any]]:
        revaluer = Revaluer(read(text, tmp_path))
        variants = [*revaluer.variants(changes[:3]), *revaluer.variants(changes[3:])]
        return [parts(netlist) for netlist in (*map(revaluer.netlist, changes), *(v.netlist() for v in variants))]

    first = found()
    each()
    assert first == found()


def test_values_given_to_elements_are_their_own(tmp_path: Path) -> None:
    changed = Revaluer(read(COPIED["wires"], tmp_path)).netlist(Changes(elements={"r4": 5.0})).tables["R"]
    values = dict(zip(changed.names, changed.values["r"].tolist(), strict=True))
    assert values == {"R0": 1e3, "R9": 1e3, "R1": 2.0, "R2": 2.0, "r3": 2.0, "R4": 5.0, "R5": 2.0}


@pytest.mark.parametrize("name", ALL)
def test_which_cards_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those with the same tail, and in one instance, two; all of them where they must be."""
    seen = counted(monkeypatch)
    read(ALL[name], tmp_path)
    drawn = [count for (_, tail), count in Counter(seen).items() if "aunif" not in tail]
    assert max(drawn) <= 2 if name in COPIED or name == "few" else max(Counter(seen).values()) > 2


def test_a_scope_keeps_so_many_tails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards with further ones are read by themselves."""
    monkeypatch.setattr(alike, "_MOST", 1)
    seen = counted(monkeypatch)
    read(COPIED["wires"] + "D1 a c top\nD2 c d top\nD3 d e top\nD4 e 0 top\n", tmp_path)
    assert Counter(seen) == {("", "{rw}"): 2, ("", "top"): 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("D1 a c nix\nD2 a c nix\nD3 a c nix\n", "line 7.*diode D1: no model 'nix'"),
        ("D1 a c top\nD2 a c top\nD3 a c top\nd2 a b top\n", r"line 10.*d2: this name is already taken .*line 8"),
        ("D1 a c top\nD2 a c top\nD3 a c top\nD4 a {c} top\n", r"line 10.*diode D4: \{c\} is not a node name"),
        ("D1 a c top\nD2 a c top\nD3 a c top\nD4 a 'c' top\n", r"line 10.*diode D4: \{c\} is not a node name"),
        ('D1 a c top\nD2 a c top\nD3 a c top\nD4 a "c" top\n', 'line 10.*diode D4: "c" is not a node name'),
        ("R1 a c {rw}\nR2 a c {rw}\nR3 a c {rw}\nR4 a = {rw}\n", "line 10.*R4: needs two nodes"),
        ("R1 a c {rw}\nR2 a c {rw}\nR3 a c {rw}\nR4 a c,d {rw}\n", "line 10.*R4: resistance 'd' is neither"),
        (
            "X1 a b cell\n.subckt cell p q\nD1 p q top\nD2 p q top\nD3 p q top\nD4 p q top\nd3 p q top\n.ends\n",
            r"line 13.*D\.X1\.d3: this name is already taken .*line 11",
        ),
    ],
)
def test_errors_name_the_card(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(NetlistError) as error:
        load(write(text, tmp_path))
    assert re.search(message.replace("line ", "deck.cir:"), str(error.value)), error.value


def test_files_are_those_beside_each_card(tmp_path: Path) -> None:
    for k, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "r.npy", 7.0 + k)
        (tmp_path / folder / "p.cir").write_text(f"R1{folder} a c @r.npy\nR2{folder} c 0 @r.npy\n")
    netlist = read(".include a/p.cir\n.include b/p.cir\n", tmp_path)
    assert netlist.tables["R"].values["r"].tolist() == [1e3, 1e3, 7.0, 7.0, 8.0, 8.0]
    assert {path.parent.name for path in netlist.text.data} == {"a", "b"}
