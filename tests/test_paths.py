"""Methods, targets and queries, compared byte for byte with what is served."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy.errors import Refusal
from keyproxy.policy.endpoints import KNOWN, Endpoints
from keyproxy.settings import DEFAULT_ENDPOINTS, KNOWN_ENDPOINTS
from tests.conftest import CHAT, Proxy, Start, refused
from tests.examples import examples
from tests.raw import only_answer, refused_raw, request

ENDPOINTS = Endpoints(DEFAULT_ENDPOINTS)

NOT_SERVED = [
    # dot segments and their encodings
    "/api/v1/chat/completions/../../keys",
    "/api/v1/chat/completions/..%2f..%2fkeys",
    "/api/v1/../v1/chat/completions",
    "/./api/v1/chat/completions",
    "/api/v1/%2e%2e/v1/chat/completions",
    "/api/v1/%252e%252e/chat/completions",
    "/api/v1/chat/completions/%2e",
    "/api/v1/chat/completions/.",
    "/api/v1/..;/chat/completions",
    "/api/v1\\chat\\completions",
    "/api/v1/..\\chat/completions",
    "/api/v1/%c0%ae%c0%ae/chat/completions",
    "/api/v1/chat%2Fcompletions",
    "/api/v1/chat%2fcompletions",
    "/api/v1/%63hat/completions",
    "/api/v1/chat/completions%00",
    "/api/v1/chat/completions%20",
    "/api/v1/chat/completions%0d%0aX:%20y",
    # fragments
    "/api/v1/chat/completions#x",
    "/api/v1/chat/completions#/../../keys",
    "/api/v1/chat/completions%23",
    # case, slashes, suffixes
    "/API/v1/chat/completions",
    "/api/v1/Chat/completions",
    "//api/v1/chat/completions",
    "/api//v1/chat/completions",
    "/api/v1/chat//completions",
    "/api/v1/chat/completions/",
    "/api/v1/chat/completions.json",
    "/api/v1/chat/completions;x=1",
    "/api/v1/chat/completions&x=1",
    "/api/v1/chat/completionsx",
    "/api/v1/chat",
    "/api/v1/",
    "/api/v1",
    "/",
    # other forms of a target
    "http://localhost/api/v1/chat/completions",
    "https://openrouter.ai/api/v1/chat/completions",
    "http://localhost",
    "//evil.example/api/v1/chat/completions",
    "/@evil.example/api/v1/chat/completions",
    # never served
    "/api/v1/auth/keys",
    "/api/v1/auth/keys/code",
    "/api/v1/keys",
    "/api/v1/key",
    "/api/v1/credits",
    "/api/v1/activity",
    "/api/v1/generation?id=gen-1",
    "/api/v1/generation/content?id=gen-1",
    "/api/v1/files",
    "/api/v1/presets/x/chat/completions",
    "/api/v1/presets/x/messages",
    "/api/v1/vault/secrets",
    "/api/v1/batches",
    "/api/v1/videos",
    "/api/v1/messages/count_tokens",
    "/api/v1/responses/resp_1/cancel",
    "/api/v1/interns/1/chat/completions",
    "/api/beta/batches",
    "/api/alpha/decisions",
    # known, not open by default
    "/api/v1/completions",
    "/api/v1/embeddings",
    "/api/v1/rerank",
    "/api/v1/images",
    "/api/v1/audio/speech",
    "/api/v1/audio/transcriptions",
    # ours only for GET, and exact
    "/healthz",
    "/healthz/",
    "/metrics",
    "/session",
]


@pytest.mark.parametrize("target", NOT_SERVED)
async def test_a_call_to_any_other_path_never_reaches_the_upstream(
    proxy: Proxy, target: str
) -> None:
    # The parser itself refuses some of them.
    answer = await only_answer(proxy, request("POST", target))
    assert (answer.status, answer.code) in (
        (404, "endpoint_not_allowed"),
        (400, "bad_request"),
    )
    assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/models/",
        "/api/v1/models/user",
        "/api/v1/models.json",
        "/api/v1/MODELS",
        "/api/v1/models#x",
        "/api/v1/models/a/b/c/endpoints",
        "/api/v1/models/a/b/endpoints/",
        "/api/v1/models/a/endpoints",
        "/api/v1/models/a/b",
        "/api/v1/models/../keys/endpoints",
        "/api/v1/models/a/../endpoints",
        "/api/v1/models/./b/endpoints",
        "/api/v1/models/%2e%2e/b/endpoints",
        "/api/v1/models/a/%2e%2e/endpoints",
        "/api/v1/models/a%2fb/c/endpoints",
        "/api/v1/models/a/b%2f..%2f..%2fkeys/endpoints",
        "/api/v1/models/a/b%00/endpoints",
        "/api/v1/models/a/b%3f/endpoints",
        "/api/v1/models/a/b%253A/endpoints",
        "/api/v1/models/a/b%20/endpoints",
        "/api/v1/models/a/b%3A%/endpoints",
        "/api/v1/models//b/endpoints",
        "/api/v1/models/a//endpoints",
        "/api/v1/models/~/~/endpoints",
        "/api/v1/models/a%3Ab/c/endpoints",
        "/api/v1/model/a",
        "/api/v1/model/a/b/",
        "/api/v1/model/" + "a" * 101 + "/b",
        "/api/v1/model/a/" + "b" * 201,
        "/api/v1/key",
        "/api/v1/keys",
        "/api/v1/credits",
        "/api/v1/providers",
        "/api/v1/generation",
        "/metrics",
        "/readyz/",
        "/healthz?x",
        "/.env",
        "/",
    ],
)
async def test_other_paths_are_not_read_from_the_upstream(proxy: Proxy, target: str) -> None:
    await refused_raw(proxy, request("GET", target), 404, "endpoint_not_allowed")


@pytest.mark.parametrize(
    "target", ["*", "", "models", "api/v1/models", "?x", "localhost:443", "\\"]
)
async def test_a_target_that_is_no_path_is_refused(proxy: Proxy, target: str) -> None:
    await refused_raw(proxy, request("GET", target), 400, "bad_request")


async def test_the_asterisk_is_no_endpoint(proxy: Proxy) -> None:
    await refused_raw(proxy, request("OPTIONS", "*"), 404, "endpoint_not_allowed")


@pytest.mark.parametrize("byte", [b"\x7f", b"\x80", b"\xff", b"\xc3\xa9", b"\xef\xbc\x8f", b"\x00"])
async def test_odd_bytes_in_a_target_are_refused_and_not_echoed(proxy: Proxy, byte: bytes) -> None:
    answer = await only_answer(proxy, request("POST", b"/api/v1" + byte + b"/chat/completions"))
    assert answer.status in (400, 404)
    assert byte not in answer.body
    assert proxy.upstream.calls == []


async def test_markup_in_a_path_is_not_echoed(proxy: Proxy) -> None:
    body = await refused_raw(
        proxy, request("GET", "/<script>alert(1)</script>"), 404, "endpoint_not_allowed"
    )
    assert "script" not in str(body)


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-Uri: /api/v1/models",
        "X-Original-URL: /api/v1/models",
        "X-Rewrite-URL: /api/v1/models",
        "X-Forwarded-Path: /api/v1/models",
        "X-Forwarded-Prefix: /api/v1/models",
        "X-HTTP-Method-Override: POST",
        "X-Forwarded-Host: openrouter.ai",
    ],
)
async def test_no_header_names_another_path(proxy: Proxy, field: str) -> None:
    await refused_raw(proxy, request("GET", "/api/v1/keys", field), 404, "endpoint_not_allowed")


async def test_no_header_names_another_method(proxy: Proxy) -> None:
    fields = ("X-HTTP-Method-Override: GET", "X-HTTP-Method: GET", "X-Method-Override: GET")
    await refused_raw(proxy, request("POST", "/api/v1/models", *fields), 405, "method_not_allowed")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_an_inference_path_takes_post_only(proxy: Proxy, method: str) -> None:
    answer = await only_answer(proxy, request(method, CHAT))
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
async def test_a_catalogue_path_takes_get_only(proxy: Proxy, method: str) -> None:
    answer = await only_answer(proxy, request(method, "/api/v1/models"))
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, OPTIONS"
    assert proxy.upstream.catalogue == []


@pytest.mark.parametrize("method", ["post", "Post", "BREW", "POSTX", "P OST"])
async def test_an_unknown_method_is_a_head_fault(proxy: Proxy, method: str) -> None:
    await refused_raw(proxy, request(method, CHAT), 400, "bad_request")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "model=openai/gpt-4o",
        "?",
        "?model=x",
        "key=sk-or-v1-x",
        "beta=true",
        "%0d%0aX:y",
        "&",
        "=",
    ],
)
async def test_an_inference_call_takes_no_query(proxy: Proxy, query: str) -> None:
    body = await refused_raw(proxy, request("POST", f"{CHAT}?{query}"), 400, "query_not_allowed")
    assert "sk-or" not in str(body)


@pytest.mark.parametrize(
    "query", ["beta=true", "beta=true&x", "Beta=true", "beta=false", "beta=true#", "beta", ""]
)
async def test_messages_take_one_query_only(proxy: Proxy, query: str) -> None:
    data = request("POST", f"/api/v1/messages?{query}", "Connection: close")
    answer = await only_answer(proxy, data)
    if query == "beta=true":
        assert answer.status == 200
        assert proxy.upstream.calls[0].target == "/api/v1/messages?beta=true"
    else:
        assert (answer.status, answer.code) == (400, "query_not_allowed")
        assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=1&limit=2", "limit=-1", "limit=", "limit", "limit=%31", "limit=1e3", "limit=1234567",
        "limit=\u0661", "offset=x", "category=a%26b", "category=a%0d%0a", "category=" + "a" * 301,
        "q=x", "Limit=1", "limit=1&", "&", "", "?", "supported_parameters=<x>", "category=a+b",
        "key=sk-or-v1-x",
    ],
)  # fmt: skip
async def test_the_list_takes_its_closed_set_of_parameters(proxy: Proxy, query: str) -> None:
    answer = await only_answer(proxy, request("GET", f"/api/v1/models?{query}"))
    assert answer.status == 400
    assert answer.code in ("query_not_allowed", "bad_request")
    assert proxy.upstream.catalogue == []


@pytest.mark.parametrize(
    "query",
    ["limit=1", "limit=2&offset=1", "category=programming", "supported_parameters=tools%2Cseed"],
)
async def test_the_list_is_served_with_its_parameters(proxy: Proxy, query: str) -> None:
    async with proxy.get(f"/api/v1/models?{query}") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("path", "base_url"),
    [
        ("/v1/chat/completions", "/api/v1"),
        ("/chat/completions", "/api/v1"),
        ("/api/chat/completions", "/api/v1"),
        ("/api/v1/v1/chat/completions", "/api/v1"),
        ("/api/v1/api/v1/chat/completions", "/api/v1"),
        ("/v1/responses", "/api/v1"),
        ("/v1/messages", "/api"),
        ("/api/v1/v1/messages", "/api"),
        ("/messages", "/api"),
        ("/api/v1//chat/completions", "/api/v1"),
        ("/api/v1chat/completions", "/api/v1"),
        ("/apiv1/chat/completions", "/api/v1"),
        ("/api/v1responses", "/api/v1"),
        ("/apiv1/messages", "/api"),
        ("/https://openrouter.ai/api/v1/chat/completions", "/api/v1"),
        ("//api/v1/chat/completions", "/api/v1"),
        ("/api/v1/chat/completions/", "/api/v1"),
        ("/api/v1/chat/completions//", "/api/v1"),
        ("/api/v1/chat/completions/chat/completions", "/api/v1"),
        ("/api/v1/chat/completions/v1/chat/completions", "/api/v1"),
        ("/api/v1/chat/completions/responses", "/api/v1"),
        ("/api/v1/responses/chat/completions", "/api/v1"),
        ("/api/v1/chat/chat/completions", "/api/v1"),
        ("/api/v1/chat", "/api/v1"),
        ("/api/api/v1/chat/completions", "/api/v1"),
        ("/v1/v1/chat/completions", "/api/v1"),
        ("/api/v1/openai/chat/completions", "/api/v1"),
        ("/openai/v1/chat/completions", "/api/v1"),
        ("/v1beta/openai/chat/completions", "/api/v1"),
        ("/api/v1/engines/gpt-4o/chat/completions", "/api/v1"),
        ("/openai/deployments/gpt-4o/chat/completions", "/api/v1"),
        ("/API/V1/Chat/Completions", "/api/v1"),
        ("/api%2Fv1/chat/completions", "/api/v1"),
        ("/api/v1%2fchat%2Fcompletions", "/api/v1"),
        ("/api/v1%20/chat/completions", "/api/v1"),
        ("/embeddings", "/api/v1"),
        ("/v1/embeddings", "/api/v1"),
        ("/v1/audio/transcriptions", "/api/v1"),
        ("/v1/models", "/api/v1"),
        ("/v1/models", "/api"),
        ("/api/v1/models/", "/api/v1"),
        ("/api/v1", "/api/v1"),
        ("/api/v1/", "/api"),
        ("/api/v1/messages/v1/messages", "/api"),
        ("/api/v1/messages/messages", "/api"),
        ("/api//v1/messages", "/api"),
        ("/api/v1/messages/", "/api"),
        ("/anthropic/v1/messages", "/api"),
        ("/api/v1/chat/completions/v1/messages", "/api"),
    ],
)
async def test_a_wrong_base_url_is_told_the_right_one(
    proxy: Proxy, path: str, base_url: str
) -> None:
    body = await refused_raw(
        proxy, request("POST", path, host="dev.localhost:1"), 404, "endpoint_not_allowed"
    )
    assert "[endpoint: the base URL is http://dev.localhost:1/api" in body["error"]["message"]
    assert f"end in {base_url}" in body["error"]["message"] or (
        f"ends in {base_url} " in body["error"]["message"]
    )


@pytest.mark.parametrize(
    "path",
    [
        "/x",
        "/api/chat/x",
        "/api/v1/messages/count_tokens",
        "/api/v1/x/chat/completions",
        "/api/v1/../v1/chat/completions",
        "/api/v1/engines/a/b/chat/completions",
        "/api/v1/chatcompletions",
        "/v1" * 100 + "/chat/completions",
        "/" * 4000,
        "/engines" * 500,
    ],
)
async def test_an_unknown_path_gets_no_advice(proxy: Proxy, path: str) -> None:
    body = await refused_raw(proxy, request("POST", path), 404, "endpoint_not_allowed")
    assert body["error"]["message"] == "There is no such endpoint here."


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/key",
        "/api/v1/keys/1",
        "/v1/credits",
        "/credits",
        "/api/v1//generation",
        "/api/v1/presets/x/chat/completions",
        "/api/v1/vault/",
    ],
)
async def test_routes_of_the_account_are_said_to_be_never_served(proxy: Proxy, path: str) -> None:
    body = await refused_raw(proxy, request("POST", path), 404, "endpoint_not_allowed")
    message = "There is no such endpoint here. Routes of the provider account are never served."
    assert body["error"]["message"] == message


async def test_strangers_are_told_the_path_of_the_base_url_and_nothing_typed(start: Start) -> None:
    proxy = await start("serve", ALLOWED_HOSTS="api.example")
    path = "/api/v1/engines/SECRET/chat/completions"
    body = await refused_raw(
        proxy, request("POST", path, host="api.example"), 404, "endpoint_not_allowed"
    )
    assert "ends in /api/v1 and" in body["error"]["message"]
    assert "api.example" not in str(body)
    assert "SECRET" not in str(body)


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/models/openai/gpt-4o-mini/endpoints", "/models/openai/gpt-4o-mini/endpoints"),
        ("/models/openai/gpt-4o%3Afree/endpoints", "/models/openai/gpt-4o:free/endpoints"),
        ("/models/openai/gpt-4o%3afree/endpoints", "/models/openai/gpt-4o:free/endpoints"),
        ("/models/openai/gpt-4o:free/endpoints", "/models/openai/gpt-4o:free/endpoints"),
        ("/models/%7Eopenai/gpt-latest/endpoints", "/models/~openai/gpt-latest/endpoints"),
        ("/models/~openai/gpt%7e1/endpoints", "/models/~openai/gpt~1/endpoints"),
        ("/model/openai/gpt-4.1", "/model/openai/gpt-4.1"),
        ("/model/openai/..a", "/model/openai/..a"),
    ],
)
async def test_catalogue_templates_read_two_escapes(proxy: Proxy, target: str, sent: str) -> None:
    data = request("GET", "/api/v1" + target, "Connection: close")
    assert (await only_answer(proxy, data)).status == 200
    [seen] = proxy.upstream.catalogue
    assert seen.target == "/api/v1" + sent
    assert "Authorization" not in seen.headers


async def test_details_of_an_excluded_model_are_not_fetched(start: Start) -> None:
    proxy = await start(ALLOWED_MODELS="*,!openai/*")
    async with proxy.get("/api/v1/model/openai/gpt-4o") as answer:
        await refused(answer, 403, "model_not_allowed")
    # The list is asked for in the background, for the names of what is excluded.
    assert not [seen for seen in proxy.upstream.catalogue if "gpt-4o" in seen.target]


async def test_an_endpoint_that_was_not_listed_is_not_served(start: Start) -> None:
    proxy = await start(ALLOWED_ENDPOINTS="GET /api/v1/models,POST /api/v1/embeddings")
    async with proxy.post() as answer:
        error = await refused(answer, 404, "endpoint_not_allowed")
    listed = "GET /api/v1/models,POST /api/v1/embeddings,POST /api/v1/chat/completions"
    assert f"KEYPROXY_ALLOWED_ENDPOINTS='{listed}'" in error["message"]
    async with proxy.post({"model": "openai/x", "input": "a"}, "/api/v1/embeddings") as answer:
        assert answer.status == 200
    assert [seen.target for seen in proxy.upstream.calls] == ["/api/v1/embeddings"]


def test_the_settings_know_the_endpoints_that_are_known_here() -> None:
    assert {endpoint.name for endpoint in KNOWN} == set(KNOWN_ENDPOINTS)


@given(st.text(alphabet="/.%~:;#\\?2eEfF3aA7chatpionsv1kymdl", max_size=60))
@examples(150)
def test_whatever_is_found_was_listed_and_goes_up_plain(tail: str) -> None:
    with contextlib.suppress(Refusal):
        endpoint, path, query = ENDPOINTS.find("GET", "/api/v1/model" + tail)
        assert endpoint.name in DEFAULT_ENDPOINTS
        assert not set("%#;\\?") & set(path + query)
        assert not {".", "..", ""} & set(path.split("/")[1:])


@given(st.binary(max_size=40))
@examples(100)
def test_nothing_but_the_path_itself_is_the_path(junk: bytes) -> None:
    text = junk.decode("utf-8", "surrogateescape")
    if text == "" or text.startswith("?"):
        return
    with pytest.raises(Refusal, match="endpoint_not_allowed"):
        ENDPOINTS.find("POST", CHAT + text)
