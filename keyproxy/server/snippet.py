"""The lines of code that a start shows: an SDK, a dialect and a model that can be answered here."""

from __future__ import annotations

from keyproxy.call import ROUTER
from keyproxy.kit import AppKit

_USUAL = (
    "openai/gpt-4o-mini",
    "openai/gpt-oss-120b",
    "google/gemini-3.5-flash",
    "anthropic/claude-haiku-4.5",
    "mistralai/mistral-medium-3-5",
    "x-ai/grok-4.3",
)
"""One to begin with at each provider, the cheaper ones first."""
_SAID = 'messages: [{ role: "user", content: "Hello" }]'


def snippet(app: AppKit, site: str) -> str:
    """Four lines of JavaScript or five, the last without its end."""
    model = usual_model(app)
    spoken = _dialects(app, model)
    if "responses" in spoken or not {"chat", "messages"} & spoken:
        return _openai(site, f'responses.create({{ model: "{model}", input: "Hello" }});')
    if "chat" in spoken:
        return _openai(site, f'chat.completions.create({{ model: "{model}",\n    {_SAID} }});')
    return f"""\
  import Anthropic from "@anthropic-ai/sdk";
  const ai = new Anthropic({{ baseURL: "{site}/api",
    apiKey: "none", dangerouslyAllowBrowser: true }});
  await ai.messages.create({{ model: "{model}",
    max_tokens: 256, {_SAID} }});"""


def _openai(site: str, call: str) -> str:
    return f"""\
  import OpenAI from "openai";
  const ai = new OpenAI({{ baseURL: "{site}/api/v1",
    apiKey: "none", dangerouslyAllowBrowser: true }});
  await ai.{call}"""


def usual_model(app: AppKit) -> str:
    """A usual one, or one that the settings name in its place."""
    usual = ("demo/chat",) if app.settings.mode == "demo" else _USUAL
    named = (name for name in app.settings.allowed_models if "*" not in name)
    return next(filter(app.listed.allows, [usual[0], *named, *usual[1:]]), usual[0])


def _dialects(app: AppKit, model: str) -> set[str]:
    """Those in which a home of ``model`` takes it unasked."""
    if app.attempts is None:
        return {"responses"}
    places = app.attempts.router.homes.of(model).places
    return {
        name
        for place in places
        for name, takes in place.provider.takes.items()
        if place.provider.name == ROUTER or not takes.is_named_only
    }
