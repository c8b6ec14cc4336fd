"""The commands of ``keyproxy``: one module for each; those that run it share one."""

from collections.abc import Mapping
from typing import NamedTuple


class Command(NamedTuple):
    """``entry``: a module here and its function, which makes an exit code of the arguments."""

    entry: str
    summary: str


# In the order in which a newcomer meets them.
COMMANDS: Mapping[str, Command] = {
    "demo": Command(
        "run:demo", "try it with a built-in fake upstream: no key, no internet, no settings"
    ),
    "init": Command("init:main", "write .env, and a file of its own for the key"),
    "dev": Command("run:dev", "run it beside a web app on this computer"),
    "serve": Command("run:serve", "run it for others; it lists what must be said"),
    "check": Command("check:main", "report every fault of the settings, ask whether the key works"),
    "explain": Command("explain:main", "which step would refuse a call, and what to change"),
    "usage": Command("usage:main", "what was spent, by day, app, client, model, provider"),
    "calls": Command("calls:main", "find calls by id, client, time, status or cost"),
    "token": Command("token:main", "make a client token; only its hash is stored"),
    "ping": Command("ping:main", "health check of a running keyproxy, for images"),
}
