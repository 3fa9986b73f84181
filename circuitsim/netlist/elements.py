"""The kinds of elements: what the words of each card mean. One function per kind, which adds rows to the builder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np

from circuitsim.errors import NetlistError
from circuitsim.netlist.arrays import at_members
from circuitsim.netlist.builder import Links
from circuitsim.netlist.cards import NOUNS, CardReader, Element, extra_word, unknown_key
from circuitsim.netlist.chance import seed_by_seed
from circuitsim.netlist.expressions import NONLINEAR, Value
from circuitsim.netlist.model import CrossbarCard, ModelCard
from circuitsim.netlist.numbers import braced, looks_like_mega, parse_number
from circuitsim.netlist.scopes import Scope
from circuitsim.netlist.source import Card, first_word
from circuitsim.netlist.tokens import shown

SUPPORTED = "supported elements: R V I D L C E F G H N X (and K, which is ignored)"
_VALUES = frozenset({"r", "g"})
_TINY = 0.01  # ohm: files whose values are all below it are likely to hold conductances
_WAVEFORMS = frozenset("sin sine pulse exp sffm am pwl trnoise trrandom external".split())
_DELAYS = {"sin": 3, "pulse": 2, "exp": 2, "am": 4}  # where among the parameters of a waveform its delay stands
_TWO_NUMBERS = frozenset("ac distof1 distof2".split())  # magnitude and phase
_SOURCE_WORDS = _TWO_NUMBERS | frozenset("portnum z0 pwr freq phase".split())  # not about the operating point
_SOURCE_KEYS = _SOURCE_WORDS | {"dc", "r", "td", "rser", "cpar"}  # cpar: of LTspice, open at DC
_BY_VOLTAGE, _BY_CURRENT = "n+ n- nc+ nc- GAIN", "n+ n- VNAME GAIN"
_CONTROLLED = {
    "E": ("vcvs", _BY_VOLTAGE), "F": ("cccs", _BY_CURRENT), "G": ("vccs", _BY_VOLTAGE), "H": ("ccvs", _BY_CURRENT),
}  # fmt: skip
_NOT_LINEAR = frozenset("poly value vol cur table laplace freq pwl".split())
_CONSTANT = re.compile(r"\{[^(){}a-z]*\}", re.IGNORECASE)  # a formula of numbers alone
_GATES = frozenset("and nand or nor".split())


def read_element(reader: CardReader, card: Card, scope: Scope, order: int) -> None:
    """Read one card (not X) as an element of `scope`; `order` is the place of the top-level card.

    Raises NetlistError without a place. Values may overflow here: the finished tables are checked (checks.py).
    """
    letter = card.text[0].upper()
    read = _READERS.get(letter)
    if read is None:
        name = shown(first_word(card.text) or card.text)
        if letter == "B":
            raise NetlistError(
                f"element {name}: only linear controlled sources are supported, not formulas (B); write E or G "
                f"{_BY_VOLTAGE}, or F or H {_BY_CURRENT}; {NONLINEAR}"
            )
        if letter in "MQJZ":
            raise NetlistError(f"element {name}: transistors ({letter}) are not supported; {SUPPORTED}")
        if not letter.isalpha():
            raise NetlistError(f"element {name}: no element begins with '{letter}'; a comment begins with *")
        if letter in "SW":
            raise NetlistError(
                f"element {name}: switches ({letter}) are not supported; write one as a resistor that is closed or "
                "open: R1 a b {on ? 1 : 1e12}, with .param on=1"
            )
        raise NetlistError(f"element {name}: elements '{letter}' are not supported; {SUPPORTED}")
    read(reader, reader.element(letter, card, scope, order))


def _add(reader: CardReader, e: Element, *values: Value, links: Links = ()) -> None:
    """Append the element, or the members of the array, to the table of its kind."""
    kind, words = e.pattern.kind, e.words
    if not e.ranges:
        a, b = reader.node(e, words[0]), reader.node(e, words[1])
        reader.builder.add(kind, e.base, a, b, e.order, e.card.seq, *values, links=links)
        return
    if len(e.ranges) == 2:  # row by row
        values = tuple(np.reshape(x, (-1, *np.shape(x)[2:])) if np.ndim(x) > 1 else x for x in values)
    reader.builder.add_array(kind, e.base, e.ranges, *reader.ends(e), e.order, e.card.seq, *values, links=links)


# -- resistors ---------------------------------------------------------------------------------------------------------


def _resistor(reader: CardReader, e: Element) -> None:
    """R n1 n2 [model] VALUE, r=, g=, or the geometry of a model."""
    keys = reader.keys(e) if e.pattern.words.keys else {}
    r = keys.get("r")
    g = keys.get("g")
    model: ModelCard | None = None
    for word in e.words[2:]:
        found = reader.model(e.scope, word) if model is None else None
        if found and r is None and g is None and reader.names_parameter(e.scope, word):
            reader.remark(e, f": '{shown(word)}' is a parameter and a model; the parameter counts")
            found = None
        if found is not None:
            model = found[1]
            if model.type != "r":
                raise _wrong_model(e, word, model, "R")
        elif r is None and g is None:
            r = reader.value(e, word, "resistance")
            if "M" in word and looks_like_mega(word):
                reader.remark(e, f": '{shown(word)}' is {r:g} ohm (M is milli in SPICE, MEG is mega)")
        else:
            raise extra_word(e, "value", word)
    if r is not None and g is not None:
        raise NetlistError(f"{e.label}: both a resistance and a conductance; write one of them")
    if r is None and g is None and model is not None and model.name[0].isdigit():
        name = model.name
        try:
            r, model = parse_number(name), None  # as in ngspice, and as a plain card is read
        except ValueError:
            reader.remark(e, f": '{shown(name)}' is a model; ngspice-39 takes the number at its start for the value")
    if r is None and g is None:
        r = _model_resistance(reader, e, model, keys)
    if isinstance(r, np.ndarray) and r.size > 1 and r.min() > 0 and r.max() < _TINY:
        words = (*e.words[2:], *(e.pattern.words.keys.get(key, "-") for key in ("r", "resistance")))
        if file := next((word for word in words if word[0] == "@"), ""):
            reader.remark(e, f": all values are below {_TINY} ohm; if they are conductances, write g={shown(file)}")
    lines = reader.lines(e) if len(e.ranges) == 2 else None
    if reader.given and lines is None:
        own = np.divide(1.0, _not_negative(e, g)) if g is not None else r
        assert own is not None  # one of them is given
        new = reader.replaced(e, own)
        if new is not own:
            r, g = new, None
    factor: Value = 1.0 if e.scope.multiplier == 1.0 else float(np.divide(1.0, e.scope.multiplier))
    if model is not None or keys.keys() - _VALUES:
        factor = _factor(reader, e, keys, model)
    if lines is not None:
        _crossbar(reader, e, lines, r, g, factor)
    elif g is not None:
        g = np.divide(_not_negative(e, g), factor)
        _add(reader, e, np.divide(1.0, g), g)
    elif r is not None:
        if isinstance(r, float) and math.isinf(r):
            reader.remark(e, ": infinite resistance, an open circuit")
        r = r * factor
        _add(reader, e, r, 1.0 / r if isinstance(r, float) and r else np.divide(1.0, r))


def _not_negative(e: Element, g: Value) -> Value:
    """A conductance as it is; NetlistError when it is negative."""
    if np.any(g < 0):
        k = int(np.argmin(g))
        raise NetlistError(f"{e.member(k)}: negative conductance {np.ravel(g)[k]:g} S; make it 0 or positive")
    return np.abs(g)  # without the sign of -0: 1 / -0 is -inf


def _factor(reader: CardReader, e: Element, keys: dict[str, Value], model: ModelCard | None) -> Value:
    """Temperature, scale and multiplier: (1 + tc1 dT + tc2 dT^2) scale / m, or 1.01^(tce dT) scale / m."""
    params = model.params if model else {}
    tc1 = keys.get("tc1", params.get("tc1", 0.0))
    tc2 = keys.get("tc2", params.get("tc2", 0.0))
    tce = keys.get("tce", params.get("tce"))
    dt = reader.temperature(keys) - params.get("tnom", reader.options.tnom)
    if tce is None:
        by_temperature = 1.0 + tc1 * dt + tc2 * dt * dt
    else:
        by_temperature = seed_by_seed(e.scope.rng, np.power, 1.01, tce * dt)
    if not np.all(np.isfinite(by_temperature)):
        raise NetlistError(f"{e.label}: its temperature coefficients overflow; make them smaller")
    return np.divide(by_temperature * keys.get("scale", 1.0), keys.get("m", 1.0) * e.scope.multiplier)


def _model_resistance(reader: CardReader, e: Element, model: ModelCard | None, keys: dict[str, Value]) -> Value:
    """RSH (L - 2 SHORT) / (W - 2 NARROW), or the model's own R. `.options scale` acts on L and W of the element."""
    if model is None or not model.params.keys() & {"r", "rsh"}:
        raise NetlistError(
            f"{e.label}: no value; write {shown(e.pattern.name)} {' '.join(map(shown, e.words[:2]))} VALUE "
            "(ngspice would silently take 1 mohm)"
        )
    p, scale = model.params, reader.options.scale
    if "rsh" not in p:
        return p["r"]
    length = keys["l"] * scale if "l" in keys else p.get("l", 1e-5)
    width = keys["w"] * scale if "w" in keys else p.get("w", 1e-5)
    width = width - 2.0 * p.get("narrow", 0.0)
    if not np.all(width >= 0):
        raise NetlistError(f"{e.label}: its width less NARROW of model {shown(model.name)} must not be negative")
    return np.divide(p["rsh"] * (length - 2.0 * p.get("short", 0.0)), width)  # no width: open


