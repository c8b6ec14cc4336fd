"""The settings: what there is, what it may be, what holds when nothing is said.

One row per setting, in the metadata of its field: command-line options, docs/settings.md and
validation all come from it. Built from any mapping of variables; the environment and the
``.env`` files are read in ``sources`` only. A default stands here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from keyproxy.errors import SettingsFaults
from keyproxy.settings.consistency import credential_faults, foreign_key_faults
from keyproxy.settings.grammar import (
    features,
    jwt,
    money,
    network,
    origins,
    plain,
    sessions,
    tokens,
)
from keyproxy.settings.grammar.keys import keys as parse_keys
from keyproxy.settings.grammar.money import bound_answers, budget_faults
from keyproxy.settings.grammar.storage import storage as parse_storage
from keyproxy.settings.lines import of_app
from keyproxy.settings.reading import Reading
from keyproxy.settings.setting import SAY_IT, Derived, Mode, Setting, row
from keyproxy.values import Address, Budget, ClientToken, Rate, Secret, StorageServer

__all__ = [
    "CONFIG",
    "DEFAULT_APP",
    "DEFAULT_ENDPOINTS",
    "KNOWN_ENDPOINTS",
    "SAY_IT",
    "Address",
    "Budget",
    "ClientAuth",
    "ClientToken",
    "Derived",
    "Mode",
    "Rate",
    "Secret",
    "Setting",
    "Settings",
    "pairs",
    "rows",
]

DEFAULT_APP = "default"
NO_APPS: Mapping[str, Mapping[str, str]] = MappingProxyType({})
NOWHERE: Mapping[str, str] = MappingProxyType({})
ClientAuth = Literal["none", "token", "jwt", "session"]
Vendor = Literal["turnstile", "hcaptcha"]

DEFAULT_ENDPOINTS = (
    "POST /api/v1/chat/completions",
    "POST /api/v1/responses",
    "POST /api/v1/messages",
    "GET /api/v1/models",
    "GET /api/v1/models/count",
    "GET /api/v1/models/{author}/{slug}/endpoints",
    "GET /api/v1/model/{author}/{slug}",
)
KNOWN_ENDPOINTS = (
    *DEFAULT_ENDPOINTS,
    "POST /api/v1/completions",
    "POST /api/v1/embeddings",
    "POST /api/v1/rerank",
    "POST /api/v1/images",
    "POST /api/v1/audio/speech",
    "POST /api/v1/audio/transcriptions",
)


_KEY = "The key"
_PLACE = "Where it listens"
_UPSTREAM = "The upstream"
_WHO = "Who may call"
_WHAT = "What may be called"
_HOW_MUCH = "How much"
_TIME = "Time"
_LOG = "The log"


def _ten_times(rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
    # Many people share one address (mobile networks, offices).
    return tuple(Rate(rate.amount * 10, rate.seconds) for rate in rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, validated. Made by ``from_environ``.

    What the environment sets is the app ``default``. ``apps`` are the other ones, each with the
    settings as they hold for it.
    """

    mode: Mode
    name: str = DEFAULT_APP
    apps: tuple[Settings, ...] = ()
    # By variable, in the words of ``layers``; what is missing was never said.
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    keys: tuple[Secret, ...] = field(
        metadata=row(
            _KEY,
            "OPENROUTER_API_KEY",
            parse_keys,
            "the key; several by comma or newline, the first that works is used",
            "sk-or-v1-…",
            SAY_IT,
            is_secret=True,
            is_upstream=True,
            is_app=True,
            instead="OPENROUTER_API_KEY_FILE",
            in_file="a file that holds the key, such as a Docker or Kubernetes secret; read again"
            " when it changes",
        )
    )
    listen: tuple[Address, ...] = field(
        metadata=row(
            _PLACE,
            "KEYPROXY_LISTEN",
            network.addresses,
            "`host:port`, several by comma; `localhost` is 127.0.0.1 and ::1, an empty host is"
            " every address; `dev` refuses anything but loopback",
            ":8484",
            "localhost:8484",
        )
    )
    upstream: str = field(
        metadata=row(
            _UPSTREAM,
            "KEYPROXY_UPSTREAM",
            network.upstream,
            "base address of the API behind us; https only, unless its host is loopback",
            "https://openrouter.ai/api/v1",
            "https://openrouter.ai/api/v1",
            is_upstream=True,
        )
    )
    upstream_proxy: Secret | None = field(
        metadata=row(
            _UPSTREAM,
            "KEYPROXY_UPSTREAM_PROXY",
            network.upstream_proxy,
            "an HTTP proxy for every outgoing call, by CONNECT:"
            " `http://[user:password@]host:port`, or `env` to take HTTPS_PROXY and NO_PROXY",
            "http://proxy.example:3128",
            None,
            is_secret=True,
            is_upstream=True,
        )
    )
    upstream_ca_file: Path | None = field(
        metadata=row(
            _UPSTREAM,
            "KEYPROXY_UPSTREAM_CA_FILE",
            network.file_path,
            "an extra CA (PEM) for every outgoing call, beside the system's",
            "/etc/ssl/corporate-ca.pem",
            None,
            is_upstream=True,
        )
    )
    referer: str | None = field(
        metadata=row(
            _UPSTREAM,
            "KEYPROXY_REFERER",
            plain.header_text,
            "ranking header `HTTP-Referer`: the address of the app",
            "https://app.example.com",
            None,
            is_app=True,
        )
    )
    title: str | None = field(
        metadata=row(
            _UPSTREAM,
            "KEYPROXY_TITLE",
            plain.header_text,
            "ranking header `X-OpenRouter-Title`: the name of the app",
            "My app",
            None,
            is_app=True,
        )
    )
    categories: str | None = field(
        metadata=row(
            _UPSTREAM,
            "KEYPROXY_CATEGORIES",
            plain.categories,
            "ranking header `X-OpenRouter-Categories`: at most two",
            "creative-writing,roleplay",
            None,
            is_app=True,
        )
    )
    allowed_hosts: tuple[str, ...] = field(
        metadata=row(
            _WHO,
            "KEYPROXY_ALLOWED_HOSTS",
            origins.hosts,
            "accepted Host names; `any-ip` is any IP literal, `*.name` every subdomain; an"
            " entry without a port matches any port",
            "api.example.com",
            "localhost,*.localhost,any-ip,host.docker.internal",
            SAY_IT,
        )
    )
    allowed_origins: tuple[str, ...] = field(
        metadata=row(
            _WHO,
            "KEYPROXY_ALLOWED_ORIGINS",
            origins.origins,
            "origins of pages that may call: exact `scheme://host[:port]`, `localhost` (any"
            " loopback origin), `null`, one `*` inside a label or in front of an own domain,"
            " `*`; `none` is no page; other schemes than http and https letter by letter"
            " (`app://-`, `file://`), `SCHEME://*` for moz-extension, safari-web-extension and"
            " vscode-webview alone",
            "https://app.example.com",
            "localhost",
            Derived("https:// + each allowed host", "allowed_hosts", origins.origins_of_hosts),
            is_app=True,
        )
    )
    client_auth: ClientAuth = field(
        metadata=row(
            _WHO,
            "KEYPROXY_CLIENT_AUTH",
            plain.word("none", "token", "jwt", "session"),
            "how a caller proves who it is; `session`: not at all, but each page gets a signed id"
            " of its own from `POST /session`; `jwt`: by a user's JWT; `token`: by a client token;"
            " `none`: every caller that reaches it is served, and a client is a network address",
            "none",
            "none",
            SAY_IT,
            is_app=True,
        )
    )
    client_tokens: tuple[ClientToken, ...] = field(
        metadata=row(
            _WHO,
            "KEYPROXY_CLIENT_TOKENS",
            tokens.client_tokens,
            "who may call with `token`: comma-separated `name:sha256-hex` as `keyproxy token`"
            " prints them; `off`",
            f"phone:{'0' * 64}",
            "off",
            is_app=True,
            is_own=True,
            in_file="a file with such pairs, one a line; read again when it changes",
        )
    )
    jwt_jwks_url: str | None = field(
        metadata=row(
            _WHO,
            "KEYPROXY_JWT_JWKS_URL",
            jwt.jwks_url,
            "the address of the key set that users' JWTs are signed with (recipes: docs/jwt.md)",
            "https://auth.example/.well-known/jwks.json",
            None,
            is_app=True,
            family="jwt",
            instead="KEYPROXY_JWT_SECRET",
        )
    )
    jwt_secret: Secret | None = field(
        metadata=row(
            _WHO,
            "KEYPROXY_JWT_SECRET",
            jwt.secret,
            "or the secret that the issuer of users' JWTs shares with us",
            "…",
            None,
            is_secret=True,
            is_app=True,
            family="jwt",
            instead="KEYPROXY_JWT_JWKS_URL",
            in_file="a file that holds that secret",
        )
    )
    jwt_issuer: str | None = field(
        metadata=row(
            _WHO,
            "KEYPROXY_JWT_ISSUER",
            jwt.issuer,
            "what the claim `iss` must be, letter by letter",
            "https://auth.example/",
            None,
            is_app=True,
            family="jwt",
        )
    )
    jwt_audiences: tuple[str, ...] | None = field(
        metadata=row(
            _WHO,
            "KEYPROXY_JWT_AUDIENCE",
            jwt.audiences,
            "what the claim `aud` must name, one of several by comma",
            "my-project",
            None,
            is_app=True,
            family="jwt",
        )
    )
    jwt_algorithms: tuple[str, ...] = field(
        metadata=row(
            _WHO,
            "KEYPROXY_JWT_ALGORITHMS",
            jwt.algorithms,
            "the signatures that count, comma-separated; never `none`",
            "RS256",
            Derived(
                "HS256 with a secret, RS256 and ES256 with a key set",
                "jwt_jwks_url",
                jwt.default_algorithms,
            ),
            is_app=True,
            family="jwt",
        )
    )
    # Clocks that NTP keeps differ by milliseconds; phones and laptops by some seconds.
    jwt_leeway_seconds: float = field(
        metadata=row(
            _WHO,
            "KEYPROXY_JWT_LEEWAY",
            jwt.leeway,
            "how far the issuer's clock may differ from ours, 5m at most",
            "30s",
            "30s",
            is_app=True,
        )
    )
    jwt_app_claim: str | None = field(
        metadata=row(
            _WHO,
            "KEYPROXY_JWT_APP_CLAIM",
            jwt.claim,
            "a claim that names the app a user belongs to, such as a paying tier; whole or as a"
            " dotted path; `off`",
            "app_metadata.plan",
            None,
            is_app=True,
        )
    )
    # In dev and demo a random one: sessions end with the process.
    session_secrets: tuple[Secret, ...] | None = field(
        metadata=row(
            _WHO,
            "KEYPROXY_SESSION_SECRET",
            sessions.session_secret,
            "signs anonymous sessions; the same in every replica; two by comma while it is being"
            " changed, the new one first",
            "…",
            None,
            is_secret=True,
            in_file="a file that holds the secret",
        )
    )
    session_rate_limit: tuple[Rate, ...] = field(
        metadata=row(
            _WHO,
            "KEYPROXY_SESSION_RATE_LIMIT",
            plain.rates,
            "new sessions per network address; `off`",
            "60/minute",
            # A school class that opens the page at once; what an address gains by asking again
            # is bounded by KEYPROXY_ADDRESS_RATE_LIMIT.
            "60/minute;1000/day",
        )
    )
    captcha: Vendor | None = field(
        metadata=row(
            _WHO,
            "KEYPROXY_CAPTCHA",
            plain.word_or_off("turnstile", "hcaptcha"),
            "a captcha that a page must have solved to open a session: `turnstile`, `hcaptcha`;"
            " `off`",
            "off",
            None,
        )
    )
    captcha_secret: Secret | None = field(
        metadata=row(
            _WHO,
            "KEYPROXY_CAPTCHA_SECRET",
            plain.secret,
            "the captcha's secret key, as its vendor shows it",
            "…",
            None,
            is_secret=True,
            in_file="a file that holds the captcha's secret key",
        )
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = field(
        metadata=row(
            _WHO,
            "KEYPROXY_TRUSTED_PROXIES",
            network.networks,
            "whose `X-Forwarded-For` is believed: CIDRs, `loopback`, `private`, `none`",
            "none",
            "none",
            SAY_IT,
            instead="KEYPROXY_TRUSTED_HOPS",
        )
    )
    trusted_hops: int = field(
        metadata=row(
            _WHO,
            "KEYPROXY_TRUSTED_HOPS",
            plain.count(0, 20),
            "how many proxies stand in front, where they have no fixed address; 0: not used",
            "1",
            "0",
        )
    )
    client_address_header: str | None = field(
        metadata=row(
            _WHO,
            "KEYPROXY_CLIENT_ADDRESS_HEADER",
            plain.header_name,
            "a header with the caller's address, believed from trusted proxies only",
            "CF-Connecting-IP",
            None,
        )
    )
    allowed_models: tuple[str, ...] = field(
        metadata=row(
            _WHAT,
            "KEYPROXY_ALLOWED_MODELS",
            plain.models,
            "globs over full model ids, `*` crosses `/`; `!pattern` excludes",
            "openai/gpt-4o-mini,anthropic/*",
            "*",
            SAY_IT,
            is_app=True,
        )
    )
    model_aliases: tuple[tuple[str, str], ...] = field(
        metadata=row(
            _WHAT,
            "KEYPROXY_MODEL_ALIASES",
            plain.aliases,
            "names that front ends may use instead of ids, comma-separated `name=id`; each is"
            " checked by what it stands for",
            "fast=openai/gpt-4o-mini",
            "off",
            is_app=True,
        )
    )
    allowed_endpoints: tuple[str, ...] = field(
        metadata=row(
            _WHAT,
            "KEYPROXY_ALLOWED_ENDPOINTS",
            plain.endpoints(KNOWN_ENDPOINTS),
            "what is served, comma-separated `METHOD /api/v1/path`, each exact; replaces the"
            " default list",
            "POST /api/v1/chat/completions,GET /api/v1/models",
            ",".join(DEFAULT_ENDPOINTS),
            is_app=True,
        )
    )
    allowed_features: tuple[str, ...] = field(
        metadata=row(
            _WHAT,
            "KEYPROXY_ALLOWED_FEATURES",
            features.features,
            "what may cost extra or reach further, by the words of docs/features.md; `off`",
            "web,pdf",
            "off",
            is_app=True,
        )
    )
    extra_fields: tuple[str, ...] = field(
        metadata=row(
            _WHAT,
            "KEYPROXY_EXTRA_FIELDS",
            features.extra_fields,
            "top-level body fields beyond the table of docs/features.md, passed on unread; `off`",
            "trace",
            "off",
            is_app=True,
        )
    )
    # One person at a keyboard in dev; a public page's visitor, who may come back all day, in serve.
    rate_limit: tuple[Rate, ...] = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_RATE_LIMIT",
            plain.rates,
            "calls per client, `;` joins several; fixed windows; `off`",
            "20/minute;300/day",
            "60/minute",
            "20/minute;300/day",
            is_app=True,
        )
    )
    address_rate_limit: tuple[Rate, ...] = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_ADDRESS_RATE_LIMIT",
            plain.rates,
            "calls per network address, on top; `off`",
            "200/minute",
            "off",
            Derived("10 x the client's", "rate_limit", _ten_times),
            is_app=True,
        )
    )
    # A browser opens six connections to a host over HTTP/1.1; two more for a second tab.
    max_in_flight: int = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_MAX_IN_FLIGHT",
            plain.count(1, 1_000_000),
            "calls in flight per client",
            "8",
            "8",
            is_app=True,
        )
    )
    # In memory, nobody has to run anything; the start line says that each process counts alone.
    storage: StorageServer | None = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_STORAGE",
            parse_storage,
            "where limits are counted: `memory://`, each process for itself; or a Redis (6.2 or"
            " newer) or Valkey that all replicas share: `redis://[user:password@]host[:port][/db]`,"
            " `valkey://`, and with TLS `rediss://`, `valkeys://`",
            "redis://redis.internal:6379",
            "memory://",
            is_secret=True,
            in_file="a file that holds the storage's address, with its password",
        )
    )
    # An app goes on working; N replicas then let at most N times a limit through.
    storage_failure: Literal["local", "closed", "open"] = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_STORAGE_FAILURE",
            plain.word("local", "closed", "open"),
            "while the storage is down: each process counts on for itself (`local`), calls are"
            " refused (`closed`), or let through uncounted (`open`)",
            "closed",
            "local",
        )
    )
    budget: tuple[Budget, ...] = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_BUDGET",
            money.budgets,
            "USD per client in each hour, day or month of the calendar (UTC), `;` joins several;"
            " `off`",
            "0.50/day",
            "off",
            is_app=True,
        )
    )
    app_budget: tuple[Budget, ...] = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_APP_BUDGET",
            money.budgets,
            "USD for all clients of the app together; `off`",
            "5/day",
            "off",
            is_app=True,
            is_own=True,
        )
    )
    # A day of trying things out; serve knows its users, or is asked what strangers may cost.
    total_budget: tuple[Budget, ...] = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_TOTAL_BUDGET",
            money.budgets,
            "USD for all apps together; `off`; `serve` wants it said where the client auth"
            " of any app is `none`",
            "20/day",
            "5/day",
            "off",
        )
    )
    refuses_unpriced: bool = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_UNPRICED",
            money.unpriced,
            "calls whose price nobody knows, where there is a budget: `refuse` or `allow`",
            "allow",
            "allow",
            "refuse",
            is_app=True,
        )
    )
    ledger: Path | None = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_LEDGER",
            money.ledger,
            "the SQLite file that calls are booked in; `default` is one in the user's state folder,"
            " in `dev` one for each working folder, in `serve` under `$STATE_DIRECTORY` where that"
            " is set; `off`",
            "/data/ledger.sqlite3",
            "default",
        )
    )
    # A year and a month: last year's month beside this one.
    ledger_retention_days: int = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_LEDGER_RETENTION",
            money.days,
            "how long calls stay in the ledger, in days: 31 at least where there is a budget for a"
            " month, which is read back from it",
            "400",
            "400",
        )
    )
    max_tokens: int | None = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_MAX_TOKENS",
            plain.cap,
            "cap on every output-length field: filled in when absent, lowered when larger; `off`;"
            " 4096 where a budget is said and this is not",
            "4096",
            None,
            is_app=True,
        )
    )
    # A chat with several photos in base64.
    max_body_bytes: int = field(
        metadata=row(
            _HOW_MUCH,
            "KEYPROXY_MAX_BODY",
            plain.size,
            "largest request body; larger ones get 413",
            "20MiB",
            "20MiB",
        )
    )
    # A slow mobile network needs a few seconds; whoever dribbles a head gets no more.
    header_timeout_seconds: float = field(
        metadata=row(
            _TIME,
            "KEYPROXY_HEADER_TIMEOUT",
            plain.timeout,
            "from the first byte of a request's head (a new connection: from connect) to its end",
            "10s",
            "10s",
        )
    )
    # 20 MiB in 30 s is a 6 Mbit/s line.
    body_timeout_seconds: float = field(
        metadata=row(
            _TIME,
            "KEYPROXY_BODY_TIMEOUT",
            plain.timeout,
            "for a request's whole body",
            "30s",
            "30s",
        )
    )
    # nginx's default; load balancers keep idle connections for 60 s.
    keepalive_timeout_seconds: float = field(
        metadata=row(
            _TIME,
            "KEYPROXY_KEEPALIVE_TIMEOUT",
            plain.timeout,
            "an idle connection; longer than the load balancer's own, or that answers 502 at"
            " random",
            "75s",
            "75s",
        )
    )
    # Three SYN retries (1, 2, 4 s) and the TLS handshake.
    connect_timeout_seconds: float = field(
        metadata=row(
            _TIME,
            "KEYPROXY_CONNECT_TIMEOUT",
            plain.timeout,
            "to connect to the upstream",
            "10s",
            "10s",
        )
    )
    # The official SDKs wait ten minutes; a reasoning model may need them.
    first_byte_timeout_seconds: float = field(
        metadata=row(
            _TIME,
            "KEYPROXY_FIRST_BYTE_TIMEOUT",
            plain.timeout,
            "from sending a call to the first byte of its answer, connecting not included; for each"
            " key that is tried",
            "10m",
            "600s",
        )
    )
    # OpenRouter sends a comment every few seconds while it waits.
    idle_timeout_seconds: float = field(
        metadata=row(
            _TIME,
            "KEYPROXY_IDLE_TIMEOUT",
            plain.timeout,
            "between two pieces of an answer; there is no total limit on a stream",
            "2m",
            "120s",
        )
    )
    # 0: nobody routes to a single process; the image says 5 s, for load balancers to notice.
    shutdown_delay_seconds: float = field(
        metadata=row(
            _TIME,
            "KEYPROXY_SHUTDOWN_DELAY",
            plain.pause,
            "after SIGTERM: serve on that long while /readyz says 503",
            "5s",
            "0s",
        )
    )
    # Kubernetes kills after 30 s: 5 s of delay, 20 s of grace, 5 s to spare.
    shutdown_grace_seconds: float = field(
        metadata=row(
            _TIME,
            "KEYPROXY_SHUTDOWN_GRACE",
            plain.pause,
            "then: let open calls finish that long",
            "20s",
            "3s",
            "20s",
        )
    )
    log_format: Literal["console", "json"] = field(
        metadata=row(
            _LOG,
            "KEYPROXY_LOG_FORMAT",
            plain.word("console", "json"),
            "`console` for people, a short line a call; `json` for machines",
            "json",
            "console",
            "json",
        )
    )
    log_level: Literal["debug", "info", "warning", "error"] = field(
        metadata=row(
            _LOG,
            "KEYPROXY_LOG_LEVEL",
            plain.word("debug", "info", "warning", "error"),
            "the least grave of what is logged: `debug` (on the console with all fields), `info`,"
            " `warning`, `error`",
            "warning",
            "info",
        )
    )
    log_address: Literal["full", "prefix", "off"] = field(
        metadata=row(
            _LOG,
            "KEYPROXY_LOG_ADDRESS",
            plain.word("full", "prefix", "off"),
            "how much of a caller's address is logged: `full`, `prefix` (its network), `off`",
            "prefix",
            "full",
            "prefix",
        )
    )

    @classmethod
    def from_environ(
        cls,
        mode: Mode,
        environ: Mapping[str, str],
        apps: Mapping[str, Mapping[str, str]] = NO_APPS,
        *,
        places: Mapping[str, str] = NOWHERE,
        directory: Path = Path(),
        read_file: Callable[[Path], bytes] = Path.read_bytes,
    ) -> Self:
        """Settings from a mapping of variables; others than ours may be in it.

        ``apps``: for each app beside the default one, what it says itself, by variable.
        ``places``: where the variables of ``environ`` stand, in the words of ``layers``.
        Relative paths are taken from ``directory``. ``read_file`` gives a file's content or
        raises ``Unfit`` or ``OSError``. Raises ``SettingsFaults`` with every fault at once.
        """
        table = rows()
        names = {each.name for each in fields(cls)}
        own = {name: setting for name, setting in table.items() if name in names}
        known = [setting.variable for setting in table.values()]
        reading = Reading(own, known, mode, environ, directory, read_file)
        values = reading.values()
        said = {name: reading.app_values(name, text, values) for name, text in apps.items()}
        bound_answers(values, environ)
        for name, theirs in said.items():
            bound_answers(theirs, {**environ, **apps[name]})
        is_said = bool(environ.get("KEYPROXY_TOTAL_BUDGET", "").strip())
        reading.faults += credential_faults(mode, values, said, is_said)
        reading.faults += origins.extension_faults(mode, values, said)
        if mode != "demo":
            reading.faults += foreign_key_faults(values, environ)
            for name, theirs in said.items():
                found = foreign_key_faults({**values, **theirs}, apps[name])
                reading.faults += [of_app(f, name) for f in found if f.variable in apps[name]]
        reading.faults += budget_faults(values, said.values())
        if reading.faults:
            raise SettingsFaults(reading.faults)
        default = cls(mode=mode, places=dict(places), **values)
        named = [
            replace(default, name=name, places=_in_table(name, apps[name], places), **theirs)
            for name, theirs in said.items()
        ]
        return replace(default, apps=tuple(named))

    @property
    def all_apps(self) -> tuple[Settings, ...]:
        """The settings of each app, the default app's first."""
        return (self, *self.apps)

    @property
    def counts_money(self) -> bool:
        """Whether anything asks what a call of this app may cost: a budget, or the ledger."""
        return bool(self.budget or self.app_budget or self.total_budget or self.ledger)

    @property
    def all_keys(self) -> tuple[Secret, ...]:
        """The keys of all apps, each once."""
        return tuple(dict.fromkeys(key for app in self.all_apps for key in app.keys))

    def kept(self, **values: Any) -> Self:
        """These settings with ``values``, which hold for every app, in place of their own."""
        apps = tuple(replace(app, **values) for app in self.apps)
        return replace(self, apps=apps, **values)


