"""Any other host that speaks OpenAI's or Anthropic's dialects: vLLM or Ollama beside us, Together,
a gateway of one's own. Of such a host only what settings say is known."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from keyproxy.dialects import names
from keyproxy.settings.providers import Kind
from keyproxy.upstream.anthropic import ANTHROPIC
from keyproxy.upstream.provider import Provider
from keyproxy.upstream.takes import CHAT, EMBEDDINGS, MESSAGES, RESPONSES, Takes

_DIALECTS = {
    # What OpenAI's clients have always sent, and what those who serve open models add to it.
    "chat": Takes(
        fields=CHAT
        | names(
            "frequency_penalty presence_penalty repetition_penalty logit_bias logprobs top_logprobs"
            " min_p top_k seed n reasoning_effort stream_options user"
        ),
        asks_usage=True,
        inputs=names("image audio"),
    ),
    "responses": Takes(
        fields=RESPONSES | names("include max_tool_calls truncation user"),
        inputs=names("image file"),
    ),
    "messages": Takes(
        fields=MESSAGES | names("cache_control output_config"),
        inputs=names("image file"),
    ),
    "embeddings": Takes(fields=EMBEDDINGS | names("dimensions user")),
}
DIALECTS = tuple(_DIALECTS)
"""What such a host may be said to speak."""


def compatible(kind: Kind, name: str, base: str, dialects: Collection[str] = ()) -> Provider:
    """The host at ``base`` whose key is asked for as OpenAI does, or as Anthropic does."""
    is_anthropic = kind == "anthropic-compatible"
    usual = "messages" if is_anthropic else "chat"
    made = Provider(
        name=name,
        title=name,
        base=base,
        keys_page=base,
        takes={each: _DIALECTS[each] for each in dialects or (usual,)},
        slug="",
    )
    if not is_anthropic:
        return made
    own = ANTHROPIC
    return replace(made, key_header=own.key_header, key_form=own.key_form, head=own.head)
