"""What the commands share: options, reading, progress, warnings.

numpy, numba and rich are imported inside the commands: help and usage errors answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitsim.io.commands import NOT_SOLVED

if TYPE_CHECKING:
    from circuitsim import Circuit, SweepResult

MOST_WARNINGS = 10
_SOLVER = ("method", "backend", "dtype", "tol", "max_sweeps", "lenient", "strict")
EXIT_CODES = (
    "Exit codes: 0 solved (check, flatten: done); 2 bad netlist or usage; 3 not solved: no answer that meets its "
    "certificate; 70 a defect of circuitsim; 130 interrupted, 143 or 129 ended by SIGTERM or SIGHUP."
)

RUNS = click.IntRange(1, 10_000_000)  # analyses.MAX_POINTS, which would load NumPy for every `--help`
LENIENT = "Leave out, with a warning, islands into which sources drive a current that cannot flow out"


input_option = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a source, or an array of sources, in V or A, as its card would: m= multiplies it. VALUE: a SPICE number, "
    "@file.npy or @file.npz:key; a leading batch axis solves many inputs at once. Or @file.csv, with a line NAME,VALUE "
    "or NAME,VALUE,VALUE,... for each source. Repeatable.",
)


param_option = click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override a .param of the main netlist; VALUE is a SPICE number or an expression. Repeatable.",
)


seed_option = click.option(
    "--seed", type=int, metavar="S", help="Run number k draws with seed S + k.  [default: .options seed, or 0]"
)


def solver_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that solves: how, where, how exactly and how long. It gets them as `solver`.

    They are the arguments of circuitsim.Settings, which a command imports when it needs it.
    """

    @wraps(command)
    def with_solver(**given: Any) -> None:
        command(solver={name: given.pop(name) for name in _SOLVER}, **given)

    options = (
        click.option(
            "--method",
            type=click.Choice(["auto", "bcd", "newton"]),
            default="auto",
            show_default=True,
            help="Algorithm: block coordinate descent or Newton; auto takes the one that suits the circuit.",
        ),
        click.option(
            "--backend",
            type=click.Choice(["auto", "cpu", "reference", "gpu"]),
            default="auto",
            show_default=True,
            help="Where to compute; auto takes a GPU for large batches, reference is slow and simple.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float64", "float32"]),
            default="float64",
            show_default=True,
            help="Precision.",
        ),
        click.option(
            "--tol", type=float, metavar="X", help="Largest relative KCL error.  [default: 1e-9; 1e-5 with float32]"
        ),
        click.option(
            "--max-sweeps",
            type=int,
            default=100_000,
            show_default=True,
            metavar="N",
            help="Give up after N sweeps, or Newton steps.",
        ),
        click.option(
            "--lenient",
            is_flag=True,
            help=f"{LENIENT}; solve the rest.",
        ),
        click.option("--strict", is_flag=True, help="Treat a voltage or a current that is not unique as an error."),
    )
    return _with_options(with_solver, options)


def output_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that solves: what to give, and how."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of tables."),
        click.option(
            "--csv",
            "as_csv",
            is_flag=True,
            help="CSV on stdout: one column per .output node, or per node if there are none.",
        ),
        click.option(
            "--npz", type=click.Path(path_type=Path), metavar="OUT.npz", help="Also write everything to a numpy file."
        ),
        click.option(
            "--raw", type=click.Path(path_type=Path), metavar="OUT.raw", help="Also write a raw file, as ngspice does."
        ),
        click.option("--ascii", "as_ascii", is_flag=True, help="Write the raw file as text."),
        click.option(
            "--save",
            "saves",
            multiple=True,
            metavar="EXPR,...",
            help="Also give v(a,b), i(r1) of any element or array, @r1[p], alli, or all: every voltage, current and "
            "power; adds to .save. Repeatable.",
        ),
        click.option(
            "--quiet", "-q", is_flag=True, help="Only the voltages and saved values; no warnings, no progress."
        ),
    )
    return _with_options(command, options)


def _with_options(
    command: Callable[..., None], options: Sequence[Callable[[Callable[..., None]], Callable[..., None]]]
) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


def check_outputs(as_json: bool, as_csv: bool, as_ascii: bool, npz: Path | None, raw: Path | None) -> None:
    """Raise UsageError for options that do not go together, SettingsError for files that cannot be written."""
    from circuitsim.io.files import check_target

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other; choose one")
    if as_ascii and raw is None:
        raise click.UsageError("--ascii applies to the raw file; add --raw OUT.raw")
    for target in filter(None, (npz, raw)):
        check_target(target)


