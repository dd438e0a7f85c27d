"""One model, by the path that a user takes: recipe, archive, pictures in, answers out.

The archive's answers are compared with those of the plain model, created anew with the same seed, run eagerly
on each picture alone and unpadded; nothing of the builder takes part in that.
"""

from __future__ import annotations

import copy
import inspect
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

from anyshape import BucketedModel, measure
from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.building.exact import ExactPadding
from anyshape.errors import ConfigError, UnprocessableInput
from benchmarks.zoo.pictures.configs import Entry, entries
from benchmarks.zoo.pictures.randomly import randomised

Size = Tuple[int, int]
SIZES = 12
TOLERANCE = 1e-4
SAME = 1e-7  # in float64
SHOWN = 3  # of them are also zero-padded
ORDERS = 8.0  # float32's sums in other orders round this much more than in one
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

MODULE = """
from benchmarks.zoo.pictures.trial import plain_model

def model():
    return plain_model({name!r})
"""


def told(model: Any, args: Any, kwargs: Dict[str, Any]) -> Any:
    """A model that takes other sizes than it was trained at where it is told to is told so."""
    if "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
        kwargs = {"interpolate_pos_encoding": True, **kwargs}
    return args, kwargs


def plain_model(name: str) -> nn.Module:
    """The model with random weights, the same each time: with one thread, for how sums are shared out among
    several changes last bits, and the statistics of a deep net's norms enlarge that a thousand times."""
    entry, threads = entries()[name], torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    try:
        model = entry.make()
        model.register_forward_pre_hook(told, with_kwargs=True)
        return randomised(model, torch.randn(2, 3, *entry.buckets[-1]))
    finally:
        torch.set_num_threads(threads)


def attempt(name: str, seed: int) -> Dict[str, Any]:
    """What became of a model: `verdict` exact, one size, wrong, refused or failed; and what belongs to it."""
    entry = entries()[name]
    began = time.perf_counter()
    measure.MEASURED_ROUNDS = 1  # what a call costs is not asked here
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
                "batch_sizes": [2],
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
    beyond: List[Tuple[Any, Any]] = []  # pictures whose answer is further off, and that answer
    sizes = random_sizes(entry, random.Random(seed))
    noise = np.random.default_rng(seed)
    enough = 2 if entry.one_size else SIZES
    left = 4 * enough  # sizes to try
    while compared < enough and left:
        pictures: List[Tuple[Any, Any]] = []
        while len(pictures) < 2 and left:
            left -= 1
            picture = noise.integers(0, 256, (*next(sizes), 3), np.uint8)
            expected = answer(model, picture)
            if expected is None:
                continue
            if not takes(archive, picture):
                not_taken += 1
                continue
            pictures.append((picture, expected))
        answers = archive([encoded(picture) for picture, _ in pictures]) if pictures else []
        for (picture, expected), got in zip(pictures, answers):
            found = deviation(np.asarray(got)[0], expected)
            worst = max(worst, found)
            if found > TOLERANCE:
                beyond.append((picture, np.asarray(got)[0]))
            if compared < SHOWN:
                plainly = max(plainly, zero_padded(model, picture, entry, expected))
            compared += 1
    found_all: Dict[str, Any] = {"deviation": worst, "sizes": compared, "not_taken": not_taken}
    how = [f"{plainly:.0e} with plain zero padding"]
    if not compared:
        return {**found_all, "verdict": "refused", "reason": "it takes none of the sizes that were tried"}
    if not_taken:
        how.append(f"{not_taken} of {compared + not_taken} sizes refused")
    rounded = own_rounding(model, entry, beyond) if beyond else 0.0
    if rounded:
        how.append(f"its own float32 is {rounded:.0e} from its float64")
    if entry.one_size:
        height, width = entry.buckets[0]
        how = [f"{height}x{width}, multiple_of: {height}"]
    right = "one size" if entry.one_size else "exact"
    exact = not beyond or bool(rounded)
    return {**found_all, "verdict": right if exact else "wrong", "how": "; ".join(how)}


def own_rounding(model: nn.Module, entry: Entry, beyond: List[Tuple[Any, Any]]) -> float:
    """How far the plain model is from itself in float64 where that explains the answers' deviation, else 0:
    the padded model is the plain one in float64, and its answers are no further off than roundings are."""
    plain = [answer(model, picture) for picture, _ in beyond]
    double = copy.deepcopy(model).double()
    right = [answer(double, picture, torch.float64) for picture, _ in beyond]
    padded = [padded_exactly(double, picture, entry) for picture, _ in beyond]
    if max(deviation(a, b) for a, b in zip(padded, right)) > SAME:
        return 0.0
    own = max(deviation(a, b) for a, b in zip(plain, right))
    served = max(deviation(got, b) for (_, got), b in zip(beyond, right))
    return own if served <= ORDERS * own else 0.0


def padded_exactly(double: nn.Module, picture: Any, entry: Entry) -> Any:
    """The answer in a bucket, in float64, and cut."""
    exact = ExactPadding(copy.deepcopy(double))
    exact.step = entry.options.get("multiple_of", 1)
    padded = nn.functional.pad(normalised(picture).double(), padding(picture, entry))
    with torch.no_grad():
        answers = exact(padded, torch.tensor([picture.shape[:2]]))
    found = answers[0][0]
    if exact.spatial[0]:
        for place, side in zip(exact.spatial[0], answers[len(exact.spatial)][0].tolist()):
            found = found.narrow(place - 1, 0, side) if place else found
    return found.numpy()


def random_sizes(entry: Entry, chance: random.Random) -> Iterator[Size]:
    while True:
        bucket = chance.choice(entry.buckets)
        step = entry.options.get("multiple_of", 1)
        yield tuple(  # type: ignore[misc]
            chance.randrange(-(-entry.least // step) * step, side + 1, step) for side in bucket
        )


def takes(archive: BucketedModel, picture: Any) -> bool:
    return not isinstance(archive.task.read([encoded(picture)], [{}])[0], UnprocessableInput)


def encoded(picture: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def normalised(picture: Any) -> Tensor:
    values = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return (values - torch.tensor(MEAN).reshape(-1, 1, 1)) / torch.tensor(STD).reshape(-1, 1, 1)


def answer(model: nn.Module, picture: Any, dtype: torch.dtype = torch.float32) -> Optional[Any]:
    """The model's first output for one picture alone; None if it takes none of this size."""
    try:
        with torch.no_grad():
            return first(model(normalised(picture).to(dtype)))[0].numpy()
    except Exception:  # models refuse sizes in many ways
        return None


def first(answer: Any) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    values: List[Any] = list(answer.values() if isinstance(answer, Mapping) else answer)
    return first(next(value for value in values if value is not None))


def zero_padded(model: nn.Module, picture: Any, entry: Entry, expected: Any) -> float:
    """How far off the plain model is in a bucket: what an error would look like."""
    with torch.no_grad():
        found = first(model(nn.functional.pad(normalised(picture), padding(picture, entry))))[0].numpy()
    return deviation(found[tuple(slice(0, side) for side in expected.shape)], expected)


def padding(picture: Any, entry: Entry) -> Tuple[int, int, int, int]:
    height, width = picture.shape[:2]
    bucket = next(b for b in entry.buckets if b[0] >= height and b[1] >= width)
    return (0, bucket[1] - width, 0, bucket[0] - height)


def deviation(found: Any, expected: Any) -> float:
    if np.shape(found) != np.shape(expected):
        return float("inf")
    gap = float(np.abs(found - expected).max()) / (float(np.abs(expected).max()) or 1.0)
    return gap if np.isfinite(gap) else float("inf")
