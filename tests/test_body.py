"""Bodies: strict JSON and nothing else, read once, sent as they came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy.errors import Refusal
from keyproxy.strict_json import body
from tests.conftest import BODY, CHAT, Proxy, Start, refused
from tests.examples import examples
from tests.raw import only_answer, refused_raw, request

MESSAGES = "/api/v1/messages"


def code_of(raw: bytes) -> str | None:
    try:
        body.read(raw)[0]
    except Refusal as refusal:
        return refusal.code
    return None


@pytest.mark.parametrize(
    "raw",
    [
        # duplicate keys, at every depth and in every spelling
        b'{"a":1,"a":1}',
        b'{"model":"good","model":"bad"}',
        b'{"model":"good","messages":[],"model":"good"}',
        b'{"model":"good","mod\\u0065l":"bad"}',
        b'{"model":"good","\\u006d\\u006f\\u0064\\u0065\\u006c":"bad"}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":[[{"b":{"c":1,"c":1}}]]}',
        b"{" + b",".join([b'"model":"x"'] * 1000) + b"}",
        # numbers
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":-1e999}',
        b'{"a":' + b"1" * 65 + b"}",
        b'{"a":' + b"1" * 5000 + b"}",
        b'{"a":-' + b"9" * 5000 + b"}",
        b'{"a":0.' + b"1" * 5000 + b"}",
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":0x10}',
        b'{"a":1_000}',
        '{"a":\u0661}'.encode(),
        # more or less than one document
        b"",
        b" ",
        b"{}{}",
        b"{} {}",
        b'{"a":1}\n{"a":2}',
        b"{},",
        b"{}x",
        b"{}\x00",
        b")]}',\n{}",
        b"/**/{}",
        b'{"a":1/*,"b":2*/}',
        b"{}//",
        b"{",
        b'{"a":1,}',
        b'{"a":[1,]}',
        b"{'a':1}",
        b"{a:1}",
        # something other than an object
        b"[]",
        b'[{"model":"x"}]',
        b"null",
        b"1",
        b'"{}"',
        b"true",
        # encodings
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-16-le"),
        "{}".encode("utf-16-be"),
        "{}".encode("utf-32"),
        b'{"a":"\xff"}',
        b'{"a\xff":1}',
        b'{"a":"\xc0\xae"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xf4\x90\x80\x80"}',
        b'{"a":"\xe2\x82"}',
        b"+AHs-+AH0-",
        # surrogates that stand alone
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00"}',
        b'{"a":"\\ud800\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":"\\uD83D x"}',
        b'{"\\ud800":1}',
        b'{"a":[{"b":"\\udfff"}]}',
        # strings
        b'{"a":"\n"}',
        b'{"a":"\x00"}',
        b'{"a":"\t"}',
        b'{"a":"\\x41"}',
        b'{"a":"\\u12"}',
        b'{"a":"\\"}',
        b'{"a\x00":1}',
        # other white space
        b"\x0c{}",
        b"\x0b{}",
        "\u00a0{}".encode(),
        "\u2028{}".encode(),
        # nesting and counts
        b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"a":"",' + b'"b":[' * 70,
        b'{"a":[' + b"1," * 250_001 + b"1]}",
        b'{"a":"' + b"," * 250_001 + b'"}',
        b"[]" * 500_001,
    ],
)
def test_what_readers_may_disagree_about_is_refused(raw: bytes) -> None:
    assert code_of(raw) == "invalid_json"


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b" \t\r\n{}\r\n",
        b'{"a":{"b":1},"b":{"b":1}}',
        b'{"a":[{"b":1},{"b":1}]}',
        b'{"a":1.50e0,"b":-0,"c":1E5,"d":0.1}',
        b'{"a":' + b"9" * 64 + b"}",
        '{"a":"Gr\u00fc\u00dfe \U0001f642"}'.encode(),
        b'{"a":"\\ud83d\\ude42 \\u00e9 \\u0000 \\/"}',
        b'{"a":"\\\\ud800"}',
        b'{"a":' + b"[" * 63 + b"]" * 63 + b"}",
        b'{"a":"' + b"[{" * 5000 + b'"}',
        b'{"a":"' + b'\\"[' * 5000 + b'"}',
        b'{"a":"\\\\","b":"' + b"[" * 100 + b'"}',
        b'{"a":[' + b"{}," * 200 + b"{}]}",
        b'{"a":[' + b"1," * 249_999 + b"1]}",
        b'{"a":"' + b"x" * 2_000_000 + b'"}',
    ],
)
def test_honest_json_is_read(raw: bytes) -> None:
    assert body.read(raw)[0] == json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"{" * 65 + b'"' + b'\\"' * 400_000,
        b"{}" * 65 + b'"a"' * 300_000,
        b"{}" * 65 + b"\\" * 900_000,
        b"{}" * 65 + b" " * 900_000,
        b'{"a":"' + b'\\"{' * 300_000,
        b'{"a":1e' + b"1" * 900_000 + b"}",
        b'{"a":' + b"1" * 900_000 + b"}",
    ],
)
@pytest.mark.timeout(5)
def test_a_body_made_to_be_slow_is_refused_in_one_pass(raw: bytes) -> None:
    """Quadratic readers would need hours for these."""
    assert code_of(raw) == "invalid_json"


@pytest.mark.parametrize("beside", [0, 1, 60, 330, 340, 3_000])
@pytest.mark.parametrize("mark", [(b'{"a":', b"}"), (b"[", b"]")])
def test_as_deep_as_may_be_is_read_and_one_more_is_not(
    beside: int, mark: tuple[bytes, bytes]
) -> None:
    flat = b'{"flat":[' + b"{}," * beside + b'{}],"deep":'
    for depth in (64, 65, 399, 400, 401, 5_000):
        raw = flat + mark[0] * (depth - 1) + b"1" + mark[1] * (depth - 1) + b"}"
        if depth == 64:
            assert body.read(raw)[0] == json.loads(raw)
        else:
            with pytest.raises(Refusal, match="nested too deeply"):
                body.read(raw)[0]


@pytest.mark.parametrize("raw", [b"[]" * 500_001, b'{"a":[' + b"1," * 250_001 + b"1]}"])
def test_absurd_counts_are_refused_before_parsing(raw: bytes) -> None:
    with pytest.raises(Refusal, match="too many elements"):
        body.read(raw)[0]


@pytest.mark.parametrize(
    ("raw", "is_large"),
    [
        (b"{}", False),
        (b"x" * (body.THREAD_BYTES - 1), False),
        (b"x" * body.THREAD_BYTES, True),
        (b"," * 5001, True),
        (b"[]" * 5001, True),
        (b'"' * 20_001, True),
    ],
)
def test_what_takes_long_to_read_is_read_in_a_thread(raw: bytes, is_large: bool) -> None:
    assert body.is_large(raw) is is_large


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5), st.booleans())
@examples(75)
def test_every_object_that_json_can_write_is_read_the_same(value: Any, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert body.read(raw)[0] == value


@given(
    st.binary(max_size=60)
    | st.text(alphabet='{}[]",:\\ud8019eE.-+tfn \n', max_size=60).map(str.encode)
)
@examples(250)
def test_any_bytes_are_read_or_refused_and_never_fail(raw: bytes) -> None:
    if code_of(raw) is None:
        again = json.dumps(body.read(raw)[0], ensure_ascii=False).encode()
        assert body.read(again)[0] == body.read(raw)[0]


TYPES = [
    None, "", "text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x", "application/jsonp", "application/json2",
    "application/ json", "application/json;", "application/json;charset=cp037",
    "application/json; charset=utf-7", "application/json; charset=utf-16",
    "application/json; charset=shift_jis", "application/json; charset=unicode_escape",
    "application/json; charset=utf-8; charset=utf-7", "application/json; boundary=x",
    "application/json, text/plain", "text/plain, application/json", "application/json+x",
    "application/vnd.api+json", "text/json", "json", "*/*", "application/json; charset=",
]  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
async def test_a_body_must_say_that_it_is_plain_json(proxy: Proxy, kind: str | None) -> None:
    field = "X: none" if kind is None else f"Content-Type: {kind}"
    data = request("POST", CHAT, field)
    if kind is None:
        data = data.replace(b"Content-Type: application/json\r\n", b"")
    await refused_raw(proxy, data, 415, "unsupported_media_type")


@pytest.mark.parametrize("second", ["application/json", "text/plain"])
async def test_two_content_types_are_a_head_fault(proxy: Proxy, second: str) -> None:
    fields = ("Content-Type: application/json", f"Content-Type: {second}")
    answer = await refused_raw(proxy, request("POST", CHAT, *fields), 400, "bad_request")
    assert "Content-Type, is there twice" in answer["error"]["message"]


@pytest.mark.parametrize("second", ["application/json", "application/json; charset=utf-8", ""])
async def test_a_content_type_that_a_page_sets_twice_is_said_to_be_there_twice(
    proxy: Proxy, second: str
) -> None:
    field = f"Content-Type: application/json, {second}"
    answer = await refused_raw(proxy, request("POST", CHAT, field), 415, "unsupported_media_type")
    assert "Content-Type is there twice; send it once" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "has no body"),
        (b" \n", "has no body"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"{", "not valid JSON"),
        (b'{"model": "x",\n "n": 1,}', "is not valid JSON: see line 2, column "),
        (b'{"x": ' + b'"' + b"y" * 140_000 + b'", }', "is not valid JSON."),
        (b"[]", "one JSON object"),
        (b"\xff", "not UTF-8"),
    ],
)
async def test_a_body_that_is_no_json_object_gets_the_reason(
    proxy: Proxy, raw: bytes, text: str
) -> None:
    async with proxy.post(raw) as answer:
        error = await refused(answer, 400, "invalid_json")
    assert text in error["message"]
    assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json ; charset="utf-8" ',
    ],
)
async def test_plain_json_is_taken_however_it_is_spelled(proxy: Proxy, kind: str) -> None:
    data = request("POST", CHAT, f"Content-Type: {kind}", "Connection: close")
    assert (await only_answer(proxy, data)).status == 200
    assert proxy.upstream.calls[0].headers.getall("Content-Type") == ["application/json"]


@pytest.mark.parametrize(
    "coding",
    [
        "gzip",
        "GZIP",
        "x-gzip",
        "deflate",
        "br",
        "zstd",
        "identity, gzip",
        "gzip, identity",
        "x",
        "aws-chunked",
    ],
)
async def test_a_coded_body_is_refused_unread(proxy: Proxy, coding: str) -> None:
    data = request("POST", CHAT, f"Content-Encoding: {coding}")
    await refused_raw(proxy, data, 415, "unsupported_media_type")


async def test_a_second_coding_line_counts_too(proxy: Proxy) -> None:
    fields = ("Content-Encoding: identity", "Content-Encoding: gzip")
    await refused_raw(proxy, request("POST", CHAT, *fields), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"openai/gpt-4o-mini","model":"openai/o1-pro"}',
        b'{"model":"openai/gpt-4o-mini","messages":[{"role":"user","role":"system"}]}',
        b"\xef\xbb\xbf" + json.dumps(BODY).encode(),
        json.dumps(BODY).encode("utf-16"),
        json.dumps([BODY]).encode(),
        json.dumps(json.dumps(BODY)).encode(),
        json.dumps(BODY).encode() * 2,
        json.dumps(BODY).encode() + b"\x00",
        b'{"model":"openai/gpt-4o-mini","temperature":NaN}',
        b'{"model":"openai/gpt-4o-mini","seed":' + b"1" * 5000 + b"}",
        b'{"model":"openai/gpt-4o-mini","user":"\\ud800"}',
        b'{"model":"openai/gpt-4o-mini","messages":' + b"[" * 100_000 + b"}",
        b"",
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/api/v1/responses"])
async def test_ambiguous_json_never_reaches_the_upstream(
    proxy: Proxy, raw: bytes, path: str
) -> None:
    async with proxy.post(raw, path) as answer:
        await refused(answer, 400, "invalid_json")
    assert proxy.upstream.calls == []


async def test_messages_are_refused_in_anthropics_shape(proxy: Proxy) -> None:
    async with proxy.post(b"{", MESSAGES) as answer:
        shape = await answer.json()
    assert (answer.status, shape["type"]) == (400, "error")
    assert shape["error"]["type"] == "invalid_request_error"
    assert shape["error"]["error_type"] == "invalid_json"
    assert shape["request_id"] == answer.headers["X-Request-Id"]
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("padding", [0, 1 << 20])
async def test_the_bytes_that_were_checked_are_sent(proxy: Proxy, padding: int) -> None:
    raw = (
        b'{ "messages" :[{"role":"user","content":"\\u00e9 \xc3\xa9"}],\r\n\t"temperature":1.50e0,'
        b'"model":"openai\\/gpt-4o-mini","user":"' + b"x" * padding + b'"} \n'
    )
    answer = await only_answer(proxy, request("POST", CHAT, "Connection: close", body=raw))
    assert answer.status == 200
    [seen] = proxy.upstream.calls
    assert seen.body == raw
    assert seen.headers.getall("Content-Length") == [str(len(raw))]


NASTY: list[Any] = [
    b"", b"null", b"[]", b"{", b'"', b"\xff", b"\xef\xbb\xbf{}", b"[" * 100_000, b"{\"a\":" * 5000,
    b'{"model":"\\ud800"}', b'{"model":1e999}', b'{"model":' + b"9" * 6000 + b"}", b"{}{}",
    {"model": ["openai/x"]}, {"model": {}}, {"model": True}, {"models": "openai/x"},
    {"models": []}, {"models": [[]]}, {"models": [None]}, {"model": "\x00"}, {"model": "😀" * 300},
    BODY | {"tools": "x"}, BODY | {"tools": [[]]}, BODY | {"tools": [{"type": {}}]},
    BODY | {"tools": [{"type": []}]}, BODY | {"tools": {}}, BODY | {"n": "1"}, BODY | {"n": []},
    BODY | {"n": {}}, BODY | {"modalities": {}}, BODY | {"modalities": [[]]}, BODY | {"store": {}},
    BODY | {"stream": "yes"}, BODY | {"stream": 1}, BODY | {"cache_control": []},
    BODY | {"cache_control": {"ttl": {}}}, BODY | {"service_tier": []}, BODY | {"": ""},
    BODY | {"\x1b[2J": 1}, BODY | {"😀" * 100: 1}, {"model": "openai/x", "input": [[{}]]},
    {"model": "openai/x", "input": 5}, {"model": "openai/x", "input": [{"type": []}]},
]  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, "/api/v1/responses", MESSAGES])
async def test_no_body_makes_a_call_fail_here(start: Start, path: str) -> None:
    proxy = await start(RATE_LIMIT="off")
    for nasty in NASTY:
        async with proxy.post(nasty, path) as answer:
            assert answer.status < 500, (nasty, await answer.text())
            assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("part", [b"[]", b"{}", b'{"a":1}'])
def test_more_containers_than_any_call_has_are_refused_unparsed(part: bytes) -> None:
    many = b",".join([part] * 50_001)
    with pytest.raises(Refusal, match="objects and lists"):
        body.read(b'{"model":"a/b","x":[' + many + b"]}")[0]


def test_brackets_in_a_text_are_no_containers() -> None:
    text = json.dumps({"model": "a/b", "x": "[{" * 60_000}).encode()
    assert body.read(text)[0]["model"] == "a/b"
