"""Several providers in one process: each key goes to its own address, and no answer holds any."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from keyproxy.call import Call, Endpoint
from keyproxy.commands.key_report import of_keys
from keyproxy.dialects import CHAT, MESSAGES
from keyproxy.errors import Refusal
from keyproxy.money.pricelist import PriceList
from keyproxy.record import Record
from keyproxy.server.assembly import Assembly
from keyproxy.server.process import _banner
from keyproxy.server.service import Service, running
from keyproxy.settings import Secret, Settings
from keyproxy.settings.sources import Sources
from keyproxy.upstream.send import MOST_MODELS
from tests import fake_upstream
from tests.conftest import Proxy, refused, served
from tests.fake_upstream import FakeUpstream, Seen, completion
from tests.fakes import server as fakes
from tests.fakes.books import Plan
from tests.fakes.server import Fakes

OPENROUTER = "sk-or-v1-" + "0123456789abcdef" * 4
GROQ, DEEPINFRA = "gsk_" + "a1" * 26, "c3" * 16
POST = Endpoint("POST", "/api/v1/chat/completions", CHAT)


class Several:
    """A keyproxy before three fakes, each by its name."""

    def __init__(self, service: Service, fakes: dict[str, FakeUpstream], folder: Path) -> None:
        self.service, self.fakes, self.folder = service, fakes, folder

    @property
    def assembly(self) -> Assembly:
        return self.service.assembly

    def seen(self, provider: str) -> list[Seen]:
        """All that came to a provider."""
        fake = self.fakes[provider]
        return [*fake.calls, *fake.catalogue, *fake.inspected]

    async def ask(self, provider: str, endpoint: Endpoint = POST) -> bytes:
        upstream = self.service.kit.default.upstreams[provider]
        call = Call(endpoint, endpoint.path, b"{}")
        async with upstream.send(call, Record("POST", call.path)) as answer:
            return await answer.reply.read_whole(1 << 20) or b""


def table(fakes: dict[str, FakeUpstream], *more: str) -> str:
    tables = [f"[providers.{name}]\nbase = '{fake.base_url}'" for name, fake in fakes.items()]
    return "\n".join([*tables, *more])


def read(folder: Path, toml: str) -> Settings:
    (folder / "keyproxy.toml").write_text(toml)
    said = {
        "OPENROUTER_API_KEY": OPENROUTER,
        "GROQ_API_KEY": GROQ,
        "DEEPINFRA_API_KEY": DEEPINFRA,
        "KEYPROXY_LISTEN": "127.0.0.1:0",
        "KEYPROXY_ADMIN": "off",
        "KEYPROXY_LEDGER": "off",
    }
    return Sources("dev", {}, said, folder).read()


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Several]:
    async with AsyncExitStack() as stack:
        fakes = {}
        for name in ("groq", "deepinfra", "openrouter"):
            serving = fake_upstream.serving(FakeUpstream())
            fakes[name] = await stack.enter_async_context(serving)
        messages = f"messages_base = '{fakes['deepinfra'].base_url}/anthropic'\n"
        toml = table(fakes).replace("[providers.openrouter]", f"{messages}[providers.openrouter]")
        service = await stack.enter_async_context(running(read(tmp_path, toml)))
        yield Several(service, fakes, tmp_path)


async def test_each_key_goes_to_its_own_provider(several: Several) -> None:
    for name in several.fakes:
        await several.ask(name)
    for name, key in (("groq", GROQ), ("deepinfra", DEEPINFRA), ("openrouter", OPENROUTER)):
        shown = {each.headers.get("Authorization") for each in several.seen(name)} - {None}
        assert shown == {f"Bearer {key}"}
        assert [each.target for each in several.fakes[name].calls] == ["/api/v1/chat/completions"]


async def test_messages_go_where_the_provider_takes_them(several: Several) -> None:
    await several.ask("deepinfra", Endpoint("POST", "/api/v1/messages", MESSAGES))
    [seen] = several.fakes["deepinfra"].calls
    assert seen.target == "/api/v1/anthropic/messages"
    assert seen.headers["Authorization"] == f"Bearer {DEEPINFRA}"


@pytest.mark.parametrize("key", [OPENROUTER, DEEPINFRA, GROQ])
async def test_no_answer_of_one_holds_the_key_of_another(several: Several, key: str) -> None:
    async def telling(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": f"what of {key}?"}}, status=400)

    several.fakes["groq"].answer = telling
    assert key.encode() not in await several.ask("groq")


async def test_a_key_is_asked_about_where_it_belongs(several: Several) -> None:
    for state in list(several.assembly.keys._states.values()):
        assert state.question is not None
        await state.question
    for name, path in (("groq", "/models"), ("deepinfra", "/models"), ("openrouter", "/key")):
        asked = {each.target for each in several.seen(name) if "Authorization" in each.headers}
        assert asked == {f"/api/v1{path}"}


async def test_a_rejected_key_is_told_of_with_its_provider(several: Several) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "invalid api key"}}, status=401)

    several.fakes["groq"].answer = refuse
    [key] = [key for key in several.service.settings.all_keys if key.reveal() == GROQ]
    state = several.assembly.keys.of(key)
    await several.assembly.keys._question(state)
    with capture_logs() as logs:
        await several.service.alerts.look()
    [told] = [log for log in logs if "alert" in log]
    assert (told["alert"], told["app"]) == ("key_rejected", "default")
    assert told["event"] == f"The key {key.label} of groq is rejected there, and set aside."


async def test_a_reload_brings_another_provider_and_takes_one_away(several: Several) -> None:
    async with fake_upstream.serving(FakeUpstream()) as house:
        kind = "kind = 'openai-compatible'\nkey = 'none'"
        fakes = {"house": house, "groq": several.fakes["groq"]}
        toml = table(fakes).replace("[providers.house]", f"[providers.house]\n{kind}")
        several.service.apply(read(several.folder, toml))
        assert list(several.service.kit.default.upstreams) == ["house", "groq"]
        await several.ask("house")
        [seen] = house.calls
        assert json.loads(seen.body) == {}
        assert "Authorization" not in seen.headers


def settings_for(served: Fakes, folder: Path, *more: str, **said: str) -> Settings:
    """Settings that use ``served`` with their own keys, in their order."""
    tables = []
    for name, fake in served.items():
        tables.append(f"[providers.{name}]\nbase = '{fake.base}'")
        if len(fake.vendor.bases) > 1:
            tables.append(f"messages_base = '{fake.origin}{fake.vendor.bases[1]}'")
    (folder / "keyproxy.toml").write_text("\n".join([*tables, *more]))
    keys = {f"{name.upper()}_API_KEY": fake.key for name, fake in served.items()}
    environ = {"KEYPROXY_LISTEN": "127.0.0.1:0", "KEYPROXY_ADMIN": "off", "KEYPROXY_LEDGER": "off"}
    return Sources("dev", {}, {**environ, **keys, **said}, folder).read()


@asynccontextmanager
async def before(fakes: Fakes, folder: Path, *more: str, **said: str) -> AsyncIterator[Proxy]:
    """A keyproxy that uses ``fakes`` with their own keys, as settings name them."""
    async with served(settings_for(fakes, folder, *more, **said), FakeUpstream()) as proxy:
        yield proxy


HI = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}


@pytest.mark.parametrize(
    ("name", "model", "native"),
    [
        ("groq", "openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("cerebras", "openai/gpt-oss-120b", "gpt-oss-120b"),
        ("openai", "openai/gpt-4o-mini", "gpt-4o-mini"),
        ("gemini", "google/gemini-3.5-flash", "gemini-3.5-flash"),
        ("mistral", "mistralai/mistral-medium-3-5", "mistral-medium-3.5"),
        ("xai", "x-ai/grok-4.3", "grok-4.3"),
        ("deepinfra", "openai/gpt-oss-120b", "openai/gpt-oss-120b"),
    ],
)
async def test_with_one_provider_that_is_not_openrouter_its_models_answer(
    tmp_path: Path, name: str, model: str, native: str
) -> None:
    async with fakes.serving(name) as served, before(served, tmp_path) as proxy:
        async with proxy.post({**HI, "model": model}) as answer:
            body = await answer.json()
        assert answer.status == 200, body
        assert answer.headers["X-Keyproxy-Provider"] == name
        [seen] = served.calls
        assert seen.json["model"] == native
        assert served.strays() == []
        await listed(proxy)  # which waits for the provider's own list
        await proxy.service.assembly.lists.settled(20)  # until then it is not known
        async with proxy.post({**HI, "model": "nobody/has-this"}) as refusal:
            assert (refusal.status, len(served.calls)) == (404, 1)


OSS, GROK = "openai/gpt-oss-120b", "x-ai/grok-4.3"


async def asked_alone(
    tmp_path: Path, *models: str, toml: str = "", **variables: str
) -> tuple[list[tuple[int, str | None]], Fakes]:
    """What calls of these models get where OpenRouter alone is used, each its status and code."""
    told: list[tuple[int, str | None]] = []
    async with (
        fakes.serving("openrouter") as served,
        before(served, tmp_path, toml, **variables) as proxy,
    ):
        if (prices := proxy.service.assembly.accounting.prices) is not None:
            await prices.loaded(20)
        for model in models:
            async with proxy.post({**HI, "model": model}) as answer:
                told.append((answer.status, answer.headers.get("X-Keyproxy-Code")))
        return told, served


NONE = 404, "no_provider_qualifies"


async def test_a_highest_price_holds_where_openrouter_alone_is_used(tmp_path: Path) -> None:
    """3 and 15 USD are above it; nothing else asks for prices here."""
    limit = {"KEYPROXY_MAX_PRICE": "input=1,output=5", "KEYPROXY_TOTAL_BUDGET": "off"}
    told, served = await asked_alone(tmp_path, OSS, GROK, f"{GROK}:floor", **limit)
    assert told == [(200, None), NONE, NONE]
    assert [seen.json["model"] for seen in served.calls] == [OSS]


async def test_what_openrouter_is_used_for_holds_where_it_is_alone(tmp_path: Path) -> None:
    told, served = await asked_alone(tmp_path, OSS, GROK, toml='models = ["openai/*"]')
    assert told == [(200, None), NONE]
    assert [seen.json["model"] for seen in served.calls] == [OSS]


async def test_calls_in_flight_are_bounded_where_openrouter_is_alone(tmp_path: Path) -> None:
    async with (
        fakes.serving("openrouter") as served,
        before(served, tmp_path, "max_in_flight = 1") as proxy,
    ):
        fake = served["openrouter"]
        fake.plan = lambda seen, body: Plan("slow")
        async with proxy.post({**HI, "model": OSS, "stream": True}) as first:
            await fake.until(lambda: len(fake.bills) == 1)
            async with proxy.post({**HI, "model": OSS}) as answer:
                await refused(answer, 503, "overloaded")
            fake.released.set()
            assert (first.status, len(fake.calls)) == (200, 1)


async def test_prices_that_are_not_there_yet_are_waited_for(tmp_path: Path) -> None:
    """Nobody is told that a model is too dear while it is not known what it costs."""
    async with (
        fakes.serving("openrouter") as served,
        before(served, tmp_path, KEYPROXY_MAX_PRICE="input=1,output=5") as proxy,
    ):
        prices = proxy.service.assembly.accounting.prices
        assert prices is not None
        await prices.loaded(20)
        prices.listed = PriceList()
        prices._look_up.cache_clear()
        async with proxy.post({**HI, "model": OSS}) as answer:
            await refused(answer, 503, "overloaded")
            assert int(answer.headers["Retry-After"]) > 0
        assert served.calls == []


@pytest.mark.parametrize("model", ["meta-llama/llama-3.2-3b", "llama3.2"])
async def test_a_model_whose_price_nobody_tells_is_no_router(tmp_path: Path, model: str) -> None:
    async with fake_upstream.serving(FakeUpstream()) as house:

        async def answer(request: web.Request) -> web.StreamResponse:
            if request.method == "GET":
                return web.json_response({"object": "list", "data": [{"id": model}]})
            return completion()

        house.answer = answer
        told = "[providers.house]\nkind = 'openai-compatible'\nkey = 'none'\n"
        settings = read(tmp_path, f"{told}base = '{house.base_url}'")
        async with served(settings, house) as proxy:
            assert "links" in (await listed(proxy))[model]
            async with proxy.post({**HI, "model": model}) as got:
                assert got.status == 200, await got.text()
        assert [json.loads(seen.body)["model"] for seen in house.calls] == [model]


async def test_messages_go_to_whom_they_are_native(tmp_path: Path) -> None:
    async with (
        fakes.serving("groq", "deepinfra", "anthropic") as served,
        before(served, tmp_path) as proxy,
    ):
        said = {**HI, "model": "anthropic/claude-haiku-4.5"}
        async with proxy.post(said, path="/api/v1/messages") as answer:
            assert answer.status == 200, await answer.text()
        assert [seen.vendor for seen in served.calls] == ["deepinfra"]
        assert served.strays() == []


async def listed(proxy: Proxy, query: str = "") -> dict[str, Any]:
    """The rows of the list of models, by id."""
    async with proxy.get(f"/api/v1/models{query}") as answer:
        body = await answer.json()
    assert answer.status == 200, body
    assert body["total_count"] == len(body["data"])
    return {row["id"]: row for row in body["data"]}


async def test_the_list_of_models_has_what_can_be_called_with_our_keys(tmp_path: Path) -> None:
    async with (
        fakes.serving("groq", "deepinfra", "openai") as served,
        before(served, tmp_path) as proxy,
    ):
        rows = await listed(proxy)
        named = {model.canonical for fake in served.values() for model in fake.vendor.models}
        assert named - rows.keys() == {"openai/text-embedding-3-small", "baai/bge-m3"}
        oss = rows["openai/gpt-oss-120b"]
        assert oss["pricing"]["prompt"] == "0.00000005", "DeepInfra's, which is cheaper"
        assert oss["context_length"] == 131_072
        assert "openai/text-embedding-3-small" in await listed(proxy, "?output_modalities=all")
        async with proxy.get("/api/v1/models/openai/gpt-oss-120b/endpoints") as answer:
            homes = (await answer.json())["data"]["endpoints"]
        assert [home["tag"] for home in homes] == ["groq", "deepinfra"]
        async with proxy.get("/api/v1/model/openai/gpt-oss-120b") as answer:
            assert (await answer.json())["data"] == oss
        async with proxy.get("/api/v1/model/nobody/knows") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("are_told", [True, False])
async def test_cerebras_prices_are_those_that_it_shows_to_anybody(
    tmp_path: Path, are_told: bool
) -> None:
    """Without its key; where they cannot be had, the shipped table's."""
    async with fakes.serving("cerebras") as served:
        fake = served["cerebras"]
        models = tuple(model._replace(prompt=Decimal(9)) for model in fake.vendor.models)
        fake.vendor = replace(fake.vendor, models=models)
        if not are_told:
            lists = {path: each for path, each in fake.vendor.lists.items() if "public" not in path}
            fake.vendor = replace(fake.vendor, lists=lists)
        async with before(served, tmp_path) as proxy:
            rows = await listed(proxy)
        asked = [seen for seen in served.seen if seen.target == "/public/v1/models"]
        assert asked
        assert not [seen for seen in asked if seen.keys]
        told = rows["openai/gpt-oss-120b"]["pricing"]["prompt"]
        assert told == ("0.000009" if are_told else "0.00000035")


