"""Every line to paste that a refusal prints: pasted where it belongs, the same call gets past."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import keyproxy
from keyproxy.clients import credentials
from keyproxy.errors import SettingsFaults
from keyproxy.settings import ROWS, Settings
from keyproxy.settings.advice import written_hint
from keyproxy.settings.grammar import Unfit
from keyproxy.settings.sources import Sources
from tests.conftest import BODY, CHAT, KEY, SERVE, Proxy, served, settings
from tests.fake_upstream import FakeUpstream, completion, serving

PAGE = "https://web.example"
ROW = {
    "id": "openai/gpt-4o-mini",
    "context_length": 100_000,
    "pricing": {"prompt": "0.0000001", "completion": "0.00001"},
    "top_provider": {"max_completion_tokens": 50_000},
}
UNPRICED = {"id": "openai/unknown", "pricing": {"prompt": "0", "completion": "0"}}
MESSAGES = "/api/v1/messages"
NAMES = {row.variable.removeprefix("KEYPROXY_").lower(): row for row in ROWS.values()}


class Priced(FakeUpstream):
    """An upstream with prices."""

    def catalogue_answer(self, request: web.Request) -> web.Response:
        if request.path == "/api/v1/models":
            return web.json_response({"data": [ROW, UNPRICED]})
        return web.json_response({"error": {"code": 404}}, status=404)


@pytest.fixture
async def upstream() -> AsyncIterator[Priced]:
    async with serving(Priced()) as fake:
        yield fake


@dataclass
class Desk:
    """A working folder, and what somebody said and pasted there, each in its place."""

    directory: Path
    upstream: FakeUpstream
    said: dict[str, str]
    place: str
    toml: dict[str, str] = field(default_factory=dict)
    table: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environ |= {
            "OPENROUTER_API_KEY": KEY,
            "KEYPROXY_LISTEN": "127.0.0.1:0",
            "KEYPROXY_UPSTREAM": self.upstream.base_url,
            "KEYPROXY_LEDGER": "off",
        }
        self.table["allowed_origins"] = f'allowed_origins = "{PAGE}"'
        for name, value in self.said.items():
            variable = f"KEYPROXY_{name.upper()}"
            if self.place == "toml":
                self.toml[name] = f'{name} = "{value}"'
            elif self.place == "table" and NAMES[name].is_app:
                self.table[name] = f'{name} = "{value}"'
            elif self.place == "options":
                self.options[variable] = value
            elif self.place == "environment":
                self.environ[variable] = value
            else:
                self._write(f"{variable}='{value}'")

    def _write(self, line: str) -> None:
        with (self.directory / ".env").open("a") as file:
            file.write(line + "\n")

    def paste(self, line: str) -> None:
        """Put the line where it says it belongs; an assignment where the value was said."""
        table = "in [apps.web] of the TOML file: "
        if line.startswith(table):
            line = line.removeprefix(table)
            self.table[line.partition(" = ")[0]] = line
        elif line.startswith("--"):
            name, value = shlex.split(line)
            self.options["KEYPROXY_" + name[2:].upper().replace("-", "_")] = value
        elif re.match(r"[a-z_]+ = ", line):
            self.toml[line.partition(" = ")[0]] = line
        elif self.place == "environment":
            [word] = shlex.split(line)
            self.environ |= [tuple(word.split("=", 1))]  # type: ignore[list-item]
        else:
            self._write(line)

    def read(self) -> Settings:
        lines = [*self.toml.values()]
        if self.place == "table":
            lines += ["[apps.web]", *self.table.values()]
        (self.directory / "keyproxy.toml").write_text("\n".join(lines))
        return Sources("dev", self.options, self.environ, self.directory).read()


Call = Callable[[Proxy, dict[str, str]], Coroutine[Any, Any, tuple[int, str]]]


def call(body: Any = None, path: str = CHAT, times: int = 1, **fields: str) -> Call:
    """One POST, or the last of several: its status, and the message of a refusal."""

    async def made(proxy: Proxy, head: dict[str, str]) -> tuple[int, str]:
        sent = {**head, **{name.replace("_", "-"): value for name, value in fields.items()}}
        for _ in range(times):
            async with proxy.post(body, path, headers=sent) as answer:
                shown = await answer.json()
        return answer.status, shown["error"]["message"] if "error" in shown else ""

    return made


def chat(**more: Any) -> Call:
    return call(BODY | more)


async def preflight(proxy: Proxy, head: dict[str, str]) -> tuple[int, str]:
    asking = {"Origin": "app://-", "Access-Control-Request-Method": "POST"}
    async with proxy.session.options(proxy.url + CHAT, headers=asking) as answer:
        shown = json.loads(await answer.text() or "{}")
        return answer.status, shown["error"]["message"] if shown else ""


async def two_at_once(proxy: Proxy, head: dict[str, str]) -> tuple[int, str]:
    gate = asyncio.Event()

    async def hold(request: web.Request) -> web.Response:
        await gate.wait()
        return completion()

    proxy.upstream.answer = hold
    proxy.upstream.arrived.clear()
    first = asyncio.create_task(call()(proxy, head))
    await proxy.upstream.arrived.wait()
    proxy.upstream.arrived.clear()
    second = asyncio.create_task(call()(proxy, head))
    arrived = asyncio.create_task(proxy.upstream.arrived.wait())
    await asyncio.wait([second, arrived], return_when=asyncio.FIRST_COMPLETED)
    gate.set()
    arrived.cancel()
    await first
    return await second


async def overspend(proxy: Proxy, head: dict[str, str]) -> tuple[int, str]:
    """A call that costs more than was thought, and one more."""

    async def charge(request: web.Request) -> web.Response:
        return web.json_response({"id": "gen-1", "model": ROW["id"], "usage": {"cost": 0.003}})

    proxy.upstream.answer = charge
    return await call(BODY | {"max_tokens": 10}, times=2)(proxy, head)


def tool(kind: str, **more: Any) -> Call:
    return chat(tools=[{"type": kind, **more}])


CASES: dict[str, tuple[dict[str, str], Call]] = {
    "a shell's origin": ({}, call(Origin="app://-")),
    "a page's origin": ({"allowed_origins": "null,https://a.example"}, call(Origin="https://b.io")),
    "no origin so far": ({"allowed_origins": "none"}, call(Origin="http://192.168.1.2:5173")),
    "a preflight": ({"allowed_origins": "file://"}, preflight),
    "a host": ({}, call(Host="proxy.example:8484")),
    "one more host": ({"allowed_hosts": "localhost,a.example:1"}, call(Host="127.0.0.1")),
    "a model": ({"allowed_models": "anthropic/*,!*:online"}, call()),
    "a vague model": (
        {"allowed_models": "*,!openai/o1-pro", "total_budget": "off"},
        chat(model="~openai/gpt-latest"),
    ),
    "a costly variant": ({"allowed_features": "web"}, chat(model="openai/gpt-4o-mini:nitro")),
    "an unknown variant": ({"allowed_models": "openai/*"}, chat(model="openai/gpt-4o-mini:odd")),
    "a fast model": ({}, chat(model="anthropic/claude-x-fast")),
    "a router": ({"total_budget": "off"}, chat(model="openrouter/auto")),
    "an unlisted router": (
        {"allowed_models": "openai/*", "total_budget": "off"},
        chat(model="openrouter/auto"),
    ),
    "an endpoint": ({}, call({"model": ROW["id"], "input": "x"}, "/api/v1/embeddings")),
    "one more endpoint": ({"allowed_endpoints": "GET /api/v1/models"}, call()),
    "sessions": ({}, call({}, "/session")),
    "more sessions": (
        {"client_auth": "session", "session_rate_limit": "1/90 seconds;500/day"},
        call({}, "/session", times=2),
    ),
    "a rate": ({"rate_limit": "1/2 hours;300/day"}, call(times=2)),
    "two rates": ({"rate_limit": "1/minute;1/hour"}, call(times=2)),
    "a rate of an address": ({"address_rate_limit": "1/day"}, call(times=2)),
    "calls in flight": ({"max_in_flight": "1"}, two_at_once),
    "a body": ({"max_body": "1KiB"}, chat(messages=[{"role": "user", "content": "x" * 5000}])),
    "a field": ({"extra_fields": "other"}, chat(trace={"a": 1})),
    "a tool of the provider": (
        {"allowed_features": "web", "total_budget": "off"},
        tool("openrouter:datetime"),
    ),
    "web search": ({"total_budget": "off"}, tool("openrouter:web_search")),
    "more answers": ({}, chat(n=2)),
    "a provider": ({}, chat(provider={"sort": "price"})),
    "a tier of a provider": ({}, chat(provider={"only": ["azure/eu"]})),
    "a tier": ({}, chat(service_tier="priority")),
    "a file's text": ({}, chat(plugins=[{"id": "file-parser"}])),
    "sound": ({}, chat(audio={"voice": "x"}, modalities=["text", "audio"])),
    "an image": ({}, chat(modalities=["text", "image"])),
    "conditions": ({}, chat(stop_server_tools_when=[{"type": "step_count_is", "step_count": 1}])),
    "a cache": ({}, chat(cache_control={"type": "ephemeral", "ttl": "1h"})),
    "fallbacks": (
        {},
        call(BODY | {"max_tokens": 9, "fallbacks": [{"model": ROW["id"]}]}, MESSAGES),
    ),
    "reasoning that the cap cuts": (
        {"max_tokens": "500"},
        chat(model="anthropic/claude-x", reasoning={"max_tokens": 2000}, max_tokens=4000),
    ),
    "no price": ({"unpriced": "refuse"}, chat(model=UNPRICED["id"])),
    "a spent budget": ({"budget": "0.002/day;1/month"}, overspend),
    "a spent budget of all": ({"total_budget": "0.002/hour"}, overspend),
    "a spent budget of the app": ({"app_budget": "0.002/hour"}, overspend),
    "a costly call": ({"total_budget": "0.002/day", "unpriced": "refuse"}, chat(max_tokens=3000)),
    "a storage that is down": (
        {"storage": "redis://127.0.0.1:1", "storage_failure": "closed"},
        call(),
    ),
}
# What one setting's line cannot do alone: the next line opens the rest.
STEPS = {"an unlisted router": 2, "a router": 2, "a tier of a provider": 2}
ORIGIN_CASES = {"a shell's origin", "a page's origin", "no origin so far", "a preflight"}


def pasted_from(message: str) -> str:
    match = re.fullmatch(r".* \[[a-z]+: (.*)\]", message, re.DOTALL)
    assert match is not None, message
    line = re.search(
        r"(in \[apps\.web\] of the TOML file: )?([a-z_]+ = |KEYPROXY_[A-Z_]+=|--[a-z-]+ ).*",
        match[1],
    )
    assert line is not None, message
    return line[0]


PLACES = (".env", "environment", "toml", "options", "table")


@pytest.mark.parametrize(
    ("case", "place"),
    [
        (case, place)
        for case, (said, _) in CASES.items()
        for place in PLACES
        # A storage may hold a password, so that no option says it.
        if not (place == "options" and "storage" in said)
    ],
)
async def test_a_pasted_line_lets_the_same_call_pass(
    tmp_path: Path, upstream: Priced, case: str, place: str
) -> None:
    said, asked = CASES[case]
    head = {"Origin": PAGE} if place == "table" and case not in ORIGIN_CASES else {}
    desk = Desk(tmp_path, upstream, said, place)
    for _ in range(STEPS.get(case, 1)):
        async with served(desk.read(), upstream) as proxy:
            status, message = await asked(proxy, head)
        assert status >= 400, message
        line = pasted_from(message)
        desk.paste(line)
        upstream.answer = None
    async with served(desk.read(), upstream) as proxy:
        assert (await asked(proxy, head))[0] < 300, line


async def test_a_line_holds_against_what_was_counted_before(
    tmp_path: Path, upstream: Priced
) -> None:
    """A reload keeps the windows: twice as much has room for the call that was refused."""
    for case in ("a rate", "two rates", "a spent budget", "a spent budget of all"):
        said, asked = CASES[case]
        folder = tmp_path / case
        folder.mkdir()
        desk = Desk(folder, upstream, said, ".env")
        upstream.answer = None
        async with served(desk.read(), upstream) as proxy:
            _, message = await asked(proxy, {})
            desk.paste(pasted_from(message))
            proxy.service.apply(desk.read().kept(listen=proxy.service.settings.listen))
            assert (await call(BODY | {"max_tokens": 10})(proxy, {}))[0] == 200, case


async def test_a_line_for_an_apps_own_origins_lets_its_client_pass(
    tmp_path: Path, upstream: Priced
) -> None:
    token, stored = credentials.make_token("phone")
    said = {"client_auth": "token", "client_tokens": f"phone:{stored.digest.hex()}"}
    desk = Desk(tmp_path, upstream, said, "table")
    asked = call(Origin="http://localhost:3000", Authorization=f"Bearer {token}")
    async with served(desk.read(), upstream) as proxy:
        status, message = await asked(proxy, {})
    assert status == 403
    line = pasted_from(message)
    assert line.endswith(f'allowed_origins = ["{PAGE}", "http://localhost:3000"]')
    desk.paste(line)
    async with served(desk.read(), upstream) as proxy:
        assert (await asked(proxy, {}))[0] == 200


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ({"allowed_models": "*,!openai/*"}, call()),
        ({"allowed_models": "openai/*"}, chat(model="openai/gpt-4o@preset/x")),
        ({"allowed_models": "openai/*"}, chat(model="a/b\nKEYPROXY_CLIENT_AUTH=none")),
        ({"allowed_models": "openai/*"}, chat(model="a/b,*")),
        ({"allowed_models": "openai/*"}, chat(model="*")),
        ({"allowed_models": "openai/*"}, chat(model=KEY)),
        ({}, chat(**{"tr ace": 1})),
        ({}, chat(**{"x;y": 1})),
        ({}, chat(**{"a'b": 1})),
        ({}, chat(tool_model=1)),
        ({}, tool("openrouter:x,web")),
        ({}, tool("x'; id; '")),
        ({}, tool("openrouter:memory")),
        ({"client_auth": "jwt", "jwt_secret": "k" * 20 + "Abc123dEf456" * 3}, call({}, "/session")),
        ({"max_body": "100MiB"}, call(None, Content_Length="999999999999")),
    ],
)
async def test_there_is_no_line_where_it_would_not_help(
    tmp_path: Path, upstream: Priced, said: dict[str, str], asked: Call
) -> None:
    async with served(Desk(tmp_path, upstream, said, ".env").read(), upstream) as proxy:
        status, message = await asked(proxy, {})
    assert status >= 400
    assert not re.search(r"KEYPROXY_\w+=", message.partition("[")[2])
    assert upstream.calls == []


@pytest.mark.parametrize("place", PLACES)
def test_the_line_of_a_fault_cures_it_where_it_stands(tmp_path: Path, place: str) -> None:
    # Another file; a token that only a command makes; an address of serve, which dev cures anew.
    unpasted = {"config", "client_tokens", "listen"}
    if place in ("toml", "table"):  # no list of that name; some of those that are used
        unpasted.add("providers")
    wrong = {}
    for name, row in NAMES.items():
        with contextlib.suppress(Unfit):
            if not row.is_secret and (row.is_app or place != "table") and name not in unpasted:
                wrong[name] = "? ?"
                row.parse("? ?")
                del wrong[name]
    desk = Desk(tmp_path, Priced(), wrong, place)
    assert len(wrong) > 15
    with pytest.raises(SettingsFaults) as caught:
        desk.read()
    for fault in caught.value.faults:
        assert fault.paste is not None, str(fault)
        if fault.variable.startswith("apps."):
            desk.table[fault.paste.partition(" = ")[0]] = fault.paste
        else:
            desk.paste(fault.paste)
    with contextlib.suppress(SettingsFaults):
        desk.read()
        return
    with pytest.raises(SettingsFaults) as left:
        desk.read()
    # What follows from two settings together, such as a retention below the budget's month.
    assert {each.variable for each in left.value.faults}.isdisjoint(
        each.variable for each in caught.value.faults
    ), left.value


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("run `keyproxy check`", "run `keyproxy check`"),
        ("words: KEYPROXY_MAX_BODY=9", "words: KEYPROXY_MAX_BODY=9"),
        ("words: KEYPROXY_MAX_BODY=no size", "words"),
        ("KEYPROXY_MAX_BODY=no size", None),
        ("KEYPROXY_NOTHING=1", None),
        (f"KEYPROXY_ALLOWED_MODELS=*,{KEY}", None),
        ("OPENROUTER_API_KEY=" + KEY, None),
        ("not 'x: KEYPROXY_CLIENT_AUTH=none'", "not 'x: KEYPROXY_CLIENT_AUTH=none'"),
        (None, None),
    ],
)
def test_words_stay_and_only_a_line_that_is_one_is_shown(
    hint: str | None, shown: str | None
) -> None:
    assert written_hint(hint, settings()) == shown


def test_serve_offers_no_sessions_that_it_could_not_sign() -> None:
    hint = "words: KEYPROXY_CLIENT_AUTH=session"
    assert written_hint(hint, settings("serve", **SERVE)) == "words"
    able = settings("serve", **SERVE, SESSION_SECRET="kU3v9xQ2" * 5)
    assert written_hint(hint, able) == hint


_BEHIND = re.compile(r"KEYPROXY_\w+=\w+[ ,;]")


def test_no_line_in_the_source_leaves_the_value_open() -> None:
    """Nothing to fill in, but where the value is a secret that only the reader has."""
    secrets = {row.variable for row in ROWS.values() if row.is_secret}
    found = []
    for path in Path(keyproxy.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                lines = re.findall(r"([A-Z][A-Z_]+)=[^\s`]*(?:…|\.\.\.|<)", node.value)
                found += [(path.name, name) for name in lines if name not in secrets]
            if isinstance(node, ast.keyword) and node.arg in ("hint", "line"):
                texts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
                found += [(path.name, text) for text in texts if "…" in str(text)]
                found += [(path.name, text) for text in texts if _BEHIND.search(str(text))]
    examples = [row.example for row in ROWS.values() if not row.is_secret]
    assert [example for example in examples if "…" in example] == []
    assert found == []
