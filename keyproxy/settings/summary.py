"""Who may call an app, from where, for what and how often, in words: the start line and `check`.

Knows settings only, and shows of a secret no more than its label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from keyproxy.console import elided
from keyproxy.settings import Rate, Settings
from keyproxy.settings.routes import Route


def clients(app: Settings) -> str:
    """Who may call."""
    if app.client_auth == "token":
        names = [token.name for token in app.client_tokens]
        return f"holders of a client token: {_listed(names)}"
    if app.client_auth == "jwt":
        whose = app.jwt_issuer or app.jwt_jwks_url or "the issuer that shares our secret"
        return f"users with a JWT of {whose}"
    if app.client_auth == "session":
        test = f", after a captcha ({app.captcha})" if app.captcha else ""
        return f"anyone, each with a session of its own{test}"
    return "anyone, told apart by network address"


def rates(limits: Sequence[Rate]) -> str:
    return "; ".join(f"{rate.amount} in {rate.seconds} s" for rate in limits) or "off"


def short(settings: Settings) -> str:
    """Who may call, from which pages and how much, in at most 67 columns."""
    if settings.client_auth == "none":
        is_here = all(address.is_loopback for address in settings.listen)
        who = "this computer" if is_here else "whoever reaches it"
    else:
        who = {"token": "client tokens", "jwt": "JWTs", "session": "sessions"}[settings.client_auth]
    pages = _listed(settings.allowed_origins, most=1)
    parts = [
        f"{who}, pages of {'any origin' if pages == '*' else pages}",
        ", ".join(map(str, settings.rate_limit)),
        ", ".join(f"${budget.usd:f}/{budget.unit}" for budget in settings.total_budget),
    ]
    return elided("; ".join(filter(None, parts)), 67)


def size(count: int) -> str:
    """Bytes in the largest unit that keeps the number readable."""
    for unit, bytes_each in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= bytes_each:
            return f"{count / bytes_each:.0f} {unit}"
    return f"{count} bytes"


def storage(settings: Settings) -> str:
    """Where calls are counted, and what holds when that cannot be asked."""
    if settings.storage is None:
        return "in this process only"
    return f"in {settings.storage} (while that is down: {settings.storage_failure})"


def budgets(app: Settings) -> str:
    """What may be spent, by whom."""
    parts = [
        *(f"{budget} a client" for budget in app.budget),
        *(f"{budget} for the app" for budget in app.app_budget),
        *(f"{budget} in all" for budget in app.total_budget),
    ]
    return "; ".join(parts) or "off"


def alerts(settings: Settings) -> str:
    """Who is told when something leaves its range, and which spend does."""
    where = "in the log only"
    if settings.alert_url is not None:
        signed = "signed" if settings.alert_secret else "not signed"
        where = f"to {urlsplit(settings.alert_url.reveal()).hostname}, {signed}"
    spend = ", ".join(map(str, settings.alert_spend))
    return f"{where}; spend beyond {spend}" if spend else where


def of_app(app: Settings) -> Mapping[str, str]:
    """What holds for an app, by what an operator asks first."""
    return {
        "clients": clients(app),
        "origins": _listed(app.allowed_origins),
        "models": _listed([*app.allowed_models, *(f"{a} = {m}" for a, m in app.model_aliases)]),
        "features": _listed([*app.allowed_features, *app.extra_fields]),
        "max tokens": str(app.max_tokens or "off"),
        "per client": f"{rates(app.rate_limit)}, {app.max_in_flight} at once",
        "per address": rates(app.address_rate_limit),
        "budgets": budgets(app),
        **_keys(app),
        **({"homes": _homes(app)} if app.routes or len(app.provider_names) > 1 else {}),
    }


def keys(app: Settings) -> Mapping[str, list[str]]:
    """The labels of the keys, by provider in the order in which they are asked."""
    return {each.name: [key.label for key in each.keys] for each in app.providers}


_ON = {
    "none": "nobody else where one fails",
    "provider": "then the next one",
    "model": "then the next one or the next model",
}
_CHOICE = {"order": "as listed", "cheapest": "the cheapest", "fastest": "the fastest"}


def _homes(app: Settings) -> str:
    """How a call finds its home: usually, and where a table says something else."""
    usual = f"{_CHOICE[app.choose]}, {_ON[app.fallback]}"
    return _listed([usual, *(f"{each.name}: {_way(each)}" for each in app.routes)], joined="; ")


def _way(route: Route) -> str:
    at = [home if id is None else f"{home}:{id}" for home, id in route.at]
    parts = [_CHOICE[route.choose]] if route.choose is not None else []
    parts += [f"of {', '.join(at or route.models)}"] if at or route.models else []
    words = [" ".join(parts)] if parts else []
    words += [_ON[route.fallback]] if route.fallback is not None else []
    words += [f"{name} {usd} USD at most" for name, usd in route.max_price.items()]
    words += [f"prices of {', '.join(route.price)}"] if route.price else []
    return ", ".join(words) or "as usual"


def _keys(app: Settings) -> Mapping[str, str]:
    labels = keys(app)
    if list(labels) == ["openrouter"]:
        return {"key": _listed(labels["openrouter"])}
    return {"keys": "; ".join(f"{name} {_listed(each)}" for name, each in labels.items())}


def _listed(items: Iterable[str], most: int = 8, joined: str = ", ") -> str:
    entries = list(items)
    more = f" and {len(entries) - most} more" if len(entries) > most else ""
    return (joined.join(entries[:most]) or "none") + more
