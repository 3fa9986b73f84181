"""Circuit -> netlist in circuitsim's own language: the present circuit, in files that read back to the same circuit.

Everything is resolved - includes, subcircuits, parameters, expressions, random draws, files - but arrays stay arrays,
in the order of the deck. Numbers are written so that they read back to the same double; a resistor is written in ohm
where that gives its conductance exactly, otherwise as `g=` in siemens. What has no effect on the circuit is omitted:
the values of L and C, K, `.options scale`, models that no element uses. Diodes (and nonlinear resistors) of several
instances of a subcircuit share one model when their models are equal. Values that follow the temperature are written
as they are at that of the circuit, and a comment says so; diodes keep their models. A `.dc` card that has no meaning
for final values, for example of a parameter, becomes a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import Circuit
from circuitsim.errors import SettingsError, listed
from circuitsim.io.files import check_target, replacing
from circuitsim.netlist import ArrayRef, ModelCard, Options
from circuitsim.netlist.arrays import bounds_of, member_names, split_ranges
from circuitsim.netlist.saves import ALL, NODES, find_save, labels_of
from circuitsim.spice.deck import Names, dc_cards, follows_temperature, refuse_batch, safe_names, wrapped

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_INDEXED = re.compile(r"(.*?)((?:\[(?:0|[1-9][0-9]{0,14})\])+)")
_ENDS_IN_RANGE = re.compile(r"\[[0-9]+:[0-9]+\]$")
_ONE_WORD = re.compile(r"[^\s,=(){}'\";:]+")
_UNSAFE_NODE = re.compile(r"^\$|\\\\$", re.MULTILINE)  # begins a comment, or joins the next line
_UNSAFE_MODEL = re.compile(r"^[-+.0-9]+(e[-+]?[0-9]+)?$|^inf$|[^\w.+:#<>-]", re.IGNORECASE)  # a value; no such word
_ANY = re.compile(r"(?!)")  # matches nothing
_PARAMETER = re.compile(r"[a-z_]\w*")
_LAST = (2**63, 0)  # a place behind all others
_FACTORS = {
    "D": (("area", 1.0), ("m", 1.0)),
    "N": (("m", 1.0),),
}  # and what they are by themselves


def export(circuit: Circuit, path: str | Path, remarks: Sequence[str] = ()) -> None:
    """Write a circuit, with values changed by `with_values` too, as the netlist `path`; `remarks` become comments.

    Arrays whose members differ go to a numpy file beside it, `path` with the suffix `.npz`, which is written first.
    Each of the two files is written completely or not at all. An array or crossbar whose nodes do not form ranges (as
    pins of a subcircuit can cause) is written member by member. Raises SettingsError when sources have a batch of
    values, when a file cannot be written, when the name of the numpy file is not possible in a netlist, or when there
    is a file of that name, with other arrays, without a netlist beside it.

    >>> import tempfile
    >>> from circuitsim.build import parse
    >>> text = "two loads\\n.param r=2k\\nV1 a 0 6\\nRL[0:1] a b[0:1] {r}\\nRM[0:1] b[0:1] 0 {aunif(2, 1)}\\n.output a"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(parse(text), Path(folder, "loads.cir"), ["as built"])
    ...     print(Path(folder, "loads.cir").read_text(), end="")
    two loads
    * as built
    * loads.npz holds values of arrays: sources in V and A, g= in S, other resistors in ohm
    <BLANKLINE>
    V1 a 0 6
    RL[0:1] a b[0:1] 2000
    RM[0:1] b[0:1] 0 @loads.npz:RM
    <BLANKLINE>
    .output a
    .op
    .end
    """
    if not isinstance(circuit, Circuit) or not isinstance(path, str | Path):
        found = f"{type(circuit).__name__} and {type(path).__name__}"
        raise SettingsError(f"export takes a Circuit and the path of the netlist to write, found {found}")
    refuse_batch(circuit, "export")
    path = Path(path)
    check_target(path)
    beside = path.with_suffix(".npz")
    if beside == path:
        raise SettingsError(f"cannot write {path}: .npz is for the arrays of a netlist; give it the suffix .cir")
    writer = _Writer(circuit, beside.name)
    text = "".join(writer.deck(remarks))
    if writer.arrays:
        if not _ONE_WORD.fullmatch(beside.name) or not beside.name.isprintable():
            raise SettingsError(
                f"cannot write {path}: its netlist cannot name the file '{beside.name}'; choose a name without blanks "
                "and without , = ( ) { } ' \" ; :"
            )
        _keep_others(beside, path, writer)
        with replacing(beside, "wb") as out:
            np.savez(out, **writer.arrays)  # type: ignore[arg-type]  # no array has the name of an option
    with replacing(path, "w") as out:
        out.write(text)


def _keep_others(beside: Path, path: Path, writer: _Writer) -> None:
    """Raise SettingsError when the numpy file `beside` a netlist is there, and may hold what nobody wants replaced.

    It may be when the netlist is there too, and is replaced with it, or when it has no other arrays than those that are
    written, as an export that was killed between the two leaves it.
    """
    if path.exists() or not beside.is_file():
        return
    try:
        with np.load(beside, allow_pickle=False) as arrays:
            others = [key for key in arrays.files if key not in writer.arrays]
    except Exception:  # a damaged file makes numpy and zipfile raise almost anything
        others = ["no arrays that can be read"]
    if others:
        raise SettingsError(
            f"cannot write {path}: its arrays would replace {beside}, which holds {listed(others, 3)}; choose another "
            "name, or remove that file"
        )


class _Part(NamedTuple):
    """What one card says: rows start:stop of the table of a kind (several: an array), or one crossbar."""

    place: tuple[int, int]  # of the top-level card, and of its own card (in a subcircuit: where that is defined)
    kind: str  # that of the table, or `crossbar`
    start: int
    stop: int
    ref: ArrayRef | None = None  # of an array


class _Writer:
    """The lines of the deck; on the way, `arrays` takes what goes into the numpy file `file`."""

    def __init__(self, circuit: Circuit, file: str) -> None:
        self.circuit, self.file = circuit, file
        self.netlist = circuit.netlist
        self.tables = self.netlist.tables
        self.arrays: dict[str, Floats] = {}
        self.keys = Names(_ANY)
        self.split: dict[str, list[str]] = {}  # arrays written member by member: lower-case name -> names of members
        self.comments: list[str] = []
        self.named = 1  # nodes that were named before the part that is being written: ground, and those of other parts
        self.nodes, renamed = safe_names(self.netlist.nodes, _UNSAFE_NODE)
        self.comments += [f"node {new} stands for {old}, which not every card can name" for old, new in renamed]
        self.models: dict[str, ModelCard] = {}  # name in the deck -> model
        self.model_of = self._name_models()
        self.ends = {kind: [table.a, table.b] for kind, table in self.tables.items()}
        for kind in "EG":
            self.ends[kind] += [self.tables[kind].links["ca"], self.tables[kind].links["cb"]]
        self.nodes_of = {kind: [nodes.tolist() for nodes in ends] for kind, ends in self.ends.items()}
        self.r, self.g = self.tables["R"].values["r"], circuit.element_values("R")
        with np.errstate(divide="ignore", over="ignore"):
            self.in_ohm = self.g == 1.0 / self.r
        self.sources = {kind: circuit.element_values(kind) for kind in "VIEFGH"}

    def deck(self, remarks: Sequence[str]) -> list[str]:
        """The whole netlist, top to bottom."""
        body = [text for part in self._in_deck_order() for text in self._cards(part)]
        analyses = dc_cards(self.circuit, lambda swept: None if swept.name.lower() in self.split else swept.name)
        return [*self._head(remarks), "\n", *body, "\n", *self._roles(), *analyses, ".op\n.end\n"]

    # -- what stands around the elements ---------------------------------------------------------------------------

    def _head(self, remarks: Sequence[str]) -> Iterator[str]:
        yield f"{self.netlist.title}\n"
        comments = [line for remark in remarks for line in remark.splitlines() or [""]] + self.comments
        if self.arrays:
            more = ", gains of controlled sources" if len(self.circuit.controlled) else ""
            comments.append(
                f"{self.file} holds values of arrays: sources in V and A, g= in S, other resistors in ohm{more}"
            )
        if follows_temperature(self.netlist):
            temp = _number(self.netlist.options.temp)
            comments.append(f"values are those at {temp} C: some followed the temperature, none does here")
        if len(self.tables["L"]) or len(self.tables["C"]):
            comments.append("L and C are shorts and opens at DC: their values do not matter, and are 0 here")
        yield from (f"* {comment}\n" for comment in comments)
        words = _options(self.netlist.options)
        yield f".options {' '.join(words)}\n" if words else ""
        yield from (f".model {name} {_law(model)}\n" for name, model in self.models.items())

    def _roles(self) -> Iterator[str]:
        yield from wrapped(".input", self._elements(self.netlist.inputs))
        yield from wrapped(".output", self._outputs())
        yield from wrapped(".train", self._elements(self.netlist.trained))
        yield from wrapped(".save", (word for saved in self.netlist.saves for word in self._saved(saved)))

    def _saved(self, word: str) -> list[str]:
        """A .save expression with the names that nodes, and arrays written member by member, have here."""
        if word.lower() in ALL:
            return [word]
        saves = find_save(self.netlist, word)  # several: crossbars of several instances
        save = saves[0]
        if save.kind != NODES:
            return labels_of(saves) if self.split else [word]
        nodes = [save.rows] if save.minus is None else [save.rows, save.minus]
        if all(self.nodes[k] == self.netlist.nodes[k] for k in np.concatenate(nodes).tolist()):
            return [word]
        return [f"v({','.join(self.nodes[k] for k in ends)})" for ends in np.transpose(nodes).tolist()]

    def _elements(self, names: Sequence[str]) -> Iterator[str]:
        for name in names:
            yield from self.split.get(name.lower(), [name])

    def _outputs(self) -> Iterator[str]:
        """The outputs; nodes that make a range are one word."""
        pairs = list(zip(self.netlist.outputs, self.netlist.references, strict=True))
        names = [f"v({self.nodes[a]},{self.nodes[b]})" if b else self.nodes[a] for a, b in pairs]
        start = 0
        for stop in range(1, len(names) + 1):
            if stop == len(names) or _span(names[max(start, stop - 2) : stop + 1]) is None:
                word = _span(names[start:stop]) if stop - start > 1 else None
                if word is None or self.netlist.has_node(word):
                    yield from names[start:stop]
                else:
                    yield word
                start = stop

    def _name_models(self) -> list[str]:
        """The name in the deck of each row of Netlist.models; '' when no element uses it."""
        names = Names(_UNSAFE_MODEL)
        used = {row for kind in _FACTORS for row in self.tables[kind].values["model"].astype(int).tolist()}
        known: dict[tuple[str, str], str] = {}  # (lower-case name, law) -> name in the deck
        out = []
        for row, model in enumerate(self.netlist.models):
            key = model.name.lower(), _law(model)
            if row in used and key not in known:
                known[key] = new = names.keep(model.name)
                self.models[new] = model
                if new != model.name:
                    self.comments.append(f"model {new} stands for one of the models {model.name}")
            out.append(known.get(key, ""))
        return out

    # -- order -----------------------------------------------------------------------------------------------------

    def _in_deck_order(self) -> Iterator[_Part]:
        """All parts: those of a kind in the order of its table, and so that nodes keep their numbers.

        A netlist numbers its nodes as its cards name them, so the next card of the deck always names no new nodes but
        the next ones. Of several such cards the one with the first place is taken: that is the next card itself,
        except between cards of one instance of a subcircuit.
        """
        queues = [parts[::-1] for parts in self._parts() if parts]
        while queues:
            queues.sort(key=lambda queue: queue[-1].place)
            chosen = next((queue for queue in queues if self._named_after(queue[-1])), queues[0])
            others = min((queue[-1].place for queue in queues if queue is not chosen), default=_LAST)
            after = self._named_after(chosen[-1]) or self.named
            while after:
                yield chosen.pop()
                self.named = after
                after = self._named_after(chosen[-1]) if chosen and chosen[-1].place <= others else 0
            queues = [queue for queue in queues if queue]

    def _parts(self) -> Iterator[list[_Part]]:
        """The parts of each kind."""
        for kind, table in self.tables.items():
            arrays = {ref.start: ref for ref in self.netlist.arrays.values() if ref.kind == kind}
            parts, row = [], 0
            places = list(zip(table.order.tolist(), table.seq.tolist(), strict=True))
            while row < len(places):
                ref = arrays.get(row)
                parts.append(_Part(places[row], kind, row, ref.stop if ref else row + 1, ref))
                row = parts[-1].stop
            yield parts
        yield [_Part((card.order, card.seq), "crossbar", k, k + 1) for k, card in enumerate(self.netlist.crossbars)]

    def _named_after(self, part: _Part) -> int:
        """How many nodes are named after this part, or 0 when it names one that is not the next."""
        named = self.named
        if part.kind == "crossbar":
            card = self.netlist.crossbars[part.start]
            ends = [card.rows.tolist(), card.cols.tolist()]
        else:
            ends = [nodes[part.start : part.stop] for nodes in self.nodes_of[part.kind]]
        for nodes in ends:
            for node in nodes:
                if node == named:
                    named += 1
                elif node > named:
                    return 0
        return named

    # -- elements --------------------------------------------------------------------------------------------------

    def _cards(self, part: _Part) -> Iterator[str]:
        if part.kind == "crossbar":
            yield from self._crossbar(part.start)
        elif part.ref is not None:
            yield from self._array(part, part.ref)
        else:
            yield self._single(part.kind, part.start)

    def _single(self, kind: str, row: int) -> str:
        """The card of one row of a table."""
        words = [self.tables[kind].names[row], *(self.nodes[nodes[row]] for nodes in self.nodes_of[kind])]
        words += self._controls(kind, slice(row, row + 1))
        if kind == "R":
            value = _number(self.r[row]) if self.in_ohm[row] else f"g={_number(self.g[row])}"
        elif kind in _FACTORS:
            given = [(key, values[row], default) for key, values, default in self._factors(kind)]
            factors = [f"{key}={_number(value)}" for key, value, default in given if value != default]
            value = " ".join([self._model(kind, row), *factors])
        else:
            value = _number(self.sources[kind][row]) if kind in self.sources else "0"
        return f"{' '.join(words)} {value}\n"

    def _controls(self, kind: str, rows: slice) -> list[str]:
        """The names of the voltage sources that control these rows of a table."""
        control = self.tables[kind].links.get("control")
        return [] if control is None else [self.tables["V"].names[row] for row in control[rows].tolist()]

    def _array(self, part: _Part, ref: ArrayRef) -> Iterator[str]:
        """One card for an array; a card for each member when one cannot say it."""
        table, rows = self.tables[part.kind], slice(part.start, part.stop)
        name = table.names[part.start].removesuffix("".join(f"[{indices[0]}]" for indices in ref.indices))
        shape = tuple(map(len, ref.indices))
        of_ends = [nodes[rows].reshape(shape) for nodes in self.ends[part.kind]]
        if len(shape) == 2:
            ends = self._ends_of_two_ranges(part.kind, *of_ends)
        else:
            ends = [self._shared(nodes) or self._range(nodes) for nodes in of_ends]
        controls = self._controls(part.kind, rows)
        if controls:
            ends.append(controls[0] if len(set(controls)) == 1 else _span(controls))
        values = self._values(part.kind, name, rows, shape) if None not in ends else None
        if values is not None:
            yield f"{name}{bounds_of(ref.indices)} {' '.join([*filter(None, ends), *values])}\n"
            return
        self.split[name.lower()] = table.names[rows]
        yield f"* array {name}{bounds_of(ref.indices)}, member by member: no one card can say it\n"
        yield "".join([self._single(part.kind, row) for row in range(part.start, part.stop)])

    def _values(self, kind: str, name: str, rows: slice, shape: tuple[int, ...]) -> list[str] | None:
        """The words for the values of an array; None when no file can hold them: shorts and opens side by side."""
        if kind in _FACTORS:
            given = [(key, values[rows], default) for key, values, default in self._factors(kind)]
            words = [
                self._word(f"{key}=", f"{name}.{key}", values.reshape(shape))
                for key, values, default in given
                if (values != default).any()
            ]
            return [self._model(kind, rows.start), *words]
        if kind == "R":
            r, g = self.r[rows].reshape(shape), self.g[rows].reshape(shape)
            if self.in_ohm[rows].all() and np.isfinite(r).all():
                return [self._word("", name, r)]
            return [self._word("g=", name, g)] if np.isfinite(g).all() else None
        return [self._word("", name, self.sources[kind][rows].reshape(shape))] if kind in self.sources else ["0"]

    def _crossbar(self, k: int) -> Iterator[str]:
        card, g = self.netlist.crossbars[k], self.circuit.crossbars[k].g
        name, bounds = card.name, bounds_of(card.ranges)
        ends = [self._range(nodes) for nodes in (card.rows, card.cols)]
        if None not in ends:
            yield f"{name}{bounds} {ends[0]} {ends[1]} {self._word('g=', name, g)}\n"
            return
        self.split[name.lower()] = members = member_names(name, card.ranges)
        yield f"* crossbar {name}{bounds}, member by member: its nodes are no ranges\n"
        rows, cols = ([self.nodes[node] for node in nodes.tolist()] for nodes in (card.rows, card.cols))
        pairs = [(row, col) for row in rows for col in cols]
        values = zip(members, pairs, g.ravel().tolist(), strict=True)
        yield "".join([f"{member} {row} {col} g={_number(x)}\n" for member, (row, col), x in values])

    def _ends_of_two_ranges(self, kind: str, a: Ints, b: Ints) -> list[str | None]:
        """The words for the nodes (rows, columns) of an array with two ranges: two on one of them, or one on each."""
        grids = [self._range(nodes) for nodes in (a, b)]
        lines = [
            self._range(line) if (nodes == one).all() else None
            for nodes, one, line in ((a, a[:, :1], a[:, 0]), (b, b[:1], b[0]))
        ]
        if grids == [None, None]:
            return lines if kind != "R" else grids  # which would be a crossbar
        return [grid or line or self._shared(nodes) for grid, line, nodes in zip(grids, lines, (a, b), strict=True)]

    def _shared(self, nodes: Ints) -> str | None:
        """The word for one node at all members of an array; None when there is not one, or its name is like a range."""
        name = self.nodes[nodes.flat[0]]
        return name if (nodes == nodes.flat[0]).all() and not split_ranges(name)[1] else None

    def _range(self, nodes: Ints) -> str | None:
        """The word with a range for each axis of these nodes.

        None when there is none, or when it would spell a node that is new differently.
        """
        names = [self.nodes[node] for node in nodes.flat]
        word = _span(names, nodes.shape, int(nodes.argmax()))
        new = [names[k] for k in np.flatnonzero(nodes.ravel() >= self.named).tolist()]
        if word is None:
            return None
        base = word[: len(_INDEXED.fullmatch(names[0])[1])]  # type: ignore[index]  # it has indices
        return word if all(name.startswith(base) for name in new) else None

    def _word(self, before: str, key: str, values: Floats) -> str:
        """One number for equal values; the others go to the numpy file."""
        values = np.ascontiguousarray(values, np.float64)
        bits = values.reshape(-1).view(np.int64)
        if (bits == bits[0]).all():
            return f"{before}{_number(values.flat[0])}"
        key = self.keys.fresh(key)
        self.arrays[key] = values
        return f"{before}@{self.file}:{key}"

    def _model(self, kind: str, row: int) -> str:
        return self.model_of[int(self.tables[kind].values["model"][row])]

    def _factors(self, kind: str) -> list[tuple[str, Floats, float]]:
        """What can stand behind the model of an element: (key, values of all of the kind, what it is by itself)."""
        factors = [*_FACTORS[kind], *([("temp", self.netlist.options.temp)] if kind == "D" else [])]
        return [(key, self.tables[kind].values[key], default) for key, default in factors]


def _number(value: float) -> str:
    """The shortest text that reads back to the same double.

    >>> _number(1000.0), _number(0.1), _number(-1e-17), _number(np.inf)
    ('1000', '0.1', '-1e-17', 'inf')
    """
    return repr(float(value)).removesuffix(".0")


def _span(names: list[str], shape: tuple[int, ...] | None = None, spelling: int = 0) -> str | None:
    """The word with ranges that stands for these names (in any case), or None; its base is spelled as in one of them.

    With a `shape` it has a range for each axis, the names being in row-major order.

    >>> _span(["h[3]", "h[2]", "h[1]"]), _span(["y[7]"]), _span(["h[1]", "h[3]"]), _span(["a", "b"])
    ('h[3:1]', 'y[7:7]', None, None)
    >>> _span(["w[0][5]", "w[1][5]"]), _span(["w[0][5]", "w[0][6]", "w[1][5]", "w[1][6]"], (2, 2))
    ('w[0:1][5]', 'w[0:1][5:6]')
    """
    shape = shape or (len(names),)
    matches = [match for match in map(_INDEXED.fullmatch, names) if match is not None]
    if len(matches) < len(names) or len({match[1].lower() for match in matches}) > 1:
        return None
    found = [[int(k) for k in match[2][1:-1].split("][")] for match in matches]
    base, count = matches[spelling][1], len(found[0])
    if any(len(of_name) != count for of_name in found) or _ENDS_IN_RANGE.search(base):
        return None
    by_place = [np.array(indices).reshape(shape) for indices in zip(*found, strict=True)]
    for places in combinations(range(count), len(shape)):  # of the ranges; the other indices stay
        words = [f"[{steps.flat[0]}]" if (steps == steps.flat[0]).all() else None for steps in by_place]
        for axis, place in enumerate(places):
            words[place] = _axis(by_place[place], axis)
        if None not in words:
            return base + "".join(filter(None, words))
    return None


def _axis(indices: Ints, axis: int) -> str | None:
    """The range of indices that run along this axis alone, one after the other; None when they do not."""
    line = np.moveaxis(indices, axis, 0).reshape(indices.shape[axis], -1)
    first, last = int(line[0, 0]), int(line[-1, 0])
    wanted = np.linspace(first, last, len(line), dtype=np.int64)
    runs = abs(last - first) == len(line) - 1 and (line == wanted[:, None]).all()
    return f"[{first}:{last}]" if runs else None


def _law(model: ModelCard) -> str:
    """`D(ideal ron=0)`, `PWL(0 0 1 0.001)`. Parameters with other names mean nothing to any model: left out."""
    given = [f"{key}={_number(value)}" for key, value in model.params.items() if _PARAMETER.fullmatch(key)]
    return f"{model.type.upper()}({' '.join([*sorted(model.flags), *given, *map(_number, model.points)])})"


def _options(options: Options) -> list[str]:
    """The options that are not what they are by themselves."""
    usual = Options()
    words = [
        f"{key}={_number(getattr(options, key))}"
        for key in ("temp", "tnom", "gmin", "rshunt")
        if getattr(options, key) != getattr(usual, key)
    ]
    return words + ([f"seed={options.seed}"] if options.seed else [])
