"""What can be set: one table, where its values come from, and what is said of faults."""

from keyproxy.key_forms import Secret
from keyproxy.settings.grammar.network import Address
from keyproxy.settings.grammar.plain import Rate
from keyproxy.settings.grammar.secrets import ClientToken
from keyproxy.settings.setting import Mode
from keyproxy.settings.settings import Settings
from keyproxy.settings.table import CONFIG, DEFAULT_APP, DEFAULT_ENDPOINTS, KNOWN_ENDPOINTS, ROWS

__all__ = [
    "CONFIG",
    "DEFAULT_APP",
    "DEFAULT_ENDPOINTS",
    "KNOWN_ENDPOINTS",
    "ROWS",
    "Address",
    "ClientToken",
    "Mode",
    "Rate",
    "Secret",
    "Settings",
]
