"""`python -m validation.nonideal [TRAINED.cir]`: the same trained network with perfect and with real diodes.

A network is trained with perfect diodes; what is built has others. Each row of the table is the network with one model
in the place of all its diodes, solved exactly for the same test digits: how far hidden and output voltages move (root
mean square over nodes and digits, relative to that of the perfect network), how many digits it reads otherwise, and how
many wrong. Piecewise-linear diodes have a resistance RON or a forward voltage VFWD; Shockley diodes IS and N.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import circuitsim as cs
from circuitsim.build import build_circuit
from circuitsim.io.commands import HELP_NAMES, Command
from circuitsim.io.files import check_target, replacing
from circuitsim.netlist import read_netlist
from validation.digits import digit_inputs, train_quickly
from validation.measure import rendered, timed

Floats = NDArray[np.float64]

IDEAL, PWL, SHOCKLEY = "ideal", "piecewise linear", "Shockley"


@dataclass(frozen=True)
class Diode:
    """A model of a diode: its kind, and its parameters by SPICE's names."""

    kind: str
    parameters: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join(f"{key.upper()}={value:g}" for key, value in self.parameters.items())


PERFECT = Diode(IDEAL, {"ron": 0.0})
DIODES = (
    PERFECT,
    *(Diode(PWL, {"ron": ron, "vfwd": 0.0}) for ron in (1e-3, 1e-2, 1e-1, 1.0)),
    *(Diode(PWL, {"ron": 1e-3, "vfwd": vfwd}) for vfwd in (0.3, 0.7)),
    *(Diode(SHOCKLEY, {"is": amperes, "n": n}) for n in (0.01, 1.0, 2.0) for amperes in (1e-14, 1e-9, 1e-6, 1e-3)),
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    kind: str
    diode: str
    parameters: dict[str, float]
    hidden_change: float  # rms of the difference / rms, both over hidden nodes and digits
    output_change: float
    reread_percent: float  # digits that are read otherwise than with perfect diodes
    error_percent: float
    kcl_relative: float  # the worst certificate
    seconds: float


def with_diode(netlist: Path, diode: Diode) -> cs.Circuit:
    """The circuit of a netlist with this model in the place of all its models of diodes."""
    read = read_netlist(netlist)
    models = [
        replace(model, params=diode.parameters, flags=frozenset()) if model.type == "d" else model
        for model in read.models
    ]
    return build_circuit(replace(read, models=tuple(models)))


def study(netlist: Path, gain: float, count: int, diodes: Iterable[Diode] = DIODES) -> list[Row]:
    """Solve the first `count` test digits with perfect diodes, and with each of these. Raises CircuitError."""
    perfect = _solve(netlist, PERFECT, gain, count)
    return [_row(diode, perfect, _solve(netlist, diode, gain, count)) for diode in diodes]


@dataclass(frozen=True)
class _Answer:
    hidden: Floats  # (digits, hidden nodes) V
    outputs: Floats  # (digits, classes) V
    labels: NDArray[np.int64]
    kcl_relative: float
    seconds: float


def _solve(netlist: Path, diode: Diode, gain: float, count: int) -> _Answer:
    circuit = with_diode(netlist, diode)
    inputs, labels = digit_inputs(circuit, gain, count)
    seconds, solution = timed(lambda: cs.solve(circuit.with_values(inputs)))
    outputs = np.array(circuit.netlist.outputs)
    hidden = np.setdiff1d(np.arange(1, len(circuit.nodes)), [*outputs, *circuit.ties.a, *circuit.ties.b])
    return _Answer(
        solution.voltages(hidden),
        solution.voltages(outputs),
        np.array(labels),
        float(solution.residuals.kcl_relative),
        seconds,
    )


def _row(diode: Diode, perfect: _Answer, real: _Answer) -> Row:
    read, wanted = real.outputs.argmax(axis=1), perfect.outputs.argmax(axis=1)
    return Row(
        diode.kind,
        str(diode),
        diode.parameters,
        _change(real.hidden, perfect.hidden),
        _change(real.outputs, perfect.outputs),
        100 * float((read != wanted).mean()),
        100 * float((read != real.labels).mean()),
        real.kcl_relative,
        real.seconds,
    )


def _change(real: Floats, perfect: Floats) -> float:
    return float(np.sqrt(np.square(real - perfect).mean() / np.square(perfect).mean()))


# -- output ------------------------------------------------------------------------------------------------------------

HEADS = ("diode", "", "hidden change, %", "output change, %", "read differently, %", "test error, %", "KCL", "s")


def cells(row: Row) -> list[str]:
    """A row as texts below HEADS."""
    changes = [f"{100 * row.hidden_change:.3g}", f"{100 * row.output_change:.3g}"]
    errors = [f"{row.reread_percent:.2f}", f"{row.error_percent:.2f}"]
    return [row.kind, row.diode, *changes, *errors, f"{row.kcl_relative:.1e}", f"{row.seconds:.1f}"]


def print_table(rows: Sequence[Row], console: Console) -> None:
    """A line for each diode."""
    table = Table(box=None, pad_edge=False)
    for k, name in enumerate(HEADS):
        table.add_column(name, justify="left" if k < 2 else "right")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """All but the parameters, which `diode` tells."""
    names = [name for name in asdict(rows[0]) if name != "parameters"]
    with replacing(path, "w") as out:
        writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def write_json(rows: Sequence[Row], path: Path, netlist: str, gain: float, count: int) -> None:
    """The rows, and of what they are."""
    found = {"netlist": netlist, "gain": gain, "digits": count, "rows": [asdict(row) for row in rows]}
    with replacing(path, "w") as out:
        out.write(json.dumps(found, indent=1) + "\n")


def read_json(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """What `write_json` wrote: of what the rows are, and the rows. Raises OSError, ValueError, KeyError, TypeError."""
    found = json.loads(path.read_text())
    about = {key: found[key] for key in ("netlist", "gain", "digits")}
    return about, [Row(**row) for row in found["rows"]]


def picture(rows: Sequence[Row], kind: str = "png") -> bytes:
    """Change of the outputs and test error over IS, a line for each N; what the others give as levels.

    `kind` png or svg. Raises ImportError without matplotlib.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    shockley = [row for row in rows if row.kind == SHOCKLEY]
    for n in sorted({row.parameters["n"] for row in shockley}):
        line = [row for row in shockley if row.parameters["n"] == n]
        amperes = [row.parameters["is"] for row in line]
        left.plot(amperes, [100 * row.output_change for row in line], "o-", label=f"Shockley, N = {n:g}")
        right.plot(amperes, [row.error_percent for row in line], "o-", label=f"Shockley, N = {n:g}")
    for k, row in enumerate(row for row in rows if row.kind == PWL):
        style = {"color": f"C{3 + k}", "linestyle": "--", "linewidth": 0.8}
        left.axhline(100 * row.output_change, label=row.diode, **style)
        right.axhline(row.error_percent, **style)
    for row in (row for row in rows if row.kind == IDEAL):
        right.axhline(row.error_percent, color="black", linewidth=0.8, label="perfect")
    left.set(xscale="log", yscale="log", xlabel="IS (A)", ylabel="change of the outputs (%)")
    right.set(xscale="log", xlabel="IS (A)", ylabel="test error (%)")
    lines = dict(
        reversed(pair) for axes in (left, right) for pair in zip(*axes.get_legend_handles_labels(), strict=True)
    )
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=5, fontsize=7)
    return rendered(figure, kind, 150)


@click.command(cls=Command, context_settings=HELP_NAMES)
@click.argument("netlist", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option("--gain", default=100.0, show_default=True, help="Volts of a white pixel, as in training.")
@click.option("--count", type=click.IntRange(1, 10_000), default=1000, show_default=True, help="Test digits.")
@click.option("--csv", "table", type=click.Path(path_type=Path, dir_okay=False), help="Also save the table here.")
@click.option("--json", "data", type=click.Path(path_type=Path, dir_okay=False), help="Also save it as JSON here.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Also draw it as a PNG here (matplotlib)."
)
def main(
    netlist: Path | None, gain: float, count: int, table: Path | None, data: Path | None, plot: Path | None
) -> None:
    """Solve a trained NETLIST with perfect, piecewise-linear and Shockley diodes (default: drn-xs, quickly trained)."""
    for target in (table, data, plot):
        if target is not None:
            check_target(target)
    with tempfile.TemporaryDirectory() as folder:
        name = str(netlist) if netlist else "drn-xs, quickly trained"
        if netlist is None:
            netlist = Path(folder, "trained.cir")
            gain = train_quickly(netlist)
        rows = study(netlist, gain, count)
    print_table(rows, Console(width=150))
    if table:
        write_csv(rows, table)
    if data:
        write_json(rows, data, name, gain, count)
    if plot:
        with replacing(plot, "wb") as out:
            out.write(picture(rows))


if __name__ == "__main__":
    main(prog_name="python -m validation.nonideal")
