"""CPU time to parse and check a body: a 1-KB chat call, and a 1-MB call with images.

python benchmarks/policy.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import statistics
import time

from keyproxy import dialects
from keyproxy.call import Endpoint
from keyproxy.policy import calls
from keyproxy.policy.calls import Policy
from keyproxy.policy.models import Models

CHAT = Endpoint("POST", "/api/v1/chat/completions", dialects.CHAT)
POLICY = Policy(Models(["openai/*", "anthropic/claude-*", "!*:free"]))
TEXT = "Say something about Köln. " * 36


def chat(content: object) -> bytes:
    message = {"role": "user", "content": content}
    return json.dumps(
        {"model": "openai/gpt-4o-mini", "stream": True, "messages": [message]}, ensure_ascii=False
    ).encode()


def with_images(count: int, each_bytes: int) -> bytes:
    made_up = random.Random(1)  # noqa: S311  (an image's bytes, no cryptography)
    parts: list[object] = [{"type": "text", "text": TEXT}]
    for _ in range(count):
        data = base64.b64encode(made_up.randbytes(each_bytes)).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    return chat(parts)


def cost(body: bytes, times: int) -> float:
    """Microseconds for each parse and check."""
    before = time.process_time()
    for _ in range(times):
        calls.read(CHAT, body, POLICY, (), "")
    return (time.process_time() - before) / times * 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    long_chat = chat([{"type": "text", "text": TEXT}] * 1_000)
    for name, body, times in (
        ("1-KB chat", chat(TEXT), 5_000),
        ("1-MB chat, text", long_chat, 20),
        ("1-MB chat, images", with_images(3, 262_144), 50),
        ("20-MB chat, images", with_images(10, 1_500_000), 3),
    ):
        all_of_them = [cost(body, times) for _ in range(rounds)]
        middle = statistics.median(all_of_them)
        print(
            f"{name:20} {len(body):>9} bytes  {middle:9.1f} us CPU  {len(body) / middle:7.1f} MB/s"
        )
