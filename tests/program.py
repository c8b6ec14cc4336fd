"""The real program as a process of its own: started, signalled, ended by pid."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.conftest import KEY

DEADLINE_SECONDS = 20.0


class Program:
    """A running ``keyproxy``; its log lines are JSON objects."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.text = ""
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @property
    def url(self) -> str:
        [line] = [line for line in self.lines if line["message"] == "listening"]
        return f"http://{line['listen'][0]}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def said(self, message: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """A log line with this message and these fields; waits until there are ``count``.

        ``…`` at the end of the message stands for any text.
        """
        start, *is_open = message.split("…")

        def found() -> list[dict[str, Any]]:
            return [
                line
                for line in self.lines
                if (line["message"] == message or (is_open and line["message"].startswith(start)))
                and fields.items() <= line.items()
            ]

        async with asyncio.timeout(DEADLINE_SECONDS), self._news:
            await self._news.wait_for(lambda: len(found()) >= count)
        return found()[0]

    async def shown(self, pattern: str) -> re.Match[str]:
        """The first match of ``pattern`` in all that was written; waits until there is one."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._news:
            await self._news.wait_for(lambda: re.search(pattern, self.text))
        found = re.search(pattern, self.text)
        assert found
        return found

    async def ended(self) -> int:
        async with asyncio.timeout(DEADLINE_SECONDS):
            code = await self.process.wait()
            await self._reading
        return code

    async def stop(self) -> None:
        """Have it end as a platform does, and well."""
        self.signal(signal.SIGTERM)
        assert await self.ended() == 0

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            async with self._news:
                self.text += raw.decode()
                with contextlib.suppress(ValueError):
                    self.lines.append(json.loads(raw))
                self._news.notify_all()


def environment(**variables: str) -> dict[str, str]:
    """A clean environment with a key, JSON logs and a free port."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "HOME") if name in os.environ}
    defaults = {
        "OPENROUTER_API_KEY": KEY,
        "KEYPROXY_LISTEN": "127.0.0.1:0",
        "KEYPROXY_LOG_FORMAT": "json",
        "KEYPROXY_LEDGER": "off",
        "KEYPROXY_TOTAL_BUDGET": "off",
        "KEYPROXY_ADMIN": "off",
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "PYTHONWARNINGS": "error",
    }
    return {name: value for name, value in (kept | defaults | variables).items() if value}


def ran(
    command: str, directory: Path, *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """``keyproxy COMMAND`` in ``directory``, which ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "keyproxy", command, *options],
        cwd=directory,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


@asynccontextmanager
async def started(
    command: str, directory: Path, *options: str, before: Sequence[str] = (), **variables: str
) -> AsyncIterator[Program]:
    """``keyproxy COMMAND`` in ``directory``, listening; ``before`` is what runs it."""
    process = await asyncio.create_subprocess_exec(
        *before,
        sys.executable,
        "-m",
        "keyproxy",
        command,
        *options,
        cwd=directory,
        env=environment(**variables),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    program = Program(process)
    try:
        await program.said("listening")
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await program.ended()
