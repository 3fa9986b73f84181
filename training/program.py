"""What the training programs do, from options and data to a finished run. Large packages are imported on demand."""

from __future__ import annotations

import difflib
import math
import os
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from circuitsim.errors import BackendUnavailable, CircuitError, SettingsError
from circuitsim.io.commands import Ended, ending, handled, raised_by
from circuitsim.netlist.model import CROSSBAR
from training.options import Options, command_line, given, options_of, words

if TYPE_CHECKING:
    from circuitsim import Circuit
    from training.learner import Learner, Samples
    from training.metrics import Row
    from training.recipe import Recipe
    from training.record import Record
    from training.run import Run

LAST_VALUES = "last-values.npz"  # of a run that could not go on
_TOGETHER = {"epochs", "steps"}, {"sweeps", "tol"}  # of which one says what the other means
_NOT_TAKEN = ("out", "resume", "save_arrays")  # by a run that continues
_MOST_LINES = 100  # about: of many epochs not each has its line
_FEW_SAMPLES = 16  # of the test data, which show whether sweeps settle
_LEAST_BETWEEN = 50  # times what writing a checkpoint took: short epochs do not end with one each


@dataclass(frozen=True)
class Data:
    """The training data, and where they came from, for config.json."""

    train: Samples
    test: Samples
    facts: Mapping[str, Any]
    files: Sequence[Path]

    def with_classes(self, outputs: int) -> Data:
        """The data for so many outputs (Samples.with_classes)."""
        return replace(self, train=self.train.with_classes(outputs), test=self.test.with_classes(outputs))

    def limited(self, train: int | None, test: int | None) -> Data:
        """The data with at most so many samples of each set."""
        return replace(
            self,
            train=self.train if train is None else self.train.head(train),
            test=self.test if test is None else self.test.head(test),
        )


def taken_up(ctx: click.Context) -> click.Context:
    """The context of a run that continues: options that are not given are those in its config.json.

    Where the results of the run, or of what continues it, are written to is no such option. SettingsError for options
    in that file that the program has not, or that name files which are no longer there.
    """
    from training.recipe import find_recipe, override
    from training.record import CONFIG, options_in

    options = options_of(ctx)
    if options.resume is None:
        return ctx
    folder, checkpoint = _places(
        options, override(find_recipe(options.netlist, options.recipe), **options.changes).algorithm
    )
    path = (checkpoint or folder).parent / CONFIG
    command = click.Command(ctx.command.name, params=ctx.command.params, add_help_option=False)
    try:
        recorded = command.make_context(ctx.info_name, options_in(path))
    except click.UsageError as error:
        raise SettingsError(f"{path}: its options are not those of this program: {error.format_message()}") from None
    without = given(ctx).union(*(group for group in _TOGETHER if group & given(ctx)))
    taken = words(recorded, [*without, *_NOT_TAKEN])
    if not taken:
        return ctx
    for option, value in pairwise(taken):
        if Path(value).is_absolute() and not os.path.exists(value):  # noqa: PTH110  also where a name is too long
            raise SettingsError(
                f"{path}: the run was made with {option} {value}, which is not there now; give {option}"
            )
    click.echo(f"as {path} says: {shlex.join(taken)}")
    return ctx.command.make_context(ctx.info_name, [*taken, *words(ctx, out=folder)], obj=ctx.obj)


def _to_keep(ctx: click.Context) -> list[str]:
    """The options that are given, for config.json: those that `taken_up` takes, with paths that hold everywhere."""
    from training.recipe import names

    paths: dict[str, Any] = {
        name: ctx.params[name].absolute() for name in given(ctx) if isinstance(ctx.params[name], Path)
    }
    if "netlist" in given(ctx) and ctx.params["netlist"] not in names():
        paths["netlist"] = Path(ctx.params["netlist"]).absolute()
    return words(ctx, _NOT_TAKEN, **{name: path for name, path in paths.items() if name not in _NOT_TAKEN})


