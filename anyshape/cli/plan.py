"""`anyshape plan`: propose buckets from data, show what they save, say whether they fit."""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from anyshape.archive import read_packed
from anyshape.buckets import Bucket, fits
from anyshape.building.planning import inputs
from anyshape.building.planning.cost_models import AreaCost, Cost, FlopsCost, MeasuredCost
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.inputs import Histogram
from anyshape.building.planning.plan import make_plan, memory_bucket_limit, neuron_bucket_limit, plan_waste
from anyshape.building.planning.rows import plan_depths
from anyshape.building.planning.show import show_depths, show_plan, show_traffic
from anyshape.cli.numbers import count
from anyshape.costs import CostRow
from anyshape.errors import ConfigError
from anyshape.layouts import ROWS
from anyshape.server.seen import Seen, ask_seen, read_token, without_earlier

HELP = """\
Propose the buckets that waste least compute on the inputs that really come.

Waste is padded ÷ real cost: 1.25 means that a quarter more is computed than the inputs need.
One dimension (tokens) is solved exactly. Two dimensions (height x width) are searched by greedy choice
and swaps; --exact adds a proved optimum over a coarse grid of sides. A plan always holds the
maximum of each side.
"""
EXAMPLES = """\
where the data may come from
  --lengths FILE   JSON: a list of token counts [37, 120], of pairs [length, count], a histogram
                   {"37": 12}, or named counts {"pair": [0, 3, 9]} (index = length; pick with --field).
                   Or a text file, one input per line, with --tokenizer.
  --sizes FILE     JSON: [[height, width], ...] or [[height, width, count], ...]; with --width-first
                   [width, height], as COCO has it.
  --images DIR     a folder of pictures; only their headers are read, as the server reads them.
  --server URL     what the model named by --model has seen on a running server (management address)
                   since it was registered, or with --since FILE since FILE was saved, which holds an
                   earlier answer of URL/models/NAME?customized=true.

what a bucket costs (--cost)
  area      positions, real or padded. The default.
  flops     modelled operations of a transformer encoder (--hidden-size, default 768).
  measured  seconds from a table: --costs FILE, a JSON list of
            {"bucket": [128], "batch_size": 1, "seconds": 0.01} or an archive that was measured, or the
            server's own. The default where there is such a table.

how many (--buckets)
  A number, or auto: the knee of the waste curve. Fewer if the memory does not hold them:
  --weights N                            Inferentia: round(1e9 / N) per NeuronCore, more or less with
                                         another --memory-limit than its 2 GB
  --memory-limit 2GB --bytes-per-bucket 92MB --workers 2
  --memory-limit 2GB --costs model.mar   with the bytes of the archive's own buckets

rows of whole texts (--layout rows)
  Which lengths of rows, how many programs, and what they waste on batches of --depth texts, beside buckets
  of one text to a row in as many programs as fit. A program is a length and a batch size, as on
  accelerators; --weights N or --memory-limit with --bytes-per-bucket bounds how many there may be.

examples
  anyshape plan --lengths tests/data/mrpc_test_token_lengths.json --field pair --buckets 4
  anyshape plan --sizes tests/data/coco_val2017_sizes.json --width-first --align 32 --plot plan.png
  anyshape plan --server http://127.0.0.1:8081 --model minilm --token-file run/key_file.json
  anyshape plan --layout rows --weights 110000000 --lengths data.json --field pair
"""
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1, "": 1}


