"""Anthropic's API as a provider: the second one that the value is drawn from. Not in the product.

docs.anthropic.com, "API overview", "Errors", "List Models" (November 2026).
"""

from __future__ import annotations

from typing import Any

from keyproxy.upstream.provider import KeyReport, Listing, Provider
from keyproxy.upstream.takes import Takes


def read_key(status: int, body: Any) -> KeyReport:
    """Of a key nothing is told; it lists the models, or is none."""
    return KeyReport(status, label="works" if status == 200 else None)


ANTHROPIC = Provider(
    name="anthropic",
    title="Anthropic",
    base="https://api.anthropic.com/v1",
    key_variable="ANTHROPIC_API_KEY",
    keys_page="https://console.anthropic.com/settings/keys",
    key_header="x-api-key",
    key_form="{}",
    passed=(
        "request-id",
        "retry-after",
        *(
            f"anthropic-ratelimit-{unit}-{told}"
            for unit in ("requests", "tokens", "input-tokens", "output-tokens")
            for told in ("limit", "remaining", "reset")
        ),
    ),
    private_names=frozenset({"organization_id"}),
    key_path="/models?limit=1",
    read_key=read_key,
    listing=Listing("/models?limit=1000"),
    takes={"messages": Takes(fields=None)},
    slug="anthropic",
    refuses_key=frozenset({401, 403}),
)
