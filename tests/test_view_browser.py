"""The live page in a real browser, as a user has it: headless Chromium of the system, driven by Playwright.

Without either it is skipped; where CIRCUITSIM_NEEDS_BROWSER says that they must be there, it fails. Pictures of the
page are left in build/browser.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from devices import missing

import circuitsim as cs
from circuitsim.circuit import Circuit
from circuitsim.view.page import export
from circuitsim.view.server import PageServer
from circuitsim.view.session import Session
from circuitsim.view.solver import Edits
from validation.digits import train_quickly

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

ROOT = Path(__file__).parent.parent
NEEDS_BROWSER = "CIRCUITSIM_NEEDS_BROWSER"
PICTURES = ROOT / "build" / "browser"
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
DIVIDER = "divider\nV1 in 0 10\nR1 in out 1k\nR2 out 0 1k\n"
SWEEP = "swept\nV1 a 0 5\nR1 a b 1k\nRt b 0 1k tc1=0.01\n.dc V1 0 5 1 TEMP 27 127 50\n"
ARRAY = "array\nV1[0:1] i[0:1] 0 10\nRa[0:1] i[0:1] a[0:1] 1k\nRb[0:1] a[0:1] 0 1k\n"
BARS = "bars\nV0 x[0] 0 0\nV1 x[1] 0 10\nRW[0:1][0:1] x[0:1] y[0:1] g={1m}\nRs[0:1] y[0:1] 0 1e6\n"
COMB = "comb\nV1 a0 0 1\n" + "".join(f"R{k} a0 a{k + 1} 1k\nRg{k} a{k + 1} 0 1k\n" for k in range(70))
CHAIN = "chain\nV1 n0 0 1501\n" + "".join(f"R{k} n{k} n{k + 1} 1k\n" for k in range(1500)) + "Re n1500 0 1k\n"
GRID = "grid of 6,400 nodes\nV1 n0_0 0 1\nRend n79_79 0 1k\n" + "".join(
    f"Rh{i}_{j} n{i}_{j} n{i}_{j + 1} 1k\nRv{j}_{i} n{j}_{i} n{j + 1}_{i} 1k\n" for i in range(80) for j in range(79)
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if chromium is None:
        missing("chromium is not installed (apt-get install chromium)", NEEDS_BROWSER)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed (pip install 'circuitsim[browser]')", NEEDS_BROWSER)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield found
        found.close()


@dataclass
class Visit:
    """A page, what it said to the console, and where its requests went."""

    page: Page
    server: PageServer | None
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def graph(self, what: str) -> Any:
        """A question to the drawing: an expression of `cy`."""
        return self.page.evaluate(f"() => {{ const cy = document.getElementById('graph')._cyreg.cy; return {what}; }}")

    def place(self, name: str, thing: str = "vertex") -> tuple[float, float]:
        """Where a vertex, or the middle of an element's line, is on the screen."""
        found = (
            f"cy.elements().filter((x) => x.data('thing') === '{thing}' && x.data('text').split('\\n')[0] === '{name}')"
        )
        self.page.wait_for_timeout(50)  # for what moves the drawing
        at = self.graph(f"{found}[0].{'renderedMidpoint' if thing == 'edge' else 'renderedPosition'}()")
        box = self.page.locator("#graph").bounding_box()
        assert box
        return box["x"] + at["x"], box["y"] + at["y"]

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def volts(self, name: str) -> str:
        """What is written at a node."""
        return self.graph(f"cy.nodes().filter((x) => x.data('text').startsWith('{name}\\n'))[0].data('text')").split(
            "\n"
        )[1]

    def solved(self) -> str:
        """Wait until nothing is asked any more; the status."""
        self.page.locator("#status:not(.busy) b, #error:not([hidden])").first.wait_for()
        return self.text("#status")

    def change(self, name: str, value: str) -> None:
        self.page.get_by_label("Element", exact=True).fill(name)
        self.page.get_by_label("New value").fill(value)
        with self.page.expect_response("**/api/answer"):
            self.page.get_by_role("button", name="Solve", exact=True).click()
        self.solved()

    def picture(self, name: str) -> None:
        """Leave a picture of the page, which must show something."""
        path = PICTURES / f"{name}.png"
        self.page.screenshot(path=path)
        assert path.stat().st_size > 10_000

    def ask_for(self, name: str, value: str) -> None:
        """Ask for a changed value, without waiting for its answer."""
        self.page.get_by_label("Element", exact=True).fill(name)
        self.page.get_by_label("New value").fill(value)
        self.page.get_by_role("button", name="Solve", exact=True).click()

    def hold(self, question: str) -> Held:
        """From now on answers to a question wait until they are let go."""
        held = Held(self.page)
        self.page.route(f"**/api/{question}", lambda route: held.routes.append(route))
        return held


