"""The SDKs from npm never notice the proxy, in Node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyproxy.demo.failures import RETRY_AFTER_SECONDS
from tests.conftest import Start
from tests.jwt_issuer import SECRET
from tests.sdk.node import MODULES, Node, install
from tests.sdk.outside import needed
from tests.sdk.served import ASKED, TEXT, call_a_function, give_embeddings, serving

pytestmark = pytest.mark.timeout(300)  # the first test also installs the packages

VENDOR = Path(__file__).parent.parent / "examples" / "web" / "vendor"
OF_AI_SDK = ("ai", "ai-compatible", "ai-openai", "ai-groq", "ai-anthropic")  # one, by providers
ALL = ("openai", "anthropic", "openrouter", *OF_AI_SDK)
OFFICIAL = ("openai", "anthropic")  # generated from one mould: same errors, same retries


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    install()
    with Node() as node:
        yield node


Tell = Callable[..., Awaitable[Any]]


@pytest.fixture
def tell(node: Node) -> Tell:
    """``await tell(sdk, case, RATE_LIMIT="1/hour")``: what the case returned."""

    async def told(sdk: str, case: str, **variables: Any) -> Any:
        async with serving(**variables) as served:
            return await node.run(sdk, case, served.url)

    return told


@pytest.mark.parametrize("sdk", ALL)
async def test_an_answer_is_read(sdk: str, tell: Tell) -> None:
    answer = await tell(sdk, "chat")
    assert answer["text"] == TEXT
    assert answer["finish"] in ("stop", "end_turn")
    assert answer["tokens"] > 1


@pytest.mark.parametrize("sdk", ALL)
async def test_a_stream_arrives_piece_by_piece(sdk: str, tell: Tell) -> None:
    answer = await tell(sdk, "stream")
    assert "".join(answer["pieces"]) == TEXT
    assert len(answer["pieces"]) > 1
    if sdk != "ai-groq":  # which reads them where Groq itself answers
        assert answer["tokens"] > 1


async def test_events_of_the_messages_stream_keep_their_names(tell: Tell) -> None:
    answer = await tell("anthropic", "rawStream")
    assert {"message_start", "content_block_delta", "message_stop"} <= set(answer["types"])


async def test_beta_calls_pass(tell: Tell) -> None:
    assert (await tell("anthropic", "beta"))["text"] == TEXT


async def test_our_request_id_is_the_one_the_sdk_shows(tell: Tell) -> None:
    assert (await tell("openai", "chat"))["requestId"].startswith("req_")


@pytest.mark.parametrize("sdk", ("openai", "openrouter"))
async def test_responses_are_read(sdk: str, tell: Tell) -> None:
    assert await tell(sdk, "responses") == {"text": "Grüße 🙂", "status": "completed"}


@pytest.mark.parametrize("sdk", ("openai", "openrouter"))
async def test_responses_are_streamed(sdk: str, tell: Tell) -> None:
    answer = await tell(sdk, "responsesStream")
    assert ("".join(answer["pieces"]), answer["status"]) == ("Grüße 🙂 aus Köln", "completed")


@pytest.mark.parametrize("sdk", [*OFFICIAL, *OF_AI_SDK])
async def test_structured_output_is_read(sdk: str, tell: Tell) -> None:
    assert await tell(sdk, "structured") == ASKED


@pytest.mark.parametrize("sdk", [*OFFICIAL, *OF_AI_SDK])
async def test_a_picture_goes_up(sdk: str, tell: Tell) -> None:
    assert await tell(sdk, "image") == {"text": TEXT}


@pytest.mark.parametrize("sdk", ["openai", "ai-compatible"])
async def test_embeddings_are_read_where_they_are_opted_in(
    sdk: str, node: Node, start: Start
) -> None:
    proxy = await start(ALLOWED_ENDPOINTS="POST /api/v1/embeddings")
    give_embeddings(proxy.upstream)
    answer = await node.run(sdk, "embeddings", proxy.url)
    assert answer == {"embedding": [0.0123, -0.0456, 0.0789]}


@pytest.mark.parametrize("sdk", OFFICIAL)
async def test_documented_fields_pass(sdk: str, tell: Tell) -> None:
    assert (await tell(sdk, "everyField"))["text"] == TEXT


@pytest.mark.parametrize("sdk", ALL)
async def test_a_function_call_makes_the_round(sdk: str, node: Node, start: Start) -> None:
    proxy = await start()
    call_a_function(proxy.upstream)
    answer = await node.run(sdk, "tools", proxy.url)
    assert _city(answer["asked"]) == ASKED
    if "last" in answer:
        assert answer["last"] == "It rains."


async def test_the_second_step_of_a_tool_loop_needs_the_switch_that_the_refusal_names(
    node: Node, start: Start
) -> None:
    proxy = await start()
    said = {"type": "output_text", "text": "I look.", "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "content": [said]}
    call_a_function(proxy.upstream, {"type": "reasoning", "id": "rs_1", "summary": []}, message)
    answer = await node.run("ai", "responsesTools", proxy.url)
    assert "store: false (AI SDK: providerOptions.openai.store)" in answer["refused"]
    assert answer["last"] == "It rains."
    assert b"item_reference" not in b"".join(call.body for call in proxy.upstream.calls)
    assert len(proxy.upstream.calls) == 3


@pytest.mark.parametrize("sdk", [*OFFICIAL, *OF_AI_SDK])
async def test_a_function_call_is_streamed(sdk: str, node: Node, start: Start) -> None:
    proxy = await start()
    call_a_function(proxy.upstream)
    assert _city((await node.run(sdk, "toolsStream", proxy.url))["asked"]) == ASKED


@pytest.mark.parametrize("case", ["toolRunner", "toolRunnerStream"])
async def test_a_tool_runner_goes_on_without_a_thread(case: str, node: Node, start: Start) -> None:
    """It asks for one unasked: a conversation that the provider account would store."""
    proxy = await start()
    call_a_function(proxy.upstream)
    answer = await node.run("anthropic", case, proxy.url)
    assert answer == {"last": "It rains.", "calls": 3}  # one was refused
    first, second = (json.loads(call.body) for call in proxy.upstream.calls)
    assert "thread" not in first.keys() | second.keys()
    assert second["messages"][-1]["content"][0]["content"] == f"rain in {ASKED['city']}"


def _city(asked: Any) -> Any:
    """What the function was asked for, in any SDK's shape."""
    if isinstance(asked, list):
        [asked] = asked
    return asked["input"] if "input" in asked else json.loads(asked["arguments"])


