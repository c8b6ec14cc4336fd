"""How much memory reading a body takes, by its shape, beside what is set aside for it (Linux).

    python benchmarks/memory.py [--megabytes 18]

Each body is read, checked and, for a cap, written anew in a process of its own, whose resident
memory at its highest is looked at. What is set aside must be more, and should not be much more.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
from pathlib import Path

import hold

from keyproxy.errors import Refusal
from keyproxy.policy import calls
from keyproxy.rules import Rules
from keyproxy.server import memory
from keyproxy.settings import Settings
from keyproxy.strict_json import body

MIB = 1 << 20


def kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def one_wide(size: int) -> bytes:
    """The dearest: each character takes four bytes for the sake of the last."""
    return hold.chat("a" * size + "🙂")


def one_escaped(size: int) -> bytes:
    return json.dumps(json.loads(one_wide(size))).encode()


def plain(size: int) -> bytes:
    return hold.chat("a" * size)


def measure(name: str, megabytes: int) -> None:
    raw = SHAPES[name](megabytes * 10**6)
    environ = {"OPENROUTER_API_KEY": hold.KEY, "KEYPROXY_MAX_TOKENS": "500"}
    app = Rules.of(Settings.from_environ("dev", environ)).apps["default"]
    endpoint, _, _ = app.endpoints.find("POST", "/api/v1/chat/completions")
    memory.give_back_large_blocks()
    set_aside = body.reading_bytes(raw)
    gc.collect()
    gc.disable()
    Path("/proc/self/clear_refs").write_text("5")  # the highest begins anew
    before, told = kilobytes("VmRSS"), ""
    try:
        calls.read(endpoint, raw, app.policy, (), "")
    except Refusal as refusal:
        told = refusal.code
    taken = (kilobytes("VmHWM") - before) * 1024
    print(
        f"{name:12} {len(raw) / 1e6:5.1f} MB  takes {taken / MIB:6.1f} MiB"
        f" (x{taken / len(raw):4.1f})  set aside {set_aside / MIB:6.1f} MiB  {told}",
        flush=True,
    )


SHAPES = {shape.__name__: shape for shape in (*hold.SHAPES, plain, one_wide, one_escaped)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=18)
    megabytes = parser.parse_args().megabytes
    for name in SHAPES:
        process = multiprocessing.get_context("fork").Process(
            target=measure, args=(name, megabytes)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
