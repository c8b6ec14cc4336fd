"""What the settings for JWTs may hold, each alone and all together. Nothing repeats a secret."""

from __future__ import annotations

import re

from keyproxy.key_forms import Secret
from keyproxy.settings.grammar import Unfit, each, matching
from keyproxy.settings.grammar.network import web_address
from keyproxy.settings.grammar.plain import pause

SHARED = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms of a shared secret, and the bytes it needs at least (RFC 7518 3.2)."""
PUBLIC = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
OTHER_NAMES = {"Ed25519": "EdDSA"}
"""By newer names of the registry (IANA, "JSON Web Signature and Encryption Algorithms", as RFC
9864 left it in October 2025): what we call the same. EdDSA stands for Ed25519 only here, and its
Ed448 for nothing; the ESP256 of that RFC is COSE's."""
MAX_LEEWAY_SECONDS = 300.0
_BY_LOWER_CASE = {name.lower(): name for name in (*SHARED, *PUBLIC, *OTHER_NAMES)}
_SHORTEST = min(SHARED.values())
_DIFFERENT = 8  # 32 random hexadecimal digits with fewer come less than once in a million
_LONGEST = 512
_TEXT = rf"[!-~]{{1,{_LONGEST}}}"
_PLACEHOLDER = re.compile(r"^<.*>$|…|\$[{(]|^your[-_ ]|change-?me", re.IGNORECASE)
_OTHER_KEY = re.compile(r"-----BEGIN |^(?:ssh|ecdsa)-|^\s*[{\[]")
# Claims that users write themselves: Supabase, Clerk.
_OWN_CLAIMS = ("user_metadata", "unsafe_metadata")


def secret(text: str) -> Secret:
    """The secret an issuer signs with; one line end behind it is dropped."""
    text = re.sub(r"\r?\n\Z", "", text)
    size = len(text.encode())
    if _OTHER_KEY.search(text):
        trouble = "holds a public or private key (a key set is named by KEYPROXY_JWT_JWKS_URL)"
    elif not text.isprintable() or text != text.strip():
        trouble = "begins or ends with a space, or holds a line end or a control character"
    elif _PLACEHOLDER.search(text):
        trouble = "is a placeholder"
    elif size < _SHORTEST:
        trouble = f"has {size} bytes"
    elif len(set(text)) < _DIFFERENT:
        trouble = "repeats a few characters"
    else:
        return Secret(text)
    raise Unfit(
        f"the secret as the issuer uses it, at least {_SHORTEST} bytes (RFC 7518 3.2)",
        found=f"a value that {trouble}",
    )


def jwks_url(text: str) -> str:
    """The address of a key set; https, unless its host is this computer."""
    expected = "an https:// address such as https://auth.example/.well-known/jwks.json"
    web_address(text, expected, "lets anybody on the way put in keys")
    if len(text) > _LONGEST:
        raise Unfit(f"{expected}, of at most {_LONGEST} characters")
    return text


issuer = matching(
    rf"(?!.*,){_TEXT}", "one issuer exactly as the claim iss has it, a slash at its end included"
)
"""One issuer, letter by letter as its JWTs name it."""

audiences = each(matching(_TEXT, "comma-separated audiences exactly as the claim aud has them"))
"""Audiences, one of which a JWT must name."""


def _algorithm(text: str) -> str:
    if text.lower() == "none":
        raise Unfit("signature algorithms; none is no signature, anybody could write such a JWT")
    if text not in _BY_LOWER_CASE.values():
        raise Unfit(
            f"comma-separated names of {', '.join(_BY_LOWER_CASE.values())}",
            value=_BY_LOWER_CASE.get(text.lower()),
        )
    return one_name(text)


def algorithms(text: str) -> tuple[str, ...]:
    """Signature algorithms: of a shared secret or of public keys, never both; each by one name."""
    names = each(_algorithm)(text)
    if len({name in SHARED for name in names}) > 1:
        raise Unfit(
            "HS algorithms for KEYPROXY_JWT_SECRET, or others for KEYPROXY_JWT_JWKS_URL; with"
            " both, a public key could be taken for the secret"
        )
    return names


def one_name(algorithm: str) -> str:
    """The name that we know an algorithm by."""
    return OTHER_NAMES.get(algorithm, algorithm)


def leeway(text: str) -> float:
    """Seconds that clocks may differ; ``off`` is zero."""
    seconds = pause(text)
    if seconds > MAX_LEEWAY_SECONDS:
        raise Unfit("a duration of at most 5m; a JWT would live that much longer", value="30s")
    return seconds


def claim(text: str) -> str | None:
    """The name of a claim, or a dotted path to one; ``off`` is none."""
    if text == "off":
        return None
    if not re.fullmatch(_TEXT, text) or len(text) > 256:
        raise Unfit("a claim such as app_metadata.plan or https://myapp.example/plan")
    if text.split(".")[0] in _OWN_CLAIMS:
        raise Unfit(
            "a claim that only your server writes, such as app_metadata.plan; users can change"
            f" {text.split('.')[0]} themselves"
        )
    return text


def default_algorithms(jwks_url: str | None) -> tuple[str, ...]:
    """What is accepted when nothing is said."""
    return ("HS256",) if jwks_url is None else ("RS256", "ES256")
