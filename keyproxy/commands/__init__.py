"""The commands of ``keyproxy``: ``COMMANDS`` names the module of each; the others are parts."""

from collections.abc import Mapping

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("run:demo", "try it with a built-in fake upstream: no key, no internet, no settings"),
    "init": ("init:main", "write .env, and a file of its own for the key"),
    "dev": ("run:dev", "run it beside a web app on this computer"),
    "serve": ("run:serve", "run it for others; it lists what must be said"),
    "check": ("check:main", "report every fault of the settings, ask whether the key works"),
    "explain": ("explain:main", "which step would refuse a call, and what to change"),
    "usage": ("usage:main", "what was spent, by day, app, client, model, provider"),
    "calls": ("calls:main", "find calls by id, client, time, status or cost"),
    "token": ("token:main", "make a client token; only its hash is stored"),
    "ping": ("ping:main", "health check of a running keyproxy, for images"),
}
"""A module here and its function, which makes an exit code of the arguments; and a summary. In the
order in which a newcomer meets them."""
