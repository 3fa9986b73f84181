"""Runs ngspice as a separate program and reads the raw files that it writes.

Names in the results are ngspice's: lower case, each byte that is not ASCII as `_`; `v(out)` a node voltage, `i(v1)` the
current through a voltage source from its first node to its second, `v(d1#internal)` the node behind a diode's RS.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from circuitsim.errors import SettingsError
from circuitsim.io.raw import NgspiceError, Plot, read_raw

# Its tolerances in comparisons, as tight as it still converges (ngspice manual, .options)
RELTOL = 1e-9
ABSTOL = 1e-15  # A
VNTOL = 1e-12  # V
PIVREL = 0.1  # least pivot, of the largest entry of its column
GMIN = 1e-18  # S: it cannot do without, and then fails on blocked diodes

LONGEST = 1e6  # s: far beyond, the system's clocks overflow
VERSION_SECONDS = 60.0  # to say its version
MISSING = "ngspice is not on the PATH; install it (Debian, Ubuntu: apt-get install ngspice)"
_LOG_LINES = 12  # of ngspice's own words in an error message
_STATISTICS = re.compile(r"^\s*Total (analysis|elapsed) time.*", re.MULTILINE | re.DOTALL)
# hundreds of lines on the way to nowhere
_STEPS = re.compile(r"^\s*(Trying gmin|Supplies reduced|Note: One successful|Note: Starting|Warning: .*step)")
_ABORTED = "simulation(s) aborted"


@dataclass(frozen=True)
class RawData:
    """What a run of ngspice left: its plots, in the order of the raw file, and all that it printed."""

    plots: tuple[Plot, ...]
    stdout: str
    stderr: str


def ngspice_available() -> bool:
    """Whether a program `ngspice` is on the PATH."""
    return shutil.which("ngspice") is not None


def find_ngspice() -> str:
    """The path of the program `ngspice`. Raises NgspiceError when there is none."""
    program = shutil.which("ngspice")
    if program is None:
        raise NgspiceError(MISSING)
    return program


def tight_options(gmin: float = 0.0) -> str:
    """The card that makes ngspice as exact as it gets, for comparisons.

    With ngspice's own PIVREL of 1e-3 rounding can grow a thousandfold in a step of its elimination, and does so with
    controlled sources; with 1 it fails more often.
    `gmin`: what the deck has across each junction, S; 0 becomes GMIN.
    """
    return f".options reltol={RELTOL:g} abstol={ABSTOL:g} vntol={VNTOL:g} pivrel={PIVREL:g} gmin={gmin or GMIN!r}"


@cache  # it does not change while a program runs
def ngspice_version(program: str) -> str:
    """`ngspice-39.3` or the like, as the program at this path says itself; `ngspice` when it does not say.

    Raises NgspiceError when it cannot be started, or does not end.
    """
    done = run_program("ngspice --version", [program, "--version"], None, VERSION_SECONDS)
    found = re.search(rb"ngspice-[\w.+-]*\w", done.stdout)
    return found.group().decode() if found else "ngspice"


def check_timeout(seconds: float) -> None:
    """Raise SettingsError for an invalid time limit."""
    if not 0 < seconds <= LONGEST:
        raise SettingsError(f"a time limit of {seconds:g} s: it must be above 0 and at most {LONGEST:,.0f} s")


def run_program(
    name: str,
    command: Sequence[str],
    folder: str | Path | None,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program that errors call `name` to its end; its streams are kept. Neither it nor what it started (it may be
    a script) outlives an exception.

    Raises NgspiceError when it cannot be started or needs more than `timeout` seconds, SettingsError for a limit that
    is none.
    """
    check_timeout(timeout)
    nothing, kept = subprocess.DEVNULL, subprocess.PIPE
    try:
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdin=nothing, stdout=kept, stderr=kept, start_new_session=True
        ) as child:
            try:
                stdout, stderr = child.communicate(timeout=timeout)
            except BaseException:
                _kill(child)
                raise
        return subprocess.CompletedProcess(command, child.returncode, stdout, stderr)
    except subprocess.TimeoutExpired:
        raise NgspiceError(f"{name} took more than {timeout:g} s") from None
    except OSError as error:
        raise NgspiceError(f"{command[0]} cannot be started: {error.strerror or error}") from None


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a process, and on POSIX systems all of its session."""
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):  # it has ended; macOS
            os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()


def run_ngspice(deck: str | Path, *, options: str = "", timeout: float = 600) -> RawData:
    """Run a deck in batch mode, `ngspice -n -b -r`, with its files in a temporary folder.

    deck      the text of a netlist, or the path of one (whose includes are then looked up beside it)
    options   cards that are added at the end of the deck, such as tight_options(); they override the deck's own
    timeout   seconds, up to LONGEST

    Personal settings (.spiceinit) are not read. The exit code is ignored, as it proves nothing. Raises NgspiceError
    when ngspice is missing, cannot be started, takes too long, says that it aborted, or leaves an analysis without
    points; SettingsError for an invalid timeout.
    """
    program = find_ngspice()
    data = deck.read_bytes() if isinstance(deck, Path) else deck.encode()
    with tempfile.TemporaryDirectory(prefix="circuitsim-") as folder:
        netlist, raw = Path(folder, "deck.cir"), Path(folder, "deck.raw")
        netlist.write_bytes(data + f"\n{options}\n".encode())
        home = deck.resolve().parent if isinstance(deck, Path) else folder
        command = [program, "-n", "-b", "-r", str(raw), str(netlist)]
        done = run_program("ngspice", command, home, timeout)
        stdout, stderr = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
        data = raw.read_bytes() if raw.exists() else b""
    return checked_run(data, stdout, stderr, done.returncode)


def checked_run(raw: bytes, stdout: str, stderr: str, exit_code: int) -> RawData:
    """The results of a run, from the bytes of its raw file. Raises NgspiceError when there are none."""
    if _ABORTED in stderr:
        raise NgspiceError(f"ngspice aborted{_said(stdout, stderr)}")
    plots = tuple(read_raw(raw))
    if not plots or any(not plot.values.size for plot in plots):
        raise NgspiceError(f"ngspice gave no results (its exit code: {exit_code}){_said(stdout, stderr)}")
    return RawData(plots, stdout, stderr)


def operating_point(deck: str | Path, *, options: str = "", timeout: float = 600) -> dict[str, float]:
    """Node voltages, V, and source currents, A, of a deck with `.op`, by ngspice.

    Keys are lower case: `out` for v(out), and `i(v1)`; ground is not among them. Raises NgspiceError.
    """
    for plot in run_ngspice(deck, options=options, timeout=timeout).plots:
        if plot.name == "Operating Point":
            names = [_node(name) for name, _ in plot.variables]
            return dict(zip(names, plot.values[0].tolist(), strict=True))
    raise NgspiceError("ngspice computed no operating point; the deck needs a line .op")


def _node(name: str) -> str:
    """`v(out)` -> `out`; everything else as it is."""
    return name[2:-1] if name.startswith("v(") else name


def _said(stdout: str, stderr: str) -> str:
    """The last lines that ngspice printed, without its statistics."""
    text = stderr.strip() or _STATISTICS.sub("", stdout).strip()
    lines = [line for line in text.splitlines() if line.strip() and not _STEPS.match(line)][-_LOG_LINES:]
    return "; it said:\n    " + "\n    ".join(lines) if lines else ""