async def test_the_list_has_nothing_that_is_not_allowed_or_has_no_home(tmp_path: Path) -> None:
    async with (
        fakes.serving("groq", "openai") as served,
        before(served, tmp_path, KEYPROXY_ALLOWED_MODELS="openai/gpt-*,!openai/gpt-oss-*") as proxy,
    ):
        assert (await listed(proxy)).keys() == {
            f"openai/{model}" for model in ("gpt-6.1-sol", "gpt-4o-mini", "gpt-5.6-sol")
        }


async def test_beside_openrouter_the_list_has_what_it_lacks(tmp_path: Path) -> None:
    async with (
        fakes.serving("groq", "openrouter") as served,
        before(served, tmp_path) as proxy,
    ):
        rows = await listed(proxy)
        own = {model.canonical for model in served["openrouter"].vendor.models}
        assert own - {"openai/text-embedding-3-small"} <= rows.keys() | {"x"}
        assert "meta-llama/llama-4-scout" in rows, "Groq alone has it"
        [oss] = [row for id, row in rows.items() if id == "openai/gpt-oss-120b"]
        assert oss["pricing"]["prompt"] == "0.0000001", "OpenRouter's own row"


@pytest.mark.parametrize("is_on", [False, True])
async def test_openrouter_is_asked_for_its_list_only_where_it_is_used_or_named(
    tmp_path: Path, is_on: bool, upstream: FakeUpstream
) -> None:
    said = {"KEYPROXY_UPSTREAM": upstream.base_url}
    if is_on:
        said["KEYPROXY_PUBLIC_LIST"] = "on"
    async with fakes.serving("openai") as served, before(served, tmp_path, **said) as proxy:
        rows = await listed(proxy)
        name = "openai/gpt-4o-mini"
        assert ("description" in rows[name]) is not is_on, "OpenRouter's fake has none"
        assert bool(upstream.catalogue) is is_on
        assert not any("Authorization" in seen.headers for seen in upstream.catalogue)
        assert "anthropic/claude-sonnet-4.5" not in rows, "nobody who is used has it"


