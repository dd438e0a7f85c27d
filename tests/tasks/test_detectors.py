"""Detectors of every family: boxes as their authors decode them, of the picture alone; or a refusal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anyshape import boxes as boxes_module
from anyshape.building.errors import BuildError
from anyshape.building.tasks.image_settings import IMAGENET_MEAN, IMAGENET_STD
from anyshape.errors import ConfigError
from anyshape.model import BucketedModel
from tests import detector_models
from tests.image_models import encoded, engine, normalised, photograph
from tests.quick import quick

SIZES = [(64, 96), (112, 80), (96, 128), (48, 48)]
Box = tuple[float, int, list[float]]  # score, class, left, top, right, bottom


pytestmark = pytest.mark.usefixtures("one_thread")


def detector(folder: Path, name: str, **handler: Any) -> BucketedModel:
    settings = {"task": "object-detection", "buckets": [[64, 96], [112, 128]], **handler}
    return engine(folder, name, model=f"tests.detector_models:{name}", **settings)


def grown(
    x: float, y: float, anchor: Any, t: list[float], weights: tuple[float, float] = (1, 1)
) -> list[float]:
    w, h = anchor
    x, y = x + t[0] / weights[0] * w, y + t[1] / weights[0] * h
    w, h = w * math.exp(t[2] / weights[1]), h * math.exp(t[3] / weights[1])
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def plainly(model: Any, maps: list[Any], size: tuple[int, int]) -> Iterator[Box]:
    """Every class of every anchor of every cell, one at a time, as the family's papers and code say."""
    kind, levels = model.boxes, 2
    for level in range(levels):
        head, stride = maps[level], model.strides[level]
        anchors = model.anchors[level] if model.anchors else [None]
        rows, columns = head.shape[-2:]
        per = len(head) // len(anchors)
        for a, anchor in enumerate(anchors):
            for row in range(rows):
                for column in range(columns):
                    v = head[a * per : (a + 1) * per, row, column]
                    other = [m[4 * a : 4 * a + 4, row, column].tolist() for m in maps[2:4][level : level + 1]]
                    t = other[0] if other else v[:4].tolist()
                    if kind in ("yolov3", "yolov5", "yolox"):
                        scores = v[4].sigmoid() * v[5:].sigmoid()
                        s = v[:4].sigmoid().tolist()
                        if kind == "yolov3":
                            x, y = (column + s[0]) * stride, (row + s[1]) * stride
                            w, h = anchor[0] * math.exp(t[2]), anchor[1] * math.exp(t[3])
                        elif kind == "yolov5":
                            x, y = (column + 2 * s[0] - 0.5) * stride, (row + 2 * s[1] - 0.5) * stride
                            w, h = anchor[0] * (2 * s[2]) ** 2, anchor[1] * (2 * s[3]) ** 2
                        else:
                            x, y = (column + t[0]) * stride, (row + t[1]) * stride
                            w, h = math.exp(t[2]) * stride, math.exp(t[3]) * stride
                        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                    elif kind == "yolov8":
                        scores = v[24:].sigmoid()
                        left, top, right, low = (v[:24].view(4, 6).softmax(1) @ torch.arange(6.0)).tolist()
                        x, y = column + 0.5, row + 0.5
                        box = [side * stride for side in (x - left, y - top, x + right, y + low)]
                    elif kind == "retinanet":
                        scores = v.sigmoid()
                        box = grown(column * (size[1] // columns), row * (size[0] // rows), anchor, t)
                    elif kind == "ssd":
                        scores = v.softmax(0)
                        scores[0] = 0
                        whole = [anchor[0] * size[1], anchor[1] * size[0]]
                        x, y = (column + 0.5) / columns * size[1], (row + 0.5) / rows * size[0]
                        box = grown(x, y, whole, t, (10, 5))
                    else:
                        scores = (v.sigmoid() * maps[4 + level][0, row, column].sigmoid()).sqrt()
                        x, y = column * (size[1] // columns), row * (size[0] // rows)
                        sides = [side * stride for side in t]
                        box = [x - sides[0], y - sides[1], x + sides[2], y + sides[3]]
                    for label, score in enumerate(scores.tolist()):
                        yield score, label, box


def assert_same(answer: Any, expected: list[Box], labels: list[str], size: tuple[int, int]) -> None:
    """The same boxes in whatever order: those of nearly one score may change places."""
    height, width = size
    wanted = sorted(
        (labels[label], round(score, 3), *np.clip(box, 0, [width, height] * 2).tolist())
        for score, label, box in expected
    )
    sides = ("xmin", "ymin", "xmax", "ymax")
    found = sorted((a["label"], round(a["score"], 3), *(a["box"][side] for side in sides)) for a in answer)
    assert len(found) == len(wanted)
    free = list(wanted)
    for one in found:
        near = [w for w in free if w[0] == one[0] and abs(w[1] - one[1]) <= 0.0011]
        near = [w for w in near if max(abs(a - b) for a, b in zip(w[2:], one[2:])) <= 1.01]
        assert near, one
        free.remove(near[0])


FAMILIES = ["fcos", "retinanet", "ssd", "yolov3", "yolov5", "yolov8", "yolox"]


@pytest.mark.parametrize("family", quick(FAMILIES, 0, 5))
def test_heads_of_every_family(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = detector(tmp_path, family)
    plain: Any = getattr(detector_models, family)()
    monkeypatch.setattr(boxes_module, "CANDIDATES", 10**6)
    seen = 0
    for size in SIZES[:3]:
        picture = photograph("coffee.png", size)
        with torch.no_grad():
            maps = [head[0] for head in plain(normalised(picture, IMAGENET_MEAN, IMAGENET_STD))]
        everything = list(plainly(plain, maps, size))
        threshold = sorted(score for score, _, _ in everything)[-min(60, len(everything) // 4)] + 1e-6
        expected = [found for found in everything if found[0] > threshold]
        if family.startswith("yolo"):
            middle = lambda b: ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2)  # noqa: E731
            expected = [
                f for f in expected if 0 <= middle(f[2])[0] <= size[1] and 0 <= middle(f[2])[1] <= size[0]
            ]
        answer = model(encoded(picture), threshold=float(threshold), overlap=1.0)
        assert_same(answer, expected, plain.labels, size)
        seen += len(answer)
    assert seen > 60


QUERIES = {
    "conditional_detr": "ConditionalDetr",
    "dab_detr": "ConditionalDetr",
    "deformable_detr": "DeformableDetr",
    "deformable_detr_of_two_stages": "DeformableDetr",
    "d_fine": "RTDetr",
    "rt_detr": "RTDetr",
    "rt_detr_v2": "RTDetr",
}


@pytest.mark.parametrize("name", QUERIES)
def test_these_models_say_something_of_the_picture(name: str) -> None:
    plain = getattr(detector_models, name)()
    pictures = [photograph(file, (64, 96)) for file in ("chelsea.png", "coffee.png")]
    with torch.no_grad():
        one, other = (plain(normalised(each, IMAGENET_MEAN, IMAGENET_STD)).logits for each in pictures)
    assert (one - other).abs().max() > 0.05 * one.abs().max()


@pytest.mark.filterwarnings("ignore")  # transformers' own, about what tracing fixes
@pytest.mark.parametrize("name", quick(QUERIES, 5))
def test_queries_whose_classes_are_sigmoids(name: str, tmp_path: Path) -> None:
    check_queries(name, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["conditional_detr", "rt_detr"])
def test_queries_of_a_compiled_detector(name: str, tmp_path: Path) -> None:
    check_queries(name, tmp_path, backend="inductor")


def check_queries(name: str, folder: Path, **handler: Any) -> None:
    import transformers

    step = 32 if QUERIES[name] == "RTDetr" else 1
    options = {"multiple_of": step}
    model = detector(folder, name, buckets=[[64, 96]], task_options=options, **handler)
    plain = getattr(detector_models, name)()
    names = [plain.config.id2label[i] for i in range(5)]
    process = getattr(transformers, QUERIES[name] + "ImageProcessor")().post_process_object_detection
    sizes = [(64, 96), (60, 91), (40, 55), (33, 70)] if step == 1 else [(64, 96), (64, 64), (32, 96)]
    for size in sizes:
        picture = photograph("chelsea.png", size)
        with torch.no_grad():
            outputs = plain(pixel_values=normalised(picture, IMAGENET_MEAN, IMAGENET_STD))
        (expected,) = process(outputs, 0.02, [size])
        found = [
            (score.item(), label.item(), box.tolist())
            for score, label, box in zip(expected["scores"], expected["labels"], expected["boxes"])
        ]
        assert len(found) > 3
        assert_same(model(encoded(picture), threshold=0.02), found, names, size)


@pytest.mark.pictures
@pytest.mark.parametrize(
    ("name", "size", "threshold"),
    [
        ("ssdlite320_mobilenet_v3_large", (101, 126), 0.52),
        ("fcos_resnet50_fpn", (96, 64), 0.5),
        ("retinanet_resnet50_fpn", (64, 96), 0.52),
    ],
)
def test_torchvisions_detectors_are_split(
    name: str, size: tuple[int, int], threshold: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = detector(tmp_path, name, buckets=[[128, 128]], labels=["none", "cat", "dog", "owl", "fox"])
    monkeypatch.setattr(boxes_module, "CANDIDATES", 10**6)
    plain = getattr(detector_models, name)()
    plain.score_thresh = threshold
    plain.transform.min_size, plain.transform.max_size = (min(size),), max(size)  # so it resizes nothing
    if plain.transform.fixed_size is not None:
        plain.transform.fixed_size = size[::-1]
    picture = photograph("coffee.png", size)
    with torch.no_grad():
        (expected,) = plain([torch.tensor(np.asarray(picture)).permute(2, 0, 1) / 255])
    found = [
        (score.item(), label.item(), box.tolist())
        for score, label, box in zip(expected["scores"], expected["labels"], expected["boxes"])
    ]
    assert len(found) > 3
    labels = ["none", "cat", "dog", "owl", "fox"]
    assert_same(model(encoded(picture), threshold=threshold, overlap=1.0), found, labels, size)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("unknown_family", "boxes must be one of fcos.*not 'centernet'; a detector is split"),
        ("without_anchors", "heads of retinanet need the model's attribute `anchors`"),
        ("flattened", "heads of yolox are maps .* output 0 .*a detector is split: let handler.model"),
        ("sorted_boxes", "in this detector .*sort.*a detector is split: let handler.model"),
        ("faster_rcnn", "FasterRCNN is a detector of two stages.*take one of one stage"),
    ],
)
def test_what_cannot_be_read_is_refused_with_how_to_split_it(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises((ConfigError, BuildError), match=says):
        detector(tmp_path, name)


def test_a_box_is_that_of_the_picture_that_was_sent(tmp_path: Path) -> None:
    """Sides that are no multiples: the picture is resized to the nearest, and the boxes back."""
    model = detector(tmp_path, "yolox")
    raw = encoded(photograph("coffee.png", (64, 96)).resize((91, 60), Image.Resampling.BILINEAR))
    for found in model(raw, threshold=0.3):
        assert 0 <= found["box"]["xmin"] <= found["box"]["xmax"] <= 91
        assert 0 <= found["box"]["ymin"] <= found["box"]["ymax"] <= 60
