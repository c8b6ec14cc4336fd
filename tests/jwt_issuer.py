"""An issuer of JWTs for tests: keys made for the run, and a real server for its key set."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keyproxy.key_forms import Secret
from keyproxy.settings.consistency import AppValues
from tests.loopback import listening

NOW = 1_800_000_000
"""What the clocks of these tests say."""
SECRET = "fake-shared-secret-of-an-issuer-0123456789-abcdefghijklmnopqrstuvwx"


@cache
def private_key(kind: str, name: str = "") -> Any:
    """One key for each ``kind`` (RSA bits, curve) and ``name``, made once a run."""
    if kind.isdigit():
        return rsa.generate_private_key(65537, int(kind))
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    return ec.generate_private_key(curves[kind])


def jwk(algorithm: str, key: Any, kid: str | None = None, **members: Any) -> dict[str, Any]:
    """The public half of ``key`` as a member of a key set."""
    found: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(
        key.public_key(), as_dict=True
    )
    found.pop("key_ops", None)
    return found | {"kid": kid, "use": "sig"} | members if kid else found | members


def key_set(*members: Any) -> bytes:
    return json.dumps({"keys": list(members)}).encode()


def claims(**more: Any) -> dict[str, Any]:
    """What every good JWT of these tests says; a claim given as None is left out."""
    found = {"sub": "user-1", "iat": NOW - 60, "exp": NOW + 3600} | more
    return {name: value for name, value in found.items() if value is not None}


def signed(said: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(said, key, algorithm, headers=header)


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def assembled(header: bytes, payload: bytes, algorithm: str = "HS256", key: Any = SECRET) -> str:
    """A JWT of exactly these bytes with a good signature, whatever they are."""
    engine = jwt.get_algorithm_by_name(algorithm)
    head = f"{b64(header)}.{b64(payload)}"
    return f"{head}.{b64(engine.sign(head.encode(), engine.prepare_key(key)))}"


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Issuer:
    """``answer`` replaces the key set; ``asked`` counts what came in."""

    url: str = ""
    raw: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    answer: Answer | None = None
    asked: int = 0
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.is_asked.set()
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(body=self.raw, content_type="application/json", headers=self.headers)


@asynccontextmanager
async def serving(raw: bytes = b"") -> AsyncIterator[Issuer]:
    """An issuer on loopback."""
    issuer = Issuer(raw=raw)
    app = web.Application()
    app.router.add_get("/jwks.json", issuer.handle)
    async with listening(app) as port:
        issuer.url = f"http://127.0.0.1:{port}/jwks.json"
        yield issuer


def asking_for_jwts(
    secret: Secret | None,
    jwks_url: str | None,
    issuer: str | None,
    audiences: tuple[str, ...],
    algorithms: tuple[str, ...],
) -> AppValues:
    """The values of an app whose client auth is ``jwt``."""
    values = {
        "jwt_secret": secret,
        "jwt_jwks_url": jwks_url,
        "jwt_issuer": issuer,
        "jwt_audiences": audiences,
        "jwt_algorithms": algorithms,
    }
    return AppValues("default", {}, {"client_auth": "jwt", **values})
