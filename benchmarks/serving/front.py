"""What the front costs beside asking TorchServe directly: one server, both ways by turns, answers checked.

    python -m benchmarks front                     # model_store/minilm.mar
    python -m benchmarks front --workload paragraphs --seconds 10

Latency: one connection each way, asked alternately for an answer that needs no model. Throughput: the
workload at saturation, in rounds, direct and through the front by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from anyshape.server.front import FrontProcess
from anyshape.server.ports import free_ports
from anyshape.server.torchserve import TorchServe
from benchmarks.paths import ROOT
from benchmarks.serving import load, workloads
from benchmarks.serving.client import Connection
from benchmarks.serving.judging import Judge


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks front",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--archive", type=Path, default=ROOT / "model_store" / "minilm.mar")
    parser.add_argument("--workload", default="short")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000, help="of each way, for the latency")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.properties"
        write_config(config)
        archive: Path = given.archive
        server = TorchServe(config, store=archive.parent, run=Path(folder) / "run", models=[archive.stem])
        with server:
            server.wait_ready(archive.stem, seconds=600)
            front = FrontProcess(server, dict(zip(("port", "metrics_port"), free_ports(2))))
            front.start()
            try:
                measure(server, front, archive.stem, given)
            finally:
                front.stop()
    return 0


def measure(server: TorchServe, front: FrontProcess, model: str, given: argparse.Namespace) -> None:
    workload = workloads.load(given.workload)
    ways = {
        "direct": (int(server.inference.rsplit(":", 1)[1]), server.key("inference")),
        "front": (front.port, front.token()),
    }
    plans = {
        way: load.Plan(
            port=port,
            requests=[
                render("POST", f"/predictions/{model}", token, body, workload.content_type)
                for body in workload.bodies
            ],
            judge=Judge(workload.references),
            connections=given.connections,
            seconds=given.seconds,
        )
        for way, (port, token) in ways.items()
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    spent = psutil.Process(front.process.pid) if front.process else None
    for number in range(given.rounds):
        for way, plan in plans.items():
            before = sum(spent.cpu_times()[:2]) if spent else 0.0
            result = load.generate(plan)
            if result.wrong or result.errors:
                raise SystemExit(f"{way}: {result.wrong} wrong answers, statuses {result.statuses}")
            rates[way].append(result.requests_per_second)
            cpu = (sum(spent.cpu_times()[:2]) if spent else 0.0) - before
            total = result.requests_per_second * (plan.seconds + plan.warm_seconds)
            each = f", front's CPU {cpu / total * 1e3:.3f} ms per request" if way == "front" else ""
            print(
                f"round {number + 1}  {way:7} {result.requests_per_second:7.1f} requests/s  "
                f"p50 {result.percentile(50):6.2f} ms  p99 {result.percentile(99):6.2f} ms{each}",
                flush=True,
            )
    seconds = asyncio.run(_alternate(ways, f"/predictions/{model}/1.0/health", given.requests))
    for way, taken in seconds.items():
        low, middle, high = np.percentile(np.array(taken) * 1e3, [5, 50, 95])
        print(f"one connection  {way:7} p5 {low:.3f} ms  p50 {middle:.3f} ms  p95 {high:.3f} ms")
    added = np.median(np.array(seconds["front"]) - np.array(seconds["direct"])) * 1e3
    share = np.median(rates["front"]) / np.median(rates["direct"])
    print(f"\nThe front adds {added:.3f} ms (median of pairs), and has {share:.1%} of the direct throughput.")


def render(method: str, path: str, token: str, body: bytes = b"", kind: str = "text/plain") -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


async def _alternate(ways: dict[str, tuple[int, str]], path: str, count: int) -> dict[str, list[float]]:
    """Seconds of each request, one way after the other, so that both see the same machine."""
    connections = {way: await Connection.open("127.0.0.1", port) for way, (port, _) in ways.items()}
    requests = {way: render("POST", path, token, b"{}") for way, (_, token) in ways.items()}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(count + count // 10):
        for way, connection in connections.items():
            started = time.perf_counter()
            answer = await connection.ask(requests[way])
            taken = time.perf_counter() - started
            if answer.status != 200:
                raise SystemExit(f"{way}: status {answer.status}: {answer.body!r}")
            if turn >= count // 10:  # the first ones warm
                seconds[way].append(taken)
    return seconds


def write_config(path: Path) -> None:
    """The project's settings on free ports."""
    text = (ROOT / "config.properties").read_text(encoding="utf-8")
    for usual, free in zip((8080, 8081, 8082, 7070, 7071), free_ports(5)):
        text = text.replace(f":{usual}\n", f":{free}\n").replace(f"={usual}\n", f"={free}\n")
    path.write_text(text, encoding="utf-8")
