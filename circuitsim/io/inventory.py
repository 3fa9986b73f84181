"""What a netlist contains and how it is arranged for solving: the report of `circuitsim check`."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuitsim.errors import listed
from circuitsim.io.output import warning_texts
from circuitsim.netlist.model import KIND_NAMES
from circuitsim.problem import Problem

_SHOWN = 8  # names in a list


def inventory(problem: Problem) -> dict[str, Any]:
    """Counts and structure as a JSON object.

    elements           {R, V, I, D, L, C, E, F, G, H, N: count}
    crossbars          [{name, rows, columns, conductances (those that are not 0)}]
    nodes              ground included; units: nodes tied together by voltage sources and shorts count once
    free, known        units with and without an unknown voltage; known ones are tied to ground, or pinned
    colors, bipartite  blocks of units that are not adjacent
    parts, islands     parts joined by resistors and ties; [{nodes, pinned}] for each one without ground
    left_out           nodes that are left out; in no part
    couplings          between free units, and from known potentials: sparse count, shapes of the dense blocks
    roles              {input, output, train: names}
    """
    circuit, t = problem.circuit, problem.topology
    netlist, islands = circuit.netlist, t.islands
    by_part = np.argsort(islands.part, kind="stable")
    starts = np.searchsorted(islands.part[by_part], np.arange(1, islands.n_parts))
    units = len(circuit.nodes) - int(np.count_nonzero(t.forest.sign))
    return {
        "title": netlist.title.strip(),
        "elements": {kind: len(netlist.tables[kind]) for kind in KIND_NAMES},
        "crossbars": [
            {"name": x.name, "rows": x.rows.size, "columns": x.cols.size, "conductances": int(np.count_nonzero(x.g))}
            for x in circuit.crossbars
        ],
        "nodes": len(circuit.nodes),
        "units": units,
        "free": t.n_free,
        "known": units - t.n_free,
        "colors": t.n_colors,
        "bipartite": t.bipartite,
        "parts": islands.n_parts - circuit.dropped.size,
        "islands": [
            {"nodes": [circuit.nodes[k] for k in members.tolist()], "pinned": bool(islands.pinned[members[0]])}
            for members in np.split(by_part, starts)[1:]
            if not circuit.left_out[members[0]]
        ],
        "left_out": [circuit.nodes[k] for k in circuit.dropped.tolist()],
        "couplings": {
            "free": {"sparse": t.couplings.indices.size // 2, "dense": _shapes(problem, known=False)},
            "known": {"sparse": t.known_couplings.indices.size, "dense": _shapes(problem, known=True)},
        },
        "roles": {
            "input": list(netlist.inputs),
            "output": netlist.output_names,
            "train": list(netlist.trained),
        },
        "warnings": warning_texts(circuit.notes),
    }


def _shapes(problem: Problem, known: bool) -> list[list[int]]:
    """Shapes of the dense blocks with (or without) a side of known nodes."""
    return [list(block.shape) for block in problem.topology.dense if block.inner != known]


def print_inventory(found: dict[str, Any], out: Console) -> None:
    """The same for people."""
    if found["title"]:
        out.print(Text(found["title"], "bold"), end="\n\n")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for kind, text in KIND_NAMES.items():
        if found["elements"][kind]:
            table.add_row(text, f"{found['elements'][kind]:,}")
    for x in found["crossbars"]:
        size = x["rows"] * x["columns"]
        shape = f"{x['rows']} x {x['columns']}, {x['conductances']:,} of {size:,} conductances are not 0"
        table.add_row(Text(f"crossbar {x['name']}"), shape)
    table.add_row("nodes", f"{found['nodes']:,} with ground, in {found['units']:,} units that move as one")
    table.add_row("unknown units", f"{found['free']:,}; known: {found['known']:,}")
    if found["free"]:
        table.add_row("colours", f"{found['colors']}, {'bipartite' if found['bipartite'] else 'not bipartite'}")
    for side, text in (("free", "couplings of unknowns"), ("known", "couplings to known")):
        dense = "".join(f", dense {rows} x {columns}" for rows, columns in found["couplings"][side]["dense"])
        table.add_row(text, f"{found['couplings'][side]['sparse']:,} sparse{dense}")
    table.add_row("connected parts", _parts(found))
    for island in found["islands"][:_SHOWN]:
        pinned = f", pinned: {island['nodes'][0]} at 0 V" if island["pinned"] else ", joined by nonlinear elements"
        table.add_row("  island", Text(listed(island["nodes"], _SHOWN) + pinned))
    if found["left_out"]:
        table.add_row("left out", Text(listed(found["left_out"], _SHOWN)))
    for role, names in found["roles"].items():
        if names:
            table.add_row(f".{role}", Text(listed(names, _SHOWN)))
    out.print(table)


def _parts(found: dict[str, Any]) -> str:
    islands = len(found["islands"])
    if not islands:
        return "1, all with a resistive path to ground"
    more = f"; the first {_SHOWN}:" if islands > _SHOWN else ""
    return f"{found['parts']:,}, {islands:,} of them without a resistive path to ground{more}"
