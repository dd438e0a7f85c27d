"""`anyshape neuron check`: try everything on an instance with Neuron devices, and write down what came
out."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, Dict

from rich.console import Console
from rich.table import Table

from anyshape.building.neuron_check import Check
from anyshape.cli.numbers import count, positive
from anyshape.cli.tables import ProgressBar

HELP = """Try everything on this Inferentia or Trainium instance, in half an hour or so, most of it compiling:
the environment, two recipes built and compared with the unpadded models, and how fast one core is beside what
AWS publishes. All of it goes to a JSON file. Nobody who wrote this had such an instance: please send that
file, attached to an issue of this project. It names versions and figures, not the machine or its owner.

  anyshape neuron check
  anyshape neuron check --out my-inf2.json --seconds 30
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["check"], help="try everything")
    parser.add_argument(
        "--out", type=Path, default=Path("neuron-check.json"), help="default: neuron-check.json"
    )
    parser.add_argument("--seconds", type=positive, default=10, help="of measuring each speed, default: 10")
    parser.add_argument("--layers", type=count, default=12, help="of the BERT that is measured; AWS has 12")
    parser.add_argument("--jobs", type=count, metavar="N", help="how many programs to compile at once")


def run(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="anyshape-neuron-check-") as folder, ProgressBar() as progress:
        found = Check(Path(folder), args.seconds, args.layers, args.jobs, progress).run()
    args.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    console = Console()
    console.print(table(found))
    for name in found["failed"]:
        part = found["speed"] if name == "speed" else found["recipes"][name]
        console.print(f"[bold]{name} failed[/bold]: {part['error']}", markup=True, highlight=False)
    console.print(f"\nWritten to {args.out}. Please attach it to an issue: nobody here could run this.")
    return 1 if found["failed"] else 0


def table(found: Dict[str, Any]) -> Table:
    """What was built and what was measured."""
    here = found["environment"]
    title = f"{found['backend']} on {here['family'] or 'an unknown instance'}, {here['cores'] or '?'} cores"
    shown = Table(title=title, title_justify="left")
    for column in ("", "seconds", "deviation", "of what AWS publishes per core"):
        shown.add_column(column)
    for name, part in found["recipes"].items():
        deviations = [d for d in part.get("deviations", {}).values() if d is not None]
        worst = f"{max(deviations):.1e}" if deviations else ""
        shown.add_row(name, "failed" if "error" in part else f"{part['seconds']:.0f}", worst, "")
    for row in found["speed"].get("batches", []):
        best = max(row["threads_1"]["per_second"], row["threads_2"]["per_second"])
        said = f"{row['of_published']:.2f} ({best:,.0f} of {row['published_per_core']:,.0f} a second)"
        shown.add_row(f"BERT base, 128 tokens, batch {row['batch']}", "", "", said)
    return shown
