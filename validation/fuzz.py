"""Fuzzing: whatever bytes a netlist holds, the outcome is a solution whose equations hold, or an error of circuitsim.

    python -m validation.fuzz --minutes 10 [--engine hypothesis] [--seed 1] [--found FOLDER]

Two engines take turns: Hypothesis grows decks by a grammar and mutates the repository's own, atheris (libFuzzer)
changes bytes, lines and words, and keeps what reaches new code. Each deck goes the way of `circuitsim solve`: read,
solve with one of VARIANTS, certificate computed again, equations put to the test (equations.py), results as JSON, plain
SPICE. Anything but a result or a CircuitError is a fault, and so are warnings and more than SLOWEST seconds. The deck
of a fault is made small and kept in FOLDER beside what was said. Those of earlier runs are tried again first; what no
variant shows in several new processes goes to FORGOTTEN in FOLDER. Exit code 1 when there are any. Each turn of an
engine adds a line to RECORD in FOLDER: decks, seconds of the processor, faults; and so does each fault forgotten.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np

import circuitsim as cs
from circuitsim.currents import with_digits
from circuitsim.io.commands import Ended, ends_in_order
from circuitsim.io.output import Results, result_object, write_json
from circuitsim.residual import Check
from circuitsim.spice.flatten import flatten
from validation.equations import broken_equation
from validation.fuzz_decks import companions, seeds
from validation.measure import ROOT

VARIANTS = {
    "auto": cs.Settings(max_sweeps=200),
    "newton": cs.Settings("newton", max_sweeps=200),
    "bcd": cs.Settings("bcd", max_sweeps=500),
    "float32": cs.Settings(dtype="float32", max_sweeps=500),
    "lenient": cs.Settings(lenient=True, max_sweeps=200),
    "strict": cs.Settings(strict=True, max_sweeps=200),
}
ENGINES = ("hypothesis", "atheris")
RECORD = "runs.jsonl"
FORGOTTEN = "forgotten"
_RETRIES = 3  # processes in which a kept fault must not show
_COUNT = "count.txt"  # in the folder of a process: the decks that it has judged
SLOWEST = 20.0  # s of the processor for one deck: a busy machine makes none slow
_COMPILING = 600.0  # s, the same for a deck on whose way kernels are compiled
_MOST_ELEMENTS = 2000  # of an expanded deck: larger ones are refused, as those of 50,000,000 are otherwise
_SLICE = 150.0  # s: engines take turns
_SHRINKING = 30.0  # s for one fault
_GRACE = 15 * SLOWEST  # a process that hangs, in compiled code or waiting, for so long by the clock is ended


@dataclass(frozen=True)
class Fault:
    """What must not happen: where, in a word or two that tell faults apart, and what was said."""

    where: str
    said: str


class TooSlow(BaseException):
    """No Exception, so that nothing swallows it."""


def fault_of(path: Path, variant: str, seconds: float = SLOWEST) -> Fault | None:
    """Solve the deck in a file; None where the outcome is one that may be."""
    with warnings.catch_warnings(), _limited(seconds):
        warnings.simplefilter("error")
        try:
            return _outcome(path, VARIANTS[variant])
        except cs.CircuitError as error:
            return None if str(error).strip() else Fault("an error without a message", type(error).__name__)
        except TooSlow as error:
            return Fault(f"slow: {_place(error)}", f"more than {seconds:g} s\n{traceback.format_exc()}")
        except Exception as error:
            return Fault(f"{type(error).__name__}: {_place(error)}", traceback.format_exc())


def _outcome(path: Path, settings: cs.Settings) -> Fault | None:
    circuit = cs.load(path)
    solution = cs.solve(circuit, settings, raise_on_failure=False)
    if solution.solved:
        if not (reached := certificate(solution)) <= settings.tolerance:
            return Fault("certificate", f"{solution.message}, but computed again it is {reached:.3g}")
        if wrong := broken_equation(solution, settings.tolerance):
            return Fault(f"equations: {wrong.split()[0]}", wrong)
    results = Results(solution)
    write_json(result_object(results, solution.seconds), io.StringIO())
    flatten(circuit, io.StringIO())
    return None


def certificate(solution: cs.Solution) -> float:
    """The relative KCL violation, from problem and solution alone."""
    rows = slice(0, solution.batch)
    drive, x = with_digits(solution, solution.problem.drive(rows))
    with np.errstate(all="ignore"):
        return Check(solution.problem, drive, x).certificate().kcl_relative


def _place(error: BaseException) -> str:
    """The innermost function of circuitsim that was at work."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "circuitsim/" in f.filename]
    return f"{Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else "outside circuitsim"


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TooSlow after so much processor time, once Python is at work; refuse decks that expand without end."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    old = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        with mock.patch.multiple("circuitsim.netlist.deck", MAX_ELEMENTS=_MOST_ELEMENTS, MAX_CROSSBAR=_MOST_ELEMENTS):
            yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