def _crossbar(
    reader: CardReader, e: Element, lines: tuple[list[int], list[int]], r: Value | None, g: Value | None, factor: Value
) -> None:
    """A matrix of conductances, kept as one."""
    if g is None:
        assert r is not None  # one of them is given
        if np.any(np.equal(r, 0)):
            k = int(np.argmin(np.abs(r)))
            raise NetlistError(f"{e.member(k)}: resistance 0 in a crossbar; write this short as a resistor of its own")
        g = np.divide(1.0, r)
    g = np.asarray(g if np.all(np.equal(factor, 1.0)) else np.divide(g, factor), np.float64)
    g = np.ascontiguousarray(np.broadcast_to(g, e.shape))
    low, high = g.min(), g.max()
    if not 0 <= low <= high < math.inf:  # NaN fails too
        k = int(np.argmin(g)) if low < 0 else int(np.argmax(~np.isfinite(g)))
        raise NetlistError(f"{e.member(k)}: conductance {g.ravel()[k]:g} S; make it finite and not negative")
    rows, cols = (np.array(line, np.int64) for line in lines)
    crossbar = CrossbarCard(e.base, rows, cols, g, (e.ranges[0], e.ranges[1]), e.card.seq, e.order)
    reader.builder.add_crossbar(crossbar)


