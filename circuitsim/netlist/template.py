"""The instances of an array of subcircuits at once: the elements of one, with the values of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np

from circuitsim.errors import At
from circuitsim.netlist.builder import COLUMNS, Builder, ManyBuilder
from circuitsim.netlist.chance import NotTogether
from circuitsim.netlist.model import ArrayRef, CrossbarCard, Ints

PATH = "\0"  # in names, the path of an instance; no text of a netlist holds this character


class Template(ManyBuilder):
    """Takes the elements of one instance, whose path is PATH and whose pins are at the nodes `pin`."""

    def __init__(self, place: Callable[[int], At], count: int) -> None:
        """`count`: of instances."""
        super().__init__(place, None, count)
        self.own_models = range(0)  # rows of models; each further instance has as many

    @staticmethod
    def pin(k: int) -> str:
        """The node that the k-th pin is connected to."""
        return f"{PATH}{k}"

    def control(self, source: str, label: str, seq: int) -> NoReturn:
        raise NotTogether

    def add_crossbar(self, crossbar: CrossbarCard) -> NoReturn:
        raise NotTogether

    def copy_into(self, builder: Builder, paths: Sequence[str], outside: Sequence[Sequence[str]], order: int) -> None:
        """Add all instances to a builder, one after another, as if each had been read by itself.

        paths    of the instances
        outside  for each pin the node that it is connected to, at each instance
        order    place of the top-level card
        """
        for name, seq in self.names.items():
            for own in _own(name, paths):
                builder.claim(own, seq)
        nodes = self._nodes(builder, paths, outside, order)
        for kind, new in self.rows.items():
            rows, each = builder.rows[kind], len(new.names)
            for name, array in self.arrays.items():
                if array.kind == kind:
                    start = len(rows.names) + array.start
                    for own in _own(name, paths):
                        builder.arrays[own.lower()] = ArrayRef(
                            kind, start, start + array.stop - array.start, array.indices
                        )
                        start += each
            parts = [name.split(PATH) for name in new.names]
            rows.names += [f"{before}{path}{after}" for path in paths for before, after in parts]
            rows.a += nodes[:, new.a].ravel().tolist()
            rows.b += nodes[:, new.b].ravel().tolist()
            rows.order += [order] * (each * len(paths))
            rows.seq += new.seq * len(paths)
            for have, link in zip(rows.links, new.links, strict=True):
                have += nodes[:, link].ravel().tolist()
            for k, (column, what) in enumerate(zip(rows.columns, COLUMNS[kind], strict=True)):
                values = np.broadcast_to(self.column(kind, k), (len(paths), each))
                if what == "model" and self.own_models:
                    further = len(self.own_models) * np.arange(len(paths))[:, None]
                    values = np.where(values < self.own_models.start, values, values + further)
                column += values.ravel().tolist()

    def _nodes(self, builder: Builder, paths: Sequence[str], outside: Sequence[Sequence[str]], order: int) -> Ints:
        """The nodes of a builder that those here are in each instance; shape (instances, nodes here)."""
        pins = [name.partition(PATH)[2] for name in self.nodes]
        names = [
            outside[int(pin)] if pin.isdigit() else _own(name, paths)
            for name, pin in zip(self.nodes, pins, strict=True)
        ]
        found = [builder.node(name, order) for instance in zip(*names, strict=True) for name in instance]
        return np.array(found, np.int64).reshape(len(paths), len(names))


def _own(name: str, paths: Sequence[str]) -> list[str]:
    """A name in each of the instances."""
    before, path, after = name.partition(PATH)
    return [f"{before}{own}{after}" for own in paths] if path else [name] * len(paths)
