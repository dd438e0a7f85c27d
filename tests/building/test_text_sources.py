"""Folders of text models that hold more than a model: an encoder with its decoder, code of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from anyshape import BucketedModel
from anyshape.building.build import build
from anyshape.building.errors import BuildError
from tests.building.test_classifiers import END, PAD, TEXTS, WORDS, save_tokenizer
from tests.conftest import assert_close, write_recipe

OWN = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class OwnConfig(PretrainedConfig):
    model_type = "nobody_has_this_type"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.table = torch.nn.Embedding(60, 8)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        return (self.table(input_ids) * 2,)
"""


@pytest.mark.parametrize("kind", ["T5", "UMT5"])
def test_of_an_encoder_decoder_for_texts_the_encoder_is_loaded(tmp_path: Path, kind: str) -> None:
    """As sentence-t5 and gtr are published: transformers' AutoModel would ask for the decoder's inputs."""
    import transformers

    small = {"vocab_size": WORDS, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    config = getattr(transformers, f"{kind}Config")(**small, pad_token_id=PAD, eos_token_id=END)
    torch.manual_seed(0)
    encoder = getattr(transformers, f"{kind}EncoderModel")(config).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.4)
    encoder.save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model", "$A </s>")
    recipe = write_recipe(tmp_path, task="sentence-embedding", model="model", buckets=[8, 16])
    built = BucketedModel.load(build(recipe, tmp_path / "store").path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for text, vector in zip(TEXTS, built(TEXTS)):
        with torch.no_grad():
            mean = encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert_close(vector, mean / mean.norm())


def save_own(folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    auto = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    config = {"model_type": "nobody_has_this_type", "architectures": ["OwnModel"], "auto_map": auto}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({"table.weight": torch.rand(60, 8)}, folder / "model.safetensors", {"format": "pt"})
    save_tokenizer(folder, "$A </s>")


def test_code_of_the_models_own_runs_only_where_the_recipe_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", asked)
    save_own(tmp_path / "own_model")
    chosen: dict[str, Any] = {"task": "feature-extraction", "model": "own_model", "buckets": [4, 8]}
    with pytest.raises(BuildError, match=r"own_model brings Python code of its own.*trust_remote_code: true"):
        build(write_recipe(tmp_path, **chosen), tmp_path / "store")
    trusting = write_recipe(tmp_path, **chosen, trust_remote_code=True)
    built = BucketedModel.load(build(trusting, tmp_path / "store").path)
    (tokens,) = built("w1 w2")
    assert len(tokens) == 3


def asked(*_: Any) -> str:
    raise AssertionError("nobody is to be asked at the terminal")
