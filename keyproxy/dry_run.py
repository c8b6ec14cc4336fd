"""What would become of a call, step by step; ``keyproxy explain`` prints it.

The call is handled as any is, by ``proxy.handle()``, but comes from no socket, and what would go
up ends it. What only a running process knows (calls and money so far, the upstream's answer) is
left out and said to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import NoReturn, cast

from multidict import CIMultiDict, CIMultiDictProxy

from keyproxy.attempts.attempts import Attempts
from keyproxy.browser import is_preflight
from keyproxy.call import BASE, Call, Client, Endpoint
from keyproxy.clients.identity import Identity
from keyproxy.dataclass import dataclass, field, replace
from keyproxy.dialects import CATALOGUE, MESSAGES
from keyproxy.errors import Refusal, Step
from keyproxy.key_forms import STARS
from keyproxy.kit import AppKit, Exchange, Kit
from keyproxy.limits.counters import Counters
from keyproxy.proxy import handle
from keyproxy.record import Record
from keyproxy.routing.router import Option, Router, Row
from keyproxy.session_endpoint import PATH
from keyproxy.settings import Secret, Settings, summary
from keyproxy.settings.advice import written_hint
from keyproxy.transport.connection import Connection
from keyproxy.transport.messages import Request
from keyproxy.upstream import headers
from keyproxy.upstream.catalogue import Catalogue
from keyproxy.upstream.providers import bases_of
from keyproxy.upstream.send import Upstream

LOOPBACK = "127.0.0.1"
_ORDER = tuple(Step)


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as a client would make it; ``body`` is None where it sends none.

    ``app``: the client is taken for one of this app, whatever it shows.
    """

    method: str = "POST"
    target: str = f"{BASE}/chat/completions"
    body: bytes | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    app: str | None = None

    @property
    def head(self) -> CIMultiDictProxy[str]:
        said = CIMultiDict(self.fields)
        if self.body is not None:
            said.setdefault("Content-Type", "application/json")
            said.setdefault("Content-Length", str(len(self.body)))
        return CIMultiDictProxy(said)


@dataclass(frozen=True, slots=True)
class Passed:
    """A step that lets the call through, with what it found."""

    step: Step
    found: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What would go up: the head with the key masked, and the body's bytes."""

    method: str
    url: str
    head: Mapping[str, str]
    body: bytes
    is_changed: bool


@dataclass(frozen=True, slots=True)
class Routed:
    """The homes of a call: first those that can take it, in the order in which they are tried."""

    rows: tuple[Row, ...]


Verdict = Passed | Routed | Refusal | Sent


def step_of(refusal: Refusal) -> Step:
    """Where a call would be refused: nothing is crowded here, but lists of models are not there."""
    return Step.ROUTING if refusal.code == "overloaded" else refusal.step


async def steps(kit: Kit, asked: Asked) -> list[Verdict]:
    """Each step's verdict in order; the last one is the refusal or what would be sent, or a step
    that we answer ourselves."""
    record = Record(asked.method, asked.target.partition("?")[0])
    exchange = Exchange(_without_traffic(kit, asked.app), record, cast(Connection, None))
    try:
        await handle(_request(asked), exchange)
    except _WouldSend as found:
        passed, outcome = [*_passed(kit, record, asked)], _outcome(kit.app_of(record), found, asked)
        before = _before(Step.ROUTING, passed)
        routed = [] if found.first is None else [Routed(found.rows)]
        behind = passed[len(before) :] if isinstance(outcome, Sent) else ()
        return [*before, *routed, *behind, outcome]
    except Refusal as refusal:
        refusal.hint = written_hint(refusal.hint, kit.app_of(record).settings)
        return [*_before(refusal.step, _passed(kit, record, asked)), refusal]
    return [*_passed(kit, record, asked)]


def _before(step: Step, passed: Iterable[Passed]) -> list[Passed]:
    return [each for each in passed if _ORDER.index(each.step) < _ORDER.index(step)]


def _passed(kit: Kit, record: Record, asked: Asked) -> Iterator[Passed]:
    """What each step finds that lets the call through, as far as it came."""
    head = asked.head
    yield Passed(Step.HOST, head["Host"])
    if is_preflight(asked.method, head):
        yield Passed(Step.ORIGIN, "the preflight would be answered; nothing is sent")
        return
    yield Passed(Step.ORIGIN, head.get("Origin", "none: an app or a server, no page"))
    if record.app is None:
        return
    if record.endpoint == f"POST {PATH}":
        yield Passed(Step.CREDENTIAL, f"a session of the app {record.app} would be opened")
        return
    app = kit.apps[record.app].settings
    yield Passed(Step.CREDENTIAL, _client(record, asked, app))
    if record.endpoint is None:
        return
    yield Passed(Step.ENDPOINT, record.endpoint)
    about = summary.of_app(app)
    limits = f"per client {about['per client']}; per address {about['per address']}"
    yield Passed(Step.LIMITS, f"{limits} (what was used is not known here)")
    if asked.body:
        yield Passed(Step.BODY, f"{len(asked.body)} bytes of {app.max_body_bytes}")
        yield Passed(Step.POLICY, ", ".join(record.models))
        if app.counts_money:
            spent = "what was spent is not known here"
            yield Passed(Step.MONEY, f"budgets: {about['budgets']} ({spent})")


