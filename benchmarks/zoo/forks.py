"""Tries models in forks of one process, which imported the libraries once; else as `runner`."""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

from benchmarks.zoo.runner import read, told, write

PATIENCE = 20  # how much longer than its own computing a model may take, on a machine that does other things


def run_all(
    names: Sequence[str],
    attempt: Callable[[str], Dict[str, Any]],
    results: Path,
    limit: float,
    log: Path,
    more: Optional[Mapping[str, Any]] = None,
) -> None:
    """Run ``attempt(name)`` for each name; what it returns goes to `results` under it, with `more` beside it.

    What a model prints goes to `log`, a folder. An attempt that raises, dies, computes for more than `limit`
    seconds or takes PATIENCE times as long is a model that was not tried.
    """
    log.mkdir(parents=True, exist_ok=True)
    for count, name in enumerate(names, 1):
        found = _forked(name, attempt, limit, log / f"{name.replace('/', '+')}.txt")
        known = read(results)
        known[name] = {**found, **(more or {})}
        write(known, results)
        print(f"[{count}/{len(names)}] {name}: {told(found)}", flush=True)


def _forked(name: str, attempt: Callable[[str], Dict[str, Any]], limit: float, log: Path) -> Dict[str, Any]:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_attempt, args=(name, attempt, there, log, limit))
    process.start()
    there.close()
    try:
        if not here.poll(limit * PATIENCE):
            return {"verdict": "failed", "reason": f"not done after {limit * PATIENCE:g} seconds"}
        found: Dict[str, Any] = here.recv()
        return found
    except EOFError:
        process.join(5)
        if process.exitcode == -signal.SIGXCPU:
            return {"verdict": "failed", "reason": f"not done after {limit:g} seconds of computing"}
        return {"verdict": "failed", "reason": f"its process died, status {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _attempt(
    name: str, attempt: Callable[[str], Dict[str, Any]], answer: Any, log: Path, limit: float
) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit) + 5))
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        try:
            answer.send(attempt(name))
        except Exception as error:  # the plain model does not run, or somebody must look at it
            traceback.print_exc()
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            answer.send({"verdict": "failed", "reason": reason})
