"""The live page without a browser: its server, its answers, what it draws, its file, its command."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import process, some_slow

import circuitsim as cs
from circuitsim import cli, gallery
from circuitsim.circuit import Circuit
from circuitsim.errors import CircuitError, SettingsError
from circuitsim.heat import block_means, block_of, crossbar_map
from circuitsim.view import scene as scenes
from circuitsim.view.layers import contributions, find_layers, frames
from circuitsim.view.page import ASSETS, export, exported_page
from circuitsim.view.questions import QUESTIONS, BadQuestion, read_changes, read_question
from circuitsim.view.scene import Drawing
from circuitsim.view.server import HOST, MOST_BYTES, PageServer
from circuitsim.view.session import Session
from circuitsim.view.solver import Edits
from circuitsim.view.values import CELLS

ROOT = Path(__file__).parent.parent
STATIC = ROOT / "circuitsim" / "view" / "static"
DIVIDER = "divider\nV1 in 0 10\nR1 in out 1k\nR2 out 0 1k\n"
CROSSBAR = "bars\nV1[0:2] x[0:2] 0 1\nRW[0:2][0:1] x[0:2] y[0:1] g={1m}\nRs[0:1] y[0:1] 0 1k\n.output y[0:1]\n"
MIXED = (
    "mixed\n.param load=2k\nV1 a 0 5\nR1 a b 1k\nR2 b 0 {load}\nRt b 0 1k tc1=0.01\n.model d D(is=1e-12)\nD1 b c d\n"
    "Rc c 0 100\nI1 0 c 1m\nG1 b 0 a 0 1u\nE1 e 0 b 0 2\nRe e 0 1k\n.dc V1 0 5 1 TEMP 0 100 50\n"
    ".dc load 1k 3k 1k R1 1k 2k 500\n"
)
MANY = "chain\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\n" for k in range(1500)) + "Re n1500 0 1k\n"


@contextmanager
def serving(circuit: Circuit) -> Iterator[PageServer]:
    with PageServer(Session(circuit)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with serving(cs.parse(DIVIDER)) as found:
        yield found


def request(
    server: PageServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """A request as it is; a header whose value is empty is left out. `{token}` in the path is the right one."""
    given = {"Host": f"{HOST}:{server.port}"} | {name.replace("_", "-"): text for name, text in headers.items()}
    if body is not None:
        given = {"Content-Type": "application/json", "Content-Length": str(len(body))} | given
    connection = http.client.HTTPConnection(HOST, server.port, timeout=20)
    connection.putrequest(method, path.format(token=server.token), skip_host=True, skip_accept_encoding=True)
    for name, text in given.items():
        if text:
            connection.putheader(name, text)
    connection.endheaders(body)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data


def ask(server: PageServer, what: str, **body: Any) -> Any:
    status, _, data = request(server, "POST", f"/{{token}}/api/{what}", json.dumps(body).encode())
    assert status == 200, data
    return json.loads(data)


# -- who is answered ---------------------------------------------------------------------------------------------------


def test_the_page_and_its_assets(server: PageServer) -> None:
    status, headers, data = request(server, "GET", "/{token}/")
    policy = headers["Content-Security-Policy"]
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"<title>divider - circuitsim</title>" in data
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    nonce = re.search(r"'nonce-([^']+)'", policy)
    assert nonce and set(re.findall(r'<script[^>]*nonce="([^"]*)"', data.decode())) == {nonce[1]}
    assert nonce[1] not in request(server, "GET", "/{token}/")[1]["Content-Security-Policy"]
    for path, kind in ASSETS.items():
        status, headers, data = request(server, "GET", f"/{{token}}/{path}")
        assert (status, headers["Content-Type"], headers["X-Content-Type-Options"]) == (200, kind, "nosniff")
        assert data == (STATIC / Path(path).name).read_bytes()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("GET", "/{token}", {}, 404),
        ("GET", "/{token}x/", {}, 404),
        ("GET", "/wrong/static/app.js", {}, 404),
        ("GET", "/%C3%A9/", {}, 404),
        ("POST", "/wrong/api/about", {}, 404),
        ("GET", "/{token}/static/../server.py", {}, 404),
        ("GET", "/{token}/static/%2e%2e/server.py", {}, 404),
        ("GET", "/{token}//etc/passwd", {}, 404),
        ("GET", "/{token}/static/index.html", {}, 404),
        ("GET", "/{token}/api/about", {}, 404),
        ("POST", "/{token}/api/none", {}, 404),
        ("GET", "/{token}/", {"Host": "evil.example"}, 421),
        ("GET", "/{token}/", {"Host": "localhost:{port}"}, 421),
        ("GET", "/{token}/", {"Host": "127.0.0.1"}, 421),
        ("GET", "/{token}/", {"Host": ""}, 421),
        ("POST", "/{token}/api/about", {"Origin": "http://evil.example"}, 403),
        ("POST", "/{token}/api/about", {"Origin": "null"}, 403),
        ("POST", "/{token}/api/about", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("POST", "/{token}/api/about", {"Sec_Fetch_Site": "none"}, 403),
        ("POST", "/{token}/api/about", {"Content_Type": "text/plain"}, 400),
        ("POST", "/{token}/api/about", {"Content_Type": ""}, 400),
        ("POST", "/{token}/api/about", {"Content_Length": "-1"}, 400),
        ("POST", "/{token}/api/about", {"Content_Length": "²"}, 400),
        ("POST", "/{token}/api/about", {"Content_Length": str(MOST_BYTES + 1)}, 400),
        ("POST", "/{token}/api/about", {"Content_Length": "", "Transfer_Encoding": "chunked"}, 400),
        ("PUT", "/{token}/", {}, 501),
        ("HEAD", "/{token}/", {}, 501),
        ("OPTIONS", "/{token}/api/about", {}, 501),
        ("GET", "/" + "a" * 70_000, {}, 414),
    ],
)
def test_who_is_refused(server: PageServer, method: str, path: str, headers: dict[str, str], status: int) -> None:
    given = {name: text.format(port=server.port) for name, text in headers.items()}
    found, answered, data = request(server, method, path, b"{}" if method == "POST" else None, **given)
    assert found == status
    assert answered["Content-Security-Policy"] == "default-src 'none'" and "circuitsim/" not in str(answered)
    assert method == "HEAD" or set(json.loads(data)) == {"error"}
    assert server.token.encode() not in data


def test_two_hosts_are_refused(server: PageServer) -> None:
    with socket.create_connection((HOST, server.port)) as sock:
        own = f"Host: {HOST}:{server.port}\r\n"
        sock.sendall(f"GET /{server.token}/ HTTP/1.1\r\n{own}{own}\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 421")


def test_garbage_is_answered_and_the_server_goes_on(server: PageServer) -> None:
    with socket.create_connection((HOST, server.port)) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
        assert b"not a request of the page" in sock.recv(2000)
    assert ask(server, "about")["title"] == "divider"


def test_only_this_machine_reaches_it(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", server.port), timeout=5)


def test_each_server_has_a_token_of_its_own(server: PageServer) -> None:
    with serving(cs.parse(DIVIDER)) as other:
        assert other.token != server.token and len(other.token) >= 32
        assert other.address == f"http://127.0.0.1:{other.port}/{other.token}/"


def test_a_port_in_use_is_an_error(server: PageServer) -> None:
    with pytest.raises(SettingsError, match=rf"port {server.port} on 127.0.0.1 is in use; choose another --port"):
        PageServer(Session(cs.parse(DIVIDER)), server.port)


# -- what is asked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("about", b"[]"),
        ("about", b"{"),
        ("about", b"\xff"),
        ("about", b'{"more": 1}'),
        ("about", b"[" * 100_000),
        ("answer", b"{}"),
        ("answer", b'{"changes": {}, "centre": 3}'),
        ("answer", b'{"changes": {}, "trace": 1}'),
        ("answer", b'{"changes": {"values": []}}'.replace(b"[]", b"[1]")),
        ("answer", b'{"changes": {"values": {"R1": 3}}}'),
        ("answer", b'{"changes": {"other": 3}}'),
        ("answer", b'{"changes": {"inputs": [NaN]}}'),
        ("answer", b'{"changes": {"inputs": [1e999]}}'),
        ("answer", b'{"changes": {"inputs": [true]}}'),
        ("answer", b'{"changes": {"inputs": ["1"]}}'),
        ("answer", b'{"changes": {"inputs": [' + b"9" * 400 + b"]}}"),
        ("answer", b'{"changes": {"inputs": [' + b"9" * 5000 + b"]}}"),
        ("answer", b'{"changes": {"sweep": {"card": -1, "point": [0]}}}'),
        ("answer", b'{"changes": {"sweep": {"card": 0, "point": 0}}}'),
        ("answer", json.dumps({"changes": {"values": {f"R{k}": "1" for k in range(1001)}}}).encode()),
        ("answer", json.dumps({"changes": {"values": {"R" * 201: "1"}}}).encode()),
        ("find", b'{"text": 1}'),
        ("touched", b'{"card": 0, "names": "R1"}'),
        ("touched", b'{"card": -1, "names": []}'),
        ("touched", json.dumps({"card": 0, "names": ["R1"] * 1001}).encode()),
        ("group", b'{"changes": {}, "number": 1.5}'),
        ("crossbar", b'{"changes": {}, "number": 0}'),
    ],
)
def test_questions_of_another_form_are_refused(server: PageServer, what: str, body: bytes) -> None:
    status, _, data = request(server, "POST", f"/{{token}}/api/{what}", body)
    assert status == 400 and set(json.loads(data)) == {"error"}


@pytest.mark.parametrize(
    ("what", "body", "words"),
    [
        *((what, {"more": 1}, "unknown: more") for what in QUESTIONS),
        ("api/find", {"text": None}, "text: a text of at most 200 characters"),
        ("api/find", {"text": "x" * 201}, "text: a text of at most 200 characters"),
        ("api/scene", {"centre": 3}, "centre: a text"),
        ("api/answer", {"changes": {}, "trace": 1}, "trace: true or false"),
        ("api/node_at", {"number": True}, "number: a whole number, 0 or more"),
        ("api/node_at", {"number": "1"}, "number: a whole number"),
        ("api/node_at", {"number": 1.0}, "number: a whole number"),
        ("api/node_at", {"number": -1}, "number: a whole number"),
        ("api/node_at", {"number": 2**53}, "number: a whole number"),
        ("api/unit", {"changes": {}, "layer": 0}, "unit: a whole number"),
        ("api/touched", {"card": 0, "names": None}, "names: a list of at most 1000 names"),
        ("api/touched", {"card": 0, "names": ["R1"] * 1001}, "names: a list of at most 1000 names"),
        ("api/touched", {"card": 0, "names": [1]}, "name: a text"),
        ("api/nodes", {}, "changes: an object"),
        ("api/nodes", {"changes": []}, "changes: an object"),
        ("api/nodes", {"changes": {"value": {}}}, "unknown: value"),
        ("api/nodes", {"changes": {"values": "R1"}}, "values: an object of at most 1000 names"),
        ("api/nodes", {"changes": {"values": {f"R{k}": "1" for k in range(1001)}}}, "values: an object of at most"),
        ("api/nodes", {"changes": {"values": {"R1": 1}}}, "value: a text"),
        ("api/nodes", {"changes": {"sweep": [0]}}, "sweep: {card, point: [...]}"),
        ("api/nodes", {"changes": {"sweep": {"card": 0}}}, "sweep: {card, point: [...]}"),
        ("api/nodes", {"changes": {"sweep": {"card": 0, "point": [0] * 11}}}, "sweep: {card, point: [...]}"),
        ("api/nodes", {"changes": {"sweep": {"card": 0, "point": [0], "more": 1}}}, "unknown: more"),
        ("api/nodes", {"changes": {"sweep": {"card": 0, "point": [-1]}}}, "point: a whole number"),
        ("api/nodes", {"changes": {"inputs": 1.0}}, "inputs: a list"),
        ("api/nodes", {"changes": {"inputs": [True]}}, "inputs: finite numbers"),
        ("api/nodes", {"changes": {"inputs": ["1"]}}, "inputs: finite numbers"),
        ("api/nodes", {"changes": {"inputs": [10**400]}}, "inputs: finite numbers"),
        ("api/nodes", {"changes": {"inputs": [float("inf")]}}, "inputs: finite numbers"),
    ],
)
def test_a_refusal_says_what_is_wrong(what: str, body: dict[str, Any], words: str) -> None:
    with pytest.raises(BadQuestion, match=re.escape(words)):
        QUESTIONS[what](Session(cs.parse(DIVIDER)), body)


def test_questions_may_be_as_long_as_is_said() -> None:
    names, points = [f"R{k:0199}" for k in range(1000)], [0] * 9 + [2**53 - 1]
    found = read_changes(
        {"values": dict.fromkeys(names, "1"), "sweep": {"card": 0, "point": points}, "inputs": [1, 0.5]}
    )
    assert found == Edits(tuple((name, "1") for name in names), (0, tuple(points)), (1.0, 0.5))
    assert read_changes({"values": None, "sweep": None, "inputs": None}) == read_changes({}) == Edits()
    for data in (b'{"number": NaN}', b'{"number": -Infinity}', b"[" * 100_000, b"{"):
        with pytest.raises(BadQuestion, match="JSON of finite numbers"):
            read_question(data)
    with pytest.raises(BadQuestion, match="a JSON object"):
        read_question(b"[]")
    with pytest.raises(BadQuestion) as caught:
        read_changes({f"{k}{'x' * 300}": 1 for k in range(9)})
    assert str(caught.value) == "unknown: " + ", ".join(f"{k}{'x' * 199}" for k in range(5))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"values": {"R1": "-3"}}, "resistor R1: negative resistance: found -3 ohm; a new resistance must be positive"),
        ({"values": {"R1": "0"}}, "a resistance of 0 is a short"),
        ({"values": {"R1": "1e-320"}}, "R1: new values must be finite"),
        ({"values": {"R1": "abc"}}, "R1: 'abc' is not a number; write digits with an optional suffix, such as 4.7k"),
        ({"values": {"R1": "{r0*3}"}}, "R1: an expression is not allowed here: write its value instead of {r0*3}"),
        ({"values": {"R1": "r0*3"}}, "R1: 'r0*3' is not a number; write digits with an optional suffix, such as 4.7k"),
        ({"values": {"R1": "1M"}}, "resistor R1: 1M is 0.001 ohm, as M is milli in SPICE; write MEG, or m"),
        ({"values": {"R1": "nan"}}, "not a finite number"),
        ({"values": {"R9": "1k"}}, "no element 'R9'"),
        ({"values": {"<b>": "1"}}, "no element '<b>'"),
        ({"sweep": {"card": 0, "point": [0]}}, "no sweep 1"),
        ({"inputs": [1.0]}, "takes no picture"),
    ],
)
def test_values_that_cannot_be_are_messages(server: PageServer, changes: dict[str, Any], words: str) -> None:
    before = ask(server, "answer", changes={})
    assert words in ask(server, "answer", changes=changes)["error"]
    assert ask(server, "answer", changes={}) == before


@pytest.mark.parametrize(
    ("what", "body", "words"),
    [
        ("scene", {"centre": None}, ""),
        ("group", {"changes": {}, "number": 0}, "no group 0"),
        ("crossbar", {"changes": {}, "number": 0, "quantity": "power"}, "no crossbar 0"),
        ("unit", {"changes": {}, "layer": 1, "unit": 0}, "no unit 0 in layer 1"),
        ("curve", {"card": 0, "node": "out"}, "no sweep 1"),
        ("node_at", {"number": 2}, "no node 2"),
        ("touched", {"card": 0, "names": ["R1"]}, "no sweep 1"),
    ],
)
def test_parts_that_are_not_there(server: PageServer, what: str, body: dict[str, Any], words: str) -> None:
    answer = ask(server, what, **body)
    assert words in answer["error"] if words else "error" not in answer


def test_no_solution_is_a_message() -> None:
    with serving(cs.parse("loop\nV1 a 0 1\nR1 a 0 1k\n.model d D(ron=0)\nD1 0 a d\n")) as server:
        assert "error" not in ask(server, "answer", changes={})
        assert "D1" in ask(server, "answer", changes={"values": {"V1": "-1"}})["error"]


def test_a_defect_is_said_and_the_server_goes_on(
    server: PageServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "about", lambda session: 1 / 0)
    status, _, data = request(server, "POST", "/{token}/api/about", b"{}")
    assert status == 500 and "a defect of circuitsim: ZeroDivisionError" in json.loads(data)["error"]
    assert "Traceback" in capfd.readouterr().err
    assert "error" not in ask(server, "answer", changes={})


# -- answers -----------------------------------------------------------------------------------------------------------


def voltage(session: Session, name: str, **changes: Any) -> float:
    """The voltage that the page shows at a node."""
    answer, scene = session.answer(Edits(**changes)), session.scene(None)
    at = [v["label"] for v in scene["vertices"]].index(name)
    return answer["values"]["vertices"][at]


def test_a_changed_value_gives_the_new_equilibrium() -> None:
    session = Session(cs.parse(DIVIDER))
    assert voltage(session, "out") == pytest.approx(5.0)
    assert voltage(session, "out", values=(("R2", "3k"),)) == pytest.approx(7.5)
    assert voltage(session, "out", values=(("r2", " 3k "), ("V1", "-4"))) == pytest.approx(-3.0)
    certificate = session.answer(Edits((("V1", "20"),)))["certificate"]
    assert certificate["status"] == "SOLVED" and certificate["residuals"]["kcl_relative"] <= certificate["tolerance"]
    assert certificate["seconds"] > 0


def test_crossbars_change_cell_by_cell_and_arrays_as_one() -> None:
    session = Session(cs.parse(CROSSBAR))
    changed = cs.parse(CROSSBAR).with_values({"RW": [[1e-3, 1e-3], [1e-3, 5e-3], [1e-3, 1e-3]], "Rs": 1 / 2e3})
    wanted = cs.solve(changed).voltage("y[0:1]")[0]
    found = session.solution(Edits((("RW[1][1]", "5m"), ("Rs", "2k")))).voltage("y[0:1]")[0]
    assert found == pytest.approx(wanted, rel=1e-12)
    assert session.circuit.crossbars[0].g[1, 1] == 1e-3
    for name, words in (("RW[3][0]", r"has \[0:2\]\[0:1\]"), ("RW[0]", "no element"), ("RW[1][1][1]", "no element")):
        with pytest.raises(SettingsError, match=words):
            session.solution(Edits(((name, "1m"),)))
    with pytest.raises(SettingsError, match="negative conductance"):
        session.solution(Edits((("RW[0][0]", "-1"),)))


@pytest.mark.parametrize("card", [0, 1])
def test_points_of_sweeps_are_those_of_the_sweep(card: int) -> None:
    circuit = cs.parse(MIXED)
    session, result = Session(circuit), cs.sweep(circuit, circuit.netlist.analyses[card])
    shape = [len(axis["points"]) for axis in session.about()["sweeps"][card]["axes"]]
    for number in range(len(result.values)):
        point = (number % shape[0], number // shape[0])
        found = session.solution(Edits(sweep=(card, point))).voltages()[0]
        assert found == pytest.approx(result.voltages[number], rel=1e-7, abs=1e-12)
    with pytest.raises(SettingsError, match="no such point"):
        session.solution(Edits(sweep=(card, (0, 99))))
    curve = session.curve(card, "b")
    assert np.ravel(curve["lines"]) == pytest.approx(result.voltage("b")) and curve["x"] == sorted(curve["x"])


def test_a_point_drops_the_changes_before_it_that_it_touches() -> None:
    """The last change wins: of a swept element, and of what a swept parameter or the temperature has a part in."""
    session = Session(cs.parse(MIXED))
    names = ["V1", "r1", "R2", "Rt", "Rc", "I1", "G1", "E1", "none"]
    assert session.touched(0, names) == ["V1", "Rt"]
    assert session.touched(1, names) == ["r1", "R2"]
    before = ("Rc", "300"), ("R2", "9k"), ("R1", "9k")
    left = tuple(pair for pair in before if pair[0] not in session.touched(1, [name for name, _ in before]))
    assert left == (("Rc", "300"),)
    found = voltage(session, "b", values=left, sweep=(1, (2, 1)))
    now = cs.parse(MIXED.replace("load=2k", "load=3k").replace("a b 1k", "a b 1.5k").replace("c 0 100", "c 0 300"))
    assert found == pytest.approx(cs.solve(now).voltage("b")[0])
    later = cs.solve(now.with_values({"R2": 1 / 9e3})).voltage("b")[0]
    assert voltage(session, "b", values=(*left, ("R2", "9k")), sweep=(1, (2, 1))) == pytest.approx(later)
    assert abs(later - found) > 0.05


def test_points_touch_arrays_their_members_and_conductances() -> None:
    deck = (
        CROSSBAR.replace("g={1m}", "g={a}").replace("bars\n", "bars\n.param a=1m b=1k c=2\n").replace("0 1k", "0 {b}")
    )
    deck += ".func f(x) {x > 3 ? 2 : 1}\nRf y[0] 0 {1k*f(c)}\n"
    session = Session(cs.parse(deck + ".dc a 1m 2m 1m\n.dc b 1k 2k 1k\n.dc V1[1] 1 1 1\n.dc Rs 1k 1k 1\n.dc c 2 4 1\n"))
    names = ["RW", "rw[2][1]", "RW[3][0]", "Rs", "Rs[1]", "V1", "V1[0]", "V1[1]", "Rf"]
    wanted = [["RW", "rw[2][1]"], ["Rs", "Rs[1]"], ["V1", "V1[1]"], ["Rs", "Rs[1]"], ["Rf"]]
    assert [session.touched(card, names) for card in range(5)] == wanted


def test_a_sweep_keeps_no_answer_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    session, free = Session(cs.parse(MIXED)), []

    def sweep(*given: Any) -> cs.SweepResult:
        with ThreadPoolExecutor(1) as other:
            free.append(other.submit(session.solver.lock.acquire, blocking=False).result())
        return cs.sweep(*given)

    monkeypatch.setattr("circuitsim.view.session.sweep", sweep)
    assert session.curve(0, "b") == session.curve(0, "b")
    assert free == [True]


def test_what_is_swept_point_by_point_is_drawn_if_it_is_short() -> None:
    session = Session(cs.parse(DIVIDER + ".dc V1 0 500 1 R2 1k 3k 1k\n.dc R2 1k 1500 1\n"))
    assert len(session.curve(0, "out")["lines"]) == 3
    with pytest.raises(
        SettingsError, match=r"501 values of quantities other than sources, more than 500.*circuitsim sweep"
    ):
        session.curve(1, "out")


def test_edges_have_the_values_of_the_solution() -> None:
    session = Session(cs.parse(MIXED))
    scene, values = session.scene(None), session.answer(Edits())["values"]
    solution, given = session.solution(Edits()), {"V1": 5.0, "R1": 1e3, "R2": 2e3, "I1": 1e-3, "G1": 1e-6, "E1": 2.0}
    assert {e["name"] for e in scene["edges"]} >= given.keys() | {"D1"}
    for edge, (v, i, p, value) in zip(scene["edges"], values["edges"], strict=True):
        assert i == pytest.approx(solution.current(edge["name"])[0], rel=1e-12)
        assert p == pytest.approx(solution.power(edge["name"])[0], rel=1e-12)
        assert p == pytest.approx(v * i)
        assert value is None if edge["name"] == "D1" else value == pytest.approx(given.get(edge["name"], value))
        assert edge["text"].startswith(edge["name"]) and re.fullmatch(r"netlist:\d+", edge["at"])


def test_an_edge_of_several_members_has_means_of_volts_and_values_and_sums_of_currents_and_powers() -> None:
    """From s to a group of 40 nodes, of which each is held at 0 V by a source of its own."""
    deck = "bars\nVs s 0 2\nRin[0:39] s x[0:39] 1k\nVx[0:39] x[0:39] 0 0\nRW[0:39][0:1] x[0:39] y[0:1] 1k\n"
    ohms = np.linspace(1e3, 3e3, 40)
    session = Session(cs.parse(deck).with_values({"Rin": 1 / ohms}))
    edges, values = session.scene(None)["edges"], session.answer(Edits())["values"]["edges"]
    [(edge, found)] = [(edge, found) for edge, found in zip(edges, values, strict=True) if edge["name"] == "Rin"]
    assert edge["count"] == 40
    assert found == pytest.approx([2.0, (2 / ohms).sum(), (4 / ohms).sum(), 2e3])


def test_an_image_of_a_crossbar_goes_row_by_row() -> None:
    deck = "bars\nV1[3:2] x[3:2] 0 1\nRW[3:2][5:7] x[3:2] y[5:7] 1k\nRy[5:7] y[5:7] 0 1k\n"
    g = np.arange(1.0, 7.0).reshape(2, 3) * 1e-3
    session = Session(cs.parse(deck).with_values({"RW": g, "V1": [1.0, 3.0]}))
    image = session.crossbar(Edits(), 0, "conductance")
    assert (image["rows"], image["cols"], image["first"], image["step"]) == (2, 3, [3, 5], [-1, 1])
    assert image["values"] == pytest.approx(g.ravel())
    current = session.solution(Edits()).current("RW")[0]
    assert session.crossbar(Edits(), 0, "current")["values"] == pytest.approx(current.ravel(), rel=1e-4)
    units = [session.crossbar(Edits(), 0, quantity)["unit"] for quantity in ("conductance", "current", "power")]
    assert units == ["S", "A", "W"]


def test_wires_of_a_crossbar_carry_what_flows_into_it() -> None:
    session = Session(cs.parse(CROSSBAR))
    scene, values = session.scene(None), session.answer(Edits())["values"]
    names = [scene["vertices"][end]["label"] for _, end in scene["wires"]]
    into = dict(zip(names, values["wires"], strict=True))
    through = session.solution(Edits()).current("RW")[0]
    assert [into[f"x[{k}]"] for k in range(3)] == pytest.approx(through.sum(axis=1))
    assert [into[f"y[{k}]"] for k in range(2)] == pytest.approx(-through.sum(axis=0))
    bar = [v["kind"] for v in scene["vertices"]].index("crossbar")
    assert values["vertices"][bar] == pytest.approx(session.solution(Edits()).power("RW").sum())


def test_inputs_may_be_given() -> None:
    assert voltage(Session(cs.parse(DIVIDER), inputs=["V1=4"]), "out") == pytest.approx(2.0)
    with pytest.raises(SettingsError, match="no element"):
        Session(cs.parse(DIVIDER), inputs=["V9=4"])


def test_a_point_of_a_sweep_goes_before_given_inputs() -> None:
    deck = DIVIDER + "V2 b 0 3\nRb b 0 1k\nI1[0:1] 0 c[0:1] 1m\nRc[0:1] c[0:1] 0 1k\n.dc V1 0 4 1\n.dc I1[1] 0 4m 1m\n"
    session = Session(cs.parse(deck + ".dc TEMP 0 50 50\n"), inputs=("V1=2", "V2=7", "I1=5m"))
    for k in range(5):
        assert voltage(session, "out", sweep=(0, (k,))) == pytest.approx(k / 2)
        assert voltage(session, "b", sweep=(0, (k,))) == pytest.approx(7.0)
        assert voltage(session, "c[0]", sweep=(1, (k,))) == pytest.approx(5.0)
        assert voltage(session, "c[1]", sweep=(1, (k,))) == pytest.approx(k)
    assert session.curve(0, "out")["lines"] == [pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])]
    assert voltage(session, "b", sweep=(2, (1,))) == pytest.approx(7.0)
    for card in (1, 2):
        with pytest.raises(SettingsError, match="those of the netlist as it stands: leave --input out, or write"):
            session.curve(card, "b")


def test_a_batch_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([1.0, 2.0]))
    with pytest.raises(SettingsError, match="view shows one"):
        Session(cs.parse(DIVIDER), inputs=[f"V1=@{tmp_path / 'v.npy'}"])


def test_what_is_not_drawn_is_said() -> None:
    session = Session(cs.parse(DIVIDER + ".options rshunt=1meg\n.tran 1 2\n"))
    first, second = session.about()["warnings"]
    assert "rshunt are not drawn" in first and ".tran" in second


def test_what_overflows_is_unknown() -> None:
    session = Session(
        cs.parse(CROSSBAR + "Rbig x[0] 0 1e-15\nRWbig[0:1][0:1] x[0:1] z[0:1] 1e-15\nRz[0:1] z[0:1] 0 1e-15\n")
    )
    answer = session.answer(Edits((("V1", "1e149"),)))
    values = answer["values"]
    assert [row[2] for row in values["edges"]].count(None) > 0 and None not in [row[0] for row in values["edges"]]
    assert None in session.crossbar(Edits((("V1", "1e149"),)), 1, "power")["values"]
    json.dumps(answer, allow_nan=False)


def test_what_is_left_out_has_no_value() -> None:
    deck = DIVIDER + "I9 0 p 1m\nR9 p q 1k\n"
    session = Session(cs.parse(deck), cs.Settings(lenient=True))
    assert voltage(session, "p") is None and voltage(session, "out") == pytest.approx(5.0)
    json.dumps(session.answer(Edits()), allow_nan=False)


def test_points_of_a_sweep_leave_out_what_has_no_solution_there() -> None:
    """At every point I9 pushes 1 mA into p and q; I8 can draw a current from w, through the diode, but not push one."""
    deck = DIVIDER + ".param k=1\nR3 out 0 {k*1meg}\nI9 0 p 1m\nR9 p q 1k\nI8 0 w 0\nD8 0 w d\n.model d D(is=1e-12)\n"
    cards = ".dc V1 0 4 2\n.dc R2 1k 3k 2k\n.dc I8 -1m 1m 1m\n.dc k 0 1 1\n"
    session = Session(cs.parse(deck + cards), cs.Settings(lenient=True))
    assert [voltage(session, "out", sweep=(0, (k,))) for k in range(3)] == pytest.approx([0, 1, 2], rel=1e-3)
    assert [voltage(session, "out", sweep=(1, (k,))) for k in range(2)] == pytest.approx([5, 7.5], rel=1e-3)
    assert [voltage(session, "p", sweep=(card, (0,))) for card in range(3)] == [None] * 3
    assert [voltage(session, "w", sweep=(2, (k,))) is None for k in range(3)] == [False, False, True]
    assert voltage(session, "out", sweep=(2, (2,))) == pytest.approx(5, rel=1e-3)
    with pytest.raises(CircuitError, match="R3"):  # a short is another circuit
        session.solution(Edits(sweep=(3, (0,))))


def test_names_are_found() -> None:
    session = Session(cs.parse(CROSSBAR))
    assert [hit["name"] for hit in session.find("X[1]")] == ["x[1]"]
    assert {"name": "RW", "what": "crossbar", "at": "RW"} in session.find("w")
    assert session.find("rs")[0]["what"] == "R" and session.find(" ") == [] and session.find("zz") == []
    many = Session(cs.parse(MANY))
    assert len(many.find("n")) == 20
    assert many.find("N1499")[0] == {"name": "n1499", "what": "node", "at": "n1499"}
    assert many.find("r1399")[0] == {"name": "R1399", "what": "R", "at": "R1399"}


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_long_sides_of_crossbars_are_groups() -> None:
    session = Session(cs.parse(gallery.drn([1568, 40, 10])))
    scene, values = session.scene(None), session.answer(Edits())["values"]
    kinds = [v["kind"] for v in scene["vertices"]]
    assert scene["whole"] and len(kinds) < 50 and kinds.count("group") == 2 and kinds.count("crossbar") == 2
    assert {v["label"]: v["count"] for v in scene["vertices"] if v["kind"] == "group"} == {
        "x[0:1567]": 1568,
        "h1[0:39]": 40,
    }
    sources = next(k for k, e in enumerate(scene["edges"]) if e["kind"] == "V")
    total = session.solution(Edits()).current("Vx")[0].sum()
    assert scene["edges"][sources]["count"] == 1568 and scene["edges"][sources]["name"] == "Vx"
    assert values["edges"][sources][1] == pytest.approx(total)
    group = session.group(Edits(), 1)
    v = session.solution(Edits()).voltage("h1[0:39]")[0]
    assert [x for x in group["values"] if x is not None] == pytest.approx(v, rel=1e-4)
    at = kinds.index("group", kinds.index("group") + 1)
    assert values["vertices"][at] == pytest.approx([v.min(), v.mean(), v.max()])


def test_large_circuits_are_drawn_near_a_node() -> None:
    session = Session(cs.parse(MANY))
    scene = session.scene("n700")
    labels = {v["label"] for v in scene["vertices"]}
    assert not scene["whole"] and not scene["all_nodes"] and len(labels) <= scenes.NEAR + 2
    assert {f"n{k}" for k in range(641, 760)} <= labels
    assert sum(v["hidden"] for v in scene["vertices"] if v["kind"] == "node") == 2
    answer = session.answer(Edits(), centre="n700")
    assert len(answer["values"]["vertices"]) == len(scene["vertices"])
    at = [v["label"] for v in scene["vertices"]].index("n700")
    assert answer["values"]["vertices"][at] == pytest.approx(session.solution(Edits()).voltage("n700")[0])
    assert "n42" in {v["label"] for v in session.scene("R42")["vertices"]}
    assert session.nodes(Edits())["rows"] <= CELLS
    with pytest.raises(CircuitError, match="no node 'n1501'"):
        session.scene("n1501")


def test_of_many_elements_between_few_nodes_some_are_drawn() -> None:
    """A browser takes minutes for thousands of lines between two nodes; every pair of neighbours keeps its line."""
    deck = "parallel\nV1 a 0 1\nRa[0:9999] a b 1\nRb[0:9999] b 0 1\nR1 b c 1\nR2 0 c 1\n"
    scene = Session(cs.parse(deck)).scene(None)
    label = [v["label"] for v in scene["vertices"]]
    pairs = [tuple(sorted((label[e["a"]], label[e["b"]]))) for e in scene["edges"]]
    assert not scene["whole"] and scene["all_nodes"]
    assert {pair: pairs.count(pair) for pair in set(pairs)} == {
        ("0", "a"): 1, ("a", "b"): 20, ("0", "b"): 20, ("b", "c"): 1, ("0", "c"): 1,
    }  # fmt: skip
    assert {v["label"]: v["hidden"] for v in scene["vertices"]} == {"0": 0, "a": 9980, "b": 19960, "c": 0}


def test_pairs_of_nodes_share_the_elements_that_are_drawn() -> None:
    """1,770 pairs with two elements each are too many: every pair keeps one, some keep both."""
    deck = "pairs\n" + "".join(f"R{k}_{i}_{j} n{i} n{j} 1\n" for k in "ab" for i in range(60) for j in range(i))
    scene = Session(cs.parse(f"{deck}V1 n0 0 1\n")).scene(None)
    pairs = Counter((e["a"], e["b"]) for e in scene["edges"])
    assert len(pairs) == 1771 and pairs.total() == scenes.MOST_EDGES and max(pairs.values()) == 2
    assert not scene["whole"] and scene["all_nodes"]


def test_a_large_circuit_with_many_elements_between_two_nodes_is_laid_out_as_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Distances between all of a thousand vertices take twenty seconds."""
    monkeypatch.setattr(scenes, "_by_parts", lambda *_: pytest.fail("all distances"))
    deck = gallery.grid(15, 15).text
    node = Drawing(cs.parse(deck)).label(5)
    more = "".join(f"Rp{k} {node} 0 1\n" for k in range(scenes.MOST_PARALLEL + 5))
    few, many = (Drawing(cs.parse(text)).scene() for text in (deck, f"{deck}\n{more}"))
    assert few.whole and not many.whole and many.all_nodes
    assert len(many.vertices) >= len(few.vertices) > scenes._FINE


