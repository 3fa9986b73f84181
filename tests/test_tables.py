"""Tables for people: solutions and inventories, at every width."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import DIVIDER, FLOATING, LOOP, REFUSED, SECONDS, solved, unsolved

import circuitsim as cs
from circuitsim.io.inventory import inventory, print_inventory
from circuitsim.io.output import Results
from circuitsim.io.tables import console, new_table, print_solution, print_whole


def as_table(results: Results, monkeypatch: pytest.MonkeyPatch, width: int = 80, quiet: bool = False) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    out = console()
    with out.capture() as capture:
        print_solution(results, SECONDS, 1e-9, out, quiet)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    return text


@pytest.mark.parametrize("width", [20, 80])
def test_a_table_that_is_printed_whole_has_all_its_digits(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    table = new_table(*((f"a column number {k}", True) for k in range(8)))
    table.add_row(*(f"{k}.123456789 ± 0.5" for k in range(8)))
    out = console()
    with out.capture() as capture:
        print_whole(table, out)
    head, _, row = capture.get().splitlines()
    assert row.split() == [word for k in range(8) for word in (f"{k}.123456789", "±", "0.5")]
    assert head.split() == [word for k in range(8) for word in ("a", "column", "number", str(k))]


def test_table_of_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    results = solved(DIVIDER)
    lines = [line.split() for line in as_table(results, monkeypatch).splitlines()]
    assert lines[0] == ["divider"]
    for row in (["node", "volts"], ["in", "10"], ["out", "7.5"], ["source", "amperes"], ["V1", "-0.0025"]):
        assert row in lines
    assert "certificate: met; the worst over all nodes:".split() in lines
    assert any(line[-4:] == ["met:", "at", "most", "1e-09"] for line in lines)
    assert lines[-2:] == [
        f"method bcd (no two unknowns are joined), backend cpu, float64, {results.solution.steps} sweeps".split(),
        "seconds: parse 0.5, compile 0.25, solve 0.12, total 123.5".split(),
    ]
    text = as_table(solved("bridge\nV1 a 0 1\nR1 a b 1\nR2 b c 1\nR3 c 0 1\n"), monkeypatch)
    assert "method newton (a sparse network), backend cpu, float64, 1 Newton step\n" in text


def test_table_marks_and_explains_what_is_not_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    text = as_table(solved(FLOATING), monkeypatch)
    assert [line.split() for line in text.splitlines() if line.startswith(("a ", "b ", "c "))] == [
        ["a", "1"], ["b", "0", "undetermined"], ["c", "-2", "undetermined"],
    ]  # fmt: skip
    assert "undetermined: nothing fixes these voltages relative to ground" in text
    text = as_table(solved(LOOP), monkeypatch)
    assert [line.split() for line in text.splitlines() if line.startswith("V")] == [
        ["V1", "-0.005", "not", "unique"], ["V2", "-0.005", "not", "unique"],
    ]  # fmt: skip
    assert "not unique: sources and shorts in a loop can share the current in any way" in text


def test_sources_beside_shorts_have_their_own_currents_and_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """E1 and V1 are in a loop; the inductor, which has no row, carries 2 mA."""
    deck = "loop\nV1 a 0 1\nE1 a 0 a 0 1\nR1 a 0 1k\nV2 b 0 2\nL1 b c 1m\nR2 c 0 1k\nE2 d 0 b 0 2\nR3 d 0 1k\n"
    lines = [line.split() for line in as_table(solved(deck), monkeypatch).splitlines()]
    rows = {line[0]: line[1:] for line in lines if line and line[0] in ("V1", "E1", "V2", "L1", "E2")}
    assert rows.keys() == {"V1", "E1", "V2", "E2"}
    assert (rows["V2"], rows["E2"]) == (["-0.002"], ["-0.004"])
    assert rows["V1"][1:] == rows["E1"][1:] == ["not", "unique"]
    assert float(rows["V1"][0]) + float(rows["E1"][0]) == pytest.approx(-1e-3)


def test_quiet_table_has_only_voltages(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = as_table(solved(DIVIDER), monkeypatch, quiet=True).splitlines()
    assert [lines[0].split(), *[line.split() for line in lines[2:]]] == [
        ["node", "volts"],
        ["in", "10"],
        ["out", "7.5"],
    ]


def test_table_says_when_the_certificate_is_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = "ladder\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\nS{k} n{k + 1} 0 1k\n" for k in range(9))
    text = as_table(unsolved(ladder.replace("\nS", "\nRS")), monkeypatch)
    assert "certificate: NOT met" in text
    assert "NOT met: at most 1e-09" in text
    assert "nan" in as_table(unsolved(REFUSED), monkeypatch)


def test_kcl_may_be_met_where_the_certificate_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voltages that 1e13 ohm hold are in doubt, however small the currents that miss."""
    weak = "weak\nV1 s 0 1\nI1 a b 1\nR1 a b 0.7\nRw1 a s 1e13\nRw2 b 0 3e13\nRd s d 1k\nD1 d 0 di\n"
    circuit = cs.parse(weak + ".model di D(ron=0)\n")
    text = as_table(Results(cs.solve(circuit, cs.Settings("bcd"), raise_on_failure=False)), monkeypatch)
    assert "certificate: NOT met; " in text
    [line] = [line for line in text.splitlines() if "KCL error / currents at the node" in line]
    assert line.rstrip().endswith("met: at most 1e-09") and "NOT" not in line


