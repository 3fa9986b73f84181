"""Every example of README.md and the documentation is run: commands and sessions print what the pages say; links from
README.md arrive. Notebooks are run by `make docs`."""

from __future__ import annotations

import doctest
import io
import re
import shlex
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click
import documented
import pytest
from click.testing import CliRunner

import circuitsim.netlist.cards as cards_module
import training.evaluate
import training.fit
import training.mnist
import training.study
from circuitsim import cli, models
from circuitsim.netlist import controls, expressions

DOCS = documented.ROOT / "docs"
README = documented.ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
SLOW = {"validation", "training", "studies", "pictures"}
PROGRAMS: dict[str, click.Command] = {
    "circuitsim": cli.main,
    "python -m training.mnist": training.mnist.main,
    "python -m training.fit": training.fit.main,
    "python -m training.evaluate": training.evaluate.main,
    "python -m training.study": training.study.main,
}
LANGUAGES = {"console", "pycon", "spice", "text", "ebnf", "toml", "csv"}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every page works in a folder of its own, with the example netlists, on 100 columns."""
    shutil.copytree(documented.ROOT / "netlists", tmp_path / "netlists", ignore=shutil.ignore_patterns("*valid"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in SLOW else []) for page in PAGES],
)
def test_examples_of_a_page(page: Path) -> None:
    names: dict[str, Any] = {}
    for block in documented.blocks(page):
        assert block.language in LANGUAGES, f"{page.name}:{block.line}: {block.language} is not tested; take console"
        if block.reason is not None:
            continue
        if block.title and block.language in ("spice", "csv"):
            Path(block.title).write_text(block.text)
        elif block.language == "console":
            check_console(block, page)
        elif block.language == "pycon":
            check_session(block, page, names)


def check_console(block: documented.Block, page: Path) -> None:
    for command, printed in documented.commands(block):
        match = re.fullmatch(r"(.*?)(?:\[exit code (\d+)\]\n)?", printed, re.DOTALL)
        assert match is not None
        text, code = output_of(command)
        agrees = doctest.OutputChecker().check_output(match[1], text, FLAGS) and int(match[2] or 0) == code
        assert agrees, f"{page.name}:{block.line}: {command}\nthe page says\n{printed}\nfound, exit code {code}\n{text}"


def output_of(command: str) -> tuple[str, int]:
    """What a command prints, but for a step that no test has compiled before, and its exit code."""
    program = next((name for name in PROGRAMS if command.startswith(f"{name} ")), None)
    assert program is not None, f"not one of {', '.join(PROGRAMS)}: {command}"
    result = CliRunner().invoke(PROGRAMS[program], shlex.split(command.removeprefix(program), comments=True))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return re.sub(r"^compiling the training step, once .*\n", "", result.output, flags=re.MULTILINE), result.exit_code


def check_session(block: documented.Block, page: Path, names: dict[str, Any]) -> None:
    session = doctest.DocTestParser().get_doctest(block.text, names, page.name, str(page), block.line)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        result = runner.run(session, clear_globs=False, out=said.write)
    assert result.attempted and not result.failed, said.getvalue()
    names.update(session.globs)


def test_there_are_examples() -> None:
    found = [block for page in PAGES for block in documented.blocks(page)]
    run = [block for block in found if block.reason is None and block.language in ("console", "pycon")]
    assert len(run) > 20
    assert all(block.reason for block in found if block.reason is not None)


def test_no_fence_is_overlooked() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(list(documented.blocks(page))), page.name


WRONG = """```console
$ circuitsim solve netlists/divider.cir --quiet
node      volts
in            9
...
```
"""


@pytest.mark.parametrize(
    "text",
    [WRONG, "```console\n$ circuitsim solve nowhere.cir\n...\n```\n", "```pycon\n>>> 1 + 1\n3\n```\n",
     "```console\n$ ls\n...\n```\n", "```sh\nls\n```\n"],
)  # fmt: skip
def test_wrong_examples_are_found(text: str, folder: Path) -> None:
    page = folder / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError):
        test_examples_of_a_page(page)


# -- notebooks ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_notebook_that_was_run_is_a_page() -> None:
    """The shortest; `make docs` runs them all."""
    path = DOCS / "tutorials" / "ideal_diode.ipynb"
    notebook = documented.executed(path)
    text, pictures = documented.notebook_page(notebook, path.name)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert pictures and all(f"]({name})" in text for name in pictures)


@pytest.mark.parametrize("path", documented.notebooks(), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_results(path: Path) -> None:
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.execution_count is None and not cell.outputs


# -- pages name all that there is --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_the_readme_and_pages_arrive(page: Path) -> None:
    """As a code host follows them, from file to file; MkDocs itself tests those from page to page."""
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text())
    found = [(page.parent / path if path else page, title) for path, title in links]
    chosen = [(path, title) for path, title in found if page == README or path.name == README.name]
    assert chosen or page != README
    assert not [path for path, _ in chosen if not path.exists()]
    assert not [(path, title) for path, title in chosen if title and title not in titles(path)]


def titles(page: Path) -> set[str]:
    """The anchors of a page: its titles in lower case, without punctuation, with hyphens for blanks."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower())) for title in found}


def test_language_page_names_every_card_function_and_option() -> None:
    page = (DOCS / "netlist.md").read_text()
    cards = set(controls._SUPPORTED.split()) | controls._SKIPPED & {".tran", ".ac", ".noise", ".meas", ".plot"}
    words = [*cards, *(f"{name}=" for name in controls._NUMBERS), *expressions._ARGUMENTS, *models._SHOCKLEY]
    assert not [word for word in words if not re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", page, re.IGNORECASE)]
    assert all(f"| `{kind} " in page for kind in cards_module.NOUNS)
