"""The issuer's key set: what of it is believed, and that no caller can make us ask for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from multidict import CIMultiDict, CIMultiDictProxy

from keyproxy.clients import jwks as module
from keyproxy.clients.jwks import Jwks, read_keys
from keyproxy.clients.jwt import JwtRules, Verifier
from keyproxy.errors import Refusal
from keyproxy.transport.fetch import Whole
from tests import jwt_issuer
from tests.conftest import Clock
from tests.jwt_issuer import NOW, Issuer, claims, jwk, key_set, private_key, signed

OLD, NEW = private_key("P-256"), private_key("P-256", "new")
OLD_SET = key_set(jwk("ES256", OLD, "old"))
BOTH = key_set(jwk("ES256", OLD, "old"), jwk("ES256", NEW, "new"))
NEW_SET = key_set(jwk("ES256", NEW, "new"))
OLD_JWT = signed(claims(), OLD, "ES256", kid="old")
NEW_JWT = signed(claims(), NEW, "ES256", kid="new")
RULES = JwtRules(("ES256", "RS256"))


def whole(raw: bytes, max_age: float | None = None) -> Whole:
    fields = {} if max_age is None else {"Cache-Control": f"max-age={max_age:.0f}"}
    return Whole(200, CIMultiDictProxy(CIMultiDict(fields)), raw)


class Source:
    """A fetch under control: ``next`` is what it answers, raises or waits for."""

    def __init__(self, answer: Any = OLD_SET, max_age: float | None = None) -> None:
        self.next = answer
        self.max_age = max_age
        self.asked = 0

    async def __call__(self) -> Whole:
        self.asked += 1
        if isinstance(self.next, Exception):
            raise self.next
        if isinstance(self.next, asyncio.Future):
            return whole(await self.next)
        return whole(self.next, self.max_age)


class Rig:
    """A verifier over a set from a controlled source, and its clock."""

    def __init__(
        self, answer: Any = OLD_SET, max_age: float | None = None, **options: float
    ) -> None:
        self.source = Source(answer, max_age)
        self.clock = Clock()
        self.jwks = Jwks(self.source, "https://auth.example/jwks.json", clock=self.clock, **options)
        self.verifier = Verifier(RULES, self.jwks, clock=Clock(NOW))

    async def accepts(self, token: str) -> bool:
        try:
            return (await self.verifier.verify(token)).subject == "user-1"
        except Refusal as refusal:
            if refusal.code != "credential_invalid":
                raise
            return False

    async def settled(self) -> None:
        """The fetch under way, if any, has ended: one who asks for an unknown kid waits."""
        await self.jwks.find("no-such-kid", "ES256")


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with jwt_issuer.serving(OLD_SET) as found:
        yield found


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as found:
        yield found


async def test_the_set_is_fetched_once_for_everybody(
    issuer: Issuer, session: aiohttp.ClientSession
) -> None:
    verifier = Verifier(RULES, Jwks.at(issuer.url, session), clock=Clock(NOW))
    found = await asyncio.gather(*(verifier.verify(OLD_JWT) for _ in range(50)))
    assert {one.subject for one in found} == {"user-1"}
    assert issuer.asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=404, body=OLD_SET),
        web.Response(status=500, body=OLD_SET),
        web.Response(status=203, body=OLD_SET),
        web.Response(text="<!doctype html><h1>Please sign in</h1>", content_type="text/html"),
        web.Response(body=b""),
        web.Response(body=b"[]"),
        web.Response(body=b'{"keys":{}}'),
        web.Response(body=b'{"keys":[]}'),
        web.Response(body=b'{"error":"not found"}'),
        web.Response(body=OLD_SET.replace(b'{"keys"', b'{"keys":[],"keys"')),
        web.Response(body=OLD_SET[:-1]),
        web.Response(body=b"[" * 200_000),
        web.Response(body=OLD_SET + b" " * module.MAX_BYTES),
        web.Response(body=OLD_SET, headers={"Content-Encoding": "gzip"}),
    ],
    ids=str,
)
async def test_a_lying_issuer_is_not_believed(
    answer: web.Response, issuer: Issuer, session: aiohttp.ClientSession
) -> None:
    async def lie(_: web.Request) -> web.Response:
        return answer

    issuer.answer = lie
    verifier = Verifier(RULES, Jwks.at(issuer.url, session), clock=Clock(NOW))
    for _ in range(20):
        with pytest.raises(Refusal) as caught:
            await verifier.verify(OLD_JWT)
        assert caught.value.hint is not None
        assert "could not be loaded" in caught.value.hint
    assert issuer.asked == 1


async def test_a_redirect_of_the_issuer_is_not_followed(
    issuer: Issuer, session: aiohttp.ClientSession
) -> None:
    async with jwt_issuer.serving(OLD_SET) as other:

        async def redirect(_: web.Request) -> web.Response:
            raise web.HTTPFound(other.url)

        issuer.answer = redirect
        assert await Jwks.at(issuer.url, session).find("old", "ES256") is None
        assert (issuer.asked, other.asked) == (1, 0)


async def test_an_endless_answer_is_cut(issuer: Issuer, session: aiohttp.ClientSession) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(10_000):
            await answer.write(b" " * 65536)
        return answer

    issuer.answer = endless
    before = time.monotonic()
    assert await Jwks.at(issuer.url, session).find("old", "ES256") is None
    assert time.monotonic() - before < module.FETCH_SECONDS


async def test_an_issuer_that_hangs_holds_up_nobody_for_long(
    issuer: Issuer, session: aiohttp.ClientSession
) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    issuer.answer = hang
    jwks = Jwks.at(issuer.url, session, fetch_seconds=0.2)
    before = time.monotonic()
    found = await asyncio.gather(*(jwks.find("old", "ES256") for _ in range(20)))
    assert found == [None] * 20
    assert await jwks.find("old", "ES256") is None
    assert time.monotonic() - before < 2
    assert issuer.asked == 1


async def test_a_fetch_that_hangs_is_ended_and_tried_again() -> None:
    rig = Rig(asyncio.get_running_loop().create_future(), fetch_seconds=0.05)
    assert not await rig.accepts(OLD_JWT)
    rig.source.next = OLD_SET
    async with asyncio.timeout(5):
        while not await rig.accepts(OLD_JWT):
            rig.clock.now += module.FIRST_RETRY_SECONDS
    assert rig.source.asked == 2


async def test_a_set_is_loaded_before_the_first_caller_comes() -> None:
    rig = Rig()
    rig.jwks.start()
    rig.jwks.start()
    was_empty = rig.jwks._set.value is None
    await rig.settled()
    assert (was_empty, rig.jwks._set.value is None) == (True, False)
    assert await rig.accepts(OLD_JWT)
    assert rig.source.asked == 1


async def test_a_rotated_key_is_taken_at_once_and_the_old_one_ends_with_its_set() -> None:
    rig = Rig()
    assert await rig.accepts(OLD_JWT)
    rig.source.next = BOTH
    rig.clock.now += module.RETRY_SECONDS
    assert await rig.accepts(NEW_JWT)
    assert await rig.accepts(OLD_JWT)
    rig.source.next = NEW_SET
    rig.clock.now += module.USUAL_FRESH_SECONDS
    assert not await rig.accepts(OLD_JWT)
    assert await rig.accepts(NEW_JWT)
    assert rig.source.asked == 3


async def test_a_flood_of_unknown_kids_costs_one_fetch_in_thirty_seconds() -> None:
    rig = Rig()
    for second in range(61):
        flood = [signed(claims(), OLD, "ES256", kid=f"{second}-{n}") for n in range(20)]
        assert not any(await asyncio.gather(*map(rig.accepts, flood)))
        assert await rig.accepts(OLD_JWT)
        rig.clock.now += 1
    assert rig.source.asked == 3  # the first, and after 30 and 60 seconds


async def test_a_flood_of_other_bad_jwts_costs_no_fetch() -> None:
    rig = Rig()
    assert await rig.accepts(OLD_JWT)
    bad = [
        signed(claims(), NEW, "ES256", kid="old"),
        signed(claims(), NEW, "ES256"),
        signed(claims(), private_key("2048"), "RS256", kid="old"),
        signed(claims(sub=""), OLD, "ES256", kid="unknown"),
        signed(claims(exp=NOW - 900), OLD, "ES256", kid="unknown"),
        OLD_JWT[:-8] + "AAAAAAAA",
        "eyJ.eyJ.eyJ",
    ]
    for _ in range(100):
        rig.clock.now += 1
        assert not any([await rig.accepts(token) for token in bad])
    assert rig.source.asked == 1


async def test_while_one_fetch_for_an_unknown_kid_hangs_good_jwts_pass() -> None:
    rig = Rig(wait_seconds=0.1)
    assert await rig.accepts(OLD_JWT)
    rig.source.next = asyncio.get_running_loop().create_future()
    rig.clock.now += module.RETRY_SECONDS
    assert not await rig.accepts(NEW_JWT)  # waits, in vain
    rig.clock.now += module.RETRY_SECONDS
    async with asyncio.timeout(1):
        for _ in range(100):
            assert await rig.accepts(OLD_JWT)
            assert not await rig.accepts(NEW_JWT)  # who comes later does not wait at all
    assert rig.source.asked == 2
    await rig.jwks.close()


async def test_a_caller_that_leaves_does_not_end_the_fetch_of_the_others() -> None:
    rig = Rig(asyncio.get_running_loop().create_future())
    leaving = asyncio.create_task(rig.accepts(OLD_JWT))
    staying = asyncio.create_task(rig.accepts(OLD_JWT))
    await asyncio.sleep(0)
    leaving.cancel()
    rig.source.next.set_result(OLD_SET)
    assert await staying
    assert rig.source.asked == 1


@pytest.mark.parametrize(
    ("said", "fresh"), [(None, 600), (0, 300), (60, 300), (3600, 3600), (10**9, 86_400)]
)
async def test_a_set_is_kept_as_long_as_its_issuer_says_within_bounds(
    said: float | None, fresh: float
) -> None:
    rig = Rig(max_age=said)
    assert await rig.accepts(OLD_JWT)
    rig.clock.now += fresh * 0.8 - 1
    assert await rig.accepts(OLD_JWT)
    assert rig.source.asked == 1
    rig.clock.now += 2
    assert await rig.accepts(OLD_JWT)
    await rig.settled()
    assert rig.source.asked == 2


async def test_cache_control_is_read(issuer: Issuer, session: aiohttp.ClientSession) -> None:
    for text, seconds in (
        ("public, max-age=19008, must-revalidate, no-transform", 19008),
        ("max-age=0", module.SHORTEST_FRESH_SECONDS),
        ("s-maxage=60", module.USUAL_FRESH_SECONDS),
        ("no-store", module.USUAL_FRESH_SECONDS),
        ("max-age=never", module.USUAL_FRESH_SECONDS),
    ):
        issuer.headers = {"Cache-Control": text}
        jwks = Jwks.at(issuer.url, session)
        assert await jwks.find("old", "ES256")
        assert jwks._set.value is not None
        assert jwks._set.value.fresh_seconds == seconds


async def test_a_set_is_renewed_while_nobody_waits() -> None:
    rig = Rig()
    assert await rig.accepts(OLD_JWT)
    rig.source.next = asyncio.get_running_loop().create_future()
    rig.clock.now += module.USUAL_FRESH_SECONDS * 0.9
    async with asyncio.timeout(1):
        assert await rig.accepts(OLD_JWT)
    rig.source.next.set_result(NEW_SET)
    await rig.settled()
    assert not await rig.accepts(OLD_JWT)
    assert rig.source.asked == 2


@pytest.mark.parametrize(
    "trouble", [OSError("down"), ValueError("status"), b"<html>", b'{"keys":[]}']
)
async def test_while_the_issuer_is_away_the_last_set_stays_for_a_day(trouble: Any) -> None:
    rig = Rig()
    assert await rig.accepts(OLD_JWT)
    rig.source.next = trouble
    for _ in range(23):
        rig.clock.now += 3600
        assert await rig.accepts(OLD_JWT)
        assert not await rig.accepts(NEW_JWT)
    assert rig.source.asked == 24
    rig.clock.now += 3600
    assert not await rig.accepts(OLD_JWT)
    rig.source.next = OLD_SET
    rig.clock.now += module.FIRST_RETRY_SECONDS
    assert await rig.accepts(OLD_JWT)


async def test_an_issuer_that_was_never_there_is_asked_every_ten_seconds() -> None:
    rig = Rig(OSError("down"))
    for _ in range(30):
        assert not await rig.accepts(OLD_JWT)
        rig.clock.now += 1
    assert rig.source.asked == 3
    rig.source.next = OLD_SET
    rig.clock.now += module.FIRST_RETRY_SECONDS
    assert await rig.accepts(OLD_JWT)


async def test_the_log_tells_what_became_of_the_set(capsys: pytest.CaptureFixture[str]) -> None:
    rig = Rig(key_set(jwk("ES256", OLD, "old"), {"kty": "oct", "k": "AAAA"}))
    assert await rig.accepts(OLD_JWT)
    rig.source.next = OSError("down")
    rig.clock.now += module.USUAL_FRESH_SECONDS
    assert await rig.accepts(OLD_JWT)
    said = capsys.readouterr().out
    assert "key set loaded" in said
    assert "it is a shared secret" in said
    assert "the last one stays in use" in said


RSA = private_key("2048")
GOOD = jwk("ES256", OLD, "old")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZg", "alg": "HS256"}, "a shared secret"),
        (jwk("RS256", private_key("1024"), "weak"), "1024 bits"),
        (jwk("RS256", RSA) | {"use": "enc"}, "not for signatures"),
        (jwk("RS256", RSA) | {"key_ops": ["encrypt"]}, "not for signatures"),
        (jwk("RS256", RSA) | {"key_ops": "verify"}, "not for signatures"),
        (jwk("RS256", RSA) | {"alg": "RSA-OAEP"}, "does not fit"),
        (jwk("RS256", RSA) | {"alg": "HS256"}, "does not fit"),
        (jwk("RS256", RSA) | {"alg": "none"}, "does not fit"),
        (jwk("RS256", RSA) | {"alg": ["RS256"]}, "does not fit"),
        (GOOD | {"alg": "ES384"}, "does not fit"),
        (GOOD | {"kty": "RSA"}, "not whole"),
        (GOOD | {"kty": ["EC"]}, "type is unknown"),
        (GOOD | {"kty": "AKP"}, "type is unknown"),
        (GOOD | {"crv": "secp256k1"}, "type is unknown"),
        (GOOD | {"crv": "P-384"}, "cannot be read"),
        (GOOD | {"x": GOOD["y"]}, "cannot be read"),
        (GOOD | {"x": "!!"}, "cannot be read"),
        (GOOD | {"y": 7}, "not whole"),
        (GOOD | {"d": "AAAA"}, "a private key"),
        (GOOD | {"kid": 7}, "kid"),
        (GOOD | {"kid": "k" * 257}, "kid"),
        (jwk("RS256", RSA) | {"n": "A" * 3000}, "not whole"),
        (jwk("RS256", RSA) | {"e": "AQ"}, "cannot be read"),
        (jwk("EdDSA", private_key("Ed25519")) | {"x": "AA"}, "cannot be read"),
        (jwk("EdDSA", private_key("Ed25519")) | {"alg": "Ed448"}, "does not fit"),
        (jwk("EdDSA", private_key("Ed25519")) | {"alg": "ES256"}, "does not fit"),
        (jwk("EdDSA", private_key("Ed25519")) | {"crv": "X25519"}, "type is unknown"),
        (jwk("EdDSA", private_key("Ed25519")) | {"crv": "Ed448"}, "type is unknown"),
        (GOOD | {"alg": "Ed25519"}, "does not fit"),
        (GOOD | {"alg": "ESP256"}, "does not fit"),
        (jwk("RS256", RSA) | {"key_ops": ["sign"]}, "not for signatures"),
        (jwk("RS256", RSA) | {"key_ops": []}, "not for signatures"),
        (jwk("RS256", RSA) | {"use": ""}, "not for signatures"),
        ("a text", "type is unknown"),
        (None, "type is unknown"),
    ],
)
def test_a_bad_key_is_passed_over_and_the_others_are_used(bad: Any, why: str) -> None:
    keys, passed_over = read_keys(key_set(bad, GOOD))
    assert [key.id for key in keys] == ["old"]
    [reason] = passed_over
    assert why in reason
    with pytest.raises(ValueError, match="no usable key"):
        read_keys(key_set(bad))


@pytest.mark.parametrize(
    "said",
    [
        {"alg": "Ed25519"},
        {"alg": "EdDSA", "use": "sig", "key_ops": ["verify"]},
        {"alg": None, "use": None, "key_ops": None, "kid": None, "x5c": None},
        {"key_ops": ["sign", "verify"], "ext": True},
    ],
)
def test_what_a_key_says_of_itself_may_be_said_in_any_name_or_not_at_all(
    said: dict[str, Any],
) -> None:
    [key], _ = read_keys(key_set(jwk("EdDSA", private_key("Ed25519")) | said))
    assert key.algorithms == {"EdDSA"}


async def test_of_two_keys_with_one_kid_each_is_tried() -> None:
    """RFC 7517 4.5 allows it for keys of different types, and issuers do it for others."""
    rig = Rig(
        key_set(jwk("RS256", RSA, "same"), jwk("ES256", OLD, "same"), jwk("ES256", NEW, "same"))
    )
    for key, algorithm in ((RSA, "RS256"), (OLD, "ES256"), (NEW, "ES256")):
        assert await rig.accepts(signed(claims(), key, algorithm, kid="same"))
    assert rig.source.asked == 1


async def test_a_jwt_without_kid_is_tried_with_what_fits_its_algorithm() -> None:
    rig = Rig(BOTH)
    assert await rig.accepts(signed(claims(), NEW, "ES256"))
    assert not await rig.accepts(signed(claims(), RSA, "RS256"))


async def test_keys_without_kid_are_tried_for_any_and_renewed_often() -> None:
    rig = Rig(key_set(jwk("ES256", OLD)), max_age=86_400)
    assert await rig.accepts(OLD_JWT)
    rig.clock.now += module.RETRY_SECONDS
    assert not await rig.accepts(NEW_JWT)
    assert rig.source.asked == 1
    rig.source.next = key_set(jwk("ES256", NEW))
    rig.clock.now += module.SHORTEST_FRESH_SECONDS
    assert await rig.accepts(NEW_JWT)


async def test_no_more_than_a_few_keys_are_tried_and_read() -> None:
    members = [jwk("ES256", private_key("P-256", str(n % 9)), f"k{n}") for n in range(100)]
    keys, passed_over = read_keys(key_set(*members))
    assert len(keys) == module.MAX_KEYS
    assert passed_over == {"beyond the first 64": 36}
    found = await Rig(key_set(*members)).jwks.find(None, "ES256")
    assert len(found or ()) == module.MAX_TRIED


def test_the_largest_set_is_read_in_no_time() -> None:
    """``n`` alone counts: the costliest keys that are believed."""
    number = rsa.RSAPublicNumbers(65537, (1 << 8191) | 1)
    big = jwk("RS256", RSA) | {"n": jwt_issuer.b64(number.n.to_bytes(1024, "big"))}
    raw = json.dumps({"keys": [big] * module.MAX_KEYS}).encode()
    before = time.process_time()
    keys, _ = read_keys(raw)
    assert len(keys) == module.MAX_KEYS
    assert time.process_time() - before < 0.5
