"""The load generator against wrk: the same server, connections and inputs, one after the other.

    apt-get install wrk && python -m benchmarks crosscheck --system onnx

wrk is an independent closed-loop generator written in C; two that agree are both believed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.serving import load, systems, workloads
from benchmarks.serving.workloads import Workload

SCRIPT = """\
local bodies = {{ {bodies} }}
local place = 0
request = function()
  place = place % #bodies + 1
  return wrk.format("POST", "{path}", {{["Content-Type"] = "{content_type}"}}, bodies[place])
end
done = function(summary, latency, requests)
  io.write(string.format("RESULT %f %f %f %d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, summary.errors.status))
end
"""


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks crosscheck",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--system", default="onnx")
    parser.add_argument("--workload", default="short")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(argv)
    if not shutil.which("wrk"):
        parser.error("wrk is missing: apt-get install wrk")
    workload = workloads.load(given.workload)
    system = systems.find(given.system)
    folder = system.folder()
    running = system.start(folder)
    plan = load.Plan(
        port=running.port,
        requests=system.requests(workload),
        judge=system.judge(workload),
        connections=given.connections,
        seconds=given.seconds,
    )
    try:
        for _ in range(given.rounds):
            ours = load.generate(plan)
            show("ours", ours.requests_per_second, ours.percentile(50), ours.percentile(99))
            script = folder / "wrk.lua"
            script.write_text(lua(system.path, workload))
            show("wrk", *ask_wrk(running.port, script, given.connections, given.seconds))
    finally:
        running.stop()
    return 0


def ask_wrk(port: int, script: Path, connections: int, seconds: int) -> tuple[float, float, float]:
    """Requests per second, p50 and p99 in milliseconds. Raises RuntimeError if any answer was not 200."""
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "30s"]
    command += ["-s", str(script), f"http://127.0.0.1:{port}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    match = re.search(r"RESULT (\S+) (\S+) (\S+) (\d+)", said)
    if match is None or int(match.group(4)):
        raise RuntimeError(f"wrk had errors:\n{said}")
    return float(match.group(1)), float(match.group(2)), float(match.group(3))


def lua(path: str, workload: Workload) -> str:
    bodies = ", ".join('"' + "".join(f"\\{byte:03d}" for byte in body) + '"' for body in workload.bodies)
    return SCRIPT.format(bodies=bodies, path=path, content_type=workload.content_type)


def show(name: str, rate: float, p50: float, p99: float) -> None:
    print(f"{name:5} {rate:8.1f} req/s  p50 {p50:7.1f} ms  p99 {p99:7.1f} ms", flush=True)
