"""Bad input: every deck in netlists/invalid gives exactly the message beside it, as the right kind of error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import circuitsim as cs

NETLISTS = Path(__file__).parent.parent / "netlists"
INVALID = sorted((NETLISTS / "invalid").glob("*.cir"))
VALID = sorted((NETLISTS / "valid").glob("*.cir"))


@pytest.mark.parametrize("path", INVALID, ids=lambda p: p.stem)
def test_invalid_deck_gives_its_message(path: Path) -> None:
    with pytest.raises(cs.NetlistError) as caught:
        cs.solve(cs.load(path))
    found = str(caught.value).replace(f"{path.parent}/", "").replace(str(path.parent), ".")
    assert found.rstrip("\n") == path.with_suffix(".txt").read_text(encoding="utf-8").rstrip("\n")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(cs.NetlistError, match="no such file"):
        cs.load(tmp_path / "nothing.cir")
    with pytest.raises(cs.NetlistError, match=r"[Dd]irectory"):
        cs.load(tmp_path)


def test_enormous_line_fails_with_a_short_message(tmp_path: Path) -> None:
    path = tmp_path / "long.cir"
    path.write_text("title\nR1 a b " + "x" * 20_000_000 + "\n")
    with pytest.raises(cs.NetlistError) as caught:
        cs.load(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_truncated_values_file(tmp_path: Path, kind: str) -> None:
    values = np.arange(1.0, 4.0)
    whole = tmp_path / f"w.{kind}"
    if kind == "npy":
        np.save(whole, values)
    else:
        np.savez(whole, k=values)
    whole.write_bytes(whole.read_bytes()[:-20])
    deck = tmp_path / "deck.cir"
    deck.write_text(f"title\nV1 a 0 1\nR[0:2] a 0 @w.{kind}{':k' if kind == 'npz' else ''}\n")
    with pytest.raises(cs.NetlistError, match=rf"deck\.cir:3: .*w\.{kind}"):
        cs.load(deck)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.sampled_from(VALID), st.data())
def test_mutated_deck_is_read_or_says_what_is_wrong(path: Path, data: st.DataObject) -> None:
    """Never another exception, whatever was deleted, doubled or replaced."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        k = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["delete", "double", "cut", "insert"]))
        if kind == "double":
            lines.insert(k, lines[k])
        elif kind == "delete" and len(lines) > 1:
            del lines[k]
        elif lines[k]:
            i = data.draw(st.integers(0, len(lines[k]) - 1))
            char = data.draw(st.sampled_from(list("0x+-*/(){}[]:='\"@,;$.e \t")))
            lines[k] = lines[k][:i] + ("" if kind == "cut" else char) + lines[k][i + (kind == "cut") :]
    try:
        cs.compile_problem(cs.parse("\n".join(lines), str(path)))
    except cs.CircuitError as error:
        assert str(error)
