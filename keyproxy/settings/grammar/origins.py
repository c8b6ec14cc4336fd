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

from keyproxy.settings.grammar import Unfit, items, shown
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
    entries = items(text.lower())
    fixed = [_host(host) for host in entries]
    wrong = [host for host, right in zip(entries, fixed, strict=True) if right is None]
    if wrong or not entries:
        expected = (
            "host names such as api.example.com, *.mine.example, localhost, or any-ip (any IP"
            " literal); no scheme, no path; with :port only to allow that port alone"
        )
        bare = [re.sub(r"^[a-z]+://|/.*$", "", host) for host in entries]
        is_cure = bool(entries) and all(_host(host) for host in bare)
        raise Unfit(expected, found=_list(wrong), value=",".join(bare) if is_cure else None)
    return tuple(dict.fromkeys(host for host in fixed if host is not None))


def _host(text: str) -> str | None:
    if text == ANY_IP:
        return text
    match = _HOST.fullmatch(text)
    name = _name(match[1]) if match else None
    if match is None or name is None or (match[2] and not 0 < int(match[2]) < 65536):
        return None
    if name.startswith("*."):
        _check_wildcard(text, name)
    elif "*" in name:
        return None
    return name if match[2] is None else f"{name}:{int(match[2])}"


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


def origins(text: str) -> tuple[str, ...]:
    """Origins as browsers send them, patterns, and the words; ``none`` is no origin at all."""
    if text == "none":
        return ()
    entries = items(text)
    if not entries:
        raise Unfit("origins such as https://app.example.com, localhost, null, *, or none")
    fixed: list[str] = []
    trouble: Unfit | None = None
    for item in entries:
        try:
            fixed.append(_origin(item))
        except Unfit as unfit:
            trouble = trouble or Unfit(unfit.expected, found=unfit.found or shown(item))
            if unfit.value is not None:
                fixed.append(unfit.value)
    if trouble:
        # Only a whole list is worth pasting.
        trouble.value = ",".join(fixed) if len(fixed) == len(entries) else None
        raise trouble
    return tuple(dict.fromkeys(fixed))


def _origin(item: str) -> str:
    text = item.lower()
    if text in _ORIGIN_WORDS:
        return text
    if not text.startswith(("http:", "https:")):
        return _other_origin(item)
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise _no_origin(text)
    scheme, host, port = match[1], _name(match[2]), match[3]
    if host is None or (port and not 0 < int(port) < 65536):
        raise _no_origin(text)
    if "*" in host:
        _check_wildcard(text, host)
    keeps_port = port and str(int(port)) != _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{host}:{int(port)}" if keeps_port else f"{scheme}://{host}"


def _other_origin(item: str) -> str:
    """The origin of a shell or an extension: no two browsers agree on their form."""
    if item == FILE or item in ANY_EXTENSION:
        return item
    scheme = item.partition(":")[0].lower()
    if scheme == "file":
        raise Unfit(f"{FILE} and nothing behind it; most browsers send null for a file", value=FILE)
    match = _OTHER.fullmatch(item)
    if match and (match[3] is None or 0 < int(match[3]) < 65536):
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


def _check_wildcard(text: str, host: str) -> None:
    """Raises unless the ``*`` of ``host`` stands in front of a name that has one owner."""
    labels = host.split(".")
    if host.count("*") != 1:
        raise Unfit("one * at most", found=shown(text))
    position = next(n for n, label in enumerate(labels) if "*" in label)
    label, rest = labels[position], ".".join(labels[position + 1 :])
    if is_loopback(rest):
        return
    if not rest or _is_registry(rest):
        raise Unfit(
            "a * in front of a domain of your own; anybody can register a name that fits this",
            found=shown(text),
        )
    if _is_shared(rest) and (label.startswith("*") or label.endswith("*")):
        raise Unfit(
            f"fixed text on both sides of the *, such as myapp-*-team.{rest}: {rest} is shared,"
            " anybody can get a name under it",
            found=shown(text),
        )


@cache
def _suffixes(only_icann: bool) -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # a list of 10,000 names; wildcards only

    return PublicSuffixList(only_icann=only_icann)


def _is_registry(name: str) -> bool:
    return bool(_suffixes(True).is_public(name))


def _is_shared(name: str) -> bool:
    return bool(_suffixes(False).is_public(name))


def _list(texts: list[str]) -> str | None:
    return ", ".join(shown(text) for text in texts) or None


def origins_of_hosts(allowed_hosts: tuple[str, ...]) -> tuple[str, ...]:
    """``https://`` in front of each host; the word for IP literals has no origin."""
    return tuple(_origin(f"https://{host}") for host in allowed_hosts if host != ANY_IP)
