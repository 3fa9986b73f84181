"""What to output besides node voltages and source currents: the expressions of `.save`, `.print` and `--save`.

    v(b)  v(y[0:9])  b       node voltages                         all    every voltage, current and power
    v(a,b)  v(p[0:9],n)      from node a to node b, one by one     allv   every node voltage
    i(v1)  i(r1)  i(rw)      current of an element, of an array    alli   the current of every element
    @r1[i]  @r.x1.r1[p]      a quantity of an element (QUANTITIES)

Names are ngspice's, in any case; ours are i() of any element, arrays, their members, `i(rw[3][0:9])`, and elements of
several instances of a subcircuit, `i(r.x[0:9][0].r1)`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import NetlistError, listed
from circuitsim.netlist.arrays import INDEX, NUMBER, SPAN, between, instance_paths, member_names
from circuitsim.netlist.model import CROSSBAR, Netlist, similar
from circuitsim.netlist.scopes import Place
from circuitsim.netlist.tokens import located, shown

Ints = NDArray[np.int64]

NODES = "node"  # kind of what is saved, besides the tables and the crossbars of a netlist
MOST_SAVED = 10_000_000  # columns
_NO_FUNCTIONS = frozenset({"op", "dc", "all", "allv", "alli"})  # a parenthesis may stand apart behind other words
_DIFFERENCE = re.compile(r"v\(([^(),]+)\)-v\(([^(),]+)\)", re.IGNORECASE)
_ANY = {"v(*)": "allv", "i(*)": "alli"}  # of PSpice and Xyce
_CALL = re.compile(r"([a-z]+)\(([^()]+)\)", re.IGNORECASE)
_DEVICE = re.compile(r"@(.+)\[([a-z]\w*)\]", re.IGNORECASE)
_INDICES = re.compile(rf"(.+?)((?:\[{NUMBER}(?::{NUMBER})?\])+)")
ALL = frozenset({"all", "allv", "alli"})

_TWO_TERMINAL = {"i": "i", "p": "p", "v": "v"}
_OHMIC = _TWO_TERMINAL | {"r": "r", "resistance": "r"}
QUANTITIES: Mapping[str, Mapping[str, str]] = {
    "R": _OHMIC,
    CROSSBAR: _OHMIC,
    "V": _TWO_TERMINAL | {"dc": "e"},
    "I": {"i": "i", "c": "i", "current": "i", "p": "p", "dc": "i"},  # ngspice's v has the other sign than all others
    "D": _TWO_TERMINAL | {"id": "i", "vd": "vd"},
    "L": _TWO_TERMINAL | {"current": "i"},
    "C": _TWO_TERMINAL,
}  # kind of element -> name in @element[name] -> quantity of Save


@dataclass(frozen=True)
class Save:
    """One quantity of some nodes or elements: the meaning of an expression."""

    labels: list[str]  # a name for each
    quantity: str  # i A, p W, v V from first to second node, vd V of the junction alone, r ohm, e V of the source
    kind: str  # NODES, CROSSBAR or a kind of table
    rows: Ints  # nodes, table rows, or members of a crossbar in row-major order
    minus: Ints | None = None  # (n,) nodes: the other ends of voltages between two nodes
    crossbar: int = 0  # which one

    def __len__(self) -> int:
        return len(self.labels)


def split_saves(text: str) -> list[str]:
    """The expressions of a card or an option, without blanks inside them.

    >>> split_saves("v(a), i( R1 ) v(a, b) @r1[p],all")
    ['v(a)', 'i(R1)', 'v(a,b)', '@r1[p]', 'all']
    >>> split_saves("i( R1")  # faults stay, to be found
    ['i(R1']
    >>> split_saves("v(a)-v(b) par('v(a) * 2')v(a)i (R1)@r1[p]")
    ['v(a)-v(b)', "par('v(a)*2')", 'v(a)', 'i(R1)', '@r1[p]']
    >>> split_saves("V(*) i(*)")
    ['allv', 'alli']
    """
    words, word, depth, quote = list[str](), "", 0, ""
    for c in text:
        if word.endswith(")") and not depth and (c.isalpha() or c in "@_"):  # v(a)v(b)
            words, word = [*words, word], ""
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "({":
            if c == "(" and not word and words and words[-1].isalpha() and words[-1].lower() not in _NO_FUNCTIONS:
                word = words.pop()
            depth += 1
        elif c in ")}":
            depth = max(depth - 1, 0)
        elif not depth and (c == "," or c.isspace()):
            words += [word] if word else []
            word = ""
        if not c.isspace() and (depth or quote or c != ","):
            word += c
    words += [word] if word else []
    return [_ANY.get(word.lower(), word) for word in words]


def labels_of(saves: Sequence[Save]) -> list[str]:
    """The names of all columns."""
    return [label for save in saves for label in save.labels]


def quantities_of(saves: Sequence[Save]) -> list[str]:
    """The quantity of each column."""
    return [save.quantity for save in saves for _ in save.labels]


def unique_saves(saves: Sequence[Save]) -> list[Save]:
    """Each quantity once, under the name by which it was first requested."""
    found: list[Save] = []
    seen: set[str] = set()
    for save in saves:
        keys = "\n".join(save.labels).lower().split("\n")
        if seen.isdisjoint(keys):
            found.append(save)
        elif fresh := [k for k, key in enumerate(keys) if key not in seen]:
            minus = None if save.minus is None else save.minus[fresh]
            labels = [save.labels[k] for k in fresh]
            found.append(Save(labels, save.quantity, save.kind, save.rows[fresh], minus, save.crossbar))
        seen.update(keys)
    return found


def saved_nodes(netlist: Netlist, saves: Sequence[tuple[int, str]], place: Place) -> list[int]:
    """The nodes that expressions (place, text) name. NetlistError, at its place, for one that names nothing in the
    netlist."""
    nodes: list[int] = []
    for seq, word in saves:
        if word.lower() not in ALL:
            with located(place, seq):
                for save in find_save(netlist, word):
                    if save.kind == NODES:
                        nodes += [*save.rows.tolist(), *(() if save.minus is None else save.minus.tolist())]
    return nodes


def readable(word: str) -> bool:
    """Whether this may be an expression at all: `.print` may also hold formulas, which are not."""
    return bool(_CALL.fullmatch(word) or _DEVICE.fullmatch(word) or re.fullmatch(r"[^-+*/^'\"{}=]+", word))


def find_call(netlist: Netlist, name: str) -> Save | None:
    """The voltages that a name such as `v(a,b)` or `v( y[0:9] )` stands for; None unless it is written so.

    NetlistError for unknown nodes.
    """
    if not isinstance(name, str) or name[:2].lower() != "v(":
        return None
    return find_save(netlist, "".join(name.split()))[0]


def bare(name: str) -> str:
    """The name of the element in `i(NAME)`; other names as they are.

    >>> bare("i(R1)"), bare("I( R1[0] )"), bare("R1")
    ('R1', 'R1[0]', 'R1')
    """
    call = _CALL.fullmatch(name) if isinstance(name, str) else None
    return call[2].strip() if call and call[1].lower() == "i" else name


def printed(card: str, skipped: frozenset[str], note: Callable[[str], None]) -> list[str]:
    """The expressions of a `.print` card; those of analyses that are skipped, and formulas, become notes."""
    words = split_saves(card)[1:]
    analysis = words[0].lower() if words else ""
    if f".{analysis}" in skipped:
        note(f".print {analysis} is skipped: only the DC operating point is solved")
        return []
    words = words[1:] if analysis in ("op", "dc") else words
    if formulas := [f"'{shown(word)}'" for word in words if not readable(word)]:
        are = "are formulas, and are skipped" if len(formulas) > 1 else "is a formula, and is skipped"
        note(f".print: {listed(formulas, 3)} {are}; v(a,b), i(r1) and @r1[p] can be saved")
    return [word for word in words if readable(word)]


def find_save(netlist: Netlist, word: str) -> list[Save]:
    """The meaning of one expression. NetlistError without a place if what it names does not exist.

    An expression for a single quantity keeps its spelling as label; otherwise names are spelled as in the deck.
    """
    if word.lower() in ALL:
        return list(_everything(netlist, word.lower()))
    device, call = _DEVICE.fullmatch(word), _CALL.fullmatch(word)
    if device:
        return _of_element(netlist, word, device.group(1), device.group(2).lower(), f"@{{}}[{device.group(2)}]")
    if call is None:
        if "(" in word and not netlist.has_node(word) and not readable(word.replace("(", "").replace(")", "")):
            pair = _DIFFERENCE.fullmatch(word)
            cure = f"write v({pair[1]},{pair[2]})" if pair else "v(a,b), i(r1) and @r1[p] can be saved, one by one"
            raise NetlistError(f"'{shown(word)}' is a formula: {cure}")
        if word.count("(") != word.count(")"):
            raise NetlistError(f"'{shown(word)}' has a parenthesis without its partner; write v(a) or i(r1)")
        if word.lower().endswith("#branch"):
            return _of_element(netlist, word, word[: -len("#branch")], "i", "i({})")
        return [find_voltage(netlist, word, word)]
    function, inner = call.group(1).lower(), call.group(2)
    if function == "i":
        return _of_element(netlist, word, inner, "i", "i({})")
    if function == "v":
        return [find_voltage(netlist, word, inner)]
    raise NetlistError(f"'{shown(word)}' cannot be saved; write v(a), v(a,b), i(r1), @r1[p], all, allv or alli")


def _everything(netlist: Netlist, word: str) -> Iterator[Save]:
    if word != "alli":
        nodes = np.arange(1, len(netlist.nodes))
        yield Save([f"v({name})" for name in netlist.nodes[1:]], "v", NODES, nodes)
    for quantity, before, after in (("i", "i(", ")"), ("p", "@", "[p]")):
        if word == "allv" or (word == "alli" and quantity == "p"):
            continue
        for kind, table in netlist.tables.items():
            if len(table):
                labels = [f"{before}{name}{after}" for name in table.names]
                yield Save(labels, quantity, kind, np.arange(len(table)))
        for k, x in enumerate(netlist.crossbars):
            if x.g.size > MOST_SAVED:
                raise NetlistError(
                    f"crossbar {x.name}: {x.g.size:,} conductances are more than the {MOST_SAVED:,} that can be saved; "
                    "name single members or elements"
                )
            labels = [f"{before}{name}{after}" for name in member_names(x.name, x.ranges)]
            yield Save(labels, quantity, CROSSBAR, np.arange(x.g.size), crossbar=k)


def find_voltage(netlist: Netlist, word: str, inner: str) -> Save:
    """What `word` means, which names the nodes `inner`: `b`, `y[0:9]`, `a,b` or `p[0:9],n[0:9]`."""
    names = inner.split(",")
    if len(names) > 2:
        raise NetlistError(f"'{shown(word)}' names {len(names)} nodes; write v(a) or v(a,b)")
    found = [netlist.nodes_of(name) for name in names]
    several = any(ranged for _, ranged in found)
    counts = [nodes.size for nodes, _ in found]
    if len({n for n in counts if n > 1}) > 1:
        raise NetlistError(f"'{shown(word)}': a difference of {counts[0]} nodes and {counts[1]}; name as many of both")
    ends = np.broadcast_arrays(*(nodes for nodes, _ in found))
    if several:
        labels = [f"v({','.join(netlist.nodes[k] for k in pair)})" for pair in np.transpose(ends).tolist()]
    else:
        labels = [word if "(" in word else f"v({word})"]
    return Save(labels, "v", NODES, ends[0], ends[1] if len(ends) > 1 else None)


def _of_element(netlist: Netlist, word: str, name: str, parameter: str, label: str) -> list[Save]:
    """A quantity of an element, an array, or members of one; `label` makes the name of each from the element's."""
    instances, _, element = name.rpartition(".")
    if SPAN.search(instances):
        return _of_instances(netlist, _in_instances(word, instances), element, parameter, label)
    kind, rows, names, crossbar = _elements(netlist, name)
    known = QUANTITIES.get(kind, _TWO_TERMINAL)
    quantity = known.get(parameter)
    if quantity is None:
        of = ", ".join(f"@{shown(name)}[{key}]" for key in known)
        raise NetlistError(f"element '{shown(name)}' has no '{shown(parameter)}'; it has {of}")
    labels = [word] if names is None else [label.format(name) for name in names]
    return [Save(labels, quantity, kind, rows, crossbar=crossbar)]


