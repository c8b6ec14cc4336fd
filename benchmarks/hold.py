"""For how long large bodies hold the event loop: the real program, over sockets, by shape of body.

    python benchmarks/hold.py [--rounds 5] [--only WORD]

keyproxy runs in this process, upstream and client in another. A ticker on keyproxy's loop looks
for the longest time between two of its turns. What a neighbour on the machine takes is left out:
waiting for a processor (Linux), and whatever is no CPU time of this process. Of several rounds
the best counts. Each call has a cap filled in, so that its body is read, checked and written anew.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keyproxy import logs
from keyproxy.server.service import running
from keyproxy.settings import Settings

KEY = "sk-or-v1-benchmark-" + "0123456789abcdef" * 4
MODEL = "openai/gpt-4o-mini"
ANSWER = b'{"id":"gen-1","choices":[{"message":{"content":"x"}}]}'
MB = 10**6


def chat(*contents: object, **fields: object) -> bytes:
    messages = [{"role": "user", "content": content} for content in contents or ("x",)]
    body = {"model": MODEL, "messages": messages, **fields}
    return json.dumps(body, ensure_ascii=False).encode()


def text(size: int) -> bytes:
    return chat('He said: "Köln is nice 🙂."\n' * (size // 35))


def escapes(size: int) -> bytes:
    return chat("@" * (size // 12)).replace(b"@", rb"\ud83d\ude00")


def images(size: int) -> bytes:
    made_up = random.Random(1)  # noqa: S311  (an image's bytes, no cryptography)
    data = base64.b64encode(made_up.randbytes(150_000)).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    return chat([{"type": "text", "text": "What is this?"}, *[image] * (size // 200_000)])


def messages(size: int) -> bytes:
    return chat(*[[{"type": "text", "text": "x" * (size // 10_000 - 70)}]] * 10_000)


def numbers(size: int) -> bytes:
    return chat(metadata={"tokens": [10 ** (size // 250_000 - 3)] * 249_900})


def texts(size: int) -> bytes:
    return chat(metadata={"texts": ["x" * (size // 250_000 - 4)] * 249_900})


def names(size: int) -> bytes:
    width = size // 240_000 - 6
    return chat(metadata={f"{number:0{width}}": 1 for number in range(240_000)})


def containers(size: int) -> bytes:
    return chat(metadata={"parts": [{"a": "x" * (size // 49_900 - 12)}] * 49_900})


def changed(size: int) -> bytes:
    """A setting among the messages that the cap lowers, so that all of them are written anew."""
    update = {"reasoning": {"effort": "max"}}
    words = "Köln is nice.\n" * (size // 310_000)
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": words, "configuration_update": update}] * 10_000,
    }
    return json.dumps(body, ensure_ascii=False).encode()


def broken(size: int) -> bytes:
    """Not JSON, as turns out at the end."""
    return messages(size)[:-3] + b"?]}"


def kinds(size: int) -> bytes:
    """A tool's type, which is refused."""
    return chat(tools=[{"type": "browser_use" * (size // 11)}])


def long_names(size: int) -> bytes:
    """A field that is refused, and an item's with it."""
    return chat(**{"n" * size: 1})


SHAPES: tuple[Callable[[int], bytes], ...] = (
    text, escapes, images, messages, numbers, texts, names, containers, changed, broken,
    kinds, long_names,
)  # fmt: skip
SIZES = {
    "text": (1, 20), "escapes": (1, 20), "images": (1, 20), "messages": (1, 5),
    "numbers": (1, 5), "texts": (2, 5), "names": (3, 5), "containers": (1, 5),
    "changed": (2, 5), "broken": (1, 5), "kinds": (1, 20),
    "long_names": (1, 20),
}  # fmt: skip


class Ticker:
    """The longest time that the loop did not get round to it."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._waits = waits()

    async def run(self) -> None:
        before = self._now()
        while True:
            await asyncio.sleep(0)
            now = self._now()
            held = min(now[0] - before[0], now[1] - before[1])
            self.longest = max(self.longest, held)
            before = now

    def _now(self) -> tuple[float, float]:
        """Time in which this thread had a processor, or wanted none; CPU time of all threads."""
        waited = 0 if self._waits is None else int(os.pread(self._waits, 64, 0).split()[1])
        return time.perf_counter() - waited / 1e9, time.process_time()


def waits() -> int | None:
    """Linux says how long a thread waited for a processor."""
    try:
        return os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
    except OSError:
        return None


class Other:
    """The process of upstream and client."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, *words: object) -> str:
        if words:
            assert self._process.stdin is not None
            self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()


async def longest_hold(other: Other, port: int, body: Path, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        ticker = Ticker()
        ticking = asyncio.create_task(ticker.run())
        status = await other.ask(port, body)
        ticking.cancel()
        if status not in ("200", "400", "403"):
            sys.exit(f"the proxy answered {status}")
        best = min(best, ticker.longest)
    return best


def settings(upstream: str, ledger: Path) -> Settings:
    said = {
        "UPSTREAM": f"http://127.0.0.1:{upstream}/api/v1",
        "LISTEN": "127.0.0.1:0",
        "LEDGER": str(ledger),
        "MAX_TOKENS": "1000",
        "RATE_LIMIT": "off",
        "TOTAL_BUDGET": "off",
    }
    environ = {f"KEYPROXY_{name}": value for name, value in said.items()}
    return Settings.from_environ("dev", {"OPENROUTER_API_KEY": KEY, **environ})


async def main(rounds: int, only: str) -> None:
    logs.configure("json", "critical")
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--other", stdin=-1, stdout=-1, limit=2**16
    )
    other = Other(process)
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "body")
        async with running(settings(await other.ask(), Path(folder, "ledger"))) as service:
            port = int(service.addresses[0].rpartition(":")[2])
            for shape in SHAPES:
                for size in SIZES[shape.__name__] if only in shape.__name__ else ():
                    length = body.write_bytes(shape(size * MB)) / MB  # noqa: ASYNC240
                    held = await longest_hold(other, port, body, rounds) * 1000
                    print(
                        f"{shape.__name__:12}{length:6.2f} MB   held {held:6.2f} ms at most,"
                        f" {held / length:5.2f} ms/MB",
                        flush=True,
                    )
    process.kill()
    await process.wait()


async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := (await reader.readline()):
        while not head.endswith(b"\r\n\r\n"):
            head += await reader.readline()
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        left = int(length or 0)
        while left:
            left -= len(await reader.read(min(left, 2**20)))
        is_call = head.startswith(b"POST ")
        answer = ANSWER if is_call else b"{}"
        status = b"200 OK" if is_call else b"404 Not Found"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(answer) + answer)


async def call(port: int, body: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /api/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode())
    writer.write(body)
    answer: Any = await reader.read()
    writer.close()
    return str(answer.split(b" ", 2)[1].decode())


async def be_other() -> None:
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        port, path = line.split()
        print(await call(int(port), Path(path).read_bytes()), flush=True)  # noqa: ASYNC240


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="a word in the name of a shape")
    parser.add_argument("--other", action="store_true", help=argparse.SUPPRESS)
    said = parser.parse_args()
    asyncio.run(be_other() if said.other else main(said.rounds, said.only))
