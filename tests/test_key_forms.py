"""One table says what a provider's key looks like; whoever asks gets the same answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy.clients import credentials
from keyproxy.clients.sessions import Sessions
from keyproxy.key_forms import STARS, WHOLE, Secret, is_whole_in, key_in
from keyproxy.logs import Masking
from keyproxy.settings import Settings
from keyproxy.settings.advice import written_hint
from keyproxy.settings.grammar import mask
from keyproxy.settings.grammar.secrets import bundled_keys
from tests.conftest import Start, refused

LETTERS = "a1B2c3D4e5F6g7H8i9J0" * 4
KEYS = {
    "OpenRouter": f"sk-or-v1-{LETTERS[:64]}",
    "Anthropic": f"sk-ant-api03-{LETTERS}",
    "OpenAI": f"sk-proj-{LETTERS}",
    "OpenAI, a service's": f"sk-svcacct-{LETTERS}",
    "OpenAI, an older one": f"sk-{LETTERS[:20]}T3BlbkFJ{LETTERS[:20]}",
    "Google": f"AIza{LETTERS[:35]}",
    "Google, a newer one": f"AQ.Ab8RN6{LETTERS[:47]}",
    "Groq": f"gsk_{LETTERS[:52]}",
    "xAI": f"xai-{LETTERS}",
    "Cerebras": f"csk-{LETTERS[:48].lower()}",
    "Hugging Face": f"hf_{LETTERS[:34]}",
    "Perplexity": f"pplx-{LETTERS[:48]}",
    "NVIDIA": f"nvapi-{LETTERS[:64]}",
    "Fireworks": f"fw_{LETTERS[:24]}",
    "Replicate": f"r8_{LETTERS[:37]}",
    "Together": f"tgp_v1_{LETTERS[:43]}",
}
each_key = pytest.mark.parametrize("owner", KEYS)
PARTS = (*KEYS.values(), *"._-=/ ,:é\u0660x", "Bearer ", "sk-", "AQ.", LETTERS, "T3BlbkFJ")


@each_key
def test_a_key_is_known_by_its_owner(owner: str) -> None:
    name = owner.partition(",")[0]
    assert Secret(KEYS[owner]).owner == name


@each_key
async def test_a_key_from_a_page_is_refused_by_name(start: Start, owner: str) -> None:
    proxy = await start()
    for headers in ({"Authorization": f"Bearer {KEYS[owner]}"}, {"X-Goog-Api-Key": KEYS[owner]}):
        async with proxy.post(headers=headers) as answer:
            error = await refused(answer, 400, "provider_key_sent")
        assert KEYS[owner] not in str(error)
    assert proxy.upstream.calls == []


@each_key
def test_a_key_is_masked_in_the_log_and_in_faults(owner: str) -> None:
    logged = Masking()("", "", {"message": f"said {KEYS[owner]}: no"})["message"]
    assert logged == f"said {STARS}: no"
    assert mask(f"said {KEYS[owner]} here") == f"said {STARS} here"


@pytest.mark.parametrize("piece", ["_", "A", "sk-", "//"])
def test_a_text_of_one_piece_is_read_in_time(piece: str) -> None:
    """A settings file may hold as much; read anew from each letter on, it took hours."""
    text = piece * (300_000 // len(piece))
    assert mask(text) in (text, STARS)
    assert key_in(text) is None


def test_our_own_credentials_are_masked_in_the_log() -> None:
    session = Sessions([Secret(LETTERS)]).open("default", "https://app.example")
    for text in (credentials.make_token("phone")[0], session.token):
        assert Masking()("", "", {"message": f"said {text[:40]}"})["message"] == f"said {STARS}"


@each_key
def test_a_piece_of_a_key_is_masked_in_the_log(owner: str) -> None:
    beginning = re.sub(r"-?[a-zA-Z0-9]{20,}.*", "", KEYS[owner])
    assert LETTERS[:12] not in Masking()("", "", {"a": KEYS[owner][: len(beginning) + 20]})["a"]


@each_key
def test_a_key_in_a_variable_of_the_page_is_found(owner: str) -> None:
    assert bundled_keys({"VITE_KEY": f'{{"key":"{KEYS[owner]}"}}'}) == ["VITE_KEY"]


@each_key
def test_no_hint_repeats_a_key(owner: str) -> None:
    settings = Settings.from_environ("dev", {"OPENROUTER_API_KEY": KEYS["OpenRouter"]})
    assert written_hint(f"KEYPROXY_ALLOWED_MODELS={KEYS[owner]}", settings) is None


@each_key
def test_a_label_shows_whose_key_it_is_and_six_letters(owner: str) -> None:
    shown, _, end = Secret(KEYS[owner]).label.partition("...")
    beginning = re.match(r"AIza|AQ\.|sk-(?:or-v1-|ant-api03-|proj-|svcacct-)?|\w+?[-_](?:v1_)?",
                         KEYS[owner])  # fmt: skip
    assert beginning is not None
    assert len(shown) == beginning.end() + 3
    assert len(end) == 3


@pytest.mark.parametrize(
    "text",
    ["sk-local", "task-force-desk-organizer-2", "fw_name", "AQ.short", "hf_hub", "sk-folding-cube"],
)
def test_what_is_no_key_is_left_alone(text: str) -> None:
    assert bundled_keys({"VITE_TITLE": text}) == []


def test_no_other_module_knows_a_form() -> None:
    known = re.compile(r"gsk_|AIza|xai-|csk[-_]")
    package = Path(__file__).parents[1] / "keyproxy"
    found = [
        path.name
        for path in package.rglob("*.py")
        if "demo" not in path.parts and known.search(path.read_text())
    ]
    assert found == ["key_forms.py"]


@given(st.lists(st.sampled_from(PARTS), max_size=5).map("".join))
def test_a_key_is_seen_in_a_head_where_it_is_one_elsewhere(text: str) -> None:
    assert is_whole_in(text) == (re.search(WHOLE, text, re.ASCII) is not None)
