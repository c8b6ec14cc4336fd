"""Prints a dry run: one call step by step, or a table of example calls of each style."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from typing import Any, TypeVar

from multidict import CIMultiDict, CIMultiDictProxy

from keyproxy import session_endpoint
from keyproxy.call import BASE
from keyproxy.commands import line
from keyproxy.console import MOST_COLUMNS, printable, wrapped
from keyproxy.dry_run import Asked, Passed, Routed, Sent, Verdict, step_of, steps
from keyproxy.errors import Refusal, Step
from keyproxy.kit import Kit
from keyproxy.ledger.memory import MemoryBook
from keyproxy.limits.counters import Counters
from keyproxy.server.assembly import Assembly
from keyproxy.server.snippet import usual_model
from keyproxy.settings import KNOWN_ENDPOINTS, Settings
from keyproxy.settings.summary import clients
from keyproxy.transport.client import open_clients

T = TypeVar("T")
_MAX_SHOWN = 4_000
_INDENT = " " * 23  # below what is said of a step


async def with_kit(settings: Settings, work: Callable[[Kit], Awaitable[T]]) -> T:
    """What ``work`` makes of the kit that a server would answer by. A JWT is checked with its
    issuer's true keys; nothing else leaves this computer."""
    async with open_clients(settings) as (session, pools):
        assembly = Assembly(settings, session, pools, Counters(), MemoryBook())
        try:
            return await work(assembly.kit)
        finally:
            await assembly.close()


async def print_steps(kit: Kit, asked: Asked) -> int:
    """One call, step by step; 0 when it would be sent."""
    verdicts = await steps(kit, asked)
    for text in chain.from_iterable(_lines(verdict, asked) for verdict in verdicts):
        print(printable(_masked(text, kit)))
    return 1 if isinstance(verdicts[-1], Refusal) else 0


def _masked(text: str, kit: Kit) -> str:
    """``text`` without keyproxy's keys, which the call itself may show."""
    for key in kit.settings.all_keys:
        text = text.replace(key.reveal(), key.label)
    return text


def usual_method(target: str, body: bytes | None) -> str:
    path = target.partition("?")[0]
    is_posted = path == session_endpoint.PATH or f"POST {path}" in KNOWN_ENDPOINTS
    return "GET" if body is None and not is_posted else "POST"


def _lines(verdict: Verdict, asked: Asked) -> Iterator[str]:
    if isinstance(verdict, Passed):
        yield from _of_step(verdict.step, "ok", verdict.found)
    elif isinstance(verdict, Sent):
        yield from _of_sent(verdict)
    elif isinstance(verdict, Routed):
        yield from _of_routed(verdict)
    elif verdict.step is Step.BODY and not asked.body and asked.method == "POST":
        cure = "name its file with --body, or send it in by a pipe; an empty one is refused"
        yield from _of_step(verdict.step, "missing", f"there is no body: {cure}")
    else:
        why = f"{verdict.status} {verdict.code}: {verdict.message}"
        yield from _of_step(step_of(verdict), "refused", why)
        if verdict.hint:  # a line to paste is never broken
            yield _INDENT + verdict.hint


def _of_routed(routed: Routed) -> Iterator[str]:
    """The table of homes, a line each."""
    fit = [row for row in routed.rows if row.why_not is None]
    outcome = "ok" if fit else "refused"
    found = f"{len(fit)} of {len(routed.rows)} homes can take it"
    if fit:
        found += ", tried in this order; costs and times are expected, times by what is usual there"
    yield from _of_step(Step.ROUTING, outcome, found)
    models = {row.model for row in routed.rows}
    for row in routed.rows:
        id = row.native_id or "-"
        home = f"{row.provider:<11} {f'{row.model} as {id}' if len(models) > 1 else id}"
        if row.why_not is not None:
            text = f"{home}: no, {row.why_not.text}"
        else:
            cost = "price unknown" if row.cost is None else f"{row.cost:.6f} USD"
            text = f"{home}: {cost}, first output after {row.first_output_seconds:.1f} s"
        yield from wrapped(text, MOST_COLUMNS, _INDENT, f"{_INDENT}  ")


async def print_json(kit: Kit, asked: Asked) -> int:
    """The same as one JSON object."""
    verdicts = await steps(kit, asked)
    shown: dict[str, Any] = {"steps": []}
    for verdict in verdicts:
        if isinstance(verdict, Passed):
            shown["steps"].append({"step": verdict.step, "found": verdict.found})
        elif isinstance(verdict, Routed):
            shown["homes"] = [
                row._asdict() | {"why_not": row.why_not and row.why_not._asdict()}
                for row in verdict.rows
            ]
        elif isinstance(verdict, Sent):
            body = verdict.body.decode(errors="replace")
            shown["sent"] = asdict(verdict) | {"head": dict(verdict.head), "body": body}
        else:
            shown["refused"] = {
                "step": step_of(verdict),
                "status": verdict.status,
                "code": verdict.code,
                "message": verdict.message,
                "param": verdict.param,
                "hint": verdict.hint,
            }
    print(_masked(json.dumps(shown, indent=2), kit))
    return 1 if "refused" in shown else 0


