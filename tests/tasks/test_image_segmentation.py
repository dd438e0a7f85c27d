"""Masks of queries: the segments that the pipeline gives for the picture alone, from every bucket."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anyshape.building.errors import BuildError
from anyshape.building.tasks.image_settings import IMAGENET_MEAN, IMAGENET_STD
from anyshape.errors import ConfigError, InputTooLarge, UnprocessableInput
from anyshape.model import BucketedModel
from tests import mask_models
from tests.image_models import encoded, engine, normalised, photograph
from tests.quick import quick
from tests.tasks.test_image import in_every_bucket

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]

PLAIN = "tests.mask_models:plain"
SUBTASKS = ["semantic", "instance", "panoptic"]
SIZES = [(64, 64), (64, 65), (63, 95), (41, 57), (34, 96)]  # full, one over, odd
PIPELINES = {"threshold": 0.9, "mask_threshold": 0.5, "overlap_mask_area_threshold": 0.5}  # its defaults
LIMITS = [{}, {"threshold": 0.3, "overlap_mask_area_threshold": 0.1, "mask_threshold": 0.4}]
Found = list[tuple[str, Any, np.ndarray]]


def read(answer: Any) -> Found:
    """As a client reads it: a PNG in base64, black and white."""
    found = []
    for segment in answer:
        assert set(segment) == {"score", "label", "mask"}
        picture = Image.open(io.BytesIO(base64.b64decode(segment["mask"])))
        assert (picture.format, picture.mode) == ("PNG", "L")
        found.append((segment["label"], segment["score"], np.asarray(picture)))
    return found


def assert_same(answer: Any, expected: Found) -> None:
    found = read(answer)
    assert [label for label, _, _ in found] == [label for label, _, _ in expected]
    for (_, score, mask), (_, wanted, pixels) in zip(found, expected):
        assert score == (None if wanted is None else pytest.approx(wanted, abs=2e-4))
        assert mask.shape == pixels.shape
        assert np.isin(mask, (0, 255)).all()
        assert (mask != pixels).mean() < 0.005  # where two queries are as sure of a pixel, but for rounding


def processed(processor: Any, outputs: Any, size: Any, subtask: str, **limits: float) -> Found:
    """The pipeline's own last step, for what it does not take."""
    process = getattr(processor, f"post_process_{subtask}_segmentation")
    (found,) = process(outputs, target_sizes=[size], **({} if subtask == "semantic" else limits))
    if subtask == "semantic":
        return [(mask_models.LABELS[i], None, (found == i).numpy() * 255) for i in found.unique()]
    pixels = found["segmentation"]
    return [
        (mask_models.LABELS[one["label_id"]], one["score"], (pixels == one["id"]).numpy() * 255)
        for one in found["segments_info"]
    ]


def alone(model: Any, picture: Image.Image, **more: Any) -> Any:
    with torch.no_grad():
        return model(normalised(picture, IMAGENET_MEAN, IMAGENET_STD), **more)


@pytest.mark.parametrize("kind", quick(["maskformer", "detr", "mask2former"], 0))
def test_a_folder_of_transformers_answers_as_its_pipeline(kind: str, tmp_path: Path) -> None:
    import transformers

    processor = mask_models.saved(kind, tmp_path)
    model = engine(
        tmp_path, kind, task="image-segmentation", model=str(tmp_path), buckets=[[64, 64], [64, 96]]
    )
    pipe: Any = transformers.pipeline(  # type: ignore[call-overload]
        "image-segmentation", model=mask_models.made(kind), image_processor=processor
    )
    several = 0
    for size in SIZES:
        picture = photograph("coffee.png", size)
        for asked in [{}, *({"subtask": subtask, **limits} for subtask in SUBTASKS for limits in LIMITS)]:
            wanted = [(one["label"], one["score"], np.asarray(one["mask"])) for one in pipe(picture, **asked)]
            for _, answer in in_every_bucket(model, encoded(picture), **asked):
                assert_same(answer, wanted)
            several += len(wanted)
    assert several > 40


