"""One type of model, by the path that a user takes: a folder, a recipe, an archive, texts in, answers out.

Every answer of the archive is compared with that of the plain model: transformers loads the folder afresh,
its own tokenizer reads the text, and the model runs eagerly on that text alone. Nothing of ours takes part.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,  # noqa: F401  # brings most that the others need into the process that is forked
)

from anyshape import BucketedModel
from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.errors import ConfigError, Refused
from benchmarks.zoo.texts.configs import RECIPE, classifiers, config_of
from benchmarks.zoo.texts.words import texts_of, tokenizer_of

BUCKETS = [8, 32]
ROWS: Dict[str, Any] = {"layout": "rows", "segments": 6, "buckets": [16, 48]}
LARGEST_BATCH = 3
TOLERANCE = 1e-4
SHORT = 4  # tokens; some models take no fewer
# What is asked of a classifier, and of a model without a head.
TASKS = {True: "text-classification", False: "sentence-embedding"}
PARAMETERS: Dict[bool, Dict[str, Any]] = {True: {"top_k": None, "function_to_apply": "none"}, False: {}}


def attempt(kind: str, rows: bool = False) -> Dict[str, Any]:
    """What became of one type: `verdict` exact, wrong, refused or failed, and what belongs to it.

    rows: several texts to a row (docs/rows.md), instead of one.
    """
    began = time.perf_counter()
    head = kind in classifiers()
    auto = AutoModelForSequenceClassification if head else AutoModel
    with tempfile.TemporaryDirectory(prefix="anyshape-zoo-") as temporary:
        folder = Path(temporary)
        config = config_of(kind)
        torch.manual_seed(0)
        model = auto.from_config(config)
        spread(model)
        saved = folder / kind
        model.save_pretrained(saved)
        tokenizer_of(kind, config).save_pretrained(folder / "tokenizer")
        plain = auto.from_pretrained(saved, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        expected, texts = plain_answers(plain, tokenizer, head, largest(kind, rows))
        recipe = folder / "zoo.yaml"
        recipe.write_text(json.dumps(recipe_of(kind, saved, TASKS[head], rows)), encoding="utf-8")
        try:
            built = build(recipe, folder)
        except (BuildError, ConfigError) as error:
            found: Dict[str, Any] = {"verdict": "refused", "reason": " ".join(str(error).split())}
        else:
            try:
                found = compare(BucketedModel.load(built.path), texts, expected, head, 8 if rows else 1)
            except Refused as error:
                reason = f"it was built and does not answer: {error}"
                found = {"verdict": "wrong", "deviation": float("inf"), "reason": reason}
        own = {} if rows else RECIPE.get(kind, {})
        how = ", ".join(f"`{key}: {json.dumps(value)}`" for key, value in own.items())
    return {**found, "how": how.replace('"', ""), "seconds": round(time.perf_counter() - began, 1)}


def recipe_of(kind: str, folder: Path, task: str, rows: bool) -> Dict[str, Any]:
    handler = {
        "task": task,
        "model": str(folder),
        "tokenizer": str(folder.parent / "tokenizer"),
        "buckets": BUCKETS,
        "largest_batch": LARGEST_BATCH,
        "threads": 1,
        **(ROWS if rows else RECIPE.get(kind, {})),
    }
    return {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8, "maxBatchDelay": 1, "handler": handler}


def largest(kind: str, rows: bool) -> int:
    """The most tokens that a type's buckets take."""
    buckets = ROWS["buckets"] if rows else RECIPE.get(kind, {}).get("buckets", BUCKETS)
    return int(buckets.split()[-1]) if isinstance(buckets, str) else int(max(buckets))


def spread(model: nn.Module) -> None:
    """Weights with which an error would show: as they are created, most types answer every text alike."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) in tables:
                parameter.normal_(0.0, 1.0)
            elif parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
            elif parameter.numel() > 1 and float(parameter.std()) > 1e-6:
                continue  # what its type chose with care
            elif float(parameter.abs().max()) == 0.0:  # biases, and scales that are added to one
                parameter.normal_(0.0, 0.2)
            else:
                parameter.mul_(torch.empty_like(parameter).uniform_(0.6, 1.4))


def plain_answers(model: nn.Module, tokenizer: Any, head: bool, most: int) -> Any:
    """The answers that are right, and the texts: without those too short for the plain model, or too long.

    Without a head an answer is the mean of the tokens at length one, as sentence-transformers has it where a
    folder says nothing.
    """
    expected: List[Any] = []
    texts: List[Any] = []
    for text in texts_of(tokenizer):
        one = tokenizer(*(text if isinstance(text, tuple) else (text,)), return_tensors="pt")
        if one["input_ids"].shape[1] > most:
            continue
        try:
            with torch.no_grad():
                first = model(**one)[0][0]
                mean = first.mean(0)
                expected.append((first if head else mean / mean.norm()).numpy())
        except RuntimeError:
            if one["input_ids"].shape[1] < SHORT:
                continue
            raise
        texts.append(text)
    apart = np.std(expected, axis=0).max() / np.abs(expected).max()
    if not apart > 1e-2:
        raise ValueError(f"its answers hardly depend on the text ({apart:.0e})")
    return expected, texts


def compare(
    archive: BucketedModel, texts: List[Any], expected: List[Any], head: bool, orders: int
) -> Dict[str, Any]:
    """All texts in one batch, in so many other orders, and each alone."""
    asked = PARAMETERS[head]
    inputs = [t if isinstance(t, str) else {"text": t[0], "text_pair": t[1]} for t in texts]
    runs = [archive(inputs, **asked), [archive([one], **asked)[0] for one in inputs]]
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(len(inputs))
        shuffled = dict(zip(order, archive([inputs[i] for i in order], **asked)))
        runs.append([shuffled[i] for i in range(len(inputs))])
    scale = float(np.abs(expected).max())
    worst, where = 0.0, ""
    for run in runs:
        for text, answer, right in zip(texts, run, expected):
            scores = {one["label"]: one["score"] for one in answer} if head else {}
            numbers = [scores[f"class {i}"] for i in range(len(right))] if head else answer
            gap = np.abs(np.asarray(numbers) - right).max() / scale
            if not gap <= worst:
                worst, where = float(gap), repr(text)
    if worst <= TOLERANCE:
        return {"verdict": "exact", "deviation": worst}
    return {"verdict": "wrong", "deviation": worst, "reason": f"for {where}"}
