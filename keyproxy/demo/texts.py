"""What the demo's models say, and how much of it: plain text and pretend tokens.

Two-, three- and four-byte characters are there on purpose, so that whoever splits the stream
in the middle of one is found out. Knows nothing of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

QUOTED_LENGTH = 120

_TOKEN = re.compile(r"\s*\S{1,8}|\s+\Z")


def welcome(message: str) -> str:
    """The answer of ``demo/chat``."""
    return (
        f"You wrote “{_quoted(message)}”: thank you, and hello! 👋\n\n"
        "I am not a language model. This is the demo: a small server inside keyproxy that "
        "answers the way OpenRouter does, so it needs no key, no account and no internet.\n\n"
        "The rest is real. Your words went through the proxy, and mine come back as they are "
        "made, piece by piece, every byte untouched: Grüße aus Köln, 你好, ¡olé! ☀️"
    )


def echo(message: str) -> str:
    """The answer of ``demo/echo``."""
    return message or "(You wrote nothing.)"


def long_story(message: str) -> str:
    """About 4,000 tokens."""
    lines = (f"{n}. One more line about “{_quoted(message)}”, naïve but true." for n in range(500))
    return "\n".join(lines)


def tokens(text: str) -> list[str]:
    """``text`` in pieces that join up to it again."""
    return _TOKEN.findall(text)


def last_message(body: Mapping[str, Any]) -> str:
    """What the user said last, in any of the three request shapes."""
    said = [text for role, text in _messages(body) if role == "user"]
    return said[-1] if said else ""


def count_prompt(body: Mapping[str, Any]) -> int:
    """Pretend tokens of everything that was said so far."""
    return sum(len(tokens(text)) for _, text in _messages(body))


def _messages(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    messages = body.get("messages", body.get("input"))
    if isinstance(messages, str):
        yield "user", messages
    elif isinstance(messages, list):
        for message in messages:
            if isinstance(message, dict):
                yield str(message.get("role")), _text(message.get("content"))


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))


def _quoted(message: str) -> str:
    line = " ".join(message.split()) or "…"
    return line if len(line) <= QUOTED_LENGTH else line[:QUOTED_LENGTH].rstrip() + "…"
