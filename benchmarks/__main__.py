"""`python -m benchmarks COMMAND ...`: measurements, each a module with `run(argv)`."""

from __future__ import annotations

import importlib
import sys

SERVING = {
    "serving": "requests per second and latencies of every system, side by side, over HTTP",
    "sweep": "cost against connections, workers and number of buckets",
    "front": "what the proxy before TorchServe costs beside asking it directly",
    "faces": "TorchServe beside Ray Serve, with the same archive on the same cores",
    "profile": "where the time of a saturated server goes",
    "early": "latencies under load, with answers that leave as their calls end and without",
    "ready": "from the start of a server to READY, with the costs that an archive keeps and without",
    "recovery": "how long nobody is answered after a worker or the frontend was killed, and who waits",
    "capacity": "what `anyshape capacity` predicts, beside what a real server does",
    "figures": "write docs/benchmarks.md and its pictures from benchmarks/results/latest.json",
    "crosscheck": "the load generator against wrk, on one server",
}
STUDIES = {
    "gemm": "the machine's measured matrix-multiply peak",
    "backends": "one call of each CPU backend, interleaved in one process",
    "freezing": "what freezing a trace gains over folding batch norms before it",
    "openvino": "hand-overs of texts by archives on OpenVINO and by OpenVINO alone",
    "packing": "policies of turning a batch into calls",
    "shapes": "one program for every length against one program per bucket",
    "rows": "rows of whole texts against one text to a row",
    "sharing": "what a further bucket costs in bytes and memory",
    "around": "what a request costs a worker around its model",
    "score": "`anyshape score` beside sentence-transformers' encode_multi_process and a plain loop",
    "planning_time": "how long planning a batch takes",
    "exactness": "answers of padded models against unpadded ones",
}
COMMANDS = {**SERVING, **STUDIES}


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        for name, about in COMMANDS.items():
            print(f"  {name:14} {about}")
        print("\nEach has a --help of its own.")
        return 0
    if argv[0] not in COMMANDS:
        print(f"no command {argv[0]!r}: choose from {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    room = "serving" if argv[0] in SERVING else "studies"
    try:
        module = importlib.import_module(f"benchmarks.{room}.{argv[0]}")
    except ModuleNotFoundError as missing:
        needed = "make cluster" if argv[0] in ("capacity", "score", "faces") else "make .venv/bench.stamp"
        print(f"error: {missing.name} is not installed; run: {needed}", file=sys.stderr)
        return 1
    return module.run(argv[1:]) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
