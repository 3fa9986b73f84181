"""Circuits for tests and experiments: some with known answers (Known), some random (netlist text)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

IDEAL = ".model ideal D(ron=0)"


@dataclass(frozen=True)
class Known:
    """A netlist and its voltages calculated by hand: node name -> voltage, V."""

    text: str
    voltages: Mapping[str, float]


def divider(volts: float = 10.0, r1: float = 1e3, r2: float = 1e3) -> Known:
    """Two resistors in series: v(out) = volts r2 / (r1 + r2).

    >>> divider(10, 3e3, 1e3).voltages["out"]
    2.5
    """
    text = f"divider\nV1 in 0 {volts!r}\nR1 in out {r1!r}\nR2 out 0 {r2!r}"
    return Known(text, {"in": volts, "out": volts * r2 / (r1 + r2)})


def ladder(n: int, volts: float = 1.0, ohms: float = 1e3) -> Known:
    """n sections of `ohms` in series and 2 `ohms` to ground, one more at the end: v(n[k]) = volts / 2^k.

    >>> ladder(3).voltages
    {'n[0]': 1.0, 'n[1]': 0.5, 'n[2]': 0.25, 'n[3]': 0.125}
    """
    lines = [f"ladder of {n} sections", f"V1 n[0] 0 {volts!r}"]
    lines += [f"Rs[1:{n}] n[0:{n - 1}] n[1:{n}] {ohms!r}", f"Rp[1:{n}] n[1:{n}] 0 {2 * ohms!r}"]
    lines.append(f"Rend n[{n}] 0 {2 * ohms!r}")
    return Known("\n".join(lines), {f"n[{k}]": volts / 2**k for k in range(n + 1)})


def grid(rows: int, cols: int, volts: float = 1.0, ohms: float = 1e3) -> Known:
    """A sheet of equal resistors, left edge at `volts`, right edge at 0 V: the voltage falls linearly.

    Nodes are n0[j], n1[j], ... by row; needs 2 columns at least.
    """
    lines = [f"{rows} x {cols} grid", f"Vleft n0[0] 0 {volts!r}", f"Vright n0[{cols - 1}] 0 0"]
    for i in range(rows):
        lines.append(f"Rh{i}[1:{cols - 1}] n{i}[0:{cols - 2}] n{i}[1:{cols - 1}] {ohms!r}")
        if i:
            lines += [f"Redge{i} n{i}[0] n0[0] 0", f"Rend{i} n{i}[{cols - 1}] n0[{cols - 1}] 0"]
            lines.append(f"Rv{i}[0:{cols - 1}] n{i - 1}[0:{cols - 1}] n{i}[0:{cols - 1}] {ohms!r}")
    fall = {f"n{i}[{j}]": volts * (1 - j / (cols - 1)) for i in range(rows) for j in range(cols)}
    return Known("\n".join(lines), fall)


def crossbar(rows: int, cols: int, siemens: float = 1e-3, sense: float = 1e3) -> Known:
    """Row k driven at k + 1 volts, equal conductances to every column, `sense` ohm from each column to ground.

    v(y[j]) = g sum of the row voltages / (rows g + 1/sense).
    """
    lines = [f"{rows} x {cols} crossbar"]
    lines += [f"Vx{k} x[{k}] 0 {k + 1}" for k in range(rows)]
    lines.append(f"RW[0:{rows - 1}][0:{cols - 1}] x[0:{rows - 1}] y[0:{cols - 1}] g={siemens!r}")
    lines.append(f"Rsense[0:{cols - 1}] y[0:{cols - 1}] 0 {sense!r}")
    out = siemens * (rows * (rows + 1) / 2) / (rows * siemens + 1 / sense)
    voltages = {f"x[{k}]": k + 1.0 for k in range(rows)} | {f"y[{j}]": out for j in range(cols)}
    return Known("\n".join(lines), voltages)


def diode_or(inputs: Sequence[float] = (5.0, 3.0, 0.0), forward: float = 0.7) -> Known:
    """Perfect diodes from each input to one output with a pull-down: v(out) = max(largest input - forward, 0).

    >>> diode_or([1.0, 4.0], forward=0.5).voltages["out"]
    3.5
    """
    lines = ["diode OR", f".model di D(ron=0 vfwd={forward!r})", "Rdown out 0 10k"]
    for k, volts in enumerate(inputs):
        lines += [f"V{k} in[{k}] 0 {volts!r}", f"D{k} in[{k}] out di"]
    out = {"out": max(max(inputs) - forward, 0.0)}
    return Known("\n".join(lines), {f"in[{k}]": float(v) for k, v in enumerate(inputs)} | out)


def drn(sizes: Sequence[int], seed: int = 1, gain: float = 1.0) -> str:
    """A deep resistive network of these layer sizes, in the form of the files netlists/drn_*.cir.

    Layer 0 is x (sources Vx, drawn from `gain` times U(-1, 1); an array of sources takes a data batch), hidden layers
    are h1, h2, ..., the last is y. Crossbars RW1, RW2, ... hold g = max(0, U(-c, c)), c = 1/sqrt(fan-in), in siemens;
    Ib1, ... are bias currents (0 A); in hidden layers perfect diodes keep one half at v >= 0, the other at v <= 0.
    """
    names = ["x", *(f"h{k}" for k in range(1, len(sizes) - 1)), "y"]
    spans = [f"{name}[0:{size - 1}]" for name, size in zip(names, sizes, strict=True)]
    lines = [f"DRN {'-'.join(map(str, sizes))}", f".options seed={seed}", IDEAL]
    lines.append(f"Vx[0:{sizes[0] - 1}] {spans[0]} 0 {{aunif(0, {gain!r})}}")
    for k in range(1, len(sizes)):
        shape = f"[0:{sizes[k - 1] - 1}][0:{sizes[k] - 1}]"
        lines.append(f"RW{k}{shape} {spans[k - 1]} {spans[k]} g={{max(0, aunif(0, {sizes[k - 1] ** -0.5!r}))}}")
        lines.append(f"Ib{k}[0:{sizes[k] - 1}] 0 {spans[k]} 0")
    for k in range(1, len(sizes) - 1):
        half = sizes[k] // 2
        if half:
            lines.append(f"Dexc{k}[0:{half - 1}] 0 h{k}[0:{half - 1}] ideal")
        lines.append(f"Dinh{k}[{half}:{sizes[k] - 1}] h{k}[{half}:{sizes[k] - 1}] 0 ideal")
    trained = " ".join(f"RW{k} Ib{k}" for k in range(1, len(sizes)))
    lines += [".input Vx", f".output {spans[-1]}", f".train {trained}", ".op", ".end"]
    return "\n".join(lines)


def wired_crossbar(n: int, cell: str = "resistor", wire: float = 1.0, volts: float = 1.0, seed: int = 1) -> str:
    """An n x n crossbar whose wires have resistance, as netlist text: wire k is a chain of `wire` ohms.

    Source Vx[i], up to +-`volts` at random, drives row i (nodes a<i>[0], a<i>[1], ...) at one end, through a wire;
    column j (nodes b0[j], b1[j], ...) ends at ground, through a wire; the cell at (i, j), 10 to 100 uS at random, joins
    a<i>[j] to b<i>[j]. With `cell` "diode" or "ideal" a Shockley or a perfect diode follows the resistor, from m<i>[j]
    to the column. 2 n^2 unknown voltages, 3 n^2 with diodes.

    >>> print("\\n".join(wired_crossbar(2).splitlines()[2:6]))
    Vx[0:1] x[0:1] 0 {aunif(0, 1.0)}
    Rin0 x[0] a0[0] 1.0
    Rrow0[1:1] a0[0:0] a0[1:1] 1.0
    Rcell0[0:1] a0[0:1] b0[0:1] g={aunif(55u, 45u)}
    """
    model = {"resistor": "", "diode": ".model diode D", "ideal": IDEAL}[cell]
    last = n - 1
    lines = [f"{n} x {n} crossbar with wires", f".options seed={seed}", *([model] if model else [])]
    lines.append(f"Vx[0:{last}] x[0:{last}] 0 {{aunif(0, {volts!r})}}")
    for i in range(n):
        row, column = f"a{i}[0:{last}]", f"b{i}[0:{last}]"
        lines.append(f"Rin{i} x[{i}] a{i}[0] {wire!r}")
        if n > 1:
            lines.append(f"Rrow{i}[1:{last}] a{i}[0:{last - 1}] a{i}[1:{last}] {wire!r}")
        end = f"m{i}[0:{last}]" if model else column
        lines.append(f"Rcell{i}[0:{last}] {row} {end} g={{aunif(55u, 45u)}}")
        if model:
            lines.append(f"D{i}[0:{last}] {end} {column} {cell}")
        below = f"b{i + 1}[0:{last}]" if i < last else "0"
        lines.append(f"Rcol{i}[0:{last}] {column} {below} {wire!r}")
    return "\n".join([*lines, ".input Vx", ".op", ".end"])


def current_grid(n: int, sources: int, seed: int = 1, ohms: float = 1.0, amps: float = 20e-6) -> str:
    """A square sheet of equal resistors that current sources draw from, as plain netlist text without arrays.

    Nodes n<i>_<j>, joined to their neighbours by `ohms`; 1 V at the four corners; `sources` different nodes, none of
    them a corner, feed a current source to ground each, 0 to `amps` at random. A power grid of n^2 - 4 unknowns.

    >>> len(current_grid(3, 2).splitlines())  # title, 12 resistors, 4 voltage sources, 2 current sources, .op, .end
    21
    """
    rng = np.random.default_rng(seed)
    last = n - 1
    corners = (0, last, n * last, n * n - 1)
    inner = np.setdiff1d(np.arange(n * n), corners)
    lines = [f"{n} x {n} grid, {sources} current sources"]
    lines += [f"Rh{i}_{j} n{i}_{j} n{i}_{j + 1} {ohms!r}" for i in range(n) for j in range(last)]
    lines += [f"Rv{i}_{j} n{i}_{j} n{i + 1}_{j} {ohms!r}" for i in range(last) for j in range(n)]
    lines += [f"V{k} n{at // n}_{at % n} 0 1" for k, at in enumerate(corners)]
    drawn = zip(rng.choice(inner, sources, replace=False).tolist(), rng.uniform(0, amps, sources).tolist(), strict=True)
    lines += [f"I{k} n{at // n}_{at % n} 0 {draw:.6g}" for k, (at, draw) in enumerate(drawn)]
    return "\n".join([*lines, ".op", ".end"])


def diode_mesh(n: int, ohms: str = "1k") -> str:
    """A square sheet of resistors with a Shockley diode from every second node to ground, as plain netlist text.

    Nodes n<i>_<j>, joined to their neighbours by `ohms`, a number or an expression in braces; two corners on sources
    V1 and V2 by 100 ohm. n^2 unknowns.

    >>> print(diode_mesh(2, "{agauss(1k, 50, 1)}").splitlines()[5])
    Rx0_0 n0_0 n0_1 {agauss(1k, 50, 1)}
    """
    lines = [f"{n} x {n} mesh of diodes", "V1 p 0 1", "V2 q 0 -1", "R1 p n0_0 100", f"R2 q n{n - 1}_{n - 1} 100"]
    for i in range(n):
        lines += [f"Rx{i}_{j} n{i}_{j} n{i}_{j + 1} {ohms}" for j in range(n - 1)]
        lines += [f"Ry{i}_{j} n{j}_{i} n{j + 1}_{i} {ohms}" for j in range(n - 1)]
        lines += [f"D{i}_{j} n{i}_{j} 0 d" for j in range(i % 2, n, 2)]
    return "\n".join([*lines, ".model d D(is=1e-14)", ".op", ".end"])


@dataclass(frozen=True)
class Recipe:
    """What random_circuit contains: how many of each element, and how far resistances spread."""

    nodes: int = 8  # besides ground
    decades: float = 3.0  # conductances between nodes: 10^-decades to 1 mS
    ground: tuple[float, float] = (1e-4, 1e-3)  # S: every node has a resistor to ground in this range
    volts: float = 5.0  # largest source
    grounded_sources: int = 2
    floating_sources: int = 1
    shorts: int = 1
    current_sources: int = 2
    shockley: int = 2
    pwl: int = 2
    ideal: int = 2
    forward_drops: bool = True  # False: ideal diodes have no forward voltage
    crossbars: int = 1
    subcircuits: int = 1
    laws: int = 0  # nonlinear resistors: tanh, sinh, tables
    recombination: bool = False  # Shockley diodes have ISR, half of them IKF too

    def linear(self) -> Recipe:
        """The same with nothing but resistors, sources and ideal diodes without forward drop."""
        return Recipe(
            self.nodes, self.decades, self.ground, self.volts, self.grounded_sources, self.floating_sources,
            self.shorts, self.current_sources, 0, 0, self.ideal, False, self.crossbars, 0,
        )  # fmt: skip


def random_circuit(rng: np.random.Generator, recipe: Recipe | None = None) -> str:
    """A random connected circuit that has exactly one solution, as netlist text.

    Nodes are n[0], n[1], ... Every node has a resistor to ground; ties (voltage sources, shorts) form no loops except
    shorts in parallel; ideal diodes go to fixed potentials, and never two to one tied group unless they leave it room.

    >>> text = random_circuit(np.random.default_rng(0), Recipe(nodes=3))
    >>> [line for line in text.splitlines() if line.startswith("R0")]
    ['R0 n[0] n[1] 6447.0']
    """
    return _Random(rng, recipe or Recipe()).text()


class _Random:
    def __init__(self, rng: np.random.Generator, recipe: Recipe) -> None:
        self.rng, self.recipe = rng, recipe
        self.names = [f"n[{k}]" for k in range(recipe.nodes)]
        self.group = list(range(recipe.nodes + 1))  # of each node, under ties; the last is ground
        self.offset = [0.0] * (recipe.nodes + 1)
        self.stiff: set[int] = set()  # groups that a Shockley diode without RS joins: no perfect diode to them
        self.lines = ["random circuit", f".options seed={rng.integers(1, 2**31)}", IDEAL]

    def text(self) -> str:
        r = self.recipe
        last = r.nodes - 1
        low, high = np.log10(r.ground)
        self.add(f"Rg[0:{last}] n[0:{last}] 0 g={{10**aunif({(low + high) / 2:g}, {(high - low) / 2:g})}}")
        self._resistors()
        for k in range(r.grounded_sources):
            self._tie(f"Vg{k}", self.node(), r.nodes, self.volts())
        for k in range(r.floating_sources):
            self._tie(f"Vf{k}", self.node(), self.node(), self.volts())
        for k in range(r.shorts):
            self._tie(("Rz", "Lz")[k % 2] + str(k), self.node(), self.node(), 0.0)
        for k in range(r.current_sources):
            self.add(f"I{k} {self.name(self.node())} {self.name(self.any_node())} {self.rng.uniform(-1e-3, 1e-3):.3g}")
        for k in range(r.shockley):
            self._shockley(k)
        for k in range(r.pwl):
            self._pwl(k)
        self._ideal()
        for k in range(r.crossbars):
            self._crossbar(k)
        self._subcircuits()
        for k in range(r.laws):
            self._law(k)
        return "\n".join(self.lines)

    def add(self, line: str) -> None:
        self.lines.append(line)

    def node(self) -> int:
        return int(self.rng.integers(self.recipe.nodes))

    def any_node(self) -> int:
        """Ground among them."""
        return int(self.rng.integers(self.recipe.nodes + 1))

    def name(self, node: int) -> str:
        return "0" if node == self.recipe.nodes else self.names[node]

    def volts(self) -> float:
        return round(float(self.rng.uniform(-self.recipe.volts, self.recipe.volts)), 2)

    def ohms(self) -> float:
        return float(f"{1e3 * 10 ** self.rng.uniform(0, self.recipe.decades):.4g}")

    def _resistors(self) -> None:
        """A random tree, and as many resistors again between any two nodes."""
        count = 0
        for k in range(1, self.recipe.nodes):
            self.add(f"R{count} n[{self.rng.integers(k)}] n[{k}] {self.ohms()!r}")
            count += 1
        for _ in range(self.recipe.nodes - 2):
            self.add(f"R{count} {self.name(self.node())} {self.name(self.any_node())} {self.ohms()!r}")
            count += 1

    def _tie(self, name: str, a: int, b: int, volts: float) -> None:
        """A tie from a to b, unless it would close a loop."""
        if self.group[a] == self.group[b]:
            return
        shift = self.offset[b] + volts - self.offset[a]
        old, new = self.group[a], self.group[b]
        for k, group in enumerate(self.group):
            if group == old:
                self.group[k], self.offset[k] = new, self.offset[k] + shift
        self.add(f"{name} {self.name(a)} {self.name(b)} {volts!r}")
        if volts == 0 and self.rng.random() < 0.3:
            self.add(f"{name}b {self.name(b)} {self.name(a)} 0")

    def _shockley(self, k: int) -> None:
        """Not within a tied group, and one without RS at most: sources would force any current through it."""
        rng, a, b = self.rng, self.any_node(), self.node()
        if self.group[a] == self.group[b]:
            return
        bare = not self.stiff and rng.random() < 0.7
        if bare:
            self.stiff = {self.group[a], self.group[b]}
        extra = "" if bare else f" rs={rng.uniform(1, 100):.3g}"
        extra += f" bv={rng.uniform(2, 6):.3g} ibv={10 ** rng.uniform(-5, -3):.3g}" if rng.random() < 0.5 else ""
        if self.recipe.recombination:
            extra += f" isr={10 ** rng.uniform(-12, -7):.3g} nr={rng.uniform(1.2, 2.5):.3g}"
            extra += f" vj={rng.uniform(0.5, 1):.3g} m={rng.uniform(0, 0.5):.3g}"
            extra += f" ikf={10 ** rng.uniform(-4, -1):.3g}" if rng.random() < 0.5 else ""
        self.add(f".model ds{k} D(is={10 ** rng.uniform(-15, -9):.3g} n={rng.uniform(1, 2):.3g}{extra})")
        self.add(f"Ds{k} {self.name(a)} {self.name(b)} ds{k} area={rng.uniform(0.5, 2):.3g}")

    def _pwl(self, k: int) -> None:
        rng = self.rng
        extra = f" roff={10 ** rng.uniform(4, 6):.3g}" if rng.random() < 0.5 else ""
        extra += f" vrev={rng.uniform(0, 3):.3g} rrev={rng.uniform(100, 1e3):.3g}" if rng.random() < 0.5 else ""
        self.add(f".model dp{k} D(ron={rng.uniform(100, 1e3):.3g} vfwd={rng.uniform(0, 1):.3g}{extra})")
        self.add(f"Dp{k} {self.name(self.any_node())} {self.name(self.node())} dp{k}")

    def _law(self, k: int) -> None:
        """tanh, sinh and tables in turn; tables with flat parts, saturation, and points on one side of 0 alone."""
        rng = self.rng
        g = f" g={10 ** rng.uniform(-6, -4):.3g}" if rng.random() < 0.5 else ""
        if k % 3 == 0:
            law = f"tanh(imax={10 ** rng.uniform(-5, -3):.3g} v0={rng.uniform(0.1, 2):.3g}{g})"
        elif k % 3 == 1:
            law = f"sinh(i0={10 ** rng.uniform(-7, -5):.3g} v0={rng.uniform(1.5, 3):.3g}{g})"
        else:
            v = np.sort(rng.uniform(-3, 3, rng.integers(1, 5)).round(2))
            v = np.unique([*(v if rng.random() < 0.7 else np.abs(v) + 0.01), 0.0])
            i = np.cumsum(np.diff(v, prepend=v[0]) * 1e-3 * rng.uniform(0, 1, v.size) * (rng.random(v.size) < 0.6))
            i = (i - i[np.flatnonzero(v == 0)[0]]).round(9)
            law = f"pwl({' '.join(f'{x:.9g}' for x in np.stack([v, i], 1).ravel())})"
        self.add(f".model ln{k} {law}")
        self.add(f"N{k} {self.name(self.any_node())} {self.name(self.node())} ln{k} m={rng.uniform(0.5, 2):.3g}")

    def _ideal(self) -> None:
        """Perfect diodes and limiters between free groups and fixed nodes, a group once at most."""
        r, rng = self.recipe, self.rng
        ground = self.group[-1]
        fixed = [k for k, group in enumerate(self.group) if group == ground]
        free = [k for k, group in enumerate(self.group) if group != ground]
        rng.shuffle(free)
        used: set[int] = set()
        for node in free:
            if len(used) == r.ideal:
                return
            if self.group[node] in used | self.stiff:
                continue
            used.add(self.group[node])
            other, model = self.name(int(rng.choice(fixed))), "ideal"
            if r.forward_drops:
                model = f"di{len(used)}"
                extra = f" vrev={rng.uniform(0, 2):.3g} rrev=0" if rng.random() < 0.4 else ""
                ron = 200 if extra and rng.random() < 0.3 else 0  # a perfect diode in one direction at least
                extra += f" roff={10 ** rng.uniform(4, 6):.3g}" if rng.random() < 0.3 else ""
                self.add(f".model {model} D(ron={ron} vfwd={rng.uniform(0, 1):.3g}{extra})")
            ends = [other, self.name(node)] if rng.random() < 0.5 else [self.name(node), other]
            self.add(f"Di{len(used)} {' '.join(ends)} {model}")

    def _crossbar(self, k: int) -> None:
        """About half of its resistors present; rows and columns may overlap."""
        n = self.recipe.nodes
        spans = []
        for _ in range(2):
            start = int(self.rng.integers(n))
            spans.append((start, int(self.rng.integers(start, min(start + 4, n)))))
        shape = "".join(f"[0:{stop - start}]" for start, stop in spans)
        ends = " ".join(f"n[{start}:{stop}]" for start, stop in spans)
        self.add(f"RX{k}{shape} {ends} g={{max(0, aunif(0, 1m))}}")

    def _subcircuits(self) -> None:
        if self.recipe.subcircuits:
            self.add(".subckt cell a b r=1k\nR1 a mid {r}\nR2 mid b {2*r}\nR3 mid 0 10k\nI1 0 mid 0.1m\n.ends")
        for k in range(self.recipe.subcircuits):
            self.add(f"X{k} {self.name(self.node())} {self.name(self.any_node())} cell r={self.ohms()!r}")
