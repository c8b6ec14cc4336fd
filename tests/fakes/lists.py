"""Models as each vendor lists them; three tell prices, each in a unit of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

from tests.fakes.vendor import CREATED, Json, Model, Vendor


def listed_by(rows: Callable[[Vendor, Model], Json]) -> Callable[[Vendor], Json]:
    def listed(vendor: Vendor) -> Json:
        return {"object": "list", "data": [rows(vendor, model) for model in vendor.models]}

    return listed


def plain(vendor: Vendor, model: Model) -> Json:
    return {"id": model.id, "object": "model", "created": CREATED, "owned_by": vendor.name}


def gemini(vendor: Vendor, model: Model) -> Json:
    return {"id": f"models/{model.id}", "object": "model", "owned_by": "google"}


def groq(vendor: Vendor, model: Model) -> Json:
    return plain(vendor, model) | {"active": True, "context_window": model.context}


def deepinfra(vendor: Vendor, model: Model) -> Json:
    pricing = {
        "input_tokens": float(model.prompt),
        "output_tokens": float(model.completion),
        "cache_read_tokens": float(model.cached),
    }
    metadata = {
        "description": "Example.",
        "context_length": model.context,
        "max_tokens": model.context,
        "pricing": pricing,
        "tags": [],
    }
    return plain(vendor, model) | {"root": model.id, "parent": None, "metadata": metadata}


def anthropic(vendor: Vendor) -> Json:
    rows = [
        {
            "type": "model",
            "id": model.id,
            "display_name": model.id,
            "created_at": "2026-10-02T22:50:16Z",
        }
        for model in vendor.models
    ]
    return {"data": rows, "has_more": False, "first_id": rows[0]["id"], "last_id": rows[-1]["id"]}


def _per_token(price: Decimal) -> str:
    return f"{price / 1_000_000:f}"


def cerebras(vendor: Vendor, model: Model) -> Json:
    return {
        "id": model.id,
        "object": "model",
        "name": model.id,
        "pricing": {
            "prompt": _per_token(model.prompt),
            "completion": _per_token(model.completion),
        },
        "limits": {"max_context_length": model.context, "max_completion_tokens": 40_960},
    }


def xai(vendor: Vendor) -> Json:
    rows = [
        {
            "id": model.id,
            "fingerprint": "fp_example",
            "created": CREATED,
            "object": "model",
            "owned_by": "xai",
            "version": "1.0",
            "input_modalities": ["text", "image"] if model.reads_images else ["text"],
            "output_modalities": ["text"],
            "prompt_text_token_price": int(model.prompt * 10_000),
            "cached_prompt_text_token_price": int(model.cached * 10_000),
            "prompt_image_token_price": 0,
            "completion_text_token_price": int(model.completion * 10_000),
            "search_price": 250_000_000,
            "aliases": [],
        }
        for model in vendor.models
    ]
    return {"models": rows}


def openrouter(vendor: Vendor, model: Model) -> Json:
    inputs = ["text", "image"] if model.reads_images else ["text"]
    return {
        "id": model.id,
        "canonical_slug": model.id,
        "name": model.id,
        "created": CREATED,
        "context_length": model.context,
        "architecture": {"input_modalities": inputs, "output_modalities": ["text"]},
        "pricing": _pricing(model),
        "top_provider": {"context_length": model.context, "max_completion_tokens": 40_960},
        "supported_parameters": ["max_tokens", "tools", "tool_choice", "response_format"],
    }


def _pricing(model: Model) -> Json:
    return {
        "prompt": _per_token(model.prompt),
        "completion": _per_token(model.completion),
        "input_cache_read": _per_token(model.cached),
    }


_SLUGS = {"gemini": "google-ai-studio"}


def hosts(vendors: Iterable[Vendor], canonical: str) -> Json:
    """Who serves a model, as OpenRouter lists it: each at its own price."""
    endpoints = [
        {
            "tag": _SLUGS.get(vendor.name, vendor.name),
            "provider_name": vendor.name.capitalize(),
            "context_length": model.context,
            "max_completion_tokens": 40_960,
            "pricing": _pricing(model),
            "supported_parameters": ["max_tokens", "tools"],
        }
        for vendor in vendors
        for model in vendor.models
        if model.canonical == canonical and vendor.name != "openrouter"
    ]
    return {"data": {"id": canonical, "name": canonical, "endpoints": endpoints}}
