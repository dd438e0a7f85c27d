"""`python -m benchmarks recovery`: how long nobody is answered after something was killed, and who waits.

    python -m benchmarks recovery                                       # model_store/minilm.mar
    python -m benchmarks recovery --archive model_store/minilm-inductor.mar --rounds 3

`anyshape serve --front` under clients that ask without a pause, each waiting 0.1 s after a refusal. Killed
(SIGKILL) are the only worker, one of two, and TorchServe's frontend. Answers are judged. Processor time
counts where others use the machine, too.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from anyshape.front.tokens import first
from anyshape.server.checks import ServeError
from anyshape.server.client import Client
from anyshape.server.ports import free_ports
from anyshape.server.torchserve import TorchServe
from benchmarks.paths import MODEL_STORE, ROOT, WORK
from benchmarks.serving import workloads
from benchmarks.serving.client import Connection
from benchmarks.serving.front import render, write_config
from benchmarks.serving.judging import Judge
from benchmarks.serving.systems.processes import Server, ServerFailed, environment, get_text
from benchmarks.serving.workloads import Workload

PAUSE = 0.1  # seconds that a client waits after a refusal: sooner than Retry-After says, to see what comes
READY_SECONDS = 300.0
WORKER = "model_service_worker"
# What is killed: (words, workers before, what its command names).
FAULTS = (
    ("the only worker", 1, WORKER),
    ("one of two workers", 2, WORKER),
    ("TorchServe's frontend", 2, "java -Dmodel_server_home"),
)


@dataclass
class Asked:
    """One request: when it was sent and answered (time.perf_counter()), and what came. status 0: none."""

    sent: float
    answered: float
    status: int
    says_when: bool
    wrong: bool


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks recovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--archive", type=Path, default=MODEL_STORE / "minilm.mar")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    given = parser.parse_args(argv)
    folder = WORK / "recovery"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    workload = workloads.load("short")
    archive: Path = given.archive.resolve()
    served = Served(folder, archive)
    print(
        "| killed | nobody is answered for | longest wait | refused | slowest refusal | wrong, lost "
        "| processor time of a new worker |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    try:
        for words, workers, command in FAULTS:
            for _ in range(given.rounds):
                served.scale(workers)
                asked, killed, spent = asyncio.run(
                    under_fire(served, workload, command, workers, given.clients)
                )
                print(row(words, asked, killed, spent), flush=True)
    finally:
        served.server.stop()
    return 0


class Served:
    """`anyshape serve --front` with one archive."""

    def __init__(self, folder: Path, archive: Path) -> None:
        config, log = folder / "config.properties", folder / "server.log"
        write_config(config)
        described = TorchServe(
            config, store=archive.parent, run=folder / "run"
        )  # never started: its addresses
        self.model = archive.stem
        self.client = Client(described.management, described.key_file)
        self.port, metrics = free_ports(2)
        command = [
            *(
                sys.executable,
                "-m",
                "anyshape",
                "serve",
                "--config",
                str(config),
                "--store",
                str(archive.parent),
            ),
            *("--model", self.model, "--run", str(folder / "run"), "--front"),
            *("--front-port", str(self.port), "--front-metrics-port", str(metrics)),
        ]
        environ = environment(folder, PYTHONPATH=str(ROOT))
        self.server = Server(
            command, folder, environ, lambda: "Ctrl-C stops" in log.read_text(errors="replace")
        )
        self.token = first(folder / "run" / "tokens.txt")

    def kill(self, command: str) -> float:
        """Kill one of its processes whose command names this; returns time.perf_counter()."""
        self.named(command)[0].kill()
        return time.perf_counter()

    def named(self, command: str) -> list[psutil.Process]:
        """Its processes whose command names this."""
        found = []
        for process in self.server.family():
            with suppress(psutil.NoSuchProcess):  # it is just ending
                if command in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def scale(self, workers: int) -> None:
        """Have so many workers, all READY, and the front see them."""
        path = f"/models/{self.model}"
        self.client.manage("PUT", path, min_worker=workers, max_worker=workers, synchronous="true")
        self.wait_ready(workers)

    def wait_ready(self, workers: int) -> float:
        """Wait until so many are READY; the processor seconds that the youngest took for it."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready(workers):
            if time.monotonic() > deadline:
                raise ServerFailed(f"not READY again within {READY_SECONDS:.0f} s: {self.server.log}")
            time.sleep(0.05)
        times = max(self.named(WORKER), key=lambda process: process.create_time()).cpu_times()
        return float(times.user + times.system)

    def ready(self, workers: int) -> bool:
        try:
            described = self.client.versions(self.model)
        except ServeError:
            return False  # TorchServe is not there
        states = [worker["status"] for worker in described[0]["workers"]] if described else []
        return states == ["READY"] * workers and get_text(self.port, "/readyz") is not None


