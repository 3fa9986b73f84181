"""Compiled code on disk: no two signatures share a file, whoever wrote it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FUNCTION = "from circuitsim.compiled import jit\n\n\n@jit()\ndef double(x):\n    return x + x\n"
# Two processes that have both read an empty index, as when they start together, save their signatures one after the
# other. Then each signature that the index knows must be the one in its file.
RACE = """
import numpy as np, sys
from unittest import mock
import doubles
kind = np.dtype(sys.argv[1])
cache = doubles.double._cache._cache_file
with mock.patch.object(cache, "_load_index", lambda: {}):
    doubles.double(np.ones(3, kind))
"""
USE = """
import numpy as np
import doubles
for kind in ("float32", "int64"):
    found = doubles.double(np.full(3, 1.5).astype(kind))
    assert found.dtype == kind and (found == 2 * np.full(3, 1.5).astype(kind)).all(), (kind, found)
"""


def run(folder: Path, code: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_two_processes_that_compile_at_once_do_not_mix_up_their_code(tmp_path: Path) -> None:
    (tmp_path / "doubles.py").write_text(FUNCTION)
    for kind in ("float32", "int64"):
        run(tmp_path, RACE, kind)
    files = [path.name for path in (tmp_path / "__pycache__").glob("*.nbc")]
    assert len(files) == 2, files
    run(tmp_path, USE)
    run(tmp_path, USE)
