"""The package: one version, everything listed that must be in it, and a wheel that works outside the source tree."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import documented
import numpy as np
import pytest
import yaml

import circuitsim as cs
from circuitsim.spice.ngspice import ngspice_available

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


# -- what is written down ----------------------------------------------------------------------------------------------


def test_every_package_is_listed() -> None:
    listed = PROJECT["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.relative_to(ROOT).parts)
        for top in ("circuitsim", "training")
        for path in [ROOT / top, *(ROOT / top).rglob("*")]
        if path.is_dir() and any(path.glob("*.py"))
    }
    assert set(listed) == found | {"circuitsim.examples"} and listed == sorted(listed)


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"] and "version" not in PROJECT["project"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", cs.__version__)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest.group(1) == cs.__version__


def test_the_citation_names_this_and_the_paper() -> None:
    """The fields that the Citation File Format 1.2.0 requires; a paper as it is known."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"].startswith("circuitsim")
    assert citation["authors"] and citation["license"] == PROJECT["project"]["license"]
    paper = citation["references"][0]
    assert (paper["authors"][0]["family-names"], paper["year"]) == ("Scellier", 2024)
    assert paper["title"] == "A fast algorithm to simulate nonlinear resistive networks"
    assert paper["url"].endswith("2402.11674")


# -- the wheel ---------------------------------------------------------------------------------------------------------

LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist", "runs"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), cwd=folder / "source")
    return folder


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """A folder with the wheel unpacked as pip does it, without its dependencies, far from the source tree."""
    [wheel] = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    call(*pip, "--target", str(built / "site"), str(wheel), cwd=built)
    return built / "site"


def call(*command: str, cwd: Path, site: Path | None = None) -> str:
    """stdout of a command that must succeed; `site`: where its packages come from before all others."""
    return run_command(*command, cwd=cwd, site=site).stdout


def run_command(*command: str, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(site)} if site else {}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


@pytest.mark.slow
def test_what_the_distributions_hold(built: Path) -> None:
    [wheel], [source] = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.name == f"circuitsim-{cs.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        [metadata] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        assert f"\nVersion: {cs.__version__}\n" in archive.read(metadata).decode()
    every = {
        str(path.relative_to(ROOT))
        for top in ("circuitsim", "training")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    examples = {f"circuitsim/examples/{path.name}" for path in (ROOT / "netlists").iterdir() if path.is_file()}
    assert {"circuitsim/py.typed", "circuitsim/backends/kernels.cu", "training/recipes/drn-2h.toml"} <= every
    assert held == every | examples
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"Makefile", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", ".ci/run", "conftest.py"}
    wanted |= {"tests/test_package.py", "validation/suite.py", "netlists/valid/tanh.cir", "netlists/divider.cir"}
    assert wanted <= names and not [name for name in names if "__pycache__" in name]


@pytest.mark.slow
def test_the_installed_package_is_the_wheel_s(installed: Path, tmp_path: Path) -> None:
    where = (
        "import circuitsim, training; from circuitsim.io import examples; "
        "print(circuitsim.__file__, training.__file__, examples.FOLDER)"
    )
    found = [Path(word) for word in call(sys.executable, "-c", where, cwd=tmp_path, site=installed).split()]
    inside = [("circuitsim", "__init__.py"), ("training", "__init__.py"), ("circuitsim", "examples")]
    assert found == [installed.joinpath(*parts) for parts in inside]
    assert not (installed / "circuitsim" / "examples" / "valid").exists()


@pytest.mark.slow
def test_the_readme_s_commands_run_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Those of README.md that test_docs.py runs from the source tree, on files that a user has after the first here."""
    call(sys.executable, "-m", "circuitsim", "examples", "--all", "--to", "netlists", cwd=tmp_path, site=installed)
    run = [["circuitsim", "completion", "bash"]]
    for block in documented.blocks(ROOT / "README.md"):
        if block.title:
            (tmp_path / block.title).write_text(block.text)
        elif block.language == "console" and block.reason is None:
            run += [shlex.split(command, comments=True) for command, _ in documented.commands(block)]
    run = [words for words in run if can_run(words)]
    assert {words[1] for words in run} >= {"solve", "sweep", "view"} and ["python", "-m"] in [w[:2] for w in run]
    for words in run:
        program = words[1:] if words[0] == "python" else ["-m", *words]
        call(sys.executable, *program, cwd=tmp_path, site=installed)


def can_run(words: list[str]) -> bool:
    """Not so when it needs a program, or an extra, that is not here."""
    if words[1] == "compare":
        return ngspice_available()
    return words[1] != "plot" or find_spec("matplotlib") is not None


@pytest.mark.slow
def test_training_runs_from_the_wheel(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe finds its netlist, and the netlist its data, beside the installed package. The first process, which
    finds nothing compiled there, gets the same bits as those after it."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "compiled"))
    train = [sys.executable, "-m", "training.mnist", "--netlist", "drn-2h", "--limit", "40", "--test-limit", "20"]
    train += ["--epochs", "1", "--threads", "1"]
    trained = []
    for run in ("first", "second"):
        arrays = tmp_path / f"{run}.npz"
        done = run_command(*train, "--out", run, "--save-arrays", str(arrays), cwd=tmp_path, site=installed)
        assert "test error" in done.stdout and (tmp_path / run / "trained.cir").is_file()
        assert ("compiling the training step" in done.stderr) == (run == "first")
        with np.load(arrays) as file:
            trained.append({name: file[name].tobytes() for name in file.files})
    assert trained[0] == trained[1] and set(trained[0]) >= {"g1", "g2", "bias1"}
    find = (
        "from training.recipe import find_recipe, names; "
        "print(all(find_recipe(name).netlist.is_file() for name in names()))"
    )
    assert call(sys.executable, "-c", find, cwd=tmp_path, site=installed) == "True\n"
    call(sys.executable, "-m", "training.fit", "--netlist", "xor", "--epochs", "2", cwd=tmp_path, site=installed)
