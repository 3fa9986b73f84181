"""Data flows one way: every module imports only from earlier layers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    "errors compiled blas", "graphs", "linear", "netlist", "law_kernels columns", "laws notebook",
    "models branches", "new_values",
    "circuit", "build",
    "units coloring shapes heat", "feasibility islands layout", "topology", "placement workers branch_sums",
    "drive copies overflow", "problem",
    "kcl stack", "residual", "currents backends", "uniqueness plot", "saved", "solution", "methods",
    "choosing", "solving",
    "sweeping", "__init__", "io gallery", "spice", "view", "cli", "__main__",
]  # fmt: skip
LAYER = {name: k for k, names in enumerate(LAYERS) for name in names.split()}
FILES = sorted((ROOT / "circuitsim").rglob("*.py"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Full names of the modules that a file imports anywhere, except for type checking only."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if is_module(name) else str(node.module) for name in names)


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def layer(name: str) -> int:
    part = name.split(".")[1] if "." in name else "__init__"
    assert part in LAYER, f"{name} stands in no layer"
    return LAYER[part]


def test_imports_go_backwards_along_the_layers() -> None:
    for path in FILES:
        own = module(path)
        for name in imports(path):
            if name.split(".")[0] == "circuitsim":
                same_package = name.split(".")[:2] == own.split(".")[:2]
                assert same_package or layer(name) < layer(own), f"{own} imports {name}"


@pytest.mark.parametrize("package", ["circuitsim", "training"])
def test_no_cycles(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    graph = nx.DiGraph((module(p), name) for p in files for name in imports(p) if name.startswith(f"{package}."))
    graph.remove_edges_from([edge for edge in graph.edges if edge[0] == edge[1]])
    assert graph.number_of_edges() > 0
    assert nx.is_directed_acyclic_graph(graph), nx.find_cycle(graph)


def test_the_simulator_knows_neither_training_nor_validation() -> None:
    for path in FILES:
        assert not {name.split(".")[0] for name in imports(path)} & {"training", "validation", "tests"}, path


def test_the_certificate_imports_no_solver() -> None:
    graph = nx.DiGraph((module(p), name) for p in FILES for name in imports(p) if name.startswith("circuitsim."))
    below = nx.descendants(graph, "circuitsim.residual")
    assert not {name for name in below if name.split(".")[1] in ("methods", "backends", "solving", "solution")}


PAGE = (ROOT / "docs" / "built.md").read_text(encoding="utf-8")


def test_the_page_names_every_module() -> None:
    folders = ["circuitsim", "circuitsim/linear", "circuitsim/methods", "training"]
    files = [path for folder in folders for path in (ROOT / folder).glob("*.py") if path.stem[:2] != "__"]
    packages = [path.parent for path in (ROOT / "circuitsim").glob("*/__init__.py")]
    assert len(files) > 60
    assert not {path.name for path in files if f"`{path.name}`" not in PAGE}
    assert not {path.name for path in packages if f"`{path.name}/`" not in PAGE}


@pytest.mark.parametrize("package", ["circuitsim", "training"])
def test_the_rows_of_the_page_are_an_order(package: str) -> None:
    section = PAGE.split(f"## {package}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    row_of = {name: k for k, row in enumerate(rows) for name in re.findall(r"`(\w+)(?:\.py|/)`", row)}
    assert len(row_of) > 15
    for path in sorted((ROOT / package).rglob("*.py")):
        own = module(path)
        parts = [name.split(".")[1] for name in (own, *imports(path)) if name.startswith(f"{package}.")]
        if own.count(".") and not parts[0].startswith("__"):
            assert all(row_of.get(part, -1) <= row_of[parts[0]] for part in parts), (own, parts)
