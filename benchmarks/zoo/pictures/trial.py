"""One model, by the path that a user takes: recipe, archive, pictures in, answers out.

The archive's answers are compared with those of the plain model, created anew with the same seed, run eagerly
on each picture alone and unpadded; nothing of the builder takes part in that.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from anyshape import BucketedModel
from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.errors import ConfigError, UnprocessableInput
from benchmarks.zoo.pictures.configs import Entry, entries
from benchmarks.zoo.pictures.randomly import randomised

Size = Tuple[int, int]
SIZES = 30
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

MODULE = """
from benchmarks.zoo.pictures.trial import plain_model

def model():
    return plain_model({name!r})
"""


def plain_model(name: str) -> nn.Module:
    """The model with random weights, the same each time."""
    entry = entries()[name]
    torch.manual_seed(0)
    model = entry.make()
    return randomised(model, torch.randn(2, 3, *entry.buckets[-1]))


def attempt(name: str, seed: int) -> Dict[str, Any]:
    """What became of one model: `verdict` exact, wrong, refused or failed, and what belongs to it."""
    entry = entries()[name]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "zoo_model.py").write_text(MODULE.format(name=name), encoding="utf-8")
        recipe = {
            "minWorkers": 1, "maxWorkers": 1, "batchSize": 2, "maxBatchDelay": 1,
            "startupTimeout": 300, "responseTimeout": 300,
            "handler": {
                "task": "image-feature-extraction",
                "model": "zoo_model:model",
                "buckets": [list(bucket) for bucket in entry.buckets],
                "batch_sizes": [1, 2],
                "task_options": {"mean": list(MEAN), "std": list(STD), **entry.options},
            },
        }  # fmt: skip
        path = folder / "zoo.yaml"
        path.write_text(json.dumps(recipe), encoding="utf-8")
        try:
            built = build(path, folder)
        except (BuildError, ConfigError) as error:
            found: Dict[str, Any] = {"verdict": "refused", "reason": " ".join(str(error).split())}
        else:
            found = compare(BucketedModel.load(str(built.path)), plain_model(name), entry, seed)
    return {**found, "seconds": round(time.perf_counter() - began, 1)}


def compare(archive: BucketedModel, model: nn.Module, entry: Entry, seed: int) -> Dict[str, Any]:
    """The largest deviation over pictures of random sizes, two at a time; how many sizes are not taken."""
    worst, plainly, compared, not_taken = 0.0, 0.0, 0, 0
    sizes = random_sizes(entry, random.Random(seed))
    noise = np.random.default_rng(seed)
    while compared < SIZES and not_taken < 3 * SIZES:
        pictures: List[Tuple[Any, Any]] = []
        while len(pictures) < 2 and not_taken < 3 * SIZES:
            picture = noise.integers(0, 256, (*next(sizes), 3), np.uint8)
            expected = answer(model, picture)
            if expected is None:
                continue
            if not takes(archive, picture):
                not_taken += 1
                continue
            pictures.append((picture, expected))
        answers = archive([encoded(picture) for picture, _ in pictures])
        for (picture, expected), got in zip(pictures, answers):
            worst = max(worst, deviation(np.asarray(got)[0], expected))
            plainly = max(plainly, zero_padded(model, picture, entry, expected))
            compared += 1
    verdict = "exact" if compared and worst <= 1e-4 else "wrong" if compared else "refused"
    found: Dict[str, Any] = {"verdict": verdict, "deviation": worst}
    found.update(sizes=compared, not_taken=not_taken, how=f"{plainly:.0e} with plain zero padding")
    if not compared:
        found["reason"] = "it takes none of the sizes that were tried"
    elif not_taken:
        found["how"] += f"; {not_taken} of {compared + not_taken} sizes refused"
    return found


def random_sizes(entry: Entry, chance: random.Random) -> Iterator[Size]:
    while True:
        bucket = chance.choice(entry.buckets)
        step = entry.options.get("multiple_of", 1)
        yield tuple(  # type: ignore[misc]
            chance.randrange(-(-entry.least // step) * step, side + 1, step) for side in bucket
        )


def takes(archive: BucketedModel, picture: Any) -> bool:
    try:
        archive([encoded(picture)])
    except UnprocessableInput:
        return False
    return True


def encoded(picture: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def normalised(picture: Any) -> Tensor:
    values = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return (values - torch.tensor(MEAN).reshape(-1, 1, 1)) / torch.tensor(STD).reshape(-1, 1, 1)


def answer(model: nn.Module, picture: Any) -> Optional[Any]:
    """The model's first output for one picture alone; None if it takes none of this size."""
    try:
        with torch.no_grad():
            return first(model(normalised(picture)))[0].numpy()
    except Exception:  # models refuse sizes in many ways
        return None


def first(answer: Any) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    values: List[Any] = list(answer.values() if isinstance(answer, Mapping) else answer)
    return first(next(value for value in values if value is not None))


def zero_padded(model: nn.Module, picture: Any, entry: Entry, expected: Any) -> float:
    """How far off the plain model is in a bucket: what an error would look like."""
    height, width = picture.shape[:2]
    bucket = next((b for b in entry.buckets if b[0] >= height and b[1] >= width), None)
    if bucket is None or bucket == (height, width):
        return 0.0
    padding = (0, bucket[1] - width, 0, bucket[0] - height)
    with torch.no_grad():
        found = first(model(nn.functional.pad(normalised(picture), padding)))[0].numpy()
    return deviation(found[tuple(slice(0, side) for side in expected.shape)], expected)


def deviation(found: Any, expected: Any) -> float:
    if np.shape(found) != np.shape(expected):
        return float("inf")
    gap = float(np.abs(found - expected).max()) / (float(np.abs(expected).max()) or 1.0)
    return gap if np.isfinite(gap) else float("inf")
