"""Reading and writing of ngspice's raw files: the results of analyses by name, binary or ASCII.

A plot consists of header lines `key: value`, its variables by number, name and type, and its points, each with a value
of every variable. Names are ngspice's, in lower case: `v(out)`, `i(v1)`, `i(@r1[i])`, `@r1[p]`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitsim import __version__
from circuitsim.errors import CircuitError, SettingsError
from circuitsim.io.files import replacing

Floats = NDArray[np.float64]

_COMMAND = f"version ngspice raw file by circuitsim {__version__}"  # spicelib looks for `ngspice`
_NUMBERS = 1_000_000  # turned into text at a time


class NgspiceError(CircuitError):
    """ngspice is missing, was too slow, or gave no usable result, or a raw file is damaged; the message says which."""


@dataclass(frozen=True)
class Plot:
    """The results of one analysis."""

    name: str  # `Operating Point`, `DC transfer characteristic`
    variables: tuple[tuple[str, str], ...]  # (name, type: voltage, current); in a sweep, the swept variable first
    values: Floats  # (points, variables), V or A

    def column(self, name: str) -> Floats:
        """All points of one variable, (points,). NgspiceError when there is no variable of this name."""
        names = [known for known, _ in self.variables]
        if name not in names:
            raise NgspiceError(f"no variable '{name}' in the plot '{self.name}'; there are {', '.join(names[:8])} ...")
        return self.values[:, names.index(name)]


def write_raw(path: str | Path, plots: Sequence[Plot], *, title: str = "", ascii: bool = False) -> None:
    """Write plots to one raw file that ngspice's `load` and spicelib read; the file appears whole or not at all.

    Binary: little-endian float64, all variables of a point together. ASCII: 17 digits, which restore the same bits.
    Raises SettingsError when the file cannot be written.
    """
    with replacing(Path(path), "wb") as out:
        for plot in plots:
            out.write(_header(plot, title, "Values" if ascii else "Binary").encode())
            if ascii:
                out.writelines(_text(plot.values))
            else:
                out.write(np.ascontiguousarray(plot.values, "<f8").data)


def _header(plot: Plot, title: str, form: str) -> str:
    """The header; `Command:` follows `No. Points:`, as in files of ngspice 44 and later."""
    points, n = plot.values.shape
    lines = [f"Title: {' '.join(title.split())}", f"Date: {time.asctime()}", f"Plotname: {plot.name}", "Flags: real"]
    lines += [f"No. Variables: {n}", f"No. Points: {points}", f"Command: {_COMMAND}", "Variables:"]
    lines += [f"\t{k}\t{name}\t{what}" for k, (name, what) in enumerate(plot.variables)]
    return "\n".join([*lines, f"{form}:\n"])


def _text(values: Floats) -> Iterator[bytes]:
    """For each point a line with its number and first value, a line for each further value, and an empty line."""
    step = max(1, _NUMBERS // max(values.shape[1], 1))
    for first in range(0, values.shape[0], step):
        rows = values[first : first + step].tolist()
        points = ["\n\t".join([f"{x:.16e}" for x in row]) for row in rows]
        yield "".join([f" {first + k}\t{point}\n\n" for k, point in enumerate(points)]).encode()


def read_raw(data: bytes) -> list[Plot]:
    """The plots in the bytes of a raw file: real numbers, binary (little-endian float64) or ASCII. NgspiceError.

    >>> header = b"Plotname: Operating Point\\nFlags: real\\nNo. Variables: 2\\nNo. Points: 1\\nVariables:\\n"
    >>> variables = b"\\t0\\tv(a)\\tvoltage\\n\\t1\\ti(v1)\\tcurrent\\n"
    >>> [plot] = read_raw(header + variables + b"Values:\\n0\\t2.0\\n\\t-0.5\\n")
    >>> plot.variables, plot.values
    ((('v(a)', 'voltage'), ('i(v1)', 'current')), array([[ 2. , -0.5]]))
    """
    if not isinstance(data, bytes | bytearray):
        raise SettingsError(f"read_raw takes the bytes of a file, Path('out.raw').read_bytes(), found {data!r}")
    plots = []
    start = 0
    while data[start:].strip():
        plot, start = _read_plot(data, start)
        plots.append(plot)
    return plots


def _read_plot(data: bytes, start: int) -> tuple[Plot, int]:
    """The plot whose header begins at byte `start`, and where the next one begins."""
    header: dict[str, str] = {}
    variables: list[tuple[str, str]] = []
    key = ""
    while start < len(data) and key not in ("Binary", "Values"):
        stop = data.find(b"\n", start)
        stop = stop if stop >= 0 else len(data)
        line = data[start:stop].decode("utf-8", "replace")
        key, _, value = line.partition(":")
        if key == "Title" and header:  # an analysis without points has neither variables nor values
            break
        if line.startswith("\t"):
            words = line.split("\t")
            if len(words) < 4:
                raise NgspiceError(f"raw file: a variable has no name, or nothing says what it is: {line.strip()!r}")
            variables.append((words[2], words[3]))
        else:
            header[key] = value.strip()
        start = stop + 1
    name = header.get("Plotname", "")
    try:
        n_variables, n_points = int(header["No. Variables"]), int(header["No. Points"])
        if not 0 <= n_variables <= len(data) or n_points < 0:
            raise ValueError
    except (KeyError, ValueError):
        raise NgspiceError("not a raw file: its header has no numbers of variables and points") from None
    if "real" not in header.get("Flags", ""):
        raise NgspiceError(f"raw file: the plot '{name}' holds complex numbers, not a DC analysis")
    if n_points == 0:
        return Plot(name, tuple(variables), np.zeros((0, n_variables))), start
    if len(variables) != n_variables:
        raise NgspiceError(f"raw file: the plot '{name}' names {len(variables)} of its {n_variables} variables")
    read = _binary if key == "Binary" else _ascii
    values, start = read(data, start, n_points, n_variables)
    if values.size != n_points * n_variables:
        raise NgspiceError(f"raw file: the plot '{name}' ends after {values.size} of {n_points * n_variables} numbers")
    return Plot(name, tuple(variables), values.reshape(n_points, n_variables)), start


def _binary(data: bytes, start: int, points: int, variables: int) -> tuple[Floats, int]:
    stop = start + 8 * points * variables
    found = data[start:stop]
    return np.frombuffer(found, "<f8", len(found) // 8).astype(np.float64), stop


def _ascii(data: bytes, start: int, points: int, variables: int) -> tuple[Floats, int]:
    """For each point a line with its number and first value, then a line for each further value."""
    stop = data.find(b"Title:", start)
    stop = stop if stop >= 0 else len(data)
    lines = data[start:stop].decode("utf-8", "replace").splitlines()
    words = [line.split()[-1] for line in lines if line.strip()][: points * variables]
    try:
        return np.array([float(word) for word in words]), stop
    except ValueError as error:
        raise NgspiceError(f"raw file: not a value: {error}") from None