async def test_check_asks_each_provider_about_its_own_keys(tmp_path: Path) -> None:
    names = ("groq", "deepinfra", "anthropic", "openrouter")
    async with fakes.serving(*names) as served:
        settings = settings_for(served, tmp_path)
        found = await of_keys(settings)
        told = {each.about: (each.grade, each.text) for each in found}
        labels = {name: Secret(fake.key).label for name, fake in served.items()}
        assert told[f"Groq key {labels['groq']}"] == ("fine", "works")
        assert told[f"Anthropic key {labels['anthropic']}"] == ("fine", "works")
        assert told[f"DeepInfra key {labels['deepinfra']}"][1].startswith(
            "unknown: DeepInfra shows to anybody"
        )
        assert told["Groq"][1] == "3 models listed, the prices of 3 are known"
        assert re.search(r"is of 20\d\d-\d\d-\d\d", told["models"][1])
        assert served.strays() == []
        assert served.calls == []


async def test_check_says_which_key_and_which_name_does_not_work(tmp_path: Path) -> None:
    async with fakes.serving("groq", "xai") as served:
        said = {
            "GROQ_API_KEY": "gsk_" + "z9" * 26,
            "KEYPROXY_ALLOWED_MODELS": "x-ai/grok-4.3,openai/none-such",
        }
        found = await of_keys(settings_for(served, tmp_path, **said))
        errors = [(each.about, each.text) for each in found if each.grade == "error"]
        assert errors == [
            ("Groq key gsk_z9z...9z9", "the upstream does not know this key (401): mistyped,"
             " deleted, disabled or expired"),
        ]  # fmt: skip
        warnings = [each.text for each in found if each.grade == "warning"]
        assert warnings == [
            "Groq's list of models cannot be had (its list of models has the status 401)"
        ]
        assert served.strays() == []