# -- sources -----------------------------------------------------------------------------------------------------------


def _source(reader: CardReader, e: Element) -> None:
    """V and I: n+ n- [[DC] VALUE] [AC ...] [waveform]; without a DC value, that of the waveform at t = 0, or 0."""
    keys = dict(e.pattern.words.keys)
    supported = _SOURCE_KEYS | {"m"} if e.pattern.kind == "I" else _SOURCE_KEYS
    if "rser" in keys:
        _refuse_resistance(reader, e, "rser", "series", 0.0)
    for key in keys:
        if key not in supported:
            raise unknown_key(e, key, {"dc", "m"} & supported)
    dc = reader.value(e, keys["dc"], "value") if "dc" in keys else None
    start: float | None = None  # of a waveform
    waveform = ""  # its name
    words = e.words
    i, n = 2, len(words)
    while i < n:
        word = words[i].lower()
        i += 1
        if word in _WAVEFORMS or word in _SOURCE_WORDS:
            first = i
            while i < n and reader.is_value(e.scope, words[i]):
                i += 1
            if word in _WAVEFORMS:
                following = words[i] if i < n else ""
                start = _waveform(reader, e, "sin" if word == "sine" else word, words[first:i], following)
                waveform = word.upper()
            elif i - first > (most := 2 if word in _TWO_NUMBERS else 1):
                extra = shown(words[first + most])
                cure = f"; write a DC value as DC={extra}" if dc is None else "; remove it"
                raise NetlistError(
                    f"{e.label}: {word.upper()} takes no more than {most} number{'s' * (most > 1)}, found '{extra}' as "
                    f"well{cure}"
                )
        elif i < n and word == "m" and word in supported and not (dc is None and reader.names_parameter(e.scope, word)):
            keys["m"] = words[i]
            i += 1
        elif dc is None:
            if word == "dc":
                following = words[i].lower() if i < n else ""
                named = following in _SOURCE_WORDS and not reader.names_parameter(e.scope, following)
                if not following or following in _WAVEFORMS or named:
                    continue
                i += 1
            dc = reader.value(e, words[i - 1], "value")
        else:
            raise extra_word(e, "value", words[i - 1])
    value = dc if dc is not None else (start if start is not None else 0.0)
    if dc is None and start is not None and math.isnan(start):
        raise NetlistError(
            f"{e.label}: with a negative delay its waveform begins before t = 0; write its value at t = 0 as DC VALUE"
        )
    unit = "V" if e.pattern.kind == "V" else "A"
    if waveform and dc is None:
        reader.remark(e, f": of {waveform} only the value at t = 0 counts, {value:g} {unit}")
    elif waveform:
        reader.remark(e, f": {waveform} is ignored: only the DC equilibrium is solved")
    elif dc is None:
        reader.remark(e, f": without a value it is 0 {unit}, as in ngspice; if that is meant, write 0")
    if reader.given:
        value = reader.replaced(e, value)
    if "portnum" in (*keys, *map(str.lower, words[2:])):
        _port(reader, e, value)
    if e.pattern.kind == "I":
        m = reader.value(e, keys["m"], "m") if "m" in keys else 1.0
        value = value * m * e.scope.multiplier
    _add(reader, e, value)


