"""handle(): the order of the steps, nothing else.

What a step decides with is in the kit, what becomes of the call in its record.
"""

from __future__ import annotations

from typing import Any

from keyproxy import session_endpoint
from keyproxy.browser import is_preflight
from keyproxy.call import Call, Client, Endpoint
from keyproxy.clients import addresses
from keyproxy.dialects import CATALOGUE
from keyproxy.errors import Refusal
from keyproxy.kit import AppKit, Exchange, Kit
from keyproxy.limits.admit import count_failure
from keyproxy.policy import calls
from keyproxy.policy.models import Served
from keyproxy.record import Record
from keyproxy.relay import conditional, relay
from keyproxy.strict_json import body
from keyproxy.transport import intake
from keyproxy.transport.messages import Request, Response
from keyproxy.upstream import headers
from keyproxy.upstream.catalogue import KeyWanted

_MAY_BE_UNLISTED = (400, 404)  # what an upstream says of a model that it does not know


async def handle(request: Request, exchange: Exchange) -> Response:
    """Answer one call; nothing reaches the upstream before every check has passed."""
    kit, record = exchange.kit, exchange.record
    refuse_when_stopping(kit)  # 503
    intake.check_head(request)  # 400, 405, 417
    kit.browser.check_host(request.headers)  # 421
    if kit.life.pairing is not None:
        kit.life.pairing.check(request)  # 403
    if is_preflight(request.method, request.headers):
        response = Response(204, kit.browser.preflight(request.headers))  # 403
        record.is_quiet = True  # only refused ones are worth a line
        return response
    if record.origin is None:
        kit.browser.check_origin(request.headers)  # 403
    if record.path == session_endpoint.PATH:
        return await open_session(request, exchange)  # 400, 403, 404, 405, 413, 415, 429
    client = await identify(request, kit, record)  # 400, 401, 403, 429
    app = kit.apps[client.app]
    if len(kit.apps) > 1:
        app.browser.check_origin(request.headers)  # 403: the app's own origins
    method, host = request.method, request.headers.get("Host", "")
    endpoint, path, query = app.endpoints.find(method, request.target, host)  # 400, 404, 405
    record.endpoint = endpoint.name
    with (
        intake.Hold(kit.life.room) as hold,
        await app.admission.admit(client, exchange.headers),  # 429
    ):
        if endpoint.dialect is CATALOGUE:
            return await show_catalogue(request, kit, app, path, query)  # 400, 403, 502
        call = await read_call(request, hold, exchange, client, endpoint, query)  # 400, 403, …
        record.models, record.is_streaming = call.models, call.is_streaming
        idle_seconds = app.settings.idle_timeout_seconds
        if app.attempts is not None:
            answering = app.attempts.answer(call, client, record, exchange.headers)
            del call
            async with answering as answer:  # 402, 404, 429, 502, 503, 504
                hold.release()
                return await relay(exchange.connection, answer, record, idle_seconds=idle_seconds)
        ids, models = call.ids, app.policy.models
        record.watchers.append(Served(record, ids, models).watch)
        booking = app.bookings.reserve(record, client, call)
        # A dry run ends here, where nothing is set aside yet.
        sending = app.upstream.send(call, record)
        del call  # its body goes up and is not kept for as long as the answer streams
        async with booking as money, sending as answer:  # 402, 429; 502, 504
            hold.release()
            money.answered(answer.head, answer.fault)
            if answer.head.status in _MAY_BE_UNLISTED:
                record.hint = next(filter(None, map(models.unlisted, ids)), None)
            return await relay(exchange.connection, answer, record, idle_seconds=idle_seconds)


def refuse_when_stopping(kit: Kit) -> None:
    if kit.life.is_stopping:
        raise Refusal(
            "shutting_down",
            "This server is being stopped; another one may answer.",
            retry_after_seconds=1,
        )


async def open_session(request: Request, exchange: Exchange) -> Response:
    kit, record = exchange.kit, exchange.record
    record.endpoint = f"POST {session_endpoint.PATH}"
    record.app = kit.identity.door(request.headers).app
    with intake.Hold(kit.life.room) as hold:
        session = await kit.opening.open(request, hold, exchange.headers)
    record.client = session.client.id
    return session_endpoint.answer(session)


async def identify(request: Request, kit: Kit, record: Record) -> Client:
    identity = kit.identity
    try:
        client = await identity.identify(request.remote, request.headers)
    except Refusal as refusal:
        network = identity.network(request.remote, request.headers)
        await count_failure(kit.life.failures, refusal, network)
        raise
    record.app, record.client = client.app, client.id
    if client.is_address:
        record.client = addresses.shown(client.id, kit.settings.log_address)
    return client


async def show_catalogue(
    request: Request, kit: Kit, app: AppKit, path: str, query: str
) -> Response:
    intake.refuse_body(request)
    asked = path, query, app.listed, app.policy.aliases
    try:
        page = await kit.catalogue.answer(*asked)
    except KeyWanted:
        page = await app.catalogue.answer(*asked)
    return conditional(request, page.status, page.raw, page.head)


async def read_call(
    request: Request,
    hold: intake.Hold,
    exchange: Exchange,
    client: Client,
    endpoint: Endpoint,
    query: str,
) -> Call:
    kit, record = exchange.kit, exchange.record
    app = kit.apps[client.app]
    body.check_media_type(request.headers)
    began_at = record.clock()
    try:
        raw = await intake.read_body(
            request,
            hold,
            max_bytes=kit.settings.max_body_bytes,
            timeout_seconds=kit.settings.body_timeout_seconds,
        )
    finally:
        record.client_seconds += record.clock() - began_at
    passed = headers.forwarded(endpoint.dialect, request.headers)
    request.drop()  # it is read, and its answer may take minutes
    record.bytes_up = len(raw)
    asked = endpoint, raw, app.policy, passed, query
    if body.is_large(raw):  # each takes several times its size while it is read
        place = client.address, f"{client.app} {client.id}"
        call = await kit.life.large_bodies.do(*place, read_large, kit.life.room, *asked)
        if call.said is not None:  # what was read stays until a provider has answered
            hold.add(body.KEPT_TIMES * len(raw))
        return call
    return calls.read(*asked)


def read_large(room: intake.Room, endpoint: Endpoint, raw: bytes, *asked: Any) -> Call:
    """As ``calls.read``, once there is the memory for it. Raises ``overloaded``, too."""
    with room.reading(body.reading_bytes(raw)):
        return calls.read(endpoint, raw, *asked)
