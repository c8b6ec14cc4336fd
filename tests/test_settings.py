"""Settings: what every kind of text becomes, and what is said of each that is wrong."""

from __future__ import annotations

import copy
import pickle
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from keyproxy.errors import SettingsFault, SettingsFaults
from keyproxy.installation import line_for
from keyproxy.settings import (
    DEFAULT_ENDPOINTS,
    KNOWN_ENDPOINTS,
    ROWS,
    Address,
    Mode,
    Rate,
    Secret,
    Settings,
)
from keyproxy.settings.grammar.network import StorageServer
from keyproxy.settings.grammar.secrets import KEYS_PAGE
from keyproxy.settings.setting import SAY_IT, Derived, spoken

KEY = "sk-or-v1-bench-0123456789abcdef"
SECOND_KEY = "sk-or-v1-other-fedcba9876543210"
SERVE = {
    "OPENROUTER_API_KEY": KEY,
    "KEYPROXY_ALLOWED_HOSTS": "api.example.com",
    "KEYPROXY_ALLOWED_MODELS": "openai/*",
    "KEYPROXY_CLIENT_AUTH": "none",
    "KEYPROXY_TRUSTED_PROXIES": "none",
    "KEYPROXY_TOTAL_BUDGET": "off",
}
DOCS = Path(__file__).resolve().parents[1] / "docs" / "settings.md"

AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBjDCCATOgAwIBAgIUPMUcW1W19/msDKyrbfiWvrnC3jkwCgYIKoZIzj0EAwIw
GzEZMBcGA1UEAwwQa2V5cHJveHkgdGVzdCBDQTAgFw0yNjExMjMxNTA5MjFaGA8y
MTI2MTAzMDE1MDkyMVowGzEZMBcGA1UEAwwQa2V5cHJveHkgdGVzdCBDQTBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABMSTbk35a4/Z+//j5ZfC+MPCKuzdXGN42Uar
NyBLYwI/LDamJoexva5BkYqwd09NAWNb5FqdmQ5fE1F9JsW35uijUzBRMB0GA1Ud
DgQWBBRt+PcUYjr4qdDqfV/KlU8pf6iFLzAfBgNVHSMEGDAWgBRt+PcUYjr4qdDq
fV/KlU8pf6iFLzAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIDyy
aR97M5hJ7RtrPjuxRd7cdMD6CWcea2LHF1w7nc09AiBIq1uWtPJFLfTtOi56Mq3S
cJWF+OxVbRPoNpQoz4irrQ==
-----END CERTIFICATE-----
"""


def dev(**variables: str) -> Settings:
    """Names are written without ``KEYPROXY_``."""
    said = {f"KEYPROXY_{name}": text for name, text in variables.items()}
    return Settings.from_environ("dev", {"OPENROUTER_API_KEY": KEY} | said)


def faults(mode: Mode, environ: Mapping[str, str], **more: Any) -> dict[str, SettingsFault]:
    with pytest.raises(SettingsFaults) as caught:
        Settings.from_environ(mode, environ, **more)
    return {fault.variable: fault for fault in caught.value.faults}


def fault(name: str, text: str) -> SettingsFault:
    """The one fault that ``KEYPROXY_<name>=text`` is, in dev."""
    variable = f"KEYPROXY_{name}"
    found = faults("dev", {"OPENROUTER_API_KEY": KEY, variable: text})
    assert list(found) == [variable]
    return found[variable]


# --- secrets -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [str, repr, "{:>12}".format, "{0!r}".format, lambda s: f"{s}"])
def test_secret_prints_as_stars(shape: Any) -> None:
    assert shape(Secret(KEY)).strip() in {"***", "Secret('***')"}


def test_secret_survives_asdict_and_copies_without_unwrapping() -> None:
    settings = dev()
    assert KEY not in str(asdict(settings)) + repr(settings) + str(copy.deepcopy(settings.keys))
    assert asdict(settings)["keys"] == (Secret(KEY),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_secret_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(KEY), protocol)


def test_secrets_are_equal_by_value() -> None:
    assert Secret(KEY) == Secret(KEY)
    assert len({Secret(KEY), Secret(KEY), Secret(SECOND_KEY)}) == 2
    assert Secret(KEY) != KEY


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("sk-or-v1-" + "ab1" + "0" * 58 + "f90", "sk-or-v1-ab1...f90"),
        (KEY, "sk-or-v1-ben...def"),
        ("sk-or-v1-0123456789", "***"),
        ("short-one", "***"),
        ("0123456789abcdef0123", "012...123"),
    ],
)
def test_label_shows_six_characters_of_a_long_key_and_none_of_a_short_one(
    key: str, label: str
) -> None:
    assert Secret(key).label == label


def test_secret_finds_pieces_of_itself() -> None:
    assert Secret(KEY).is_in(f"Bearer {KEY}!")
    assert Secret(KEY).is_in(KEY[5:21], run=16)
    assert not Secret(KEY).is_in(Secret(KEY).label, run=16)


# --- the key -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (KEY, [KEY]),
        (KEY + "\n", [KEY]),
        (KEY + "\r\n", [KEY]),
        (f"{KEY},{SECOND_KEY}", [KEY, SECOND_KEY]),
        (f"{KEY}, {SECOND_KEY}", [KEY, SECOND_KEY]),
        (f"{KEY}\n{SECOND_KEY}\n", [KEY, SECOND_KEY]),
        (f"{KEY}\r\n{SECOND_KEY}\r\n", [KEY, SECOND_KEY]),
        (f"{KEY},{KEY}", [KEY]),
        ("12345678901234567890", ["12345678901234567890"]),
    ],
)
def test_keys_are_read_in_their_order(text: str, keys: list[str]) -> None:
    settings = Settings.from_environ("dev", {"OPENROUTER_API_KEY": text})
    assert [key.reveal() for key in settings.keys] == keys


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f" {KEY}", "space"),
        (f"{KEY} ", "space"),
        (f"{KEY}\n\n", "empty"),
        (f"{KEY},,{SECOND_KEY}", "empty"),
        (f"'{KEY}'", "quotes"),
        (f'"{KEY}"', "quotes"),
        (f"Bearer {KEY}", "Bearer"),
        (f"bearer {KEY}", "Bearer"),
        ("sk-or-v1-...", "placeholder"),
        ("<the key goes here>", "placeholder"),
        ("sk-or-v1-your-key-here", "placeholder"),
        ("your_api_key", "placeholder"),
        ("${OPENROUTER_API_KEY}", "placeholder"),
        ("1234567", "shorter"),
        ("schlüssel-0123456789", "ASCII"),
        ("sk-or-v1-\t0123456789", "control"),
        ("sk-or-v1-\x000123456789", "control"),
    ],
)
def test_malformed_key_is_a_fault_that_does_not_repeat_it(text: str, reason: str) -> None:
    found = faults("dev", {"OPENROUTER_API_KEY": text})["OPENROUTER_API_KEY"]
    assert reason in (found.found or "")
    assert text.strip() not in str(found)
    assert "0123456789" not in str(found)


def test_faulty_key_in_a_list_is_named_by_its_number() -> None:
    found = faults("dev", {"OPENROUTER_API_KEY": f"{KEY},'{SECOND_KEY}'"})["OPENROUTER_API_KEY"]
    assert "key 2" in str(found)
    assert KEY not in str(found)
    assert SECOND_KEY not in str(found)


def test_line_to_paste_is_no_key_itself() -> None:
    found = faults("dev", {"OPENROUTER_API_KEY": "sk-or-v1-…"})["OPENROUTER_API_KEY"]
    assert "placeholder" in str(found)


@pytest.mark.parametrize(
    ("key", "owner"),
    [
        ("sk-proj-0123456789abcdef", "OpenAI"),
        ("sk-svcacct-0123456789abcdef", "OpenAI"),
        ("sk-admin-0123456789abcdef", "OpenAI"),
        ("sk-0123456789T3BlbkFJ0123456789", "OpenAI"),
        ("sk-ant-api03-0123456789abcdef", "Anthropic"),
        ("gsk_" + "a1" * 26, "Groq"),
        ("AIza" + "a1" * 17 + "b", "Google"),
        ("AQ." + "a1" * 20, "Google"),
        ("xai-" + "a1" * 40, "xAI"),
        ("csk-" + "a1" * 20, "Cerebras"),
        ("hf_" + "a1" * 17, "Hugging Face"),
    ],
)
def test_key_of_another_provider_is_a_fault_where_it_would_go_to_openrouter(
    key: str, owner: str
) -> None:
    found = faults("dev", {"OPENROUTER_API_KEY": key})["OPENROUTER_API_KEY"]
    assert f"a key of {owner}'s, and calls go to OpenRouter" in str(found)
    assert key[-12:] not in str(found)
    found = faults("dev", {"OPENROUTER_API_KEY": f"{KEY},{key}"})["OPENROUTER_API_KEY"]
    assert "a list whose number 2 is a key of" in str(found)
    elsewhere = {"OPENROUTER_API_KEY": key, "KEYPROXY_UPSTREAM": "https://llm.example/v1"}
    assert Settings.from_environ("dev", elsewhere).keys == (Secret(key),)


def test_key_of_another_provider_in_a_file_or_an_app_is_named_there() -> None:
    foreign = "sk-proj-0123456789abcdef"
    with pytest.raises(SettingsFaults) as caught:
        Settings.from_environ(
            "dev",
            {"OPENROUTER_API_KEY": KEY},
            {
                "one": {"OPENROUTER_API_KEY": foreign},
                "two": {"OPENROUTER_API_KEY_FILE": "key"},
                "three": {"KEYPROXY_TITLE": "x"},
            },
            read_file=lambda _: foreign.encode(),
        )
    assert [fault.variable for fault in caught.value.faults] == [
        "apps.one.openrouter_api_key",
        "apps.two.openrouter_api_key_file",
    ]
    assert foreign not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENROUTER_KEY", KEY),
        ("OPENROUTER_KEY", "opaque-0123456789"),
        ("OPENROUTER_APIKEY", KEY),
        ("OPEN_ROUTER_API_KEY", KEY),
        ("OPENROUTER_API_KEYS", KEY),
        ("OPENROUTE_API_KEY", KEY),
        ("openrouter_api_key", KEY),
        ("OPENROUTER_TOKEN", KEY),
        ("OPENROUTER_KEY_FILE", "/run/secrets/key"),
        ("OPENAI_API_KEY", KEY),
        ("ANTHROPIC_AUTH_TOKEN", KEY),
    ],
)
def test_key_under_a_name_that_is_not_read_is_told(name: str, value: str) -> None:
    found = faults("dev", {name: value})
    assert list(found) == ["OPENROUTER_API_KEY"]
    assert f"OPENROUTER_API_KEY is not set, but {name} is" in str(found["OPENROUTER_API_KEY"])
    assert value not in str(found["OPENROUTER_API_KEY"])
    Settings.from_environ("dev", {name: value, "OPENROUTER_API_KEY": KEY})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENROUTER_BASE_URL", "https://openrouter.ai/api/v1"),
        ("OPENROUTER_MODEL", "openai/gpt-4o-mini"),
        ("OPENROUTER_KEY", "your-key-here"),
        ("OPENROUTER_KEY", " "),
        ("OPENAI_API_KEY", "sk-proj-0123456789abcdef"),
        ("API_KEY", "opaque-0123456789"),
    ],
)
def test_variable_that_holds_no_key_for_us_is_not_spoken_of(name: str, value: str) -> None:
    assert faults("dev", {name: value})["OPENROUTER_API_KEY"].found is None


def test_missing_key_is_a_fault_with_the_line_to_paste() -> None:
    found = faults("dev", {"OPENROUTER_API_KEY": "  "})["OPENROUTER_API_KEY"]
    assert found.found is None
    assert found.paste == "OPENROUTER_API_KEY=sk-or-v1-…"
    assert "OPENROUTER_API_KEY_FILE" in found.expected


def test_key_file_is_read_through_the_given_reader() -> None:
    opened = []

    def read_file(path: Path) -> bytes:
        opened.append(path)
        return b"\xef\xbb\xbf" + KEY.encode() + b"\n"

    settings = Settings.from_environ(
        "dev",
        {"OPENROUTER_API_KEY_FILE": "secrets/key"},
        directory=Path("/base"),
        read_file=read_file,
    )
    assert settings.keys == (Secret(KEY),)
    assert opened == [Path("/base/secrets/key")]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\n", "an empty file"),
        (b"\xff\xfe\x00s", "no UTF-8 text"),
        (KEY.encode()[:5], "shorter"),
        (f"Bearer {KEY}".encode(), "Bearer"),
    ],
)
def test_key_file_without_a_key_is_a_fault(content: bytes, found: str) -> None:
    with pytest.raises(SettingsFaults) as caught:
        Settings.from_environ(
            "dev", {"OPENROUTER_API_KEY_FILE": "key"}, read_file=lambda _: content
        )
    [fault] = caught.value.faults
    assert fault.variable == "OPENROUTER_API_KEY_FILE"
    assert found in str(fault)
    assert KEY not in str(fault)


def test_an_empty_key_file_says_where_to_paste() -> None:
    """``keyproxy init --yes`` leaves one, and it is the first fault that a newcomer meets."""
    path = "/srv/my config/openrouter_api_key"
    found = faults("dev", {"OPENROUTER_API_KEY_FILE": path}, read_file=lambda _: b"")
    fault = found["OPENROUTER_API_KEY_FILE"]
    assert path in str(fault.found)
    assert fault.paste == f"cat > '{path}'"


def test_who_has_no_key_hears_where_there_is_one_and_what_needs_none() -> None:
    expected = faults("dev", {})["OPENROUTER_API_KEY"].expected
    for words in (KEYS_PAGE, "keyproxy init", "keyproxy demo"):
        assert words in expected


def test_key_beside_its_file_is_a_fault() -> None:
    found = faults("dev", {"OPENROUTER_API_KEY": KEY, "OPENROUTER_API_KEY_FILE": "/nowhere"})
    assert "one of the two" in str(found["OPENROUTER_API_KEY_FILE"])


# --- numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("5m", 300), ("500ms", 0.5), ("1h", 3600), ("1.5s", 1.5), (" 7 ", 7)],
)
def test_durations(text: str, seconds: float) -> None:
    assert dev(BODY_TIMEOUT=text).body_timeout_seconds == seconds


@pytest.mark.parametrize(
    "text", ["0", "0s", "off", "-1", "1d", "5M", "s", "1e3", "nan", "inf", "٣"]
)
def test_malformed_timeout_is_a_fault(text: str) -> None:
    assert "30s" in fault("IDLE_TIMEOUT", text).expected


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("off", 0), ("5s", 5)])
def test_shutdown_delay_may_be_nothing(text: str, seconds: float) -> None:
    assert dev(SHUTDOWN_DELAY=text).shutdown_delay_seconds == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20MiB", 20 << 20),
        ("512kib", 512 << 10),
        ("128 MiB", 128 << 20),
        ("2MB", 2_000_000),
        ("99", 99),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert dev(MAX_BODY=text).max_body_bytes == size


@pytest.mark.parametrize("text", ["0", "-1", "20M", "1.5MiB", "MiB", "off", "9" * 5000])
def test_malformed_size_is_a_fault(text: str) -> None:
    assert "20MiB" in fault("MAX_BODY", text).expected


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "1_000", "9" * 5000])
def test_malformed_number_is_a_fault(text: str) -> None:
    assert "whole number" in fault("MAX_IN_FLIGHT", text).expected


@pytest.mark.parametrize("text", ["0", "36501", "a month"])
def test_a_malformed_number_of_days_is_a_fault(text: str) -> None:
    assert "from 1" in fault("LEDGER_RETENTION", text).expected
    assert dev(LEDGER_RETENTION="7d").ledger_retention_days == 7


@pytest.mark.parametrize("name", ["BUDGET", "APP_BUDGET", "TOTAL_BUDGET"])
def test_ledger_that_forgets_a_running_month_is_a_fault(name: str) -> None:
    """Else a restart would let it be spent once more."""
    said = {f"KEYPROXY_{name}": "1/day;9/month", "KEYPROXY_LEDGER_RETENTION": "30"}
    found = faults("dev", {"OPENROUTER_API_KEY": KEY, **said})
    assert "31 days" in found["KEYPROXY_LEDGER_RETENTION"].expected
    for kept in ({"LEDGER_RETENTION": "31"}, {"LEDGER_RETENTION": "7", "LEDGER": "off"}):
        assert dev(**{name: "1/day;9/month"}, **kept).budget is not None


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("60/minute", (Rate(60, 60),)),
        ("20/minute;300/day", (Rate(20, 60), Rate(300, 86400))),
        ("9/minute;5/hour;2/60 seconds", (Rate(2, 60), Rate(5, 3600))),
        ("5 per 2 hours", (Rate(5, 7200),)),
        ("off", ()),
    ],
)
def test_rates(text: str, rates: tuple[Rate, ...]) -> None:
    assert dev(RATE_LIMIT=text).rate_limit == rates


@pytest.mark.parametrize("text", ["0/minute", "60", "60/fortnight", "off;1/day", "fast"])
def test_malformed_rate_is_a_fault(text: str) -> None:
    assert "60/minute" in fault("RATE_LIMIT", text).expected


# --- where it listens, whom it believes, what it sends to ----------------------------------


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("localhost:8484", [Address("localhost", 8484)]),
        ("127.0.0.1:0,[::1]:0", [Address("127.0.0.1", 0), Address("::1", 0)]),
        ("[0:0::1]:1", [Address("::1", 1)]),
        ("127.0.0.2:1, 127.0.0.2:1", [Address("127.0.0.2", 1)]),
    ],
)
def test_listen_addresses(text: str, addresses: list[Address]) -> None:
    assert dev(LISTEN=text).listen == tuple(addresses)


@pytest.mark.parametrize(
    ("text", "paste"),
    [
        ("8484", "localhost:8484"),
        ("localhost", "localhost:8484"),
        ("*:80", ":8484"),
        ("::1:8484", ":8484"),
        ("localhost:70000", ":8484"),
        ("http://localhost:1", ":8484"),
        ("[::x]:1", ":8484"),
        (":1,8484,[::1]:2", ":1,localhost:8484,[::1]:2"),
        (":1,localhost:70000", ":8484"),
    ],
)
def test_malformed_listen_address_is_a_fault(text: str, paste: str) -> None:
    assert fault("LISTEN", text).paste == f"KEYPROXY_LISTEN={paste}"


def test_all_entries_of_a_list_that_are_wrong_alike_are_named() -> None:
    assert fault("LISTEN", ":1,80,x y").found == "'80', 'x y'"


@pytest.mark.parametrize("text", [":8484", "0.0.0.0:1", "[::]:1", "192.168.1.2:1", "web:1"])
def test_dev_listens_on_loopback_only(text: str) -> None:
    assert fault("LISTEN", text).paste == "KEYPROXY_LISTEN=localhost:8484"


@pytest.mark.parametrize("mode", ["serve", "demo"])
def test_serve_and_demo_listen_anywhere(mode: Mode) -> None:
    settings = Settings.from_environ(mode, SERVE | {"KEYPROXY_LISTEN": ":8484,[::]:1"})
    assert settings.listen == (Address("", 8484), Address("::", 1))


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("none", []),
        ("10.0.0.0/8, fd00::/8", ["10.0.0.0/8", "fd00::/8"]),
        ("192.0.2.1", ["192.0.2.1/32"]),
        ("loopback", ["127.0.0.0/8", "::1/128"]),
        ("private", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
    ],
)
def test_trusted_proxies(text: str, networks: list[str]) -> None:
    expected = tuple(ip_network(network) for network in networks)
    assert dev(TRUSTED_PROXIES=text).trusted_proxies == expected


@pytest.mark.parametrize("text", ["all", "10.0.0.0/33", "0.0.0.0/0", "::/0", "none,loopback", "*"])
def test_malformed_proxy_list_is_a_fault(text: str) -> None:
    fault("TRUSTED_PROXIES", text)


def test_network_with_bits_behind_its_mask_is_a_fault_with_the_cure() -> None:
    found = fault("TRUSTED_PROXIES", "10.0.0.1/8")
    assert found.paste == "KEYPROXY_TRUSTED_PROXIES=10.0.0.0/8"


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api/v1"),
        ("HTTPS://OpenRouter.ai/api/V1", "https://openrouter.ai/api/V1"),
        ("http://localhost:9/api/v1", "http://localhost:9/api/v1"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("http://[::1]:9/v1", "http://[::1]:9/v1"),
    ],
)
def test_upstream_addresses(text: str, base: str) -> None:
    assert dev(UPSTREAM=text).upstream == base


@pytest.mark.parametrize(
    "text",
    ["http://openrouter.ai/api/v1", "openrouter.ai", "ftp://x/", "https://", "https://x:99999",
     "https://x/v1?a=b", "https://x/#", "https://x y/", "http://localhost.evil.example/"],
)  # fmt: skip
def test_malformed_upstream_is_a_fault(text: str) -> None:
    assert "https://" in fault("UPSTREAM", text).expected


@pytest.mark.parametrize("text", ["https://me:hunter2@x.example/", "http://me:hunter2@x.example"])
def test_password_in_the_upstream_is_a_fault_that_does_not_repeat_it(text: str) -> None:
    assert "hunter2" not in str(fault("UPSTREAM", text))


@pytest.mark.parametrize(
    "text", ["env", "http://proxy.example:3128", "http://me:hunter2@proxy.example:3128/"]
)
def test_upstream_proxy_is_secret(text: str) -> None:
    proxy = dev(UPSTREAM_PROXY=text).upstream_proxy
    assert proxy is not None
    assert proxy.reveal() == text.rstrip("/")


@pytest.mark.parametrize(
    "text",
    ["https://me:hunter2@p:1", "http://me:hunter2@p", "socks5://p:1", "p:1", "http://p:1/hunter2"],
)
def test_malformed_proxy_is_a_fault_that_does_not_repeat_it(text: str) -> None:
    assert "hunter2" not in str(fault("UPSTREAM_PROXY", text))


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\xfe"])
def test_ca_file_without_a_certificate_is_a_fault(content: bytes) -> None:
    environ = {"OPENROUTER_API_KEY": KEY, "KEYPROXY_UPSTREAM_CA_FILE": "ca.pem"}
    with pytest.raises(SettingsFaults, match="KEYPROXY_UPSTREAM_CA_FILE"):
        Settings.from_environ("dev", environ, read_file=lambda _: content)


def test_ca_file_is_absolute_where_the_directory_is(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(AUTHORITY)
    environ = {"OPENROUTER_API_KEY": KEY, "KEYPROXY_UPSTREAM_CA_FILE": "ca.pem"}
    settings = Settings.from_environ("dev", environ, directory=tmp_path)
    assert settings.upstream_ca_file == tmp_path / "ca.pem"


# --- who may call --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("API.Example.com", ("api.example.com",)),
        ("a.example:8443, [0::1]:1", ("a.example:8443", "[::1]:1")),
        ("any-ip,localhost,*.localhost", ("any-ip", "localhost", "*.localhost")),
        ("*.mine.example", ("*.mine.example",)),
        ("my_service,10.0.0.1", ("my_service", "10.0.0.1")),
    ],
)
def test_allowed_hosts(text: str, hosts: tuple[str, ...]) -> None:
    assert dev(ALLOWED_HOSTS=text).allowed_hosts == hosts


@pytest.mark.parametrize(
    "text", ["*", "*.com", "*.vercel.app", "a.*.example.com", "a..b", "::1", "a:0", "a:99999", ","]
)
def test_malformed_host_is_a_fault(text: str) -> None:
    fault("ALLOWED_HOSTS", text)


def test_host_written_as_address_is_a_fault_with_the_cure() -> None:
    found = fault("ALLOWED_HOSTS", "https://api.example.com/,b.example")
    assert found.paste == "KEYPROXY_ALLOWED_HOSTS=api.example.com,b.example"


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://app.example.com", ("https://app.example.com",)),
        ("HTTPS://App.Example.com:443", ("https://app.example.com",)),
        (
            "http://a.example:80,http://a.example:8080",
            ("http://a.example", "http://a.example:8080"),
        ),
        ("localhost,null,*", ("localhost", "null", "*")),
        ("none", ()),
        ("capacitor://localhost,tauri://localhost", ("capacitor://localhost", "tauri://localhost")),
        ("chrome-extension://abcdefghijklmnop", ("chrome-extension://abcdefghijklmnop",)),
        ("app://-,app://.,app://obsidian.md", ("app://-", "app://.", "app://obsidian.md")),
        ("file://", ("file://",)),
        ("my-App+1.0://My_Host:080", ("my-App+1.0://My_Host:080",)),
        (
            "safari-web-extension://140BB581-A2C0-422A-9DD3-6982A5ABEE5E",
            ("safari-web-extension://140BB581-A2C0-422A-9DD3-6982A5ABEE5E",),
        ),
        ("moz-extension://*,vscode-webview://*", ("moz-extension://*", "vscode-webview://*")),
        ("safari-web-extension://*", ("safari-web-extension://*",)),
        ("http://[0::1]:3000", ("http://[::1]:3000",)),
        ("https://*.mine.example", ("https://*.mine.example",)),
        ("https://myapp-*-team.vercel.app", ("https://myapp-*-team.vercel.app",)),
        ("https://pr-*.mine.co.uk", ("https://pr-*.mine.co.uk",)),
        ("https://*.mine.github.io", ("https://*.mine.github.io",)),
        ("http://*.localhost:3000", ("http://*.localhost:3000",)),
    ],
)
def test_allowed_origins(text: str, origins: tuple[str, ...]) -> None:
    assert dev(ALLOWED_ORIGINS=text).allowed_origins == origins


@pytest.mark.parametrize(
    ("text", "paste"),
    [
        ("https://app.example.com/", "https://app.example.com"),
        ("https://app.example.com:8443/a/b?c#d", "https://app.example.com:8443"),
        ("null,https://a.example/,b.example", "null,https://a.example,https://b.example"),
        ("localhost:3000", "http://localhost:3000"),
        ("file://host/index.html", "file://"),
        ("app://-/", "app://-"),
        ("Safari-Web-Extension://AB-CD/x", "Safari-Web-Extension://AB-CD"),
    ],
)
def test_origin_that_no_browser_sends_is_a_fault_with_the_cure(text: str, paste: str) -> None:
    assert fault("ALLOWED_ORIGINS", text).paste == f"KEYPROXY_ALLOWED_ORIGINS={paste}"


@pytest.mark.parametrize(
    "text",
    [
        "https://*",
        "https://*.com",
        "https://*.co.uk",
        "https://my*shop.com",
        "https://*.vercel.app",
        "https://myapp-*.vercel.app",
        "https://*-team.vercel.app",
        "https://app.*.github.io",
        "https://*.internal",
        "https://*.*.mine.example",
        "https://mine.*",
        "chrome-extension://*",
        "moz-extension://a*",
        "MOZ-extension://*",
        "app://*",
        "file://*",
        "http://localhost:*",
    ],
)
def test_wildcard_over_names_of_strangers_is_a_fault(text: str) -> None:
    fault("ALLOWED_ORIGINS", text)


@pytest.mark.parametrize(
    "text",
    [
        "https://me@a.example",
        "https://a b",
        "https://",
        "a",
        "https://a:99999",
        "x:y",
        ",",
        "app://",
        "app://a b",
        "app://\u00e4",
        "app://a/b",
        "app://me@a",
        "app://[::1]",
        "app://a:0",
        "app://a:99999",
        "app:",
        "1app://a",
    ],
)
def test_malformed_origin_is_a_fault(text: str) -> None:
    fault("ALLOWED_ORIGINS", text)


@pytest.mark.parametrize("scheme", ["moz-extension", "safari-web-extension", "vscode-webview"])
def test_serve_opens_nothing_to_every_extension_without_a_credential(scheme: str) -> None:
    said = {"KEYPROXY_ALLOWED_ORIGINS": f"https://app.example,{scheme}://*"}
    with pytest.raises(SettingsFaults, match="KEYPROXY_ALLOWED_ORIGINS is one of"):
        Settings.from_environ("serve", SERVE | said)
    asking = {"KEYPROXY_CLIENT_AUTH": "session", "KEYPROXY_SESSION_SECRET": "kU3v9xQ2" * 5}
    web = {"web": {"KEYPROXY_CLIENT_AUTH": "none"}}
    Settings.from_environ("serve", SERVE | said | asking)
    with pytest.raises(SettingsFaults, match=r"apps\.web\.allowed_origins is one of"):
        Settings.from_environ("serve", SERVE | said | asking, web)
    with pytest.raises(SettingsFaults, match=r"apps\.web\.allowed_origins is one of"):
        Settings.from_environ("serve", SERVE, {"web": said})
    assert f"{scheme}://*" in dev(ALLOWED_ORIGINS=f"{scheme}://*").allowed_origins


def test_serve_allows_the_pages_of_its_own_hosts() -> None:
    hosts = "api.example.com,*.mine.example,b.example:8443,any-ip"
    settings = Settings.from_environ("serve", SERVE | {"KEYPROXY_ALLOWED_HOSTS": hosts})
    assert settings.allowed_origins == (
        "https://api.example.com",
        "https://*.mine.example",
        "https://b.example:8443",
    )


SECRET = "kU3v9xQ2" * 5


def test_sessions_need_a_secret_where_there_may_be_replicas() -> None:
    found = faults("serve", SERVE | {"KEYPROXY_CLIENT_AUTH": "session"})
    assert "openssl rand" in (found["KEYPROXY_SESSION_SECRET"].paste or "")
    assert dev(CLIENT_AUTH="session").session_secrets is None


def test_a_secret_of_sessions_is_never_repeated() -> None:
    found = fault("SESSION_SECRET", SECRET[:20])
    assert SECRET[:20] not in str(found)
    assert SECRET not in repr(dev(SESSION_SECRET=SECRET))


def test_a_captcha_needs_its_secret() -> None:
    found = faults("dev", {"OPENROUTER_API_KEY": KEY, "KEYPROXY_CAPTCHA": "turnstile"})
    assert list(found) == ["KEYPROXY_CAPTCHA_SECRET"]


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("your-secret-key", "placeholder"),
        ("${TURNSTILE_SECRET}", "placeholder"),
        ("$(cat/run/secrets/captcha)", "placeholder"),
        ("<secret key>", "placeholder"),
        ("'0x4AAAAAAADnPIDROrmt1Wwj'", "quotes"),
        ("0x4AAAA DnPIDROrmt1Wwj", "a space"),
        ("0x4AAAA", "shorter than 8"),
        ("0x" * 129, "longer than 256"),
    ],
)
def test_what_is_no_secret_of_a_captcha_is_a_fault(text: str, trouble: str) -> None:
    assert trouble in str(fault("CAPTCHA_SECRET", text))
    assert text not in str(fault("CAPTCHA_SECRET", text))


def test_serve_takes_no_secret_that_a_vendor_gives_out_for_tests() -> None:
    secret = {"KEYPROXY_CAPTCHA_SECRET": "1x0000000000000000000000000000000AA"}
    assert "for tests" in str(faults("serve", SERVE | secret)["KEYPROXY_CAPTCHA_SECRET"])
    assert dev(CAPTCHA_SECRET="0x" + "0" * 40).captcha_secret is not None


HASH, OTHER_HASH = "ab" * 32, "cd" * 32


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"phone:{HASH}", ["phone"]),
        (f"a:{HASH}, b:{OTHER_HASH.upper()},", ["a", "b"]),
        (f"# ours\na:{HASH}\n\nb:{OTHER_HASH} # theirs\n", ["a", "b"]),
        ("off", []),
    ],
)
def test_client_tokens(text: str, names: list[str]) -> None:
    assert [token.name for token in dev(CLIENT_TOKENS=text).client_tokens] == names


@pytest.mark.parametrize(
    "text",
    [
        "phone",
        f"phone:{HASH[1:]}",
        f"a:{HASH},a:{OTHER_HASH}",
        f"a:{HASH},b:{HASH}",
        f"a b:{HASH}",
        "phone:kpt_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfG",
    ],
)
def test_malformed_client_tokens_are_a_fault_that_repeats_none(text: str) -> None:
    found = fault("CLIENT_TOKENS", text)
    assert HASH not in str(found)
    assert "kpt_" not in str(found)


def test_asking_for_tokens_that_nobody_has_is_a_fault() -> None:
    found = faults("serve", SERVE | {"KEYPROXY_CLIENT_AUTH": "token"})
    assert "keyproxy token" in found["KEYPROXY_CLIENT_TOKENS"].expected


@pytest.mark.parametrize(
    "text", ["X Y", "X-Forwarded-For", "forwarded", "a:b", "X-Forwarded-Host", "via"]
)
def test_malformed_address_header_is_a_fault(text: str) -> None:
    fault("CLIENT_ADDRESS_HEADER", text)


# --- what may be called --------------------------------------------------------------------


def test_allowed_models() -> None:
    text = "openai/gpt-4o-mini, ~anthropic/*,!*:online"
    assert dev(ALLOWED_MODELS=text).allowed_models == (
        "openai/gpt-4o-mini",
        "~anthropic/*",
        "!*:online",
    )


@pytest.mark.parametrize("text", ["openai/[ab]*", "open ai/*", "a!b", "!", "openai/*;x", ","])
def test_malformed_model_is_a_fault(text: str) -> None:
    fault("ALLOWED_MODELS", text)


def test_models_that_are_only_excluded_are_a_fault_with_the_cure() -> None:
    found = fault("ALLOWED_MODELS", "!openai/*,!*:online")
    assert found.paste == "KEYPROXY_ALLOWED_MODELS=*,!openai/*,!*:online"


def test_allowed_endpoints() -> None:
    settings = dev(ALLOWED_ENDPOINTS="POST  /api/v1/embeddings,GET /api/v1/models")
    assert settings.allowed_endpoints == ("POST /api/v1/embeddings", "GET /api/v1/models")


@pytest.mark.parametrize(
    "text",
    ["GET /api/v1/key", "/api/v1/models", "GET /models", "POST /api/v1/chat/completions/", "*"],
)
def test_unknown_endpoint_is_a_fault(text: str) -> None:
    assert KNOWN_ENDPOINTS[-1] in fault("ALLOWED_ENDPOINTS", text).expected


@pytest.mark.parametrize("text", ["two\nlines", "Müller", "x" * 257, "a\x00b"])
def test_text_unfit_for_a_header_is_a_fault(text: str) -> None:
    fault("TITLE", text)


def test_categories_are_at_most_two() -> None:
    assert dev(CATEGORIES="a, b-c").categories == "a,b-c"
    assert "two" in fault("CATEGORIES", "a,b,c").expected
    fault("CATEGORIES", "Games")


@pytest.mark.parametrize("name", ["LOG_FORMAT", "LOG_LEVEL", "LOG_ADDRESS"])
def test_unknown_word_is_a_fault(name: str) -> None:
    assert fault(name, "loud").expected.startswith("one of ")


# --- modes ---------------------------------------------------------------------------------


def test_serve_lists_everything_that_must_be_said() -> None:
    found = faults("serve", {})
    assert list(found) == [
        "OPENROUTER_API_KEY",
        "KEYPROXY_ALLOWED_HOSTS",
        "KEYPROXY_CLIENT_AUTH",
        "KEYPROXY_TRUSTED_PROXIES",
        "KEYPROXY_ALLOWED_MODELS",
    ]
    for name, each in found.items():
        assert (each.paste or "").startswith(f"{name}=")


@pytest.mark.parametrize("variable", SERVE)
def test_serve_names_the_one_thing_that_is_missing(variable: str) -> None:
    assert list(faults("serve", SERVE | {variable: ""})) == [variable]


def test_trusted_hops_answer_for_trusted_proxies() -> None:
    environ = SERVE | {"KEYPROXY_TRUSTED_PROXIES": "", "KEYPROXY_TRUSTED_HOPS": "1"}
    settings = Settings.from_environ("serve", environ)
    assert (settings.trusted_proxies, settings.trusted_hops) == ((), 1)


def test_address_rate_is_ten_times_the_clients_in_serve() -> None:
    settings = Settings.from_environ("serve", SERVE)
    assert settings.rate_limit == (Rate(20, 60), Rate(300, 86400))
    assert settings.address_rate_limit == (Rate(200, 60), Rate(3000, 86400))


def test_address_rate_is_off_where_the_clients_is_off() -> None:
    settings = Settings.from_environ("serve", SERVE | {"KEYPROXY_RATE_LIMIT": "off"})
    assert settings.address_rate_limit == ()


def test_demo_needs_nothing_and_ignores_key_and_upstream() -> None:
    said = {"OPENROUTER_API_KEY": "bad", "KEYPROXY_UPSTREAM": "nonsense", "KEYPROXY_TITLE": "x"}
    settings = Settings.from_environ("demo", said)
    assert (settings.keys, settings.title) == ((), "x")
    assert settings == replace(Settings.from_environ("demo", {}), title="x")


def test_dev_refuses_kubernetes_and_demo_does_not() -> None:
    environ = {"OPENROUTER_API_KEY": KEY, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert list(faults("dev", environ)) == ["KUBERNETES_SERVICE_HOST"]
    Settings.from_environ("demo", environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VITE_KEY", "sk-or-v1-" + "0123456789abcdef" * 4),
        ("NEXT_PUBLIC_X", "sk-ant-api03-0123456789abcdef"),
        ("REACT_APP_X", '{"key": "sk-proj-0123456789abcdef"}'),
        ("EXPO_PUBLIC_X", "gsk_" + "a1" * 26),
        ("PUBLIC_X", "csk-" + "a1" * 20),
        ("NUXT_PUBLIC_X", "xai-" + "a1" * 40),
        ("VITE_GEMINI", "AIza" + "a1" * 17 + "b"),
        ("VITE_MISTRAL_KEY", "a1" * 16),
        ("GATSBY_X", KEY),
    ],
)
@pytest.mark.parametrize("mode", ["dev", "serve"])
def test_key_in_a_variable_of_the_page_is_a_fault_that_does_not_repeat_it(
    mode: Mode, name: str, value: str
) -> None:
    found = faults(mode, SERVE | {name: value})
    assert list(found) == [name]
    assert value not in str(found[name])


def test_own_key_in_a_variable_of_the_page_is_found_whatever_its_shape() -> None:
    environ = {"OPENROUTER_API_KEY": "plain-words-in-a-row-", "VITE_X": "a plain-words-in-a-row- b"}
    assert list(faults("dev", environ)) == ["VITE_X"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VITE_TITLE", "task-force-desk-organizer-2"),
        ("VITE_FIREBASE_API_KEY", "AIza" + "a1" * 17 + "b"),
        ("VITE_HASH", "a1" * 16),
        ("SERVER_KEY", KEY),
    ],
)
def test_what_belongs_into_a_page_is_no_fault(name: str, value: str) -> None:
    Settings.from_environ("dev", {"OPENROUTER_API_KEY": "another-key-of-our-own"} | {name: value})


# --- names ---------------------------------------------------------------------------------


def test_unknown_variable_is_a_fault_that_names_the_nearest() -> None:
    assert "KEYPROXY_ALLOWED_MODELS" in fault("ALOWED_MODEL", "x").expected


@pytest.mark.parametrize(
    "name",
    ["KEY_PROXY_ALLOWED_MODELS", "keyproxy_allowed_models", "KEYPROX_ALLOWED_MODELS"],
)
def test_variable_that_misses_our_prefix_is_a_fault_too(name: str) -> None:
    found = faults("dev", {"OPENROUTER_API_KEY": KEY, name: "x"})
    assert "KEYPROXY_ALLOWED_MODELS perhaps?" in found[name].expected


@pytest.mark.parametrize("name", ["KEY_PROXY_URL", "keyproxy", "MY_KEYPROXY_ALLOWED_MODELS"])
def test_variable_of_somebody_else_is_left_alone(name: str) -> None:
    Settings.from_environ("dev", {"OPENROUTER_API_KEY": KEY, name: "x"})


def test_unknown_variable_does_not_repeat_its_value() -> None:
    assert KEY not in str(fault("API_KEY", KEY))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "8484"),
        ("SERVICE_PORT_HTTP", "8484"),
        ("PORT", "tcp://10.0.0.1:8484"),
        ("PORT_8484_TCP", "tcp://10.0.0.1:8484"),
        ("PORT_8484_TCP_ADDR", "10.0.0.1"),
        ("PORT_8484_TCP_PROTO", "tcp"),
        ("WEB_SERVICE_HOST", "10.0.0.1"),
        ("WEB_PORT", "tcp://10.0.0.1:8484"),
        ("WEB_PORT_8484_TCP_PORT", "8484"),
    ],
)
def test_what_platforms_inject_is_ignored(name: str, value: str) -> None:
    dev(**{name: value})


def test_port_that_a_person_wrote_is_unknown() -> None:
    fault("PORT", "8484")


@pytest.mark.parametrize("mode", ["serve", "demo"])
def test_figures_beyond_this_computer_need_a_token_and_names(mode: Mode) -> None:
    environ = SERVE | {"KEYPROXY_ADMIN": "localhost:8485,:9000"}
    found = faults(mode, environ)
    assert list(found) == ["KEYPROXY_ADMIN_TOKEN_FILE", "KEYPROXY_ADMIN_HOSTS"]
    assert "KEYPROXY_ADMIN is open to others (':9000')" in found["KEYPROXY_ADMIN_HOSTS"].expected
    token = secrets.token_hex(32)
    cured = {"KEYPROXY_ADMIN_TOKEN": token, "KEYPROXY_ADMIN_HOSTS": "any-ip"}
    settings = Settings.from_environ(mode, environ | cured)
    assert settings.admin_token == Secret(token)
    # On loopback the defaults are enough, and in dev there is nothing else.
    Settings.from_environ(mode, SERVE | {"KEYPROXY_ADMIN": "localhost:8485"})
    assert list(faults("dev", {"OPENROUTER_API_KEY": KEY, "KEYPROXY_ADMIN": ":9000"} | cured)) == [
        "KEYPROXY_ADMIN"
    ]


@pytest.mark.parametrize("text", ["hunter2", "with space " * 4, "changeme" * 5, "<token>" * 8])
def test_a_token_for_figures_is_random_and_never_repeated(text: str) -> None:
    found = fault("ADMIN_TOKEN", text)
    assert text not in str(found)
    assert found.paste == "openssl rand -hex 32"


def test_figures_are_off_in_serve_unless_it_is_said() -> None:
    assert Settings.from_environ("serve", SERVE).admin == ()
    assert [str(each) for each in dev().admin] == ["localhost:8485"]
    assert dev(ADMIN="off").admin == ()


# --- faults --------------------------------------------------------------------------------


def test_all_faults_come_together_in_the_order_of_the_table() -> None:
    environ = {"KEYPROXY_MAX_BODY": "x", "KEYPROXY_LISTEN": "x y", "KEYPROXY_NONE": "x"}
    found = faults("dev", environ)
    assert list(found) == [
        "OPENROUTER_API_KEY",
        "KEYPROXY_LISTEN",
        "KEYPROXY_MAX_BODY",
        "KEYPROXY_NONE",
    ]


@pytest.mark.parametrize("name", [row.variable for row in ROWS.values() if not row.is_secret])
def test_key_in_the_wrong_variable_is_never_repeated(name: str) -> None:
    for text in (KEY, f"{KEY}:1", f"https://{KEY}/", "a1" * 16):
        with pytest.raises(SettingsFaults) as caught:
            Settings.from_environ("serve", {name: text})
        assert text.strip("/") not in str(caught.value)
        assert KEY not in str(caught.value)


def test_long_values_are_cut_in_faults() -> None:
    assert len(fault("LOG_LEVEL", "no " * 1000).found or "") < 100


# --- storage -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memory://", None),
        ("redis://cache", StorageServer("cache", 6379, 0, None, None, False)),
        ("valkeys://[::1]:1/15\n", StorageServer("::1", 1, 15, None, None, True)),
        ("rediss://:p%40ss@h", StorageServer("h", 6379, 0, None, Secret("p@ss"), True)),
        ("valkey://me:a%2Fb@h:7", StorageServer("h", 7, 0, "me", Secret("a/b"), False)),
    ],
)
def test_storage_is_in_memory_or_an_address(text: str, expected: StorageServer | None) -> None:
    assert dev(STORAGE=text).storage == expected


@pytest.mark.parametrize(
    "text",
    [
        "off",
        "redis",
        "redis://",
        "http://host",
        "redis://host:0",
        "redis://host:x",
        "redis://host/name",
        "redis://me@host",
        "redis://:hunter2-hunter2@host?ssl_cert_reqs=none",
        "redis://:hunter2-hunter2@host#",
        "redis://:hunter2 hunter2@host",
        "unix://:hunter2-hunter2@/run/redis.sock",
    ],
)
def test_other_storages_are_faults_that_repeat_no_password(text: str) -> None:
    found = fault("STORAGE", text)
    assert "redis://host:port/database" in found.expected
    assert "hunter2" not in str(found)


def test_a_shared_storage_without_its_client_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)  # as if it were not installed
    found = fault("STORAGE", "redis://host")
    assert "its extra for shared storages" in found.expected
    assert found.paste == line_for("redis")
    assert dev().storage is None


def test_serve_forgets_no_budget_at_a_restart() -> None:
    said = SERVE | {"KEYPROXY_TOTAL_BUDGET": "5/day", "KEYPROXY_LEDGER": "off"}
    [fault] = faults("serve", said).values()
    assert fault.paste == "KEYPROXY_LEDGER=default"
    Settings.from_environ("serve", said | {"KEYPROXY_STORAGE": "redis://host"})
    Settings.from_environ("serve", said | {"KEYPROXY_TOTAL_BUDGET": "off"})
    assert dev(BUDGET="1/day", LEDGER="off").ledger is None


# --- the table -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["dev", "serve", "demo"])
def test_example_of_every_setting_is_valid(mode: Mode) -> None:
    unread = {"keys", "provider_names", "session_secrets", "captcha_secret", "jwt_secret"}
    unread |= {"admin_token", "alert_secret", "config"}
    unread |= {"listen"} if mode == "dev" else set()  # its example is for everybody
    secret = {"KEYPROXY_SESSION_SECRET": "0123456789abcdef" * 4}  # one of the examples wants it
    for name, row in ROWS.items():
        if name not in unread and not name.endswith("_file") and not row.provider:
            Settings.from_environ(mode, SERVE | secret | {row.variable: row.example})


def test_endpoints_of_the_default_are_known() -> None:
    assert set(DEFAULT_ENDPOINTS) < set(KNOWN_ENDPOINTS)


def documented() -> dict[str, list[str]]:
    """Cells of the documented table by variable, without the code marks."""
    table = {}
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and (name := re.match(r"`([A-Z_]+)`( °)?( †)?$", cells[0])):
            table[name[1]] = cells
    return table


def test_documentation_names_every_setting_in_order() -> None:
    assert list(documented()) == [row.variable for row in ROWS.values()]


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.variable)
def test_documentation_has_the_defaults_and_the_meaning(row: Any) -> None:
    marks, *columns, meaning, example = documented()[row.variable]
    for column, default in zip(columns, (row.dev, row.serve), strict=True):
        if default is SAY_IT:
            assert column == "*say it*"
        elif default is None:
            assert column == "\N{EN DASH}"
        elif isinstance(default, Derived):
            assert column == spoken(default)
        elif row.variable == "KEYPROXY_ALLOWED_ENDPOINTS":
            assert column == "[list below](#endpoints)"
        else:
            assert column.replace("`", "").replace("<br>", ",") == default
    assert (meaning, example) == (row.meaning, f"`{row.example}`")
    assert ("°" in marks, "†" in marks) == (row.is_upstream, row.needs_restart)


def test_a_reload_leaves_what_needs_a_restart_and_takes_the_rest() -> None:
    old, new = dev(TITLE="old"), dev(LISTEN="localhost:1", TITLE="new", LOG_LEVEL="error")
    settings, stuck = new.reloaded(old)
    assert stuck == ["listen", "log_level"]
    assert settings == dev(TITLE="new")


def test_documentation_lists_the_endpoints() -> None:
    listed = re.findall(r"^- `((?:GET|POST) .*)`$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert tuple(listed) == KNOWN_ENDPOINTS
