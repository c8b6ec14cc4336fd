"""What ``check`` says of each key, in words, and of the names of models."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from keyproxy.commands.findings import Finding
from keyproxy.errors import Refusal
from keyproxy.key_forms import NO_KEY, STARS
from keyproxy.policy.models import Known
from keyproxy.routing.homes import Homes
from keyproxy.settings import DEFAULT_APP, Secret, Settings
from keyproxy.settings.advice import unlisted
from keyproxy.settings.providers import Used
from keyproxy.transport.client import Pools
from keyproxy.transport.pool import ProxyFailed
from keyproxy.upstream import shipped
from keyproxy.upstream.keyring import KeyStates
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.provider import KeyReport, Model, Provider
from keyproxy.upstream.providers import bases_of, provider_of
from keyproxy.upstream.send import Upstream

TIMEOUT_SECONDS = 10.0
# More of a key than this in one piece is more than its public label shows.
_TELLING_CHARACTERS = 16

_UNKNOWN = "the upstream does not know this key (401): mistyped, deleted, disabled or expired"


async def of_keys(settings: Settings) -> list[Finding]:
    """What the upstream says of each key, and of the names of models."""
    found: list[Finding] = []
    listed: dict[str, Mapping[str, Model] | None] = {}
    asked: set[tuple[str, Secret]] = set()  # of another app, perhaps
    async with Pools(settings) as pools:
        for app in settings.all_apps:
            for used in app.providers:
                upstream = _upstream(app, used, pools, settings.hidden_keys)
                name = "" if upstream.provider is OPENROUTER else f"{upstream.provider.title} "
                for key in used.keys:
                    if (used.name, key) in asked:
                        continue
                    asked.add((used.name, key))
                    about, lines = f"{name}key {key.label}", await _lines(upstream, key)
                    found += [Finding.of_line(about, line) for line in lines]
                if app.name != DEFAULT_APP:
                    continue
                if upstream.provider is OPENROUTER:
                    about, lines = "models", await _models(upstream, settings)
                else:
                    lines, listed[used.name] = await _list(upstream)
                    about = upstream.provider.title
                found += [Finding.of_line(about, line) for line in lines]
    if settings.provider_names != (OPENROUTER.name,):
        lines = [f"the shipped table of models and prices is of {shipped.date()}"]
        lines += _unlisted_homes(settings, listed)
        if OPENROUTER.name not in settings.provider_names:
            lines += _homeless(settings, listed)
        found += [Finding.of_line("models", line) for line in lines]
    return found


def _upstream(app: Settings, used: Used, pools: Pools, hidden: Collection[Secret]) -> Upstream:
    """A provider at its own address, with its own keys."""
    provider = provider_of(used)
    base, _ = bases_of(used, provider, app.upstream)
    pool, keys = pools.of(base), used.keys or (NO_KEY,)
    return Upstream(app, pool, KeyStates(), hidden=hidden, provider=provider, keys=keys)


async def _lines(upstream: Upstream, key: Secret) -> list[str]:
    """What to print of one key."""
    provider = upstream.provider
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            report = await upstream.inspect(key)
    except (Refusal, TimeoutError) as error:
        return [f"error: {_unreached(error.__cause__ or error)}"]
    if report.status != 200:
        return [f"error: {_of_status(report.status, provider)}"]
    if not report.is_verdict:
        return [f"unknown: {provider.title} shows to anybody all that can be asked for at no cost"]
    if provider is not OPENROUTER:
        return ["works"]
    facts = _facts(report, key)
    if trouble := _trouble(report):
        return [*facts, f"error: {trouble}"]
    unlimited = (
        "warning: this key has no credit limit; set one, it is the only stop outside"
        f" keyproxy: {provider.keys_page}"
    )
    return [*facts, "works", *([unlimited] if report.limit is None else [])]


def _of_status(status: int, provider: Provider) -> str:
    """What an answer that is no report means."""
    if status in provider.refuses_key and status in (400, 401):
        return f"{_UNKNOWN}; make a new one at {provider.keys_page}"
    base = "KEYPROXY_UPSTREAM" if provider is OPENROUTER else "its base"
    path = urlsplit(provider.base).path
    said = {
        402: "the account behind this key has no credit left (402); buy some, the key may be fine",
        403: "the upstream refuses this key (403)",
        404: f"the upstream has no {provider.key_path} (404): is {base} the whole base"
        f" address, {path} included?",
        429: "the upstream was asked too often (429); try again in a minute",
    }
    return said.get(status, f"the upstream answered with status {status}")


async def _list(upstream: Upstream) -> tuple[list[str], Mapping[str, Model] | None]:
    """What to print of a provider's own list of models, and the list."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            models = await upstream.models()
    except (Refusal, TimeoutError) as error:
        why = (error.hint or error.code) if isinstance(error, Refusal) else "timeout"
        whose = f"{upstream.provider.title}'s list of models"
        return [f"warning: {whose} cannot be had ({why})"], None
    rows = shipped.models_of(upstream.provider.name)
    told = {id for id, model in models.items() if model.price is not None}
    told |= {id for id in models.keys() & rows.keys() if rows[id].price is not None}
    return [f"{len(models)} models listed, the prices of {len(told)} are known"], models


