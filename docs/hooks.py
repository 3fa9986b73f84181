"""What MkDocs does besides: what is generated for pages, equations as MathML, and nothing loaded from the network.

Lines that pages have replaced:

    <!-- help of MODULE.COMMAND as NAME -->   what `NAME --help` prints, of a group also for each of its commands
    <!-- reference of MODULE -->              signature and docstring of everything that is public in a module
    [README: TITLE](../README.md#title)       that section of the README, without its title; elsewhere it is a link
"""

from __future__ import annotations

import html
import importlib
import inspect
import logging
import re
import sys
import textwrap
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import click
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from pygments.formatters import HtmlFormatter

sys.path.insert(0, str(Path(__file__).parent))
from documented import ROOT, executed, notebook_page, notebooks

_WIDTH = 100
_EQUATION = re.compile(r'<(?:span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</(?:span|div)>', re.DOTALL)
_GENERATED = re.compile(r"^<!-- (help|reference) of (.+?) -->$", re.MULTILINE)
_FROM_README = re.compile(r"^\[README: (.+?)\]\(\.\./README\.md#\S+\)$", re.MULTILINE)
_LOADED = r'script|img|iframe|link rel="(?:stylesheet|preconnect)"'
_FROM_THE_NET = re.compile(rf'<(?:{_LOADED})[^>]*(?:src|href)="(?:https?:)?//')
_log = logging.getLogger("mkdocs.hooks")


def on_files(files: Files, config: Any) -> Files:
    """Runs every notebook, and makes a page of it with what it printed and drew; the colours of code are a file.

    A notebook that draws nothing is a warning, and thereby an error.
    """
    styles = HtmlFormatter(style="default").get_style_defs(".highlight")
    files.append(File.generated(config, "highlight.css", content=styles))
    for path in notebooks():
        text, pictures = notebook_page(executed(path), path.name)
        if not pictures:
            _log.warning("%s draws no picture", path.name)
        for picture, data in pictures.items():
            files.append(File.generated(config, f"tutorials/{picture}", content=data))
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The lines above are replaced by what they stand for; a name that is not there is an error."""
    makers: dict[str, Callable[[str], str]] = {"help": _helps, "reference": _reference}
    markdown = _GENERATED.sub(lambda match: makers[match[1]](match[2]), markdown)
    return _FROM_README.sub(lambda match: _readme(match[1]), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Equations in LaTeX become MathML, which browsers draw themselves."""

    def mathml(match: re.Match[str]) -> str:
        return convert(html.unescape(match[2]).strip(), display="block" if match[1] == "[" else "inline")

    return _EQUATION.sub(mathml, content)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """A page that would load something from the network is a warning, and thereby an error."""
    if found := _FROM_THE_NET.search(output):
        _log.warning("%s loads from the network: %s", page.file.src_path, found[0])
    return output


def _helps(text: str) -> str:
    """`MODULE.COMMAND as NAME`: the help of a command, and of those inside."""
    place, name = text.split(" as ")
    module, _, attribute = place.rpartition(".")
    command = getattr(importlib.import_module(module), attribute)
    context = click.Context(command, info_name=name, **command.context_settings)
    texts = [_help(command, context, "##")]
    if isinstance(command, click.Group):
        for key in command.list_commands(context):
            inner = command.get_command(context, key)
            assert inner is not None
            texts.append(_help(inner, click.Context(inner, parent=context, info_name=key), "###"))
    return "\n\n".join(texts)


def _help(command: click.Command, context: click.Context, level: str) -> str:
    context.terminal_width = context.max_content_width = _WIDTH
    return f"{level} {context.command_path}\n\n```text\n{command.get_help(context)}\n```"


def _reference(name: str) -> str:
    """Everything in `__all__` of a module."""
    module = importlib.import_module(name)
    return "\n\n".join(_entry(key, getattr(module, key)) for key in module.__all__)


def _entry(key: str, thing: Any) -> str:
    """A function, or a class with its public methods and properties, as one block of Python without bodies."""
    if not isinstance(thing, type):
        lines = [f"def {key}{_signature(thing)}:", _docstring(thing)]
    else:
        lines = [f"class {key}:", _docstring(thing)]
        if issubclass(thing, Enum):
            lines += [f"    {member.name} = {member.value!r}" for member in thing]
        for name, member in vars(thing).items():
            function = getattr(member, "fget", None) or getattr(member, "func", None) or member
            if not name.startswith("_") and inspect.isfunction(function) and function.__doc__:
                how = "" if function is member else "    @property\n"
                lines += ["", f"{how}    def {name}{_signature(function)}:"]
                lines += [textwrap.indent(_docstring(function), "    ")]
    text = "\n".join(lines)
    return f"### {key}\n\n```python\n{text}\n```"


def _docstring(thing: Any) -> str:
    text = inspect.getdoc(thing) or ""
    return textwrap.indent(f'"""{text}' + ('\n"""' if "\n" in text else '"""'), "    ")


def _signature(thing: Any) -> str:
    """How it is called, without types: those are in the docstring where they matter."""
    signature = inspect.signature(thing)
    own = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=own, return_annotation=signature.empty))


def _readme(title: str) -> str:
    """A section of the README: up to the next title of its level, or one above."""
    text = (ROOT / "README.md").read_text()
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |^#{{1,2}} |\Z)", text, re.DOTALL | re.MULTILINE)
    if match is None:
        raise KeyError(f"the README has no section '{title}'")
    return match[2].strip().replace("](docs/", "](")
