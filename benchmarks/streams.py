"""What open streams take: memory and descriptors of the real program, with a ledger and a budget.

python benchmarks/streams.py        (Linux; wants 10,000 descriptors for itself)
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

KEY = "sk-or-v1-benchmark-" + "0123456789abcdef" * 4
COUNTS = (100, 500, 1000, 2000)
CALL = b'{"model":"openai/gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"x"}]}'
HEAD = (
    b"POST /api/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: {}\n\n"
)


async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One event, and then nothing; whatever else is asked, it does not have."""
    if (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST"):
        writer.write(ANSWER)
        await reader.read()
    else:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


@asynccontextmanager
async def keyproxy(upstream_port: int) -> AsyncIterator[tuple[int, int]]:
    """Its pid and port."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            "PATH": os.environ["PATH"],
            "OPENROUTER_API_KEY": KEY,
            "KEYPROXY_UPSTREAM": f"http://127.0.0.1:{upstream_port}/api/v1",
            "KEYPROXY_LISTEN": "127.0.0.1:0",
            "KEYPROXY_LEDGER": f"{folder}/ledger.sqlite3",
            "KEYPROXY_RATE_LIMIT": "off",
            "KEYPROXY_MAX_IN_FLIGHT": "100000",
            "KEYPROXY_TOTAL_BUDGET": "1000/day",
            "KEYPROXY_LOG_FORMAT": "json",
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "keyproxy", "dev"),
            cwd=folder,
            env=environ,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        line: dict[str, list[str]] = {}
        while "listen" not in line:
            line = json.loads(await process.stderr.readline())
        try:
            yield process.pid, int(line["listen"][0].rpartition(":")[2])
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()


def show(pid: int, streams: int) -> None:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    files = len(os.listdir(f"/proc/{pid}/fd"))
    print(
        f"{streams:5} streams  {int(found[1]) / 1024:6.1f} MiB  {files:5} descriptors", flush=True
    )


async def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (10_000, 10_000))
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    async with keyproxy(server.sockets[0].getsockname()[1]) as (pid, port):
        show(pid, 0)
        streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        while len(streams) < COUNTS[-1]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(CALL) + CALL)
            await reader.readuntil(b"data: {}\n\n")
            streams.append((reader, writer))
            if len(streams) in COUNTS:
                show(pid, len(streams))


if __name__ == "__main__":
    asyncio.run(main())
