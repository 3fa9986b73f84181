"""The fast path for plain cards and the general path read a deck alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitsim.errors import NetlistError
from circuitsim.netlist import Netlist, parse_netlist, source
from circuitsim.netlist.scan import Scan, scan

CARDS = [
    "R{k} a b {v}", "R{k} n{k} gnd 1.5e3k", "r{k} A[1] b 4.7k", "V{k} n{k} 0 {v}", "I{k} 0 b 2m", "R{k} (a,b) {v}",
    "R{k} a b {{1k+1}}", "D{k} a b dm", "* comment", "", "R{k} a b\n+ 2.5k", "R{k} a b 10ohm ; load", "X{k} a b pair",
    "R{k}[0:1] v[0:1] 0 1k", "L{k} a c 1m", "R{k} a 0 0",
]  # fmt: skip
ENDING = "\n.model dm d\n.subckt pair p q\nR1 p m 1k\nR2 m q 2k\n.ends\n.end\n"


def read_generally(text: str, monkeypatch: pytest.MonkeyPatch) -> Netlist:
    def no_plain(data: bytes, has_title: bool = True, plain_allowed: bool = True) -> Scan:
        return scan(data, has_title=has_title, plain_allowed=False)

    with monkeypatch.context() as patch:
        patch.setattr(source, "scan", no_plain)
        return parse_netlist(text)


def assert_same(one: Netlist, other: Netlist) -> None:
    assert one.nodes == other.nodes
    assert one.arrays == other.arrays
    for kind, table in one.tables.items():
        twin = other.tables[kind]
        assert table.names == twin.names
        for a, b in ((table.a, twin.a), (table.b, twin.b), (table.seq, twin.seq)):
            np.testing.assert_array_equal(a, b)
        for column, values in table.values.items():
            np.testing.assert_array_equal(values, twin.values[column])
        assert [one.at(seq) for seq in table.seq] == [other.at(seq) for seq in twin.seq]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(CARDS), st.floats(1e-9, 1e9)), min_size=1, max_size=25))
def test_fast_path_and_general_path_agree(cards: list[tuple[str, float]]) -> None:
    lines = [card.format(k=k, v=repr(value)) for k, (card, value) in enumerate(cards)]
    text = "\n".join(["title", "Vs in 0 1", *lines]) + ENDING
    assert_same(parse_netlist(text), read_generally(text, pytest.MonkeyPatch()))


@pytest.mark.parametrize("line", ["R1 a b -5", "V0 a b 1", "r0 a b 1", "R[1] a 0 1k"])
def test_both_paths_refuse_alike(line: str) -> None:
    text = f"title\nV0 in 0 1\nR0 in 0 1k\nR[0:3] in 0 1k\n{line}\n"
    messages = []
    for read in (parse_netlist, lambda t: read_generally(t, pytest.MonkeyPatch())):
        with pytest.raises(NetlistError) as caught:
            read(text)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
