"""`anyshape build RECIPE`: a model and a recipe become one archive."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from anyshape.building.build import Built, build
from anyshape.cli.numbers import count
from anyshape.cli.tables import ProgressBar, bucket_table, compiler_notes, megabytes, weights_table

HELP = """Compile the model that RECIPE names once per bucket, compare every bucket with the unpadded
model, measure it, and pack everything into STORE/<recipe's name>.mar.

  anyshape build recipes/minilm.yaml
  anyshape build my/recipe.yaml --store /srv/model_store --model-version 2.0
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="the YAML file of the archive")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="default: model_store")
    parser.add_argument("--model-version", default="1.0", help="TorchServe's model version, default: 1.0")
    parser.add_argument(
        "--jobs",
        type=count,
        metavar="N",
        help="how many programs to compile at once, where the compiler can (Neuron); "
        "default: what this machine bears",
    )
    parser.add_argument("--json", action="store_true", help="print buckets.json, not tables")


def run(args: argparse.Namespace) -> int:
    with ProgressBar() as progress:
        built = build(args.recipe, args.store, args.model_version, progress, args.jobs)
    if args.json:
        extra = {"path": str(built.path), "bytes": built.bytes, "resident_bytes": built.resident_bytes}
        print(json.dumps({**extra, **built.index.to_json()}))
        return 0
    console = Console()
    console.print(bucket_table(built.index))
    for part in (weights_table(built.index), *compiler_notes(built.index)):
        if part is not None:
            console.print(part)
    console.print(summary(built), soft_wrap=True)  # a path that is broken in two cannot be copied
    return 0


def summary(built: Built) -> str:
    compared = all(program.deviation is not None for program in built.index.programs)
    if not compared:
        return (
            f"{built.path}: {megabytes(built.bytes)}, {built.index.weights / 1e6:.1f} million weights. "
            "[bold]Nothing was compared or measured[/bold]: it was compiled off the device."
        )
    exact = "" if built.index.exact else " [bold]Answers are inexact[/bold]: allow_inexact is set."
    return (
        f"{built.path}: {megabytes(built.bytes)}, {built.index.weights / 1e6:.1f} million weights; "
        f"resident memory with every bucket warm (and the eager model that it was compared with): "
        f"{megabytes(built.resident_bytes)}.{exact}"
    )
