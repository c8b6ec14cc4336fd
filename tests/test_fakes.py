"""The fake providers are real enough: their wire is the vendors', their books add up."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes.books import Plan
from tests.fakes.fake import Fake
from tests.fakes.server import Fakes, serving
from tests.fakes.vendor import Model
from tests.fakes.vendors import VENDORS

WIRE = Path(__file__).parent / "wire"
SAID = [{"role": "user", "content": "Grüße"}]
NAMES = tuple(VENDORS)


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    async with serving() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


def model_of(fake: Fake, dialect: str = "chat") -> Model:
    is_embedding = dialect == "embeddings"
    return next(m for m in fake.vendor.models if (m.dialects is not None) == is_embedding)


def body_for(fake: Fake, dialect: str, **more: Any) -> dict[str, Any]:
    """The least that is taken there."""
    body: dict[str, Any] = {"model": model_of(fake, dialect).id}
    if dialect in ("chat", "messages"):
        body["messages"] = SAID
    else:
        body["input"] = "Grüße"
    return body | ({"max_tokens": 40} if dialect == "messages" else {}) | more


def headers_for(fake: Fake, dialect: str) -> dict[str, str]:
    if fake.vendor.name == "anthropic" and dialect == "messages":
        return {"x-api-key": fake.key, "anthropic-version": "2023-06-01"}
    return {"Authorization": f"Bearer {fake.key}"}


async def ask(
    session: aiohttp.ClientSession,
    fake: Fake,
    body: dict[str, Any],
    dialect: str = "chat",
    **headers: str,
) -> tuple[int, bytes]:
    url = fake.origin + fake.vendor.paths[dialect]
    sent = headers_for(fake, dialect) | headers
    async with session.post(url, json=body, headers=sent) as answer:
        return answer.status, await answer.read()


# The wire


def shape(value: Any) -> Any:
    """Names and kinds of what stands in a JSON value."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return "number" if isinstance(value, int | float) else type(value).__name__


def events(stream: bytes) -> list[Any]:
    """Each event's name and the shape of its data; comments, but for the times in them."""
    found: list[Any] = []
    for event in stream.decode().removesuffix("\n\n").split("\n\n"):
        for line in event.split("\n"):
            name, _, value = line.partition(": ")
            is_json = name == "data" and value.startswith("{")
            if name == "":
                found.append(("comment", value.partition(" - ")[0]))
            else:
                found.append((name, shape(json.loads(value)) if is_json else value))
    return found


SAMPLES = {
    **{f"provider-{name}-stream.sse": name for name in NAMES if name != "openrouter"},
    "chat-stream-usage-emptychoices.sse": "openrouter",
}
# What samples have and fakes leave out, or the other way: it stands in no place that is read.
BESIDE = ("native_finish_reason", "citations", "logprobs", "system_fingerprint")


