"""Bad input: every deck in netlists/invalid gives exactly the message beside it, as the right kind of error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from growth import LIMIT, exponent
from hypothesis import given, settings
from hypothesis import strategies as st

import circuitsim as cs
from circuitsim.netlist.scopes import expression

NETLISTS = Path(__file__).parent.parent / "netlists"
INVALID = sorted((NETLISTS / "invalid").glob("*.cir"))
VALID = sorted((NETLISTS / "valid").glob("*.cir"))
ELSEWHERE = {"dup_in_an_include", "include_cycle", "include_not_utf8"}  # the fault lies in an included file


def message(error: cs.CircuitError, folder: Path) -> str:
    """What a user in this folder would read."""
    return str(error).replace(f"{folder}/", "").replace(str(folder), ".")


@pytest.mark.parametrize("path", INVALID, ids=lambda p: p.stem)
def test_invalid_deck_gives_its_message(path: Path) -> None:
    """The netlist is refused on loading (NetlistError), or its circuit by the solver (TopologyError)."""
    try:
        circuit = cs.load(path)
    except cs.NetlistError as error:
        assert type(error) is cs.NetlistError
        found = error
    else:
        with pytest.raises(cs.TopologyError) as caught:
            cs.solve(circuit)
        found = caught.value
        assert found.elements
        assert found.nodes
    assert message(found, path.parent) + "\n" == path.with_suffix(".txt").read_text(encoding="utf-8")
    assert found.at is not None
    if path.stem not in ELSEWHERE:
        assert message(found, path.parent).startswith(f"{path.name}:{found.at.line}: ")


def test_every_message_has_its_deck() -> None:
    assert [p.with_suffix(".txt") for p in INVALID] == sorted((NETLISTS / "invalid").glob("*.txt"))
    assert len(INVALID) > 200


# ---- what cannot lie in a folder of decks ----------------------------------------------------------------------------


def load_message(path: Path, folder: Path) -> str:
    with pytest.raises(cs.NetlistError) as caught:
        cs.load(path)
    return message(caught.value, folder)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cannot = "cannot read {}: {}; it must be a text file"
    assert load_message(tmp_path / "no.cir", tmp_path) == "no such file: no.cir; check its name and folder"
    (tmp_path / "folder").mkdir()
    assert load_message(tmp_path / "folder", tmp_path) == cannot.format("folder", "Is a directory")
    (tmp_path / "link").symlink_to("link")
    assert load_message(tmp_path / "link", tmp_path).startswith("cannot read link: ")
    assert load_message(tmp_path / "nul\0", tmp_path) == cannot.format("nul\0", "embedded null byte")
    assert load_message(tmp_path / ("n" * 5000), tmp_path).startswith("cannot read nnnn")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert load_message(tmp_path / "secret.cir", tmp_path) == cannot.format("secret.cir", "Permission denied")


def test_text_that_no_file_can_hold() -> None:
    with pytest.raises(cs.NetlistError) as caught:
        cs.parse("title\nR1 a 0 1\nR2 a \ud800 1\n", "deck")
    assert str(caught.value) == "deck:3: U+D800 is not valid UTF-8 text; remove it"
    with pytest.raises(cs.NetlistError, match=r"^deck:1: the file is empty"):
        cs.parse(" \n\t\n", "deck")


def test_includes_nested_too_deeply(tmp_path: Path) -> None:
    for k in range(200):
        (tmp_path / f"{k}.inc").write_text(f".include {k + 1}.inc\n")
    (tmp_path / "deck.cir").write_text("title\nR1 a 0 1\n.include 0.inc\n")
    assert load_message(tmp_path / "deck.cir", tmp_path) == (
        "99.inc:1: includes are nested more than 100 deep; merge some of the files\n    .include 100.inc"
    )


@pytest.mark.parametrize("line", ["R1 a 0 {}", "{}", "R1 a 0 {{{}", ".param {}", ".param a={}", "X1 {}", "V1 a 0 1 {}"])
@pytest.mark.parametrize("garbage", ["x", "x ", "1,", "[1:2]", "'", "{", "{x}"])
def test_enormous_lines_are_refused_quickly_and_shortly(line: str, garbage: str) -> None:
    def prepare(characters: int) -> Callable[[], None]:
        deck = "title\n" + line.format(garbage * (characters // len(garbage))) + "\n"

        def refuse() -> None:
            expression.cache_clear()
            with pytest.raises(cs.NetlistError) as caught:
                cs.parse(deck)
            assert len(str(caught.value)) < 1000

        return refuse

    assert exponent(prepare, 40_000, repeats=2) < LIMIT


def test_a_line_of_20_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "deck.cir"
    path.write_text("title\nR1 a b " + "x" * 20_000_000 + "\n")
    shown = "x" * 40 + " ..."
    assert load_message(path, tmp_path) == (
        f"deck.cir:2: resistor R1: resistance '{shown}' is neither a number nor a parameter; write digits, "
        f"such as 4.7k, or define .param {shown}=VALUE\n    R1 a b {'x' * 93} ..."
    )


@pytest.mark.parametrize("levels", [26, 60, 1000])
def test_a_netlist_that_would_explode_is_refused_before_it_does(levels: int) -> None:
    """Two instances of the level below on each: 2^levels resistors, which would not end."""
    lines = ["title", ".subckt s0 p q", "R1 p q 1k", ".ends"]
    for k in range(1, levels + 1):
        lines += [f".subckt s{k} p q", f"X1 p q s{k - 1}", f"X2 p q s{k - 1}", ".ends"]
    with pytest.raises(cs.NetlistError, match=r"^netlist:107: subcircuit 's26' expands to 67,108,864 elements"):
        cs.parse("\n".join([*lines, "V1 in 0 1", f"X1 in 0 s{levels}"]))


def test_damaged_value_files(tmp_path: Path) -> None:
    """A file cut short is named with the element that wants it; a changed byte may give other values, or an error."""
    np.savez_compressed(tmp_path / "whole.npz", w=np.arange(1.0, 200.0))
    np.save(tmp_path / "whole.npy", np.arange(1.0, 200.0))
    rng = np.random.default_rng(1)
    deck = tmp_path / "deck.cir"
    for kind, key in (("npy", ""), ("npz", ":w")):
        whole = (tmp_path / f"whole.{kind}").read_bytes()
        deck.write_text(f"title\nV1 a 0 1\nR[0:198] a 0 @bad.{kind}{key}\n")
        for _ in range(100):
            (tmp_path / f"bad.{kind}").write_bytes(whole[: rng.integers(len(whole))])
            found = load_message(deck, tmp_path)
            assert found.startswith(f"deck.cir:3: resistor R[0:198]: resistance: bad.{kind} is ")
            place = rng.integers(len(whole))
            (tmp_path / f"bad.{kind}").write_bytes(whole[:place] + rng.bytes(1) + whole[place + 1 :])
            with contextlib.suppress(cs.NetlistError):
                cs.load(deck)


# ---- mutated decks ---------------------------------------------------------------------------------------------------

WORDS = (
    "0 gnd -1 1e400 1e-320 1e30 nan inf {x} {1/0} {agauss(0,1,1)} [0:3] [0:1][0:2] x[0:3] @nofile.npy @ .ends + * ; $ "
    "= , ( ) { } ' \" m=0 m=-1 temp=1e6 tc1=1e9 scale=0 r= g=0 g=inf .lib .include .if .param .subckt .model .control "
    ".end ideal RON=0 IS=0 N=0 BV=0 XTI=9 RS=0 1T 1f 4k7 1,5 SIN(1 1 1) PWL(0 1) AC DC X1 K1 E1"
).split(" ")
CHARACTERS = "0123456789kKmMeE+-*/.,;$'\"{}()[]:=@ \t\n\\_<>!?&|^%~#aRVIDLCEFGHXgnd\0\x0b\x85\u00b5\ufeff"
MUTATION = st.tuples(
    st.sampled_from(["cut", "double", "replace", "insert", "word", "line", "twice", "swap"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(CHARACTERS),
    st.sampled_from(WORDS),
)


def mutate(text: str, kind: str, where: float, other: float, char: str, word: str) -> str:
    i = int(where * len(text))
    if kind in ("cut", "double", "replace", "insert"):
        new = {"cut": "", "double": text[i : i + 1] * 2, "replace": char, "insert": char + text[i : i + 1]}[kind]
        return text[:i] + new + text[i + 1 :]
    if kind == "word":
        words = text.split(" ")
        words[int(where * (len(words) - 1))] = word
        return " ".join(words)
    lines = text.split("\n")
    j, k = int(where * (len(lines) - 1)), int(other * (len(lines) - 1))
    if kind == "line":
        del lines[j]
    elif kind == "twice":
        lines.insert(k, lines[j])
    else:
        lines[j], lines[k] = lines[k], lines[j]
    return "\n".join(lines)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from(VALID), st.lists(MUTATION, min_size=1, max_size=4))
def test_mutated_deck_solves_or_says_what_is_wrong(path: Path, mutations: list) -> None:
    """Never another exception. (Values far out of range may overflow in the solver: its status says so.)"""
    text = path.read_text(encoding="utf-8")
    for mutation in mutations:
        text = mutate(text, *mutation)
    with np.errstate(all="ignore"):
        try:
            cs.solve(cs.parse(text, str(path)), cs.Settings(max_sweeps=50), raise_on_failure=False)
        except cs.CircuitError as error:
            assert str(error)
