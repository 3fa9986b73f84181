"""Netlist text -> cards -> Netlist. No physics."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from numpy.typing import ArrayLike

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.datafile import given_values
from circuitsim.netlist.expand import expand
from circuitsim.netlist.given import with_params
from circuitsim.netlist.model import ArrayRef, CrossbarCard, ModelCard, Netlist, Options, Table
from circuitsim.netlist.source import read_bytes, read_text
from circuitsim.netlist.tokens import shown

__all__ = ["ArrayRef", "CrossbarCard", "ModelCard", "Netlist", "Options", "Table", "parse_netlist", "read_netlist"]


Params = Mapping[str, float | str]


def read_netlist(path: str | Path, seed: int | None = None, params: Params | None = None) -> Netlist:
    """Read a netlist file. Raises NetlistError (file:line, element, what was found, the remedy).

    seed: for the random functions in its expressions; replaces `.options seed=`. SettingsError unless it is a whole
    number from 0 to 2^53.
    params: values that replace those of its `.param` cards (given.with_params). SettingsError for other names.
    """
    text = read_text(read_bytes(Path(path), None), str(path))
    return expand(with_params(text, params or {}, str(path)), str(path), seed)


def parse_netlist(
    text: str,
    name: str = "netlist",
    seed: int | None = None,
    params: Params | None = None,
    arrays: Mapping[str, ArrayLike] | None = None,
) -> Netlist:
    """Read a netlist from a string; its first line is the title. `name` replaces the file name in messages.

    seed, params: see read_netlist. arrays: values of `@NAME` in the text by NAME, in the place of files. NetlistError
    unless they are real, finite numbers, and named in the text.

    >>> parse_netlist("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k").nodes
    ['0', 'in', 'out']
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        found = f"U+{ord(text[error.start]):04X}"
        raise NetlistError(f"{found} is not valid UTF-8 text; remove it", At(name, line)) from None
    read = read_text(data, name)
    folder = Path(name).parent
    given = {(f"@{key}", folder): given_values(key, array) for key, array in (arrays or {}).items()}
    _check_used(given, [place for place in given if place[0] in text], name)
    netlist = expand(with_params(replace(read, arrays=given), params or {}, name), name, seed)
    _check_used(given, netlist.text.files, name)
    return netlist


def _check_used(given: Iterable[tuple[str, Path]], used: Container[tuple[str, Path]], name: str) -> None:
    for place in given:
        if place not in used:
            raise NetlistError(
                f"no element of {name} takes values from '{shown(place[0])}', for which there is an array"
            )