def _in_table(name: str, said: Mapping[str, str], places: Mapping[str, str]) -> Mapping[str, str]:
    """Where the settings of an app stand; those that are its own can stand in its table only."""
    own = {variable for row in rows().values() if row.is_own for variable in row.variables}
    return {**places, **dict.fromkeys({*said, *own}, f"in [apps.{name}] of the TOML file")}


CONFIG = Setting(
    "Files",
    "KEYPROXY_CONFIG",
    network.file_path,
    "a TOML file with these settings: names in lower case without KEYPROXY_",
    "/etc/keyproxy.toml",
    "keyproxy.toml",
    "keyproxy.toml",
)


def rows() -> dict[str, Setting]:
    """The settings table by field name, in order.

    ``config`` and the variables that name a file with a value (``keys_file``) are no fields.
    """
    table: dict[str, Setting] = {}
    for each in fields(Settings):
        if (setting := each.metadata.get("row")) is not None:
            table[each.name] = setting
            if setting.file is not None:
                table[f"{each.name}_file"] = setting.file
    return table | {"config": CONFIG}


def pairs() -> tuple[tuple[str, str], ...]:
    """Each variable that may stand in a file, with the one that names the file."""
    table = rows().values()
    return tuple((row.variable, row.file.variable) for row in table if row.file is not None)
