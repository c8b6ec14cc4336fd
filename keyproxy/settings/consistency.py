"""Whether values that are right one by one go together, and what one of them says of another.

Asked once all values are known, because an answer may stand in another app. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from keyproxy.dataclass import dataclass, replace
from keyproxy.errors import SettingsFault
from keyproxy.installation import line_for
from keyproxy.key_forms import KNOWN
from keyproxy.settings import providers
from keyproxy.settings.grammar import jwt, plain, secrets, shown
from keyproxy.settings.grammar.origins import ANY_EXTENSION
from keyproxy.settings.lines import of_app
from keyproxy.settings.providers import Used
from keyproxy.settings.setting import Mode
from keyproxy.settings.table import ROWS

_FOR_JWTS = ("jwt_secret", "jwt_jwks_url", "jwt_issuer", "jwt_audiences", "jwt_algorithms")
TEST_SECRETS = frozenset(
    {*(f"{n}x0000000000000000000000000000000AA" for n in "123"), "0x" + "0" * 40}
)
"""What Turnstile's and hCaptcha's documents give out for tests."""


@dataclass(frozen=True, slots=True)
class AppValues:
    """What an app says itself, by variable, and its values by field name; those of faulty settings
    are missing, and those that the whole process has are with the default app."""

    name: str
    said: Mapping[str, str]
    values: dict[str, Any]

    def get(self, field: str, default: Any = None) -> Any:
        return self.values.get(field, default)


def faults(
    mode: Mode, apps: Sequence[AppValues], used: Sequence[Used] = ()
) -> Iterator[SettingsFault]:
    """Everything without which no caller could get in, or that lets in more than was meant.

    The first of ``apps`` is the default one; ``used`` are the providers that calls may go to.
    """
    default = apps[0]
    if mode == "dev":
        yield from _beyond_one_person(default)
    if mode != "demo":
        yield from _keys_in_pages(default)
        yield from _providers(apps, used)
    if mode == "serve":
        yield from _open(apps)
    yield from _tokens(apps)
    yield from (of_app(fault, app.name) for app in apps for fault in jwt_faults(app))
    yield from _sessions(mode, apps)
    yield from _budgets(mode, apps)
    yield from _admin(mode, default)
    if default.get("alert_secret") is not None and default.get("alert_url", "") is None:
        yield SettingsFault(
            "KEYPROXY_ALERT_URL",
            expected="where the alerts go that KEYPROXY_ALERT_SECRET signs",
            paste="KEYPROXY_ALERT_URL=https://hooks.example/keyproxy",
        )


def bound_answers(values: dict[str, Any], said: Mapping[str, str]) -> None:
    """Cap the length of answers where a budget was said and no cap: else an answer might cost
    more than what is set aside for it could be bounded by."""
    budgets = ("KEYPROXY_BUDGET", "KEYPROXY_APP_BUDGET", "KEYPROXY_TOTAL_BUDGET")
    has_budget = any(said.get(name, "").strip() not in ("", "off") for name in budgets)
    if has_budget and not said.get("KEYPROXY_MAX_TOKENS", "").strip():
        values["max_tokens"] = plain.USUAL_MAX_TOKENS


def _beyond_one_person(default: AppValues) -> Iterator[SettingsFault]:
    for name in ("listen", "admin"):
        row = ROWS[name]
        if beyond := [str(each) for each in default.get(name, ()) if not each.is_loopback]:
            yield SettingsFault(
                row.variable,
                found=shown(",".join(beyond)),
                expected="localhost, 127.0.0.1 or ::1: dev is for one person on one computer"
                " (for others: keyproxy serve)",
                paste=f"{row.variable}={row.dev}",
            )
    if default.said.get("KUBERNETES_SERVICE_HOST"):
        yield SettingsFault(
            "KUBERNETES_SERVICE_HOST",
            found="set, so this is Kubernetes",
            expected="another command: dev is for one person on one computer; run"
            " keyproxy serve, or keyproxy demo to try it",
        )


def _keys_in_pages(default: AppValues) -> Iterator[SettingsFault]:
    own = [key for name in KNOWN for key in default.get(providers.field_of(name), ())]
    for name in secrets.bundled_keys(default.said, own):
        yield SettingsFault(
            name,
            found="a provider key, and build tools copy this variable into the page",
            expected="no such variable; remove it, make a new key, and give that one to"
            " keyproxy only",
            paste=f"{secrets.KEY}=sk-or-v1-…",
        )


def _providers(apps: Sequence[AppValues], used: Sequence[Used]) -> Iterator[SettingsFault]:
    """What of the providers, of their addresses and keys does not go together."""
    default = apps[0]
    for entry in used:
        yield from providers.address_faults(entry)
        if entry.name == "openrouter" and entry.base and default.said.get("KEYPROXY_UPSTREAM"):
            yield SettingsFault(
                "KEYPROXY_UPSTREAM",
                found="set beside base in [providers.openrouter]",
                expected="one of the two: both are OpenRouter's address",
            )
        for app in apps:
            keys = app.get(providers.field_of(entry.name), ()) if not entry.is_other else entry.keys
            is_its_own = app is default or any(
                variable in app.said for variable in providers.key_variables(entry.name)
            )
            if is_its_own:
                found = providers.key_faults(entry, keys, default.get("upstream", ""))
                yield from (_as_said(fault, app) for fault in found)
    names = [entry.name for entry in used]
    for app in apps[1:]:
        if foreign := [name for name in app.get("provider_names", ()) if name not in names]:
            fault = SettingsFault(
                providers.NAMES,
                found=shown(foreign[0]),
                expected=f"some of {', '.join(names)}, which are used",
            )
            yield of_app(fault, app.name)


def _as_said(fault: SettingsFault, app: AppValues) -> SettingsFault:
    """``fault`` under the variable that names a file, where that one was said; in its table."""
    file = f"{fault.variable}_FILE"
    if fault.variable not in app.said and app.said.get(file):
        fault = replace(fault, variable=file)
    return of_app(fault, app.name) if fault.variable in app.said else fault


def _open(apps: Sequence[AppValues]) -> Iterator[SettingsFault]:
    """What anybody may call, at anybody's cost."""
    open_apps = [app for app in apps if app.get("client_auth") == "none"]
    if open_apps and not apps[0].said.get("KEYPROXY_TOTAL_BUDGET", "").strip():
        where = "" if open_apps[0] is apps[0] else f" in apps.{open_apps[0].name}"
        yield SettingsFault(
            "KEYPROXY_TOTAL_BUDGET",
            expected="what all callers together may cost, in USD, since anybody may call"
            f" (KEYPROXY_CLIENT_AUTH is none{where}); off is an answer",
            paste="KEYPROXY_TOTAL_BUDGET=5/day",
        )
    for app in open_apps:
        # Anybody's extension of the same browser fits SCHEME://*, too.
        if set(ANY_EXTENSION).isdisjoint(app.get("allowed_origins") or ()):
            continue
        fault = SettingsFault(
            "KEYPROXY_ALLOWED_ORIGINS",
            found=f"one of {', '.join(ANY_EXTENSION)}, and KEYPROXY_CLIENT_AUTH is none",
            expected="exact origins; with a KEYPROXY_CLIENT_AUTH other than none, any extension of"
            " such a browser may ask, and has to show a credential",
        )
        yield of_app(fault, app.name)
        if app is apps[0]:
            return  # another may have either setting from this one


