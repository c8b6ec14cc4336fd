"""The demo's models: each row says what it does, and is what it does.

The rows have the shape of OpenRouter's ``GET /models`` (October 2026), prices as decimal
strings in USD per token. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from keyproxy.dataclass import dataclass
from keyproxy.demo import failures, texts
from keyproxy.demo.failures import Failure

CREATED = 1790640000
CONTEXT_LENGTH = 32_000
PROMPT_PRICE = Decimal("0.000002")
COMPLETION_PRICE = Decimal("0.00001")


class Ending(StrEnum):
    """How an answer that has begun comes to its end."""

    WHOLE = "whole"
    CUT = "cut"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Model:
    """``says`` makes the answer from the user's last message; a ``failure`` comes instead of it."""

    id: str
    name: str
    description: str
    says: Callable[[str], str] = texts.welcome
    seconds_before_first_token: float = 0.25
    seconds_per_token: float = 0.03
    ending: Ending = Ending.WHOLE
    failure: Failure | None = None
    is_silent: bool = False

    def row(self) -> dict[str, object]:
        """This model as the catalogue lists it."""
        return {
            "id": self.id,
            "canonical_slug": self.id,
            "hugging_face_id": None,
            "name": self.name,
            "created": CREATED,
            "description": self.description,
            "context_length": CONTEXT_LENGTH,
            "architecture": {
                "modality": "text->text",
                "input_modalities": ["text"],
                "output_modalities": ["text"],
                "tokenizer": "Other",
                "instruct_type": None,
            },
            "pricing": {"prompt": str(PROMPT_PRICE), "completion": str(COMPLETION_PRICE)},
            "top_provider": {
                "context_length": CONTEXT_LENGTH,
                "max_completion_tokens": 4096,
                "is_moderated": False,
            },
            "per_request_limits": None,
            "supported_parameters": ["max_tokens", "max_completion_tokens"],
            "default_parameters": {},
            "supported_voices": None,
            "knowledge_cutoff": None,
            "expiration_date": None,
            "links": {"details": f"/api/v1/models/{self.id}/endpoints"},
        }

    def endpoints(self) -> dict[str, object]:
        """The one provider that serves this model."""
        return {
            "id": self.id,
            "name": self.name,
            "created": CREATED,
            "description": self.description,
            "architecture": self.row()["architecture"],
            "endpoints": [
                {
                    "name": f"Demo | {self.id}",
                    "model_id": self.id,
                    "model_name": self.name,
                    "provider_name": "Demo",
                    "tag": "demo",
                    "context_length": CONTEXT_LENGTH,
                    "max_completion_tokens": 4096,
                    "max_prompt_tokens": None,
                    "quantization": "unknown",
                    "pricing": {
                        "prompt": str(PROMPT_PRICE),
                        "completion": str(COMPLETION_PRICE),
                        "discount": 0,
                    },
                    "supported_parameters": ["max_tokens"],
                    "status": 0,
                    "uptime_last_5m": 100,
                    "uptime_last_30m": 100,
                    "uptime_last_1d": 100,
                    "supports_implicit_caching": False,
                    "supports_tool_choice": dict.fromkeys(
                        ("auto", "function", "none", "required"), False
                    ),
                    "supports_voice_cloning": False,
                    "latency_last_30m": None,
                    "throughput_last_30m": None,
                }
            ],
        }


_ALL = (
    Model("demo/chat", "Demo: Chat", "Answers kindly, word by word."),
    Model(
        "demo/echo",
        "Demo: Echo",
        "Says back what you wrote, and nothing else.",
        says=texts.echo,
    ),
    Model(
        "demo/slow",
        "Demo: Slow",
        "Thinks for three seconds, then speaks slowly.",
        seconds_before_first_token=3,
        seconds_per_token=0.25,
    ),
    Model(
        "demo/long",
        "Demo: Long",
        "Speaks fast and for very long. Try Stop.",
        says=texts.long_story,
        seconds_per_token=0.01,
    ),
    Model(
        "demo/429",
        "Demo: 429 Too many requests",
        "Is busy and asks you to come back in five seconds.",
        failure=failures.TOO_MANY_REQUESTS,
    ),
    Model(
        "demo/402",
        "Demo: 402 Out of credits",
        "The account behind the key has run out of credits.",
        failure=failures.OUT_OF_CREDITS,
    ),
    Model(
        "demo/403",
        "Demo: 403 Moderation",
        "Refuses your message: it was flagged by moderation.",
        failure=failures.FLAGGED,
    ),
    Model(
        "demo/500",
        "Demo: 500 Server error",
        "Something broke at the provider.",
        failure=failures.SERVER_ERROR,
    ),
    Model(
        "demo/503",
        "Demo: 503 Unavailable",
        "No provider can serve the model just now.",
        failure=failures.UNAVAILABLE,
    ),
    Model(
        "demo/html",
        "Demo: 502 HTML page",
        "A gateway on the way answers with an HTML page instead of JSON.",
        failure=failures.BAD_GATEWAY_PAGE,
    ),
    Model(
        "demo/midstream-error",
        "Demo: Error mid-stream",
        "Begins to answer, then reports an error inside the stream.",
        ending=Ending.ERROR,
    ),
    Model(
        "demo/cut",
        "Demo: Cut connection",
        "Begins to answer, then the connection breaks.",
        ending=Ending.CUT,
    ),
    Model(
        "demo/hang",
        "Demo: No answer",
        "Never answers. Try Stop.",
        is_silent=True,
    ),
)

# What examples and other people's code ask for first, so that they work here without a change.
_WELL_KNOWN = (
    "openai/gpt-4o-mini",
    "openai/gpt-4o",
    "openai/gpt-oss-120b",
    "~openai/gpt-latest",
    "anthropic/claude-sonnet-4",
    "anthropic/claude-sonnet-4.5",
    "anthropic/claude-haiku-4.5",
    "google/gemini-2.5-flash",
)
_STAND_INS = tuple(
    Model(id, f"Demo: {id}", "Stands for the model of that name, and answers as demo/chat does.")
    for id in _WELL_KNOWN
)

MODELS: Mapping[str, Model] = MappingProxyType({each.id: each for each in (*_ALL, *_STAND_INS)})
