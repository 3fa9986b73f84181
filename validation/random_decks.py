"""Random decks, as text for circuitsim and as a flat list of parts for references that share no code with it.

Families: 1 resistors, sources and ideal diodes; 2 piecewise linear diodes and tables too; 3 Shockley diodes, tanh and
sinh; 4 controlled sources E F G H, with diodes in a part of the decks. Nodes may float or dangle, islands are common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

FAMILIES = {1: "ideal diodes", 2: "piecewise linear", 3: "exponential", 4: "controlled sources"}
PORTS = ("p", "q")  # of the subcircuit
_WEIGHTS = {
    1: {"R": 10, "V": 2, "I": 2, "ideal": 5, "short": 0.7},
    2: {"R": 9, "V": 2, "I": 2, "ideal": 2, "pwl": 4, "table": 3, "short": 0.7},
    3: {"R": 10, "V": 2, "I": 2, "shockley": 5, "tanh": 1.5, "sinh": 1.5, "short": 0.5},
    4: {"R": 10, "V": 2, "I": 1.5, "E": 1, "F": 1, "G": 1, "H": 1, "short": 0.4},
}
_MODELS = ("ideal", "pwl", "table", "shockley", "tanh", "sinh")
_NICE_VOLTS = (-5.0, -1.0, 0.0, 0.5, 1.0, 2.0, 5.0)
_NICE_AMPERES = (-1e-3, 1e-3, 2e-3)


@dataclass(frozen=True)
class Model:
    """A .model card: its type (one of _MODELS), parameters by SPICE's names, and the points of a table."""

    name: str
    type: str
    p: dict[str, float] = field(default_factory=dict)
    points: tuple[float, ...] = ()

    def text(self) -> str:
        """The card."""
        kind = {"ideal": "D", "pwl": "D", "shockley": "D", "table": "pwl"}.get(self.type, self.type)
        values = [*map(repr, self.points), *(f"{key}={value!r}" for key, value in self.p.items())]
        return f".model {self.name} {kind}({' '.join(values)})"


@dataclass(frozen=True)
class Part:
    """An element: R, L (a short), V, I, D, N, or E, F, G, H."""

    kind: str
    name: str
    a: str
    b: str
    value: float = 0.0  # ohm, V, A, or gain
    model: Model | None = None
    control: tuple[str, ...] = ()  # two nodes (E, G) or the name of a source (F, H)

    def text(self) -> str:
        """The card."""
        last = self.model.name if self.model else repr(self.value)
        return " ".join([self.name, self.a, self.b, *self.control, last])


@dataclass(frozen=True)
class Deck:
    """A random circuit."""

    family: int
    seed: int
    text: str
    parts: tuple[Part, ...]  # of the whole hierarchy

    @property
    def nodes(self) -> list[str]:
        """Ground first."""
        ends = [n for part in self.parts for n in (part.a, part.b, *(part.control if part.kind in "EG" else ()))]
        return list(dict.fromkeys(["0", *ends]))

    def has(self, *types: str) -> bool:
        """Whether an element is of one of these kinds, or has a model of one of these types."""
        return any(part.kind in types or (part.model and part.model.type in types) for part in self.parts)


def random_deck(family: int, seed: int) -> Deck:
    """The deck of a family and a seed."""
    return _Writer(family, np.random.default_rng([family, seed])).deck(seed)


def shares(count: int, families: Sequence[int] = tuple(FAMILIES)) -> dict[int, int]:
    """How many of `count` circuits each family gives; the first ones one more where they do not come out even.

    >>> shares(10)
    {1: 3, 2: 3, 3: 2, 4: 2}
    """
    each, more = divmod(count, len(families))
    return {family: each + (k < more) for k, family in enumerate(families)}