def test_rows_that_are_not_solved_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each of the tables that stand side by side."""
    ladder = "ladder\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\nRS{k} n{k + 1} 0 1k\n" for k in range(9))
    circuit = cs.parse(ladder).with_values({"V1": [0.0, 1.0]})
    solution = cs.solve(circuit, cs.Settings("bcd", max_sweeps=2), raise_on_failure=False)
    rows = [line.split() for line in as_table(Results(solution), monkeypatch, 60).splitlines() if line[2:3] in "01"]
    assert {(row[0], row[-1]) for row in rows if len(row) > 2} == {("0", "SOLVED"), ("1", "MAX_SWEEPS")}
    assert len(rows) > 2
    assert "SOLVED" not in as_table(Results(cs.solve(circuit)), monkeypatch)


def test_long_tables_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    many = "many\nV[1:50] n[1:50] 0 1\nR[1:50] n[1:50] 0 1k\n"
    text = as_table(solved(many), monkeypatch)
    assert "n[40]" in text
    assert "n[41]" not in text
    assert "... and 10 more nodes; --csv, --json or --npz FILE gives all" in text
    assert "V[20]" in text
    assert "V[21]" not in text
    assert "... and 30 more sources; --json, --npz FILE, or --csv with --save alli gives all" in text


def test_of_long_tables_the_extremes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is saved, if all of it has one unit; without voltages that nothing fixes."""
    volts = {k: (k * 37) % 101 for k in range(1, 60)}  # all different
    deck = "many\n" + "".join(f"V{k} n{k} 0 {v}\nR{k} n{k} 0 1k\n" for k, v in volts.items())
    deck += "Vfar far ground 1e3\nRfar far ground 1k\n.save " + " ".join(f"i(R{k})" for k in volts)
    low, high = (choose(volts, key=lambda k: volts[k]) for choose in (min, max))
    lines = as_table(solved(deck), monkeypatch).splitlines()
    assert [line for line in lines if line.startswith("of all: ")] == [
        f"of all: lowest n{low} {volts[low]} V, highest n{high} {volts[high]} V",
        f"of all: lowest Vfar -1 A, highest V{low} {-volts[low] / 1000:.7g} A",
        f"of all: lowest i(R{low}) {volts[low] / 1000:.7g} A, highest i(R{high}) {volts[high] / 1000:.7g} A",
    ]
    assert "of all" not in as_table(solved("few\nV1 a 0 1\nR1 a 0 1"), monkeypatch)
    mixed = as_table(solved(deck + " v(n1,n2)"), monkeypatch)
    assert mixed.count("of all") == 2


