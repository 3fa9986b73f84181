"""`python -m validation.digits TRAINED.cir`: circuitsim and ngspice read digits with the same trained netlist."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim.io.commands import HELP_NAMES, Command
from circuitsim.spice.export import export
from circuitsim.spice.flatten import flatten
from circuitsim.spice.ngspice import operating_point
from training.datasets import MNIST, load_idx_dataset
from training.general import input_sources, split_inputs
from training.network import make_learner, trained_kinds
from training.recipe import find_recipe

Floats = NDArray[np.float64]

QUICK = 20_000  # training samples: a third of an epoch, seconds, and more than 80 % of the digits right


def train_quickly(path: Path) -> float:
    """Write a drn-xs that has learnt a little, always the same, to the netlist `path`; returns its input gain, V.

    Training it takes no longer than reading the megabyte that its conductances would fill.
    """
    recipe = replace(find_recipe("drn-xs"), algorithm="ep")
    circuit = cs.load(recipe.netlist)
    train, _ = load_idx_dataset(MNIST)
    learner = make_learner(circuit, recipe)
    learner.train(train, np.arange(QUICK), recipe.rates(trained_kinds(circuit), 0))
    export(circuit.with_values(learner.values()), path)
    return recipe.gain


def digit_inputs(circuit: cs.Circuit, gain: float, count: int) -> tuple[dict[str, Floats], list[int]]:
    """Volts of the input sources for the first `count` test digits, one row each, and what the digits are."""
    _, test = load_idx_dataset(MNIST)
    sources = input_sources(circuit)
    volts = gain * test.inputs(slice(0, count), sum(n for _, n in sources))
    return split_inputs(sources, volts), test.targets[:count].argmax(axis=1).tolist()


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
    circuit = cs.load(netlist)
    outputs = [circuit.nodes[node] for node in circuit.netlist.outputs]
    inputs, labels = digit_inputs(circuit, gain, count)
    ours = cs.solve(circuit.with_values(inputs)).voltages(np.array(circuit.netlist.outputs))
    for k, label in enumerate(labels):
        text = io.StringIO()
        flatten(circuit.with_values({name: volts[k : k + 1] for name, volts in inputs.items()}), text)
        found = operating_point(text.getvalue())
        theirs = np.array([found[name.lower()] for name in outputs])
        yield Reading(label, ours[k], theirs)


@click.command(cls=Command, context_settings=HELP_NAMES)
@click.argument("netlist", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--gain", default=100.0, show_default=True, help="Volts of a white pixel, as in training.")
@click.option(
    "--count",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Number of test digits; some seconds each.",
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
