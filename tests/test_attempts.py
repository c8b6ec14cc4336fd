"""Calls at one provider after the other, before fakes that are as strict as the true ones."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from keyproxy.ledger.file import ask
from keyproxy.ledger.queries import summary
from keyproxy.routing.retries import A_MINUTE
from keyproxy.settings import Secret
from tests.conftest import Proxy, refused
from tests.fakes import server
from tests.fakes.books import Plan
from tests.fakes.server import Fakes
from tests.loopback import listening
from tests.routed import HI, MODEL, asked, failing, proxy_before

OSS = {"model": "openai/gpt-oss-120b", **HI}
FAILING = {"model": MODEL, **HI}
THREE = ("groq", "cerebras", "openrouter")


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    async with server.serving(*THREE) as running:
        yield running


async def posted(proxy: Proxy, body: dict[str, Any]) -> tuple[int, Any, Any]:
    async with proxy.post(body) as answer:
        raw = await answer.read()
        return answer.status, answer.headers, raw


async def test_the_first_home_answers_with_its_own_key_and_id(fakes: Fakes) -> None:
    async with proxy_before(fakes) as proxy, proxy.post(OSS | {"user": "ann"}) as answer:
        assert answer.status == 200
        assert (await answer.json())["choices"]
        assert answer.headers["X-Keyproxy-Provider"] == "groq"
        assert "X-Keyproxy-Attempts" not in answer.headers
        assert "X-Keyproxy-Removed" not in answer.headers
    [seen] = fakes.calls
    assert (seen.vendor, seen.keys) == ("groq", [fakes["groq"].key])
    assert fakes.strays() == []


async def test_what_was_removed_is_told(fakes: Fakes) -> None:
    body = OSS | {"session_id": "s", "tools": [], "presence_penalty": 0}
    page = {"Origin": "http://localhost:5173"}
    async with proxy_before(fakes) as proxy, proxy.post(body, headers=page) as answer:
        assert answer.status == 200
        assert answer.headers["X-Keyproxy-Removed"] == "session_id, tools"
        exposed = answer.headers["Access-Control-Expose-Headers"].lower()
    [seen] = fakes.calls
    assert seen.json == OSS | {"presence_penalty": 0}
    assert all(f"x-keyproxy-{name}" in exposed for name in ("provider", "attempts", "removed"))


async def test_bytes_go_up_as_they_came_where_nothing_changes(fakes: Fakes) -> None:
    raw = json.dumps(OSS, indent=1).encode()
    async with proxy_before(fakes) as proxy, proxy.post(raw) as answer:
        assert answer.status == 200
    assert fakes.calls[0].body == raw


@pytest.mark.parametrize("is_streaming", [False, True])
@pytest.mark.parametrize(
    ("end", "word"),
    [
        ("rate", "429"),
        ("503", "503"),
        ("500", "500"),
        ("key", "failed"),
        ("no_model", "404"),
        ("error_first", "failed"),
        ("reset", "cut"),
    ],
)
async def test_another_home_answers(fakes: Fakes, end: str, word: str, is_streaming: bool) -> None:
    body = FAILING | {"stream": is_streaming}
    async with proxy_before(fakes, more=failing(groq=end, cerebras="whole")) as proxy:
        status, headers, raw = await posted(proxy, body)
    assert status == 200, raw
    assert headers["X-Keyproxy-Provider"] == "cerebras"
    assert headers["X-Keyproxy-Attempts"] == f"groq={word}, cerebras=200"
    assert asked(fakes) == ["groq", "cerebras"]
    assert fakes.strays() == []
    assert b"groq" not in raw.lower()


async def test_a_home_that_answers_between_its_failures_goes_on_to_be_asked(fakes: Fakes) -> None:
    """Three in a row would have it rest."""
    ends = iter(["500", "500", "whole", "500", "whole"])
    fakes["groq"].plan = lambda seen, body: Plan(next(ends))
    async with proxy_before(fakes) as proxy:
        answers = [await posted(proxy, OSS) for _ in range(5)]
    homes = [headers["X-Keyproxy-Provider"] for _, headers, _ in answers]
    assert homes == ["cerebras", "cerebras", "groq", "cerebras", "groq"]


@pytest.mark.parametrize(("ends", "stays"), [("whole", True), ("cut", False)])
async def test_a_conversation_stays_where_an_answer_came_to_its_end(
    fakes: Fakes, ends: str, stays: bool
) -> None:
    fakes["groq"].plan = lambda seen, body: Plan(ends, tokens=20, after=10, pause_seconds=0.02)
    async with proxy_before(fakes) as proxy:
        with contextlib.suppress(aiohttp.ClientPayloadError):
            await posted(proxy, OSS | {"stream": True, "session_id": "s"})
        memory = proxy.service.assembly._routes().memory
        assert [stay.home.provider for stay in memory.stays._stays.values()] == ["groq"] * stays
    assert asked(fakes) == ["groq"]


async def test_a_home_that_is_not_there(fakes: Fakes) -> None:
    async with server.serving(*THREE, absent=("groq",)) as some:
        async with proxy_before(some) as proxy:
            status, headers, _ = await posted(proxy, OSS)
        assert (status, asked(some)) == (200, ["cerebras"])
        assert headers["X-Keyproxy-Attempts"] == "groq=unreachable, cerebras=200"


@pytest.mark.parametrize("end", ["invalid", "made_up_tool"])
async def test_the_callers_fault_stays_where_it_is(fakes: Fakes, end: str) -> None:
    async with proxy_before(fakes, more=failing(groq=end, cerebras="whole")) as proxy:
        status, headers, raw = await posted(proxy, FAILING)
    assert status in (400, 422)
    assert json.loads(raw)["error"]
    assert headers["X-Keyproxy-Provider"] == "groq"
    assert "X-Keyproxy-Attempts" not in headers
    assert asked(fakes) == ["groq"]


SAID_LATE: dict[str, Any] = {
    "chat": {"error": {"type": "invalid_request_error", "code": "invalid_value", "message": "no"}},
    "messages": {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}},
    "responses": {"type": "response.failed", "response": {"error": {"code": "invalid_prompt"}}},
}


@pytest.mark.parametrize("first", ["500", "503"])
@pytest.mark.parametrize("style", SAID_LATE)
async def test_the_callers_fault_behind_a_good_status_passes(style: str, first: str) -> None:
    """Also where others have failed before: it is told as it came, not as a trouble of ours."""
    said = b"data: %b\n\n" % json.dumps(SAID_LATE[style]).encode()

    async def say(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=said, content_type="text/event-stream")

    names = {"messages": ("deepinfra", "anthropic", "openrouter")}
    names["responses"] = ("groq", "openai", "openrouter")
    ask = {"model": MODEL, "stream": True, "max_tokens": 9, **HI}
    if style == "responses":
        ask = {"model": MODEL, "stream": True, "input": "x"}
    one, two, three = names.get(style, ("groq", "cerebras", "openrouter"))
    at = failing(**{one: first, two: "whole", three: "whole"})
    async with server.serving(one, two, three) as fakes, listening(say) as port:
        fakes[two].origin = f"http://127.0.0.1:{port}"
        path = {"chat": "/api/v1/chat/completions"}.get(style, f"/api/v1/{style}")
        async with proxy_before(fakes, more=at) as proxy, proxy.post(ask, path) as answer:
            assert (answer.status, await answer.read()) == (200, said)
            assert answer.headers["X-Keyproxy-Attempts"] == f"{one}={first}, {two}=200"
        assert asked(fakes) == [one]


async def test_no_caller_takes_a_home_from_others_by_a_field_that_is_refused_there() -> None:
    """Which the policy and our table let through; it goes on to where it is taken, if anywhere."""
    at = failing(openai="whole", groq="whole", openrouter="whole")
    field = {"prompt_cache_options": {"mode": "explicit"}}
    async with server.serving("openai", "groq", "openrouter") as fakes:
        async with proxy_before(fakes, more=at) as proxy:
            with capture_logs() as lines:
                status, headers, _ = await posted(proxy, FAILING | field)
            assert (status, headers["X-Keyproxy-Provider"]) == (200, "openrouter")
            assert headers["X-Keyproxy-Attempts"] == "openai=400, openrouter=200"
            [line] = [line for line in lines if line["event"] == "an attempt failed"]
            assert (line["fault"], line["log_level"]) == ("field", "warning")
            _, headers, _ = await posted(proxy, FAILING)
            assert headers["X-Keyproxy-Provider"] == "openai"
        assert asked(fakes) == ["openai", "openrouter", "openai"]


async def test_no_caller_uses_up_the_further_attempts_of_others() -> None:
    """Whoever writes a call decides which fields are refused: there is no trouble to be spared."""
    at = failing(openai="whole", openrouter="whole")
    body = FAILING | {"prompt_cache_options": {"mode": "explicit"}}
    async with server.serving("openai", "openrouter") as fakes:
        async with proxy_before(fakes, more=at) as proxy:
            for _ in range(2 * A_MINUTE):
                status, _, _ = await posted(proxy, body)
                assert status == 200
        assert len(fakes.calls) == 4 * A_MINUTE


async def test_the_field_that_nobody_takes_is_told_the_caller() -> None:
    field = {"prompt_cache_options": {"mode": "explicit"}}
    async with server.serving("openai", "groq") as fakes:
        async with proxy_before(fakes, more=failing(openai="whole", groq="whole")) as proxy:
            status, headers, raw = await posted(proxy, FAILING | field)
        assert (status, asked(fakes)) == (400, ["openai"])
        assert json.loads(raw)["error"]["param"] == "prompt_cache_options"
        assert "Retry-After" not in headers


@pytest.mark.parametrize(("at", "level"), [("", "info"), (failing(openrouter="no_model"), "error")])
async def test_a_model_that_nobody_has_is_the_operators_error_where_it_is_theirs(
    fakes: Fakes, at: str, level: str
) -> None:
    """Whoever calls may name what they like."""
    async with proxy_before(fakes, more=at) as proxy:
        with capture_logs() as lines:
            status, _, _ = await posted(proxy, FAILING)
        assert status == 400
    [line] = [line for line in lines if line["event"] == "an attempt failed"]
    assert (line["fault"], line["log_level"]) == ("config", level)


async def test_no_attempt_after_the_first_output(fakes: Fakes) -> None:
    fakes["groq"].plan = lambda seen, body: Plan("cut", pause_seconds=0.05)
    async with proxy_before(fakes) as proxy, proxy.post(OSS | {"stream": True}) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert asked(fakes) == ["groq"]


async def test_uncertain_failures_move_on_once(fakes: Fakes) -> None:
    at = failing(groq="500", cerebras="500", openrouter="whole")
    async with proxy_before(fakes, more=at) as proxy:
        status, headers, _ = await posted(proxy, FAILING)
    assert (status, asked(fakes)) == (500, ["groq", "cerebras"])
    assert headers["X-Keyproxy-Attempts"] == "groq=500, cerebras=500"


async def test_three_attempts_at_most() -> None:
    names = ("groq", "cerebras", "mistral", "openrouter")
    at = failing(groq="rate", cerebras="rate", mistral="rate", openrouter="whole")
    async with server.serving(*names) as fakes, proxy_before(fakes, more=at) as proxy:
        status, headers, _ = await posted(proxy, FAILING)
        assert (status, asked(fakes)) == (429, ["groq", "cerebras", "mistral"])
        assert headers["Retry-After"] == "1"  # Mistral's


async def test_what_failed_differently_is_one_stable_refusal(fakes: Fakes) -> None:
    at = failing(groq="rate", cerebras="503")
    async with proxy_before(fakes, more=at) as proxy, proxy.post(FAILING) as answer:
        await refused(answer, 503, "upstream_unavailable")
        assert answer.headers["Retry-After"] == "2"
        assert answer.headers["X-Keyproxy-Attempts"] == "groq=429, cerebras=503"


async def test_a_home_without_the_model_is_asked_for_it_again_after_a_reload(fakes: Fakes) -> None:
    ways = []
    async with proxy_before(fakes, more=failing(groq="no_model", cerebras="whole")) as proxy:
        for _ in range(2):
            ways += [(await posted(proxy, FAILING))[1].get("X-Keyproxy-Attempts") for _ in range(2)]
            proxy.service.apply(proxy.service.settings)
    assert ways == ["groq=404, cerebras=200", None] * 2


async def test_a_wait_that_no_client_should_wait_is_told(fakes: Fakes) -> None:
    """All homes rest for so long: truly, and in the word that SDKs read."""
    at = failing(groq="500", cerebras="500")
    async with proxy_before(fakes, more=at) as proxy:
        for _ in range(3):  # three in a row: 15 s
            async with proxy.post(FAILING) as answer:
                wait, retry = answer.headers["Retry-After"], answer.headers.get("x-should-retry")
        assert answer.status == 500
    assert 10 < int(wait) <= 15
    assert retry == "false"


async def test_a_home_that_asked_for_a_rest_is_tried_last(fakes: Fakes) -> None:
    async with proxy_before(fakes, more=failing(groq="rate", cerebras="whole")) as proxy:
        for _ in range(3):
            status, _, _ = await posted(proxy, FAILING)
            assert status == 200
    assert asked(fakes) == ["groq", "cerebras", "cerebras", "cerebras"]


async def test_without_fallback_there_is_one_attempt(fakes: Fakes) -> None:
    at = failing(groq="rate", cerebras="whole")
    async with proxy_before(fakes, more=at, FALLBACK="none") as proxy:
        status, headers, _ = await posted(proxy, FAILING)
    assert (status, asked(fakes)) == (429, ["groq"])
    assert headers["Retry-After"] == "2"


async def test_no_second_vendor_sees_a_call_that_says_so(fakes: Fakes) -> None:
    at, only = failing(groq="rate", cerebras="whole"), {"provider": {"allow_fallbacks": False}}
    async with proxy_before(fakes, more=at, ALLOWED_FEATURES="provider") as proxy:
        status, _, _ = await posted(proxy, FAILING | only)
    assert (status, asked(fakes)) == (429, ["groq"])


async def test_a_silent_home_has_a_deadline_where_one_is_set(fakes: Fakes) -> None:
    at = failing(groq="silent", cerebras="whole")
    limit = 'first_output_timeout = "200ms"'
    async with proxy_before(fakes, more=at, of_each=limit) as proxy:
        status, headers, _ = await posted(proxy, FAILING | {"stream": True})
    assert status == 200
    assert headers["X-Keyproxy-Attempts"] == "groq=timeout, cerebras=200"


async def test_a_home_that_falls_silent_before_it_says_something_is_left(fakes: Fakes) -> None:
    """Not after all the time for which an answer may be held."""
    at = failing(groq="silent", cerebras="whole")
    async with proxy_before(fakes, more=at, IDLE_TIMEOUT="200ms") as proxy:
        status, headers, _ = await posted(proxy, FAILING | {"stream": True})
    assert status == 200
    assert headers["X-Keyproxy-Attempts"] == "groq=timeout, cerebras=200"


async def test_what_was_held_goes_on_where_it_is_too_late_for_another_home(fakes: Fakes) -> None:
    at, times = failing(groq="silent", cerebras="whole"), {"IDLE_TIMEOUT": "400ms"}
    async with (
        proxy_before(fakes, more=at, FIRST_BYTE_TIMEOUT="200ms", **times) as proxy,
        proxy.post(FAILING | {"stream": True}) as answer,
    ):
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert asked(fakes) == ["groq"]


async def test_nobody_qualifies_and_nothing_is_sent(fakes: Fakes) -> None:
    async with proxy_before(fakes) as proxy:
        body = {"model": "a/b", "provider": {"only": ["azure"]}, **HI}
        async with server.serving("groq") as alone, proxy_before(alone) as own:
            async with own.post(OSS | {"logprobs": True}) as answer:
                error = await refused(answer, 404, "no_provider_qualifies")
                assert error["param"] == "logprobs"
            assert alone.calls == []
        async with proxy.post(body) as answer:
            await refused(answer, 403, "field_not_allowed")
    assert fakes.calls == []


async def test_a_full_provider_is_passed_over(fakes: Fakes) -> None:
    at = failing(groq="slow", cerebras="whole")
    async with proxy_before(fakes, more=at, of_each="max_in_flight = 1") as proxy:
        first = asyncio.create_task(posted(proxy, FAILING | {"stream": True}))
        await fakes["groq"].until(lambda: len(fakes["groq"].bills) == 1)
        _, headers, _ = await posted(proxy, FAILING)
        assert headers["X-Keyproxy-Provider"] == "cerebras"
        fakes["groq"].released.set()
        status, headers, _ = await first
        assert (status, headers["X-Keyproxy-Provider"]) == (200, "groq")


async def test_a_large_call_takes_its_place_before_it_is_written_anew(fakes: Fakes) -> None:
    """That is done in a thread, and others look for a place meanwhile."""
    turns = [{"role": "user", "content": "x" * 1000}] * 300
    body = FAILING | {"messages": turns, "stream": True}
    at = failing(groq="slow", cerebras="slow")
    async with proxy_before(fakes, more=at, of_each="max_in_flight = 1") as proxy:
        calls = [asyncio.create_task(posted(proxy, body)) for _ in range(4)]
        async with asyncio.timeout(20):
            for refused_one in itertools.islice(asyncio.as_completed(calls), 2):
                status, _, _ = await refused_one
                assert status == 503
        for name in ("groq", "cerebras"):
            await fakes[name].until(lambda name=name: len(fakes[name].bills) == 1)  # type: ignore[misc]
            fakes[name].released.set()
        assert sorted([(await call)[0] for call in calls]) == [200, 200, 503, 503]
    assert asked(fakes) == ["groq", "cerebras"]


async def test_all_full_is_told(fakes: Fakes) -> None:
    at = failing(groq="slow")
    async with proxy_before(fakes, more=at, of_each="max_in_flight = 1") as proxy:
        first = asyncio.create_task(posted(proxy, FAILING))
        await fakes["groq"].until(lambda: len(fakes["groq"].bills) == 1)
        async with proxy.post(FAILING) as answer:
            await refused(answer, 503, "overloaded")
        fakes["groq"].released.set()
        await first
    assert len(fakes.calls) == 1


async def test_calls_that_come_together_do_not_all_pass_a_full_provider(
    fakes: Fakes, tmp_path: Path
) -> None:
    """While the ledger cannot be written each of them waits for its row, with its place taken."""
    at, path = failing(groq="slow", cerebras="whole"), tmp_path / "ledger.sqlite3"
    said = {"more": at, "of_each": "max_in_flight = 1", "LEDGER": str(path)}
    async with proxy_before(fakes, **said) as proxy:
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            calls = [asyncio.create_task(posted(proxy, FAILING)) for _ in range(3)]
            await asyncio.wait(calls, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        fakes["groq"].released.set()
        answers = await asyncio.gather(*calls)
    homes = [headers.get("X-Keyproxy-Provider") for _, headers, _ in answers]
    assert sorted(zip((status for status, *_ in answers), homes, strict=True), key=str) == [
        (200, "cerebras"), (200, "groq"), (503, None)
    ]  # fmt: skip
    assert sorted(seen.vendor for seen in fakes.calls) == ["cerebras", "groq"]


async def test_figures_have_one_name_for_a_model_whoever_answers(
    fakes: Fakes, tmp_path: Path
) -> None:
    """A provider has a name of its own for it; OpenRouter's says which it chose."""
    path = tmp_path / "ledger.sqlite3"
    async with proxy_before(fakes, LEDGER=str(path), ADMIN="127.0.0.1:0") as proxy:
        prices, model = proxy.service.accounting.prices, "meta-llama/llama-3.3-70b-instruct"
        shown = proxy.service.readers.shown
        assert prices is not None
        assert shown
        assert await prices.refresh()  # whose names are labels
        assert (await posted(proxy, {"model": model, **HI}))[1]["X-Keyproxy-Provider"] == "groq"
        assert [name for name, *_ in shown.recent.tops(9)["model"]] == [model]
        assert [call["model"] for call in shown.recent.calls()] == [model]
        spent = shown.tally.sums["keyproxy_cost_usd_total"]
        assert {labels[1:3] for labels in spent} == {("groq", model)}
        assert await proxy.service.accounting.book.flush()  # type: ignore[union-attr]
        found = ask(path, lambda connection: summary(connection, "model"))
        assert [row.name for row in found.rows] == [model]


