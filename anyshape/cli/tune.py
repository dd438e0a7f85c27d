"""`anyshape tune RECIPE`: observed traffic → plan → build → swap, and what it saved."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from anyshape.buckets import bucket_name
from anyshape.building.build import build
from anyshape.building.planning.cost_models import AreaCost, Cost, MeasuredCost
from anyshape.building.tuning import Tuned, tune
from anyshape.cli.client import add_server_arguments, client_of, trusts_of
from anyshape.cli.numbers import count
from anyshape.cli.swap import add_swap_arguments
from anyshape.cli.tables import ProgressBar
from anyshape.server.checks import ServeError
from anyshape.server.client import Client
from anyshape.server.scrape import Scrape
from anyshape.server.seen import Seen, ask_version, without_earlier
from anyshape.server.swap import swap
from anyshape.server.trust import Trust, sign

HELP = """\
Plan buckets from what a running server has seen, build the archive with them, swap it in, and say what that
was to save and what it does save. There are as many buckets as before, and what was taken before is taken
afterwards. RECIPE is the one that the served archive was built from; it is not written to.

  anyshape tune recipes/minilm.yaml --dry-run
  anyshape tune recipes/minilm.yaml --server http://127.0.0.1:8081 --measure 300

The counts begin when the version is registered: each tune plans from the traffic since the last one. With
--since FILE, an earlier answer of URL/models/NAME?customized=true, from that since FILE was saved.

