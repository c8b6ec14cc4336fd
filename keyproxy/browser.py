"""Host, Origin and preflight: may this browser page talk to us at all?

Decisions only, no I/O. A Host that is not listed is DNS rebinding (a page that made its own
name point here); an Origin that is not listed is somebody else's page. CORS alone would
only hide the answer from such a page, after the money has been spent, so both are refused.

Sources: Fetch standard (CORS protocol, Sec-Fetch-Site), RFC 9110 7.2 (Host).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from multidict import CIMultiDictProxy

from keyproxy.errors import Refusal
from keyproxy.settings.grammar import Unfit
from keyproxy.settings.grammar.origins import origins as parsed
from keyproxy.settings.lines import is_safe

EXPOSED_HEADERS = (
    "X-Request-Id",
    "X-Keyproxy-Code",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "x-should-retry",
    "X-Keyproxy-Provider",
    "X-Keyproxy-Attempts",
    "X-Keyproxy-Removed",
)
"""What a page may read of our own fields besides the CORS-safelisted ones; and all that pass."""

PREFLIGHT_VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
MAX_AGE_SECONDS = 7200  # Chromium's own upper bound; Firefox allows 86400
MAX_REQUESTED_HEADERS = 64  # the openai SDK with every option asks for 14
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 5.6.2, bounded
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
# What ``*`` stands for: one origin in the form of RFC 6454 6.2 (WebViews send "file://").
_ANY_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]{0,40}://[A-Za-z0-9._~:%\[\]-]{0,255}")
_ANY = "[a-z0-9-]+"
_ANY_HOST = "[A-Za-z0-9._-]{1,253}"  # of an extension; a name never ends in a wildcard
_LONGEST, _MOST_KEPT = 320, 256  # a host's name has 253 characters
_LOOPBACK_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://"
    r"(?:(?:[a-z0-9-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?"
)
_WORDS = {"*": _ANY_ORIGIN, "localhost": _LOOPBACK_ORIGIN}


class HostRules:
    """Which ``Host`` values are ours. An entry without a port matches any port.

    ``*.name`` matches every name below ``name``; ``any-ip`` every address literal, because a
    page cannot make a name of its own resolve to one.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self._any_ip = "any-ip" in entries
        self._suffixes = tuple(entry[1:] for entry in entries if entry.startswith("*."))
        self._exact = frozenset(entries) - {"any-ip"}
        self._known = lru_cache(maxsize=_MOST_KEPT)(self._look_up)

    def allows(self, value: str) -> bool:
        return len(value) <= _LONGEST and self._known(value)

    def _look_up(self, value: str) -> bool:
        match = _HOST.fullmatch(value.lower())
        if match is None:
            return False
        name, port = match.groups()
        candidates = (name,) if port is None else (name, f"{name}:{port}")
        if any(candidate in self._exact for candidate in candidates):
            return True
        if any(c.endswith(suffix) for c in candidates for suffix in self._suffixes):
            return True
        return self._any_ip and _is_ip_literal(name)


def _is_ip_literal(name: str) -> bool:
    """0.0.0.0 and mapped spellings are left out: browsers reach loopback by them."""
    try:
        address = ipaddress.ip_address(name.strip("[]") if name.startswith("[") else name)
    except ValueError:
        return False
    is_mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    return not address.is_unspecified and not is_mapped


class OriginRules:
    """Which ``Origin`` values are ours; compared whole, as browsers send them."""

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        globs = [entry for entry in entries if "*" in entry or entry in _WORDS]
        self._exact = frozenset(entries) - {*globs, ""}
        self._patterns = tuple(
            _WORDS.get(glob)
            or re.compile(re.escape(glob).replace(r"\*", _ANY_HOST if glob[-1] == "*" else _ANY))
            for glob in globs
        )
        self._known = lru_cache(maxsize=_MOST_KEPT)(self._look_up)

    def allows(self, origin: str) -> bool:
        return len(origin) <= _LONGEST and self._known(origin)

    def _look_up(self, origin: str) -> bool:
        return origin in self._exact or any(each.fullmatch(origin) for each in self._patterns)


