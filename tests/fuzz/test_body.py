"""A short run of the body fuzz target, the same each time, and a look at its judge."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings

from keyproxy.policy import fields
from keyproxy.strict_json import body
from tests.fuzz.body import BODIES, SEEDS, examine, made
from tests.fuzz.readers import plain, read


@pytest.mark.parametrize("seed", SEEDS)
def test_no_seed_is_a_finding(seed: bytes) -> None:
    examine(seed)


@settings(
    max_examples=600,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(BODIES)
def test_no_reader_sees_a_model_that_was_not_checked(raw: bytes) -> None:
    examine(raw)


def test_no_reader_sees_it_in_objects_made_of_telling_names() -> None:
    made_up = random.Random(1)
    for _ in range(1_500):
        examine(made(b"\xff" + made_up.randbytes(made_up.randrange(24))))


def test_the_judge_reads_as_json_does() -> None:
    text = ' {"a":[1,-0.5e1,{}, []],"\\u00e9\\ud83d\\ude42\\/\\n":"x\\"","b":[true,false,null]}\n'
    assert plain(read(text)) == json.loads(text)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"bad/x","model":"good/a"}',
        b'{"model":"good/a","model":"bad/x"}',
        b'{"model":"good/a","a":{"b":1,"b":2}}',
    ],
)
def test_the_judge_finds_what_a_lenient_reader_lets_through(
    monkeypatch: pytest.MonkeyPatch, raw: bytes
) -> None:
    monkeypatch.setattr(body, "_DECODER", json.JSONDecoder())
    with pytest.raises(AssertionError):
        examine(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"good/a","Model":"bad/x"}',
        b'{"model":"good/a","mod\\u017fel":"x","\xef\xbd\x8dodel":"bad/x"}',
        b'{"model":"good/a","models\\u0000":["bad/x"]}',
        b'{"model":"good/a","preset":"x"}',
    ],
)
def test_the_judge_finds_what_an_open_table_lets_through(
    monkeypatch: pytest.MonkeyPatch, raw: bytes
) -> None:
    monkeypatch.setattr(fields, "check", lambda *anything: None)
    with pytest.raises(AssertionError):
        examine(raw)
