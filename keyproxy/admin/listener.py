"""The listener for those who watch, with a port of its own and nothing that changes anything."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from aiohttp import hdrs, web

from keyproxy.admin import guard, pages, prometheus
from keyproxy.admin.events import Events
from keyproxy.admin.history import History
from keyproxy.admin.readers import Shown
from keyproxy.admin.state import State
from keyproxy.admin.watched import Watched
from keyproxy.errors import Refusal
from keyproxy.floods import Floods, Refused
from keyproxy.record import new_request_id
from keyproxy.settings import ROWS, Settings
from keyproxy.transport import refusals
from keyproxy.transport.health import HEALTH_PATHS, health
from keyproxy.transport.intake import check_head
from keyproxy.transport.server import CannotListen, GuardedServer

MOST_CONNECTIONS = 64
_CELLS_A_TICK = 4  # so that nobody who missed some lacks any
_NO_APP = "(admin)"  # in counted lines
_log = structlog.get_logger("keyproxy.admin")

Show = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Admin:
    """Shows ``watched``, and what is ``shown`` of calls. Started once; ``close`` ends it all."""

    def __init__(self, watched: Watched, shown: Shown) -> None:
        self.addresses: tuple[str, ...] = ()
        self._watched, self._shown = watched, shown
        history = History(watched.ledger, lambda: self._settings.log_address)
        self._state = State(watched, shown, history, time.time())
        self._events = Events(self._first, self._tick)
        self._pages = pages.files()
        self._data: Mapping[str, Show] = {
            "/metrics": self._metrics,
            "/state.json": self._whole,
            "/events": self._events.show,
        }
        make_request = functools.partial(_Request, loop=asyncio.get_running_loop())
        self._floods = Floods()
        self._server = GuardedServer(
            self._answer, make_request, self._settings, MOST_CONNECTIONS, self._floods
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
        self._floods.close()

    @property
    def _settings(self) -> Settings:
        return self._watched.kit().settings

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method in ("GET", "HEAD") and request.raw_path in HEALTH_PATHS:
            return health(request.raw_path, is_ready=self._watched.is_ready())
        try:
            return await self._show(request)
        except ConnectionError:
            raise
        except Exception as error:
            refusal = error if isinstance(error, Refusal) else refusals.internal()
            if refusal is not error:
                _log.exception("a figure could not be shown")
            return self._refused(request, refusal)

    async def _show(self, request: web.BaseRequest) -> web.StreamResponse:
        check_head(request)
        guard.check_host(request.headers, self._settings)
        guard.check_method(request.method)
        path = request.raw_path.partition("?")[0]
        if (page := self._pages.get(path)) is not None:
            fields = {**pages.HEADERS, "Content-Type": page.content_type}
            return web.Response(body=page.body, headers=fields)
        if (show := self._data.get(path)) is None:
            raise Refusal("endpoint_not_allowed", "There is nothing here; the dashboard is at /.")
        guard.check_reader(request.headers, self._settings)
        return await show(request)

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        sums, now = await prometheus.snapshot(self._watched, self._shown.tally)
        accept = request.headers.get("Accept", "")
        body, media_type = await asyncio.to_thread(prometheus.text, sums, now, accept)
        return web.Response(body=body, headers={"Content-Type": media_type})

    async def _whole(self, request: web.BaseRequest) -> web.Response:
        return web.json_response(await self._state.whole())

    async def _first(self) -> dict[str, Any]:
        return {**await self._state.live(), "cells": self._shown.recent.cells()}

    async def _tick(self) -> dict[str, Any]:
        cells = self._shown.recent.cells(_CELLS_A_TICK)
        return {**await self._state.live(), "cells": cells}

    def _refused(self, request: web.BaseRequest, refusal: Refusal) -> web.Response:
        request_id, status, code = new_request_id(), refusal.status, refusal.code
        if not self._floods.absorbs(Refused(code, status, app=_NO_APP)):
            _log.info("not shown", request_id=request_id, http_status=status, why=code)
        response = web.Response(
            status=status,
            body=refusals.body(refusal, "", request_id),
            headers=refusals.headers_alone(refusal, request_id),
        )
        if refusal.must_close or not request.content.is_eof():
            response.force_close()
        return response


class _Request(web.BaseRequest):
    """Its answer is for our own page only, and not kept."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        headers = response.headers
        headers.pop(hdrs.SERVER, None)  # aiohttp adds its name and version
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Cache-Control", "no-store")
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
