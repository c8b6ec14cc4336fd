"""CPU time to admit a call with one client and with many, in one run, and what many clients take
in memory. The ratio should be near 1; 100,000 clients may take 40 MB.

    python benchmarks/admission.py [--clients 100000] [--calls 20000]

One window a minute and one a day, for the client and for its address, as `serve` has by default;
each client has an address of its own. Memory is what Python allocates (tracemalloc).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import tracemalloc

from keyproxy.call import Client
from keyproxy.limits.admit import Admission
from keyproxy.limits.counters import Counters
from keyproxy.settings import Rate

ROUNDS = 7
RATES = (Rate(100_000_000, 60), Rate(1_000_000_000, 86_400))


async def admit(admission: Admission, number: int) -> None:
    client = Client(f"client-{number}", f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::/64")
    async with admission.admit(client, {}):
        pass


async def known(clients: int) -> Admission:
    """Limits that have seen so many clients."""
    admission = Admission(Counters(), RATES, RATES, 8)
    for number in range(clients):
        await admit(admission, number)
    return admission


async def cost(admission: Admission, clients: int, calls: int) -> float:
    """Microseconds for each call."""
    before = time.process_time()
    for number in range(calls):
        await admit(admission, number % clients)
    return (time.process_time() - before) / calls * 1e6


async def megabytes(clients: int) -> float:
    """What the limits of so many clients take."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    admission = await known(clients)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(admission.counters.in_flight) == 0
    return (after - before) / 1e6


async def run(clients: int, calls: int) -> None:
    alone, among = await known(1), await known(clients)
    costs = [
        (await cost(alone, 1, calls), await cost(among, clients, calls)) for _ in range(ROUNDS)
    ]
    one, many = (statistics.median(each) for each in zip(*costs, strict=True))
    print(f"{1:>7} client   {one:6.1f} us CPU a call")
    print(f"{clients:>7} clients  {many:6.1f} us CPU a call   x{many / one:.2f}")
    print(f"{clients:>7} clients  {await megabytes(clients):6.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=20_000)
    asked = parser.parse_args()
    asyncio.run(run(asked.clients, asked.calls))
