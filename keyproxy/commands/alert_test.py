"""``keyproxy check --send-test-alert``: an alert that nothing is behind; does it arrive?"""

from __future__ import annotations

import asyncio
import socket
import time

from keyproxy.admin.alerts import made
from keyproxy.admin.conditions import Condition
from keyproxy.admin.outbox import post
from keyproxy.commands.findings import Finding
from keyproxy.settings import Settings
from keyproxy.transport.client import open_pools, open_session

TEST = Condition("test", "This is a test, sent by keyproxy check --send-test-alert.", 0, 0)


def of_test_alert(settings: Settings) -> Finding:
    """Send it once; whether it was taken."""
    signed = "not signed" if settings.alert_secret is None else "signed"
    if (trouble := asyncio.run(_post(settings))) is not None:
        return Finding("test alert", "error", f"the test alert was not taken: {trouble}")
    return Finding("test alert", "fine", f"taken by the receiver ({signed})")


async def _post(settings: Settings) -> str | None:
    instance = socket.gethostname()
    text = f"keyproxy at {instance}: {TEST.text}"
    alert = made("firing", TEST, instance, text, time.time())
    async with open_pools(settings) as pools:
        return await post(
            lambda url: open_session(settings, url, pools.trust), settings, alert.body()
        )
