"""Many instances of a subcircuit at once: the elements of one, with the values of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from circuitsim.errors import At
from circuitsim.netlist.builder import COLUMNS, Builder, ManyBuilder
from circuitsim.netlist.model import ArrayRef, Ints

PATH = "\0"  # in names, the path of an instance; no text of a netlist holds this character


class Template(ManyBuilder):
    """Takes the elements of one instance, whose path is PATH and whose pins are at the nodes `pin`."""

    def __init__(self, place: Callable[[int], At], count: int) -> None:
        """`count`: of instances."""
        super().__init__(place, None, count)
        self.claims: list[tuple[str, int]] = []

    @staticmethod
    def pin(k: int) -> str:
        """The node that the k-th pin is connected to. No name of a node inside ends with PATH and a number."""
        return f"{PATH}{k}"

    def claim(self, name: str, seq: int) -> None:
        self.claims.append((name, seq))

    def copy_into(
        self,
        builder: Builder,
        paths: Sequence[str],
        outside: Sequence[Sequence[str]],
        own_models: range,
        seqs: Sequence[int],
        orders: Sequence[int],
    ) -> None:
        """Add all instances to a builder, one after another, as if each had been read by itself.

        paths       of the instances
        outside     for each pin the node that it is connected to, at each instance
        own_models  the rows of models that the first of them has for itself; each further one has as many
        seqs        places of their X cards
        orders      places of the top-level cards
        """
        claims = [(name.split(PATH), seq) for name, seq in self.claims]
        for path, place in zip(paths, seqs, strict=True):
            builder.claim(path, place)
            for (before, after), seq in claims:
                builder.claim(f"{before}{path}{after}", seq)
        nodes = self._nodes(builder, paths, outside, orders)
        arrays = [(name.split(PATH), array, len(builder.rows[array.kind].names)) for name, array in self.arrays.items()]
        for k, path in enumerate(paths):
            for (before, after), array, there in arrays:
                start = there + k * len(self.rows[array.kind].names) + array.start
                stop = start + array.stop - array.start
                builder.arrays[f"{before}{path}{after}".lower()] = ArrayRef(array.kind, start, stop, array.indices)
        for kind, new in self.rows.items():
            if new.names:
                self._copy_rows(builder, kind, paths, nodes, own_models)
                builder.rows[kind].order += [order for order in orders for _ in new.names]

    def _copy_rows(self, builder: Builder, kind: str, paths: Sequence[str], nodes: Ints, own_models: range) -> None:
        """Add the rows of one kind, but for `order`."""
        rows, new = builder.rows[kind], self.rows[kind]
        parts = [name.split(PATH) for name in new.names]
        rows.names += [f"{before}{path}{after}" for path in paths for before, after in parts]
        rows.a += nodes[:, new.a].ravel().tolist()
        rows.b += nodes[:, new.b].ravel().tolist()
        rows.seq += new.seq * len(paths)
        for have, link in zip(rows.links, new.links, strict=True):
            have += nodes[:, link].ravel().tolist()
        for k, (column, what) in enumerate(zip(rows.columns, COLUMNS[kind], strict=True)):
            values = np.broadcast_to(self.column(kind, k), (len(paths), len(new.names)))
            if what == "model" and own_models:
                further = len(own_models) * np.arange(len(paths))[:, None]
                values = np.where(values < own_models.start, values, values + further)
            column += values.ravel().tolist()

    def _nodes(
        self, builder: Builder, paths: Sequence[str], outside: Sequence[Sequence[str]], orders: Sequence[int]
    ) -> Ints:
        """The nodes of a builder that those here are in each instance; shape (instances, nodes here)."""
        pins = [name.partition(PATH)[2] for name in self.nodes]
        names = [
            outside[int(pin)] if pin.isdigit() else _own(name, paths)
            for name, pin in zip(self.nodes, pins, strict=True)
        ]
        instances = zip(zip(*names, strict=True), orders, strict=True)
        found = [builder.node(name, order) for instance, order in instances for name in instance]
        return np.array(found, np.int64).reshape(len(paths), len(names))


def _own(name: str, paths: Sequence[str]) -> list[str]:
    """A name in each of the instances."""
    before, path, after = name.partition(PATH)
    return [f"{before}{own}{after}" for own in paths] if path else [name] * len(paths)
