"""The models that can be called with our own keys, as OpenRouter would list them.

Of each provider that is used: what it lists, else what the shipped table has. Where OpenRouter may
be asked, its list comes first, and only what it lacks is added. Typed SDKs want every field of a
row, so that what nobody tells is said to be nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from keyproxy.dataclass import dataclass
from keyproxy.errors import Refusal
from keyproxy.upstream import shipped
from keyproxy.upstream.provider import Fetched, Listing, Model, Provider, Row
from keyproxy.upstream.send import Upstream

Listed = Callable[[str], Mapping[str, Model] | None]
"""What a provider lists, by native id; None while it never did."""
Ask = Callable[[Upstream, str], Awaitable[Fetched]]

_UNTOLD = {"prompt": "-1", "completion": "-1"}
"""A price that nobody tells."""
_EMBEDS = re.compile(r"embed|(?:^|/)(?:bge|e5|gte)-|sentence-transformers/", re.I)
# Vendors list all that they have, and do not say what it makes.
_WRITES_NO_TEXT = re.compile(
    r"whisper|tts|transcribe|realtime|dall-e|image|imagen|veo|sora|lyria|moderation|davinci|babbage"
    r"|speech|rerank|stable-diffusion|flux|guard|orpheus|ocr|video",
    re.I,
)


class Offer(NamedTuple):
    """A model at a provider: ``model`` is OpenRouter's id of it, ``row`` what is known."""

    model: str
    provider: Provider
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Offered:
    """``providers`` gives those that are used, but for OpenRouter; ``openrouter`` gives that one,
    without keys where no call goes there, or None where it is not to be asked. ``settled`` waits a
    moment for what others list, after a start."""

    providers: Callable[[], Sequence[Provider]]
    listed: Listed
    listing: Listing
    openrouter: Callable[[], Upstream | None]
    settled: Callable[[], Awaitable[None]]

    async def fetch(self, path: str, how: Ask = Upstream.fetch) -> Fetched:
        """A list of models, or what is known of one, below the base address. Raises as ``how``
        OpenRouter is asked does, where there is nobody else."""
        upstream, providers = self.openrouter(), self.providers()
        if upstream is not None and not (providers and self._is_list(path)):
            return await how(upstream, path)
        await self.settled()
        own = await asyncio.to_thread(lambda: [*offers(providers, self.listed)])
        if not self._is_list(path):
            return _detail(path, own)
        fetched = Fetched(200, b"") if upstream is None else await _openrouters(upstream, path, how)
        if fetched.status != 200:
            return fetched
        known = {row.model for row in fetched.rows}
        rows = [
            Row(model, _json(row), {name: row[name] for name in self._kept(row)})
            for model, row in _cheapest(own).items()
            if model not in known and (path == self.listing.path or self.listing.is_usual(row))
        ]
        return fetched._replace(rows=(*fetched.rows, *rows))

    def _kept(self, row: Mapping[str, Any]) -> Iterator[str]:
        """A price of -1 is a router's: to ourselves, what nobody tells is said to be nothing."""
        return (name for name in self.listing.kept if row.get(name, _UNTOLD) is not _UNTOLD)

    def _is_list(self, path: str) -> bool:
        """What narrows a list by more than what models write is OpenRouter's to know."""
        return path in ("/models", self.listing.path)


async def _openrouters(upstream: Upstream, path: str, how: Ask) -> Fetched:
    """Its list, or an empty one. Where calls go there, an old list of all is better than a new one
    of some: then errors are handed on."""
    try:
        fetched = await how(upstream, path)
    except Refusal:
        if upstream.keys:
            raise
        return Fetched(200, b"")
    return fetched if fetched.status == 200 or upstream.keys else Fetched(200, b"")


