"""`python -m training.study`: many runs of training.mnist or training.fit, for seeds and settings, in parallel."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import chdir, closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitsim.io.commands import BAD_INPUT, HELP_NAMES, INTERRUPTED, Command, Ended
from training import fit, mnist
from training.options import EXIT_CODES, RECIPE_KEYS, Options, is_folder, options_of

if TYPE_CHECKING:
    from training.recipe import Recipe

_LOG, _RESULT = "log.txt", "result.json"
_FIGURES = ("epoch", "examples", "train_cost", "train_error", "test_error", "test_cost", "seconds")  # of metrics.csv
_OURS = {"seed": "--seeds", "out": "--out, a folder for all runs", "threads": "--workers; a run has one thread"}
_NOT_HERE = {
    **_OURS,
    "resume": "nothing: a study always continues",
    "save_arrays": "trained.npz in the folder of a run",
}

_MOST_SEEDS = 10_000
_ENDED = (143, 129)  # exit codes after SIGTERM and SIGHUP

_EXAMPLES = f"""
\b
Examples:
  python -m training.study --seeds 1:5
  python -m training.study --netlist drn-xs --seeds 1:5 --vary nudge=0.5,1,2 --workers 8
  python -m training.study --seeds 1,2 --vary conductance_rates=0.004/0.008,0.006 --vary sweeps=4,8 --epochs 3
  python -m training.study --netlist my.cir --data fashion --seeds 1:10 --scheduler tcp://host:8786
  python -m training.study --netlist my.cir --data my.csv --vary gain=1,2

Every run is one of training.mnist, or of training.fit where --data is a table or the netlist has one built in (xor), in
a folder of its own in --out: OUT/nudge=0.5/seed1. Run the same command again to
continue: finished runs are not repeated, interrupted ones continue from their checkpoints, and more seeds or values
can be added. OUT/results.csv and OUT/results.json hold all finished runs, those of earlier commands too, and the spread
of each setting.

{EXIT_CODES} Code 2 also means that some run failed: the last lines say why, and log.txt in its folder has more, if it
began.
"""


@dataclass(frozen=True)
class Task:
    """A run: where, with what, and its command line."""

    folder: str
    varied: Mapping[str, str]
    seed: int
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of a run: its last line of metrics.csv; or why there is none."""

    figures: Mapping[str, float] | None
    fault: str = ""


class _Command(Command):
    memory_advice = "use fewer --workers, a smaller batch or a smaller netlist"