def test_an_element_with_both_ends_at_a_node_is_hidden_once() -> None:
    loops = "".join(f"Rl{k} b b 1\n" for k in range(scenes.MOST_PARALLEL + 3))
    scene = Session(cs.parse(f"loops\nV1 a 0 1\nR1 a b 1\nR2 b 0 1\n{loops}")).scene(None)
    assert {v["label"]: v["hidden"] for v in scene["vertices"]} == {"0": 0, "a": 0, "b": 3}


def test_ground_with_many_neighbours_stands_at_each_of_them() -> None:
    few = Drawing(cs.parse(DIVIDER)).scene()
    assert [v.kind for v in few.vertices].count("ground") == 1
    many = Drawing(
        cs.parse(
            "comb\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1\nS{k} n{k} 0 1\n".replace("S", "Rg") for k in range(6))
        )
    ).scene()
    assert [v.kind for v in many.vertices].count("ground") == 6
    for edge in many.edges:
        if edge.name.startswith("Rg"):
            ends = {many.vertices[edge.a].kind, many.vertices[edge.b].kind}
            assert ends == {"node", "ground"}


@pytest.mark.parametrize("deck", [DIVIDER, CROSSBAR, MIXED, MANY, gallery.grid(15, 15).text, gallery.drn([64, 40, 3])])
def test_scenes_are_whole_and_vertices_lie_apart(deck: str) -> None:
    scene = Drawing(cs.parse(deck)).scene()
    ends = {k for e in scene.edges for k in (e.a, e.b)} | {k for wire in scene.wires for k in wire}
    assert ends == set(range(len(scene.vertices)))
    at = scene.positions
    assert at.shape == (len(scene.vertices), 2) and np.isfinite(at).all()
    distances = np.linalg.norm(at[:, None] - at, axis=2) + 1e9 * np.eye(len(at))
    assert distances.min() > 20