def _port(reader: CardReader, e: Element, value: Value) -> None:
    """An RF port has z0 in series, which is not supported: refused where it drives, else with a warning."""
    cure = "remove portnum, and write z0 as a resistor in series"
    if np.any(np.not_equal(value, 0.0)):
        raise NetlistError(f"{e.label}: RF ports (portnum) are not supported; {cure}")
    reader.remark(e, f": its resistance as an RF port (z0) is ignored; {cure}")


def _waveform(reader: CardReader, e: Element, name: str, words: list[str], following: str) -> float:
    """The value at t = 0, as ngspice's operating point takes it; NaN when a negative delay has it begin before.

    `following`: the word behind its parameters.
    """
    values = [reader.number(e, word, name.upper()) for word in words]
    if name in ("trnoise", "external"):
        return 0.0
    if name == "trrandom":  # type, time step, delay, two parameters
        return values[4] if len(values) > 4 else 0.0
    if not values or (name == "pwl" and len(values) % 2):
        braces = f", then '{shown(following)}' (an expression needs braces)" if braced(following) != following else ""
        needed = "pairs of a time and a value" if name == "pwl" else "its parameters"
        count = f"{len(values)} number{'s' * (len(values) != 1)}"
        raise NetlistError(f"{e.label}: {name.upper()} needs {needed}, found {count}{braces}; complete them")
    place = _DELAYS.get(name, len(values))
    delay = values[place] if place < len(values) else 0.0
    if name == "pwl" and "td" in e.pattern.words.keys:
        delay = reader.number(e, e.pattern.words.keys["td"], "td")
    if delay < 0:
        return math.nan
    if name == "pwl":
        return _on_polyline(-delay, values[::2], values[1::2])
    if name == "sin" and len(values) > 5:
        return values[0] + values[1] * math.sin(math.radians(values[5]))
    if name == "sffm" and len(values) > 5:  # VO VA FC MDI FS PHASEC PHASES
        signal = math.sin(math.radians(values[6])) if len(values) > 6 else 0.0
        return values[0] + values[1] * math.sin(math.radians(values[5]) + values[3] * signal)
    return 0.0 if name == "am" else values[0]