class _Seeds(click.ParamType):
    name = "A:B|A,B,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """`1:5` and `1,2,3,4,5` are the same."""
        if isinstance(value, tuple):
            return value
        try:
            if ":" in value:
                first, last = map(int, value.split(":"))
                seeds: Sequence[int] = range(first, min(last, first + _MOST_SEEDS) + 1)
            else:
                seeds = list(map(int, value.split(",")))
        except ValueError:
            self.fail(f"'{value}': write 1:5, or 1,2,7", param, ctx)
        if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            self.fail(f"'{value}': seeds are numbers from 0, each once", param, ctx)
        if len(seeds) > _MOST_SEEDS:
            self.fail(f"'{value}': more than {_MOST_SEEDS:,} seeds; take fewer", param, ctx)
        return tuple(seeds)


class _Vary(click.ParamType):
    name = "KEY=X,Y,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[str, ...]]:
        """A key of the recipe, and its values as text; `/` is the comma within one."""
        from training.recipe import SPELLINGS

        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        key, values = key.strip().replace("-", "_"), tuple(x.strip() for x in text.split(","))
        values = tuple(SPELLINGS.get(x, x) for x in values)
        if not equals or key not in RECIPE_KEYS:
            self.fail(f"'{value}': write KEY=X,Y with a KEY of {', '.join(RECIPE_KEYS)}", param, ctx)
        if not all(values) or len(set(values)) < len(values):
            self.fail(f"'{value}': each value once, with commas between them", param, ctx)
        return key, values


@click.command(cls=_Command, epilog=_EXAMPLES, context_settings={**HELP_NAMES, "ignore_unknown_options": True})
@click.option("--seeds", type=_Seeds(), default="1:3", show_default=True, help="Seeds to run for each setting.")
@click.option(
    "--vary", type=_Vary(), multiple=True, help="Vary a key of the recipe. Repeatable: all combinations are run."
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the study.  [default: runs/study-NETLIST]"
)
@click.option("--workers", type=click.IntRange(1, 1024), default=1, show_default=True, metavar="N", help="Processes.")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Use the workers of this Dask scheduler, tcp://HOST:PORT. Only use one that you trust. All workers "
    "must see this folder.",
)
@click.option(
    "--parquet", type=click.Path(path_type=Path), metavar="FILE.parquet", help="Also write all runs to this file."
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(
    seeds: tuple[int, ...],
    vary: tuple[tuple[str, tuple[str, ...]], ...],
    out: Path | None,
    workers: int,
    scheduler: str | None,
    parquet: Path | None,
    options: tuple[str, ...],
) -> None:
    """Train a netlist with several seeds and settings, in parallel; errors with mean and spread.

    OPTIONS are those of `python -m training.mnist`, or `training.fit` for tables, for all runs: --netlist, --data,
    --epochs, --limit ...
    """
    from circuitsim.cli.common import progress
    from circuitsim.io.files import check_target
    from circuitsim.io.parquet import check_parquet, write_columns
    from circuitsim.io.study import take_up
    from circuitsim.workers import check, run

    check(workers, scheduler)
    if parquet is not None:
        check_parquet()
        check_target(parquet)
    if len({key for key, _ in vary}) < len(vary):
        raise click.UsageError("--vary: each key once, with all its values")
    common = _parsed(options)
    for key, _ in vary:
        if common.changes.get(key) is not None:
            option = f"--{key.replace('_', '-')}"
            raise click.UsageError(f"{option} is given, and {key} varied: put it among the values instead")
    out = out or Path("runs", f"study-{Path(common.netlist).stem}")
    settings = [dict(zip([key for key, _ in vary], values, strict=True)) for values in product(*(v for _, v in vary))]
    facts = _facts(options, [key for key, _ in vary])
    _check_different(settings, options)
    tasks = [_task(out, varied, seed, options) for varied in settings for seed in seeds]
    take_up(out, facts, "--out")
    outcomes = {k: outcome for k, task in enumerate(tasks) if (outcome := _finished(task))}
    left = {k: task for k, task in enumerate(tasks) if k not in outcomes}
    if outcomes:
        click.echo(f"{len(outcomes)} of {len(tasks)} runs are done already", err=True)
    try:
        runs = run(_train, str(Path.cwd()), left, workers, scheduler)
        with progress("runs", len(tasks), False) as report, closing(runs):
            for k, found in runs:
                outcomes[k] = found
                _keep(tasks[k], found)
                click.echo(f"{tasks[k].folder}: {_said(found)}", err=True)
                report(len(outcomes), len(tasks))
    except (KeyboardInterrupt, Ended):
        click.echo(f"{len(outcomes)} of {len(tasks)} runs are done; run the same command again to continue", err=True)
        raise
    asked = [_row(tasks[k], outcomes[k]) for k in range(len(tasks)) if outcomes[k].figures]
    rows = _with_earlier(out, asked, settings)
    summary = [{"varied": varied, **_spread([r for r in rows if r["varied"] == varied])} for varied in settings]
    _write(out, rows, summary, [key for key, _ in vary])
    if parquet is not None:
        write_columns(_columns(rows, [key for key, _ in vary]), parquet)
    _print(summary, [key for key, _ in vary])
    faults = [k for k in range(len(tasks)) if not outcomes[k].figures]
    for k in faults:
        click.echo(f"error: {tasks[k].folder}: {outcomes[k].fault}", err=True)
    if faults:
        click.get_current_context().exit(BAD_INPUT)


# -- what is to be run -------------------------------------------------------------------------------------------------


def _program(arguments: Sequence[str]) -> tuple[str, click.Command]:
    """The program that these are options of, and how it is called: training.fit for tables, else training.mnist."""
    ctx = mnist.main.make_context(
        "python -m training.study", list(arguments), ignore_unknown_options=True, allow_extra_args=True
    )  # what training.fit alone has is left over
    data = ctx.params["data"]
    of_tables = fit.built_in(options_of(ctx).netlist).is_file() if data is None else not is_folder(data)
    return ("python -m training.fit", fit.main) if of_tables else ("python -m training.mnist", mnist.main)


def _context(arguments: Sequence[str]) -> click.Context:
    name, program = _program(arguments)
    return program.make_context(name, list(arguments))


def _parsed(arguments: Sequence[str]) -> Options:
    """Options of the program; UsageError for what is none, or means nothing in a study."""
    ctx = _context(arguments)
    for name, instead in _NOT_HERE.items():
        if ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} is not for a study; use {instead}")
    return options_of(ctx)


def _check_different(settings: Sequence[Mapping[str, str]], options: Sequence[str]) -> None:
    """UsageError for two settings that are one: 0.5 and 0.50; SettingsError for values that the recipe cannot have."""
    found: dict[str, Mapping[str, str]] = {}
    for varied in settings:
        recipe = repr(_recipe(_parsed([*options, *_as_options(varied)])))
        if recipe in found:
            one, other = (",".join(f"{k}={v}" for k, v in x.items()) for x in (found[recipe], varied))
            raise click.UsageError(f"--vary: {one} and {other} are the same setting; leave one out")
        found[recipe] = varied


def _recipe(asked: Options) -> Recipe:
    from training.recipe import find_recipe, override

    return override(find_recipe(asked.netlist, asked.recipe), **asked.changes)


def _as_options(varied: Mapping[str, str]) -> list[str]:
    return [word for key, value in varied.items() for word in (f"--{key.replace('_', '-')}", value.replace("/", ","))]


def _task(out: Path, varied: Mapping[str, str], seed: int, options: Sequence[str]) -> Task:
    """A run."""
    name = ",".join(f"{key}={value.replace('/', '+')}" for key, value in varied.items()) or "recipe"
    folder = out / name / f"seed{seed}"
    ours = ["--seed", str(seed), "--out", str(folder), "--threads", "1"]
    return Task(str(folder), dict(varied), seed, (*options, *_as_options(varied), *ours))


def _facts(options: Sequence[str], varied: Sequence[str]) -> dict[str, Any]:
    """What all runs of a study share, but seeds and what is varied."""
    from circuitsim import load
    from circuitsim.io.study import circuit_facts
    from training.record import file_digest

    asked = _parsed(options)
    recipe = _recipe(asked)
    return {
        **circuit_facts(load(recipe.netlist)),
        **{key: value for key, value in recipe.table().items() if key not in (*varied, "netlist", "expected")},
        "varied": sorted(varied),
        "init": None if asked.init is None else file_digest(asked.init),
        "data": _digests(options),
        **{key: getattr(asked, key) for key in ("backend", "limit", "test_limit", "order", "first", "steps")},
    }


def _digests(options: Sequence[str]) -> dict[str, str] | list[str]:
    """Of the data: of images by the names of their files, of tables in their order."""
    ctx = _context(options)
    if "test_data" not in ctx.params:
        return mnist.read_images(ctx.params["data"]).facts["sha256"]
    tables = fit.read_tables(options_of(ctx).netlist, ctx.params["data"], ctx.params["test_data"])
    return list(tables.facts["sha256"].values())


# -- a run -------------------------------------------------------------------------------------------------------------


def _train(home: str, task: Task) -> Outcome:
    """Run the program, or the rest of it, in this process; all that it says goes to log.txt."""
    from circuitsim.workers import unwanted

    told = io.StringIO()
    if not Path(home).is_dir():
        return Outcome(None, f"the worker does not see the folder {home}; work in one that all machines see")
    with chdir(home):
        folder = Path(task.folder)
        resume = _go_on(folder)
        with redirect_stdout(told), redirect_stderr(told):
            name, program = _program(task.arguments)
            code = program.main([*task.arguments, *resume], name, standalone_mode=False, obj=unwanted)
        if folder.is_dir():
            with (folder / _LOG).open("a", encoding="utf-8") as log:
                log.write(told.getvalue())
        if code in (INTERRUPTED, *_ENDED) and not unwanted():  # by a signal, and this process with it
            raise KeyboardInterrupt if code == INTERRUPTED else Ended(code - 128)
        if code:
            lines = [line for line in told.getvalue().splitlines() if line.strip()]
            return Outcome(None, lines[-1].removeprefix("error: ") if lines else f"exit code {code}")
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            last = list(csv.DictReader(file))[-1]
        return Outcome({name: float(last[name]) for name in _FIGURES})


def _go_on(folder: Path) -> list[str]:
    """The option that goes on from the newest checkpoint in the folder of a run that is not damaged.

    Nothing where there is none: what a run left there is removed, and it is done anew.
    """
    from training.checkpoint import NEWEST, PREVIOUS, is_damaged
    from training.record import CONFIG, METRICS, TRAINED

    for name in (NEWEST, PREVIOUS):
        if (folder / name).exists() and not is_damaged(folder / name):
            return ["--resume", str(folder / name)]
    for name in (NEWEST, PREVIOUS, CONFIG, METRICS, TRAINED):
        (folder / name).unlink(missing_ok=True)
    return []


def _keep(task: Task, outcome: Outcome) -> None:
    """result.json of a run that is finished."""
    from circuitsim.io.files import replacing

    if outcome.figures is not None:
        with replacing(Path(task.folder, _RESULT), "w") as out:
            out.write(_json({"varied": task.varied, "seed": task.seed, **outcome.figures}))


def _finished(task: Task) -> Outcome | None:
    """What came of a run before; None when it is not finished, or when that cannot be read."""
    row = _kept(Path(task.folder))
    same = row is not None and (row["varied"], row["seed"]) == (task.varied, task.seed)
    return Outcome({name: row[name] for name in _FIGURES}) if row and same else None


def _kept(folder: Path) -> dict[str, Any] | None:
    """The row of a run that was finished before, from result.json; None when that cannot be read."""
    try:
        found = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        varied = {str(key): str(value) for key, value in dict(found["varied"]).items()}
        task = Task(str(folder), varied, int(found["seed"]), ())
        return _row(task, Outcome({name: float(math.nan if found[name] is None else found[name]) for name in _FIGURES}))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _said(outcome: Outcome) -> str:
    from training.metrics import Row, reached

    f = outcome.figures
    if f is None:
        return f"failed: {outcome.fault}"
    figures: dict[str, Any] = {name: f[name] for name in _FIGURES}
    return f"{reached(Row(**figures))}, {f['seconds']:.0f} s"


# -- results -----------------------------------------------------------------------------------------------------------


def _row(task: Task, outcome: Outcome) -> dict[str, Any]:
    return {"varied": dict(task.varied), "seed": task.seed, "folder": task.folder, **(outcome.figures or {})}


def _with_earlier(out: Path, asked: Sequence[dict[str, Any]], settings: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Rows of this command and of earlier ones, by setting and seed; `settings` grows by those that were not asked for.

    Of a run that lies in two folders (keys in another order) there is one row.
    """
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    earlier = [_kept(path.parent) for path in sorted(out.glob(f"*/seed*/{_RESULT}"))]
    for row in (*asked, *earlier):
        if row is not None and row["varied"].keys() == settings[0].keys():
            if row["varied"] not in settings:
                settings.append(row["varied"])
            rows.setdefault((settings.index(row["varied"]), row["seed"]), row)
    return [rows[place] for place in sorted(rows)]


