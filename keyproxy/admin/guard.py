"""Who may look: a known Host, no page but our own, and the token where there is one. No I/O.

A page of another origin, were it the chat page on the next port, must not read figures: a browser
says where a request comes from. A Host that is not listed is DNS rebinding. Cookies count for
nothing, since they ignore ports. Sources: Fetch Metadata (Sec-Fetch-Site), RFC 6750 2.1.
"""

from __future__ import annotations

from multidict import CIMultiDictProxy

from keyproxy.browser import HostRules
from keyproxy.errors import Refusal
from keyproxy.key_forms import is_same
from keyproxy.settings import Settings


def check_host(headers: CIMultiDictProxy[str], settings: Settings) -> None:
    """Raises ``host_not_allowed`` unless there is one Host and it is listed."""
    hosts = headers.getall("Host", [])
    if len(hosts) != 1 or not HostRules(settings.admin_hosts).allows(hosts[0]):
        raise Refusal(
            "host_not_allowed",
            "This address does not answer under the host name that was asked for"
            " (KEYPROXY_ADMIN_HOSTS).",
        )


def check_method(method: str) -> None:
    """Raises ``method_not_allowed`` for whatever does not only read."""
    if method not in ("GET", "HEAD"):
        raise Refusal(
            "method_not_allowed", "Nothing can be changed here.", headers={"Allow": "GET, HEAD"}
        )


def check_reader(headers: CIMultiDictProxy[str], settings: Settings) -> None:
    """May these figures be read? Raises ``origin_not_allowed``, ``credential_missing`` and
    ``credential_invalid``. A Host that is ours was seen before."""
    own = headers["Host"]
    sites = [site.strip() for site in headers.getall("Sec-Fetch-Site", [])]
    origins = headers.getall("Origin", [])
    is_own = all(site == "same-origin" for site in sites)
    if not is_own or not set(origins) <= {f"http://{own}", f"https://{own}"}:
        raise Refusal(
            "origin_not_allowed",
            "Figures are shown to the dashboard at / and to programs, not to other pages.",
        )
    if (token := settings.admin_token) is None:
        return
    scheme, _, shown = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Refusal(
            "credential_missing",
            "Figures need a bearer token, the one in KEYPROXY_ADMIN_TOKEN_FILE.",
        )
    if not is_same(shown.strip(), token.reveal()):
        raise Refusal("credential_invalid", "This is not the token of KEYPROXY_ADMIN_TOKEN_FILE.")
