"""Netlist -> Circuit: each element gets its physics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.branches import Conductors, Controlled, Crossbar, CurrentSources, IdealDiodes, Junctions, Ties
from circuitsim.circuit import Circuit
from circuitsim.errors import At, NetlistError, SettingsError
from circuitsim.law_kernels import G_FORWARD, G_REVERSE, N_PARAMS, V_FORWARD, V_REVERSE, Law
from circuitsim.models import MOST, diode_kind, resistor_branches, shockley_params
from circuitsim.netlist import Netlist, Params, parse_netlist, read_netlist
from circuitsim.netlist.checks import LEAST_OHMS
from circuitsim.netlist.expressions import Value
from circuitsim.netlist.model import KINDS, ModelCard
from circuitsim.netlist.scopes import may_draw
from circuitsim.netlist.tokens import shown

MOST_TRIED = 20  # seeds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def load(path: str | Path, seed: int | None = None, params: Params | None = None) -> Circuit:
    """Read a netlist file into a Circuit. Raises NetlistError.

    seed: for the random functions in its expressions; replaces `.options seed=`. SettingsError unless it is a whole
    number from 0 to 2^53.
    params: values of parameters, numbers or SPICE numbers as text, which replace those of `.param` cards outside
    subcircuits. SettingsError for a name that no such card defines.
    """
    if not isinstance(path, str | Path):
        raise SettingsError(f"load takes the path of a netlist, found {type(path).__name__}")
    if isinstance(path, str) and "\n" in path:
        raise SettingsError("load takes the path of a netlist, found a text of several lines; parse reads a text")
    return build_circuit(read_netlist(path, seed, params))


def load_for_runs(path: str | Path, seed: int | None = None, params: Params | None = None) -> tuple[Circuit, int]:
    """A netlist file whose random values are drawn anew in each run, and the seed of the first run (default: its own).

    The circuit is that of the netlist as `load` reads it; where the draws of that make no circuit, it has those of the
    first run that do. NetlistError when that is none of the first MOST_TRIED.
    """
    fault: NetlistError | None = None
    seeds: list[int | None] = [None]
    for own in seeds:
        netlist = None
        try:
            netlist = read_netlist(path, own, params)
            return build_circuit(netlist), netlist.options.seed if seed is None else seed
        except NetlistError as error:
            drawn = error.seed
            if netlist is not None and may_draw(netlist.text.cards):
                drawn = netlist.options.seed
            if drawn is None:
                raise
            if fault is None:
                fault, seed = error, drawn if seed is None else seed
                seeds += [k for k in range(seed, seed + MOST_TRIED) if k != drawn]
    assert fault is not None
    fault.message += f"; the draws of seeds {seed} to {seeds[-1]} make no valid circuit either"
    raise fault


def parse(
    text: str,
    name: str = "netlist",
    seed: int | None = None,
    params: Params | None = None,
    arrays: Mapping[str, ArrayLike] | None = None,
) -> Circuit:
    """Read a netlist from a string (first line: the title) into a Circuit. Raises NetlistError.

    seed, params: as in `load`.
    arrays: the values of `@NAME` in the text, by NAME, in the place of files; they are copied.

    >>> parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k").conductors.g
    array([0.001, 0.001])
    >>> parse("load\\n.param r=1k\\nV1 in 0 10\\nR1 in 0 {r}", params={"r": "2k"}).conductors.g
    array([0.0005])
    >>> parse("crossbar\\nRW[0:1][0:2] x[0:1] y[0:2] g=@w", arrays={"w": [[1e-3, 2e-3, 3e-3]] * 2}).crossbars[0].g.shape
    (2, 3)
    """
    if not isinstance(text, str):
        raise SettingsError(f"parse takes the text of a netlist, found {type(text).__name__}")
    if not isinstance(name, str):
        raise SettingsError(f"name is a text that messages begin with, found {type(name).__name__}")
    if text.split() == [text] and "." in text:
        raise SettingsError(f"parse takes the text of a netlist, found '{shown(text)}'; load reads a file")
    if arrays is not None and not isinstance(arrays, Mapping):
        raise SettingsError(f"arrays are a mapping of names to numbers, such as {{'w': w}}, found {arrays!r}")
    return build_circuit(parse_netlist(text, name, seed, params, arrays))


def build_circuit(netlist: Netlist) -> Circuit:
    """Give each element of a netlist its physics. Raises NetlistError for models that have none."""
    return _CircuitBuilder(netlist).build()


class _CircuitBuilder:
    def __init__(self, netlist: Netlist) -> None:
        self.netlist = netlist
        self.notes: dict[tuple[At | None, str], None] = dict.fromkeys(netlist.notes)
        self.pieces: dict[str, list[tuple[Ints, Ints, int, Ints, Floats]]] = {
            "conductors": [], "ties": [], "ideal": [], "junctions": [],
        }  # fmt: skip
        self.laws: list[NDArray[np.int8]] = []

    def add(self, group: str, kind: str, rows: Ints, values: Floats, reverse: bool = False) -> None:
        """Put the elements `rows` of table `kind` into a group of branches."""
        if rows.size:
            table = self.netlist.tables[kind]
            a, b = table.a[rows], table.b[rows]
            a, b = (b, a) if reverse else (a, b)
            self.pieces[group].append((a, b, KINDS.index(kind), rows, values))

    def build(self) -> Circuit:
        tables = self.netlist.tables
        r, g = tables["R"].values["r"], tables["R"].values["g"]
        linear = np.flatnonzero(((g > 0) & np.isfinite(g)) | self._trained_opens())
        self.add("conductors", "R", linear, g[linear])
        every_v = np.arange(len(tables["V"]))
        self.add("ties", "V", every_v, tables["V"].values["v"])
        shorts = np.flatnonzero(r == 0)
        self.add("ties", "R", shorts, np.zeros(shorts.size))
        inductors = np.arange(len(tables["L"]))
        self.add("ties", "L", inductors, np.zeros(inductors.size))
        self._diodes()
        self._nonlinear_resistors()
        self._shunts()
        sources = tables["I"]
        every_i = np.arange(len(sources))
        kind_i = np.full(every_i.size, KINDS.index("I"), np.int8)
        conductors, ties, ideal, junctions = (self._join(g) for g in ("conductors", "ties", "ideal", "junctions"))
        law = np.concatenate([np.zeros(0, np.int8), *self.laws])
        return Circuit(
            netlist=self.netlist,
            conductors=Conductors(*conductors),
            ties=Ties(*ties[:4], ties[4][None, :]),
            current_sources=CurrentSources(sources.a, sources.b, kind_i, every_i, sources.values["i"][None, :]),
            junctions=Junctions(*junctions[:4], law, junctions[4].reshape(-1, N_PARAMS)),
            ideal_diodes=IdealDiodes(*ideal),
            controlled=self._controlled(),
            crossbars=tuple(Crossbar(c.name, c.rows, c.cols, c.g) for c in self.netlist.crossbars),
            notes=tuple(self.notes),
        )

    def _controlled(self) -> Controlled:
        tables = [self.netlist.tables[kind] for kind in "EFGH"]

        def column(links: str, otherwise: int) -> Ints:
            return np.concatenate([t.links.get(links, np.full(len(t), otherwise)) for t in tables])

        return Controlled(
            a=np.concatenate([t.a for t in tables]),
            b=np.concatenate([t.b for t in tables]),
            kind=np.concatenate([np.full(len(t), KINDS.index(t.kind), np.int8) for t in tables]),
            row=np.concatenate([np.arange(len(t)) for t in tables]),
            ca=column("ca", 0),
            cb=column("cb", 0),
            control=column("control", -1),  # a row of V is the branch of the same number: sources come first in ties
            gain=np.concatenate([t.values["gain"] for t in tables]),
        )

    def _trained_opens(self) -> NDArray[np.bool_]:
        """Which rows of table R are open resistors that `.train` names, singly or as an array."""
        table, arrays = self.netlist.tables["R"], self.netlist.arrays
        found = np.zeros(len(table), bool)
        opens = table.values["g"] == 0
        if not opens.any():
            return found
        names = {name.lower() for name in self.netlist.trained}
        for name in names:
            if name in arrays and arrays[name].kind == "R":
                found[arrays[name].start : arrays[name].stop] = True
        found[[i for i in np.flatnonzero(opens).tolist() if table.names[i].lower() in names]] = True
        return found & opens

    def _join(self, group: str) -> tuple[Ints, Ints, NDArray[np.int8], Ints, Floats]:
        pieces = self.pieces[group]
        none = np.zeros(0, np.int64)
        return (
            np.concatenate([none, *[p[0] for p in pieces]]),
            np.concatenate([none, *[p[1] for p in pieces]]),
            np.concatenate([np.zeros(0, np.int8), *[np.full(p[3].size, p[2], np.int8) for p in pieces]]),
            np.concatenate([none, *[p[3] for p in pieces]]),
            np.concatenate([np.zeros(0), *[p[4].ravel() for p in pieces]]),
        )

    def _diodes(self) -> None:
        for kind, label, at, p, rows in self._diode_models():
            table = self.netlist.tables["D"]
            area, m = table.values["area"][rows], table.values["m"][rows]
            steepest = [1.0 / p[key] for key in ("ron", "roff", "rrev") if np.any(p.get(key, 0))] or [p["is"], p["isr"]]
            self._check_area(rows, area, m, np.max(np.broadcast_arrays(1.0, *steepest), axis=0))
            if kind == "pwl":
                self._piecewise_linear(rows, p, area * m)
            elif np.any(p["is"] > 0):
                self._check_series(rows, area, m, p)
                params = shockley_params(p, area, m, table.values["temp"][rows], self.netlist.options, label, at)
                self.add("junctions", "D", rows, params)
                self.laws.append(np.full(rows.size, Law.SHOCKLEY, np.int8))
            else:
                self._note(at, f"{label}: IS = 0, its diodes are open circuits")

    def _diode_models(self) -> Iterator[tuple[str, str, At, dict[str, Value], Ints]]:
        """The models of diodes: kind, label, place, parameters, rows of their diodes.

        Instances of a card come together, with a number for each row, where none is 0, negative or infinite in one
        of them only.
        """
        alike: dict[tuple[str, int, object], list[tuple[ModelCard, At, dict[str, float], Ints]]] = {}
        for model, at, rows in self._by_model("D"):
            kind, p, remarks = diode_kind(model, at)
            signs = tuple((name, (value > 0) - (value < 0), np.isinf(value)) for name, value in p.items())
            alike.setdefault((kind, model.seq, signs), []).append((model, at, p, rows))
            for remark in remarks:
                self._note(at, remark)
        for (kind, _, _), members in alike.items():
            model, at, p, _ = members[0]
            counts = [rows.size for *_, rows in members]
            of_each: dict[str, Value] = {}
            for name in p:
                values = [own[name] for _, _, own, _ in members]
                of_each[name] = values[0] if values.count(values[0]) == len(values) else np.repeat(values, counts)
            yield kind, f"model {model.name}", at, of_each, np.concatenate([rows for *_, rows in members])

    def _note(self, at: At, remark: str) -> None:
        """Keep a remark about a card: once, however many instances it has."""
        self.notes[at, remark] = None

    def _by_model(self, kind: str) -> Iterator[tuple[ModelCard, At, Ints]]:
        """The models that elements of a kind use, in their order: place, and rows of these elements."""
        model_of = self.netlist.tables[kind].values["model"].astype(np.int64)
        order = np.argsort(model_of, kind="stable")
        used, start = np.unique(model_of[order], return_index=True)
        places: dict[int, At] = {}
        for k, rows in zip(used.tolist(), np.split(order, start)[1:], strict=True):
            model = self.netlist.models[k]
            if model.seq not in places:
                places[model.seq] = self.netlist.at(model.seq)
            yield model, places[model.seq], rows

    def _check_area(self, rows: Ints, area: Floats, m: Floats, steepest: Value) -> None:
        """NetlistError for a diode whose area and m, times the steepest conductance or IS of its model, overflow."""
        with np.errstate(over="ignore"):
            scaled = steepest * (area * m)
        k = int(np.argmax(scaled))
        if scaled[k] > MOST:
            table = self.netlist.tables["D"]
            raise NetlistError(
                f"diode {table.names[rows[k]]}: area {area[k]:g} times m {m[k]:g} makes its current overflow; make "
                "them smaller, or RON of its model larger or 0",
                self.netlist.at(int(table.seq[rows[k]])),
            )

    def _check_series(self, rows: Ints, area: Floats, m: Floats, p: Mapping[str, Value]) -> None:
        """NetlistError for a diode whose area and m are so small that RS or 1/IKF, divided by them, overflows."""
        per_ikf = 1.0 / p["ikf"] if np.any(p["ikf"]) else 0.0
        for name, value, unit, most in (("RS", p["rs"], "ohm", p["rs"]), ("IKF", p["ikf"], "A", per_ikf)):
            bad = most > MOST * (area * m)
            if bad.any():
                table, k = self.netlist.tables["D"], int(np.argmin(np.where(bad, area * m, np.inf)))
                raise NetlistError(
                    f"diode {table.names[rows[k]]}: area {area[k]:g} times m {m[k]:g} makes the {name} of its model, "
                    f"{np.broadcast_to(value, rows.shape)[k]:g} {unit}, overflow; make them larger",
                    self.netlist.at(int(table.seq[rows[k]])),
                )

    def _piecewise_linear(self, rows: Ints, p: Mapping[str, Value], area: Floats) -> None:
        """i = goff v, and beyond each knee a steeper line (a perfect diode where RON = 0 or RREV = 0)."""
        goff = 1.0 / p["roff"]
        if np.any(goff > 0):
            self.add("conductors", "D", rows, goff * area)
        params = np.zeros((rows.size, N_PARAMS))
        params[:, V_FORWARD], params[:, V_REVERSE] = p["vfwd"], p["vrev"]
        if np.any(p["ron"]):
            params[:, G_FORWARD] = (1.0 / p["ron"] - goff) * area
        else:
            self.add("ideal", "D", rows, params[:, V_FORWARD].copy())
        if np.all(np.isinf(p["vrev"])):
            params[:, V_REVERSE] = 0.0
        elif np.any(p["rrev"]):
            params[:, G_REVERSE] = (1.0 / p["rrev"] - goff) * area
        else:
            self.add("ideal", "D", rows, params[:, V_REVERSE].copy(), reverse=True)
        bent = params[:, [G_FORWARD, G_REVERSE]].any(axis=1)
        if bent.any():
            self.add("junctions", "D", rows[bent], params[bent])
            self.laws.append(np.full(int(bent.sum()), Law.PWL, np.int8))

    def _nonlinear_resistors(self) -> None:
        """A model's conductance and, in parallel with it, its nonlinear branches; m multiplies all currents.

        Instances of a card come together where they have as many branches.
        """
        alike: dict[tuple[int, bool, Law, int], list[tuple[float, Floats, Ints]]] = {}
        for model, at, rows in self._by_model("N"):
            g, law, branches = resistor_branches(model, at)
            members = alike.setdefault((model.seq, g > 0, law, len(branches)), [])
            if g == 0 and not len(branches) and not members:
                self._note(at, f"model {model.name}: no current at any voltage, its elements are open")
            members.append((g, branches, rows))
        for (_, conducts, law, count), members in alike.items():
            counts, rows = [rows.size for _, _, rows in members], np.concatenate([rows for _, _, rows in members])
            if conducts:
                self.add("conductors", "N", rows, self._scaled(rows, np.repeat([g for g, _, _ in members], counts)))
            for j in range(count):
                params = np.repeat(np.stack([branches[j] for _, branches, _ in members]), counts, axis=0)
                params[:, 0] = self._scaled(rows, params[:, 0])
                self.add("junctions", "N", rows, params)
                self.laws.append(np.full(rows.size, law, np.int8))

    def _scaled(self, rows: Ints, value: Floats) -> Floats:
        """A current or conductance of nonlinear resistors times their m. NetlistError where it overflows."""
        table = self.netlist.tables["N"]
        m = table.values["m"][rows]
        scaled = value * np.minimum(m, MOST)
        k = int(np.argmax(np.maximum(m, scaled)))
        if max(m[k], scaled[k]) > MOST:
            raise NetlistError(
                f"nonlinear resistor {table.names[rows[k]]}: m {m[k]:g} makes its current overflow; make m smaller",
                self.netlist.at(int(table.seq[rows[k]])),
            )
        return scaled

    def _shunts(self) -> None:
        """`.options rshunt`: a resistor from every node to ground."""
        rshunt = self.netlist.options.rshunt
        if np.isfinite(rshunt):
            if not rshunt >= LEAST_OHMS:
                raise NetlistError(
                    f"{self.netlist.path}: option rshunt {rshunt:g} ohm must be positive, and have a finite conductance"
                )
            nodes = np.arange(1, len(self.netlist.nodes))
            ground = np.zeros_like(nodes)
            self.pieces["conductors"].append((nodes, ground, -1, nodes, np.full(nodes.size, 1.0 / rshunt)))