@dataclass
class Held:
    """Questions on their way, in order."""

    page: Page
    routes: list[Route] = field(default_factory=list)

    def wait(self, count: int) -> None:
        """Until so many were asked."""
        for _ in range(200):
            if len(self.routes) >= count:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"asked {len(self.routes)} times, not {count}")

    def let_go(self, k: int) -> None:
        """Let a question have its answer, and the page take it in."""
        self.wait(k + 1)
        with self.page.expect_response(self.routes[k].request.url):
            self.routes[k].continue_()
        self.page.wait_for_timeout(100)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Any]]:
    """Open the page of a circuit, or a file. At the end: nothing on the console, nothing asked from anywhere else."""

    @contextmanager
    def opened(
        what: Circuit | Session | Path, width: int = 1280, height: int = 900, quiet: bool = True
    ) -> Iterator[Visit]:
        session = what if isinstance(what, Session) else None if isinstance(what, Path) else Session(what)
        server = None if session is None else PageServer(session)
        if server is not None:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
        found = Visit(context.new_page(), server)
        found.page.on("console", lambda message: found.console.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.console.append(f"error: {error}"))
        found.page.on("request", lambda request: found.requests.append(request.url))
        try:
            found.page.goto(what.as_uri() if isinstance(what, Path) else server.address)  # type: ignore[union-attr]
            found.solved()
            yield found
        finally:
            context.close()
            if server is not None:
                server.shutdown()
                thread.join()
                server.server_close()
        assert not quiet or not found.console
        own = ("data:", what.as_uri()) if isinstance(what, Path) else ("data:", server.address)  # type: ignore[union-attr]
        assert found.requests and all(url.startswith(own) for url in found.requests)

    yield opened


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A network that has learnt to read a little."""
    path = tmp_path_factory.mktemp("trained") / "trained.cir"
    train_quickly(path)
    return Session(cs.load(path))


# -- a circuit ---------------------------------------------------------------------------------------------------------


def test_a_circuit_is_shown_with_its_certificate(visit: Any) -> None:
    with visit(cs.parse(DIVIDER, "divider.cir")) as seen:
        assert seen.page.title() == "divider - circuitsim"
        assert "divider.cir · 2 nodes · 2 resistors · 1 voltage source" in seen.text("header")
        assert re.match(r"✓ Solved\s+KCL error \S+ A, relative \S+\nin \S+ m?s, \w+, \d+ steps?", seen.text("#status"))
        assert seen.graph("cy.nodes().length") == 3 and seen.graph("cy.edges().length") == 3
        assert (seen.volts("in"), seen.volts("out")) == ("10 V", "5 V")
        assert seen.text("#legend").split() == ["node", "voltage", "5", "V", "10", "V"]
        assert "SOLVED" in seen.text("#certificate")
        seen.picture("divider")


def test_hovering_tells_values_and_lines_of_the_netlist(visit: Any) -> None:
    with visit(cs.parse(DIVIDER, "divider.cir")) as seen:
        seen.page.mouse.move(*seen.place("out"))
        tip = seen.text("#tip").splitlines()
        assert tip[0] == "node out: 5 V" and "R1 5 mA   divider.cir:3  R1 in out 1k" in tip
        seen.page.mouse.move(*seen.place("R1", "edge"))
        assert seen.text("#tip").splitlines() == ["R1: resistor", "5 V, 5 mA, 25 mW", "divider.cir:3  R1 in out 1k"]
        seen.page.mouse.move(5, 5)
        seen.page.locator("#tip").wait_for(state="hidden")


def test_a_changed_value_gives_the_new_equilibrium(visit: Any) -> None:
    with visit(cs.parse(DIVIDER)) as seen:
        seen.page.mouse.click(*seen.place("R2", "edge"))
        assert seen.page.get_by_label("New value").input_value() == "1000"
        assert "Power absorbed\n25 mW" in seen.text("#selection")
        seen.change("R2", "3k")
        assert seen.volts("out") == "7.5 V" and "Value\n3 kΩ" in seen.text("#selection")
        seen.change("V1", "-4")
        assert seen.volts("out") == "-3 V" and "R2 = 3k" in seen.text("#changes")
        seen.page.get_by_role("button", name="Undo R2").click()
        seen.page.get_by_text("R2 = 3k").wait_for(state="detached")
        assert seen.volts("out") == "-2 V"
        seen.page.get_by_role("button", name="Undo all changes").click()
        seen.page.get_by_text("V1 = -4").wait_for(state="detached")
        assert seen.volts("out") == "5 V"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("R2", "-3", "negative resistance: found -3 ohm"),
        ("R2", "many", "'many' is not a number"),
        ("<img src=x>", "1", "no element '<img src=x>'"),
    ],
)
def test_what_cannot_be_is_said_and_the_old_answer_kept(visit: Any, name: str, value: str, words: str) -> None:
    with visit(cs.parse(DIVIDER)) as seen:
        seen.change("R2", "3k")
        seen.change(name, value)
        alert = seen.page.get_by_role("alert")
        assert words in alert.inner_text() and "What is shown is the previous answer." in alert.inner_text()
        assert seen.volts("out") == "7.5 V" and seen.text("#changes") == "R2 = 3k\nundo"
        seen.change("R2", "1k")
        alert.wait_for(state="hidden")
        assert seen.volts("out") == "5 V"


@pytest.mark.parametrize(
    ("deck", "edits", "node", "volts", "kept"),
    [
        (DIVIDER, [("R2", "3k"), ("r2", "1k"), ("R2", "3k")], "out", "7.5 V", ["R2 = 3k"]),
        (ARRAY, [("Rb[1]", "3k"), ("Rb", "1k"), ("Rb[1]", "9k")], "a[1]", "9 V", ["Rb = 1k", "Rb[1] = 9k"]),
        (BARS, [("RW[1][0]", "3m"), ("RW", "1m"), ("rw[1][0]", "9m")], "y[0]", "8.999 V", ["RW = 1m", "rw[1][0] = 9m"]),
    ],
    ids=["element", "array", "crossbar"],
)
def test_the_last_change_wins(
    visit: Any, deck: str, edits: list[tuple[str, str]], node: str, volts: str, kept: list[str]
) -> None:
    with visit(cs.parse(deck)) as seen:
        for name, value in edits:
            seen.change(name, value)
        assert seen.volts(node) == volts and seen.page.locator("#changes li").all_inner_texts() == [
            f"{text}\nundo" for text in kept
        ]


def test_changes_made_while_one_is_solved_all_count(visit: Any) -> None:
    with visit(cs.parse(DIVIDER)) as seen:
        held = seen.hold("answer")
        for name, value in (("R2", "3k"), ("V1", "20"), ("R1", "2k")):
            seen.ask_for(name, value)
        held.let_go(0)
        held.let_go(1)
        assert seen.volts("out") == "12 V" and len(held.routes) == 2
        for name in ("R2", "R1"):
            seen.page.get_by_role("button", name=f"Undo {name}").click()
        held.let_go(2)
        held.let_go(3)
        assert seen.volts("out") == "10 V" and seen.text("#changes") == "V1 = 20\nundo"


def test_a_change_that_cannot_be_takes_no_other_with_it(visit: Any) -> None:
    with visit(cs.parse(DIVIDER)) as seen:
        held = seen.hold("answer")
        for name, value in (("V1", "20"), ("R2", "-3"), ("R1", "3k")):
            seen.ask_for(name, value)
        for k in range(4):  # the first, both others, each of them
            held.let_go(k)
        assert seen.volts("out") == "5 V" and seen.text("#changes").count("undo") == 2
        assert seen.text("#error").endswith("found -3 ohm; a new resistance must be positive")
        seen.ask_for("R1", "1k")
        held.let_go(4)
        assert seen.page.locator("#error").is_hidden() and seen.volts("out") == "10 V"


def test_another_part_is_drawn_with_its_own_voltages(visit: Any) -> None:
    """Also where a change before it cannot be, and nothing of it before its answer is there."""
    with visit(cs.parse(CHAIN)) as seen:
        before = seen.graph("cy.nodes().length")
        held = seen.hold("answer")
        seen.ask_for("Re", "-1")
        box = seen.page.get_by_label("Find a node or element")
        box.fill("n700")
        seen.page.get_by_role("button", name="n700 (node)").click()
        held.wait(1)
        seen.page.wait_for_timeout(200)
        assert seen.graph("cy.nodes().length") == before and "near n700" not in seen.text("#part")
        held.let_go(0)
        held.let_go(1)
        seen.page.locator("#selection h3", has_text="node n700").wait_for()
        assert "near n700" in seen.text("#part") and "Voltage\n801 V" in seen.text("#selection")


@pytest.mark.parametrize(("question", "first"), [("crossbar", "RW"), ("group", "x[0:39]")])
def test_a_late_answer_leaves_a_later_choice_alone(visit: Any, question: str, first: str) -> None:
    deck = "wide\nV1[0:39] x[0:39] 0 1\nRW[0:39][0:1] x[0:39] y[0:1] g={1m}\nRs[0:1] y[0:1] 0 1k\n"
    with visit(cs.parse(deck)) as seen:
        held = seen.hold(question)
        seen.page.mouse.click(*seen.place(first))
        held.wait(1)
        seen.page.mouse.click(*seen.place("y[0]"))
        seen.page.locator("#selection h3", has_text="node y[0]").wait_for()
        held.let_go(0)
        assert seen.text("#selection").startswith("node y[0]")


def test_a_late_curve_leaves_that_of_a_later_node(visit: Any) -> None:
    with visit(cs.parse(SWEEP)) as seen:
        seen.page.locator("#curve canvas").wait_for()
        held = seen.hold("curve")
        for name in ("b", "a"):
            seen.page.get_by_label("Voltage of").select_option(name)
        held.let_go(1)
        assert seen.page.get_by_role("img", name="v(a) over").count() == 1
        held.let_go(0)
        assert seen.page.get_by_role("img", name="v(a) over").count() == 1


def test_a_late_unit_leaves_a_later_one(visit: Any, trained: Session) -> None:
    with visit(trained) as seen:
        held = seen.hold("unit")
        for k in (1, 2):
            seen.page.get_by_role("button", name=f"Output {k}: show its inputs").click()
        held.let_go(1)
        held.let_go(0)
        assert seen.text("#unit h3").startswith("Current into y[2]")


def test_a_late_picture_of_all_nodes_is_not_shown(visit: Any) -> None:
    with visit(cs.parse(COMB)) as seen:
        held = seen.hold("nodes")
        seen.page.get_by_role("tab", name="All nodes").click()
        held.wait(1)
        seen.change("V1", "7")
        held.let_go(1)
        assert "7 V" in seen.text("#panel-nodes")
        held.let_go(0)
        assert "7 V" in seen.text("#panel-nodes")


def test_colours_by_quantity(visit: Any) -> None:
    with visit(cs.parse(DIVIDER)) as seen:
        fills = "cy.{}().filter((x) => x.data('kind') !== 'ground').map((x) => x.data('fill'))"
        assert len(set(seen.graph(fills.format("nodes")))) == 2 and len(set(seen.graph(fills.format("edges")))) == 1
        seen.page.get_by_label("power").check()
        assert seen.text("#legend").startswith("power absorbed -50 mW")
        assert len(set(seen.graph(fills.format("nodes")))) == 1 and len(set(seen.graph(fills.format("edges")))) == 2
        seen.page.get_by_label("current").check()
        seen.page.get_by_label("logarithmic").check()
        assert "(log)" in seen.text("#legend")


def test_it_is_used_by_keys_alone(visit: Any) -> None:
    with visit(cs.parse(DIVIDER)) as seen:
        keys = seen.page.keyboard
        for _ in range(20):
            if seen.page.evaluate("document.activeElement.id") == "graph":
                break
            keys.press("Tab")
        assert seen.page.evaluate("document.activeElement.id") == "graph"
        names = set()
        for key in ("ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "ArrowRight", "ArrowLeft"):
            keys.press(key)
            names.add(seen.text("#tip").splitlines()[0])
        assert len(names) > 1
        names = set()
        for _ in range(3):
            keys.press("n")
            names.add(seen.text("#tip").splitlines()[0])
        assert names == {"ground: 0 V", "node in: 10 V", "node out: 5 V"}
        while not seen.text("#tip").startswith("node out"):
            keys.press("p")
        keys.press("e")
        assert seen.text("#selection").startswith("R1")
        zoom = seen.graph("cy.zoom()")
        keys.press("+")
        assert seen.graph("cy.zoom()") == pytest.approx(1.25 * zoom)
        at = seen.graph("cy.pan().x")
        keys.press("Shift+ArrowRight")
        assert seen.graph("cy.pan().x") == pytest.approx(at - 60)
        keys.press("0")
        assert seen.graph("cy.zoom()") == pytest.approx(zoom)
        keys.press("Enter")
        assert seen.page.evaluate("document.activeElement.id") == "edit-value"
        keys.type("4k")
        with seen.page.expect_response("**/api/answer"):
            keys.press("Enter")
        seen.solved()
        assert seen.volts("out") == "2 V"
        seen.page.locator("#tab-circuit").focus()
        keys.press("ArrowRight")
        assert seen.page.locator("#panel-table").is_visible() and "R1" in seen.text("#panel-table")


def test_names_are_found(visit: Any) -> None:
    with visit(cs.parse(DIVIDER)) as seen:
        box = seen.page.get_by_label("Find a node or element")
        box.fill("OUT")
        seen.page.get_by_role("button", name="out (node)").wait_for()
        box.press("Enter")
        seen.page.locator("#selection h3", has_text="node out").wait_for()
        assert seen.graph("cy.$(':selected').data('text')") == "out\n5 V"
        box.fill("r")
        seen.page.get_by_role("button", name="R2 (resistor)").click()
        seen.page.locator("#selection h3", has_text="R2").wait_for()
        box.fill("nothing")
        seen.page.get_by_text("no such name").wait_for()


def test_the_table_has_all_values(visit: Any) -> None:
    with visit(cs.parse(DIVIDER, "divider.cir")) as seen:
        seen.page.get_by_role("tab", name="Table").click()
        row = seen.page.get_by_role("row").filter(has_text="R1").first
        assert row.inner_text().split("\t") == [
            "R1",
            "resistor",
            "1 kΩ",
            "5 V",
            "5 mA",
            "25 mW",
            "divider.cir:3 R1 in out 1k",
        ]
        seen.page.get_by_role("button", name="out").click()
        seen.page.locator("#selection h3", has_text="node out").wait_for()


def test_points_of_a_sweep(visit: Any) -> None:
    circuit = cs.parse(SWEEP)
    result = cs.sweep(circuit, circuit.netlist.analyses[0])
    with visit(circuit) as seen:
        seen.page.locator("#curve canvas").wait_for()
        volts, temp = (seen.page.locator(f"#axis-{k}") for k in (0, 1))
        volts.focus()
        volts.press("End")
        temp.focus()
        temp.press("ArrowRight")
        seen.page.get_by_text("temp = 77 °C").wait_for()
        seen.page.wait_for_timeout(300)
        seen.solved()
        assert result.values[11].tolist() == [5.0, 77.0]
        assert seen.volts("b") == f"{result.voltage('b')[11]:.4g} V"
        seen.picture("sweep")


def test_a_swept_element_leaves_its_changed_value(visit: Any) -> None:
    with visit(cs.parse(DIVIDER + ".dc V1 0 5 1\n")) as seen:
        seen.change("v1", "2")
        seen.change("R2", "3k")
        assert seen.volts("out") == "1.5 V"
        seen.page.locator("#axis-0").focus()
        with seen.page.expect_response("**/api/answer"):
            seen.page.locator("#axis-0").press("End")
        seen.page.get_by_text("v1 = 2").wait_for(state="detached")
        assert seen.volts("out") == "3.75 V" and seen.text("#changes") == "R2 = 3k\nundo"
        seen.change("V1", "2")
        assert seen.volts("out") == "1.5 V"


def test_a_swept_parameter_leaves_the_changed_values_that_it_has_no_part_in(visit: Any) -> None:
    with visit(cs.parse(DIVIDER.replace("out 0 1k", "out 0 {r}") + ".param r=1k\n.dc r 1k 3k 1k\n")) as seen:
        seen.change("R2", "9k")
        seen.change("V1", "20")
        seen.page.locator("#axis-0").focus()
        with seen.page.expect_response("**/api/answer"):
            seen.page.locator("#axis-0").press("End")
        seen.page.get_by_text("R2 = 9k").wait_for(state="detached")
        assert seen.volts("out") == "15 V" and seen.text("#changes") == "V1 = 20\nundo"
        seen.change("R2", "1k")
        assert seen.volts("out") == "10 V"


def test_crossbars_are_images_whose_cells_can_be_changed(visit: Any) -> None:
    circuit = cs.load(ROOT / "netlists" / "crossbar_4x4.cir")
    session = Session(circuit)
    with visit(session) as seen:
        assert seen.graph("cy.nodes('[kind = \"crossbar\"]').length") == 1
        seen.page.mouse.click(*seen.place("Rmem"))
        seen.page.locator("#selection h3", has_text="crossbar Rmem").wait_for()
        heat = seen.page.locator("#selection canvas.heat")
        box = heat.bounding_box()
        seen.page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.1)
        assert seen.text("#tip").startswith("Rmem[0][1]\nconductance ")
        seen.page.get_by_label("Show").select_option("current")
        seen.page.locator("figcaption", has_text="current").wait_for()
        seen.page.locator("#selection canvas.heat").click(position={"x": box["width"] * 0.4, "y": box["height"] * 0.1})
        assert seen.page.get_by_label("Element", exact=True).input_value() == "Rmem[0][1]"
        seen.change("Rmem[0][1]", "1m")
        wanted = session.solution(Edits((("Rmem[0][1]", "1m"),))).voltage("col[1]")[0]
        assert seen.volts("col[1]") == f"{1e3 * wanted:.4g} mV"
        seen.picture("crossbar")


def test_large_circuits_are_shown_in_part(visit: Any) -> None:
    with visit(cs.parse(GRID)) as seen:
        assert "too large to be drawn at once" in seen.text("#part") and seen.graph("cy.nodes().length") < 300
        box = seen.page.get_by_label("Find a node or element")
        box.fill("n40_40")
        seen.page.get_by_role("button", name="n40_40 (node)").wait_for()
        box.press("Enter")
        seen.page.locator("#selection h3", has_text="node n40_40").wait_for()
        assert "near n40_40" in seen.text("#part")
        seen.picture("grid")
        seen.page.get_by_role("tab", name="All nodes").click()
        heat = seen.page.locator("#panel-nodes canvas.heat")
        heat.wait_for()
        heat.click(position={"x": 3, "y": 3})
        seen.page.locator("#selection h3", has_text="node n0_0").wait_for()


def test_where_only_elements_are_left_out_the_page_says_so(visit: Any) -> None:
    with visit(cs.parse("parallel\nV1 a 0 1\nRa[0:3999] a b 1\nR1 b 0 1\n")) as seen:
        assert "All nodes are drawn, but not all elements" in seen.text("#part")


# -- pictures drawn by hand --------------------------------------------------------------------------------------------


def draw(canvas: Locator, page: Page, *points: tuple[int, int]) -> None:
    box = canvas.bounding_box()
    assert box
    page.mouse.move(box["x"] + points[0][0], box["y"] + points[0][1])
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=8)
    with page.expect_response("**/api/answer"):
        page.mouse.up()


def outputs(seen: Visit) -> list[str]:
    return [text.split(" ←")[0].strip() for text in seen.page.locator(".outputs span").all_inner_texts()]


def test_a_digit_is_drawn_and_read(visit: Any, trained: Session) -> None:
    asked = []
    with visit(trained, width=1500, height=1100) as seen:
        seen.page.on(
            "request", lambda request: asked.append(request.post_data_json) if "answer" in request.url else None
        )
        assert "7" in seen.page.locator(".outputs button.best").inner_text()  # the picture of the netlist
        draw(seen.page.get_by_label("Draw a digit here"), seen.page, (125, 40), (122, 120), (118, 200))
        seen.page.wait_for_timeout(400)
        seen.solved()
        volts = np.array(asked[-1]["changes"]["inputs"])
        grey = volts[:784].reshape(28, 28) / 100
        assert np.array_equal(volts[784:], -volts[:784]) and grey.max() == pytest.approx(1.0)
        rows, columns = (np.flatnonzero(grey.any(axis=axis)) for axis in (1, 0))
        assert np.ptp(rows) == 19 and np.ptp(columns) < 8  # as MNIST: 20 pixels high
        mass = [(grey.sum(axis=axis) * np.arange(28)).sum() / grey.sum() for axis in (1, 0)]
        assert mass == pytest.approx([13.5, 13.5], abs=0.5)
        wanted = cs.solve(trained.solver.base.with_values({"Vx": volts})).voltage("y[0:9]")[0]
        told = outputs(seen)
        units = {"V": 1.0, "mV": 1e3, "µV": 1e6}
        assert [float(text.split()[0]) / units[text.split()[1]] for text in told] == pytest.approx(wanted, rel=1e-3)
        assert seen.page.locator(".outputs button.best").inner_text() == "1" and wanted.argmax() == 1
        assert seen.page.locator("#settling canvas").count() == 1
        seen.page.get_by_role("button", name="Output 1: show its inputs").click()
        seen.page.locator("#unit h3", has_text="Current into y[1]").wait_for()
        assert seen.page.locator("#unit canvas.heat").count() == 2
        hidden = seen.page.get_by_label("h[0:99]: 10 rows, 10 columns")
        hidden.click(position={"x": 5, "y": 5})
        seen.page.locator("#unit h3", has_text="Current into h[0]").wait_for()
        assert seen.page.locator("#unit canvas.heat").count() == 4
        seen.picture("digit")
        seen.page.get_by_role("button", name="The netlist's picture").click()
        seen.page.locator(".outputs button.best", has_text="7").wait_for()


def test_a_digit_is_drawn_by_keys(visit: Any, trained: Session) -> None:
    asked = []
    with visit(trained) as seen:
        seen.page.on(
            "request", lambda request: asked.append(request.post_data_json) if "answer" in request.url else None
        )
        canvas = seen.page.get_by_label("Draw a digit here")
        canvas.focus()
        for key in ["ArrowUp"] * 8 + ["Space"] + ["ArrowDown"] * 16 + ["Space"]:
            canvas.press(key)
        seen.page.locator(".outputs button.best", has_text="1").wait_for()
        canvas.press("Delete")
        seen.page.wait_for_timeout(400)
        seen.solved()
        drawn = [question["changes"]["inputs"] for question in asked]
        assert max(map(max, drawn)) == pytest.approx(100, rel=0.01)
        assert not np.any(drawn[-1])


def test_a_wrong_voltage_of_white_is_said(visit: Any, trained: Session) -> None:
    with visit(trained) as seen:
        seen.page.get_by_label("White, V").fill("bright")
        seen.page.get_by_label("White, V").press("Tab")
        assert "'bright' is not a number of volts" in seen.page.get_by_role("alert").inner_text()


# -- the file, and the rest --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bridge_rectifier", "crossbar_4x4", "diode_bridge_sweep"])
def test_an_exported_page_works_without_a_server(visit: Any, tmp_path: Path, name: str) -> None:
    session = Session(cs.load(ROOT / "netlists" / f"{name}.cir"))
    export(session, tmp_path / "page.html")
    with visit(tmp_path / "page.html") as seen:
        assert all(url.startswith(("file:", "data:")) for url in seen.requests)
        node = next(v["label"] for v in session.scene(None)["vertices"] if v["kind"] == "node")
        seen.page.mouse.move(*seen.place(node))
        assert seen.text("#tip").startswith(f"node {node}: ")
        assert seen.page.get_by_label("New value").count() == 0 and "circuitsim view FILE" in seen.text("#change")
        box = seen.page.get_by_label("Find a node or element")
        box.fill(node)
        box.press("Enter")
        seen.page.locator("#selection h3", has_text=f"node {node}").wait_for()
        if name == "crossbar_4x4":
            seen.page.mouse.click(*seen.place("Rmem"))
            seen.page.locator("#selection canvas.heat").wait_for()
        if name == "diode_bridge_sweep":
            seen.page.locator("#curve canvas").wait_for()
        seen.picture(f"export-{name}")


def test_an_exported_network_shows_its_layers(visit: Any, trained: Session, tmp_path: Path) -> None:
    export(trained, tmp_path / "page.html")
    with visit(tmp_path / "page.html") as seen:
        assert seen.page.locator(".outputs button.best").inner_text() == "7"
        seen.page.get_by_role("button", name="Output 7: show its inputs").click()
        seen.page.locator("#unit canvas.heat").first.wait_for()


def test_names_in_a_netlist_are_text(visit: Any) -> None:
    deck = '<img src=x onerror=alert(1)>\nV1 <b>in 0 10\nR1 <b>in o"ut 1k\nR2 o"ut 0 1k\n'
    with visit(cs.parse(deck.replace('"', "&quot"))) as seen:
        assert seen.text("h1") == "<img src=x onerror=alert(1)>"
        seen.page.get_by_role("tab", name="Table").click()
        assert "<b>in" in seen.text("#panel-table") and "o&quotut" in seen.text("#panel-table")
        assert seen.page.locator("img, aside b, table b").count() == 0


def test_a_server_that_has_ended_is_said(visit: Any) -> None:
    with visit(cs.parse(DIVIDER), quiet=False) as seen:
        seen.server.shutdown()
        seen.server.server_close()
        seen.page.route("**/api/answer", lambda route: route.abort())
        seen.page.get_by_label("Element", exact=True).fill("R2")
        seen.page.get_by_label("New value").fill("3k")
        seen.page.get_by_role("button", name="Solve", exact=True).click()
        assert "circuitsim view has ended" in seen.page.get_by_role("alert").inner_text()


@pytest.mark.parametrize("width", [1280, 420])
def test_everything_that_can_be_used_has_a_name(visit: Any, trained: Session, width: int) -> None:
    with visit(trained, width=width) as seen:
        for tab in ("Draw a digit", "Circuit", "All nodes", "Table"):
            seen.page.get_by_role("tab", name=tab).click()
            seen.page.wait_for_timeout(200)
            nameless = seen.page.evaluate(
                """() => [...document.querySelectorAll('button, input, select, canvas.heat, canvas.draw, [role=img]')]
                  .filter((x) => x.offsetParent !== null)
                  .filter((x) => !(x.ariaLabel || x.textContent.trim() || (x.labels && x.labels.length)))
                  .map((x) => x.outerHTML)"""
            )
            assert not nameless
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width
        if width < 1000:
            seen.picture("narrow")
