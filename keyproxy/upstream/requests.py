"""One request to the upstream, as far as the head of its answer, and how it can fail.

The foreign exceptions of the HTTP client become our refusals here. It knows neither calls nor keys.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping

import aiohttp
from yarl import URL

from keyproxy.errors import Refusal
from keyproxy.transport.client import on_connection
from keyproxy.upstream.provider import Provider

_PIECEWISE_BYTES = 256 * 1024


class Requests:
    """Requests below one base address. ``first_byte_seconds``: from the connection to the head."""

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, first_byte_seconds: float
    ) -> None:
        self._session = session
        self.base_url = base_url
        self._first_byte_seconds = first_byte_seconds

    async def answer(
        self,
        method: str,
        path: str,
        head: Mapping[str, str],
        body: bytes,
        sent: asyncio.Event | None = None,
    ) -> aiohttp.ClientResponse:
        """An answer whose head has come; ``sent`` is set once there is a connection.

        Raises ``upstream_unreachable``, ``upstream_timeout``, ``upstream_invalid``.
        """
        url = URL(self.base_url + path, encoded=True)
        # aiohttp writes bytes in one go, however many, and warns; a file goes piece by piece.
        data = io.BytesIO(body) if len(body) > _PIECEWISE_BYTES else body or None
        now = asyncio.get_running_loop().time
        first_byte = asyncio.timeout(None)  # connecting has a limit of its own

        def connected() -> None:
            first_byte.reschedule(now() + self._first_byte_seconds)
            if sent is not None:
                sent.set()

        telling = on_connection.set(connected)
        try:
            async with first_byte:
                return await self._session.request(
                    method, url, headers=head, data=data, allow_redirects=False
                )
        except TimeoutError as error:
            text = "The upstream did not answer in time."
            is_free = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise Refusal("upstream_timeout", text, is_free=is_free) from error
        except aiohttp.ClientHttpProxyError as error:
            raise unreachable(is_free=True) from error
        except aiohttp.ClientResponseError as error:
            raise invalid("its head is malformed") from error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # a name that is none
            raise unreachable(is_free=isinstance(error, aiohttp.ClientConnectorError)) from error
        finally:
            on_connection.reset(telling)


def check_head(reply: aiohttp.ClientResponse) -> None:
    """Raises ``upstream_invalid`` for an answer that must not be handed on."""
    status = reply.status
    if not (200 <= status < 300 or 400 <= status < 600) or status in (204, 205):
        raise invalid(f"status {status} is not one that may pass")
    if any(c.strip().lower() != "identity" for c in reply.headers.getall("Content-Encoding", [])):
        raise invalid("it is compressed, which was not asked for")
    codings = [c.strip().lower() for c in reply.headers.getall("Transfer-Encoding", [])]
    lengths = reply.headers.getall("Content-Length", [])
    if len(lengths) > 1 or (codings and (lengths or codings != ["chunked"])):
        raise invalid("its framing is ambiguous")


def unreachable(*, is_free: bool = False) -> Refusal:
    """``is_free``: there was not even a connection."""
    text = "The upstream cannot be reached at the moment."
    return Refusal("upstream_unreachable", text, is_free=is_free)


def invalid(why: str) -> Refusal:
    return Refusal("upstream_invalid", "The upstream's answer cannot be passed on.", hint=why)


def key_rejected(provider: Provider) -> Refusal:
    return Refusal(
        "upstream_key_rejected",
        "The upstream does not accept this server's key. Only its operator can mend that.",
        hint=f"run `keyproxy check`, then set a valid {provider.key_variable}",
        is_free=True,
    )
