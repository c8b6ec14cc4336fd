"""What would become of a call, step by step, without a socket; ``keyproxy explain`` prints it.

Asks the same rules as ``proxy.handle()``. What only a running process knows (calls made so far,
the upstream's answer) is left out and said to be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

from multidict import CIMultiDict, CIMultiDictProxy

from keyproxy import session_endpoint
from keyproxy.browser import is_preflight
from keyproxy.call import BASE, Call
from keyproxy.dialects import CATALOGUE
from keyproxy.errors import Refusal, Step
from keyproxy.policy import calls
from keyproxy.rules import AppRules, Rules
from keyproxy.settings import Secret, Settings, hints, summary
from keyproxy.strict_json import body
from keyproxy.transport.intake import too_large
from keyproxy.upstream import headers
from keyproxy.upstream.catalogue import resolved

LOOPBACK = "127.0.0.1"


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


Verdict = Passed | Refusal | Sent


async def steps(settings: Settings, rules: Rules, asked: Asked) -> list[Verdict]:
    """Each step's verdict in order; the last one is the refusal or what would be sent."""
    found: list[Verdict] = []
    try:
        async for verdict in _steps(settings, rules, asked):
            found.append(verdict)
    except Refusal as refusal:
        refusal.hint = hints.written(refusal.hint, settings)
        found.append(refusal)
    return found


async def _steps(settings: Settings, rules: Rules, asked: Asked) -> AsyncIterator[Passed | Sent]:
    head = asked.head
    rules.browser.check_host(head)
    yield Passed(Step.HOST, head["Host"])
    if is_preflight(asked.method, head):
        rules.browser.preflight(head)
        yield Passed(Step.ORIGIN, "the preflight would be answered; nothing is sent")
        return
    rules.browser.check_origin(head)
    yield Passed(Step.ORIGIN, head.get("Origin", "none: an app or a server, no page"))
    if asked.target.partition("?")[0] == session_endpoint.PATH:
        door = rules.identity.door(head)
        session_endpoint.check_head(asked.method, asked.target, door)
        yield Passed(Step.CREDENTIAL, f"a session of the app {door.app} would be opened")
        return
    if asked.app is None:
        client = await rules.identity.identify(LOOPBACK, head)
        name = client.app
        how = "none is asked for" if client.is_address else "accepted"
        yield Passed(Step.CREDENTIAL, f"{how}; the client is {client.id} of the app {name}")
    else:
        name = asked.app
        yield Passed(Step.CREDENTIAL, f"a good one of the app {name} is assumed")
    app = next(each for each in settings.all_apps if each.name == name)
    try:
        for verdict in _of_app(app, rules.apps[name], asked, head):
            yield verdict
    except Refusal as refusal:
        refusal.hint = hints.written(refusal.hint, app)
        raise


def _of_app(
    app: Settings, of_app: AppRules, asked: Asked, head: CIMultiDictProxy[str]
) -> Iterator[Passed | Sent]:
    of_app.browser.check_origin(head)
    endpoint, path, query = of_app.endpoints.find(asked.method, asked.target, head["Host"])
    yield Passed(Step.ENDPOINT, endpoint.name)
    yield Passed(Step.LIMITS, f"{_spoken(app)} (what was used is not known here)")
    passed = headers.forwarded(endpoint.dialect, head)
    if endpoint.dialect is CATALOGUE:
        if asked.body:
            raise Refusal("bad_request", "This call takes no body.")
        path = resolved(path, of_app.policy.models, of_app.policy.aliases)
        call = Call(endpoint, path, b"", query)
    else:
        raw = asked.body or b""
        body.check_media_type(head)
        if len(raw) > app.max_body_bytes:
            raise too_large(app.max_body_bytes, len(raw))
        yield Passed(Step.BODY, f"{len(raw)} bytes of {app.max_body_bytes}")
        call = calls.read(endpoint, raw, of_app.policy, passed, query)
        yield Passed(Step.POLICY, ", ".join(call.models))
        if app.counts_money:
            yield Passed(
                Step.MONEY, f"budgets: {summary.budgets(app)} (what was spent is not known here)"
            )
    yield _sent(app, call, asked)


def _sent(settings: Settings, call: Call, asked: Asked) -> Sent:
    ranking = headers.attribution(settings.referer, settings.title, settings.categories)
    if call.endpoint.dialect is CATALOGUE:
        head: Mapping[str, str] = headers.common()  # asked for without the key
    else:
        masked = Secret(settings.keys[0].label if settings.keys else "***")
        head = headers.outgoing(masked, ranking, call.headers)
    is_changed = call.body != (asked.body or b"")
    return Sent(
        call.endpoint.method, settings.upstream + call.target, dict(head), call.body, is_changed
    )


def _spoken(app: Settings) -> str:
    spoken = f"{summary.rates(app.rate_limit)} a client, {app.max_in_flight} at once"
    if app.address_rate_limit:
        spoken += f", {summary.rates(app.address_rate_limit)} a network address"
    return spoken
