"""The recipes' own models: their weights are the real ones, and are checked before they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recipes.models.deepcr import deepcr
from recipes.models.mobilenet import mobilenet_v2
from recipes.models.pnet import pnet
from recipes.models.weights import WeightsError, packaged_file
from recipes.models.yolov3_tiny import YoloV3Tiny, read_darknet, yolov3_tiny


def test_mobilenet_has_a_name_for_each_class() -> None:
    model = mobilenet_v2()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 1000)
    assert len(model.labels) == 1000
    assert model.labels[0] == "tench, Tinca tinca"
    assert model.labels[285] == "Egyptian cat"


def test_yolo_has_two_heads_with_three_anchors_each() -> None:
    model = yolov3_tiny()
    with torch.no_grad():
        coarse, fine = model(torch.zeros(1, 3, 64, 96))
    assert coarse.shape == (1, 255, 2, 3)
    assert fine.shape == (1, 255, 4, 6)
    assert [len(head) for head in model.anchors] == [3, 3]
    assert len(model.labels) == 80
    assert (model.labels[0], model.labels[79]) == ("person", "toothbrush")


@pytest.mark.parametrize("values", [8_000_000, 9_000_000])
def test_darknet_weights_must_fit_exactly(values: int) -> None:
    with pytest.raises(ValueError, match="the weights file"):
        read_darknet(YoloV3Tiny(), torch.zeros(values))


def test_segmentation_and_faces() -> None:
    with torch.no_grad():
        assert deepcr()(torch.zeros(1, 1, 6, 8)).shape == (1, 1, 6, 8)
        offsets, faces = pnet()(torch.zeros(1, 3, 12, 14))
    assert offsets.shape == (1, 4, 1, 2)
    assert torch.allclose(faces.sum(1), torch.ones(1, 1, 2))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_weights").mkdir()
    (tmp_path / "some_weights" / "__init__.py").write_text("raise ImportError('never imported')\n")
    (tmp_path / "some_weights" / "file.bin").write_bytes(b"abc")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "some_weights"


ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_file_is_found_without_importing_the_package(package: str) -> None:
    assert packaged_file(package, "file.bin", ABC, 3).read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("name", "sha256", "size", "says"),
    [
        ("file.bin", "0" * 64, 3, "has sha256"),
        ("file.bin", ABC, 4, "not 4 bytes long"),
        ("other.bin", ABC, 3, "is missing"),
    ],
)
def test_another_file_is_refused(package: str, name: str, sha256: str, size: int, says: str) -> None:
    with pytest.raises(WeightsError, match=f"{says}.*run: make distclean weights"):
        packaged_file(package, name, sha256, size)


def test_missing_package_says_what_to_install() -> None:
    with pytest.raises(WeightsError, match="no_such_package_here are not installed; run: make weights"):
        packaged_file("no_such_package_here", "file", ABC, 3)