async def test_route_headers_can_be_off(fakes: Fakes) -> None:
    at = failing(groq="rate", cerebras="whole")
    async with proxy_before(fakes, more=at, ROUTE_HEADERS="off") as proxy:
        _, headers, _ = await posted(proxy, FAILING)
    assert not {name for name in headers if name.startswith("X-Keyproxy-")}


async def test_the_line_of_a_call_names_its_provider(fakes: Fakes) -> None:
    async with proxy_before(fakes) as proxy:
        with capture_logs() as lines:
            await posted(proxy, OSS)
    line = next(line for line in lines if line.get("http_status") == 200)
    assert (line["provider"], line["native_model"]) == ("groq", "openai/gpt-oss-120b")
    assert "is_other_model" not in line


async def test_each_attempt_is_a_row_and_the_call_costs_their_sum(
    fakes: Fakes, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    homes = failing(groq="rate", cerebras="reset", openrouter="whole")
    homes += "".join(f'[models."{MODEL}".price.{name}]\ninput = 1\noutput = 2\n' for name in THREE)
    body = FAILING | {"max_tokens": 100}
    async with proxy_before(fakes, more=homes, LEDGER=str(ledger), BUDGET="5/day") as proxy:
        status, _, _ = await posted(proxy, body)
        assert status == 200
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        connection.row_factory = sqlite3.Row
        tries = connection.execute("SELECT * FROM attempts ORDER BY n").fetchall()
        [call] = connection.execute("SELECT * FROM calls").fetchall()
    told = "provider", "native_model", "class", "http_status", "cost_source"
    assert [tuple(row[name] for name in told) for row in tries] == [
        ("groq", "fails/rate", "load", 429, "computed"),
        ("cerebras", "fails/reset", "uncertain", None, "estimated"),
        ("openrouter", "fails/whole", None, 200, "exact"),
    ]
    costs = [row["cost"] for row in tries]
    assert costs[0] == 0
    assert costs[1] == tries[1]["reserved"] > 200_000_000
    [bill] = fakes["openrouter"].bills
    assert bill.cost is not None
    assert costs[2] == bill.cost * 10**12
    assert (call["cost"], call["attempts"], call["cost_source"]) == (sum(costs), 3, "estimated")
    assert call["counted"] == sum(row["counted"] for row in tries)
    assert (call["provider"], call["native_model"]) == ("openrouter", "fails/whole")
    assert call["generation_id"] == tries[2]["answer_id"]
    assert [row["key"] for row in tries] == [Secret(fakes[name].key).label for name in THREE]
    assert {row["price_source"] for row in tries} == {"operator", "provider"}
    assert json.loads(tries[1]["rates"]) == {"prompt": "0.000001", "completion": "0.000002"}


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_an_answers_own_id_is_booked_where_nobody_is_asked_about_it(
    fakes: Fakes, tmp_path: Path, is_streaming: bool
) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    async with proxy_before(fakes, LEDGER=str(ledger)) as proxy:
        _, _, raw = await posted(proxy, OSS | {"stream": is_streaming})
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        [(id, is_settled)] = connection.execute("SELECT answer_id, is_settled FROM attempts")
        assert connection.execute("SELECT generation_id FROM calls").fetchall() == [(None,)]
    assert json.dumps(id).encode() in raw
    assert is_settled
