"""The examples in the documentation, read for tests and for the built pages: fenced blocks, and notebooks.

A fenced block is run as its language says, those of a page in order and in one folder:

- `console`: lines that begin with `$ ` are commands, the lines below each what it prints (`...` stands for anything),
  and at the end `[exit code N]` unless that is 0;
- `pycon`: a session of Python, tested by doctest; the blocks of a page share their names;
- `spice` with a title: a file of that name.

The comment `<!-- not run: REASON -->` on the line above keeps a block from being run.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_FENCE = re.compile(
    r'(?:^<!-- not run: (?P<reason>.+?) -->\n+)?^(?P<indent> *)```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n'
    r"(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str | None
    text: str
    reason: str | None  # why it is not run; None: it is
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(match["language"], match["title"], match["text"], match["reason"], line)


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what the page says that it prints."""
    first, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    if first.strip():
        raise ValueError(f"a console block begins with '$ ', not with {first.strip()[:40]!r}")
    for part in parts:
        command, _, printed = part.partition("\n")
        yield command, printed


def notebooks() -> list[Path]:
    """The tutorials."""
    return sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def executed(path: Path) -> Any:
    """A notebook with its results, run from top to bottom in a folder of its own; an error in a cell is raised."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    folder = tempfile.mkdtemp(prefix="circuitsim-tutorial-")
    path_of_programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}})
        client.execute(env={**os.environ, "PATH": path_of_programs, "COLUMNS": "100"})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return notebook


def notebook_page(notebook: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook that was run, as Markdown, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        source, shell = re.subn(r"^%%bash\n", "", cell.source)
        parts.append(f"```{'bash' if shell else 'python'}\n{source}\n```")
        printed = ""
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{Path(name).stem}_{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(data["image/png"])
                parts.append(f"![Result]({picture})")
            else:
                printed += output.get("text") or data.get("text/plain", "")
        if printed:
            parts.append(f"```text\n{_ESCAPES.sub('', printed).rstrip()}\n```")
    title, *rest = parts
    note = f"*This page is the notebook [{name}]({name}), run when the documentation was built.*"
    return "\n\n".join([title, note, *rest]) + "\n", pictures