def _of_step(step: Step, outcome: str, text: str) -> list[str]:
    columns = shutil.get_terminal_size((MOST_COLUMNS, 24)).columns
    return wrapped(text, min(columns, MOST_COLUMNS), f"  {step:<10}  {outcome:<7}  ", _INDENT)


def _of_sent(sent: Sent) -> Iterator[str]:
    how = "written anew where a cap or an alias changed it" if sent.is_changed else "byte for byte"
    body = f", the body {how}" if sent.body else ""
    yield from ("", f"would be sent{body}:", "", f"{sent.method} {sent.url}")
    yield from (f"{name}: {value}" for name, value in sent.head.items())
    text = sent.body.decode(errors="replace")
    yield from ("", *text[:_MAX_SHOWN].split("\n"))
    if len(text) > _MAX_SHOWN:
        yield "…"


async def print_table(kit: Kit, fields: Mapping[str, str], app: str | None) -> int:
    """What becomes of example calls of an app's clients, a column a style.

    Always 0: refusals are its point. ``app`` None: that of the origin, else the default app.
    """
    whose = app or kit.identity.door(CIMultiDictProxy(CIMultiDict(fields))).app
    settings = kit.apps[whose].settings

    async def outcome(method: str, path: str, body: bytes | None, **more: str) -> str:
        asked = Asked(method, path, body, {**fields, **more}, whose)
        *_, last = await steps(kit, asked)
        return _outcome(last, asked)

    if kit.settings.apps:
        print(f"clients of the app {whose}: {clients(settings)}\n")
    table = [["", *(style for style, _, _ in _STYLES)]]
    is_routed = kit.apps[whose].attempts is not None
    model = usual_model(kit.apps[whose]) if is_routed else _allowed_model(settings)
    for name, bodies in _examples(model):
        calls = zip(_STYLES, bodies, strict=True)
        table.append([name, *[await outcome("POST", path, body) for (_, path, _), body in calls]])
    line.print_columns(table)
    print()
    table = []
    for alias, _ in settings.model_aliases:
        chat = json.dumps({"model": alias, **_CONVERSATION}).encode()
        table.append([f"the alias {alias}", await outcome("POST", CHAT, chat)])
    for method, path in _PATHS:
        table.append([f"{method} {path}", await outcome(method, path, None)])
    elsewhere = await outcome("POST", CHAT, b"", Origin="https://elsewhere.example")
    line.print_columns([*table, ["a page of elsewhere", elsewhere]])
    return 0


def _outcome(last: Verdict, asked: Asked) -> str:
    if isinstance(last, Refusal):
        is_known = step_of(last) is last.step
        return f"{last.status} {last.code}" if is_known else "not known here"
    if isinstance(last, Sent) and last.is_changed:
        before, after = json.loads(asked.body or b"{}"), json.loads(last.body)
        changed = sorted(name for name in after if before.get(name) != after[name])
        return f"sent, with {', '.join(f'{name}={json.dumps(after[name])}' for name in changed)}"
    return "answered here" if isinstance(last, Passed) else "sent"


CHAT = f"{BASE}/chat/completions"
_CONVERSATION = {"messages": [{"role": "user", "content": "Hello"}]}
_STYLES: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("chat", CHAT, _CONVERSATION),
    ("responses", f"{BASE}/responses", {"input": "Hello"}),
    ("messages", f"{BASE}/messages", {**_CONVERSATION, "max_tokens": 1024}),
)
_PATHS = (
    ("GET", f"{BASE}/models"),
    ("GET", f"{BASE}/keys"),
    ("GET", f"{BASE}/credits"),
    ("POST", f"{BASE}/presets/mine/chat/completions"),
    ("POST", f"{BASE}/embeddings"),
)


def _examples(model: str) -> Iterator[tuple[str, list[bytes]]]:
    """Each example's name, and its body in each style."""
    advisor = {"type": "openrouter:advisor", "parameters": {"model": "other/model"}}
    plain = [{"model": model, **body} for _, _, body in _STYLES]
    changes: Mapping[str, Mapping[str, Any]] = {
        "an allowed model": {},
        "streamed": {"stream": True},
        "another model": {"model": "other/model"},
        "no model": {"model": None},
        ":online": {"model": f"{model}:online"},
        ":free": {"model": f"{model}:free"},
        "openrouter/auto": {"model": "openrouter/auto"},
        "@preset/mine": {"model": f"{model}@preset/mine"},
        "a fallback model": {"models": [model, "other/model"]},
        "plugins: web": {"plugins": [{"id": "web"}]},
        "a web search tool": {"tools": [{"type": "openrouter:web_search"}]},
        "an advisor model": {"tools": [advisor]},
        "service_tier: priority": {"service_tier": "priority"},
        "a provider of choice": {"provider": {"only": ["azure"]}},
        "n: 8": {"n": 8},
        "an unknown field": {"brand_new": 1},
    }
    for name, changed in changes.items():
        yield name, [json.dumps({**body, **changed}).encode() for body in plain]
    twice = b', "model": "other/model"}'
    yield "a second model key", [json.dumps(body).encode()[:-1] + twice for body in plain]


def _allowed_model(settings: Settings) -> str:
    """An id that the operator's list allows, to make the examples of."""
    pattern = next(p for p in settings.allowed_models if not p.startswith("!"))
    return "openai/gpt-4o-mini" if pattern == "*" else pattern.replace("*", "example")
