"""Other people's decks, from the folder that --corpus names, against the values of ngspice that lie beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from validation.real_decks import CORPUS, find_decks, try_deck

MANY = 50  # of a large corpus, so many have to be solved


def test_every_deck_is_solved_as_by_ngspice_or_refused_for_a_reason(
    request: pytest.FixtureRequest, record: Callable[[dict[str, Any]], None]
) -> None:
    folder: Path | None = request.config.getoption("corpus")
    if folder is None:
        pytest.skip(f"no decks of others: name their folder by --corpus DIR or {CORPUS}")
    outcomes = [try_deck(deck, folder) for deck in find_decks(folder)]
    assert outcomes, f"{folder} has no decks"
    for outcome in outcomes:
        row = {key: value for key, value in asdict(outcome).items() if key not in ("deck", "outcome", "message")}
        verdict = "AGREE" if outcome.outcome == "solved" else outcome.outcome
        record({"suite": "corpus", "name": outcome.deck, "verdict": verdict, "why": outcome.message, **row})
    wrong = [f"{o.deck}: {o.outcome}: {o.message or f'{o.where} by {o.worst:.1e}'}" for o in outcomes if not o.right]
    assert not wrong, "\n".join(wrong)
    solved = sum(outcome.outcome == "solved" for outcome in outcomes)
    assert solved >= min(MANY, (len(outcomes) + 1) // 2), f"{solved} of {len(outcomes)} decks are solved"
