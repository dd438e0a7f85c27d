"""Pictures of many sizes through a real server: the answers of the unpadded model, and honest refusals."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml
from PIL import Image

from anyshape.building.build import build
from recipes.models.mobilenet import MobileNetV2, mobilenet_v2
from tests.conftest import ROOT
from tests.image_models import encoded, normalised, photograph
from tests.server.harness import Server
from tests.tasks.test_image_segmentation import assert_same
from tests.tasks.test_image_segmentation import expected as segments
from tests.test_images import BOMBS

BUCKETS = [[112, 160], [160, 112], [160, 160]]
PICTURES = ["chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png"]
JPEG = {"Content-Type": "image/jpeg"}
LABELLED = photograph("chelsea.png", (120, 150))


@pytest.fixture(scope="module")
def mobilenet(server: Server, store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The recipe that ships with smaller buckets, registered and ready. It waits for a batch to fill up."""
    recipe = yaml.safe_load((ROOT / "recipes" / "mobilenet.yaml").read_text(encoding="utf-8"))
    recipe.update(minWorkers=1, maxWorkers=1, batchSize=16, maxBatchDelay=50)
    # It says `models...`, beside the recipe: the copy is elsewhere.
    recipe["handler"].update(model=f"recipes.{recipe['handler']['model']}")
    recipe["handler"].update(buckets=BUCKETS, over_max="reject", threads=1)
    path = tmp_path_factory.mktemp("recipe") / "mobilenet.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    build(path, store)
    server.register("mobilenet")
    return "mobilenet"


@pytest.fixture(scope="module")
def reference() -> MobileNetV2:
    return mobilenet_v2()


