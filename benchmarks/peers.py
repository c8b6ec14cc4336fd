"""The proxies that ``compare.py`` measures, each a process of its own, on a core of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from load import KEY, Load, request

HERE = Path(__file__).parent
PHONE_DIGEST = "66ec33bf9217f06e755580f95301f9aca2e6738fd9fcb86d4c3a93c05987903b"
KEYPROXY = {
    "KEYPROXY_ALLOWED_HOSTS": "127.0.0.1",
    "KEYPROXY_ALLOWED_ORIGINS": "https://app.example",
    "KEYPROXY_ALLOWED_MODELS": "openai/*",
    "KEYPROXY_CLIENT_AUTH": "token",
    "KEYPROXY_CLIENT_TOKENS": f"phone:{PHONE_DIGEST}",
    "KEYPROXY_TRUSTED_PROXIES": "none",
    "KEYPROXY_RATE_LIMIT": "10000000/minute;1000000000/day",
    "KEYPROXY_MAX_IN_FLIGHT": "100000",
    "KEYPROXY_BUDGET": "1000/day",
    "KEYPROXY_TOTAL_BUDGET": "100000/day",
    "KEYPROXY_LOG_LEVEL": "info",
    "KEYPROXY_LOG_FORMAT": "json",
    "KEYPROXY_REFERER": "https://app.example",
}
BY_ADDRESS = {"KEYPROXY_CLIENT_AUTH": "none", "KEYPROXY_TRUSTED_PROXIES": "loopback"}
WITHOUT = {  # what `bare` has not
    "KEYPROXY_CLIENT_AUTH": "none",
    "KEYPROXY_BUDGET": "",
    "KEYPROXY_TOTAL_BUDGET": "off",
    "KEYPROXY_LEDGER": "off",
    "KEYPROXY_LOG_LEVEL": "warning",
}
NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
    access_log off; tcp_nodelay on; keepalive_requests 10000000;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    limit_req_zone $binary_remote_addr zone=client:10m rate=1000000r/s;
    upstream provider {{ server {address}; keepalive 512; keepalive_requests 10000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        client_max_body_size 20m; client_body_buffer_size 64k;
        location /api/v1/ {{
            limit_req zone=client burst=100000 nodelay;
            proxy_pass {scheme}://provider;
            proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 300s;
            proxy_set_header Connection ""; proxy_set_header Host localhost;
            proxy_set_header Authorization "Bearer {key}"; proxy_set_header Origin "";
            proxy_set_header HTTP-Referer "https://app.example";
            proxy_ssl_server_name on; proxy_ssl_name localhost;
            {trust}
        }}
    }}
}}
"""


class Place(NamedTuple):
    """Where proxies run: which core, if any of its own, and which files."""

    core: int | None
    folder: Path
    ca_file: Path | None
    nginx: str | None


class Peer(NamedTuple):
    """A proxy that answers; without a pid it is the upstream itself."""

    port: int
    pid: int | None = None
    cold_seconds: float = 0.0

    def cpu(self) -> float:
        """Seconds of CPU time so far, of all its threads."""
        if self.pid is None:
            return 0.0
        nanoseconds = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(FileNotFoundError):  # a thread that ended meanwhile
                nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def environment(base: str, place: Place, port: int) -> dict[str, str]:
    """A keyproxy with everything on."""
    ca = {} if place.ca_file is None else {"KEYPROXY_UPSTREAM_CA_FILE": str(place.ca_file)}
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(HERE.parent),
        "OPENROUTER_API_KEY": KEY,
        "KEYPROXY_UPSTREAM": f"{base}/api/v1",
        "KEYPROXY_LISTEN": f"127.0.0.1:{port}",
        "KEYPROXY_LEDGER": str(place.folder / f"{port}.sqlite3"),
        **KEYPROXY,
        **ca,
    }


def command(name: str, base: str, place: Place, port: int) -> tuple[list[str], dict[str, str]]:
    env = environment(base, place, port)
    if name == "nginx":
        assert place.nginx is not None
        trust = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {place.ca_file};"
        scheme, _, address = base.partition("://")
        config = place.folder / f"{port}.conf"
        text = NGINX.format(
            folder=place.folder, port=port, scheme=scheme, key=KEY,
            address=address.replace("localhost", "127.0.0.1"),
            trust=trust if place.ca_file is not None else "",
        )  # fmt: skip
        config.write_text(text)
        return [place.nginx, "-p", str(place.folder), "-c", str(config)], {}
    if name == "naive":
        ca = {} if place.ca_file is None else {"SSL_CERT_FILE": str(place.ca_file)}
        return [sys.executable, str(HERE / "naive.py"), str(port), base, KEY], {**env, **ca}
    more = {"keyproxy": {}, "bare": WITHOUT, "by address": BY_ADDRESS}[name]
    env = {name: value for name, value in {**env, **more}.items() if value}
    return [sys.executable, "-m", "keyproxy", "serve"], env


@asynccontextmanager
async def started(name: str, load: Load, place: Place) -> AsyncIterator[Peer]:
    """A proxy that has answered its first call, ended at the end; ``direct`` is no proxy."""
    if name == "direct":
        yield Peer(int(load.base.rpartition(":")[2]))
        return
    port, base = free_port(), load.base if place.ca_file is None else load.base_tls
    arguments, env = command(name, base, place, port)
    log = place.folder / f"{port}.log"
    began = time.perf_counter()
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *arguments, cwd=place.folder, env=env, stdout=file, stderr=file
        )
    try:
        if place.core is not None:
            os.sched_setaffinity(process.pid, {place.core})
        async with asyncio.timeout(30):
            while not await answers(port):
                if process.returncode is not None:
                    raise SystemExit(f"{name} ended:\n{log.read_text()[-2000:]}")
                await asyncio.sleep(0.002)
        yield Peer(port, process.pid, time.perf_counter() - began)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def answers(port: int) -> bool:
    """Whether a call is answered; 503 is how keyproxy says that prices are still to come."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request().replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        answer = await reader.read()
        writer.close()
    except OSError:
        return False
    if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503")):
        raise SystemExit(f"the proxy answered {answer[:500].decode(errors='replace')}")
    return answer.startswith(b"HTTP/1.1 200")
