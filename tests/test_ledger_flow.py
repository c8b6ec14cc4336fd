"""Calls in the ledger, from the running program to the table of `keyproxy usage`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import stat
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from keyproxy.__main__ import main
from tests.conftest import BODY, CHAT, SERVE, Start
from tests.fake_upstream import FakeUpstream, event_stream
from tests.program import Program, environment, started


async def ask(program: Program, **more: Any) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(program.url + CHAT, json=BODY | more) as answer,
    ):
        await answer.read()
        return answer.status


def rows(path: Path) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT app, client, models, http_status, cost, cost_source, is_settled, input_tokens"
            " FROM calls ORDER BY begun_at"
        ).fetchall()


def book(tmp_path: Path, upstream: FakeUpstream, **more: str) -> dict[str, str]:
    return {
        "KEYPROXY_LEDGER": str(tmp_path / "ledger.sqlite3"),
        "KEYPROXY_UPSTREAM": upstream.base_url,
        **more,
    }


async def test_each_call_is_a_row_and_usage_shows_it(
    tmp_path: Path, upstream: FakeUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = book(tmp_path, upstream)
    async with started("dev", tmp_path, **variables) as program:
        assert await ask(program) == 200
        assert await ask(program, model="x/@") == 403
        await program.stop()
    path = tmp_path / "ledger.sqlite3"
    told = ("default", "127.0.0.1", "openai/gpt-4o-mini", 200, 88_000_000, "exact", 1, 14)
    assert rows(path) == [told]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert main(["usage", "--by", "model", "--json", "--ledger", str(path)]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert (row["model"], row["calls"], row["spend_usd"]) == ("openai/gpt-4o-mini", 1, "0.000088")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
async def test_a_call_is_booked_however_early_its_process_is_killed(
    tmp_path: Path, upstream: FakeUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    """``keyproxy usage`` knows of it, and what the one before has cost."""
    path, killed = tmp_path / "ledger.sqlite3", asyncio.Event()
    variables = book(tmp_path, upstream, KEYPROXY_BUDGET="1/day")
    async with started("dev", tmp_path, **variables) as program:

        async def kill(request: web.Request) -> web.StreamResponse:
            program.signal(signal.SIGKILL)
            await killed.wait()
            return web.Response()

        assert await ask(program) == 200
        upstream.answer = kill
        with pytest.raises(aiohttp.ClientError):
            await ask(program)
        await program.ended()
    killed.set()
    assert main(["usage", "--by", "status", "--json", "--ledger", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)["rows"]
    assert {row["status"]: row["calls"] for row in found} == {"200": 1, "under way": 1}
    assert [row["exact_usd"] for row in found if row["status"] == "200"] == ["0.000088"]
    assert [each.name for each in tmp_path.glob("*-spool-*")] == []


async def spend_and_restart(
    directory: Path, upstream: FakeUpstream, variables: dict[str, str]
) -> None:
    """Two calls spend the budget, and a restart changes nothing."""
    async with started("dev", directory, **variables) as program:
        assert [await ask(program), await ask(program)] == [200, 200]
        await program.stop()
    async with started("dev", directory, **variables) as program:
        assert await ask(program) == 402
    assert len(upstream.calls) == 2


async def test_a_restart_remembers_what_was_spent(tmp_path: Path, upstream: FakeUpstream) -> None:
    variables = book(tmp_path, upstream, KEYPROXY_BUDGET="0.0001/month")
    await spend_and_restart(tmp_path, upstream, variables)


async def test_each_folder_has_a_ledger_and_a_budget_of_its_own_in_dev(
    tmp_path: Path,
    upstream: FakeUpstream,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = tmp_path / "state"
    variables = book(tmp_path, upstream, KEYPROXY_BUDGET="0.0001/month", XDG_STATE_HOME=str(state))
    variables["KEYPROXY_LEDGER"] = "default"
    for name, asked in (("one", [200, 200]), ("two", [200, 200]), ("one", [402])):
        (tmp_path / name).mkdir(exist_ok=True)
        async with started("dev", tmp_path / name, **variables) as program:
            assert [await ask(program) for _ in asked] == asked
            await program.stop()
    [one] = state.glob("keyproxy/one-????????.sqlite3")
    assert stat.S_IMODE(one.parent.stat().st_mode) == 0o700
    assert (len(rows(one)), len(upstream.calls)) == (2, 4)
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.delenv("KEYPROXY_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path / "one")
    assert main(["usage"]) == 0
    assert str(one) in capsys.readouterr().out
    assert main(["usage", "--serve"]) == 1
    assert f"no ledger at {state}/keyproxy/ledger.sqlite3" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main(["usage"]) == 1
    assert f"nor at {state}/keyproxy/" in capsys.readouterr().err
    assert main(["usage", "--ledger", str(one), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ledger"] == str(one)


async def test_serve_books_in_the_folder_that_its_service_manager_names(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    """Each release runs in a folder of its own, and the budget goes on."""
    (tmp_path / "state").mkdir()
    variables = book(tmp_path, upstream, STATE_DIRECTORY=str(tmp_path / "state"))
    variables |= {f"KEYPROXY_{name}": text for name, text in SERVE.items()}
    variables |= {"KEYPROXY_LEDGER": "", "KEYPROXY_ALLOWED_HOSTS": "any-ip"}
    variables |= {"KEYPROXY_TOTAL_BUDGET": "0.0001/month", "KEYPROXY_UNPRICED": "allow"}
    for release, asked in (("one", [200, 200]), ("two", [402])):
        (tmp_path / release).mkdir()
        async with started("serve", tmp_path / release, **variables) as program:
            line = await program.said("listening")
            assert line["ledger"] == str(tmp_path / "state" / "ledger.sqlite3")
            assert [await ask(program) for _ in asked] == asked
            await program.stop()
    assert len(upstream.calls) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open is replaced")
async def test_a_ledger_that_is_overwritten_gives_nobody_a_new_budget(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    variables = book(tmp_path, upstream, KEYPROXY_BUDGET="0.00015/month")
    path = Path(variables["KEYPROXY_LEDGER"])
    async with started("dev", tmp_path, **variables) as program:
        assert await ask(program) == 200
        path.write_bytes(b"")
        assert await ask(program) == 200
        await program.said(
            "the ledger was overwritten; calls are booked in the file that is there now"
        )
        assert await ask(program) == 402
        await program.stop()
    assert len(upstream.calls) == 2
    assert len(rows(path)) in (1, 2)  # the end of the first may have come behind the change


async def test_a_restart_remembers_the_bills_of_providers(
    tmp_path: Path, upstream: FakeUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the operator's own key at a provider (BYOK), the upstream takes its fee only."""
    byok = (Path(__file__).parent / "wire" / "chat-nonstream-byok.json").read_bytes()

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=byok, content_type="application/json")

    upstream.answer = answer
    variables = book(tmp_path, upstream, KEYPROXY_BUDGET="0.0001/month")
    await spend_and_restart(tmp_path, upstream, variables)
    asked = ["usage", "--ledger", variables["KEYPROXY_LEDGER"]]
    assert main([*asked, "--json"]) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert (total["spend_usd"], total["counted_usd"]) == ("0.0000088", "0.0001848")
    assert main(asked) == 0
    assert "Budgets count 0.00018 USD: the bills of providers" in capsys.readouterr().out


