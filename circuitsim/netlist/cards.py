"""Element cards: what the words of each kind of card mean. One function a kind, each adding rows to the builder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.arrays import load_values, split_ranges
from circuitsim.netlist.builder import Builder, duplicate
from circuitsim.netlist.model import CrossbarCard, ModelCard, Options
from circuitsim.netlist.models import ModelTable
from circuitsim.netlist.numbers import looks_like_mega, parse_number
from circuitsim.netlist.scopes import Scope, expression
from circuitsim.netlist.source import Card
from circuitsim.netlist.tokens import Words, split_keys, tokenize, unbrace

SUPPORTED = "supported elements: R V I D L C X (and K, which is ignored)"
_LATER = {"E": "voltage-controlled voltage source", "F": "current-controlled current source"}
_LATER |= {"G": "voltage-controlled current source", "H": "current-controlled voltage source"}
_WAVEFORMS = {"sin": 0, "pulse": 0, "exp": 0, "sffm": 0, "am": 0, "pwl": 1}  # which parameter is the value at t = 0
_IGNORED_KEYS = frozenset({"ac", "noisy", "noise", "ic", "off", "pj"})


@dataclass
class Element:
    """One element card being read: its words, its name split from its ranges, and where it stands."""

    card: Card
    at: At
    scope: Scope
    order: int
    name: str  # in full: `R1`, or `R.X1.R1` inside an instance
    base: str
    ranges: tuple[range, ...]
    words: Words

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(r) for r in self.ranges)


class CardReader:
    """Reads element cards in their scope into a builder."""

    def __init__(
        self,
        builder: Builder,
        models: ModelTable,
        options: Options,
        global_nodes: frozenset[str],
        note: Callable[[int, str], None],
    ) -> None:
        self.builder = builder
        self.models = models
        self.options = options
        self.global_nodes = global_nodes
        self.note = note  # (place, remark)
        self.place = models.place
        self.kinds: dict[str, Callable[[Element], None]] = {
            "r": self.resistor, "v": self.source, "i": self.source, "d": self.diode,
            "l": self.two_nodes, "c": self.two_nodes, "k": self.coupling,
        }  # fmt: skip

    def read(self, card: Card, scope: Scope, order: int) -> None:
        """Read one card (not X) as an element of `scope`; `order` is the place of the top-level card."""
        at = self.place(card.seq)
        letter = card.text[0].upper()
        if letter in _LATER:
            raise NetlistError(f"element {card.keyword}: {_LATER[letter]} ({letter}) is not yet supported", at)
        reader = self.kinds.get(letter.lower())
        if reader is None:
            raise NetlistError(f"element {card.keyword}: elements '{letter}' are not supported; {SUPPORTED}", at)
        tokens = tokenize(card.text, at)
        full = f"{letter}.{scope.path}.{tokens[0]}" if scope.path else tokens[0]
        base, ranges = split_ranges(full)
        words = split_keys(tokens[1:], at)
        element = Element(card, at, scope, order, full, base, ranges, words)
        earlier = self.builder.names.setdefault(base.lower(), card.seq)
        if earlier != card.seq:
            raise duplicate(base, earlier, card.seq, self.place)
        if len(words.words) < 2 and letter != "K":
            raise NetlistError(f"element {full}: needs two nodes, found {len(words.words)}", at)
        reader(element)

    # -- nodes and values ------------------------------------------------------------------------------------------

    def node(self, scope: Scope, name: str) -> int:
        """The node that `name` means in `scope`: a pin, a local node, a global one or ground."""
        while scope.path:
            key = name.lower()
            key = "0" if key == "gnd" else key
            if key in scope.nodes:
                name = scope.nodes[key]
                assert scope.parent is not None
                scope = scope.parent
            elif key == "0" or key in self.global_nodes:
                break
            else:
                name = f"{scope.path}.{name}"
                break
        return self.builder.node(name)

    def ends(self, e: Element) -> tuple[list[int], list[int]]:
        """The node indices of both ends, one for each member of the element."""
        ends = []
        for k, word in enumerate(e.words.words[:2]):
            base, ranges = split_ranges(word) if e.ranges else (word, ())
            if not ranges:
                if len(e.ranges) == 2:
                    raise NetlistError(
                        f"element {e.name}: a crossbar needs a range on both nodes, found '{word}'", e.at
                    )
                ends.append([self.node(e.scope, word)] * math.prod(e.shape))
                continue
            expected = e.ranges[k] if len(e.ranges) == 2 else e.ranges[0]
            if len(ranges) != 1 or len(ranges[0]) != len(expected):
                found = " x ".join(str(len(r)) for r in ranges)
                raise NetlistError(
                    f"element {e.name}: ranges do not match: node '{word}' has {found} members, "
                    f"the element needs {len(expected)}",
                    e.at,
                )
            ends.append([self.node(e.scope, f"{base}[{i}]") for i in ranges[0]])
        return ends[0], ends[1]

    def value(self, e: Element, word: str, what: str) -> float | np.ndarray:
        """A value word: number, `{expression}`, parameter name, or `@file` (arrays only)."""
        if word.startswith("@"):
            return load_values(word, Path(e.at.path).parent, e.shape, e.at, f"element {e.name}")
        if word[0] == "{" or self.names_parameter(e.scope, word):
            label = f"element {e.name}: {what}"
            return e.scope.evaluate(expression(unbrace(word), e.at, label), e.at, label, e.shape)
        return self.number(word, e.at, f"element {e.name}: {what}")

    @staticmethod
    def number(word: str, at: At, label: str) -> float:
        if word.lower().lstrip("+-") in ("inf", "infinity"):
            return -math.inf if word.startswith("-") else math.inf
        try:
            return parse_number(word)
        except ValueError as error:
            raise NetlistError(f"{label} '{word}': {error}", at) from None

    def names_parameter(self, scope: Scope, word: str) -> bool:
        return (word[0].isalpha() or word[0] == "_") and (
            word.lower() == "temper" or scope.owner(word.lower()) is not None
        )

    def key_values(self, e: Element, allowed: frozenset[str]) -> dict[str, float | np.ndarray]:
        """The `key=value` pairs of an element, each key checked."""
        out = {}
        for key, word in e.words.keys.items():
            if key in allowed:
                out[key] = self.value(e, word, key)
            elif key not in _IGNORED_KEYS:
                raise NetlistError(
                    f"element {e.name}: parameter '{key}' is not supported; supported: {', '.join(sorted(allowed))}",
                    e.at,
                )
        return out

    def temperature(self, keys: dict[str, float | np.ndarray]) -> float | np.ndarray:
        return keys.get("temp", self.options.temp + keys.get("dtemp", 0.0))

    # -- the kinds -------------------------------------------------------------------------------------------------

    def resistor(self, e: Element) -> None:
        allowed = frozenset(
            ["r", "resistance", "g", "m", "scale", "temp", "dtemp", "tc", "tc1", "tc2", "tce", "l", "w"]
        )
        keys = self.key_values(e, allowed)
        for alias, key in (("resistance", "r"), ("tc", "tc1")):
            if alias in keys:
                keys.setdefault(key, keys.pop(alias))
        model: ModelCard | None = None
        value: float | np.ndarray | None = keys.get("r", None)
        for word in e.words.words[2:]:
            row = None if word[0] in "{@" else self.models.find(e.scope, word)
            if row is not None and model is None:
                model = self.models.rows[row]
            elif value is None and "g" not in keys:
                value = self.value(e, word, "resistance")
                if looks_like_mega(word):
                    self.note(
                        e.card.seq, f"resistor {e.name}: '{word}' is {value:g} ohm (M is milli in SPICE, MEG mega)"
                    )
            else:
                raise NetlistError(f"resistor {e.name}: one value expected, found '{word}' as well", e.at)
        tc1 = keys.get("tc1", model.params.get("tc1", model.params.get("tc", 0.0)) if model else 0.0)
        tc2 = keys.get("tc2", model.params.get("tc2", 0.0) if model else 0.0)
        tce = keys.get("tce", model.params.get("tce", 0.0) if model else 0.0)
        if value is None and "g" not in keys:
            value = self.sheet_resistance(e, model, keys)
        tnom = model.params.get("tnom", self.options.tnom) if model else self.options.tnom
        dt = self.temperature(keys) - tnom
        factor = 1.01 ** (tce * dt) if np.any(tce) else 1.0 + tc1 * dt + tc2 * dt * dt
        factor = factor * keys.get("scale", 1.0) / (keys.get("m", 1.0) * e.scope.multiplier)
        a, b = self.ends(e)
        if len(e.ranges) == 2:
            self.crossbar(e, a, b, value, keys.get("g"), factor)
            return
        r = value * factor if value is not None else self.resistance(keys["g"]) * factor
        self.check_resistance(e, r)
        self.builder.add("R", e.base, e.ranges, a, b, (e.order, e.card.seq), {"r": r})

    def sheet_resistance(self, e: Element, model: ModelCard | None, keys: dict) -> float:
        """RSH (L - NARROW) / (W - NARROW), or the model's own R."""
        if model is not None and "rsh" in model.params:
            p = model.params
            length = keys.get("l", p.get("l", p.get("defl", 1e-5))) - p.get("short", 0.0)
            width = keys.get("w", p.get("w", p.get("defw", 1e-5))) - p.get("narrow", 0.0)
            return p["rsh"] * length / width
        if model is not None and ("r" in model.params or "res" in model.params):
            return model.params.get("r", model.params.get("res", 0.0))
        raise NetlistError(
            f"resistor {e.name}: no value; write {e.base} {' '.join(e.words.words[:2])} VALUE "
            "(ngspice would silently take 1 mohm)",
            e.at,
        )

    @staticmethod
    def resistance(g: float | np.ndarray) -> np.ndarray:
        """1/g, with g = 0 an open (inf) and g = inf a short (0)."""
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 / np.asarray(g, float))

    def check_resistance(self, e: Element, r: float | np.ndarray) -> None:
        values = np.asarray(r, float)
        if (values < 0).any():
            index = int(np.argmax(values.ravel() < 0))
            raise NetlistError(negative_resistance(self.member(e, index), float(values.ravel()[index])), e.at)
        if np.isnan(values).any():
            raise NetlistError(f"resistor {e.name}: the resistance is not a number", e.at)
        if "g" not in e.words.keys and np.isinf(values).any():
            self.note(e.card.seq, f"resistor {e.name}: infinite resistance, treated as an open circuit")

    @staticmethod
    def member(e: Element, index: int) -> str:
        if not e.ranges:
            return e.name
        position = np.unravel_index(index, e.shape)
        return e.base + "".join(f"[{r[int(i)]}]" for r, i in zip(e.ranges, position, strict=True))

    def crossbar(
        self,
        e: Element,
        rows: list[int],
        cols: list[int],
        r: float | np.ndarray | None,
        g: float | np.ndarray | None,
        factor: float | np.ndarray,
    ) -> None:
        if g is None:
            assert r is not None
            self.check_resistance(e, r)
            with np.errstate(divide="ignore"):
                g = 1.0 / np.asarray(r, float)
        g = np.asarray(g, float)
        if np.any(factor != 1.0):
            g = g / factor
        g = np.ascontiguousarray(np.broadcast_to(g, e.shape))
        low = g.min() if g.size else 0.0
        if not 0 <= low <= g.max(initial=0.0) < math.inf:
            bad = int(np.argmin(g)) if low < 0 else int(np.argmax(~np.isfinite(g)))
            name, found = self.member(e, bad), g.ravel()[bad]
            why = "is negative" if found < 0 else "is not finite; a short (r=0) cannot be part of a crossbar"
            raise NetlistError(f"resistor {name}: conductance {found:g} S {why}", e.at)
        self.builder.add_crossbar(
            CrossbarCard(
                e.base, np.array(rows, np.int64), np.array(cols, np.int64), g, (e.ranges[0], e.ranges[1]), e.card.seq
            ),
            e.order,
        )

    def source(self, e: Element) -> None:
        kind = e.card.text[0].upper()
        keys = dict(e.words.keys)
        multiplier = float(np.asarray(self.value(e, keys.pop("m"), "m"))) if "m" in keys and kind == "I" else 1.0
        words = e.words.words[2:]
        dc: float | np.ndarray | None = self.value(e, keys.pop("dc"), "dc value") if "dc" in keys else None
        start: float | np.ndarray | None = None  # the value of a waveform at t = 0
        i = 0
        while i < len(words):
            word = words[i].lower()
            if word == "dc" and i + 1 < len(words):
                dc = self.value(e, words[i + 1], "dc value")
                i += 2
            elif word in _WAVEFORMS:
                j = i + 1 + _WAVEFORMS[word]
                if j >= len(words):
                    raise NetlistError(f"source {e.name}: {word.upper()} needs its parameters", e.at)
                start = self.value(e, words[j], word)
                self.note(e.card.seq, f"source {e.name}: {word.upper()} is ignored: only the DC equilibrium is solved")
                break
            elif word == "ac" or word.startswith(("distof", "trnoise", "trrandom", "external", "portnum", "z0")):
                i += 1
                while i < len(words) and self.is_value(e, words[i]):
                    i += 1
                if word != "ac":
                    self.note(e.card.seq, f"source {e.name}: {word.upper()} is ignored")
            elif dc is None:
                dc = self.value(e, words[i], "dc value")
                i += 1
            else:
                raise NetlistError(f"source {e.name}: one DC value expected, found '{words[i]}' as well", e.at)
        for key in keys:
            if key not in ("ac", "m", "portnum", "z0"):
                raise NetlistError(f"source {e.name}: parameter '{key}' is not supported; supported: dc, m (I)", e.at)
        value = dc if dc is not None else (start if start is not None else 0.0)
        if kind == "I":
            value = value * (multiplier * e.scope.multiplier)
        if not np.all(np.isfinite(value)):
            raise NetlistError(f"source {e.name}: its value must be finite", e.at)
        a, b = self.ends(e)
        column = "v" if kind == "V" else "i"
        self.builder.add(kind, e.base, e.ranges, a, b, (e.order, e.card.seq), {column: value})

    def is_value(self, e: Element, word: str) -> bool:
        if word[0] == "{" or self.names_parameter(e.scope, word):
            return True
        try:
            parse_number(word)
        except ValueError:
            return False
        return True

    def diode(self, e: Element) -> None:
        words = e.words.words
        if len(words) < 3:
            raise NetlistError(f"diode {e.name}: needs anode, cathode and a model: D1 a k MODEL", e.at)
        row = self.models.find(e.scope, words[2])
        if row is None:
            raise NetlistError(f"diode {e.name}: no model '{words[2]}'; define it: .model {words[2]} D(IS=1e-14)", e.at)
        found = self.models.rows[row].type
        if found != "d":
            raise NetlistError(f"diode {e.name}: model '{words[2]}' is of type {found.upper()}, not D", e.at)
        keys = self.key_values(e, frozenset({"area", "m", "temp", "dtemp"}))
        extra = [w for w in words[3:] if w.lower() != "off"]
        if len(extra) > 1:
            raise NetlistError(f"diode {e.name}: one area expected, found '{extra[1]}' as well", e.at)
        area = keys.get("area", self.value(e, extra[0], "area") if extra else 1.0)
        area = area * (keys.get("m", 1.0) * e.scope.multiplier)
        if not np.all(np.asarray(area) > 0):
            raise NetlistError(f"diode {e.name}: area {area:g} must be positive", e.at)
        a, b = self.ends(e)
        values = {"model": float(row), "area": area, "temp": self.temperature(keys)}
        self.builder.add("D", e.base, e.ranges, a, b, (e.order, e.card.seq), values)

    def two_nodes(self, e: Element) -> None:
        """L is a short and C an open at DC: their values do not matter."""
        a, b = self.ends(e)
        self.builder.add(e.card.text[0].upper(), e.base, e.ranges, a, b, (e.order, e.card.seq), {})

    def coupling(self, e: Element) -> None:
        self.note(e.card.seq, f"coupling {e.name} is ignored: inductors are shorts at DC")


def negative_resistance(name: str, r: float) -> str:
    """The message for a resistance below zero."""
    return f"resistor {name}: negative resistance {r:g} ohm is not monotone: the equilibrium may not exist or be unique"
