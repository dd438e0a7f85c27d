"""`anyshape capacity`: the cores or NeuronCores that a rate of requests needs."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from rich.console import Console
from rich.table import Table

from anyshape.archive import Index, read_packed
from anyshape.building.planning import inputs
from anyshape.capacity.slowness import Slowness
from anyshape.cli.client import add_server_arguments, client_of
from anyshape.cli.numbers import count, positive
from anyshape.costs import CostRow, CostTable
from anyshape.errors import ConfigError
from anyshape.layouts import ROWS, Items, Rows
from anyshape.packed import read_recipe
from anyshape.packing import Policy
from anyshape.recipe import Recipe
from anyshape.server.seen import ask_version

HELP = """\
Say how many cores (or NeuronCores) answer a rate of requests so that 99 % of them come within a time.
One server is simulated event by event, with the archive's measured costs and its packer: queue, hand-over,
packing, calls. Servers are independent, so as many are needed as the rate is times what one bears.

  anyshape capacity --lengths lengths.json --costs X.mar --rate 500 --p99 100
  anyshape capacity --lengths lengths.json --costs X.mar --rate 1e6 --p99 50 --workers 4
  anyshape capacity --from-server --costs X.mar --rate 1e6 --p99 50

--lengths are those of `anyshape plan`; the costs are those of the machine that built the archive, unless a
running server says its own (--from-server): the sizes that came to it, the costs that it measured when it
started, and how much longer its calls take when it is at work. Docs: capacity.md says what is left out.
Needs the extra `capacity`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sizes = parser.add_mutually_exclusive_group(required=True)
    sizes.add_argument("--lengths", type=Path, metavar="FILE", help="token counts, as for `anyshape plan`")
    sizes.add_argument("--sizes", type=Path, metavar="FILE", help="heights and widths of pictures")
    sizes.add_argument("--from-server", action="store_true", help="what a running server has seen")
    parser.add_argument("--model", metavar="NAME", help="with --from-server: which, where it serves several")
    parser.add_argument("--field", help="which list of a file of several")
    parser.add_argument("--costs", type=Path, required=True, metavar="X.mar")
    parser.add_argument("--rate", type=positive, required=True, metavar="N", help="requests a second")
    parser.add_argument("--p99", type=positive, required=True, metavar="MS", help="99 %% within this time")
    parser.add_argument("--workers", type=count, metavar="N", help="of one server (the recipe's)")
    parser.add_argument(
        "--threads", type=count, metavar="N", help="of a worker, as the costs were measured (1)"
    )
    parser.add_argument("--batch-size", type=count, metavar="N", help="of a hand-over (the recipe's)")
    parser.add_argument("--max-delay", type=positive, metavar="MS", help="wait for company (the recipe's)")
    parser.add_argument("--queue", type=count, metavar="N", help="requests that may wait (the recipe's)")
    parser.add_argument("--cores", type=count, metavar="N", help="of a server whose frontend shares them")
    parser.add_argument("--request-ms", type=positive, metavar="MS", help="around the model, a request (0.3)")
    parser.add_argument("--batch-ms", type=positive, metavar="MS", help="the same, a hand-over (1)")
    parser.add_argument("--frontend-ms", type=positive, metavar="MS", help="the frontend, a request (0.5)")
    parser.add_argument("--early", action="store_true", help="answers leave as their call ends (Ray Serve)")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    try:
        import simpy  # noqa: F401
    except ImportError:
        raise ConfigError("capacity is simulated with SimPy: pip install 'anyshape[capacity]'") from None
    from anyshape.capacity.simulation import Server
    from anyshape.capacity.sizing import size_servers

    index, recipe = read_packed(args.costs).index, read_recipe(args.costs)
    costs, policy = costs_of(args.costs, index, recipe)
    slowness = Slowness()
    if args.from_server:
        histogram, measured, slowness = _from_server(args)
        costs = CostTable.of(measured, costs.dynamic_batch, costs.interpolate_sizes) if measured else costs
    elif args.lengths:
        histogram = inputs.read_lengths(args.lengths, args.field)
    else:
        histogram = inputs.read_sizes(args.sizes)
    taken = {size: count for size, count in histogram.items() if _fits(size, costs)}
    if not taken:
        raise ConfigError("none of the sizes fits a bucket of the archive: nothing to plan for")
    server = _server(args, recipe, Server(slowness=slowness))
    found = size_servers(server, costs, policy, taken, args.rate, args.p99 / 1e3)
    left_out = sum(histogram.values()) - sum(taken.values())
    unit = "NeuronCores" if index.backend.startswith("neuron") else "cores"
    figures = {
        **found.figures(),
        "unit": unit,
        "slowness": slowness.mean,
        "larger_than_every_bucket": left_out,
    }
    if args.json:
        print(json.dumps(figures))
        return 0
    _show(args, server, figures)
    return 0


