"""The small values that settings are made of: Secret, Address, Rate … No parsing, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv6Address, ip_address
from typing import Any, Literal, NoReturn

from keyproxy.key_forms import BEGINNING

STARS = "***"

# A label shows six characters; with fewer than these behind the prefix it would show too much.
_LABELLED_FROM = 16
_LENGTHS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


class Secret:
    """A text that prints as stars and must be unwrapped by name.

    ``asdict``, ``copy`` and ``deepcopy`` hand on the same object; pickling raises ``TypeError``.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The text itself."""
        return self.__value

    def is_in(self, text: str, *, run: int | None = None) -> bool:
        """Whether ``text`` repeats the secret, or ``run`` of its characters in a row."""
        value = self.__value
        size = len(value) if run is None else min(run, len(value))
        return any(value[at : at + size] in text for at in range(len(value) - size + 1))

    @property
    def label(self) -> str:
        """What may be shown of a key, in the provider's own form: ``sk-or-v1-ab1...f90``."""
        match = BEGINNING.match(self.__value)
        prefix = match.group() if match else ""
        rest = self.__value[len(prefix) :]
        if len(rest) < _LABELLED_FROM:
            return STARS
        return f"{prefix}{rest[:3]}...{rest[-3:]}"

    def __repr__(self) -> str:
        return f"Secret({STARS!r})"

    def __str__(self) -> str:
        return STARS

    def __format__(self, spec: str) -> str:
        return format(STARS, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self.__value == other.__value

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled")


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


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls in so many seconds."""

    amount: int
    seconds: int

    def __str__(self) -> str:
        """As the settings write it: ``20/minute``, ``5/90second``."""
        unit, length = next(each for each in _LENGTHS if self.seconds % each[1] == 0)
        number = self.seconds // length
        return f"{self.amount}/{'' if number == 1 else number}{unit}"


Unit = Literal["hour", "day", "month"]
UNITS: tuple[Unit, ...] = ("hour", "day", "month")


@dataclass(frozen=True, slots=True)
class Budget:
    """So many USD in each hour, day or month of the calendar, in UTC."""

    usd: Decimal
    unit: Unit

    def __str__(self) -> str:
        return f"{self.usd} USD a{'n' if self.unit == 'hour' else ''} {self.unit}"


@dataclass(frozen=True, slots=True)
class ClientToken:
    """Who shows a certain client token; ``digest`` is its SHA-256, 32 bytes."""

    name: str
    digest: bytes


def expression(glob: str) -> str:
    """A regular expression for a glob, in which ``*`` is anything on one line.

    What each ``*`` but the last took is not tried again: the first place where the text behind it
    fits is as good as any, and several such places to the power of the stars would take seconds.
    """
    first, *rest = (re.escape(part) for part in re.split(r"\*+", glob))
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>.*?{part})" for part in middle) + f".*{last}"


def whole_number(value: Any) -> int | None:
    """The whole number that a JSON value is, in any spelling (``2e3``); None if it is none."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def is_loopback(host: str) -> bool:
    """Whether ``host`` (IPv6 with or without brackets) can only be this computer."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"  # what lies below it, name servers may answer for
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
