"""`python -m benchmarks openvino`: hand-overs of 8 texts by our archives and by OpenVINO alone.

    python -m benchmarks openvino --clock cpu --texts 64       # for machines that are busy with other things

OpenVINO alone runs one model with open rows and tokens, text by text or padded to the longest of eight, as
in the baselines of `python -m benchmarks serving`. Texts are tokenised on both sides; HTTP is on neither.
Milliseconds per text on one thread. The archives are those of model_store/ (recipes/minilm-openvino*.yaml).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from anyshape.model import BucketedModel
from anyshape.process import keep_freed_memory
from benchmarks.paths import MODEL_STORE
from benchmarks.serving import models, workloads
from benchmarks.serving.artifacts import artifact
from benchmarks.studies import timing

HAND_OVER = 8
ARCHIVES = ("minilm-openvino", "minilm-openvino-bf16", "minilm-openvino-int8")
Texts = list[str]


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks openvino",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workloads", nargs="+", default=["paragraphs", "short", "bimodal"])
    parser.add_argument("--archives", nargs="+", default=list(ARCHIVES))
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=sorted(timing.CLOCKS), default="wall")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    keep_freed_memory()  # as a worker does
    ways = {name: packed(BucketedModel.load(MODEL_STORE / f"{name}.mar")) for name in given.archives}
    for hint in ("f32", "bf16"):
        request = compiled(hint)
        ways[f"OpenVINO {hint}, one by one"] = alone(request, 1)
        ways[f"OpenVINO {hint}, longest of {HAND_OVER}"] = alone(request, HAND_OVER)
    for name in given.workloads:
        texts = [body.decode() for body in workloads.load_bodies(name, 0, given.texts)]
        calls = {way: partial(go, texts) for way, go in ways.items()}
        found = timing.in_turns(calls, given.rounds, warm_up=1, clock=timing.CLOCKS[given.clock])
        for way, measured in found.items():
            print(f"{name:12} {way:32} {measured.median / len(texts) * 1e3:8.2f} ms", flush=True)
    return 0


def hand_overs(texts: Texts) -> list[Texts]:
    return [texts[i : i + HAND_OVER] for i in range(0, len(texts), HAND_OVER)]


def packed(model: BucketedModel) -> Callable[[Texts], None]:
    def go(texts: Texts) -> None:
        for together in hand_overs(texts):
            model.run(model.task.read(together, [{}] * len(together)))

    return go


def alone(request: Any, rows: int) -> Callable[[Texts], None]:
    tokenizer = models.tokenizer()

    def go(texts: Texts) -> None:
        for together in hand_overs(texts):
            ids = [encoding.ids for encoding in tokenizer.encode_batch(together)]
            for i in range(0, len(ids), rows):
                padded(request, ids[i : i + rows])

    return go


def padded(request: Any, ids: list[list[int]]) -> None:
    array = np.zeros((len(ids), max(map(len, ids))), np.int64)
    mask = np.zeros_like(array)
    for row, kept, own in zip(array, mask, ids):
        row[: len(own)], kept[: len(own)] = own, 1
    request.infer([array, mask])
    request.get_output_tensor(0).data.copy()


def compiled(hint: str) -> Any:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    settings |= {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    return openvino.Core().compile_model(str(artifact("encoder.xml")), "CPU", settings).create_infer_request()
