"""The errors that circuitsim raises: each message names the place, the element, what was found and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuitsim.solution import Solution

_SHOWN_TEXT = 100  # characters of a source line that an error message repeats


@dataclass(frozen=True)
class At:
    """A place in a netlist: file, line number (from 1) and the text of that line."""

    path: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


class CircuitError(Exception):
    """Root of all errors that circuitsim raises on purpose."""


class NetlistError(CircuitError):
    """The netlist text is wrong; `at` says where (None if not in a file, e.g. for a value set from Python).

    `remarks`: what was noticed before, with places; the cause may be among it.
    `seed`: that of the random values that were drawn before, on which the fault may depend; None if there were none.
    """

    remarks: tuple[tuple[At, str], ...] = ()
    seed: int | None = None

    def __init__(self, message: str, at: At | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.at = at

    def __str__(self) -> str:
        if self.at is None:
            return self.message
        text = self.at.text.strip()
        shown = text if len(text) <= _SHOWN_TEXT else text[:_SHOWN_TEXT] + " ..."
        return f"{self.at}: {self.message}" + (f"\n    {shown}" if shown else "")


class TopologyError(NetlistError):
    """The circuit has no solution, or no meaning, for any solver; `nodes` and `elements` are the witness.

    `is_cut`: `nodes` are all those of an island into which sources push a current that cannot leave (or from which they
    draw one that cannot enter); without them the rest may have a solution.
    """

    def __init__(
        self,
        message: str,
        at: At | None = None,
        nodes: Sequence[str] = (),
        elements: Sequence[str] = (),
        is_cut: bool = False,
    ) -> None:
        super().__init__(message, at)
        self.nodes = tuple(nodes)
        self.elements = tuple(elements)
        self.is_cut = is_cut


class SettingsError(CircuitError):
    """A setting, an option of a command, or an input array is wrong."""


class BackendUnavailable(CircuitError):
    """The requested backend or package cannot be used here; the message says why and how to get it."""


class NotSolved(CircuitError):
    """The solver stopped without a certified answer; `solution` holds the solution reached so far."""

    def __init__(self, solution: Solution) -> None:
        super().__init__(f"{solution.status.name}: {solution.message}")
        self.solution = solution

    def __reduce__(self) -> tuple[type[NotSolved], tuple[Solution]]:
        """For pickling: by default an exception is rebuilt from its message alone."""
        return type(self), (self.solution,)


def whole(name: str, value: object) -> int:
    """The whole number given as the argument `name`; SettingsError for anything else, such as True or 2.0.

    >>> whole("runs", 3)
    3
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise SettingsError(f"{name} must be a whole number, found {value!r}")
    return int(value)


def of_row(row: int | None) -> str:
    """` (batch row 3)`, for messages; nothing for None, where there is no batch."""
    return "" if row is None else f" (batch row {row})"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names as text for a message; of many, only the first.

    >>> listed(["R1", "R2", "R3"], most=2)
    'R1, R2 and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
