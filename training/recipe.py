"""Recipes: what a netlist does not say about its training. One small TOML file each."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from circuitsim.backends.base import DTYPES
from circuitsim.errors import SettingsError
from circuitsim.io import examples

RECIPES = Path(__file__).parent / "recipes"

_LARGEST = 2**31 - 1  # of sweeps, batch_size, epochs: the compiled code counts in machine integers
ALGORITHMS = ("ep", "bp", "implicit")
SPELLINGS = {"adjoint": "implicit", "centered": "centred"}  # other names of choices
_CHOICES = {
    "algorithm": ALGORITHMS,
    "variant": ("centred", "positive", "negative"),
    "form": ("difference", "plain"),
    "dtype": DTYPES,
}


@dataclass(frozen=True)
class Recipe:
    """How a netlist is trained. Defaults are those of the paper's smallest network.

    netlist            the netlist file
    algorithm          ep (equilibrium propagation), bp (back-propagation through the sweeps; with tol as implicit, its
                       limit), implicit
    variant            of ep: nudges of +nudge and -nudge (centred), of +nudge (positive), of -nudge (negative)
    form               of ep on layers: relax the difference of the two nudged states (difference), or both (plain)
    gain               V for each unit of the data (grey levels run from 0 to 1), applied to the `.input` sources
    sweeps             of a phase, T
    tol                solve every phase, in float64, until its relative KCL violation is below this (replaces `sweeps`)
    nudge              beta, S
    conductance_rates  learning rates: one for all trained conductances, or one each, in `.train` order
    bias_rates         the same for trained sources
    g_min, g_max       S: trained conductances are clipped to these bounds, at first and in each step
    decay              factor on all learning rates after each epoch
    batch_size, epochs
    dtype              of sweeps without tol
    expected           known errors in percent: {"ep": {"test": ..., "train": ...}, "bp": ...}; may be empty
    """

    netlist: Path
    algorithm: str = "ep"
    variant: str = "centred"
    form: str = "difference"
    gain: float = 100.0
    sweeps: int = 4
    tol: float | None = None
    nudge: float = 1.0
    conductance_rates: tuple[float, ...] = (0.006,)
    bias_rates: tuple[float, ...] = (0.006,)
    g_min: float = 0.0
    g_max: float = math.inf
    decay: float = 0.99
    batch_size: int = 4
    epochs: int = 10
    dtype: str = "float32"
    expected: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise SettingsError(f"unknown {key} '{getattr(self, key)}': choose {', '.join(choices)}")
        for key in ("gain", "nudge"):
            if not (math.isfinite(getattr(self, key)) and getattr(self, key) > 0):
                raise SettingsError(f"{key} must be a positive number, found {getattr(self, key):g}")
        if not 0 < self.decay <= 1:
            raise SettingsError(f"decay must lie above 0 and be at most 1, found {self.decay:g}")
        if self.tol is not None and not 0 < self.tol < 1:
            raise SettingsError(f"tol must lie between 0 and 1, found {self.tol:g}")
        for key in ("sweeps", "batch_size", "epochs"):
            if getattr(self, key) < 1:
                raise SettingsError(f"{key} must be at least 1, found {getattr(self, key)}")
            if getattr(self, key) > _LARGEST:
                raise SettingsError(f"{key} must be at most {_LARGEST}, found a larger number")
        for key in ("conductance_rates", "bias_rates"):
            rates = getattr(self, key)
            if not rates or not all(math.isfinite(rate) and rate >= 0 for rate in rates):
                raise SettingsError(f"{key} must be numbers >= 0, one or more, found {list(rates)}")
        if not (math.isfinite(self.g_min) and self.g_min >= 0):
            raise SettingsError(f"g_min must be a number >= 0, in siemens, found {self.g_min:g}")
        if not self.g_max > 0:
            raise SettingsError(f"g_max must be above 0, in siemens, or inf for no bound, found {self.g_max:g}")
        if self.g_min > self.g_max:
            raise SettingsError(f"g_min must be at most g_max, found {self.g_min:g} and {self.g_max:g}")
        low, high = self.window
        if math.isinf(low) or not low <= high or high == 0:
            raise SettingsError(
                f"no float32 number{' above 0' * (high == 0)} lies between g_min, {self.g_min:g}, and g_max, "
                f"{self.g_max:g}; choose dtype float64"
            )
        if not _are_errors(self.expected):
            raise SettingsError(
                "expected must be tables of errors in percent, test and train, by algorithm: [expected.ep] test = 3.46"
            )

    @property
    def window(self) -> tuple[float, float]:
        """The least and the largest value of a trained conductance, S: g_min and g_max, rounded inwards to the dtype of
        the steps, so that no value lies outside.

        >>> low, high = Recipe(Path("x.cir"), g_min=1e-6, g_max=1e-3, dtype="float32").window
        >>> 1e-6 <= low < 1.0000002e-6, 0.9999998e-3 < high <= 1e-3
        (True, True)
        """
        if self.tol is not None or self.dtype == "float64":
            return self.g_min, self.g_max
        with np.errstate(over="ignore", under="ignore"):
            low, high = np.float32(self.g_min), np.float32(self.g_max)
        if float(low) < self.g_min:
            low = np.nextafter(low, np.float32(np.inf))
        if float(high) > self.g_max:
            high = np.nextafter(high, np.float32(0))
        return float(low), float(high)

    def rates(self, trained: Sequence[tuple[str, bool]], epoch: int) -> dict[str, float]:
        """The learning rate of each trained element (name, is a conductance) after `epoch` epochs of decay.

        Raises SettingsError when the recipe has another number of rates than the netlist has elements.
        """
        found: dict[str, float] = {}
        for key, kind in (("conductance_rates", True), ("bias_rates", False)):
            names = [name for name, is_conductance in trained if is_conductance is kind]
            given = getattr(self, key)
            if len(given) not in (1, len(names)) and names:
                what = "conductances" if kind else "sources"
                raise SettingsError(
                    f"{key} has {len(given)} numbers, the netlist trains {len(names)} {what} ({', '.join(names)}); "
                    "give one, or one for each"
                )
            every = given * len(names) if len(given) == 1 else given
            found |= {name: rate * self.decay**epoch for name, rate in zip(names, every, strict=False)}
        return {name: found[name] for name, _ in trained}

    def table(self) -> dict[str, Any]:
        """Plain values, as for a JSON file; g_min and g_max are None where they impose no bound."""
        return {
            **asdict(self),
            "g_min": self.g_min or None,
            "g_max": self.g_max if math.isfinite(self.g_max) else None,
            "netlist": str(self.netlist),
            "expected": {k: dict(v) for k, v in self.expected.items()},
        }


def names() -> list[str]:
    """The recipes that ship."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def find_recipe(netlist: str, recipe_file: Path | None = None) -> Recipe:
    """The recipe for the name of a shipped one (`drn-2h`), or for a netlist file.

    A netlist file has the recipe of `recipe_file`, or else the TOML file of the same stem beside it, or else the recipe
    that ships for a netlist of this file name (`drn_2h.cir`), or else the defaults. SettingsError when there is no such
    netlist, or a file cannot be read or is not a recipe.
    """
    if netlist in names():
        shipped = read_recipe(RECIPES / f"{netlist}.toml", examples.FOLDER)
        return shipped if recipe_file is None else replace(read_recipe(recipe_file), netlist=shipped.netlist)
    path = Path(netlist)
    if not _is_file(path):
        near = difflib.get_close_matches(netlist, names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SettingsError(f"no netlist '{netlist}': give a file, or one of {', '.join(names())}{hint}")
    found = recipe_path(netlist, recipe_file)
    return replace(read_recipe(found), netlist=path) if found else Recipe(path)


def named_netlist(recipe_file: Path) -> str | None:
    """The netlist that a recipe is for: the file that it names, or a built-in one (`drn-xs`, or `drn_xs.cir`); where it
    names none, the one of its stem beside it, if there is one. SettingsError for a name that is neither.
    """
    path, named = read_recipe(recipe_file).netlist, _table(recipe_file).get("netlist")
    if _is_file(path):
        return str(path)
    built_in = {read_recipe(RECIPES / f"{name}.toml").netlist.name: name for name in names()}
    if named is None or named in names():
        return named
    if named not in built_in:
        raise SettingsError(
            f"{recipe_file}: there is no netlist {path}: correct `netlist`, a path from the recipe's folder or the "
            f"name of a built-in one ({', '.join(names())})"
        )
    return built_in[named]


def recipe_path(netlist: str, recipe_file: Path | None = None) -> Path | None:
    """The file that `find_recipe` reads; None where it takes the defaults."""
    if recipe_file is not None:
        return recipe_file
    return RECIPES / f"{netlist}.toml" if netlist in names() else _own_recipe(Path(netlist))


def recipe_keys(path: Path | None) -> frozenset[str]:
    """The fields that a recipe file gives; none without one."""
    return frozenset() if path is None else frozenset(_table(path))


def _own_recipe(path: Path) -> Path | None:
    """The recipe beside a netlist file, or the one that ships for its name."""
    beside = path.with_suffix(".toml")
    if _is_file(beside):
        return beside
    shipped = (RECIPES / f"{name}.toml" for name in names())
    return next((file for file in shipped if read_recipe(file).netlist.name == path.name), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a name too long, a folder that may not be searched
        raise SettingsError(f"{path}: cannot read it: {error.strerror or error}") from None


def read_recipe(path: Path, netlists: Path | None = None) -> Recipe:
    """Read a TOML file whose keys are the fields of Recipe; `netlist` lies in the folder `netlists`, or the file's own.

    Raises SettingsError, naming file and key.
    """
    table = _table(path)
    known = {f.name: f.type for f in fields(Recipe)}
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; keys are {', '.join(known)}"
            raise SettingsError(f"{path}: unknown key '{key}'{hint}")
    try:
        values = {key: _value(key, str(known[key]), value) for key, value in table.items()}
        values["netlist"] = (netlists or path.parent) / values.get("netlist", f"{path.stem}.cir")
        return Recipe(**values)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _table(path: Path) -> dict[str, Any]:
    """What a TOML file holds. SettingsError, naming it."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: cannot read the recipe: {error.strerror or error}") from None
    except ValueError as error:  # TOML's, UTF-8's, or a whole number of more digits than Python reads
        raise SettingsError(f"{path}: not a TOML file: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: not a recipe: its lists are nested too deep") from None


def _value(key: str, kind: str, value: Any) -> Any:
    """A TOML value as the field's type."""
    if key == "expected":
        return value  # Recipe looks into it
    if key == "netlist" or kind == "str":
        if isinstance(value, str):
            return SPELLINGS.get(value, value) if key in _CHOICES else value
    elif kind.startswith("tuple"):
        if isinstance(value, list) and all(_is_number(x) for x in value):
            return tuple(_float(key, x) for x in value)
        if _is_number(value):
            return (_float(key, value),)
    elif kind == "int":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif _is_number(value):
        return _float(key, value)
    wanted = {"int": "a whole number", "str": "text"}.get(kind, "numbers" if kind.startswith("tuple") else "a number")
    raise SettingsError(f"{key} must be {'a file name' if key == 'netlist' else wanted}, found {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(key: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # TOML's whole numbers have no end
        raise SettingsError(f"{key} must be a number below 1e308, found a larger one") from None


def _are_errors(value: Any) -> bool:
    """Whether it is tables of percentages, test or train, by algorithm."""
    return isinstance(value, Mapping) and all(
        how in ALGORITHMS
        and isinstance(errors, Mapping)
        and all(part in ("test", "train") and _is_number(x) and 0 <= x <= 100 for part, x in errors.items())
        for how, errors in value.items()
    )


def override(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with the fields replaced that are not None here. A number of sweeps replaces a `tol`."""
    if changes.get("sweeps") is not None:
        if changes.get("tol") is not None:
            raise SettingsError("tol and sweeps exclude each other: with tol a phase ends when it is met; give one")
        recipe = replace(recipe, tol=None)
    return replace(recipe, **{key: value for key, value in changes.items() if value is not None})
