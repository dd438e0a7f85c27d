"""What every sentence-embedding baseline shares: tokens in, one JSON list of numbers out.

Tuned as a careful user would: the Rust tokenizer without its own threads, one thread pool per worker,
warmed with several lengths before the first request, and answers handed to the server as bytes
that orjson wrote (a list would go through `json.dumps(indent=2)`). The servers differ only in who
calls `embed`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import orjson
import torch
from tokenizers import Tokenizer

MAX_TOKENS = 512
WARM_LENGTHS = (8, 16, 33, 64, 100, 128, 200, 256, 400, 512)


def to_json(vector: np.ndarray) -> bytes:
    """The body of one answer, written by the encoder that the bucketed handler uses too."""
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)


class SentenceBaseline:
    """Subclasses say how to `load` and how to `run` one padded array.

    Settings: `threads` (of one worker's engine), `together` (run all texts of a hand-over as one array
    padded to the longest, or one by one) and `dtype`.
    """

    def initialize(self, context: Any) -> None:
        """TorchServe's way in."""
        folder = Path(context.system_properties["model_dir"])
        self.set_up(folder, context.model_yaml_config["handler"])

    def set_up(self, folder: Path, settings: dict[str, Any]) -> None:
        self.settings = settings
        torch.set_num_threads(settings["threads"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.load(folder)
        self.warm()

    def load(self, folder: Path) -> None:
        raise NotImplementedError

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """ids, mask: int64 [rows, tokens] → normalised embeddings, float32 [rows, 384]."""
        raise NotImplementedError

    def width(self, longest: int) -> int:
        """How wide the array for texts of at most `longest` tokens is made."""
        return longest

    def warm(self) -> None:
        widths = sorted({self.width(length) for length in WARM_LENGTHS})
        for _ in range(4):
            for width in widths:
                self.run_padded([[101] * width])
        if self.settings["together"]:
            for width in widths:
                self.run_padded([[101] * width] * self.settings["batch_size"])

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """TorchServe's entry: one dict per request in, one body per request out."""
        texts = [row["body"] if "body" in row else row["data"] for row in data]
        texts = [text if isinstance(text, str) else bytes(text).decode() for text in texts]
        answers, ratios = self.embed(texts)
        if self.settings["together"]:
            for place, ratio in enumerate(ratios):
                context.set_response_header(place, "X-Padding-Ratio", f"{ratio:.4f}")
        return [to_json(answer) for answer in answers]

    def embed(self, texts: list[str]) -> tuple[list[np.ndarray], list[float]]:
        """Embeddings in the texts' order, and executed ÷ real tokens of the array each was part of."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        groups = [rows] if self.settings["together"] else [[row] for row in rows]
        answers: list[np.ndarray] = []
        ratios: list[float] = []
        for group in groups:
            vectors, ratio = self.run_padded(group)
            answers.extend(vectors)
            ratios.extend([ratio] * len(group))
        return answers, ratios

    def run_padded(self, rows: list[list[int]]) -> tuple[np.ndarray, float]:
        width = self.width(max(map(len, rows)))
        ids = np.zeros((len(rows), width), dtype=np.int64)  # BERT's padding token is 0
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
            mask[place, : len(row)] = 1
        return self.run(ids, mask), ids.size / float(mask.sum())


class TorchSentenceBaseline(SentenceBaseline):
    """For engines that take and give torch tensors."""

    def model(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            vectors: np.ndarray = self.model(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()
            return vectors