def train(program: str, ctx: click.Context, options: Options, read_data: Callable[[], Data]) -> Path:
    """A whole run, or the rest of one; returns the folder of its results.

    If interrupted, or when a function in `ctx.obj` says so, it saves a checkpoint and ends the program with exit code
    130, or 143 or 129 after SIGTERM or SIGHUP. `program` is the module's name, for the command line that continues.
    SettingsError, NetlistError and BackendUnavailable say what is wrong with the options, the data or the netlist;
    LearningError says why learning cannot continue.
    """
    from circuitsim.cli.common import busy
    from circuitsim.io.files import check_target
    from training.metrics import TensorBoard, need_tensorboard
    from training.recipe import find_recipe, override
    from training.record import Record

    if options.first and options.order != "sequential":
        raise click.UsageError("the first sample of an epoch can be chosen with --order sequential only")
    if options.save_arrays is not None:
        check_target(options.save_arrays)
    if options.tensorboard:
        need_tensorboard()
    as_given = find_recipe(options.netlist, options.recipe)
    recipe = override(as_given, **options.changes)
    folder, resume = _places(options, recipe.algorithm)
    record = Record(folder, resume)
    with busy("reading the netlist and the data", quiet=False):
        job = _prepare(options, recipe, read_data().limited(options.limit, options.test_limit))
    board = TensorBoard(folder / "tensorboard") if options.tensorboard else None
    _start(job, record, options, command_line(program, ctx), _to_keep(ctx))
    try:
        _advance(job, record, options.checkpoint_every, board.add if board else None, ctx.obj)
        _finish(job, record, options, command_line(program, ctx, without=["resume"]))
        _compare(job.run, as_given, recipe.algorithm)
        return folder
    except (KeyboardInterrupt, Ended) as error:
        handled(error)
        run, (text, code) = job.run, ending(error)
        click.echo(
            f"{text} after {run.done // job.recipe.batch_size:,} steps; continue with\n  "
            f"{command_line(program, ctx, out=folder, resume='')}",
            err=True,
        )
        ctx.exit(code)
    except CircuitError as error:
        if not job.run.done:  # a first step that fails leaves nothing to go on with
            record.discard()
        elif record.has_steps and not isinstance(error, BackendUnavailable):
            path = _write_last_values(job, record)
            init = shlex.join(["--init", str(path)])
            click.echo(f"the values of the last checkpoint are kept: {init} starts from them", err=True)
        raise
    finally:
        if board:
            board.close()


def _sources(job: _Job) -> int:
    """How many sources take the data."""
    return sum(stop - start for _, start, stop in map(job.circuit.rows_of, job.circuit.netlist.inputs))


def _inputs_text(job: _Job) -> str:
    """How a sample becomes the voltages, or currents, of the inputs."""
    circuit, train = job.circuit, job.data.train
    found = [circuit.rows_of(name) for name in circuit.netlist.inputs]
    features = train.features.shape[1]
    units = " or ".join({"V": "V", "I": "A"}[kind] for kind in dict.fromkeys(kind for kind, _, _ in found))
    size = f"{job.recipe.gain * train.scale:.10g} {units}"
    more = f", then {size} times the negated ones" if _sources(job) == 2 * features else ""
    return f"inputs: {size} times each of the {features} features{more}"


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3:,} more' if len(names) > 3 else ''}"


def _left_to_defaults(recipe: Recipe, trained: Sequence[tuple[str, bool]], given: Collection[str]) -> str:
    """The numbers that suit one netlist and not another, where neither a recipe nor an option gives them."""
    kinds = {is_conductance for _, is_conductance in trained}
    numbers = {
        "gain": f"{recipe.gain:g}",
        "conductance_rates": ", ".join(f"{rate:g}" for rate in recipe.conductance_rates) if True in kinds else "",
        "bias_rates": ", ".join(f"{rate:g}" for rate in recipe.bias_rates) if False in kinds else "",
        "nudge": f"{recipe.nudge:g} S" if recipe.algorithm == "ep" else "",
    }
    left = [f"{key.replace('_', ' ')} {text}" for key, text in numbers.items() if text and key not in given]
    return f"{', '.join(left)} are defaults" if left else ""


