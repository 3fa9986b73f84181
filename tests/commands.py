"""What tests of commands and of what they write share: small decks, their results, and commands that are run."""

from __future__ import annotations

import shlex
from itertools import chain

from click.testing import CliRunner, Result

import circuitsim as cs
from circuitsim import cli
from circuitsim.io.commands import DEFECT
from circuitsim.io.output import Results

DIVIDER = "divider\nV1 in 0 10\nR1 in out 1k\nR2 out 0 3k\n"
FLOATING = "floating\nV1 a 0 1\nR1 a 0 1k\nV2 b c 2\nR2 b c 1k\n"  # b and c: an island, b is pinned
LOOP = "two sources side by side\nV1 a 0 5\nV2 a 0 5\nR1 a 0 1k\nL1 a b\nR2 b 0 1k\n"
ARRAY = "array\nVx[0:2] x[0:2] 0 1\nR1[0:2] x[0:2] y[0:2] 1k\nR2[0:2] y[0:2] 0 1k\n.output y[0:2]\n"
REFUSED = "refused\nI1 0 a 1m\nR1 a 0 1k\nR2 b 0 1k\n.model di D(ron=0)\nD1 a b di\n"
SECONDS = {"parse": 0.5, "compile": 0.25, "solve": 0.125, "total": 123.456}


def solved(text: str, **values: object) -> Results:
    circuit = cs.parse(text, "deck.cir")
    return Results(cs.solve(circuit.with_values(values), raise_on_failure=False))  # type: ignore[arg-type]


def unsolved(text: str) -> Results:
    """One sweep of a method that needs more, or a refusal."""
    return Results(cs.solve(cs.parse(text), cs.Settings("bcd", max_sweeps=1), raise_on_failure=False))


def run(*arguments: str) -> Result:
    """Run a command; anything but a clean exit is a failure of the test."""
    result = CliRunner().invoke(cli.main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code != DEFECT, result.stderr
    return result


def changed(options: str, change: str) -> str:
    """Options `--name value`, some of them changed."""
    words = shlex.split(f"{options} {change}")
    return shlex.join(chain.from_iterable(dict(zip(words[::2], words[1::2], strict=True)).items()))


def succeed(*arguments: str) -> str:
    """stdout of a command that must exit 0 and say nothing on stderr."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout
