"""OpenRouter, as its OpenAPI document and docs describe it (October and November 2026)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

from keyproxy.call import DEARER_TIERS, IN_COST, Told, Usage
from keyproxy.dialects import DIALECTS
from keyproxy.price import EXPONENTS, IMAGE_TOKENS, KINDS, MAX_COST, Override, Price, Rates
from keyproxy.settings.grammar import secrets
from keyproxy.upstream import faults
from keyproxy.upstream.faults import OWN_WORDS, Fault
from keyproxy.upstream.provider import KeyReport, Listing, Provider
from keyproxy.upstream.takes import Takes

# What is written out in digits: an exponent of a few characters may stand for gigabytes.
_MONEY = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?")
_MANY_IMAGE_TOKENS = ("gpt-4o-mini", 48_169)  # of OpenAI's models that begin so, and what one takes
_PRICE = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,30})?")
_TIMES = ("utc_start", "utc_end", "utc_days")
KEPT_OF_PROVIDER = ("tag", "context_length", "max_completion_tokens", "pricing")
"""What of a row in the list of a model's providers stays beside its price."""
PROVIDERS_PATH = "/models/{}/endpoints"  # of that list
_MAX_OVERRIDES = 64
_MAX_TOKENS = 10**9  # a length beyond it is no length


def attribution(
    referer: str | None, title: str | None, categories: str | None
) -> Mapping[str, str]:
    """Ranking headers. Both title names: some tools were seen to read only the old one."""
    named = {
        "HTTP-Referer": referer,
        "X-OpenRouter-Title": title,
        "X-Title": title,
        "X-OpenRouter-Categories": categories,
    }
    return {name: value for name, value in named.items() if value is not None}


def read_key(status: int, body: Any) -> KeyReport:
    """What ``GET /key`` says ("Get current API key")."""
    data = _object(body, "data") if status == 200 else {}
    return KeyReport(
        status,
        label=_text(data.get("label")),
        limit=_money(data.get("limit")),
        limit_remaining=_money(data.get("limit_remaining")),
        expires_at=_text(data.get("expires_at")),
        is_management=data.get("is_management_key") is True
        or data.get("is_provisioning_key") is True,
    )


def read_call(raw: bytes) -> Told | None:
    """What ``GET /generation?id=`` says ("Get request and usage metadata for a generation"): total
    cost, native token counts; None without a cost that can be true. 404 for some minutes."""
    try:
        text = raw.decode()
        body = json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=str)
    except (ValueError, RecursionError, InvalidOperation):
        return None
    data = _object(body, "data")
    if (cost := _cost(data.get("total_cost"))) is None:
        return None
    usage = Usage(
        input_tokens=_count(data, "native_tokens_prompt", "tokens_prompt"),
        output_tokens=_count(data, "native_tokens_completion", "tokens_completion"),
        cached_tokens=_count(data, "native_tokens_cached"),
        reasoning_tokens=_count(data, "native_tokens_reasoning"),
        cost=cost,
        is_byok=data.get("is_byok") is True,
        upstream_cost=_cost(data.get("upstream_inference_cost")) or Decimal(0),
    )
    return Told(usage, _text(data.get("model")))


def is_usual(row: Mapping[str, Any]) -> bool:
    """Without ``output_modalities``, models are listed that write text."""
    outputs = _object(row, "architecture").get("output_modalities")
    return not isinstance(outputs, list) or "text" in outputs


