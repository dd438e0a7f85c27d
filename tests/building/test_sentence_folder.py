"""What a model's files or a recipe say of sentence embeddings and is not known is refused by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.errors import ConfigError
from tests.conftest import write_recipe


@pytest.fixture(scope="module")
def dense_folder(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    """A folder of sentence-transformers: mean pooling and a Dense."""
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules as parts

    folder = tmp_path_factory.mktemp("dense") / "model"
    modules = [parts.Transformer(str(encoder_folder)), parts.Pooling(16), parts.Dense(16, 12)]
    library.SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pooling": "median"}, "task_options.pooling must be one or a list of cls, last_token, max"),
        ({"pooling": []}, "task_options.pooling must be"),
        ({"pooling": [["mean"]]}, "task_options.pooling must be"),
        ({"normalize": "no"}, "task_options.normalize must be true or false, not 'no'"),
        ({"include_prompt": 0}, "task_options.include_prompt must be true or false"),
        ({"prompts": ["a"]}, "task_options.prompts must be texts by their names"),
        ({"prompts": {"a": 1}}, "task_options.prompts must be texts by their names"),
        ({"default_prompt": "a"}, "default_prompt: there is no prompt 'a'; there are none"),
        ({"max_length": 0}, "task_options.max_length must be a positive whole number"),
        ({"dimensions": True}, "task_options.dimensions must be a positive whole number"),
    ],
)
def test_a_wrong_key_of_the_recipe_is_named(
    options: Any, says: str, encoder_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BuildError) as refused:
        build(
            write_recipe(
                tmp_path, task="sentence-embedding", model=str(encoder_folder), task_options=options
            ),
            tmp_path / "store",
        )
    assert says in str(refused.value)


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def module(i: int, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "modules.json"
        modules = json.loads(path.read_text())
        modules[i].update(changes)
        path.write_text(json.dumps(modules))

    return edit


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def _other_shape(folder: Path) -> None:
    torch.save({"linear.weight": torch.zeros(2, 2)}, folder / "2_Dense/pytorch_model.bin")
    (folder / "2_Dense/model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        *(
            (module(2, type=f"sentence_transformers.models.{kind}"), f"the module {kind}; after Transformer")
            for kind in ("CNN", "LSTM", "WordWeights", "WeightedLayerPooling", "Router", "Asym")
        ),
        (
            module(0, type="sentence_transformers.models.StaticEmbedding"),
            "begins with StaticEmbedding and Pooling",
        ),
        (module(0, type="sentence_transformers.models.BoW"), "begins with BoW and Pooling"),
        (module(1, type="sentence_transformers.models.Dense"), "begins with Transformer and Dense"),
        (module(1, type="custom.Pooling"), "the module 'custom.Pooling', which is code of the model's own"),
        (module(1, path="../other"), "the path '../other', which is not inside"),
        (written("modules.json", b"{"), "modules.json cannot be read"),
        (written("modules.json", b"{}"), "modules.json holds no list of modules"),
        (
            edited("1_Pooling/config.json", pooling_mode="median"),
            "1_Pooling/config.json has pooling_mode 'median'",
        ),
        (edited("1_Pooling/config.json", query_only=True), "1_Pooling/config.json has query_only, which"),
        (
            edited("2_Dense/config.json", activation_function="os.system"),
            "activation_function os.system; known",
        ),
        (
            edited("2_Dense/config.json", activation_function="torch.nn.PReLU"),
            "activation_function torch.nn.PReLU",
        ),
        (
            edited("2_Dense/config.json", module_input_name="token_embeddings"),
            "module_input_name 'token_embeddings'",
        ),
        (edited("2_Dense/config.json", gate=1), "2_Dense/config.json has gate, which"),
        (lambda folder: (folder / "2_Dense/model.safetensors").unlink(), "2_Dense has no weights"),
        (written("2_Dense/model.safetensors", b"\0" * 50), "the weights of 2_Dense cannot be loaded"),
        (_other_shape, "size mismatch for linear.weight"),
        (
            edited("sentence_bert_config.json", transformer_task="fill-mask"),
            "has transformer_task 'fill-mask'",
        ),
        (edited("sentence_bert_config.json", query_expansion={"length": 8}), "has query_expansion"),
        (edited("sentence_bert_config.json", model_args={"rope_scaling": 2}), "has model_args.rope_scaling"),
        (
            edited("sentence_bert_config.json", modality_config={"message": {"method": "forward"}}),
            "has modality_config",
        ),
        (edited("sentence_bert_config.json", max_seq_length="long"), "max_seq_length 'long'"),
        (edited("sentence_bert_config.json", strange=3), "sentence_bert_config.json has strange, which"),
        (written("sentence_bert_config.json", b"[1]"), "sentence_bert_config.json holds no object"),
        (written("1_Pooling/config.json", b"[1]"), "1_Pooling/config.json holds no object"),
        (
            written("config_sentence_transformers.json", b"[]"),
            "config_sentence_transformers.json holds no object",
        ),
        (
            edited("config_sentence_transformers.json", prompts=["a"]),
            "has prompts ['a'], which are not texts",
        ),
        (
            edited("config_sentence_transformers.json", truncate_dim="8"),
            "truncate_dim '8', which is no number",
        ),
        (edited("config_sentence_transformers.json", truncate_dim=0), "truncate_dim 0, which is no number"),
        (edited("1_Pooling/config.json", pooling_mode=["a"]), "pooling_mode 'a'"),
        (edited("2_Dense/config.json", activation_function=3), "make no sense (AttributeError"),
        (edited("config_sentence_transformers.json", model_type="SparseEncoder"), "this is a SparseEncoder"),
        (edited("config_sentence_transformers.json", default_prompt_name="q"), "there is no prompt 'q'"),
    ],
)
def test_what_is_not_known_in_a_folder_is_refused_by_name(
    damage: Callable[[Path], None], says: str, dense_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(dense_folder, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises((BuildError, ConfigError)) as refused:
        build(write_recipe(tmp_path, task="sentence-embedding", model="./model"), tmp_path / "store")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_adapter_beside_a_model_is_refused_by_name(dense_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(dense_folder, tmp_path / "model")
    adapter = {"peft_type": "LORA", "r": 4, "target_modules": ["query"]}
    (tmp_path / "model/adapter_config.json").write_text(json.dumps(adapter))
    for task in ("sentence-embedding", "feature-extraction"):
        with pytest.raises(
            BuildError, match=r"has an adapter \(adapter_config\.json\), which is not applied"
        ):
            build(write_recipe(tmp_path, task=task, model="./model"), tmp_path / "store")
