"""Anonymous sessions: what is signed, for whom it is good, and how long."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy.clients.credentials import Holder
from keyproxy.clients.sessions import (
    GRACE_SECONDS,
    LIFETIME_SECONDS,
    LONGEST_SECONDS,
    MAX_TOKEN_CHARACTERS,
    Sessions,
    looks_like_session,
)
from keyproxy.errors import Refusal
from keyproxy.key_forms import Secret
from keyproxy.settings.grammar import Unfit
from keyproxy.settings.grammar.secrets import session_secret
from tests.conftest import Clock

ORIGIN = "https://app.example"
SECRET = Secret("made-up-session-secret-of-a-test-0001")
OTHER = Secret("made-up-session-secret-of-a-test-0002")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_SIGNED = Sessions([SECRET]).open("default", ORIGIN).token


@pytest.fixture
def clock() -> Clock:
    return Clock(1_790_000_000.0)


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions([SECRET], clock=clock)


def refused(sessions: Sessions, token: str, origin: str | None = ORIGIN) -> str:
    """The code that both reading and renewing ``token`` are refused with."""
    with pytest.raises(Refusal) as read:
        sessions.read(token, origin)
    with pytest.raises(Refusal) as renewed:
        sessions.renew(token, origin)
    assert read.value.status == 401
    assert len(token) < 40 or token not in f"{read.value} {read.value.hint}"
    assert read.value.code == renewed.value.code
    return read.value.code


def test_a_session_is_good_for_an_hour_at_every_replica(clock: Clock, sessions: Sessions) -> None:
    session = sessions.open("web", ORIGIN)
    replica = Sessions([SECRET], clock=clock)
    assert session.expires_in_seconds == 3600
    assert replica.read(session.token, ORIGIN) == session.client
    assert session.client.app == "web"
    clock.now += 3599
    assert replica.read(session.token, ORIGIN) == session.client


def test_each_session_is_another_client(sessions: Sessions) -> None:
    ids = {sessions.open("web", ORIGIN).client.id for _ in range(1000)}
    assert len(ids) == 1000


def test_a_token_has_one_form_of_one_length(sessions: Sessions) -> None:
    tokens = {sessions.open("default", origin).token for origin in (ORIGIN, None, "x" * 4000)}
    assert len({len(token) for token in tokens}) == 1
    for token in tokens:
        assert re.fullmatch(r"kps_[A-Za-z0-9_-]{90,120}", token)
        assert looks_like_session(token)


def test_the_longest_name_of_an_app_that_settings_take_fits(sessions: Sessions) -> None:
    session = sessions.open("a" * 64, ORIGIN)
    assert len(session.token) <= MAX_TOKEN_CHARACTERS
    assert sessions.read(session.token, ORIGIN).app == "a" * 64


@pytest.mark.parametrize("position", range(len(_SIGNED)))
def test_a_change_of_any_character_is_found(position: int) -> None:
    """All 63 others, so also those that base64 decoders read as the same bytes."""
    sessions = Sessions([SECRET])
    for other in ALPHABET.replace(_SIGNED[position], ""):
        changed = _SIGNED[:position] + other + _SIGNED[position + 1 :]
        with pytest.raises(Refusal, match="credential_invalid"):
            sessions.read(changed, ORIGIN)


@pytest.mark.parametrize(
    "changed",
    [_SIGNED[:-1], _SIGNED + "A", _SIGNED + "=", _SIGNED + "\n", " " + _SIGNED, _SIGNED.upper()],
    ids=["shorter", "longer", "padded", "with a line", "with a space", "in capitals"],
)
def test_a_token_has_no_second_spelling(changed: str) -> None:
    assert refused(Sessions([SECRET]), changed) == "credential_invalid"


def test_claims_of_one_token_do_not_fit_the_signature_of_another(sessions: Sessions) -> None:
    """Another app's, for one: no client can choose an app with larger limits."""
    free, paid = (sessions.open(app, ORIGIN).token for app in ("free", "paid"))
    assert refused(sessions, paid[:-43] + free[-43:]) == "credential_invalid"


