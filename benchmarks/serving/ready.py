"""`python -m benchmarks ready`: how long a server starts, with the costs that its archive keeps and without.

    python -m benchmarks ready                                   # model_store/minilm.mar, two workers
    python -m benchmarks ready --archive model_store/minilm-openvino.mar --workers 1

Without: the same archive, which says that its costs were measured elsewhere, so that every start measures.
Beside the seconds stand the processor seconds of the workers: they count where others use the machine too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np

from benchmarks.paths import MODEL_STORE, WORK
from benchmarks.serving.systems import torchserve

INDEX = "buckets.json"


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks ready",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--archive", type=Path, default=MODEL_STORE / "minilm.mar")
    parser.add_argument("--workers", type=int, default=2, help="as the archive's recipe has it")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(argv)
    folder = WORK / "ready"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archives = {
        "kept": given.archive,
        "measured": measured_elsewhere(given.archive, folder / "elsewhere.mar"),
    }
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in archives}
    for number in range(given.rounds):
        for name, archive in archives.items():
            took[name].append(start(folder / f"{name}-{number}", archive.resolve(), given.workers))
            seconds, spent = took[name][-1]
            print(f"round {number + 1}  {name:8}  {seconds:.1f} s, {spent:.1f} processor seconds", flush=True)
    kept, measured = (np.median(took[name], axis=0) for name in archives)
    print(
        f"\nkept ÷ measured: {kept[0] / measured[0]:.2f} of the seconds, {kept[1] / measured[1]:.2f} of the "
        "workers' processor seconds (medians)"
    )
    return 0


def measured_elsewhere(archive: Path, target: Path) -> Path:
    """The same archive, whose costs are those of another CPU."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == INDEX:
                index = json.loads(content)
                index["measured_on"] = {**index["measured_on"], "cpu": "another"}
                content = json.dumps(index).encode()
            copy.writestr(entry.filename, content)
    return target


def start(folder: Path, archive: Path, workers: int) -> tuple[float, float]:
    """Seconds until every worker is READY, and the processor seconds that the workers took for it."""
    folder.mkdir()
    running = torchserve.start(folder, archive, workers)
    try:
        spent = 0.0
        for process in running.server.family():
            if "model_service_worker" in " ".join(process.cmdline()):
                times = process.cpu_times()
                spent += times.user + times.system
        return running.server.ready_seconds, spent
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)