def test_circuits_of_almost_nothing() -> None:
    for deck in ("none\nR1 0 0 1k\n", "one\nV1 a 0 1\n", "alone\nR1 a b 1k\n"):
        session = Session(cs.parse(deck))
        assert session.scene(None)["whole"] and session.answer(Edits())["certificate"]["status"] == "SOLVED"
        assert len(answers(exported_page(session)[0])["nodes"]["values"]) == len(session.circuit.nodes) - 1


def test_what_stands_alone_is_drawn_too() -> None:
    scene = Drawing(cs.parse("pairs\nV1 a 0 1\nR1 a 0 1\nV2 b c 1\nR2 b c 1\nV3 d d2 1\nR3 d d2 1\nR4 e e 1\n")).scene()
    assert {v.label for v in scene.vertices} == {"0", "a", "b", "c", "d", "d2", "e"}


def test_binned_images_are_means_of_blocks() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(size=(CELLS * 2 + 3, 7))
    table[0, 0], table[4, 2] = np.nan, np.inf
    tall, wide = block_of(table.shape, CELLS)
    image = block_means(table, (tall, wide))
    assert (tall, wide) == (3, 1) and image.shape[0] <= CELLS
    known = np.where(np.isfinite(table), table, np.nan)
    for i in range(image.shape[0]):
        assert image[i] == pytest.approx(np.nanmean(known[3 * i : 3 * i + 3], axis=0))


