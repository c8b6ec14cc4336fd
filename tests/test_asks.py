"""What a body asks for: bounds that no reading of it exceeds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keyproxy import dialects
from keyproxy.call import Ask
from keyproxy.dialects import Dialect, names
from keyproxy.errors import Refusal
from keyproxy.features import WORDS
from keyproxy.policy import bounds, fields
from keyproxy.policy.bounds import INPUT_TOKENS, TEMPLATE_TOKENS
from keyproxy.policy.check import Check, Policy
from keyproxy.policy.fields import FIELDS
from keyproxy.policy.models import Models
from keyproxy.policy.opened import NONE, Features
from keyproxy.price import Price, Rates, nano, worst_case
from tests.examples import examples
from tests.test_features import FUSION, MAIN, OPENED, tool

EVERYTHING = Features.of(
    [*WORDS, "tools:tool_search", "tools:openrouter:advisor", "tools:openrouter:datetime"]
)


def opened(features: Features = NONE) -> Policy:
    return Policy(Models(["*"], features), features=features)


ALL_OPEN = opened(EVERYTHING)
PIXELS = "A" * 5000
C, R, M = MAIN
SEARCH = {"type": "web_search_20260209", "name": "web_search"}
TALKS = (dialects.CHAT, dialects.RESPONSES, dialects.MESSAGES)
PLACES = {dialects.CHAT: "messages", dialects.RESPONSES: "input", dialects.MESSAGES: "messages"}


def ask_of(style: Dialect, body: dict[str, Any], raw_bytes: int) -> Ask:
    """What is asked for in a body, as the policy sees it while all that can be open is."""
    body = fields.said(body)
    models = body.get("models")
    listed = [body.get("model"), *(models if isinstance(models, list) else [])]
    check = Check(style, ALL_OPEN)
    fields.check(check, body)
    for name in listed:
        if isinstance(name, str):
            check.model("model", [name], 0)
    return bounds.ask_of(check, body, raw_bytes)


def reckoned(style: Dialect, body: dict[str, Any]) -> Ask:
    """The same of a body whose fields alone decide, whether or not they are open."""
    return bounds.ask_of(Check(style, ALL_OPEN), body, len(json.dumps(body)))


def asked(style: Dialect, body: dict[str, Any]) -> Ask:
    return ask_of(style, body, len(json.dumps(body)))


def saying(part: Any, style: Dialect = dialects.CHAT, **more: Any) -> dict[str, Any]:
    return {"model": "a/b", PLACES[style]: [{"role": "user", "content": [part]}], **more}


@pytest.mark.parametrize("style", TALKS)
def test_a_text_is_at_most_a_token_a_byte_and_what_a_template_adds(style: Dialect) -> None:
    body = saying({"type": "text", "text": "Grüße"}, style)
    assert ask_of(style, body, 100) == Ask(100 + TEMPLATE_TOKENS)


@pytest.mark.parametrize(
    ("style", "body", "cap"),
    [
        (dialects.CHAT, {"max_tokens": 5}, 5),
        (dialects.CHAT, {"max_completion_tokens": 5}, 5),
        (dialects.CHAT, {"max_tokens": 5, "max_completion_tokens": 7}, 7),
        (dialects.CHAT, {"max_tokens": 5, "max_completion_tokens": None}, 5),
        (dialects.CHAT, {"max_tokens": 5, "max_completion_tokens": 0}, None),
        (dialects.CHAT, {"max_tokens": 0}, None),
        (dialects.CHAT, {"max_tokens": -1}, None),
        (dialects.CHAT, {"max_tokens": 5.0}, 5),
        (dialects.CHAT, {"max_tokens": 5.5}, None),
        (dialects.CHAT, {"max_tokens": 5, "reasoning": {"max_tokens": 9.0}}, 14),
        (dialects.CHAT, {"max_tokens": 5, "reasoning": {"max_tokens": -1}}, 5),
        (dialects.CHAT, {"max_tokens": True}, None),
        (dialects.CHAT, {"max_tokens": "5"}, None),
        (dialects.CHAT, {"max_output_tokens": 5}, None),
        (dialects.CHAT, {"max_tokens": 5, "reasoning": {"max_tokens": 9}}, 14),
        (dialects.CHAT, {"max_tokens": 50, "reasoning": {"max_tokens": 9}}, 50),
        (dialects.RESPONSES, {"max_output_tokens": 5}, 5),
        (dialects.MESSAGES, {"max_tokens": 5}, 5),
        (dialects.MESSAGES, {"max_tokens": 5, "thinking": {"budget_tokens": 9}}, 14),
        (dialects.COMPLETIONS, {"max_tokens": 5}, 5),
    ],
)
def test_the_output_cap_is_the_largest_that_is_said(
    style: Dialect, body: dict[str, Any], cap: int | None
) -> None:
    assert reckoned(style, body).max_output_tokens == cap


@pytest.mark.parametrize("number", [10**63, 1e63, 1e308])
def test_no_number_is_too_large_to_reckon_with(number: float) -> None:
    price = Price(Rates(prompt=Decimal("0.001"), completion=Decimal("0.001")))
    for style, body in (
        (dialects.CHAT, {"max_tokens": number, "n": number, "max_completion_tokens": 5}),
        (dialects.CHAT, {"max_tokens": 5, "reasoning": {"max_tokens": number}}),
        (dialects.RESPONSES, {"max_output_tokens": number, "max_tool_calls": number}),
        (dialects.MESSAGES, {"max_tokens": number, "thinking": {"budget_tokens": number}}),
        (dialects.COMPLETIONS, {"max_tokens": number, "best_of": number, "prompt": "x"}),
    ):
        worst = worst_case(price, reckoned(style, body))
        assert worst is not None
        assert nano(worst) > 10**12


URL = f"data:image/png;base64,{PIXELS}"
SOURCE = {"type": "base64", "media_type": "image/png", "data": PIXELS}
IMAGE = {"type": "image", "source": SOURCE}


def test_every_length_that_the_policy_caps_is_read() -> None:
    for style in dialects.DIALECTS:
        for name in style.lengths:
            assert asked(style, {name: 7}).max_output_tokens == 7


def test_no_tool_that_the_caller_runs_itself_is_unbounded() -> None:
    for style in TALKS:
        assert style.own_tools
        ask = asked(style, {"tools": [{"type": kind} for kind in style.own_tools]})
        assert not ask.is_unbounded
        assert ask.rounds == 1
    search = {"type": "tool_search", "execution": "client"}
    assert not asked(dialects.RESPONSES, {"input": "x", "tools": [search]}).is_unbounded
    assert asked(
        dialects.RESPONSES, {"input": "x", "tools": [{"type": "tool_search"}]}
    ).is_unbounded


@pytest.mark.parametrize(
    ("style", "part"),
    [
        (dialects.CHAT, {"type": "image_url", "image_url": {"url": URL}}),
        (dialects.CHAT, {"type": "image_url", "image_url": URL}),
        (dialects.RESPONSES, {"type": "input_image", "image_url": URL}),
        (dialects.MESSAGES, IMAGE),
        (dialects.MESSAGES, {"type": "tool_result", "content": [IMAGE]}),
    ],
)
def test_an_image_is_counted_and_its_bytes_are_no_text(
    style: Dialect, part: dict[str, Any]
) -> None:
    ask = asked(style, saying(part, style))
    assert (ask.images, ask.has_media) == (1, False)
    assert ask.text_tokens < TEMPLATE_TOKENS + 300


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:text/plain;base64,{PIXELS}"}},
        {"type": "image_url", "image_url": {"url": f"https://a.example/{PIXELS}"}},
        {"type": "image_url", "image_url": {"url": "data:image/png,"}, "text": PIXELS},
        {"type": "text", "text": "", "image_url": {"url": f"data:image/png;base64,{PIXELS}"}},
    ],
)
def test_only_the_bytes_of_an_image_itself_are_left_out(part: dict[str, Any]) -> None:
    assert asked(dialects.CHAT, saying(part)).text_tokens > TEMPLATE_TOKENS + len(PIXELS)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://a.example/v.mp4"}},
        {"type": "file", "file": {"file_data": "https://a.example/x.pdf"}},
        {"type": "document", "source": {"type": "url", "url": "https://a.example/x.pdf"}},
        {"type": "something_new", "url": "https://a.example/"},
        {"type": 7},
    ],
)
def test_a_part_of_unknown_size_is_taken_for_media(part: dict[str, Any]) -> None:
    ask = asked(dialects.CHAT, saying(part))
    assert ask.has_media
    assert ask.has_files is (part["type"] in ("file", "document"))


def test_an_earlier_answer_in_sound_is_media() -> None:
    message = {"role": "assistant", "audio": {"id": "audio_1", "transcript": "Hm"}}
    assert asked(dialects.CHAT, {"messages": [message]}).has_media


def test_words_in_the_arguments_of_a_tool_mean_nothing() -> None:
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {"type": "file", "tools": [{}]}}
    ask = asked(dialects.MESSAGES, saying(use, dialects.MESSAGES))
    assert not ask.has_media
    assert not ask.is_unbounded


@pytest.mark.parametrize(
    ("style", "more"),
    [
        (dialects.CHAT, {"plugins": [{"id": "web"}]}),
        (dialects.CHAT, {"web_search_options": {}}),
        (dialects.CHAT, {"tools": [{"type": "openrouter:web_search"}]}),
        (dialects.CHAT, {"tools": [{"type": "openrouter:web_fetch"}]}),
        (dialects.CHAT, {"model": "a/b:online"}),
        (dialects.CHAT, {"models": ["a/b", "a/c:floor:online"]}),
        (dialects.MESSAGES, {"fallbacks": [{"model": "a/c:online"}]}),
        (dialects.MESSAGES, {"tools": [{"type": "web_search_20260209", "name": "web_search"}]}),
        (dialects.RESPONSES, {"tools": [{"type": "web_search_preview"}]}),
    ],
)
def test_web_searches_count_as_often_as_a_call_may_make_them(
    style: Dialect, more: dict[str, Any]
) -> None:
    ask = asked(style, saying({"type": "text", "text": ""}, style) | more)
    assert (ask.searches, ask.rounds, ask.is_unbounded) == (30, 31, False)


def test_a_bound_on_tool_calls_bounds_searches_and_rounds() -> None:
    tools = [{"type": "web_search", "parameters": {"max_results": 9}}]
    ask = asked(dialects.RESPONSES, {"input": "Hi", "tools": tools, "max_tool_calls": 4})
    assert (ask.searches, ask.rounds, ask.results) == (4, 5, 25)


def test_a_tool_hidden_in_the_conversation_is_seen() -> None:
    hidden = {"type": "additional_tools", "tools": [{"type": "web_search"}]}
    assert asked(dialects.RESPONSES, {"input": [hidden]}).searches == 30


@pytest.mark.parametrize(
    ("style", "more"),
    [
        (
            dialects.CHAT,
            {"tools": [{"type": "openrouter:advisor", "parameters": {"model": "a/c"}}]},
        ),
        (dialects.CHAT, {"plugins": [{"id": "file-parser"}]}),
        (dialects.CHAT, {"plugins": [FUSION]}),
        (dialects.CHAT, {"service_tier": "priority"}),
        (dialects.MESSAGES, {"speed": "fast"}),
        (dialects.CHAT, {"modalities": ["text", "image"]}),
        (dialects.CHAT, {"image_config": {}}),
        (dialects.CHAT, {"audio": {"voice": "alloy"}}),
        (dialects.CHAT, {"provider": {"only": ["openai/priority"]}}),
        (dialects.MESSAGES, {"inference_geo": "us"}),
        (dialects.IMAGES, {"prompt": "a cat"}),
        (dialects.SPEECH, {"input": "a cat"}),
        (dialects.TRANSCRIPTIONS, {"input_audio": {}}),
        (dialects.RERANK, {"query": "a", "documents": [{"text": "b"}]}),
    ],
)
def test_what_no_catalogue_price_bounds_is_unbounded(style: Dialect, more: dict[str, Any]) -> None:
    assert asked(style, {"model": "a/b", **more}).is_unbounded


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"plugins": [{"id": "response-healing"}, {"id": "web", "enabled": False}]},
        {"service_tier": "flex"},
        {"modalities": ["text"]},
        {"provider": {"only": ["openai"], "order": ["deepinfra/fp8"]}},
        {"tools": None, "plugins": None, "audio": None, "modalities": None, "provider": None},
    ],
)
def test_what_costs_nothing_of_its_own_changes_nothing(more: dict[str, Any]) -> None:
    assert ask_of(dialects.CHAT, {"model": "a/b", **more}, 10) == Ask(10 + TEMPLATE_TOKENS)


@pytest.mark.parametrize(
    ("more", "is_long"),
    [
        ({"cache_control": {"type": "ephemeral"}}, False),
        ({"cache_control": {"type": "ephemeral", "ttl": "5m"}}, False),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, True),
        ({"prompt_cache_options": {"ttl": "24h"}}, True),
        ({"prompt_cache_retention": "24h"}, True),
        ({"prompt_cache_retention": "in_memory"}, False),
        ({"tools": [{"name": "f", "cache_control": {"ttl": "1h"}}]}, True),
        ({"system": [{"type": "text", "text": "", "cache_control": {"ttl": "1h"}}]}, True),
        ({"messages": [{"role": "user", "content": [{"caching": "1h"}]}]}, True),
    ],
)
def test_a_long_lifetime_of_a_cache_is_seen_wherever_it_stands(
    more: dict[str, Any], is_long: bool
) -> None:
    takers = (dialects.MESSAGES, dialects.RESPONSES)
    style = next(taker for taker in takers if more.keys() <= taker.fields.keys())
    assert asked(style, more).has_long_cache is is_long


@pytest.mark.parametrize(
    ("style", "management", "times"),
    [
        (dialects.RESPONSES, [{"type": "compaction", "compact_threshold": 1}], 2),
        (dialects.RESPONSES, None, 1),
        (dialects.MESSAGES, {"edits": [{"type": "compact_20260112"}]}, 2),
        (dialects.MESSAGES, {"edits": [{"type": "clear_thinking_20251015"}]}, 1),
        (dialects.MESSAGES, {"edits": None}, 1),
    ],
)
def test_a_conversation_that_is_summarized_first_is_read_and_written_twice(
    style: Dialect, management: Any, times: int
) -> None:
    ask = ask_of(style, {"model": "a/b", "context_management": management}, 10)
    assert ask == Ask(times * (10 + TEMPLATE_TOKENS), answers=times, contexts=times)


def test_a_prediction_may_be_billed_as_output_beyond_the_cap() -> None:
    body = {"messages": [], "prediction": {"type": "content", "content": "x" * 500}}
    assert asked(dialects.CHAT, body).predicted_tokens > 500


@pytest.mark.parametrize(
    ("prompt", "contexts"),
    [("a", 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([1.0, 2], 1), ([[1], [2]], 2)],
)
def test_each_prompt_is_answered(prompt: Any, contexts: int) -> None:
    ask = asked(dialects.COMPLETIONS, {"prompt": prompt, "n": 2})
    assert (ask.contexts, ask.answers) == (contexts, 2 * contexts)


def test_embeddings_have_no_output_and_are_read_one_by_one() -> None:
    ask = ask_of(dialects.EMBEDDINGS, {"input": ["a", "b"]}, 50)
    assert ask == Ask(50 + 2 * INPUT_TOKENS, answers=0, contexts=2)


def test_a_query_is_read_again_with_each_document() -> None:
    ask = ask_of(dialects.RERANK, {"query": "q" * 10, "documents": ["d"] * 250}, 2000)
    assert ask.text_tokens >= 2000 + 250 * 10
    assert (ask.answers, ask.contexts, ask.requests) == (0, 250, 3)


texts = st.text(max_size=40)
parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.just({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXELS}"}}),
)
conversations = st.lists(
    st.builds(
        lambda content: {"role": "user", "content": content}, texts | st.lists(parts, max_size=4)
    ),
    max_size=5,
)


@examples(60, are_new=True)
@given(conversations, st.booleans())
def test_no_text_has_more_bytes_than_the_ask_has_tokens(
    messages: list[dict[str, Any]], is_ascii: bool
) -> None:
    body = {"model": "a/b", "messages": messages}
    raw = json.dumps(body, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    spelled, images = 0, 0
    for message in messages:
        content = message["content"]
        for part in [{"text": content}] if isinstance(content, str) else content:
            spelled += len(part.get("text", "").encode("utf-8", "surrogatepass"))
            images += "image_url" in part
    ask = ask_of(dialects.CHAT, body, len(raw))
    assert spelled + 10 * len(messages) <= ask.text_tokens <= len(raw) + TEMPLATE_TOKENS
    assert ask.images == images


NAMES = names(
    "model models fallbacks messages input system prompt query documents content type text role"
    " image_url url source data media_type tools parameters max_results plugins id enabled"
    " cache_control ttl caching definition prediction n best_of max_tokens max_output_tokens"
    " max_completion_tokens max_tool_calls reasoning thinking budget_tokens service_tier speed"
    " provider only order modalities audio image_config web_search_options prompt_cache_options"
)
VALUES = "image_url image file tool_use function namespace web web_search a/b:online priority"
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(VALUES.split()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(sorted(NAMES)) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=20,
)


@examples(60, are_new=True)
@given(
    st.sampled_from([*dialects.DIALECTS, dialects.CATALOGUE]),
    st.dictionaries(st.sampled_from(sorted(NAMES)), json_values),
)
def test_no_json_breaks_the_reading_of_a_body(style: Dialect, body: dict[str, Any]) -> None:
    ask = bounds.ask_of(Check(style, ALL_OPEN), body, 100)
    with contextlib.suppress(Refusal):
        ask = ask_of(style, body, 100) if style in FIELDS else ask
    assert ask.text_tokens >= 0
    assert ask.contexts >= 1


@pytest.mark.parametrize(
    ("style", "part", "name", "value"),
    [
        (M, {"type": "text", "text": "", "Cache_Control": {"ttl": "1h"}}, "has_long_cache", True),
        (M, {"type": "tool_addition", "Tools": [SEARCH]}, "searches", 30),
        (M, {"type": "tool_addition", "tool": SEARCH}, "searches", 30),
        (M, {"Type": "document", "source": {}}, "has_files", True),
        (C, {"Type": "video_url", "video_url": {}}, "has_media", True),
        (C, {"type": "text", "Type": "image_url", "image_url": {"url": URL}}, "has_media", True),
        (C, {"type": "text", "text": "", "AUDIO": {"data": "AAAA"}}, "has_media", True),
    ],
)
def test_names_in_a_conversation_are_read_as_the_policy_reads_them(
    style: Dialect, part: dict[str, Any], name: str, value: Any
) -> None:
    assert getattr(asked(style, saying(part, style)), name) == value


@pytest.mark.parametrize(
    ("style", "more", "name", "value"),
    [
        (C, {"plugins": [{"id": "web", "Max_Results": 20}]}, "results", 25),
        (C, {"web_search_options": {"max_results": 20}}, "results", 25),
        (C, tool("datetime", caching="1h"), "has_long_cache", True),
        (C, tool("datetime", model="a/b:online"), "searches", 30),
        (C, {"tool_choice": {"type": "openrouter:web_search"}}, "searches", 30),
        (M, {"compaction": {"type": "summarize"}}, "answers", 2),
    ],
)
def test_what_stands_within_tools_and_settings_is_seen(
    style: Dialect, more: dict[str, Any], name: str, value: Any
) -> None:
    assert getattr(asked(style, {"model": "a/b", **more}), name) == value


def test_a_stored_image_is_an_image_and_no_file() -> None:
    stored = {"type": "image", "source": {"type": "file", "file_id": "file-1"}}
    ask = asked(M, saying(stored, M))
    assert (ask.images, ask.has_files) == (1, False)


# Words that open what a price list, the parts of a conversation or a count of answers tell of.
PRICED_ELSEWHERE = {"provider", "fallbacks", "workspace-files"}


def is_dearer(ask: Ask) -> bool:
    return ask.is_unbounded or ask.rounds > 1


NOTED: dict[str, Callable[[Ask], bool]] = {
    "web": lambda ask: ask.searches > 0 and ask.rounds > 1,
    "cache-1h": lambda ask: ask.has_long_cache,
    "many": lambda ask: ask.answers > 1,
}
COSTLY = [
    (words, style, value)
    for words, style, value in OPENED
    if not PRICED_ELSEWHERE & set(words.split()) and "stop_server_tools_when" not in value
]


def in_another_width(name: str) -> str:
    return chr(ord(name[0]) + 0xFEE0) + name[1:]


def respelled(value: Any, random: Random) -> Any:
    """``value`` with its names as a careless reader might take them for the same."""
    if isinstance(value, list):
        return [respelled(item, random) for item in value]
    if not isinstance(value, dict):
        return value
    ways: list[Callable[[str], str]] = [str, str, str.upper, str.title, in_another_width]
    return {random.choice(ways)(name): respelled(inner, random) for name, inner in value.items()}


def refused(words: Iterable[str], style: Dialect, body: dict[str, Any]) -> bool:
    features = Features.of(words)
    try:
        fields.check(Check(style, opened(features)), json.loads(json.dumps(body)))
    except Refusal:
        return True
    return False


@examples(150, are_new=True)
@given(st.sampled_from(COSTLY), st.randoms(use_true_random=False))
def test_whatever_the_policy_opens_with_a_word_the_bounds_have_seen(
    case: tuple[str, Dialect, dict[str, Any]], random: Random
) -> None:
    words, style, value = case
    body = {name: respelled(inner, random) for name, inner in value.items()}
    is_gated = refused((), style, body)
    assume(is_gated and not refused(words.split(), style, body))
    features = Features.of(words.split())
    check = Check(style, opened(features))
    fields.check(check, body)
    ask = bounds.ask_of(check, body, 100)
    for word in words.split():
        assert NOTED.get(word, is_dearer)(ask), (word, body)


@pytest.mark.parametrize("word", sorted(set(WORDS) - PRICED_ELSEWHERE - {"many"}))
def test_each_word_is_a_rule_whose_fields_are_reserved_for(word: str) -> None:
    rule = fields.RULES[word.replace("-", "_")]
    with pytest.raises(Refusal):
        rule(Check(C, opened()), "new_field", {})
    check = Check(C, opened(Features.of([word])))
    rule(check, "new_field", {})
    ask = bounds.ask_of(check, {}, 100)
    assert NOTED.get(word, is_dearer)(ask)