@pytest.mark.parametrize("sdk", OFFICIAL)
async def test_models_are_listed(sdk: str, tell: Tell) -> None:
    answer = await tell(sdk, "models", ALLOWED_MODELS="demo/*,!demo/4*")
    assert "demo/echo" in answer["ids"]
    assert "demo/429" not in answer["ids"]
    assert len(answer["ids"]) == len(set(answer["ids"]))


async def test_the_typed_catalogue_is_read(tell: Tell) -> None:
    answer = await tell("openrouter", "models", ALLOWED_MODELS="demo/*,!demo/4*")
    ids = [model for page in answer["pages"] for model in page]
    assert len(answer["pages"]) > 2
    assert len(set(ids)) == len(ids) == answer["count"]
    assert (answer["one"], answer["served"]) == ("demo/echo", "Demo: Echo")


async def test_a_slug_the_sdk_escapes_is_understood(node: Node, start: Start) -> None:
    proxy = await start()
    await node.run("openrouter", "escapedSlug", proxy.url)
    [asked] = proxy.upstream.catalogue
    assert asked.target == "/api/v1/models/openai/gpt-4o-mini:free/endpoints"


REFUSED_MODEL = {
    "openai": "PermissionDeniedError",
    "anthropic": "PermissionDeniedError",
    "openrouter": "ForbiddenResponseError",
    **dict.fromkeys(OF_AI_SDK, "APICallError"),
}


