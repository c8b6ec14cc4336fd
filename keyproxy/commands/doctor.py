"""What ``keyproxy check`` looks at beside settings and keys: this machine, as keyproxy finds it."""

from __future__ import annotations

import os
import platform
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import aiohttp
from structlog.testing import capture_logs

from keyproxy import __version__
from keyproxy.admin.alerts import alert_of
from keyproxy.admin.conditions import Condition
from keyproxy.admin.outbox import post
from keyproxy.commands import git
from keyproxy.commands.findings import Finding
from keyproxy.ledger.file import LedgerFault, ask
from keyproxy.limits.shared import open_shared
from keyproxy.server import memory
from keyproxy.server.accounting import usual_path
from keyproxy.settings import Settings
from keyproxy.settings.grammar import shown
from keyproxy.settings.grammar.plain import DEFAULT_LEDGER
from keyproxy.transport.client import Pools, open_clients, open_session
from keyproxy.transport.fetch import fetch
from keyproxy.upstream.providers import bases_of, provider_of

_TIMEOUT_SECONDS = 10.0
# What JWTs are allowed by default, and a second on the way.
_MOST_SKEW_SECONDS = 31
_TEST = Condition("test", "This is a test, sent by keyproxy check --send-test-alert.", 0, 0)


def of_versions() -> Finding:
    """What runs here, for whoever is asked for help."""
    parts = [
        f"keyproxy {__version__}",
        f"Python {platform.python_version()}",
        ssl.OPENSSL_VERSION.partition("  ")[0],
        f"SQLite {sqlite3.sqlite_version}",
        f"{platform.system()} {platform.machine()}",
    ]
    return Finding("versions", "fine", ", ".join(parts))


def of_git(paths: Sequence[Path]) -> Iterator[Finding]:
    """What git has, or would take, of the files that hold secrets."""
    for path in paths:
        if git.is_tracked(path):
            cure = f"git rm --cached {path.name}, and make each secret in it anew"
            yield Finding("git", "warning", f"{path.name} is tracked by git", cure)
            continue
        if commit := git.last_commit_with(path):
            text = f"{path.name} stands in git's history (commit {commit}): every clone has it"
            cure = "make each secret that stood in it anew; taking it out of history is not enough"
            yield Finding("git", "warning", text, cure)
        if git.is_ignored(path) is False:
            cure = "add it to .gitignore before it is committed"
            yield Finding("git", "warning", f"{path.name} is not ignored by git", cure)


def of_ledger(settings: Settings) -> Finding:
    """Whether calls can be booked where they are to be; nothing is made or changed."""
    path: Path | None = settings.ledger
    if path is None:
        return Finding("ledger", "fine", "off")
    if path == DEFAULT_LEDGER:
        path = usual_path(settings.mode)
    if path is None:
        cure = "set HOME or STATE_DIRECTORY, or KEYPROXY_LEDGER to a file"
        return Finding("ledger", "warning", "there is no folder for it", cure)
    name = shown(str(path))
    place = path
    if path.exists():
        try:
            ask(path, lambda connection: connection.execute("SELECT 1").fetchone())
        except (LedgerFault, sqlite3.Error) as error:
            cure = "KEYPROXY_LEDGER names another file"
            return Finding("ledger", "error", f"{name} cannot be read: {error}", cure)
    else:
        place = next(parent for parent in path.parents if parent.exists())
    if not os.access(place, os.W_OK):
        uid = getattr(os, "geteuid", lambda: "unknown")()
        cure = f"chown {uid} {place}, or KEYPROXY_LEDGER names a file elsewhere"
        text = f"{shown(str(place))} cannot be written by uid {uid}"
        # In dev a default place that cannot be written turns the ledger off.
        is_needed = settings.mode == "serve" or settings.ledger != DEFAULT_LEDGER
        return Finding("ledger", "error" if is_needed else "warning", text, cure)
    return Finding("ledger", "fine", f"{name} can be written")


def of_memory(settings: Settings) -> Finding:
    """Whether the largest body fits."""
    limit = memory.limit()
    if line := memory.narrow(memory.for_bodies(limit), settings.max_body_bytes):
        cure = "raise the limit, or lower KEYPROXY_MAX_BODY"
        return Finding("memory", "warning", line, cure)
    text = "no limit" if limit is None else f"a limit of {limit >> 20} MiB, enough"
    return Finding("memory", "fine", text)


async def of_storage(settings: Settings) -> Finding:
    """Whether what replicas count in answers."""
    if settings.storage is None:
        text = "in memory: limits and budgets count in each process alone"
        return Finding("storage", "fine", text)
    with capture_logs() as told:  # what a running keyproxy would log is part of what we tell
        async with open_shared(settings.storage, settings.storage_failure) as counters:
            is_down = counters.is_down
    if is_down:
        why = next((line["reason"] for line in told if "reason" in line), "no answer")
        cure = "is KEYPROXY_STORAGE right, does it run, and may this machine reach it?"
        return Finding("storage", "error", f"it cannot be used ({why})", cure)
    return Finding("storage", "fine", "it answers")


async def of_clock(settings: Settings) -> list[Finding]:
    """Whether this computer and the first provider agree on the time, where something ends by it.
    It is asked without a key: a refusal tells the time, too."""
    auths = {app.client_auth for app in settings.all_apps}
    if auths.isdisjoint({"jwt", "session"}) and settings.mode != "serve":
        return []
    used = settings.providers[0]
    base, _ = bases_of(used, provider_of(used), settings.upstream)
    try:
        async with open_clients(settings) as (session, _):
            whole = await fetch(
                session,
                f"{base}/models",
                max_bytes=0,  # its head tells
                timeout_seconds=_TIMEOUT_SECONDS,
            )
        told = parsedate_to_datetime(whole.headers["Date"]).timestamp()
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError):
        return [Finding("clock", "warning", "nobody could be asked for the time")]
    skew = time.time() - told
    if abs(skew) <= _MOST_SKEW_SECONDS:
        return [Finding("clock", "fine", "it agrees with the provider's")]
    way = "ahead of" if skew > 0 else "behind"
    text = f"it is {abs(skew):.0f} s {way} the provider's: JWTs, sessions and budgets end by it"
    return [Finding("clock", "error", text, "let NTP set it: timedatectl set-ntp true")]


async def of_machine(settings: Settings) -> list[Finding]:
    """All that is neither a setting nor a key nor git's."""
    asked = [await of_storage(settings), *await of_clock(settings)]
    return [of_versions(), of_memory(settings), of_ledger(settings), *asked]


async def of_test_alert(settings: Settings) -> Finding:
    """Send an alert that nothing is behind, once; whether it was taken."""
    signed = "not signed" if settings.alert_secret is None else "signed"
    alert = alert_of(_TEST, "firing", _TEST.text, socket.gethostname(), time.time())
    async with Pools(settings) as pools:
        open_one = partial(open_session, settings, trust=pools.trust)
        trouble = await post(open_one, settings, alert)
    if trouble is not None:
        return Finding("test alert", "error", f"the test alert was not taken: {trouble}")
    return Finding("test alert", "fine", f"taken by the receiver ({signed})")