def _tokens(apps: Sequence[AppValues]) -> Iterator[SettingsFault]:
    fault = SettingsFault(
        "KEYPROXY_CLIENT_TOKENS",
        expected="at least one client token, since KEYPROXY_CLIENT_AUTH is token;"
        " `keyproxy token NAME` makes one and prints the line",
        paste="keyproxy token phone",
    )
    has_tokens = any(app.get("client_tokens") for app in apps[1:])
    for app in apps[1:] if has_tokens else apps:
        if app.get("client_auth") == "token" and app.get("client_tokens") == ():
            yield of_app(fault, app.name)


def jwt_faults(app: AppValues) -> Iterator[SettingsFault]:
    """What is wrong with values that are right one by one, where an app asks for JWTs."""
    if app.get("client_auth") != "jwt" or not set(_FOR_JWTS) <= app.values.keys():
        return
    if find_spec("jwt") is None or find_spec("cryptography") is None:
        yield SettingsFault(
            "KEYPROXY_CLIENT_AUTH",
            found="'jwt', and what checks JWTs is not installed",
            expected="keyproxy with its extra for JWTs",
            paste=line_for("jwt"),
        )
        return
    secret, jwks_url, issuer, audiences, algorithms = (app.values[name] for name in _FOR_JWTS)
    if (secret is None) == (jwks_url is None):
        yield SettingsFault(
            "KEYPROXY_JWT_JWKS_URL",
            found=None if secret is None else "set, and KEYPROXY_JWT_SECRET too",
            expected="one of the two: the address of the issuer's key set, or KEYPROXY_JWT_SECRET",
            paste="KEYPROXY_JWT_JWKS_URL=https://auth.example/.well-known/jwks.json",
        )
        return
    fitting = jwt.PUBLIC if secret is None else tuple(jwt.SHARED)
    if not set(algorithms) <= set(fitting):
        yield SettingsFault(
            "KEYPROXY_JWT_ALGORITHMS",
            found=repr(",".join(algorithms)),
            expected=f"names of {', '.join(fitting)}: "
            + ("a key set" if secret is None else "a secret")
            + " goes with no others",
            paste=f"KEYPROXY_JWT_ALGORITHMS={','.join(jwt.default_algorithms(jwks_url))}",
        )
    elif secret is not None:
        least = max(jwt.SHARED[name] for name in algorithms)
        if (size := len(secret.reveal().encode())) < least:
            yield SettingsFault(
                "KEYPROXY_JWT_SECRET",
                found=f"a value that has {size} bytes",
                expected=f"{least} bytes at least for {','.join(algorithms)} (RFC 7518 3.2)",
            )
    if jwks_url is not None and issuer is None and not audiences:
        yield SettingsFault(
            "KEYPROXY_JWT_AUDIENCE",
            expected="an audience, or KEYPROXY_JWT_ISSUER: many issuers sign for everybody"
            " with the same keys (Firebase's and Google's are those of every project), so"
            " that a signature alone does not say that a JWT is for you",
            paste="KEYPROXY_JWT_AUDIENCE=my-project",
        )