def _in_instances(word: str, path: str) -> list[str]:
    """`R.X[0:1][2]` -> `R.X[0][2]`, `R.X[1][2]`; the last range runs fastest."""
    count, names = instance_paths(path)
    if count > MOST_SAVED:
        raise NetlistError(f"'{shown(word)}': instances are more than the {MOST_SAVED:,} that can be saved")
    return list(names)


def _of_instances(netlist: Netlist, paths: list[str], element: str, parameter: str, label: str) -> list[Save]:
    """The same quantity of an element of several instances, those of one kind together."""
    groups: dict[tuple[str, str, int], tuple[list[str], list[Ints]]] = {}
    for path in paths:
        name = f"{path}.{element}"
        [save] = _of_element(netlist, label.format(name), name, parameter, label)
        labels, rows = groups.setdefault((save.quantity, save.kind, save.crossbar), ([], []))
        labels += save.labels
        rows.append(save.rows)
    return [
        Save(labels, quantity, kind, np.concatenate(rows), crossbar=crossbar)
        for (quantity, kind, crossbar), (labels, rows) in groups.items()
    ]


def _elements(netlist: Netlist, name: str) -> tuple[str, Ints, list[str] | None, int]:
    """Kind, rows, names (None: a single element, named as it was asked for), and which crossbar."""
    single = netlist.element_rows.get(name.lower())
    if single is not None:
        return single[0], np.array([single[1]]), None, 0
    match = _INDICES.fullmatch(name)
    base, indices = (name, None) if name.lower() in netlist.arrays or match is None else match.groups()
    ref = netlist.arrays.get(base.lower())
    if ref is None:
        known = similar(name.lower(), netlist.element_names(), "elements")
        raise NetlistError(f"no element '{shown(name)}' in {netlist.path}{known}")
    chosen = [range(len(r)) for r in ref.indices] if indices is None else _members(name, indices, ref.indices)
    size = math.prod(map(len, chosen))
    if size > MOST_SAVED:
        raise NetlistError(f"'{shown(name)}': {size:,} members are more than the {MOST_SAVED:,} that can be saved")
    places = np.array(list(product(*chosen)), np.int64).reshape(size, len(chosen))
    flat = np.zeros(size, np.int64)  # in row-major order
    for indices_of, have in zip(places.T, ref.indices, strict=True):
        flat = flat * len(have) + indices_of
    single_member = indices is not None and ":" not in indices
    if ref.kind == CROSSBAR:
        x = netlist.crossbars[ref.start]
        members = [f"{x.name}[{x.ranges[0][i]}][{x.ranges[1][j]}]" for i, j in places.tolist()]
        return CROSSBAR, flat, None if single_member else members, ref.start
    rows = ref.start + flat
    table = netlist.tables[ref.kind]
    return ref.kind, rows, None if single_member else [table.names[k] for k in rows.tolist()], 0


def _members(name: str, indices: str, of: tuple[range, ...]) -> list[list[int]]:
    """The places that `[3][0:9]` names in an array of these ranges."""
    found = INDEX.findall(indices)
    if len(found) != len(of):
        noun = "index" if len(found) == 1 else "indices"
        raise NetlistError(f"'{shown(name)}' has {len(found)} {noun}; the array has {len(of)}")
    chosen = []
    for (first, last), have in zip(found, of, strict=True):
        wanted = between(int(first), int(last or first))
        if wanted[0] not in have or wanted[-1] not in have:
            raise NetlistError(f"'{shown(name)}': the array's indices run from {have[0]} to {have[-1]}")
        chosen.append([have.index(k) for k in wanted])
    return chosen
