"""`python -m training.evaluate`: the outputs of a trained netlist for samples, solved exactly, with certificates."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitsim.cli.common import check_targets, load, param_option, progress, solver_options
from circuitsim.errors import NotSolved
from circuitsim.io.commands import HELP_NAMES
from training.options import EXIT_CODES, Number, TrainingCommand, is_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from circuitsim import Circuit, Settings, Solution
    from training.learner import Samples, Tally

_EXAMPLES = f"""
\b
Examples:
  python -m training.evaluate runs/drn-2h-ep/trained.cir
  python -m training.evaluate runs/xor-ep/trained.cir --data unseen.csv --out outputs.csv
  python -m training.evaluate my.cir --data unseen.csv --gain 1 --param temperature=85

A table is one that training.fit takes, or one without targets, whose outputs are compared with nothing. With --out each
line has the voltages that `.output` reads and, where there are classes, the class of the largest one and that of the
sample, from 0.

{EXIT_CODES} Code 3 also means that some
samples could not be solved.
"""


@click.command(cls=TrainingCommand, epilog=_EXAMPLES, context_settings=HELP_NAMES)
@click.argument("netlist", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE.csv|DIR",
    help="A table, or a folder with the IDX files of a data set, whose test images are used.  [default: MNIST]",
)
@click.option(
    "--gain",
    type=Number(),
    metavar="X",
    help="Volts (or amperes) of an input of 1.  [default: that of the run in whose folder the netlist is]",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N samples only.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE.csv", help="Write the outputs, one line per sample."
)
@param_option
@solver_options
def main(
    netlist: Path,
    data: Path | None,
    gain: float | None,
    limit: int | None,
    out: Path | None,
    params: tuple[str, ...],
    solver: dict[str, Any],
) -> None:
    """Solve a trained netlist for samples, count its errors, and prove the answer by the certificate.

    The netlist is any with `.input` and `.output`: a trained one, one whose diodes, temperature or values were changed
    since, or one with parameters, which --param sets.
    """
    from circuitsim import Settings, SettingsError
    from circuitsim.io.files import check_target
    from training.datasets import MNIST, idx_files, load_idx_dataset
    from training.record import CONFIG
    from training.table import load_table

    if out is not None:
        check_target(out)
    if gain is not None and not math.isfinite(gain):
        raise SettingsError(f"--gain {gain:g}: make it finite")
    settings = Settings(**solver)
    circuit = load(netlist, params=params)
    table = None if data is None or is_folder(data) else data
    read = idx_files(data or MNIST) if table is None else [table]
    check_targets(circuit, [out], [*read, netlist.parent / CONFIG] if gain is None else read)
    gain = gain_of(netlist.parent) if gain is None else gain
    samples = load_idx_dataset(data or MNIST)[1] if table is None else load_table(table, targets=False)
    samples = samples if limit is None else samples.head(limit)
    try:
        with progress("solving", len(samples), quiet=False) as report:
            found = evaluate(circuit, samples, gain, settings, report)
    except SettingsError as error:
        raise error if data else SettingsError(f"{error}; without --data the samples are MNIST's test images") from None
    if out is not None:
        write_outputs(found, circuit, samples, out)
    click.echo(f"{netlist}, solved for {len(samples)} samples at gain {gain:g}: {found.text}")
    if not found.solution.solved:
        raise NotSolved(found.solution)


@dataclass(frozen=True)
class Evaluation:
    """The outputs of a circuit for samples."""

    solution: Solution  # a row for each sample
    outputs: NDArray  # (samples, outputs) V, in the order of .output
    tally: Tally | None  # cost and errors; None: the samples have no targets
    of_classes: bool  # whether errors mean something
    unnamed: int = 0  # samples whose largest output is of a class that no label names

    @property
    def text(self) -> str:
        """Status, certificate, cost and error in words."""
        from training.metrics import error_percent

        said = f"{self.solution.status.name}, relative KCL {self.solution.residuals.kcl_relative:.1e}"
        if self.tally is not None:
            said += f"; cost {self.tally.cost / self.tally.samples:.3g} V^2"
            said += f", error {error_percent(self.tally):.2f} %" if self.of_classes else ""
        if self.unnamed:
            said += f" ({self.unnamed:,} of {len(self.outputs):,} samples take a class that no label names)"
        return said


def evaluate(
    circuit: Circuit,
    samples: Samples,
    gain: float,
    settings: Settings | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Solve `circuit` for all samples, its `.input` sources at gain x features, V or A.

    `report` is called as solve's `progress` is. Raises SettingsError when the samples do not fit `.input` or `.output`.
    """
    import numpy as np

    from circuitsim import solve
    from training.general import input_sources, split_inputs
    from training.gradient import check_outputs
    from training.learner import tally_of
    from training.table import check_columns

    check_outputs(circuit.netlist)
    sources = input_sources(circuit)
    check_columns(circuit, samples)
    samples = samples.with_classes(len(circuit.netlist.outputs))
    asked = samples.targets.shape[1] > 0
    if asked:
        samples.check_outputs(len(circuit.netlist.outputs))
    inputs = gain * samples.inputs(slice(0, len(samples)), sum(count for _, count in sources))
    solution = solve(
        circuit.with_values(split_inputs(sources, inputs)), settings, raise_on_failure=False, progress=report
    )
    voltages, netlist = solution.voltages(), circuit.netlist
    outputs = voltages[:, list(netlist.outputs)] - voltages[:, list(netlist.references)]
    tally = tally_of(outputs, samples.targets) if asked else None
    unnamed = 0
    if samples.of_classes:
        named = (samples.part_of or samples).targets.argmax(axis=1)
        unnamed = int((~np.isin(outputs.argmax(axis=1), named)).sum())
    return Evaluation(solution, outputs, tally, samples.of_classes, unnamed)


def write_outputs(found: Evaluation, circuit: Circuit, samples: Samples, path: Path) -> None:
    """Write a CSV file, completely or not at all: v(NODE) of each output; class and label where there are classes."""
    from circuitsim.io.files import replacing

    netlist = circuit.netlist
    pairs = zip(netlist.output_names, netlist.references, strict=True)
    names = [name if reference else f"v({name})" for name, reference in pairs]
    rows = found.outputs.tolist()
    if found.of_classes:
        names += ["class", "label"]
        classes = zip(found.outputs.argmax(axis=1).tolist(), samples.targets.argmax(axis=1).tolist(), strict=True)
        rows = [[*row, *pair] for row, pair in zip(rows, classes, strict=True)]
    with replacing(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def gain_of(folder: Path) -> float:
    """The gain in the configuration of a run. SettingsError where there is none."""
    from circuitsim import SettingsError
    from training.record import CONFIG

    try:
        return float(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["recipe"]["gain"])
    except FileNotFoundError:
        why = f"the netlist is not in the folder of a run: there is no {folder / CONFIG}"
    except (OSError, ValueError, KeyError, TypeError):
        why = f"{folder / CONFIG} is not the configuration of a run"
    raise SettingsError(f"no gain: {why}; give the volts of an input of 1 by --gain")


if __name__ == "__main__":
    main(prog_name="python -m training.evaluate")
