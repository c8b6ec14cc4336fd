"""The fakes, running: each on a port of loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from operator import attrgetter

from tests.fakes.books import Seen
from tests.fakes.fake import Fake
from tests.fakes.vendors import VENDORS
from tests.loopback import listening

_number = attrgetter("number")


class Fakes(dict[str, Fake]):
    """The running ones by name, in the order in which they were asked for."""

    @property
    def seen(self) -> list[Seen]:
        """As it came, at whichever of them."""
        return sorted((seen for fake in self.values() for seen in fake.seen), key=_number)

    @property
    def calls(self) -> list[Seen]:
        """The same of calls."""
        return sorted((seen for fake in self.values() for seen in fake.calls), key=_number)

    def strays(self) -> list[str]:
        """Keys that were shown to another than their owner."""
        keys = {fake.key: name for name, fake in self.items()}
        return [
            f"the key of {keys[key]} reached {seen.vendor}"
            for seen in self.seen
            for key in seen.keys
            if keys.get(key, seen.vendor) != seen.vendor
        ]


@asynccontextmanager
async def serving(*names: str, absent: tuple[str, ...] = ()) -> AsyncIterator[Fakes]:
    """The fakes of these names, all without any; nobody listens at the ``absent`` ones."""
    fakes = Fakes({name: Fake(VENDORS[name]) for name in names or VENDORS})
    async with AsyncExitStack() as stack:
        for name, fake in fakes.items():
            if name in absent:
                async with listening(fake.handle) as port:
                    fake.origin = f"http://127.0.0.1:{port}"
                continue
            port = await stack.enter_async_context(listening(fake.handle, backlog=1000))
            fake.origin = f"http://127.0.0.1:{port}"
        yield fakes
