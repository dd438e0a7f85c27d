"""`anyshape inspect X.mar`: what is inside an archive."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Dict

from rich.console import Console
from rich.table import Table

from anyshape.archive import read_packed
from anyshape.cli.tables import bucket_table, compiler_notes, every_length, megabytes, weights_table
from anyshape.layouts import ROWS
from anyshape.model import BucketedModel
from anyshape.process import mapped_bytes, resident_bytes
from anyshape.threads import cores

HELP = """Print what is inside an archive: the buckets, how exact they are, what a call costs, the files.

  anyshape inspect model_store/minilm.mar
  anyshape inspect model_store/minilm.mar --memory   # load and warm it, too
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("archive", type=Path, metavar="X.mar")
    parser.add_argument("--memory", action="store_true", help="load and warm it, and measure what that takes")
    parser.add_argument("--json", action="store_true", help="print it as JSON and nothing else")


def run(args: argparse.Namespace) -> int:
    packed = read_packed(args.archive)
    index = packed.index
    found: Dict[str, Any] = {"model": packed.model, "archive_bytes": args.archive.stat().st_size}
    if args.memory:
        found["memory"] = memory(args.archive)
    if args.json:
        print(json.dumps({**found, **index.to_json(), "files": packed.files}))
        return 0
    console = Console()
    console.print(f"[bold]{packed.name}[/bold] version {packed.version}")
    console.print(bucket_table(index))
    for part in (every_length(index), weights_table(index), *compiler_notes(index)):
        if part is not None:
            console.print(part)
    rows = "any number of rows up to" if index.dynamic_batch else "rows per call:"
    sizes = index.batch_sizes[-1:] if index.dynamic_batch else index.batch_sizes
    bound = "" if index.largest_call is None else f", at most {index.largest_call} positions in all"
    console.print(
        f"{rows} {', '.join(str(size) for size in sizes)}{bound}; {index.weights / 1e6:.1f} million weights"
    )
    if index.layout == ROWS:
        console.print(f"layout: rows of whole texts, at most {index.segments} in a row")
    if index.plan is not None:
        console.print(f"planned from data: expected waste {index.plan['waste']:.3f} (padded ÷ real)")
    for key, value in found.get("memory", {}).items():
        console.print(f"{key.replace('_', ' ')}: {megabytes(value) if 'bytes' in key else value}")
    table = Table(title="files", title_justify="left")
    table.add_column("file")
    table.add_column("bytes", justify="right")
    for name, size in packed.files.items():
        table.add_row(name, megabytes(size))
    console.print(table)
    console.print(f"versions: {', '.join(f'{k} {v}' for k, v in index.versions.items())}")
    return 0


def memory(path: Path) -> Dict[str, Any]:
    """Load and warm the archive in this process, and say what that took and what the buckets share."""
    before, files, started = resident_bytes(), mapped_bytes(), time.perf_counter()
    model = BucketedModel.load(path, warm=False)
    loaded = resident_bytes()
    model.warm_up()
    seconds = time.perf_counter() - started
    storages = {
        parameter.data_ptr()
        for program in model.programs.loaded.values()
        if hasattr(program, "parameters")
        for parameter in program.parameters()
    }
    return {
        "bytes_before_loading": before,
        "bytes_after_loading": loaded,
        "bytes_after_warm_up": resident_bytes(),
        "bytes_shared_with_other_workers": mapped_bytes() - files,
        "seconds_to_load_and_warm": round(seconds, 1),
        "programs": len(model.programs.loaded),
        "distinct_parameter_tensors": len(storages),
        "cores": cores(),
    }