@pytest.mark.parametrize("sdk", ALL)
async def test_a_refused_model_is_a_typed_error_asked_once(sdk: str, tell: Tell) -> None:
    error = await tell(sdk, "refusedModel", mode="serve", ALLOWED_MODELS="demo/echo")
    assert (error["name"], error["status"]) == (REFUSED_MODEL[sdk], 403)
    assert error["headers"]["x-keyproxy-code"] == "model_not_allowed"
    assert "demo/chat may not be used here. Allowed: demo/echo." in error["message"]
    assert error["calls"] == 1


@pytest.mark.parametrize("sdk", OFFICIAL)
async def test_a_long_wait_is_left_to_the_application(sdk: str, tell: Tell) -> None:
    """Up to an hour; the SDK would ask again after a second or two, in vain."""
    error = await tell(sdk, "limitedLong", RATE_LIMIT="1/hour")
    assert (error["name"], error["status"]) == ("RateLimitError", 429)
    assert error["headers"]["x-should-retry"] == "false"
    assert 60 < int(error["headers"]["retry-after"]) <= 3600
    assert error["headers"]["ratelimit"].startswith('"client-3600";r=0;t=')
    assert error["calls"] == 2  # the one that passed, and one that was refused


@pytest.mark.parametrize("sdk", OFFICIAL)
async def test_a_short_wait_is_waited_by_the_sdk(sdk: str, tell: Tell) -> None:
    """The application sees two answers; the SDK made a third call in between."""
    answer = await tell(sdk, "limitedShort", RATE_LIMIT="1/2 second")
    assert answer == {"texts": [TEXT, TEXT], "calls": 3}


@pytest.mark.parametrize("sdk", [*OFFICIAL, *OF_AI_SDK])
async def test_the_upstreams_own_429_passes(sdk: str, tell: Tell) -> None:
    error = await tell(sdk, "upstreamLimited")
    assert (error["status"], error["headers"]["retry-after"]) == (429, str(RETRY_AFTER_SECONDS))
    assert error["headers"]["x-keyproxy-code"] is None


@pytest.mark.parametrize("sdk", [*OFFICIAL, "openrouter"])
async def test_out_of_credits_says_no_balance(sdk: str, tell: Tell) -> None:
    error = await tell(sdk, "outOfCredits")
    assert error["status"] == 402
    assert "cannot pay for this call" in error["message"]
    assert "27342" not in error["message"]
    assert error.get("calls", 1) == 1


@pytest.mark.parametrize("sdk", OFFICIAL)
async def test_a_wrong_base_url_is_put_right(sdk: str, tell: Tell) -> None:
    error = await tell(sdk, "wrongBase")
    assert (error["name"], error["calls"]) == ("NotFoundError", 1)
    right = {
        "openai": "The base URL ends in /api/v1",
        "anthropic": "the base URL to end in /api with",
    }
    assert right[sdk] in error["message"]


@pytest.mark.parametrize("sdk", OFFICIAL)
async def test_a_providers_key_is_refused_by_name(sdk: str, tell: Tell) -> None:
    error = await tell(sdk, "ownKey")
    assert error["name"] == "BadRequestError"
    assert "carries a provider's key" in error["message"]
    assert "x1x1" not in error["message"]


@pytest.mark.parametrize("sdk", OFFICIAL)
async def test_a_cut_stream_never_looks_whole(sdk: str, tell: Tell) -> None:
    error = await tell(sdk, "cut")
    assert error["pieces"]
    assert error["message"]


@pytest.mark.parametrize("sdk", OFFICIAL)
async def test_an_error_inside_a_stream_is_raised(sdk: str, tell: Tell) -> None:
    error = await tell(sdk, "errorInStream")
    assert error["name"] == "APIError"
    assert "rovider" in error["message"]


