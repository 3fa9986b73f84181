"""PySpice: ngspice as a shared library, and circuits to and from PySpice's objects. PySpice is an extra: `spice`.

The library runs in a process of its own (this file as a program), a new one for each deck: it keeps some memory of
every run, its crashes would end this program, and PySpice's messages about ngspice's version stay there.
"""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import io
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitsim.errors import BackendUnavailable, SettingsError

if TYPE_CHECKING:
    from circuitsim.circuit import Circuit
    from circuitsim.spice.ngspice import RawData

_VERSION = "circuitsim: version "  # begins the line of the child that has ngspice's
_LIBRARY = "NGSPICE_LIBRARY_PATH"  # the variable that names the shared library, PySpice's own


def run_pyspice(deck: str, *, options: str = "", timeout: float = 600) -> RawData:
    """Run a deck in ngspice's shared library through PySpice; results and errors are those of ngspice.run_ngspice.

    deck      the text of a netlist
    options   cards that are added at the end of the deck; they win over the deck's own
    timeout   seconds, up to ngspice.LONGEST

    Raises BackendUnavailable when PySpice or the library is missing, NgspiceError, SettingsError for the timeout.
    """
    from circuitsim.spice.ngspice import checked_run

    check_available()
    with tempfile.TemporaryDirectory(prefix="circuitsim-") as folder:
        netlist, raw = Path(folder, "deck.cir"), Path(folder, "deck.raw")
        cards = [line for line in deck.split("\n") if line.strip().lower() != ".end"]  # the library stops there
        netlist.write_text("\n".join([*cards, options, ".end\n"]), encoding="utf-8")
        done = _child([str(netlist), str(raw)], folder, timeout)
        data = raw.read_bytes() if raw.exists() else b""
    stdout, stderr = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    return checked_run(data, stdout, stderr, done.returncode)


@cache  # it does not change while a program runs
def version() -> str:
    """`PySpice 1.5 with ngspice-39`. Raises BackendUnavailable, also for a library that is none, and NgspiceError."""
    from circuitsim.spice.ngspice import VERSION_SECONDS

    check_available()
    with tempfile.TemporaryDirectory(prefix="circuitsim-") as folder:  # without a .spiceinit, which it would obey
        done = _child([], folder, VERSION_SECONDS)
    stdout, stderr = (stream.decode("utf-8", "replace").splitlines() for stream in (done.stdout, done.stderr))
    found = [line.removeprefix(_VERSION) for line in stdout if line.startswith(_VERSION)]
    if not found:
        why = stderr[-1] if stderr else f"exit code {done.returncode}"
        raise BackendUnavailable(
            f"PySpice cannot use the shared library {library()} ({_LIBRARY} can name another): {why}"
        )
    return f"PySpice {importlib.metadata.version('PySpice')} with ngspice-{found[0]}"


def check_available() -> None:
    """Raise BackendUnavailable, saying how to install it, when PySpice or the library is missing."""
    _check_package()
    if library() is None:
        raise BackendUnavailable("there is no shared library ngspice; Debian, Ubuntu: apt-get install libngspice0")


def _check_package() -> None:
    if importlib.util.find_spec("PySpice") is None:
        raise BackendUnavailable("PySpice is not installed: pip install 'circuitsim[spice]' (GPL-3)")


def library() -> str | None:
    """The name or path of ngspice's shared library, for the loader; None: there is none."""
    return os.environ.get(_LIBRARY) or ctypes.util.find_library("ngspice")


def _child(arguments: list[str], folder: str, timeout: float) -> subprocess.CompletedProcess[bytes]:
    from circuitsim.spice.ngspice import run_program

    command = [sys.executable, "-W", "ignore", __file__, *arguments]
    return run_program("PySpice", command, folder, timeout, {**os.environ, _LIBRARY: library() or ""})


# -- circuits ----------------------------------------------------------------------------------------------------------


def from_pyspice(circuit: Any) -> Circuit:
    """The Circuit of a PySpice circuit (PySpice.Spice.Netlist.Circuit), by its netlist; of a simulator with its
    temperatures. Raises NetlistError, SettingsError for what is neither.
    """
    from circuitsim.build import parse
    from circuitsim.netlist.tokens import shown

    title, _, cards = str(circuit).partition("\n")
    if not title.startswith(".title"):
        raise SettingsError(f"from_pyspice takes a circuit or simulator of PySpice, found {shown(repr(circuit))}")
    return parse(f"{title.removeprefix('.title').strip()}\n{cards}", "<PySpice>")


def to_pyspice(circuit: Circuit) -> Any:
    """A PySpice circuit with the same elements, by plain SPICE (flatten.py) and PySpice's own parser.

    Raises BackendUnavailable without PySpice, SettingsError for what its parser cannot read: perfect diodes,
    nonlinear resistors.
    """
    from circuitsim.law_kernels import Law
    from circuitsim.spice.flatten import flatten

    _check_package()
    if len(circuit.ideal_diodes) or len(circuit.netlist.tables["N"]) or (circuit.junctions.law == Law.PWL).any():
        raise SettingsError(
            "PySpice's parser reads neither perfect and piecewise-linear diodes nor nonlinear resistors (A and B "
            "elements); circuitsim flatten writes them for ngspice"
        )
    with _silent():
        from PySpice.Spice.Parser import SpiceParser

        text = io.StringIO()
        flatten(circuit, text)
        built = SpiceParser(source=text.getvalue()).build_circuit()
    options = [line for line in text.getvalue().splitlines() if line.startswith(".options")]
    built.raw_spice = "\n".join(options)  # which its parser drops
    return built


@contextmanager
def _silent() -> Iterator[None]:
    """Without what PySpice says of nodes whose names are words of Python, and of itself under a newer Python."""
    logger = logging.getLogger("PySpice")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


# -- the child ---------------------------------------------------------------------------------------------------------


def _main(arguments: list[str]) -> None:
    """Run the deck in the first file, and write the plots to the second; without files only say the version."""
    from PySpice.Spice.NgSpice.Shared import NgSpiceCommandError, NgSpiceShared

    spice = NgSpiceShared(0, send_data=False)
    print(f"{_VERSION}{spice.ngspice_version}")
    if not arguments:
        return
    deck, raw = arguments
    spice.load_circuit(Path(deck).read_text(encoding="utf-8"))
    with suppress(NgSpiceCommandError):  # a note about gmin stepping suffices; what came of it is in the plots
        spice.run()
    print(spice.stdout)
    print(spice.stderr, file=sys.stderr)
    spice.exec_command("set appendwrite")
    for name in reversed(spice.plot_names):
        if name != "const":
            spice.exec_command(f"setplot {name}")
            with suppress(NgSpiceCommandError):  # no values
                spice.exec_command(f"write {raw}")


if __name__ == "__main__":
    _main(sys.argv[1:])
