"""The options that training programs share, and what they mean."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from circuitsim.io.commands import Command

FILES_HELP = (
    "The folder of a finished run has trained.cir (the trained netlist; the values of arrays in trained.npz), "
    "metrics.csv, learning-curve.png, config.json and checkpoint.npz."
)
EXIT_CODES = (
    "Exit codes: 0 done; 2 bad input or usage, or learning cannot continue; 3 not enough memory; 70 a defect of the "
    "program; 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP, a checkpoint saved."
)


class Number(click.ParamType):
    """A number, in volts or siemens say, with or without a SPICE suffix: 100u."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A float."""
        try:
            return float(value)
        except ValueError:
            pass
        from circuitsim import SettingsError
        from circuitsim.io.inputs import read_value

        try:
            return read_value(value.strip())
        except SettingsError as error:
            self.fail(str(error), param, ctx)


class Choice(click.Choice[str]):
    """One of some names, or another spelling of one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name."""
        from training.recipe import SPELLINGS

        return super().convert(SPELLINGS.get(value, value), param, ctx)


class Rates(click.ParamType):
    """Numbers with commas between them."""

    name = "X,X,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """A tuple of floats."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"'{value}' is not a number, or numbers with commas between them", param, ctx)


RECIPE_KEYS = (
    "algorithm", "epochs", "batch_size", "dtype", "gain", "sweeps", "tol", "nudge", "variant", "form",
    "conductance_rates", "bias_rates", "g_min", "g_max", "decay",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """The options given; None: as the recipe, or the netlist, says. The field names are those of the options."""

    netlist: str
    recipe: Path | None
    backend: str
    seed: int | None
    limit: int | None
    test_limit: int | None
    out: Path | None
    resume: str | None  # "": the newest checkpoint in the folder of the run
    order: str
    first: int
    steps: int | None
    init: Path | None
    save_arrays: Path | None
    threads: int | None
    tensorboard: bool
    checkpoint_every: float
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the recipe

    @classmethod
    def of(cls, **values: Any) -> Options:
        """From the parameters of a command, those of the recipe among them."""
        changes = {key: values.pop(key) for key in RECIPE_KEYS}
        return cls(**values, changes={key: value for key, value in changes.items() if value is not None})


def options_of(ctx: click.Context) -> Options:
    """The options of a training program; without --netlist, that of --recipe is trained. SettingsError as
    `named_netlist`."""
    values = {name: value for name, value in ctx.params.items() if name not in ("data", "test_data")}
    if values["recipe"] is not None and "netlist" not in given(ctx):
        from training.recipe import named_netlist

        values["netlist"] = named_netlist(values["recipe"]) or values["netlist"]
    return Options.of(**values)


class TrainingCommand(Command):
    """A program that trains."""

    memory_advice = "use a smaller batch or a smaller netlist"


def _is_number(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if math.isnan(value):
        raise click.BadParameter("'nan' is not a number of seconds", ctx, param)
    return value


def shared_options(netlist: str, first: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of every training program; `netlist` is the default, `first` the option that names a sample."""
    path = click.Path(path_type=Path)
    count = click.IntRange(min=1)
    choice = Choice
    options = [
        click.option(
            "--netlist", default=netlist, metavar="NAME|FILE",
            help=f"The netlist to train.  [default: the one that --recipe names; {netlist}]",
        ),
        click.option(
            "--recipe", type=path, metavar="FILE.toml",
            help="How to train it, and which netlist, unless --netlist names another.  [default: the netlist's]",
        ),
        click.option(
            "--algorithm",
            type=choice(["ep", "bp", "implicit"]),
            help="How gradients are found: equilibrium propagation; back-propagation through the sweeps (with --tol, "
            "as the adjoint); the adjoint (on layered netlists by as many sweeps, elsewhere at the state that the "
            "sweeps reach, or --tol).",
        ),
        click.option("--epochs", type=count, metavar="N", help="Passes over the training samples."),
        click.option("--batch-size", type=count, metavar="N", help="Samples in a step."),
        click.option(
            "--backend",
            type=choice(["auto", "cpu", "reference", "gpu"]),
            default="auto",
            show_default=True,
            help="Where to compute; reference is slow and simple.",
        ),
        click.option(
            "--dtype", type=choice(["float32", "float64"]),
            help="Precision of the sweeps; --tol always computes in float64.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            metavar="K",
            help="Draws the order of the samples, and the netlist's random values anew.  [default: 0 for the order, "
            "the netlist's own seed for its values]",
        ),
        click.option("--limit", type=count, metavar="N", help="Train on the first N samples only."),
        click.option("--test-limit", type=count, metavar="N", help="Test on the first N samples only."),
        click.option(
            "--out", type=path, metavar="DIR",
            help="Folder of the run.  [default: runs/NETLIST-ALGORITHM, and -seedK if given]",
        ),
        click.option(
            "--resume",
            is_flag=False,
            flag_value="",
            metavar="[FILE|DIR]",
            help="Continue from a checkpoint (a file, or the newest one in a folder; default --out); options that are "
            "not given are those in config.json beside it. Only --epochs, --steps, --backend and --threads may change; "
            "bit-identical results only if the last two do not.",
        ),
        click.option(
            "--order",
            type=choice(["shuffled", "sequential"]),
            default="shuffled",
            show_default=True,
            help="Order of the samples: shuffled anew for each epoch, or as in the file.",
        ),
        click.option(
            first, "first", type=click.IntRange(min=0), default=0, metavar="N", help="First of a sequential epoch."
        ),
        click.option("--steps", type=count, metavar="K", help="Stop after K steps in all, if not before."),
        click.option(
            "--init",
            type=path,
            metavar="FILE.npz",
            help="Initial values: keys g1, g2, ... (S) and bias1, bias2, ... (A, V) in the order of .train, g1_initial "
            "..., or element names. Elements without a key keep the netlist's values.",
        ),
        click.option(
            "--save-arrays",
            type=path,
            metavar="FILE.npz",
            help="At the end, write g1 ..., bias1 ..., and from the last step free1 ... (states of its free phase, V) "
            "and cost (mean over its batch, V^2).",
        ),
        click.option("--threads", type=count, metavar="N", help="CPU threads.  [default: all available cores]"),
        click.option("--tensorboard", is_flag=True, help="Also write TensorBoard files to the folder of the run."),
        click.option(
            "--checkpoint-every",
            type=click.FloatRange(min=0),
            callback=_is_number,
            default=30.0,
            show_default=True,
            metavar="SECONDS",
            help="Time between checkpoints, beside those at the end of each epoch.",
        ),
        click.option("--gain", type=Number(), metavar="X", help="Volts (or amperes) of an input of 1."),
        click.option("--sweeps", type=count, metavar="T", help="Sweeps of each phase."),
        click.option(
            "--tol", type=float, metavar="X", help="Solve phases to this relative KCL error, instead of --sweeps."
        ),
        click.option(
            "--nudge", type=Number(), metavar="BETA", help="Conductance that pulls the outputs to their targets, S."
        ),
        click.option(
            "--variant", type=choice(["centred", "positive", "negative"]),
            help="Sign of the nudge in EP; centred: both.",
        ),
        click.option(
            "--form", type=choice(["difference", "plain"]), help="How ep computes nudged phases on layered netlists."
        ),
        click.option(
            "--conductance-rates", type=Rates(),
            help="Learning rates of trained conductances, in .train order, or one for all.",
        ),
        click.option(
            "--bias-rates", type=Rates(), help="Learning rates of trained sources, in .train order, or one for all."
        ),
        click.option(
            "--g-min", type=Number(), metavar="S", help="Smallest conductance of trained elements.  [default: 0]"
        ),
        click.option(
            "--g-max", type=Number(), metavar="S",
            help="Largest conductance of trained elements; initial values are clipped to both bounds.  [default: inf]",
        ),
        click.option("--decay", type=float, metavar="X", help="Factor of all learning rates from epoch to epoch."),
    ]  # fmt: skip

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def command_line(program: str, ctx: click.Context, without: Sequence[str] = (), **more: Any) -> str:
    """The command line of a context, for a shell: its options but those of the names `without`, and `more`."""
    return shlex.join(["python", "-m", program, *words(ctx, without, **more)])


def words(ctx: click.Context, without: Sequence[str] = (), **more: Any) -> list[str]:
    """The options that are given in a context, but those of the names `without`, and `more`."""
    found: list[str] = []
    for option in ctx.command.params:
        name = option.name or ""
        if name in more:
            found += [option.opts[0], *_words(more[name])]
        elif name not in without and name in given(ctx):
            found += [option.opts[0], *_words(ctx.params[name])]
    return found


def given(ctx: click.Context) -> set[str]:
    """The names of the options that are given."""
    return {name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}


def _words(value: Any) -> list[str]:
    """What stands after an option's name: nothing after a flag."""
    if value is True or value == "":
        return []
    return [",".join(str(x) for x in value) if isinstance(value, tuple) else str(value)]


def is_folder(path: Path) -> bool:
    """Whether data are in a folder, as images are, and not in a file, as tables are."""
    try:
        return path.is_dir()
    except OSError:  # such as a name that is too long, which reading it reports
        return False
