"""Tries models, each in a process of its own with a time limit, and keeps what came out in a JSON file.

A run that was stopped goes on where it was: what has an answer is not tried again, unless it is asked for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence

MARK = "zoo-result: "  # a trial prints its answer behind it


def run_all(names: Sequence[str], command: Callable[[str], List[str]], results: Path, limit: float) -> None:
    """Run ``command(name)`` for each name; what it prints behind MARK as JSON goes to `results` under it."""
    for count, name in enumerate(names, 1):
        found = run_one(command(name), limit)
        known = read(results)
        known[name] = found
        write(known, results)
        print(f"[{count}/{len(names)}] {name}: {told(found)}", flush=True)


def run_one(command: Sequence[str], limit: float) -> Dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        start_new_session=True, errors="replace",
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # and the workers that it started
        process.communicate()
        return {"verdict": "failed", "reason": f"not done after {limit:g} seconds"}
    for line in reversed(printed.splitlines()):
        if line.startswith(MARK):
            found: Dict[str, Any] = json.loads(line[len(MARK) :])
            return found
    last = (printed.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
    return {"verdict": "failed", "reason": last[:500]}


def told(found: Mapping[str, Any]) -> str:
    if "deviation" in found:
        return f"{found['verdict']}, {found['deviation']:.1e}"
    return f"{found['verdict']}: {found.get('reason', '')}"


def say(found: Mapping[str, Any]) -> None:
    print(MARK + json.dumps(found), flush=True)


def read(results: Path) -> Dict[str, Any]:
    return json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}


def write(known: Mapping[str, Any], results: Path) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    part = results.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(results)


def python(*arguments: str) -> List[str]:
    return [sys.executable, "-W", "ignore", *arguments]
