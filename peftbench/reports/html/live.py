"""The page of a results folder while runs are in progress, served on this machine.

The server reads the folder and answers GET alone. The page asks it every two seconds what runs,
and loads itself again where there are new results; its address keeps filters and sorting.
"""

import ipaddress
import json
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.run import Json
from peftbench.reports.html import html
from peftbench.reports.html.data import contents
from peftbench.results import in_flight
from peftbench.results.store import ResultsFolder

#: A page that took so many seconds is not made again for this many times as long.
_REST = 5


class LivePage:
    """The page of a folder, made again where the folder has changed.

    Args:
        results: the folder.
        against, margin, where: as of `data.contents`.
    """

    def __init__(self, results: ResultsFolder, against: str | None, margin: float, where: str):
        self._results = results
        self._given = (against, margin, where)
        self._lock = threading.Lock()
        self._state, self._body, self._due = "", b"", 0.0

    def state(self) -> str:
        """The state of the folder that `body` shows now."""
        return self._results.state() if time.monotonic() >= self._due else self._state

    def body(self) -> bytes:
        """The HTML."""
        with self._lock:
            state = self.state()
            if state != self._state or not self._body:
                start = time.monotonic()
                self._body = self._made(state).encode()
                self._state = state
                self._due = time.monotonic() + _REST * (time.monotonic() - start)
            return self._body

    def _made(self, state: str) -> str:
        against, margin, where = self._given
        try:
            return html(contents(self._results, against, margin=margin, where=where), state)
        except (ConfigError, RecordError) as error:  # no record yet, or none of the baseline
            return html(None, state, f"Nothing to show yet: {error}")

    def progress(self) -> Json:
        """What runs on this machine, and the state of the folder that the page should show."""
        done = {*self._results.keys(), *self._results.evaluations()}
        failed = len(set(self._results.failed()) - done)
        return {
            "state": self.state(),
            "failed": f"{failed} failed; `peftbench plan` tells why" if failed else "",
            "commands": [
                {
                    "count": one.count,
                    "command": one.command,
                    "jobs": [
                        {
                            "title": job["title"],
                            "fraction": job["fraction"],
                            "step": in_flight.step_text(job),
                        }
                        for job in one.jobs
                    ],
                }
                for one in in_flight.read(self._results)
            ],
        }


class Server(ThreadingHTTPServer):
    """Serves one page."""

    daemon_threads = True

    def __init__(self, host: str, port: int, page: LivePage):
        super().__init__((host, port), _Handler)
        self.page = page
        self.host = host

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://{self.host}:{self.server_port}/"

    def allows(self, name: str) -> bool:
        """Whether a request for this host is answered.

        On this machine alone only for its own names: a page elsewhere may give a name of its own
        this address, and would then read the results.
        """
        with suppress(ValueError):
            if not ipaddress.ip_address(self.host).is_loopback:
                return True
        return name in {f"{host}:{self.server_port}" for host in (self.host, "localhost")}

    def serve_until_interrupted(self) -> None:
        """Serve until Ctrl-C."""
        with suppress(KeyboardInterrupt):
            self.serve_forever()


def server(
    results: ResultsFolder,
    host: str,
    port: int,
    against: str | None,
    margin: float,
    where: str,
) -> Server:
    """Open the server of a folder's page.

    Args:
        results: the folder; it need not be there yet.
        host, port: where it listens; 0 is a free port.
        against, margin, where: as of `data.contents`.

    Raises:
        ConfigError: if it cannot listen there.
    """
    try:
        return Server(host, port, LivePage(results, against, margin, where))
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: {error.strerror or error}; --port 0 takes a free port"
        ) from error


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        """Answer with the page or with what runs."""
        page = self.server.page
        path = self.path.partition("?")[0]
        if not self.server.allows(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.FORBIDDEN, "Another host is not served")
        elif path == "/":
            self._send(page.body(), "text/html; charset=utf-8")
        elif path == "/progress.json":
            self._send(json.dumps(page.progress()).encode(), "application/json")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, body: bytes, kind: str) -> None:
        with suppress(ConnectionError):  # the reader has gone
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the page asks every two seconds."""
