"""The nine. Bases, keys, dialects, prices of our own, and where each puts what."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any

from tests.fakes import lists, shapes, strict, troubles, usage
from tests.fakes.vendor import Catalogue, ChatStyle, Model, Strictness, Vendor

_TEXT, _LONG = 131_072, 1_048_576


def _model(id: str, canonical: str, *prices: str, **more: Any) -> Model:
    prompt, completion, cached = map(Decimal, prices)
    return Model(id, canonical, prompt, completion, cached, **more)


_embedder = partial(_model, dialects=frozenset({"embeddings"}))
_OSS = "openai/gpt-oss-120b"
_SONNET, _HAIKU = "anthropic/claude-sonnet-4.6", "anthropic/claude-haiku-4.5"


_SAMPLING = frozenset({"temperature", "top_p", "top_k", "logprobs", "top_logprobs"})
_UNBENT = frozenset({"frequency_penalty", "presence_penalty", "logit_bias", "stop"})
_NO_EFFORT = frozenset({"reasoning_effort"})
_PRINT = {"system_fingerprint": "fp_example"}
_RATES = {
    f"x-ratelimit-{what}-{of}": value
    for of, values in (("requests", ("500", "499", "120ms")), ("tokens", ("30000", "29500", "1s")))
    for what, value in zip(("limit", "remaining", "reset"), values, strict=True)
}
_ANTHROPIC_RATES = {
    f"anthropic-ratelimit-{of}-{what}": value
    for of in ("requests", "tokens", "input-tokens", "output-tokens")
    for what, value in (("limit", "50"), ("remaining", "49"), ("reset", "2026-10-02T22:51:00Z"))
}

OPENAI = Vendor(
    name="openai",
    key="sk-proj-" + "OpenAiExample0" * 5,
    bases=("/v1",),
    paths={
        "chat": "/v1/chat/completions",
        "responses": "/v1/responses",
        "embeddings": "/v1/embeddings",
    },
    models=(
        _model(
            *("gpt-6.1-sol", "openai/gpt-6.1-sol", "2", "10", "0.1"),
            context=_LONG,
            reads_images=True,
            wants="max_completion_tokens",
            refuses=_SAMPLING | _UNBENT,
        ),
        _model(
            *("gpt-4o-mini", "openai/gpt-4o-mini", "0.15", "0.6", "0.075"),
            reads_images=True,
            writes=16_384,
            refuses=_NO_EFFORT,
        ),
        _model(
            *("gpt-5.6-sol", "openai/gpt-5.6-sol", "2", "10", "0.2"),
            wants="max_completion_tokens",
            refuses=_UNBENT,
            unless_idle=_SAMPLING,
        ),
        _embedder("text-embedding-3-small", "openai/text-embedding-3-small", "0.02", "0", "0.02"),
    ),
    shape=shapes.openai,
    complain=shapes.openai_says,
    troubles=troubles.OPENAI,
    strict={
        "chat": strict.OPENAI_CHAT,
        "responses": strict.OPENAI_RESPONSES,
        "embeddings": strict.EMBEDDINGS,
    },
    lists={"/v1/models": Catalogue(lists.listed_by(lists.plain))},
    chat=ChatStyle(
        usage_at="asked_chunk",
        usage=usage.openai,
        extra=_PRINT,
        message={"refusal": None, "annotations": []},
    ),
    bills_on=False,
    hints=_RATES | {"openai-organization": shapes.ORGANISATION},
)
ANTHROPIC = Vendor(
    name="anthropic",
    key="sk-ant-api03-" + "AnthropicExample" * 6,
    bases=("/v1",),
    paths={"chat": "/v1/chat/completions", "messages": "/v1/messages"},
    models=(
        _model("claude-sonnet-4-6", _SONNET, "3", "15", "0.3", context=200_000, reads_images=True),
        _model("claude-haiku-4-5", _HAIKU, "1", "5", "0.1", context=200_000, reads_images=True),
        _model(
            *("claude-opus-4-8", "anthropic/claude-opus-4.8", "5", "25", "0.5"),
            reads_images=True,
            writes=128_000,
            refuses=_SAMPLING,
        ),
    ),
    shape=shapes.anthropic,
    shape_of={"chat": shapes.openai},
    complain=shapes.anthropic_says,
    troubles=troubles.ANTHROPIC,
    strict={"chat": strict.ANTHROPIC_CHAT, "messages": strict.ANTHROPIC_MESSAGES},
    lists={"/v1/models": Catalogue(lists.anthropic)},
    chat=ChatStyle(usage_at="asked_chunk", usage=usage.plain),
    bills_on=False,
    x_api_key_at=frozenset({"/v1/messages", "/v1/models"}),
    hints=_ANTHROPIC_RATES | {"anthropic-organization-id": shapes.ORGANISATION},
)
GEMINI = Vendor(
    name="gemini",
    key="AIza" + "GeminiExample0-ofAKey" + "0123456789abcd",
    bases=("/v1beta/openai",),
    paths={
        "chat": "/v1beta/openai/chat/completions",
        "embeddings": "/v1beta/openai/embeddings",
    },
    models=(
        _model(
            *("gemini-3.5-flash", "google/gemini-3.5-flash", "0.3", "2.5", "0.03"),
            context=_LONG,
            reads_images=True,
            thinks=20,
        ),
        _embedder("gemini-embedding-001", "google/gemini-embedding-001", "0.15", "0", "0.15"),
    ),
    shape=shapes.gemini,
    complain=shapes.gemini_says,
    troubles=troubles.GEMINI,
    strict={"chat": strict.GEMINI_CHAT, "embeddings": strict.EMBEDDINGS},
    lists={"/v1beta/openai/models": Catalogue(lists.listed_by(lists.gemini))},
    chat=ChatStyle(
        usage_at="asked_every",
        usage=usage.gemini,
        each={"role": "assistant"},
        ending={"role": "assistant"},
    ),
    bills_on=True,
)
GROQ = Vendor(
    name="groq",
    key="gsk_" + "GroqExample00" * 4,
    bases=("/openai/v1",),
    paths={
        "chat": "/openai/v1/chat/completions",
        "responses": "/openai/v1/responses",
    },
    models=(
        _model("openai/gpt-oss-120b", _OSS, "0.15", "0.6", "0.075", context=_TEXT),
        _model(
            *("meta-llama/llama-4-scout-17b-16e-instruct", "meta-llama/llama-4-scout"),
            *("0.11", "0.34", "0.11"),
            reads_images=True,
            refuses=_NO_EFFORT,
        ),
        _model(
            *("llama-3.3-70b-versatile", "meta-llama/llama-3.3-70b-instruct"),
            *("0.59", "0.79", "0.59"),
            writes=32_768,
            refuses=_NO_EFFORT | {"json_schema"},
        ),
    ),
    shape=shapes.groq,
    complain=shapes.groq_says,
    troubles=troubles.GROQ,
    strict={"chat": strict.GROQ_CHAT, "responses": strict.GROQ_RESPONSES},
    lists={"/openai/v1/models": Catalogue(lists.listed_by(lists.groq))},
    chat=ChatStyle(
        usage_at="x_groq",
        usage=usage.groq,
        extra=_PRINT,
        opening={"role": "assistant", "content": ""},
        reasoning="reasoning",
    ),
    bills_on=True,
    hints=_RATES,
)
CEREBRAS = Vendor(
    name="cerebras",
    key="csk-" + "CerebrasExample0" * 3,
    bases=("/v1",),
    paths={"chat": "/v1/chat/completions"},
    models=(
        _model("gpt-oss-120b", _OSS, "0.35", "0.75", "0.35", context=_TEXT),
        _model("zai-glm-4.7", "z-ai/glm-4.7", "2.25", "2.75", "2.25", context=_TEXT),
    ),
    shape=shapes.bare,
    complain=shapes.cerebras_says,
    troubles=troubles.CEREBRAS,
    strict={"chat": strict.CEREBRAS_CHAT},
    lists={
        "/v1/models": Catalogue(lists.listed_by(lists.plain)),
        "/public/v1/models": Catalogue(lists.listed_by(lists.cerebras), is_public=True),
    },
    chat=ChatStyle(
        usage_at="last",
        usage=usage.cerebras,
        extra=_PRINT,
        opening={"role": "assistant"},
        reasoning="reasoning",
    ),
    bills_on=False,
)
DEEPINFRA = Vendor(
    name="deepinfra",
    key="DeepInfraExample" * 2,
    bases=("/v1/openai", "/anthropic/v1"),
    paths={
        "chat": "/v1/openai/chat/completions",
        "messages": "/anthropic/v1/messages",
        "embeddings": "/v1/openai/embeddings",
    },
    models=(
        _model("openai/gpt-oss-120b", _OSS, "0.05", "0.45", "0.05", context=_TEXT),
        _model("anthropic/claude-haiku-4-5", _HAIKU, "1.1", "5.5", "0.11", reads_images=True),
        _embedder("BAAI/bge-m3", "baai/bge-m3", "0.01", "0", "0.01"),
    ),
    shape=shapes.deepinfra,
    shape_of={"messages": shapes.anthropic},
    complain=shapes.deepinfra_says,
    troubles=troubles.DEEPINFRA,
    strict={
        dialect: Strictness(needed=frozenset({needed}))
        for dialect, needed in (
            ("chat", "messages"),
            ("messages", "messages"),
            ("embeddings", "input"),
        )
    },
    lists={"/v1/openai/models": Catalogue(lists.listed_by(lists.deepinfra), is_public=True)},
    chat=ChatStyle(
        usage_at="last_and_chunk",
        usage=usage.deepinfra,
        ending={"content": ""},
        comment=b": ping - 2026-10-02 22:50:16.000000+00:00\n\n",
        reasoning="reasoning_content",
        message={"reasoning_content": None, "name": None, "tool_calls": None},
    ),
    bills_on=False,
    x_api_key_at=frozenset({"/anthropic/v1/messages"}),
)
MISTRAL = Vendor(
    name="mistral",
    key="MistralExample00" * 2,
    bases=("/v1",),
    paths={
        "chat": "/v1/chat/completions",
        "embeddings": "/v1/embeddings",
    },
    models=(
        _model(
            *("mistral-medium-3.5", "mistralai/mistral-medium-3-5", "0.4", "2", "0.04"),
            reads_images=True,
        ),
        _embedder("mistral-embed-2312", "mistralai/mistral-embed-2312", "0.1", "0", "0.1"),
    ),
    shape=shapes.mistral,
    complain=shapes.mistral_says,
    troubles=troubles.MISTRAL,
    strict={"chat": strict.MISTRAL_CHAT, "embeddings": strict.MISTRAL_EMBEDDINGS},
    lists={"/v1/models": Catalogue(lists.listed_by(lists.plain))},
    chat=ChatStyle(
        usage_at="last",
        usage=usage.mistral,
        opening={"role": "assistant", "content": ""},
        ending={"content": ""},
        message={"tool_calls": None, "prefix": False},
    ),
    bills_on=True,
    hints={"X-RateLimit-Remaining": "4"},
)
XAI = Vendor(
    name="xai",
    key="xai-" + "XaiExample" * 8,
    bases=("/v1",),
    paths={
        "chat": "/v1/chat/completions",
        "responses": "/v1/responses",
    },
    models=(
        _model(
            *("grok-4.3", "x-ai/grok-4.3", "3", "15", "0.75"),
            reads_images=True,
            thinks=100,
            refuses=frozenset({"stop"}),
        ),
        _model(
            *("grok-4.20-0309-reasoning", "x-ai/grok-4.20-0309-reasoning", "3", "15", "0.75"),
            thinks=100,
            refuses=_NO_EFFORT | {"stop"},
        ),
    ),
    shape=shapes.xai,
    complain=shapes.xai_says,
    troubles=troubles.XAI,
    strict={
        "chat": strict.XAI_CHAT,
        "responses": Strictness(needed=frozenset({"input"})),
    },
    lists={
        "/v1/models": Catalogue(lists.listed_by(lists.plain)),
        "/v1/language-models": Catalogue(lists.xai),
    },
    chat=ChatStyle(
        usage_at="asked_chunk",
        usage=usage.xai,
        extra=_PRINT,
        opening={"role": "assistant", "content": ""},
        reasoning="reasoning_content",
        message={"refusal": None},
    ),
    bills_on=False,
)
OPENROUTER = Vendor(
    name="openrouter",
    key="sk-or-v1-" + "0123456789abcdef" * 4,
    bases=("/api/v1",),
    paths={
        "chat": "/api/v1/chat/completions",
        "responses": "/api/v1/responses",
        "messages": "/api/v1/messages",
        "embeddings": "/api/v1/embeddings",
    },
    models=(
        _model("openai/gpt-6.1-sol", "openai/gpt-6.1-sol", "2", "10", "0.1", reads_images=True),
        _model(_OSS, _OSS, "0.1", "0.5", "0.1"),
        _model(_SONNET, _SONNET, "3", "15", "0.3", reads_images=True),
        _model(_HAIKU, _HAIKU, "1", "5", "0.1", reads_images=True),
        _model(*("google/gemini-3.5-flash",) * 2, "0.3", "2.5", "0.03", reads_images=True),
        _model(*("mistralai/mistral-medium-3-5",) * 2, "0.4", "2", "0.4", reads_images=True),
        _model(*("x-ai/grok-4.3",) * 2, "3", "15", "0.75", reads_images=True),
        _model(*("z-ai/glm-4.7",) * 2, "0.6", "2.2", "0.1"),
        _embedder(*("openai/text-embedding-3-small",) * 2, "0.02", "0", "0.02"),
    ),
    shape=shapes.openrouter,
    shape_of={"messages": shapes.anthropic},
    complain=shapes.openrouter_says,
    troubles=troubles.OPENROUTER,
    strict=dict.fromkeys(("chat", "responses", "messages", "embeddings"), strict.TOLERANT),
    lists={"/api/v1/models": Catalogue(lists.listed_by(lists.openrouter), is_public=True)},
    chat=ChatStyle(
        usage_at="chunk",
        usage=usage.openrouter,
        each={"role": "assistant"},
        ending={"role": "assistant", "content": ""},
        comment=b": OPENROUTER PROCESSING\n\n",
        reasoning="reasoning",
        message={"refusal": None, "reasoning": None},
        extra={"provider": "Example", **_PRINT},
    ),
    bills_on=False,
)

VENDORS = {
    vendor.name: vendor
    for vendor in (
        *(OPENAI, ANTHROPIC, GEMINI, GROQ, CEREBRAS, DEEPINFRA, MISTRAL, XAI, OPENROUTER),
    )
}
