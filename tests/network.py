"""A network of its own for a test: namespaces on one bridge, each with an address, as in a home.

A process runs in one by ``command``; a socket of ours that is made ``within`` one stays there, so
that servers and sessions of the test itself stand in any of them. Needs Linux, root and iproute2.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.sdk.outside import needed

_CLONE_NEWNET = 0x40000000
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Computer:
    """A namespace with loopback and ``address``."""

    name: str
    address: str

    @property
    def command(self) -> tuple[str, ...]:
        """What goes before a command that is to run here."""
        return ("ip", "netns", "exec", self.name)

    @contextmanager
    def within(self) -> Iterator[None]:
        """Sockets made in the block are of this computer. Nothing may be awaited in it."""
        with open("/proc/thread-self/ns/net") as own, open(f"/run/netns/{self.name}") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())

    def listening(self, host: str, port: int = 0) -> socket.socket:
        with self.within():
            return socket.create_server((host, port))

    def session(self, **options: Any) -> aiohttp.ClientSession:
        """A client that calls from here."""

        def made(info: Any) -> socket.socket:
            with self.within():
                return socket.socket(*info[:3])

        connector = aiohttp.TCPConnector(socket_factory=made)
        return aiohttp.ClientSession(connector=connector, **options)


def _enter(descriptor: int) -> None:
    """Of this thread alone. ``os.setns`` is there from Python 3.12 on."""
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def network(*addresses: str) -> Iterator[list[Computer]]:
    """One computer for each address, all of which reach each other and nobody else."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs Linux, and root, to make network namespaces")
    needed("ip")
    prefix = f"keyproxy-{os.getpid()}-{next(_NUMBERS)}"
    with ExitStack() as stack:
        switch = stack.enter_context(_namespace(f"{prefix}-switch"))
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        computers = []
        for number, address in enumerate(addresses):
            name = stack.enter_context(_namespace(f"{prefix}-{number}"))
            end = ("peer", "name", "lan", "netns", name)
            _ip("-n", switch, "link", "add", f"port{number}", "type", "veth", *end)
            _ip("-n", switch, "link", "set", f"port{number}", "master", "bridge", "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "lan")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "lan", "up")
            computers.append(Computer(name, address))
        yield computers


@contextmanager
def _namespace(name: str) -> Iterator[str]:
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    try:
        yield name
    finally:
        _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