class _Writer:
    def __init__(self, family: int, rng: np.random.Generator) -> None:
        self.family, self.rng = family, rng
        self.weights = dict(_WEIGHTS[family])
        if family == 3 and rng.random() < 0.3:
            self.weights |= {"ideal": 1.5, "pwl": 1.5, "table": 1.0}
        if family == 4 and rng.random() < 0.5:
            self.weights |= {str(rng.choice(["ideal", "pwl", "shockley", "tanh"])): 3}
        self.models = [model for kind in _MODELS if kind in self.weights for model in self._models(kind)]
        self.count = 0
        self.tied: dict[str, str] = {}  # node -> another that sources tie it to

    def deck(self, seed: int) -> Deck:
        rng = self.rng
        nodes = ["0", *(f"n{k}" for k in range(1, int(rng.integers(2, 15))))]
        groups = [nodes]
        if len(nodes) > 4 and rng.random() < 0.3:
            cut = int(rng.integers(2, len(nodes) - 1))
            groups = [nodes[:cut], nodes[cut:]]
        parts = self._tree(nodes) if rng.random() < 0.4 else []
        for _ in range(int(rng.uniform(0.8, 2.5) * len(nodes)) + 1):
            group = groups[int(rng.integers(len(groups)))]
            parts += self._part(group if rng.random() < 0.95 else nodes, nodes, parts)
        parts = parts or [self._resistor("0", nodes[1])]
        lines = [f"family {self.family}, seed {seed}", *(model.text() for model in self.models)]
        lines += [part.text() for part in parts]
        if rng.random() < 0.3:
            cell, calls, flat = self._subcircuit(nodes)
            lines += [*cell, *calls]
            parts += flat
        return Deck(self.family, seed, "\n".join(lines), tuple(parts))

    def _tree(self, nodes: list[str]) -> list[Part]:
        """Resistors that join all nodes."""
        return [self._resistor(str(self.rng.choice(nodes[:k])), nodes[k]) for k in range(1, len(nodes))]

    def _subcircuit(self, nodes: list[str]) -> tuple[list[str], list[str], list[Part]]:
        """A cell, its calls, and what these calls are as parts."""
        inner = [*PORTS, "m"]
        saved, self.tied = self.tied, {}
        cell = [part for _ in range(int(self.rng.integers(2, 5))) for part in self._part(inner, inner, [])]
        self.tied = saved
        calls, flat = [], []
        for k in range(1, int(self.rng.integers(2, 4))):
            ends = [str(self.rng.choice(nodes)) for _ in PORTS]
            calls.append(f"X{k} {' '.join(ends)} cell")
            new = dict(zip(PORTS, ends, strict=True)) | {"m": f"X{k}.m", "0": "0"}
            flat += [
                replace(
                    part,
                    name=f"{part.kind}.X{k}.{part.name}",
                    a=new[part.a],
                    b=new[part.b],
                    control=tuple(new[n] for n in part.control),
                )
                for part in cell
            ]
        return [f".subckt cell {' '.join(PORTS)}", *(part.text() for part in cell), ".ends"], calls, flat

    def _part(self, group: list[str], nodes: list[str], before: list[Part]) -> list[Part]:
        """A random element between nodes of the group; none when it would close a loop of sources (mostly)."""
        rng = self.rng
        kinds = list(self.weights)
        p = np.array([self.weights[kind] for kind in kinds])
        kind = str(rng.choice(kinds, p=p / p.sum()))
        a, b = (str(x) for x in rng.choice(group, 2, replace=bool(len(group) < 2 or rng.random() < 0.02)))
        if kind == "R":
            return [self._resistor(a, b)]
        if kind in self.names_of_models():
            model = self.models[int(rng.choice([k for k, m in enumerate(self.models) if m.type == kind]))]
            return [
                Part(letter := "N" if kind in ("table", "tanh", "sinh") else "D", self._name(letter), a, b, 0.0, model)
            ]
        if kind == "I":
            nice = rng.random() < 0.3
            value = rng.choice(_NICE_AMPERES) if nice else rng.choice([-1, 1]) * 10 ** rng.uniform(-6, -1)
            return [Part("I", self._name("I"), a, b, float(value))]
        if kind in "VEH" or kind == "short":
            top, bottom = self._top(a), self._top(b)
            if top == bottom and rng.random() < 0.9:
                return []
            if top != bottom:
                self.tied[top] = bottom
        if kind == "short":
            return [
                Part(
                    letter := str(rng.choice(["R", "L", "V"])), self._name(letter), a, b, 1.0 if letter == "L" else 0.0
                )
            ]
        if kind == "V":
            return [
                Part(
                    "V",
                    self._name("V"),
                    a,
                    b,
                    float(rng.choice(_NICE_VOLTS) if rng.random() < 0.4 else rng.uniform(-10, 10)),
                )
            ]
        gain = float(rng.choice([-1, 1]) * 10 ** rng.uniform(-1, 2)) * {"G": 1e-3, "H": 1e2}.get(kind, 1.0)
        if kind in "EG":
            return [Part(kind, self._name(kind), a, b, gain, None, tuple(str(x) for x in rng.choice(nodes, 2)))]
        sources = [part.name for part in before if part.kind == "V"]
        return [Part(kind, self._name(kind), a, b, gain, None, (str(rng.choice(sources)),))] if sources else []

    def names_of_models(self) -> set[str]:
        return {model.type for model in self.models}

    def _top(self, node: str) -> str:
        while node in self.tied:
            node = self.tied[node]
        return node

    def _name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def _resistor(self, a: str, b: str) -> Part:
        return Part("R", self._name("R"), a, b, float(10 ** self.rng.uniform(0, 6)))

    def _models(self, kind: str) -> list[Model]:
        """Two models of a type."""
        rng, u = self.rng, self.rng.uniform
        if kind == "ideal":
            knee = {"ron": 0.0, "vfwd": float(rng.choice([0.3, 0.7, u(0, 2)]))}
            if rng.random() < 0.3:
                knee |= {"vrev": u(1, 8)}
            return [Model("ideal0", kind, {"ron": 0.0}), Model("ideal1", kind, knee)]
        if kind == "pwl":
            low, high = 10 ** u(0, 3), 10 ** u(4, 7)
            one, two = {"ron": low, "vfwd": u(0, 1)}, {"ron": low, "roff": high, "vfwd": u(0, 1)}
            return [Model("pwl0", kind, one), Model("pwl1", kind, two | {"vrev": u(2, 8), "rrev": u(1, 100)})]
        if kind == "table":
            i, v = u(1e-4, 1e-2), u(0.2, 2)
            dead = (-2 * v, -1.1 * i, -v, 0.0, 1.3 * v, 0.0, 3 * v, i)
            flat = (-2 * v, -1.2 * i, -v, -1.2 * i, 0.0, 0.0, v, i, 2 * v, 1.5 * i) + (
                (3 * v, 1.5 * i) * int(rng.integers(2))
            )
            return [Model("table0", kind, {}, dead), Model("table1", kind, {}, flat)]
        if kind == "tanh":
            return [
                Model(f"tanh{k}", kind, {"imax": 10 ** u(-5, -2), "v0": u(0.1, 2), "g": g})
                for k, g in enumerate((0.0, 10 ** u(-6, -4)))
            ]
        if kind == "sinh":
            return [
                Model(f"sinh{k}", kind, {"i0": 10 ** u(-7, -4), "v0": u(0.1, 1), "g": g})
                for k, g in enumerate((0.0, 10 ** u(-6, -4)))
            ]
        bare = {"is": 10 ** u(-16, -9), "n": u(1, 2)}
        full = {"is": 10 ** u(-16, -9), "n": u(1, 2), "rs": 10 ** u(-1, 2)}
        if rng.random() < 0.5:
            full |= {"bv": u(3, 20), "ibv": 10 ** u(-4, -2)}
        return [Model("diode0", kind, bare), Model("diode1", kind, full)]