def coco_sizes(count: int, seed: int) -> list[tuple[int, int]]:
    """Sizes (height, width) as COCO val2017 has them, a quarter of each side."""
    sizes = json.loads((ROOT / "tests" / "data" / "coco_val2017_sizes.json").read_text(encoding="utf-8"))
    drawn = random.Random(seed).choices(sizes, weights=[n for _, _, n in sizes], k=count)
    return [(height // 4, width // 4) for width, height, _ in drawn]


def assert_right(answer: Any, raw: bytes, reference: MobileNetV2) -> None:
    """The five best classes of the picture alone, unpadded."""
    picture = Image.open(io.BytesIO(raw)).convert("RGB")
    pixels = normalised(picture, reference.image_mean, reference.image_std)
    with torch.no_grad():
        best = reference(pixels).softmax(1)[0].topk(5)
    assert [a["label"] for a in answer] == [reference.labels[i] for i in best.indices]
    assert [a["score"] for a in answer] == pytest.approx(best.values.tolist(), abs=1e-4)


def refused(response: httpx.Response, code: int) -> None:
    assert response.status_code == code, response.text
    assert response.json()["code"] == code
    assert response.json()["message"]


LARGE = encoded(Image.new("RGB", (161, 20)), "PNG")
GOOD = encoded(LABELLED, "JPEG")
BROKEN: dict[str, tuple[dict[str, Any], int]] = {
    "cut off": ({"content": GOOD[: len(GOOD) // 2], "headers": JPEG}, 400),
    "not a picture": ({"content": b"hello", "headers": JPEG}, 400),
    "bomb": ({"content": BOMBS["PNG"], "headers": {"Content-Type": "image/png"}}, 413),
    "beyond every bucket": ({"content": LARGE, "headers": {"Content-Type": "image/png"}}, 413),
    "text": ({"content": b"a cat", "headers": {"Content-Type": "text/plain"}}, 415),
    "a form": ({"data": {"picture": "cat"}}, 415),
    "bad base64": ({"json": {"inputs": "*"}}, 422),
    "a number": ({"json": {"inputs": 7}}, 422),
    "unknown parameter": ({"json": {"inputs": base64.b64encode(GOOD).decode(), "parameters": {"a": 1}}}, 422),
}


def test_a_batch_of_coco_sizes_mixed_with_broken_files(
    server: Server, mobilenet: str, reference: MobileNetV2
) -> None:
    requests: list[tuple[dict[str, Any], int, bytes]] = []
    for i, size in enumerate(coco_sizes(24, seed=3)):
        picture = photograph(PICTURES[i % len(PICTURES)], size)
        raw = encoded(picture, "JPEG" if i % 2 else "PNG")
        requests.append(({"content": raw, "headers": {"Content-Type": "image/*"}}, 200, raw))
    requests += [(body, code, b"") for body, code in BROKEN.values()]
    random.Random(0).shuffle(requests)
    responses = server.predict_all(mobilenet, [body for body, _, _ in requests])
    for response, (_, code, raw) in zip(responses, requests):
        if code == 200:
            assert response.status_code == 200, server.explain(response)
            assert_right(response.json(), raw, reference)
            height, width = map(int, response.headers["X-Bucket"].split("x"))
            size = Image.open(io.BytesIO(raw)).size
            assert size[0] <= width
            assert size[1] <= height
        else:
            refused(response, code)
    calls = [int(r.headers["X-Batch-Size"]) for r in responses if r.status_code == 200]
    assert max(calls) > 1, "nothing shared a call: this says nothing about batches"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_request_alone_says_why(server: Server, mobilenet: str, name: str) -> None:
    body, code = BROKEN[name]
    refused(server.predict(mobilenet, **body), code)


def test_bytes_a_form_field_base64_and_a_data_url_are_the_same_question(
    server: Server, mobilenet: str, reference: MobileNetV2
) -> None:
    text = base64.b64encode(GOOD).decode()
    bodies: list[dict[str, Any]] = [
        {"content": GOOD, "headers": JPEG},
        {"content": GOOD, "headers": {"Content-Type": "application/octet-stream"}},
        {"files": {"data": ("cat.jpg", GOOD, "image/jpeg")}},
        {"files": {"picture": ("cat.jpg", GOOD, "image/jpeg")}},
        {"json": {"inputs": text}},
        {"json": {"inputs": f"data:image/jpeg;base64,{text}"}},
        {"json": text},
    ]
    for body in bodies:
        response = server.predict(mobilenet, **body)
        assert response.status_code == 200, server.explain(response)
        assert_right(response.json(), GOOD, reference)


def test_a_list_of_pictures_is_answered_in_its_order(
    server: Server, mobilenet: str, reference: MobileNetV2
) -> None:
    pictures = [encoded(photograph(name, size)) for name, size in zip(PICTURES, coco_sizes(5, seed=9))]
    response = server.predict(
        mobilenet, json={"inputs": [base64.b64encode(raw).decode() for raw in pictures]}
    )
    assert response.status_code == 200, server.explain(response)
    assert len(response.json()) == len(pictures)
    for answer, raw in zip(response.json(), pictures):
        assert_right(answer, raw, reference)
    assert len(response.headers["X-Bucket"].split(",")) == len(pictures)


def test_a_turned_photograph_is_answered_as_people_see_it(
    server: Server, mobilenet: str, reference: MobileNetV2
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = encoded(LABELLED.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    response = server.predict(mobilenet, content=sideways, headers={"Content-Type": "image/png"})
    assert response.status_code == 200, server.explain(response)
    assert_right(response.json(), encoded(LABELLED), reference)
    assert response.headers["X-Bucket"] == "160x160"


# Masks of instances


@pytest.fixture(scope="module")
def masks(server: Server, store: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    handler = {
        "task": "image-segmentation",
        "model": "tests.mask_models:plain",
        "buckets": [[64, 64], [64, 96]],
    }
    path = tmp_path_factory.mktemp("recipe") / "masks.yaml"
    path.write_text(yaml.safe_dump({"maxWorkers": 1, "handler": {"threads": 1, **handler}}), encoding="utf-8")
    build(path, store)
    server.register("masks")
    return "masks"


@pytest.mark.parametrize("subtask", ["semantic", "instance", "panoptic"])
def test_a_client_reads_the_masks_of_segments_with_pillow(server: Server, masks: str, subtask: str) -> None:
    picture = photograph("coffee.png", (41, 83))
    limits = {"threshold": 0.3, "overlap_mask_area_threshold": 0.2}
    inputs = base64.b64encode(encoded(picture)).decode()
    response = server.predict(masks, json={"inputs": inputs, "parameters": {"subtask": subtask, **limits}})
    assert response.status_code == 200, server.explain(response)
    expected = segments(picture, (41, 83), subtask, **limits)
    assert len(expected) > 1
    assert_same(response.json(), expected)


@pytest.mark.parametrize(
    "parameters", [{"subtask": "depth"}, {"threshold": 2}, {"overlap_mask_area_threshold": None}]
)
def test_a_wrong_parameter_of_masks_is_named(server: Server, masks: str, parameters: dict[str, Any]) -> None:
    inputs = base64.b64encode(GOOD).decode()
    response = server.predict(masks, json={"inputs": inputs, "parameters": parameters})
    refused(response, 422)
    assert f"'{next(iter(parameters))}' must be" in response.json()["message"]
