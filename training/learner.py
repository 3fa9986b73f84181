"""The interfaces that a training run needs: to a network (Learner) and to its data (Samples)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import SettingsError, listed

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

AT_ONCE = 250  # samples whose outputs are computed together on the CPU


@dataclass(frozen=True)
class Samples:
    """A data set. In row k the outputs should be targets[k] when the sources are at gain x scale x features[k].

    With twice as many sources as features, the second half of the sources takes the negated features.
    """

    features: NDArray  # (n, n_features), any real dtype: grey levels stay bytes
    scale: float  # 1/255 for grey levels
    targets: NDArray  # (n, n_outputs) V, floats; one-hot for classes
    labelled: bool = False  # whether the targets are made of labels, up to the largest one
    part_of: Samples | None = None  # all those that these are the first of
    columns: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # what a table calls features and targets

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.targets.ndim != 2 or len(self.features) != len(self.targets):
            raise SettingsError(
                f"features {self.features.shape} and targets {self.targets.shape} must be matrices with "
                "equally many rows"
            )

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def of_classes(self) -> bool:
        """Whether the targets are those of classes, so that errors can be counted: one value at the output of a
        sample's class, and another at all others. Of a part the whole decides: in one row any two values are such.

        >>> [Samples(np.zeros((2, 1)), 1.0, t).of_classes for t in (np.eye(2), np.array([[0.3, 0.1], [0.2, 0.1]]))]
        [True, False]
        """
        t = self.targets
        if self.labelled:
            return True
        if self.part_of:
            return self.part_of.of_classes
        if t.shape[1] < 2 or not t.size:
            return False
        ours, others = t == t.max(), t == t.min()
        return bool((ours | others).all() and (ours.sum(axis=1) == 1).all())

    def with_classes(self, outputs: int) -> Samples:
        """The samples for this many outputs: targets of 0 V for classes beyond the largest label."""
        more = outputs - self.targets.shape[1]
        if more <= 0 or not self.labelled:
            return self
        return replace(self, targets=np.pad(self.targets, ((0, 0), (0, more))))

    def head(self, count: int) -> Samples:
        """The first `count` samples (all, when there are fewer)."""
        if count >= len(self):
            return self
        whole = self.part_of or self
        return replace(self, features=self.features[:count], targets=self.targets[:count], part_of=whole)

    def inputs(self, rows: Ints | slice, sources: int) -> Floats:
        """What drives the sources, before the gain: (rows, sources). SettingsError when the numbers do not fit."""
        values = self.scale * self.features[rows].astype(np.float64)
        if sources == 2 * values.shape[1]:
            return np.concatenate([values, -values], axis=1)
        if sources != values.shape[1]:
            index = "; the first column has no name: is it an index, which `to_csv(index=False)` leaves out?"
            raise SettingsError(
                f"the data has {values.shape[1]} features per sample: `.input` needs as many sources, or twice as many "
                f"(the second half takes the negated features); the netlist has {sources}"
                f"{index * (self.columns[0][:1] == ('',))}"
            )
        return values

    def check_outputs(self, outputs: int) -> None:
        """SettingsError when the targets are not as many as the outputs."""
        if self.targets.shape[1] != outputs:
            classes = (self.part_of or self).targets.argmax(axis=1) if self.labelled else np.zeros(1, int)
            from_0 = f"; classes are numbered from 0, and here they are {classes.min()} to {classes.max()}"
            single = "; for a single output give voltages, a column `target` (say of 0 and 1), and no labels"
            nodes = f"{outputs} node{'s' * (outputs != 1)}"
            raise SettingsError(
                f"the data has {self.targets.shape[1]} targets per sample (for classes: one per class), the netlist's "
                f"`.output` has {nodes}; the numbers must be equal"
                f"{from_0 * bool(classes.min())}{single * (outputs == 1 and self.labelled)}"
            )


@dataclass(frozen=True)
class Tally:
    """Sums over the samples of some steps, measured at the free state before each update."""

    samples: int = 0
    cost: float = 0.0  # sum of C = 1/2 |y - target|^2, V^2
    wrong: int = 0  # samples whose largest output is not that of the largest target

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.samples + other.samples, self.cost + other.cost, self.wrong + other.wrong)


def tally_of(y: Floats, targets: Floats) -> Tally:
    """Cost and errors of a batch: outputs y and targets, (rows, n_outputs) V."""
    wrong = int((y.argmax(axis=1) != targets.argmax(axis=1)).sum())
    return Tally(y.shape[0], 0.5 * float(((y - targets) ** 2).sum()), wrong)


class Learner(Protocol):
    """A netlist ready to learn. It owns its conductances, biases and the state between steps."""

    batch_size: int
    at_once: int  # samples whose outputs are best asked for at a time
    path: str  # what this kind of learner is called, for people
    dtype: str  # of what its phases compute
    remark: str = ""  # what is doubtful about it, in a sentence

    def prepare(self, samples: Samples) -> None:
        """Prepare for steps with such data. SettingsError when it does not fit the inputs or the outputs."""

    def train(self, samples: Samples, order: Ints, rates: Mapping[str, float]) -> Tally:
        """One step for every `batch_size` entries of `order` (rows of `samples`; its length a multiple).

        `rates` gives the learning rate of each trained element by its name. Raises LearningError when a nudged
        problem is not convex or values are no longer finite, SettingsError for an `order` that ends within a batch,
        or for rates that are not those of the trained elements.
        """

    def outputs(self, samples: Samples, rows: slice) -> Floats:
        """The output voltages, (rows, n_outputs), from a state of zero, as at test time."""

    def arrays(self) -> dict[str, NDArray]:
        """Copies of everything that steps change, by name, for a checkpoint."""

    def restore(self, arrays: Mapping[str, NDArray]) -> None:
        """Continue from what `arrays` returned. SettingsError when names, shapes or types do not fit."""

    def values(self) -> dict[str, Floats]:
        """The trained elements' values by name (S, A, V), in `.train` order, for Circuit.with_values."""

    def free_state(self) -> list[Floats]:
        """Free states before the last update, one array (batch, units) per layer; just one without layers."""


class LearningError(SettingsError):
    """A step of learning cannot be taken; the message says why and what helps."""


def check_batches(order: NDArray[np.int64], batch_size: int) -> None:
    """SettingsError unless these samples are a whole number of batches."""
    if order.size % batch_size:
        raise SettingsError(f"{order.size} samples are not a whole number of batches of {batch_size}")


def check_arrays(found: Mapping[str, NDArray], wanted: Mapping[str, NDArray]) -> None:
    """SettingsError unless both have the same names, shapes and types."""
    for name, array in wanted.items():
        if name not in found:
            raise SettingsError(f"no array '{name}' there; it holds {', '.join(found)}")
        if found[name].shape != array.shape or found[name].dtype != array.dtype:
            raise SettingsError(
                f"array '{name}' is {found[name].dtype} {found[name].shape}, this network needs "
                f"{array.dtype} {array.shape}"
            )


def rates_of(trained: Sequence[str], rates: Mapping[str, float]) -> dict[str, float]:
    """The learning rates by the names of the trained elements, in lower case. SettingsError where they do not fit."""
    found = {name.lower(): float(rate) for name, rate in rates.items()}
    if wrong := sorted({name.lower() for name in trained} ^ found.keys()):
        raise SettingsError(f"learning rates are one for each of {', '.join(trained)}; {listed(wrong)} do not match")
    return found