def check_points(dc: str | None, runs: int | None, seed: int | None) -> None:
    """Raise UsageError for options of a sweep, or of Monte Carlo runs, that do not go together."""
    if dc is not None and runs is not None:
        raise click.UsageError("--dc and --runs exclude each other; choose one")
    if seed is not None and runs is None:
        raise click.UsageError("--seed is for --runs")


def exit_if_failed(results: Sequence[SweepResult]) -> None:
    """Where points failed, say how many and why the first did, and end with exit code 3."""
    failed, total = sum(r.failed.size for r in results), sum(r.statuses.size for r in results)
    if failed:
        first = next(r for r in results if r.failed.size)
        k = int(first.failed[0])
        message = f"{failed} of {total} points failed; the first, {first.point(k)}: {first.messages[k]}"
        click.echo(f"error: {message}", err=True)
        click.get_current_context().exit(NOT_SOLVED)


def load(
    file: Path,
    quiet: bool = False,
    targets: Sequence[Path | None] = (),
    inputs: Sequence[str] = (),
    params: Sequence[str] = (),
    study: Path | None = None,
) -> Circuit:
    """Read a netlist, with its warnings. SettingsError as check_targets.

    inputs: texts NAME=@file, which will be read; params: texts NAME=VALUE.
    """
    return load_for(None, None, file, quiet, targets, inputs, params, study)[0]


def load_for(
    runs: int | None,
    seed: int | None,
    file: Path,
    quiet: bool = False,
    targets: Sequence[Path | None] = (),
    inputs: Sequence[str] = (),
    params: Sequence[str] = (),
    study: Path | None = None,
) -> tuple[Circuit, int | None]:
    """The same for so many Monte Carlo runs (None: none), and the seed of the first of these."""
    from circuitsim import load as read
    from circuitsim.build import load_for_runs
    from circuitsim.io.inputs import input_files
    from circuitsim.io.output import warning_texts

    with busy(f"reading {file}", quiet):
        if runs is None:
            circuit = read(file, params=_pairs(params))
        else:
            circuit, seed = load_for_runs(file, seed, _pairs(params))
    check_targets(circuit, targets, input_files(inputs), study)
    if not quiet:
        print_warnings(warning_texts(circuit.notes))
    return circuit, seed


def check_targets(
    circuit: Circuit, targets: Sequence[Path | None], read: Iterable[Path] = (), study: Path | None = None
) -> None:
    """SettingsError when a file to write is one that the netlist, or something else, reads, or another to write.

    `study`: a folder that keeps what is its own, and takes no other file.
    """
    from circuitsim.errors import SettingsError

    text = circuit.netlist.text
    files = [*(Path(path) for path, _, _ in text.source.scans), *text.data, *read]
    read_from = {file.resolve() for file in files}
    written: set[Path] = set()
    for target in filter(None, targets):
        if target.resolve() in read_from:
            raise SettingsError(f"cannot write {target}: it is an input file; choose another name")
        if study is not None and target.resolve().is_relative_to(study.resolve()):
            raise SettingsError(f"cannot write {target}: {study} is the folder of the study; choose another place")
        if target.resolve() in written:
            raise SettingsError(f"cannot write two results to {target}; choose another name for one")
        written.add(target.resolve())


def _pairs(params: Sequence[str]) -> dict[str, str]:
    """`r=1k` -> name and value. UsageError."""
    found: dict[str, str] = {}
    for text in params:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise click.UsageError(f"--param '{text}': write NAME=VALUE, such as r=1k")
        if name.lower() in map(str.lower, found):
            raise click.UsageError(f"--param: {name} is given twice")
        found[name] = value
    return found


@contextmanager
def progress(text: str, total: int, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; yields what is to be called with (done, ...)."""
    if total == 1 or not on_terminal(quiet):
        yield lambda done, _: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from circuitsim.io.tables import console

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done, _: bar.update(task, completed=done)


def after(before: int, report: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Report what is done after `before` points of earlier sweeps."""
    return lambda done, total: report(before + done, total)


@contextmanager
def busy(text: str, quiet: bool) -> Iterator[None]:
    """Show that something is under way, on a terminal only."""
    if not on_terminal(quiet):
        yield
        return
    from circuitsim.io.tables import console

    with console(stderr=True).status(text):
        yield


def on_terminal(quiet: bool = False) -> bool:
    """Whether to draw progress."""
    return not quiet and sys.stderr.isatty()


def print_warnings(texts: Sequence[str], more: str = "circuitsim check --json lists all") -> None:
    """The first few; `more` says where the others are."""
    for text in texts[:MOST_WARNINGS]:
        click.echo(f"warning: {text}", err=True)
    if len(texts) > MOST_WARNINGS:
        click.echo(f"... and {len(texts) - MOST_WARNINGS} more warnings; {more}", err=True)