def _sessions(mode: Mode, apps: Sequence[AppValues]) -> Iterator[SettingsFault]:
    default = apps[0]
    is_asked = any(app.get("client_auth") == "session" for app in apps)
    # One person's sessions may end with the process; those of many replicas must agree.
    if is_asked and mode == "serve" and default.get("session_secrets", "") is None:
        yield SettingsFault(
            "KEYPROXY_SESSION_SECRET",
            expected="a random text of 32 characters or more, the same in every replica, since"
            " KEYPROXY_CLIENT_AUTH is session (or KEYPROXY_SESSION_SECRET_FILE)",
            paste=f"KEYPROXY_SESSION_SECRET=$({secrets.MAKING})",
        )
    vendor, secret = default.get("captcha"), default.get("captcha_secret", "")
    if vendor is not None and secret is None:
        yield SettingsFault(
            "KEYPROXY_CAPTCHA_SECRET",
            expected=f"the secret key that {vendor} shows beside the site key, since"
            f" KEYPROXY_CAPTCHA is {vendor} (or KEYPROXY_CAPTCHA_SECRET_FILE)",
        )
    if mode == "serve" and secret and secret.reveal() in TEST_SECRETS:
        yield SettingsFault(
            "KEYPROXY_CAPTCHA_SECRET",
            found="one that its vendor gives out for tests, which says yes to anything",
            expected="the secret key of your own site",
        )


def _budgets(mode: Mode, apps: Sequence[AppValues]) -> Iterator[SettingsFault]:
    """What would let a budget be spent twice."""
    default = apps[0]
    budgets = [
        budget
        for app in apps
        for name in ("budget", "app_budget", "total_budget")
        for budget in app.get(name) or ()
    ]
    if budgets and default.get("storage_failure") == "open" and default.get("storage"):
        yield SettingsFault(
            "KEYPROXY_STORAGE_FAILURE",
            found="'open', and there is a budget",
            expected="local or closed: while calls are let through uncounted, no budget holds",
            paste="KEYPROXY_STORAGE_FAILURE=local",
        )
    is_read_back = default.get("ledger", plain.DEFAULT_LEDGER) is not None
    if budgets and mode == "serve" and not is_read_back and not default.get("storage"):
        yield SettingsFault(
            "KEYPROXY_LEDGER",
            found="'off', and there is a budget that only this process counts",
            expected="a file, or KEYPROXY_STORAGE: else each restart begins the budget anew",
            paste="KEYPROXY_LEDGER=default",
        )
    seconds, unit = max(
        ((plain.LONGEST_SECONDS[each.unit], each.unit) for each in budgets), default=(0, "")
    )
    days, days_kept = seconds // 86_400, default.get("ledger_retention_days")
    if is_read_back and days_kept is not None and days_kept < days:
        yield SettingsFault(
            "KEYPROXY_LEDGER_RETENTION",
            found=f"{days_kept}, and there is a budget for the {unit}",
            expected=f"{days} days at least: a restart reads back from the ledger what the running"
            f" {unit} has spent",
            paste=f"KEYPROXY_LEDGER_RETENTION={days}",
        )


def _admin(mode: Mode, default: AppValues) -> Iterator[SettingsFault]:
    """What would show figures to others."""
    beyond = [str(each) for each in default.get("admin", ()) if not each.is_loopback]
    if not beyond or mode == "dev":
        return
    whom = f"since KEYPROXY_ADMIN is open to others ({shown(','.join(beyond))})"
    if default.get("admin_token", "") is None:
        yield SettingsFault(
            "KEYPROXY_ADMIN_TOKEN_FILE",
            expected=f"a file with a random token that it asks for, {whom}; `{secrets.MAKING}`"
            " prints one",
            paste="KEYPROXY_ADMIN_TOKEN_FILE=/run/secrets/keyproxy_admin_token",
        )
    if not default.said.get("KEYPROXY_ADMIN_HOSTS", "").strip():
        yield SettingsFault(
            "KEYPROXY_ADMIN_HOSTS",
            expected=f"the Host names that it answers to (any-ip: any IP literal), {whom}",
            paste="KEYPROXY_ADMIN_HOSTS=keyproxy.internal",
        )
