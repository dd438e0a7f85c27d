"""Photographs of odd sizes through a real server, against torchvision: its models, transforms, unpadded."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests import torchvision_models
from tests.image_models import built, encoded, photograph
from tests.server.harness import Server

pytestmark = pytest.mark.pictures

LABELS = torchvision_models.LABELS
# Photographs at their own sizes, and at odd ones; a JPEG is decoded by the same Pillow on both ways.
PHOTOGRAPHS = [
    ("chelsea.png", None),
    ("coffee.png", (267, 401)),
    ("astronaut.png", (333, 333)),
    ("rocket.jpg", (213, 319)),
    ("motorcycle_left.png", (101, 447)),
    ("astronaut.png", (255, 131)),
    ("coffee.png", (65, 77)),
]
BUCKETS = [[256, 448], [352, 352], [320, 480]]
TASKS = {"classifier": "image-classification", "segmenter": "image-segmentation"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = tmp_path_factory.mktemp("store")
    for name, task in TASKS.items():
        built(store, name, task=task, model=f"tests.torchvision_models:{name}", buckets=BUCKETS)
    with Server(tmp_path_factory.mktemp("server"), store) as server:
        for name in TASKS:
            server.register(name)
        yield server


def answers(server: Server, name: str) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """(the server's answer, what the unpadded model gives for what torchvision's transforms make of the
    picture, and what it gives for the picture with zeros behind it)."""
    from torchvision.transforms import functional

    model = getattr(torchvision_models, name)()
    mean, std = model.transforms.mean, model.transforms.std
    pictures = [photograph(*each) for each in PHOTOGRAPHS]
    files = [encoded(each, "JPEG" if i % 2 else "PNG") for i, each in enumerate(pictures)]
    requests = [{"content": file, "headers": {"Content-Type": "image/*"}} for file in files]
    responses = server.predict_all(name, requests)
    used = set()
    for response, file in zip(responses, files):
        assert response.status_code == 200, server.explain(response)
        used.add(response.headers["X-Bucket"])
        pixels = functional.pil_to_tensor(Image.open(io.BytesIO(file)).convert("RGB"))
        pixels = functional.normalize(functional.convert_image_dtype(pixels), mean, std)[None]
        padded = functional.pad(pixels, [0, 0, 480 - pixels.shape[3], 448 - pixels.shape[2]])
        with torch.no_grad():
            yield (
                response.json(),
                *(each["out"] if name == "segmenter" else each for each in map(model, (pixels, padded))),
            )
    assert len(used) == len(BUCKETS)


def test_classes_of_photographs(server: Server) -> None:
    off = 0.0
    for answer, alone, padded in answers(server, "classifier"):
        expected = dict(zip(LABELS, alone.softmax(1)[0].tolist()))
        assert {each["label"]: each["score"] for each in answer} == pytest.approx(expected, abs=1e-5)
        off = max(off, float((padded.softmax(1) - alone.softmax(1)).abs().max()))
    assert off > 1e-3  # the same photographs do show what padding does


def test_masks_of_photographs(server: Server) -> None:
    changed = 0.0
    for answer, alone, padded in answers(server, "segmenter"):
        scores = alone[0]
        found = np.full(scores.shape[1:], -1)
        for each in answer:
            mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(each["mask"])))) == 255
            assert mask.shape == found.shape
            assert (found[mask] == -1).all()  # a pixel has one label
            found[mask] = LABELS.index(each["label"])
        best = scores.topk(2, 0)
        unlike = torch.from_numpy(found) != best.indices[0]
        margin = (best.values[0] - best.values[1]) / scores.abs().max()
        assert (margin[unlike] < 1e-5).all()  # but for rounding
        height, width = found.shape
        plainly = padded[0, :, :height, :width].argmax(0)
        changed = max(changed, float((plainly != best.indices[0]).float().mean()))
    assert changed > 5e-3
