"""From a connection and its forwarding headers to an address: tables of cases."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from structlog.testing import capture_logs

from keyproxy.clients.addresses import Addresses, Caller, parse_address, refuse_public, shown
from keyproxy.errors import Refusal
from tests.conftest import Proxy, Start, refused


def head(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


def client(
    peer: str, *pairs: tuple[str, str], trusted: tuple[str, ...] = (), **options: Any
) -> str:
    addresses = Addresses([ip_network(n) for n in trusted], **options)
    return device(addresses.of(peer, head(*pairs)))


def device(caller: Caller | None) -> str:
    return "unknown" if caller is None else caller.device


def peer(text: str) -> Caller | None:
    return Addresses([]).of(text, head())


XFF = "X-Forwarded-For"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2.3.4", "1.2.3.4"),
        (" 1.2.3.4:99 ", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[2001:db8::1]:443", "2001:db8::/64"),
        ("2001:DB8:0:0:ffff::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("1.2.3", "unknown"),
        ("01.2.3.4", "unknown"),
        ("evil", "unknown"),
        ("", "unknown"),
        ("1.2.3.4\0", "unknown"),
        ("1.2.3.\u0664", "unknown"),
        ("1.2.3.4 5", "unknown"),
        ("0x1.2.3.4", "unknown"),
        ("1.2.3.4.5", "unknown"),
        ("1.2.3.256", "unknown"),
        ("2001:db8::1::2", "unknown"),
        ("2001:db8:1:2:3:4:5", "unknown"),
        ("2001:0db8:00:0000:ffff::1", "2001:db8::/64"),
        ("::1.2.3.4", "::/64"),
        ("1:0:0:2:3:0:0:4", "1:0:0:2::/64"),
    ],
)
def test_spellings_of_one_address_share_a_bucket(text: str, expected: str) -> None:
    assert client("10.0.0.1", (XFF, text), trusted=("10.0.0.0/8",)) == (
        "10.0.0.1" if expected == "unknown" else expected
    )
    assert (parse_address(text) is None) == (expected == "unknown")


@given(st.ip_addresses(v=6))
def test_networks_are_written_in_one_way(ip: IPv6Address) -> None:
    device, site, logged = (str(IPv6Network((ip, prefix), strict=False)) for prefix in (64, 56, 48))
    if ip.ipv4_mapped is None:
        assert peer(f"[{ip.exploded}]:443") == (ip, device, site)
        assert shown(device, "prefix") == logged


def test_one_household_shares_an_address_limit() -> None:
    """Its /56 holds 256 clients of a /64 each."""
    one, two, other = map(peer, ("2001:db8:0:aa01::1", "2001:db8:0:aaff::1", "2001:db8:0:bb01::1"))
    assert one
    assert two
    assert other
    assert one.device != two.device
    assert one.site == two.site == "2001:db8:0:aa00::/56"
    assert other.site != one.site


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        ("9.9.9.9", ["1.1.1.1"], [], "9.9.9.9"),
        ("10.0.0.1", ["1.1.1.1"], ["10.0.0.0/8"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1"], ["10.0.0.0/8"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6", "1.1.1.1, 10.0.0.2"], ["10.0.0.0/8"], "1.1.1.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], ["10.0.0.0/8"], "10.0.0.3"),
        ("10.0.0.1", ["1.1.1.1, garbage"], ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", [], ["10.0.0.0/8"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["1.1.1.1"], ["10.0.0.0/8"], "1.1.1.1"),
        ("10.0.0.1", ["1.1.1.1:5050"], ["10.0.0.0/8"], "1.1.1.1"),
        ("10.0.0.1", ["  1.1.1.1 \t,\t 10.0.0.2 "], ["10.0.0.0/8"], "1.1.1.1"),
        ("10.0.0.1", ['"[2001:db8::1]:80"'], ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db8::1]:80, 10.0.0.2"], ["10.0.0.0/8"], "2001:db8::/64"),
    ],
)
def test_the_right_most_untrusted_hop_is_the_client(
    peer: str, forwarded: list[str], trusted: list[str], expected: str
) -> None:
    pairs = [(XFF, line) for line in forwarded]
    assert client(peer, *pairs, trusted=tuple(trusted)) == expected


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["1.1.1.1, "], "10.0.0.1"),
        (["1.1.1.1,"], "10.0.0.1"),
        (["1.1.1.1,,"], "10.0.0.1"),
        (["1.1.1.1 , ,10.0.0.3"], "10.0.0.3"),
        (["1.1.1.1", ""], "10.0.0.1"),
        (["1.1.1.1", "10.0.0.2", " "], "10.0.0.1"),
        (["1.1.1.1,", "10.0.0.2"], "10.0.0.2"),
        (["1.1.1.1, unknown"], "10.0.0.1"),
        (["1.1.1.1, unknown, 10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["1.1.1.1, _hidden, 10.0.0.2:80"], "10.0.0.2"),
        (["1.1.1.1, for=10.0.0.3, 10.0.0.2"], "10.0.0.2"),
        (["1.1.1.1, 10.0.0.256"], "10.0.0.1"),
        (["1.1.1.1 10.0.0.2"], "10.0.0.1"),
        (["1.1.1.1; 10.0.0.2"], "10.0.0.1"),
        (["unknown"], "10.0.0.1"),
    ],
)
def test_an_empty_or_unreadable_hop_ends_the_reading_with_one_warning(
    forwarded: list[str], expected: str
) -> None:
    """What stands left of it is anybody's: who wrote it may have passed on the caller's own."""
    addresses = Addresses([ip_network("10.0.0.0/8")])
    with capture_logs() as logs:
        for _ in range(3):
            found = addresses.of("10.0.0.1", head(*((XFF, line) for line in forwarded)))
            assert device(found) == expected
    assert [log["counted_as"] for log in logs] == [expected]


@pytest.mark.parametrize("forwarded", [[], [""], [" ", "\t"], [","], ["2.2.2.2, 10.0.0.2"]])
def test_a_chain_that_names_nobody_or_can_be_read_is_not_warned_of(forwarded: list[str]) -> None:
    addresses = Addresses([ip_network("10.0.0.0/8")])
    with capture_logs() as logs:
        addresses.of("10.0.0.1", head(*((XFF, line) for line in forwarded)))
    assert logs == []


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("1.1.1.1", "9.9.9.9"),
        ("6.6.6.6, 1.1.1.1, 2.2.2.2", "1.1.1.1"),
        ("x, 2.2.2.2", "9.9.9.9"),
        ("6.6.6.6, 1.1.1.1, ", "9.9.9.9"),
        ("6.6.6.6, , 2.2.2.2", "9.9.9.9"),
        (", 1.1.1.1, 2.2.2.2", "1.1.1.1"),
        ("", "9.9.9.9"),
    ],
)
def test_hops_are_counted_from_the_right(forwarded: str, expected: str) -> None:
    assert client("9.9.9.9", (XFF, forwarded), hops=2) == expected


@pytest.mark.parametrize(
    ("peer", "pairs", "expected"),
    [
        ("10.0.0.1", [("CF-Connecting-IP", "1.1.1.1")], "1.1.1.1"),
        ("9.9.9.9", [("CF-Connecting-IP", "1.1.1.1")], "9.9.9.9"),
        (
            "10.0.0.1",
            [("CF-Connecting-IP", "1.1.1.1"), ("CF-Connecting-IP", "2.2.2.2")],
            "10.0.0.1",
        ),
        ("10.0.0.1", [(XFF, "1.1.1.1")], "10.0.0.1"),
        ("10.0.0.1", [("CF-Connecting-IP", "")], "10.0.0.1"),
        ("10.0.0.1", [("CF-Connecting-IP", "unknown")], "10.0.0.1"),
        ("10.0.0.1", [("CF-Connecting-IP", "1.1.1.1,")], "10.0.0.1"),
        ("10.0.0.1", [("CF-Connecting-IP", "1.1.1.1, 2.2.2.2")], "10.0.0.1"),
    ],
)
def test_a_named_address_header_counts_from_trusted_peers_only(
    peer: str, pairs: list[tuple[str, str]], expected: str
) -> None:
    found = client(peer, *pairs, trusted=("10.0.0.0/8",), address_header="CF-Connecting-IP")
    assert found == expected


@pytest.mark.parametrize(
    ("detail", "expected"), [("full", "1.2.3.4"), ("prefix", "1.2.3.0/24"), ("off", None)]
)
def test_the_log_shows_as_much_of_an_address_as_was_asked(
    detail: str, expected: str | None
) -> None:
    assert shown("1.2.3.4", detail) == expected
    assert shown("2001:db8:1:2::/64", "prefix") == "2001:db8:1::/48"
    assert shown("::ffff:1.2.3.4", "prefix") == "1.2.3.0/24"


@pytest.mark.parametrize(
    ("name", "value", "is_refused"),
    [
        (XFF, "8.8.8.8", True),
        (XFF, "192.168.1.7, 8.8.8.8", True),
        ("Forwarded", 'for="[2600::1]:80";proto=https', True),
        ("X-Real-IP", "8.8.8.8", True),
        ("CF-Connecting-IP", "8.8.8.8", True),
        ("Forwarded", "by=8.8.8.8", True),
        (XFF, "127.0.0.1, ", True),
        (XFF, "8.8.8.8, ", True),
        (XFF, ", 127.0.0.1", True),
        (XFF, "unknown", True),
        (XFF, "127.0.0.1, _hidden", True),
        ("Forwarded", "for=unknown", True),
        ("Forwarded", 'for="_hidden";proto=http', True),
        ("Forwarded", "for=127.0.0.1, ", True),
        ("X-Real-IP", "unknown", True),
        (XFF, "", False),
        ("Forwarded", "proto=http;host=localhost", False),
        ("Forwarded", 'For="[::1]:80";host="localhost:80"', False),
        (XFF, "::1, ::ffff:127.0.0.1", False),
        (XFF, "127.0.0.1", False),
        (XFF, "192.168.1.7", False),
    ],
)
def test_dev_refuses_calls_forwarded_from_the_internet(
    name: str, value: str, is_refused: bool
) -> None:
    if not is_refused:
        refuse_public(head((name, value)))
        return
    with pytest.raises(Refusal) as caught:
        refuse_public(head((name, value)))
    assert caught.value.status == 403


async def test_a_forwarded_call_never_gets_through_dev(proxy: Proxy) -> None:
    async with proxy.post(headers={XFF: "8.8.8.8"}) as answer:
        await refused(answer, 403, "origin_not_allowed")
    assert proxy.upstream.calls == []


async def test_a_chain_that_cannot_be_read_never_gets_through_dev(proxy: Proxy) -> None:
    async with proxy.post(headers={XFF: "127.0.0.1, "}) as answer:
        await refused(answer, 403, "origin_not_allowed")
    assert proxy.upstream.calls == []


async def test_a_caller_that_ends_its_header_with_a_comma_gets_no_address_of_its_choice(
    start: Start,
) -> None:
    """A proxy that appends nothing, or an empty name, leaves what its caller wrote."""
    proxy = await start("serve", TRUSTED_PROXIES="loopback", RATE_LIMIT="1/minute")
    found = []
    for number in range(3):
        async with proxy.post(headers={XFF: f"198.51.100.{number}, "}) as answer:
            found.append(answer.status)
    assert found == [200, 429, 429]
    assert len(proxy.upstream.calls) == 1


async def test_an_untrusted_forwarding_header_is_warned_of_once(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = await start("serve")
    for _ in range(2):
        async with proxy.post(headers={XFF: "8.8.8.8"}) as answer:
            assert answer.status == 200
    assert capsys.readouterr().out.count("KEYPROXY_TRUSTED_PROXIES") == 1
