"""``keyproxy check --send-test-alert``: an alert that nothing is behind; does it arrive?"""

from __future__ import annotations

import asyncio
import socket
import time

from keyproxy.admin.alerts import made
from keyproxy.admin.conditions import Condition
from keyproxy.admin.outbox import post
from keyproxy.settings import Settings
from keyproxy.transport.client import open_pools, open_session

TEST = Condition("test", "This is a test, sent by keyproxy check --send-test-alert.", 0, 0)


def send_test_alert(settings: Settings) -> int:
    """Send it once and print whether it was taken; the exit code."""
    if settings.alert_url is None:
        print("error: no alert is sent while KEYPROXY_ALERT_URL is not set")
        return 2
    trouble = asyncio.run(_post(settings))
    signed = "not signed" if settings.alert_secret is None else "signed"
    if trouble is not None:
        print(f"error: the test alert was not taken: {trouble}")
        return 1
    print(f"test alert: taken by the receiver ({signed})")
    return 0


async def _post(settings: Settings) -> str | None:
    instance = socket.gethostname()
    text = f"keyproxy at {instance}: {TEST.text}"
    alert = made("firing", TEST, instance, text, time.time())
    async with open_pools(settings) as pools:
        return await post(
            lambda url: open_session(settings, url, pools.trust), settings, alert.body()
        )