@dataclass(frozen=True)
class Measured:
    """What a --costs file brings: a cost table, and for an archive the bytes of its buckets."""

    table: List[CostRow]
    bytes_per_bucket: Optional[float] = None
    shared_bytes: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    source = parser.add_argument_group("data (one of)").add_mutually_exclusive_group(required=True)
    source.add_argument("--lengths", type=Path, metavar="FILE", help="token counts, or raw texts")
    source.add_argument("--sizes", type=Path, metavar="FILE", help="heights and widths")
    source.add_argument("--images", type=Path, metavar="DIR", help="a folder of pictures")
    source.add_argument("--texts", type=Path, metavar="FILE", help="raw texts, one per line")
    source.add_argument("--server", metavar="URL", help="a running server's management address")
    parser.add_argument("--field", metavar="NAME", help="which of several histograms in --lengths")
    parser.add_argument("--width-first", action="store_true", help="--sizes says [width, height]")
    parser.add_argument("--tokenizer", metavar="T", help="hub id, folder, or package:NAME/FOLDER")
    parser.add_argument("--model", metavar="NAME", help="the model's name on the --server")
    parser.add_argument("--since", type=Path, metavar="FILE", help="an earlier answer of the --server")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="the server's key_file.json")
    parser.add_argument("--token", metavar="T", help="the management token itself")
    parser.add_argument("--buckets", type=_buckets, default="auto", metavar="K", help="or auto")
    parser.add_argument("--align", type=count, default=1, metavar="N", help="sides: multiples of N")
    parser.add_argument("--exact", action="store_true", help="prove it by integer programming")
    parser.add_argument("--cost", choices=["area", "flops", "measured"], help="what to minimise")
    parser.add_argument("--costs", type=Path, metavar="FILE", help="a measured table, or an archive")
    parser.add_argument("--hidden-size", type=count, default=768, metavar="D", help="for --cost flops")
    parser.add_argument("--memory-limit", type=_bytes, metavar="SIZE", help="such as 2GB")
    parser.add_argument("--bytes-per-bucket", type=_bytes, metavar="SIZE", help="such as 92MB")
    parser.add_argument("--weights", type=count, metavar="N", help="parameters, for Inferentia's rule")
    parser.add_argument("--workers", type=count, default=1, metavar="N", help="each loads every bucket")
    parser.add_argument("--layout", choices=["items", "rows"], default="items", help="what a row holds")
    parser.add_argument("--depth", type=_count, default=32, metavar="N", help="rows: texts in a batch (32)")
    parser.add_argument("--segments", type=_count, default=32, metavar="N", help="rows: most texts in a row")
    parser.add_argument(
        "--batch-sizes", type=_numbers, default=[1, 8], metavar="N,N", help="rows: of a call (1,8)"
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the plan")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")


def run(args: argparse.Namespace) -> int:
    """Plan and print. Returns 0, or 1 after one line on stderr that says what to do."""
    try:
        _run(args)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> None:
    if args.since and not args.server:
        raise PlanError("--since needs --server: it leaves out what that server had seen before")
    seen = _seen(args) if args.server else None
    histogram = seen.histogram if seen else _read(args)
    measured = _read_costs(args.costs) if args.costs else Measured([])
    if args.layout == ROWS:
        _plan_rows(args, histogram, _limit(args, measured))
        return
    table = measured.table or (seen.costs if seen else [])
    cost = _cost(args, table)
    plan = make_plan(
        histogram,
        args.buckets,
        cost,
        align=args.align,
        exact=args.exact,
        limit=_limit(args, measured),
    )
    comparison = _compare(seen, plan.buckets, cost) if seen else None
    if seen and _pads_nothing(seen.buckets):
        least, most = seen.buckets[0][0], seen.buckets[-1][0]
        print(
            f"note: {args.model} has a bucket of every length from {least} to {most} and pads nothing; "
            "buckets as planned pad, which not every model bears: the build compares",
            file=sys.stderr,
        )
    if args.plot:
        from anyshape.building.planning.plot import draw_plan  # matplotlib, which only --plot needs

        draw_plan(plan, args.plot)
    if args.json:
        for note in plan.notes:
            print(f"note: {note}", file=sys.stderr)
        answer = plan.figures()
        if comparison:
            answer["traffic"] = comparison
        print(json.dumps(answer))
        return
    show_plan(plan)
    if comparison:
        show_traffic(comparison)
    if args.plot:
        print(f"drawn in {args.plot}")


def _plan_rows(args: argparse.Namespace, histogram: Histogram, limit: Optional[int]) -> None:
    if any(len(size) != 1 for size in histogram):
        raise PlanError("--layout rows is for texts: rows have one length")
    if args.plot or args.exact or args.cost:
        raise PlanError(
            "--layout rows packs batches by a modelled cost: leave out --plot, --exact and --cost"
        )
    lengths = {size[0]: count for size, count in histogram.items()}
    count = None if args.buckets == "auto" else args.buckets
    plans = plan_depths(lengths, args.depth, args.batch_sizes, args.segments, limit, args.align, count)
    if args.json:
        print(json.dumps({"plans": [plan.to_json() for plan in plans], "limit": limit}))
    else:
        show_depths(plans, sum(lengths.values()), limit, args.segments)


def _read(args: argparse.Namespace) -> Histogram:
    if args.lengths:
        return inputs.read_lengths(args.lengths, args.field, args.tokenizer)
    if args.texts:
        return inputs.read_texts(args.texts, args.tokenizer)
    if args.sizes:
        return inputs.read_sizes(args.sizes, args.width_first)
    histogram, others = inputs.read_images(args.images)
    if others:
        print(f"note: left out {others} file(s) that the server would not read as pictures", file=sys.stderr)
    return histogram