def _spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of some runs: how many; mean, sample standard deviation (None for one), least and largest of both errors, or of
    both costs where there are no classes.

    >>> _spread([{"test_error": 3.0, "train_error": 2.0}, {"test_error": 4.0, "train_error": 2.0}])["test_error"]
    {'mean': 3.5, 'std': 0.7071067811865476, 'min': 3.0, 'max': 4.0}
    """
    found: dict[str, Any] = {"runs": len(rows)}
    for name in _compared(rows):
        values = [row[name] for row in rows]
        if values:
            mean = math.fsum(values) / len(values)
            square = math.fsum((x - mean) ** 2 for x in values)
            std = math.sqrt(square / (len(values) - 1)) if len(values) > 1 else None
            found[name] = {"mean": mean, "std": std, "min": min(values), "max": max(values)}
    return found


def _compared(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The figures that settings are compared by."""
    costs = any(math.isnan(row["test_error"]) for row in rows)
    return ("test_cost", "train_cost") if costs else ("test_error", "train_error")


def _columns(rows: Sequence[Mapping[str, Any]], varied: Sequence[str]) -> dict[str, list[Any]]:
    """A column for each key that is varied, numbers where all are; then seed, figures, folder."""
    columns = {key: _numbers([row["varied"][key] for row in rows]) for key in varied}
    names = ("seed", *_FIGURES, "folder")
    counts = {name: [int(row[name]) for row in rows] for name in ("epoch", "examples")}
    return {**columns, **{name: [row[name] for row in rows] for name in names}, **counts}


