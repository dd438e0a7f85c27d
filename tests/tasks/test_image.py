"""Pictures through the engine: routed right, and answered as by the unpadded model in every bucket."""

from __future__ import annotations

import base64
import io
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from msgspec.structs import replace
from PIL import Image

import anyshape.tasks.image as image_task
from anyshape.buckets import Bucket, contains
from anyshape.building.errors import BuildError
from anyshape.building.source import Source
from anyshape.building.tasks import create_builder
from anyshape.building.tasks.image_settings import IMAGENET_MEAN, IMAGENET_STD, image_settings
from anyshape.errors import ConfigError, InputTooLarge, Refused
from anyshape.model import BucketedModel
from anyshape.packing import Call
from anyshape.recipe import Section
from anyshape.settings import Settings
from anyshape.tasks.image_classification import ImageClassification
from anyshape.tasks.object_detection import ObjectDetection
from handler.responses import answer_response
from recipes.models.deepcr import deepcr
from recipes.models.mobilenet import mobilenet_v2
from recipes.models.yolov3_tiny import yolov3_tiny
from tests import image_models
from tests.image_models import PHOTOGRAPHS, built, encoded, engine, normalised, photograph

MODELS = "tests.image_models:"
NAMES = ["chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png", "ihc.png"]
Folder = pytest.TempPathFactory


pytestmark = pytest.mark.usefixtures("one_thread")


def plain(size: tuple[int, int], colour: Any = (40, 90, 200)) -> bytes:
    return encoded(Image.new("RGB", size[::-1], colour), "PNG")


