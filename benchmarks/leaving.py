"""What calls are booked at whose clients leave before the first byte, beside what they cost.

    python benchmarks/leaving.py [--calls 1500]

Clients, keyproxy and an upstream that keeps its own books live in one process, on loopback. Seven
calls in ten stream, one in seven is left before its head; a head takes 0.05 to 0.6 s, one in ten
longer than a second. Half of the calls are billed on after their client has left, as some providers
do. Which way a call goes follows from its number.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sqlite3
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import aiohttp
import structlog
from aiohttp import web

from keyproxy.server.service import running
from keyproxy.settings import Settings

AT_ONCE = 40
MODEL = "openai/gpt-4o-mini"
PROMPT, COMPLETION = Decimal("0.00000015"), Decimal("0.0000036")
MAX_TOKENS, PROMPT_TOKENS, TOKEN_SECONDS = 2000, 100, 0.002
SETTLED_SECONDS = 120
PICO = Decimal("1e-12")


@dataclass(slots=True)
class Way:
    """How the call of a number goes; ``patience``: when its client leaves, None: it stays."""

    is_streaming: bool
    head_seconds: float
    tokens: int
    bills_on: bool
    patience: float | None

    @classmethod
    def of(cls, number: int) -> Way:
        dice = random.Random(number)  # noqa: S311 (no secret)
        head = dice.uniform(1.1, 2.0) if dice.random() < 0.1 else dice.uniform(0.05, 0.6)
        leaves = dice.random() < 1 / 7
        patience = head * dice.uniform(0.2, 0.9) if leaves else None
        return cls(dice.random() < 0.7, head, dice.randint(20, 200), dice.random() < 0.5, patience)


class Books:
    """The upstream: what each call truly cost."""

    def __init__(self) -> None:
        self.bills: dict[int, Decimal] = {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/models"):
            price = {"prompt": f"{PROMPT:f}", "completion": f"{COMPLETION:f}"}
            row = {"id": MODEL, "context_length": 128_000, "pricing": price}
            return web.json_response({"data": [row]})
        if request.path.endswith("/generation"):
            bill = self.bills.get(int(request.query["id"].rpartition("-")[2]))
            if bill is None:
                return web.json_response({"error": {"code": 404}}, status=404)
            return web.json_response({"data": {"total_cost": float(bill)}})
        if request.method != "POST":
            return web.json_response({"data": {"label": "x"}})
        number = int(json.loads(await request.read())["messages"][0]["content"])
        way, made = Way.of(number), 0
        try:
            await asyncio.sleep(way.head_seconds)
            head = {"X-Generation-Id": f"gen-benchmark-{number}"}
            if not way.is_streaming:
                made = way.tokens
                body = {"usage": usage(made), "id": head["X-Generation-Id"]}
                return web.json_response(body, headers=head)
            response = web.StreamResponse(headers={**head, "Content-Type": "text/event-stream"})
            await response.prepare(request)
            while made < way.tokens:
                await asyncio.sleep(TOKEN_SECONDS)
                made += 1
                await response.write(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
            last = json.dumps({"choices": [], "usage": usage(made)})
            await response.write(f"data: {last}\n\ndata: [DONE]\n\n".encode())
        except (asyncio.CancelledError, ConnectionError):
            made = way.tokens if way.bills_on or not way.is_streaming else made
            raise
        else:
            return response
        finally:
            self.bills[number] = cost(made)


def cost(tokens: int) -> Decimal:
    return PROMPT_TOKENS * PROMPT + tokens * COMPLETION if tokens else Decimal(0)


def usage(tokens: int) -> dict[str, float]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": tokens,
        "cost": float(cost(tokens)),
    }


async def call(session: aiohttp.ClientSession, url: str, number: int) -> None:
    way = Way.of(number)
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": str(number)}],
        "max_tokens": MAX_TOKENS,
        "stream": way.is_streaming,
    }
    with suppress(TimeoutError):
        async with asyncio.timeout(way.patience):
            fields = {"X-Forwarded-For": address(number)}
            async with session.post(f"{url}/chat/completions", json=body, headers=fields) as answer:
                await answer.read()
                assert answer.status == 200, await answer.text()


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


async def measure(calls: int, folder: Path) -> None:
    books, ledger = Books(), folder / "ledger.sqlite3"
    runner = web.ServerRunner(web.Server(books.handle, handler_cancellation=True))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1000).start()
    said = {
        "OPENROUTER_API_KEY": "sk-or-v1-benchmark-" + "0123456789abcdef" * 3,
        "KEYPROXY_UPSTREAM": f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1",
        "KEYPROXY_LISTEN": "127.0.0.1:0",
        "KEYPROXY_ALLOWED_HOSTS": "127.0.0.1",
        "KEYPROXY_ALLOWED_MODELS": "*",
        "KEYPROXY_CLIENT_AUTH": "none",
        "KEYPROXY_TRUSTED_PROXIES": "loopback",
        "KEYPROXY_RATE_LIMIT": "off",
        "KEYPROXY_TOTAL_BUDGET": "1000/day",
        "KEYPROXY_LEDGER": str(ledger),
    }
    numbers = iter(range(calls))

    async def work(session: aiohttp.ClientSession, url: str) -> None:
        for number in numbers:
            await call(session, url, number)

    connector = aiohttp.TCPConnector(limit=0)
    async with (
        running(Settings.from_environ("serve", said)) as service,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        url = f"http://{service.addresses[0]}/api/v1"
        await asyncio.gather(*(work(session, url) for _ in range(AT_ONCE)))
        async with asyncio.timeout(SETTLED_SECONDS):
            while unsettled(ledger):  # noqa: ASYNC110 (a file has no event)
                await asyncio.sleep(0.1)
    report(calls, books, ledger)
    await runner.cleanup()


def unsettled(ledger: Path) -> bool:
    with closing(sqlite3.connect(ledger)) as connection:
        asked = "SELECT 1 FROM calls WHERE ended IS NULL OR NOT is_settled"
        return connection.execute(asked).fetchone() is not None


def report(calls: int, books: Books, ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        found = connection.execute("SELECT client, cost, cost_source FROM calls").fetchall()
    rows = {client: (cost * PICO, source) for client, cost, source in found}
    left = [n for n in range(calls) if Way.of(n).patience is not None]
    print(f"{calls} calls, of which {len(left)} were left before the first byte")
    for name, some in (
        ("streamed", [n for n in left if Way.of(n).is_streaming]),
        ("not streamed", [n for n in left if not Way.of(n).is_streaming]),
    ):
        booked = [rows[address(n)] for n in some if address(n) in rows]
        total = sum((usd for usd, _ in booked), Decimal(0))
        true = sum((books.bills.get(n, Decimal(0)) for n in some), Decimal(0))
        exact = sum(source == "exact" for _, source in booked)
        print(
            f"  {name:<13} {len(some):>4}: booked {total:.4f} USD, true {true:.4f}; {exact} exact"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1500)
    calls = parser.parse_args().calls
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(calls, Path(folder)))


if __name__ == "__main__":
    main()
