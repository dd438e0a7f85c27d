"""`python -m benchmarks score`: rows a second of `anyshape score`, beside sentence-transformers.

    python -m benchmarks score                  # 16 blocks of 128 paragraphs: five minutes on two cores
    python -m benchmarks score --blocks 4 --ways score-1 score-2

Every process has one thread. Every block has the same paragraphs in an order of its own, so that one takes as
long as another. Starting and warming is left out: of `score` the first two parts of each actor are, of the
others the first block. Every answer is compared with sentence-transformers' own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paths import MODEL_STORE, ROOT
from benchmarks.serving import models, workloads

TOLERANCE = 1e-4
# Name: (what it is, processes).
WAYS = {
    "score": ("anyshape score, without Ray", 1),
    "score-1": ("anyshape score, 1 actor of Ray Data", 1),
    "score-2": ("anyshape score, 2 actors of Ray Data", 2),
    "encode-1": ("sentence-transformers, encode", 1),
    "encode-2": ("sentence-transformers, encode_multi_process", 2),
    "pipeline": ("transformers' pipeline, text by text", 1),
}
SHARE = {"pipeline": 4}  # takes so much longer that a fraction of the blocks must do


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--archive", type=Path, default=MODEL_STORE / "minilm.mar")
    parser.add_argument("--workload", default="paragraphs")
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--rows", type=int, default=128, help="of a block, which is a chunk of `score`")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    texts = blocks(given.workload, given.blocks, given.rows)
    with tempfile.TemporaryDirectory(prefix="anyshape-score-") as name:
        folder = Path(name)
        (folder / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
        reference = by_text(texts, by_hand("encode-1", folder, texts[: given.rows], given.rows)[1])
        found = {}
        for way in given.ways:
            rate, vectors = measure(way, folder, texts, given)
            deviation = max(float(np.abs(v - reference[t]).max()) for t, v in zip(texts, vectors))
            found[way] = {"rows_per_second": rate, "deviation": deviation}
            print(
                f"{WAYS[way][0]:44} {rate:7.1f} rows/s, off by {deviation:.1e}", file=sys.stderr, flush=True
            )
    print(json.dumps(found)) if given.json else show(found)
    wrong = [way for way, row in found.items() if row["deviation"] > TOLERANCE]
    if wrong:
        print(f"wrong answers: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def blocks(workload: str, count: int, rows: int) -> list[str]:
    """The same texts `count` times, each time in another order."""
    texts = [body.decode() for body in workloads.load_bodies(workload, 0, rows)]
    chance = random.Random(0)
    return [text for _ in range(count) for text in chance.sample(texts, rows)]


def by_text(texts: list[str], vectors: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(texts, vectors))


def measure(way: str, folder: Path, texts: list[str], given: argparse.Namespace) -> tuple[float, np.ndarray]:
    """Rows a second, and the vectors of the first rows, in their order."""
    if way.startswith("score"):
        return by_score(WAYS[way][1] if "-" in way else 0, folder / way, folder / "rows.jsonl", given)
    return by_hand(way, folder, texts[: len(texts) // SHARE.get(way, 1)], given.rows)


def by_score(actors: int, out: Path, rows: Path, given: argparse.Namespace) -> tuple[float, np.ndarray]:
    from pyarrow import parquet

    command = [sys.executable, "-m", "anyshape", "score", "--archive", str(given.archive), "--cores", "1"]
    command += ["--input", str(rows), "--output", str(out), "--rows", str(given.rows), "--json"]
    if actors:
        command += ["--actors", str(actors)]
    finished(command)
    ended = sorted(part.stat().st_mtime for part in out.glob("part-*"))
    first = 2 * max(1, actors)
    rate = (len(ended) - first) * given.rows / (ended[-1] - ended[first - 1])
    return rate, np.array(parquet.read_table(out)["answer"].to_pylist())


def by_hand(way: str, folder: Path, texts: list[str], rows: int) -> tuple[float, np.ndarray]:
    asked, answered = folder / f"{way}.json", folder / f"{way}.npy"
    asked.write_text(json.dumps({"way": way, "texts": texts, "rows": rows}))
    said = finished([sys.executable, "-m", "benchmarks.studies.score", str(asked), str(answered)])
    return float(said.splitlines()[-1]), np.load(answered)


def finished(command: list[str]) -> str:
    """What a command prints, with one thread for each process."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    env = {**os.environ, **threads, "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def show(found: dict[str, dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="rows a second, one thread for each process")
    for column in ("", "processes", "rows/s", "of sentence-transformers, as many processes"):
        table.add_column(column, justify="left" if column == "" else "right")
    for way, row in found.items():
        beside = found.get(f"encode-{WAYS[way][1]}")
        ratio = f"{row['rows_per_second'] / beside['rows_per_second']:.2f} ×" if beside else ""
        table.add_row(WAYS[way][0], str(WAYS[way][1]), f"{row['rows_per_second']:.1f}", ratio)
    Console(width=110).print(table)
    for name in ("score", "encode"):
        one, two = found.get(f"{name}-1"), found.get(f"{name}-2")
        if one and two:
            print(f"{name}: 2 processes do {two['rows_per_second'] / one['rows_per_second']:.2f} × of 1")


def timed(asked: dict[str, Any]) -> tuple[float, np.ndarray]:
    """In a process of its own: rows a second after the first block, and all vectors."""
    texts, rows = asked["texts"], asked["rows"]
    rest = texts[rows:] or texts
    if asked["way"] == "pipeline":
        embed = _pipeline()
        first = embed(texts[:rows])
        started = time.perf_counter()
        vectors = embed(rest)
        return len(rest) / (time.perf_counter() - started), np.concatenate([first, vectors])[: len(texts)]
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(models.text_model_folder()), device="cpu")
    model.max_seq_length = workloads.MAX_TOKENS
    processes = WAYS[asked["way"]][1]
    pool = model.start_multi_process_pool(["cpu"] * processes) if processes > 1 else None
    try:
        first = model.encode(texts[:rows], pool=pool, chunk_size=rows // processes if pool else None)
        started = time.perf_counter()
        vectors = model.encode(rest, pool=pool)
        seconds = time.perf_counter() - started
    finally:
        if pool is not None:
            model.stop_multi_process_pool(pool)
    return len(rest) / seconds, np.concatenate([first, vectors])[: len(texts)]


def _pipeline() -> Any:
    from transformers import pipeline

    folder = str(models.text_model_folder())
    ask = pipeline("feature-extraction", model=folder, tokenizer=folder, device="cpu")

    def embed(texts: list[str]) -> np.ndarray:
        vectors = [np.asarray(tokens[0]).mean(0) for tokens in map(ask, texts)]
        return np.array([vector / np.linalg.norm(vector) for vector in vectors])

    return embed


if __name__ == "__main__":
    rate, vectors = timed(json.loads(Path(sys.argv[1]).read_text()))
    np.save(sys.argv[2], vectors)
    print(rate)