@pytest.mark.parametrize("shape", [(3, 2), (400, 500), (161, 1)])
def test_crossbar_images_are_means_of_the_crossbar(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.heat._AT_ONCE", 30_000)
    x, y = (f"[0:{n - 1}]" for n in shape)
    deck = f"x\nV1{x} x{x} 0 {{aunif(0, 1)}}\nRW{x}{y} x{x} y{y} g={{1m + aunif(0, 1m)}}\nR1{y} y{y} 0 1k\n"
    solution = cs.solve(cs.parse(deck))
    bar = solution.circuit.crossbars[0]
    for quantity, table in (
        ("conductance", bar.g),
        ("current", solution.current("RW")[0]),
        ("power", solution.power("RW")[0]),
    ):
        tall, wide = block_of(shape, CELLS)
        image = crossbar_map(bar, solution.voltages()[0], quantity, (tall, wide))
        assert max(image.shape) <= CELLS
        for i, j in ((0, 0), (image.shape[0] - 1, image.shape[1] - 1), (image.shape[0] // 2, image.shape[1] // 2)):
            block = table[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide]
            assert image[i, j] == pytest.approx(block.mean(), rel=1e-9)
    with pytest.raises(cs.SettingsError, match="no quantity 'ohms' of a crossbar; choose conductance, current, power"):
        crossbar_map(bar, solution.voltages()[0], "ohms", (1, 1))


# -- networks that read pictures ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> Session:
    return Session(cs.parse(gallery.drn([2 * 64, 40, 10], gain=5.0)))


def test_layers_are_found(network: Session) -> None:
    layers = network.layers
    assert layers is not None and (layers.side, layers.pair) == (8, True)
    assert [nodes.size for nodes in layers.nodes] == [128, 40, 10]
    about = network.about()["layers"]
    assert about["labels"] == ["x[0:127]", "h1[0:39]", "y[0:9]"] and len(about["given"]) == 64
    assert find_layers(cs.parse(DIVIDER)) is None and find_layers(cs.parse(CROSSBAR + ".input V1\n")) is None
    assert find_layers(cs.parse(DIVIDER + "I1 0 out 1m\n.input I1\n")) is None


def test_pictures_are_solved_and_seen_settling(network: Session) -> None:
    grey = np.linspace(0, 1, 64)
    inputs = tuple(np.concatenate([5 * grey, -5 * grey]).tolist())
    answer = network.answer(Edits(inputs=inputs), trace=True)
    wanted = cs.solve(network.solver.base.with_values({"Vx": np.array(inputs)}))
    assert answer["layers"][2] == pytest.approx(wanted.voltage("y[0:9]")[0], rel=1e-9)
    assert answer["layers"][0] == pytest.approx(inputs)
    first, last = np.array(answer["frames"][0]), np.array(answer["frames"][-1])
    final = np.concatenate([answer["layers"][1], answer["layers"][2]])
    assert not first.any() and np.abs(last - final).max() < 0.01 * np.abs(final).max()
    with pytest.raises(SettingsError, match=r"has 3 values, the \.input sources are 128"):
        network.answer(Edits(inputs=(1.0, 2.0, 3.0)))


def test_frames_are_those_of_single_sweeps(network: Session) -> None:
    problem, nodes = network.solver.base, np.arange(1, len(network.circuit.nodes))
    shown = frames(problem, cs.Settings(), [nodes])
    for count in (1, 2):
        settings = cs.Settings(method="bcd", max_sweeps=count)
        assert shown[count] == pytest.approx(cs.solve(problem, settings, raise_on_failure=False).voltages(nodes)[0])


def test_what_comes_into_a_unit_is_what_leaves_it(network: Session) -> None:
    solution, layers = network.solution(Edits()), network.layers
    assert layers is not None
    v = solution.voltages()[0]
    g, i = contributions(solution.circuit, layers, v, 1, 3)
    assert g == pytest.approx(solution.circuit.crossbars[0].g[:, 3]) and g.size == 128
    assert i == pytest.approx(solution.current(solution.circuit.crossbars[0].name)[0][:, 3])
    unit = network.unit(Edits(), 2, 4)  # an output: no diode, a bias source only
    assert unit["name"] == "y[4]" and unit["sum"] == pytest.approx(0.0, abs=1e-9 * np.abs(unit["i"]).max())


def test_the_sum_into_a_unit_is_of_all_currents_also_where_only_some_are_shown(
    network: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = network.unit(Edits(), 1, 3)
    monkeypatch.setattr("circuitsim.view.session.MOST_UNITS", 3)
    some = network.unit(Edits(), 1, 3)
    assert (some["g"], some["i"]) == (whole["g"][:3], whole["i"][:3])
    assert some["sum"] == whole["sum"] == pytest.approx(sum(whole["i"]), rel=1e-3)


# -- the file ----------------------------------------------------------------------------------------------------------


def decoded(page: str) -> dict[str, bytes]:
    """The modules inside an exported page."""
    found = re.search(r'<script type="importmap"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found
    modules = json.loads(found[1])["imports"]
    assert all(text.startswith("data:text/javascript;base64,") for text in modules.values())
    return {name: base64.b64decode(text.partition(",")[2]) for name, text in modules.items()}


def answers(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="answers"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize("deck", [DIVIDER, CROSSBAR, MIXED, gallery.drn([128, 40, 10])])
def test_an_exported_page_needs_nothing_else(deck: str, tmp_path: Path) -> None:
    session = Session(cs.parse(deck))
    export(session, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and "base-uri 'none'; form-action 'none'" in policy[1] and "unsafe" not in policy[1]
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]*", "", page))
    for reference in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert reference.startswith(("data:", "#"))
    assert decoded(page).keys() >= {"cytoscape", "uplot", "view/app"}
    assert decoded(page)["view/app"] == (STATIC / "app.js").read_bytes()
    found = answers(page)
    assert found["about"] == session.about() and found["answer"]["certificate"]["status"] == "SOLVED"
    assert len(page) < 4_000_000 and list(tmp_path.iterdir()) == [tmp_path / "page.html"]


def test_an_exported_page_holds_parts_and_curves() -> None:
    found = answers(exported_page(Session(cs.parse(MIXED)))[0])
    assert {"curve/0/b", "curve/1/c", "nodes"} <= found.keys()
    found = answers(exported_page(Session(cs.parse(gallery.drn([128, 40, 10]))))[0])
    assert {"crossbar/0/current", "group/0", "unit/1/39", "unit/2/9"} <= found.keys()


def test_names_in_a_netlist_are_never_markup() -> None:
    deck = "</title><script>alert(1)</script>\nV1 <img 0 10\nR1 <img </script> 1k\nR2 </script> 0 1k\n"
    session = Session(cs.parse(deck))
    page, _ = exported_page(session)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page and page.count("</script>") == 3
    assert {v["label"] for v in answers(page)["scene"]["vertices"]} == {"0", "<img", "</script>"}
    with serving(session.circuit) as server:
        assert b"<script>alert" not in request(server, "GET", "/{token}/")[2]


def test_own_scripts_write_no_markup() -> None:
    own = [path for path in STATIC.glob("*.js") if path.name != "uPlot.esm.js"]
    assert {f"static/{path.name}" for path in own} == {path for path in ASSETS if path.endswith(".js")} - {
        "static/uPlot.esm.js"
    }
    for path in own:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|https?:", path.read_text()
        )


def test_vendored_files_are_what_they_are_said_to_be() -> None:
    rows = re.findall(
        r"^\| (\S+) \| (\S+) \| ([\d.]+) \| MIT, (\S+) \| ([0-9a-f]{64}) \|$",
        (STATIC / "VENDORED.md").read_text(),
        re.MULTILINE,
    )
    assert {row[0] for row in rows} == {"cytoscape.esm.min.mjs", "uPlot.esm.js", "uPlot.min.css"}
    for name, _, _, licence, digest in rows:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest
        assert "Permission is hereby granted, free of charge" in (STATIC / licence).read_text().replace("\n", " ")


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def deck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "divider.cir"
    path.write_text(DIVIDER)
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.cir"], "no such file: none.cir"),
        (["divider.cir", "--export", "none/page.html"], "there is no folder none; make it first"),
        (["divider.cir", "--export", "."], "not a regular file"),
        (
            ["divider.cir", "--export", "divider.cir"],
            "cannot write divider.cir: it is an input file; choose another name",
        ),
        (["divider.cir", "--export", "p.html", "--port", "80"], "leave --port and --no-browser out"),
        (["divider.cir", "--port", "65536"], "65536 is not in the range"),
        (["divider.cir", "--input", "V1=x"], "input V1=x"),
        (["divider.cir", "--no-browser", "--max-sweeps", "0"], "max_sweeps must be at least 1"),
    ],
)
def test_bad_commands(deck: Path, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli.main, ["view", *arguments])
    assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.stderr
    assert list(deck.parent.iterdir()) == [deck]


def test_the_command_says_that_a_port_is_in_use(deck: Path, server: PageServer) -> None:
    result = CliRunner().invoke(cli.main, ["view", "divider.cir", "--no-browser", "--port", str(server.port)])
    assert result.exit_code == 2
    assert f"error: port {server.port} on 127.0.0.1 is in use; choose another --port" in result.stderr


def test_what_cannot_be_solved_is_not_shown(deck: Path) -> None:
    deck.write_text("loop\nV1 a 0 1\nV2 a 0 2\nR1 a 0 1k\n")
    result = CliRunner().invoke(cli.main, ["view", "divider.cir", "--no-browser"])
    assert result.exit_code == 2 and "V2" in result.stderr and result.stdout == ""
    deck.write_text(gallery.drn([128, 40, 10]))
    hasty = ["--method", "bcd", "--max-sweeps", "1"]
    result = CliRunner().invoke(cli.main, ["view", "divider.cir", "--export", "page.html", *hasty])
    assert result.exit_code == 3 and "MAX_SWEEPS" in result.stderr and not Path("page.html").exists()


def test_the_command_exports(deck: Path) -> None:
    result = CliRunner().invoke(cli.main, ["view", "divider.cir", "--export", "page.html"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert answers((deck.parent / "page.html").read_text())["about"]["file"] == "divider.cir"


def test_a_sweep_that_cannot_be_is_left_out_of_the_file(deck: Path) -> None:
    card = ".dc load -1k 1k 2k"
    deck.write_text(f"or\n.param load=1k\nV1 a 0 5\nR1 a b/c 1k\nR2 b/c 0 {{load}}\n.dc V1 1 2 1\n{card}\n")
    result = CliRunner().invoke(cli.main, ["view", "divider.cir", "--export", "page.html"])
    assert result.exit_code == 0 and result.stderr.count("left out") == 1
    assert f"warning: left out: the curves of {card}: " in result.stderr
    assert "at load = -1000: resistor R2: negative resistance" in result.stderr
    found = answers(Path("page.html").read_text())
    assert "lines" in found["curve/0/b/c"] and "R2: negative" in found["curve/1/b/c"]["error"]


def test_a_failed_export_leaves_what_was_there(deck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = deck.parent / "page.html"
    target.write_text("before")
    monkeypatch.setattr("circuitsim.view.page.exported_answers", lambda session: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(Session(cs.parse(DIVIDER)), target)
    assert target.read_text() == "before" and len(list(deck.parent.iterdir())) == 2


@pytest.mark.skipif(os.name != "posix", reason="SIGINT to one process")
@pytest.mark.parametrize("browser", some_slow([False, True], 1))
def test_the_command_serves_until_it_is_interrupted(deck: Path, browser: bool) -> None:
    """Without a browser on the machine it says so, and serves."""
    nowhere = {name: text for name, text in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    command = [sys.executable, "-m", "circuitsim", "view", str(deck), *([] if browser else ["--no-browser"])]
    env = nowhere | {"PATH": "/none", "PYTHONPATH": str(ROOT)}
    with process(command, env=env) as running:
        assert running.stdout and running.stderr
        address = running.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]{32})/\n", address)
        assert found
        told = [running.stderr.readline() for _ in range(1 + browser)]
        connection = http.client.HTTPConnection(HOST, int(found[1]), timeout=20)
        connection.request("GET", f"/{found[2]}/")
        assert connection.getresponse().status == 200
        connection.close()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert sorted(told) == sorted(
        ["press Ctrl-C to end\n"] + ["no browser was found: open the address above in one, on this machine\n"] * browser
    )
    assert (running.returncode, out, err) == (0, "", "ended\n")