def sizes_in(bucket: Bucket, count: int, seed: int, step: int = 1) -> list[tuple[int, int]]:
    """The bucket itself and random sizes in it."""
    noise = random.Random(seed)
    sides = [(noise.randint(bucket[0] // 3, bucket[0]), noise.randint(bucket[1] // 3, bucket[1]))]
    sides = [*sides, *sizes_in(bucket, count - 1, seed + 1)] if count > 1 else [(bucket[0], bucket[1])]
    return [(h // step * step, w // step * step) for h, w in sides]


def in_every_bucket(model: BucketedModel, raw: bytes, **parameters: Any) -> Iterator[tuple[Bucket, Any]]:
    """The answer for a picture from each bucket that contains it, beside another one in the same call."""
    item, neighbour = model.task.read([raw, plain((64, 64))], [{}, {}])
    assert not isinstance(item, Refused), item
    assert not isinstance(neighbour, Refused), neighbour
    ran = 0
    for bucket in model.buckets:
        if contains(bucket, item.size):
            output = model.run_call(Call(bucket, 2, (0, 1)), [neighbour, item])[1]
            yield bucket, model.task.answer(output.row, item, parameters)
            ran += 1
    assert ran, f"no bucket takes {item.size}"


# Which bucket


@pytest.fixture(scope="module")
def squares(tmp_path_factory: Folder) -> BucketedModel:
    buckets = [[500, 500], [600, 600], [700, 700], [800, 800]]
    folder = tmp_path_factory.mktemp("squares")
    return engine(folder, "squares", task="image-classification", model=MODELS + "mean", buckets=buckets)


@pytest.fixture(scope="module")
def bimodal(tmp_path_factory: Folder) -> BucketedModel:
    folder = tmp_path_factory.mktemp("bimodal")
    buckets = [[540, 540], [720, 720], [800, 800]]
    return engine(folder, "bimodal", task="image-classification", model=MODELS + "mean", buckets=buckets)


@pytest.fixture(scope="module")
def oblong(tmp_path_factory: Folder) -> BucketedModel:
    folder = tmp_path_factory.mktemp("oblong")
    return engine(
        folder,
        "oblong",
        task="image-classification",
        model=MODELS + "mean",
        buckets=[[800, 500], [500, 800]],
        over_max="resize",
    )


def ran_in(model: BucketedModel, size: tuple[int, int]) -> Bucket:
    """The bucket that a picture ran in; its answer is checked on the way."""
    items = model.task.read([plain(size)], [{}])
    (output,) = model.run(items)
    assert not isinstance(output, Refused), output
    answer = model.task.answer(output.row, items[0], {"function_to_apply": "none"})
    assert {a["label"]: pytest.approx(a["score"] * 255, abs=0.01) for a in answer} == {
        "red": 40,
        "green": 90,
        "blue": 200,
    }
    return output.bucket


@pytest.mark.parametrize(
    ("size", "side"),
    [
        ((640, 640), 700),
        ((440, 540), 600),
        ((540, 440), 600),
        ((500, 500), 500),
        ((501, 1), 600),
        ((1, 1), 500),
        ((800, 800), 800),
    ],
)
def test_the_notes_example(squares: BucketedModel, size: tuple[int, int], side: int) -> None:
    assert ran_in(squares, size) == (side, side)


@pytest.mark.parametrize(
    ("size", "side"),
    [((500, 530), 540), ((540, 540), 540), ((541, 300), 720), ((700, 710), 720), ((721, 9), 800)],
)
def test_the_notes_bimodal_example(bimodal: BucketedModel, size: tuple[int, int], side: int) -> None:
    assert ran_in(bimodal, size) == (side, side)


@pytest.mark.parametrize(
    ("size", "bucket"), [((450, 780), (500, 800)), ((780, 450), (800, 500)), ((501, 500), (800, 500))]
)
def test_tall_and_wide_buckets(oblong: BucketedModel, size: tuple[int, int], bucket: Bucket) -> None:
    assert ran_in(oblong, size) == bucket


def test_a_picture_beyond_every_bucket_is_refused(squares: BucketedModel) -> None:
    (error,) = squares.task.read([plain((801, 30))], [{}])
    assert isinstance(error, Refused)
    assert error.code == 413
    assert "801x30" in str(error)
    assert "800x800" in str(error)


@pytest.mark.parametrize(
    ("size", "to"),
    [
        ((1600, 1000), (800, 500)),
        ((501, 501), (500, 500)),
        ((1000, 3000), (267, 800)),
        ((3, 4000), (1, 800)),
    ],
)
def test_or_made_smaller_and_said_so(
    oblong: BucketedModel, size: tuple[int, int], to: tuple[int, int]
) -> None:
    (item,) = oblong.task.read([plain(size)], [{}])
    assert not isinstance(item, Refused), item
    assert item.size == to
    output = oblong.run([item])[0]
    response = answer_response([], [(item, output)], 10**6, {})  # type: ignore[list-item]
    assert response.headers["X-Truncated"] == f"0: resized {size[0]}x{size[1]} to {to[0]}x{to[1]} pixels"


def test_a_broken_neighbour_keeps_its_error_to_itself(squares: BucketedModel) -> None:
    good = plain((30, 40))
    inputs = [good, b"", plain((900, 900)), good, good[:60]]
    outputs = squares.run(squares.task.read(inputs, [{}] * 5))
    codes = [output.code if isinstance(output, Refused) else 200 for output in outputs]
    assert codes == [200, 400, 413, 200, 400]


def test_the_pictures_of_a_batch_are_decoded_at_the_same_time(
    squares: BucketedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2, timeout=20)  # breaks unless two threads come to it
    decode = image_task.decode

    def meeting(picture: Any, channels: int) -> Any:
        together.wait()
        return decode(picture, channels)

    (tmp_path / image_task.SETTINGS).write_text(json.dumps(squares.task.saved))  # type: ignore[attr-defined]
    torch.set_num_threads(2)
    task = ImageClassification(squares.settings, tmp_path)
    task.buckets = squares.buckets
    torch.set_num_threads(1)
    monkeypatch.setattr(image_task, "decode", meeting)
    items = task.read([plain((30, 40))] * 4, [{}] * 4)
    assert [item.size for item in items] == [(30, 40)] * 4


# The answers of real models


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: Folder) -> BucketedModel:
    return engine(
        tmp_path_factory.mktemp("mobilenet"),
        "mobilenet",
        task="image-classification",
        model="recipes.models.mobilenet:mobilenet_v2",
        buckets=[[96, 96], [96, 160], [192, 192]],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mobilenet_answers_as_unpadded_in_every_bucket(mobilenet: BucketedModel, name: str) -> None:
    reference = mobilenet_v2()
    for size in sizes_in((192, 192), 4, len(name)) + sizes_in((96, 160), 2, 7):
        picture = photograph(name, size)
        with torch.no_grad():
            scores = reference(normalised(picture, IMAGENET_MEAN, IMAGENET_STD)).softmax(1)[0]
        best = scores.topk(5)
        for bucket, answer in in_every_bucket(mobilenet, encoded(picture)):
            assert [a["label"] for a in answer] == [reference.labels[i] for i in best.indices], (size, bucket)
            assert [a["score"] for a in answer] == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: Folder) -> BucketedModel:
    return engine(
        tmp_path_factory.mktemp("yolo"),
        "yolo",
        task="object-detection",
        model="recipes.models.yolov3_tiny:yolov3_tiny",
        buckets=[[160, 224], [224, 224], [224, 320]],
    )


def detected(model: Any, picture: Image.Image, threshold: float) -> list[dict[str, Any]]:
    """YOLOv3's boxes for a picture alone: sides to the nearest multiple of 32, and one box at a time."""
    height, width = (max(32, (side + 16) // 32 * 32) for side in picture.size[::-1])
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    with torch.no_grad():
        heads = model(normalised(resized, (0.0,) * 3, (1.0,) * 3))
    boxes = []
    for head, anchors, stride in zip(heads, model.anchors, model.strides):
        cells = head[0].view(3, 85, *head.shape[-2:])
        scores = cells[:, 4:5].sigmoid() * cells[:, 5:].sigmoid()
        for a, label, row, column in (scores > threshold).nonzero().tolist():
            x, y = ((cells[a, :2, row, column].sigmoid() + torch.tensor([column, row])) * stride).tolist()
            w, h = (cells[a, 2:4, row, column].exp() * torch.tensor(anchors[a])).tolist()
            corners = [max(0, x - w / 2), max(0, y - h / 2), min(width, x + w / 2), min(height, y + h / 2)]
            boxes.append((scores[a, label, row, column].item(), label, corners))
    kept: list[Any] = []
    for score, label, box in sorted(boxes, key=lambda found: -found[0]):
        if all(label != other or overlap(box, b) <= 0.45 for _, other, b in kept):
            kept.append((score, label, box))
    scale = (picture.width / width, picture.height / height) * 2
    return [
        {"score": s, "label": model.labels[c], "box": [int(b * f) for b, f in zip(box, scale)]}
        for s, c, box in kept
    ]


def overlap(a: list[float], b: list[float]) -> float:
    sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    shared = sides[0] * sides[1]
    area_a, area_b = ((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return shared / (area_a + area_b - shared)


def assert_same_boxes(answer: Any, expected: Any) -> None:
    assert [a["label"] for a in answer] == [e["label"] for e in expected]
    for found, wanted in zip(answer, expected):
        assert found["score"] == pytest.approx(wanted["score"], abs=1e-4)
        box = [found["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
        # Whole pixels: a hair's breadth may cut 12.00001 down to 12 and 11.99999 to 11.
        assert box == pytest.approx(wanted["box"], abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_yolo_finds_the_same_boxes_in_every_bucket(yolo: BucketedModel, name: str) -> None:
    reference = yolov3_tiny()
    found = 0
    for size in [(160, 224), (213, 311), *sizes_in((224, 320), 2, len(name)), (150, 200)]:
        picture = photograph(name, size)
        expected = detected(reference, picture, 0.2)
        found += len(expected)
        for _, answer in in_every_bucket(yolo, encoded(picture), threshold=0.2):
            assert_same_boxes(answer, expected)
    assert found or name == "ihc.png"


@pytest.mark.slow
def test_a_picture_beyond_every_bucket_is_made_smaller_once(tmp_path: Path, yolo: BucketedModel) -> None:
    config = replace(yolo.settings, over_max="resize")
    (tmp_path / image_task.SETTINGS).write_text(json.dumps(yolo.task.saved))  # type: ignore[attr-defined]
    task = ObjectDetection(config, tmp_path)
    task.buckets = yolo.buckets
    picture = photograph("chelsea.png", (600, 902))
    (item,) = task.read([encoded(picture)], [{}])
    assert not isinstance(item, Refused), item
    assert item.size == (224, 320)  # the nearest multiples of 32 to 213 x 320
    assert item.changed == "resized 600x902 to 224x320 pixels"
    output = yolo.run_call(Call((224, 320), 1, (0,)), [item])[0]
    seen = picture.resize((320, 224), Image.Resampling.BILINEAR)
    expected = detected(yolov3_tiny(), seen, 0.3)
    assert expected
    answer = task.answer(output.row, item, {"threshold": 0.3})
    scale = (902 / 320, 600 / 224) * 2
    for found, wanted in zip(answer, expected, strict=True):
        assert found["label"] == wanted["label"]
        box = [found["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
        assert box == pytest.approx([side * s for side, s in zip(wanted["box"], scale)], abs=4)


def test_the_pixels_of_a_request_are_bounded_by_the_headers(
    oblong: BucketedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(oblong.settings, max_pixels=2_000_000, max_request_pixels=3_000_000)
    monkeypatch.setattr(oblong.task, "settings", limits)
    monkeypatch.setattr(image_task, "decode", None)  # no pixel is decoded for it
    large, small = plain((1000, 1500)), plain((10, 20))
    oblong.task.check_request([large, large], {})
    oblong.task.check_request([plain((2000, 1500)), b"no picture", large], {})  # what `read` refuses
    with pytest.raises(InputTooLarge, match="3000200 pixels together, more than the limit of 3000000"):
        oblong.task.check_request([large, small, large], {})


@pytest.mark.parametrize("colour", [0, 90, 255])
def test_no_box_lies_in_the_padding(yolo: BucketedModel, colour: int) -> None:
    canvas = Image.new("RGB", (190, 150), (colour,) * 3)
    empty = encoded(canvas)
    canvas.paste(photograph("chelsea.png", (70, 100)), (45, 40))
    for raw in (empty, encoded(canvas)):
        expected = detected(yolov3_tiny(), Image.open(io.BytesIO(raw)), 0.02)
        for _, answer in in_every_bucket(yolo, raw, threshold=0.02):
            assert_same_boxes(answer, expected)
            for found in answer:
                box = found["box"]
                assert 0 <= box["xmin"] <= box["xmax"] <= 190
                assert 0 <= box["ymin"] <= box["ymax"] <= 150


@pytest.fixture(scope="module")
def cosmic(tmp_path_factory: Folder) -> BucketedModel:
    return engine(
        tmp_path_factory.mktemp("cosmic"),
        "cosmic",
        task="image-segmentation",
        model="recipes.models.deepcr:deepcr",
        buckets=[[64, 64], [64, 96], [96, 96]],
        task_options={"rescale": 1},
    )


def mask_of(segment: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(segment["mask"]))))


@pytest.mark.parametrize("size", [(64, 64), (63, 63), (41, 57), (50, 96), (77, 31), (95, 95), (96, 96)])
def test_deepcr_marks_the_same_pixels_in_every_bucket(cosmic: BucketedModel, size: tuple[int, int]) -> None:
    sky = Image.open(PHOTOGRAPHS / "hubble_deep_field.jpg").convert("L").crop((200, 200, 296, 296))
    counts = np.asarray(sky, dtype=np.uint16)[: size[0], : size[1]] * 3
    noise = np.random.default_rng(size[0])
    for _ in range(6):  # cosmic rays: short bright lines
        y, x = noise.integers(0, size[0] - 6), noise.integers(0, size[1] - 6)
        for step in range(6):
            counts[y + step, x + step * noise.integers(0, 2)] += 3000
    even = np.pad(counts, ((0, size[0] % 2), (0, size[1] % 2)), mode="edge").astype(np.float32)
    with torch.no_grad():
        probability = deepcr()(torch.tensor(even)[None, None])[0, 0, : size[0], : size[1]].numpy()
    marked = probability > 0.5
    assert marked.sum() > 5
    for _, answer in in_every_bucket(cosmic, encoded(Image.fromarray(counts))):
        (segment,) = answer
        assert segment["label"] == "cosmic ray"
        assert segment["score"] == pytest.approx(probability[marked].mean(), abs=1e-4)
        np.testing.assert_array_equal(mask_of(segment) == 255, marked)


# Models from transformers, with random weights


@pytest.fixture(scope="module")
def quarter(tmp_path_factory: Folder) -> BucketedModel:
    folder = tmp_path_factory.mktemp("quarter")
    buckets = [[64, 64], [64, 96]]
    return engine(
        folder,
        "quarter",
        task="image-segmentation",
        model=MODELS + "quarter",
        buckets=buckets,
        over_max="resize",
    )


def segmented(picture: Image.Image, seen: Image.Image) -> np.ndarray:
    """Scores of what the model sees, brought to the picture's size as transformers does it, the best one."""
    with torch.no_grad():
        scores = image_models.quarter()(normalised(seen, IMAGENET_MEAN, IMAGENET_STD))
    for size in (seen.size[::-1], picture.size[::-1]) if seen is not picture else (picture.size[::-1],):
        scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    return scores[0].argmax(0).numpy()


@pytest.mark.parametrize("size", [(64, 64), (63, 95), (31, 50), (17, 9), (90, 200)])
def test_a_mask_for_each_class_of_the_size_that_was_sent(
    quarter: BucketedModel, size: tuple[int, int]
) -> None:
    picture = photograph("coffee.png", size)
    seen = picture if size != (90, 200) else picture.resize((96, 43), Image.Resampling.BILINEAR)
    expected = segmented(picture, seen)
    for _, answer in in_every_bucket(quarter, encoded(picture)):
        found = np.full(size, -1)
        for segment in answer:
            assert segment["score"] is None
            found[mask_of(segment) == 255] = ["sky", "sea", "land"].index(segment["label"])
        assert len(answer) == len(np.unique(expected)) > 1
        np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def features(tmp_path_factory: Folder) -> BucketedModel:
    folder = tmp_path_factory.mktemp("features")
    buckets = [[96, 96], [96, 160]]
    return engine(
        folder, "features", task="image-feature-extraction", model=MODELS + "resnet", buckets=buckets
    )


@pytest.mark.parametrize("size", [(96, 96), (96, 160), (65, 33), (31, 95), (1, 1)])
def test_features_are_cropped_to_what_the_unpadded_model_gives(
    features: BucketedModel, size: tuple[int, int]
) -> None:
    picture = photograph("rocket.jpg", size)
    with torch.no_grad():
        expected = image_models.resnet()(normalised(picture, IMAGENET_MEAN, IMAGENET_STD))
    for pool, wanted in ((False, expected.last_hidden_state), (True, expected.pooler_output)):
        for _, answer in in_every_bucket(features, encoded(picture), pool=pool):
            np.testing.assert_allclose(answer, wanted.numpy(), atol=1e-4 * float(wanted.abs().max()))


@pytest.fixture(scope="module")
def detr(tmp_path_factory: Folder) -> BucketedModel:
    folder = tmp_path_factory.mktemp("detr")
    buckets = [[96, 96], [96, 160]]
    return engine(folder, "detr", task="object-detection", model=MODELS + "detr", buckets=buckets)


@pytest.mark.parametrize("size", [(96, 96), (96, 160), (65, 33), (40, 95)])
def test_detr_gives_the_boxes_of_transformers(detr: BucketedModel, size: tuple[int, int]) -> None:
    from transformers import DetrImageProcessorPil as DetrImageProcessor

    picture = photograph("astronaut.png", size)
    reference = image_models.detr()
    with torch.no_grad():
        outputs = reference(normalised(picture, IMAGENET_MEAN, IMAGENET_STD))
    (found,) = DetrImageProcessor().post_process_object_detection(outputs, 0.2, torch.tensor([size]))
    limits = [size[1], size[0]] * 2
    order = found["scores"].argsort(descending=True, stable=True)
    assert len(order) > 1
    expected = [
        {
            "score": found["scores"][i].item(),
            "label": reference.config.id2label[found["labels"][i].item()],
            "box": [min(max(int(side), 0), limit) for side, limit in zip(found["boxes"][i], limits)],
        }
        for i in order
    ]
    for _, answer in in_every_bucket(detr, encoded(picture), threshold=0.2):
        assert_same_boxes(answer, expected)


def test_a_classifier_in_a_folder_answers_as_the_pipeline(tmp_path: Path) -> None:
    from transformers import ConvNextImageProcessorPil as ConvNextImageProcessor
    from transformers import pipeline

    # Another mean, std and scale than any default: they come from the folder or from nowhere.
    processor = ConvNextImageProcessor(
        do_resize=False, image_mean=[0.2, 0.3, 0.4], image_std=[0.5, 0.6, 0.7], rescale_factor=1 / 128
    )
    classifier = image_models.resnet_classifier()
    classifier.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    model = engine(
        tmp_path, "resnet", task="image-classification", model="./model", buckets=[[96, 96], [96, 128]]
    )
    ask = pipeline("image-classification", model=classifier, image_processor=processor)
    for size in [(96, 96), (77, 121)]:
        picture = photograph("coffee.png", size)
        expected = ask(picture, top_k=5)
        for _, answer in in_every_bucket(model, encoded(picture)):
            assert [a.keys() for a in answer] == [e.keys() for e in expected]
            assert [a["label"] for a in answer] == [e["label"] for e in expected]
            assert [a["score"] for a in answer] == pytest.approx([e["score"] for e in expected], abs=1e-5)


# What is refused


@pytest.fixture(scope="module")
def windows(tmp_path_factory: Folder) -> BucketedModel:
    folder = tmp_path_factory.mktemp("windows")
    return engine(
        folder, "windows", task="image-classification", model=MODELS + "windows", buckets=[[32, 40]]
    )


def test_a_picture_smaller_than_the_model_takes_is_refused(windows: BucketedModel) -> None:
    small, enough = windows.run(windows.task.read([plain((8, 40)), plain((9, 40))], [{}, {}]))
    assert isinstance(small, Refused)
    assert small.code == 422
    assert "below 9" in str(small)
    assert not isinstance(enough, Refused)


def test_a_model_that_would_see_the_padding_is_refused_by_the_name_of_its_operation(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="sort"):
        built(tmp_path, "ordered", task="image-segmentation", model=MODELS + "ordered", buckets=[[48, 48]])
    assert not list(tmp_path.glob("*.mar"))


def test_segformer_attends_to_nothing_outside_the_picture(tmp_path: Path) -> None:
    task = "image-feature-extraction"
    model = engine(tmp_path, "segformer", task=task, model=MODELS + "segformer", buckets=[[96, 96]])
    for size in [(96, 96), (65, 90), (40, 33)]:
        picture = photograph("rocket.jpg", size)
        with torch.no_grad():
            expected = (
                image_models.segformer().eval()(normalised(picture, IMAGENET_MEAN, IMAGENET_STD)).logits
            )
        found = np.asarray(model(encoded(picture)))
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("allow_inexact", [False, True])
def test_a_pixel_mask_that_keeps_nothing_out_is_refused_by_the_name_of_the_operation(
    allow_inexact: bool, tmp_path: Path
) -> None:
    asked = {"task": "image-classification", "buckets": [[32, 40]], "allow_inexact": allow_inexact}
    with pytest.raises(ConfigError, match=r"takes a pixel_mask, .* from flatten on.*: cummax .*, sort"):
        built(tmp_path, "unmasked", model=MODELS + "attended_unmasked_by_order", **asked)


@pytest.mark.parametrize("name", ["attended", "attended_unmasked"])
def test_padding_is_kept_out_whether_a_model_looks_at_its_pixel_mask_or_not(
    name: str, tmp_path: Path
) -> None:
    model = engine(tmp_path, name, task="image-classification", model=MODELS + name, buckets=[[32, 40]])
    reference = getattr(image_models, name)()
    for size in [(32, 40), (13, 21), (30, 9)]:
        picture = photograph("coffee.png", size)
        with torch.no_grad():
            expected = reference(normalised(picture, IMAGENET_MEAN, IMAGENET_STD))[0]
        found = model(encoded(picture), function_to_apply="none", top_k=None)
        by_label = {answer["label"]: answer["score"] for answer in found}
        assert [by_label[f"LABEL_{i}"] for i in range(8)] == pytest.approx(expected.tolist(), abs=1e-4)


def test_buckets_that_the_model_cannot_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="multiples of 2"):
        built(
            tmp_path,
            "odd",
            task="image-segmentation",
            model="recipes.models.deepcr:deepcr",
            buckets=[[64, 64], [64, 95]],
        )


def test_a_detector_whose_boxes_would_be_misread_is_refused(tmp_path: Path, windows: BucketedModel) -> None:
    other = SimpleNamespace(config=SimpleNamespace(model_type="owlvit"))
    section = Section(task="object-detection", model="m:f", buckets=[[64, 64]])
    builder = create_builder(section, Settings.of(section), Source("m:f", None, tmp_path))
    with pytest.raises(ConfigError, match=r"boxes of a owlvit model.*a detector is split"):
        builder.save(other, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mean": "0.5"}, "mean"),
        ({"mean": [0.5, 0.5]}, "mean must be 3 numbers"),
        ({"std": [1, 0, 1]}, "std must not be 0"),
        ({"std": []}, "std"),
        ({"rescale": True}, "rescale"),
        ({"channels": 4}, "channels"),
        ({"multiple_of": 0}, "multiple_of"),
        ({"multiple_of": 1.5}, "multiple_of"),
        ({"interpolation": "cubic"}, "interpolation must be one of .*bicubic"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        image_settings(options, torch.nn.Identity(), None)


def test_settings_come_from_the_recipe_then_the_model_then_its_processor() -> None:
    processor = SimpleNamespace(image_mean=[0.1] * 3, image_std=[0.2] * 3, rescale_factor=0.5, size_divisor=8)
    model = image_models.mean()
    found = image_settings({"std": [4, 5, 6]}, model, processor)
    assert found == {
        "mean": [0, 0, 0],
        "std": [4, 5, 6],
        "rescale": 0.5,
        "channels": 3,
        "multiple_of": 8,
        "interpolation": "bilinear",
    }


class Named(torch.nn.Module):
    """A network's own words for its parts, which say nothing of pictures."""

    channels, stride, rescale = 64, (4, 4), True


def test_a_models_own_channels_and_stride_are_no_settings() -> None:
    assert image_settings({}, Named(), None) == image_settings({}, torch.nn.Identity(), None)


def test_what_a_model_says_of_its_pictures_is_taken() -> None:
    model = Named()
    model.image_multiple_of, model.image_channels, model.image_rescale = 32, 1, 1  # type: ignore[assignment]
    found = image_settings({}, model, None)
    assert (found["multiple_of"], found["channels"], found["rescale"]) == (32, 1, 1.0)
    timm = SimpleNamespace(pretrained_cfg={"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3), "crop_pct": 0.9})
    assert image_settings({}, timm, None)["mean"] == [0.5, 0.4, 0.3]
    assert image_settings({"std": [1, 1, 1]}, timm, None)["std"] == [1, 1, 1]


@pytest.mark.parametrize(
    ("asked", "model", "processor", "expected"),
    [
        ({}, {}, None, "bilinear"),
        ({}, {"pretrained_cfg": {"interpolation": "bicubic"}}, None, "bicubic"),
        ({}, {"pretrained_cfg": {"interpolation": "random"}}, None, "bilinear"),
        (
            {},
            {"transforms": SimpleNamespace(interpolation=SimpleNamespace(value="bicubic"))},
            None,
            "bicubic",
        ),
        ({}, {}, SimpleNamespace(resample=Image.Resampling.NEAREST), "nearest"),
        ({}, {"image_interpolation": "box"}, SimpleNamespace(resample=3), "box"),
        ({"interpolation": "lanczos"}, {"image_interpolation": "box"}, None, "lanczos"),
    ],
)
def test_what_a_picture_is_resized_by_is_the_models_own(
    asked: Any, model: Any, processor: Any, expected: str
) -> None:
    found = image_settings(asked, SimpleNamespace(**model), processor)
    assert found["interpolation"] == expected


def test_a_picture_is_resized_as_the_recipe_says(tmp_path: Path) -> None:
    answers = []
    picture = photograph("coffee.png", (61, 90))
    for way in ("nearest", "bicubic"):
        (tmp_path / way).mkdir()
        model = engine(
            tmp_path / way,
            "mean",
            task="image-feature-extraction",
            model="tests.image_models:mean",
            buckets=[[32, 48]],
            over_max="resize",
            task_options={"interpolation": way},
        )
        size = (32, 47)
        smaller = picture.resize(size[::-1], Image.Resampling[way.upper()])
        with torch.no_grad():
            expected = image_models.mean()(normalised(smaller, (0, 0, 0), (1, 1, 1)))
        answers.append(np.asarray(model(encoded(picture))))
        assert np.allclose(answers[-1], expected.numpy(), atol=1e-5)
    assert np.abs(answers[0] - answers[1]).max() > 1e-4


def test_one_channel_needs_nothing_more() -> None:
    found = image_settings({"channels": 1}, torch.nn.Identity(), None)
    assert found["mean"] == pytest.approx([0.449])
    assert found["std"] == pytest.approx([0.226])


def test_a_processor_that_only_turns_pixels_into_numbers() -> None:
    processor = SimpleNamespace(
        image_mean=[0.1] * 3, image_std=[0.2] * 3, rescale_factor=0.5, do_normalize=False, do_rescale=False
    )
    found = image_settings({}, torch.nn.Identity(), processor)
    assert (found["mean"], found["std"], found["rescale"]) == ([0.0], [1.0], 1.0)
    assert image_settings({"channels": 1}, torch.nn.Identity(), processor)["channels"] == 1


def test_a_processor_that_swaps_colours_is_refused() -> None:
    with pytest.raises(ConfigError, match="red and blue"):
        image_settings({}, torch.nn.Identity(), SimpleNamespace(do_flip_channel_order=True))