Where the server asks for signatures (serve --signers), --sign KEY makes the new archive's with ssh-keygen.
"""
STEP = 1.5  # seconds: workers say what they have counted once a second


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="the YAML file of the archive")
    add_server_arguments(parser)
    add_swap_arguments(parser)
    parser.add_argument("--since", type=Path, metavar="FILE", help="leave out what was seen before")
    parser.add_argument("--buckets", type=count, metavar="N", help="how many (default: as many as there are)")
    parser.add_argument("--align", type=count, default=1, metavar="N", help="sides are multiples of N")
    parser.add_argument(
        "--cost",
        choices=("measured", "area"),
        default="measured",
        help="plan by the seconds that the server's workers measured (default), or by positions",
    )
    parser.add_argument(
        "--least",
        type=float,
        default=0.02,
        metavar="PART",
        help="build only where this part of the cost is saved (default: 0.02)",
    )
    parser.add_argument(
        "--measure",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long to look at the new version's traffic (default: 60)",
    )
    parser.add_argument(
        "--sign", type=Path, metavar="KEY", help="sign the new archive with this key of OpenSSH's"
    )
    parser.add_argument("--dry-run", action="store_true", help="plan, and build nothing")
    parser.add_argument("--json", action="store_true", help="print figures as JSON, and no steps")


def run(args: argparse.Namespace) -> int:
    client, name = client_of(args), args.recipe.stem

    def tell(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    trusts = [] if args.dry_run else trusts_of(args)
    _check_trusts(trusts, args.sign)
    version = client.default_version(name)
    seen = ask_version(client, name, version)
    if args.since:
        seen = without_earlier(seen, args.since)
    tuned = tune(seen.histogram, seen.buckets, args.buckets, _cost(args.cost, seen), args.align)
    found = _predicted(tuned, seen, version)
    tell(_told(tuned, seen))
    if tuned.saving >= args.least and not args.dry_run:
        before = client.scrape()
        new = _next([str(each["modelVersion"]) for each in client.versions(name)])
        with tempfile.TemporaryDirectory(prefix="anyshape-tune-") as folder:
            with ProgressBar() as progress:
                built = build(args.recipe, Path(folder), new, progress, planned=tuned.plan)
            if args.sign:
                sign(built.path, args.sign)
            swap(
                client,
                built.path,
                store=args.store,
                tell=tell,
                drain_seconds=args.drain,
                unproved=args.unproved,
                trusts=trusts,
            )
        found["version"] = new
        found["measured"] = _measured(client, name, version, new, before, args.measure)
        tell(_told_measured(found["measured"], tuned, args.measure))
    elif tuned.saving < args.least:
        tell(f"less than {args.least:.0%}: nothing is built")
    if args.json:
        print(json.dumps(found))
    return 0


def _check_trusts(trusts: List[Trust], key: Optional[Path]) -> None:
    """Whether what is built can be what the server takes, before minutes are spent. Raises ServeError."""
    for trust in trusts:
        if trust.sums is not None:
            raise ServeError(
                f"only archives that {trust.sums} names are served, and one that is yet to be built is not "
                "among them: plan with --dry-run, build, add its sum, and swap it"
            )
        if trust.signers is not None and key is None:
            raise ServeError(
                f"only archives that someone in {trust.signers} signed are served: say --sign KEY"
            )


def _cost(wanted: str, seen: Seen) -> Cost:
    return MeasuredCost(seen.costs) if wanted == "measured" and seen.costs else AreaCost()


def _next(versions: List[str]) -> str:
    """A version after all that there are: 3.0 after 1.0 and 2.1."""
    firsts = [int(first) for version in versions if (first := version.partition(".")[0]).isdecimal()]
    return f"{max(firsts, default=0) + 1}.0"


def _predicted(tuned: Tuned, seen: Seen, version: str) -> Dict[str, Any]:
    return {
        "cost": tuned.plan.cost,
        "items": sum(tuned.plan.histogram.values()),
        "present": {
            "version": version,
            "buckets": [list(bucket) for bucket in seen.buckets],
            "waste": tuned.present,
            "positions": tuned.positions[0],
        },
        "planned": {
            "buckets": [list(bucket) for bucket in tuned.plan.buckets],
            "waste": tuned.waste,
            "positions": tuned.positions[1],
        },
        "saving": tuned.saving,
    }


def _told(tuned: Tuned, seen: Seen) -> str:
    items = sum(tuned.plan.histogram.values())
    rows = (("present", seen.buckets, tuned.present), ("planned", tuned.plan.buckets, tuned.waste))
    lines = [f"{items} items seen, by {tuned.plan.cost}:"]
    for what, buckets, waste in rows:
        lines.append(f"  {what}: waste {waste:.3f} with {' '.join(map(bucket_name, buckets))}")
    return "\n".join([*lines, f"  saves {tuned.saving:.1%} of the cost"])


def _measured(
    client: Client, name: str, old: str, new: str, before: Scrape, seconds: float
) -> Optional[Dict[str, float]]:
    """Waste by positions and seconds per item of the old version until the swap, and of the new one from now
    on; None where nothing comes."""
    start = client.scrape()
    time.sleep(max(seconds, STEP))
    spent = client.scrape().since(start)
    figures = {}
    for when, scrape, version in (("before", before, old), ("after", spent, new)):
        labels = {"model_name": name, "model_version": version}
        real = scrape.total("anyshape_real_positions_total", **labels)
        items = scrape.total("anyshape_items_total", **labels)
        if not real or not items:
            return None
        figures[f"waste_{when}"] = scrape.total("anyshape_padded_positions_total", **labels) / real
        figures[f"seconds_{when}"] = scrape.total("anyshape_call_duration_seconds_sum", **labels) / items
        figures[f"items_{when}"] = items
    return figures


def _told_measured(measured: Optional[Dict[str, float]], tuned: Tuned, seconds: float) -> str:
    if measured is None:
        return f"nothing came in {seconds:.0f} s: what it saves was not measured"
    before, after = measured["waste_before"], measured["waste_after"]
    ms = [measured[key] * 1e3 for key in ("seconds_before", "seconds_after")]
    saved = 1 - ms[1] / ms[0] if ms[0] else math.nan
    return (
        f"measured on {measured['items_after']:.0f} items: padded ÷ real positions {after:.3f}, predicted "
        f"{tuned.positions[1]:.3f}, before {before:.3f}; {ms[1]:.2f} ms an item in the model, before "
        f"{ms[0]:.2f} ({saved:+.1%} saved)"
    )
