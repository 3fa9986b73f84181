"""Recipes: those that ship are the paper's; everything that can be wrong with one is said."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from circuitsim import SettingsError
from training.recipe import RECIPES, Recipe, find_recipe, named_netlist, names, override, read_recipe, recipe_path

# Tables 1 and 2 of the paper: layer sizes, gain, sweeps, nudge, rates of conductances, of biases, epochs, errors of EP
# and of BP (test, train), percent.
SAME = (0.006, 0.006)
PAPER = {
    "drn-xs": ((1568, 100, 10), 100, 4, 1.0, SAME, SAME, 10, (3.46, 2.94), (3.30, 2.62)),
    "drn-1h": ((1568, 1024, 10), 480, 4, 1.0, SAME, SAME, 50, (1.57, 0.12), (1.54, 0.12)),
    "drn-2h": (
        (1568, 1024, 1024, 10), 2000, 5, 1.0, (0.002, 0.006, 0.018), (0.002, 0.006, 0.018), 50,
        (1.48, 0.25), (1.45, 0.22),
    ),
    "drn-3h": (
        (1568, 1024, 1024, 1024, 10), 4000, 6, 2.0, (0.005, 0.02, 0.08, 0.005), (0.0005, 0.002, 0.008, 0.0005), 50,
        (1.66, 0.46), (1.50, 0.33),
    ),
    "drn-xl": ((1568, 32768, 10), 800, 4, 1.0, SAME, SAME, 100, (1.33, 0.02), (1.30, 0.01)),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_recipes(name: str) -> None:
    sizes, gain, sweeps, nudge, g_rates, b_rates, epochs, ep, bp = PAPER[name]
    found = find_recipe(name)
    wanted = Recipe(
        netlist=found.netlist, gain=gain, sweeps=sweeps, nudge=nudge, conductance_rates=g_rates, bias_rates=b_rates,
        epochs=epochs, expected={"ep": dict(zip(("test", "train"), ep, strict=True)),
                                 "bp": dict(zip(("test", "train"), bp, strict=True))},
    )  # fmt: skip
    assert found == wanted
    assert (found.batch_size, found.decay, found.dtype, found.form) == (4, 0.99, "float32", "difference")
    crossbars = re.findall(r"^RW\d+\[0:(\d+)\]\[0:(\d+)\]", found.netlist.read_text(), re.MULTILINE)
    assert [(int(last_in) + 1, int(last_out) + 1) for last_in, last_out in crossbars] == list(pairwise(sizes))
    trained = trained_kinds(found)
    rates = found.rates(trained, epoch=0)
    assert [rates[element] for element, is_conductance in trained if is_conductance] == list(g_rates)
    assert [rates[element] for element, is_conductance in trained if not is_conductance] == list(b_rates)


def trained_kinds(recipe: Recipe) -> list[tuple[str, bool]]:
    lines = [line for line in recipe.netlist.read_text().splitlines() if line.startswith(".train")]
    return [(element, element.startswith("R")) for line in lines for element in line.split()[1:]]


def test_every_recipe_that_ships_fits_its_netlist() -> None:
    assert set(PAPER) <= set(names()) == {path.stem for path in RECIPES.glob("*.toml")}
    for name in names():
        recipe = find_recipe(name)
        trained = trained_kinds(recipe)
        assert trained
        assert list(recipe.rates(trained, epoch=0)) == [element for element, _ in trained]


def test_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("")
    assert read_recipe(path) == Recipe(tmp_path / "mine.cir")
    smallest = find_recipe("drn-xs")
    two = override(Recipe(smallest.netlist), conductance_rates=SAME, bias_rates=SAME)  # one rate stands for both
    assert replace(smallest, expected={}) == two


def test_rates() -> None:
    recipe = Recipe(Path("x.cir"), conductance_rates=(0.1, 0.2), bias_rates=(0.5,), decay=0.5)
    trained = [("RA", True), ("IA", False), ("RB", True), ("VB", False)]
    assert recipe.rates(trained, 0) == {"RA": 0.1, "IA": 0.5, "RB": 0.2, "VB": 0.5}
    assert recipe.rates(trained, 2) == {"RA": 0.025, "IA": 0.125, "RB": 0.05, "VB": 0.125}
    with pytest.raises(SettingsError, match=r"rates has 2 numbers, the netlist trains 1 conductances \(RA\)"):
        recipe.rates([("RA", True)], 0)
    with pytest.raises(SettingsError, match=r"bias_rates has 2 numbers, the netlist trains 3 sources \(Ia, Ib, Ic\)"):
        override(recipe, bias_rates=(1.0, 2.0)).rates([(name, False) for name in ("Ia", "Ib", "Ic")], 0)
    assert recipe.rates([("IA", False)], 0) == {"IA": 0.5}


def test_numbers_may_be_at_their_ends() -> None:
    recipe = Recipe(Path("x.cir"), sweeps=2**31 - 1, bias_rates=(0.0,), decay=1.0, expected={"ep": {"test": 100}})
    assert recipe.rates([("IA", False)], 9) == {"IA": 0.0}


def test_where_a_recipe_is_found(tmp_path: Path) -> None:
    netlist = tmp_path / "my.cir"
    netlist.write_text("title\n")
    assert find_recipe(str(netlist)) == Recipe(netlist) and recipe_path(str(netlist)) is None
    beside = tmp_path / "my.toml"
    beside.write_text("gain = 7\nconductance_rates = 0.5\n")
    assert find_recipe(str(netlist)) == Recipe(netlist, gain=7.0, conductance_rates=(0.5,))
    given = tmp_path / "other.toml"
    given.write_text('netlist = "elsewhere.cir"\nsweeps = 9\n')
    assert find_recipe(str(netlist), given) == Recipe(netlist, sweeps=9)
    assert recipe_path("drn-xs") and recipe_path(str(tmp_path / "no.cir"), given)
    assert find_recipe("drn-xs", given) == Recipe(find_recipe("drn-xs").netlist, sweeps=9)
    assert read_recipe(given).netlist == tmp_path / "elsewhere.cir"
    with pytest.raises(SettingsError, match=r"no netlist 'drn-4h': give a file, or one of drn-1h, .* did you mean"):
        find_recipe("drn-4h")
    with pytest.raises(SettingsError, match=r"x{300}"):  # longer than a name may be
        find_recipe("x" * 300)


def test_bounds_are_rounded_inwards(tmp_path: Path) -> None:
    """To what the steps compute in."""
    path = tmp_path / "mine.toml"
    path.write_text("g_min = 1e-6\ng_max = 0.1\n")
    recipe = read_recipe(path)
    low, high = recipe.window
    assert (np.float32(low), np.float32(high)) == (low, high)
    assert 1e-6 < low == pytest.approx(1e-6, rel=2e-7)
    assert 0.1 > high == pytest.approx(0.1, rel=2e-7)
    for exact in ({"dtype": "float64"}, {"tol": 1e-9}):
        assert override(recipe, **exact).window == (1e-6, 0.1)
    assert override(recipe, g_min=0.0, g_max=math.inf).window == (0.0, math.inf)
    assert override(recipe, g_min=0.5, g_max=0.5).window == (0.5, 0.5)
    assert override(recipe, g_max=1e300).window[1] == np.finfo("float32").max


def test_other_spellings(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("algorithm = 'adjoint'\nvariant = 'centered'\nnetlist = 'adjoint'")
    assert read_recipe(path) == Recipe(tmp_path / "adjoint", algorithm="implicit", variant="centred")


def test_override() -> None:
    with pytest.raises(SettingsError, match="tol and sweeps exclude each other"):
        override(find_recipe("drn-xs"), tol=1e-9, sweeps=4)
    recipe = find_recipe("drn-xs")
    assert override(recipe, gain=None, epochs=3, tol=None) == replace(recipe, epochs=3)
    assert override(replace(recipe, tol=1e-9), sweeps=9) == replace(recipe, sweeps=9)
    with pytest.raises(SettingsError, match="epochs must be at least 1"):
        override(recipe, epochs=0)


def test_table_is_plain() -> None:
    for name in names():
        recipe = find_recipe(name)
        table = json.loads(json.dumps(recipe.table(), allow_nan=False))
        assert table.keys() == {f.name for f in fields(Recipe)}
        assert (table["netlist"], table["expected"]) == (str(recipe.netlist), recipe.expected)
        assert (
            table["g_min"] is table["g_max"] is None
        )  # no bounds: checkpoints from before there were any say the same
    table = override(find_recipe("drn-3h"), g_min=1e-6, g_max=1e-3).table()
    assert (table["g_min"], table["g_max"]) == (1e-6, 1e-3)
    assert json.loads(json.dumps(table))["conductance_rates"] == [0.005, 0.02, 0.08, 0.005]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nudg = 1", "unknown key 'nudg'; did you mean nudge?"),
        ("colour = 1", "unknown key 'colour'; keys are netlist, algorithm"),
        ("gain = 'much'", "gain must be a number, found 'much'"),
        ("gain = true", "gain must be a number, found True"),
        ("gain = 0", "gain must be a positive number, found 0"),
        ("gain = inf", "gain must be a positive number, found inf"),
        ("sweeps = 2.5", "sweeps must be a whole number, found 2.5"),
        ("sweeps = true", "sweeps must be a whole number, found True"),
        ("sweeps = 0", "sweeps must be at least 1, found 0"),
        ("sweeps = 2147483648", "sweeps must be at most 2147483647, found a larger number"),
        (f"epochs = 1{'0' * 30}", "epochs must be at most 2147483647"),
        ("batch_size = -1", "batch_size must be at least 1"),
        ("tol = 0", "tol must lie between 0 and 1, found 0"),
        ("tol = 1", "tol must lie between 0 and 1, found 1"),
        ("tol = 2", "tol must lie between 0 and 1, found 2"),
        ("decay = 0", "decay must lie above 0 and be at most 1, found 0"),
        ("decay = 1.5", "decay must lie above 0 and be at most 1, found 1.5"),
        ("algorithm = 'sgd'", "unknown algorithm 'sgd': choose ep, bp, implicit"),
        ("algorithm = 3", "algorithm must be text, found 3"),
        ("variant = 'both'", "unknown variant 'both': choose centred, positive, negative"),
        ("form = 'other'", "unknown form 'other': choose difference, plain"),
        ("dtype = 'float16'", "unknown dtype 'float16': choose float64, float32"),
        ("netlist = 3", "netlist must be a file name, found 3"),
        ("conductance_rates = []", r"conductance_rates must be numbers >= 0, one or more, found \[\]"),
        ("bias_rates = [0.1, -0.1]", r"bias_rates must be numbers >= 0, one or more, found \[0.1, -0.1\]"),
        ("bias_rates = inf", r"bias_rates must be numbers >= 0, one or more, found \[inf\]"),
        ("bias_rates = ['a']", r"bias_rates must be numbers, found \['a'\]"),
        ("expected = 3", "expected must be tables of errors in percent"),
        ("[expected]\nep = 3", "expected must be tables of errors in percent"),
        ("[expected.sgd]\ntest = 1", "expected must be tables of errors in percent"),
        ("[expected.ep]\ntset = 1", "expected must be tables of errors in percent, test and train"),
        ("[expected.ep]\ntest = nan", "expected must be tables of errors in percent"),
        ("[expected.ep]\ntest = -1", "expected must be tables of errors in percent"),
        ("[expected.ep]\ntest = 101", "expected must be tables of errors in percent"),
        (f"gain = 1{'0' * 400}", "gain must be a number below 1e308"),
        (f"bias_rates = [1{'0' * 400}]", "bias_rates must be a number below 1e308"),
        (f"bias_rates = 1{'0' * 400}", "bias_rates must be a number below 1e308"),
        (f"gain = 1{'0' * 5000}", "not a TOML file"),
        (f"gain = {'[' * 5000}{']' * 5000}", "its lists are nested too deep"),
        ("gain = nan", "gain must be a positive number, found nan"),
        ("nudge = -1", "nudge must be a positive number, found -1"),
        ("epochs = 0", "epochs must be at least 1"),
        ("bias_rates = [nan]", r"bias_rates must be numbers >= 0, one or more, found \[nan\]"),
        ("g_min = -1e-9", "g_min must be a number >= 0, in siemens, found -1e-09"),
        ("g_min = nan", "g_min must be a number >= 0, in siemens, found nan"),
        ("g_min = inf", "g_min must be a number >= 0, in siemens, found inf"),
        ("g_min = '1u'", "g_min must be a number, found '1u'"),
        ("g_max = 0", "g_max must be above 0, in siemens, or inf for no bound, found 0"),
        ("g_max = -1", "g_max must be above 0, in siemens, or inf for no bound, found -1"),
        ("g_max = nan", "g_max must be above 0, in siemens, or inf for no bound, found nan"),
        ("g_min = 2e-3\ng_max = 1e-3", "g_min must be at most g_max, found 0.002 and 0.001"),
        ("g_min = 0.1\ng_max = 0.1", "no float32 number lies between g_min, 0.1, and g_max, 0.1; choose dtype float64"),
        ("g_min = 1e39", "no float32 number lies between g_min, 1e[+]39, and g_max, inf"),
        ("g_max = 1e-60", "no float32 number above 0 lies between g_min, 0, and g_max, 1e-60"),
        ("gain = ", "not a TOML file"),
        ("gain = 1\ngain = 2", "not a TOML file"),
    ],
)
def test_faults(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message.replace("?", r"\?")) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the recipe: No such file"):
        read_recipe(tmp_path / "none.toml")
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not a TOML file"):
        read_recipe(path)


def test_a_netlist_of_a_shipped_name_has_the_shipped_recipe(tmp_path: Path) -> None:
    """As `circuitsim examples --all` writes them; one beside it comes first."""
    netlist = tmp_path / "drn_2h.cir"
    netlist.write_text("")
    assert find_recipe(str(netlist)) == override(find_recipe("drn-2h"), netlist=netlist)
    assert recipe_path(str(netlist))
    netlist.with_suffix(".toml").write_text("gain = 7")
    assert find_recipe(str(netlist)) == Recipe(netlist, gain=7.0)


def test_the_netlist_that_a_recipe_is_for(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    recipe = tmp_path / "my.toml"
    recipe.write_text("gain = 7")
    assert named_netlist(recipe) is None
    for path in ("my.cir", "nets/other.cir"):
        (tmp_path / path).write_text("")
    assert named_netlist(recipe) == str(tmp_path / "my.cir")
    for named, found in (
        ("nets/other.cir", str(tmp_path / "nets" / "other.cir")),
        (str(tmp_path / "my.cir"), str(tmp_path / "my.cir")),
        ("drn-2h", "drn-2h"),
        ("drn_2h.cir", "drn-2h"),  # as in a copy of the recipe that ships
    ):
        recipe.write_text(f"netlist = '{named}'")
        assert named_netlist(recipe) == found
    (tmp_path / "drn_2h.cir").write_text("")
    assert named_netlist(recipe) == str(tmp_path / "drn_2h.cir")
    for named in ("none.cir", "nets/drn_2h.cir", "nets"):
        recipe.write_text(f"netlist = '{named}'")
        with pytest.raises(SettingsError, match=rf"my\.toml: there is no netlist {tmp_path / named}: correct"):
            named_netlist(recipe)