async def test_check_names_a_model_that_has_no_home(tmp_path: Path) -> None:
    async with fakes.serving("groq", "xai") as served:
        said = {"KEYPROXY_ALLOWED_MODELS": "x-ai/grok-4.3,openai/none-such"}
        found = await of_keys(settings_for(served, tmp_path, **said))
        [warning] = [each.text for each in found if each.grade == "warning"]
        assert warning == "openai/none-such has no home: none of groq, xai lists it"


@pytest.mark.parametrize(
    ("names", "call"),
    [
        (["groq"], 'responses.create({ model: "openai/gpt-oss-120b"'),
        (["cerebras"], 'chat.completions.create({ model: "openai/gpt-oss-120b"'),
        (["anthropic"], 'ai.messages.create({ model: "anthropic/claude-haiku-4.5"'),
        (["xai"], 'responses.create({ model: "x-ai/grok-4.3"'),
        (["mistral", "openrouter"], 'responses.create({ model: "openai/gpt-4o-mini"'),
    ],
)
async def test_the_start_shows_a_call_that_can_be_answered(
    tmp_path: Path, names: list[str], call: str
) -> None:
    async with (
        fakes.serving(*names) as served,
        before(served, tmp_path) as proxy,
    ):
        text = _banner(proxy.service)
    assert call in text
    assert f"  Providers  {', '.join(names)}\n" in text
    assert max(map(len, text.splitlines())) <= 80


