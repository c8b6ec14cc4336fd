"""What can be set: one table, where its values come from, and what is said of faults."""

from keyproxy.key_forms import Secret
from keyproxy.settings.grammar.network import Address
from keyproxy.settings.grammar.plain import Budget, Rate
from keyproxy.settings.grammar.secrets import ClientToken
from keyproxy.settings.setting import SAY_IT, Derived, Mode, Setting
from keyproxy.settings.settings import Settings
from keyproxy.settings.table import (
    CONFIG,
    DEFAULT_APP,
    DEFAULT_ENDPOINTS,
    KNOWN_ENDPOINTS,
    ClientAuth,
    rows,
)

__all__ = [
    "CONFIG",
    "DEFAULT_APP",
    "DEFAULT_ENDPOINTS",
    "KNOWN_ENDPOINTS",
    "SAY_IT",
    "Address",
    "Budget",
    "ClientAuth",
    "ClientToken",
    "Derived",
    "Mode",
    "Rate",
    "Secret",
    "Setting",
    "Settings",
    "rows",
]
