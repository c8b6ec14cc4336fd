"""The values that a call is handled with: a kit for each configuration, an exchange for each call.

Made by ``server/assembly.py``; nothing here outlives a call but what kits share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from keyproxy.browser import Browser
from keyproxy.clients.identity import Identity
from keyproxy.dataclass import dataclass, field
from keyproxy.limits.admit import Admission
from keyproxy.limits.counters import Counters
from keyproxy.money.booking import Bookings
from keyproxy.pairing import Pairing
from keyproxy.policy.check import Policy
from keyproxy.policy.endpoints import Endpoints
from keyproxy.record import Record
from keyproxy.session_endpoint import Opening
from keyproxy.settings import DEFAULT_APP, Settings
from keyproxy.strict_json.turns import Turns
from keyproxy.transport.connection import Connection
from keyproxy.transport.intake import Room
from keyproxy.transport.messages import NO_LINES, Lines
from keyproxy.upstream.catalogue import Allowed, Catalogue
from keyproxy.upstream.send import Upstream

if TYPE_CHECKING:  # loaded where it is used
    from keyproxy.attempts.attempts import Attempts


@dataclass(slots=True)
class Life:
    """What the process has for all calls, and where it is on its way: all kits share it.

    ``failures``: refused credentials, by network. ``pairing``: who of the local network may call,
    where we listen there.
    """

    room: Room
    pairing: Pairing | None = None
    failures: Counters = field(default_factory=Counters)
    large_bodies: Turns = field(default_factory=Turns)
    is_ready: bool = False
    is_stopping: bool = False
    is_cutting: bool = False

    def cuts_calls(self) -> bool:
        """Whether our own stop cuts them."""
        return self.is_cutting


@dataclass(frozen=True, slots=True)
class AppKit:
    """Everything a call of one app needs. ``settings`` are those that hold for the app.

    ``browser`` knows only the app's own origins. ``catalogue`` is asked for with the app's key,
    where the upstream shows it to nobody else. ``upstreams``: of each provider that is used, by its
    name, in the order in which they are asked; ``upstream`` is OpenRouter's, or else the first.
    ``listed``: the models that lists show. ``attempts``: where other providers than OpenRouter are
    used.
    """

    settings: Settings
    browser: Browser
    endpoints: Endpoints
    policy: Policy
    admission: Admission
    bookings: Bookings
    upstream: Upstream
    upstreams: Mapping[str, Upstream]
    catalogue: Catalogue
    listed: Allowed
    attempts: Attempts | None = None


@dataclass(frozen=True, slots=True)
class Kit:
    """Everything a call needs, made from one configuration. A reload makes another.

    ``browser`` knows the origins of all apps.
    """

    settings: Settings
    browser: Browser
    identity: Identity
    apps: Mapping[str, AppKit]
    opening: Opening
    catalogue: Catalogue
    life: Life

    @property
    def default(self) -> AppKit:
        """The app of everything that no other app claims."""
        return self.apps[DEFAULT_APP]

    def app_of(self, record: Record) -> AppKit:
        """Whose call it is, as far as that is known."""
        return self.apps[record.app or DEFAULT_APP]


@dataclass(slots=True)
class Exchange:
    """One request on its way: the kit it began with, its record, what its answer goes down by, and
    headers for that; ``cors``: those by which a page may read it."""

    kit: Kit
    record: Record
    connection: Connection
    headers: dict[str, str] = field(default_factory=dict)
    cors: Lines = NO_LINES
