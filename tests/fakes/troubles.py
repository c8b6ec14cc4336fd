"""What can go wrong at each vendor, in its own words, and how a router should take it.

Sources: the vendors' pages on errors and limits; "Classes" of the contract: ``load`` (come back
later), ``account`` (nobody's call will work), ``uncertain`` (it may have been worked on, and
billed), ``caller`` (no other home will take it either), ``config`` (this home has no such model).
"""

from __future__ import annotations

from tests.fakes.shapes import ORGANISATION
from tests.fakes.vendor import Trouble

_AFTER = {"retry-after": "7"}
_OF_TOKENS = (
    f"Rate limit reached for gpt-oss-120b in organization {ORGANISATION} on tokens per min (TPM): "
    "Limit 30000, Used 29500, Requested 1200. Please try again in 1.4s."
)


def _many(*statuses: int, kind: str, type: str = "server_error") -> dict[str, Trouble]:
    return {
        str(status): Trouble(status, type, "Something went wrong on our side.", kind, type=type)
        for status in statuses
    }


OPENAI = {
    "rate": Trouble(
        429,
        "rate_limit_exceeded",
        _OF_TOKENS,
        "load",
        {"retry-after": "2", "retry-after-ms": "1400", "x-ratelimit-reset-tokens": "1.4s"},
        type="tokens",
    ),
    "slow_down": Trouble(429, "slow_down", "Please slow down.", "load", type="requests"),
    "quota": Trouble(
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
        "account",
        type="insufficient_quota",
    ),
    "no_credit": Trouble(
        429, "credit_balance_exhausted", "Your credit balance is used up.", "account"
    ),
    "key": Trouble(401, "invalid_api_key", "Incorrect API key provided.", "account"),
    "region": Trouble(
        403,
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
        "account",
        type="request_forbidden",
    ),
    **_many(500, kind="uncertain"),
    **_many(503, kind="load"),
    "context": Trouble(
        400,
        "context_length_exceeded",
        "This model's maximum context length is 131072 tokens.",
        "caller",
        param="messages",
    ),
    "invalid": Trouble(400, "invalid_value", "Invalid value.", "caller", param="messages"),
    "no_model": Trouble(
        404, "model_not_found", "The model does not exist or you do not have access.", "config"
    ),
    "size": Trouble(413, "request_too_large", "Request too large.", "caller"),
    "semantic": Trouble(422, "unprocessable", "Unprocessable.", "caller"),
}
ANTHROPIC = {
    "rate": Trouble(
        429,
        "rate_limit_error",
        "This request would exceed your organization's rate limit of 50 requests per minute.",
        "load",
        {**_AFTER, "anthropic-ratelimit-requests-remaining": "0"},
        type="rate_limit_error",
    ),
    "quota": Trouble(
        429,
        "enforced_spend_limit_reached",
        "enforced_spend_limit_reached: the spend limit of your workspace is reached.",
        "account",
        type="rate_limit_error",
    ),
    "529": Trouble(529, "overloaded_error", "Overloaded", "load", type="overloaded_error"),
    "500": Trouble(500, "api_error", "Internal server error", "uncertain", type="api_error"),
    "504": Trouble(504, "timeout_error", "Timed out", "uncertain", type="timeout_error"),
    "key": Trouble(
        401, "authentication_error", "invalid x-api-key", "account", type="authentication_error"
    ),
    "forbidden": Trouble(
        403,
        "permission_error",
        "Your API key does not have permission to use the specified resource.",
        "account",
        type="permission_error",
    ),
    "billing": Trouble(402, "billing_error", "Billing failed.", "account", type="billing_error"),
    "credit": Trouble(
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing "
        "to upgrade or purchase credits.",
        "account",
    ),
    "context": Trouble(
        400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", "caller"
    ),
    "invalid": Trouble(400, "invalid_request_error", "messages: invalid", "caller"),
    "no_model": Trouble(
        404, "not_found_error", "model: no such model", "config", type="not_found_error"
    ),
    "size": Trouble(
        413,
        "request_too_large",
        "Request exceeds the maximum size",
        "caller",
        type="request_too_large",
    ),
}
_RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}
_INFO = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "googleapis.com"}
GEMINI = {
    "rate": Trouble(
        429, "RESOURCE_EXHAUSTED", "Resource has been exhausted.", "load", details=(_RETRY,)
    ),
    "quota": Trouble(
        429,
        "quota_exceeded",
        "You exceeded your current quota: GenerateRequestsPerDayPerProjectPerModel.",
        "account",
    ),
    "500": Trouble(500, "INTERNAL", "An internal error has occurred.", "uncertain"),
    "503": Trouble(503, "UNAVAILABLE", "The model is overloaded.", "load"),
    "key": Trouble(
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
        "account",
        details=({**_INFO, "reason": "API_KEY_INVALID"},),
    ),
    "billing": Trouble(402, "FAILED_PRECONDITION", "Billing is off.", "account"),
    "forbidden": Trouble(403, "PERMISSION_DENIED", "Permission denied.", "account"),
    "context": Trouble(
        400,
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "caller",
    ),
    "invalid": Trouble(400, "INVALID_ARGUMENT", "Request contains an invalid argument.", "caller"),
    "no_model": Trouble(404, "NOT_FOUND", "models/none is not found for API version.", "config"),
}
GROQ = {
    "rate": Trouble(
        429, "rate_limit_exceeded", _OF_TOKENS, "load", {"retry-after": "2"}, type="tokens"
    ),
    "too_large_by_rate": Trouble(
        413,
        "rate_limit_exceeded",
        f"Request too large for model `gpt-oss-120b` in organization `{ORGANISATION}` on tokens "
        "per minute (TPM): Limit 8000, Requested 12000, please reduce your message size.",
        "load",
        type="tokens",
    ),
    "498": Trouble(
        498, "capacity_exceeded", "Flex tier capacity exceeded.", "load", type="server_error"
    ),
    **_many(500, 502, kind="uncertain", type="internal_server_error"),
    **_many(503, kind="load", type="service_unavailable"),
    "key": Trouble(401, "invalid_api_key", "Invalid API Key", "account"),
    "forbidden": Trouble(403, "forbidden", "Forbidden", "account"),
    "context": Trouble(
        400, "context_length_exceeded", "Please reduce the length of the messages.", "caller"
    ),
    "invalid": Trouble(400, "", "'messages' : minimum number of items is 1", "caller"),
    "no_model": Trouble(404, "model_not_found", "The model does not exist.", "config"),
    "made_up_tool": Trouble(
        422, "tool_use_failed", "Tool call validation failed: no such tool", "caller"
    ),
}
CEREBRAS = {
    "rate": Trouble(
        429,
        "request_quota_exceeded",
        "Requests per minute limit exceeded - too many requests sent.",
        "load",
        {"x-ratelimit-reset-requests-minute": "11.4"},
        param="quota",
        type="too_many_requests_error",
    ),
    **_many(500, kind="uncertain"),
    **_many(503, kind="load"),
    "key": Trouble(401, "wrong_api_key", "Wrong API Key", "account", param="api_key"),
    "billing": Trouble(402, "payment_required", "Payment required.", "account"),
    "forbidden": Trouble(403, "forbidden", "Forbidden", "account"),
    "context": Trouble(
        400,
        "context_length_exceeded",
        "Please reduce the length of the messages or completion.",
        "caller",
        param="messages",
    ),
    "invalid": Trouble(400, "wrong_api_format", "Invalid body", "caller", param="validation_error"),
    "no_model": Trouble(
        404, "model_not_found", "Model does not exist or you have no access.", "config", type=""
    ),
    "semantic": Trouble(422, "unprocessable", "Unprocessable.", "caller"),
}
DEEPINFRA = {
    "rate": Trouble(429, "rate_limit", "Model busy, retry later", "load", type="rate_limit"),
    "key": Trouble(401, "unauthorized", "User is not authenticated.", "account"),
    "billing": Trouble(402, "payment_required", "Please add funds.", "account"),
    **_many(500, kind="uncertain"),
    **_many(503, kind="load"),
    "invalid": Trouble(400, "bad_request", "Bad request.", "caller"),
    "no_model": Trouble(404, "model_not_found", "The model does not exist.", "config"),
    "semantic": Trouble(422, "missing", "Field required", "caller", param="messages"),
}
MISTRAL = {
    "rate": Trouble(
        429,
        "1300",
        "Requests rate limit exceeded",
        "load",
        {"Retry-After": "1"},
        type="rate_limited",
    ),
    **_many(500, 502, 504, kind="uncertain", type="internal_server_error"),
    **_many(503, kind="load", type="unreachable_backend"),
    "key": Trouble(401, "unauthorized", "Unauthorized", "account"),
    "billing": Trouble(402, "1800", "Payment required.", "account"),
    "forbidden": Trouble(403, "forbidden", "Forbidden", "account"),
    "context": Trouble(
        400,
        "3051",
        "Prompt contains 200000 tokens, too large for model with 131072 maximum context length",
        "caller",
    ),
    "invalid": Trouble(400, "3000", "Expected last role User or Tool", "caller"),
    "no_model": Trouble(404, "1500", "Invalid model", "config", type="invalid_model"),
    "semantic": Trouble(422, "missing", "Field required", "caller", param="messages"),
}
XAI = {
    "rate": Trouble(
        429, "Some resource has been exhausted", "Too many requests for team.", "load", _AFTER
    ),
    **_many(500, kind="uncertain", type="Internal error"),
    **_many(503, kind="load", type="The service is currently unavailable"),
    "key": Trouble(401, "unauthenticated", "No credentials provided.", "account"),
    "wrong_key": Trouble(
        400,
        "Client specified an invalid argument",
        "Incorrect API key provided: xa***le. You can obtain an API key from https://console.x.ai.",
        "account",
    ),
    "forbidden": Trouble(
        403,
        "The caller does not have permission to execute the specified operation",
        "Your team has either used all available credits or reached its monthly spending limit.",
        "account",
    ),
    "context": Trouble(
        400,
        "Client specified an invalid argument",
        "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
        "caller",
    ),
    "invalid": Trouble(400, "Client specified an invalid argument", "Bad argument.", "caller"),
    "no_model": Trouble(
        404, "Some requested entity was not found", "The model does not exist.", "config"
    ),
    "semantic": Trouble(422, "unprocessable", "Failed to deserialize the JSON body.", "caller"),
}
OPENROUTER = {
    "rate": Trouble(429, "rate_limit_exceeded", "Provider returned error", "load", _AFTER),
    "in_flight": Trouble(
        402,
        "payment_required",
        "This request would exceed your available credits given your current in-flight requests. "
        "Retry after in-flight requests settle, or add credits.",
        "load",
        _AFTER,
        details=({"limit_source": "openrouter_in_flight_budget"},),
    ),
    "502": Trouble(502, "provider_unavailable", "Provider returned error", "uncertain"),
    "503": Trouble(503, "provider_unavailable", "No provider is available", "load"),
    "524": Trouble(524, "timeout", "Provider timed out", "uncertain"),
    "529": Trouble(529, "provider_overloaded", "Provider overloaded", "load"),
    "key": Trouble(401, "authentication", "User not found.", "account"),
    "credit": Trouble(402, "payment_required", "Insufficient credits.", "account"),
    "context": Trouble(
        400,
        "context_length_exceeded",
        "This endpoint's maximum context length is 131072 tokens.",
        "caller",
    ),
    "invalid": Trouble(400, "invalid_request", "Bad request", "caller"),
    "moderated": Trouble(403, "content_policy_violation", "Your input was flagged.", "caller"),
    "no_model": Trouble(400, "invalid_request", "it is not a valid model ID", "config"),
    "no_host": Trouble(404, "not_found", "No endpoints found matching your data policy.", "caller"),
    "size": Trouble(413, "payload_too_large", "Payload too large", "caller"),
    "semantic": Trouble(422, "unprocessable", "Unprocessable", "caller"),
}
