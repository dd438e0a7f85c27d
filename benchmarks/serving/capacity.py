"""`python -m benchmarks capacity`: what `anyshape capacity` predicts, and what a real server does.

    python -m benchmarks capacity                                    # one worker, paragraphs, 3 × 20 s
    python -m benchmarks capacity --workload short --seconds 60

What the simulation is told: the cost table that the worker measured when it warmed up, and from one run at
saturation how much longer calls take, and the times around the model: of a request, and of a hand-over, which
is also when a worker waits for the frontend's next. The three loads are shares of
the *predicted* saturation, so that no latency that is compared has been seen before.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from anyshape.archive import read_packed
from anyshape.capacity.simulation import Server, saturate
from anyshape.capacity.sizing import predict
from anyshape.capacity.slowness import Slowness
from anyshape.cli.capacity import costs_of
from anyshape.costs import CostRow, CostTable
from anyshape.packed import read_recipe
from anyshape.server.client import Client
from anyshape.server.scrape import Scrape
from anyshape.server.seen import ask_seen
from benchmarks.serving import load, profile, systems, workloads

LOADS = (0.4, 0.6, 0.8)


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks capacity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--system", default="bucketed-torchscript@workers=1,threads=1,batch_size=8")
    parser.add_argument("--workload", default="paragraphs")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    found = measure(given)
    print(json.dumps(found)) if given.json else show(found, given)
    return 0


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Predicted and measured: requests a second, p50 and p99 (ms), at saturation and at three loads."""
    system = systems.find(given.system)
    workload = workloads.load(given.workload, given.seed)
    folder = system.folder()
    running = system.start(folder)
    try:
        plan: dict[str, Any] = {
            "port": running.port,
            "requests": system.requests(workload),
            "judge": system.judge(workload),
            "seed": given.seed,
        }
        saturated = load.Plan(**plan, connections=32, warm_seconds=2.0, seconds=given.seconds / 2)
        load.generate(saturated)
        before, counted = profile.snapshot(running), scraped(folder)
        at_most = load.generate(saturated)
        time.sleep(1.5)  # workers say what they have counted once a second
        counted = scraped(folder).since(counted)
        spent = {key: value - before[key] for key, value in profile.snapshot(running).items()}
        archive = next((folder / "store").glob("*.mar"))
        index, recipe = read_packed(archive).index, read_recipe(archive)
        costs, policy = costs_of(archive, index, recipe)
        costs = CostTable.of(measured_costs(folder), index.dynamic_batch, costs.interpolate_sizes)
        items = spent["items"]
        per_request, per_batch = around(counted, at_most, system)
        server = Server(
            workers=system.workers,
            threads=system.threads,
            batch_size=system.batch_size,
            max_delay=system.max_batch_delay / 1e3,
            queue=1000,
            per_request=per_request,
            per_batch=per_batch,
            frontend=spent["frontend"] / items,
            slowness=Slowness.of(counted),
        )
        predicted = saturate(server, costs, policy, workload.sizes)
        rows = [{"load": "always waiting", "predicted": predicted, "measured": at_most.requests_per_second}]
        for share in LOADS:
            rate = share * predicted
            sizes = workload.sizes * max(1, int(rate * given.seconds * 4 / len(workload.sizes)))
            said = predict(server, costs, policy, sizes, rate)
            got = load.generate(load.Plan(**plan, rate=rate, seconds=given.seconds))
            rows.append(
                {
                    "load": share,
                    "rate": rate,
                    "predicted": said["throughput"],
                    "measured": got.requests_per_second,
                    "predicted_p50": said["p50"] * 1e3,
                    "measured_p50": got.percentile(50),
                    "predicted_p99": said["p99"] * 1e3,
                    "measured_p99": got.percentile(99),
                    "wrong": got.wrong,
                    "errors": got.errors,
                }
            )
    finally:
        running.stop()
    told = {
        "per_request_ms": server.per_request * 1e3,
        "per_batch_ms": server.per_batch * 1e3,
        "frontend_ms": server.frontend * 1e3,
        "slowness": server.slowness.mean,
    }
    return {"system": given.system, "workload": given.workload, **told, "rows": rows}


def around(counted: Scrape, at_most: load.Result, system: Any) -> tuple[float, float]:
    """Seconds around the model, for a request and for a hand-over, while requests always waited: what the
    handler spends beside its calls, and what of the time is no handler's. Hand-overs were full then."""
    handled = counted.total("anyshape_stage_seconds_total")
    requests = counted.total("anyshape_requests_total")
    seconds = requests / at_most.requests_per_second * system.workers
    beside = (handled - counted.total("anyshape_call_duration_seconds_sum")) / requests
    return beside, (seconds - handled) / (requests / system.batch_size)


def measured_costs(folder: Any) -> list[CostRow]:
    """The table that the worker measured when it warmed up."""
    return ask_seen(address(folder, "management"), "model", None).costs


def scraped(folder: Any) -> Scrape:
    """What the worker has counted so far."""
    return Client(address(folder, "management"), None, "", address(folder, "metrics")).scrape()


def address(folder: Any, kind: str) -> str:
    text = (folder / "config.properties").read_text()
    return str(text.split(f"{kind}_address=")[1].split()[0])


def show(found: dict[str, Any], given: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{found['system']}, {found['workload']}, {given.seconds:.0f} s each; "
        f"around the model {found['per_request_ms']:.2f} ms a request, "
        f"{found['per_batch_ms']:.2f} a hand-over, "
        f"frontend {found['frontend_ms']:.2f} ms; calls take {found['slowness']:.2f} times the costs"
    )
    for column in (
        "load",
        "requests/s: predicted",
        "measured",
        "p50: predicted",
        "measured",
        "p99: predicted",
        "measured",
    ):
        table.add_column(column, justify="right")
    for row in found["rows"]:
        cells = [str(row["load"]), f"{row['predicted']:.1f}", f"{row['measured']:.1f}"]
        for name in ("p50", "p99"):
            for side in ("predicted", "measured"):
                value = row.get(f"{side}_{name}")
                cells.append("" if value is None else f"{value:.1f} ms")
        table.add_row(*cells)
    Console().print(table)