def offers(providers: Iterable[Provider], listed: Listed) -> Iterator[Offer]:
    """Each model at each of ``providers``, in their order."""
    for provider in providers:
        table, told = shipped.models_of(provider.name), listed(provider.name)
        for native in table if told is None else told:
            known = table.get(native)
            if known is None and _WRITES_NO_TEXT.search(native):
                continue
            model = known.model if known is not None else None
            model = model or _canonical(provider, native)
            if model is None:
                continue
            row = dict(shipped.rows_of(provider.name).get(native, {}))
            if told is not None:
                row |= _told(told[native])
            yield Offer(model, provider, _row(model, native, row))


def _canonical(provider: Provider, native: str) -> str | None:
    """The id by which calls name a model of a native id, as far as a rule tells."""
    if provider.author is not None:
        model = f"{provider.author}/{native}"
        return model if provider.native(model) == native else None
    is_known_by_name = bool(provider.slug)
    is_same = provider.native(native) == native and ("/" in native or not is_known_by_name)
    return native if is_same else None


def _told(model: Model) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if model.context_tokens is not None:
        told["context_length"] = model.context_tokens
    if model.price is not None:
        rates = model.price.rates
        kinds = ("prompt", "completion", "input_cache_read")
        usd = {kind: getattr(rates, kind) for kind in kinds}
        told["pricing"] = {kind: f"{each:f}" for kind, each in usd.items() if each}
    return told


def _row(model: str, native: str, known: Mapping[str, Any]) -> dict[str, Any]:
    inputs = known.get("architecture", {}).get("input_modalities", ["text"])
    writes = ["embeddings"] if _EMBEDS.search(native) else ["text"]
    length = known.get("context_length")
    return {
        "id": model,
        "canonical_slug": model,
        "hugging_face_id": None,
        "name": model,
        "created": 0,
        "description": "",
        "context_length": length,
        "architecture": {
            "modality": f"{'+'.join(inputs)}->{writes[0]}",
            "input_modalities": inputs,
            "output_modalities": writes,
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": known.get("pricing", _UNTOLD),
        "top_provider": {
            "context_length": length,
            "max_completion_tokens": known.get("max_completion_tokens"),
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": [],
        "default_parameters": None,
        "supported_voices": None,
        "knowledge_cutoff": None,
        "expiration_date": None,
        "links": {"details": f"/api/v1/models/{model}/endpoints"},
    }


def _cheapest(offers: Iterable[Offer]) -> dict[str, dict[str, Any]]:
    """A row for each model: that of the home whose tokens cost least, else the first's."""
    found: dict[str, dict[str, Any]] = {}
    for model, _, row in offers:
        if model not in found or _usd(row) < _usd(found[model]):
            found[model] = row
    return found


def _usd(row: Mapping[str, Any]) -> float:
    pricing = row["pricing"]
    usd = float(pricing["prompt"]) + float(pricing["completion"])
    return usd if usd >= 0 else float("inf")


def _detail(path: str, offers: Iterable[Offer]) -> Fetched:
    """What is known of one model, in the shape of OpenRouter's two resources."""
    model = path.removeprefix("/models/").removeprefix("/model/")
    is_of_homes = model.endswith("/endpoints")
    model = model.removesuffix("/endpoints")
    homes = [offer for offer in offers if offer.model == model]
    if not homes:
        error = {"code": 404, "message": "No provider that is used here is known to have it."}
        return Fetched(404, _json({"error": error}))
    row = _cheapest(homes)[model]
    if not is_of_homes:
        return Fetched(200, _json({"data": row}))
    kept = ("id", "name", "created", "description", "architecture")
    endpoints = [_endpoint(offer) for offer in homes]
    data = {**{name: row[name] for name in kept}, "endpoints": endpoints}
    return Fetched(200, _json({"data": data}))


def _endpoint(offer: Offer) -> dict[str, Any]:
    row, title = offer.row, offer.provider.title
    return {
        "name": f"{title} | {offer.model}",
        "model_name": offer.model,
        "provider_name": title,
        "tag": offer.provider.slug or offer.provider.name,
        "context_length": row["context_length"],
        "max_completion_tokens": row["top_provider"]["max_completion_tokens"],
        "max_prompt_tokens": None,
        "pricing": row["pricing"],
        "quantization": None,
        "supported_parameters": [],
        "status": 0,
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