async def test_the_start_says_to_which_other_hosts_keys_go(tmp_path: Path) -> None:
    toml = "[providers.groq]\nbase = 'https://elsewhere.example/v1'\n[providers.deepinfra]"
    async with running(read(tmp_path, toml)) as service:
        text = _banner(service)
    assert "  Keys go    groq to elsewhere.example\n" in text


async def test_the_start_says_whose_keys_lie_about(tmp_path: Path) -> None:
    async with (
        fakes.serving("groq") as served,
        before(served, tmp_path, MISTRAL_API_KEY="your-key", OPENAI_API_KEY="sk-x") as proxy,
    ):
        text = _banner(proxy.service)
    assert "  Providers  groq; set and not used: OPENAI_API_KEY, MISTRAL_API_KEY\n" in text


@pytest.mark.parametrize("name", ["gemini", "xai"])
async def test_a_key_that_is_refused_with_400_is_set_aside(tmp_path: Path, name: str) -> None:
    keys = {"gemini": "AIza" + "z9" * 17 + "z", "xai": "xai-" + "z9" * 40}
    async with fakes.serving(name) as served:
        settings = settings_for(served, tmp_path, **{f"{name.upper()}_API_KEY": keys[name]})
        found = await of_keys(settings)
    [error] = [each.text for each in found if each.grade == "error"]
    assert "does not know this key" in error