def _on_polyline(time: float, times: list[float], levels: list[float]) -> float:
    """The level at a time as ngspice finds it: at a step, where two points have this time, that of the first."""
    if time <= times[0]:
        return levels[0]
    for k in range(len(times) - 1):
        if times[k] == time:
            return levels[k]
        if times[k] < time < times[k + 1]:
            return levels[k] + (levels[k + 1] - levels[k]) * (time - times[k]) / (times[k + 1] - times[k])
    return levels[-1]


# -- controlled sources ------------------------------------------------------------------------------------------------


def _controlled(reader: CardReader, e: Element) -> None:
    """E and G: n+ n- nc+ nc- gain; F and H: n+ n- Vname gain. Also gain=, and of F and G m=.

    In m copies of a subcircuit, G conducts m times as much; F and H see the current of all copies through their source.
    """
    kind = e.pattern.kind
    own, form = _CONTROLLED[kind]
    first, second, *words = e.words
    behind = words[3:4] if words and words[0].lower() == own else words[2:3]
    behind = [word for word in behind if not reader.names_parameter(e.scope, word.lower())]
    for word in (*words[:1], *behind, *e.pattern.words.keys):
        if word.lower() in _NOT_LINEAR and (kind in "EG" or word[0] not in "vV"):
            formula = e.pattern.words.keys.get("value", "")
            if formula and _CONSTANT.fullmatch(formula):
                source = f"{'V' if kind in 'EH' else 'I'}{e.pattern.name}"
                raise NetlistError(
                    f"{e.label}: its VALUE depends on no voltage and no current; write a source: "
                    f"{shown(source)} {shown(first)} {shown(second)} {shown(formula)}"
                )
            raise NetlistError(
                f"{e.label}: only linear controlled sources are supported, not {word.upper()}; "
                f"write {shown(e.pattern.name)} {form}{f'; {NONLINEAR}' if kind == 'G' else ''}"
            )
    if kind in "EG" and len(words) > 3 and words[0].lower() in _GATES:  # nand(2) ...: else it is a node
        raise NetlistError(
            f"{e.label}: gates ({words[0].upper()}) are not supported, only linear controlled sources; "
            f"write {shown(e.pattern.name)} {form}"
        )
    words = words[1:] if words and words[0].lower() == own else words
    needed = 2 if kind in "EG" else 1
    if len(words) < needed:
        what = "four nodes" if needed == 2 else "two nodes and the name of a voltage source"
        raise NetlistError(
            f"{e.label}: needs {what}, found {shown(' '.join([first, second, *words]))}; "
            f"write {shown(e.pattern.name)} {form}"
        )
    control, rest = words[:needed], words[needed:]
    keys = reader.keys(e)
    if len(rest) > ("gain" not in keys):
        raise extra_word(e, "gain", rest[-1])
    if not rest and "gain" not in keys:
        raise NetlistError(f"{e.label}: no gain; write {shown(e.pattern.name)} {form}")
    gain = keys["gain"] if "gain" in keys else reader.value(e, rest[0], "gain")
    times = keys.get("m", 1.0) * (e.scope.multiplier if kind == "G" else 1.0)
    if "gain" in keys and np.any(times != 1.0):
        reader.remark(e, ": m multiplies its gain here; ngspice drops it beside gain=")
    gain = gain * times
    if kind == "H":
        gain = np.divide(gain, e.scope.multiplier)
    if kind in "EG":
        ends = [_nodes(reader, e, word) for word in (first, second, *control)]  # numbered in the order of the card
        _add(reader, e, gain, links=ends[2:])
    else:
        _add(reader, e, gain, links=[_sources(reader, e, control[0])])


def _nodes(reader: CardReader, e: Element, word: str) -> list[int]:
    """The node behind a word for each member."""
    return reader.nodes(e, word, 0) if e.ranges else [reader.node(e, word)]


