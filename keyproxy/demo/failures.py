"""Answers that are errors, with OpenRouter's words, metadata and headers.

Texts are those of published captures where there are any, ids are invented. On ``/messages``
the same failure wears Anthropic's shape. Knows no models and no HTTP library.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.dataclass import dataclass, field

ACCOUNT_ID = "user_2EXAMPLEaccountid0000000000"
RETRY_AFTER_SECONDS = 5

_MESSAGES_TYPES = MappingProxyType(
    {
        400: "invalid_request_error",
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        503: "overloaded_error",
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """``page`` is sent as HTML in place of a JSON error; ``is_limited`` adds the limit headers.

    ``leaks`` adds the account's id, as OpenRouter does once it knows the caller.
    """

    status: int
    message: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    leaks: bool = True
    is_limited: bool = False
    page: str | None = None

    def body(self, *, as_messages: bool, generation_id: str | None) -> bytes:
        if self.page is not None:
            return self.page.encode()
        if as_messages:
            return encode(
                {
                    "type": "error",
                    "error": {
                        "type": _MESSAGES_TYPES.get(self.status, "api_error"),
                        "message": self.message,
                        "error_type": self.metadata.get("error_type", "unmapped"),
                    },
                    "request_id": generation_id,
                }
            )
        error: dict[str, Any] = {"message": self.message, "code": self.status}
        if self.metadata:
            error["metadata"] = dict(self.metadata)
        return encode({"error": error} | ({"user_id": ACCOUNT_ID} if self.leaks else {}))

    def headers(self) -> dict[str, str]:
        if not self.is_limited:
            return {}
        reset = round((time.time() + RETRY_AFTER_SECONDS) * 1000)
        return {
            "Retry-After": str(RETRY_AFTER_SECONDS),
            "X-RateLimit-Limit": "20",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(reset),
        }


def encode(value: object) -> bytes:
    """Compact JSON, non-ASCII as it is: the upstream's way of writing."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


NO_KEY = Failure(401, "No cookie auth credentials found", leaks=False)
KEY_REJECTED = Failure(401, "User not found.", leaks=False)
NOT_FOUND = Failure(404, "Not Found", leaks=False)
INVALID_BODY = Failure(400, "Invalid JSON in the request body")
NO_INPUT = Failure(400, 'Input required: specify "prompt" or "messages"')
TOO_MANY_REQUESTS = Failure(
    429,
    "Provider returned error",
    {
        "raw": "demo/429 is temporarily rate-limited upstream. Please retry shortly.",
        "provider_name": "Demo",
        "is_byok": False,
        "provider_error_code": "rate_limit_exceeded",
        "limit_source": "upstream_provider_shared_pool",
        "remedy_hint": "Retry later or add your own provider key.",
        "retry_after_seconds": RETRY_AFTER_SECONDS,
        "retry_after_seconds_raw": RETRY_AFTER_SECONDS,
        "headers": {"Retry-After": str(RETRY_AFTER_SECONDS)},
        "error_type": "rate_limit_exceeded",
    },
    is_limited=True,
)
OUT_OF_CREDITS = Failure(
    402,
    "This request requires more credits, or fewer max_tokens. You requested up to 32000 tokens, "
    "but can only afford 27342. To increase, visit https://openrouter.ai/settings/credits and "
    "upgrade to a paid account",
    {"provider_name": None},
)
FLAGGED = Failure(
    403,
    "Your input was flagged by moderation",
    {
        "reasons": ["demo"],
        "flagged_input": "example flagged text...",
        "provider_name": "Demo",
        "model_slug": "demo/403",
    },
)
SERVER_ERROR = Failure(500, "Internal Server Error", leaks=False)
UNAVAILABLE = Failure(
    503, "Service temporarily unavailable", {"error_type": "provider_unavailable"}
)
BAD_GATEWAY_PAGE = Failure(
    502,
    "Bad Gateway",
    page=(
        "<html>\n<head><title>502 Bad Gateway</title></head>\n<body>\n"
        "<center><h1>502 Bad Gateway</h1></center>\n<hr><center>cloudflare</center>\n"
        "</body>\n</html>\n"
    ),
)


def unknown_model(model: str) -> Failure:
    return Failure(400, f"{model} is not a valid model ID")
