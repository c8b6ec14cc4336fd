"""What each provider is sent is what somebody has looked at, to the byte; and it takes it."""

from __future__ import annotations

import json

import pytest

from keyproxy.routing.edits import Unfit, edits_for
from keyproxy.upstream.providers import PROVIDERS
from tests.fakes import strict
from tests.fakes.vendors import VENDORS
from tests.golden import pages
from tests.golden.pages import CLIENTS, NATIVE, PROVIDER_PAGES, blocks, dialect_of
from tests.test_corpus import LINES
from tests.test_said import said

CASES = [(page, case) for page in PROVIDER_PAGES for case in blocks(page)]


@pytest.mark.parametrize("page", PROVIDER_PAGES)
def test_a_page_has_every_call_in_the_dialects_of_its_provider(page: str) -> None:
    spoken = [case for case in CLIENTS if dialect_of(case).name in PROVIDERS[page].takes]
    assert list(blocks(page)) == spoken
    assert PROVIDERS[page].takes.keys() >= VENDORS[page].paths.keys()


@pytest.mark.parametrize(("page", "case"), CASES)
def test_what_is_sent_is_what_was_looked_at(page: str, case: str) -> None:
    assert pages.sent(case, PROVIDERS[page]) == blocks(page)[case]


@pytest.mark.parametrize(("page", "case"), CASES)
def test_what_is_sent_is_taken_there(page: str, case: str) -> None:
    """By the strict fake; and what is called unfit would be refused by it, or not be meant."""
    vendor, dialect = VENDORS[page], dialect_of(case).name
    *_, text = blocks(page)[case].split("\n")
    if text.startswith("! "):
        return
    body = json.loads(text)
    assert body["model"] in (NATIVE, "maker/model-1")
    model = vendor.models[0]._replace(reads_images=True, refuses=frozenset())
    assert strict.complaint(body, vendor.strict[dialect], model) is None


SPOKEN = [(page, name) for page in PROVIDER_PAGES for name in VENDORS[page].paths]


@pytest.mark.parametrize(("page", "style"), SPOKEN)
def test_what_real_clients_send_is_taken_where_it_fits(page: str, style: str) -> None:
    """Bodies of the corpus: edited, they are taken by the strict fake, or their field is named."""
    provider, vendor = PROVIDERS[page], VENDORS[page]
    dialect, takes = dialect_of(style), provider.takes[style]
    model = vendor.models[0]._replace(reads_images=True, refuses=frozenset())
    fits = 0
    for line in LINES:
        if line.style != style or line.refused:
            continue
        call = said(line.raw, dialect)
        if call.is_sealed or call.server_tools or not call.inputs <= takes.inputs:
            continue
        try:
            sent = edits_for(call, dialect, takes, NATIVE).body(call)
        except Unfit:
            continue
        fits += 1
        found = strict.complaint(json.loads(sent), vendor.strict[style], model)
        assert found is None, (line.name, found)
    assert fits
