"""Compiles programs in processes of their own, several at once; each is kept in the cache as soon as it is
done.

A compiler runs for minutes and mostly on one core, and what it compiled would stay on this process's
NeuronCore. A process gets the model once, as a file, and then one job after another over its standard input:

    python -m anyshape.building.backends.neuron_processes FOLDER
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch

from anyshape.backends.neuron_cores import NUM_CORES, VISIBLE_CORES, own_cores, visible_cores
from anyshape.building.backends.base import Job, JobFailed
from anyshape.building.cache import Kept
from anyshape.building.errors import BuildError, last_line
from anyshape.threads import cores

if TYPE_CHECKING:
    from anyshape.building.backends.neuron import NeuronFiles

Done = Tuple[Job, Kept, float]
BYTES_EACH = 4 * 2**30  # of memory that a compiler may take
SETUP, MODEL = "setup.json", "model.pt"


def most_processes(wanted: Optional[int], needs_core: bool) -> int:
    """How many compilers run at once: `wanted`, or as many as this machine bears. needs_core: each takes a
    NeuronCore, of which this process may hold its own by then."""
    import psutil

    bearable = wanted or min(cores(), int(psutil.virtual_memory().available) // BYTES_EACH)
    if needs_core:
        bearable = min(bearable, (visible_cores() or 1) - own_cores())
    return max(bearable, 1)


def compile_in_processes(
    compiler: NeuronFiles, model: torch.nn.Module, waiting: Sequence[Tuple[Job, str]], processes: int
) -> Iterator[Done]:
    """Compile every job under its key, in the order in which they finish. Raises JobFailed for the first that
    fails.

    In this process, one by one, where one is enough, or where the model cannot be handed to another.
    """
    if not waiting:
        return
    if processes > 1:
        with tempfile.TemporaryDirectory(prefix="anyshape-compile-") as temporary:
            folder = Path(temporary)
            if _written(compiler, model, folder):
                try:
                    yield from _spread(compiler, waiting, processes, folder)
                    return
                except _NotTaken:
                    pass
    for job, key in waiting:
        started = time.perf_counter()
        try:
            kept = compile_and_keep(compiler, model, job, key)
        except Exception as error:
            raise JobFailed(job.name) from error
        yield job, kept, time.perf_counter() - started


def compile_and_keep(compiler: NeuronFiles, model: torch.nn.Module, job: Job, key: str) -> Kept:
    facts: Dict[str, Any] = {"name": job.name}
    with compiler.cache.keep(key, facts) as path:
        program = compiler.program(model, job.example, job.name)
        facts.update(compiler.made(program))
        torch.jit.save(program, str(path))
        del program  # which lets go of the device's memory
    kept = compiler.cache.find(key)
    if kept is None:
        raise BuildError(
            f"the cache in {compiler.cache.folder} does not keep what is written: is the disk full?"
        )
    return kept


class _NotTaken(Exception):
    """The other process cannot read the model: it is made of code that is only here."""


def _written(compiler: NeuronFiles, model: torch.nn.Module, folder: Path) -> bool:
    """Write down what a process needs. False for a model that cannot be pickled."""
    try:
        torch.save(model, folder / MODEL)
    except (pickle.PicklingError, AttributeError, TypeError, RuntimeError):
        return False
    setup = {
        "backend": compiler.backend.name,
        "options": dict(compiler.backend.settings),
        "path": sys.path,
        "cache": str(compiler.cache.folder),
    }
    (folder / SETUP).write_text(json.dumps(setup), encoding="utf-8")
    return True


def _spread(
    compiler: NeuronFiles, waiting: Sequence[Tuple[Job, str]], processes: int, folder: Path
) -> Iterator[Done]:
    jobs: queue.SimpleQueue[Tuple[Job, str]] = queue.SimpleQueue()
    for job in waiting[::-1]:  # the largest take longest
        jobs.put(job)
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    running = [_Process(folder, number) for number in range(processes)]
    threads = [threading.Thread(target=_feed, args=(process, jobs, results)) for process in running]
    try:
        for thread in threads:
            thread.start()
        for _ in waiting:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            job, key, seconds = result
            kept = compiler.cache.find(key)
            if kept is None:
                raise JobFailed(job.name) from BuildError(f"the cache in {compiler.cache.folder} lost it")
            yield job, kept, seconds
    finally:
        with contextlib.suppress(queue.Empty):
            while True:
                jobs.get_nowait()
        for process in running:
            process.end()
        for thread in threads:
            thread.join()


def _feed(process: _Process, jobs: Any, results: Any) -> None:
    """Give one process job after job, until there are none, it fails, or it is ended."""
    try:
        process.begin()
        while True:
            try:
                job, key = jobs.get_nowait()
            except queue.Empty:
                return
            started = time.perf_counter()
            said = process.ask(job, key)
            if said:
                raise JobFailed(job.name) from BuildError(f"bucket {job.name} does not compile: {said}")
            results.put((job, key, time.perf_counter() - started))
    except BaseException as error:  # told to the thread that waits
        results.put(error)


class _Process:
    """A process that compiles. What the compiler says goes to a file of its own."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.log = folder, folder / f"log-{number}.txt"
        command = [sys.executable, "-m", __name__, str(folder)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        if VISIBLE_CORES not in environment:
            environment[NUM_CORES] = "1"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
            )

    def begin(self) -> None:
        """Wait until it has the model. Raises _NotTaken if it cannot read it."""
        if self._line().get("ready") is not True:
            raise _NotTaken(self.last_words())

    def ask(self, job: Job, key: str) -> str:
        """Have it compile a job. What went wrong, or nothing."""
        file = self.folder / f"job-{job.name}.pt"
        torch.save(
            {"name": job.name, "example": list(job.example), "bucket": list(job.bucket), "key": key}, file
        )
        stdin: IO[bytes] = self.process.stdin  # type: ignore[assignment]
        try:
            stdin.write(f"{file}\n".encode())
            stdin.flush()
        except OSError:
            return f"the compiler's process ended: {self.last_words()}"
        answer = self._line()
        if not answer:
            return f"the compiler's process ended: {self.last_words()}"
        return str(answer.get("error", ""))

    def _line(self) -> Dict[str, Any]:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        return dict(json.loads(line)) if line.strip() else {}

    def last_words(self) -> str:
        words: List[str] = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return words[-1] if words else f"exit code {self.process.poll()}, and it said nothing"

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]


def main(folder: Path) -> None:
    """Compile what is asked for, line by line, until there is no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # compilers print to standard output, which is ours
    from anyshape.backends import create_backend
    from anyshape.building.backends import create_compiler

    setup = json.loads((folder / SETUP).read_text(encoding="utf-8"))
    sys.path[:] = setup["path"]
    backend = create_backend(setup["backend"], setup["options"])
    backend.sdk()  # type: ignore[attr-defined]
    compiler: Any = create_compiler(setup["backend"], backend)
    compiler.cache.folder = Path(setup["cache"])
    torch.set_num_threads(1)
    # Written a moment ago by the process that started this one, and read before anything from outside is.
    model = torch.load(folder / MODEL, weights_only=False)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = torch.load(line.strip())
        job = Job(asked["name"], tuple(asked["example"]), tuple(asked["bucket"]))
        try:
            compile_and_keep(compiler, model, job, asked["key"])
            said = ""
        except Exception as error:
            said = last_line(error)
        print(json.dumps({"error": said} if said else {"done": job.name}), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
