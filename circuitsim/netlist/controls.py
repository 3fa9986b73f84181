"""Dot cards that belong to the whole netlist: options, global nodes, what to save, roles, and those without effect."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from math import prod
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import NetlistError, SettingsError, listed
from circuitsim.netlist.arrays import instance_paths, lengths, member_names, split_ranges
from circuitsim.netlist.chance import MOST_SEED, single
from circuitsim.netlist.model import ABSOLUTE_ZERO, CROSSBAR, Netlist, Options, similar
from circuitsim.netlist.saves import find_voltage, printed, split_saves
from circuitsim.netlist.scopes import Note, Place, Scope, remarks_of
from circuitsim.netlist.source import Card
from circuitsim.netlist.tokens import labelled, located, shown, split_keys, tokenize

_SUPPORTED = (
    ".model .param .func .subckt .ends .if .include .lib .global .temp .options .ic .nodeset .op .dc .save .print "
    ".input .output .train .end"
)
_OPTIONS = frozenset({".options", ".option", ".opt"})
_NUMBERS = ("temp", "tnom", "gmin", "rshunt", "scale", "seed")  # the options that count here
_SKIPPED = frozenset(
    ".tran .ac .noise .tf .sens .pz .disto .four .fourier .meas .measure .plot .probe .width .sp .pss .hb .wave".split()
)
_STARTS = frozenset({".ic", ".nodeset"})
_LISTED = frozenset(".prot .unprot .protect .unprotect".split())  # about what ngspice and HSPICE list
_QUIET = frozenset({".end", ".temp", ".backanno", *_OPTIONS, *_LISTED})  # .backanno: in what LTspice writes
_ROLES = frozenset({".input", ".output", ".train"})
_SAVE_CURRENTS = "savecurrents"
_VOLTAGE = re.compile(r"v\((.+)\)", re.IGNORECASE)


@dataclass
class Controls:
    """What the dot cards of a netlist say."""

    title: str | None = None
    global_nodes: set[str] = field(default_factory=set)
    roles: list[tuple[str, Card]] = field(default_factory=list)
    saves: list[tuple[int, str]] = field(default_factory=list)  # place and expression
    analyses: list[Card] = field(default_factory=list)


def read_controls(cards: list[Card], place: Place, note: Note) -> Controls:
    """Read the dot cards but those of `read_options`. Raises NetlistError for unknown ones."""
    controls = Controls()
    for card in cards:
        with located(place, card.seq):
            _read_control(card, controls, note)
    return controls


def _read_control(card: Card, controls: Controls, note: Note) -> None:
    key = card.keyword
    words = card.text.split()[1:]
    if key == ".global":
        controls.global_nodes |= {word.lower() for word in words}
    elif key in _ROLES:
        if not words:
            raise NetlistError(f"{key} names nothing; write {key} and the names of {_ROLE_NOUNS[key]}")
        controls.roles.append((key, card))
    elif key == ".save":
        controls.saves += [(card.seq, word) for word in split_saves(card.text)[1:]]
    elif key == ".print":
        found = printed(card.text, _SKIPPED, lambda remark: note(card.seq, remark))
        controls.saves += [(card.seq, word) for word in found]
    elif key in _OPTIONS and _SAVE_CURRENTS in [word.lower() for word in words]:
        controls.saves.append((card.seq, "alli"))
    elif key == ".title":
        controls.title = card.text[len(key) :].strip()
    elif key in _SKIPPED:
        note(card.seq, f"{key} is skipped: only the DC operating point is solved")
    elif key == ".csparam":
        note(card.seq, ".csparam is skipped: only scripts read it")
    elif key in _STARTS:
        note(card.seq, f"{key} is ignored: no start is needed, and of several operating points it chooses none")
    elif key in (".op", ".dc"):
        controls.analyses.append(card)
        for remark in dict.fromkeys(chain.from_iterable(map(remarks_of, words))):
            note(card.seq, f"{key}: {remark}")
    elif key not in _QUIET:
        if key == ".step":
            raise NetlistError(".step is not supported; write .dc NAME START STOP STEP: it sweeps parameters, too")
        close = difflib.get_close_matches(key, [*_SUPPORTED.split(), *_SKIPPED, *_STARTS], 1, 0.75)
        meant = f" did you mean {close[0]}?" if close else ""
        raise NetlistError(f"{shown(key)} is not supported;{meant} supported: {_SUPPORTED}")


def read_options(cards: list[Card], root: Scope, note: Note) -> Options:
    """`.options` and `.temp`, the last word of each counting; `.temp` goes before `.options temp=`."""
    found: dict[str, float] = {}
    cards = sorted(cards, key=lambda card: card.keyword == ".temp")
    for card in cards:
        key = card.keyword
        if key not in _OPTIONS and key != ".temp":
            continue
        with located(root.place, card.seq):
            words = split_keys(tokenize(card.text if key != ".temp" else card.text.replace("=", " ", 1)))
            if key == ".temp":
                if len(words.words) != 2 or words.keys:
                    more = "; to sweep it: .dc TEMP 25 75 25" if len(words.words) > 2 else ""
                    raise NetlistError(f".temp needs one temperature in degree Celsius: .temp 27{more}")
                pairs, unknown = {"temp": words.words[1]}, []
            else:
                pairs = {name: word for name, word in words.keys.items() if name in _NUMBERS}
                unknown = [*(name for name in words.keys if name not in _NUMBERS), *words.words[1:]]
                unknown = [name for name in unknown if name.lower() != _SAVE_CURRENTS]
            for name, word in pairs.items():
                with labelled(f"option {name}"):
                    found[name] = _option(root, name, word)
                for remark in remarks_of(word) if word[0] == "{" else ():
                    note(card.seq, f"option {name}: {remark}")
            if unknown:
                names = listed([shown(name) for name in unknown])
                have = "options {} have" if len(unknown) > 1 else "option {} has"
                theirs = "; ngspice puts rseries in series with each inductor" if "rseries" in words.keys else ""
                note(card.seq, f"{have.format(names)} no effect here{theirs}")
    seed = int(found.pop("seed", 0.0))
    return Options(seed=seed, **found)


def with_seed(options: Options, seed: int | None) -> Options:
    """The options with another seed; None leaves theirs. SettingsError for a seed that `.options` could not hold."""
    if seed is None:
        return options
    if not isinstance(seed, Real) or not 0 <= seed <= MOST_SEED or seed != int(seed):
        raise SettingsError(f"seed {seed} is not a whole number from 0 to 2^53; choose another")
    return replace(options, seed=int(seed))


def _option(root: Scope, name: str, word: str) -> float:
    value = single(root.number(word))
    if name in ("temp", "tnom"):
        if value <= ABSOLUTE_ZERO:
            raise NetlistError(f"{value:g} C is not above absolute zero, {ABSOLUTE_ZERO} C")
    elif name == "seed":
        if not 0 <= value <= MOST_SEED or value != int(value):
            raise NetlistError(f"{value:g} is not a whole number from 0 to 2^53")
    elif value < 0 or (value == 0 and name != "gmin"):
        raise NetlistError(f"{value:g} must {'not be negative' if name == 'gmin' else 'be positive'}")
    return value


# -- roles -------------------------------------------------------------------------------------------------------------

_ROLE_NOUNS = {
    ".input": "the sources that take the data", ".output": "the nodes that are read",
    ".train": "the resistors, crossbars and sources that learn",
}  # fmt: skip


def with_roles(netlist: Netlist, roles: list[tuple[str, Card]], place: Place) -> Netlist:
    """The netlist with its roles, each name checked."""
    if not roles:
        return netlist
    known = {name.lower(): kind for kind, table in netlist.tables.items() for name in table.names}
    known |= {name: "R" if ref.kind == CROSSBAR else ref.kind for name, ref in netlist.arrays.items()}
    inputs: list[str] = []
    trained: list[str] = []
    outputs: list[tuple[int, int]] = []
    differences: list[str] = []
    claimed: dict[str, dict[str, NDArray[np.int64]]] = {".input": {}, ".train": {}}
    for role, card in roles:
        with located(place, card.seq):
            if role == ".output":
                for word in split_saves(card.text)[1:]:
                    found = _outputs(netlist, word)
                    outputs += found
                    differences += [word] if any(reference for _, reference in found) else []
                continue
            for word in _role_words(card, netlist, known):
                kind = known.get(word.lower())
                if kind is None:
                    raise NetlistError(f"{role}: no element '{shown(word)}'{_hint(netlist, word, role, known)}")
                if kind not in ("VI" if role == ".input" else "RVI"):
                    raise NetlistError(f"{role}: '{shown(word)}' cannot take this role; name {_ROLE_NOUNS[role]}")
                names = inputs if role == ".input" else trained
                with labelled(role):
                    _claim(netlist, claimed[role], names, word)
                names.append(word)
    saved = {word.lower() for word in netlist.saves}
    return replace(
        netlist,
        inputs=tuple(inputs),
        outputs=tuple(node for node, _ in outputs),
        references=tuple(reference for _, reference in outputs),
        trained=tuple(trained),
        saves=(*netlist.saves, *(word for word in dict.fromkeys(differences) if word.lower() not in saved)),
    )


def _role_words(card: Card, netlist: Netlist, known: Mapping[str, str]) -> Iterator[str]:
    """The names on the card, one by one: those of elements in an array of subcircuits, such as R.X[0:3][0:3].R1, and of
    some members of an array, R1[0:3]."""
    for word in card.text.split()[1:]:
        instances, dot, element = word.rpartition(".")
        count, paths = instance_paths(instances)
        if count > max(len(known), 1):
            raise NetlistError(
                f"'{shown(word)}' names {count:,} elements, more than the netlist has; shorten the ranges"
            )
        for path in [instances] if word.lower() in known else paths:
            name = f"{path}{dot}{element}"
            base, ranges = split_ranges(name)
            ref = netlist.arrays.get(base.lower())
            if ranges and ref is not None and ref.kind != CROSSBAR and prod(lengths(ranges)) <= len(known):
                yield from member_names(base, ranges)
            else:
                yield name


def _claim(netlist: Netlist, claimed: dict[str, NDArray[np.int64]], names: list[str], word: str) -> None:
    """Refuse an element that one of these names stands for, too; `claimed`: which (from 1) has each row of a kind."""
    found = netlist.find(word)
    assert found is not None  # it is known
    kind, start, stop = found
    count = len(netlist.crossbars if kind == CROSSBAR else netlist.tables[kind])
    rows = claimed.setdefault(kind, np.zeros(count, np.int64))[start:stop]
    before = int(rows.max(initial=0))
    twice = names[before - 1] if before else ""
    rows[:] = len(names) + 1
    if twice.lower() == word.lower() and twice:
        raise NetlistError(f"'{shown(word)}' is named twice; name it once")
    if twice:
        raise NetlistError(f"'{shown(word)}' and '{shown(twice)}' have elements in common; name one of them")


def _hint(netlist: Netlist, word: str, role: str, known: dict[str, str]) -> str:
    base, ranges = split_ranges(word)
    if ranges and base.lower() in known:
        return f"; write the array's name without a range: {base}"
    with suppress(SettingsError):  # no conductance of it
        if role == ".train" and (cell := netlist.cell(word)):
            return f"; the conductances of a crossbar learn together: write {netlist.crossbars[cell[0]].name}"
    return similar(word.lower(), netlist.element_names(), "elements")


def _outputs(netlist: Netlist, word: str) -> list[tuple[int, int]]:
    """The nodes that a word of `.output` names, `y`, `y[0:9]` or `v(a,b)`, each with its reference."""
    call = _VOLTAGE.fullmatch(word)
    with labelled(".output"):
        found = find_voltage(netlist, word, call[1] if call else word)
    minus = np.zeros_like(found.rows) if found.minus is None else found.minus
    return list(zip(found.rows.tolist(), minus.tolist(), strict=True))