async def under_fire(
    served: Served, workload: Workload, command: str, workers: int, clients: int
) -> tuple[list[Asked], float, float]:
    """All that was asked from a second before a kill to a second after all is READY again; when it was; the
    processor seconds of a worker that came."""
    asked: list[Asked] = []
    judge, stopped = Judge(workload.references), asyncio.Event()
    path = f"/predictions/{served.model}"
    requests = [render("POST", path, served.token, body, workload.content_type) for body in workload.bodies]
    tasks = [
        asyncio.ensure_future(ask(served.port, requests, judge, number, asked, stopped))
        for number in range(clients)
    ]
    await asyncio.sleep(1)
    killed = await asyncio.to_thread(served.kill, command)
    await asyncio.sleep(1)
    spent = await asyncio.to_thread(served.wait_ready, workers)
    await asyncio.sleep(1)
    stopped.set()
    await asyncio.gather(*tasks)
    return asked, killed, spent


async def ask(
    port: int, requests: list[bytes], judge: Judge, number: int, asked: list[Asked], stopped: asyncio.Event
) -> None:
    """One client: it asks until it is told to stop, and connects again where it was hung up on."""
    connection: Connection | None = None
    while not stopped.is_set():
        number = (number + 7) % len(requests)
        sent = time.perf_counter()
        try:
            if connection is None or connection.closed:
                connection = await Connection.open("127.0.0.1", port)
            answer = await connection.ask(requests[number])
        except ConnectionError:
            asked.append(Asked(sent, time.perf_counter(), 0, False, False))
            await asyncio.sleep(PAUSE)
            continue
        wrong = answer.status == 200 and judge.deviation(number, answer.body) > judge.tolerance
        told = "retry-after" in answer.headers
        asked.append(Asked(sent, time.perf_counter(), answer.status, told, wrong))
        if answer.status != 200:
            await asyncio.sleep(PAUSE)


def row(words: str, asked: list[Asked], killed: float, spent: float) -> str:
    """A line of the table. Nobody is answered for as long as the longest pause between two answers lasts."""
    right = sorted(one.answered for one in asked if one.status == 200)
    pauses = [later - earlier for earlier, later in zip(right, right[1:]) if later > killed]
    after = [one for one in asked if one.answered > killed]
    refused = [one for one in after if one.status == 503 and one.says_when]
    strange = len([one for one in after if one.status not in (0, 200)]) - len(refused)
    waits = {
        "any": max(one.answered - one.sent for one in after),
        "refused": max((one.answered - one.sent for one in refused), default=0.0),
    }
    wrong, lost = sum(one.wrong for one in asked), sum(one.status == 0 for one in asked)
    others = f", {strange} other answers" if strange else ""
    return (
        f"| {words} | {max(pauses):.1f} s | {waits['any']:.1f} s | {len(refused)} | {waits['refused']:.1f} s "
        f"| {wrong}, {lost}{others} | {spent:.1f} s |"
    )
