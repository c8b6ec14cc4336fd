"""Prints a dry run: one call step by step, or a table of example calls of each style."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from multidict import CIMultiDict, CIMultiDictProxy

from keyproxy import session_endpoint
from keyproxy.call import BASE
from keyproxy.commands import line
from keyproxy.dry_run import Asked, Passed, Sent, steps
from keyproxy.errors import Refusal, Step
from keyproxy.kit import Kit
from keyproxy.ledger.memory import MemoryBook
from keyproxy.limits.counters import Counters
from keyproxy.server.assembly import Assembly
from keyproxy.settings import KNOWN_ENDPOINTS, Settings
from keyproxy.settings.summary import clients
from keyproxy.transport.client import open_session

T = TypeVar("T")
_MAX_SHOWN = 4_000


def _say(settings: Settings, text: str) -> None:
    """Print what may hold somebody else's text: no key of ours in it, nothing a terminal obeys."""
    for key in settings.all_keys:
        text = text.replace(key.reveal(), key.label)
    print("".join(char if char.isprintable() or char == "\n" else "?" for char in text))


def print_steps(
    settings: Settings,
    fields: Mapping[str, str],
    method: str | None,
    path: str | None,
    body: bytes | None,
    app: str | None = None,
) -> int:
    """One call, step by step; 0 when it would be sent. ``app``: as a client of this app."""
    asked = Asked(
        method=(method or ("GET" if body is None and _is_read(path) else "POST")).upper(),
        target=path or _CHAT,
        body=body,
        fields=fields,
        app=app,
    )
    for verdict in asyncio.run(with_kit(settings, lambda kit: steps(kit, asked))):
        if isinstance(verdict, Passed):
            _say(settings, f"  {verdict.step:<10}  ok       {verdict.found}")
        elif isinstance(verdict, Refusal):
            if verdict.step is Step.BODY and not body and asked.method == "POST":
                print(f"  {Step.BODY:<10}  missing  there is no body: name its file with --body,")
                print(f"{'':23}or send it in by a pipe; an empty one is refused")
                return 1
            why = f"{verdict.status} {verdict.code}: {verdict.message}"
            _say(settings, f"  {verdict.step:<10}  refused  {why}")
            if verdict.hint:
                _say(settings, f"{'':23}{verdict.hint}")
            return 1
        else:
            _print_sent(settings, verdict)
    return 0


def _is_read(path: str | None) -> bool:
    """Whether a call of this path has no body: it is none of those that are made by POST."""
    plain = (path or _CHAT).partition("?")[0]
    return plain != session_endpoint.PATH and f"POST {plain}" not in KNOWN_ENDPOINTS


async def with_kit(settings: Settings, work: Callable[[Kit], Awaitable[T]]) -> T:
    """What ``work`` makes of the kit that a server would answer by. A JWT is checked with its
    issuer's true keys; nothing else leaves this computer."""
    async with open_session(settings) as session:
        assembly = Assembly(settings, session, Counters(), MemoryBook())
        try:
            return await work(assembly.kit)
        finally:
            await assembly.close()


def _print_sent(settings: Settings, sent: Sent) -> None:
    how = "written anew where a cap or an alias changed it" if sent.is_changed else "byte for byte"
    body = f", the body {how}" if sent.body else ""
    print(f"\nwould be sent{body}:\n\n{sent.method} {sent.url}")
    for name, value in sent.head.items():
        _say(settings, f"{name}: {value}")
    text = sent.body.decode(errors="replace")
    _say(settings, f"\n{text[:_MAX_SHOWN]}{'…' if len(text) > _MAX_SHOWN else ''}")


def print_table(settings: Settings, fields: Mapping[str, str], app: str | None = None) -> int:
    """What becomes of example calls of an app's clients, a column a style.

    Always 0: refusals are its point. ``app`` None: that of the origin, else the default app.
    """
    return asyncio.run(with_kit(settings, lambda kit: _print_table(kit, fields, app)))


