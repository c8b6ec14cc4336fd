"""handle(): the order of the steps, nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from keyproxy import session_endpoint
from keyproxy.browser import is_preflight
from keyproxy.call import Call, Client, End, Endpoint
from keyproxy.clients import addresses
from keyproxy.dialects import CATALOGUE
from keyproxy.errors import Refusal
from keyproxy.limits.admit import Admission
from keyproxy.limits.failures import Failures
from keyproxy.money.booking import Booking, Bookings
from keyproxy.policy import calls
from keyproxy.policy.served import Served
from keyproxy.record import Record
from keyproxy.relay import relay
from keyproxy.rules import AppRules, Rules
from keyproxy.settings import DEFAULT_APP, Settings
from keyproxy.strict_json import body
from keyproxy.strict_json.turns import Turns
from keyproxy.tally import Event, Tally
from keyproxy.transport import intake
from keyproxy.upstream import headers
from keyproxy.upstream.catalogue import Catalogue, KeyWanted
from keyproxy.upstream.send import Answer, ClientLeft, Head, Upstream

_MAY_BE_UNLISTED = (400, 404)  # what an upstream says of a model that it does not know


@dataclass(frozen=True, slots=True)
class AppKit:
    """Everything a call of one app needs. ``settings`` are those that hold for the app.

    ``catalogue`` is asked for with the app's key, where the upstream shows it to nobody else.
    """

    settings: Settings
    rules: AppRules
    admission: Admission
    bookings: Bookings
    upstream: Upstream
    catalogue: Catalogue


@dataclass(frozen=True, slots=True)
class Kit:
    """Everything a call needs, made from one configuration. A reload makes another."""

    settings: Settings
    rules: Rules
    apps: Mapping[str, AppKit]
    opening: session_endpoint.Opening
    failures: Failures
    catalogue: Catalogue
    room: intake.Room
    large_bodies: Turns
    tally: Tally
    is_stopping: Callable[[], bool]
    is_cutting: Callable[[], bool]

    @property
    def default(self) -> AppKit:
        """The app of everything that no other app claims."""
        return self.apps[DEFAULT_APP]


@dataclass(slots=True)
class Exchange:
    """One request on its way: the kit it began with, its log record, headers for its answer."""

    kit: Kit
    record: Record
    headers: dict[str, str] = field(default_factory=dict)


EXCHANGE = web.RequestKey("exchange", Exchange)


async def handle(request: web.Request) -> web.StreamResponse:
    """Answer one call; nothing reaches the upstream before every check has passed."""
    exchange = request[EXCHANGE]
    kit, record = exchange.kit, exchange.record
    rules = kit.rules
    refuse_when_stopping(kit)  # 503
    intake.check_head(request)  # 400, 405, 417
    rules.browser.check_host(request.headers)  # 421
    if is_preflight(request.method, request.headers):
        response = web.Response(status=204, headers=rules.browser.preflight(request.headers))  # 403
        record.is_quiet = True  # only refused ones are worth a line
        return response
    rules.browser.check_origin(request.headers)  # 403
    if request.raw_path.partition("?")[0] == session_endpoint.PATH:
        return await open_session(request, exchange)  # 400, 403, 404, 405, 413, 415, 429
    client = await identify(request, kit, record)  # 400, 401, 403, 429
    app = kit.apps[client.app]
    app.rules.browser.check_origin(request.headers)  # 403: the app's own origins
    find = app.rules.endpoints.find
    endpoint, path, query = find(request.method, request.raw_path, request.host)  # 400, 404, 405
    record.endpoint = endpoint.name
    with kit.room.hold() as hold:
        async with app.admission.admit(client, exchange.headers):  # 429
            if endpoint.dialect is CATALOGUE:
                return await show_catalogue(request, kit, app, path, query)  # 400, 403, 502
            call = await read_call(request, kit, app, client, hold, endpoint, query)  # 400, 403, …
            record.models, record.is_streaming = call.models, call.is_streaming
            booking = app.bookings.book(record.request_id, client, call)
            sending = app.upstream.send(call)
            del call  # its body goes up and is not kept for as long as the answer streams
            async with booking as money:  # 402, 429
                with booked_as_logged(request, record, money):
                    async with sending as answer:  # 502, 504
                        hold.release()
                        return await show_answer(request, kit, app, record, answer, money)


def refuse_when_stopping(kit: Kit) -> None:
    if kit.is_stopping():
        raise Refusal(
            "shutting_down",
            "This server is being stopped; another one may answer.",
            retry_after_seconds=1,
            must_close=True,
        )


async def open_session(request: web.Request, exchange: Exchange) -> web.StreamResponse:
    kit, record = exchange.kit, exchange.record
    record.endpoint = f"POST {session_endpoint.PATH}"
    record.app = kit.rules.identity.door(request.headers).app
    with kit.room.hold() as hold:
        session = await kit.opening.open(request, hold, exchange.headers)
    record.client = session.client.id
    return session_endpoint.answer(session)


async def identify(request: web.Request, kit: Kit, record: Record) -> Client:
    identity = kit.rules.identity
    try:
        client = await identity.identify(request.remote, request.headers)
    except Refusal as refusal:
        await kit.failures.count(refusal, identity.network(request.remote, request.headers))
        raise
    record.app, record.client = client.app, client.id
    if client.is_address:
        record.client = addresses.shown(client.id, kit.settings.log_address)
    return client


@contextmanager
def booked_as_logged(request: web.Request, record: Record, money: Booking) -> Iterator[None]:
    """Book how the call ended in the word of its log line, and log what it cost."""
    try:
        yield
    except BaseException as error:
        record.end_by(error, has_begun=request.writer.output_size > 0)
        if isinstance(error, ClientLeft):
            told_after_leaving(money, error.head)
        raise
    finally:
        money.end(record.ended, record.served)
        record.usage = money.usage
        if money.cost is not None:
            record.cost, record.cost_source = money.cost.usd, money.cost.source


def told_after_leaving(money: Booking, head: Head | None) -> None:
    if head is None:
        money.is_free = True
    else:
        money.answered(head.status, "", head.generation_id, key=head.key, is_own=False)


async def show_answer(
    request: web.Request,
    kit: Kit,
    app: AppKit,
    record: Record,
    answer: Answer,
    money: Booking,
) -> web.StreamResponse:
    served = Served()
    head = answer.headers
    money.answered(
        answer.status,
        head["Content-Type"],
        head.get("X-Generation-Id"),
        key=answer.key,
        is_own=answer.is_own,
    )

    def watch(chunk: bytes) -> None:
        served.watch(chunk)
        money.watch(chunk)

    try:
        response = await relay(
            request,
            answer,
            record,
            watch,
            idle_seconds=app.settings.idle_timeout_seconds,
        )
        if money.error is not None and record.ended is End.COMPLETE:
            record.ended = End.UPSTREAM_ERROR
        return response
    finally:
        record.served = served.model
        record.answer_error = money.error
        policy = app.rules.policy
        asked = [policy.aliases.get(model, model) for model in record.models]
        if answer.status in _MAY_BE_UNLISTED:
            record.hint = next(filter(None, map(policy.models.unlisted, asked)), None)
        if served.is_other(asked, policy.models):
            record.is_other_model = True
            kit.tally.add(Event.OTHER_MODEL_SERVED)


async def show_catalogue(
    request: web.Request, kit: Kit, app: AppKit, path: str, query: str
) -> web.StreamResponse:
    intake.refuse_body(request)
    policy = app.rules.policy
    asked = path, query, policy.models, policy.aliases
    try:
        page = await kit.catalogue.answer(*asked)
    except KeyWanted:
        page = await app.catalogue.answer(*asked)
    tag = hashlib.blake2b(page.body, digest_size=16).hexdigest()
    fields = {**page.head, "Cache-Control": "private, no-cache", "ETag": f'"{tag}"'}
    known = {etag.value for etag in request.if_none_match or ()}
    if page.status == 200 and known & {tag, "*"}:
        return web.Response(status=304, headers=fields)
    return web.Response(
        status=page.status, body=page.body, content_type="application/json", headers=fields
    )


async def read_call(
    request: web.Request,
    kit: Kit,
    app: AppKit,
    client: Client,
    hold: intake.Hold,
    endpoint: Endpoint,
    query: str,
) -> Call:
    body.check_media_type(request.headers)
    raw = await intake.read_body(
        request,
        hold,
        max_bytes=kit.settings.max_body_bytes,
        timeout_seconds=kit.settings.body_timeout_seconds,
    )
    passed = headers.forwarded(endpoint.dialect, request.headers)
    policy = app.rules.policy
    asked = endpoint, raw, policy, passed, query
    if body.is_large(raw):  # each takes several times its size while it is read
        place = client.address, f"{client.app} {client.id}"
        return await kit.large_bodies.do(*place, read_large, kit.room, *asked)
    return calls.read(*asked)


def read_large(room: intake.Room, endpoint: Endpoint, raw: bytes, *asked: Any) -> Call:
    """As ``calls.read``, once there is the memory for it. Raises ``overloaded``, too."""
    with room.reading(body.reading_bytes(raw)):
        return calls.read(endpoint, raw, *asked)
