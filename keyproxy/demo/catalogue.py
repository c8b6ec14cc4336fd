"""The fake upstream's public routes: which models there are. No key is asked for."""

from __future__ import annotations

from aiohttp import web

from keyproxy.demo.failures import NOT_FOUND
from keyproxy.demo.models import MODELS, Model
from keyproxy.demo.replies import reply, reply_failure

routes = web.RouteTableDef()


@routes.get("/api/v1/models")
async def list_models(request: web.Request) -> web.Response:
    """Every model, or the page asked for by ``limit`` and ``offset``."""
    rows = [model.row() for model in MODELS.values()]
    first = _number(request, "offset", 0)
    last = first + _number(request, "limit", len(rows))
    following = f"/api/v1/models?offset={last}&limit={last - first}" if last < len(rows) else None
    return reply({"data": rows[first:last], "total_count": len(rows), "links": {"next": following}})


@routes.get("/api/v1/models/count")
async def count_models(request: web.Request) -> web.Response:
    return reply({"data": {"count": len(MODELS)}})


@routes.get("/api/v1/models/{author}/{slug}/endpoints")
async def list_endpoints(request: web.Request) -> web.Response:
    model = _asked(request)
    return reply_failure(NOT_FOUND) if model is None else reply({"data": model.endpoints()})


@routes.get("/api/v1/model/{author}/{slug}")
async def show_model(request: web.Request) -> web.Response:
    model = _asked(request)
    return reply_failure(NOT_FOUND) if model is None else reply({"data": model.row()})


def _asked(request: web.Request) -> Model | None:
    return MODELS.get(f"{request.match_info['author']}/{request.match_info['slug']}")


def _number(request: web.Request, name: str, default: int) -> int:
    value = request.query.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else default