@pytest.mark.parametrize("sdk", ALL)
async def test_leaving_a_stream_reaches_the_upstream(sdk: str, node: Node) -> None:
    async with serving(pace=1) as served:
        await node.run(sdk, "abort", served.url)
        counts = await served.calls(aborted=1)
    assert counts == {"open": 0, "finished": 0, "aborted": 1}


@pytest.mark.parametrize("sdk", OFFICIAL)
async def test_the_sdks_own_timeout_reaches_the_upstream(sdk: str, node: Node) -> None:
    async with serving(pace=1) as served:
        error = await node.run(sdk, "timeout", served.url)
        counts = await served.calls(aborted=1)
    assert error["name"] == "APIConnectionTimeoutError"
    assert counts == {"open": 0, "finished": 0, "aborted": 1}


PATHS = {"anthropic": "messages"}


@pytest.mark.parametrize(
    "sdk", ("openai", "anthropic", "openrouter", "ai", "ai-compatible", "fetch")
)
async def test_the_helper_of_the_example_is_what_an_sdk_takes_as_its_fetch(
    sdk: str, tell: Tell
) -> None:
    """It is called with plain objects, ``Headers`` or a whole ``Request``; and opens a session in
    place of a made-up one."""
    answer = await tell("client", sdk, CLIENT_AUTH="session")
    assert "Grüße" in answer["text"]
    path = PATHS.get(sdk, "chat/completions")
    assert answer["sent"] == [path, "session", path]


@pytest.mark.usefixtures("node")
def test_the_helpers_types_are_what_the_sdks_take() -> None:
    tsc = [needed("node"), str(MODULES / "typescript" / "bin" / "tsc"), "--noEmit", "--strict"]
    options = ["--skipLibCheck", "--module", "nodenext", "--lib", "es2024,dom,dom.iterable"]
    done = subprocess.run(
        [*tsc, *options, "client.ts"], cwd=MODULES.parent, capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("", 0)


async def test_the_helper_takes_all_that_fetch_takes(tell: Tell) -> None:
    assert await tell("client", "shapes", CLIENT_AUTH="session") == [[200, "Grüße"]] * 8
    assert await tell("client", "readOnce", CLIENT_AUTH="session") == 401


async def test_an_sdk_reads_why_no_session_is_opened(tell: Tell) -> None:
    said = {"CLIENT_AUTH": "session", "CAPTCHA": "turnstile", "CAPTCHA_SECRET": "0x4AAAAAAA-fake"}
    answer = await tell("client", "refused", **said)
    assert answer["sent"] == ["session"]
    assert (answer["text"]["status"], answer["text"]["headers"]["x-keyproxy-code"]) == (
        403,
        "captcha_failed",
    )


async def test_an_sdk_asks_a_function_for_a_jwt_before_each_call(tell: Tell) -> None:
    said = {"CLIENT_AUTH": "jwt", "JWT_SECRET": SECRET, "JWT_AUDIENCE": "demo"}
    assert await tell("client", "jwts", **said) == [401, "Grüße", 401, "Grüße"]


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("file", "package", "original"),
    [
        ("marked.js", "marked", "lib/marked.esm.js"),
        ("marked.LICENSE", "marked", "LICENSE"),
        ("purify.js", "dompurify", "dist/purify.es.mjs"),
        ("purify.LICENSE", "dompurify", "LICENSE"),
    ],
)
def test_what_the_page_ships_of_others_is_theirs(file: str, package: str, original: str) -> None:
    """npm's lock says what the packages hold; the page's README, which versions they are."""
    shipped = (VENDOR / file).read_bytes()
    assert shipped == (MODULES / package / original).read_bytes()
    version = json.loads((MODULES / package / "package.json").read_text())["version"]
    assert f"`{package}@{version}`" in (VENDOR / "README.md").read_text()