def _unsettled(job: _Job, circuit: Circuit) -> str:
    """A sentence where the learner's outputs for the first test samples are not those of the trained circuit."""
    from training.evaluate import evaluate
    from training.general import unsettled

    if job.recipe.tol is not None or job.learner.remark:  # which has said so at the start
        return ""
    count = min(_FEW_SAMPLES, len(job.data.test))
    found = evaluate(circuit, job.data.test.head(count), job.recipe.gain)
    y = job.learner.outputs(job.data.test, slice(0, count))
    return unsettled(y, found.outputs, job.recipe.sweeps) if found.solution.solved else ""


@dataclass(frozen=True)
class _Job:
    """All that a run needs."""

    recipe: Recipe
    circuit: Circuit  # as training finds it
    trained: list[tuple[str, bool]]  # name, is a conductance
    learner: Learner
    data: Data
    run: Run
    fingerprint: Mapping[str, Any]
    threads: int


def _places(options: Options, algorithm: str) -> tuple[Path, Path | None]:
    """The folder of the run, and the checkpoint to go on from."""
    from training.checkpoint import NEWEST

    checkpoint = Path(options.resume) if options.resume else None
    if checkpoint is not None and checkpoint.is_dir():
        checkpoint /= NEWEST
    if options.out is not None:
        folder = options.out
    elif checkpoint is not None:
        folder = checkpoint.parent
    else:
        seed = "" if options.seed is None else f"-seed{options.seed}"
        folder = Path("runs", f"{Path(options.netlist).stem}-{algorithm}{seed}")
    if options.resume is None:
        return folder, None
    return folder, checkpoint or folder / NEWEST


def _prepare(options: Options, recipe: Recipe, data: Data) -> _Job:
    """Netlist, learner, run, and the fingerprint of what cannot change when a run goes on."""
    from circuitsim import load
    from circuitsim.backends.cpu import cores
    from circuitsim.cli.common import check_targets, print_warnings
    from circuitsim.io.output import warning_texts
    from training.network import ready_learner, trained_kinds, within_window
    from training.recipe import recipe_keys, recipe_path
    from training.record import circuit_digest, file_digest, samples_digest, with_initial_values
    from training.run import Run, Schedule
    from training.table import check_columns

    schedule = Schedule(
        len(data.train),
        recipe.batch_size,
        recipe.epochs,
        options.steps,
        options.order == "shuffled",
        options.first,
    )
    circuit = load(recipe.netlist, seed=options.seed)
    others = (options.init, recipe_path(options.netlist, options.recipe))
    check_targets(circuit, [options.save_arrays], [*data.files, *filter(None, others)])
    print_warnings(warning_texts(circuit.notes))
    for samples in (data.train, data.test):
        check_columns(circuit, samples)
    data = data.with_classes(len(circuit.netlist.outputs))
    trained = trained_kinds(circuit)
    recipe.rates(trained, 0)  # finds another number of rates before anything is written
    file = recipe_path(options.netlist, options.recipe)
    chosen = recipe_keys(file) | {key for key, value in options.changes.items() if value is not None}
    if defaults := _left_to_defaults(recipe, trained, chosen):
        what = f"{file} does not give all" if file else f"{options.netlist} has no recipe"
        print_warnings([f"{what}: {defaults}; {'add them to it' if file else 'put one beside it, or give --recipe'}"])
    netlist = circuit_digest(circuit)
    left: list[str] = []
    unknown: list[str] = []
    if options.init is not None:
        circuit, left, unknown = with_initial_values(circuit, trained, options.init)
    circuit, outside = within_window(circuit, recipe)
    if outside and options.resume is None:
        window = f"g_min, {recipe.g_min:g} S, to g_max, {recipe.g_max:g} S"
        print_warnings([f"{outside:,} initial conductances were outside {window} and have been clipped"])
    if left and options.resume is None:
        near = next((x for name in left for x in difflib.get_close_matches(name, unknown, 1)), None)
        meant = f" (is {near} one of them?)" if near else ""
        print_warnings([f"--init {options.init} has no values for {_some(left)}{meant}; they start from the netlist's"])
    fingerprint = {
        "netlist": netlist,
        "init": None if options.init is None else file_digest(options.init),
        **{key: value for key, value in recipe.table().items() if key not in ("netlist", "epochs", "expected")},
        "seed": options.seed,
        "order": options.order,
        "first": options.first,
        "training samples": len(data.train),
        "training data": samples_digest(data.train),
        "test data": samples_digest(data.test),
    }
    threads = options.threads or cores()
    learner = ready_learner(circuit, recipe, options.backend, threads, (data.test, data.train))
    if learner.remark:
        print_warnings([learner.remark], "docs/training.md says more")
    run = Run(learner, data.train, data.test, schedule, partial(recipe.rates, trained), options.seed or 0)
    return _Job(recipe, circuit, trained, learner, data, run, fingerprint, threads)


