"""The server of the live page: on 127.0.0.1 only, for those who know the token, nothing but the page and its answers.

Every request must name this server as its host (no other site's name can be made to point here), and bear the token in
its path. Questions are JSON objects by POST; their values are checked before anything is computed. No path is ever
taken from a request to a file: assets are looked up by name among those of the page.
"""

from __future__ import annotations

import errno
import hmac
import json
import math
import os
import secrets
import sys
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from circuitsim.errors import CircuitError, SettingsError
from circuitsim.view.page import ASSETS, asset, live_page
from circuitsim.view.session import MOST_CHANGES, Changes, Session

HOST = "127.0.0.1"
MOST_BYTES = 256 * 1024  # of a question
_MOST_NAME = 200  # characters of a name or a number
_SECONDS = 30  # that a connection may stay silent


class BadQuestion(Exception):
    """A question that the page does not ask: its form is wrong."""


class PageServer(ThreadingHTTPServer):
    """Serves the page of one session. SettingsError when the port cannot be had (port 0: any free one)."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would share a port that is in use
    allow_reuse_port = False

    def __init__(self, session: Session, port: int = 0) -> None:
        self.session, self.token = session, secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror or error}"
            raise SettingsError(
                f"port {port} of {HOST} {reason}; choose another --port, or leave it out for a free one"
            ) from None
        self.port = int(self.server_address[1])

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.port}/{self.token}/"

    def server_bind(self) -> None:
        """As TCPServer's: no name of this machine is looked up."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "circuitsim", ""
    timeout = _SECONDS

    def do_GET(self) -> None:
        path = self._admitted()
        if path is None:
            return
        if path == "":
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; "
                "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
            page = live_page(self.server.session.about()["title"], nonce)
            self._send(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8", policy)
        elif path in ASSETS:
            self._send(HTTPStatus.OK, asset(path), ASSETS[path])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing here")

    def do_POST(self) -> None:
        path = self._admitted()
        if path is None:
            return
        question = QUESTIONS.get(path)
        if question is None:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing here")
            return
        try:
            body = self._body()
            answer = question(self.server.session, body)
        except BadQuestion as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except CircuitError as error:
            self._send_json(HTTPStatus.OK, {"error": str(error)})
        except MemoryError:
            self._send_json(HTTPStatus.OK, {"error": "not enough memory for this; use a smaller netlist"})
        except OSError:
            raise
        except Exception as error:
            traceback.print_exc()
            self._send_json(
                HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"a defect of circuitsim: {type(error).__name__}: {error}"}
            )
        else:
            self._send_json(HTTPStatus.OK, answer)

    def _admitted(self) -> str | None:
        """What follows the token in the path, when the request may be answered; else it is refused."""
        here = {f"{HOST}:{self.server.port}"} | ({HOST} if self.server.port == 80 else set())
        hosts = self.headers.get_all("Host", [])
        origins = self.headers.get_all("Origin", [])
        site = self.headers.get("Sec-Fetch-Site", "none")
        if len(hosts) != 1 or hosts[0] not in here:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "wrong host")
        elif any(origin.removeprefix("http://") not in here for origin in origins) or site not in (
            "same-origin",
            "none",
        ):
            self._refuse(HTTPStatus.FORBIDDEN, "asked from another site")
        else:
            _, _, rest = self.path.partition("/")
            token, slash, path = rest.partition("/")
            if slash and hmac.compare_digest(token.encode(), self.server.token.encode()):
                return path
            self._refuse(HTTPStatus.NOT_FOUND, "nothing here")
        return None

    def _body(self) -> dict[str, Any]:
        """The question, a JSON object of finite numbers. BadQuestion when it is not."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or "Transfer-Encoding" in self.headers:
            raise BadQuestion("a question is application/json")
        if not (length.isascii() and length.isdigit() and len(length) < 10):
            raise BadQuestion("a question says how long it is")
        if int(length) > MOST_BYTES:
            raise BadQuestion(f"a question has at most {MOST_BYTES} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)), parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise BadQuestion("a question is JSON of finite numbers") from None
        if not isinstance(body, dict):
            raise BadQuestion("a question is a JSON object")
        return body

    def _send_json(self, status: HTTPStatus, answer: Any) -> None:
        self._send(status, json.dumps(answer, allow_nan=False).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Say no; what may follow on this connection is not read."""
        self.close_connection = True
        self._send_json(status, {"error": reason})

    def _send(self, status: HTTPStatus, data: bytes, kind: str, policy: str = "default-src 'none'") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        } | ({"Connection": "close"} if self.close_connection else {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What cannot even be read as a request, or has another method: no page, no details."""
        self._refuse(HTTPStatus(code), "not a request of the page")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the address holds the token."""


# -- questions ---------------------------------------------------------------------------------------------------------


def _no_number(text: str) -> float:
    raise ValueError(text)


def _fields(body: Mapping[str, Any], *known: str) -> None:
    if unknown := [str(name)[:_MOST_NAME] for name in body if name not in known]:
        raise BadQuestion(f"unknown: {', '.join(unknown[:5])}")


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > _MOST_NAME:
        raise BadQuestion(f"{what}: a text of at most {_MOST_NAME} characters")
    return value


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise BadQuestion(f"{what}: a whole number, 0 or more")
    return value


def _finite(value: Any, what: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise BadQuestion(f"{what}: finite numbers")
    return number


def read_changes(value: Any) -> Changes:
    """What a question says about changes: {values: {NAME: "4.7k"}, sweep: {card, point}, inputs: [...]}, all optional.

    >>> read_changes({"values": {"R1": "2k"}, "sweep": {"card": 0, "point": [3]}})
    Changes(values=(('R1', '2k'),), sweep=(0, (3,)), inputs=None)
    """
    if not isinstance(value, dict):
        raise BadQuestion("changes: an object")
    _fields(value, "values", "sweep", "inputs")
    values, card, inputs = value.get("values") or {}, value.get("sweep"), value.get("inputs")
    if not isinstance(values, dict) or len(values) > MOST_CHANGES:
        raise BadQuestion(f"values: an object of at most {MOST_CHANGES} names")
    pairs = tuple((_text(name, "name"), _text(text, "value")) for name, text in values.items())
    point = None
    if card is not None:
        if not isinstance(card, dict) or not isinstance(card.get("point"), list) or len(card["point"]) > 10:
            raise BadQuestion("sweep: {card, point: [...]}")
        _fields(card, "card", "point")
        point = _whole(card.get("card"), "card"), tuple(_whole(k, "point") for k in card["point"])
    if inputs is not None and not isinstance(inputs, list):
        raise BadQuestion("inputs: a list")
    return Changes(pairs, point, None if inputs is None else tuple(_finite(x, "inputs") for x in inputs))


def _answer(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "changes", "centre", "trace")
    centre, trace = body.get("centre"), body.get("trace", False)
    if not isinstance(trace, bool):
        raise BadQuestion("trace: true or false")
    return session.answer(read_changes(body.get("changes")), None if centre is None else _text(centre, "centre"), trace)


def _scene(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "centre")
    centre = body.get("centre")
    return session.scene(None if centre is None else _text(centre, "centre"))


def _find(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "text")
    return session.find(_text(body.get("text"), "text"))


def _about(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body)
    return session.about()


def _crossbar(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "changes", "number", "quantity")
    number, quantity = _whole(body.get("number"), "number"), _text(body.get("quantity"), "quantity")
    return session.crossbar(read_changes(body.get("changes")), number, quantity)


def _group(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "changes", "number")
    return session.group(read_changes(body.get("changes")), _whole(body.get("number"), "number"))


def _nodes(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "changes")
    return session.nodes(read_changes(body.get("changes")))


def _node_at(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "number")
    return session.node_at(_whole(body.get("number"), "number"))


def _unit(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "changes", "layer", "unit")
    layer, unit = (_whole(body.get(name), name) for name in ("layer", "unit"))
    return session.unit(read_changes(body.get("changes")), layer, unit)


def _curve(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "card", "node")
    return session.curve(_whole(body.get("card"), "card"), _text(body.get("node"), "node"))


QUESTIONS: Mapping[str, Callable[[Session, Mapping[str, Any]], Any]] = {
    "api/about": _about, "api/answer": _answer, "api/crossbar": _crossbar, "api/curve": _curve, "api/find": _find,
    "api/group": _group, "api/node_at": _node_at, "api/nodes": _nodes, "api/scene": _scene, "api/unit": _unit,
}  # fmt: skip