def _sources(reader: CardReader, e: Element, word: str) -> list[int]:
    """For each member of a current-controlled source the voltage source whose current controls it."""
    if word[0] not in "vV":
        raise NetlistError(
            f"{e.label}: '{shown(word)}' is not a voltage source; a current is measured by one: put a source of 0 V "
            "in series, and write its name"
        )
    names = reader.spread(e, word, 0, "source") if e.ranges else [word]
    path = f"V.{e.scope.path}." if e.scope.path else ""
    numbers = [reader.builder.control(path + name, e.label, e.card.seq) for name in names]
    return at_members(numbers, e.ranges, 0) if e.ranges else numbers


# -- diodes and the rest -----------------------------------------------------------------------------------------------


def _diode(reader: CardReader, e: Element) -> None:
    """D anode cathode model [area] [off] [area= m= temp= dtemp=]"""
    if "thermal" in (w.lower() for w in e.words[4:]):
        raise NetlistError(f"{e.label}: self-heating (a node for its temperature, thermal) is not supported; remove it")
    row = _model(reader, e, "ANODE CATHODE MODEL", ("d",), "D(IS=1e-14)")
    keys = reader.keys(e) if e.pattern.words.keys else {}
    extra = [w for w in e.words[3:] if w.lower() != "off"]
    if len(extra) > 1:
        raise extra_word(e, "area", extra[1])
    area = keys["area"] if "area" in keys else reader.value(e, extra[0], "area") if extra else 1.0
    m = keys.get("m", 1.0) * e.scope.multiplier
    _add(reader, e, float(row), area, m, reader.temperature(keys))


def _nonlinear(reader: CardReader, e: Element) -> None:
    """N n1 n2 model [m=]"""
    row = _model(reader, e, "n1 n2 MODEL", ("tanh", "sinh", "pwl"), "tanh(imax=1m v0=0.5)")
    keys = reader.keys(e) if e.pattern.words.keys else {}
    if len(e.words) > 3:
        raise extra_word(e, "model", e.words[3])
    _add(reader, e, float(row), keys.get("m", 1.0) * e.scope.multiplier)


def _model(reader: CardReader, e: Element, form: str, types: tuple[str, ...], example: str) -> int:
    """The row of the model that the third word of an element names, of one of these types."""
    if len(e.words) < 3:
        raise NetlistError(f"{e.label}: no model; write {shown(e.pattern.name)} {form}")
    word = e.words[2]
    found = reader.model(e.scope, word)
    if found is None:
        raise NetlistError(f"{e.label}: no model '{shown(word)}'; define it: .model {shown(word)} {example}")
    row, model = found
    if model.type not in types:
        raise _wrong_model(e, word, model, " or ".join(kind.upper() for kind in types))
    return row


def _wrong_model(e: Element, word: str, model: ModelCard, wanted: str) -> NetlistError:
    return NetlistError(
        f"{e.label}: model '{shown(word)}' is of type {shown(model.type.upper())}; it must be of type {wanted}"
    )


def _inductor_or_capacitor(reader: CardReader, e: Element) -> None:
    """L is a short and C an open at DC: their values do not matter, but resistances in series with L, beside C, do."""
    if e.pattern.kind == "L":
        _refuse_resistance(reader, e, "rser", "series", 0.0)
    else:
        _refuse_resistance(reader, e, "rpar", "parallel", math.inf)
    _add(reader, e)


def _refuse_resistance(reader: CardReader, e: Element, key: str, where: str, none: float) -> None:
    """A resistance that LTspice lets an element have in series or in parallel is refused, unless it is none."""
    word = e.pattern.words.keys.get(key)
    if word is not None and np.any(np.not_equal(reader.value(e, word, key), none)):
        raise NetlistError(
            f"{e.label}: {key.capitalize()} = {shown(word)} is not supported; write it as a resistor in {where}"
        )


def _coupling(reader: CardReader, e: Element) -> None:
    reader.remark(e, " is ignored: inductors are shorts at DC")


_READERS: dict[str, Callable[[CardReader, Element], None]] = {
    "R": _resistor, "V": _source, "I": _source, "D": _diode, "L": _inductor_or_capacitor, "C": _inductor_or_capacitor,
    "K": _coupling, "E": _controlled, "F": _controlled, "G": _controlled, "H": _controlled,
    "N": _nonlinear,
}  # fmt: skip
assert _READERS.keys() == NOUNS.keys()
