"""What keyproxy costs beside nginx and a naive proxy: every figure of docs/performance.md (Linux).

    python benchmarks/compare.py                        # 3 rounds, under ten minutes
    python benchmarks/compare.py --only calls events    # these columns, in a minute
    python benchmarks/compare.py --tls                  # the upstream behind TLS
    python benchmarks/compare.py --write docs/performance.md --plot docs

keyproxy has everything on: client tokens, two rate windows, strict JSON and policy, a budget for
the client and one for all, the ledger, a JSON line a call to a file. nginx, where it is found, and
``naive.py`` put in the key. ``direct`` is the load without a proxy, whose delays are taken off.
Peers take turns; figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import platform
import resource
import shutil
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import load
import page
import pauses
from load import Load
from peers import Peer, Place, started

PEERS = ("direct", "nginx", "naive", "keyproxy")
DEADLINE_SECONDS = 1800.0
CONNECTIONS, RATE = 32, 100.0
STREAMS, PACED, PACE = 50, 200, 0.05
CLIENTS = 100_000
LEARNING_SECONDS = 120.0
Found = dict[str, float]
Step = Callable[[Load, Peer], Awaitable[Found]]


async def calls(work: Load, peer: Peer) -> Found:
    async with work.calling(peer.port, CONNECTIONS):
        return {"cpu_call": (await work.window(peer.cpu, 0.5, 2)).cost}


async def delays(work: Load, peer: Peer) -> Found:
    async with work.calling_at(peer.port, RATE):
        seen = await work.window(peer.cpu, 0.5, 5)
    return {"p50": seen.at(0.5), "p99": seen.at(0.99)}


async def events(work: Load, peer: Peer) -> Found:
    async with work.streaming(peer.port, STREAMS, None):
        return {"cpu_event": (await work.window(peer.cpu, 0.3, 2)).cost}


async def paced(work: Load, peer: Peer) -> Found:
    async with work.streaming(peer.port, PACED, PACE):
        seen = await work.window(peer.cpu, 1, 4)
    return {"cpu_paced": seen.cost, "event_p50": seen.at(0.5), "event_p99": seen.at(0.99)}


async def held(work: Load, peer: Peer, count: int) -> Found:
    """In a process of its own: memory of open streams, and what a call costs among them."""
    await asyncio.sleep(0.5)
    idle = peer.resident_kib()
    async with work.calling(peer.port, 8):
        alone = await work.window(peer.cpu, 0.5, 2)
    before = peer.resident_kib()
    async with work.streaming(peer.port, count, math.inf):
        await asyncio.sleep(0.5)
        each = (peer.resident_kib() - before) / count
        async with work.calling(peer.port, 8):
            among = await work.window(peer.cpu, 0.5, 2)
    return {
        "stream_kb": each,
        "rss_mb": idle / 1024,
        "cold": peer.cold_seconds,
        "among_streams": among.cost / alone.cost,
    }


async def known(work: Load, peer: Peer) -> Found:
    """A call of one client, and calls of many by turns once all of them have called."""
    try:
        work.requests = load.requests_of(1)
        async with work.calling(peer.port, CONNECTIONS):
            alone = await work.window(peer.cpu, 0.5, 2)
        before, end = peer.resident_kib(), time.monotonic() + LEARNING_SECONDS
        work.requests, work.count = load.requests_of(CLIENTS), 0
        async with work.calling(peer.port, CONNECTIONS):
            while work.count < CLIENTS and time.monotonic() < end:  # noqa: ASYNC110 (it is polled)
                await asyncio.sleep(0.1)
            clients = min(work.count, CLIENTS)
            among = await work.window(peer.cpu, 0.5, 2)
        more = (peer.resident_kib() - before) / clients
    finally:
        work.use(load.TOKEN)
    return {"among_clients": among.cost / alone.cost, "clients": clients, "client_kb": more}


async def measure(name: str, work: Load, place: Place, steps: Sequence[Step]) -> Found:
    """One round of one peer. Memory is looked at in a process that has done nothing else."""
    found: Found = {}
    gc.collect()
    work.use(load.KEY if name == "direct" else load.TOKEN)
    for together in (
        [step for step in steps if step in (calls, delays, events, paced)],
        [step for step in steps if isinstance(step, partial)],
    ):
        if together:
            async with started(name, work, place) as peer:
                for step in together:
                    found |= await step(work, peer)
    return found


def taken_off(rounds: dict[str, list[Found]]) -> None:
    """Delays become what a proxy adds to those without one in the same round."""
    for name in ("p50", "p99", "event_p50", "event_p99"):
        for peer, each in rounds.items():
            for own, direct in zip(each, rounds["direct"], strict=True):
                if peer != "direct" and name in own:
                    own[f"add_{name}"] = own[name] - direct[name]


def medians(each: Sequence[Found]) -> Found:
    names = {name for found in each for name in found}
    return {
        name: statistics.median([found[name] for found in each if name in found]) for name in names
    }


def cores() -> tuple[int | None, int | None]:
    """For proxies, and for the load: two of those that we may use; none where there is one."""
    mine = sorted(os.sched_getaffinity(0))
    return (mine[0], mine[1]) if len(mine) > 1 else (None, None)


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """For ``localhost``, of an authority made on the spot."""
    import trustme  # of the `dev` group

    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, path


COLUMNS = ("calls", "delays", "events", "paced", "held", "clients", "pauses")


def about(asked: argparse.Namespace, has_cores: bool) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "python": platform.python_version(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "cores": len(os.sched_getaffinity(0)),
        "apart": has_cores,
        "tls": asked.tls,
        "rounds": asked.rounds,
        "left_out": [name for name in COLUMNS if name not in asked.only],
        "streams": asked.streams,
        "load": os.getloadavg()[0],
    }


async def run(asked: argparse.Namespace) -> dict[str, Any]:
    proxy_core, load_core = cores()
    report: dict[str, Any] = {"about": about(asked, proxy_core is not None)}
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    peers = [name for name in PEERS if name != "nginx" or nginx is not None]
    peers += ["bare"] * asked.bare
    if nginx is None:
        print("nginx is not found: its column is left out", file=sys.stderr)
    if load_core is None:
        print("one core: proxies and load share it, and delays say little", file=sys.stderr)
    else:
        os.sched_setaffinity(0, {load_core})
    holding = partial(held, count=report["about"]["streams"])
    by_name: dict[str, Step] = {
        "calls": calls, "delays": delays, "events": events, "paced": paced, "held": holding,
    }  # fmt: skip
    steps = [step for name, step in by_name.items() if name in asked.only]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        context, ca_file = certificate(folder) if asked.tls else (None, None)
        place = Place(proxy_core, folder, ca_file, nginx)
        work = await stack.enter_async_context(
            load.running(context, is_spinning=load_core is not None)
        )
        rounds: dict[str, list[Found]] = {name: [] for name in peers}
        for number in range(asked.rounds if steps else 0):
            for name in peers:
                print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
                some = [s for s in steps if name != "direct" or s in (delays, paced)]
                rounds[name].append(await measure(name, work, place, some))
        taken_off(rounds)
        if "clients" in asked.only:
            print("100,000 clients", file=sys.stderr, flush=True)
            async with started("by address", work, place) as peer:
                rounds["keyproxy"].append(await known(work, peer))
        report["peers"] = {name: medians(each) for name, each in rounds.items()}
        report["rounds"] = rounds
        if "pauses" in asked.only:
            print("pauses of the loop", file=sys.stderr, flush=True)
            report["pauses"] = await pauses.measure(work, place, asked.seconds)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tls", action="store_true", help="the upstream is behind TLS")
    parser.add_argument("--only", nargs="+", metavar="COLUMN", choices=COLUMNS, default=COLUMNS,
        help=f"of {', '.join(COLUMNS)}")  # fmt: skip
    parser.add_argument("--streams", type=int, default=1_000, help="held open; 10,000 to see more")
    parser.add_argument("--seconds", type=float, default=60, help="that pauses are looked for")
    parser.add_argument("--bare", action="store_true",
        help="also a keyproxy without client tokens, budgets, ledger and log lines")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round's figures")
    parser.add_argument("--write", type=Path, metavar="FILE", help="renew the tables of this page")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw them there, as SVG")
    asked = parser.parse_args()
    wanted = 2 * asked.streams + 1_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        parser.error(f"{asked.streams} streams take {wanted} open files; {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

    async def bounded() -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await run(asked)

    report = asyncio.run(bounded())
    print(page.tables(report))
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1) + "\n")
    plots = page.plot(asked.plot, report) if asked.plot else []
    if asked.write:
        page.write(asked.write, report, plots)


if __name__ == "__main__":
    main()
