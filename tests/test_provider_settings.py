"""Whose keys are used: ``KEYPROXY_PROVIDERS``, the keys, and the tables of the TOML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from keyproxy.errors import SettingsFaults
from keyproxy.key_forms import KNOWN
from keyproxy.settings import Secret, Settings
from keyproxy.settings.advice import odd
from keyproxy.settings.providers import ROWS, Used
from keyproxy.settings.setting import toml_key
from keyproxy.settings.sources import Sources
from keyproxy.upstream.provider import Provider
from keyproxy.upstream.providers import PROVIDERS
from tests.conftest import Start, refused
from tests.fake_upstream import FakeUpstream

OPENROUTER = "sk-or-v1-" + "0123456789abcdef" * 4
GROQ, CEREBRAS = "gsk_" + "a1" * 26, "csk-" + "b2" * 24
DEEPINFRA = "c3" * 16
KEYS = {"OPENROUTER_API_KEY": OPENROUTER, "GROQ_API_KEY": GROQ, "CEREBRAS_API_KEY": CEREBRAS}


def read(folder: Path, toml: str = "", mode: str = "dev", **said: str) -> Settings:
    (folder / "keyproxy.toml").write_text(toml)
    return Sources(mode, {}, {"KEYPROXY_LEDGER": "off", **said}, folder).read()  # type: ignore[arg-type]


def faults(folder: Path, toml: str = "", **said: str) -> str:
    with pytest.raises(SettingsFaults) as caught:
        read(folder, toml, **said)
    text = "\n".join(map(str, caught.value.faults))
    assert not any(key in text for key in (OPENROUTER, GROQ, CEREBRAS, DEEPINFRA))
    return text


def used(settings: Settings) -> dict[str, list[str]]:
    return {each.name: [key.reveal() for key in each.keys] for each in settings.providers}


def test_settings_know_each_provider_by_its_name() -> None:
    assert set(KNOWN) == set(PROVIDERS)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, {"openrouter": [OPENROUTER]}),
        ({"KEYPROXY_PROVIDERS": "groq"}, {"groq": [GROQ]}),
        (
            {"KEYPROXY_PROVIDERS": "cerebras, groq,openrouter"},
            {"cerebras": [CEREBRAS], "groq": [GROQ], "openrouter": [OPENROUTER]},
        ),
    ],
)
def test_only_those_named_are_used_and_in_their_order(
    tmp_path: Path, said: Mapping[str, str], expected: Mapping[str, list[str]]
) -> None:
    settings = read(tmp_path, **KEYS, **said)
    assert list(used(settings).items()) == list(expected.items())
    assert {key.reveal() for key in settings.all_keys} == {
        k for ks in expected.values() for k in ks
    }


def test_keys_that_lie_about_switch_nothing_on_and_are_told(tmp_path: Path) -> None:
    lying = {"MISTRAL_API_KEY": "your-key-here", "XAI_API_KEY_FILE": "nowhere"}
    settings = read(tmp_path, KEYPROXY_PROVIDERS="groq", **KEYS, **lying)
    seen = ("OPENROUTER_API_KEY", "CEREBRAS_API_KEY", "MISTRAL_API_KEY", "XAI_API_KEY_FILE")
    assert set(settings.seen) == set(seen)
    assert settings.keys == ()


def test_a_key_of_each_provider_may_stand_in_a_file_and_be_several(tmp_path: Path) -> None:
    for name in KNOWN:
        (tmp_path / name).write_text(f"{'a' * 20}\n{'b' * 20}\n")
    files = {f"{name.upper()}_API_KEY_FILE": name for name in KNOWN}
    settings = read(tmp_path, KEYPROXY_PROVIDERS=",".join(KNOWN), **files)
    assert used(settings) == {name: ["a" * 20, "b" * 20] for name in KNOWN}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"KEYPROXY_PROVIDERS": "grok"}, ["KEYPROXY_PROVIDERS", "groq perhaps?"]),
        (
            {"KEYPROXY_PROVIDERS": "cerebras,grok,house,openrouter"},
            ["    KEYPROXY_PROVIDERS=cerebras,groq,openrouter", "'house'; expected: one of"],
        ),
        ({"KEYPROXY_PROVIDERS": "Groq"}, ["KEYPROXY_PROVIDERS"]),
        ({"KEYPROXY_PROVIDERS": "mistral"}, ["MISTRAL_API_KEY is not set"]),
        ({"KEYPROXY_PROVIDERS": "groq", "GROQ_API_KEY_FILE": "x"}, ["GROQ_API_KEY_FILE", "beside"]),
        ({"KEYPROXY_PROVIDERS": "openai", "OPENAI_API_KEY": GROQ}, ["OPENAI_API_KEY", "Groq's"]),
        (
            {"KEYPROXY_PROVIDERS": "mistral", "MISTRAL_API_KEY": "a" * 19},
            ["MISTRAL_API_KEY", "20 characters"],
        ),
        ({"KEYPROXY_PROVIDERS": "groq", "VITE_X": f"k={GROQ}"}, ["VITE_X", "copy"]),
    ],
)
def test_what_cannot_work_is_a_fault(
    tmp_path: Path, said: Mapping[str, str], words: list[str]
) -> None:
    text = faults(tmp_path, **{**KEYS, **said})
    assert all(word in text for word in words), text


def test_tables_are_used_in_their_order_and_the_variable_narrows_them(tmp_path: Path) -> None:
    toml = """
        [providers.cerebras]
        models = ["openai/gpt-oss-*"]
        max_in_flight = 40
        on_hangup = "drain"
        first_output_timeout = "30s"
        fields = ["temperature", "top_p"]
        [providers.groq]
        base = "https://eu.groq.example/openai/v1/"
    """
    cerebras, groq = read(tmp_path, toml, **KEYS).providers
    assert cerebras == Used(
        name="cerebras",
        keys=(Secret(CEREBRAS),),
        kind=None,
        base=None,
        messages_base=None,
        dialects=None,
        models=("openai/gpt-oss-*",),
        max_in_flight=40,
        on_hangup="drain",
        first_output_timeout_seconds=30.0,
        fields=("temperature", "top_p"),
        allow_http=False,
    )
    assert (groq.name, groq.base) == ("groq", "https://eu.groq.example/openai/v1")
    narrowed = read(tmp_path, toml, KEYPROXY_PROVIDERS="openrouter,groq", **KEYS)
    assert [(each.name, each.base) for each in narrowed.providers] == [
        ("openrouter", None),
        ("groq", "https://eu.groq.example/openai/v1"),
    ]


def test_the_environment_beats_a_tables_key_file(tmp_path: Path) -> None:
    toml = "[providers.groq]\nkey_file = 'mine'"
    (tmp_path / "mine").write_text(GROQ.replace("a", "b"))
    assert used(read(tmp_path, toml)) == {"groq": [GROQ.replace("a", "b")]}
    assert used(read(tmp_path, toml, GROQ_API_KEY=GROQ)) == {"groq": [GROQ]}


def test_any_other_host_may_ask_for_no_key(tmp_path: Path) -> None:
    toml = """
        [providers.beside-us]
        kind = "openai-compatible"
        base = "http://127.0.0.1:11434/v1"
        key = "none"
        [providers.house]
        kind = "anthropic-compatible"
        base = "http://llm.internal/v1"
        allow_http = true
        key_file = "house"
        dialects = ["messages", "chat"]
    """
    (tmp_path / "house").write_text("short-key")
    settings = read(tmp_path, toml)
    beside_us, house = settings.providers
    assert (beside_us.kind, beside_us.keys, beside_us.dialects) == ("openai-compatible", (), None)
    assert [key.reveal() for key in house.keys] == ["short-key"]
    assert (settings.hidden_keys, house.dialects) == ((), ("messages", "chat"))


HOUSE = "[providers.house]\nkind = 'openai-compatible'\n"
AT = "base = 'https://x.example'\n"
FAULTY = [
    ("providers = ['groq']", ["providers is no table", "tables [providers.NAME]"]),
    ("[providers.Groq]", ["providers.Groq", "small letters"]),
    (f"[providers.grok]\n{AT}", ["providers.grok.kind", "groq perhaps?"]),
    (f"[providers.house]\nkind = 'ollama'\n{AT}key = 'none'", ["providers.house.kind", "one of"]),
    (f"{HOUSE}key = 'none'", ["providers.house.base"]),
    (f"{HOUSE}{AT}", ["providers.house.key_file", 'key = "none"']),
    (f"{HOUSE}{AT}key = '{GROQ}'", ["providers.house.key ", "not shown"]),
    (f"{HOUSE}base = 'http://x.example'\nkey = 'none'", ["providers.house.base", "in clear"]),
    ("[providers.groq]\nbase = 'http://x.example'", ["providers.groq.base", "in clear"]),
    ("[providers.groq]\nbase = 'https://u:p@x.example'", ["providers.groq.base", "user"]),
    ("[providers.groq]\nkey = 'none'", ["providers.groq.key "]),
    ("[providers.groq]\nallow_http = true", ["providers.groq.allow_http"]),
    ("[providers.groq]\nkind = 'openai-compatible'", ["providers.groq.kind"]),
    ("[providers.groq]\nkey_file = 'nowhere'", ["providers.groq.key_file", "nowhere"]),
    ("[providers.groq]\nmax_in_fligth = 4", ["max_in_fligth", "max_in_flight perhaps?"]),
    ("[providers.groq]\nfields = ['Top P']", ["providers.groq.fields", "names of body fields"]),
    ("[providers.groq]\nmax_in_flight = 0", ["providers.groq.max_in_flight", "from 1"]),
    ("[providers.groq]\non_hangup = 'wait'", ["providers.groq.on_hangup", "cut, drain"]),
    ("[providers.groq]\nmodels = ['!x/*']", ["providers.groq.models"]),
    ("[apps.a]\nproviders = ['mistral']\n[providers.groq]", ["apps.a.providers", "mistral"]),
]


@pytest.mark.parametrize(("toml", "words"), FAULTY)
def test_a_faulty_table_is_told(tmp_path: Path, toml: str, words: list[str]) -> None:
    text = faults(tmp_path, toml, **({} if "nowhere" in toml else KEYS))
    assert all(word in text for word in words), text


def test_openrouters_address_is_said_once(tmp_path: Path) -> None:
    toml = "[providers.openrouter]\nbase = 'https://eu.openrouter.ai/api/v1'"
    text = faults(tmp_path, toml, KEYPROXY_UPSTREAM="https://openrouter.ai/api/v1", **KEYS)
    assert "KEYPROXY_UPSTREAM is set beside base in [providers.openrouter]" in text
    assert read(tmp_path, toml, **KEYS).upstream == "https://eu.openrouter.ai/api/v1"


def test_an_app_narrows_and_may_have_keys_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text(GROQ.replace("a", "z"))
    toml = """
        [apps.mobile]
        providers = ["groq"]
        groq_api_key_file = "mine"
        [apps.web]
    """
    settings = read(tmp_path, toml, KEYPROXY_PROVIDERS="groq,openrouter", **KEYS)
    mobile, web = settings.apps
    assert used(mobile) == {"groq": [GROQ.replace("a", "z")]}
    assert used(web) == used(settings) == {"groq": [GROQ], "openrouter": [OPENROUTER]}
    keys = {key.reveal() for key in settings.all_keys}
    assert keys == {GROQ, OPENROUTER, GROQ.replace("a", "z")}


def test_the_demo_ignores_all_of_it(tmp_path: Path) -> None:
    settings = read(tmp_path, "[providers.groq]", mode="demo", KEYPROXY_PROVIDERS="nonsense")
    assert used(settings) == {"openrouter": []}


def test_a_short_key_is_taken_on_this_computer_only(tmp_path: Path) -> None:
    here = {"KEYPROXY_UPSTREAM": "http://127.0.0.1:1/v1", "OPENROUTER_API_KEY": "12345678"}
    settings = read(tmp_path, **here)
    assert settings.hidden_keys == ()
    assert any("too short" in line for line in odd(settings))
    text = faults(tmp_path, OPENROUTER_API_KEY="12345678")
    assert "OPENROUTER_API_KEY is a shorter key" in text


def test_an_address_of_openrouters_that_is_not_used_is_told(tmp_path: Path) -> None:
    said = {"KEYPROXY_UPSTREAM": "https://eu.openrouter.ai/api/v1", "KEYPROXY_PROVIDERS": "groq"}
    assert any(
        "KEYPROXY_UPSTREAM has no effect" in line for line in odd(read(tmp_path, **KEYS, **said))
    )


def test_make_run_is_the_demo_until_every_used_provider_has_its_key(tmp_path: Path) -> None:
    def why(**said: str) -> str | None:
        return Sources("dev", {}, said, tmp_path).why_no_key()

    assert (why() or "").startswith("OPENROUTER_API_KEY is not set (environment, .env.local, .env")
    assert why(OPENROUTER_API_KEY=OPENROUTER) is None
    both = {"KEYPROXY_PROVIDERS": "groq,cerebras"}
    assert (why(**both, GROQ_API_KEY=GROQ) or "").startswith("CEREBRAS_API_KEY is not set")
    assert why(**both, GROQ_API_KEY=GROQ, CEREBRAS_API_KEY_FILE="x") is None
    (tmp_path / "keyproxy.toml").write_text("[providers.groq]\n[providers.cerebras]\nkey_file='x'")
    assert (why() or "").startswith("GROQ_API_KEY is not set")
    assert why(GROQ_API_KEY=GROQ) is None


def test_the_files_of_all_keys_are_known(tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "key").write_text(GROQ)
    (tmp_path / "keyproxy.toml").write_text("[providers.groq]\nkey_file = 'public/key'")
    sources = Sources("dev", {}, {}, tmp_path)
    assert [path.name for path in sources.secret_files()] == ["key"]
    [warning] = sources.warnings()
    assert "providers.groq.key_file lies where web servers hand files out" in warning


async def test_a_page_that_sends_a_key_of_ours_is_told_so_whatever_its_form(
    start: Start, upstream: FakeUpstream
) -> None:
    proxy = await start(PROVIDERS="openrouter,deepinfra", DEEPINFRA_API_KEY=DEEPINFRA)
    for head in ({"Authorization": f"Bearer {DEEPINFRA}"}, {"x-api-key": DEEPINFRA}):
        await refused(await proxy.post(headers=head), 400, "provider_key_sent")
    async with proxy.post(headers={"x-api-key": DEEPINFRA[::-1]}) as answer:
        assert answer.status == 200
    assert len(upstream.calls) == 1


PAGE = (Path(__file__).parents[1] / "docs" / "providers.md").read_text()


def test_documentation_has_each_key_of_a_table_with_its_meaning() -> None:
    section = PAGE.partition("## What is said of a provider")[2].partition("## ")[0]
    told = re.findall(r"^\| `([a-z_]+)` \| [^|]* \| ([^|]*) \|$", section, re.M)
    assert told == [(toml_key(row.variable), row.meaning) for row in ROWS.values()]


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=str)
def test_documentation_has_each_provider(provider: Provider) -> None:
    [line] = re.findall(rf"^\| `{provider.name}` \| (.*) \|$", PAGE, re.M)
    bases, spoken = line.split(" | ")
    assert all(f"`{base}`" in bases for base in (provider.base, provider.messages_base) if base)
    if provider.name != "openrouter":
        named = set(re.findall(r"chat|responses|messages|embeddings", spoken))
        assert named == set(provider.takes)
