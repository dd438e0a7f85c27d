"""Tries models in forks of one process, which imported the libraries once; else as `runner`."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Sequence

from benchmarks.zoo.runner import read, told, write


def run_all(
    names: Sequence[str], attempt: Callable[[str], Dict[str, Any]], results: Path, limit: float, log: Path
) -> None:
    """Run ``attempt(name)`` for each name; what it returns goes to `results` under it.

    What a model prints goes to `log`, a folder. An attempt that raises, dies or takes more than `limit`
    seconds is a model that was not tried.
    """
    log.mkdir(parents=True, exist_ok=True)
    for count, name in enumerate(names, 1):
        found = _forked(name, attempt, limit, log / f"{name}.txt")
        known = read(results)
        known[name] = found
        write(known, results)
        print(f"[{count}/{len(names)}] {name}: {told(found)}", flush=True)


def _forked(name: str, attempt: Callable[[str], Dict[str, Any]], limit: float, log: Path) -> Dict[str, Any]:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_attempt, args=(name, attempt, there, log))
    process.start()
    there.close()
    try:
        if not here.poll(limit):
            return {"verdict": "failed", "reason": f"not done after {limit:g} seconds"}
        found: Dict[str, Any] = here.recv()
        return found
    except EOFError:
        process.join(5)
        return {"verdict": "failed", "reason": f"its process died, status {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _attempt(name: str, attempt: Callable[[str], Dict[str, Any]], answer: Any, log: Path) -> None:
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        try:
            answer.send(attempt(name))
        except Exception as error:  # the plain model does not run, or somebody must look at it
            traceback.print_exc()
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            answer.send({"verdict": "failed", "reason": reason})