class Browser:
    """The guard every call passes first."""

    def __init__(
        self,
        hosts: Iterable[str],
        origins: Iterable[str],
        *,
        listed: Iterable[str] | None = None,
        has_page: bool = False,
    ) -> None:
        """``listed``: the part of ``origins`` that the line to paste would add to, if not all.

        ``has_page``: we serve a page ourselves, which may call us wherever it was opened.
        """
        self._host_list, origins = tuple(hosts), tuple(origins)
        self._origin_list = origins if listed is None else tuple(listed)
        self._hosts = HostRules(self._host_list)
        self._origins = OriginRules(origins)
        self._has_page = has_page

    def check_host(self, headers: CIMultiDictProxy[str]) -> None:
        """Raises ``host_not_allowed`` unless there is one Host and it is listed."""
        hosts = headers.getall("Host", [])
        if len(hosts) != 1 or not self._hosts.allows(hosts[0]):
            raise Refusal(
                "host_not_allowed",
                "This address does not answer under the host name that was asked for.",
                hint=self._host_line(hosts),
            )

    def check_origin(self, headers: CIMultiDictProxy[str]) -> None:
        """Raises ``origin_not_allowed`` for a page that is not one of ours.

        No ``Origin`` at all is an app, a server or a same-origin GET, unless the browser
        itself says that the request crosses sites.
        """
        if self.allowed_origin(headers) is not None:
            return
        origins = headers.getall("Origin", [])
        sites = (site.strip() for site in headers.getall("Sec-Fetch-Site", []))
        if origins or "cross-site" in sites:
            raise self._refused(origins)

    def allowed_origin(self, headers: CIMultiDictProxy[str]) -> str | None:
        """The one origin that may read the answer, or nothing."""
        origins = headers.getall("Origin", ())
        if len(origins) != 1:
            return None
        if self._origins.allows(origins[0]) or self._is_our_page(origins[0], headers):
            return origins[0]
        return None

    def _is_our_page(self, origin: str, headers: CIMultiDictProxy[str]) -> bool:
        """An allowed Host is ours, so a page that came from it is."""
        host = headers.get("Host", "")
        is_ours = origin in (f"http://{host}", f"https://{host}")
        return self._has_page and is_ours and self._hosts.allows(host)

    def preflight(self, headers: CIMultiDictProxy[str]) -> Mapping[str, str]:
        """The headers that answer a CORS preflight.

        The requested header names are reflected, since SDKs add names faster than lists are
        kept; what goes up is decided elsewhere, by a list of its own.
        Raises ``origin_not_allowed``, ``bad_request``.
        """
        origin = self.allowed_origin(headers)
        if origin is None:
            raise self._refused(headers.getall("Origin", []))
        answer = {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
            "Vary": PREFLIGHT_VARY,
        }
        requested = ",".join(headers.getall("Access-Control-Request-Headers", []))
        names = [name.strip() for name in requested.split(",") if name.strip()]
        if len(names) > MAX_REQUESTED_HEADERS or not all(map(_TOKEN.fullmatch, names)):
            raise Refusal("bad_request", "The preflight asks for header names that are not plain.")
        if names:
            answer["Access-Control-Allow-Headers"] = ", ".join(names)
        return answer

    def _refused(self, origins: list[str]) -> Refusal:
        unsaid = "a page of another site called without an Origin"
        return Refusal(
            "origin_not_allowed",
            "Pages of this origin may not use this address.",
            hint=self._origin_line(origins) if origins else unsaid,
        )

    def _host_line(self, hosts: list[str]) -> str | None:
        """The setting with the name of the one Host added, where that would let it in."""
        match = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        if match is None or not is_safe(match[1]) or not HostRules([match[1]]).allows(hosts[0]):
            return None
        return f"KEYPROXY_ALLOWED_HOSTS={','.join((*self._host_list, match[1]))}"

    def _origin_line(self, origins: list[str]) -> str | None:
        """The setting with the one origin added, where that would let its pages in."""
        if len(origins) != 1 or not is_safe(origins[0]) or not _is_whole(origins[0]):
            return None
        return f"KEYPROXY_ALLOWED_ORIGINS={','.join((*self._origin_list, origins[0]))}"


def is_preflight(method: str, headers: CIMultiDictProxy[str]) -> bool:
    return (
        method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers
    )


def _is_whole(origin: str) -> bool:
    """Whether the settings take a page's origin as itself: no word, no pattern, no other form."""
    try:
        return "://" in origin and "*" not in origin and parsed(origin) == (origin,)
    except Unfit:
        return False
