"""Where settings come from: layers, files, and what is said of those that cannot be read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from keyproxy.errors import SettingsFaults
from keyproxy.settings import ROWS, Mode, Rate
from keyproxy.settings.advice import odd
from keyproxy.settings.setting import toml_key
from keyproxy.settings.sources import Sources
from keyproxy.settings.table import Table

KEY = "sk-or-v1-bench-0123456789abcdef"
SECOND_KEY = "sk-or-v1-other-fedcba9876543210"


def sources(
    directory: Path,
    environ: Mapping[str, str] | None = None,
    *,
    mode: Mode = "dev",
    options: Mapping[str, str] | None = None,
    env_file: Path | None = None,
) -> Sources:
    if environ is None:
        environ = {"OPENROUTER_API_KEY": KEY}
    return Sources(mode, options or {}, environ, directory, env_file)


def faults(of: Sources) -> str:
    with pytest.raises(SettingsFaults) as caught:
        of.read()
    return str(caught.value)


# --- layers --------------------------------------------------------------------------------


def test_higher_layer_wins(tmp_path: Path) -> None:
    (tmp_path / "keyproxy.toml").write_text('title = "toml"')
    titles = []

    def note(**more: Mapping[str, str]) -> None:
        environ = {"OPENROUTER_API_KEY": KEY, **more.get("environ", {})}
        read = sources(tmp_path, environ, options=more.get("options")).read()
        titles.append(read.title)

    note()
    (tmp_path / ".env").write_text("KEYPROXY_TITLE=env")
    note()
    (tmp_path / ".env.local").write_text("KEYPROXY_TITLE=local")
    note()
    note(environ={"KEYPROXY_TITLE": "environment"})
    note(environ={"KEYPROXY_TITLE": "environment"}, options={"KEYPROXY_TITLE": "option"})
    assert titles == ["toml", "env", "local", "environment", "option"]


def test_empty_text_leaves_the_word_to_the_layer_below(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEYPROXY_TITLE=env")
    read = sources(tmp_path, {"OPENROUTER_API_KEY": KEY, "KEYPROXY_TITLE": " "}).read()
    assert read.title == "env"


def test_env_file_replaces_the_usual_two(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEYPROXY_TITLE=usual\nKEYPROXY_REFERER=usual")
    (tmp_path / "other").write_text("KEYPROXY_TITLE=other")
    read = sources(tmp_path, env_file=Path("other")).read()
    assert (read.title, read.referer) == ("other", None)


def test_missing_env_file_is_a_fault(tmp_path: Path) -> None:
    assert "--env-file is 'none.env'" in faults(sources(tmp_path, env_file=Path("none.env")))


@pytest.mark.parametrize(
    ("higher", "lower"),
    [
        ("OPENROUTER_API_KEY=" + KEY, "OPENROUTER_API_KEY_FILE=missing"),
        ("OPENROUTER_API_KEY_FILE=key", "OPENROUTER_API_KEY=" + SECOND_KEY),
    ],
)
def test_key_or_its_file_in_a_higher_layer_wins(tmp_path: Path, higher: str, lower: str) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / ".env.local").write_text(higher)
    (tmp_path / ".env").write_text(lower)
    assert [key.reveal() for key in sources(tmp_path, {}).read().keys] == [KEY]


@pytest.mark.parametrize("name", [".env.local", ".env"])
def test_key_beside_its_file_in_one_layer_is_one_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / name).write_text(f"OPENROUTER_API_KEY={KEY}\nOPENROUTER_API_KEY_FILE=key\n")
    with pytest.raises(SettingsFaults) as caught:
        sources(tmp_path, {}).read()
    [fault] = caught.value.faults
    assert f"in {name}" in str(fault)


def test_faults_of_all_layers_come_together_with_their_places(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEYPROXY_MAX_BODY=huge\n")
    (tmp_path / "keyproxy.toml").write_text('log_level = "loud"\nlisten_on = 1\n')
    text = faults(sources(tmp_path, options={"KEYPROXY_LISTEN": "8484"}))
    assert "KEYPROXY_MAX_BODY is 'huge' (in .env)" in text
    assert "KEYPROXY_LOG_LEVEL is 'loud' (in keyproxy.toml)" in text
    assert '\n    log_level = "warning"' in text
    assert "KEYPROXY_LISTEN is '8484' (on the command line)" in text
    assert "listen_on (in keyproxy.toml) is not a setting" in text


def test_key_in_a_variable_of_the_page_is_found_in_env_files(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"VITE_OPENROUTER_API_KEY={KEY}\n")
    text = faults(sources(tmp_path))
    assert "VITE_OPENROUTER_API_KEY" in text
    assert "(in .env)" in text
    assert KEY not in text


def test_demo_ignores_every_key_and_upstream(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "OPENROUTER_API_KEY=x\nOPENROUTER_API_KEY_FILE=missing\nKEYPROXY_UPSTREAM=nonsense\n"
    )
    assert sources(tmp_path, {}, mode="demo").read().keys == ()


@pytest.mark.parametrize(
    ("environ", "has_key"),
    [
        ({}, False),
        ({"OPENROUTER_API_KEY": " "}, False),
        ({"OPENROUTER_API_KEY": "x"}, True),
        ({"OPENROUTER_API_KEY_FILE": "missing"}, True),
    ],
)
def test_why_no_key_says_whether_one_was_named(
    tmp_path: Path, environ: dict[str, str], has_key: bool
) -> None:
    assert (sources(tmp_path, environ).why_no_key() is None) is has_key


# --- .env ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfKEYPROXY_TITLE=My app\r\nKEYPROXY_REFERER=x\r\n",
        b"# a comment\nexport KEYPROXY_TITLE='My app' # another\nKEYPROXY_REFERER=\"x\"\n",
    ],
)
def test_env_files_of_all_editors_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    read = sources(tmp_path).read()
    assert (read.title, read.referer) == ("My app", "x")


def test_nothing_is_expanded(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEYPROXY_TITLE=${HOME}$HOME\n")
    assert sources(tmp_path).read().title == "${HOME}$HOME"


@pytest.mark.parametrize("name", [".env", "keyproxy.toml"])
def test_file_that_is_no_text_is_a_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("KEYPROXY_TITLE=x".encode("utf-16"))
    assert f"{name} is no UTF-8 text" in faults(sources(tmp_path))


LINES = "# colours\nTITLE=grün\n"
KEY_LINE = f"OPENROUTER_API_KEY={KEY}\r\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (LINES.encode() + KEY_LINE.encode("utf-16-le"), ", line 3 is no UTF-8 text: it holds zero"),
        (LINES.encode() + KEY_LINE.encode("utf-16"), ", line 3 is no UTF-8 text: it holds zero"),
        (LINES.encode() + KEY_LINE.encode("utf-16-be"), ", line 3 is no UTF-8 text: it holds zero"),
        (KEY_LINE.encode("utf-16"), " is no UTF-8 text: it is UTF-16"),
        (KEY_LINE.encode("utf-16-le"), ", line 1 is no UTF-8 text: it holds zero"),
        (f"{LINES}{KEY_LINE}A=\0\n".encode(), ", line 4 is no UTF-8 text: it holds zero"),
        (f"A=1\r\n{LINES}".encode("latin-1"), ", line 3 is no UTF-8 text: it holds letters"),
        (f"{LINES}A=“b”\n".encode("cp1252", "replace"), ", line 2 is no UTF-8 text: it holds l"),
        (LINES.encode() + b"A=1\rB=\xe9\n", ", line 4 is no UTF-8 text: it holds letters"),
        (f"{LINES}\ufeff{KEY_LINE}".encode(), ", line 3 is no UTF-8 text: it holds an invisible"),
        (f"\ufeff\ufeff{KEY_LINE}".encode(), ", line 1 is no UTF-8 text: it holds an invisible"),
        (f"{LINES}$env:{KEY_LINE}".encode(), ", line 3 is no name that keyproxy reads"),
        (f"{LINES}OPENROUTER\u200b_API_KEY={KEY}".encode(), ", line 3 is no name that keyproxy"),
    ],
)
@pytest.mark.parametrize("name", [".env", ".env.local", "named.env"])
def test_line_of_an_env_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    env_file = Path(name) if name == "named.env" else None
    text = faults(sources(tmp_path, {}, env_file=env_file))
    assert f"{name}{expected}" in text
    assert KEY[-10:] not in text
    if "UTF-8" in expected:
        assert "OPENROUTER_API_KEY" not in text, "it may well be set, in that very line"
        assert "saved as UTF-8" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"title = 'x'\n" + "max_body = 1\n".encode("utf-16-le"), "line 2 is no UTF-8 text"),
        ("# grün\n".encode("latin-1"), "line 1 is no UTF-8 text"),
        (b"title = 'x'\n\xef\xbb\xbftitle = 'y'", "line 2 is no UTF-8 text"),
    ],
)
def test_line_of_a_toml_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    (tmp_path / "keyproxy.toml").write_bytes(content)
    assert f"keyproxy.toml, {expected}" in faults(sources(tmp_path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_mark_in_front_and_the_line_ends_of_any_system_are_harmless(
    tmp_path: Path, mark: str, end: str
) -> None:
    env, toml = f"# x{end}KEYPROXY_TITLE=x{end}", f"# x{end}referer = 'y'{end}"
    (tmp_path / ".env").write_bytes((mark + env).encode())
    (tmp_path / "keyproxy.toml").write_bytes((mark + toml).encode())
    (tmp_path / "key").write_bytes(f"{mark}{KEY}{end}{SECOND_KEY}{end}".encode())
    read = of_key_file(tmp_path).read()
    assert (read.title, read.referer) == ("x", "y")
    assert [key.reveal() for key in read.keys] == [KEY, SECOND_KEY]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (KEY.encode("utf-16"), "'key', which is no UTF-8 text: it is UTF-16"),
        (f"{KEY}\n".encode() + KEY.encode("utf-16-le"), "'key', line 2, which is no UTF-8 text"),
        (f"{KEY}ü".encode("latin-1"), "'key', line 1, which is no UTF-8 text"),
        (f"{KEY}\n\ufeff{SECOND_KEY}".encode(), "'key', line 2, which is no UTF-8 text"),
    ],
)
@pytest.mark.parametrize("variable", ["OPENROUTER_API_KEY_FILE", "KEYPROXY_CLIENT_TOKENS_FILE"])
def test_line_of_a_secret_file_that_cannot_be_read_is_named(
    tmp_path: Path, variable: str, content: bytes, expected: str
) -> None:
    (tmp_path / "key").write_bytes(content)
    text = faults(sources(tmp_path, {variable: "key"}))
    assert f"{variable} is {expected}" in text
    assert KEY[-10:] not in text


@pytest.mark.parametrize("name", [".env", "keyproxy.toml"])
def test_directory_in_place_of_a_file_is_a_fault(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert "a directory" in faults(sources(tmp_path))


def test_line_that_is_no_assignment_is_a_fault_where_it_speaks_of_us(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"OTHER TOOL\n\nOPENROUTER_API_KEY: {KEY}\n")
    text = faults(sources(tmp_path))
    assert ".env, line 3 is no assignment" in text
    assert KEY not in text


def test_a_key_that_stands_alone_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"\n{KEY}\n")
    text = faults(sources(tmp_path))
    assert ".env, line 2 is a key without a name; expected: OPENROUTER_API_KEY= in front" in text
    assert KEY not in text


def test_lines_of_other_tools_are_none_of_our_business(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OTHER TOOL\nKEYPROXY_TITLE=x\nA=${B}\nBARE\n")
    assert sources(tmp_path).read().title == "x"


# --- TOML ----------------------------------------------------------------------------------


def test_toml_takes_texts_numbers_and_lists(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "keyproxy.toml").write_text(
        """
        openrouter_api_key_file = "key"
        allowed_models = ["openai/*", "!*:online"]
        rate_limit = ["20/minute", "300/day"]
        address_rate_limit = false
        max_in_flight = 3
        max_body = "1MiB"
        idle_timeout = 1.5
        budget = "off"
        """
    )
    read = sources(tmp_path, {}).read()
    assert read.keys[0].reveal() == KEY
    assert read.allowed_models == ("openai/*", "!*:online")
    assert (read.rate_limit, read.address_rate_limit) == ((Rate(20, 60), Rate(300, 86400)), ())
    assert (read.max_in_flight, read.max_body_bytes) == (3, 1 << 20)
    assert read.idle_timeout_seconds == 1.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("allowed_model = 'x'", "allowed_models perhaps?"),
        ("keyproxy_listen = 'x'", "is not a setting; expected: listen perhaps?"),
        ("LISTEN = 'localhost:1'", "is not a setting; expected: listen perhaps?"),
        ("config = 'other.toml'", "not a setting"),
        ("[[apps]]\nname = 'x'", "tables [apps.NAME]"),
        ("apps = 1", "tables [apps.NAME]"),
        ("[apps]\nmobile = 1", "tables [apps.NAME]"),
        ("[apps.default]\ntitle = 'x'", "the default app"),
        ("[apps.'a b']\ntitle = 'x'", "no name of an app"),
        ("[apps.mobile]\nlisten = ':1'", "a setting of the whole process"),
        ("[apps.mobile]\nbudgett = 1", "not a setting"),
        ("[apps.mobile]\nrate_limit = 'x'", "apps.mobile.rate_limit is 'x'"),
        ("[apps.mobile]\nclient_auth = 'token'", "apps.mobile.client_tokens is not set"),
        ("[listen]\nx = 1", "of the type dict"),
        ("listen = [['x']]", "of the type list"),
        ("max_body = 2026-01-01", "of the type date"),
        ("max_body = ", "not TOML"),
        ("budget = '5/week'", "0.50/day"),
    ],
)
def test_malformed_toml_is_a_fault(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "keyproxy.toml").write_text(text)
    assert expected in faults(sources(tmp_path))


def test_key_in_place_of_a_toml_name_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "keyproxy.toml").write_text(f"{KEY} = 1")
    assert KEY not in faults(sources(tmp_path))


def test_every_setting_can_be_written_in_toml(tmp_path: Path) -> None:
    lines = [
        f"{row.variable.removeprefix('KEYPROXY_').lower()} = ''"
        for row in ROWS.values()
        if row.variable not in ("KEYPROXY_CONFIG", "KEYPROXY_PROVIDERS")  # tables, in TOML
    ]
    (tmp_path / "keyproxy.toml").write_text("\n".join(lines))
    sources(tmp_path).read()


LISTS = {
    "keys": f"{KEY},{SECOND_KEY}",
    "listen": "localhost:1,127.0.0.1:2",
    "allowed_hosts": "a.example,b.example",
    "admin": "localhost:1,127.0.0.1:2",
    "admin_hosts": "a.example,b.example",
    "allowed_origins": "https://a.example,https://b.example",
    "client_tokens": f"a:{'0' * 64},b:{'1' * 64}",
    "jwt_audiences": "one,two",
    "jwt_algorithms": "RS256,ES256",
    "session_secrets": f"{'0123456789abcdef' * 2},{'fedcba9876543210' * 2}",
    "trusted_proxies": "192.0.2.0/24,10.0.0.0/8",
    "model_aliases": "fast=openai/gpt-4o-mini,slow=openai/o1",
    "extra_fields": "trace,diarize",
    "address_rate_limit": "200/minute;3000/day",
    "session_rate_limit": "60/minute;1000/day",
    "budget": "0.50/day;5/month",
    "app_budget": "5/day;50/month",
    "total_budget": "1/hour;20/day",
    "alert_spend": "2/hour;20/day",
}
"""Two entries of settings whose examples have one."""


@pytest.mark.parametrize(
    "name", [name for name, row in ROWS.items() if row.separator and name != "provider_names"]
)
def test_every_setting_that_is_a_list_takes_a_list_in_toml(tmp_path: Path, name: str) -> None:
    row = ROWS[name]
    text = LISTS.get(name, f"{'a' * 20},{'b' * 20}" if row.provider else row.example)
    entries = text.split(row.separator)
    assert len(entries) == 2
    (tmp_path / "keyproxy.toml").write_text(f"{toml_key(row.variable)} = {json.dumps(entries)}")
    environ = {"OPENROUTER_API_KEY": KEY}
    if row.provider:
        environ = {"KEYPROXY_PROVIDERS": row.provider}
    value = getattr(sources(tmp_path, environ).read(), name)
    assert value == row.parse(text)
    assert isinstance(value, str) or len(value) == 2


def test_every_setting_that_holds_several_values_is_a_list() -> None:
    several = {name for name, kind in Table.__annotations__.items() if kind.startswith("tuple[")}
    assert several | {"categories"} == {name for name, row in ROWS.items() if row.separator}


@pytest.mark.parametrize("name", ["title", "max_body", "client_auth", "openrouter_api_key_file"])
def test_a_setting_that_is_no_list_takes_none_in_toml(tmp_path: Path, name: str) -> None:
    (tmp_path / "keyproxy.toml").write_text(f'{name} = ["a", "b"]')
    text = faults(sources(tmp_path))
    assert f"{name} (in keyproxy.toml) is of the type list" in text
    assert "expected: a text or a number" in text


def test_config_names_another_toml_file(tmp_path: Path) -> None:
    (tmp_path / "keyproxy.toml").write_text("title = 'usual'")
    (tmp_path / "other.toml").write_text("title = 'other'")
    (tmp_path / ".env").write_text("KEYPROXY_CONFIG=other.toml")
    assert sources(tmp_path).read().title == "other"
    assert sources(tmp_path, options={"KEYPROXY_CONFIG": "keyproxy.toml"}).read().title == "usual"
    assert sources(tmp_path, options={"KEYPROXY_CONFIG": "off"}).read().title is None


def test_missing_config_is_a_fault(tmp_path: Path) -> None:
    text = faults(sources(tmp_path, options={"KEYPROXY_CONFIG": "missing.toml"}))
    assert "KEYPROXY_CONFIG is 'missing.toml'" in text


# --- the key file --------------------------------------------------------------------------


def of_key_file(directory: Path, name: str = "key") -> Sources:
    return sources(directory, {"OPENROUTER_API_KEY_FILE": name})


def test_key_file_is_opened_by_its_path_each_time(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    of = of_key_file(tmp_path)
    assert of.read().keys[0].reveal() == KEY
    (tmp_path / "new").write_text(SECOND_KEY)
    (tmp_path / "new").replace(tmp_path / "key")
    assert of.read().keys[0].reveal() == SECOND_KEY


def test_truncated_key_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    of = of_key_file(tmp_path)
    of.read()
    (tmp_path / "key").write_text("")
    assert "an empty file" in faults(of)


def test_missing_key_file_is_a_fault(tmp_path: Path) -> None:
    assert "No such file" in faults(of_key_file(tmp_path))


def test_directory_in_place_of_the_key_file_names_docker(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    assert "Docker" in faults(of_key_file(tmp_path))


def test_oversized_key_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"x" * (2 << 20))
    assert "1 MiB" in faults(of_key_file(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names")
def test_pipe_in_place_of_the_key_file_is_a_fault(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    assert "a pipe or a device" in faults(of_key_file(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="no modes")
def test_forbidden_key_file_is_a_fault_with_mode_owner_and_cure(powerless: Path) -> None:
    path = powerless / "key"
    path.write_text(KEY)
    path.chmod(0)
    owner = path.stat().st_uid
    if os.geteuid() == 0:
        os.seteuid(65534)
    text = faults(of_key_file(powerless))
    assert f"mode 0000, owner uid {owner}, and we are uid {os.geteuid()}" in text
    assert "container" in text
    assert f"chown {os.geteuid()} {path}" in text


# --- noticing changes ----------------------------------------------------------------------


def test_fingerprint_stays_while_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    of = of_key_file(tmp_path)
    before = of.fingerprint()
    assert of.fingerprint() == before
    of.read()
    assert of.fingerprint() == of.fingerprint()


@pytest.mark.parametrize("name", ["key", ".env", ".env.local", "keyproxy.toml"])
def test_fingerprint_notices_a_rewrite(tmp_path: Path, name: str) -> None:
    (tmp_path / "key").write_text(KEY)
    of = of_key_file(tmp_path)
    of.read()
    before = of.fingerprint()
    (tmp_path / name).write_text(f"#{SECOND_KEY}")
    assert of.fingerprint() != before


def test_fingerprint_notices_a_symlink_swap(tmp_path: Path) -> None:
    for name, key in (("one", KEY), ("two", SECOND_KEY)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(key)
    (tmp_path / "now").symlink_to("one")
    of = of_key_file(tmp_path, "now/key")
    of.read()
    before = of.fingerprint()
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "now")
    assert of.fingerprint() != before


def test_fingerprint_notices_a_file_that_goes_and_one_that_comes_back(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    of = of_key_file(tmp_path)
    of.read()
    there = of.fingerprint()
    (tmp_path / "key").unlink()
    gone = of.fingerprint()
    faults(of)
    (tmp_path / "key").write_text(KEY)
    assert gone != there
    assert of.fingerprint() == there


# --- warnings ------------------------------------------------------------------------------


def test_key_in_toml_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "keyproxy.toml").write_text(f"openrouter_api_key = '{KEY}'")
    [warning] = sources(tmp_path, {}).warnings()
    assert "openrouter_api_key_file" in warning
    assert KEY not in warning


SECRETS = {row.variable: row for row in ROWS.values() if row.is_secret and row.file}
LONG = "0123456789abcdef" * 3


@pytest.mark.parametrize("variable", SECRETS)
def test_every_secret_in_toml_is_warned_of(tmp_path: Path, variable: str) -> None:
    text = {"OPENROUTER_API_KEY": KEY, "KEYPROXY_STORAGE": f"redis://:{LONG}@h"}.get(variable, LONG)
    (tmp_path / "conf").write_text(f"{toml_key(variable)} = '{text}'")
    environ = {"OPENROUTER_API_KEY": KEY, "KEYPROXY_CONFIG": "conf"}
    of = sources(tmp_path, environ)
    [warning] = of.warnings()
    assert f"name a file that holds it: {toml_key(variable)}_file" in warning
    assert text not in warning
    assert tmp_path / "conf" in of.secret_files()


def test_the_secret_of_an_app_in_toml_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "keyproxy.toml").write_text(f"[apps.web]\nopenrouter_api_key = '{KEY}'")
    of = sources(tmp_path)
    assert "openrouter_api_key_file" in "".join(of.warnings())
    assert of.secret_files() == [tmp_path / "keyproxy.toml"]


def test_the_secret_files_of_all_apps_are_known(tmp_path: Path) -> None:
    tables = [f"[apps.{name}]\nopenrouter_api_key_file = '{name}'" for name in ("one", "two")]
    (tmp_path / "keyproxy.toml").write_text("\n".join(tables))
    for name in ("one", "two", "key"):
        (tmp_path / name).write_text(KEY)
    found = of_key_file(tmp_path).secret_files()
    assert [path.name for path in found] == ["key", "one", "two"]


def test_a_storage_without_a_password_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "keyproxy.toml").write_text("storage = 'redis://cache:6379'")
    assert sources(tmp_path).warnings() == []


@pytest.mark.parametrize("variable", SECRETS)
def test_every_file_with_a_secret_is_one(tmp_path: Path, variable: str) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public/secret").write_text(LONG)
    of = sources(tmp_path, {f"{variable}_FILE": "public/secret"})
    assert of.secret_files() == [tmp_path / "public/secret"]
    [warning] = of.warnings()
    assert f"{variable}_FILE lies where web servers hand files out" in warning


def test_key_file_where_web_servers_look_is_warned_of(tmp_path: Path) -> None:
    [warning] = of_key_file(tmp_path, "public/key").warnings()
    assert "OPENROUTER_API_KEY_FILE" in warning


def test_address_header_that_nobody_is_trusted_with_is_warned_of(tmp_path: Path) -> None:
    said = {"OPENROUTER_API_KEY": KEY, "KEYPROXY_CLIENT_ADDRESS_HEADER": "CF-Connecting-IP"}
    [warning] = odd(sources(tmp_path, said).read())
    assert "KEYPROXY_TRUSTED_PROXIES" in warning
    [warning] = odd(sources(tmp_path, said | {"KEYPROXY_TRUSTED_HOPS": "1"}).read())
    assert warning.endswith("KEYPROXY_CLIENT_ADDRESS_HEADER is not read")


def test_secret_files_are_those_that_hold_a_secret(tmp_path: Path) -> None:
    for name in (".env", "key"):
        (tmp_path / name).write_text("")
    (tmp_path / "keyproxy.toml").write_text("title = 'x'")
    found = of_key_file(tmp_path).secret_files()
    assert [path.name for path in found] == [".env", "key"]
