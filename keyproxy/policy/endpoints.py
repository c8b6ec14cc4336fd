"""Which method and path is served: exact, on the raw request target.

Nothing is decoded or normalised on the way to the decision, so that no two readers of a
path can disagree about it. In the two catalogue templates only ``%3A`` and ``%7E`` are read
(as ``:`` and ``~``), because an SDK writes them so. A path that is refused is then read loosely,
for advice on a base URL that is not quite right; the slips are those of the public trackers of
SDKs and apps: a path twice, a slash too many, another base.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from keyproxy.call import BASE, Endpoint
from keyproxy.dialects import CATALOGUE, DIALECTS, names
from keyproxy.errors import Refusal
from keyproxy.settings import KNOWN_ENDPOINTS

_DIALECTS = {f"{BASE}{dialect.path}": dialect for dialect in DIALECTS}
KNOWN = tuple(
    Endpoint(method, path, CATALOGUE if method == "GET" else _DIALECTS[path])
    for method, path in map(str.split, KNOWN_ENDPOINTS)
)
"""Every endpoint that can be served at all; account routes are not among them."""

LIST_PARAMETERS = frozenset(
    {"limit", "offset", "category", "supported_parameters", "output_modalities"}
)
_AUTHOR = r"(?P<author>(?=[^/]*[A-Za-z0-9])(?:[A-Za-z0-9._~-]|%7[Ee]){1,100})"
_SLUG = r"(?P<slug>(?=[^/]*[A-Za-z0-9])(?:[A-Za-z0-9._~:-]|%7[Ee]|%3[Aa]){1,200})"
_NUMBER = re.compile(r"=[0-9]{1,6}")
_QUERY_VALUE = re.compile(r"=(?:[A-Za-z0-9_.,~-]|%2[Cc]){1,300}")

ACCOUNT = "Routes of the provider account are never served."
OPENAI = (
    "The base URL ends in /api/v1 and the SDK adds the rest, such as /chat/completions; no slash"
    " and no endpoint stands behind it."
)
ANTHROPIC = (
    "Anthropic's SDK wants the base URL to end in /api with nothing behind it, and adds"
    " /v1/messages itself."
)
_LONGEST_MISPLACED = 300
_ACCOUNT = names(
    "activity analytics auth byok containers credits external-users files generation guardrails"
    " interns key keys oauth observability organization presets private-endpoints scim vault"
    " workspaces"
)
# In front of an endpoint: parts of anybody's base URL, and endpoints typed into one.
_BEFORE = names(
    "api v1 v2 v3 v1beta beta openai anthropic openrouter inference compatible-mode proxy llm"
    " chat completions responses messages models embeddings rerank images audio speech"
    " transcriptions http: https: openrouter.ai api.openai.com api.anthropic.com"
)
_BASE = names("api v1")
_RUN_TOGETHER = re.compile(r"/(api|v1)(?=(?:v1|chat|responses|messages|embeddings|models)(?:/|$))")
# OpenAI's old paths and Azure's: a name of a model or a deployment follows.
_NAMED = names("engines deployments")
_ENDPOINTS = sorted(
    [tuple(dialect.path[1:].split("/")) for dialect in DIALECTS]
    + [("chat",), ("models",), ("models", "count")],
    key=len,
    reverse=True,
)


class Endpoints:
    """The endpoints of one configuration."""

    def __init__(self, allowed: Iterable[str], *, is_local: bool = False) -> None:
        """``allowed``: names such as ``POST /api/v1/chat/completions``, all of ``KNOWN``.

        ``is_local``: the address that callers use is the one that we listen on, by HTTP.
        """
        self._is_local = is_local
        names = frozenset(allowed)
        served = [endpoint for endpoint in KNOWN if endpoint.name in names]
        self._exact: Mapping[str, Endpoint] = {e.path: e for e in served if "{" not in e.path}
        self._templates = tuple((_pattern(e.path), e) for e in served if "{" in e.path)
        self._names = tuple(endpoint.name for endpoint in served)

    def find(self, method: str, target: str, host: str = "") -> tuple[Endpoint, str, str]:
        """The endpoint, its path as it goes up, and the query (checked).

        ``host`` is the checked Host, for advice.
        Raises ``endpoint_not_allowed``, ``method_not_allowed``, ``query_not_allowed``.
        """
        path, mark, query = target.partition("?")
        endpoint = self._exact.get(path)
        if endpoint is None:
            endpoint, path = self._match(path, host)
        if endpoint.method != method:
            raise Refusal(
                "method_not_allowed",
                f"This path answers {endpoint.method} only.",
                headers={"Allow": f"{endpoint.method}, OPTIONS"},
            )
        if mark:
            _check_query(endpoint, query)
        return endpoint, path, query

    def _match(self, path: str, host: str) -> tuple[Endpoint, str]:
        for pattern, endpoint in self._templates:
            if match := re.fullmatch(pattern, path):
                author, slug = (_plain(match[name]) for name in ("author", "slug"))
                return endpoint, endpoint.path.format(author=author, slug=slug)
        raise self._not_served(path, host)

    def _not_served(self, path: str, host: str) -> Refusal:
        known = next((endpoint for endpoint in KNOWN if endpoint.path == path), None)
        if known is not None:
            return Refusal(
                "endpoint_not_allowed",
                "This endpoint is not open here.",
                hint=f"KEYPROXY_ALLOWED_ENDPOINTS={','.join((*self._names, known.name))}",
            )
        sentence, base = _advice(path)
        message = f"There is no such endpoint here. {sentence}".rstrip()
        hint = f"the base URL is http://{host}{base}" if base and host and self._is_local else None
        return Refusal("endpoint_not_allowed", message, hint=hint)


def _pattern(template: str) -> str:
    return re.escape(template).replace(r"\{author\}", _AUTHOR).replace(r"\{slug\}", _SLUG)


def _plain(segment: str) -> str:
    return re.sub("%3a", ":", re.sub("%7e", "~", segment, flags=re.I), flags=re.I)


def _check_query(endpoint: Endpoint, query: str) -> None:
    if query and query == endpoint.dialect.query:
        return
    refusal = Refusal(
        "query_not_allowed",
        "This call takes no query string."
        if endpoint.method == "POST" or "{" in endpoint.path
        else f"The query may hold {', '.join(sorted(LIST_PARAMETERS))}, each once.",
    )
    pairs = [pair.partition("=") for pair in query.split("&")]
    is_fit = all(
        name in LIST_PARAMETERS
        and (_NUMBER if name in ("limit", "offset") else _QUERY_VALUE).fullmatch(mark + value)
        for name, mark, value in pairs
    )
    is_once = len({name for name, _, _ in pairs}) == len(pairs)
    if endpoint.path not in (f"{BASE}/models", f"{BASE}/models/count") or not (is_fit and is_once):
        raise refusal


def _advice(path: str) -> tuple[str, str]:
    """A sentence for whoever asked for ``path``, and the end of the right base URL; "" is none."""
    if len(path) > _LONGEST_MISPLACED:
        return "", ""
    text = path.lower().replace("%2f", "/").replace("%20", "")
    text = _RUN_TOGETHER.sub(r"/\1/", text)
    parts = tuple(part for part in text.split("/") if part)
    first = next((part for part in parts if part not in _BASE), None)
    if first in _ACCOUNT:
        return ACCOUNT, ""
    if parts and first is None:
        return f"{OPENAI} {ANTHROPIC}", "/api/v1"
    tail = next((tail for tail in _ENDPOINTS if parts[-len(tail) :] == tail), None)
    if tail is None or not _is_base(parts[: -len(tail)]):
        return "", ""
    if tail == ("messages",):
        return ANTHROPIC, "/api"
    if tail == ("models",):  # either SDK lists them
        return f"{OPENAI} {ANTHROPIC}", "/api/v1"
    return OPENAI, "/api/v1"


def _is_base(parts: tuple[str, ...]) -> bool:
    """Whether somebody could have taken ``parts`` for a base URL."""
    before = ""
    for part in parts:
        if part not in _BEFORE | _NAMED and before not in _NAMED:
            return False
        before = part
    return True
