"""``keyproxy explain``: the dry run says what a running keyproxy does."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from keyproxy.__main__ import main
from keyproxy.commands.explained import with_kit
from keyproxy.dry_run import Asked, Sent, steps
from keyproxy.errors import Refusal
from tests.conftest import BODY, CHAT, KEY, SERVE, Start, settings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an environment that says what serve wants to know."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    for name, value in SERVE.items():
        monkeypatch.setenv(f"KEYPROXY_{name}", value)
    return tmp_path


def typed(monkeypatch: pytest.MonkeyPatch, body: Any) -> None:
    """Pipes ``body`` into the command."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(body).encode())))


def test_what_would_be_sent_is_shown_with_the_key_masked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "body.json").write_text(json.dumps(BODY))
    options = ["--title", "My app", "--max-tokens", "9", "--body", "body.json"]
    assert main(["explain", "--serve", *options]) == 0
    shown = capsys.readouterr().out
    assert "POST https://openrouter.ai/api/v1/chat/completions\n" in shown
    assert "X-Title: My app\n" in shown
    assert '"max_tokens": 9}' in shown
    assert "Authorization: Bearer sk-or-v1-tes...def\n" in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("changes", "exit_code"), [({}, 0), ({"tools": [{"type": "web_search"}]}, 1)]
)
def test_without_a_key_it_explains_the_demo(
    changes: dict[str, Any],
    exit_code: int,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A newcomer has none yet, and has calls that are refused."""
    monkeypatch.delenv("OPENROUTER_API_KEY")
    typed(monkeypatch, BODY | changes)
    assert main(["explain"]) == exit_code
    shown = capsys.readouterr()
    assert "as for keyproxy demo: OPENROUTER_API_KEY is not set" in shown.err
    assert "policy" in shown.out
    typed(monkeypatch, BODY)
    assert main(["explain", "--serve"]) == 2


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--path", "/api/v1/responses"],
        ["--path", "/api/v1/messages?beta=true"],
        ["--body", "x"],
    ],
)
def test_a_body_that_is_missing_is_said(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    (here / "x").touch()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(["explain", "--serve", *options]) == 1
    shown = capsys.readouterr().out
    assert "  limits      ok" in shown
    assert "  body        missing  there is no body: name its file with --body," in shown
    assert "415" not in shown


def test_a_path_without_a_body_is_asked_for_by_get(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(["explain", "--serve", "--path", "/api/v1/models"]) == 0
    assert "GET https://openrouter.ai/api/v1/models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "body", "step", "code", "cure"),
    [
        (["--host", "evil.example"], BODY, "host", "host_not_allowed", "KEYPROXY_ALLOWED_HOSTS"),
        (
            ["--origin", "https://a.example"],
            BODY,
            "origin",
            "origin_not_allowed",
            "KEYPROXY_ALLOWED_ORIGINS=https://app.example,https://a.example",
        ),
        (["--credential", KEY], BODY, "credential", "provider_key_sent", ""),
        (["--path", "/api/v1/keys"], BODY, "endpoint", "endpoint_not_allowed", ""),
        (["--max-body", "10"], BODY, "body", "body_too_large", "--max-body 128\n"),
        ([], BODY | {"model": "x/y"}, "policy", "model_not_allowed", "KEYPROXY_ALLOWED_MODELS"),
        ([], BODY | {"brand_new": 1}, "policy", "field_not_allowed", "KEYPROXY_EXTRA_FIELDS"),
    ],
)
def test_a_refusal_names_its_step_and_the_setting(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    body: Any,
    step: str,
    code: str,
    cure: str,
) -> None:
    typed(monkeypatch, body)
    assert main(["explain", "--serve", *options]) == 1
    shown = capsys.readouterr().out
    [line] = [line for line in shown.splitlines() if " refused " in line]
    assert line.split()[0] == step
    assert code in line
    assert cure in shown
    assert KEY not in shown


def test_a_base_url_that_is_not_right_is_answered_with_the_right_one(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``dev`` itself does, which explain speaks for."""
    typed(monkeypatch, BODY)
    assert main(["explain", "--allowed-hosts=localhost", "--path=/v1/chat/completions"]) == 1
    assert "the base URL is http://localhost:8484/api/v1\n" in capsys.readouterr().out


def test_all_shows_the_policy_in_one_screen(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--serve", "--all", "--max-tokens", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40
    assert lines[0].split() == ["chat", "responses", "messages"]
    [allowed] = [line for line in lines if line.startswith("an allowed model")]
    assert "sent, with max_tokens=100" in allowed
    [other] = [line for line in lines if line.startswith("another model")]
    assert other.count("403 model_not_allowed") == 3
    assert any(line.endswith("403 origin_not_allowed") for line in lines)


def test_wrong_settings_are_listed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--rate-limit", "often"]) == 2
    assert "KEYPROXY_RATE_LIMIT" in capsys.readouterr().err


def test_all_shows_the_policy_behind_the_credential(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator reviews the policy; what its clients show is no part of it."""
    (here / "keyproxy.toml").write_text(f'[apps.ios]\nclient_auth="token"\n{IOS}')
    assert main(["explain", "--serve", "--all", "--app", "ios"]) == 0
    shown = capsys.readouterr().out
    assert "clients of the app ios: holders of a client token" in shown
    assert "credential_missing" not in shown
    assert "403 model_not_allowed" in shown
    typed(monkeypatch, BODY)
    assert main(["explain", "--serve", "--app", "ios"]) == 0
    assert "a good one of the app ios is assumed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["explain", "--serve", "--app", "nobody"])


def test_a_session_would_be_opened_where_apps_ask_for_one(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, {})
    asked = ["explain", "--serve", "--path", "/session", "--method", "POST"]
    said = ["--client-auth", "session", "--session-secret-file", "secret"]
    (here / "secret").write_text("kU3v9xQ2" * 5)
    assert main([*asked, *said]) == 0
    assert "a session of the app default would be opened" in capsys.readouterr().out
    typed(monkeypatch, {})
    assert main(asked) == 1
    assert "endpoint_not_allowed" in capsys.readouterr().out


def test_the_line_to_paste_is_one_of_the_apps_own(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = '[apps.web]\nallowed_origins="https://web.example"\nallowed_models="anthropic/*"'
    (here / "keyproxy.toml").write_text(toml)
    typed(monkeypatch, BODY)
    assert main(["explain", "--serve", "--origin", "https://web.example"]) == 1
    assert "[apps.web] of the TOML file" in capsys.readouterr().out


IOS = f'client_tokens = "phone:{"ab" * 32}"'


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        BODY | {"model": "x/y"},
        BODY | {"plugins": []},
        {"messages": []},
        BODY | {"max_tokens": 500},
        [],
    ],
)
async def test_the_dry_run_says_what_the_running_program_does(start: Start, body: Any) -> None:
    variables = {**SERVE, "MAX_TOKENS": "100"}
    proxy = await start("serve", **variables)
    dry = settings("serve", **variables)
    asked = Asked(body=json.dumps(body).encode(), fields={"Host": "127.0.0.1"})
    *_, last = await with_kit(dry, lambda kit: steps(kit, asked))
    async with proxy.post(body) as answer:
        if isinstance(last, Refusal):
            assert (answer.status, answer.headers["X-Keyproxy-Code"]) == (last.status, last.code)
            assert proxy.upstream.calls == []
        else:
            assert isinstance(last, Sent)
            assert answer.status == 200
            assert proxy.upstream.calls[0].body == last.body


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("TRACE", CHAT, {}),
        ("POST", CHAT, {"Upgrade": "websocket"}),
        ("POST", CHAT, {"Expect": "nothing"}),
        ("POST", CHAT, {"Content-Type": "text/plain"}),
        ("POST", CHAT, {"Origin": "https://evil.example"}),
        ("POST", CHAT, {"Host": "evil.example"}),
        ("OPTIONS", CHAT, {"Origin": "https://x.example", "Access-Control-Request-Method": "POST"}),
        ("POST", CHAT, {"Authorization": f"Bearer {KEY}"}),
        ("POST", f"{CHAT}?x=1", {}),
        ("POST", "/session", {}),
        ("GET", "/api/v1/models", {}),
        ("GET", "/api/v1/model/x/y", {}),
        ("PUT", CHAT, {}),
    ],
)
async def test_the_dry_run_refuses_what_the_running_program_refuses(
    start: Start, method: str, path: str, fields: dict[str, str]
) -> None:
    """Each call brings a body, which some have no use for."""
    proxy, dry = await start("serve"), settings("serve", **SERVE)
    raw = json.dumps(BODY).encode()
    head = {"Host": "127.0.0.1", "Content-Type": "application/json", **fields}
    asked = Asked(method, path, raw, head)
    *_, last = await with_kit(dry, lambda kit: steps(kit, asked))
    assert isinstance(last, Refusal)
    async with proxy.session.request(
        method, f"{proxy.url}{path}", data=raw, headers=head
    ) as answer:
        assert (answer.status, answer.headers["X-Keyproxy-Code"]) == (last.status, last.code)
    assert proxy.upstream.calls == []
