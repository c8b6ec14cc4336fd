"""The verifiers of all apps. Key sets are shared by address, and outlive a reload.

Apps that ask for the same JWTs have the same verifier: so a claim can tell one of them from
another (a paying tier from the usual one).
"""

from __future__ import annotations

import asyncio

import aiohttp

from keyproxy.clients.jwks import Jwks
from keyproxy.clients.jwt import JwtRules, KeySource, SharedSecret, Verifier
from keyproxy.key_forms import Secret
from keyproxy.settings import Settings


class Verifiers:
    """Makes one verifier for each different question."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._sets: dict[str, Jwks] = {}

    def of(self, settings: Settings) -> dict[str, Verifier]:
        """The verifier of each app that asks for JWTs, by the app's name.

        Key sets begin to load, and those that no app asks for any more are forgotten. Raises
        ``SettingsFault`` where the extra is missing.
        """
        made: dict[tuple[JwtRules, Secret | str | None], Verifier] = {}
        found = {}
        for app in settings.all_apps:
            if app.client_auth == "jwt":
                rules, source = _rules(app), app.jwt_secret or app.jwt_jwks_url
                if (rules, source) not in made:
                    made[rules, source] = Verifier(rules, self._keys(app))
                found[app.name] = made[rules, source]
        named = {source for _, source in made}
        self._sets = {url: keys for url, keys in self._sets.items() if url in named}
        return found

    async def close(self) -> None:
        await asyncio.gather(*(keys.close() for keys in self._sets.values()))

    def _keys(self, app: Settings) -> KeySource:
        if app.jwt_secret is not None:
            return SharedSecret(app.jwt_secret)
        url = app.jwt_jwks_url or ""
        if url not in self._sets:
            self._sets[url] = Jwks.at(url, self._session)
            self._sets[url].start()
        return self._sets[url]


def _rules(app: Settings) -> JwtRules:
    return JwtRules(
        algorithms=app.jwt_algorithms,
        issuer=app.jwt_issuer,
        audiences=app.jwt_audiences or (),
        leeway_seconds=app.jwt_leeway_seconds,
        app_claim=app.jwt_app_claim,
    )
