"""Where we listen, whose forwarding headers we believe, what we send to, and where we count."""

from __future__ import annotations

import re
import ssl
from functools import partial
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import chain
from urllib.parse import SplitResult, unquote, urlsplit

from keyproxy.dataclass import dataclass
from keyproxy.installation import line_for
from keyproxy.key_forms import Secret
from keyproxy.settings.grammar import NotInstalled, Unfit, each

Network = IPv4Network | IPv6Network

_LISTEN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):([0-9]{1,5})")

# "private" is what Express calls uniquelocal (RFC 1918, RFC 4193): loopback has its own word.
_NETWORK_WORDS = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}
_STORAGE_PORT = 6379
# Both speak one protocol; an s at the end means TLS.
_STORAGE_SCHEMES = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
# Not user:password@ behind the slashes: what stands there is masked.
_STORAGE = (
    "memory://, or redis://host:port/database (rediss:// with TLS; user:password@ before the host)"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. ``host``: "" is every address, "localhost" 127.0.0.1 and ::1."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether ``host`` (IPv6 with or without brackets) can only be this computer."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"  # what lies below it, name servers may answer for
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _address(usual_port: int, text: str) -> Address:
    every, here = f":{usual_port}", f"localhost:{usual_port}"
    expected = f"host:port such as {here}, {every} (every address) or [::1]:{usual_port}"
    match = _LISTEN.fullmatch(text)
    if not match:
        is_port, is_host = re.fullmatch(r"\d{1,5}", text), re.fullmatch(r"[A-Za-z][\w.-]*", text)
        value = f"localhost:{text}" if is_port else f"{text}{every}" if is_host else None
        raise Unfit(expected, value=every if text.startswith("*:") else value)
    host, port = match[1].lower(), int(match[2])
    if host.startswith("["):
        try:
            host = ip_address(host[1:-1]).compressed
        except ValueError as error:
            raise Unfit(expected) from error
    if port > 65535:
        raise Unfit(f"{expected}; a port is at most 65535")
    return Address(host, port)


addresses = each(partial(_address, 8484))
"""``host:port``, several by comma."""
ADMIN_PORT = 8485
admin_addresses = each(partial(_address, ADMIN_PORT), none="off")
"""The same for those who watch; or ``off``."""


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(_network(part) for part in _NETWORK_WORDS.get(text, (text,)))


def _network(text: str) -> Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise Unfit("CIDRs such as 10.0.0.0/8, loopback, private, or none") from error
    if network.prefixlen == 0:
        raise Unfit(
            "the networks of your own proxies; who trusts every address lets each caller name"
            " its own (where the platform has no fixed address: KEYPROXY_TRUSTED_HOPS)"
        )
    if "/" in text and ip_network(network).network_address != ip_address(text.split("/")[0]):
        raise Unfit(f"a network; {text} has bits set behind its mask", value=str(network))
    return network


def networks(text: str) -> tuple[Network, ...]:
    """CIDRs, single addresses and the words ``loopback`` and ``private``; or ``none``."""
    return tuple(dict.fromkeys(chain.from_iterable(each(_networks, none="none")(text))))


def _base(text: str, expected: str, danger: str = "") -> str:
    parts = web_address(text.rstrip("/"), expected, danger, "#?")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}"


upstream = partial(
    _base,
    expected="an https:// base address such as https://openrouter.ai/api/v1",
    danger="would send the key in clear",
)
"""A base address without trailing slash; https, unless its host is this computer."""
base_address = partial(
    _base, expected="an https:// base address such as https://llm.example.net/v1"
)
"""The same with TLS or without."""


def is_local(base: str) -> bool:
    """Whether a base address is one of this computer."""
    return is_loopback(urlsplit(base).hostname or "")


def alert_url(text: str) -> Secret:
    """Where alerts go; https, unless its host is this computer. Whoever knows such an address may
    write there, so nothing of it is repeated."""
    expected = "an https:// address such as https://hooks.example/keyproxy"
    try:
        web_address(text, expected, "would send alerts in clear")
    except Unfit as unfit:
        raise Unfit(unfit.expected, found=unfit.found or "set (not shown)") from None
    return Secret(text)