def _seen(args: argparse.Namespace) -> Seen:
    if not args.model:
        raise PlanError("--server needs --model NAME: which model's traffic to plan from")
    token = args.token
    if token is None and args.token_file:
        token = read_token(args.token_file)
    seen = ask_seen(args.server, args.model, token)
    return without_earlier(seen, args.since) if args.since else seen


def _cost(args: argparse.Namespace, table: List[CostRow]) -> Cost:
    wanted = args.cost or ("measured" if table else "area")
    if wanted == "flops":
        return FlopsCost(args.hidden_size)
    if wanted == "area":
        return AreaCost()
    if not table:
        raise PlanError("--cost measured needs a table: --costs FILE, or a --server that measured")
    return MeasuredCost(table)


def _read_costs(path: Path) -> Measured:
    """A JSON table, or an archive's buckets.json with its table and the bytes of its buckets."""
    if path.suffix != ".mar" and not zipfile.is_zipfile(path):
        return Measured(inputs.read_table(path))
    packed = read_packed(path)
    programs = packed.index.programs
    stored = sum(packed.files.get(name, 0) for name in {program.file for program in programs})
    added: Counter[Bucket] = Counter()
    for program in programs:
        added[program.bucket] += program.size
    # What the files hold beyond what each bucket adds, such as weights shared by all, counts once.
    shared = max(0, stored - sum(added.values()))
    return Measured(packed.index.costs, max(added.values()) or None, shared)


def _limit(args: argparse.Namespace, measured: Measured) -> Optional[int]:
    """How many buckets the memory holds, or None if nothing was said of memory."""
    if args.weights is not None:
        return neuron_bucket_limit(args.weights, args.memory_limit or 2_000_000_000)
    per_bucket = args.bytes_per_bucket or measured.bytes_per_bucket
    if args.memory_limit is None:
        if args.bytes_per_bucket:
            raise PlanError("--bytes-per-bucket needs --memory-limit, such as 2GB")
        return None
    if not per_bucket:
        raise PlanError(
            "--memory-limit needs to know what a bucket takes: --bytes-per-bucket 92MB, --weights N "
            "(Inferentia), or --costs with an archive"
        )
    return memory_bucket_limit(args.memory_limit, per_bucket, args.workers, measured.shared_bytes)


def _compare(seen: Seen, buckets: Any, cost: Cost) -> Dict[str, Any]:
    """Present against proposed buckets, on the items that the present ones take.

    "waste" is by `cost`; "positions" is padded ÷ real positions, which the server's own counters show.
    """
    taken = {size: count for size, count in seen.histogram.items() if fits(size, seen.buckets)}
    if not taken:
        raise PlanError("none of the sizes seen fits a present bucket: nothing to compare with")
    sides = {"present": seen.buckets, "proposed": buckets}
    answer: Dict[str, Any] = {
        name: {
            "buckets": [list(bucket) for bucket in chosen],
            "waste": plan_waste(taken, chosen, cost),
            "positions": plan_waste(taken, chosen),
        }
        for name, chosen in sides.items()
    }
    answer["saving"] = 1 - answer["proposed"]["waste"] / answer["present"]["waste"]
    answer["items"] = sum(seen.histogram.values())
    answer["larger_than_present"] = answer["items"] - sum(taken.values())
    return answer


def _pads_nothing(buckets: Any) -> bool:
    """Whether these are `every length`: one side, and no gaps."""
    lengths = [bucket[0] for bucket in buckets if len(bucket) == 1]
    return len(lengths) == len(buckets) > 2 and lengths == list(range(lengths[0], lengths[-1] + 1))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a positive whole number, not {text!r}")
    return int(text)


def _numbers(text: str) -> List[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"positive whole numbers such as 1,8, not {text!r}")
    return sorted({int(part) for part in parts})


def _buckets(text: str) -> Any:
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a positive whole number or auto, not {text!r}")
    return int(text)


def _bytes(text: str) -> int:
    """ "2GB" → 2,000,000,000; GiB and the like are powers of two."""
    match = re.fullmatch(r"([0-9.]+)\s*([KMG]?I?B?)", text.strip().upper())
    try:
        value = int(float(match[1]) * UNITS[match[2]]) if match else 0
    except (ValueError, KeyError, OverflowError):
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a size such as 2GB or 512MiB, not {text!r}")
    return value
