"""`python -m validation.forms`: the difference form of EP beside the plain one, at the usual nudge and a tenth of it.

For each network, seed, form and nudge: the relative error (2-norm over all conductances) of float32's gradient against
float64's at the same values and state, median over batches, before and after training; and the test error of training.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import circuitsim as cs
from circuitsim.io.files import check_target, replacing
from training import layers
from training.datasets import MNIST, load_idx_dataset
from training.layered import LayeredLearner
from training.learner import LearningError, Samples, tally_of
from training.network import make_learner, trained_kinds
from training.recipe import Recipe, find_recipe

Floats = NDArray[np.float64]

_BATCHES = 25  # whose gradients are compared


def layered(circuit: cs.Circuit, recipe: Recipe, threads: int) -> LayeredLearner:
    """The fast path of a network that has one."""
    learner = make_learner(circuit, recipe, "cpu", threads)
    if not isinstance(learner, LayeredLearner):
        raise click.UsageError(f"{recipe.netlist} is not layered; the forms differ on layered netlists only")
    return learner


def gradient_error(circuit: cs.Circuit, recipe: Recipe, learner: LayeredLearner, train: Samples) -> float:
    """Float32's gradient against float64's, both from the values and the state that `learner` (float32) has now."""
    arrays = learner.arrays()
    twins = [layered(circuit, replace(recipe, dtype=dtype), 1) for dtype in ("float32", "float64")]
    errors = []
    for k in range(_BATCHES):
        rows = np.arange(k * recipe.batch_size, (k + 1) * recipe.batch_size)
        found = []
        for twin in twins:
            kinds = twin.arrays()
            twin.restore({name: array.astype(kinds[name].dtype) for name, array in arrays.items()})
            twin.train(train, rows, dict.fromkeys(twin.values(), 0.0))
            found.append(_gradient(twin, train, rows))
        errors.append(float(np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[1])))
    return float(np.median(errors))


def _gradient(learner: LayeredLearner, train: Samples, rows: NDArray[np.int64]) -> Floats:
    """dC/dg of all crossbars, flat, from the fields that a step has left."""
    n = learner.n.tolist()
    x = learner.recipe.gain * train.inputs(rows, n[0])
    fields = [
        [learner.layer(flat, k).astype(float) for k in range(len(n) - 1)] for flat in (learner.delta, learner.total)
    ]
    slopes, _ = layers.gradients(x, *fields, rows.size)
    return np.concatenate([slope.ravel() for slope in slopes])


def study(name: str, seed: int, form: str, share: float, epochs: int, threads: int) -> dict[str, float | str | int]:
    """One row of the table."""
    train, test = load_idx_dataset(MNIST)
    given = find_recipe(name)
    recipe = replace(given, form=form, nudge=given.nudge * share, epochs=epochs)
    circuit = cs.load(recipe.netlist, seed=seed)
    learner = layered(circuit, recipe, threads)
    trained, generator = trained_kinds(circuit), np.random.default_rng(seed)
    row: dict[str, float | str | int] = {"netlist": name, "seed": seed, "form": form, "nudge": recipe.nudge}
    row["gradient_error_before"] = gradient_error(circuit, recipe, learner, train)
    try:
        for epoch in range(epochs):
            learner.train(train, generator.permutation(len(train)), recipe.rates(trained, epoch))
        row["gradient_error_after"] = gradient_error(circuit, recipe, learner, train)
        outputs = learner.outputs(test, slice(0, len(test)))
        row["test_error"] = 100 * tally_of(outputs, test.targets.astype(float)).wrong / len(test)
    except LearningError as error:
        row["stopped"] = str(error)
    return row


@click.command()
@click.option("--netlist", "names", multiple=True, default=["drn-xs"], show_default=True, help="Repeatable.")
@click.option("--seeds", default=3, show_default=True, help="How many seeds: 0, 1, ...")
@click.option("--epochs", default=10, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Also save the rows here.")
def main(names: tuple[str, ...], seeds: int, epochs: int, threads: int, target: Path | None) -> None:
    """Compare the difference form of equilibrium propagation with the plain one."""
    if target is not None:
        check_target(target)
    rows = []
    for name in names:
        for share in (1.0, 0.1):
            for form in ("difference", "plain"):
                for seed in range(seeds):
                    rows.append(study(name, seed, form, share, epochs, threads))
                    click.echo(json.dumps(rows[-1]), err=True)
    table = Table("netlist", "nudge, S", "form", "seed", "gradient error before", "after", "test error, %")
    for row in rows:
        after, error = row.get("gradient_error_after"), row.get("test_error", row.get("stopped"))
        cells = [
            row["netlist"],
            f"{row['nudge']:g}",
            row["form"],
            str(row["seed"]),
            f"{row['gradient_error_before']:.1e}",
        ]
        table.add_row(*map(str, cells), f"{after:.1e}" if after is not None else "", str(error))
    Console(width=140).print(table)
    if target is not None:
        with replacing(target, "w") as out:
            out.write(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main(prog_name="python -m validation.forms")
