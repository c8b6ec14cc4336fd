"""What a project begins with: what ``.env`` and ``.env.serve`` say for whom, and their secrets."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from keyproxy.commands.file_changes import Change, Said, env_file, ignoring, text_of_file
from keyproxy.dataclass import dataclass
from keyproxy.key_forms import STARS
from keyproxy.settings import ROWS
from keyproxy.settings.grammar.secrets import KEY, KEY_FILE
from keyproxy.settings.layers import of_env_file

ENV, SERVE_ENV = ".env", ".env.serve"
_KEY_NAME, _SECRET_NAME, _TOKENS_NAME = "openrouter_api_key", "session_secret", "client_tokens"
_HEADING = "keyproxy {mode}. Empty is unset; all settings: docs/settings.md"
_MOUNTED = "On a server: where the secret is mounted, such as /run/secrets/{name}."


@dataclass(frozen=True, slots=True)
class Audience:
    """Who calls. ``asks``: the fields of settings that only the operator knows, with what is taken
    where nothing is said; "" is nothing, and it must be said."""

    words: str
    client_auth: str
    asks: Mapping[str, str]


_MODEL = "openai/gpt-4o-mini"
AUDIENCES: Mapping[str, Audience] = {
    "me": Audience("you, on this computer", "none", {"allowed_models": "*"}),
    "page": Audience(
        "a public page, without log-in",
        "session",
        {"allowed_origins": "", "allowed_models": _MODEL},
    ),
    "login": Audience(
        "a page or an app with log-in (Supabase, Clerk, Auth0, Firebase, your own)",
        "jwt",
        {
            "allowed_origins": "",
            "allowed_models": _MODEL,
            "jwt_jwks_url": "",
            "jwt_issuer": "",
        },
    ),
    "app": Audience(
        "a mobile app without log-in, or a few known devices",
        "token",
        {"allowed_hosts": "", "allowed_models": _MODEL},
    ),
}


@dataclass(frozen=True, slots=True)
class Beginning:
    """``folder`` holds this project's secrets; ``answers`` are texts by the fields of settings."""

    directory: Path
    folder: Path
    audience: str
    answers: Mapping[str, str]
    is_key_in_env: bool

    @property
    def env_names(self) -> tuple[str, ...]:
        """The files of settings that are written, or added to."""
        return (ENV,) if self.audience == "me" else (ENV, SERVE_ENV)

    @property
    def key_place(self) -> Path:
        """The file that a key is to be written into."""
        return self.directory / ENV if self.is_key_in_env else self.folder / _KEY_NAME

    def has_key(self) -> bool:
        """Whether the files that are written find a key already."""
        if self.is_key_in_env:
            return bool(self._key_in_env())
        return not self._needs_key_file or bool((text_of_file(self.key_place) or "").strip())

    def _key_in_env(self) -> str:
        return self._present().get(KEY, "").strip()

    def _present(self) -> Mapping[str, str]:
        """What ``.env`` says."""
        return of_env_file(ENV, text_of_file(self.directory / ENV) or "").variables

    @property
    def _needs_key_file(self) -> bool:
        """Whether a key is read from our file: not where ``.env`` is all there is, and it holds a
        key or names another file."""
        present = self._present()
        named = present.get(KEY_FILE, "").strip()
        says_another = self._key_in_env() or named not in ("", self.key_place.as_posix())
        return not (self.is_key_in_env or (says_another and SERVE_ENV not in self.env_names))

    def changes(self, key: str, client_tokens: str) -> Iterator[Change]:
        """All that is to be written, ``key`` and a line of ``client_tokens`` included; a file of a
        secret that is there stays. Raises ``SettingsFaults`` for files that cannot be read."""
        if self._needs_key_file:
            yield from self._secret(_KEY_NAME, key)
        if self._client_auth == "session":
            yield from self._secret(_SECRET_NAME, randomness.token_hex(32))
        if self._client_auth == "token":
            yield from self._secret(_TOKENS_NAME, client_tokens)
        yield from ignoring(self.directory, self.env_names)  # before there is anything to ignore
        yield env_file(self.directory / ENV, _HEADING.format(mode="dev"), list(self._dev(key)))
        if SERVE_ENV in self.env_names:
            heading = _HEADING.format(mode=f"serve --env-file {SERVE_ENV}")
            yield env_file(self.directory / SERVE_ENV, heading, list(self._serve(key)))

    @property
    def _client_auth(self) -> str:
        return AUDIENCES[self.audience].client_auth

    def _secret(self, name: str, text: str) -> Iterator[Change]:
        path = self.folder / name
        if not (is_new := not path.exists()) and (not text or (text_of_file(path) or "").strip()):
            return
        yield Change(path, f"{text}\n" if text else "", is_new, [STARS] if text else ["(empty)"])

    def _dev(self, key: str) -> Iterator[Said]:
        yield self._key(key)
        models = self.answers["allowed_models"]
        yield self._said("allowed_models", "" if models == "*" else models)
        yield self._said("total_budget", "")
        if self.audience != "me":
            note = "So it is for others; to try that here, take the # away."
            yield Said(ROWS["client_auth"], self._client_auth, note, is_example=True)

    def _serve(self, key: str) -> Iterator[Said]:
        yield self._key(key, _MOUNTED.format(name=_KEY_NAME))
        yield self._said("listen", "")
        origins = self.answers.get("allowed_origins", "")
        yield self._said("allowed_hosts", self.answers.get("allowed_hosts") or hosts_of(origins))
        yield self._said("allowed_origins", origins or "none")
        yield self._said("allowed_models", self.answers["allowed_models"])
        yield self._said("client_auth", self._client_auth)
        if self._client_auth == "session":
            note = "It signs the ids that pages get."
            yield self._file("session_secrets_file", _SECRET_NAME, note)
        if self._client_auth == "token":
            yield self._file("client_tokens_file", _TOKENS_NAME)
        for name in ("jwt_jwks_url", "jwt_issuer", "jwt_audiences"):
            if value := self.answers.get(name):
                yield self._said(name, value)
        note = (
            "loopback: a web server in front on the same host; in Docker and Kubernetes: private."
        )
        yield self._said("trusted_proxies", "loopback", note)
        # What strangers may spend until somebody looks; the table's own proposals.
        yield self._said("budget", ROWS["budget"].example)
        yield self._said("total_budget", "5/day")
        yield self._said("max_tokens", "")

    def _key(self, key: str, note: str = "") -> Said:
        if self.is_key_in_env:
            return Said(ROWS["keys"], key or self._key_in_env())
        return self._file("keys_file", _KEY_NAME, note)

    def _file(self, field: str, name: str, note: str = "") -> Said:
        return Said(ROWS[field], (self.folder / name).as_posix(), note)

    @staticmethod
    def _said(field: str, value: str, note: str = "") -> Said:
        """``value`` of a setting, or where it is "" the example of the table as a comment."""
        row = ROWS[field]
        return Said(row, value or row.example, note, is_example=not value)


def hosts_of(origins: str) -> str:
    """The hosts of live pages: keyproxy stands beside them, under a path of theirs. "" where no
    origin has one that a server can have."""
    parts = [urlsplit(origin.strip()) for origin in origins.split(",")]
    hosts = [part.hostname for part in parts if part.scheme == "https" and "*" not in part.netloc]
    return ",".join(dict.fromkeys(filter(None, hosts)))