def _start(job: _Job, record: Record, options: Options, command: str, kept: Sequence[str]) -> None:
    """Take up a checkpoint, or make the first one; the configuration, with the options to be kept; say what is to be
    done."""
    from training.record import file_digest

    run, recipe = job.run, job.recipe
    checkpoint = record.load(job.fingerprint)
    if checkpoint is not None:
        run.restore(checkpoint)
        record.write_metrics(run.results)  # a kill may have come between checkpoint and metrics
    else:
        record.save(run.checkpoint(job.fingerprint))  # from here on a run can be gone on with
    config = {
        "recipe": recipe.table(),
        "netlist": {"path": str(recipe.netlist.resolve()), "sha256": file_digest(recipe.netlist)},
        "seed": options.seed,
        "backend": options.backend,
        "threads": job.threads,
        "order": options.order,
        "first": options.first,
        "steps": options.steps,
        "init": None if options.init is None else {"path": str(options.init), "sha256": job.fingerprint["init"]},
        "data": {**job.data.facts, "training_samples": len(job.data.train), "test_samples": len(job.data.test)},
        "options": kept,
    }
    record.write_config(config, command)
    done = f", continuing after {run.done // recipe.batch_size:,}" if run.done else ""
    click.echo(
        f"{options.netlist}: {recipe.algorithm}, {job.learner.dtype}, {job.learner.path}, "
        f"{run.schedule.total // recipe.batch_size:,} steps of {recipe.batch_size} samples{done}; "
        f"results in {record.folder}"
    )
    columns, sources = len(job.data.train.columns[0]), _sources(job)
    if sources == 2 * columns:  # a column that was left out by mistake would go unnoticed
        drive = "1 column drives" if columns == 1 else f"{columns} columns drive"
        click.echo(f"{drive} {sources} sources: the second half gets the negated values")