def _client(record: Record, asked: Asked, app: Settings) -> str:
    if asked.app is not None:
        return f"a good one of the app {asked.app} is assumed"
    how = "none is asked for" if app.client_auth == "none" else "accepted"
    return f"{how}; the client is {record.client} of the app {record.app}"


def _outcome(app: AppKit, found: _WouldSend, asked: Asked) -> Refusal | Sent:
    """What goes to the first home, or why there is none."""
    first = found.first
    if first is None:
        return _sent(app, app.upstream, found.call, asked)
    if isinstance(first, Refusal):
        first.hint = written_hint(first.hint, app.settings)
        if step_of(first) is not first.step:
            named = found.rows[0].model
            first.hint = (
                f"{first.hint}: nobody is asked for it here, as a running keyproxy does;"
                f' `at` in [models."{named}"] says who has it without'
            )
        return first
    assert found.call.said is not None  # noqa: S101 - or it would have no homes
    call = replace(found.call, body=first.edits.body(found.call.said))
    return _sent(app, app.upstreams[first.place.home.provider], call, asked)


def _sent(app: AppKit, upstream: Upstream, call: Call, asked: Asked) -> Sent:
    settings, provider = app.settings, upstream.provider
    if call.endpoint.dialect is CATALOGUE:
        head: Mapping[str, str] = headers.asking(provider, None)  # asked for without the key
    else:
        key = upstream.keys[0]
        masked = Secret(key.label or STARS) if key.reveal() else key
        is_bearer = provider.taking(call).is_bearer
        head = headers.outgoing(
            provider, masked, upstream.ranking, call.headers, is_bearer=is_bearer
        )
    is_changed = call.body != (asked.body or b"")
    used = next(each for each in settings.providers if each.name == provider.name)
    base, messages_base = bases_of(used, provider, settings.upstream)
    url = (messages_base if call.endpoint.dialect is MESSAGES else base) + call.target
    return Sent(call.endpoint.method, url, dict(head), call.body, is_changed)


@dataclass
class _WouldSend(Exception):
    """Every step has let ``call`` pass; ``first``: the home that it would go to, or why there is
    none, where there are several to choose from."""

    call: Call
    rows: tuple[Row, ...] = ()
    first: Option | Refusal | None = None


def _request(asked: Asked) -> Request:
    request = Request(asked.method, asked.target, asked.head, remote=LOOPBACK)
    if asked.body:
        request.feed(asked.body)
    request.end()
    return request


def _send(call: Call, record: Record) -> NoReturn:
    """In the place of an upstream's answer."""
    raise _WouldSend(call)


def _plan(router: Router, call: Call, client: Client, *rest: object) -> NoReturn:
    """In the place of attempts."""
    try:
        first: Option | Refusal = router.plan(call, client).options[0]
    except Refusal as refusal:
        first = refusal
    raise _WouldSend(call, tuple(router.table(call, client)), first)


async def _fetch(path: str) -> NoReturn:
    raise _WouldSend(Call(Endpoint("GET", path, CATALOGUE), BASE + path, b""))


class _Assumed(Identity):
    """As ``identity``, but whoever calls is a client of ``app``."""

    def __init__(self, identity: Identity, app: str) -> None:
        vars(self).update(vars(identity))
        self._app = app

    async def identify(self, peer: str | None, headers: CIMultiDictProxy[str]) -> Client:
        self.shown(headers)
        return Client("", "", self._app, is_address=False)


def _without_traffic(kit: Kit, app: str | None) -> Kit:
    """As ``kit``, but nothing was counted before, and what would go up, or be set aside for it,
    ends it."""
    return replace(
        kit,
        identity=kit.identity if app is None else _Assumed(kit.identity, app),
        apps={name: _app_without_traffic(each) for name, each in kit.apps.items()},
        opening=replace(kit.opening, captcha=None, counters=Counters()),
        catalogue=Catalogue(_fetch),
    )


def _app_without_traffic(app: AppKit) -> AppKit:
    return replace(
        app,
        admission=replace(app.admission, counters=Counters()),
        upstream=cast(Upstream, SimpleNamespace(send=_send)),
        attempts=app.attempts
        and cast(Attempts, SimpleNamespace(answer=partial(_plan, app.attempts.router))),
    )
