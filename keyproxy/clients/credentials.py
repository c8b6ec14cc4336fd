"""What a call shows of who makes it: the one credential in its head, and no provider's key.

SDKs send what they were given as key in one of three headers, each in its own, and most insist
on sending something; so where nobody asks, whatever is sent is passed over.
"""

from __future__ import annotations

import re

from multidict import CIMultiDictProxy

from keyproxy import key_forms
from keyproxy.call import CREDENTIAL_FIELDS
from keyproxy.errors import Refusal

_BEARER = re.compile(r"bearer +(\S.*)", re.I | re.S)


def shown(headers: CIMultiDictProxy[str]) -> tuple[str, ...]:
    """Each different credential of a head; other schemes than Bearer are not ours."""
    found = []
    for name in CREDENTIAL_FIELDS:
        for value in headers.getall(name, []):
            if name == "Authorization":
                match = _BEARER.fullmatch(value.strip())
                value = match[1] if match else ""
            if text := value.strip():
                found.append(text)
    return tuple(dict.fromkeys(found))


def refuse_provider_keys(headers: CIMultiDictProxy[str]) -> None:
    """Raises ``provider_key_sent``."""
    for name in CREDENTIAL_FIELDS:
        for value in headers.getall(name, []):
            if key_forms.WHOLE.search(value):
                raise Refusal(
                    "provider_key_sent",
                    f"The {name} header carries a provider's key. Remove it from the page or "
                    "app and rotate it: whoever could load the page has it. No key is needed here.",
                    param=name,
                )


def missing(what: str) -> Refusal:
    """The refusal of a call that shows nothing; ``what`` is asked for."""
    return Refusal(
        "credential_missing",
        f"This address wants {what}, as `Authorization: Bearer …` or `x-api-key`. An SDK sends it"
        " when it is given as its API key.",
    )


def ambiguous(wanted: str) -> Refusal:
    """The refusal of a call that shows two different credentials; ``wanted`` is one."""
    return Refusal(
        "credential_invalid",
        f"This call shows two different credentials, and this address wants one: {wanted}. An SDK"
        " sends what it was given as its API key beside what a page adds.",
        hint="two different credentials",
    )


def invalid(hint: str | None = None, *, wanted: str | None = None) -> Refusal:
    """The refusal of a credential that is nobody's; one text, whatever is wrong with it. What is
    ``wanted`` is told to those who show nothing, too."""
    text = "The credential of this call is not accepted here"
    return Refusal(
        "credential_invalid",
        f"{text}: this address wants {wanted}." if wanted else f"{text}.",
        hint=hint,
    )
