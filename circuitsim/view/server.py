"""The server of the live page: on 127.0.0.1 only, for those with the token, only the page and its answers.

Every request must name this server as its host (so no other site's name can be made to point here), and have the token
in its path. Questions are JSON objects by POST; their values are checked before anything is computed. No path in a
request is ever used as a file path: assets are looked up by name among those of the page.
"""

from __future__ import annotations

import errno
import hmac
import json
import os
import secrets
import sys
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from circuitsim.errors import CircuitError, SettingsError
from circuitsim.view.page import ASSETS, asset, live_page
from circuitsim.view.questions import QUESTIONS, BadQuestion, read_question
from circuitsim.view.session import Session

HOST = "127.0.0.1"
MOST_BYTES = 256 * 1024  # of a question
_SECONDS = 30  # that a connection may stay silent


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
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror or error}"
            raise SettingsError(
                f"port {port} on {HOST} {reason}; choose another --port, or leave it out for a free one"
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
        """A browser that disconnects during an answer is not an error."""
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
            page = live_page(self.server.session.title, nonce)
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
        site = self.headers.get("Sec-Fetch-Site", "same-origin")  # old browsers, and programs, do not say
        if len(hosts) != 1 or hosts[0] not in here:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "wrong host")
        elif self.command == "POST" and (
            site != "same-origin" or any(origin.removeprefix("http://") not in here for origin in origins)
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
        return read_question(self.rfile.read(int(length)))

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
