"""Compiled code on disk: no two signatures share a file, whoever wrote it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import circuitsim as cs

NETLISTS = Path(__file__).parent.parent / "netlists"
FUNCTION = "from circuitsim.compiled import jit\n\n\n@jit()\ndef double(x):\n    return x + x\n"
# Two processes that have both read an empty index, as when they start together, save their signatures one after the
# other. Then each signature that the index knows must be the one in its file.
RACE = """
import numpy as np, sys
from unittest import mock
import doubles
kind = np.dtype(sys.argv[1])
double = doubles.double.compiled
cache = double._cache._cache_file
with mock.patch.object(cache, "_load_index", lambda: {}):
    double(np.ones(3, kind))
"""
USE = """
import numpy as np
import doubles
for kind in ("float32", "int64"):
    found = doubles.double.compiled(np.full(3, 1.5).astype(kind))
    assert found.dtype == kind and (found == 2 * np.full(3, 1.5).astype(kind)).all(), (kind, found)
"""


def run(folder: Path, code: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_that_compile_at_once_do_not_mix_up_their_code(tmp_path: Path) -> None:
    (tmp_path / "doubles.py").write_text(FUNCTION)
    for kind in ("float32", "int64"):
        run(tmp_path, RACE, kind)
    files = [path.name for path in (tmp_path / "__pycache__").glob("*.nbc")]
    assert len(files) == 2, files
    run(tmp_path, USE)
    run(tmp_path, USE)


def test_a_change_of_what_is_called_compiles_again_what_calls_it(tmp_path: Path) -> None:
    (tmp_path / "doubles.py").write_text(FUNCTION)
    (tmp_path / "twice.py").write_text(
        "from circuitsim.compiled import jit\nfrom doubles import double\n\n\n@jit()\ndef quadruple(x):\n"
        "    return double(double(x))\n"
    )
    use = "import numpy as np, twice\nassert twice.quadruple.compiled(np.ones(3)).tolist() == [{0}, {0}, {0}]"
    run(tmp_path, use.format(4.0))
    run(tmp_path, use.format(4.0))
    (tmp_path / "doubles.py").write_text(FUNCTION.replace("x + x", "x + x + 1"))
    run(tmp_path, use.format(7.0))


SQUARES = """
import numpy as np
import sys
from circuitsim.compiled import jit

@jit()
def square(x):
    return x * x

@jit(small=1000, whole=True)
def count(values):
    return values.size

@jit()
def sum_of_squares(values):
    total = 0.0
    for x in values:
        total += square(x)
    return total

assert sum_of_squares(np.arange(4.0)) == 14.0
assert "numba" not in sys.modules
assert count(np.ones(900)) == 900  # of whole numbers, and few enough as long as Numba is not loaded
assert "numba" not in sys.modules
assert sum_of_squares(np.ones(251)) == 251.0
assert "numba" in sys.modules
assert count(np.ones(250)) == 250 and "compiled" not in vars(count)
assert count(np.ones(900)) == 900 and count.compiled.signatures
assert sum_of_squares.compiled.signatures and square.compiled.signatures
assert sum_of_squares(np.arange(4.0)) == 14.0
"""
START = """
import sys
import circuitsim.cli as cli
try:
    cli.main(sys.argv[1:])
except SystemExit as done:
    assert not done.code
found = {"numpy", "numba"} & set(sys.modules)
assert found == (set() if "--help" in sys.argv else {"numpy"}), found
"""


FEW = """
import sys
import circuitsim.cli as cli
try:
    cli.main(sys.argv[1:])
except SystemExit as done:
    assert not done.code
names = ("numba", "networkx", "pyamg", "pandas", "matplotlib", "threadpoolctl", "concurrent.futures.thread",
         "scipy.linalg", "scipy.sparse.linalg", "scipy.sparse.csgraph", "scipy.optimize", "circuitsim.sweeping")
assert not [name for name in names if name in sys.modules], [name for name in names if name in sys.modules]
"""
LADDER = "ten nodes\nV1 n1 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\nRg{k} n{k + 1} 0 2k\n" for k in range(1, 10))


@pytest.mark.parametrize("options", [[], ["--json"], ["--csv"], ["--save", "all"]])
def test_a_small_circuit_is_solved_without_what_takes_long_to_load(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "ladder.cir").write_text(LADDER)
    run(tmp_path, FEW, "solve", "ladder.cir", *options)


@pytest.mark.parametrize("name", ["divider", "bridge_rectifier", "diode_or", "wheatstone", "zener"])
def test_small_examples_are_solved_without_it_too(name: str) -> None:
    run(NETLISTS, FEW, "solve", f"{name}.cir")


def test_small_work_is_left_to_python_and_numba_comes_with_the_first_large_one(tmp_path: Path) -> None:
    (tmp_path / "squares.py").write_text(SQUARES)
    run(tmp_path, "import squares")


@pytest.mark.parametrize("command", [["--help"], ["solve", "--help"], ["solve", "divider.cir"], ["solve", "zener.cir"]])
def test_a_command_loads_what_it_needs(command: list[str]) -> None:
    run(NETLISTS, START, *command)


def test_public_names_are_there_and_stay_what_they_are() -> None:
    """`solve` and `sweep` are functions, also once every module of the package is loaded."""
    for name in cs.__all__:
        assert getattr(cs, name).__name__ == name
        assert name in dir(cs)
    import circuitsim.cli

    assert callable(cs.solve) and callable(cs.sweep) and circuitsim.cli
    with pytest.raises(AttributeError, match="no attribute 'solv'"):
        cs.solv  # noqa: B018