def test_another_secret_accepts_nothing(clock: Clock, sessions: Sessions) -> None:
    token = sessions.open("web", ORIGIN).token
    assert refused(Sessions([OTHER], clock=clock), token) == "credential_invalid"


@pytest.mark.parametrize(
    ("opened", "used"),
    [
        (ORIGIN, "https://evil.example"),
        (ORIGIN, "http://app.example"),
        (ORIGIN, ORIGIN + ":8443"),
        (ORIGIN, None),
        (ORIGIN, ""),
        (None, ORIGIN),
        (None, ""),
        (None, "null"),
        ("null", None),
        ("", None),
        ("null", ORIGIN),
    ],
)
def test_a_session_is_bound_to_its_origin_or_to_none(
    sessions: Sessions, opened: str | None, used: str | None
) -> None:
    session = sessions.open("web", opened)
    assert refused(sessions, session.token, used) == "credential_invalid"
    assert sessions.read(session.token, opened) == session.client


def test_a_session_ends_after_its_hour(clock: Clock, sessions: Sessions) -> None:
    session = sessions.open("web", ORIGIN)
    clock.now += LIFETIME_SECONDS
    with pytest.raises(Refusal, match="credential_expired"):
        sessions.read(session.token, ORIGIN)


def test_an_ended_token_of_another_secret_is_invalid(clock: Clock, sessions: Sessions) -> None:
    """Only who was a client once learns that the time is up."""
    token = Sessions([OTHER], clock=clock).open("web", ORIGIN).token
    clock.now += 2 * LIFETIME_SECONDS
    assert refused(sessions, token) == "credential_invalid"


def test_renewing_keeps_the_client_and_gives_a_whole_hour(clock: Clock, sessions: Sessions) -> None:
    session = sessions.open("web", ORIGIN)
    clock.now += LIFETIME_SECONDS - 60
    renewed = sessions.renew(session.token, ORIGIN)
    assert renewed.client == session.client
    assert renewed.expires_in_seconds == LIFETIME_SECONDS
    clock.now += LIFETIME_SECONDS - 1
    assert sessions.read(renewed.token, ORIGIN) == session.client


def test_a_session_is_renewed_within_the_grace_and_not_beyond(
    clock: Clock, sessions: Sessions
) -> None:
    session = sessions.open("web", ORIGIN)
    end = clock.now + LIFETIME_SECONDS
    clock.now = end + GRACE_SECONDS - 1
    assert sessions.renew(session.token, ORIGIN).client == session.client
    clock.now = end + GRACE_SECONDS
    assert refused(sessions, session.token) == "credential_expired"


def test_no_chain_of_renewals_outlives_the_longest_life(clock: Clock, sessions: Sessions) -> None:
    session = sessions.open("web", ORIGIN)
    client, last_start = session.client, clock.now + LONGEST_SECONDS - LIFETIME_SECONDS
    while clock.now < last_start:
        clock.now += LIFETIME_SECONDS / 2
        session = sessions.renew(session.token, ORIGIN)
    clock.now += 1
    with pytest.raises(Refusal, match="credential_expired"):
        sessions.renew(session.token, ORIGIN)
    assert sessions.read(session.token, ORIGIN) == client
    clock.now += LIFETIME_SECONDS - 1
    with pytest.raises(Refusal, match="credential_expired"):
        sessions.read(session.token, ORIGIN)


def test_a_secret_is_changed_without_ending_a_session(clock: Clock, sessions: Sessions) -> None:
    session = sessions.open("web", ORIGIN)
    both = Sessions([OTHER, SECRET], clock=clock)
    assert both.read(session.token, ORIGIN) == session.client
    renewed = both.renew(session.token, ORIGIN)
    assert Sessions([OTHER], clock=clock).read(renewed.token, ORIGIN) == session.client
    assert refused(sessions, renewed.token) == "credential_invalid"