@pytest.mark.slow
def test_conditional_detr_from_a_folder(tmp_path: Path) -> None:
    processor = mask_models.saved("conditional_detr", tmp_path)
    model = engine(tmp_path, "model", task="image-segmentation", model=str(tmp_path), buckets=[[64, 96]])
    plain = mask_models.made("conditional_detr")
    for size in SIZES[1:]:
        picture = photograph("coffee.png", size)
        for subtask in SUBTASKS:
            wanted = processed(processor, alone(plain, picture), size, subtask, **LIMITS[1])
            assert_same(model(encoded(picture), subtask=subtask, **LIMITS[1]), wanted)


def test_eomt_at_its_one_size(tmp_path: Path) -> None:
    processor = mask_models.saved("eomt", tmp_path)
    model = engine(
        tmp_path,
        "model",
        task="image-segmentation",
        model=str(tmp_path),
        buckets=[[64, 64]],
        over_max="resize",
        task_options={"multiple_of": 64},
    )
    plain = mask_models.made("eomt")
    picture = photograph("coffee.png", (64, 64))
    large = picture.resize((96, 96), Image.Resampling.NEAREST)
    small = large.resize((64, 64), Image.Resampling.BILINEAR)
    several = 0
    for subtask in SUBTASKS:
        limits = {} if subtask == "instance" else {"overlap_mask_area_threshold": 0.1}
        for sent, seen in ((picture, picture), (large, small)):
            outputs = alone(plain, seen)
            wanted = processed(processor, outputs, sent.size, subtask, threshold=0.3, **limits)
            assert_same(model(encoded(sent), subtask=subtask, threshold=0.3, **limits), wanted)
            several += len(wanted)
    assert several > 10


