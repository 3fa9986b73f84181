"""Circuit -> plain SPICE that ngspice runs: arrays, subcircuits, parameters and roles resolved or turned into comments.

Every element is written with its final value. What ngspice spells or treats differently:

- R = 0 and L are written as sources of 0 V, which are exact shorts (ngspice would take 1 mohm for R = 0).
- Branches that carry no DC current are left out: C, infinite R, g = 0 in a crossbar, diodes with IS = 0.
- Piecewise-linear and perfect diodes become XSPICE `sidiode` devices, whose law is the same: i = v/Roff, and slopes
  1/Ron and 1/Rrev beyond Vfwd and -Vrev. Its smoothing stays at its default, Epsilon = 0; Ron = 0 becomes 1e-6 ohm.
- XSPICE cannot read `[ ] < > ~ %` in node names: such a node is tied by a 0 V source to one with a simpler name.
- Nonlinear resistors (N) become B sources: tanh and sinh by name, tables as `pwl(...)`, whose end slopes go on too.
- `.dc` and `.save` are written where ngspice has a name for what they mean, and left as comments where not: it sweeps
  no parameters and no arrays, saves no voltages between two nodes, and no `@name[i]` of names with brackets.
- Names that ngspice cannot keep (not ASCII; `temper`, which crashes ngspice-39; `V+`, which it splits in `.dc`, F, H;
  nodes that it takes for keywords, or leaves out of its results) are replaced, and a comment says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import Circuit
from circuitsim.models import diode_kind, linear_breakdown, resistor_values
from circuitsim.netlist.model import CROSSBAR, KINDS, CrossbarCard, ModelCard, Swept
from circuitsim.netlist.saves import NODES, Save, find_save
from circuitsim.spice.deck import Names, dc_cards, refuse_batch, safe_names, wrapped

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MIN_RON = 1e-6  # ohm, the smallest Ron that the ngspice manual allows for sidiode
_OPEN = 1e300  # ohm or volt, for an infinite parameter
_MOST_SAVES = 10_000  # names that one word of .save may become
_SAVES = {
    ("R", "i"): "@{}[i]",
    ("R", "p"): "@{}[p]",
    ("R", "r"): "@{}[r]",
    ("V", "i"): "i({})",
    ("V", "p"): "@{}[p]",
    ("V", "e"): "@{}[dc]",
    ("I", "i"): "@{}[c]",
    ("I", "p"): "@{}[p]",
    ("D", "i"): "@{}[id]",
    ("D", "vd"): "@{}[vd]",
    ("D", "p"): "@{}[p]",
    ("E", "i"): "i({})",
    ("H", "i"): "i({})",
    ("F", "i"): "@{}[i]",
    ("G", "i"): "@{}[i]",
    ("B", "i"): "@{}[i]",
}  # kind of element in the deck, quantity (netlist.saves) -> ngspice's name for it
_CHUNK = 65_536  # lines joined before they are written

_XSPICE_SPECIAL = re.compile(r"[][<>~%]|^null$", re.IGNORECASE)
_EXECUTED = re.compile(r"[.@]|\*#|\*ng_script", re.IGNORECASE)  # ngspice obeys, or stops at, a title that begins so


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE | re.MULTILINE)


_LOST = r"#(branch|internal|source|drain|collector|emitter|base)"  # left out of the results, or called a current
_ANY_NAME = (r"[^\x20-\x7e]", r"\btemper\b", _LOST)
_UNSAFE = _any_of(*_ANY_NAME)
_KEYWORD, _SCALE, _CALLED_A_CURRENT = r"^(ac|table|value)$", r"^(v|i|res|temp)-sweep$", r"^@.*\[i"
_UNSAFE_NODE = _any_of(*_ANY_NAME, _KEYWORD, _SCALE, _CALLED_A_CURRENT)
_UNSAFE_VALUED = _any_of(*_ANY_NAME, r"[-+*/^]")  # of V, I and R: `.dc`, F and H read a sum or product
_VALUE = r"^([-+.\d]+(e[-+]?\d+)?|0x[\da-f.]+(p[-+]?\d+)?)(t|g|meg|k|mil|m|u|n|p|f)?$"
_UNSAFE_MODEL = _any_of(*_ANY_NAME, _VALUE, r"^gnd!?$")


@dataclass(frozen=True)
class Written:
    """What ngspice calls the nodes and the branches of a circuit that flatten wrote, lower case as in its results."""

    nodes: list[str]  # by node index
    branches: Mapping[tuple[str, int], str]  # (kind, row of its table) -> the element; V, L, R = 0, E, H


def flatten(circuit: Circuit, out: IO[str]) -> Written:
    """Write a circuit to `out` as plain SPICE with `.op`, a line for each element; values changed by `with_values` too.

    With its `.dc` and `.save` as far as ngspice knows them. Returns the names that ngspice gives its results.

    Raises SettingsError when sources have a batch of values: a netlist holds one.

    >>> import sys
    >>> from circuitsim.build import parse
    >>> names = flatten(parse("two loads\\nV1 a 0 6\\nRL[0:1] a 0 g=1m\\n.output a", "loads.cir"), sys.stdout)
    two loads
    * Plain SPICE, written by circuitsim flatten from loads.cir
    * .output a
    .options temp=27.0 tnom=27.0
    V1 a 0 6.0
    RL[0] a 0 1000.0
    RL[1] a 0 1000.0
    .op
    .end
    """
    refuse_batch(circuit, "flatten")
    writer = _Writer(circuit)
    for text in writer.chunks():
        out.write(text)
    return writer.written()


def _printable(text: str) -> str:
    """Free text on one line, whatever characters a reader takes for the end of a line: what follows would be a card."""
    return "".join(x if x.isprintable() else " " for x in text).strip()


class _Writer:
    """The parts of the output; those that may be long are iterators of chunks of text."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.netlist = circuit.netlist
        self.tables = self.netlist.tables
        self.renamed: list[tuple[str, str]] = []  # (old, new)
        self.nodes = self._safe(self.netlist.nodes, _UNSAFE_NODE)
        self.names = {
            kind: self._safe(self.tables[kind].names, _UNSAFE_VALUED if kind in "VIR" else _UNSAFE) for kind in KINDS
        }
        self.crossbar_names = self._safe([x.name for x in circuit.crossbars], _UNSAFE)
        self.node_names = Names(_UNSAFE_NODE, self.nodes)
        self.source_names = Names(_UNSAFE, self.names["V"])
        self.aliases: dict[int, str] = {}  # node -> its name on XSPICE devices
        self.r = circuit.resistor_ohms
        self.v = circuit.element_values("V")
        self.loops = {kind: self.tables[kind].a == self.tables[kind].b for kind in KINDS}
        self.models: list[str] = []  # cards
        self.model_names, self.model_of = Names(_UNSAFE_MODEL), dict[tuple[str, str], str]()
        self.opens = 0  # diodes with IS = 0
        self.diodes: set[int] = set()  # rows of those that are written as such
        self.devices = Names(_UNSAFE)  # A and B elements
        # kind, row -> kind and name of what is there instead
        self.stand_ins: dict[tuple[str, int], tuple[str, str]] = {}

    def chunks(self) -> Iterator[str]:
        """The whole netlist, top to bottom."""
        diodes = self._diodes()
        yield from self._head()
        yield "".join(f"{card}\n" for card in self.models)
        yield from self._branches("V", np.flatnonzero(~self.loops["V"] | (self.v != 0)), self.v)
        yield from self._shorts()
        yield from self._alias_sources()
        yield from self._branches("I", np.arange(len(self.tables["I"])), self.circuit.element_values("I"))
        yield from self._branches("R", np.flatnonzero((self.r > 0) & np.isfinite(self.r)), self.r)
        for kind in "EFGH":
            yield from self._controlled(kind, self.circuit.element_values(kind))
        for name, card, x in zip(self.crossbar_names, self.netlist.crossbars, self.circuit.crossbars, strict=True):
            yield from self._crossbar(name, card, x.g)
        yield "".join(f"{card}\n" for card in diodes)
        yield from self._nonlinear_resistors()
        yield from self._saves()
        yield from dc_cards(self.circuit, self._swept_name)
        yield ".op\n.end\n"

    def written(self) -> Written:
        """The names of what was written, once all chunks are."""
        branches = {key: name.lower() for key, (kind, name) in self.stand_ins.items() if kind == "V"}
        for kind in "VEH":
            names = self.names[kind]
            branches |= {(kind, k): names[k].lower() for k in range(len(names)) if self._has_card(kind, k)}
        return Written([name.lower() for name in self.nodes], branches)

    # -- names -----------------------------------------------------------------------------------------------------

    def _safe(self, names: list[str], unsafe: re.Pattern[str]) -> list[str]:
        """The names with those replaced that ngspice cannot keep."""
        safe, renamed = safe_names(names, unsafe)
        self.renamed += renamed
        return safe

    def _xspice_node(self, node: int) -> str:
        """The name of a node on an XSPICE device."""
        name = self.nodes[node]
        if not _XSPICE_SPECIAL.search(name):
            return name
        if node not in self.aliases:
            self.aliases[node] = self.node_names.fresh(name)
        return self.aliases[node]

    # -- head ------------------------------------------------------------------------------------------------------

    def _head(self) -> Iterator[str]:
        netlist, options = self.netlist, self.netlist.options
        title = _printable(netlist.title)
        title = f"* {title}" if _EXECUTED.match(title) else title or "untitled"
        yield f"{title}\n* Plain SPICE, written by circuitsim flatten from {_printable(netlist.path)}\n"
        yield from wrapped("* .input", map(_printable, netlist.inputs))
        yield from wrapped("* .output", map(_printable, netlist.output_names))
        yield from wrapped("* .train", map(_printable, netlist.trained))
        for old, new in self.renamed:
            yield f"* {new} stands for {_printable(old)}, a name that ngspice cannot keep\n"
        yield from (f"* left out, no DC current there: {what} ({count})\n" for what, count in self._left_out() if count)
        if any(" D(" in card for card in self.models) and not options.gmin:
            yield "* ngspice adds 1e-12 S across each junction, circuitsim none: .options gmin=1e-18 closes the gap\n"
        if any("sidiode(" in card and f"={MIN_RON!r}" in card for card in self.models):
            yield f"* Ron of a perfect diode is {MIN_RON!r} ohm here: an error of 1 uV for each ampere\n"
        words = [f"temp={options.temp!r}", f"tnom={options.tnom!r}"]
        words += [f"gmin={options.gmin!r}"] if options.gmin else []
        words += [f"rshunt={options.rshunt!r}"] if np.isfinite(options.rshunt) else []
        yield f".options {' '.join(words)}\n"

    def _left_out(self) -> list[tuple[str, int]]:
        loops = self.loops
        return [
            ("infinite resistors", int(np.isinf(self.r).sum())),
            ("crossbar members with g = 0", sum(int((x.g == 0).sum()) for x in self.circuit.crossbars)),
            ("capacitors", len(self.tables["C"])),
            ("diodes with IS = 0", self.opens),
            ("shorts from a node to itself", int((loops["R"] & (self.r == 0)).sum() + loops["L"].sum())),
            ("sources of 0 V from a node to itself", int((loops["V"] & (self.v == 0)).sum())),
        ]

    # -- what is asked for -----------------------------------------------------------------------------------------

    def _swept_name(self, swept: Swept) -> str | None:
        """The name of an element that ngspice can sweep; None: it is an array, or not there as such."""
        found = self.netlist.find(swept.name)
        if found is None or found[0] == CROSSBAR or found[2] - found[1] != 1:
            return None
        kind, row, _ = found
        return self.names[kind][row] if self._has_card(kind, row) and (kind, row) not in self.stand_ins else None

    def _has_card(self, kind: str, row: int) -> bool:
        """Whether there is a card for an element."""
        if kind == "R":
            return bool(np.isfinite(self.r[row]) and (self.r[row] > 0 or not self.loops[kind][row]))
        if kind == "D":
            return (kind, row) in self.stand_ins or row in self.diodes
        return kind in "IEFGHN" or (kind in "VL" and not self.loops[kind][row])

    def _saves(self) -> Iterator[str]:
        """Node voltages and source currents always, as circuitsim gives them; `.save` alone would restrict ngspice."""
        words, lost = [], []
        for word in self.netlist.saves:
            saves = find_save(self.netlist, word)
            if sum(map(len, saves)) > _MOST_SAVES:
                lost.append(word)
                continue
            for save in saves:
                if save.kind == NODES and save.minus is None:
                    continue  # among all
                names = [self._save_name(save, row) for row in save.rows.tolist()]
                words += [name for name in names if name is not None]
                lost += [label for label, name in zip(save.labels, names, strict=True) if name is None]
        asked_for = self.netlist.saves or self.netlist.sweeps  # ngspice -b asks for it before it sweeps
        yield from wrapped(".save", ["all", *dict.fromkeys(words)] if asked_for else [])
        yield from wrapped("* .save, of which ngspice knows nothing:", lost)

    def _save_name(self, save: Save, row: int) -> str | None:
        """What ngspice calls a quantity of an element; None: nothing."""
        if save.kind in (NODES, CROSSBAR) or not self._has_card(save.kind, row):
            return None
        kind, name = self.stand_ins.get((save.kind, row), (save.kind, self.names[save.kind][row]))
        form = _SAVES.get((kind, save.quantity), "")
        return None if not form or ("[" in name and form[0] == "@") else form.format(name)

    # -- linear elements -------------------------------------------------------------------------------------------

    def _branches(self, kind: str, rows: Ints, values: Floats) -> Iterator[str]:
        """Lines `name a b value` of these rows of a table."""
        table, names, nodes = self.tables[kind], self.names[kind], self.nodes
        for start in range(0, rows.size, _CHUNK):
            some = rows[start : start + _CHUNK]
            columns = some.tolist(), table.a[some].tolist(), table.b[some].tolist(), values[some].tolist()
            yield "".join([f"{names[k]} {nodes[a]} {nodes[b]} {x!r}\n" for k, a, b, x in zip(*columns, strict=True)])

    def _controlled(self, kind: str, values: Floats) -> Iterator[str]:
        """Lines `name a b nc+ nc- gain`, or with the name of a source in the place of nc+ and nc-."""
        for k, gain in enumerate(values.tolist()):
            links = [(column, int(rows[k])) for column, rows in self.tables[kind].links.items()]
            control = [self.names["V"][i] if column == "control" else self.nodes[i] for column, i in links]
            yield f"{self.names[kind][k]} {self._ends(kind, k)} {' '.join(control)} {gain!r}\n"

    def _shorts(self) -> Iterator[str]:
        """R = 0 and L, as sources of 0 V."""
        first = True
        for kind, short in (("R", self.r == 0), ("L", np.ones(len(self.tables["L"]), bool))):
            for k in np.flatnonzero(short & ~self.loops[kind]).tolist():
                if first:
                    yield "* Shorts (R = 0, L) are sources of 0 V: exact, where ngspice would take 1 mohm for R = 0\n"
                    first = False
                name = self.source_names.fresh(f"V_{self.names[kind][k]}")
                self.stand_ins[kind, k] = "V", name
                yield f"{name} {self._ends(kind, k)} 0.0\n"

    def _ends(self, kind: str, row: int) -> str:
        table = self.tables[kind]
        return f"{self.nodes[table.a[row]]} {self.nodes[table.b[row]]}"

    def _alias_sources(self) -> Iterator[str]:
        if self.aliases:
            yield "* XSPICE devices cannot read these node names: each is tied by 0 V to one that they can\n"
        for node, alias in self.aliases.items():
            yield f"{self.source_names.fresh(f'V_{alias}')} {self.nodes[node]} {alias} 0.0\n"

    def _crossbar(self, name: str, card: CrossbarCard, g: Floats) -> Iterator[str]:
        """A chunk for each column of the crossbar: row by row ngspice would take up to four times as long."""
        rows = [self.nodes[i] for i in card.rows.tolist()]
        ends = [self.nodes[j] for j in card.cols.tolist()]
        names = [f"{name}[{i}]" for i in card.ranges[0]]
        for j, end, conductances in zip(card.ranges[1], ends, np.ascontiguousarray(g.T), strict=True):
            present = np.flatnonzero(conductances)
            members = zip(present.tolist(), (1.0 / conductances[present]).tolist(), strict=True)
            yield "".join([f"{names[i]}[{j}] {rows[i]} {end} {r!r}\n" for i, r in members])

    # -- diodes ----------------------------------------------------------------------------------------------------

    def _diodes(self) -> list[str]:
        """The cards of all diodes in deck order; on the way, those of their models."""
        table = self.tables["D"]
        cards: dict[int, str] = {}
        for m in np.unique(table.values["model"]).astype(int).tolist():
            model = self.netlist.models[m]
            kind, p, _ = diode_kind(model, self.netlist.at(model.seq))
            for k in np.flatnonzero(table.values["model"] == m).tolist():
                area, copies, temp = (float(table.values[column][k]) for column in ("area", "m", "temp"))
                if kind == "pwl":
                    ends = f"{self._xspice_node(int(table.a[k]))} {self._xspice_node(int(table.b[k]))}"
                    name = self.devices.fresh(f"A{self.names['D'][k]}")
                    self.stand_ins["D", k] = "A", name
                    cards[k] = f"{name} {ends} {self._model(model.name, _sidiode(p, area * copies))}"
                elif p["is"] == 0:
                    self.opens += 1
                else:
                    factor = (f" area={area!r}" if area != 1 else "") + (f" m={copies!r}" if copies != 1 else "")
                    heat = f" temp={temp!r}" if temp != self.netlist.options.temp else ""
                    name = self._model(model.name, _shockley(p, temp - p.get("tnom", self.netlist.options.tnom)))
                    cards[k] = f"{self.names['D'][k]} {self._ends('D', k)} {name}{factor}{heat}"
                    self.diodes.add(k)
        return [cards[k] for k in sorted(cards)]

    def _nonlinear_resistors(self) -> Iterator[str]:
        """B sources whose current is a function of their own voltage."""
        table = self.tables["N"]
        for k, (row, m) in enumerate(zip(table.values["model"].tolist(), table.values["m"].tolist(), strict=True)):
            across = f"v({self.nodes[table.a[k]]},{self.nodes[table.b[k]]})"
            name = self.devices.fresh(f"B{self.names['N'][k]}")
            self.stand_ins["N", k] = "B", name
            yield f"{name} {self._ends('N', k)} i={_current(self.netlist.models[int(row)], m, across)}\n"

    def _model(self, name: str, parameters: str) -> str:
        """The name of a model in the output; models of one name and the same parameters are one."""
        key = (name.lower(), parameters)
        if key not in self.model_of:
            self.model_of[key] = self.model_names.fresh(name)
            self.models.append(f".model {self.model_of[key]} {parameters}")
        return self.model_of[key]