def _advance(
    job: _Job,
    record: Record,
    every: float,
    note: Callable[[Any], None] | None,
    stop: Callable[[], bool] | None,
) -> None:
    """Train to the end: checkpoints, metrics, a line for each epoch. After a signal Interrupted or Ended, all saved."""
    from training.live import interrupts, progress
    from training.metrics import row_text

    run = job.run
    saved, took = time.perf_counter(), 0.0
    with interrupts(stop) as asked, progress(run) as shown:
        for row in run.advance():
            shown.update()
            number = asked()  # once: what is asked from here on comes after the next chunk, and is saved there
            ends = row is not None and run.done == run.schedule.total
            due = _LEAST_BETWEEN * took if row is not None else every
            if ends or number or time.perf_counter() - saved >= due:
                clock = time.perf_counter()
                record.save(run.checkpoint(job.fingerprint))
                saved = time.perf_counter()
                took = saved - clock
            if row is not None:
                record.write_metrics(run.results)
                if note:
                    note(row)
                if row.epoch % max(1, job.recipe.epochs // _MOST_LINES) == 0 or run.done == run.schedule.total:
                    shown.line(row_text(row, job.recipe.epochs))
            if number:
                raise raised_by(number)
        if number := asked():  # during the last of it
            raise raised_by(number)


def _finish(job: _Job, record: Record, options: Options, command: str) -> None:
    """The results: arrays, trained netlist, metrics, learning curve."""
    from circuitsim.cli.common import print_warnings
    from training.metrics import reached
    from training.record import array_keys, save_arrays

    run, recipe = job.run, job.recipe
    values = job.learner.values()
    if options.save_arrays is not None:
        keys = array_keys(job.trained)
        arrays: dict[str, Any] = {keys[name]: value for name, value in values.items()}
        if run.last_step is not None:
            arrays |= {f"free{k}": state for k, state in enumerate(job.learner.free_state(), 1)}
            arrays["cost"] = run.last_step.cost / run.last_step.samples
        save_arrays(options.save_arrays, arrays)
    last = run.results[-1]
    epochs = f"{last.epoch:,} epoch{'s' * (last.epoch != 1)}"
    remarks = [
        f"trained with {command}",
        f"on {last.examples:,} samples ({len(job.data.train):,} in the data, {epochs}): {reached(last)}",
        _inputs_text(job),
    ]
    expected = recipe.expected.get(recipe.algorithm, {})
    title = f"{record.folder.name}: {recipe.algorithm}, {reached(last)}"
    circuit = job.circuit.with_values(values)
    if names := [name for name, is_conductance in job.trained if is_conductance]:
        now, first = (_extent(c, names, recipe.window) for c in (circuit, job.circuit))
        least = f"at g_min, {recipe.g_min:.3g} S" if recipe.g_min else "0 S"
        upper = f"{now.high:,} at g_max, {recipe.g_max:.3g} S (at first {first.high:,}), " * math.isfinite(recipe.g_max)
        click.echo(
            f"conductances: {now.low:,} of {now.size:,} are {least} (at first {first.low:,}), {upper}the largest is "
            f"{now.largest:.3g} S (at first {first.largest:.3g} S)"
        )
    missing = record.write_results(circuit, run.results, remarks, expected, title)
    if missing:
        click.echo(missing, err=True)
    doubts = _in_vain(run.rows, [is_conductance for _, is_conductance in job.trained]), _unsettled(job, circuit)
    print_warnings([doubt for doubt in doubts if doubt])


def _in_vain(rows: Sequence[Row], conductances: Sequence[bool]) -> str:
    """What to doubt where the last whole epoch cost as much as the first, or more, but for no cost at all.

    `conductances`: of each that learns, whether it is a conductance, and not a source.
    """
    if len(rows) < 2 or rows[-1].train_cost < rows[0].train_cost or rows[-1].train_cost == 0:
        return ""
    rates = " and ".join(
        ["--bias-rates", "--conductance-rates"][kind] for kind in sorted({*conductances}, reverse=True)
    )
    first, last = rows[0].train_cost, rows[-1].train_cost
    if last == first:
        return f"the training cost has not fallen from {first:.4g} V^2: larger {rates}?"
    return f"the training cost rose from {first:.4g} to {last:.4g} V^2: smaller {rates}?"


class _Extent(NamedTuple):
    """Of some conductances: how many, how many at the lower and at the upper end of the window, and the largest, S."""

    size: int
    low: int
    high: int
    largest: float


def _extent(circuit: Circuit, names: Sequence[str], window: tuple[float, float]) -> _Extent:
    siemens = circuit.element_values("R")
    found = []
    for name in names:
        kind, start, stop = circuit.rows_of(name)
        g = circuit.crossbars[start].g if kind == CROSSBAR else siemens[start:stop]
        found.append((g.size, *(int((g == end).sum()) for end in window), float(g.max())))
    *counts, largest = zip(*found, strict=True)
    size, low, high = map(sum, counts)
    return _Extent(size, low, high, max(largest))


def _write_last_values(job: _Job, record: Record) -> Path:
    """The trained values of the newest checkpoint, for --init; where they were written."""
    from training.record import array_keys, save_arrays

    checkpoint = record.newest(job.fingerprint)
    job.learner.restore(checkpoint.arrays)
    keys, path = array_keys(job.trained), record.folder / LAST_VALUES
    save_arrays(path, {keys[name]: value for name, value in job.learner.values().items()})
    return path


def _compare(run: Run, given: Recipe, algorithm: str) -> None:
    """A line that compares with what the recipe expects, if it does."""
    expected = given.expected.get(algorithm)
    if expected and run.of_classes:
        last = run.results[-1]
        wanted = ", ".join(f"{name} error {percent:.2f} %" for name, percent in expected.items())
        click.echo(
            f"test error {last.test_error:.2f} %, train error {last.train_error:.2f} % after "
            f"{last.examples / run.schedule.epoch_samples:.4g} epochs; expected after {given.epochs}: {wanted}"
        )
