"""Swaps of other models than embeddings, through the front, under clients that check every answer; and a
TorchServe that is started again after them."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
import yaml
from PIL import Image

from anyshape.building.build import build
from anyshape.cli.main import main
from tests import image_models
from tests.conftest import TextOf, assert_close, write_recipe
from tests.image_models import encoded, normalised, photograph
from tests.server.asking import Asked, asking
from tests.server.fronted import Fronted

pytestmark = pytest.mark.faults
Make = Callable[[str, str], Path]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what a model that says nothing gets


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, classifier_folder: Path) -> Make:
    """make("pictures", "2.0"): the archive of that model and version."""
    folder = tmp_path_factory.mktemp("kinds")
    texts = write_recipe(folder, "classes", task="text-classification", model=str(classifier_folder))
    pictures = folder / "pictures.yaml"
    handler = {
        "task": "image-classification",
        "model": "tests.image_models:resnet_classifier",
        "buckets": [[96, 128], [128, 128]],
        "largest_batch": 2,
        "threads": 1,
    }
    pictures.write_text(yaml.safe_dump({"minWorkers": 1, "maxWorkers": 1, "handler": handler}))
    recipes = {"classes": texts, "pictures": pictures}
    return lambda name, version: build(recipes[name], folder / version, version).path


@pytest.fixture(scope="module")
def front(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("fronted")
    (folder / "store").mkdir()
    for name in ("classes", "pictures"):
        shutil.copy(make(name, "1.0"), folder / "store")
    with Fronted(folder, "classes", "--model", "pictures", "--enable-model-api") as front:
        yield front


def scored(expected: list[dict[str, Any]]) -> Callable[[Any], None]:
    """The same labels in the same order, with the same scores."""

    def check(answer: Any) -> None:
        found = answer if isinstance(answer, list) else [answer]
        assert [each["label"] for each in found] == [each["label"] for each in expected]
        assert_close([each["score"] for each in found], [each["score"] for each in expected])

    return check


@pytest.fixture(scope="module")
def asked(classifier_folder: Path, text_of: TextOf) -> dict[str, list[Asked]]:
    """What is asked of each model, and what the plain one says, one input at a time and unpadded."""
    from transformers import pipeline

    plain = pipeline("text-classification", str(classifier_folder), device="cpu")
    texts = [text_of(size) for size in (3, 8, 9, 17, 31)]
    model = image_models.resnet_classifier()
    pictures = []
    for size in ((64, 96), (90, 70), (128, 128)):
        raw = encoded(photograph("chelsea.png", size))
        with torch.inference_mode():
            logits = model(normalised(Image.open(io.BytesIO(raw)).convert("RGB"), MEAN, STD)).logits[0]
        best = logits.softmax(-1).topk(5)
        names = [model.config.id2label[int(index)] for index in best.indices]
        told = [{"label": name, "score": float(s)} for name, s in zip(names, best.values)]
        pictures.append(Asked(raw, "image/png", scored(told)))
    return {
        "classes": [Asked(text.encode(), "text/plain", scored(plain(text))) for text in texts],
        "pictures": pictures,
    }


def addresses(front: Fronted) -> list[str]:
    urls = zip(("--inference", "--server", "--metrics"), front.ports)
    given = [word for flag, port in urls for word in (flag, f"http://127.0.0.1:{port}")]
    return [*given, "--key-file", str(front.run / "key_file.json"), "--store", str(front.store)]


def default(front: Fronted, name: str) -> str:
    key = json.loads((front.run / "key_file.json").read_text())["management"]["key"]
    url = f"http://127.0.0.1:{front.ports[1]}/models/{name}"
    (described,) = httpx.get(url, headers={"Authorization": f"Bearer {key}"}).json()
    return str(described["modelVersion"])


@pytest.mark.parametrize("name", ["classes", "pictures"])
def test_a_swap_and_one_back_lose_nothing(
    name: str,
    front: Fronted,
    make: Make,
    asked: dict[str, list[Asked]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, given = f"{front.url}/predictions/{name}", addresses(front)
    with asking(url, front.token, asked[name], clients=8) as wrong:
        time.sleep(1)
        assert main(["swap", str(make(name, "2.0")), *given]) == 0, capsys.readouterr().err
        said = capsys.readouterr().out
        assert "sample requests are answered as when it was built" in said
        assert default(front, name) == "2.0"
        assert main(["swap", str(front.store / f"{name}-1.0.mar"), *given]) == 0, capsys.readouterr().err
        assert default(front, name) == "1.0"
    assert wrong == []


def test_after_a_swap_a_torchserve_that_is_killed_comes_back_with_the_new_version(
    front: Fronted, make: Make, asked: dict[str, list[Asked]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["swap", str(make("classes", "3.0")), *addresses(front)]) == 0, capsys.readouterr().err
    time.sleep(2.5)
    processes = psutil.Process(front.process.pid).children(recursive=True)
    (java,) = [each for each in processes if "java" in each.name()]
    java.kill()
    deadline = time.monotonic() + 90
    while front.http.get(f"{front.url}/readyz").status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while front.http.get(f"{front.url}/readyz").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert default(front, "classes") == "3.0"
    assert default(front, "pictures") == "1.0"
    for name, every in asked.items():
        for one in every:
            answer = front.post(f"/predictions/{name}", one.body, one.kind)
            assert answer.status_code == 200, answer.text
            one.check(answer.json())
