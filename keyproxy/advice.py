"""What is no fault and still looks like a mistake, a line each that says what to write. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from keyproxy.call import BASE
from keyproxy.grammar.keys import is_of_openrouter
from keyproxy.grammar.network import is_openrouter
from keyproxy.settings import KNOWN_ENDPOINTS, Settings

# The paths of calls, which people copy into the base address.
_ENDPOINTS = sorted(
    {name.partition(f" {BASE}")[2] for name in KNOWN_ENDPOINTS if "{" not in name},
    key=len,
    reverse=True,
)


def odd(settings: Settings) -> list[str]:
    """What is odd in the settings themselves; nothing of a key is repeated."""
    if settings.mode == "demo":
        return []
    found = []
    if (base := _better(settings.upstream)) != settings.upstream:
        found.append(
            f"KEYPROXY_UPSTREAM={settings.upstream} looks like no whole base address: calls go to"
            f" {settings.upstream}/chat/completions; write KEYPROXY_UPSTREAM={base}"
        )
    if is_openrouter(settings.upstream) and not all(map(is_of_openrouter, settings.all_keys)):
        found.append("a key does not begin with sk-or-, as OpenRouter's keys do")
    return found


def _better(base: str) -> str:
    """The base address that ``base`` is meant to be."""
    if is_openrouter(base):
        return f"https://{urlsplit(base).netloc}{BASE}"
    for endpoint in _ENDPOINTS:
        base = base.removesuffix(endpoint)
    return base if urlsplit(base).path else f"{base}/v1"
