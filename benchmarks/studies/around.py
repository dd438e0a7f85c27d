"""`python -m benchmarks around`: what a request costs a worker around its model.

    python -m benchmarks around                                  # model_store/minilm.mar, 32 short texts
    python -m benchmarks around --batch 1 --workload paragraphs

TorchServe's own worker code gets messages over a socket as the frontend writes them, and the programs answer
at once with the same numbers. Microseconds of processor time per request, the least of many batches, which
hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import logging
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

import anyshape.model
from anyshape.costs import CostTable
from anyshape.packed import RECIPE, unpack
from anyshape.programs import Programs
from benchmarks.paths import MODEL_STORE, ROOT
from benchmarks.serving import workloads

WIDTH = 384  # of MiniLM's vectors
HEADERS = {  # what a common client sends
    "Host": "127.0.0.1:8080",
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "Connection": "keep-alive",
    "User-Agent": "python-httpx/0.28.1",
    "Authorization": "Bearer abcdefgh",
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Length": "40",
}


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks around",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--archive", type=Path, default=MODEL_STORE / "minilm.mar", help="of embeddings")
    parser.add_argument("--workload", default="short")
    parser.add_argument("--batch", type=int, default=32, help="requests that the frontend hands over at once")
    parser.add_argument("--batches", type=int, default=400)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    sys.argv = sys.argv[:1]
    bodies = workloads.load_bodies(given.workload)
    with tempfile.TemporaryDirectory() as folder:
        unpack(given.archive, Path(folder))
        stages = measure(Path(folder), bodies, given.batch, given.batches)
    print(f"{given.batch} requests at once, {given.workload}; processor time per request:")
    for stage, seconds in stages.items():
        print(f"{seconds / given.batch * 1e6:8.1f} µs  {stage}")
    print(f"{sum(stages.values()) / given.batch * 1e6:8.1f} µs  together")
    return 0


def measure(folder: Path, bodies: list[bytes], batch: int, batches: int) -> dict[str, float]:
    """Seconds of processor time per batch of each stage, the least that was seen."""
    handler, service = worker(folder)
    timed: dict[str, float] = {}
    for stage in ("_read", "preprocess", "inference", "postprocess", "_count"):
        setattr(handler, stage, timing(timed, stage, getattr(handler, stage)))
    ours, frontend = socket.socketpair()
    frontend.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
    from ts.protocol.otf_message_handler import retrieve_msg

    rounds: list[dict[str, float]] = []
    with ours, frontend:
        for i in range(batches):
            frontend.sendall(message([bodies[(i * batch + j) % len(bodies)] for j in range(batch)]))
            timed.clear()
            begun = time.process_time()
            _, sent = retrieve_msg(ours)
            came = time.process_time()
            service.predict(sent)
            ended = time.process_time()
            rounds.append({"retrieve": came - begun, "predict": ended - came, **timed})
    least = {key: min(each[key] for each in rounds) for key in rounds[0]}
    own = sum(least[key] for key in timed)
    return {
        "the frontend's message read": least["retrieve"],
        "bodies and parameters": least["_read"],
        "tokens": least["preprocess"],
        "planned, padded, cut": least["inference"],
        "answers in JSON": least["postprocess"],
        "sizes and metrics": least["_count"],
        "TorchServe's service, headers, the answer's message": least["predict"] - own,
    }


def worker(folder: Path) -> tuple[Any, Any]:
    """The handler of an unpacked archive, in TorchServe's service, with programs that do nothing."""
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.service import Service

    from handler.bucketed_handler import BucketedHandler

    logging.disable(logging.INFO)
    metrics = MetricsCacheYamlImpl(config_file_path=str(ROOT / "anyshape" / "server" / "metrics.yaml"))
    metrics.initialize_cache()
    handler = BucketedHandler()
    service = Service("model", str(folder), {}, handler.handle, None, 32, metrics_cache=metrics)
    service.set_cl_socket(None)
    service.context.model_yaml_config = yaml.safe_load((folder / RECIPE).read_text())
    for name in ("measure", "warm_kept"):
        setattr(anyshape.model, name, costs)
    handler.initialize(service.context)
    rows = torch.rand(handler.model.costs.largest_batch, WIDTH)
    loaded: dict[str, Any] = handler.model.programs.loaded
    for name in list(loaded):
        loaded[name] = lambda *tensors: rows[: len(tensors[0])]
    return handler, service


def costs(programs: Programs, *_: object, **__: object) -> CostTable:
    """By volume: nothing is warmed."""
    index = programs.index
    return CostTable.by_volume(index.shapes, dynamic_batch=index.dynamic_batch, unpadded=index.unpadded)


def timing(spent: dict[str, float], stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        begun = time.process_time()
        try:
            return call(*arguments)
        finally:
            spent[stage] = time.process_time() - begun

    return timed


def message(bodies: list[bytes]) -> bytes:
    """A batch as the frontend writes it."""
    parts: list[bytes | None] = []
    for i, body in enumerate(bodies):
        parts += [f"5d3c1f0e-0000-4000-8000-{i:012d}".encode()]
        parts += [part.encode() for pair in HEADERS.items() for part in pair]
        parts += [None, b"body", b"text/plain", body, None]
    fields = (struct.pack("!i", -1 if part is None else len(part)) + (part or b"") for part in parts)
    return b"I" + b"".join(fields) + struct.pack("!i", -1)