@dataclass
class Workshop:
    """A folder with the files that decks include; judges decks there and keeps those of faults in `found`."""

    folder: Path
    found: Path
    count: int = 0
    known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.found.mkdir(parents=True, exist_ok=True)
        for path in companions():
            shutil.copy(path, self.folder)
        self.known |= {json.loads(path.read_text())["where"] for path in self.found.glob("*.json")}

    @property
    def deck(self) -> Path:
        """The deck that is being judged: what is left of a process that died."""
        return self.folder / "deck.cir"

    def fault_of(self, data: bytes, variant: str, seconds: float = SLOWEST) -> Fault | None:
        self.deck.write_bytes(data)
        return fault_of(self.deck, variant, seconds)

    def judge(self, data: bytes, seconds: float = SLOWEST) -> None:
        """Solve a deck with the variant that its bytes choose; keep it when that is a fault of a new kind."""
        variant = list(VARIANTS)[zlib.crc32(data) % len(VARIANTS)]
        self.count += 1
        (self.folder / _COUNT).write_text(str(self.count))
        fault = self.fault_of(data, variant, seconds)
        if fault is None or fault.where in self.known:
            return
        self.known.add(fault.where)
        self.keep(fault, variant, self.smallest(data, fault, variant))

    def keep(self, fault: Fault, variant: str, data: bytes) -> None:
        """Write the deck and what was said."""
        name = hashlib.sha256(fault.where.encode()).hexdigest()[:12]
        (self.found / f"{name}.cir").write_bytes(data)
        about = {"where": fault.where, "variant": variant, "said": fault.said}
        (self.found / f"{name}.json").write_text(json.dumps(about, indent=2) + "\n")
        print(f"FAULT {name} ({variant}): {fault.where}", flush=True)

    def smallest(self, data: bytes, fault: Fault, variant: str) -> bytes:
        """A deck of the same fault from which no line and no word can be taken away."""
        until = time.monotonic() + _SHRINKING
        for separator in (b"\n", b" ", b""):
            data = _without_parts(data, separator, lambda shorter: self._same(shorter, fault, variant), until)
        return data

    def _same(self, data: bytes, fault: Fault, variant: str) -> bool:
        seconds = 2.0 if fault.where.startswith("slow") else SLOWEST
        found = self.fault_of(data, variant, seconds)
        return found is not None and found.where == fault.where


