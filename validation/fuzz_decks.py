"""Netlists for the fuzzer: seeds, the words of the language, decks by a grammar, and mutations of lines and words."""

from __future__ import annotations

import random
import re
from pathlib import Path

from hypothesis import strategies as st

from validation.measure import NETLISTS

_MOST_BYTES = 4000  # of a seed
_DEEPEST = 8  # rules within rules
_RULE = re.compile(r"<(\w+)>")
_PROLOGUE = """\
.model d D
.model p D(ron=0 vfwd={0})
.model q D(ron={1} vfwd={2} roff=1meg)
.model x tanh(imax={3} v0=1)
.model r sinh(i0={4} v0=1)
.model v0 pwl(-1 -1m 0 0 1 {5})
.model m D(is=1e-12 rs={6})
.model temper D(bv=5)
.subckt cell a b
R1 a m {7}
D1 m b p
.ends
V1 a 0 1
V2 b 0 {2}
V3 c d {5}
R1 a e 1k"""
_WORD = re.compile(rb"[^\s,=(){}]+")

GRAMMAR: dict[str, tuple[str, ...]] = {
    "line": (
        "<element>",
        "<element>",
        "<element>",
        "<element>",
        "<array>",
        "<call>",
        "<subckt>",
        "<model>",
        "<model>",
        "<dot>",
        "<element> <junk>",
        "* <junk>",
        "+ <value>",
        "",
    ),
    "sound": (
        "<element>",
        "<element>",
        "<element>",
        "<element>",
        "R<n> <node> <node> <value>",
        "R<n> <node> 0 <value>",
        "<array>",
        "X<n> <node> <node> cell",
        ".param p<n>=<value>",
        ".options gmin=1p",
        ".options rshunt=1g",
        ".temp 50",
        ".save all",
        ".save v(a)",
        ".train R1",
    ),
    "usual": (
        "1k",
        "1",
        "2.5",
        "10",
        "1m",
        "330",
        "1meg",
        "0.7",
        "5",
        "{2*(1+3)}",
        "20u",
        "1e-9",
        "4.7k",
        "100",
        "3",
        "{sqrt(2)}",
        "1e9",
        "1e-12",
    ),
    "v": ("1", "2", "3"),
    "element": (
        "R<n> <node> <node> <value>",
        "R<n> <node> <node> <value> <key>=<value>",
        "R<n> <node> <node> g=<value>",
        "V<n> <node> <node> <source>",
        "I<n> <node> <node> <source>",
        "D<n> <node> <node> <name>",
        "D<n> <node> <node> <name> area=<value>",
        "N<n> <node> <node> <name>",
        "L<n> <node> <node> 1m",
        "C<n> <node> <node> 1n",
        "E<n> <node> <node> <node> <node> <value>",
        "G<n> <node> <node> <node> <node> <value>",
        "F<n> <node> <node> V<v> <value>",
        "H<n> <node> <node> V<v> <value>",
    ),
    "array": (
        "R<n><range> <node><range> <node> <value>",
        "R<n><range><range> <node><range> <node><range> g=<value>",
        "V<n><range> <node><range> 0 <source>",
        "I<n><range> 0 <node><range> <value>",
        "D<n><range> <node><range> <node> <name>",
        "R<n><range> <node><range> <node> @array_values.npz:load",
        "R<n>[0:2][0:1] <node>[0:2] <node>[0:1] g=@array_g.npy",
    ),
    "range": ("[0:1]", "[0:2]", "[2:0]", "[1:1]", "[0]", "[0:7]", ""),
    "subckt": (
        ".subckt <name> <node> <node>\n<element>\n<element>\n.ends",
        ".subckt <name> <node> <node> <name>=<value>\n<line>\n<line>\n.ends",
    ),
    "call": ("X<n> <node> <node> <name>", "X<n> <node> <node> <name> <name>=<value>", "X<n> <node> <node> <name> m=2"),
    "model": (
        ".model <name> D",
        ".model <name> D(ron=0)",
        ".model <name> D(ron=0 vfwd=<value>)",
        ".model <name> D(ron=<value> roff=<value> vfwd=<value> vrev=<value>)",
        ".model <name> D(is=<value> n=<value> rs=<value>)",
        ".model <name> D(is=<value> bv=<value> ibv=<value>)",
        ".model <name> tanh(imax=<value> v0=<value>)",
        ".model <name> sinh(i0=<value> v0=<value>)",
        ".model <name> pwl(-1 -1m 0 0 1 <value>)",
        ".model <name> R(rsh=<value>)",
    ),
    "dot": (
        ".param <name>=<value>",
        ".param <name>={<expression>}",
        ".func <name>(x) {x*<value>}",
        ".options gmin=<value>",
        ".options rshunt=<value>",
        ".options temp=<value> seed=<n>",
        ".options scale=<value>",
        ".temp <value>",
        ".op",
        ".dc V<n> 0 1 <value>",
        ".dc temp 0 100 50",
        ".save v(<node>) i(R<n>)",
        ".save all",
        ".print op <node>",
        ".input V<n>",
        ".output <node><range>",
        ".train R<n>",
        ".global <node>",
        ".if (<expression>)\n<element>\n.endif",
        ".include parts.inc",
        ".lib corners.lib tt",
        ".options savecurrents",
        ".ic v(<node>)=1",
        ".control",
        ".endc",
    ),
    "source": (
        "<value>",
        "dc <value>",
        "sin(<value> 1 1k)",
        "pulse(<value> 1 0)",
        "pwl(0 <value> 1 1)",
        "<value> ac 1",
    ),
    "expression": (
        "<value>",
        "<name>",
        "<expression>+<expression>",
        "<expression>*<expression>",
        "-<expression>",
        "2",
        "<expression>/<expression>",
        "<expression>**<expression>",
        "sqrt(<expression>)",
        "exp(<expression>)",
        "aunif(<value>,<value>)",
        "<expression> > 0 ? <expression> : 1",
        "max(<expression>,<expression>)",
        "<name>(<expression>)",
        "ln(<expression>)",
        "int(<expression>)",
    ),
    "value": (
        "1k",
        "1",
        "0",
        "-1",
        "1m",
        "10",
        "1meg",
        "2.5",
        "1u",
        "1e-15",
        "1e12",
        "1e30",
        "1e-30",
        "1e300",
        "1e-300",
        "-1e9",
        "0.7",
        "inf",
        "nan",
        "1e308",
        "5e-324",
        "{<expression>}",
        "'<expression>'",
        "1e999",
        "3.3",
        "100n",
        "4k7",
    ),
    "node": ("0", "a", "b", "c", "d", "e", "a", "b", "0", "gnd", "x[0]", "x[1]", "A", "x"),
    "name": ("d", "p", "q", "x", "r", "v0", "temper", "m"),
    "key": ("tc1", "tc2", "m", "temp", "dtemp", "scale", "ac", "l", "w", "tce"),
    "n": ("1", "2", "3", "4", "5", "6", "7", "8"),
    "junk": (
        "(",
        ")",
        "{",
        "}",
        "'",
        '"',
        "=",
        ",",
        ";",
        "$ x",
        "// x",
        "[",
        "]",
        "\\\\",
        "@",
        "é",
        "\t",
        "\x0b",
        "[0:",
    ),
}

