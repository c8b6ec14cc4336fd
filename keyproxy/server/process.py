"""The process: signals, reloads, start lines, exit codes. ``service.py`` does the serving."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import decimal
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from keyproxy import __version__, logs
from keyproxy.console import elided
from keyproxy.demo import page
from keyproxy.errors import KeyproxyError, SettingsFault, SettingsFaults
from keyproxy.pairing import PATH, Pairing
from keyproxy.server import memory, service
from keyproxy.server.service import Service
from keyproxy.server.snippet import snippet
from keyproxy.settings import Secret, Settings, summary
from keyproxy.settings.advice import odd
from keyproxy.settings.grammar.network import is_local
from keyproxy.settings.sources import Sources
from keyproxy.transport.server import CannotListen
from keyproxy.upstream.providers import bases_of, provider_of

RELOAD_LOOK_SECONDS = 1.0
"""How often files are looked at: secrets that are swapped, tokens that are revoked."""
_PR_SET_DUMPABLE = 4  # prctl(2)
_log = structlog.get_logger("keyproxy")


def run(
    settings: Settings,
    sources: Sources,
    listen: str,
    why: str | None = None,
    pairing: Pairing | None = None,
) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code. A demo has the built-in fake upstream.

    ``listen`` is how another port is chosen; ``why`` it is the demo is said once it listens.
    ``pairing``: devices of the local network may call, too.
    """
    logs.configure(settings.log_format, settings.log_level)
    forbid_core_dumps()
    memory.give_back_large_blocks()
    decimal.getcontext()  # else each call reckons in one of its own, kept as long as it lasts
    try:
        with asyncio.Runner(loop_factory=_loop_factory(settings)) as runner:
            runner.run(_serve(settings, sources, why, pairing))
    except SettingsFault as fault:  # one that only starting could find
        print(f"keyproxy {settings.mode}: {fault}", file=sys.stderr)
        return 2
    except KeyproxyError as error:
        is_taken = isinstance(error, CannotListen) and error.is_taken
        cure = f"; choose another with {listen}" if is_taken else ""
        print(f"keyproxy {settings.mode}: {error}{cure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # where the loop takes no signal handlers (Windows)
        return 0
    return 0


def _loop_factory(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if settings.loop == "asyncio":
        return None
    import uvloop  # the settings have looked whether it is there

    return uvloop.new_event_loop


def forbid_core_dumps() -> None:
    """No core file, and on Linux no ptrace by other processes of the same user."""
    try:
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def _serve(
    settings: Settings, sources: Sources, why: str | None, pairing: Pairing | None
) -> None:
    stop = asyncio.Event()
    reload = asyncio.Event()
    pages = {} if settings.mode == "serve" else {**page.files()}
    if pairing is not None:
        pages |= pairing_pages()
    async with contextlib.AsyncExitStack() as stack:
        if settings.mode == "demo":
            from keyproxy.demo import upstream as demo_upstream

            base_url = await stack.enter_async_context(demo_upstream.running())
            settings = settings.kept(keys=(Secret(demo_upstream.DEMO_KEY),), upstream=base_url)
        running = await stack.enter_async_context(service.running(settings, pages, pairing))
        _catch_signals(stop, reload)
        if pages and (dashboard := _dashboard(running)):
            pages["/"] = page.linked(pages["/"], dashboard)
        _say_hello(running)
        if pairing is not None:
            _offer_pairing(pairing, f"http://{running.addresses[-1]}{PATH}")
        narrow = memory.narrow(running.kit.life.room.max_bytes, settings.max_body_bytes)
        for warning in filter(None, (why, *sources.warnings(), *odd(settings), narrow)):
            _log.warning(warning)
        watching = asyncio.create_task(_watch(running, sources, reload, memory.Heap()))
        try:
            await stop.wait()
            stop.clear()
            draining = asyncio.create_task(running.drain())
            hurried = asyncio.create_task(stop.wait())  # a second signal
            await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
            for task in (draining, hurried):
                task.cancel()
        finally:
            watching.cancel()
    _log.info("stopped", **running.readers.totals.counts())


def _catch_signals(stop: asyncio.Event, reload: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    wanted = {"SIGTERM": stop, "SIGINT": stop, "SIGHUP": reload}
    for name, event in wanted.items():
        if (number := getattr(signal, name, None)) is not None:
            with contextlib.suppress(NotImplementedError):  # Windows' event loop
                loop.add_signal_handler(number, event.set)


async def _watch(
    running: Service, sources: Sources, reload: asyncio.Event, heap: memory.Heap
) -> None:
    """Re-read the settings on SIGHUP and when a file behind them has changed.

    The first look always reads: a file may have changed since the settings were made.
    """
    seen: object = None
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reload.wait(), RELOAD_LOOK_SECONDS)
        is_asked = reload.is_set()
        reload.clear()
        heap.look()
        found = await asyncio.to_thread(sources.fingerprint)
        if is_asked or found != seen:
            seen = found
            try:
                if await _reread(running, sources, is_asked=is_asked):
                    heap.reloaded()
            except Exception:  # later changes must still be noticed
                _log.exception("settings not reloaded")


async def _reread(running: Service, sources: Sources, *, is_asked: bool) -> bool:
    """Apply what the files say now; whether that was done. A faulty reload changes nothing and
    says why."""
    try:
        settings = await asyncio.to_thread(sources.read)
        if settings.mode == "demo":
            current = running.settings
            settings = settings.kept(keys=current.keys, upstream=current.upstream)
        if is_asked or settings != running.settings:
            running.apply(settings)
            return True
    except (SettingsFaults, SettingsFault) as error:  # one that only applying could find
        faults = error.faults if isinstance(error, SettingsFaults) else [error]
        _log.error("settings not reloaded", faults=[str(fault) for fault in faults])
    return False


def _say_hello(running: Service) -> None:
    """Where it listens, for whom and with which limits: in words beside a dev server."""
    settings = running.settings
    has_banner = settings.mode != "serve"
    if has_banner:
        print(_banner(running), flush=True)
    apps = {app.name: dict(summary.of_app(app)) for app in settings.apps}
    write = _log.debug if has_banner and settings.log_format == "console" else _log.info
    write(
        "listening",
        version=__version__,
        mode=settings.mode,
        listen=list(running.addresses),
        admin=list(running.admin.addresses) if running.admin else [],
        upstream=settings.upstream,
        **_keys(settings),
        clients=summary.clients(settings),
        origins=list(settings.allowed_origins),
        models=list(settings.allowed_models),
        rate_limit=summary.rates(settings.rate_limit),
        address_rate_limit=summary.rates(settings.address_rate_limit),
        max_in_flight=settings.max_in_flight,
        max_tokens=settings.max_tokens,
        budgets=summary.budgets(settings),
        alerts=summary.alerts(settings),
        ledger=running.accounting.place,
        limits_counted=summary.storage(settings),
        room_for_bodies=summary.size(running.kit.life.room.max_bytes),
        **({"apps": apps} if apps else {}),
    )


def _asked(settings: Settings) -> str:
    """A line of the banner: whose keys are used where that is not OpenRouter's alone, and whose lie
    about."""
    used = ", ".join(settings.provider_names)
    parts = [] if used == "openrouter" else [used]
    if settings.seen and settings.mode != "demo":
        parts.append(f"set and not used: {', '.join(settings.seen)}")
    return f"\n  Providers  {elided('; '.join(parts), 67)}" if parts else ""


def _sent_elsewhere(settings: Settings) -> str:
    """A line of the banner: whose keys go to another host than their provider's, but for this
    computer. A folder's own files may say so of a key of the environment."""
    parts = []
    for used in settings.providers if settings.mode != "demo" else ():
        provider = provider_of(used)
        own = {provider.base, provider.messages_base} if used.kind is None else set()
        for base in sorted({*bases_of(used, provider, settings.upstream)} - own):
            if used.keys and not is_local(base):
                parts.append(f"{used.name} to {urlsplit(base).hostname}")
    return f"\n  Keys go    {elided(', '.join(parts), 67)}" if parts else ""


def _keys(settings: Settings) -> Mapping[str, object]:
    """Whose keys are used, by their labels; those that lie about."""
    labels = summary.keys(settings)
    is_alone = list(labels) == ["openrouter"]
    used = {"key": labels["openrouter"]} if is_alone else {"keys": labels}
    return {**used, **({"keys_not_used": list(settings.seen)} if settings.seen else {})}


def _banner(running: Service) -> str:
    """In 80 columns, the addresses first."""
    settings = running.settings
    site = _site(running.addresses[0])
    dashboard = _dashboard(running)
    watched = f"\n  Dashboard  {dashboard}" if dashboard else ""
    lan = f"\n  Network    {_site(running.addresses[-1])}/api/v1, for paired devices"
    paired = lan if running.kit.life.pairing else ""
    is_demo = settings.mode == "demo"
    fake = " A fake upstream answers: no key, no internet, no cost." if is_demo else ""
    return f"""
  Base URL   {site}/api/v1
  Chat page  {site}/{watched}
  Open to    {summary.short(settings)}{paired}{_asked(settings)}{_sent_elsewhere(settings)}

{snippet(running.kit.default, site)}

  Ctrl-C stops it.{fake}
"""


def pairing_pages() -> Mapping[str, page.PageFile]:
    """Of the page that brings a code, by URL path."""
    pages = dict(page.read(Path(__file__).parent / "pair"))
    pages[PATH] = pages.pop(f"{PATH}.html")
    return pages


def _offer_pairing(pairing: Pairing, address: str) -> None:
    """Print a code now, and a new one whenever Enter is pressed. It is in no log."""

    def offer() -> None:
        link = f"{address}#{pairing.renew()}"
        print(f"  On a device of this network (once, within 2 minutes):\n  {link}\n")
        if sys.stdout.isatty():
            import segno  # 20 ms

            segno.make(link, error="l").terminal(compact=True)
        if sys.stdin.isatty():
            print("  Enter: a new code for another device\n")
        sys.stdout.flush()

    def on_line() -> None:
        if sys.stdin.readline():
            offer()
        else:  # the terminal is gone
            loop.remove_reader(sys.stdin)

    loop = asyncio.get_running_loop()
    offer()
    if sys.stdin.isatty():
        with contextlib.suppress(NotImplementedError):  # Windows' event loop
            loop.add_reader(sys.stdin, on_line)


def _site(address: str) -> str:
    """``http://localhost:8484``, which browsers take for a safe place, where that leads here."""
    host, _, port = address.rpartition(":")
    is_usual = host in ("127.0.0.1", "[::1]", "0.0.0.0", "[::]")  # noqa: S104 (compared only)
    return f"http://{'localhost' if is_usual else host}:{port}"


def _dashboard(running: Service) -> str | None:
    """Where it is; None where there is none."""
    addresses = running.admin.addresses if running.admin else ()
    return f"{_site(addresses[0])}/" if addresses else None
