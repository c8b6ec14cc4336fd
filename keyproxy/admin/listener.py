"""The listener for those who watch, with a port of its own and nothing that changes anything.

Who may look: a known Host, no page but our own, and the token where there is one. A page of another
origin, were it the chat page on the next port, must not read figures: a browser says where a
request comes from. A Host that is not listed is DNS rebinding. Cookies count for nothing, since
they ignore ports. Sources: Fetch Metadata (Sec-Fetch-Site), RFC 6750 2.1.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import structlog
from multidict import CIMultiDictProxy

from keyproxy.admin import prometheus
from keyproxy.admin.events import Events
from keyproxy.admin.history import History
from keyproxy.admin.state import State
from keyproxy.admin.watched import Shown, Watched
from keyproxy.browser import HostRules
from keyproxy.demo.page import PageFile, read
from keyproxy.errors import Refusal
from keyproxy.floods import Floods
from keyproxy.key_forms import is_same
from keyproxy.settings import ROWS, Settings
from keyproxy.transport import refusals
from keyproxy.transport.connection import Connection, Serving
from keyproxy.transport.health import HEALTH_PATHS, health
from keyproxy.transport.intake import check_head
from keyproxy.transport.messages import Lines, Request, Response, lines
from keyproxy.transport.server import CannotListen, Server

MOST_CONNECTIONS = 64
_CELLS_A_TICK = 4  # so that nobody who missed some lacks any
_NO_APP = "(admin)"  # in counted lines
_log = structlog.get_logger("keyproxy.admin")
PAGES = Path(__file__).parent / "web"
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_EVERY_ANSWER = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Show = Callable[[Request, Connection], Awaitable[Response]]


class Admin:
    """Shows ``watched``, and what is ``shown`` of calls. Started once; ``close`` ends it all."""

    def __init__(self, watched: Watched, shown: Shown) -> None:
        self.addresses: tuple[str, ...] = ()
        self._watched, self._shown = watched, shown
        history = History(watched.ledger, lambda: self._settings.log_address)
        self._state = State(watched, shown, history, time.time())
        self._events = Events(self._state.live, partial(self._state.live, _CELLS_A_TICK))
        self._pages = pages()
        self._data: Mapping[str, Show] = {
            "/metrics": self._metrics,
            "/state.json": self._whole,
            "/events": self._events.show,
        }
        self._floods = Floods()
        self._server = Server(
            Serving(self._answer, _dress, self._settings, MOST_CONNECTIONS, self._floods)
        )

    async def start(self) -> None:
        """Listen. A default port that is taken is worth a warning; else raises CannotListen."""
        try:
            self.addresses = await self._server.listen(self._settings.admin)
        except CannotListen as error:
            wanted = ",".join(map(str, self._settings.admin))
            if not error.is_taken or wanted != ROWS["admin"].dev:
                raise
            cure = "KEYPROXY_ADMIN names another address"
            _log.warning(f"no dashboard and no metrics: {error}; {cure}")

    async def close(self) -> None:
        """Let go of everything, at once."""
        await self._events.close()
        await self._server.close()

    @property
    def _settings(self) -> Settings:
        return self._watched.kit().settings

    async def _answer(self, request: Request, connection: Connection) -> Response:
        if request.method in ("GET", "HEAD") and request.target in HEALTH_PATHS:
            return health(request.target, is_ready=self._watched.is_ready())
        try:
            return await self._show(request, connection)
        except ConnectionError:
            raise
        except Exception as error:
            refusal = error if isinstance(error, Refusal) else refusals.internal()
            if refusal is not error:
                _log.exception("a figure could not be shown")
            said = refusals.alone(refusal, self._floods, "not shown", app=_NO_APP)
            said.must_close |= not request.is_whole
            return said

    async def _show(self, request: Request, connection: Connection) -> Response:
        check_head(request)
        _check_host(request.headers, self._settings)
        _check_method(request.method)
        path = request.target.partition("?")[0]
        if (page := self._pages.get(path)) is not None:
            fields = {**_PAGE_HEADERS, "Content-Type": page.content_type}
            return Response(200, fields, page.body)
        if (show := self._data.get(path)) is None:
            raise Refusal("endpoint_not_allowed", "There is nothing here; the dashboard is at /.")
        _check_reader(request.headers, self._settings)
        return await show(request, connection)

    async def _metrics(self, request: Request, _: Connection) -> Response:
        sums, now = await prometheus.snapshot(self._watched, self._shown.tally)
        accept = request.headers.get("Accept", "")
        body, media_type = await asyncio.to_thread(prometheus.text, sums, now, accept)
        return Response(200, {"Content-Type": media_type}, body)

    async def _whole(self, *_: object) -> Response:
        fields = {"Content-Type": "application/json; charset=utf-8"}
        return Response(200, fields, json.dumps(await self._state.whole()).encode())


def _dress(request: Request, response: Response) -> Lines:
    """An answer is for our own page only, and not kept."""
    return lines({**_EVERY_ANSWER, **response.headers}.items())


def pages() -> Mapping[str, PageFile]:
    """The dashboard's files, which hold no data, each by its URL path; ``/`` is ``index.html``."""
    found = dict(read(PAGES))
    found["/"] = found.pop("/index.html")
    return found


def _check_host(headers: CIMultiDictProxy[str], settings: Settings) -> None:
    """Raises ``host_not_allowed`` unless there is one Host and it is listed."""
    hosts = headers.getall("Host", [])
    if len(hosts) != 1 or not HostRules(settings.admin_hosts).allows(hosts[0]):
        raise Refusal(
            "host_not_allowed",
            "This address does not answer under the host name that was asked for"
            " (KEYPROXY_ADMIN_HOSTS).",
        )


def _check_method(method: str) -> None:
    """Raises ``method_not_allowed`` for whatever does not only read."""
    if method not in ("GET", "HEAD"):
        raise Refusal(
            "method_not_allowed", "Nothing can be changed here.", headers={"Allow": "GET, HEAD"}
        )


def _check_reader(headers: CIMultiDictProxy[str], settings: Settings) -> None:
    """May these figures be read? Raises ``origin_not_allowed``, ``credential_missing`` and
    ``credential_invalid``. A Host that is ours was seen before."""
    own = headers["Host"]
    sites = [site.strip() for site in headers.getall("Sec-Fetch-Site", [])]
    origins = headers.getall("Origin", [])
    is_own = all(site == "same-origin" for site in sites)
    if not is_own or not set(origins) <= {f"http://{own}", f"https://{own}"}:
        raise Refusal(
            "origin_not_allowed",
            "Figures are shown to the dashboard at / and to programs, not to other pages.",
        )
    if (token := settings.admin_token) is None:
        return
    scheme, _, shown = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Refusal(
            "credential_missing",
            "Figures need a bearer token, the one in KEYPROXY_ADMIN_TOKEN_FILE.",
        )
    if not is_same(shown.strip(), token.reveal()):
        raise Refusal("credential_invalid", "This is not the token of KEYPROXY_ADMIN_TOKEN_FILE.")
