"""`anyshape score` on pictures: folders, tars and Parquet, answered as transformers' pipeline does."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests import image_models
from tests.image_models import built, encoded, photograph
from tests.scoring.rows import write_tar
from tests.scoring.test_score import score

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("one_thread")]
BUCKETS = [[96, 128], [128, 96], [128, 128]]
SIZES = [(96, 128), (77, 121), (128, 90), (128, 128), (64, 64), (100, 33)]
NAMES = ["chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png", "ihc.png"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    model = "tests.image_models:resnet_classifier"
    return built(folder, "resnet", task="image-classification", model=model, buckets=BUCKETS)


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    """Files by their names: six photographs in several forms, one that is cut off, one that is too large."""
    forms = ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]
    shown = [photograph(name, size) for name, size in zip(NAMES, SIZES)]
    files = {f"{i}.{form.lower()}": encoded(each, form) for i, (each, form) in enumerate(zip(shown, forms))}
    files["cut.png"] = files["0.png"][:2000]
    files["large.jpg"] = encoded(photograph("coffee.png", (129, 40)), "JPEG")
    return files


@pytest.fixture(scope="module")
def expected(pictures: dict[str, bytes]) -> dict[str, list[dict[str, Any]]]:
    """What transformers' pipeline says of each picture at its own size."""
    from transformers import ConvNextImageProcessorPil as ConvNextImageProcessor
    from transformers import pipeline

    processor = ConvNextImageProcessor(
        do_resize=False, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    ask = pipeline("image-classification", model=image_models.resnet_classifier(), image_processor=processor)
    good = {name: raw for name, raw in pictures.items() if name[0].isdigit()}
    return {name: ask(Image.open(io.BytesIO(raw)).convert("RGB"), top_k=5) for name, raw in good.items()}


def assert_right(row: dict[str, Any], name: str, expected: dict[str, list[dict[str, Any]]]) -> None:
    if name == "cut.png":
        assert (row["status"], row["error"], row["answer"]) == (400, "BadRequest", None)
    elif name == "large.jpg":
        assert (row["status"], row["error"]) == (413, "InputTooLarge")
        assert "129x40" in row["message"]
    else:
        assert row["status"] == 200, row["message"]
        assert row["bucket"] in ("96x128", "128x96", "128x128")
        answer = json.loads(row["answer"])
        assert [each["label"] for each in answer] == [each["label"] for each in expected[name]]
        scores = [each["score"] for each in expected[name]]
        assert [each["score"] for each in answer] == pytest.approx(scores, abs=1e-5)


def test_a_folder_of_pictures(
    archive: Path,
    pictures: dict[str, bytes],
    expected: dict[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for i, (name, raw) in enumerate(pictures.items()):
        (folder / ("below" if i % 2 else "") / name).write_bytes(raw)
    (folder / "README.txt").write_text("no picture", encoding="utf-8")
    rows = score(archive, folder, tmp_path / "out", "--rows", "3")
    assert [row["key"] for row in rows] == sorted(str(path.relative_to(folder)) for path in paths(folder))
    for row in rows:
        assert_right(row, Path(row["key"]).name, expected)


def paths(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".txt"]


def test_tars_of_pictures(
    archive: Path,
    pictures: dict[str, bytes],
    expected: dict[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    """Shards as WebDataset writes them: every sample a picture under one suffix, and a class beside it."""
    names = list(pictures)
    for shard in range(2):
        samples = [
            {"jpg": raw, "json": json.dumps({"name": name}).encode()}
            for name, raw in list(pictures.items())[shard::2]
        ]
        write_tar(tmp_path / f"shard-{shard}.tar", samples)
    rows = score(archive, tmp_path / "shard-*.tar", tmp_path / "out", "--rows", "3", "--keep", "json")
    assert [Path(row["file"]).name for row in rows] == ["shard-0.tar"] * 4 + ["shard-1.tar"] * 4
    told = [json.loads(row["input_json"])["name"] for row in rows]
    assert told == [*names[::2], *names[1::2]]
    for row, name in zip(rows, told):
        assert_right(row, name, expected)


def test_parquet_as_datasets_writes_pictures(
    archive: Path,
    pictures: dict[str, bytes],
    expected: dict[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    cells = [{"bytes": raw, "path": name} for name, raw in pictures.items()]
    parquet.write_table(pa.table({"image": cells, "name": list(pictures)}), tmp_path / "pictures.parquet")
    rows = score(archive, tmp_path / "pictures.parquet", tmp_path / "out", "--keep", "name")
    assert [row["input_name"] for row in rows] == list(pictures)
    for row in rows:
        assert_right(row, row["input_name"], expected)