def is_openrouter(base: str) -> bool:
    """Whether a base address is OpenRouter's own, in any region."""
    host = urlsplit(base).hostname or ""
    return host == "openrouter.ai" or host.endswith(".openrouter.ai")


def upstream_proxy(text: str) -> Secret:
    """``env``, or an ``http://`` proxy with its port."""
    if text == "env":
        return Secret(text)
    expected = "env, or http://[user:password@]host:port and nothing behind the port"
    found = "set (not shown, it may hold a password)"
    try:
        parts = _split(text, expected)
    except Unfit as unfit:
        raise Unfit(expected, found=found) from unfit
    behind = parts.path.removeprefix("/") + parts.query + parts.fragment
    if parts.scheme != "http" or parts.port is None or behind:
        raise Unfit(expected, found=found)
    return Secret(text.rstrip("/"))


def certificates(pem: bytes) -> None:
    """Raises unless ``pem`` holds at least one CA certificate."""
    expected = "a file of CA certificates in PEM form"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise Unfit(expected, found="a file without a readable certificate") from error
    if not context.get_ca_certs():
        raise Unfit(expected, found="a file without a CA certificate")


def web_address(text: str, expected: str, danger: str = "", without: str = "#") -> SplitResult:
    """The parts of an address with a host, a valid port and no user, ``without`` these marks.

    Where http means ``danger``, it is https, unless its host is this computer.
    """
    parts = _split(text, expected)
    if parts.username is not None or parts.password is not None:
        raise Unfit(f"{expected}, without user or password", found="an address with a user")
    if odd := set(without) & set(text):
        raise Unfit(f"{expected}, without {min(odd)}")
    if danger and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise Unfit(f"{expected}; http:// {danger}", value="https" + text[len("http") :])
    return parts


def _split(text: str, expected: str) -> SplitResult:
    """The parts of an http(s) address with a host and a valid port."""
    try:
        parts = urlsplit(text)
        is_whole = bool(re.fullmatch(r"[!-~]+", text) and parts.hostname) and parts.port != 0
    except ValueError as error:
        raise Unfit(expected) from error
    if not is_whole or parts.scheme not in {"http", "https"}:
        raise Unfit(expected)
    return parts


@dataclass(frozen=True, slots=True)
class StorageServer:
    """A Redis or Valkey that many processes count in. ``user`` without a password is none."""

    host: str
    port: int
    database: int
    user: str | None
    password: Secret | None
    has_tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.database}"


def storage(text: str) -> StorageServer | None:
    """A shared storage, or None for ``memory://``. Percent escapes count in user and password.

    Nothing of the text is repeated: it may hold a password.
    """
    text = text.strip()  # a file ends with a line end
    if text == "memory://":
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise Unfit(_STORAGE, found="no address") from error
    host, found = parts.hostname or "", None
    if parts.scheme not in _STORAGE_SCHEMES:
        found = "no address of a storage"
    elif not re.fullmatch(r"[!-~]+", text) or not host or port == 0:
        found = "an address without a usable host and port"
    elif "?" in text or "#" in text:
        found = "an address with ? or # in it (in a password: %3F, %23)"
    elif not re.fullmatch(r"(?:/[0-9]{0,4})?", parts.path):
        found = "an address whose database is no number"
    elif parts.username and not parts.password:
        found = "an address with a user and without a password (redis://user:password@host)"
    if found:
        raise Unfit(_STORAGE, found=found)
    if find_spec("redis") is None:
        raise NotInstalled(
            f"keyproxy with its extra for shared storages, or {_STORAGE.partition(',')[0]}",
            found="a shared storage, and its client is not installed",
            line=line_for("redis"),
            value="memory://",
        )
    return StorageServer(
        host=host,
        port=_STORAGE_PORT if port is None else port,
        database=int(parts.path.strip("/") or 0),
        user=unquote(parts.username) if parts.username else None,
        password=Secret(unquote(parts.password)) if parts.password else None,
        has_tls=_STORAGE_SCHEMES[parts.scheme],
    )
