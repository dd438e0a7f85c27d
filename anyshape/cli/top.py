"""`anyshape top`: what a running server does, live in a terminal."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from typing import Any, List

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from anyshape.cli.client import add_server_arguments, client_of
from anyshape.cli.numbers import positive
from anyshape.server.watch import Figures, compare, look

HELP = """\
Show what a running server does: requests and errors per second, latencies, the waste of every bucket, the
workers. Figures are of the last --interval seconds; Ctrl-C ends it.

  anyshape top
  anyshape top --server http://127.0.0.1:8081 --key-file run/key_file.json
  anyshape top --once --json --interval 10
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_server_arguments(parser)
    parser.add_argument("--model", help="only this model")
    parser.add_argument("--interval", type=positive, default=2.0, metavar="SECONDS", help="default: 2")
    parser.add_argument("--once", action="store_true", help="print the figures of one interval, and end")
    parser.add_argument("--json", action="store_true", help="with --once: as JSON")


def run(args: argparse.Namespace) -> int:
    client, console = client_of(args), Console()
    earlier = look(client)

    def figures() -> List[Figures]:
        nonlocal earlier
        time.sleep(args.interval)
        now = look(client)
        found = [each for each in compare(earlier, now) if args.model in (None, each.model)]
        earlier = now
        return found

    if args.once and args.json:
        print(json.dumps([_json(dataclasses.asdict(each)) for each in figures()]))
        return 0
    if args.once:
        console.print(show(figures()))
        return 0
    with Live(Text("measuring …"), console=console, screen=console.is_terminal) as live:
        while True:
            live.update(show(figures()), refresh=True)


def show(found: List[Figures]) -> RenderableType:
    """All models, one below the other."""
    return (
        Group(*(part for figures in found for part in _model(figures)))
        if found
        else Text("no model is served")
    )


def _model(figures: Figures) -> List[RenderableType]:
    mark = "" if figures.default else " (not the default)"
    waste = f"{_number(figures.waste)}"
    if figures.planned is not None:
        waste += f" (planned {figures.planned:.2f})"
    shown = {
        "requests/s": _number(figures.requests_per_second, 1),
        "errors/s": _number(figures.errors_per_second, 1),
        "p50 ms": _ms(figures.p50),
        "p95 ms": _ms(figures.p95),
        "p99 ms": _ms(figures.p99),
        "queue ms": _ms(figures.queue),
        "waiting": "–" if figures.waiting is None else str(figures.waiting),
        "busy": "–" if math.isnan(figures.busy) else f"{figures.busy:.0%}",
        "positions/s": _number(figures.positions_per_second, 0),
        "rows/call": _number(figures.rows_per_call, 1),
        "waste": waste,
    }
    parts: List[RenderableType] = [Text(f"{figures.model} {figures.version}{mark}", style="bold")]
    for names in (list(shown)[:5], list(shown)[5:]):
        parts.append(Text("   ".join(f"{name} {shown[name]}" for name in names)))
    if figures.since == "worker":
        parts.append(
            Text("latencies from the worker on: no proxy in front said when requests came", style="dim")
        )
    parts += [_buckets(figures), _workers(figures)]
    for name, counts in (("refused", figures.errors), ("changed", figures.changed)):
        if counts:
            parts.append(Text(f"{name}: " + ", ".join(f"{key} {count:.0f}" for key, count in counts.items())))
    return [*parts, Text("")]


def _buckets(figures: Figures) -> Table:
    table = Table("bucket", "items/s", "calls/s", "ms/call", "waste", show_edge=False)
    for column in table.columns:
        column.justify = "right"
    for each in figures.buckets:
        table.add_row(
            each.bucket,
            _number(each.items_per_second, 1),
            _number(each.calls_per_second, 1),
            _ms(each.call_seconds),
            _number(each.waste),
        )
    return table


def _workers(figures: Figures) -> Table:
    table = Table("worker", "status", "starts", "in hand", "memory", show_edge=False)
    for each in figures.workers:
        colour = "" if each.status == "READY" else "[bold red]"
        memory = f"{each.bytes / 1e6:.0f} MB" if each.bytes else "–"
        table.add_row(each.worker, f"{colour}{each.status}", str(each.starts), str(each.in_hand), memory)
    return table


def _number(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def _ms(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{seconds * 1e3:.1f}"


def _json(value: Any) -> Any:
    """The same without NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_json(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