def _without_parts(data: bytes, separator: bytes, keeps: Callable[[bytes], bool], until: float) -> bytes:
    """Leave out one part after another, halves first, as long as `keeps` says that it may be."""
    parts = data.split(separator) if separator else [data[k : k + 1] for k in range(len(data))]
    size = max(len(parts) // 2, 1)
    while size:
        at = 0
        while at < len(parts) and time.monotonic() < until:
            shorter = parts[:at] + parts[at + size :]
            if keeps(separator.join(shorter)):
                parts = shorter
            else:
                at += size
        size //= 2
    return separator.join(parts)


# -- engines -----------------------------------------------------------------------------------------------------------


def run_seeds(workshop: Workshop) -> None:
    """The repository's own decks, without a time limit: kernels are compiled on the way."""
    for data in seeds():
        workshop.judge(data, seconds=_COMPILING)


def run_hypothesis(workshop: Workshop, seconds: float, seed: int) -> None:
    """Judge decks that Hypothesis draws, until the time is over."""
    import hypothesis

    from validation.fuzz_decks import decks

    until = time.monotonic() + seconds
    settings = hypothesis.settings(
        max_examples=500,
        phases=[hypothesis.Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def drawn(data: bytes) -> None:
        if time.monotonic() < until:
            workshop.judge(data)

    while time.monotonic() < until:
        hypothesis.seed(seed)(settings(hypothesis.given(data=decks())(drawn)))()
        seed += 1


def run_slice(engine: str, seconds: float, seed: int, found: Path, corpus: Path) -> int:
    """Fuzz in a process of its own, so that one that dies or hangs is seen; gives the number of decks judged.

    What a deck does to a process is a fault as well: the deck is left in the folder.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = "validation.fuzz_bytes" if engine == "atheris" else "validation.fuzz"
        arguments = ["--slice", str(folder), "--found", str(found), "--seed", str(seed)]
        arguments += ["--minutes", str(seconds / 60), "--corpus", str(corpus)]
        command = [sys.executable, "-m", module, *arguments]
        said = folder / "said.txt"
        with said.open("wb") as out:
            process = subprocess.Popen(command, cwd=ROOT, stderr=out)
            died = _death(process, folder, seconds)
        if died and process.returncode != 1 and (folder / "deck.cir").exists():  # 1: this program's own fault
            fault = Fault(f"the process {died}", said.read_text(errors="replace")[-5000:])
            Workshop(folder, found).keep(fault, "unknown", (folder / "deck.cir").read_bytes())
        elif died:
            raise SystemExit(f"{engine} {died}: {said.read_text(errors='replace')[-5000:]}")
        count = folder / _COUNT
        return int(count.read_text() or 0) if count.exists() else 0


def _death(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> str:
    """Wait for the end; how it came when it is no good one, '' when it is."""
    until = time.monotonic() + seconds + 600.0  # seeds and compilation come first
    try:
        while process.poll() is None and time.monotonic() < until:
            deck = folder / "deck.cir"
            started = (folder / "started.txt").exists()
            if started and deck.exists() and time.time() - deck.stat().st_mtime > _GRACE:
                break
            time.sleep(0.5)
    finally:
        hung = process.poll() is None
        if hung:
            process.kill()
            process.wait()
    if hung:
        return "hung"
    return f"ended with {process.returncode}" if process.returncode else ""


def parser() -> argparse.ArgumentParser:
    """The options of this module and of fuzz_bytes."""
    parser = argparse.ArgumentParser("fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="time for all engines together")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--found", type=Path, default=ROOT / "build" / "fuzz", help="folder for decks that show a fault"
    )
    parser.add_argument("--corpus", type=Path, help="folder in which atheris keeps decks  [default: FOUND/corpus]")
    parser.add_argument("--slice", type=Path, help=argparse.SUPPRESS)  # what run_slice starts: its folder
    parser.add_argument("--again", type=Path, help=argparse.SUPPRESS)  # a kept fault: 0 when it is none any more
    return parser


def begin_slice(options: argparse.Namespace) -> Workshop:
    """The workshop of a process that run_slice started; the repository's decks are done."""
    workshop = Workshop(options.slice, options.found)
    run_seeds(workshop)
    (options.slice / "started.txt").touch()
    return workshop


def is_fault(kept: Path) -> bool:
    """Whether the deck beside a kept .json still is a fault, with its variant or any other."""
    first = json.loads(kept.read_text())["variant"]
    variants = sorted(VARIANTS, key=lambda variant: variant != first)
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder), kept.parent)
        data = kept.with_suffix(".cir").read_bytes()
        limits = (_COMPILING, SLOWEST)  # kernels are compiled first
        return any(workshop.fault_of(data, variant, seconds) for variant in variants for seconds in limits)


def forget_mended(found: Path) -> None:
    """Put away what earlier runs have kept and no new process shows any more, with a line in RECORD for each.

    What depends on state or time may show in one process and not in another; a process that dies shows it.
    """
    for kept in sorted(found.glob("*.json")):
        if any(_shows(kept) for _ in range(_RETRIES)):
            continue
        about = json.loads(kept.read_text())
        line = {"started": _now(), "circuitsim": cs.__version__, "forgotten": kept.stem, "processes": _RETRIES}
        _record(found, line | {"where": about["where"], "variant": about["variant"]})
        (found / FORGOTTEN).mkdir(exist_ok=True)
        for path in (kept.with_suffix(".cir"), kept):
            path.replace(found / FORGOTTEN / path.name)
        print(f"{kept.stem} is no longer a fault: {about['where']}", flush=True)


def _shows(kept: Path) -> bool:
    """Whether a kept fault shows in a new process."""
    command = [sys.executable, "-m", "validation.fuzz", "--again", str(kept.resolve())]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=_GRACE).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def main(arguments: list[str] | None = None) -> int:
    """Fuzz for the time given; 1 when there are faults."""
    options = parser().parse_args(arguments)
    if options.again:
        return int(is_fault(options.again))
    if options.slice:
        workshop = begin_slice(options)
        run_hypothesis(workshop, options.minutes * 60, options.seed)
        return 0
    engines = options.engine or list(ENGINES)
    if "atheris" in engines and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed, so bytes are not fuzzed: pip install -e '.[fuzz]' (Linux)", file=sys.stderr)
        engines.remove("atheris")
    try:
        with ends_in_order():
            return run_engines(options, engines)
    except Ended as error:
        print(f"ended by {signal.Signals(error.args[0]).name}", file=sys.stderr)
        return 128 + int(error.args[0])


