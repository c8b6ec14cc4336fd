"""The table of settings: what there is, what it may be, what holds when nothing is said.

One row per setting: variables, command-line options, keys of the TOML file, docs/settings.md,
validation and what a reload takes all come from it. A default stands here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from keyproxy.call import BASE
from keyproxy.dataclass import dataclass, fields
from keyproxy.dialects import DIALECTS
from keyproxy.key_forms import KNOWN, Secret
from keyproxy.settings import providers, routes
from keyproxy.settings.grammar import features, jwt, network, or_off, origins, plain, secrets
from keyproxy.settings.grammar.network import Address, StorageServer
from keyproxy.settings.grammar.plain import Budget, Rate
from keyproxy.settings.grammar.secrets import KEY, KEY_FILE, ClientToken
from keyproxy.settings.routes import CHOOSE, Choose, Usd
from keyproxy.settings.setting import (
    SAY_IT,
    Derived,
    Setting,
    finished,
    setting,
    which_key,
    who_may_call,
)

ClientAuth = Literal["none", "token", "jwt", "session"]
Vendor = Literal["turnstile", "hcaptcha"]

DEFAULT_APP = "default"
DEFAULT_ENDPOINTS = (
    *(f"POST {BASE}{dialect.path}" for dialect in DIALECTS if dialect.is_usual),
    "GET /api/v1/models",
    "GET /api/v1/models/count",
    "GET /api/v1/models/{author}/{slug}/endpoints",
    "GET /api/v1/model/{author}/{slug}",
)
KNOWN_ENDPOINTS = (
    *DEFAULT_ENDPOINTS,
    *(f"POST {BASE}{dialect.path}" for dialect in DIALECTS if not dialect.is_usual),
)


def _ten_times(rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
    # Many people share one address (mobile networks, offices).
    return tuple(Rate(rate.amount * 10, rate.seconds) for rate in rates)


def _key(provider: str) -> Any:
    """The row of the key of another provider than OpenRouter."""
    variable, in_file = providers.key_variables(provider)
    example = KNOWN[provider].example
    return setting(secrets.keys, "VALUE", SAY_IT, example=example, separator=",", is_secret=True,
        is_upstream=True, is_app=True, instead=in_file, variable=variable, provider=provider,
        meaning=f"the key of `{provider}`, where that is used; several by comma or newline",
        in_file="a file that holds it")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Table:
    """Everything that can be set. A row gives the parser, what help calls the value, and the
    defaults of ``dev`` and ``serve``; its variable is the field's name without the unit."""

    # fmt: off
    keys: tuple[Secret, ...] = setting(secrets.keys, "VALUE", SAY_IT, section="The key",
        example=KNOWN["openrouter"].example, separator=",", is_secret=True, is_upstream=True,
        is_app=True, instead=KEY_FILE, variable=KEY, unsaid=which_key, provider="openrouter",
        meaning="the key; several by comma or newline, the first that works is used",
        in_file="a file that holds the key, such as a Docker or Kubernetes secret; read again when"
        " it changes")
    provider_names: tuple[str, ...] = setting(providers.names, "NAMES", "openrouter",
        section="Other providers", example="groq,cerebras,openrouter", separator=",",
        is_upstream=True, is_app=True, variable=providers.NAMES,
        meaning="whose keys are used, in the order in which they are asked (docs/providers.md)")
    public_list: bool = setting(plain.switch, "VALUE",
        Derived("on where `openrouter` is used, else off", "provider_names",
                lambda names: "openrouter" in names),
        is_upstream=True, example="off",
        meaning="whether OpenRouter's public list of models and prices is asked for, without a key")
    openai_keys: tuple[Secret, ...] = _key("openai")
    anthropic_keys: tuple[Secret, ...] = _key("anthropic")
    gemini_keys: tuple[Secret, ...] = _key("gemini")
    groq_keys: tuple[Secret, ...] = _key("groq")
    cerebras_keys: tuple[Secret, ...] = _key("cerebras")
    deepinfra_keys: tuple[Secret, ...] = _key("deepinfra")
    mistral_keys: tuple[Secret, ...] = _key("mistral")
    xai_keys: tuple[Secret, ...] = _key("xai")
    choose: Choose = setting(plain.word(*CHOOSE), "VALUE", "order", is_upstream=True, is_app=True,
        example="cheapest", meaning="which home of a model a call goes to: `order` (as listed),"
        " `cheapest` or `fastest`")
    max_price: Usd | None = setting(routes.max_price, "USD", None, example="input=1.0,output=5.0",
        has_names=True, is_upstream=True, is_app=True,
        meaning="the most that a home may take, in USD for a million tokens; dearer ones are left"
        " out")
    fallback: Literal["none", "provider"] = setting(plain.word("none", "provider"), "VALUE",
        "provider", is_upstream=True, example="none",
        meaning="where a call goes on to when a provider fails before anything was shown:"
        " `provider` is another home of the same model, which sees the prompt, too")
    route_headers: bool = setting(plain.switch, "VALUE", "on", is_upstream=True, example="off",
        meaning="whether answers say in `X-Keyproxy-Provider`, `-Attempts` and `-Removed` which way"
        " they came")
    listen: tuple[Address, ...] = setting(network.addresses, "HOST:PORT", "localhost:8484",
        section="Where it listens", example=":8484", separator=",", needs_restart=True,
        meaning="`host:port`, several by comma; `localhost` is 127.0.0.1 and ::1, an empty host is"
        " every address; `dev` refuses anything but loopback")
    upstream: str = setting(network.upstream, "URL", "https://openrouter.ai/api/v1",
        section="The upstream", needs_restart=True, is_upstream=True,
        meaning="base address of the API behind us; https only, unless its host is loopback")
    upstream_proxy: Secret | None = setting(or_off(network.upstream_proxy), "URL", None,
        example="http://proxy.example:3128", needs_restart=True, is_secret=True, is_upstream=True,
        meaning="an HTTP proxy for every outgoing call, by CONNECT:"
        " `http://[user:password@]host:port`, or `env` to take HTTPS_PROXY and NO_PROXY")
    upstream_ca_file: Path | None = setting(plain.file_path, "FILE", None,
        example="/etc/ssl/corporate-ca.pem", needs_restart=True, is_upstream=True,
        content=network.certificates,
        meaning="an extra CA (PEM) for every outgoing call, beside the system's")
    referer: str | None = setting(plain.header_text, "TEXT", None,
        example="https://app.example.com", is_app=True,
        meaning="ranking header `HTTP-Referer`: the address of the app")
    title: str | None = setting(plain.header_text, "TEXT", None, example="My app", is_app=True,
        meaning="ranking header `X-OpenRouter-Title`: the name of the app")
    categories: str | None = setting(plain.categories, "NAMES", None,
        example="creative-writing,roleplay", separator=",", is_app=True,
        meaning="ranking header `X-OpenRouter-Categories`: at most two")
    allowed_hosts: tuple[str, ...] = setting(origins.hosts, "HOSTS",
        "localhost,*.localhost,any-ip,host.docker.internal", SAY_IT, section="Who may call",
        example="api.example.com", separator=",",
        meaning="accepted Host names; `any-ip` is any IP literal, `*.name` every subdomain; an"
        " entry without a port matches any port")
    allowed_origins: tuple[str, ...] = setting(origins.origins, "ORIGINS", "localhost",
        Derived("https:// + each allowed host", "allowed_hosts", origins.origins_of_hosts),
        example="https://app.example.com", separator=",", is_app=True,
        meaning="origins of pages that may call: exact `scheme://host[:port]`, `localhost` (any"
        " loopback origin), `null`, one `*` inside a label or in front of an own domain, `*`;"
        " `none` is no page; other schemes than http and https letter by letter (`app://-`,"
        " `file://`), `SCHEME://*` for moz-extension, safari-web-extension and vscode-webview"
        " alone")
    client_auth: ClientAuth = setting(plain.word("none", "token", "jwt", "session"), "VALUE",
        "none", SAY_IT, is_app=True, example="session", unsaid=who_may_call,
        meaning="how a caller proves who it is; `session`: not at all, but each page gets a signed"
        " id of its own from `POST /session`; `jwt`: by a user's JWT; `token`: by a client token;"
        " `none`: every caller that reaches it is served, and a client is a network address")
    client_tokens: tuple[ClientToken, ...] = setting(secrets.client_tokens, "PAIRS", "off",
        example=f"phone:{'0' * 64}", separator=",", is_app=True, is_own=True,
        meaning="who may call with `token`: comma-separated `name:sha256-hex` as `keyproxy token`"
        " prints them; `off`",
        in_file="a file with such pairs, one a line; read again when it changes")
    jwt_jwks_url: str | None = setting(jwt.jwks_url, "URL", None,
        example="https://auth.example/.well-known/jwks.json", is_app=True, family="jwt",
        instead="KEYPROXY_JWT_SECRET",
        meaning="the address of the key set that users' JWTs are signed with (recipes:"
        " docs/jwt.md)")
    jwt_secret: Secret | None = setting(jwt.secret, "VALUE", None, example="…", is_secret=True,
        is_app=True, family="jwt", instead="KEYPROXY_JWT_JWKS_URL",
        meaning="or the secret that the issuer of users' JWTs shares with us",
        in_file="a file that holds that secret")
    jwt_issuer: str | None = setting(jwt.issuer, "TEXT", None, example="https://auth.example/",
        is_app=True, family="jwt", meaning="what the claim `iss` must be, letter by letter")
    jwt_audiences: tuple[str, ...] | None = setting(jwt.audiences, "TEXTS", None,
        example="my-project", separator=",", is_app=True, family="jwt",
        variable="KEYPROXY_JWT_AUDIENCE",
        meaning="what the claim `aud` must name, one of several by comma")
    jwt_algorithms: tuple[str, ...] = setting(jwt.algorithms, "NAMES",
        Derived("HS256 with a secret, RS256 and ES256 with a key set", "jwt_jwks_url",
                jwt.default_algorithms),
        example="RS256", separator=",", is_app=True, family="jwt",
        meaning="the signatures that count, comma-separated; never `none`")
    # Clocks that NTP keeps differ by milliseconds; phones and laptops by some seconds.
    jwt_leeway_seconds: float = setting(jwt.leeway, "TIME", "30s", is_app=True,
        meaning="how far the issuer's clock may differ from ours, 5m at most")
    jwt_app_claim: str | None = setting(jwt.claim, "CLAIM", None, example="app_metadata.plan",
        is_app=True,
        meaning="a claim that names the app a user belongs to, such as a paying tier; whole or as"
        " a dotted path; `off`")
    # In dev and demo a random one: sessions end with the process.
    session_secrets: tuple[Secret, ...] | None = setting(secrets.session_secret, "VALUE", None,
        example="…", separator=",", is_secret=True, variable="KEYPROXY_SESSION_SECRET",
        meaning="signs anonymous sessions; the same in every replica; two by comma while it is"
        " being changed, the new one first", in_file="a file that holds the secret")
    session_rate_limit: tuple[Rate, ...] = setting(plain.rates, "RATES", "60/minute;1000/day",
        example="60/minute", separator=";", meaning="new sessions per network address; `off`")
    captcha: Vendor | None = setting(or_off(plain.word("turnstile", "hcaptcha", "off")),
        "VALUE", None, example="off",
        meaning="a captcha that a page must have solved to open a session: `turnstile`,"
        " `hcaptcha`; `off`")
    captcha_secret: Secret | None = setting(secrets.given_out, "VALUE", None, example="…",
        is_secret=True, meaning="the captcha's secret key, as its vendor shows it",
        in_file="a file that holds the captcha's secret key")
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = setting(network.networks, "NETWORKS",
        "none", SAY_IT, separator=",", instead="KEYPROXY_TRUSTED_HOPS",
        meaning="whose `X-Forwarded-For` is believed: CIDRs, `loopback`, `private`, `none`")
    trusted_hops: int = setting(plain.count(0, 20), "VALUE", "0", example="1",
        meaning="how many proxies stand in front, where they have no fixed address; 0: not used")
    client_address_header: str | None = setting(plain.header_name, "NAME", None,
        example="CF-Connecting-IP",
        meaning="a header with the caller's address, believed from trusted proxies only")
    allowed_models: tuple[str, ...] = setting(plain.models, "GLOBS", "*", SAY_IT,
        section="What may be called", example="openai/gpt-4o-mini,anthropic/*", separator=",",
        is_app=True, meaning="globs over full model ids, `*` crosses `/`; `!pattern` excludes")
    model_aliases: tuple[tuple[str, str], ...] = setting(plain.aliases, "NAME=ID", "off",
        example="fast=openai/gpt-4o-mini", separator=",", is_app=True,
        meaning="names that front ends may use instead of ids, comma-separated `name=id`; each is"
        " checked by what it stands for")
    allowed_endpoints: tuple[str, ...] = setting(plain.endpoints(KNOWN_ENDPOINTS), "VALUE",
        ",".join(DEFAULT_ENDPOINTS), example="POST /api/v1/chat/completions,GET /api/v1/models",
        separator=",", is_app=True,
        meaning="what is served, comma-separated `METHOD /api/v1/path`, each exact; replaces the"
        " default list")
    allowed_features: tuple[str, ...] = setting(features.features, "VALUE", "off",
        example="web,pdf", separator=",", is_app=True,
        meaning="what may cost extra or reach further, by the words of docs/features.md; `off`")
    extra_fields: tuple[str, ...] = setting(features.extra_fields, "VALUE", "off", example="trace",
        separator=",", is_app=True,
        meaning="top-level body fields beyond the table of docs/features.md, passed on unread;"
        " `off`")
    # One person at a keyboard in dev; a public page's visitor, who may come back all day, in serve.
    rate_limit: tuple[Rate, ...] = setting(plain.rates, "RATES", "60/minute", "20/minute;300/day",
        section="How much", example="20/minute;300/day", separator=";", is_app=True,
        meaning="calls per client, `;` joins several; fixed windows; `off`")
    address_rate_limit: tuple[Rate, ...] = setting(plain.rates, "RATES", "off",
        Derived("10 x the client's", "rate_limit", _ten_times), example="200/minute", separator=";",
        is_app=True, meaning="calls per network address, on top; `off`")
    # A browser opens six connections to a host over HTTP/1.1; two more for a second tab.
    max_in_flight: int = setting(plain.count(1, 1_000_000), "VALUE", "8", is_app=True,
        meaning="calls in flight per client")
    # In memory, nobody has to run anything; the start line says that each process counts alone.
    storage: StorageServer | None = setting(network.storage, "VALUE", "memory://",
        example="redis://redis.internal:6379", needs_restart=True, is_secret=True,
        meaning="where limits are counted: `memory://`, each process for itself; or a Redis (6.2"
        " or newer) or Valkey that all replicas share: `redis://[user:password@]host[:port][/db]`,"
        " `valkey://`, and with TLS `rediss://`, `valkeys://`",
        in_file="a file that holds the storage's address, with its password")
    # An app goes on working; N replicas then let at most N times a limit through.
    storage_failure: Literal["local", "closed", "open"] = setting(
        plain.word("local", "closed", "open"), "VALUE", "local", example="closed",
        needs_restart=True,
        meaning="while the storage is down: each process counts on for itself (`local`), calls are"
        " refused (`closed`), or let through uncounted (`open`)")
    budget: tuple[Budget, ...] = setting(plain.budgets, "USD/TIME", "off", example="0.50/day",
        separator=";", is_app=True,
        meaning="USD per client in each hour, day or month of the calendar (UTC), `;` joins"
        " several; `off`")
    app_budget: tuple[Budget, ...] = setting(plain.budgets, "USD/TIME", "off", example="5/day",
        separator=";", is_app=True, is_own=True,
        meaning="USD for all clients of the app together; `off`")
    # A day of trying things out; serve knows its users, or is asked what strangers may cost.
    total_budget: tuple[Budget, ...] = setting(plain.budgets, "USD/TIME", "5/day", "off",
        example="20/day", separator=";",
        meaning="USD for all apps together; `off`; `serve` wants it said where the client auth of"
        " any app is `none`")
    refuses_unpriced: bool = setting(plain.unpriced, "VALUE", "allow", "refuse", is_app=True,
        variable="KEYPROXY_UNPRICED",
        meaning="calls whose price nobody knows, where there is a budget: `refuse` or `allow`")
    ledger: Path | None = setting(plain.ledger, "FILE", "default", example="/data/ledger.sqlite3",
        needs_restart=True,
        meaning="the SQLite file that calls are booked in; `default` is one in the user's state"
        " folder, in `dev` one for each working folder, in `serve` under `$STATE_DIRECTORY` where"
        " that is set; `off`")
    # A year and a month: last year's month beside this one.
    ledger_retention_days: int = setting(plain.days, "DAYS", "400", needs_restart=True,
        meaning="how long calls stay in the ledger, in days: 31 at least where there is a budget"
        " for a month, which is read back from it")
    max_tokens: int | None = setting(or_off(plain.count(1, 10_000_000)), "VALUE", None,
        example="4096", is_app=True,
        meaning="cap on every output-length field: filled in when absent, lowered when larger;"
        " `off`; 4096 where a budget is said and this is not")
    # A chat with several photos in base64.
    max_body_bytes: int = setting(plain.size, "SIZE", "20MiB",
        meaning="largest request body; larger ones get 413")
    # A slow mobile network needs a few seconds; whoever dribbles a head gets no more.
    header_timeout_seconds: float = setting(plain.timeout, "TIME", "10s", section="Time",
        needs_restart=True,
        meaning="from the first byte of a request's head (a new connection: from connect) to its"
        " end")
    # 20 MiB in 30 s is a 6 Mbit/s line.
    body_timeout_seconds: float = setting(plain.timeout, "TIME", "30s",
        meaning="for a request's whole body")
    # nginx's default; load balancers keep idle connections for 60 s.
    keepalive_timeout_seconds: float = setting(plain.timeout, "TIME", "75s", needs_restart=True,
        meaning="an idle connection; longer than the load balancer's own, or that answers 502 at"
        " random")
    # Three SYN retries (1, 2, 4 s) and the TLS handshake.
    connect_timeout_seconds: float = setting(plain.timeout, "TIME", "10s", needs_restart=True,
        meaning="to connect to the upstream")
    # The official SDKs wait ten minutes; a reasoning model may need them.
    first_byte_timeout_seconds: float = setting(plain.timeout, "TIME", "600s", example="10m",
        meaning="from sending a call to the first byte of its answer, connecting not included; for"
        " each key that is tried")
    # OpenRouter sends a comment every few seconds while it waits.
    idle_timeout_seconds: float = setting(plain.timeout, "TIME", "120s", example="2m",
        needs_restart=True,
        meaning="between two pieces of an answer; there is no total limit on a stream")
    # 0: nobody routes to a single process; the image says 5 s, for load balancers to notice.
    shutdown_delay_seconds: float = setting(plain.pause, "TIME", "0s", example="5s",
        meaning="after SIGTERM: serve on that long while /readyz says 503")
    # Kubernetes kills after 30 s: 5 s of delay, 20 s of grace, 5 s to spare.
    shutdown_grace_seconds: float = setting(plain.pause, "TIME", "3s", "20s", example="20s",
        meaning="then: let open calls finish that long")
    # uvloop takes a third less for each event, and is one more thing to trust: C code, no Windows.
    loop: Literal["asyncio", "uvloop"] = setting(plain.loop, "VALUE", "asyncio",
        needs_restart=True, example="uvloop",
        meaning="the event loop: Python's own, or `uvloop`, which is to be installed beside"
        " keyproxy and takes less CPU for each event of a stream")
    log_format: Literal["console", "json"] = setting(plain.word("console", "json"), "VALUE",
        "console", "json", section="The log", example="json", needs_restart=True,
        meaning="`console` for people, a short line a call; `json` for machines")
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        plain.word("debug", "info", "warning", "error"), "VALUE", "info", example="warning",
        needs_restart=True,
        meaning="the least grave of what is logged: `debug` (on the console with all fields),"
        " `info`, `warning`, `error`")
    log_address: Literal["full", "prefix", "off"] = setting(plain.word("full", "prefix", "off"),
        "VALUE", "full", "prefix", example="prefix",
        meaning="how much of a caller's address is logged: `full`, `prefix` (its network), `off`")
    # In serve nobody should find out by chance that there is one.
    admin: tuple[Address, ...] = setting(network.admin_addresses, "HOST:PORT", "localhost:8485",
        "off", section="Watching it", separator=",", needs_restart=True,
        meaning="where the dashboard and the metrics are, a listener of its own: `host:port`,"
        " several by comma; beyond this computer it needs the two settings below; `off`")
    admin_hosts: tuple[str, ...] = setting(origins.hosts, "HOSTS", "localhost,127.0.0.1,[::1]",
        example="keyproxy.internal", separator=",",
        meaning="Host names that it answers to, as in `KEYPROXY_ALLOWED_HOSTS`; `any-ip` for a"
        " Prometheus that goes by addresses")
    admin_token: Secret | None = setting(secrets.admin_token, "VALUE", None, example="…",
        is_secret=True, meaning="what it asks for as a bearer token before it shows figures",
        in_file="a file that holds the token that it asks for")
    alert_url: Secret | None = setting(or_off(network.alert_url), "URL", None,
        example="https://hooks.example/keyproxy", is_secret=True,
        meaning="where alerts are posted to as JSON (docs/watching.md), such as an incoming webhook"
        " of Slack's or Discord's; https only, unless its host is loopback; `off`")
    alert_secret: Secret | None = setting(secrets.given_out, "VALUE", None, example="…",
        is_secret=True, meaning="signs what is posted, so that its receiver can tell it from"
        " others'", in_file="a file that holds the secret that signs alerts")
    alert_spend: tuple[Budget, ...] = setting(plain.budgets, "USD/TIME", "off", example="2/hour",
        separator=";",
        meaning="USD of all calls of this process in an hour, day or month of the calendar (UTC)"
        " beyond which there is an alert, `;` joins several; `off`")
    # fmt: on


CONFIG = Setting(
    plain.file_path,
    "FILE",
    "keyproxy.toml",
    "keyproxy.toml",
    "a TOML file with these settings: names in lower case without KEYPROXY_",
    "/etc/keyproxy.toml",
    group="Files",
    variable="KEYPROXY_CONFIG",
)
ROWS: Mapping[str, Setting] = MappingProxyType({**finished(fields(Table)), "config": CONFIG})
"""The settings table by field name, in order.

``config`` and the variables that name a file with a value (``keys_file``) are no fields.
"""
_BY_VARIABLE = {row.variable: row for row in ROWS.values()}


def row_of(variable: str) -> Setting | None:
    """The row of a variable."""
    return _BY_VARIABLE.get(variable)