_PIECES = [rule.split(" ")[0] for rules in GRAMMAR.values() for rule in rules] + list(GRAMMAR["value"])
_KEYS = [word for rules in GRAMMAR.values() for rule in rules for word in re.findall(r"[.\w]+(?=[=( ])", rule)]
_MORE = ".subckt .ends .endif .else .elseif .endl .include .model .nodeset params: gain= area= \u00b5 [0:99999999] {}"
WORDS = sorted({word.encode() for word in (*_PIECES, *_KEYS, *_MORE.split()) if "<" not in word and word.strip()})


def seeds() -> list[bytes]:
    """The decks of the repository that are small, among them all that are refused."""
    paths = [path for folder in (NETLISTS, NETLISTS / "valid", NETLISTS / "invalid") for path in folder.glob("*.cir")]
    found = (path.read_bytes() for path in sorted(paths))
    return [data for data in found if len(data) <= _MOST_BYTES]


def companions() -> list[Path]:
    """The files that seeds include or take arrays from."""
    folders = (NETLISTS / "valid", NETLISTS / "invalid")
    return [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix in (".npy", ".npz", ".inc", ".lib")
    ]


@st.composite
def decks(draw: st.DrawFn) -> bytes:
    """A deck by the grammar, or a seed after some mutations."""
    rng = draw(st.randoms(use_true_random=False))
    if rng.random() < 0.7:
        data = grown_deck(rng).encode()
    else:
        data = rng.choice(_SEEDS)
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        data = mutated(data, rng)
    return data


_SEEDS = seeds()


def grown_deck(rng: random.Random) -> str:
    """A title and some lines; most decks keep to what is needed for a solution, others to nothing."""
    sound = rng.random() < 0.75
    grower = _Grower(rng, sound)
    rule = "sound" if sound else "line"
    lines = [grower.grown(rule) for _ in range(rng.randrange(1, 2 + rng.choice((3, 6, 12, 25))))]
    start = _PROLOGUE.format(*(grower.grown("usual") for _ in range(8))).split("\n") if sound else []
    return "\n".join(["fuzz", *start, *lines])


class _Grower:
    """Texts of rules; `sound`: every name is new, and values are usual ones nearly always."""

    def __init__(self, rng: random.Random, sound: bool) -> None:
        self.rng, self.sound, self.names = rng, sound, 10

    def grown(self, rule: str, depth: int = 0) -> str:
        """A random text of a rule; deep down one without further rules, where there is one."""
        if self.sound and rule == "n":
            self.names += 1
            return str(self.names)
        if self.sound and rule == "value" and self.rng.random() < 0.93:
            rule = "usual"
        choices = GRAMMAR[rule]
        if depth > _DEEPEST:
            choices = tuple(text for text in choices if "<" not in text) or choices
        return _RULE.sub(lambda found: self.grown(found.group(1), depth + 1), self.rng.choice(choices))


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A line dropped, doubled, moved or taken from a seed; or a word replaced by one of the language."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, rng.choice(lines))
    elif kind == 2:
        lines.insert(rng.randrange(len(lines)), lines.pop(at))
    elif kind == 3:
        lines.insert(at, rng.choice(rng.choice(_SEEDS).split(b"\n")))
    else:
        words = list(_WORD.finditer(lines[at]))
        if words:
            word = rng.choice(words)
            new = rng.choice(WORDS) if kind == 4 else rng.choice(words).group()
            lines[at] = lines[at][: word.start()] + new + lines[at][word.end() :]
    return b"\n".join(lines)