def run_engines(options: argparse.Namespace, engines: list[str]) -> int:
    """Let the engines take turns, record each and print the sums; 1 when there are faults."""
    corpus = options.corpus or options.found / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    forget_mended(options.found)
    left, turns = options.minutes * 60, list[dict[str, Any]]()
    while engines and left > 0:
        engine, seed = engines[len(turns) % len(engines)], options.seed + 1000 * len(turns)
        part = min(left, _SLICE, options.minutes * 60 / len(engines))
        turns.append(_recorded(engine, part, seed, options.found, corpus))
        left -= part
    for engine in engines:
        own = [turn for turn in turns if turn["engine"] == engine]
        print(f"{engine}: {_sums(own)}")
    print(f"{_sums(read_record(options.found))}, in all that {options.found / RECORD} has")
    faults = sorted(options.found.glob("*.json"))
    print(f"{len(faults)} faults" + (f", in {options.found}" if faults else ""))
    return int(bool(faults))


def _recorded(engine: str, seconds: float, seed: int, found: Path, corpus: Path) -> dict[str, Any]:
    """A turn of an engine, and its line in RECORD."""
    started, clock, before = _now(), time.monotonic(), _cpu_seconds()
    known = set(found.glob("*.json"))
    decks = run_slice(engine, seconds, seed, found, corpus)
    turn = {
        "started": started, "circuitsim": cs.__version__, "engine": engine, "seed": seed,
        "decks": decks, "seconds": round(time.monotonic() - clock, 1), "cpu_seconds": round(_cpu_seconds() - before, 2),
        "faults": [json.loads(path.read_text())["where"] for path in sorted(set(found.glob("*.json")) - known)],
    }  # fmt: skip
    _record(found, turn)
    return turn


def _record(found: Path, line: Mapping[str, Any]) -> None:
    with (found / RECORD).open("a") as out:
        out.write(json.dumps(line) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_record(found: Path) -> list[dict[str, Any]]:
    """The turns of all runs that kept their faults in this folder; none without RECORD."""
    path = found / RECORD
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if "engine" in line]


def _sums(turns: Sequence[Mapping[str, Any]]) -> str:
    decks, seconds, cpu = (sum(turn[key] for turn in turns) for key in ("decks", "seconds", "cpu_seconds"))
    return f"{decks} decks in {seconds:.0f} s, {cpu / 3600:.2f} core-hours"


def _cpu_seconds() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