async def test_a_cut_call_of_a_model_without_a_price_has_no_cost(
    tmp_path: Path, upstream: FakeUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        await response.write(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    upstream.answer = cut
    variables = book(tmp_path, upstream)
    async with started("dev", tmp_path, **variables) as program:
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(program, stream=True)
        upstream.answer = None
        assert await ask(program) == 200
        await program.stop()
    path = tmp_path / "ledger.sqlite3"
    assert [row[4:6] for row in rows(path)] == [(None, "estimated"), (88_000_000, "exact")]
    asked = ["usage", "--ledger", str(path)]
    assert main([*asked, "--json"]) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert (total["calls"], total["unknown_calls"]) == (2, 1)
    assert total["spend_usd"] == "0.000088"
    assert main(asked) == 0
    assert "Calls of unknown cost, which are in no sum: 1," in capsys.readouterr().out


async def test_a_ledger_that_cannot_be_written_is_a_fault_where_it_was_named(
    tmp_path: Path,
) -> None:
    variables = environment(KEYPROXY_LEDGER="/proc/keyproxy/ledger.sqlite3")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keyproxy", "dev"),
        cwd=tmp_path,
        env=variables,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"KEYPROXY_LEDGER" in said


async def test_an_unwritable_default_place_is_a_warning(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    (tmp_path / "file").write_text("in the way")
    variables = book(tmp_path, upstream, XDG_STATE_HOME=str(tmp_path / "file"))
    variables["KEYPROXY_LEDGER"] = "default"
    async with started("dev", tmp_path, **variables) as program:
        await program.said("calls are not booked in a ledger")
        line = await program.said("listening")
        assert line["ledger"] == "off"
        assert await ask(program) == 200


async def test_a_budget_that_serve_counts_alone_wants_a_ledger_that_can_be_written(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    (tmp_path / "file").write_text("in the way")
    variables = book(tmp_path, upstream, XDG_STATE_HOME=str(tmp_path / "file"))
    variables |= {f"KEYPROXY_{name}": text for name, text in SERVE.items()}
    variables["KEYPROXY_LEDGER"] = "default"
    async with started("serve", tmp_path, **variables) as program:
        await program.said("calls are not booked in a ledger")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keyproxy", "serve"),
        cwd=tmp_path,
        env=environment(**variables, KEYPROXY_BUDGET="5/day"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"KEYPROXY_LEDGER" in said
    assert upstream.calls == []


async def test_prompts_and_credentials_are_not_in_the_ledger(
    tmp_path: Path, upstream: FakeUpstream, start: Start
) -> None:
    path = tmp_path / "ledger.sqlite3"
    proxy = await start(LEDGER=str(path))
    async with proxy.post(headers={"x-api-key": "some-credential-of-a-client"}) as answer:
        await answer.read()
    await proxy.service.close()
    content = b"".join(file.read_bytes() for file in tmp_path.glob("ledger*"))
    assert b"gpt-4o-mini" in content
    for secret in (b"Gr\xc3\xbc\xc3\x9fe", b"some-credential", b"sk-or-v1-test-0123456789abcdef"):
        assert secret not in content