def test_batch_table_breaks_into_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    deck = "wide\nVx[0:14] x[0:14] 0 1\nR1[0:14] x[0:14] 0 1k\n"
    results = solved(deck, Vx=np.linspace(-1, 1, 180).reshape(12, 15) ** 3 / 3)
    volts = results.solution.voltages(results.nodes)
    for width in range(30, 131, 4):
        text = as_table(results, monkeypatch, width)
        lines = [line.split() for line in text.partition("certificate")[0].splitlines()]
        heads = [line for line in lines if line[:1] == ["row"]]
        assert [name for head in heads for name in head[1:]] == [f"x[{k}]" for k in range(15)]
        for row in range(10):
            parts = [line[1:] for line in lines if line[:1] == [str(row)]]
            assert [x for part in parts for x in part] == [f"{x:.7g}" for x in volts[row]]
        flowing = " ".join(text.split())
        assert "... and 2 more rows; --csv, --json or --npz FILE gives all" in flowing
        assert "float64, 12 rows" in flowing
        assert "amperes" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) > 110  # the room is used


def test_batch_table_marks_undetermined_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = as_table(solved(FLOATING, V2=np.array([1.0, 2.0])), monkeypatch)
    assert text.splitlines()[2].split() == ["row", "a", "b*", "c*"]
    assert "* undetermined: nothing fixes" in text


def test_names_are_not_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    text = as_table(solved("a [bold]title[/x]\nV1 net[red] 0 1\nR1 net[red] :smile: 1\nR2 :smile: 0 1\n"), monkeypatch)
    assert text.startswith("a [bold]title[/x]\n")
    assert "net[red]" in text
    assert ":smile:" in text


def test_zero_has_no_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    text = as_table(solved("zero\nV1 a 0 -0\nR1 a 0 1\n"), monkeypatch, quiet=True)
    assert text.splitlines()[2].split() == ["a", "0"]


# -- Inventory ---------------------------------------------------------------------------------------------------------

HOUSE = """what a house holds
.model ideal D(ron=0)
Vx[0:2] x[0:2] 0 1
RW[0:2][0:1] x[0:2] h[0:1] g={1m}
RV[0:1][0:0] h[0:1] y[0:0] g={1m}
Rl h[0] 0 1k
Ih[0:1] 0 h[0:1] 0
D1 0 h[0] ideal
L1 y[0] z
C1 z 0
R1 p q 1k
.input Vx
.output y[0]
.train RW RV
"""


def test_inventory_counts() -> None:
    data = inventory(cs.compile_problem(cs.parse(HOUSE)))
    assert json.loads(json.dumps(data)) == data
    assert data["title"] == "what a house holds"
    assert data["elements"] == {"R": 2, "V": 3, "I": 2, "D": 1, "L": 1, "C": 1, "E": 0, "F": 0, "G": 0, "H": 0, "N": 0}
    assert data["crossbars"] == [
        {"name": "RW", "rows": 3, "columns": 2, "conductances": 6},
        {"name": "RV", "rows": 2, "columns": 1, "conductances": 2},
    ]
    assert data["nodes"] == 10  # 0 x0 x1 x2 h0 h1 y0 z p q
    assert data["units"] == 6  # {0 x0 x1 x2} h0 h1 {y0 z} p q
    assert data["free"] == 4  # h0 h1 y q
    assert data["known"] == 2
    assert (data["colors"], data["bipartite"]) == (2, True)
    assert data["parts"] == 2
    assert data["islands"] == [{"nodes": ["p", "q"], "pinned": True}]
    assert data["couplings"] == {"free": {"sparse": 0, "dense": [[2, 1]]}, "known": {"sparse": 1, "dense": [[3, 2]]}}
    assert data["roles"] == {"input": ["Vx"], "output": ["y[0]"], "train": ["RW", "RV"]}


def test_inventory_of_a_circuit_without_unknowns() -> None:
    data = inventory(cs.compile_problem(cs.parse("known\nV1 a 0 1\nR1 a 0 1\n")))
    assert (data["free"], data["known"], data["colors"], data["parts"]) == (0, 1, 0, 1)


def test_inventory_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    out = console()
    with out.capture() as capture:
        print_inventory(inventory(cs.compile_problem(cs.parse(HOUSE))), out)
    text = capture.get()
    for wanted in (
        "crossbar RW               3 x 2, 6 of 6 conductances are not 0",
        "inductors (shorts at DC)  1",
        "nodes                     10 with ground, in 6 units that move as one",
        "unknown units             4; known: 2",
        "colours                   2, bipartite",
        "couplings to known        1 sparse, dense 3 x 2",
        "connected parts           2, 1 of them without a resistive path to ground",
        "  island                  p, q, pinned: p at 0 V",
        ".train                    RW, RV",
    ):
        assert wanted in text
