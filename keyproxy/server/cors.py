"""CORS fields on real answers, through aiohttp-cors; preflights are ``browser.py``'s.

aiohttp-cors writes the fields in a signal, so that refusals and streams carry them too. Its own
router adapter knows exact origins only, so this one asks our guard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp_cors import CorsConfig, ResourceOptions
from aiohttp_cors.abc import AbstractRouterAdapter

from keyproxy.browser import EXPOSED_HEADERS, is_preflight
from keyproxy.kit import EXCHANGE

_OPTIONS = ResourceOptions(expose_headers=EXPOSED_HEADERS)  # type: ignore[no-untyped-call]


class GuardAdapter(AbstractRouterAdapter):
    """Gives the options of the request's origin, or nothing."""

    def add_preflight_handler(
        self, routing_entity: Any, handler: Any, webview: bool = False
    ) -> None:
        """Preflights never reach the library."""

    def is_preflight_request(self, request: web.Request) -> bool:
        return is_preflight(request.method, request.headers)

    def is_cors_enabled_on_request(self, request: web.Request) -> bool:
        return EXCHANGE in request

    def set_config_for_routing_entity(self, routing_entity: Any, config: Any) -> None:
        """There is nothing to configure: the guard decides for every path alike."""

    async def get_preflight_request_config(
        self, preflight_request: web.Request, origin: str, requested_method: str
    ) -> Mapping[str, ResourceOptions]:
        raise KeyError(origin)

    def get_non_preflight_request_config(
        self, request: web.Request
    ) -> Mapping[str, ResourceOptions]:
        origin = request[EXCHANGE].kit.browser.allowed_origin(request.headers)
        return {} if origin is None else {origin: _OPTIONS}


def install(app: web.Application) -> None:
    """From now on every answer of ``app`` to an allowed origin can be read by its page."""
    CorsConfig(app, router_adapter=GuardAdapter())
