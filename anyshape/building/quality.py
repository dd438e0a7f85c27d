"""What int8 costs: calibration inputs, and how near the answers to those held out are to the float32 model's.

Four fifths of the inputs are for choosing ranges by, and every fifth is held out to judge by. Judged is what
the answers are for: the direction of vectors and the order in which they find each other, or the labels.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from anyshape.building.errors import BuildError, first_line
from anyshape.building.tasks.base import TaskBuilder
from anyshape.building.verify import unpadded
from anyshape.errors import Refused
from anyshape.items import Input, Item, Output, Row
from anyshape.model import BucketedModel

HELD_OUT = 5  # every fifth
LEAST = 50  # inputs in all: ten to judge by
FOUND = 10  # of a retrieval, by which its order is judged
LIMITS = {"cosine": 0.99, "retrieval": 0.995, "labels": 0.99}
Rows = Sequence[Row]


def calibration(builder: TaskBuilder, folder: Path) -> Tuple[List[Item], List[Item]]:
    """The items to choose ranges by, and those to judge by. Raises BuildError."""
    name, task = builder.section.calibration, builder.task
    if task.name not in JUDGES:
        raise BuildError(
            f"handler.dtype: what int8 costs is judged for {', '.join(sorted(JUDGES))}, not for {task.name}: "
            "choose another dtype"
        )
    if name is None:
        raise BuildError(
            "handler.calibration is missing: int8 takes its ranges from a file of texts, one a line "
            "(.jsonl: one JSON value a line), a folder of pictures, or `module:function`"
        )
    inputs = read_inputs(name, folder)
    results = task.read(inputs, [{}] * len(inputs))
    read = [one for one in results if isinstance(one, Item)]
    if len(read) < LEAST:
        refused = next((str(one) for one in results if isinstance(one, Refused)), "")
        raise BuildError(
            f"handler.calibration: {name} has {len(read)} inputs that fit a bucket, and {LEAST} are the least"
            + (f" ({refused})" if refused else "")
        )
    return [item for i, item in enumerate(read) if i % HELD_OUT], read[::HELD_OUT]


def read_inputs(name: str, folder: Path) -> List[Input]:
    """Lines of a file, the files of a folder, or what a function gives. Raises BuildError."""
    path = folder / name
    try:
        if ":" in name:
            module, function = name.split(":", 1)
            return list(getattr(importlib.import_module(module), function)())
        if path.is_dir():
            return [file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()]
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [json.loads(line) for line in lines] if path.suffix == ".jsonl" else list(lines)
    except Exception as error:  # a function of the recipe's own may raise anything
        raise BuildError(f"handler.calibration: {name} cannot be read: {first_line(error)}") from None


def judge(
    model: BucketedModel, builder: TaskBuilder, reference: Any, held_out: Sequence[Item]
) -> Dict[str, float]:
    """Each measure of the task, over the items held out, padded and packed as when they are served.

    Raises BuildError if one is below its limit, unless the recipe allows that.
    """
    found = []
    for output in model.run(held_out):
        if not isinstance(output, Output):
            raise BuildError(f"handler.dtype: int8 does not answer an input of the calibration: {output}")
        found.append(output.row)
    expected = [tuple(unpadded(model, reference, item)) for item in held_out]
    measured = JUDGES[model.task.name](found, expected)
    low = {name: value for name, value in measured.items() if not value >= LIMITS[name]}
    bad = [f"{name} {value:.4f} < {LIMITS[name]}" for name, value in low.items()]
    model.index.quality = {name: round(value, 5) for name, value in measured.items()}
    if bad and not builder.section.allow_inexact:
        raise BuildError(
            f"handler.dtype: int8 costs too much on the {len(held_out)} inputs held out: {', '.join(bad)}. "
            "Nothing was packed. Give more inputs in handler.calibration, choose bfloat16, or set "
            "handler.allow_inexact if that is meant"
        )
    model.index.exact = model.index.exact and not bad
    return measured


def vectors(found: Rows, expected: Rows) -> Dict[str, float]:
    """cosine: the mean between the two models' vectors. retrieval: nDCG@10 of each text's neighbours among
    the others in the order that int8 gives, where the gain of one is its cosine in float32."""
    ours, theirs = (_unit(np.stack([row[0] for row in rows])) for rows in (found, expected))
    gains = np.clip(theirs @ theirs.T, 0, None)
    order = ours @ ours.T
    scores = []
    for i in range(len(gains)):
        others = np.delete(np.arange(len(gains)), i)
        got = gains[i, others[np.argsort(-order[i, others], kind="stable")[:FOUND]]]
        best = np.sort(gains[i, others])[::-1][:FOUND]
        discount = 1 / np.log2(np.arange(2, len(best) + 2))
        scores.append(float((got * discount).sum() / max(float((best * discount).sum()), 1e-12)))
    return {"cosine": float((ours * theirs).sum(1).mean()), "retrieval": float(np.mean(scores))}


def labels(found: Rows, expected: Rows) -> Dict[str, float]:
    """The share of equal labels: of each input, or of each of its tokens."""
    equal = [np.argmax(a[0], -1) == np.argmax(b[0], -1) for a, b in zip(found, expected)]
    return {"labels": float(np.concatenate([np.ravel(each) for each in equal]).mean())}


def _unit(values: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(norms, 1e-12), np.float64)


JUDGES: Dict[str, Callable[[Rows, Rows], Dict[str, float]]] = {
    "sentence-embedding": vectors,
    "text-classification": labels,
    "token-classification": labels,
    "image-classification": labels,
}