def _shockley(p: Mapping[str, float], warmer: float) -> str:
    """With the TCV that moves BV as much, so many degrees above Tnom, as TBV1 and TBV2 do, which ngspice ignores."""
    keys = ["is", "n", "rs", "eg", "xti"]
    if np.isfinite(p["bv"]):
        p = {**p, "tcv": float(linear_breakdown(p, np.asarray(warmer)))}
        keys += ["bv", "ibv", "nbv"]
    keys += [key for key in ("ikf", "trs1", "trs2", "tcv") if p[key]]
    keys += ["isr", "nr", "vj", "m"] if p["isr"] else []
    keys += ["tnom"] if "tnom" in p else []
    return f"D({' '.join(f'{key.upper()}={p[key]!r}' for key in keys)})"


def _sidiode(p: Mapping[str, float], area: float) -> str:
    """The area multiplies all conductances. Roff has no default that means none."""
    values = {"Ron": max(p["ron"] / area, MIN_RON), "Roff": min(p["roff"] / area, _OPEN), "Vfwd": min(p["vfwd"], _OPEN)}
    if np.isfinite(p["vrev"]):
        values |= {"Vrev": p["vrev"], "Rrev": max(p["rrev"] / area, MIN_RON)}
    return f"sidiode({' '.join(f'{key}={value!r}' for key, value in values.items())})"


def _current(model: ModelCard, m: float, v: str) -> str:
    """The current of a nonlinear resistor as an expression of its voltage `v`."""
    if model.type == "pwl":
        return f"{m!r}*pwl({v}, {', '.join(map(repr, model.points))})"
    scale, v0, g = resistor_values(model)
    linear = f"+{m * g!r}*{v}" if g else ""
    return f"{m * scale!r}*{model.type}({v}/{v0!r}){linear}"