def _numbers(values: list[str]) -> list[Any]:
    try:
        return [float(x) for x in values]
    except ValueError:
        return values


def _write(
    out: Path, rows: Sequence[Mapping[str, Any]], summary: Sequence[Mapping[str, Any]], varied: Sequence[str]
) -> None:
    """results.csv and results.json, each whole or not at all."""
    from circuitsim.io.files import replacing

    columns = _columns(rows, varied)
    with replacing(out / "results.csv", "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    with replacing(out / "results.json", "w") as file:
        file.write(_json({"settings": summary, "runs": rows}))


def _json(found: Mapping[str, Any]) -> str:
    """As JSON, which has no NaN: null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(x) for key, x in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [plain(x) for x in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps(plain(found), indent=1) + "\n"


def _print(summary: Sequence[Mapping[str, Any]], varied: Sequence[str]) -> None:
    from rich.text import Text

    from circuitsim.io.tables import console, new_table, print_whole

    costs = any("test_cost" in setting for setting in summary)
    what, form = ("cost, V^2", ".3g") if costs else ("error, %", ".2f")
    heads = [*varied, "runs", f"test {what}", "least", "most", f"train {what}"]
    table = new_table(*((head, True) for head in heads))
    for setting in summary:
        cells = [*(setting["varied"][key] for key in varied), str(setting["runs"])]
        if setting["runs"]:
            test, train = (setting[f"{part}_{'cost' if costs else 'error'}"] for part in ("test", "train"))
            cells += [_mean(test, form), f"{test['min']:{form}}", f"{test['max']:{form}}", _mean(train, form)]
        else:
            cells += [""] * 4
        table.add_row(*map(Text, cells))
    print_whole(table, console())


def _mean(figures: Mapping[str, float | None], form: str = ".2f") -> str:
    """Mean and spread: `3.34 ± 0.21`."""
    std = "" if figures["std"] is None else f" ± {figures['std']:{form}}"
    return f"{figures['mean']:{form}}{std}"


if __name__ == "__main__":
    main(prog_name="python -m training.study")