def costs_of(path: Path, index: Index, recipe: Recipe) -> Tuple[CostTable, Policy]:
    """An archive's cost table and its packer. Raises ConfigError if nothing was measured."""
    if not index.costs:
        raise ConfigError(
            f"{path} has no measured costs (it was compiled off the device): measure them there"
        )
    free = index.backend_options.get("shapes") == "dynamic"
    costs = CostTable.of(index.costs, index.dynamic_batch, free)
    layout = Rows(index.segments, False) if index.layout == ROWS else Items()
    return costs, layout.policy(recipe.handler.packing)


def _from_server(args: argparse.Namespace) -> Tuple[inputs.Histogram, List[CostRow], Slowness]:
    """The sizes that a running server has seen, its costs, and how much longer its calls take. Raises
    ServeError."""
    client = client_of(args)
    model = args.model or client.only_model()
    version = client.default_version(model)
    seen = ask_version(client, model, version)
    counted = Slowness.of(client.scrape(), model_name=model, model_version=version)
    return seen.histogram, seen.costs, counted


def _server(args: argparse.Namespace, recipe: Recipe, usual: Any) -> Any:
    """The recipe's server, where the command line says nothing else."""
    given: Dict[str, Any] = {
        "workers": args.workers or recipe.workers,
        "threads": args.threads or recipe.handler.threads or 1,
        "batch_size": args.batch_size or recipe.batchSize or 1,
        "max_delay": _seconds(args.max_delay) or (recipe.maxBatchDelay or 100) / 1e3,
        "queue": args.queue,
        "cores": args.cores,
        "per_request": _seconds(args.request_ms),
        "per_batch": _seconds(args.batch_ms),
        "frontend": _seconds(args.frontend_ms),
        "early": args.early,
    }
    return replace(usual, **{name: value for name, value in given.items() if value is not None})


def _show(args: argparse.Namespace, server: Any, figures: Dict[str, Any]) -> None:
    table = Table(title=f"{args.rate:,.0f} requests a second, 99 % within {args.p99:g} ms", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in (
        (f"{figures['unit']} in all", f"{figures['cores']:,}"),
        ("servers", f"{figures['servers']:,}"),
        ("workers × threads of a server", f"{server.workers} × {server.threads}"),
        ("requests a second, of a server", f"{figures['rate']:.1f}"),
        ("the most within that time", f"{figures['most']:.1f}"),
        ("when requests always wait", f"{figures['saturated']:.1f}"),
        ("p50; p99 at that rate", f"{figures['p50_ms']:.1f}; {figures['p99_ms']:.1f} ms"),
        ("workers are busy", f"{figures['busy']:.0%}"),
        ("requests, calls of a hand-over", _pair(figures)),
        ("positions run ÷ needed", f"{figures['padding']:.2f}"),
        ("calls take, times the costs", f"{figures['slowness']:.2f}"),
    ):
        table.add_row(name, value)
    console = Console()
    console.print(table)
    if figures["larger_than_every_bucket"]:
        console.print(f"{figures['larger_than_every_bucket']} sizes fit no bucket and were left out")


def _pair(figures: Dict[str, Any]) -> str:
    return f"{figures['requests_per_handover']:.1f}, {figures['calls_per_handover']:.1f}"


def _fits(size: Tuple[int, ...], costs: CostTable) -> bool:
    try:
        costs.need(size)
    except ValueError:
        return False
    return True


def _seconds(milliseconds: Optional[float]) -> Optional[float]:
    return None if milliseconds is None else milliseconds / 1e3
