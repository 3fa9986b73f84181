"""`python -m validation.digits TRAINED.cir`: circuitsim and ngspice read digits with the same trained netlist."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim.io.commands import HELP_NAMES, Command
from circuitsim.io.flatten import flatten
from circuitsim.io.ngspice import operating_point
from training.datasets import MNIST, load_idx_dataset
from training.general import input_sources, split_inputs

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """The output voltages of one digit, by circuitsim (exact, with its certificate) and by ngspice."""

    label: int
    ours: Floats  # (n_outputs,) V
    theirs: Floats

    @property
    def agrees(self) -> bool:
        """Whether both take it for the same digit."""
        return int(self.ours.argmax()) == int(self.theirs.argmax())


def readings(netlist: Path, gain: float, count: int) -> Iterator[Reading]:
    """The first `count` test digits through the flattened netlist, one run of ngspice each."""
    _, test = load_idx_dataset(MNIST)
    circuit = cs.load(netlist)
    outputs = [circuit.nodes[node] for node in circuit.netlist.outputs]
    sources = input_sources(circuit)
    volts = gain * test.inputs(slice(0, count), sum(n for _, n in sources))
    solution = cs.solve(circuit.with_values(split_inputs(sources, volts)))
    ours = solution.voltages(np.array(circuit.netlist.outputs))
    for k in range(count):
        text = io.StringIO()
        flatten(circuit.with_values(split_inputs(sources, volts[k : k + 1])), text)
        found = operating_point(text.getvalue())
        theirs = np.array([found[name.lower()] for name in outputs])
        yield Reading(int(test.targets[k].argmax()), ours[k], theirs)


@click.command(cls=Command, context_settings=HELP_NAMES)
@click.argument("netlist", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--gain", default=100.0, show_default=True, help="Volts of a white pixel, as in training.")
@click.option(
    "--count", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Test digits; some seconds each."
)
def main(netlist: Path, gain: float, count: int) -> None:
    """Classify test digits with a trained netlist, by circuitsim and by ngspice on the flattened file."""
    same = ours_right = theirs_right = 0
    worst = 0.0
    for k, reading in enumerate(readings(netlist, gain, count), 1):
        same += reading.agrees
        ours_right += int(reading.ours.argmax()) == reading.label
        theirs_right += int(reading.theirs.argmax()) == reading.label
        worst = max(worst, float(np.abs(reading.ours - reading.theirs).max()))
        click.echo(f"\r{k} of {count}", err=True, nl=k == count)
    click.echo(
        f"{same} of {count} digits classified alike; right: circuitsim {ours_right}, ngspice {theirs_right}; "
        f"largest difference of an output {worst:.1e} V"
    )


if __name__ == "__main__":
    main(prog_name="python -m validation.digits")
