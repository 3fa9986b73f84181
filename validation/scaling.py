"""`python -m validation.scaling`: seconds of newton and bcd on crossbars with wire resistance of growing side."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.table import Table

import circuitsim as cs
from circuitsim.gallery import wired_crossbar
from validation.measure import timed

_WIDTH = 100  # of the table when it does not go to a terminal
_GROWTH = 4  # power of the side: bcd's unknowns grow with its square, its sweeps at least so
SIDES = (16, 32, 64, 128, 256)
METHODS = ("newton", "bcd")


@click.command()
@click.option("--side", "sides", type=click.IntRange(min=1), multiple=True, help="Side of a crossbar. Repeatable.")
@click.option("--cell", type=click.Choice(["resistor", "diode"]), default="resistor", help="What is in each cell.")
@click.option("--limit", type=float, default=300.0, show_default=True, help="Leave bcd out beyond so many seconds.")
def main(sides: tuple[int, ...], cell: str, limit: float) -> None:
    """Compare both methods on n x n crossbars with 1-ohm wires; from the circuit to the certified answer."""
    table = Table("side", "unknowns", *(f"{method}: {what}" for method in METHODS for what in ("s", "steps", "KCL")))
    for column in table.columns:
        column.justify = "right"
    for row in study(sorted(sides or SIDES), cell, limit):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


def study(sides: list[int], cell: str, limit: float) -> Iterator[list[str]]:
    """The rows of the table; a method that would take more than `limit` seconds, by its last side, is left out."""
    last: dict[str, tuple[int, float]] = {}
    for method in METHODS:
        cs.solve(cs.parse(wired_crossbar(2, cell)), cs.Settings(method=method))  # loads the compiled kernels
    for side in sides:
        click.echo(f"{side} x {side} ...", err=True)
        circuit = cs.parse(wired_crossbar(side, cell))
        cells = [str(side), str(cs.compile_problem(circuit).n_free)]
        for method in METHODS:
            before, seconds = last.get(method, (side, 0.0))
            if method == "bcd" and seconds * (side / before) ** _GROWTH > limit:
                cells += [f"> {limit:g}", "", "left out"]
                continue
            settings = cs.Settings(method=method, max_sweeps=10_000_000)
            seconds, solution = timed(cs.solve, circuit, settings, raise_on_failure=False)
            last[method] = side, seconds
            kcl = f"{solution.residuals.kcl_relative:.1e}" + ("" if solution.solved else f" {solution.status.name}")
            cells += [f"{seconds:.3g}", str(solution.steps), kcl]
        yield cells


if __name__ == "__main__":
    main(prog_name="python -m validation.scaling")