def test_the_form_of_a_token_stays_so_that_an_upgrade_ends_no_session(
    clock: Clock, sessions: Sessions
) -> None:
    """A change of the form or of the key's purpose is meant: it takes another label."""
    token = (
        "kps_AAAAAGqxO4AAAAAAarFJkAABAgMEBQYHCAkKCwwNDg93ZWI"
        "d5vupuiwS7fK9X5gHHbD-pFYXFbFNmGjsmbDM_WgcG8"
    )
    client = Holder("web", "session-000102030405060708090a0b0c0d0e0f")
    assert sessions.read(token, ORIGIN) == client


def test_what_is_printed_of_a_session_does_not_hold_it(sessions: Sessions) -> None:
    session = sessions.open("web", ORIGIN)
    assert session.token not in repr(session)
    assert SECRET.reveal() not in f"{sessions!r} {vars(sessions)!r}"


@given(
    st.one_of(
        st.text(max_size=400),
        st.text(max_size=200).map("kps_".__add__),
        st.text(ALPHABET, max_size=300).map("kps_".__add__),
        st.binary(max_size=200).map(lambda raw: "kps_" + raw.decode(errors="surrogateescape")),
        st.integers(0, 10**6).map(lambda n: "kps_" + "A" * n),
    ),
    st.one_of(st.none(), st.text(max_size=50), st.just("\ud800")),
)
def test_whatever_is_shown_is_refused_and_nothing_else_happens(
    token: str, origin: str | None
) -> None:
    assert refused(Sessions([SECRET]), token, origin) == "credential_invalid"


@given(st.text(max_size=25), st.one_of(st.none(), st.text(max_size=50), st.just("\udcff")))
def test_whatever_is_opened_is_read_back(app: str, origin: str | None) -> None:
    sessions = Sessions([SECRET])
    session = sessions.open(app, origin)
    assert sessions.read(session.token, origin) == Holder(app, session.client.id)


@pytest.mark.parametrize("text", ["", "kps", "KPS_x", "sk-or-v1-x", "Bearer kps_x"])
def test_other_credentials_do_not_look_like_a_session(text: str) -> None:
    assert not looks_like_session(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A1b2C3d4" * 4, ["A1b2C3d4" * 4]),
        ("q3Jv+/0k" * 5 + "abc=\n", ["q3Jv+/0k" * 5 + "abc="]),
        (f"{SECRET.reveal()}, {OTHER.reveal()}", [SECRET.reveal(), OTHER.reveal()]),
        (f"{SECRET.reveal()}\r\n{OTHER.reveal()}\n", [SECRET.reveal(), OTHER.reveal()]),
        (f"{SECRET.reveal()},{SECRET.reveal()}", [SECRET.reveal()]),
    ],
)
def test_one_secret_or_two_are_read(text: str, expected: list[str]) -> None:
    assert [secret.reveal() for secret in session_secret(text)] == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A1b2C3d4" * 3 + "A1b2C3d", "shorter than 32"),
        ("abcd" * 10, "repeats"),
        ("A1b2 C3d4" * 4, "a space"),
        ("A1b2C3dé" * 4, "beyond ASCII"),
        ('"' + "A1b2C3d4" * 4 + '"', "quotes"),
        ("change-me-" * 4, "placeholder"),
        ("$(openssl rand -hex 32)", "placeholder"),
        (SECRET.reveal() + ",", "empty"),
        (SECRET.reveal() + ",short", "shorter than 32"),
        (",".join(f"{SECRET.reveal()}{n}" for n in range(3)), "3 secrets"),
    ],
)
def test_an_unfit_secret_is_told_what_to_run_and_never_repeated(text: str, found: str) -> None:
    with pytest.raises(Unfit) as caught:
        session_secret(text)
    assert found in (caught.value.found or "")
    assert caught.value.line == "openssl rand -hex 32"
    assert text not in f"{caught.value.found} {caught.value.expected}"
    assert SECRET.reveal() not in f"{caught.value.found} {caught.value.expected}"