async def test_a_list_that_holds_a_key_is_not_shown(several: Several) -> None:
    async def listing(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": f"a/{OPENROUTER}"}, {"id": "a/b"}]})

    several.fakes["groq"].answer = listing
    with pytest.raises(Refusal) as caught:
        await several.service.kit.default.upstreams["groq"].models()
    assert caught.value.code == "upstream_invalid"


async def test_an_odd_id_in_a_list_is_no_model(several: Several) -> None:
    async def listing(request: web.Request) -> web.StreamResponse:
        ids = ["a/b", "a b", "x" * 201, "\x1b[31m", ""]
        return web.json_response({"data": [{"id": id} for id in ids]})

    several.fakes["groq"].answer = listing
    assert list(await several.service.kit.default.upstreams["groq"].models()) == ["a/b"]


async def test_a_list_without_end_is_cut(several: Several) -> None:
    """Eight megabytes of ids would be a hundred of rows, for everybody who asks for the list."""

    async def listing(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": f"a/{n}"} for n in range(MOST_MODELS + 1)]})

    several.fakes["groq"].answer = listing
    models = await several.service.kit.default.upstreams["groq"].models()
    assert list(models)[-1] == f"a/{MOST_MODELS - 1}"


async def test_check_names_an_id_that_its_provider_does_not_list(tmp_path: Path) -> None:
    async with fakes.serving("groq", "xai") as served:
        route = '[models."a/b"]\nat = ["groq:no-such", "xai:grok-4.3"]'
        found = await of_keys(settings_for(served, tmp_path, route))
    [warning] = [each.text for each in found if each.grade == "warning"]
    assert warning == "at of a/b: groq does not list no-such"


@pytest.mark.parametrize(("is_used", "status"), [(True, 502), (False, 200)])
async def test_while_openrouters_list_is_away_a_part_of_it_is_no_list(
    tmp_path: Path, is_used: bool, status: int
) -> None:
    """Prices of all that OpenRouter has would be taken for unknown."""
    names = ("groq", "openrouter") if is_used else ("groq",)
    away = {"KEYPROXY_UPSTREAM": "http://127.0.0.1:9/api/v1", "KEYPROXY_PUBLIC_LIST": "on"}
    async with fakes.serving(*names, absent=("openrouter",)) as served:
        said = {} if is_used else away
        async with before(served, tmp_path, **said) as proxy, proxy.get("/api/v1/models") as answer:
            assert answer.status == status
