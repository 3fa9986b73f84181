"""Several copies of a netlist side by side, which share only ground, node 0.

The nodes and table rows of a copy follow those of the copies before it, in their own order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.netlist.model import Netlist, Table

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def side_by_side(netlist: Netlist, copies: int, values: Mapping[tuple[str, str], Floats]) -> Netlist:
    """Copies of a netlist as one; columns in `values`, by (kind, column), differ between copies, (copies, rows)."""
    tables = {kind: _table(netlist, table, copies, values) for kind, table in netlist.tables.items()}
    return replace(netlist, nodes=[netlist.nodes[0], *netlist.nodes[1:] * copies], tables=tables)


def nodes_in_copies(nodes: Ints, copies: int, netlist: Netlist) -> Ints:
    """These nodes of a netlist in each copy; ground stays node 0."""
    return np.where(np.tile(nodes, copies) > 0, rows_in_copies(nodes, copies, len(netlist.nodes) - 1), 0)


def rows_in_copies(rows: Ints, copies: int, size: Ints | int) -> Ints:
    """These rows of a table in each copy; in each the table has `size` rows, or that of each row has.

    >>> rows_in_copies(np.array([0, 2]), 2, 3)
    array([0, 2, 3, 5])
    """
    return np.tile(rows, copies) + (np.arange(copies)[:, None] * (size + np.zeros_like(rows))).ravel()


def links_in_copies(name: str, link: Ints, copies: int, netlist: Netlist, sources: int) -> Ints:
    """What controls sources: `ca` and `cb`, nodes; `control`, one of so many `sources` of a copy, or -1."""
    if name != "control":
        return nodes_in_copies(link, copies, netlist)
    return np.where(np.tile(link, copies) >= 0, rows_in_copies(link, copies, sources), -1)


def _table(netlist: Netlist, table: Table, copies: int, values: Mapping[tuple[str, str], Floats]) -> Table:
    """The elements of all copies; their places in the source are those of one."""
    own = {name: values.get((table.kind, name)) for name in table.values}
    links = {
        name: links_in_copies(name, link, copies, netlist, len(netlist.tables["V"]))
        for name, link in table.links.items()
    }
    return replace(
        table,
        names=table.names * copies,
        a=nodes_in_copies(table.a, copies, netlist),
        b=nodes_in_copies(table.b, copies, netlist),
        seq=np.tile(table.seq, copies),
        order=np.tile(table.order, copies),
        values={
            name: np.tile(table.values[name], copies) if column is None else column.ravel()
            for name, column in own.items()
        },
        links=links,
    )
