"""Copies of one circuit side by side in one (stack.py): each is judged by its own largest voltage and current."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circuitsim.branch_sums import ufunc_at

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Copies:
    """Where the nodes, units and branches of each copy are; ground belongs to all copies."""

    count: int
    n_nodes: int  # of all copies, with ground
    root_of_unit: Ints  # (n_free,) a node of each free unit

    @cached_property
    def of_unit(self) -> slice | Ints:
        """At which column of `largest` each free unit is: all of them at the only one, or each at that of its copy."""
        return self._of_node(self.root_of_unit) if self.count > 1 else slice(None)

    def largest(self, values: Floats, nodes: Ints | None = None) -> Floats:
        """The largest absolute of values (rows, n) in each copy, (rows, copies).

        They are at these nodes, (n,); without nodes at the free units.
        """
        if self.count == 1:
            return np.abs(values).max(axis=1, initial=0.0, keepdims=True)
        out = np.zeros((self.count, values.shape[0]))
        ufunc_at(np.maximum, out, self._of_node(self.root_of_unit if nodes is None else nodes), np.abs(values).T)
        return out.T

    def largest_around(self, x: Floats) -> Floats:
        """The same of values x (rows, n_free) at the free units for each of these, (rows, n_free), or (rows, 1)."""
        return self.largest(x)[:, self.of_unit]

    def largest_of_branches(self, values: Floats) -> Floats:
        """The same of values (rows, n) at branches of one kind, (rows, copies)."""
        rows, n = values.shape
        return np.abs(values).reshape(rows, self.count, n // self.count).max(axis=2, initial=0.0)

    def at_branches(self, values: Floats, n: int) -> Floats:
        """Values of each copy, (rows, copies), at the n branches of one kind, (rows, n)."""
        return np.repeat(values, n // self.count, axis=1)

    def _of_node(self, nodes: Ints) -> Ints:
        """The copy that each node is in; ground counts to the first."""
        return np.maximum(nodes - 1, 0) // ((self.n_nodes - 1) // self.count)
