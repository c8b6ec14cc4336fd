"""The figures of a run as tables and plots: ``docs/performance.md`` and its SVGs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
COLUMNS = (  # name, title, digits
    ("cpu_call", "CPU of a call, us", 0),
    ("add_p50", "added to a call, p50 us", 0),
    ("add_p99", "added to a call, p99 us", 0),
    ("cpu_event", "CPU of an event one by one, us", 1),
    ("cpu_paced", "CPU of an event paced, us", 1),
    ("add_event_p50", "added to an event, p50 us", 0),
    ("add_event_p99", "added to an event, p99 us", 0),
    ("stream_kb", "KB per open stream", 1),
    ("rss_mb", "MB at rest", 0),
    ("cold", "s to the first answer", 2),
)
COLOURS = {"nginx": "#8c9aa8", "naive": "#c9a227", "keyproxy": "#2b6cb0", "bare": "#7fb2e5"}
FONT = 'font-family="system-ui,sans-serif" font-size="13" fill="#444"'
TITLES = {
    "performance": "What a call, an event and a stream cost",
    "lateness": "How late timers came on a loop; lengths are logarithmic",
}
WIDTH, LEFT, ROW = 720, 110, 22
Group = tuple[str, list[tuple[str, float, str]]]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)
    )  # a blank line around it is the caller's


def tables(report: dict[str, Any]) -> str:
    """All of a run in Markdown, ratios first."""
    peers, said = report["peers"], [about(report["about"])]
    shown = [c for c in COLUMNS if c[0] in peers["keyproxy"]]
    own = peers["keyproxy"]
    if shown:
        others = [name for name in peers if name not in ("direct", "keyproxy")]
        rows = [
            [title.strip(), *(ratio(own[name], peers[other][name]) for other in others)]
            for name, title, _ in shown
        ]
        said += [table(["keyproxy is", *(f"x {other}" for other in others)], rows)]
        rows = [
            [name, *(f"{each[key]:.{digits}f}" if key in each else "–" for key, _, digits in shown)]
            for name, each in peers.items()
            if name != "direct"
        ]
        said += [table(["", *(title for _, title, _ in shown)], rows)]
    flat = []
    for name, each in peers.items():
        if "among_streams" in each:
            what = f"{name}, among {report['about']['streams']:,} open streams"
            flat.append([what, f"{each['among_streams']:.2f}"])
    if "among_clients" in own:
        what = (
            f"keyproxy, with {own['clients']:,.0f} clients known ({own['client_kb']:.1f} KB each)"
        )
        flat.append([what, f"{own['among_clients']:.2f}"])
    if flat:
        said += [table(["CPU of a call", "x alone"], flat)]
    if "pauses" in report:
        said += [lateness(report["pauses"])]
    return "\n\n".join(said)


def about(run: dict[str, Any]) -> str:
    apart = "each proxy alone on one" if run["apart"] else "shared by proxies and load"
    is_shared = run["load"] > run["cores"] / 2
    others = " **Others used them too: to be renewed, delays above all.**" if is_shared else ""
    if run["left_out"]:
        others += f" Not measured in this run: {', '.join(run['left_out'])}."
    return (
        f"{run['date']}: {run['cores']} virtual cores, {apart}; Linux {run['kernel']}, Python"
        f" {run['python']}; upstream {'behind TLS' if run['tls'] else 'plain'}; {run['rounds']}"
        f" rounds; load average {run['load']:.1f} before it began.{others}"
    )


def ratio(own: float, other: float) -> str:
    return f"{own / other:.2f}" if other > 0 else "–"


def steps(bounds: Sequence[int]) -> list[str]:
    """Names of a histogram's bars."""
    between = [f"{low} to {high} ms" for low, high in pairwise(bounds)]
    return [f"up to {bounds[0]} ms", *between, f"over {bounds[-1]} ms"]


def lateness(found: dict[str, Any]) -> str:
    names = steps(found["bounds_ms"])
    rows = [
        [f"{name} loop", *map(str, found[name]["counts"]), f"{found[name]['longest_ms']:.1f} ms"]
        for name in ("keyproxy", "idle")
    ]
    head = [f"late, of timers in {found['seconds']:.0f} s", *names, "longest"]
    return f"{table(head, rows)}\n\nkeyproxy took {found['busy']:.0%} of its core meanwhile."


def write(path: Path, report: dict[str, Any], plots: Sequence[Path]) -> None:
    """Put tables and plots between the page's marks."""
    before, found, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{path} has no {BEGIN} … {END}")
    drawn = [f"![{TITLES[plot.stem]}]({os.path.relpath(plot, path.parent)})" for plot in plots]
    inner = "\n\n".join([tables(report), *drawn])
    path.write_text(f"{before}{BEGIN}\n\n{inner}\n\n{END}{after}", encoding="utf-8")


def plot(folder: Path, report: dict[str, Any]) -> list[Path]:
    """The SVGs drawn: costs, and the loop's lateness, as far as they were measured."""
    peers = {name: each for name, each in report["peers"].items() if name != "direct"}
    costs: list[Group] = [
        (title, [(name, each[key], f"{each[key]:.{digits}f}") for name, each in peers.items()])
        for key, title, digits in COLUMNS
        if all(key in each for each in peers.values())
    ]
    drawn = {"performance": bars(costs)} if costs else {}
    if found := report.get("pauses"):
        late: list[Group] = []
        for place, name in enumerate(steps(found["bounds_ms"])):
            of = [(loop, found[loop]["counts"][place]) for loop in ("keyproxy", "idle")]
            late.append((name, [(loop, math.log10(n + 1), f"{n:,}") for loop, n in of]))
        drawn["lateness"] = bars(late, max(value for _, each in late for _, value, _ in each))
    for name, text in drawn.items():
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return [folder / f"{name}.svg" for name in drawn]


def bars(groups: Sequence[Group], longest: float | None = None) -> str:
    """An SVG with a bar for each value, as long as it is in its group, or beside ``longest``."""
    lines, y = [], 0
    for title, each in groups:
        lines.append(f'<text x="8" y="{y + 16}" font-weight="600">{title}</text>')
        y += ROW
        most = longest or max(value for _, value, _ in each) or 1
        for name, value, text in each:
            width = max(value, 0) / most * (WIDTH - LEFT - 90)
            colour = COLOURS.get(name, "#8c9aa8")
            lines.append(f'<text x="24" y="{y + 15}">{name}</text>')
            lines.append(
                f'<rect x="{LEFT}" y="{y + 3}" width="{width:.1f}" height="15" fill="{colour}"/>'
            )
            lines.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + 15}">{text}</text>')
            y += ROW
        y += 8
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    back = f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>'
    inner = "\n".join(lines)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT}>\n{back}\n{inner}\n</svg>\n'
