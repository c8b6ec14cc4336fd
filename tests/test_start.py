"""What a start loads: counted, not timed."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from limits import parse_many

from keyproxy.settings import Settings
from keyproxy.settings.grammar.plain import Rate, usual_rates
from keyproxy.transport.client import open_clients
from tests.conftest import BODY, CHAT, KEY
from tests.fake_upstream import FakeUpstream
from tests.program import environment, started

_MODULES = 528
"""That ``serve`` has loaded when it has answered a call, the interpreter's own included: 520."""
_FOR_SOME = {
    *("cryptography", "dotenv", "jwt", "limits", "publicsuffixlist", "pygments", "redis"),
    *("rich.table", "tomllib"),
    *("keyproxy.attempts", "keyproxy.routing", "keyproxy.demo.upstream", "keyproxy.limits.shared"),
    *("keyproxy.admin.listener", "keyproxy.admin.recent", "keyproxy.admin.tally"),
}
_OF_THE_SERVER = {"aiohttp", "asyncio", "sqlite3", "ssl", "structlog"}


def loaded(told: str) -> set[str]:
    """The modules that a process with ``PYTHONPROFILEIMPORTTIME`` names on stderr."""
    return set(re.findall(r"^import time: .*\| +([\w.]+)$", told, re.M))


async def test_serve_loads_what_its_settings_need(tmp_path: Path, upstream: FakeUpstream) -> None:
    variables = {
        "KEYPROXY_LEDGER": str(tmp_path / "ledger.sqlite3"),
        "KEYPROXY_UPSTREAM": upstream.base_url,
        "KEYPROXY_ALLOWED_HOSTS": "127.0.0.1",
        "KEYPROXY_ALLOWED_MODELS": "openai/*",
        "KEYPROXY_ALLOWED_ORIGINS": "https://app.example",
        "KEYPROXY_CLIENT_AUTH": "none",
        "KEYPROXY_RATE_LIMIT": "20/minute; 300/days",
        "KEYPROXY_TRUSTED_PROXIES": "none",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    async with started("serve", tmp_path, **variables) as program:
        async with (
            aiohttp.ClientSession() as session,
            session.post(program.url + CHAT, json=BODY) as answer,
        ):
            assert answer.status == 200
        await program.stop()
    modules = loaded(program.text)
    assert _OF_THE_SERVER | {"keyproxy.proxy"} <= modules
    assert modules & _FOR_SOME == set()
    assert len(modules) <= _MODULES


@pytest.mark.parametrize("words", ["--help", "serve --help", "check --help", "usage --help"])
def test_help_loads_no_server(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "keyproxy", *words.split()],
        env=environment(PYTHONPROFILEIMPORTTIME="1"),
        capture_output=True,
        text=True,
        check=True,
    )
    modules = loaded(done.stderr)
    assert "keyproxy.commands" in modules
    assert modules & (_FOR_SOME | _OF_THE_SERVER - {"sqlite3", "ssl"}) == set()


def test_contexts_that_are_not_ours_trust_nobody_and_the_environment_stays() -> None:
    code = (
        "import os\n"
        "before = dict(os.environ)\n"
        "from keyproxy.commands.run import load_server\n"
        "load_server()\n"
        "from aiohttp import connector\n"
        "made = connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED\n"
        "print(before == os.environ, [len(each.get_ca_certs()) for each in made])\n"
        "import rich.table\n"
    )
    for more in ({}, {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(**more),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "True [0, 0]\n"


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="their stores are no files")
async def test_beside_a_plain_upstream_the_store_is_read_when_one_connects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    settings = Settings.from_environ(
        "dev", {"OPENROUTER_API_KEY": KEY, "KEYPROXY_UPSTREAM": "http://127.0.0.1:1/v1"}
    )
    async with open_clients(settings) as (_, pools):
        pool = pools.of(settings.upstream)
        trustme.CA().cert_pem.write_to_path(tmp_path / "system.pem")
        made = [
            pool.trust.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="api.example")
            for _ in range(2)
        ]
        believing = made[0].context
        assert made[1].context is believing
        assert len(believing.get_ca_certs()) == 1
        assert (believing.verify_mode, believing.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert (pool.trust.verify_mode, pool.trust.check_hostname) == (ssl.CERT_REQUIRED, True)


_NUMBER = st.integers(0, 10**12 - 1).map(str) | st.from_regex(r"0{0,3}[0-9]{1,9}", fullmatch=True)
_UNIT = st.sampled_from(["second", "minute", "hour", "day", "month", "year", "Day", "fortnight"])
_SPACE = st.sampled_from(["", "", " ", "\t"])
_ONE = st.tuples(
    _SPACE, _NUMBER, _SPACE, st.sampled_from("//:"), _SPACE, _UNIT, st.sampled_from(["", "s"])
).map("".join)
_MANY = st.lists(_ONE, max_size=3).map(";".join)


@given(_MANY | st.text("0123/; perdaysthou,|", max_size=20))
def test_what_we_read_ourselves_limits_reads_the_same(text: str) -> None:
    if (ours := usual_rates(text)) is not None:
        assert ours == [Rate(rate.amount, rate.get_expiry()) for rate in parse_many(text)]


def test_the_usual_notation_is_read_without_limits() -> None:
    assert usual_rates("20/minute;300/days") == [Rate(20, 60), Rate(300, 86400)]
    assert usual_rates("1000000000/day") == [Rate(10**9, 86400)]  # as good as none
    assert usual_rates("2/60 seconds") is usual_rates("2 per day") is usual_rates("") is None
