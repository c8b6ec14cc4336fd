"""What a key looks like, and what may be shown of one: settings, refusals, masks and labels.

From each provider's key page and secret scanners' rules, October 2026. Mistral's, DeepInfra's
and others' keys have no form of their own.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, NoReturn

from keyproxy.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """``owner`` gives out such keys, None is several; ``beginning`` says whose they are and
    nothing of the key; then come ``least`` or more of ``letters``."""

    owner: str | None
    beginning: str
    letters: str
    least: int

    def pattern(self, most_asked: int) -> str:
        """An expression for such keys, and for what shows ``most_asked`` letters of one."""
        return f"(?:{self.beginning}){self.letters}{{{min(self.least, most_asked)},}}"


_WORD = r"[0-9A-Za-z_-]"
_ALNUM = "[0-9A-Za-z]"
# The more exact beginning first.
FORMS = (
    Form("OpenRouter", r"sk-or-(?:v1-)?", _WORD, 20),
    Form("Anthropic", r"sk-ant-(?:(?:api|admin|oat)\d\d-)?", _WORD, 20),
    Form("OpenAI", r"sk-(?:proj|svcacct|admin)-", _WORD, 20),
    Form("OpenAI", r"sk-(?=\w*T3BlbkFJ)", _WORD, 28),  # older ones hold a mark in their middle
    Form(None, r"sk-", _ALNUM, 40),
    Form("Google", r"AIza", _WORD, 35),
    Form("Google", r"AQ\.", _WORD, 20),
    Form("Groq", r"gsk_", _ALNUM, 40),
    Form("xAI", r"xai-", _ALNUM, 40),
    Form("Cerebras", r"csk-", _ALNUM, 30),
    Form("Hugging Face", r"hf_", _ALNUM, 30),
    Form("Perplexity", r"pplx-", _ALNUM, 30),
    Form("NVIDIA", r"nvapi-", _WORD, 40),
    Form("Fireworks", r"fw_", _ALNUM, 20),
    Form("Replicate", r"r8_", _ALNUM, 30),
    Form("Together", r"tgp_v1_", _WORD, 30),
)


class Known(NamedTuple):
    """Who gives out a provider's keys, and how one begins, where these have a form."""

    owner: str | None = None
    example: str = "…"


KNOWN: Mapping[str, Known] = MappingProxyType(
    {
        "openrouter": Known("OpenRouter", "sk-or-v1-…"),
        "openai": Known("OpenAI", "sk-proj-…"),
        "anthropic": Known("Anthropic", "sk-ant-api03-…"),
        "gemini": Known("Google", "AIza…"),
        "groq": Known("Groq", "gsk_…"),
        "cerebras": Known("Cerebras", "csk-…"),
        "deepinfra": Known(),
        "mistral": Known(),
        "xai": Known("xAI", "xai-…"),
    }
)
"""Each provider that settings know by its name."""
SHARED_BEGINNING = "AIza"
"""Of Gemini's older keys, and of Firebase's and Maps', which are meant for pages."""


def _any(most_asked: int, *more: str) -> str:
    return "|".join([*(form.pattern(most_asked) for form in FORMS), *more])


# Not within a longer word: in one of some thousand JWTs the signature holds such letters.
_WITHIN = "[0-9A-Za-z_.-]"
WHOLE = rf"(?<!{_WITHIN})(?:{_any(99)})"  # ASCII
"""A key and nothing else: somebody's own credential may begin like one."""
_WORDS, _WHOLE_WORD = re.compile(f"{_WITHIN}+"), re.compile(_any(99), re.ASCII)

# A digit is asked for, so that a class name such as `sk-folding-cube-wide` is no key, and a near
# one, so that a long text without any is read in time.
SHAPE = "(?<![A-Za-z0-9])(?:" + _any(20, r"sk-(?=[\w-]{0,100}\d)[\w-]{16,}") + ")"

SESSION, CLIENT_TOKEN = "kps_", "kpt_"
"""What our own credentials begin with, so that scanners and people know one when they see it."""

_MARKS = dict.fromkeys(
    "sk-" if form.beginning.startswith("sk-") else re.sub("[_-]$", "[_-]", form.beginning)
    for form in FORMS
)
PIECE = rf"(?:{'|'.join([*_MARKS, SESSION, CLIENT_TOKEN])})[\w-]{{12,}}"
"""What is never shown, wherever it stands: what is long enough to be a piece of a key."""

BEGINNINGS = tuple(
    mark.replace("[_-]", end).replace("\\", "")
    for mark in (*_MARKS, SESSION, CLIENT_TOKEN)
    for end in ("_-" if mark.endswith("[_-]") else "-")
)
"""Each text that a ``PIECE`` may begin with."""

_BEGINNING = re.compile(f"(?:{'|'.join(form.beginning for form in FORMS)})?", re.ASCII)
"""What may be shown of a key: whose it is."""


def key_in(text: str) -> re.Match[str] | None:
    """What is taken for a key in a text where none belongs."""
    return re.search(SHAPE, text, re.ASCII)


def is_whole_in(text: str) -> bool:
    """Whether ``WHOLE`` is found in a text, told in a fraction of the time where that is a long
    word, such as a JWT: each is looked at once, not at each of its letters."""
    return any(map(_WHOLE_WORD.match, _WORDS.findall(text)))


def owner(key: str) -> str | None:
    """Who gives out keys that begin as ``key`` does; None where nobody can tell."""
    return next((form.owner for form in FORMS if re.match(form.beginning, key, re.ASCII)), None)


def is_same(said: str, secret: str) -> bool:
    """Whether a head says this secret, in a time that tells nothing. What is no text in a head has
    surrogates (PEP 383)."""
    return hmac.compare_digest(said.encode("utf-8", "surrogateescape"), secret.encode())


STARS = "***"
# A label shows six characters; with fewer than these behind the prefix it would show too much.
_LABELLED_FROM = 16


class Secret:
    """A text that prints as stars and must be unwrapped by name.

    ``asdict``, ``copy`` and ``deepcopy`` hand on the same object; pickling raises ``TypeError``.
    """

    __slots__ = ("__label", "__value")

    def __init__(self, value: str) -> None:
        self.__value = value
        self.__label: str | None = None

    def reveal(self) -> str:
        """The text itself."""
        return self.__value

    def is_in(self, text: str, *, run: int | None = None) -> bool:
        """Whether ``text`` repeats the secret, or ``run`` of its characters in a row."""
        value = self.__value
        size = len(value) if run is None else min(run, len(value))
        return any(value[at : at + size] in text for at in range(len(value) - size + 1))

    @property
    def label(self) -> str:
        """What may be shown of a key, in the provider's own form: ``sk-or-v1-ab1...f90``."""
        if self.__label is None:
            self.__label = self.__shown()
        return self.__label

    def __shown(self) -> str:
        match = _BEGINNING.match(self.__value)
        prefix = match.group() if match else ""
        rest = self.__value[len(prefix) :]
        if len(rest) < _LABELLED_FROM:
            return STARS
        return f"{prefix}{rest[:3]}...{rest[-3:]}"

    @property
    def owner(self) -> str | None:
        """As the function ``owner``."""
        return owner(self.__value)

    def __repr__(self) -> str:
        return f"Secret({STARS!r})"

    def __str__(self) -> str:
        return STARS

    def __format__(self, spec: str) -> str:
        return format(STARS, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self.__value == other.__value

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled")


NO_KEY = Secret("")
"""Stands for the key of a host that asks for none."""