@pytest.mark.parametrize("subtask", quick([None, "instance"]))
def test_oneformer_is_told_its_task(subtask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask_models.resize_without_torchvision(monkeypatch)
    processor = mask_models.saved("oneformer", tmp_path)
    options = {"subtask": subtask} if subtask else {}
    model = engine(
        tmp_path,
        "model",
        task="image-segmentation",
        model=str(tmp_path),
        buckets=[[64, 96]],
        task_options=options,
    )
    told = subtask or "panoptic"
    tokens = torch.zeros(1, 77, dtype=torch.int64)
    tokens[0, :4] = torch.tensor([7, 8, 9, {"panoptic": 10, "instance": 11}[told]])
    plain = mask_models.made("oneformer")
    for size in SIZES[1:]:
        picture = photograph("coffee.png", size)
        outputs = alone(plain, picture, task_inputs=tokens)
        for limits in LIMITS:
            wanted = processed(processor, outputs, size, told, **{**PIPELINES, **limits})
            assert_same(model(encoded(picture), **limits), wanted)
            assert_same(model(encoded(picture), subtask=told, **limits), wanted)
    with pytest.raises(UnprocessableInput, match=f"'subtask' must be {told}, not 'semantic'.*told its task"):
        model(encoded(picture), subtask="semantic")


# A module of one's own


def of_plain(folder: Path, **handler: Any) -> BucketedModel:
    settings = {"task": "image-segmentation", "model": PLAIN, "buckets": [[64, 64], [64, 96]]}
    return engine(folder, "plain", **{**settings, **handler})


def expected(picture: Image.Image, size: Any, subtask: str, **limits: float) -> Found:
    from transformers import MaskFormerImageProcessorPil

    outputs = SimpleNamespace(**alone(mask_models.plain(), picture))
    return processed(MaskFormerImageProcessorPil(), outputs, size, subtask, **limits)


def test_outputs_of_these_names_are_enough(tmp_path: Path) -> None:
    model = of_plain(tmp_path)
    several = 0
    for size in [*SIZES, (5, 3)]:
        picture = photograph("coffee.png", size)
        for subtask in SUBTASKS:
            limits = {"threshold": 0.3, "mask_threshold": 0.3, "overlap_mask_area_threshold": 0.2}
            wanted = expected(picture, size, subtask, **limits)
            for _, answer in in_every_bucket(model, encoded(picture), subtask=subtask, **limits):
                assert_same(answer, wanted)
            several += len(wanted)
    assert several > 60
    assert model(encoded(picture), threshold=1.0) == []
    assert model(encoded(picture), threshold=1.0, subtask="instance") == []
    two = model([encoded(photograph("coffee.png", size)) for size in SIZES[:2]])
    assert [read(one)[0][2].shape for one in two] == SIZES[:2]


def test_an_extended_picture_and_one_that_was_resized(tmp_path: Path) -> None:
    options = {"multiple_of": 32, "threshold": 0.3, "overlap_mask_area_threshold": 0.2, "subtask": "instance"}
    model = of_plain(tmp_path, task_options=options, over_max="resize")
    picture = photograph("coffee.png", (41, 57))
    pixels = np.pad(np.asarray(picture), ((0, 23), (0, 7), (0, 0)), mode="edge")
    wanted = [
        (label, score, mask[:41, :57])
        for label, score, mask in expected(Image.fromarray(pixels), (64, 64), "instance", threshold=0.3)
    ]
    assert_same(model(encoded(picture)), wanted)
    large = photograph("coffee.png", (128, 192))
    seen = large.resize((96, 64), Image.Resampling.BILINEAR)
    for subtask in SUBTASKS:
        limits = {"threshold": 0.3, "overlap_mask_area_threshold": 0.2}
        wanted = expected(seen, (128, 192), subtask, **limits)
        assert len(wanted) > 1
        assert_same(model(encoded(large), subtask=subtask), wanted)


def test_more_masks_than_the_limit_are_refused(tmp_path: Path) -> None:
    model = of_plain(tmp_path, task_options={"max_mask_pixels": 3 * 64 * 64})
    raw = encoded(photograph("coffee.png", (64, 64)))
    for subtask in ("instance", "panoptic"):
        assert len(read(model(raw, subtask=subtask, threshold=0.99))) <= 3
        with pytest.raises(InputTooLarge, match=r"of 64x64 pixels each.*12288 .*max_mask_pixels.*threshold"):
            model(raw, subtask=subtask, threshold=0.0)
    assert len(model(raw, subtask="semantic")) > 1


def test_a_subtask_that_is_not_known_or_not_had_is_named(tmp_path: Path) -> None:
    model = of_plain(tmp_path)
    with pytest.raises(
        UnprocessableInput, match="'subtask' must be one of semantic, instance, panoptic, not"
    ):
        model.task.check_parameters({"subtask": "depth"})
    with pytest.raises(
        UnprocessableInput, match="'overlap_mask_area_threshold' must be a number from 0 to 1"
    ):
        model.task.check_parameters({"overlap_mask_area_threshold": 2})
    classes = of_plain(tmp_path, model="tests.image_models:quarter")
    raw = encoded(photograph("coffee.png", (40, 50)))
    assert classes(raw, subtask="semantic") == classes(raw)
    for subtask in ("instance", "panoptic"):
        with pytest.raises(
            UnprocessableInput, match=f"must be semantic, not '{subtask}'.* knows no instances"
        ):
            classes(raw, subtask=subtask)


def of_another_kind() -> Any:
    model: Any = mask_models.plain()
    model.config = SimpleNamespace(model_type="rf_detr", id2label={})
    return model


class OneMask(mask_models.Plain):
    def forward(self, pixel_values: torch.Tensor) -> Any:
        answer = super().forward(pixel_values)
        return {**answer, "masks_queries_logits": answer["masks_queries_logits"][:, 0]}


def of_one_mask() -> Any:
    return OneMask().eval()


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        ({"over_max": "tile"}, "over_max: tile does not do for queries"),
        ({"model": f"{__name__}:of_another_kind"}, "a rf_detr model answers is not known; known are cond"),
        ({"model": f"{__name__}:of_one_mask"}, r"and masks \[1, 16, 16\] of its queries are not \[batch"),
        ({"task_options": {"subtask": "depth"}}, "task_options.subtask must be one of semantic"),
        ({"task_options": {"threshold": 2}}, "task_options.threshold must be a number from 0 to 1, not 2"),
        ({"task_options": {"max_mask_pixels": 0}}, "task_options.max_mask_pixels must be a whole number"),
    ],
)
def test_what_does_not_do_is_named(handler: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, BuildError), match=says):
        of_plain(tmp_path, **handler)
