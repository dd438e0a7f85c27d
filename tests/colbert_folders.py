"""Small models of late interaction with random weights, in the three layouts that they are kept in."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

PUNCTUATION = list(string.punctuation)
FIXED = {"strategy": "fixed", "length": 12}


def dense(inputs: int, outputs: int, **options: Any) -> Any:
    torch.manual_seed(inputs)
    return Dense(inputs, outputs, activation_function=torch.nn.Identity(), **options)


def native(folder: Path, to: Path, *, mask: Any = None, prompts: Any = None, **settings: Any) -> Path:
    """As sentence-transformers saves such a model."""
    projection = dense(16, 8, bias=False, module_input_name="token_embeddings")
    mask = mask or MultiVectorMask(skiplist_words=PUNCTUATION)
    modules = [Transformer(str(folder), **settings), projection, mask, Normalize("token_embeddings")]
    MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts).save(str(to))
    return to


def pylate(folder: Path, to: Path, **settings: Any) -> Path:
    """As PyLate saves it: two modules, and all else in the settings; the markers are tokens of their own."""
    own = {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 12, "document_length": 30}
    plain = Transformer(str(folder))
    plain.tokenizer.add_tokens(["[Q] ", "[D] "])
    torch.manual_seed(1)
    plain.auto_model.resize_token_embeddings(len(plain.tokenizer), mean_resizing=False)
    plain.save(str(to))
    projection = dense(16, 8, bias=False)
    (to / "1_Dense").mkdir()
    projection.save(str(to / "1_Dense"))
    config = to / "1_Dense" / "config.json"
    kept = json.loads(config.read_text(encoding="utf-8"))
    kept = {key: value for key, value in kept.items() if not key.startswith("module_")}
    config.write_text(json.dumps({**kept, "use_residual": False}), encoding="utf-8")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    (to / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    described = {"model_type": "ColBERT", "prompts": {}, **own, **settings}
    path = to / "config_sentence_transformers.json"
    path.write_text(json.dumps(described), encoding="utf-8")
    return to


def stanford(folder: Path, to: Path) -> Path:
    """As Stanford's own code saves it: one file of weights, and no modules."""
    to.mkdir()
    weights = {f"bert.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    torch.manual_seed(3)
    weights["linear.weight"] = torch.randn(8, 16)
    save_file(weights, to / "model.safetensors", {"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (to / name).write_bytes((folder / name).read_bytes())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (to / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}), encoding="utf-8")
    metadata = {"query_maxlen": 14, "doc_maxlen": 28, "attend_to_mask_tokens": False}
    (to / "artifact.metadata").write_text(json.dumps(metadata), encoding="utf-8")
    return to
