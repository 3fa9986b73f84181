"""The page as text: for the server, with separate assets, or as one file that contains these and the answers."""

from __future__ import annotations

import base64
import html
import json
import secrets
from importlib.resources import files
from pathlib import Path
from typing import Any

from circuitsim.errors import CircuitError
from circuitsim.heat import UNITS
from circuitsim.io.files import replacing
from circuitsim.view.session import Session
from circuitsim.view.solver import Edits

_MODULES = {
    "cytoscape": "cytoscape.esm.min.mjs",
    "uplot": "uPlot.esm.js",
} | {
    f"view/{name}": f"{name}.js"
    for name in "app ask charts digit dom graph heat picture scales selection state sweeps tables".split()
}  # module name -> file
# Style sheets and their ids. Cytoscape adds an inline one, which the page's policy forbids, where it does not find its
# own: ours says what that would.
_STYLES = {"page.css": "__________cytoscape_stylesheet", "uPlot.min.css": "uplot_stylesheet"}
ASSETS = {f"static/{name}": "text/javascript" for name in _MODULES.values()} | {
    f"static/{name}": "text/css" for name in _STYLES
}  # path -> content type
_MOST_EXPORTED = 500_000  # numbers of crossbars and units in a file


def asset(path: str) -> bytes:
    """The bytes of one of ASSETS."""
    return _read(path.removeprefix("static/"))


def _read(name: str) -> bytes:
    return (files("circuitsim.view") / "static" / name).read_bytes()


def live_page(title: str, nonce: str) -> str:
    """The page that asks its server."""
    modules = {name: f"./static/{file}" for name, file in _MODULES.items()}
    links = "".join(f'<link rel="stylesheet" id="{key}" href="static/{name}">' for name, key in _STYLES.items())
    return _page(title, nonce, links + _import_map(modules, nonce), None)


def exported_page(session: Session) -> tuple[str, list[str]]:
    """The page with everything inside, which asks nobody and changes no values; and what had to be left out."""
    answers = exported_answers(session)
    lines = {card["card"]: card["line"] for card in answers["about"]["sweeps"]}
    errors = {int(key.split("/")[1]): found["error"] for key, found in answers.items() if "error" in found}
    left_out = [f"left out: the curves of {lines[card]}: {error}" for card, error in errors.items()]
    return _page_of_answers(session.title, answers), left_out


def _page_of_answers(title: str, answers: dict[str, Any]) -> str:
    nonce = secrets.token_urlsafe(16)
    modules = {
        name: "data:text/javascript;base64," + base64.b64encode(_read(file)).decode() for name, file in _MODULES.items()
    }
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}' data:; style-src 'nonce-{nonce}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    head += "".join(
        f'<style id="{key}" nonce="{nonce}">{_read(name).decode()}</style>' for name, key in _STYLES.items()
    )
    return _page(title, nonce, head + _import_map(modules, nonce), answers)


def exported_answers(session: Session) -> dict[str, Any]:
    """Question -> answer, for all that the page can ask about the circuit as it is: see `ask` in ask.js.

    The answer about curves of a sweep that cannot be run is {error: why}, as the server's.
    """
    about, now, room = session.about(), Edits(), _MOST_EXPORTED
    answers: dict[str, Any] = {"about": about, "scene": session.scene(None), "answer": session.answer(now, trace=True)}
    answers["nodes"] = session.nodes(now)
    for k in range(len(session.drawing.groups)):
        answers[f"group/{k}"] = session.group(now, k)
    for k in range(len(about["crossbars"])):
        for quantity in UNITS:
            found = session.crossbar(now, k, quantity)
            room -= len(found["values"])
            if room >= 0:
                answers[f"crossbar/{k}/{quantity}"] = found
    layers = session.layers
    for k in reversed(range(1, len(layers.nodes) if layers else 0)):
        assert layers is not None
        for unit in range(layers.nodes[k].size):
            room -= 2 * layers.nodes[k - 1].size
            if room < 0:
                break
            answers[f"unit/{k}/{unit}"] = session.unit(now, k, unit)
    for card in about["sweeps"]:
        _add_curves(session, card["card"], answers)
    return answers


def _add_curves(session: Session, card: int, answers: dict[str, Any]) -> None:
    """The curves of the nodes that are drawn, 50 at most; or why there are none."""
    names = [v["label"] for v in answers["scene"]["vertices"] if v["kind"] == "node"][:50]
    keys = [f"curve/{card}/{name}" for name in names]
    try:
        answers |= {key: session.curve(card, name) for key, name in zip(keys, names, strict=True)}
    except CircuitError as error:  # too many points, or one that cannot be
        answers |= {key: {"error": str(error)} for key in keys}


def export(session: Session, path: Path) -> list[str]:
    """Write the page to one file, whole or not at all; returns what had to be left out. SettingsError if it cannot."""
    page, left_out = exported_page(session)
    with replacing(path, "w") as out:
        out.write(page)
    return left_out


def _page(title: str, nonce: str, head: str, answers: dict[str, Any] | None) -> str:
    start = f'<script type="module" nonce="{nonce}">import "view/app";</script>'
    data = json.dumps(answers, allow_nan=False).replace("<", "\\u003c")
    data = f'<script type="application/json" id="answers" nonce="{nonce}">{data}</script>'
    text = _read("index.html").decode()
    for mark, content in (("<!--title-->", html.escape(title)), ("<!--head-->", head), ("<!--end-->", data + start)):
        before, _, after = text.partition(mark)
        text = before + content + after
    return text


def _import_map(modules: dict[str, str], nonce: str) -> str:
    return f'<script type="importmap" nonce="{nonce}">{json.dumps({"imports": modules})}</script>'
