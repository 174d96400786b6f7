"""The curves of a run in a notebook: HTML and SVG, with every text escaped."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Iterable
from typing import Any, Callable

WIDTH, HEIGHT, MARGIN = 300, 120, 14
COLOURS = ("#3b7dd8", "#d8743b", "#4a9a52")


def page(run: dict[str, Any]) -> str:
    """The page of `runs export --json`."""
    cause = f": {run['cause']}" if run["status"] != "running" and run["cause"] else ""
    steps = f"step {run['step']} of {run['total_steps']}"
    head = f"{run['id']} · {run['task']} · {run['base_model']} · {steps} · {run['status']}{cause}"
    outcome = (run["outcome"] or {}).get("sentence") or ""
    rates = [each for each in run["evals"] if each["set"].split(":")[0] == "eval"]
    points = {
        rate: known((each["step"], each["summary"][rate]) for each in rates)
        for rate in ("valid", "exact")
    }
    charts = chart("reward", {"mean": series(run, "reward")})
    charts += chart("eval set", points)
    charts += chart("entropy (nats/token)", {"": series(run, "entropy")})
    text = "".join(f"<div>{html.escape(str(line))}</div>" for line in (head, outcome) if line)
    return f'<div style="font-family:sans-serif;font-size:13px">{text}{charts}</div>'


def series(run: dict[str, Any], name: str) -> list[tuple[float, float]]:
    found = run["series"].get(name, {"steps": [], "values": []})
    return known(zip(found["steps"], found["values"]))


def known(points: Iterable[tuple[float, float | None]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None]


def chart(title: str, curves: dict[str, list[tuple[float, float]]]) -> str:
    everything = [point for curve in curves.values() for point in curve]
    if not everything:
        return ""
    left, right = min(x for x, _ in everything), max(x for x, _ in everything)
    low, high = min(y for _, y in everything), max(y for _, y in everything)
    across_all, down_all = right - left or 1, high - low or 1

    def place(x: float, y: float) -> str:
        across = MARGIN + (x - left) / across_all * (WIDTH - 2 * MARGIN)
        down = 2 * MARGIN + (high - y) / down_all * (HEIGHT - 4 * MARGIN)
        return f"{across:.1f},{down:.1f}"

    lines, ends = "", []
    for colour, (name, curve) in zip(COLOURS, curves.items()):
        if not curve:
            continue
        points = " ".join(place(x, y) for x, y in curve)
        lines += f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        end = html.escape(f"{name} {curve[-1][1]:.3g}".strip())
        ends.append(f'<tspan fill="{colour}">{end}</tspan>')
        if len(curve) == 1:
            across, down = points.split(",")
            lines += f'<circle cx="{across}" cy="{down}" r="2" fill="{colour}"/>'
    label = f'<text x="{MARGIN}" y="{MARGIN}">{html.escape(title)} {" ".join(ends)}</text>'
    bottom = HEIGHT - MARGIN / 2
    ends_of = f"step {left:g} to {right:g}, {low:.3g} to {high:.3g}"
    scale = f'<text x="{MARGIN}" y="{bottom}" opacity=".6">{ends_of}</text>'
    frame = (
        f"M{MARGIN} {2 * MARGIN}H{WIDTH - MARGIN}M{MARGIN} {HEIGHT - 2 * MARGIN}H{WIDTH - MARGIN}"
    )
    scale += f'<path d="{frame}" stroke="currentColor" opacity=".2"/>'
    style = f'width="{WIDTH}" height="{HEIGHT}" font-size="10" fill="currentColor"'
    return f"<svg {style}>{label}{lines}{scale}</svg>"


def shell() -> Any:
    """That of IPython, or `None`."""
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()


def cell() -> int | None:
    return getattr(shell(), "execution_count", None)


def notebook_display(run: object) -> Callable[..., None] | None:
    """In a notebook, a function that draws the run, at most twice a second; else `None`."""
    if not hasattr(shell(), "kernel"):
        return None
    from IPython.display import display  # type: ignore[import-not-found,unused-ignore]

    handle, last = display(run, display_id=True), time.monotonic()

    def show(is_last: bool = False) -> None:
        nonlocal last
        if is_last or time.monotonic() > last + 0.5:
            handle.update(run)
            last = time.monotonic()

    return show
