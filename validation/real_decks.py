"""`python -m validation.real_decks [FOLDER]`: published decks, each solved and compared with ngspice, or refused.

NAME.op.tsv or NAME.op.tsv.gz beside a deck holds node voltages and currents of voltage sources, of E and H, and of
inductors as ngspice found them, a name and a value a line. A deck without one, by its suffix and named by no other
deck, is given to ngspice now. The decks belong to others and are not part of this repository.

Compared are all of these but ngspice's own inner nodes (`d1#internal`), and those that are not unique. The difference
of a voltage counts relative to the largest voltage of the deck, that of a current relative to the largest current, with
SMALLEST in their place where all are smaller: there ngspice's figures are rounding errors. ngspice ran with its default
gmin; circuitsim has none unless asked, so that it gets GMIN here, and all else as the deck says.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import circuitsim as cs
from circuitsim.build import build_circuit
from circuitsim.currents import ambiguous_elements, table_currents
from circuitsim.io.commands import Command
from circuitsim.io.raw import NgspiceError
from circuitsim.netlist import read_netlist
from circuitsim.spice import ngspice

CORPUS = "CIRCUITSIM_CORPUS"  # the variable of the environment that names their folder
GMIN = 1e-12  # S, ngspice's default
TOLERANCE = 1e-6  # relative
SMALLEST = {"v": 1e-6, "i": 1e-6}  # V, A
SUFFIXES = (".cir", ".ckt", ".net", ".sp", ".spice")  # of decks without stored values
OUTCOMES = ("solved", "refused", "differs", "not solved", "crashed", "not compared")
_INCLUDE = re.compile(r"""^\s*\.(?:inc|include|lib)\s+["']?([^"'\s]+)""", re.IGNORECASE | re.MULTILINE)
_WIDTH = 180  # of the table when it does not go to a terminal

REASONS = {  # why a deck may be refused, and what the message then says
    "POLY, VALUE, TABLE and gates of E and G": r"only linear controlled sources|gates \(|on no voltage and",
    "B sources": r"not formulas \(B\)",
    "values that depend on voltages": r"depends on a voltage or a current",
    "transistors": r"transistors \(\w\) are not supported",
    "other elements": r"elements '\w' are not supported",
    "device models": r"is of type \w+; it must be",
    "parameters of diodes": r"changes DC and is not supported|self-heating",
    "RKM notation, which ngspice reads otherwise": r"ngspice would read it as",
    "negative resistances": r"negative resistance",
    "currents that have nowhere to go": r"no element can carry this current",
}


@dataclass(frozen=True)
class Outcome:
    """What came of a deck. `worst`: largest relative difference, of `where`; NaN when there is no solution."""

    deck: str  # relative to the folder
    outcome: str  # of OUTCOMES
    worst: float = float("nan")
    where: str = ""
    compared: int = 0
    left_out: int = 0  # values of ngspice that are not unique
    reason: str = ""  # a key of REASONS; '' for a refusal that has none
    message: str = ""  # of the error, and what came of the rest when the deck was solved without a part
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether the deck is solved as ngspice solves it, where it does, or refused for a reason."""
        return self.outcome in ("solved", "not compared") or (self.outcome == "refused" and bool(self.reason))


def corpus() -> Path | None:
    """The folder of decks that CIRCUITSIM_CORPUS names; None: it names none."""
    named = os.environ.get(CORPUS)
    return Path(named) if named else None


def find_decks(folder: Path) -> list[Path]:
    """The decks with an operating point beside them, and those of SUFFIXES that no other includes."""
    points = {path.with_suffix("") if path.suffix == ".gz" else path for path in folder.rglob("*.op.tsv*")}
    stored = {path.with_name(path.name.removesuffix(".op.tsv")) for path in points}
    others = {path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES}
    included = {
        (path.parent / name).resolve()
        for path in stored | others
        for name in _INCLUDE.findall(path.read_text(errors="replace"))
    }
    return sorted(stored | {path for path in others if path.resolve() not in included})


def operating_point(deck: Path) -> dict[str, float]:
    """ngspice's values for a deck, stored or new: `v(out)`, `i(v1)`. Raises NgspiceError."""
    plain = deck.with_name(f"{deck.name}.op.tsv")
    packed = Path(f"{plain}.gz")
    if plain.exists() or packed.exists():
        text = plain.read_text() if plain.exists() else gzip.decompress(packed.read_bytes()).decode()
        return {name: float(value) for name, value in (line.split("\t") for line in text.splitlines())}
    gmin = read_netlist(deck).options.gmin or GMIN
    found = ngspice.operating_point(deck, options=f"{ngspice.tight_options(gmin)}\n.op")
    return {name if "(" in name or name.startswith("@") else f"v({name})": value for name, value in found.items()}


def solve_deck(deck: Path, lenient: bool = False) -> cs.Solution:
    """Load and solve a deck, with GMIN unless it has its own. Raises CircuitError."""
    netlist = read_netlist(deck)
    options = netlist.options
    circuit = build_circuit(replace(netlist, options=replace(options, gmin=options.gmin or GMIN)))
    return cs.solve(circuit, cs.Settings(lenient=lenient))


def our_values(solution: cs.Solution) -> Iterator[tuple[str, float, bool]]:
    """Names as ngspice has them, values, and which are unique: all node voltages, all currents that only KCL gives."""
    circuit = solution.circuit
    names, v = circuit.nodes, solution.voltages()[0].tolist()
    for k, unique in enumerate(solution.determined.tolist()):
        yield f"v({names[k].lower()})", v[k], unique
    for kind in "VLEH":
        table = circuit.netlist.tables[kind]
        current = table_currents(solution, kind, np.arange(len(table)))[0].tolist()
        for name, value, loose in zip(table.names, current, ambiguous_elements(solution, kind).tolist(), strict=True):
            yield f"i({name.lower()})", value, not loose


def compare(solution: cs.Solution, theirs: Mapping[str, float]) -> tuple[float, str, int, int]:
    """The largest relative difference (see above), of what; how many values were compared, and how many not unique.

    A value that only one side has makes the difference infinite; those of nodes that are left out do not count.
    """
    ours = {name: (value, unique) for name, value, unique in our_values(solution)}
    gone = {name for name, (value, _) in ours.items() if math.isnan(value)} if solution.circuit.dropped.size else set()
    wanted = {name: value for name, value in theirs.items() if "#" not in name and name not in gone}
    missing = (wanted.keys() ^ ours.keys()) - gone - {"v(0)"}
    if missing:
        return math.inf, ", ".join(sorted(missing)[:3]), 0, 0
    scale = {kind: max([SMALLEST[kind], *(abs(x) for name, x in wanted.items() if name[0] == kind)]) for kind in "vi"}
    worst, where, compared = 0.0, "", 0
    for name, value in wanted.items():
        if ours[name][1]:
            difference = abs(ours[name][0] - value) / scale[name[0]]
            compared += 1
            if not difference <= worst:  # NaN too
                worst, where = difference, name
    return worst, where, compared, len(wanted) - compared


def try_deck(deck: Path, folder: Path) -> Outcome:
    """Solve a deck and compare. One with a part that has no solution is refused, and solved without that part."""
    clock = time.perf_counter()
    found = Outcome(str(deck.relative_to(folder)), "refused")
    message = reason = ""
    try:
        try:
            solution = solve_deck(deck)
        except cs.TopologyError as error:
            if not error.is_cut:
                raise
            message, reason = place_and_message(error), reason_of(error)
            solution = solve_deck(deck, lenient=True)
        worst, where, compared, left_out = compare(solution, operating_point(deck))
        found = replace(found, worst=worst, where=where, compared=compared, left_out=left_out)
        outcome = "differs" if not worst <= TOLERANCE else "refused" if message else "solved"
        found = replace(found, outcome=outcome, reason=reason, message=message)
    except cs.NetlistError as error:
        found = replace(found, reason=reason_of(error), message=place_and_message(error))
    except NgspiceError as error:
        found = replace(found, outcome="not compared", message=str(error).split("\n")[0])
    except cs.NotSolved as error:
        found = replace(found, outcome="not solved", message=str(error))
    except Exception as error:  # a defect: the other decks are tried all the same
        found = replace(found, outcome="crashed", message=f"{type(error).__name__}: {error}")
    return replace(found, seconds=time.perf_counter() - clock)


def reason_of(error: cs.NetlistError) -> str:
    """The key of REASONS whose pattern an error has; '' for one without a place, or with no such pattern."""
    if error.at is None:
        return ""
    return next((name for name, pattern in REASONS.items() if re.search(pattern, error.message)), "")


def place_and_message(error: cs.NetlistError) -> str:
    """The error in a line, its file without folders."""
    return f"{Path(error.at.path).name}:{error.at.line}: {error.message}" if error.at else error.message


def print_table(outcomes: Iterable[Outcome], console: Console) -> None:
    """A row for each deck, then what the refused ones lack, and how many came out how."""
    outcomes = list(outcomes)
    table = Table(box=None, pad_edge=False)
    for name in ("deck", "outcome", "compared", "worst difference", "seconds", "reason"):
        table.add_column(name, justify="right" if name in ("compared", "seconds") else "left", overflow="fold")
    for o in outcomes:
        worst = "" if math.isnan(o.worst) else f"{o.worst:.1e} {o.where}"
        compared = f"{o.compared:,}" if o.compared else ""
        compared += f" + {o.left_out} not unique" if o.left_out else ""
        table.add_row(o.deck, o.outcome, compared, worst, f"{o.seconds:.2f}", o.message)
    console.print(table)
    groups: dict[str, list[str]] = {}
    for o in outcomes:
        if o.outcome == "refused":
            groups.setdefault(o.reason or "no reason", []).append(o.deck)
    console.print("\nRefused for")
    for reason, names in sorted(groups.items()):
        console.print(f"  {reason} ({len(names)}): {', '.join(names)}", soft_wrap=True)
    counts = {name: sum(o.outcome == name for o in outcomes) for name in OUTCOMES}
    console.print(f"\n{len(outcomes)} decks: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


@click.command(cls=Command)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), envvar=CORPUS)
def main(folder: Path) -> None:
    """Solve the decks of FOLDER and compare with ngspice's operating points. Default: what CIRCUITSIM_CORPUS names.

    Exit code 1: a deck differs, was not solved, crashed, or was refused for no known reason.
    """
    outcomes = [try_deck(deck, folder) for deck in find_decks(folder)]
    print_table(outcomes, Console(width=None if sys.stdout.isatty() else _WIDTH))
    sys.exit(not all(o.right for o in outcomes))


if __name__ == "__main__":
    main()