async def _print_table(kit: Kit, fields: Mapping[str, str], app: str | None) -> int:
    settings = kit.settings
    whose = app or kit.identity.door(CIMultiDictProxy(CIMultiDict(fields))).app
    of_app = kit.apps[whose].settings

    async def outcome(method: str, path: str, body: bytes | None, **more: str) -> str:
        asked = Asked(method, path, body, {**fields, **more}, whose)
        *_, last = await steps(kit, asked)
        return _outcome(last, asked)

    if settings.apps:
        print(f"clients of the app {whose}: {clients(of_app)}\n")
    table = [["", *(style for style, _, _ in _STYLES)]]
    for name, write in _written(_allowed_model(of_app)):
        table.append(
            [name, *[await outcome("POST", path, write(body)) for _, path, body in _STYLES]]
        )
    line.print_columns(table)
    print()
    table = []
    for alias, _ in of_app.model_aliases:
        chat = json.dumps(_chat(alias)).encode()
        table.append([f"the alias {alias}", await outcome("POST", _CHAT, chat)])
    for method, path in _PATHS:
        table.append([f"{method} {path}", await outcome(method, path, None)])
    elsewhere = await outcome("POST", _CHAT, b"", Origin="https://elsewhere.example")
    line.print_columns([*table, ["a page of elsewhere", elsewhere]])
    return 0


def _outcome(last: Passed | Refusal | Sent, asked: Asked) -> str:
    if isinstance(last, Refusal):
        return f"{last.status} {last.code}"
    if isinstance(last, Sent) and last.is_changed:
        before, after = json.loads(asked.body or b"{}"), json.loads(last.body)
        changed = sorted(name for name in after if before.get(name) != after[name])
        return f"sent, with {', '.join(f'{name}={json.dumps(after[name])}' for name in changed)}"
    return "answered here" if isinstance(last, Passed) else "sent"


Body = Callable[[str], dict[str, Any]]
_CHAT = f"{BASE}/chat/completions"


def _chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}


_STYLES: tuple[tuple[str, str, Body], ...] = (
    ("chat", _CHAT, _chat),
    ("responses", f"{BASE}/responses", lambda model: {"model": model, "input": "Hello"}),
    ("messages", f"{BASE}/messages", lambda model: _chat(model) | {"max_tokens": 1024}),
)
_PATHS = (
    ("GET", f"{BASE}/models"),
    ("GET", f"{BASE}/keys"),
    ("GET", f"{BASE}/credits"),
    ("POST", f"{BASE}/presets/mine/chat/completions"),
    ("POST", f"{BASE}/embeddings"),
)
_ADVISOR = {"type": "openrouter:advisor", "parameters": {"model": "other/model"}}
_CHANGES: tuple[tuple[str, Body], ...] = (
    ("an allowed model", lambda model: {}),
    ("streamed", lambda model: {"stream": True}),
    ("another model", lambda model: {"model": "other/model"}),
    ("no model", lambda model: {"model": None}),
    (":online", lambda model: {"model": f"{model}:online"}),
    (":free", lambda model: {"model": f"{model}:free"}),
    ("openrouter/auto", lambda model: {"model": "openrouter/auto"}),
    ("@preset/mine", lambda model: {"model": f"{model}@preset/mine"}),
    ("a fallback model", lambda model: {"models": [model, "other/model"]}),
    ("plugins: web", lambda model: {"plugins": [{"id": "web"}]}),
    ("a web search tool", lambda model: {"tools": [{"type": "openrouter:web_search"}]}),
    ("an advisor model", lambda model: {"tools": [_ADVISOR]}),
    ("service_tier: priority", lambda model: {"service_tier": "priority"}),
    ("a provider of choice", lambda model: {"provider": {"only": ["azure"]}}),
    ("n: 8", lambda model: {"n": 8}),
    ("an unknown field", lambda model: {"brand_new": 1}),
)


def _changed(model: str, changes: dict[str, Any], body: Body) -> bytes:
    return json.dumps(body(model) | changes).encode()


def _written(model: str) -> Iterator[tuple[str, Callable[[Body], bytes]]]:
    """Each example's name, and how a style's plain body becomes it."""
    for name, changes in _CHANGES:
        yield name, partial(_changed, model, changes(model))

    def twice(body: Body) -> bytes:
        return json.dumps(body(model)).encode()[:-1] + b', "model": "other/model"}'

    yield "a second model key", twice


def _allowed_model(settings: Settings) -> str:
    """An id that the operator's list allows, to make the examples of."""
    pattern = next(p for p in settings.allowed_models if not p.startswith("!"))
    return "openai/gpt-4o-mini" if pattern == "*" else pattern.replace("*", "example")