def _unlisted_homes(
    settings: Settings, listed: Mapping[str, Mapping[str, Model] | None]
) -> list[str]:
    """What to print of the ids in ``at`` that their providers do not list."""
    told = dict.fromkeys(
        (route.name, *home)
        for app in settings.all_apps
        for route in app.routes
        for home in route.at
    )
    return [
        f"warning: at of {name}: {provider} does not list {native}"
        for name, provider, native in told
        if native and (models := listed.get(provider)) is not None and native not in models
    ]


def _homeless(settings: Settings, listed: Mapping[str, Mapping[str, Model] | None]) -> list[str]:
    """What to print of the names that no provider has, as far as all could be asked."""
    homes = Homes([provider_of(used) for used in settings.providers], listed=listed.get)
    lines = []
    for app in settings.all_apps:
        where = "" if app is settings else f" of [apps.{app.name}]"
        named = [each for each in app.allowed_models if not set("*!") & set(each)]
        for model in dict.fromkeys([*named, *(model for _, model in app.model_aliases)]):
            found = homes.of(model)
            if not found.places and not found.waits_for:
                who = ", ".join(listed)
                lines.append(f"warning: {model}{where} has no home: none of {who} lists it")
    return lines


async def _models(upstream: Upstream, settings: Settings) -> list[str]:
    """What to print of the patterns and aliases, compared with the upstream's public list."""
    are_named = any(app.allowed_models != ("*",) or app.model_aliases for app in settings.all_apps)
    if not are_named or not settings.public_list:
        return []
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            fetched = await upstream.fetch_shown(OPENROUTER.listing.path)
    except (Refusal, TimeoutError):
        return ["warning: the upstream's list of models cannot be read; no name was compared"]
    if fetched.status != 200:
        return [f"warning: the upstream's list of models has status {fetched.status}"]
    listed = Known.of(row.kept for row in fetched.rows).listed
    return [f"warning: {line}" for line in unlisted(settings, listed)]


def _facts(report: KeyReport, key: Secret) -> list[str]:
    label, expires = (
        STARS if text and key.is_in(text, run=_TELLING_CHARACTERS) else text
        for text in (report.label, report.expires_at)
    )
    limit = "none"
    if report.limit is not None:
        left = "unknown" if report.limit_remaining is None else f"{report.limit_remaining:f}"
        limit = f"{report.limit:f} USD, left: {left}"
    return [f"label:   {label or 'none'}", f"limit:   {limit}", f"expires: {expires or 'never'}"]


def _trouble(report: KeyReport) -> str | None:
    if report.is_management:
        return (
            "this is a management key: it cannot make calls and can change the account; make an"
            f" ordinary key at {OPENROUTER.keys_page}"
        )
    if report.label is None and report.limit is None:
        return "the answer says nothing of a key; is KEYPROXY_UPSTREAM the right address?"
    if report.limit_remaining is not None and report.limit_remaining <= 0:
        return "the credit limit of this key is used up; the upstream will answer 402"
    return None


def _unreached(error: BaseException) -> str:
    """Why there was no answer. The errors' own texts may hold addresses and passwords."""
    if isinstance(error, TimeoutError):
        return f"the upstream did not answer within {TIMEOUT_SECONDS:.0f} seconds"
    if isinstance(error, socket.gaierror):
        return "the upstream's name cannot be resolved; is there a network?"
    if isinstance(error, ProxyFailed):
        return "the proxy of KEYPROXY_UPSTREAM_PROXY cannot be used"
    if isinstance(error, ssl.SSLError):
        return (
            "the upstream's certificate is not trusted; behind a corporate proxy,"
            " KEYPROXY_UPSTREAM_CA_FILE names its CA"
        )
    return f"the upstream cannot be reached ({type(error).__name__})"
