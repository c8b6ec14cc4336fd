"""Usage read off passing bytes: right in every shape and chunking, and None where it is hostile."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy import dialects
from keyproxy.call import Usage
from keyproxy.dialects import Dialect
from keyproxy.money.usage import MAX_EVENT_BYTES, UsageReader
from keyproxy.strict_json.scanner import MAX_VALUE_BYTES, Skimmer, Wanted, read_whole
from keyproxy.upstream.provider import Provider
from keyproxy.upstream.providers import PROVIDERS
from tests.examples import examples
from tests.fakes.fake import BODIES, STREAMS
from tests.fakes.replies import Reply, embedded
from tests.fakes.vendors import VENDORS

WIRE = Path(__file__).parent / "wire"
ID = "gen-1790981416-AbCdEfGhIjKlMnOpQrSt"
COST = Decimal("0.000088")
DONE = b"data: [DONE]\n\n"
Seen = tuple[Usage | None, str | None, bool, bool]


FULL = Usage(14, 6, 0, 0, 0, COST, upstream_cost=COST)
# name: usage, id, is_finished, whether it told of an error
SAMPLES: dict[str, Seen] = {
    "chat-200-choice-error.json": (None, ID, True, True),
    "chat-200-error.json": (None, None, True, True),
    "chat-nonstream-byok.json": (
        Usage(14, 6, 0, 0, 0, Decimal("0.0000044"), True, COST),
        ID,
        True,
        False,
    ),
    "chat-nonstream.json": (FULL, ID, True, False),
    "chat-stream-cut.sse": (None, ID, False, False),
    "chat-stream-first-event-error.sse": (None, ID, True, True),
    "chat-stream-midstream-error-stringcode.sse": (None, ID, True, True),
    "chat-stream-midstream-error.sse": (None, ID, False, True),
    "chat-stream-reasoning.sse": (
        Usage(14, 9, 0, 0, 3, Decimal("0.000118"), upstream_cost=Decimal("0.000118")),
        ID,
        True,
        False,
    ),
    "chat-stream-tools.sse": (
        Usage(82, 31, 0, 0, 0, Decimal("0.000474"), upstream_cost=Decimal("0.000474")),
        ID,
        True,
        False,
    ),
    "chat-stream-usage-emptychoices.sse": (FULL, ID, True, False),
    "chat-stream-usage-in-finish.sse": (FULL, ID, True, False),
    "chat-stream-usage-legacy.sse": (FULL, ID, True, False),
    "chat-stream.sse": (FULL, ID, True, False),
    "embeddings.json": (
        Usage(4, cost=Decimal("8e-08")),
        "gen-emb-1790981416-AbCdEfGhIjKlMnOpQrSt",
        True,
        False,
    ),
    "messages-midstream-error.sse": (Usage(14, 1, 0, 0), ID, False, True),
    "messages-nonstream.json": (
        Usage(14, 6, 0, 0, cost=COST, upstream_cost=COST),
        ID,
        True,
        False,
    ),
    "messages-stream-with-cost.sse": (Usage(14, 6, 0, 0, cost=COST), ID, True, False),
    "messages-stream.sse": (Usage(14, 6, 0, 0), ID, True, False),
    "provider-anthropic-stream.sse": (Usage(114, 6, 100, 4), None, True, False),
    "provider-cerebras-stream.sse": (Usage(14, 6, 0), None, True, False),
    "provider-deepinfra-stream.sse": (Usage(14, 6), None, True, False),
    "provider-gemini-stream.sse": (Usage(14, 26), None, True, False),
    "provider-groq-stream.sse": (Usage(14, 6), None, True, False),
    "provider-mistral-stream.sse": (Usage(14, 6, 0), None, True, False),
    "provider-openai-stream.sse": (Usage(14, 6, 0, None, 0), None, True, False),
    "provider-xai-stream.sse": (Usage(14, 106, 4, None, 100), None, True, False),
    "responses-nonstream.json": (FULL, ID, True, False),
    "responses-stream-error-event.sse": (None, None, False, True),
    "responses-stream-failed.sse": (None, ID, True, True),
    "responses-stream.sse": (FULL, ID, True, False),
}


def style_of(name: str) -> Dialect:
    if "anthropic" in name:
        return dialects.MESSAGES
    words = {"responses": dialects.RESPONSES, "messages": dialects.MESSAGES}
    words["embeddings.json"] = dialects.EMBEDDINGS
    return words.get(name.partition("-")[0], dialects.CHAT)


def read(
    chunks: Iterable[bytes], style: Dialect = dialects.CHAT, *, is_event_stream: bool = True
) -> UsageReader:
    reader = UsageReader(style, is_event_stream)
    for chunk in chunks:
        reader.watch(chunk)
    reader.finish()
    return reader


def seen(reader: UsageReader) -> Seen:
    return (
        reader.usage,
        reader.generation_id,
        reader.is_finished,
        reader.error is not None,
    )


def seen_in(name: str, chunks: Iterable[bytes]) -> Seen:
    return seen(read(chunks, style_of(name), is_event_stream=name.endswith(".sse")))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("chat-200-choice-error.json", "502"),
        ("chat-200-error.json", "502"),
        ("chat-stream-first-event-error.sse", "502"),
        ("chat-stream-midstream-error-stringcode.sse", "server_error"),
        ("chat-stream-midstream-error.sse", "429"),
        ("messages-midstream-error.sse", "overloaded_error"),
        ("responses-stream-error-event.sse", "rate_limit_exceeded"),
        ("responses-stream-failed.sse", "server_error"),
        ("chat-stream.sse", None),
    ],
)
def test_an_error_that_an_answer_tells_of_is_named(name: str, code: str | None) -> None:
    reader = read([(WIRE / name).read_bytes()], style_of(name), is_event_stream=".sse" in name)
    assert reader.error == code


@pytest.mark.parametrize(
    "told",
    [
        {"error": {"code": "a b\n\u001b[2J", "message": "x"}},
        {"error": {"code": "a" * 65}},
        {"error": {"code": [1]}},
        {"error": {}},
        {"error": "text of a prompt"},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]},
    ],
)
def test_an_error_without_a_plain_name_is_an_error(told: object) -> None:
    assert read([event(told), DONE]).error == "error"


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk_of(usage: object, **more: object) -> bytes:
    return event({"id": ID, "choices": [], **more, "usage": usage})


def usage_in(text: str, style: Dialect = dialects.CHAT) -> Usage | None:
    """Read a whole answer whose ``usage`` is this JSON text."""
    body = f'{{"id":"{ID}","usage":{text}}}'.encode()
    return read([body], style, is_event_stream=False).usage


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_says_what_it_says_in_one_chunk(name: str) -> None:
    assert seen_in(name, [(WIRE / name).read_bytes()]) == SAMPLES[name]


def test_every_sample_of_an_answer_is_in_the_table() -> None:
    names = {path.name for path in WIRE.iterdir() if not path.name.startswith("error-")}
    assert names == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_says_the_same_split_at_any_byte(name: str) -> None:
    raw = (WIRE / name).read_bytes()
    for at in range(len(raw)):
        assert seen_in(name, [raw[:at], raw[at:]]) == SAMPLES[name], raw[:at][-40:]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_says_the_same_byte_by_byte(name: str) -> None:
    raw = (WIRE / name).read_bytes()
    assert seen_in(name, [raw[at : at + 1] for at in range(len(raw))]) == SAMPLES[name]


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.endswith(".sse")])
def test_every_stream_says_the_same_with_crlf_and_comments_between(name: str) -> None:
    raw = (WIRE / name).read_bytes()
    framed = raw.replace(b"\n\n", b"\n: keep-alive\n: \n\n").replace(b"\n", b"\r\n")
    for size in (1, 7, 100, len(framed)):
        chunks = [framed[at : at + size] for at in range(0, len(framed), size)]
        assert seen_in(name, chunks) == SAMPLES[name]


@examples(100, are_new=True)
@given(st.sampled_from(sorted(SAMPLES)), st.lists(st.integers(0, 5_000), max_size=30))
def test_any_chunking_says_the_same(name: str, cuts: list[int]) -> None:
    raw = (WIRE / name).read_bytes()
    places = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    chunks = [raw[start:end] for start, end in pairwise(places)]
    assert seen_in(name, chunks) == SAMPLES[name]


@examples(150, are_new=True)
@given(
    st.sampled_from([*dialects.DIALECTS, dialects.CATALOGUE]),
    st.booleans(),
    st.lists(
        st.binary(max_size=40)
        | st.sampled_from(
            [b"data: ", b"\n\n", b"\r\n", b'{"usage":', b"{", b"}", b'"', b"\\", b"["]
        )
        | st.sampled_from([b'"response":{', b'"error"', b":", b",", b"1e999", b"null", b'"id"']),
        max_size=40,
    ),
)
def test_no_bytes_whatever_make_it_raise(
    style: Dialect, is_event_stream: bool, chunks: list[bytes]
) -> None:
    read([b"data: {", *chunks], style, is_event_stream=is_event_stream)
    read([b'{"usage":', *chunks], style, is_event_stream=is_event_stream)


# Positions.


def test_the_last_usage_wins_and_none_is_added_up() -> None:
    first = chunk_of({"prompt_tokens": 5, "completion_tokens": 1, "cost": 1})
    last = chunk_of({"prompt_tokens": 5, "completion_tokens": 3, "cost": 0.5})
    null = chunk_of(None)
    assert read([first, last, null, DONE]).usage == Usage(5, 3, cost=Decimal("0.5"))


def test_an_empty_usage_says_nothing_and_replaces_none() -> None:
    assert read([chunk_of({"cost": 1}), chunk_of({})]).usage == Usage(cost=Decimal(1))


def test_json_over_several_data_lines_is_one_document() -> None:
    lines = json.dumps({"choices": [], "usage": {"cost": 2}}, indent=1).splitlines()
    data = b"".join(b": c\ndata: " + line.encode() + b"\n" for line in lines) + b"\n"
    for size in (1, 9, len(data)):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert read(chunks).usage == Usage(cost=Decimal(2))


def test_a_last_event_without_its_blank_line_counts() -> None:
    usage = chunk_of({"cost": 2}).rstrip()
    assert read([event({}), usage]).usage == Usage(cost=Decimal(2))
    assert read([event({}), usage, b"\n\n", b"data: [DONE]\n"]).is_finished


def test_a_document_cut_short_says_nothing() -> None:
    """A second ``usage`` might have followed."""
    body = f'{{"id":"{ID}","usage":{{"cost":1}},"model":"x"}}'.encode()
    reader = read([body[:-1]], is_event_stream=False)
    assert (reader.usage, reader.is_finished) == (None, False)
    assert read([b"data: " + body[:-1] + b"\n\n", DONE]).usage is None


@pytest.mark.parametrize("place", ["choices", "delta", "meta", "response", "message"])
def test_usage_at_any_other_place_does_not_count(place: str) -> None:
    usage = {"cost": 0, "prompt_tokens": 0}
    true = chunk_of({"cost": 3})
    for value in ({"usage": usage}, [{"usage": usage}], [[usage]], {"x": {"usage": usage}}):
        assert read([true, event({"id": ID, place: value})]).usage == Usage(cost=Decimal(3))


LIE = '"usage":{"cost":0,"prompt_tokens":0},"x_groq":{"usage":{"cost":0}},"error":{},[DONE]'
MESSAGES_LIES = [
    {"type": "content_block_start", "content_block": {"type": "tool_use", "input": {"usage": 0}}},
    {"type": "content_block_start", "content_block": {"input": {"usage": {"output_tokens": 0}}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": LIE}},
    {"type": "content_block_delta", "delta": {"partial_json": LIE, "usage": {"cost": 0}}},
    {"type": "content_block_delta", "delta": {"text": '{"type":"message_stop"}'}},
]
RESPONSES_LIES = [
    {"type": "response.output_text.delta", "delta": LIE},
    {"type": "response.output_item.done", "item": {"arguments": {"usage": {"cost": 0}}}},
    {"type": "response.output_item.done", "item": {"response": {"usage": {"cost": 0}}}},
    {"type": "response.output_item.done", "item": {}, "usage": {"cost": 0}},
]
CHAT_LIES = [
    {"choices": [{"delta": {"content": LIE, "usage": {"cost": 0}}}]},
    {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": LIE}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": {"usage": {"cost": 0}}}}]}}]},
    {"choices": [{"usage": {"cost": 0}, "delta": {"content": "[DONE]"}}]},
]
SAYS = {"input_tokens": 5, "cost": 3}
LIARS = [
    (dialects.MESSAGES, MESSAGES_LIES, {"type": "message_delta", "usage": SAYS}),
    (
        dialects.RESPONSES,
        RESPONSES_LIES,
        {"type": "response.completed", "response": {"usage": SAYS}},
    ),
    (dialects.CHAT, CHAT_LIES, {"choices": [], "usage": SAYS}),
]


@pytest.mark.parametrize(("style", "lies", "truth"), LIARS)
def test_what_a_model_writes_never_poses_as_usage_error_or_end(
    style: Dialect, lies: list[Any], truth: Any
) -> None:
    for lie in lies:
        alone = read([event(lie), event(lie)], style)
        assert (alone.usage, alone.is_finished, alone.error) == (None, False, None), lie
        for chunks in ([event(truth), event(lie)], [event(lie), event(truth), event(lie)]):
            assert read(chunks, style).usage == Usage(5, cost=Decimal(3)), lie


@pytest.mark.parametrize("text", [LIE, LIE + "\\", "\\" + LIE, "é" * 9 + LIE + "🙂", "\\\\" * 3])
def test_the_text_of_a_whole_answer_never_poses_as_usage(text: str) -> None:
    message = {"content": text, text: {"usage": {"cost": 0}}, "input": {"usage": {"cost": 0}}}
    for style, field in ((dialects.CHAT, "choices"), (dialects.MESSAGES, "content")):
        body = {field: [{"message": message, "usage": {"cost": 0}}, message], "output": message}
        for order in ({**body, "usage": SAYS}, {"usage": SAYS, **body}):
            for ascii_only in (True, False):
                raw = json.dumps(order, ensure_ascii=ascii_only).encode()
                reader = read([raw[:99], raw[99:]], style, is_event_stream=False)
                assert reader.usage == Usage(5, cost=Decimal(3))
                assert reader.error is None


def test_an_escaped_quote_split_from_its_backslash_ends_no_string() -> None:
    body = json.dumps({"text": '\\" ' + LIE, "error": None, "usage": SAYS}).encode()
    for at in range(len(body)):
        reader = read([body[:at], body[at:]], is_event_stream=False)
        assert (reader.usage, reader.error) == (Usage(5, cost=Decimal(3)), None), body[:at]


def test_message_delta_replaces_message_start_field_by_field() -> None:
    start = {"input_tokens": 10, "cache_read_input_tokens": 100, "output_tokens": 1}
    delta = {"output_tokens": 6, "input_tokens": None, "cost": 0.25}
    chunks = [
        event({"type": "message_start", "message": {"id": ID, "usage": start}}),
        event({"type": "message_delta", "usage": {"output_tokens": 3}}),
        event({"type": "message_delta", "usage": delta}),
    ]
    assert read(chunks, dialects.MESSAGES).usage == Usage(110, 6, 100, cost=Decimal("0.25"))


def test_a_hostile_message_delta_does_not_fall_back_to_message_start() -> None:
    start = event({"type": "message_start", "message": {"usage": {"output_tokens": 1, "cost": 1}}})
    delta = event({"type": "message_delta", "usage": {"output_tokens": -6, "cost": "0"}})
    assert read([start, delta], dialects.MESSAGES).usage is None


# Hostile values.

HOSTILE_MONEY = [
    "-1", "-0.5", "-0", "-0.0", "NaN", "Infinity", "-Infinity", "1e400", "1e999999999999999999999",
    "1e-400", "1e-999999999999999999999", "0e999999", "1000001", '"0.5"', "true", "false", "[]",
    "[1]", "{}", "null", "1" * 6_000, "0." + "0" * 6_000 + "1", "01", "1.", "+1", "0x1",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE_MONEY)
def test_hostile_money_is_none(text: str) -> None:
    for usage in (usage_in(f'{{"cost":{text}}}'), usage_in(f'{{"cost":1,"x":0,"cost":{text}}}')):
        assert usage is None
    nested = usage_in(f'{{"cost_details":{{"upstream_inference_cost":{text}}}}}')
    assert nested is None


HOSTILE_TOKENS = [*HOSTILE_MONEY[:12], "1000000001", "0.5", "1e-3", *HOSTILE_MONEY[13:]]


@pytest.mark.parametrize("text", HOSTILE_TOKENS)
@pytest.mark.parametrize("style", [dialects.CHAT, dialects.RESPONSES, dialects.MESSAGES])
def test_hostile_tokens_are_none(style: Dialect, text: str) -> None:
    names = "prompt_tokens", "completion_tokens"
    if style is not dialects.CHAT:
        names = "input_tokens", "output_tokens"
    for name in names:
        assert usage_in(f'{{"{name}":{text}}}', style) is None
    if style is dialects.MESSAGES and text != "null":  # a sum with a hostile part is none
        usage = usage_in(f'{{"input_tokens":4,"cache_read_input_tokens":{text}}}', style)
        assert usage is None


@pytest.mark.parametrize("text", ['"x"', "[]", "[{}]", "1", "true", '{"cost":1,"cost":1}', "{,}"])
def test_a_hostile_last_usage_is_none_and_not_the_one_before(text: str) -> None:
    hostile = b'data: {"choices":[],"usage":' + text.encode() + b"}\n\n"
    assert read([chunk_of({"cost": 1}), hostile]).usage is None
    assert read([hostile, chunk_of({"cost": 1})]).usage == Usage(cost=Decimal(1))


@pytest.mark.parametrize("second", ['{"cost":0}', '{"cost":9}'])
def test_usage_said_twice_in_one_document_is_none(second: str) -> None:
    """Readers differ on which of the two counts; neither may lower what is booked."""
    body = f'{{"usage":{{"cost":1}},"usage":{second}}}'.encode()
    assert read([body], is_event_stream=False).usage is None
    assert read([b"data: " + body + b"\n\n"]).usage is None


def test_one_hostile_field_leaves_the_others() -> None:
    usage = usage_in('{"prompt_tokens":5,"completion_tokens":"6","cost":0.1}')
    assert usage == Usage(5, cost=Decimal("0.1"))


def test_more_cached_tokens_than_input_are_believed_in_neither() -> None:
    details = '{"cached_tokens":4,"cache_write_tokens":2}'
    usage = usage_in(
        f'{{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{details}}}'
    )
    assert usage == Usage(None, 1)


@pytest.mark.parametrize("depth", [100, 20_000])
def test_deep_nesting_is_none(depth: int) -> None:
    assert usage_in('{"cost":' + "[" * depth + "]" * depth + "}") is None
    assert read([b"{" + b'"a":[{' * depth], is_event_stream=False).usage is None
    assert read([b'data: {"usage":' + b"[{" * depth + b"\n\n"]).usage is None


def test_megabytes_of_usage_are_none_and_not_kept(memory: Memory) -> None:
    reader = UsageReader(dialects.CHAT, is_event_stream=False)
    reader.watch(b'{"usage":{"cost":1,"x":"')
    piece = b"x" * MAX_VALUE_BYTES
    for _ in range(64):
        reader.watch(piece)
        assert memory.grown_bytes() < 4 * MAX_VALUE_BYTES
    reader.watch(b'"}}')
    assert reader.is_finished
    assert reader.usage is None


def test_money_keeps_every_digit() -> None:
    digits = "0.12345678901234567890123"
    usage = usage_in(f'{{"cost":{digits},"is_byok":true}}')
    assert usage is not None
    assert str(usage.cost) == digits
    assert usage.is_byok


@pytest.mark.parametrize(("text", "is_byok"), [("false", False), ("null", False), ('"no"', True)])
def test_a_doubtful_byok_counts_as_one(text: str, is_byok: bool) -> None:
    """Then ``cost`` is not taken for all there is to pay."""
    assert usage_in(f'{{"cost":1,"is_byok":{text}}}') == Usage(cost=Decimal(1), is_byok=is_byok)


@pytest.mark.parametrize("name", ["server_tool_use_details", "server_tool_use"])
def test_server_tools_are_counted(name: str) -> None:
    tools = '{"web_search_requests":2,"tool_calls_requested":4,"tool_calls_executed":3}'
    assert usage_in(f'{{"{name}":{tools}}}') == Usage(web_searches=2, tool_calls=3)


# The other things an answer says.


@pytest.mark.parametrize(
    "text",
    ["gen-1", "gen-", "msg_tmp_example00001", "gen-" + "a" * 101, "gen-12345678\n", "gen-../.."],
)
def test_an_id_of_another_shape_is_not_one(text: str) -> None:
    assert read([event({"id": text, "choices": []})]).generation_id is None


@pytest.mark.parametrize(
    ("texts", "id"),
    [
        (["chatcmpl-A.b:c_1", "chatcmpl-other"], "chatcmpl-A.b:c_1"),
        (["<script>", "chatcmpl-1"], None),
        (["a" * 129], None),
        ([1, "msg_1"], "msg_1"),
    ],
)
def test_the_first_id_of_any_plain_form_is_the_answers(texts: list[Any], id: str | None) -> None:
    reader = read([event({"id": text, "choices": []}) for text in texts])
    assert (reader.answer_id, reader.generation_id) == (id, None)


def test_of_raw_audio_nothing_is_known() -> None:
    reader = read([b'ID3\x04\x00{"usage":{}}', b"\xff\xfb"], dialects.SPEECH, is_event_stream=False)
    assert seen(reader) == (None, None, False, False)


# A small answer that comes whole is decoded, any other one is skimmed.

NAMES = ["usage", "error", "response", "id", "type", "code", "cost", "choices", "finish_reason"]
PLACES = [(), ("x_groq",), ("choices", None), ("response",), ("message",)]
WANTED = Wanted(
    [(*place, name) for place in PLACES for name in ("usage", "error", "id", "finish_reason")]
)
OBJECTS = st.recursive(
    st.sampled_from(["null", "1", "-0", "0.5", "1e400", "NaN", "true", '"x"', '"{\\"usage\\":1}"'])
    | st.text(max_size=5).map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(
            st.tuples(st.sampled_from([*NAMES, "x_groq", "message"]), inner), max_size=5
        ).map(
            lambda members: "{" + " ,".join(f'"{name}": {value}' for name, value in members) + "}"
        )
    ),
    max_leaves=30,
)


@examples(150, are_new=True)
@given(OBJECTS, st.sampled_from(["", "\n", "}", ",", "x"]))
def test_a_document_says_the_same_decoded_and_skimmed(text: str, behind: str) -> None:
    raw = (text + behind).encode()
    found = read_whole(raw, WANTED)
    skimmer = Skimmer(WANTED)
    skimmer.feed(raw)
    if found is not None:
        assert skimmer.is_whole
        assert repr(sorted(found.items(), key=repr)) == repr(
            sorted(skimmer.found.items(), key=repr)
        )


def test_every_name_may_be_written_in_escapes() -> None:
    for name in ("usage", "finish_reason"):
        escaped = "".join(f"\\u{ord(character):04x}" for character in name)
        raw, wanted = f'{{"{escaped}":{{"cost":1}}}}'.encode(), Wanted([(name,)])
        skimmer = Skimmer(wanted)
        skimmer.feed(raw)
        assert read_whole(raw, wanted) == skimmer.found == {(name,): {"cost": 1}}


# What it costs.


class Memory:
    """How much more is allocated than when it was made."""

    def __init__(self) -> None:
        tracemalloc.start()
        self.before = tracemalloc.get_traced_memory()[0]

    def grown_bytes(self) -> int:
        return tracemalloc.get_traced_memory()[0] - self.before


@pytest.fixture
def memory() -> Iterator[Memory]:
    yield Memory()
    tracemalloc.stop()


@pytest.mark.parametrize("filler", [b"x", b'"', b"\\", b"{", b'{"a":', b"data: {}\n", b": c\n"])
def test_a_stream_without_an_end_of_event_keeps_a_bounded_part(
    filler: bytes, memory: Memory
) -> None:
    reader = read([event({"choices": [{"delta": {"content": "x"}}]}), b"data: {"])
    piece = filler * (16_384 // len(filler))
    for _ in range(256):
        reader.watch(piece)
        assert memory.grown_bytes() < 4 * MAX_EVENT_BYTES
    reader.watch(b"\n\n" + chunk_of({"cost": 1}))
    assert reader.usage == Usage(cost=Decimal(1))


@pytest.mark.parametrize("size", [1_000, 16_384, 10_000_000])
def test_usage_in_the_last_event_counts_however_long_it_is(size: int) -> None:
    """``response.completed`` repeats the whole output, images included."""
    output = [{"type": "message", "content": '\\"x' * 100_000 + "x" * 300_000}]
    response = {"id": ID, "output": output, "usage": {"input_tokens": 5, "cost": 0.5}}
    data = event({"type": "response.completed", "response": response}) + DONE
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    reader = read([b": \n\n", *chunks], dialects.RESPONSES)
    assert seen(reader) == (Usage(5, cost=Decimal("0.5")), ID, True, False)


@pytest.mark.parametrize("is_first", [True, False])
def test_usage_in_a_body_of_10_mb_counts_and_little_is_kept(is_first: bool, memory: Memory) -> None:
    usage = b'"usage":{"prompt_tokens":5,"cost":0.5}'
    parts = [b'{"id":"' + ID.encode() + b'"']
    data = [b',"data":[{"b64_json":"', *([b"QUJD" * 4096] * 640), b'"}]']
    reader = UsageReader(dialects.IMAGES, is_event_stream=False)
    for part in [*parts, *([b",", usage, *data] if is_first else [*data, b",", usage]), b"}"]:
        reader.watch(part)
        assert memory.grown_bytes() < MAX_EVENT_BYTES
    assert seen(reader) == (Usage(5, cost=Decimal("0.5")), ID, True, False)


def test_usage_behind_a_great_many_small_values_counts() -> None:
    top = [{"token": 't"', "logprob": -0.1, "bytes": [1, 2, 3]}] * 20
    content = [{"token": "[{", "bytes": [1, 2], "top_logprobs": top}] * 2_000
    body = {"choices": [{"logprobs": {"content": content}}], "usage": {"cost": 0.5}}
    raw = json.dumps(body).encode()
    chunks = [raw[at : at + 65_536] for at in range(0, len(raw), 65_536)]
    assert read(chunks, is_event_stream=False).usage == Usage(cost=Decimal("0.5"))


ANSWERS = [
    (name, style, is_stream)
    for name, vendor in VENDORS.items()
    for style in vendor.paths
    for is_stream in ((False, True) if style in STREAMS else (False,))
]


@pytest.mark.parametrize(("name", "style", "is_stream"), ANSWERS)
@pytest.mark.parametrize("more", [{}, {"tools": [{"function": {"name": "f"}, "name": "f"}]}])
def test_what_the_fakes_bill_is_what_is_read(
    name: str, style: str, is_stream: bool, more: dict[str, Any]
) -> None:
    """Nine providers, their dialects: to the token, cached and hidden ones included."""
    vendor = VENDORS[name]
    asked = {"messages": [{"role": "user", "content": "x" * 9000}], **more}
    asked |= {"stream_options": {"include_usage": True}, "reasoning": {"effort": "low"}}
    model = next(m for m in vendor.models if (m.dialects is not None) == (style == "embeddings"))
    reply = Reply.to(asked, vendor, model, "id", tokens=40, cached=1024)
    if style == "embeddings":
        reply = embedded(reply)
    if is_stream:
        chunks = [piece for _, piece in STREAMS[style](reply, asked)]
    else:
        chunks = [json.dumps(BODIES[style](reply)).encode()]
    dialect = next(each for each in dialects.DIALECTS if each.name == style)
    usage = read(chunks, dialect, is_event_stream=is_stream).usage
    assert usage is not None
    told = (usage.input_tokens, usage.output_tokens or 0)
    assert told == (reply.used.prompt, reply.used.completion + reply.used.reasoning)
    if not (style == "embeddings" or (name == "anthropic" and style == "chat")):
        assert usage.cached_tokens == reply.used.cached


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=str)
def test_a_cost_is_taken_from_where_its_provider_says_it(provider: Provider) -> None:
    told = {"deepinfra": "0.0000032", "xai": "0.001623"}.get(provider.name)
    path = WIRE / f"provider-{provider.name}-stream.sse"
    if not path.exists():
        return  # OpenRouter's are above
    reader = UsageReader(style_of(path.name), True, None, provider.told_cost)
    reader.watch(path.read_bytes())
    assert reader.usage is not None
    assert reader.usage.cost == (None if told is None else Decimal(told))


@pytest.mark.parametrize(
    ("said", "cost"),
    [
        ('"cost": 0.5', None),
        ('"cost_in_usd_ticks": 10000000000', Decimal(1)),
        ('"cost_in_usd_ticks": -1', None),
        ('"cost_in_usd_ticks": "10000000000"', None),
        ('"cost_in_usd_ticks": 10000000000000001', None),  # more than a million
    ],
)
def test_a_cost_elsewhere_or_none_that_can_be_true_is_not_believed(
    said: str, cost: Decimal | None
) -> None:
    reader = UsageReader(dialects.CHAT, False, None, PROVIDERS["xai"].told_cost)
    reader.watch(f'{{"id": "x", "usage": {{"prompt_tokens": 1, {said}}}}}'.encode())
    assert reader.usage is not None
    assert reader.usage.cost == cost


def test_who_never_says_a_cost_is_not_believed_one() -> None:
    reader = UsageReader(dialects.CHAT, False, None, PROVIDERS["groq"].told_cost)
    reader.watch(b'{"usage": {"prompt_tokens": 1, "cost": 0.000001}}')
    assert reader.usage is not None
    assert reader.usage.cost is None


@pytest.mark.timeout(5)  # it took minutes while each piece had all of the event read anew
def test_an_event_in_pieces_is_read_once() -> None:
    usage = b'"usage":{"prompt_tokens":5,"cost":0.5}'
    deep = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
    event = b'data: {"choices":[],"x":"' + b"}" * 40_000 + b'",' + usage + b"}"
    for text in (event, b"data: " + deep):
        reader = read(text[start : start + 1] for start in range(len(text)))
    assert reader.usage is None
    assert read(event[start : start + 1] for start in range(len(event))).usage is not None
