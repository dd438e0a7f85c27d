"""Every task, exact pictures and rows of several texts, compiled for both generations of Neuron's stand-ins.

The build runs each program on the stand-in's device and compares it with the unpadded model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anyshape.building.build import build
from anyshape.tasks import TASKS
from tests.colbert_folders import pylate
from tests.conftest import save_bert, write_recipe

pytestmark = pytest.mark.slow

STAND_INS = Path(__file__).parent / "neuron_stand_ins"
LABELS = {0: "entailment", 1: "neutral", 2: "contradiction"}
CLASSES = {"id2label": LABELS, "label2id": {label: number for number, label in LABELS.items()}}
TEXT_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "feature-extraction": ("BertModel", {}),
    "fill-mask": ("BertForMaskedLM", {}),
    "multi-vector-embedding": ("BertModel", {}),
    "question-answering": ("BertForQuestionAnswering", {}),
    "sentence-embedding": ("BertModel", {}),
    "sparse-embedding": ("BertForMaskedLM", {}),
    "text-classification": ("BertForSequenceClassification", CLASSES),
    "text-ranking": ("BertForSequenceClassification", {"num_labels": 1}),
    "token-classification": ("BertForTokenClassification", CLASSES),
    "zero-shot-classification": ("BertForSequenceClassification", CLASSES),
}
PICTURE_MODELS = {
    "image-classification": "resnet_classifier",
    "image-feature-extraction": "resnet",
    "image-segmentation": "quarter",
    "object-detection": "detr",
}
IN_ROWS = ["feature-extraction", "sentence-embedding", "text-classification", "token-classification"]
# Tasks trace in much the same way: the quick tests take what differs, `make test-slow` all of them.
QUICK = {
    "neuron": ["sentence-embedding", "image-classification"],
    "neuronx": [
        *("question-answering", "sentence-embedding"),
        *("image-classification", "image-segmentation", "object-detection", "waves"),
    ],
}


@pytest.fixture(scope="module", autouse=True)
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STAND_INS))
        patch.setenv("NEURON_STAND_IN_LOCKS", str(tmp_path_factory.mktemp("cores")))
        patch.setenv("NEURON_STAND_IN_CORES", "2")
        patch.setenv("NEURON_RT_NUM_CORES", "1")
        yield


def both(names: list[str]) -> list[Any]:
    return [
        pytest.param(backend, name, marks=[] if name in quick else pytest.mark.slow)
        for backend, quick in QUICK.items()
        for name in names
    ]


def assert_exact(work: Path, backend: str, **handler: Any) -> None:
    recipe = write_recipe(work, backend=backend, largest_batch=None, **handler)
    index = build(recipe, work / "store", jobs=1).index
    assert index.exact
    assert len(index.programs) == len(handler["buckets"]) * len(handler["batch_sizes"])
    assert all(program.deviation is not None and program.deviation < 1e-4 for program in index.programs)


def test_every_task_is_here() -> None:
    assert set(TASKS) == {*TEXT_MODELS, *PICTURE_MODELS, "audio-classification"}


@pytest.mark.parametrize(("backend", "task"), both(list(TEXT_MODELS)))
def test_a_task_on_texts(backend: str, task: str, tmp_path: Path, tokenizer: Any) -> None:
    kind, config = TEXT_MODELS[task]
    model = save_bert(tmp_path / "model", kind, tokenizer, **config)
    if task == "multi-vector-embedding":
        model = pylate(model, tmp_path / "colbert")
    assert_exact(tmp_path, backend, task=task, model=str(model), buckets=[14, 32], batch_sizes=[2])


@pytest.mark.parametrize(("backend", "task"), both(list(PICTURE_MODELS)))
def test_a_task_on_pictures_with_exact_padding(backend: str, task: str, tmp_path: Path) -> None:
    model = f"tests.image_models:{PICTURE_MODELS[task]}"
    assert_exact(tmp_path, backend, task=task, model=model, buckets=[[64, 96]], batch_sizes=[1, 2])


@pytest.mark.parametrize(("backend", "task"), both(IN_ROWS))
def test_rows_of_several_texts(backend: str, task: str, tmp_path: Path, tokenizer: Any) -> None:
    kind, config = TEXT_MODELS[task]
    model = save_bert(tmp_path / "model", kind, tokenizer, **config)
    rows = {"layout": "rows", "segments": 4, "buckets": [32], "batch_sizes": [1, 2]}
    assert_exact(tmp_path, backend, task=task, model=str(model), **rows)


@pytest.mark.parametrize(("backend", "model"), both(["waves"]))
def test_a_task_on_sounds(backend: str, model: str, tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="the extra `audio` is not installed")
    sounds = {"task": "audio-classification", "model": f"tests.audio_models:{model}"}
    assert_exact(tmp_path, backend, buckets=[4000], batch_sizes=[1], **sounds)