def without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without(inner) for name, inner in value.items() if name not in BESIDE}
    return [without(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(("sample", "name"), SAMPLES.items())
async def test_a_stream_looks_as_the_vendors(
    sample: str, name: str, fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    fake = fakes[name]
    dialect = "messages" if name == "anthropic" else "chat"
    asks = (
        {"stream_options": {"include_usage": True}} if name in ("openai", "gemini", "xai") else {}
    )
    body = body_for(fake, dialect, stream=True, **asks)
    status, stream = await ask(session, fake, body, dialect)
    assert status == 200
    assert without(events(stream)) == without(events((WIRE / sample).read_bytes()))


@pytest.mark.parametrize("name", ("openai", "gemini", "xai", "anthropic"))
async def test_usage_that_is_not_asked_for_is_not_told(
    name: str, fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    _, stream = await ask(session, fakes[name], body_for(fakes[name], "chat", stream=True))
    assert b"usage" not in stream
    assert fakes[name].billed > 0


ALL = [(name, dialect) for name, vendor in VENDORS.items() for dialect in vendor.paths]


@pytest.mark.parametrize(("name", "dialect"), ALL)
async def test_a_whole_answer_is_billed_by_the_vendors_own_prices(
    name: str, dialect: str, fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    fake = fakes[name]
    status, raw = await ask(session, fake, body_for(fake, dialect), dialect)
    assert status == 200
    [bill] = fake.bills
    usage = json.loads(raw)["usage"]
    model = model_of(fake, dialect)
    read = usage.get("prompt_tokens", usage.get("input_tokens"))
    total = usage.get("total_tokens", read + usage.get("output_tokens", 0))
    assert bill.cost == (read * model.prompt + (total - read) * model.completion) / 1_000_000
    told = usage.get("cost") or usage.get("estimated_cost")
    assert told is None or Decimal(str(told)) == bill.cost
    ticks = usage.get("cost_in_usd_ticks")
    assert ticks is None or Decimal(ticks) / 10**10 == bill.cost


# Keys


@pytest.mark.parametrize("name", NAMES)
async def test_another_vendors_key_is_refused(
    name: str, fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    fake, other = fakes[name], fakes["mistral" if name != "mistral" else "groq"]
    stolen = {"Authorization": f"Bearer {other.key}"}
    url = fake.origin + fake.vendor.paths["chat"]
    async with session.post(url, json=body_for(fake, "chat"), headers=stolen) as answer:
        assert answer.status == fake.vendor.troubles["key"].status
    both = headers_for(fake, "chat") | {"x-api-key": fake.key}
    async with session.post(url, json=body_for(fake, "chat"), headers=both) as answer:
        assert answer.status == fake.vendor.troubles["key"].status
    assert fakes.strays() == [f"the key of {other.vendor.name} reached {name}"]
    assert fake.bills == []


@pytest.mark.parametrize("name", NAMES)
async def test_models_are_listed(name: str, fakes: Fakes, session: aiohttp.ClientSession) -> None:
    fake = fakes[name]
    own = {"Authorization": f"Bearer {fake.key}"}
    for path, catalogue in fake.vendor.lists.items():
        async with session.get(fake.origin + path) as answer:
            unknown = fake.vendor.troubles["key"].status
            assert answer.status == (200 if catalogue.is_public else unknown)
        async with session.get(fake.origin + path, headers=own) as answer:
            text = await answer.text()
            assert all(model.id in text for model in fake.vendor.models)


async def test_openrouter_lists_the_hosts_of_a_model(
    fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    url = fakes["openrouter"].base + "/models/openai/gpt-oss-120b/endpoints"
    async with session.get(url) as answer:
        rows = (await answer.json())["data"]["endpoints"]
    prices = {row["tag"]: row["pricing"]["prompt"] for row in rows}
    assert prices == {"groq": "0.00000015", "cerebras": "0.00000035", "deepinfra": "0.00000005"}


# Strictness

_ECHO = {"role": "assistant", "content": "Hm", "reasoning_content": "I think"}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {"max_tokens": 5},
        {"reasoning": {"effort": "low"}},
        {"provider": {}},
        {"top_k": 5},
    ],
    "gemini": [
        {"reasoning": {"effort": "low"}},
        {"top_k": 5},
        {"frequency_penalty": 0},
        {"store": False},
        {"anything": 1},
    ],
    "groq": [
        {"store": False},
        {"prompt_cache_key": "k"},
        {"logprobs": True},
        {"top_logprobs": 1},
        {"logit_bias": {}},
        {"n": 2},
        {"messages": [{"role": "user", "content": "Hi", "name": "Ada"}]},
        *(
            {"messages": [*SAID, {"role": "assistant", "content": "Hm", name: "x"}, *SAID]}
            for name in ("reasoning_content", "metadata", "id", "timestamp")
        ),
    ],
    "cerebras": [
        {"messages": [*SAID, _ECHO, *SAID]},
        {"thinking": {"type": "enabled"}},
        {"prompt_cache_key": "k"},
        {"verbosity": "low"},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "parameters": {"properties": {"a": {"type": "array", "minItems": 1}}},
                    },
                }
            ]
        },
    ],
    "mistral": [
        {"max_completion_tokens": 5},
        {"store": False},
        {"metadata": {}},
        {"n": 1},
        {"functions": []},
        {"tools": []},
        {"stream_options": {"include_usage": True}},
        {"messages": [*SAID, _ECHO, *SAID]},
        {"messages": [{"role": "user", "content": "Hi", "name": "Ada"}]},
    ],
    "xai": [{"presence_penalty": 0}, {"frequency_penalty": 0}, {"stop": ["END"]}],
    "anthropic": [{"n": 2}],
    "deepinfra": [{"messages": None}],
}
CASES = [(name, more) for name, cases in REFUSED.items() for more in cases]


@pytest.mark.parametrize(("name", "more"), CASES)
async def test_what_the_vendor_refuses_is_refused(
    name: str, more: dict[str, Any], fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    fake = fakes[name]
    body = body_for(fake, "chat") | more
    if body["messages"] is None:
        del body["messages"]
    status, raw = await ask(session, fake, body)
    assert status == (422 if name in ("mistral", "deepinfra") else 400)
    assert json.loads(raw)
    assert fake.bills == []


TAKEN: dict[str, list[dict[str, Any]]] = {
    "openai": [{"max_completion_tokens": 5}, {"messages": [*SAID, _ECHO, *SAID]}, {"store": False}],
    "anthropic": [{"response_format": {}, "seed": 1, "logprobs": True, "n": 1, "made_up": 1}],
    "groq": [{"n": 1, "max_tokens": 5}, {"max_completion_tokens": 5, "frequency_penalty": 0}],
    "mistral": [{"max_tokens": 5}],
    "deepinfra": [{"made_up": 1, "messages": [*SAID, _ECHO, *SAID]}],
    "openrouter": [{"made_up": 1, "provider": {"order": ["groq"]}}],
    "xai": [{"max_tokens": 5, "seed": 1}],
}


@pytest.mark.parametrize(
    ("name", "more"), [(name, more) for name, cases in TAKEN.items() for more in cases]
)
async def test_what_the_vendor_takes_is_taken(
    name: str, more: dict[str, Any], fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    status, raw = await ask(session, fakes[name], body_for(fakes[name], "chat") | more)
    assert status == 200, raw


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ({"made_up": 1}, {}),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]}, {}),
        ({"temperature": 1}, {"anthropic-version": "2026-10-21"}),
        ({}, {"anthropic-beta": "made-up-2026-01-01"}),
        (
            {
                "messages": [
                    *SAID,
                    {
                        "role": "assistant",
                        "content": [{"type": "thinking", "thinking": "Hm", "signature": "other"}],
                    },
                    *SAID,
                ]
            },
            {},
        ),
    ],
)
async def test_messages_are_as_strict_as_anthropic(
    more: dict[str, Any], headers: dict[str, str], fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    fake = fakes["anthropic"]
    status, raw = await ask(
        session, fake, body_for(fake, "messages", **more), "messages", **headers
    )
    assert (status, json.loads(raw)["type"]) == (400, "error")
    assert fake.bills == []


async def test_answers_are_kept_unless_told_otherwise(
    fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    for name in ("openai", "xai"):
        fake = fakes[name]
        await ask(session, fake, body_for(fake, "responses"), "responses")
        await ask(session, fake, body_for(fake, "responses", store=False), "responses")
        assert fake.stored == [f"resp_{name}_1"]


# What goes wrong

TROUBLES = [(name, said) for name, vendor in VENDORS.items() for said in vendor.troubles]


@pytest.mark.parametrize(("name", "said"), TROUBLES)
async def test_each_error_has_the_vendors_shape_and_costs_nothing(
    name: str, said: str, fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    fake = fakes[name]
    trouble = fake.vendor.troubles[said]
    status, raw = await ask(session, fake, body_for(fake, "chat") | {"model": f"fails/{said}"})
    body = json.loads(raw)
    assert status == trouble.status
    kinds = {
        "gemini": lambda: body[0]["error"]["message"],
        "xai": lambda: (body["code"], body["error"])[1],
        "cerebras": lambda: body["message"],
        "mistral": lambda: body["message" if "message" in body else "detail"],
    }
    assert kinds.get(name, lambda: body.get("error") or body["detail"])()
    assert [bill.cost for bill in fake.bills] == [0]


@pytest.mark.parametrize("name", NAMES)
async def test_a_stream_that_is_hung_up_on_is_billed_by_the_vendors_rule(
    name: str, fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    fake = fakes[name]
    body = body_for(fake, "chat", stream=True) | {"model": "fails/slow"}
    url = fake.origin + fake.vendor.paths["chat"]
    fake.plan = lambda seen, body: Plan("slow", tokens=40)
    async with session.post(url, json=body, headers=headers_for(fake, "chat")) as answer:
        assert answer.status == 200
    await fake.until(lambda: fake.bills[0].cost is not None)
    [bill] = fake.bills
    assert bill.used.completion == (40 if fake.vendor.bills_on else 0)
    assert bill.cost == bill.used.cost(bill.model)


async def test_a_call_goes_as_it_is_told(fakes: Fakes, session: aiohttp.ClientSession) -> None:
    fake = fakes["groq"]
    plans = iter([Plan("reset", bills=False), Plan("cut", after=2), Plan("error_first"), Plan()])
    fake.plan = lambda seen, body: next(plans)
    body = body_for(fake, "chat", stream=True)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await ask(session, fake, body)
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(session, fake, body)
    status, raw = await ask(session, fake, body)
    assert (status, raw.startswith(b'data: {"error"')) == (200, True)
    assert (await ask(session, fake, body))[0] == 200
    costs = [bill.cost for bill in fake.bills]
    assert costs[0] == 0
    assert costs[1] == costs[3] == fake.billed - (costs[2] or 0) - (costs[1] or 0)


async def test_a_long_beginning_is_read_from_the_cache(
    fakes: Fakes, session: aiohttp.ClientSession
) -> None:
    fake = fakes["cerebras"]
    said = [{"role": "user", "content": "x" * 6000}]
    for _ in range(2):
        await ask(session, fake, body_for(fake, "chat", messages=said))
    first, second = fake.bills
    assert (first.used.cached, second.used.cached > 1000) == (0, True)


async def test_nobody_listens_where_a_fake_is_absent(session: aiohttp.ClientSession) -> None:
    async with serving("groq", absent=("groq",)) as fakes:
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask(session, fakes["groq"], body_for(fakes["groq"], "chat"))
