"""The Host names and browser origins a setting may list.

Origins are written as browsers send them (RFC 6454, section 6.2); those of shells and extensions
(``app://-``, ``safari-web-extension://14…5E``) are kept byte for byte. A wildcard must end in a
name that only one party can give out: public and shared suffixes are those of
publicsuffix.org, its private section (vercel.app, github.io …) included.
"""

from __future__ import annotations

import re
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from keyproxy.settings.grammar import Unfit, each
from keyproxy.settings.grammar.network import is_loopback

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

ANY_IP = "any-ip"
_ORIGIN_WORDS = ("localhost", "null", "*")
FILE = "file://"
EXTENSIONS = ("moz-extension", "safari-web-extension", "vscode-webview")
"""Schemes whose host differs with each installation, so that ``SCHEME://*`` is taken."""
ANY_EXTENSION = tuple(f"{scheme}://*" for scheme in EXTENSIONS)
_DEFAULT_PORTS = {"http": "80", "https": "443"}

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PATTERN = re.compile(r"[a-z0-9_*-]{1,63}(?:\.[a-z0-9_*-]{1,63})*")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{1,5}))?")
_OTHER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,40})://([A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")


def hosts(text: str) -> tuple[str, ...]:
    """Host names in lower case, each with its port where one was given."""
    return each(_host)(text.lower())


def _host(text: str) -> str:
    host = _host_in(text)
    if host is None:
        bare = re.sub(r"^[a-z]+://|/.*$", "", text)
        raise Unfit(
            "host names such as api.example.com, *.mine.example, localhost, or any-ip (any IP"
            " literal); no scheme, no path; with :port only to allow that port alone",
            value=bare if _host_in(bare) else None,
        )
    return host


def _host_in(text: str) -> str | None:
    if text == ANY_IP:
        return text
    match = _HOST.fullmatch(text)
    name = _name(match[1]) if match else None
    if match is None or name is None or not _is_port(match[2]):
        return None
    if name.startswith("*."):
        _check_wildcard(name)
    elif "*" in name:
        return None
    return name if match[2] is None else f"{name}:{int(match[2])}"


def _is_port(digits: str | None) -> bool:
    """Whether an address may end with this port, or with none."""
    return digits is None or 0 < int(digits) < 65536


def _name(text: str) -> str | None:
    """A host name, pattern or IP literal in the form that browsers send; None if it is none."""
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        is_name = (_PATTERN if "*" in text else _NAME).fullmatch(text)
        return text if is_name and len(text) < 254 else None
    if (address.version == 6) != text.startswith("["):
        return None
    return f"[{address.compressed}]" if address.version == 6 else address.compressed


def _origin(item: str) -> str:
    text = item.lower()
    if text in _ORIGIN_WORDS:
        return text
    if not text.startswith(("http:", "https:")):
        return _other_origin(item)
    match = _ORIGIN.fullmatch(text)
    host = _name(match[2]) if match else None
    if match is None or host is None or not _is_port(match[3]):
        raise _no_origin(text)
    scheme, port = match[1], match[3]
    if "*" in host:
        _check_wildcard(host)
    keeps_port = port and str(int(port)) != _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{host}:{int(port)}" if keeps_port else f"{scheme}://{host}"


origins = each(_origin, none="none")
"""Origins as browsers send them, patterns, and the words; ``none`` is no origin at all."""


def _other_origin(item: str) -> str:
    """The origin of a shell or an extension: no two browsers agree on their form."""
    if item == FILE or item in ANY_EXTENSION:
        return item
    scheme = item.partition(":")[0].lower()
    if scheme == "file":
        raise Unfit(f"{FILE} and nothing behind it; most browsers send null for a file", value=FILE)
    match = _OTHER.fullmatch(item)
    if match and _is_port(match[3]):
        return item
    if "*" in item and "://" in item:
        raise Unfit(
            f"an exact origin; SCHEME://* stands for {', '.join(EXTENSIONS)} only, whose host"
            " differs with each installation"
        )
    raise _no_origin(item)


def _no_origin(text: str) -> Unfit:
    """What to say of a text that is no origin, with the origin inside it where there is one."""
    if re.search(r":\*$", text):
        return Unfit("an exact port; the word localhost stands for any port of this computer")
    head = _ORIGIN.match(text) or _OTHER.match(text)
    if head and text[head.end() :].startswith(("/", "?", "#")):
        return Unfit(
            "scheme://host[:port] with nothing behind it, not even a slash", value=head.group()
        )
    is_bare = re.fullmatch(rf"({_LABEL}(?:\.{_LABEL})*)(:\d{{1,5}})?", text.lower())
    if is_bare:
        scheme = "http" if is_loopback(is_bare[1]) else "https"
        return Unfit("scheme://host[:port]", value=f"{scheme}://{text.lower()}")
    return Unfit(
        "scheme://host[:port] as browsers send it, the words localhost, null, * or none, or a"
        " pattern such as https://*.mine.example"
    )


def _check_wildcard(host: str) -> None:
    """Raises unless the ``*`` of ``host`` stands in front of a name that has one owner."""
    labels = host.split(".")
    if host.count("*") != 1:
        raise Unfit("one * at most")
    position = next(n for n, label in enumerate(labels) if "*" in label)
    label, rest = labels[position], ".".join(labels[position + 1 :])
    if is_loopback(rest):
        return
    if not rest or _suffixes(only_icann=True).is_public(rest):
        raise Unfit(
            "a * in front of a domain of your own; anybody can register a name that fits this"
        )
    if _suffixes(only_icann=False).is_public(rest) and (
        label.startswith("*") or label.endswith("*")
    ):
        raise Unfit(
            f"fixed text on both sides of the *, such as myapp-*-team.{rest}: {rest} is shared,"
            " anybody can get a name under it"
        )


@cache
def _suffixes(only_icann: bool) -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # a list of 10,000 names; wildcards only

    return PublicSuffixList(only_icann=only_icann)


def origins_of_hosts(allowed_hosts: tuple[str, ...]) -> tuple[str, ...]:
    """``https://`` in front of each host; the word for IP literals has no origin."""
    return tuple(_origin(f"https://{host}") for host in allowed_hosts if host != ANY_IP)