def _object(value: Any, name: str) -> dict[str, Any]:
    """What stands under a name, where that is an object; else an empty one."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value.isprintable() else None


def _money(value: Any) -> Decimal | None:
    text = str(value)
    return Decimal(text) if _MONEY.fullmatch(text) else None


def _cost(value: Any) -> Decimal | None:
    """One that can be true, with an exponent that sums do not choke on."""
    is_number = isinstance(value, Decimal) and value.as_tuple().exponent in EXPONENTS
    return value if is_number and 0 <= value <= MAX_COST else None


def _count(data: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = data.get(name)
        if isinstance(value, Decimal) and 0 <= value < 2**53 and value == value.to_integral_value():
            return int(value)
    return None


def names_of(rows: Iterable[Mapping[str, Any]], listed: Collection[str]) -> dict[str, str]:
    """Every other name of a model, dated or "latest", and the id it stands for."""
    names: dict[str, str] = {}
    for row in rows:
        model, slug = row["id"], row.get("canonical_slug")
        target = _object(row, "alias_target").get("slug")
        if isinstance(target, str):
            names[model] = target
        elif isinstance(slug, str):
            # A free variant has the slug of the model that is not free.
            _, mark, variant = model.partition(":")
            name = slug + mark + variant
            if name != model and name not in listed:
                names.setdefault(name, model)
    return {name: names.get(target, target) for name, target in names.items()}


def price_of_row(row: Any) -> Price | None:
    """The price in a row of the models' list, or None when it is not known for certain.

    Prices of 0 are free only under ``…:free`` and ``openrouter/free``; elsewhere they hide what
    is billed by other units. -1 is a router's.
    """
    price = _priced(row)
    if price is None:
        return None
    name = row.get("id")
    is_free = isinstance(name, str) and (name.endswith(":free") or name == "openrouter/free")
    return price if is_free or price.rates.prompt or price.rates.completion else None


def price_of_providers(endpoints: Iterable[Any], with_tiers: bool = False) -> Price | None:
    """The dearest of the providers of one model, by the list ``endpoints``.

    Unless a call chooses, the upstream may take any of them, except tiers that a call must name
    (``with_tiers``: those too). None when there are none, or one is not understood.
    """
    dearest: Price | None = None
    for endpoint in endpoints:
        tag = endpoint.get("tag") if isinstance(endpoint, dict) else None
        tier = tag.rpartition("/")[2] if isinstance(tag, str) else ""
        if tier in DEARER_TIERS and not with_tiers:
            continue
        price = _priced(endpoint)
        if price is None:
            return None
        dearest = price if dearest is None else dearest.dearer(price)
    return dearest


def _priced(row: Any) -> Price | None:
    """The price in a row of either list; zeros are taken as they are."""
    pricing = _object(row, "pricing")
    if pricing.get("prompt") is None or pricing.get("completion") is None:
        return None
    try:
        rates = Rates(**dict(_rates(pricing)))
        overrides = tuple(_overrides(pricing.get("overrides")))
        _check_discount(pricing.get("discount"))
    except ValueError:  # something in the row that is no price
        return None
    top = _object(row, "top_provider")
    modalities = _object(row, "architecture").get("input_modalities")
    contexts = [_length(place.get("context_length")) for place in (row, top)]
    beginning, most = _MANY_IMAGE_TOKENS
    model = str(row.get("id")).removeprefix("openai/")  # OpenAI's own list has no author
    return Price(
        rates=rates,
        overrides=overrides,
        context_length=max((length for length in contexts if length), default=None),
        max_completion_tokens=_length(
            row.get("max_completion_tokens") or top.get("max_completion_tokens")
        ),
        image_tokens=most if model.startswith(beginning) else IMAGE_TOKENS,
        reads_files=isinstance(modalities, list) and "file" in modalities,
    )


def _rates(pricing: dict[str, Any]) -> Iterator[tuple[str, Decimal]]:
    """Kinds that are not known here are left out: calls that use them are not open."""
    for name in KINDS:
        value = pricing.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not _PRICE.fullmatch(value):
            raise ValueError(name)
        yield name, Decimal(value)


def _overrides(listed: Any) -> Iterator[Override]:
    if listed is None:
        return
    if not isinstance(listed, list) or len(listed) > _MAX_OVERRIDES:
        raise ValueError("overrides")
    for entry in listed:
        if not isinstance(entry, dict):
            raise ValueError("overrides")
        above = entry.get("min_prompt_tokens")
        if above is not None and type(above) is not int:
            raise ValueError("overrides")
        is_at_times = any(entry.get(name) is not None for name in _TIMES)
        yield Override(-1 if above is None else above, is_at_times, tuple(_rates(entry)))


def _check_discount(value: Any) -> None:
    """A discount is not deducted: whether the prices have it already is not documented."""
    if value is None or (type(value) in (int, float, Decimal) and 0 <= value <= 1):
        return
    if not isinstance(value, str) or not _PRICE.fullmatch(value) or Decimal(value) > 1:
        raise ValueError("discount")


def _length(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= _MAX_TOKENS else None


LISTING = Listing(
    path="/models?output_modalities=all",
    is_public=True,
    is_usual=is_usual,
    kept=(
        "id",
        "canonical_slug",
        "alias_target",
        "context_length",
        "top_provider",
        "architecture",
        "pricing",
    ),
)
OPENROUTER = Provider(
    name="openrouter",
    title=secrets.OPENROUTER,
    base="https://openrouter.ai/api/v1",
    keys_page=secrets.KEYS_PAGE,
    # It passes on what it does not know, so what the policy lets through may go there.
    takes={dialect.name: Takes(fields=None) for dialect in DIALECTS},
    passed=(
        "X-Generation-Id",
        "X-Provider-Name",
        "Retry-After",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
        "X-OpenRouter-Cache-Status",
        "X-OpenRouter-Cache-Age",
        "X-OpenRouter-Cache-TTL",
        "request-id",
        "cf-ray",
    ),
    private_names=frozenset(
        {"user_id", "creator_user_id", "organization_id", "workspace_id", "is_byok"}
    ),
    key_path="/key",
    read_key=read_key,
    listing=LISTING,
    slug="openrouter",
    classify=faults.by(
        texts={
            f"^this request would exceed{OWN_WORDS}in[- ]flight": Fault.LOAD,
            r"^\S+ is not a valid model": Fault.CONFIG,
            # The model is there, and no host of it takes this very call.
            r"data policy|that (?:support|can handle)|allowed providers": Fault.CALLER,
        },
    ),
    told_cost=IN_COST,
    attribution=attribution,
    call_header="X-Generation-Id",
    call_path=lambda id: f"/generation?id={quote(id, safe='')}",
    read_call=read_call,
)
